//! The Python package: its lints, types and tests in an environment of its own, against the server that was just built.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Failure, cargo, succeed};

const PROJECT: &str = "sdk/python";
const REQUIREMENTS: &str = "sdk/python/requirements-test.txt";
const ENVIRONMENT: &str = "target/python-sdk";
/// Written last: an environment without it was not finished.
const INSTALLED: &str = "target/python-sdk/installed.txt";

/// Checks the Python package and its example. Needs python3 with venv.
pub(crate) fn check() -> Result<(), Failure> {
    prepare()?;
    cargo(&["build", "--package", "provara-cli"])?;
    let tool = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(fs::canonicalize(ENVIRONMENT)?.join("bin").join(name));
        command.args(arguments).current_dir(PROJECT);
        // Tests start the server with settings of their own.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AGENT_HUB_")) {
            command.env_remove(name);
        }
        command.env("PROVARA_BIN", fs::canonicalize("target/debug/provara")?);
        succeed(command)
    };
    tool("ruff", &["format", "--check", ".", "../../examples/diagnose.py"])?;
    tool("ruff", &["check", ".", "../../examples/diagnose.py"])?;
    tool("mypy", &[])?;
    // The wheel is built and looked into by one of the tests.
    tool("pytest", &[])
}

/// Makes the environment anew where the requirements or the package's own manifest have changed.
fn prepare() -> Result<(), Failure> {
    let wanted = format!("{}\n{}", fs::read_to_string(REQUIREMENTS)?, fs::read_to_string("sdk/python/pyproject.toml")?);
    if fs::read_to_string(INSTALLED).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if Path::new(ENVIRONMENT).exists() {
        fs::remove_dir_all(ENVIRONMENT)?;
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", ENVIRONMENT]);
    succeed(venv).map_err(|failure| format!("{failure}; install it with `apt-get install python3-venv`"))?;
    for arguments in [["--requirement", REQUIREMENTS].as_slice(), &["--no-build-isolation", "--editable", PROJECT]] {
        let mut pip = Command::new(Path::new(ENVIRONMENT).join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(arguments);
        succeed(pip)?;
    }
    Ok(fs::write(INSTALLED, wanted)?)
}
