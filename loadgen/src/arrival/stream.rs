//! One stream of one class, compiled: counters in place of devices.
//!
//! Owns the processes of [`arrival`](super). Invariants: events of a tick fall due within it; a counting process gives every number of its
//! share exactly once, whatever the lengths of the ticks.

use std::num::NonZeroU64;

use super::curve::{Curve, Zones};
use super::random::Draws;
use super::regions::Regions;
use super::{Arrival, Play, Speaker, Split, Tick};
use crate::feistel::Permutation;
use crate::mix::{below, mix};
use crate::profile::{Arrival as Model, Class, Profile, Stream as Settings, beta_cdf, irwin_hall_cdf};

/// Event numbers are rounded down from a sum of floating-point products: this far below a whole number counts as the number.
const ROUNDING: f64 = 1e-6;

/// Occurrence and rank share a key: ranks have this many bits (populations end at 2^48; an occurrence above 2^16 wraps, which repeats an
/// order and no device within one).
const RANK_BITS: u32 = 48;

/// Where a class lies in the population.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    /// Number of its first device.
    pub(super) first: u64,
    /// Its devices, and those of the sample.
    pub(super) devices: u64,
    pub(super) sampled: u64,
}

/// What turns times within a tick into due times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emit {
    pub(super) tick: Tick,
    pub(super) start_s: f64,
}

impl Emit {
    fn length_s(&self) -> f64 {
        self.tick.to_s - self.tick.from_s
    }

    /// An arrival at this fraction of the tick.
    fn at(&self, stream: u8, fraction: f64) -> Arrival {
        let fraction = fraction.clamp(0.0, 1.0);
        let last = self.tick.length_us.saturating_sub(1);
        let at_s = self.tick.from_s + fraction * self.length_s() - self.start_s;
        Arrival {
            due_us: self.tick.due_us + ((fraction * self.tick.length_us as f64) as u64).min(last),
            key: 0,
            at_ms: (at_s * 1e3) as u32,
            part: 0,
            stream,
            sub: 0,
        }
    }
}

/// A stream with its counters.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    base: Base,
    /// Its devices: a stretch of the sample.
    first: u64,
    count: u64,
    seed: u64,
    split: Split,
    curve: Curve,
    zones: Zones,
    /// Integral of the curve at the start, by zone.
    origins: Vec<f64>,
    /// Whether a device counts its cycles (it is in no other stream) or milliseconds.
    counts_cycles: bool,
    process: Process,
}

#[derive(Clone, Debug)]
enum Process {
    Periodic {
        period_s: f64,
        gateway: u64,
        jitter: f64,
        burst: (u32, u32),
        gap_s: f64,
        next: Vec<u64>,
        order: Vec<Permutation>,
    },
    Aligned {
        every_s: f64,
        window_s: f64,
        offset_s: f64,
        next: u64,
    },
    Beta {
        every_s: f64,
        first_s: f64,
        window_s: f64,
        shape: (u32, u32),
        regions: u64,
    },
    Poisson {
        rate: f64,
        draws: Draws,
        wait: f64,
    },
    Mmpp {
        quiet: f64,
        active: f64,
        mean: f64,
        count: u64,
        background: Box<Regions>,
        states: Draws,
        draws: Draws,
        wait: f64,
    },
    Reconnect {
        every_s: f64,
        first_s: f64,
        delays: Vec<f64>,
        survivors: Vec<u64>,
    },
}

/// First number at or above `count`, forgiving rounding.
fn number(count: f64) -> u64 {
    (count - ROUNDING).ceil().max(0.0) as u64
}

