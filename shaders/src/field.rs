//! The interface that both field layouts offer, as `field20.wgsl` and `field10.wgsl` offer it under the same names.
//!
//! Owns nothing but the trait. Bounds on limbs ("tight", "sum", "wide", "loose") are stated at the head of each
//! layout's shader; the twins compute with overflow checks in debug builds, so a broken bound fails a test there.

use core::fmt::Debug;

/// An element of GF(2^255 - 19) in one limb layout. Not necessarily reduced: see the layout's table of bounds.
pub trait Field: Copy + Debug + PartialEq + Send + Sync + 'static {
    /// The layout's name, as in the kernels' file names.
    const LAYOUT: Layout;
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// d of the curve equation.
    const D: Self;
    /// 2 d.
    const D2: Self;
    /// A square root of -1.
    const SQRT_M1: Self;
    /// a + b without carries.
    #[must_use]
    fn add(&self, b: &Self) -> Self;
    /// a - b plus a multiple of p, without carries.
    #[must_use]
    fn sub(&self, b: &Self) -> Self;
    /// The same value with tight limbs.
    #[must_use]
    fn tidy(&self) -> Self;
    /// The same value, fit for `mul`.
    #[must_use]
    fn trim(&self) -> Self;
    /// a * b.
    #[must_use]
    fn mul(&self, b: &Self) -> Self;
    /// a * a.
    #[must_use]
    fn sq(&self) -> Self;
    /// The one representative below p.
    #[must_use]
    fn canonical(&self) -> Self;
    /// Whether the value is 0 modulo p.
    #[must_use]
    fn is_zero(&self) -> bool;
    /// Bits 0 to 254 of 32 little-endian bytes, as words.
    #[must_use]
    fn from_words(w: &[u32; 8]) -> Self;
    /// 32 little-endian bytes, as words. For canonical values.
    #[must_use]
    fn to_words(&self) -> [u32; 8];
    /// Ten words for memory.
    #[must_use]
    fn pack(&self) -> [u32; 10];
    /// The reverse of `pack`.
    #[must_use]
    fn unpack(w: &[u32; 10]) -> Self;
    /// The lowest limb.
    #[must_use]
    fn limb_0(&self) -> u32;
}

/// The limb layouts that kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// 20 limbs of 13 bits, 32-bit integers only: runs on every adapter.
    U32x20,
    /// 10 limbs of 26 and 25 bits, 64-bit products: needs an adapter with 64-bit integers.
    U64x10,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 2] = [Layout::U32x20, Layout::U64x10];

    /// The name used in kernel files, reports and command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Layout::U32x20 => "u32x20",
            Layout::U64x10 => "u64x10",
        }
    }

    /// Whether kernels in this layout need an adapter with 64-bit integers in shaders.
    #[must_use]
    pub fn needs_int64(self) -> bool {
        self == Layout::U64x10
    }
}
