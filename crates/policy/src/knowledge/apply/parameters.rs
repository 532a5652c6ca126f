//! Arguments of cmdlets: parameters by name, by a beginning of it, by place, and by what is piped.

use super::{Reading, joined};
use crate::knowledge::{Grammar, Language, Opt, Program, Role, Stdin, Unlisted};
use crate::reader::{Certainty, Word};

/// Parameters that every cmdlet has, and whether they take a value.
const COMMON: &[(&str, bool)] = &[
    ("verbose", false),
    ("vb", false),
    ("debug", false),
    ("db", false),
    ("whatif", false),
    ("wi", false),
    ("confirm", false),
    ("cf", false),
    ("erroraction", true),
    ("ea", true),
    ("warningaction", true),
    ("wa", true),
    ("informationaction", true),
    ("infa", true),
    ("progressaction", true),
    ("proga", true),
    ("errorvariable", true),
    ("ev", true),
    ("warningvariable", true),
    ("wv", true),
    ("informationvariable", true),
    ("iv", true),
    ("outvariable", true),
    ("ov", true),
    ("outbuffer", true),
    ("ob", true),
    ("pipelinevariable", true),
    ("pv", true),
];
const DASHES: [char; 4] = ['-', '\u{2013}', '\u{2014}', '\u{2015}'];

/// What a parameter's name means.
enum Meant<'k> {
    Listed(&'k Opt),
    Common { takes: bool },
    Unknown,
}

impl<'k> Reading<'k> {
    /// Binds what a cmdlet is given to its parameters: each value ends with its role.
    pub(super) fn bind(&mut self, program: &'k Program, args: &[Word], input: &[Word]) {
        let grammar = &program.grammar;
        // PowerShell itself takes its options with a slash too.
        let slashes =
            grammar.options.iter().any(|option| option.spellings.iter().any(|name| name == "-EncodedCommand"));
        let mut filled: Vec<&'k Opt> = Vec::new();
        let mut loose: Vec<Word> = Vec::new();
        let mut at = 0;
        while let Some(word) = args.get(at) {
            at += 1;
            let text = word.text.as_str();
            let named = text.len() > 1 && (text.starts_with(DASHES) || (slashes && text.starts_with('/')));
            if !named || word.certainty == Certainty::Unknown && !text.starts_with('-') || text.parse::<f64>().is_ok() {
                let rest = loose.is_empty().then(|| grammar.operands.first()).flatten();
                if let Some(role @ (Role::Rest(_) | Role::Command)) = rest.map(|operand| operand.role) {
                    self.rest = Some((role, args.get(at - 1..).unwrap_or(&[]).to_vec()));
                    return;
                }
                loose.push(word.clone());
                continue;
            }
            let (name, value) = text.split_once(':').map_or((text, None), |(name, value)| (name, Some(value)));
            let name = name.trim_start_matches(DASHES).trim_start_matches('/').to_lowercase();
            let value = value.map(|value| Word { text: value.to_owned(), ..word.clone() });
            match meant(grammar, &name) {
                Meant::Listed(option) => {
                    self.given.push((option, word.span.into()));
                    let Some(role) = option.takes else { continue };
                    filled.push(option);
                    if matches!(role, Role::Code(Language::Pwsh) | Role::Rest(_) | Role::Command) && value.is_none() {
                        // `-Command` takes all that follows.
                        let rest = args.get(at..).unwrap_or(&[]);
                        self.values.extend(joined(rest).map(|code| (role, code)));
                        return;
                    }
                    let value = value.or_else(|| {
                        at += 1;
                        args.get(at - 1).cloned()
                    });
                    value.into_iter().for_each(|value| self.bound(role, value));
                }
                Meant::Common { takes } => at += usize::from(takes && value.is_none()),
                Meant::Unknown => {
                    if grammar.unlisted == Unlisted::Unknown {
                        self.usage.unknown.push(word.clone());
                    }
                }
            }
        }
        if grammar.stdin == Stdin::Arguments {
            loose.extend_from_slice(input);
        }
        self.places(grammar, &filled, loose);
    }

    /// Gives what has no name to the parameters that have a place and no value yet.
    fn places(&mut self, grammar: &'k Grammar, filled: &[&'k Opt], loose: Vec<Word>) {
        let is_filled = |name: &str| {
            filled.iter().any(|option| option.spellings.iter().any(|spelling| spelling.eq_ignore_ascii_case(name)))
        };
        let named = grammar.positions.iter().zip(&grammar.operands);
        let open: Vec<_> =
            named.filter(|(name, _)| name.is_empty() || !is_filled(name)).map(|(_, operand)| *operand).collect();
        let mut roles = open.iter();
        let mut last = None;
        for word in loose {
            let role = match last {
                Some(last) => last,
                None => match roles.next() {
                    Some(operand) => {
                        if operand.many {
                            last = Some(operand.role);
                        }
                        operand.role
                    }
                    // More than there are places for is an error, or something that is not known here.
                    None => open.last().or(grammar.operands.last()).map_or(Role::Data, |operand| operand.role),
                },
            };
            self.bound(role, word);
        }
    }

    fn bound(&mut self, role: Role, word: Word) {
        let items = if word.items.is_empty() { vec![word] } else { word.items };
        for mut item in items {
            item.items.clear();
            let open = item.certainty == Certainty::Unknown;
            if open && role == Role::Read {
                // What is read without anybody knowing could be anything.
                self.usage.unknown.push(item.clone());
            }
            if open && !item.text.contains('$') {
                item.text = format!("$({})", item.text);
            }
            self.values.push((role, item));
        }
    }
}

/// Returns what a parameter's name, in lower case and without its dash, means.
fn meant<'k>(grammar: &'k Grammar, name: &str) -> Meant<'k> {
    let is = |spelling: &str| spelling.trim_start_matches('-').to_lowercase();
    let named = |option: &&Opt| option.spellings.iter().any(|spelling| is(spelling) == name);
    if let Some(option) = grammar.options.iter().find(named) {
        return Meant::Listed(option);
    }
    if let Some((_, takes)) = COMMON.iter().find(|(common, _)| *common == name) {
        return Meant::Common { takes: *takes };
    }
    let begins = |option: &&Opt| option.spellings.iter().any(|spelling| is(spelling).starts_with(name));
    // Where a beginning could mean several, the one that does more is taken.
    let found: Vec<&Opt> = grammar.options.iter().filter(begins).collect();
    let grave = found.iter().find(|option| !option.does.is_empty() || option.takes.is_some_and(super::is_grave));
    if let Some(option) = grave.or(found.first()) {
        return Meant::Listed(option);
    }
    let common = COMMON.iter().find(|(common, _)| common.starts_with(name));
    common.map_or(Meant::Unknown, |(_, takes)| Meant::Common { takes: *takes })
}
