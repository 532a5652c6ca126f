//! The way through a text of bash or sh: what its words become, and each command in its turn.

use std::rc::Rc;

use provara_domain::{Severity, Shell, Span, Verdict};

use crate::matching::{Place, resolve};
use crate::pass::Pass;
use crate::pattern;
use crate::reader::{Certainty, Command, MAX_STEPS, Redirection, Span0, Word};
use crate::shell::simulate::{self, MAX_OUTPUT};
use crate::shell::values::{Value, Values};
use crate::shell::{Change, Group, Kind, Node, Part, Redirect, Simple, Text, parse};

/// For so many values of a variable a command is looked at.
const MAX_CHOICES: usize = 8;
/// Braces that stand for more words than this are cut; what they stand for is asked about.
const MAX_BRACED: usize = 256;
/// The same for the pieces of all these words.
const MAX_PIECES: usize = 4_096;
/// Values longer than this are not cut or replaced in.
const MAX_VALUE: usize = 1_024;
/// How many wrappers and scripts within each other are opened. Below it anything may hide, so deeper is denied.
pub(crate) const MAX_WRAPPING: u32 = 6;

/// Where a command is found: all that its judging needs beside itself.
#[derive(Clone)]
pub(crate) struct Env<'a> {
    pub(crate) shell: Shell,
    /// How many wrappers and scripts hide it.
    pub(crate) depth: u32,
    /// What to point at where it has no place of its own in the text.
    pub(crate) outer: Option<Span>,
    /// The names of the programs before it in its pipeline.
    pub(crate) before: Vec<String>,
    pub(crate) place: Place<'a>,
    pub(crate) values: Values,
    /// Whether it runs perhaps, or in a shell of its own: what it sets may not hold.
    pub(crate) perhaps: bool,
}

/// What a command reads.
#[derive(Clone, Default)]
pub(crate) struct Input {
    /// All of it, where that is known.
    pub(crate) known: Option<String>,
    /// Whether something feeds it.
    pub(crate) fed: bool,
}

/// Which of the values is looked at, and how many there are.
struct Filling {
    choice: usize,
    choices: usize,
    unset: IfUnset,
}

/// What becomes of a variable that the text does not set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfUnset {
    /// It stays as it is written.
    Kept,
    /// It is nothing, as the shell has it where nobody else set it.
    Empty,
}

impl Filling {
    const fn first() -> Self {
        Self { choice: 0, choices: 1, unset: IfUnset::Kept }
    }
}

/// What something became.
enum Filled {
    One(String, Certainty),
    Many(Vec<String>),
    /// Nothing that the text says.
    Unset,
    Unknown,
}

impl<'p> Pass<'p> {
    /// Judges a whole text. Returns what it prints, where that is known.
    pub(crate) fn shell_text(&mut self, text: &str, env: &mut Env<'_>, input: &Input) -> Option<String> {
        if self.is_spent() {
            return None;
        }
        let script = parse(text, env.shell);
        self.spend(script.steps);
        for (span, why) in &script.opaque {
            self.opaque(why, env.outer.unwrap_or(*span));
        }
        if script.too_deep {
            self.deny_limit("nests commands deeper than is read", env.outer);
        }
        self.nodes(&script.nodes, env, input)
    }

    fn nodes(&mut self, nodes: &[Node], env: &mut Env<'_>, input: &Input) -> Option<String> {
        let mut whole = Some(String::new());
        for node in nodes {
            if self.is_spent() {
                return None;
            }
            let made = self.node(node, env, input);
            whole = whole.zip(made).map(|(whole, made)| whole + &made).filter(|whole| whole.len() <= MAX_OUTPUT);
        }
        whole
    }

    fn node(&mut self, node: &Node, env: &mut Env<'_>, input: &Input) -> Option<String> {
        match node {
            Node::Simple(simple) => self.every_choice(simple, env, input),
            Node::Pipe(stages) => self.pipe(stages, env, input),
            Node::Perhaps(node) => {
                let before = std::mem::replace(&mut env.perhaps, true);
                let made = self.node(node, env, input);
                env.perhaps = before;
                made
            }
            Node::Group(group) => self.group(group, env, input),
            Node::Function { name, body } => {
                env.values.define(name, body);
                // Whoever calls it may give it anything.
                let mut within = env.clone();
                within.perhaps = true;
                within.values.positional = None;
                within.values.unset(name);
                self.nodes(body, &mut within, &Input { known: None, fed: true });
                Some(String::new())
            }
        }
    }

