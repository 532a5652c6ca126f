//! Taking back, stopping, and giving more time.

use provara_domain::{PlanId, Principal, Role, Status, Timeout};
use provara_store::{PlanRecord, StoreError, TransitionError};

use crate::gateway::{Gateway, lock};
use crate::read::{LookupError, owner};

/// Why a plan was not stopped or extended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not the caller's to do.
    #[error("only the plan's own agent or an approver may do this")]
    NotAllowed,
    /// There is no such plan, or not for this caller.
    #[error("no plan has the id {id}")]
    NotFound {
        /// The id.
        id: PlanId,
    },
    /// It is past that.
    #[error("plan {} is {}; there is nothing left to stop or extend", record.plan.id, record.status)]
    Conflict {
        /// The plan as it stands.
        record: Box<PlanRecord>,
    },
    /// A run's time can only be lengthened.
    #[error("the new time-out must be longer than the present one of {present} s")]
    NotLonger {
        /// The present time-out, seconds.
        present: u32,
    },
    /// The store failed.
    #[error("could not record the change to plan {id}")]
    Store {
        /// The plan.
        id: PlanId,
        /// Why.
        #[source]
        cause: StoreError,
    },
}

impl ControlError {
    fn of(id: &PlanId, error: TransitionError) -> Self {
        match error {
            TransitionError::NotFound => Self::NotFound { id: id.clone() },
            TransitionError::Conflict { record, .. } => Self::Conflict { record },
            TransitionError::Store(cause) => Self::Store { id: id.clone(), cause },
        }
    }

    fn lookup(error: LookupError) -> Self {
        match error {
            LookupError::NoPlan { id } => Self::NotFound { id },
            LookupError::Store { id, cause } => Self::Store { id, cause },
        }
    }
}

impl Gateway {
    /// Withdraws a pending plan, stops an approved one before it runs, or ends a running one with its whole tree.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn cancel(&self, who: &Principal, id: &PlanId) -> Result<PlanRecord, ControlError> {
        if !who.roles.has(Role::Agent) && !who.roles.has(Role::Approver) {
            return Err(ControlError::NotAllowed);
        }
        // The plan may move between looking and acting. Each round meets a later state, and there are three at most.
        let mut record = self.command(who, id).await.map_err(ControlError::lookup)?;
        for _ in 0..3 {
            let moved = match record.status {
                Status::Pending => self.inner.store.withdraw(&who.project, id, self.inner.cause(who)).await,
                Status::Approved => self.inner.store.cancel_approved(&who.project, id, self.inner.cause(who)).await,
                Status::Running => self.cancel_run(who, id).await,
                Status::Finished
                | Status::Lost
                | Status::Denied
                | Status::Blocked
                | Status::Expired
                | Status::Withdrawn
                | Status::Superseded
                | Status::Cancelled => break,
            };
            match moved {
                Ok(record) => return Ok(record),
                Err(TransitionError::Conflict { record: newer, .. }) => record = *newer,
                Err(error) => return Err(ControlError::of(id, error)),
            }
        }
        Err(ControlError::Conflict { record: Box::new(record) })
    }

    /// Who asked is on the record before the run is told: a crash in between shows the wish, and recovery ends the tree.
    async fn cancel_run(&self, who: &Principal, id: &PlanId) -> Result<PlanRecord, TransitionError> {
        let record = self.inner.store.request_cancel(&who.project, id, self.inner.cause(who)).await?;
        if let Some(run) = lock(&self.inner.running).get(id) {
            run.cancel();
        }
        Ok(record)
    }

    /// Gives a running command more time: `timeout` counts from the run's start.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn extend(&self, who: &Principal, id: &PlanId, timeout: Timeout) -> Result<PlanRecord, ControlError> {
        if !who.roles.has(Role::Approver) {
            return Err(ControlError::NotAllowed);
        }
        let record = self.inner.store.plan(&who.project, owner(who), id).await;
        let record = record
            .map_err(|cause| ControlError::Store { id: id.clone(), cause })?
            .ok_or_else(|| ControlError::NotFound { id: id.clone() })?;
        let present = record.run.as_ref().map_or(record.plan.timeout, |run| run.timeout);
        if record.status == Status::Running && timeout <= present {
            return Err(ControlError::NotLonger { present: present.seconds() });
        }
        let extended = self.inner.store.extend(&who.project, id, timeout, self.inner.cause(who)).await;
        let extended = extended.map_err(|error| ControlError::of(id, error))?;
        if let Some(run) = lock(&self.inner.running).get(id) {
            run.extend(timeout.as_duration());
        }
        Ok(extended)
    }
}
