//! Signatures made by somebody who knows the verifier: honest ones, damaged ones, and the corners of the curve.
//!
//! Each case comes with its verdict under ZIP-215, known from how it was made and not from a verifier. Damage is
//! random, so "invalid" is meant up to probabilities near 2^-250.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;

use super::suites::{plus_p, small_order_encodings};
use super::{Case, Draw};
use crate::serial;
use crate::sign::ExpandedKey;

/// The order of the prime subgroup, L = 2^252 + 27742317777372353535851937790883648493, little-endian.
pub const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Message lengths in bytes, with the reason: 32 is an id; R, A and the message fill one SHA-512 block up to 47, two
/// up to 175.
const LENGTHS: [usize; 16] = [0, 1, 31, 32, 33, 46, 47, 48, 63, 64, 111, 112, 175, 176, 200, 1000];

/// What [`Adversary::case`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // The names say it, and `Adversary::make` shows it.
pub enum Kind {
    Honest,
    KeyBit,
    RBit,
    SBit,
    MessageBit,
    MessageLength,
    OthersKey,
    OthersMessage,
    OthersR,
    OthersS,
    HalvesSwapped,
    SPlusOrder,
    SNearOrder,
    SHighBits,
    SZero,
    SNegated,
    RNegated,
    KeyNegated,
    MixedKey,
    MixedR,
    MixedBoth,
    SmallKey,
    SmallR,
    SmallRReencoded,
    SmallBoth,
    NonCanonicalKey,
    NonCanonicalR,
    KeyNoPoint,
    RNoPoint,
    Garbage,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 30] = [
        Self::Honest,
        Self::KeyBit,
        Self::RBit,
        Self::SBit,
        Self::MessageBit,
        Self::MessageLength,
        Self::OthersKey,
        Self::OthersMessage,
        Self::OthersR,
        Self::OthersS,
        Self::HalvesSwapped,
        Self::SPlusOrder,
        Self::SNearOrder,
        Self::SHighBits,
        Self::SZero,
        Self::SNegated,
        Self::RNegated,
        Self::KeyNegated,
        Self::MixedKey,
        Self::MixedR,
        Self::MixedBoth,
        Self::SmallKey,
        Self::SmallR,
        Self::SmallRReencoded,
        Self::SmallBoth,
        Self::NonCanonicalKey,
        Self::NonCanonicalR,
        Self::KeyNoPoint,
        Self::RNoPoint,
        Self::Garbage,
    ];
}

/// A signer who knows every secret and every trick.
pub struct Adversary {
    draw: Draw,
    ids_only: bool,
    keys: Vec<ExpandedKey>,
    small: Vec<[u8; 32]>,
    non_canonical: Vec<[u8; 32]>,
}

impl Adversary {
    /// The adversary of `seed`. With `ids_only` every message has 32 bytes. It signs with one of `keys` (at least 2)
    /// keys, so that keys repeat within a batch.
    ///
    /// # Panics
    /// If `keys` is below 2.
    #[must_use]
    pub fn new(seed: u64, ids_only: bool, keys: usize) -> Self {
        assert!(keys >= 2, "swapping needs two keys");
        let mut draw = Draw::new(seed);
        Self {
            keys: (0..keys).map(|_| ExpandedKey::from_seed(&draw.bytes())).collect(),
            small: small_order_encodings(),
            non_canonical: non_canonical_encodings(),
            draw,
            ids_only,
        }
    }

    /// `count` honest cases.
    pub fn honest(&mut self, count: usize) -> Vec<Case> {
        (0..count).map(|_| self.make(Kind::Honest)).collect()
    }

    /// `count` cases, every second one honest, the others of any kind.
    pub fn mixture(&mut self, count: usize) -> Vec<Case> {
        (0..count)
            .map(|_| if self.draw.below(2) == 0 { self.make(Kind::Honest) } else { self.case() })
            .collect()
    }

    /// One case of a random kind.
    pub fn case(&mut self) -> Case {
        let kind = *self.draw.of(&Kind::ALL);
        self.make(kind)
    }

