//! awk: harmless but for what it runs, and for files that it prints to.

use super::Found;
use super::tokens::{Token, tokens};
use crate::facts::Effect;
use crate::knowledge::Language;

pub(super) fn scan(code: &str) -> Found {
    let mut found = Found::default();
    let tokens = tokens(code, Language::Awk);
    let mut prints = false;
    let mut depth = 0_u32;
    let mut before: Option<&Token<'_>> = None;
    let mut texts: Vec<&str> = Vec::new();
    let mut runs = false;
    let mut iter = tokens.iter().peekable();
    // Between slashes that begin where a value could, `|` and `>` are characters.
    let mut pattern = false;
    while let Some(token) = iter.next() {
        let value = matches!(before, Some(Token::Name(_) | Token::Text(_) | Token::Sign(')' | ']')));
        if matches!(token, Token::Sign('/')) {
            pattern = !pattern && !value;
        }
        match token {
            _ if pattern => {}
            Token::Text(text) => {
                texts.push(text);
                if text.starts_with("/inet") {
                    found.add(Effect::Network, text);
                }
            }
            Token::Name("system" | "getline" | "load" | "include" | "extension") => runs = true,
            Token::Name("print" | "printf") => prints = true,
            Token::Sign('(' | '[') => depth += 1,
            Token::Sign(')' | ']') => depth = depth.saturating_sub(1),
            Token::Sign(';' | '}' | '{') => prints = false,
            Token::Sign('|') => {
                let doubled = matches!(before, Some(Token::Sign('|'))) || matches!(iter.peek(), Some(Token::Sign('|')));
                runs |= !doubled;
            }
            Token::Sign('>') if prints && depth == 0 => {
                if matches!(iter.peek(), Some(Token::Sign('>'))) {
                    iter.next();
                }
                match iter.peek() {
                    Some(Token::Text(path)) => found.add(Effect::Write, path),
                    _ => found.add(Effect::Write, "$file"),
                }
            }
            Token::Backtick(_) | Token::Name(_) | Token::Sign(_) => {}
        }
        before = Some(token);
    }
    if runs {
        found.add(Effect::Code, "");
        texts.iter().for_each(|text| found.script(text));
        texts
            .iter()
            .filter(|text| text.starts_with('/') && !text.contains(' '))
            .for_each(|text| found.add(Effect::Read, text));
        if texts.iter().any(|text| text.starts_with("/inet")) {
            found.add(Effect::Shell, "");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_awk_runs_and_writes_is_found() {
        for code in [
            "{print $1}",
            "NR>7 { sum += $9; } END { print sum; }",
            "/a|b/ || $1 > 3 {print ($2 > 1)}",
            "BEGIN{FS=\":\"} {print $NF}",
        ] {
            assert_eq!(scan(code), Found::default(), "{code}");
        }
        assert_eq!(scan("BEGIN{system(\"rm -rf /\")}").scripts, ["rm -rf /"]);
        assert_eq!(scan("{print > \"/etc/x\"}").does, [(Effect::Write, "/etc/x".to_owned())]);
        assert_eq!(scan("{print | \"sh\"}").scripts, ["sh"]);
    }
}
