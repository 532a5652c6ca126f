//! Commands: the name, what it is given, and those commands that PowerShell itself must be asked about.

use super::dotnet::one_word;
use super::lex::{ends_word, escaped, names, plain};
use super::scan::{CHANGES_NAMES, Run, bare};
use super::value::{self, Block, Value, list};
use crate::reader::{Certainty, Command, Redirection, Span0, Word};

/// How many names may stand for each other.
const MAX_ALIASES: usize = 8;

/// What a command is given.
#[derive(Default)]
struct Given {
    arguments: Vec<Argument>,
    redirections: Vec<Redirection>,
}

/// One thing that a command is given: a parameter, perhaps with its value in the same word, or a value.
struct Argument {
    parameter: Option<String>,
    value: Option<Value>,
    span: Span0,
    /// What stands between a parameter and its value, where both are one word.
    between: &'static str,
}

/// Other names of what is looked at here, besides those in program knowledge.
const ALIASES: &[(&str, &str)] = &[
    ("iex", "invoke-expression"),
    ("icm", "invoke-command"),
    ("%", "foreach-object"),
    ("foreach", "foreach-object"),
    ("?", "where-object"),
    ("where", "where-object"),
    ("sal", "set-alias"),
    ("nal", "new-alias"),
    ("sv", "set-variable"),
    ("set", "set-variable"),
    ("nv", "new-variable"),
    ("gv", "get-variable"),
    ("gcm", "get-command"),
    ("gal", "get-alias"),
    ("saps", "start-process"),
    ("start", "start-process"),
    ("gi", "get-item"),
    ("gci", "get-childitem"),
    ("ls", "get-childitem"),
    ("dir", "get-childitem"),
    ("rvpa", "resolve-path"),
    ("echo", "write-output"),
    ("write", "write-output"),
    ("powershell", "pwsh"),
    ("powershell_ise", "pwsh"),
    ("pwsh-preview", "pwsh"),
    ("gp", "get-itemproperty"),
    ("select", "select-object"),
    ("sort", "sort-object"),
    ("tee", "tee-object"),
    ("ipmo", "import-module"),
    ("clv", "clear-variable"),
    ("rv", "remove-variable"),
];

/// Aliases of cmdlets that take what is piped to them as an argument.
const TAKES_PIPED: &[&str] = &[
    "ri", "rm", "del", "erase", "rd", "rmdir", "gc", "cat", "type", "sc", "ac", "clc", "copy", "cp", "cpi", "move",
    "mv", "mi", "ni", "rni", "ren", "ii", "spps", "kill", "iwr", "irm", "curl", "wget", "sls", "fl", "ft", "measure",
    "group", "sp", "rp", "clp", "sasv", "spsv", "epcsv", "ipcsv", "gm", "oh", "compare", "diff", "md", "mkdir", "cli",
    "si",
];

