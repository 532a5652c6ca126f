//! What we want to be true, and the table that says whether it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::Failure;

/// Which way is good.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Bound::{AtLeast, AtMost};

/// One promise about one field.
struct Target {
    what: &'static str,
    measure: &'static str,
    /// Fields that choose the row.
    at: &'static [(&'static str, &'static str)],
    field: &'static str,
    unit: &'static str,
    bound: Bound,
}

const fn target(
    what: &'static str,
    measure: &'static str,
    at: &'static [(&'static str, &'static str)],
    (field, unit): (&'static str, &'static str),
    bound: Bound,
) -> Target {
    Target { what, measure, at, field, unit, bound }
}

const EMPTY: (&str, &str) = ("queue", "empty");
const LONG: (&str, &str) = ("queue", "long");
const ONE: (&str, &str) = ("clients", "1");
const SIXTEEN: (&str, &str) = ("clients", "16");
const MANY: (&str, &str) = ("clients", "64");

/// Less than that is a busy machine.
const IDLE: f64 = 0.85;

/// Set for two processors, an ext4 on virtio that answers an fdatasync in 0.2 ms, and a bare `bash -c true` of 1.5 ms.
const TARGETS: &[Target] = &[
    target("plan, 1 client: p50", "plan", &[EMPTY, ONE], ("p50_us", "µs"), AtMost(395.0)),
    target("plan, 16 clients", "plan", &[EMPTY, SIXTEEN], ("ops_per_s", "/s"), AtLeast(14_000.0)),
    target("plan, 64 clients", "plan", &[EMPTY, MANY], ("ops_per_s", "/s"), AtLeast(16_000.0)),
    target("plan, 64 clients: p99", "plan", &[EMPTY, MANY], ("p99_us", "µs"), AtMost(8000.0)),
    target("plan, 64 clients: server CPU", "plan", &[EMPTY, MANY], ("server_cpu_us_per_op", "µs"), AtMost(35.0)),
    target("pending, long queue, 16 clients", "pending", &[LONG, SIXTEEN], ("ops_per_s", "/s"), AtLeast(20_000.0)),
    target("status, long queue, 16 clients", "status", &[LONG, SIXTEEN], ("ops_per_s", "/s"), AtLeast(57_000.0)),
    target("status, long queue: server CPU", "status", &[LONG, SIXTEEN], ("server_cpu_us_per_op", "µs"), AtMost(20.0)),
    target("approve `true`: over a bare bash", "approve", &[EMPTY], ("overhead_p50_us", "µs"), AtMost(1000.0)),
    target("confinement: over a bare bash", "confinement", &[], ("overhead_p50_us", "µs"), AtMost(2000.0)),
    target("confinement: over bubblewrap", "confinement", &[], ("over_bwrap_us", "µs"), AtMost(0.0)),
    target(
        "32 approvals of `sleep 0.5`: over 0.5 s",
        "approve_parallel",
        &[EMPTY, ("approvals", "32")],
        ("over_ms", "ms"),
        AtMost(70.0),
    ),
    target("events, 100 readers: p50", "events", &[("readers", "100")], ("p50_us", "µs"), AtMost(2500.0)),
    target("events, 1000 readers: p50", "events", &[("readers", "1000")], ("p50_us", "µs"), AtMost(16_000.0)),
    target("events, 1000 readers: p99", "events", &[("readers", "1000")], ("p99_us", "µs"), AtMost(40_000.0)),
    target("events, 1000 readers: lost", "events", &[("readers", "1000")], ("lost", ""), AtMost(0.0)),
    target("memory per reader", "events", &[("readers", "1000")], ("kib_per_reader", "KiB"), AtMost(24.0)),
    target("memory, idle", "rss", &[EMPTY], ("server_mib", "MiB"), AtMost(12.0)),
    target("memory, long queue", "rss", &[LONG], ("server_mib", "MiB"), AtMost(40.0)),
    target(
        "memory per pending plan",
        "ratio",
        &[("of", "bytes of memory per pending plan")],
        ("value", "B"),
        AtMost(290.0),
    ),
    target("start after TERM, long queue", "restart", &[("signal", "TERM")], ("ready_ms", "ms"), AtMost(100.0)),
    target("start after KILL, long queue", "restart", &[("signal", "KILL")], ("ready_ms", "ms"), AtMost(100.0)),
    target("first pending after that", "restart", &[("signal", "KILL")], ("first_pending_ms", "ms"), AtMost(5.0)),
    target("acknowledged and lost by KILL", "restart", &[("signal", "KILL")], ("lost", ""), AtMost(0.0)),
    target("output of 100 MB: memory", "output", &[EMPTY, ("bytes", "100000000")], ("growth_mib", "MiB"), AtMost(16.0)),
    target(
        "output of 100 MB: worst /status",
        "output",
        &[EMPTY, ("bytes", "100000000")],
        ("status_worst_us", "µs"),
        AtMost(10_000.0),
    ),
    target("output of 100 MB: time", "output", &[EMPTY, ("bytes", "100000000")], ("wall_ms", "ms"), AtMost(400.0)),
    target("plan, long queue / empty", "ratio", &[("of", "plan, long queue / empty")], ("value", "x"), AtMost(1.1)),
    target("status, long queue / empty", "ratio", &[("of", "status, long queue / empty")], ("value", "x"), AtMost(1.1)),
    target(
        "pending, long queue / short",
        "ratio",
        &[("of", "pending, long queue / short")],
        ("value", "x"),
        AtMost(1.1),
    ),
    target(
        "approve, long queue / empty",
        "ratio",
        &[("of", "approve, long queue / empty")],
        ("value", "x"),
        AtMost(1.1),
    ),
    target("plan, 1000 readers / none", "ratio", &[("of", "plan, readers / none")], ("value", "x"), AtMost(2.0)),
    target("plan / serial fdatasync", "ratio", &[("of", "plan / serial fdatasync")], ("value", "x"), AtMost(1.9)),
    target(
        "plans, 16 clients / serial fdatasyncs",
        "ratio",
        &[("of", "plans per second / serial fdatasyncs per second")],
        ("value", "x"),
        AtLeast(2.9),
    ),
    target("approve / bare bash", "ratio", &[("of", "approve / bare bash")], ("value", "x"), AtMost(1.7)),
];

