//! Receipts: what verifies, what does not and by which name, and that no byte of a receipt can change unnoticed.
#![cfg(feature = "signing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use weft_core::checkpoint::CheckpointError;
use weft_core::endorse::{EndorseError, LINES_MAX, SignedCheckpointError, cosigned_text, cosigner_name};
use weft_core::genesis::{Genesis, IngestNode, Validator};
use weft_core::merkle::{Hash, MerkleError, consistency_proof, inclusion_proof, leaf_hash_32};
use weft_core::note::{ALGORITHM_COSIGNATURE, NoteError, SignatureLine, key_id};
use weft_core::receipt::{
    ConsistencyError, PROOF_HASHES_MAX, RECEIPT_BYTES_MAX, RECEIPT_HEAD, ReceiptError, VerifyError,
};
use weft_core::{
    Checkpoint, ConsistencyFile, Cosignature, DeviceSigner, Draft, LaneId, LaneTree, MessageId, MessageView,
    NetworkId, NodeKey, PayloadKind, Place, Receipt, SignedCheckpoint,
};

/// Weights 1, 2, 3, 4: a quorum is 7 of 10.
const VALIDATORS: u16 = 4;
/// The lane of the ingest node.
const LANE: LaneId = LaneId(VALIDATORS);
const TIME_S: u64 = 1_800_000_000;

fn node(number: u16) -> DeviceSigner {
    DeviceSigner::from_seed([number as u8 + 1; 32])
}

fn genesis() -> Genesis {
    let validators = (0..VALIDATORS).map(|number| Validator {
        key: node(number).public(),
        weight: u64::from(number) + 1,
        name: String::new(),
    });
    let ingest = IngestNode { key: node(LANE.0).public(), name: String::new() };
    Genesis {
        committee: validators.collect(),
        ingest: vec![ingest],
        ..Genesis::single("receipts", TIME_S * 1_000_000, node(0).public())
    }
}

fn verify(key: &NodeKey, text: &[u8], signature: &[u8; 64]) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    ed25519_dalek::VerifyingKey::from_bytes(&key.0)
        .is_ok_and(|key| key.verify_strict(text, &signature).is_ok())
}

fn message(network: NetworkId, sequence: u64) -> Vec<u8> {
    let draft = Draft {
        network,
        issued_at_us: 1_000,
        sequence,
        parents: [MessageId([1; 32]), MessageId([2; 32])],
        kind: PayloadKind::DATA,
        payload: b"0123456789abcdef21.5 C",
    };
    draft.sign(&DeviceSigner::from_seed([0x77; 32])).unwrap()
}

/// A lane of messages without batches: what its leaves are of is not a receipt's business.
struct Lane {
    genesis: Genesis,
    messages: Vec<Vec<u8>>,
    leaves: Vec<Hash>,
}

impl Lane {
    fn new(count: u64) -> Self {
        let genesis = genesis();
        let network = genesis.network().unwrap();
        let messages: Vec<_> = (0..count).map(|sequence| message(network, sequence)).collect();
        let id = |bytes: &Vec<u8>| MessageView::parse(bytes).unwrap().id().0;
        let leaves = messages.iter().map(|bytes| leaf_hash_32(&id(bytes))).collect();
        Self { genesis, messages, leaves }
    }

    fn checkpoint(&self, size: u64) -> Checkpoint {
        let mut tree = LaneTree::new();
        self.leaves[..size as usize].iter().for_each(|leaf| tree.push_leaf_hash(*leaf));
        Checkpoint { network: self.genesis.network().unwrap(), lane: LANE, size, root: tree.root() }
    }

    fn signed(&self, size: u64, cosigners: &[u16]) -> SignedCheckpoint {
        let checkpoint = self.checkpoint(size);
        let signer = node(LANE.0);
        let seal = signer.sign_bytes(checkpoint.text().as_bytes());
        let mut signed = SignedCheckpoint::sealed(checkpoint, &signer.public(), &seal);
        for &validator in cosigners {
            signed.add(
                &cosign(validator, TIME_S + u64::from(validator), &checkpoint),
                &node(validator).public(),
            );
        }
        signed
    }

