//! The store's contract, on real files.

#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod histories;

use std::collections::BTreeMap;

use provara_audit::{canonical, merkle};
use provara_domain::*;
use provara_store::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_795_479_747_000 + seconds * 1000)
}

fn cause(entropy: u128, seconds: i64) -> Cause {
    Cause { actor: Actor::System, at: at(seconds), entropy: Entropy(entropy) }
}

fn judgement() -> Judgement {
    Judgement::of(Vec::new(), PolicyVersion { version: "1".into(), digest: canonical::sha256(b"policy") })
}

fn new_plan(n: u64) -> NewPlan {
    let plan = Plan {
        kind: PlanKind::Command,
        id: PlanId::new(at(0), n),
        project: Name::default_project(),
        agent: Name::parse("agent").unwrap(),
        command: CommandText::parse(format!("echo {n}")).unwrap(),
        shell: Shell::Bash,
        cwd: WorkingDir::parse("/srv".into()).unwrap(),
        env: BTreeMap::new(),
        stdin: None,
        tty: false,
        timeout: Timeout::DEFAULT,
        target: Name::local_target(),
        profile: ProfileName::workspace(),
        nonce: Nonce::new(u128::from(n)),
    };
    let digest = canonical::plan_digest(&plan);
    NewPlan {
        plan,
        digest,
        dedupe: None,
        note: None,
        judgement: judgement(),
        expires_at: at(1000),
        pending_cap: 1000,
        idempotency: None,
        cause: cause(u128::from(n) << 64, 0),
    }
}

fn decision(new: &NewPlan, kind: DecisionKind) -> Decision {
    Decision {
        plan: new.plan.id.clone(),
        digest: new.digest.clone(),
        binding: None,
        decision: kind,
        profile: ProfileName::workspace(),
        limits: Limits { timeout_s: 30 },
        approver: Name::parse("ann").unwrap(),
        method: DecisionMethod::Token,
        nonce: Nonce::new(7),
        ts: at(1),
    }
}

fn open(folder: &std::path::Path) -> Store {
    Store::open(StoreConfig { runtime: folder.to_owned(), output_keep: 20 }).unwrap()
}

