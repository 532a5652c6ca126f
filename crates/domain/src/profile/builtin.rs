//! The profiles that are always there.

use std::collections::BTreeSet;

use super::files::{Access, Files, HomePath, Tmp};
use super::grants::{AskedBy, Grants, Profile};
use super::limits::{Resource, ResourceLimits};
use super::network::Network;
use crate::plan::ProfileName;
use crate::principal::Name;
use crate::text::EnvName;

/// What programs keep their secrets in, below every home folder: the *credential folders*.
pub const CREDENTIALS: [&str; 20] = [
    "~/.aws",
    "~/.azure",
    "~/.cargo/credentials.toml",
    "~/.claude",
    "~/.codex",
    "~/.config",
    "~/.docker",
    "~/.gem/credentials",
    "~/.git-credentials",
    "~/.gnupg",
    "~/.kube",
    "~/.local/share/keyrings",
    "~/.mozilla",
    "~/.netrc",
    "~/.npmrc",
    "~/.password-store",
    "~/.pgpass",
    "~/.pypirc",
    "~/.ssh",
    "~/.vault-token",
];
/// What every command inherits of the server's environment.
const ENVIRONMENT: [&str; 3] = ["LANG", "LC_ALL", "TZ"];
const PROCESSES: u64 = 4096;
const OPEN_FILES: u64 = 4096;

impl Profile {
    /// Returns every built-in profile, the tighter before the looser.
    pub fn builtin() -> [Self; 4] {
        [Self::read_only(), Self::workspace(), Self::network(), Self::host()]
    }

    /// Returns `read-only`: nothing can be changed but a private tmp.
    pub fn read_only() -> Self {
        named("read-only", confined(Access::Read, Network::None), AskedBy::Agents)
    }

    /// Returns `workspace`, the default: only the workspace and a private tmp can be changed, nothing can be called.
    pub fn workspace() -> Self {
        named(ProfileName::WORKSPACE, confined(Access::Write, Network::None), AskedBy::Agents)
    }

    /// Returns `network`: `workspace`, and any host through the proxy.
    pub fn network() -> Self {
        named("network", confined(Access::Write, Network::All), AskedBy::Agents)
    }

    /// Returns `host`: unconfined but for Provara's own files. No agent may ask for it.
    pub fn host() -> Self {
        let files = Files::new(Access::Write, Access::Write, Tmp::Shared, [], []);
        let grants = Grants { files, network: Network::Host, ..confined(Access::Write, Network::None) };
        named(ProfileName::HOST, grants, AskedBy::PeopleOnly)
    }
}

fn named(name: &str, grants: Grants, asked_by: AskedBy) -> Profile {
    Profile::new(ProfileName::new(Name(name.to_owned())), grants, asked_by)
}

fn confined(workspace: Access, network: Network) -> Grants {
    let homes = CREDENTIALS.iter().filter_map(|path| HomePath::parse(path).ok());
    let environment: BTreeSet<EnvName> =
        ENVIRONMENT.iter().filter_map(|name| EnvName::parse((*name).to_owned()).ok()).collect();
    let limits = [(Resource::Processes, PROCESSES), (Resource::OpenFiles, OPEN_FILES)];
    Grants {
        files: Files::new(Access::Read, workspace, Tmp::Private, [], homes),
        network,
        environment,
        limits: limits
            .into_iter()
            .fold(ResourceLimits::default(), |all, (what, most)| all.with(what, most).unwrap_or(all)),
        user: None,
    }
}
