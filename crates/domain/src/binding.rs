//! The scripts that a command names, and what was found of them when it was planned.

use serde::{Deserialize, Serialize};

use crate::judgement::Span;
use crate::plan::Binding;
use crate::text::Digest;

/// How a command uses a script that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScriptUse {
    /// It is the program.
    Program,
    /// An interpreter is told to run it.
    Interpreted,
    /// The shell reads it as if it stood in the command.
    Sourced,
    /// `make` reads it, and most often more.
    Makefile,
}

impl ScriptUse {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Interpreted => "interpreted",
            Self::Sourced => "sourced",
            Self::Makefile => "makefile",
        }
    }
}

/// Whether the command's text alone tells where a script lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScriptPlace {
    /// There, seen from the working directory.
    Known,
    /// There or at another named place: which one depends on what happens before. Worth a word only where it exists.
    Perhaps,
    /// Known only at run time.
    AtRunTime,
    /// Nobody looked: the command names more scripts than are looked at, and this is the first beyond.
    Beyond,
}

/// A script that a command names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedScript {
    /// Its path, quotes and escapes resolved; absolute, or relative to the plan's working directory.
    pub path: String,
    /// Where the command names it.
    pub span: Span,
    /// How it is used.
    pub how: ScriptUse,
    /// Whether that is where it lies.
    pub place: ScriptPlace,
}

/// What an approver can be shown of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScriptContent {
    /// Its text, whole.
    Text,
    /// No text.
    Binary,
    /// Text too long to be shown.
    TooLong,
}

/// What was found of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ScriptFound {
    /// Its bytes are bound: others do not run under this plan.
    Bound {
        /// Its real path, every link resolved.
        path: String,
        /// The digest of its bytes.
        sha256: Digest,
        /// How many they are.
        size: u64,
        /// What can be shown of them.
        content: ScriptContent,
    },
    /// Its bytes are not bound.
    Unbound {
        /// Why, in plain words.
        why: String,
    },
}

/// A script that a command names, with what was found of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredScript {
    /// Its path as the command names it.
    pub named: String,
    /// Where the command names it.
    pub span: Span,
    /// How it is used.
    pub how: ScriptUse,
    /// What was found.
    #[serde(flatten)]
    pub found: ScriptFound,
}

/// What was measured about a plan, as it is kept and shown. The binding alone is decided on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// What a decision binds.
    pub binding: Binding,
    /// Every script that the command names, bound or not.
    pub scripts: Vec<MeasuredScript>,
}

/// The text of a bound script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptText {
    /// The digest of its bytes.
    pub sha256: Digest,
    /// Its text.
    pub text: String,
}

/// A measurement with the texts that it speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurement {
    /// What was measured.
    pub measured: Measured,
    /// The text of each bound script that has one to show; each once.
    pub texts: Vec<ScriptText>,
}
