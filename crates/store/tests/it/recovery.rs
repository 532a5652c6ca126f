//! What a store is after it was closed, dropped or died.

use std::fs;

use super::*;

pub(crate) async fn what_was_acknowledged_is_there_after_a_drop_and_a_second_server_is_refused(place: Place) {
    let store = place.open();
    let proposals: Vec<_> = (1..=64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.propose(new_plan(n)).await.unwrap() })
        })
        .collect();
    for proposal in proposals {
        proposal.await.unwrap();
    }
    assert!(matches!(place.try_open(), Err(OpenError::InUse { .. })));
    let before = sound(&store).await;
    assert_eq!(before.plans.len(), 64);
    drop(store);
    assert_eq!(sound(&place.open()).await, before);
}

pub(crate) async fn a_crash_makes_running_plans_lost_and_keeps_their_output(place: Place) {
    let store = place.open();
    let (first, waiting) = (running(&store, 1).await, new_plan(2));
    store.propose(waiting.clone()).await.unwrap();
    let ready = approved(&store, 3).await;
    let last = running(&store, 4).await;
    let mut output = store.output_writer(&run_of(1)).unwrap();
    output.append(Stream::Stdout, b"before the crash").unwrap();
    drop((store, output));
    let store = place.open();
    assert_eq!(store.recover(cause(9)).await.unwrap().lost, [first.plan.id.clone(), last.plan.id]);
    assert_eq!(store.recover(cause(9)).await.unwrap(), Recovered::default());
    assert_eq!(look(&store, &waiting.plan.id).await.status, Status::Pending);
    assert_eq!(store.claimable(&Name::local_target(), 9).await.unwrap(), [ready.plan.id]);
    let kept = store.read_output(&project(), &run_of(1), Stream::Stdout, 0, 100).await.unwrap();
    assert_eq!((&kept.bytes[..], kept.ended), (&b"before the crash"[..], true));
    let again = store.claim(&Name::local_target(), &first.plan.id, run_of(9), cause(9)).await;
    assert!(matches!(again, Err(TransitionError::Conflict { found: Status::Lost, .. })), "a lost run ran again");
    sound(&store).await;
}

pub(crate) async fn whoever_asks_a_closed_store_is_told_so(place: Place) {
    let store = place.open();
    let asked: Vec<_> = (1..=32)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.propose(new_plan(n)).await })
        })
        .collect();
    store.close().await;
    let mut acknowledged = 0;
    for answer in asked {
        match answer.await.unwrap() {
            Ok(_) => acknowledged += 1,
            Err(ProposeError::Store(StoreError::Closed)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let read = store.plans(&project(), Owner::Everyone, PlanFilter::default()).await;
    assert!(matches!(read, Err(StoreError::Closed)));
    drop(store);
    assert_eq!(sound(&place.open()).await.plans.len(), acknowledged);
}

pub(crate) async fn outputs_that_a_crash_left_behind_are_removed_and_no_others(place: Place) {
    let store = place.open_keeping(1 << 20).unwrap();
    let large = vec![b'x'; 100_000];
    for (n, bytes) in [(1, &b"small"[..]), (2, &large), (3, b"never recorded")] {
        running(&store, n).await;
        let mut output = store.output_writer(&run_of(n)).unwrap();
        output.append(Stream::Stdout, bytes).unwrap();
        if n == 1 {
            // As a crash would leave it: the commit done, the file still there.
            let spool = place.folder.path().join(format!("output/{}.stdout", run_of(1)));
            fs::copy(&spool, place.folder.path().join("kept")).unwrap();
            store.record(ran(run_of(1), 5), cause(3)).await.unwrap();
            assert!(!spool.exists());
            fs::rename(place.folder.path().join("kept"), spool).unwrap();
        } else if n == 2 {
            store.record(ran(run_of(2), 100_000), cause(3)).await.unwrap();
        }
    }
    drop(store);
    let folder = place.folder.path().join("output");
    let strangers = ["notes.txt", "20261124_002227_00000000000000aa.txt", &format!("{}.stdout", run_of(77))];
    for stranger in strangers {
        fs::write(folder.join(stranger), "mine").unwrap();
    }
    let store = place.open();
    store.recover(cause(9)).await.unwrap();
    assert!(!folder.join(format!("{}.stdout", run_of(1))).exists(), "an orphan was left");
    for stranger in strangers {
        assert!(folder.join(stranger).exists(), "{stranger} was not ours to remove");
    }
    for (n, expected) in [(1, &b"small"[..]), (2, &large), (3, b"never recorded")] {
        let page = store.read_output(&project(), &run_of(n), Stream::Stdout, 0, 1 << 20).await.unwrap();
        assert_eq!(page.bytes, expected, "run {n}");
    }
}
