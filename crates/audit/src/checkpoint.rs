//! Checkpoints: C2SP `tlog-checkpoint` in a C2SP `signed-note`, signed by Ed25519 (signature type 0x01).
//!
//! ```text
//! example.org/log
//! 42
//! qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=
//!
//! — example.org/log Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::merkle::Hash;

const ED25519: u8 = 1;
/// The longest note that is read, in bytes: three lines and some signatures of witnesses.
const MAX_NOTE: usize = 64 * 1024;
/// The most signatures that are looked at.
const MAX_SIGNATURES: usize = 100;

/// Why a key or a note was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A log's name has no blank, plus sign or control character, and is not empty.
    #[error("a log's name must not be empty or contain blanks, `+` or control characters")]
    Origin,
    /// Not `name+hash+key` of an Ed25519 key whose hash fits.
    #[error("not a verifier key of the form `name+hash+key`")]
    Key,
    /// Not a note of three lines, an empty line and signatures.
    #[error("not a signed checkpoint: {0}")]
    Form(&'static str),
    /// The key that was given did not sign it.
    #[error("the checkpoint carries no valid signature of `{0}`")]
    Signature(String),
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// The log's signing key.
pub struct LogKey {
    origin: String,
    key: SigningKey,
}

/// The key that a checkpoint is verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    origin: String,
    key: VerifyingKey,
}

impl LogKey {
    /// Returns the key of the log `origin` whose secret is `seed`.
    ///
    /// # Errors
    /// When `origin` cannot name a log.
    pub fn from_seed(origin: &str, seed: [u8; 32]) -> Result<Self, CheckpointError> {
        if !names_a_log(origin) {
            return Err(CheckpointError::Origin);
        }
        Ok(Self { origin: origin.to_owned(), key: SigningKey::from_bytes(&seed) })
    }

    /// Returns the log's name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the verifier key, `name+hash+key`.
    pub fn vkey(&self) -> String {
        let key = self.key.verifying_key();
        let [a, b, c, d] = key_hash(&self.origin, &key);
        let typed = [&[ED25519][..], key.as_bytes()].concat();
        format!("{}+{a:02x}{b:02x}{c:02x}{d:02x}+{}", self.origin, STANDARD.encode(typed))
    }

    /// Returns the signed checkpoint of a log of `size` entries under `root`.
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        let text = format!("{}\n{size}\n{}\n", self.origin, STANDARD.encode(root.0));
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let blob = [&key_hash(&self.origin, &self.key.verifying_key())[..], &signature].concat();
        format!("{text}\n\u{2014} {} {}\n", self.origin, STANDARD.encode(blob))
    }
}

impl VerifierKey {
    /// Returns the key that `vkey` spells.
    ///
    /// # Errors
    /// When it is not an Ed25519 key, or the hash in it does not fit.
    pub fn parse(vkey: &str) -> Result<Self, CheckpointError> {
        let mut parts = vkey.trim_end().splitn(3, '+');
        let (origin, hash, key) = match (parts.next(), parts.next(), parts.next()) {
            (Some(origin), Some(hash), Some(key)) if names_a_log(origin) => (origin, hash, key),
            _ => return Err(CheckpointError::Key),
        };
        let typed = STANDARD.decode(key).map_err(|_| CheckpointError::Key)?;
        let Some((&ED25519, key)) = typed.split_first() else { return Err(CheckpointError::Key) };
        let key: [u8; 32] = key.try_into().map_err(|_| CheckpointError::Key)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| CheckpointError::Key)?;
        let [a, b, c, d] = key_hash(origin, &key);
        if hash != format!("{a:02x}{b:02x}{c:02x}{d:02x}") {
            return Err(CheckpointError::Key);
        }
        Ok(Self { origin: origin.to_owned(), key })
    }

    /// Returns the log's name.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

/// Returns what a signed checkpoint says, if `key` signed it. Signatures of others are passed over, but have to be ones.
///
/// # Errors
/// When it has not the form, is another log's, or `key` did not sign it.
pub fn open(note: &str, key: &VerifierKey) -> Result<Checkpoint, CheckpointError> {
    if note.len() > MAX_NOTE {
        return Err(CheckpointError::Form("it is too long"));
    }
    if note.chars().any(|c| c.is_control() && c != '\n') {
        return Err(CheckpointError::Form("it has a control character"));
    }
    // The text ends at the last empty line; the signatures follow.
    let (text, signatures) = note.rsplit_once("\n\n").ok_or(CheckpointError::Form("it has no signatures"))?;
    let signatures = signatures.strip_suffix('\n').ok_or(CheckpointError::Form("it is torn"))?;
    let text = format!("{text}\n");
    let missing = || CheckpointError::Signature(key.origin.clone());
    let hash = key_hash(&key.origin, &key.key);
    let mut signed = false;
    for (count, line) in signatures.split('\n').enumerate() {
        if count == MAX_SIGNATURES {
            return Err(CheckpointError::Form("it has too many signatures"));
        }
        let (name, id, signature) = signature_of(line).ok_or(CheckpointError::Form("a signature is malformed"))?;
        if name == key.origin && id == hash {
            // Strict: no signature that another implementation might refuse, and no second one that is wrong.
            let signature = Signature::from_slice(&signature).map_err(|_| missing())?;
            key.key.verify_strict(text.as_bytes(), &signature).map_err(|_| missing())?;
            signed = true;
        }
    }
    if signed { said(&text, key) } else { Err(missing()) }
}

