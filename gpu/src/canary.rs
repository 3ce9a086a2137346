//! Signatures with known verdicts: the start-up self-test and the canaries in every batch.
//!
//! Good ones take both ways to acceptance: an honest signature ends in `finish`, one whose points have small order only
//! in `exact`. Bad ones fail in each of the ways there are: wrong R, wrong s, wrong id, s not below l, R or A no point.
//! All are made at start from fixed seeds and their verdicts checked by the serial reference, so that the table below
//! cannot be wrong in silence.

use weft_crypto::{Columns, Messages, serial, sign::ExpandedKey};

/// Canaries before the batch, and as many after it.
pub(crate) const CANARIES_EACH_SIDE: usize = 4;
/// Rows of a guarded batch that are canaries.
pub(crate) const CANARIES: usize = 2 * CANARIES_EACH_SIDE;

/// Rows with known verdicts.
pub(crate) struct Known {
    keys: Vec<[u8; 32]>,
    ids: Vec<[u8; 32]>,
    signatures: Vec<[u8; 64]>,
    /// What each row must come back as.
    pub(crate) valid: Vec<bool>,
}

/// A y that belongs to no point.
const NO_POINT: [u8; 32] = {
    let mut y = [0; 32];
    y[0] = 2;
    y
};
/// The point of order 4 with y = 0.
const ORDER_4: [u8; 32] = [0; 32];
/// The neutral element, y = 1.
const NEUTRAL: [u8; 32] = {
    let mut y = [0; 32];
    y[0] = 1;
    y
};
/// y = p + 1: the neutral element, encoded in a way that no encoder would choose.
const NEUTRAL_UNREDUCED: [u8; 32] = {
    let mut y = [0xff; 32];
    y[0] = 0xee;
    y[31] = 0x7f;
    y
};

impl Known {
    /// `rows` rows that go through all kinds in turn, good and bad by turns. `rows` small enough to be made at start.
    pub(crate) fn new(rows: usize) -> Self {
        let mut known =
            Known { keys: Vec::new(), ids: Vec::new(), signatures: Vec::new(), valid: Vec::new() };
        for row in 0..rows {
            let mut seed = [0x77; 32];
            // Another key every four rows: those after a batch are not those before it.
            seed[..8].copy_from_slice(&(row as u64 / 4).to_le_bytes());
            let signer = ExpandedKey::from_seed(&seed);
            let mut key = *signer.public();
            let mut id = [0x5a; 32];
            id[..8].copy_from_slice(&(row as u64).to_le_bytes());
            let mut signature = signer.sign(&id);
            match row % 16 {
                1 => signature[9] ^= 0x10,
                3 => signature[40] ^= 1,
                4 => (key, signature) = (ORDER_4, small_order(&NEUTRAL)),
                5 => id[31] ^= 0x80,
                7 => add_order(&mut signature),
                9 => signature[..32].copy_from_slice(&NO_POINT),
                10 => (key, signature) = (NEUTRAL_UNREDUCED, small_order(&ORDER_4)),
                11 => key = NO_POINT,
                13 => signature[63] |= 0x80,
                15 => signature[32..].copy_from_slice(&[0xff; 32]),
                _ => {}
            }
            known.valid.push(serial::verify_one(&key, &id, &signature));
            known.keys.push(key);
            known.ids.push(id);
            known.signatures.push(signature);
        }
        known
    }

    /// Canaries for a batch of equations: before it an equation that must hold, with a row that only the factor 8 makes valid; behind
    /// it one that must fail, for no other reason than its sum, since every point in it is one and every s is below l. The ladder then
    /// verifies the latter's rows.
    pub(crate) fn for_equations() -> Self {
        Known::new(16).pick(&[0, 2, 4, 6, 8, 5, 14, 3])
    }

    /// These rows of it.
    fn pick(&self, rows: &[usize]) -> Self {
        Known {
            keys: rows.iter().map(|row| self.keys[*row]).collect(),
            ids: rows.iter().map(|row| self.ids[*row]).collect(),
            signatures: rows.iter().map(|row| self.signatures[*row]).collect(),
            valid: rows.iter().map(|row| self.valid[*row]).collect(),
        }
    }

    /// All rows.
    pub(crate) fn columns(&self) -> Columns<'_> {
        Columns { keys: &self.keys, messages: Messages::Ids(&self.ids), signatures: &self.signatures }
    }
}

/// A signature with R of small order and s = 0.
fn small_order(r: &[u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(r);
    signature
}

/// Adds l to s: the same scalar, which ZIP-215 refuses.
fn add_order(signature: &mut [u8; 64]) {
    let mut carry = 0;
    for (i, byte) in signature[32..].iter_mut().enumerate() {
        let word = weft_shaders::scalar::L_WORDS[i / 4].to_le_bytes()[i % 4];
        let sum = u16::from(*byte) + u16::from(word) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_equation_of_canaries_is_good_and_the_last_one_has_both_kinds() {
        let known = Known::for_equations();
        assert_eq!(known.valid, [true, true, true, true, true, false, true, false]);
        // What is bad is so by the equation alone.
        for row in [5, 7] {
            let s = &known.signatures[row][32..];
            let words = weft_shaders::bindings::words_at(&weft_shaders::bindings::words(s), 0);
            assert!(weft_shaders::scalar::is_canonical(&words), "row {row}: s is below l");
            let points = [&known.keys[row], known.signatures[row].first_chunk::<32>().expect("R")];
            for point in points {
                let words = weft_shaders::bindings::words_at(&weft_shaders::bindings::words(point), 0);
                let x = weft_shaders::decode::x_of::<weft_shaders::field10::Fe>(&words);
                assert!(x.is_some(), "row {row}: both are points");
            }
        }
    }

    #[test]
    fn even_canaries_are_valid_and_odd_ones_are_not() {
        let known = Known::new(64);
        for (row, valid) in known.valid.iter().enumerate() {
            assert_eq!(*valid, row % 2 == 0, "row {row}");
        }
    }
}
