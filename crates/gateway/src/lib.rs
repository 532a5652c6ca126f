//! The use cases, in order: propose, judge, decide, claim, run, record.
//!
//! [`Gateway`] is what `server` and `cli` call. It knows nothing of HTTP, JSON shapes or SQL. Everything that could differ
//! between two runs of the same history, time and randomness, comes in through [`Platform`].

mod cancel;
mod confinement;
mod decide;
mod erase;
mod evidence;
mod gateway;
mod judging;
mod measuring;
mod preview;
mod principals;
mod progress;
mod propose;
mod read;
mod redaction;
mod secret;
mod vitals;
mod wakeups;
mod worker;

pub use cancel::ControlError;
pub use confinement::{Confinement, LoadedProfile};
pub use decide::{Approval, DecideError, Edit};
pub use erase::{EraseError, Erased};
pub use evidence::EvidenceError;
pub use gateway::{Gateway, GatewayConfig, GatewayError, Parts, Platform, TriedProfile};
pub use judging::PolicyQuestion;
pub use measuring::binding_digest;
pub use preview::{Preview, PreviewError, Told};
pub use principals::{NewPrincipal, PrincipalError, WorkspaceError};
pub use progress::RunProgress;
pub use propose::{Idempotent, Proposal, ProposeError, Proposed};
pub use read::LookupError;
pub use redaction::OutputRedaction;
pub use secret::{is_whole_secret, new_secret};
pub use vitals::Vitals;

pub use provara_policy::Explanation;
pub use provara_redact::Finding;
pub use provara_runner::{HostReport, Progress};
pub use provara_store::{
    CoolDown, Counts, DeniedBefore, LogEntry, Measures, OutputPage, Page, Pages, PlanFilter, PlanRecord, Rendering,
    RunRecord, StoreError, TokenError, TokenRecord,
};
