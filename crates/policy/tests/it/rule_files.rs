//! Rule files as people get them wrong and as an attacker would write them.

use std::time::{Duration, Instant};

use provara_policy::{Policy, PolicyErrors, RuleFile, Strictness};

/// Generous for a loaded machine and a debug build; what is not bounded takes minutes or the memory of the machine.
const SOON: Duration = Duration::from_secs(30);

fn load(text: &str) -> Result<Policy, PolicyErrors> {
    Policy::load(&[RuleFile { name: "p.toml", text }], Strictness::Ask)
}

/// What is told of a file that must be refused.
fn refused(text: &str) -> String {
    let begun = Instant::now();
    let told = load(text).unwrap_err().to_string();
    assert!(begun.elapsed() < SOON, "took {:?}", begun.elapsed());
    assert!(told.len() < 100_000, "told {} bytes", told.len());
    told
}

fn rule(id: &str, body: &str) -> String {
    format!(
        "[[rule]]\nid = '{id}'\ncategory = 'c'\nseverity = 'low'\nverdict = 'ask'\nreason = 'r'\n{body}\n[rule.examples]\nmatch = ['x']\nno_match = ['y']\n"
    )
}

const NAMES_X: &str = "[rule.match]\nprogram = ['x']";

#[test]
fn every_fault_is_told_with_its_rule_and_how_to_mend_it() {
    let text = [
        rule("taken", NAMES_X),
        rule("taken", NAMES_X),
        rule("unknown_field", "bogus = 1\n[rule.match]\nprogram = ['x']"),
        rule("unknown_fact", "[rule.match]\nprogramm = ['x']"),
        rule("empty_match", "[rule.match]"),
        rule("two_kinds", "[rule.match]\nraw = 'x'\nprogram = ['x']"),
        rule("bad_example", "[rule.match]\nprogram = ['y']"),
        rule("wrapper", NAMES_X),
        rule("Evil \u{202e}", NAMES_X),
        rule("executes", NAMES_X),
    ]
    .concat();
    assert_eq!(
        refused(&text).lines().map(|line| line.split("`, expected").next().unwrap()).collect::<Vec<_>>(),
        [
            "p.toml: rule `taken`: its id is taken by an earlier rule; give it another id",
            "p.toml: rule `unknown_field`: unknown field `bogus",
            "p.toml: rule `unknown_fact`: unknown field `programm",
            "p.toml: rule `empty_match`: its match names nothing; give `raw`, `effect`, `program`, `args_any`, `args_all` or `redirect`",
            "p.toml: rule `two_kinds`: its match has `raw` and facts; make two rules of it",
            "p.toml: rule `wrapper`: its id is one of the engine's own; give it another id",
            "p.toml: rule `Evil \u{fffd}`: its id or category is not made of 1 to 64 of `a-z`, `0-9` and `_`; name it so",
            "p.toml: rule `executes`: its id is taken by an earlier rule; give it another id",
            "p.toml: rule `bad_example`: does not match its example `x`; correct the match or the example",
            "p.toml: rule `bad_example`: matches its counter-example `y`; correct the match or the example",
        ],
        "{}",
        refused(&text)
    );
}

#[test]
fn a_rule_without_what_it_needs_is_refused() {
    let allow_raw = rule("a", "[rule.match]\nraw = 'x'").replace("'ask'", "'allow'");
    assert!(
        refused(&allow_raw).contains("an allow rule must name its programs or effects; match by `program` or `effect`")
    );
    let no_examples = rule("a", NAMES_X).replace("['x']\nno_match = ['y']", "[]\nno_match = []");
    assert!(refused(&no_examples).contains("it lacks examples; give at least one `match` and one `no_match`"));
    for (what, reason) in [("empty", " "), ("hidden", "a\u{200b}b"), ("long", &*"a".repeat(501))] {
        let text = rule("a", NAMES_X).replace("reason = 'r'", &format!("reason = '{reason}'"));
        assert!(refused(&text).contains("its reason is empty, has hidden characters"), "{what}");
    }
    assert!(refused(&rule("a", NAMES_X).replace("id = 'a'\n", "")).contains("rule `#1`: missing field `id`"));
    assert!(refused(&rule("a", NAMES_X).replace("'ask'", "'perhaps'")).contains("perhaps"));
    assert!(refused("rule = 3").contains("p.toml: "));
    assert!(refused("[[rule]\n").contains("write it as `docs/policy.md` shows"));
}

#[test]
fn a_hostile_file_costs_bounded_time_and_memory() {
    for pattern in [r"\w{5000}", "((a{100}){100}){100}", r"(\pL{200}){200}", "(?=x)", r"(x)\1"] {
        let told = refused(&rule("a", &format!("[rule.match]\nraw = '{pattern}'")));
        assert!(told.contains("is no usable regular expression"), "{told}");
    }
    let thousands: String = (0..1500).map(|n| rule(&format!("r{n}"), NAMES_X)).collect();
    assert!(refused(&thousands).contains("there are more than 1000 rules in all files; join rules"));
    let expressions = format!("[rule.match]\nargs_any = [{}]", r"'\pL{9}',".repeat(5000));
    assert!(refused(&rule("a", &expressions)).contains("the files have more than 2000 expressions up to here"));
    assert!(refused(&"#".repeat(300_000)).contains("it has 300000 bytes, and 262144 are read at most"));
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let deep = format!("version = {}{}", open.repeat(50_000), close.repeat(50_000));
        assert!(refused(&deep).starts_with("p.toml: "));
    }
    let many = NAMES_X.to_owned() + "\n";
    let examples = rule("a", &many).replace("match = ['x']", &format!("match = [{}]", "'x',".repeat(65)));
    assert!(refused(&examples).contains("it has more than 64 examples; keep those that differ"));
    let faults: String = (0..2000).map(|n| format!("[[rule]]\nid = 'r{n}'\n")).collect();
    assert_eq!(refused(&faults).matches("p.toml: rule").count(), 100);
    assert!(refused(&format!("version = '{}", "a".repeat(200_000))).len() < 2_000);
}

