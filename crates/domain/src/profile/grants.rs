//! A profile: what it grants, and to whom it may be given.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::files::Files;
use super::limits::ResourceLimits;
use super::network::Network;
use crate::plan::ProfileName;
use crate::text::EnvName;

/// A user of the host: `a-z`, `0-9`, `_`, `-`, beginning with a letter or `_`, at most 32; never `root`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName(String);

/// A text that names no user that commands may run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserNameError;

impl UserName {
    /// Returns `raw` as a user's name.
    ///
    /// # Errors
    /// When it is not of the documented form, or `root`.
    pub fn parse(raw: &str) -> Result<Self, UserNameError> {
        let first = raw.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
        let rest = raw.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        if first && rest && raw.len() <= 32 && raw != "root" { Ok(Self(raw.to_owned())) } else { Err(UserNameError) }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a user is 1 to 32 of `a-z`, `0-9`, `_` and `-`, beginning with a letter or `_`, and never `root`")
    }
}

impl std::error::Error for UserNameError {}

/// Who may ask for a profile. Whoever decides may choose any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedBy {
    /// An agent, in its plan; a person still decides.
    Agents,
    /// Only a rule of policy, or whoever decides.
    PeopleOnly,
}

/// All that a profile lets a command do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// The files that it may reach.
    pub files: Files,
    /// What it may call.
    pub network: Network,
    /// The server's variables that it inherits.
    pub environment: BTreeSet<EnvName>,
    /// The most that it may use.
    pub limits: ResourceLimits,
    /// The user that it runs as; the server's choice where absent.
    pub user: Option<UserName>,
}

impl Grants {
    /// Returns whether `other` grants all of this: the order from tight to loose. Two that cannot be compared are within
    /// neither, so that whoever is unsure calls it loosening.
    pub fn is_within(&self, other: &Self) -> bool {
        self.files.is_within(&other.files)
            && self.network.is_within(&other.network)
            && self.environment.is_subset(&other.environment)
            && self.limits.beyond(&other.limits).is_none()
            && self.user == other.user
    }
}

/// A named confinement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    name: ProfileName,
    grants: Grants,
    asked_by: AskedBy,
}

/// What choosing another profile, or stricter limits, made of a plan's confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileChange {
    /// Nothing more may be done than before.
    Tightened,
    /// Something more may be done, or the two cannot be compared.
    Loosened,
}

impl Profile {
    /// Returns the profile of that name.
    pub const fn new(name: ProfileName, grants: Grants, asked_by: AskedBy) -> Self {
        Self { name, grants, asked_by }
    }

    /// Returns its name.
    pub const fn name(&self) -> &ProfileName {
        &self.name
    }

    /// Returns what it grants.
    pub const fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Returns who may ask for it.
    pub const fn asked_by(&self) -> AskedBy {
        self.asked_by
    }

    /// Returns whether `other` grants all that this one grants.
    pub fn is_within(&self, other: &Self) -> bool {
        self.grants.is_within(&other.grants)
    }
}
