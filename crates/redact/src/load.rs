//! Files of rules in gitleaks' form, read and checked. All faults are told at once.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use regex_automata::dfa::{StartKind, dense};
use regex_automata::meta::Regex;
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use serde::Deserialize;

use crate::redactor::Redactor;
use crate::rule::{Allowlist, Automaton, Condition, Elsewhere, Groups, Lazy, Rule, Rules, Target};

const BUILTIN: &str = include_str!("../../../policies/secrets.toml");

/// Of a file, in bytes.
const MAX_FILE: usize = 1 << 18;
/// Of a file.
const MAX_RULES: usize = 500;
/// Told in all; who has more faults mends these first.
const MAX_FAULTS: usize = 50;
/// Of one compiled expression, in bytes.
const MAX_REGEX: usize = 1 << 20;
/// A keyword of fewer characters begins too much.
const SHORTEST_KEYWORD: usize = 3;
/// Of a keyword, in characters.
const LONGEST_KEYWORD: usize = 64;
/// Stands for nothing in an example, so that a file of rules holds nothing that looks like a secret itself.
const JOINT: char = '¦';

/// Everything that is wrong with a file of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleErrors(pub Vec<RuleError>);

/// One fault of a file of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// The rule, where the fault is in one.
    pub rule: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub mend: &'static str,
}

impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, RuleError { rule, what, mend }) in self.0.iter().enumerate() {
            f.write_str(if index > 0 { "\n" } else { "" })?;
            if let Some(rule) = rule {
                write!(f, "rule `{rule}`: ")?;
            }
            write!(f, "{what}; {mend}")?;
        }
        Ok(())
    }
}

