//! Files of rules: what is refused says why and what to do.

use std::sync::Arc;

use provara_redact::{Redactor, Rules};

fn file(lines: &str) -> String {
    format!(
        "[[rules]]\nid = \"house-key\"\n{lines}\n[rules.examples]\nmatch = [\"hk_¦12345678\"]\nno_match = [\"hk_short\"]\n"
    )
}

fn refused(text: &str) -> String {
    Rules::parse(text).unwrap_err().to_string()
}

#[test]
fn the_builtin_rules_keep_their_examples() {
    let rules = Rules::builtin_checked().unwrap_or_else(|errors| panic!("{errors}"));
    assert!(rules.ids().count() > 80, "{}", rules.ids().count());
}

#[test]
fn a_file_of_ones_own_adds_to_the_builtin_rules() {
    let own = Rules::parse(&file("regex = 'hk_[0-9]{8}'\nkeywords = [\"HK_\"]")).unwrap();
    let redactor = Redactor::new(Arc::new(Rules::builtin().unwrap().and(own)), &[]).unwrap();
    assert_eq!(redactor.redact_text("it is hk_12345678.").text, "it is [redacted:house-key].");
}

#[test]
fn an_allowlist_speaks_of_secret_or_match_and_one_about_paths_never_holds() {
    let shown = |list: &str| {
        let text = file("regex = 'hk_[0-9]{8}|hk_x'\nkeywords = [\"hk_\"]")
            .replace("[rules.examples]", &format!("{list}\n[rules.examples]"));
        let redactor = Redactor::new(Arc::new(Rules::parse(&text).unwrap()), &[]).unwrap();
        redactor.find("hk_99999999 hk_11119999").len()
    };
    assert_eq!(shown(""), 2);
    assert_eq!(shown("[[rules.allowlists]]\nregexes = ['^hk_9+$']"), 1);
    assert_eq!(shown("[[rules.allowlists]]\nstopwords = [\"1111\"]"), 1);
    assert_eq!(shown("[[rules.allowlists]]\ncondition = \"AND\"\nregexes = ['9999$']\nstopwords = [\"1111\"]"), 1);
    assert_eq!(shown("[[rules.allowlists]]\ncondition = \"AND\"\nregexes = ['9999$']\npaths = ['.*']"), 2);
    assert_eq!(shown("[rules.allowlist]\npaths = ['.*']"), 2);
    assert_eq!(shown("[rules.allowlist]\nregexTarget = \"match\"\nregexes = ['9999']"), 0);
}

#[test]
fn the_part_that_is_the_secret_can_be_named() {
    let text = "[[rules]]\nid = \"pin\"\nregex = 'pin(ned)?[=:]([0-9]{4})'\nsecretGroup = 2\nkeywords = [\"pin\"]\n[rules.examples]\nmatch = [\"pin=1234\"]\nno_match = [\"pin=12\"]\n";
    let redactor = Redactor::new(Arc::new(Rules::parse(text).unwrap()), &[]).unwrap();
    assert_eq!(redactor.redact_text("pinned:0000 pin=1111").text, "pinned:[redacted:pin] pin=[redacted:pin]");
}

#[test]
fn the_documents_example_can_be_used_as_it_stands() {
    let document = include_str!("../../../../docs/secrets.md");
    let example = document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let redactor = Redactor::new(Arc::new(Rules::parse(example).unwrap()), &[]).unwrap();
    let text =
        redactor.redact_text("hk_eu_9f86d081884c7d659a2feaa0c55ad015 hk_eu_00000000000000000000000000000000").text;
    assert_eq!(text, "hk_eu_[redacted:house-key] hk_eu_00000000000000000000000000000000");
}

#[test]
fn what_cannot_be_used_is_refused_with_words() {
    for (lines, expected) in [
        ("keywords = [\"hk_\"]", "missing field `regex`"),
        ("regex = 'hk_[0-9]{8}'", "it lacks keywords of 3 to 64 bytes"),
        ("regex = 'hk_[0-9]{8}'\nkeywords = [\"hk\"]", "it lacks keywords of 3 to 64 bytes"),
        ("regex = 'hk_[0-9'\nkeywords = [\"hk_\"]", "is no usable regular expression"),
        ("regex = 'hk_(?=x)'\nkeywords = [\"hk_\"]", "is no usable regular expression"),
        ("regex = 'hk_[0-9]{8}'\nkeywords = [\"hk_\"]\nsecretGroup = 1", "its secretGroup is not in its expression"),
        ("regex = 'hk_[0-9]{9}'\nkeywords = [\"hk_\"]", "does not match its example `hk_¦12345678`"),
        ("regex = 'hk_[0-9a-z]*'\nkeywords = [\"hk_\"]", "matches its counter-example `hk_short`"),
        ("regex = '[0-9]{8}'\nkeywords = [\"hk_\"]", "a match has to begin with a keyword"),
        ("regex = 'hk_[0-9]{8}'\nkeywords = [\"hk_\"]\nfoo = 1", "unknown field `foo`"),
        (
            "regex = 'hk_(?:[a-z0-9]{1,9}[0-9a-z]{1,90}){1,900}'\nkeywords = [\"hk_\"]",
            "is no usable regular expression",
        ),
        ("regex = 'hk_[0-9]{8}'\nkeywords = [\"hk_\"]\n[rules.allowlist]\nstopwords = [\"\"]", "a stopword is empty"),
        (
            "regex = 'hk_[0-9]{8}'\nkeywords = [\"hk_\"]\n[rules.allowlist]\nregexTarget = \"line\"\nregexes = ['x']",
            "neither secret nor match",
        ),
    ] {
        let told = refused(&file(lines));
        assert!(told.starts_with("rule `house-key`: ") && told.contains(expected), "{lines}: {told}");
    }
    let good = file("regex = 'hk_[0-9]{8}'\nkeywords = [\"hk_\"]");
    assert_eq!(refused(&format!("{good}{good}")), "rule `house-key`: its id is taken; give it another");
    assert!(refused("[[rule]]").contains("unknown field `rule`"), "{}", refused("[[rule]]"));
    assert!(refused("id = \u{1b}[2J").chars().all(|c| !c.is_control()), "{}", refused("id = \u{1b}[2J"));
    let bare = good.split("[rules.examples]").next().unwrap().to_owned();
    assert!(refused(&bare).contains("it lacks examples"));
    assert!(refused(&"#".repeat(300_000)).starts_with("the file has 300000 bytes"));
}
