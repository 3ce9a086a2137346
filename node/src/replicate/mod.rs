//! Replication: the lanes of the other nodes, taken from them, verified here and shipped on.
//!
//! ```text
//! peers --witnesses, batches--> intake --authentic batches--> logs of other lanes --> driver (confirmation)
//!                               |  ^ credit                        |                   |  ^
//!                               v  |                              sync --durable-------+  |
//!                             fetcher (who is asked for what)                  check <-- what has to be verified
//! ```
//!
//! | file | owns |
//! |---|---|
//! | [`store`] | logs and sides of other lanes: the first gate |
//! | [`intake`] | what comes, in order; faults; a full disk |
//! | [`witnesses`] | the gate for witnesses: budgets and signatures |
//! | [`credit`], [`ahead`] | what peers have sent and have no credit for again; lanes whose logs are far ahead |
//! | [`check`] | the third gate: signatures and places, in batches as large as the lag |
//! | [`chains`] | witnesses for whoever asks |
//! | [`fetch`] | subscriptions, chains wanted, holdings, joining and catching up |
//! | [`sources`] | who is asked for a lane next |
//! | [`serve`] | the callbacks of the network |
//!
//! The log is the buffer: an authentic batch goes to the disk at once, whatever it waits for then, so that memory is bounded by
//! credit on the way in, by the machine's own limits, and by the sides. This file puts the threads together and takes them apart.

pub mod ahead;
pub mod chains;
pub mod check;
pub mod credit;
pub mod fetch;
pub mod intake;
pub mod serve;
pub mod sources;
pub mod store;
#[cfg(test)]
mod testing;
pub mod witnesses;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use weft_core::confirm::Weights;
use weft_core::{LaneId, Limits, MessageId, NetworkId, NodeKey, Reason};
use weft_crypto::BatchVerifier;
use weft_net::peer::{PeerConfig, PeerNet, PeerStartError};

use self::chains::Chains;
use self::check::{Asked, Checker, Window};
use self::credit::Credit;
use self::fetch::{FetchEvent, Fetcher};
use self::intake::{Intake, Urgent};
use self::serve::Service;
use self::store::Stores;
use crate::confirm::Confirm;
use crate::confirm::acks::ConfirmAcks;
use crate::confirm::events::EventSender;
use crate::confirm::forks::KnownForks;
use crate::health::{Health, State};
use crate::lane::with_sources;
use crate::lanes::Lanes;
use crate::receipts::cosign::Cosigner;
use crate::stats::Counters;

/// What replication needs of the node.
pub struct Needs {
    /// Connections.
    pub peers: PeerConfig,
    /// All logs.
    pub lanes: Lanes,
    /// Logs of other lanes.
    pub stores: Arc<Stores>,
    /// Keys of all nodes.
    pub keys: Vec<NodeKey>,
    /// Weights of the validators.
    pub weights: Weights,
    /// The ledger.
    pub network: NetworkId,
    /// What the genesis allows.
    pub limits: Limits,
    /// The genesis roots.
    pub roots: [MessageId; 2],
    /// Verifies signatures.
    pub verifier: Arc<dyn BatchVerifier>,
    /// Threads that verify.
    pub workers: usize,
    /// Confirmation.
    pub confirm: Arc<Confirm>,
    /// Acks that wait for it.
    pub acks: Arc<ConfirmAcks>,
    /// To the driver.
    pub events: EventSender,
    /// Statistics.
    pub counters: Arc<Counters>,
    /// The node's health.
    pub health: Arc<Health>,
    /// What the driver shares.
    pub link: Link,
    /// Asked for by the driver.
    pub asked: Receiver<Asked>,
    /// Judges what this node cosigns.
    pub cosigner: Arc<Cosigner>,
}

/// What the driver needs of replication.
#[derive(Clone, Debug)]
pub struct Link {
    /// Peers, once they are there.
    pub net: Arc<OnceLock<PeerNet>>,
    /// Logs and sides of other lanes.
    pub stores: Arc<Stores>,
    /// Recent witnesses.
    pub chains: Arc<Chains>,
    /// Takes batches to be checked. Not bounded by itself: the machine bounds what it asks for.
    pub check: Sender<Asked>,
    /// How often the log of any lane was cut, or is being cut: what could not be read meanwhile may be there later.
    pub cuts: Arc<AtomicU64>,
    /// Proofs of forks.
    pub forks: KnownForks,
}

impl Link {
    /// The link, and where what is to be checked comes out.
    pub fn new(stores: Arc<Stores>, validators: usize) -> (Self, Receiver<Asked>) {
        let (check, asked) = unbounded();
        let chains = Arc::new(Chains::new(validators));
        let (net, cuts, forks) = (Arc::default(), Arc::default(), KnownForks::default());
        (Self { net, stores, chains, check, cuts, forks }, asked)
    }
}

/// Replication, running.
#[derive(Debug)]
pub struct Replication {
    net: PeerNet,
    urgent: Sender<Urgent>,
    fetch: Sender<FetchEvent>,
    dirty: Sender<()>,
    stores: Arc<Stores>,
    threads: Vec<JoinHandle<()>>,
}

