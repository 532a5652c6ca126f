//! The names a program goes by.

/// Returns the bare name of a program, lowercase, and the same without an ending of Windows.
pub(crate) fn names(program: &str) -> (String, String) {
    let base = program.rsplit(['/', '\\']).next().unwrap_or(program).to_lowercase();
    let stem = [".exe", ".com", ".cmd", ".bat"].into_iter().find_map(|ending| base.strip_suffix(ending));
    let stem = stem.unwrap_or(&base).to_owned();
    (base, stem)
}
