//! Cycles of a SIMD's vector unit, counted in RDNA machine code.
//!
//! Loops are found by their backward branches; each instruction costs the cycles for which it holds the vector unit, times the
//! trips of the loops around it, which are known. (The compiler's own estimate takes every loop for eight trips.) Scalar
//! instructions, branches and waits run beside the vector unit and are not counted; memory latency is taken to be hidden by the
//! other waves. So the count is a lower bound of the time, and the rate made of it an upper bound.

use std::collections::BTreeMap;

use weft_shaders::Kernel;

/// Rows of an equation, as the figures here assume.
const EQUATION_ROWS: f64 = weft_shaders::equation::EQUATION_ROWS as f64;
/// Trips of `sort`'s outer loop, and of its inner ones in all, means over the groups of an equation.
const PAIRS: f64 = (16.0 * 2.0 + 8.0 * 3.0) / 24.0;
const SUMMED: f64 = (16.0 * 2.0 * 64.0 + 8.0 * 3.0 * 32.0) / 24.0;
const LARGER: f64 = (16.0 * 64.0 + 8.0 * (64.0 + 32.0)) / 24.0;
/// Additions of the lane of a wave that has most of them: 32 points, the steps between their digits, and closing what is left. The mean
/// over random digits (a test counts it).
const ACCUMULATE_STEPS: f64 = 47.1;

/// Lanes of a SIMD: a wave of 64 passes twice.
const LANES: f64 = 32.0;

/// Rows an invocation of `finish` inverts together in a batch of 65,536, the default (`engine::finish_shape`).
const FINISH_ROWS: f64 = 8.0;

/// An if-else counts as large from this many instructions on: smaller ones do not matter.
const LARGE: usize = 31;

/// What a wave of one kernel costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Cycles {
    /// The sum: how often, and the cycles of one pass of all instructions that run that often.
    pub terms: Vec<(f64, f64)>,
    /// Cycles of a wave.
    pub wave: f64,
    /// Rows a wave verifies.
    pub rows: f64,
    /// Cycles a row.
    pub signature: f64,
}

/// Trips of each loop of a kernel, in the order in which the loops begin in the code, all per entry into the loop
/// around it. Honest signatures.
fn trips(kernel: Kernel) -> &'static [f64] {
    // power_252_3: eleven steps, 251 squarings.
    match kernel {
        Kernel::HashIds => &[5.0],
        Kernel::HashBlocks => &[1.0, 5.0],
        Kernel::Decode => &[11.0, 251.0 / 11.0],
        Kernel::Weigh | Kernel::Settle => &[],
        // A, then R.
        Kernel::Prepare => &[2.0],
        // Of 24 groups 16 have one window of 2,048 points for 64 lanes, and 8 two of 1,024 points for 32. Zeroing; counting; sums of
        // pairs of buckets, 65 for as many lanes; places: the larger buckets, then the lanes; putting.
        Kernel::Sort => &[65.0, 32.0, PAIRS, SUMMED / PAIRS, PAIRS, LARGER / PAIRS, SUMMED / PAIRS, 32.0],
        Kernel::Accumulate => &[ACCUMULATE_STEPS],
        // The other lanes of a window; every 32nd row.
        Kernel::Fold => &[63.0, 32.0],
        // Windows and the cofactor; doublings; sums and multiples of B.
        Kernel::Close => &[33.0, 251.0 / 33.0, 48.0 / 33.0],
        Kernel::Table => &[8.0],
        // Windows; doublings a window; additions a window: 64 + 16 over 64 windows. A digit of 0 saves its lane nothing,
        // since some other lane of the wave adds.
        Kernel::Ladder => &[64.0, 4.0 * 63.0 / 64.0, 80.0 / 64.0],
        Kernel::Finish => &[FINISH_ROWS, 11.0, 251.0 / 11.0, 3.0, FINISH_ROWS],
        Kernel::Exact => &[6.0],
        Kernel::Verdicts => &[32.0],
        Kernel::MessageIds => &[4.0],
    }
}

