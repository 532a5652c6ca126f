//! Checking exported entries against checkpoints that somebody kept. Works from bytes alone. Of the tree only O(log n)
//! hashes are held; of each plan, one number, to check that its history has no hole.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Read as _};

use serde_json::Value;

use crate::checkpoint::{self, Checkpoint, VerifierKey};
use crate::export::{Line, MAX_LINE};
use crate::merkle::{Frontier, Hash, leaf_hash};

/// What was found wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A line is not an entry in canonical form.
    #[error("line {line} is not an entry: {why}")]
    NotAnEntry {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry is not where it says it is: one was removed, added or moved.
    #[error("line {line} holds entry {found} where entry {expected} belongs: one was removed, added or moved")]
    OutOfOrder {
        /// The line, from 1.
        line: u64,
        /// The position that belongs there.
        expected: u64,
        /// The position that it states.
        found: u64,
    },
    /// A plan's entries are not its history in order.
    #[error("entry {position} states change {found} of plan {plan} where change {expected} belongs")]
    History {
        /// The entry.
        position: u64,
        /// The plan.
        plan: String,
        /// The change that belongs there.
        expected: u64,
        /// The change that it states.
        found: u64,
    },
    /// A checkpoint was not signed by the log's key.
    #[error("checkpoint {number} cannot be used: {why}")]
    BadCheckpoint {
        /// Which of those given, from 1.
        number: usize,
        /// Why.
        why: checkpoint::CheckpointError,
    },
    /// A checkpoint covers more entries than there are: the tail was cut.
    #[error("the tail was cut: a checkpoint covers {signed} entries, and only {found} are here")]
    TailCut {
        /// How many the checkpoint covers.
        signed: u64,
        /// How many there are.
        found: u64,
    },
    /// The entries are not those that the checkpoint was signed over.
    #[error(
        "the first {size} entries are not those of the checkpoint: entries after {good_until} were changed or rewritten"
    )]
    Rewritten {
        /// How many the checkpoint covers.
        size: u64,
        /// The largest size at which a checkpoint still fitted.
        good_until: u64,
    },
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many entries were read before the first bad one, or in all.
    pub entries: u64,
    /// The root over them.
    pub root: Hash,
    /// The largest checkpoint that fitted, in entries. Nothing speaks for what lies behind it.
    pub checked_until: Option<u64>,
    /// What is wrong, in the order of the log. Empty means that all holds.
    pub problems: Vec<Problem>,
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The entries could not be read.
    #[error("the entries could not be read")]
    Read(#[source] io::Error),
}

/// Checks exported `lines` against `checkpoints` signed by `key`, and each plan's history against itself.
///
/// Without a key no checkpoint is believed; then only the form, the order and the root are reported.
///
/// # Errors
/// When the lines cannot be read. What is wrong *with* them is in the report.
pub fn verify(lines: impl BufRead, key: Option<&VerifierKey>, checkpoints: &[String]) -> Result<Report, VerifyError> {
    let mut bad_checkpoints = Vec::new();
    let mut expected = signed_roots(key, checkpoints, &mut bad_checkpoints);
    // Kept apart: a checkpoint that nobody can use must not hide what the others show.
    let mut problems = Vec::new();
    let mut tree = Frontier::default();
    let mut checked_until = None;
    let mut histories = Histories::default();

    let mut settle = |tree: &Frontier, problems: &mut Vec<Problem>| {
        for root in expected.remove(&tree.size()).unwrap_or_default() {
            if root == tree.root() {
                checked_until = Some(tree.size());
            } else {
                let good_until = checked_until.unwrap_or(0);
                problems.push(Problem::Rewritten { size: tree.size(), good_until });
            }
        }
    };

    settle(&tree, &mut problems);
    let mut reader = LineReader { lines, number: 0 };
    while let Some(read) = reader.next_line().map_err(VerifyError::Read)? {
        let entry = read.and_then(|raw| entry_of(&raw, reader.number));
        let entry = match entry {
            Ok(entry) if entry.position == tree.size() => entry,
            Ok(entry) => {
                let (line, expected) = (reader.number, tree.size());
                problems.push(Problem::OutOfOrder { line, expected, found: entry.position });
                break;
            }
            Err(problem) => {
                problems.push(problem);
                break;
            }
        };
        tree.push(leaf_hash(entry.leaf.as_bytes()));
        problems.extend(histories.follow(&entry));
        settle(&tree, &mut problems);
        if !problems.is_empty() {
            break;
        }
    }
    // The largest tells most, and one sentence is enough.
    if let Some((&signed, _)) = expected.last_key_value()
        && problems.is_empty()
    {
        problems.push(Problem::TailCut { signed, found: tree.size() });
    }
    bad_checkpoints.append(&mut problems);
    Ok(Report { entries: tree.size(), root: tree.root(), checked_until, problems: bad_checkpoints })
}

