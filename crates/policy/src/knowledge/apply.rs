//! Arguments read by what is known of their program.

mod parameters;

use provara_domain::Span;

use super::{Form, Grammar, Language, Operand, Opt, Program, Role, Stdin, Style, Unlisted};
use crate::facts::{Effect, Fact, Scope};
use crate::matching::Place;
use crate::pattern;
use crate::places::Places;
use crate::reader::{Certainty, Word};
use crate::shell::is_variable_name;

/// What one use of a program amounts to.
#[derive(Debug, Default)]
pub(crate) struct Use<'k> {
    /// What it does, the program's phrase first, those of subcommands and forms after it.
    pub(crate) about: Vec<&'k str>,
    pub(crate) facts: Vec<Fact>,
    /// What it runs in its turn.
    pub(crate) inner: Vec<Inner>,
    /// `NAME=VALUE` words for what it runs.
    pub(crate) variables: Vec<Word>,
    /// The folder it works in.
    pub(crate) folder: Option<Word>,
    /// A subcommand or an option that is not known.
    pub(crate) unknown: Vec<Word>,
    /// A word that is filled in when it runs and could be an option that does more.
    pub(crate) open: Option<Span>,
    /// What becomes of its standard input.
    pub(crate) stdin: Stdin,
    /// Whether it only tells about itself.
    pub(crate) tells: bool,
}

/// Something that a program runs.
#[derive(Debug)]
pub(crate) enum Inner {
    /// A command; `{}` in it stands for each of `fill`.
    Command { words: Vec<Word>, fill: Vec<Word> },
    /// Code that stands in the text.
    Code { code: Word, language: Language, args: Vec<Word> },
    /// A module of a language, and what it is given.
    Module { words: Vec<Word>, language: Language },
    /// A file.
    File { path: Word, language: Option<Language>, args: Vec<Word> },
}

/// Where paths lead.
#[derive(Clone, Copy)]
pub(crate) struct Scopes<'a> {
    pub(crate) places: &'a Places,
    pub(crate) place: &'a Place<'a>,
}

/// Returns what `program` does with `args` and with the `input` that binds to parameters; `own` is where its name stands.
pub(crate) fn apply<'k>(program: &'k Program, args: &[Word], input: &[Word], own: Span, scopes: Scopes<'_>) -> Use<'k> {
    let mut reading = Reading {
        style: program.style,
        chain: vec![&program.grammar],
        given: Vec::new(),
        values: Vec::new(),
        operands: Vec::new(),
        names: Vec::new(),
        rest: None,
        usage: Use::default(),
    };
    match program.style {
        Style::Powershell => reading.bind(program, args, input),
        _ => reading.words(program, args),
    }
    reading.finish(args, own, scopes)
}

struct Reading<'k> {
    style: Style,
    /// The program's grammar, and that of each subcommand.
    chain: Vec<&'k Grammar>,
    given: Vec<(&'k Opt, Span)>,
    values: Vec<(Role, Word)>,
    operands: Vec<Word>,
    /// Patterns of the names of files that are looked for.
    names: Vec<Word>,
    /// What stands from a command on.
    rest: Option<(Role, Vec<Word>)>,
    usage: Use<'k>,
}

/// Options whose value is a pattern of the names of what is found, for which `{}` then stands.
const LOOKS_FOR: &[&str] = &["-name", "-iname", "-path", "-ipath", "-wholename"];

enum Taken {
    /// All of the word is read.
    Whole,
    /// The next word is the value.
    Next(Role),
    Unlisted,
}

impl<'k> Reading<'k> {
    fn words(&mut self, program: &Program, args: &[Word]) {
        let (mut at, mut ended) = (0, false);
        while let Some(word) = args.get(at) {
            at += 1;
            let text = word.text.as_str();
            if !ended && text == "--" {
                ended = true;
                continue;
            }
            if at == 1 && program.dashless && !text.starts_with('-') && word.certainty < Certainty::Unset {
                let dashed = Word { text: format!("-{text}"), ..word.clone() };
                if let Taken::Next(role) = self.option(&dashed) {
                    self.value(role, args, &mut at);
                }
                continue;
            }
            if !ended && self.is_option(text) {
                match self.option(word) {
                    Taken::Whole => {}
                    Taken::Next(role) => self.value(role, args, &mut at),
                    Taken::Unlisted => self.unlisted(word),
                }
                continue;
            }
            if self.subcommand(word) {
                continue;
            }
            match self.role_here(word) {
                role @ (Role::Command | Role::Rest(_)) => {
                    self.rest = Some((role, args.get(at - 1..).unwrap_or(&[]).to_vec()));
                    return;
                }
                Role::Variables => self.usage.variables.push(word.clone()),
                _ => self.operands.push(word.clone()),
            }
        }
    }