impl std::error::Error for RuleErrors {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default, rename = "title")]
    _title: Option<String>,
    #[serde(default, rename = "minVersion")]
    _min_version: Option<String>,
    #[serde(default)]
    rules: Vec<toml::Value>,
    allowlist: Option<RawAllowlist>,
    #[serde(default)]
    allowlists: Vec<RawAllowlist>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRule {
    id: String,
    #[serde(default, rename = "description")]
    _description: String,
    regex: String,
    secret_group: Option<usize>,
    #[serde(default)]
    entropy: f64,
    #[serde(default)]
    keywords: Vec<String>,
    #[serde(rename = "path")]
    _path: Option<String>,
    #[serde(default, rename = "tags")]
    _tags: Vec<String>,
    allowlist: Option<RawAllowlist>,
    #[serde(default)]
    allowlists: Vec<RawAllowlist>,
    #[serde(default)]
    examples: Examples,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Examples {
    #[serde(rename = "match")]
    matching: Vec<String>,
    #[serde(rename = "no_match")]
    not_matching: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct RawAllowlist {
    #[serde(rename = "description")]
    _description: String,
    condition: String,
    regex_target: String,
    regexes: Vec<String>,
    stopwords: Vec<String>,
    paths: Vec<String>,
    commits: Vec<String>,
}

type Fault = (String, &'static str);

impl Rules {
    /// Returns the built-in rules.
    ///
    /// # Errors
    /// Never, unless the built-in file was changed and is faulty.
    pub fn builtin() -> Result<Self, RuleErrors> {
        // A test looks for its examples, so that not every start has to.
        Self::read(BUILTIN, |rule, _| Ok(rule))
    }

    /// Returns the rules of a file, after each has found its examples and left its counter-examples alone.
    ///
    /// # Errors
    /// With every fault; nothing is loaded then.
    pub fn parse(text: &str) -> Result<Self, RuleErrors> {
        Self::read(text, check)
    }

    /// As [`Rules::builtin`], after each rule has found its examples.
    ///
    /// # Errors
    /// With every fault of the built-in file.
    pub fn builtin_checked() -> Result<Self, RuleErrors> {
        Self::parse(BUILTIN)
    }

    fn read(text: &str, check: fn(Rule, &Examples) -> Result<Rule, Fault>) -> Result<Self, RuleErrors> {
        let fault = |what, mend| RuleErrors(vec![RuleError { rule: None, what, mend }]);
        if text.len() > MAX_FILE {
            let what = format!("the file has {} bytes, and {MAX_FILE} are read at most", text.len());
            return Err(fault(what, "write fewer rules"));
        }
        let raw: RawFile = toml::from_str(text)
            .map_err(|error| fault(told(error.message()), "write it as `docs/secrets.md` shows"))?;
        if raw.rules.len() > MAX_RULES {
            return Err(fault(format!("there are more than {MAX_RULES} rules"), "join rules by `|`"));
        }
        let mut faults = Vec::new();
        let everywhere: Vec<Allowlist> =
            raw.allowlist.into_iter().chain(raw.allowlists).map(allowlist).fold(Vec::new(), |mut all, one| {
                match one {
                    Ok(one) => all.push(one),
                    Err((what, mend)) => faults.push(RuleError { rule: None, what, mend }),
                }
                all
            });
        let mut ids = HashSet::new();
        let mut rules = Vec::new();
        for (index, value) in raw.rules.into_iter().enumerate() {
            let id = value.get("id").and_then(toml::Value::as_str);
            let name = id.map_or_else(|| format!("#{}", index + 1), told);
            let read = read(value, &everywhere).and_then(|(rule, examples)| check(rule, &examples)).and_then(|rule| {
                if ids.insert(rule.id.clone()) { Ok(rule) } else { Err(("its id is taken".into(), "give it another")) }
            });
            match read {
                Ok(rule) => rules.push(rule),
                Err((what, mend)) => faults.push(RuleError { rule: Some(name), what, mend }),
            }
            if faults.len() >= MAX_FAULTS {
                break;
            }
        }
        if faults.is_empty() { Ok(Self { rules }) } else { Err(RuleErrors(faults)) }
    }
}

fn read(value: toml::Value, everywhere: &[Allowlist]) -> Result<(Rule, Examples), Fault> {
    let raw: RawRule = value
        .try_into()
        .map_err(|error: toml::de::Error| (told(error.message()), "mend or remove the field it names"))?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if !(1..=64).contains(&raw.id.len()) || !raw.id.chars().all(plain) {
        return Err(("its id is not made of 1 to 64 of `a-z`, `0-9`, `-` and `_`".into(), "name it so"));
    }
    let keywords: Vec<String> = raw.keywords.iter().map(|word| word.to_ascii_lowercase()).collect();
    let fits = |word: &String| (SHORTEST_KEYWORD..=LONGEST_KEYWORD).contains(&word.len());
    if keywords.is_empty() || !keywords.iter().all(fits) {
        let what = format!("it lacks keywords of {SHORTEST_KEYWORD} to {LONGEST_KEYWORD} bytes");
        return Err((what, "name what each match begins with: only there the expression is tried"));
    }
    if raw.examples.matching.is_empty() || raw.examples.not_matching.is_empty() {
        return Err(("it lacks examples".into(), "give at least one `match` and one `no_match` under `examples`"));
    }
    let regex = regex(&raw.regex)?;
    if raw.secret_group.is_some_and(|group| group >= regex.captures_len()) {
        return Err(("its secretGroup is not in its expression".into(), "name a group that there is, or none"));
    }
    let secret = raw.secret_group.filter(|group| *group > 0);
    let groups = (regex.captures_len() > 1).then_some(Groups { regex, secret });
    let mut allowlists = everywhere.to_vec();
    for list in raw.allowlist.into_iter().chain(raw.allowlists) {
        allowlists.push(allowlist(list)?);
    }
    let automaton = Lazy::new(raw.regex, |source| automaton(source).ok());
    Ok((Rule { id: raw.id, keywords, automaton, groups, entropy: raw.entropy, allowlists }, raw.examples))
}

/// A rule that would never match, or always, is worse than none: it is believed in.
fn check(rule: Rule, examples: &Examples) -> Result<Rule, Fault> {
    automaton(rule.automaton.source())?;
    let alone = Arc::new(Rules { rules: vec![rule] });
    let redactor = Redactor::new(Arc::clone(&alone), &[]).map_err(|error| (error.to_string(), "shorten it"))?;
    let texts = examples.matching.iter().map(|text| (text, true));
    for (text, expected) in texts.chain(examples.not_matching.iter().map(|text| (text, false))) {
        let found = !redactor.find(&text.replace(JOINT, "")).is_empty();
        if found != expected {
            let what = if expected { "does not match its example" } else { "matches its counter-example" };
            let mend = "mend expression or example; a match has to begin with a keyword, to the byte";
            return Err((format!("{what} `{}`", told(text)), mend));
        }
    }
    drop(redactor);
    let rule = Arc::into_inner(alone).and_then(|mut alone| alone.rules.pop());
    rule.ok_or_else(|| ("it could not be checked".into(), "start again"))
}

fn allowlist(raw: RawAllowlist) -> Result<Allowlist, Fault> {
    let condition = match raw.condition.to_ascii_uppercase().as_str() {
        "" | "OR" | "||" => Condition::Any,
        "AND" | "&&" => Condition::All,
        _ => return Err(("an allowlist's condition is neither OR nor AND".into(), "write one of them")),
    };
    let target = match raw.regex_target.as_str() {
        "" | "secret" => Target::Secret,
        "match" => Target::Match,
        _ => return Err(("an allowlist's regexTarget is neither secret nor match".into(), "write one of them")),
    };
    let elsewhere = if raw.paths.is_empty() && raw.commits.is_empty() { Elsewhere::NotAsked } else { Elsewhere::Asked };
    if elsewhere == Elsewhere::NotAsked && raw.regexes.is_empty() && raw.stopwords.is_empty() {
        return Err(("an allowlist names nothing".into(), "give `regexes` or `stopwords`"));
    }
    let regexes = raw.regexes.iter().map(|source| regex(source)).collect::<Result<_, _>>()?;
    let stopwords: Vec<String> = raw.stopwords.iter().map(|word| word.to_ascii_lowercase()).collect();
    if stopwords.iter().any(String::is_empty) {
        return Err(("a stopword is empty".into(), "remove it: it would allow everything"));
    }
    Ok(Allowlist { condition, target, regexes, stopwords, elsewhere })
}

/// Bytes, not characters: output need not be UTF-8, and gitleaks' classes are ASCII too.
fn by_bytes() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false)
}

fn automaton(source: &str) -> Result<Automaton, Fault> {
    let size = Some(MAX_REGEX);
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .accelerate(false)
        .dfa_size_limit(size)
        .determinize_size_limit(size.map(|size| size * 8));
    let nfa = thompson::Config::new().utf8(false).nfa_size_limit(size);
    let mut builder = dense::Builder::new();
    builder.configure(config).syntax(by_bytes()).thompson(nfa);
    builder.build(source).map_err(|error| unusable(source, &error))
}

fn regex(source: &str) -> Result<Regex, Fault> {
    // Asked rarely, and about one match: what would make it faster would hold more memory than all else of a rule.
    let config = Regex::config().utf8_empty(false).nfa_size_limit(Some(MAX_REGEX)).onepass(false).dfa(false);
    let built = Regex::builder().configure(config).syntax(by_bytes()).build(source);
    built.map_err(|error| unusable(source, &error))
}

fn unusable(source: &str, error: &dyn std::error::Error) -> Fault {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    let what = format!("`{}` is no usable regular expression: {}", told(source), told(&text));
    (what, "mend or shorten it; look-around and back-references do not exist, classes and repetitions have a price")
}

/// A part of the file as a message may quote it.
fn told(text: &str) -> String {
    let mut shown: String = text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if text.chars().count() > 200 {
        shown.push('…');
    }
    shown
}
