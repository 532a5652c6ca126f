//! Colour, where somebody wants it: on a terminal, unless `NO_COLOR` is set; anywhere with `CLICOLOR_FORCE`.

use std::ffi::OsStr;
use std::io::IsTerminal;

/// What a colour says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tone {
    Head,
    Good,
    Careful,
    Bad,
}

/// Colours, or leaves as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    /// Returns what suits `stream` in this environment.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if set("NO_COLOR").is_some() {
            return Self(false);
        }
        let forced = set("CLICOLOR_FORCE").is_some_and(|value| value != OsStr::new("0"));
        let dumb = set("TERM").is_none_or(|value| value == OsStr::new("dumb"));
        Self(forced || (stream.is_terminal() && !dumb))
    }

    /// Returns `text`, which MUST have been made visible, in the colour of `tone`.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Head => "1",
            Tone::Good => "32",
            Tone::Careful => "33",
            Tone::Bad => "31",
        };
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Returns a verdict's word in its colour.
    pub(crate) fn verdict(self, word: &str) -> String {
        match word {
            "allow" => self.paint(Tone::Good, word),
            "deny" => self.paint(Tone::Bad, word),
            _ => self.paint(Tone::Careful, word),
        }
    }
}
