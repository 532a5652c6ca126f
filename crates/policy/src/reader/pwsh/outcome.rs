//! What commands that PowerShell itself brings put out, run or change for what follows.

use super::command::{Argument, DASHES, Given};
use super::scan::{CHANGES_NAMES, Run, bare};
use super::value::{Block, Value, list};
use crate::reader::Certainty;

impl Run<'_, '_, '_> {
    /// What a command puts out, and what it changes for those after it, where PowerShell itself says so.
    pub(super) fn outcome(&mut self, meant: &str, given: &Given, piped: Option<Value>, start: usize) -> Value {
        let meant = meant.rsplit('\\').next().unwrap_or(meant);
        let first = given.positional(0);
        for argument in &given.arguments {
            self.variable_of(argument, given);
        }
        match meant {
            "invoke-expression" => {
                let code = given.named("command").or(first).cloned().or(piped);
                match code {
                    Some(code) => self.run_value(&code, start),
                    None => Value::unknown("$(…)"),
                }
            }
            "foreach-object" => self.for_each_object(given, piped, start),
            "where-object" => piped.unwrap_or(Value::Null),
            "set-alias" | "new-alias" => {
                let name = given.named("name").or(first).and_then(Value::known);
                let value = given
                    .named("value")
                    .or(given.positional(usize::from(given.named("name").is_none())))
                    .and_then(Value::known);
                match (name, value) {
                    (Some(name), Some(value)) => {
                        self.world.aliases.insert(name.to_lowercase(), value);
                        if self.world.perhaps > 0 {
                            self.opaque(start, CHANGES_NAMES);
                        }
                    }
                    _ => self.opaque(start, CHANGES_NAMES),
                }
                Value::Null
            }
            "set-variable" | "new-variable" => {
                let name = given.named("name").or(first).and_then(Value::known);
                let value = given.named("value").or(given.positional(usize::from(given.named("name").is_none())));
                match name {
                    Some(name) => {
                        let value = value.cloned().or(piped).unwrap_or(Value::Null);
                        self.give(&name, value);
                    }
                    None => {
                        self.opaque(start, "gives a value to some variable");
                        self.forget();
                    }
                }
                Value::Null
            }
            "clear-variable" | "remove-variable" => {
                self.forget();
                Value::Null
            }
            "get-variable" => {
                let name = given.named("name").or(first).and_then(Value::known).map(|name| bare(&name));
                let held = name.as_ref().and_then(|name| {
                    self.world.variables.get(name).cloned().or_else(|| super::dotnet::automatic(name))
                });
                held.unwrap_or_else(|| Value::unknown("$(…)"))
            }
            "get-command" | "get-alias" => match given.named("name").or(first).and_then(Value::known) {
                Some(name) if !name.contains(['*', '?', '[']) => Value::Named(name),
                _ => Value::unknown("$(…)"),
            },
            "new-object" => {
                let name = given
                    .named("typename")
                    .or(given.named("comobject"))
                    .or(first)
                    .map(|name| name.text().0)
                    .unwrap_or_default();
                let lower = super::dotnet::short(&name);
                if matches!(
                    lower.as_str(),
                    "psobject" | "pscustomobject" | "object" | "hashtable" | "collections.hashtable"
                ) {
                    return given.named("property").cloned().unwrap_or(Value::Table(Vec::new()));
                }
                if lower.ends_with("encoding") && lower.starts_with("text.") {
                    return Value::Object(format!(
                        "encoding:{}",
                        lower.trim_start_matches("text.").trim_end_matches("encoding")
                    ));
                }
                if matches!(lower.as_str(), "string" | "char[]" | "byte[]") {
                    return given.named("argumentlist").or(given.positional(1)).cloned().unwrap_or(Value::Null);
                }
                Value::Object(lower)
            }
            "write-output" => match first {
                Some(_) => {
                    let all: Vec<Value> = given
                        .arguments
                        .iter()
                        .filter(|a| a.parameter.is_none())
                        .filter_map(|a| a.value.clone())
                        .collect();
                    if all.len() == 1 { all.into_iter().next().unwrap_or(Value::Null) } else { list(all) }
                }
                None => given.named("inputobject").cloned().or(piped).unwrap_or(Value::Null),
            },
            "get-item" | "get-childitem" | "resolve-path" | "convert-path" | "get-itemproperty" => {
                let path = given.named("path").or(given.named("literalpath")).or(first).cloned().or(piped);
                let (text, certainty) = path.map_or_else(|| (".".to_owned(), Certainty::Sure), |path| path.text());
                Value::Text(text, certainty.max(Certainty::Perhaps))
            }
            "join-path" => {
                let parent = given.named("path").or(first).map(Value::text);
                let child = given
                    .named("childpath")
                    .or(given.positional(usize::from(given.named("path").is_none())))
                    .map(Value::text);
                match (parent, child) {
                    (Some((parent, a)), Some((child, b))) => {
                        let parent = parent.trim_end_matches(['/', '\\']);
                        Value::Text(format!("{parent}\\{}", child.trim_start_matches(['/', '\\'])), a.max(b))
                    }
                    _ => Value::unknown("$(…)"),
                }
            }
            "select-object" | "sort-object" | "out-string" | "get-unique" | "tee-object" => match piped {
                Some(value @ Value::Text(_, Certainty::Perhaps)) => value,
                _ => Value::unknown("$(…)"),
            },
            "start-process" => {
                self.start_process(given, start);
                Value::unknown("$(…)")
            }
            "invoke-cimmethod" | "invoke-wmimethod" => {
                for value in given.arguments.iter().filter_map(|argument| argument.value.as_ref()) {
                    if let Value::Table(pairs) = value {
                        let line = pairs.iter().find(|(name, _)| name.eq_ignore_ascii_case("commandline"));
                        if let Some(line) = line.and_then(|(_, line)| line.known()) {
                            let span = self.span(start);
                            self.command_line(&line, span);
                        }
                    }
                }
                Value::unknown("$(…)")
            }
            "cmd" => {
                self.cmd(given, piped, start);
                Value::unknown("$(…)")
            }
            "pwsh" => {
                self.encoded(given, start);
                if let Some(text) = piped.as_ref().and_then(Value::known) {
                    let span = self.span(start);
                    self.code(&text, span);
                }
                Value::unknown("$(…)")
            }
            "import-module" | "using" => Value::Null,
            "." => {
                self.forget();
                Value::unknown("$(…)")
            }
            "set-item" | "new-item" | "set-content" | "copy-item" | "rename-item" | "remove-item" | "move-item"
            | "si" | "ni" | "sc" => {
                let touches = given.arguments.iter().filter_map(|argument| argument.value.as_ref()).any(|value| {
                    let text = value.text().0.to_lowercase();
                    let text = text.rsplit("::").next().unwrap_or(&text).to_owned();
                    ["alias:", "function:", "variable:"].iter().any(|drive| text.starts_with(drive))
                });
                if touches {
                    self.opaque(start, CHANGES_NAMES);
                    self.forget();
                }
                Value::unknown("$(…)")
            }
            _ => Value::unknown("$(…)"),
        }
    }

    /// `-OutVariable x` and its like give a value to a variable.
    fn variable_of(&mut self, argument: &Argument, given: &Given) {
        const GIVES: &[&str] = &[
            "outvariable",
            "ov",
            "errorvariable",
            "ev",
            "warningvariable",
            "wv",
            "informationvariable",
            "iv",
            "pipelinevariable",
            "pv",
            "variable",
            "sessionvariable",
        ];
        let Some(name) = &argument.parameter else { return };
        let name = name.trim_start_matches(DASHES).to_lowercase();
        let is = GIVES.iter().any(|known| *known == name || (name.len() > 3 && known.starts_with(&name)));
        if !is {
            return;
        }
        let value = argument.value.as_ref().or_else(|| given.after(argument));
        match value.and_then(Value::known) {
            Some(name) => self.give(name.trim_start_matches('+'), Value::unknown(format!("${name}"))),
            None => self.forget(),
        }
    }

    fn for_each_object(&mut self, given: &Given, piped: Option<Value>, start: usize) -> Value {
        let blocks: Vec<Block> = given
            .arguments
            .iter()
            .filter_map(|argument| argument.value.as_ref())
            .flat_map(Value::items)
            .filter_map(|value| if let Value::Block(block) = value { Some(block) } else { None })
            .collect();
        if blocks.is_empty() {
            // `% Delete` calls that of each.
            let member = given.named("membername").or(given.positional(0)).cloned();
            if let Some((member, certainty)) = member.map(|member| member.text()) {
                if certainty == Certainty::Unknown {
                    self.opaque(start, "is a member whose name is filled in when it runs");
                }
                let of = piped.unwrap_or(Value::Null);
                let arguments: Vec<Value> =
                    given.named("argumentlist").or(given.positional(1)).map(Value::items).unwrap_or_default();
                let is_property = super::dotnet::property(&of, &member);
                if matches!(
                    member.to_lowercase().as_str(),
                    "name" | "fullname" | "length" | "count" | "path" | "id" | "value" | "basename"
                ) {
                    return is_property;
                }
                return self.call_method(&of, &member, &arguments, start);
            }
            return Value::unknown("$(…)");
        }
        let known = match &piped {
            Some(Value::List(items)) if !items.iter().any(Value::is_open) => items.clone(),
            Some(value) if !value.is_open() => vec![value.clone()],
            _ => return Value::unknown("$(…)"),
        };
        let mut made = Vec::new();
        for block in blocks {
            made.extend(self.for_each(&known, &block, true).items());
        }
        list(made)
    }

    /// What `Start-Process` starts is a command of its own.
    fn start_process(&mut self, given: &Given, start: usize) {
        let program = given.named("filepath").or(given.positional(0)).cloned();
        let Some((program, certainty)) = program.map(|program| program.text()) else { return };
        if certainty == Certainty::Unknown {
            self.opaque(start, "starts what is filled in when it runs");
        }
        let named = given.named("filepath").is_some();
        let arguments = given.named("argumentlist").or(given.named("args")).or(given.positional(usize::from(!named)));
        let span = self.span(start);
        let mut line = Given::default();
        for value in arguments.map(Value::items).unwrap_or_default() {
            let (text, certainty) = value.text();
            for word in crate::reader::cmd::words(&text) {
                let value = Value::Text(word, certainty);
                line.arguments.push(Argument { parameter: None, value: Some(value), span, between: "" });
            }
        }
        let pipeline = self.world.pipelines;
        let lower = crate::naming::names(&program).1;
        if lower == "cmd" {
            self.cmd(&line, None, start);
        }
        self.told_command(&program, &line, None, span, pipeline, &lower);
    }

    /// `pwsh -enc …`: base64 of UTF-16.
    fn encoded(&mut self, given: &Given, start: usize) {
        let mut next = false;
        for argument in &given.arguments {
            let name = argument
                .parameter
                .clone()
                .or_else(|| argument.value.as_ref().map(|value| value.text().0))
                .unwrap_or_default();
            let name = name.trim_start_matches(['-', '/', '\u{2013}', '\u{2014}', '\u{2015}']).to_lowercase();
            if next && let Some(value) = &argument.value {
                let text = value.known().and_then(|text| super::encoded(&text));
                match text {
                    Some(text) => {
                        let span = self.span(start);
                        self.code(&text, span);
                    }
                    None => self.opaque(start, "is an encoded command that cannot be decoded"),
                }
            }
            next = name == "e" || name == "ec" || (name.starts_with("en") && "encodedcommand".starts_with(&name));
        }
    }

    /// `cmd /c …`: what stands after the switch is a line of its own.
    fn cmd(&mut self, given: &Given, piped: Option<Value>, start: usize) {
        let span = self.span(start);
        let mut words: Vec<String> = Vec::new();
        let mut found = false;
        for argument in &given.arguments {
            let text = match (&argument.parameter, &argument.value) {
                (Some(name), Some(value)) => format!("{name}{}{}", argument.between, value.text().0),
                (Some(name), None) => name.clone(),
                (None, Some(value)) => {
                    let (text, certainty) = value.argument();
                    if certainty == Certainty::Unknown {
                        self.opaque(start, "gives `cmd` something that is filled in when it runs");
                    }
                    text
                }
                (None, None) => continue,
            };
            if found {
                // A value with blanks is put between quotes when it is handed over, unless it is the whole line.
                words.push(text);
                continue;
            }
            let lower = text.to_lowercase();
            let switch = ["/c", "/k", "/r", "-c", "-k", "/s/c", "/q/c", "/d/c", "/v:on/c", "/v/c"]
                .into_iter()
                .find(|switch| lower.starts_with(switch));
            if let Some(switch) = switch {
                found = true;
                let rest = text.get(switch.len()..).unwrap_or("");
                if !rest.is_empty() {
                    words.push(rest.to_owned());
                }
            }
        }
        let line = if words.len() > 1 {
            let quoted = |word: &String| {
                if word.contains(' ') && !word.contains('"') { format!("\"{word}\"") } else { word.clone() }
            };
            words.iter().map(quoted).collect::<Vec<_>>().join(" ")
        } else {
            words.concat()
        };
        if !line.is_empty() {
            self.command_line(&line, span);
        }
        if let Some(text) = piped.as_ref().and_then(Value::known) {
            for line in text.lines() {
                self.command_line(line, span);
            }
        }
    }
}
