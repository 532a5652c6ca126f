//! Types and objects of .NET: what a text does with them is either computed, where it only makes text, or told as a
//! command whose name is `[type]::method` or `.method`, so that program knowledge can say what it does.

use super::lex::plain;
use super::scan::Run;
use super::value::{self, Block, Value, join, list};
use crate::reader::{Certainty, Command, Word};

/// Methods that, called on a text, a number, a list or a table, only make another value.
const ON_DATA_ONLY: &[&str] =
    &["invoke", "delete", "moveto", "copyto", "create", "start", "kill", "invokereturnasis", "foreach", "where"];

/// Returns a type's name as it is usually written, in lower case.
pub(super) fn short(name: &str) -> String {
    let lower: String = name.to_lowercase().chars().filter(|c| *c != '`' && !plain(*c).is_whitespace()).collect();
    // `[Name, Assembly, Version=…]` is the type as well.
    let lower = if lower.contains("[") { lower } else { lower.split(',').next().unwrap_or("").to_owned() };
    let stripped =
        ["system.management.automation.", "system."].into_iter().find_map(|prefix| lower.strip_prefix(prefix));
    stripped.unwrap_or(&lower).to_owned()
}

/// Returns what PowerShell itself puts into a variable.
pub(super) fn automatic(name: &str) -> Option<Value> {
    let environment = name.strip_prefix("env:");
    let text = match environment.unwrap_or(name) {
        "true" => return Some(Value::Truth(true)),
        "false" => return Some(Value::Truth(false)),
        "null" => return Some(Value::Null),
        "ofs" => " ",
        "shellid" => "Microsoft.PowerShell",
        "verbosepreference" | "debugpreference" | "informationpreference" | "warningpreference" => "SilentlyContinue",
        "erroractionpreference" | "progresspreference" => "Continue",
        "confirmpreference" => "High",
        "pshome" => r"C:\Windows\System32\WindowsPowerShell\v1.0",
        "comspec" => r"C:\WINDOWS\system32\cmd.exe",
        "windir" | "systemroot" => r"C:\Windows",
        "systemdrive" | "homedrive" => "C:",
        "public" => r"C:\Users\Public",
        "programdata" | "allusersprofile" => r"C:\ProgramData",
        "programfiles" | "programw6432" => r"C:\Program Files",
        "programfiles(x86)" => r"C:\Program Files (x86)",
        "psmodulepath" => r"C:\Program Files\WindowsPowerShell\Modules",
        "os" => "Windows_NT",
        "home" | "userprofile" | "pwd" | "profile" | "psscriptroot" | "appdata" | "localappdata" | "temp" | "tmp"
        | "onedrive" | "homepath" | "username" | "computername" | "userdomain" | "logonserver" | "host"
        | "executioncontext" => {
            let written =
                if environment.is_some() { format!("$env:{}", environment.unwrap_or("")) } else { format!("${name}") };
            return Some(Value::Text(written, Certainty::Perhaps));
        }
        _ => return None,
    };
    Some(Value::Text(text.to_owned(), Certainty::Perhaps))
}

pub(super) fn static_property(of: &str, member: &str) -> Value {
    let member = member.to_lowercase();
    match (of, member.as_str()) {
        ("text.encoding", _) => Value::Object(format!("encoding:{member}")),
        ("string", "empty") => Value::sure(""),
        ("environment", "newline") => Value::sure("\n"),
        ("io.path", "directoryseparatorchar") => Value::sure("\\"),
        _ => Value::unknown(format!("[{of}]::{member}")),
    }
}

/// What a property holds. Reading one does nothing that matters here.
pub(super) fn property(of: &Value, member: &str) -> Value {
    let member = member.to_lowercase();
    let written = || Value::unknown(format!("{}.{member}", of.text().0));
    match (of, member.as_str()) {
        (Value::Table(pairs), _) => {
            let found = pairs.iter().find(|(name, _)| name.eq_ignore_ascii_case(&member));
            found.map_or(Value::Null, |(_, value)| value.clone())
        }
        (Value::Text(text, Certainty::Sure), "length") => {
            i64::try_from(text.chars().count()).map_or_else(|_| written(), Value::Number)
        }
        (Value::List(items), "length" | "count") => {
            i64::try_from(items.len()).map_or_else(|_| written(), Value::Number)
        }
        // What `Get-Item` and its like answer is told by its path here, and so are its names.
        (
            Value::Text(_, Certainty::Perhaps),
            "fullname" | "path" | "pspath" | "providerpath" | "value" | "psiscontainer" | "target" | "source"
            | "definition",
        ) => of.clone(),
        (Value::Named(_), "name" | "definition" | "source" | "path") => of.clone(),
        (Value::Text(text, Certainty::Perhaps), "directory" | "directoryname" | "psparentpath") => {
            let parent = text.rfind(['/', '\\']).and_then(|at| text.get(..at)).unwrap_or(text);
            Value::Text(parent.to_owned(), Certainty::Perhaps)
        }
        _ => written(),
    }
}

