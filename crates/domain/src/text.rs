//! Checked values that people and agents write. Each is parsed once, at the border.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A command exactly as the agent wrote it. Never trimmed: the person approves bytes, and those run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommandText(String);

/// Why a text is not a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandTextError {
    /// It has no character.
    Empty,
    /// It has more than [`CommandText::MAX_CHARS`] characters.
    TooLong {
        /// How many it has.
        chars: usize,
    },
    /// It has a NUL, which no argument of a program can carry.
    HasNul,
}

impl CommandText {
    /// The longest command, in characters (Unicode scalar values).
    pub const MAX_CHARS: usize = 10_000;

    /// Returns `raw` as a command.
    ///
    /// # Errors
    /// When it is empty, too long, or has a NUL.
    pub fn parse(raw: String) -> Result<Self, CommandTextError> {
        match raw.chars().count() {
            0 => Err(CommandTextError::Empty),
            chars if chars > Self::MAX_CHARS => Err(CommandTextError::TooLong { chars }),
            _ if raw.contains('\0') => Err(CommandTextError::HasNul),
            _ => Ok(Self(raw)),
        }
    }

    /// Returns the command's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("command is empty"),
            Self::TooLong { chars } => {
                write!(f, "command has {chars} characters, more than {}", CommandText::MAX_CHARS)
            }
            Self::HasNul => f.write_str("command has a NUL character"),
        }
    }
}

impl std::error::Error for CommandTextError {}

/// What the agent says about its command: a claim, never a fact, and shown as such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note(String);

/// A note of more than [`Note::MAX_CHARS`] characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteError {
    /// How many it has.
    pub chars: usize,
}

impl Note {
    /// The longest note, in characters.
    pub const MAX_CHARS: usize = 1000;

    /// Returns `raw` as a note.
    ///
    /// # Errors
    /// When it is too long.
    pub fn parse(raw: String) -> Result<Self, NoteError> {
        match raw.chars().count() {
            chars if chars > Self::MAX_CHARS => Err(NoteError { chars }),
            _ => Ok(Self(raw)),
        }
    }

    /// Returns the note's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "note has {} characters, more than {}", self.chars, Note::MAX_CHARS)
    }
}

impl std::error::Error for NoteError {}

/// An absolute path of a working directory, without `.`, `..`, NUL or a doubled slash. Whether it exists and where it
/// leads is for the machine that runs the command to measure.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkingDir(String);

/// Why a text is not a working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkingDirError {
    /// It has more than [`WorkingDir::MAX_CHARS`] characters.
    TooLong {
        /// How many it has.
        chars: usize,
    },
    /// It does not begin at the root, or has `.`, `..`, an empty part or a NUL.
    NotPlain,
}

impl WorkingDir {
    /// The longest path, in characters.
    pub const MAX_CHARS: usize = 500;

    /// Returns `raw` as a working directory.
    ///
    /// # Errors
    /// When it is too long or not a plain absolute path.
    pub fn parse(raw: String) -> Result<Self, WorkingDirError> {
        let chars = raw.chars().count();
        if chars > Self::MAX_CHARS {
            return Err(WorkingDirError::TooLong { chars });
        }
        let Some(rest) = raw.strip_prefix('/') else { return Err(WorkingDirError::NotPlain) };
        let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        if rest.is_empty() || rest.split('/').all(plain) { Ok(Self(raw)) } else { Err(WorkingDirError::NotPlain) }
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkingDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { chars } => write!(f, "cwd has {chars} characters, more than {}", WorkingDir::MAX_CHARS),
            Self::NotPlain => f.write_str("cwd is not an absolute path without `.`, `..` and empty parts"),
        }
    }
}

impl std::error::Error for WorkingDirError {}

/// The name of an environment variable: letters, digits and underscores, no digit first, at most 128.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EnvName(String);

/// A text that cannot name an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvNameError;

impl EnvName {
    /// Returns `raw` as a variable's name.
    ///
    /// # Errors
    /// When it is not of the form `[A-Za-z_][A-Za-z0-9_]{0,127}`.
    pub fn parse(raw: String) -> Result<Self, EnvNameError> {
        let first = raw.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest = raw.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if first && rest && raw.len() <= 128 { Ok(Self(raw)) } else { Err(EnvNameError) }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a variable's name is 1 to 128 letters, digits and underscores, the first no digit")
    }
}

impl std::error::Error for EnvNameError {}

/// How long a command may run: 1 to 3600 whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(u32);

/// A number of seconds outside [`Timeout::MIN_SECONDS`] to [`Timeout::MAX_SECONDS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeoutError;

impl Timeout {
    /// The shortest time-out.
    pub const MIN_SECONDS: u32 = 1;
    /// The longest time-out.
    pub const MAX_SECONDS: u32 = 3600;
    /// What holds when the agent names none.
    pub const DEFAULT: Self = Self(300);

    /// Returns `seconds` as a time-out.
    ///
    /// # Errors
    /// When it is not within 1 to 3600.
    pub fn from_seconds(seconds: u32) -> Result<Self, TimeoutError> {
        if (Self::MIN_SECONDS..=Self::MAX_SECONDS).contains(&seconds) { Ok(Self(seconds)) } else { Err(TimeoutError) }
    }

    /// Returns the whole seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// Returns the time-out as a duration.
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time-out is 1 to 3600 seconds")
    }
}

impl std::error::Error for TimeoutError {}

/// A SHA-256 digest, `sha256:` and 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestError;

impl Digest {
    /// Returns the digest whose 32 bytes are `bytes`.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// Returns the digest that `raw` spells.
    ///
    /// # Errors
    /// When it is not `sha256:` and 64 lowercase hexadecimal digits.
    pub fn parse(raw: &str) -> Result<Self, DigestError> {
        let hex = raw.strip_prefix("sha256:").ok_or(DigestError)?;
        let good = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if good { Ok(Self(raw.to_owned())) } else { Err(DigestError) }
    }

    /// Returns the digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(raw: String) -> Result<Self, DigestError> {
        Self::parse(&raw)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest is `sha256:` and 64 lowercase hexadecimal digits")
    }
}

impl std::error::Error for DigestError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_kept_to_the_byte() {
        let raw = "  rm\u{200b} -rf \u{202e}x \r\n".to_owned();
        assert_eq!(CommandText::parse(raw.clone()).unwrap().as_str(), raw);
        assert_eq!(CommandText::parse(String::new()), Err(CommandTextError::Empty));
        assert_eq!(CommandText::parse("a\0b".into()), Err(CommandTextError::HasNul));
        assert!(CommandText::parse("ä".repeat(10_000)).is_ok());
        assert_eq!(CommandText::parse("ä".repeat(10_001)), Err(CommandTextError::TooLong { chars: 10_001 }));
    }

    #[test]
    fn a_working_directory_is_plain() {
        for good in ["/", "/srv/work", "/srv/a b/ü"] {
            assert!(WorkingDir::parse(good.into()).is_ok(), "{good}");
        }
        for bad in ["", "srv", "/srv/", "/srv//a", "/srv/../etc", "/./srv", "/a\0b"] {
            assert_eq!(WorkingDir::parse(bad.into()), Err(WorkingDirError::NotPlain), "{bad:?}");
        }
    }

    #[test]
    fn names_of_variables_are_portable() {
        for good in ["A", "_a1", "PATH"] {
            assert!(EnvName::parse(good.into()).is_ok(), "{good}");
        }
        for bad in ["", "1A", "A=B", "A B", "Ä", "BASH_FUNC_x%%"] {
            assert_eq!(EnvName::parse(bad.into()), Err(EnvNameError), "{bad:?}");
        }
    }
}
