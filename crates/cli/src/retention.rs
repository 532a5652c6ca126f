//! Erasing: by an admin's word (`provara erase`), and by age where AGENT_HUB_RETENTION_DAYS says so.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use provara_domain::Timestamp;
use provara_gateway::Gateway;
use serde_json::{Value, json};

use crate::commands::Session;
use crate::failure::Failure;

/// How often what has grown old is looked for.
const EVERY: Duration = Duration::from_secs(3600);
/// Between two steps: others write too.
const PAUSE: Duration = Duration::from_millis(100);

/// What an admin wants erased.
#[derive(Debug)]
pub(crate) enum Which {
    Plan(String),
    /// What settled before this day.
    Before(String),
}

/// Erases plans that settled longer ago than `keep`, until the server ends.
pub(crate) async fn keep(gateway: Gateway, keep: Option<Duration>) {
    let Some(keep) = keep else { return };
    let back = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    loop {
        let before = Timestamp::from_millis(gateway.now().as_millis().saturating_sub(back));
        let mut all: u64 = 0;
        loop {
            match gateway.retain_from(before).await {
                Ok(erased) => {
                    all = all.saturating_add(erased.plans);
                    if !erased.more {
                        break;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "could not erase what is old enough; will try again");
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        if all > 0 {
            tracing::info!(plans = all, "erased what is older than RETENTION_DAYS");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Asks, and erases step by step.
pub(crate) fn erase(session: &Session, which: &Which, certain: bool) -> Result<ExitCode, Failure> {
    let client = session.operator()?;
    let (body, what) = match which {
        Which::Plan(id) => (json!({ "plan": id }), format!("plan {id}")),
        Which::Before(day) => (json!({ "before": day }), format!("every plan that settled before {day}")),
    };
    if !certain {
        confirmed(&what)?;
    }
    let mut erased = 0;
    loop {
        let answer = client.post("/erase", &body)?;
        erased += answer.get("erased").and_then(Value::as_u64).unwrap_or(0);
        if answer.get("more") != Some(&Value::Bool(true)) {
            break;
        }
    }
    session.answer(&json!({ "erased": erased }), |out, _| writeln!(out, "erased {erased}"))
}

fn confirmed(what: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("nobody to ask on a terminal; add --yes to erase for good".to_owned()));
    }
    let what = crate::display::visible_line(what);
    write!(io::stderr(), "erase commands, input and output of {what}, for good? [y/N] ")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let yes = ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str());
    if yes { Ok(()) } else { Err(Failure::Pending("nothing was erased".to_owned())) }
}
