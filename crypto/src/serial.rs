//! The reference: one signature, one equation, one page. Every other path of this crate must give its verdicts.
//!
//! The rules are ZIP-215's (<https://zips.z.cash/zip-0215>), a consensus-safe reading of RFC 8032 section 5.1.7:
//!
//! 1. A (the key) and R (the first half of the signature) must decode to points of edwards25519. Every encoding is
//!    taken: a y of 2^255 - 19 or more stands for y mod p, and x = 0 with the sign bit set stands for x = 0.
//! 2. s (the second half, little-endian) must be below L, the order of the prime subgroup.
//! 3. k = SHA-512(R || A || message) mod L, over the bytes as received, not re-encoded.
//! 4. `[8]([s]B - [k]A - R)` must be the neutral element: with the cofactor, so that a batch and a single check
//!    cannot disagree about points with a small-order component.
//!
//! Rule 1 leans on `CompressedEdwardsY::decompress`, which masks the top bit, reduces y and negates x without
//! looking whether it is zero. The tests hold it to that, since an update of the library could change it.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use sha2::{Digest, Sha512};

/// A public key that decoded to a point, kept in the form in which the equation uses it: -A. 160 bytes.
#[derive(Clone, Copy, Debug)]
pub struct DecodedKey {
    negated: EdwardsPoint,
}

impl DecodedKey {
    /// Decodes a compressed key; `None` if its y belongs to no point of the curve.
    #[must_use]
    pub fn decode(key: &[u8; 32]) -> Option<Self> {
        decode_point(key).map(|point| Self { negated: -point })
    }

    /// The point -A.
    pub(crate) fn negated(&self) -> &EdwardsPoint {
        &self.negated
    }
}

/// Whether `signature` of `message` by `key` is valid under ZIP-215. Never panics, takes time that depends on the
/// (public) input.
#[must_use]
pub fn verify_one(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    match DecodedKey::decode(key) {
        Some(decoded) => verify_decoded(&decoded, key, message, signature),
        None => false,
    }
}

/// [`verify_one`] with a key decoded before. `decoded` must come from `key`; the bytes are still needed, because the
/// hash is over the key as the signer encoded it.
#[must_use]
pub fn verify_decoded(decoded: &DecodedKey, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let (r_bytes, s_bytes) = halves(signature);
    let Some(r) = decode_point(r_bytes) else { return false };
    let Some(s) = decode_scalar(s_bytes) else { return false };
    let k = challenge(r_bytes, key, message);
    equation_holds(decoded, &k, &s, &-r)
}

/// [`verify_decoded`], quicker for the signatures that honest signers make: they encode R = [s]B - [k]A itself, so if the
/// canonical encoding of that sum is what the signature holds, the equation is true without the 8, and R need not be
/// decoded. Everything else goes to the reference.
pub(crate) fn verify_quickly(
    decoded: &DecodedKey,
    key: &[u8; 32],
    message: &[u8],
    signature: &[u8; 64],
) -> bool {
    let (r_bytes, s_bytes) = halves(signature);
    let Some(s) = decode_scalar(s_bytes) else { return false };
    let k = challenge(r_bytes, key, message);
    let sum = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &decoded.negated, &s);
    sum.compress().as_bytes() == r_bytes || decode_point(r_bytes).is_some_and(|r| torsion_only(&(sum - r)))
}

fn torsion_only(difference: &EdwardsPoint) -> bool {
    difference.mul_by_cofactor().is_identity()
}

/// `[8]([s]B + [k](-A) + (-R)) = 0`: the last step, shared with the batch verifier's check of single rows.
pub(crate) fn equation_holds(key: &DecodedKey, k: &Scalar, s: &Scalar, r_negated: &EdwardsPoint) -> bool {
    let difference = EdwardsPoint::vartime_double_scalar_mul_basepoint(k, &key.negated, s) + r_negated;
    torsion_only(&difference)
}

/// R and s as they lie in a signature.
pub(crate) fn halves(signature: &[u8; 64]) -> (&[u8; 32], &[u8; 32]) {
    let halves = signature.as_chunks::<32>().0;
    (&halves[0], &halves[1])
}

/// Rule 1.
pub(crate) fn decode_point(bytes: &[u8; 32]) -> Option<EdwardsPoint> {
    CompressedEdwardsY(*bytes).decompress()
}

/// Rule 2.
pub(crate) fn decode_scalar(bytes: &[u8; 32]) -> Option<Scalar> {
    Scalar::from_canonical_bytes(*bytes).into()
}

/// Rule 3.
pub(crate) fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::adversary::ORDER;
    use crate::testing::suites::small_order_encodings;
    use crate::testing::{Draw, unhex_array};

    #[test]
    fn y_of_p_or_more_decodes_as_y_mod_p() {
        let mut seen = 0;
        for y in 0..19_u8 {
            for sign in [0, 0x80] {
                let mut canonical = [0; 32];
                (canonical[0], canonical[31]) = (y, sign);
                let mut shifted = [0xff; 32];
                (shifted[0], shifted[31]) = (0xed + y, 0x7f | sign);
                assert_eq!(decode_point(&shifted), decode_point(&canonical), "y = p + {y}, sign {sign:#x}");
                seen += usize::from(decode_point(&shifted).is_some());
            }
        }
        assert!(seen >= 10, "only {seen} of the encodings are points");
    }

    #[test]
    fn x_zero_with_the_sign_bit_decodes_as_x_zero() {
        for y in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            let plain: [u8; 32] = unhex_array(y);
            let mut signed = plain;
            signed[31] |= 0x80;
            assert_eq!(decode_point(&signed).unwrap(), decode_point(&plain).unwrap());
        }
    }

    #[test]
    fn about_half_of_all_byte_strings_are_points() {
        let mut draw = Draw::new(1);
        let points = (0..400).filter(|_| decode_point(&draw.bytes()).is_some()).count();
        assert!((140..260).contains(&points), "{points} of 400");
    }

    #[test]
    fn s_is_accepted_below_the_order_only() {
        let mut below = ORDER;
        below[0] -= 1;
        assert_eq!(decode_scalar(&below), Some(-Scalar::ONE));
        assert_eq!(decode_scalar(&ORDER), None);
        let mut above = ORDER;
        above[0] += 1;
        assert_eq!(decode_scalar(&above), None);
        assert_eq!(decode_scalar(&[0xff; 32]), None);
        assert_eq!(decode_scalar(&[0; 32]), Some(Scalar::ZERO));
    }

    #[test]
    fn a_decoded_key_gives_the_verdicts_of_its_bytes() {
        for key in small_order_encodings() {
            let decoded = DecodedKey::decode(&key).unwrap();
            let mut signature = [0; 64];
            signature[0] = 1;
            assert!(verify_decoded(&decoded, &key, b"any", &signature));
            signature[32] = 1;
            assert!(!verify_decoded(&decoded, &key, b"any", &signature));
            assert!(!verify_one(&key, b"any", &signature));
        }
    }
}
