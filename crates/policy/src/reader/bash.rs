//! The reader of bash and POSIX sh.

use super::{Builder, Certainty, Cursor, Reading, Redirection, Span0, Word, begin};

const SUBSTITUTION: &str = "runs another command and puts its output here";
const EXPANSION: &str = "is filled in when it runs, so its value is not known now";

/// Words that begin or continue a compound command; what follows them is read as a command.
const KEYWORDS: &[&str] = &[
    "if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "select", "function",
    "in", "time", "coproc", "!", "{", "}", "[[", "]]",
];

pub(super) fn read_into(text: &str, base: usize, depth: u32, reading: &mut Reading) {
    let Some((mut cursor, mut builder)) = begin(text, base, depth, reading) else { return };
    // Delimiters of here-documents whose bodies begin at the next line.
    let mut heredocs: Vec<String> = Vec::new();
    while let Some(c) = cursor.peek() {
        builder.reading.steps += 1;
        let here = cursor.here();
        match c {
            ' ' | '\t' => {
                cursor.bump();
            }
            '\n' => {
                cursor.bump();
                builder.end(false);
                skip_heredocs(&mut cursor, &mut heredocs, builder.reading);
            }
            '#' => cursor.line_end(),
            '\\' if cursor.eat("\\\n") => {}
            ';' => {
                cursor.bump();
                if cursor.eat(";") || cursor.eat("&") {
                    builder.opaque(here, cursor.here(), "is control flow");
                }
                builder.end(false);
            }
            '&' if cursor.rest().starts_with("&>") => redirection(&mut cursor, &mut builder, &mut heredocs, depth),
            '&' => {
                cursor.bump();
                cursor.eat("&");
                builder.end(false);
            }
            '|' => {
                cursor.bump();
                let piped = !cursor.eat("|");
                if piped {
                    cursor.eat("&");
                }
                builder.end(piped);
            }
            '(' | ')' => {
                cursor.bump();
                builder.opaque(here, cursor.here(), "is a group, a function or a pattern");
                builder.end(false);
            }
            '<' | '>' => redirection(&mut cursor, &mut builder, &mut heredocs, depth),
            _ if fd_redirection(cursor.rest()) => redirection(&mut cursor, &mut builder, &mut heredocs, depth),
            _ => {
                let word = word(&mut cursor, &mut builder, depth);
                take_word(word, &mut builder);
            }
        }
    }
    builder.end(false);
}

/// Whether a file descriptor's number stands right before `<` or `>`.
fn fd_redirection(rest: &str) -> bool {
    let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    // A long number is no descriptor; the bound keeps the look-ahead constant.
    let digits = rest.len() - after.len();
    (1..=4).contains(&digits) && after.starts_with(['<', '>'])
}

struct Read {
    word: Word,
    quoted: bool,
}

