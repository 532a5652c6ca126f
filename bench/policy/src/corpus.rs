//! Corpora as they lie on the disk.

use std::path::Path;

use provara_domain::{CommandText, Judgement, Shell};
use provara_policy::{Policy, Request};
use serde::Deserialize;

/// What somebody holds a command for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Label {
    Dangerous,
    Benign,
    /// It depends; counted nowhere.
    Mixed,
}

impl Label {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Dangerous => "dangerous",
            Self::Benign => "benign",
            Self::Mixed => "mixed",
        }
    }
}

/// One command of a corpus.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) shell: Shell,
    pub(crate) command: CommandText,
    pub(crate) label: Label,
    pub(crate) category: String,
    /// The entry that this one says in other words.
    pub(crate) seed: Option<String>,
}

/// One file.
#[derive(Debug)]
pub(crate) struct Corpus {
    pub(crate) name: String,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Line {
    id: String,
    shell: String,
    command: String,
    label: Label,
    category: String,
    seed: Option<String>,
}

impl Corpus {
    /// Returns every `*.jsonl` of `folder` whose name has one of `only` in it, by name.
    pub(crate) fn all(folder: &Path, only: &[String]) -> Result<Vec<Self>, Box<dyn std::error::Error>> {
        let files: Result<Vec<_>, _> =
            std::fs::read_dir(folder)?.map(|entry| entry.map(|found| found.path())).collect();
        let mut files = files?;
        files.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
        files.sort();
        let mut corpora = Vec::new();
        for path in files {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if only.is_empty() || only.iter().any(|part| name.contains(part)) {
                corpora.push(Self { name, entries: entries(&std::fs::read_to_string(&path)?)? });
            }
        }
        Ok(corpora)
    }
}

pub(crate) fn entries(text: &str) -> Result<Vec<Entry>, Box<dyn std::error::Error>> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let Line { id, shell, command, label, category, seed } = serde_json::from_str(line)?;
        let shell = if shell == "bash" { Shell::Bash } else { Shell::Pwsh };
        // What is too long or holds a NUL never reaches policy.
        let Ok(command) = CommandText::parse(command) else { continue };
        entries.push(Entry { id, shell, command, label, category, seed });
    }
    Ok(entries)
}

impl Entry {
    pub(crate) fn judge(&self, policy: &Policy) -> Judgement {
        let workspaces = ["/work".to_owned()];
        policy.judge(&Request { command: &self.command, shell: self.shell, cwd: "/work", workspaces: &workspaces })
    }
}
