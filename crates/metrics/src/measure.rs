//! Counters and histograms: atomics, in no order with anything else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a histogram's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Microseconds, told as seconds.
    Time,
    /// Things, told as they are.
    Things,
}

/// How many of what was observed lay in which range.
#[derive(Debug)]
pub struct Histogram {
    unit: Unit,
    /// The highest value of each range but the last, which has none; ascending.
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Returns a histogram of durations whose ranges end at `bounds`: microseconds, ascending.
    pub fn of_time(bounds: &'static [u64]) -> Self {
        Self::new(Unit::Time, bounds)
    }

    /// Returns a histogram of numbers of things whose ranges end at `bounds`, ascending.
    pub fn of_things(bounds: &'static [u64]) -> Self {
        Self::new(Unit::Things, bounds)
    }

    fn new(unit: Unit, bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { unit, bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a duration. MUST be called on a histogram of durations.
    pub fn took(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts a number of things, or of microseconds.
    pub fn observe(&self, value: u64) {
        let range = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(range) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn unit(&self) -> Unit {
        self.unit
    }

    /// Each range's end, the last without one, and how many lay at or below it.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let ends = self.bounds.iter().copied().map(Some).chain([None]);
        let mut below = 0u64;
        ends.zip(self.counts.iter()).map(move |(end, count)| {
            below = below.saturating_add(count.load(Ordering::Relaxed));
            (end, below)
        })
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}
