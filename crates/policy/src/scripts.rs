//! The scripts that a command names: files whose content decides what the command does.
//!
//! Best effort, and for binding only: a script that is not found here is not bound, and nothing gets milder by it.

use provara_domain::{CommandText, NamedScript, ScriptPlace, ScriptUse, Shell, Span};

use crate::judge::Policy;
use crate::knowledge::{Inner, Language as Written, Scopes, apply};
use crate::matching::{Place, resolve};
use crate::naming::names;
use crate::reader::{self, Command, MAX_STEPS, Word};

/// So many names are told; a command that names more is beyond what anybody reads.
pub const MAX_NAMED: usize = 32;
/// No file can be opened by a longer name.
const MAX_PATH: usize = 4095;
/// How many wrappers and scripts within each other are opened; policy denies what is deeper.
const MAX_WRAPPING: u32 = 6;

impl Policy {
    /// Returns the scripts that `command` names, in the order of its text, each once. Never panics; work is bounded as a
    /// judgement's is.
    pub fn scripts(&self, command: &CommandText, shell: Shell) -> Vec<NamedScript> {
        let mut walk = Walk { policy: self, found: Vec::new(), steps: 0 };
        walk.text(command.as_str(), shell, 0, None, &mut Folder::Cwd);
        walk.found
    }
}

/// What is inside of a command.
enum Inside {
    /// Another command.
    Command(Command),
    /// A script, as text.
    Script(String, Shell),
}

/// Where a relative path begins.
#[derive(Clone)]
enum Folder {
    /// At the plan's working directory.
    Cwd,
    /// Below it or elsewhere, by name: after `cd name`, if that worked.
    At(String),
    /// Nobody can tell from the text.
    Unknown,
}

struct Walk<'p> {
    policy: &'p Policy,
    found: Vec<NamedScript>,
    steps: u64,
}

