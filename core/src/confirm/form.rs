//! The third gate, *well formed*: a pure function of a batch's bytes and of what lies at the places it names.
//!
//! Owns the checks that end a lane when they fail. Invariant: the verdict is the same at every node that has the
//! named places final, whenever it asks; so clocks, device sequences and duplicates play no part. Signatures are
//! verified by the caller, in batches as large as it likes; before a lane is ended for one, the serial verifier has
//! to confirm it.

use crate::check::Limits;
use crate::ids::{LaneId, MessageId, Place};
use crate::lane::BatchView;

/// Why a batch ends its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IllFormed {
    /// More messages than the genesis allows.
    #[error("batch has {got} messages, the genesis allows {limit}")]
    Count {
        /// Messages.
        got: u32,
        /// The genesis' limit.
        limit: u32,
    },
    /// A message of another network.
    #[error("message {index} belongs to another network")]
    Network {
        /// Its index in the batch.
        index: u32,
    },
    /// A payload beyond the genesis' limit.
    #[error("message {index} has a payload of {got} bytes, the genesis allows {limit}")]
    Payload {
        /// Its index in the batch.
        index: u32,
        /// Bytes.
        got: usize,
        /// The genesis' limit.
        limit: u32,
    },
    /// Both parents are the same message.
    #[error("message {index} names one parent twice")]
    EqualParents {
        /// Its index in the batch.
        index: u32,
    },
    /// The parent does not lie at the place named, or that place is none, or not an earlier one.
    #[error("message {index}: its parent does not lie at {place}")]
    Place {
        /// Its index in the batch.
        index: u32,
        /// The place named.
        place: Place,
    },
    /// The device's signature is not valid.
    #[error("message {index} has no valid signature")]
    Signature {
        /// Its index in the batch.
        index: u32,
    },
}

/// Checks an authentic batch whose parents are final. `verdicts[i]` is the verdict on the signature of message i;
/// a missing one counts as not valid. `at` tells the id of the message at a final place of another lane, at an
/// earlier place of the same copy of this lane, or of a genesis root; it is not asked for messages of this batch.
///
/// # Errors
/// The first thing that is wrong, in order of messages.
pub fn check_form(
    view: &BatchView<'_>,
    limits: &Limits,
    verdicts: &[bool],
    at: impl Fn(Place) -> Option<MessageId>,
) -> Result<(), IllFormed> {
    let limit = limits.batch_messages_max;
    if view.count() > limit {
        return Err(IllFormed::Count { got: view.count(), limit });
    }
    for (index, entry) in (0..).zip(view.messages()) {
        let message = entry.message;
        if message.network() != limits.network {
            return Err(IllFormed::Network { index });
        }
        let (got, limit) = (message.payload().len(), limits.payload_bytes_max);
        if got > limit as usize {
            return Err(IllFormed::Payload { index, got, limit });
        }
        let [left, right] = message.parents();
        if left == right {
            return Err(IllFormed::EqualParents { index });
        }
        for (parent, place) in message.parents().iter().zip(entry.parent_places) {
            let earlier = place.lane() != view.lane() || place.position() < entry.position;
            let there = match view.message_at(place.position()) {
                Some(inside) if place.lane() == view.lane() => Some(inside.message.id()),
                _ => at(place),
            };
            let exists = place.lane() == LaneId::ROOTS || place.lane().is_valid();
            if !earlier || !exists || there.as_ref() != Some(parent) {
                return Err(IllFormed::Place { index, place });
            }
        }
        if !verdicts.get(index as usize).copied().unwrap_or(false) {
            return Err(IllFormed::Signature { index });
        }
    }
    Ok(())
}
