//! PowerShell's characters: it takes typographic dashes, quotes and blanks for plain ones.

/// Returns what PowerShell takes `c` for.
pub(super) const fn plain(c: char) -> char {
    match c {
        '\u{2013}' | '\u{2014}' | '\u{2015}' => '-',
        '\u{2018}' | '\u{2019}' | '\u{201A}' | '\u{201B}' => '\'',
        '\u{201C}' | '\u{201D}' | '\u{201E}' => '"',
        '\u{A0}' | '\u{85}' | '\t' | '\u{B}' | '\u{C}' => ' ',
        '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}' => ' ',
        other => other,
    }
}

/// Returns whether a word of a command ends before `c`.
pub(super) const fn ends_word(c: char) -> bool {
    matches!(plain(c), ' ' | '\n' | '\r' | ';' | '|' | '&' | '(' | ')' | '{' | '}' | ',' | '<' | '>')
}

/// Returns whether `c` can stand in a name of a variable, a member or a keyword.
pub(super) fn names(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the character that a backtick and `c` stand for.
pub(super) const fn escaped(c: char) -> char {
    match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        '0' => '\0',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'e' => '\u{1B}',
        'f' => '\u{C}',
        'v' => '\u{B}',
        other => other,
    }
}
