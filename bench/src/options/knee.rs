//! What a load must satisfy: `p99<5ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hybster::duration::{DurationRange, Human};

/// A figure of the latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Median.
    P50,
    /// 90th percentile.
    P90,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P999,
    /// Arithmetic mean.
    Mean,
    /// The largest.
    Max,
}

impl Measure {
    /// All, with their names.
    const ALL: [(&'static str, Self); 7] = [
        ("p50", Self::P50),
        ("p90", Self::P90),
        ("p99", Self::P99),
        ("p999", Self::P999),
        ("mean", Self::Mean),
        ("max", Self::Max),
        ("p99.9", Self::P999),
    ];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, measure)| *measure == self).map_or("", |(name, _)| name)
    }
}

/// A bound of the latency that a load must stay below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objective {
    /// What is bounded.
    pub measure: Measure,
    /// It must be less.
    pub below: Duration,
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}<{}", self.measure.name(), Human(self.below))
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "write p50, p90, p99, p999, mean or max, then < and a time, as in p99<5ms";
        let (name, below) =
            text.split_once('<').ok_or_else(|| format!("there is no < in it: {FORMS}"))?;
        let name = name.trim();
        let found = Measure::ALL.iter().find(|(known, _)| *known == name);
        let (_, measure) = found.ok_or_else(|| format!("{name:?} is no figure: {FORMS}"))?;
        let range = DurationRange::seconds(Duration::from_micros(1), Duration::from_secs(3600));
        let below = range.parse(below).map_err(|e| e.to_string())?;
        Ok(Self { measure: *measure, below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_and_printed_alike() {
        for text in ["p99<5ms", "p50<300us", "max<1s", "mean<2ms"] {
            assert_eq!(text.parse::<Objective>().unwrap().to_string(), text);
        }
        let spaced: Objective = " p99.9 < 10 ms".parse().unwrap();
        assert_eq!(spaced.to_string(), "p999<10ms");
        for (text, told) in
            [("p99", "no <"), ("p42<5ms", "\"p42\" is no figure"), ("p99<fast", "no duration")]
        {
            assert!(text.parse::<Objective>().unwrap_err().contains(told), "{text}");
        }
    }
}
