//! Rules as people write them and as the judge uses them.

use provara_domain::{ProfileName, Severity, Shell, Verdict};
use regex::Regex;
use serde::Deserialize;

use crate::facts::{Effect, Scope};

/// One rule in force.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name, unique over all files.
    pub id: String,
    /// The kind of thing that it speaks of.
    pub category: String,
    /// How bad it could get.
    pub severity: Severity,
    /// What becomes of a command that it matches.
    pub verdict: Verdict,
    /// The shells that it speaks of.
    pub shells: Vec<Shell>,
    /// For the approver, in plain words.
    pub reason: String,
    /// The profile that a command it matches runs with, or a tighter one.
    pub force_profile: Option<ProfileName>,
    /// Profiles that a command it matches does not run with.
    pub forbid_profiles: Vec<ProfileName>,
    /// Whether a command it matches may run without all that it names being bound.
    pub binding: RuleBinding,
    /// Texts that must and must not match; checked whenever the rule is loaded.
    pub examples: Examples,
    pub(crate) matcher: Matcher,
}

impl Rule {
    /// Whether a command it matches runs only where all that it names is bound.
    pub fn demands_binding(&self) -> bool {
        self.binding == RuleBinding::Demanded
    }
}

/// What a rule says of the binding of what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuleBinding {
    /// Nothing: what can be bound is bound, and the approver sees the rest.
    #[default]
    AsFound,
    /// Working directory, shell and every script that the command names are bound, or it is not approved.
    Demanded,
}

/// What a rule promises about itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Examples {
    /// These match.
    #[serde(rename = "match")]
    pub matching: Vec<String>,
    /// These do not.
    #[serde(rename = "no_match")]
    pub not_matching: Vec<String>,
}

/// What a rule looks at.
#[derive(Debug, Clone)]
pub(crate) enum Matcher {
    /// The raw text, opaque or not.
    Raw(Regex),
    /// One simple command.
    Facts(Box<Facts>),
}

/// All that is given must hold.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The program is one of these; any where empty.
    pub(crate) programs: Vec<String>,
    /// The arguments begin with one of these words.
    pub(crate) first: Vec<Vec<String>>,
    /// The first argument is, as a whole, the first of these, the second the second, and so on.
    pub(crate) begin: Vec<Regex>,
    /// Some argument matches one of these.
    pub(crate) args_any: Vec<Regex>,
    /// Each of these is matched by some argument.
    pub(crate) args_all: Vec<Regex>,
    /// No argument matches one of these.
    pub(crate) args_none: Vec<Regex>,
    /// Every argument matches one of these.
    pub(crate) args_only: Vec<Regex>,
    /// Every argument that begins with a dash is, as a whole, one of these; not asked where absent.
    pub(crate) flags_only: Option<Regex>,
    /// For each entry one of its flags is given, alone or in a group (`r|R|recursive`).
    pub(crate) flags: Vec<Vec<String>>,
    /// At most so many arguments.
    pub(crate) args_at_most: Option<usize>,
    /// At most so many arguments that do not begin with a dash.
    pub(crate) operands_at_most: Option<usize>,
    /// Some redirection writes to a target that matches.
    pub(crate) redirect: Option<Regex>,
    /// One of these programs stands before it in its pipeline.
    pub(crate) fed_by: Vec<String>,
    /// Where the paths among its arguments lead.
    pub(crate) paths: Option<Paths>,
    /// What the addresses among its arguments are.
    pub(crate) urls: Option<Urls>,
    /// It does one of these; where there are some, the rule speaks of each such fact and not of the command as a whole.
    pub(crate) effects: Vec<Effect>,
    /// In one of these places; anywhere where empty.
    pub(crate) scopes: Vec<Scope>,
}

/// Where paths lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Paths {
    /// All lie in a workspace.
    Inside,
    /// One lies in none, temporary folders aside.
    Outside,
}

/// What addresses name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Urls {
    /// There is one, and all name this host.
    Local,
    /// There is none, or one names another host.
    Elsewhere,
}
