//! The machine that a figure was measured on, without which the figure means nothing.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::process::kib_line;

/// Where and when a measurement was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model name of the first CPU.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Total memory.
    pub memory_bytes: u64,
    /// When the measurement ended, UTC, ISO 8601.
    pub date: String,
    /// Version of Hybster.
    pub hybster: String,
    /// `release` or `debug`: figures of a debug build are worthless.
    pub build: String,
}

impl Machine {
    /// This machine at this time; properties that cannot be found out are "unknown".
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let known = |text: &str| {
            if text.is_empty() { "unknown".to_owned() } else { text.to_owned() }
        };
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Self {
            cpu: known(cpu_model(&read("/proc/cpuinfo"))),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: known(read("/proc/sys/kernel/osrelease").trim()),
            memory_bytes: kib_line(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0) << 10,
            date: utc(seconds),
            hybster: env!("CARGO_PKG_VERSION").into(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
        }
    }
}

fn cpu_model(cpuinfo: &str) -> &str {
    let value = |key: &str| {
        let line = cpuinfo.lines().find(|l| l.starts_with(key))?;
        Some(line.split_once(':')?.1.trim())
    };
    // x86 has "model name"; aarch64 only has the implementer's part number.
    value("model name").or_else(|| value("CPU part")).unwrap_or("")
}

/// Seconds since 1970 as `YYYY-MM-DDThh:mm:ssZ`.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days in the proleptic Gregorian calendar; years start in March inside.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(1_767_225_599), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn the_cpu_model_is_found() {
        assert_eq!(cpu_model("processor : 0\nmodel name\t: AMD EPYC 9\n"), "AMD EPYC 9");
        assert_eq!(cpu_model(""), "");
    }
}
