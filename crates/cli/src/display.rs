//! Text as a person may safely look at it: nothing hidden, nothing that moves the cursor, nothing that looks like something
//! else. What is not plain is shown as a chip, `⟦U+202E⟧`; the brackets themselves are shown as chips, so that no text can
//! forge one.

use std::io::{self, IsTerminal as _, Write};

use serde_json::Value;
use unicode_security::confusable_detection::skeleton;
use unicode_security::general_security_profile::GeneralSecurityProfile as _;

/// Returns `text` with every character made visible that a terminal would hide, obey or show as another. Line feeds and
/// tabs stay.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        push_visible(&mut out, c);
    }
    out
}

/// Returns `text` on one line: line feeds and tabs become chips too.
pub(crate) fn visible_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => push_chip(&mut out, c),
            _ => push_visible(&mut out, c),
        }
    }
    out
}

/// Returns `bytes` as text that can be looked at; what is no UTF-8 is shown byte by byte.
pub(crate) fn visible_bytes(bytes: &[u8]) -> String {
    let mut stream = VisibleStream::default();
    let text = stream.push(bytes);
    text + &stream.finish()
}

/// Writes `value` on a line. A terminal gets every odd character as `\u….`, which any reader of JSON reads as the same.
pub(crate) fn write_json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    let text = value.to_string();
    let text = if io::stdout().is_terminal() { escaped_json(&text) } else { text };
    writeln!(out, "{text}")
}

/// JSON has no odd character outside of its strings, so each can be written as an escape where it stands.
fn escaped_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => out.push(c),
            _ if is_plain(c) && !looks_like_ascii(c) => out.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out
}

/// Makes a stream of bytes visible, though characters may be cut between two reads.
#[derive(Debug, Default)]
pub(crate) struct VisibleStream {
    /// The beginning of a character whose end has not come yet: three bytes at most.
    held: Vec<u8>,
}

impl VisibleStream {
    /// Returns what can be shown of everything up to `bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut out = String::with_capacity(held.len());
        let mut chunks = held.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            chunk.valid().chars().for_each(|c| push_visible(&mut out, c));
            let bad = chunk.invalid();
            if chunks.peek().is_none() && begins_a_character(bad) {
                self.held = bad.to_vec();
            } else {
                push_bytes(&mut out, bad);
            }
        }
        out
    }

    /// Returns what was still held when the stream ended.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        push_bytes(&mut out, &std::mem::take(&mut self.held));
        out
    }
}

/// Whether `bytes` could still become a character.
fn begins_a_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none() && error.valid_up_to() == 0)
}

fn push_bytes(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        out.push_str(&format!("⟦0x{byte:02X}⟧"));
    }
}

fn push_visible(out: &mut String, c: char) {
    match c {
        '\n' | '\t' | ' '..='~' => out.push(c),
        // The look-alike itself stays readable beside its number: names in other scripts are legitimate.
        _ if is_plain(c) && looks_like_ascii(c) => {
            out.push(c);
            push_chip(out, c);
        }
        _ if is_plain(c) => out.push(c),
        _ => push_chip(out, c),
    }
}

fn push_chip(out: &mut String, c: char) {
    out.push_str(&format!("⟦U+{:04X}⟧", u32::from(c)));
}

/// Whether `c` has a shape of its own and takes part in nothing invisible.
fn is_plain(c: char) -> bool {
    let hidden = c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFD}'
            | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E000}'..='\u{F8FF}' | '\u{E0000}'..='\u{10FFFF}'
            | '⟦' | '⟧')
        // Combining marks alter the character before them.
        || matches!(c, '\u{0300}'..='\u{036F}' | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}' | '\u{20D0}'..='\u{20FF}' | '\u{FE20}'..='\u{FE2F}');
    !hidden
}

/// Whether `c` could be taken for ASCII: `а` (Cyrillic) for `a`, `；` for `;`, `–` for `-`.
fn looks_like_ascii(c: char) -> bool {
    let mut buffer = [0; 4];
    let text: &str = c.encode_utf8(&mut buffer);
    let fullwidth = matches!(c, '\u{FF01}'..='\u{FF5E}');
    fullwidth
        || (skeleton(text).all(|s| s.is_ascii())
            && !(c.is_alphabetic() && is_accented_latin(c) && c.identifier_allowed()))
}

fn is_accented_latin(c: char) -> bool {
    matches!(c, '\u{00C0}'..='\u{017F}') && !matches!(c, 'ı' | 'ſ' | 'ĸ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_or_hide_is_shown() {
        for (raw, shown) in [
            ("ls\u{1b}[2K\rid", "ls⟦U+001B⟧[2K⟦U+000D⟧id"),
            ("a\u{202e}b\u{2066}", "a⟦U+202E⟧b⟦U+2066⟧"),
            ("rm\u{200b} -rf\u{a0}/", "rm⟦U+200B⟧ -rf⟦U+00A0⟧/"),
            ("x\u{e0041}\u{fe0f}\u{9b}", "x⟦U+E0041⟧⟦U+FE0F⟧⟦U+009B⟧"),
            ("c\u{430}t", "cа⟦U+0430⟧t"),
            ("\u{ff1b} \u{37e}", "；⟦U+FF1B⟧ \u{37e}⟦U+037E⟧"),
            ("⟦U+202E⟧", "⟦U+27E6⟧U+202E⟦U+27E7⟧"),
            ("naïve 日本 ok\n\tx", "naïve 日本 ok\n\tx"),
        ] {
            assert_eq!(visible(raw), shown, "{raw:?}");
        }
        assert_eq!(visible_line("a\nb"), "a⟦U+000A⟧b");
    }

    #[test]
    fn json_for_a_terminal_is_the_same_value_and_hides_nothing() {
        let value = serde_json::json!({ "a": "x\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{200b}\u{430}\u{e0041}\n日本", "b": ["\u{feff}"] });
        let shown = escaped_json(&value.to_string());
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
        assert!(shown.contains(r"\u001b[2J\u007f\u009b\u202e\u200b\u0430\udb40\udc41\n日本"), "{shown}");
    }

    #[test]
    fn a_character_cut_in_two_is_whole_again_and_bad_bytes_are_shown() {
        let mut stream = VisibleStream::default();
        assert_eq!(stream.push("é".as_bytes().get(..1).unwrap()), "");
        assert_eq!(stream.push("é!".as_bytes().get(1..).unwrap()), "é!");
        assert_eq!(stream.push(b"\xff\xe2\x82"), "⟦0xFF⟧");
        assert_eq!(stream.finish(), "⟦0xE2⟧⟦0x82⟧");
    }

    #[test]
    fn no_shown_text_has_a_control_character_whatever_comes_in() {
        for code in 0..=0x10_FFFFu32 {
            if let Some(c) = char::from_u32(code) {
                let shown = visible(&c.to_string());
                assert!(
                    !shown.is_empty() && shown.chars().all(|s| s == '\n' || s == '\t' || !s.is_control()),
                    "{code:x}"
                );
            }
        }
    }
}
