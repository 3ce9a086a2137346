//! Any bytes as a lane batch: nothing panics, and what is taken encodes to the same bytes. Then the same
//! bytes as a recipe for a batch: what is built passes every check, and with one byte changed it passes not
//! all of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::lane::{HEADER_BYTES, SEAL_BYTES};
use weft_core::{
    BatchBuilder, BatchError, BatchHeader, BatchView, DeviceKey, Draft, LaneId, LaneTree, MessageId,
    MessageView, NetworkId, PayloadKind, Place, SealedBatch, VerifiedMessage, merkle,
};

/// Messages of a built batch, at most: enough for a table, few enough for speed.
const BUILT_MESSAGES_MAX: usize = 8;

fuzz_target!(|data: &[u8]| {
    let header = BatchHeader::parse(data);
    match BatchView::parse(data) {
        Ok(view) => check(data, &view),
        Err(refused) => assert!(header.is_err() || !matches!(refused, BatchError::BadMagic { .. })),
    }
    build(data);
});

fn check(data: &[u8], view: &BatchView<'_>) {
    assert_eq!(encode(view), data);
    assert_eq!(view.messages().count(), view.count() as usize);
    for (index, entry) in (0..).zip(view.messages()) {
        let same = view.message(index).expect("the index is below the count");
        assert_eq!(same.message.bytes(), entry.message.bytes());
        assert_eq!((same.position, same.parent_places), (entry.position, entry.parent_places));
        assert!(view.message_at(entry.position).is_some());
    }
    assert!(view.message(view.count()).is_none());
    assert!(view.message_at(view.first()).is_none() && view.message_at(view.size()).is_none());
    let _ = view.check_hashes();
    let _ = view.check_root(&LaneTree::new());
    let _ = SealedBatch::from_bytes(data.to_vec(), &LaneTree::new());
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

/// A signature of sorts: it depends on every byte of the text.
fn sign(text: &[u8]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&merkle::leaf_hash(text));
    signature
}

/// Takes the first byte, 0 at the end.
fn byte(data: &mut &[u8]) -> u8 {
    let Some((byte, rest)) = data.split_first() else { return 0 };
    *data = rest;
    *byte
}

fn build(mut data: &[u8]) {
    let data = &mut data;
    let mut before = LaneTree::new();
    (0..byte(data) % 9).for_each(|leaf| before.push(&[leaf; 32]));
    let mut builder = BatchBuilder::new(BUILT_MESSAGES_MAX as u32, 0);
    let change = (usize::from(byte(data)) << 8 | usize::from(byte(data)), byte(data));
    let lane = LaneId(u16::from(byte(data)));
    while !data.is_empty() && builder.len() < BUILT_MESSAGES_MAX {
        let length = usize::from(byte(data)).min(data.len());
        let (payload, rest) = data.split_at(length);
        *data = rest;
        let draft = Draft {
            network: NetworkId([1; 4]),
            issued_at_us: 0,
            sequence: u64::from(byte(data)),
            parents: [MessageId([1; 32]), MessageId([2; 32])],
            kind: PayloadKind(byte(data)),
            payload,
        };
        let mut bytes = Vec::new();
        draft.write_content(&DeviceKey([3; 32]), &mut bytes).expect("the payload is short");
        Draft::finish(&mut bytes, &[byte(data); 64]);
        let message = VerifiedMessage::vouch(MessageView::parse(&bytes).expect("it was just written"));
        builder.push([Place::root(0), Place(u64::MAX)], &message).expect("the longest message would fit");
    }
    if builder.is_empty() {
        return;
    }
    let mut after = before.clone();
    let sealed = builder.seal(&mut after, NetworkId([1; 4]), lane, sign).expect("the lane is in range");
    assert_eq!(check_all(sealed.bytes(), &before).as_ref(), Ok(&after));
    let (at, mask) = change;
    if mask != 0 {
        let mut bytes = sealed.bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= mask;
        assert!(check_all(&bytes, &before).is_err());
        if (HEADER_BYTES..bytes.len() - SEAL_BYTES).contains(&at) {
            assert!(BatchView::parse(&bytes).and_then(|view| view.check_hashes()).is_err());
        }
    }
}

fn check_all(bytes: &[u8], before: &LaneTree) -> Result<LaneTree, BatchError> {
    let view = BatchView::parse(bytes)?;
    check(bytes, &view);
    view.check_hashes()?;
    let after = view.check_root(before)?;
    view.verify_seal(&DeviceKey([0; 32]), |_, text, signature| sign(text) == *signature)?;
    Ok(after)
}
