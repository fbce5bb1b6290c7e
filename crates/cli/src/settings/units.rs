//! Sizes and durations as people write them: `4MiB`, `30s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// What a link carries, in bits a second, as its operator sells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// A length of time, in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Units of [`Size`], the ones that are written back first and from large to small.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// Units of [`Rate`], from large to small.
const RATES: [(&str, u64); 4] = [("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

/// Units of [`Span`] in milliseconds, from large to small.
const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// What a size looks like, for messages.
pub(super) const SIZE_FORM: &str = "a size such as \"4MiB\" (B, kB, KiB, MB, MiB, GB, GiB, TB, TiB)";
/// What a span looks like, for messages.
pub(super) const SPAN_FORM: &str = "a time such as \"30s\" (ms, s, m, h, d)";

/// A text is no size or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number and a unit")]
pub struct UnitError;

/// Reads a whole number and a unit, with or without a space between them.
fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| UnitError)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or(UnitError)?;
    number.checked_mul(*factor).ok_or(UnitError)
}

/// Writes a number in the largest of `units` that needs no fraction.
fn write(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let whole = |(_, factor): &&(&str, u64)| value.is_multiple_of(*factor) && value >= *factor;
    match units.iter().find(whole).or(units.last()) {
        Some((unit, factor)) => write!(f, "{}{unit}", value / factor),
        None => write!(f, "{value}"),
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, &SIZES).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, &SIZES[..5], f)
    }
}

impl Rate {
    /// Whole bytes a second.
    pub fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, &RATES).map(Self)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(self.0, &RATES, f)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, &SPANS).map(|milliseconds| Self(Duration::from_millis(milliseconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &SPANS, f)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_times_as_people_write_them() {
        for (text, bytes) in [
            ("0B", 0),
            ("4MiB", 4 << 20),
            ("10 GiB", 10 << 30),
            ("1kB", 1000),
            ("7B", 7),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for (text, milliseconds) in
            [("0s", 0), ("30s", 30_000), ("5m", 300_000), ("1d", 86_400_000), ("250ms", 250)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(milliseconds))), "{text}");
        }
        for text in [
            "",
            "4",
            "MiB",
            "-1B",
            "1.5GiB",
            "4mib",
            "4  MiB",
            "99999999999999999999B",
            "99999999TiB",
            "4MiB ",
        ] {
            assert_eq!(text.parse::<Size>(), Err(UnitError), "{text}");
        }
        for text in ["", "30", "s", "1 week", "-1s", "1h30m", "999999999999999999d"] {
            assert_eq!(text.parse::<Span>(), Err(UnitError), "{text}");
        }
    }

    #[test]
    fn they_are_written_with_the_largest_unit_that_fits() {
        assert_eq!(Size(4 << 20).to_string(), "4MiB");
        assert_eq!(Size((4 << 20) + 1).to_string(), "4194305B");
        assert_eq!(Size(0).to_string(), "0B");
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "90s");
        assert_eq!(Span(Duration::from_secs(7200)).to_string(), "2h");
        assert_eq!(Span(Duration::ZERO).to_string(), "0ms");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(number in any::<u64>(), text in ".{0,12}") {
            prop_assert_eq!(Size(number).to_string().parse(), Ok(Size(number)));
            let span = Span(Duration::from_millis(number));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            let _ = (text.parse::<Size>(), text.parse::<Span>());
        }
    }
}
