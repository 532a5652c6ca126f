//! Rule files, read and checked. All faults are told at once.

use std::collections::HashSet;
use std::fmt;

use provara_domain::{CommandText, Digest, PolicyVersion, ProfileName, Severity, Shell, Verdict};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::facts::{Effect, Scope};
use crate::judge::{Policy, Request, Strictness};
use crate::knowledge::{Knowledge, KnowledgeError, with_nearest};
use crate::places::{self, Places};
use crate::reader::is_hidden;
use crate::rule::{Examples, Facts, Matcher, Paths, Rule, RuleBinding, Urls};

/// A file of rules.
#[derive(Debug, Clone, Copy)]
pub struct RuleFile<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// Its TOML.
    pub text: &'a str,
}

impl RuleFile<'_> {
    /// The longest that is taken.
    pub const MAX_BYTES: usize = 1 << 18;
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

impl From<&KnowledgeError> for RuleError {
    fn from(error: &KnowledgeError) -> Self {
        let KnowledgeError { file, program, what } = error;
        let file = format!("policies/programs/{file}");
        let mend = "mend the file and build again".to_owned();
        Self { file, rule: program.clone(), what: what.clone(), mend }
    }
}

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
    force_profile: Option<ProfileName>,
    #[serde(default)]
    forbid_profiles: Vec<ProfileName>,
    #[serde(default)]
    demand_binding: bool,
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
    begin: Vec<String>,
    args_any: Vec<String>,
    args_all: Vec<String>,
    args_none: Vec<String>,
    args_only: Vec<String>,
    flags_only: Vec<String>,
    flags: Vec<String>,
    args_at_most: Option<usize>,
    operands_at_most: Option<usize>,
    redirect: Option<String>,
    fed_by: Vec<String>,
    paths: Option<Paths>,
    urls: Option<Urls>,
    effect: Vec<Effect>,
    scope: Vec<Scope>,
}

const BUILTIN: [RuleFile<'static>; 2] = [
    RuleFile { name: "policies/default.toml", text: include_str!("../../../policies/default.toml") },
    RuleFile { name: "policies/effects.toml", text: include_str!("../../../policies/effects.toml") },
];

/// The largest compiled expression. With [`MAX_REGEXES`] it bounds what hostile files can cost.
const REGEX_BYTES: usize = 1 << 17;
/// Over all files, the built-in one among them.
const MAX_REGEXES: usize = 2_000;
/// Over all files. Every rule is asked about every command.
const MAX_RULES: usize = 1_000;
/// Of one rule. Each is judged when the rule is loaded.
const MAX_EXAMPLES: usize = 64;
/// Profiles that one rule forbids.
const MAX_FORBIDDEN: usize = 64;
/// Of an example, and of a reason, in characters.
const MAX_TEXT: usize = 500;
/// Of a message that quotes the file.
const MAX_TOLD: usize = 600;
/// Told in all; who has more faults than this mends these first.
const MAX_FAULTS: usize = 100;
/// What the engine's own reasons are called. A rule of such a name could silence or forge them.
const RESERVED: [&str; 7] =
    ["opaque", "unknown_command", "known_command", "assignment", "wrapper", "limit", "nothing_to_run"];

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
        let mut loading = Loading::default();
        let mut hash = Sha256::new();
        hash.update(match strict {
            Strictness::Ask => b"provara-policy-1 ask ",
            Strictness::Deny => b"provara-policy-1 deny",
        });
        // The engine can change a verdict as well as a rule can.
        hash.update(env!("CARGO_PKG_VERSION"));
        for (at, file) in BUILTIN.iter().chain(files).enumerate() {
            for part in [file.name, file.text] {
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(part);
            }
            loading.read(file);
            if at < BUILTIN.len() {
                loading.built_in = loading.rules.len();
            }
        }
        let built_in = loading.built_in;
        // What is known of programs and places changes verdicts as well as rules do.
        for (name, text) in Knowledge::files().iter().chain(&[("places.toml", places::BUILTIN)]) {
            hash.update(name);
            hash.update(text);
        }
        let Loading { rules, sources, versions, mut errors, .. } = loading;
        let version =
            PolicyVersion { version: versions.join("+"), digest: Digest::from_sha256(hash.finalize().into()) };
        let (places, knowledge) = match (Places::builtin(), Knowledge::builtin()) {
            (Ok(places), Ok(knowledge)) => (places, knowledge),
            (places, knowledge) => {
                let of_places = places.err().map(|what| RuleError {
                    file: "policies/places.toml".to_owned(),
                    rule: None,
                    what,
                    mend: "mend the file and build again".to_owned(),
                });
                errors.extend(of_places);
                errors.extend(knowledge.err().unwrap_or_default().iter().map(RuleError::from));
                return Err(PolicyErrors(errors));
            }
        };
        let policy = Self::new(rules, strict, version, knowledge, places);
        // The built-in files' own are checked by a test, not at each start.
        for (index, (rule, file)) in policy.rules().zip(&sources).enumerate().skip(built_in) {
            check_examples(&policy, index, rule, file, &mut errors);
        }
        errors.truncate(MAX_FAULTS);
        if errors.is_empty() { Ok(policy) } else { Err(PolicyErrors(errors)) }
    }
}

