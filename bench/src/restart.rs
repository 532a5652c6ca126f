//! Ends and starts a server over a long queue: in order, and killed while plans stream in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::client::{Ask, Client, Target, Who, pending_count, propose};
use crate::commands::PLAN;
use crate::failure::Failure;
use crate::load::millis;
use crate::row::Row;
use crate::say;
use crate::server::Server;

/// Clients that propose while the server is killed.
const PROPOSERS: u32 = 16;
/// Plans that must have been acknowledged before it is.
const ACKNOWLEDGED: usize = 50;
/// A debug build on a slow disk needs seconds for them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a row for TERM and one for KILL.
pub(crate) async fn measure(server: &mut Server) -> Result<Vec<Row>, Failure> {
    Ok(vec![in_order(server).await?, killed(server).await?])
}

async fn in_order(server: &mut Server) -> Result<Row, Failure> {
    say::progress("restart after TERM");
    let before = pending_count(&mut Client::connect(&server.target()?).await?).await?;
    let ended = server.end(Signal::SIGTERM).await?;
    let (row, mut client) = again(server, "TERM", before).await?;
    let after = pending_count(&mut client).await?;
    Ok(row.number("end_ms", millis(ended)).with("lost", before.saturating_sub(after)))
}

async fn killed(server: &mut Server) -> Result<Row, Failure> {
    say::progress("restart after KILL, while plans stream in");
    let target = server.target()?;
    let before = pending_count(&mut Client::connect(&target).await?).await?;
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut proposers = JoinSet::new();
    for _ in 0..PROPOSERS {
        proposers.spawn(propose_until_refused(target.clone(), Arc::clone(&acknowledged)));
    }
    let known = || acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len();
    let deadline = Instant::now() + PATIENCE;
    while known() < ACKNOWLEDGED {
        if Instant::now() > deadline {
            return Err(Failure::Silent { route: "POST /plan".into() });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.end(Signal::SIGKILL).await?;
    while proposers.join_next().await.is_some() {}
    let (row, mut client) = again(server, "KILL", before).await?;
    let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap_or_else(PoisonError::into_inner));
    let mut lost = 0;
    for id in &acknowledged {
        lost += u32::from(!is_known(&mut client, id).await?);
    }
    Ok(row.with("acknowledged", acknowledged.len()).with("lost", lost))
}

async fn again(server: &mut Server, signal: &str, pending: u64) -> Result<(Row, Client), Failure> {
    let ready = server.start().await?;
    let mut client = Client::connect(&server.target()?).await?;
    let asked = Instant::now();
    client.ask(&Ask::get(Who::Approver, "/pending?limit=50")).await?;
    let row = Row::new("restart").with("queue", "long").with("pending", pending).with("signal", signal);
    Ok((row.number("ready_ms", millis(ready)).number("first_pending_ms", millis(asked.elapsed())), client))
}

/// Ends by itself when the server does.
async fn propose_until_refused(target: Target, acknowledged: Arc<Mutex<Vec<String>>>) {
    let Ok(mut client) = Client::connect(&target).await else { return };
    while let Ok((id, _)) = propose(&mut client, PLAN).await {
        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }
}

async fn is_known(client: &mut Client, id: &str) -> Result<bool, Failure> {
    match client.ask(&Ask::get(Who::Agent, format!("/commands/{id}"))).await {
        Ok(_) => Ok(true),
        Err(Failure::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
}
