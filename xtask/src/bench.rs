//! Measures the release build and writes the table of `bench/README.md`.

use std::ffi::OsString;
use std::fs::File;
use std::process::Command;

use crate::{Failure, cargo, say, succeed};

const RESULTS: &str = "bench/results/reference.jsonl";
/// Each is a run of its own of at most a minute and a half. What a ratio compares stands in one of them.
const PIECES: [&[&str]; 3] = [
    &["limits", "judge", "plan", "approve", "approve_parallel", "output", "events"],
    &["pending", "status", "rss", "restart"],
    &["growth"],
];
/// A command to run each piece under: one that pins it to processors, or that keeps others away meanwhile.
const UNDER: &str = "PROVARA_BENCH_UNDER";

/// Builds, measures with 100,000 plans in the long queue, and writes the table. `note` is about the machine.
pub(crate) fn measure(note: Option<&str>) -> Result<(), Failure> {
    // One after the other: built together they would share the features of both, and the server would not be the shipped one.
    cargo(&["build", "--release", "-p", "provara-cli"])?;
    cargo(&["build", "--release", "-p", "provara-bench"])?;
    let metadata = Command::new("cargo").args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout)?;
    let target = metadata.get("target_directory").and_then(serde_json::Value::as_str).ok_or("no target directory")?;
    let program = OsString::from(format!("{target}/release/provara-bench"));
    let results = File::create(RESULTS)?;
    for piece in PIECES {
        say(&format!("== {}", piece.join(", ")));
        let under = std::env::var(UNDER).unwrap_or_default();
        let mut words = under.split_whitespace().map(OsString::from).chain([program.clone()]);
        let mut bench = Command::new(words.next().ok_or("nothing to run")?);
        bench.args(words).args(["--pending", "100000", "--dir", target]).args(piece).stdout(results.try_clone()?);
        if let Some(note) = note {
            bench.args(["--note", note]);
        }
        succeed(bench)?;
    }
    let mut table = Command::new(program);
    table.args(["table", RESULTS, "--write", "bench/README.md"]);
    succeed(table)
}