    fn receipt(&self, index: u64, size: u64, cosigners: &[u16]) -> Receipt {
        let proof = inclusion_proof(&self.leaves[..], index, size).unwrap();
        let message = Some(self.messages[index as usize].clone());
        Receipt { message, index, proof, checkpoint: self.signed(size, cosigners) }
    }

    fn verify(&self, receipt: &Receipt) -> Result<weft_core::receipt::Verified, VerifyError> {
        receipt.verify(&self.genesis, None, verify)
    }
}

fn cosign(validator: u16, time_s: u64, checkpoint: &Checkpoint) -> Cosignature {
    let text = cosigned_text(time_s, &checkpoint.text());
    Cosignature { validator, time_s, signature: node(validator).sign_bytes(text.as_bytes()) }
}

#[test]
fn every_message_of_every_small_lane_has_a_receipt_that_verifies_and_survives_its_file() {
    let lane = Lane::new(20);
    for size in 1..=20 {
        for index in 0..size {
            let receipt = lane.receipt(index, size, &[2, 3]);
            let file = receipt.encode();
            assert_eq!(Receipt::parse(file.as_bytes()).as_ref(), Ok(&receipt));
            let verified = lane.verify(&receipt).unwrap();
            assert_eq!(verified.place, Place::new(LANE, index));
            assert_eq!(verified.id, MessageView::parse(&lane.messages[index as usize]).unwrap().id());
            let endorsement = verified.endorsement;
            assert_eq!(
                (endorsement.validators, endorsement.weight, endorsement.weight_total),
                (vec![2, 3], 7, 10)
            );
            assert_eq!(endorsement.time_s, Some((TIME_S + 2, TIME_S + 3)));
        }
    }
}

#[test]
fn a_receipt_has_the_lines_of_a_tlog_proof() {
    let lane = Lane::new(3);
    let file = lane.receipt(1, 3, &[3]).encode();
    let lines: Vec<&str> = file.split('\n').collect();
    assert_eq!(lines[0], "c2sp.org/tlog-proof@v1");
    assert!(lines[1].starts_with("extra AQ") && lines[1].len() == 6 + lane.messages[1].len().div_ceil(3) * 4);
    assert_eq!(lines[2], "index 1");
    assert_eq!(lines[3].len(), 44);
    assert_eq!(lines[4].len(), 44);
    let network = lane.genesis.network().unwrap();
    assert_eq!(lines[5..8], [String::new(), format!("weft/{network}/4"), "3".to_owned()]);
    assert_eq!(lines[9], "");
    assert!(lines[10].starts_with(&format!("\u{2014} weft/{network}/4 ")));
    assert!(lines[11].starts_with(&format!("\u{2014} weft/{network}/validator/3 ")));
    assert_eq!(lines[12..], [""]);
}

#[test]
fn less_than_a_quorum_is_not_enough_and_nobody_counts_twice() {
    let lane = Lane::new(5);
    for (cosigners, weight) in [(&[][..], 0), (&[3], 4), (&[0, 1, 2], 6), (&[3, 3, 1, 1], 6)] {
        let mut receipt = lane.receipt(2, 5, cosigners);
        // `add` replaces a line: here the same validators stand there twice, with other times.
        let again: Vec<_> =
            cosigners.iter().map(|number| cosign(*number, TIME_S + 50, &lane.checkpoint(5))).collect();
        for cosignature in again {
            let mut other = lane.signed(5, &[]);
            other.add(&cosignature, &node(cosignature.validator).public());
            receipt.checkpoint.lines.extend(other.lines.pop());
        }
        let error = VerifyError::Checkpoint(EndorseError::NoQuorum { got: weight, total: 10 });
        assert_eq!(lane.verify(&receipt), Err(error));
    }
    assert!(lane.verify(&lane.receipt(2, 5, &[3, 2])).is_ok());
    assert!(lane.verify(&lane.receipt(2, 5, &[0, 1, 3])).is_ok());
}

