//! What `/openapi.json` says against what a real server answers, by schemathesis: a reader that knows only the document.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::served::Served;

/// The same requests on every machine. Another seed finds other things; a fault found so is kept as a test of its own.
const SEED: &str = "20261124";
/// Requests for each operation and phase: enough to reach every field, few enough to run on every change.
const EXAMPLES: &str = "10";

/// Checks that contradict the design.
const NOT_CHECKED: [(&str, &str); 3] = [
    ("positive_data_acceptance", "whether a folder, a role or a state admits a request is no matter of its shape"),
    ("negative_data_rejection", "numbers and truth may be spelled as texts, as the original's clients do"),
    (
        "ignored_auth",
        "it shows wrong tokens until the bucket for guessers is empty; a test of our own asks without one",
    ),
];

/// Operations that are not asked.
const NOT_ASKED: [(&str, &str); 1] = [("events", "its answer has no end")];

#[expect(clippy::print_stderr, reason = "a skip is said loudly")]
fn schemathesis() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("PROVARA_TEST_PYTHON") {
        return Some(PathBuf::from(folder).join("bin/schemathesis"));
    }
    assert!(std::env::var_os("CI").is_none(), "PROVARA_TEST_PYTHON is not set, and in CI nothing is skipped");
    eprintln!(
        "SKIPPED: PROVARA_TEST_PYTHON is not set (`./test` sets it), so the API was not checked with schemathesis"
    );
    None
}

fn conforms(server: &Served, token: &str) {
    let Some(schemathesis) = schemathesis() else { return };
    let stopped = known_ids(server);
    let mut command = Command::new(schemathesis);
    command.current_dir(server.root.path()).stdin(Stdio::null());
    command.arg("run").arg(format!("{}/openapi.json", server.base));
    command.arg("--header").arg(format!("X-Agent-Token: {token}"));
    command.args(["--phases", "examples,coverage,fuzzing,stateful", "--seed", SEED, "--max-examples", EXAMPLES]);
    command.args(["--generation-database", "none", "--request-timeout", "20", "--no-color", "--no-shrink"]);
    command.args([
        "--suppress-health-check",
        "all",
        "--continue-on-failure",
        "--warnings",
        "off",
        "--max-failures",
        "20",
    ]);
    command.args(["--checks", "all", "--exclude-checks", &NOT_CHECKED.map(|(check, _)| check).join(",")]);
    for (operation, _) in NOT_ASKED {
        command.args(["--exclude-operation-id", operation]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "seed {SEED}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // A run that asked nothing must not pass.
    assert!(text.contains("No issues found"), "{text}");
    let (_, seen) = server.by(&server.operator(), "GET", &format!("/commands/{stopped}"), &Value::Null);
    assert_eq!(seen["state"], "withdrawn", "the plans that exist were never asked about: {seen}\n{text}");
}

/// Names plans and runs that exist: invented ids are answered with 404, and nothing else would be seen. Returns the one that
/// is to be cancelled.
fn known_ids(server: &Served) -> String {
    let ran = server.approved("echo one; echo two >&2; exit 3");
    let ended = ran["pending_id"].as_str().unwrap();
    let mut settings = String::new();
    let mut name = |operation: &str, id: &str| {
        settings.push_str(&format!("[[operations]]\ninclude-operation-id = \"{operation}\"\n"));
        settings.push_str(&format!("parameters = {{ \"path.id\" = \"{id}\" }}\n"));
    };
    name("command", ended);
    for operation in ["run", "output"] {
        name(operation, ran["run_id"].as_str().unwrap());
    }
    for operation in ["approve", "deny", "edit", "reopen", "extend", "preview"] {
        name(operation, &server.plan(&format!("echo {operation}")));
    }
    // Left to itself it finds the token that it uses, and revokes that.
    let spare = json!({ "name": "spare", "roles": ["agent"] });
    let (_, spare) = server.by(&server.operator(), "POST", "/tokens", &spare);
    name("revokeToken", spare["id"].as_str().unwrap());
    let stopped = server.plan("make install");
    name("cancel", &stopped);
    fs::write(server.root.path().join("schemathesis.toml"), settings).unwrap();
    stopped
}

#[test]
fn an_agent_is_answered_as_the_document_says() {
    let server = Served::new();
    conforms(&server, &server.agent());
}

#[test]
fn an_operator_is_answered_as_the_document_says() {
    let server = Served::new();
    conforms(&server, &server.operator());
}

#[test]
fn only_what_the_document_calls_open_answers_without_a_token() {
    let server = Served::new();
    let (status, document) = server.ask("GET", "/openapi.json", &[], "");
    assert_eq!(status, 200);
    let mut open = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let (status, answer) = server.ask(&method.to_uppercase(), &path.replace("{id}", "x"), &[], "");
            if operation["security"] == json!([{}]) {
                assert_eq!(status, 200, "{method} {path}: {answer}");
                open.push(path.as_str());
            } else {
                assert_eq!((status, &answer["code"]), (401, &json!("unauthorized")), "{method} {path}");
            }
        }
    }
    assert_eq!(open, ["/docs", "/docs.css", "/healthz", "/openapi.json", "/readyz", "/status"]);
}

#[test]
fn the_page_of_the_api_needs_nothing_from_elsewhere_and_runs_nothing() {
    let server = Served::new();
    let response = ureq::get(format!("{}/docs", server.base)).call().unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
    let page = response.into_body().read_to_string().unwrap();
    assert!(page.contains("<code>POST /approve/{id}</code>") && page.contains("id=\"schema-Judgement\""));
    for foreign in ["<script", "http://", "https://", "style=\""] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn what_agents_ask_policy_leaves_them_room_to_plan() {
    let server = Served::new();
    let left = |path: &str| {
        let mut request = ureq::post(format!("{}{path}", server.base)).header("x-agent-token", server.agent());
        request = request.header("content-type", "application/json");
        let response = request.send(r#"{"command":"ls"}"#).unwrap();
        response.headers()["ratelimit"].to_str().unwrap().split(';').nth(1).unwrap().to_owned()
    };
    assert_eq!([left("/policy/check"), left("/policy/check"), left("/plan")], ["r=99999", "r=99998", "r=99999"]);
}
