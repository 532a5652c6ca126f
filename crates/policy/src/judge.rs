//! Commands judged by rules.

use std::collections::HashMap;

use provara_domain::{CommandText, Judgement, PolicyVersion, ProfileName, Reason, Severity, Shell, Span, Verdict};

use crate::matching::{Place, holds, may_be_allowed, resolve};
use crate::reader::{self, Command, MAX_STEPS};
use crate::rule::{Matcher, Rule};
use crate::unwrap::{Inside, inside, names};

/// What becomes of a command that no rule knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strictness {
    /// A person is asked.
    Ask,
    /// It is refused.
    Deny,
}

/// What is to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The command.
    pub command: &'a CommandText,
    /// Who reads it.
    pub shell: Shell,
    /// Where it would run.
    pub cwd: &'a str,
    /// The folders that are the agent's.
    pub workspaces: &'a [String],
}

/// The rules in force.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    strict: Strictness,
    version: PolicyVersion,
}

/// What rules say of how a command runs. All of it holds: the strictest wins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demands {
    /// It runs with one that is within each of these.
    pub forced: Vec<ProfileName>,
    /// It runs with none of these.
    pub forbidden: Vec<ProfileName>,
    /// The rules that say so.
    pub rules: Vec<String>,
    /// The rules that demand that all it names is bound.
    pub binding: Vec<String>,
}

/// A judgement with how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The judgement, the same as [`Policy::judge`] gives.
    pub judgement: Judgement,
    /// Every command that was found, unwrapped ones after what wraps them.
    pub commands: Vec<ReadCommand>,
    /// The rules that were asked, and whether they matched.
    pub tried: Vec<Tried>,
}

/// One command that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadCommand {
    /// The program as written, quotes and escapes resolved.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its redirections, operator and target.
    pub redirections: Vec<(String, String)>,
    /// The variables that it sets.
    pub assignments: Vec<String>,
    /// Where it stands.
    pub span: Span,
    /// How many wrappers and scripts hide it.
    pub depth: u32,
}

/// One rule that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Its id.
    pub rule: String,
    /// Whether it matched.
    pub matched: bool,
}

/// How many wrappers and scripts within each other are opened. Below it anything may hide, so deeper is denied.
const MAX_WRAPPING: u32 = 6;
/// One reason of a kind is told so often; more adds nothing for the reader and would let a text grow its judgement.
const TOLD_AT_MOST: usize = 8;

impl Policy {
    pub(crate) const fn new(rules: Vec<Rule>, strict: Strictness, version: PolicyVersion) -> Self {
        Self { rules, strict, version }
    }

    /// Returns which policy this is. Its digest covers every rule file and the strictness.
    pub const fn version(&self) -> &PolicyVersion {
        &self.version
    }

    /// Returns every rule, in the order of the files.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Returns what policy says. Work is bounded by steps; a text that needs more is denied.
    pub fn judge(&self, request: &Request<'_>) -> Judgement {
        let pass = self.pass(request);
        Judgement::of(pass.reasons, self.version.clone())
    }

    /// Returns what policy says and how that came about.
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        let pass = self.pass(request);
        let tried = self.rules.iter().zip(&pass.matched).filter(|(rule, _)| rule.shells.contains(&request.shell));
        Explanation {
            tried: tried.map(|(rule, matched)| Tried { rule: rule.id.clone(), matched: *matched }).collect(),
            commands: pass.commands,
            judgement: Judgement::of(pass.reasons, self.version.clone()),
        }
    }

    /// Returns what the rules that speak in `judgement` say of how its command runs.
    pub fn demands(&self, judgement: &Judgement) -> Demands {
        let speaks = |rule: &&Rule| judgement.reasons.iter().any(|reason| reason.rule == rule.id);
        let of_profiles = |rule: &Rule| rule.force_profile.is_some() || !rule.forbid_profiles.is_empty();
        let demanding = |rule: &&Rule| of_profiles(rule) || rule.demands_binding();
        let mut demands = Demands::default();
        for rule in self.rules.iter().filter(demanding).filter(speaks) {
            if of_profiles(rule) {
                demands.rules.push(rule.id.clone());
            }
            if rule.demands_binding() {
                demands.binding.push(rule.id.clone());
            }
            demands.forced.extend(rule.force_profile.clone());
            demands.forbidden.extend(rule.forbid_profiles.iter().cloned());
        }
        demands
    }

    /// Returns every profile that a rule names, with the rule's id: whoever knows the profiles MUST check that they exist.
    pub fn named_profiles(&self) -> impl Iterator<Item = (&str, &ProfileName)> {
        self.rules.iter().flat_map(|rule| {
            rule.force_profile.iter().chain(&rule.forbid_profiles).map(|name| (rule.id.as_str(), name))
        })
    }

    /// Asks the rule at `index` alone, so that checking the examples of many rules stays linear in them.
    pub(crate) fn matches(&self, index: usize, request: &Request<'_>) -> bool {
        let asked = self.rules.get(index..).unwrap_or(&[]).get(..1).unwrap_or(&[]);
        self.pass_over(asked, request).matched.contains(&true)
    }

    fn pass(&self, request: &Request<'_>) -> Pass<'_> {
        self.pass_over(&self.rules, request)
    }

    fn pass_over<'p>(&self, rules: &'p [Rule], request: &Request<'_>) -> Pass<'p> {
        let mut pass = Pass {
            rules,
            unknown: match self.strict {
                Strictness::Ask => Verdict::Ask,
                Strictness::Deny => Verdict::Deny,
            },
            reasons: Vec::new(),
            told: HashMap::new(),
            matched: vec![false; rules.len()],
            commands: Vec::new(),
            steps: 0,
        };
        pass.raw(request.command.as_str(), request.shell, None);
        let mut place = Place { cwd: Some(request.cwd.to_owned()), workspaces: request.workspaces };
        pass.script(request.command.as_str(), request.shell, 0, None, &mut place);
        if pass.commands.is_empty() {
            pass.say(
                "nothing_to_run",
                Verdict::Ask,
                Severity::Low,
                "has no command that could be read".to_owned(),
                None,
            );
        }
        if pass.steps > MAX_STEPS {
            pass.deny_limit("is too large or too intricate to be judged", None);
        }
        pass
    }
}

