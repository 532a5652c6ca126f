//! Plans, judgements and endings in words. Nothing is cut, and no text of somebody else's can pass for ours: it is made
//! visible, every line of it is marked, and lines are folded here rather than by the terminal, whose folds bear no mark.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::display::{visible, visible_bytes, visible_line};
use crate::paint::Paint;
use crate::table::age;

/// The narrowest terminal that is folded for.
const NARROWEST: usize = 40;

/// Where a description goes.
pub(crate) struct Page<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) paint: Paint,
    /// Columns of the terminal; none where it goes elsewhere and nothing folds it.
    pub(crate) width: Option<usize>,
    /// Unix seconds.
    pub(crate) now: f64,
}

/// Returns the string `field` of `value`, or nothing.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

impl Page<'_> {
    /// Tells everything that will run, then what is known about it.
    pub(crate) fn plan(&mut self, plan: &Value) -> io::Result<()> {
        self.field("plan", text(plan, "pending_id"))?;
        self.field("state", text(plan, "state"))?;
        for (label, field) in [("replaced", "superseded_by"), ("replaces", "origin"), ("agent", "agent")] {
            self.field(label, text(plan, field))?;
        }
        let asked = plan.get("ts").and_then(Value::as_f64).map(|ts| age(self.now - ts));
        self.field("asked", &format!("{} ({} ago)", text(plan, "queued_at"), asked.unwrap_or_default()))?;
        self.field("expires", text(plan, "expires_at"))?;
        self.field("target", text(plan, "target"))?;
        self.confinement(plan)?;
        for field in ["shell", "cwd"] {
            self.field(field, text(plan, field))?;
        }
        let limit = plan.get("timeout_s").map(|seconds| format!("{seconds} s")).unwrap_or_default();
        self.field("time-out", &limit)?;
        self.field("digest", text(plan, "digest"))?;
        writeln!(self.out, "command")?;
        self.quote(&visible(text(plan, "command")))?;
        for secret in plan.get("secrets").and_then(Value::as_array).into_iter().flatten() {
            writeln!(self.out, "  ! a secret stands in it: {}", visible_line(text(secret, "rule")))?;
            if let Some(part) = part(text(plan, "command"), secret.get("span")) {
                self.quote_as("    > ", &visible_line(part))?;
            }
        }
        self.environment(plan.get("env"))?;
        self.input(plan.get("stdin_b64").and_then(Value::as_str))?;
        if let Some(binding) = plan.get("binding").filter(|binding| !binding.is_null()) {
            self.binding(binding)?;
        }
        if !text(plan, "note").is_empty() {
            writeln!(self.out, "the agent says (its words; nobody checked them)")?;
            self.quote(&visible(text(plan, "note")))?;
        }
        if let Some(judgement) = plan.get("judgement") {
            self.judgement(judgement, text(plan, "command"))?;
        }
        if let Some(denied) = plan.get("denied_before").filter(|denied| !denied.is_null()) {
            self.denied_before(denied)?;
        }
        if let Some(decision) = plan.get("decision").filter(|decision| !decision.is_null()) {
            self.decision(decision)?;
        }
        match plan.get("run").filter(|run| !run.is_null()) {
            Some(run) => self.run(run),
            None => Ok(()),
        }
    }

    /// Tells what policy says of `command`, with the part of it that each reason speaks of.
    pub(crate) fn judgement(&mut self, judgement: &Value, command: &str) -> io::Result<()> {
        let verdict = self.paint.verdict(&visible_line(text(judgement, "verdict")));
        writeln!(self.out, "policy    {verdict} ({})", visible_line(text(judgement, "severity")))?;
        for reason in judgement.get("reasons").and_then(Value::as_array).into_iter().flatten() {
            writeln!(self.out, "  - {}: {}", visible_line(text(reason, "rule")), visible_line(text(reason, "text")))?;
            if let Some(part) = part(command, reason.get("span")) {
                self.quote_as("    > ", &visible_line(part))?;
            }
        }
        Ok(())
    }

    /// Tells an approver that somebody said no to this before they say yes.
    fn denied_before(&mut self, denied: &Value) -> io::Result<()> {
        let times = denied.get("count").and_then(Value::as_u64).unwrap_or_default();
        let word = self.paint.verdict("deny");
        let last = visible_line(text(denied, "last_at"));
        let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
        writeln!(
            self.out,
            "before    {word}: people denied the same {times} in the time before it came, last at {last}"
        )?;
        if !text(denied, "reason").is_empty() {
            self.quote(&visible(text(denied, "reason")))?;
        }
        Ok(())
    }

    /// Tells a profile's name, who may ask for it, and what it lets a command do.
    pub(crate) fn profile(&mut self, profile: &Value) -> io::Result<()> {
        let agents = profile.get("agents_may_ask").and_then(Value::as_bool) == Some(true);
        let asked = if agents { "agents may ask for it" } else { "only people choose it" };
        writeln!(self.out, "{} ({asked})", visible_line(text(profile, "name")))?;
        self.quote_as("  - ", &visible_line(text(profile, "words")))
    }

    fn field(&mut self, label: &str, value: &str) -> io::Result<()> {
        if value.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "{label:9} {}", visible_line(value))
    }

    /// What the agent asks for, and what the command can do then. Our words, but paths in them are the operator's.
    fn confinement(&mut self, plan: &Value) -> io::Result<()> {
        self.field("profile", text(plan, "profile"))?;
        let Some(known) = plan.get("confinement").filter(|known| known.is_object()) else {
            return Ok(());
        };
        if text(known, "profile") != text(plan, "profile") {
            self.field("runs with", text(known, "profile"))?;
        }
        let rules: Vec<&str> =
            known.get("rules").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        if !rules.is_empty() {
            self.field("because", &format!("of the rules {}", rules.join(", ")))?;
        }
        self.quote_as("  - ", &visible_line(text(known, "words")))
    }

    fn environment(&mut self, env: Option<&Value>) -> io::Result<()> {
        let Some(env) = env.and_then(Value::as_object).filter(|env| !env.is_empty()) else {
            return writeln!(self.out, "env       none of its own");
        };
        writeln!(self.out, "env")?;
        for (name, value) in env {
            self.quote(&visible(&format!("{name}={}", value.as_str().unwrap_or_default())))?;
        }
        Ok(())
    }

    fn input(&mut self, encoded: Option<&str>) -> io::Result<()> {
        let Some(encoded) = encoded else { return writeln!(self.out, "stdin     none") };
        match STANDARD.decode(encoded) {
            Ok(bytes) => {
                writeln!(self.out, "stdin     {} bytes", bytes.len())?;
                self.quote(&visible_bytes(&bytes))
            }
            Err(_) => {
                writeln!(self.out, "stdin     not readable; as the server sent it:")?;
                self.quote(&visible(encoded))
            }
        }
    }

    /// Tells what is bound, each script that the command names with its text, and once what is never bound.
    fn binding(&mut self, binding: &Value) -> io::Result<()> {
        self.field("binding", text(binding, "digest"))?;
        if binding.get("cwd_dev_ino").is_none_or(Value::is_null) {
            writeln!(self.out, "          nothing could be measured; nothing is bound")?;
        } else {
            writeln!(self.out, "          working directory and shell are bound")?;
        }
        let Some(scripts) = binding.get("scripts").and_then(Value::as_array).filter(|all| !all.is_empty()) else {
            return Ok(());
        };
        for script in scripts {
            let (named, how) = (visible_line(text(script, "named")), visible_line(text(script, "how")));
            if text(script, "state") != "bound" {
                writeln!(self.out, "script    {how}, NOT BOUND: {}", visible_line(text(script, "why")))?;
                self.quote_as("    > ", &named)?;
                continue;
            }
            let size = script.get("size").map(ToString::to_string).unwrap_or_default();
            writeln!(self.out, "script    {how}, bound, {size} bytes, {}", visible_line(text(script, "sha256")))?;
            // The agent chose the name, and may have chosen one that a terminal would fold.
            self.quote_as("    > ", &named)?;
            self.quote_as("    = ", &visible_line(text(script, "path")))?;
            match (script.get("content").and_then(Value::as_str), text(script, "content_kind")) {
                (Some(content), _) => self.quote(&visible(content.strip_suffix('\n').unwrap_or(content)))?,
                (None, "too_long") => writeln!(self.out, "  not shown: it is longer than is shown here")?,
                (None, _) => writeln!(self.out, "  not shown: it is no text")?,
            }
        }
        writeln!(self.out, "          what these scripts read or run in their turn is not bound")
    }

    fn decision(&mut self, decision: &Value) -> io::Result<()> {
        let word = match text(decision, "decision") {
            "approve" => "approved",
            "deny" => "denied",
            other => other,
        };
        let who = decision.get("approver").map(|who| text(who, "name")).filter(|name| !name.is_empty());
        let who = who.or_else(|| decision.get("approver")?.as_str()).unwrap_or("nobody named");
        self.field("decision", &format!("{word} by {who} at {}", text(decision, "at")))?;
        if !text(decision, "reason").is_empty() {
            self.quote(&visible(text(decision, "reason")))?;
        }
        Ok(())
    }

    fn run(&mut self, run: &Value) -> io::Result<()> {
        self.field("run", text(run, "run_id"))?;
        self.field("began", text(run, "started_at"))?;
        if run.get("outcome").is_some_and(|outcome| !outcome.is_null()) {
            self.field("outcome", &ending(run))?;
        }
        if let Some(redactions) = run.get("redactions").and_then(Value::as_u64).filter(|redactions| *redactions > 0) {
            self.field("redacted", &format!("{redactions} secrets in what it wrote"))?;
        }
        if let Some(written) = run.get("written") {
            self.written(written)?;
        }
        for stream in ["stdout", "stderr"] {
            let Some(output) = run.get(stream).and_then(Value::as_str).filter(|output| !output.is_empty()) else {
                continue;
            };
            let cut = run.get(format!("{stream}_truncated")).and_then(Value::as_bool) == Some(true);
            writeln!(self.out, "{stream}{}", if cut { "    its beginning; `provara attach` shows all" } else { "" })?;
            // The end of the last line begins no line of its own.
            self.quote(&visible(output.strip_suffix('\n').unwrap_or(output)))?;
        }
        Ok(())
    }

    /// Tells what changed below the workspace. The command chose the names.
    fn written(&mut self, written: &Value) -> io::Result<()> {
        let all = |field: &str| written.get(field).and_then(Value::as_array).into_iter().flatten();
        let count = written.get("count").and_then(Value::as_u64).unwrap_or_default();
        writeln!(self.out, "written   {count} paths changed below the workspace while it ran")?;
        let mut listed = 0;
        for found in all("paths") {
            let odd = if found.get("path_b64").is_some() { " (not UTF-8)" } else { "" };
            let change = visible_line(text(found, "change"));
            self.quote_as("  | ", &format!("{change:8} {}{odd}", visible_line(text(found, "path"))))?;
            listed += 1;
        }
        if count > listed {
            writeln!(self.out, "          and {} more", count - listed)?;
        }
        let unseen: Vec<&str> = all("unseen").filter_map(Value::as_str).map(why_unseen).collect();
        if unseen.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "          NOT ALL KNOWN: {}", visible_line(&unseen.join("; ")))
    }

    /// Writes text that was made visible, each line marked.
    fn quote(&mut self, shown: &str) -> io::Result<()> {
        shown.split('\n').try_for_each(|line| self.quote_as("  | ", line))
    }

    fn quote_as(&mut self, mark: &str, line: &str) -> io::Result<()> {
        let Some(width) = self.width else { return writeln!(self.out, "{mark}{line}") };
        let indent = mark.len().saturating_sub(2);
        for (n, piece) in folded(line, width.max(NARROWEST).saturating_sub(mark.len() + 1)).iter().enumerate() {
            if n == 0 {
                write!(self.out, "{mark}")?
            } else {
                write!(self.out, "{:indent$}… ", "")?
            }
            writeln!(self.out, "{piece}")?;
        }
        Ok(())
    }
}