impl Walk<'_> {
    fn text(&mut self, text: &str, shell: Shell, depth: u32, outer: Option<Span>, folder: &mut Folder) {
        if self.steps > MAX_STEPS || depth > MAX_WRAPPING {
            return;
        }
        let reading = reader::read(text, shell);
        self.steps += reading.steps;
        for command in &reading.commands {
            self.command(command, shell, depth, outer, folder);
        }
    }

    fn command(&mut self, command: &Command, shell: Shell, depth: u32, outer: Option<Span>, folder: &mut Folder) {
        let span = outer.unwrap_or_else(|| command.span.into());
        self.steps += 1 + u64::try_from(command.args.len()).unwrap_or(0);
        if self.steps > MAX_STEPS || depth > MAX_WRAPPING {
            return;
        }
        let (base, name) = names(&command.program);
        if command.program.contains('/') || base.ends_with(".ps1") || command.program.starts_with(".\\") {
            self.name(&command.program.replace('\\', "/"), span, ScriptUse::Program, folder);
        }
        self.named_by(&name, command, outer, folder);
        let mut inner = self.inside(command, &name, shell);
        // `sh <<< 'script'`
        let given = command.redirections.iter().find(|to| to.operator.ends_with("<<<")).map(|to| to.target.clone());
        if let Some(given) = given.filter(|_| language(&name).is_some_and(|language| language.inline == "cs")) {
            inner.push(Inside::Script(given, Shell::Bash));
        }
        if inner.is_empty() {
            return change_folder(&name, &command.args, folder);
        }
        for inside in inner {
            self.within(inside, command, (&name, shell, depth, span), folder);
        }
    }

    fn within(
        &mut self,
        inside: Inside,
        outer: &Command,
        (name, shell, depth, span): (&str, Shell, u32, Span),
        folder: &mut Folder,
    ) {
        match inside {
            Inside::Command(inner) => {
                let mut within = folder_within(name, &outer.args, folder);
                self.command(&inner, shell, depth + 1, Some(span), &mut within);
                // `builtin cd x` goes there for good, and so does nothing else that wraps.
                if matches!(name, "builtin" | "command") {
                    *folder = within;
                }
            }
            Inside::Script(script, shell) => {
                // A shell of its own goes elsewhere alone; `eval` takes this one along.
                let mut within = folder.clone();
                self.text(&script, shell, depth + 1, Some(span), &mut within);
                if name == "eval" {
                    *folder = within;
                }
            }
        }
    }

    /// What `command` runs in its turn, by what is known of its program.
    fn inside(&self, command: &Command, name: &str, shell: Shell) -> Vec<Inside> {
        let Some(program) = self.policy.knowledge().program(name, shell) else { return Vec::new() };
        let place = Place { cwd: None, workspaces: &[] };
        let scopes = Scopes { places: self.policy.places(), place: &place };
        let of = |inner: Inner| match inner {
            Inner::Command { words, .. } => {
                let (program, args) = words.split_first()?;
                let (program, args) = (program.text.clone(), args.to_vec());
                Some(Inside::Command(Command { program, args, span: command.span, ..Command::default() }))
            }
            Inner::Code { code, language: Written::Sh, .. } => Some(Inside::Script(code.text, Shell::Bash)),
            Inner::Code { code, language: Written::Pwsh | Written::Cmd, .. } => {
                Some(Inside::Script(code.text, Shell::Pwsh))
            }
            Inner::Code { .. } | Inner::Module { .. } | Inner::File { .. } => None,
        };
        apply(program, &command.args, &command.input, command.span.into(), scopes)
            .inner
            .into_iter()
            .filter_map(of)
            .collect()
    }

    /// The scripts that stand among the arguments of the program called `name`.
    fn named_by(&mut self, name: &str, command: &Command, outer: Option<Span>, folder: &Folder) {
        let args = &command.args;
        if matches!(name, "." | "source") {
            let word = args.iter().find(|word| word.text != "--");
            return self.words(word, outer, ScriptUse::Sourced, folder);
        }
        if matches!(name, "make" | "gmake") {
            return self.makefiles(command, outer, folder);
        }
        let Some(language) = language(name) else { return };
        match operand(args, &language) {
            Operand::File(word) => self.words(Some(word), outer, ScriptUse::Interpreted, folder),
            Operand::Inline => {}
            Operand::None => {
                let read = command.redirections.iter().find(|to| matches!(to.operator.as_str(), "<" | "0<"));
                if let Some(read) = read {
                    let span = outer.unwrap_or_else(|| command.span.into());
                    self.name(&read.target, span, ScriptUse::Interpreted, folder);
                }
            }
        }
        // Files that are read before it.
        for (at, word) in args.iter().enumerate() {
            if language.loads.contains(&word.text.as_str()) {
                self.words(args.get(at + 1), outer, ScriptUse::Interpreted, folder);
            }
        }
    }

    fn makefiles(&mut self, command: &Command, outer: Option<Span>, folder: &Folder) {
        let span = outer.unwrap_or_else(|| command.span.into());
        let (mut folder, mut named) = (folder.clone(), Vec::new());
        let mut words = command.args.iter().map(|word| word.text.as_str());
        while let Some(word) = words.next() {
            let value = |long: &str, short: &str| {
                word.strip_prefix(long).and_then(|rest| rest.strip_prefix('=')).or_else(|| word.strip_prefix(short))
            };
            let file = value("--file", "-f").or_else(|| value("--makefile", "-f"));
            match (file, value("--directory", "-C")) {
                (Some(""), _) => named.extend(words.next()),
                (Some(file), _) if !word.starts_with("--f") || word.contains('=') => named.push(file),
                (_, Some("")) => go(words.next(), &mut folder),
                (_, Some(to)) => go(Some(to), &mut folder),
                _ if matches!(word, "--file" | "--makefile") => named.extend(words.next()),
                _ if word == "--directory" => go(words.next(), &mut folder),
                _ => {}
            }
        }
        for file in &named {
            self.name(file, span, ScriptUse::Makefile, &folder);
        }
        if named.is_empty() {
            // In the order in which make looks for them; it takes the first.
            for file in ["GNUmakefile", "makefile", "Makefile"] {
                self.place(file, span, ScriptUse::Makefile, &folder, ScriptPlace::Perhaps);
            }
        }
    }

    fn words(&mut self, word: Option<&Word>, outer: Option<Span>, how: ScriptUse, folder: &Folder) {
        let Some(word) = word else { return };
        let span = outer.unwrap_or_else(|| word.span.into());
        if word.glob {
            return self.push(&word.text, span, how, ScriptPlace::AtRunTime);
        }
        self.name(&word.text, span, how, folder);
    }

    fn name(&mut self, path: &str, span: Span, how: ScriptUse, folder: &Folder) {
        self.place(path, span, how, folder, ScriptPlace::Known);
    }

    fn place(&mut self, path: &str, span: Span, how: ScriptUse, folder: &Folder, place: ScriptPlace) {
        if path.is_empty() || path == "-" {
            return;
        }
        if is_dynamic(path) {
            return self.push(path, span, how, ScriptPlace::AtRunTime);
        }
        if path.starts_with('/') {
            return self.push(path, span, how, place);
        }
        match folder {
            Folder::Cwd => self.push(path, span, how, place),
            // If `cd` did not work, and `&&` did not stop there, it is the one in the working directory.
            Folder::At(folder) => {
                self.push(&format!("{folder}/{path}"), span, how, place);
                self.push(path, span, how, ScriptPlace::Perhaps);
            }
            Folder::Unknown => {
                self.push(path, span, how, ScriptPlace::AtRunTime);
                self.push(path, span, how, ScriptPlace::Perhaps);
            }
        }
    }

    fn push(&mut self, path: &str, span: Span, how: ScriptUse, place: ScriptPlace) {
        let named = NamedScript { path: path.to_owned(), span, how, place };
        if path.len() > MAX_PATH || self.found.len() >= MAX_NAMED || self.found.contains(&named) {
            return;
        }
        // The last place says that there are more: names that are not there could else hide one that is.
        let place = if self.found.len() + 1 == MAX_NAMED { ScriptPlace::Beyond } else { place };
        self.found.push(NamedScript { place, ..named });
    }
}

