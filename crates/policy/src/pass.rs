//! One judging of one text: every command in it, what that is given to run, and what the rules say of each.

use std::collections::HashMap;

use provara_domain::{Reason, Severity, Shell, Span, Verdict};

use crate::code;
use crate::facts::{Effect, Fact, Scope};
use crate::judge::{Policy, ReadCommand, Request, Strictness};
use crate::knowledge::{Inner, Language, Program, Scopes, Stdin, Use, apply, host_scope};
use crate::matching::{Place, holds, is_plain, may_be_allowed, resolve};
use crate::naming::names;
use crate::reader::{self, Certainty, Command, Redirection, Word};
use crate::rule::{Matcher, Rule};
use crate::shell::values::Values;
use crate::walk::{Env, Input, MAX_WRAPPING};

/// One reason of a kind is told so often; more adds nothing for the reader and would let a text grow its judgement.
const TOLD_AT_MOST: usize = 8;
/// For so many of the files that `{}` stands for, the command is looked at.
const MAX_FILLS: usize = 4;

pub(crate) struct Pass<'p> {
    policy: &'p Policy,
    rules: &'p [Rule],
    /// What becomes of what no rule knows.
    unknown: Verdict,
    pub(crate) reasons: Vec<Reason>,
    told: HashMap<String, usize>,
    /// For each rule.
    pub(crate) matched: Vec<bool>,
    pub(crate) commands: Vec<ReadCommand>,
    pub(crate) steps: u64,
}

impl<'p> Pass<'p> {
    pub(crate) fn new(policy: &'p Policy, rules: &'p [Rule]) -> Self {
        Self {
            policy,
            rules,
            unknown: match policy.strictness() {
                Strictness::Ask => Verdict::Ask,
                Strictness::Deny => Verdict::Deny,
            },
            reasons: Vec::new(),
            told: HashMap::new(),
            matched: vec![false; rules.len()],
            commands: Vec::new(),
            steps: 0,
        }
    }

