//! Backup and restore, with the real server at work, and what happens to whoever changes a backup.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::served::{Served, start, until};

fn provara(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_provara"));
    command.env_clear().env("AGENT_HUB_ROOT", root).current_dir(root).args(arguments).output().unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "expected {why:?}: {said}");
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A server with something of everything: a small and a large output, a waiting plan and a running one.
struct Busy {
    server: Served,
    large: String,
    waiting: String,
    running: String,
}

const LARGE: &str = "head -c 200000 /dev/zero | tr '\\0' x";

impl Busy {
    fn new() -> Self {
        let server = Served::new();
        assert_eq!(server.approved("echo small")["stdout"], "small\n");
        let large = server.approved(LARGE)["run_id"].as_str().unwrap().to_owned();
        let waiting = server.plan("echo waits");
        let running = server.plan("sleep 300");
        let (operator, path) = (server.operator(), format!("/approve/{running}"));
        let headers = [("x-agent-token", operator.as_str()), ("prefer", "respond-async")];
        assert_eq!(server.ask("POST", &path, &headers, "").0, 202);
        until("the run", || {
            server.by(&operator, "GET", &format!("/commands/{running}"), &Value::Null).1["state"] == "running"
        });
        Self { server, large, waiting, running }
    }
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_of(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn a_backup_of_a_working_server_is_checked_restored_and_the_server_goes_on() {
    let busy = Busy::new();
    let (root, kept) = (busy.server.root.path(), folder());
    let to = kept.path().join("monday");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let answer: Value = std::thread::scope(|scope| {
        // Somebody proposes all the while: the copy is of one moment all the same.
        let proposing = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) && sent < 900 {
                busy.server.plan("echo again");
                sent += 1;
            }
            sent
        });
        let output = provara(root, &["--json", "backup", to.to_str().unwrap(), "--with-keys"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(proposing.join().unwrap() > 0);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("whoever reads it can approve"), "{said}");
        serde_json::from_str(&done(&output)).unwrap()
    });
    assert!(answer["log_size"].as_u64().unwrap() > 5 && answer["signed_until"].as_u64().is_some(), "{answer}");
    for path in files_of(&to) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    for path in [to.clone(), to.join("output"), to.join("keys")] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "{path:?}");
    }
    // A key that was kept elsewhere is the one that counts.
    done(&provara(root, &["backup", "--verify", to.to_str().unwrap(), "--key", to.join("log.vkey").to_str().unwrap()]));

    // Another host, where nothing is yet.
    let elsewhere = folder();
    let restored = provara(elsewhere.path(), &["restore", to.to_str().unwrap()]);
    done(&restored);
    let said = String::from_utf8_lossy(&restored.stderr).into_owned();
    let size = &answer["log_size"];
    assert!(said.contains(&format!("the log goes on after entry {size}")), "{said}");
    let (process, base) = start(elsewhere.path());
    let again = Served { root: elsewhere, process, base };
    assert_eq!(again.operator(), busy.server.operator());
    let state =
        |id: &str| again.by(&again.operator(), "GET", &format!("/commands/{id}"), &Value::Null).1["state"].clone();
    assert_eq!((state(&busy.waiting), state(&busy.running)), (json!("pending"), json!("lost")));
    let output = format!("/runs/{}/output?stream=stdout", busy.large);
    let (status, text) = again.by(&again.operator(), "GET", &output, &Value::Null);
    assert_eq!((status, text.as_str().map(str::len)), (200, Some(200_000)));
    assert_eq!(again.approved("echo on")["stdout"], "on\n");
    // The log is one: what was signed before the backup begins what is signed after the restore.
    let operator = ("AGENT_HUB_OPERATOR_TOKEN", again.operator());
    let exported = again.cli((operator.0, &operator.1), &["audit", "export"]);
    fs::write(again.root.path().join("log.jsonl"), done(&exported)).unwrap();
    let (checkpoint, key) = (to.join("checkpoint"), to.join("log.vkey"));
    let arguments =
        ["audit", "verify", "log.jsonl", "--checkpoint", checkpoint.to_str().unwrap(), "--key", key.to_str().unwrap()];
    assert!(done(&provara(again.root.path(), &arguments)).ends_with("OK\n"));
}

