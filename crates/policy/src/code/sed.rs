//! sed: harmless but for `e`, `w`, `r` and their like. What is not understood is code.

use super::Found;
use crate::facts::Effect;

pub(super) fn scan(code: &str) -> Found {
    let mut found = Found::default();
    let mut rest = code;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', ';', '{', '}']);
        let Some(c) = rest.chars().next() else { return found };
        rest = match command(c, rest, &mut found) {
            Some(rest) => rest,
            None => {
                found.add(Effect::Code, "");
                found.script(code.trim_start_matches(|c: char| c.is_ascii_digit() || "$e ,".contains(c)));
                return found;
            }
        };
    }
}

/// Takes one address or command; none where it is not understood.
fn command<'c>(c: char, rest: &'c str, found: &mut Found) -> Option<&'c str> {
    let after = rest.get(c.len_utf8()..)?;
    match c {
        '0'..='9' | '$' | ',' | '!' | '+' | '~' | 'I' | 'M' => Some(after),
        '/' => delimited(after, '/').map(|(_, after)| after),
        '\\' => {
            let mark = after.chars().next()?;
            delimited(after.get(mark.len_utf8()..)?, mark).map(|(_, after)| after)
        }
        '#' => Some(after.split_once('\n').map_or("", |(_, next)| next)),
        's' | 'y' => {
            let mark = after.chars().next().filter(|mark| !mark.is_alphanumeric() && *mark != '\n')?;
            let (_, after) = delimited(after.get(mark.len_utf8()..)?, mark)?;
            let (by, after) = delimited(after, mark)?;
            let length = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
            let (flags, after) = after.split_at(length);
            let known = flags.trim_start_matches(|c: char| c.is_ascii_digit() || "gpiImM".contains(c));
            if known.starts_with('e') || flags.contains('e') {
                found.add(Effect::Code, "");
                found.script(by);
                return Some(after);
            }
            if let Some(file) = known.strip_prefix('w') {
                let (line, next) = after.split_once('\n').unwrap_or((after, ""));
                found.add(Effect::Write, format!("{file}{line}").trim());
                return Some(next);
            }
            known.is_empty().then_some(after)
        }
        'w' | 'W' | 'r' | 'R' => {
            let (file, next) = after.split_once('\n').unwrap_or((after, ""));
            found.add(if matches!(c, 'w' | 'W') { Effect::Write } else { Effect::Read }, file.trim());
            Some(next)
        }
        'a' | 'i' | 'c' => {
            Some(after.split_once('\n').filter(|(line, _)| !line.ends_with('\\')).map_or("", |(_, next)| next))
        }
        'b' | 't' | 'T' | ':' => Some(after.trim_start_matches(|c: char| !matches!(c, ';' | '\n' | '}'))),
        'l' | 'q' | 'Q' | 'L' => Some(after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ')),
        '=' | 'd' | 'D' | 'g' | 'G' | 'h' | 'H' | 'n' | 'N' | 'p' | 'P' | 'x' | 'z' | 'F' => Some(after),
        _ => None,
    }
}

/// Takes up to an unescaped `mark`, which inside of brackets does not count.
fn delimited(text: &str, mark: char) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if !escaped && c == mark {
            return Some((text.get(..at)?, text.get(at + c.len_utf8()..)?));
        }
        escaped = !escaped && c == '\\';
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sed_runs_and_writes_is_found() {
        for code in [
            "s/a/b/",
            "1,20p",
            "s|a|b|g;s/c/d/2p",
            "/x/!d",
            "$!N;$!D",
            "/^$/d",
            "1~2d",
            ":a;N;$!ba;s/\\n/ /g",
            "y/abc/xyz/",
            "/a/,/b/{p;q}",
            "a text",
        ] {
            assert_eq!(scan(code), Found::default(), "{code}");
        }
        for (code, effect, target) in [
            ("w /etc/x", Effect::Write, "/etc/x"),
            ("s/a/b/w out", Effect::Write, "out"),
            ("r /etc/shadow", Effect::Read, "/etc/shadow"),
            ("1e id", Effect::Code, ""),
            ("s/a/id/e", Effect::Code, ""),
        ] {
            assert_eq!(scan(code).does, [(effect, target.to_owned())], "{code}");
        }
    }
}