/// Returns the table for the results in `files`.
pub(crate) fn of_files(files: &[PathBuf]) -> Result<String, Failure> {
    let mut rows = Vec::new();
    for file in files {
        rows.extend(read(file)?);
    }
    Ok(table(&rows))
}

/// Between these lines of a document stands the table.
const MARKS: [&str; 2] = ["<!-- measured: written by `provara-bench table --write` -->", "<!-- end of measured -->"];

/// Puts `table` between the marks of a document.
pub(crate) fn write(document: &Path, table: &str) -> Result<(), Failure> {
    let failed = || Failure::io(document.display().to_string());
    let [begin, end] = MARKS;
    let text = fs::read_to_string(document).map_err(failed())?;
    let parts = text.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.ok_or_else(|| Failure::NoMarks { path: document.to_owned(), begin, end })?;
    fs::write(document, format!("{before}{begin}\n\n{table}\n{end}{after}")).map_err(failed())
}

fn read(file: &Path) -> Result<Vec<Value>, Failure> {
    let text = fs::read_to_string(file).map_err(Failure::io(file.display().to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let row = serde_json::from_str::<Value>(line).ok().filter(Value::is_object);
            row.ok_or_else(|| Failure::Results { path: file.to_owned(), line: at + 1 })
        })
        .collect()
}

/// Returns the Markdown table of measured against target.
pub(crate) fn table(rows: &[Value]) -> String {
    let mut text = machines(rows);
    text.push_str("| Measure | Measured | Target | Holds |\n| --- | ---: | ---: | --- |\n");
    for target in TARGETS {
        let (sign, bound) = match target.bound {
            AtMost(bound) => ("≤", bound),
            AtLeast(bound) => ("≥", bound),
        };
        let wanted = format!("{sign} {}", shown(bound, target.unit));
        let (measured, holds) = match median(rows, target) {
            None => ("not measured".to_owned(), ""),
            Some(found) if holds(found, target.bound) => (shown(found, target.unit), "yes"),
            Some(found) => (shown(found, target.unit), "**no**"),
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {} | {measured} | {wanted} | {holds} |", target.what);
    }
    text
}

/// A line for each kind of machine and run.
fn machines(rows: &[Value]) -> String {
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.get("measure").is_some_and(|measure| measure == "machine")) {
        let field = |name: &str| row.get(name).map_or_else(|| "?".to_owned(), plain);
        let note = row.get("note").map_or_else(String::new, |note| format!(": {}", plain(note)));
        let quick = if field("quick") == "true" { ", quick, so worth nothing" } else { "" };
        let kind = format!(
            "{} processors, {} MiB, Linux {}, {}{note}; {} build of {}, long queue {} plans{quick}",
            field("processors"),
            field("memory_mib"),
            field("linux"),
            field("filesystem"),
            field("build"),
            field("version"),
            field("long_queue"),
        );
        *kinds.entry(kind).or_default() += 1;
    }
    let told: Vec<String> = kinds.iter().map(|(kind, runs)| format!("{kind}. Runs: {runs}.\n")).collect();
    if told.is_empty() { String::new() } else { told.concat() + &busy(rows) + "\n" }
}

/// How many measures began beside somebody else's work: what they say is worse than the truth.
fn busy(rows: &[Value]) -> String {
    let idle: Vec<f64> = rows.iter().filter_map(|row| row.get("idle_before")?.as_f64()).collect();
    let disturbed = idle.iter().filter(|idle| **idle < IDLE).count();
    format!("Begun on a machine that was less than 85 % idle: {disturbed} of {} lines.\n", idle.len())
}

fn holds(found: f64, bound: Bound) -> bool {
    match bound {
        AtMost(bound) => found <= bound,
        AtLeast(bound) => found >= bound,
    }
}

