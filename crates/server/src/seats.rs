//! Who has to go when every connection is taken: not somebody whose token is known and whose request is being answered, but
//! whoever has waited longest without one, of the network that has the most of those.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// How long one attempt to make room takes at most.
const ATTEMPT: Duration = Duration::from_millis(50);
/// In [`Seat::idle_since`]: a request of a known token is being answered.
const SERVED: u64 = 0;
/// In [`Seat::idle_since`]: its connection was told to end.
const ENDING: u64 = u64::MAX;

/// The open connections.
#[derive(Default)]
pub(crate) struct Seats {
    taken: Mutex<HashMap<u64, Arc<Seat>>>,
    /// Counts what happens here, so that what waits has an order without a clock.
    ticks: AtomicU64,
}

/// One connection's place.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    network: IpAddr,
    idle_since: AtomicU64,
    end: Notify,
    gone: Notify,
}

/// A place that is given back when this is dropped.
pub(crate) struct Taken {
    number: u64,
    seat: Arc<Seat>,
}

/// A request of a known token is being answered: its connection keeps its place until this is dropped.
pub(crate) struct Served(Arc<Seat>);

impl Seats {
    /// Gives a place to a connection from `peer`.
    pub(crate) fn take(self: &Arc<Self>, peer: IpAddr) -> Taken {
        let number = self.tick();
        let seat = Arc::new(Seat {
            seats: Arc::clone(self),
            network: network(peer),
            idle_since: AtomicU64::new(number),
            end: Notify::new(),
            gone: Notify::new(),
        });
        self.taken().insert(number, Arc::clone(&seat));
        Taken { number, seat }
    }

    /// Ends one connection that nobody is served on, if there is one, and returns when its place is free, or else soon.
    pub(crate) async fn make_room(&self) {
        match self.dismiss() {
            Some(seat) => drop(tokio::time::timeout(ATTEMPT, seat.gone.notified()).await),
            None => tokio::time::sleep(ATTEMPT).await,
        }
    }

    fn dismiss(&self) -> Option<Arc<Seat>> {
        let mut networks: HashMap<IpAddr, (usize, u64, Arc<Seat>)> = HashMap::new();
        for seat in self.taken().values() {
            let since = seat.idle_since.load(Ordering::Relaxed);
            if matches!(since, SERVED | ENDING) {
                continue;
            }
            let (idle, oldest, its) = networks.entry(seat.network).or_insert_with(|| (0, since, Arc::clone(seat)));
            *idle += 1;
            if since < *oldest {
                (*oldest, *its) = (since, Arc::clone(seat));
            }
        }
        // Of networks with as many, the one that has waited longer.
        let most = networks.into_values().max_by_key(|(idle, oldest, _)| (*idle, u64::MAX - oldest));
        let (_, since, seat) = most?;
        // Whoever began to be served since we looked stays.
        seat.idle_since.compare_exchange(since, ENDING, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        seat.end.notify_one();
        Some(seat)
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, Arc<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Keeps the place until what this returns is dropped.
    pub(crate) fn serve(self: &Arc<Self>) -> Served {
        self.become_unless_ending(SERVED);
        Served(Arc::clone(self))
    }

    fn become_unless_ending(&self, state: u64) {
        let change = |now| (now != ENDING).then_some(state);
        // An error means that it is ending, and it stays so.
        let _ = self.idle_since.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

impl Taken {
    /// Returns the place, for the requests on this connection.
    pub(crate) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }

    /// Returns when the connection has to end to make room.
    pub(crate) async fn dismissed(&self) {
        self.seat.end.notified().await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.seat.seats.taken().remove(&self.number);
        self.seat.gone.notify_one();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.become_unless_ending(self.0.seats.tick());
    }
}

impl Served {
    /// Returns `body`, which keeps the place until it is sent.
    pub(crate) fn until_sent(self, body: Body) -> Body {
        Body::new(Sending { body, _served: self })
    }
}

struct Sending {
    body: Body,
    _served: Served,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What counts as one peer: of IPv6 the first half of the address, because whoever has one address there has all of that half.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn dismissed(seats: &Seats) -> Option<u64> {
        let seat = seats.dismiss()?;
        let taken = seats.taken();
        taken.iter().find(|(_, other)| Arc::ptr_eq(other, &seat)).map(|(number, _)| *number)
    }

    #[test]
    fn the_oldest_of_the_greediest_goes_first_and_nobody_goes_twice() {
        let seats = Arc::new(Seats::default());
        let lone = seats.take(address("192.0.2.1"));
        let first = seats.take(address("192.0.2.2"));
        let second = seats.take(address("::ffff:192.0.2.2"));
        assert_eq!(dismissed(&seats), Some(first.number));
        // Each has one left: the one that has waited longer.
        assert_eq!(dismissed(&seats), Some(lone.number));
        assert_eq!(dismissed(&seats), Some(second.number));
        assert_eq!(dismissed(&seats), None);
    }

    #[test]
    fn whoever_is_served_stays_and_waits_at_the_end_afterwards() {
        let seats = Arc::new(Seats::default());
        let (one, other) = (seats.take(address("192.0.2.1")), seats.take(address("192.0.2.1")));
        let body = one.seat().serve().until_sent(Body::from("a long answer"));
        assert_eq!(body.size_hint().exact(), Some(13), "a length that is known is still told");
        drop(other.seat().serve());
        drop(body);
        assert_eq!(dismissed(&seats), Some(other.number));
        let served = one.seat().serve();
        assert_eq!(dismissed(&seats), None);
        // Too late for the other: it is ending.
        drop(other.seat().serve());
        drop(served);
        drop(other);
        assert_eq!(dismissed(&seats), Some(one.number));
        drop(one);
        assert!(seats.taken().is_empty());
    }

    #[test]
    fn a_network_of_many_addresses_is_one() {
        let seats = Arc::new(Seats::default());
        let _lone = seats.take(address("2001:db8:1::1"));
        let many: Vec<_> = (1..=3).map(|n| seats.take(address(&format!("2001:db8:2::{n}")))).collect();
        assert_eq!(dismissed(&seats), many.first().map(|taken| taken.number));
        assert_eq!(dismissed(&seats), many.get(1).map(|taken| taken.number));
    }
}
