//! A rule at work: an automaton that is stepped byte by byte, and what has to hold of what it found.

use std::ops::Range;
use std::sync::OnceLock;

use regex_automata::dfa::Automaton as _;
use regex_automata::dfa::dense;
use regex_automata::meta::Regex;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, Input};

use crate::entropy::shannon;

/// What a rule's expression becomes.
pub(crate) type Automaton = dense::DFA<Vec<u32>>;

/// Rules, ready to be used. Cheap to share behind an `Arc`.
#[derive(Debug, Default)]
pub struct Rules {
    pub(crate) rules: Vec<Rule>,
}

impl Rules {
    /// Returns the rules' ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.id.as_str())
    }

    /// Returns these rules and then `more`. Each keeps to its own file's allow-lists.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        self.rules.extend(more.rules);
        self
    }
}

/// One kind of secret.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: String,
    /// In lower case. A match begins with one.
    pub(crate) keywords: Vec<String>,
    pub(crate) automaton: Lazy,
    /// Only where a part of the match is the secret.
    pub(crate) groups: Option<Groups>,
    /// The secret has to have more, in bits a byte.
    pub(crate) entropy: f64,
    pub(crate) allowlists: Vec<Allowlist>,
}

/// An automaton that is made when its first keyword comes: most never do, and a hundred cost a start.
pub(crate) struct Lazy {
    made: OnceLock<Option<Automaton>>,
    make: fn(&str) -> Option<Automaton>,
    source: String,
}

impl Lazy {
    pub(crate) const fn new(source: String, make: fn(&str) -> Option<Automaton>) -> Self {
        Self { made: OnceLock::new(), make, source }
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Nothing where it cannot be made, which loading a file finds out: its examples are looked for.
    fn get(&self) -> Option<&Automaton> {
        self.made.get_or_init(|| (self.make)(&self.source)).as_ref()
    }
}

impl std::fmt::Debug for Lazy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.source)
    }
}

/// Which part of a match is the secret.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(crate) regex: Regex,
    /// Nothing means the first that took part.
    pub(crate) secret: Option<usize>,
}

/// What is no secret although it matches.
#[derive(Debug, Clone)]
pub(crate) struct Allowlist {
    pub(crate) condition: Condition,
    pub(crate) target: Target,
    pub(crate) regexes: Vec<Regex>,
    pub(crate) stopwords: Vec<String>,
    /// Whether it also asks for a path or a commit. Output has neither, so that part never holds.
    pub(crate) elsewhere: Elsewhere,
}

/// Whether one part of an allow-list is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Any,
    All,
}

/// What an allow-list's expressions are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Secret,
    Match,
}

/// Whether an allow-list speaks of something that output does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    Asked,
    NotAsked,
}

/// Where a rule stands after a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It may still match, or match more.
    On(StateID),
    /// As [`Step::On`], and everything before the byte is a match.
    Matched(StateID),
    /// No byte can change anything any more.
    Over,
}

impl Rule {
    /// Where it stands before the first byte of a keyword.
    pub(crate) fn start(&self, before: Option<u8>) -> Step {
        let config = start::Config::new().anchored(Anchored::Yes).look_behind(before);
        // It was built for anchored searches, and no byte makes it give up.
        let state =
            self.automaton.get().and_then(|automaton| automaton.start_state(&config).ok().map(|it| (automaton, it)));
        state.map_or(Step::Over, |(automaton, state)| at(automaton, state))
    }

    pub(crate) fn step(&self, state: StateID, byte: u8) -> Step {
        self.automaton.get().map_or(Step::Over, |automaton| at(automaton, automaton.next_state(state, byte)))
    }

    /// Whether everything is a match if nothing more comes.
    pub(crate) fn matches_at_end(&self, state: StateID) -> bool {
        self.automaton.get().is_some_and(|automaton| automaton.is_match_state(automaton.next_eoi_state(state)))
    }

    /// Whether no byte leads on from a state.
    pub(crate) fn is_last(&self, state: StateID) -> bool {
        !self.matches_at_end(state) && self.all_next(state, |automaton, next| automaton.is_dead_state(next))
    }

    /// Whether everything up to a state is a match whatever follows, and nothing longer is: automata tell of a match one
    /// byte late.
    pub(crate) fn has_matched(&self, state: StateID) -> bool {
        let matches = |automaton: &Automaton, next| automaton.is_match_state(next) && self.is_last(next);
        self.matches_at_end(state) && self.all_next(state, matches)
    }

    fn all_next(&self, state: StateID, holds: impl Fn(&Automaton, StateID) -> bool) -> bool {
        let Some(automaton) = self.automaton.get() else { return false };
        automaton
            .byte_classes()
            .representatives(0..=255)
            .all(|unit| unit.as_u8().is_none_or(|byte| holds(automaton, automaton.next_state(state, byte))))
    }

    /// The secret in what was matched, if it is one. `text` holds what stands before and after too, as far as it is known.
    pub(crate) fn secret(&self, text: &[u8], matched: Range<usize>) -> Option<Range<usize>> {
        let range = match &self.groups {
            None => matched.clone(),
            Some(groups) => groups.find(text, matched.start)?,
        };
        let secret = text.get(range.clone())?;
        let whole = text.get(matched)?;
        let surprising = self.entropy <= 0.0 || shannon(secret) > self.entropy;
        let excused = !surprising || self.allowlists.iter().any(|list| list.allows(secret, whole));
        Some(range).filter(|range| !excused && !range.is_empty())
    }
}

fn at(automaton: &Automaton, state: StateID) -> Step {
    if !automaton.is_special_state(state) {
        Step::On(state)
    } else if automaton.is_match_state(state) {
        Step::Matched(state)
    } else if automaton.is_dead_state(state) || automaton.is_quit_state(state) {
        Step::Over
    } else {
        Step::On(state)
    }
}

impl Groups {
    fn find(&self, text: &[u8], from: usize) -> Option<Range<usize>> {
        let mut captures = self.regex.create_captures();
        self.regex.search_captures(&Input::new(text).range(from..).anchored(Anchored::Yes), &mut captures);
        let group = |index: usize| captures.get_group(index).map(|span| span.range());
        match self.secret {
            Some(index) => group(index),
            None => (1..captures.group_len()).find_map(group),
        }
    }
}

impl Allowlist {
    fn allows(&self, secret: &[u8], whole: &[u8]) -> bool {
        let asked = match self.target {
            Target::Secret => secret,
            Target::Match => whole,
        };
        let by_regex = self.regexes.iter().any(|regex| regex.is_match(asked));
        let by_word = !self.stopwords.is_empty() && {
            let text = secret.to_ascii_lowercase();
            self.stopwords.iter().any(|word| text.windows(word.len()).any(|part| part == word.as_bytes()))
        };
        match self.condition {
            Condition::Any => by_regex || by_word,
            Condition::All => {
                self.elsewhere == Elsewhere::NotAsked
                    && (self.regexes.is_empty() || by_regex)
                    && (self.stopwords.is_empty() || by_word)
            }
        }
    }
}
