//! What must hold for every script and every file of rules.

use std::sync::LazyLock;

use provara_domain::{CommandText, Shell, Verdict};
use provara_policy::{Policy, Request, RuleFile, Strictness, reader};

/// What scripts are made of.
pub const SCRIPTS: &[&str] = &[
    "ls",
    "rm -rf /etc",
    "cat x",
    " ",
    "\n",
    ";",
    "|",
    "||",
    "&&",
    "&",
    "|&",
    "$(",
    ")",
    "`",
    "${",
    "}",
    "((",
    "))",
    "\"",
    "'",
    "$'",
    "\\",
    "\\\n",
    "<<EOF\n",
    "<<'EOF'\n",
    "EOF\n",
    "<<<",
    ">",
    ">>",
    "2>&1",
    "&>",
    "<(",
    "#",
    "*",
    "?",
    "[",
    "~",
    "{a,b}",
    "!",
    "if ",
    "; then ",
    "; fi",
    "for x in ",
    "; do ",
    "; done",
    "case x in ",
    "esac",
    "f() {",
    "sudo ",
    "env -S ",
    "bash -c '",
    "eval ",
    "xargs ",
    "find . -exec ",
    "timeout 5 ",
    "A=1 ",
    "export ",
    "Get-ChildItem",
    "Remove-Item ",
    "& {",
    "@{",
    "@'\n",
    "\n'@",
    "@\"\n",
    "\n\"@",
    "<#",
    "#>",
    "--%",
    "`n",
    "[scriptblock]",
    "iex ",
    "\r",
    "\u{202e}",
    "\u{200b}",
    "\u{a0}",
    "“",
    "’",
    "–e ",
];

/// What files of rules are made of.
pub const RULES: &[&str] = &[
    "[[rule]]\n",
    "id = 'a'\n",
    "category = 'c'\n",
    "severity = 'low'\n",
    "verdict = 'allow'\n",
    "verdict = 'deny'\n",
    "reason = 'r'\n",
    "match = { program = ['x'] }\n",
    "match = { raw = '(a+)+$' }\n",
    "match = { raw = '((a{99}){99}){99}' }\n",
    "match = { raw = '[' }\n",
    "match = { args_any = ['\\p{L}{1000}'] }\n",
    "examples = { match = ['x'], no_match = ['y'] }\n",
    "shells = ['bash']\n",
    "[rule.match]\n",
    "version = '1'\n",
    "= = =\n",
    "\"\"\"",
    "[[[",
    "a.b.c = 1\n",
    "\u{feff}",
    "[[rule]]\nid = 'b'\ncategory = 'c'\nseverity = 'low'\nverdict = 'allow'\nreason = 'r'\nmatch = { program = ['x'] }\nexamples = { match = ['x'], no_match = ['y'] }\n",
    "[[rule]]\nid = 'all'\ncategory = 'c'\nseverity = 'info'\nverdict = 'allow'\nreason = 'r'\nmatch = { raw = '' }\nexamples = { match = ['x'], no_match = [] }\n",
];

static BUILTIN: LazyLock<Policy> = LazyLock::new(|| Policy::load(&[], Strictness::Ask).unwrap());

fn request(command: &CommandText, shell: Shell) -> Request<'_> {
    static WORKSPACES: LazyLock<Vec<String>> = LazyLock::new(|| vec!["/work".to_owned()]);
    Request { command, shell, cwd: "/work", workspaces: &WORKSPACES }
}

/// Read and judged without a panic, in bounded work, the same each time, never softer for what stands beside it.
pub fn script(bytes: &[u8]) {
    let text: String = String::from_utf8_lossy(bytes).chars().take(CommandText::MAX_CHARS).collect();
    let Ok(command) = CommandText::parse(text.clone()) else { return };
    for shell in Shell::ALL {
        let reading = reader::read(&text, shell);
        // Linear, but for here-documents that never close: the search for their ends stops at the bound.
        let linear = 64 * (u64::try_from(text.len()).unwrap() + 1);
        assert!(reading.steps <= reader::MAX_STEPS + linear, "{} steps", reading.steps);
        assert!(reading.opaque.iter().all(|(span, _)| text.get(span.start..span.end).is_some()));
        assert!(reading.commands.iter().all(|it| text.get(it.span.start..it.span.end).is_some()));
        let judgement = BUILTIN.judge(&request(&command, shell));
        assert_eq!(BUILTIN.explain(&request(&command, shell)).judgement, judgement, "asked twice, answered twice");
        assert!(judgement.reasons.iter().filter_map(|it| it.span).all(|it| text.get(it.start..it.end).is_some()));
        let named = BUILTIN.scripts(&command, shell);
        assert!(named.len() <= provara_policy::MAX_NAMED);
        assert!(named.iter().all(|it| text.get(it.span.start..it.span.end).is_some()));
        assert!(!judgement.reasons.is_empty(), "no reason is told");
        assert!(reading.opaque.is_empty() || judgement.verdict > Verdict::Allow, "unread, and allowed");
        assert!(!reading.too_deep || judgement.verdict == Verdict::Deny, "too deep, and not denied");
        assert!(!text.chars().any(reader::is_hidden) || judgement.verdict > Verdict::Allow, "hidden, and allowed");
        let bad = if shell == Shell::Pwsh { "iex x\n" } else { "rm -rf /etc\n" };
        if let Ok(worse) = CommandText::parse(format!("{bad}{text}")) {
            assert_eq!(BUILTIN.judge(&request(&worse, shell)).verdict, Verdict::Deny, "what follows softened it");
        }
    }
}

/// Loaded or refused with words, and no file takes back what another denies.
pub fn rule_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Policy::load(&[RuleFile { name: "own.toml", text: &text }], Strictness::Ask) {
        Ok(policy) => {
            let bad = CommandText::parse("rm -rf /etc".to_owned()).unwrap();
            assert_eq!(policy.judge(&request(&bad, Shell::Bash)).verdict, Verdict::Deny);
            assert_ne!(policy.version(), BUILTIN.version(), "a file left no mark on the version");
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            assert!(errors.0.iter().all(|error| !error.what.is_empty() && !error.mend.is_empty()), "{errors}");
        }
    }
}
