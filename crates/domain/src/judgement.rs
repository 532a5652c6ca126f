//! What policy says about a command.

use serde::{Deserialize, Serialize};

use crate::text::Digest;

/// A verdict, declared from mild to strict, so that `max` combines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A rule knows it as harmless. Still nothing runs without a person's decision or grant.
    Allow,
    /// A person has to judge.
    Ask,
    /// Refused; no person is troubled.
    Deny,
}

impl Verdict {
    /// Returns the verdict's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// How bad it could get, declared from mild to severe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing to fear.
    Info,
    /// A nuisance.
    Low,
    /// Work could be lost.
    Medium,
    /// The machine or its data are at risk.
    High,
    /// Irreversible, or it reaches past the machine.
    Critical,
}

impl Severity {
    /// Returns the severity's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A range of bytes of the command's text, end excluded, on character borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// One reason of a judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The rule's id, or a built-in one of the engine (`opaque`, `limit`, `unknown_command`, …).
    pub rule: String,
    /// The rule's category.
    pub category: String,
    /// What this reason alone would make of the command.
    pub verdict: Verdict,
    /// How bad it could get.
    pub severity: Severity,
    /// Written for the approver, in plain words.
    pub text: String,
    /// The bytes it speaks of; the whole command where it has none.
    pub span: Option<Span>,
}

/// Which policy judged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// The version that the rule files state.
    pub version: String,
    /// The digest of all rule files and settings that can change a verdict.
    pub digest: Digest,
}

/// What policy says about one command: the strictest verdict of all parts, with every reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The strictest of the reasons' verdicts.
    pub verdict: Verdict,
    /// The severest of the reasons with that verdict.
    pub severity: Severity,
    /// Every reason, strictest first, then in the order of the text.
    pub reasons: Vec<Reason>,
    /// Which policy judged.
    pub policy: PolicyVersion,
}

impl Judgement {
    /// Returns the judgement that `reasons` amount to. No reason at all is `Ask`: what nothing speaks for is not allowed.
    pub fn of(mut reasons: Vec<Reason>, policy: PolicyVersion) -> Self {
        // A stable sort: within a verdict the order of the text stays.
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.verdict));
        let verdict = reasons.first().map_or(Verdict::Ask, |strictest| strictest.verdict);
        let severity = reasons
            .iter()
            .filter(|reason| reason.verdict == verdict)
            .map(|reason| reason.severity)
            .max()
            .unwrap_or(Severity::Medium);
        Self { verdict, severity, reasons, policy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(verdict: Verdict, severity: Severity) -> Reason {
        Reason { rule: "r".into(), category: "c".into(), verdict, severity, text: "t".into(), span: None }
    }

    #[test]
    fn the_strictest_wins_and_silence_asks() {
        let policy = PolicyVersion { version: "1".into(), digest: Digest::from_sha256([0; 32]) };
        assert_eq!(Judgement::of(vec![], policy.clone()).verdict, Verdict::Ask);
        let mixed = Judgement::of(
            vec![
                reason(Verdict::Allow, Severity::Critical),
                reason(Verdict::Deny, Severity::Low),
                reason(Verdict::Ask, Severity::High),
                reason(Verdict::Deny, Severity::Medium),
            ],
            policy,
        );
        assert_eq!((mixed.verdict, mixed.severity), (Verdict::Deny, Severity::Medium));
        assert_eq!(mixed.reasons.first().map(|r| r.severity), Some(Severity::Low));
    }
}