    fn pipe(&mut self, stages: &[Node], env: &mut Env<'_>, input: &Input) -> Option<String> {
        let (outer, cwd) = (std::mem::take(&mut env.before), env.place.cwd.clone());
        let perhaps = std::mem::replace(&mut env.perhaps, true);
        let mut input = input.clone();
        for stage in stages {
            let noted = self.commands.len();
            let known = self.node(stage, env, &input);
            input = Input { known, fed: true };
            // A long pipeline may not make its own judging quadratic.
            if env.before.len() < 64 {
                let names = self.commands.get(noted..).unwrap_or(&[]).iter().take(16);
                env.before.extend(names.map(|command| crate::naming::names(&command.program).1));
            }
        }
        env.perhaps = perhaps;
        env.before = outer;
        env.place.cwd = cwd;
        input.known
    }

    fn group(&mut self, group: &Group, env: &mut Env<'_>, input: &Input) -> Option<String> {
        let mut filling = Filling::first();
        let words: Vec<Word> = group.words.iter().flat_map(|text| self.fields(text, env, &mut filling)).collect();
        let (redirections, input) = self.redirections(&group.redirections, env, input, &mut filling);
        if !redirections.is_empty() {
            let command = Command { redirections: redirections.clone(), span: group.span, ..Command::default() };
            self.simple(&command, env, &input);
        }
        let (cwd, perhaps) = (env.place.cwd.clone(), env.perhaps);
        match &group.kind {
            Kind::Test => {
                self.test(&words, group, env);
                return Some(String::new());
            }
            Kind::Braces => {}
            Kind::Subshell | Kind::Conditional => env.perhaps = true,
            Kind::For(name) => {
                env.perhaps = true;
                let open = words.len() > MAX_CHOICES
                    || words.iter().any(|word| word.certainty != Certainty::Sure || word.glob);
                let texts = words.iter().take(MAX_CHOICES).map(|word| word.text.clone()).collect();
                env.values.set(name, if words.is_empty() { Value::unknown() } else { Value { texts, open } });
            }
        }
        let made = self.nodes(&group.body, env, &input);
        env.perhaps = perhaps;
        match group.kind {
            Kind::Subshell => env.place.cwd = cwd,
            Kind::Conditional | Kind::For(_) if env.place.cwd != cwd => env.place.cwd = None,
            _ => {}
        }
        if group.kind != Kind::Braces && group.kind != Kind::Subshell {
            return None;
        }
        self.written(&redirections, made, env)
    }

    /// `[[ … ]]` and `(( … ))` run nothing themselves.
    fn test(&mut self, words: &[Word], group: &Group, env: &mut Env<'_>) {
        let command =
            Command { program: "[[".to_owned(), args: words.to_vec(), span: group.span, ..Command::default() };
        self.simple(&command, env, &Input::default());
    }

    fn every_choice(&mut self, simple: &Simple, env: &mut Env<'_>, input: &Input) -> Option<String> {
        let mut filling = Filling::first();
        let made = self.simple_node(simple, env, input, &mut filling);
        let choices = filling.choices.min(MAX_CHOICES);
        for choice in 1..choices {
            if self.is_spent() {
                return None;
            }
            self.simple_node(simple, env, input, &mut Filling { choice, choices, unset: IfUnset::Kept });
        }
        made.filter(|_| choices == 1)
    }

