//! Commands: the name, what it is given, and those commands that PowerShell itself must be asked about.

use super::dotnet::one_word;
use super::lex::{ends_word, escaped, names, plain};
use super::scan::{Run, bare};
use super::value::{self, Block, Value, list};
use crate::reader::{Certainty, Command, Redirection, Span0, Word};

/// Under these, which no variable can be called, is kept what a function was given by place and by name.
pub(super) const PLACES: &str = " places";
pub(super) const NAMED: &str = " named";
pub(super) const DASHES: [char; 4] = ['-', '\u{2013}', '\u{2014}', '\u{2015}'];
/// How many names may stand for each other.
const MAX_ALIASES: usize = 8;

/// What a command is given.
#[derive(Default)]
pub(super) struct Given {
    pub(super) arguments: Vec<Argument>,
    pub(super) redirections: Vec<Redirection>,
}

/// One thing that a command is given: a parameter, perhaps with its value in the same word, or a value.
pub(super) struct Argument {
    pub(super) parameter: Option<String>,
    pub(super) value: Option<Value>,
    pub(super) span: Span0,
    /// What stands between a parameter and its value, where both are one word.
    pub(super) between: &'static str,
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
            }
            _ => self.opaque(start, "spreads what a variable holds"),
        }
    }

    /// One value or several with commas between.
    fn values(&mut self) -> Value {
        self.listed(Self::argument)
    }

    /// One value or several with commas between, as `item` reads each. Blanks behind the last are left.
    pub(super) fn listed(&mut self, item: impl Fn(&mut Self) -> Value) -> Value {
        let first = item(self);
        if !self.comma_follows() {
            return first;
        }
        let mut items = vec![first];
        while self.eat_char(',') {
            self.lines();
            items.push(item(self));
            self.comma_follows();
        }
        list(items)
    }

    /// Goes to the comma behind blanks, if there is one.
    fn comma_follows(&mut self) -> bool {
        let before = self.at;
        self.blanks();
        let follows = self.peek() == Some(',');
        if !follows {
            self.at = before;
        }
        follows
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
                    let start = self.at;
                    self.bump();
                    match self.bump() {
                        Some('\n') | None => {}
                        Some(next) => {
                            // Which letters stand for something else differs between versions.
                            if escaped(next) != next {
                                self.opaque(start, "is a letter in one PowerShell and a control character in another");
                            }
                            text.push(next);
                        }
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
            return self.call_function(&block, given);
        }
        let lower = crate::naming::names(&program).1;
        let meant = ALIASES.iter().find(|(alias, _)| *alias == lower).map_or(lower.as_str(), |(_, meant)| meant);
        // `Microsoft.PowerShell.Utility\Invoke-Expression` names the module too.
        self.told_command(&program, given, piped.as_ref(), span, pipeline, meant);
        self.outcome(meant, given, piped, start)
    }

    fn call_block(&mut self, block: &Block, given: &Given) -> Value {
        if given.arguments.is_empty() {
            // It was read where it stands, and nothing is known better now, but what variables hold.
            return self.again(block);
        }
        self.call_function(block, given)
    }

    fn call_function(&mut self, block: &Block, given: &Given) -> Value {
        let (mut named, mut places, mut all) = (Vec::new(), Vec::new(), Vec::new());
        let mut at = given.arguments.iter().peekable();
        while let Some(argument) = at.next() {
            let Some(name) = &argument.parameter else {
                places.extend(argument.value.clone());
                all.extend(argument.value.clone());
                continue;
            };
            // Whether a value that follows belongs to it only the function knows; then its place is not known either.
            let next = at.next_if(|next| argument.value.is_none() && next.parameter.is_none());
            let value = argument.value.clone().or_else(|| next.and_then(|next| next.value.clone()));
            all.push(Value::sure(name.clone()));
            all.extend(value.clone());
            named.push((name.trim_start_matches(DASHES).to_owned(), value.unwrap_or(Value::Truth(true))));
        }
        let given = [("args", Value::List(all)), (PLACES, Value::List(places)), (NAMED, Value::Table(named))];
        let before = given.map(|(name, value)| (name, self.world.variables.insert(name.to_owned(), value)));
        let made = self.again(block);
        for (name, value) in before {
            match value {
                Some(value) => self.world.variables.insert(name.to_owned(), value),
                None => self.world.variables.remove(name),
            };
        }
        made
    }

    pub(super) fn told_command(
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
}

impl Given {
    /// Returns the value of a parameter whose name begins with or is `name`.
    pub(super) fn named(&self, name: &str) -> Option<&Value> {
        let (index, argument) = self.arguments.iter().enumerate().find(|(_, argument)| {
            argument.parameter.as_ref().is_some_and(|given| {
                let given = given.trim_start_matches(DASHES).to_lowercase();
                !given.is_empty() && name.starts_with(&given)
            })
        })?;
        argument
            .value
            .as_ref()
            .or_else(|| self.arguments.get(index + 1).filter(|next| next.parameter.is_none())?.value.as_ref())
    }

    pub(super) fn after(&self, argument: &Argument) -> Option<&Value> {
        let index = self.arguments.iter().position(|other| std::ptr::eq(other, argument))?;
        self.arguments.get(index + 1)?.value.as_ref()
    }

    /// Returns the value at a place among those that follow no parameter.
    pub(super) fn positional(&self, at: usize) -> Option<&Value> {
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
    let name = name.trim_start_matches(DASHES).to_lowercase();
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
