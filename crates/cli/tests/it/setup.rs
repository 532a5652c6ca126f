//! The installation, made below a folder; the units read by systemd itself where it is; and the server started with exactly
//! the rights that the unit leaves it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::served::{Served, await_address};

fn setup(prefix: &Path, more: &[&str]) -> Output {
    let arguments = ["--json", "setup", "--binary", "/bin/true", "--prefix", prefix.to_str().unwrap()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_provara"));
    command.env_clear().args(arguments).args(more).output().unwrap()
}

fn told(output: &Output) -> BTreeMap<String, String> {
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let problem = output.stdout.windows(8).any(|window| window == b"PROBLEM:");
    assert_eq!(output.status.code(), Some(i32::from(problem)));
    let text = |step: &Value, field: &str| step[field].as_str().unwrap().to_owned();
    answer["steps"].as_array().unwrap().iter().map(|step| (text(step, "subject"), text(step, "did"))).collect()
}

/// An image: it has a list of users.
fn image() -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    fs::create_dir(image.path().join("etc")).unwrap();
    for (name, text) in
        [("passwd", "root:x:0:0::/root:/bin/sh\n"), ("group", "root:x:0:\n"), ("shadow", ""), ("gshadow", "")]
    {
        fs::write(image.path().join("etc").join(name), text).unwrap();
    }
    image
}

/// The keys of a unit, sections aside: none of ours stands in two.
fn keys(unit: &str) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in
        unit.lines().filter(|line| !line.starts_with(['#', '['])).filter_map(|line| line.split_once('='))
    {
        keys.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    keys
}

/// Says why a test did not run. Where everything has to be tested, that is a failure.
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
    assert!(std::env::var_os("CI").is_none(), "nothing may be skipped here: {why}");
}