/// What the files gave so far.
#[derive(Default)]
struct Loading {
    rules: Vec<Rule>,
    /// For each rule the file that has it.
    sources: Vec<String>,
    versions: Vec<String>,
    ids: HashSet<String>,
    regexes: usize,
    /// How many rules the built-in files gave.
    built_in: usize,
    errors: Vec<RuleError>,
}

impl Loading {
    fn read(&mut self, file: &RuleFile<'_>) {
        if file.text.len() > RuleFile::MAX_BYTES {
            let (has, most) = (file.text.len(), RuleFile::MAX_BYTES);
            let what = format!("it has {has} bytes, and {most} are read at most");
            return self.fault(file, None, what, "split it, or write fewer rules");
        }
        let raw: RawFile = match toml::from_str(file.text) {
            Ok(raw) => raw,
            Err(error) => {
                return self.fault(
                    file,
                    None,
                    with_nearest(error.to_string().trim_end()),
                    "write it as `docs/policy.md` shows",
                );
            }
        };
        self.versions.extend(raw.version);
        for (index, value) in raw.rule.into_iter().enumerate() {
            if self.rules.len() >= MAX_RULES || self.errors.len() >= MAX_FAULTS {
                if self.rules.len() >= MAX_RULES {
                    let what = format!("there are more than {MAX_RULES} rules in all files");
                    self.fault(file, None, what, "join rules: one may name many programs");
                }
                return;
            }
            let id = value.get("id").and_then(toml::Value::as_str);
            let name = id.map_or_else(|| format!("#{}", index + 1), str::to_owned);
            match value.try_into::<RawRule>() {
                Ok(rule) => self.take(file, rule),
                Err(error) => {
                    self.fault(
                        file,
                        Some(name),
                        with_nearest(error.to_string().trim_end()).replace('\n', " "),
                        "mend or remove the field it names",
                    );
                }
            }
        }
    }

    fn take(&mut self, file: &RuleFile<'_>, raw: RawRule) {
        let name = raw.id.clone();
        let matcher = &raw.matcher;
        let lists = [&matcher.begin, &matcher.args_any, &matcher.args_all, &matcher.args_none, &matcher.args_only];
        self.regexes += lists.iter().map(|list| list.len()).sum::<usize>()
            + usize::from(matcher.raw.is_some())
            + usize::from(matcher.redirect.is_some())
            + usize::from(!matcher.flags_only.is_empty());
        if self.regexes > MAX_REGEXES {
            let what = format!("the files have more than {MAX_REGEXES} expressions up to here");
            return self.fault(file, Some(name), what, "join expressions by `|`");
        }
        if !self.ids.insert(name.clone()) {
            let mend = "give it another id";
            return self.fault(file, Some(name), "its id is taken by an earlier rule".to_owned(), mend);
        }
        match compile(raw) {
            Ok(rule) => {
                self.rules.push(rule);
                self.sources.push(file.name.to_owned());
            }
            Err(faults) => {
                faults.into_iter().for_each(|(what, mend)| self.fault(file, Some(name.clone()), what, mend));
            }
        }
    }

