//! What a claim becomes: all that a supervisor and what becomes the shell are told, or why this host cannot hold it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use provara_domain::{Claim, HostPort, Network, Outcome, Plan, Profile, ResourceLimits, Shell, SpawnFailure};

use super::{EgressConfig, Runner};
use crate::egress::{self, Allowed, EgressPolicy};
use crate::profile::{Demand, demand};
use crate::protocol::{FilesSpec, Frame, Spec, User, View};

/// Where commands are looked for. Fixed, so that a folder planted in front cannot change what a name means.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that is needed to run something.
pub(super) struct Job {
    pub(super) frame: Frame,
    pub(super) spec: Spec,
    /// What passes through the proxy, where the frame has one.
    pub(super) egress: Option<EgressPolicy>,
    /// Where what a preview changes goes out.
    pub(super) changes: Option<OwnedFd>,
}

impl Runner {
    pub(super) fn job(&self, claim: &Claim, profile: &Profile, workspace: &str) -> Result<Job, Outcome> {
        if profile.name() != claim.profile() {
            let message = format!("the claim is for the profile `{}`", claim.profile());
            return Err(Outcome::SpawnFailed { failure: SpawnFailure::Refused, message });
        }
        self.job_of(claim.plan(), profile, claim.limits().resources, workspace)
    }

    pub(super) fn job_of(
        &self,
        plan: &Plan,
        profile: &Profile,
        lowered: ResourceLimits,
        workspace: &str,
    ) -> Result<Job, Outcome> {
        let refused = |message: String| Outcome::SpawnFailed { failure: SpawnFailure::Refused, message };
        if let Some(message) = self.breach.clone() {
            return Err(Outcome::SpawnFailed { failure: SpawnFailure::Confinement, message });
        }
        let frame = self.frame(profile, lowered)?;
        let egress = self.egress(profile)?;
        // By components: `/srv/work2` does not lie in `/srv/work`.
        let cwd = Path::new(plan.cwd.as_str()).strip_prefix(workspace).ok().and_then(Path::to_str);
        let Some(cwd) = cwd else { return Err(refused("the working directory lies outside the workspace".into())) };
        let Some(shell) = find_shell(plan.shell) else {
            let message = format!("`{}` is not installed on this host", plan.shell.as_str());
            return Err(Outcome::SpawnFailed { failure: SpawnFailure::Missing, message });
        };
        let mut arguments = vec![shell];
        arguments.extend(plan.shell.arguments().iter().map(|argument| (*argument).to_owned()));
        arguments.push(plan.command.as_str().to_owned());
        let mut environment = self.inherited(profile);
        for (name, value) in [("PATH", PATH), ("HOME", workspace)] {
            environment.retain(|(known, _)| known != name);
            environment.push((name.to_owned(), value.to_owned()));
        }
        if egress.is_some() {
            environment.extend(egress::environment());
        }
        // What the plan names comes last and so wins; the approver has seen it.
        for (name, value) in &plan.env {
            environment.retain(|(known, _)| known != name.as_str());
            environment.push((name.as_str().to_owned(), value.clone()));
        }
        let files = FilesSpec::from(&profile.grants().files);
        Ok(Job { frame, spec: self.spec_of(arguments, environment, files, workspace, cwd), egress, changes: None })
    }

    /// What passes through the proxy of a run under `profile`, where it has one.
    pub(super) fn egress(&self, profile: &Profile) -> Result<Option<EgressPolicy>, Outcome> {
        let allowed = match &profile.grants().network {
            Network::None | Network::Loopback | Network::Host => return Ok(None),
            Network::All => Allowed::everybody(),
            Network::Hosts(hosts) => Allowed::parse(hosts.iter().map(HostPort::as_str)).map_err(|error| {
                let message = format!("the proxy cannot hold the profile `{}`: {error}", profile.name());
                Outcome::SpawnFailed { failure: SpawnFailure::Confinement, message }
            })?,
        };
        let EgressConfig { internal, own, limits, .. } = &self.config.egress;
        Ok(Some(EgressPolicy { allowed, internal: internal.clone(), own: own.clone(), limits: *limits }))
    }

    /// What stands before a run of `profile` is known, or why this host cannot hold it.
    pub(super) fn frame(&self, profile: &Profile, lowered: ResourceLimits) -> Result<Frame, Outcome> {
        let unheld = |message| Outcome::SpawnFailed { failure: SpawnFailure::Confinement, message };
        let Demand { view, calls, user } = demand(profile).map_err(unheld)?;
        let user = match user {
            Some(name) => self.user_named(name.as_str()).map_err(unheld)?,
            None => self.user,
        };
        if view == View::Host && !user.from_root && !self.config.allow_host_same_user {
            let message = "the profile `host` would run as the server's own user and could approve other commands; run the \
                           server as root, or set AGENT_HUB_ALLOW_HOST_SAME_USER=1";
            return Err(Outcome::SpawnFailed { failure: SpawnFailure::Refused, message: message.into() });
        }
        Ok(Frame { view, calls, user, limits: profile.grants().limits.and(lowered) })
    }

    /// The user that a profile names. Only root can become somebody else.
    fn user_named(&self, name: &str) -> Result<User, String> {
        let found = nix::unistd::User::from_name(name).ok().flatten();
        let Some(found) = found.filter(|found| !found.uid.is_root()) else {
            return Err(format!("the profile runs as `{name}`, and this host has no such user beside root; make one"));
        };
        let user = User { uid: found.uid.as_raw(), gid: found.gid.as_raw(), from_root: self.user.from_root };
        if self.user.from_root || (user.uid, user.gid) == (self.user.uid, self.user.gid) {
            return Ok(user);
        }
        Err(format!(
            "the profile runs as `{name}`, and a server that is not root cannot change users; start the server as root, or \
             take `user` out of the profile"
        ))
    }

    fn inherited(&self, profile: &Profile) -> Vec<(String, String)> {
        let names = &profile.grants().environment;
        let named = |name: &str| names.iter().any(|known| known.as_str() == name);
        self.config.environment.iter().filter(|(name, _)| named(name)).cloned().collect()
    }

    pub(super) fn spec_of(
        &self,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        files: FilesSpec,
        workspace: &str,
        cwd: &str,
    ) -> Spec {
        let (workspace, cwd) = (workspace.to_owned(), cwd.to_owned());
        let (hidden, cwd_dev_ino, scripts, bytes) = (self.own_files(), None, Vec::new(), Vec::new());
        Spec { arguments, environment, workspace, cwd, files, hidden, cwd_dev_ino, scripts, bytes }
    }

    pub(super) fn own_files(&self) -> Vec<PathBuf> {
        std::iter::once(&self.config.runtime).chain(&self.config.protected).cloned().collect()
    }
}

pub(crate) fn find_shell(shell: Shell) -> Option<String> {
    let name = shell.as_str();
    PATH.split(':').map(|folder| format!("{folder}/{name}")).find(|path| Path::new(path).is_file())
}
