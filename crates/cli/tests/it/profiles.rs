//! Profiles from the operator's file to the decision and the run's record, with the real binary.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::served::{Served, start, until};
use crate::{provara, stderr};

/// An operator's file: the example of `docs/profiles.md`.
fn example() -> &'static str {
    let document = include_str!("../../../../docs/profiles.md");
    document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap()
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn served(profiles: &str) -> Served {
    let root = folder();
    fs::write(root.path().join("profiles.toml"), profiles).unwrap();
    let (process, base) = start(root.path());
    Served { root, process, base }
}

fn checked(root: &Path) -> Output {
    provara(root, &["serve", "--check"])
}

#[test]
fn the_documents_example_is_loaded_and_shown_in_words() {
    let server = served(example());
    let output = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &server.operator()), &["profile", "list"]);
    let listed = String::from_utf8(output.stdout).unwrap();
    let document = include_str!("../../../../docs/profiles.md");
    let told = document.split("```console\n$ provara profile list\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(listed, told, "docs/profiles.md tells other profiles");
    let (status, all) = server.by(&server.operator(), "GET", "/profiles", &Value::Null);
    assert_eq!(status, 200);
    for profile in all.as_array().unwrap() {
        let words = profile["words"].as_str().unwrap();
        assert!(document.contains(words), "docs/profiles.md does not say: {words}");
        assert_eq!(profile["canonical"]["name"], profile["name"]);
    }
    let shown = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &server.operator()), &["--json", "profile", "show", "sources"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&shown["agents_may_ask"], &shown["canonical"]["v"]), (&json!(true), &json!(1)));
    let none = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &server.operator()), &["profile", "show", "Workspace"]);
    assert_eq!(none.status.code(), Some(2), "a name is exact");
    // For people, not for agents.
    assert_eq!(server.by(&server.agent(), "GET", "/profiles", &Value::Null).0, 403);
}

#[test]
fn an_agent_asks_for_what_it_may_and_never_for_host() {
    let server = served(example());
    let ask = |profile: &str| {
        server.by(&server.agent(), "POST", "/plan", &json!({ "command": "make x", "profile": profile }))
    };
    for may in ["read-only", "workspace", "network", "sources"] {
        assert_eq!(ask(may).0, 200, "{may}");
    }
    for never in ["host", "kept", "none", "HOST", "Workspace", "sources2"] {
        let (status, answer) = ask(never);
        assert_eq!(status, 422, "{never}: {answer}");
        let told = answer["detail"][0]["msg"].as_str().unwrap();
        assert_eq!(answer["detail"][0]["loc"], json!(["body", "profile"]));
        assert!(told.ends_with("it may ask for `network`, `read-only`, `sources`, `workspace`"), "{told}");
    }
    let (_, pending) = server.by(&server.operator(), "GET", "/pending", &Value::Null);
    assert_eq!(pending.as_array().unwrap().len(), 4);
}

