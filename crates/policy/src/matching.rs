//! Whether a rule's facts hold for one simple command.

use provara_domain::Shell;

use crate::naming::names;
use crate::reader::{Command, Word};
use crate::rule::{Facts, Paths, Urls};

/// Where a command runs.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// The working directory; none once a `cd` led somewhere unknown.
    pub(crate) cwd: Option<String>,
    /// The folders that are the agent's.
    pub(crate) workspaces: &'a [String],
}

/// Returns whether `command` is what `facts` describe. `called` are the [`names`] of its program; `before` are the names of the programs before it in its pipeline.
pub(crate) fn holds(
    facts: &Facts,
    command: &Command,
    called: &(String, String),
    before: &[String],
    place: &Place<'_>,
) -> bool {
    let texts = || command.args.iter().map(|word| word.text.as_str());
    let any = |patterns: &[regex::Regex]| texts().any(|arg| patterns.iter().any(|p| p.is_match(arg)));
    is_program(facts, called)
        && (facts.first.is_empty() || facts.first.iter().any(|words| begins_with(&command.args, words)))
        && command.args.len() >= facts.begin.len()
        && texts().zip(&facts.begin).all(|(arg, pattern)| pattern.is_match(arg))
        && (facts.args_any.is_empty() || any(&facts.args_any))
        && facts.args_all.iter().all(|pattern| texts().any(|arg| pattern.is_match(arg)))
        && !any(&facts.args_none)
        && (facts.args_only.is_empty() || texts().all(|arg| facts.args_only.iter().any(|p| p.is_match(arg))))
        && facts.flags_only.as_ref().is_none_or(|known| texts().all(|arg| !is_dashed(arg) || known.is_match(arg)))
        && facts.flags.iter().all(|set| texts().any(|arg| is_flag(arg, set)))
        && facts.args_at_most.is_none_or(|most| command.args.len() <= most)
        && facts.operands_at_most.is_none_or(|most| texts().filter(|arg| !is_dashed(arg)).count() <= most)
        && facts
            .redirect
            .as_ref()
            .is_none_or(|pattern| command.redirections.iter().any(|to| pattern.is_match(&to.target)))
        && (facts.fed_by.is_empty() || before.iter().any(|name| facts.fed_by.contains(name)))
        && facts.paths.is_none_or(|paths| lead(paths, &command.args, place))
        && facts.urls.is_none_or(|urls| name_hosts(urls, &command.args))
}

fn is_program(facts: &Facts, (base, stem): &(String, String)) -> bool {
    facts.programs.is_empty() || facts.programs.iter().any(|name| name == base || name == stem)
}

/// A dash alone is a name of standard input, not a flag.
fn is_dashed(arg: &str) -> bool {
    arg.len() > 1 && arg.starts_with(['-', '\u{2013}', '\u{2014}', '\u{2015}'])
}

fn begins_with(args: &[Word], words: &[String]) -> bool {
    args.len() >= words.len() && args.iter().zip(words).all(|(arg, word)| arg.text == *word)
}

/// `-rf` gives `r` and `f`; `--recursive` and `-Recurse` give themselves, long ones also when cut short.
fn is_flag(arg: &str, set: &[String]) -> bool {
    if let Some(long) = arg.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or(long);
        return name.len() > 1 && set.iter().any(|flag| flag.len() > 1 && flag.starts_with(name));
    }
    let Some(short) = arg.strip_prefix('-') else { return false };
    let name = short.split(':').next().unwrap_or(short).to_lowercase();
    set.iter().any(|flag| {
        let mut chars = flag.chars();
        match (chars.next(), chars.next()) {
            (Some(letter), None) => short.contains(letter),
            _ => name.len() > 1 && flag.to_lowercase().starts_with(&name),
        }
    })
}

fn lead(paths: Paths, args: &[Word], place: &Place<'_>) -> bool {
    let mut targets = args.iter().map(|word| word.text.as_str()).filter(|text| !text.starts_with('-'));
    match paths {
        // Once a `cd` led somewhere unknown, even no path at all means files there.
        Paths::Inside => place.cwd.is_some() && targets.all(|path| inside(path, place) == Some(true)),
        Paths::Outside => targets.any(|path| inside(path, place) == Some(false) && !is_temporary(path)),
    }
}

