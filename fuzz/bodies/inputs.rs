//! Hostile input and how long it is thrown: one second in the ordinary tests, `PROVARA_FUZZ_SECONDS` in a soak.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// Throws `inputs` at `body`, which panics where something is wrong. What is told then is the smallest input that does.
pub fn throw<T: Debug>(inputs: &impl Strategy<Value = T>, body: impl Fn(T)) {
    let seconds = std::env::var("PROVARA_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let end = Instant::now() + Duration::from_secs(seconds);
    let config = Config { cases: 16, failure_persistence: None, ..Config::default() };
    loop {
        let ran = TestRunner::new(config.clone()).run(inputs, |input| {
            body(input);
            Ok::<(), TestCaseError>(())
        });
        assert!(ran.is_ok(), "{}", ran.err().map(|failure| failure.to_string()).unwrap_or_default());
        if Instant::now() >= end {
            return;
        }
    }
}

/// Bytes that nobody meant, parts of `known` in any order, and `known` with a few bytes changed.
pub fn hostile(known: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let part = prop_oneof![
        4 => prop::sample::select(known).prop_map(|part| part.as_bytes().to_vec()),
        1 => "\\PC{0,8}".prop_map(String::into_bytes),
        1 => "[ -~\n\t\r\u{0}\u{7f}\u{9b}\u{202e}\u{200b}\u{e0100}äß“’—$`\"'(){}<>|&;\\\\#*]{0,12}".prop_map(String::into_bytes),
    ];
    let parts = prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat());
    let repeated =
        (prop::sample::select(known), 1..400_usize).prop_map(|(part, times)| part.repeat(times).into_bytes());
    prop_oneof![
        1 => bytes,
        4 => parts,
        1 => repeated,
        3 => mutated(prop::sample::select(known).prop_map(|text| text.as_bytes().to_vec())),
    ]
}

/// What `originals` gives, with one to four changes of a byte or a stretch of them.
pub fn mutated(originals: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..6_u8);
    (originals, prop::collection::vec(change, 1..5)).prop_map(|(mut bytes, changes)| {
        for (at, other, byte, kind) in changes {
            let (at, other) = (at.index(bytes.len() + 1), other.index(bytes.len() + 1));
            let (from, to) = (at.min(other), at.max(other));
            match kind {
                0 => bytes.insert(at, byte),
                1 => drop(bytes.drain(from..to)),
                2 => {
                    let copy = bytes.get(from..to).unwrap_or_default().to_vec();
                    bytes.splice(at..at, copy);
                }
                3 => bytes.truncate(at),
                _ => {
                    if let Some(known) = bytes.get_mut(at) {
                        *known ^= 1 << (byte % 8);
                    }
                }
            }
            bytes.truncate(100_000);
        }
        bytes
    })
}
