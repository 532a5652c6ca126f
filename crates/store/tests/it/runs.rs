//! Runs: claimed once, recorded once, their output kept.

use super::*;

pub(crate) async fn of_sixteen_claims_one_wins(place: Place) {
    let store = place.open();
    for round in 1..=20 {
        let new = approved(&store, round).await;
        let claimers: Vec<_> = (0..16)
            .map(|n| {
                let (store, id) = (store.clone(), new.plan.id.clone());
                let run = run_of(round * 100 + n);
                tokio::spawn(async move { store.claim(&Name::local_target(), &id, run, cause(2)).await })
            })
            .collect();
        let mut won = Vec::new();
        for claimer in claimers {
            match claimer.await.unwrap() {
                Ok(claim) => won.push(claim),
                Err(TransitionError::Conflict { found: Status::Running, .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        let [claim] = won.as_slice() else { panic!("{won:?}") };
        let record = look(&store, &new.plan.id).await;
        assert_eq!(record.run.unwrap().id, *claim.run());
        assert_eq!((claim.plan(), claim.limits().timeout_s), (&new.plan, 30));
    }
    assert_eq!(sound(&store).await.counts.runs, 20);
}

pub(crate) async fn an_approval_and_its_claim_are_one_commit_or_none(place: Place) {
    let store = place.open();
    let local = Name::local_target();
    // Of an approval with a claim, an approval, a denial and a withdrawal at once, one wins, and a claim only with its own.
    for round in 1..=20 {
        let new = new_plan(round);
        store.propose(new.clone()).await.unwrap();
        let before = store.head();
        let (of, id) = (project(), &new.plan.id);
        let with_claim = decision(&new, DecisionKind::Approve, 1);
        let (claimed, approved, denied, withdrawn) = tokio::join!(
            store.approve_and_claim(&of, with_claim, &local, run_of(round), cause(2)),
            store.decide(&of, decision(&new, DecisionKind::Approve, 1)),
            store.decide(&of, decision(&new, DecisionKind::Deny, 1)),
            store.withdraw(&of, id, cause(1)),
        );
        let won = [approved.is_ok(), denied.is_ok(), withdrawn.is_ok()].into_iter().filter(|won| *won).count();
        let record = look(&store, id).await;
        match claimed {
            Ok((decided, claim)) => {
                assert_eq!((won, decided.status, decided.revision), (0, Status::Approved, 2));
                assert_eq!(claim.unwrap().run(), &run_of(round));
                assert_eq!((record.status, record.revision, store.head()), (Status::Running, 3, before + 2));
                let entries = store.entries(&of, Owner::Everyone, before, 9).await.unwrap();
                let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
                assert_eq!(kinds, ["plan.approved", "run.started"]);
            }
            Err(TransitionError::Conflict { .. }) => assert_eq!((won, store.head()), (1, before + 1)),
            Err(error) => panic!("{error:?}"),
        }
    }
    // What is not this worker's, or no longer valid when it would be claimed, is approved and waits. A denial claims nothing.
    for (n, kind, target, seconds, status) in [
        (101, DecisionKind::Approve, name("elsewhere"), 2, Status::Approved),
        (102, DecisionKind::Approve, local.clone(), 600, Status::Approved),
        (103, DecisionKind::Deny, local.clone(), 2, Status::Denied),
    ] {
        let new = new_plan(n);
        store.propose(new.clone()).await.unwrap();
        let (of, made) = (project(), decision(&new, kind, 1));
        let (decided, claim) = store.approve_and_claim(&of, made, &target, run_of(n), cause(seconds)).await.unwrap();
        assert!(claim.is_none(), "{claim:?}");
        assert_eq!((decided.status, look(&store, &new.plan.id).await.status), (status, status));
    }
    sound(&store).await;
}

pub(crate) async fn a_claim_needs_its_target_and_a_valid_approval(place: Place) {
    let store = place.open();
    let new = approved(&store, 1).await;
    let local = Name::local_target();
    let waiting = new_plan(2);
    store.propose(waiting.clone()).await.unwrap();
    let before = sound(&store).await;
    for (target, id, seconds) in [
        (&local, &new.plan.id, 600),
        (&local, &new.plan.id, 601),
        (&name("elsewhere"), &new.plan.id, 2),
        (&local, &waiting.plan.id, 2),
    ] {
        let refused = store.claim(target, id, run_of(1), cause(seconds)).await;
        assert!(matches!(refused, Err(TransitionError::Conflict { .. })), "{refused:?}");
    }
    let unknown = store.claim(&local, &new_plan(9).plan.id, run_of(1), cause(2)).await;
    assert!(matches!(unknown, Err(TransitionError::NotFound)));
    assert_eq!(sound(&store).await, before);
    assert_eq!(store.claimable(&name("elsewhere"), 9).await.unwrap(), []);
    assert_eq!(store.claimable(&local, 9).await.unwrap(), std::slice::from_ref(&new.plan.id));
    let _ = store.claim(&local, &new.plan.id, run_of(1), cause(599)).await.unwrap();
    assert_eq!(store.claimable(&local, 9).await.unwrap(), []);
}

pub(crate) async fn a_run_is_recorded_once(place: Place) {
    let store = place.open();
    let new = running(&store, 1).await;
    let done = store.record(ran(run_of(1), 0), cause(3)).await.unwrap();
    let (found, told) = (done.run.as_ref().unwrap(), ran(run_of(1), 0));
    assert_eq!((&found.usage, &found.written), (&told.usage, &told.written));
    assert_eq!((done.status, done.revision), (Status::Finished, 4));
    let before = sound(&store).await;
    let other = Ran { outcome: Outcome::Exited { code: 9 }, ..ran(run_of(1), 7) };
    let again = store.record(other, cause(4)).await;
    assert!(matches!(again, Err(TransitionError::Conflict { found: Status::Finished, .. })), "{again:?}");
    let unknown = store.record(ran(run_of(2), 0), cause(4)).await;
    assert!(matches!(unknown, Err(TransitionError::NotFound)), "{unknown:?}");
    assert!(store.lose(&new.plan.id, cause(4)).await.is_err());
    assert_eq!(sound(&store).await, before);
}

pub(crate) async fn a_lost_run_can_still_be_told_of_and_the_log_says_late(place: Place) {
    let store = place.open();
    let new = running(&store, 1).await;
    let other = running(&store, 2).await;
    let mut output = store.output_writer(&run_of(1)).unwrap();
    output.append(Stream::Stdout, b"kept").unwrap();
    drop((output, store));
    let store = place.open();
    assert_eq!(store.recover(cause(5)).await.unwrap().lost, [new.plan.id.clone(), other.plan.id.clone()]);
    let told = store.record(ran(run_of(1), 4), cause(6)).await.unwrap();
    assert_eq!((told.status, told.revision), (Status::Finished, 5));
    assert_eq!(told.run.unwrap().outcome, Some(Outcome::Exited { code: 0 }));
    let page = store.read_output(&project(), &run_of(1), Stream::Stdout, 0, 100).await.unwrap();
    assert_eq!((&page.bytes[..], page.ended), (&b"kept"[..], true));
    assert!(store.record(ran(run_of(1), 4), cause(7)).await.is_err(), "told twice");

    store.recover(cause(8)).await.unwrap();
    let own = running(&store, 3).await;
    store.record(ran(run_of(3), 0), cause(9)).await.unwrap();
    let entries = sound(&store).await.entries;
    let history = |id: &PlanId| -> Vec<(String, bool)> {
        let of_it = entries.iter().filter(|entry| entry.plan.as_ref() == Some(id));
        of_it.map(|it| (it.kind.clone(), String::from_utf8_lossy(&it.leaf).contains(r#""late":true"#))).collect()
    };
    let ends =
        |id| history(id).split_off(2).into_iter().map(|(kind, late)| format!("{kind} {late}")).collect::<Vec<_>>();
    assert_eq!(ends(&new.plan.id), ["run.started false", "run.lost false", "run.finished true"]);
    assert_eq!(ends(&other.plan.id), ["run.started false", "run.lost false"]);
    assert_eq!(ends(&own.plan.id), ["run.started false", "run.finished false"]);
}

pub(crate) async fn a_run_keeps_the_ends_of_its_output(place: Place) {
    let mut store = place.open();
    let _ = running(&store, 1).await;
    let run = run_of(1);
    let mut output = store.output_writer(&run).unwrap();
    assert!(store.output_writer(&run).is_err(), "two writers for one run");
    assert!(store.output_writer(&run_of(9)).is_err(), "a writer for a run that nobody claimed");
    output.append(Stream::Stdout, b"0123456789abcdefghij").unwrap();
    output.append(Stream::Stdout, b"KLMNO").unwrap();
    for state in ["live", "recorded", "opened again"] {
        if state == "opened again" {
            store.close().await;
            drop(store);
            store = place.open();
        }
        let read = async |offset, max| store.read_output(&project(), &run, Stream::Stdout, offset, max).await.unwrap();
        let head = read(4, 100).await;
        assert_eq!((head.offset, &head.bytes[..], head.gap, head.total), (4, &b"456789"[..], false, 25), "{state}");
        let tail = read(10, 100).await;
        assert_eq!((tail.offset, &tail.bytes[..], tail.gap), (15, &b"fghijKLMNO"[..], true), "{state}");
        let piece = read(20, 3).await;
        assert_eq!((piece.offset, &piece.bytes[..], piece.gap), (20, &b"KLM"[..], false), "{state}");
        for beyond in [25, 26, u64::MAX] {
            let page = read(beyond, 100).await;
            assert_eq!((page.bytes.len(), page.total), (0, 25), "{state} at {beyond}");
        }
        let quiet = store.read_output(&project(), &run, Stream::Stderr, 0, 100).await.unwrap();
        assert_eq!((quiet.bytes.len(), quiet.total, quiet.ended), (0, 0, state != "live"));
        if state == "live" {
            let done = store.record(ran(run.clone(), 25), cause(3)).await.unwrap();
            let run = done.run.unwrap();
            assert_eq!((run.stdout_bytes, run.redactions), (25, 25));
        }
    }
}

pub(crate) async fn whoever_follows_an_output_is_woken_by_bytes_and_by_its_end(place: Place) {
    let store = place.open();
    let _ = running(&store, 1).await;
    let mut output = store.output_writer(&run_of(1)).unwrap();
    let follow = |beyond| {
        let store = store.clone();
        tokio::spawn(async move { store.output_grown(&run_of(1), Stream::Stdout, beyond).await })
    };
    let first = follow(0);
    output.append(Stream::Stdout, b"x").unwrap();
    let second = follow(1);
    let soon = Duration::from_secs(20);
    assert!(tokio::time::timeout(soon, first).await.is_ok(), "not woken by bytes");
    store.record(ran(run_of(1), 1), cause(3)).await.unwrap();
    assert!(tokio::time::timeout(soon, second).await.is_ok(), "not woken by the end");
    assert!(tokio::time::timeout(soon, follow(1)).await.is_ok(), "waits for a run that ended");
}

pub(crate) async fn each_step_is_counted_once_and_a_refused_one_never(place: Place) {
    let store = place.open();
    let new = running(&store, 1).await;
    store.record(ran(run_of(1), 0), cause(3)).await.unwrap();
    let refused = new_plan(2);
    store.propose(refused.clone()).await.unwrap();
    store.decide(&project(), decision(&refused, DecisionKind::Deny, 9)).await.unwrap();
    let edited = new_plan(3);
    store.propose(edited.clone()).await.unwrap();
    store.supersede(&edited.plan.id, NewPlan { cause: cause(20), ..new_plan(4) }).await.unwrap();
    let blocked = NewPlan { judgement: judged(Verdict::Deny), ..new_plan(5) };
    store.propose(blocked).await.unwrap();
    running(&store, 6).await;
    store.recover(cause(30)).await.unwrap();
    // None of these comes to anything.
    store.decide(&project(), decision(&new, DecisionKind::Approve, 4)).await.unwrap_err();
    store.claim(&Name::local_target(), &new.plan.id, run_of(9), cause(4)).await.unwrap_err();
    store.record(ran(run_of(1), 0), cause(5)).await.unwrap_err();

    let measures = store.measures();
    assert_eq!(measures.answers().collect::<Vec<_>>(), [("approve", 2), ("deny", 1), ("edit", 1)]);
    let judged: u64 = measures.judgements().map(|(_, count)| count).sum();
    assert_eq!((judged, measures.judgements().last()), (6, Some(("deny", 1))));
    let ended: Vec<_> = measures.outcomes().filter(|(_, count)| *count > 0).collect();
    assert_eq!(ended, [("exited", 1), ("lost", 1)]);
    let page = |histogram| {
        let mut page = provara_metrics::Page::default();
        page.family("it", provara_metrics::Kind::Histogram, "It.").histogram(&[], histogram);
        let page = page.finish();
        page.lines().rev().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(page(&measures.answered_after), ["it_count 4", "it_sum 31"], "1 s twice, 9 s and 20 s");
    assert_eq!(page(&measures.started_after), ["it_count 2", "it_sum 2"]);
    assert_eq!(page(&measures.ran_for), ["it_count 1", "it_sum 0.005"]);
    let changes: Vec<_> = page(&measures.changes_a_commit);
    assert_eq!(changes, ["it_count 16", "it_sum 16"], "each change was waited for, so each is a commit of its own");
    assert_eq!(measures.failed_commits.get(), 0);
}
