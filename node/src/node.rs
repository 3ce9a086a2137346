//! A node: everything put together, started and stopped in the right order.
//!
//! Owns the start (lock, recovery, threads, sockets); `stop` has the graceful stop (stop taking, drain, sync, let go). The pipeline's threads
//! are ordinary ones with names; the sessions live on a tokio runtime of the node's own, so that a node can be started from any
//! program, and several in one.
//!
//! A pipeline thread that panics is a bug; the node then poisons itself and acks nothing more, instead of going on with one stage
//! missing.

mod error;
mod stop;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::bounded;
use ed25519_dalek::SigningKey;
use weft_core::confirm::Setup;
use weft_core::{Balance, DeviceSigner, Genesis, LaneId, NetworkId, NodeKey};
use weft_crypto::simd::{Context, Hashes};
use weft_net::peer::{PeerNet, PeerStatus};
use weft_net::{Fingerprint, Identity, Server, ServerConfig};
use weft_storage::datadir::DataDir;
use weft_storage::{LaneLog, RealDisk, Recovered, Subtrees, Syncer};

pub use self::error::StartError;
use crate::config::{Config, peer_config};
use crate::confirm::acks::ConfirmAcks;
use crate::confirm::driver::{Driver, LaneSource, OwnWitness};
use crate::confirm::events::{EventSender, events};
use crate::confirm::forks::ForkFile;
use crate::confirm::record::RecordFile;
use crate::confirm::{self, Confirm};
use crate::health::{Health, HealthReport, State};
use crate::history::History;
use crate::http;
use crate::lane::{Lane, LaneConfig, with_sources};
use crate::lanes::{Lanes, open_logs};
use crate::pipeline::commit::{Committer, Confirming, Sync};
use crate::pipeline::devices::{Device, DeviceReport, FEEDERS};
use crate::pipeline::queue::JobQueue;
use crate::pipeline::sequence::{ConfirmLink, Sequencer};
use crate::pipeline::suspects::Suspects;
use crate::pipeline::verify::{VerifyStage, unix_now_us};
use crate::pipeline::{Budget, PendingAck};
use crate::random::Random;
use crate::receipts::cosign::{Cosigner, Cosigners, NoCosigners, Peers};
use crate::receipts::{LaneProofs, Receipts};
use crate::replicate::store::Stores;
use crate::replicate::{self, Link, Replication};
use crate::service::NodeService;
use crate::stats::Counters;
use crate::subscriptions::Subscriptions;
use crate::verifier::{self, VerifierError};
pub use stop::StopReport;
use stop::{PanicGuard, Parts};

/// Own witnesses under way to the sequencer: there is one at a time.
const WITNESSES_QUEUED_MAX: usize = 1;

/// Final batches of other lanes whose messages wait to become tips; more are left out.
const TIPS_QUEUED_MAX: usize = 64;

/// Share of the pipeline's bytes that acks may hold which wait for confirmation: the rest is for clients who ask for less.
const CONFIRM_BYTES_SHARE: usize = 2;

/// Groups between sequencer and committer. Two: one under way to the disk and one to follow it; more would only hide that the disk is
/// the bound from the stages before.
const GROUPS_QUEUED_MAX: usize = 2;

/// Batches between verify workers and sequencer, for the same reason.
const VERIFIED_QUEUED_PER_WORKER: usize = 2;

/// By how much less important it is to verify what clients of this node send than everything else, where there are other nodes: Linux gives
/// such a thread a ninth of the time of the others when all want to run.
#[cfg(target_os = "linux")]
const ADMISSION_NICENESS: i32 = 10;

/// Folder of the data directory for compiled GPU kernels: a hint for the next start, which may be deleted.
const GPU_CACHE_DIR: &str = "gpu-cache";

/// Makes a data directory with a fresh ledger whose only node is this one.
///
/// # Errors
/// If the directory holds something already or cannot be written, or the name is not one.
pub fn init_ledger(path: &Path, ledger_name: &str) -> Result<Genesis, StartError> {
    init_ledger_with(path, ledger_name, Vec::new())
}

