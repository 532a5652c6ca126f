//! The tests' own Python: a virtual environment below `target/`, made anew only when what it holds should change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, succeed};

/// What tests find the environment by.
pub(crate) const VARIABLE: &str = "PROVARA_TEST_PYTHON";

const REQUIREMENTS: &str = "xtask/requirements.txt";

/// Returns the folder of an environment that holds exactly what the requirements name.
pub(crate) fn venv() -> Result<PathBuf, Failure> {
    let venv = std::path::absolute("target/python")?;
    let wanted = fs::read_to_string(REQUIREMENTS)?;
    // Written last: an environment that was interrupted while it was made has none.
    let stamp = venv.join("holds.txt");
    if fs::read_to_string(&stamp).is_ok_and(|held| held == wanted) && works(&venv) {
        return Ok(venv);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&venv);
    succeed(make)?;
    let mut install = Command::new(venv.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", REQUIREMENTS]);
    succeed(install)?;
    fs::write(stamp, wanted)?;
    Ok(venv)
}

/// Whether the interpreter that it was made with is still there.
fn works(venv: &Path) -> bool {
    Command::new(venv.join("bin/python")).arg("--version").output().is_ok_and(|output| output.status.success())
}
