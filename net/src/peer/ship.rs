//! Shipping lanes and chains of witnesses, both ends.
//!
//! Owns the credit of a subscription. Invariants: a holder sends a batch only while there is credit, so what is sent and
//! not granted back is at most the credit and one batch; an asker closes the connection of a holder that sends more;
//! who waits for credit, for more of the lane or for a slow reader holds nobody else up: each subscription is a stream
//! and a task of its own. The disk is read on blocking threads, at most [`READ_BYTES`] and one batch ahead of what
//! QUIC has taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use tokio::sync::Notify;
use weft_core::LaneId;

use super::cosign;
use super::frame::{CHAIN_WITNESSES_MAX, EndReason, LaneEnd, PeerCode, PeerFrame, PeerFrameError, PeerKind};
use super::link::Link;
use super::service::{Arrived, ShipAnswer, ShipEnd, Shipping, SubscriptionId};
use super::stream::{FrameReceiver, FrameSender, StreamError};

/// Bytes of batches read from the log at once.
const READ_BYTES: usize = 1 << 20;

/// Bytes of witnesses answered at once; whoever wants more asks again.
const CHAIN_BYTES_MAX: usize = 1 << 20;

/// Priorities of streams: the control stream's is higher than these.
pub(super) const ASK_PRIORITY: i32 = 50;
const CHAIN_PRIORITY: i32 = 25;
const SHIP_PRIORITY: i32 = 0;

/// A subscription of this node's.
pub(super) struct Ask {
    pub(super) id: SubscriptionId,
    pub(super) lane: LaneId,
    /// Credit that is to be sent.
    granted: AtomicU64,
    stopped: AtomicBool,
    changed: Notify,
    /// Batches that have come, and bytes of the one that is not whole.
    batches: AtomicU64,
    arrived: Arc<AtomicU64>,
}