    fn fault(&mut self, file: &RuleFile<'_>, rule: Option<String>, what: String, mend: &str) {
        let rule = rule.map(|name| shortened(&name, 80));
        let what = shortened(what.trim_end(), MAX_TOLD);
        self.errors.push(RuleError { file: file.name.to_owned(), rule, what, mend: mend.to_owned() });
    }
}

/// Also makes visible what a file may hide from whoever reads the message.
fn shortened(text: &str, most: usize) -> String {
    let shown = text.chars().map(|c| if is_hidden(c) { '\u{FFFD}' } else { c });
    if text.chars().count() <= most { shown.collect() } else { shown.take(most).chain(['…']).collect() }
}

type Fault = (String, &'static str);

fn compile(raw: RawRule) -> Result<Rule, Vec<Fault>> {
    let mut faults = Vec::new();
    check_words(&raw, &mut faults);
    let matcher = matcher(raw.matcher, raw.verdict, &mut faults);
    let shells = if raw.shells.is_empty() { Shell::ALL.to_vec() } else { raw.shells };
    let Some(matcher) = matcher.filter(|_| faults.is_empty()) else { return Err(faults) };
    Ok(Rule {
        id: raw.id,
        category: raw.category,
        severity: raw.severity,
        verdict: raw.verdict,
        shells,
        reason: raw.reason,
        force_profile: raw.force_profile,
        forbid_profiles: raw.forbid_profiles,
        binding: if raw.demand_binding { RuleBinding::Demanded } else { RuleBinding::AsFound },
        examples: raw.examples,
        matcher,
    })
}

/// People read ids, categories and reasons where they approve: nothing in them may hide, forge or flood.
fn check_words(raw: &RawRule, faults: &mut Vec<Fault>) {
    let plain = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if !plain(&raw.id) || !plain(&raw.category) {
        let what = "its id or category is not made of 1 to 64 of `a-z`, `0-9` and `_`";
        faults.push((what.to_owned(), "name it so"));
    }
    if RESERVED.contains(&raw.id.as_str()) {
        faults.push(("its id is one of the engine's own".to_owned(), "give it another id"));
    }
    let reason = raw.reason.trim();
    if reason.is_empty() || reason.chars().count() > MAX_TEXT || reason.contains(is_hidden) || reason.contains('\n') {
        let what = format!("its reason is empty, has hidden characters or more than one line or {MAX_TEXT} characters");
        faults.push((what, "say in one line for the approver what the rule found"));
    }
    let Examples { matching, not_matching } = &raw.examples;
    if matching.is_empty() || not_matching.is_empty() {
        faults.push(("it lacks examples".to_owned(), "give at least one `match` and one `no_match`"));
    }
    if raw.forbid_profiles.len() > MAX_FORBIDDEN
        || raw.force_profile.as_ref().is_some_and(|name| raw.forbid_profiles.contains(name))
    {
        let what = format!("it forbids the profile that it forces, or more than {MAX_FORBIDDEN}");
        faults.push((what, "force one profile, or forbid others"));
    }
    if matching.len() + not_matching.len() > MAX_EXAMPLES {
        faults.push((format!("it has more than {MAX_EXAMPLES} examples"), "keep those that differ"));
    }
    if matching.iter().chain(not_matching).any(|text| text.chars().count() > MAX_TEXT) {
        faults.push((format!("an example has more than {MAX_TEXT} characters"), "shorten it"));
    }
}

fn matcher(raw: RawMatch, verdict: Verdict, faults: &mut Vec<Fault>) -> Option<Matcher> {
    let mut regexes = |sources: Vec<String>| -> Vec<Regex> {
        sources.iter().filter_map(|source| regex(source).map_err(|fault| faults.push(fault)).ok()).collect()
    };
    let (args_any, args_all) = (regexes(raw.args_any), regexes(raw.args_all));
    let (args_none, args_only) = (regexes(raw.args_none), regexes(raw.args_only));
    let whole = |source: &str| format!("^(?:{source})$");
    let begin = regexes(raw.begin.iter().map(|source| whole(source)).collect());
    let flags_only = Some(raw.flags_only.join("|")).filter(|_| !raw.flags_only.is_empty()).map(|all| whole(&all));
    let flags_only = regexes(flags_only.into_iter().collect()).pop();
    let redirect = regexes(raw.redirect.into_iter().collect()).pop();
    let text = regexes(raw.raw.iter().cloned().collect()).pop();
    let no_program = raw.program.is_empty();
    let nothing =
        no_program && args_any.is_empty() && args_all.is_empty() && redirect.is_none() && raw.effect.is_empty();
    match (raw.raw.is_some(), nothing) {
        (false, true) => {
            faults.push((
                "its match names nothing".to_owned(),
                "give `raw`, `effect`, `program`, `args_any`, `args_all` or `redirect`",
            ));
            return None;
        }
        (true, false) => {
            faults.push(("its match has `raw` and facts".to_owned(), "make two rules of it"));
            return None;
        }
        _ => {}
    }
    if verdict == Verdict::Allow && (raw.raw.is_some() || (no_program && raw.effect.is_empty())) {
        // Text that looks harmless is no proof; only a command that was read can be allowed.
        faults.push(("an allow rule must name its programs or effects".to_owned(), "match by `program` or `effect`"));
        return None;
    }
    if raw.raw.is_some() {
        return text.map(Matcher::Raw);
    }
    Some(Matcher::Facts(Box::new(Facts {
        programs: raw.program.iter().map(|name| name.to_lowercase()).collect(),
        first: raw.first.iter().map(|words| words.split(' ').map(str::to_owned).collect()).collect(),
        begin,
        args_any,
        args_all,
        args_none,
        args_only,
        flags_only,
        flags: raw.flags.iter().map(|set| set.split('|').map(str::to_owned).collect()).collect(),
        args_at_most: raw.args_at_most,
        operands_at_most: raw.operands_at_most,
        redirect,
        fed_by: raw.fed_by,
        paths: raw.paths,
        urls: raw.urls,
        effects: raw.effect,
        scopes: raw.scope,
    })))
}

fn regex(source: &str) -> Result<Regex, Fault> {
    RegexBuilder::new(source).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build().map_err(|error| {
        (
            format!("`{}` is no usable regular expression: {error}", shortened(source, 200)),
            "mend or shorten it; look-around and back-references do not exist",
        )
    })
}

fn check_examples(policy: &Policy, index: usize, rule: &Rule, file: &str, errors: &mut Vec<RuleError>) {
    let Some(shell) = rule.shells.first().copied() else { return };
    let workspaces = ["/work".to_owned()];
    let texts = rule.examples.matching.iter().map(|text| (text, true));
    for (text, expected) in texts.chain(rule.examples.not_matching.iter().map(|text| (text, false))) {
        let found = CommandText::parse(text.clone()).map(|command| {
            policy.matches(index, &Request { command: &command, shell, cwd: "/work", workspaces: &workspaces })
        });
        if found != Ok(expected) {
            let what = if expected { "does not match its example" } else { "matches its counter-example" };
            errors.push(RuleError {
                file: file.to_owned(),
                rule: Some(rule.id.clone()),
                what: format!("{what} `{}`", shortened(text, MAX_TEXT)),
                mend: "correct the match or the example".to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_of_a_built_in_rule_holds() {
        let policy = Policy::builtin(Strictness::Ask).unwrap();
        let mut errors = Vec::new();
        for (index, rule) in policy.rules().enumerate() {
            check_examples(&policy, index, rule, "built-in", &mut errors);
        }
        assert_eq!(errors, Vec::new());
    }

    #[test]
    fn a_file_that_is_called_like_a_built_in_one_is_no_way_around_its_examples() {
        let text = "[[rule]]\nid = 'a'\ncategory = 'c'\nseverity = 'low'\nverdict = 'deny'\nreason = 'r'\nmatch = { program = ['y'] }\nexamples = { match = ['x'], no_match = ['y'] }\n";
        let taken = RuleFile { name: BUILTIN[0].name, text };
        assert!(Policy::load(&[taken], Strictness::Ask).is_err());
    }
}
