//! What the node answers its clients: the seam between the network's sessions and the pipeline.
//!
//! Submits go into the pipeline under its byte budget; everything else is answered here, from the log's reader and from atomics. Log
//! reads run on the runtime's blocking threads, so that a cold page never stops a session's neighbours.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use tokio::sync::Semaphore;
use weft_core::{DeviceKey, Genesis, GenesisId, LaneId, MessageId, NetworkId};
use weft_net::frame::{lane_flags, node_flags};
use weft_net::peer::PeerNet;
use weft_net::{
    AccountStanding, AccountState, AckLevel, Answer, Confirmations, Found, LaneStatus, NodeState, Query,
    Refusal, Service, SessionHandle, Status, Submit, Subscribe, WelcomeInfo,
};

use crate::confirm::acks::ConfirmAcks;
use crate::confirm::{Confirm, Fault};
use crate::health::{Full, Health, State};
use crate::history::History;
use crate::lanes::Lanes;
use crate::pipeline::queue::JobQueue;
use crate::pipeline::verify::unix_now_us;
use crate::pipeline::{Budget, Job};
use crate::receipts::Receipts;
use crate::stats::Counters;
use crate::subscriptions::Subscriptions;

/// Reads of the log that run at once; more wait their turn.
const READS_AT_ONCE_MAX: usize = 8;

/// When a refused client should come back, milliseconds: about two group commits of a slow disk.
const RETRY_AFTER_MS: u32 = 100;

/// The node's side of every session.
pub struct NodeService {
    /// What the ledger is.
    pub genesis: Genesis,
    /// Its id.
    pub genesis_id: GenesisId,
    /// Its network.
    pub network: NetworkId,
    /// The node's name, as clients see it.
    pub name: String,
    /// The lane that this node writes.
    pub lane: LaneId,
    /// Confirmation.
    pub confirm: Arc<Confirm>,
    /// Acks that wait for it.
    pub acks: Arc<ConfirmAcks>,
    /// Shortest time between two witnesses, microseconds.
    pub round_us: u64,
    /// Other nodes, once they are there.
    pub net: Arc<OnceLock<PeerNet>>,
    /// Largest clock differences allowed, ahead and behind, microseconds.
    pub clock_us_max: (u64, u64),
    /// Strongest level of acknowledgement that clients may ask for.
    pub ack_level_max: AckLevel,
    /// Into the verify stage; closed when the node stops.
    pub jobs: Arc<JobQueue<Job>>,
    /// The pipeline's byte budget.
    pub budget: Budget,
    /// Makes receipts.
    pub receipts: Receipts,
    /// Payments in the ledger.
    pub history: Arc<History>,
    /// What subscribers are told.
    pub subscriptions: Arc<Subscriptions>,
    /// Stored messages of all lanes.
    pub lanes: Lanes,
    /// Durable tips, kept by the committer.
    pub tips: Arc<Mutex<Vec<MessageId>>>,
    /// Statistics.
    pub counters: Arc<Counters>,
    /// Health.
    pub health: Arc<Health>,
    /// Bounds the log reads under way.
    pub reads: Arc<Semaphore>,
}

impl std::fmt::Debug for NodeService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeService").field("network", &self.network).finish_non_exhaustive()
    }
}

impl NodeService {
    /// A semaphore for [`NodeService::reads`].
    pub fn read_slots() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(READS_AT_ONCE_MAX))
    }

    /// Stops taking submits: those that wait for budget are refused, and the verify stage ends once its queue is empty.
    pub fn close(&self) {
        self.budget.close();
        self.jobs.close();
    }
}

impl NodeService {
    /// Every lane as this node has it.
    pub fn lane_statuses(&self) -> Vec<LaneStatus> {
        let (weights, followed): (Vec<u64>, Vec<u64>) = self.confirm.ask(|machine| {
            let of = |lane| (machine.setup().weights.of(lane), machine.followed(lane));
            (0..self.lanes.readers().len()).map(of).unzip()
        });
        let net = self.net.get();
        let numbers = weights.into_iter().zip(followed);
        let status = |(reader, (weight, witness)): (&weft_storage::LogReader, (u64, u64))| {
            let lane = reader.lane();
            let marks = self.confirm.marks(lane);
            let connected = lane == self.lane || net.is_some_and(|net| net.is_connected(lane));
            let fault = |fault: &Fault| match fault {
                Fault::Forked => lane_flags::FORKED,
                Fault::Ended => lane_flags::ENDED,
                Fault::Equivocated => lane_flags::EQUIVOCATED,
            };
            LaneStatus {
                lane,
                flags: self.confirm.faults(lane).iter().map(fault).sum::<u8>()
                    + u8::from(connected) * lane_flags::CONNECTED,
                weight,
                written: reader.size(),
                durable: reader.durable_size(),
                applied: marks.applied,
                certified: marks.certified,
                final_size: marks.final_size,
                witness,
            }
        };
        self.lanes.readers().iter().zip(numbers).map(status).collect()
    }

    /// What an account has, by the ledger here. After a start it is where it was only once final has come back.
    fn account(&self, account: &DeviceKey) -> Result<AccountState, Refusal> {
        if self.confirm.is_restoring() {
            return Err(Refusal::not_yet(RETRY_AFTER_MS, "the ledger is coming back after a start"));
        }
        Ok(self.confirm.ask(|machine| {
            let ledger = machine.ledger();
            let lock = ledger.lock_of(account).map(|lock| (lock.sequence, lock.hash));
            let Some(found) = ledger.account(account) else {
                return AccountState { standing: AccountStanding::Unknown, balance: 0, next: 0, lock };
            };
            let contested = ledger.is_contested(account);
            let standing = if contested { AccountStanding::Frozen } else { AccountStanding::Open };
            AccountState { standing, balance: found.balance, next: found.next, lock }
        }))
    }
}