    fn value(&mut self, role: Role, args: &[Word], at: &mut usize) {
        if role == Role::Command {
            let words: Vec<Word> =
                args.iter().skip(*at).take_while(|word| !matches!(word.text.as_str(), ";" | "+")).cloned().collect();
            *at += words.len() + 1;
            self.usage.inner.push(Inner::Command { words, fill: Vec::new() });
            return;
        }
        if let Role::Module(Some(language)) = role {
            let words = args.get(*at..).unwrap_or(&[]).to_vec();
            *at = args.len();
            self.usage.inner.push(Inner::Module { words, language });
            return;
        }
        if let Some(value) = args.get(*at) {
            if self
                .given
                .last()
                .is_some_and(|(option, _)| option.spellings.iter().any(|name| LOOKS_FOR.contains(&name.as_str())))
            {
                self.names.push(value.clone());
            }
            self.values.push((role, value.clone()));
            *at += 1;
        }
    }

    fn is_option(&self, text: &str) -> bool {
        let dashed = text.len() > 1 && text.starts_with('-');
        match self.style {
            Style::Gnu | Style::Words => dashed || self.find(|spelling| is_bare(spelling, text)).is_some(),
            Style::Powershell => text.len() > 1 && text.starts_with(['-', '\u{2013}', '\u{2014}', '\u{2015}']),
            Style::Windows => {
                let name = text.split(':').next().unwrap_or(text);
                dashed || (name.len() > 1 && name.starts_with('/') && !name.get(1..).unwrap_or("").contains('/'))
            }
        }
    }

