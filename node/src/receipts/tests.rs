//! A committee of four over one log: what a quorum takes, who is asked, and what is not signed.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use weft_core::arena::VerifiedMessage;
use weft_core::endorse::{EndorseError, cosigned_text};
use weft_core::genesis::Validator;
use weft_core::lane::build::BatchBuilder;
use weft_core::receipt::VerifyError;
use weft_core::{DeviceSigner, Draft, LaneTree, MessageView, OneByOne, PayloadKind};
use weft_net::ErrorCode;
use weft_storage::{LaneLog, LogConfig, SimDisk};

use super::cosign::NoCosigners;
use super::*;

fn seed(number: u8) -> [u8; 32] {
    [number + 1; 32]
}

fn verify(key: &NodeKey, text: &[u8], signature: &[u8; 64]) -> bool {
    weft_crypto::serial::verify_one(&key.0, text, signature)
}

/// A log of lane 0 with one batch of each of these numbers of messages.
struct Log {
    genesis: Genesis,
    log: LaneLog,
    ids: Vec<MessageId>,
    sizes: Vec<u64>,
    dir: tempfile::TempDir,
}

impl Log {
    fn new(batches: &[u32]) -> Self {
        let key = |number| DeviceSigner::from_seed(seed(number)).public();
        let validator = |number| Validator { key: key(number), weight: 1, name: String::new() };
        let genesis =
            Genesis { committee: (0..4).map(validator).collect(), ..Genesis::single("four", 1, key(0)) };
        let network = genesis.network().unwrap();
        let config =
            LogConfig { segment_bytes: 1 << 20, free_bytes_min: 0, background: false, hasher: &OneByOne };
        let disk = Arc::new(SimDisk::new(1));
        let dir = std::path::Path::new("/lanes/0");
        let (mut log, _) = LaneLog::open(disk, dir, network, LaneId(0), config, &|_| true).unwrap();
        let node = DeviceSigner::from_seed(seed(0));
        let (mut tree, mut ids, mut sizes) = (LaneTree::new(), Vec::new(), Vec::new());
        for count in batches {
            let mut builder = BatchBuilder::new(*count, 1 << 20);
            for _ in 0..*count {
                let draft = Draft {
                    network,
                    issued_at_us: 1,
                    sequence: ids.len() as u64,
                    parents: [MessageId([1; 32]), MessageId([2; 32])],
                    kind: PayloadKind::DATA,
                    payload: &[0; 16],
                };
                let bytes = draft.sign(&node).unwrap();
                let message = VerifiedMessage::vouch(MessageView::parse(&bytes).unwrap());
                ids.push(message.id());
                builder.push([Place::root(0), Place::root(1)], &message).unwrap();
            }
            let seal = |text: &[u8]| node.sign_bytes(text);
            let sealed = builder.seal(&mut tree, network, LaneId(0), seal).unwrap();
            sizes.push(log.writer.append(&sealed, &tree).unwrap());
        }
        Self { genesis, log, ids, sizes, dir: tempfile::tempdir().unwrap() }
    }

