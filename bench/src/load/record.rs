//! Recording the measurements of one load thread.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Failure, Timeline};

/// Longest latency that is recorded; longer ones count as this.
const LONGEST_NS: u64 = 1_000_000_000_000;

/// An empty histogram of latencies in nanoseconds. All have the same bounds, so that they can be added.
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds are in order")
}

/// Records latencies, failures and the longest silence inside the measured interval.
#[derive(Clone, Debug)]
pub struct Recorder {
    latency_ns: Histogram<u64>,
    failures: [u64; Failure::ALL.len()],
    last_completion: Option<u64>,
    longest_gap: u64,
    longest_gap_at: u64,
    timeline: Timeline,
}

/// The merged measurements of all load threads.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Latencies in nanoseconds; its length is the number of completed operations.
    pub latency_ns: Histogram<u64>,
    /// Failures by kind, in the order of [`Failure::ALL`].
    pub failures: [u64; Failure::ALL.len()],
    /// Longest time without a completion, over all threads.
    pub longest_gap: Duration,
    /// When that gap began, nanoseconds from the start of the load.
    pub longest_gap_at: Duration,
    /// Acknowledged operations over time.
    pub timeline: Timeline,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            latency_ns: latency_histogram(),
            failures: [0; Failure::ALL.len()],
            last_completion: None,
            longest_gap: 0,
            longest_gap_at: 0,
            timeline: Timeline::default(),
        }
    }
}

impl Recorder {
    /// A recorder whose first gap begins here, in nanoseconds from the start of the load, with memory for
    /// a timeline of this length.
    #[must_use]
    pub fn starting_at(begin: u64, length: Duration) -> Self {
        let timeline = Timeline::with_room_for(length);
        Self { last_completion: Some(begin), timeline, ..Self::default() }
    }

    /// Takes note of operations that were acknowledged inside the interval, `at` nanoseconds from its
    /// begin.
    #[inline]
    pub fn acknowledged(&mut self, at: u64, operations: u32) {
        self.timeline.add(at, operations);
    }

    /// The latencies so far, in nanoseconds.
    #[must_use]
    pub fn latency_ns(&self) -> &Histogram<u64> {
        &self.latency_ns
    }

    /// Counts an acknowledged operation.
    #[inline]
    pub fn completed(&mut self, latency_ns: u64) {
        // Saturating: a latency beyond the range counts as the longest one.
        self.latency_ns.saturating_record(latency_ns);
    }

    /// Counts a failed operation.
    pub fn failed(&mut self, failure: Failure) {
        self.failures[failure as usize] += 1;
    }

    /// Takes note that operations completed at `now` (nanoseconds from the start of the load).
    #[inline]
    pub fn progress(&mut self, now: u64) {
        if let Some(last) = self.last_completion {
            let gap = now.saturating_sub(last);
            if gap > self.longest_gap {
                self.longest_gap = gap;
                self.longest_gap_at = last;
            }
        }
        self.last_completion = Some(now);
    }

    /// Ends the interval at `now`; a gap that lasts until then counts too.
    pub fn close(&mut self, now: u64) {
        if self.last_completion.is_some() {
            self.progress(now);
        }
    }

    /// Merges what several threads recorded.
    #[must_use]
    pub fn merge(recorders: impl IntoIterator<Item = Self>) -> Measured {
        let mut all = Self::default();
        for recorder in recorders {
            all.latency_ns.add(&recorder.latency_ns).expect("all histograms have equal bounds");
            for (sum, count) in all.failures.iter_mut().zip(recorder.failures) {
                *sum += count;
            }
            all.timeline.merge(&recorder.timeline);
            if recorder.longest_gap > all.longest_gap {
                all.longest_gap = recorder.longest_gap;
                all.longest_gap_at = recorder.longest_gap_at;
            }
        }
        Measured {
            latency_ns: all.latency_ns,
            failures: all.failures,
            longest_gap: Duration::from_nanos(all.longest_gap),
            longest_gap_at: Duration::from_nanos(all.longest_gap_at),
            timeline: all.timeline,
        }
    }
}

impl Measured {
    /// Acknowledged operations.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.latency_ns.len()
    }

    /// Operations that failed.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.failures.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_merged_and_the_longest_gap_wins() {
        let (mut a, mut b) = (Recorder::default(), Recorder::default());
        a.completed(1000);
        a.progress(10);
        a.progress(30);
        b.completed(3000);
        b.completed(u64::MAX);
        b.failed(Failure::Evicted);
        b.progress(100);
        b.progress(110);
        b.close(200);
        let measured = Recorder::merge([a, b]);
        assert_eq!((measured.completed(), measured.errors()), (3, 1));
        assert_eq!(measured.failures[Failure::Evicted as usize], 1);
        assert_eq!(measured.longest_gap, Duration::from_nanos(90));
        assert_eq!(measured.longest_gap_at, Duration::from_nanos(110));
    }

    #[test]
    fn the_order_of_failures_is_that_of_the_list() {
        for (at, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, at);
        }
    }
}
