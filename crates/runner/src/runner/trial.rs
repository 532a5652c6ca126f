//! Trials: what a host can hold is not concluded but tried, by a command of ours that attempts what must not work.

use std::time::Duration;

use provara_domain::{Mechanism, Outcome, Profile, Resource, ResourceLimits};
use tokio::sync::mpsc;

use super::job::Job;
use super::{Ended, Lost, Runner, control};
use crate::probe;
use crate::protocol::{FilesSpec, Frame, View};

impl Runner {
    /// Attempts under the default profile what must not work there: what is reported is what held, not what a version number
    /// promises.
    pub(super) async fn probe(&mut self) {
        match self.tried(self.usual, &Profile::workspace()).await {
            Tried::Held(mechanisms) => self.host.mechanisms = mechanisms,
            Tried::Breached(mechanisms, problem) => {
                self.host.mechanisms = mechanisms;
                self.host.problem = Some(problem.clone());
                self.breach = Some(problem);
            }
            Tried::NotStarted(mechanisms, problem) => {
                self.host.mechanisms = mechanisms;
                self.host.problem = Some(problem);
            }
        }
    }

    /// Returns why this host cannot hold `profile`, by trying it, where that is so.
    pub async fn problem_with(&self, profile: &Profile) -> Option<String> {
        if let Some(breach) = &self.breach {
            return Some(breach.clone());
        }
        match self.frame(profile, ResourceLimits::default()) {
            // What nothing confines has nothing to be tried.
            Ok(frame) if frame.view == View::Host => self.host.problem.clone(),
            // Limits that every kernel holds are left out: under some the script itself would not end well.
            Ok(frame) => match self.tried(Frame { limits: hard_to_hold(frame.limits), ..frame }, profile).await {
                Tried::Held(_) => None,
                Tried::Breached(_, problem) | Tried::NotStarted(_, problem) => Some(problem),
            },
            Err(Outcome::SpawnFailed { message, .. }) => Some(message),
            Err(outcome) => Some(format!("it would end as {}", outcome.as_str())),
        }
    }

    fn trial(&self, frame: Frame, profile: &Profile) -> Result<Job, Outcome> {
        let mut arguments = ["/bin/sh", "-c", probe::SCRIPT, "sh"].map(str::to_owned).to_vec();
        arguments.extend([self.config.runtime.display().to_string(), "/".to_owned()]);
        let files = FilesSpec::from(&profile.grants().files);
        let spec = self.spec_of(arguments, Vec::new(), files, &self.config.workspace, "");
        Ok(Job { frame, spec, egress: self.egress(profile)?, changes: None })
    }

    async fn tried(&self, frame: Frame, profile: &Profile) -> Tried {
        let job = match self.trial(frame, profile) {
            Ok(job) => job,
            Err(Outcome::SpawnFailed { message, .. }) => return Tried::NotStarted(Vec::new(), message),
            Err(outcome) => return Tried::NotStarted(Vec::new(), format!("it would end as {}", outcome.as_str())),
        };
        let (sender, _) = mpsc::channel(1);
        let (_, control) = control();
        match self.execute(&job, &[], Duration::from_secs(10), sender, control).await {
            Ok(Ended { outcome: Outcome::Exited { code: 0 }, mechanisms, .. }) => Tried::Held(mechanisms),
            Ok(Ended { outcome: Outcome::Exited { code }, mechanisms, .. }) => {
                let act = probe::managed(code).unwrap_or("not run a trial script");
                let problem = format!(
                    "a trial command could {act}, though it was confined; nothing is run until `provara doctor` finds \
                     this host sound: try another kernel, and report it"
                );
                Tried::Breached(mechanisms, problem)
            }
            Ok(Ended { outcome: Outcome::SpawnFailed { message, .. }, mechanisms, .. }) => {
                Tried::NotStarted(mechanisms, message)
            }
            Ok(Ended { outcome, mechanisms, .. }) => {
                Tried::NotStarted(mechanisms, format!("a trial run ended as {}", outcome.as_str()))
            }
            Err(Lost) => Tried::NotStarted(Vec::new(), "a trial run was lost".into()),
        }
    }
}

/// Those limits that some hosts cannot hold.
fn hard_to_hold(limits: ResourceLimits) -> ResourceLimits {
    Resource::ALL.into_iter().filter(|resource| *resource != Resource::Memory).fold(limits, ResourceLimits::without)
}

/// How a trial under a profile went.
enum Tried {
    /// Nothing worked that must not.
    Held(Vec<Mechanism>),
    /// Something worked that must not.
    Breached(Vec<Mechanism>, String),
    /// It did not begin, or not end by itself.
    NotStarted(Vec<Mechanism>, String),
}