/// How often the first side of each large if-else of a kernel is taken, in the order of the code: `ladder` computes T in
/// 63 of 252 doublings, reads the row's table in 64 of 80 additions, skips the product with 2 Z in the other 16, and
/// computes T in 16 of them.
fn first_sides(kernel: Kernel) -> &'static [f64] {
    match kernel {
        Kernel::Ladder => &[0.25, 64.0 / 80.0, 16.0 / 80.0, 16.0 / 80.0],
        _ => &[],
    }
}

/// The cycles of a kernel with this machine code, in waves of `lanes`. `None` for code of another maker, or with other loops
/// and choices than the tables here were written for.
#[must_use]
pub fn count(kernel: Kernel, text: &str, lanes: u32) -> Option<Cycles> {
    let lines: Vec<&str> = text.lines().collect();
    let mut labels = BTreeMap::new();
    let mut code = Vec::new();
    for line in &lines {
        let line = line.trim();
        if let Some(label) = line.strip_suffix(':').filter(|l| l.starts_with("BB")) {
            labels.insert(label.to_owned(), code.len());
        } else if line.starts_with("v_")
            || line.starts_with("s_")
            || line.contains("_load")
            || line.contains("_store")
        {
            code.push(line);
        }
    }
    if !code.iter().any(|line| line.starts_with("v_")) {
        return None;
    }
    // A backward branch closes a loop from its target to itself; several to one target are one loop.
    let mut loops = BTreeMap::new();
    for (at, line) in code.iter().enumerate() {
        if (line.starts_with("s_cbranch") || line.starts_with("s_branch"))
            && let Some(target) =
                line.split_whitespace().find_map(|word| labels.get(word.trim_end_matches(',')))
            && *target <= at
        {
            loops.entry(*target).and_modify(|end: &mut usize| *end = at.max(*end)).or_insert(at);
        }
    }
    let trips = trips(kernel);
    if loops.len() != trips.len() {
        return None;
    }
    let mut sides = Vec::new();
    for (at, line) in code.iter().enumerate() {
        if line.starts_with("s_cbranch_scc")
            && let Some(other) =
                line.split_whitespace().find_map(|word| labels.get(word.trim_end_matches(',')))
            && *other > at
            && let Some(jump) = code.get(other - 1).filter(|jump| jump.starts_with("s_branch"))
            && let Some(join) =
                jump.split_whitespace().find_map(|word| labels.get(word.trim_end_matches(',')))
            && *join > *other
            && join - at >= LARGE
        {
            sides.push((at..*other, *other..*join));
        }
    }
    let taken = first_sides(kernel);
    if !taken.is_empty() && sides.len() != taken.len() {
        return None;
    }
    let passes = f64::from(lanes) / LANES;
    // How often an instruction runs, in thousandths, and the cycles of all that run that often.
    let mut by_weight: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (at, line) in code.iter().enumerate() {
        let weight: f64 = loops
            .iter()
            .zip(trips)
            .filter(|((start, end), _)| (**start..=**end).contains(&at))
            .map(|(_, trips)| trips)
            .product();
        let chosen: f64 = sides
            .iter()
            .zip(taken)
            .map(|((first, second), taken)| {
                if first.contains(&at) {
                    *taken
                } else if second.contains(&at) {
                    1.0 - taken
                } else {
                    1.0
                }
            })
            .product();
        let cycles = cost(line) * passes;
        if cycles > 0.0 {
            let times = weight * chosen;
            by_weight.entry((times * 1e3) as u64).or_insert((times, 0.0)).1 += cycles;
        }
    }
    let terms: Vec<(f64, f64)> = by_weight.into_values().collect();
    let wave: f64 = terms.iter().map(|(times, cycles)| times * cycles).sum();
    let per_lane = match kernel {
        Kernel::Finish => FINISH_ROWS,
        Kernel::Verdicts => 32.0,
        // 24 groups of 64 lanes an equation; 32 lanes; one lane.
        Kernel::Sort | Kernel::Accumulate => EQUATION_ROWS / (24.0 * 64.0),
        Kernel::Fold => EQUATION_ROWS / 32.0,
        Kernel::Close => EQUATION_ROWS,
        _ => 1.0,
    };
    let rows = f64::from(lanes) * per_lane;
    Some(Cycles { terms, wave, rows, signature: wave / rows })
}

