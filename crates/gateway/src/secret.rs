//! The text of a token, in one place: whoever makes one and whoever checks one agree on its form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Returns a new token: `pv_`, `kind`, 256 bits that nobody can guess, and six characters by which a secret scanner knows a
/// real one.
pub fn new_secret(kind: &str, bits: [u8; 32]) -> String {
    let body = format!("pv_{kind}_{}", URL_SAFE_NO_PAD.encode(bits));
    let sum = checksum(&body);
    format!("{body}{sum}")
}

/// Returns whether a token that claims to be one of ours was copied whole. Others' forms are not judged.
pub fn is_whole_secret(token: &str) -> bool {
    let ours = token.strip_prefix("pv_").is_some_and(|rest| rest.contains('_'));
    match token.len().checked_sub(6).and_then(|at| token.split_at_checked(at)) {
        Some((body, sum)) if ours => checksum(body) == sum,
        _ => !ours,
    }
}

fn checksum(body: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(body.as_bytes())).chars().take(6).collect()
}
