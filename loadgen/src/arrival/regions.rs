//! The background of a Markov-modulated process: which regions are active.
//!
//! Owns [`Regions`]: two lists of region numbers and the time of the next transition (8 bytes a region). All regions together are simulated
//! as one process: the next transition comes after an exponential time of the summed rates, and strikes a region drawn from its list
//! (Gillespie's direct method), so the cost is per transition and not per region and tick. Invariant: each region is in exactly one list.

use super::random::Draws;
use crate::profile::Background;

#[derive(Clone, Debug)]
pub(super) struct Regions {
    quiet: Vec<u32>,
    active: Vec<u32>,
    /// Rates of one region: quiet to active with the background off and on, active to quiet.
    rates: (f64, f64, f64),
    /// Rates of the background: off to on, on to off; none if there is none.
    background: Option<(f64, f64)>,
    on: bool,
    next_s: f64,
}

impl Regions {
    /// `count` regions at virtual time `now_s`, in the stationary state: its expected number of regions is active, so that a short run is
    /// not ruled by how it happened to begin.
    pub(super) fn new(
        count: u32,
        share: f64,
        rates: (f64, f64, f64),
        background: Option<&Background>,
        now_s: f64,
        draws: &mut Draws,
    ) -> Self {
        let mut quiet: Vec<u32> = (0..count).collect();
        let expected = share * f64::from(count);
        // The fraction of a region left over is active with that chance.
        let number = expected as usize + usize::from(draws.unit() <= expected.fract());
        let mut active = Vec::with_capacity(number);
        for _ in 0..number.min(quiet.len()) {
            active.push(take(&mut quiet, draws));
        }
        let background = background.map(|background| (1.0 / background.every_s, 1.0 / background.lasts_s));
        let mut regions = Self { quiet, active, rates, background, on: false, next_s: now_s };
        regions.schedule(now_s, draws);
        regions
    }

    pub(super) fn quiet(&self) -> &[u32] {
        &self.quiet
    }

    pub(super) fn active(&self) -> &[u32] {
        &self.active
    }

    /// When the next transition is, virtual seconds.
    pub(super) const fn next_s(&self) -> f64 {
        self.next_s
    }

    fn total_rates(&self) -> (f64, f64, f64) {
        let (usual, driven, back) = self.rates;
        let onset = if self.on { driven } else { usual } * self.quiet.len() as f64;
        let background = self.background.map_or(0.0, |(on, off)| if self.on { off } else { on });
        (onset, back * self.active.len() as f64, background)
    }

    fn schedule(&mut self, now_s: f64, draws: &mut Draws) {
        let (onset, back, background) = self.total_rates();
        self.next_s = now_s + draws.exponential() / (onset + back + background).max(1e-300);
    }

    /// Makes the transition that is due at [`Regions::next_s`].
    pub(super) fn step(&mut self, draws: &mut Draws) {
        let (onset, back, background) = self.total_rates();
        let pick = draws.unit() * (onset + back + background);
        if pick <= onset && !self.quiet.is_empty() {
            let region = take(&mut self.quiet, draws);
            self.active.push(region);
        } else if pick <= onset + back && !self.active.is_empty() {
            let region = take(&mut self.active, draws);
            self.quiet.push(region);
        } else if self.background.is_some() {
            self.on = !self.on;
        }
        self.schedule(self.next_s, draws);
    }
}

fn take(list: &mut Vec<u32>, draws: &mut Draws) -> u32 {
    let index = draws.below(list.len() as u64) as usize;
    list.swap_remove(index)
}
