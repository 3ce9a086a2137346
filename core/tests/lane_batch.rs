//! The lane batch format: fixed bytes, round trips, limits, and that no byte of a batch can change unnoticed.
#![cfg(feature = "signing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use weft_core::lane::{BATCH_BYTES_MAX, HEADER_BYTES, SEAL_BYTES};
use weft_core::merkle::{self, Hash};
use weft_core::{
    Arena, BatchBuilder, BatchError, BatchFull, BatchHeader, BatchView, DeviceSigner, Draft, LaneId,
    LaneTree, MessageId, MessageView, NetworkId, NodeKey, PAYLOAD_BYTES_MAX, PayloadKind, Place, Rejection,
    SealedBatch, VerifiedMessage,
};

const NETWORK: NetworkId = NetworkId([0xde, 0xad, 0xbe, 0xef]);
const LANE: LaneId = LaneId(3);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn node() -> DeviceSigner {
    DeviceSigner::from_seed([0x42; 32])
}

fn verify(key: &NodeKey, text: &[u8], signature: &[u8; 64]) -> bool {
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key.0).unwrap();
    key.verify_strict(text, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
}

fn message(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let draft = Draft {
        network: NETWORK,
        issued_at_us: 1_000,
        sequence,
        parents: [MessageId([1; 32]), MessageId([2; 32])],
        kind: PayloadKind::DATA,
        payload,
    };
    draft.sign(&DeviceSigner::from_seed([7; 32])).unwrap()
}

fn push(builder: &mut BatchBuilder, places: [Place; 2], bytes: &[u8]) -> Result<u32, BatchFull> {
    builder.push(places, &VerifiedMessage::vouch(MessageView::parse(bytes).unwrap()))
}

fn places(sequence: u64) -> [Place; 2] {
    [Place::root((sequence % 2) as u8), Place::new(LaneId(9), sequence)]
}

fn seal(builder: BatchBuilder, tree: &mut LaneTree) -> Result<SealedBatch, BatchError> {
    builder.seal(tree, NETWORK, LANE, |text| node().sign_bytes(text))
}

/// A batch of `count` messages with payloads of rising length.
fn batch(tree: &mut LaneTree, count: u64) -> SealedBatch {
    let mut builder = BatchBuilder::new(4_096, 1 << 20);
    for sequence in 0..count {
        let payload = vec![sequence as u8; sequence as usize];
        push(&mut builder, places(sequence), &message(sequence, &payload)).unwrap();
    }
    seal(builder, tree).unwrap()
}

/// All checks that a batch from elsewhere has to pass.
fn check(bytes: &[u8], before: &LaneTree) -> Result<LaneTree, BatchError> {
    let view = BatchView::parse(bytes)?;
    view.check_hashes()?;
    let after = view.check_root(before)?;
    view.verify_seal(&node().public(), verify)?;
    Ok(after)
}

