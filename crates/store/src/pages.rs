//! Lists as somebody rendered them: made once for everybody who may see them, and never older than what was committed when
//! their reader asked.
//!
//! INVARIANT: no row of a plan changes without an entry of the log in the same commit, so the log's head is the version of
//! every list. A page is stamped with the head that was known *before* its rows were read; it may hold later commits, never
//! earlier ones. A reader takes a page whose stamp is at least the head of the moment at which it asked. What was acknowledged
//! before that moment is therefore in it, and what is not committed cannot be.
//!
//! One item's bytes depend on its row alone, and a row's revision grows with each change: an item is kept by both. So a list
//! that changes all the time costs one index range and its new items.
//!
//! With several servers on one database the head in memory is not the database's any more. A page may then be taken only
//! after its stamp was compared with a head read from the database by the same request, and an erasure has to reach every
//! server's memory before it is acknowledged. Until both hold there, nothing may be kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use provara_domain::Name;
use rusqlite::Connection;

use crate::plans;
use crate::store::Store;
use crate::types::{Owner, PlanFilter, PlanRecord, StoreError};

/// The most bytes of whole pages that are kept.
const MAX_PAGES: usize = 2 << 20;
/// The most bytes of items that are kept.
const MAX_ITEMS: usize = 2 << 20;
/// The longest item that is kept: one with a large input must not drive out all others.
const MAX_ITEM: usize = 64 << 10;
/// What an entry costs beside its bytes, about: without this, empty pages would be kept without end.
const ENTRY: usize = 512;

/// How a plan becomes bytes; nothing where it cannot.
pub type RenderPlan = dyn Fn(&PlanRecord) -> Option<Vec<u8>> + Send + Sync;

/// How a list becomes bytes.
#[derive(Clone)]
pub struct Rendering {
    /// One plan. MUST depend on the record alone, and not on the time of day or on who asks.
    pub item: Arc<RenderPlan>,
    /// A list of rendered plans.
    pub list: fn(&[Bytes]) -> Vec<u8>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// As rendered.
    pub body: Bytes,
    /// Where it goes on; nothing at the end.
    pub next: Option<u64>,
}

/// Lists of plans of one rendering, kept within a few MiB.
pub struct Pages {
    store: Store,
    rendering: Rendering,
    kept: Arc<Kept>,
}

impl Store {
    /// Returns lists in this rendering.
    pub fn pages(&self, rendering: Rendering) -> Pages {
        let kept = Arc::new(Kept::default());
        self.inner.memory.forget_with(&kept);
        Pages { store: self.clone(), rendering, kept }
    }
}

impl Pages {
    /// Returns a list of plans, newest first: everything that was committed before this call, nothing that was not.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, project: &Name, owner: Owner, filter: PlanFilter) -> Result<Page, StoreError> {
        let key = Arc::new(Key { project: project.clone(), owner, filter });
        // In this order: a page that an erasure forgets is never kept by whoever reads after it.
        let slot = self.kept.slot(&key);
        let asked_at = self.store.head();
        if let Some(page) = slot.page_since(asked_at) {
            return Ok(page);
        }
        // One reads, and all who asked before that take what it found: each of them knew no later head.
        let _turn = slot.turn.lock().await;
        if let Some(page) = slot.page_since(asked_at) {
            return Ok(page);
        }
        let stamp = self.store.head();
        let (rendering, kept, wanted) = (self.rendering.clone(), Arc::clone(&self.kept), Arc::clone(&key));
        let page = self.store.inner.readers.read(move |conn| read(conn, &wanted, &rendering, &kept)).await?;
        self.kept.put(&key, &slot, stamp, &page);
        Ok(page)
    }

    /// Returns how many bytes are kept.
    pub fn held(&self) -> usize {
        locked(&self.kept.slots).bytes + locked(&self.kept.items).bytes
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("held", &self.held()).finish_non_exhaustive()
    }
}

fn read(conn: &Connection, key: &Key, rendering: &Rendering, kept: &Kept) -> Result<Page, StoreError> {
    let era = kept.era();
    // One snapshot: a plan that changes meanwhile must not be listed as what it is no longer.
    let snapshot = conn.unchecked_transaction()?;
    let listed = plans::revisions(&snapshot, &key.project, &key.owner, &key.filter)?;
    let mut items = Vec::with_capacity(listed.len());
    for (seq, revision) in &listed {
        let item = match kept.item(*seq, *revision) {
            Some(item) => item,
            None => {
                let record = plans::by_seq(&snapshot, *seq)?;
                let item = (rendering.item)(&record).ok_or(StoreError::Corrupt { what: "plan" })?;
                let item = Bytes::from(item);
                kept.put_item(era, *seq, *revision, &item);
                item
            }
        };
        items.push(item);
    }
    let full = u32::try_from(listed.len()).is_ok_and(|count| count == key.filter.limit);
    let next = listed.last().filter(|_| full).map(|(seq, _)| *seq);
    Ok(Page { body: (rendering.list)(&items).into(), next })
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    project: Name,
    owner: Owner,
    filter: PlanFilter,
}

/// One list's place.
#[derive(Default)]
struct Slot {
    /// Held by whoever reads it from the database, until it is read: the others wait for that anyway.
    turn: tokio::sync::Mutex<()>,
    /// With the head that was known before it was read.
    latest: Mutex<Option<(u64, Page)>>,
}

impl Slot {
    fn page_since(&self, head: u64) -> Option<Page> {
        locked(&self.latest).as_ref().filter(|(stamp, _)| *stamp >= head).map(|(_, page)| page.clone())
    }
}

