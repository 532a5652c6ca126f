//! The project's own chores. `cargo xtask check` is the one gate: format, lints, dependency edges, documents, tests.
//! `cargo xtask soak` runs the long proofs.
//! `cargo xtask bench` measures the release build and writes the table of `bench/README.md`.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

mod bench;
mod deny;
mod edges;
mod python;
mod sdk;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let done = match asked.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["check"] => check(),
        ["soak"] => soak("600"),
        ["soak", seconds] if seconds.parse::<u32>().is_ok() => soak(seconds),
        ["bench"] => bench::measure(None),
        ["bench", note] => bench::measure(Some(note)),
        _ => Err("usage: cargo xtask check | soak [SECONDS] | bench [WORDS ABOUT THE MACHINE]".into()),
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
    step("licences and sources of dependencies", deny::check)?;
    step("format", || cargo(&["fmt", "--all", "--check"]))?;
    step("fuzz targets", fuzz_targets)?;
    step("lints", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    step("documents", || {
        let mut doc = Command::new("cargo");
        doc.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
        succeed(doc)
    })?;
    let python = step("python tools", python::venv)?;
    step("tests", || tests(&python))?;
    step("python package", sdk::check)
}

/// The long proofs: the same tests as in `check`, for as long as told, in an optimised build that can still be made to fail.
fn soak(seconds: &str) -> Result<(), Failure> {
    let summary = std::path::absolute("target/soak.json")?;
    let mut tests = Command::new("cargo");
    tests
        .args([
            "test",
            "--profile",
            "soak",
            "--package",
            "provara-cli",
            "--test",
            "it",
            "--",
            "--nocapture",
            "faults::",
        ])
        .env("PROVARA_SOAK_SECONDS", seconds)
        .env("PROVARA_SOAK_SUMMARY", &summary);
    step("soak", || succeed(tests))?;
    let mut fuzz = Command::new("cargo");
    fuzz.args([
        "test",
        "--profile",
        "soak",
        "--workspace",
        "--",
        "hostile_",
        "no_mutated_",
        "canonical_bytes_",
        "a_plans_digest_",
    ]);
    fuzz.args(["an_id_is_"]).env("PROVARA_FUZZ_SECONDS", seconds);
    step("hostile input", || succeed(fuzz))?;
    say(&format!("the summary is in {}", summary.display()));
    Ok(())
}

/// They need a nightly compiler, so here they are only read. Their bodies are in the ordinary tests.
fn fuzz_targets() -> Result<(), Failure> {
    let mut manifest = Command::new("cargo");
    manifest.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path", "fuzz/Cargo.toml"]);
    manifest.stdout(std::process::Stdio::null());
    succeed(manifest)?;
    let mut format = Command::new("rustfmt");
    format.args(["--check", "--edition", "2024"]);
    for entry in std::fs::read_dir("fuzz/fuzz_targets")? {
        format.arg(entry?.path());
    }
    succeed(format)
}

/// nextest where it is installed; cargo's own runner does the same work more slowly.
fn tests(python: &Path) -> Result<(), Failure> {
    let nextest = Command::new("cargo").args(["nextest", "--version"]).output();
    if nextest.is_ok_and(|found| found.status.success()) {
        return cargo_with(python, &["nextest", "run", "--workspace", "--no-fail-fast"]);
    }
    say("cargo-nextest is not installed; using cargo's own test runner");
    cargo_with(python, &["test", "--workspace", "--no-fail-fast"])
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