#[test]
fn a_sealed_batch_has_the_bytes_of_the_format() {
    let mut tree = LaneTree::new();
    tree.push(&[9; 32]);
    let (first, second) = (message(0, b""), message(1, b"ab"));
    let mut builder = BatchBuilder::new(100, 0);
    assert_eq!(push(&mut builder, [Place::root(0), Place::root(1)], &first), Ok(0));
    assert_eq!(push(&mut builder, [Place::new(LaneId(2), 5), Place::root(1)], &second), Ok(1));
    let sealed = seal(builder, &mut tree).unwrap();

    let mut body = Vec::new();
    body.extend(8u32.to_le_bytes());
    body.extend((8 + 16 + first.len() as u32).to_le_bytes());
    body.extend(0xffff_0000_0000_0000u64.to_le_bytes());
    body.extend(0xffff_0000_0000_0001u64.to_le_bytes());
    body.extend(&first);
    body.extend(0x0002_0000_0000_0005u64.to_le_bytes());
    body.extend(0xffff_0000_0000_0001u64.to_le_bytes());
    body.extend(&second);
    let mut header = Vec::from(*b"WLB1");
    header.extend(NETWORK.0);
    header.extend(3u16.to_le_bytes());
    header.extend(0u16.to_le_bytes());
    header.extend(2u32.to_le_bytes());
    header.extend(1u64.to_le_bytes());
    header.extend((body.len() as u64).to_le_bytes());
    header.extend(blake3::derive_key("weft 2026-11 batch body v1", &body));
    assert_eq!(hex(&sealed.bytes()[..64]), hex(&header));
    assert_eq!(hex(&sealed.bytes()[64..64 + body.len()]), hex(&body));

    // The tree over the leaf before, the header's hash and the two ids, by the definition of RFC 6962.
    let leaf = |data: &[u8]| merkle::leaf_hash(data);
    let header_leaf = leaf(&blake3::derive_key("weft 2026-11 batch header v1", &header));
    let id = |bytes: &[u8]| leaf(&MessageView::parse(bytes).unwrap().id().0);
    let root = merkle::node_hash(
        &merkle::node_hash(&leaf(&[9; 32]), &header_leaf),
        &merkle::node_hash(&id(&first), &id(&second)),
    );
    let seal = &sealed.bytes()[64 + body.len()..];
    assert_eq!((hex(&seal[..32]), tree.root()), (hex(&root), root));
    let text = format!("weft/deadbeef/3\n4\n{}\n", weft_core::checkpoint::base64(&root));
    assert!(verify(&node().public(), text.as_bytes(), seal[32..].try_into().unwrap()));
    assert_eq!(seal.len(), SEAL_BYTES);

    assert_eq!((sealed.first(), sealed.count(), sealed.size(), sealed.root()), (1, 2, 4, &root));
    assert_eq!((sealed.lane(), sealed.network(), tree.size()), (LANE, NETWORK, 4));
    assert_eq!(sealed.place(1), Place::new(LANE, 3));
    assert_eq!(sealed.message(1).unwrap().bytes(), second);
    assert_eq!(sealed.ids()[1], MessageView::parse(&second).unwrap().id());
    assert!(sealed.message(2).is_none());
}

#[test]
fn what_is_sealed_is_read_and_passes_every_check() {
    let mut tree = LaneTree::new();
    for count in [1, 2, 40] {
        let before = tree.clone();
        let sealed = batch(&mut tree, count);
        assert_eq!(check(sealed.bytes(), &before).as_ref(), Ok(&tree));
        let view = sealed.view().unwrap();
        assert_eq!(view.checkpoint_text().lines().count(), 3);
        assert_eq!((view.first(), u64::from(view.count()), view.size()), (before.size(), count, tree.size()));
        assert_eq!(view.messages().count() as u64, count);
        for (entry, sequence) in view.messages().zip(0..) {
            assert_eq!(entry.position, before.size() + 1 + sequence);
            assert_eq!(entry.parent_places, places(sequence));
            assert_eq!(entry.message.sequence(), sequence);
            assert_eq!(entry.message.payload().len() as u64, sequence);
            let same = view.message_at(entry.position).unwrap();
            assert_eq!((same.message.bytes(), same.position), (entry.message.bytes(), entry.position));
        }
        assert!(view.message(count as u32).is_none());
        assert!(view.message_at(before.size()).is_none(), "the header's position holds no message");
        assert!(view.message_at(view.size()).is_none() && view.message_at(u64::MAX).is_none());
        assert!(view.ids().eq(sealed.ids().iter().copied()));
    }
}

#[test]
fn no_byte_of_a_batch_can_change_unnoticed() {
    let mut tree = LaneTree::new();
    let before = batch(&mut tree, 2).view().map(|_| tree.clone()).unwrap();
    let sealed = batch(&mut tree, 3);
    let (mut parse, mut hashes, mut root, mut signature) = (0, 0, 0, 0);
    for at in 0..sealed.bytes().len() {
        let mut bent = sealed.bytes().to_vec();
        bent[at] ^= 1 << (at % 8);
        match check(&bent, &before).expect_err(&format!("byte {at}")) {
            BatchError::BodyHash => hashes += 1,
            BatchError::Root | BatchError::First { .. } => root += 1,
            BatchError::Seal => signature += 1,
            _ => parse += 1,
        }
        if (HEADER_BYTES..sealed.bytes().len() - SEAL_BYTES).contains(&at) {
            let caught = BatchView::parse(&bent).and_then(|view| view.check_hashes());
            assert!(caught.is_err(), "byte {at} of the body is caught without the tree");
        }
    }
    // Every check has caught something: none of them is idle.
    assert!(
        parse > 30 && hashes > 500 && root > 32 && signature == 64,
        "{parse} {hashes} {root} {signature}"
    );
}

