//! The search itself, over bytes that come in any pieces.
//!
//! A keyword begins a candidate; the candidate's automaton is stepped with every byte until no byte can change anything any
//! more, or [`WINDOW`] bytes have been seen. So what is found depends on the text alone and not on how it was cut, and
//! what has to be held back is exactly what a candidate, or the beginning of a keyword, may still claim.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;

use regex_automata::util::primitives::StateID;

use crate::literal::FOLDED;
use crate::redactor::{Machine, Redactor};
use crate::rule::Step;

/// The longest secret that is surely found whole, in bytes from its rule's keyword on. No more than this is ever held back.
pub const WINDOW: usize = 16 * 1024;
/// How many beginnings of the same match are asked whether they are a secret. More are one text that repeats a keyword.
const BEGINNINGS: usize = 8;

/// What is known to leave, in order.
pub(crate) enum Piece<'a> {
    /// Bytes as they came.
    Plain(&'a [u8]),
    /// A secret, by its rule's name and where it stood.
    Secret(&'a str, Range<usize>),
    /// The last secret goes on to there: another one overlaps with it.
    Longer(usize),
}

/// Whether anything follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    More,
    Nothing,
}

/// Offsets count from the first byte that ever came.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// What may still be needed, from `base` on: what was not released, and a little before it.
    kept: Vec<u8>,
    base: usize,
    /// Everything before was stepped over.
    seen: usize,
    /// Everything before was handed out.
    released: usize,
    /// The end of the last secret, which may lie beyond what was handed out.
    covered: usize,
    open: Vec<Open>,
    found: Vec<Found>,
    hits: Vec<(usize, usize)>,
}

