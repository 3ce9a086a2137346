//! Reading a log that may be growing.
//!
//! Owns look-ups by place, by id and by position. Invariants: only written positions are found, each with the bytes that were appended;
//! a message found by id has that id by its bytes. Bytes are handed out as slices of the shared map, uncopied. Whether a message is
//! durable is for the caller to ask ([`LogReader::durable_size`]).

use std::sync::Arc;
use std::time::Instant;

use weft_core::lane::{BatchError, BatchView, HEADER_BYTES, OFFSET_BYTES, PLACES_BYTES, SEAL_BYTES};
use weft_core::merkle::Hash;
use weft_core::{
    BatchHasher, LaneId, LaneTree, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, MessageId, MessageView, NetworkId,
    Place, Rejection, SIGNATURE_BYTES,
};

use crate::disk::{Access, Slice};
use crate::error::{LogError, Poison};
use crate::index::{GROUP_IDS, RecordStart, prefix_of};
use crate::segment::{FRAME_BYTES, RECORD_ALIGN_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::state::{Segment, Shared, lock};

/// A message in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Where it lies.
    pub place: Place,
    /// Where its parents lie, as the batch says.
    pub parent_places: [Place; 2],
    /// The entry: places and message.
    entry: Slice,
}

impl StoredMessage {
    /// The message's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.entry.get(PLACES_BYTES..).unwrap_or_default()
    }

    /// The message's bytes, with a share in the map.
    #[must_use]
    pub fn into_bytes(self) -> Slice {
        let range = PLACES_BYTES..self.entry.len();
        self.entry.part(range).unwrap_or(self.entry)
    }

    /// The message, read in place.
    ///
    /// # Errors
    /// Only if the bytes were damaged after they were written.
    pub fn view(&self) -> Result<MessageView<'_>, Rejection> {
        MessageView::parse(self.bytes())
    }
}

/// A batch in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Position of its header.
    pub first: u64,
    /// The lane's size after it.
    pub size: u64,
    /// Header, body and seal.
    pub bytes: Slice,
}

impl StoredBatch {
    /// The batch, read in place.
    ///
    /// # Errors
    /// Only if the bytes were damaged after they were written.
    pub fn view(&self) -> Result<BatchView<'_>, BatchError> {
        BatchView::parse(&self.bytes)
    }

    /// The root that the seal signs, at the batch's end: without reading what lies before it. `None` for bytes that are no batch.
    #[must_use]
    pub fn root(&self) -> Option<Hash> {
        let (rest, _signature) = self.bytes.split_last_chunk::<SIGNATURE_BYTES>()?;
        rest.last_chunk().copied()
    }
}

/// Figures about a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStats {
    /// Written size of the lane.
    pub size: u64,
    /// Durable size of the lane.
    pub durable_size: u64,
    /// Segments.
    pub segments: u64,
    /// Segments that are not asked for an id which is in none of them: the sealed ones, but for those that are being made ready.
    pub segments_sieved: u64,
    /// Messages.
    pub messages: u64,
    /// Batches.
    pub batches: u64,
    /// Bytes of disk allocated to segments.
    pub segment_bytes: u64,
    /// Why the last index file could not be written, if so; that segment's index stays in memory.
    pub index_error: Option<String>,
}

