//! Waking those who wait for one plan, and nobody else: a long poll costs nothing while other plans move.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use provara_domain::PlanId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::gateway::{Inner, lock};

/// One channel for each plan that somebody waits for.
#[derive(Default)]
pub(crate) struct Wakeups(Mutex<HashMap<PlanId, watch::Sender<()>>>);

impl Wakeups {
    /// Returns a receiver that is told of every later change of `plan`. Subscribe first, then look, or a change is missed.
    pub(crate) fn subscribe(&self, plan: &PlanId) -> watch::Receiver<()> {
        lock(&self.0).entry(plan.clone()).or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// Forgets the plan once nobody waits any more. To be called after a waiter has dropped its receiver.
    pub(crate) fn release(&self, plan: &PlanId) {
        let mut map = lock(&self.0);
        if map.get(plan).is_some_and(|sender| sender.receiver_count() == 0) {
            map.remove(plan);
        }
    }

    pub(crate) fn wake(&self, plan: &PlanId) {
        if let Some(sender) = lock(&self.0).get(plan) {
            sender.send_replace(());
        }
    }

    pub(crate) fn wake_all(&self) {
        for sender in lock(&self.0).values() {
            sender.send_replace(());
        }
    }
}

/// Turns entries of the log into wake-ups until the store closes.
pub(crate) async fn forward(inner: Arc<Inner>) {
    let mut entries = inner.store.subscribe();
    loop {
        match entries.recv().await {
            Ok(entry) => {
                if let Some(plan) = &entry.plan {
                    inner.wakeups.wake(plan);
                }
            }
            // We fell behind and do not know whom to wake. Waking is a hint to look, so waking everyone is right.
            Err(RecvError::Lagged(_)) => inner.wakeups.wake_all(),
            Err(RecvError::Closed) => return,
        }
    }
}
