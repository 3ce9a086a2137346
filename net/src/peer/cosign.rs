//! Signatures under checkpoints, asked of peers and given to them.
//!
//! Owns one request from its asking to its answer, both ends. Invariants: a request is a stream of its own, so one that is
//! not answered holds nobody else up; what is under way is bounded, by [`COSIGNS_MAX`] a peer, on either end. Who is asked,
//! for how long, and whether an answer is a valid signature is left to the node.

use std::sync::Arc;

use quinn::SendStream;
use tokio::sync::Semaphore;
use weft_core::LaneId;

use super::frame::{LaneEnd, NotCosigned, PeerFrame, PeerKind};
use super::link::Link;
use super::net::{NotConnected, PeerNet};
use super::service::CosignAnswer;
use super::ship::ASK_PRIORITY;
use super::stream::{FrameReceiver, FrameSender, StreamError};

/// Signatures asked for of one peer at once; more wait. And of those that a peer asks for, more are refused: an honest
/// one that asks for less may still be refused, when it has given up some whose end has not come here yet.
pub(super) const COSIGNS_MAX: usize = 8;

impl PeerNet {
    /// Asks a peer for its signature under the checkpoint of `lane` that `end` names. Waits while eight are asked of it;
    /// does not end by itself while the peer is connected and says nothing. Dropping the future gives the request up.
    ///
    /// # Errors
    /// It is not connected, or the connection was lost or the request given up by it meanwhile.
    pub async fn cosign(
        &self,
        peer: LaneId,
        lane: LaneId,
        end: LaneEnd,
    ) -> Result<CosignAnswer, NotConnected> {
        let link = self.link(peer)?;
        let [asked, _] = &link.cosigns;
        let _permit = asked.acquire().await.map_err(|_| NotConnected { peer })?;
        let answer = ask(&link, lane, end).await;
        answer.map_err(|error| {
            if let Some((code, reason)) = error.closes() {
                link.fail(code, &reason);
            }
            NotConnected { peer }
        })
    }
}

/// One request. When it is given up, both halves of the stream are, by their drop.
async fn ask(link: &Link, lane: LaneId, end: LaneEnd) -> Result<CosignAnswer, StreamError> {
    let limits = &link.shared.limits;
    let (send, recv) = link.connection.open_bi().await.map_err(StreamError::Lost)?;
    let mut send = FrameSender::new(send, ASK_PRIORITY, limits.slow_peer_timeout);
    let mut recv = FrameReceiver::new(recv, limits.batch_bytes_max);
    send.frame(&PeerFrame::Cosign { lane, end }).await?;
    send.finish();
    match recv.next(|kind| matches!(kind, PeerKind::Cosignature | PeerKind::NotCosigned)).await? {
        Some(PeerFrame::Cosignature { time_s, signature }) => Ok(CosignAnswer::Given { time_s, signature }),
        Some(PeerFrame::NotCosigned(reason)) => Ok(CosignAnswer::Refused(reason)),
        // A peer that is going down lets go of its streams before the connection is closed: no fault.
        _ => Err(StreamError::GivenUp),
    }
}

/// Answers a request of the peer's.
pub(super) async fn answer(
    link: &Arc<Link>,
    send: SendStream,
    lane: LaneId,
    end: LaneEnd,
) -> Result<(), StreamError> {
    let mut send = FrameSender::new(send, ASK_PRIORITY, link.shared.limits.slow_peer_timeout);
    let [_, given] = &link.cosigns;
    let frame = match Semaphore::try_acquire(given) {
        Ok(_permit) => {
            let (service, peer) = (Arc::clone(&link.shared.service), link.peer);
            // A panic of the node's is its own; the asker is told that there is no answer.
            let answer = tokio::task::spawn_blocking(move || service.cosign(peer, lane, end)).await;
            match answer.unwrap_or(CosignAnswer::Refused(NotCosigned::Failed)) {
                CosignAnswer::Given { time_s, signature } => PeerFrame::Cosignature { time_s, signature },
                CosignAnswer::Refused(reason) => PeerFrame::NotCosigned(reason),
            }
        }
        Err(_) => PeerFrame::NotCosigned(NotCosigned::Busy),
    };
    send.frame(&frame).await?;
    send.finish();
    Ok(())
}
