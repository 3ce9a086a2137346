//! A proof of a fork: made from two batches, checked by someone who has the node's key and nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use weft_core::{
    BatchBuilder, BatchView, DeviceKey, DeviceSigner, Draft, ForkProof, ForkProofError, LaneId, LaneTree,
    MessageId, MessageView, NetworkId, PayloadKind, Place, VerifiedMessage,
};

const NETWORK: NetworkId = NetworkId([1, 2, 3, 4]);
const LANE: LaneId = LaneId(7);

fn signer() -> DeviceSigner {
    DeviceSigner::from_seed([5; 32])
}

/// Stands for the verifier: signing is deterministic, so the right signature is the one that the signer makes.
fn verify(key: &DeviceKey, text: &[u8], signature: &[u8; 64]) -> bool {
    *key == signer().public() && signer().sign_bytes(text) == *signature
}

/// A batch of `count` messages at the end of `tree`, which it extends.
fn batch(tree: &mut LaneTree, count: u32, payload: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(count, 1 << 20);
    for sequence in 0..u64::from(count) {
        let draft = Draft {
            network: NETWORK,
            issued_at_us: 1,
            sequence,
            parents: [MessageId([1; 32]), MessageId([2; 32])],
            kind: PayloadKind::DATA,
            payload,
        };
        let mut bytes = Vec::new();
        draft.write_content(&DeviceKey([3; 32]), &mut bytes).unwrap();
        Draft::finish(&mut bytes, &[0; 64]);
        let message = VerifiedMessage::vouch(MessageView::parse(&bytes).unwrap());
        builder.push([Place::root(0), Place::root(1)], &message).unwrap();
    }
    let sealed = builder.seal(tree, NETWORK, LANE, |text| signer().sign_bytes(text.as_ref())).unwrap();
    sealed.bytes().to_vec()
}

fn proof(batches_before: u32, counts: [u32; 2]) -> ForkProof {
    let mut tree = LaneTree::new();
    for number in 0..batches_before {
        batch(&mut tree, 1 + number % 3, b"shared");
    }
    let left = batch(&mut tree.clone(), counts[0], b"left");
    let right = batch(&mut tree.clone(), counts[1], b"right");
    ForkProof::of_batches(&tree, &BatchView::parse(&left).unwrap(), &BatchView::parse(&right).unwrap())
        .unwrap()
}

#[test]
fn two_batches_for_one_position_prove_a_fork_wherever_they_lie() {
    for before in 0..20 {
        for counts in [[1, 1], [1, 5], [7, 2], [64, 33]] {
            let proof = proof(before, counts);
            proof.verify(&signer().public(), verify).unwrap();
            let bytes = proof.encode().unwrap();
            assert!(bytes.len() <= weft_core::FORK_PROOF_BYTES_MAX);
            assert_eq!(ForkProof::decode(&bytes), Ok(proof));
        }
    }
}

#[test]
fn every_bit_of_a_proof_counts() {
    let bytes = proof(5, [3, 2]).encode().unwrap();
    for bit in 0..8 * bytes.len() {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let proves =
            ForkProof::decode(&other).is_ok_and(|proof| proof.verify(&signer().public(), verify).is_ok());
        assert!(!proves, "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(ForkProof::decode(&bytes[..length]).is_err());
    }
    assert!(proof(5, [3, 2]).verify(&DeviceKey([9; 32]), verify).is_err());
}

#[test]
fn an_honest_lane_cannot_be_proven_against() {
    // Two batches, one after the other, and one batch twice.
    let mut tree = LaneTree::new();
    let first = batch(&mut tree, 2, b"one");
    let between = tree.clone();
    let second = batch(&mut tree, 2, b"two");
    let (first, second) = (BatchView::parse(&first).unwrap(), BatchView::parse(&second).unwrap());
    assert_eq!(ForkProof::of_batches(&between, &first, &second), Err(ForkProofError::Apart));
    assert_eq!(ForkProof::of_batches(&LaneTree::new(), &first, &first), Err(ForkProofError::Order));
    let wrong = ForkProof::of_batches(&between, &first, &first);
    assert!(matches!(wrong, Err(ForkProofError::Batch { side: 0, .. })));
    // Sides from elsewhere, put together: the leaf is not where it would have to be.
    let mut forged = proof(0, [2, 2]);
    forged.sides[0].leaf = [0; 32];
    assert!(matches!(forged.verify(&signer().public(), verify), Err(ForkProofError::Path { side: 0, .. })));
}
