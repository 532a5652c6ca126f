//! What programs do with their arguments: data from `policies/programs/`, in the form that its README describes.

mod apply;
mod load;

use std::collections::HashMap;

use provara_domain::Shell;

pub(crate) use self::apply::{Inner, Scopes, Use, apply, host_scope};
pub use self::load::KnowledgeError;
pub(crate) use self::load::with_nearest;

use crate::facts::Effect;
use crate::pattern;

/// All programs that are known.
#[derive(Debug, Default)]
pub struct Knowledge {
    programs: Vec<Program>,
    by_name: HashMap<String, Vec<usize>>,
    variables: Vec<Variable>,
}

/// A program, or a family of programs that take their arguments alike.
#[derive(Debug)]
pub(crate) struct Program {
    /// The shells it is known to; all where empty.
    pub(crate) shells: Vec<Shell>,
    /// How its arguments are spelled.
    pub(crate) style: Style,
    /// Whether its first argument may be a cluster of letters without a dash, as with `tar xf`.
    pub(crate) dashless: bool,
    pub(crate) grammar: Grammar,
    /// Commands and the verdicts that the built-in policy gives them.
    pub(crate) examples: Examples,
}

/// How options are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    /// `-a`, `-ab`, `-oVALUE`, `--long`, `--long=VALUE`, `--lon`.
    #[default]
    Gnu,
    /// `-word`, `-word VALUE`, `-word=VALUE`, with one dash or two; no clusters.
    Words,
    /// `-Name`, `-Name VALUE`, `-Name:VALUE`, `-Na`; case does not matter.
    Powershell,
    /// `/name`, `/name:VALUE`, `-name`; case does not matter.
    Windows,
}

/// What a program or a subcommand takes.
#[derive(Debug, Default)]
pub(crate) struct Grammar {
    /// What it does, as a phrase that follows its name.
    pub(crate) about: String,
    /// What every use does.
    pub(crate) does: Vec<Effect>,
    pub(crate) operands: Vec<Operand>,
    pub(crate) options: Vec<Opt>,
    pub(crate) forms: Vec<Form>,
    pub(crate) subs: Vec<Sub>,
    /// What an option that is not listed means.
    pub(crate) unlisted: Unlisted,
    /// What a first word means that is no listed subcommand.
    pub(crate) others: Unlisted,
    /// What it does where it is given no operand, or no command to run.
    pub(crate) alone: Vec<Effect>,
    /// What it does with its standard input where it has no operand.
    pub(crate) stdin: Stdin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Unlisted {
    /// Nothing of its own.
    #[default]
    Harmless,
    /// Nobody knows.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stdin {
    /// It is data.
    #[default]
    Data,
    /// It is a script, where no operand is one.
    Script(Language),
    /// Its words are more arguments of the command that is run.
    Arguments,
}

/// One operand, or many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operand {
    pub(crate) role: Role,
    pub(crate) many: bool,
}

/// What a word is to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing but data: text, a number, a pattern, a name.
    Data,
    /// A file or folder that is read.
    Read,
    /// A file or folder that is made or changed.
    Write,
    /// A file or folder that is removed.
    Delete,
    /// A file that is run: by itself, or by an interpreter.
    Run(Option<Language>),
    /// Code.
    Code(Language),
    /// This word and those after it are a command.
    Command,
    /// This word and those after it, joined by blanks, are code.
    Rest(Language),
    /// `NAME=VALUE` for the command that follows.
    Variables,
    /// An address that is fetched from or talked to.
    Url,
    /// A machine's name.
    Host,
    /// A file whose content is sent to another machine.
    Upload,
    /// Data; where it is `@file` or has `=@file` in it, that file's content. It is sent to another machine.
    Attachment,
    /// A file here, or `host:path`, or an address, that is copied from.
    Source,
    /// The same, that is copied to.
    Destination,
    /// The folder in which it works.
    Folder,
    /// A module or a package that is loaded and so runs; where the language is given, with the words after it.
    Module(Option<Language>),
}

/// What code is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    /// bash or sh.
    Sh,
    /// Python.
    Python,
    /// Perl.
    Perl,
    /// Ruby.
    Ruby,
    /// JavaScript.
    Node,
    /// PHP.
    Php,
    /// awk.
    Awk,
    /// Lua.
    Lua,
    /// sed's own.
    Sed,
    /// A makefile.
    Make,
    /// SQL.
    Sql,
    /// PowerShell.
    Pwsh,
    /// cmd.exe.
    Cmd,
    /// Something that is not read here.
    Other,
}

