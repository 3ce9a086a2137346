//! WGSL compute shaders that verify Ed25519 signatures and hash messages, each with a Rust twin.
//!
//! Owns the shaders (`*.wgsl`, composed and validated when this crate is built), their twins (the `*.rs` file of the
//! same name, with the same functions and loops), the layout of device memory ([`bindings`]) and the table of
//! multiples of the base point ([`base`]). Leaves to `weft-gpu` everything that needs a device.
//!
//! # How a signature is verified
//!
//! | kernel | what it does | one invocation |
//! |---|---|---|
//! | `hash_ids`, `hash_blocks` | k = SHA-512(R, A, M) mod l; signed digits of k and s; s < l | a row |
//! | `decode` (keys) | x of A | a row |
//! | `weigh` | z k mod l with a random z; its digits | a row |
//! | `prepare` | A and R as summands | a row |
//! | `sort` | the points of a window by digit | a group of 64 a window |
//! | `accumulate` | the sum of digit x point | a 64th of a window |
//! | `fold` | the window's sum | a window |
//! | `close` | whether `[8]` (sum z (s B - R - k A)) = 0 | an equation |
//! | `settle` | its rows are valid, if so | a row |
//! | `table` | the multiples 1 .. 8 of -A | a row |
//! | `ladder` | Q = s B - k A | a row |
//! | `finish` | 1/Z of several rows at once; Q's encoding = R's bytes: valid | several rows |
//! | `decode` (R), `exact` | for rows still open: `[8] Q = [8] R` | a row |
//! | `verdicts` | a bit per row | 32 rows |
//!
//! # Why the verdict is ZIP-215's
//!
//! ZIP-215 asks `[8](s B - k A - R) = 0`. If the canonical encoding of Q = s B - k A equals R's bytes, those bytes
//! decode to Q and the equation holds even without the 8: `finish` may accept. If they differ, nothing follows, and
//! `exact` decodes R and decides the equation itself. The additions are complete, so points of small order, among
//! them A = 0 and Q = 0, need no special case; a y of p or more is taken modulo p on load, and x = 0 with the sign
//! bit set stands for x = 0.

#![forbid(unsafe_code)]
// The twins keep the loops and the arithmetic of the shaders, index by index.
#![allow(clippy::needless_range_loop, clippy::manual_div_ceil, clippy::manual_is_multiple_of)]

pub mod accumulate;
pub mod base;
pub mod bindings;
pub mod blake3;
pub mod close;
pub mod decode;
pub mod edwards;
pub mod equation;
pub mod exact;
pub mod field;
pub mod field10;
pub mod field20;
pub mod finish;
pub mod fold;
pub mod hash_blocks;
pub mod hash_ids;
pub mod ladder;
mod lanes;
pub mod memory;
pub mod message_ids;
pub mod power;
pub mod prepare;
pub mod scalar;
pub mod settle;
pub mod sha512;
pub mod sort;
pub mod table;
pub mod verdicts;
pub mod weigh;

pub use field::{Field, Layout};

