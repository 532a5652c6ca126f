//! The bodies of the fuzz targets, for a second each, and a reader that shares no code with us.
#![expect(unreachable_pub, reason = "the bodies are shared with the fuzz targets")]

#[path = "../../../../fuzz/bodies/evidence.rs"]
mod evidence;
#[path = "../../../../fuzz/bodies/inputs.rs"]
mod inputs;

use std::io::Write as _;
use std::process::{Command, Stdio};

use inputs::{hostile, mutated, throw};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use provara_audit::canonical;

#[test]
fn no_mutated_log_passes_a_kept_checkpoint() {
    throw(&prop_oneof![mutated(Just(evidence::exported())), hostile(evidence::WORDS)], |bytes| evidence::log(&bytes));
    evidence::log(&evidence::exported());
}

#[test]
fn no_mutated_note_or_key_is_believed() {
    let signed = prop_oneof![Just(evidence::kept().into_bytes()), Just(evidence::key().vkey().into_bytes())];
    throw(&prop_oneof![mutated(signed), hostile(evidence::WORDS)], |bytes| evidence::note(&bytes));
}

#[test]
fn an_id_is_spelled_in_one_way() {
    throw(&hostile(evidence::WORDS), |bytes| evidence::ids(&bytes));
}

#[test]
fn canonical_bytes_are_the_canonical_form_of_what_they_say() {
    throw(&evidence::json(), |value| evidence::canonical_json(&value));
}

#[test]
fn a_plans_digest_changes_with_whatever_is_shown_of_it() {
    throw(&evidence::plans(), |plan| evidence::plan(&plan));
}

/// RFC 8785 by hand: keys by their UTF-16, nothing between, only what must be escaped.
const PYTHON: &str = r#"
import json, sys
SHORT = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
def text(s):
    return '"' + "".join(SHORT.get(ord(c)) or ("\\u%04x" % ord(c) if ord(c) < 32 else c) for c in s) + '"'
def form(v):
    if isinstance(v, dict):
        return "{" + ",".join(text(k) + ":" + form(v[k]) for k in sorted(v, key=lambda k: k.encode("utf-16-be"))) + "}"
    if isinstance(v, list):
        return "[" + ",".join(map(form, v)) + "]"
    if isinstance(v, str):
        return text(v)
    if isinstance(v, float):
        return repr(int(v)) if v.is_integer() else repr(v)
    return json.dumps(v)
for line in sys.stdin.buffer:
    sys.stdout.buffer.write((form(json.loads(line)) + "\n").encode())
"#;

#[test]
fn a_reader_that_shares_no_code_with_us_finds_the_same_canonical_bytes() {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "python3 is missing, and in CI nothing is skipped");
        eprintln!("SKIPPED: python3 is not installed, so canonical forms were not checked independently");
        return;
    }
    let mut runner = TestRunner::new(proptest::test_runner::Config { failure_persistence: None, ..Default::default() });
    let mut values: Vec<serde_json::Value> =
        (0..500).map(|_| evidence::json().new_tree(&mut runner).unwrap().current()).collect();
    let plans = (0..200).map(|_| canonical::plan(&evidence::plans().new_tree(&mut runner).unwrap().current()));
    values.extend(plans.map(|bytes| serde_json::from_slice(&bytes).unwrap()));
    let mut python =
        Command::new("python3").args(["-c", PYTHON]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut asked = python.stdin.take().unwrap();
    let lines: Vec<u8> = values.iter().flat_map(|value| format!("{value}\n").into_bytes()).collect();
    let writer = std::thread::spawn(move || asked.write_all(&lines).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    let theirs: Vec<&[u8]> = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(theirs.len(), values.len());
    for (value, theirs) in values.iter().zip(theirs) {
        let ours = canonical::to_bytes(value).unwrap();
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(theirs));
    }
}
