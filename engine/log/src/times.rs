//! How long syncs take: a histogram that one thread fills and others read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets for each doubling.
const PARTS: u64 = 8;
/// Times of 2^36 µs, 19 hours, and longer share the last bucket.
const BUCKETS: usize = 34 * PARTS as usize;

/// Times in µs, each counted in a bucket that is an eighth of its time wide at most.
pub(crate) struct Times {
    buckets: Box<[AtomicU64]>,
    longest: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, longest: AtomicU64::new(0) }
    }
}

impl std::fmt::Debug for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Times").field(&self.read()).finish()
    }
}

/// What syncs of the log took since it was opened, in µs; 0 if there was none. Percentiles are at most an eighth
/// too high.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SyncTimes {
    /// Half of them took no longer.
    pub p50_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// None took longer.
    pub longest_us: u64,
}

impl Times {
    pub(crate) fn add(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Relaxed);
        self.longest.fetch_max(us, Relaxed);
    }

    pub(crate) fn read(&self) -> SyncTimes {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.load(Relaxed)).collect();
        let (all, longest_us) = (counts.iter().sum::<u64>(), self.longest.load(Relaxed));
        let percentile = |percent: u64| {
            let mut left = (all * percent).div_ceil(100);
            let found = counts.iter().position(|count| {
                let is_there = left > 0 && *count >= left;
                left = left.saturating_sub(*count);
                is_there
            });
            found.map_or(0, |bucket| end(bucket).min(longest_us))
        };
        SyncTimes { p50_us: percentile(50), p99_us: percentile(99), longest_us }
    }
}

/// Times below [`PARTS`] have a bucket each, then each doubling has as many.
fn bucket(us: u64) -> usize {
    if us < PARTS {
        return us as usize;
    }
    let doubling = u64::from(us.ilog2() - PARTS.ilog2());
    let part = (us >> doubling) - PARTS;
    (((doubling + 1) * PARTS + part) as usize).min(BUCKETS - 1)
}

/// The longest time of a bucket.
fn end(bucket: usize) -> u64 {
    let (doubling, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    if doubling == 0 {
        return part;
    }
    ((PARTS + part + 1) << (doubling - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_its_bucket() {
        let mut last = 0;
        for us in (0..5_000).chain((13..36).map(|bits| 1 << bits)) {
            let at = bucket(us);
            assert!(at >= last && us <= end(at), "{us} µs in bucket {at}");
            assert!(end(at) - us <= us / PARTS, "{us} µs: up to {}", end(at));
            last = at;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let times = Times::default();
        assert_eq!(times.read(), SyncTimes::default());
        (1..=200).for_each(|us| times.add(Duration::from_micros(us)));
        let SyncTimes { p50_us, p99_us, longest_us } = times.read();
        assert!((100..=112).contains(&p50_us), "{p50_us}");
        assert!((198..=200).contains(&p99_us), "{p99_us}");
        assert_eq!(longest_us, 200);
    }
}
