//! Program knowledge, read and checked. All faults are told at once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use provara_domain::Shell;
use serde::Deserialize;

use super::{
    Examples, Form, Grammar, Knowledge, Language, Operand, Opt, Program, Role, Stdin, Style, Sub, Unlisted, Variable,
};
use crate::facts::Effect;

include!(concat!(env!("OUT_DIR"), "/programs.rs"));

/// One fault of a file of program knowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnowledgeError {
    /// The file.
    pub file: String,
    /// The program, where the fault is in one.
    pub program: Option<String>,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for KnowledgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policies/programs/{}", self.file)?;
        if let Some(program) = &self.program {
            write!(f, ": program `{program}`")?;
        }
        write!(f, ": {}", self.what)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    program: Vec<RawProgram>,
    #[serde(default)]
    variable: Vec<RawVariable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVariable {
    names: Vec<String>,
    about: String,
    #[serde(default)]
    does: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawProgram {
    names: Vec<String>,
    shells: Vec<Shell>,
    style: String,
    dashless: bool,
    examples: RawExamples,
    about: String,
    does: Vec<String>,
    alone: Vec<String>,
    operands: Vec<String>,
    options: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
    form: Vec<RawForm>,
    sub: Vec<RawSub>,
    unlisted: String,
    others: String,
    stdin: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawSub {
    names: Vec<String>,
    about: String,
    does: Vec<String>,
    alone: Vec<String>,
    operands: Vec<String>,
    options: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
    form: Vec<RawForm>,
    sub: Vec<RawSub>,
    unlisted: String,
    others: String,
    stdin: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawForm {
    with: Vec<String>,
    without: Vec<String>,
    argument: Vec<String>,
    does: Vec<String>,
    operands: Option<Vec<String>>,
    about: Option<String>,
    only: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawExamples {
    allow: Vec<String>,
    ask: Vec<String>,
    deny: Vec<String>,
}

impl Knowledge {
    /// Returns what is compiled in.
    ///
    /// # Errors
    /// Never, unless a built-in file was changed and is faulty.
    pub fn builtin() -> Result<Self, Vec<KnowledgeError>> {
        Self::load(BUILTIN)
    }

    /// Returns what the files, name and text each, say.
    ///
    /// # Errors
    /// With every fault of every file; nothing is loaded then.
    pub fn load(files: &[(&str, &str)]) -> Result<Self, Vec<KnowledgeError>> {
        let mut loading = Loading::default();
        for (name, text) in files {
            loading.file = (*name).to_owned();
            loading.program = None;
            match toml::from_str::<RawFile>(text) {
                Ok(raw) => loading.take(raw),
                Err(error) => loading.fault(with_nearest(error.to_string().trim_end())),
            }
        }
        if loading.errors.is_empty() { Ok(loading.knowledge) } else { Err(loading.errors) }
    }

    /// Returns the built-in files, for whoever must tell one set from another.
    pub(crate) const fn files() -> &'static [(&'static str, &'static str)] {
        BUILTIN
    }
}

#[derive(Default)]
struct Loading {
    knowledge: Knowledge,
    /// For each name and shell the file that gave it.
    taken: HashMap<(String, Option<Shell>), String>,
    file: String,
    program: Option<String>,
    errors: Vec<KnowledgeError>,
}

impl Loading {
    fn fault(&mut self, what: String) {
        self.errors.push(KnowledgeError { file: self.file.clone(), program: self.program.clone(), what });
    }

    fn take(&mut self, raw: RawFile) {
        for variable in raw.variable {
            self.program = variable.names.first().cloned();
            let does = self.effects(&variable.does);
            let RawVariable { names, about, .. } = variable;
            self.knowledge.variables.push(Variable { names, does, about });
        }
        for program in raw.program {
            self.program = program.names.first().cloned();
            self.program(program);
        }
    }

    fn program(&mut self, raw: RawProgram) {
        let index = self.knowledge.programs.len();
        if raw.names.is_empty() {
            return self.fault("a program has no `names`; give one at least".to_owned());
        }
        for name in &raw.names {
            if name.to_lowercase() != *name || name.contains(['/', '\\', ' ']) {
                self.fault(format!("`{name}` is no name in lower case without a folder; write it so"));
            }
            self.claim(name, &raw.shells);
            self.knowledge.by_name.entry(name.clone()).or_default().push(index);
        }
        let mut raw = raw;
        if raw.style == "powershell" && raw.unlisted.is_empty() {
            // A cmdlet takes no parameter that it does not have.
            raw.unlisted = "unknown".to_owned();
        }
        let style = match raw.style.as_str() {
            "" | "gnu" => Style::Gnu,
            "words" => Style::Words,
            "powershell" => Style::Powershell,
            "windows" => Style::Windows,
            other => {
                self.fault(unknown("style", other, &["gnu", "words", "powershell", "windows"]));
                Style::Gnu
            }
        };
        let RawExamples { allow, ask, deny } = raw.examples;
        let grammar = self.grammar(RawSub {
            names: Vec::new(),
            about: raw.about,
            does: raw.does,
            alone: raw.alone,
            operands: raw.operands,
            options: raw.options,
            flags: raw.flags,
            form: raw.form,
            sub: raw.sub,
            unlisted: raw.unlisted,
            others: raw.others,
            stdin: raw.stdin,
        });
        self.knowledge.programs.push(Program {
            shells: raw.shells,
            style,
            dashless: raw.dashless,
            grammar,
            examples: Examples { allow, ask, deny },
        });
    }

    /// Two files must not say different things of one program.
    fn claim(&mut self, name: &str, shells: &[Shell]) {
        let shells: Vec<Option<Shell>> =
            if shells.is_empty() { vec![None] } else { shells.iter().copied().map(Some).collect() };
        for shell in shells {
            if let Some(file) = self.taken.insert((name.to_owned(), shell), self.file.clone()) {
                self.fault(format!("`{name}` is in `{file}` already; say all of it in one place"));
            }
        }
    }

    fn grammar(&mut self, raw: RawSub) -> Grammar {
        if raw.about.trim().is_empty() {
            self.fault("`about` is missing; say in a few words what it does".to_owned());
        }
        let written: Vec<(String, String)> = raw.options.clone().into_iter().collect();
        let mut options = Vec::new();
        for (key, value) in raw.options {
            let mut words = value.split_whitespace();
            let role = self.role(words.next().unwrap_or("data"));
            let does = self.effects(&words.collect::<Vec<_>>());
            // What stands under one key need not mean the same: a form asks for each spelling by itself.
            for spelling in spellings(&key) {
                let attached = spelling.ends_with('?');
                let spellings = vec![spelling.trim_end_matches('?').to_owned()];
                options.push(Opt { spellings, takes: Some(role), attached, does: does.clone() });
            }
        }
        for (key, value) in raw.flags {
            let does = self.effects(&value.split_whitespace().collect::<Vec<_>>());
            for spelling in spellings(&key) {
                options.push(Opt { spellings: vec![spelling], takes: None, attached: false, does: does.clone() });
            }
        }
        let positions: Vec<String> = raw.operands.iter().map(|word| parameter(word).unwrap_or("").to_owned()).collect();
        let places: Vec<String> = raw.operands.iter().map(|word| self.place(word, &written)).collect();
        let forms = raw.form.into_iter().map(|form| self.form(form)).collect::<Vec<_>>();
        // What a form asks for is an option even where nothing else is said of it.
        for spelling in forms.iter().flat_map(|form| form.with.iter().chain(&form.without)) {
            if !options.iter().any(|option| option.spellings.contains(spelling)) {
                let spellings = vec![spelling.clone()];
                options.push(Opt { spellings, takes: None, attached: false, does: Vec::new() });
            }
        }
        let subs = raw.sub.into_iter().map(|sub| self.sub(sub)).collect();
        Grammar {
            about: raw.about,
            does: self.effects(&raw.does),
            alone: self.effects(&raw.alone),
            operands: self.operands(&places),
            positions,
            options,
            forms,
            subs,
            unlisted: self.unlisted("unlisted", &raw.unlisted, Unlisted::Harmless),
            others: self.unlisted("others", &raw.others, Unlisted::Unknown),
            stdin: match raw.stdin.as_str() {
                "" | "data" => Stdin::Data,
                "arguments" => Stdin::Arguments,
                language => Stdin::Script(self.language(language)),
            },
        }
    }

    fn sub(&mut self, raw: RawSub) -> Sub {
        if raw.names.is_empty() {
            self.fault("a subcommand has no `names`; give one at least".to_owned());
        }
        Sub { names: raw.names.clone(), grammar: self.grammar(raw) }
    }

    fn form(&mut self, raw: RawForm) -> Form {
        if raw.with.is_empty() && raw.without.is_empty() && raw.argument.is_empty() {
            self.fault("a form has no condition; give `with`, `without` or `argument`".to_owned());
        }
        let list = |keys: &[String]| keys.iter().flat_map(|key| spellings(key)).collect();
        Form {
            with: list(&raw.with),
            without: list(&raw.without),
            argument: raw.argument,
            does: self.effects(&raw.does),
            operands: raw.operands.map(|operands| self.operands(&operands)),
            about: raw.about,
            only: raw.only,
        }
    }

    fn operands(&mut self, words: &[String]) -> Vec<Operand> {
        let operands: Vec<Operand> = words
            .iter()
            .map(|word| match word.strip_suffix("...") {
                Some(word) => Operand { role: self.role(word), many: true },
                None => Operand { role: self.role(word), many: false },
            })
            .collect();
        if operands.iter().filter(|operand| operand.many && operand.role != Role::Variables).count() > 1 {
            self.fault("two operands repeat; only one can".to_owned());
        }
        operands
    }

    /// An operand that is a parameter's place has the role of the parameter's value.
    fn place(&mut self, word: &str, options: &[(String, String)]) -> String {
        let Some(name) = parameter(word) else { return word.to_owned() };
        let found = options.iter().find(|(key, _)| spellings(key).iter().any(|spelling| spelling == name));
        match found.and_then(|(_, value)| value.split_whitespace().next()) {
            Some(role) if word.ends_with("...") => format!("{role}..."),
            Some(role) => role.to_owned(),
            None => {
                self.fault(format!("`{name}` is no option with a value; list it in `options`"));
                "data".to_owned()
            }
        }
    }

    fn unlisted(&mut self, key: &str, word: &str, default: Unlisted) -> Unlisted {
        match word {
            "" => default,
            "harmless" => Unlisted::Harmless,
            "unknown" => Unlisted::Unknown,
            other => {
                self.fault(unknown(key, other, &["harmless", "unknown"]));
                default
            }
        }
    }

    fn effects(&mut self, words: &[impl AsRef<str>]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for word in words {
            match Effect::parse(word.as_ref()) {
                Some(effect) => effects.push(effect),
                None => {
                    let known: Vec<&str> = Effect::ALL.iter().map(|effect| effect.as_str()).collect();
                    self.fault(unknown("effect", word.as_ref(), &known));
                }
            }
        }
        effects
    }

    fn role(&mut self, word: &str) -> Role {
        let (word, language) = match word.split_once(':') {
            Some((word, language)) => (word, Some(self.language(language))),
            None => (word, None),
        };
        match (word, language) {
            ("data", None) => Role::Data,
            ("read", None) => Role::Read,
            ("write", None) => Role::Write,
            ("delete", None) => Role::Delete,
            ("run", language) => Role::Run(language),
            ("code", language) => Role::Code(language.unwrap_or(Language::Other)),
            ("rest", language) => Role::Rest(language.unwrap_or(Language::Other)),
            ("command", None) => Role::Command,
            ("variables", None) => Role::Variables,
            ("url", None) => Role::Url,
            ("host", None) => Role::Host,
            ("upload", None) => Role::Upload,
            ("attachment", None) => Role::Attachment,
            ("source", None) => Role::Source,
            ("destination", None) => Role::Destination,
            ("folder", None) => Role::Folder,
            ("module", language) => Role::Module(language),
            _ => {
                self.fault(unknown("role", word, ROLES));
                Role::Data
            }
        }
    }

    fn language(&mut self, word: &str) -> Language {
        let known = Language::ALL.into_iter().find(|language| language.as_str() == word);
        known.unwrap_or_else(|| {
            self.fault(unknown("language", word, &Language::ALL.map(Language::as_str)));
            Language::Other
        })
    }
}

const ROLES: &[&str] = &[
    "data",
    "read",
    "write",
    "delete",
    "run",
    "code",
    "rest",
    "command",
    "variables",
    "url",
    "host",
    "upload",
    "attachment",
    "source",
    "destination",
    "folder",
    "module",
];
/// The parameter that an operand is a place of.
fn parameter(word: &str) -> Option<&str> {
    let word = word.strip_suffix("...").unwrap_or(word);
    word.starts_with('-').then_some(word)
}

fn spellings(key: &str) -> Vec<String> {
    key.split(',').map(|spelling| spelling.trim().to_owned()).filter(|spelling| !spelling.is_empty()).collect()
}

fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(near) => format!("`{word}` is no {what}; write `{near}`"),
        None => format!("`{word}` is no {what}; write one of {}", known.join(", ")),
    }
}

/// Returns the word of `known` that somebody may have meant by `word`.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|other| (strsim::damerau_levenshtein(word, other), *other)).min()?;
    (near.0 <= 1 + word.chars().count() / 3).then_some(near.1)
}

