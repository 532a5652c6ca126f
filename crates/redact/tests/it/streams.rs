//! What comes in pieces is what came whole, and no secret survives being cut.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;
use provara_redact::{Literal, Redactor, Rules, Stream, WINDOW};

use crate::{REDACTOR, TOKEN, shown, streamed, whole};

/// Secrets of every shape, each with what has to be gone.
fn secrets() -> Vec<(String, String)> {
    let letters = |n: usize| "Q7zR2mK9xW4vT8bN5cJ1".chars().cycle().take(n).collect::<String>();
    let own = |text: String| (text.clone(), text);
    vec![
        own(format!("AKIA{}", "Q7ZR2MK4XW4VT3BN5CJ2".get(..16).unwrap())),
        own(format!("ghp_{}", letters(36))),
        own(format!("xoxb-123456789012-{}", letters(24))),
        own(format!("pv_agent_{}", letters(49))),
        own(format!("eyJ{}.eyJ{}.{}", letters(20), letters(900), letters(43))),
        own(TOKEN.to_owned()),
        own(STANDARD.encode(TOKEN)),
        (format!("password = \"{}\"", letters(12)), letters(12)),
        (format!("postgres://app:{}@db", letters(9)), letters(9)),
        (format!("-----BEGIN RSA PRIVATE KEY-----\n{0}\n{0}\n-----END RSA PRIVATE KEY-----", letters(64)), letters(64)),
    ]
}