/// Reads a log. Cheap to clone; clones may be used on any thread.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The ledger.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.shared.network
    }

    /// The lane.
    #[must_use]
    pub fn lane(&self) -> LaneId {
        self.shared.lane
    }

    /// Written size of the lane: all positions below it can be read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.written()
    }

    /// Durable size of the lane.
    #[must_use]
    pub fn durable_size(&self) -> u64 {
        self.shared.durable()
    }

    /// When the durable size last rose; when the log was opened, if it has not since. With [`LogReader::size`] above
    /// [`LogReader::durable_size`] for long after it, the disk is stuck.
    #[must_use]
    pub fn last_durable_at(&self) -> Instant {
        self.shared.durable_at()
    }

    /// What closed the log for good, if something did.
    #[must_use]
    pub fn poison(&self) -> Option<Arc<Poison>> {
        self.shared.poison()
    }

    /// Figures about the log.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let segments = self.shared.segments();
        let mut stats = LogStats {
            size: self.size(),
            durable_size: self.durable_size(),
            segments: segments.len() as u64,
            segments_sieved: (segments.len() - segments.uncovered().len()) as u64,
            messages: 0,
            batches: 0,
            segment_bytes: 0,
            index_error: lock(&self.shared.index_error).clone(),
        };
        for segment in segments.iter() {
            let (messages, batches) = segment.index.counts();
            stats.messages += messages;
            stats.batches += batches;
            stats.segment_bytes += segment.file.length();
        }
        stats
    }

    /// The segment that holds `position`, and the record in it.
    fn locate(&self, position: u64) -> Option<(Arc<Segment>, RecordStart)> {
        if position >= self.size() {
            return None;
        }
        let segments = self.shared.segments();
        let after = segments.partition_point(|segment| segment.first <= position);
        let segment = segments.get(after.checked_sub(1)?)?;
        let relative = u32::try_from(position - segment.first).ok()?;
        let start = segment.index.record_at(relative)?;
        Some((Arc::clone(segment), start))
    }

    /// The message at `place`; `None` if the place is in another lane, not written yet, or that of a batch header.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if the bytes there are no message.
    pub fn message_at(&self, place: Place) -> Result<Option<StoredMessage>, LogError> {
        if place.lane() != self.shared.lane {
            return Ok(None);
        }
        match self.locate(place.position()) {
            Some((segment, start)) => segment.message(self.shared.lane, start, place.position()),
            None => Ok(None),
        }
    }

    /// The batch that `position` lies in; `None` if it is not written yet.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if the bytes there are no batch.
    pub fn batch_at(&self, position: u64) -> Result<Option<StoredBatch>, LogError> {
        match self.locate(position) {
            // A log that is cut meanwhile ends before `position`: its last batch is not the one asked for.
            Some((segment, start)) => Ok(Some(segment.batch(start)?).filter(|batch| position < batch.size)),
            None => Ok(None),
        }
    }

    /// How often the log was cut since it was opened: whoever reads on from a position looks whether it has changed.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.shared.cuts()
    }

    /// The batch that ends at `size`, which is above 0; `None` if none does.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if the bytes there are no batch.
    pub fn batch_ending_at(&self, size: u64) -> Result<Option<StoredBatch>, LogError> {
        let Some(last) = size.checked_sub(1) else { return Ok(None) };
        Ok(self.batch_at(last)?.filter(|batch| batch.size == size))
    }

    /// The lane's tree at `size`, the end of a batch: read from the segment that it lies in, so in time proportional to that.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if the bytes there are no batches; `Io` if the segment cannot be read.
    pub fn tree_at(&self, size: u64) -> Result<Option<LaneTree>, LogError> {
        let segments = self.shared.segments();
        let Some(at) = segments.partition_point(|segment| segment.first <= size).checked_sub(1) else {
            return Ok(None);
        };
        let Some(segment) = segments.get(at) else { return Ok(None) };
        let file = self.shared.disk.open(&segment.path, Access::Read);
        let file = file.map_err(LogError::io("open", &segment.path))?;
        let mut header = vec![0; SEGMENT_HEADER_BYTES];
        file.read_at(0, &mut header).map_err(LogError::io("read", &segment.path))?;
        let damaged = |what: String| LogError::damaged(&segment.path, 0, what);
        let (header, _) = SegmentHeader::decode(&header).map_err(|error| damaged(error.to_string()))?;
        let mut tree = header.tree;
        while tree.size() < size {
            let Some(batch) = self.batch_at(tree.size())? else { return Ok(None) };
            let view = batch.view().map_err(|error| damaged(error.to_string()))?;
            let hasher = self.hasher();
            view.append_to(&mut tree, &view.ids_by(hasher), hasher, |_| {});
        }
        Ok((tree.size() == size).then_some(tree))
    }

    /// What hashes many messages, leaves and nodes.
    pub(crate) fn hasher(&self) -> &'static dyn BatchHasher {
        self.shared.config.hasher
    }

    /// All batches from the one that `position` lies in to the last one written when the iterator gets there.
    pub fn batches_from(&self, position: u64) -> impl Iterator<Item = Result<StoredBatch, LogError>> + use<> {
        let reader = self.clone();
        let mut next = Some(position);
        std::iter::from_fn(move || {
            let batch = reader.batch_at(next?).transpose()?;
            // After an error the end: what follows can not be placed.
            next = batch.as_ref().ok().map(|batch| batch.size);
            Some(batch)
        })
    }

    /// Where the message `id` lies, if it is in the log. Its bytes are hashed to make sure.
    #[must_use]
    pub fn find(&self, id: &MessageId) -> Option<Place> {
        let segments = self.shared.segments();
        let lane = self.shared.lane;
        let among = |some: &[Arc<Segment>]| some.iter().rev().find_map(|segment| segment.find(lane, id));
        let older = || {
            let mut sieved = segments.sieved().filter(|(sieve, _)| sieve.may_have(prefix_of(id)));
            sieved.find_map(|(_, covered)| among(covered))
        };
        among(segments.uncovered()).or_else(older).filter(|place| place.position() < self.size())
    }

    /// Brings into the caches what [`LogReader::find`] will read to tell that `ids` are not there, as it mostly does: so the waiting for
    /// main memory overlaps. For some tens of ids at a time. Changes no answer.
    pub fn touch(&self, ids: &[MessageId]) {
        let segments = self.shared.segments();
        let mut group = [0; GROUP_IDS];
        for ids in ids.chunks(GROUP_IDS) {
            for (prefix, id) in group.iter_mut().zip(ids) {
                *prefix = prefix_of(id);
            }
            let prefixes = &group[..ids.len()];
            segments.uncovered().iter().for_each(|segment| segment.index.touch(prefixes));
            segments.sieved().for_each(|(sieve, _)| sieve.touch(prefixes));
        }
    }

    /// Like [`LogReader::find`] for many: `places` gets one answer for each of `ids`. Several times faster than one by one for ids that
    /// are not there.
    pub fn find_many(&self, ids: &[MessageId], places: &mut Vec<Option<Place>>) {
        places.clear();
        places.resize(ids.len(), None);
        let segments = self.shared.segments();
        let lane = self.shared.lane;
        let look_up = |some: &[Arc<Segment>],
                       ids: &[MessageId],
                       prefixes: &[u64],
                       which: &[usize],
                       places: &mut [Option<Place>]| {
            let wanted: Vec<u64> = which.iter().map(|i| prefixes[*i]).collect();
            for segment in some.iter().rev().filter(|_| !which.is_empty()) {
                segment.index.touch(&wanted);
                for i in which {
                    places[*i] = places[*i].or_else(|| segment.find(lane, &ids[*i]));
                }
            }
        };
        for (ids, places) in ids.chunks(GROUP_IDS).zip(places.chunks_mut(GROUP_IDS)) {
            let prefixes: Vec<u64> = ids.iter().map(prefix_of).collect();
            let mut all: Vec<usize> = (0..ids.len()).collect();
            look_up(segments.uncovered(), ids, &prefixes, &all, places);
            for (sieve, covered) in segments.sieved() {
                sieve.touch(&prefixes);
                all.retain(|i| places[*i].is_none());
                let let_through: Vec<usize> =
                    all.iter().copied().filter(|i| sieve.may_have(prefixes[*i])).collect();
                look_up(covered, ids, &prefixes, &let_through, places);
            }
        }
        let size = self.size();
        for place in places {
            *place = place.filter(|place| place.position() < size);
        }
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("lane", &self.lane())
            .field("size", &self.size())
            .field("durable_size", &self.durable_size())
            .finish_non_exhaustive()
    }
}

