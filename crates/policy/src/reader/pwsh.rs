//! The reader of PowerShell.

use super::{Builder, Certainty, Cursor, Reading, Redirection, Span0, Word, begin};

const KEYWORDS: &[&str] = &[
    "if", "else", "elseif", "foreach", "for", "while", "do", "until", "switch", "try", "catch", "finally", "function",
    "filter", "return", "throw", "param", "begin", "process", "end", "trap", "using", "class", "data", "in",
];

pub(super) fn read_into(text: &str, base: usize, depth: u32, reading: &mut Reading) {
    let Some((mut cursor, mut builder)) = begin(text, base, depth, reading) else { return };
    while let Some(c) = cursor.peek() {
        builder.reading.steps += 1;
        let here = cursor.here();
        match c {
            ' ' | '\t' | '\r' => {
                cursor.bump();
            }
            '#' => cursor.line_end(),
            '<' if cursor.rest().starts_with("<#") => {
                let rest = cursor.rest();
                match rest.find("#>") {
                    Some(length) => cursor.at += length + 2,
                    None => {
                        builder.opaque(here, base + text.len(), "opens a comment that never closes");
                        cursor.at = text.len();
                    }
                }
            }
            '\n' | ';' => {
                cursor.bump();
                builder.end(false);
            }
            '|' => {
                cursor.bump();
                let piped = !cursor.eat("|");
                builder.end(piped);
            }
            '&' => {
                cursor.bump();
                if !cursor.eat("&") {
                    builder.opaque(here, cursor.here(), "calls what a value names, or runs in the background");
                }
                builder.end(false);
            }
            '(' | ')' | '{' | '}' | ',' | '=' if c != ',' && (c != '=' || builder.current.program.is_empty()) => {
                cursor.bump();
                builder.opaque(here, cursor.here(), "is an expression or a script block");
                builder.end(c == '{');
            }
            '>' | '<' => redirection(&mut cursor, &mut builder, depth),
            _ => {
                let read = word(&mut cursor, &mut builder, depth);
                take_word(read, &mut builder);
            }
        }
    }
    builder.end(false);
}

fn take_word(word: Word, builder: &mut Builder<'_>) {
    let Span0 { start, end } = word.span;
    if builder.current.program.is_empty() {
        let name = word.text.to_lowercase();
        if KEYWORDS.contains(&name.as_str()) || name == "." {
            builder.opaque(start, end, "is control flow, or runs another script here");
            return;
        }
        let first = name.chars().next().unwrap_or(' ');
        if !(first.is_alphanumeric() || "./\\_~?%".contains(first)) {
            builder.opaque(start, end, "is an expression");
        }
        builder.begin(start, end);
        builder.current.program = word.text;
    } else {
        builder.begin(start, end);
        builder.current.args.push(word);
    }
}

/// PowerShell takes typographic dashes and quotes for plain ones.
const fn plain(c: char) -> char {
    match c {
        '\u{2013}' | '\u{2014}' | '\u{2015}' => '-',
        '\u{2018}' | '\u{2019}' | '\u{201A}' | '\u{201B}' => '\'',
        '\u{201C}' | '\u{201D}' | '\u{201E}' => '"',
        other => other,
    }
}

fn word(cursor: &mut Cursor<'_>, builder: &mut Builder<'_>, depth: u32) -> Word {
    let start = cursor.here();
    let mut text = String::new();
    let mut glob = false;
    while let Some(c) = cursor.peek() {
        builder.reading.steps += 1;
        let here = cursor.here();
        match plain(c) {
            ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '(' | ')' | '{' | '}' | '<' | '>' => break,
            '`' => {
                cursor.bump();
                match cursor.bump() {
                    Some('\n') | None => {}
                    Some(next) => text.push(next),
                }
            }
            '\'' => {
                cursor.bump();
                single(cursor, builder, here, &mut text);
            }
            '"' => {
                cursor.bump();
                double(cursor, builder, here, &mut text, depth);
            }
            '$' | '@' => {
                cursor.bump();
                text.push(c);
                builder.opaque(here, cursor.here(), "is filled in when it runs, so its value is not known now");
            }
            '*' | '?' | '[' => {
                cursor.bump();
                glob = true;
                text.push(c);
            }
            '~' if text.is_empty() => {
                cursor.bump();
                text.push(c);
                builder.opaque(here, cursor.here(), "stands for a home directory");
            }
            other => {
                cursor.bump();
                text.push(other);
            }
        }
    }
    Word { text, glob, certainty: Certainty::Sure, span: Span0 { start, end: cursor.here() } }
}

fn single(cursor: &mut Cursor<'_>, builder: &mut Builder<'_>, opened: usize, text: &mut String) {
    while let Some(c) = cursor.bump() {
        builder.reading.steps += 1;
        if plain(c) == '\'' {
            if cursor.peek().map(plain) != Some('\'') {
                return;
            }
            cursor.bump();
        }
        text.push(c);
    }
    builder.opaque(opened, cursor.here(), "opens a quote that never closes");
}

fn double(cursor: &mut Cursor<'_>, builder: &mut Builder<'_>, opened: usize, text: &mut String, depth: u32) {
    while let Some(c) = cursor.peek() {
        builder.reading.steps += 1;
        let here = cursor.here();
        cursor.bump();
        match plain(c) {
            '"' => {
                if cursor.peek().map(plain) != Some('"') {
                    return;
                }
                cursor.bump();
                text.push('"');
            }
            '`' => text.extend(cursor.bump()),
            '$' if cursor.peek() == Some('(') => {
                cursor.bump();
                let inner_base = cursor.here();
                let inner = cursor.until_parenthesis();
                builder.opaque(here, cursor.here(), "runs another command and puts its output here");
                read_into(inner, inner_base, depth + 1, builder.reading);
            }
            '$' => {
                text.push(c);
                builder.opaque(here, cursor.here(), "is filled in when it runs, so its value is not known now");
            }
            _ => text.push(c),
        }
    }
    builder.opaque(opened, cursor.here(), "opens a quote that never closes");
}

fn redirection(cursor: &mut Cursor<'_>, builder: &mut Builder<'_>, depth: u32) {
    let start = cursor.here();
    let operator = if cursor.eat(">>") {
        ">>"
    } else if cursor.eat(">") {
        ">"
    } else {
        "<"
    };
    if operator == "<" {
        cursor.bump();
        builder.opaque(start, cursor.here(), "is a redirection that is not read");
    }
    cursor.eat("&");
    while matches!(cursor.peek(), Some(' ' | '\t')) {
        cursor.bump();
    }
    let target = word(cursor, builder, depth).text;
    builder.begin(start, cursor.here());
    builder.current.redirections.push(Redirection {
        operator: operator.to_owned(),
        target,
        certainty: Certainty::Sure,
    });
}
