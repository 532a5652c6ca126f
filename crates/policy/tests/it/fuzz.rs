//! The bodies of the fuzz targets, for a second each.
#![expect(unreachable_pub, reason = "the bodies are shared with the fuzz targets")]

#[path = "../../../../fuzz/bodies/inputs.rs"]
mod inputs;
#[path = "../../../../fuzz/bodies/policy.rs"]
mod policy;

use inputs::{hostile, throw};
use proptest::prelude::*;
use provara_policy::reader::Certainty;

#[test]
fn hostile_scripts_are_read_within_bounds() {
    throw(&hostile(policy::SCRIPTS), |bytes| policy::script(&bytes));
}

#[test]
fn hostile_rule_files_are_loaded_or_refused_with_words() {
    throw(&hostile(policy::RULES), |bytes| policy::rule_file(&bytes));
}

/// What bash itself takes apart: quotes, joins, comments, here-documents, assignments, redirections. `p`, `q` and `r` are no
/// programs, so that nothing is run.
const PLAIN: &[&str] = &[
    "p",
    "q",
    "r",
    "p",
    "q a",
    "r -x",
    " ",
    " ",
    " ",
    "\t",
    "\n",
    "\n",
    ";",
    "; ",
    " && ",
    " || ",
    " | ",
    " |& ",
    " & ",
    "'",
    "'",
    "\"",
    "\"",
    "'b c'",
    "\"d e\"",
    "\\",
    "\\ ",
    "\\\n",
    "\\'",
    "\\\"",
    "#",
    " #",
    "#x\n",
    "a",
    "=",
    "A=1 ",
    "A=1",
    "A+=1 ",
    "$",
    "$ ",
    "$'",
    "$\"",
    "-",
    "{",
    "}",
    "{}",
    "!",
    " ! ",
    "[",
    "]",
    " [ a ] ",
    "é",
    "\u{a0}",
    "\r",
    ">f",
    " >f",
    " 2>&1",
    " >&2",
    " &>f",
    " 2>/dev/null ",
    "3",
    "<<E\n",
    "<<-E\n",
    "<<'E'\n",
    "E\n",
    "\tE\n",
    "E",
    " <<< a",
    "%",
    "^",
    ",",
    ":",
    "@",
    "+",
    "~",
    "1",
    "if ",
    "then ",
    "fi",
    "time ",
    "do",
    "in ",
    "function ",
    "==",
    "(",
    ")",
    "$A",
    "\"$A\"",
    "${A}",
    "${A:-b c}",
    "${A%1}",
    "A='x y';",
    "set -- m 'n o';",
    "\"$@\"",
    "$1",
    "$(echo u v)",
    "\"$(printf '%s-' u v)\"",
    "`echo w`",
    "{a,b}",
    "x{1..3}y",
    "$IFS",
    "f() { p \"$@\"; };",
    "f s ",
    "eval ",
    "if true; then ",
    "; fi;",
];

/// Makes bash write down what it would run, each as the number of its words and the words, ended by NUL; and wait for what
/// it put into the background. Each process has a file of its own: a word with a newline leaves in two writes.
const HANDLER: &str = r#"trap wait EXIT; command_not_found_handle() { printf '%s\0' "$#" "$@" >> "$TOLD/$BASHPID"; }"#;

fn ran_by_bash(script: &str, folder: &std::path::Path) -> Vec<Vec<String>> {
    let (told, work) = (folder.join("told"), folder.join("work"));
    std::fs::create_dir(&told).unwrap();
    std::fs::create_dir(&work).unwrap();
    std::fs::write(folder.join("handler"), HANDLER).unwrap();
    let output = std::process::Command::new("/bin/bash")
        .env_clear()
        .env("PATH", "/nonexistent")
        .env("LC_ALL", "C.UTF-8")
        .env("BASH_ENV", folder.join("handler"))
        .env("TOLD", &told)
        // The reader keeps the sign, since it cannot know whose home that is.
        .env("HOME", "~")
        .current_dir(&work)
        .args(["--noprofile", "--norc", "-c", script])
        .stdin(std::process::Stdio::null())
        .output();
    output.unwrap();
    let told = std::fs::read_dir(told).unwrap().flatten();
    let bytes = told.flat_map(|file| std::fs::read(file.path()).unwrap()).collect::<Vec<_>>();
    let mut words = bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut commands = Vec::new();
    while let Some(count) = words.next().and_then(|count| count.parse::<usize>().ok()) {
        commands.push(words.by_ref().take(count).collect());
    }
    commands
}

#[test]
fn attack_14_whatever_bash_runs_or_writes_policy_has_named() {
    if !std::path::Path::new("/bin/bash").exists() {
        assert!(std::env::var_os("CI").is_none(), "bash is missing, and in CI nothing is skipped");
        eprintln!("SKIPPED: bash is not installed, so the reader was not compared with it");
        return;
    }
    let first = tempfile::tempdir().unwrap();
    assert_eq!(ran_by_bash("p 'a b' | q", first.path()).len(), 2, "bash does not tell what it runs");
    let compared = std::cell::Cell::new(0);
    let policy = crate::builtin();
    let scripts = prop::collection::vec(prop::sample::select(PLAIN), 1..16).prop_map(|parts| parts.concat());
    throw(&scripts, |script| {
        let Ok(command) = provara_domain::CommandText::parse(script.clone()) else { return };
        let workspaces = ["/work".to_owned()];
        let shell = provara_domain::Shell::Bash;
        let request = provara_policy::Request { command: &command, shell, cwd: "/work", workspaces: &workspaces };
        let explanation = policy.explain(&request);
        // What it cannot read, or knows that it does not know, it does not claim to know.
        if explanation.judgement.reasons.iter().any(|reason| matches!(reason.rule.as_str(), "opaque" | "limit"))
            || explanation.commands.iter().any(|command| command.certainty != Certainty::Sure)
            || explanation.commands.iter().flat_map(|command| &command.redirections).any(|(_, to)| to.contains('$'))
        {
            return;
        }
        // Of its own, so that nothing of one script is taken for another's.
        let folder = tempfile::tempdir().unwrap();
        for ran in ran_by_bash(&script, folder.path()) {
            let named = explanation
                .commands
                .iter()
                .any(|command| std::iter::once(&command.program).chain(&command.args).eq(ran.iter()));
            assert!(named, "bash runs {ran:?} in {script:?}, and policy found {:?}", explanation.commands);
            compared.set(compared.get() + 1);
        }
        for made in std::fs::read_dir(folder.path().join("work")).unwrap().flatten() {
            let name = made.file_name().into_string().unwrap();
            let named =
                explanation.commands.iter().flat_map(|command| &command.redirections).any(|(_, to)| *to == name);
            assert!(named, "bash writes {name:?} in {script:?}, and policy found {:?}", explanation.commands);
            compared.set(compared.get() + 1);
        }
    });
    assert!(compared.get() > 5, "only {} commands were compared", compared.get());
}
