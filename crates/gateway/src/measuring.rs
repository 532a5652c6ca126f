//! What this host finds of a plan: where it would run, and the scripts that its command names.

use provara_audit::canonical;
use provara_domain::{
    Binding, Digest, Measured, MeasuredScript, Measurement, Name, Plan, Principal, ScriptFound, ScriptPlace, ScriptText,
};
use provara_policy::Demands;
use provara_runner::{Site, Unmeasured};
use provara_store::{PlanRecord, StoreError};

use crate::gateway::{Gateway, Inner, chain};

impl Inner {
    /// Where `plan` would run, if that is still a workspace.
    pub(crate) fn site(&self, plan: &Plan) -> Option<Site> {
        let workspace = self.workspace_of(plan.cwd.as_str())?;
        Some(Site { workspace, scripts: self.found(plan).scripts.clone() })
    }

    /// Measures `plan`. Nothing where this host does not run it or there is nothing to bind: it names no script, no rule
    /// demands more, and it runs in the workspace itself, which no agent can exchange for another folder.
    ///
    /// What is bound as its profile is the one that is shown; where none can be, the one that was `chosen`.
    pub(crate) async fn measure(&self, plan: &Plan, demands: &Demands, chosen: Option<&Digest>) -> Option<Measurement> {
        let (runner, site) = (self.runner.as_ref()?, self.site(plan)?);
        if site.scripts.is_empty() && demands.binding.is_empty() && plan.cwd.as_str() == site.workspace {
            return None;
        }
        let profile = self.shown_profile(plan, demands).or_else(|| chosen.cloned())?;
        match runner.measure(plan, &site, profile.clone()).await {
            Ok(measurement) => Some(measurement),
            Err(error) => {
                tracing::debug!(plan = %plan.id, error = chain(&error), "could not measure what a plan would run");
                Some(unmeasured(site, profile, &error))
            }
        }
    }
}

/// A measurement that found nothing: as it is, such a plan will not run.
fn unmeasured(site: Site, profile_sha256: Digest, why: &Unmeasured) -> Measurement {
    let runner = Name::local_target();
    let binding = Binding { runner, cwd_dev_ino: None, shell_sha256: None, scripts: Vec::new(), profile_sha256 };
    let named = site.scripts.into_iter().filter(|named| named.place != ScriptPlace::Perhaps);
    let scripts = named.map(|named| MeasuredScript {
        named: named.path,
        span: named.span,
        how: named.how,
        found: ScriptFound::Unbound { why: why.to_string() },
    });
    Measurement { measured: Measured { binding, scripts: scripts.collect() }, texts: Vec::new() }
}

impl Gateway {
    /// Returns the texts of the scripts that a plan binds, for whoever may read everything.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn script_texts(&self, who: &Principal, record: &PlanRecord) -> Result<Vec<ScriptText>, StoreError> {
        let names_some = record.measured.as_ref().is_some_and(|known| !known.binding.scripts.is_empty());
        if !who.roles.reads_all() || !names_some {
            return Ok(Vec::new());
        }
        self.inner.store.script_texts(&who.project, &record.plan.id).await
    }
}

/// Returns the digest of what was measured about a plan, for an approver to name.
pub fn binding_digest(measured: &Measured) -> Digest {
    canonical::binding_digest(&measured.binding)
}