impl Stream {
    pub(super) fn new(
        profile: &Profile,
        class: &Class,
        settings: &Settings,
        base: Base,
        seed: u64,
        play: &Play,
    ) -> Self {
        let place = |share: f64| (share * base.sampled as f64).round() as u64;
        let first = place(settings.of[0]).min(base.sampled - 1);
        let count = (place(settings.of[1]).max(first + 1) - first).min(base.sampled - first);
        let curve = if play.diurnal { Curve::new(class.diurnal.as_ref()) } else { Curve::Flat };
        let zones = if curve.is_flat() { Zones::utc(count) } else { Zones::new(&profile.zones, count) };
        let alone = class
            .streams
            .iter()
            .filter(|other| other.of[0] < settings.of[1] && settings.of[0] < other.of[1])
            .count()
            == 1;
        let periodic = matches!(settings.arrival, Model::Periodic { burst_max: 1, .. });
        let mut stream = Self {
            base,
            first,
            count,
            seed,
            split: play.split,
            origins: (0..zones.len())
                .map(|zone| curve.integral(play.start_s + zones.offset_s(zone)))
                .collect(),
            curve,
            zones,
            counts_cycles: alone && periodic,
            process: Process::Poisson { rate: 0.0, draws: Draws::new(0), wait: 0.0 },
        };
        stream.process = stream.compile(settings, play.start_s);
        stream
    }

    fn compile(&self, settings: &Settings, start_s: f64) -> Process {
        let count = self.count as f64;
        // Each worker draws its own events, and all of them see the same background.
        let mut draws = Draws::new(mix(self.seed ^ mix(u64::from(self.split.worker) ^ 0x4452_4157)));
        let mut states = Draws::new(mix(self.seed ^ 0x5354_4154));
        let wait = draws.exponential();
        let rate_per_device = settings.rate_per_device_s();
        match settings.arrival {
            Model::Periodic { period_s, jitter_s, gateway, burst_min, burst_max, burst_gap_s } => {
                let gateway = u64::from(gateway);
                let parts = self.zones.len() * burst_max as usize;
                let order = (0..self.zones.len())
                    .map(|zone| self.order(zone as u64, places(self.zones.range(zone).1, gateway)))
                    .collect();
                let mut process = Process::Periodic {
                    period_s,
                    gateway,
                    jitter: jitter_s / period_s,
                    burst: (burst_min, burst_max),
                    gap_s: burst_gap_s,
                    next: Vec::new(),
                    order,
                };
                let firsts: Vec<u64> = (0..parts)
                    .map(|part| {
                        let (zone, message) = (part / burst_max as usize, part % burst_max as usize);
                        number(self.periodic_count(&process, zone, message, start_s))
                    })
                    .collect();
                if let Process::Periodic { next, .. } = &mut process {
                    *next = firsts;
                }
                process
            }
            Model::Aligned { every_s, window_s, offset_s } => {
                let next = number(aligned_count(count, every_s, window_s, offset_s, start_s));
                Process::Aligned { every_s, window_s, offset_s, next }
            }
            Model::Beta { every_s, first_s, window_s, alpha, beta, regions } => Process::Beta {
                every_s,
                first_s: start_s + first_s,
                window_s,
                shape: (alpha, beta),
                regions: u64::from(regions),
            },
            Model::Poisson { .. } => {
                Process::Poisson { rate: rate_per_device * count / f64::from(self.split.of), draws, wait }
            }
            Model::Mmpp { active_factor, quiet_s, active_s, regions, background, .. } => {
                // A region without devices would never be heard: a small sample has fewer regions.
                let regions = regions.min(u32::try_from(self.count).unwrap_or(u32::MAX));
                let share = crate::profile::active_share(quiet_s, active_s, background.as_ref());
                let rates = crate::profile::transition_rates(quiet_s, active_s, background.as_ref());
                let quiet = rate_per_device / (1.0 - share + share * active_factor);
                let background =
                    Regions::new(regions, share, rates, background.as_ref(), start_s, &mut states);
                Process::Mmpp {
                    quiet,
                    active: quiet * active_factor,
                    mean: rate_per_device,
                    count: u64::from(regions),
                    background: Box::new(background),
                    states,
                    draws,
                    wait,
                }
            }
            Model::Reconnect { every_s, first_s, success, cap_s, attempts } => {
                let mut delays = vec![0.0];
                let mut survivors = vec![self.count];
                for n in 1..attempts {
                    let before = delays.last().copied().unwrap_or(0.0);
                    delays.push(before + f64::from(n - 1).exp2().min(cap_s));
                    survivors.push((count * (1.0 - success).powi(n as i32)).round() as u64);
                }
                Process::Reconnect { every_s, first_s: start_s + first_s, delays, survivors }
            }
        }
    }

