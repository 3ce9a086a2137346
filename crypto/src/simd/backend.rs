//! Which instruction sets this CPU has, and the kernels compiled for each: the one place where generic code is
//! instantiated under `#[target_feature]`, and the one place that decides whether it may run.
//!
//! A kernel is a whole loop over a batch, so that everything inlined into it is compiled for its instruction set, and
//! a call costs nothing against what it does. Memory between kernels is plain rows and words.
//!
//! Safety: a [`Kernels`] of an instruction set leaves this module only through [`detected`], after the CPU was asked.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;

use super::bucket::Task;
use super::check::{BASE_ROWS, BaseRows, Single};
use super::field::Field;
use super::fixed::{BaseTables, TABLE_ROWS, TABLES};
use super::lanes::Lanes;
use super::point::{NielsRow, PointRow};
use super::sha512::Parts;
use super::straus::{GROUP_ROWS_MAX, Term, Workspace};
use crate::culprits::Costs;

/// Kernels of one instruction set, and the tables made with them.
pub(crate) struct Kernels {
    pub(crate) name: &'static str,
    /// Lanes of 64 bits.
    pub(crate) lanes: usize,
    pub(crate) costs: Costs,
    /// Batches of up to so many rows are quicker by the serial batch verifier.
    pub(crate) serial_rows_max: usize,
    functions: Functions,
    tables: OnceLock<Tables>,
}

