//! What must hold for whatever is shown on a terminal.

/// What texts are made of.
pub const TEXTS: &[&str] = &[
    "ls",
    "\u{1b}[2K",
    "\u{1b}]0;x\u{7}",
    "\u{9b}1A",
    "\r",
    "\n",
    "\t",
    "\u{8}",
    "\u{202e}",
    "\u{2066}",
    "\u{200b}",
    "\u{2028}",
    "\u{e0100}",
    "\u{e000}",
    "\u{a0}",
    "\u{3000}",
    "\u{430}",
    "\u{ff1b}",
    "\u{300}",
    "⟦",
    "⟧",
    "U+200B",
    "0xFF",
    "é",
    "日本",
    "🙂",
    "\u{fdd0}",
    "\u{13430}",
];

/// Whether `shown` has nothing that a terminal obeys or hides.
fn assert_safe(shown: &str) {
    for c in shown.chars() {
        let code = u32::from(c);
        let bad = (c.is_control() && c != '\n' && c != '\t')
            || matches!(code, 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xE000..=0xF8FF | 0xE0000..=0x10FFFF | 0xFEFF | 0xAD);
        assert!(!bad, "U+{code:04X} is shown raw in {shown:?}");
    }
}

/// Nothing hidden is left, a stream shows the same however it is cut, and one line stays one line.
pub fn text(
    bytes: &[u8],
    cut: usize,
    visible: fn(&str) -> String,
    line: fn(&str) -> String,
    stream: impl Fn(&[&[u8]]) -> String,
) {
    let text = String::from_utf8_lossy(bytes);
    assert_safe(&visible(&text));
    assert_safe(&line(&text));
    assert!(!line(&text).contains(['\n', '\t']));
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    let whole = stream(&[bytes]);
    assert_safe(&whole);
    assert_eq!(stream(&[first, second]), whole, "cut at {}", first.len());
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert_eq!(visible(text), whole);
    }
}
