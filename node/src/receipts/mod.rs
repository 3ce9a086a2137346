//! Receipts: inclusion and consistency proofs of lanes, and cosignatures under their checkpoints.
//!
//! ```text
//! message id -> place -> newest final checkpoint (or the size asked for) -> seal of the batch that ends there
//!                     -> inclusion proof, from the log and the roots beside it
//!                     -> cosignatures: this validator's, and its peers'
//! ```
//!
//! Owns the making of receipts and the judgement of what this node cosigns. Invariants: a checkpoint is cosigned only if
//! the lane is final here up to it and the own copy has this root there; final prefixes are unique, so no state is needed
//! to never cosign two histories, and a restart or a restored backup changes nothing. A proof is verified before it is
//! handed out. Whether what comes out verifies for others is left to [`weft_core::receipt`], the wire to `weft-net`.
//!
//! Of other nodes' lanes roots are made up to final sizes only, and of the own one as its batches are appended: no fork
//! ever changes what the roots are over.
//!
//! Memory: the roots beside each lane (a kilobyte a million positions) and one signed checkpoint a lane.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ed25519_dalek::{Signer as _, SigningKey};
use weft_core::confirm::Weights;
use weft_core::endorse::cosigned_text;
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

/// Positions whose roots are made while a client waits, at most: half a second of hashing. More is made in the
/// background, and the client is told to come again.
const CATCH_UP_AT_ONCE_MAX: u64 = 1 << 20;

/// When to ask again for what is not final yet, milliseconds: about a round.
const NOT_YET_MS: u32 = 100;

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

/// Other validators, as far as this node can ask them for their signature under a checkpoint.
pub trait Cosigners: Send + Sync + std::fmt::Debug + 'static {
    /// Their cosignatures under `checkpoint`, as many as come soon. They need not be valid: each is verified here.
    fn cosign(&self, checkpoint: Checkpoint) -> Pin<Box<dyn Future<Output = Vec<Cosignature>> + Send + '_>>;
}

/// Nobody to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCosigners;

impl Cosigners for NoCosigners {
    fn cosign(&self, _checkpoint: Checkpoint) -> Pin<Box<dyn Future<Output = Vec<Cosignature>> + Send + '_>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// How far a lane is final at this node.
pub type FinalSize = Arc<dyn Fn(LaneId) -> u64 + Send + Sync>;

/// Makes receipts.
pub struct Receipts {
    genesis: Genesis,
    network: NetworkId,
    weights: Weights,
    key: SigningKey,
    /// This node's place in the committee, if it has one.
    validator: Option<u16>,
    /// By lane.
    lanes: Vec<LaneProofs>,
    final_size: FinalSize,
    peers: Arc<dyn Cosigners>,
    /// By lane, the newest checkpoint that a quorum has cosigned: one set of signatures serves all receipts below it.
    heads: Mutex<Vec<Option<SignedCheckpoint>>>,
}

impl std::fmt::Debug for Receipts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipts").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Receipts {
    /// Receipts of the ledger of `genesis`, by the node with `key`; `lanes` in order.
    ///
    /// # Errors
    /// If the genesis is not valid.
    pub fn new(
        genesis: Genesis,
        key: SigningKey,
        lanes: Vec<LaneProofs>,
        final_size: FinalSize,
        peers: Arc<dyn Cosigners>,
    ) -> Result<Self, weft_core::GenesisError> {
        let network = genesis.network()?;
        let public = NodeKey::from(key.verifying_key().to_bytes());
        let validator = genesis.committee.iter().position(|validator| validator.key == public);
        Ok(Self {
            network,
            weights: Weights::new(genesis.committee.iter().map(|validator| validator.weight).collect()),
            validator: validator.map(|index| index as u16),
            heads: Mutex::new(vec![None; lanes.len()]),
            genesis,
            key,
            lanes,
            final_size,
            peers,
        })
    }

    fn lane(&self, lane: LaneId) -> Result<&LaneProofs, Refusal> {
        self.lanes
            .get(usize::from(lane.0))
            .ok_or_else(|| Refusal::not_found(format!("lane {lane}: this ledger has {}", self.lanes.len())))
    }

    /// This validator's signature under `checkpoint`, now.
    fn sign(&self, checkpoint: &Checkpoint, validator: u16) -> Cosignature {
        let time_s = crate::pipeline::verify::unix_now_us() / 1_000_000;
        let text = cosigned_text(time_s, &checkpoint.text());
        Cosignature { validator, time_s, signature: self.key.sign(text.as_bytes()).to_bytes() }
    }

