//! The rate over the day: a factor with mean 1, and its integral.
//!
//! Owns [`Curve`]. Pure. Invariant: the integral over any 24 hours is 24 hours, so a curve moves messages within the day and never adds any.

use std::f64::consts::TAU;

use crate::profile::Diurnal;

/// Seconds of a day.
pub(super) const DAY_S: f64 = 86_400.0;

const HOUR_S: f64 = 3_600.0;

/// A factor by local time.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one for each stream of a profile, 255 at most")]
pub(super) enum Curve {
    Flat,
    Cosine {
        amplitude: f64,
        peak_s: f64,
    },
    /// Factors at the full hours, mean 1, linear in between; and the integral up to each full hour.
    Hours {
        factors: [f64; 24],
        integrals: [f64; 25],
    },
}

impl Curve {
    pub(super) fn new(diurnal: Option<&Diurnal>) -> Self {
        match diurnal {
            None => Self::Flat,
            Some(Diurnal::Cosine { amplitude, peak_hour }) => {
                Self::Cosine { amplitude: *amplitude, peak_s: peak_hour * HOUR_S }
            }
            Some(Diurnal::Hours { hours }) => {
                let mean = hours.iter().sum::<f64>() / hours.len().max(1) as f64;
                let factors: [f64; 24] =
                    std::array::from_fn(|hour| hours.get(hour).map_or(1.0, |factor| factor / mean));
                let mut integrals = [0.0; 25];
                for hour in 0..24 {
                    integrals[hour + 1] =
                        integrals[hour] + (factors[hour] + factors[(hour + 1) % 24]) / 2.0 * HOUR_S;
                }
                Self::Hours { factors, integrals }
            }
        }
    }

    pub(super) const fn is_flat(&self) -> bool {
        matches!(self, Self::Flat)
    }

    /// The largest factor.
    pub(super) fn max(&self) -> f64 {
        match self {
            Self::Flat => 1.0,
            Self::Cosine { amplitude, .. } => 1.0 + amplitude,
            Self::Hours { factors, .. } => factors.iter().copied().fold(0.0, f64::max),
        }
    }

    /// The factor at `local_s` seconds after local midnight (any day).
    pub(super) fn factor(&self, local_s: f64) -> f64 {
        match self {
            Self::Flat => 1.0,
            Self::Cosine { amplitude, peak_s } => 1.0 + amplitude * (TAU * (local_s - peak_s) / DAY_S).cos(),
            Self::Hours { factors, .. } => {
                let hours = local_s.rem_euclid(DAY_S) / HOUR_S;
                let hour = (hours as usize).min(23);
                let part = hours - hour as f64;
                factors[hour] * (1.0 - part) + factors[(hour + 1) % 24] * part
            }
        }
    }

    /// Integral of the factor up to `local_s`, from an origin that is the same for every call.
    pub(super) fn integral(&self, local_s: f64) -> f64 {
        match self {
            Self::Flat => local_s,
            Self::Cosine { amplitude, peak_s } => {
                local_s + amplitude * DAY_S / TAU * (TAU * (local_s - peak_s) / DAY_S).sin()
            }
            Self::Hours { factors, integrals } => {
                let days = local_s.div_euclid(DAY_S);
                let hours = local_s.rem_euclid(DAY_S) / HOUR_S;
                let hour = (hours as usize).min(23);
                let part = hours - hour as f64;
                let slope = factors[(hour + 1) % 24] - factors[hour];
                days * DAY_S + integrals[hour] + (factors[hour] * part + slope * part * part / 2.0) * HOUR_S
            }
        }
    }
}

/// Which devices live where: consecutive parts of an index range, one per time zone that has any.
#[derive(Clone, Debug)]
pub(super) struct Zones {
    /// First index of each zone, and the end of the last.
    bounds: Vec<u64>,
    /// Seconds that each zone's clock is ahead of UTC.
    offsets_s: Vec<f64>,
}

impl Zones {
    /// Splits `0 .. count` by `weights` (24, for UTC-11 to UTC+12, or none for UTC alone).
    pub(super) fn new(weights: &[f64], count: u64) -> Self {
        let total: f64 = weights.iter().sum();
        if weights.len() != 24 || total <= 0.0 {
            return Self::utc(count);
        }
        let (mut bounds, mut offsets_s) = (vec![0], Vec::new());
        let mut sum = 0.0;
        for (index, weight) in weights.iter().enumerate() {
            sum += weight;
            let end = if index == 23 { count } else { (sum / total * count as f64).round() as u64 };
            let start = bounds.last().copied().unwrap_or(0);
            if end > start {
                bounds.push(end.min(count));
                offsets_s.push((index as f64 - 11.0) * HOUR_S);
            }
        }
        Self { bounds, offsets_s }
    }

    /// Everybody in UTC.
    pub(super) fn utc(count: u64) -> Self {
        Self { bounds: vec![0, count], offsets_s: vec![0.0] }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets_s.len()
    }

    /// First index and number of devices of a zone.
    pub(super) fn range(&self, zone: usize) -> (u64, u64) {
        (self.bounds[zone], self.bounds[zone + 1] - self.bounds[zone])
    }

    pub(super) fn offset_s(&self, zone: usize) -> f64 {
        self.offsets_s[zone]
    }

    /// The zone of an index.
    pub(super) fn of(&self, index: u64) -> usize {
        self.bounds.partition_point(|bound| *bound <= index).saturating_sub(1).min(self.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves() -> [Curve; 3] {
        let hours = (0..24).map(|hour| f64::from((hour * 7) % 5)).collect();
        [
            Curve::Flat,
            Curve::new(Some(&Diurnal::Cosine { amplitude: 0.7, peak_hour: 8.5 })),
            Curve::new(Some(&Diurnal::Hours { hours })),
        ]
    }

    #[test]
    fn a_curve_has_mean_one_and_its_integral_is_that_of_its_factor() {
        for curve in curves() {
            for start in [0.0, 12_345.6, -50_000.0] {
                let day = curve.integral(start + DAY_S) - curve.integral(start);
                assert!((day - DAY_S).abs() < 1e-6, "{curve:?}: {day}");
                let steps = 20_000;
                let step = 40_000.0 / f64::from(steps);
                let sum: f64 =
                    (0..steps).map(|i| curve.factor(start + (f64::from(i) + 0.5) * step) * step).sum();
                let integral = curve.integral(start + 40_000.0) - curve.integral(start);
                assert!((sum - integral).abs() < 0.1, "{curve:?}: {sum} {integral}");
                assert!((0..400).all(|i| curve.factor(start + f64::from(i) * 300.0) <= curve.max() + 1e-9));
            }
        }
    }

    #[test]
    fn zones_divide_all_devices_and_nobody_is_in_two() {
        let weights: Vec<f64> = (0..24).map(|zone| f64::from(zone % 5)).collect();
        for count in [1, 7, 1_000, 20_000_000_000] {
            let zones = Zones::new(&weights, count);
            let sum: u64 = (0..zones.len()).map(|zone| zones.range(zone).1).sum();
            assert_eq!(sum, count);
            for zone in 0..zones.len() {
                let (first, devices) = zones.range(zone);
                assert_eq!((zones.of(first), zones.of(first + devices - 1)), (zone, zone));
            }
        }
    }
}