    /// Receipts at validator `number`, to which the lane is final up to what `final_size` says.
    fn receipts(&self, number: u8, final_size: &Arc<AtomicU64>, peers: Arc<dyn Cosigners>) -> Arc<Receipts> {
        let network = self.genesis.network().unwrap();
        let dir = self.dir.path().join(number.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let subtrees = Subtrees::open(&dir, network, LaneId(0), self.log.writer.tree()).unwrap();
        let proofs =
            LaneProofs::new(self.log.reader.clone(), Arc::new(subtrees), self.genesis.committee[0].key);
        let final_size = final_size.clone();
        let final_size = Arc::new(move |_| final_size.load(Ordering::Relaxed));
        let key = SigningKey::from_bytes(&seed(number));
        let own = Arc::new(Cosigner::new(&self.genesis, key, vec![proofs], final_size).unwrap());
        Arc::new(Receipts::new(self.genesis.clone(), own, peers, Arc::new(Semaphore::new(1))))
    }
}

/// Other validators in this process.
#[derive(Debug)]
struct Others {
    receipts: Vec<Arc<Receipts>>,
    asked: AtomicU64,
    /// Flips a bit of every signature.
    lies: bool,
    /// How long it takes to ask them.
    takes: Duration,
}

impl Cosigners for Others {
    fn cosign(
        &self,
        checkpoint: Checkpoint,
        weight: u64,
    ) -> Pin<Box<dyn Future<Output = Vec<Cosignature>> + Send + '_>> {
        assert_eq!(weight, 1, "that of the node which asks");
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answers = self.receipts.iter().filter_map(move |receipts| {
            let mut answer = receipts.own.cosign(checkpoint.lane, checkpoint.size, &checkpoint.root).ok()?;
            answer.signature[0] ^= u8::from(self.lies);
            Some(answer)
        });
        let answers = answers.collect();
        let takes = self.takes;
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            answers
        })
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

#[test]
fn a_node_of_four_asks_its_peers_and_one_set_of_their_signatures_serves_all_receipts_below() {
    let log = Log::new(&[3, 5, 7]);
    let nothing: Arc<dyn Cosigners> = Arc::new(NoCosigners);
    let (mine, theirs) = (Arc::new(AtomicU64::new(log.sizes[1])), Arc::new(AtomicU64::new(log.sizes[2])));
    let receipts: Vec<_> = (1..4).map(|number| log.receipts(number, &theirs, nothing.clone())).collect();
    let others = Arc::new(Others { receipts, asked: AtomicU64::new(0), lies: false, takes: Duration::ZERO });
    let receipts = log.receipts(0, &mine, others.clone());
    block_on(async {
        for id in &log.ids[..8] {
            let receipt = Receipt::parse(receipts.receipt(*id, 0).await.unwrap().as_bytes()).unwrap();
            assert_eq!(receipt.checkpoint.checkpoint.size, log.sizes[1]);
            let verified = receipt.verify(&log.genesis, None, verify).unwrap();
            assert_eq!((verified.id, verified.endorsement.weight), (*id, 4));
        }
        assert_eq!(others.asked.load(Ordering::Relaxed), 1);
        // Not final here, whatever the others say.
        let refusal = receipts.receipt(log.ids[8], 0).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::NotYet);
        mine.store(log.sizes[2], Ordering::Relaxed);
        let receipt = receipts.receipt(log.ids[8], 0).await.unwrap();
        assert!(Receipt::parse(receipt.as_bytes()).unwrap().verify(&log.genesis, None, verify).is_ok());
        assert_eq!(others.asked.load(Ordering::Relaxed), 2);
        // The newer checkpoint serves the older messages, too, and an older one can still be asked for.
        let receipt = Receipt::parse(receipts.receipt(log.ids[0], 0).await.unwrap().as_bytes()).unwrap();
        assert_eq!(receipt.checkpoint.checkpoint.size, log.sizes[2]);
        let receipt = receipts.receipt(log.ids[0], log.sizes[0]).await.unwrap();
        assert_eq!(Receipt::parse(receipt.as_bytes()).unwrap().checkpoint.checkpoint.size, log.sizes[0]);
    });
}

#[test]
fn without_a_quorum_the_receipt_says_so_and_is_asked_for_again_with_each_call() {
    let log = Log::new(&[2, 2]);
    let nothing: Arc<dyn Cosigners> = Arc::new(NoCosigners);
    let all = Arc::new(AtomicU64::new(log.sizes[1]));
    // One peer has not seen it final, and two flip bits: only this validator's own signature is left.
    let behind = Arc::new(AtomicU64::new(log.sizes[0]));
    for (finals, lies, weight) in [([&all, &behind], false, 2), ([&all, &all], true, 1)] {
        let receipts = (1..3).zip(finals).map(|(number, size)| log.receipts(number, size, nothing.clone()));
        let others = Arc::new(Others {
            receipts: receipts.collect(),
            asked: AtomicU64::new(0),
            lies,
            takes: Duration::ZERO,
        });
        let receipts = log.receipts(0, &all, others.clone());
        block_on(async {
            for asked in 1..3 {
                let receipt = receipts.receipt(log.ids[3], 0).await.unwrap();
                let receipt = Receipt::parse(receipt.as_bytes()).unwrap();
                let error = EndorseError::NoQuorum { got: weight, total: 4 };
                assert_eq!(receipt.verify(&log.genesis, None, verify), Err(VerifyError::Checkpoint(error)));
                assert_eq!(others.asked.load(Ordering::Relaxed), asked);
            }
        });
    }
}

