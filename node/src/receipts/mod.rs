//! Receipts: inclusion and consistency proofs of lanes, and cosignatures under their checkpoints.
//!
//! ```text
//! message id -> place -> newest final checkpoint (or the size asked for) -> seal of the batch that ends there
//!                     -> inclusion proof, from the log and the roots beside it
//!                     -> cosignatures: this validator's, and its peers'
//! ```
//!
//! Owns the making of receipts. Invariants: a proof is verified before it is handed out; no slot for reads of the log is held
//! while other validators are waited for, and they are waited for at most [`cosign::COSIGN_WAIT`]. Whether what comes out verifies
//! for others is left to [`weft_core::receipt`], what is cosigned and who is asked to [`cosign`], the wire to `weft-net`.
//!
//! Of other nodes' lanes roots are made up to final sizes only, and of the own one as its batches are appended: no fork
//! ever changes what the roots are over.
//!
//! Memory: the roots beside each lane (a kilobyte a million positions) and two signed checkpoints a lane.

pub mod cosign;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;
use weft_core::confirm::Weights;
use weft_core::merkle::{
    Hash, MerkleError, SUBTREE_LEVEL, consistency_proof, inclusion_proof, leaf_hash_32, verify_consistency,
    verify_inclusion,
};
use weft_core::{
    Checkpoint, ConsistencyFile, Cosignature, Genesis, LaneId, MessageId, NetworkId, NodeKey, Place, Receipt,
    SignedCheckpoint,
};
use weft_net::Refusal;
use weft_storage::{LaneHashes, LogReader, Subtrees};

use self::cosign::{COSIGN_WAIT, Cosigner, Cosigners, is_valid};

/// Positions whose roots are made while a client waits, at most: half a second of hashing. More is made in the
/// background, and the client is told to come again.
const CATCH_UP_AT_ONCE_MAX: u64 = 1 << 20;

/// When to ask again for what is not final yet, milliseconds: about a round.
pub(crate) const NOT_YET_MS: u32 = 100;

/// When to ask again for a proof whose roots are being made, milliseconds.
const CATCHING_UP_MS: u32 = 1_000;

/// One lane as receipts need it. Clones share it.
#[derive(Clone, Debug)]
pub struct LaneProofs {
    reader: LogReader,
    subtrees: Arc<Subtrees>,
    node: NodeKey,
    /// Held while roots are made from the log: one thread at a time does it.
    catching_up: Arc<Mutex<()>>,
    /// A thread for that has been started and has not ended.
    making: Arc<AtomicBool>,
    /// The largest size for which roots were dropped.
    dropped_for: Arc<AtomicU64>,
}

impl LaneProofs {
    /// The lane that `reader` reads and the node with this key writes.
    #[must_use]
    pub fn new(reader: LogReader, subtrees: Arc<Subtrees>, node: NodeKey) -> Self {
        let (catching_up, making, dropped_for) = (Arc::default(), Arc::default(), Arc::default());
        Self { reader, subtrees, node, catching_up, making, dropped_for }
    }

    /// The roots beside the lane: whoever appends to it may tell them of each batch, and whoever cuts it must.
    #[must_use]
    pub fn subtrees(&self) -> &Arc<Subtrees> {
        &self.subtrees
    }

    /// Makes sure that the roots cover the whole subtrees below `size`.
    fn catch_up(&self, size: u64) -> Result<(), Refusal> {
        let missing = || (size >> SUBTREE_LEVEL << SUBTREE_LEVEL).saturating_sub(self.subtrees.covered());
        if missing() == 0 {
            return Ok(());
        }
        let log = |error: &dyn std::error::Error| {
            tracing::error!(%error, "the roots beside a lane cannot be made");
            Refusal::internal(format!("no proof can be made: {error}"))
        };
        if missing() > CATCH_UP_AT_ONCE_MAX {
            // One thread, however many ask meanwhile.
            if !self.making.swap(true, Ordering::AcqRel) {
                let lane = self.clone();
                let make = move || {
                    if let Ok(_only) = lane.catching_up.try_lock()
                        && let Err(error) = lane.subtrees.catch_up(&lane.reader, size)
                    {
                        tracing::error!(%error, "the roots beside a lane cannot be made");
                    }
                    lane.making.store(false, Ordering::Release);
                };
                let name = format!("weft-roots-{}", self.reader.lane());
                if let Err(error) = std::thread::Builder::new().name(name).spawn(make) {
                    self.making.store(false, Ordering::Release);
                    return Err(log(&error));
                }
            }
            let text = format!("roots of {} positions of the lane are being made first", missing());
            return Err(Refusal::not_yet(CATCHING_UP_MS, text));
        }
        let _only = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        self.subtrees.catch_up(&self.reader, size).map_err(|error| log(&error))
    }