    pub(crate) const fn policy(&self) -> &'p Policy {
        self.policy
    }

    /// Work is bounded by steps; a text that needs more is denied.
    pub(crate) fn run(&mut self, request: &Request<'_>) {
        self.raw(request.command.as_str(), request.shell, None);
        for (span, why) in reader::hidden(request.command.as_str()) {
            self.opaque(why, span);
        }
        self.spend(u64::try_from(request.command.as_str().len()).unwrap_or(u64::MAX));
        let mut env = Env {
            shell: request.shell,
            depth: 0,
            outer: None,
            before: Vec::new(),
            place: Place { cwd: Some(request.cwd.to_owned()), workspaces: request.workspaces },
            values: Values::of_a_command(),
            perhaps: false,
        };
        self.script(request.command.as_str(), &mut env, &Input::default());
        if self.commands.is_empty() {
            let text = "has no command that could be read".to_owned();
            self.say("nothing_to_run", Verdict::Ask, Severity::Low, text, None);
        }
        if self.is_spent() {
            self.deny_limit("is too large or too intricate to be judged", None);
        }
    }

    /// Raw rules see every text, opaque or not.
    fn raw(&mut self, text: &str, shell: Shell, outer: Option<Span>) {
        let rules = self.rules;
        for (index, rule) in rules.iter().enumerate() {
            let Matcher::Raw(regex) = &rule.matcher else { continue };
            if !rule.shells.contains(&shell) {
                continue;
            }
            self.steps += u64::try_from(text.len() / 16).unwrap_or(0) + 1;
            if let Some(found) = regex.find(text) {
                self.rule_speaks(index, outer.unwrap_or(Span { start: found.start(), end: found.end() }), None);
            }
        }
    }

    /// Judges a text in the shell of `env`. Returns what it prints, where that is known.
    fn script(&mut self, text: &str, env: &mut Env<'_>, input: &Input) -> Option<String> {
        match env.shell {
            Shell::Bash | Shell::Sh => return self.shell_text(text, env, input),
            Shell::Pwsh => {}
        }
        if self.is_spent() {
            return None;
        }
        let reading = reader::read(text, Shell::Pwsh);
        self.spend(reading.steps);
        for (span, why) in &reading.opaque {
            self.opaque(why, env.outer.unwrap_or(*span));
        }
        if reading.too_deep {
            self.deny_limit("nests commands deeper than is read", env.outer);
        }
        for (span, text) in &reading.texts {
            self.raw(text, Shell::Pwsh, env.outer.or(Some(*span)));
        }
        let mut pipeline = 0;
        for command in &reading.commands {
            if self.is_spent() {
                return None;
            }
            if pipeline != command.pipeline {
                pipeline = command.pipeline;
                env.before.clear();
            }
            let noted = self.commands.len();
            let fed = !env.before.is_empty();
            self.simple(command, env, &Input { known: None, fed });
            // A long pipeline may not make its own judging quadratic.
            if env.before.len() < 64 {
                let names = self.commands.get(noted..).unwrap_or(&[]).iter().take(16);
                env.before.extend(names.map(|command| crate::naming::names(&command.program).1));
            }
        }
        None
    }

    /// Judges one command whose words are filled in, and what it runs in its turn.
    pub(crate) fn simple(&mut self, command: &Command, env: &mut Env<'_>, input: &Input) {
        let span = env.outer.unwrap_or_else(|| command.span.into());
        let (_, name) = names(&command.program);
        let ruled = self.rules_on(command, env.shell, span, &env.before, &env.place);
        let policy = self.policy;
        let scopes = Scopes { places: policy.places(), place: &env.place };
        let mut facts = redirected(command, scopes, span);
        let program = policy.knowledge().program(&name, env.shell);
        let usage = match program {
            Some(program) => apply(program, &command.args, &command.input, span, scopes),
            None => unknown_use(command, scopes),
        };
        self.spend(u64::try_from(command.args.len()).unwrap_or(0));
        facts.extend(usage.facts.iter().cloned());
        if env.shell == Shell::Pwsh {
            facts.extend(shares(command, span));
        }
        self.set(command, &usage, span, &mut facts);
        self.names(command, program, ruled, (env.shell, span), &usage, &mut facts);
        if let Some(open) = usage.open {
            self.opaque("may become an option that does more, when it runs", env.outer.unwrap_or(open));
        }
        let mut ran = Vec::new();
        feeds(&usage, command, input, span, &mut facts, &mut ran);
        let mut within = Env { depth: env.depth + 1, outer: Some(span), ..env.clone() };
        if let Some(folder) = &usage.folder {
            enter(Some(&folder.text), &mut within.place);
        }
        change_directory(command, &mut env.place);
        for inner in usage.inner {
            self.inner(inner, usage.stdin, (command, input), &within, &mut facts, &mut ran);
        }
        let at_home = matches!(policy.places().scope(".", false, &within.place), Scope::Workspace);
        if env.values.wrote() || !at_home {
            // What is built may be what the text itself just wrote, or lies where it is nobody's project.
            for fact in facts.iter_mut().filter(|fact| fact.effect == Effect::Build) {
                fact.effect = Effect::Execute;
            }
        }
        self.speak(&facts, env.outer);
        self.note(command, facts, span, env.depth);
        if ran.is_empty() {
            return;
        }
        if env.depth >= MAX_WRAPPING {
            return self.deny_limit("wraps a command in more commands than are opened", Some(span));
        }
        // `eval` and its like change the shell that they are in.
        let here = matches!(name.as_str(), "eval" | "source" | "." | "trap" | "builtin" | "command");
        for ran in ran {
            self.ran(ran, command, &mut within, input);
        }
        if here {
            env.values = within.values;
            env.place = within.place;
        }
    }

    fn ran(&mut self, ran: Ran, command: &Command, within: &mut Env<'_>, input: &Input) {
        match ran {
            Ran::Command(words) => {
                let Some((program, args)) = words.split_first() else { return };
                if program.certainty >= Certainty::Unset {
                    let span = within.outer.unwrap_or_else(|| command.span.into());
                    self.opaque("is a program whose name is filled in when it runs", span);
                }
                let (program, args, span) = (program.text.clone(), args.to_vec(), command.span);
                let inner = Command { program, args, span, pipeline: command.pipeline, ..Command::default() };
                self.simple(&inner, within, input);
            }
            Ran::Script(text, shell, args) => {
                self.raw(&text, shell, within.outer);
                let (before, positional) = (within.shell, within.values.positional.clone());
                within.shell = shell;
                if let Some(args) = args {
                    within.values.positional = Some(args);
                }
                self.script(&text, within, input);
                within.shell = before;
                within.values.positional = positional;
            }
        }
    }

    /// What becomes of something that a program runs: more facts, or a command or script that is judged in its turn.
    fn inner(
        &mut self,
        inner: Inner,
        stdin: Stdin,
        (command, input): (&Command, &Input),
        within: &Env<'_>,
        facts: &mut Vec<Fact>,
        ran: &mut Vec<Ran>,
    ) {
        match inner {
            Inner::Module { mut words, language } => {
                if let Some(module) = words.first_mut() {
                    module.text = format!("{}:{}", language.as_str(), module.text);
                }
                ran.push(Ran::Command(words));
            }
            Inner::File { path, language, .. } if is_input(&path.text) && input.fed => {
                let usage = Use { stdin: Stdin::Script(language.unwrap_or(Language::Sh)), ..Use::default() };
                feeds(&usage, command, input, path.span.into(), facts, ran);
            }
            Inner::File { path, language, args } => self.file(&path, language, &args, within, facts, ran),
            Inner::Code { code, language, args } => {
                if code.certainty >= Certainty::Unset {
                    facts.push(fact(Effect::Code, Scope::Nowhere, &code.text, &code));
                }
                self.code(&code, language, positional(&args), within, facts, ran);
            }
            Inner::Command { mut words, fill } => {
                if stdin == Stdin::Arguments {
                    let listed =
                        command.args.iter().skip_while(|word| word.text != "-a" && word.text != "--arg-file").nth(1);
                    let listed = listed.map(|word| Input {
                        known: resolve(&word.text, within.place.cwd.as_deref())
                            .and_then(|path| within.values.file(&path).map(str::to_owned)),
                        fed: true,
                    });
                    words = given(&words, command, listed.as_ref().unwrap_or(input));
                }
                ran.extend(filled(&words, &fill).into_iter().map(Ran::Command));
            }
        }
    }

    /// What an interpreter makes of a file: of what the text itself wrote it is known what runs.
    fn file(
        &mut self,
        path: &Word,
        language: Option<Language>,
        args: &[Word],
        within: &Env<'_>,
        facts: &mut Vec<Fact>,
        ran: &mut Vec<Ran>,
    ) {
        let scope = self.policy.places().scope(&path.text, path.glob, &within.place);
        let whole = resolve(&path.text, within.place.cwd.as_deref());
        if let Some(text) = whole.and_then(|whole| within.values.file(&whole).map(str::to_owned)) {
            // The text itself wrote it, so it is known what runs.
            let word = Word { text, ..path.clone() };
            return self.code(&word, language.unwrap_or(Language::Sh), positional(args), within, facts, ran);
        }
        // Interpreters tell of what they cannot read.
        let effect = if matches!(scope, Scope::Credentials | Scope::Secrets) { Effect::Read } else { Effect::Execute };
        if scope == Scope::Nowhere && path.certainty < Certainty::Unset {
            return;
        }
        facts.push(fact(effect, scope, &path.text, path));
    }

    fn code(
        &mut self,
        code: &Word,
        language: Language,
        args: Option<Vec<String>>,
        within: &Env<'_>,
        facts: &mut Vec<Fact>,
        ran: &mut Vec<Ran>,
    ) {
        let shell = match language {
            Language::Sh => Some(Shell::Bash),
            Language::Pwsh | Language::Cmd => Some(Shell::Pwsh),
            _ => None,
        };
        if let Some(shell) = shell {
            let text = if language == Language::Cmd { reader::pwsh::of_cmd(&code.text) } else { code.text.clone() };
            return ran.push(Ran::Script(text, shell, args));
        }
        let found = code::scan(&code.text, language);
        self.spend(u64::try_from(code.text.len()).unwrap_or(u64::MAX));
        for (effect, target) in found.does {
            let scope = match effect {
                Effect::Read | Effect::Write | Effect::Delete => {
                    self.policy.places().scope(&target, false, &within.place)
                }
                Effect::Network if target.is_empty() => Scope::Elsewhere,
                Effect::Network => host_scope(&target),
                _ => Scope::Nowhere,
            };
            if scope != Scope::Nowhere || !matches!(effect, Effect::Read | Effect::Write | Effect::Delete) {
                facts.push(fact(effect, scope, &target, code));
            }
        }
        ran.extend(found.scripts.into_iter().map(|text| Ran::Script(text, Shell::Bash, None)));
    }

    /// Says what is known of the program itself.
    fn names(
        &mut self,
        command: &Command,
        program: Option<&Program>,
        ruled: bool,
        (shell, span): (Shell, Span),
        usage: &Use<'_>,
        facts: &mut Vec<Fact>,
    ) {
        if command.program.is_empty() {
            let text = "only sets variables or redirects".to_owned();
            return self.say("assignment", Verdict::Allow, Severity::Info, text, Some(span));
        }
        if !is_plain(command, shell) {
            let (scope, target) = (Scope::Unknown, command.program.clone());
            facts.push(Fact { effect: Effect::Execute, scope, target, span });
        }
        for word in &usage.unknown {
            let (name, word) = (shortened(&command.program), shortened(&word.text));
            let text = format!("nothing is known of `{word}` of `{name}`");
            self.say("unknown_command", self.unknown, Severity::Medium, text, Some(span));
        }
        match program {
            Some(_) if usage.unknown.is_empty() => {
                let text = format!("`{}` {}", shortened(&command.program), usage.about.join(" "));
                self.say("known_command", Verdict::Allow, Severity::Info, text, Some(span));
            }
            None if !ruled && is_plain(command, shell) => {
                let text = format!("no rule knows what `{}` does here", shortened(&command.program));
                self.say("unknown_command", self.unknown, Severity::Medium, text, Some(span));
            }
            _ => {}
        }
    }

    /// What the variables do that are set for the command or by it.
    fn set(&mut self, command: &Command, usage: &Use<'_>, span: Span, facts: &mut Vec<Fact>) {
        let args = || command.args.iter().map(|word| word.text.as_str());
        let names_variables = match command.program.as_str() {
            "read" | "mapfile" | "readarray" | "getopts" => true,
            "printf" => args().next() == Some("-v"),
            _ => false,
        };
        let counted = matches!(
            command.program.as_str(),
            "test" | "[" | "[[" | "let" | "printf" | "read" | "unset" | "declare" | "export"
        );
        if counted && args().any(|arg| arg.contains("[$(") || arg.contains("[`")) {
            // The shell counts out an index, and counting can run commands.
            facts.push(Fact { effect: Effect::Code, scope: Scope::Nowhere, target: String::new(), span });
        }
        let named = args().filter(|arg| names_variables && !arg.starts_with('-'));
        let given = usage.variables.iter().map(|word| word.text.as_str()).chain(named);
        for assignment in command.assignments.iter().map(String::as_str).chain(given) {
            let name = assignment.split(['=', '+', '[']).next().unwrap_or("");
            let Some(variable) = self.policy.knowledge().variable(name) else { continue };
            let target = format!("{name} {}", variable.about);
            let of = |effect: &Effect| Fact { effect: *effect, scope: Scope::Nowhere, target: target.clone(), span };
            facts.extend(variable.does.iter().map(of));
        }
    }

    fn rules_on(&mut self, command: &Command, shell: Shell, span: Span, before: &[String], place: &Place<'_>) -> bool {
        let rules = self.rules;
        let mut known = false;
        let (called, allowable) = (names(&command.program), may_be_allowed(command, shell));
        let cost = 3 + u64::try_from(command.args.len()).unwrap_or(0) / 8;
        for (index, rule) in rules.iter().enumerate() {
            let Matcher::Facts(facts) = &rule.matcher else { continue };
            let refused = rule.verdict == Verdict::Allow && !allowable;
            if refused || !facts.effects.is_empty() || !rule.shells.contains(&shell) {
                continue;
            }
            self.steps += cost;
            if holds(facts, command, &called, before, place) {
                known = true;
                self.rule_speaks(index, span, None);
            }
        }
        known
    }

    /// Asks the rules that speak of what is done, not of how it is said.
    fn speak(&mut self, facts: &[Fact], outer: Option<Span>) {
        let rules = self.rules;
        for fact in facts {
            for (index, rule) in rules.iter().enumerate() {
                let Matcher::Facts(matcher) = &rule.matcher else { continue };
                if matcher.effects.contains(&fact.effect)
                    && (matcher.scopes.is_empty() || matcher.scopes.contains(&fact.scope))
                {
                    self.rule_speaks(index, outer.unwrap_or(fact.span), Some(&fact.target));
                }
            }
            self.steps += 1;
        }
    }

    fn rule_speaks(&mut self, index: usize, span: Span, target: Option<&str>) {
        if let Some(matched) = self.matched.get_mut(index) {
            *matched = true;
        }
        let rules = self.rules;
        if let Some(rule) = rules.get(index) {
            let text = match target.filter(|target| !target.is_empty()) {
                Some(target) => format!("{}: `{}`", rule.reason, shortened(target)),
                None => rule.reason.clone(),
            };
            self.push(&rule.id, &rule.category, rule.verdict, rule.severity, text, Some(span));
        }
    }

    pub(crate) fn opaque(&mut self, why: &str, span: Span) {
        self.say("opaque", self.unknown, Severity::Medium, format!("this part {why}"), Some(span));
    }

    pub(crate) fn deny_limit(&mut self, what: &str, span: Option<Span>) {
        self.say("limit", Verdict::Deny, Severity::High, format!("this command {what}"), span);
    }

    pub(crate) fn say(&mut self, rule: &str, verdict: Verdict, severity: Severity, text: String, span: Option<Span>) {
        self.push(rule, "engine", verdict, severity, text, span);
    }

    /// Only what repeats an earlier reason of the same rule, and so of the same verdict, is dropped.
    fn push(
        &mut self,
        rule: &str,
        category: &str,
        verdict: Verdict,
        severity: Severity,
        text: String,
        span: Option<Span>,
    ) {
        let told = self.told.entry(rule.to_owned()).or_default();
        *told += 1;
        if *told > TOLD_AT_MOST {
            return;
        }
        self.reasons.push(Reason {
            rule: rule.to_owned(),
            category: category.to_owned(),
            verdict,
            severity,
            text,
            span,
        });
    }

    pub(crate) fn note(&mut self, command: &Command, facts: Vec<Fact>, span: Span, depth: u32) {
        self.commands.push(ReadCommand {
            program: command.program.clone(),
            args: command.args.iter().map(|word| word.text.clone()).collect(),
            redirections: command.redirections.iter().map(|r| (r.operator.clone(), r.target.clone())).collect(),
            assignments: command.assignments.clone(),
            facts,
            certainty: command
                .args
                .iter()
                .map(|word| word.certainty)
                .chain(command.redirections.iter().map(|to| to.certainty))
                .max()
                .unwrap_or_default(),
            span,
            depth,
        });
    }
}

