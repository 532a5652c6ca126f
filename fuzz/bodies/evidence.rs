//! What must hold for every log, note, key, id and canonical form.

use std::collections::BTreeMap;

use proptest::prelude::*;
use provara_audit::canonical;
use provara_audit::checkpoint::{self, LogKey, VerifierKey};
use provara_audit::export::{Line, line};
use provara_audit::merkle::{Frontier, leaf_hash};
use provara_audit::verify::verify;
use provara_domain::{
    CommandText, Digest, EnvName, Name, Nonce, Plan, PlanId, PlanKind, ProfileName, RunId, Shell, Timeout, Timestamp,
    TokenId, WorkingDir,
};
use serde_json::Value;

/// The log that is cut, changed and forged.
pub const LEAVES: u64 = 9;

/// The key that signs it.
pub fn key() -> LogKey {
    LogKey::from_seed("example.org/log", [7; 32]).unwrap()
}

fn leaves() -> Vec<String> {
    let leaf = |n: u64| format!(r#"{{"body":{{"x":"\\"}},"plan":"p{}","plan_rev":{},"v":1}}"#, n % 3, n / 3 + 1);
    (0..LEAVES).map(leaf).collect()
}

/// The whole log as it is exported.
pub fn exported() -> Vec<u8> {
    leaves().iter().zip(0..).map(|(leaf, n)| line(n, leaf.as_bytes()) + "\n").collect::<String>().into_bytes()
}

/// The checkpoint that somebody kept.
pub fn kept() -> String {
    let mut tree = Frontier::default();
    leaves().iter().for_each(|leaf| tree.push(leaf_hash(leaf.as_bytes())));
    key().sign(tree.size(), &tree.root())
}

/// Whatever fits a kept checkpoint holds the entries that it was signed over; all else is told to be wrong.
pub fn log(bytes: &[u8]) {
    let verifier = VerifierKey::parse(&key().vkey()).unwrap();
    let report = verify(bytes, Some(&verifier), &[kept()]).unwrap();
    if report.problems.is_empty() {
        let told: Vec<String> = bytes
            .split(|byte| *byte == b'\n')
            .map_while(|raw| serde_json::from_slice::<Line>(raw).ok())
            .map(|entry| entry.leaf)
            .collect();
        assert_eq!(report.checked_until, Some(LEAVES), "what nobody checked is called right");
        assert_eq!(told.get(..leaves().len()), Some(leaves().as_slice()), "a changed log passes");
    }
    // Without a key nothing is believed, and nothing panics.
    let unsigned = verify(bytes, None, &[kept()]).unwrap();
    assert_eq!(unsigned.checked_until, None);
    assert_eq!(unsigned.problems.is_empty() && unsigned.entries == 0, bytes.is_empty());
}

/// A note is the one that was signed, or none; a key is the one that it spells, or none.
pub fn note(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let verifier = VerifierKey::parse(&key().vkey()).unwrap();
    let signed = checkpoint::open(&kept(), &verifier).unwrap();
    if let Ok(opened) = checkpoint::open(&text, &verifier) {
        assert_eq!(opened, signed, "a forged note was believed");
    }
    if let Ok(known) = VerifierKey::parse(&text) {
        assert_eq!(known, verifier, "{text:?} spells a key");
    }
    if let Ok(other) = LogKey::from_seed(&text, [7; 32]) {
        let root = leaf_hash(b"x");
        let opened = checkpoint::open(&other.sign(5, &root), &VerifierKey::parse(&other.vkey()).unwrap()).unwrap();
        assert_eq!((opened.origin.as_str(), opened.size, opened.root), (text.as_ref(), 5, root));
    }
}

/// What is an id, a name or a digest is spelled in one way.
pub fn ids(bytes: &[u8]) {
    let raw = String::from_utf8_lossy(bytes).into_owned();
    let plain = |spelled: &str| {
        assert!(spelled == raw && spelled.is_ascii() && !spelled.contains(['/', '\\', ' ', '\0', '\n', '%']), "{raw:?}")
    };
    PlanId::parse(&raw).iter().for_each(|it| plain(it.as_str()));
    RunId::parse(&raw).iter().for_each(|it| plain(it.as_str()));
    TokenId::parse(&raw).iter().for_each(|it| plain(it.as_str()));
    Name::parse(&raw).iter().for_each(|it| plain(it.as_str()));
    EnvName::parse(raw.clone()).iter().for_each(|it| plain(it.as_str()));
    Digest::parse(&raw).iter().for_each(|it| plain(it.as_str()));
    Nonce::parse(&raw).iter().for_each(|it| plain(&it.to_string()));
    if let Ok(folder) = WorkingDir::parse(raw.clone()) {
        assert_eq!(folder.as_str(), raw);
        assert!(raw.starts_with('/') && !format!("{raw}/").contains("/../") && !raw.contains('\0'), "{raw:?}");
    }
    if let Ok(command) = CommandText::parse(raw.clone()) {
        assert_eq!(command.as_str(), raw);
    }
}

/// Any JSON that has a canonical form.
pub fn json() -> impl Strategy<Value = Value> {
    let text =
        || prop_oneof![".{0,12}", "[\u{0}-\u{1f}\"\\\\/\u{7f}-\u{9f}\u{2028}\u{d7ff}-\u{e010}\u{fff0}-\u{10010}]{0,6}"];
    // Numbers of the log: whole ones that every reader holds exactly, and milliseconds.
    let number = prop_oneof![
        (-9_007_199_254_740_991..=9_007_199_254_740_991_i64).prop_map(Value::from),
        (0..4_000_000_000_000_i64).prop_map(|millis| Value::from(Timestamp::from_millis(millis).unix_seconds())),
    ];
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number, text().prop_map(Value::from)];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Canonical bytes say what they were made of, and are the canonical form of what they say.
pub fn canonical_json(value: &Value) {
    let bytes = canonical::to_bytes(value).unwrap();
    let read: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(canonical::to_bytes(&read).unwrap(), bytes);
    assert_eq!(canonical::to_bytes(value).unwrap(), bytes);
}

/// A plan of any command, input and environment.
pub fn plans() -> impl Strategy<Value = Plan> {
    let command = "(?s).{1,40}".prop_filter_map("a command", |text| CommandText::parse(text).ok());
    let env = prop::collection::btree_map("[A-Z_a-z][A-Z_a-z0-9]{0,8}", "(?s).{0,8}", 0..4);
    let input = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    let place = "/[^/\u{0}]{1,9}".prop_filter_map("a folder", |text| WorkingDir::parse(text).ok());
    (command, env, input, place, prop::sample::select(&Shell::ALL[..]), 1..=3600_u32, any::<u64>(), any::<u128>())
        .prop_map(|(command, env, stdin, cwd, shell, seconds, entropy, nonce)| Plan {
            kind: PlanKind::Command,
            id: PlanId::new(Timestamp::from_millis(1_795_479_747_123), entropy),
            project: Name::default_project(),
            agent: Name::parse("robot").unwrap(),
            command,
            shell,
            cwd,
            env: env
                .into_iter()
                .map(|(name, value)| (EnvName::parse(name).unwrap(), value))
                .collect::<BTreeMap<_, _>>(),
            stdin,
            tty: false,
            timeout: Timeout::from_seconds(seconds).unwrap(),
            target: Name::local_target(),
            profile: ProfileName::workspace(),
            nonce: Nonce::new(nonce),
        })
}

/// A plan's digest changes with everything that an approver is shown.
pub fn plan(plan: &Plan) {
    let bytes = canonical::plan(plan);
    let read: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(canonical::to_bytes(&read).unwrap(), bytes);
    let digest = canonical::plan_digest(plan);
    let more = |text: &str| format!("{text} ");
    let mut others = vec![
        Plan { timeout: Timeout::from_seconds(plan.timeout.seconds() % 3600 + 1).unwrap(), ..plan.clone() },
        Plan { stdin: Some([plan.stdin.clone().unwrap_or_default(), vec![0]].concat()), ..plan.clone() },
        Plan { cwd: WorkingDir::parse(more(plan.cwd.as_str())).unwrap(), ..plan.clone() },
        Plan { env: plan.env.iter().map(|(name, value)| (name.clone(), more(value))).collect(), ..plan.clone() },
        Plan { tty: !plan.tty, ..plan.clone() },
    ];
    others.extend(CommandText::parse(more(plan.command.as_str())).map(|command| Plan { command, ..plan.clone() }));
    others.extend(Shell::ALL.map(|shell| Plan { shell, ..plan.clone() }));
    if plan.stdin.is_none() {
        others.push(Plan { stdin: Some(Vec::new()), ..plan.clone() });
    }
    for other in others.into_iter().filter(|other| other != plan) {
        assert_ne!(canonical::plan_digest(&other), digest, "{other:?} has the digest of {plan:?}");
        assert_ne!(canonical::plan_dedupe_digest(&other), canonical::plan_dedupe_digest(plan));
    }
}

/// What notes, keys, ids and lines are made of.
pub const WORDS: &[&str] = &[
    "example.org/log",
    "\n",
    "\n\n",
    "\u{2014} ",
    "9",
    "0",
    "09",
    "+",
    " ",
    "sha256:",
    "20261124_002227_",
    "00000000000000aa",
    "AAAA",
    "=",
    "{",
    "}",
    "{\"position\":",
    "0",
    ",\"leaf\":\"",
    "{\\\"v\\\":1}",
    "\"}\n",
    "{\"position\":0,\"leaf\":\"{}\"}\n",
    "/",
    "..",
    "/srv",
    "A",
    "_",
    "-",
    "+1",
    "\u{0}",
    "0123456789abcdef0123456789abcdef",
    "+123456789abcdef0123456789abcdef",
    "0123456789ABCDEF0123456789ABCDEF",
    "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
];
