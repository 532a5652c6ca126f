//! C2SP `signed-note`, `tlog-checkpoint` and RFC 6962 proofs, held against an implementation that shares no code with ours.

use std::collections::HashMap;
use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use provara_audit::checkpoint::{Checkpoint, LogKey, VerifierKey, open};
use provara_audit::merkle::{self, Hash, Nodes, leaf_hash};
use signed_note::{Note, Signer as _, StandardSigner, StandardVerifier, Verifier as _, VerifierList};
use tlog_tiles::{Checkpoint as TheirCheckpoint, Hash as TheirHash, HashReader};

const NAME: &str = "example.org/log";

fn ours() -> LogKey {
    LogKey::from_seed(NAME, [7; 32]).unwrap()
}

fn our_verifier() -> VerifierKey {
    VerifierKey::parse(&ours().vkey()).unwrap()
}

/// The same secret, in their words.
fn theirs(seed: [u8; 32]) -> StandardSigner {
    let vkey = LogKey::from_seed(NAME, seed).unwrap().vkey();
    let id = vkey.split('+').nth(1).unwrap().to_owned();
    let key = STANDARD.encode([&[1][..], &seed].concat());
    StandardSigner::new(&format!("PRIVATE+KEY+{NAME}+{id}+{key}")).unwrap()
}

fn known() -> VerifierList {
    VerifierList::new(vec![Box::new(StandardVerifier::new(&ours().vkey()).unwrap())])
}

/// What their implementation reads of a note, if it believes it.
fn they_open(note: &[u8]) -> Option<(String, u64, [u8; 32])> {
    let note = Note::from_bytes(note).ok()?;
    note.verify(&known()).ok()?;
    let read = TheirCheckpoint::from_bytes(note.text()).ok()?;
    Some((read.origin().to_owned(), read.size(), read.hash().0))
}

fn signed_by_them(text: &str, seed: [u8; 32]) -> String {
    let mut note = Note::new(text.as_bytes(), &[]).unwrap();
    note.add_sigs(&[&theirs(seed)]).unwrap();
    String::from_utf8(note.to_bytes()).unwrap()
}

#[test]
fn they_read_our_keys_and_checkpoints() {
    let verifier = StandardVerifier::new(&ours().vkey()).unwrap();
    assert_eq!((verifier.name(), verifier.key_id()), (NAME, theirs([7; 32]).key_id()));
    for size in [0, 1, 42, u64::MAX] {
        let root = leaf_hash(&size.to_be_bytes());
        assert_eq!(they_open(ours().sign(size, &root).as_bytes()), Some((NAME.to_owned(), size, root.0)));
    }
}

#[test]
fn we_read_theirs_and_write_the_same_bytes() {
    let root = leaf_hash(b"x");
    let text = TheirCheckpoint::new(NAME, 42, TheirHash(root.0), "").unwrap().to_bytes();
    let note = signed_by_them(std::str::from_utf8(&text).unwrap(), [7; 32]);
    assert_eq!(open(&note, &our_verifier()), Ok(Checkpoint { origin: NAME.to_owned(), size: 42, root }));
    // Ed25519 is deterministic, so two right implementations sign alike.
    assert_eq!(note, ours().sign(42, &root));
    let extended = TheirCheckpoint::new(NAME, 42, TheirHash(root.0), "more\nand more\n").unwrap().to_bytes();
    let note = signed_by_them(std::str::from_utf8(&extended).unwrap(), [7; 32]);
    assert_eq!(open(&note, &our_verifier()).map(|read| read.size), Ok(42));
}

#[test]
fn we_refuse_what_they_refuse() {
    let root = leaf_hash(b"x");
    let good = ours().sign(42, &root);
    assert!(they_open(good.as_bytes()).is_some());
    let (text, signature) = good.split_once("\n\n").unwrap();
    let other = LogKey::from_seed(NAME, [8; 32]).unwrap().sign(42, &root);
    let others_line = other.split_once("\n\n").unwrap().1;
    let wrong = ours().sign(43, &root);
    let wrong_line = wrong.split_once("\n\n").unwrap().1;
    let cases = [
        ("another key of the same name", other.clone()),
        ("a signature of another text", format!("{text}\n\n{wrong_line}")),
        ("a wrong signature before the right one", format!("{text}\n\n{wrong_line}{signature}")),
        ("no line feed at the end", good.trim_end().to_owned()),
        ("carriage returns", good.replace('\n', "\r\n")),
        ("a carriage return after the signature", good.trim_end().to_owned() + "\r\n"),
        ("an empty line at the end", format!("{good}\n")),
        ("a line that is no signature", format!("{good}- {NAME} AAAAAAAAAAA=\n")),
        ("a short signature", format!("{good}\u{2014} w AAAA\n")),
        ("a name with a plus", format!("{good}\u{2014} w+x AAAAAAAAAAA=\n")),
        ("no signature", format!("{text}\n\n")),
        ("a tab", format!("{text}\n\n{}\t\n", signature.trim_end())),
        ("a byte-order mark", format!("\u{feff}{good}")),
        ("a leading zero", signed_by_them(&format!("{NAME}\n042\n{}\n", STANDARD.encode(root.0)), [7; 32])),
        ("a sign", signed_by_them(&format!("{NAME}\n+42\n{}\n", STANDARD.encode(root.0)), [7; 32])),
        ("a short root", signed_by_them(&format!("{NAME}\n42\nAAAA\n"), [7; 32])),
        ("an empty extension", signed_by_them(&format!("{NAME}\n42\n{}\n\nx\n", STANDARD.encode(root.0)), [7; 32])),
        ("too many signatures", good.clone() + &others_line.repeat(100)),
    ];
    for (what, note) in cases {
        assert_eq!(they_open(note.as_bytes()), None, "{what}: they believe it");
        assert!(open(&note, &our_verifier()).is_err(), "{what}: we believe it");
    }
    // And a second signature by somebody else is no reason to refuse.
    let witnessed = format!("{good}{others_line}");
    assert!(they_open(witnessed.as_bytes()).is_some() && open(&witnessed, &our_verifier()).is_ok());
}