/// [`init_ledger`] with what accounts have at the start, in rising order of accounts.
///
/// # Errors
/// As [`init_ledger`].
pub fn init_ledger_with(
    path: &Path,
    ledger_name: &str,
    balances: Vec<Balance>,
) -> Result<Genesis, StartError> {
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed)?;
    let key = DeviceSigner::from_seed(seed).public();
    let genesis = Genesis { balances, ..Genesis::single(ledger_name, unix_now_us(), key) };
    DataDir::init(path, &genesis, &seed)?;
    Ok(genesis)
}

/// A running node. Stop it with [`RunningNode::stop`]; dropping it stops it too, without waiting for acks.
#[derive(Debug)]
pub struct RunningNode {
    address: SocketAddr,
    http_address: Option<SocketAddr>,
    fingerprint: Fingerprint,
    network: NetworkId,
    verifier: &'static str,
    devices: Arc<[Device]>,
    recovered: Recovered,
    counters: Arc<Counters>,
    health: Arc<Health>,
    service: Arc<NodeService>,
    confirm: Arc<Confirm>,
    stop_grace: Duration,
    /// Everything that a stop takes apart; `None` afterwards.
    parts: Option<Parts>,
}

/// Confirmation as the committer sees it.
struct DurableLane {
    confirm: Arc<Confirm>,
    acks: Arc<ConfirmAcks>,
    counters: Arc<Counters>,
    events: EventSender,
    net: Arc<OnceLock<PeerNet>>,
}

impl Confirming<PendingAck> for DurableLane {
    fn durable(&self, _size: u64) {
        // The driver reads the size from the log.
        self.events.wake();
        if let Some(net) = self.net.get() {
            net.lane_grew(self.confirm.lane());
        }
    }

    fn hold(&self, ack: PendingAck) {
        self.acks.hold(ack, &self.counters);
    }
}

struct LogSync(Syncer);

impl Sync for LogSync {
    fn sync(&self) -> Result<u64, String> {
        self.0.sync().map_err(|error| with_sources(&error))
    }
}

