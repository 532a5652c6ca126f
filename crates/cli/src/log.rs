//! Checking an exported log: from bytes alone, without a server.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use provara_audit::checkpoint::VerifierKey;
use provara_audit::verify::verify as check;
use serde_json::json;

use crate::display::visible_line;
use crate::failure::Failure;

/// Checks `file` against `checkpoints` signed by `key` and reports. Anything wrong is exit code 1.
pub(crate) fn verify(
    file: &Path,
    checkpoints: &[PathBuf],
    key: Option<&Path>,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    if key.is_none() && !checkpoints.is_empty() {
        return Err(Failure::Usage("a checkpoint proves nothing without the log's key; give --key FILE".to_owned()));
    }
    let key = key.map(read).transpose()?;
    let key = key.map(|text| VerifierKey::parse(text.trim())).transpose();
    let key = key.map_err(|error| Failure::Usage(format!("the key cannot be used: {error}")))?;
    let notes = checkpoints.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let lines = File::open(file).map_err(|error| unreadable(file, &error))?;
    let report =
        check(BufReader::new(lines), key.as_ref(), &notes).map_err(|error| Failure::Other(error.to_string()))?;
    let root: String = report.root.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let mut out = io::stdout().lock();
    if as_json {
        let answer = json!({"ok": problems.is_empty(), "entries": report.entries, "root": root, "checked_until": report.checked_until, "problems": problems});
        crate::display::write_json(&mut out, &answer)?;
    } else {
        writeln!(out, "entries  {}\nroot     {root}", report.entries)?;
        match report.checked_until {
            Some(size) => writeln!(out, "signed   the first {size} entries fit a checkpoint")?,
            None => {
                writeln!(out, "signed   nothing: no checkpoint fitted, so a cut or rewritten log could look like this")?
            }
        }
        for problem in &problems {
            writeln!(out, "WRONG    {}", visible_line(problem))?;
        }
        writeln!(out, "{}", if problems.is_empty() { "OK" } else { "NOT OK" })?;
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::Other(format!("`{}` cannot be read: {error}", path.display()))
}
