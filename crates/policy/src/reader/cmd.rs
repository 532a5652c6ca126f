//! The reader of lines of `cmd.exe`: escapes, variables, what joins commands, `if`, `for`, `call`, `start` and `cmd /c`.

use std::collections::HashMap;

use super::{Certainty, Command, MAX_STEPS, Reading, Redirection, Span0, Word};

/// How many lines within each other are read.
const MAX_LINES: u32 = 6;
/// Values of variables that are longer are not filled in.
const MAX_VALUE: usize = 1 << 12;

/// Reads `text`, all of which stands at `span`; its first pipeline gets the number `pipeline`. Answers the last number.
pub(super) fn read_into(text: &str, span: Span0, pipeline: usize, reading: &mut Reading) -> usize {
    let mut lines = Lines { reading, span, pipeline, variables: HashMap::new(), depth: 0 };
    lines.read(text);
    lines.pipeline
}

/// Returns the words of a command line, without their quotes.
pub(super) fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

struct Lines<'r> {
    reading: &'r mut Reading,
    span: Span0,
    pipeline: usize,
    variables: HashMap<String, String>,
    depth: u32,
}

/// A piece of a line.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Word(String),
    Redirect(String),
    Pipe,
    /// `&`, `&&`, `||`, a line's end.
    End,
    Open,
    Close,
}

