//! Tests of the Merkle tree: published roots, a serial twin written straight from RFC 9162's recursive
//! definitions, and proofs that must not verify for anything else.

use alloc::vec::Vec;
use core::str::FromStr;

use proptest::prelude::*;

use super::*;
use crate::{BatchHasher, MessageId, OneByOne};

fn hash(text: &str) -> Hash {
    MessageId::from_str(text).unwrap().0
}

/// MTH, RFC 9162, section 2.1.1, from leaf hashes.
fn twin_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&twin_root(left), &twin_root(right))
        }
    }
}

/// PATH, RFC 9162, section 2.1.3.1.
fn twin_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    let (mut path, sibling) = if index < split {
        (twin_path(index, left), twin_root(right))
    } else {
        (twin_path(index - split, right), twin_root(left))
    };
    path.push(sibling);
    path
}

/// SUBPROOF, RFC 9162, section 2.1.4.1; `known` is its boolean.
fn twin_subproof(old_size: usize, leaves: &[Hash], known: bool) -> Vec<Hash> {
    if old_size == leaves.len() {
        return if known { Vec::new() } else { alloc::vec![twin_root(leaves)] };
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    if old_size <= split {
        let mut proof = twin_subproof(old_size, left, known);
        proof.push(twin_root(right));
        proof
    } else {
        let mut proof = twin_subproof(old_size - split, right, false);
        proof.push(twin_root(left));
        proof
    }
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count as u64).map(|i| leaf_hash(&i.to_le_bytes())).collect()
}

fn tree(leaves: &[Hash]) -> LaneTree {
    let mut tree = LaneTree::new();
    leaves.iter().for_each(|leaf| tree.push_leaf_hash(*leaf));
    tree
}

