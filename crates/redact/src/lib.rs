//! Finds secrets in text and in streams of bytes, and puts marks in their place.
//!
//! Rules are data in gitleaks' form, each with examples; the agent's and operator's own tokens are looked for as they are and
//! as they are usually encoded. No I/O, no clock, no randomness: the same bytes give the same marks, however they were cut.

mod entropy;
mod literal;
mod load;
mod redactor;
mod rule;
mod scan;

pub use literal::Literal;
pub use load::{RuleError, RuleErrors};
pub use redactor::{Finding, Redacted, Redactor, Stream, TooMany};
pub use rule::Rules;
pub use scan::WINDOW;
