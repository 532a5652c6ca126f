//! Rate limits: a fixed window for each client, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
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

/// How many streams each client holds open. One of them must not take every connection from the others.
pub(crate) struct Streams<K: Eq + Hash> {
    most: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

/// One open stream; dropping it gives its place back.
pub(crate) struct Held<K: Eq + Hash> {
    client: K,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Eq + Hash + Clone> Streams<K> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, held: Arc::default() }
    }

    /// Returns a place for a stream of `client`, if it has one left.
    pub(crate) fn take(&self, client: &K) -> Option<Held<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(client.clone()).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Held { client: client.clone(), held: Arc::clone(&self.held) })
    }

    /// Returns how many streams are open, of all clients.
    pub(crate) fn open(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl<K: Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_hold_every_stream_and_gets_its_places_back() {
        let streams = Streams::new(2);
        let first = streams.take(&"a").unwrap();
        let _second = streams.take(&"a").unwrap();
        assert!(streams.take(&"a").is_none());
        let other = streams.take(&"b");
        assert!(other.is_some());
        drop((first, other));
        assert!(streams.take(&"a").is_some());
        assert_eq!(streams.held.lock().unwrap().len(), 1, "a client without streams is still remembered");
    }

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