/// Inputs and roots of the reference tree that Certificate Transparency implementations are tested with.
#[test]
fn roots_are_those_published_for_the_reference_inputs() {
    let inputs: [&[u8]; 8] = [
        b"",
        &[0x00],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        b"`abcdefghijklmno",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut tree = LaneTree::new();
    assert_eq!(tree.root(), EMPTY_ROOT);
    assert_eq!(tree.root(), <[u8; 32]>::from(sha2::Sha256::digest(b"")));
    for (input, root) in inputs.into_iter().zip(roots) {
        tree.push_leaf_hash(leaf_hash(input));
        assert_eq!(tree.root(), hash(root), "{} leaves", tree.size());
    }
}

#[test]
fn block_level_hashes_match_the_streaming_hasher() {
    let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
    let streamed: Hash =
        sha2::Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into();
    assert_eq!(node_hash(&left, &right), streamed);
    assert_eq!(leaf_hash_32(&left), leaf_hash(&left));
}

#[test]
fn every_small_tree_matches_its_recursive_definition() {
    let leaves = leaves(70);
    for size in 0..=leaves.len() {
        assert_eq!(tree(&leaves[..size]).root(), twin_root(&leaves[..size]), "{size} leaves");
    }
}

#[test]
fn every_proof_of_a_small_tree_matches_its_recursive_definition_and_verifies() {
    let leaves = leaves(33);
    for size in 1..=leaves.len() {
        let root = twin_root(&leaves[..size]);
        for index in 0..size {
            let proof = inclusion_proof(&leaves[..], index as u64, size as u64).unwrap();
            assert_eq!(proof, twin_path(index, &leaves[..size]), "leaf {index} of {size}");
            assert_eq!(verify_inclusion(&leaves[index], index as u64, size as u64, &proof, &root), Ok(()));
        }
        for old_size in 1..=size {
            let proof = consistency_proof(&leaves[..], old_size as u64, size as u64).unwrap();
            assert_eq!(proof, twin_subproof(old_size, &leaves[..size], true), "{old_size} to {size}");
            let old_root = twin_root(&leaves[..old_size]);
            let verdict = verify_consistency(old_size as u64, &old_root, size as u64, &root, &proof);
            assert_eq!(verdict, Ok(()), "{old_size} to {size}");
        }
    }
}

#[test]
fn an_inclusion_proof_proves_nothing_else() {
    let leaves = leaves(21);
    let root = twin_root(&leaves);
    for index in 0..21 {
        let proof = inclusion_proof(&leaves[..], index, 21).unwrap();
        let leaf = &leaves[index as usize];
        for other in (0..21).filter(|other| *other != index) {
            assert!(verify_inclusion(leaf, other, 21, &proof, &root).is_err(), "{index} as {other}");
            assert!(verify_inclusion(&leaves[other as usize], index, 21, &proof, &root).is_err());
        }
        for hash in 0..proof.len() {
            let mut bent = proof.clone();
            bent[hash][7] ^= 1;
            assert_eq!(verify_inclusion(leaf, index, 21, &bent, &root), Err(MerkleError::Root));
        }
        let mut longer = proof.clone();
        longer.push(root);
        let refused = MerkleError::Hashes { got: proof.len() + 1, limit: proof.len() };
        assert_eq!(verify_inclusion(leaf, index, 21, &longer, &root), Err(refused));
        let refused = MerkleError::Hashes { got: proof.len() - 1, limit: proof.len() };
        assert_eq!(verify_inclusion(leaf, index, 21, &proof[1..], &root), Err(refused));
    }
}

#[test]
fn a_consistency_proof_proves_nothing_else() {
    let leaves = leaves(21);
    let root = twin_root(&leaves);
    for old_size in 1..21u64 {
        let old_root = twin_root(&leaves[..old_size as usize]);
        let proof = consistency_proof(&leaves[..], old_size, 21).unwrap();
        let bent_root = leaf_hash(b"bent");
        assert!(verify_consistency(old_size, &bent_root, 21, &root, &proof).is_err());
        assert!(verify_consistency(old_size, &old_root, 21, &bent_root, &proof).is_err());
        for hash in 0..proof.len() {
            let mut bent = proof.clone();
            bent[hash][31] ^= 0x80;
            assert!(verify_consistency(old_size, &old_root, 21, &root, &bent).is_err(), "{old_size}, {hash}");
            assert!(verify_consistency(old_size, &old_root, 21, &root, &proof[..hash]).is_err());
        }
        let mut longer = proof.clone();
        longer.push(root);
        assert!(verify_consistency(old_size, &old_root, 21, &root, &longer).is_err());
    }
}

#[test]
fn sizes_and_indices_out_of_range_are_refused() {
    let leaves = leaves(4);
    assert_eq!(inclusion_proof(&leaves[..], 4, 4), Err(MerkleError::Range { got: 4, limit: 4 }));
    assert_eq!(inclusion_proof(&leaves[..], 0, 5), Err(MerkleError::Missing { level: 0, first: 4 }));
    assert_eq!(consistency_proof(&leaves[..], 0, 4), Err(MerkleError::Range { got: 0, limit: 5 }));
    assert_eq!(consistency_proof(&leaves[..], 5, 4), Err(MerkleError::Range { got: 5, limit: 5 }));
    let beyond = Err(MerkleError::Range { got: u64::MAX, limit: LANE_POSITIONS_MAX + 1 });
    assert_eq!(verify_inclusion(&leaves[0], 0, u64::MAX, &[], &leaves[0]), beyond);
    assert_eq!(verify_consistency(1, &leaves[0], u64::MAX, &leaves[0], &[]), beyond);
    assert!(LaneTree::from_frontier(u64::MAX, &[]).is_err());
}

#[test]
fn a_tree_grows_on_from_its_frontier() {
    let leaves = leaves(300);
    for cut in [0, 1, 2, 3, 64, 100, 255, 256] {
        let before = tree(&leaves[..cut]);
        let frontier: Vec<Hash> = before.frontier().collect();
        let mut after = LaneTree::from_frontier(cut as u64, &frontier).unwrap();
        assert_eq!(after, before);
        leaves[cut..].iter().for_each(|leaf| after.push_leaf_hash(*leaf));
        assert_eq!(after.root(), twin_root(&leaves), "cut at {cut}");
    }
    assert_eq!(LaneTree::from_frontier(3, &leaves[..1]), Err(MerkleError::Hashes { got: 1, limit: 2 }));
}

#[test]
fn the_roots_noted_while_a_tree_grows_are_those_of_its_subtrees() {
    let data: Vec<Hash> = (0..1_200u32).map(|i| leaf_hash(&i.to_le_bytes())).collect();
    let mut tree = LaneTree::new();
    let noted: Vec<Hash> = data.iter().filter_map(|data| tree.push_noting(data)).collect();
    let leaves: Vec<Hash> = data.iter().map(leaf_hash_32).collect();
    assert_eq!(noted.len(), 4);
    for (index, root) in noted.iter().enumerate() {
        assert_eq!(Some(*root), leaves.subtree(SUBTREE_LEVEL, index as u64));
    }
    assert_eq!(tree.root(), twin_root(&leaves));
}

/// Checks that every call is for rows, as a vector implementation wants them, and hashes like the serial twin.
#[derive(Debug)]
struct Rows;

impl BatchHasher for Rows {
    fn ids(&self, _: &[&[u8]], _: &mut [MessageId]) {
        unreachable!("a tree has no messages");
    }

    fn leaves(&self, data: &[Hash], out: &mut [Hash]) {
        assert_eq!(data.len(), out.len());
        OneByOne.leaves(data, out);
    }

    fn nodes(&self, children: &[[Hash; 2]], out: &mut [Hash]) {
        assert_eq!(children.len(), out.len());
        OneByOne.nodes(children, out);
    }
}

/// A tree that grew leaf by leaf, and what was noted; the twin of one that grew by batches.
fn pushed(data: &[Hash]) -> (LaneTree, Vec<Hash>) {
    let mut tree = LaneTree::new();
    let noted = data.iter().filter_map(|data| tree.push_noting(data)).collect();
    (tree, noted)
}

fn data(count: usize) -> Vec<Hash> {
    (0..count as u32).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

/// Leaves, and the roots of subtrees that were noted while a tree grew.
struct Noted<'a> {
    leaves: &'a [Hash],
    roots: &'a [Hash],
}

impl HashSource for Noted<'_> {
    fn leaf(&self, index: u64) -> Option<Hash> {
        self.leaves.leaf(index)
    }

    fn subtree(&self, level: u32, index: u64) -> Option<Hash> {
        if level == SUBTREE_LEVEL { self.roots.leaf(index) } else { self.leaves.subtree(level, index) }
    }
}

