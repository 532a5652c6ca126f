//! Decisions, and every other step of the lifecycle.

use super::*;

pub(crate) async fn of_sixteen_decisions_one_wins(place: Place) {
    let store = place.open();
    for round in 1..=30 {
        let new = new_plan(round);
        store.propose(new.clone()).await.unwrap();
        let deciders: Vec<_> = (0..16)
            .map(|n| {
                let kind = if n % 2 == 0 { DecisionKind::Approve } else { DecisionKind::Deny };
                let (store, decision) = (store.clone(), decision(&new, kind, 1));
                tokio::spawn(async move { store.decide(&project(), decision).await })
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
        assert_eq!(look(&store, &new.plan.id).await.revision, 2);
    }
    sound(&store).await;
}

/// What somebody may try on a plan at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Approve,
    Deny,
    Block,
    Rejudge,
    Remeasure,
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
    Erase,
}

impl Step {
    pub(crate) const ALL: [Self; 17] = [
        Self::Approve,
        Self::Deny,
        Self::Block,
        Self::Rejudge,
        Self::Remeasure,
        Self::ExpirePending,
        Self::ExpireApproved,
        Self::Withdraw,
        Self::CancelApproved,
        Self::Supersede,
        Self::Reopen,
        Self::Claim,
        Self::Record,
        Self::Lose,
        Self::RequestCancel,
        Self::Extend,
        Self::Erase,
    ];

    /// Where the step leads; a step that leads nowhere says from where it may be taken.
    fn leads(self) -> Result<Status, &'static [Status]> {
        match self {
            Self::Approve => Ok(Status::Approved),
            Self::Deny => Ok(Status::Denied),
            Self::Block => Ok(Status::Blocked),
            Self::ExpirePending | Self::ExpireApproved => Ok(Status::Expired),
            Self::Withdraw => Ok(Status::Withdrawn),
            Self::CancelApproved => Ok(Status::Cancelled),
            Self::Supersede => Ok(Status::Superseded),
            Self::Claim => Ok(Status::Running),
            Self::Record => Ok(Status::Finished),
            Self::Lose => Ok(Status::Lost),
            Self::Rejudge | Self::Remeasure => Err(&[Status::Pending]),
            Self::RequestCancel | Self::Extend => Err(&[Status::Running]),
            Self::Reopen => Err(&[Status::Expired, Status::Lost]),
            Self::Erase => Err(&[
                Status::Finished,
                Status::Lost,
                Status::Denied,
                Status::Blocked,
                Status::Expired,
                Status::Withdrawn,
                Status::Superseded,
                Status::Cancelled,
            ]),
        }
    }

    fn allowed(self, from: Status) -> bool {
        match self.leads() {
            // An approval holds for longer than the plan waits for one, so it is not due yet.
            Ok(_) if self == Self::ExpireApproved && from == Status::Pending => false,
            // Only a runner can call its run lost; recovery does the rest.
            Ok(to) => from.may_become(to),
            Err(those) => those.contains(&from),
        }
    }

    /// Takes the step on the plan; whatever it makes is numbered `other`.
    pub(crate) async fn take(
        self,
        store: &Store,
        new: &NewPlan,
        run: &RunId,
        other: u64,
    ) -> Result<(), TransitionError> {
        let (id, project) = (&new.plan.id, project());
        match self {
            Self::Approve => store.decide(&project, decision(new, DecisionKind::Approve, 1)).await.map(drop),
            Self::Deny => store.decide(&project, decision(new, DecisionKind::Deny, 1)).await.map(drop),
            Self::Block => store.block(&project, id, &judged(Verdict::Deny), cause(1)).await.map(drop),
            Self::Rejudge => store.rejudge(&project, id, &judged(Verdict::Ask), cause(1)).await.map(drop),
            Self::Remeasure => store.remeasure(&project, id, Some(measured("echo 2")), cause(1)).await.map(drop),
            Self::ExpirePending => store.expire(id, cause(2000)).await.map(drop),
            Self::ExpireApproved => store.expire(id, cause(700)).await.map(drop),
            Self::Withdraw => store.withdraw(&project, id, cause(1)).await.map(drop),
            Self::CancelApproved => store.cancel_approved(&project, id, cause(1)).await.map(drop),
            Self::Supersede => store.supersede(id, new_plan(other)).await.map(drop),
            Self::Reopen => store.reopen(id, new_plan(other)).await.map(drop),
            Self::Claim => store.claim(&Name::local_target(), id, run.clone(), cause(2)).await.map(drop),
            Self::Record => store.record(ran(run.clone(), 0), cause(3)).await.map(drop),
            Self::Lose => store.lose(id, cause(3)).await.map(drop),
            Self::RequestCancel => store.request_cancel(&project, id, cause(3)).await.map(drop),
            Self::Erase => store.erase(&project, id, cause(4)).await.map(drop),
            Self::Extend => store.extend(&project, id, Timeout::from_seconds(900).unwrap(), cause(3)).await.map(drop),
        }
    }
}