#[test]
fn keys_that_they_refuse_we_refuse() {
    let vkey = ours().vkey();
    for bad in [
        vkey.replacen("example", "exam ple", 1),
        vkey.replacen("example", "example2", 1),
        vkey.replacen('+', "", 1),
        vkey.replacen("+A", "+B", 1),
        String::new(),
        "++".to_owned(),
    ] {
        assert!(StandardVerifier::new(&bad).is_err(), "{bad}: they believe it");
        assert!(VerifierKey::parse(&bad).is_err(), "{bad}: we believe it");
    }
}

proptest! {
    #[test]
    fn no_bent_note_is_believed_by_us_alone(
        at in any::<prop::sample::Index>(), with in "[\n\r\t +—a-zA-Z0-9=]{0,3}", cut in 0usize..4,
    ) {
        let note: Vec<char> = ours().sign(42, &leaf_hash(b"x")).chars().collect();
        let at = at.index(note.len());
        let rest = note.get(at + cut..).unwrap_or_default();
        let bent: String = note[..at].iter().copied().chain(with.chars()).chain(rest.iter().copied()).collect();
        if open(&bent, &our_verifier()).is_ok() {
            prop_assert!(they_open(bent.as_bytes()).is_some(), "{bent:?}");
        }
    }
}

/// Both stores of one tree.
#[derive(Default)]
struct Trees {
    ours: HashMap<(u8, u64), Hash>,
    theirs: Vec<TheirHash>,
}

impl Nodes for Trees {
    type Error = Infallible;
    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        Ok(self.ours[&(level, index)])
    }
}

struct Kept<'a>(&'a [TheirHash]);

impl HashReader for Kept<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<TheirHash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
    }
}

#[test]
fn roots_and_proofs_of_every_tree_up_to_two_hundred_are_theirs() {
    let mut trees = Trees::default();
    let mut roots = vec![merkle::empty_root()];
    let same =
        |ours: &[Hash], theirs: &[TheirHash]| ours.iter().map(|hash| hash.0).eq(theirs.iter().map(|hash| hash.0));
    for size in 1..=200u64 {
        let record = format!("entry {size}");
        for (level, index, hash) in merkle::append(&trees, size - 1, leaf_hash(record.as_bytes())).unwrap() {
            trees.ours.insert((level, index), hash);
        }
        let more = tlog_tiles::stored_hashes(size - 1, record.as_bytes(), &Kept(&trees.theirs)).unwrap();
        trees.theirs.extend(more);
        let kept = Kept(&trees.theirs);
        let root = merkle::root(&trees, size).unwrap();
        let their_root = tlog_tiles::tree_hash(size, &kept).unwrap();
        assert_eq!(root.0, their_root.0, "root of {size}");
        roots.push(root);
        for index in 0..size {
            let leaf = leaf_hash(format!("entry {}", index + 1).as_bytes());
            let (mine, yours) = (
                merkle::inclusion_proof(&trees, index, size).unwrap(),
                tlog_tiles::prove_record(size, index, &kept).unwrap(),
            );
            assert!(same(&mine, &yours), "inclusion of {index} in {size}");
            tlog_tiles::check_record(&yours, size, their_root, index, TheirHash(leaf.0)).unwrap();
            merkle::verify_inclusion(&leaf, index, size, &mine, &root).unwrap();
        }
        for old in 1..=size {
            let (mine, yours) = (
                merkle::consistency_proof(&trees, old, size).unwrap(),
                tlog_tiles::prove_tree(size, old, &kept).unwrap(),
            );
            assert!(same(&mine, &yours), "consistency of {old} and {size}");
            let old_root = roots[usize::try_from(old).unwrap()];
            tlog_tiles::check_tree(&yours, size, their_root, old, TheirHash(old_root.0)).unwrap();
            merkle::verify_consistency(old, size, &mine, &old_root, &root).unwrap();
        }
    }
}
