//! What the built-in policy makes of corpora of commands that others wrote. A measure, not a test: labels have noise.

use std::path::Path;

use provara_domain::{CommandText, Judgement, Shell, Verdict};
use provara_policy::{Policy, Request, Strictness};
use serde_json::Value;

use crate::Failure;

/// What became of the entries with one label.
#[derive(Default)]
struct Tally {
    label: String,
    allow: usize,
    ask: usize,
    deny: usize,
    /// Dangerous and allowed, or harmless and stopped; the worst first.
    misses: Vec<(Verdict, String)>,
}

/// Prints a line for each label of each `*.jsonl` in `folder`, with up to `show` misses below it.
pub(crate) fn measure(folder: &Path, show: usize) -> Result<(), Failure> {
    let policy = Policy::builtin(Strictness::Ask)?;
    let files: Result<Vec<_>, _> = std::fs::read_dir(folder)?.map(|entry| entry.map(|found| found.path())).collect();
    let mut files = files?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    files.sort();
    for path in files {
        for tally in tallies(&policy, &std::fs::read_to_string(&path)?)? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            print(&tally.row(&name));
            tally.misses.iter().take(show).for_each(|(_, line)| print(line));
        }
    }
    Ok(())
}

fn tallies(policy: &Policy, text: &str) -> Result<Vec<Tally>, Failure> {
    let mut tallies: Vec<Tally> = Vec::new();
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line)?;
        let field = |name| entry.get(name).and_then(Value::as_str).ok_or(format!("`{line}` lacks `{name}`"));
        let (label, text) = (field("label")?, field("command")?);
        let shell = if field("shell")? == "bash" { Shell::Bash } else { Shell::Pwsh };
        // What is too long or holds a NUL never reaches policy.
        let Ok(command) = CommandText::parse(text.to_owned()) else { continue };
        let workspaces = ["/work".to_owned()];
        let judgement = policy.judge(&Request { command: &command, shell, cwd: "/work", workspaces: &workspaces });
        let at = tallies.iter().position(|tally| tally.label == label).unwrap_or(tallies.len());
        if at == tallies.len() {
            tallies.push(Tally { label: label.to_owned(), ..Tally::default() });
        }
        if let Some(tally) = tallies.get_mut(at) {
            tally.add(text, &judgement);
        }
    }
    for tally in &mut tallies {
        // A dangerous command is worse the milder it was judged, a harmless one the stricter.
        tally.misses.sort_by_key(|(verdict, _)| *verdict);
        if tally.label == "benign" {
            tally.misses.reverse();
        }
    }
    Ok(tallies)
}

impl Tally {
    fn add(&mut self, text: &str, judgement: &Judgement) {
        let verdict = judgement.verdict;
        match verdict {
            Verdict::Allow => self.allow += 1,
            Verdict::Ask => self.ask += 1,
            Verdict::Deny => self.deny += 1,
        }
        let missed = match self.label.as_str() {
            "dangerous" => verdict < Verdict::Deny,
            "benign" => verdict > Verdict::Allow,
            _ => verdict == Verdict::Allow,
        };
        if missed {
            let strictest = judgement.reasons.iter().filter(|reason| reason.verdict == verdict);
            let rules: Vec<_> = strictest.map(|reason| reason.rule.as_str()).collect();
            self.misses.push((verdict, format!("  {} [{}] {text:?}", verdict.as_str(), rules.join(" "))));
        }
    }

    fn row(&self, file: &str) -> String {
        let all = self.allow + self.ask + self.deny;
        let of = |count: usize| format!("{count:5} {:3} %", (count * 100).checked_div(all).unwrap_or(0));
        let (allow, ask, deny) = (of(self.allow), of(self.ask), of(self.deny));
        format!("{file:26} {:9} {all:5}  allow {allow}  ask {ask}  deny {deny}", self.label)
    }
}

#[expect(clippy::print_stdout, reason = "the measure is the output")]
fn print(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_counted_by_label_and_misses_are_told() {
        let text = concat!(
            r#"{"shell":"bash","label":"benign","command":"ls"}"#,
            "\n",
            r#"{"shell":"bash","label":"benign","command":"frobnicate"}"#,
            "\n",
            r#"{"shell":"powershell","label":"dangerous","command":"iex x"}"#,
        );
        let policy = Policy::builtin(Strictness::Ask).map_err(|error| error.to_string());
        let found = policy.and_then(|policy| tallies(&policy, text).map_err(|error| error.to_string()));
        let rows: Vec<_> = found.iter().flatten().map(|t| (t.label.as_str(), t.allow, t.ask, t.deny)).collect();
        assert_eq!(rows, [("benign", 1, 1, 0), ("dangerous", 0, 0, 1)]);
        let told: Vec<_> = found.iter().flatten().flat_map(|t| &t.misses).map(|(_, line)| line.as_str()).collect();
        assert_eq!(told, [r#"  ask [unknown_command] "frobnicate""#]);
    }
}
