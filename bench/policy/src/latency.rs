//! How long judging takes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use provara_domain::{CommandText, Judgement, Shell};
use provara_policy::{Policy, PolicyErrors, Request, Strictness};

use crate::corpus::Corpus;

/// The best of this many: others use the machine too.
const TRIES: u32 = 3;

/// Texts of the longest length that is taken, made to be dear.
const DEAR: &[(&str, &str)] = &[
    ("separators", "a;"),
    ("pipes", "a|"),
    ("substitutions", "$("),
    ("quoted substitutions", "\"$("),
    ("groups", "("),
    ("wrappers", "sudo "),
    ("shells in shells", "bash -c "),
    ("here-documents", "<<a\n"),
    ("open quotes", "'\""),
    ("variables", "a=$a$a;"),
    ("braces", "{a,b}"),
    ("deletions", "rm -rf x;"),
    ("evaluations", "eval "),
    ("if", "if a; then "),
    ("case", "case a in a) "),
    ("functions", "f(){ f;};f;"),
    ("printf to sh", "printf a|sh;"),
    ("code", "python -c 'open(\"a\")';"),
    ("words", "a "),
    ("long word", "a"),
];

/// Returns rows for the load, every corpus and the dear texts.
pub(crate) fn table(policy: &Policy, corpora: &[Corpus]) -> Result<String, PolicyErrors> {
    let mut text =
        String::from("| latency | commands | median µs | p99 µs | worst µs |\n| --- | ---: | ---: | ---: | ---: |\n");
    let load = best(|| Policy::builtin(Strictness::Ask).map(drop))?;
    text.push_str(&row("load of the built-in policy", vec![load]));
    for corpus in corpora {
        let times = corpus.entries.iter().map(|entry| best(|| judged(&entry.judge(policy))));
        text.push_str(&row(&corpus.name, times.collect::<Result<_, _>>()?));
    }
    for (name, piece) in DEAR {
        let Ok(command) = CommandText::parse(piece.repeat(CommandText::MAX_CHARS / piece.chars().count())) else {
            continue;
        };
        let request = Request { command: &command, shell: Shell::Bash, cwd: "/work", workspaces: &[] };
        let time = best(|| judged(&policy.judge(&request)))?;
        text.push_str(&row(&format!("10,000 characters of {name}"), vec![time]));
    }
    Ok(text)
}

fn judged(judgement: &Judgement) -> Result<(), PolicyErrors> {
    black_box(judgement);
    Ok(())
}

fn best(work: impl Fn() -> Result<(), PolicyErrors>) -> Result<Duration, PolicyErrors> {
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let begun = Instant::now();
        work()?;
        best = best.min(begun.elapsed());
    }
    Ok(best)
}

fn row(name: &str, mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| {
        let index = (times.len() * share / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(0, Duration::as_micros)
    };
    format!("| {name} | {} | {} | {} | {} |\n", times.len(), at(50), at(99), at(100))
}