    /// One case of the given kind.
    pub fn make(&mut self, kind: Kind) -> Case {
        let mut case = self.signed();
        case.name = format!("{kind:?}");
        case.valid = match kind {
            Kind::Honest => true,
            Kind::KeyBit => {
                flip(&mut case.key, self.draw.below(256));
                false
            }
            Kind::RBit => {
                flip(&mut case.signature, self.draw.below(256));
                false
            }
            Kind::SBit => {
                flip(&mut case.signature, 256 + self.draw.below(256));
                false
            }
            Kind::MessageBit => {
                if case.message.is_empty() {
                    case.message.push(0);
                } else {
                    let bit = self.draw.below(case.message.len() * 8);
                    flip(&mut case.message, bit);
                }
                false
            }
            Kind::MessageLength => {
                if self.ids_only {
                    case.message.rotate_left(1);
                } else if self.draw.below(2) == 0 || case.message.is_empty() {
                    case.message.push(0);
                } else {
                    case.message.pop();
                }
                false
            }
            Kind::OthersKey => {
                let other = self.signed_by_other(&case.key);
                case.key = other.key;
                false
            }
            Kind::OthersMessage => {
                let mut other = self.signed();
                while other.message == case.message {
                    other = self.signed();
                }
                case.message = other.message;
                false
            }
            Kind::OthersR => {
                let other = self.signed_by_other(&case.key);
                case.signature[..32].copy_from_slice(&other.signature[..32]);
                false
            }
            Kind::OthersS => {
                let other = self.signed_by_other(&case.key);
                case.signature[32..].copy_from_slice(&other.signature[32..]);
                false
            }
            Kind::HalvesSwapped => {
                case.signature.rotate_left(32);
                false
            }
            // The same s mod L, and the malleability that the rule s < L is there to stop.
            Kind::SPlusOrder => {
                let times = 1 + self.draw.below(7);
                for _ in 0..times {
                    add_order(&mut case.signature);
                }
                false
            }
            Kind::SNearOrder => {
                let mut s = ORDER;
                let offset = self.draw.below(5) as u8;
                s[0] = s[0] - 2 + offset;
                case.signature[32..].copy_from_slice(&s);
                false
            }
            Kind::SHighBits => {
                case.signature[63] |= 0x20 << self.draw.below(3);
                false
            }
            Kind::SZero => {
                case.signature[32..].fill(0);
                false
            }
            Kind::SNegated => {
                let s = scalar(&case.signature);
                case.signature[32..].copy_from_slice((-s).as_bytes());
                false
            }
            Kind::RNegated => {
                case.signature[31] ^= 0x80;
                false
            }
            Kind::KeyNegated => {
                case.key[31] ^= 0x80;
                false
            }
            // Signed as anybody could sign for a key that he adds a small-order point to: the cofactor hides it.
            Kind::MixedKey => {
                let torsion = self.torsion();
                self.sign_shifted(&mut case, torsion, EIGHT_TORSION[0]);
                true
            }
            Kind::MixedR => {
                let torsion = self.torsion();
                self.sign_shifted(&mut case, EIGHT_TORSION[0], torsion);
                true
            }
            Kind::MixedBoth => {
                let (key, r) = (self.torsion(), self.torsion());
                self.sign_shifted(&mut case, key, r);
                true
            }
            // A of small order: kA vanishes under the cofactor, so R = sB is all it takes.
            Kind::SmallKey => {
                let s = self.scalar();
                case.key = *self.draw.of(&self.small);
                let r = EdwardsPoint::mul_base(&s) + self.torsion();
                case.signature = join(&r.compress().to_bytes(), &s);
                true
            }
            // R of small order, in any encoding: s = ka.
            Kind::SmallR => {
                let r = *self.draw.of(&self.small);
                case.signature = self.sign_with_r(&case, &r, &r);
                true
            }
            // The same, but k over the canonical encoding of R: what a verifier that re-encodes would hash.
            Kind::SmallRReencoded => {
                let odd: Vec<_> = self.small.iter().filter(|bytes| canonical(bytes) != **bytes).collect();
                let r = **self.draw.of(&odd);
                case.signature = self.sign_with_r(&case, &r, &canonical(&r));
                false
            }
            Kind::SmallBoth => {
                case.key = *self.draw.of(&self.small);
                let r = *self.draw.of(&self.small);
                case.signature = join(&r, &Scalar::ZERO);
                true
            }
            // Points of large order that have a second encoding exist, but nobody knows their discrete logarithm.
            Kind::NonCanonicalKey => {
                case.key = *self.draw.of(&self.non_canonical);
                false
            }
            Kind::NonCanonicalR => {
                let r = *self.draw.of(&self.non_canonical);
                case.signature[..32].copy_from_slice(&r);
                false
            }
            Kind::KeyNoPoint => {
                case.key = self.no_point();
                false
            }
            Kind::RNoPoint => {
                let r = self.no_point();
                case.signature[..32].copy_from_slice(&r);
                false
            }
            Kind::Garbage => {
                case.key = self.draw.bytes();
                case.signature = self.draw.bytes();
                false
            }
        };
        case
    }