/// What a value becomes as another type, where that is only another form of it.
pub(super) fn cast(of: &str, value: &Value) -> Value {
    let of = short(of.trim_matches(['[', ']']));
    let each = |to: fn(&Value) -> Option<Value>| {
        let items: Option<Vec<Value>> = value.items().iter().map(to).collect();
        items.map_or_else(|| Value::unknown("@(…)"), list)
    };
    match of.as_str() {
        "char" => character(value).unwrap_or_else(|| Value::unknown("$(…)")),
        "char[]" => match value {
            Value::Text(text, certainty) => {
                list(text.chars().map(|c| Value::Text(c.to_string(), *certainty)).collect())
            }
            _ => each(character),
        },
        "string" => {
            let (text, certainty) = value.text();
            Value::Text(text, certainty)
        }
        "string[]" | "object[]" | "array" | "byte[]" | "int[]" => match value {
            Value::Text(text, Certainty::Sure)
                if matches!(of.as_str(), "byte[]" | "int[]") && text.chars().count() == 1 =>
            {
                list(text.chars().map(|c| Value::Number(i64::from(u32::from(c)))).collect())
            }
            other => list(other.items()),
        },
        "int" | "int32" | "int64" | "long" | "byte" | "uint32" | "int16" => match value {
            Value::Text(text, Certainty::Sure) if text.chars().count() == 1 && value.number().is_none() => {
                text.chars().next().map_or(Value::Null, |c| Value::Number(i64::from(u32::from(c))))
            }
            other => other.number().map_or_else(|| Value::unknown("$(…)"), Value::Number),
        },
        "type" | "reflection.typeinfo" => Value::Type(short(&value.text().0)),
        "void" => Value::Null,
        "scriptblock" => value.clone(),
        "bool" | "switch" => Value::unknown("$(…)"),
        _ => value.clone(),
    }
}

fn character(value: &Value) -> Option<Value> {
    let c = match value {
        Value::Text(text, Certainty::Sure) if text.chars().count() == 1 => text.chars().next()?,
        other => char::from_u32(u32::try_from(other.number()?).ok()?)?,
    };
    Some(Value::sure(c.to_string()))
}

/// Types whose making from a text reaches for something outside.
const REACHING: &[&str] = &["wmi", "wmiclass", "wmisearcher", "adsi", "adsisearcher", "cimclass", "cimsession"];

