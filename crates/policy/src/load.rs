//! Rule files, read and checked. All faults are told at once.

use std::fmt;

use provara_domain::{CommandText, Digest, PolicyVersion, Severity, Shell, Verdict};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::judge::{Policy, Request, Strictness};
use crate::rule::{Examples, Facts, Matcher, Paths, Rule, Urls};

/// A file of rules.
#[derive(Debug, Clone, Copy)]
pub struct RuleFile<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// Its TOML.
    pub text: &'a str,
}

/// Everything that is wrong with the rule files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyErrors(pub Vec<RuleError>);

/// One fault of a rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// The rule, where the fault is in one.
    pub rule: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub mend: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(rule) = &self.rule {
            write!(f, ": rule `{rule}`")?;
        }
        write!(f, ": {}; {}", self.what, self.mend)
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    version: Option<String>,
    #[serde(default)]
    rule: Vec<toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    id: String,
    category: String,
    severity: Severity,
    verdict: Verdict,
    #[serde(default)]
    shells: Vec<Shell>,
    reason: String,
    #[serde(rename = "match")]
    matcher: RawMatch,
    examples: Examples,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawMatch {
    raw: Option<String>,
    program: Vec<String>,
    first: Vec<String>,
    args_any: Vec<String>,
    args_all: Vec<String>,
    args_none: Vec<String>,
    args_only: Vec<String>,
    flags: Vec<String>,
    args_at_most: Option<usize>,
    redirect: Option<String>,
    fed_by: Vec<String>,
    paths: Option<Paths>,
    urls: Option<Urls>,
}

const BUILTIN: RuleFile<'static> =
    RuleFile { name: "policies/default.toml", text: include_str!("../../../policies/default.toml") };

/// The largest compiled expression. A hostile file costs memory up to this for each rule and no more.
const REGEX_BYTES: usize = 1 << 20;

impl Policy {
    /// Returns the built-in policy.
    ///
    /// # Errors
    /// Never, unless the built-in file was changed and is faulty.
    pub fn builtin(strict: Strictness) -> Result<Self, PolicyErrors> {
        Self::load(&[], strict)
    }

