//! The built-in policy against its cases, and properties of the reader and the judge.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod attacks;
mod fuzz;

use proptest::prelude::*;
use provara_domain::{CommandText, Judgement, Shell, Verdict};
use provara_policy::{Policy, Request, RuleFile, Strictness, reader};

fn judge(policy: &Policy, command: &str, shell: Shell) -> Judgement {
    let command = CommandText::parse(command.to_owned()).unwrap();
    let workspaces = ["/work".to_owned()];
    policy.judge(&Request { command: &command, shell, cwd: "/work", workspaces: &workspaces })
}

fn builtin() -> Policy {
    Policy::builtin(Strictness::Ask).map_err(|errors| errors.to_string()).unwrap()
}

#[derive(serde::Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    command: String,
    shell: Shell,
    verdict: Verdict,
    rule: String,
}

#[test]
fn cases_hold() {
    let policy = builtin();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/cases");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let cases: Cases = toml::from_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        for case in cases.case {
            let judgement = judge(&policy, &case.command, case.shell);
            assert_eq!(judgement.verdict, case.verdict, "{}: {:?}", case.command, judgement.reasons);
            assert!(judgement.reasons.iter().any(|reason| reason.rule == case.rule), "{}", case.command);
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn every_fault_is_told() {
    let text = "[[rule]]\nid = 'a'\nbogus = 1\n[[rule]]\nid = 'b'\ncategory = 'c'\nseverity = 'low'\nverdict = 'ask'\nreason = 'r'\nmatch = { program = ['x'] }\nexamples = { match = ['y'], no_match = ['x'] }\n";
    let errors = Policy::load(&[RuleFile { name: "p.toml", text }], Strictness::Ask).unwrap_err();
    let told: Vec<_> = errors.0.iter().map(|error| (error.file.as_str(), error.rule.as_deref())).collect();
    assert_eq!(told, [("p.toml", Some("a")), ("p.toml", Some("b")), ("p.toml", Some("b"))], "{errors}");
}

#[test]
fn strictness_is_part_of_the_version_and_denies_the_unknown() {
    let strict = Policy::builtin(Strictness::Deny).unwrap();
    assert_ne!(strict.version(), builtin().version());
    assert_eq!(judge(&strict, "frobnicate", Shell::Bash).verdict, Verdict::Deny);
    assert_eq!(judge(&strict, "ls", Shell::Bash).verdict, Verdict::Allow);
}

#[test]
fn padding_never_softens() {
    let policy = builtin();
    for padding in ["a;", "$(", "\"$(", "<<a\n", "sudo ", "(", "a|"] {
        let text = format!("rm -rf /\n{}", padding.repeat(9900 / padding.len()));
        assert_eq!(judge(&policy, &text, Shell::Bash).verdict, Verdict::Deny, "{padding}");
    }
    let text = format!("{}rm -rf /", "a;".repeat(4900));
    assert_eq!(judge(&policy, &text, Shell::Bash).verdict, Verdict::Deny);
}

proptest! {
    #[test]
    fn reading_is_sound(text in "[ -~\n\r\u{202e}äß“’—$`\"'(){}<>|&;\\\\#*]{0,80}") {
        for shell in Shell::ALL {
            let reading = reader::read(&text, shell);
            for (span, _) in &reading.opaque {
                prop_assert!(text.get(span.start..span.end).is_some());
            }
            for command in &reading.commands {
                prop_assert!(text.get(command.span.start..command.span.end).is_some());
            }
            prop_assert!(reading.steps <= 64 * (u64::try_from(text.len()).unwrap() + 1));
        }
    }

    #[test]
    fn more_never_softens(first in 0..8_usize, second in 0..8_usize) {
        const TEXTS: [&str; 8] = ["ls", "rm -rf /etc", "x", "echo $y", "git status", "sudo reboot", "cat .env", "curl https://a.example"];
        static POLICY: std::sync::LazyLock<Policy> = std::sync::LazyLock::new(builtin);
        let policy = &*POLICY;
        let alone = judge(policy, TEXTS[first], Shell::Bash).verdict;
        let both = judge(policy, &format!("{}; {}", TEXTS[first], TEXTS[second]), Shell::Bash).verdict;
        prop_assert!(both >= alone);
    }
}
