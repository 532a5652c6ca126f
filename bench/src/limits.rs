//! What this machine can do at best, measured in the same run, so that two machines compare by ratios.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::load::Samples;
use crate::process;
use crate::row::Row;

/// Returns a row for the disk under `folder` and one for each way to start a process.
pub(crate) fn measure(folder: &Path, lasting: Duration) -> Result<Vec<Row>, Failure> {
    let spawned = |name: &'static str, arguments: &'static [&'static str]| {
        let (times, took) = timed(lasting / 2, || bare(name, arguments))?;
        Ok(told(Row::new("limits").with("limit", format!("spawn {name}")), times, took))
    };
    Ok(vec![disk(folder, lasting)?, spawned("true", &[])?, spawned("bash", &["-c", "true"])?])
}

/// What a durable change costs at the least where nobody shares a commit: 200 bytes and a wait for the disk.
fn disk(folder: &Path, lasting: Duration) -> Result<Row, Failure> {
    let failed = || Failure::io(folder.display().to_string());
    let mut file = tempfile::tempfile_in(folder).map_err(failed())?;
    let record = [b'x'; 200];
    let (times, took) = timed(lasting, || {
        file.write_all(&record).map_err(failed())?;
        file.sync_data().map_err(failed())
    })?;
    let row = Row::new("limits").with("limit", "fdatasync").with("filesystem", process::filesystem(folder));
    Ok(told(row, times, took))
}

/// Runs a program with its output in pipes, as a runner has to, and waits for it.
pub(crate) fn bare(name: &'static str, arguments: &[&str]) -> Result<(), Failure> {
    let ended = Command::new(name).args(arguments).stdin(Stdio::null()).output().map_err(Failure::io(name))?;
    if ended.status == ExitStatus::from_raw(0) {
        return Ok(());
    }
    Err(Failure::Io { what: name.to_owned(), cause: std::io::Error::other(ended.status.to_string()) })
}

fn timed(
    lasting: Duration,
    mut work: impl FnMut() -> Result<(), Failure>,
) -> Result<(Vec<Duration>, Duration), Failure> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || begun.elapsed() < lasting {
        let started = Instant::now();
        work()?;
        times.push(started.elapsed());
    }
    Ok((times, begun.elapsed()))
}

fn told(row: Row, times: Vec<Duration>, took: Duration) -> Row {
    let samples = Samples::new(times);
    row.number("ops_per_s", f64::from(samples.count()) / took.as_secs_f64())
        .number("p50_us", samples.micros(50))
        .number("p99_us", samples.micros(99))
}
