//! Identifiers. Each names one kind of thing, so that a plan's id cannot be passed for a run's.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A text that is not an identifier of the expected form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdError;

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no id; one is YYYYMMDD_HHMMSS_ and 8 to 32 lowercase hexadecimal digits")
    }
}

impl std::error::Error for IdError {}

macro_rules! stamped_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the identifier for something made at `at`, told apart from others of that millisecond by `entropy`.
            ///
            /// Its 16 digits are three for the millisecond and 13 of `entropy`, so that identifiers sort by their time:
            /// a database then writes new ones side by side.
            pub fn new(at: Timestamp, entropy: u64) -> Self {
                let (milli, random) = (at.as_millis().rem_euclid(1000), entropy & 0x000f_ffff_ffff_ffff);
                Self(format!("{}_{milli:03x}{random:013x}", at.compact()))
            }

            /// Returns the identifier that `raw` spells.
            ///
            /// # Errors
            /// When it is not `YYYYMMDD_HHMMSS_` and 8 to 32 lowercase hexadecimal digits.
            pub fn parse(raw: &str) -> Result<Self, IdError> {
                if is_stamped(raw) { Ok(Self(raw.to_owned())) } else { Err(IdError) }
            }

            /// Returns the identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(raw: String) -> Result<Self, IdError> {
                if is_stamped(&raw) { Ok(Self(raw)) } else { Err(IdError) }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

stamped_id! {
    /// Names a plan; `pending_id` on the wire.
    PlanId
}
stamped_id! {
    /// Names a run; `run_id` on the wire.
    RunId
}
stamped_id! {
    /// Names a token's record. Not the secret.
    TokenId
}

/// Names an event, 32 hexadecimal digits. Drawn at random, so that it tells nothing about the number of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId(u128);

impl EventId {
    /// Returns the identifier made of `entropy`.
    pub const fn new(entropy: u128) -> Self {
        Self(entropy)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn is_stamped(raw: &str) -> bool {
    let mut parts = raw.split('_');
    let digits =
        |part: Option<&str>, len| part.is_some_and(|p| p.len() == len && p.bytes().all(|b| b.is_ascii_digit()));
    let hex =
        |part: &str| (8..=32).contains(&part.len()) && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    digits(parts.next(), 8) && digits(parts.next(), 6) && parts.next().is_some_and(hex) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_and_own_forms_are_read() {
        assert!(PlanId::parse("20250115_143022_a1b2c3d4").is_ok());
        let own = PlanId::new(Timestamp::from_millis(1_795_479_747_123), 0xfff0_0000_0000_feed);
        assert_eq!(own.as_str(), "20261124_002227_07b000000000feed");
        assert_eq!(PlanId::parse(own.as_str()), Ok(own));
    }

    #[test]
    fn anything_else_is_refused() {
        for raw in [
            "",
            "20250115_143022_",
            "20250115_143022_A1B2C3D4",
            "20250115_143022_a1b2c3d4/..",
            "../../etc/passwd",
            "20250115_143022_a1b2c3d4_1",
            "２０２５0115_143022_a1b2c3d4",
        ] {
            assert_eq!(PlanId::parse(raw), Err(IdError), "{raw:?}");
        }
    }
}