#[test]
fn appending_together_gives_the_tree_of_appending_one_by_one_at_edge_sizes() {
    let powers = [4, 16, 256, 512, 1_024].into_iter().flat_map(|power| [power - 1, power, power + 1]);
    let sizes: Vec<usize> = [0, 1, 2].into_iter().chain(powers).collect();
    let data = data(2 * 1_025);
    for before in sizes.iter().copied() {
        let (start, noted_before) = pushed(&data[..before]);
        for count in sizes.iter().copied() {
            let (mut tree, mut noted) = (start.clone(), noted_before.clone());
            tree.append(&data[before..before + count], &Rows, |root| noted.push(root));
            let (twin, noted_by_twin) = pushed(&data[..before + count]);
            assert_eq!((tree.size(), tree.root()), (twin.size(), twin.root()), "{count} after {before}");
            assert_eq!((tree, noted), (twin, noted_by_twin), "{count} after {before}");
        }
    }
}

#[test]
fn the_last_leaves_of_the_largest_lane_can_be_appended_together() {
    let frontier = leaves(48);
    let mut tree = LaneTree::from_frontier(LANE_POSITIONS_MAX - 1, &frontier).unwrap();
    let mut twin = tree.clone();
    twin.push(&[7; 32]);
    tree.append(&[[7; 32]], &Rows, |_| {});
    assert_eq!((tree.size(), tree), (LANE_POSITIONS_MAX, twin));
}

#[test]
fn the_largest_lane_has_a_root_and_takes_its_last_leaf() {
    let frontier = leaves(48);
    let mut tree = LaneTree::from_frontier(LANE_POSITIONS_MAX - 1, &frontier).unwrap();
    tree.push(&[7; 32]);
    assert_eq!(tree.size(), LANE_POSITIONS_MAX);
    assert_eq!(tree.frontier().count(), 1);
    assert_eq!(Some(tree.root()), tree.frontier().next());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The frontier is what roots, checkpoints and later proofs are made from, so equal trees give equal ones.
    #[test]
    fn appending_together_gives_the_tree_of_appending_one_by_one_for_every_split(
        counts in prop::collection::vec(prop_oneof![0..4_usize, 5..40_usize, 250..260_usize, 500..530_usize], 0..12),
    ) {
        let data = data(counts.iter().sum());
        let (mut tree, mut noted, mut rest) = (LaneTree::new(), Vec::new(), &data[..]);
        for count in counts {
            let (now, after) = rest.split_at(count);
            tree.append(now, &Rows, |root| noted.push(root));
            rest = after;
            prop_assert_eq!((&tree, &noted), (&pushed(&data[..tree.size() as usize]).0, &pushed(&data[..tree.size() as usize]).1));
        }
        let leaves: Vec<Hash> = data.iter().map(leaf_hash_32).collect();
        prop_assert_eq!(tree.root(), twin_root(&leaves));
        // Proofs over the noted roots lead to its root.
        if !leaves.is_empty() {
            let source = Noted { leaves: &leaves, roots: &noted };
            let (size, index) = (leaves.len() as u64, leaves.len() as u64 / 3);
            let proof = inclusion_proof(&source, index, size).unwrap();
            prop_assert_eq!(&proof, &inclusion_proof(&leaves[..], index, size).unwrap());
            prop_assert_eq!(verify_inclusion(&leaves[index as usize], index, size, &proof, &tree.root()), Ok(()));
        }
    }

    #[test]
    fn larger_trees_match_their_recursive_definition(
        size in 1usize..2_000, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
    ) {
        let leaves = leaves(size);
        let root = tree(&leaves).root();
        prop_assert_eq!(root, twin_root(&leaves));
        let index = a.index(size);
        let proof = inclusion_proof(&leaves[..], index as u64, size as u64).unwrap();
        prop_assert_eq!(verify_inclusion(&leaves[index], index as u64, size as u64, &proof, &root), Ok(()));
        let old_size = 1 + b.index(size);
        let proof = consistency_proof(&leaves[..], old_size as u64, size as u64).unwrap();
        let old_root = tree(&leaves[..old_size]).root();
        prop_assert_eq!(verify_consistency(old_size as u64, &old_root, size as u64, &root, &proof), Ok(()));
    }

    #[test]
    fn arbitrary_proofs_are_refused_without_panic(
        index in any::<u64>(), size in any::<u64>(), old_size in any::<u64>(), shift in 0u32..64,
        proof in prop::collection::vec(any::<[u8; 32]>(), 0..100),
    ) {
        let (index, size, old_size) = (index >> shift, size >> shift, old_size >> shift);
        prop_assert!(verify_inclusion(&[1; 32], index, size, &proof, &[2; 32]).is_err());
        prop_assert!(verify_consistency(old_size, &[1; 32], size, &[2; 32], &proof).is_err());
    }
}