impl Lines<'_> {
    fn opaque(&mut self, why: &'static str) {
        self.reading.opaque.push((self.span.into(), why));
    }

    fn read(&mut self, text: &str) {
        if self.depth > MAX_LINES {
            self.reading.too_deep = true;
            return;
        }
        self.reading.steps += u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.reading.steps > MAX_STEPS {
            self.reading.too_deep = true;
            return;
        }
        self.depth += 1;
        let pieces = self.pieces(text.strip_prefix('@').unwrap_or(text));
        let mut words: Vec<String> = Vec::new();
        let mut redirections: Vec<Redirection> = Vec::new();
        let mut pieces = pieces.into_iter();
        self.pipeline += 1;
        let mut looping = false;
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Word(word) => words.push(word),
                Piece::Redirect(operator) => {
                    if let Some(Piece::Word(target)) = pieces.next() {
                        let harmless = target.starts_with('&') || target.eq_ignore_ascii_case("nul");
                        if !harmless {
                            redirections.push(Redirection { operator, target, certainty: Certainty::Sure });
                        }
                    }
                }
                Piece::Open if words.first().is_some_and(|word| word.eq_ignore_ascii_case("for")) => {
                    looping = true;
                    let mut set: Vec<String> = Vec::new();
                    for piece in pieces.by_ref() {
                        match piece {
                            Piece::Word(word) => set.push(word),
                            Piece::Close => break,
                            _ => set.push("&".to_owned()),
                        }
                    }
                    self.set_of(&words, &set.join(" "));
                    words.clear();
                }
                end => {
                    let piped = end == Piece::Pipe;
                    if looping && words.first().is_some_and(|word| word.eq_ignore_ascii_case("do")) {
                        words.remove(0);
                        looping = false;
                    }
                    self.simple(std::mem::take(&mut words), std::mem::take(&mut redirections));
                    if !piped {
                        self.pipeline += 1;
                    }
                }
            }
        }
        if looping && words.first().is_some_and(|word| word.eq_ignore_ascii_case("do")) {
            words.remove(0);
        }
        self.simple(words, redirections);
        self.depth -= 1;
    }

    /// `for /f %i in ('command')` runs the command.
    fn set_of(&mut self, words: &[String], set: &str) {
        let reads = words.iter().any(|word| word.eq_ignore_ascii_case("/f"));
        let command = set.trim().strip_prefix(['\'', '`']).map(|set| set.trim_end_matches(['\'', '`']));
        if let (true, Some(command)) = (reads, command) {
            self.read(command);
        }
    }

    fn pieces(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let (mut word, mut begun, mut quoted) = (String::new(), false, false);
        let mut chars = text.char_indices().peekable();
        let mut skip_to = 0;
        while let Some((at, c)) = chars.next() {
            if at < skip_to {
                continue;
            }
            let end = |word: &mut String, begun: &mut bool, pieces: &mut Vec<Piece>| {
                if *begun {
                    pieces.push(Piece::Word(std::mem::take(word)));
                }
                *begun = false;
            };
            match c {
                '"' => {
                    quoted = !quoted;
                    begun = true;
                }
                '%' | '!' => {
                    begun = true;
                    let rest = text.get(at + 1..).unwrap_or("");
                    let inside = rest.split_once(c).map(|(inside, _)| inside);
                    match inside.filter(|inside| {
                        !inside.is_empty() && inside.len() < 80 && !inside.contains(['\n', ' ', '"'])
                            || inside.contains(":~")
                    }) {
                        Some(inside) => {
                            skip_to = at + 1 + inside.len() + 1;
                            let filled = self.variable(inside, c);
                            word.push_str(&filled);
                        }
                        None => word.push(c),
                    }
                }
                _ if quoted => word.push(c),
                '^' => {
                    if let Some((_, next)) = chars.next()
                        && next != '\n'
                    {
                        begun = true;
                        word.push(next);
                    }
                }
                '\n' | '&' | '|' => {
                    end(&mut word, &mut begun, &mut pieces);
                    let doubled = c != '\n' && chars.next_if(|(_, next)| *next == c).is_some();
                    pieces.push(if c == '|' && !doubled { Piece::Pipe } else { Piece::End });
                }
                '(' | ')' if !begun || c == ')' => {
                    end(&mut word, &mut begun, &mut pieces);
                    pieces.push(if c == '(' { Piece::Open } else { Piece::Close });
                }
                '>' | '<' => {
                    if word.len() == 1 && word.chars().all(|c| c.is_ascii_digit()) {
                        word.clear();
                        begun = false;
                    }
                    end(&mut word, &mut begun, &mut pieces);
                    let doubled = chars.next_if(|(_, next)| *next == c).is_some();
                    pieces.push(Piece::Redirect(if doubled { format!("{c}{c}") } else { c.to_string() }));
                    if chars.next_if(|(_, next)| *next == '&').is_some() {
                        word.push('&');
                        begun = true;
                    }
                }
                c if c.is_whitespace() => end(&mut word, &mut begun, &mut pieces),
                // Before a program these are blanks.
                ',' | ';' | '='
                    if !begun && matches!(pieces.last(), None | Some(Piece::End | Piece::Pipe | Piece::Open)) => {}
                c => {
                    word.push(c);
                    begun = true;
                }
            }
        }
        if begun {
            pieces.push(Piece::Word(word));
        }
        pieces
    }

    /// `%name%`, `%name:~3,2%`, `%name:a=b%`.
    fn variable(&mut self, inside: &str, mark: char) -> String {
        let written = format!("{mark}{inside}{mark}");
        let (name, change) = inside.split_once(':').map_or((inside, None), |(name, change)| (name, Some(change)));
        let lower = name.to_lowercase();
        let value = match self.variables.get(&lower) {
            Some(value) => value.clone(),
            None => match lower.as_str() {
                "comspec" => r"C:\Windows\system32\cmd.exe".to_owned(),
                "windir" | "systemroot" => r"C:\Windows".to_owned(),
                "systemdrive" => "C:".to_owned(),
                "programdata" | "allusersprofile" => r"C:\ProgramData".to_owned(),
                "programfiles" => r"C:\Program Files".to_owned(),
                "public" => r"C:\Users\Public".to_owned(),
                "pathext" => ".COM;.EXE;.BAT;.CMD;.VBS;.VBE;.JS;.JSE;.WSF;.WSH;.MSC".to_owned(),
                "os" => "Windows_NT".to_owned(),
                _ => return written,
            },
        };
        let Some(change) = change else { return value };
        if let Some(range) = change.strip_prefix('~') {
            return slice(&value, range).unwrap_or(written);
        }
        match change.split_once('=') {
            Some((from, to)) if !from.is_empty() && value.len() * (1 + to.len()) < MAX_VALUE => value.replace(from, to),
            _ => written,
        }
    }

    /// Variables that the line itself set before.
    fn late(&mut self, word: &str) -> String {
        let mut filled = word.to_owned();
        for (name, value) in self.variables.iter().take(32) {
            for mark in ['%', '!'] {
                let written = format!("{mark}{name}{mark}");
                let lower = filled.to_ascii_lowercase();
                if let Some(at) = lower.find(&written)
                    && filled.len() + value.len() < MAX_VALUE
                {
                    filled.replace_range(at..at + written.len(), value);
                }
            }
        }
        filled
    }

    fn simple(&mut self, words: Vec<String>, redirections: Vec<Redirection>) {
        let late: Vec<String> =
            words.iter().map(|word| if word.contains(['%', '!']) { self.late(word) } else { word.clone() }).collect();
        // A variable may hold a program and what it is given.
        let mut words: Vec<String> = match late.first() {
            Some(first) if words.first() != Some(first) => {
                self::words(first).into_iter().chain(late.iter().skip(1).cloned()).collect()
            }
            _ => late,
        };
        loop {
            let Some(first) = words.first().map(|word| word.trim_start_matches('@').to_lowercase()) else {
                return self.emit(String::new(), &[], redirections);
            };
            match first.as_str() {
                "" if words.len() > 1 => {
                    words.remove(0);
                }
                "if" => {
                    let skipped = condition(&words);
                    words.drain(..skipped.min(words.len()));
                }
                "else" | "call" | "do" => {
                    words.remove(0);
                }
                "start" => {
                    words.remove(0);
                    started(&mut words);
                }
                "rem" | "goto" | "exit" | "setlocal" | "endlocal" | "title" | "color" | "cls" | "pause" | "shift" => {
                    return self.emit(String::new(), &[], redirections);
                }
                label if label.starts_with(':') => return,
                "set" => return self.set(&words, redirections),
                "for" => {
                    self.opaque("is control flow that is not read");
                    return;
                }
                _ => break,
            }
            if words.is_empty() {
                return;
            }
        }
        let Some((program, args)) = words.split_first() else { return };
        let program = program.trim_start_matches('@').to_owned();
        let (_, name) = crate::naming::names(&program);
        if name == "cmd" {
            let at = args.iter().position(|word| matches!(word.to_lowercase().as_str(), "/c" | "/k" | "/r"));
            if let Some(rest) = at.and_then(|at| args.get(at + 1..)) {
                let line = rest.join(" ");
                self.emit(program.clone(), args, redirections);
                return self.read(&line);
            }
        }
        if program.starts_with(['%', '!']) {
            self.opaque("calls what is filled in when it runs");
        }
        self.emit(program, args, redirections);
    }

    fn set(&mut self, words: &[String], redirections: Vec<Redirection>) {
        let rest = words.get(1..).unwrap_or(&[]).join(" ");
        if rest.starts_with('/') {
            self.variables.clear();
            return self.emit(String::new(), &[], redirections);
        }
        if let Some((name, value)) = rest.split_once('=') {
            self.variables.insert(name.trim().to_lowercase(), value.chars().take(MAX_VALUE).collect());
            let assignments = vec![format!("{}={value}", name.trim().to_uppercase())];
            let (span, pipeline) = (self.span, self.pipeline);
            self.reading.commands.push(Command { assignments, redirections, span, pipeline, ..Command::default() });
        } else {
            self.emit("set".to_owned(), words.get(1..).unwrap_or(&[]), redirections);
        }
    }

    fn emit(&mut self, program: String, args: &[String], redirections: Vec<Redirection>) {
        if program.is_empty() && redirections.is_empty() {
            return;
        }
        let (_, name) = crate::naming::names(&program);
        let builtin = BUILTINS.contains(&name.as_str());
        let (program, glued) = glued(&program, &name);
        let word = |text: &String| {
            let text = if builtin { switch(text, &name)? } else { text.clone() };
            let open = text.contains("%%")
                || (text.starts_with(['%', '!']) && text.trim_start_matches(['%', '!', '~']).chars().count() <= 2);
            let certainty = match () {
                () if open => Certainty::Unknown,
                () if text.contains(['%', '!']) => Certainty::Perhaps,
                () => Certainty::Sure,
            };
            let glob = text.contains(['*', '?']);
            Some(Word { text, glob, certainty, span: self.span, items: Vec::new() })
        };
        let args: Vec<Word> = glued.iter().chain(args).filter_map(word).collect();
        let (span, pipeline) = (self.span, self.pipeline);
        self.reading.commands.push(Command { program, args, redirections, span, pipeline, ..Command::default() });
    }
}

