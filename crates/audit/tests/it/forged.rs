//! An exported log in the hands of somebody who wants it to say something else.

use std::io::{self, BufReader, Read};

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use provara_audit::checkpoint::{CheckpointError, LogKey, VerifierKey};
use provara_audit::export;
use provara_audit::merkle::{Frontier, leaf_hash};
use provara_audit::verify::{Problem, Report, verify};

fn key() -> LogKey {
    LogKey::from_seed("example.org/log", [7; 32]).unwrap()
}

fn verifier() -> VerifierKey {
    VerifierKey::parse(&key().vkey()).unwrap()
}

fn leaf(n: u64) -> String {
    format!(
        r#"{{"actor":{{"kind":"system"}},"body":{{}},"event_id":"{n:032x}","plan":"p{}","plan_rev":{},"ts":{n},"type":"plan.expired","v":1}}"#,
        n % 3,
        n / 3 + 1
    )
}

fn lines(count: u64) -> Vec<String> {
    (0..count).map(|n| export::line(n, leaf(n).as_bytes()) + "\n").collect()
}

fn signed_by(key: &LogKey, size: u64) -> String {
    let mut tree = Frontier::default();
    (0..size).for_each(|n| tree.push(leaf_hash(leaf(n).as_bytes())));
    key.sign(size, &tree.root())
}

fn check(log: &[u8], notes: &[String]) -> Report {
    verify(log, Some(&verifier()), notes).unwrap()
}

/// What is found in the whole log of twelve entries after `change`.
fn found(change: impl FnOnce(&mut Vec<String>)) -> Vec<Problem> {
    let mut all = lines(12);
    change(&mut all);
    check(all.concat().as_bytes(), &[signed_by(&key(), 12)]).problems
}

#[test]
fn every_flipped_byte_is_found_and_no_later_entry_is_blamed() {
    // Each byte with one bit of eight, chosen by a seed that a failure names.
    let seed: [u8; 32] =
        std::array::from_fn(|n| u8::try_from(n).unwrap().wrapping_add(std::process::id().to_le_bytes()[n % 4]));
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let (whole, note) = (lines(5).concat().into_bytes(), [signed_by(&key(), 5)]);
    assert_eq!(check(&whole, &note).problems, []);
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 1 << (random.next_u32() % 8);
        let report = check(&bent, &note);
        let touched = u64::try_from(whole[..at].iter().filter(|byte| **byte == b'\n').count()).unwrap();
        let first = report.problems.first();
        assert!(first.is_some(), "byte {at} (seed {seed:?}) went unnoticed");
        let named = match first.unwrap() {
            Problem::NotAnEntry { line, .. } | Problem::OutOfOrder { line, .. } => *line - 1,
            Problem::History { position, .. } => *position,
            // Of a well-formed change only the root tells; the entries before the last fitting checkpoint are cleared.
            Problem::Rewritten { good_until, .. } => *good_until,
            Problem::TailCut { found, .. } => *found,
            Problem::BadCheckpoint { .. } => u64::MAX,
        };
        // A plan's renamed entry shows in that plan's next one; all else shows where it is or before.
        let late = matches!(first, Some(Problem::History { .. }));
        assert!(named <= touched || late, "byte {at} of entry {touched} (seed {seed:?}) was put down to {named}");
    }
}

#[test]
fn with_checkpoints_of_every_size_the_changed_entry_itself_is_named() {
    let notes: Vec<String> = (1..=12).map(|size| signed_by(&key(), size)).collect();
    for n in 0..12 {
        let mut all = lines(12);
        all[n] = all[n].replacen("plan.expired", "plan.expirec", 1);
        let n = u64::try_from(n).unwrap();
        let expected = Problem::Rewritten { size: n + 1, good_until: n };
        assert_eq!(check(all.concat().as_bytes(), &notes).problems, [expected]);
    }
}

#[test]
fn cut_doubled_moved_and_added_lines_are_named() {
    let order = |line, expected, found| vec![Problem::OutOfOrder { line, expected, found }];
    assert_eq!(found(|all| drop(all.remove(0))), order(1, 0, 1));
    assert_eq!(found(|all| drop(all.remove(5))), order(6, 5, 6));
    assert_eq!(found(|all| all.insert(5, lines(12)[5].clone())), order(7, 6, 5));
    assert_eq!(found(|all| all.swap(3, 4)), order(4, 3, 4));
    assert_eq!(found(|all| all.insert(7, lines(1)[0].clone())), order(8, 7, 0));
    assert_eq!(found(|all| all.truncate(9)), [Problem::TailCut { signed: 12, found: 9 }]);
    assert_eq!(found(Vec::clear), [Problem::TailCut { signed: 12, found: 0 }]);
    // More than was signed is no fault; that nothing speaks for it is reported.
    let report = check(lines(12).concat().as_bytes(), &[signed_by(&key(), 9)]);
    assert_eq!((report.entries, report.checked_until, report.problems), (12, Some(9), vec![]));
}