/// The roots to expect, by size. Two checkpoints of one size with different roots are both kept: one of them will not fit.
fn signed_roots(
    key: Option<&VerifierKey>,
    checkpoints: &[String],
    problems: &mut Vec<Problem>,
) -> BTreeMap<u64, Vec<Hash>> {
    let mut expected: BTreeMap<u64, Vec<Hash>> = BTreeMap::new();
    let Some(key) = key else { return expected };
    for (index, note) in checkpoints.iter().enumerate() {
        match checkpoint::open(note, key) {
            Ok(Checkpoint { size, root, .. }) => expected.entry(size).or_default().push(root),
            Err(why) => problems.push(Problem::BadCheckpoint { number: index + 1, why }),
        }
    }
    expected
}

fn entry_of(raw: &[u8], line: u64) -> Result<Line, Problem> {
    let bad = |why| Problem::NotAnEntry { line, why };
    let entry: Line = serde_json::from_slice(raw).map_err(|_| bad("it has not the form of an entry"))?;
    let leaf: Value = serde_json::from_str(&entry.leaf).map_err(|_| bad("its leaf is no JSON"))?;
    let canonical = serde_json_canonicalizer::to_vec(&leaf).map_err(|_| bad("its leaf has no canonical form"))?;
    if canonical != entry.leaf.as_bytes() {
        return Err(bad("its leaf is not in canonical form"));
    }
    Ok(entry)
}

/// How far each plan's history has come: one number a plan, which is small enough to check a log of millions.
#[derive(Default)]
struct Histories(HashMap<String, u64>);

impl Histories {
    fn follow(&mut self, entry: &Line) -> Option<Problem> {
        let leaf: Value = serde_json::from_str(&entry.leaf).ok()?;
        let plan = leaf.get("plan")?.as_str()?;
        let found = leaf.get("plan_rev").and_then(Value::as_u64).unwrap_or(0);
        let last = self.0.entry(plan.to_owned()).or_insert(0);
        *last += 1;
        (found != *last).then(|| Problem::History {
            position: entry.position,
            plan: plan.to_owned(),
            expected: *last,
            found,
        })
    }
}

/// Reads lines of bounded length: a hostile file must not fill the memory.
struct LineReader<R> {
    lines: R,
    number: u64,
}

impl<R: BufRead> LineReader<R> {
    fn next_line(&mut self) -> io::Result<Option<Result<Vec<u8>, Problem>>> {
        let mut line = Vec::new();
        let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        let read = (&mut self.lines).take(most).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
            return Ok(Some(Ok(line)));
        }
        let why = if read == MAX_LINE { "it is too long" } else { "it is torn: it ends without a line feed" };
        Ok(Some(Err(Problem::NotAnEntry { line: self.number, why })))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::LogKey;
    use crate::export::line;

    fn key() -> LogKey {
        LogKey::from_seed("example.org/log", [7; 32]).unwrap()
    }

    fn verifier() -> VerifierKey {
        VerifierKey::parse(&key().vkey()).unwrap()
    }