    /// The innermost grammar that lists such an option decides what it means.
    fn find(&self, is: impl Fn(&str) -> bool) -> Option<&'k Opt> {
        let mut options = self.chain.iter().rev().flat_map(|grammar| &grammar.options);
        options.find(|option| option.spellings.iter().any(|spelling| is(spelling)))
    }

    fn option(&mut self, word: &Word) -> Taken {
        let text = word.text.as_str();
        if !text.starts_with('-') && self.style != Style::Windows && self.style != Style::Powershell {
            let Some(option) = self.find(|spelling| is_bare(spelling, text)) else { return Taken::Unlisted };
            let value = text.split_once('=').map(|(_, value)| value);
            return self.take(option, word, value.filter(|_| option.spellings.iter().any(|s| s.ends_with('='))));
        }
        match self.style {
            Style::Gnu if text.starts_with("--") => {
                let (name, value) = split(text, '=');
                let exact = self.find(|spelling| spelling == name);
                let cut = || self.find(|spelling| name.len() > 3 && spelling.starts_with(name));
                exact.or_else(cut).map_or(Taken::Unlisted, |option| self.take(option, word, value))
            }
            Style::Gnu => match self.find(|spelling| spelling == text) {
                Some(option) => self.take(option, word, None),
                None => self.cluster(word),
            },
            Style::Words => {
                let (name, value) = split(text, '=');
                let name = name.trim_start_matches('-');
                let found = self.find(|spelling| spelling.trim_start_matches('-') == name);
                found.map_or(Taken::Unlisted, |option| self.take(option, word, value))
            }
            Style::Powershell | Style::Windows => {
                let (name, value) = split(text, ':');
                let name = name.trim_start_matches(['-', '/', '\u{2013}', '\u{2014}', '\u{2015}']).to_lowercase();
                let of = |spelling: &str| spelling.trim_start_matches(['-', '/']).to_lowercase();
                let exact = self.find(|spelling| of(spelling) == name);
                let cut = || self.find(|spelling| self.style == Style::Powershell && of(spelling).starts_with(&name));
                exact.or_else(cut).map_or(Taken::Unlisted, |option| self.take(option, word, value))
            }
        }
    }

    /// `-xo VALUE`, `-xoVALUE`: letters, of which the first that takes a value takes the rest.
    fn cluster(&mut self, word: &Word) -> Taken {
        let letters = word.text.get(1..).unwrap_or("");
        let mut unlisted = false;
        for (at, letter) in letters.char_indices() {
            let mut buffer = [0; 4];
            let letter_text: &str = letter.encode_utf8(&mut buffer);
            let Some(option) = self.find(|spelling| spelling.strip_prefix('-') == Some(letter_text)) else {
                unlisted = true;
                continue;
            };
            let rest = letters.get(at + letter.len_utf8()..).unwrap_or("");
            if option.takes.is_some() {
                return self.take(option, word, Some(rest).filter(|rest| !rest.is_empty()));
            }
            self.given.push((option, word.span.into()));
        }
        if unlisted { Taken::Unlisted } else { Taken::Whole }
    }

    fn take(&mut self, option: &'k Opt, word: &Word, value: Option<&str>) -> Taken {
        self.given.push((option, word.span.into()));
        match (option.takes, value) {
            (Some(role), Some(value)) => {
                let value = Word { text: value.to_owned(), ..word.clone() };
                if role == Role::Command {
                    self.usage.inner.push(Inner::Command { words: vec![value], fill: Vec::new() });
                } else {
                    self.values.push((role, value));
                }
                Taken::Whole
            }
            (Some(role), None) if !option.attached => Taken::Next(role),
            _ => Taken::Whole,
        }
    }

    fn unlisted(&mut self, word: &Word) {
        if self.chain.iter().any(|grammar| grammar.unlisted == Unlisted::Unknown) {
            self.usage.unknown.push(word.clone());
        }
        // `--new-option=/etc/shadow` reads it, whatever the option is called.
        if let (_, Some(value)) = split(&word.text, '=')
            && value.starts_with(['/', '~', '.'])
        {
            self.values.push((Role::Read, Word { text: value.to_owned(), ..word.clone() }));
        }
    }

    fn subcommand(&mut self, word: &Word) -> bool {
        let Some(grammar) = self.chain.last() else { return false };
        if grammar.subs.is_empty() || !self.operands.is_empty() {
            return false;
        }
        let named = |is: &dyn Fn(&str) -> bool| grammar.subs.iter().find(|sub| sub.names.iter().any(|name| is(name)));
        // What is called by its name goes before what only looks like it.
        let known = named(&|name| same(name, &word.text, self.style))
            .or_else(|| named(&|name| name.contains('*') && pattern::matches(name, &word.text)));
        match known {
            Some(sub) if word.certainty < Certainty::Unset => {
                self.chain.push(&sub.grammar);
                true
            }
            _ => {
                if grammar.others == Unlisted::Unknown {
                    self.usage.unknown.push(word.clone());
                }
                false
            }
        }
    }

    /// The operands that hold now: those of the innermost form or grammar that has some.
    fn roles(&self, args: &[Word]) -> &'k [Operand] {
        let Some(grammar) = self.chain.last() else { return &[] };
        let formed = grammar.forms.iter().find_map(|form| form.operands.as_deref().filter(|_| self.holds(form, args)));
        formed.unwrap_or(&grammar.operands)
    }

    fn role_here(&self, word: &Word) -> Role {
        let roles = self.roles(&[]);
        let variables = roles.first().is_some_and(|operand| operand.role == Role::Variables);
        if variables
            && self.operands.is_empty()
            && word.text.split_once('=').is_some_and(|(name, _)| is_variable_name(name))
        {
            return Role::Variables;
        }
        let roles = roles.iter().filter(|operand| operand.role != Role::Variables);
        let mut roles = roles.skip_while({
            let mut left = self.operands.len();
            move |operand| {
                let skip = left > 0 && !operand.many;
                left = left.saturating_sub(1);
                skip
            }
        });
        roles.next().map_or(Role::Data, |operand| operand.role)
    }

    fn holds(&self, form: &Form, args: &[Word]) -> bool {
        let given = |names: &[String]| {
            names.iter().any(|name| self.given.iter().any(|(option, _)| option.spellings.contains(name)))
        };
        let caseless = matches!(self.style, Style::Powershell | Style::Windows);
        let matches = |glob: &String| match caseless {
            true => args.iter().any(|word| pattern::matches(&glob.to_lowercase(), &word.text.to_lowercase())),
            false => args.iter().any(|word| pattern::matches(glob, &word.text)),
        };
        (form.with.is_empty() || given(&form.with))
            && !given(&form.without)
            && (form.argument.is_empty() || form.argument.iter().any(matches))
    }

    fn finish(mut self, args: &[Word], own: Span, scopes: Scopes<'_>) -> Use<'k> {
        let chain = std::mem::take(&mut self.chain);
        self.chain.extend(chain.last());
        let roles = self.roles(args);
        let forms: Vec<&Form> =
            chain.iter().flat_map(|grammar| &grammar.forms).filter(|form| self.holds(form, args)).collect();
        let only = forms.iter().any(|form| form.only);
        self.usage.tells = only;
        let mut usage = std::mem::take(&mut self.usage);
        usage.about = chain.iter().map(|grammar| grammar.about.as_str()).collect();
        usage.about.extend(forms.iter().filter_map(|form| form.about.as_deref()));
        let mut does: Vec<(Effect, Span)> = Vec::new();
        if !only {
            does.extend(chain.iter().flat_map(|grammar| &grammar.does).map(|effect| (*effect, own)));
        }
        does.extend(forms.iter().flat_map(|form| &form.does).map(|effect| (*effect, own)));
        for (option, span) in &self.given {
            does.extend(option.does.iter().map(|effect| (*effect, *span)));
        }
        let folder = self.values.iter().find(|(role, _)| *role == Role::Folder).map_or(".", |(_, word)| &word.text);
        usage.facts.extend(does.into_iter().map(|(effect, span)| match effect {
            // Without a path of its own it does so where it works.
            Effect::Read | Effect::Write | Effect::Delete => {
                let scope = scopes.places.scope(folder, false, scopes.place);
                Fact { effect, scope, target: folder.to_owned(), span }
            }
            _ => Fact { effect, scope: Scope::Nowhere, target: String::new(), span },
        }));
        let assigned = assign(roles, &self.operands);
        usage.stdin = chain.last().map_or(Stdin::Data, |grammar| grammar.stdin);
        let scripted = |role: &Role| matches!(role, Role::Run(_) | Role::Code(_));
        let is_read = matches!(usage.stdin, Stdin::Script(_))
            && (usage.inner.iter().any(|inner| matches!(inner, Inner::Module { .. }))
                || assigned.iter().any(|(role, _)| scripted(role))
                || self.values.iter().any(|(role, _)| scripted(role)));
        if is_read {
            usage.stdin = Stdin::Data;
        }
        let dangerous = || {
            let options = chain.iter().flat_map(|grammar| &grammar.options);
            options.clone().any(|option| !option.does.is_empty() || option.takes.is_some_and(is_grave))
                || chain.iter().flat_map(|grammar| &grammar.forms).any(|form| !form.does.is_empty())
        };
        let caseless = matches!(self.style, Style::Powershell | Style::Windows);
        let may_be_option = |word: &&Word| {
            let filled = word.certainty == Certainty::Unknown && word.text.starts_with(['$', '`']);
            // PowerShell hands patterns on as they are.
            filled || (!caseless && word.glob && word.text.starts_with(['*', '?', '[', '-']))
        };
        let loose = args.iter().find(may_be_option);
        usage.open = loose.filter(|_| dangerous()).map(|word| word.span.into());
        let away = assigned.iter().any(|(role, word)| *role == Role::Destination && is_remote(&word.text));
        let fill: Vec<Word> = assigned
            .iter()
            .filter(|(role, _)| matches!(role, Role::Read | Role::Delete | Role::Write))
            .map(|(_, word)| (*word).clone())
            .collect();
        let found = |root: &Word| {
            let root = root.clone();
            self.names.iter().map(move |name| {
                let text =
                    format!("{}/{}", root.text.trim_end_matches('/'), name.text.rsplit('/').next().unwrap_or(""));
                Word { text, glob: true, ..root.clone() }
            })
        };
        let named: Vec<Word> = fill.iter().take(2).flat_map(found).take(4).collect();
        let fill: Vec<Word> = named.into_iter().chain(fill.iter().cloned()).collect();
        for inner in &mut usage.inner {
            if let Inner::Command { fill: empty, .. } = inner {
                empty.clone_from(&fill);
            }
        }
        let mut adding = Adding { usage: &mut usage, scopes, away };
        for (role, word) in &self.values {
            adding.add(*role, word, &[]);
        }
        for (index, (role, word)) in assigned.iter().enumerate() {
            let after: Vec<Word> = assigned.iter().skip(index + 1).map(|(_, word)| (*word).clone()).collect();
            adding.add(*role, word, if scripted(role) { &after } else { &[] });
        }
        match self.rest {
            Some((role, words)) => adding.rest(role, words),
            None => {
                let alone = chain.last().map(|grammar| grammar.alone.as_slice()).filter(|_| !only).unwrap_or(&[]);
                let missing = roles.iter().any(|operand| operand.role == Role::Command) || self.operands.is_empty();
                let of =
                    |effect: &Effect| Fact { effect: *effect, scope: Scope::Nowhere, target: String::new(), span: own };
                usage.facts.extend(alone.iter().filter(|_| missing && usage.inner.is_empty()).map(of));
            }
        }
        usage
    }
}