#[test]
fn an_image_is_set_up_once_and_what_was_made_of_it_is_kept() {
    let image = image();
    let at = |path: &str| image.path().join(path);
    let dry = told(&setup(image.path(), &["--dry-run", "--socket"]));
    assert!(dry.values().all(|did| did == "would be made"), "{dry:?}");
    assert!(!at("var").exists() && !at("etc/systemd").exists(), "a dry run made something");

    if !nix::unistd::Uid::effective().is_root() {
        return skipped("making users needs root");
    }
    let made = told(&setup(image.path(), &["--socket"]));
    assert!(made.values().all(|did| did == "made"), "{made:?}");
    let passwd = fs::read_to_string(at("etc/passwd")).unwrap();
    let user: Vec<&str> = passwd.lines().find(|line| line.starts_with("provara-run:")).unwrap().split(':').collect();
    assert_eq!(user[5..], ["/nonexistent", "/usr/sbin/nologin"]);
    let commands: u32 = user[2].parse().unwrap();
    let modes = [
        ("var/lib/provara", 0o711, 0),
        ("var/lib/provara/runtime", 0o700, 0),
        ("var/lib/provara/workspace", 0o750, commands),
        ("etc/provara/provara.env", 0o600, 0),
        ("etc/systemd/system/provara.service", 0o644, 0),
    ];
    for (path, mode, owner) in modes {
        let meta = fs::metadata(at(path)).unwrap();
        assert_eq!((meta.permissions().mode() & 0o777, meta.uid()), (mode, owner), "{path}");
    }

    // Again: nothing changes, but for what is ours and was changed; and what is wrong is said, not touched.
    fs::write(at("etc/provara/provara.env"), "AGENT_HUB_PORT=1\n").unwrap();
    fs::write(at("etc/systemd/system/provara.socket"), "mine").unwrap();
    fs::set_permissions(at("var/lib/provara/runtime"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir(at("var/lib/provara/workspace")).unwrap();
    std::os::unix::fs::symlink(at("etc"), at("var/lib/provara/workspace")).unwrap();
    let again = told(&setup(image.path(), &["--socket"]));
    assert_eq!(again["/etc/provara/provara.env"], "is there, and yours");
    assert_eq!(again["/etc/systemd/system/provara.service"], "is there");
    assert_eq!(again["/etc/systemd/system/provara.socket"], "replaced; the old one is kept beside it");
    assert_eq!(again["/var/lib/provara/runtime"], "PROBLEM: it has mode 755, and should have 700");
    assert_eq!(again["/var/lib/provara/workspace"], "PROBLEM: it is no folder; move it away");
    assert_eq!(fs::read_to_string(at("etc/provara/provara.env")).unwrap(), "AGENT_HUB_PORT=1\n");
    assert_eq!(fs::read_to_string(at("etc/systemd/system/provara.socket.before")).unwrap(), "mine");
    assert_eq!(fs::metadata(at("etc")).unwrap().uid(), 0, "a link was followed");
}

#[test]
fn a_path_that_would_write_its_own_unit_and_a_program_that_others_can_change_are_refused() {
    let image = tempfile::tempdir().unwrap();
    for bad in ["/var/lib/x\nUser=root", "relative", "/a/../b", "/a b", "/a%n"] {
        let output = setup(image.path(), &["--root", bad, "--dry-run"]);
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
    }
    // This very binary lies in a folder of the build's; root must not be made to run it from there unless it is root's alone.
    let loose = image.path().join("provara");
    fs::write(&loose, "").unwrap();
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_provara"));
    let output =
        command.env_clear().args(["setup", "--dry-run", "--binary", loose.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("others can change"), "{said}");
    // An image whose /etc is another's.
    let outside = tempfile::tempdir().unwrap();
    let odd = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), odd.path().join("etc")).unwrap();
    assert_eq!(setup(odd.path(), &["--unprivileged"]).status.code(), Some(2));
    assert!(fs::read_dir(outside.path()).unwrap().next().is_none(), "written through a link");
    // A package's users are made where it is installed.
    assert_eq!(told(&setup(image.path(), &["--unprivileged"]))["provara"], "left to whoever installs the package");
}

#[test]
fn the_units_are_what_systemd_reads_and_leave_the_runner_what_it_needs() {
    for more in [&[][..], &["--socket"], &["--unprivileged"]] {
        let image = tempfile::tempdir().unwrap();
        told(&setup(image.path(), more));
        let units = image.path().join("etc/systemd/system");
        let service = fs::read_to_string(units.join("provara.service")).unwrap();
        let keys = keys(&service);
        let one = |key: &str| keys.get(key).map(|values| values.join(" "));
        assert_eq!(one("Type").as_deref(), Some("notify"));
        assert_eq!(one("ExecStart").as_deref(), Some("/bin/true serve"));
        assert_eq!(one("ReadWritePaths").as_deref(), Some("/var/lib/provara"));
        for (key, value) in
            [("NoNewPrivileges", "yes"), ("ProtectSystem", "strict"), ("Delegate", "yes"), ("Restart", "on-failure")]
        {
            assert_eq!(one(key).as_deref(), Some(value), "{key}");
        }
        // Each of these keeps the runner from confining commands, or the confined from working.
        let harmful = [
            "RestrictNamespaces",
            "PrivateUsers",
            "SystemCallFilter",
            "ProtectKernelTunables",
            "ProtectKernelLogs",
            "ProtectControlGroups",
            "ProtectProc",
            "ProcSubset",
            "MemoryDenyWriteExecute",
            "RootDirectory",
            "PrivateNetwork",
        ];
        for key in harmful {
            assert_eq!(one(key), None, "{key}");
        }
        match one("User") {
            Some(user) => assert_eq!((user.as_str(), one("CapabilityBoundingSet").as_deref()), ("provara", Some(""))),
            None => assert!(one("Environment").unwrap().contains("AGENT_HUB_RUN_AS=provara-run")),
        }
        let Ok(verified) = Command::new("systemd-analyze").arg("verify").args(files(&units)).output() else {
            return skipped("there is no systemd-analyze to read the units");
        };
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(verified.status.success() && !said.contains("provara."), "{said}");
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn with_the_rights_that_the_unit_leaves_the_server_runs_and_ends_commands() {
    let image = tempfile::tempdir().unwrap();
    told(&setup(image.path(), &[]));
    let unit = fs::read_to_string(image.path().join("etc/systemd/system/provara.service")).unwrap();
    let rights = keys(&unit)["CapabilityBoundingSet"].join("");
    let rights: String = rights.split_whitespace().map(|name| format!(",+{}", name[4..].to_lowercase())).collect();
    if !nix::unistd::Uid::effective().is_root() {
        return skipped("a root server needs root");
    }
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // A workspace in a folder that the commands' user keeps to itself: root without rights would not find it.
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let private = root.path().join("private");
    for folder in [private.clone(), private.join("work")] {
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let process = Command::new("setpriv")
        .args(["--no-new-privs", "--inh-caps=-all", &format!("--bounding-set=-all{rights}")])
        .args([env!("CARGO_BIN_EXE_provara"), "serve"])
        .env_clear()
        .envs([("AGENT_HUB_ROOT", root.path().to_str().unwrap()), ("AGENT_HUB_PORT", "0")])
        .env("AGENT_HUB_WORKSPACE_DIR", private.join("work"))
        .stdin(Stdio::null())
        .stderr(fs::File::create(root.path().join("server.log")).unwrap())
        .spawn()
        .unwrap();
    let base = await_address(root.path());
    let server = Served { root, process, base };
    let run = server.approved("id -u; echo kept > file && cat file; grep -h CapEff /proc/self/status");
    assert_eq!(run["stdout"], format!("{}\nkept\nCapEff:\t0000000000000000\n", nobody.uid), "{run}");
    // Profiles with a network take the right to bring one up.
    let (_, health) = server.by(&server.operator(), "GET", "/health", &Value::Null);
    let tried = health["confinement"]["profiles"].as_array().unwrap();
    assert!(tried.len() == 4 && tried.iter().all(|it| it["problem"].is_null()), "{health}");
    // Ended with a word first: that takes the right to signal another user's processes.
    let body = serde_json::json!({ "command": "trap 'echo told; exit' TERM; sleep 60 & wait", "timeout_s": 1 });
    let (_, plan) = server.by(&server.agent(), "POST", "/plan", &body);
    let path = format!("/approve/{}", plan["pending_id"].as_str().unwrap());
    let (_, run) = server.by(&server.operator(), "POST", &path, &Value::Null);
    assert_eq!((&run["stdout"], &run["outcome"]["kind"]), (&Value::from("told\n"), &Value::from("timed_out")), "{run}");
}