enum Ran {
    Command(Vec<Word>),
    /// A text, and what it is given as `$1` and so on where that is something else.
    Script(String, Shell, Option<Vec<String>>),
}

fn fact(effect: Effect, scope: Scope, target: &str, word: &Word) -> Fact {
    Fact { effect, scope, target: target.to_owned(), span: word.span.into() }
}

/// Names by which a program opens its own input.
fn is_input(path: &str) -> bool {
    matches!(path, "-" | "/dev/stdin" | "/dev/fd/0" | "/proc/self/fd/0")
}

/// After a script's text comes what is its `$0`.
fn positional(args: &[Word]) -> Option<Vec<String>> {
    Some(args.iter().skip(1).map(|word| word.text.clone()).collect())
}

/// The words of `xargs`, with what it reads in their places.
fn given(words: &[Word], command: &Command, input: &Input) -> Vec<Word> {
    let mut args = command.args.iter().map(|word| word.text.as_str());
    let mark = args
        .find_map(|arg| arg.strip_prefix("-I").or_else(|| arg.strip_prefix("-i")).or_else(|| arg.strip_prefix("-J")));
    let mark = match mark {
        Some("") => args.next().or(Some("{}")),
        other => other,
    };
    let read = |text: &str| Word {
        text: text.to_owned(),
        certainty: Certainty::Perhaps,
        ..words.first().cloned().unwrap_or_default()
    };
    let unknown = || Word { certainty: Certainty::Unknown, ..read("$REPLY") };
    let known = input.known.as_deref().map(|text| text.replace('\0', "\n"));
    match (mark, known) {
        (Some(mark), known) => {
            let by = known.as_deref().map(|text| text.lines().next().unwrap_or(""));
            let put = |word: &Word| match by {
                _ if !word.text.contains(mark) => word.clone(),
                Some(by) => read(&word.text.replace(mark, by)),
                None => unknown(),
            };
            words.iter().map(put).collect()
        }
        (None, Some(text)) => words.iter().cloned().chain(text.split_whitespace().take(256).map(read)).collect(),
        (None, None) => words.iter().cloned().chain([unknown()]).collect(),
    }
}

