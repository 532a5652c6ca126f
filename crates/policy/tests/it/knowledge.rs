//! What is known of programs, held against the examples that lie beside it.

use provara_domain::Shell;
use provara_policy::Knowledge;

use crate::{builtin, judge};

#[test]
fn every_example_of_a_program_is_judged_as_it_says() {
    let policy = builtin();
    let (mut seen, mut wrong) = (0, Vec::new());
    for (command, verdict, shell) in policy.knowledge().examples() {
        seen += 1;
        let judgement = judge(&policy, command, shell);
        if judgement.verdict != verdict {
            let rules: Vec<_> = judgement.reasons.iter().map(|reason| (&reason.rule, &reason.text)).collect();
            let (is, should) = (judgement.verdict.as_str(), verdict.as_str());
            wrong.push(format!("`{command}` should be {should}, is {is} by {rules:?}"));
        }
    }
    assert!(seen > 100, "only {seen} examples were found");
    assert!(wrong.is_empty(), "{} of {seen}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_name_is_known_once_and_in_the_shells_it_is_for() {
    assert!(Knowledge::builtin().unwrap().count() > 50);
    let twice = "[[program]]\nnames = ['x']\nabout = 'is x'\n";
    let errors = Knowledge::load(&[("a.toml", twice), ("b.toml", twice)]).unwrap_err();
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["policies/programs/b.toml: program `x`: `x` is in `a.toml` already; say all of it in one place"]
    );
    let policy = builtin();
    assert_eq!(judge(&policy, "cat x", Shell::Sh), judge(&policy, "cat x", Shell::Sh));
}
