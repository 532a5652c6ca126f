//! The Merkle tree of RFC 6962 §2.1 (kept by RFC 9162 §2.1): roots, inclusion proofs and consistency proofs.
//!
//! A tree of any size is a few complete subtrees side by side. Those are stored once, when they are complete, and never
//! change; every root and proof is made of O(log n) of them.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A node's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where the complete subtrees are kept.
pub trait Nodes {
    /// Why a node could not be read.
    type Error;

    /// Returns the root of the complete subtree that holds the leaves `index << level` to `(index + 1) << level`, end
    /// excluded. Only asked for subtrees that are complete.
    ///
    /// # Errors
    /// When the node cannot be read.
    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// A proof that does not prove what it was shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not lead to the root")]
pub struct ProofError;

/// Returns the hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(leaf).finalize().into())
}

/// Returns the hash of a node with two children.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// Returns the hash of the tree without leaves.
pub fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

/// Returns every node that becomes complete when `leaf` is added to a tree of `size` leaves, the leaf included, as
/// `(level, index, hash)`: what has to be stored.
///
/// # Errors
/// When a node cannot be read.
pub fn append<N: Nodes>(nodes: &N, size: u64, leaf: Hash) -> Result<Vec<(u8, u64, Hash)>, N::Error> {
    let mut made = vec![(0, size, leaf)];
    let (mut level, mut index, mut hash) = (0, size, leaf);
    while index % 2 == 1 {
        hash = node_hash(&nodes.node(level, index - 1)?, &hash);
        level += 1;
        index /= 2;
        made.push((level, index, hash));
    }
    Ok(made)
}

/// Returns the root of the first `size` leaves.
///
/// # Errors
/// When a node cannot be read.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 { Ok(empty_root()) } else { range_root(nodes, 0, size) }
}

