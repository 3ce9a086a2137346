//! What a profile must be before anything is built on it.
//!
//! Owns the checks and their wording: which class, which value, what it was and what is allowed. Leaves the meaning of the figures to the
//! file that uses them.

use std::collections::BTreeSet;
use std::fmt;

use weft_core::PAYLOAD_BYTES_MAX;

use super::{
    Arrival, BETA_ORDER_MAX, CLASSES_MAX, Class, Dirty, Diurnal, Profile, REGIONS_MAX, STREAMS_MAX, Size,
    Stream,
};
use crate::feistel::DEVICES_MAX;
use crate::payload::PAYLOAD_BYTES_MIN;

/// Longest time in a profile: ten years, in seconds.
const TIME_S_MAX: f64 = 315_360_000.0;

/// Messages of one burst, at most: each costs a counter per time zone.
const BURST_MAX: u32 = 64;

/// Devices behind one gateway, at most: an arrival names its device in one byte.
const GATEWAY_MAX: u32 = 256;

/// Attempts of a reconnecting device, at most: beyond it the sum of back-offs is told by a sum that loses its digits.
const ATTEMPTS_MAX: u32 = 12;

/// What is wrong with a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileError {
    place: String,
    what: String,
}

impl ProfileError {
    pub(super) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl std::error::Error for ProfileError {}

/// Checks of one place in a profile.
struct Place(String);

impl Place {
    fn wrong(&self, what: impl Into<String>) -> ProfileError {
        ProfileError::new(self.0.clone(), what)
    }

    /// `value` lies in `min ..= max`.
    fn within(&self, what: &str, value: f64, min: f64, max: f64) -> Result<(), ProfileError> {
        // Not `contains` turned round: NaN lies nowhere.
        if (min..=max).contains(&value) {
            return Ok(());
        }
        Err(self.wrong(format!("{what} is {value}; it must be between {min} and {max}")))
    }

    fn time(&self, what: &str, value: f64) -> Result<(), ProfileError> {
        self.within(what, value, 1e-6, TIME_S_MAX)
    }