/// Puts what is found in the place of `{}`.
fn filled(words: &[Word], fill: &[Word]) -> Vec<Vec<Word>> {
    if !words.iter().any(|word| word.text.contains("{}")) {
        return vec![words.to_vec()];
    }
    let put = |by: Option<&Word>| -> Vec<Word> {
        let put_into = |word: &Word| match by {
            _ if !word.text.contains("{}") => word.clone(),
            Some(by) => Word { text: word.text.replace("{}", &by.text), certainty: Certainty::Perhaps, ..word.clone() },
            None => Word { certainty: Certainty::Unknown, ..word.clone() },
        };
        words.iter().map(put_into).collect()
    };
    if fill.is_empty() {
        return vec![put(None)];
    }
    fill.iter().take(MAX_FILLS).map(|by| put(Some(by))).collect()
}

/// What redirections read and write.
fn redirected(command: &Command, scopes: Scopes<'_>, span: Span) -> Vec<Fact> {
    let of = |to: &Redirection| {
        let operator = to.operator.rsplit('}').next().unwrap_or("").trim_start_matches(|c: char| c.is_ascii_digit());
        let effect = match operator {
            "<" => Effect::Read,
            ">" | ">>" | ">|" | "&>" | "&>>" | "<>" => Effect::Write,
            ">&" if !to.target.bytes().all(|b| b.is_ascii_digit() || b == b'-') => Effect::Write,
            _ => return None,
        };
        let scope = scopes.places.scope(&to.target, false, scopes.place);
        (scope != Scope::Nowhere).then(|| Fact { effect, scope, target: to.target.clone(), span })
    };
    command.redirections.iter().filter_map(of).collect()
}

