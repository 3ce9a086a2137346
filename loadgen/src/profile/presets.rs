//! The profiles that come with weft, compiled in.
//!
//! Owns the list; the files are in `loadgen/profiles/`, one each, and hold the sources of their figures.

use super::{Profile, ProfileError};

/// Name and TOML of every shipped profile.
pub const PRESETS: [(&str, &str); 9] = [
    ("world-20b", include_str!("../../profiles/world-20b.toml")),
    ("3gpp-mar", include_str!("../../profiles/3gpp-mar.toml")),
    ("imt2020-2h", include_str!("../../profiles/imt2020-2h.toml")),
    ("imt2020-day", include_str!("../../profiles/imt2020-day.toml")),
    ("meter-quarter-hour", include_str!("../../profiles/meter-quarter-hour.toml")),
    ("outage-10m-city", include_str!("../../profiles/outage-10m-city.toml")),
    ("reconnect-storm", include_str!("../../profiles/reconnect-storm.toml")),
    ("v2x-cam", include_str!("../../profiles/v2x-cam.toml")),
    ("flat", include_str!("../../profiles/flat.toml")),
];

/// The text of a shipped profile.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// A shipped profile.
///
/// # Errors
/// If there is none of this name.
pub fn load(name: &str) -> Result<Profile, ProfileError> {
    let Some(text) = text(name) else {
        let known: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        return Err(ProfileError::new(
            format!("profile {name:?}"),
            format!("not one of those that come with weft ({})", known.join(", ")),
        ));
    };
    Profile::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages per second of the published table, millions; totals of the other profiles by their sources.
    #[test]
    fn every_shipped_profile_has_the_rate_that_its_source_gives() {
        for (name, rate_m) in [
            ("world-20b", 92.1),
            ("3gpp-mar", 2.593),
            ("imt2020-2h", 2.778),
            ("imt2020-day", 0.2315),
            ("v2x-cam", 184.0),
            ("meter-quarter-hour", 2.0),
        ] {
            let rate = load(name).unwrap().rate_per_s() / 1e6;
            assert!((rate / rate_m - 1.0).abs() < 0.005, "{name}: {rate} M/s, the source has {rate_m}");
        }
        for (name, _) in PRESETS {
            let profile = load(name).unwrap();
            assert_eq!(profile.name, name);
            let again = Profile::parse(&profile.to_toml().unwrap()).unwrap();
            assert_eq!(again, profile, "{name} survives writing and reading");
        }
        assert!(load("nothing").unwrap_err().to_string().contains("world-20b"));
    }

    #[test]
    fn the_classes_of_the_world_have_the_shares_and_rates_of_the_table() {
        let world = load("world-20b").unwrap();
        assert_eq!(world.devices(), 20_000_000_000);
        let table = [
            ("home_sensor", 4.60, 7.67, 64.0),
            ("home_media", 3.60, 12.0, 200.0),
            ("building_light", 2.00, 2.22, 48.0),
            ("wearable", 1.90, 6.33, 150.0),
            ("utility_meter", 1.80, 2.00, 160.0),
            ("industrial", 1.60, 26.7, 96.0),
            ("retail_logistic", 1.50, 0.42, 48.0),
            ("camera", 1.00, 16.7, 300.0),
            ("lpwan_env", 0.90, 0.12, 32.9),
            ("tracker", 0.60, 0.33, 72.0),
            ("vehicle", 0.35, 17.6, 256.0),
            ("health_safety", 0.15, 0.04, 64.0),
        ];
        assert_eq!(world.classes.len(), table.len());
        for (class, (name, devices_b, rate_m, bytes)) in world.classes.iter().zip(table) {
            assert_eq!(class.name, name);
            assert_eq!(class.devices, (devices_b * 1e9_f64).round() as u64);
            let rate = class.rate_per_s() / 1e6;
            // The table has two or three digits.
            assert!(
                (rate - rate_m).abs() <= 0.006 + 0.005 * rate_m,
                "{name}: {rate} M/s, the table has {rate_m}"
            );
            assert!((class.payload.mean() / bytes - 1.0).abs() < 0.01, "{name}: {} B", class.payload.mean());
        }
        let mean = world.payload_bytes_mean();
        assert!((mean - 178.0).abs() < 4.0, "mean payload {mean} B, the table has 178");
    }
}