#[test]
fn an_approver_tightens_freely_loosens_with_a_reason_and_the_log_says_so() {
    let server = served(example());
    let operator = server.operator();
    let approve = |id: &str, body: Value| {
        let headers = [("x-agent-token", operator.as_str()), ("prefer", "respond-async")];
        server.ask("POST", &format!("/approve/{id}"), &headers, &body.to_string())
    };
    let id = server.plan("make x");
    let (_, shown) = server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!(shown["confinement"]["profile"], "workspace");
    let words = shown["confinement"]["words"].as_str().unwrap();
    assert!(words.starts_with("writes only below workspace/ and a private tmp; no network; "), "{words}");
    for reason in [json!(null), json!(""), json!(" \n")] {
        for looser in ["network", "host", "kept", "sources"] {
            let (status, answer) = approve(&id, json!({ "profile": looser, "reason": reason }));
            assert_eq!(status, 422, "{looser}: {answer}");
            assert_eq!(answer["detail"][0]["loc"], json!(["body", "reason"]));
            let told = answer["detail"][0]["msg"].as_str().unwrap();
            assert!(told.contains(&format!("`{looser}` allows more than `workspace`")), "{told}");
        }
    }
    for (field, more) in [("timeout_s", 301), ("processes", 4097), ("open_files", 4097)] {
        let (status, answer) = approve(&id, json!({ field: more }));
        assert_eq!((status, &answer["detail"][0]["loc"]), (422, &json!(["body", field])), "{answer}");
    }
    let (_, still) = server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!(still["state"], "pending", "a refused approval decided");
    let seen = &still["confinement"]["sha256"];
    let other = json!({ "profile": "network", "reason": "x", "profile_sha256": seen });
    let (status, answer) = approve(&id, other);
    assert_eq!((status, &answer["code"]), (409, &json!("profile_mismatch")), "{answer}");
    let (status, loosened) = approve(&id, json!({ "profile": "network", "reason": "fetches the sources" }));
    assert_eq!(status, 202, "{loosened}");
    let (_, all) = server.by(&operator, "GET", "/profiles", &Value::Null);
    let digest = |name: &str| all.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap()["sha256"].clone();
    let decision = &loosened["decision"];
    assert_eq!((&decision["profile"], &decision["profile_sha256"]), (&json!("network"), &digest("network")));
    let id = server.plan("make y");
    let (_, tightened) = approve(&id, json!({ "profile": "read-only", "timeout_s": 20 }));
    assert_eq!(tightened["decision"]["limits"], json!({ "timeout_s": 20 }), "{tightened}");
    let id = server.plan("make z");
    approve(&id, Value::Null);
    let (_, log) = server.by(&operator, "GET", "/audit?limit=500", &Value::Null);
    let leaf = |line: &str| serde_json::from_str::<Value>(line).unwrap()["leaf"].as_str().unwrap().to_owned();
    let leaves: Vec<Value> =
        log.as_str().unwrap().lines().map(|line| serde_json::from_str(&leaf(line)).unwrap()).collect();
    let approved: Vec<&Value> =
        leaves.iter().filter(|leaf| leaf["type"] == "plan.approved").map(|leaf| &leaf["body"]).collect();
    assert_eq!(
        approved.iter().map(|body| body["profile_change"].as_str()).collect::<Vec<_>>(),
        [Some("loosened"), Some("tightened"), None]
    );
    assert_eq!(approved[0]["decision"]["binding"]["profile_sha256"], digest("network"));
    assert_eq!(approved[1]["decision"]["limits"]["timeout_s"], 20);
    assert!(!log.to_string().contains("fetches the sources"), "the log tells a reason");
}

#[test]
fn the_command_line_shows_words_and_passes_on_what_an_approver_changes() {
    let server = served(example());
    let operator = server.operator();
    let call = |arguments: &[&str]| server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), arguments);
    let id = server.plan("make x");
    let shown = String::from_utf8(call(&["show", &id]).stdout).unwrap();
    assert!(
        shown.contains("\nprofile   workspace\n  - writes only below workspace/ and a private tmp; no network; "),
        "{shown}"
    );
    let refused = call(&["approve", &id, "--yes", "--profile", "network"]);
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains("say why in `reason`"), "{refused:?}");
    for bad in ["memory", "memory=", "memory=2GiB", "wall=3", "=3"] {
        let refused = call(&["approve", &id, "--yes", "--limit", bad]);
        assert!(refused.status.code() == Some(2) && stderr(&refused).contains("NAME=NUMBER"), "{bad}: {refused:?}");
    }
    // What is shown before it asks is what was chosen, not what the agent asked for.
    let asked = Command::new("setsid")
        .args(["--wait", env!("CARGO_BIN_EXE_provara"), "--base", &server.base])
        .args(["approve", &id, "--profile", "network", "--reason", "x"])
        .env_clear()
        .env("AGENT_HUB_ROOT", server.root.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(stderr(&asked).contains("runs with network\n  - writes only below workspace/"), "{asked:?}");
    assert!(stderr(&asked).contains("network to any host but this one"), "{asked:?}");
    // A lowered limit holds.
    let held = call(&["approve", &id, "--yes", "--timeout", "5", "--limit", "open_files=64"]);
    let told = String::from_utf8(held.stdout).unwrap();
    assert!(told.contains("exit") && !told.contains("spawn_failed"), "{told}");
    let id = server.plan("ulimit -Hn");
    let held = call(&["--json", "approve", &id, "--yes", "--limit", "open_files=64"]);
    let told: Value = serde_json::from_slice(&held.stdout).unwrap();
    assert_eq!(told["stdout"], "64\n", "{told}");
}

