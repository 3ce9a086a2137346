//! One connection to whatever takes the messages: a session with a node, or the null target.
//!
//! Owns the two halves of a connection: one sends batches and says whether the target made it wait, the other hands out what comes back.
//! Both kinds of target answer with the types of the wire, so nothing behind this file knows which it is. Invariant: at most the credit
//! of the session (null target: [`NULL_IN_FLIGHT_MAX`] batches) is unanswered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use weft_core::{GenesisId, MessageId, NetworkId};
use weft_net::limits::SUBMIT_MESSAGES_MAX;
use weft_net::{
    Ack, AckLevel, AckStream, Client, ClientConfig, Delivery, Dialer, LoadSender, NetError, RequestError,
    SessionOptions, Trust,
};

use crate::clock::RunClock;
use crate::config::{NodeTarget, NullTarget, RunConfig, Target, Topology};
use crate::error::LoadError;

/// Batches that the null target takes before it answers one: what a node's session grants by default.
pub(crate) const NULL_IN_FLIGHT_MAX: usize = 256;

/// Tips asked for before the first message.
const TIPS_AT_START: u16 = 16;

/// Head of a Submit frame's body (request id, count) and the length column, per message.
const SUBMIT_HEAD_BYTES: usize = 12;
const SUBMIT_LENGTH_BYTES: usize = 2;

/// What the target says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) network: NetworkId,
    /// Parents of the first messages: the genesis roots.
    pub(crate) roots: [MessageId; 2],
    /// Tips that the target handed out at the start; may be empty.
    pub(crate) tips: Vec<MessageId>,
    /// Messages in a batch, at most.
    pub(crate) batch_messages: u32,
}

/// All connections of a run, and what the target granted.
pub(crate) struct Links {
    pub(crate) granted: Granted,
    pub(crate) links: Vec<Link>,
    /// What makes connections, in the direct topology: there are no links then.
    pub(crate) dialer: Option<Dialer>,
}

/// A session on the ledger `network`, for a load.
pub(crate) fn session_options(network: NetworkId, ack_level: AckLevel) -> SessionOptions {
    SessionOptions { network: Some(network), ack_level, ..SessionOptions::default() }
}

/// One connection.
pub(crate) enum Link {
    Node { client: Client, sender: LoadSender, answers: AckStream },
    Null(NullTarget),
}

impl Links {
    /// Connects to the target of `config`.
    pub(crate) async fn open(config: &RunConfig) -> Result<Self, LoadError> {
        match &config.target {
            Target::Node(target) => Self::open_node(config, target).await,
            Target::Null(target) => {
                let genesis = GenesisId([0; 32]);
                let granted = Granted {
                    network: genesis.network(),
                    roots: genesis.roots(),
                    tips: Vec::new(),
                    batch_messages: config.batch_messages.min(SUBMIT_MESSAGES_MAX),
                };
                let links = (0..config.connections).map(|_| Link::Null(*target)).collect();
                Ok(Self { granted, links, dialer: None })
            }
        }
    }

