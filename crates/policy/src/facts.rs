//! What a command does, as far as its text says.

use provara_domain::Span;
use serde::{Deserialize, Serialize};

/// A kind of thing that a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Reads a file or a folder.
    Read,
    /// Makes or changes a file.
    Write,
    /// Removes a file.
    Delete,
    /// Runs a program or a script that is named by a path or by an argument.
    Execute,
    /// Runs code that stands in the text and is not seen through.
    Code,
    /// Opens a shell or lets whoever sits there run anything.
    Shell,
    /// Runs the project's own code in the way that developers do all day: build, test, format.
    Build,
    /// Talks to another machine.
    Network,
    /// Sends something from here to another machine.
    Upload,
    /// Waits for others to connect.
    Listen,
    /// Runs something on another machine or in a container.
    Remote,
    /// Becomes another user or gains rights.
    Privilege,
    /// Makes something run later or at each start.
    Persistence,
    /// Handles passwords, keys or tokens.
    Credential,
    /// Installs or removes software.
    Package,
    /// Starts, stops or changes services.
    Service,
    /// Runs or changes containers or virtual machines.
    Container,
    /// Changes what lives at a provider or in a cluster.
    Cloud,
    /// Destroys much at once, beyond files: clusters, databases, volumes.
    Destroy,
    /// Writes to disks, partitions or file systems.
    Disk,
    /// Ends or signals processes.
    Process,
    /// Changes users or groups.
    Account,
    /// Weakens what protects the machine.
    Defence,
    /// Removes traces: histories and logs.
    Trace,
    /// Makes something public: packages, releases, pushes.
    Publish,
    /// Throws away or rewrites work that a version control system keeps.
    Rewrite,
    /// Changes a database.
    Database,
    /// Changes the kernel or its settings.
    Kernel,
    /// Changes the settings of the machine or of the user's programs.
    Settings,
    /// Watches the screen, the keys or the network.
    Capture,
    /// Stops or restarts the machine.
    Power,
}

/// Where it does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Not at a place.
    Nowhere,
    /// In a folder that is the agent's.
    Workspace,
    /// In a folder that is emptied anyway.
    Temporary,
    /// In a home directory.
    Home,
    /// Where the system lives.
    System,
    /// Anywhere else on the machine.
    Outside,
    /// A device.
    Device,
    /// A file that holds passwords or keys.
    Credentials,
    /// A file that often holds secrets among other things.
    Secrets,
    /// A file whose content runs by itself.
    Startup,
    /// A log or a history.
    Logs,
    /// This machine, by network.
    Loopback,
    /// Another machine.
    Elsewhere,
    /// Nobody can tell from the text.
    Unknown,
}

/// One thing that a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// What.
    pub effect: Effect,
    /// Where.
    pub scope: Scope,
    /// The path, the address or the words that say so; empty where the program itself says it.
    pub target: String,
    /// Where it stands.
    pub span: Span,
}

impl Effect {
    /// Returns the effect's word, as rules and program knowledge write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Execute => "execute",
            Self::Code => "code",
            Self::Shell => "shell",
            Self::Build => "build",
            Self::Network => "network",
            Self::Upload => "upload",
            Self::Listen => "listen",
            Self::Remote => "remote",
            Self::Privilege => "privilege",
            Self::Persistence => "persistence",
            Self::Credential => "credential",
            Self::Package => "package",
            Self::Service => "service",
            Self::Container => "container",
            Self::Cloud => "cloud",
            Self::Destroy => "destroy",
            Self::Disk => "disk",
            Self::Process => "process",
            Self::Account => "account",
            Self::Defence => "defence",
            Self::Trace => "trace",
            Self::Publish => "publish",
            Self::Rewrite => "rewrite",
            Self::Database => "database",
            Self::Kernel => "kernel",
            Self::Settings => "settings",
            Self::Capture => "capture",
            Self::Power => "power",
        }
    }

    /// Every effect.
    pub const ALL: [Self; 31] = [
        Self::Read,
        Self::Write,
        Self::Delete,
        Self::Execute,
        Self::Code,
        Self::Shell,
        Self::Build,
        Self::Network,
        Self::Upload,
        Self::Listen,
        Self::Remote,
        Self::Privilege,
        Self::Persistence,
        Self::Credential,
        Self::Package,
        Self::Service,
        Self::Container,
        Self::Cloud,
        Self::Destroy,
        Self::Disk,
        Self::Process,
        Self::Account,
        Self::Defence,
        Self::Trace,
        Self::Publish,
        Self::Rewrite,
        Self::Database,
        Self::Kernel,
        Self::Settings,
        Self::Capture,
        Self::Power,
    ];

    /// Returns the effect that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effect| effect.as_str() == word)
    }
}
