//! What this machine gives a process: files, memory, io_uring, cores, the time.

use std::thread::available_parallelism;

use hybster::memory::Memory;
use hybster::{Group, Layout, NoTransport, TransportKind};
use hybster_net::AnyTransport;
use hybster_net::files::Files;
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::memory::size;
use crate::survey::now_ms;

/// 2026-01-01: this program is younger than that.
const EARLIEST_MS: u64 = 1_767_225_600_000;
/// 2100-01-01: it is not that old.
const LATEST_MS: u64 = 4_102_444_800_000;
/// "Cannot allocate memory", as io_uring says it where locked memory is counted.
const ENOMEM: i32 = 12;

pub(super) fn look(group: &Group) -> Vec<Finding> {
    let peers = group.replicas().len().saturating_sub(1);
    let limits = group.link_limits();
    let files = match Files::check(&limits, peers) {
        Ok(files) => files_are_enough(&files),
        Err(error) => Finding::wrong("files", "too few files may be open", error.to_string()),
    };
    let memory = Memory::of(group).bounded_bytes;
    let uring = AnyTransport::new(TransportKind::IoUring).map(drop);
    let lacks_memory = matches!(&uring, Err(NoTransport::IoUring(error))
        if error.raw_os_error() == Some(ENOMEM));
    let cores = available_parallelism().map_or(1, usize::from);
    vec![
        files,
        memory_is_enough(memory, getrlimit(Resource::As).current, machine_memory()),
        uring_works(uring),
        memlock(getrlimit(Resource::Memlock).current, lacks_memory),
        cores_are_enough(cores, group.config().pillars, group.layout()),
        time_is_plausible(now_ms()),
    ]
}

fn files_are_enough(files: &Files) -> Finding {
    let limit = files.limit.map_or_else(|| "any number of".to_owned(), |limit| limit.to_string());
    let found = format!("{limit} files may be open, and all links together need {}", files.needed);
    match files.warning() {
        None => Finding::ok("files", found),
        Some(advice) => Finding::warning("files", found, advice),
    }
}

fn memory_is_enough(bounds: u64, limit: Option<u64>, machine: Option<u64>) -> Finding {
    let sum = size(bounds);
    match (limit, machine) {
        (Some(limit), _) if limit < bounds => Finding::warning(
            "memory",
            format!("the address space may have {}, and the bounds sum up to {sum}", size(limit)),
            "raise the limit (ulimit -v): a replica that reaches it ends with an error",
        ),
        // The sum is what an attack by everybody at once could fill: nearly every machine has less.
        (_, Some(machine)) => Finding::ok(
            "memory",
            format!(
                "this machine has {}, and the bounds of a replica sum up to {sum}",
                size(machine)
            ),
        ),
        _ => Finding::ok("memory", format!("the bounds of a replica sum up to {sum}")),
    }
}

/// The machine's memory, or what the control group allows if that is less.
fn machine_memory() -> Option<u64> {
    let of_machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let of_group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let of_group = of_group.and_then(|text| text.trim().parse::<u64>().ok());
    of_machine.into_iter().chain(of_group).min()
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn uring_works(tried: Result<(), NoTransport>) -> Finding {
    match tried {
        Ok(()) => Finding::ok("io_uring", "it can be used"),
        Err(error) => {
            Finding::warning("io_uring", "links use epoll, which costs more CPU", error.to_string())
        }
    }
}

fn memlock(limit: Option<u64>, uring_lacks_memory: bool) -> Finding {
    let found = match limit {
        None => "any amount of memory may be locked".to_owned(),
        Some(limit) => format!("{} may be locked", size(limit)),
    };
    if uring_lacks_memory {
        let advice = "this kernel counts the memory of io_uring as locked: raise the limit to 64 MiB \
                      (ulimit -l 65536, LimitMEMLOCK= of systemd, --ulimit memlock= of a container)";
        return Finding::warning("memlock", found, advice);
    }
    Finding::ok("memlock", format!("{found}, which is enough"))
}

fn cores_are_enough(cores: usize, pillars: u16, layout: Layout) -> Finding {
    let found =
        format!("{cores} cores for {pillars} pillars: layout {}", layout.resolve(pillars, cores));
    let all = usize::from(pillars) + 2;
    match layout {
        Layout::Split if cores < all => Finding::warning(
            "cores",
            found,
            format!(
                "the layout split wants {all} cores, one each for network, pillars and execution; with fewer, \
                 auto or fused is faster (`hybster replica --layout`)"
            ),
        ),
        _ if cores < usize::from(pillars) => Finding::warning(
            "cores",
            found,
            "pillars work side by side only on cores of their own: a group for such machines needs fewer \
             (`hybster init --pillars`)",
        ),
        _ => Finding::ok("cores", found),
    }
}

fn time_is_plausible(now_ms: u64) -> Finding {
    if (EARLIEST_MS..LATEST_MS).contains(&now_ms) {
        return Finding::ok("time", "this machine's clock can be right");
    }
    Finding::wrong(
        "time",
        format!("this machine's clock says {} s since 1970", now_ms / 1000),
        "set it, and keep it right by NTP: a replica whose clock is wrong helps nobody to agree",
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn limits_are_compared_with_what_is_needed() {
        let files = |limit| files_are_enough(&Files { limit, needed: 1200, clients: 1000 });
        assert_eq!(files(None).verdict, Verdict::Ok);
        let few = files(Some(1024));
        assert!(few.verdict == Verdict::Warning && few.advice.unwrap().contains("ulimit -n 1200"));

        let gibibyte = 1 << 30;
        assert_eq!(memory_is_enough(gibibyte, None, Some(gibibyte)).verdict, Verdict::Ok);
        let limited = memory_is_enough(gibibyte, Some(1 << 20), None);
        assert!(limited.found.contains("1.00 MiB") && limited.verdict == Verdict::Warning);
        assert_eq!(total("MemFree: 1 kB\nMemTotal:   2048 kB\n"), Some(2 << 20));
    }

    #[test]
    fn io_uring_that_is_missing_is_a_warning_with_the_reason() {
        assert_eq!(uring_works(Ok(())).verdict, Verdict::Ok);
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let without = uring_works(Err(NoTransport::IoUring(error)));
        assert!(without.verdict == Verdict::Warning && without.advice.unwrap().contains("seccomp"));
        assert_eq!(memlock(Some(1 << 16), false).verdict, Verdict::Ok);
        assert_eq!(memlock(Some(1 << 16), true).verdict, Verdict::Warning);
    }

    #[test]
    fn cores_and_time_are_judged() {
        assert_eq!(cores_are_enough(4, 2, Layout::Split).verdict, Verdict::Ok);
        assert_eq!(cores_are_enough(2, 2, Layout::Auto).verdict, Verdict::Ok);
        assert_eq!(cores_are_enough(2, 2, Layout::Split).verdict, Verdict::Warning);
        assert_eq!(cores_are_enough(1, 2, Layout::Auto).verdict, Verdict::Warning);
        assert_eq!(time_is_plausible(now_ms()).verdict, Verdict::Ok);
        assert_eq!(time_is_plausible(5_000).verdict, Verdict::Wrong);
    }
}