#[test]
fn whatever_does_not_hold_is_named() {
    let lane = Lane::new(9);
    let good = lane.receipt(4, 9, &[2, 3]);
    let network = lane.genesis.network().unwrap();
    let with = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        lane.verify(&receipt).unwrap_err()
    };
    // The message.
    assert_eq!(with(&|receipt| receipt.message = None), VerifyError::NoMessage);
    assert!(matches!(with(&|receipt| receipt.message = Some(vec![1; 300])), VerifyError::Message(_)));
    let other = NetworkId([9; 4]);
    let error = VerifyError::MessageNetwork { got: other, expected: network };
    assert_eq!(with(&|receipt| receipt.message = Some(message(other, 4))), error);
    let flipped = with(&|receipt| *receipt.message.as_mut().unwrap().last_mut().unwrap() ^= 1);
    assert_eq!(flipped, VerifyError::MessageSignature);
    let neighbour = with(&|receipt| receipt.message = Some(lane.messages[5].clone()));
    assert_eq!(neighbour, VerifyError::Inclusion(MerkleError::Root));
    // The proof.
    assert_eq!(with(&|receipt| receipt.index = 5), VerifyError::Inclusion(MerkleError::Root));
    let beyond = with(&|receipt| receipt.index = 9);
    assert_eq!(beyond, VerifyError::Inclusion(MerkleError::Range { got: 9, limit: 9 }));
    assert!(matches!(
        with(&|receipt| {
            receipt.proof.pop();
        }),
        VerifyError::Inclusion(MerkleError::Hashes { .. })
    ));
    // The checkpoint.
    let endorse = |change: &dyn Fn(&mut Receipt)| match with(change) {
        VerifyError::Checkpoint(error) => error,
        other => panic!("{other}"),
    };
    let name = format!("weft/{network}/4");
    assert_eq!(
        endorse(&|receipt| {
            receipt.checkpoint.lines.remove(0);
        }),
        EndorseError::NoSeal { name }
    );
    assert_eq!(endorse(&|receipt| receipt.checkpoint.lines[0].signature[5] ^= 1), EndorseError::BadSeal);
    assert_eq!(endorse(&|receipt| receipt.checkpoint.lines[0].signature.truncate(63)), EndorseError::BadSeal);
    for at in [0, 7, 8, 71] {
        let bad = endorse(&|receipt| receipt.checkpoint.lines[2].signature[at] ^= 0x80);
        assert_eq!(bad, EndorseError::BadCosignature { validator: 3 }, "byte {at}");
    }
    // A genesis of another ledger, and a lane that this one has not.
    let elsewhere = Genesis { created_at_us: 1, ..genesis() };
    let error = EndorseError::Network { got: network, expected: elsewhere.network().unwrap() };
    assert_eq!(good.verify(&elsewhere, None, verify), Err(VerifyError::Checkpoint(error)));
    let error = endorse(&|receipt| receipt.checkpoint.checkpoint.lane = LaneId(5));
    assert_eq!(error, EndorseError::Lane { got: LaneId(5), limit: 5 });
}

#[test]
fn a_signature_by_another_key_under_a_known_name_is_ignored_like_any_unknown_line() {
    let lane = Lane::new(3);
    let mut receipt = lane.receipt(0, 3, &[2, 3]);
    let name = cosigner_name(lane.genesis.network().unwrap(), 0);
    let key_id = key_id(&name, ALGORITHM_COSIGNATURE, &NodeKey::from([9; 32]));
    receipt.checkpoint.lines.push(SignatureLine { name, key_id, signature: vec![1; 72] });
    let other = SignatureLine { name: "example.org/w".into(), key_id: [1; 4], signature: vec![2; 2_420] };
    receipt.checkpoint.lines.push(other);
    assert_eq!(lane.verify(&receipt).unwrap().endorsement.validators, [2, 3]);
    assert_eq!(Receipt::parse(receipt.encode().as_bytes()), Ok(receipt));
}