#[test]
fn what_a_rule_forces_is_shown_and_nobody_goes_beyond_it() {
    let root = folder();
    let rules = root.path().join("policies/projects");
    fs::create_dir_all(&rules).unwrap();
    let rule = "[[rule]]\nid = 'tight'\ncategory = 'c'\nseverity = 'low'\nverdict = 'ask'\nreason = 'r'\nforce_profile = \
                'read-only'\n[rule.match]\nprogram = ['frob']\n[rule.examples]\nmatch = ['frob']\nno_match = ['ls']\n";
    fs::write(rules.join("own.toml"), rule.replace("read-only", "gone")).unwrap();
    let output = checked(root.path());
    assert_eq!(output.status.code(), Some(2), "a rule names a profile that is not there: {output:?}");
    assert!(stderr(&output).contains("rule `tight` names the profile `gone`"), "{}", stderr(&output));
    fs::write(rules.join("own.toml"), rule).unwrap();
    let (process, base) = start(root.path());
    let server = Served { root, process, base };
    let id = server.plan("frob");
    let operator = server.operator();
    let (_, shown) = server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!((&shown["profile"], &shown["confinement"]["profile"]), (&json!("workspace"), &json!("read-only")));
    assert_eq!(shown["confinement"]["rules"], json!(["tight"]));
    let described = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["show", &id]);
    let described = String::from_utf8(described.stdout).unwrap();
    assert!(described.contains("runs with read-only\nbecause   of the rules tight\n"), "{described}");
    for beyond in ["workspace", "network", "host"] {
        let body = json!({ "profile": beyond, "reason": "I say so" });
        let (status, answer) = server.by(&operator, "POST", &format!("/approve/{id}"), &body);
        assert_eq!((status, &answer["code"]), (409, &json!("profile_ruled")), "{beyond}: {answer}");
    }
    let (_, policy) = server.by(&operator, "GET", "/policy", &Value::Null);
    let own = policy["rules"].as_array().unwrap().iter().find(|rule| rule["id"] == "tight").unwrap();
    assert_eq!((&own["force_profile"], &own["forbid_profiles"]), (&json!("read-only"), &json!([])));
}

#[test]
fn a_file_that_exposes_provara_or_is_not_the_operators_starts_no_server() {
    let dir = folder();
    let root = dir.path();
    fs::create_dir_all(root.join("runtime")).unwrap();
    symlink(root.join("runtime"), root.join("harmless-name")).unwrap();
    let file = root.join("profiles.toml");
    let write = |body: &str| fs::write(&file, format!("[[profile]]\nname = 'own'\n{body}\n")).unwrap();
    for (body, told) in [
        (format!("writable = ['{}/harmless-name']", root.display()), "holds or lies in the runtime folder"),
        (format!("readable = ['{}']", root.display()), "holds or lies in"),
        (format!("writable = ['{}/policies/projects']", root.display()), "holds or lies in policy"),
        (format!("writable = ['{}']", file.display()), "holds or lies in configuration"),
        ("writable = ['/']".to_owned(), "it names `/` as write"),
        ("network = ['localhost:22']".to_owned(), "is this machine or link-local"),
        ("environment = ['AGENT_HUB_OPERATOR_TOKEN']".to_owned(), "a setting of Provara's own"),
        ("user = 'root'".to_owned(), "never `root`"),
        ("wriable = []".to_owned(), "unknown field `wriable`"),
    ] {
        write(&body);
        let output = checked(root);
        assert_eq!(output.status.code(), Some(2), "{body}: {output:?}");
        assert!(
            stderr(&output).contains(told) && stderr(&output).contains("profiles.toml:"),
            "{body}: {}",
            stderr(&output)
        );
        let doctor = provara(root, &["--json", "doctor"]);
        let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        let profiles = found["findings"].as_array().unwrap().iter().find(|it| it["check"] == "profiles").unwrap();
        assert_eq!(profiles["level"], "fail", "{body}");
        let by_hand = provara(root, &["profile", "check", "profiles.toml"]);
        assert_eq!(by_hand.status.code(), Some(2), "{body}: {by_hand:?}");
    }
    write("extends = 'workspace'");
    assert!(checked(root).status.success());
    let told = provara(root, &["profile", "check", "profiles.toml"]);
    assert!(String::from_utf8_lossy(&told.stdout).ends_with("OK: 1 beside the built-in ones\n"), "{told:?}");
    assert_eq!(provara(root, &["profile", "check", "none.toml"]).status.code(), Some(2));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let output = checked(root);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("can be written by others"), "{output:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "#".repeat(10 << 20)).unwrap();
    let output = checked(root);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("it has more than"), "{output:?}");
}