/// Shares of other machines: whoever has one is told who asks, whatever is asked.
fn shares(command: &Command, span: Span) -> Vec<Fact> {
    let words =
        command.args.iter().flat_map(|word| std::iter::once(word).chain(&word.items)).map(|word| word.text.as_str());
    let targets = command.redirections.iter().map(|to| to.target.as_str());
    let of = |text: &str| {
        // `/t:x` and `-Path:x` hold a value, and so may a quoted word.
        let start = text
            .find("\\\\")
            .filter(|at| *at == 0 || text.get(..*at).is_some_and(|before| before.ends_with([':', '=', '"', ' '])))?;
        let host = text.get(start..)?.trim_start_matches('\\').split(['\\', '/', '"', ' ']).next().unwrap_or("");
        let here = host.len() < 2
            || matches!(host.to_lowercase().as_str(), "localhost" | "127.0.0.1" | "root" | "$env:computername");
        (!here).then(|| Fact { effect: Effect::Network, scope: Scope::Elsewhere, target: text.to_owned(), span })
    };
    words.chain(targets).filter_map(of).collect()
}

/// A shell or an interpreter that is given nothing to read but its input.
fn feeds(usage: &Use<'_>, command: &Command, input: &Input, span: Span, facts: &mut Vec<Fact>, ran: &mut Vec<Ran>) {
    let Stdin::Script(language) = usage.stdin else { return };
    if usage.tells {
        return;
    }
    let whole = Fact { effect: Effect::Code, scope: Scope::Nowhere, target: String::new(), span };
    match (language, &input.known) {
        (Language::Sh, Some(text)) => {
            let args =
                command.args.iter().filter(|word| !word.text.starts_with('-')).map(|word| word.text.clone()).collect();
            ran.push(Ran::Script(text.clone(), Shell::Bash, Some(args)));
        }
        (Language::Sh, None) if !input.fed => facts.push(Fact { effect: Effect::Shell, ..whole }),
        (language, Some(text)) => {
            let found = code::scan(text, language);
            facts.push(whole);
            ran.extend(found.scripts.into_iter().map(|text| Ran::Script(text, Shell::Bash, None)));
        }
        _ => facts.push(whole),
    }
}