impl Segment {
    fn damaged(&self, offset: u64, what: &str) -> LogError {
        LogError::damaged(&self.path, offset, what)
    }

    /// Offset, message count and length of the batch in the record at `start`. Its checksum was checked when it was written or
    /// recovered, and is not again. That the record begins at the position the index gives it is: an index may be forged, and a
    /// message must not be found at another's place.
    fn batch_extent(&self, start: RecordStart) -> Result<(u64, u32, u64), LogError> {
        let offset = u64::from(start.sector) * RECORD_ALIGN_BYTES;
        let frame = self.file.bytes(offset, 24);
        let fields = frame.as_deref().and_then(|frame| {
            let number = |at: usize| frame.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
            let count = frame.get(4..)?.first_chunk().copied().map(u32::from_le_bytes)?;
            Some((count, number(8)?, number(16)?))
        });
        match fields {
            Some((count, length, first)) if first == self.first + u64::from(start.position) => {
                Ok((offset + FRAME_BYTES as u64, count, length))
            }
            _ => Err(self.damaged(offset, "no record where the index says")),
        }
    }

    pub(crate) fn batch(&self, start: RecordStart) -> Result<StoredBatch, LogError> {
        let (offset, count, length) = self.batch_extent(start)?;
        let first = self.first + u64::from(start.position);
        let bytes =
            usize::try_from(length).ok().and_then(|length| Arc::clone(&self.file).slice(offset, length));
        let bytes = bytes.ok_or_else(|| self.damaged(offset, "a record longer than what is written"))?;
        Ok(StoredBatch { first, size: first + u64::from(count) + 1, bytes })
    }

