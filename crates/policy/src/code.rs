//! Code that stands in a command, in languages other than the shell's: what it may run, read, write and delete.
//!
//! A conservative scan, no reading: code is harmless only when every name in it is known to be. Strings in code that can run
//! programs are looked at as if they were run.

mod awk;
mod sed;
mod tokens;

use crate::facts::Effect;
use crate::knowledge::Language;
use crate::shell::simulate;

use self::tokens::{Token, tokens};

/// So many texts of one code are looked at as commands.
const MAX_TEXTS: usize = 24;

/// What code may do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Texts that it may give to a shell.
    pub(crate) scripts: Vec<String>,
    /// What it does, and to which path or address.
    pub(crate) does: Vec<(Effect, String)>,
}

impl Found {
    fn add(&mut self, effect: Effect, target: &str) {
        let fact = (effect, target.to_owned());
        if self.does.len() < MAX_TEXTS && !self.does.contains(&fact) {
            self.does.push(fact);
        }
    }

    fn script(&mut self, text: &str) {
        if self.scripts.len() < MAX_TEXTS && !text.trim().is_empty() && !self.scripts.iter().any(|known| known == text)
        {
            self.scripts.push(text.to_owned());
        }
    }
}

/// Returns what `code` may do. Work is linear in it.
pub(crate) fn scan(code: &str, language: Language) -> Found {
    match language {
        Language::Awk => awk::scan(code),
        Language::Sed => sed::scan(code),
        Language::Make => make(code),
        Language::Sql => sql(code),
        _ => general(code, language),
    }
}

/// Names that run programs or code.
const RUNS: &[&str] = &[
    "system",
    "popen",
    "popen2",
    "Popen",
    "run",
    "call",
    "check_call",
    "check_output",
    "getoutput",
    "getstatusoutput",
    "exec",
    "execl",
    "execle",
    "execlp",
    "execv",
    "execve",
    "execvp",
    "execvpe",
    "spawn",
    "spawnl",
    "spawnv",
    "spawnlp",
    "spawnvp",
    "posix_spawn",
    "eval",
    "compile",
    "__import__",
    "import_module",
    "ctypes",
    "pty",
    "qx",
    "fork",
    "require",
    "do",
    "open3",
    "Open3",
    "popen3",
    "capture2",
    "capture3",
    "instance_eval",
    "class_eval",
    "execSync",
    "spawnSync",
    "execFile",
    "execFileSync",
    "Function",
    "vm",
    "child_process",
    "shell_exec",
    "passthru",
    "proc_open",
    "pcntl_exec",
    "assert",
    "execute",
    "loadstring",
    "load",
    "dofile",
    "loadfile",
    "backtick",
    "Exec",
    "ProcessBuilder",
    "Runtime",
    "syscall",
    "dlopen",
    "cmd",
    "shell",
    "sh",
    "subprocess",
    "Process",
    "start_process",
    "command",
];
const DELETES: &[&str] = &[
    "rmtree",
    "unlink",
    "remove",
    "rmdir",
    "removedirs",
    "rm",
    "rmSync",
    "rmdirSync",
    "unlinkSync",
    "rm_rf",
    "rm_r",
    "rm_f",
    "delete",
    "truncate",
    "remove_tree",
    "rmtree_",
    "remove_dir",
    "remove_entry_secure",
    "delete_if",
    "removeSync",
    "remove_dir_all",
];
const WRITES: &[&str] = &[
    "write",
    "writelines",
    "write_text",
    "write_bytes",
    "writeFileSync",
    "writeFile",
    "appendFileSync",
    "appendFile",
    "file_put_contents",
    "fwrite",
    "fputs",
    "copy",
    "copyfile",
    "copytree",
    "copy2",
    "copyFileSync",
    "rename",
    "replace",
    "renames",
    "renameSync",
    "move",
    "mv",
    "cp",
    "chmod",
    "chown",
    "symlink",
    "link",
    "mkdir",
    "makedirs",
    "touch",
    "createWriteStream",
    "puts_to",
    "utime",
    "mknod",
    "mkfifo",
    "print_to",
    "syswrite",
];
const TALKS: &[&str] = &[
    "socket",
    "connect",
    "create_connection",
    "urlopen",
    "urlretrieve",
    "requests",
    "urllib",
    "http",
    "https",
    "httplib",
    "fetch",
    "Net",
    "net",
    "TCPSocket",
    "UDPSocket",
    "TCPServer",
    "fsockopen",
    "stream_socket_client",
    "IO",
    "Socket",
    "LWP",
    "HTTP",
    "curl_exec",
    "ftplib",
    "smtplib",
    "telnetlib",
    "paramiko",
    "open_uri",
    "URI",
    "dgram",
    "tls",
    "WebSocket",
    "listen",
    "bind",
    "createServer",
    "getaddrinfo",
    "HTTPServer",
    "http.server",
    "SimpleHTTPServer",
    "INET",
];
const DECODES: &[&str] = &[
    "b64decode",
    "decodebytes",
    "a85decode",
    "b32decode",
    "fromhex",
    "unhexlify",
    "base64_decode",
    "decode64",
    "unpack1",
    "unpack",
    "atob",
    "from",
    "hex2bin",
    "pack",
    "decode_base64",
    "strict_decode64",
    "decode",
];