#[test]
fn lines_that_another_reader_could_read_otherwise_are_refused() {
    let not = |line, why| vec![Problem::NotAnEntry { line, why }];
    let form = "it has not the form of an entry";
    let canonical = "its leaf is not in canonical form";
    let mut text = lines(3);
    text[1] = text[1].replace('\n', "\r\n");
    // JSON takes a carriage return for a blank, so the line is an entry still; a reader that splits by CRLF sees the same.
    assert_eq!(check(text.concat().as_bytes(), &[]).problems, []);
    let bent = |line: String| {
        let mut all = lines(3);
        all[1] = line;
        check(all.concat().as_bytes(), &[]).problems
    };
    let good = lines(3)[1].clone();
    assert_eq!(check(format!("\u{feff}{}", lines(3).concat()).as_bytes(), &[]).problems, not(1, form));
    assert_eq!(bent("\n".to_owned()), not(2, form));
    assert_eq!(bent(good.replacen("{\"position\":1,", "{\"position\":1,\"position\":1,", 1)), not(2, form));
    assert_eq!(bent(good.replacen("{\"position\":1,", "{\"position\":1,\"more\":1,", 1)), not(2, form));
    assert_eq!(bent(good.replacen("\"position\":1", "\"position\":1.0", 1)), not(2, form));
    assert_eq!(bent(good.replacen("\"position\":1", "\"position\":-1", 1)), not(2, form));
    assert_eq!(bent(good.replacen(r#"\"v\":1"#, r#"\"v\":1,\"v\":1"#, 1)), not(2, canonical));
    assert_eq!(bent(good.replacen(r#"\"v\":1"#, r#"\"v\":2,\"v\":1"#, 1)), not(2, canonical));
    assert_eq!(bent(good.replacen(r#"\"v\":1"#, r#" \"v\":1"#, 1)), not(2, canonical));
    assert_eq!(bent(good.replacen(r#"\"v\":1"#, r#"\"v\":1.0"#, 1)), not(2, canonical));
    assert_eq!(bent(good.replacen(r#"\"ts\":1"#, r#"\"ts\":1e0"#, 1)), not(2, canonical));
    assert_eq!(bent(good.replacen("plan.expired", "plan.expire\\\\u0064", 1)), not(2, canonical));
    let two = format!("{}{}", good.trim_end(), good);
    assert_eq!(bent(two), not(2, form));
    let deep = export::line(1, format!("{}{}", "[".repeat(5000), "]".repeat(5000)).as_bytes()) + "\n";
    assert_eq!(bent(deep), not(2, "its leaf is no JSON"));
}

#[test]
fn checkpoints_of_another_log_and_of_another_past_are_told_apart() {
    let all = lines(12).concat();
    let other_log = LogKey::from_seed("example.org/other", [7; 32]).unwrap();
    let missing = CheckpointError::Signature("example.org/log".to_owned());
    let report = check(all.as_bytes(), &[signed_by(&other_log, 12), signed_by(&key(), 12)]);
    assert_eq!(report.problems, [Problem::BadCheckpoint { number: 1, why: missing }]);
    assert_eq!(report.checked_until, Some(12));
    let olds: Vec<String> = [0, 1, 5].map(|size| signed_by(&key(), size)).to_vec();
    let report = check(all.as_bytes(), &olds);
    assert_eq!((report.problems, report.checked_until), (vec![], Some(5)));
    let another_past = key().sign(5, &leaf_hash(b"other"));
    let report = check(all.as_bytes(), &[another_past, signed_by(&key(), 3)]);
    assert_eq!(report.problems, [Problem::Rewritten { size: 5, good_until: 3 }]);
}

/// A line that never ends, and a count of what was taken of it.
struct Endless(u64);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0 += u64::try_from(buffer.len()).unwrap();
        buffer.fill(b'a');
        Ok(buffer.len())
    }
}

#[test]
fn a_line_without_an_end_is_left_after_a_bounded_part() {
    let mut endless = Endless(0);
    let report = verify(BufReader::new(&mut endless), None, &[]).unwrap();
    assert_eq!(report.problems, [Problem::NotAnEntry { line: 1, why: "it is too long" }]);
    assert!(endless.0 <= 2 * u64::try_from(export::MAX_LINE).unwrap(), "{} bytes were read", endless.0);
}
