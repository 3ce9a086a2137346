//! The seeds of the fuzz targets must stay what the decoders take: a fuzzer that starts from refused inputs
//! finds little.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use weft_core::confirm::{Transfer, Votes, Witness};
use weft_core::{
    BatchView, ConsistencyFile, ForkProof, Genesis, LaneId, MessageId, MessageView, NetworkId, Place,
    Receipt, SignedCheckpoint,
};

/// Runs `is_taken` on every seed of a target.
fn check(target: &str, is_taken: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut seeds = 0;
    for seed in fs::read_dir(folder).unwrap() {
        let path = seed.unwrap().path();
        assert!(is_taken(&fs::read(&path).unwrap()), "{} is refused", path.display());
        seeds += 1;
    }
    assert!(seeds > 1);
}

#[test]
fn every_seed_of_the_decoders_is_taken() {
    check("message", |bytes| MessageView::split(bytes).is_ok());
    check("batch_view", |bytes| BatchView::parse(bytes).is_ok_and(|view| view.check_hashes().is_ok()));
    check("witness", |bytes| Witness::decode(bytes).is_ok() || Votes::decode(bytes).is_ok());
    check("fork_proof", |bytes| ForkProof::decode(bytes).is_ok());
    check("transfer", |bytes| Transfer::decode(bytes).is_ok());
    check("receipt", |bytes| {
        Receipt::parse(bytes).is_ok()
            || ConsistencyFile::parse(bytes).is_ok()
            || SignedCheckpoint::parse(bytes).is_ok()
    });
    check("genesis", |bytes| Genesis::decode(bytes).is_ok());
    check("ids_text", |bytes| {
        let text = str::from_utf8(bytes).unwrap();
        text.parse::<MessageId>().is_ok()
            || text.parse::<NetworkId>().is_ok()
            || text.parse::<LaneId>().is_ok()
            || text.parse::<Place>().is_ok()
    });
}