/// Names that do nothing but compute and print.
const HARMLESS: &[&str] = &[
    "print",
    "println",
    "puts",
    "p",
    "pp",
    "printf",
    "say",
    "echo",
    "console",
    "log",
    "join",
    "split",
    "len",
    "length",
    "size",
    "count",
    "str",
    "int",
    "float",
    "bool",
    "list",
    "dict",
    "set",
    "tuple",
    "sum",
    "min",
    "max",
    "sorted",
    "sort",
    "reversed",
    "reverse",
    "range",
    "enumerate",
    "zip",
    "map",
    "filter",
    "any",
    "all",
    "abs",
    "round",
    "repr",
    "format",
    "upper",
    "lower",
    "strip",
    "lstrip",
    "rstrip",
    "startswith",
    "endswith",
    "find",
    "index",
    "keys",
    "values",
    "items",
    "append",
    "extend",
    "get",
    "pop",
    "insert",
    "isinstance",
    "type",
    "hex",
    "oct",
    "bin",
    "ord",
    "chr",
    "sys",
    "version",
    "version_info",
    "platform",
    "stdin",
    "stdout",
    "stderr",
    "argv",
    "readline",
    "readlines",
    "read",
    "json",
    "loads",
    "dumps",
    "load_",
    "math",
    "sqrt",
    "floor",
    "ceil",
    "pi",
    "log2",
    "log10",
    "sin",
    "cos",
    "tan",
    "pow",
    "exp",
    "time",
    "datetime",
    "now",
    "today",
    "strftime",
    "isoformat",
    "random",
    "randint",
    "choice",
    "re",
    "match",
    "search",
    "sub",
    "findall",
    "group",
    "groups",
    "gsub",
    "scan",
    "string",
    "itertools",
    "collections",
    "Counter",
    "defaultdict",
    "functools",
    "reduce",
    "decimal",
    "fractions",
    "statistics",
    "mean",
    "median",
    "uuid",
    "uuid4",
    "hashlib",
    "sha256",
    "sha1",
    "md5",
    "hexdigest",
    "digest",
    "encode",
    "import",
    "from",
    "as",
    "if",
    "else",
    "elif",
    "elsif",
    "unless",
    "for",
    "foreach",
    "while",
    "until",
    "in",
    "not",
    "and",
    "or",
    "is",
    "def",
    "return",
    "lambda",
    "yield",
    "class",
    "try",
    "except",
    "finally",
    "raise",
    "with",
    "pass",
    "break",
    "continue",
    "next",
    "last",
    "del",
    "True",
    "False",
    "None",
    "true",
    "false",
    "nil",
    "null",
    "undefined",
    "my",
    "our",
    "local",
    "var",
    "let",
    "const",
    "function",
    "then",
    "end",
    "new",
    "typeof",
    "use",
    "strict",
    "warnings",
    "utf8",
    "uc",
    "lc",
    "ucfirst",
    "lcfirst",
    "substr",
    "sprintf",
    "chomp",
    "chop",
    "push",
    "shift",
    "unshift",
    "splice",
    "grep",
    "scalar",
    "defined",
    "exists",
    "wantarray",
    "local_",
    "qw",
    "q",
    "qq",
    "tr",
    "y",
    "s",
    "m",
    "BEGIN",
    "END",
    "exit",
    "die",
    "warn",
    "each",
    "each_with_index",
    "inject",
    "select",
    "reject",
    "first",
    "to_s",
    "to_i",
    "to_f",
    "to_a",
    "uniq",
    "flatten",
    "compact",
    "sum_",
    "strip_",
    "Math",
    "JSON",
    "parse",
    "stringify",
    "Object",
    "Array",
    "String",
    "Number",
    "Date",
    "process",
    "versions",
    "arch",
    "cwd_",
    "parseInt",
    "toString",
    "toUpperCase",
    "toLowerCase",
    "trim",
    "slice",
    "includes",
    "indexOf",
    "concat",
    "forEach",
    "padStart",
    "repeat",
    "floor_",
    "tostring",
    "tonumber",
    "table",
    "pairs",
    "ipairs",
    "io_",
    "unpack_",
    "phpversion",
    "strlen",
    "strtoupper",
    "strtolower",
    "implode",
    "explode",
    "count_",
    "date",
    "var_dump",
    "print_r",
    "json_encode",
    "json_decode",
    "PHP_VERSION",
    "PHP_EOL",
    "name",
    "maxsize",
    "prefix",
    "base_prefix",
    "executable",
    "path",
    "exit_",
    "getrecursionlimit",
    "byteorder",
    "implementation",
    "flags",
    "splitlines",
    "title",
    "capitalize",
    "zfill",
    "ljust",
    "rjust",
    "center",
    "isdigit",
    "isalpha",
    "input",
    "STDIN",
    "STDOUT",
    "STDERR",
    "ARGV",
    "RUBY_VERSION",
    "RUBY_PLATFORM",
    "gets",
    "lines",
    "line",
    "chars",
    "bytes",
    "times",
    "step",
    "upto",
    "downto",
    "mapM",
    "localtime",
    "gmtime",
    "rand",
    "srand",
    "e",
    "i",
    "x",
    "sleep",
    "site",
    "getsitepackages",
    "getusersitepackages",
    "sysconfig",
    "get_paths",
    "get_path",
    "__version__",
    "__file__",
];

