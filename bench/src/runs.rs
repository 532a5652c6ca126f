//! What an approved command takes beyond the command itself.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::{Ask, Client, Who, approval, propose};
use crate::failure::Failure;
use crate::limits::bare;
use crate::load::{Samples, micros, millis, panicked};
use crate::process;
use crate::row::Row;
use crate::stand::{Stand, mib, word};

/// How often /status is asked while a large output streams.
const LOOK: Duration = Duration::from_millis(1);

impl Stand<'_> {
    /// Approves `true`, and starts the same bare in between: whatever disturbs the machine disturbs both.
    pub(crate) async fn approve(&self) -> Result<Vec<Row>, Failure> {
        let row = self.begin("approve").await?;
        let mut client = Client::connect(&self.target).await?;
        let (mut approved, mut alone) = (Vec::new(), Vec::new());
        for number in 0..=self.effort.approvals {
            let plan = propose(&mut client, "true").await?;
            let asked = Instant::now();
            let answer = client.ask_json(&approval(&plan)).await?;
            let took = asked.elapsed();
            went_well(&answer)?;
            let asked = Instant::now();
            bare("bash", &["-c", "true"])?;
            // The first of both finds cold caches.
            if number > 0 {
                approved.push(took);
                alone.push(asked.elapsed());
            }
        }
        let (approved, alone) = (Samples::new(approved), Samples::new(alone));
        let over = approved.micros(50).zip(alone.micros(50)).map(|(approved, bare)| approved - bare);
        Ok(vec![
            row.with("approvals", approved.count())
                .number("p50_us", approved.micros(50))
                .number("p99_us", approved.micros(99))
                .number("bare_p50_us", alone.micros(50))
                .number("overhead_p50_us", over),
        ])
    }

    /// Approves many sleeping commands at once.
    pub(crate) async fn approve_parallel(&self) -> Result<Vec<Row>, Failure> {
        let row = self.begin("approve_parallel").await?;
        let sleep = self.effort.sleep;
        let mut ready = Vec::new();
        for _ in 0..self.effort.at_once {
            let mut client = Client::connect(&self.target).await?;
            let plan = propose(&mut client, &format!("sleep {}", sleep.as_secs_f64())).await?;
            ready.push((client, approval(&plan)));
        }
        let begun = Instant::now();
        let mut all = JoinSet::new();
        for (mut client, approval) in ready {
            all.spawn(async move { client.ask_json(&approval).await });
        }
        while let Some(ended) = all.join_next().await {
            went_well(&ended.map_err(panicked)??)?;
        }
        let took = begun.elapsed();
        Ok(vec![
            row.with("approvals", self.effort.at_once)
                .number("sleep_ms", millis(sleep))
                .number("wall_ms", millis(took))
                .number("over_ms", millis(took.saturating_sub(sleep))),
        ])
    }

    /// Approves a command that prints a lot, and asks /status meanwhile.
    pub(crate) async fn output(&self) -> Result<Vec<Row>, Failure> {
        let row = self.begin("output").await?;
        let bytes = self.effort.output;
        let (mut client, mut other) = (Client::connect(&self.target).await?, Client::connect(&self.target).await?);
        let plan = propose(&mut client, &format!("yes 0123456789abcdef | head -c {bytes}")).await?;
        let held = |process| Some((process, process::resident(process)?, process::forget_peak(process)?));
        let before = self.target.process.and_then(held);
        let mut waits = Vec::new();
        let approval = approval(&plan);
        let begun = Instant::now();
        let answer = {
            let run = client.ask_json(&approval);
            tokio::pin!(run);
            let status = Ask::get(Who::Nobody, "/status");
            loop {
                let asked = Instant::now();
                tokio::select! {
                    answer = &mut run => break answer?,
                    // Before it is dropped half-way only when the run has ended.
                    answered = other.ask(&status) => { answered?; waits.push(asked.elapsed()); }
                }
                tokio::select! { answer = &mut run => break answer?, () = tokio::time::sleep(LOOK) => {} }
            }
        };
        let took = begun.elapsed();
        went_well(&answer)?;
        let grown = before.and_then(|(process, held, ())| Some(process::peak(process)?.saturating_sub(held)));
        let waits = Samples::new(waits);
        Ok(vec![
            row.with("bytes", bytes)
                .number("wall_ms", millis(took))
                .number("growth_mib", grown.map(mib))
                .with("status_asked", waits.count())
                .number("status_p50_us", waits.micros(50))
                .number("status_worst_us", waits.worst_micros().unwrap_or_else(|| micros(took))),
        ])
    }
}

/// A command that was refused, or could not be confined, is no measure.
fn went_well(answer: &Value) -> Result<(), Failure> {
    if word(answer, "/outcome/kind") == "exited" && answer.get("exit_code").and_then(Value::as_i64) == Some(0) {
        return Ok(());
    }
    let outcome = answer.get("outcome").unwrap_or(&Value::Null);
    let why = format!("the command did not end well: {outcome} {}; try `provara doctor`", word(answer, "/stderr"));
    Err(Failure::Unexpected { route: "/approve", why })
}
