//! The search for bad rows on a model whose rows are numbers: exact verdicts, and what they cost, which can be counted here.
//! (Verdicts of the real engines: `tests/culprits.rs`.)

use super::*;
use crate::batch;

/// A batch whose rows are numbers: a good row weighs nothing, a bad one its own odd weight.
struct Model<'a> {
    bad: Vec<bool>,
    costs: &'a Costs,
    spent: f32,
    tests: usize,
    singles: usize,
    side_by_side: usize,
}

impl Equation for Model<'_> {
    type Value = u64;

    fn value(&mut self, rows: &[u32]) -> u64 {
        assert!(!rows.is_empty());
        // Between two powers of two the cost of the nearer one below holds, which is the dearer.
        self.spent += self.costs.group[rows.len().ilog2() as usize] * rows.len() as f32;
        self.tests += 1;
        rows.iter().fold(0, |sum, &row| sum.wrapping_add(weight(self.bad[row as usize], row)))
    }

    fn difference(&mut self, whole: &u64, part: &u64) -> u64 {
        whole.wrapping_sub(*part)
    }

    fn is_neutral(&mut self, value: &u64) -> bool {
        *value == 0
    }

    fn clean_groups(&mut self, rows: &[u32], size: usize, clean: &mut [bool]) {
        let (lanes, groups) = (self.costs.lanes, rows.len().div_ceil(size));
        assert!(size <= self.costs.lane_rows_max && groups <= lanes && groups == clean.len());
        self.spent += (self.costs.lane_once + self.costs.lane_row * size as f32) * lanes as f32;
        self.side_by_side += groups;
        for (rows, clean) in rows.chunks(size).zip(clean) {
            *clean = rows.iter().all(|&row| !self.bad[row as usize]);
        }
    }

    fn check_rows(&mut self, rows: &[u32], valid: &mut [bool]) {
        assert!(rows.len() <= self.costs.lanes && rows.len() == valid.len());
        // A vector costs the same however many of its lanes are in use.
        self.spent += self.costs.single * self.costs.lanes as f32;
        self.singles += rows.len();
        for (row, valid) in rows.iter().zip(valid) {
            *valid = !self.bad[*row as usize];
        }
    }
}

fn weight(bad: bool, row: u32) -> u64 {
    let mixed = (u64::from(row) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if bad { (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1 } else { 0 }
}

/// Runs the search over `bad`, checks every verdict, returns the model with what was spent.
fn run(bad: Vec<bool>, costs: &Costs, seed: u64) -> Model<'_> {
    run_from(&mut Share::default(), bad, costs, seed)
}

fn run_from<'a>(share: &mut Share, bad: Vec<bool>, costs: &'a Costs, seed: u64) -> Model<'a> {
    let mut rows: Vec<u32> = (0..bad.len() as u32).collect();
    let mut verdicts: Vec<bool> = (0..bad.len()).map(|row| row % 2 == 0).collect();
    let mut model = Model { bad, costs, spent: 0.0, tests: 0, singles: 0, side_by_side: 0 };
    search_span(&mut model, costs, share, &mut rows, seed, &mut verdicts);
    for (row, (&bad, &verdict)) in model.bad.iter().zip(&verdicts).enumerate() {
        assert_eq!(verdict, !bad, "row {row} of {}", model.bad.len());
    }
    model
}

fn spread(length: usize, bad: usize) -> Vec<bool> {
    (0..length).map(|row| (row + 1) * bad / length > row * bad / length).collect()
}

#[test]
fn every_pattern_of_bad_rows_in_a_small_batch_gets_exact_verdicts() {
    for length in 0..=10 {
        for pattern in 0_u32..1 << length {
            let bad = (0..length).map(|row| pattern >> row & 1 == 1).collect();
            run(bad, &batch::COSTS, u64::from(pattern));
        }
    }
}

#[test]
fn one_bad_row_is_found_wherever_it_lies() {
    for length in [1, 2, 3, 31, 64, 100, 1024, 1025, 4096] {
        for at in [0, 1, length / 3, length / 2, length - 1] {
            let mut bad = vec![false; length];
            bad[at.min(length - 1)] = true;
            run(bad, &batch::COSTS, at as u64);
        }
    }
}

