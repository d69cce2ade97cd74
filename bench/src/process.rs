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

/// What a process has used so far, and has now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Used {
    /// CPU seconds, user and system, over all threads.
    pub cpu_s: f64,
    /// Resident memory.
    pub rss_bytes: u64,
}

/// CPU time and memory of a process by one small file, for who asks often.
///
/// # Errors
/// If the process is gone or `/proc` is not mounted.
pub fn used(pid: u32) -> Result<Used, Error> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|e| Error::new(format!("{path}: {e}")))?;
    let (ticks, pages) = cpu_ticks(&text)
        .zip(resident_pages(&text))
        .ok_or_else(|| Error::new(format!("{path} is not laid out as proc(5) says")))?;
    Ok(Used {
        cpu_s: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss_bytes: pages * rustix::param::page_size() as u64,
    })
}

/// A thread, and how it has spent its time so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadTime {
    /// The kernel's number of it.
    pub id: u32,
    /// Its name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// On a core.
    pub cpu: Duration,
    /// Ready to run, without a core.
    pub waited: Duration,
}

/// The threads of a process. Empty if the process is gone, or its kernel keeps no such times.
#[must_use]
pub fn threads(pid: u32) -> Vec<ThreadTime> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let thread = |task: fs::DirEntry| {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).ok();
        let (cpu, waited) = scheduled(&read("schedstat")?)?;
        let id = task.file_name().to_str()?.parse().ok()?;
        Some(ThreadTime { id, name: read("comm")?.trim().to_owned(), cpu, waited })
    };
    tasks.filter_map(thread).collect()
}

/// `cpu wait slices` of a `schedstat`, in nanoseconds.
fn scheduled(text: &str) -> Option<(Duration, Duration)> {
    let mut fields = text.split_ascii_whitespace().map(str::parse);
    let mut next = || Some(Duration::from_nanos(fields.next()?.ok()?));
    Some((next()?, next()?))
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

/// rss of the same line: its field 24, in pages.
fn resident_pages(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(24 - 3)?.parse().ok()
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
        assert_eq!(resident_pages(line), Some(3));
        assert_eq!(cpu_ticks("nonsense"), None);
    }

    #[test]
    fn this_process_has_memory_and_runs() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(memory.rss_bytes > 0 && memory.peak_rss_bytes >= memory.rss_bytes / 2);
        assert!(cpu_time(pid).is_ok());
        assert!(is_running(pid));
        assert!(used(pid).unwrap().rss_bytes > 0);
        // The kernel may keep no such times; if it does, this thread is among them.
        let threads = threads(pid);
        assert!(threads.is_empty() || threads.iter().any(|thread| !thread.cpu.is_zero()));
    }

    #[test]
    fn a_thread_has_run_and_waited() {
        let times = (Duration::from_nanos(1500), Duration::from_nanos(20));
        assert_eq!(scheduled("1500 20 7\n"), Some(times));
        assert_eq!(scheduled("1500"), None);
        assert_eq!(scheduled("a b c"), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Larger than any pid the kernel gives out (PID_MAX_LIMIT is 2^22).
        assert!(cpu_time(1 << 30).is_err());
        assert!(!is_running(1 << 30));
    }
}
