//! The built-in policy against the cases that lie beside it.

use provara_domain::{Shell, Verdict};

use crate::{builtin, judge};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

/// Every command, in every shell, is judged so, for these reasons among others.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    shells: Vec<Shell>,
    verdict: Verdict,
    rules: Vec<String>,
    commands: Vec<String>,
}

#[test]
fn every_case_holds() {
    let policy = builtin();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/cases");
    let (mut seen, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let cases: Cases = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for case in &cases.case {
            for (shell, command) in case.shells.iter().flat_map(|shell| case.commands.iter().map(move |c| (*shell, c)))
            {
                seen += 1;
                let judgement = judge(&policy, command, shell);
                let gave = |rule: &String| judgement.reasons.iter().any(|reason| reason.rule == *rule);
                if judgement.verdict != case.verdict || !case.rules.iter().all(gave) {
                    let rules: Vec<_> = judgement.reasons.iter().map(|reason| reason.rule.as_str()).collect();
                    wrong.push(format!(
                        "{}: {} `{command:?}` should be {} by {:?}, is {} by {rules:?}",
                        path.file_stem().unwrap().display(),
                        shell.as_str(),
                        case.verdict.as_str(),
                        case.rules,
                        judgement.verdict.as_str(),
                    ));
                }
            }
        }
    }
    assert!(seen > 900, "only {seen} cases were found");
    assert!(wrong.is_empty(), "{} of {seen}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_deny_rule_and_every_allow_rule_has_a_case() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/cases");
    let mut named = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let cases: Cases = toml::from_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        named.extend(cases.case.into_iter().flat_map(|case| case.rules));
    }
    let policy = builtin();
    let lacking: Vec<_> = policy.rules().map(|rule| &rule.id).filter(|id| !named.contains(*id)).collect();
    assert_eq!(lacking, Vec::<&String>::new());
}
