//! What small programs print when all that they read is known: the ones that hide text in other text.

use crate::reader::{Certainty, Command};

/// What decodes to more than this is not followed.
pub(crate) const MAX_OUTPUT: usize = 1 << 16;

/// Returns what `command` prints, given what it reads; none where that is not known.
pub(crate) fn output(
    command: &Command,
    input: Option<&str>,
    cwd: Option<&str>,
    file: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    if command.args.iter().any(|word| word.certainty >= Certainty::Unset || word.glob) {
        return None;
    }
    let args: Vec<&str> = command.args.iter().map(|word| word.text.as_str()).collect();
    let name = command.program.rsplit('/').next().unwrap_or("");
    let read = |operands: &[&str]| -> Option<String> {
        if operands.is_empty() {
            return input.map(str::to_owned);
        }
        operands.iter().map(|path| if *path == "-" { input.map(str::to_owned) } else { file(path) }).collect()
    };
    let operands = || args.iter().copied().filter(|arg| !arg.starts_with('-') || *arg == "-").collect::<Vec<_>>();
    let made = match name {
        "echo" => Some(echo(&args)),
        "printf" => printf(&args),
        "pwd" if args.is_empty() => cwd.map(|cwd| format!("{cwd}\n")),
        "true" | ":" | "sleep" | "wait" => Some(String::new()),
        "cat" | "tac" | "tee" if args.iter().all(|arg| !arg.starts_with("--")) => {
            let text = if name == "tee" { input.map(str::to_owned) } else { read(&operands()) }?;
            Some(if name == "tac" { text.lines().rev().map(|line| format!("{line}\n")).collect() } else { text })
        }
        "base64" | "base32" | "gbase64" => {
            let decodes = args.iter().any(|arg| {
                matches!(*arg, "-d" | "-D" | "--decode" | "-di" | "-id")
                    || (arg.len() > 3 && "--decode".starts_with(arg))
            });
            let text = read(&operands())?;
            if decodes { decode(&text, name) } else { None }
        }
        "openssl"
            if args.contains(&"-d")
                && args.iter().any(|arg| arg.contains("base64") || *arg == "-a" || *arg == "-A") =>
        {
            decode(input?, "base64")
        }
        "xxd"
            if args.iter().any(|arg| arg.starts_with("-r") || *arg == "-p" || *arg == "-ps")
                && args.iter().any(|arg| arg.contains('r')) =>
        {
            let text = read(&operands())?;
            hex(&text)
        }
        "rev" => {
            Some(read(&operands())?.lines().map(|line| line.chars().rev().chain(['\n']).collect::<String>()).collect())
        }
        "tr" => tr(&args, input?),
        "basename" => {
            let path = args.first()?.trim_end_matches('/');
            let name = path.rsplit('/').next()?;
            Some(args.get(1).and_then(|ending| name.strip_suffix(ending)).unwrap_or(name).to_owned() + "\n")
        }
        "which" | "type" => args.last().map(|name| format!("{name}\n")),
        "command" if matches!(args.as_slice(), ["-v" | "-V", _]) => args.last().map(|name| format!("{name}\n")),
        "command" | "builtin" | "exec" | "env" | "nohup" => {
            let (program, rest) = command.args.split_first()?;
            let inner = Command { program: program.text.clone(), args: rest.to_vec(), ..Command::default() };
            return output(&inner, input, cwd, file);
        }
        "head" | "tail" if args.is_empty() => input.map(str::to_owned).filter(|text| text.lines().count() <= 10),
        "sed" | "gsed" if args.len() == 1 => substitute(args.first()?, input?),
        _ => None,
    };
    made.filter(|text| text.len() <= MAX_OUTPUT)
}

fn echo(args: &[&str]) -> String {
    let (mut newline, mut escapes) = (true, false);
    let mut rest = args;
    while let Some((first, after)) = rest.split_first() {
        let letters = first
            .strip_prefix('-')
            .filter(|letters| !letters.is_empty() && letters.bytes().all(|b| b"neE".contains(&b)));
        let Some(letters) = letters else { break };
        newline &= !letters.contains('n');
        escapes |= letters.contains('e');
        rest = after;
    }
    let text = rest.join(" ");
    let mut text = if escapes { unescape(&text, true).0 } else { text };
    if newline {
        text.push('\n');
    }
    text
}

