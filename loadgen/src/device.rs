//! The emulated devices: a key for every number, derived when it is needed.
//!
//! Owns key derivation and the bounded cache of derived keys. A device is (population seed, number); nothing about it is stored, and any
//! of 2^64 numbers is a device. Invariant: the same seed and number give the same key on every machine, so an auditor can tell whose
//! message it reads. The keys of a population are no secret to anybody who knows the 64-bit seed: they are for emulated devices only.
//!
//! | step | value |
//! |---|---|
//! | input | population seed u64, device number u64, little-endian: 16 bytes |
//! | secret seed | BLAKE3 derive_key("weft 2026-11 loadgen device v1", input): 32 bytes |
//! | key | Ed25519 key of the secret seed (RFC 8032, section 5.1.5) |

use std::sync::Arc;

use weft_core::DeviceKey;
use weft_crypto::Messages;
use weft_crypto::sign::{BatchSigner, ExpandedKey};
use weft_crypto::simd::{Context, Hashes};

/// BLAKE3 context of the derivation.
pub const KEY_CONTEXT: &str = "weft 2026-11 loadgen device v1";

/// Keys that one cache keeps, by default: 7 MiB. Deriving a key costs a multiplication of the base point, as much as a signature: a population
/// that fits is signed for twice as fast as one that does not.
pub const KEY_CACHE_SLOTS_DEFAULT: usize = 65_536;

/// Secret seed of device `number` in the population `seed`.
#[must_use]
pub fn device_seed(seed: u64, number: u64) -> [u8; 32] {
    blake3::derive_key(KEY_CONTEXT, &input(seed, number))
}

fn input(seed: u64, number: u64) -> [u8; 16] {
    let mut input = [0; 16];
    input[..8].copy_from_slice(&seed.to_le_bytes());
    input[8..].copy_from_slice(&number.to_le_bytes());
    input
}

/// Hashes on the instruction set that `signer` uses.
pub(crate) fn hashes_for(signer: &dyn BatchSigner) -> Hashes {
    Hashes::named(signer.name()).unwrap_or_else(Hashes::detect)
}

/// Where the key of a row lies.
#[derive(Clone, Copy, Debug)]
enum Row {
    /// In this slot of the cache.
    Slot(usize),
    /// Among the keys that were derived for the current batch.
    Fresh(usize),
}

/// Keys of one population for one thread: a batch at a time, with a bounded cache behind.
///
/// The cache is direct-mapped by device number, so a population no larger than the cache never loses a key, and one that is larger costs
/// a derivation for about every message whose device was not among the last `slots` to fall on its slot.
pub struct DeviceKeys {
    seed: u64,
    signer: Arc<dyn BatchSigner>,
    hashes: Hashes,
    context: Context,
    slots: Vec<Option<(u64, ExpandedKey)>>,
    /// Devices of the current batch that were not in the cache, and their keys. They move into it when the next batch is loaded: until
    /// then the keys that they replace may be in use.
    fresh_numbers: Vec<u64>,
    fresh_seeds: Vec<[u8; 32]>,
    fresh: Vec<ExpandedKey>,
    rows: Vec<Row>,
    derived_total: u64,
}