/// What is kept, each part within its bound.
#[derive(Default)]
pub(crate) struct Kept {
    slots: Mutex<Slots>,
    items: Mutex<Items>,
    /// Grows whenever all is forgotten.
    eras: AtomicUsize,
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<Arc<Key>, Arc<Slot>>,
    bytes: usize,
}

#[derive(Default)]
struct Items {
    by_seq: BTreeMap<u64, (u64, Bytes)>,
    bytes: usize,
}

impl Kept {
    /// Forgets every byte, because some of them were erased. What is being read at this moment is not kept either.
    pub(crate) fn forget(&self) {
        // A slot that is in no table any more goes with its last reader.
        *locked(&self.slots) = Slots::default();
        let mut items = locked(&self.items);
        self.eras.fetch_add(1, Ordering::SeqCst);
        *items = Items::default();
    }

    fn era(&self) -> usize {
        self.eras.load(Ordering::SeqCst)
    }

    fn slot(&self, key: &Arc<Key>) -> Arc<Slot> {
        let mut slots = locked(&self.slots);
        if let Some(slot) = slots.by_key.get(key) {
            return Arc::clone(slot);
        }
        slots.make_room(ENTRY);
        slots.bytes += ENTRY;
        Arc::clone(slots.by_key.entry(Arc::clone(key)).or_default())
    }

    fn put(&self, key: &Arc<Key>, slot: &Arc<Slot>, stamp: u64, page: &Page) {
        let mut slots = locked(&self.slots);
        let known = slots.by_key.get(key).is_some_and(|known| Arc::ptr_eq(known, slot));
        let length = page.body.len();
        if length > MAX_PAGES / 2 {
            return;
        }
        if known {
            let before = locked(&slot.latest).as_ref().map_or(0, |(_, page)| page.body.len());
            slots.bytes = slots.bytes.saturating_sub(before);
            if slots.bytes + length > MAX_PAGES {
                slots.make_room(length + ENTRY);
                slots.by_key.insert(Arc::clone(key), Arc::clone(slot));
                slots.bytes += ENTRY;
            }
            slots.bytes += length;
        }
        // Also where it was forgotten meanwhile: those who wait for this very read take it from here.
        *locked(&slot.latest) = Some((stamp, page.clone()));
    }

    fn item(&self, seq: u64, revision: u64) -> Option<Bytes> {
        let items = locked(&self.items);
        items.by_seq.get(&seq).filter(|(kept, _)| *kept == revision).map(|(_, item)| item.clone())
    }

    fn put_item(&self, era: usize, seq: u64, revision: u64, item: &Bytes) {
        let mut items = locked(&self.items);
        if item.len() > MAX_ITEM || era != self.era() {
            return;
        }
        items.bytes += item.len() + ENTRY;
        if let Some((_, before)) = items.by_seq.insert(seq, (revision, item.clone())) {
            items.bytes = items.bytes.saturating_sub(before.len() + ENTRY);
        }
        // The oldest go first: a list begins with the newest.
        while items.bytes > MAX_ITEMS
            && let Some((_, (_, oldest))) = items.by_seq.pop_first()
        {
            items.bytes = items.bytes.saturating_sub(oldest.len() + ENTRY);
        }
    }
}

impl Slots {
    /// Everything goes at once: the lists that are asked for again are back with one read each.
    fn make_room(&mut self, wanted: usize) {
        if self.bytes + wanted > MAX_PAGES {
            *self = Self::default();
        }
    }
}

/// Every holder leaves what it guards whole at each step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_an_erasure_is_not_kept_after_it() {
        let kept = Kept::default();
        let (era, item) = (kept.era(), Bytes::from_static(b"secret"));
        kept.put_item(era, 1, 1, &item);
        assert_eq!(kept.item(1, 1), Some(item.clone()));
        let key =
            Arc::new(Key { project: Name::default_project(), owner: Owner::Everyone, filter: PlanFilter::default() });
        let slot = kept.slot(&key);
        kept.forget();
        kept.put_item(era, 1, 1, &item);
        kept.put(&key, &slot, 1, &Page { body: item.clone(), next: None });
        assert_eq!(kept.item(1, 1), None);
        assert_eq!(locked(&kept.slots).by_key.len(), 0);
        // Whoever waited for that very read still gets it.
        assert_eq!(slot.page_since(1).map(|page| page.body), Some(item));
    }

    #[test]
    fn an_item_of_another_revision_is_not_the_item() {
        let kept = Kept::default();
        kept.put_item(kept.era(), 1, 1, &Bytes::from_static(b"pending"));
        assert_eq!(kept.item(1, 2), None);
    }

    #[test]
    fn memory_is_bounded_whatever_is_asked_for() {
        let kept = Kept::default();
        for limit in 0..9000_u32 {
            let filter = PlanFilter { limit, ..PlanFilter::default() };
            let key = Arc::new(Key { project: Name::default_project(), owner: Owner::Everyone, filter });
            let slot = kept.slot(&key);
            let body = Bytes::from(vec![0; usize::try_from(limit % 4096).unwrap() * 300]);
            kept.put(&key, &slot, 1, &Page { body: body.clone(), next: None });
            kept.put_item(kept.era(), u64::from(limit), 1, &body);
            let slots = locked(&kept.slots);
            let really: usize = slots
                .by_key
                .values()
                .map(|slot| ENTRY + locked(&slot.latest).as_ref().map_or(0, |(_, page)| page.body.len()))
                .sum();
            assert_eq!(slots.bytes, really);
            assert!(slots.bytes <= MAX_PAGES);
            assert!(locked(&kept.items).bytes <= MAX_ITEMS);
        }
    }
}