/// Cycles for which an instruction holds the vector unit of an RDNA SIMD, per 32 lanes: 32-bit and 64-bit integer
/// multiplications run at a quarter of the rate, 64-bit shifts and additions at half (RDNA instruction set guides).
fn cost(line: &str) -> f64 {
    let name = line.split_whitespace().next().unwrap_or_default();
    if !name.starts_with("v_") {
        return 0.0;
    }
    if ["v_mul_lo_u32", "v_mul_hi_u32", "v_mul_hi_i32", "v_mad_u64_u32", "v_mad_i64_i32"]
        .iter()
        .any(|slow| name.starts_with(slow))
    {
        return 4.0;
    }
    if name.ends_with("b64") && name.contains("sh") {
        return 2.0;
    }
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplications_of_32_bits_hold_the_unit_four_times_as_long_as_those_of_24() {
        assert_eq!(cost("v_mul_lo_u32 v0, v1, v2"), 4.0);
        assert_eq!(cost("v_mad_u64_u32 v[0:1], s0, v2, v3, v[4:5]"), 4.0);
        assert_eq!(cost("v_mad_u32_u24 v0, v1, v2, v3"), 1.0);
        assert_eq!(cost("v_lshrrev_b64 v[0:1], 26, v[2:3]"), 2.0);
        assert_eq!(cost("s_mul_i32 s0, s1, s2"), 0.0, "beside the vector unit");
        assert_eq!(cost("global_load_dwordx2 v[0:1], v2, s[0:1]"), 0.0);
    }

    #[test]
    fn the_steps_of_a_wave_are_those_of_random_digits() {
        // Of each lane's part of a sorted window: its points, the steps between their digits, then the last digit brought to 0.
        let mut state = 7u64;
        let mut digit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as u8).cast_signed().unsigned_abs()
        };
        let rows = EQUATION_ROWS as usize;
        let mut steps_of_part = |points: usize, lanes: usize| -> u32 {
            let mut digits: Vec<u8> = (0..points).map(|_| digit()).collect();
            digits.sort_unstable_by(|a, b| b.cmp(a));
            let steps = |part: &[u8]| {
                let part: Vec<u8> = part.iter().copied().filter(|digit| *digit > 0).collect();
                let (Some(first), Some(last)) = (part.first(), part.last()) else { return 0 };
                part.len() as u32 + u32::from(first - last) + last.ilog2() + last.count_ones()
            };
            digits.chunks(points / lanes).map(steps).max().unwrap_or(0)
        };
        let mut total = 0;
        for _ in 0..20 {
            total += (0..16).map(|_| steps_of_part(2 * rows, 64)).sum::<u32>();
            total += (0..8).map(|_| steps_of_part(rows, 32).max(steps_of_part(rows, 32))).sum::<u32>();
        }
        let mean = f64::from(total) / (20.0 * 24.0);
        assert!((mean - ACCUMULATE_STEPS).abs() < 0.3, "{mean}");
    }

    #[test]
    fn a_loop_counts_as_often_as_it_is_known_to_run() {
        // The shape of `verdicts`: one loop of 32 trips, in waves of 64, which pass twice.
        let code = "\
            BB0:\n v_mov_b32_e32 v0, 0\n\
            BB1:\n v_add_u32_e32 v1, v0, v2\n v_mul_lo_u32 v1, v1, v3\n s_cmp_lg_u32 s0, 32\n s_cbranch_scc1 BB1\n\
            BB2:\n v_mov_b32_e32 v4, v1\n s_endpgm\n";
        let cycles = count(Kernel::Verdicts, code, 64).expect("one loop");
        assert_eq!(cycles.terms, [(1.0, 4.0), (32.0, 10.0)]);
        assert_eq!((cycles.wave, cycles.rows), (324.0, 2048.0));
        assert!(
            count(Kernel::Ladder, code, 64).is_none(),
            "other loops than expected: no figure rather than a wrong one"
        );
        assert!(count(Kernel::Verdicts, "FADD R0, R1, R2", 32).is_none(), "another maker's code");
    }
}
