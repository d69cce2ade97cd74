//! CPU time and memory of processes, from `/proc`.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;

/// CPU time that a process has used so far, user and system, over all threads.
///
/// # Errors
/// If the process is gone or `/proc` is not mounted.
pub fn cpu_time(pid: u32) -> Result<Duration, Error> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|e| Error::new(format!("{path}: {e}")))?;
    let ticks = cpu_ticks(&text)
        .ok_or_else(|| Error::new(format!("{path} is not laid out as proc(5) says")))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// CPU time that the host of this virtual machine has given to others while this one had work,
/// summed over its cores since it started; 0 on a physical machine.
///
/// # Errors
/// If `/proc` is not mounted.
pub fn stolen_time() -> Result<Duration, Error> {
    let path = "/proc/stat";
    let text = fs::read_to_string(path).map_err(|e| Error::new(format!("{path}: {e}")))?;
    let ticks = steal_ticks(&text)
        .ok_or_else(|| Error::new(format!("{path} is not laid out as proc(5) says")))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// proc(5): `cpu user nice system idle iowait irq softirq steal …`, of all cores together.
fn steal_ticks(stat: &str) -> Option<u64> {
    let all = stat.lines().find(|line| line.starts_with("cpu "))?;
    all.split_ascii_whitespace().nth(8)?.parse().ok()
}

/// utime + stime of a `/proc/PID/stat` line. The command name in parentheses may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    // proc(5): field 3 (state) comes right after the name; utime is 14, stime 15.
    let mut fields = rest.split_ascii_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident now (VmRSS).
    pub rss_bytes: u64,
    /// Resident at most since the process started (VmHWM).
    pub peak_rss_bytes: u64,
}

/// Memory of a process.
///
/// # Errors
/// If the process is gone or `/proc` is not mounted.
pub fn memory(pid: u32) -> Result<Memory, Error> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|e| Error::new(format!("{path}: {e}")))?;
    Ok(Memory {
        rss_bytes: kib_line(&text, "VmRSS:").unwrap_or(0) << 10,
        peak_rss_bytes: kib_line(&text, "VmHWM:").unwrap_or(0) << 10,
    })
}

/// The number of a line like `VmRSS:     1234 kB`.
pub(crate) fn kib_line(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Whether a process with this id exists and is not a zombie.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_the_eighth_figure_of_all_cores() {
        let stat = "cpu  10 20 30 40 50 60 70 81 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(steal_ticks(stat), Some(81));
        assert_eq!(steal_ticks("cpu 1 2 3\n"), None);
        assert!(stolen_time().unwrap() <= stolen_time().unwrap());
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "42 (a) b (c) R 1 42 42 0 -1 4194304 100 0 0 0 700 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(cpu_ticks(line), Some(750));
        assert_eq!(cpu_ticks("nonsense"), None);
    }

    #[test]
    fn this_process_has_memory_and_runs() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(memory.rss_bytes > 0 && memory.peak_rss_bytes >= memory.rss_bytes / 2);
        assert!(cpu_time(pid).is_ok());
        assert!(is_running(pid));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Larger than any pid the kernel gives out (PID_MAX_LIMIT is 2^22).
        assert!(cpu_time(1 << 30).is_err());
        assert!(!is_running(1 << 30));
    }
}
