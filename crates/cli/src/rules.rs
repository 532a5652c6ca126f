//! Testing rule files: loading one checks every example that it carries.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use provara_policy::{Policy, RuleFile, Strictness};
use serde_json::json;

use crate::display::visible;
use crate::failure::Failure;

/// Reads a rule file, and no more of it than a rule file may have.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let most = u64::try_from(RuleFile::MAX_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() > RuleFile::MAX_BYTES {
        let text = format!("it has more than {} bytes", RuleFile::MAX_BYTES);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// Loads the built-in rules and `files`, and says how many rules hold.
pub(crate) fn test(files: &[PathBuf], as_json: bool) -> Result<ExitCode, Failure> {
    let mut texts = Vec::new();
    for path in files {
        let text = read(path).map_err(|error| {
            let mend = "name a file of rules in TOML, written in UTF-8";
            Failure::Other(format!("{}: cannot be read: {error}; {mend}", path.display()))
        })?;
        texts.push((path.display().to_string(), text));
    }
    let files: Vec<_> = texts.iter().map(|(name, text)| RuleFile { name, text }).collect();
    let policy = Policy::load(&files, Strictness::Ask).map_err(|errors| Failure::Other(errors.to_string()))?;
    let (rules, digest) = (policy.rules().count(), policy.version().digest.as_str());
    let mut out = io::stdout().lock();
    if as_json {
        crate::display::write_json(&mut out, &json!({"ok": true, "rules": rules, "digest": digest}))?;
    } else {
        writeln!(out, "{}", visible(&format!("{rules} rules hold with all their examples\npolicy {digest}")))?;
    }
    Ok(ExitCode::SUCCESS)
}