/// Whether something fills the name in later. A file whose real name has one of these is told and not bound.
fn is_dynamic(path: &str) -> bool {
    path.starts_with('~') || path.contains(['$', '`', '*', '?', '[', '{'])
}

fn go(to: Option<&str>, folder: &mut Folder) {
    let from = match folder {
        Folder::Cwd => "",
        Folder::At(at) => at.as_str(),
        Folder::Unknown => {
            *folder = match to {
                Some(to) if to.starts_with('/') && !is_dynamic(to) => Folder::At(to.to_owned()),
                _ => Folder::Unknown,
            };
            return;
        }
    };
    *folder = match to {
        Some(to) if is_dynamic(to) || to.starts_with('-') => Folder::Unknown,
        Some(to) if to.starts_with('/') => resolve(to, None).map_or(Folder::Unknown, Folder::At),
        Some(to) if from.is_empty() => Folder::At(to.to_owned()),
        Some(to) => Folder::At(format!("{from}/{to}")),
        None => Folder::Unknown,
    };
}

fn change_folder(name: &str, args: &[Word], folder: &mut Folder) {
    match name {
        "cd" | "chdir" | "pushd" | "set-location" | "sl" => {
            let mut words = args.iter().map(|word| word.text.as_str());
            go(words.find(|word| !matches!(*word, "--" | "-P" | "-L")), folder);
        }
        "popd" => *folder = Folder::Unknown,
        _ => {}
    }
}

/// Where a wrapper runs what it wraps.
fn folder_within(name: &str, args: &[Word], folder: &Folder) -> Folder {
    let moves = |word: &Word| {
        let text = word.text.as_str();
        match name {
            "env" => text.starts_with("-C") || text.starts_with("--chdir"),
            "sudo" => text.starts_with("-D") || text.starts_with("--chdir") || text.starts_with("-i"),
            _ => false,
        }
    };
    if name == "chroot" || args.iter().any(moves) { Folder::Unknown } else { folder.clone() }
}

/// How an interpreter reads its arguments.
struct Language {
    /// Letters whose option holds the script itself, or a module's name: no file is named then.
    inline: &'static str,
    /// Letters whose option takes a value.
    valued: &'static str,
    /// Letters whose option takes the rest of its own word, if anything.
    attached: &'static str,
    /// Long options that hold the script itself.
    long_inline: &'static [&'static str],
    /// Long options that take the next word.
    long_valued: &'static [&'static str],
    /// Options whose next word is a file that is run before, or is the script.
    loads: &'static [&'static str],
}

