//! The log as an auditor reads it from a server: followed, exported, proven.

use std::io::{self, BufRead as _, BufReader, Write};
use std::process::ExitCode;

use provara_audit::merkle::{Hash, leaf_hash, verify_inclusion};
use serde_json::{Value, json};

use crate::args::Audit;
use crate::client::{Client, encoded};
use crate::commands::Session;
use crate::describe::text;
use crate::display::{self, visible_line};
use crate::failure::Failure;
use crate::progress::Progress;

impl Session {
    pub(crate) fn audit(&self, what: Audit) -> Result<ExitCode, Failure> {
        match what {
            Audit::Tail { since, count } => self.tail(&self.reader()?, since, count.unwrap_or(u64::MAX)),
            Audit::Export => {
                let _waiting = Progress::start(self.quiet, "exporting");
                export(&self.operator()?, &mut io::stdout().lock())?;
                Ok(ExitCode::SUCCESS)
            }
            Audit::Checkpoint { key } => {
                let answer = self.operator()?.get("/audit/checkpoint")?;
                // A note's own line feeds are part of it.
                let shown =
                    if key { format!("{}\n", text(&answer, "key")) } else { text(&answer, "checkpoint").to_owned() };
                self.answer(&answer, |out, _| out.write_all(display::visible(&shown).as_bytes()))
            }
            Audit::Prove { id } => self.prove(&id),
            Audit::Verify { file, checkpoints, key } => {
                crate::log::verify(&file, &checkpoints, key.as_deref(), self.json)
            }
        }
    }

    fn tail(&self, client: &Client, since: Option<u64>, count: u64) -> Result<ExitCode, Failure> {
        if count == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let since = since.map(|since| format!("?since={since}")).unwrap_or_default();
        let lines = BufReader::new(client.stream(&format!("/events{since}"))?);
        let mut out = io::stdout().lock();
        let (mut position, mut shown) = (None, 0);
        for line in lines.lines() {
            let line = line?;
            if let Some(id) = line.strip_prefix("id:") {
                position = id.trim().parse::<u64>().ok();
            } else if line.is_empty() {
                // What an event alone has must not pass for the next one's.
                position = None;
            } else if let Some(data) = line.strip_prefix("data:") {
                let leaf: Value = serde_json::from_str(data.trim_start()).unwrap_or_default();
                let Some(position) = position.take() else {
                    // How far a run is, is no entry of the log.
                    if text(&leaf, "type") == "run.progress" {
                        continue;
                    }
                    let why = format!("the server ended the stream: {}", text(&leaf, "reason"));
                    return Err(Failure::Other(visible_line(&why)));
                };
                if self.json {
                    display::write_json(&mut out, &json!({ "position": position, "entry": leaf }))?;
                } else {
                    writeln!(out, "{}", visible_line(&told(position, &leaf)))?;
                }
                out.flush()?;
                shown += 1;
                if shown == count {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Shows the proofs, and believes none of them unchecked.
    fn prove(&self, id: &str) -> Result<ExitCode, Failure> {
        let by_position = id.bytes().all(|byte| byte.is_ascii_digit());
        let name = if by_position { "position" } else { "plan" };
        let answer = self.operator()?.get(&format!("/audit/inclusion?{name}={}", encoded(id)))?;
        let entries: Vec<&Value> = answer.get("entries").and_then(Value::as_array).into_iter().flatten().collect();
        if entries.is_empty() {
            return Err(Failure::Other(format!("the log has no entry of `{}`", visible_line(id))));
        }
        let size = answer.get("size").and_then(Value::as_u64).unwrap_or(0);
        let root = text(&answer, "root");
        for entry in &entries {
            if !holds(entry, size, root) {
                return Err(Failure::Other("a proof does not lead to the root that the server named".to_owned()));
            }
        }
        self.answer(&answer, |out, _| {
            writeln!(out, "size      {size}\nroot      {}", visible_line(root))?;
            for entry in &entries {
                let position = entry.get("position").and_then(Value::as_u64).unwrap_or(0);
                let leaf: Value = serde_json::from_str(text(entry, "leaf")).unwrap_or_default();
                writeln!(out, "{}", visible_line(&told(position, &leaf)))?;
                for hash in entry.get("proof").and_then(Value::as_array).into_iter().flatten() {
                    writeln!(out, "  {}", visible_line(hash.as_str().unwrap_or_default()))?;
                }
            }
            writeln!(out, "OK: every proof leads to the root; hold the root against a checkpoint that you kept")
        })
    }
}

fn holds(entry: &Value, size: u64, root: &str) -> bool {
    let proof = entry.get("proof").and_then(Value::as_array).into_iter().flatten();
    let proof: Option<Vec<Hash>> = proof.map(|hash| hash_of(hash.as_str()?)).collect();
    let (Some(proof), Some(root)) = (proof, hash_of(root)) else { return false };
    let Some(position) = entry.get("position").and_then(Value::as_u64) else { return false };
    verify_inclusion(&leaf_hash(text(entry, "leaf").as_bytes()), position, size, &proof, &root).is_ok()
}

fn hash_of(hex: &str) -> Option<Hash> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(Hash(bytes))
}

/// An entry in a line: position, time, type, who, and the plan.
fn told(position: u64, leaf: &Value) -> String {
    let actor = leaf.get("actor").unwrap_or(&Value::Null);
    let who = if text(actor, "kind") == "system" { "provara" } else { text(actor, "name") };
    let at = leaf.get("ts").and_then(Value::as_f64).map(at).unwrap_or_default();
    format!("{position:>6}  {at}  {:20} {who:16} {}", text(leaf, "type"), text(leaf, "plan")).trim_end().to_owned()
}

fn at(seconds: f64) -> String {
    let since = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    provara_domain::Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(0)).rfc3339()
}

/// Writes every entry that the log has by now, in pages.
pub(crate) fn export(client: &Client, to: &mut impl Write) -> Result<(), Failure> {
    let mut next = 0u64;
    loop {
        let page = client.stream(&format!("/audit?from={next}"))?;
        let mut lines = 0u64;
        for line in BufReader::new(page).lines() {
            writeln!(to, "{}", line?)?;
            lines += 1;
        }
        if lines == 0 {
            return Ok(());
        }
        next += lines;
    }
}
