//! Who is asking.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::TokenId;

/// The name of a principal, a project or a target: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(pub(crate) String);

/// A text that cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError;

impl Name {
    /// Returns `raw` as a name.
    ///
    /// # Errors
    /// When it is not of the documented form.
    pub fn parse(raw: &str) -> Result<Self, NameError> {
        let first = raw.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = raw.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if first && rest && raw.len() <= 64 { Ok(Self(raw.to_owned())) } else { Err(NameError) }
    }

    /// Returns the one project of today, `default`.
    pub fn default_project() -> Self {
        Self("default".to_owned())
    }

    /// Returns the built-in target, `local`.
    pub fn local_target() -> Self {
        Self("local".to_owned())
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(raw: String) -> Result<Self, NameError> {
        Self::parse(&raw)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name is 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit")
    }
}

impl std::error::Error for NameError {}

/// What a principal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Proposes plans; sees its own only.
    Agent,
    /// Decides on plans.
    Approver,
    /// Reads everything, changes nothing.
    Auditor,
    /// Manages tokens and workspaces.
    Admin,
    /// Runs commands on another host.
    Runner,
}

impl Role {
    /// Every role, in the order of their declaration.
    pub const ALL: [Self; 5] = [Self::Agent, Self::Approver, Self::Auditor, Self::Admin, Self::Runner];

    /// Returns the role's word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
            Self::Runner => "runner",
        }
    }

    /// Returns the role that `raw` names, if any.
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == raw)
    }
}

/// The roles that one token carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roles(Vec<Role>);

impl Roles {
    /// Returns the set of `roles`.
    pub fn of(roles: &[Role]) -> Self {
        let mut sorted = roles.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        Self(sorted)
    }

    /// Returns whether `role` is among them.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Returns the roles, in the order of their declaration.
    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }

    /// Returns whether whoever holds these may see what is not their own.
    pub fn reads_all(&self) -> bool {
        self.has(Role::Approver) || self.has(Role::Auditor) || self.has(Role::Admin)
    }
}

/// Somebody who showed a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The project that it belongs to.
    pub project: Name,
    /// Who it is, within the project. Several tokens may be the same principal's.
    pub name: Name,
    /// What it may do.
    pub roles: Roles,
    /// The record of the token that was shown.
    pub token: TokenId,
}

impl Principal {
    /// Returns whether this is an agent and nothing more: it sees its own plans only, and decides on none.
    pub fn is_only_agent(&self) -> bool {
        self.roles.has(Role::Agent) && !self.roles.reads_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_carry_markup_or_paths() {
        for bad in ["", ".hidden", "a/b", "a b", "<b>", "é", "-x"] {
            assert_eq!(Name::parse(bad), Err(NameError), "{bad:?}");
        }
        assert!(Name::parse(&"a".repeat(64)).is_ok());
        assert!(Name::parse(&"a".repeat(65)).is_err());
    }
}