    fn simple_node(
        &mut self,
        simple: &Simple,
        env: &mut Env<'_>,
        input: &Input,
        filling: &mut Filling,
    ) -> Option<String> {
        let words: Vec<Word> = simple.words.iter().flat_map(|text| self.fields(text, env, filling)).collect();
        let (redirections, input) = self.redirections(&simple.redirections, env, input, filling);
        let assignments = self.assignments(simple, words.is_empty(), env, filling);
        let span = simple.span;
        let Some((program, args)) = words.split_first() else {
            // Where nothing is run, the assignments come first.
            if !assignments.is_empty()
                && self.redirections(&simple.redirections, env, &input, filling).0 != redirections
            {
                self.opaque("sets what its file is called by", env.outer.unwrap_or_else(|| span.into()));
            }
            let command = Command { redirections: redirections.clone(), assignments, span, ..Command::default() };
            self.simple(&command, env, &input);
            // `$(< file)` prints it; a redirection alone empties the file.
            let known = simple.redirections.iter().any(|to| to.operator == "<").then_some(input.known).flatten();
            return self.written(
                &redirections,
                known.or_else(|| Some(String::new()).filter(|_| simple.words.is_empty())),
                env,
            );
        };
        let here = env.outer.unwrap_or_else(|| program.span.into());
        match program.certainty {
            Certainty::Unset | Certainty::Unknown => {
                self.opaque("is a program whose name is filled in when it runs", here)
            }
            Certainty::Perhaps => self.opaque("is a program whose name may be another when it runs", here),
            Certainty::Sure => {}
        }
        let blank = program.certainty == Certainty::Unset;
        let command = Command {
            program: program.text.clone(),
            args: args.to_vec(),
            redirections,
            assignments,
            span,
            ..Command::default()
        };
        if blank && filling.unset == IfUnset::Kept {
            // Where nobody sets it, `r${x}m` is `rm`.
            let mut empty = Filling { choice: filling.choice, choices: filling.choices, unset: IfUnset::Empty };
            self.simple_node(simple, env, &input, &mut empty);
        }
        if program.glob {
            self.opaque("is a pattern of file names where the program's name belongs", here);
            return self.any_program(&command, env, &input);
        }
        if program.text.is_empty() {
            self.opaque("is an empty program name", here);
        }
        let before: Vec<(String, Option<Value>)> = command
            .assignments
            .iter()
            .filter(|_| !declares(simple))
            .filter_map(|told| told.split_once('='))
            .map(|(name, text)| {
                let before = env.values.variable(name).cloned();
                env.values.set(name, Value { texts: vec![text.to_owned()], open: true });
                (name.to_owned(), before)
            })
            .collect();
        let made = self.called(&command, env, &input);
        // What stands before a command is set for it alone.
        for (name, value) in before.into_iter().rev() {
            match value {
                Some(value) => env.values.set(&name, value),
                None => env.values.unset_variable(&name),
            }
        }
        made
    }

    /// Runs `command` as the function or the alias that it is, or else as a program.
    fn called(&mut self, command: &Command, env: &mut Env<'_>, input: &Input) -> Option<String> {
        if let Some(body) = env.values.function(&command.program) {
            if env.depth >= MAX_WRAPPING {
                self.deny_limit(
                    "wraps a command in more commands than are opened",
                    env.outer.or(Some(command.span.into())),
                );
                return None;
            }
            let args = command.args.iter().map(|word| word.text.clone()).collect();
            let before = env.values.positional.replace(args);
            env.depth += 1;
            self.note_call(command, env);
            let made = self.nodes(&body, env, input);
            env.depth -= 1;
            env.values.positional = before;
            return self.written(&command.redirections, made, env);
        }
        if let Some(text) = env.values.alias(&command.program)
            && env.depth < MAX_WRAPPING
        {
            let args = command.args.iter().map(|word| word.text.as_str());
            let text = std::iter::once(text).chain(args).collect::<Vec<_>>().join(" ");
            let mut within = env.clone();
            within.depth += 1;
            within.outer = env.outer.or(Some(command.span.into()));
            self.shell_text(&text, &mut within, input);
        }
        self.builtin(command, env, input);
        self.simple(command, env, input);
        let file = |path: &str| {
            resolve(path, env.place.cwd.as_deref()).and_then(|path| env.values.file(&path).map(str::to_owned))
        };
        let made = simulate::output(command, input.known.as_deref(), env.place.cwd.as_deref(), &file);
        self.spend(made.as_ref().map_or(0, |text| u64::try_from(text.len() / 16).unwrap_or(0)));
        self.kept(command, input, env);
        self.written(&command.redirections, made, env)
    }

    /// A pattern in the place of the program: each known program that it matches is looked at.
    fn any_program(&mut self, command: &Command, env: &mut Env<'_>, input: &Input) -> Option<String> {
        let name = command.program.rsplit('/').next().unwrap_or("");
        let names: Vec<String> =
            self.policy().knowledge().matching(name, MAX_CHOICES).into_iter().map(str::to_owned).collect();
        for program in names {
            self.simple(&Command { program, ..command.clone() }, env, input);
        }
        self.simple(command, env, input);
        None
    }

