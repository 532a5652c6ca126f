//! Lists: newest first, in pages, each principal's own.

use std::collections::BTreeSet;

use super::*;

fn filter(statuses: &[Status], before: Option<u64>, limit: u32) -> PlanFilter {
    PlanFilter { statuses: statuses.to_vec(), before, limit }
}

pub(crate) async fn a_list_is_newest_first_and_of_the_statuses_asked_for(place: Place) {
    let store = place.open();
    let mut ids = Vec::new();
    for n in 1..=6 {
        let new = new_plan(n);
        store.propose(new.clone()).await.unwrap();
        match n % 3 {
            0 => drop(store.withdraw(&project(), &new.plan.id, cause(1)).await.unwrap()),
            1 => drop(store.decide(&project(), decision(&new, DecisionKind::Deny, 1)).await.unwrap()),
            _ => {}
        }
        ids.push(new.plan.id);
    }
    let listed = async |statuses: &[Status], limit| -> Vec<usize> {
        let found = store.plans(&project(), Owner::Everyone, filter(statuses, None, limit)).await.unwrap();
        found.iter().map(|record| 1 + ids.iter().position(|id| *id == record.plan.id).unwrap()).collect()
    };
    use Status::*;
    assert_eq!(listed(&[], 100).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(listed(&[Pending], 100).await, [5, 2]);
    assert_eq!(listed(&[Withdrawn, Denied], 100).await, [6, 4, 3, 1]);
    assert_eq!(listed(&[Denied, Pending, Denied, Pending], 3).await, [5, 4, 2], "each once, whatever was asked twice");
    assert_eq!(listed(&[Running], 100).await, [0_usize; 0]);
    assert_eq!(listed(&[], 0).await, [0_usize; 0]);
    assert_eq!(store.runs(&project(), Owner::Everyone, None, 100).await.unwrap(), []);
}

pub(crate) async fn pages_show_nothing_twice_and_miss_nothing_while_plans_come_and_go(place: Place) {
    let store = place.open();
    for n in 1..=40 {
        store.propose(new_plan(n)).await.unwrap();
    }
    let decided = |n: u64| n.is_multiple_of(3);
    for (statuses, whole) in [(&[][..], true), (&[Status::Pending][..], false)] {
        let (mut seen, mut before, mut turn) = (Vec::new(), None, 0);
        loop {
            let page = store.plans(&project(), Owner::Everyone, filter(statuses, before, 7)).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.seq);
            seen.extend(page.into_iter().map(|record| record.plan.id));
            // Between two pages one more comes, and some on both sides of the cursor are decided.
            turn += 1;
            store.propose(new_plan(if whole { 100 } else { 200 } + turn)).await.unwrap();
            for n in [turn * 3, 40 - turn * 3].into_iter().filter(|n| decided(*n)) {
                let _ = store.decide(&project(), decision(&new_plan(n), DecisionKind::Deny, 1)).await;
            }
        }
        let once: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(once.len(), seen.len(), "something was shown twice");
        for n in (1..=40).filter(|n| whole || !decided(*n) && !decided(40 - *n)) {
            assert!(once.contains(&PlanId::new(at(0), n)), "plan {n} was there all the time and was not shown");
        }
    }
    sound(&store).await;
}

pub(crate) async fn an_agent_sees_its_own_and_another_projects_plans_do_not_exist(place: Place) {
    let store = place.open();
    let mine = new_plan(1);
    let (theirs, other) = (new_plan_of("other", 2), name("elsewhere"));
    for new in [&mine, &theirs] {
        store.propose(new.clone()).await.unwrap();
        store.decide(&project(), decision(new, DecisionKind::Approve, 1)).await.unwrap();
    }
    for (n, new) in [(1, &mine), (2, &theirs)] {
        let _ = store.claim(&Name::local_target(), &new.plan.id, run_of(n), cause(2)).await.unwrap();
    }
    let agent = || Owner::Only(name("agent"));
    assert!(store.plan(&project(), agent(), &mine.plan.id).await.unwrap().is_some());
    assert!(store.plan(&project(), agent(), &theirs.plan.id).await.unwrap().is_none());
    assert!(store.run(&project(), agent(), &run_of(1)).await.unwrap().is_some());
    assert!(store.run(&project(), agent(), &run_of(2)).await.unwrap().is_none());
    assert_eq!(store.plans(&project(), agent(), filter(&[], None, 9)).await.unwrap().len(), 1);
    assert_eq!(store.plans(&project(), agent(), filter(&[Status::Running], None, 9)).await.unwrap().len(), 1);
    assert_eq!(store.runs(&project(), agent(), None, 9).await.unwrap().len(), 1);
    assert_eq!(store.entries(&project(), agent(), 0, 99).await.unwrap().len(), 3);

    let before = sound(&store).await;
    assert!(store.plan(&other, Owner::Everyone, &mine.plan.id).await.unwrap().is_none());
    assert!(store.run(&other, Owner::Everyone, &run_of(1)).await.unwrap().is_none());
    assert!(store.plans(&other, Owner::Everyone, filter(&[], None, 9)).await.unwrap().is_empty());
    assert!(store.runs(&other, Owner::Everyone, None, 9).await.unwrap().is_empty());
    assert!(store.entries(&other, Owner::Everyone, 0, 99).await.unwrap().is_empty());
    assert!(store.positions_of(&other, &mine.plan.id).await.unwrap().is_empty());
    assert_eq!(store.counts(&other), Counts::default());
    let mut output = store.output_writer(&run_of(1)).unwrap();
    output.append(Stream::Stdout, b"ours").unwrap();
    assert_eq!(store.read_output(&project(), &run_of(1), Stream::Stdout, 0, 9).await.unwrap().total, 4);
    assert_eq!(store.read_output(&other, &run_of(1), Stream::Stdout, 0, 9).await.unwrap().total, 0);
    let id = &mine.plan.id;
    let mut elsewhere = new_plan(3);
    elsewhere.plan.project = other.clone();
    for refused in [
        store.decide(&other, decision(&mine, DecisionKind::Deny, 1)).await,
        store.block(&other, id, &judgement(), cause(1)).await,
        store.rejudge(&other, id, &judgement(), cause(1)).await,
        store.withdraw(&other, id, cause(1)).await,
        store.cancel_approved(&other, id, cause(1)).await,
        store.request_cancel(&other, id, cause(1)).await,
        store.extend(&other, id, Timeout::DEFAULT, cause(1)).await,
        store.supersede(id, elsewhere.clone()).await,
        store.reopen(id, elsewhere).await,
    ] {
        assert!(matches!(refused, Err(TransitionError::NotFound)), "{refused:?}");
    }
    assert_eq!(sound(&store).await, before);
}
