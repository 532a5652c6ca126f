//! The one binary: what can be typed, and what it does.

mod args;
mod backup;
mod client;
mod clock;
mod commands;
mod config;
mod demo;
mod describe;
mod display;
mod doctor;
mod evidence;
mod failure;
mod follow;
#[cfg(test)]
mod fuzz;
mod interrupt;
mod log;
mod man;
mod manage;
mod mirror;
#[cfg(feature = "otel")]
mod otel;
mod paint;
mod prepare;
mod profiles;
mod progress;
mod redaction;
mod restore;
mod retention;
mod rules;
mod secrets;
mod serve;
mod service;
mod setup;
mod table;
mod tell;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command};
use crate::commands::{Change, Session, Yes};
use crate::config::Settings;
use crate::failure::{Failure, complain};

/// A request makes and drops some hundred small values: with the C library's allocator a quarter of a plan's cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refused(&error));
    let own_ending = matches!(cli.command, Command::Run { .. } | Command::Attach { .. });
    let (as_json, quiet) = (cli.common.json, cli.common.quiet);
    match act(cli) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure, as_json, quiet);
            // The command's codes are its own; 125 says that the ending was not one of them.
            if own_ending { ExitCode::from(125) } else { failure.code() }
        }
    }
}

/// Ends with what is wrong with the words that were typed, or with the help that they asked for.
fn refused(error: &clap::Error) -> ! {
    let _ = error.print();
    // The commonest slip of all: what to run is set off, so that its own options are not taken for ours.
    let taken = error.kind() == clap::error::ErrorKind::UnknownArgument;
    let usage = error.get(clap::error::ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    if taken && usage.contains("-- <COMMAND>") {
        let _ = writeln!(std::io::stderr(), "\nthe command comes after `--`, as in `provara plan -- ls -l`");
    }
    std::process::exit(error.exit_code())
}

fn act(cli: Cli) -> Result<ExitCode, Failure> {
    let common = cli.common;
    // These need no server and no settings: above all, a stranger checks the log.
    match &cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "provara", &mut std::io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Man { dir } => return man::man(Cli::command(), dir.as_deref()),
        Command::Helper => return Ok(provara_runner::helper_main()),
        Command::Audit(args::Audit::Verify { file, checkpoints, key }) => {
            return log::verify(file, checkpoints, key.as_deref(), common.json);
        }
        Command::Policy(args::Policy::Test { files }) => return rules::test(files, common.json),
        Command::Demo { yes } => return demo::demo(if *yes { demo::Decider::YesToAll } else { demo::Decider::Person }),
        _ => {}
    }
    if let Command::Setup { dry_run, prefix, binary, unprivileged, socket } = cli.command {
        let wanted = setup::Wanted { state: common.root, prefix, binary, unprivileged, socket, dry_run };
        return setup::setup(&wanted, common.json);
    }
    if let Command::Backup { dir, verify: true, key, .. } = &cli.command {
        return backup::verify(dir, key.as_deref(), common.json);
    }
    let mut flags = Vec::new();
    flags.extend(common.root.map(|root| ("ROOT", root)));
    flags.extend(common.base.map(|base| ("BASE", base)));
    let settings = Settings::load(&flags, std::env::vars())?;
    let session = Session { settings, json: common.json, quiet: common.quiet };
    match cli.command {
        Command::Serve { insecure_listen, check } => {
            let listening = if insecure_listen { prepare::Listening::AsTold } else { prepare::Listening::Safely };
            if check { serve::check(&session, listening) } else { serve::serve(&session.settings, listening) }
        }
        Command::Plan(proposal) => session.plan(&proposal),
        Command::Run { proposal, following } => session.run(&proposal, &following),
        Command::Attach { id, following } => session.attach(&id, &following),
        Command::Status { id, wait } => session.status(id.as_deref(), wait),
        Command::Pending { limit } => session.pending(limit),
        Command::Logs { id, follow } => session.logs(&id, follow),
        Command::History { limit, state } => session.history(limit, state.as_deref()),
        Command::Show { id } => session.show(&id),
        Command::Approve { id, yes, reason, profile, timeout, limits, no_wait } => {
            session.approve(&id, Yes { certain: yes, reason, profile, timeout, limits, no_wait })
        }
        Command::Deny { id, reason } => session.deny(&id, reason),
        Command::Edit { id, cwd, timeout, note, command } => session.edit(&id, Change { cwd, timeout, note, command }),
        Command::Reopen { id } => session.reopen(&id),
        Command::Extend { id, seconds } => session.extend(&id, seconds),
        Command::Preview { id } => session.preview(&id),
        Command::Cancel { id } => session.cancel(&id),
        Command::Audit(what) => session.audit(what),
        Command::Policy(what) => session.policy(&what),
        Command::Profile(what) => session.profile(&what),
        Command::Token(what) => session.token(what),
        Command::Workspace(what) => session.workspace(what),
        Command::Backup { dir, with_keys, .. } => {
            let keys = if with_keys { backup::Secrets::Copied } else { backup::Secrets::Left };
            backup::backup(&session.settings, &dir, keys, clock::now(), session.json)
        }
        Command::Erase { before, plan, yes } => {
            let which = plan.map(retention::Which::Plan).or(before.map(retention::Which::Before));
            which.map_or(Ok(ExitCode::FAILURE), |which| retention::erase(&session, &which, yes))
        }
        Command::Restore { dir, force } => {
            let present = if force { restore::Present::MovedAside } else { restore::Present::Refused };
            restore::restore(&session.settings, &dir, present, clock::now(), session.json)
        }
        Command::Doctor => doctor::doctor(&session),
        // Dealt with above; they need no session.
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Helper
        | Command::Setup { .. }
        | Command::Demo { .. } => Ok(ExitCode::SUCCESS),
    }
}
