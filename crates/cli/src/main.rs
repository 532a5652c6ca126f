//! The one binary: what can be typed, and what it does.

mod args;
mod backup;
mod client;
mod commands;
mod config;
mod demo;
mod display;
mod failure;
mod log;
mod mirror;
mod prepare;
mod restore;
mod retention;
mod rules;
mod secrets;
mod serve;
mod service;
mod setup;
mod tell;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command};
use crate::commands::Session;
use crate::config::Settings;
use crate::failure::{Failure, complain};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let own_ending = matches!(cli.command, Command::Run(_) | Command::Attach { .. });
    match act(cli) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure);
            // The command's codes are its own; 125 says that the ending was not one of them.
            if own_ending { ExitCode::from(125) } else { failure.code() }
        }
    }
}

fn act(cli: Cli) -> Result<ExitCode, Failure> {
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "provara", &mut std::io::stdout());
        return Ok(ExitCode::SUCCESS);
    }
    if matches!(cli.command, Command::Helper) {
        return Ok(provara_runner::helper_main());
    }
    // Needs no server and no settings: a stranger checks the log.
    if let Command::Audit(args::Audit::Verify { file, checkpoints, key }) = &cli.command {
        return log::verify(file, checkpoints, key.as_deref(), cli.common.json);
    }
    if let Command::Policy(args::Policy::Test { files }) = &cli.command {
        return rules::test(files, cli.common.json);
    }
    if let Command::Demo { yes } = cli.command {
        return demo::demo(if yes { demo::Decider::YesToAll } else { demo::Decider::Person });
    }
    if let Command::Setup { dry_run, prefix, binary, unprivileged, socket } = cli.command {
        let wanted = setup::Wanted { state: cli.common.root, prefix, binary, unprivileged, socket, dry_run };
        return setup::setup(&wanted, cli.common.json);
    }
    if let Command::Backup { dir, verify: true, key, .. } = &cli.command {
        return backup::verify(dir, key.as_deref(), cli.common.json);
    }
    let mut flags = Vec::new();
    flags.extend(cli.common.root.map(|root| ("ROOT", root)));
    flags.extend(cli.common.base.map(|base| ("BASE", base)));
    let settings = Settings::load(&flags, std::env::vars())?;
    if let Command::Serve { insecure_listen } = cli.command {
        let listening = if insecure_listen { prepare::Listening::AsTold } else { prepare::Listening::Safely };
        return serve::serve(&settings, listening);
    }
    let session = Session { settings, json: cli.common.json };
    match cli.command {
        Command::Plan(proposal) => session.plan(&proposal),
        Command::Run(proposal) => session.run(&proposal),
        Command::Attach { id } => session.attach(&id),
        Command::Pending { limit } => session.pending(limit),
        Command::Show { id } => session.show(&id),
        Command::Approve { id, yes, reason, profile } => session.approve(&id, yes, reason, profile),
        Command::Deny { id, reason } => session.deny(&id, reason),
        Command::Cancel { id } => session.cancel(&id),
        Command::Audit(what) => session.audit(what),
        Command::Policy(args::Policy::Check { command, cwd }) => session.policy_check(command, cwd),
        Command::Token(what) => session.token(what),
        Command::Workspace(what) => session.workspace(what),
        Command::Backup { dir, with_keys, .. } => {
            let keys = if with_keys { backup::Secrets::Copied } else { backup::Secrets::Left };
            backup::backup(&session.settings, &dir, keys, serve::now(), session.json)
        }
        Command::Erase { before, plan, yes } => {
            let which = plan.map(retention::Which::Plan).or(before.map(retention::Which::Before));
            which.map_or(Ok(ExitCode::FAILURE), |which| retention::erase(&session, &which, yes))
        }
        Command::Restore { dir, force } => {
            let present = if force { restore::Present::MovedAside } else { restore::Present::Refused };
            restore::restore(&session.settings, &dir, present, serve::now(), session.json)
        }
        Command::Doctor => prepare::doctor(&session.settings, session.json),
        // Dealt with above; they need no session.
        Command::Policy(args::Policy::Test { .. })
        | Command::Completions { .. }
        | Command::Helper
        | Command::Setup { .. }
        | Command::Serve { .. }
        | Command::Demo { .. } => Ok(ExitCode::SUCCESS),
    }
}