    /// What the shell itself does for a command: set, unset, name.
    fn builtin(&mut self, command: &Command, env: &mut Env<'_>, input: &Input) {
        let args = || command.args.iter().map(|word| word.text.as_str());
        match command.program.as_str() {
            // Any word that is no option is the first of them.
            "set" if !args().all(|arg| arg.len() > 1 && arg != "--" && arg.starts_with(['-', '+'])) => {
                let given = args().skip(1).map(str::to_owned).collect();
                let known = args().next() == Some("--")
                    && !env.perhaps
                    && command.args.iter().all(|word| word.certainty == Certainty::Sure && !word.glob);
                env.values.positional = known.then_some(given);
            }
            "shift" if env.perhaps || args().next().is_some() => env.values.positional = None,
            "shift" => {
                if let Some(positional) = &mut env.values.positional
                    && !positional.is_empty()
                {
                    positional.remove(0);
                }
            }
            "unset" => args().for_each(|name| env.values.unset(name)),
            "read" | "mapfile" | "readarray" | "getopts" => {
                let mut words = input.known.as_deref().unwrap_or("").split_whitespace();
                for name in args().filter(|arg| !arg.starts_with('-')) {
                    let texts = words.next().map(str::to_owned).into_iter().collect();
                    env.values.may_set(name, Value { texts, open: true });
                }
            }
            // The next time that name is another program.
            "hash" if args().next() == Some("-p") => {
                if let (Some(path), Some(name)) = (args().nth(1), args().nth(2)) {
                    env.values.name_alias(name, path);
                }
            }
            "alias" => {
                for (name, text) in args().filter_map(|arg| arg.split_once('=')) {
                    env.values.name_alias(name, text);
                    let mut within = env.clone();
                    within.depth += 1;
                    within.perhaps = true;
                    within.outer = env.outer.or(Some(command.span.into()));
                    if within.depth <= MAX_WRAPPING {
                        self.shell_text(text, &mut within, &Input { known: None, fed: true });
                    }
                }
            }
            "printf" if args().next() == Some("-v") => {
                let name = args().nth(1).unwrap_or("").to_owned();
                let rest = Command { args: command.args.iter().skip(2).cloned().collect(), ..command.clone() };
                let value = simulate::output(&rest, None, None, &|_| None);
                self.give(&name, value.map_or_else(Value::unknown, Value::of), env);
            }
            _ => {}
        }
    }

    /// Remembers what the text writes to files that it may run later.
    fn kept(&mut self, command: &Command, input: &Input, env: &mut Env<'_>) {
        let operands = || command.args.iter().map(|word| word.text.as_str()).filter(|text| !text.starts_with('-'));
        let at = |path: &str, env: &Env<'_>| resolve(path, env.place.cwd.as_deref());
        match command.program.rsplit('/').next().unwrap_or("") {
            "tee" => {
                let appends = command.args.iter().any(|word| word.text == "-a");
                for path in operands() {
                    if let (Some(path), Some(text)) = (at(path, env), &input.known) {
                        env.values.write(&path, text, appends);
                    }
                }
            }
            "cp" | "mv" | "ln" | "install" => {
                let (from, to) = (operands().next(), operands().next_back());
                let (Some(from), Some(to)) = (from.and_then(|path| at(path, env)), to.and_then(|path| at(path, env)))
                else {
                    return;
                };
                if let Some(text) = env.values.file(&from).map(str::to_owned) {
                    env.values.write(&to, &text, false);
                }
            }
            _ => {}
        }
    }

    /// What is left to print after redirections; what goes to a file is remembered.
    fn written(&mut self, redirections: &[Redirection], made: Option<String>, env: &mut Env<'_>) -> Option<String> {
        let to_file = redirections
            .iter()
            .find(|to| matches!(to.operator.as_str(), ">" | ">>" | ">|" | "1>" | "1>>" | "&>" | "&>>"));
        let Some(to) = to_file else { return made };
        if let (Some(path), Some(text)) = (resolve(&to.target, env.place.cwd.as_deref()), made) {
            env.values.write(&path, &text, to.operator.ends_with(">>"));
        }
        Some(String::new())
    }

    fn assignments(&mut self, simple: &Simple, alone: bool, env: &mut Env<'_>, filling: &mut Filling) -> Vec<String> {
        let declares = declares(simple);
        let mut told = Vec::new();
        for assignment in &simple.assignments {
            let mut texts = Vec::new();
            let mut certainty = Certainty::Sure;
            for text in &assignment.values {
                let (value, sure) = self.filled_text(text, env, filling);
                if value.contains("[$(") || value.contains("[`") {
                    let span = env.outer.unwrap_or_else(|| text.span.into());
                    self.opaque("is a value that runs a command where it is counted with", span);
                }
                certainty = certainty.max(sure);
                texts.push(value);
            }
            let mut text = texts.join(" ");
            told.push(format!("{}={text}", assignment.name));
            if !alone && !declares {
                continue;
            }
            if assignment.adds
                && let Some(before) = env.values.variable(&assignment.name).and_then(|value| value.texts.last())
            {
                let between = if assignment.values.len() > 1 { " " } else { "" };
                text = format!("{before}{between}{text}");
            }
            let value = match certainty {
                Certainty::Sure => Value::of(text),
                Certainty::Perhaps => Value { texts: vec![text], open: true },
                Certainty::Unset | Certainty::Unknown => Value::unknown(),
            };
            self.give(&assignment.name, value, env);
        }
        told
    }