struct Pass<'p> {
    rules: &'p [Rule],
    /// What becomes of what no rule knows.
    unknown: Verdict,
    reasons: Vec<Reason>,
    told: HashMap<String, usize>,
    /// For each rule.
    matched: Vec<bool>,
    commands: Vec<ReadCommand>,
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

impl Pass<'_> {
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
                self.rule_speaks(index, outer.unwrap_or(Span { start: found.start(), end: found.end() }));
            }
        }
    }

    fn script(&mut self, text: &str, shell: Shell, depth: u32, outer: Option<Span>, place: &mut Place<'_>) {
        if self.steps > MAX_STEPS {
            return;
        }
        let reading = reader::read(text, shell);
        self.steps += reading.steps;
        let unknown = self.unknown;
        for (span, why) in &reading.opaque {
            let text = format!("this part {why}");
            self.say("opaque", unknown, Severity::Medium, text, Some(outer.unwrap_or(*span)));
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
            self.command(command, Found { shell, depth, outer, before: &before, place: &mut *place }, &mut here);
            // A long pipeline may not make its own judging quadratic.
            if before.len() < 64 {
                before.append(&mut here);
            }
        }
    }

    /// Adds to `here` the names that `command` goes by, its own and those of what it wraps.
    fn command(&mut self, command: &Command, found: Found<'_, '_>, here: &mut Vec<String>) {
        let Found { shell, depth, outer, before, place } = found;
        let span = outer.unwrap_or_else(|| command.span.into());
        self.note(command, span, depth);
        here.push(names(&command.program).1);
        let known = self.rules_on(command, shell, span, before, place);
        change_directory(command, place);
        match inside(command) {
            Inside::Plain if known => {}
            Inside::Plain => {
                let program =
                    if command.program.is_empty() { "an assignment or redirection" } else { &command.program };
                let text = format!("no rule knows what `{}` does here", shortened(program));
                self.say("unknown_command", self.unknown, Severity::Medium, text, Some(span));
            }
            _ if depth >= MAX_WRAPPING => {
                self.deny_limit("wraps a command in more commands than are opened", Some(span));
            }
            Inside::Command(inner) => {
                self.wraps(command, span);
                self.command(&inner, Found { shell, depth: depth + 1, outer: Some(span), before, place }, here);
            }
            Inside::Script(script, inner_shell) => {
                self.wraps(command, span);
                self.raw(&script, inner_shell, Some(span));
                self.script(&script, inner_shell, depth + 1, Some(span), place);
            }
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
            if refused || !rule.shells.contains(&shell) {
                continue;
            }
            self.steps += cost;
            if holds(facts, command, &called, before, place) {
                known = true;
                self.rule_speaks(index, span);
            }
        }
        known
    }

    fn wraps(&mut self, command: &Command, span: Span) {
        let text = format!("`{}` runs another command", shortened(&command.program));
        self.say("wrapper", Verdict::Ask, Severity::Medium, text, Some(span));
    }

    fn rule_speaks(&mut self, index: usize, span: Span) {
        if let Some(matched) = self.matched.get_mut(index) {
            *matched = true;
        }
        let rules = self.rules;
        if let Some(rule) = rules.get(index) {
            self.push(&rule.id, &rule.category, rule.verdict, rule.severity, rule.reason.clone(), Some(span));
        }
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

    fn note(&mut self, command: &Command, span: Span, depth: u32) {
        self.commands.push(ReadCommand {
            program: command.program.clone(),
            args: command.args.iter().map(|word| word.text.clone()).collect(),
            redirections: command.redirections.iter().map(|r| (r.operator.clone(), r.target.clone())).collect(),
            assignments: command.assignments.clone(),
            span,
            depth,
        });
    }
}

/// Later relative paths mean something else after a `cd`.
fn change_directory(command: &Command, place: &mut Place<'_>) {
    if matches!(command.program.to_lowercase().as_str(), "cd" | "chdir" | "pushd" | "popd" | "set-location" | "sl") {
        let target = command.args.iter().map(|word| word.text.as_str()).find(|text| !text.starts_with('-'));
        place.cwd = target
            .filter(|path| !path.contains(['$', '`', '~', '\\']))
            .and_then(|path| resolve(path, place.cwd.as_deref()));
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain(['…']).collect() }
}
