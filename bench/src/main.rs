//! What an installation of Provara does on its machine, measured: one JSON line a measure. See `bench/README.md`.

mod args;
mod client;
mod commands;
mod confinement;
mod course;
mod effort;
mod events;
mod failure;
mod judge;
mod limits;
mod load;
mod process;
mod ratios;
mod restart;
mod row;
mod runs;
mod say;
mod server;
mod stand;
mod targets;

use std::process::ExitCode;

use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Args, Command, Wanted};
use crate::failure::Failure;

fn main() -> ExitCode {
    // Before anything is made: what becomes the runner's helper must hold nothing of ours.
    if std::env::args_os().nth(1).is_some_and(|first| first == confinement::HELPER) {
        return provara_runner::helper_main();
    }
    let args = Args::parse();
    let done = match args.command {
        Some(Command::Table { files, write }) => targets::of_files(&files).and_then(|table| match write {
            Some(document) => targets::write(&document, &table),
            None => say::document(&table).map_err(Failure::io("stdout")),
        }),
        None => measure(&args.wanted),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say::told(&format!("error: {}", failure.told()));
            ExitCode::from(if matches!(failure, Failure::Interrupted) { 130 } else { 1 })
        }
    }
}

fn measure(wanted: &Wanted) -> Result<(), Failure> {
    allow_many_files();
    // One thread, so that a client's answer wakes nobody else, and so that the server has the other processors.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::io("the runtime"))?;
    let (rows, failed) = runtime.block_on(async {
        tokio::select! {
            found = course::run(wanted) => found,
            // What was begun is dropped, and with it the server.
            ended = interrupted() => Err(ended),
        }
    })?;
    if wanted.table {
        let rows: Vec<_> = rows.iter().filter_map(|row| serde_json::to_value(row).ok()).collect();
        say::told(&targets::table(&rows));
    }
    failed.map_or(Ok(()), Err)
}

/// A thousand readers are a thousand files, here and in the server, which inherits what we may open.
fn allow_many_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it is refused, connecting tells.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

async fn interrupted() -> Failure {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
    Failure::Interrupted
}