impl RunningNode {
    /// Starts a node: takes the directory, recovers the log, then opens the door.
    ///
    /// # Errors
    /// [`StartError`], with everything already started stopped again.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let cache_dir = Some(config.data.join(GPU_CACHE_DIR));
        let resident_bytes = config.gpu_resident_bytes;
        let options = weft_gpu::Options { cache_dir, resident_bytes, ..weft_gpu::Options::default() };
        Self::start_with(config, &options)
    }

    /// [`RunningNode::start`] with a say in how GPUs are opened: tests make them fail.
    ///
    /// # Errors
    /// As [`RunningNode::start`].
    pub fn start_with(config: &Config, gpu_options: &weft_gpu::Options) -> Result<Self, StartError> {
        let data = DataDir::open(&config.data)?;
        let genesis = data.genesis().clone();
        let key = SigningKey::from_bytes(data.node_seed());
        let public = NodeKey::from(key.verifying_key().to_bytes());
        let setup =
            Setup { round_us: config.round_ms.saturating_mul(1000), ..Setup::new(&genesis, Some(&public)) };
        let own = setup.lane.ok_or(StartError::NotInGenesis { got: public })?;
        let options = weft_crypto::backend::Options { cached_keys: config.key_cache_max };
        let chosen = verifier::choose(&config.verifier, &config.gpu, &options)?;
        tracing::info!(setting = config.verifier, gpu = %config.gpu, "verifiers chosen: {}", chosen.why);
        let verifier = chosen.cpu;
        let device = |found| Device::new(found, gpu_options.clone(), verifier.clone());
        let devices: Arc<[Device]> = chosen.adapters.into_iter().map(device).collect();
        if chosen.devices_first {
            // Asked for by name: it works, or the node does not start. Otherwise it joins once it is open.
            for device in devices.iter() {
                device.open().map_err(VerifierError::from)?;
            }
        }
        let health = Arc::new(Health::new());
        let counters = Arc::new(Counters::default());

        let keys: Vec<NodeKey> = genesis.node_keys().collect();
        let (log, recovered, others) = open_logs(&data, config, own, &keys)?;
        let lane_config = LaneConfig {
            recent_ids_max: config.recent_ids_max,
            replay_issuers_max: config.replay_issuers_max,
            tips_max: config.tips_max,
            tip_selection: config.tips(),
            batch_messages_max: genesis.batch_messages_max,
        };
        let roots = data.genesis_id().roots();
        let LaneLog { writer, syncer, reader } = log;
        let lanes = Lanes::new(own, reader, others.iter().map(|log| log.reader.clone()));
        let mut other_trees = others.iter().map(|log| log.writer.tree());
        let mut proofs = Vec::with_capacity(keys.len());
        for (reader, node) in lanes.readers().iter().zip(&keys) {
            let id = reader.lane();
            let tree = if id == own { Some(writer.tree()) } else { other_trees.next() };
            let Some(tree) = tree else { break };
            let subtrees = Arc::new(Subtrees::open(&data.lane_dir(id), data.network(), id, tree)?);
            proofs.push(LaneProofs::new(reader.clone(), subtrees, *node));
        }
        let stores = Arc::new(Stores::new(own, &keys, others, health.clone()));
        let (record, recorded) = RecordFile::open(data.path())?;
        let votes = recorded.as_ref().map(|recorded| &recorded.votes);
        let weights = setup.weights.clone();
        // What was final here was verified here, as far as the log has kept it: after a power loss less of another lane may be here than
        // was final, and what comes in its place has been seen by nobody.
        let verified = votes.map(|votes| {
            let kept = lanes.readers().iter().map(weft_storage::LogReader::size);
            votes.lanes.iter().zip(kept).map(|(lane, kept)| lane.final_size.min(kept)).collect()
        });
        let confirm = Arc::new(Confirm::new(confirm::machine(setup, votes), own));
        let mut lane = Lane::open(
            key.clone(),
            roots,
            writer,
            (lanes.clone(), confirm.clone()),
            &data.lane_dir(own),
            lane_config,
            Random::from_system()?,
        )?;
        if let Some(own) = proofs.get(usize::from(own.0)) {
            lane.tell_subtrees(own.subtrees().clone());
        }
        health.recovered(recovered.size);
        let confirm_acks = Arc::new(ConfirmAcks::new(config.queue_bytes_max / CONFIRM_BYTES_SHARE));
        let (events_in, events_out) = events();
        let (witnesses_in, witnesses_out) = bounded(WITNESSES_QUEUED_MAX);
        let (tips_in, tips_out) = bounded(TIPS_QUEUED_MAX);
        let peers = peer_config(config, &data, own)?;
        let (link, asked) = Link::new(stores.clone(), weights.len());
        // The log may have lost the last witness in a crash; the record has it.
        let witness = recorded.and_then(|recorded| recorded.witness).and_then(|bytes| {
            let id = weft_core::MessageView::parse(&bytes).ok()?.id();
            (!lane.has(&id)).then_some(OwnWitness { bytes, id })
        });

        let genesis_limits = genesis.limits()?;
        let mut limits = genesis_limits;
        limits.clock_ahead_us_max = config.clock_ahead_us_max.unwrap_or(limits.clock_ahead_us_max);
        limits.clock_behind_us_max = config.clock_behind_us_max.unwrap_or(limits.clock_behind_us_max);
        let clock_us_max = (limits.clock_ahead_us_max, limits.clock_behind_us_max);

        let workers_count = config.verify_threads_or_cores();
        let feeders_count = FEEDERS * devices.len();
        let jobs = Arc::new(JobQueue::new(if chosen.devices_first { devices.len() } else { 0 }));
        let (verified_in, verified_out) =
            bounded(VERIFIED_QUEUED_PER_WORKER * (workers_count + feeders_count));
        let (groups_in, groups_out) = bounded(GROUPS_QUEUED_MAX);
        let published_tips = Arc::new(Mutex::new(lane.tips(crate::pipeline::sequence::TIPS_PUBLISHED)));
        let history = Arc::new(History::create(data.path(), lanes.clone())?);
        let mut driver = Driver::new(confirm::driver::Parts {
            confirm: confirm.clone(),
            history: history.clone(),
            acks: confirm_acks.clone(),
            counters: counters.clone(),
            health: health.clone(),
            lanes: keys
                .iter()
                .zip(lanes.readers())
                .map(|(key, reader)| LaneSource { reader: reader.clone(), key: *key })
                .collect(),
            record,
            forks: ForkFile::open(Arc::new(RealDisk), data.path(), data.network(), &keys)?,
            signer: DeviceSigner::from_seed(*data.node_seed()),
            network: data.network(),
            roots,
            tips: published_tips.clone(),
            random: Random::from_system()?,
            witnesses: witnesses_in,
            verified: verified.unwrap_or_default(),
            link: peers.is_some().then(|| link.clone()),
            tips_elsewhere: tips_in,
        });
        let replay_started = std::time::Instant::now();
        driver.replay()?;
        tracing::info!(
            size = confirm.marks(own).held,
            final_size = confirm.final_size(own),
            ms = replay_started.elapsed().as_millis() as u64,
            "confirmation is where it was"
        );
        let stage = Arc::new(VerifyStage {
            verifier: verifier.clone(),
            workers: workers_count,
            hashes: Hashes::detect(),
            id_context: Context::new(weft_core::hash::Domain::MESSAGE.context()),
            devices_first: chosen.devices_first,
            pace: Mutex::default(),
            limits,
            batch_messages_max: config.verify_batch_max,
            linger: Duration::from_micros(config.batch_linger_us),
            counters: counters.clone(),
            suspects: Mutex::new(Suspects::default()),
        });
        let marks = confirm.clone();
        let final_size = Arc::new(move |lane| marks.final_size(lane));
        let cosigner = Arc::new(Cosigner::new(&genesis, key, proofs, final_size)?);
        let cosigners: Arc<dyn Cosigners> = match peers {
            Some(_) => Arc::new(Peers::new(link.net.clone(), &genesis, own)),
            None => Arc::new(NoCosigners),
        };
        let reads = NodeService::read_slots();
        let receipts = Receipts::new(genesis.clone(), cosigner.clone(), cosigners, reads.clone());
        let subscriptions = Subscriptions::new(confirm.clone(), history.clone(), lanes.clone(), keys.clone());
        let service = Arc::new(NodeService {
            genesis_id: data.genesis_id(),
            network: data.network(),
            name: config.name.clone(),
            lane: own,
            confirm: confirm.clone(),
            acks: confirm_acks.clone(),
            round_us: config.round_ms.saturating_mul(1000),
            net: link.net.clone(),
            clock_us_max,
            ack_level_max: config.ack_level,
            jobs: jobs.clone(),
            budget: Budget::new(config.queue_bytes_max),
            receipts,
            history,
            subscriptions,
            lanes: lanes.clone(),
            tips: published_tips.clone(),
            counters: counters.clone(),
            health: health.clone(),
            reads,
            genesis,
        });

        // The sockets before the threads: an address in use is the most likely failure, and leaves nothing to take apart.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(std::thread::available_parallelism().map_or(1, usize::from).min(8))
            .thread_name("weft-net")
            .enable_all()
            .build()?;
        let server_config = server_config(config, Identity::load_or_create(&config.data)?);
        let server = {
            let _inside = runtime.enter();
            Server::bind(server_config, service.clone())
                .map_err(|source| StartError::Bind { address: config.listen, source })?
        };
        let address = server.local_addr()?;
        let (http_address, http_stop) = match config.http {
            None => (None, None),
            Some(address) => {
                let bind = |source| StartError::BindHttp { address, source };
                let listener = runtime.block_on(http::bind(address)).map_err(bind)?;
                let bound = listener.local_addr().map_err(bind)?;
                let pages = http::Pages {
                    health: health.clone(),
                    confirm: Some(service.clone()),
                    counters: counters.clone(),
                    devices: devices.clone(),
                };
                let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
                runtime.spawn(http::serve(listener, pages, async {
                    let _ = stopped.await;
                }));
                (Some(bound), Some(stop))
            }
        };

        let mut workers = Vec::with_capacity(workers_count + feeders_count);
        for number in 0..workers_count {
            let (stage, jobs, out) = (stage.clone(), jobs.clone(), verified_in.clone());
            let guard = PanicGuard { stage: "verify", health: health.clone() };
            let polite = peers.is_some();
            workers.push(spawn(format!("weft-verify-{number}"), move || {
                let _guard = guard;
                if polite {
                    let_others_first();
                }
                stage.run(&jobs, &out);
            })?);
        }
        for number in 0..feeders_count {
            let (stage, jobs, out) = (stage.clone(), jobs.clone(), verified_in.clone());
            let devices = devices.clone();
            let guard = PanicGuard { stage: "gpu", health: health.clone() };
            workers.push(spawn(format!("weft-gpu-{number}"), move || {
                let _guard = guard;
                devices[number / FEEDERS].feed(&stage, &jobs, &out);
            })?);
        }
        drop(verified_in);
        let confirmation = {
            let guard = PanicGuard { stage: "confirm", health: health.clone() };
            spawn("weft-confirm".to_owned(), move || {
                let _guard = guard;
                driver.run(&events_out);
            })?
        };
        let handed = ConfirmLink {
            confirm: confirm.clone(),
            events: events_in.clone(),
            witnesses: witnesses_out,
            witness,
            tips_elsewhere: tips_out,
        };
        let sequencer = Sequencer::new(lane, counters.clone(), health.clone(), handed);
        let guard = PanicGuard { stage: "sequencer", health: health.clone() };
        let sequencer = spawn("weft-sequence".to_owned(), move || {
            let _guard = guard;
            Some(sequencer.run(&verified_out, &groups_in))
        })?;
        let committer = Committer {
            syncer: LogSync(syncer),
            confirming: DurableLane {
                confirm: confirm.clone(),
                acks: confirm_acks.clone(),
                counters: counters.clone(),
                events: events_in.clone(),
                net: link.net.clone(),
            },
            counters: counters.clone(),
            health: health.clone(),
            published_tips,
        };
        let guard = PanicGuard { stage: "committer", health: health.clone() };
        let committer = spawn("weft-commit".to_owned(), move || {
            let _guard = guard;
            committer.run(&groups_out);
        })?;

        let mut failed = None;
        let replication = match peers {
            None => {
                health.set_state(State::Live, None);
                None
            }
            Some(peers) => {
                health.set_state(State::Joining, None);
                let needs = replicate::Needs {
                    peers,
                    lanes,
                    stores: stores.clone(),
                    keys,
                    weights,
                    network: data.network(),
                    limits: genesis_limits,
                    roots,
                    verifier: verifier.clone(),
                    workers: workers_count,
                    confirm: confirm.clone(),
                    acks: confirm_acks,
                    events: events_in.clone(),
                    counters: counters.clone(),
                    health: health.clone(),
                    link,
                    asked,
                    cosigner,
                };
                let health = health.clone();
                let started = Replication::start(needs, runtime.handle(), move |name, work| {
                    let guard = PanicGuard { stage: name, health: health.clone() };
                    spawn(name.to_owned(), move || {
                        let _guard = guard;
                        work();
                    })
                });
                started.map_err(|error| failed = Some(error)).ok()
            }
        };
        let node = Self {
            address,
            http_address,
            fingerprint: server.fingerprint(),
            network: data.network(),
            verifier: if chosen.devices_first { verifier::GPU } else { verifier.name() },
            devices,
            recovered,
            counters,
            health,
            service,
            confirm,
            stop_grace: Duration::from_millis(config.stop_grace_ms),
            parts: Some(Parts {
                runtime,
                server,
                http_stop,
                workers,
                sequencer,
                committer,
                confirmation,
                events: events_in,
                replication,
                stores,
                _data: data,
            }),
        };
        match failed {
            None => Ok(node),
            Some(error) => {
                // What runs by now holds the log and the lock on the directory.
                drop(node);
                Err(error.into())
            }
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `/health` and `/metrics` are, if anywhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// The certificate's fingerprint, for clients to pin.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The name of the verifier in use: `gpu` where GPUs come first, else the CPU's.
    pub fn verifier(&self) -> &'static str {
        self.verifier
    }

    /// The GPUs that take part, or took part until they failed.
    pub fn devices(&self) -> Vec<DeviceReport> {
        self.devices.iter().map(Device::report).collect()
    }

    /// What was found in the log at start.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Statistics since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Where other nodes reach this one, if it has others.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        Some(self.parts.as_ref()?.replication.as_ref()?.net().local_addr())
    }

    /// Figures of the connections to other nodes.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let replication = self.parts.as_ref().and_then(|parts| parts.replication.as_ref());
        replication.map(|replication| replication.net().status()).unwrap_or_default()
    }

    /// Changes where the node of `lane` is dialled.
    pub fn set_peer_address(&self, lane: LaneId, address: Option<String>) {
        if let Some(replication) = self.parts.as_ref().and_then(|parts| parts.replication.as_ref()) {
            replication.net().set_address(lane, address);
        }
    }

    /// Confirmation: watermarks, accounts.
    pub fn confirm(&self) -> &Arc<Confirm> {
        &self.confirm
    }

    /// How the node is.
    pub fn health(&self) -> HealthReport {
        self.health.report()
    }
}

