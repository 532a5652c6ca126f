//! What passed and what was refused, for the run's record. Whatever a run asks for, this stays small.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use provara_domain::{NetworkUse, Refused, Traffic};

use super::allowed::{HostName, Target};
use super::head::HeadError;
use super::hello::HelloError;

/// How many destinations and how many refusals are told one by one.
const NAMED: usize = 64;

/// Why something does not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this run may not speak to it")]
    NotAllowed,
    /// The client closed before it had said anything: nothing was asked, so nothing is refused.
    #[error("nothing was asked")]
    NothingAsked,
    #[error("it leads to an address that no run may speak to")]
    ForbiddenAddress,
    #[error("it leads to a private address, and the operator has not called it internal")]
    PrivateAddress,
    #[error("it leads back to this host")]
    OwnAddress,
    #[error("its name does not lead to an address")]
    Unresolved,
    #[error("it does not answer")]
    Unreachable,
    #[error("{0}")]
    Head(HeadError),
    #[error("the request's head did not come in time")]
    SlowHead,
    #[error("what came through the tunnel is not the start of TLS: {0}")]
    NotTls(HelloError),
    #[error("the tunnel's TLS did not begin in time")]
    SlowHello,
    #[error("the tunnel's TLS asks for `{0}`")]
    OtherName(HostName),
}

/// The bytes of one destination.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    connections: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    meters: BTreeMap<Option<Target>, Arc<Meter>>,
    refusals: BTreeMap<(Option<Target>, String), u64>,
    refused: u64,
}

impl Ledger {
    /// Counts a connection and returns the meter of its destination.
    pub(crate) fn connected(&self, target: &Target) -> Arc<Meter> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Some(target.clone());
        let known = entries.meters.contains_key(&key) || entries.meters.len() < NAMED;
        let meter = Arc::clone(entries.meters.entry(if known { key } else { None }).or_default());
        meter.connections.fetch_add(1, Ordering::Relaxed);
        meter
    }

    pub(crate) fn refuse(&self, target: Option<&Target>, refusal: &Refusal) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.refused = entries.refused.saturating_add(1);
        let key = (target.cloned(), refusal.to_string());
        if entries.refusals.contains_key(&key) || entries.refusals.len() < NAMED {
            let count = entries.refusals.entry(key).or_default();
            *count = count.saturating_add(1);
        }
    }

    pub(crate) fn report(&self) -> NetworkUse {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |target: &Option<Target>| target.as_ref().map(ToString::to_string);
        let destinations = entries.meters.iter().map(|(target, meter)| Traffic {
            destination: text(target),
            connections: meter.connections.load(Ordering::Relaxed),
            sent: meter.sent.load(Ordering::Relaxed),
            received: meter.received.load(Ordering::Relaxed),
        });
        let refusals = entries.refusals.iter().map(|((target, reason), count)| Refused {
            destination: text(target),
            reason: reason.clone(),
            count: *count,
        });
        NetworkUse { destinations: destinations.collect(), refusals: refusals.collect(), refused: entries.refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_run_asks_for_its_record_stays_small_and_its_counts_whole() {
        let ledger = Ledger::default();
        for number in 0..1000 {
            let target = Target::parse(&format!("h{number}.example.org"), Some(443)).unwrap();
            ledger.refuse(Some(&target), &Refusal::NotAllowed);
            ledger.refuse(None, &Refusal::SlowHead);
            ledger.connected(&target).sent.fetch_add(2, Ordering::Relaxed);
        }
        let report = ledger.report();
        assert_eq!((report.destinations.len(), report.refusals.len(), report.refused), (65, 64, 2000));
        assert_eq!(report.destinations.iter().map(|traffic| traffic.connections).sum::<u64>(), 1000);
        assert_eq!(report.destinations.iter().map(|traffic| traffic.sent).sum::<u64>(), 2000);
        assert_eq!(report.destinations[0].destination, None);
        let slow = report.refusals.iter().find(|refused| refused.destination.is_none()).unwrap();
        assert_eq!((slow.reason.as_str(), slow.count), ("the request's head did not come in time", 1000));
    }
}
