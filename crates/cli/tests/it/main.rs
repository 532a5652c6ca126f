//! The real binary, from outside.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail loudly")]
#![expect(clippy::print_stderr, clippy::string_slice, reason = "tests say what they skip, and cut what they made")]

mod attacks;
mod backup;
mod commands;
mod contract;
mod doctor;
mod documents;
mod erase;
mod faults;
mod firsttime;
mod hardship;
mod operations;
#[cfg(feature = "otel")]
mod otel;
mod previews;
mod profiles;
mod progress;
mod schema;
mod secrets;
mod served;
mod service;
mod serving;
mod setup;
mod watched;

use std::path::Path;
use std::process::{Command, Output};

use provara_audit::checkpoint::LogKey;
use provara_audit::export;
use provara_audit::merkle::{Frontier, leaf_hash};

fn provara(root: &Path, arguments: &[&str]) -> Output {
    // The environment is empty, so that nobody's settings decide a test.
    Command::new(env!("CARGO_BIN_EXE_provara")).env_clear().current_dir(root).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn an_unknown_setting_names_the_nearest_and_is_a_usage_error() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("provara.toml"), "prot = 1\n").unwrap();
    let output = provara(root.path(), &["pending"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("did you mean `port`?"), "{}", stderr(&output));
}

#[test]
fn without_a_server_the_code_is_5_and_runs_own_ending_is_125() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join(".env"), "AGENT_HUB_TOKEN=an-agents-token-of-a-test\n").unwrap();
    let base = ["--base", "http://127.0.0.1:1"];
    let pending = provara(root.path(), &[base[0], base[1], "pending"]);
    let run = provara(root.path(), &[base[0], base[1], "run", "--", "true"]);
    assert_eq!((pending.status.code(), run.status.code()), (Some(5), Some(125)));
    assert!(stderr(&run).contains("no server answers at http://127.0.0.1:1"), "{}", stderr(&run));
    assert!(!stderr(&run).contains("an-agents-token"));
}

#[test]
fn a_file_in_the_folder_cannot_send_a_token_elsewhere_unencrypted() {
    let root = tempfile::tempdir().unwrap();
    let file = "AGENT_HUB_BASE=http://192.0.2.1:9\nAGENT_HUB_TOKEN=an-agents-token-of-a-test\n";
    std::fs::write(root.path().join(".env"), file).unwrap();
    let output = provara(root.path(), &["pending"]);
    assert!(stderr(&output).contains("would travel unencrypted"), "{}", stderr(&output));
}

#[test]
fn verify_accepts_the_log_and_finds_a_changed_byte_and_a_cut_tail() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let key = LogKey::from_seed("test.example/log", [7; 32]).unwrap();
    let leaves: Vec<String> = (0..3)
        .map(|n| format!(r#"{{"actor":{{"kind":"system"}},"body":{{}},"event_id":"{n:032x}","plan":null,"plan_rev":null,"ts":{n},"type":"server.stopped","v":1}}"#))
        .collect();
    let mut tree = Frontier::default();
    leaves.iter().for_each(|leaf| tree.push(leaf_hash(leaf.as_bytes())));
    std::fs::write(dir.join("key"), key.vkey()).unwrap();
    std::fs::write(dir.join("note"), key.sign(3, &tree.root())).unwrap();
    let lines: Vec<String> = (0..).zip(&leaves).map(|(n, leaf)| export::line(n, leaf.as_bytes()) + "\n").collect();
    let verify = |text: String| {
        std::fs::write(dir.join("log"), text).unwrap();
        provara(dir, &["audit", "verify", "log", "--checkpoint", "note", "--key", "key"])
    };

    let whole = verify(lines.concat());
    assert!(whole.status.success(), "{whole:?}");
    let changed = verify(lines.concat().replacen(r#"\"ts\":1"#, r#"\"ts\":7"#, 1));
    let cut = verify(lines[..2].concat());
    assert_eq!((changed.status.code(), cut.status.code()), (Some(1), Some(1)));
    assert!(String::from_utf8_lossy(&changed.stdout).contains("WRONG"));
    assert!(String::from_utf8_lossy(&cut.stdout).contains("the tail was cut"), "{cut:?}");
}