/// A secret that may be one.
#[derive(Debug)]
struct Open {
    machine: Machine,
    begin: Begin,
    place: Place,
    /// The end of the longest match so far.
    matched: Option<usize>,
    /// Later beginnings that came to the same place: from there on they see the same bytes and say the same.
    absorbed: BTreeSet<Begin>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Begin {
    at: usize,
    keyword_end: usize,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Rule(StateID),
    /// How many bytes of the form were seen.
    Form(usize),
}

#[derive(Debug)]
struct Found {
    range: Range<usize>,
    /// Known secrets first, then the rules in their order.
    rank: usize,
}

/// What a byte did to a candidate.
enum Fate {
    Open,
    /// Nothing that comes can change it.
    Settled,
    /// Its window is full.
    Full,
}

impl Scan {
    /// Takes `bytes` and hands out what is decided.
    pub(crate) fn feed(&mut self, by: &Redactor, bytes: &[u8], follows: Follows, out: &mut dyn FnMut(Piece<'_>)) {
        self.kept.extend_from_slice(bytes);
        self.find_keywords(by);
        self.step_over(by);
        if follows == Follows::Nothing {
            self.settle_all(by);
        }
        let limit = match follows {
            Follows::More => self.limit(by),
            Follows::Nothing => self.end(),
        };
        self.release(by, limit, out);
        self.forget(by);
    }

    /// How many bytes are kept in memory.
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    fn end(&self) -> usize {
        self.base + self.kept.len()
    }

    /// Nothing where the range is empty or begins behind its end.
    fn slice(&self, range: Range<usize>) -> &[u8] {
        let (from, to) = (range.start.saturating_sub(self.base), range.end.saturating_sub(self.base));
        self.kept.get(from..to).unwrap_or_default()
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.kept.get(at.checked_sub(self.base)?).copied()
    }

    /// Every keyword that ends in what was not seen yet, with its end, in the order of their ends.
    fn find_keywords(&mut self, by: &Redactor) {
        self.hits.clear();
        let from = self.seen.saturating_sub(by.longest).max(self.base);
        let text = self.kept.get(from - self.base..).unwrap_or_default();
        for hit in by.keywords.find_overlapping_iter(text) {
            let end = from + hit.end();
            if end > self.seen {
                self.hits.push((hit.pattern().as_usize(), end));
            }
        }
    }

    fn step_over(&mut self, by: &Redactor) {
        let (end, mut next) = (self.end(), 0);
        let hits = std::mem::take(&mut self.hits);
        while self.seen < end || next < hits.len() {
            while let Some((keyword, _)) = hits.get(next).filter(|(_, at)| *at == self.seen) {
                self.begin(by, *keyword);
                next += 1;
            }
            if self.open.is_empty() {
                self.seen = hits.get(next).map_or(end, |(_, at)| *at);
            } else if let Some(byte) = self.byte(self.seen) {
                self.step_all(by, byte);
            } else {
                break;
            }
        }
        self.hits = hits;
    }

    /// Begins whatever a keyword begins that ends where we are.
    fn begin(&mut self, by: &Redactor, keyword: usize) {
        for entry in by.entries.get(keyword).into_iter().flatten() {
            let begin = Begin { at: self.seen - entry.length, keyword_end: self.seen };
            let place = match entry.machine {
                Machine::Rule(rule) => {
                    let before = begin.at.checked_sub(1).and_then(|at| self.byte(at));
                    match by.rules.rules.get(rule).map(|rule| rule.start(before)) {
                        Some(Step::On(state) | Step::Matched(state)) => Place::Rule(state),
                        Some(Step::Over) | None => continue,
                    }
                }
                Machine::Form { from, .. } => Place::Form(from),
            };
            let mut open = Open { machine: entry.machine, begin, place, matched: None, absorbed: BTreeSet::new() };
            let fate = (begin.at..self.seen)
                .map(|at| self.byte(at).map_or(Fate::Settled, |byte| step(by, &mut open, at, byte)))
                .enumerate()
                .find(|(_, fate)| !matches!(fate, Fate::Open));
            match fate {
                None => self.open.push(open),
                // A settled candidate has seen the byte that settled it, and no more.
                Some((nth, _)) => self.settle(by, &open, begin.at + nth + 1),
            }
        }
    }

    fn step_all(&mut self, by: &Redactor, byte: u8) {
        let at = self.seen;
        self.seen += 1;
        let mut open = std::mem::take(&mut self.open);
        open.retain_mut(|candidate| match step(by, candidate, at, byte) {
            Fate::Open => true,
            Fate::Settled => {
                self.settle(by, candidate, at + 1);
                false
            }
            Fate::Full => self.go_on_with_the_next(by, candidate, at + 1),
        });
        merge(&mut open);
        self.open = open;
    }

    /// Ends a candidate whose window is full. What it absorbed began later and goes on in its place.
    fn go_on_with_the_next(&mut self, by: &Redactor, open: &mut Open, limit: usize) -> bool {
        let mut absorbed = std::mem::take(&mut open.absorbed);
        let before = open.matched;
        if let (Machine::Rule(rule), Place::Rule(state)) = (open.machine, open.place)
            && by.rules.rules.get(rule).is_some_and(|rule| rule.matches_at_end(state))
        {
            open.matched = Some(limit);
        }
        self.settle(by, open, limit);
        // The oldest first: it has the least of its own window left.
        let Some(oldest) = absorbed.pop_first() else { return false };
        open.begin = oldest;
        (open.absorbed, open.matched) = (absorbed, before);
        true
    }

    fn settle_all(&mut self, by: &Redactor) {
        let end = self.end();
        for mut open in std::mem::take(&mut self.open) {
            if let (Machine::Rule(rule), Place::Rule(state)) = (open.machine, open.place)
                && by.rules.rules.get(rule).is_some_and(|rule| rule.matches_at_end(state))
            {
                open.matched = Some(end);
            }
            self.settle(by, &open, end);
        }
    }

    /// Keeps what a candidate found, if that is a secret. It saw nothing from `limit` on.
    fn settle(&mut self, by: &Redactor, open: &Open, limit: usize) {
        let Some(end) = open.matched else { return };
        for begin in std::iter::once(&open.begin).chain(&open.absorbed).take(BEGINNINGS) {
            let range = match open.machine {
                Machine::Form { .. } => Some(begin.at..end),
                Machine::Rule(rule) => by.rules.rules.get(rule).and_then(|rule| {
                    let from = begin.at.saturating_sub(1).max(self.base);
                    let text = self.slice(from..limit);
                    let secret = rule.secret(text, begin.at - from..end - from)?;
                    // Where a part of the match is the secret, what stands before the keyword's end has left already.
                    let least = if rule.groups.is_some() { begin.keyword_end } else { begin.at };
                    Some((from + secret.start).max(least)..from + secret.end)
                }),
            };
            if let Some(range) = range.filter(|range| !range.is_empty()) {
                self.found.push(Found { range, rank: by.rank(open.machine) });
                return;
            }
        }
    }

    /// How far everything is decided.
    fn limit(&self, by: &Redactor) -> usize {
        let held = self.open.iter().map(|open| by.held_from(open.machine, open.begin.at, open.begin.keyword_end));
        let unread = self.slice(self.released..self.end());
        let beginning = by.beginning_at_end(unread.get(unread.len().saturating_sub(by.longest)..).unwrap_or_default());
        held.chain([self.end() - beginning]).min().unwrap_or_default().max(self.released)
    }

    /// Hands out what is decided, each stretch of overlapping secrets as one. Whatever may begin where a secret begins is
    /// decided once `limit` is beyond, so a stretch has its name although its end may still move.
    fn release(&mut self, by: &Redactor, limit: usize, out: &mut dyn FnMut(Piece<'_>)) {
        let mut found = std::mem::take(&mut self.found);
        found.sort_unstable_by_key(|one| (one.range.start, Reverse(one.range.end), one.rank));
        for Found { range, rank } in found {
            if range.start >= limit {
                self.found.push(Found { range, rank });
            } else if range.start < self.covered {
                self.covered = self.covered.max(range.end);
                out(Piece::Longer(self.covered));
            } else {
                out(Piece::Plain(self.slice(self.released.max(self.covered)..range.start)));
                (self.released, self.covered) = (range.start, range.end);
                out(Piece::Secret(by.name(rank), range));
            }
        }
        out(Piece::Plain(self.slice(self.released.max(self.covered)..limit)));
        self.released = self.released.max(limit);
    }

    fn forget(&mut self, by: &Redactor) {
        let needed = self.open.iter().map(|open| open.begin.at).chain([self.released]).min().unwrap_or_default();
        let drop = needed.saturating_sub(by.longest + 1).saturating_sub(self.base);
        // Moving what is kept costs as much as what is kept: not for every byte.
        if drop > self.kept.len() / 2 {
            self.kept.drain(..drop);
            self.base += drop;
        }
    }
}

fn step(by: &Redactor, open: &mut Open, at: usize, byte: u8) -> Fate {
    match (open.machine, open.place) {
        (Machine::Rule(rule), Place::Rule(state)) => {
            let Some(rule) = by.rules.rules.get(rule) else { return Fate::Settled };
            match rule.step(state, byte) {
                // So that a line leaves with its end, and not with the first byte of the next one.
                Step::On(state) if matches!(byte, b'\r' | b'\n') && rule.has_matched(state) => {
                    open.matched = Some(at + 1);
                    return Fate::Settled;
                }
                Step::On(state) => open.place = Place::Rule(state),
                Step::Matched(state) => {
                    open.matched = Some(at);
                    if rule.is_last(state) {
                        return Fate::Settled;
                    }
                    open.place = Place::Rule(state);
                }
                Step::Over => return Fate::Settled,
            }
        }
        (Machine::Form { form, .. }, Place::Form(next)) => {
            let form = by.forms.get(form).map(|form| form.bytes.as_slice()).unwrap_or_default();
            if form.get(next) == Some(&byte) {
                open.place = Place::Form(next + 1);
                if next + 1 == form.len() {
                    open.matched = Some(at + 1);
                    return Fate::Settled;
                }
            } else if form.len() < FOLDED || !matches!(byte, b'\r' | b'\n') {
                return Fate::Settled;
            }
        }
        (Machine::Rule(_), Place::Form(_)) | (Machine::Form { .. }, Place::Rule(_)) => return Fate::Settled,
    }
    if at + 1 - open.begin.at >= WINDOW { Fate::Full } else { Fate::Open }
}

/// Two candidates of one rule at one place see the same bytes and do the same from there on: one of them is enough, or a text
/// that repeats a keyword would cost its square.
fn merge(open: &mut Vec<Open>) {
    if open.len() < 2 {
        return;
    }
    open.sort_by_key(|one| (key(one), one.begin.at));
    open.dedup_by(|later, earlier| {
        let same = matches!(earlier.place, Place::Rule(_)) && key(later) == key(earlier);
        if same {
            earlier.absorbed.insert(later.begin);
            earlier.absorbed.extend(std::mem::take(&mut later.absorbed));
        }
        same
    });
}

fn key(open: &Open) -> (usize, usize, Option<usize>) {
    match (open.machine, open.place) {
        (Machine::Rule(rule), Place::Rule(state)) => (rule, state.as_usize(), open.matched),
        (Machine::Form { form, .. }, Place::Form(next)) => (usize::MAX - form, next, open.matched),
        (Machine::Rule(_), Place::Form(_)) | (Machine::Form { .. }, Place::Rule(_)) => (usize::MAX, 0, open.matched),
    }
}