fn general(code: &str, language: Language) -> Found {
    let mut found = Found::default();
    let tokens = tokens(code, language);
    let has = |names: &[&str]| tokens.iter().any(|token| matches!(token, Token::Name(name) if names.contains(name)));
    let texts = texts(&tokens);
    let backticks = tokens.iter().any(|token| matches!(token, Token::Backtick(_)));
    let (deletes, talks) = (has(DELETES), has(TALKS));
    let runs = has(RUNS) || backticks;
    let mode = texts
        .iter()
        .any(|text| matches!(text.as_str(), "w" | "a" | "w+" | "r+" | "wb" | "ab" | "x" | ">" | ">>" | "+<"));
    let writes = has(WRITES) || mode || texts.iter().any(|text| text.starts_with('>'));
    if runs {
        texts.iter().for_each(|text| found.script(text));
        lists(&tokens).iter().for_each(|text| found.script(text));
        for token in &tokens {
            if let Token::Backtick(text) = token {
                found.script(text);
            }
        }
    }
    if has(DECODES) || runs {
        for text in &texts {
            let decoded = Some(text)
                .filter(|text| text.len() >= 8)
                .and_then(|text| simulate::hex(text).or_else(|| simulate::decode(text, "base64")));
            if let Some(decoded) =
                decoded.filter(|decoded| !decoded.contains(|c: char| c.is_control() && !c.is_whitespace()))
            {
                found.script(&decoded);
                found.scripts.extend(nested(&decoded, language));
            }
        }
    }
    for text in &texts {
        let path = text.trim_start_matches(['>', '<', '+', ' ']);
        if text.contains("://") {
            found.add(if text.starts_with("file://") { Effect::Read } else { Effect::Network }, text);
        } else if is_path(path) {
            if deletes {
                found.add(Effect::Delete, path);
            }
            if writes {
                found.add(Effect::Write, path);
            }
            if !deletes && !writes || path.contains("/.") || path.starts_with("/etc") {
                found.add(Effect::Read, path);
            }
        }
    }
    let names_shell = texts
        .iter()
        .any(|text| text.contains("/bin/sh") || text.contains("bash") || text == "sh" || text.contains("cmd.exe"));
    if talks {
        found.add(Effect::Network, "");
        if names_shell || has(&["dup2", "pty"]) {
            found.add(Effect::Shell, "");
        }
    }
    if has(&["pty"]) || (names_shell && runs && has(&["spawn", "execl", "execv", "execve", "execvp", "exec"])) {
        found.add(Effect::Shell, "");
    }
    let strange = |token: &&Token<'_>| matches!(token, Token::Name(name) if !HARMLESS.contains(name) && name.len() > 1);
    let stranger = tokens.iter().find(strange);
    if runs
        || stranger.is_some()
        || !matches!(
            language,
            Language::Python | Language::Perl | Language::Ruby | Language::Node | Language::Php | Language::Lua
        )
    {
        let name = if let Some(Token::Name(name)) = stranger { name } else { "" };
        found.add(Effect::Code, name);
    }
    found
}