    /// Runs `prove` over the hashes up to `size`. A hash that is missing or a proof that does not verify means that the
    /// roots or the log are damaged: the roots are dropped, to be made again from the log; once for a size, since if the log is what is
    /// damaged that helps nobody and costs hashing all of it.
    fn prove(
        &self,
        size: u64,
        prove: impl Fn(&LaneHashes<'_>) -> Result<Vec<Hash>, MerkleError>,
    ) -> Result<Vec<Hash>, Refusal> {
        self.catch_up(size)?;
        let hashes = LaneHashes::new(&self.reader, &self.subtrees);
        prove(&hashes).map_err(|error| {
            let cause = hashes.take_error().map_or_else(|| error.to_string(), |error| error.to_string());
            if self.dropped_for.fetch_max(size, Ordering::AcqRel) >= size {
                tracing::error!(lane = %self.reader.lane(), size, cause, "a proof failed again: the log is damaged");
                return Refusal::internal(format!("no proof can be made: the log of the lane is damaged: {cause}"));
            }
            tracing::error!(lane = %self.reader.lane(), size, cause, "a proof failed; its roots are made again");
            let _ = self.subtrees.truncate(0);
            Refusal::not_yet(CATCHING_UP_MS, "the proof failed here; its roots are made again")
        })
    }

    /// The checkpoint of the batch that ends at `size`, with its seal; `None` if none does.
    fn sealed(&self, network: NetworkId, size: u64) -> Result<Option<SignedCheckpoint>, Refusal> {
        let Some(last) = size.checked_sub(1) else { return Ok(None) };
        let batch = self.reader.batch_at(last).map_err(unreadable)?.filter(|batch| batch.size == size);
        let Some(batch) = batch else { return Ok(None) };
        // The seal ends the batch: what lies before it need not be read.
        let seal = batch.bytes.split_last_chunk::<64>();
        let seal = seal.and_then(|(rest, signature)| Some((rest.last_chunk::<32>()?, signature)));
        let Some((root, signature)) = seal else {
            return Err(Refusal::internal("a batch of the log is shorter than its seal"));
        };
        let checkpoint = Checkpoint { network, lane: self.reader.lane(), size, root: *root };
        Ok(Some(SignedCheckpoint::sealed(checkpoint, &self.node, signature)))
    }
}

fn unreadable(error: impl std::error::Error) -> Refusal {
    tracing::error!(%error, "the log cannot be read");
    Refusal::internal(format!("the log cannot be read: {error}"))
}

/// Lanes of which the newest checkpoint is asked about at once: each costs a request to every validator.
const LANES_ASKED_MAX: usize = 16;

/// Other checkpoints that are asked about at once. They have slots of their own, so that clients who name many sizes wait for each other
/// and for nobody else.
const SIZES_ASKED_MAX: usize = 4;

/// By lane, the last checkpoint about which peers were asked in vain for a quorum, and when that ended. Locked while they
/// are asked.
type Asking = tokio::sync::Mutex<Option<(Instant, SignedCheckpoint)>>;

/// Makes receipts.
pub struct Receipts {
    genesis: Genesis,
    weights: Weights,
    own: Arc<Cosigner>,
    peers: Arc<dyn Cosigners>,
    /// By lane, the newest checkpoint that a quorum has cosigned: one set of signatures serves all receipts below it.
    heads: Mutex<Vec<Option<SignedCheckpoint>>>,
    asking: Vec<Asking>,
    lanes_asked: Semaphore,
    sizes_asked: Semaphore,
    /// Bounds the log reads under way, all of the node's together.
    reads: Arc<Semaphore>,
}

impl std::fmt::Debug for Receipts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipts").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Receipts {
    /// Receipts of the ledger of `genesis`, by the node that is `own`.
    #[must_use]
    pub fn new(
        genesis: Genesis,
        own: Arc<Cosigner>,
        peers: Arc<dyn Cosigners>,
        reads: Arc<Semaphore>,
    ) -> Self {
        let lanes = own.lanes().len();
        Self {
            weights: Weights::new(genesis.committee.iter().map(|validator| validator.weight).collect()),
            heads: Mutex::new(vec![None; lanes]),
            asking: (0..lanes).map(|_| Asking::default()).collect(),
            lanes_asked: Semaphore::new(LANES_ASKED_MAX),
            sizes_asked: Semaphore::new(SIZES_ASKED_MAX),
            genesis,
            own,
            peers,
            reads,
        }
    }