/// Returns the text with escapes resolved, and whether `\c` ended it.
fn unescape(text: &str, zero_octal: bool) -> (String, bool) {
    let mut bytes: Vec<u8> = Vec::new();
    let mut chars = text.chars().peekable();
    let mut buffer = [0; 4];
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            continue;
        }
        let Some(next) = chars.next() else {
            bytes.push(b'\\');
            break;
        };
        let mut digits = |radix: u32, most: usize, first: Option<u32>| {
            let mut value = first;
            for _ in 0..most {
                let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else { break };
                chars.next();
                value = Some(value.unwrap_or(0).wrapping_mul(radix).wrapping_add(digit));
            }
            value
        };
        match next {
            'x' => bytes.extend(digits(16, 2, None).map(|value| u8::try_from(value & 0xff).unwrap_or(0))),
            'u' | 'U' => {
                let value = digits(16, if next == 'u' { 4 } else { 8 }, None);
                if let Some(c) = value.and_then(char::from_u32) {
                    bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                }
            }
            '0' if zero_octal => bytes.push(u8::try_from(digits(8, 3, Some(0)).unwrap_or(0) & 0xff).unwrap_or(0)),
            '0'..='7' => {
                let value = digits(8, 2, next.to_digit(8)).unwrap_or(0);
                bytes.push(u8::try_from(value & 0xff).unwrap_or(0));
            }
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'r' => bytes.push(b'\r'),
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'e' => bytes.push(27),
            'f' => bytes.push(12),
            'v' => bytes.push(11),
            '\\' => bytes.push(b'\\'),
            'c' => return (String::from_utf8_lossy(&bytes).into_owned(), true),
            other => {
                bytes.push(b'\\');
                bytes.extend_from_slice(other.encode_utf8(&mut buffer).as_bytes());
            }
        }
    }
    (String::from_utf8_lossy(&bytes).into_owned(), false)
}

fn printf(args: &[&str]) -> Option<String> {
    let args = if args.first() == Some(&"--") { args.get(1..)? } else { args };
    let (format, values) = args.split_first()?;
    if format.starts_with("-v") {
        return Some(String::new());
    }
    let format = unescape(format, false).0;
    let mut values = values.iter();
    let mut out = String::new();
    loop {
        let before = values.len();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let kind = chars.find(|c| !"-+ #0123456789.*".contains(*c));
            match kind {
                Some('%') => out.push('%'),
                Some('b') => out.push_str(&unescape(values.next().copied().unwrap_or(""), true).0),
                Some('s' | 'q') => out.push_str(values.next().copied().unwrap_or("")),
                Some('d' | 'i' | 'u') => out.push_str(values.next().copied().unwrap_or("0")),
                Some('c') => out.extend(values.next().copied().unwrap_or("").chars().next()),
                Some('x') => out.push_str(&format!("{:x}", values.next()?.parse::<u64>().ok()?)),
                Some('o') => out.push_str(&format!("{:o}", values.next()?.parse::<u64>().ok()?)),
                _ => return None,
            }
            if out.len() > MAX_OUTPUT {
                return None;
            }
        }
        if values.len() == 0 || values.len() == before {
            return Some(out);
        }
    }
}

pub(crate) fn decode(text: &str, name: &str) -> Option<String> {
    let (bits, alphabet): (u32, &[u8]) = if name.contains("32") {
        (5, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    } else {
        (6, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    };
    let (mut held, mut count) = (0_u32, 0);
    let mut bytes = Vec::new();
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let byte = match byte {
            b'-' if bits == 6 => b'+',
            b'_' if bits == 6 => b'/',
            other => other,
        };
        let value = u32::try_from(alphabet.iter().position(|known| *known == byte)?).ok()?;
        held = (held << bits | value) & 0xffff;
        count += bits;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(held >> count & 0xff).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}

pub(crate) fn hex(text: &str) -> Option<String> {
    let digits: Option<Vec<u32>> =
        text.replace("\\x", "").chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect();
    let bytes: Option<Vec<u8>> = digits?
        .chunks(2)
        .map(|pair| u8::try_from(pair.iter().fold(0, |value, digit| value * 16 + digit)).ok())
        .collect();
    String::from_utf8(bytes?).ok()
}

fn tr(args: &[&str], input: &str) -> Option<String> {
    match args {
        ["-d", set] => {
            let set = members(set);
            Some(input.chars().filter(|c| !set.contains(c)).collect())
        }
        [from, to] if !from.starts_with('-') => {
            let (from, to) = (members(from), members(to));
            let swap = |c: char| match from.iter().position(|known| *known == c) {
                Some(at) => to.get(at).or(to.last()).copied().unwrap_or(c),
                None => c,
            };
            Some(input.chars().map(swap).collect())
        }
        _ => None,
    }
}

fn members(set: &str) -> Vec<char> {
    let set = set
        .replace("[:upper:]", "A-Z")
        .replace("[:lower:]", "a-z")
        .replace("[:digit:]", "0-9")
        .replace("[:space:]", " \t\n\r");
    let chars: Vec<char> = unescape(&set, false).0.chars().collect();
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(c) = chars.get(at).copied() {
        match (chars.get(at + 1), chars.get(at + 2).copied()) {
            (Some('-'), Some(last)) if c <= last && u32::from(last) - u32::from(c) < 256 => {
                all.extend(c..=last);
                at += 3;
            }
            _ => {
                all.push(c);
                at += 1;
            }
        }
    }
    all
}

/// `s/a/b/g` with plain text on both sides.
fn substitute(script: &str, input: &str) -> Option<String> {
    let rest = script.strip_prefix('s')?;
    let mark = rest.chars().next()?;
    let mut parts = rest.get(mark.len_utf8()..)?.split(mark);
    let (from, to, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let is_plain = |text: &str| !text.contains(['\\', '[', ']', '*', '.', '^', '$', '&']);
    if !is_plain(from) || !is_plain(to) || from.is_empty() {
        return None;
    }
    let of = |line: &str| if flags == "g" { line.replace(from, to) } else { line.replacen(from, to, 1) };
    matches!(flags, "" | "g").then(|| input.split_inclusive('\n').map(of).collect())
}