    fn signed(&mut self) -> Case {
        let length = if self.ids_only { 32 } else { *self.draw.of(&LENGTHS) };
        let message = self.draw.vec(length);
        let key = self.draw.of(&self.keys);
        let signature = key.sign(&message);
        Case { name: String::new(), key: *key.public(), message, signature, valid: true }
    }

    fn signed_by_other(&mut self, key: &[u8; 32]) -> Case {
        loop {
            let other = self.signed();
            if other.key != *key {
                return other;
            }
        }
    }

    fn expanded(&self, key: &[u8; 32]) -> &ExpandedKey {
        self.keys.iter().find(|expanded| expanded.public() == key).expect("a key of this adversary")
    }

    fn scalar(&mut self) -> Scalar {
        Scalar::from_bytes_mod_order_wide(&self.draw.bytes())
    }

    /// A small-order point that is not the neutral element.
    fn torsion(&mut self) -> EdwardsPoint {
        EIGHT_TORSION[1 + self.draw.below(7)]
    }

    /// Signs again with points added to A and R.
    fn sign_shifted(&mut self, case: &mut Case, to_key: EdwardsPoint, to_r: EdwardsPoint) {
        let nonce = self.scalar();
        let secret = self.expanded(&case.key).scalar;
        case.key = (EdwardsPoint::mul_base(&secret) + to_key).compress().to_bytes();
        let r = (EdwardsPoint::mul_base(&nonce) + to_r).compress().to_bytes();
        let k = serial::challenge(&r, &case.key, &case.message);
        case.signature = join(&r, &(nonce + k * secret));
    }

    /// Signs with a small-order R (nonce 0), hashing `hashed_r` in its place.
    fn sign_with_r(&self, case: &Case, r: &[u8; 32], hashed_r: &[u8; 32]) -> [u8; 64] {
        let k = serial::challenge(hashed_r, &case.key, &case.message);
        join(r, &(k * self.expanded(&case.key).scalar))
    }

    fn no_point(&mut self) -> [u8; 32] {
        loop {
            let bytes = self.draw.bytes();
            if CompressedEdwardsY(bytes).decompress().is_none() {
                return bytes;
            }
        }
    }
}

/// Encodings with y of p or more that belong to points of large order, both signs.
fn non_canonical_encodings() -> Vec<[u8; 32]> {
    let mut found = Vec::new();
    for y in 2..19 {
        let mut bytes = [0; 32];
        bytes[0] = y;
        let mut bytes = plus_p(&bytes).expect("y is below 19");
        if CompressedEdwardsY(bytes).decompress().is_some() {
            found.push(bytes);
            bytes[31] |= 0x80;
            found.push(bytes);
        }
    }
    found
}

fn canonical(bytes: &[u8; 32]) -> [u8; 32] {
    CompressedEdwardsY(*bytes).decompress().expect("a point").compress().to_bytes()
}

fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

fn scalar(signature: &[u8; 64]) -> Scalar {
    serial::decode_scalar(serial::halves(signature).1).expect("an honest s is canonical")
}

fn join(r: &[u8; 32], s: &Scalar) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(r);
    signature[32..].copy_from_slice(s.as_bytes());
    signature
}

/// s + L; 8L is below 2^256, so it may be done seven times.
fn add_order(signature: &mut [u8; 64]) {
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
}