    /// The permutation number `which` of `n` places.
    fn order(&self, which: u64, n: u64) -> Permutation {
        Permutation::new(self.seed, which, NonZeroU64::new(n).unwrap_or(NonZeroU64::MIN))
    }

    /// Whether event `number` belongs to this worker.
    fn mine(&self, number: u64) -> bool {
        self.split.of <= 1 || number % u64::from(self.split.of) == u64::from(self.split.worker)
    }

    /// Cumulative count of a periodic process: bursts (or gateways) whose message `message` is due before `at_s`.
    fn periodic_count(&self, process: &Process, zone: usize, message: usize, at_s: f64) -> f64 {
        let Process::Periodic { period_s, gateway, gap_s, .. } = process else { return 0.0 };
        let places = places(self.zones.range(zone).1, *gateway) as f64;
        let local_s = at_s + self.zones.offset_s(zone) - message as f64 * gap_s;
        // One cycle ahead: later messages of bursts that began before the start have numbers too.
        ((self.curve.integral(local_s) - self.origins[zone]) / period_s + 1.0) * places
    }

    pub(super) fn fill(&mut self, emit: &Emit, stream: u8, out: &mut Vec<Arrival>) {
        // Moved out and back, so that the process may use the rest of the stream.
        let nothing = Process::Poisson { rate: 0.0, draws: Draws::new(0), wait: 0.0 };
        let mut process = std::mem::replace(&mut self.process, nothing);
        self.fill_with(&mut process, emit, stream, out);
        self.process = process;
    }

