//! Commands judged by rules.

use provara_domain::{CommandText, Judgement, PolicyVersion, ProfileName, Shell, Span};

use crate::facts::Fact;
use crate::knowledge::Knowledge;
use crate::pass::Pass;
use crate::places::Places;
use crate::reader::Certainty;
use crate::rule::Rule;

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
    knowledge: Knowledge,
    places: Places,
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
    /// What it does, as far as its text says.
    pub facts: Vec<Fact>,
    /// How sure it is that its arguments are what they seem.
    pub certainty: Certainty,
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

impl Policy {
    pub(crate) const fn new(
        rules: Vec<Rule>,
        strict: Strictness,
        version: PolicyVersion,
        knowledge: Knowledge,
        places: Places,
    ) -> Self {
        Self { rules, strict, version, knowledge, places }
    }

    pub(crate) const fn strictness(&self) -> Strictness {
        self.strict
    }

    /// Returns what is known of programs.
    pub const fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    pub(crate) const fn places(&self) -> &Places {
        &self.places
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

    fn pass_over<'p>(&'p self, rules: &'p [Rule], request: &Request<'_>) -> Pass<'p> {
        let mut pass = Pass::new(self, rules);
        pass.run(request);
        pass
    }
}
