//! One durable store: plans with guarded transitions, the log, output, tokens and workspaces.
//!
//! A change and its event are one commit, and nobody is answered before it. Which database lies behind is private.

mod denials;
mod erase;
mod idempotency;
mod log;
mod measures;
mod memory;
mod output;
mod pages;
mod plans;
mod snapshot;
mod sqlite;
mod store;
mod sweep;
mod tokens;
mod types;

pub use measures::{Answer, Measures};
pub use output::OutputWriter;
pub use pages::{Page, Pages, RenderPlan, Rendering};
pub use provara_audit::merkle::Hash;
pub use snapshot::{Held, Snapshot, SnapshotError};
pub use store::Store;
pub use types::{
    Below, Cause, CoolDown, Counts, DecisionRecord, DeniedBefore, Entropy, EqualPending, Idempotency, LogEntry,
    NewDecision, NewPlan, NewToken, OpenError, OutputPage, Owner, PlanFilter, PlanRecord, ProposeError, Proposed,
    Recalled, Recovered, RunRecord, StoreConfig, StoreError, TokenError, TokenRecord, TransitionError,
};
