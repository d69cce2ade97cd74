//! Durations as people write them: `5s`, `500ms`, `2m`, and plain numbers.
//!
//! Command lines and examples share this parser. It is not a crate such as `humantime`, because a plain
//! number must still be one of the unit that its option always had, and fractions (`0.5`, `1.5s`) must
//! be allowed, which that crate refuses.

use std::fmt;
use std::time::Duration;

/// Names of units, and their length in nanoseconds. The first that fits is used for printing.
const UNITS: [(&str, u64); 10] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5, the micro sign
    ("μs", 1_000), // U+03BC, the Greek letter
    ("ns", 1),
    ("d", 86_400_000_000_000),
];

/// What an option takes: the unit of a plain number, and the least and the longest duration.
///
/// ```
/// use std::time::Duration;
/// use hybster::duration::DurationRange;
///
/// let range = DurationRange::seconds(Duration::ZERO, Duration::from_secs(86_400));
/// assert_eq!(range.parse("500ms"), Ok(Duration::from_millis(500)));
/// assert_eq!(range.parse("2m"), Ok(Duration::from_secs(120)));
/// assert_eq!(range.parse("0.5"), Ok(Duration::from_millis(500)));
/// assert!(range.parse("2 days").is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationRange {
    unit: &'static str,
    unit_ns: u64,
    least: Duration,
    most: Duration,
}

/// A duration that cannot be used; the text says what can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// The text is no duration.
    #[error(
        "\"{text}\" is no duration: write a number and h, m, s, ms or us, as in 5s, 500ms, 2m; \
             a plain number means {unit}"
    )]
    Malformed {
        /// The text.
        text: String,
        /// The unit of a plain number.
        unit: &'static str,
    },
    /// The duration is outside of what the option takes.
    #[error("{} is out of range: give {} to {}", Human(*given), Human(*least), Human(*most))]
    OutOfRange {
        /// The duration.
        given: Duration,
        /// The least that can be given.
        least: Duration,
        /// The most that can be given.
        most: Duration,
    },
}

impl DurationRange {
    /// From `least` to `most`; a plain number means seconds.
    #[must_use]
    pub const fn seconds(least: Duration, most: Duration) -> Self {
        Self { unit: "seconds", unit_ns: 1_000_000_000, least, most }
    }

    /// The same, for options whose plain number means minutes.
    #[must_use]
    pub const fn minutes(least: Duration, most: Duration) -> Self {
        Self { unit: "minutes", unit_ns: 60_000_000_000, least, most }
    }

    /// The same, for options whose plain number means microseconds.
    #[must_use]
    pub const fn microseconds(least: Duration, most: Duration) -> Self {
        Self { unit: "microseconds", unit_ns: 1_000, least, most }
    }

    /// The duration that a text means.
    ///
    /// # Errors
    /// If the text is no duration, or one out of range.
    pub fn parse(&self, text: &str) -> Result<Duration, DurationError> {
        let malformed = || DurationError::Malformed { text: text.to_owned(), unit: self.unit };
        let trimmed = text.trim();
        let end =
            trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let unit_ns = match unit.trim_start() {
            "" => self.unit_ns,
            name => UNITS.iter().find(|(known, _)| *known == name).ok_or_else(malformed)?.1,
        };
        let given = exactly(number, unit_ns).ok_or_else(malformed)?;
        if given < self.least || given > self.most {
            let (least, most) = (self.least, self.most);
            return Err(DurationError::OutOfRange { given, least, most });
        }
        Ok(given)
    }
}

/// A decimal number of units, in whole nanoseconds (what is beyond them is cut off). Too long a
/// duration becomes the longest.
fn exactly(number: &str, unit_ns: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| {
        text.bytes().fold(0_u128, |sum, digit| {
            sum.saturating_mul(10).saturating_add(u128::from(digit - b'0'))
        })
    };
    // Eighteen digits are more than nanoseconds of a day need.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = digits(fraction) * u128::from(unit_ns) / 10_u128.pow(fraction.len() as u32);
    let ns = digits(whole).saturating_mul(u128::from(unit_ns)).saturating_add(part);
    Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
}

/// Prints a duration so that [`DurationRange::parse`] reads it: `2m`, `1500ms`, `0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Human(pub Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        let whole = |(name, unit): &&(&str, u64)| {
            *name != "min" && ns > 0 && ns.is_multiple_of(u128::from(*unit))
        };
        match UNITS.iter().find(whole) {
            Some((name, unit)) => write!(f, "{}{name}", ns / u128::from(*unit)),
            None => f.write_str("0s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const SECONDS: DurationRange = DurationRange::seconds(Duration::ZERO, DAY);

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("5s", 5_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("2min", 120_000),
            ("1.5s", 1_500),
            (" 3 s ", 3_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("2000us", 2),
            ("2000µs", 2),
            ("2000000ns", 2),
            // As before.
            ("10", 10_000),
            ("0.5", 500),
            (".5", 500),
            ("2.", 2_000),
            ("0", 0),
        ] {
            assert_eq!(SECONDS.parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        let micros = DurationRange::microseconds(Duration::ZERO, DAY);
        assert_eq!(micros.parse("100"), Ok(Duration::from_micros(100)));
        assert_eq!(micros.parse("1ms"), Ok(Duration::from_micros(1000)));
        let minutes = DurationRange::minutes(Duration::ZERO, DAY);
        assert_eq!(minutes.parse("0.5"), Ok(Duration::from_secs(30)));
        assert_eq!(minutes.parse("90s"), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn what_is_no_duration_is_told_with_what_is() {
        for text in ["", "s", ".", "1.2.3s", "-1s", "5 parsecs", "1e3", "nan", "inf", "5s6", "٣s"]
        {
            let error = SECONDS.parse(text).unwrap_err().to_string();
            assert!(error.contains("500ms") && error.contains("seconds"), "{text}: {error}");
        }
        let error = SECONDS.parse("2d").unwrap_err().to_string();
        assert_eq!(error, "48h is out of range: give 0s to 24h");
        let huge = "9".repeat(300);
        assert!(matches!(SECONDS.parse(&huge), Err(DurationError::OutOfRange { .. })));
        let range = DurationRange::seconds(Duration::from_millis(1), DAY);
        assert!(matches!(range.parse("0"), Err(DurationError::OutOfRange { .. })));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(ns in 0..u64::MAX) {
            let range = DurationRange::seconds(Duration::ZERO, Duration::MAX);
            let duration = Duration::from_nanos(ns);
            prop_assert_eq!(range.parse(&Human(duration).to_string()), Ok(duration));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC*") {
            let _ = SECONDS.parse(&text);
        }
    }
}
