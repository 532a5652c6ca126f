//! What policy alone takes, in this process: the share of a plan that is neither HTTP nor disk.

use std::hint::black_box;
use std::time::{Duration, Instant};

use provara_domain::{CommandText, Shell, Verdict};
use provara_policy::{Policy, Request, Strictness};

use crate::commands;
use crate::failure::Failure;
use crate::load::{Samples, micros};
use crate::row::Row;

/// Returns a row for each kind of command.
pub(crate) fn measure(lasting: Duration) -> Result<Vec<Row>, Failure> {
    let policy = Policy::builtin(Strictness::Ask).map_err(|errors| Failure::Policy(errors.to_string()))?;
    let long = commands::long();
    let kinds: [(&str, Vec<&str>); 4] = [
        ("plan", vec![commands::PLAN]),
        ("short", commands::SHORT.to_vec()),
        ("long", vec![&long]),
        ("hostile", commands::HOSTILE.to_vec()),
    ];
    kinds.into_iter().map(|(kind, texts)| one(&policy, kind, &texts, lasting / 4)).collect()
}

fn one(policy: &Policy, kind: &str, texts: &[&str], lasting: Duration) -> Result<Row, Failure> {
    let parsed = texts.iter().map(|text| CommandText::parse((*text).to_owned()));
    let parsed: Vec<CommandText> =
        parsed.collect::<Result<_, _>>().map_err(|error| Failure::Policy(error.to_string()))?;
    let workspaces = ["/work".to_owned()];
    let judge =
        |command| policy.judge(&Request { command, shell: Shell::Bash, cwd: "/work", workspaces: &workspaces }).verdict;
    let allowed = parsed.iter().filter(|command| judge(command) == Verdict::Allow).count();
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.is_empty() || begun.elapsed() < lasting {
        for command in &parsed {
            let asked = Instant::now();
            black_box(judge(black_box(command)));
            times.push(asked.elapsed());
        }
    }
    let mean = micros(begun.elapsed()) / f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX));
    let samples = Samples::new(times);
    Ok(Row::new("judge")
        .with("commands", kind)
        .with("texts", parsed.len())
        .with("allowed", allowed)
        .with("judged", samples.count())
        .number("mean_us", mean)
        .number("p50_us", samples.micros(50))
        .number("p99_us", samples.micros(99)))
}