#[test]
fn a_backup_is_refused_where_it_would_overwrite_or_be_reached_and_a_restore_where_something_is() {
    let busy = Busy::new();
    let (root, kept) = (busy.server.root.path(), folder());
    let to = kept.path().join("b");
    let to = to.to_str().unwrap();
    done(&provara(root, &["backup", to]));
    assert!(!Path::new(to).join("keys").exists(), "keys were copied without being asked for");
    let secrets = [busy.server.operator(), busy.server.agent()];
    for path in files_of(Path::new(to)) {
        let bytes = fs::read(&path).unwrap();
        let has = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
        assert!(!secrets.iter().any(|secret| has(secret.as_bytes())), "a token is in {path:?}");
        assert!(!has(&fs::read(root.join("runtime/log_key")).unwrap()), "the log's key is in {path:?}");
    }
    refused(&provara(root, &["backup", to]), "never overwrites");
    refused(&provara(root, &["backup", "workspace/b"]), "must not lie in the workspace");
    refused(&provara(root, &["backup", "runtime/b"]), "must not lie in the runtime folder");
    refused(&provara(root, &["backup", "nowhere/b"]), "/nowhere` cannot be used");
    refused(&provara(root, &["restore", to]), "--force moves it aside");
    refused(&provara(root, &["restore", to, "--force"]), "is in use by another server");
    assert_eq!(busy.server.approved("echo still here")["stdout"], "still here\n");
    refused(&provara(root, &["backup", "--verify", kept.path().to_str().unwrap()]), "it has no manifest.json");
    let left: Vec<_> = fs::read_dir(kept.path()).unwrap().chain(fs::read_dir(root).unwrap()).flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().starts_with(".provara-")), "{left:?}");
}

#[test]
fn a_forced_restore_moves_the_old_folder_aside_and_goes_on_with_its_keys() {
    let mut busy = Busy::new();
    let (root, kept) = (busy.server.root.path().to_owned(), folder());
    let to = kept.path().join("b");
    let backup: Value =
        serde_json::from_str(&done(&provara(&root, &["--json", "backup", to.to_str().unwrap()]))).unwrap();
    let later = busy.server.plan("echo after the backup");
    let operator = busy.server.operator();
    let sized = |path: &Path| fs::read_to_string(path).ok()?.lines().nth(1)?.parse::<u64>().ok();
    // Past the backup's database, which may hold entries that its checkpoint does not.
    let copied = backup["log_size"].as_u64().unwrap();
    until("a checkpoint over what came after the backup", || {
        sized(&root.join("runtime/audit/checkpoint")).is_some_and(|size| size > copied)
    });
    busy.server.process.kill().unwrap();
    busy.server.process.wait().unwrap();
    let answer: Value =
        serde_json::from_str(&done(&provara(&root, &["--json", "restore", to.to_str().unwrap(), "--force"]))).unwrap();
    assert_eq!(answer["keys"], "from the folder that was moved aside");
    let aside = PathBuf::from(answer["moved_aside"].as_str().unwrap());
    assert!(aside.join("provara.db").exists() && aside.join("audit/log.jsonl").exists());
    let (process, base) = start(&root);
    (busy.server.process, busy.server.base) = (process, base);
    assert_eq!(busy.server.operator(), operator);
    let state = |id: &str| busy.server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!((state(&later).0, &state(&busy.running).1["state"]), (404, &json!("lost")));
    // The tail that is gone shows against the checkpoint that the old server had kept.
    let exported = busy.server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["audit", "export"]);
    fs::write(root.join("log.jsonl"), done(&exported)).unwrap();
    let (checkpoint, key) = (aside.join("audit/checkpoint"), to.join("log.vkey"));
    let verified = provara(
        &root,
        &["audit", "verify", "log.jsonl", "--checkpoint", checkpoint.to_str().unwrap(), "--key", key.to_str().unwrap()],
    );
    assert!(!verified.status.success(), "the lost entries were not noticed");
}