/// A compute kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kernel {
    /// SHA-512 of (R, A, id), reduced, as digits.
    HashIds,
    /// The same for messages of any length.
    HashBlocks,
    /// x coordinates.
    Decode,
    /// z k, and digits for the batch equation.
    Weigh,
    /// A and R as summands for it.
    Prepare,
    /// The points of each window by digit.
    Sort,
    /// A lane's part of a window's sum.
    Accumulate,
    /// A window's sum.
    Fold,
    /// Whether an equation holds.
    Close,
    /// Its rows' verdicts, if so.
    Settle,
    /// Multiples of -A.
    Table,
    /// s B - k A.
    Ladder,
    /// Comparison with R's bytes.
    Finish,
    /// The full equation.
    Exact,
    /// Bits.
    Verdicts,
    /// BLAKE3 message ids.
    MessageIds,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Kernel; 16] = [
        Kernel::HashIds,
        Kernel::HashBlocks,
        Kernel::Decode,
        Kernel::Weigh,
        Kernel::Prepare,
        Kernel::Sort,
        Kernel::Accumulate,
        Kernel::Fold,
        Kernel::Close,
        Kernel::Settle,
        Kernel::Table,
        Kernel::Ladder,
        Kernel::Finish,
        Kernel::Exact,
        Kernel::Verdicts,
        Kernel::MessageIds,
    ];

    /// Whether it belongs to the batch equations alone.
    #[must_use]
    pub fn is_of_equations(self) -> bool {
        use Kernel::{Accumulate, Close, Fold, Prepare, Settle, Sort, Weigh};
        matches!(self, Weigh | Prepare | Sort | Accumulate | Fold | Close | Settle)
    }

    /// The kernel's name: its file name without the ending.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kernel::HashIds => "hash_ids",
            Kernel::HashBlocks => "hash_blocks",
            Kernel::Decode => "decode",
            Kernel::Weigh => "weigh",
            Kernel::Prepare => "prepare",
            Kernel::Sort => "sort",
            Kernel::Accumulate => "accumulate",
            Kernel::Fold => "fold",
            Kernel::Close => "close",
            Kernel::Settle => "settle",
            Kernel::Table => "table",
            Kernel::Ladder => "ladder",
            Kernel::Finish => "finish",
            Kernel::Exact => "exact",
            Kernel::Verdicts => "verdicts",
            Kernel::MessageIds => "message_ids",
        }
    }

    /// The composed WGSL, entry point `main`. Kernels without field arithmetic are the same in every layout.
    #[must_use]
    pub fn source(self, layout: Layout) -> &'static str {
        macro_rules! composed {
            ($name:literal) => {
                include_str!(concat!(env!("OUT_DIR"), "/", $name, ".wgsl"))
            };
        }
        match (self, layout) {
            (Kernel::HashIds, _) => composed!("hash_ids"),
            (Kernel::HashBlocks, _) => composed!("hash_blocks"),
            (Kernel::Verdicts, _) => composed!("verdicts"),
            (Kernel::Weigh, _) => composed!("weigh"),
            (Kernel::Sort, _) => composed!("sort"),
            (Kernel::Settle, _) => composed!("settle"),
            (Kernel::MessageIds, _) => composed!("message_ids"),
            (Kernel::Decode, Layout::U32x20) => composed!("decode_u32x20"),
            (Kernel::Decode, Layout::U64x10) => composed!("decode_u64x10"),
            (Kernel::Prepare, Layout::U32x20) => composed!("prepare_u32x20"),
            (Kernel::Prepare, Layout::U64x10) => composed!("prepare_u64x10"),
            (Kernel::Accumulate, Layout::U32x20) => composed!("accumulate_u32x20"),
            (Kernel::Accumulate, Layout::U64x10) => composed!("accumulate_u64x10"),
            (Kernel::Fold, Layout::U32x20) => composed!("fold_u32x20"),
            (Kernel::Fold, Layout::U64x10) => composed!("fold_u64x10"),
            (Kernel::Close, Layout::U32x20) => composed!("close_u32x20"),
            (Kernel::Close, Layout::U64x10) => composed!("close_u64x10"),
            (Kernel::Table, Layout::U32x20) => composed!("table_u32x20"),
            (Kernel::Table, Layout::U64x10) => composed!("table_u64x10"),
            (Kernel::Ladder, Layout::U32x20) => composed!("ladder_u32x20"),
            (Kernel::Ladder, Layout::U64x10) => composed!("ladder_u64x10"),
            (Kernel::Finish, Layout::U32x20) => composed!("finish_u32x20"),
            (Kernel::Finish, Layout::U64x10) => composed!("finish_u64x10"),
            (Kernel::Exact, Layout::U32x20) => composed!("exact_u32x20"),
            (Kernel::Exact, Layout::U64x10) => composed!("exact_u64x10"),
        }
    }
}

/// Runs the twin of a verification kernel for one invocation. `MessageIds` has buffers of its own and does nothing
/// here: see [`message_ids::main`].
pub fn run_twin(kernel: Kernel, layout: Layout, buffers: &mut bindings::Buffers, id: usize) {
    type F20 = field20::Fe;
    type F10 = field10::Fe;
    match (kernel, layout) {
        (Kernel::HashIds, _) => hash_ids::main(buffers, id),
        (Kernel::HashBlocks, _) => hash_blocks::main(buffers, id),
        (Kernel::Verdicts, _) => verdicts::main(buffers, id),
        (Kernel::Weigh, _) => weigh::main(buffers, id),
        (Kernel::Sort, _) => sort::main(buffers, id),
        (Kernel::Settle, _) => settle::main(buffers, id),
        (Kernel::Decode, Layout::U32x20) => decode::main::<F20>(buffers, id),
        (Kernel::Decode, Layout::U64x10) => decode::main::<F10>(buffers, id),
        (Kernel::Prepare, Layout::U32x20) => prepare::main::<F20>(buffers, id),
        (Kernel::Prepare, Layout::U64x10) => prepare::main::<F10>(buffers, id),
        (Kernel::Accumulate, Layout::U32x20) => accumulate::main::<F20>(buffers, id),
        (Kernel::Accumulate, Layout::U64x10) => accumulate::main::<F10>(buffers, id),
        (Kernel::Fold, Layout::U32x20) => fold::main::<F20>(buffers, id),
        (Kernel::Fold, Layout::U64x10) => fold::main::<F10>(buffers, id),
        (Kernel::Close, Layout::U32x20) => close::main::<F20>(buffers, id),
        (Kernel::Close, Layout::U64x10) => close::main::<F10>(buffers, id),
        (Kernel::Table, Layout::U32x20) => table::main::<F20>(buffers, id),
        (Kernel::Table, Layout::U64x10) => table::main::<F10>(buffers, id),
        (Kernel::Ladder, Layout::U32x20) => ladder::main::<F20>(buffers, id),
        (Kernel::Ladder, Layout::U64x10) => ladder::main::<F10>(buffers, id),
        (Kernel::Finish, Layout::U32x20) => finish::main::<F20>(buffers, id),
        (Kernel::Finish, Layout::U64x10) => finish::main::<F10>(buffers, id),
        (Kernel::Exact, Layout::U32x20) => exact::main::<F20>(buffers, id),
        (Kernel::Exact, Layout::U64x10) => exact::main::<F10>(buffers, id),
        (Kernel::MessageIds, _) => {}
    }
}

/// The table of multiples of the base point in a layout.
#[must_use]
pub fn base_table(layout: Layout) -> Vec<u32> {
    match layout {
        Layout::U32x20 => base::table::<field20::Fe>(),
        Layout::U64x10 => base::table::<field10::Fe>(),
    }
}