/// The steps that bring a new plan into a status.
const fn road(to: Status) -> &'static [Step] {
    match to {
        Status::Pending => &[],
        Status::Approved => &[Step::Approve],
        Status::Running => &[Step::Approve, Step::Claim],
        Status::Finished => &[Step::Approve, Step::Claim, Step::Record],
        Status::Lost => &[Step::Approve, Step::Claim, Step::Lose],
        Status::Denied => &[Step::Deny],
        Status::Blocked => &[Step::Block],
        Status::Expired => &[Step::ExpirePending],
        Status::Withdrawn => &[Step::Withdraw],
        Status::Superseded => &[Step::Supersede],
        Status::Cancelled => &[Step::Approve, Step::CancelApproved],
    }
}

pub(crate) async fn every_step_from_every_status_is_in_the_table_or_changes_nothing(place: Place) {
    let store = place.open();
    let mut n = 0;
    for from in Status::ALL {
        for step in Step::ALL {
            n += 1;
            let (new, run) = (new_plan(n), run_of(n));
            store.propose(new.clone()).await.unwrap();
            for (nth, before) in (1..).zip(road(from)) {
                before.take(&store, &new, &run, 1000 * (n + 1) + nth).await.unwrap();
            }
            let (before, head, counts) = (look(&store, &new.plan.id).await, store.head(), store.counts(&project()));
            assert_eq!(before.status, from);
            let taken = step.take(&store, &new, &run, 1000 * (n + 1)).await;
            let after = look(&store, &new.plan.id).await;
            if step.allowed(from) {
                taken.unwrap();
                let own = u64::from(step != Step::Reopen);
                let others = u64::from(matches!(step, Step::Supersede | Step::Reopen));
                assert_eq!((after.status, after.revision), (step.leads().unwrap_or(from), before.revision + own));
                assert_eq!(store.head(), head + own + others, "{step:?} from {from}");
                continue;
            }
            match taken {
                Err(TransitionError::Conflict { found, record }) => {
                    assert_eq!((found, *record), (from, before.clone()))
                }
                Err(TransitionError::NotFound) => {
                    assert!(step == Step::Record && before.run.is_none(), "{step:?} from {from} found no plan");
                }
                other => panic!("{step:?} from {from}: {other:?}"),
            }
            let now = (after, store.head(), store.counts(&project()));
            assert_eq!(now, (before, head, counts), "{step:?} from {from} failed and left something behind");
        }
    }
    sound(&store).await;
}