/// The manifest of a backup, made to fit its files again: what an attacker would do next.
fn rehash(folder: &Path) {
    let path = folder.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for file in manifest["files"].as_array_mut().unwrap() {
        let bytes = fs::read(folder.join(file["path"].as_str().unwrap())).unwrap();
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (file["sha256"], file["size"]) = (json!(digest), json!(bytes.len()));
    }
    fs::write(path, manifest.to_string()).unwrap();
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copied(&entry.path(), &to)
        } else {
            let _ = fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn whatever_is_changed_in_a_backup_is_found_and_nothing_of_it_is_restored() {
    let busy = Busy::new();
    let (root, kept) = (busy.server.root.path(), folder());
    let good = kept.path().join("good");
    done(&provara(root, &["backup", good.to_str().unwrap()]));
    let spool = format!("output/{}.stdout", busy.large);
    type Harm<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>, &'a str);
    let manifest = |change: fn(&mut Value)| {
        move |folder: &Path| {
            let path = folder.join("manifest.json");
            let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            change(&mut manifest);
            fs::write(path, manifest.to_string()).unwrap();
        }
    };
    let sql = |statement: &'static str| {
        move |folder: &Path| {
            let conn = rusqlite::Connection::open(folder.join("provara.db")).unwrap();
            conn.execute_batch(statement).unwrap();
            drop(conn);
            rehash(folder);
        }
    };
    let harms: Vec<Harm<'_>> = vec![
        (
            "a byte of an output",
            Box::new(|folder| {
                let mut bytes = fs::read(folder.join(&spool)).unwrap();
                bytes[5000] ^= 1;
                fs::write(folder.join(&spool), bytes).unwrap();
            }),
            "was changed or cut",
        ),
        (
            "an output cut",
            Box::new(|folder| {
                fs::File::options().write(true).open(folder.join(&spool)).unwrap().set_len(77).unwrap();
            }),
            "was changed or cut",
        ),
        ("an output gone", Box::new(|folder| fs::remove_file(folder.join(&spool)).unwrap()), "cannot be used"),
        (
            "an output gone from the manifest too",
            Box::new(|folder| {
                fs::remove_file(folder.join(&spool)).unwrap();
                let path = folder.join("manifest.json");
                let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                manifest["files"].as_array_mut().unwrap().retain(|file| file["path"] != spool.as_str());
                fs::write(path, manifest.to_string()).unwrap();
            }),
            "an output that a run needs",
        ),
        (
            "a link in place of an output",
            Box::new(|folder| {
                fs::remove_file(folder.join(&spool)).unwrap();
                std::os::unix::fs::symlink(root.join("runtime").join(&spool), folder.join(&spool)).unwrap();
            }),
            "cannot be used",
        ),
        (
            "a journal that SQLite would replay",
            Box::new(|folder| {
                fs::write(folder.join("provara.db-wal"), "x").unwrap();
            }),
            "is in the folder and not in the manifest",
        ),
        (
            "a file in the outputs",
            Box::new(|folder| fs::write(folder.join("output/x"), "x").unwrap()),
            "not in the manifest",
        ),
        ("another format", Box::new(manifest(|it| it["format"] = json!(2))), "it has format 2"),
        (
            "a way out",
            Box::new(manifest(|it| it["files"][0]["path"] = json!("../runtime/log_key"))),
            "no file of a backup",
        ),
        (
            "a way out below",
            Box::new(manifest(|it| it["files"][0]["path"] = json!("output/../x.stdout"))),
            "no file of a backup",
        ),
        (
            "a file named twice",
            Box::new(manifest(|it| {
                let first = it["files"][0].clone();
                it["files"].as_array_mut().unwrap().push(first);
            })),
            "or was named before",
        ),
        ("no database", Box::new(manifest(|it| it["files"] = json!([]))), "it has no `provara.db`"),
        ("another root", Box::new(manifest(|it| it["log"]["root"] = json!("00"))), "another size or root"),
        (
            "a trigger",
            Box::new(sql("CREATE TRIGGER t AFTER INSERT ON plans BEGIN DELETE FROM plans; END")),
            "trigger `t`",
        ),
        (
            "a view in place of a table",
            Box::new(sql("DROP TABLE workspaces; CREATE VIEW workspaces AS SELECT 'default' AS project, '/' AS path")),
            "not one that this version makes",
        ),
        (
            "an entry taken out",
            Box::new(sql("PRAGMA foreign_keys=0; DELETE FROM log WHERE position = 2")),
            "was removed, added or moved",
        ),
        (
            "the last entry taken out",
            Box::new(sql("DELETE FROM log WHERE position = (SELECT max(position) FROM log)")),
            "the log",
        ),
        (
            "an entry rewritten",
            Box::new(sql(
                "UPDATE log SET leaf = replace(CAST(leaf AS TEXT), 'small', 'large'), leaf = CAST('{}' AS BLOB) WHERE position = 3",
            )),
            "the log",
        ),
        (
            "a checkpoint by another key",
            Box::new(|folder| {
                let key = provara_audit::checkpoint::LogKey::from_seed("provara/log/x", [7; 32]).unwrap();
                fs::write(folder.join("log.vkey"), key.vkey()).unwrap();
                rehash(folder);
            }),
            "checkpoint 1 cannot be used",
        ),
        (
            "nothing but bytes",
            Box::new(|folder| {
                fs::write(folder.join("provara.db"), [b'x'; 9000]).unwrap();
                rehash(folder);
            }),
            "the database cannot be copied or read",
        ),
    ];
    // The newest checkpoint has to cover the tail, or its loss could not show.
    let elsewhere = folder();
    for (what, harm, why) in harms {
        let bad = kept.path().join("bad");
        copied(&good, &bad);
        harm(&bad);
        let verified = provara(root, &["backup", "--verify", bad.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(!verified.status.success() && said.contains(why), "{what}: {said}");
        assert!(
            !provara(elsewhere.path(), &["restore", bad.to_str().unwrap()]).status.success(),
            "{what} was restored"
        );
        assert!(fs::read_dir(elsewhere.path()).unwrap().next().is_none(), "{what} left something behind");
        fs::remove_dir_all(bad).unwrap();
    }
    done(&provara(root, &["backup", "--verify", good.to_str().unwrap()]));
    let other = kept.path().join("other.vkey");
    fs::write(&other, provara_audit::checkpoint::LogKey::from_seed("provara/log/x", [7; 32]).unwrap().vkey()).unwrap();
    let verified = provara(root, &["backup", "--verify", good.to_str().unwrap(), "--key", other.to_str().unwrap()]);
    refused(&verified, "not a backup of that log");
}

#[test]
fn killed_at_any_moment_a_backup_is_whole_or_not_there_and_a_restore_leaves_the_old_or_the_new() {
    let mut busy = Busy::new();
    let (root, kept) = (busy.server.root.path().to_owned(), folder());
    busy.server.process.kill().unwrap();
    busy.server.process.wait().unwrap();
    let good = kept.path().join("good");
    done(&provara(&root, &["backup", good.to_str().unwrap()]));
    let killed_after = |micros: u64, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provara"));
        command.env_clear().env("AGENT_HUB_ROOT", &root).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // The moment is what is tested, wherever it falls.
        std::thread::sleep(Duration::from_micros(micros));
        let _ = child.kill();
        child.wait().unwrap().success()
    };
    let whole: BTreeSet<_> = ["provara.db", "output"].into();
    let begun = std::time::Instant::now();
    done(&provara(&root, &["restore", good.to_str().unwrap(), "--force"]));
    let long = u64::try_from(begun.elapsed().as_micros()).unwrap();
    let mut ends = BTreeSet::new();
    for round in 0..200_u64 {
        // From the very start to well past the end, again and again.
        let moment = long * (round % 12) / 6;
        let to = kept.path().join(format!("b{round}"));
        killed_after(moment, &["backup", to.to_str().unwrap()]);
        if to.exists() {
            done(&provara(&root, &["backup", "--verify", to.to_str().unwrap()]));
        }
        ends.insert((true, to.exists()));
        let ended = killed_after(moment, &["restore", good.to_str().unwrap(), "--force"]);
        ends.insert((false, ended));
        let here: BTreeSet<_> =
            fs::read_dir(root.join("runtime")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(whole.iter().all(|name| here.contains(std::ffi::OsStr::new(name))), "round {round}: {here:?}");
        assert!(here.contains(std::ffi::OsStr::new("log_key")), "round {round} lost the log's key: {here:?}");
        if round >= 11 && ends.len() == 4 {
            break;
        }
    }
    assert_eq!(ends.len(), 4, "the kills fell on one side only: {ends:?}");
    let (process, base) = start(&root);
    (busy.server.process, busy.server.base) = (process, base);
    assert_eq!(busy.server.approved("echo on")["stdout"], "on\n");
}