    /// The message at `position` in the record at `start`; `None` for its header.
    fn message(
        &self,
        lane: LaneId,
        start: RecordStart,
        position: u64,
    ) -> Result<Option<StoredMessage>, LogError> {
        let (offset, count, length) = self.batch_extent(start)?;
        let relative = (position - self.first).checked_sub(u64::from(start.position) + 1);
        let Some(index) = relative.filter(|index| *index < u64::from(count)) else {
            return Ok(None);
        };
        let damaged = || self.damaged(offset, "no message where the batch says");
        let body = offset + HEADER_BYTES as u64;
        let end = offset.saturating_add(length.saturating_sub(SEAL_BYTES as u64));
        let number = self.file.bytes(body + index * OFFSET_BYTES as u64, OFFSET_BYTES).ok_or_else(damaged)?;
        let number = number.first_chunk().copied().map(u32::from_le_bytes).ok_or_else(damaged)?;
        let at = body + u64::from(number);
        // Places and the first four bytes of the head, which say how long the message is.
        let head = self.file.bytes(at, PLACES_BYTES + 4).ok_or_else(damaged)?;
        let place = |i: usize| head.get(8 * i..).and_then(|bytes| bytes.first_chunk()).copied();
        let (Some(parent0), Some(parent1)) = (place(0), place(1)) else { return Err(damaged()) };
        let payload = head.get(PLACES_BYTES + 2..).and_then(|bytes| bytes.first_chunk()).copied();
        let payload = payload.map(u16::from_le_bytes).ok_or_else(damaged)?;
        let message_bytes = MESSAGE_BYTES_MIN + usize::from(payload);
        let entry_bytes = PLACES_BYTES + message_bytes;
        if message_bytes > MESSAGE_BYTES_MAX || at + entry_bytes as u64 > end {
            return Err(damaged());
        }
        let parent_places = [parent0, parent1].map(|bytes| Place(u64::from_le_bytes(bytes)));
        drop(head);
        let entry = Arc::clone(&self.file).slice(at, entry_bytes).ok_or_else(damaged)?;
        Ok(Some(StoredMessage { place: Place::new(lane, position), parent_places, entry }))
    }

    fn find(&self, lane: LaneId, id: &MessageId) -> Option<Place> {
        let candidates = self.index.find(prefix_of(id));
        candidates.into_iter().find_map(|relative| {
            let start = self.index.record_at(relative)?;
            let position = self.first + u64::from(relative);
            let message = self.message(lane, start, position).ok()??;
            (message.view().ok()?.id() == *id).then_some(message.place)
        })
    }
}
