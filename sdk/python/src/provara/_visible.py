"""Text that a terminal may show: nothing hidden, nothing that moves the cursor."""

from __future__ import annotations

import unicodedata

# Control, format, surrogate, private and unassigned characters, combining marks, and line and paragraph separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Mn", "Me"}
# Letters and symbols that look like nothing.
_BLANK = set("\u115f\u1160\u2800\u3164\uffa0\ufffc")


def visible_line(text: str) -> str:
    """Returns `text` on one line, what a terminal would hide or obey as chips like `⟦U+202E⟧`."""
    return "".join(_shown(char) for char in text)


def visible(text: str) -> str:
    """Returns `text` as `visible_line` does, with its line feeds and tabs kept."""
    return "".join(char if char in "\n\t" else _shown(char) for char in text)


def _shown(char: str) -> str:
    if " " <= char <= "~":
        return char
    category = unicodedata.category(char)
    # The brackets themselves, so that no text can forge a chip; spaces that are not the space.
    if category in _HIDDEN or category == "Zs" or char in _BLANK or char in "⟦⟧":
        return f"⟦U+{ord(char):04X}⟧"
    return char
