//! A command's text, read and judged: text → simple commands → judgement with reasons.
//!
//! No I/O, no clock, no randomness. The reader is an allow-list of constructs: what it does not know is *opaque*, and
//! opaque text is never allowed. Deny rules still look at all of it. Nothing here makes a verdict milder than another
//! part made it.

mod code;
mod facts;
mod judge;
mod knowledge;
mod load;
mod matching;
mod naming;
mod pass;
mod pattern;
mod places;
pub mod reader;
mod rule;
mod scripts;
mod shell;
mod walk;

pub use facts::{Effect, Fact, Scope};
pub use judge::{Demands, Explanation, Policy, ReadCommand, Request, Strictness, Tried};
pub use knowledge::{Knowledge, KnowledgeError};
pub use load::{PolicyErrors, RuleError, RuleFile};
pub use rule::{Examples, Rule, RuleBinding};
pub use scripts::MAX_NAMED;
