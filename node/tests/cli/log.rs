//! `inspect` and `verify-log` over logs made here: sound ones, and ones in which one thing is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_core::{
    BatchBuilder, DeviceSigner, Draft, Genesis, LaneId, LaneTree, MessageId, MessageView, OneByOne,
    PayloadKind, Place, VerifiedMessage,
};
use weft_storage::{DataDir, LaneLog, LogConfig, RealDisk};

use super::{weft, weft_with};

const LANE: LaneId = LaneId(0);
const NODE_SEED: [u8; 32] = [42; 32];
const SEGMENT_BYTES: u64 = 64 << 10;

/// What is wrong with a log, if anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Message 25 has a signature over something else.
    Signature,
    /// Message 25 names the place of another message for its parent.
    ParentPlace,
    /// The third batch is sealed with a key that is not the node's.
    Seal,
}

/// A data directory whose lane has `batches` batches of ten messages.
struct Ledger {
    directory: tempfile::TempDir,
    ids: Vec<MessageId>,
    places: Vec<Place>,
}

impl Ledger {
    fn new(batches: usize, wrong: Wrong) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("ledger");
        let node = DeviceSigner::from_seed(NODE_SEED);
        let genesis = Genesis::single("test ledger", 1_800_000_000_000_000, node.public());
        let data = DataDir::init(&data, &genesis, &NODE_SEED).unwrap();
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            free_bytes_min: 0,
            background: false,
            hasher: &OneByOne,
        };
        let dir = data.lane_dir(LANE);
        let (log, _) =
            LaneLog::open(Arc::new(RealDisk), &dir, data.network(), LANE, config, &|_| true).unwrap();
        let LaneLog { mut writer, syncer, reader: _ } = log;
        let stranger = DeviceSigner::from_seed([77; 32]);
        let mut tree = LaneTree::new();
        let mut parents = data.genesis_id().roots();
        let mut parent_places = [Place::root(0), Place::root(1)];
        let mut ledger = Self { directory, ids: Vec::new(), places: Vec::new() };
        for batch in 0..batches {
            let first = tree.size();
            let mut builder = BatchBuilder::new(10, 1 << 16);
            for index in 0..10 {
                let number = batch * 10 + index;
                let device = DeviceSigner::from_seed([number as u8; 32]);
                let payload = format!("reading {number:>8}, sent by a test");
                let draft = Draft {
                    network: data.network(),
                    issued_at_us: 1_800_000_000_000_000,
                    sequence: number as u64,
                    parents,
                    kind: PayloadKind::DATA,
                    payload: payload.as_bytes(),
                };
                let mut bytes = draft.sign(&device).unwrap();
                let last = bytes.len() - 1;
                if number == 25 && wrong == Wrong::Signature {
                    // The top byte of s would make it too large; this one makes it another number.
                    bytes[last - 20] ^= 1;
                }
                let mut places = parent_places;
                if number == 25 && wrong == Wrong::ParentPlace {
                    places[0] = Place::new(LANE, 1);
                }
                let view = MessageView::parse(&bytes).unwrap();
                let id = view.id();
                builder.push(places, &VerifiedMessage::vouch(view)).unwrap();
                let place = Place::new(LANE, first + 1 + index as u64);
                ledger.ids.push(id);
                ledger.places.push(place);
                parents = [parents[1], id];
                parent_places = [parent_places[1], place];
            }
            let signer = if batch == 2 && wrong == Wrong::Seal { &stranger } else { &node };
            let sealed =
                builder.seal(&mut tree, data.network(), LANE, |text| signer.sign_bytes(text)).unwrap();
            writer.append(&sealed, &tree).unwrap();
        }
        syncer.sync().unwrap();
        writer.close().unwrap();
        ledger
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("ledger")
    }

    fn data_text(&self) -> String {
        self.data().to_str().unwrap().to_owned()
    }

    fn segments(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("lanes/0")).unwrap();
        let mut segments: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        segments.sort();
        segments
    }
}

/// Where the text of a message lies in a file.
fn find(file: &Path, text: &str) -> usize {
    let bytes = std::fs::read(file).unwrap();
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("the text is in the file")
}

