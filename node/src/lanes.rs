//! The logs of all lanes: opening them, and reading them.
//!
//! Owns how they are opened, and the readers. Invariant: reader i is that of lane i. What of another node's lane may be told to whom is for the caller:
//! beyond final a lane may still change.

use std::sync::Arc;

use weft_core::{LaneId, MessageId, NodeKey, Place};
use weft_storage::datadir::DataDir;
use weft_storage::{LaneLog, LogConfig, LogReader, RealDisk, Recovered};

use crate::config::Config;
use crate::hasher::fastest;
use crate::node::StartError;

/// Longest segments of other nodes' lanes: a node of a large committee must not allocate as many of its own lane's.
const OTHER_SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// Readers by lane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lanes {
    readers: Arc<[LogReader]>,
    own: LaneId,
}

impl Lanes {
    /// The own lane's reader among the others', which come in order.
    pub fn new(own: LaneId, reader: LogReader, others: impl Iterator<Item = LogReader>) -> Self {
        let mut readers: Vec<LogReader> = others.collect();
        readers.insert(usize::from(own.0).min(readers.len()), reader);
        Self { readers: readers.into(), own }
    }

    /// No lanes: for tests of what only names places.
    #[cfg(test)]
    pub(crate) fn without_lanes() -> Self {
        Self { readers: Arc::new([]), own: LaneId(0) }
    }

    /// All readers.
    pub fn readers(&self) -> &[LogReader] {
        &self.readers
    }

    /// The reader of `lane`.
    pub fn get(&self, lane: LaneId) -> Option<&LogReader> {
        self.readers.get(usize::from(lane.0))
    }

    /// This node's lane.
    pub fn own(&self) -> LaneId {
        self.own
    }

    /// Where a message lies in another node's lane, below the size that `limit` tells.
    pub fn find_elsewhere(&self, id: &MessageId, limit: impl Fn(LaneId) -> u64) -> Option<Place> {
        let others = self.readers.iter().filter(|reader| reader.lane() != self.own);
        others.into_iter().find_map(|reader| {
            let limit = limit(reader.lane());
            (limit > 0).then(|| reader.find(id)).flatten().filter(|place| place.position() < limit)
        })
    }
}

/// Opens the logs of all lanes: the own one, what was found in it, and the others in order of lanes. The last batch of each must carry its
/// node's signature: a log that was copied here from another ledger or lane is refused.
pub(crate) fn open_logs(
    data: &DataDir,
    config: &Config,
    own: LaneId,
    keys: &[NodeKey],
) -> Result<(LaneLog, Recovered, Vec<LaneLog>), StartError> {
    let mut mine = None;
    let mut others = Vec::with_capacity(keys.len());
    // A genesis has at most 1,024 lanes.
    for (lane, key) in (0..).map(LaneId).zip(keys) {
        let segment_bytes = if lane == own {
            config.segment_bytes
        } else {
            config.segment_bytes.min(OTHER_SEGMENT_BYTES_MAX)
        };
        let log_config = LogConfig {
            segment_bytes: segment_bytes.next_multiple_of(4096),
            free_bytes_min: config.free_space_watermark_bytes,
            hasher: fastest(),
            ..LogConfig::default()
        };
        let verify_last = |batch: &weft_core::lane::BatchView<'_>| {
            batch
                .verify_seal(key, |key, text, signature| {
                    weft_crypto::serial::verify_one(&key.0, text, signature)
                })
                .is_ok()
        };
        let disk = Arc::new(RealDisk);
        let (log, recovered) =
            LaneLog::open(disk, &data.lane_dir(lane), data.network(), lane, log_config, &verify_last)?;
        if let Some(cut) = &recovered.cut {
            tracing::warn!(
                %lane, file = %cut.path.display(), offset = cut.offset, bytes = cut.bytes, found = cut.found,
                "the log had a torn tail, which was cut; nothing in it was acknowledged as durable"
            );
        }
        tracing::info!(
            %lane,
            size = recovered.size,
            segments = recovered.segments,
            messages = recovered.messages,
            indexes_built = recovered.indexes_built,
            "the log is open"
        );
        if lane == own {
            mine = Some((log, recovered));
        } else {
            others.push(log);
        }
    }
    let (log, recovered) =
        mine.ok_or_else(|| std::io::Error::other("the own lane is none of the genesis"))?;
    Ok((log, recovered, others))
}