async fn root_matches_the_leaves(store: &Store) {
    let entries = store.entries(&Name::default_project(), Owner::Everyone, 0, 100_000).await.unwrap();
    let mut tree = merkle::Frontier::default();
    for (position, entry) in (0..).zip(&entries) {
        assert_eq!(entry.position, position);
        tree.push(merkle::leaf_hash(&entry.leaf));
    }
    assert_eq!(store.head(), tree.size());
    assert_eq!(store.root(store.head()).await.unwrap(), tree.root());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixteen_decisions_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for round in 1..=30 {
        let new = new_plan(round);
        store.propose(new.clone()).await.unwrap();
        let deciders: Vec<_> = (0..16_u64)
            .map(|n| {
                let kind = if n % 2 == 0 { DecisionKind::Approve } else { DecisionKind::Deny };
                let (store, decision) = (store.clone(), decision(&new, kind));
                let cause = cause(u128::from(round * 100 + n), 1);
                tokio::spawn(async move { store.decide(&decision, None, &judgement(), at(600), cause).await })
            })
            .collect();
        let mut won = 0;
        for decider in deciders {
            match decider.await.unwrap() {
                Ok(_) => won += 1,
                Err(TransitionError::Conflict { record, .. }) => assert!(record.decision.is_some()),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(won, 1);
        assert_eq!(store.positions_of(&new.plan.id).await.unwrap().len(), 2);
    }
    assert_eq!(store.counts(&Name::default_project()).pending, 0);
    root_matches_the_leaves(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_drop_and_a_second_server_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let proposals: Vec<_> = (1..=64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.propose(new_plan(n)).await.unwrap() })
        })
        .collect();
    for proposal in proposals {
        proposal.await.unwrap();
    }
    let second = Store::open(StoreConfig { runtime: folder.path().to_owned(), output_keep: 20 });
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.head(), 64);
    assert_eq!(store.counts(&Name::default_project()).pending, 64);
    root_matches_the_leaves(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_keeps_the_ends_of_its_output_and_a_crash_makes_it_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let local = Name::local_target();
    let mut runs = Vec::new();
    for n in [1_u64, 2] {
        let new = new_plan(n);
        store.propose(new.clone()).await.unwrap();
        let yes = decision(&new, DecisionKind::Approve);
        store.decide(&yes, None, &judgement(), at(600), cause(u128::from(n * 10), 1)).await.unwrap();
        let run = RunId::new(at(2), n);
        let late = store.claim(&local, &new.plan.id, run.clone(), cause(90 + u128::from(n), 600)).await;
        assert!(matches!(late, Err(TransitionError::Conflict { found: Status::Approved, .. })));
        let claim = store.claim(&local, &new.plan.id, run.clone(), cause(u128::from(n * 10 + 1), 2)).await.unwrap();
        assert_eq!(claim.run(), &run);
        let mut output = store.output_writer(&run).unwrap();
        output.append(Stream::Stdout, b"0123456789abcdefghij").unwrap();
        output.append(Stream::Stdout, b"KLMNO").unwrap();
        runs.push((new, run));
    }
    let (first, run) = runs.remove(0);
    let ran = Ran {
        run: run.clone(),
        outcome: Outcome::Exited { code: 0 },
        enforced: Enforced { profile: "workspace".into(), mechanisms: Vec::new() },
        started_at: at(2),
        duration: std::time::Duration::from_millis(5),
        stdout_bytes: 25,
        stderr_bytes: 0,
    };
    for _ in ["live", "recorded"] {
        let head = store.read_output(&run, Stream::Stdout, 4, 100).await.unwrap();
        assert_eq!((head.offset, &head.bytes[..], head.gap, head.total), (4, &b"456789"[..], false, 25));
        let tail = store.read_output(&run, Stream::Stdout, 10, 100).await.unwrap();
        assert_eq!((tail.offset, &tail.bytes[..], tail.gap), (15, &b"fghijKLMNO"[..], true));
        if !head.ended {
            let again = Ran { run: run.clone(), outcome: ran.outcome.clone(), enforced: ran.enforced.clone(), ..ran };
            let done = store.record(again, cause(12, 3)).await.unwrap();
            assert_eq!((done.status, done.revision), (Status::Finished, 4));
        }
    }
    drop(store);
    let store = open(folder.path());
    let (second, run) = runs.remove(0);
    let lost = store.recover(cause(99, 9)).await.unwrap().lost;
    assert_eq!(lost, [second.plan.id]);
    let kept = store.read_output(&run, Stream::Stdout, 20, 3).await.unwrap();
    assert_eq!((&kept.bytes[..], kept.ended), (&b"KLM"[..], true));
    let listed = store.runs(&first.plan.project, Owner::Everyone, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|it| it.status).collect::<Vec<_>>(), [Status::Lost, Status::Finished]);
    root_matches_the_leaves(&store).await;
}

#[tokio::test]
async fn a_token_is_replaced_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig { runtime: folder.path().to_owned(), output_keep: 1 << 20 }).unwrap();
    let token = |n: u64, secret: u8| NewToken {
        id: TokenId::new(at(0), n),
        name: Name::parse(&format!("holder{n}")).unwrap(),
        roles: Roles::of(&[Role::Agent]),
        project: Name::default_project(),
        secret_sha256: [secret; 32],
    };
    let old = store.create_token(token(1, 1), cause(1 << 64, 0)).await.unwrap();
    store.create_token(token(2, 2), cause(2 << 64, 0)).await.unwrap();
    let head = store.head();
    // The secret of another token: nothing of the replacement may stay.
    let refused = store.replace_token(&old.id, TokenId::new(at(1), 3), [2; 32], cause(3 << 64, 1)).await;
    assert!(matches!(refused, Err(TokenError::Exists)), "{refused:?}");
    assert!(store.principal(&[1; 32]).is_some() && store.head() == head);
    let new = store.replace_token(&old.id, TokenId::new(at(1), 3), [3; 32], cause(4 << 64, 1)).await.unwrap();
    assert_eq!((&new.name, &new.roles), (&old.name, &old.roles));
    assert!(store.principal(&[1; 32]).is_none() && store.principal(&[3; 32]).is_some());
    assert_eq!(store.head(), head + 2);
    let again = store.replace_token(&old.id, TokenId::new(at(2), 4), [4; 32], cause(5 << 64, 2)).await;
    assert!(matches!(again, Err(TokenError::NotFound)), "{again:?}");
    store.close().await;
}
