//! Checking a whole log: what `weft verify-log` does.
//!
//! Owns the walk over all segments. Reads every record through the descriptor and checks its checksum, its place in the chain, the batch's
//! structure and body hash, every message's id, and the root of the lane's tree after every batch; asks the caller about signatures.
//! Changes nothing: a torn tail is reported, not cut.

use std::path::Path;

use weft_core::lane::BatchView;
use weft_core::{BatchHasher, LaneId, MessageId, NetworkId, OneByOne};

use crate::disk::{Access, Disk};
use crate::error::{Damage, LogError};
use crate::recovery::list_segments;
use crate::scan::{EndReason, Scanner};
use crate::segment::{SEGMENT_HEADER_BYTES, segment_name};

/// What a walk over a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments read.
    pub segments: u64,
    /// Sound records, up to the first damage.
    pub batches: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of their batches.
    pub batch_bytes: u64,
    /// Size of the lane after the last of them.
    pub size: u64,
    /// Root of the lane's tree at that size.
    pub root: [u8; 32],
    /// Bytes of a torn tail in the last segment, which the next opening will cut.
    pub torn_bytes: u64,
    /// Whether the log was closed in order, or opened and not used since.
    pub closed: bool,
    /// The first damage; nothing after it was read.
    pub damage: Option<Damage>,
}

/// What the caller of [`verify_log`] checks of each batch: gets the batch and the ids of its messages, says what is wrong.
pub type BatchCheck<'a> = dyn FnMut(&BatchView<'_>, &[MessageId]) -> Result<(), String> + 'a;

/// Walks the log of `lane` in `dir`. `check_batch` gets every batch with the ids of its messages (computed from their bytes) and says
/// what is wrong with it, if anything is: the node's signature, the messages' signatures, their parents.
///
/// # Errors
/// Only what keeps the walk from going on (unreadable files, another network); damage is part of the report.
pub fn verify_log(
    disk: &dyn Disk,
    dir: &Path,
    network: NetworkId,
    lane: LaneId,
    hasher: &'static dyn BatchHasher,
    check_batch: &mut BatchCheck<'_>,
) -> Result<Report, LogError> {
    let mut report = Report { root: weft_core::merkle::EMPTY_ROOT, ..Report::default() };
    match walk(disk, dir, (network, lane), hasher, &mut report, check_batch) {
        Err(LogError::Damaged(damage) | LogError::Unsound(damage)) => report.damage = Some(damage),
        other => other?,
    }
    Ok(report)
}

fn walk(
    disk: &dyn Disk,
    dir: &Path,
    (network, lane): (NetworkId, LaneId),
    hasher: &'static dyn BatchHasher,
    report: &mut Report,
    check_batch: &mut BatchCheck<'_>,
) -> Result<(), LogError> {
    let firsts = list_segments(disk, dir)?;
    let mut chain = [0; 32];
    for (i, first) in firsts.iter().enumerate() {
        let path = dir.join(segment_name(*first));
        let mut scanner = Scanner::open(disk, &path, Access::Read, (network, lane, *first), hasher)?;
        if *first != report.size {
            let what =
                format!("the segment begins at position {first}, but the log so far ends at {}", report.size);
            return Err(LogError::damaged(&path, 24, what));
        }
        if scanner.header.previous != chain {
            return Err(LogError::damaged(
                &path,
                72,
                "the segment does not follow the last record before it",
            ));
        }
        if scanner.header.tree.root() != report.root {
            return Err(LogError::damaged(&path, 104, "the frontier is not that of the log so far"));
        }
        report.segments += 1;
        let reason = loop {
            let record = match scanner.next()? {
                Ok(record) => record,
                Err(reason) => break reason,
            };
            check_batch(&record.batch, record.ids)
                .map_err(|what| LogError::damaged(&path, record.offset, what))?;
            report.batches += 1;
            report.messages += u64::from(record.frame.count);
            report.batch_bytes += record.frame.length_bytes;
            report.size = record.frame.size();
            report.root = *record.batch.root();
        };
        chain = scanner.chain;
        if let Some(next) = firsts.get(i + 1) {
            if *next != report.size {
                let (size, found) = (report.size, reason.describe());
                let what = format!(
                    "the segment ends here at size {size} ({found}), but the next one begins at {next}"
                );
                return Err(LogError::damaged(&path, scanner.offset, what));
            }
            continue;
        }
        let tail = scanner.tail()?;
        scanner.check_tail(&tail, &reason)?;
        report.closed = reason == EndReason::Mark;
        report.torn_bytes = match tail.used_end {
            Some(end) if !report.closed => end - scanner.offset,
            _ => 0,
        };
    }
    Ok(())
}

/// One record as [`inspect_segment`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordInfo {
    /// Offset in the file.
    pub offset: u64,
    /// Size of the lane before it.
    pub first: u64,
    /// Messages.
    pub count: u32,
    /// Length of the batch in bytes.
    pub length_bytes: u64,
    /// Size of the lane known durable when it was written.
    pub durable: u64,
    /// Random number of the opening that wrote it.
    pub session: u64,
}

/// Lists the sound records of one segment, and says in words why the list ends where it does.
///
/// # Errors
/// A file that is no segment of this lane, or an unsound record.
pub fn inspect_segment(
    disk: &dyn Disk,
    dir: &Path,
    network: NetworkId,
    lane: LaneId,
    first: u64,
) -> Result<(Vec<RecordInfo>, String), LogError> {
    let path = dir.join(segment_name(first));
    let mut scanner = Scanner::open(disk, &path, Access::Read, (network, lane, first), &OneByOne)?;
    let mut records = Vec::new();
    loop {
        match scanner.next()? {
            Ok(record) => records.push(RecordInfo {
                offset: record.offset,
                first: record.frame.first,
                count: record.frame.count,
                length_bytes: record.frame.length_bytes,
                durable: record.frame.durable,
                session: record.frame.session,
            }),
            Err(reason) => {
                let used = scanner.offset - SEGMENT_HEADER_BYTES as u64;
                return Ok((records, format!("{used} bytes of records, then {}", reason.describe())));
            }
        }
    }
}