    fn fill_with(&self, process: &mut Process, emit: &Emit, stream: u8, out: &mut Vec<Arrival>) {
        let (from_s, to_s) = (emit.tick.from_s, emit.tick.to_s);
        match process {
            Process::Periodic { .. } => self.fill_periodic(process, emit, stream, out),
            Process::Aligned { every_s, window_s, offset_s, next } => {
                let count = self.count as f64;
                let c = |at_s| aligned_count(count, *every_s, *window_s, *offset_s, at_s);
                let (c0, c1) = (c(from_s), c(to_s));
                let end = number(c1);
                for key in (*next..end).filter(|key| self.mine(*key)) {
                    // Inside the part of the tick in which the window is open.
                    let arrival = emit.at(stream, (key as f64 - c0) / (c1 - c0));
                    let (cycle, rank) = (key / self.count, key % self.count);
                    out.push(Arrival { key: cycle << RANK_BITS | rank, ..arrival });
                }
                *next = end.max(*next);
            }
            Process::Beta { every_s, first_s, window_s, shape, regions } => {
                let cdf = |x: f64| beta_cdf(shape.0, shape.1, x);
                for (occurrence, begin_s) in occurrences(*first_s, *every_s, *window_s, from_s, to_s) {
                    let region = below(mix(self.seed ^ mix(occurrence)), *regions);
                    let (_, devices) = part(self.count, *regions, region);
                    let c = |at_s: f64| devices as f64 * cdf((at_s - begin_s) / *window_s);
                    let (c0, c1) = (c(from_s), c(to_s));
                    self.ranks(emit, stream, occurrence, region as u16, 0, (c0, c1), out);
                }
            }
            Process::Reconnect { every_s, first_s, delays, survivors, .. } => {
                for (attempt, (delay_s, devices)) in delays.iter().zip(survivors.iter()).enumerate() {
                    let sums = attempt as u32 + 1;
                    let window_s = f64::from(sums);
                    let first_s = *first_s + delay_s;
                    for (occurrence, begin_s) in occurrences(first_s, *every_s, window_s, from_s, to_s) {
                        let c = |at_s: f64| *devices as f64 * irwin_hall_cdf(sums, at_s - begin_s);
                        self.ranks(emit, stream, occurrence, 0, attempt as u8, (c(from_s), c(to_s)), out);
                    }
                }
            }
            Process::Poisson { rate, draws, wait } => {
                let max = self.curve.max();
                let hazard = *rate * max * emit.length_s();
                while *wait < hazard {
                    let fraction = *wait / hazard;
                    *wait += draws.exponential();
                    let key = draws.bits();
                    if !self.curve.is_flat() {
                        let zone = self.zones.of(self.drawn(key, 0, self.count));
                        let at_s = from_s + fraction * emit.length_s() + self.zones.offset_s(zone);
                        if draws.unit() * max > self.curve.factor(at_s) {
                            continue;
                        }
                    }
                    out.push(Arrival { key, ..emit.at(stream, fraction) });
                }
                *wait -= hazard;
            }
            Process::Mmpp { quiet, active, count, background, states, draws, wait, .. } => {
                let mut at_s = from_s;
                while at_s < to_s {
                    let until_s = background.next_s().min(to_s);
                    let per_region = self.count as f64 / *count as f64 / f64::from(self.split.of);
                    let rate_quiet = *quiet * per_region * background.quiet().len() as f64;
                    let rate_active = *active * per_region * background.active().len() as f64;
                    let max = self.curve.max();
                    let hazard = (rate_quiet + rate_active) * max * (until_s - at_s).max(0.0);
                    while *wait < hazard {
                        let when_s = at_s + *wait / hazard * (until_s - at_s);
                        *wait += draws.exponential();
                        let is_active = draws.unit() * (rate_quiet + rate_active) <= rate_active;
                        let list = if is_active { background.active() } else { background.quiet() };
                        let Some(region) = list.get(draws.below(list.len() as u64) as usize) else {
                            continue;
                        };
                        let key = draws.bits();
                        let (start, devices) = part(self.count, *count, u64::from(*region));
                        if devices == 0 {
                            continue;
                        }
                        if !self.curve.is_flat() {
                            let zone = self.zones.of(self.drawn(key, start, devices));
                            let factor = self.curve.factor(when_s + self.zones.offset_s(zone));
                            if draws.unit() * max > factor {
                                continue;
                            }
                        }
                        let fraction = (when_s - from_s) / emit.length_s();
                        out.push(Arrival { key, part: *region as u16, ..emit.at(stream, fraction) });
                    }
                    *wait -= hazard;
                    at_s = until_s;
                    if background.next_s() <= to_s {
                        background.step(states);
                    }
                }
            }
        }
    }

    fn fill_periodic(&self, process: &mut Process, emit: &Emit, stream: u8, out: &mut Vec<Arrival>) {
        let messages = match process {
            Process::Periodic { burst, .. } => burst.1 as usize,
            _ => return,
        };
        for zone in 0..self.zones.len() {
            let (_, devices) = self.zones.range(zone);
            for message in 0..messages {
                let c0 = self.periodic_count(process, zone, message, emit.tick.from_s);
                let c1 = self.periodic_count(process, zone, message, emit.tick.to_s);
                let Process::Periodic { gateway, burst, next, order, .. } = process else { return };
                let place = zone * messages + message;
                let end = number(c1);
                let (start, gateway) = (next[place], *gateway);
                next[place] = end.max(start);
                for key in (start..end).filter(|key| self.mine(*key)) {
                    let arrival = emit.at(stream, (key as f64 - c0) / (c1 - c0));
                    let arrival = Arrival { key, part: zone as u16, sub: message as u8, ..arrival };
                    if gateway == 1 {
                        if message < burst.0 as usize || message < burst_length(self.seed, key, *burst) {
                            out.push(arrival);
                        }
                        continue;
                    }
                    // A gateway sends for all its devices; the last one of a zone may have fewer.
                    let cabinet = order[zone].apply(key % places(devices, gateway));
                    for member in 0..gateway.min(devices - cabinet * gateway) {
                        out.push(Arrival { sub: member as u8, ..arrival });
                    }
                }
            }
        }
    }