#[test]
fn a_batch_cut_short_or_with_bytes_behind_it_is_refused() {
    let sealed = batch(&mut LaneTree::new(), 2);
    let bytes = sealed.bytes();
    for length in 0..bytes.len() {
        let refused = BatchView::parse(&bytes[..length]).unwrap_err();
        let limit = if length < HEADER_BYTES { HEADER_BYTES } else { bytes.len() };
        assert_eq!(refused, BatchError::Length { got: length, limit });
    }
    let longer = [bytes, &[0]].concat();
    assert_eq!(
        BatchView::parse(&longer).unwrap_err(),
        BatchError::Length { got: longer.len(), limit: bytes.len() }
    );
    assert_eq!(BatchHeader::parse(&longer).unwrap().batch_bytes(), bytes.len());
}

#[test]
fn header_fields_out_of_range_are_named() {
    let sealed = batch(&mut LaneTree::new(), 2);
    let refused = |at: usize, field: &[u8]| {
        let mut bytes = sealed.bytes().to_vec();
        bytes[at..at + field.len()].copy_from_slice(field);
        BatchView::parse(&bytes).unwrap_err()
    };
    assert_eq!(refused(0, b"WLB2"), BatchError::BadMagic { got: *b"WLB2" });
    assert_eq!(refused(8, &1_024u16.to_le_bytes()), BatchError::Lane { got: 1_024, limit: 1_024 });
    assert_eq!(refused(10, &[0, 1]), BatchError::Reserved { got: 256 });
    assert_eq!(refused(12, &0u32.to_le_bytes()), BatchError::Count { got: 0, limit: 4_096 });
    assert_eq!(refused(12, &4_097u32.to_le_bytes()), BatchError::Count { got: 4_097, limit: 4_096 });
    assert_eq!(refused(12, &u32::MAX.to_le_bytes()), BatchError::Count { got: u32::MAX, limit: 4_096 });
    let last = BatchError::Position { got: 1 << 48, limit: 1 << 48 };
    assert_eq!(refused(16, &((1u64 << 48) - 2).to_le_bytes()), last);
    assert!(matches!(refused(16, &u64::MAX.to_le_bytes()), BatchError::Position { .. }));
    let body = |got| BatchError::BodyLength { got, min: 2 * 204, limit: 2 * (204 + 16_384) };
    assert_eq!(refused(24, &407u64.to_le_bytes()), body(407));
    assert_eq!(refused(24, &u64::MAX.to_le_bytes()), body(u64::MAX));
    // A count that fits the length but not the entries.
    assert_eq!(refused(12, &1u32.to_le_bytes()), BatchError::Offset { index: 0, got: 8, limit: 4 });
}

#[test]
fn entries_that_do_not_fit_their_table_or_body_are_named() {
    let sealed = batch(&mut LaneTree::new(), 3);
    let refused = |at: usize, field: &[u8]| {
        let mut bytes = sealed.bytes().to_vec();
        bytes[at..at + field.len()].copy_from_slice(field);
        BatchView::parse(&bytes).unwrap_err()
    };
    assert_eq!(
        refused(68, &211u32.to_le_bytes()),
        BatchError::Offset { index: 1, got: 211, limit: 12 + 16 + 184 }
    );
    let version = refused(64 + 12 + 16, &[9]);
    assert_eq!(
        version,
        BatchError::Message { index: 0, rejection: weft_core::Reason::BadVersion.with(9, 1) }
    );
    assert!(version.to_string().contains("entry 0: message version"), "{version}");
    // The last message claims a byte less than it has, then a byte more.
    let third = 64 + 12 + (16 + 184) + (16 + 185) + 16;
    let length = sealed.bytes().len() - SEAL_BYTES - HEADER_BYTES;
    assert_eq!(refused(third + 2, &[1]), BatchError::TrailingBytes { got: length, limit: length - 1 });
    let refused = refused(third + 2, &[3]);
    assert!(
        matches!(
            refused,
            BatchError::Message { index: 2, rejection: Rejection { got: 186, limit: 187, .. } }
        ),
        "{refused}"
    );
}

#[test]
fn a_batch_extends_only_the_lane_that_it_was_made_for() {
    let mut tree = LaneTree::new();
    let empty = tree.clone();
    batch(&mut tree, 2);
    let before = tree.clone();
    let sealed = batch(&mut tree, 2);
    let view = sealed.view().unwrap();
    assert_eq!(view.check_root(&empty), Err(BatchError::First { got: 3, limit: 0 }));
    let mut other = LaneTree::new();
    batch(&mut other, 1);
    other.push(&[1; 32]);
    assert_eq!(other.size(), before.size());
    assert_eq!(view.check_root(&other), Err(BatchError::Root));
    assert_eq!(view.check_root(&before), Ok(tree));
    let stranger = DeviceSigner::from_seed([1; 32]).public();
    assert_eq!(view.verify_seal(&stranger, verify), Err(BatchError::Seal));
}