fn language(name: &str) -> Option<Language> {
    let none = Language { inline: "", valued: "", attached: "", long_inline: &[], long_valued: &[], loads: &[] };
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    Some(match bare {
        "bash" | "sh" | "dash" | "zsh" | "ksh" | "mksh" | "ash" | "rbash" | "fish" => Language {
            inline: "cs",
            valued: "oO",
            long_inline: &["--command"],
            long_valued: &["--rcfile", "--init-file"],
            ..none
        },
        "python" | "pypy" | "pythonw" => {
            Language { inline: "cm", valued: "WX", long_valued: &["--check-hash-based-pycs"], ..none }
        }
        "node" | "nodejs" => Language {
            inline: "ep",
            valued: "rC",
            long_inline: &["--eval", "--print"],
            long_valued: &["--require", "--import", "--loader", "--experimental-loader", "--conditions"],
            loads: &["-r", "--require", "--import", "--loader", "--experimental-loader"],
            ..none
        },
        "perl" => Language { inline: "eE", valued: "I", attached: "MmiFCDdlx0", ..none },
        "ruby" => Language { inline: "e", valued: "IrCE", attached: "iFKTW0x", ..none },
        "php" => Language { inline: "r", valued: "cdzBRE", loads: &["-f", "--file"], ..none },
        "lua" | "luajit" => Language { inline: "e", valued: "l", ..none },
        "rscript" => Language { inline: "e", ..none },
        "tclsh" | "expect" => none,
        // What follows is their text or their input, unless a file is named for it.
        "awk" | "gawk" | "mawk" | "nawk" | "sed" => {
            Language { inline: "e", valued: "vF", loads: &["-f", "--file"], ..none }
        }
        "pwsh" | "powershell" => Language { loads: &["-File", "-file", "-f", "-F"], ..none },
        _ => return None,
    })
    .filter(|_| bare == name || matches!(bare, "python" | "pypy" | "perl" | "ruby" | "lua" | "php" | "node"))
}

enum Operand<'a> {
    /// This file.
    File(&'a Word),
    /// The text, or a module, is among the arguments.
    Inline,
    /// Nothing: it reads its input.
    None,
}

fn operand<'a>(args: &'a [Word], language: &Language) -> Operand<'a> {
    // These take their text first; a file only by its option.
    let only_loads = language.loads.contains(&"-f") || language.loads.contains(&"-File");
    let php = language.inline == "r";
    if only_loads && !php {
        return Operand::Inline;
    }
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let text = word.text.as_str();
        if text == "--" || (text == "-" && language.inline == "cs") {
            return words.next().map_or(Operand::None, Operand::File);
        }
        if text == "-" {
            return Operand::None;
        }
        if text.starts_with("--") {
            let option = text.split('=').next().unwrap_or(text);
            if language.long_inline.contains(&option) {
                return Operand::Inline;
            }
            if language.loads.contains(&option) && php {
                return Operand::Inline;
            }
            if language.long_valued.contains(&text) {
                words.next();
            }
            continue;
        }
        let Some(letters) = text.strip_prefix('-').or_else(|| text.strip_prefix('+')) else {
            return Operand::File(word);
        };
        if php && text == "-f" {
            return Operand::Inline;
        }
        match cluster(letters, language) {
            Cluster::Inline => return Operand::Inline,
            Cluster::TakesNext => {
                words.next();
            }
            Cluster::Whole => {}
        }
    }
    Operand::None
}

enum Cluster {
    Inline,
    TakesNext,
    Whole,
}

