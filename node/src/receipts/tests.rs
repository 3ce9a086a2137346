//! A committee of four over one log: what a quorum takes, who is asked, and what is not signed.

use std::sync::atomic::{AtomicU64, Ordering};

use weft_core::arena::VerifiedMessage;
use weft_core::endorse::EndorseError;
use weft_core::genesis::Validator;
use weft_core::lane::build::BatchBuilder;
use weft_core::receipt::VerifyError;
use weft_core::{DeviceSigner, Draft, LaneTree, MessageView, PayloadKind};
use weft_net::ErrorCode;
use weft_storage::{LaneLog, LogConfig, SimDisk};

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
        let config = LogConfig { segment_bytes: 1 << 20, free_bytes_min: 0, background: false };
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
        Arc::new(Receipts::new(self.genesis.clone(), key, vec![proofs], final_size, peers).unwrap())
    }
}

/// Other validators in this process.
#[derive(Debug)]
struct Others {
    receipts: Vec<Arc<Receipts>>,
    asked: AtomicU64,
    /// Flips a bit of every signature.
    lies: bool,
}

impl Cosigners for Others {
    fn cosign(&self, checkpoint: Checkpoint) -> Pin<Box<dyn Future<Output = Vec<Cosignature>> + Send + '_>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answers = self.receipts.iter().filter_map(move |receipts| {
            let mut answer = receipts.cosign(checkpoint.lane, checkpoint.size, &checkpoint.root).ok()?;
            answer.signature[0] ^= u8::from(self.lies);
            Some(answer)
        });
        Box::pin(std::future::ready(answers.collect()))
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

#[test]
fn a_node_of_four_asks_its_peers_and_one_set_of_their_signatures_serves_all_receipts_below() {
    let log = Log::new(&[3, 5, 7]);
    let nothing: Arc<dyn Cosigners> = Arc::new(NoCosigners);
    let (mine, theirs) = (Arc::new(AtomicU64::new(log.sizes[1])), Arc::new(AtomicU64::new(log.sizes[2])));
    let receipts: Vec<_> = (1..4).map(|number| log.receipts(number, &theirs, nothing.clone())).collect();
    let others = Arc::new(Others { receipts, asked: AtomicU64::new(0), lies: false });
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
        let others = Arc::new(Others { receipts: receipts.collect(), asked: AtomicU64::new(0), lies });
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
fn a_validator_cosigns_final_ends_of_batches_with_its_own_root_and_nothing_else() {
    let log = Log::new(&[3, 5]);
    let size = Arc::new(AtomicU64::new(log.sizes[0]));
    let receipts = log.receipts(2, &size, Arc::new(NoCosigners));
    let sealed = |size| receipts.lanes[0].sealed(receipts.network, size).unwrap().unwrap().checkpoint;
    let (first, second) = (sealed(log.sizes[0]), sealed(log.sizes[1]));
    let code = |lane, size, root| receipts.cosign(LaneId(lane), size, root).unwrap_err().code;
    assert_eq!(code(0, second.size, &second.root), ErrorCode::NotYet);
    assert_eq!(code(0, first.size, &second.root), ErrorCode::NotFound);
    assert_eq!(code(0, first.size - 1, &first.root), ErrorCode::NotFound);
    assert_eq!(code(1, first.size, &first.root), ErrorCode::NotFound);
    let cosignature = receipts.cosign(LaneId(0), first.size, &first.root).unwrap();
    let text = cosigned_text(cosignature.time_s, &first.text());
    assert_eq!(cosignature.validator, 2);
    assert!(verify(&log.genesis.committee[2].key, text.as_bytes(), &cosignature.signature));
    // A node without a vote signs nothing.
    let observer = log.receipts(9, &size, Arc::new(NoCosigners));
    let refusal = observer.cosign(LaneId(0), first.size, &first.root).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Unsupported);
}

#[test]
fn damaged_roots_give_no_false_proof_and_are_made_again() {
    let log = Log::new(&[600, 600]);
    let size = Arc::new(AtomicU64::new(log.sizes[1]));
    let receipts = log.receipts(0, &size, Arc::new(NoCosigners));
    let subtrees = receipts.lanes[0].subtrees.clone();
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
    let lane = &receipts.lanes[0];
    let failing =
        || lane.prove(log.sizes[1], |_| Err(MerkleError::Range { got: 1, limit: 0 })).unwrap_err().code;
    assert_eq!(failing(), ErrorCode::NotYet);
    assert_eq!(lane.subtrees.covered(), 0, "made again from the log");
    for _ in 0..3 {
        assert_eq!(failing(), ErrorCode::Internal);
        assert_eq!(lane.subtrees.covered(), 1_024, "kept");
    }
}
