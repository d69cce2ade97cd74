//! Acknowledged operations over time.

use std::time::Duration;

/// The resolution of a timeline.
pub const BUCKET: Duration = Duration::from_millis(10);
const BUCKET_NS: u64 = BUCKET.as_nanos() as u64;
/// Memory for this long is allocated at the start; a longer load allocates more, once in a while.
const ROOM: Duration = Duration::from_secs(600);

/// How many operations were acknowledged in each hundredth of a second of the measured interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline(Vec<u32>);

impl Timeline {
    /// An empty timeline with memory for this time.
    #[must_use]
    pub fn with_room_for(length: Duration) -> Self {
        let buckets = length.min(ROOM).as_nanos() as u64 / BUCKET_NS + 1;
        Self(Vec::with_capacity(buckets as usize))
    }

    /// Adds operations that were acknowledged so many nanoseconds after the begin.
    #[inline]
    pub fn add(&mut self, at_ns: u64, operations: u32) {
        let bucket = (at_ns / BUCKET_NS) as usize;
        if bucket >= self.0.len() {
            self.0.resize(bucket + 1, 0);
        }
        self.0[bucket] += operations;
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(sum, count)| *sum += count);
    }

    /// The counts, over a time of this length: nothing was acknowledged after the last one.
    #[must_use]
    pub fn over(mut self, length: Duration) -> Vec<u32> {
        self.0.resize(length.as_nanos().div_ceil(BUCKET.as_nanos()) as usize, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_where_they_belong() {
        let mut one = Timeline::with_room_for(Duration::from_millis(25));
        one.add(0, 1);
        one.add(9_999_999, 2);
        one.add(10_000_000, 4);
        let mut other = Timeline::default();
        other.add(35_000_000, 8);
        one.merge(&other);
        assert_eq!(one.clone().over(Duration::from_millis(55)), [3, 4, 0, 8, 0, 0]);
        assert_eq!(one.over(Duration::from_millis(40)), [3, 4, 0, 8]);
    }
}
