//! What was denied is told of, held back for a while, and forgotten.

use super::*;

const HOUR: i64 = 3600;

/// An equal plan whatever `n` is, proposed `seconds` after the start.
fn equal_of(agent: &str, n: u64, seconds: i64) -> NewPlan {
    let mut new = new_plan_of(agent, n);
    new.plan.command = CommandText::parse("make install".into()).unwrap();
    NewPlan { cause: cause(seconds), expires_at: at(seconds + 1000), ..planned(new.plan) }
}

fn equal(n: u64, seconds: i64) -> NewPlan {
    equal_of("agent", n, seconds)
}

/// Proposes and denies, both at that time.
async fn denied(store: &Store, new: NewPlan, seconds: i64) -> PlanRecord {
    let Proposed::New(record) = store.propose(new.clone()).await.unwrap() else { panic!("not new") };
    let reason = Some(format!("no {seconds}"));
    store.decide(&project(), NewDecision { reason, ..decision(&new, DecisionKind::Deny, seconds) }).await.unwrap();
    record
}

async fn denied_thrice(store: &Store) {
    for n in 1..=3 {
        let seconds = i64::try_from(n).unwrap();
        denied(store, equal(n, seconds), seconds).await;
    }
}

fn before(count: u32, seconds: i64) -> DeniedBefore {
    DeniedBefore { count, last_at: at(seconds), reason: Some(format!("no {seconds}")) }
}

fn refusal(answer: Result<Proposed, ProposeError>) -> (DeniedBefore, Timestamp) {
    match answer {
        Err(ProposeError::CoolDown { denied, until }) => (denied, until),
        other => panic!("not held back: {other:?}"),
    }
}

pub(crate) async fn what_was_denied_is_told_with_the_next_equal_plan_and_after_three_that_is_refused(place: Place) {
    let store = place.open();
    let first = denied(&store, equal(1, 1), 1).await;
    assert_eq!(first.denied_before, None);
    let second = denied(&store, equal(2, 2), 2).await;
    assert_eq!(second.denied_before, Some(before(1, 1)));
    let third = denied(&store, equal(3, 3), 3).await;
    assert_eq!(third.denied_before, Some(before(2, 2)));
    // What an approver looks at is what the agent was answered.
    assert_eq!(look(&store, &third.plan.id).await.denied_before, Some(before(2, 2)));
    let whole = sound(&store).await;
    let held = refusal(store.propose(equal(4, 10)).await);
    assert_eq!(held, (before(3, 3), at(1 + HOUR)));
    assert_eq!(sound(&store).await, whole, "a refusal left something behind");
}

pub(crate) async fn a_denial_counts_for_its_window_and_no_longer(place: Place) {
    let store = place.open();
    denied_thrice(&store).await;
    assert_eq!(refusal(store.propose(equal(4, HOUR)).await).1, at(1 + HOUR));
    // The first of them no longer counts, and a further denial brings the next cool-down.
    let fourth = denied(&store, equal(5, HOUR + 1), HOUR + 1).await;
    assert_eq!(fourth.denied_before, Some(before(2, 3)));
    assert_eq!(refusal(store.propose(equal(6, HOUR + 1)).await), (before(3, HOUR + 1), at(2 + HOUR)));
    let last = denied(&store, equal(7, 3 * HOUR), 3 * HOUR).await;
    assert_eq!(last.denied_before, None, "an old denial still counts");
    // A clock that is set back by days does not hold anybody back for days.
    let Ok(Proposed::New(record)) = store.propose(equal(8, -48 * HOUR)).await else { panic!("held back for days") };
    assert_eq!(record.denied_before, None);
}

