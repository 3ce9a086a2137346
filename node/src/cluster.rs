//! A cluster on one machine: its directories, and its nodes as child processes.
//!
//! Owns the layout below, the start and the end of the processes, and what they print. Invariants: a node's process ends when this
//! process does, however that ends (its stdin closes); signals from a terminal reach this process only, which then stops the nodes
//! in order; directories that exist are used as they are and never made anew.
//!
//! ```text
//! DIR/genesis.bin      the genesis, as all nodes have it
//! DIR/node-N/          data directory of node N, with its settings in weft.toml
//! DIR/node-N.log       what it printed
//! ```

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use weft_core::{Balance, DeviceSigner, Genesis, LaneId, NetworkId, NodeKey, Validator};
use weft_net::{Fingerprint, Trust};
use weft_storage::DataDir;

use crate::pipeline::verify::unix_now_us;

/// Nodes of a cluster on one machine, at most: each is a process with its own threads.
pub const NODES_MAX: usize = 64;

/// Ports from one node to the next: clients, peers, HTTP, and room to spare.
const PORTS_PER_NODE: u16 = 10;

/// How long a node may take to say where it listens. One that has much to recover takes seconds.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a node may take to stop, beyond its own `stop_grace_ms` (10 s by default).
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// End of a node's log that an error shows, bytes.
const LOG_TAIL_BYTES: u64 = 2_000;

/// What a new cluster is like.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// Nodes, all validators of weight 1.
    pub nodes: usize,
    /// First port; node N has the ports from this + 10 N on. 0 takes free ones.
    pub base_port: u16,
    /// Address of each node; none: all are on loopback.
    pub hosts: Vec<IpAddr>,
    /// The ledger's name.
    pub name: String,
    /// What accounts begin with, in rising order.
    pub balances: Vec<Balance>,
    /// Settings of every node: lines of `weft.toml`.
    pub settings: Vec<String>,
}

impl NewCluster {
    /// A cluster of so many nodes, with settings that let several of them share a machine.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = vec![
            format!("verify_threads = {}", (cores / nodes.max(1)).max(1)),
            // Each node has a log for each lane, and each log a spare segment.
            "segment_bytes = \"64MiB\"".to_owned(),
            "free_space_watermark_bytes = \"64MiB\"".to_owned(),
            "replay_issuers_max = 262144".to_owned(),
            "recent_ids_max = 262144".to_owned(),
        ];
        Self {
            nodes,
            base_port: 7300,
            hosts: Vec::new(),
            name: "cluster".to_owned(),
            balances: Vec::new(),
            settings,
        }
    }
}

/// The data directory of node `number`.
#[must_use]
pub fn node_dir(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("node-{number}"))
}

/// What node `number` printed.
#[must_use]
pub fn log_file(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("node-{number}.log"))
}

/// Nodes that have a directory in `dir`, counted from 0 without a gap.
#[must_use]
pub fn nodes_in(dir: &Path) -> usize {
    (0..NODES_MAX).take_while(|number| node_dir(dir, *number).is_dir()).count()
}

