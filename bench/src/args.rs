//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures what Provara does on this machine: one JSON line a measure on stdout, progress on stderr
#[derive(Debug, Parser)]
#[command(
    name = "provara-bench",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without a measure, all of them. Without --base, a server of its own in a folder that is removed again.\n\nExample:\n  cargo build --release && cargo run --release -p provara-bench -- > results.jsonl\n  provara-bench --quick                      # does it all work here, in a few seconds\n  provara-bench plan approve --table         # two measures, and how they stand to their targets\n  provara-bench table results.jsonl          # the table of bench/README.md\n  provara-bench status --base http://127.0.0.1:8787 --agent-token-file A --approver-token-file B\n\nExit codes: 0 done, 1 some measure failed, 2 usage, 130 interrupted."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Render results as the Markdown table of measured against target, medians where a file has several runs
    #[command(after_help = "Example:\n  provara-bench table bench/results/*.jsonl")]
    Table {
        /// Files of JSON lines that this program wrote
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Put the table between the marks of this document instead of printing it
        #[arg(long, value_name = "DOCUMENT")]
        write: Option<PathBuf>,
    },
}

/// What to measure, and on what.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// What to measure; all of it where none is named
    #[arg(value_enum)]
    pub(crate) measures: Vec<Measure>,
    /// How many plans wait in the long queue
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) pending: Option<u32>,
    /// Longer, with 100,000 plans in the long queue
    #[arg(long, conflicts_with = "quick")]
    pub(crate) full: bool,
    /// Only whether everything works: short, small, numbers worth nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Also render the table of measured against target, on stderr
    #[arg(long)]
    pub(crate) table: bool,
    /// Words about the machine, kept with the results
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// The server's program; `provara` beside this one where absent
    #[arg(long, value_name = "FILE", conflicts_with = "base")]
    pub(crate) server: Option<PathBuf>,
    /// Where the own server's folder is made: put it on the disk that counts
    #[arg(long, value_name = "DIR", conflicts_with = "base")]
    pub(crate) dir: Option<PathBuf>,
    /// Measure a server that runs already, over plain HTTP; it keeps every plan that this makes
    #[arg(long, value_name = "URL", requires = "agent_token_file", requires = "approver_token_file")]
    pub(crate) base: Option<String>,
    /// A file with an agent's token for --base
    #[arg(long, value_name = "FILE", requires = "base")]
    pub(crate) agent_token_file: Option<PathBuf>,
    /// A file with an approver's token for --base
    #[arg(long, value_name = "FILE", requires = "base")]
    pub(crate) approver_token_file: Option<PathBuf>,
    /// The server's process for --base, to read its CPU and memory
    #[arg(long, value_name = "PID", requires = "base")]
    pub(crate) pid: Option<u32>,
}

/// Everything that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Measure {
    /// POST /plan with 1, 16 and 64 clients
    Plan,
    /// What policy alone takes for a command, without a server
    Judge,
    /// GET /pending?limit=50 with none, 1000 and N plans pending
    Pending,
    /// GET /status with none, 1000 and N plans pending
    Status,
    /// POST /approve of `true`, beside a bare `bash -c true`
    Approve,
    /// Many approvals of `sleep` at once
    #[value(name = "approve_parallel")]
    ApproveParallel,
    /// From the start of POST /plan to 100 and 1000 readers of GET /events
    Events,
    /// Memory of the server and of its helper, idle and with N plans pending
    Rss,
    /// Start after TERM, and after KILL in the middle of a load, with N plans pending
    Restart,
    /// A command that prints 100 MB: memory, /status meanwhile, time
    Output,
    /// Plan, status and approve with N plans pending against none; plan with 1000 readers against none
    Growth,
    /// This machine's own limits: a serial fdatasync, a bare process
    Limits,
    /// What confinement alone adds to `bash -c true`, beside what bubblewrap adds
    Confinement,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn what_can_be_typed_holds_together() {
        Args::command().debug_assert();
        let typed = Args::try_parse_from(["provara-bench", "plan", "approve_parallel", "--quick"]).unwrap();
        assert_eq!(typed.wanted.measures, [Measure::Plan, Measure::ApproveParallel]);
        assert!(matches!(
            Args::try_parse_from(["provara-bench", "table", "a.jsonl"]).unwrap().command,
            Some(Command::Table { .. })
        ));
        for wrong in [vec!["--base", "http://127.0.0.1:1"], vec!["nonsense"], vec!["table"], vec!["--full", "--quick"]]
        {
            let all = std::iter::once("provara-bench").chain(wrong.iter().copied());
            assert!(Args::try_parse_from(all).is_err(), "{wrong:?} was taken");
        }
    }
}
