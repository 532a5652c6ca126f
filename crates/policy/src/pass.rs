//! One judging of one text: every command in it, what that is given to run, and what the rules say of each.

use std::collections::HashMap;

use provara_domain::{Reason, Severity, Shell, Span, Verdict};

use crate::facts::{Effect, Fact, Scope};
use crate::judge::{Policy, ReadCommand, Request, Strictness};
use crate::knowledge::{Inner, Language, Program, Scopes, Stdin, Use, apply, host_scope};
use crate::matching::{Place, holds, is_plain, may_be_allowed, resolve};
use crate::naming::names;
use crate::reader::{self, Certainty, Command, MAX_STEPS, Redirection, Word};
use crate::rule::{Matcher, Rule};

/// How many wrappers and scripts within each other are opened. Below it anything may hide, so deeper is denied.
const MAX_WRAPPING: u32 = 6;
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
    steps: u64,
}

/// Where a command was found: all that its judging needs beside itself.
struct Found<'w, 'a> {
    shell: Shell,
    /// How many wrappers and scripts hide it.
    depth: u32,
    /// What to point at where it has no place of its own in the text.
    outer: Option<Span>,
    /// The names of the programs before it in its pipeline.
    before: &'w [String],
    place: &'w mut Place<'a>,
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

    /// Work is bounded by steps; a text that needs more is denied.
    pub(crate) fn run(&mut self, request: &Request<'_>) {
        self.raw(request.command.as_str(), request.shell, None);
        let mut place = Place { cwd: Some(request.cwd.to_owned()), workspaces: request.workspaces };
        self.script(request.command.as_str(), request.shell, 0, None, &mut place);
        if self.commands.is_empty() {
            let text = "has no command that could be read".to_owned();
            self.say("nothing_to_run", Verdict::Ask, Severity::Low, text, None);
        }
        if self.steps > MAX_STEPS {
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

    fn script(&mut self, text: &str, shell: Shell, depth: u32, outer: Option<Span>, place: &mut Place<'_>) {
        if self.steps > MAX_STEPS {
            return;
        }
        let reading = reader::read(text, shell);
        self.steps += reading.steps;
        for (span, why) in &reading.opaque {
            self.opaque(why, outer.unwrap_or(*span));
        }
        if reading.too_deep {
            self.deny_limit("nests commands deeper than is read", outer);
        }
        let (mut pipeline, mut before) = (0, Vec::new());
        for command in &reading.commands {
            if self.steps > MAX_STEPS {
                return;
            }
            if pipeline != command.pipeline {
                pipeline = command.pipeline;
                before.clear();
            }
            let mut here = Vec::new();
            self.simple(command, Found { shell, depth, outer, before: &before, place: &mut *place }, &mut here);
            // A long pipeline may not make its own judging quadratic.
            if before.len() < 64 {
                before.append(&mut here);
            }
        }
    }

    /// Adds to `here` the names that `command` goes by, its own and those of what it wraps.
    fn simple(&mut self, command: &Command, found: Found<'_, '_>, here: &mut Vec<String>) {
        let Found { shell, depth, outer, before, place } = found;
        let span = outer.unwrap_or_else(|| command.span.into());
        let (_, name) = names(&command.program);
        here.push(name.clone());
        let ruled = self.rules_on(command, shell, span, before, place);
        let policy = self.policy;
        let scopes = Scopes { places: policy.places(), place };
        let mut facts = redirected(command, scopes, span);
        let program = policy.knowledge().program(&name, shell);
        let usage = match program {
            Some(program) => apply(program, &command.args, span, scopes),
            None => unknown_use(command, scopes),
        };
        self.steps += u64::try_from(command.args.len()).unwrap_or(0);
        facts.extend(usage.facts.iter().cloned());
        self.set(command, &usage, span, &mut facts);
        self.names(command, program, ruled, (shell, span), &usage, &mut facts);
        feeds(&usage, command, before, span, &mut facts);
        let mut within = place.clone();
        if let Some(folder) = &usage.folder {
            enter(Some(&folder.text), &mut within);
        }
        change_directory(command, place);
        let mut inner = Vec::new();
        for ran in usage.inner {
            match ran {
                Inner::File { path, .. } => {
                    let scope = policy.places().scope(&path.text, path.glob, &within);
                    let effect = if scope == Scope::Credentials { Effect::Read } else { Effect::Execute };
                    facts.push(Fact { effect, scope, target: path.text.clone(), span: path.span.into() });
                }
                Inner::Code { code, language, .. } => {
                    let shell = match language {
                        Language::Sh => Some(Shell::Bash),
                        Language::Pwsh => Some(Shell::Pwsh),
                        Language::Cmd => Some(Shell::Pwsh),
                        _ => None,
                    };
                    if shell.is_none() || code.certainty == Certainty::Unknown {
                        let target = code.text.clone();
                        facts.push(Fact { effect: Effect::Code, scope: Scope::Nowhere, target, span });
                    }
                    inner.extend(shell.map(|shell| Ran::Script(code.text, shell)));
                }
                Inner::Command { mut words, fill } => {
                    if usage.stdin == Stdin::Arguments && !words.iter().any(|word| word.text.contains("{}")) {
                        words.push(Word {
                            text: "$REPLY".to_owned(),
                            certainty: Certainty::Unknown,
                            ..Word::default()
                        });
                    }
                    inner.extend(filled(&words, &fill).into_iter().map(Ran::Command));
                }
            }
        }
        self.speak(&facts, outer);
        self.note(command, facts, span, depth);
        for ran in inner {
            if depth >= MAX_WRAPPING {
                return self.deny_limit("wraps a command in more commands than are opened", Some(span));
            }
            match ran {
                Ran::Command(words) => {
                    let Some((program, args)) = words.split_first() else { continue };
                    let inner = Command {
                        program: program.text.clone(),
                        args: args.to_vec(),
                        span: command.span,
                        pipeline: command.pipeline,
                        ..Command::default()
                    };
                    let found = Found { shell, depth: depth + 1, outer: Some(span), before, place: &mut within };
                    self.simple(&inner, found, here);
                }
                Ran::Script(text, shell) => {
                    self.raw(&text, shell, Some(span));
                    self.script(&text, shell, depth + 1, Some(span), &mut within);
                }
            }
        }
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
        let given = usage.variables.iter().map(|word| word.text.as_str());
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
        let cost = 1 + u64::try_from(command.args.len()).unwrap_or(0) / 8;
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

    fn opaque(&mut self, why: &str, span: Span) {
        self.say("opaque", self.unknown, Severity::Medium, format!("this part {why}"), Some(span));
    }

    fn deny_limit(&mut self, what: &str, span: Option<Span>) {
        self.say("limit", Verdict::Deny, Severity::High, format!("this command {what}"), span);
    }

    fn say(&mut self, rule: &str, verdict: Verdict, severity: Severity, text: String, span: Option<Span>) {
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

    fn note(&mut self, command: &Command, facts: Vec<Fact>, span: Span, depth: u32) {
        self.commands.push(ReadCommand {
            program: command.program.clone(),
            args: command.args.iter().map(|word| word.text.clone()).collect(),
            redirections: command.redirections.iter().map(|r| (r.operator.clone(), r.target.clone())).collect(),
            assignments: command.assignments.clone(),
            facts,
            span,
            depth,
        });
    }
}

enum Ran {
    Command(Vec<Word>),
    Script(String, Shell),
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
        let operator = to.operator.trim_start_matches(|c: char| c.is_ascii_digit());
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

/// A shell or an interpreter that is given nothing to read but its input.
fn feeds(usage: &Use<'_>, command: &Command, before: &[String], span: Span, facts: &mut Vec<Fact>) {
    let Stdin::Script(language) = usage.stdin else { return };
    let is_fed = !before.is_empty() || command.redirections.iter().any(|to| to.operator.contains('<'));
    let only_tells = usage.facts.is_empty() && usage.about.len() > 1 && command.args.len() == 1;
    if only_tells {
        return;
    }
    let effect = match language {
        Language::Sh if !is_fed => Effect::Shell,
        _ => Effect::Code,
    };
    facts.push(Fact { effect, scope: Scope::Nowhere, target: String::new(), span });
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

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain(['…']).collect() }
}