/// Makes the directories of a new cluster.
///
/// # Errors
/// If there is a cluster in `dir`, a value cannot be used, or something cannot be written.
pub fn create(dir: &Path, new: &NewCluster) -> anyhow::Result<Genesis> {
    if !(1..=NODES_MAX).contains(&new.nodes) {
        bail!("{} nodes: 1 to {NODES_MAX}", new.nodes);
    }
    let ports = u32::from(new.base_port) + u32::from(PORTS_PER_NODE) * new.nodes as u32;
    if new.base_port > 0 && ports > 65_536 {
        bail!("{} nodes from port {} on: ports end at 65535", new.nodes, new.base_port);
    }
    if nodes_in(dir) > 0 {
        bail!("{} holds a cluster already", dir.display());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut seeds = Vec::with_capacity(new.nodes);
    for _ in 0..new.nodes {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
        seeds.push(seed);
    }
    let keys: Vec<NodeKey> = seeds.iter().map(|seed| DeviceSigner::from_seed(*seed).public()).collect();
    let validator =
        |(number, key): (usize, &NodeKey)| Validator { key: *key, weight: 1, name: format!("node-{number}") };
    let genesis = Genesis {
        committee: keys.iter().enumerate().map(validator).collect(),
        balances: new.balances.clone(),
        ..Genesis::single(&new.name, unix_now_us(), keys[0])
    };
    let ports: Vec<[u16; 3]> = match new.base_port {
        0 => free_ports(new.nodes)?,
        base => (0..new.nodes as u16)
            .map(|number| [0, 1, 2].map(|at| base + PORTS_PER_NODE * number + at))
            .collect(),
    };
    crate::cli::genesis::write_new(&dir.join("genesis.bin"), &genesis)?;
    let at = |number: usize, port: usize| {
        let host = new.hosts.get(number).copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
        SocketAddr::new(host, ports[number][port])
    };
    for (number, seed) in seeds.iter().enumerate() {
        let data = node_dir(dir, number);
        DataDir::init(&data, &genesis, seed).map_err(crate::node::StartError::from)?;
        let others = (0..new.nodes).filter(|other| *other != number);
        let peers: Vec<String> = others.map(|other| format!("{}@{}", keys[other], at(other, 1))).collect();
        let [listen, peer_listen, http] = [0, 1, 2].map(|port| at(number, port));
        let mut text = format!(
            "name = \"node-{number}\"\nlisten = \"{listen}\"\nhttp = \"{http}\"\npeer_listen = \"{peer_listen}\"\n"
        );
        if !peers.is_empty() {
            text.push_str(&format!("peers = \"{}\"\n", peers.join(",")));
        }
        for line in &new.settings {
            text.push_str(line);
            text.push('\n');
        }
        let file = data.join(crate::config::FILE_NAME);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(genesis)
}

/// Ports that nobody has now, three a node.
fn free_ports(nodes: usize) -> anyhow::Result<Vec<[u16; 3]>> {
    // All are held until all are known, so that none is there twice. Somebody else may take one before its node does: then that
    // node does not start, and says so.
    let mut held = Vec::new();
    let mut take = || -> anyhow::Result<u16> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let port = socket.local_addr()?.port();
        held.push(socket);
        Ok(port)
    };
    (0..nodes).map(|_| Ok([take()?, take()?, take()?])).collect()
}

/// A node that runs as a child process; killed when dropped.
#[derive(Debug)]
pub struct Member {
    /// Its number, and its lane.
    pub number: usize,
    /// Where clients reach it.
    pub address: SocketAddr,
    /// Its certificate, which clients pin.
    pub fingerprint: Fingerprint,
    child: Child,
    /// The node stops when this closes.
    _stdin: ChildStdin,
}

impl Member {
    /// Starts node `number` of the cluster in `dir`, and waits until it listens. `weft` runs the program, as it is or inside something
    /// else; `arguments` are those of `weft node`, on top of its settings file.
    ///
    /// # Errors
    /// If the process does not start or ends before it listens; the error shows the end of its log.
    pub fn start(weft: Command, dir: &Path, number: usize, arguments: &[String]) -> anyhow::Result<Self> {
        let log_path = log_file(dir, number);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let mut command = weft;
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
            // Settings of this process are not those of its nodes.
            command.env_remove(name);
        }
        let mut child = command
            .args(["node", "--stop-with-stdin", "--data"])
            .arg(node_dir(dir, number))
            .args(arguments)
            // A group of its own: Ctrl-C on the terminal is for this process, and a second signal would end a node at once.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("node {number} has no stdin or stdout");
        };
        let (say, said) = channel();
        std::thread::Builder::new().name("weft-child".to_owned()).spawn(move || {
            let mut log = log;
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
                let _ = say.send(line);
            }
        })?;
        let started = listening(&said);
        match started {
            Ok((address, fingerprint)) => Ok(Self { number, address, fingerprint, child, _stdin: stdin }),
            Err(error) => {
                let _ = child.kill();
                let status = child.wait()?;
                bail!(
                    "node {number}: {error} ({status}); the end of {}:\n{}",
                    log_path.display(),
                    tail(&log_path)
                );
            }
        }
    }

    /// Its lane.
    #[must_use]
    pub fn lane(&self) -> LaneId {
        LaneId(self.number as u16)
    }

    /// How a client reaches it.
    #[must_use]
    pub fn target(&self, network: NetworkId) -> weft_loadgen::NodeTarget {
        let trust = Trust::Pin(self.fingerprint);
        weft_loadgen::NodeTarget { addr: self.address, trust, network: Some(network) }
    }

    /// The process's id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to stop (SIGTERM).
    pub fn ask_to_stop(&self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        );
    }

    /// SIGKILL: nothing is flushed, no handler runs.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended after [`ask_to_stop`](Self::ask_to_stop); killed if it takes too long. `Ok` if it ended well.
    ///
    /// # Errors
    /// It ended badly, or had to be killed.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("node {} ended with {status}", self.number);
            }
            if Instant::now() >= until {
                self.kill();
                bail!("node {} did not stop within {} s and was killed", self.number, STOP_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
    }
}

/// Reads what a node prints until it has said where it listens and what its certificate is.
fn listening(said: &std::sync::mpsc::Receiver<String>) -> Result<(SocketAddr, Fingerprint), String> {
    let until = Instant::now() + START_TIMEOUT;
    let (mut address, mut fingerprint) = (None, None);
    loop {
        if let (Some(address), Some(fingerprint)) = (address, fingerprint) {
            return Ok((address, fingerprint));
        }
        let line = match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("not listening within {} s", START_TIMEOUT.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => return Err("ended before it listened".to_owned()),
        };
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("listening"), Some(text)) => address = text.parse().ok(),
            (Some("certificate"), Some(text)) => fingerprint = text.parse().ok(),
            _ => {}
        }
    }
}

/// The end of a file, for an error.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// Starts all nodes of the cluster in `dir`, those after the first once it listens.
///
/// # Errors
/// As [`Member::start`]; the nodes that run are ended.
pub fn start_all(binary: &Path, dir: &Path, arguments: &[String]) -> anyhow::Result<Vec<Member>> {
    (0..nodes_in(dir)).map(|number| Member::start(Command::new(binary), dir, number, arguments)).collect()
}

/// Stops nodes, all at the same time. Every error, not only the first.
///
/// # Errors
/// What did not end well.
pub fn stop_all(members: &mut [Member]) -> anyhow::Result<()> {
    members.iter().for_each(Member::ask_to_stop);
    let errors: Vec<String> =
        members.iter_mut().filter_map(|member| member.wait().err()).map(|error| error.to_string()).collect();
    if errors.is_empty() { Ok(()) } else { bail!("{}", errors.join("; ")) }
}