#[test]
fn a_receipt_without_its_message_verifies_for_whoever_has_it() {
    let lane = Lane::new(6);
    let mut receipt = lane.receipt(3, 6, &[2, 3]);
    let other = receipt.verify(&lane.genesis, Some(&lane.messages[2]), verify);
    assert_eq!(other, Err(VerifyError::OtherMessage));
    receipt.message = None;
    let receipt = Receipt::parse(receipt.encode().as_bytes()).unwrap();
    assert!(receipt.verify(&lane.genesis, Some(&lane.messages[3]), verify).is_ok());
    let other = receipt.verify(&lane.genesis, Some(&lane.messages[2]), verify);
    assert_eq!(other, Err(VerifyError::Inclusion(MerkleError::Root)));
}

#[test]
fn no_byte_of_a_receipt_can_change_unnoticed() {
    let lane = Lane::new(7);
    let good = lane.receipt(2, 7, &[2, 3]);
    let file = good.encode().into_bytes();
    let mut read = 0;
    for at in 0..file.len() {
        for xor in [0x01, 0x20, 0x80] {
            let mut changed = file.clone();
            changed[at] ^= xor;
            // Read or not, it does not verify as before; a line that no longer names a known key leaves no quorum.
            if let Ok(receipt) = Receipt::parse(&changed) {
                read += 1;
                assert!(lane.verify(&receipt).is_err(), "byte {at} xor {xor:#x}");
                assert_eq!(receipt.encode().as_bytes(), changed);
            }
        }
    }
    assert!(read > 100, "most changes inside base64 are read");
}

#[test]
fn what_is_no_receipt_is_refused_by_name() {
    let lane = Lane::new(7);
    let file = lane.receipt(2, 7, &[2, 3]).encode();
    let with = |from: &str, to: &str| Receipt::parse(file.replacen(from, to, 1).as_bytes()).unwrap_err();
    assert_eq!(with("proof@v1", "proof@v2"), ReceiptError::Head { expected: RECEIPT_HEAD });
    assert_eq!(with("extra ", "extra !"), ReceiptError::Extra);
    assert_eq!(Receipt::parse(b"c2sp.org/tlog-proof@v1\nextra AAAA\nindex 0\n\n"), Err(ReceiptError::Extra));
    for index in ["index 02", "index -2", "index", "index 281474976710657", "Index 2"] {
        assert_eq!(with("index 2", index), ReceiptError::Number { field: "index" }, "{index}");
    }
    assert_eq!(with("index 2\n", "index 2\nAAAA\n"), ReceiptError::Hash { line: 0 });
    let many = format!("{}=\n", "A".repeat(43)).repeat(PROOF_HASHES_MAX);
    let error = with("index 2\n", &format!("index 2\n{many}"));
    assert_eq!(error, ReceiptError::Hash { line: PROOF_HASHES_MAX });
    let cut = file.split_once("\n\n").unwrap().0;
    assert_eq!(Receipt::parse(cut.as_bytes()), Err(ReceiptError::NoCheckpoint));
    let error = SignedCheckpointError::Checkpoint(CheckpointError::Size { got: "07".into() });
    assert_eq!(with("\n7\n", "\n07\n"), ReceiptError::Checkpoint(error));
    let error = SignedCheckpointError::Note(NoteError::Line { line: 0 });
    assert_eq!(with("\u{2014} weft", "- weft"), ReceiptError::Checkpoint(error));
    assert_eq!(Receipt::parse(&[0xff]), Err(ReceiptError::Text));
    let limit = RECEIPT_BYTES_MAX;
    assert_eq!(Receipt::parse(&vec![b'x'; limit + 1]), Err(ReceiptError::TooLong { got: limit + 1, limit }));
}

