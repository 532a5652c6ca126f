//! Verdicts against labels.

use std::collections::{BTreeMap, HashMap};

use provara_domain::{Judgement, Verdict};
use provara_policy::Policy;

use crate::corpus::{Corpus, Entry, Label};

/// What became of some entries.
#[derive(Default, Clone, Copy)]
struct Tally {
    allow: usize,
    ask: usize,
    deny: usize,
}

/// What became of all.
pub(crate) struct Score {
    /// By file, label and category.
    tallies: BTreeMap<(String, Label, String), Tally>,
    misses: BTreeMap<(String, Label), Vec<(Verdict, String)>>,
    /// Of mutants whose seed is denied: by class how many there are, and how many are denied too.
    retained: BTreeMap<(String, String), (usize, usize)>,
}

impl Score {
    pub(crate) fn of(policy: &Policy, corpora: &[Corpus]) -> Self {
        let mut score = Self { tallies: BTreeMap::new(), misses: BTreeMap::new(), retained: BTreeMap::new() };
        let mut verdicts = HashMap::new();
        for corpus in corpora {
            for entry in &corpus.entries {
                let judgement = entry.judge(policy);
                verdicts.insert(entry.id.as_str(), judgement.verdict);
                score.add(&corpus.name, entry, &judgement);
            }
        }
        for corpus in corpora {
            let mutants = corpus.entries.iter().filter_map(|entry| Some((entry, entry.seed.as_deref()?)));
            for (entry, seed) in mutants.filter(|(entry, seed)| entry.id != *seed) {
                if verdicts.get(seed) == Some(&Verdict::Deny) {
                    let class = (corpus.name.clone(), entry.category.clone());
                    let (all, denied) = score.retained.entry(class).or_default();
                    *all += 1;
                    *denied += usize::from(verdicts.get(entry.id.as_str()) == Some(&Verdict::Deny));
                }
            }
        }
        score
    }

    fn add(&mut self, file: &str, entry: &Entry, judgement: &Judgement) {
        let verdict = judgement.verdict;
        let key = (file.to_owned(), entry.label, entry.category.clone());
        self.tallies.entry(key).or_default().count(verdict);
        let missed = match entry.label {
            Label::Dangerous => verdict < Verdict::Deny,
            Label::Benign => verdict > Verdict::Allow,
            Label::Mixed => false,
        };
        if missed {
            let strictest = judgement.reasons.iter().filter(|reason| reason.verdict == verdict);
            let rules: Vec<_> = strictest.map(|reason| reason.rule.as_str()).collect();
            let (word, text) = (verdict.as_str(), entry.command.as_str());
            let line = format!("  {word} {} {} [{}] {text:?}", entry.id, entry.category, rules.join(" "));
            self.misses.entry((file.to_owned(), entry.label)).or_default().push((verdict, line));
        }
    }

    /// Returns the table as Markdown.
    pub(crate) fn table(&self, categories: bool) -> String {
        let mut lines = vec![
            "| corpus | label | commands | deny | ask | allow | silent pass | prompt rate | wrong deny |".to_owned(),
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |".to_owned(),
        ];
        let mut wholes: BTreeMap<(&str, Label), Tally> = BTreeMap::new();
        for ((file, label, _), tally) in &self.tallies {
            wholes.entry((file, *label)).or_default().add(*tally);
        }
        for ((file, label), whole) in wholes {
            lines.push(whole.row(file, label));
            let parts = self.tallies.iter().filter(|((f, l, _), _)| f == file && *l == label);
            if categories {
                lines.extend(parts.map(|((_, _, category), tally)| tally.row(&format!("· {category}"), label)));
            }
        }
        lines.push(String::new());
        if !self.retained.is_empty() {
            lines.push("| evasions of denied commands | mutants | still denied |".to_owned());
            lines.push("| --- | ---: | ---: |".to_owned());
            let mut wholes: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
            for ((file, class), (all, denied)) in &self.retained {
                let whole = wholes.entry(file).or_default();
                *whole = (whole.0 + all, whole.1 + denied);
                lines.push(format!("| {file}: {class} | {all} | {} |", percent(*denied, *all)));
            }
            for (file, (all, denied)) in wholes {
                lines.push(format!("| {file} | {all} | {} |", percent(denied, all)));
            }
            lines.push(String::new());
        }
        lines.join("\n") + "\n"
    }

