//! Patterns as the shell matches them: `*`, `?`, `[…]`. Linear in practice and bounded by the product of both lengths.

/// Returns whether all of `text` is what `pattern` describes. `*` crosses `/`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stood, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match one(pattern, p, text.get(t).copied().unwrap_or(0)) {
            Some(next) => {
                p = next;
                t += 1;
            }
            None if pattern.get(p) == Some(&b'*') => {
                star = Some((p, t));
                p += 1;
            }
            None => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or(&[]).iter().all(|byte| *byte == b'*')
}

/// Returns where the pattern goes on after it took `byte`; none where it does not take it.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern.get(at)? {
        b'*' => None,
        b'?' => Some(at + 1),
        b'[' => bracket(pattern, at, byte),
        b'\\' => (pattern.get(at + 1) == Some(&byte)).then_some(at + 2),
        other => (*other == byte).then_some(at + 1),
    }
}

fn bracket(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    let rest = pattern.get(at + 1..).unwrap_or(&[]);
    // A bracket that does not close stands for itself; the bound keeps a flood of them cheap.
    let close = rest.iter().take(64).skip(1).position(|b| *b == b']').map(|found| found + 1);
    let Some(close) = close else { return (byte == b'[').then_some(at + 1) };
    let set = rest.get(..close).unwrap_or(&[]);
    let (negated, set) = match set.split_first() {
        Some((b'!' | b'^', set)) => (true, set),
        _ => (false, set),
    };
    let mut found = false;
    let mut index = 0;
    while let Some(first) = set.get(index) {
        match (set.get(index + 1), set.get(index + 2)) {
            (Some(b'-'), Some(last)) => {
                found |= (*first..=*last).contains(&byte);
                index += 3;
            }
            _ => {
                found |= *first == byte;
                index += 1;
            }
        }
    }
    (found != negated).then_some(at + 1 + close + 1)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_the_shell_does() {
        for (pattern, text) in [
            ("*", ""),
            ("a*c", "abbc"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[!a]x", "bx"),
            ("*.pem", "a/b.pem"),
            ("/etc/sh*dow", "/etc/shadow"),
            ("[", "["),
            ("ca[t]", "cat"),
            ("\\*", "*"),
            ("**a**", "bab"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", ""), ("", "a"), ("a?", "a"), ("[a-c]", "d"), ("*b", "ba"), ("[!a]", "a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
