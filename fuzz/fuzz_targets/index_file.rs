//! Any bytes as damage to an index file, with its checksums made right again where the input asks for it: the log opens, look-ups never
//! panic, and a look-up that answers has the right message. An index whose checksums were not forged is never wrong: all is found.

#![no_main]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use weft_core::lane::build::BatchBuilder;
use weft_core::{
    DeviceKey, Draft, LaneId, LaneTree, MessageId, MessageView, NetworkId, OneByOne, PayloadKind, Place,
    VerifiedMessage,
};
use weft_storage::sim::SimDisk;
use weft_storage::{Disk, LaneLog, LogConfig};

const NETWORK: NetworkId = NetworkId([1, 2, 3, 4]);
const LANE: LaneId = LaneId(3);
const CONFIG: LogConfig =
    LogConfig { segment_bytes: 16_384, free_bytes_min: 0, background: false, hasher: &OneByOne };
const CHANGES_MAX: usize = 16;

fn dir() -> PathBuf {
    PathBuf::from("/lane")
}

fn path() -> PathBuf {
    dir().join("0000000000000000.idx")
}

fn open(disk: &SimDisk) -> LaneLog {
    let opened = LaneLog::open(Arc::new(disk.clone()), &dir(), NETWORK, LANE, CONFIG, &|_| true);
    opened.expect("no index keeps a log from opening").0
}

/// A disk with a log of two segments, of which the first has an index file, and all ids with their places.
fn sound() -> &'static (SimDisk, Vec<(MessageId, Place)>) {
    static SOUND: OnceLock<(SimDisk, Vec<(MessageId, Place)>)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let disk = SimDisk::new(1);
        let mut log = open(&disk);
        let mut tree = LaneTree::new();
        let mut ids = Vec::new();
        while log.reader.stats().segments < 2 {
            let mut builder = BatchBuilder::new(8, 65_536);
            for i in 0..3 {
                let draft = Draft {
                    network: NETWORK,
                    issued_at_us: tree.size(),
                    sequence: i,
                    parents: [MessageId([1; 32]), MessageId([2; 32])],
                    kind: PayloadKind::DATA,
                    payload: &[i as u8; 100],
                };
                let mut bytes = Vec::new();
                draft.write_content(&DeviceKey([i as u8; 32]), &mut bytes).expect("the payload is short");
                Draft::finish(&mut bytes, &[7; 64]);
                let view = MessageView::parse(&bytes).expect("just written");
                let message = VerifiedMessage::vouch(view);
                builder.push([Place::root(0), Place::root(1)], &message).expect("there is room");
            }
            let batch = builder.seal(&mut tree, NETWORK, LANE, |_| [9; 64]).expect("not empty");
            log.writer.append(&batch, &tree).expect("no fault is set");
            ids.extend((0..).zip(batch.ids()).map(|(i, id)| (*id, batch.place(i))));
        }
        log.writer.close().expect("no fault is set");
        assert!(disk.list(&dir()).is_ok_and(|names| names.iter().any(|name| name.ends_with(".idx"))));
        (disk, ids)
    })
}

fuzz_target!(|data: &[u8]| {
    let (disk, ids) = sound();
    let disk = disk.fork();
    let length = disk.read_file(&path()).expect("the index is there").len();
    let mut forged = false;
    let mut rest = data;
    for _ in 0..CHANGES_MAX {
        let Some((change, after)) = rest.split_first_chunk::<4>() else { break };
        let [kind, low, high, count] = *change;
        let offset = usize::from(u16::from_le_bytes([low, high])) % length;
        let (bytes, after) = after.split_at(usize::from(count).min(after.len()).min(length - offset));
        rest = after;
        disk.tamper(&path(), offset as u64, bytes).expect("the file is there");
        if kind & 1 == 1 {
            forged = true;
            let bytes = disk.read_file(&path()).expect("the file is there");
            disk.tamper(&path(), 80, blake3::hash(&bytes[256..]).as_bytes()).expect("the file is there");
            let bytes = disk.read_file(&path()).expect("the file is there");
            let checksum = blake3::derive_key("weft 2026-11 log index v1", &bytes[..224]);
            disk.tamper(&path(), 224, &checksum).expect("the file is there");
        }
    }
    let log = open(&disk);
    for (id, place) in ids {
        let found = log.reader.find(id);
        assert!(found == Some(*place) || forged && found.is_none(), "{found:?}");
        // May miss or fail under a forged index, and must not panic.
        let message = log.reader.message_at(*place);
        assert!(forged || message.is_ok_and(|message| message.is_some_and(|message| message.view().is_ok())));
    }
    let chunk = data.first_chunk().copied().unwrap_or([0; 32]);
    assert!(log.reader.find(&MessageId(chunk)).is_none());
    log.reader.batches_from(0).take(1_000).for_each(drop);
    let _ = log.reader.stats();
});
