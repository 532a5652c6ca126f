//! What this host finds of a plan: where it would run, and the scripts that its command names.

use provara_audit::canonical;
use provara_domain::{Digest, Measured, Measurement, Plan, Principal, ScriptText};
use provara_runner::Site;
use provara_store::{PlanRecord, StoreError};

use crate::gateway::{Gateway, Inner, chain};

impl Inner {
    /// Where `plan` would run, if that is still a workspace.
    pub(crate) fn site(&self, plan: &Plan) -> Option<Site> {
        let workspace = self.workspace_of(plan.cwd.as_str())?;
        Some(Site { workspace, scripts: provara_policy::scripts(&plan.command, plan.shell) })
    }

    /// Measures `plan`. Nothing where this host does not run it or has not what it needs: then it will not run as it is.
    pub(crate) async fn measure(&self, plan: &Plan) -> Option<Measurement> {
        let (runner, site) = (self.runner.as_ref()?, self.site(plan)?);
        match runner.measure(plan, &site).await {
            Ok(measurement) => Some(measurement),
            Err(error) => {
                tracing::debug!(plan = %plan.id, error = chain(&error), "could not measure what a plan would run");
                None
            }
        }
    }
}

impl Gateway {
    /// Returns the texts of the scripts that a plan binds, for whoever may read everything.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn script_texts(&self, who: &Principal, record: &PlanRecord) -> Result<Vec<ScriptText>, StoreError> {
        if !who.roles.reads_all() || record.measured.is_none() {
            return Ok(Vec::new());
        }
        self.inner.store.script_texts(&who.project, &record.plan.id).await
    }
}

/// Returns the digest of what was measured about a plan, for an approver to name.
pub fn binding_digest(measured: &Measured) -> Digest {
    canonical::binding_digest(&measured.binding)
}
