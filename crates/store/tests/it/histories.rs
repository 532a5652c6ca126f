//! Random histories: whatever is tried in whatever order, a plan only ever takes a step of the lifecycle's table, each step
//! is exactly one entry of its history, and everything that is counted, linked or hashed agrees afterwards.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::decisions::Step;
use super::*;

#[derive(Debug, Clone, Copy)]
enum Try {
    Step { plan: usize, step: usize },
    Propose { denied: bool },
    Recover,
    OpenAgain,
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let one = prop_oneof![
        20 => (0..3_usize, 0..Step::ALL.len()).prop_map(|(plan, step)| Try::Step { plan, step }),
        2 => any::<bool>().prop_map(|denied| Try::Propose { denied }),
        1 => Just(Try::Recover),
        1 => Just(Try::OpenAgain),
    ];
    prop::collection::vec(one, 1..40)
}

pub(crate) async fn never_leave_the_table(place: Place) {
    // A runtime of its own, since proptest's cases are plain functions.
    let checked = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&tries(), |tries| {
            runtime.block_on(history(place.another(), tries));
            Ok(())
        })
    });
    checked.await.unwrap().unwrap();
}

async fn history(place: Place, tries: Vec<Try>) {
    let mut store = place.open();
    let plans = [new_plan(1), new_plan_of("other", 2), new_plan(3)];
    for new in &plans {
        store.propose(new.clone()).await.unwrap();
    }
    for (nth, what) in (1..).zip(tries) {
        match what {
            Try::Step { plan, step } => {
                let new = plans.get(plan).unwrap();
                step_once(&store, new, u64::try_from(plan).unwrap(), *Step::ALL.get(step).unwrap(), nth).await;
            }
            Try::Propose { denied } => {
                let verdict = if denied { Verdict::Deny } else { Verdict::Ask };
                store.propose(NewPlan { judgement: judged(verdict), ..new_plan(5000 + nth) }).await.unwrap();
            }
            Try::Recover => drop(store.recover(cause(3)).await.unwrap()),
            Try::OpenAgain => {
                let before = sound(&store).await;
                drop(store);
                store = place.open();
                assert_eq!(sound(&store).await, before, "opened again it is another");
            }
        }
    }
    let before = sound(&store).await;
    drop(store);
    assert_eq!(sound(&place.open()).await, before, "opened again it is another");
}

async fn step_once(store: &Store, new: &NewPlan, plan: u64, step: Step, nth: u64) {
    let (before, head) = (look(store, &new.plan.id).await, store.head());
    let taken = step.take(store, new, &run_of(plan), 1000 + nth).await;
    let after = look(store, &new.plan.id).await;
    let (from, to) = (before.status, after.status);
    assert!(from == to || from.may_become(to), "{step:?} led from {from} to {to}");
    if from != to {
        assert_eq!(after.revision, before.revision + 1, "{step:?} is not one entry of the history");
    }
    if taken.is_err() {
        assert_eq!((&after, store.head()), (&before, head), "{step:?} failed and left something behind");
    }
    assert!(before.run.is_none() || after.run.unwrap().id == before.run.unwrap().id, "{step:?}: the plan ran twice");
}