#[test]
fn a_sound_log_is_called_sound_and_counted() {
    let ledger = Ledger::new(30, Wrong::Nothing);
    assert!(ledger.segments().len() > 1, "the log should span segments");
    let report = weft(&["verify-log", "--data", &ledger.data_text(), "--json"]).expect(0).json();
    assert_eq!(report["sound"], true);
    let lane = &report["lanes"][0];
    assert_eq!(lane["messages"], 300);
    assert_eq!(lane["batches"], 30);
    assert_eq!(lane["size"], 330);
    assert_eq!(lane["signatures_verified"], 300);
    assert_eq!(lane["parents_checked"], 600);
    assert_eq!(lane["closed"], true);
    let ran = weft(&["verify-log", "--data", &ledger.data_text(), "--verifier", "serial"]).expect(0);
    assert!(ran.out.contains(": sound"), "{}", ran.out);
    weft(&["verify-log", "--data", &ledger.data_text(), "--lane", "3"]).expect(2);
}

#[test]
fn a_changed_byte_is_damage_with_its_file_and_offset() {
    let ledger = Ledger::new(30, Wrong::Nothing);
    let segment = ledger.segments()[0].clone();
    let offset = find(&segment, "reading       25");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[offset + 9] = b'7';
    std::fs::write(&segment, &bytes).unwrap();

    let ran = weft(&["verify-log", "--data", &ledger.data_text()]).expect(1);
    assert!(ran.out.contains("DAMAGED") && ran.out.contains(segment.to_str().unwrap()), "{}", ran.out);
    let report = weft(&["verify-log", "--data", &ledger.data_text(), "--json"]).expect(1).json();
    let lane = &report["lanes"][0];
    assert_eq!(report["sound"], false);
    assert_eq!(lane["messages"], 20, "the batches before the damage");
    let at = lane["damage"]["offset"].as_u64().unwrap() as usize;
    assert!(at < offset && offset < at + 4096, "damage at {offset} is named at {at}");
    // What reads the same walk says the same.
    weft(&["inspect", "log", "--data", &ledger.data_text()]).expect(1);
}

#[test]
fn a_bad_device_signature_in_a_well_sealed_batch_is_found_and_named() {
    let ledger = Ledger::new(30, Wrong::Signature);
    let report = weft(&["verify-log", "--data", &ledger.data_text(), "--json"]).expect(1).json();
    let damage = &report["lanes"][0]["damage"];
    let what = damage["what"].as_str().unwrap();
    let position = ledger.places[25].position();
    assert!(
        what.contains(&ledger.ids[25].to_string()) && what.contains(&format!("position {position}")),
        "{what}"
    );
    assert!(damage["file"].as_str().unwrap().ends_with("0000000000000000.seg"));
    assert!(damage["offset"].as_u64().unwrap() > 4096);
}

#[test]
fn a_parent_that_is_not_at_its_place_is_found_and_named() {
    let ledger = Ledger::new(30, Wrong::ParentPlace);
    let report = weft(&["verify-log", "--data", &ledger.data_text(), "--json"]).expect(1).json();
    let what = report["lanes"][0]["damage"]["what"].as_str().unwrap().to_owned();
    assert!(what.contains(&format!("{}, 0/1, lies {}", ledger.ids[23], ledger.ids[0])), "{what}");
}

#[test]
fn a_batch_that_the_node_did_not_sign_is_found() {
    let ledger = Ledger::new(30, Wrong::Seal);
    let report = weft(&["verify-log", "--data", &ledger.data_text(), "--json"]).expect(1).json();
    let lane = &report["lanes"][0];
    assert!(lane["damage"]["what"].as_str().unwrap().contains("not signed by a node of the committee"));
    assert_eq!(lane["messages"], 20);
}

#[test]
fn a_directory_in_use_is_left_alone() {
    let ledger = Ledger::new(1, Wrong::Nothing);
    let _held = DataDir::open(&ledger.data()).unwrap();
    let ran = weft(&["verify-log", "--data", &ledger.data_text()]).expect(3);
    assert!(ran.err.contains("in use by process"), "{}", ran.err);
    weft(&["inspect", "log", "--data", "/no/such/directory"]).expect(3);
}