    fn give(&mut self, name: &str, value: Value, env: &mut Env<'_>) {
        if env.perhaps { env.values.may_set(name, value) } else { env.values.set(name, value) }
    }

    fn redirections(
        &mut self,
        redirects: &[Redirect],
        env: &mut Env<'_>,
        input: &Input,
        filling: &mut Filling,
    ) -> (Vec<Redirection>, Input) {
        let mut input = input.clone();
        let mut told = Vec::new();
        for redirect in redirects {
            let (target, certainty) = self.filled_text(&redirect.target, env, filling);
            match redirect.operator.as_str() {
                "<<" | "<<-" | "0<<" => {
                    let body = redirect.body.as_ref().and_then(|body| body.get());
                    let (text, sure) =
                        body.map_or((String::new(), Certainty::Unknown), |body| self.filled_text(body, env, filling));
                    input = Input { known: Some(text).filter(|_| sure < Certainty::Unset), fed: true };
                    continue;
                }
                "<<<" | "0<<<" => {
                    let known = Some(format!("{target}\n")).filter(|_| certainty < Certainty::Unset);
                    input = Input { known, fed: true };
                    continue;
                }
                "<" | "0<" => {
                    let path = resolve(&target, env.place.cwd.as_deref());
                    let known = path.and_then(|path| env.values.file(&path).map(str::to_owned));
                    input = Input { known, fed: true };
                }
                _ => {}
            }
            let other = self.split_target(&redirect.target, &target, env, filling);
            let certainty = if other.is_some() { certainty.max(Certainty::Perhaps) } else { certainty };
            for target in std::iter::once(target).chain(other) {
                told.push(Redirection { operator: redirect.operator.clone(), target, certainty });
            }
        }
        (told, input)
    }

    /// What bash takes for the file `whole`, where that is another: it splits what variables become, and goes on where one word
    /// is left. `sh` takes it whole.
    fn split_target(&mut self, text: &Text, whole: &str, env: &mut Env<'_>, filling: &mut Filling) -> Option<String> {
        let separators = separators(env);
        if !whole.contains(|c| separators.contains(c)) {
            return None;
        }
        match self.fields(text, env, filling).as_slice() {
            [one] if one.text != whole => Some(one.text.clone()),
            _ => None,
        }
    }

    /// Returns the word as one text, without splitting it.
    fn filled_text(&mut self, text: &Text, env: &mut Env<'_>, filling: &mut Filling) -> (String, Certainty) {
        self.filled_parts(&text.parts, text.span, env, filling)
    }

    fn filled_parts(
        &mut self,
        parts: &[Part],
        span: Span0,
        env: &mut Env<'_>,
        filling: &mut Filling,
    ) -> (String, Certainty) {
        let mut field = Building::new(span, false);
        for part in parts {
            self.part(part, true, &mut field, env, filling);
        }
        let mut words = field.done();
        let certainty = words.iter().map(|word| word.certainty).max().unwrap_or_default();
        match words.len() {
            1 => (words.pop().map(|word| word.text).unwrap_or_default(), certainty),
            _ => (words.into_iter().map(|word| word.text).collect::<Vec<_>>().join(" "), certainty),
        }
    }

    /// Returns the words that a word becomes.
    fn fields(&mut self, text: &Text, env: &mut Env<'_>, filling: &mut Filling) -> Vec<Word> {
        let mut words = Vec::new();
        for parts in spelled_out(&text.parts) {
            let mut field = Building::new(text.span, true);
            field.separators = separators(env);
            for part in &parts {
                self.part(part, false, &mut field, env, filling);
            }
            words.extend(field.done());
        }
        self.spend(u64::try_from(words.len()).unwrap_or(0));
        words
    }