impl Replication {
    /// Starts the threads and the connections.
    ///
    /// # Errors
    /// If the peer port cannot be used, or a thread cannot be started.
    pub fn start(
        needs: Needs,
        runtime: &tokio::runtime::Handle,
        mut spawn: impl FnMut(&'static str, Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>>,
    ) -> Result<Self, ReplicationError> {
        let Needs { peers, lanes, stores, keys, weights, confirm, events, health, link, .. } = &needs;
        let (urgent_in, urgent) = unbounded();
        let (bulk_in, bulk) = unbounded();
        let (fetch_in, fetch) = unbounded();
        let (dirty_in, dirty) = bounded::<()>(1);
        stores.set_bell(Some(dirty_in.clone()));
        let credit = Arc::new(Credit::default());
        let service = Service {
            urgent: urgent_in.clone(),
            bulk: bulk_in,
            credit: credit.clone(),
            fetch: fetch_in.clone(),
            lanes: lanes.clone(),
            keys: keys.clone(),
            chains: link.chains.clone(),
            cosigner: needs.cosigner.clone(),
        };
        let mut threads = Vec::new();
        let intake = Intake {
            stores: stores.clone(),
            lanes: lanes.clone(),
            keys: keys.clone(),
            validators: weights.len(),
            network: needs.network,
            confirm: confirm.clone(),
            chains: link.chains.clone(),
            events: events.clone(),
            fetch: fetch_in.clone(),
            credit: credit.clone(),
            dirty: dirty_in.clone(),
            net: link.net.clone(),
            health: health.clone(),
            forks: link.forks.clone(),
        };
        threads.push(spawn("weft-intake", Box::new(move || intake.run(&urgent, &bulk)))?);
        let checker = Checker {
            verifier: needs.verifier.clone(),
            workers: needs.workers,
            limits: needs.limits,
            roots: needs.roots,
            lanes: lanes.clone(),
            stores: stores.clone(),
            events: events.clone(),
            counters: needs.counters.clone(),
            cuts: link.cuts.clone(),
            windows: vec![Window::default(); keys.len()],
            ended: vec![None; keys.len()],
        };
        let asked = needs.asked.clone();
        threads.push(spawn("weft-check", Box::new(move || checker.run(&asked)))?);
        let sync = Syncing {
            stores: stores.clone(),
            events: events.clone(),
            net: link.net.clone(),
            health: health.clone(),
            acks: needs.acks.clone(),
            counters: needs.counters.clone(),
        };
        threads.push(spawn("weft-sync", Box::new(move || sync.run(&dirty)))?);
        let fetcher = Fetcher::new(
            lanes.clone(),
            confirm.clone(),
            health.clone(),
            link.net.clone(),
            (credit, stores.clone(), link.forks.clone()),
            weights.clone(),
        );
        threads.push(spawn("weft-fetch", Box::new(move || fetcher.run(&fetch)))?);
        // Without it the other threads end: nobody is left to give them anything.
        let net = PeerNet::start(peers.clone(), runtime, Arc::new(service))
            .inspect_err(|_| stores.set_bell(None))?;
        tracing::info!(address = %net.local_addr(), nodes = keys.len(), "listening for other nodes");
        let _ = link.net.set(net.clone());
        let stores = stores.clone();
        Ok(Self { net, urgent: urgent_in, fetch: fetch_in, dirty: dirty_in, stores, threads })
    }

    /// The connections.
    pub fn net(&self) -> &PeerNet {
        &self.net
    }

    /// Closes the connections and ends the threads that take from them. The checker ends with the driver, which asks it.
    pub fn stop(self, runtime: &tokio::runtime::Runtime) -> Vec<JoinHandle<()>> {
        runtime.block_on(self.net.shutdown());
        let _ = self.urgent.send(Urgent::Stop);
        let _ = self.fetch.send(FetchEvent::Stop);
        drop(self.dirty);
        self.stores.set_bell(None);
        self.threads
    }
}

/// Why replication does not start.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// The connections.
    #[error("{0}")]
    Peers(#[from] PeerStartError),
    /// The operating system refused a thread.
    #[error("cannot start a thread: {0}")]
    System(#[from] std::io::Error),
}

/// Group commit for all lanes of other nodes: one round of syncs for everything that was appended meanwhile.
struct Syncing {
    stores: Arc<Stores>,
    events: EventSender,
    net: Arc<OnceLock<PeerNet>>,
    health: Arc<Health>,
    acks: Arc<ConfirmAcks>,
    counters: Arc<Counters>,
}

impl Syncing {
    fn run(self, dirty: &Receiver<()>) {
        while dirty.recv().is_ok() {
            let mut done = Vec::new();
            let synced = self.stores.sync(|lane, _, _| done.push(lane));
            self.events.wake();
            for lane in done {
                if let Some(net) = self.net.get() {
                    net.lane_grew(lane);
                }
            }
            if let Err(error) = synced {
                let cause = with_sources(&error);
                tracing::error!(%cause, "a sync of another node's lane failed: nothing more is confirmed");
                self.health.set_state(State::Poisoned, Some(cause));
                self.acks.close(Reason::LogFailed.with(0, 0), &self.counters);
                return;
            }
        }
    }
}

/// Bans the node of `lane` for what was proven about it.
pub fn ban(net: &OnceLock<PeerNet>, lane: LaneId, why: &str) {
    if let Some(net) = net.get() {
        net.ban(lane, why);
    }
}