    /// Runs what reads the log or hashes: not on the threads that serve sockets, and only so many at a time.
    async fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let _slot = self.reads.acquire().await.map_err(|_| Refusal::shutting_down())?;
        let read = tokio::task::spawn_blocking(work).await;
        read.unwrap_or_else(|_| Err(Refusal::internal("the read was cut off")))
    }

    /// This validator's signature under the checkpoint of `lane` with this size and root.
    ///
    /// # Errors
    /// As [`Cosigner::cosign`].
    pub async fn cosign(&self, lane: LaneId, size: u64, root: Hash) -> Result<Cosignature, Refusal> {
        let own = Arc::clone(&self.own);
        self.reading(move || own.cosign(lane, size, &root)).await
    }

    /// The newest checkpoint of `lane` that a quorum has cosigned, if it lies beyond `position`.
    fn newest(&self, lane: LaneId, position: u64) -> Option<SignedCheckpoint> {
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        let head = heads.get(usize::from(lane.0))?.as_ref();
        head.filter(|head| head.checkpoint.size > position).cloned()
    }

    /// The size to prove: `size`, or where that is 0, the newest final one.
    fn wanted(&self, lane: LaneId, position: u64, size: u64) -> Result<u64, Refusal> {
        let final_size = self.own.final_size(lane);
        let wanted = if size == 0 { final_size } else { size };
        if wanted > final_size || position >= final_size {
            let text = format!(
                "lane {lane} is final up to {final_size} here, not yet beyond {}",
                position.max(wanted.saturating_sub(1))
            );
            return Err(Refusal::not_yet(NOT_YET_MS, text));
        }
        if wanted <= position {
            let text = format!("size {wanted} does not cover position {position}");
            return Err(Refusal::not_found(text));
        }
        Ok(wanted)
    }

    /// A checkpoint of `lane` beyond `position`, cosigned as far as can be: at `size`, or where that is 0, at the newest
    /// final size. Takes at most twice [`COSIGN_WAIT`].
    async fn head(&self, lane: LaneId, position: u64, size: u64) -> Result<SignedCheckpoint, Refusal> {
        self.own.lane(lane)?;
        if size == 0 {
            return self.newest_head(lane, position).await;
        }
        let wanted = self.wanted(lane, position, size)?;
        let signed = self.sealed(lane, wanted).await?;
        match tokio::time::timeout(COSIGN_WAIT, self.sizes_asked.acquire()).await {
            Ok(_slot) => Ok(self.collect(signed).await.0),
            Err(_) => Ok(signed.0),
        }
    }

    /// The same at the newest final size. Of one lane peers are asked about one checkpoint at a time. Whoever comes meanwhile waits, and
    /// takes what the one before got where that covers its message, quorum or not: so however many clients ask, peers are asked once.
    async fn newest_head(&self, lane: LaneId, position: u64) -> Result<SignedCheckpoint, Refusal> {
        if let Some(head) = self.newest(lane, position) {
            return Ok(head);
        }
        let wanted = self.wanted(lane, position, 0)?;
        let Some(asking) = self.asking.get(usize::from(lane.0)) else {
            return Err(Refusal::internal("a lane without its place among receipts"));
        };
        let came = Instant::now();
        let turn = async { (asking.lock().await, self.lanes_asked.acquire().await) };
        let Ok((mut last, _slot)) = tokio::time::timeout(COSIGN_WAIT, turn).await else {
            return self.sealed(lane, wanted).await.map(|signed| signed.0);
        };
        if let Some(head) = self.newest(lane, position) {
            return Ok(head);
        }
        let is_of_use = |(ended, signed): &&(Instant, SignedCheckpoint)| {
            *ended >= came && signed.checkpoint.size > position
        };
        if let Some((_, signed)) = last.as_ref().filter(is_of_use) {
            return Ok(signed.clone());
        }
        // Final may have moved while this one waited, and then serves more of those behind it.
        let wanted = self.wanted(lane, position, 0)?;
        let signed = self.sealed(lane, wanted).await?;
        let (signed, endorsed) = self.collect(signed).await;
        if endorsed {
            let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(head) = heads.get_mut(usize::from(lane.0)) {
                *head = Some(signed.clone());
            }
        } else {
            *last = Some((Instant::now(), signed.clone()));
        }
        Ok(signed)
    }

    /// Adds the signatures of other validators where this one's is no quorum; whether they are one then.
    async fn collect(&self, (mut signed, weight): (SignedCheckpoint, u64)) -> (SignedCheckpoint, bool) {
        if !self.weights.is_quorum(weight) {
            self.add_peers(&mut signed, weight).await;
        }
        signed.trim(&self.genesis);
        let endorsed = signed.verify(&self.genesis, |key, text, signature| {
            weft_crypto::serial::verify_one(&key.0, text, signature)
        });
        (signed, endorsed.is_ok())
    }

    /// The checkpoint of `lane` at `size`, with the seal of its node and this validator's signature, and the weight of that.
    async fn sealed(&self, lane: LaneId, size: u64) -> Result<(SignedCheckpoint, u64), Refusal> {
        let own = Arc::clone(&self.own);
        let (signed, validator) = self.reading(move || own.endorse(lane, size)).await?;
        Ok((signed, validator.map_or(0, |validator| self.weights.of(usize::from(validator)))))
    }

    /// Adds the cosignatures of other validators that are valid.
    async fn add_peers(&self, signed: &mut SignedCheckpoint, weight: u64) {
        let text = signed.checkpoint.text();
        for cosignature in self.peers.cosign(signed.checkpoint, weight).await {
            let Some(member) = self.genesis.committee.get(usize::from(cosignature.validator)) else {
                continue;
            };
            if is_valid(&cosignature, &text, &member.key) {
                signed.add(&cosignature, &member.key);
            }
        }
    }

    /// The receipt of a message, as it stands in a file: at `size` of its lane, or where that is 0, at the newest final size.
    /// Without a quorum of cosignatures if peers did not give theirs: a client collects them.
    ///
    /// # Errors
    /// `not_found`, `not_yet`, or that of a log which cannot be read.
    pub async fn receipt(&self, id: MessageId, size: u64) -> Result<String, Refusal> {
        let own = Arc::clone(&self.own);
        let find = move || {
            let places = || own.lanes().iter().filter_map(|lane| lane.reader.find(&id));
            // A message may lie in several lanes: one where it is final stays there.
            let place = places().find(|place| place.position() < own.final_size(place.lane()));
            let place = place.or_else(|| places().next());
            place.ok_or_else(|| Refusal::not_found(format!("this node has no message {id}")))
        };
        let place = self.reading(find).await?;
        let checkpoint = self.head(place.lane(), place.position(), size).await?;
        let lane = self.own.lane(place.lane())?.clone();
        self.reading(move || make_receipt(&lane, id, place, checkpoint)).await
    }

    /// The proof that `lane` at `size`, or where that is 0, at its newest final size, extends it at `old_size`.
    ///
    /// # Errors
    /// As [`receipt`](Self::receipt).
    pub async fn consistency(&self, lane: LaneId, old_size: u64, size: u64) -> Result<String, Refusal> {
        let new = self.head(lane, old_size.saturating_sub(1), size).await?;
        let own = Arc::clone(&self.own);
        self.reading(move || {
            let proofs = own.lane(lane)?;
            let (old, checkpoint) = (own.sealed(lane, old_size)?.checkpoint, new.checkpoint);
            let proof = proofs.prove(checkpoint.size, |hashes| {
                let proof = consistency_proof(hashes, old.size, checkpoint.size)?;
                verify_consistency(old.size, &old.root, checkpoint.size, &checkpoint.root, &proof)?;
                Ok(proof)
            })?;
            Ok(ConsistencyFile { old_size: old.size, proof, new }.encode())
        })
        .await
    }
}

fn make_receipt(
    lane: &LaneProofs,
    id: MessageId,
    place: Place,
    checkpoint: SignedCheckpoint,
) -> Result<String, Refusal> {
    let message = lane.reader.message_at(place).map_err(unreadable)?;
    let message = message.ok_or_else(|| Refusal::internal("the message is not where the index says"))?;
    let Checkpoint { size, root, .. } = checkpoint.checkpoint;
    let index = place.position();
    let proof = lane.prove(size, |hashes| {
        let proof = inclusion_proof(hashes, index, size)?;
        verify_inclusion(&leaf_hash_32(&id.0), index, size, &proof, &root)?;
        Ok(proof)
    })?;
    Ok(Receipt { message: Some(Vec::from(message.bytes())), index, proof, checkpoint }.encode())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "helpers of tests")]
mod tests;
