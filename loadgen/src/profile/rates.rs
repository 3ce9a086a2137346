//! Figures that follow from a model: mean rates, mean sizes, distribution functions.
//!
//! Owns the closed forms; the processes that must agree with them are in [`arrival`](crate::arrival), and their tests hold the two against
//! each other. Pure arithmetic.

use super::{Arrival, Background, Size, Stream};

/// Sum of the two parameters of a Beta distribution, at most: its distribution function is a polynomial of this degree less one.
pub const BETA_ORDER_MAX: u32 = 32;

/// Distribution function of Beta(a, b) for whole a and b: the chance that of `a + b - 1` uniform values at least `a` lie below `x`.
#[must_use]
pub fn beta_cdf(a: u32, b: u32, x: f64) -> f64 {
    let x = x.clamp(0.0, 1.0);
    let n = a + b - 1;
    let mut choose = 1.0;
    let mut sum = 0.0;
    for j in 0..=n {
        if j >= a {
            sum += choose * x.powi(j as i32) * (1.0 - x).powi((n - j) as i32);
        }
        choose *= f64::from(n - j) / f64::from(j + 1);
    }
    sum
}

/// Distribution function of the sum of `n` uniform values on 0 to 1 (Irwin and Hall, 1927).
#[must_use]
pub fn irwin_hall_cdf(n: u32, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= f64::from(n) {
        return 1.0;
    }
    let mut choose = 1.0;
    let mut sum = 0.0;
    for k in 0..=x as u32 {
        let sign = if k % 2 == 0 { 1.0 } else { -1.0 };
        sum += sign * choose * (x - f64::from(k)).powi(n as i32);
        choose *= f64::from(n - k) / f64::from(k + 1);
    }
    (sum / (1..=n).map(f64::from).product::<f64>()).clamp(0.0, 1.0)
}

/// Rates of transition of one region: quiet to active while the background is off and on, and active to quiet.
pub(crate) fn transition_rates(
    quiet_s: f64,
    active_s: f64,
    background: Option<&Background>,
) -> (f64, f64, f64) {
    let usual = 1.0 / quiet_s;
    let driven = background.map_or(usual, |background| {
        (1.0 - background.coupling) * usual + background.coupling / background.onset_s
    });
    (usual, driven, 1.0 / active_s)
}

/// Share of time in which a region is active: the stationary state of region and background together (two linear equations).
pub(crate) fn active_share(quiet_s: f64, active_s: f64, background: Option<&Background>) -> f64 {
    let (usual, driven, back) = transition_rates(quiet_s, active_s, background);
    let Some(background) = background else { return usual / (usual + back) };
    let (on, off) = (1.0 / background.every_s, 1.0 / background.lasts_s);
    let p_on = on / (on + off);
    // Active and background off (x), active and background on (y):
    //   (usual + back + on) x - off y = usual (1 - p_on)
    //   (driven + back + off) y - on x = driven p_on
    let (a, b, c, d) = (usual + back + on, -off, -on, driven + back + off);
    let (e, f) = (usual * (1.0 - p_on), driven * p_on);
    let determinant = a * d - b * c;
    (e * d - b * f) / determinant + (a * f - c * e) / determinant
}

impl Stream {
    /// Messages per second of one device that it concerns, long-run mean.
    #[must_use]
    pub fn rate_per_device_s(&self) -> f64 {
        match &self.arrival {
            Arrival::Periodic { period_s, burst_min, burst_max, .. } => {
                (f64::from(*burst_min) + f64::from(*burst_max)) / 2.0 / period_s
            }
            Arrival::Aligned { every_s, .. } => 1.0 / every_s,
            Arrival::Poisson { mean_interval_s } | Arrival::Mmpp { mean_interval_s, .. } => {
                1.0 / mean_interval_s
            }
            Arrival::Beta { every_s, regions, .. } => 1.0 / every_s / f64::from(*regions),
            Arrival::Reconnect { every_s, success, attempts, .. } => {
                (0..*attempts).map(|n| (1.0 - success).powi(n as i32)).sum::<f64>() / every_s
            }
        }
    }
}

impl Size {
    /// Mean, bytes (lognormal: before the cut, which moves it by less than a percent in the shipped profiles).
    #[must_use]
    pub fn mean(&self) -> f64 {
        match *self {
            Self::Fixed { bytes } => f64::from(bytes),
            Self::Uniform { min, max } => (f64::from(min) + f64::from(max)) / 2.0,
            Self::Lognormal { mean, .. } => mean,
            Self::Pareto { alpha, min, max } => {
                let (min, max) = (f64::from(min), f64::from(max));
                (alpha * min - max * (min / max).powf(alpha)) / (alpha - 1.0)
            }
        }
    }

    /// Most, bytes.
    #[must_use]
    pub const fn max(&self) -> u32 {
        match *self {
            Self::Fixed { bytes } => bytes,
            Self::Uniform { max, .. } | Self::Lognormal { max, .. } | Self::Pareto { max, .. } => max,
        }
    }

    /// Least, bytes.
    #[must_use]
    pub const fn min(&self) -> u32 {
        match *self {
            Self::Fixed { bytes } => bytes,
            Self::Uniform { min, .. } | Self::Lognormal { min, .. } | Self::Pareto { min, .. } => min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_3_4_has_the_published_peak_and_mean() {
        // Density 60 x^2 (1-x)^3: 2.0736 at 0.4; mean 3/7.
        let density = (beta_cdf(3, 4, 0.4005) - beta_cdf(3, 4, 0.3995)) / 0.001;
        assert!((density - 2.0736).abs() < 1e-4, "{density}");
        let mean: f64 =
            (0..10_000).map(|i| 1.0 - beta_cdf(3, 4, (f64::from(i) + 0.5) / 1e4)).sum::<f64>() / 1e4;
        assert!((mean - 3.0 / 7.0).abs() < 1e-6, "{mean}");
        assert_eq!((beta_cdf(3, 4, -1.0), beta_cdf(3, 4, 2.0)), (0.0, 1.0));
    }

    #[test]
    fn sums_of_uniform_values_are_distributed_as_published() {
        assert!((irwin_hall_cdf(1, 0.3) - 0.3).abs() < 1e-12);
        assert!((irwin_hall_cdf(2, 1.0) - 0.5).abs() < 1e-12);
        assert!((irwin_hall_cdf(3, 1.0) - 1.0 / 6.0).abs() < 1e-12);
        assert!((irwin_hall_cdf(6, 3.0) - 0.5).abs() < 1e-9);
        assert_eq!((irwin_hall_cdf(4, 0.0), irwin_hall_cdf(4, 4.0)), (0.0, 1.0));
    }

    #[test]
    fn the_pareto_of_tr_45_820_has_its_published_mean() {
        let mean = Size::Pareto { alpha: 2.5, min: 20, max: 200 }.mean();
        assert!((mean - 32.9).abs() < 0.05, "{mean}");
    }

    #[test]
    fn a_background_that_changes_nothing_leaves_the_share_alone() {
        let alone = active_share(90.0, 10.0, None);
        assert!((alone - 0.1).abs() < 1e-12);
        let loose = Background { every_s: 600.0, lasts_s: 30.0, coupling: 0.0, onset_s: 1.0 };
        assert!((active_share(90.0, 10.0, Some(&loose)) - 0.1).abs() < 1e-12);
        let tight = Background { coupling: 1.0, ..loose };
        assert!(active_share(90.0, 10.0, Some(&tight)) > 0.1);
    }
}