    async fn open_node(config: &RunConfig, target: &NodeTarget) -> Result<Self, LoadError> {
        let mut links = Vec::with_capacity(config.connections as usize);
        let mut granted: Option<Granted> = None;
        // In the direct topology the first connection only asks what the target grants.
        let direct = matches!(config.topology, Topology::Direct { .. });
        for _ in 0..if direct { 1 } else { config.connections } {
            let client = Client::connect(ClientConfig::new(target.addr, target.trust.clone())).await?;
            // Whatever the first connection met, the others must meet too.
            let network = granted.as_ref().map_or(target.network, |granted| Some(granted.network));
            let options =
                SessionOptions { network, ack_level: config.ack_level, ..SessionOptions::default() };
            let (sender, answers) = client.open_load_session(options.clone()).await?;
            let welcome = sender.welcome();
            if welcome.ack_level < config.ack_level {
                return Err(LoadError::Target {
                    what: "ack level",
                    got: welcome.ack_level.to_string(),
                    limit: config.ack_level.to_string(),
                });
            }
            if config.payload_bytes_max() > welcome.payload_bytes_max as usize {
                return Err(LoadError::Target {
                    what: "largest payload",
                    got: format!("{} bytes", welcome.payload_bytes_max),
                    limit: format!("{} bytes", config.payload_bytes_max()),
                });
            }
            let batch = batch_messages(
                config,
                &[
                    (welcome.submit_messages_max as usize, 0, 1),
                    (welcome.inflight_messages_max as usize, 0, 1),
                    (
                        welcome.frame_bytes_max as usize,
                        SUBMIT_HEAD_BYTES,
                        config.message_bytes_max() + SUBMIT_LENGTH_BYTES,
                    ),
                    (
                        usize::try_from(welcome.inflight_bytes_max).unwrap_or(usize::MAX),
                        0,
                        config.message_bytes_max(),
                    ),
                ],
            )?;
            match &mut granted {
                Some(granted) => granted.batch_messages = granted.batch_messages.min(batch),
                None => {
                    let (network, roots) = (welcome.network, welcome.genesis.roots());
                    let session = client.open_session(options).await?;
                    let tips = session.tips(TIPS_AT_START).await?;
                    session.close().await?;
                    granted = Some(Granted { network, roots, tips, batch_messages: batch });
                }
            }
            links.push(Link::Node { client, sender, answers });
        }
        let mut dialer = None;
        if direct && let Some(Link::Node { client, sender, answers }) = links.pop() {
            // Whoever answered is who must answer from now on: no file is read for each connection.
            let trust = client.fingerprint().map_or_else(|| target.trust.clone(), Trust::Pin);
            dialer = Some(Dialer::new(ClientConfig::new(target.addr, trust))?);
            let _ = sender.finish().await;
            drop(answers);
            client.close().await;
        }
        match granted {
            Some(granted) => Ok(Self { granted, links, dialer }),
            None => Err(LoadError::Internal { what: "a run without connections" }),
        }
    }
}

/// The configured batch, cut to each limit `(total, fixed part, part per message)`.
fn batch_messages(config: &RunConfig, limits: &[(usize, usize, usize)]) -> Result<u32, LoadError> {
    let granted = limits.iter().map(|(total, fixed, each)| total.saturating_sub(*fixed) / each.max(&1)).min();
    let batch = granted.unwrap_or(0).min(config.batch_messages as usize);
    match u32::try_from(batch) {
        Ok(batch) if batch > 0 => Ok(batch),
        _ => Err(LoadError::Target {
            what: "credit",
            got: "less than one message".to_owned(),
            limit: format!("one message of {} bytes", config.message_bytes_max()),
        }),
    }
}

/// What became of handing a batch to a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) request_id: u64,
    /// Whether the target made the connection wait.
    pub(crate) held_back: bool,
}

/// The sending half.
pub(crate) enum Sender {
    Node { sender: LoadSender, client: Client },
    Null(NullSender),
}

/// The receiving half.
pub(crate) enum Answers {
    Node(AckStream),
    Null(NullAnswers),
}

impl Link {
    /// The two halves, for a run whose time is `clock`.
    pub(crate) fn split(self, clock: RunClock, ack_level: AckLevel) -> (Sender, Answers) {
        match self {
            Self::Node { client, sender, answers } => {
                (Sender::Node { sender, client }, Answers::Node(answers))
            }
            Self::Null(target) => {
                let shared = Arc::new(NullQueue::default());
                let credit = Arc::new(Semaphore::new(NULL_IN_FLIGHT_MAX));
                let sender =
                    NullSender { target, clock, ack_level, next_id: 0, shared: Arc::clone(&shared), credit };
                (Sender::Null(sender), Answers::Null(NullAnswers { shared }))
            }
        }
    }
}

impl Sender {
    /// Hands a batch over; waits while the target's credit is used up.
    pub(crate) async fn submit(&mut self, lengths: &[u16], bytes: Bytes) -> Result<Taken, NetError> {
        match self {
            Self::Node { sender, .. } => match sender.try_submit(lengths, bytes.clone()) {
                Ok(request_id) => Ok(Taken { request_id, held_back: false }),
                Err(NetError::Invalid(RequestError::NoCredit { .. })) => {
                    let request_id = sender.submit(lengths, bytes).await?;
                    Ok(Taken { request_id, held_back: true })
                }
                Err(error) => Err(error),
            },
            Self::Null(sender) => Ok(sender.submit(lengths.len()).await),
        }
    }

