//! Open loop: operations arrive at a fixed rate, whether the group keeps up or not.
//!
//! Each operation has an *intended* time on a fixed grid, and its latency counts from that time. If
//! the group stalls, operations that arrive during the stall wait for a free session, and this wait
//! is part of their latency. So no operation is left out because the generator was blocked (the
//! mistake called coordinated omission).

use super::Pace;

/// The open loop of one thread.
#[derive(Debug)]
pub struct OpenLoop {
    idle: Vec<u32>,
    /// Nanoseconds between two operations, as a fraction to keep the rate exact.
    rate_per_s: f64,
    /// The number of the next operation, counted from 0.
    next: u64,
    next_at: u64,
    /// Number of operations whose intended time is before the end.
    intended: u64,
}

impl OpenLoop {
    /// A pace of `rate_per_s` operations over at most this many sessions at a time.
    #[must_use]
    pub fn new(sessions: u32, rate_per_s: f64) -> Self {
        let idle = Vec::with_capacity(sessions as usize);
        Self { idle, rate_per_s, next: 0, next_at: 0, intended: 0 }
    }

    fn time_of(&self, index: u64) -> u64 {
        (index as f64 / self.rate_per_s * 1e9) as u64
    }
}

impl Pace for OpenLoop {
    fn wait(&self, now: u64) -> Option<u64> {
        // Without a free session only a completion can help.
        if self.idle.is_empty() { None } else { Some(self.next_at.saturating_sub(now)) }
    }

    #[inline]
    fn idle(&mut self, session: u32) {
        self.idle.push(session);
    }

    #[inline]
    fn next(&mut self, now: u64, end: u64) -> Option<(u32, u64)> {
        // Operations intended before the end are submitted even if their time has passed.
        if self.next_at > now || self.next_at >= end {
            return None;
        }
        let session = self.idle.pop()?;
        let intended_at = self.next_at;
        self.next += 1;
        self.intended += 1;
        self.next_at = self.time_of(self.next);
        Some((session, intended_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_keep_their_intended_times_when_sessions_are_late() {
        let mut pace = OpenLoop::new(1, 1e6);
        pace.idle(7);
        assert_eq!(pace.next(0, 10_000), Some((7, 0)));
        assert_eq!(pace.next(5000, 10_000), None);
        // The session comes back late: the operation of microsecond 1 counts from there.
        pace.idle(7);
        assert_eq!(pace.next(5000, 10_000), Some((7, 1000)));
        pace.idle(7);
        assert_eq!(pace.wait(1500), Some(500));
        // Late, but intended before the end.
        assert_eq!(pace.next(20_000, 2001), Some((7, 2000)));
        pace.idle(7);
        assert_eq!(pace.next(20_000, 2001), None);
    }
}