impl Run<'_, '_, '_> {
    pub(super) fn cast(&mut self, to: &str, value: Value, start: usize) -> Value {
        if REACHING.contains(&to) {
            self.told(format!("[{to}]"), std::slice::from_ref(&value), start);
            return Value::Object(format!("{to}:{}", value.text().0));
        }
        if to == "scriptblock" || to == "powershell" {
            return self.block_of(&value, start);
        }
        cast(to, &value)
    }

    /// A call is told as a command.
    fn told(&mut self, program: String, given: &[Value], start: usize) {
        let span = self.span(start);
        let word = |value: &Value| {
            let items = if let Value::List(items) = value {
                items.iter().map(|item| one_word(item, span)).collect()
            } else {
                Vec::new()
            };
            Word { items, ..one_word(value, span) }
        };
        let args = given.iter().map(word).collect();
        let pipeline = self.world.pipelines;
        self.emit(Command { program, args, span, pipeline, ..Command::default() });
    }

    /// Text that becomes a block is looked at as one.
    fn block_of(&mut self, value: &Value, start: usize) -> Value {
        match value {
            Value::Block(_) => value.clone(),
            other => match other.known() {
                Some(text) => {
                    let span = self.span(start);
                    self.code(&text, span);
                    Value::Block(Block { source: text.into(), span })
                }
                None => {
                    self.opaque(start, "makes a script of what is filled in when it runs");
                    Value::unknown("{ … }")
                }
            },
        }
    }

    /// Runs a text or a block.
    pub(super) fn run_value(&mut self, value: &Value, start: usize) -> Value {
        match value {
            Value::Block(block) => self.again(block),
            Value::List(items) => {
                for item in items.iter().take(64) {
                    self.run_value(item, start);
                }
                Value::unknown("$(…)")
            }
            other => match other.known() {
                Some(text) => {
                    let span = self.span(start);
                    self.code(&text, span)
                }
                None => {
                    self.opaque(start, "runs a text that is filled in when it runs");
                    Value::unknown("$(…)")
                }
            },
        }
    }

    pub(super) fn call_static(&mut self, of: &str, member: &str, given: &[Value], start: usize) -> Value {
        let method = member.to_lowercase();
        let first = given.first();
        let made = match (of, method.as_str()) {
            ("scriptblock", "create") => return self.block_of(first.unwrap_or(&Value::Null), start),
            ("convert", "frombase64string") => first.and_then(Value::known).and_then(|text| decoded(&text)).map(bytes),
            ("convert", "tobase64string") => None,
            ("convert", "toint32" | "toint16" | "tobyte" | "toint64" | "touint32" | "tochar") => {
                let base = given
                    .get(1)
                    .and_then(Value::number)
                    .and_then(|base| u32::try_from(base).ok())
                    .filter(|base| (2..=36).contains(base));
                let text = first.and_then(Value::known);
                let number = match base {
                    Some(base) => {
                        text.and_then(|text| i64::from_str_radix(&text.to_lowercase().replace("0x", ""), base).ok())
                    }
                    None => first.and_then(Value::number),
                };
                let number = number.map(Value::Number);
                if method == "tochar" { number.as_ref().and_then(character) } else { number }
            }
            ("char", "convertfromutf32" | "parse") | ("char", "tostring") => first.and_then(character),
            ("string" | "io.path", "concat") => Some(text_of(given, "")),
            ("string", "join") => {
                let between = first.map(|first| first.text().0).unwrap_or_default();
                let rest = given.get(1..).unwrap_or(&[]);
                let items: Vec<Value> = rest.iter().flat_map(Value::items).collect();
                Some(text_of(&items, &between))
            }
            ("string", "new") | ("string", "copy") => {
                Some(text_of(&given.iter().flat_map(Value::items).collect::<Vec<_>>(), ""))
            }
            ("string", "format") => {
                let rest: Vec<Value> = given.get(1..).unwrap_or(&[]).iter().flat_map(Value::items).collect();
                Some(value::format(first.unwrap_or(&Value::Null), &Value::List(rest)))
            }
            ("io.path", "combine") => Some(text_of(given, "\\")),
            ("environment", "getenvironmentvariable" | "expandenvironmentvariables") => {
                first.and_then(Value::known).map(|name| {
                    automatic(&format!("env:{}", name.trim_matches('%').to_lowercase()))
                        .unwrap_or_else(|| Value::unknown(format!("$env:{name}")))
                })
            }
            ("array", "reverse") => {
                if let (Some(Value::List(items)), Some(target)) = (first, self.targets.last().cloned()) {
                    let mut items = items.clone();
                    items.reverse();
                    self.give(&target.name, Value::List(items));
                }
                Some(Value::Null)
            }
            ("regex", "matches") => backwards(given),
            ("regex", "replace" | "split") => {
                let rest = Value::List(given.get(1..).unwrap_or(&[]).to_vec());
                first.map(|first| value::binary(&method, first, &rest))
            }
            ("type", "gettype") => first.and_then(Value::known).map(|name| Value::Type(short(&name))),
            (of, "new") if of.starts_with("text.") && of.ends_with("encoding") => Some(Value::Object(encoding(of))),
            (
                "collections.arraylist" | "collections.generic.list[string]" | "collections.generic.list[object]",
                "new",
            ) => Some(Value::List(Vec::new())),
            _ => None,
        };
        if let Some(made) = made {
            return made;
        }
        for block in
            given.iter().filter_map(|value| if let Value::Block(block) = value { Some(block.clone()) } else { None })
        {
            self.again(&block);
        }
        self.told(format!("[{of}]::{method}"), given, start);
        if method == "new" { Value::Object(of.to_owned()) } else { Value::unknown(format!("[{of}]::{method}(…)")) }
    }

    pub(super) fn call_method(&mut self, of: &Value, member: &str, given: &[Value], start: usize) -> Value {
        let method = member.to_lowercase();
        let first = given.first();
        match (of, method.as_str()) {
            (Value::Block(_), m) if m.starts_with("invoke") => return self.run_value(of, start),
            (Value::Named(name), m) if m.starts_with("invoke") => {
                let program = name.clone();
                self.told(program, given, start);
                return Value::unknown("$(…)");
            }
            (_, "invokescript" | "newscriptblock" | "addscript" | "createscriptblock") => {
                let script = given
                    .iter()
                    .find(|value| !matches!(value, Value::Truth(_) | Value::Number(_)))
                    .unwrap_or(&Value::Null);
                return if method == "newscriptblock" {
                    self.block_of(script, start)
                } else {
                    self.run_value(script, start)
                };
            }
            (_, "getcommand" | "getcmdlet" | "getcommands") => {
                return first.and_then(Value::known).map_or_else(|| Value::unknown("$(…)"), Value::Named);
            }
            (
                Value::Block(_) | Value::Null | Value::Truth(_),
                "tostring" | "equals" | "gethashcode" | "gettype" | "getnewclosure" | "getsteppablepipeline",
            ) => {
                return if method == "getnewclosure" { of.clone() } else { Value::unknown("$(…)") };
            }
            (Value::Object(name), "getstring") if name.starts_with("encoding:") => {
                let items = given.first().map(Value::items).unwrap_or_default();
                return characters(&items, name).map_or_else(|| Value::unknown("$(…)"), Value::sure);
            }
            (Value::Object(name), "getbytes") if name.starts_with("encoding:") => return Value::unknown("$(…)"),
            (Value::List(items), "foreach" | "where") => {
                if let Some(Value::Block(block)) = first {
                    let items = items.clone();
                    return self.for_each(&items, &block.clone(), method == "foreach");
                }
                return Value::unknown("$(…)");
            }
            (Value::List(items), "add" | "addrange") => {
                let mut items = items.clone();
                items.extend(given.iter().flat_map(Value::items));
                if let Some(target) = self.targets.last().cloned() {
                    self.give(&target.name, list(items));
                }
                return Value::Null;
            }
            (Value::Text(text, Certainty::Sure), m) if !ON_DATA_ONLY.contains(&m) => {
                return on_text(text, m, given).unwrap_or_else(|| Value::unknown("$(…)"));
            }
            (Value::List(_) | Value::Table(_) | Value::Number(_) | Value::Truth(_), m)
                if !ON_DATA_ONLY.contains(&m) =>
            {
                return match (m, of) {
                    ("tostring", _) => Value::sure(of.text().0),
                    ("getenumerator" | "toarray", _) => of.clone(),
                    _ => Value::unknown("$(…)"),
                };
            }
            _ => {}
        }
        for block in
            given.iter().filter_map(|value| if let Value::Block(block) = value { Some(block.clone()) } else { None })
        {
            self.again(&block);
        }
        let mut words = vec![of.clone()];
        words.extend(given.iter().cloned());
        self.told(format!(".{method}"), &words, start);
        match (of, method.as_str()) {
            (Value::Text(text, Certainty::Perhaps), _) => on_text(text, &method, given).map_or_else(
                || Value::unknown(format!("{text}.{method}(…)")),
                |made| Value::Text(made.text().0, Certainty::Perhaps),
            ),
            _ => Value::unknown(format!("{}.{method}(…)", of.text().0)),
        }
    }

    /// Reads a block for each item, as long as there are few.
    pub(super) fn for_each(&mut self, items: &[Value], block: &Block, keep: bool) -> Value {
        const MOST: usize = 96;
        if items.len() > MOST {
            return Value::unknown("$(…)");
        }
        let before = self.world.variables.remove("_");
        let mut made = Vec::new();
        for item in items {
            self.world.variables.insert("_".to_owned(), item.clone());
            self.world.variables.insert("psitem".to_owned(), item.clone());
            made.extend(self.again(block).items());
        }
        self.world.variables.remove("_");
        self.world.variables.remove("psitem");
        if let Some(before) = before {
            self.world.variables.insert("_".to_owned(), before);
        }
        if keep { list(made) } else { Value::unknown("$(…)") }
    }
}

