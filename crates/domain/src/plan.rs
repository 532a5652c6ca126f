//! What is proposed, what was measured about it, and what was decided: the three canonical forms.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::PlanId;
use crate::principal::Name;
use crate::profile::ResourceLimits;
use crate::text::{CommandText, Digest, EnvName, Timeout, WorkingDir};
use crate::time::Timestamp;

/// What a plan proposes to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanKind {
    /// Run a command in a shell.
    Command,
}

/// The shell that reads the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shell {
    /// `bash --noprofile --norc -c`
    Bash,
    /// `sh -c`
    Sh,
    /// `pwsh -NoLogo -NoProfile -NonInteractive -Command`
    Pwsh,
}

impl Shell {
    /// Every shell.
    pub const ALL: [Self; 3] = [Self::Bash, Self::Sh, Self::Pwsh];

    /// Returns the shell's word, which is also its program's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Sh => "sh",
            Self::Pwsh => "pwsh",
        }
    }

    /// Returns the shell that `raw` names, if any.
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shell| shell.as_str() == raw)
    }

    /// Returns the arguments between the program and the command's text.
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Bash => &["--noprofile", "--norc", "-c"],
            Self::Sh => &["-c"],
            Self::Pwsh => &["-NoLogo", "-NoProfile", "-NonInteractive", "-Command"],
        }
    }
}

/// The name of a confinement profile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProfileName(Name);

impl ProfileName {
    /// Writes only below the workspace and a private tmp; no network. The default.
    pub const WORKSPACE: &str = "workspace";
    /// Unconfined but for Provara's own files.
    pub const HOST: &str = "host";

    /// Returns the default profile, `workspace`.
    pub fn workspace() -> Self {
        Self(Name(Self::WORKSPACE.to_owned()))
    }

    /// Returns the profile of that name.
    pub const fn new(name: Name) -> Self {
        Self(name)
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// 128 random bits that make two plans of the same text different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(u128);

impl Nonce {
    /// Returns the nonce made of `entropy`.
    pub const fn new(entropy: u128) -> Self {
        Self(entropy)
    }

    /// Returns the nonce that 32 lowercase hexadecimal digits spell, if `raw` is that. A nonce has one spelling.
    pub fn parse(raw: &str) -> Option<Self> {
        let digits = raw.len() == 32 && raw.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        u128::from_str_radix(raw, 16).ok().filter(|_| digits).map(Self)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A proposed command with its context: only what is known when it is planned. Its canonical form and digest are made
/// by `audit`; an approver decides on that digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it proposes to do.
    pub kind: PlanKind,
    /// Its identifier.
    pub id: PlanId,
    /// The project that it belongs to.
    pub project: Name,
    /// Who proposed it.
    pub agent: Name,
    /// The command, to the byte.
    pub command: CommandText,
    /// The shell that reads it.
    pub shell: Shell,
    /// Where it runs.
    pub cwd: WorkingDir,
    /// Variables that it names; nothing else is inherited but a fixed list.
    pub env: BTreeMap<EnvName, String>,
    /// What it reads; `None` is an empty input.
    pub stdin: Option<Vec<u8>>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// How long it may run.
    pub timeout: Timeout,
    /// The host that runs it.
    pub target: Name,
    /// The confinement that the agent asks for.
    pub profile: ProfileName,
    /// Makes it different from an equal one.
    pub nonce: Nonce,
}

/// A script that a command names, as measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundScript {
    /// Its path.
    pub path: String,
    /// The digest of its content.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What the machine that will run a plan measured about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The runner that measured.
    pub runner: Name,
    /// The working directory, `device:inode`; absent where it was not measured.
    pub cwd_dev_ino: Option<String>,
    /// The digest of the shell's program; absent where it was not measured.
    pub shell_sha256: Option<Digest>,
    /// The scripts that the command names.
    pub scripts: Vec<BoundScript>,
    /// The digest of the profile.
    pub profile_sha256: Digest,
}

impl Binding {
    /// Whether anything was measured on the machine. The profile's digest alone is known without.
    pub const fn is_measured(&self) -> bool {
        self.cwd_dev_ino.is_some() || self.shell_sha256.is_some() || !self.scripts.is_empty()
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionKind {
    /// It may run, once.
    Approve,
    /// It must not run.
    Deny,
}

/// How an approver proved to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionMethod {
    /// By a token.
    Token,
}

/// Bounds of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How long it may run, in seconds.
    pub timeout_s: u32,
    /// Where whoever decided allowed less than the profile does. Absent from the canonical form where they did not.
    #[serde(default, skip_serializing_if = "ResourceLimits::is_empty")]
    pub resources: ResourceLimits,
}

/// What the votes on a plan amount to; exactly one a plan. What executes is the plan with the decision's profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The plan.
    pub plan: PlanId,
    /// The plan's digest, as the approver saw it.
    pub digest: Digest,
    /// What was measured about it, where something was.
    pub binding: Option<Binding>,
    /// Yes or no.
    pub decision: DecisionKind,
    /// The confinement that was decided on.
    pub profile: ProfileName,
    /// The bounds that were decided on.
    pub limits: Limits,
    /// Who decided.
    pub approver: Name,
    /// How they proved who they are.
    pub method: DecisionMethod,
    /// Makes it different from an equal one.
    pub nonce: Nonce,
    /// When.
    pub ts: Timestamp,
}