impl Ask {
    pub(super) fn new(id: SubscriptionId, lane: LaneId) -> Arc<Self> {
        let (granted, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        let (changed, batches, arrived) = (Notify::new(), AtomicU64::new(0), Arc::default());
        Arc::new(Self { id, lane, granted, stopped, changed, batches, arrived })
    }

    pub(super) fn arrived(&self) -> Arrived {
        let batches = self.batches.load(Ordering::Acquire);
        Arrived { batches, bytes: self.arrived.load(Ordering::Relaxed) }
    }

    pub(super) fn grant(&self, bytes: u64) {
        self.granted.fetch_add(bytes, Ordering::AcqRel);
        self.changed.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// Runs a subscription until it is over, and says so unless the node gave it up itself.
pub(super) async fn ask(link: &Arc<Link>, ask: &Arc<Ask>, ends: Vec<LaneEnd>, credit: u64) {
    let end = match receive_lane(link, ask, ends, credit).await {
        Ok(end) => end,
        Err(error) => {
            if let Some((code, reason)) = error.closes() {
                link.fail(code, &reason);
            }
            Some(Shipping::Ended(if matches!(error, StreamError::GivenUp) {
                ShipEnd::Failed
            } else {
                ShipEnd::Lost
            }))
        }
    };
    if let Some(end) = end.filter(|_| !ask.is_stopped()) {
        link.shared.service.shipping(link.peer, ask.lane, ask.id, end);
    }
}

/// `None`: given up by this node.
async fn receive_lane(
    link: &Arc<Link>,
    ask: &Arc<Ask>,
    ends: Vec<LaneEnd>,
    credit: u64,
) -> Result<Option<Shipping>, StreamError> {
    let limits = &link.shared.limits;
    let (send, recv) = link.connection.open_bi().await.map_err(StreamError::Lost)?;
    let mut send = FrameSender::new(send, ASK_PRIORITY, limits.slow_peer_timeout);
    let mut recv = FrameReceiver::new(recv, limits.batch_bytes_max).counted(&ask.arrived);
    send.frame(&PeerFrame::Subscribe { lane: ask.lane, credit, ends }).await?;
    let service = &link.shared.service;
    let mut credit = i128::from(credit);
    let mut started = false;
    loop {
        if ask.is_stopped() {
            send.reset();
            recv.stop();
            return Ok(None);
        }
        let granted = ask.granted.swap(0, Ordering::AcqRel);
        if granted > 0 {
            credit += i128::from(granted);
            send.frame(&PeerFrame::Grant(granted)).await?;
        }
        let first = !started;
        let frame = tokio::select! {
            () = ask.changed.notified() => continue,
            frame = recv.next(|kind| match kind {
                PeerKind::Started | PeerKind::NotHeld | PeerKind::Fork => first,
                PeerKind::Batch => !first,
                PeerKind::Ended => true,
                _ => false,
            }) => frame?,
        };
        match frame {
            Some(PeerFrame::Started(end)) => {
                started = true;
                // Its own bytes are no part of a batch.
                ask.arrived.store(recv.buffered(), Ordering::Relaxed);
                if !ask.is_stopped() {
                    service.shipping(link.peer, ask.lane, ask.id, Shipping::Started(end));
                }
            }
            Some(PeerFrame::Batch(batch)) => {
                if credit <= 0 {
                    link.fail(PeerCode::OverCredit, "a batch beyond the credit");
                    return Ok(Some(Shipping::Ended(ShipEnd::Lost)));
                }
                ask.arrived.store(recv.buffered(), Ordering::Relaxed);
                ask.batches.fetch_add(1, Ordering::AcqRel);
                credit -= batch.len() as i128;
                link.slot.taken_bytes.fetch_add(batch.len() as u64, Ordering::Relaxed);
                if !ask.is_stopped() {
                    service.batch(link.peer, ask.lane, ask.id, batch);
                }
            }
            Some(PeerFrame::NotHeld { held }) => return Ok(Some(Shipping::NotHeld { held })),
            Some(PeerFrame::Fork(batch)) => return Ok(Some(Shipping::Fork(batch))),
            Some(PeerFrame::Ended(reason)) => {
                return Ok(Some(Shipping::Ended(match reason {
                    EndReason::Changed => ShipEnd::Changed,
                    EndReason::Failed => ShipEnd::Failed,
                    EndReason::Replaced => ShipEnd::Replaced,
                })));
            }
            // Nothing else is allowed.
            Some(_) => return Ok(Some(Shipping::Ended(ShipEnd::Failed))),
            None => return Ok(Some(Shipping::Ended(ShipEnd::Failed))),
        }
    }
}

/// Asks for a chain, and says when it has come.
pub(super) async fn ask_chain(link: &Arc<Link>, validator: u16, after: u64) {
    let mut received = 0;
    let result = receive_chain(link, validator, after, &mut received).await;
    if let Err(error) = &result
        && let Some((code, reason)) = error.closes()
    {
        link.fail(code, &reason);
    }
    link.shared.service.chain_done(link.peer, validator, received, result.is_ok());
}

async fn receive_chain(
    link: &Arc<Link>,
    validator: u16,
    after: u64,
    received: &mut u32,
) -> Result<(), StreamError> {
    let limits = &link.shared.limits;
    let (send, recv) = link.connection.open_bi().await.map_err(StreamError::Lost)?;
    let mut send = FrameSender::new(send, ASK_PRIORITY, limits.slow_peer_timeout);
    let mut recv = FrameReceiver::new(recv, limits.batch_bytes_max);
    let count = CHAIN_WITNESSES_MAX as u16;
    send.frame(&PeerFrame::WantWitnesses { validator, count, after }).await?;
    send.finish();
    while let Some(frame) = recv.next(|kind| kind == PeerKind::Witness).await? {
        let PeerFrame::Witness(message) = frame else { continue };
        *received += 1;
        if *received > u32::from(count) {
            return Err(
                PeerFrameError::Unexpected { got: PeerKind::Witness, when: "beyond the count" }.into()
            );
        }
        let hold = link.hold(message.len()).await;
        link.shared.service.witness(link.peer, message, hold);
    }
    Ok(())
}

/// Serves a stream that the peer opened to ask for something.
pub(super) async fn serve(link: &Arc<Link>, send: SendStream, recv: RecvStream) {
    if let Err(error) = answer(link, send, recv).await
        && let Some((code, reason)) = error.closes()
    {
        link.fail(code, &reason);
    }
}

async fn answer(link: &Arc<Link>, send: SendStream, recv: RecvStream) -> Result<(), StreamError> {
    let limits = &link.shared.limits;
    let mut recv = FrameReceiver::new(recv, limits.batch_bytes_max);
    let first =
        recv.next(|kind| matches!(kind, PeerKind::Subscribe | PeerKind::WantWitnesses | PeerKind::Cosign));
    let first =
        tokio::time::timeout(limits.slow_peer_timeout, first).await.map_err(|_| StreamError::Slow)??;
    match first {
        Some(PeerFrame::Subscribe { lane, credit, ends }) => {
            let mut send = FrameSender::new(send, SHIP_PRIORITY, limits.slow_peer_timeout);
            let replaced = link.start_shipping(lane);
            let result = send_lane(link, lane, credit, ends, &mut send, &mut recv, &replaced).await;
            link.stop_shipping(lane, &replaced);
            result
        }
        Some(PeerFrame::WantWitnesses { validator, count, after }) => {
            let mut send = FrameSender::new(send, CHAIN_PRIORITY, limits.slow_peer_timeout);
            let (service, peer) = (Arc::clone(&link.shared.service), link.peer);
            // Given back when the disk has been read, even if nobody waits for the answer any more.
            let turn = Arc::clone(&link.chain_turn).lock_owned().await;
            let chain = move || {
                let _turn = turn;
                service.chain(peer, validator, after, count.into(), CHAIN_BYTES_MAX)
            };
            // A panic of the node's is its own; the asker is told that the stream is over.
            let mut witnesses = tokio::task::spawn_blocking(chain).await.unwrap_or_default();
            witnesses.truncate(count.into());
            for witness in witnesses {
                send.frame(&PeerFrame::Witness(witness)).await?;
            }
            send.finish();
            Ok(())
        }
        Some(PeerFrame::Cosign { lane, end }) => cosign::answer(link, send, lane, end).await,
        _ => Err(PeerFrameError::Cut { when: "before it asked for something" }.into()),
    }
}

/// What the asker says meanwhile: adds credit, or `false` when the stream is over.
async fn take_grant(recv: &mut FrameReceiver, credit: &mut i128) -> Result<bool, StreamError> {
    match recv.next(|kind| kind == PeerKind::Grant).await? {
        Some(PeerFrame::Grant(bytes)) => {
            *credit += i128::from(bytes);
            Ok(true)
        }
        _ => Ok(false),
    }
}

async fn send_lane(
    link: &Arc<Link>,
    lane: LaneId,
    credit: u64,
    ends: Vec<LaneEnd>,
    send: &mut FrameSender,
    recv: &mut FrameReceiver,
    replaced: &Arc<Notify>,
) -> Result<(), StreamError> {
    let (service, peer) = (Arc::clone(&link.shared.service), link.peer);
    // Growth from here on is not missed.
    let mut grown = link.shared.grown(lane);
    if let Some(grown) = &mut grown {
        grown.mark_unchanged();
    }
    let turn = Arc::clone(&link.ship_turn).lock_owned().await;
    let find = move || {
        let _turn = turn;
        service.ship(peer, lane, &ends)
    };
    let shared = tokio::task::spawn_blocking(find).await;
    let (end, mut cursor) = match shared {
        Ok(ShipAnswer::From(end, cursor)) => (end, cursor),
        Ok(ShipAnswer::NotHeld { held }) => {
            send.frame(&PeerFrame::NotHeld { held }).await?;
            send.finish();
            return Ok(());
        }
        Ok(ShipAnswer::Fork(batch)) => {
            send.frame(&PeerFrame::Fork(batch)).await?;
            send.finish();
            return Ok(());
        }
        Err(_) => return end_lane(send, EndReason::Failed).await,
    };
    send.frame(&PeerFrame::Started(end)).await?;
    let mut credit = i128::from(credit);
    let mut pending: VecDeque<Bytes> = VecDeque::new();
    loop {
        // Nothing is read from the disk that may not be sent.
        while credit <= 0 {
            tokio::select! {
                () = replaced.notified() => return end_lane(send, EndReason::Replaced).await,
                open = take_grant(recv, &mut credit) => if !open? { return Ok(()) },
            }
        }
        if pending.is_empty() {
            let bytes_max = usize::try_from(credit).unwrap_or(READ_BYTES).clamp(1, READ_BYTES);
            let read = move || {
                let mut batches = Vec::new();
                let result = cursor.read(bytes_max, &mut batches);
                (cursor, result, batches)
            };
            let Ok((back, result, batches)) = tokio::task::spawn_blocking(read).await else {
                return end_lane(send, EndReason::Failed).await;
            };
            cursor = back;
            if let Err(end) = result {
                let changed = matches!(end, ShipEnd::Changed);
                return end_lane(send, if changed { EndReason::Changed } else { EndReason::Failed }).await;
            }
            pending = batches.into();
        }
        if pending.is_empty() {
            let more = async {
                match &mut grown {
                    // An error: the node is going down, and the connection with it.
                    Some(grown) => grown.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                true = more => {}
                () = replaced.notified() => return end_lane(send, EndReason::Replaced).await,
                open = take_grant(recv, &mut credit) => if !open? { return Ok(()) },
            }
            continue;
        }
        let Some(batch) = pending.pop_front() else { continue };
        let bytes = batch.len();
        send.frame(&PeerFrame::Batch(batch)).await?;
        credit -= bytes as i128;
        link.slot.shipped_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

async fn end_lane(send: &mut FrameSender, reason: EndReason) -> Result<(), StreamError> {
    send.frame(&PeerFrame::Ended(reason)).await?;
    send.finish();
    Ok(())
}
