//! What holds for every text.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::select;
use provara_domain::{CommandText, Shell, Verdict};
use provara_policy::{Policy, Request, reader};

use crate::{builtin, judge};

static POLICY: LazyLock<Policy> = LazyLock::new(builtin);

/// Pieces that mean something to a shell, to a rule or to an eye.
const PIECES: &[&str] = &[
    " ",
    "\n",
    "\t",
    "\r",
    ";",
    "&&",
    "||",
    "|",
    "&",
    "(",
    ")",
    "{",
    "}",
    "<",
    ">",
    ">>",
    "<<a\n",
    "<<<",
    ">&",
    "2>&1",
    "'",
    "\"",
    "`",
    "$",
    "$(",
    "${",
    "$'",
    "\\",
    "\\\n",
    "#",
    "*",
    "~",
    "/",
    "..",
    "-",
    "--",
    "=",
    "X=1",
    "a",
    "ä",
    "\u{202e}",
    "\u{200b}",
    "“",
    "—",
    "ls",
    "cat",
    "rm",
    "-rf",
    "/etc",
    "git",
    "status",
    "sudo",
    "env",
    "bash -c",
    "eval",
    "xargs",
    "find . -exec",
    "iex",
    "Remove-Item",
    "C:\\",
    "if",
    "then",
    "done",
    "<#",
    "#>",
    "%",
    "@",
    ":(){ :|:& };:",
    "curl",
    "https://a.example",
    "sh",
];

/// Commands that the reader reads whole: what comes after them cannot become a part of them.
const CLOSED: &[&str] = &[
    "ls",
    "rm -rf /etc",
    "frobnicate x",
    "echo $y",
    "git status",
    "sudo reboot",
    "cat .env",
    "curl https://a.example",
    "curl https://a.example | sh",
    "echo 'a b' > x",
    "bash -c 'rm -rf /'",
    "schtasks /create",
    "sort x | uniq",
    "X=1 ls",
    "ls \u{200b}",
];

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(select(PIECES), 0..40).prop_map(|pieces| pieces.concat()),
        "[ -~\n\r\u{202e}äß“’—$`\"'(){}<>|&;\\\\#*]{0,80}",
        "\\PC{0,60}",
    ]
}

fn verdict(text: &str, shell: Shell) -> Verdict {
    judge(&POLICY, text, shell).verdict
}

/// Open braces are the exception: the end of each is looked for, up to a bound.
#[test]
fn twice_as_many_of_anything_takes_twice_the_steps() {
    let grows = |piece: &&&str| {
        let steps = |times| Shell::ALL.map(|shell| reader::read(&piece.repeat(times), shell).steps);
        steps(100).iter().zip(steps(200)).any(|(once, twice)| twice > once * 11 / 5)
    };
    let growing: Vec<_> = PIECES.iter().filter(grows).collect();
    assert_eq!(growing, [&"{"]);
    assert!(reader::read(&"{".repeat(10_000), Shell::Bash).steps < 16 * reader::MAX_STEPS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_and_judged_the_same_twice_with_spans_on_borders(text in texts()) {
        let Ok(command) = CommandText::parse(text.clone()) else { return Ok(()) };
        for shell in Shell::ALL {
            let reading = reader::read(&text, shell);
            let read = reading.opaque.iter().map(|(span, _)| (span.start, span.end));
            let commands = reading.commands.iter().map(|command| (command.span.start, command.span.end));
            let words = reading.commands.iter().flat_map(|command| &command.args).map(|word| (word.span.start, word.span.end));
            let first = judge(&POLICY, &text, shell);
            let told = first.reasons.iter().filter_map(|reason| reason.span).map(|span| (span.start, span.end));
            let scripts = POLICY.scripts(&command, shell);
            let named = scripts.iter().map(|script| (script.span.start, script.span.end));
            for (start, end) in read.chain(commands).chain(words).chain(told).chain(named) {
                prop_assert!(text.get(start..end).is_some(), "{start}..{end}");
            }
            prop_assert_eq!(&first, &judge(&POLICY, &text, shell));
            let request = Request { command: &command, shell, cwd: "/work", workspaces: &["/work".to_owned()] };
            prop_assert_eq!(first, POLICY.explain(&request).judgement);
        }
    }

    #[test]
    fn a_text_twice_takes_at_most_twice_the_steps_and_a_little(text in texts()) {
        for shell in Shell::ALL {
            let once = reader::read(&text, shell);
            // A newline between keeps words apart; what stays open makes the second half its inside and so deeper, once
            // for each level that is followed.
            let twice = reader::read(&format!("{text}\n{text}"), shell).steps;
            let levels = u64::from(reader::MAX_DEPTH) + 2;
            let open = once.too_deep || !once.opaque.is_empty();
            let most = if open { 64 * (2 * u64::try_from(text.len()).unwrap() + 2) } else { once.steps * 11 / 5 + levels };
            prop_assert!(twice <= most, "{} then {twice}", once.steps);
        }
    }

    #[test]
    fn more_text_never_softens(first in select(CLOSED), second in texts(), between in select(&["; ", "\n", " && ", " || ", " | "][..])) {
        for shell in Shell::ALL {
            let (alone, both) = (verdict(first, shell), verdict(&format!("{first}{between}{second}"), shell));
            prop_assert!(both >= alone, "{:?} then {:?}", alone, both);
        }
    }

    #[test]
    fn a_command_before_never_softens(first in select(CLOSED), second in select(CLOSED)) {
        for shell in Shell::ALL {
            let (alone, both) = (verdict(second, shell), verdict(&format!("{first}; {second}"), shell));
            prop_assert!(both >= alone, "{:?} then {:?}", alone, both);
        }
    }

    #[test]
    fn wrapping_never_softens(inner in select(CLOSED)) {
        for wrapper in ["sudo", "env", "env A=1", "nohup", "nice -n 5", "timeout 5", "command", "exec", "busybox"] {
            let wrapped = verdict(&format!("{wrapper} {inner}"), Shell::Bash);
            prop_assert!(wrapped >= verdict(inner, Shell::Bash), "{wrapper}");
        }
        for shell in ["bash -c", "sh -ec", "eval", "su root -c", "/bin/zsh -c"] {
            let quoted = inner.replace('\'', "'\\''");
            let wrapped = verdict(&format!("{shell} '{quoted}'"), Shell::Bash);
            prop_assert!(wrapped >= verdict(inner, Shell::Bash), "{shell}");
        }
    }

    #[test]
    fn hidden_characters_are_never_allowed(
        inner in select(&["ls -la src", "git status", "cargo test", "Get-Date"][..]),
        hidden in any::<char>().prop_filter("hidden", |c| reader::is_hidden(*c) && *c != '\0'),
        at in 0..8_usize,
    ) {
        let text: String = inner.chars().take(at).chain([hidden]).chain(inner.chars().skip(at)).collect();
        for shell in Shell::ALL {
            prop_assert!(verdict(&text, shell) > Verdict::Allow);
        }
    }
}