    /// The events of one occurrence with ranks from `counts.0` to `counts.1`.
    #[allow(clippy::too_many_arguments, reason = "the parts of an arrival, each from another place")]
    fn ranks(
        &self,
        emit: &Emit,
        stream: u8,
        occurrence: u64,
        part: u16,
        sub: u8,
        counts: (f64, f64),
        out: &mut Vec<Arrival>,
    ) {
        for rank in (number(counts.0)..number(counts.1)).filter(|rank| self.mine(*rank)) {
            let arrival = emit.at(stream, (rank as f64 - counts.0) / (counts.1 - counts.0));
            out.push(Arrival { key: occurrence << RANK_BITS | rank, part, sub, ..arrival });
        }
    }

    /// Messages expected between two virtual times, of this worker's share.
    pub(super) fn expected(&self, from_s: f64, to_s: f64) -> f64 {
        let bent = || -> f64 {
            // Device-seconds, bent by the curve.
            (0..self.zones.len())
                .map(|zone| {
                    let offset = self.zones.offset_s(zone);
                    let integral = self.curve.integral(to_s + offset) - self.curve.integral(from_s + offset);
                    integral * self.zones.range(zone).1 as f64
                })
                .sum()
        };
        let share = f64::from(self.split.of);
        let all = match &self.process {
            Process::Periodic { period_s, burst, .. } => {
                bent() * f64::from(burst.0 + burst.1) / 2.0 / period_s
            }
            Process::Aligned { every_s, window_s, offset_s, .. } => {
                let c = |at_s| aligned_count(self.count as f64, *every_s, *window_s, *offset_s, at_s);
                c(to_s) - c(from_s)
            }
            Process::Beta { every_s, first_s, window_s, shape, regions } => {
                occurrences(*first_s, *every_s, *window_s, from_s, to_s)
                    .map(|(occurrence, begin_s)| {
                        let region = below(mix(self.seed ^ mix(occurrence)), *regions);
                        let cdf = |at_s: f64| beta_cdf(shape.0, shape.1, (at_s - begin_s) / window_s);
                        part(self.count, *regions, region).1 as f64 * (cdf(to_s) - cdf(from_s))
                    })
                    .sum()
            }
            // Already this worker's share of the rate.
            Process::Poisson { rate, .. } => return rate / self.count as f64 * bent(),
            Process::Mmpp { mean, .. } => mean * bent(),
            Process::Reconnect { every_s, first_s, delays, survivors, .. } => delays
                .iter()
                .zip(survivors)
                .enumerate()
                .map(|(attempt, (delay_s, devices))| {
                    let sums = attempt as u32 + 1;
                    occurrences(first_s + delay_s, *every_s, f64::from(sums), from_s, to_s)
                        .map(|(_, begin_s)| {
                            let cdf = |at_s: f64| irwin_hall_cdf(sums, at_s - begin_s);
                            *devices as f64 * (cdf(to_s) - cdf(from_s))
                        })
                        .sum::<f64>()
                })
                .sum(),
        };
        all / share
    }

    /// Whether its devices come back after they lost their connections.
    pub(super) const fn reconnects(&self) -> bool {
        matches!(self.process, Process::Reconnect { .. })
    }

    /// A device drawn from a stretch by the bits of an event.
    fn drawn(&self, key: u64, start: u64, devices: u64) -> u64 {
        start + below(mix(key ^ self.seed), devices)
    }