    fn part(&mut self, part: &Part, whole: bool, field: &mut Building, env: &mut Env<'_>, filling: &mut Filling) {
        match part {
            Part::Plain { text, quoted } => field.plain(text, *quoted),
            Part::Variable { name, change, quoted, written } => {
                let listed = written.ends_with("[@]}") || (name == "@" && *quoted);
                match self.changed(name, change, field.span, env, filling) {
                    Filled::One(text, certainty) => field.value(&text, certainty, (*quoted || whole) && !listed),
                    Filled::Many(texts) => field.list(&texts, *quoted && listed),
                    Filled::Unset if filling.unset == IfUnset::Empty => {
                        field.value("", Certainty::Perhaps, *quoted || whole);
                    }
                    Filled::Unset => field.unknown(written, Certainty::Unset),
                    Filled::Unknown => field.unknown(written, Certainty::Unknown),
                }
            }
            Part::Output { body, quoted, written } => match self.printed(body, env, filling) {
                Some(text) => field.value(text.trim_end_matches('\n'), Certainty::Sure, *quoted || whole),
                None => field.unknown(written, Certainty::Unknown),
            },
            Part::Process { body, written } => match self.printed(body, env, filling) {
                Some(text) => {
                    let path = format!(
                        "/dev/fd/{}",
                        63 + env.values.positional.as_ref().map_or(0, Vec::len) + field.text.len() + text.len()
                    );
                    env.values.write(&path, &text, false);
                    field.value(&path, Certainty::Sure, true);
                }
                None => field.unknown(written, Certainty::Unknown),
            },
            Part::Number { inside, .. } => {
                self.filled_parts(inside, field.span, env, filling);
                field.value("0", Certainty::Perhaps, true);
            }
            // Only in a word, where it is spelled out before.
            Part::Braces(choices) => {
                for choice in choices.iter().flatten() {
                    self.part(choice, whole, field, env, filling);
                }
            }
        }
    }

    /// Runs what a substitution runs; returns what it prints, where that is known.
    fn printed(&mut self, body: &Rc<Vec<Node>>, env: &mut Env<'_>, filling: &Filling) -> Option<String> {
        // It was looked at for the first value of the variables already.
        if filling.choice > 0 {
            return None;
        }
        let mut within = env.clone();
        within.perhaps = true;
        within.before.clear();
        self.nodes(body, &mut within, &Input { known: None, fed: true })
    }

    fn changed(
        &mut self,
        name: &str,
        change: &Change,
        span: Span0,
        env: &mut Env<'_>,
        filling: &mut Filling,
    ) -> Filled {
        let value = lookup(name, env, filling);
        let mut text_of = |parts: &[Part], filling: &mut Filling| self.filled_parts(parts, span, env, filling);
        let (text, certainty) = match (value, change) {
            (value, Change::Nothing) => return value,
            (value, Change::Default { word, assigns }) => {
                let (word, sure) = text_of(word, filling);
                let sure = sure.max(Certainty::Perhaps);
                return match value {
                    Filled::One(text, certainty) if !text.is_empty() => Filled::One(text, certainty),
                    Filled::Many(texts) if !texts.is_empty() => Filled::Many(texts),
                    _ if sure >= Certainty::Unset => Filled::Unknown,
                    _ => {
                        if *assigns {
                            env.values.may_set(name, Value { texts: vec![word.clone()], open: true });
                        }
                        Filled::One(word, sure)
                    }
                };
            }
            (value, Change::Instead(word)) => {
                let (word, sure) = text_of(word, filling);
                return match (value, sure) {
                    (_, Certainty::Unset | Certainty::Unknown) => Filled::Unknown,
                    (Filled::One(text, Certainty::Sure), sure) if !text.is_empty() => Filled::One(word, sure),
                    _ => Filled::One(word, Certainty::Perhaps),
                };
            }
            (_, Change::Other(inside)) => {
                text_of(inside, filling);
                return Filled::Unknown;
            }
            (Filled::Unset | Filled::Unknown, change) => {
                if let Change::CutFront { pattern, .. }
                | Change::CutBack { pattern, .. }
                | Change::Replace { pattern, .. }
                | Change::Slice(pattern) = change
                {
                    text_of(pattern, filling);
                }
                return Filled::Unknown;
            }
            (Filled::Many(texts), _) => (texts.join(" "), Certainty::Sure),
            (Filled::One(text, certainty), _) => (text, certainty),
        };
        if text.len() > MAX_VALUE {
            return Filled::Unknown;
        }
        let made = match change {
            Change::Length => Some(text.chars().count().to_string()),
            Change::Indirect => return lookup(&text, env, filling),
            Change::Upper { all } => Some(cased(&text, *all, char::to_ascii_uppercase)),
            Change::Lower { all } => Some(cased(&text, *all, char::to_ascii_lowercase)),
            Change::CutFront { pattern, longest } => {
                Some(cut(&text, &text_of(pattern, filling).0, *longest, Side::Front))
            }
            Change::CutBack { pattern, longest } => {
                Some(cut(&text, &text_of(pattern, filling).0, *longest, Side::Back))
            }
            Change::Replace { pattern, by, all } => {
                let (pattern, by) = (text_of(pattern, filling).0, text_of(by, filling).0);
                let is_plain = !pattern.is_empty() && !pattern.contains(['*', '?', '[', '\\']);
                is_plain.then(|| if *all { text.replace(&pattern, &by) } else { text.replacen(&pattern, &by, 1) })
            }
            Change::Slice(inside) => slice(&text, &text_of(inside, filling).0),
            _ => None,
        };
        made.map_or(Filled::Unknown, |text| Filled::One(text, certainty))
    }
}