    /// Ends the session and the connection.
    pub(crate) async fn finish(self) {
        if let Self::Node { sender, client } = self {
            // Everything is answered: how the session ends changes no figure.
            let _ = sender.finish().await;
            client.close().await;
        }
    }
}

impl Answers {
    /// What came back next; `None` when nothing will come any more. Safe to cancel.
    pub(crate) async fn recv(&mut self) -> Option<Delivery> {
        match self {
            Self::Node(answers) => answers.recv().await,
            Self::Null(answers) => Some(answers.recv().await),
        }
    }

    /// Why nothing will come any more, as a sentence.
    pub(crate) fn close_reason(&self) -> String {
        match self {
            Self::Node(answers) => {
                answers.end_reason().map_or("the session ended".to_owned(), |reason| reason.to_string())
            }
            Self::Null(_) => "the null target ended".to_owned(),
        }
    }
}

/// Batches that the null target has taken.
#[derive(Debug, Default)]
struct NullQueue {
    batches: Mutex<VecDeque<NullBatch>>,
    arrived: Notify,
}

#[derive(Debug)]
struct NullBatch {
    answer_at: Instant,
    ack: Ack,
    _credit: OwnedSemaphorePermit,
}

pub(crate) struct NullSender {
    target: NullTarget,
    clock: RunClock,
    ack_level: AckLevel,
    next_id: u64,
    shared: Arc<NullQueue>,
    credit: Arc<Semaphore>,
}

impl NullSender {
    async fn submit(&mut self, messages: usize) -> Taken {
        let (credit, held_back) = match Arc::clone(&self.credit).try_acquire_owned() {
            Ok(credit) => (credit, false),
            Err(_) => match Arc::clone(&self.credit).acquire_owned().await {
                Ok(credit) => (credit, true),
                // Nobody closes this semaphore.
                Err(_) => std::future::pending().await,
            },
        };
        self.next_id += 1;
        let mut answer_at = Instant::now() + self.target.answer_after;
        if let Some(stall) = self.target.stall {
            let (begin, end) = (stall.at, stall.at + stall.length);
            let answer_us = self.clock.at_us(answer_at);
            let us = |time: Duration| crate::schedule::as_us(time);
            if (us(begin)..us(end)).contains(&answer_us) {
                answer_at = self.clock.instant(us(end));
            }
        }
        let ack = Ack {
            request_id: self.next_id,
            level: self.ack_level,
            count: messages as u32,
            exceptions: Vec::new(),
            tips: Vec::new(),
        };
        let batch = NullBatch { answer_at, ack, _credit: credit };
        self.shared.batches.lock().unwrap_or_else(PoisonError::into_inner).push_back(batch);
        self.shared.arrived.notify_one();
        Taken { request_id: self.next_id, held_back }
    }
}

pub(crate) struct NullAnswers {
    shared: Arc<NullQueue>,
}

impl NullAnswers {
    async fn recv(&mut self) -> Delivery {
        loop {
            let arrived = self.shared.arrived.notified();
            let next = {
                let mut batches = self.shared.batches.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                match batches.front() {
                    Some(batch) if batch.answer_at <= now => {
                        batches.pop_front().map(|batch| Ok((now, batch.ack))).unwrap_or(Err(now))
                    }
                    Some(batch) => Err(batch.answer_at),
                    None => Err(now + Duration::from_secs(3_600)),
                }
            };
            match next {
                Ok((received_at, ack)) => {
                    return Delivery { request_id: ack.request_id, received_at, result: Ok(ack) };
                }
                // Answers leave in the order of their batches, so only the first one's time matters.
                Err(answer_at) => {
                    let _ = tokio::time::timeout_at(answer_at.into(), arrived).await;
                }
            }
        }
    }
}