    /// This validator's signature under the checkpoint of `lane` with this size and root.
    ///
    /// # Errors
    /// `unsupported` if this node is no validator, `not_yet` if the lane is not final here up to `size`, `not_found` if no
    /// batch ends there or the own copy has another root: then one of two histories is false, and it is not the final one.
    pub fn cosign(&self, lane: LaneId, size: u64, root: &Hash) -> Result<Cosignature, Refusal> {
        let Some(validator) = self.validator else {
            return Err(Refusal::unsupported("this node is no validator of the ledger"));
        };
        let proofs = self.lane(lane)?;
        let final_size = (self.final_size)(lane);
        if size > final_size {
            let text = format!("lane {lane} is final up to {final_size} here, not yet up to {size}");
            return Err(Refusal::not_yet(NOT_YET_MS, text));
        }
        let sealed = proofs.sealed(self.network, size)?;
        let Some(sealed) = sealed else {
            return Err(Refusal::not_found(format!("no batch of lane {lane} ends at size {size}")));
        };
        if sealed.checkpoint.root != *root {
            let text = format!("lane {lane} has another root at size {size} here: two histories were signed");
            return Err(Refusal::not_found(text));
        }
        Ok(self.sign(&sealed.checkpoint, validator))
    }

    /// A checkpoint of `lane` beyond `position`, cosigned as far as can be: at `size`, or where that is 0, at the newest
    /// final size.
    async fn head(&self, lane: LaneId, position: u64, size: u64) -> Result<SignedCheckpoint, Refusal> {
        let proofs = self.lane(lane)?;
        if size == 0 {
            let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
            let head = heads.get(usize::from(lane.0)).and_then(Option::as_ref);
            if let Some(head) = head.filter(|head| head.checkpoint.size > position) {
                return Ok(head.clone());
            }
        }
        let final_size = (self.final_size)(lane);
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
        let Some(mut signed) = proofs.sealed(self.network, wanted)? else {
            return Err(Refusal::not_found(format!("no batch of lane {lane} ends at size {wanted}")));
        };
        let mut weight = 0;
        if let Some(validator) = self.validator {
            let cosignature = self.sign(&signed.checkpoint, validator);
            signed.add(&cosignature, &NodeKey::from(self.key.verifying_key().to_bytes()));
            weight = self.weights.of(usize::from(validator));
        }
        if !self.weights.is_quorum(weight) {
            self.add_peers(&mut signed).await;
        }
        signed.trim(&self.genesis);
        let endorsed = signed.verify(&self.genesis, |key, text, signature| {
            weft_crypto::serial::verify_one(&key.0, text, signature)
        });
        if endorsed.is_ok() {
            let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(head) = heads.get_mut(usize::from(lane.0))
                && head.as_ref().is_none_or(|head| head.checkpoint.size < wanted)
            {
                *head = Some(signed.clone());
            }
        }
        Ok(signed)
    }

    /// Adds the cosignatures of other validators that are valid.
    async fn add_peers(&self, signed: &mut SignedCheckpoint) {
        let text = signed.checkpoint.text();
        for cosignature in self.peers.cosign(signed.checkpoint).await {
            let Some(member) = self.genesis.committee.get(usize::from(cosignature.validator)) else {
                continue;
            };
            let text = cosigned_text(cosignature.time_s, &text);
            if weft_crypto::serial::verify_one(&member.key.0, text.as_bytes(), &cosignature.signature) {
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
        // Cold pages and hashing: not on the threads that serve sockets.
        let (lanes, final_size) = (self.lanes.clone(), self.final_size.clone());
        let find = move || {
            let places = || lanes.iter().filter_map(|lane| lane.reader.find(&id));
            // A message may lie in several lanes: one where it is final stays there.
            places().find(|place| place.position() < final_size(place.lane())).or_else(|| places().next())
        };
        let place = tokio::task::spawn_blocking(find).await.ok().flatten();
        let place = place.ok_or_else(|| Refusal::not_found(format!("this node has no message {id}")))?;
        let checkpoint = self.head(place.lane(), place.position(), size).await?;
        let lane = self.lane(place.lane())?.clone();
        let made = tokio::task::spawn_blocking(move || make_receipt(&lane, id, place, checkpoint)).await;
        made.unwrap_or_else(|_| Err(Refusal::internal("the making of the receipt was cut off")))
    }

    /// The proof that `lane` at `size`, or where that is 0, at its newest final size, extends it at `old_size`.
    ///
    /// # Errors
    /// As [`receipt`](Self::receipt).
    pub async fn consistency(&self, lane: LaneId, old_size: u64, size: u64) -> Result<String, Refusal> {
        let proofs = self.lane(lane)?.clone();
        let new = self.head(lane, old_size.saturating_sub(1), size).await?;
        let Some(old) = proofs.sealed(self.network, old_size)? else {
            return Err(Refusal::not_found(format!("no batch of lane {lane} ends at size {old_size}")));
        };
        let made = tokio::task::spawn_blocking(move || {
            let (old, checkpoint) = (old.checkpoint, new.checkpoint);
            let proof = proofs.prove(checkpoint.size, |hashes| {
                let proof = consistency_proof(hashes, old.size, checkpoint.size)?;
                verify_consistency(old.size, &old.root, checkpoint.size, &checkpoint.root, &proof)?;
                Ok(proof)
            })?;
            Ok(ConsistencyFile { old_size: old.size, proof, new }.encode())
        });
        made.await.unwrap_or_else(|_| Err(Refusal::internal("the making of the proof was cut off")))
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