#[test]
fn many_clients_at_once_cost_one_asking_with_or_without_a_quorum() {
    let log = Log::new(&[2, 2]);
    let all = Arc::new(AtomicU64::new(log.sizes[1]));
    for peers in [1..4, 1..2] {
        let complete = peers.len() == 3;
        let nothing: Arc<dyn Cosigners> = Arc::new(NoCosigners);
        let receipts = peers.map(|number| log.receipts(number, &all, nothing.clone())).collect();
        let takes = Duration::from_millis(50);
        let others = Arc::new(Others { receipts, asked: AtomicU64::new(0), lies: false, takes });
        let receipts = log.receipts(0, &all, others.clone());
        block_on(async {
            let mut clients = tokio::task::JoinSet::new();
            for number in 0..40 {
                let (receipts, id) = (receipts.clone(), log.ids[number % 4]);
                clients.spawn(async move { receipts.receipt(id, 0).await.unwrap() });
            }
            for receipt in clients.join_all().await {
                let receipt = Receipt::parse(receipt.as_bytes()).unwrap();
                assert_eq!(receipt.verify(&log.genesis, None, verify).is_ok(), complete);
            }
        });
        // Those who were still looking for their message when the first asking ended may have needed one of their own.
        let asked = others.asked.load(Ordering::Relaxed);
        assert!(if complete { asked == 1 } else { asked <= 3 }, "{asked}");
    }
}

#[test]
fn who_waits_for_other_validators_keeps_nobody_from_reading_the_log() {
    let log = Log::new(&[2]);
    let all = Arc::new(AtomicU64::new(log.sizes[0]));
    let takes = Duration::from_secs(60);
    let others = Arc::new(Others { receipts: vec![], asked: AtomicU64::new(0), lies: false, takes });
    // There is one slot for reads.
    let receipts = log.receipts(0, &all, others.clone());
    block_on(async {
        let asking = tokio::spawn({
            let (receipts, id) = (receipts.clone(), log.ids[0]);
            async move { receipts.receipt(id, 0).await }
        });
        while others.asked.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let root = receipts.own.sealed(LaneId(0), log.sizes[0]).unwrap().checkpoint.root;
        let cosign = receipts.cosign(LaneId(0), log.sizes[0], root);
        assert!(tokio::time::timeout(Duration::from_secs(20), cosign).await.unwrap().is_ok());
        // Nor does it make others wait without end: who cannot ask in time gets what this node has.
        let late = receipts.receipt(log.ids[1], 0);
        let late = tokio::time::timeout(2 * COSIGN_WAIT, late).await.unwrap().unwrap();
        assert_eq!(Receipt::parse(late.as_bytes()).unwrap().checkpoint.lines.len(), 2);
        asking.abort();
    });
}