    pub(super) fn resolve(&self, arrival: &Arrival) -> Speaker {
        let (occurrence, rank) = (arrival.key >> RANK_BITS, arrival.key & ((1 << RANK_BITS) - 1));
        let mut cycle = None;
        let index = match &self.process {
            Process::Periodic { gateway, jitter, order, .. } => {
                let zone = usize::from(arrival.part);
                let (start, devices) = self.zones.range(zone);
                let places = places(devices, *gateway);
                let (turn, slot) = (arrival.key / places, arrival.key % places);
                cycle = Some(turn);
                match *gateway {
                    1 => start + order[zone].apply(self.shuffled(turn, slot, places, *jitter)),
                    gateway => start + order[zone].apply(slot) * gateway + u64::from(arrival.sub),
                }
            }
            Process::Aligned { .. } => self.order(occurrence, self.count).apply(rank),
            Process::Beta { regions, .. } => {
                let (start, devices) = part(self.count, *regions, u64::from(arrival.part));
                start + self.order(occurrence, devices).apply(rank)
            }
            Process::Reconnect { survivors, .. } => {
                let alive = survivors.get(usize::from(arrival.sub)).copied().unwrap_or(1);
                // Who is still trying is the same for all attempts; in which order they come is not.
                let place = self.order(u64::from(arrival.sub) + 1, alive).apply(rank.min(alive.max(1) - 1));
                self.order(occurrence << 8, self.count).apply(place)
            }
            Process::Poisson { .. } => self.drawn(arrival.key, 0, self.count),
            Process::Mmpp { count, .. } => {
                let (start, devices) = part(self.count, *count, u64::from(arrival.part));
                self.drawn(arrival.key, start, devices.max(1))
            }
        };
        let sample = self.first + index.min(self.count - 1);
        let count = match cycle {
            Some(cycle) if self.counts_cycles => cycle,
            _ => u64::from(arrival.at_ms),
        };
        let bits = mix(self.seed
            ^ mix(arrival.key)
            ^ u64::from(arrival.part).rotate_left(40)
            ^ u64::from(arrival.sub).rotate_left(56));
        Speaker { device: self.base.first + self.spread(sample), count, bits }
    }

    /// The device of the class that number `sample` of the sample stands for: one of each stretch of equal length.
    fn spread(&self, sample: u64) -> u64 {
        let Base { devices, sampled, .. } = self.base;
        if devices == sampled {
            return sample;
        }
        let edge = |index: u64| (u128::from(index) * u128::from(devices) / u128::from(sampled)) as u64;
        let (start, end) = (edge(sample), edge(sample + 1));
        start + below(mix(sample ^ self.base.first.rotate_left(32) ^ 0x5350), end - start)
    }

    /// A slot moved within the jitter, each cycle anew: slots change places inside blocks of the jitter's length.
    fn shuffled(&self, turn: u64, slot: u64, places: u64, jitter: f64) -> u64 {
        let block = (jitter * places as f64) as u64;
        if block < 2 {
            return slot;
        }
        let start = slot / block * block;
        let length = block.min(places - start);
        let which = mix(turn.rotate_left(20) ^ start);
        start + self.order(which, length).apply(slot - start)
    }
}

/// Gateways for `devices`.
fn places(devices: u64, gateway: u64) -> u64 {
    devices.div_ceil(gateway)
}

/// Messages of burst `key`.
fn burst_length(seed: u64, key: u64, burst: (u32, u32)) -> usize {
    let more = u64::from(burst.1 - burst.0) + 1;
    (u64::from(burst.0) + below(mix(seed ^ mix(key ^ 0x4255_5253)), more)) as usize
}

/// Cumulative count of a process that uses `count` devices once in each window.
fn aligned_count(count: f64, every_s: f64, window_s: f64, offset_s: f64, at_s: f64) -> f64 {
    // Virtual times before midnight are not played; a day ahead keeps the offset's first window in.
    let at = (at_s - offset_s) / every_s + (super::curve::DAY_S / every_s).ceil();
    let cycle = at.floor();
    (cycle + ((at - cycle) * every_s / window_s).min(1.0)) * count
}

/// Occurrences whose window overlaps `from_s .. to_s`: number and beginning.
fn occurrences(
    first_s: f64,
    every_s: f64,
    window_s: f64,
    from_s: f64,
    to_s: f64,
) -> impl Iterator<Item = (u64, f64)> {
    let begin = ((from_s - window_s - first_s) / every_s).ceil().max(0.0) as u64;
    (begin..)
        .map(move |number| (number, first_s + number as f64 * every_s))
        .take_while(move |(_, at)| *at < to_s)
}

/// Part `index` of `count` devices divided into `parts`: first and number.
fn part(count: u64, parts: u64, index: u64) -> (u64, u64) {
    let edge = |index: u64| (u128::from(index) * u128::from(count) / u128::from(parts.max(1))) as u64;
    (edge(index), edge(index + 1) - edge(index))
}