/// Gives each operand its role: those before the one that repeats from the front, those after it from the back.
fn assign<'w>(roles: &[Operand], operands: &'w [Word]) -> Vec<(Role, &'w Word)> {
    let roles: Vec<&Operand> = roles.iter().filter(|operand| operand.role != Role::Variables).collect();
    let many = roles.iter().position(|operand| operand.many);
    let (heads, tails) = many.map_or((roles.len(), 0), |at| (at, roles.len() - at - 1));
    operands
        .iter()
        .enumerate()
        .map(|(index, word)| {
            let from_end = operands.len() - index;
            let at = match many {
                _ if index < heads => index,
                Some(_) if from_end <= tails && operands.len() > tails => roles.len() - from_end,
                Some(many) => many,
                None => roles.len().saturating_sub(1),
            };
            (roles.get(at).map_or(Role::Data, |operand| operand.role), word)
        })
        .collect()
}

struct Adding<'u, 'k, 's> {
    usage: &'u mut Use<'k>,
    scopes: Scopes<'s>,
    /// Whether what is copied goes to another machine.
    away: bool,
}

impl Adding<'_, '_, '_> {
    fn add(&mut self, role: Role, word: &Word, after: &[Word]) {
        match role {
            Role::Data => {}
            Role::Read => self.path(Effect::Read, word),
            Role::Write => self.path(Effect::Write, word),
            Role::Delete => self.path(Effect::Delete, word),
            Role::Upload => self.upload(word),
            Role::Attachment => self.attachment(word),
            Role::Run(language) => {
                let path = word.clone();
                self.usage.inner.push(Inner::File { path, language, args: after.to_vec() });
            }
            Role::Code(language) | Role::Rest(language) => {
                self.usage.inner.push(Inner::Code { code: word.clone(), language, args: after.to_vec() });
            }
            Role::Command => self.usage.inner.push(Inner::Command { words: vec![word.clone()], fill: Vec::new() }),
            Role::Variables => self.usage.variables.push(word.clone()),
            Role::Url => self.url(word),
            Role::Host => self.fact(Effect::Network, host_scope(&word.text), word),
            Role::Source if is_remote(&word.text) => self.fact(Effect::Network, host_scope(&word.text), word),
            Role::Source if self.away => self.upload(word),
            Role::Source => self.path(Effect::Read, word),
            Role::Destination if is_remote(&word.text) => self.fact(Effect::Network, host_scope(&word.text), word),
            Role::Destination => self.path(Effect::Write, word),
            Role::Folder => self.usage.folder = Some(word.clone()),
            Role::Module(Some(language)) => {
                self.usage.inner.push(Inner::Module { words: vec![word.clone()], language })
            }
            Role::Module(None) => self.fact(Effect::Execute, Scope::Unknown, word),
        }
    }

    fn rest(&mut self, role: Role, words: Vec<Word>) {
        match role {
            Role::Rest(language) => {
                let Some(code) = joined(&words) else { return };
                self.usage.inner.push(Inner::Code { code, language, args: Vec::new() });
            }
            _ => self.usage.inner.push(Inner::Command { words, fill: Vec::new() }),
        }
    }

    fn fact(&mut self, effect: Effect, scope: Scope, word: &Word) {
        let (target, span) = (word.text.clone(), word.span.into());
        self.usage.facts.push(Fact { effect, scope, target, span });
    }

    fn path(&mut self, effect: Effect, word: &Word) {
        let places = self.scopes.places;
        let scope = match places.scope(&word.text, word.glob, self.scopes.place) {
            // Without a home directory nothing of its user is left.
            Scope::Home if effect == Effect::Delete && places.is_home(&word.text) => Scope::System,
            scope => scope,
        };
        if scope != Scope::Nowhere {
            self.fact(effect, scope, word);
        }
    }

    fn upload(&mut self, word: &Word) {
        self.path(Effect::Read, word);
        self.fact(Effect::Upload, Scope::Elsewhere, word);
    }

    fn attachment(&mut self, word: &Word) {
        let text = word.text.as_str();
        let file = text
            .strip_prefix('@')
            .or_else(|| text.split_once("=@").or_else(|| text.split_once("=<")).map(|(_, file)| file));
        match file {
            Some(file) => self.upload(&Word { text: file.to_owned(), ..word.clone() }),
            None => self.fact(Effect::Upload, Scope::Nowhere, word),
        }
    }

    fn url(&mut self, word: &Word) {
        match word.text.strip_prefix("file://") {
            Some(path) => self.path(Effect::Read, &Word { text: path.to_owned(), ..word.clone() }),
            None => self.fact(Effect::Network, host_scope(&word.text), word),
        }
    }
}

