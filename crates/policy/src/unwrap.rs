//! What hides a command: wrappers, and shells that are given a script.

use provara_domain::Shell;

use crate::reader::{Command, Word};

/// What is inside of a command.
pub(crate) enum Inside {
    /// Nothing that we know of.
    Plain,
    /// Another command.
    Command(Command),
    /// A script, as text.
    Script(String, Shell),
}

/// Returns the bare name of a program, lowercase, and the same without an ending of Windows.
pub(crate) fn names(program: &str) -> (String, String) {
    let base = program.rsplit(['/', '\\']).next().unwrap_or(program).to_lowercase();
    let stem = [".exe", ".com", ".cmd", ".bat"].into_iter().find_map(|ending| base.strip_suffix(ending));
    let stem = stem.unwrap_or(&base).to_owned();
    (base, stem)
}

/// A program that runs its arguments: its flags that take a value, and how many words stand before the command.
fn wrapper(name: &str) -> Option<(&'static [&'static str], usize)> {
    Some(match name {
        "sudo" | "doas" | "pkexec" => (
            &[
                "-u", "-g", "-h", "-p", "-C", "-r", "-t", "-U", "-D", "-R", "-T", "--user", "--group", "--chdir",
                "--host", "--prompt",
            ],
            0,
        ),
        "env" => (&["-u", "-C", "--unset", "--chdir"], 0),
        "nice" => (&["-n", "--adjustment"], 0),
        "ionice" => (&["-c", "-n", "--class", "--classdata"], 0),
        "timeout" => (&["-k", "-s", "--kill-after", "--signal"], 1),
        "xargs" => (
            &["-I", "-n", "-P", "-L", "-d", "-a", "-s", "-E", "--max-args", "--max-procs", "--arg-file", "--delimiter"],
            0,
        ),
        "stdbuf" => (&["-i", "-o", "-e"], 0),
        "strace" | "ltrace" => (&["-e", "-o", "-p", "-s", "-u"], 0),
        "time" => (&["-f", "-o"], 0),
        "watch" => (&["-n", "--interval"], 0),
        "chroot" | "flock" => (&[], 1),
        "taskset" | "chrt" => (&[], 1),
        "unshare" | "nsenter" => (&["-t", "-S", "-G", "-R", "-w"], 0),
        "exec" => (&["-a"], 0),
        "nohup" | "setsid" | "command" | "builtin" | "busybox" | "toybox" | "catchsegv" | "proxychains"
        | "torsocks" | "runuser" | "script" | "parallel" | "setarch" | "unbuffer" | "systemd-run"
        | "dbus-run-session" | "xvfb-run" | "fakeroot" | "caffeinate" | "start" => (&[], 0),
        _ => return None,
    })
}

/// Returns what `command` runs in its turn.
pub(crate) fn inside(command: &Command) -> Inside {
    let (_, name) = names(&command.program);
    let args = &command.args;
    match name.as_str() {
        "bash" | "sh" | "dash" | "zsh" | "ksh" | "mksh" | "ash" | "rbash" | "fish" | "su" => {
            script_after(args, |flag| {
                flag == "--command" || (flag.starts_with('-') && !flag.starts_with("--") && flag.ends_with('c'))
            })
            // `sh <<< 'script'`
            .or_else(|| Some(command.redirections.iter().find(|to| to.operator.ends_with("<<<"))?.target.clone()))
            .map_or(Inside::Plain, |script| Inside::Script(script, Shell::Bash))
        }
        "eval" => Inside::Script(joined(args), Shell::Bash),
        "trap" => args.first().map_or(Inside::Plain, |word| Inside::Script(word.text.clone(), Shell::Bash)),
        "env" if args.iter().any(|word| word.text.starts_with("-S") || word.text.starts_with("--split-string")) => {
            let script =
                args.iter().map(|word| word.text.trim_start_matches("-S").trim_start_matches("--split-string="));
            Inside::Script(script.collect::<Vec<_>>().join(" "), Shell::Bash)
        }
        "pwsh" | "powershell" => rest_after(args, |flag| {
            let flag = flag.to_lowercase();
            flag.len() > 1 && "-command".starts_with(flag.as_str())
        })
        .map_or(Inside::Plain, |script| Inside::Script(script, Shell::Pwsh)),
        "cmd" => rest_after(args, |flag| matches!(flag.to_lowercase().as_str(), "/c" | "/k" | "-c"))
            // `^` is the escape of cmd.
            .map_or(Inside::Plain, |script| Inside::Script(script.replace('^', ""), Shell::Pwsh)),
        "find" | "fd" | "fdfind" => {
            let after = args.iter().position(|word| {
                matches!(
                    word.text.as_str(),
                    "-exec" | "-execdir" | "-ok" | "-okdir" | "-x" | "-X" | "--exec" | "--exec-batch"
                )
            });
            after.map_or(Inside::Plain, |at| of_words(command, args.iter().skip(at + 1)))
        }
        _ => wrapper(&name).map_or(Inside::Plain, |(valued, before)| unwrapped(command, valued, before)),
    }
}

fn unwrapped(command: &Command, valued: &[&str], before: usize) -> Inside {
    let (mut skip_value, mut before) = (false, before);
    let words = command.args.iter().skip_while(|word| {
        let text = word.text.as_str();
        if std::mem::take(&mut skip_value) {
            return true;
        }
        if text.starts_with('-') {
            skip_value = valued.contains(&text);
            return true;
        }
        if text.contains('=') && !text.starts_with(['/', '.']) {
            return true;
        }
        let counted = before > 0;
        before = before.saturating_sub(1);
        counted
    });
    of_words(command, words)
}

fn of_words<'a>(outer: &Command, mut words: impl Iterator<Item = &'a Word>) -> Inside {
    let Some(program) = words.next() else { return Inside::Plain };
    // `watch 'rm -rf x'` and `script -c 'rm -rf x'` give their word to a shell.
    if program.text.contains([' ', '\t', ';', '|', '&']) {
        let script = std::iter::once(program).chain(words).map(|word| word.text.as_str());
        return Inside::Script(script.collect::<Vec<_>>().join(" "), Shell::Bash);
    }
    Inside::Command(Command {
        program: program.text.clone(),
        args: words.cloned().collect(),
        redirections: Vec::new(),
        assignments: Vec::new(),
        span: outer.span,
        pipeline: outer.pipeline,
    })
}

fn script_after(args: &[Word], is_flag: impl Fn(&str) -> bool) -> Option<String> {
    let mut rest = args.iter().skip_while(|word| !is_flag(&word.text)).skip(1);
    // `bash -c -- 'script'` and `bash -c -e 'script'` have further options between.
    rest.find(|word| !word.text.starts_with(['-', '+'])).map(|word| word.text.clone())
}

fn rest_after(args: &[Word], is_flag: impl Fn(&str) -> bool) -> Option<String> {
    let at = args.iter().position(|word| is_flag(&word.text))?;
    Some(joined(args.get(at + 1..).unwrap_or(&[])))
}

fn joined(args: &[Word]) -> String {
    args.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}
