//! Tokens, workspaces and policy, as people manage them.

use std::io;
use std::path::{Component, Path};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::{Policy, Token, Workspace};
use crate::client::encoded;
use crate::commands::{Session, page, put};
use crate::describe::text;
use crate::display::visible_line;
use crate::failure::Failure;
use crate::table::Cell;
use crate::{rules, table};

impl Session {
    pub(crate) fn policy(&self, what: &Policy) -> Result<ExitCode, Failure> {
        match what {
            Policy::Test { files } => rules::test(files, self.json),
            Policy::Show => self.rules(),
            Policy::Check { command, cwd, shell } => {
                let mut body = json!({ "command": command });
                put(&mut body, "cwd", cwd.clone());
                put(&mut body, "shell", shell.clone());
                let answer = self.reader()?.post("/policy/check", &body)?;
                self.answer(&answer, |out, paint| {
                    let judgement = answer.get("judgement").unwrap_or(&answer);
                    page(out, paint, &io::stdout()).judgement(judgement, command)
                })
            }
        }
    }

    fn rules(&self) -> Result<ExitCode, Failure> {
        let answer = self.operator()?.get("/policy")?;
        let rules = answer.get("rules").and_then(Value::as_array);
        let row = |rule: &Value| ["id", "verdict", "severity", "reason"].map(|field| Cell::of(text(rule, field)));
        let rows: Vec<Vec<Cell>> = rules.into_iter().flatten().map(|rule| row(rule).to_vec()).collect();
        self.answer(&answer, |out, paint| {
            let version = answer.get("policy").unwrap_or(&Value::Null);
            table::write(out, paint, &["RULE", "VERDICT", "SEVERITY", "REASON"], &rows)?;
            let (version, digest) = (text(version, "version"), text(version, "digest"));
            writeln!(out, "{} rules, version {}, {}", rows.len(), visible_line(version), visible_line(digest))
        })
    }

    pub(crate) fn token(&self, what: Token) -> Result<ExitCode, Failure> {
        let client = self.operator()?;
        match what {
            Token::List => {
                let answer = client.get("/tokens")?;
                let row = |token: &Value| {
                    let roles = token.get("roles").and_then(Value::as_array).into_iter().flatten();
                    let roles: Vec<&str> = roles.filter_map(Value::as_str).collect();
                    let revoked = text(token, "revoked_at");
                    let state = if revoked.is_empty() { "valid".to_owned() } else { format!("revoked {revoked}") };
                    let own = |field: &str| Cell::of(text(token, field));
                    vec![own("id"), own("name"), Cell::of(&roles.join(",")), own("created_at"), Cell::of(&state)]
                };
                let rows: Vec<Vec<Cell>> = answer.as_array().into_iter().flatten().map(row).collect();
                self.answer(&answer, |out, paint| {
                    table::write(out, paint, &["ID", "NAME", "ROLES", "CREATED", "STATE"], &rows)
                })
            }
            Token::Create { name, roles } => {
                self.show_token(&client.post("/tokens", &json!({"name": name, "roles": roles}))?)
            }
            Token::Rotate { id } => self.show_token(&client.post("/tokens", &json!({ "replaces": id }))?),
            Token::Revoke { id } => {
                client.delete(&format!("/tokens/{}", encoded(&id)), None)?;
                self.answer(&json!({ "id": id, "revoked": true }), |out, _| writeln!(out, "revoked"))
            }
        }
    }

    fn show_token(&self, answer: &Value) -> Result<ExitCode, Failure> {
        self.advise(&format!("token {} is shown this once:", text(answer, "id")));
        self.answer(answer, |out, _| writeln!(out, "{}", visible_line(text(answer, "token"))))
    }

    pub(crate) fn workspace(&self, what: Workspace) -> Result<ExitCode, Failure> {
        let client = self.operator()?;
        match what {
            Workspace::List => {
                let answer = client.get("/workspaces")?;
                let paths = answer.as_array().into_iter().flatten().filter_map(Value::as_str);
                let origin = |n: usize| if n == 0 { "configuration" } else { "added" };
                let rows: Vec<Vec<Cell>> =
                    paths.enumerate().map(|(n, path)| vec![Cell::of(path), Cell::of(origin(n))]).collect();
                self.answer(&answer, |out, paint| table::write(out, paint, &["PATH", "FROM"], &rows))
            }
            Workspace::Add { path } => {
                let path = existing(&path)?;
                let answer = client.post("/workspaces", &json!({ "path": path }))?;
                self.answer(&answer, |out, _| writeln!(out, "commands may work in {}", visible_line(&path)))
            }
            Workspace::Remove { path } => {
                let path = named(&path)?;
                client.delete("/workspaces", Some(&json!({ "path": path })))?;
                let answer = json!({ "path": path, "removed": true });
                self.answer(&answer, |out, _| writeln!(out, "commands may no longer work in {}", visible_line(&path)))
            }
        }
    }
}

fn existing(path: &Path) -> Result<String, Failure> {
    let found = path.canonicalize().map_err(|error| Failure::Usage(format!("`{}`: {error}", path.display())))?;
    utf8(found)
}

/// What is gone cannot be resolved any more, and has to be removable all the same: as it was named, made absolute.
fn named(path: &Path) -> Result<String, Failure> {
    match path.canonicalize() {
        Ok(found) => utf8(found),
        Err(_) => utf8(std::path::absolute(path)?.components().filter(|part| *part != Component::CurDir).collect()),
    }
}

fn utf8(path: std::path::PathBuf) -> Result<String, Failure> {
    path.into_os_string().into_string().map_err(|_| Failure::Usage("the path is not UTF-8".to_owned()))
}
