//! The words, strings and signs of code, alike for all languages that are scanned.

use crate::knowledge::Language;

/// One piece of code.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'c> {
    /// A name; those with a sigil, `$x` and `@x`, are left out.
    Name(&'c str),
    Text(String),
    Backtick(String),
    Sign(char),
}

/// Returns the pieces of `code`, comments and blanks left out.
pub(super) fn tokens(code: &str, language: Language) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = code;
    let mut sigil = false;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or("");
        rest = match c {
            '\'' | '"' => {
                let triple = language == Language::Python
                    && after.get(..2).is_some_and(|two| two.bytes().all(|b| char::from(b) == c));
                let (text, after) = if triple {
                    quoted(after.get(2..).unwrap_or(""), &c.to_string().repeat(3))
                } else {
                    quoted(after, &c.to_string())
                };
                tokens.push(Token::Text(text));
                after
            }
            '`' => {
                let (text, after) = quoted(after, "`");
                // In JavaScript it is a string, and can still be run.
                tokens.push(if language == Language::Node { Token::Text(text) } else { Token::Backtick(text) });
                after
            }
            '#' if !sigil && !matches!(language, Language::Node | Language::Lua | Language::Php) => {
                after.split_once('\n').map_or("", |(_, next)| next)
            }
            '/' if after.starts_with('/') && matches!(language, Language::Node | Language::Php) => {
                after.split_once('\n').map_or("", |(_, next)| next)
            }
            '-' if after.starts_with('-') && language == Language::Lua => {
                after.split_once('\n').map_or("", |(_, next)| next)
            }
            'q' | '%' if matches!(language, Language::Perl | Language::Ruby) => match other_quotes(rest, language) {
                Some((token, after)) => {
                    tokens.push(token);
                    after
                }
                None if c == 'q' => name(rest, sigil, &mut tokens),
                None => {
                    tokens.push(Token::Sign(c));
                    after
                }
            },
            _ if c.is_alphabetic() || c == '_' => name(rest, sigil, &mut tokens),
            _ if c.is_ascii_digit() => after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.'),
            _ => {
                if !c.is_whitespace() && !matches!(c, '$' | '@') {
                    tokens.push(Token::Sign(c));
                }
                after
            }
        };
        sigil = matches!(c, '$' | '@') && matches!(language, Language::Perl | Language::Php | Language::Ruby);
    }
    tokens
}

fn name<'c>(rest: &'c str, sigil: bool, tokens: &mut Vec<Token<'c>>) -> &'c str {
    let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (name, after) = rest.split_at(length);
    if !sigil {
        tokens.push(Token::Name(name));
    }
    after
}

/// Takes up to `end`; escapes are resolved.
fn quoted<'c>(text: &'c str, end: &str) -> (String, &'c str) {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if text.get(at..).is_some_and(|rest| rest.starts_with(end)) {
            return (out, text.get(at + end.len()..).unwrap_or(""));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next().map(|(_, c)| c) {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('x') => {
                let digits = text.get(at + 2..at + 4).and_then(|digits| u8::from_str_radix(digits, 16).ok());
                match digits {
                    Some(byte) => {
                        out.push(char::from(byte));
                        chars.next();
                        chars.next();
                    }
                    None => out.push('x'),
                }
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    (out, "")
}

/// `q{…}`, `qq(…)`, `qx/…/`, `%x{…}`, `%q(…)`.
fn other_quotes(rest: &str, language: Language) -> Option<(Token<'_>, &str)> {
    let (kind, after) = if language == Language::Perl {
        let length = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        rest.split_at(length)
    } else {
        let inner = rest.strip_prefix('%')?;
        inner.split_at(inner.find(|c: char| !c.is_ascii_alphabetic())?)
    };
    if !matches!(kind, "q" | "qq" | "qx" | "qw" | "x" | "Q" | "w")
        || (language == Language::Perl && matches!(kind, "x" | "Q" | "w"))
    {
        return None;
    }
    let open = after
        .chars()
        .next()
        .filter(|c| !c.is_alphanumeric() && !c.is_whitespace() && !matches!(c, ',' | ';' | '=' | ')'))?;
    let close = match open {
        '(' => ')',
        '{' => '}',
        '[' => ']',
        '<' => '>',
        other => other,
    };
    let (text, after) = quoted(after.get(open.len_utf8()..)?, &close.to_string());
    let token = if kind.ends_with('x') { Token::Backtick(text) } else { Token::Text(text) };
    Some((token, after))
}
