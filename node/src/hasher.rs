//! The node's hashes, many at once: `weft-crypto`'s lanes behind `weft-core`'s seam.
//!
//! Owns the choice, once for the process: the widest lanes of this CPU. Invariant: what is chosen gives the hashes of
//! the serial twin, so nothing but time depends on it.

use std::sync::LazyLock;

use weft_core::hash::Domain;
use weft_core::merkle::Hash;
use weft_core::{BatchHasher, MessageId};
use weft_crypto::simd::{Context, Hashes};

/// Hashes in vector lanes, or one by one where there are none.
#[derive(Clone, Copy)]
pub struct VectorHasher {
    hashes: Hashes,
    context: Context,
}

impl VectorHasher {
    fn new(hashes: Hashes) -> Self {
        Self { hashes, context: Context::new(Domain::MESSAGE.context()) }
    }
}

impl std::fmt::Debug for VectorHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VectorHasher").field("hashes", &self.hashes.name()).finish_non_exhaustive()
    }
}

impl BatchHasher for VectorHasher {
    fn ids(&self, contents: &[&[u8]], out: &mut [MessageId]) {
        self.hashes.derive(&self.context, contents, MessageId::hashes_mut(out));
    }

    fn leaves(&self, data: &[Hash], out: &mut [Hash]) {
        self.hashes.leaves(data, out);
    }

    fn nodes(&self, children: &[[Hash; 2]], out: &mut [Hash]) {
        self.hashes.nodes(children, out);
    }
}

/// The fastest hasher of this CPU.
pub fn fastest() -> &'static dyn BatchHasher {
    static FASTEST: LazyLock<VectorHasher> = LazyLock::new(|| VectorHasher::new(Hashes::detect()));
    &*FASTEST
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "helpers of tests")]
mod tests {
    use weft_core::lane::build::BatchBuilder;
    use weft_core::{
        BatchView, DeviceSigner, Draft, GenesisId, LaneId, LaneTree, MessageView, NetworkId, OneByOne,
        PayloadKind, Place, VerifiedMessage,
    };

    use super::*;

    const NETWORK: NetworkId = NetworkId([7; 4]);

    /// Every backend of this CPU, and what is chosen.
    fn subjects() -> Vec<VectorHasher> {
        let named = weft_crypto::simd::NAMES.iter().copied().chain(["serial"]).filter_map(Hashes::named);
        let subjects: Vec<VectorHasher> = named.chain([Hashes::detect()]).map(VectorHasher::new).collect();
        assert!(subjects.len() >= 2);
        subjects
    }

    fn messages() -> Vec<Vec<u8>> {
        let signer = DeviceSigner::from_seed([1; 32]);
        let message = |sequence: u64| {
            let draft = Draft {
                network: NETWORK,
                issued_at_us: 1_800_000_000_000_000,
                sequence,
                parents: GenesisId([7; 32]).roots(),
                kind: PayloadKind::DATA,
                payload: &vec![3; sequence as usize % 90],
            };
            draft.sign(&signer).unwrap()
        };
        (0..1_100).map(message).collect()
    }

    /// Batches of so many messages, sealed with `hasher`: their bytes, checkpoints in them, and the roots of subtrees.
    fn sealed(messages: &[Vec<u8>], counts: &[usize], hasher: &dyn BatchHasher) -> Vec<(Vec<u8>, Vec<Hash>)> {
        let mut tree = LaneTree::new();
        let mut rest = messages.iter();
        let seal = |count: &usize| {
            let mut builder = BatchBuilder::new(4_096, 1 << 20);
            for bytes in rest.by_ref().take(*count) {
                let message = VerifiedMessage::vouch(MessageView::parse(bytes).unwrap());
                builder.push([Place::root(0), Place::root(1)], &message).unwrap();
            }
            // In the place of a signature: what was to be signed.
            let sign = |text: &[u8]| {
                let hash = Domain::OPERATION.hash(text);
                std::array::from_fn(|i| hash[i % 32])
            };
            let batch = builder.seal_by(hasher, &mut tree, NETWORK, LaneId(0), sign).unwrap();
            (batch.bytes().to_vec(), batch.subtrees().to_vec())
        };
        counts.iter().map(seal).collect()
    }

    #[test]
    fn batches_sealed_and_read_in_lanes_are_those_of_the_serial_twin() {
        let messages = messages();
        let splits: [&[usize]; 4] =
            [&[1, 1, 2, 4, 7, 8, 9], &[15, 16, 17, 31, 32, 33], &[255, 256, 257], &[511, 512, 33]];
        for hasher in subjects() {
            for counts in splits {
                let ours = sealed(&messages, counts, &hasher);
                assert!(ours == sealed(&messages, counts, &OneByOne), "{hasher:?} {counts:?}");
                let mut tree = LaneTree::new();
                let mut twin = LaneTree::new();
                for (bytes, _) in &ours {
                    let view = BatchView::parse(bytes).unwrap();
                    let ids = view.ids_by(&hasher);
                    assert_eq!(ids, view.ids().collect::<Vec<_>>(), "{hasher:?}");
                    tree = view.check_root_of(&tree, &ids, &hasher).unwrap();
                    twin = view.check_root(&twin).unwrap();
                    assert_eq!(tree, twin, "{hasher:?} {counts:?}");
                }
            }
        }
    }
}