pub(super) fn one_word(value: &Value, span: crate::reader::Span0) -> Word {
    let (text, certainty) = value.argument();
    let glob = text.contains(['*', '?', '[']);
    Word { text, glob, certainty, span, items: Vec::new() }
}

fn text_of(items: &[Value], between: &str) -> Value {
    let (text, certainty) = join(items, between);
    Value::Text(text, certainty)
}

fn bytes(bytes: Vec<u8>) -> Value {
    list(bytes.into_iter().map(|byte| Value::Number(i64::from(byte))).collect())
}

/// `[regex]::Matches('cba', '.', 'RightToLeft')` is `abc`, letter by letter.
fn backwards(given: &[Value]) -> Option<Value> {
    let text = given.first()?.known()?;
    let pattern = given.get(1)?.known()?;
    let to_left = given.get(2).is_some_and(|options| options.text().0.to_lowercase().contains("righttoleft"));
    let mut letters: Vec<Value> =
        (pattern == ".").then(|| text.chars().map(|c| Value::sure(c.to_string())).collect())?;
    if to_left {
        letters.reverse();
    }
    Some(list(letters))
}

fn encoding(of: &str) -> String {
    let name = of.trim_start_matches("text.").trim_end_matches("encoding");
    format!("encoding:{name}")
}

