//! The built-in policy against its cases, and properties of the reader and the judge.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod attacks;
mod cases;
mod fuzz;
mod knowledge;
mod properties;
mod rule_files;

use provara_domain::{CommandText, Judgement, Shell, Verdict};
use provara_policy::{Policy, Request, Strictness};

fn judge(policy: &Policy, command: &str, shell: Shell) -> Judgement {
    let command = CommandText::parse(command.to_owned()).unwrap();
    let workspaces = ["/work".to_owned()];
    policy.judge(&Request { command: &command, shell, cwd: "/work", workspaces: &workspaces })
}

fn builtin() -> Policy {
    Policy::builtin(Strictness::Ask).map_err(|errors| errors.to_string()).unwrap()
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