impl Run<'_, '_, '_> {
    pub(super) fn command(&mut self, piped: Option<Value>, pipeline: usize) -> Value {
        let start = self.at;
        let called = match self.peek() {
            Some('&') => true,
            Some('.') => self.second().is_some_and(|c| matches!(c, ' ' | '\'' | '"' | '$' | '(' | '{')),
            _ => false,
        };
        let name = if called {
            let dotted = self.eat(".");
            if !dotted {
                self.bump();
            }
            self.blanks();
            match self.peek_plain() {
                None => {
                    self.opaque(start, "calls nothing");
                    return Value::Null;
                }
                Some('$' | '\'' | '"' | '(' | '{' | '@') => {
                    let before = std::mem::take(&mut self.targets);
                    let value = self.unary();
                    self.targets = before;
                    value
                }
                Some(_) => self.argument(),
            }
        } else {
            self.argument()
        };
        let is_cmdlet = takes_piped(&name.text().0.to_lowercase());
        let given = self.given(is_cmdlet && name.text().0.contains('-'));
        if self.at == start {
            self.bump();
            self.opaque(start, "is not read");
        }
        self.invoke(&name, &given, piped, start, pipeline)
    }

    fn given(&mut self, cmdlet: bool) -> Given {
        let mut given = Given::default();
        loop {
            self.blanks();
            let start = self.at;
            let Some(c) = self.peek_plain() else { break };
            if let Some(redirection) = self.redirection() {
                given.redirections.extend(redirection);
                continue;
            }
            match c {
                '\n' | ';' | '|' | ')' | '}' => break,
                '&' => break,
                '-' if self.rest().starts_with("--%") => {
                    self.verbatim(&mut given);
                    break;
                }
                '-' if self.second().is_some_and(|c| names(c) || c == '?') => self.parameter(&mut given, cmdlet),
                '@' if self.second().is_some_and(names) => self.splat(&mut given),
                _ => {
                    let value = self.values();
                    let span = self.span(start);
                    given.arguments.push(Argument { parameter: None, value: Some(value), span, between: "" });
                }
            }
            if self.at == start {
                self.bump();
            }
        }
        given
    }

    /// The rest of the line as it is written, for programs that are no cmdlets.
    fn verbatim(&mut self, given: &mut Given) {
        self.at += 3;
        let line = self.take_while(|c| !matches!(c, '\n' | '|')).to_owned();
        let span = self.span(self.at.saturating_sub(line.len()));
        for word in line.split_whitespace() {
            let value = Value::Text(word.trim_matches('"').to_owned(), Certainty::Perhaps);
            given.arguments.push(Argument { parameter: None, value: Some(value), span, between: "" });
        }
    }

    fn parameter(&mut self, given: &mut Given, cmdlet: bool) {
        let start = self.at;
        let mut name = String::new();
        let mut value = None;
        let mut between = "";
        while let Some(c) = self.peek() {
            if c == '`' {
                self.bump();
                name.extend(self.bump().filter(|c| *c != '\n'));
                continue;
            }
            if ends_word(c)
                || (plain(c) == '\'' || plain(c) == '"') && !cmdlet && !name.contains(['=', ':']) && name.len() > 40
            {
                break;
            }
            if c == ':' {
                self.bump();
                between = ":";
                let before = self.at;
                self.blanks();
                if cmdlet || matches!(self.peek_plain(), Some('$' | '(' | '"' | '\'' | '@')) {
                    value = Some(self.values());
                } else {
                    self.at = before;
                    let text = if self.peek().is_some_and(|c| !ends_word(c)) { self.values() } else { Value::sure("") };
                    value = Some(text);
                }
                break;
            }
            match plain(c) {
                '$' if !cmdlet => {
                    let (text, certainty) = self.argument().text();
                    // `-x$y` is one word of a program that is no cmdlet.
                    name.push_str(&text);
                    if certainty == Certainty::Unknown {
                        self.opaque(start, "is an option that is filled in when it runs");
                    }
                }
                '"' => name.push_str(&self.double().text().0),
                '\'' => name.push_str(&self.single().text().0),
                other => {
                    self.bump();
                    name.push(if name.is_empty() { other } else { c });
                }
            }
        }
        let span = self.span(start);
        // A comma goes on with the same word: `--a=b,c`.
        if value.is_none() && self.peek() == Some(',') && name.contains('=') {
            while self.eat_char(',') {
                name.push(',');
                name.push_str(&self.argument().text().0);
            }
        }
        given.arguments.push(Argument { parameter: Some(name), value, span, between });
    }

    fn splat(&mut self, given: &mut Given) {
        let start = self.at;
        self.bump();
        let name = self.take_while(|c| names(c) || c == ':').to_owned();
        let span = self.span(start);
        match self.world.variables.get(&bare(&name)).cloned() {
            Some(Value::Table(pairs)) => {
                for (name, value) in pairs {
                    let parameter = Some(format!("-{name}"));
                    given.arguments.push(Argument { parameter, value: Some(value), span, between: " " });
                }
            }
            Some(Value::List(items)) if !items.iter().any(Value::is_open) => {
                for item in items {
                    // What `$args` holds may be a parameter's name.
                    let parameter = match &item {
                        Value::Text(text, _) if text.starts_with('-') && name == "args" => Some(text.clone()),
                        _ => None,
                    };
                    let value = if parameter.is_some() { None } else { Some(item) };
                    given.arguments.push(Argument { parameter, value, span, between: "" });
                }
                if name.eq_ignore_ascii_case("args")
                    && let Some(Value::Table(pairs)) = self.world.variables.get(" named").cloned()
                {
                    for (name, value) in pairs {
                        given.arguments.push(Argument {
                            parameter: Some(format!("-{name}")),
                            value: Some(value),
                            span,
                            between: " ",
                        });
                    }
                }
            }
            _ => self.opaque(start, "spreads what a variable holds"),
        }
    }

    /// One value or several with commas between.
    fn values(&mut self) -> Value {
        let first = self.argument();
        let before = self.at;
        self.blanks();
        if self.peek() != Some(',') {
            self.at = before;
            return first;
        }
        let mut items = vec![first];
        while self.eat_char(',') {
            self.lines();
            items.push(self.argument());
            let before = self.at;
            self.blanks();
            if self.peek() != Some(',') {
                self.at = before;
            }
        }
        list(items)
    }

    /// One value as commands take it: bare words are text.
    pub(super) fn argument(&mut self) -> Value {
        self.nested(Value::unknown("$(…)"), Self::argument_here)
    }

    fn argument_here(&mut self) -> Value {
        let start = self.at;
        let second = self.second();
        let targets = std::mem::take(&mut self.targets);
        let value = match self.peek_plain() {
            Some('\'') => self.single(),
            Some('"') => {
                let value = self.double();
                if self.peek() == Some('.') { self.postfix(value, start, None) } else { value }
            }
            Some('$') if second.is_some_and(|c| names(c) || matches!(c, '(' | '{' | '?' | '$' | '^' | ':')) => {
                let (value, name) = self.variable();
                let value = self.postfix(value, start, name);
                // `$x\y` is one text.
                if self.peek().is_some_and(|c| !ends_word(c) && plain(c) != '"' && plain(c) != '\'') {
                    self.at = start;
                    self.bare_word()
                } else {
                    value
                }
            }
            Some('(' | '{') => {
                let value = if self.peek() == Some('{') {
                    self.block()
                } else {
                    self.bump();
                    let value = self.bracketed(true, Value::Null, |run| {
                        run.lines();
                        run.statement()
                    });
                    self.close(')', start);
                    value
                };
                self.postfix(value, start, None)
            }
            Some('@') if matches!(second, Some('(' | '{' | '\'' | '"')) => self.unary(),
            _ => self.bare_word(),
        };
        self.targets = targets;
        value
    }

    fn bare_word(&mut self) -> Value {
        let (mut text, mut certainty) = (String::new(), Certainty::Sure);
        while let Some(c) = self.peek() {
            match plain(c) {
                '`' => {
                    self.bump();
                    match self.bump() {
                        Some('\n') | None => {}
                        Some(next) => text.push(escaped(next)),
                    }
                }
                '$' => {
                    if self.second() == Some('_')
                        || self.second().is_some_and(names)
                        || matches!(self.second(), Some('(' | '{'))
                    {
                        self.quoted_piece(&mut text, &mut certainty);
                    } else {
                        text.extend(self.bump());
                    }
                }
                '\'' => text.push_str(&self.single().text().0),
                '"' => {
                    let (part, known) = self.double().text();
                    certainty = certainty.max(known);
                    text.push_str(&part);
                }
                // `stash@{0}` and the like are split by PowerShell as well.
                _ if ends_word(c) => break,
                _ => {
                    self.bump();
                    text.push(if text.is_empty() { plain(c) } else { c });
                }
            }
        }
        if text.len() > value::MAX_TEXT {
            return Value::unknown("…");
        }
        Value::Text(text, certainty)
    }

    /// Follows the name to what it means, and asks what that does.
    fn invoke(&mut self, name: &Value, given: &Given, piped: Option<Value>, start: usize, pipeline: usize) -> Value {
        let span = self.span(start);
        if let Value::Block(block) = name {
            return self.call_block(block, given);
        }
        let (mut program, certainty) = name.text();
        if certainty == Certainty::Unknown {
            self.opaque(start, "calls what is filled in when it runs");
        }
        for _ in 0..MAX_ALIASES {
            match self.world.aliases.get(&bare(&program)) {
                Some(meant) => program.clone_from(meant),
                None => break,
            }
        }
        if program.is_empty() {
            self.opaque(start, "calls nothing");
        }
        if let Some(block) = self.world.functions.get(&bare(&program)).cloned() {
            let parameters = Value::List(
                given.arguments.iter().filter(|a| a.parameter.is_none()).filter_map(|a| a.value.clone()).collect(),
            );
            return self.call_function(&block, given, parameters);
        }
        let lower = crate::naming::names(&program).1;
        let meant = ALIASES.iter().find(|(alias, _)| *alias == lower).map_or(lower.as_str(), |(_, meant)| meant);
        // `Microsoft.PowerShell.Utility\Invoke-Expression` names the module too.
        self.told_command(&program, given, piped.as_ref(), span, pipeline, meant);
        self.outcome(meant, given, piped, start)
    }

    fn call_block(&mut self, block: &Block, given: &Given) -> Value {
        let arguments = Value::List(given.arguments.iter().filter_map(|a| a.value.clone()).collect());
        if given.arguments.is_empty() {
            // It was read where it stands, and nothing is known better now, but what variables hold.
            return self.again(block);
        }
        self.call_function(block, given, arguments)
    }

    fn call_function(&mut self, block: &Block, given: &Given, positional: Value) -> Value {
        let mut named = Vec::new();
        let mut at = given.arguments.iter().peekable();
        let mut plain = Vec::new();
        while let Some(argument) = at.next() {
            match &argument.parameter {
                Some(name) => {
                    let value = match &argument.value {
                        Some(value) => value.clone(),
                        None => match at.peek() {
                            Some(next) if next.parameter.is_none() => next.value.clone().unwrap_or(Value::Null),
                            _ => Value::Truth(true),
                        },
                    };
                    named.push((name.trim_start_matches(['-', '–', '—', '―']).to_owned(), value));
                    // `@args` spreads it again as it was given.
                    plain.push(Value::sure(name.clone()));
                    plain.extend(argument.value.clone());
                }
                None => plain.extend(argument.value.clone()),
            }
        }
        let _ = positional;
        let before = (self.world.variables.remove("args"), self.world.variables.remove(" named"));
        self.world.variables.insert("args".to_owned(), Value::List(plain));
        self.world.variables.insert(" named".to_owned(), Value::Table(named));
        let given_before = self.world.given.len();
        let made = self.again(block);
        let _ = given_before;
        for (name, value) in [("args", before.0), (" named", before.1)] {
            match value {
                Some(value) => self.world.variables.insert(name.to_owned(), value),
                None => self.world.variables.remove(name),
            };
        }
        made
    }

    fn told_command(
        &mut self,
        program: &str,
        given: &Given,
        piped: Option<&Value>,
        span: Span0,
        pipeline: usize,
        meant: &str,
    ) {
        let mut args = Vec::new();
        for argument in &given.arguments {
            let value = argument.value.as_ref();
            match (&argument.parameter, value) {
                (Some(name), None) => args.push(Word { text: name.clone(), span: argument.span, ..Word::default() }),
                (Some(name), Some(value)) if argument.between == ":" => {
                    let word = word_of(value, argument.span);
                    args.push(Word { text: format!("{name}:{}", word.text), items: Vec::new(), ..word });
                }
                (Some(name), Some(value)) => {
                    if matches!(value, Value::Truth(true)) {
                        args.push(Word { text: name.clone(), span: argument.span, ..Word::default() });
                    } else {
                        args.push(Word { text: name.clone(), span: argument.span, ..Word::default() });
                        args.push(word_of(value, argument.span));
                    }
                }
                (None, Some(value)) => args.push(word_of(value, argument.span)),
                (None, None) => {}
            }
        }
        let input = match piped {
            Some(value) if takes_piped(&program.to_lowercase()) || meant.contains('-') => match value {
                Value::Null => Vec::new(),
                other => vec![word_of(other, span)],
            },
            _ => Vec::new(),
        };
        let redirections = given.redirections.clone();
        self.emit(Command {
            program: program.to_owned(),
            args,
            redirections,
            span,
            pipeline,
            input,
            ..Command::default()
        });
    }

    /// What a command puts out, and what it changes for those after it, where PowerShell itself says so.
    fn outcome(&mut self, meant: &str, given: &Given, piped: Option<Value>, start: usize) -> Value {
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
                    (Some(name), Some(value)) if self.world.perhaps == 0 => {
                        self.world.aliases.insert(name.to_lowercase(), value);
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
        let name = name.trim_start_matches(['-', '–', '—', '―']).to_lowercase();
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
            let name = name.trim_start_matches(['-', '/', '–', '—', '―']).to_lowercase();
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

impl Given {
    /// Returns the value of a parameter whose name begins with or is `name`.
    fn named(&self, name: &str) -> Option<&Value> {
        let (index, argument) = self.arguments.iter().enumerate().find(|(_, argument)| {
            argument.parameter.as_ref().is_some_and(|given| {
                let given = given.trim_start_matches(['-', '–', '—', '―']).to_lowercase();
                !given.is_empty() && name.starts_with(&given)
            })
        })?;
        argument
            .value
            .as_ref()
            .or_else(|| self.arguments.get(index + 1).filter(|next| next.parameter.is_none())?.value.as_ref())
    }

    fn after(&self, argument: &Argument) -> Option<&Value> {
        let index = self.arguments.iter().position(|other| std::ptr::eq(other, argument))?;
        self.arguments.get(index + 1)?.value.as_ref()
    }

    /// Returns the value at a place among those that follow no parameter.
    fn positional(&self, at: usize) -> Option<&Value> {
        let mut left = at;
        let mut skip = false;
        for argument in &self.arguments {
            match (&argument.parameter, &argument.value) {
                (Some(name), None) => skip = !is_switch(name),
                (None, Some(_)) if skip => skip = false,
                (None, Some(value)) if left == 0 => return Some(value),
                (None, Some(_)) => left -= 1,
                _ => skip = false,
            }
        }
        None
    }
}

/// Parameters without a value that commands which are looked at here have.
fn is_switch(name: &str) -> bool {
    const SWITCHES: &[&str] = &[
        "recurse",
        "force",
        "verbose",
        "debug",
        "whatif",
        "confirm",
        "noenumerate",
        "wait",
        "nonewwindow",
        "passthru",
        "valueonly",
        "file",
        "directory",
        "hidden",
        "system",
        "readonly",
        "all",
        "leaf",
        "parent",
        "resolve",
        "usenewenvironment",
        "loaduserprofile",
        "strict",
        "unique",
    ];
    let name = name.trim_start_matches(['-', '–', '—', '―']).to_lowercase();
    SWITCHES.iter().any(|switch| switch.starts_with(&name))
}

/// Returns whether what is piped to a command binds to its parameters, as it does for cmdlets.
fn takes_piped(lower: &str) -> bool {
    let (verb, noun) = lower.split_once('-').unwrap_or((lower, ""));
    (!noun.is_empty() && verb.chars().all(|c| c.is_ascii_alphabetic()) && !lower.contains(['.', '/']))
        || TAKES_PIPED.contains(&lower)
        || ALIASES.iter().any(|(alias, meant)| *alias == lower && meant.contains('-'))
}

fn word_of(value: &Value, span: Span0) -> Word {
    let items = match value {
        Value::List(items) => items.iter().map(|item| one_word(item, span)).collect(),
        _ => Vec::new(),
    };
    Word { items, ..one_word(value, span) }
}