#[test]
fn a_clean_batch_costs_one_test_per_group() {
    let model = run(vec![false; 4096], &batch::COSTS, 1);
    assert_eq!(model.tests, 4096 / batch::COSTS.group_rows_max);
    assert_eq!(model.singles, 0);
}

/// The engines' costs.
fn engines() -> [(&'static str, Costs); 3] {
    [("serial", batch::COSTS), ("avx2", crate::simd::COSTS_AVX2), ("avx512", crate::simd::COSTS_AVX512)]
}

#[test]
fn eight_lanes_check_rows_together_and_give_the_same_verdicts() {
    let costs = Costs { lanes: 8, ..batch::COSTS };
    for bad in [1, 9, 100, 500, 999, 1000] {
        run(spread(1000, bad), &costs, bad as u64);
    }
}

#[test]
fn the_alarm_is_on_for_some_batches_after_one_that_failed() {
    let alarm = Alarm::default();
    assert!(!alarm.share().alert);
    alarm.note(&Share { failed: true, bad: 30.0, decided: 100.0, ..Share::default() });
    for _ in 0..ALARM_BATCHES {
        let share = alarm.share();
        assert!(share.alert);
        alarm.note(&share);
    }
    assert!(!alarm.share().alert);
    alarm.note(&Share::default());
    assert!(!alarm.share().alert, "a count of zero must not wrap");
}

#[test]
fn a_small_share_is_remembered_and_forgotten_after_some_clean_batches() {
    let alarm = Alarm::default();
    alarm.note(&Share { failed: true, bad: 8.0, decided: 1000.0, ..Share::default() });
    let share = alarm.share();
    assert!(share.estimating && !share.failed);
    assert!((0.008..0.009).contains(&share.estimate()), "{share:?}");
    let mut clean = 0;
    while alarm.share().estimating {
        alarm.note(&Share { bad: 0.0, ..alarm.share() });
        clean += 1;
    }
    assert!((2..6).contains(&clean) && !alarm.share().alert, "{clean} clean batches");
}

#[test]
fn a_remembered_share_saves_the_test_of_the_whole_and_costs_clean_batches_little() {
    for (engine, costs) in engines() {
        let clean = costs.group[costs.group_rows_max.ilog2() as usize];
        for (bad, saved) in [(4, 0.0), (16, 0.3), (41, 0.3)] {
            let mean = |share: &dyn Fn() -> Share, bad: usize| {
                let spent =
                    |seed: u64| run_from(&mut share(), spread(4096, bad), &costs, seed * 31 + 7).spent;
                (0..20).map(|seed| spent(seed) / 4096.0).sum::<f32>() / 20.0
            };
            let alarm = Alarm::default();
            let mut share = Share::default();
            run_from(&mut share, spread(4096, bad), &costs, 5);
            alarm.note(&share);
            let (fresh, again) = (mean(&Share::default, bad), mean(&|| alarm.share(), bad));
            println!("{engine}: {bad} bad of 4096 cost {fresh}, {again} when expected");
            assert!(again < fresh - saved * clean, "{engine}: {bad} bad cost {again} instead of {fresh}");
            let none = mean(&|| alarm.share(), 0);
            println!("{engine}: none bad {none} when {bad} are expected, {clean} otherwise");
            assert!(none < 2.0 * clean, "{engine}: {none} for a clean batch that is tested for {clean}");
            let all = mean(&|| alarm.share(), 4096);
            assert!(all < 1.2 * costs.single + clean, "{engine}: {all} for one that is bad throughout");
        }
    }
}

#[test]
fn an_alert_costs_a_clean_batch_little_and_saves_the_test_of_a_bad_one() {
    let alert = Share { alert: true, ..Share::default() };
    for (engine, costs) in engines() {
        let clean = costs.group[costs.group_rows_max.ilog2() as usize];
        let mut share = alert;
        let model = run_from(&mut share, vec![false; 4096], &costs, 3);
        assert!(!share.failed);
        let spent = model.spent / 4096.0;
        // The model rounds the group that is left down to the next dearer size.
        assert!(spent < 1.25 * clean, "{engine}: {spent} for a clean batch that is tested for {clean}");
        for bad in [410, 2048, 4096] {
            let mut share = alert;
            let model = run_from(&mut share, spread(4096, bad), &costs, 4);
            assert!(share.failed);
            let spent = model.spent / 4096.0;
            assert!(spent < 1.1 * costs.single + 0.1 * clean, "{engine}: {spent} with {bad} bad rows");
        }
    }
}

#[test]
fn rows_are_decided_whatever_the_alert_finds_first() {
    let costs = Costs { lanes: 8, ..batch::COSTS };
    for length in [0, 1, 255, 256, 257, 2063, 2064, 2065, 2300] {
        for bad in [0, 1, 2, 20, length / 2, length] {
            for seed in 0..5 {
                let mut share = Share { alert: true, ..Share::default() };
                run_from(&mut share, spread(length, bad.min(length)), &costs, seed);
            }
        }
    }
}

#[test]
fn what_one_span_teaches_saves_tests_in_the_next() {
    let (costs, mut share) = (&batch::COSTS, Share::default());
    let mut spent = [0.0; 2];
    for spent in &mut spent {
        let mut model =
            Model { bad: vec![true; 1024], costs, spent: 0.0, tests: 0, singles: 0, side_by_side: 0 };
        let mut rows: Vec<u32> = (0..1024).collect();
        let mut verdicts = vec![true; 1024];
        search_span(&mut model, costs, &mut share, &mut rows, 9, &mut verdicts);
        assert!(!verdicts.contains(&true));
        *spent = model.spent / 1024.0;
    }
    assert!(spent[0] > costs.single + costs.group[10], "the first span pays for its failed test");
    assert_eq!(spent[1], costs.single, "the second checks rows one by one at once");
}

/// Mean and worst cost per row over seeds.
fn cost(costs: &Costs, length: usize, bad: usize) -> (f32, f32) {
    let costs = (0..20).map(|seed| run(spread(length, bad), costs, seed * 77 + 5).spent);
    let costs: Vec<f32> = costs.map(|spent| spent / length as f32).collect();
    (costs.iter().sum::<f32>() / costs.len() as f32, costs.iter().copied().fold(0.0, f32::max))
}

#[test]
fn no_share_of_bad_rows_costs_more_than_one_failed_test_and_single_verification() {
    for (engine, costs) in engines() {
        for length in [16, 64, 256, 1024, 4096] {
            let first = length.min(costs.group_rows_max);
            let failed = costs.group[first.ilog2() as usize] * first as f32 / length as f32;
            // Exploration: what it takes to find out that groups do not pay, and vectors that are not full.
            let exploration = 1.15 * costs.single + 24.0 * costs.single * costs.lanes as f32 / length as f32;
            let bound = failed + exploration;
            for bad in
                (0..=length.ilog2()).map(|halvings| length >> halvings).chain([length / 10, length / 3])
            {
                let (mean, worst) = cost(&costs, length, bad);
                println!(
                    "{engine} length {length:4} bad {bad:4}: mean {mean:5.1} worst {worst:5.1} bound {bound:5.1}"
                );
                assert!(
                    worst <= bound,
                    "{engine}: {bad} bad rows of {length} cost {worst}, more than {bound}"
                );
            }
        }
    }
}

#[test]
fn few_bad_rows_cost_little_more_than_none() {
    // Against the clean batch's own test; decoding, which no search repeats, is not counted.
    let group = batch::COSTS.group;
    let cases = [(1024, 1, 2.2 * group[10]), (4096, 4, 2.2 * group[11]), (4096, 41, 2.8 * group[11])];
    for (length, bad, bound) in cases {
        let (mean, _) = cost(&batch::COSTS, length, bad);
        assert!(mean < bound, "{bad} bad rows of {length} cost {mean}, more than {bound}");
    }
}
