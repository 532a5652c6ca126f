//! Rate limits: a fixed window for each client, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use provara_domain::Timestamp;

/// How many requests a client may make in a window.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// How many.
    pub requests: u32,
    /// In how long.
    pub window: Duration,
}

/// What is left of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) allowed: bool,
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    pub(crate) resets_in: u64,
    pub(crate) window: u64,
}

/// Windows by client.
pub(crate) struct Windows<K> {
    bucket: Bucket,
    clients: Mutex<HashMap<K, (Timestamp, u32)>>,
}

/// More clients than that at once, and the oldest windows make room. An attacker with many addresses gains what each
/// address has anyway.
const MAX_CLIENTS: usize = 10_000;

impl<K: Eq + Hash + Clone> Windows<K> {
    pub(crate) fn new(bucket: Bucket) -> Self {
        Self { bucket, clients: Mutex::default() }
    }

    /// Counts a request of `client`.
    pub(crate) fn take(&self, client: &K, now: Timestamp) -> Left {
        let Bucket { requests: limit, window } = self.bucket;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(client) {
            clients.retain(|_, (begun, _)| now.since(*begun) < window);
            if clients.len() >= MAX_CLIENTS
                && let Some(oldest) = clients.iter().min_by_key(|(_, (begun, _))| *begun).map(|(key, _)| key.clone())
            {
                clients.remove(&oldest);
            }
        }
        let (begun, used) = clients.entry(client.clone()).or_insert((now, 0));
        // A clock that went backwards begins a new window too: it must not lock anybody out.
        if now.since(*begun) >= window || now < *begun {
            (*begun, *used) = (now, 0);
        }
        let allowed = *used < limit;
        if allowed {
            *used += 1;
        }
        let resets_in = window.saturating_sub(now.since(*begun)).as_secs().max(1);
        Left { allowed, limit, remaining: limit.saturating_sub(*used), resets_in, window: window.as_secs() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_fills_and_begins_anew() {
        let windows = Windows::new(Bucket { requests: 2, window: Duration::from_secs(60) });
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert_eq!(windows.take(&"a", at(0)).remaining, 1);
        assert!(windows.take(&"a", at(1)).allowed);
        let full = windows.take(&"a", at(2));
        assert_eq!((full.allowed, full.resets_in), (false, 58));
        assert!(windows.take(&"b", at(2)).allowed);
        assert!(windows.take(&"a", at(60)).allowed);
        assert!(windows.take(&"a", at(30)).allowed, "a clock that went backwards locked a client out");
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let windows = Windows::new(Bucket { requests: 1, window: Duration::from_secs(60) });
        for client in 0..MAX_CLIENTS + 50 {
            windows.take(&client, Timestamp::from_millis(0));
        }
        assert!(windows.clients.lock().unwrap().len() <= MAX_CLIENTS);
    }
}