#[test]
fn the_log_is_shown_with_its_ledger_and_its_segments() {
    let ledger = Ledger::new(30, Wrong::Nothing);
    let ran = weft(&["inspect", "log", "--data", &ledger.data_text()]).expect(0);
    for part in ["ledger \"test ledger\"", "lane 0: 300 messages in 30 batches", "closed in order", ".seg"] {
        assert!(ran.out.contains(part), "no {part:?} in\n{}", ran.out);
    }
    let report = weft(&["inspect", "log", "--data", &ledger.data_text(), "--json"]).expect(0).json();
    let segments = report["lanes"][0]["segments"].as_array().unwrap();
    assert_eq!(segments.len(), ledger.segments().len());
    let messages: u64 = segments.iter().map(|segment| segment["messages"].as_u64().unwrap()).sum();
    assert_eq!(messages, 300);
    assert!(segments.iter().all(|segment| segment["batches"].as_u64().unwrap() > 0));
}

#[test]
fn a_segment_is_shown_record_by_record() {
    let ledger = Ledger::new(30, Wrong::Nothing);
    let first = ledger.segments()[0].to_str().unwrap().to_owned();
    let report = weft(&["inspect", "segment", &first, "--json"]).expect(0).json();
    let records = report["records"].as_array().unwrap();
    assert!(records.len() > 2);
    assert_eq!(records[0]["offset"], 4096);
    assert_eq!(records[1]["first"], 11);
    let ran = weft(&["inspect", "segment", &first, "--records", "2"]).expect(0);
    assert!(ran.out.contains(&format!("and {} more", records.len() - 2)), "{}", ran.out);

    // Something else under a segment's name.
    let file = ledger.directory.path().join("0000000000000000.seg");
    std::fs::write(&file, vec![0; 8192]).unwrap();
    let ran = weft(&["inspect", "segment", file.to_str().unwrap()]).expect(1);
    assert!(ran.out.contains("not a segment"), "{}", ran.out);
}

#[test]
fn a_message_is_found_by_id_and_by_place_and_read_from_bytes() {
    let ledger = Ledger::new(30, Wrong::Signature);
    let (id, place) = (ledger.ids[290].to_string(), ledger.places[290].to_string());
    let by_id = weft(&["inspect", "message", &id, "--data", &ledger.data_text(), "--json"]).expect(0).json();
    let by_place =
        weft(&["inspect", "message", &place, "--data", &ledger.data_text(), "--json"]).expect(0).json();
    assert_eq!(by_id, by_place);
    assert_eq!(by_id["id"], id.as_str());
    assert_eq!(by_id["place"], place.as_str());
    assert_eq!(by_id["signature_valid"], true);
    assert_eq!(by_id["parents"][1]["id"], ledger.ids[289].to_string());
    assert_eq!(by_id["parents"][1]["place"], ledger.places[289].to_string());
    let ran = weft(&["inspect", "message", &id, "--data", &ledger.data_text()]).expect(0);
    assert!(ran.out.contains("reading      290"), "{}", ran.out);

    // A bad signature is shown, and is exit code 1.
    let ran =
        weft(&["inspect", "message", &ledger.ids[25].to_string(), "--data", &ledger.data_text()]).expect(1);
    assert!(ran.out.contains("NOT VALID"), "{}", ran.out);
    // Not there, and not a question.
    weft(&["inspect", "message", &"0".repeat(64), "--data", &ledger.data_text()]).expect(1);
    weft(&["inspect", "message", "0/0", "--data", &ledger.data_text()]).expect(1);
    weft(&["inspect", "message", "no such file", "--data", &ledger.data_text()]).expect(2);

    let device = DeviceSigner::from_seed([5; 32]);
    let network = "00000000".parse().unwrap();
    let draft = Draft {
        network,
        issued_at_us: 0,
        sequence: 0,
        parents: [MessageId([1; 32]), MessageId([2; 32])],
        kind: PayloadKind::DATA,
        payload: b"",
    };
    let file = ledger.directory.path().join("message.bin");
    let bytes = draft.sign(&device).unwrap();
    std::fs::write(&file, &bytes).unwrap();
    weft(&["inspect", "message", file.to_str().unwrap()]).expect(0);
    std::fs::write(&file, &bytes[..100]).unwrap();
    let ran = weft(&["inspect", "message", file.to_str().unwrap()]).expect(1);
    assert!(ran.out.contains("not a message"), "{}", ran.out);
    weft_with(&["inspect", "message", "-"], &[], "not a message").expect(1);
}
