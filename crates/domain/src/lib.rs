//! The words of Provara as types: ids, checked values, the lifecycle's table, judgements, claims, events and outcomes.
//!
//! No I/O, no async, no clock and no randomness: times and entropy are arguments. Everything here is plain data that the
//! other crates agree on. Raw input becomes one of these types once, at the border; inside, nobody asks again.

mod binding;
mod changes;
mod event;
mod ids;
mod judgement;
mod plan;
mod principal;
mod profile;
mod run;
mod status;
mod text;
mod time;
mod written;

pub use binding::{
    Measured, MeasuredScript, Measurement, NamedScript, ScriptContent, ScriptFound, ScriptPlace, ScriptText, ScriptUse,
};
pub use changes::{Change, ChangeKind, Changes, NodeKind};
pub use event::{Actor, Event, EventBody};
pub use ids::{EventId, IdError, PlanId, RunId, TokenId};
pub use judgement::{Judgement, PolicyVersion, Reason, Severity, Span, Verdict};
pub use plan::{
    Binding, BoundScript, Decision, DecisionKind, DecisionMethod, Limits, Nonce, Plan, PlanKind, ProfileName, Shell,
};
pub use principal::{Name, NameError, Principal, Role, Roles};
pub use profile::{
    Access, AskedBy, CREDENTIALS, Files, Grants, HomePath, HostPort, HostPortError, Network, Profile, ProfileChange,
    ProfilePath, ProfilePathError, Profiles, ProfilesError, Resource, ResourceLimitError, ResourceLimits, Tmp,
    UserName, UserNameError,
};
pub use run::{
    Claim, Enforced, Limit, Mechanism, NetworkUse, Outcome, Ran, Refused, SpawnFailure, Stream, Traffic, Usage,
};
pub use status::Status;
pub use text::{
    CommandText, CommandTextError, Digest, DigestError, EnvName, EnvNameError, Note, NoteError, Timeout, TimeoutError,
    WorkingDir, WorkingDirError,
};
pub use time::Timestamp;
pub use written::{PathName, Unseen, Written, WrittenHow, WrittenPath};