#[test]
fn the_receipt_of_the_largest_committee_fits_its_limits_once_trimmed() {
    let members = 1_024;
    let validator = |number: usize| Validator {
        key: DeviceSigner::from_seed([number as u8; 32]).public(),
        // Those that come last weigh most.
        weight: if number > 900 { 1_000 } else { 1 },
        name: String::new(),
    };
    let genesis = Genesis { committee: (0..members).map(validator).collect(), ..genesis() };
    let lane = Lane::new(3);
    let mut receipt = lane.receipt(1, 3, &[]);
    let cosignature = cosign(0, TIME_S, &lane.checkpoint(3));
    for validator in 0..members as u16 {
        receipt
            .checkpoint
            .add(&Cosignature { validator, ..cosignature }, &genesis.committee[usize::from(validator)].key);
    }
    receipt.message = Some(vec![1; weft_core::MESSAGE_BYTES_MAX]);
    let file = receipt.encode();
    assert!(file.len() <= RECEIPT_BYTES_MAX);
    assert!(Receipt::parse(file.as_bytes()).is_ok());
    receipt.checkpoint.trim(&genesis);
    assert_eq!(receipt.checkpoint.lines.len(), LINES_MAX);
    assert_eq!(receipt.checkpoint.lines[0].name, lane.checkpoint(3).origin());
    let network = lane.genesis.network().unwrap();
    assert_eq!(receipt.checkpoint.lines[1].name, cosigner_name(network, 901));
    assert_eq!(receipt.checkpoint.lines[99].name, cosigner_name(network, 999));
}

#[test]
fn every_pair_of_sizes_is_shown_consistent_and_another_history_is_not() {
    let lane = Lane::new(17);
    let mut other = Lane::new(17);
    other.leaves[0] = [9; 32];
    for size in 1..=17 {
        for old_size in 1..=size {
            let proof = consistency_proof(&lane.leaves[..], old_size, size).unwrap();
            let file = ConsistencyFile { old_size, proof, new: lane.signed(size, &[3]) };
            let text = file.encode();
            assert!(text.starts_with(&format!("old {old_size}\n")));
            assert_eq!(ConsistencyFile::parse(text.as_bytes()).as_ref(), Ok(&file));
            assert_eq!(file.verify(&lane.checkpoint(old_size)), Ok(()));
            assert!(matches!(file.verify(&other.checkpoint(old_size)), Err(ConsistencyError::Proof(_))));
        }
    }
    let file = ConsistencyFile { old_size: 3, proof: Vec::new(), new: lane.signed(3, &[]) };
    let elsewhere = Checkpoint { lane: LaneId(0), ..lane.checkpoint(3) };
    assert!(matches!(file.verify(&elsewhere), Err(ConsistencyError::Origin { .. })));
    let error = ConsistencyError::OldSize { got: 3, expected: 2 };
    assert_eq!(file.verify(&lane.checkpoint(2)), Err(error));
}

proptest! {
    #[test]
    fn arbitrary_lines_are_read_only_if_they_are_written_the_same(
        lines in proptest::collection::vec("(extra |index |old )?[A-Za-z0-9+/=]{0,50}|\u{2014} a AAAAAAA=", 0..12),
    ) {
        let text = lines.join("\n");
        for text in [format!("{RECEIPT_HEAD}\n{text}\n"), text] {
            if let Ok(receipt) = Receipt::parse(text.as_bytes()) {
                prop_assert_eq!(receipt.encode(), text.clone());
            }
            if let Ok(file) = ConsistencyFile::parse(text.as_bytes()) {
                prop_assert_eq!(file.encode(), text);
            }
        }
    }
}

/// Writes the seeds of the fuzz target `receipt`: run it by hand after a change of the format.
#[test]
#[ignore = "writes files"]
fn write_fuzz_seeds() {
    let lane = Lane::new(7);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/receipt");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    write("receipt", lane.receipt(2, 7, &[2, 3]).encode());
    write("without_message", Receipt { message: None, ..lane.receipt(0, 1, &[3]) }.encode());
    let proof = consistency_proof(&lane.leaves[..], 3, 7).unwrap();
    write("consistency", ConsistencyFile { old_size: 3, proof, new: lane.signed(7, &[0]) }.encode());
    write("checkpoint", lane.signed(7, &[0, 1, 2, 3]).encode());
}
