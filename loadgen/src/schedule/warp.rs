//! The clock of a run mapped to the time of a profile: compressed, and bent by a shape.
//!
//! Owns [`Shape`] and [`Warp`]. Rates are changed by letting virtual time run faster or slower: every process keeps its structure (a
//! device still speaks once a period of virtual time), and twice the rate is every device twice as often. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::as_us;

/// Steps of a shape, at most.
pub const SHAPE_PARTS_MAX: usize = 256;

/// The rate over the measured time, as a factor of the run's rate.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// As it is; over hours, a soak.
    Constant,
    /// From one factor to another, in a straight line.
    Ramp {
        /// At the beginning.
        from: f64,
        /// At the end.
        to: f64,
    },
    /// One factor after the other, each for the same time.
    Step {
        /// The factors.
        factors: Vec<f64>,
    },
    /// Factor 1, and for a while in the middle another.
    Spike {
        /// The factor of the spike.
        factor: f64,
        /// How long it lasts.
        length: Duration,
    },
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Ramp { from, to } => write!(f, "ramp:{from}..{to}"),
            Self::Step { factors } => {
                let factors: Vec<String> = factors.iter().map(f64::to_string).collect();
                write!(f, "step:{}", factors.join(","))
            }
            Self::Spike { factor, length } => write!(f, "spike:{factor}x{}s", length.as_secs_f64()),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "constant, soak, ramp:FROM..TO, step:F,F,... or spike:FACTORxSECONDS, for example ramp:0.1..1";
        let wrong = || format!("got {text:?}, need {FORMS}");
        let factor = |text: &str| -> Result<f64, String> {
            let factor: f64 = text.trim().parse().map_err(|_| wrong())?;
            if (0.0..=1_000.0).contains(&factor) {
                Ok(factor)
            } else {
                Err(format!("{factor} is not a factor between 0 and 1000"))
            }
        };
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        match name {
            "constant" | "soak" if rest.is_empty() => Ok(Self::Constant),
            "ramp" => {
                let (from, to) = rest.split_once("..").ok_or_else(wrong)?;
                Ok(Self::Ramp { from: factor(from)?, to: factor(to)? })
            }
            "step" => {
                let factors: Vec<f64> = rest.split(',').map(factor).collect::<Result<_, _>>()?;
                if factors.len() > SHAPE_PARTS_MAX {
                    return Err(format!("{} steps; there can be {SHAPE_PARTS_MAX}", factors.len()));
                }
                Ok(Self::Step { factors })
            }
            "spike" => {
                let (times, seconds) = rest.split_once('x').ok_or_else(wrong)?;
                let seconds: f64 = seconds.trim_end_matches('s').parse().map_err(|_| wrong())?;
                let length = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
                Ok(Self::Spike { factor: factor(times)?, length })
            }
            _ => Err(wrong()),
        }
    }
}

/// One piece of a shape: from a time on, a factor that changes in a straight line.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from_us: f64,
    to_us: f64,
    begin: f64,
    end: f64,
    /// Integral of the factor up to `from_us`, microseconds.
    before: f64,
}

/// Microseconds of the run to virtual seconds.
#[derive(Clone, Debug)]
pub struct Warp {
    start_s: f64,
    /// Virtual seconds per second at factor 1.
    speed: f64,
    pieces: Vec<Piece>,
}

impl Warp {
    /// Virtual time begins at `start_s` and passes `speed` times as fast as the clock; the shape applies after the warm-up, which has
    /// its first factor.
    #[must_use]
    pub fn new(start_s: f64, speed: f64, shape: &Shape, warm_up: Duration, duration: Duration) -> Self {
        let (warm, length) = (as_us(warm_up) as f64, as_us(duration) as f64);
        let mut pieces: Vec<Piece> = Vec::new();
        let mut push = |from_us: f64, to_us: f64, begin: f64, end: f64| {
            let before = pieces.last().map_or(0.0, |last| {
                last.before + (last.to_us - last.from_us) * (last.begin + last.end) / 2.0
            });
            if to_us > from_us {
                pieces.push(Piece { from_us, to_us, begin, end, before });
            }
        };
        let end = warm + length;
        match shape {
            Shape::Constant => push(0.0, end, 1.0, 1.0),
            Shape::Ramp { from, to } => {
                push(0.0, warm, *from, *from);
                push(warm, end, *from, *to);
            }
            Shape::Step { factors } => {
                let each = length / factors.len().max(1) as f64;
                push(
                    0.0,
                    warm,
                    factors.first().copied().unwrap_or(1.0),
                    factors.first().copied().unwrap_or(1.0),
                );
                for (index, factor) in factors.iter().enumerate() {
                    push(warm + each * index as f64, warm + each * (index + 1) as f64, *factor, *factor);
                }
            }
            Shape::Spike { factor, length: spike } => {
                let spike = (as_us(*spike) as f64).min(length);
                let begin = warm + (length - spike) / 2.0;
                push(0.0, begin, 1.0, 1.0);
                push(begin, begin + spike, *factor, *factor);
                push(begin + spike, end, 1.0, 1.0);
            }
        }
        Self { start_s, speed, pieces }
    }

    /// Virtual time at `us` microseconds of the run.
    #[must_use]
    pub fn virtual_s(&self, us: u64) -> f64 {
        let us = us as f64;
        let place = self.pieces.partition_point(|piece| piece.from_us <= us).saturating_sub(1);
        let Some(piece) = self.pieces.get(place) else { return self.start_s };
        let inside = us - piece.from_us;
        // Beyond the end the last factor stays.
        let length = piece.to_us - piece.from_us;
        let within = inside.min(length);
        let slope = (piece.end - piece.begin) / length;
        let integral = piece.before
            + piece.begin * within
            + slope * within * within / 2.0
            + piece.end * (inside - within);
        self.start_s + self.speed * integral / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn at(shape: &str, seconds: &[u64]) -> Vec<f64> {
        let warp = Warp::new(100.0, 2.0, &shape.parse().unwrap(), 2 * S, 8 * S);
        seconds
            .iter()
            .map(|second| ((warp.virtual_s(second * 1_000_000) - 100.0) * 1e6).round() / 1e6)
            .collect()
    }

    #[test]
    fn virtual_time_is_the_integral_of_the_shape() {
        assert_eq!(at("constant", &[0, 1, 10, 12]), [0.0, 2.0, 20.0, 24.0]);
        // Warm-up at 0.5: 2 s; then a mean of 0.75 over 4 s, and of 1.0 over 8 s.
        assert_eq!(at("ramp:0.5..1.5", &[0, 2, 6, 10]), [0.0, 2.0, 8.0, 18.0]);
        assert_eq!(at("step:1,0,3,0.5", &[2, 4, 6, 8, 10]), [4.0, 8.0, 8.0, 20.0, 22.0]);
        assert_eq!(at("spike:5x2s", &[2, 5, 7, 10]), [4.0, 10.0, 30.0, 36.0]);
    }

    #[test]
    fn shapes_are_read_as_they_are_written_and_nonsense_is_refused() {
        for text in ["constant", "ramp:0.1..2", "step:1,2,0.5", "spike:10x2.5s"] {
            assert_eq!(text.parse::<Shape>().unwrap().to_string(), text);
        }
        for text in
            ["", "ramp", "ramp:1", "ramp:-1..2", "step:", "spike:3", "spike:3x-1", "hill:1", "ramp:nan..1"]
        {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }
}
