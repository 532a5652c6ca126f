//! What can be typed. Every command's help ends with an example; a test holds us to it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A gateway between AI agents and the operating system: an agent plans a command, a person decides, Provara runs it.
#[derive(Debug, Parser)]
#[command(
    name = "provara",
    version,
    propagate_version = true,
    after_help = "Example:\n  provara run -- df -h\n  provara pending\n  provara approve 20260101_120000_0123456789abcdef\n\nExit codes: 0 done, 1 failure, 2 usage, 3 denied, 4 still pending or expired, 5 no server. `run` and `attach` end\nwith the command's own code, with 125 where Provara ended it, and with 130 when interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The folder that holds configuration, runtime and workspace
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<String>,
    /// The server's address
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) base: Option<String>,
    /// Answer in JSON: one value, or one a line where it is a stream
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but the answer: no progress, no advice
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server
    #[command(
        after_help = "ROOT has to be there; the first start makes the runtime folder and the tokens in it and says where they are. SIGTERM ends it in order: no\nnew work, running commands get 10 s; a second signal ends it at once.\n\nExample:\n  mkdir -p ~/provara\n  provara --root ~/provara serve"
    )]
    Serve {
        /// Listen beyond this machine without TLS: tokens and commands can be read on the way
        #[arg(long)]
        insecure_listen: bool,
        /// Only check that configuration, policy and certificate can be used
        #[arg(long)]
        check: bool,
    },
    /// Show the whole of it in a scratch folder: a server, an agent at work, your decisions, the checked log
    #[command(after_help = "Example:\n  provara demo --yes")]
    Demo {
        /// Approve everything that the demo's agent asks for
        #[arg(long)]
        yes: bool,
    },
    /// Propose a command and leave it waiting
    #[command(after_help = "Example:\n  provara plan --note 'is the disk full?' -- df -h")]
    Plan(Proposal),
    /// Propose a command, wait for the decision, show its output and end with its exit code
    #[command(
        after_help = "Ends with the command's own code, or 125 when Provara ended it; stderr says why. Ctrl-C only stops waiting.\n\nExample:\n  provara run -- 'ps aux | head'\n  provara run --stdin rows.csv -- sort"
    )]
    Run {
        #[command(flatten)]
        proposal: Proposal,
        #[command(flatten)]
        following: Following,
    },
    /// Follow a plan to its end, as `run` does
    #[command(after_help = "Example:\n  provara attach 20260101_120000_0123456789abcdef")]
    Attach {
        id: String,
        #[command(flatten)]
        following: Following,
    },
    /// Show the server's state, or one plan's in a word
    #[command(
        after_help = "With an ID the exit code says it too: 3 denied or blocked, 4 pending or expired, 1 lost, else 0.\n\nExample:\n  provara status\n  provara status 20260101_120000_0123456789abcdef --wait 60"
    )]
    Status {
        id: Option<String>,
        /// Wait so long for a change of the plan, at most 60
        #[arg(long, value_name = "SECONDS", requires = "id")]
        wait: Option<u32>,
    },
    /// List what waits for a decision
    #[command(after_help = "Example:\n  provara pending --limit 10")]
    Pending {
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// List what was proposed and what became of it, newest first
    #[command(
        after_help = "The log itself, which can be checked, is `provara audit`.\n\nExample:\n  provara history --limit 10\n  provara history --state denied"
    )]
    History {
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Only plans in this state: pending, approved, running, finished, denied, blocked, expired, lost, …
        #[arg(long)]
        state: Option<String>,
    },
    /// Print what a run wrote, both streams
    #[command(
        after_help = "Ends with 0 whatever the command's own code was; `attach` ends with that.\n\nExample:\n  provara logs 20260101_120000_0123456789abcdef\n  provara logs -f 20260101_120000_0123456789abcdef"
    )]
    Logs {
        /// The run, or the plan that it is of
        id: String,
        /// Go on until the run ends
        #[arg(short, long)]
        follow: bool,
    },
    /// Show a plan with everything that will run and everything that is known about it
    #[command(after_help = "Example:\n  provara show 20260101_120000_0123456789abcdef")]
    Show { id: String },
    /// Approve a plan, having seen it
    #[command(
        after_help = "Shows the plan, asks, and approves exactly what was shown; then waits for its end.\n\nExample:\n  provara approve 20260101_120000_0123456789abcdef --profile read-only\n  provara approve 20260101_120000_0123456789abcdef --profile network --reason 'fetches the sources'"
    )]
    Approve {
        id: String,
        /// Do not ask again
        #[arg(long)]
        yes: bool,
        /// Kept with the decision
        #[arg(long)]
        reason: Option<String>,
        /// Another confinement than the plan would run with; one that allows more needs --reason
        #[arg(long)]
        profile: Option<String>,
        /// Fewer seconds than the plan asks for
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u32>,
        /// A limit below the profile's, `memory=536870912`; may be given more than once
        #[arg(long = "limit", value_name = "NAME=NUMBER")]
        limits: Vec<String>,
        /// Do not wait for the command's end
        #[arg(long)]
        no_wait: bool,
    },
    /// Deny a plan
    #[command(after_help = "Example:\n  provara deny 20260101_120000_0123456789abcdef --reason 'not on Fridays'")]
    Deny {
        id: String,
        /// The agent gets to read it
        #[arg(long)]
        reason: Option<String>,
    },
    /// Replace a pending plan by a changed one, which is judged anew and waits
    #[command(
        after_help = "Example:\n  provara edit 20260101_120000_0123456789abcdef --timeout 60 -- 'make -n install'"
    )]
    Edit {
        id: String,
        /// Another working directory
        #[arg(long)]
        cwd: Option<String>,
        /// Another time-out
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u32>,
        /// Another note
        #[arg(long)]
        note: Option<String>,
        /// Another command
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Plan anew what expired, was not run because something changed, or whose run was lost
    #[command(after_help = "Example:\n  provara reopen 20260101_120000_0123456789abcdef")]
    Reopen { id: String },
    /// Let a command run longer, counted from its start
    #[command(after_help = "Example:\n  provara extend 20260101_120000_0123456789abcdef 1800")]
    Extend { id: String, seconds: u32 },
    /// Run a waiting plan in a throw-away copy of its workspace, and show what it would do
    #[command(
        long_about = "Run a waiting plan in a throw-away copy of its workspace, and show what it would do\n\nIt really runs \
                      there, with no network and for 30 s at most, and the log tells that you had it run. What depends on the \
                      network, the time or other machines may go otherwise when it runs.",
        after_help = "Example:\n  provara preview 20260101_120000_0123456789abcdef"
    )]
    Preview { id: String },
    /// Withdraw a waiting plan or stop a running one
    #[command(after_help = "Example:\n  provara cancel 20260101_120000_0123456789abcdef")]
    Cancel { id: String },
    /// Read, export and check the log
    #[command(subcommand, after_help = "Example:\n  provara audit export > log.jsonl")]
    Audit(Audit),
    /// Ask and test policy
    #[command(subcommand, after_help = "Example:\n  provara policy check 'rm -r build'")]
    Policy(Policy),
    /// Look at profiles: what commands can be allowed to do
    #[command(subcommand, after_help = "Example:\n  provara profile list")]
    Profile(Profile),
    /// Manage tokens
    #[command(subcommand, after_help = "Example:\n  provara token create ci --role agent")]
    Token(Token),
    /// Manage the folders that commands may work in
    #[command(subcommand, after_help = "Example:\n  provara workspace add /srv/project")]
    Workspace(Workspace),
    /// Look for what is wrong with this installation, and say how to mend it
    #[command(
        after_help = "Ends with 1 when something fails: above all when you could read what only the server may.\n\nExample:\n  provara doctor"
    )]
    Doctor,
    /// Install the server: a user for commands, folders, settings and a systemd unit
    #[command(
        after_help = "--root names the server's folder, /var/lib/provara by default. What is there already is not changed.\n\nExample:\n  provara setup --dry-run\n  provara setup --socket"
    )]
    Setup {
        /// Only show what would be done, files included
        #[arg(long)]
        dry_run: bool,
        /// Put everything below a folder: a package or an image being made
        #[arg(long, value_name = "DIR")]
        prefix: Option<PathBuf>,
        /// The program that the unit starts; this one by default
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// A server without any privilege: commands are kept from its files by user namespaces alone
        #[arg(long)]
        unprivileged: bool,
        /// Let systemd listen, so that a restart refuses nobody
        #[arg(long)]
        socket: bool,
    },
    /// Copy the database, outputs, checkpoint and verifier key into a new folder, while the server runs; or check such a copy
    #[command(
        after_help = "Example:\n  provara backup /srv/backups/monday\n  provara backup --verify /srv/backups/monday --key log.vkey"
    )]
    Backup {
        dir: PathBuf,
        /// Check a backup instead of making one; works without a server
        #[arg(long, conflicts_with = "with_keys")]
        verify: bool,
        /// The log's verifier key, kept elsewhere, that the backup has to be of
        #[arg(long, value_name = "FILE", requires = "verify")]
        key: Option<PathBuf>,
        /// Copy the log's private key and the tokens too: whoever reads the backup can then approve
        #[arg(long)]
        with_keys: bool,
    },
    /// Erase commands, input and output of settled plans for good; digests, decisions and the log stay
    #[command(
        group(clap::ArgGroup::new("which").required(true).args(["before", "plan"])),
        after_help = "Example:\n  provara erase --before 2026-01-01\n  provara erase --plan 20260101_120000_0123456789abcdef --yes"
    )]
    Erase {
        /// Every plan that settled before this day, in UTC
        #[arg(long, value_name = "YYYY-MM-DD")]
        before: Option<String>,
        /// One plan
        #[arg(long, value_name = "ID")]
        plan: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Put a backup in the place of an empty runtime folder, with no server running
    #[command(after_help = "Example:\n  provara restore /srv/backups/monday --force")]
    Restore {
        dir: PathBuf,
        /// Move a runtime folder that is not empty aside; it is never deleted
        #[arg(long)]
        force: bool,
    },
    /// Print completions for a shell
    #[command(after_help = "Example:\n  provara completions bash > provara.bash\n  provara completions zsh > _provara")]
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages into a folder, or print the first one
    #[command(after_help = "Example:\n  provara man /usr/local/share/man/man1")]
    Man { dir: Option<PathBuf> },
    /// The process that supervises commands; started by the server
    #[command(name = "__helper", hide = true)]
    Helper,
}