/// A word that, given as an option, would run, write or send something.
const fn is_grave(role: Role) -> bool {
    matches!(
        role,
        Role::Write
            | Role::Delete
            | Role::Run(_)
            | Role::Code(_)
            | Role::Command
            | Role::Rest(_)
            | Role::Upload
            | Role::Attachment
    )
}

/// Returns the words as one, joined by blanks; none where there are none.
pub(crate) fn joined(words: &[Word]) -> Option<Word> {
    let first = words.first()?;
    let text = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let certainty = words.iter().map(|word| word.certainty).max().unwrap_or_default();
    Some(Word { text, certainty, ..first.clone() })
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(name, value)| (name, Some(value)))
}

/// Options without a dash: `if=` is the beginning of a word, `!` is one.
fn is_bare(spelling: &str, text: &str) -> bool {
    let begins = || spelling.strip_suffix('*').or_else(|| spelling.strip_suffix('=').map(|_| spelling));
    !spelling.starts_with('-') && (spelling == text || begins().is_some_and(|prefix| text.starts_with(prefix)))
}

fn same(name: &str, text: &str, style: Style) -> bool {
    match style {
        Style::Powershell | Style::Windows => name.eq_ignore_ascii_case(text),
        Style::Gnu | Style::Words => name == text,
    }
}

/// `host:path` or an address.
fn is_remote(text: &str) -> bool {
    text.contains("://")
        || text.split_once(':').is_some_and(|(host, _)| !host.is_empty() && !host.contains('/') && host.len() > 1)
}

/// Returns whether an address or a host's name is this machine.
pub(crate) fn host_scope(text: &str) -> Scope {
    let lower = text.to_lowercase();
    let rest = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or("");
    if authority.contains(['$', '`', '{', '[']) && !authority.starts_with("[::1]") {
        return Scope::Elsewhere;
    }
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let host = if host.starts_with('[') { host } else { host.split(':').next().unwrap_or(host) };
    let quad = host.split('.').count() == 4 && host.split('.').all(|part| part.parse::<u8>().is_ok());
    let local =
        matches!(host, "localhost" | "0.0.0.0") || host.starts_with("[::1]") || (quad && host.starts_with("127."));
    if local { Scope::Loopback } else { Scope::Elsewhere }
}