/// Commands of `cmd.exe` that PowerShell has names for as well, with switches of its own.
const BUILTINS: &[&str] = &[
    "del", "erase", "rd", "rmdir", "copy", "move", "dir", "md", "mkdir", "type", "ren", "rename", "cd", "chdir",
    "pushd", "popd", "echo", "ver", "vol", "mklink", "assoc", "ftype", "date", "time", "path", "prompt", "verify",
];

/// `/s` is told as PowerShell tells it; other switches of these commands change nothing that matters.
fn switch(text: &str, name: &str) -> Option<String> {
    let is_switch = text.len() > 1
        && text.starts_with('/')
        && !text.get(1..).unwrap_or("").contains(['/', '\\'])
        && text.len() < 12;
    if !is_switch || matches!(name, "echo" | "mklink") {
        return Some(text.to_owned());
    }
    match text.get(1..2).unwrap_or("").to_lowercase().as_str() {
        "s" if matches!(name, "del" | "erase" | "rd" | "rmdir" | "dir") => Some("-Recurse".to_owned()),
        "q" | "f" | "y" => Some("-Force".to_owned()),
        _ => None,
    }
}

/// `echo.x`, `cd\`, `dir/s`: a command of `cmd.exe` and what is glued to it.
fn glued(program: &str, name: &str) -> (String, Option<String>) {
    if BUILTINS.contains(&name) {
        return (program.to_owned(), None);
    }
    let end = program.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(program.len());
    let (head, tail) = program.split_at(end);
    let is_builtin = BUILTINS.contains(&head.to_lowercase().as_str());
    let parts = is_builtin && tail.starts_with(['.', '\\', '/', ':', '(', '+']);
    if parts { (head.to_owned(), Some(tail.to_owned())) } else { (program.to_owned(), None) }
}