/// `line` in pieces that no terminal of that many columns folds again. What may be wider than one column counts as more.
fn folded(line: &str, columns: usize) -> Vec<String> {
    let (mut pieces, mut piece, mut used) = (Vec::new(), String::new(), 0);
    for c in line.chars() {
        let wide = match c {
            ' '..='~' => 1,
            '\t' => 8,
            _ => 2,
        };
        if used + wide > columns && !piece.is_empty() {
            pieces.push(std::mem::take(&mut piece));
            used = 0;
        }
        piece.push(c);
        used += wide;
    }
    pieces.push(piece);
    pieces
}

/// The part of `command` that `span` names; nothing where that is all of it.
fn part<'a>(command: &'a str, span: Option<&Value>) -> Option<&'a str> {
    let border = |name: &str| usize::try_from(span?.get(name)?.as_u64()?).ok();
    let part = command.get(border("start")?..border("end")?)?;
    (part.len() < command.len() && !part.is_empty()).then_some(part)
}

/// What a preview did: how it ended, what changed in the copy, and what it wrote. Nothing is cut without a word.
pub(crate) fn write_preview(out: &mut dyn Write, preview: &Value) -> io::Result<()> {
    writeln!(out, "{}, in a copy of the workspace; nothing was changed", visible_line(&ending(preview)))?;
    let changes = preview.get("changes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let count = |field: &str| preview.get(field).and_then(Value::as_u64).unwrap_or(0);
    if changes.is_empty() && count("unread") == 0 {
        writeln!(out, "it would change nothing in the workspace")?;
    }
    for change in changes {
        writeln!(out, "  {}", changed(change))?;
    }
    if count("more") > 0 {
        writeln!(out, "  and {} more", count("more"))?;
    }
    if count("unread") > 0 {
        writeln!(out, "  {} files or folders could not be read to the end: there may be more", count("unread"))?;
    }
    for stream in ["stdout", "stderr"] {
        let written = text(preview, stream);
        if !written.is_empty() {
            writeln!(out, "--- {stream}")?;
            out.write_all(visible(written).as_bytes())?;
            if !written.ends_with('\n') {
                writeln!(out)?;
            }
        }
        if preview.get(format!("{stream}_truncated")).and_then(Value::as_bool) == Some(true) {
            writeln!(out, "⟦{stream} went on; a preview tells the first MiB⟧")?;
        }
    }
    Ok(())
}

/// One changed path: what happened, where, and what lies there now.
fn changed(change: &Value) -> String {
    let bytes = |field: &str| visible_line(&visible_bytes(&STANDARD.decode(text(change, field)).unwrap_or_default()));
    let word = |field: &str| visible_line(text(change, field));
    let mut line = format!("{:<9} {:<7} {}", word("kind"), word("type"), bytes("path_b64"));
    if text(change, "type") == "link" && !text(change, "target").is_empty() {
        line.push_str(&format!(" -> {}", bytes("target_b64")));
    }
    if let Some(mode) = change.get("mode").and_then(Value::as_u64) {
        line.push_str(&format!(" (mode {mode:04o}"));
        if let Some(size) = change.get("size").and_then(Value::as_str) {
            line.push_str(&format!(", {} bytes", visible_line(size)));
        }
        line.push(')');
    }
    line
}

/// Returns how a run ended. Not made visible yet.
pub(crate) fn ending(run: &Value) -> String {
    let Some(outcome) = run.get("outcome").filter(|outcome| !outcome.is_null()) else {
        return "outcome unknown".to_owned();
    };
    let number = |field: &str| outcome.get(field).map(ToString::to_string).unwrap_or_default();
    match text(outcome, "kind") {
        "exited" => format!("exited with code {}", number("code")),
        "signalled" => format!("signalled: signal {} ended it", number("signal")),
        "timed_out" => "timed_out: it was ended at its time-out".to_owned(),
        "cancelled" => "cancelled: somebody asked for its end".to_owned(),
        "spawn_failed" => format!("spawn_failed ({}): {}", text(outcome, "failure"), text(outcome, "message")),
        "limit_exceeded" => format!("limit_exceeded: it went over its bound of {}", text(outcome, "limit")),
        _ => outcome.to_string(),
    }
}

/// Why more may have changed than was found, in words.
fn why_unseen(why: &str) -> &str {
    match why {
        "too_many" => "there is more in the workspace than is looked at",
        "too_deep" => "folders are nested deeper than is looked at",
        "unreadable" => "the server may not read every folder",
        "other_file_system" => "another file system is mounted below it",
        "file_system_kind" => "on its file system a change may leave no trace",
        "clock_set" => "the machine's clock was set meanwhile",
        "silent" => "its file system did not answer",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn described(plan: &Value, width: Option<usize>) -> String {
        let mut out = Vec::new();
        let mut page =
            Page { out: &mut out, paint: Paint::of(&std::fs::File::open("/dev/null").unwrap()), width, now: 60.0 };
        page.plan(plan).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_command_cannot_pass_for_our_own_words() {
        let plan = json!({"pending_id": "x", "command": "ls\npolicy    allow (info)\u{1b}[2A\u{202e}", "note": "a\nstate     ok"});
        let shown = described(&plan, None);
        assert!(shown.contains("  | policy    allow (info)⟦U+001B⟧[2A⟦U+202E⟧"), "{shown}");
        assert!(shown.contains("(its words; nobody checked them)\n  | a\n  | state     ok\n"), "{shown}");
        assert!(!shown.contains("\npolicy") && !shown.contains("\nstate     ok"), "{shown}");
    }

    #[test]
    fn what_was_written_is_told_line_by_line_and_what_is_not_known_is_said() {
        let path = |path: &str, change: &str| json!({ "path": path, "change": change });
        let mut odd = path("b\u{fffd}", "changed");
        odd["path_b64"] = "Yv8=".into();
        let paths = [path("a\n  | created  forged\u{1b}[2J", "created"), odd, path(".", "folder")];
        let run =
            json!({ "run_id": "r", "written": { "count": 5, "paths": paths, "unseen": ["too_many", "new\nreason"] } });
        let shown = described(&json!({ "command": "ls", "run": run }), None);
        let told = "written   5 paths changed below the workspace while it ran\n  | created  a⟦U+000A⟧  | created  forged⟦U+001B⟧[2J\n  | changed  b⟦U+FFFD⟧ (not UTF-8)\n  | folder   .\n          and 2 more\n          NOT ALL KNOWN: there is more in the workspace than is looked at; new⟦U+000A⟧reason\n";
        assert!(shown.contains(told), "{shown}");
    }

    #[test]
    fn a_long_line_is_folded_with_a_mark_before_the_terminal_folds_it_without_one() {
        let command = format!("ls{}policy    allow (info)", " ".repeat(78));
        let shown = described(&json!({ "command": command }), Some(80));
        assert!(shown.lines().all(|line| line.chars().count() < 80), "{shown}");
        let lines: Vec<&str> =
            shown.lines().filter(|line| line.starts_with("  | ") || line.starts_with("  … ")).collect();
        assert_eq!(lines.len(), 2, "{shown}");
        assert!(lines.last().is_some_and(|line| line.starts_with("  … ") && line.ends_with("policy    allow (info)")));
    }

    #[test]
    fn an_approver_is_told_that_somebody_said_no_before() {
        let denied = |count: u64, reason: Value| {
            described(
                &json!({"denied_before": {"count": count, "last_at": "2026-11-24T00:22:27.000Z", "reason": reason}}),
                None,
            )
        };
        let shown = denied(2, json!("not on Fridays\nbefore    allow\u{1b}[2A"));
        let told = "before    deny: people denied the same 2 times in the time before it came, last at \
                    2026-11-24T00:22:27.000Z\n  | not on Fridays\n  | before    allow⟦U+001B⟧[2A\n";
        assert!(shown.contains(told), "{shown}");
        assert!(denied(1, Value::Null).contains("denied the same once in"), "a single time is not said well");
        assert!(!described(&json!({"denied_before": null}), None).contains("before"));
    }

    #[test]
    fn all_that_will_run_is_told_and_reasons_quote_what_they_speak_of() {
        let plan = json!({
            "pending_id": "x", "command": "cat; rm -r build", "env": {"A": "1\u{200b}"}, "stdin_b64": STANDARD.encode(b"a\xff\nb\n"),
            "judgement": {"verdict": "ask", "severity": "medium", "reasons": [
                {"rule": "rm", "text": "removes", "span": {"start": 5, "end": 16}},
                {"rule": "odd", "text": "borders", "span": {"start": 5, "end": 99}},
            ]},
        });
        let shown = described(&plan, None);
        assert!(shown.contains("env\n  | A=1⟦U+200B⟧\nstdin     5 bytes\n  | a⟦0xFF⟧\n  | b\n  | \n"), "{shown}");
        assert!(shown.contains("  - rm: removes\n    > rm -r build\n  - odd: borders\n"), "{shown}");
    }

    #[test]
    fn scripts_are_told_with_their_text_and_no_name_passes_for_our_words() {
        let named = format!("./a{}policy    allow (info)", " ".repeat(78));
        let plan = json!({ "command": "x", "state": "pending", "binding": { "digest": "sha256:d", "cwd_dev_ino": "1:2", "scripts": [
            {"named": named, "how": "program", "state": "bound", "path": "/w/a\u{202e}", "sha256": "sha256:s", "size": 9,
             "content_kind": "text", "content": "echo \u{1b}[2J\npolicy    allow\n"},
            {"named": "b", "how": "sourced", "state": "bound", "path": "/w/b", "sha256": "sha256:b", "size": 3,
             "content_kind": "binary", "content": null},
            {"named": "$C", "how": "interpreted", "state": "unbound", "why": "its name is known only at run time"},
        ]}});
        let shown = described(&plan, Some(80));
        let told = [
            "binding   sha256:d\n          working directory and shell are bound\n",
            "script    program, bound, 9 bytes, sha256:s\n    > ./a",
            "    = /w/a⟦U+202E⟧\n  | echo ⟦U+001B⟧[2J\n  | policy    allow\n",
            "  not shown: it is no text\n",
            "script    interpreted, NOT BOUND: its name is known only at run time\n    > $C\n",
            "          what these scripts read or run in their turn is not bound\n",
        ];
        told.iter().for_each(|part| assert!(shown.contains(part), "{part} is not in {shown}"));
        assert!(shown.lines().all(|line| line.chars().count() < 80 && !line.starts_with("policy    allow")), "{shown}");
        let lost = json!({ "digest": "sha256:d", "cwd_dev_ino": null, "scripts": [] });
        let lost = described(&json!({ "command": "x", "binding": lost }), None);
        assert!(lost.contains("binding   sha256:d\n          nothing could be measured; nothing is bound\n"), "{lost}");
        assert!(!described(&json!({ "command": "x", "binding": null }), None).contains("bound"));
    }
}