/// What any program may do with words that look like paths and addresses.
fn unknown_use<'k>(command: &Command, scopes: Scopes<'_>) -> Use<'k> {
    let mut usage = Use::default();
    for word in command.args.iter().filter(|word| word.text.len() > 1) {
        let text = word.text.as_str();
        let value = if text.starts_with('-') { text.split_once('=').map_or("", |(_, value)| value) } else { text };
        let value = value.strip_prefix('@').unwrap_or(value);
        let span = word.span.into();
        if value.contains("://") && !value.starts_with("file://") {
            let scope = host_scope(value);
            usage.facts.push(Fact { effect: Effect::Network, scope, target: value.to_owned(), span });
        } else if !value.contains(char::is_whitespace) {
            let scope = scopes.places.scope(value, word.glob, scopes.place);
            if matches!(scope, Scope::Credentials | Scope::Secrets | Scope::Startup | Scope::Device) {
                usage.facts.push(Fact { effect: Effect::Read, scope, target: value.to_owned(), span });
            }
        }
    }
    usage
}

/// Later relative paths mean something else after a `cd`.
fn change_directory(command: &Command, place: &mut Place<'_>) {
    if matches!(command.program.to_lowercase().as_str(), "cd" | "chdir" | "pushd" | "popd" | "set-location" | "sl") {
        enter(command.args.iter().map(|word| word.text.as_str()).find(|text| !text.starts_with('-')), place);
    }
}

fn enter(folder: Option<&str>, place: &mut Place<'_>) {
    place.cwd = folder
        .filter(|path| !path.contains(['$', '`', '~', '\\']))
        .and_then(|path| resolve(path, place.cwd.as_deref()));
}

pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain(['…']).collect() }
}