#[test]
fn as_many_rules_as_are_read_load_soon() {
    let begun = Instant::now();
    let all: String = (0..800).map(|n| rule(&format!("r{n}"), NAMES_X)).collect();
    assert!(load(&all).unwrap().rules().count() > 800);
    assert!(begun.elapsed() < SOON, "took {:?}", begun.elapsed());
}

#[test]
fn the_documents_example_loads() {
    let document = include_str!("../../../../docs/policy.md");
    let examples: Vec<_> = document.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 1);
    assert!(
        load(examples[0]).map_err(|errors| errors.to_string()).unwrap().rules().any(|rule| rule.id == "release_tool")
    );
}

#[test]
fn the_document_names_every_field() {
    let document = include_str!("../../../../docs/policy.md");
    let told = refused(&rule("a", "[rule.match]\nbogus = 1")) + &refused(&rule("a", "bogus = 1\n[rule.match]"));
    let fields: Vec<_> = told.split('`').skip(1).step_by(2).filter(|name| !["a", "bogus"].contains(name)).collect();
    assert!(fields.len() > 20, "{told}");
    let lacking: Vec<_> = fields.iter().filter(|name| !document.contains(&format!("`{name}`"))).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
}

#[test]
fn rules_say_which_profiles_a_command_runs_with() {
    let text = [
        rule("forces", "force_profile = 'read-only'\n[rule.match]\nprogram = ['x']"),
        rule("forbids", "forbid_profiles = ['host', 'network']\n[rule.match]\nprogram = ['x']"),
        rule("others", "force_profile = 'workspace'\n[rule.match]\nprogram = ['z', 'x']\nargs_none = ['a']")
            .replace("no_match = ['y']", "no_match = ['x a']"),
    ]
    .concat();
    let policy = load(&text).unwrap();
    let names = |all: &[provara_domain::ProfileName]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let demands = policy.demands(&crate::judge(&policy, "ls; sudo x a", provara_domain::Shell::Bash));
    assert_eq!(names(&demands.forced), ["read-only"]);
    assert_eq!(names(&demands.forbidden), ["host", "network"]);
    assert_eq!(demands.rules, ["forces", "forbids"]);
    let all = policy.demands(&crate::judge(&policy, "x", provara_domain::Shell::Bash));
    assert_eq!(names(&all.forced), ["read-only", "workspace"]);
    assert_eq!(
        policy.demands(&crate::judge(&policy, "ls", provara_domain::Shell::Bash)),
        provara_policy::Demands::default()
    );
    let bound = rule("bound", "demand_binding = true\n[rule.match]\nprogram = ['x']");
    let bound = load(&bound).unwrap();
    let demands = bound.demands(&crate::judge(&bound, "ls; sudo x", provara_domain::Shell::Bash));
    assert_eq!((demands.binding, demands.rules), (vec!["bound".to_owned()], vec![]));
    assert_eq!(bound.demands(&crate::judge(&bound, "ls", provara_domain::Shell::Bash)).binding, Vec::<String>::new());
    let named: Vec<(&str, String)> = policy.named_profiles().map(|(rule, name)| (rule, name.to_string())).collect();
    assert_eq!(named.len(), 4);
    assert_eq!(named.first(), Some(&("forces", "read-only".to_owned())));
    // What cannot be read may hide any command: a rule that is to hold for all has to look at the raw text.
    let every = rule("every", "force_profile = 'read-only'\n[rule.match]\nraw = '\\S'")
        .replace("no_match = ['y']", "no_match = [' ']");
    let every = load(&every).unwrap();
    let hidden = "eval \"$X\"";
    assert_eq!(policy.demands(&crate::judge(&policy, hidden, provara_domain::Shell::Bash)).rules, Vec::<String>::new());
    assert_eq!(every.demands(&crate::judge(&every, hidden, provara_domain::Shell::Bash)).rules, ["every"]);
    // A text with many reasons of one rule still has that rule among them.
    let many = policy.demands(&crate::judge(&policy, &"x;".repeat(900), provara_domain::Shell::Bash));
    assert_eq!(many.rules, ["forces", "forbids", "others"]);
    let both = rule("both", "force_profile = 'host'\nforbid_profiles = ['host']\n[rule.match]\nprogram = ['x']");
    assert!(refused(&both).contains("forbids the profile that it forces"));
    assert!(
        refused(&rule("bad", "force_profile = '../x'\n[rule.match]\nprogram = ['x']")).contains("a name is 1 to 64")
    );
}