/// Short options in one word, `-ux`: what the word means for those after it.
fn cluster(letters: &str, language: &Language) -> Cluster {
    let mut letters = letters.chars();
    while let Some(letter) = letters.next() {
        if language.inline.contains(letter) {
            return Cluster::Inline;
        }
        if language.valued.contains(letter) {
            // A shell's `-o` takes the next word wherever it stands.
            let takes = letters.as_str().is_empty() || language.inline == "cs";
            return if takes { Cluster::TakesNext } else { Cluster::Whole };
        }
        if language.attached.contains(letter) {
            return Cluster::Whole;
        }
    }
    Cluster::Whole
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::judge::Strictness;

    fn known() -> &'static Policy {
        static KNOWN: LazyLock<Policy> = LazyLock::new(|| Policy::builtin(Strictness::Ask).unwrap());
        &KNOWN
    }

    fn named(command: &str) -> Vec<String> {
        let text = CommandText::parse(command.to_owned()).unwrap();
        known()
            .scripts(&text, Shell::Bash)
            .into_iter()
            .map(|script| {
                let mark = match script.place {
                    ScriptPlace::Known => "",
                    ScriptPlace::Perhaps => "?",
                    ScriptPlace::AtRunTime => "!",
                    ScriptPlace::Beyond => "+",
                };
                format!("{mark}{}", script.path)
            })
            .collect()
    }

    #[test]
    fn scripts_are_found_where_commands_name_them() {
        let table: &[(&str, &[&str])] = &[
            ("bash deploy.sh", &["deploy.sh"]),
            ("bash -x -o pipefail deploy.sh --force -c", &["deploy.sh"]),
            ("bash -eo pipefail deploy.sh", &["deploy.sh"]),
            ("sh ./x", &["./x"]),
            ("sh -- -x", &["-x"]),
            ("bash < x.sh", &["x.sh"]),
            ("bash -s x", &[]),
            ("bash -c 'sh inner.sh'", &["inner.sh"]),
            ("python job.py", &["job.py"]),
            ("python3 -u a/b.py in.csv", &["a/b.py"]),
            ("python3.12 -W ignore -X dev j.py", &["j.py"]),
            ("python3 -m pytest tests", &[]),
            ("python -c 'print(1)' x.py", &[]),
            ("node x.js", &["x.js"]),
            ("node -r ./hook.js x.js", &["x.js", "./hook.js"]),
            ("node -e 'x' y.js", &[]),
            ("perl -w -Ilib x.pl", &["x.pl"]),
            ("perl -ne 'print' data", &[]),
            ("ruby -W0 x.rb", &["x.rb"]),
            ("php -f x.php", &["x.php"]),
            ("php x.php", &["x.php"]),
            ("awk -f prog.awk data", &["prog.awk"]),
            ("awk '{print}' data", &[]),
            ("./run --all", &["./run"]),
            ("/abs/run", &["/abs/run"]),
            ("'./a b'", &["./a b"]),
            ("./\"run\"", &["./run"]),
            ("source env.sh && ls", &["env.sh"]),
            (". ./env.sh", &["./env.sh"]),
            ("make -f F all", &["F"]),
            ("make --file=F", &["F"]),
            ("make -C sub -fF", &["sub/F", "?F"]),
            ("make test", &["?GNUmakefile", "?makefile", "?Makefile"]),
            ("env A=1 nohup timeout 5 bash d.sh", &["d.sh"]),
            ("sudo -u root ./run", &["./run"]),
            ("sudo bash -c './run'", &["./run"]),
            ("env -C sub bash d.sh", &["!d.sh", "?d.sh"]),
            ("find . -name x -exec bash {} \\;", &["!{}"]),
            ("xargs -n1 sh each.sh", &["each.sh"]),
            ("bash \"$SCRIPT\"", &["!$SCRIPT"]),
            ("bash *.sh", &["!*.sh"]),
            ("bash ~/x.sh", &["!~/x.sh"]),
            ("$(pick).sh", &[]),
            ("cd sub && bash x.sh", &["sub/x.sh", "?x.sh"]),
            ("cd sub; cd ..; ./x", &["sub/../x".replace("x", "./x").leak(), "?./x"]),
            ("cd \"$D\" && bash x.sh", &["!x.sh", "?x.sh"]),
            ("bash -c 'cd sub'; bash x.sh", &["x.sh"]),
            ("eval 'cd sub'; bash x.sh", &["sub/x.sh", "?x.sh"]),
            ("echo $(bash inner.sh)", &["inner.sh"]),
            ("if true; then bash a.sh; else ./b; fi | sh c.sh", &["a.sh", "./b", "c.sh"]),
            ("bash a.sh; bash a.sh # bash b.sh", &["a.sh", "a.sh"]),
            ("ls -l", &[]),
            ("echo bash deploy.sh", &[]),
        ];
        for (command, expected) in table {
            assert_eq!(named(command), *expected, "{command}");
        }
    }

    #[test]
    fn a_name_has_its_place_in_the_text_and_its_use() {
        let text = CommandText::parse("ls; . 'é.sh'".to_owned()).unwrap();
        let [script] = known().scripts(&text, Shell::Bash).try_into().unwrap();
        let Span { start, end } = script.span;
        assert_eq!((text.as_str().get(start..end).unwrap(), script.how), ("'é.sh'", ScriptUse::Sourced));
        let text = CommandText::parse("./build.ps1; pwsh -File x.ps1".to_owned()).unwrap();
        let found: Vec<_> = known().scripts(&text, Shell::Pwsh).into_iter().map(|script| script.path).collect();
        assert_eq!(found, ["./build.ps1", "x.ps1"]);
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let many = CommandText::parse((0..400).map(|n| format!("./s{n}; ")).collect()).unwrap();
        let found = known().scripts(&many, Shell::Bash);
        assert_eq!((found.len(), found.last().map(|last| last.place)), (MAX_NAMED, Some(ScriptPlace::Beyond)));
        let long = CommandText::parse(format!("cd {0}; ./{0}", "a".repeat(4090))).unwrap();
        assert_eq!(known().scripts(&long, Shell::Bash).len(), 1, "what no file can be called is no script");
        let deep = format!("{}./x", "bash -c ".repeat(500));
        known().scripts(&CommandText::parse(deep).unwrap(), Shell::Bash);
    }
}
