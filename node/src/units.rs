//! Human units on the way in and out: sizes (`256MiB`), times (`5ms`), counts (`1_000_000`), and the distance
//! between two names for "did you mean" hints.
//!
//! Invariant: what [`Unit::show`] writes, [`Unit::parse`] reads back to the same number. Whole numbers only: a
//! fraction of a byte or a microsecond is more often a mistake than a wish.

/// The unit in which a setting is kept; a bare number is in this unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes; accepts B, KiB, MiB, GiB, TiB and KB, MB, GB, TB (powers of 1000).
    Bytes,
    /// Microseconds; accepts us, ms, s, min, h.
    Micros,
    /// Milliseconds; accepts ms, s, min, h.
    Millis,
}

const BYTES: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];
const MICROS: &[(&str, u64)] =
    &[("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];
const MILLIS: &[(&str, u64)] = &[("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

impl Unit {
    fn table(self) -> &'static [(&'static str, u64)] {
        match self {
            Unit::Count => &[],
            Unit::Bytes => BYTES,
            Unit::Micros => MICROS,
            Unit::Millis => MILLIS,
        }
    }

    /// Reads a number with or without a unit, such as `4096`, `64KiB`, `5 ms`, `1_000_000`.
    ///
    /// # Errors
    /// A phrase that says what is accepted.
    pub fn parse(self, text: &str) -> Result<u64, String> {
        let text = text.trim();
        let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'_').count();
        let (number, unit) = text.split_at(digits);
        let number = number.replace('_', "");
        let unit = unit.trim_start();
        let factor = if unit.is_empty() {
            Some(1)
        } else {
            self.table().iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
        };
        let value =
            number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        value.ok_or_else(|| self.accepts().to_owned())
    }

    /// Writes a number with the largest unit that divides it; counts stay bare.
    #[must_use]
    pub fn show(self, value: u64) -> String {
        // Of sizes only the powers of 1024, which are what disks, maps and memory come in.
        let fits = |(name, factor): &&(&str, u64)| {
            (self != Unit::Bytes || name.len() != 2) && value >= *factor && value.is_multiple_of(*factor)
        };
        match self.table().iter().find(fits) {
            Some((name, factor)) => format!("{}{name}", value / factor),
            None => value.to_string(),
        }
    }

    fn accepts(self) -> &'static str {
        match self {
            Unit::Count => "a whole number",
            Unit::Bytes => "a size: whole bytes, or a whole number of KiB, MiB, GiB, TiB (or KB, MB, GB, TB)",
            Unit::Micros => "a time: whole microseconds, or a whole number of us, ms, s, min or h",
            Unit::Millis => "a time: whole milliseconds, or a whole number of ms, s, min or h",
        }
    }
}

/// For clap: bytes, with or without a unit.
///
/// # Errors
/// A phrase that says what is accepted.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    Unit::Bytes.parse(text).map_err(|accepted| format!("need {accepted}"))
}

/// For clap: microseconds, with or without a unit.
///
/// # Errors
/// A phrase that says what is accepted.
pub fn parse_us(text: &str) -> Result<u64, String> {
    Unit::Micros.parse(text).map_err(|accepted| format!("need {accepted}"))
}

/// For clap: milliseconds, with or without a unit.
///
/// # Errors
/// A phrase that says what is accepted.
pub fn parse_ms(text: &str) -> Result<u64, String> {
    Unit::Millis.parse(text).map_err(|accepted| format!("need {accepted}"))
}

/// Bytes for people, rounded: `1.4 GiB`, `512 B`.
#[must_use]
pub fn about_bytes(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, factor)| bytes >= *factor) {
        Some((name, factor)) => format!("{:.1} {name}", bytes as f64 / *factor as f64),
        None => format!("{bytes} B"),
    }
}

/// A whole number with a comma every three digits: `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Levenshtein's distance: how many letters must be inserted, removed or replaced to turn `a` into `b`.
#[must_use]
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_times_are_read_with_and_without_units() {
        assert_eq!(Unit::Bytes.parse("256MiB"), Ok(256 << 20));
        assert_eq!(Unit::Bytes.parse(" 64 KiB "), Ok(64 << 10));
        assert_eq!(Unit::Bytes.parse("5MB"), Ok(5_000_000));
        assert_eq!(Unit::Bytes.parse("4096"), Ok(4096));
        assert_eq!(Unit::Micros.parse("5ms"), Ok(5_000));
        assert_eq!(Unit::Micros.parse("2_000"), Ok(2_000));
        assert_eq!(Unit::Millis.parse("2min"), Ok(120_000));
        assert_eq!(Unit::Count.parse("1_000_000"), Ok(1_000_000));
    }

    #[test]
    fn what_is_not_a_number_with_a_known_unit_is_refused_with_what_is_accepted() {
        for bad in ["", "MiB", "-1", "1.5GiB", "5 parsecs", "1e6", "99999999999TiB", "_", "5 ms"] {
            let answer = Unit::Bytes.parse(bad);
            assert!(answer.is_err(), "{bad:?} was read as {answer:?}");
        }
        // Finer than the unit that is kept.
        assert!(Unit::Millis.parse("5us").unwrap_err().contains("milliseconds"));
        assert!(Unit::Count.parse("5MiB").is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(value: u64) {
            for unit in [Unit::Count, Unit::Bytes, Unit::Micros, Unit::Millis] {
                prop_assert_eq!(unit.parse(&unit.show(value)), Ok(value));
            }
        }

        #[test]
        fn the_distance_between_names_is_a_metric(a in "[a-d]{0,6}", b in "[a-d]{0,6}", c in "[a-d]{0,6}") {
            prop_assert_eq!(edit_distance(&a, &b), edit_distance(&b, &a));
            prop_assert_eq!(edit_distance(&a, &b) == 0, a == b);
            prop_assert!(edit_distance(&a, &c) <= edit_distance(&a, &b) + edit_distance(&b, &c));
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
        assert_eq!(about_bytes(1_610_612_736), "1.5 GiB");
    }
}