fn is_temporary(path: &str) -> bool {
    let below = ["/tmp/", "/var/tmp/"].into_iter().find_map(|folder| path.strip_prefix(folder));
    below.is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_alphanumeric() || "_.-".contains(c))
            && !rest.split('/').any(|part| part == "..")
    })
}

/// Whether `path` lies in a workspace, and is not one itself; none when that is not known.
fn inside(path: &str, place: &Place<'_>) -> Option<bool> {
    if path.starts_with('~') || path.starts_with("$HOME") || path.starts_with("${HOME}") {
        return Some(false);
    }
    if path.contains(['$', '`']) && !path.starts_with('/') {
        return None;
    }
    let path = resolve(path, place.cwd.as_deref())?;
    let workspaces = place.workspaces.iter().map(String::as_str).filter(|folder| *folder != "/");
    let mut folders = workspaces.peekable();
    if folders.peek().is_none() {
        return Some(place.cwd.as_deref().is_some_and(|cwd| cwd != "/" && is_below(&path, cwd)));
    }
    Some(folders.any(|folder| is_below(&path, folder)))
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns `path` made absolute, `.` and `..` resolved as text. Links are for the machine that runs it to follow.
pub(crate) fn resolve(path: &str, cwd: Option<&str>) -> Option<String> {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", cwd?) };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

fn name_hosts(urls: Urls, args: &[Word]) -> bool {
    let mut seen = false;
    let local = args.iter().map(|word| word.text.as_str()).filter(|text| !text.starts_with('-')).all(|text| {
        let address = text.contains("://") || text.contains('.') || text.contains(':') || text.contains('$');
        seen |= address;
        !address || is_local(text)
    });
    match urls {
        Urls::Local => seen && local,
        Urls::Elsewhere => !seen || !local,
    }
}

/// The host must end at a port, a path or the text's end, and nothing may make it a user's name.
fn is_local(url: &str) -> bool {
    let lower = url.to_lowercase();
    let rest = lower.strip_prefix("http://").or_else(|| lower.strip_prefix("https://")).unwrap_or(&lower);
    let Some(rest) = ["127.0.0.1", "localhost", "[::1]"].into_iter().find_map(|host| rest.strip_prefix(host)) else {
        return false;
    };
    let (port, path) = rest.split_once('/').unwrap_or((rest, ""));
    let good_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|n| (1..=5).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()));
    good_port && !path.contains(['@', '\\', '{', '[', '$'])
}

/// Returns whether an allow rule may speak for `command` at all: what it is told to do is all that it does.
pub(crate) fn may_be_allowed(command: &Command, shell: Shell) -> bool {
    let harmless = |to: &crate::reader::Redirection| {
        to.target == "/dev/null" || (to.operator.ends_with('&') && matches!(to.target.as_str(), "1" | "2"))
    };
    is_plain(command, shell)
        && command.assignments.is_empty()
        && command.redirections.iter().all(harmless)
        && command.args.iter().all(|word| !word.glob || is_tame_glob(&word.text))
}

/// Returns whether the program is the one that everybody knows by that name.
pub(crate) fn is_plain(command: &Command, shell: Shell) -> bool {
    // Deny rules know a program by any spelling; in a Unix shell `LS` and `ls.exe` are other programs than `ls`, and
    // PowerShell knows no difference of case alone.
    let (base, stem) = names(&command.program);
    let exact_name =
        base == stem && (shell == Shell::Pwsh || command.program.rsplit('/').next().is_some_and(|name| name == stem));
    let plain_program = !command.program.contains(['/', '\\'])
        || ["/bin/", "/usr/bin/", "/usr/local/bin/", "/sbin/", "/usr/sbin/"]
            .into_iter()
            .any(|folder| command.program.strip_prefix(folder).is_some_and(|name| !name.contains(['/', '\\'])));
    plain_program && exact_name
}

/// A pattern that can become neither a flag nor a hidden file nor leave its folder.
pub(crate) fn is_tame_glob(text: &str) -> bool {
    let below = text.strip_prefix("./").unwrap_or(text);
    (below != text || text.starts_with(|c: char| c.is_ascii_alphanumeric()))
        && !text.contains('\\')
        && below.split('/').all(|part| !part.starts_with('.'))
}
