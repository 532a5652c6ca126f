//! Testing rule files: loading one checks every example that it carries.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use provara_policy::{Policy, RuleFile, Strictness};
use serde_json::json;

use crate::display::visible;
use crate::failure::Failure;

/// Loads the built-in rules and `files`, and says how many rules hold.
pub(crate) fn test(files: &[PathBuf], as_json: bool) -> Result<ExitCode, Failure> {
    let mut texts = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|error| {
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