#[test]
fn a_full_builder_refuses_and_seals_what_it_has() {
    let mut builder = BatchBuilder::new(3, 1 << 20);
    for sequence in 0..3 {
        assert!(builder.has_room_for(184));
        push(&mut builder, places(0), &message(sequence, b"")).unwrap();
    }
    assert_eq!(
        push(&mut builder, places(0), &message(3, b"")),
        Err(BatchFull { messages: 3, entry_bytes: 600 })
    );
    assert_eq!(seal(builder, &mut LaneTree::new()).unwrap().count(), 3);

    // A byte limit of 0 still takes the longest message, and then no other.
    let mut builder = BatchBuilder::new(4_096, 0);
    push(&mut builder, places(0), &message(0, &[1; PAYLOAD_BYTES_MAX])).unwrap();
    assert!(push(&mut builder, places(0), &message(1, b"")).is_err());
    assert_eq!(builder.len(), 1);
    assert_eq!(
        check(seal(builder, &mut LaneTree::new()).unwrap().bytes(), &LaneTree::new()).unwrap().size(),
        2
    );
}

#[test]
fn the_largest_batch_fits_the_format() {
    let mut builder = BatchBuilder::new(u32::MAX, usize::MAX);
    let bytes = message(0, &[1; PAYLOAD_BYTES_MAX]);
    let message = VerifiedMessage::vouch(MessageView::parse(&bytes).unwrap());
    let mut pushed = 0;
    while builder.push(places(0), &message).is_ok() {
        pushed += 1;
    }
    assert_eq!(pushed, 4_096);
    let sealed = seal(builder, &mut LaneTree::new()).unwrap();
    assert_eq!(sealed.bytes().len(), BATCH_BYTES_MAX);
    let view = BatchView::parse(sealed.bytes()).unwrap();
    assert_eq!((view.count(), view.check_hashes()), (4_096, Ok(())));
}

#[test]
fn an_empty_batch_a_wrong_lane_and_a_full_lane_are_refused_without_touching_the_tree() {
    let mut tree = LaneTree::new();
    let empty = BatchBuilder::new(10, 1_000);
    assert_eq!(seal(empty, &mut tree).unwrap_err(), BatchError::Count { got: 0, limit: 4_096 });
    let one = || {
        let mut builder = BatchBuilder::new(10, 1_000);
        push(&mut builder, places(0), &message(0, b"")).unwrap();
        builder
    };
    let sign = |_: &[u8]| [0; 64];
    let refused = one().seal(&mut tree, NETWORK, LaneId::ROOTS, sign).unwrap_err();
    assert_eq!(refused, BatchError::Lane { got: 65_535, limit: 1_024 });
    assert_eq!(tree, LaneTree::new());
    let frontier: Vec<Hash> = vec![[3; 32]; 47];
    let mut nearly_full = LaneTree::from_frontier((1 << 48) - 2, &frontier).unwrap();
    let mut full = nearly_full.clone();
    full.push(&[0; 32]);
    let refused = one().seal(&mut full, NETWORK, LANE, sign).unwrap_err();
    assert_eq!(refused, BatchError::Position { got: 1 << 48, limit: 1 << 48 });
    // With two positions left the batch fits, and is read again.
    let sealed = one().seal(&mut nearly_full, NETWORK, LANE, sign).unwrap();
    assert_eq!(sealed.view().unwrap().size(), 1 << 48);
}

#[test]
fn a_recycled_builder_starts_empty_and_gives_the_same_bytes() {
    let reference = batch(&mut LaneTree::new(), 5).bytes().to_vec();
    let mut builder = batch(&mut LaneTree::new(), 9).recycle();
    assert!(builder.is_empty() && builder.entry_bytes() == 0);
    for sequence in 0..5 {
        push(&mut builder, places(sequence), &message(sequence, &vec![sequence as u8; sequence as usize]))
            .unwrap();
    }
    assert_eq!(seal(builder, &mut LaneTree::new()).unwrap().bytes(), reference);
}

