//! Random histories: whatever is tried in whatever order, a plan only ever takes a step of the lifecycle's table, and each
//! step is exactly one entry of its history.

use std::time::Duration;

use proptest::prelude::*;
use provara_domain::*;
use provara_store::*;

use super::{at, cause, decision, judgement, new_plan, open, root_matches_the_leaves};

/// What somebody may try on a plan at any time.
#[derive(Debug, Clone, Copy)]
enum Try {
    Approve,
    Deny,
    Block,
    Rejudge,
    ExpirePending,
    ExpireApproved,
    Withdraw,
    CancelApproved,
    Supersede,
    Reopen,
    Claim,
    Record,
    Lose,
    RequestCancel,
    Extend,
    Recover,
}

const TRIES: [Try; 16] = [
    Try::Approve,
    Try::Deny,
    Try::Block,
    Try::Rejudge,
    Try::ExpirePending,
    Try::ExpireApproved,
    Try::Withdraw,
    Try::CancelApproved,
    Try::Supersede,
    Try::Reopen,
    Try::Claim,
    Try::Record,
    Try::Lose,
    Try::RequestCancel,
    Try::Extend,
    Try::Recover,
];

async fn attempt(store: &Store, new: &NewPlan, what: Try, nth: u64) -> bool {
    let id = &new.plan.id;
    let now = |seconds| cause((u128::from(nth) << 32) + 1, seconds);
    let run = RunId::new(at(0), 1);
    match what {
        Try::Approve => {
            let yes = decision(new, DecisionKind::Approve);
            store.decide(&yes, None, &judgement(), at(600), now(1)).await.is_ok()
        }
        Try::Deny => {
            store.decide(&decision(new, DecisionKind::Deny), None, &judgement(), at(600), now(1)).await.is_ok()
        }
        Try::Block => store.block(id, &judgement(), now(1)).await.is_ok(),
        Try::Rejudge => store.rejudge(id, &judgement(), now(1)).await.is_ok(),
        Try::ExpirePending => store.expire(id, now(2000)).await.is_ok(),
        Try::ExpireApproved => store.expire(id, now(700)).await.is_ok(),
        Try::Withdraw => store.withdraw(id, now(1)).await.is_ok(),
        Try::CancelApproved => store.cancel_approved(id, now(1)).await.is_ok(),
        Try::Supersede => store.supersede(id, NewPlan { cause: now(1), ..new_plan(1000 + nth) }).await.is_ok(),
        Try::Reopen => store.reopen(id, NewPlan { cause: now(1), ..new_plan(1000 + nth) }).await.is_ok(),
        Try::Claim => store.claim(&Name::local_target(), id, run, now(2)).await.is_ok(),
        Try::Record => {
            let ran = Ran {
                run,
                outcome: Outcome::Exited { code: 0 },
                enforced: Enforced { profile: "workspace".into(), mechanisms: vec![] },
                started_at: at(2),
                duration: Duration::from_secs(1),
                stdout_bytes: 0,
                stderr_bytes: 0,
            };
            store.record(ran, now(3)).await.is_ok()
        }
        Try::Lose => store.lose(id, now(3)).await.is_ok(),
        Try::RequestCancel => store.request_cancel(id, now(3)).await.is_ok(),
        Try::Extend => store.extend(id, Timeout::from_seconds(900).unwrap(), now(3)).await.is_ok(),
        Try::Recover => store.recover(now(3)).await.is_ok(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn never_leave_the_table(picks in prop::collection::vec(0..TRIES.len(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path());
            let new = new_plan(1);
            store.propose(new.clone()).await.unwrap();
            let project = Name::default_project();
            let look = || store.plan(&project, Owner::Everyone, &new.plan.id);
            let mut runs = 0;
            for (nth, pick) in (1..).zip(picks) {
                let what = *TRIES.get(pick).unwrap();
                let before = look().await.unwrap().unwrap();
                let head = store.head();
                let worked = attempt(&store, &new, what, nth).await;
                let after = look().await.unwrap().unwrap();
                let (from, to) = (before.status, after.status);
                assert!(from == to || from.may_become(to), "{what:?} led from {from} to {to}");
                let steps = after.revision - before.revision;
                if from != to {
                    assert_eq!(steps, 1, "{what:?} is not one entry of the history");
                }
                if !worked {
                    assert_eq!((&after, store.head()), (&before, head), "{what:?} failed and left something behind");
                }
                runs += u32::from(to == Status::Running && from != to);
                assert!(runs <= 1, "the plan ran twice");
                assert_eq!(after.run.is_some(), runs == 1);
            }
            let positions = store.positions_of(&new.plan.id).await.unwrap();
            let revision = look().await.unwrap().unwrap().revision;
            assert_eq!(u64::try_from(positions.len()).unwrap(), revision, "the history has a hole");
            root_matches_the_leaves(&store).await;
            let pending = store.plans(&project, Owner::Everyone, PlanFilter { statuses: vec![Status::Pending], before: None, limit: 100 });
            assert_eq!(u64::try_from(pending.await.unwrap().len()).unwrap(), store.counts(&project).pending, "a count drifted");
        });
    }
}
