//! The log: in order, followed, proved.

use super::*;

pub(crate) async fn every_entry_is_followed_proved_and_in_its_plans_order(place: Place) {
    let store = place.open();
    let (mut news, mut head) = (store.subscribe(), store.watch_head());
    for n in 1..=9 {
        running(&store, n).await;
    }
    store.record(ran(run_of(4), 0), cause(3)).await.unwrap();
    let body = EventBody::ServerStarted { version: "1".into(), policy: policy().digest };
    store.server_event(body, cause(4)).await.unwrap();
    let all = sound(&store).await;
    assert_eq!((store.head(), *head.borrow_and_update()), (29, 29));
    for entry in &all.entries {
        assert_eq!(*news.recv().await.unwrap(), *entry, "what was followed is not what is read");
    }
    assert!(news.try_recv().is_err());
    let part = store.entries(&project(), Owner::Everyone, 7, 3).await.unwrap();
    assert_eq!(part, all.entries.get(7..10).unwrap());
    assert!(store.entries(&project(), Owner::Everyone, u64::MAX, 3).await.unwrap().is_empty());

    // Every proof of every size, checked by the verifier from the leaves alone.
    let leaves: Vec<_> = all.entries.iter().map(|entry| merkle::leaf_hash(&entry.leaf)).collect();
    for (size, known) in (1..=29).zip(1..) {
        let root = root_of(all.entries.get(..known).unwrap());
        assert_eq!(store.root(size).await.unwrap(), root);
        for (position, leaf) in (0..size).zip(&leaves) {
            let proof = store.inclusion(position, size).await.unwrap();
            merkle::verify_inclusion(leaf, position, size, &proof, &root).unwrap();
        }
        for (old, shorter) in (1..=size).zip(1..) {
            let proof = store.consistency(old, size).await.unwrap();
            let before = root_of(all.entries.get(..shorter).unwrap());
            merkle::verify_consistency(old, size, &proof, &before, &root).unwrap();
        }
    }
    drop(store);
    assert_eq!(sound(&place.open()).await, all);
}

pub(crate) async fn a_checkpoint_is_kept_and_what_the_log_has_not_is_refused(place: Place) {
    let store = place.open();
    assert_eq!(store.latest_checkpoint().await.unwrap(), None);
    assert_eq!(store.root(0).await.unwrap(), merkle::empty_root());
    for n in 1..=3 {
        store.propose(new_plan(n)).await.unwrap();
    }
    for refused in [
        store.root(4).await.map(drop),
        store.inclusion(3, 3).await.map(drop),
        store.inclusion(0, 4).await.map(drop),
        store.inclusion(0, 0).await.map(drop),
        store.consistency(3, 2).await.map(drop),
        store.consistency(1, u64::MAX).await.map(drop),
        store.save_checkpoint(4, "note", at(1)).await,
    ] {
        assert!(matches!(refused, Err(StoreError::OutOfRange { .. })), "{refused:?}");
    }
    store.save_checkpoint(3, "of three", at(1)).await.unwrap();
    store.save_checkpoint(2, "of two", at(2)).await.unwrap();
    drop(store);
    let largest = place.open().latest_checkpoint().await.unwrap();
    assert_eq!(largest, Some((3, "of three".to_owned())));
}