#[test]
fn a_batch_from_elsewhere_is_taken_in_only_if_it_fits_the_lane() {
    let mut tree = LaneTree::new();
    let sealed = batch(&mut tree, 5);
    let (taken, after) = SealedBatch::from_bytes(sealed.bytes().to_vec(), &LaneTree::new()).unwrap();
    assert_eq!((taken.bytes(), taken.ids(), &after), (sealed.bytes(), sealed.ids(), &tree));
    assert_eq!((taken.first(), taken.size(), taken.root()), (0, 6, sealed.root()));
    assert_eq!(taken.message(4).unwrap().bytes(), sealed.message(4).unwrap().bytes());
    assert!(taken.recycle().is_empty());
    let refused = SealedBatch::from_bytes(sealed.bytes().to_vec(), &tree).unwrap_err();
    assert_eq!(refused, BatchError::First { got: 0, limit: 6 });
    let mut bent = sealed.bytes().to_vec();
    bent[150] ^= 1;
    assert_eq!(SealedBatch::from_bytes(bent, &LaneTree::new()).unwrap_err(), BatchError::BodyHash);
}

#[test]
fn verified_messages_go_from_the_arena_into_a_batch() {
    let mut arena = Arena::new(10, 10_000);
    for sequence in 0..3 {
        arena.push(&message(sequence, b"x")).unwrap();
    }
    let arena = arena.verify_with(&[true, false, true]);
    let mut builder = BatchBuilder::new(10, 10_000);
    for message in arena.iter().flatten() {
        builder.push(places(0), &message).unwrap();
    }
    let sealed = seal(builder, &mut LaneTree::new()).unwrap();
    let sequences: Vec<_> = sealed.view().unwrap().messages().map(|entry| entry.message.sequence()).collect();
    assert_eq!(sequences, [0, 2]);
}

#[test]
fn an_inclusion_proof_leads_from_a_message_to_the_root_of_its_batch() {
    let mut tree = LaneTree::new();
    let batches = [batch(&mut tree, 3), batch(&mut tree, 6)];
    let mut leaves = Vec::new();
    for sealed in &batches {
        leaves.push(merkle::leaf_hash(&sealed.view().unwrap().header().hash()));
        leaves.extend(sealed.ids().iter().map(|id| merkle::leaf_hash(&id.0)));
    }
    let last = &batches[1];
    let place = last.place(4);
    let proof = merkle::inclusion_proof(&leaves[..], place.position(), last.size()).unwrap();
    let leaf = merkle::leaf_hash(&last.ids()[4].0);
    assert_eq!(merkle::verify_inclusion(&leaf, place.position(), last.size(), &proof, last.root()), Ok(()));
}

/// Encodes a parsed batch again from its parts.
fn encode(view: &BatchView<'_>) -> Vec<u8> {
    let mut bytes = Vec::from(*b"WLB1");
    bytes.extend(view.network().0);
    bytes.extend(view.lane().0.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(view.count().to_le_bytes());
    bytes.extend(view.first().to_le_bytes());
    let mut table = Vec::new();
    let mut entries = Vec::new();
    for entry in view.messages() {
        table.extend((view.count() * 4 + entries.len() as u32).to_le_bytes());
        entries.extend(entry.parent_places.map(|place| place.0.to_le_bytes()).concat());
        entries.extend(entry.message.bytes());
    }
    bytes.extend(((table.len() + entries.len()) as u64).to_le_bytes());
    bytes.extend(view.header().body_hash());
    bytes.extend(table);
    bytes.extend(entries);
    bytes.extend(view.root());
    bytes.extend(view.signature());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn bytes_that_are_taken_encode_to_themselves(
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = batch(&mut LaneTree::new(), 3).bytes().to_vec();
        for (at, value) in mutations {
            *at.get_mut(&mut bytes) = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(view) = BatchView::parse(&bytes) {
            prop_assert_eq!(view.messages().count(), view.count() as usize);
            prop_assert_eq!(encode(&view), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_behind_a_good_header_are_refused_without_panic(
        body in prop::collection::vec(any::<u8>(), 204..3_000), count in 1u32..20,
    ) {
        let mut bytes = Vec::from(*b"WLB1");
        bytes.extend([0; 8]);
        bytes.extend(count.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend([0; 32]);
        bytes.extend(&body);
        bytes.extend([0; SEAL_BYTES]);
        prop_assert!(BatchView::parse(&bytes).is_err());
    }
}
