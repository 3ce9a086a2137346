//! The logs of all lanes, for reading.
//!
//! Owns nothing but the readers. Invariant: reader i is that of lane i. What of another node's lane may be told to whom is for the caller:
//! beyond final a lane may still change.

use std::sync::Arc;

use weft_core::{LaneId, MessageId, Place};
use weft_storage::LogReader;

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
