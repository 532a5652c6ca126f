//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A gateway between AI agents and the operating system: an agent plans a command, a person decides, Provara runs it.
#[derive(Debug, Parser)]
#[command(
    name = "provara",
    version,
    propagate_version = true,
    after_help = "Examples:\n  provara run -- df -h\n  provara pending\n  provara approve 20260101_120000_0123456789abcdef\n\nExit codes: 0 ok, 1 failure, 2 usage, 3 denied, 4 pending or timed out, 5 server unreachable."
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
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server
    #[command(
        after_help = "The first start makes the runtime folder and the tokens and says where they are.\n\nExample:\n  AGENT_HUB_ROOT=/srv/provara provara serve"
    )]
    Serve {
        /// Listen beyond this machine without TLS: tokens and commands can be read on the way
        #[arg(long)]
        insecure_listen: bool,
    },
    /// Show the whole of it in a scratch folder: a server, an agent at work, your decisions, the checked log
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
        after_help = "Ends with the command's own code, or 125 when Provara ended it; stderr says why.\n\nExample:\n  provara run -- 'ps aux | head'"
    )]
    Run(Proposal),
    /// Follow a plan to its end, as `run` does
    Attach { id: String },
    /// List what waits for a decision
    Pending {
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show a plan with everything that is known about it
    Show { id: String },
    /// Approve a plan, having seen it
    #[command(after_help = "Example:\n  provara approve ID --reason 'read-only'")]
    Approve {
        id: String,
        /// Do not ask again
        #[arg(long)]
        yes: bool,
        #[arg(long)]
        reason: Option<String>,
        /// Another confinement than the plan asks for
        #[arg(long)]
        profile: Option<String>,
    },
    /// Deny a plan
    Deny {
        id: String,
        /// The agent gets to read it
        #[arg(long)]
        reason: Option<String>,
    },
    /// Withdraw a waiting plan or stop a running one
    Cancel { id: String },
    /// Read, export and check the log
    #[command(subcommand)]
    Audit(Audit),
    /// Ask and test policy
    #[command(subcommand)]
    Policy(Policy),
    /// Manage tokens
    #[command(subcommand)]
    Token(Token),
    /// Manage the folders that commands may work in
    #[command(subcommand)]
    Workspace(Workspace),
    /// Check folders and secrets; fails when the caller could read what only the server may
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
    Completions { shell: clap_complete::Shell },
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
    /// The command. Several words are quoted for the shell; one word is taken as script text
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Show the newest entries and follow
    Tail {
        /// Begin at this position
        #[arg(long)]
        since: Option<u64>,
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
    Export,
    /// Show the proof that an entry is in the log
    Prove { id: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Show what policy says about a command; nothing is stored
    Check {
        command: String,
        #[arg(long)]
        cwd: Option<String>,
    },
    /// Load rule files and check their examples; works without a server
    Test { files: Vec<PathBuf> },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; it is shown once
    Create {
        name: String,
        /// agent, approver, auditor, admin or runner; may be given more than once
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
    },
    /// List tokens
    List,
    /// Make a new token in the place of an old one, which ends
    Rotate { id: String },
    /// End a token
    Revoke { id: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Workspace {
    /// Let commands work in a folder
    Add { path: PathBuf },
    /// List the folders
    List,
    /// Let commands work there no longer
    Remove { path: PathBuf },
}
