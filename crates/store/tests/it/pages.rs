//! Rendered lists: never older than what was acknowledged, never somebody else's, and gone when erased.

use bytes::Bytes;

use super::*;

/// Each plan's id, status and command, a line each.
fn lines(store: &Store) -> Pages {
    store.pages(Rendering {
        item: std::sync::Arc::new(|record| {
            let command = record.plan.command.as_str();
            Some(format!("{} {} {} {command}\n", record.plan.id, record.status, record.revision).into_bytes())
        }),
        list: |items: &[Bytes]| items.concat(),
    })
}

fn pending(before: Option<u64>, limit: u32) -> PlanFilter {
    PlanFilter { statuses: vec![Status::Pending], before, limit }
}

async fn text(pages: &Pages, owner: Owner, filter: PlanFilter) -> String {
    String::from_utf8(pages.list(&project(), owner, filter).await.unwrap().body.to_vec()).unwrap()
}

/// Everybody looks while everybody changes: what a writer was told is in what it then reads, and what it never wrote is not.
pub(crate) async fn whoever_was_answered_finds_it_in_the_next_list(place: Place) {
    let store = place.open();
    let pages = std::sync::Arc::new(lines(&store));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8_u64 {
        let (store, pages) = (store.clone(), std::sync::Arc::clone(&pages));
        writers.spawn(async move {
            for n in 0..25_u64 {
                let new = new_plan(writer * 1000 + n + 1);
                let id = new.plan.id.to_string();
                store.propose(new.clone()).await.unwrap();
                let all = text(&pages, Owner::Everyone, pending(None, 500)).await;
                assert!(all.contains(&format!("{id} pending 1 ")), "what was acknowledged is not listed");
                store.rejudge(&project(), &new.plan.id, &judgement(), cause(1)).await.unwrap();
                let all = text(&pages, Owner::Everyone, pending(None, 500)).await;
                assert!(all.contains(&format!("{id} pending 2 ")), "an older revision is listed");
                store.decide(&project(), decision(&new, DecisionKind::Deny, 2)).await.unwrap();
                let all = text(&pages, Owner::Everyone, pending(None, 500)).await;
                assert!(!all.contains(&id), "what was denied is listed");
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    assert_eq!(text(&pages, Owner::Everyone, pending(None, 500)).await, "");
    sound(&store).await;
}

pub(crate) async fn a_list_is_its_owners_and_goes_on_where_it_ended(place: Place) {
    let store = place.open();
    let pages = lines(&store);
    for n in 1..=5 {
        let agent = if n % 2 == 0 { "other" } else { "agent" };
        store.propose(new_plan_of(agent, n)).await.unwrap();
    }
    for _ in 0..2 {
        for owner in [Owner::Only(name("agent")), Owner::Only(name("other")), Owner::Everyone] {
            let mut before = None;
            let mut seen = String::new();
            loop {
                let page = pages.list(&project(), owner.clone(), pending(before, 2)).await.unwrap();
                seen.push_str(std::str::from_utf8(&page.body).unwrap());
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            let records = store.plans(&project(), owner.clone(), pending(None, 99)).await.unwrap();
            let expected: String = records
                .iter()
                .map(|it| format!("{} {} {} {}\n", it.plan.id, it.status, it.revision, it.plan.command.as_str()))
                .collect();
            assert_eq!(seen, expected, "{owner:?}");
        }
    }
    let elsewhere = pages.list(&name("elsewhere"), Owner::Everyone, pending(None, 9)).await.unwrap();
    assert_eq!((elsewhere.body, elsewhere.next), (Bytes::new(), None));
}

pub(crate) async fn what_is_erased_leaves_the_memory_with_the_commit(place: Place) {
    let store = place.open();
    let pages = lines(&store);
    let new = new_plan(1);
    store.propose(new.clone()).await.unwrap();
    assert!(text(&pages, Owner::Everyone, pending(None, 9)).await.contains(new.plan.command.as_str()));
    store.withdraw(&project(), &new.plan.id, cause(1)).await.unwrap();
    // Nobody looks in between, so the old list is still there until the erasure.
    assert!(pages.held() > new.plan.command.as_str().len());
    store.erase(&project(), &new.plan.id, cause(2)).await.unwrap();
    assert_eq!(pages.held(), 0);
    let every = PlanFilter { limit: 9, ..PlanFilter::default() };
    assert_eq!(text(&pages, Owner::Everyone, every).await, format!("{} withdrawn 3 [erased]\n", new.plan.id));
}