pub(crate) async fn what_a_plan_became_too_late_or_unseen_is_not_decided(place: Place) {
    let store = place.open();
    let new = new_plan(1);
    store.propose(new.clone()).await.unwrap();
    let before = sound(&store).await;
    for kind in [DecisionKind::Approve, DecisionKind::Deny] {
        // What the decision itself says about its time does not count.
        let late = NewDecision { cause: cause(1000), ..decision(&new, kind, 1) };
        let other = decision(&new_plan(2), kind, 1);
        let mut unseen = decision(&new, kind, 1);
        unseen.decision.digest = other.decision.digest;
        for refused in [late, unseen] {
            let answer = store.decide(&project(), refused).await;
            assert!(matches!(answer, Err(TransitionError::Conflict { found: Status::Pending, .. })), "{answer:?}");
        }
    }
    assert_eq!(sound(&store).await, before);
    let early = store.expire(&new.plan.id, cause(999)).await;
    assert!(matches!(early, Err(TransitionError::Conflict { .. })));
    assert_eq!(store.due(at(999), 9).await.unwrap(), []);
    assert_eq!(store.due(at(1000), 9).await.unwrap(), std::slice::from_ref(&new.plan.id));
    let just = decision(&new, DecisionKind::Deny, 999);
    store.decide(&project(), just).await.unwrap();
    assert_eq!(store.due(at(1000), 9).await.unwrap(), []);
}

pub(crate) async fn a_key_is_kept_by_the_decision_that_it_made(place: Place) {
    let store = place.open();
    let new = new_plan(1);
    store.propose(new.clone()).await.unwrap();
    let key = |key: &str| Idempotency { scope: "ann POST /approve/1".into(), key: key.into(), body_sha256: [1; 32] };
    let with = |it: &str, seconds| NewDecision {
        idempotency: Some(key(it)),
        ..decision(&new, DecisionKind::Approve, seconds)
    };
    assert!(store.decide(&project(), with("late", 1000)).await.is_err());
    store.decide(&project(), with("won", 1)).await.unwrap();
    assert!(store.decide(&project(), with("lost", 1)).await.is_err());
    let recalled = async |it: &str, seconds| store.recall(&project(), &key(it), at(seconds)).await.unwrap();
    for refused in ["late", "lost"] {
        assert!(recalled(refused, 2).await.is_none(), "the key of a refused decision was kept");
    }
    assert!(matches!(recalled("won", 2).await, Some(Recalled::Same(record)) if record.plan.id == new.plan.id));
    let other = Idempotency { body_sha256: [2; 32], ..key("won") };
    assert!(matches!(store.recall(&project(), &other, at(2)).await, Ok(Some(Recalled::OtherBody))));
    assert!(store.recall(&name("other"), &key("won"), at(2)).await.unwrap().is_none());
    assert!(recalled("won", 24 * 60 * 60).await.is_some());
    assert!(recalled("won", 24 * 60 * 60 + 1).await.is_none());
}

pub(crate) async fn an_edit_and_a_reopening_are_linked_and_happen_once(place: Place) {
    let store = place.open();
    let (old, edit) = (new_plan(1), new_plan(2));
    store.propose(old.clone()).await.unwrap();
    let edited = store.supersede(&old.plan.id, edit.clone()).await.unwrap();
    assert_eq!((edited.status, edited.origin.as_ref()), (Status::Pending, Some(&old.plan.id)));
    assert_eq!(look(&store, &old.plan.id).await.superseded_by, Some(edit.plan.id.clone()));
    assert!(store.supersede(&old.plan.id, new_plan(3)).await.is_err());
    // Policy may refuse the edit: it is stored all the same, and the old one is gone.
    let refused = NewPlan { judgement: judged(Verdict::Deny), ..new_plan(4) };
    assert_eq!(store.supersede(&edit.plan.id, refused).await.unwrap().status, Status::Blocked);

    let expired = new_plan(5);
    store.propose(expired.clone()).await.unwrap();
    store.expire(&expired.plan.id, cause(1000)).await.unwrap();
    let openers: Vec<_> = (10..26)
        .map(|n| {
            let (store, id) = (store.clone(), expired.plan.id.clone());
            tokio::spawn(async move { store.reopen(&id, new_plan(n)).await.is_ok() })
        })
        .collect();
    let mut opened = 0;
    for opener in openers {
        opened += u32::from(opener.await.unwrap());
    }
    assert_eq!(opened, 1);
    assert_eq!(look(&store, &expired.plan.id).await.status, Status::Expired);
    sound(&store).await;
}
