//! Four validators on loopback in one process.

use std::path::Path;
use std::time::{Duration, Instant};

use weft_core::{Balance, DeviceSigner, Genesis, LaneId, Validator};
use weft_node::config::Config;
use weft_node::health::State;
use weft_node::node::RunningNode;
use weft_storage::DataDir;

use super::{config, device, now_us, start};

pub const NODES: usize = 4;

/// A cluster: some of its nodes run.
pub struct Cluster {
    pub dirs: Vec<tempfile::TempDir>,
    pub nodes: Vec<Option<RunningNode>>,
}

impl Cluster {
    /// Directories of a ledger of four validators in which device 1 has `amount`; no node runs.
    pub fn new(amount: u64) -> Self {
        Self::with_balances(vec![Balance { account: device(1).public(), amount }])
    }

    /// Directories of a ledger of four validators with these balances, in any order; no node runs.
    pub fn with_balances(mut balances: Vec<Balance>) -> Self {
        balances.sort_by_key(|balance| balance.account);
        let seed = |node: usize| [100 + node as u8; 32];
        let validator = |node| Validator {
            key: DeviceSigner::from_seed(seed(node)).public(),
            weight: 1,
            name: String::new(),
        };
        let genesis = Genesis {
            committee: (0..NODES).map(validator).collect(),
            balances,
            ..Genesis::single("cluster", now_us(), DeviceSigner::from_seed(seed(0)).public())
        };
        let dir = |node| {
            let dir = tempfile::tempdir().unwrap();
            DataDir::init(dir.path(), &genesis, &seed(node)).unwrap();
            dir
        };
        Self { dirs: (0..NODES).map(dir).collect(), nodes: (0..NODES).map(|_| None).collect() }
    }

    pub fn started(amount: u64) -> Self {
        let mut cluster = Self::new(amount);
        (0..NODES).for_each(|node| cluster.start(node));
        cluster.wait_live(0..NODES);
        cluster
    }

    pub fn start(&mut self, node: usize) {
        self.start_with(node, |_| {});
    }

    /// Starts a node whose settings the test changes.
    pub fn start_with(&mut self, node: usize, change: impl FnOnce(&mut Config)) {
        let mut config =
            Config { peer_listen: Some("127.0.0.1:0".parse().unwrap()), ..config(self.dirs[node].path()) };
        change(&mut config);
        self.nodes[node] = Some(start(&config));
        for from in 0..NODES {
            for to in 0..NODES {
                if let (Some(from), Some(there)) = (&self.nodes[from], &self.nodes[to]) {
                    let address = there.peer_address().unwrap().to_string();
                    from.set_peer_address(LaneId(to as u16), Some(address));
                }
            }
        }
    }

    pub fn stop(&mut self, node: usize) {
        self.nodes[node].take().unwrap().stop();
    }

    pub fn node(&self, node: usize) -> &RunningNode {
        self.nodes[node].as_ref().unwrap()
    }

    pub fn up(&self) -> impl Iterator<Item = &RunningNode> {
        self.nodes.iter().flatten()
    }

    pub fn wait_live(&self, nodes: impl IntoIterator<Item = usize>) {
        for node in nodes {
            wait_for("it is live", || self.node(node).health().state == State::Live);
        }
    }

    /// Waits until every running node has lane `lane` final up to `size`.
    pub fn wait_final(&self, lane: usize, size: u64) {
        for node in self.up() {
            wait_for("it is final everywhere", || node.confirm().final_size(LaneId(lane as u16)) >= size);
        }
    }

    pub fn final_size(&self, node: usize, lane: usize) -> u64 {
        self.node(node).confirm().final_size(LaneId(lane as u16))
    }

    pub fn balance(&self, node: usize, account: u8) -> u64 {
        let key = device(account).public();
        self.node(node)
            .confirm()
            .ask(|machine| machine.ledger().account(&key).map_or(0, |account| account.balance))
    }
}

/// Waits until `done`, at most twenty seconds.
pub fn wait_for(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "not within twenty seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
