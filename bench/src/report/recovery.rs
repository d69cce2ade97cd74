//! What clients noticed of an event, by the throughput over time.

use serde::{Deserialize, Serialize};

use crate::load::BUCKET;

/// The rate before an event is that of so many buckets: one second.
const BEFORE: usize = 100;
/// The rate is full again if so many buckets have it: 200 ms.
const WINDOW: usize = 20;
/// This share of the rate before the event is called full.
const FULL: f64 = 0.9;
/// Fewer empty buckets may be chance, and no gap that the rate must come back from: 50 ms.
const SHORT: usize = 5;

/// What clients noticed of an event, until the next one or the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// Operations per second in the second before the event; absent if it was the first thing of all.
    pub before_ops_s: Option<f64>,
    /// Longest time without a completion, in whole hundredths of a second.
    pub gap_ms: u64,
    /// From the event to the first 200 ms after that gap with at least 90 % of the rate before. Absent if
    /// there were none.
    pub full_rate_after_ms: Option<u64>,
}

impl Recovery {
    /// Of an event in bucket `at`, looked at from bucket `from` to before `until`: what is outside belongs
    /// to other events.
    #[must_use]
    pub fn of(completed: &[u32], from: usize, at: usize, until: usize) -> Self {
        let until = until.min(completed.len());
        let at = at.min(until);
        let bucket_ms = BUCKET.as_millis() as u64;
        let before = &completed[from.max(at.saturating_sub(BEFORE)).min(at)..at];
        let mean = |buckets: &[u32]| {
            let sum: u64 = buckets.iter().map(|count| u64::from(*count)).sum();
            sum as f64 / buckets.len() as f64
        };
        let rate = (!before.is_empty()).then(|| mean(before));
        let (begin, length) = longest_gap(&completed[at..until]);
        let after = at + if length >= SHORT { begin + length } else { 0 };
        let is_full = |window: &[u32], rate: f64| mean(window) >= FULL * rate;
        let full = rate.filter(|rate| *rate > 0.0).and_then(|rate| {
            let windows = completed[after.min(until)..until].windows(WINDOW);
            windows.enumerate().find(|(_, window)| is_full(window, rate)).map(|(n, _)| after + n)
        });
        Self {
            before_ops_s: rate.map(|rate| rate / BUCKET.as_secs_f64()),
            gap_ms: length as u64 * bucket_ms,
            full_rate_after_ms: full.map(|bucket| (bucket - at) as u64 * bucket_ms),
        }
    }
}

/// Begin and length of the longest run of empty buckets.
fn longest_gap(completed: &[u32]) -> (usize, usize) {
    let (mut best, mut begin) = ((0, 0), 0);
    for (at, count) in completed.iter().enumerate() {
        if *count > 0 {
            begin = at + 1;
        } else if at + 1 - begin > best.1 {
            best = (begin, at + 1 - begin);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(parts: &[(usize, u32)]) -> Vec<u32> {
        parts.iter().flat_map(|(buckets, count)| std::iter::repeat_n(*count, *buckets)).collect()
    }

    #[test]
    fn a_gap_and_the_way_back_to_the_full_rate_are_measured() {
        // 2 s at 100 per bucket; the event; 30 ms more; 400 ms nothing; 300 ms at half the rate; full.
        let completed = timeline(&[(200, 100), (3, 100), (40, 0), (30, 50), (200, 95)]);
        let recovery = Recovery::of(&completed, 0, 200, usize::MAX);
        assert_eq!(recovery.before_ops_s, Some(10_000.0));
        assert_eq!(recovery.gap_ms, 400);
        // 20 buckets hold 90 % of the rate as soon as 18 of them have 95 and 2 have 50.
        assert_eq!(recovery.full_rate_after_ms, Some(710));
    }

    #[test]
    fn what_nobody_noticed_has_no_gap() {
        let completed = timeline(&[(300, 10)]);
        let recovery = Recovery::of(&completed, 0, 100, 200);
        assert_eq!((recovery.gap_ms, recovery.full_rate_after_ms), (0, Some(0)));
    }

    #[test]
    fn a_rate_that_does_not_come_back_is_told() {
        let completed = timeline(&[(100, 10), (10, 0), (100, 8)]);
        let recovery = Recovery::of(&completed, 0, 100, usize::MAX);
        assert_eq!((recovery.gap_ms, recovery.full_rate_after_ms), (100, None));
        // Another event comes before.
        let completed = timeline(&[(100, 10), (10, 0), (100, 10)]);
        assert_eq!(Recovery::of(&completed, 0, 100, 120).full_rate_after_ms, None);
        assert_eq!(Recovery::of(&completed, 0, 100, 140).full_rate_after_ms, Some(100));
    }

    #[test]
    fn an_event_at_the_very_begin_or_end_has_nothing_to_compare_with() {
        let completed = timeline(&[(50, 10)]);
        let first = Recovery::of(&completed, 0, 0, usize::MAX);
        assert_eq!((first.before_ops_s, first.full_rate_after_ms), (None, None));
        let last = Recovery::of(&completed, 0, 60, usize::MAX);
        assert_eq!((last.gap_ms, last.full_rate_after_ms), (0, None));
        assert_eq!(Recovery::of(&[], 0, 0, 0), Recovery::default());
    }
}