    fn share(&self, what: &str, value: f64) -> Result<(), ProfileError> {
        self.within(what, value, 0.0, 1.0)
    }
}

impl Profile {
    /// Checks every figure.
    pub(super) fn check(&self) -> Result<(), ProfileError> {
        let place = Place(format!("profile {:?}", self.name));
        let named = |name: &str| {
            !name.is_empty()
                && name.len() <= 64
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if !named(&self.name) {
            return Err(place.wrong("a name has 1 to 64 letters, digits, dots, dashes or underscores"));
        }
        if !(self.zones.is_empty() || self.zones.len() == 24) {
            return Err(place.wrong(format!("{} time zones; there must be none or 24", self.zones.len())));
        }
        for weight in &self.zones {
            place.within("the weight of a time zone", *weight, 0.0, 1e9)?;
        }
        if !self.zones.is_empty() && self.zones.iter().sum::<f64>() <= 0.0 {
            return Err(place.wrong("no time zone has a weight"));
        }
        place.within("the number of classes", self.classes.len() as f64, 1.0, CLASSES_MAX as f64)?;
        let streams: usize = self.classes.iter().map(|class| class.streams.len()).sum();
        place.within("the number of streams", streams as f64, 1.0, STREAMS_MAX as f64)?;
        check_dirty(&place, &self.dirty)?;
        let mut names = BTreeSet::new();
        let mut devices = 0u64;
        for class in &self.classes {
            if !named(&class.name) || !names.insert(&class.name) {
                return Err(
                    place.wrong(format!("the class name {:?} is not a name, or came before", class.name))
                );
            }
            let place = Place(format!("class {:?}", class.name));
            place.within("devices", class.devices as f64, 1.0, DEVICES_MAX as f64)?;
            devices += class.devices;
            check_class(&place, class)?;
        }
        place.within("the number of devices", devices as f64, 1.0, DEVICES_MAX as f64)
    }
}

fn check_class(place: &Place, class: &Class) -> Result<(), ProfileError> {
    let (least, most) = (f64::from(PAYLOAD_BYTES_MIN as u32), f64::from(PAYLOAD_BYTES_MAX as u32));
    place.within("the shortest payload", f64::from(class.payload.min()), least, most)?;
    place.within(
        "the longest payload",
        f64::from(class.payload.max()),
        f64::from(class.payload.min()),
        most,
    )?;
    match class.payload {
        Size::Fixed { .. } | Size::Uniform { .. } => {}
        Size::Lognormal { median, mean, .. } => {
            place.within("the median payload", median, 1.0, most)?;
            place.within("the mean payload", mean, median, most)?;
        }
        Size::Pareto { alpha, .. } => place.within("alpha", alpha, 1.01, 100.0)?,
    }
    match &class.diurnal {
        None => {}
        Some(Diurnal::Cosine { amplitude, peak_hour }) => {
            place.share("the amplitude", *amplitude)?;
            place.within("peak_hour", *peak_hour, 0.0, 24.0)?;
        }
        Some(Diurnal::Hours { hours }) => {
            if hours.len() != 24 {
                return Err(place.wrong(format!("{} hours; there must be 24", hours.len())));
            }
            for hour in hours {
                place.within("the factor of an hour", *hour, 0.0, 1e6)?;
            }
            if hours.iter().sum::<f64>() <= 0.0 {
                return Err(place.wrong("no hour has a factor above 0"));
            }
        }
    }
    if let Some(dirty) = &class.dirty {
        check_dirty(place, dirty)?;
    }
    if class.streams.is_empty() {
        return Err(place.wrong("no stream: it would never say anything"));
    }
    class.streams.iter().try_for_each(|stream| check_stream(place, stream))
}

fn check_dirty(place: &Place, dirty: &Dirty) -> Result<(), ProfileError> {
    place.share("missing", dirty.missing)?;
    place.share("late", dirty.late)?;
    place.within("late_s_max", dirty.late_s_max, 0.0, TIME_S_MAX)?;
    place.share("duplicate", dirty.duplicate)?;
    place.share("out_of_order", dirty.out_of_order)?;
    place.share("bad_signature", dirty.bad_signature)
}

fn check_stream(place: &Place, stream: &Stream) -> Result<(), ProfileError> {
    let [from, to] = stream.of;
    place.share("the beginning of `of`", from)?;
    place.within("the end of `of`", to, from, 1.0)?;
    if to <= from {
        return Err(place.wrong(format!("`of` is [{from}, {to}]: nobody")));
    }
    let within = |what: &str, value: u32, min: u32, max: u32| {
        place.within(what, f64::from(value), f64::from(min), f64::from(max))
    };
    match &stream.arrival {
        Arrival::Periodic { period_s, jitter_s, gateway, burst_min, burst_max, burst_gap_s } => {
            place.time("period_s", *period_s)?;
            place.within("jitter_s", *jitter_s, 0.0, period_s / 2.0)?;
            within("gateway", *gateway, 1, GATEWAY_MAX)?;
            within("burst_min", *burst_min, 1, BURST_MAX)?;
            within("burst_max", *burst_max, *burst_min, BURST_MAX)?;
            // A burst is over before the device's next one begins.
            place.within("burst_gap_s", *burst_gap_s, 0.0, period_s / 2.0 / f64::from(*burst_max))?;
            if *burst_max > 1 && *gateway > 1 {
                return Err(place.wrong("gateway and burst_max above 1 do not go together"));
            }
            if *burst_max > 1 && *burst_gap_s <= 0.0 {
                return Err(place.wrong("the messages of a burst need a burst_gap_s above 0 between them"));
            }
            Ok(())
        }
        Arrival::Aligned { every_s, window_s, offset_s } => {
            place.time("every_s", *every_s)?;
            place.within("window_s", *window_s, 1e-6, *every_s)?;
            place.within("offset_s", *offset_s, 0.0, *every_s)
        }
        Arrival::Poisson { mean_interval_s } => place.time("mean_interval_s", *mean_interval_s),
        Arrival::Beta { every_s, first_s, window_s, alpha, beta, regions } => {
            place.time("every_s", *every_s)?;
            place.within("first_s", *first_s, 0.0, TIME_S_MAX)?;
            place.within("window_s", *window_s, 1e-6, *every_s)?;
            within("alpha", *alpha, 1, BETA_ORDER_MAX)?;
            within("beta", *beta, 1, BETA_ORDER_MAX)?;
            within("regions", *regions, 1, REGIONS_MAX)
        }
        Arrival::Mmpp { mean_interval_s, active_factor, quiet_s, active_s, regions, background } => {
            place.time("mean_interval_s", *mean_interval_s)?;
            place.within("active_factor", *active_factor, 1.0, 1e9)?;
            place.time("quiet_s", *quiet_s)?;
            place.time("active_s", *active_s)?;
            within("regions", *regions, 1, REGIONS_MAX)?;
            let Some(background) = background else { return Ok(()) };
            place.time("background.every_s", background.every_s)?;
            place.time("background.lasts_s", background.lasts_s)?;
            place.share("background.coupling", background.coupling)?;
            place.time("background.onset_s", background.onset_s)
        }
        Arrival::Reconnect { every_s, first_s, success, cap_s, attempts } => {
            place.time("every_s", *every_s)?;
            place.within("first_s", *first_s, 0.0, TIME_S_MAX)?;
            place.share("success", *success)?;
            place.within("cap_s", *cap_s, 1.0, 3_600.0)?;
            within("attempts", *attempts, 1, ATTEMPTS_MAX)?;
            let longest: f64 = (0..*attempts).map(|n| f64::from(n).exp2().min(*cap_s) + 1.0).sum();
            place.within("every_s", *every_s, longest, TIME_S_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(from: &str, to: &str) -> String {
        const GOOD: &str = r#"
            name = "p"
            about = "a"
            [[class]]
            name = "c"
            devices = 10
            payload = { kind = "fixed", bytes = 64 }
            [[class.stream]]
            arrival = "periodic"
            period_s = 60
        "#;
        Profile::parse(GOOD).unwrap();
        assert!(GOOD.contains(from), "the test changes nothing");
        Profile::parse(&GOOD.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_value_is_named_with_its_class_and_its_limits() {
        assert_eq!(
            refused("period_s = 60", "period_s = 0"),
            "class \"c\": period_s is 0; it must be between 0.000001 and 315360000"
        );
        assert!(refused("bytes = 64", "bytes = 8").contains("shortest payload is 8; it must be between 16"));
        assert!(refused("devices = 10", "devices = 0").contains("devices is 0"));
        assert!(refused("period_s = 60", "period_s = 60\nof = [0.5, 0.5]").contains("nobody"));
        assert!(refused("period_s = 60", "period_s = nan").contains("period_s is NaN"));
        assert!(refused("name = \"c\"", "name = \"\"").contains("class name"));
    }

    #[test]
    fn an_unknown_key_or_process_is_refused() {
        assert!(refused("about =", "abuot =").contains("abuot"));
        assert!(refused("\"periodic\"", "\"sometimes\"").contains("sometimes"));
        assert!(refused("period_s = 60", "period_s = 60\nperiod = 7").contains("period"));
    }
}
