//! Erasing what settled plans said and wrote, by an admin's word or because it is old enough.

use provara_domain::{Actor, PlanId, Principal, Role, Timestamp};
use provara_store::{Cause, StoreError, TransitionError};

use crate::gateway::Gateway;

/// How many plans one call erases: a client waits for no more, and the writer has room for others in between.
const BATCH: u32 = 100;

/// What was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// How many plans.
    pub plans: u64,
    /// Whether there may be more.
    pub more: bool,
}

/// Why nothing was erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The caller is no admin.
    #[error("only an admin may erase")]
    NotAnAdmin,
    /// The plan still goes on, or was erased before.
    #[error("plan {id} is {found} and cannot be erased: only what is settled can, once")]
    NotErasable {
        /// The plan.
        id: PlanId,
        /// Where it stands.
        found: provara_domain::Status,
    },
    /// There is no such plan.
    #[error("there is no such plan")]
    NotFound,
    /// The store failed.
    #[error("could not erase")]
    Store(#[from] StoreError),
}

impl Gateway {
    /// Erases a settled plan's command, input and output.
    ///
    /// # Errors
    /// When the caller is no admin, the plan is not settled or erased already, or the store fails.
    pub async fn erase(&self, who: &Principal, id: &PlanId) -> Result<(), EraseError> {
        admin(who)?;
        match self.inner.store.erase(&who.project, id, self.inner.cause(who)).await {
            Ok(_) => Ok(()),
            Err(TransitionError::NotFound) => Err(EraseError::NotFound),
            Err(TransitionError::Conflict { found, .. }) => Err(EraseError::NotErasable { id: id.clone(), found }),
            Err(TransitionError::Store(error)) => Err(error.into()),
        }
    }

    /// Erases some of the plans that settled before `before`, the oldest first.
    ///
    /// # Errors
    /// When the caller is no admin or the store fails.
    pub async fn erase_before(&self, who: &Principal, before: Timestamp) -> Result<Erased, EraseError> {
        admin(who)?;
        Ok(self.erase_some(before, &Actor::from(who)).await?)
    }

    /// Erases some of the plans that settled before `before`, on the server's own behalf.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn retain_from(&self, before: Timestamp) -> Result<Erased, StoreError> {
        self.erase_some(before, &Actor::System).await
    }

    async fn erase_some(&self, before: Timestamp, actor: &Actor) -> Result<Erased, StoreError> {
        let inner = &self.inner;
        let found = inner.store.erasable(&inner.project, before, BATCH).await?;
        let full = found.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        let mut plans = 0;
        for id in found {
            let cause = Cause { actor: actor.clone(), ..inner.system_cause() };
            match inner.store.erase(&inner.project, &id, cause).await {
                Ok(_) => plans += 1,
                // Somebody else was quicker.
                Err(TransitionError::NotFound | TransitionError::Conflict { .. }) => {}
                Err(TransitionError::Store(error)) => return Err(error),
            }
        }
        Ok(Erased { plans, more: full && plans > 0 })
    }
}

fn admin(who: &Principal) -> Result<(), EraseError> {
    if who.roles.has(Role::Admin) { Ok(()) } else { Err(EraseError::NotAnAdmin) }
}