/// What the text of a checkpoint says: three lines, and further ones that are not empty and not ours to read.
fn said(text: &str, key: &VerifierKey) -> Result<Checkpoint, CheckpointError> {
    let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    let origin = lines.next().unwrap_or_default();
    if origin != key.origin {
        return Err(CheckpointError::Form("it is another log's"));
    }
    let size = lines.next().unwrap_or_default();
    let plain = size == "0" || (!size.starts_with('0') && size.bytes().all(|b| b.is_ascii_digit()));
    let size = size.parse().ok().filter(|_| plain).ok_or(CheckpointError::Form("its second line is no number"))?;
    let root = lines.next().and_then(|line| STANDARD.decode(line).ok()).and_then(|root| root.try_into().ok());
    let root = root.map(Hash).ok_or(CheckpointError::Form("its third line is no hash"))?;
    if lines.any(str::is_empty) {
        return Err(CheckpointError::Form("it has an empty line"));
    }
    Ok(Checkpoint { origin: origin.to_owned(), size, root })
}

/// The signer's name, the key's hash, and the signature, of a line of the form `— name base64`.
fn signature_of(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, blob) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let blob = STANDARD.decode(blob).ok()?;
    let (key_hash, signature) = blob.split_first_chunk::<4>()?;
    (names_a_log(name) && !signature.is_empty()).then(|| (name, *key_hash, signature.to_vec()))
}

fn names_a_log(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// The first four bytes of SHA-256(name ‖ LF ‖ type ‖ key).
fn key_hash(origin: &str, key: &VerifyingKey) -> [u8; 4] {
    let digest =
        Sha256::new().chain_update(origin).chain_update([b'\n', ED25519]).chain_update(key.as_bytes()).finalize();
    let [a, b, c, d, ..] = <[u8; 32]>::from(digest);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::leaf_hash;

    fn key() -> LogKey {
        LogKey::from_seed("example.org/log", [7; 32]).unwrap()
    }

    #[test]
    fn what_was_signed_is_read_back() {
        let root = leaf_hash(b"x");
        let note = key().sign(42, &root);
        let verifier = VerifierKey::parse(&key().vkey()).unwrap();
        let expected = Checkpoint { origin: "example.org/log".into(), size: 42, root };
        assert_eq!(open(&note, &verifier), Ok(expected.clone()));
        let witnessed = format!("{note}\u{2014} witness.example AAAAAAA=\n");
        assert_eq!(open(&witnessed, &verifier), Ok(expected));
    }

    #[test]
    fn another_key_of_the_same_name_is_refused() {
        let other = LogKey::from_seed("example.org/log", [8; 32]).unwrap();
        let verifier = VerifierKey::parse(&other.vkey()).unwrap();
        let refused = open(&key().sign(1, &leaf_hash(b"x")), &verifier);
        assert_eq!(refused, Err(CheckpointError::Signature("example.org/log".into())));
    }

    #[test]
    fn names_that_could_forge_a_line_are_refused() {
        for bad in ["", "a b", "a+b", "a\nb", "a\u{a0}b"] {
            assert!(LogKey::from_seed(bad, [7; 32]).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..7) {
            let mut note = key().sign(42, &leaf_hash(b"x")).into_bytes();
            let at = at.index(note.len());
            note[at] ^= 1 << bit;
            let verifier = VerifierKey::parse(&key().vkey()).unwrap();
            if let Ok(note) = String::from_utf8(note) {
                prop_assert!(open(&note, &verifier).is_err());
            }
        }

        #[test]
        fn arbitrary_text_is_refused_without_panic(text in "\\PC*", vkey in "\\PC*") {
            let verifier = VerifierKey::parse(&key().vkey()).unwrap();
            prop_assert!(open(&text, &verifier).is_err());
            prop_assert!(VerifierKey::parse(&vkey).is_err());
        }
    }
}
