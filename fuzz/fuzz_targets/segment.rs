//! Any bytes as a segment header and as a frame: nothing panics, and what is taken encodes to the same bytes. Then the same bytes as
//! damage to a sound log, with its checksums made right again where the input asks for it: opening it never panics, what opens is a
//! prefix of what was appended as long as no checksum was forged, agrees with `verify_log`, and takes another batch.

#![no_main]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use weft_core::lane::build::{BatchBuilder, SealedBatch};
use weft_core::{
    DeviceKey, Draft, LaneId, LaneTree, MessageId, MessageView, NetworkId, OneByOne, PayloadKind, Place,
    VerifiedMessage,
};
use weft_storage::segment::{FRAME_BYTES, Frame, SEGMENT_HEADER_BYTES, SegmentHeader};
use weft_storage::sim::SimDisk;
use weft_storage::{LaneLog, LogConfig, LogError, verify_log};

const NETWORK: NetworkId = NetworkId([1, 2, 3, 4]);
const LANE: LaneId = LaneId(3);
const CONFIG: LogConfig =
    LogConfig { segment_bytes: 16_384, free_bytes_min: 0, background: false, hasher: &OneByOne };
/// Changes applied to the log, at most: each is 12 bytes or more of input.
const CHANGES_MAX: usize = 16;

fn dir() -> PathBuf {
    PathBuf::from("/lane")
}

fn path() -> PathBuf {
    dir().join("0000000000000000.seg")
}

fn batch(tree: &mut LaneTree, messages: u8) -> SealedBatch {
    let mut builder = BatchBuilder::new(64, 65_536);
    for i in 0..messages {
        let draft = Draft {
            network: NETWORK,
            issued_at_us: tree.size(),
            sequence: u64::from(i),
            parents: [MessageId([1; 32]), MessageId([2; 32])],
            kind: PayloadKind::DATA,
            payload: &[i; 100],
        };
        let mut bytes = Vec::new();
        draft.write_content(&DeviceKey([i; 32]), &mut bytes).expect("the payload is short");
        Draft::finish(&mut bytes, &[7; 64]);
        let view = MessageView::parse(&bytes).expect("just written");
        builder.push([Place::root(0), Place::root(1)], &VerifiedMessage::vouch(view)).expect("there is room");
    }
    builder.seal(tree, NETWORK, LANE, |_| [9; 64]).expect("neither empty nor at the end of the lane")
}

fn open(disk: &SimDisk) -> Result<(LaneLog, weft_storage::Recovered), LogError> {
    LaneLog::open(Arc::new(disk.clone()), &dir(), NETWORK, LANE, CONFIG, &|_| true)
}

/// A disk with a log of four batches, of which the last was not synced, and the sizes of the lane after each.
fn sound() -> &'static (SimDisk, Vec<(u64, [u8; 32])>) {
    static SOUND: OnceLock<(SimDisk, Vec<(u64, [u8; 32])>)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let disk = SimDisk::new(1);
        let (mut log, _) = open(&disk).expect("an empty disk");
        let mut tree = LaneTree::new();
        let mut sizes = vec![(0, tree.root())];
        for messages in [1, 5, 2, 9] {
            let batch = batch(&mut tree, messages);
            log.writer.append(&batch, &tree).expect("no fault is set");
            sizes.push((tree.size(), tree.root()));
            if messages != 9 {
                log.syncer.sync().expect("no fault is set");
            }
        }
        (disk, sizes)
    })
}

fuzz_target!(|data: &[u8]| {
    if let Ok((header, checksum)) = SegmentHeader::decode(data) {
        let bytes = header.encode();
        assert_eq!((&bytes[..4_064], &bytes[4_064..]), (&data[..4_064], &checksum[..]));
    }
    if let Ok((frame, _)) = Frame::decode(data, &[0; 32]) {
        assert_eq!(frame.encode(&[0; 32]), data[..FRAME_BYTES]);
    }
    damage(data);
});

fn damage(data: &[u8]) {
    let (disk, sizes) = sound();
    let disk = disk.fork();
    let mut forged = false;
    let mut rest = data;
    for _ in 0..CHANGES_MAX {
        let Some((change, after)) = rest.split_first_chunk::<4>() else { break };
        let [kind, low, high, length] = *change;
        let offset = u64::from(u16::from_le_bytes([low, high])) % CONFIG.segment_bytes;
        let length = usize::from(length).min(after.len()).min((CONFIG.segment_bytes - offset) as usize);
        let (bytes, after) = after.split_at(length);
        rest = after;
        disk.tamper(&path(), offset, bytes).expect("the file is there");
        if kind & 1 == 1 {
            forged = true;
            repair(&disk, &path(), offset);
        }
    }
    let report = verify_log(&disk, &dir(), NETWORK, LANE, &OneByOne, &mut |_, _| Ok(()));
    let (mut log, recovered) = match open(&disk) {
        Ok(opened) => opened,
        Err(LogError::Damaged(damage) | LogError::Unsound(damage)) => {
            let reported =
                report.expect("damage is part of the report").damage.expect("the log does not open");
            assert_eq!((reported.path, reported.offset), (damage.path, damage.offset));
            return;
        }
        // A header with another network or lane, its checksum made right.
        Err(_) => return assert!(forged),
    };
    let report = report.expect("the log opens");
    assert_eq!((report.damage, report.size), (None, recovered.size));
    if !forged {
        assert!(
            sizes.contains(&(recovered.size, recovered.tree.root())),
            "not a prefix of what was appended"
        );
    }
    for stored in log.reader.batches_from(0) {
        let stored = stored.expect("recovered batches can be read");
        let view = stored.view().expect("recovered batches are sound");
        for (index, id) in (0..).zip(view.ids()) {
            let place = Place::new(LANE, stored.first + 1 + index);
            let message = log.reader.message_at(place).expect("sound").expect("written");
            assert_eq!(message.view().expect("sound").id(), id);
            assert!(log.reader.find(&id).is_some());
        }
    }
    let mut tree = recovered.tree;
    let more = batch(&mut tree, 2);
    log.writer.append(&more, &tree).expect("a recovered log takes more");
    log.syncer.sync().expect("no fault is set");
    let (_, recovered) = open(&disk.crash(&[])).expect("what was synced survives");
    assert_eq!(recovered.tree, tree);
}

/// Makes the checksum of the header or of the frame at `offset` right, so that the checks behind it are reached.
fn repair(disk: &SimDisk, path: &Path, offset: u64) {
    let bytes = disk.read_file(path).expect("the file is there");
    if offset < SEGMENT_HEADER_BYTES as u64 {
        let checksum = blake3::derive_key("weft 2026-11 log segment v1", &bytes[..4_064]);
        return disk.tamper(path, 4_064, &checksum).expect("the file is there");
    }
    let at = (offset / 512 * 512) as usize;
    let Some(salt) = bytes[40..72].first_chunk::<32>() else { return };
    let checksum = *blake3::keyed_hash(salt, &bytes[at..at + 96]).as_bytes();
    disk.tamper(path, at as u64 + 96, &checksum).expect("the file is there");
}
