//! The server that is measured, how full it is, and what a load on its plain routes comes to.

use std::time::Duration;

use serde_json::Value;

use crate::client::{Ask, Client, Target, Who, pending_count, proposal};
use crate::commands::PLAN;
use crate::effort::Effort;
use crate::failure::Failure;
use crate::load::{closed_loop, repeat};
use crate::process::{self, Busy};
use crate::row::Row;
use crate::say;

/// How long we look at the machine before a measure, to tell how idle it was.
const GLANCE: Duration = Duration::from_millis(100);
/// Clients that fill a queue.
const FILLERS: u32 = 32;

/// A server at one length of its queue.
pub(crate) struct Stand<'a> {
    pub(crate) target: Target,
    pub(crate) effort: &'a Effort,
    /// `empty`, `short` or `long`.
    pub(crate) queue: &'static str,
}

impl Stand<'_> {
    /// Returns the beginning of a row: what waited before it, and how idle the machine was.
    pub(crate) async fn begin(&self, measure: &str) -> Result<Row, Failure> {
        say::progress(&format!("{measure}, {} queue", self.queue));
        let pending = pending_count(&mut Client::connect(&self.target).await?).await?;
        let row = Row::new(measure).with("queue", self.queue).with("pending", pending);
        Ok(row.number("idle_before", idle().await))
    }

    /// POST /plan by few and by many.
    pub(crate) async fn plan(&self, crowds: &[u32]) -> Result<Vec<Row>, Failure> {
        self.loads("plan", &proposal(PLAN), crowds).await
    }

    /// GET /status by few and by many.
    pub(crate) async fn status(&self) -> Result<Vec<Row>, Failure> {
        self.loads("status", &Ask::get(Who::Nobody, "/status"), self.effort.askers).await
    }

    /// GET /pending by few and by many; first whether it lists what it should.
    pub(crate) async fn pending(&self) -> Result<Vec<Row>, Failure> {
        let ask = Ask::get(Who::Approver, "/pending?limit=50");
        let mut client = Client::connect(&self.target).await?;
        let waiting = pending_count(&mut client).await?;
        let listed = client.ask_json(&ask).await?.as_array().map(Vec::len);
        if listed != usize::try_from(waiting.min(50)).ok() {
            let why = format!("{waiting} plans wait, and it lists {listed:?} of at most 50");
            return Err(Failure::Unexpected { route: "/pending", why });
        }
        self.loads("pending", &ask, self.effort.askers).await
    }

    async fn loads(&self, measure: &str, ask: &Ask, crowds: &[u32]) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for clients in crowds {
            let row = self.begin(measure).await?.with("clients", *clients);
            rows.push(closed_loop(&self.target, ask, *clients, self.effort.load).await?.tell(row));
        }
        Ok(rows)
    }

    /// Lets `count` plans wait.
    pub(crate) async fn fill(&self, count: u32) -> Result<Row, Failure> {
        let row = self.begin("fill").await?;
        let waiting = pending_count(&mut Client::connect(&self.target).await?).await?;
        let missing = count.saturating_sub(u32::try_from(waiting).unwrap_or(u32::MAX));
        let took = repeat(&self.target, &proposal(PLAN), FILLERS, missing).await?;
        Ok(row.with("plans", missing).number("ops_per_s", f64::from(missing) / took.as_secs_f64().max(f64::EPSILON)))
    }

    /// Memory of the server, and of its helper apart.
    pub(crate) async fn rss(&self) -> Result<Row, Failure> {
        let row = self.begin("rss").await?;
        let resident = self.target.process.and_then(process::resident);
        let children = self.target.process.map(process::children);
        let helpers = children.map(|all| all.into_iter().filter_map(process::resident).sum::<u32>());
        Ok(row.number("server_mib", resident.map(mib)).number("helper_mib", helpers.map(mib)))
    }
}

/// Returns how idle the machine is: with a busy neighbour no number is worth much.
pub(crate) async fn idle() -> Option<f64> {
    let before = Busy::now()?;
    tokio::time::sleep(GLANCE).await;
    Busy::now()?.idle_since(&before)
}

pub(crate) fn mib(kib: u32) -> f64 {
    f64::from(kib) / 1024.0
}

/// Returns a field of an answer as text, empty where it has none.
pub(crate) fn word<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer.pointer(field).and_then(Value::as_str).unwrap_or_default()
}
