//! Closed loops: so many clients, each asking again as soon as it was answered.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Ask, Client, Target};
use crate::failure::Failure;
use crate::process;
use crate::row::Row;

/// How long single answers took.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn new(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The sample that `percent` of all do not exceed, in microseconds.
    pub(crate) fn micros(&self, percent: usize) -> Option<f64> {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).map(|found| micros(*found))
    }

    pub(crate) fn worst_micros(&self) -> Option<f64> {
        self.0.last().map(|found| micros(*found))
    }
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What a load came to.
pub(crate) struct Load {
    pub(crate) samples: Samples,
    lasted: Duration,
    server: Option<Duration>,
    client: Option<Duration>,
}

impl Load {
    pub(crate) fn per_second(&self) -> f64 {
        f64::from(self.samples.count()) / self.lasted.as_secs_f64()
    }

    /// Adds what was measured to a row.
    pub(crate) fn tell(&self, row: Row) -> Row {
        let each = |cpu: Option<Duration>| cpu.map(|cpu| micros(cpu) / f64::from(self.samples.count()));
        row.with("requests", self.samples.count())
            .number("ops_per_s", self.per_second())
            .number("p50_us", self.samples.micros(50))
            .number("p99_us", self.samples.micros(99))
            .number("server_cpu_us_per_op", each(self.server))
            .number("client_cpu_us_per_op", each(self.client))
    }
}

/// Lets `clients` ask for so long, after each has asked a few times unmeasured.
pub(crate) async fn closed_loop(target: &Target, ask: &Ask, clients: u32, lasting: Duration) -> Result<Load, Failure> {
    let mut ready = Vec::new();
    for _ in 0..clients {
        let mut client = Client::connect(target).await?;
        for _ in 0..3 {
            client.ask(ask).await?;
        }
        ready.push(client);
    }
    let cpu = || (target.process.and_then(process::cpu), process::cpu(std::process::id()));
    let (before, begun) = (cpu(), Instant::now());
    // Dropped on an early end, which ends every client.
    let mut all = JoinSet::new();
    for mut client in ready {
        let ask = ask.clone();
        all.spawn(async move {
            let mut times = Vec::new();
            // Once at least: a loop without an answer has no numbers.
            while times.is_empty() || begun.elapsed() < lasting {
                let asked = Instant::now();
                client.ask(&ask).await?;
                times.push(asked.elapsed());
            }
            Ok::<_, Failure>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = all.join_next().await {
        times.extend(ended.map_err(panicked)??);
    }
    let (lasted, after) = (begun.elapsed(), cpu());
    let spent = |before: Option<Duration>, after: Option<Duration>| Some(after?.saturating_sub(before?));
    let (server, client) = (spent(before.0, after.0), spent(before.1, after.1));
    Ok(Load { samples: Samples::new(times), lasted, server, client })
}

/// Lets `clients` share out `count` requests, and returns how long that took.
pub(crate) async fn repeat(target: &Target, ask: &Ask, clients: u32, count: u32) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for number in 0..clients {
        let share = count / clients + u32::from(number < count % clients);
        let (target, ask) = (target.clone(), ask.clone());
        all.spawn(async move {
            let mut client = Client::connect(&target).await?;
            for _ in 0..share {
                client.ask(&ask).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.map_err(panicked)??;
    }
    Ok(begun.elapsed())
}

pub(crate) fn panicked(error: tokio::task::JoinError) -> Failure {
    Failure::Io { what: "a task of our own".into(), cause: std::io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_sample_that_so_many_do_not_exceed() {
        let samples = Samples::new((1..=200).rev().map(Duration::from_micros).collect());
        let at = |percent| samples.micros(percent).unwrap().round();
        assert_eq!((at(50), at(99), at(100), at(0)), (100.0, 198.0, 200.0, 1.0));
        assert_eq!(samples.worst_micros().unwrap().round(), 200.0);
        assert_eq!((Samples::default().micros(50), Samples::default().worst_micros()), (None, None));
    }
}