    /// Returns the built-in policy with `files` added. Rules add up: the strictest that matches wins, so a file cannot
    /// soften another's.
    ///
    /// # Errors
    /// With every fault of every file; nothing is loaded then.
    pub fn load(files: &[RuleFile<'_>], strict: Strictness) -> Result<Self, PolicyErrors> {
        let mut errors = Vec::new();
        let mut rules: Vec<Rule> = Vec::new();
        let mut versions = Vec::new();
        let mut sources = Vec::new();
        let mut hash = Sha256::new();
        hash.update(match strict {
            Strictness::Ask => b"provara-policy-1 ask ",
            Strictness::Deny => b"provara-policy-1 deny",
        });
        // The engine can change a verdict as well as a rule can.
        hash.update(env!("CARGO_PKG_VERSION"));
        for file in std::iter::once(&BUILTIN).chain(files) {
            for part in [file.name, file.text] {
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(part);
            }
            versions.extend(read_file(file, &mut rules, &mut sources, &mut errors));
        }
        let version =
            PolicyVersion { version: versions.join("+"), digest: Digest::from_sha256(hash.finalize().into()) };
        let policy = Self::new(rules, strict, version);
        for (rule, file) in policy.rules().zip(&sources) {
            check_examples(&policy, rule, file, &mut errors);
        }
        if errors.is_empty() { Ok(policy) } else { Err(PolicyErrors(errors)) }
    }
}

fn read_file(
    file: &RuleFile<'_>,
    rules: &mut Vec<Rule>,
    sources: &mut Vec<String>,
    errors: &mut Vec<RuleError>,
) -> Option<String> {
    let fault = |rule: Option<String>, what: String, mend: &str| RuleError {
        file: file.name.to_owned(),
        rule,
        what,
        mend: mend.to_owned(),
    };
    let raw: RawFile = match toml::from_str(file.text) {
        Ok(raw) => raw,
        Err(error) => {
            errors.push(fault(
                None,
                error.to_string().trim_end().to_owned(),
                "write it as `policies/default.toml` is written",
            ));
            return None;
        }
    };
    for (index, value) in raw.rule.into_iter().enumerate() {
        let name =
            value.get("id").and_then(toml::Value::as_str).map_or_else(|| format!("#{}", index + 1), str::to_owned);
        let rule: RawRule = match value.try_into() {
            Ok(rule) => rule,
            Err(error) => {
                let what = error.to_string().trim_end().to_owned();
                errors.push(fault(Some(name), what, "mend or remove the field it names"));
                continue;
            }
        };
        if rules.iter().any(|known| known.id == rule.id) {
            errors.push(fault(Some(name), "its id is taken by an earlier rule".to_owned(), "give it another id"));
            continue;
        }
        match compile(rule) {
            Ok(rule) => {
                rules.push(rule);
                sources.push(file.name.to_owned());
            }
            Err(faults) => {
                errors.extend(faults.into_iter().map(|(what, mend)| fault(Some(name.clone()), what, mend)));
            }
        }
    }
    raw.version
}

type Fault = (String, &'static str);

fn compile(raw: RawRule) -> Result<Rule, Vec<Fault>> {
    let mut faults = Vec::new();
    if raw.reason.trim().is_empty() || raw.category.trim().is_empty() || raw.id.trim().is_empty() {
        faults.push(("id, category or reason is empty".to_owned(), "say for the approver what the rule found"));
    }
    if raw.examples.matching.is_empty() || raw.examples.not_matching.is_empty() {
        faults.push(("it lacks examples".to_owned(), "give at least one `match` and one `no_match`"));
    }
    let matcher = matcher(raw.matcher, raw.verdict, &mut faults);
    let shells = if raw.shells.is_empty() { Shell::ALL.to_vec() } else { raw.shells };
    let Some(matcher) = matcher.filter(|_| faults.is_empty()) else { return Err(faults) };
    let Examples { .. } = &raw.examples;
    Ok(Rule {
        id: raw.id,
        category: raw.category,
        severity: raw.severity,
        verdict: raw.verdict,
        shells,
        reason: raw.reason,
        examples: raw.examples,
        matcher,
    })
}

fn matcher(raw: RawMatch, verdict: Verdict, faults: &mut Vec<Fault>) -> Option<Matcher> {
    let mut regexes = |sources: Vec<String>| -> Vec<Regex> {
        sources.iter().filter_map(|source| regex(source).map_err(|fault| faults.push(fault)).ok()).collect()
    };
    let (args_any, args_all) = (regexes(raw.args_any), regexes(raw.args_all));
    let (args_none, args_only) = (regexes(raw.args_none), regexes(raw.args_only));
    let redirect = regexes(raw.redirect.into_iter().collect()).pop();
    let whole = regexes(raw.raw.iter().cloned().collect()).pop();
    let no_program = raw.program.is_empty();
    let nothing = no_program && args_any.is_empty() && args_all.is_empty() && redirect.is_none();
    match (raw.raw.is_some(), nothing) {
        (false, true) => {
            faults.push((
                "its match names nothing".to_owned(),
                "give `raw`, `program`, `args_any`, `args_all` or `redirect`",
            ));
            return None;
        }
        (true, false) => {
            faults.push(("its match has `raw` and facts".to_owned(), "make two rules of it"));
            return None;
        }
        _ => {}
    }
    if verdict == Verdict::Allow && (raw.raw.is_some() || no_program) {
        // Text that looks harmless is no proof; only a command that was read can be allowed.
        faults.push(("an allow rule must name its programs".to_owned(), "match by `program`"));
        return None;
    }
    if raw.raw.is_some() {
        return whole.map(Matcher::Raw);
    }
    Some(Matcher::Facts(Box::new(Facts {
        programs: raw.program.iter().map(|name| name.to_lowercase()).collect(),
        first: raw.first.iter().map(|words| words.split(' ').map(str::to_owned).collect()).collect(),
        args_any,
        args_all,
        args_none,
        args_only,
        flags: raw.flags.iter().map(|set| set.split('|').map(str::to_owned).collect()).collect(),
        args_at_most: raw.args_at_most,
        redirect,
        fed_by: raw.fed_by,
        paths: raw.paths,
        urls: raw.urls,
    })))
}

fn regex(source: &str) -> Result<Regex, Fault> {
    RegexBuilder::new(source).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build().map_err(|error| {
        (
            format!("`{source}` is no regular expression: {error}"),
            "mend it; look-around and back-references do not exist",
        )
    })
}

fn check_examples(policy: &Policy, rule: &Rule, file: &str, errors: &mut Vec<RuleError>) {
    let Some(shell) = rule.shells.first().copied() else { return };
    let workspaces = ["/work".to_owned()];
    let texts = rule.examples.matching.iter().map(|text| (text, true));
    for (text, expected) in texts.chain(rule.examples.not_matching.iter().map(|text| (text, false))) {
        let found = CommandText::parse(text.clone()).map(|command| {
            policy.matches(rule, &Request { command: &command, shell, cwd: "/work", workspaces: &workspaces })
        });
        if found != Ok(expected) {
            let what = if expected { "does not match its example" } else { "matches its counter-example" };
            errors.push(RuleError {
                file: file.to_owned(),
                rule: Some(rule.id.clone()),
                what: format!("{what} `{text}`"),
                mend: "correct the match or the example".to_owned(),
            });
        }
    }
}
