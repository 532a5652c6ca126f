//! The reader of PowerShell. It reads by a grammar of its own and follows values as it goes, because in PowerShell what
//! is called, and with what, is the value of an expression more often than a word of the text: `& ('i' + 'ex') …`.
//!
//! What a text does with .NET's types and objects is told as commands called `[type]::method` and `.method`, so that
//! program knowledge speaks of them as of any other program. What cannot be followed is opaque.

mod command;
mod dotnet;
mod expression;
mod lex;
mod scan;
mod statement;
mod value;

use std::collections::HashMap;

use self::scan::{Run, World};
use super::{Command, Reading};

/// Reads `text` into `reading`. Never panics; work is bounded by [`super::MAX_STEPS`], values and nesting have bounds of
/// their own.
pub(super) fn read_into(text: &str, reading: &mut Reading) {
    let mut world = World {
        reading,
        variables: HashMap::new(),
        aliases: HashMap::new(),
        functions: HashMap::new(),
        given: Vec::new(),
        perhaps: 0,
        nesting: 0,
        calls: 0,
        pipelines: 0,
        shown: None,
    };
    Run::new(text, 0, &mut world).whole();
    let shown = world.shown;
    if let (Some(span), true) = (shown, reading.commands.is_empty()) {
        // It shows a value, and that is all.
        reading.commands.push(Command { span, ..Command::default() });
    }
}

/// Returns the script in what `-EncodedCommand` is given: base64 of UTF-16.
fn encoded(text: &str) -> Option<String> {
    let bytes = dotnet::decoded(text.trim())?;
    (!bytes.is_empty() && bytes.len() % 2 == 0).then(|| dotnet::wide(&bytes, u16::from_le_bytes))
}

/// Returns the PowerShell that hands a line to `cmd.exe`.
pub(crate) fn of_cmd(line: &str) -> String {
    format!("cmd /c '{}'", line.replace('\'', "''"))
}
