//! Asking policy, with a bounded memory of its answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use provara_domain::{
    CommandText, Judgement, NamedScript, Plan, PolicyVersion, Reason, Severity, Shell, Verdict, WorkingDir,
};
use provara_policy::{Explanation, Request, Rule};

use crate::gateway::{Gateway, Inner, lock};
use crate::propose::ProposeError;

/// A command to judge without proposing it.
#[derive(Debug, Clone)]
pub struct PolicyQuestion {
    /// The command.
    pub command: CommandText,
    /// The shell that would read it; the configured one where absent.
    pub shell: Option<Shell>,
    /// Where it would run; the workspace where absent.
    pub cwd: Option<String>,
}

/// What policy found of commands, by everything that it depends on. Policy itself does not change while a server runs.
#[derive(Default)]
pub(crate) struct JudgementCache(Mutex<HashMap<CacheKey, Arc<Found>>>);

/// What policy found of one command.
pub(crate) struct Found {
    judgement: Judgement,
    /// The scripts that it names.
    pub(crate) scripts: Vec<NamedScript>,
}

type CacheKey = (CommandText, Shell, WorkingDir, Vec<String>);

impl JudgementCache {
    /// Emptied when full: an agent that floods it costs us judging again, never memory.
    const CAPACITY: usize = 512;

    fn get(&self, key: &CacheKey) -> Option<Arc<Found>> {
        lock(&self.0).get(key).cloned()
    }

    fn put(&self, key: CacheKey, found: Arc<Found>) {
        let mut map = lock(&self.0);
        if map.len() >= Self::CAPACITY {
            map.clear();
        }
        map.insert(key, found);
    }
}

impl Inner {
    /// What policy says about the command, and what the plan's environment adds to it.
    pub(crate) fn judge(&self, plan: &Plan) -> Judgement {
        let judgement = self.found(plan).judgement.clone();
        match environment_reason(plan) {
            Some(reason) => Judgement::of([judgement.reasons, vec![reason]].concat(), judgement.policy),
            None => judgement,
        }
    }

    /// What policy finds of the command, read once for its judgement and its binding.
    pub(crate) fn found(&self, plan: &Plan) -> Arc<Found> {
        let key = (plan.command.clone(), plan.shell, plan.cwd.clone(), self.workspaces());
        if let Some(known) = self.cache.get(&key) {
            return known;
        }
        let judgement = self.policy.judge(&Request {
            command: &plan.command,
            shell: plan.shell,
            cwd: plan.cwd.as_str(),
            workspaces: &key.3,
        });
        let found = Arc::new(Found { judgement, scripts: self.policy.scripts(&plan.command, plan.shell) });
        self.cache.put(key, Arc::clone(&found));
        found
    }
}

/// Rules look at the command alone. `BASH_ENV`, `LD_PRELOAD`, `GIT_SSH_COMMAND` and their like make any command another, and
/// nobody has a list of them all.
fn environment_reason(plan: &Plan) -> Option<Reason> {
    const TOLD: usize = 5;
    let names: Vec<&str> = plan.env.keys().take(TOLD).map(provara_domain::EnvName::as_str).collect();
    let more = if plan.env.len() > TOLD { ", …" } else { "" };
    (!names.is_empty()).then(|| Reason {
        rule: "environment".to_owned(),
        category: "engine".to_owned(),
        verdict: Verdict::Ask,
        severity: Severity::Medium,
        text: format!("sets {}{more}: a variable can change what a command does", names.join(", ")),
        span: None,
    })
}

impl Gateway {
    /// Returns how policy would judge a command, and why. Nothing is stored.
    ///
    /// # Errors
    /// When its working directory lies in no workspace.
    pub fn check_policy(&self, question: &PolicyQuestion) -> Result<Explanation, ProposeError> {
        let cwd = self.inner.working_dir(question.cwd.clone())?;
        Ok(self.inner.policy.explain(&Request {
            command: &question.command,
            shell: question.shell.unwrap_or(self.inner.config.default_shell),
            cwd: cwd.as_str(),
            workspaces: &self.inner.workspaces(),
        }))
    }

    /// Returns which policy is in force.
    pub fn policy_version(&self) -> &PolicyVersion {
        self.inner.policy.version()
    }

    /// Returns the rules in force.
    pub fn policy_rules(&self) -> impl Iterator<Item = &Rule> {
        self.inner.policy.rules()
    }
}
