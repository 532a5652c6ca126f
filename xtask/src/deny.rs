//! What the dependency tree may hold: licences, sources, bans, as `deny.toml` says.
//!
//! Advisories are not asked here: their database has to be fetched, and a gate must not depend on a network beyond the package
//! registries. `cargo deny check advisories` does that by hand.

use std::path::Path;
use std::process::Command;

use crate::{Failure, succeed};

const VERSION: &str = "0.20.2";

/// Checks the tree, with a cargo-deny of our own below `target/`.
pub(crate) fn check() -> Result<(), Failure> {
    let tools = std::path::absolute("target/tools")?;
    let program = tools.join("bin/cargo-deny");
    if !is_there(&program) {
        let mut install = Command::new("cargo");
        // Unoptimised: it looks at the tree for a second, and building it well takes minutes.
        install.args(["install", "--locked", "--quiet", "--debug", "--root"]).arg(&tools);
        install.arg(format!("cargo-deny@{VERSION}")).env("CARGO_TARGET_DIR", tools.join("build"));
        succeed(install)?;
        // Larger than all of ours, and never needed again.
        std::fs::remove_dir_all(tools.join("build"))?;
    }
    let mut check = Command::new(program);
    check.args(["--log-level", "error", "check", "licenses", "bans", "sources"]);
    succeed(check)
}

fn is_there(program: &Path) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).trim().ends_with(VERSION))
}
