//! What every test of a verifier needs: cases, suites with known verdicts, an adversary, and the harness that runs
//! them on a list of backends. Behind the feature `testing`; benches, fuzzing and other crates' tests use it too.
//!
//! A new backend is held to everything here by appearing in [`harness::backends`], or, in another crate, by passing
//! its verifier to [`harness::check_suite`] and [`harness::check_adversarial`].
//!
//! This module panics on failure, as tests do. Nothing here is for production.

pub mod adversary;
pub mod harness;
pub mod suites;

use crate::columns::{Columns, Messages};

/// One signature and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Where it comes from or what was done to it.
    pub name: String,
    /// The public key, 32 bytes as received.
    pub key: [u8; 32],
    /// What is claimed to be signed.
    pub message: Vec<u8>,
    /// R and s, as received.
    pub signature: [u8; 64],
    /// The verdict that ZIP-215 gives, known without running a verifier.
    pub valid: bool,
}

/// Cases as columns: owns what [`Columns`] borrows.
pub struct Rows<'a> {
    keys: Vec<[u8; 32]>,
    slices: Vec<&'a [u8]>,
    ids: Option<Vec<[u8; 32]>>,
    signatures: Vec<[u8; 64]>,
}

impl<'a> Rows<'a> {
    /// Collects `cases`. If every message is 32 bytes long the columns hold ids, else slices, so that both forms get
    /// tested.
    pub fn new(cases: impl IntoIterator<Item = &'a Case>) -> Self {
        let mut rows = Self { keys: Vec::new(), slices: Vec::new(), ids: None, signatures: Vec::new() };
        for case in cases {
            rows.keys.push(case.key);
            rows.slices.push(&case.message);
            rows.signatures.push(case.signature);
        }
        rows.ids = rows.slices.iter().map(|message| <[u8; 32]>::try_from(*message).ok()).collect();
        rows
    }

    /// The columns.
    #[must_use]
    pub fn columns(&self) -> Columns<'_> {
        let messages = match &self.ids {
            Some(ids) => Messages::Ids(ids),
            None => Messages::Slices(&self.slices),
        };
        Columns { keys: &self.keys, messages, signatures: &self.signatures }
    }
}

/// A repeatable stream of numbers (splitmix64), so that a printed seed is a whole test run.
#[derive(Clone, Debug)]
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The stream that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit` (which is above 0), near enough to uniform.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.word()) * limit as u128) >> 64) as usize
    }

    /// One of `items`.
    pub fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.word() as u8)
    }

    /// `length` bytes.
    pub fn vec(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.word() as u8).collect()
    }
}

/// The seed of a random test: `WEFT_TEST_SEED` if set, else fresh. It is printed, and a failing test shows it.
///
/// # Panics
/// If the variable is set and is not a number.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let seed = match std::env::var("WEFT_TEST_SEED") {
        Ok(text) => text.parse().expect("WEFT_TEST_SEED must be a decimal number below 2^64"),
        Err(_) => getrandom::u64().expect("the operating system gives no randomness"),
    };
    println!("{test}: WEFT_TEST_SEED={seed}");
    seed
}

/// How many cases a random test runs: `WEFT_TEST_CASES` if set, else `otherwise`.
///
/// # Panics
/// If the variable is set and is not a number.
#[must_use]
pub fn cases(otherwise: usize) -> usize {
    match std::env::var("WEFT_TEST_CASES") {
        Ok(text) => text.parse().expect("WEFT_TEST_CASES must be a decimal number"),
        Err(_) => otherwise,
    }
}

/// Decodes hex that is written in this crate.
///
/// # Panics
/// If it is no hex.
#[must_use]
pub fn unhex(text: &str) -> Vec<u8> {
    let nibble = |digit: u8| (digit as char).to_digit(16).expect("a hex digit") as u8;
    let pairs = text.as_bytes().as_chunks::<2>();
    assert!(pairs.1.is_empty(), "hex must have an even number of digits");
    pairs.0.iter().map(|[high, low]| nibble(*high) << 4 | nibble(*low)).collect()
}

/// [`unhex`] for a fixed length.
///
/// # Panics
/// If it is no hex of that length.
#[must_use]
pub fn unhex_array<const N: usize>(text: &str) -> [u8; N] {
    unhex(text).try_into().expect("hex of the expected length")
}