/// As many commands as a server runs at once keep the next from being claimed, until the server is gone.
#[test]
fn a_profile_that_changed_since_the_decision_is_not_run() {
    let root = folder();
    let cache = root.path().join("cache");
    fs::create_dir_all(cache.join("private")).unwrap();
    let profiles = example().replace("/srv/cache", cache.to_str().unwrap());
    fs::write(root.path().join("profiles.toml"), &profiles).unwrap();
    let (process, base) = start(root.path());
    let mut server = Served { root, process, base };
    let operator = server.operator();
    let approve = |server: &Served, command: &str, body: Value| {
        let id = server.plan(command);
        let headers = [("x-agent-token", operator.as_str()), ("prefer", "respond-async")];
        let (status, answer) = server.ask("POST", &format!("/approve/{id}"), &headers, &body.to_string());
        assert_eq!(status, 202, "{answer}");
        id
    };
    for _ in 0..32 {
        approve(&server, "sleep 300", json!({}));
    }
    let running = |server: &Served| {
        let (_, all) = server.by(&server.operator(), "GET", "/commands?state=running&limit=100", &Value::Null);
        all.as_array().unwrap().len()
    };
    until("32 runs", || running(&server) == 32);
    let chosen = |profile: &str| json!({ "profile": profile, "reason": "a test" });
    let [changed, kept] = ["sources", "kept"].map(|it| approve(&server, &format!("touch {it}"), chosen(it)));
    let look = |server: &Served, id: &str| server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null).1;
    assert_eq!(
        (&look(&server, &changed)["state"], &look(&server, &kept)["state"]),
        (&json!("approved"), &json!("approved"))
    );
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let root = server.root.path().to_owned();
    let other = profiles.replace("static.crates.io:443", "elsewhere.example:443");
    fs::write(root.join("profiles.toml"), other).unwrap();
    (server.process, server.base) = start(&root);
    until("the end of both", || [&changed, &kept].iter().all(|id| look(&server, id)["state"] == "finished"));
    let failure = |id: &str| look(&server, id)["run"]["outcome"]["failure"].clone();
    assert_eq!(failure(&changed), "changed", "{}", look(&server, &changed));
    // The same as decided on, so it runs.
    assert_eq!(look(&server, &kept)["run"]["exit_code"], 0, "{}", look(&server, &kept));
    assert!(!root.join("workspace/sources").exists() && root.join("workspace/kept").exists());
    let (status, again) = server.by(&operator, "POST", &format!("/reopen/{changed}"), &Value::Null);
    assert_eq!((status, &again["state"]), (200, &json!("pending")), "{again}");
}

