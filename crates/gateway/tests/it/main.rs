//! The use cases over a real store and the built-in policy, without a runner: what is decided, not what is run.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::time::Duration;

use provara_domain::{CommandText, Digest, Name, Note, ProfileName, Role, Status};
use provara_gateway::{
    Approval, ControlError, DecideError, Edit, Idempotent, LookupError, Proposal, ProposeError, Proposed,
};
use provara_testkit::{World, agent, approver, proposal, somebody, world};

/// How many plans an agent may have pending in these tests.
const CAP: u32 = 5;

async fn queued(world: &World, command: &str) -> provara_gateway::PlanRecord {
    match world.gateway.propose(&agent(), proposal(command)).await.unwrap() {
        Proposed::Queued(record) => record,
        other => panic!("{command} was not queued: {other:?}"),
    }
}

#[tokio::test]
async fn even_an_allowed_command_waits_for_a_person() {
    let world = world(CAP).await;
    let record = queued(&world, "ls").await;
    assert_eq!(record.status, Status::Pending);
    assert_eq!(record.plan.cwd.as_str(), "/srv/work");
}

#[tokio::test]
async fn an_agent_decides_nothing_and_sees_no_other_agents_plan() {
    let world = world(CAP).await;
    let id = queued(&world, "ls").await.plan.id;
    let approval = world.gateway.approve(&agent(), &id, Approval::default()).await;
    assert!(matches!(approval, Err(DecideError::NotAnApprover)), "{approval:?}");
    let denial = world.gateway.deny(&agent(), &id, None).await;
    assert!(matches!(denial, Err(DecideError::NotAnApprover)), "{denial:?}");
    let edit = world.gateway.edit(&agent(), &id, Edit::default()).await;
    assert!(matches!(edit, Err(DecideError::NotAnApprover)), "{edit:?}");
    let other = somebody("other", &[Role::Agent]);
    assert!(matches!(world.gateway.command(&other, &id).await, Err(LookupError::NoPlan { .. })));
    assert!(matches!(world.gateway.cancel(&other, &id).await, Err(ControlError::NotFound { .. })));
    assert_eq!(world.gateway.command(&agent(), &id).await.unwrap().status, Status::Pending);
}

#[tokio::test]
async fn a_person_cannot_propose_what_they_would_then_approve() {
    let world = world(CAP).await;
    let refused = world.gateway.propose(&approver(), proposal("ls")).await;
    assert!(matches!(refused, Err(ProposeError::NotAnAgent)), "{refused:?}");
}

#[tokio::test]
async fn a_denied_command_is_stored_and_troubles_nobody() {
    let world = world(CAP).await;
    let Proposed::Blocked(record) = world.gateway.propose(&agent(), proposal("rm -rf /")).await.unwrap() else {
        panic!("not blocked")
    };
    assert_eq!(record.status, Status::Blocked);
    assert!(!record.judgement.reasons.is_empty());
    let approval = world.gateway.approve(&approver(), &record.plan.id, Approval::default()).await;
    assert!(matches!(approval, Err(DecideError::Conflict { .. })), "{approval:?}");
}