/// Returns the proof that leaf `index` is among the first `size`, nearest sibling first. Empty when it is not.
///
/// # Errors
/// When a node cannot be read.
pub fn inclusion_proof<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let mut proof = Vec::new();
    if index >= size {
        return Ok(proof);
    }
    // From the root down: each step halves the range as RFC 6962 does and notes the half that the leaf is not in.
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Returns the proof that the first `old` leaves are the beginning of the first `new`. Empty when they are equal, when
/// `old` is 0, or when `old` is larger.
///
/// # Errors
/// When a node cannot be read.
pub fn consistency_proof<N: Nodes>(nodes: &N, old: u64, new: u64) -> Result<Vec<Hash>, N::Error> {
    let mut proof = Vec::new();
    if old == 0 || old >= new {
        return Ok(proof);
    }
    let (mut start, mut end) = (0, new);
    // SUBPROOF of RFC 6962 §2.1.2, from the root down. The verifier knows the old root, so as long as the range begins
    // at 0 its own old part needs no mention.
    while end > old {
        let middle = start + split(end - start);
        if old <= middle {
            proof.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, start, middle)?);
            start = middle;
        }
    }
    if start != 0 {
        proof.push(range_root(nodes, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that `leaf` is number `index` of the `size` leaves under `root` (RFC 9162 §2.1.3.2).
///
/// # Errors
/// When it is not, as far as the proof can tell.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError);
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError);
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node % 2 == 0 && node != 0 {
                node /= 2;
                last /= 2;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node /= 2;
        last /= 2;
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(ProofError) }
}

/// Checks that the `old` leaves under `old_root` are the beginning of the `new` ones under `new_root` (RFC 9162
/// §2.1.4.2).
///
/// # Errors
/// When they are not, as far as the proof can tell.
pub fn verify_consistency(
    old: u64,
    new: u64,
    proof: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), ProofError> {
    let fits = |good: bool| if good { Ok(()) } else { Err(ProofError) };
    if old > new {
        return Err(ProofError);
    }
    if old == new {
        return fits(proof.is_empty() && old_root == new_root);
    }
    if old == 0 {
        return fits(proof.is_empty() && *old_root == empty_root());
    }
    // A complete old tree is itself the first node of the path.
    let mut path = proof.iter();
    let first = if old.is_power_of_two() { *old_root } else { *path.next().ok_or(ProofError)? };
    let (mut node, mut last) = (old - 1, new - 1);
    while node % 2 == 1 {
        node /= 2;
        last /= 2;
    }
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in path {
        if last == 0 {
            return Err(ProofError);
        }
        if node % 2 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node % 2 == 0 && node != 0 {
                node /= 2;
                last /= 2;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node /= 2;
        last /= 2;
    }
    fits(last == 0 && old_hash == *old_root && new_hash == *new_root)
}

/// A tree that is only ever added to: the roots of its complete subtrees, largest first. Enough to know the root, in
/// O(log n) memory.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Returns the number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut index = self.size;
        while index % 2 == 1 {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
            index /= 2;
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Returns the root.
    pub fn root(&self) -> Hash {
        self.peaks.iter().rev().copied().reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }
}

/// The largest power of two below `len`, which is at least 2.
const fn split(len: u64) -> u64 {
    1 << (u64::BITS - 1 - (len - 1).leading_zeros())
}

/// The root of the leaves from `start` to `end`, where `start` is a multiple of the smallest power of two that is at
/// least the length: true for every range that halving a tree yields.
fn range_root<N: Nodes>(nodes: &N, start: u64, end: u64) -> Result<Hash, N::Error> {
    let len = end - start;
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        return nodes.node(u8::try_from(level).unwrap_or(u8::MAX), start >> level);
    }
    let middle = start + split(len);
    Ok(node_hash(&range_root(nodes, start, middle)?, &range_root(nodes, middle, end)?))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Memory {
        nodes: HashMap<(u8, u64), Hash>,
        leaves: Vec<Hash>,
    }

    impl Nodes for Memory {
        type Error = Infallible;
        fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
            Ok(self.nodes[&(level, index)])
        }
    }

    fn tree(size: u64) -> Memory {
        let mut memory = Memory::default();
        for n in 0..size {
            let leaf = leaf_hash(&n.to_be_bytes());
            for (level, index, hash) in append(&memory, n, leaf).unwrap() {
                memory.nodes.insert((level, index), hash);
            }
            memory.leaves.push(leaf);
        }
        memory
    }

    /// RFC 6962 §2.1 to the letter.
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            many => {
                let (left, right) = many.split_at(many.len().next_power_of_two() / 2);
                node_hash(&naive(left), &naive(right))
            }
        }
    }

    #[test]
    fn known_roots_of_rfc_6962_test_vectors() {
        let leaves: [&[u8]; 3] = [b"", b"\0", b"\x10"];
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (leaf, root) in leaves.iter().zip([
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        ]) {
            frontier.push(leaf_hash(leaf));
            assert_eq!(frontier.root().to_string(), root);
        }
    }

    proptest! {
        #[test]
        fn roots_are_the_recursive_definitions(size in 0u64..200) {
            let memory = tree(size);
            let mut frontier = Frontier::default();
            memory.leaves.iter().for_each(|leaf| frontier.push(*leaf));
            prop_assert_eq!(root(&memory, size).unwrap(), naive(&memory.leaves));
            prop_assert_eq!(frontier.root(), naive(&memory.leaves));
        }

        #[test]
        fn every_leaf_is_proven_and_nothing_else(size in 1u64..150, pick in any::<u64>(), flip in any::<usize>()) {
            let memory = tree(size);
            let index = pick % size;
            let leaf = memory.leaves[usize::try_from(index).unwrap()];
            let top = root(&memory, size).unwrap();
            let proof = inclusion_proof(&memory, index, size).unwrap();
            prop_assert_eq!(verify_inclusion(&leaf, index, size, &proof, &top), Ok(()));
            prop_assert!(verify_inclusion(&leaf, index, size, &proof, &leaf_hash(b"other")).is_err());
            prop_assert!(verify_inclusion(&leaf_hash(b"other"), index, size, &proof, &top).is_err());
            prop_assert!(verify_inclusion(&leaf, size, size, &proof, &top).is_err());
            if !proof.is_empty() {
                let mut bent = proof.clone();
                let at = flip % bent.len();
                bent[at].0[flip % 32] ^= 1;
                prop_assert!(verify_inclusion(&leaf, index, size, &bent, &top).is_err());
                prop_assert!(verify_inclusion(&leaf, index, size, &proof[1..], &top).is_err());
            }
            let mut longer = proof;
            longer.push(top);
            prop_assert!(verify_inclusion(&leaf, index, size, &longer, &top).is_err());
        }

        #[test]
        fn growth_is_proven_and_rewriting_is_not(new in 1u64..150, pick in any::<u64>(), flip in any::<usize>()) {
            let memory = tree(new);
            let old = pick % (new + 1);
            let (old_root, new_root) = (root(&memory, old).unwrap(), root(&memory, new).unwrap());
            let proof = consistency_proof(&memory, old, new).unwrap();
            prop_assert_eq!(verify_consistency(old, new, &proof, &old_root, &new_root), Ok(()));
            prop_assert!(verify_consistency(old, new, &proof, &leaf_hash(b"other"), &new_root).is_err());
            if old > 0 {
                prop_assert!(verify_consistency(old, new, &proof, &old_root, &leaf_hash(b"other")).is_err());
            }
            if !proof.is_empty() {
                let mut bent = proof.clone();
                let at = flip % bent.len();
                bent[at].0[flip % 32] ^= 1;
                prop_assert!(verify_consistency(old, new, &bent, &old_root, &new_root).is_err());
            }
        }
    }
}