/// `export A=1` sets it from here on, and `A=1 x` for `x` alone.
fn declares(simple: &Simple) -> bool {
    let name = simple.words.first().and_then(Text::literal);
    name.is_some_and(|name| matches!(name.as_str(), "export" | "declare" | "local" | "readonly" | "typeset"))
}

fn lookup(name: &str, env: &Env<'_>, filling: &mut Filling) -> Filled {
    if let Some(value) = env.values.variable(name) {
        filling.choices = filling.choices.max(value.texts.len());
        let at = filling.choice.min(value.texts.len().saturating_sub(1));
        let sure = value.texts.len() == 1 && !value.open;
        return match value.texts.get(at) {
            Some(text) => Filled::One(text.clone(), if sure { Certainty::Sure } else { Certainty::Perhaps }),
            None => Filled::Unknown,
        };
    }
    let positional = |at: usize| match &env.values.positional {
        Some(positional) => Filled::One(positional.get(at).cloned().unwrap_or_default(), Certainty::Sure),
        None => Filled::Unknown,
    };
    match name {
        "@" | "*" => env.values.positional.clone().map_or(Filled::Unknown, Filled::Many),
        "0" | "BASH" | "SHELL" => Filled::One("bash".to_owned(), Certainty::Perhaps),
        "#" | "?" | "$" | "!" | "RANDOM" | "SECONDS" | "UID" | "EUID" | "PPID" | "LINENO" => {
            Filled::One("0".to_owned(), Certainty::Perhaps)
        }
        "HOME" => Filled::One("~".to_owned(), Certainty::Sure),
        "PWD" => env.place.cwd.clone().map_or(Filled::Unknown, |cwd| Filled::One(cwd, Certainty::Sure)),
        "IFS" => Filled::One(" \t\n".to_owned(), Certainty::Sure),
        "TMPDIR" => Filled::One("/tmp".to_owned(), Certainty::Perhaps),
        _ => match name.parse::<usize>() {
            Ok(at @ 1..) => positional(at - 1),
            _ => Filled::Unset,
        },
    }
}

fn cased(text: &str, all: bool, to: impl Fn(&char) -> char) -> String {
    text.chars().enumerate().map(|(at, c)| if all || at == 0 { to(&c) } else { c }).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Front,
    Back,
}

fn cut(text: &str, glob: &str, longest: bool, side: Side) -> String {
    let borders = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let fits = |at: &usize| {
        let (front, back) = text.split_at(*at);
        pattern::matches(glob, if side == Side::Front { front } else { back })
    };
    let found: Vec<usize> = borders.filter(fits).collect();
    let at = if longest == (side == Side::Front) { found.last() } else { found.first() };
    match (at, side) {
        (Some(at), Side::Front) => text.split_at(*at).1.to_owned(),
        (Some(at), Side::Back) => text.split_at(*at).0.to_owned(),
        (None, _) => text.to_owned(),
    }
}

fn slice(text: &str, range: &str) -> Option<String> {
    let (offset, length) = range.split_once(':').map_or((range, None), |(offset, length)| (offset, Some(length)));
    let offset: usize = offset.trim().parse().ok()?;
    let length: usize = length.map_or(Some(usize::MAX), |length| length.trim().parse().ok())?;
    Some(text.chars().skip(offset).take(length).collect())
}

