//! Sorts stacks by the activity of the process, to answer "where do the nanoseconds go".
//!
//! The innermost frame with a known activity decides. The MAC of a request, for example, counts as
//! checking if a pillar called it, and as the client's work if the client did. Stacks without such
//! a frame are `other`, which must stay small.

use std::collections::BTreeMap;

/// The kind of process that the stacks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A replica.
    Replica,
    /// The load generator with its client.
    Load,
}

/// The activities, in the order of a request's path.
pub const NAMES: [&str; 13] = [
    "load generator",
    "client",
    "kernel: send",
    "kernel: receive",
    "kernel: wait, wake, other",
    "link MAC",
    "network",
    "runtime",
    "verify requests",
    "order",
    "execute",
    "reply",
    "checkpoint",
];

/// The activity of stacks that match no name.
pub const OTHER: &str = "other";

/// Parts of the names of functions in kernel stacks, with their activity; the first match counts.
const KERNEL: [(&str, &str); 9] = [
    ("writev", "kernel: send"),
    ("sendmsg", "kernel: send"),
    ("sys_sendto", "kernel: send"),
    ("sys_write", "kernel: send"),
    ("io_send", "kernel: send"),
    ("sys_recv", "kernel: receive"),
    ("sys_read", "kernel: receive"),
    ("io_recv", "kernel: receive"),
    ("", "kernel: wait, wake, other"),
];

/// The same for the frames of all processes, searched from the innermost frame outwards.
const COMMON: [(&str, &str); 9] = [
    ("polyval::", "link MAC"),
    ("ghash::", "link MAC"),
    ("aes_gcm::", "link MAC"),
    ("ring::", "link MAC"),
    ("hybster_net::cipher", "link MAC"),
    ("hybster_net::", "network"),
    ("mio::", "network"),
    ("io_uring::", "network"),
    ("hybster::runtime::network", "network"),
];

const REPLICA: [(&str, &str); 18] = [
    ("verify_client", "verify requests"),
    ("ClientVerifier", "verify requests"),
    ("check_requests", "verify requests"),
    ("is_authentic", "verify requests"),
    ("hybster_proto::wire::reply", "reply"),
    ("hybster::runtime::links", "reply"),
    ("Network<T>::reply", "reply"),
    ("reply<hybster_net", "reply"),
    ("ReplyQueue", "reply"),
    ("take_snapshot", "checkpoint"),
    ("hybster_proto::state", "checkpoint"),
    ("hybster_proto::execution", "execute"),
    ("hybster::services", "execute"),
    ("hybster_proto::intake", "order"),
    ("hybster_proto::hybster::pillar", "order"),
    ("hybster_proto::hybster::control", "order"),
    ("hybster::runtime", "runtime"),
    ("__rust_begin_short_backtrace", "runtime"),
];

const LOAD: [(&str, &str); 7] = [
    ("hybster_proto::", "client"),
    ("hybster::client", "client"),
    ("hybster_tss::", "client"),
    ("hybster_bench::", "load generator"),
    ("hdrhistogram::", "load generator"),
    ("__rust_begin_short_backtrace", "load generator"),
    ("indicatif::", "load generator"),
];

/// For stacks that could not be unwound because of assembly without unwind tables. By far the most
/// BLAKE3 is spent on the digests of batches.
const BROKEN: (&str, &str) = ("blake3_", "order");

/// CPU time by activity.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    nanoseconds: BTreeMap<&'static str, u64>,
    samples: u64,
}

impl Shares {
    /// Sorts the output of `perf script`.
    #[must_use]
    pub fn of(script: &str, kind: Kind) -> Self {
        let mut shares = Self::default();
        for sample in script.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.starts_with('#'));
            let Some(period) = lines.by_ref().find_map(period) else { continue };
            let frames: Vec<&str> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
            if !frames.is_empty() {
                shares.samples += 1;
                *shares.nanoseconds.entry(category(&frames, kind)).or_default() += period;
            }
        }
        shares
    }

    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// CPU time of all samples.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.nanoseconds.values().sum::<u64>() as f64 / 1e9
    }

    /// The activities, and their seconds.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let names = NAMES.into_iter().chain([OTHER]);
        names.filter_map(|name| Some((name, *self.nanoseconds.get(name)? as f64 / 1e9)))
    }
}

/// The period of a sample, in nanoseconds, from its first line: `… TIME:  PERIOD EVENT: `.
fn period(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace().rev();
    let event = words.next()?;
    let period = words.next()?;
    event.ends_with(':').then(|| period.parse().ok())?
}

fn category(frames: &[&str], kind: Kind) -> &'static str {
    if frames[0].starts_with("ffffffff") {
        let (_, name) = KERNEL
            .into_iter()
            .find(|(part, _)| frames.iter().any(|frame| frame.contains(part)))
            .expect("the last one fits always");
        return name;
    }
    let own: &[(&str, &str)] = match kind {
        Kind::Replica => &REPLICA,
        Kind::Load => &LOAD,
    };
    let of_frame = |frame: &&str| {
        let rules = own.iter().chain(&COMMON);
        rules.into_iter().find(|(part, _)| frame.contains(part)).map(|(_, name)| *name)
    };
    let found = frames.iter().find_map(of_frame);
    let broken = || {
        let fits = kind == Kind::Replica && frames.iter().any(|frame| frame.contains(BROKEN.0));
        fits.then_some(BROKEN.1)
    };
    found.or_else(broken).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
r0-all 14968  7928.543142:    1003009 cpu-clock:ppp: 
\t           3c8ac4 state_mac_final+0x354 (/usr/bin/hb)
\t           2acdbe <X as hybster_tss::requests::RequestVerifier>::verify_client+0x3ce (/usr/bin/hb)
\t           202ee7 hybster_proto::hybster::pillar::Pillar<T,V>::handle+0x4877 (/usr/bin/hb)

r0-all 14968  7928.553665:    1003009 cpu-clock:ppp: 
\tffffffff813a2413 finish_task_switch+0x93 ([kernel.kallsyms])
\tffffffff81000130 __x64_sys_writev+0x76 ([kernel.kallsyms])
\t           202ee7 mio::net::write (/usr/bin/hb)

r0-all 14968  7928.653665:    1003009 cpu-clock:ppp: 
\t           202ee7 polyval::proc_par_blocks (/usr/bin/hb)
\t           202ee8 hybster_net::link::Opener::open (/usr/bin/hb)

r0-all 14968  7928.753665:    1003009 cpu-clock:ppp: 
\t           202ee7 memcpy (/lib/libc.so.6)

";

    #[test]
    fn stacks_belong_to_the_innermost_frame_that_tells() {
        let shares = Shares::of(SCRIPT, Kind::Replica);
        assert_eq!(shares.samples(), 4);
        let names: Vec<_> = shares.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["kernel: send", "link MAC", "verify requests", OTHER]);
        assert!(shares.iter().all(|(_, seconds)| seconds == 1_003_009e-9));
        assert!((shares.seconds() - 4.012_036e-3).abs() < 1e-9);
    }

    #[test]
    fn every_rule_leads_to_a_name_of_the_table() {
        let rules = KERNEL.iter().chain(&COMMON).chain(&REPLICA).chain(&LOAD);
        for (_, name) in rules {
            assert!(NAMES.contains(name), "{name}");
        }
    }

    #[test]
    fn the_same_mac_is_the_clients_work_in_the_load_generator() {
        let script = SCRIPT.replace("hybster_proto::hybster::pillar", "hybster_proto::client");
        let names: Vec<_> = Shares::of(&script, Kind::Load).iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["client", "kernel: send", "link MAC", OTHER]);
    }
}