pub(crate) async fn nobody_elses_denials_and_no_other_command_are_held_back(place: Place) {
    let store = place.open();
    denied_thrice(&store).await;
    let mut elsewhere = equal(4, 5);
    elsewhere.plan.project = name("other");
    let mut longer = equal(5, 5);
    longer.plan.timeout = Timeout::from_seconds(301).unwrap();
    let (elsewhere, longer) = (planned(elsewhere.plan), planned(longer.plan));
    for other in [equal_of("other", 6, 5), elsewhere, longer, NewPlan { cause: cause(5), ..new_plan(7) }] {
        let Proposed::New(record) = store.propose(other).await.unwrap() else { panic!("not new") };
        assert_eq!(record.denied_before, None, "{record:?}");
    }
    // An approval, a withdrawal and a block are no denial.
    let store = place.another().open();
    for n in 1..=4 {
        let new = equal(n, 0);
        let Proposed::New(record) = store.propose(new.clone()).await.unwrap() else { panic!("not new") };
        assert_eq!(record.denied_before, None);
        match n {
            1 => drop(store.withdraw(&project(), &new.plan.id, cause(1)).await.unwrap()),
            2 => drop(store.block(&project(), &new.plan.id, &judged(Verdict::Deny), cause(1)).await.unwrap()),
            _ => drop(store.decide(&project(), decision(&new, DecisionKind::Approve, 1)).await.unwrap()),
        }
    }
}

pub(crate) async fn what_was_answered_before_and_what_policy_denies_is_answered_as_before(place: Place) {
    let store = place.open();
    let key = |body| Some(Idempotency { scope: "agent POST /plan".into(), key: "k".into(), body_sha256: [body; 32] });
    let keyed = NewPlan { idempotency: key(1), ..equal(1, 1) };
    let first = denied(&store, keyed.clone(), 1).await;
    let waits = NewPlan { equal: EqualPending::Answers, ..equal(2, 1) };
    store.propose(waits.clone()).await.unwrap();
    denied(&store, equal(3, 2), 2).await;
    denied(&store, equal(4, 3), 3).await;
    let again = store.propose(NewPlan { idempotency: key(1), ..equal(5, 4) }).await.unwrap();
    assert!(matches!(&again, Proposed::Repeated(record) if record.plan.id == first.plan.id), "{again:?}");
    let joined = store.propose(NewPlan { equal: EqualPending::Answers, ..equal(6, 4) }).await.unwrap();
    assert!(matches!(&joined, Proposed::Repeated(record) if record.plan.id == waits.plan.id), "{joined:?}");
    let blocked = store.propose(NewPlan { judgement: judged(Verdict::Deny), ..equal(7, 4) }).await.unwrap();
    assert!(matches!(&blocked, Proposed::New(record) if record.status == Status::Blocked), "{blocked:?}");
    // What is refused keeps no key: it can be sent again, as the same request, when the time has come.
    let fresh = |n, seconds| {
        let key = Some(Idempotency { scope: "agent POST /plan".into(), key: "l".into(), body_sha256: [1; 32] });
        store.propose(NewPlan { idempotency: key, ..equal(n, seconds) })
    };
    refusal(fresh(8, 4).await);
    assert!(matches!(fresh(9, 2 * HOUR).await, Ok(Proposed::New(_))));
}

pub(crate) async fn a_cool_down_that_is_off_still_tells(place: Place) {
    let store = place.open();
    let off = CoolDown { denials: 0, window: WINDOW };
    for n in 1..=6_u32 {
        let new = NewPlan { cool_down: off, ..equal(u64::from(n), i64::from(n)) };
        let record = denied(&store, new, i64::from(n)).await;
        assert_eq!(record.denied_before.map_or(0, |denied| denied.count), n - 1);
    }
    let once = CoolDown { denials: 1, window: WINDOW };
    let held = refusal(store.propose(NewPlan { cool_down: once, ..equal(7, 7) }).await);
    assert_eq!(held, (before(6, 6), at(6 + HOUR)), "one denial is enough, and the newest holds back longest");
}

pub(crate) async fn of_32_proposals_after_the_third_denial_none_gets_through(place: Place) {
    let store = place.open();
    denied_thrice(&store).await;
    let proposals: Vec<_> = (10..42)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.propose(equal(n, 5)).await })
        })
        .collect();
    for proposal in proposals {
        assert_eq!(refusal(proposal.await.unwrap()).0, before(3, 3));
    }
    assert_eq!(sound(&store).await.plans.len(), 3);
}