/// An option.
#[derive(Debug)]
pub(crate) struct Opt {
    pub(crate) spellings: Vec<String>,
    /// What its value is; none where it takes none.
    pub(crate) takes: Option<Role>,
    /// Whether a value only ever stands in the same word.
    pub(crate) attached: bool,
    pub(crate) does: Vec<Effect>,
}

/// What else holds when certain arguments are given.
#[derive(Debug, Default)]
pub(crate) struct Form {
    /// One of these options is given; not asked where empty.
    pub(crate) with: Vec<String>,
    /// None of these is.
    pub(crate) without: Vec<String>,
    /// Some argument matches one of these patterns; not asked where empty.
    pub(crate) argument: Vec<String>,
    pub(crate) does: Vec<Effect>,
    pub(crate) operands: Option<Vec<Operand>>,
    pub(crate) about: Option<String>,
    /// It does only this, and not what is said outside of the form.
    pub(crate) only: bool,
}

/// A subcommand.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) names: Vec<String>,
    pub(crate) grammar: Grammar,
}

/// A variable that changes what programs do.
#[derive(Debug)]
pub(crate) struct Variable {
    /// Patterns of names.
    pub(crate) names: Vec<String>,
    pub(crate) does: Vec<Effect>,
    pub(crate) about: String,
}

/// Commands with their verdicts by the built-in policy, checked by tests.
#[derive(Debug, Default, Clone)]
pub(crate) struct Examples {
    pub(crate) allow: Vec<String>,
    pub(crate) ask: Vec<String>,
    pub(crate) deny: Vec<String>,
}

impl Language {
    /// Returns the language's word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sh => "sh",
            Self::Python => "python",
            Self::Perl => "perl",
            Self::Ruby => "ruby",
            Self::Node => "node",
            Self::Php => "php",
            Self::Awk => "awk",
            Self::Lua => "lua",
            Self::Sed => "sed",
            Self::Make => "make",
            Self::Sql => "sql",
            Self::Pwsh => "pwsh",
            Self::Cmd => "cmd",
            Self::Other => "other",
        }
    }

    /// Every language.
    pub(crate) const ALL: [Self; 14] = [
        Self::Sh,
        Self::Python,
        Self::Perl,
        Self::Ruby,
        Self::Node,
        Self::Php,
        Self::Awk,
        Self::Lua,
        Self::Sed,
        Self::Make,
        Self::Sql,
        Self::Pwsh,
        Self::Cmd,
        Self::Other,
    ];
}

impl Knowledge {
    /// Returns the program called `name`, lower case, in `shell`.
    pub(crate) fn program(&self, name: &str, shell: Shell) -> Option<&Program> {
        let known = self.by_name.get(name)?.iter().filter_map(|index| self.programs.get(*index));
        known.into_iter().find(|program| program.shells.is_empty() || program.shells.contains(&shell))
    }

    /// Returns the names of programs that `pattern` matches, at most `most`.
    pub(crate) fn matching(&self, glob: &str, most: usize) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.by_name.keys().map(String::as_str).filter(|name| pattern::matches(glob, name)).collect();
        // The map's order changes from run to run, and the same text gets the same answer.
        names.sort_unstable();
        names.truncate(most);
        names
    }

    /// Returns what is known of the variable called `name`.
    pub(crate) fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|known| known.names.iter().any(|glob| pattern::matches(glob, name)))
    }

    /// Returns how many programs are known, families counted by their names.
    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    /// Returns every example with the verdict that it is an example of, and the shell it is for.
    pub fn examples(&self) -> impl Iterator<Item = (&str, provara_domain::Verdict, Shell)> {
        use provara_domain::Verdict;
        self.programs.iter().flat_map(|program| {
            let shell = program.shells.first().copied().unwrap_or(Shell::Bash);
            let Examples { allow, ask, deny } = &program.examples;
            let allow = allow.iter().map(move |text| (text.as_str(), Verdict::Allow, shell));
            let ask = ask.iter().map(move |text| (text.as_str(), Verdict::Ask, shell));
            let deny = deny.iter().map(move |text| (text.as_str(), Verdict::Deny, shell));
            allow.chain(ask).chain(deny)
        })
    }
}
