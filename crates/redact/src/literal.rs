//! Secrets that are known to the byte, and the forms in which programs print them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, general_purpose::NO_PAD};

/// Shorter values are words that any output may hold.
const SHORTEST: usize = 6;
/// How much of a form has to stand together: the beginning, or for long forms what follows it.
pub(crate) const HEAD: usize = 8;
/// From here on, a line break within a form is the printing program's, not the text's.
pub(crate) const FOLDED: usize = 16;

/// What the parts of a secret variable's name end in, without an `s`.
const SECRET_NAMES: [&str; 11] =
    ["token", "secret", "key", "password", "passwd", "pas", "passphrase", "credential", "auth", "cookie", "pwd"];

/// A value that is secret whatever it looks like.
#[derive(Clone, PartialEq, Eq)]
pub struct Literal {
    name: String,
    value: Vec<u8>,
}

impl Literal {
    /// Returns the secret `value`, which marks call `name`. Values of fewer than six bytes are ignored: their marks would
    /// tell nothing and be everywhere.
    pub fn new(name: &str, value: impl Into<Vec<u8>>) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        Self { name: name.chars().take(64).map(plain).collect(), value: value.into() }
    }

    /// Returns the value of the environment's variable `name`, where its name says that it is secret: a part of the name is
    /// `token`, `secret`, `key`, `password`, `credentials` or the like. A path or a switch is no secret whatever it is called.
    pub fn of_variable(name: &str, value: &str) -> Option<Self> {
        let parts = || name.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase);
        let promises = parts()
            .any(|part| SECRET_NAMES.iter().any(|known| part.strip_suffix('s').unwrap_or(&part).ends_with(known)));
        let harmless = parts().any(|part| matches!(part.as_str(), "file" | "path" | "dir" | "sock" | "id" | "url"))
            || value.starts_with(['/', '.'])
            || value.bytes().all(|byte| byte.is_ascii_digit());
        (promises && !harmless).then(|| Self::new(&format!("variable-{name}"), value))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The value as it is, in base64 wherever it may begin there, percent-encoded, in hex, and within JSON.
    pub(crate) fn forms(&self) -> BTreeSet<Vec<u8>> {
        let value = &self.value;
        let mut forms = BTreeSet::new();
        if value.len() < SHORTEST {
            return forms;
        }
        forms.insert(value.clone());
        for letters in [&alphabet::STANDARD, &alphabet::URL_SAFE] {
            let engine = GeneralPurpose::new(letters, NO_PAD);
            forms.extend((0..3).map(|before| inside_base64(&engine, value, before)));
        }
        forms.insert(percent(value, "%20", u8::is_ascii_uppercase));
        forms.insert(percent(value, "%20", u8::is_ascii_lowercase));
        forms.insert(percent(value, "+", u8::is_ascii_uppercase));
        let hex = |upper: bool| {
            value.iter().fold(String::new(), |mut text, byte| {
                let _ = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
                text
            })
        };
        forms.insert(hex(false).into_bytes());
        forms.insert(hex(true).into_bytes());
        forms.insert(in_json(value));
        forms.retain(|form| form.len() >= SHORTEST);
        forms
    }
}

impl std::fmt::Debug for Literal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Literal({}, …)", self.name)
    }
}

/// The characters that are the same whatever stands around the value, `before` bytes of a group of three before it.
fn inside_base64(engine: &GeneralPurpose, value: &[u8], before: usize) -> Vec<u8> {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(value);
    let text = engine.encode(&bytes).into_bytes();
    let (first, whole) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    text.get(first..whole).unwrap_or_default().to_vec()
}

fn percent(value: &[u8], space: &str, case: fn(&u8) -> bool) -> Vec<u8> {
    let mut text = String::new();
    for byte in value {
        let _ = match byte {
            b' ' => write!(text, "{space}"),
            b'-' | b'.' | b'_' | b'~' => write!(text, "{}", char::from(*byte)),
            _ if byte.is_ascii_alphanumeric() => write!(text, "{}", char::from(*byte)),
            _ if case(&b'A') => write!(text, "%{byte:02X}"),
            _ => write!(text, "%{byte:02x}"),
        };
    }
    text.into_bytes()
}

fn in_json(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in value {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', *byte]),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            _ => text.push(*byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_base64_form_is_found_whatever_stands_before_and_after() {
        let secret = b"pv_agent_Zm9vYmFy?";
        let forms = Literal::new("token", secret).forms();
        for before in 0..7 {
            let mut text = vec![b'x'; before];
            text.extend_from_slice(secret);
            text.extend_from_slice(b" and more");
            let encoded = STANDARD.encode(text);
            let found = forms.iter().filter(|form| form.len() > 16).any(|form| encoded.contains(str(form)));
            assert!(found, "{before}: {encoded}");
        }
    }

    fn str(form: &[u8]) -> &str {
        std::str::from_utf8(form).unwrap()
    }

    #[test]
    fn short_values_have_no_forms_and_a_debug_text_shows_no_value() {
        assert_eq!(Literal::new("x", "short").forms().len(), 0);
        assert_eq!(format!("{:?}", Literal::new("My Name", "hunter2hunter2")), "Literal(my-name, …)");
    }

    #[test]
    fn a_variables_name_says_whether_its_value_is_secret() {
        let is_secret = |name: &str, value: &str| Literal::of_variable(name, value).is_some();
        for name in
            ["GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "DB_PASS", "apiKey", "MY_CREDENTIALS", "api_keys"]
        {
            assert!(is_secret(name, "hunter2hunter2"), "{name}");
        }
        for (name, value) in [
            ("PATH", "hunter2hunter2"),
            ("KEYBOARD", "hunter2hunter2"),
            ("TOKENIZER", "hunter2hunter2"),
            ("OLDPWD", "/home/me/project"),
            ("SSH_AUTH_SOCK", "hunter2hunter2"),
            ("AGENT_HUB_TLS_KEY", "/etc/key.pem"),
            ("AWS_ACCESS_KEY_ID", "hunter2hunter2"),
            ("MAX_TOKENS", "100000000"),
        ] {
            assert!(!is_secret(name, value), "{name}");
        }
    }

    #[test]
    fn the_forms_of_a_value_are_these() {
        let forms = Literal::new("x", "pä \"w\n").forms();
        let forms: BTreeSet<&str> = forms.iter().map(|form| str(form)).collect();
        for expected in ["pä \"w\n", "p%C3%A4%20%22w%0A", "p%c3%a4%20%22w%0a", "p%C3%A4+%22w%0A", "70c3a42022770a"] {
            assert!(forms.contains(expected), "{expected} is not among {forms:?}");
        }
        assert!(forms.contains("pä \\\"w\\n"), "{forms:?}");
    }
}
