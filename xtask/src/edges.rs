//! Which crate may use which. A new edge is a line here, so that somebody reviews it.

use std::process::Command;

use serde_json::Value;

use crate::Failure;

/// Down this list only; each crate with what it may use of ours.
const ALLOWED: &[(&str, &[&str])] = &[
    ("provara-domain", &[]),
    // Where a test may end the process: nothing in a release build.
    ("provara-faults", &[]),
    // Plain numbers: whoever has something to count may.
    ("provara-metrics", &[]),
    // Text and bytes: whoever sends something away may.
    ("provara-redact", &[]),
    ("provara-audit", &["provara-domain"]),
    ("provara-policy", &["provara-domain"]),
    ("provara-store", &["provara-audit", "provara-domain", "provara-faults", "provara-metrics"]),
    ("provara-runner", &["provara-domain", "provara-faults"]),
    // `audit` for the digests that decisions bind and for signing checkpoints.
    (
        "provara-gateway",
        &[
            "provara-audit",
            "provara-domain",
            "provara-faults",
            "provara-policy",
            "provara-redact",
            "provara-runner",
            "provara-store",
        ],
    ),
    ("provara-server", &["provara-domain", "provara-gateway", "provara-metrics"]),
    (
        "provara-cli",
        &[
            "provara-audit",
            "provara-domain",
            "provara-faults",
            "provara-gateway",
            "provara-policy",
            "provara-redact",
            "provara-runner",
            "provara-server",
            "provara-store",
        ],
    ),
    // For tests only: nobody may name it but as a dev-dependency.
    (
        "provara-testkit",
        &["provara-audit", "provara-domain", "provara-gateway", "provara-policy", "provara-redact", "provara-store"],
    ),
    // A client like any other, but for the cost of policy and of confinement, which it measures without a server.
    ("provara-bench", &["provara-domain", "provara-policy", "provara-runner"]),
    // It measures the built-in policy.
    ("provara-bench-policy", &["provara-domain", "provara-policy"]),
    ("xtask", &[]),
];

/// Only these crates' own code may need something beyond serde.
const BARE: (&str, &[&str]) = ("provara-domain", &["serde"]);

/// Compares the workspace's manifests with the table.
pub(crate) fn check() -> Result<(), Failure> {
    let output = Command::new("cargo").args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let found = violations(&serde_json::from_slice(&output.stdout)?);
    if found.is_empty() { Ok(()) } else { Err(found.join("\n").into()) }
}

fn violations(metadata: &Value) -> Vec<String> {
    let packages = metadata.get("packages").and_then(Value::as_array);
    let mut found = Vec::new();
    for package in packages.into_iter().flatten() {
        let Some(name) = package.get("name").and_then(Value::as_str) else { continue };
        for used in normal_dependencies(package) {
            let ours = used.starts_with("provara-");
            let allowed = ALLOWED.iter().find(|(from, _)| *from == name).map(|(_, to)| *to);
            if ours && !allowed.is_some_and(|allowed| allowed.contains(&used)) {
                found.push(format!("{name} must not use {used}; the allowed edges are in xtask/src/edges.rs"));
            }
            if name == BARE.0 && !BARE.1.contains(&used) {
                found.push(format!("{name} must not use {used}: it is plain data"));
            }
        }
    }
    found
}

/// Dependencies of the product itself; tests may use what they like.
fn normal_dependencies(package: &Value) -> impl Iterator<Item = &str> {
    let all = package.get("dependencies").and_then(Value::as_array);
    all.into_iter()
        .flatten()
        .filter(|dependency| dependency.get("kind").is_none_or(Value::is_null))
        .filter_map(|dependency| dependency.get("name").and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_edge_upwards_is_refused_and_a_tests_edge_is_not() {
        let metadata = json!({ "packages": [
            { "name": "provara-store", "dependencies": [
                { "name": "provara-domain", "kind": null },
                { "name": "provara-gateway", "kind": null },
                { "name": "provara-policy", "kind": "dev" },
            ] },
            { "name": "provara-domain", "dependencies": [{ "name": "serde" }, { "name": "regex" }] },
        ] });
        assert_eq!(
            violations(&metadata),
            [
                "provara-store must not use provara-gateway; the allowed edges are in xtask/src/edges.rs",
                "provara-domain must not use regex: it is plain data",
            ]
        );
    }
}