/// The whole way of each profile, with the real resolver: what a plan is approved with is what holds, and the record says so.
#[test]
fn every_profile_holds_or_is_told_about_beforehand() {
    let server = served(example());
    let operator = server.operator();
    let (_, health) = server.by(&operator, "GET", "/health", &Value::Null);
    let problem = |name: &str| {
        let all = health["confinement"]["profiles"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap()["problem"].clone()
    };
    let root = nix::unistd::Uid::effective().is_root();
    for name in ["network", "read-only", "workspace"] {
        assert_eq!(problem(name), Value::Null, "{health}");
    }
    assert_eq!(problem("host").is_null(), root, "{health}");
    if !Path::new("/srv/cache").exists() {
        assert!(
            problem("kept").as_str().unwrap().starts_with("the profile's place `/srv/cache` is not there"),
            "{health}"
        );
        let doctor = provara(server.root.path(), &["doctor"]);
        let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(told.contains("the profile kept does not hold here: the profile's place"), "{told}");
        assert!(told.contains("profiles that hold here: ") && told.contains("network, read-only"), "{told}");
    }
    assert_eq!(server.by(&server.agent(), "GET", "/health", &Value::Null).1["confinement"], Value::Null);
    let run = |command: &str, profile: &str| {
        let id = server.plan(command);
        let body = json!({ "profile": profile, "reason": "a test" });
        let (status, answer) = server.by(&operator, "POST", &format!("/approve/{id}"), &body);
        assert_eq!(status, 200, "{answer}");
        (id.clone(), server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null).1["run"].clone())
    };
    let (_, ran) = run("touch x; echo $?; touch /tmp/x; echo $?", "read-only");
    assert_eq!((&ran["stdout"], &ran["enforced"]["profile"]), (&json!("1\n0\n"), &json!("read-only")), "{ran}");
    let port = server.base.rsplit(':').next().unwrap();
    let curl = "curl -sS -m 20 -o /dev/null -w '%{http_code}\n'";
    let calls = format!(
        "{curl} http://nobody.invalid/; {curl} --noproxy '' http://127.0.0.1:{port}/status; {curl} --noproxy '' \
         http://localhost:{port}/status; {curl} --noproxy '*' http://127.0.0.1:{port}/status"
    );
    let (id, ran) = run(&calls, "network");
    assert_eq!(ran["stdout"], "502\n400\n400\n000\n", "{ran}");
    let used = &ran["usage"]["network"];
    assert_eq!((&used["refused"], &used["destinations"]), (&json!(3), &json!([])), "{ran}");
    let told =
        json!({ "destination": "nobody.invalid:80", "reason": "its name does not lead to an address", "count": 1 });
    assert!(used["refusals"].as_array().unwrap().contains(&told), "{used}");
    let held = ran["enforced"]["mechanisms"].as_array().unwrap();
    assert!(held.iter().any(|it| it["name"] == "egress_proxy" && it["held"] == true), "{ran}");
    let (_, log) = server.by(&operator, "GET", "/audit?limit=500", &Value::Null);
    assert!(!log.to_string().contains("nobody.invalid"), "the log tells whom a command called");
    // Whom it spoke to is part of what is erased.
    let (status, erased) = server.by(&operator, "POST", "/erase", &json!({ "plan": id }));
    assert_eq!(status, 200, "{erased}");
    let (_, after) = server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null);
    assert_eq!(after["run"]["usage"]["network"], Value::Null, "{after}");
    assert!(after["run"]["usage"]["cpu_ms"].is_u64(), "{after}");
    if root {
        let (_, ran) = run("touch x && echo written", "host");
        assert_eq!(ran["stdout"], "written\n", "{ran}");
    }
}

#[test]
fn with_one_token_nobody_chooses_more_than_the_workspace() {
    let root = folder();
    let settings = "AGENT_HUB_SINGLE_TOKEN=1\n";
    fs::write(root.path().join(".env"), settings).unwrap();
    let (process, base) = start(root.path());
    let server = Served { root, process, base };
    let token = server.agent();
    let asked = server.by(&token, "POST", "/plan", &json!({ "command": "make x", "profile": "network" }));
    assert_eq!(asked.0, 422, "{}", asked.1);
    let id = server.plan("make x");
    for beyond in ["network", "host"] {
        let body = json!({ "profile": beyond, "reason": "please" });
        assert_eq!(server.by(&token, "POST", &format!("/approve/{id}"), &body).0, 422, "{beyond}");
    }
}