/// Adds to a message of the TOML reader which known key is nearest to the one that it does not know.
pub(crate) fn with_nearest(message: &str) -> String {
    let Some((before, after)) = message.split_once("unknown field `") else { return message.to_owned() };
    let mut quoted = after.split('`').step_by(2);
    let word = quoted.next().unwrap_or("");
    let known: Vec<&str> = after.split('`').skip(2).step_by(2).collect();
    let _ = before;
    match nearest(word, &known) {
        Some(near) => format!("{message}; did you mean `{near}`?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        Knowledge::load(&[("x.toml", text)]).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn faults_name_the_file_the_program_and_what_was_meant() {
        let told = faults("[[program]]\nnames = ['a']\nabout = 'is a'\ndoes = ['netwrok']\noperands = ['raed']\n");
        assert_eq!(
            told,
            [
                "policies/programs/x.toml: program `a`: `netwrok` is no effect; write `network`",
                "policies/programs/x.toml: program `a`: `raed` is no role; write `read`",
            ]
        );
        let told = faults("[[program]]\nnames = ['a']\nabuot = 'x'\n");
        assert!(told.concat().contains("did you mean `about`?"), "{told:?}");
        let told = faults("[[program]]\nnames = ['A/b', 'a', 'a']\nabout = 'x'\n[[program.form]]\n");
        assert_eq!(told.len(), 3, "{told:?}");
    }
}