#[derive(Debug, Args)]
pub(crate) struct Proposal {
    /// Where it runs
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// Seconds that it may run
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
    /// What the approver should know
    #[arg(long)]
    pub(crate) note: Option<String>,
    /// bash, sh or pwsh
    #[arg(long)]
    pub(crate) shell: Option<String>,
    /// What it reads: a file, or `-` for this command's own input
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,
    /// A variable that it sees; may be given more than once
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// The confinement that it asks for
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// The host that runs it
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Take an equal plan of yours that waits already instead of a second one
    #[arg(long)]
    pub(crate) dedupe: bool,
    /// A word that makes a repeated call answer as the first did
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Seconds that it waits for a decision
    #[arg(long, value_name = "SECONDS")]
    pub(crate) expires: Option<u32>,
    /// The command. Several words are quoted for the shell; one word is taken as script text
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// How a plan is followed.
#[derive(Debug, Args)]
pub(crate) struct Following {
    /// Withdraw or stop the command on Ctrl-C instead of leaving it
    #[arg(long)]
    pub(crate) cancel_on_interrupt: bool,
    /// How long to try again when the server goes away
    #[arg(long, value_name = "SECONDS", default_value_t = RETRY_FOR)]
    pub(crate) retry_for: u32,
}

/// How long a server that went away is waited for, seconds.
const RETRY_FOR: u32 = 60;

impl Default for Following {
    fn default() -> Self {
        Self { cancel_on_interrupt: false, retry_for: RETRY_FOR }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Show the log as it grows; `--since` begins after that position
    #[command(after_help = "Example:\n  provara audit tail --since 0 --count 5")]
    Tail {
        /// The last position that was seen
        #[arg(long)]
        since: Option<u64>,
        /// End after so many entries
        #[arg(long)]
        count: Option<u64>,
    },
    /// Check exported entries against kept checkpoints; works without a server
    #[command(after_help = "Example:\n  provara audit verify log.jsonl --checkpoint kept.note --key log.vkey")]
    Verify {
        /// Exported entries, JSON Lines
        file: PathBuf,
        /// A kept checkpoint; may be given more than once
        #[arg(long = "checkpoint", value_name = "FILE")]
        checkpoints: Vec<PathBuf>,
        /// The log's verifier key, from where this server cannot change it
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Write every entry to standard output as JSON Lines
    #[command(after_help = "Example:\n  provara audit export > log.jsonl")]
    Export,
    /// Show the log's signed head, or its key: what to keep elsewhere
    #[command(
        after_help = "Example:\n  provara audit checkpoint > kept.note\n  provara audit checkpoint --key > log.vkey"
    )]
    Checkpoint {
        /// Show the verifier key instead
        #[arg(long)]
        key: bool,
    },
    /// Show, and check, the proof that a plan's entries are in the log
    #[command(after_help = "Example:\n  provara audit prove 20260101_120000_0123456789abcdef\n  provara audit prove 7")]
    Prove {
        /// A plan's id, or an entry's position
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Show what policy says about a command; nothing is stored
    #[command(after_help = "Example:\n  provara policy check 'curl -s https://example.org | sh'")]
    Check {
        command: String,
        #[arg(long)]
        cwd: Option<String>,
        /// bash, sh or pwsh
        #[arg(long)]
        shell: Option<String>,
    },
    /// Load rule files and check their examples; works without a server
    #[command(after_help = "Example:\n  provara policy test policies/projects/mine.toml")]
    Test { files: Vec<PathBuf> },
    /// Show the rules in force
    #[command(after_help = "Example:\n  provara policy show")]
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Profile {
    /// List the profiles that the server has loaded, with what each allows
    #[command(after_help = "Example:\n  provara profile list")]
    List,
    /// Show one profile: its words, its digest, and its canonical form
    #[command(after_help = "Example:\n  provara profile show workspace")]
    Show { name: String },
    /// Check a file of profiles as a start would; works without a server
    #[command(after_help = "Example:\n  provara profile check profiles.toml")]
    Check { file: PathBuf },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; it is shown once
    #[command(after_help = "Example:\n  provara token create ci --role agent")]
    Create {
        name: String,
        /// agent, approver, auditor, admin or runner; may be given more than once
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
    },
    /// List tokens
    #[command(after_help = "Example:\n  provara token list")]
    List,
    /// Make a new token in the place of an old one, which ends in the same step
    #[command(after_help = "Example:\n  provara token rotate 20260101_120000_0123456789abcdef")]
    Rotate { id: String },
    /// End a token
    #[command(after_help = "Example:\n  provara token revoke 20260101_120000_0123456789abcdef")]
    Revoke { id: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Workspace {
    /// Let commands work in a folder
    #[command(after_help = "Example:\n  provara workspace add /srv/project")]
    Add { path: PathBuf },
    /// List the folders
    #[command(after_help = "Example:\n  provara workspace list")]
    List,
    /// Let commands work there no longer
    #[command(after_help = "Example:\n  provara workspace remove /srv/project")]
    Remove { path: PathBuf },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn with_an_example(command: &clap::Command) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(command.is_hide_set() || help.contains("Example:\n  "), "`{}` has no example", command.get_name());
        command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(with_an_example);
    }

    #[test]
    fn every_command_has_an_example_and_can_be_parsed() {
        Cli::command().debug_assert();
        with_an_example(&Cli::command());
    }
}