/// How many words `if` and its condition take.
fn condition(words: &[String]) -> usize {
    let lower = |at: usize| words.get(at).map(|word| word.to_lowercase()).unwrap_or_default();
    let mut at = 1;
    while matches!(lower(at).as_str(), "/i" | "not") {
        at += 1;
    }
    match lower(at).as_str() {
        "exist" | "defined" | "errorlevel" | "cmdextversion" => at + 2,
        word if word.contains("==") => at + 1 + usize::from(word.ends_with("==") && word.len() > 2),
        _ => at + 3,
    }
}

/// Takes the title and the switches of `start`.
fn started(words: &mut Vec<String>) {
    let mut first = true;
    while let Some(word) = words.first() {
        let title = first && (word.is_empty() || word.contains(' ')) && words.len() > 1;
        let switch = word.starts_with('/') && words.len() > 1;
        if !title && !switch {
            return;
        }
        first = false;
        let takes = word.eq_ignore_ascii_case("/d");
        words.remove(0);
        if takes && words.len() > 1 {
            words.remove(0);
        }
    }
}

/// `3,2`, `-3`, `0,-1` of a value.
fn slice(value: &str, range: &str) -> Option<String> {
    let chars: Vec<char> = value.chars().collect();
    let length = i64::try_from(chars.len()).ok()?;
    let (from, count) = range.split_once(',').map_or((range, None), |(from, count)| (from, Some(count)));
    let from: i64 = from.trim().parse().ok()?;
    let from = if from < 0 { (length + from).max(0) } else { from.min(length) };
    let to = match count.map(str::trim).map(str::parse::<i64>) {
        None => length,
        Some(Ok(count)) if count < 0 => (length + count).max(from),
        Some(Ok(count)) => from.saturating_add(count).min(length),
        Some(Err(_)) => return None,
    };
    Some(chars.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)?.iter().collect())
}
