//! Cosignatures: what this node gives its own to, and how it comes by those of others.
//!
//! Owns the judgement of what this node cosigns, and whom it asks for how long. Invariants: a checkpoint is cosigned only if
//! the lane is final here up to it and the own copy has this root there; final prefixes are unique, so no state is needed
//! to never cosign two histories, and a restart or a restored backup changes nothing. What a peer gives is verified when it
//! comes, and a signature that is not its own is a fault of that peer and of nobody else. A peer that does not answer, or
//! refuses, delays nobody: all are asked at once, and the asking ends with a quorum, with the last answer, or after
//! [`COSIGN_WAIT`].

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use tokio::task::JoinSet;
use weft_core::confirm::Weights;
use weft_core::endorse::cosigned_text;
use weft_core::merkle::Hash;
use weft_core::{
    Checkpoint, Cosignature, Genesis, GenesisError, LaneId, NetworkId, NodeKey, SignedCheckpoint,
};
use weft_net::Refusal;
use weft_net::peer::{CosignAnswer, LaneEnd, PeerNet};

use super::{LaneProofs, NOT_YET_MS};
use crate::replicate::intake::FAULT_POINTS;

/// Longest wait for the signatures of others: what is final at one node is final at all after two link delays and two rounds,
/// mostly, and a link around the world takes 150 ms.
pub const COSIGN_WAIT: Duration = Duration::from_secs(2);

/// First wait before a peer is asked again to which the checkpoint was not final yet; it doubles, up to a round.
const AGAIN_LEAST: Duration = Duration::from_millis(10);
const AGAIN_MOST: Duration = Duration::from_millis(100);

/// How far a lane is final at this node.
pub type FinalSize = Arc<dyn Fn(LaneId) -> u64 + Send + Sync>;

/// Whether the cosignature is by the validator with this key, under a checkpoint with this text.
pub(super) fn is_valid(cosignature: &Cosignature, checkpoint: &str, key: &NodeKey) -> bool {
    let text = cosigned_text(cosignature.time_s, checkpoint);
    weft_crypto::serial::verify_one(&key.0, text.as_bytes(), &cosignature.signature)
}

/// What this node cosigns.
pub struct Cosigner {
    network: NetworkId,
    key: SigningKey,
    /// This node's place in the committee, if it has one.
    validator: Option<u16>,
    /// By lane.
    lanes: Vec<LaneProofs>,
    final_size: FinalSize,
}

impl std::fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cosigner")
            .field("network", &self.network)
            .field("validator", &self.validator)
            .finish_non_exhaustive()
    }
}

impl Cosigner {
    /// The node with `key` in the ledger of `genesis`; `lanes` in order.
    ///
    /// # Errors
    /// If the genesis is not valid.
    pub fn new(
        genesis: &Genesis,
        key: SigningKey,
        lanes: Vec<LaneProofs>,
        final_size: FinalSize,
    ) -> Result<Self, GenesisError> {
        let public = NodeKey::from(key.verifying_key().to_bytes());
        let validator = genesis.committee.iter().position(|validator| validator.key == public);
        Ok(Self {
            network: genesis.network()?,
            // A genesis has at most 1,024 validators.
            validator: validator.map(|index| index as u16),
            key,
            lanes,
            final_size,
        })
    }

    pub(super) fn lanes(&self) -> &[LaneProofs] {
        &self.lanes
    }

    pub(super) fn lane(&self, lane: LaneId) -> Result<&LaneProofs, Refusal> {
        self.lanes
            .get(usize::from(lane.0))
            .ok_or_else(|| Refusal::not_found(format!("lane {lane}: this ledger has {}", self.lanes.len())))
    }

    /// Up to where `lane` is final here.
    pub(super) fn final_size(&self, lane: LaneId) -> u64 {
        (self.final_size)(lane)
    }

    /// The checkpoint of `lane` at `size` as its node sealed it.
    pub(super) fn sealed(&self, lane: LaneId, size: u64) -> Result<SignedCheckpoint, Refusal> {
        let sealed = self.lane(lane)?.sealed(self.network, size)?;
        sealed.ok_or_else(|| Refusal::not_found(format!("no batch of lane {lane} ends at size {size}")))
    }

    /// The same with this validator's signature, and its number, if it is one. The lane is final here up to `size`.
    pub(super) fn endorse(
        &self,
        lane: LaneId,
        size: u64,
    ) -> Result<(SignedCheckpoint, Option<u16>), Refusal> {
        let mut signed = self.sealed(lane, size)?;
        if let Some(validator) = self.validator {
            let cosignature = self.sign(&signed.checkpoint, validator);
            signed.add(&cosignature, &NodeKey::from(self.key.verifying_key().to_bytes()));
        }
        Ok((signed, self.validator))
    }

    /// This validator's signature under `checkpoint`, now.
    fn sign(&self, checkpoint: &Checkpoint, validator: u16) -> Cosignature {
        let time_s = crate::pipeline::verify::unix_now_us() / 1_000_000;
        let text = cosigned_text(time_s, &checkpoint.text());
        Cosignature { validator, time_s, signature: self.key.sign(text.as_bytes()).to_bytes() }
    }