impl Service for NodeService {
    fn welcome(&self) -> WelcomeInfo {
        WelcomeInfo {
            network: self.network,
            genesis: self.genesis_id,
            ack_level_max: self.ack_level_max,
            payload_bytes_max: self.genesis.payload_bytes_max,
            clock_ahead_us_max: self.clock_us_max.0,
            clock_behind_us_max: self.clock_us_max.1,
            now_us: unix_now_us(),
            node_name: self.name.clone(),
        }
    }

    async fn submit(&self, submit: Submit, session: SessionHandle) -> Result<(), Refusal> {
        let permit = self.budget.acquire(&submit).await.ok_or_else(Refusal::shutting_down)?;
        Counters::add(&self.counters.submits, 1);
        self.jobs.push(Job { submit, session, permit }).map_err(|_| Refusal::shutting_down())
    }

    async fn tips(&self, count: usize) -> Result<Vec<MessageId>, Refusal> {
        let mut tips = self.tips.lock().map(|tips| tips.clone()).unwrap_or_default();
        tips.truncate(count);
        Ok(tips)
    }

    async fn get(&self, ids: Vec<MessageId>) -> Result<Vec<Option<Found>>, Refusal> {
        let _slot = self.reads.acquire().await.map_err(|_| Refusal::shutting_down())?;
        let (lanes, confirm) = (self.lanes.clone(), self.confirm.clone());
        let read = tokio::task::spawn_blocking(move || {
            ids.iter().map(|id| find(&lanes, &confirm, id)).collect::<Result<Vec<_>, _>>()
        });
        match read.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::error!(%error, "a stored message cannot be read");
                Err(Refusal::internal(format!("the log cannot be read: {error}")))
            }
            Err(_) => Err(Refusal::overloaded(RETRY_AFTER_MS, "the read was cut off")),
        }
    }

    async fn query(&self, query: Query) -> Result<Answer, Refusal> {
        // Receipts take slots themselves: none is held while they wait for other validators.
        match query {
            Query::Receipt { id, size } => {
                self.receipts.receipt(id, size).await.map(|text| Answer::Receipt(text.into()))
            }
            Query::Consistency { lane, old_size, size } => {
                let proof = self.receipts.consistency(lane, old_size, size).await;
                proof.map(|text| Answer::Consistency(text.into()))
            }
            Query::Cosign { lane, size, root } => {
                self.receipts.cosign(lane, size, root).await.map(Answer::Cosignature)
            }
            Query::Account { account } => self.account(&account).map(Answer::Account),
            Query::History { account, other, cursor, count } => {
                let _slot = self.reads.acquire().await.map_err(|_| Refusal::shutting_down())?;
                let history = self.history.clone();
                let page = move || history.page(&account, other.as_ref(), cursor, count.into());
                let page = tokio::task::spawn_blocking(page).await;
                let page = page.map_err(|_| Refusal::overloaded(RETRY_AFTER_MS, "the read was cut off"))?;
                page.map(Answer::History)
            }
        }
    }

    async fn subscribe(&self, wanted: Subscribe) -> Result<Confirmations, Refusal> {
        self.subscriptions.begin(&wanted)
    }

    async fn status(&self) -> Result<Status, Refusal> {
        let report = self.health.report();
        let (messages, messages_max) = self.budget.fill_messages();
        Ok(Status {
            state: match report.state {
                State::Starting | State::Joining => NodeState::Joining,
                State::CatchingUp => NodeState::CatchingUp,
                State::Live => NodeState::Live,
                State::Poisoned => NodeState::Poisoned,
                // Not one to send clients to, like a node that goes down; `/health` has the reason.
                State::DiskFull | State::Stopping => NodeState::Draining,
            },
            uptime_us: report.uptime_ms.saturating_mul(1000),
            accepted_total: self.counters.accepted.load(Ordering::Relaxed),
            rejected_total: self.counters.rejected_total(),
            queue_messages: messages,
            queue_messages_max: messages_max,
            durable_age_us: report.durable_age_ms.map_or(u64::MAX, |ms| ms.saturating_mul(1000)),
            flags: u8::from(self.confirm.is_silenced()) * node_flags::SILENCED
                + u8::from(self.confirm.is_restoring()) * node_flags::RESTORING
                + u8::from(report.state == State::DiskFull) * node_flags::DISK_FULL
                + u8::from(self.health.is_full(Full::Votes)) * node_flags::VOTES_WAIT,
            lane: self.lane,
            witnesses_total: self.confirm.counters.witnesses.load(Ordering::Relaxed),
            round_us: self.round_us,
            acks_waiting: self.acks.len() as u64,
            lanes: self.lane_statuses(),
        })
    }
}

/// In the own lane, or final in another.
fn find(lanes: &Lanes, confirm: &Confirm, id: &MessageId) -> Result<Option<Found>, weft_storage::LogError> {
    let own = lanes.get(lanes.own()).and_then(|reader| reader.find(id));
    let place = own.or_else(|| lanes.find_elsewhere(id, |lane| confirm.final_size(lane)));
    let Some(place) = place else { return Ok(None) };
    let Some(reader) = lanes.get(place.lane()) else { return Ok(None) };
    let message = reader.message_at(place)?;
    Ok(message.map(|message| Found { place, bytes: Bytes::copy_from_slice(message.bytes()) }))
}
