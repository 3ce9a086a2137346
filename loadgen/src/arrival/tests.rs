//! Each process against its model: rate, distribution of the times, and who speaks how often.
//!
//! The draws are deterministic, so nothing here fails by chance; bounds are those of the tests' own statistics at the stated confidence, so
//! that they hold for any seed. Kolmogorov-Smirnov: the distance of n values from their distribution is above `1.95 / sqrt(n)` with
//! probability 0.001 (asymptotic). Counts of a Poisson process lie within 3.29 standard deviations with probability 0.999.

use std::collections::BTreeMap;

use super::random::Draws;
use super::regions::Regions;
use super::{Arrival, Arrivals, Play, Split, Tick};
use crate::profile::{
    Background, Profile, active_share, beta_cdf, irwin_hall_cdf, presets, transition_rates,
};

const SEED: u64 = 20_261_124;

/// One class of `devices` with these streams.
fn profile(devices: u64, streams: &str, more: &str) -> Profile {
    let text = format!(
        "name = \"t\"\nabout = \"t\"\n{more}\n[[class]]\nname = \"c\"\ndevices = {devices}\n\
         payload = {{ kind = \"fixed\", bytes = 32 }}\n{streams}"
    );
    Profile::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn play() -> Play {
    Play { seed: SEED, scale: 1.0, diurnal: true, start_s: 0.0, split: Split::WHOLE }
}

/// Seconds and device of every event, in order.
struct Events {
    times: Vec<f64>,
    devices: Vec<u64>,
    counts: Vec<u64>,
}

/// Plays `seconds` of the profile in ticks of `tick_s`.
fn events(profile: &Profile, play: &Play, seconds: f64, tick_s: f64) -> Events {
    let mut arrivals = Arrivals::new(profile, play);
    let whose = arrivals.clone();
    let mut all: Vec<(f64, Arrival)> = Vec::new();
    let mut rows = Vec::new();
    let ticks = (seconds / tick_s).round() as u64;
    for number in 0..ticks {
        let from_s = play.start_s + number as f64 * tick_s;
        let length_us = 1_000_000_000;
        let tick = Tick { from_s, to_s: from_s + tick_s, due_us: 0, length_us };
        rows.clear();
        arrivals.fill(&tick, &mut rows);
        all.extend(rows.iter().map(|row| {
            assert!(row.due_us < length_us, "due within its tick");
            (from_s - play.start_s + row.due_us as f64 / length_us as f64 * tick_s, *row)
        }));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let speakers: Vec<_> = all.iter().map(|(_, row)| whose.resolve(row)).collect();
    Events {
        times: all.iter().map(|(time, _)| *time).collect(),
        devices: speakers.iter().map(|speaker| speaker.device).collect(),
        counts: speakers.iter().map(|speaker| speaker.count).collect(),
    }
}

impl Events {
    /// Times of each device.
    fn by_device(&self) -> BTreeMap<u64, Vec<f64>> {
        let mut by_device: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for (time, device) in self.times.iter().zip(&self.devices) {
            by_device.entry(*device).or_default().push(*time);
        }
        by_device
    }

    /// Sequence numbers of a device rise with time.
    fn assert_rising(&self) {
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for (device, count) in self.devices.iter().zip(&self.counts) {
            if let Some(before) = last.insert(*device, *count) {
                assert!(before < *count, "device {device}: {before} then {count}");
            }
        }
    }
}

/// Distance of `values` from the distribution `cdf`, against its bound at 99.9 % confidence.
fn assert_distributed(values: &[f64], cdf: impl Fn(f64) -> f64, what: &str) {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    assert!(n >= 1_000.0, "{what}: only {n} values");
    let distance = values
        .iter()
        .enumerate()
        .map(|(i, value)| {
            let model = cdf(*value);
            (model - i as f64 / n).abs().max((model - (i + 1) as f64 / n).abs())
        })
        .fold(0.0, f64::max);
    let bound = 1.95 / n.sqrt();
    assert!(distance < bound, "{what}: distance {distance:.5}, at most {bound:.5} of {n} values");
}

/// A count of a Poisson process against its mean, at 99.9 % confidence.
fn assert_poisson_count(got: usize, mean: f64, what: &str) {
    let off = (got as f64 - mean).abs() / mean.sqrt();
    assert!(off < 3.29, "{what}: {got} events, expected {mean:.1}: {off:.2} standard deviations");
}

#[test]
fn periodic_devices_speak_exactly_once_a_period_at_their_own_phase() {
    let profile = profile(5_000, "[[class.stream]]\narrival = \"periodic\"\nperiod_s = 20.0", "");
    let events = events(&profile, &play(), 100.0, 0.0125);
    events.assert_rising();
    let by_device = events.by_device();
    assert_eq!(by_device.len(), 5_000);
    for (device, times) in &by_device {
        assert_eq!(times.len(), 5, "device {device}");
        assert!(times.windows(2).all(|pair| (pair[1] - pair[0] - 20.0).abs() < 1e-3), "{times:?}");
    }
    // Phases are uniform, and neighbours in number are not neighbours in time.
    let phases: Vec<f64> = by_device.values().map(|times| times[0]).collect();
    assert_distributed(&phases, |x| x / 20.0, "phases");
    let near = phases.windows(2).filter(|pair| (pair[1] - pair[0]).abs() < 0.2).count();
    assert!(
        near < 200,
        "{near} of 5,000 neighbours speak within a hundredth of the period; 100 are expected"
    );
}

#[test]
fn jitter_moves_a_device_within_its_bound_and_keeps_once_a_period() {
    let stream = "[[class.stream]]\narrival = \"periodic\"\nperiod_s = 20.0\njitter_s = 2.0";
    let events = events(&profile(4_000, stream, ""), &play(), 100.0, 0.05);
    let mut moved = Vec::new();
    for (device, times) in events.by_device() {
        let mut periods: Vec<u64> = times.iter().map(|time| (time / 20.0) as u64).collect();
        periods.dedup();
        assert_eq!(periods, [0, 1, 2, 3, 4], "device {device}: {times:?}");
        moved.extend(times.windows(2).map(|pair| pair[1] - pair[0] - 20.0));
    }
    assert!(moved.iter().all(|off| off.abs() <= 2.0 + 1e-6));
    // The difference of two uniform places in a block of 2 s: triangular.
    let cdf = |x: f64| {
        if x < 0.0 { (2.0 + x).max(0.0).powi(2) / 8.0 } else { 1.0 - (2.0 - x).max(0.0).powi(2) / 8.0 }
    };
    assert_distributed(&moved[..2_000], cdf, "jitter");
}

#[test]
fn a_gateway_sends_for_all_its_devices_at_once() {
    let stream = "[[class.stream]]\narrival = \"periodic\"\nperiod_s = 10.0\ngateway = 32";
    // The last gateway has 8 devices.
    let events = events(&profile(3_208, stream, ""), &play(), 30.0, 0.01);
    assert_eq!(events.times.len(), 3 * 3_208);
    let by_device = events.by_device();
    assert!(by_device.len() == 3_208 && by_device.values().all(|times| times.len() == 3));
    for gateway in 0..100u64 {
        let first = &by_device[&(gateway * 32)];
        assert!((1..32).all(|member| by_device[&(gateway * 32 + member)] == *first));
    }
}

#[test]
fn bursts_have_their_length_and_gap_and_come_once_a_period() {
    let stream = "[[class.stream]]\narrival = \"periodic\"\nperiod_s = 100.0\nburst_min = 4\nburst_max = 8\nburst_gap_s = 0.25";
    let profile = profile(3_000, stream, "");
    let events = events(&profile, &play(), 200.0, 0.05);
    events.assert_rising();
    let mut lengths = [0usize; 9];
    for times in events.by_device().values() {
        // A burst that began before the start is cut: the first one of a device may be such.
        let first = 1 + times.windows(2).take_while(|pair| pair[1] - pair[0] < 1.0).count();
        let whole = if times[0] < 2.0 { first } else { 0 };
        let mut length = 1;
        for pair in times[whole.min(times.len())..].windows(2) {
            let gap = pair[1] - pair[0];
            if gap < 1.0 {
                assert!((gap - 0.25).abs() < 1e-3, "gap {gap}");
                length += 1;
            } else {
                lengths[length] += 1;
                length = 1;
            }
        }
    }
    let total: usize = lengths.iter().sum();
    assert!(total > 2_500, "not vacuous: {total}");
    // Uniform over 4 to 8: each a fifth, within 3.29 standard deviations.
    for length in 4..=8 {
        let off = (lengths[length] as f64 - total as f64 / 5.0) / (total as f64 * 0.16).sqrt();
        assert!(off.abs() < 3.3, "{lengths:?}");
    }
    assert_eq!(lengths[..4].iter().sum::<usize>(), 0);
    let rate = events.times.len() as f64 / 200.0;
    assert!((rate / profile.rate_per_s() - 1.0).abs() < 0.02, "{rate}");
}

#[test]
fn aligned_devices_report_once_in_each_window_and_never_outside() {
    let stream = "[[class.stream]]\narrival = \"aligned\"\nevery_s = 90.0\nwindow_s = 6.0\noffset_s = 3.0";
    let events = events(&profile(4_000, stream, ""), &play(), 270.0, 0.37);
    events.assert_rising();
    assert_eq!(events.times.len(), 12_000);
    for times in events.by_device().values() {
        assert_eq!(times.iter().map(|time| (time / 90.0) as u64).collect::<Vec<_>>(), [0, 1, 2]);
    }
    let offsets: Vec<f64> = events.times.iter().map(|time| (time - 3.0).rem_euclid(90.0)).collect();
    // A tick that begins before a window spreads what falls into it over the tick: 0.37 s at most.
    assert!(offsets.iter().all(|offset| *offset < 6.0 + 0.37 || *offset > 90.0 - 0.37));
    let fine = self::events(&profile(4_000, stream, ""), &play(), 90.0, 0.002);
    let offsets: Vec<f64> = fine.times.iter().map(|time| time - 3.0).collect();
    assert_distributed(&offsets, |x| (x / 6.0).clamp(0.0, 1.0), "aligned window");
    // Each device at another place each time.
    let places: Vec<f64> =
        events.by_device().values().map(|times| (times[1] - times[0] - 90.0).abs()).collect();
    assert!(places.iter().sum::<f64>() / 4_000.0 > 1.5, "two uniform places are a third of the window apart");
}

#[test]
fn poisson_events_are_independent_exponential_and_uniform_over_devices() {
    let stream = "[[class.stream]]\narrival = \"poisson\"\nmean_interval_s = 40.0";
    let events = events(&profile(2_000, stream, ""), &play(), 400.0, 0.01);
    assert_poisson_count(events.times.len(), 20_000.0, "poisson");
    let gaps: Vec<f64> = events.times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_distributed(&gaps, |x| 1.0 - (-50.0 * x).exp(), "gaps");
    // Lag-1 correlation of independent gaps: within 3.29 / sqrt(n).
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance: f64 = gaps.iter().map(|gap| (gap - mean).powi(2)).sum();
    let covariance: f64 = gaps.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    assert!((covariance / variance).abs() < 3.29 / (gaps.len() as f64).sqrt());
    let devices: Vec<f64> = events.devices.iter().map(|device| *device as f64 + 0.5).collect();
    assert_distributed(&devices, |x| x / 2_000.0, "devices");
}

#[test]
fn a_day_has_the_curve_of_its_time_zones_for_every_process() {
    let zones: Vec<String> = (0..24).map(|zone| format!("{}", zone % 7)).collect();
    let more = format!("zones = [{}]", zones.join(","));
    for (name, stream) in [
        ("periodic", "arrival = \"periodic\"\nperiod_s = 7200.0"),
        ("poisson", "arrival = \"poisson\"\nmean_interval_s = 7200.0"),
        (
            "mmpp",
            "arrival = \"mmpp\"\nmean_interval_s = 7200.0\nactive_factor = 3.0\nquiet_s = 60.0\nactive_s = 60.0\nregions = 500",
        ),
    ] {
        let streams =
            format!("diurnal = {{ amplitude = 0.8, peak_hour = 18.0 }}\n[[class.stream]]\n{stream}");
        let profile = profile(6_000, &streams, &more);
        let arrivals = Arrivals::new(&profile, &play());
        let events = events(&profile, &play(), 86_400.0, 10.0);
        let day: f64 = arrivals.expected(0.0, 86_400.0)[0];
        assert!((day - 72_000.0).abs() < 1.0, "{name}: a day keeps its mean: {day}");
        assert!((events.times.len() as f64 / day - 1.0).abs() < 0.03, "{name}: {}", events.times.len());
        for hour in 0..24 {
            let (from, to) = (f64::from(hour) * 3_600.0, f64::from(hour + 1) * 3_600.0);
            let model: f64 = arrivals.expected(from, to)[0];
            let got = events.times.iter().filter(|time| (from..to).contains(time)).count() as f64;
            // 3,000 an hour: 6 % are 3.3 standard deviations of a Poisson count; the modulated one has half as much again.
            let bound = if name == "mmpp" { 0.12 } else { 0.065 };
            assert!((got / model - 1.0).abs() < bound, "{name}, hour {hour}: {got}, model {model:.0}");
        }
        // At night of a zone its devices are quiet: hour 7 UTC is 18:00 in UTC+11.
        let flat = Play { diurnal: false, ..play() };
        let mean = Arrivals::new(&profile, &flat).expected(0.0, 3_600.0)[0];
        assert!((mean - 3_000.0).abs() < 0.5, "{name}: without a day the rate is the mean");
    }
}

#[test]
fn beta_bursts_have_their_distribution_and_strike_one_region_once_each() {
    let stream =
        "[[class.stream]]\narrival = \"beta\"\nevery_s = 100.0\nfirst_s = 5.0\nwindow_s = 10.0\nregions = 4";
    let profile = profile(20_000, stream, "");
    let events = events(&profile, &play(), 205.0, 0.01);
    assert_eq!(events.times.len(), 10_000, "a quarter of all, twice");
    let first: Vec<f64> = events.times[..5_000].iter().map(|time| time - 5.0).collect();
    assert_distributed(&first, |x| beta_cdf(3, 4, x / 10.0), "beta");
    let mut devices = events.devices[..5_000].to_vec();
    devices.sort_unstable();
    devices.dedup();
    assert_eq!(devices.len(), 5_000, "each device once");
    assert!(devices[4_999] - devices[0] < 5_000, "of one region");
    // Order of arrival is not the order of numbers.
    let rising = events.devices[..5_000].windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((2_300..2_700).contains(&rising), "{rising}");
}

#[test]
fn a_modulated_process_has_its_mean_its_share_of_activity_and_is_overdispersed() {
    let stream = "[[class.stream]]\narrival = \"mmpp\"\nmean_interval_s = 60.0\nactive_factor = 10.0\nquiet_s = 90.0\nactive_s = 10.0\nregions = 400";
    let profile = profile(40_000, stream, "");
    let events = events(&profile, &play(), 300.0, 0.05);
    let expected = 200_000.0;
    // Mean over 400 regions and 30 mean active times: a standard error below 1.5 %.
    assert!((events.times.len() as f64 / expected - 1.0).abs() < 0.05, "{}", events.times.len());
    // Counts of one region (100 devices) in 10 s: a Poisson process has a variance equal to its mean.
    let mut counts = vec![0.0f64; 400 * 30];
    for (time, device) in events.times.iter().zip(&events.devices) {
        counts[(device / 100) as usize * 30 + ((time / 10.0) as usize).min(29)] += 1.0;
    }
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / counts.len() as f64;
    assert!(variance / mean > 3.0, "variance {variance:.1}, mean {mean:.1}: regions are active together");
    // The index of dispersion by the model: 1 + 2 (l_a - l_q)^2 p (1-p) tau (1 - (1 - e^-x) / x) / mean rate, x = 10 s / tau, tau = 9 s.
    let (p, tau) = (0.1f64, 9.0f64);
    let quiet: f64 = 100.0 / 60.0 / (1.0 - p + p * 10.0);
    let x: f64 = 10.0 / tau;
    let model = 1.0
        + 2.0 * (9.0 * quiet).powi(2) * p * (1.0 - p) * tau * (1.0 - (1.0 - (-x).exp()) / x) / (100.0 / 60.0);
    assert!(
        (variance / mean / model - 1.0).abs() < 0.15,
        "dispersion {:.2}, model {model:.2}",
        variance / mean
    );
}

#[test]
fn a_common_cause_makes_many_regions_active_at_once() {
    let coupled = "[[class.stream]]\narrival = \"mmpp\"\nmean_interval_s = 600.0\nactive_factor = 500.0\nquiet_s = 100000.0\nactive_s = 20.0\nregions = 300\n\
        [class.stream.background]\nevery_s = 200.0\nlasts_s = 20.0\ncoupling = 0.9\nonset_s = 20.0";
    let profile = profile(30_000, coupled, "");
    let events = events(&profile, &play(), 4_000.0, 0.5);
    // Regions with more than a tenth of their devices heard in a 10 s slot, slot by slot: all quiet, or many at once.
    let mut active: BTreeMap<u64, BTreeMap<u64, u32>> = BTreeMap::new();
    for (time, device) in events.times.iter().zip(&events.devices) {
        *active.entry((time / 10.0) as u64).or_default().entry(device / 100).or_default() += 1;
    }
    let many = |slot: &BTreeMap<u64, u32>| slot.values().filter(|count| **count > 10).count();
    let busiest = active.values().map(many).max().unwrap_or(0);
    let silent = active.values().filter(|slot| many(slot) == 0).count();
    assert!(busiest > 60, "{busiest} of 300 regions at once");
    assert!(silent > 100, "{silent} of 400 slots without any");
}

/// Time that regions are active, over 10,000 common causes: their durations and what they set off scatter so that the mean has a standard
/// error of about 2.5 %; four of them.
#[test]
fn regions_are_active_for_the_share_of_the_time_that_the_equations_give() {
    let background = Background { every_s: 200.0, lasts_s: 20.0, coupling: 0.9, onset_s: 20.0 };
    for background in [None, Some(background)] {
        let (quiet_s, active_s) = (2_000.0, 20.0);
        let model = active_share(quiet_s, active_s, background.as_ref());
        let rates = transition_rates(quiet_s, active_s, background.as_ref());
        let mut draws = Draws::new(SEED);
        let mut regions = Regions::new(300, model, rates, background.as_ref(), 0.0, &mut draws);
        let (mut now_s, mut active) = (0.0, 0.0);
        while now_s < 2e6 {
            active += regions.active().len() as f64 * (regions.next_s() - now_s);
            now_s = regions.next_s();
            regions.step(&mut draws);
        }
        let share = active / now_s / 300.0;
        assert!((share / model - 1.0).abs() < 0.1, "{background:?}: {share:.4}, model {model:.4}");
    }
}

#[test]
fn a_reconnect_storm_has_attempts_at_growing_distances_and_fewer_each_time() {
    let stream = "[[class.stream]]\narrival = \"reconnect\"\nevery_s = 1000.0\nfirst_s = 10.0\nsuccess = 0.5\ncap_s = 4.0\nattempts = 4";
    let profile = profile(8_000, stream, "");
    let events = events(&profile, &play(), 60.0, 0.005);
    assert_eq!(events.times.len(), 8_000 + 4_000 + 2_000 + 1_000);
    events.assert_rising();
    let by_device = events.by_device();
    let tried = |times: usize| by_device.values().filter(|times_of| times_of.len() == times).count();
    assert_eq!((tried(1), tried(2), tried(3), tried(4)), (4_000, 2_000, 1_000, 1_000));
    // The first attempt within a second; the second at 1 s and the sum of two uniform values.
    let firsts: Vec<f64> = by_device.values().map(|times| times[0] - 10.0).collect();
    assert_distributed(&firsts, |x| irwin_hall_cdf(1, x), "first attempts");
    let seconds: Vec<f64> =
        by_device.values().filter_map(|times| times.get(1)).map(|time| time - 11.0).collect();
    assert_distributed(&seconds, |x| irwin_hall_cdf(2, x), "second attempts");
}

#[test]
fn workers_share_the_events_without_gap_or_overlap() {
    let world = presets::load("world-20b").unwrap();
    let whole = Play { scale: 3e-6, start_s: 890.0, ..play() };
    let all = events(&world, &whole, 20.0, 0.02);
    let mut parts: Vec<Events> = Vec::new();
    for worker in 0..3 {
        parts.push(events(&world, &Play { split: Split { worker, of: 3 }, ..whole }, 20.0, 0.02));
    }
    let sum: usize = parts.iter().map(|part| part.times.len()).sum();
    // Counting processes are split exactly; drawn ones are drawn anew, with a third of the rate each.
    let drawn = (sum as f64 - all.times.len() as f64).abs();
    assert!(drawn < 5.0 * (all.times.len() as f64).sqrt(), "{sum} in parts, {} in one", all.times.len());
    for part in &parts {
        assert!((part.times.len() as f64 / all.times.len() as f64 - 1.0 / 3.0).abs() < 0.05);
    }
    let flat = presets::load("flat").unwrap();
    let small = Play { scale: 0.01, ..play() };
    let mut devices: Vec<u64> = (0..3)
        .flat_map(|worker| {
            events(&flat, &Play { split: Split { worker, of: 3 }, ..small }, 10.0, 0.02).devices
        })
        .collect();
    devices.sort_unstable();
    let mut once = events(&flat, &small, 10.0, 0.02).devices;
    once.sort_unstable();
    assert_eq!(devices, once);
    assert_eq!(devices.len(), 10_000);
}

#[test]
fn the_world_has_the_mix_of_its_table_and_numbers_over_all_twenty_billion() {
    let world = presets::load("world-20b").unwrap();
    // One quarter hour at the mean of the day: a whole cycle of what is aligned.
    let play = Play { scale: 2e-6, diurnal: false, ..play() };
    let mut arrivals = Arrivals::new(&world, &play);
    let mut rows = Vec::new();
    let mut counts = vec![0u64; world.classes.len()];
    let (mut least, mut most) = (u64::MAX, 0);
    for second in 0..900 {
        rows.clear();
        let from_s = f64::from(second);
        arrivals.fill(&Tick { from_s, to_s: from_s + 1.0, due_us: 0, length_us: 1_000_000 }, &mut rows);
        for row in &rows {
            counts[usize::from(arrivals.class(row))] += 1;
            let device = arrivals.resolve(row).device;
            (least, most) = (least.min(device), most.max(device));
        }
    }
    let total: u64 = counts.iter().sum();
    assert!((total as f64 / (world.rate_per_s() * 2e-6 * 900.0) - 1.0).abs() < 0.01, "{total}");
    for (class, count) in world.classes.iter().zip(&counts) {
        let (share, table) = (*count as f64 / total as f64, class.rate_per_s() / world.rate_per_s());
        assert!((share - table).abs() < 0.01, "{}: {share:.4}, the table has {table:.4}", class.name);
    }
    assert!(least < 20_000_000 && most > 19_950_000_000 && most < 20_000_000_000, "{least} .. {most}");
}

#[test]
fn a_sample_takes_one_device_of_each_stretch() {
    let profile = profile(1_000_003, "[[class.stream]]\narrival = \"periodic\"\nperiod_s = 1.0", "");
    let play = Play { scale: 1e-3, ..play() };
    let mut devices = events(&profile, &play, 1.0, 0.01).devices;
    devices.sort_unstable();
    assert_eq!(devices.len(), 1_000);
    for (number, device) in devices.iter().enumerate() {
        let stretch = |n: u64| n * 1_000_003 / 1_000;
        assert!((stretch(number as u64)..stretch(number as u64 + 1)).contains(device));
    }
}

#[test]
fn memory_does_not_grow_with_the_population() {
    let world = presets::load("world-20b").unwrap();
    for scale in [1e-6, 1.0] {
        let mut arrivals = Arrivals::new(&world, &Play { scale, ..play() });
        // Not a tick of the whole world, but of 20 us of it: some 1,800 events.
        let mut rows = Vec::new();
        arrivals.fill(&Tick { from_s: 0.0, to_s: 2e-5, due_us: 0, length_us: 20 }, &mut rows);
        assert!(rows.len() < 20_000);
        assert!(rows.iter().all(|row| arrivals.resolve(row).device < 20_000_000_000));
    }
    assert_eq!(size_of::<Arrival>(), 24);
}