    /// This validator's signature under the checkpoint of `lane` with this size and root. Reads the log.
    ///
    /// # Errors
    /// `unsupported` if this node is no validator, `not_yet` if the lane is not final here up to `size`, `not_found` if no
    /// batch ends there or the own copy has another root: then one of two histories is false, and it is not the final one.
    pub fn cosign(&self, lane: LaneId, size: u64, root: &Hash) -> Result<Cosignature, Refusal> {
        let Some(validator) = self.validator else {
            return Err(Refusal::unsupported("this node is no validator of the ledger"));
        };
        self.lane(lane)?;
        let final_size = self.final_size(lane);
        if size > final_size {
            let text = format!("lane {lane} is final up to {final_size} here, not yet up to {size}");
            return Err(Refusal::not_yet(NOT_YET_MS, text));
        }
        let sealed = self.sealed(lane, size)?;
        if sealed.checkpoint.root != *root {
            let text = format!("lane {lane} has another root at size {size} here: two histories were signed");
            return Err(Refusal::not_found(text));
        }
        Ok(self.sign(&sealed.checkpoint, validator))
    }
}

/// Other validators, as far as this node can ask them for their signature under a checkpoint.
pub trait Cosigners: Send + Sync + std::fmt::Debug + 'static {
    /// Their cosignatures under `checkpoint`, which has those of `weight` already: until that is a quorum, or no more
    /// come. Whoever takes them verifies each.
    fn cosign(
        &self,
        checkpoint: Checkpoint,
        weight: u64,
    ) -> Pin<Box<dyn Future<Output = Vec<Cosignature>> + Send + '_>>;
}

/// Nobody to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCosigners;

impl Cosigners for NoCosigners {
    fn cosign(&self, _: Checkpoint, _: u64) -> Pin<Box<dyn Future<Output = Vec<Cosignature>> + Send + '_>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// The validators that this node is connected to.
#[derive(Debug)]
pub struct Peers {
    net: Arc<OnceLock<PeerNet>>,
    /// Keys of the validators, in order.
    keys: Vec<NodeKey>,
    weights: Weights,
    own: LaneId,
}

impl Peers {
    /// Those of `genesis` but for this node, whose lane is `own`.
    #[must_use]
    pub fn new(net: Arc<OnceLock<PeerNet>>, genesis: &Genesis, own: LaneId) -> Self {
        let committee = &genesis.committee;
        Self {
            net,
            keys: committee.iter().map(|validator| validator.key).collect(),
            weights: Weights::new(committee.iter().map(|validator| validator.weight).collect()),
            own,
        }
    }

    async fn collect(&self, checkpoint: Checkpoint, mut weight: u64) -> Vec<Cosignature> {
        let Some(net) = self.net.get() else { return Vec::new() };
        let text: Arc<str> = checkpoint.text().into();
        let mut asked = JoinSet::new();
        for (validator, key) in (0..).map(LaneId).zip(&self.keys).filter(|(lane, _)| *lane != self.own) {
            asked.spawn(ask(net.clone(), validator, *key, checkpoint, Arc::clone(&text)));
        }
        let mut given = Vec::new();
        let collect = async {
            while !self.weights.is_quorum(weight)
                && let Some(answer) = asked.join_next().await
            {
                // A panic is a bug of this program, and the same as no answer.
                let Ok(Some(cosignature)) = answer else { continue };
                weight += self.weights.of(usize::from(cosignature.validator));
                given.push(cosignature);
            }
        };
        // Whoever is still being asked is given up by the drop.
        let _ = tokio::time::timeout(COSIGN_WAIT, collect).await;
        if !self.weights.is_quorum(weight) {
            let (lane, size, total) = (checkpoint.lane, checkpoint.size, self.weights.total());
            tracing::debug!(%lane, size, weight, total, "no quorum of validators has cosigned a checkpoint");
        }
        given
    }
}

impl Cosigners for Peers {
    fn cosign(
        &self,
        checkpoint: Checkpoint,
        weight: u64,
    ) -> Pin<Box<dyn Future<Output = Vec<Cosignature>> + Send + '_>> {
        Box::pin(self.collect(checkpoint, weight))
    }
}

/// The signature of one validator, which is the node of the lane with its number; asked again while it is not final there.
async fn ask(
    net: PeerNet,
    validator: LaneId,
    key: NodeKey,
    checkpoint: Checkpoint,
    text: Arc<str>,
) -> Option<Cosignature> {
    let end = LaneEnd { size: checkpoint.size, root: checkpoint.root };
    let mut wait = AGAIN_LEAST;
    loop {
        match net.cosign(validator, checkpoint.lane, end).await {
            Ok(CosignAnswer::Given { time_s, signature }) => {
                let cosignature = Cosignature { validator: validator.0, time_s, signature };
                if is_valid(&cosignature, &text, &key) {
                    return Some(cosignature);
                }
                net.fault(validator, FAULT_POINTS, "a cosignature that is not its validator's");
                return None;
            }
            Ok(CosignAnswer::Refused(why)) if why.may_pass() => {}
            Ok(CosignAnswer::Refused(why)) => {
                let (lane, size) = (checkpoint.lane, checkpoint.size);
                tracing::debug!(%validator, %lane, size, %why, "a validator does not cosign a checkpoint");
                return None;
            }
            Err(_) => return None,
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(AGAIN_MOST);
    }
}