#[tokio::test]
async fn of_sixteen_decisions_at_once_exactly_one_wins() {
    let world = world(CAP).await;
    for round in 0..20 {
        let id = queued(&world, &format!("echo {round}")).await.plan.id;
        let decisions = (0..16).map(|n| {
            let (gateway, id) = (world.gateway.clone(), id.clone());
            tokio::spawn(async move {
                if n % 2 == 0 {
                    gateway.approve(&approver(), &id, Approval::default()).await
                } else {
                    gateway.deny(&approver(), &id, None).await
                }
            })
        });
        let mut won = 0;
        for decision in decisions.collect::<Vec<_>>() {
            match decision.await.unwrap() {
                Ok(_) => won += 1,
                Err(DecideError::Conflict { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(won, 1);
        // The plan may be approved now; nobody runs it here, and the next round needs room.
        let _ = world.gateway.cancel(&approver(), &id).await;
    }
}

#[tokio::test]
async fn a_decision_binds_the_digest_that_was_seen() {
    let world = world(CAP).await;
    let record = queued(&world, "make install").await;
    let other = Approval { digest: Some(Digest::from_sha256([1; 32])), ..Approval::default() };
    let refused = world.gateway.approve(&approver(), &record.plan.id, other).await;
    assert!(matches!(refused, Err(DecideError::DigestMismatch { .. })), "{refused:?}");
    let seen = Approval { digest: Some(record.digest.clone()), ..Approval::default() };
    let approved = world.gateway.approve(&approver(), &record.plan.id, seen).await.unwrap();
    assert_eq!(approved.status, Status::Approved);
    assert_eq!(approved.decision.unwrap().decision.digest, record.digest);
}

#[tokio::test]
async fn an_edit_is_a_new_linked_plan_of_the_same_agent() {
    let world = world(CAP).await;
    let old = queued(&world, "make instal").await.plan.id;
    let edit = Edit { command: Some(CommandText::parse("make install".into()).unwrap()), ..Edit::default() };
    let new = world.gateway.edit(&approver(), &old, edit).await.unwrap();
    assert_eq!(new.plan.command.as_str(), "make install");
    assert_eq!(new.plan.agent, agent().name);
    assert_eq!(new.origin.as_ref(), Some(&old));
    let old = world.gateway.command(&agent(), &old).await.unwrap();
    assert_eq!((old.status, old.superseded_by.as_ref()), (Status::Superseded, Some(&new.plan.id)));
}

#[tokio::test]
async fn silence_expires_and_can_be_reopened_once() {
    let world = world(CAP).await;
    let id = queued(&world, "make install").await.plan.id;
    world.platform.pass(601);
    let late = world.gateway.approve(&approver(), &id, Approval::default()).await;
    let Err(DecideError::Conflict { record }) = late else { panic!("{late:?}") };
    assert_eq!(record.status, Status::Expired);
    let again = world.gateway.reopen(&approver(), &id).await.unwrap();
    assert_eq!(again.status, Status::Pending);
    let twice = world.gateway.reopen(&approver(), &id).await;
    assert!(matches!(twice, Err(DecideError::Conflict { .. })), "{twice:?}");
}

#[tokio::test]
async fn a_full_queue_is_the_agents_own_problem() {
    let world = world(CAP).await;
    for n in 0..5 {
        queued(&world, &format!("make {n}")).await;
    }
    let sixth = world.gateway.propose(&agent(), proposal("make 6")).await;
    assert!(matches!(sixth, Err(ProposeError::PendingCap { cap: 5 })), "{sixth:?}");
    let other = somebody("other", &[Role::Agent]);
    assert!(matches!(world.gateway.propose(&other, proposal("make 1")).await.unwrap(), Proposed::Queued(_)));
}

#[tokio::test]
async fn what_was_denied_three_times_is_refused_with_the_persons_reason_until_the_hour_is_over() {
    let world = world(CAP).await;
    for n in 0..3 {
        let record = queued(&world, "make install").await;
        assert_eq!(record.denied_before.map_or(0, |denied| denied.count), n);
        world.gateway.deny(&approver(), &record.plan.id, Some("use `make test`".into())).await.unwrap();
        world.platform.pass(60);
    }
    let who = agent();
    let ask = || world.gateway.propose(&who, proposal("make install"));
    let refused = ask().await.unwrap_err();
    let ProposeError::CoolDown { denied, wait } = &refused else { panic!("{refused:?}") };
    assert_eq!((denied.count, denied.reason.as_deref(), wait.as_secs()), (3, Some("use `make test`"), 3600 - 180));
    let (last, text) = (denied.last_at.rfc3339(), refused.to_string());
    assert_eq!(
        text,
        format!(
            "a person denied this command 3 times lately, last at {last}, saying `use `make test``; \
             propose another, or this one again in 3420 s"
        )
    );
    // A note is no other command; another command, and another agent, are not held back.
    let noted = Proposal { note: Note::parse("please".into()).ok(), ..proposal("make install") };
    assert!(matches!(world.gateway.propose(&agent(), noted).await, Err(ProposeError::CoolDown { .. })));
    queued(&world, "make test").await;
    let other = somebody("other", &[Role::Agent]);
    assert!(matches!(world.gateway.propose(&other, proposal("make install")).await, Ok(Proposed::Queued(_))));
    // Exactly when it was told to come back.
    world.platform.pass(3419);
    assert!(matches!(ask().await, Err(ProposeError::CoolDown { .. })));
    world.platform.pass(1);
    let Ok(Proposed::Queued(record)) = ask().await else { panic!("still held back") };
    assert_eq!(record.denied_before.map(|denied| denied.count), Some(2));
}

#[tokio::test]
async fn what_a_person_edits_or_reopens_is_told_and_not_held_back() {
    let world = world(CAP).await;
    let waits = queued(&world, "make instal").await.plan.id;
    let expires = queued(&world, "make install").await.plan.id;
    world.platform.pass(300);
    for _ in 0..3 {
        let id = queued(&world, "make install").await.plan.id;
        world.gateway.deny(&approver(), &id, None).await.unwrap();
    }
    let edit = Edit { command: Some(CommandText::parse("make install".into()).unwrap()), ..Edit::default() };
    let edited = world.gateway.edit(&approver(), &waits, edit).await.unwrap();
    assert_eq!(edited.denied_before.map(|denied| denied.count), Some(3));
    world.platform.pass(301);
    let late = world.gateway.approve(&approver(), &expires, Approval::default()).await;
    assert!(matches!(late, Err(DecideError::Conflict { .. })), "{late:?}");
    let reopened = world.gateway.reopen(&approver(), &expires).await.unwrap();
    assert_eq!((reopened.status, reopened.denied_before.map(|denied| denied.count)), (Status::Pending, Some(3)));
}

#[tokio::test]
async fn a_folder_outside_every_workspace_is_refused() {
    let world = world(CAP).await;
    for cwd in ["/etc", "/srv/workspace", "../etc", "/srv/work/../../etc"] {
        let asked = Proposal { cwd: Some(cwd.to_owned()), ..proposal("ls") };
        let refused = world.gateway.propose(&agent(), asked).await;
        assert!(
            matches!(refused, Err(ProposeError::OutsideWorkspaces { .. } | ProposeError::WorkingDir(_))),
            "{cwd}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_workspace_cannot_expose_provaras_own_files() {
    let world = world(CAP).await;
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
    std::fs::write(real.join("file"), "").unwrap();
    let runtime = world.runtime.path().canonicalize().unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    for bad in [
        "/".to_owned(),
        text(&runtime),
        text(runtime.parent().unwrap()),
        text(&runtime.join("output")),
        text(&real.join("link")),
        text(&real.join("file")),
        text(&real.join("none")),
        format!("{}/", text(&real)),
    ] {
        let refused = world.gateway.add_workspace(&approver(), bad.clone()).await;
        assert!(matches!(refused, Err(provara_gateway::WorkspaceError::Refused { .. })), "{bad}: {refused:?}");
    }
    world.gateway.add_workspace(&approver(), text(&real)).await.unwrap();
    let asked = Proposal { cwd: Some(text(&real)), ..proposal("ls") };
    assert!(matches!(world.gateway.propose(&agent(), asked).await.unwrap(), Proposed::Queued(_)));
    assert!(world.gateway.add_workspace(&agent(), text(&real)).await.is_err());
}

#[tokio::test]
async fn only_a_person_may_choose_the_host_profile() {
    let world = world(CAP).await;
    let asked = Proposal { profile: Some(Name::parse("host").unwrap()), ..proposal("ls") };
    assert!(matches!(world.gateway.propose(&agent(), asked).await, Err(ProposeError::Profile { .. })));
    let id = queued(&world, "ls").await.plan.id;
    let host = ProfileName::new(Name::parse("host").unwrap());
    let approval = Approval { profile: Some(host.clone()), reason: Some("needs it".into()), ..Approval::default() };
    let approved = world.gateway.approve(&approver(), &id, approval).await.unwrap();
    assert_eq!(approved.decision.unwrap().decision.profile, host);
    let id = queued(&world, "ls").await.plan.id;
    let unknown = Approval { profile: Some(ProfileName::new(Name::parse("none").unwrap())), ..Approval::default() };
    assert!(matches!(world.gateway.approve(&approver(), &id, unknown).await, Err(DecideError::Profile(_))));
}

#[tokio::test]
async fn whoever_waits_is_woken_by_the_decision() {
    let world = world(CAP).await;
    let record = queued(&world, "make install").await;
    let (gateway, id, seen) = (world.gateway.clone(), record.plan.id.clone(), record.revision);
    let waiting = tokio::spawn(async move { gateway.wait(&agent(), &id, seen, Duration::from_secs(30)).await });
    world.gateway.deny(&approver(), &record.plan.id, Some("not today".into())).await.unwrap();
    let woken = waiting.await.unwrap().unwrap();
    assert_eq!(woken.status, Status::Denied);
    assert_eq!(woken.decision.unwrap().reason.as_deref(), Some("not today"));
}

#[tokio::test]
async fn every_step_is_in_a_log_that_proves_itself() {
    let world = world(CAP).await;
    let id = queued(&world, "make install").await.plan.id;
    world.gateway.deny(&approver(), &id, None).await.unwrap();
    let head = world.gateway.head();
    let root = world.gateway.root(head).await.unwrap();
    let entries = world.gateway.all_entries(0, 100).await.unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["server.started", "plan.queued", "plan.denied"]);
    for entry in &entries {
        let proof = world.gateway.inclusion(entry.position, head).await.unwrap();
        let leaf = provara_audit::merkle::leaf_hash(&entry.leaf);
        provara_audit::merkle::verify_inclusion(&leaf, entry.position, head, &proof, &root).unwrap();
        assert!(!String::from_utf8(entry.leaf.to_vec()).unwrap().contains("make install"), "the log tells the command");
    }
    assert_eq!(world.gateway.positions_of(&id).await.unwrap(), [1, 2]);
    assert!(world.gateway.root(head + 1).await.is_err());
}

#[tokio::test]
async fn a_repeated_approval_is_told_from_anothers() {
    let world = world(CAP).await;
    let keyed = |body: u8| Approval {
        idempotency: Some(Idempotent { key: "k".into(), route: "POST /approve", body_sha256: [body; 32] }),
        ..Approval::default()
    };
    let id = queued(&world, "make install").await.plan.id;
    let first = world.gateway.approve(&approver(), &id, keyed(1)).await.unwrap();
    assert_eq!(world.gateway.approve(&approver(), &id, keyed(1)).await.unwrap(), first);
    let mismatch = world.gateway.approve(&approver(), &id, keyed(2)).await;
    assert!(matches!(mismatch, Err(DecideError::IdempotencyMismatch)), "{mismatch:?}");
    let bob = somebody("bob", &[Role::Approver]);
    let bobs = world.gateway.approve(&bob, &id, keyed(1)).await;
    assert!(matches!(bobs, Err(DecideError::Conflict { .. })), "{bobs:?}");
    let agents = world.gateway.approve(&agent(), &id, keyed(1)).await;
    assert!(matches!(agents, Err(DecideError::NotAnApprover)), "{agents:?}");
    // What became of the plan since is what the repetition is told.
    world.gateway.cancel(&agent(), &id).await.unwrap();
    let later = world.gateway.approve(&approver(), &id, keyed(1)).await.unwrap();
    assert_eq!(later.status, Status::Cancelled);
    world.platform.pass(24 * 60 * 60);
    let over = world.gateway.approve(&approver(), &id, keyed(1)).await;
    assert!(matches!(over, Err(DecideError::Conflict { .. })), "{over:?}");
}
