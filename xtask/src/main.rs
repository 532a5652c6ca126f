//! The project's own chores. `cargo xtask check` is the one gate: format, lints, dependency edges, documents, tests.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

mod edges;
mod python;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let done = match asked.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["check"] => check(),
        _ => Err("usage: cargo xtask check".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("failed: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<(), Failure> {
    step("dependency edges", edges::check)?;
    step("format", || cargo(&["fmt", "--all", "--check"]))?;
    step("lints", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    step("documents", || {
        let mut doc = Command::new("cargo");
        doc.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
        succeed(doc)
    })?;
    let python = step("python tools", python::venv)?;
    step("tests", || tests(&python))
}

/// nextest where it is installed; cargo's own runner does the same work more slowly.
fn tests(python: &Path) -> Result<(), Failure> {
    let nextest = Command::new("cargo").args(["nextest", "--version"]).output();
    if nextest.is_ok_and(|found| found.status.success()) {
        return cargo_with(python, &["nextest", "run", "--workspace"]);
    }
    say("cargo-nextest is not installed; using cargo's own test runner");
    cargo_with(python, &["test", "--workspace"])
}

fn step<T>(name: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    say(&format!("== {name}"));
    let begun = Instant::now();
    let made = work().map_err(|failure| format!("{name}: {failure}"))?;
    say(&format!("== {name}: done in {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(made)
}

fn cargo(arguments: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("cargo");
    command.args(arguments);
    succeed(command)
}

fn cargo_with(python: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("cargo");
    command.args(arguments).env(python::VARIABLE, python);
    succeed(command)
}

fn succeed(mut command: Command) -> Result<(), Failure> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}

#[expect(clippy::print_stderr, reason = "a chore talks to whoever runs it")]
fn say(line: &str) {
    eprintln!("{line}");
}
