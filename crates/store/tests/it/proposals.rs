//! What becomes of a proposal: once a key, once a cap, and every byte of it.

use super::*;

fn key(scope: &str, body: u8) -> Option<Idempotency> {
    Some(Idempotency { scope: scope.into(), key: "k".into(), body_sha256: [body; 32] })
}

fn keyed(n: u64, body: u8) -> NewPlan {
    NewPlan { idempotency: key("agent POST /plan", body), ..new_plan(n) }
}

fn id(proposed: &Proposed) -> &PlanId {
    let (Proposed::New(record) | Proposed::Repeated(record)) = proposed;
    &record.plan.id
}

pub(crate) async fn a_repeated_key_answers_with_the_first_plan_and_another_body_is_refused(place: Place) {
    let store = place.open();
    let first = store.propose(keyed(1, 1)).await.unwrap();
    assert!(matches!(first, Proposed::New(_)));
    let again = store.propose(keyed(2, 1)).await.unwrap();
    assert!(matches!(&again, Proposed::Repeated(record) if record.plan.id == *id(&first)));
    let other = store.propose(keyed(3, 2)).await;
    assert!(matches!(other, Err(ProposeError::IdempotencyMismatch)), "{other:?}");
    // The answer is the plan as it stands, whatever became of it.
    store.withdraw(&project(), id(&first), cause(1)).await.unwrap();
    let later = store.propose(keyed(4, 1)).await.unwrap();
    assert!(matches!(later, Proposed::Repeated(record) if record.status == Status::Withdrawn));
    let before = sound(&store).await;
    assert_eq!(before.plans.len(), 1);
    drop(store);
    let store = place.open();
    let known = store.recall(&project(), &key("agent POST /plan", 1).unwrap(), at(5)).await.unwrap();
    assert!(matches!(known, Some(Recalled::Same(record)) if record.plan.id == *id(&first)));
    let other = store.recall(&project(), &key("agent POST /plan", 2).unwrap(), at(5)).await.unwrap();
    assert!(matches!(other, Some(Recalled::OtherBody)));
    assert_eq!(sound(&store).await, before);
}

pub(crate) async fn a_key_belongs_to_its_scope_and_project(place: Place) {
    let store = place.open();
    let mut elsewhere = new_plan(4);
    elsewhere.plan.project = name("other");
    elsewhere.idempotency = key("agent POST /plan", 1);
    for new in [
        keyed(1, 1),
        NewPlan { idempotency: key("other POST /plan", 2), ..new_plan_of("other", 2) },
        NewPlan { idempotency: key("agent POST /else", 3), ..new_plan(3) },
        elsewhere,
    ] {
        let proposed = store.propose(new).await.unwrap();
        assert!(matches!(proposed, Proposed::New(_)), "{proposed:?}");
    }
}

pub(crate) async fn a_key_lasts_24_hours(place: Place) {
    const DAY: i64 = 24 * 60 * 60;
    let store = place.open();
    let first = store.propose(keyed(1, 1)).await.unwrap();
    let still = store.propose(NewPlan { cause: cause(DAY - 1), ..keyed(2, 1) }).await.unwrap();
    assert_eq!(id(&still), id(&first));
    let over = store.propose(NewPlan { cause: cause(DAY), ..keyed(3, 2) }).await.unwrap();
    assert!(matches!(over, Proposed::New(_)), "{over:?}");
    let renewed = store.propose(NewPlan { cause: cause(2 * DAY - 1), ..keyed(4, 2) }).await.unwrap();
    assert_eq!(id(&renewed), id(&over));
}

pub(crate) async fn a_refused_proposal_leaves_no_key(place: Place) {
    let store = place.open();
    let refused = store.propose(NewPlan { pending_cap: 0, ..keyed(1, 1) }).await;
    assert!(matches!(refused, Err(ProposeError::PendingCap { cap: 0 })));
    assert!(matches!(store.propose(keyed(1, 2)).await, Ok(Proposed::New(_))), "the key outlived the refusal");
    assert_eq!(sound(&store).await.plans.len(), 1);
}

pub(crate) async fn of_32_proposals_with_one_key_one_is_stored(place: Place) {
    let store = place.open();
    let proposals: Vec<_> = (1..=32)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.propose(keyed(n, 1)).await.unwrap() })
        })
        .collect();
    let mut made = Vec::new();
    let mut answers = Vec::new();
    for proposal in proposals {
        let proposed = proposal.await.unwrap();
        answers.push(id(&proposed).clone());
        if let Proposed::New(record) = proposed {
            made.push(record.plan.id);
        }
    }
    assert_eq!(made.len(), 1);
    answers.dedup();
    assert_eq!(answers, made);
    assert_eq!(sound(&store).await.plans.len(), 1);
}

pub(crate) async fn an_equal_pending_plan_answers_only_when_asked_and_only_its_own_agent(place: Place) {
    let store = place.open();
    let same = |agent: &str, n| {
        let mut new = new_plan_of(agent, n);
        new.plan.command = CommandText::parse("make".into()).unwrap();
        NewPlan { equal: EqualPending::Answers, ..planned(new.plan) }
    };
    let first = store.propose(same("agent", 1)).await.unwrap();
    let again = store.propose(same("agent", 2)).await.unwrap();
    assert!(matches!(&again, Proposed::Repeated(record) if record.plan.id == *id(&first)));
    // At the cap, what waits already still answers.
    let full = store.propose(NewPlan { pending_cap: 1, ..same("agent", 3) }).await.unwrap();
    assert_eq!(id(&full), id(&first));
    let unasked = store.propose(NewPlan { equal: EqualPending::StaysApart, ..same("agent", 4) }).await.unwrap();
    assert!(matches!(unasked, Proposed::New(_)), "a plan that did not ask was merged into another");
    let other = store.propose(same("other", 5)).await.unwrap();
    assert!(matches!(other, Proposed::New(_)), "one agent's plan answered another's");
    let decided = NewPlan { cause: cause(0), ..same("agent", 1) };
    store.decide(&project(), decision(&decided, DecisionKind::Deny, 1)).await.unwrap();
    let anew = store.propose(same("agent", 6)).await.unwrap();
    assert!(matches!(anew, Proposed::New(_)), "a decided plan answered: {anew:?}");
    sound(&store).await;
}