/// The median of what several runs found: one of them may have met a busy machine.
fn median(rows: &[Value], target: &Target) -> Option<f64> {
    let fits = |row: &&Value| {
        let is = |name: &str, wanted: &str| row.get(name).is_some_and(|value| plain(value) == wanted);
        is("measure", target.measure) && target.at.iter().all(|(name, wanted)| is(name, wanted))
    };
    let mut found: Vec<f64> = rows.iter().filter(fits).filter_map(|row| row.get(target.field)?.as_f64()).collect();
    found.sort_by(f64::total_cmp);
    let upper = *found.get(found.len() / 2)?;
    let lower = *found.get((found.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// As many digits as a reader compares.
fn shown(value: f64, unit: &str) -> String {
    let places = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let number = format!("{value:.places$}");
    let (number, rest) = match number.split_once('.') {
        Some((whole, part)) => (whole, format!(".{part}").trim_end_matches('0').trim_end_matches('.').to_owned()),
        None => (number.as_str(), String::new()),
    };
    let grouped = grouped(number);
    if unit.is_empty() { format!("{grouped}{rest}") } else { format!("{grouped}{rest} {unit}") }
}

fn grouped(digits: &str) -> String {
    let length = digits.len();
    let comma = |at: usize| at > 0 && (length - at).is_multiple_of(3);
    digits
        .chars()
        .enumerate()
        .map(|(at, digit)| if comma(at) { format!(",{digit}") } else { digit.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_tells_what_holds_what_does_not_and_what_was_not_measured() {
        let plan = |ops: f64| json!({ "measure": "plan", "queue": "empty", "clients": 16, "ops_per_s": ops });
        let rows = [
            json!({ "measure": "machine", "processors": 2, "memory_mib": 1024, "linux": "6.1", "filesystem": "ext4",
                "build": "release", "version": "1.0", "long_queue": 10, "quick": false, "note": "a box", "idle_before": 0.5 }),
            plan(1.0),
            plan(15_000.4),
            plan(99_000.0),
            json!({ "measure": "approve", "queue": "empty", "overhead_p50_us": 1234.5 }),
            json!({ "measure": "events", "readers": 1000, "lost": 0, "error": "none" }),
        ];
        let table = table(&rows);
        let line = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap();
        assert_eq!(
            table.lines().next().unwrap(),
            "2 processors, 1024 MiB, Linux 6.1, ext4: a box; release build of 1.0, long queue 10 plans. Runs: 1."
        );
        assert_eq!(table.lines().nth(1).unwrap(), "Begun on a machine that was less than 85 % idle: 1 of 1 lines.");
        assert_eq!(line("| plan, 16"), "| plan, 16 clients | 15,000 /s | ≥ 14,000 /s | yes |");
        assert_eq!(line("| approve `true`"), "| approve `true`: over a bare bash | 1,234 µs | ≤ 1,000 µs | **no** |");
        assert_eq!(line("| events, 1000 readers: lost"), "| events, 1000 readers: lost | 0 | ≤ 0 | yes |");
        assert_eq!(line("| memory, idle"), "| memory, idle | not measured | ≤ 12 MiB |  |");
    }

    #[test]
    fn numbers_are_shown_as_a_reader_compares_them() {
        let all = [0.0, 0.456, 9.5, 12.34, 99.0, 100.4, 12_345.6, 1_234_567.0].map(|value| shown(value, "x"));
        assert_eq!(all, ["0 x", "0.46 x", "9.5 x", "12.3 x", "99 x", "100 x", "12,346 x", "1,234,567 x"]);
    }

    #[test]
    fn a_table_goes_between_the_marks_and_nothing_else_changes() {
        let [begin, end] = MARKS;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("# A\n{begin}\nold\n{end}\nB\n")).unwrap();
        for table in ["| new |\n", "| newer |\n"] {
            write(file.path(), table).unwrap();
            let text = fs::read_to_string(file.path()).unwrap();
            assert_eq!(text, format!("# A\n{begin}\n\n{table}\n{end}\nB\n"));
        }
        fs::write(file.path(), "no marks").unwrap();
        assert!(write(file.path(), "x").unwrap_err().to_string().ends_with("between which the table goes"));
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "no marks");
    }

    /// The document and the program must not part: a renamed target would leave a table that nobody can make.
    #[test]
    fn the_readme_holds_the_table_of_the_kept_results() {
        let [begin, end] = MARKS;
        let readme = include_str!("../README.md");
        let shown = readme.split_once(begin).unwrap().1.split_once(end).unwrap().0;
        let kept = of_files(&[concat!(env!("CARGO_MANIFEST_DIR"), "/results/reference.jsonl").into()]).unwrap();
        assert_eq!(
            shown.trim(),
            kept.trim(),
            "run `cargo run -p provara-bench -- table --write bench/README.md bench/results/reference.jsonl`"
        );
    }

    #[test]
    fn a_file_that_holds_something_else_is_named_with_its_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"{\"measure\":\"plan\"}\n\n[1]\n").unwrap();
        let path = file.path().to_owned();
        let expected = format!("`{}` line 3 is no JSON object; give a file that this program wrote", path.display());
        assert_eq!(of_files(&[path]).unwrap_err().to_string(), expected);
    }
}