    fn leaf(plan: u64, rev: u64) -> String {
        format!(r#"{{"plan":"p{plan}","plan_rev":{rev},"v":1}}"#)
    }

    /// Three plans, each with changes in order, interleaved.
    fn leaves(count: u64) -> Vec<String> {
        (0..count).map(|n| leaf(n % 3, n / 3 + 1)).collect()
    }

    fn export(leaves: &[String]) -> String {
        leaves.iter().zip(0..).map(|(leaf, n)| line(n, leaf.as_bytes()) + "\n").collect()
    }

    fn signed(leaves: &[String]) -> String {
        let mut tree = Frontier::default();
        leaves.iter().for_each(|leaf| tree.push(leaf_hash(leaf.as_bytes())));
        key().sign(tree.size(), &tree.root())
    }

    fn check(export: &str, checkpoints: &[String]) -> Report {
        verify(export.as_bytes(), Some(&verifier()), checkpoints).unwrap()
    }

    #[test]
    fn an_untouched_log_holds() {
        let all = leaves(20);
        let report = check(&export(&all), &[signed(&all[..7]), signed(&all)]);
        assert_eq!((report.entries, report.checked_until, report.problems), (20, Some(20), vec![]));
    }

    #[test]
    fn a_cut_tail_is_told_from_a_rewritten_log() {
        let all = leaves(20);
        let cut = check(&export(&all[..15]), &[signed(&all)]);
        assert_eq!(cut.problems, [Problem::TailCut { signed: 20, found: 15 }]);
        let mut other = all.clone();
        other[17] = leaf(9, 1);
        let rewritten = check(&export(&other), &[signed(&all[..10]), signed(&all)]);
        assert_eq!(rewritten.problems, [Problem::Rewritten { size: 20, good_until: 10 }]);
        // Without a checkpoint that somebody kept, a cut tail cannot be shown. That is why they are sent away.
        assert_eq!(check(&export(&all[..15]), &[]).problems, []);
    }

    #[test]
    fn a_removed_added_or_moved_entry_is_named() {
        let all = export(&leaves(9));
        let lines: Vec<_> = all.lines().collect();
        let without = |n: usize| {
            lines.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, l)| format!("{l}\n")).collect::<String>()
        };
        assert_eq!(check(&without(4), &[]).problems, [Problem::OutOfOrder { line: 5, expected: 4, found: 5 }]);
        let mut swapped = lines.clone();
        swapped.swap(2, 3);
        let swapped = swapped.join("\n") + "\n";
        assert_eq!(check(&swapped, &[]).problems, [Problem::OutOfOrder { line: 3, expected: 2, found: 3 }]);
        let doubled = format!("{all}{}\n", lines[0]);
        assert_eq!(check(&doubled, &[]).problems, [Problem::OutOfOrder { line: 10, expected: 9, found: 0 }]);
    }

    #[test]
    fn a_renumbered_removal_breaks_the_plans_history() {
        let mut all = leaves(9);
        all.remove(4);
        let problems = check(&export(&all), &[]).problems;
        assert_eq!(problems, [Problem::History { position: 6, plan: "p1".into(), expected: 2, found: 3 }]);
    }

    #[test]
    fn a_torn_last_line_is_named() {
        let all = export(&leaves(3));
        let problems = check(all.get(..all.len() - 5).unwrap(), &[]).problems;
        assert_eq!(problems, [Problem::NotAnEntry { line: 3, why: "it is torn: it ends without a line feed" }]);
    }

    #[test]
    fn a_checkpoint_of_another_key_is_not_believed() {
        let all = leaves(3);
        let other = LogKey::from_seed("example.org/log", [9; 32]).unwrap();
        let report = check(&export(&all), &[other.sign(3, &leaf_hash(b"x"))]);
        let why = checkpoint::CheckpointError::Signature("example.org/log".into());
        assert_eq!(report.problems, [Problem::BadCheckpoint { number: 1, why: why.clone() }]);
        // And it hides nothing that the others show.
        let report = check(&export(&all[..2]), &[other.sign(3, &leaf_hash(b"x")), signed(&all)]);
        let cut = Problem::TailCut { signed: 3, found: 2 };
        assert_eq!(report.problems, [Problem::BadCheckpoint { number: 1, why }, cut]);
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(count in 1u64..30, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let all = leaves(count);
            let mut bytes = export(&all).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let report = verify(&bytes[..], Some(&verifier()), &[signed(&all)]).unwrap();
            prop_assert!(!report.problems.is_empty(), "a change of byte {at} went unnoticed");
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            prop_assert!(!verify(&bytes[..], None, &[]).unwrap().problems.is_empty());
        }
    }
}