struct Functions {
    decode: fn(&[[u8; 32]], &mut [NielsRow], &mut [bool]),
    sha512: fn(&[Parts<'_>], &mut [[u64; 8]]),
    accumulate: fn(&[NielsRow], &[u32], &[Task], &mut [PointRow]),
    reduce: fn(&[PointRow], &mut [PointRow], &mut [PointRow]),
    combine: fn(&[PointRow], &[PointRow], usize, u32, Option<&PointRow>) -> PointRow,
    add: fn(&PointRow, &PointRow, bool) -> PointRow,
    neutral: fn() -> PointRow,
    is_torsion: fn(&PointRow) -> bool,
    check: fn(&[NielsRow], &BaseRows, &[Single]) -> u32,
    /// The same for at most as many as one vector has lanes.
    check_few: fn(&[NielsRow], &BaseRows, &[Single]) -> u32,
    clean_groups: fn(&[NielsRow], &BaseRows, &[Term], &[[u64; 4]], &mut Workspace) -> u32,
    multiples: fn(&BaseTables, &NielsRow, &[[u64; 4]], &mut [[u8; 32]]),
    blake3: fn(&[u32; 8], u32, &[&[u8]], &mut [[u8; 32]]),
    leaves: fn(&[[u8; 32]], &mut [[u8; 32]]),
    nodes: fn(&[[[u8; 32]; 2]], &mut [[u8; 32]]),
    #[cfg(test)]
    encode: fn(&[PointRow], &mut [[u8; 32]]),
}

struct Tables {
    /// 0, B, .. 2048 B, and the same times 2^128.
    base: Box<[NielsRow]>,
    neutral: PointRow,
    /// For signing: `fixed[w][i]` is (i + 1) 256^w B.
    fixed: Box<BaseTables>,
}

/// One kernel: a generic body compiled with the features named, behind an ordinary function.
macro_rules! kernel {
    ($feature:literal, $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?, $body:expr) => {
        fn $name($($arg: $type),*) $(-> $out)? {
            #[target_feature(enable = $feature)]
            fn inner($($arg: $type),*) $(-> $out)? {
                $body
            }
            // SAFETY: the functions of this instruction set are reached through its `Kernels` only, which `detected`
            // gives out after it found these features on the running CPU.
            unsafe { inner($($arg),*) }
        }
    };
}

/// All kernels of one instruction set: `$field` is what points are made of, `$check` the same for single checks, whose
/// chains of doublings want more lanes side by side. Rows in memory are the same for both.
macro_rules! instantiate {
    ($module:ident, $feature:literal, $field:ty, $check:ty, $words:ty, $words32:ty, $costs:expr) => {
        mod $module {
            use super::super::{blake3, bucket, check, decode, fixed, sha256, sha512, straus};
            use super::*;

            kernel!($feature, decode(encodings: &[[u8; 32]], rows: &mut [NielsRow], valid: &mut [bool]),
                decode::decode::<$field>(encodings, rows, valid));
            kernel!($feature, sha512(messages: &[Parts<'_>], out: &mut [[u64; 8]]),
                sha512::hash::<$words>(messages, out));
            kernel!($feature,
                accumulate(points: &[NielsRow], entries: &[u32], tasks: &[Task], out: &mut [PointRow]),
                bucket::accumulate::<$field>(points, entries, tasks, out));
            kernel!($feature, reduce(buckets: &[PointRow], sums: &mut [PointRow], runs: &mut [PointRow]),
                bucket::reduce::<$field>(buckets, sums, runs));
            kernel!($feature,
                combine(sums: &[PointRow], runs: &[PointRow], segment: usize, width: u32,
                    above: Option<&PointRow>) -> PointRow,
                bucket::combine::<$field>(sums, runs, segment, width, above));
            kernel!($feature, add(a: &PointRow, b: &PointRow, negative: bool) -> PointRow,
                bucket::add::<$field>(a, b, negative));
            kernel!($feature, neutral() -> PointRow, bucket::neutral::<$field>());
            kernel!($feature, is_torsion(row: &PointRow) -> bool, bucket::is_torsion::<$field>(row));
            kernel!($feature, check(points: &[NielsRow], base: &BaseRows, singles: &[Single]) -> u32,
                check::check::<$check>(points, base, singles));
            kernel!($feature, check_few(points: &[NielsRow], base: &BaseRows, singles: &[Single]) -> u32,
                check::check::<$field>(points, base, singles));
            kernel!($feature,
                clean_groups(points: &[NielsRow], rows: &BaseRows, terms: &[Term], base: &[[u64; 4]],
                    workspace: &mut Workspace) -> u32,
                straus::clean_groups::<$check>(points, rows, terms, base, workspace));
            kernel!($feature,
                multiples(tables: &BaseTables, neutral: &NielsRow, scalars: &[[u64; 4]], out: &mut [[u8; 32]]),
                fixed::multiples_of_base::<$field>(tables, neutral, scalars, out));
            kernel!($feature, blake3(key: &[u32; 8], flags: u32, messages: &[&[u8]], out: &mut [[u8; 32]]),
                blake3::hash::<$words32>(key, flags, messages, out));
            kernel!($feature, leaves(data: &[[u8; 32]], out: &mut [[u8; 32]]),
                sha256::leaves::<$words32>(data, out));
            kernel!($feature, nodes(children: &[[[u8; 32]; 2]], out: &mut [[u8; 32]]),
                sha256::nodes::<$words32>(children, out));
            #[cfg(test)]
            kernel!($feature, encode(rows: &[PointRow], out: &mut [[u8; 32]]),
                fixed::encode_rows::<$field>(rows, out));

            pub(super) const FUNCTIONS: Functions = Functions {
                decode,
                sha512,
                accumulate,
                reduce,
                combine,
                add,
                neutral,
                is_torsion,
                check,
                check_few,
                clean_groups,
                multiples,
                blake3,
                leaves,
                nodes,
                #[cfg(test)]
                encode,
            };
            const _: () = assert!($costs.lanes == <<$check as Field>::V as Lanes>::COUNT);
        }
    };
}

#[cfg(target_arch = "x86_64")]
instantiate!(
    kernels_avx2,
    "avx2,bmi1,bmi2",
    super::super::field26::F26<super::super::avx2::V4, 1>,
    super::super::field26::F26<super::super::avx2::V4, 1>,
    super::super::avx2::V4,
    super::super::avx2::V8x32,
    COSTS_AVX2
);
#[cfg(target_arch = "x86_64")]
instantiate!(
    kernels_avx512,
    "avx512f,avx512dq,avx512bw,avx512vl,avx512ifma,avx2,bmi1,bmi2",
    super::super::field52::F52<super::super::avx512::V8>,
    super::super::field52::F52<super::super::lanes::Twice<super::super::avx512::V8>>,
    super::super::avx512::V8,
    super::super::avx512::V16x32,
    COSTS_AVX512
);
// The serial twins, for tests: the same algorithms on arrays. Both instruction sets named are part of every x86-64.
#[cfg(all(test, target_arch = "x86_64"))]
instantiate!(
    kernels_array4,
    "sse2",
    super::super::field26::F26<super::super::portable::Array<4>, 1>,
    super::super::field26::F26<super::super::portable::Array<4>, 1>,
    super::super::portable::Array<4>,
    super::super::portable::Array32<8>,
    COSTS_AVX2
);
#[cfg(all(test, target_arch = "x86_64"))]
instantiate!(
    kernels_array8,
    "sse2",
    super::super::field52::F52<super::super::portable::Array<8>>,
    super::super::field52::F52<super::super::lanes::Twice<super::super::portable::Array<8>>>,
    super::super::portable::Array<8>,
    super::super::portable::Array32<16>,
    COSTS_AVX512
);

/// Nanoseconds a row, without what every row costs anyway (decoding, hashing): `stage_times` in `tests.rs` prints them.
/// Measured on a Zen 4 core; only ratios matter, and only to choose between a test of a group and single checks.
pub(crate) const COSTS_AVX2: Costs = Costs {
    single: 14_000.0,
    group: [
        182_000.0, 93_000.0, 49_500.0, 27_800.0, 17_000.0, 11_700.0, 8_000.0, 5_900.0, 4_750.0, 3_980.0,
        3_480.0, 3_020.0, 2_900.0,
    ],
    lanes: 4,
    group_rows_max: 4096,
    lane_once: 13_300.0,
    lane_row: 8_440.0,
    lane_rows_max: GROUP_ROWS_MAX,
};

pub(crate) const COSTS_AVX512: Costs = Costs {
    single: 4_130.0,
    group: [
        82_000.0, 42_000.0, 22_600.0, 12_500.0, 7_400.0, 4_700.0, 2_970.0, 2_110.0, 1_550.0, 1_240.0,
        1_060.0, 900.0, 810.0,
    ],
    lanes: 16,
    group_rows_max: 4096,
    lane_once: 4_000.0,
    lane_row: 2_350.0,
    lane_rows_max: GROUP_ROWS_MAX,
};

impl Kernels {
    const fn new(
        name: &'static str,
        lanes: usize,
        costs: Costs,
        serial_rows_max: usize,
        functions: Functions,
    ) -> Self {
        Self { name, lanes, costs, serial_rows_max, functions, tables: OnceLock::new() }
    }

    /// Lanes of 32 bits.
    pub(crate) fn lanes_32(&self) -> usize {
        2 * self.lanes
    }

    fn tables(&self) -> &Tables {
        self.tables.get_or_init(|| Tables::new(&self.functions))
    }

    /// B.
    pub(crate) fn base(&self) -> &NielsRow {
        &self.tables().base[1]
    }

    /// The neutral element as an affine row.
    pub(crate) fn neutral_niels(&self) -> &NielsRow {
        &self.tables().base[0]
    }

    pub(crate) fn neutral(&self) -> PointRow {
        self.tables().neutral
    }

    pub(crate) fn decode(&self, encodings: &[[u8; 32]], rows: &mut [NielsRow], valid: &mut [bool]) {
        (self.functions.decode)(encodings, rows, valid);
    }

    pub(crate) fn sha512(&self, messages: &[Parts<'_>], out: &mut [[u64; 8]]) {
        (self.functions.sha512)(messages, out);
    }

    pub(crate) fn accumulate(
        &self,
        points: &[NielsRow],
        entries: &[u32],
        tasks: &[Task],
        out: &mut [PointRow],
    ) {
        (self.functions.accumulate)(points, entries, tasks, out);
    }

    pub(crate) fn reduce(&self, buckets: &[PointRow], sums: &mut [PointRow], runs: &mut [PointRow]) {
        (self.functions.reduce)(buckets, sums, runs);
    }

    pub(crate) fn combine(
        &self,
        sums: &[PointRow],
        runs: &[PointRow],
        segment: usize,
        width: u32,
        above: Option<&PointRow>,
    ) -> PointRow {
        (self.functions.combine)(sums, runs, segment, width, above)
    }

    pub(crate) fn add(&self, a: &PointRow, b: &PointRow) -> PointRow {
        (self.functions.add)(a, b, false)
    }

    pub(crate) fn subtract(&self, a: &PointRow, b: &PointRow) -> PointRow {
        (self.functions.add)(a, b, true)
    }

    pub(crate) fn is_torsion(&self, row: &PointRow) -> bool {
        (self.functions.is_torsion)(row)
    }

    pub(crate) fn check(&self, points: &[NielsRow], singles: &[Single]) -> u32 {
        let check = if singles.len() <= self.lanes { self.functions.check_few } else { self.functions.check };
        check(points, &self.tables().base, singles)
    }

    /// [`super::straus::clean_groups`].
    pub(crate) fn clean_groups(
        &self,
        points: &[NielsRow],
        terms: &[Term],
        base: &[[u64; 4]],
        workspace: &mut Workspace,
    ) -> u32 {
        (self.functions.clean_groups)(points, &self.tables().base, terms, base, workspace)
    }

    /// Encodings of `scalars[i] * B`, in constant time.
    pub(crate) fn multiples_of_base(&self, scalars: &[[u64; 4]], out: &mut [[u8; 32]]) {
        let tables = self.tables();
        (self.functions.multiples)(&tables.fixed, &tables.base[0], scalars, out);
    }

    pub(crate) fn blake3(&self, key: &[u32; 8], flags: u32, messages: &[&[u8]], out: &mut [[u8; 32]]) {
        (self.functions.blake3)(key, flags, messages, out);
    }

    pub(crate) fn leaves(&self, data: &[[u8; 32]], out: &mut [[u8; 32]]) {
        (self.functions.leaves)(data, out);
    }

    pub(crate) fn nodes(&self, children: &[[[u8; 32]; 2]], out: &mut [[u8; 32]]) {
        (self.functions.nodes)(children, out);
    }

    #[cfg(test)]
    pub(crate) fn encode(&self, rows: &[PointRow], out: &mut [[u8; 32]]) {
        (self.functions.encode)(rows, out);
    }
}

impl Tables {
    fn new(functions: &Functions) -> Self {
        let mut multiples = Vec::with_capacity(2 * BASE_ROWS);
        for step in [Scalar::ONE, Scalar::from(u128::MAX) + Scalar::ONE] {
            let step = EdwardsPoint::mul_base(&step);
            let mut point = EdwardsPoint::identity();
            for _ in 0..BASE_ROWS {
                multiples.push(point);
                point += step;
            }
        }
        let mut encodings = Vec::with_capacity(multiples.len());
        encodings.extend(EdwardsPoint::compress_batch_alloc(&multiples).iter().map(|point| point.0));
        let mut base = vec![NielsRow::ZERO; encodings.len()].into_boxed_slice();
        let mut valid = vec![false; encodings.len()];
        (functions.decode)(&encodings, &mut base, &mut valid);
        assert!(!valid.contains(&false), "multiples of the base point must decode");
        encodings.clear();
        let mut first = ED25519_BASEPOINT_POINT;
        for _ in 0..TABLES {
            let mut point = first;
            for _ in 0..TABLE_ROWS {
                encodings.push(point.compress().0);
                point += first;
            }
            for _ in 0..8 {
                first += first;
            }
        }
        let mut rows = vec![NielsRow::ZERO; encodings.len()];
        (functions.decode)(&encodings, &mut rows, &mut valid[..encodings.len()]);
        let mut fixed = Box::new([[NielsRow::ZERO; TABLE_ROWS]; TABLES]);
        fixed.as_flattened_mut().copy_from_slice(&rows);
        Self { base, neutral: (functions.neutral)(), fixed }
    }
}

// Four lanes of 32-bit products beat curve25519-dalek's AVX2 code from about fifty rows on; eight of IFMA from three on.
#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = Kernels::new("avx2", 4, COSTS_AVX2, 48, kernels_avx2::FUNCTIONS);
#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = Kernels::new("avx512", 8, COSTS_AVX512, 2, kernels_avx512::FUNCTIONS);

/// Names of all vector backends this build contains, detected or not, the fastest last.
pub const NAMES: &[&str] = if cfg!(target_arch = "x86_64") { &["avx2", "avx512"] } else { &[] };

/// The backends this CPU can run, the fastest last. Detection is cached by the standard library.
pub(crate) fn detected() -> Vec<&'static Kernels> {
    let mut out: Vec<&'static Kernels> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        if avx2 {
            out.push(&AVX2);
        }
        if avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
        {
            out.push(&AVX512);
        }
    }
    out
}

/// The twins on arrays.
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) fn twins() -> [&'static Kernels; 2] {
    static ARRAY4: Kernels = Kernels::new("array4", 4, COSTS_AVX2, 1, kernels_array4::FUNCTIONS);
    static ARRAY8: Kernels = Kernels::new("array8", 8, COSTS_AVX512, 1, kernels_array8::FUNCTIONS);
    [&ARRAY4, &ARRAY8]
}
