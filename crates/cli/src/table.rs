//! Lists as aligned tables.

use std::io::{self, Write};

use crate::display::visible_line;
use crate::paint::{Paint, Tone};

/// How much of a text a list shows, in characters.
const CELL: usize = 60;

/// What stands in a list: text that was made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell(String);

impl Cell {
    /// Returns `text` on one line, whole.
    pub(crate) fn of(text: &str) -> Self {
        Self(visible_line(text))
    }

    /// Returns the beginning of `text`'s first line. What is left out is counted, in brackets that no text can forge, so that
    /// nobody takes the part for the whole.
    pub(crate) fn first_line(text: &str) -> Self {
        let line = text.split('\n').next().unwrap_or_default();
        let kept: String = line.chars().take(CELL).collect();
        match text.chars().count() - kept.chars().count() {
            0 => Self::of(&kept),
            more => Self(format!("{} ⟦+{more} characters⟧", visible_line(&kept))),
        }
    }
}

/// Writes `rows` under `heads`, each column as wide as its widest cell.
pub(crate) fn write(out: &mut dyn Write, paint: Paint, heads: &[&str], rows: &[Vec<Cell>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.0.chars().count());
        cells.chain(heads.get(column).map(|head| head.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    writeln!(out, "{}", paint.paint(Tone::Head, &line(&mut heads.iter().copied())))?;
    for row in rows {
        writeln!(out, "{}", line(&mut row.iter().map(|cell| cell.0.as_str())))?;
    }
    Ok(())
}

/// Returns how long ago something was, in its largest unit: `7s`, `12m`, `3h`, `5d`.
pub(crate) fn age(seconds: f64) -> String {
    let whole = std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default().as_secs();
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m", whole / 60),
        3600..86_400 => format!("{}h", whole / 3600),
        _ => format!("{}d", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_it_leaves_out() {
        let shown = |text: &str| Cell::first_line(text).0;
        assert_eq!(shown("ls"), "ls");
        assert_eq!(shown("ls\nrm x"), "ls ⟦+5 characters⟧");
        assert_eq!(shown(&"ä".repeat(70)), format!("{} ⟦+10 characters⟧", "ä".repeat(60)));
        assert_eq!(shown("ls ⟦+5 characters⟧"), "ls ⟦U+27E6⟧+5 characters⟦U+27E7⟧");
    }

    #[test]
    fn ages_have_one_unit() {
        let all: Vec<_> = [-1.0, 59.9, 60.0, 7199.0, 86_400.0, f64::NAN].into_iter().map(age).collect();
        assert_eq!(all, ["0s", "59s", "1m", "1h", "1d", "0s"]);
    }
}