pub(crate) async fn denials_and_proposals_at_once_let_no_fourth_through(place: Place) {
    let store = place.open();
    // All wait before anybody denies one: these may be asked. What comes after the third denial may not.
    let waiting: Vec<_> = (1..=3).map(|n| equal(n, 0)).collect();
    for new in &waiting {
        store.propose(new.clone()).await.unwrap();
    }
    let denials: Vec<_> = waiting
        .into_iter()
        .map(|new| {
            let store = store.clone();
            tokio::spawn(async move { store.decide(&project(), decision(&new, DecisionKind::Deny, 1)).await })
        })
        .collect();
    let proposals: Vec<_> = (10..42)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.propose(equal(n, 1)).await })
        })
        .collect();
    for denial in denials {
        denial.await.unwrap().unwrap();
    }
    for proposal in proposals {
        match proposal.await.unwrap() {
            Ok(Proposed::New(record)) => assert!(record.denied_before.is_none_or(|denied| denied.count < 3)),
            Err(ProposeError::CoolDown { denied, .. }) => assert_eq!(denied.count, 3),
            other => panic!("{other:?}"),
        }
    }
    // Of the log: no plan was queued after the third denial.
    let kinds: Vec<String> = sound(&store).await.entries.into_iter().map(|entry| entry.kind).collect();
    let third = kinds.iter().enumerate().filter(|(_, kind)| *kind == "plan.denied").nth(2).unwrap().0;
    assert!(kinds.iter().skip(third).all(|kind| kind != "plan.queued"), "{kinds:?}");
}

pub(crate) async fn denials_last_over_a_restart(place: Place) {
    let store = place.open();
    denied_thrice(&store).await;
    let whole = sound(&store).await;
    drop(store);
    let store = place.open();
    assert_eq!(sound(&store).await, whole);
    assert_eq!(refusal(store.propose(equal(4, 5)).await), (before(3, 3), at(1 + HOUR)));
}

pub(crate) async fn an_erasure_takes_the_denial_its_digest_and_its_reason(place: Place) {
    let store = place.open();
    let (first, second) = (denied(&store, equal(1, 1), 1).await, denied(&store, equal(2, 2), 2).await);
    let Ok(Proposed::New(third)) = store.propose(equal(3, 3)).await else { panic!("not new") };
    assert_eq!(look(&store, &third.plan.id).await.denied_before, Some(before(2, 2)));
    // The reason is the denied plan's: erased there, it is told nowhere.
    store.erase(&project(), &second.plan.id, cause(4)).await.unwrap();
    let told = look(&store, &third.plan.id).await.denied_before.unwrap();
    assert_eq!(told, DeniedBefore { reason: None, ..before(2, 2) });
    let Ok(Proposed::New(fourth)) = store.propose(equal(4, 5)).await else { panic!("not new") };
    assert_eq!(fourth.denied_before, Some(before(1, 1)), "an erased denial counts");
    for waiting in [&third, &fourth] {
        store.withdraw(&project(), &waiting.plan.id, cause(6)).await.unwrap();
    }
    store.erase(&project(), &fourth.plan.id, cause(7)).await.unwrap();
    let told = look(&store, &fourth.plan.id).await.denied_before.unwrap();
    assert_eq!(told.reason, None, "an erased plan still tells what was said of it");
    let holds = || holds_digest(&place, &first.plan);
    store.close().await;
    drop(store);
    assert!(holds(), "the digest was never there, so its absence would show nothing");
    let store = place.open();
    store.erase(&project(), &first.plan.id, cause(8)).await.unwrap();
    store.close().await;
    drop(store);
    assert!(!holds(), "the digest of what was erased is still there");
}

pub(crate) async fn what_no_longer_counts_is_swept_away_by_the_next_denial(place: Place) {
    let store = place.open();
    let old = denied(&store, equal(1, 1), 1).await;
    store.close().await;
    drop(store);
    assert!(holds_digest(&place, &old.plan), "the digest was never there, so its absence would show nothing");
    let store = place.open();
    let new = denied(&store, NewPlan { expires_at: at(2 * HOUR), ..new_plan(2) }, 1 + HOUR).await;
    store.close().await;
    drop(store);
    assert!(!holds_digest(&place, &old.plan), "a denial that no longer counts is kept");
    assert!(holds_digest(&place, &new.plan));
}

/// Whether the closed store's file holds the digest that equal plans share.
fn holds_digest(place: &Place, plan: &Plan) -> bool {
    let digest = canonical::plan_dedupe_digest(plan);
    let database = std::fs::read(place.folder.path().join("provara.db")).unwrap();
    database.windows(digest.as_str().len()).any(|window| window == digest.as_str().as_bytes())
}
