//! What the built-in policy makes of corpora of commands that others wrote. A measure, not a test: labels have noise.
//! See `docs/policy-scores.md`.

mod corpus;
mod latency;
mod score;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use provara_policy::{Policy, Strictness};

use crate::corpus::Corpus;
use crate::score::Score;

/// Judges every command of every `*.jsonl` in a folder and prints what that amounts to.
#[derive(Parser)]
struct Args {
    /// The folder with the corpora: one object a line with `id`, `shell`, `command`, `label`, `category`.
    #[arg(env = "PROVARA_CORPORA")]
    corpora: PathBuf,
    /// Only files whose name has this in it; may be given again.
    #[arg(long)]
    only: Vec<String>,
    /// Also a row for each category.
    #[arg(long)]
    categories: bool,
    /// Also the commands that were judged wrongly, at most so many of each file and label.
    #[arg(long, default_value_t = 0)]
    misses: usize,
    /// Of the misses only those that were judged so: `allow`, `ask` or `deny`.
    #[arg(long)]
    judged: Option<String>,
    /// Not how long it takes.
    #[arg(long)]
    no_latency: bool,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            print(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<String, Box<dyn std::error::Error>> {
    let corpora = Corpus::all(&args.corpora, &args.only)?;
    let policy = Policy::builtin(Strictness::Ask)?;
    let score = Score::of(&policy, &corpora);
    let mut text = score.table(args.categories);
    text.push_str(&score.misses(args.misses, args.judged.as_deref()));
    if !args.no_latency {
        text.push_str(&latency::table(&policy, &corpora)?);
    }
    Ok(text)
}

#[expect(clippy::print_stdout, reason = "the measure is the output")]
fn print(line: &str) {
    println!("{line}");
}