    /// Returns what was judged wrongly: dangerous ones the milder first, harmless ones the stricter.
    pub(crate) fn misses(&self, most: usize, judged: Option<&str>) -> String {
        let mut text = String::new();
        for ((file, label), found) in self.misses.iter().filter(|_| most > 0) {
            let mut found: Vec<_> =
                found.iter().filter(|(verdict, _)| judged.is_none_or(|word| word == verdict.as_str())).collect();
            found.sort_by_key(|(verdict, _)| *verdict);
            if *label == Label::Benign {
                found.reverse();
            }
            text.push_str(&format!("{file}, {}\n", label.as_str()));
            for (_, line) in found.into_iter().take(most) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

impl Tally {
    const fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Allow => self.allow += 1,
            Verdict::Ask => self.ask += 1,
            Verdict::Deny => self.deny += 1,
        }
    }

    const fn add(&mut self, other: Self) {
        self.allow += other.allow;
        self.ask += other.ask;
        self.deny += other.deny;
    }

    fn row(self, name: &str, label: Label) -> String {
        let Self { allow, ask, deny } = self;
        let all = allow + ask + deny;
        let (pass, prompts, wrong) = match label {
            Label::Dangerous => (percent(allow, all), String::new(), String::new()),
            Label::Benign => (String::new(), percent(ask + deny, all), percent(deny, all)),
            Label::Mixed => <_>::default(),
        };
        let label = label.as_str();
        format!("| {name} | {label} | {all} | {deny} | {ask} | {allow} | {pass} | {prompts} | {wrong} |")
    }
}

/// One place after the point, rounded down, so that no target is reached by rounding.
fn percent(part: usize, whole: usize) -> String {
    let thousandths = (part * 1000).checked_div(whole).unwrap_or(0);
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

#[cfg(test)]
mod tests {
    use provara_policy::Strictness;

    use super::*;
    use crate::corpus;

    #[test]
    fn verdicts_are_counted_by_label_and_mutants_are_held_against_their_seeds() {
        let lines = [
            r#"{"id":"a","shell":"bash","label":"benign","category":"c","command":"ls"}"#,
            r#"{"id":"b","shell":"bash","label":"benign","category":"c","command":"frobnicate"}"#,
            r#"{"id":"s","shell":"bash","label":"dangerous","category":"seed","command":"rm -rf /","seed":"s"}"#,
            r#"{"id":"m","shell":"bash","label":"dangerous","category":"quote","command":"r''m -rf /","seed":"s"}"#,
            r#"{"id":"n","shell":"bash","label":"dangerous","category":"quote","command":"ls","seed":"s"}"#,
        ];
        let corpora = [Corpus { name: "x".to_owned(), entries: corpus::entries(&lines.join("\n")).unwrap() }];
        let score = Score::of(&Policy::builtin(Strictness::Ask).unwrap(), &corpora);
        let table = score.table(false);
        for row in [
            "| x | dangerous | 3 | 2 | 0 | 1 | 33.3 % |  |  |",
            "| x | benign | 2 | 0 | 1 | 1 |  | 50.0 % | 0.0 % |",
            "| x: quote | 2 | 50.0 % |",
        ] {
            assert!(table.contains(row), "{row} is missing in\n{table}");
        }
        assert_eq!(
            score.misses(9, None),
            "x, dangerous\n  allow n quote [known_command] \"ls\"\nx, benign\n  ask b c [unknown_command] \"frobnicate\"\n"
        );
    }
}