/// Code in code.
fn nested(decoded: &str, language: Language) -> Vec<String> {
    let tokens = tokens(decoded, language);
    texts(&tokens).into_iter().take(4).collect()
}

/// Returns the strings of the code, those that are added to each other as one.
fn texts(tokens: &[Token<'_>]) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut joins = false;
    for token in tokens {
        match token {
            Token::Text(text) => {
                match texts.last_mut().filter(|last| joins && last.len() < simulate::MAX_OUTPUT) {
                    Some(last) => last.push_str(text),
                    None => texts.push(text.clone()),
                }
                joins = true;
            }
            Token::Sign('+' | '.') => {}
            _ => joins = false,
        }
    }
    texts
}

/// Returns lists of strings, `["rm", "-rf", "x"]`, joined by blanks.
fn lists(tokens: &[Token<'_>]) -> Vec<String> {
    let mut lists = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    for token in tokens {
        match token {
            Token::Text(text) => words.push(text),
            Token::Sign(',') => {}
            // `"rm", ["-rf", "x"]` is one command too.
            Token::Sign('[' | '(') if !words.is_empty() => {}
            _ => {
                if words.len() > 1 {
                    lists.push(words.join(" "));
                }
                words.clear();
            }
        }
    }
    if words.len() > 1 {
        lists.push(words.join(" "));
    }
    lists
}

fn is_path(text: &str) -> bool {
    let begins =
        text.starts_with(['/', '~']) || text.starts_with("./") || text.starts_with("../") || text.starts_with('.');
    begins
        && text.len() > 1
        && text.len() < 512
        && !text.contains(['\n', '(', ';', '*', '%'])
        && text.bytes().any(|b| b.is_ascii_alphanumeric())
        || text == "/"
        || (text.contains('/') && !text.contains(char::is_whitespace) && text.len() < 512)
}

/// The lines of recipes, and `$(shell …)`.
fn make(code: &str) -> Found {
    let mut found = Found::default();
    for line in code.lines() {
        let recipe = line
            .strip_prefix('\t')
            .or_else(|| line.split_once(':').and_then(|(_, after)| after.split_once(';')).map(|(_, recipe)| recipe));
        if let Some(recipe) = recipe {
            found.script(recipe.trim_start_matches(['@', '-', '+', ' ']));
        }
        if let Some((_, shell)) = line.split_once("$(shell ") {
            found.script(shell.split(')').next().unwrap_or(shell));
        }
        if line.contains("$(file") || line.starts_with("load ") || line.starts_with("include ") {
            found.add(Effect::Code, "");
        }
    }
    found
}

fn sql(code: &str) -> Found {
    let mut found = Found::default();
    let lower = code.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '\\' && c != '!' && c != '.');
    let first = words.clone().find(|word| !word.is_empty()).unwrap_or("");
    if lower.contains("\\!")
        || lower.contains(".shell")
        || lower.contains(".system")
        || lower.contains("from program")
        || lower.contains("to program")
        || lower.contains("load_extension")
        || lower.contains("xp_cmdshell")
        || lower.contains("sys_exec")
        || lower.contains("\\system")
    {
        found.add(Effect::Code, "");
        if let Some((_, script)) = code.split_once(['!', ' ']) {
            found.script(script);
        }
    }
    if words.any(|word| matches!(word, "drop" | "truncate" | "delete" | "flushall" | "flushdb" | "dropdatabase")) {
        found.add(Effect::Destroy, "");
    }
    if !matches!(
        first,
        "select"
            | "show"
            | "explain"
            | "describe"
            | "desc"
            | "pragma"
            | "values"
            | "with"
            | "\\d"
            | "\\dt"
            | "\\l"
            | "\\du"
            | "use"
            | "help"
            | "status"
            | ""
    ) && !first.starts_with(".schema")
        && !first.starts_with(".tables")
        && !first.starts_with("\\d")
    {
        found.add(Effect::Database, first);
    }
    for name in ["load_file", "into outfile", "into dumpfile", "pg_read_file", "lo_import", "lo_export", "attach "] {
        if lower.contains(name) {
            found.add(Effect::Code, name.trim());
        }
    }
    found
}