/// Braces, each of their words in its turn. Past the bounds a word keeps its braces unspelled, which then stand for one word.
fn spelled_out(parts: &[Part]) -> Vec<Vec<Part>> {
    if !parts.iter().any(|part| matches!(part, Part::Braces(_))) {
        return vec![parts.to_vec()];
    }
    let mut words: Vec<Vec<Part>> = vec![Vec::new()];
    for part in parts {
        let choices: Vec<Vec<Part>> = match part {
            Part::Braces(choices) if words.len() * choices.len() <= MAX_BRACED => {
                choices.iter().flat_map(|choice| spelled_out(choice)).take(MAX_BRACED).collect()
            }
            other => vec![vec![other.clone()]],
        };
        let pieces: usize = words.iter().map(Vec::len).sum();
        if pieces * choices.len() > MAX_PIECES {
            break;
        }
        let grown = words.iter().flat_map(|word| choices.iter().map(move |choice| [word.as_slice(), choice].concat()));
        words = grown.take(MAX_BRACED).collect();
    }
    words
}

/// Words that are being put together.
struct Building {
    done: Vec<Word>,
    text: String,
    begun: bool,
    glob: bool,
    certainty: Certainty,
    span: Span0,
    splits: bool,
    /// What the shell splits values at.
    separators: String,
}

impl Building {
    fn new(span: Span0, splits: bool) -> Self {
        Self {
            done: Vec::new(),
            text: String::new(),
            begun: false,
            glob: false,
            certainty: Certainty::Sure,
            span,
            splits,
            separators: BLANKS.to_owned(),
        }
    }

    fn plain(&mut self, text: &str, quoted: bool) {
        self.begun |= quoted || !text.is_empty();
        self.glob |= !quoted && is_pattern(text);
        self.text.push_str(text);
    }

    fn value(&mut self, text: &str, certainty: Certainty, whole: bool) {
        self.certainty = self.certainty.max(certainty);
        if whole || !self.splits {
            self.begun = true;
            return self.text.push_str(text);
        }
        let mut rest = text;
        let separators = std::mem::take(&mut self.separators);
        if separators != BLANKS {
            // Other signs split by rules of their own.
            self.certainty = self.certainty.max(Certainty::Perhaps);
        }
        while let Some(at) = rest.find(|c| separators.contains(c)) {
            let (word, after) = rest.split_at(at);
            self.text.push_str(word);
            self.begun |= !word.is_empty();
            self.end(certainty);
            rest = after.trim_start_matches(|c| separators.contains(c));
        }
        self.separators = separators;
        self.text.push_str(rest);
        self.begun |= !rest.is_empty();
        self.glob |= is_pattern(text);
    }

    fn list(&mut self, texts: &[String], quoted: bool) {
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                self.end(Certainty::Sure);
            }
            self.value(text, Certainty::Sure, quoted);
        }
    }

    fn unknown(&mut self, written: &str, certainty: Certainty) {
        self.begun = true;
        self.certainty = self.certainty.max(certainty);
        self.text.push_str(written);
    }

    fn end(&mut self, next: Certainty) {
        if self.begun {
            let (text, certainty) = (std::mem::take(&mut self.text), self.certainty);
            self.done.push(Word { text, glob: self.glob, certainty, span: self.span, items: Vec::new() });
        }
        self.text.clear();
        self.begun = false;
        self.glob = false;
        self.certainty = next;
    }

    fn done(mut self) -> Vec<Word> {
        self.end(Certainty::Sure);
        self.done
    }
}

/// What the shell splits values at unless it is told otherwise.
const BLANKS: &str = " \t\n";

fn separators(env: &Env<'_>) -> String {
    let told = env.values.variable("IFS").and_then(|value| value.texts.last());
    told.map_or_else(|| BLANKS.to_owned(), Clone::clone)
}

/// `[` alone is a program and its argument, not a pattern.
fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?']) || text.split_once('[').is_some_and(|(_, after)| after.contains(']'))
}

impl Pass<'_> {
    pub(crate) fn is_spent(&self) -> bool {
        self.steps > MAX_STEPS
    }

    pub(crate) fn spend(&mut self, steps: u64) {
        self.steps = self.steps.saturating_add(steps);
    }

    fn note_call(&mut self, command: &Command, env: &Env<'_>) {
        let span = env.outer.unwrap_or_else(|| command.span.into());
        let text = format!("`{}` is a function of this text", crate::pass::shortened(&command.program));
        self.say("known_command", Verdict::Allow, Severity::Info, text, Some(span));
        self.note(command, Vec::new(), span, env.depth);
    }
}