pub(crate) async fn no_race_gets_an_agent_past_its_cap(place: Place) {
    let store = place.open();
    let proposals: Vec<_> = (1..=48)
        .map(|n| {
            let store = store.clone();
            let agent = if n % 2 == 0 { "agent" } else { "other" };
            tokio::spawn(async move { store.propose(NewPlan { pending_cap: 5, ..new_plan_of(agent, n) }).await })
        })
        .collect();
    let mut made = 0;
    for proposal in proposals {
        match proposal.await.unwrap() {
            Ok(Proposed::New(_)) => made += 1,
            Err(ProposeError::PendingCap { cap: 5 }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(made, 10, "five each");
    let one = sound(&store).await.plans.remove(0);
    store.withdraw(&project(), &one.plan.id, cause(1)).await.unwrap();
    let next = |n| store.propose(NewPlan { pending_cap: 5, ..new_plan_of(one.plan.agent.as_str(), n) });
    assert!(next(100).await.is_ok(), "a place that became free is not given away");
    assert!(matches!(next(101).await, Err(ProposeError::PendingCap { .. })));
}

pub(crate) async fn a_denied_plan_is_blocked_and_takes_no_place_in_the_queue(place: Place) {
    let store = place.open();
    let denied = NewPlan { judgement: judged(Verdict::Deny), pending_cap: 0, ..new_plan(1) };
    let stored = store.propose(denied).await.unwrap();
    assert!(matches!(stored, Proposed::New(record) if record.status == Status::Blocked));
    assert_eq!(sound(&store).await.entries.first().unwrap().kind, "plan.blocked");
}

pub(crate) async fn every_field_of_a_plan_comes_back(place: Place) {
    let store = place.open();
    let plan = Plan {
        command: CommandText::parse("printf '\u{202e}\u{1}' \n # \u{1f600}".into()).unwrap(),
        shell: Shell::Sh,
        cwd: WorkingDir::parse("/srv/w\u{f6}rk '\"".into()).unwrap(),
        env: BTreeMap::from([(EnvName::parse("A".into()).unwrap(), "'; DROP TABLE plans; --".into())]),
        stdin: Some(vec![0, 255, b'\n']),
        tty: true,
        timeout: Timeout::from_seconds(3600).unwrap(),
        target: name("elsewhere"),
        profile: ProfileName::new(name("host")),
        ..new_plan(1).plan
    };
    let note = Some(Note::parse("why \u{2028}".into()).unwrap());
    let new = NewPlan { note, judgement: judged(Verdict::Ask), ..planned(plan) };
    let Proposed::New(answered) = store.propose(new.clone()).await.unwrap() else { panic!("not new") };
    drop(store);
    let store = place.open();
    let record = look(&store, &new.plan.id).await;
    assert_eq!(record, answered, "what was answered is not what is stored");
    assert_eq!(canonical::plan_digest(&record.plan), new.digest, "the bytes that are approved are others");
    let expected = PlanRecord {
        seq: record.seq,
        plan: new.plan,
        digest: new.digest,
        note: new.note,
        judgement: new.judgement,
        status: Status::Pending,
        revision: 1,
        queued_at: at(0),
        expires_at: at(1000),
        decision: None,
        superseded_by: None,
        origin: None,
        run: None,
        measured: None,
        erased_at: None,
        denied_before: None,
    };
    assert_eq!(record, expected);
}

pub(crate) async fn a_measurement_is_kept_with_its_texts_and_replaced_while_pending(place: Place) {
    let store = place.open();
    let new = NewPlan { measurement: Some(measured("echo 1")), ..new_plan(1) };
    let id = new.plan.id.clone();
    store.propose(new.clone()).await.unwrap();
    let texts = async || {
        let known = store.script_texts(&project(), &id).await.unwrap();
        known.into_iter().map(|script| script.text).collect::<Vec<_>>()
    };
    assert_eq!(look(&store, &id).await.measured, new.measurement.map(|known| known.measured));
    assert_eq!(texts().await, ["echo 1"]);
    assert_eq!(store.script_texts(&name("other"), &id).await.unwrap(), []);
    let now = measured("echo 2");
    let record = store.remeasure(&project(), &id, Some(now.clone()), cause(1)).await.unwrap();
    assert_eq!((record.measured, record.revision, record.status), (Some(now.measured.clone()), 2, Status::Pending));
    assert_eq!(texts().await, ["echo 2"]);
    let entries = store.entries(&project(), Owner::Everyone, 0, 10).await.unwrap();
    let leaf: serde_json::Value = serde_json::from_slice(&entries.last().unwrap().leaf).unwrap();
    let expected = serde_json::json!({"binding": canonical::binding_digest(&now.measured.binding)});
    assert_eq!((leaf.get("type"), leaf.get("body")), (Some(&"plan.remeasured".into()), Some(&expected)));
    store.remeasure(&project(), &id, None, cause(2)).await.unwrap();
    assert_eq!((look(&store, &id).await.measured, texts().await), (None, vec![]));
}