#[test]
fn clients_who_name_sizes_take_nothing_from_those_who_do_not() {
    let log = Log::new(&[2, 2]);
    let all = Arc::new(AtomicU64::new(log.sizes[1]));
    let nothing: Arc<dyn Cosigners> = Arc::new(NoCosigners);
    let peers = (1..4).map(|number| log.receipts(number, &all, nothing.clone())).collect();
    let takes = Duration::from_millis(300);
    let others = Arc::new(Others { receipts: peers, asked: AtomicU64::new(0), lies: false, takes });
    let receipts = log.receipts(0, &all, others.clone());
    block_on(async {
        let mut greedy = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (receipts, id, size) = (receipts.clone(), log.ids[0], log.sizes[0]);
            greedy.spawn(async move { receipts.receipt(id, size).await });
        }
        while others.asked.load(Ordering::Relaxed) < SIZES_ASKED_MAX as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let receipt = receipts.receipt(log.ids[0], 0).await.unwrap();
        assert!(Receipt::parse(receipt.as_bytes()).unwrap().verify(&log.genesis, None, verify).is_ok());
        // Of a hundred that take 0.3 s each, four at a time: far from all were asked about.
        assert!(others.asked.load(Ordering::Relaxed) < 50);
    });
}

#[test]
fn a_validator_cosigns_final_ends_of_batches_with_its_own_root_and_nothing_else() {
    let log = Log::new(&[3, 5]);
    let size = Arc::new(AtomicU64::new(log.sizes[0]));
    let receipts = log.receipts(2, &size, Arc::new(NoCosigners));
    let sealed = |size| receipts.own.sealed(LaneId(0), size).unwrap().checkpoint;
    let (first, second) = (sealed(log.sizes[0]), sealed(log.sizes[1]));
    let code = |lane, size, root| receipts.own.cosign(LaneId(lane), size, root).unwrap_err().code;
    assert_eq!(code(0, second.size, &second.root), ErrorCode::NotYet);
    assert_eq!(code(0, first.size, &second.root), ErrorCode::NotFound);
    assert_eq!(code(0, first.size - 1, &first.root), ErrorCode::NotFound);
    assert_eq!(code(1, first.size, &first.root), ErrorCode::NotFound);
    let cosignature = receipts.own.cosign(LaneId(0), first.size, &first.root).unwrap();
    let text = cosigned_text(cosignature.time_s, &first.text());
    assert_eq!(cosignature.validator, 2);
    assert!(verify(&log.genesis.committee[2].key, text.as_bytes(), &cosignature.signature));
    // A node without a vote signs nothing.
    let observer = log.receipts(9, &size, Arc::new(NoCosigners));
    let refusal = observer.own.cosign(LaneId(0), first.size, &first.root).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Unsupported);
}

#[test]
fn damaged_roots_give_no_false_proof_and_are_made_again() {
    let log = Log::new(&[600, 600]);
    let size = Arc::new(AtomicU64::new(log.sizes[1]));
    let receipts = log.receipts(0, &size, Arc::new(NoCosigners));
    let subtrees = receipts.own.lanes()[0].subtrees.clone();
    // Three roots that are none of this lane's.
    subtrees.extend(0, &[[7; 32]; 3]).unwrap();
    block_on(async {
        let refusal = receipts.receipt(log.ids[0], 0).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::NotYet);
        let receipt = receipts.receipt(log.ids[0], 0).await.unwrap();
        let receipt = Receipt::parse(receipt.as_bytes()).unwrap();
        let error = EndorseError::NoQuorum { got: 1, total: 4 };
        assert_eq!(receipt.verify(&log.genesis, None, verify), Err(VerifyError::Checkpoint(error)));
    });
    assert_eq!(subtrees.covered(), 1_024);
}

#[test]
fn where_the_log_is_damaged_roots_are_made_again_once_for_a_size_and_not_at_each_request() {
    let log = Log::new(&[600, 600]);
    let size = Arc::new(AtomicU64::new(log.sizes[1]));
    let receipts = log.receipts(0, &size, Arc::new(NoCosigners));
    let lane = &receipts.own.lanes()[0];
    let failing =
        || lane.prove(log.sizes[1], |_| Err(MerkleError::Range { got: 1, limit: 0 })).unwrap_err().code;
    assert_eq!(failing(), ErrorCode::NotYet);
    assert_eq!(lane.subtrees.covered(), 0, "made again from the log");
    for _ in 0..3 {
        assert_eq!(failing(), ErrorCode::Internal);
        assert_eq!(lane.subtrees.covered(), 1_024, "kept");
    }
}