fn take_word(read: Read, builder: &mut Builder<'_>) {
    let Read { word, quoted } = read;
    let Span0 { start, end } = word.span;
    let at_program = builder.current.program.is_empty();
    if at_program && !quoted && KEYWORDS.contains(&word.text.as_str()) {
        builder.opaque(start, end, "is control flow");
        return;
    }
    builder.begin(start, end);
    if !at_program {
        builder.current.args.push(word);
    } else if is_assignment(&word.text) {
        builder.current.assignments.push(word.text);
    } else {
        if word.glob {
            builder.opaque(start, end, "is a pattern of file names where the program's name belongs");
        }
        if word.text.is_empty() {
            builder.opaque(start, end, "is an empty program name");
        }
        builder.current.program = word.text;
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        let name = name.strip_suffix('+').unwrap_or(name);
        let name = name.split('[').next().unwrap_or(name);
        name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

fn word(cursor: &mut Cursor<'_>, builder: &mut Builder<'_>, depth: u32) -> Read {
    let start = cursor.here();
    let mut text = String::new();
    let (mut quoted, mut glob) = (false, false);
    while let Some(c) = cursor.peek() {
        builder.reading.steps += 1;
        let here = cursor.here();
        match c {
            ' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
            '\\' => {
                cursor.bump();
                match cursor.bump() {
                    // A continued line.
                    Some('\n') => {}
                    Some(next) => {
                        quoted = true;
                        text.push(next);
                    }
                    None => builder.opaque(here, cursor.here(), "ends in a backslash"),
                }
            }
            '\'' => {
                quoted = true;
                cursor.bump();
                single(cursor, builder, here, &mut text);
            }
            '"' => {
                quoted = true;
                cursor.bump();
                double(cursor, builder, here, &mut text, depth);
            }
            '$' | '`' => expansion(cursor, builder, &mut text, depth),
            '~' if text.is_empty() || text.ends_with([':', '=']) => {
                cursor.bump();
                text.push(c);
                builder.opaque(here, cursor.here(), "stands for a home directory");
            }
            '*' | '?' | '[' => {
                cursor.bump();
                // `[` alone is a program and its argument, not a pattern.
                glob |= c != '[' || !(text.is_empty() && cursor.peek().is_none_or(char::is_whitespace));
                text.push(c);
            }
            '{' => {
                cursor.bump();
                text.push(c);
                // `{}` is what find and xargs fill in themselves; the shell leaves it alone.
                let bare = text == "{" && cursor.peek().is_none_or(char::is_whitespace);
                if !bare && cursor.peek() != Some('}') {
                    builder.opaque(here, cursor.here(), "stands for several words");
                }
            }
            _ => {
                cursor.bump();
                text.push(c);
            }
        }
    }
    Read { word: Word { text, glob, certainty: Certainty::Sure, span: Span0 { start, end: cursor.here() } }, quoted }
}

fn single(cursor: &mut Cursor<'_>, builder: &mut Builder<'_>, opened: usize, text: &mut String) {
    while let Some(c) = cursor.bump() {
        builder.reading.steps += 1;
        if c == '\'' {
            return;
        }
        text.push(c);
    }
    builder.opaque(opened, cursor.here(), "opens a quote that never closes");
}

fn double(cursor: &mut Cursor<'_>, builder: &mut Builder<'_>, opened: usize, text: &mut String, depth: u32) {
    while let Some(c) = cursor.peek() {
        builder.reading.steps += 1;
        match c {
            '"' => {
                cursor.bump();
                return;
            }
            '\\' => {
                cursor.bump();
                match cursor.bump() {
                    Some('\n') => {}
                    Some(next @ ('$' | '`' | '"' | '\\')) => text.push(next),
                    Some(next) => {
                        text.push('\\');
                        text.push(next);
                    }
                    None => {}
                }
            }
            '$' | '`' => expansion(cursor, builder, text, depth),
            _ => {
                cursor.bump();
                text.push(c);
            }
        }
    }
    builder.opaque(opened, cursor.here(), "opens a quote that never closes");
}

/// `$…` or a back-quoted command. The word keeps its spelling; commands inside are read as well.
fn expansion(cursor: &mut Cursor<'_>, builder: &mut Builder<'_>, text: &mut String, depth: u32) {
    let start = cursor.here();
    let from = cursor.at;
    if cursor.bump() == Some('`') {
        let inner_base = cursor.here();
        let rest = cursor.rest();
        let length = rest.find('`').unwrap_or(rest.len());
        let inner = rest.get(..length).unwrap_or("");
        cursor.at += length;
        cursor.eat("`");
        builder.opaque(start, cursor.here(), SUBSTITUTION);
        read_into(inner, inner_base, depth + 1, builder.reading);
    } else if cursor.eat("(") {
        let inner_base = cursor.here();
        let inner = cursor.until_parenthesis();
        builder.opaque(start, cursor.here(), SUBSTITUTION);
        read_into(inner, inner_base, depth + 1, builder.reading);
    } else if cursor.peek() == Some('\'') {
        cursor.bump();
        builder.opaque(start, cursor.here(), "is a quote with escapes");
        ansi_c(cursor, text);
        return;
    } else {
        match cursor.peek() {
            Some(c) if c.is_alphanumeric() || "_{?!$#@*-[\"".contains(c) => {
                builder.opaque(start, cursor.here(), EXPANSION);
            }
            // The shell joins lines before it looks what the dollar begins: `"$\⏎(rm x)"` runs `rm`.
            Some('\\') if cursor.rest().starts_with("\\\n") => builder.opaque(start, cursor.here(), EXPANSION),
            // A dollar before anything else stands for itself.
            _ => {}
        }
    }
    text.push_str(cursor.text.get(from..cursor.at).unwrap_or(""));
}

/// `$'…'`: the common escapes are resolved so that a deny rule sees the name behind them. It stays opaque.
fn ansi_c(cursor: &mut Cursor<'_>, text: &mut String) {
    while let Some(c) = cursor.bump() {
        match c {
            '\'' => return,
            '\\' => match cursor.bump() {
                Some('x') => text.extend(number(cursor, 16, 2, 0)),
                Some('u') => text.extend(number(cursor, 16, 4, 0)),
                Some('U') => text.extend(number(cursor, 16, 8, 0)),
                Some(d) if d.is_digit(8) => text.extend(number(cursor, 8, 2, d.to_digit(8).unwrap_or(0))),
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => return,
            },
            _ => text.push(c),
        }
    }
}

fn number(cursor: &mut Cursor<'_>, radix: u32, most: u32, first: u32) -> Option<char> {
    let mut value = first;
    for _ in 0..most {
        let Some(digit) = cursor.peek().and_then(|c| c.to_digit(radix)) else { break };
        cursor.bump();
        value = value.wrapping_mul(radix).wrapping_add(digit);
    }
    char::from_u32(value)
}

fn redirection(cursor: &mut Cursor<'_>, builder: &mut Builder<'_>, heredocs: &mut Vec<String>, depth: u32) {
    let start = cursor.here();
    let from = cursor.at;
    while cursor.peek().is_some_and(|c| c.is_ascii_digit()) {
        cursor.bump();
    }
    let operators = ["&>>", "&>", "<<<", "<<-", "<<", "<>", "<&", ">>", ">&", ">|", "<", ">"];
    let plain = ["&>", "&>>", ">", ">>", ">&"];
    let operator = operators.into_iter().find(|operator| cursor.eat(operator)).unwrap_or("");
    let spelled = cursor.text.get(from..cursor.at).unwrap_or("").to_owned();
    if matches!(operator, "<" | ">") && cursor.peek() == Some('(') {
        cursor.bump();
        let inner_base = cursor.here();
        let inner = cursor.until_parenthesis();
        builder.opaque(start, cursor.here(), SUBSTITUTION);
        read_into(inner, inner_base, depth + 1, builder.reading);
        builder.begin(start, cursor.here());
        return;
    }
    while matches!(cursor.peek(), Some(' ' | '\t')) {
        cursor.bump();
    }
    let before = cursor.here();
    let read = word(cursor, builder, depth);
    if before == cursor.here() {
        builder.opaque(start, before, "redirects to nothing");
    }
    // After `>&` bash takes quotes off twice, so a quoted target is not what it looks like.
    let twice = operator == ">&" && read.quoted;
    if !plain.contains(&operator) || read.word.glob || twice {
        builder.opaque(start, cursor.here(), "is a redirection that is not read");
    }
    if operator.starts_with("<<") && operator != "<<<" {
        heredocs.push(read.word.text.clone());
    }
    builder.begin(start, cursor.here());
    builder.current.redirections.push(Redirection { operator: spelled, target: read.word.text });
}

/// Bodies of here-documents are data. A body whose end is not found is read as commands: that can only add reasons.
fn skip_heredocs(cursor: &mut Cursor<'_>, heredocs: &mut Vec<String>, reading: &mut Reading) {
    for delimiter in heredocs.drain(..) {
        // Many false beginnings must not make the search quadratic.
        if reading.steps > super::MAX_STEPS {
            return;
        }
        let mut at = 0;
        let mut found = None;
        for line in cursor.rest().split_inclusive('\n') {
            at += line.len();
            reading.steps += u64::try_from(line.len()).unwrap_or(u64::MAX);
            if line.trim_end_matches('\n').trim_start_matches('\t') == delimiter {
                found = Some(at);
                break;
            }
        }
        let Some(length) = found else { return };
        cursor.at += length;
    }
}