/// What may stand around a secret, and what almost is one.
const AROUND: &[&str] = &[
    " ",
    "\n",
    "x",
    "é",
    "\u{0}",
    "AKIA",
    "ghp_",
    "pv_agent_",
    "eyJ",
    ".eyJ",
    "-",
    "_",
    "=",
    "token",
    "password",
    ": ",
    " = ",
    "://",
    ":",
    "@",
    "\"",
    "'",
    "-----BEGIN",
    " PRIVATE KEY-----",
    "An-Agents_",
    "An-Agents_token.that/is~known+to=u",
    "secret",
    "sk-",
    "a1b2c3d4e5f6",
    "\r\n",
    "Authorization: Bearer ",
    "http://user:",
    "[redacted:x]",
];

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let secrets: Vec<String> = secrets().into_iter().map(|(text, _)| text).collect();
    let part = prop_oneof![
        4 => prop::sample::select(AROUND).prop_map(|part| part.as_bytes().to_vec()),
        2 => prop::sample::select(secrets).prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

fn cut<'a>(text: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces, mut sizes) = (text, Vec::new(), sizes.iter().cycle());
    while !rest.is_empty() {
        let (now, later) = rest.split_at((*sizes.next().unwrap_or(&1)).clamp(1, rest.len()));
        pieces.push(now);
        rest = later;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_a_text_is_cut_the_result_is_the_same(text in texts(), sizes in prop::collection::vec(1..40_usize, 1..12)) {
        let expected = whole(&text);
        prop_assert_eq!(&streamed(cut(&text, &sizes)), &expected);
        prop_assert_eq!(&streamed(text.chunks(1)), &expected);
        if let Ok(text) = std::str::from_utf8(&text) {
            let redacted = REDACTOR.redact_text(text);
            prop_assert_eq!(u64::try_from(redacted.found.len()).unwrap(), expected.1);
            for finding in &redacted.found {
                prop_assert!(text.get(finding.range.clone()).is_some_and(|secret| !secret.is_empty()), "{finding:?}");
            }
        }
    }

    #[test]
    fn no_planted_secret_survives(
        before in prop::collection::vec(prop::sample::select(&["", " ", "\n", "log: ", "é ", "\u{fffd}\t", "x=y;"]), 1),
        nth in 0..10_usize,
        size in 1..70_usize,
    ) {
        let (planted, secret) = secrets().swap_remove(nth);
        let text = format!("{}{planted}\nand on", before.concat());
        let (out, redactions) = streamed(cut(text.as_bytes(), &[size]));
        let out = String::from_utf8(out).unwrap();
        prop_assert!(!out.contains(&secret), "{out}");
        prop_assert!(redactions >= 1 && out.ends_with("and on"), "{redactions} in {out}");
    }
}

#[test]
fn what_is_left_around_a_secret_is_to_the_byte_what_came() {
    assert_eq!(shown(&format!("a{}b {TOKEN} c", "x")), "axb [redacted:agent-token] c");
    assert_eq!(shown("db: postgres://app:s3cr3tpw@db/x\n"), "db: postgres://app:[redacted:url-password]@db/x\n");
    assert_eq!(shown("{\"password\": \"tr0ub4dor\"}"), "{\"password\": \"[redacted:quoted-password]\"}");
    assert_eq!(
        shown(r#"{"message":"{\"password\":\"tr0ub4dor\"}"}"#),
        r#"{"message":"{\"password\":\"[redacted:quoted-password]\"}"}"#
    );
    let (out, redactions) = whole(&[b"\xff\xfe ", TOKEN.as_bytes(), b"\x80\n"].concat());
    assert_eq!((out.as_slice(), redactions), (b"\xff\xfe [redacted:agent-token]\x80\n".as_slice(), 1));
}

#[test]
fn overlapping_findings_are_one_mark_and_one_count() {
    let token = format!("ghp_{}", "Q7zR2mK9xW4vT8bN5cJ1".repeat(2).get(..36).unwrap());
    let found = REDACTOR.redact_text(&format!("https://x-access-token:{token}@example.org token={token}"));
    let expected = "https://x-access-token:[redacted:github-token]@example.org token=[redacted:github-token]";
    assert!(
        found.text == expected || found.text == expected.replace("github-token", "generic-secret"),
        "{}",
        found.text
    );
    assert_eq!(found.found.len(), 2);
}

#[test]
fn known_secrets_are_found_as_they_are_usually_written() {
    let wrapped = |text: &str, width: usize| {
        let lines: Vec<&str> = text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
        lines.join("\n")
    };
    let percent: String = TOKEN
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect();
    let hex: String = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect();
    let long = STANDARD.encode(format!("some text before {TOKEN} and some after, so that it is folded"));
    for form in [
        STANDARD.encode(TOKEN),
        URL_SAFE.encode(format!("user:{TOKEN}")),
        STANDARD.encode(format!("x{TOKEN}\n")),
        percent,
        hex,
        wrapped(TOKEN, 20),
        wrapped(&long, 20),
        wrapped(&long, 76),
        wrapped(&STANDARD.encode(TOKEN), 76),
    ] {
        let text = format!("it is <{form}>\n");
        let (out, redactions) = streamed(text.as_bytes().chunks(1));
        assert_eq!(redactions, 1, "{form} became {}", String::from_utf8_lossy(&out));
        assert!(shown(&text).contains("[redacted:agent-token]"), "{form}");
    }
}

/// What nobody promised: the secret written backwards, or a character a line, is not found. docs/secrets.md says so.
#[test]
fn a_secret_that_was_changed_on_purpose_is_not_found() {
    let reversed: String = TOKEN.chars().rev().collect();
    let apart: String = TOKEN.chars().flat_map(|c| [c, '\n']).collect();
    for text in [reversed, apart] {
        assert_eq!(whole(text.as_bytes()), (text.clone().into_bytes(), 0));
    }
}

/// Pushes byte by byte and returns what has come out.
fn seen_so_far(text: &str) -> String {
    let (mut stream, mut out) = (Stream::new(Arc::clone(&REDACTOR)), Vec::new());
    text.as_bytes().chunks(1).for_each(|byte| stream.push(byte, &mut out));
    String::from_utf8(out).unwrap()
}

#[test]
fn a_follower_sees_all_but_what_may_begin_a_secret() {
    for whole in
        ["working… 12%\r", "Do you want to continue? [Y/n] ", "line\n", "done: ghp_short\n", "key.pem: no such file\n"]
    {
        assert_eq!(seen_so_far(whole), whole);
    }
    // A prompt: what stands after the keyword may be the secret, the keyword is not.
    assert_eq!(seen_so_far("Password: "), "Password");
    assert_eq!(seen_so_far("Password: \n"), "Password: \n");
    // A line with a secret leaves with its end.
    let text = format!("got {TOKEN}\n");
    assert_eq!(seen_so_far(&text), "got [redacted:agent-token]\n");
    assert_eq!(seen_so_far("got An-Agents_tok"), "got ");
    assert_eq!(seen_so_far("a password=hunter2hunter2\n"), "a password=[redacted:bare-password]\n");
}

#[test]
fn no_more_than_the_window_is_ever_kept() {
    // A key that never ends, and keys that begin within keys.
    for text in [format!("-----BEGIN PRIVATE KEY-----\n{}", "QUJD".repeat(20)), "BEGINaaaaBEGINEND".to_owned()] {
        let rules = "[[rules]]\nid = \"long\"\nregex = 'BEGIN[a-zA-Z]*'\nkeywords = [\"begin\"]\n[rules.examples]\nmatch = [\"BEGINa\"]\nno_match = [\"b\"]\n";
        let rules = Rules::builtin().unwrap().and(Rules::parse(rules).unwrap());
        let mut stream = Stream::new(Arc::new(Redactor::new(Arc::new(rules), &[]).unwrap()));
        let mut out = Vec::new();
        for _ in 0..2000 {
            for piece in text.as_bytes().chunks(61) {
                stream.push(piece, &mut out);
                assert!(stream.kept() <= 2 * WINDOW + 256, "{} bytes are kept", stream.kept());
            }
        }
    }
}

#[test]
fn a_secret_as_long_as_the_window_is_caught_across_any_border() {
    let rules = "[[rules]]\nid = \"long\"\nregex = 'BEGIN[a-z]*END'\nkeywords = [\"begin\"]\n[rules.examples]\nmatch = [\"BEGINaEND\"]\nno_match = [\"BEGIN END\"]\n";
    let redactor = Arc::new(Redactor::new(Arc::new(Rules::parse(rules).unwrap()), &[]).unwrap());
    for (length, expected) in [(WINDOW, 1), (WINDOW + 1, 0)] {
        let text = format!("x BEGIN{}END y", "a".repeat(length - 8));
        for size in [1, 1000, WINDOW, 100_000] {
            let (mut stream, mut out) = (Stream::new(Arc::clone(&redactor)), Vec::new());
            text.as_bytes().chunks(size).for_each(|piece| stream.push(piece, &mut out));
            assert_eq!(stream.finish(&mut out), expected, "{length} in pieces of {size}");
            assert_eq!(out == text.as_bytes(), expected == 0);
        }
    }
}

/// Each of these would cost its square if every keyword were followed on its own.
#[test]
fn a_text_that_repeats_keywords_costs_no_more_than_its_length() {
    for part in [
        "eyJ-",
        "-----BEGIN",
        "token",
        "password=",
        "://",
        "pv_a_",
        "AKIA ",
        "eyJaaaaaaaaaaaa.eyJ",
        "sk-",
        "An-Agents_",
    ] {
        let steps = std::time::Instant::now();
        let text = part.repeat(1_000_000 / part.len());
        whole(text.as_bytes());
        // Unoptimised, on a busy machine: the square would take hours.
        assert!(steps.elapsed().as_secs() < 60, "{part} took {:?}", steps.elapsed());
    }
}

#[test]
fn many_known_values_are_all_found() {
    let known: Vec<Literal> = (0..300).map(|nth| Literal::new("value", format!("value-number-{nth:04}"))).collect();
    let redactor = Redactor::new(Arc::new(Rules::default()), &known).unwrap();
    let text: Vec<String> = (0..300).map(|nth| format!("<value-number-{nth:04}>")).collect();
    assert_eq!(redactor.redact_text(&text.join(" ")).found.len(), 300);
}

/// The first beginning is the longest, and too long; one within it is not.
#[test]
fn a_secret_within_what_is_too_long_is_still_found() {
    let rules = "[[rules]]\nid = \"long\"\nregex = 'BEGIN[A-Za-z]*END'\nkeywords = [\"begin\"]\n[rules.examples]\nmatch = [\"BEGINaEND\"]\nno_match = [\"BEGIN END\"]\n";
    let redactor = Arc::new(Redactor::new(Arc::new(Rules::parse(rules).unwrap()), &[]).unwrap());
    let text = format!("BEGIN{}BEGINxxBEGINyyEND.", "a".repeat(WINDOW - 10));
    for size in [1, 77, 100_000] {
        let (mut stream, mut out) = (Stream::new(Arc::clone(&redactor)), Vec::new());
        text.as_bytes().chunks(size).for_each(|piece| stream.push(piece, &mut out));
        assert_eq!(stream.finish(&mut out), 1, "in pieces of {size}");
        let out = String::from_utf8(out).unwrap();
        assert!(out.ends_with("a[redacted:long]."), "{}", out.get(out.len() - 60..).unwrap());
    }
}
