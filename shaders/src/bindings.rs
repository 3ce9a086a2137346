//! Twin of `bindings.wgsl`: the buffers that the verification kernels share, with their sizes in words.
//!
//! Owns the layout of device memory: the host in `weft-gpu` allocates from these constants.

/// Words of a public key.
pub const KEY_WORDS: usize = 8;
/// Words of a signature.
pub const SIGNATURE_WORDS: usize = 16;
/// Words of a 32-byte id.
pub const ID_WORDS: usize = 8;
/// Words of the digits of k and s, per row.
pub const SCALAR_WORDS: usize = 16;
/// Words of one packed field element.
pub const FE_WORDS: usize = 10;
/// Words of a resident key: x, and the key that it belongs to.
pub const RESIDENT_WORDS: usize = FE_WORDS + KEY_WORDS;
/// Words of a row's four slots.
pub const POINT_WORDS: usize = 4 * FE_WORDS;
/// Words of a row's table: 8 multiples of -A, four field elements each.
pub const TABLE_WORDS: usize = 8 * 4 * FE_WORDS;
/// Multiples of the base point that the shared table holds: one per digit value of 16 signed bits.
pub const BASE_ENTRIES: usize = 1 << 15;
/// Words of a base table entry: three field elements.
pub const BASE_ENTRY_WORDS: usize = 3 * FE_WORDS;
/// Invocations per workgroup, in every kernel.
pub const WORKGROUP: u32 = 64;

/// flags: the signature is invalid.
pub const FLAG_INVALID: u32 = 1;
/// flags: the signature is valid.
pub const FLAG_VALID: u32 = 2;

/// The buffers of one dispatch, as the device sees them. All lengths in words.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    /// Rows.
    pub rows: usize,
    /// finish: rows per invocation. decode: 0 for the rows of `list`, 1 R. The equations' kernels: their number.
    pub option: usize,
    /// finish: invocations.
    pub lanes: usize,
    /// 8 words a row.
    pub keys: Vec<u32>,
    /// Where x of each row's key is in `points`, in pairs of words: 20 times the row, or a resident entry. On the device
    /// behind the keys, from the next multiple of four words on.
    pub places: Vec<u32>,
    /// The rows whose keys are decoded. On the device behind the places, in the same way.
    pub list: Vec<u32>,
    /// 16 words a row.
    pub signatures: Vec<u32>,
    /// 8 words a row, or spans and blocks.
    pub messages: Vec<u32>,
    /// 16 words a row, rows side by side.
    pub scalars: Vec<u32>,
    /// 40 words a row; behind them 18 words a resident key.
    pub points: Vec<u32>,
    /// 320 words a row.
    pub tables: Vec<u32>,
    /// 30 words an entry.
    pub base: Vec<u32>,
    /// 1 word a row; behind them 1 word an equation.
    pub flags: Vec<u32>,
    /// 4 words a row: the random words that z is made of. On the device behind the list.
    pub z: Vec<u32>,
    /// 12 words an equation ([`crate::equation`]). On the device behind z.
    pub equations: Vec<u32>,
}

impl Buffers {
    /// Buffers for a batch of 32-byte ids without resident keys. `base` is the shared table in the layout that the kernels will use.
    #[must_use]
    pub fn for_ids(keys: &[[u8; 32]], ids: &[[u8; 32]], signatures: &[[u8; 64]], base: Vec<u32>) -> Self {
        let rows = keys.len();
        Buffers {
            rows,
            option: 0,
            lanes: 0,
            keys: words(keys.as_flattened()),
            places: (0..rows as u32).map(|row| row * 20).collect(),
            list: (0..rows as u32).collect(),
            signatures: words(signatures.as_flattened()),
            messages: words(ids.as_flattened()),
            scalars: vec![0; rows * SCALAR_WORDS],
            points: vec![0; rows * POINT_WORDS],
            tables: vec![0; rows * TABLE_WORDS],
            base,
            flags: vec![0; rows],
            z: Vec::new(),
            equations: Vec::new(),
        }
    }
}

/// Little-endian words of bytes; what is beyond the last whole word is dropped.
#[must_use]
pub fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four)).collect()
}

/// The `N` words that begin at word `at`.
#[must_use]
pub fn words_at<const N: usize>(buffer: &[u32], at: usize) -> [u32; N] {
    let mut w = [0; N];
    w.copy_from_slice(&buffer[at..at + N]);
    w
}
