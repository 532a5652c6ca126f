//! Executions: the permission for one, how it ended, and which confinement held.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::RunId;
use crate::plan::{Binding, Limits, Plan, ProfileName};
use crate::time::Timestamp;
use crate::written::Written;

/// The one permission to run a plan. Whoever holds it moved the plan to `running`, alone. Not `Clone`; running spends it.
#[derive(Debug)]
#[must_use = "a claimed plan has to be run and recorded, or it ends as lost"]
pub struct Claim {
    plan: Plan,
    run: RunId,
    profile: ProfileName,
    limits: Limits,
    binding: Option<Binding>,
}

impl Claim {
    /// Returns the claim on `plan`. Only `store` may call this, right after it moved the row to `running`; a lint says so.
    pub const fn issued_by_store(
        plan: Plan,
        run: RunId,
        profile: ProfileName,
        limits: Limits,
        binding: Option<Binding>,
    ) -> Self {
        Self { plan, run, profile, limits, binding }
    }

    /// Returns the plan that may run.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the identifier of the run that this claim permits.
    pub const fn run(&self) -> &RunId {
        &self.run
    }

    /// Returns the profile that was decided on.
    pub const fn profile(&self) -> &ProfileName {
        &self.profile
    }

    /// Returns the bounds that were decided on.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns what was measured when the plan was made, where something was.
    pub const fn binding(&self) -> Option<&Binding> {
        self.binding.as_ref()
    }
}

/// One of a command's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Returns the stream's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Why a command was never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpawnFailure {
    /// The approved confinement cannot be had here.
    Confinement,
    /// What was bound has changed.
    Changed,
    /// The shell or the working directory is not there.
    Missing,
    /// The system or the runner refused.
    Refused,
}

/// A bound that a run went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
    /// Number of processes.
    Processes,
    /// Bytes of output.
    Output,
    /// Size of a file.
    FileSize,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The shell ended by itself.
    Exited {
        /// Its exit code, 0 to 255.
        code: i32,
    },
    /// A signal that was not ours ended the shell.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// We ended it at its time-out.
    TimedOut,
    /// We ended it because somebody asked for it.
    Cancelled,
    /// It was never started.
    SpawnFailed {
        /// The kind of failure.
        failure: SpawnFailure,
        /// What was missing and what the operator can do, in words.
        message: String,
    },
    /// It went over a bound of its profile.
    LimitExceeded {
        /// Which.
        limit: Limit,
    },
}

impl Outcome {
    /// Returns the exit code, where the shell ended by itself.
    pub const fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { code } => Some(*code),
            Self::Signalled { .. }
            | Self::TimedOut
            | Self::Cancelled
            | Self::SpawnFailed { .. }
            | Self::LimitExceeded { .. } => None,
        }
    }

    /// Returns the outcome's word on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "exited",
            Self::Signalled { .. } => "signalled",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::SpawnFailed { .. } => "spawn_failed",
            Self::LimitExceeded { .. } => "limit_exceeded",
        }
    }
}

/// One means of confinement that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mechanism {
    /// Its name, `landlock`, `seccomp`, `user`, `mount_namespace`, ….
    pub name: String,
    /// Whether it really held.
    pub held: bool,
    /// Its version, or why it did not hold.
    pub detail: String,
}

/// The confinement that really held: data about the run, not a promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// The profile that was applied.
    pub profile: String,
    /// Each mechanism that the profile asks for.
    pub mechanisms: Vec<Mechanism>,
}

/// What a run's network was used for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkUse {
    /// The destinations that were spoken to.
    pub destinations: Vec<Traffic>,
    /// What was refused, and why.
    pub refusals: Vec<Refused>,
    /// How many refusals there were, also those that are not told one by one.
    pub refused: u64,
}

/// The traffic with one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// `name:port`, or nothing for those beyond the first 64.
    pub destination: Option<String>,
    /// How many connections there were.
    pub connections: u64,
    /// How many bytes went there.
    pub sent: u64,
    /// How many bytes came back.
    pub received: u64,
}

/// One kind of refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// `name:port`, where one was named.
    pub destination: Option<String>,
    /// Why.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// How a spent claim ended: what has to be recorded.
#[derive(Debug)]
#[must_use = "an ended run has to be recorded, or it ends as lost"]
pub struct Ran {
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub outcome: Outcome,
    /// What held.
    pub enforced: Enforced,
    /// When the shell was started, as the worker's clock told.
    pub started_at: Timestamp,
    /// From the start to the end of the whole tree.
    pub duration: Duration,
    /// Bytes that the command wrote to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Bytes that the command wrote to standard error, kept or not.
    pub stderr_bytes: u64,
    /// Secrets that were replaced by marks in what was kept.
    pub redactions: u64,
    /// What it used of the machine, when it was started.
    pub usage: Option<Usage>,
    /// What changed below its workspace meanwhile, when it was started.
    pub written: Option<Written>,
}

/// What all processes of a run used of the machine. What this host cannot count is absent, and never guessed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, in milliseconds, of user and system together.
    pub cpu_ms: u64,
    /// The most memory that the largest process held, in bytes.
    pub largest_process_bytes: u64,
    /// The most memory that all processes had together, in bytes, what lay in their private folders included.
    pub memory_peak_bytes: Option<u64>,
    /// Bytes that had to be read from disks.
    pub disk_read_bytes: u64,
    /// Bytes that had to be written to disks.
    pub disk_written_bytes: u64,
    /// The most processes at a time.
    pub processes_peak: Option<u64>,
    /// What passed through the proxy and what that refused, where the profile has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkUse>,
}