fn characters(items: &[Value], encoding: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = items.iter().map(|item| u8::try_from(item.number()?).ok()).collect();
    let bytes = bytes?;
    Some(match encoding {
        "encoding:unicode" => wide(&bytes, u16::from_le_bytes),
        "encoding:bigendianunicode" => wide(&bytes, u16::from_be_bytes),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    })
}

/// Returns text of two bytes a character.
pub(super) fn wide(bytes: &[u8], order: fn([u8; 2]) -> u16) -> String {
    let pairs = bytes.chunks_exact(2).filter_map(|pair| <[u8; 2]>::try_from(pair).ok()).map(order);
    char::decode_utf16(pairs).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// Returns what base64 holds; none where it is none. As .NET does, blanks are ignored.
pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.extend(u8::try_from((bits >> held) & 0xFF).ok());
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

/// What methods of texts make.
fn on_text(text: &str, method: &str, given: &[Value]) -> Option<Value> {
    let first = given.first();
    let word = |index: usize| given.get(index).and_then(Value::known);
    let count = |index: usize| given.get(index).and_then(Value::number).and_then(|n| usize::try_from(n).ok());
    let made = match method {
        "replace" => {
            let (from, to) = (word(0)?, word(1)?);
            if from.is_empty() || text.len().saturating_mul(1 + to.len()) > value::MAX_TEXT {
                return None;
            }
            text.replace(&from, &to)
        }
        "substring" => {
            let skipped = text.chars().skip(count(0)?);
            match given.get(1) {
                Some(_) => skipped.take(count(1)?).collect(),
                None => skipped.collect(),
            }
        }
        "remove" => {
            let from = count(0)?;
            let upto = match given.get(1) {
                Some(_) => from.saturating_add(count(1)?),
                None => usize::MAX,
            };
            text.chars().enumerate().filter(|(index, _)| *index < from || *index >= upto).map(|(_, c)| c).collect()
        }
        "insert" => {
            let (at, new) = (count(0)?, word(1)?);
            let head: String = text.chars().take(at).collect();
            let tail: String = text.chars().skip(at).collect();
            head + &new + &tail
        }
        "tolower" | "tolowerinvariant" => text.to_lowercase(),
        "toupper" | "toupperinvariant" => text.to_uppercase(),
        "tostring" | "normalize" | "clone" => text.to_owned(),
        "trim" | "trimstart" | "trimend" => {
            let of: Vec<char> = match first {
                Some(value) => value.text().0.chars().collect(),
                None => vec![' ', '\t', '\n', '\r'],
            };
            let front = if method == "trimend" { text } else { text.trim_start_matches(of.as_slice()) };
            let back = if method == "trimstart" { front } else { front.trim_end_matches(of.as_slice()) };
            back.to_owned()
        }
        "tochararray" | "getenumerator" => {
            return Some(list(text.chars().map(|c| Value::sure(c.to_string())).collect()));
        }
        "split" => {
            let by = word(0)?;
            if by.is_empty() {
                return None;
            }
            let parts = text.split(|c| by.contains(c)).map(Value::sure);
            return Some(list(parts.collect()));
        }
        "chars" | "get_chars" => return text.chars().nth(count(0)?).map(|c| Value::sure(c.to_string())),
        "padleft" | "padright" => return None,
        _ => return None,
    };
    Some(Value::sure(made))
}