/// What the settings allow clients.
fn server_config(config: &Config, identity: Identity) -> ServerConfig {
    let mut server_config = ServerConfig::new(config.listen, identity);
    server_config.limits.connections_max = u32::try_from(config.connections_max).unwrap_or(u32::MAX);
    server_config.limits.session.inflight_bytes_max = config.connection_bytes_max as u64;
    server_config.limits.session.idle_timeout = Duration::from_millis(config.connection_idle_ms);
    server_config.limits.connection_idle_timeout = Duration::from_millis(config.connection_idle_ms);
    let limits = &mut server_config.limits;
    limits.subscriptions_max = u32::try_from(config.subscriptions_max).unwrap_or(u32::MAX);
    limits.session.subscriptions_max = u32::try_from(config.connection_subscriptions_max).unwrap_or(u32::MAX);
    limits.sessions_max = limits.connections_max.saturating_mul(2);
    limits.inflight_bytes_total_max = (config.queue_bytes_max as u64).min(u64::from(u32::MAX));
    limits.session.inflight_bytes_max = limits
        .session
        .inflight_bytes_max
        .clamp(limits.session.frame_bytes_max.into(), limits.inflight_bytes_total_max);
    // The operator chose how many connections: what they may cost is said, not second-guessed.
    limits.memory_bytes_max = limits.memory_bytes_max.max(limits.worst_case_bytes());
    tracing::info!(
        connections_max = limits.connections_max,
        worst_case_bytes = limits.worst_case_bytes(),
        "network limits"
    );
    server_config
}

/// Has everything else of the node run before this thread where processors are scarce. In a cluster each node verifies what all of them take:
/// if what it takes itself went ahead of that, it would take more than is confirmed, and confirmation would fall behind without end.
fn let_others_first() {
    // Elsewhere this would be the priority of the whole process. If it is refused, the thread is only less polite.
    #[cfg(target_os = "linux")]
    {
        let now = rustix::process::getpriority_process(None).unwrap_or(0);
        let _ = rustix::process::setpriority_process(None, (now + ADMISSION_NICENESS).min(19));
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name).spawn(work)
}