impl std::fmt::Debug for DeviceKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceKeys")
            .field("seed", &self.seed)
            .field("signer", &self.signer.name())
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl DeviceKeys {
    /// Keys of the population `seed`, derived and used by `signer`, with a cache of `slots` keys (at least 1).
    #[must_use]
    pub fn new(seed: u64, slots: usize, signer: Arc<dyn BatchSigner>) -> Self {
        Self {
            seed,
            hashes: hashes_for(&*signer),
            context: Context::new(KEY_CONTEXT),
            signer,
            slots: vec![None; slots.max(1)],
            fresh_numbers: Vec::new(),
            fresh_seeds: Vec::new(),
            fresh: Vec::new(),
            rows: Vec::new(),
            derived_total: 0,
        }
    }

    /// Makes the keys of these devices ready: row `i` of the batch is the `i`-th of them. Those not in the cache are derived together.
    pub fn load(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let slots = self.slots.len();
        for (number, key) in self.fresh_numbers.drain(..).zip(self.fresh.drain(..)) {
            self.slots[(number % slots as u64) as usize] = Some((number, key));
        }
        self.rows.clear();
        for number in numbers {
            let slot = (number % slots as u64) as usize;
            self.rows.push(match &self.slots[slot] {
                Some((kept, _)) if *kept == number => Row::Slot(slot),
                _ => {
                    self.fresh_numbers.push(number);
                    Row::Fresh(self.fresh_numbers.len() - 1)
                }
            });
        }
        let inputs: Vec<[u8; 16]> =
            self.fresh_numbers.iter().map(|number| input(self.seed, *number)).collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(<[u8; 16]>::as_slice).collect();
        self.fresh_seeds.clear();
        self.fresh_seeds.resize(inputs.len(), [0; 32]);
        self.hashes.derive(&self.context, &inputs, &mut self.fresh_seeds);
        self.signer.expand(&self.fresh_seeds, &mut self.fresh);
        self.derived_total += self.fresh.len() as u64;
    }

    fn key(&self, row: usize) -> &ExpandedKey {
        match self.rows[row] {
            Row::Fresh(index) => &self.fresh[index],
            Row::Slot(slot) => match &self.slots[slot] {
                Some((_, key)) => key,
                None => unreachable!("a slot that a row names was filled when the row was made"),
            },
        }
    }

    /// Public key of a row.
    ///
    /// # Panics
    /// If the batch loaded has no such row.
    #[must_use]
    pub fn public(&self, row: usize) -> DeviceKey {
        DeviceKey(*self.key(row).public())
    }

    /// Signs `ids[i]` with the key of row `i`; `signatures` is replaced.
    ///
    /// # Panics
    /// If there are more ids than rows.
    pub fn sign(&self, ids: &[[u8; 32]], signatures: &mut Vec<[u8; 64]>) {
        let keys: Vec<&ExpandedKey> = (0..ids.len()).map(|row| self.key(row)).collect();
        signatures.clear();
        signatures.resize(ids.len(), [0; 64]);
        self.signer.sign(&keys, &Messages::Ids(ids), signatures);
    }

    /// Keys derived since this was made: the misses of the cache.
    #[must_use]
    pub const fn derived_total(&self) -> u64 {
        self.derived_total
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, SigningKey, Verifier};
    use weft_crypto::sign::SerialSigner;

    use super::*;

    fn keys(slots: usize) -> DeviceKeys {
        DeviceKeys::new(7, slots, Arc::new(SerialSigner))
    }

    /// Frozen: a change here would make the devices of every earlier report other devices. Computed once with the `blake3` and
    /// `cryptography` packages of Python.
    #[test]
    fn device_keys_are_the_documented_derivation() {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        for (seed, number, secret, public) in VECTORS {
            assert_eq!(hex(&device_seed(seed, number)), secret);
            let mut keys = DeviceKeys::new(seed, 4, Arc::new(SerialSigner));
            keys.load([number]);
            assert_eq!(hex(&keys.public(0).0), public);
        }
    }

    const VECTORS: [(u64, u64, &str, &str); 3] = [
        (
            0,
            0,
            "37418ddaf9c05b7e6d20d341c92a134e18e5076b6b552321594b447c441c1e07",
            "d4c99e3bbd43a8483c2c978ebe77d1b9f513436a49d4e6a61b576adb0ad8e24f",
        ),
        (
            1,
            19_999_999_999,
            "e5f97445549c1a8371497e0b5380e0e22c642f681aedb14bfd62eac4b017c4b8",
            "b7b2a51607cfe81163d9146e6f1bc7efd7fb2251248128408b59b747c9ca0135",
        ),
        (
            u64::MAX,
            u64::MAX,
            "620775bef2ade0f12cb013e188c25bec9752575e890d5960370204ec5388b813",
            "030a830bb8a3fd070cca0a5661e1e5326b8d16259672cc81e9ef2964cde8694c",
        ),
    ];

    #[test]
    fn rows_are_signed_by_their_devices_whether_cached_derived_or_in_conflict() {
        // 4 slots: 1, 5 and 9 fall on one, and a batch may hold all of them, and one of them twice.
        let mut keys = keys(4);
        for batch in [vec![1, 2, 3], vec![1, 5, 9, 5, 1], vec![9, 1, 2], vec![], vec![2, 2, 1 << 40]] {
            keys.load(batch.iter().copied());
            let ids: Vec<[u8; 32]> = batch.iter().map(|number| [*number as u8; 32]).collect();
            let mut signatures = vec![[1; 64]; 9];
            keys.sign(&ids, &mut signatures);
            assert_eq!(signatures.len(), batch.len());
            for (row, number) in batch.iter().enumerate() {
                let expected = SigningKey::from_bytes(&device_seed(7, *number)).verifying_key();
                assert_eq!(keys.public(row).0, expected.to_bytes());
                expected.verify(&ids[row], &Signature::from_bytes(&signatures[row])).unwrap();
            }
        }
    }

    #[test]
    fn a_population_that_fits_is_derived_once_and_one_that_does_not_again_and_again() {
        let mut fits = keys(64);
        let mut too_many = keys(8);
        for _ in 0..3 {
            (0..64).for_each(|number| fits.load([number]));
            (0..64).for_each(|number| too_many.load([number]));
        }
        assert_eq!((fits.derived_total(), too_many.derived_total()), (64, 192));
        assert!(too_many.slots.len() == 8 && too_many.fresh.len() <= 1, "memory is bounded");
    }
}
