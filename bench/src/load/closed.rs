//! Closed loop: every session submits its next operation as soon as the last one has ended and its
//! client has thought long enough.

use std::collections::VecDeque;
use std::time::Duration;

use super::Pace;

/// The closed loop over a fixed set of sessions.
#[derive(Debug)]
pub struct ClosedLoop {
    /// Sessions that may submit; without a think time, the one that was idle last is the first.
    idle: Vec<u32>,
    think_ns: u64,
    /// Sessions whose clients think, with the time until which they do.
    thinking: VecDeque<(u64, u32)>,
}

impl ClosedLoop {
    /// Room for this many sessions; each client thinks so long between two operations.
    #[must_use]
    pub fn new(sessions: u32, think: Duration) -> Self {
        let room = sessions as usize;
        let think_ns = think.as_nanos() as u64;
        let thinking = VecDeque::with_capacity(if think_ns > 0 { room } else { 0 });
        Self { idle: Vec::with_capacity(room), think_ns, thinking }
    }
}

impl Pace for ClosedLoop {
    fn wait(&self, now: u64) -> Option<u64> {
        self.thinking.front().map(|(until, _)| until.saturating_sub(now))
    }

    #[inline]
    fn idle(&mut self, session: u32, now: u64) {
        if self.think_ns == 0 {
            self.idle.push(session);
        } else {
            self.thinking.push_back((now + self.think_ns, session));
        }
    }

    #[inline]
    fn next(&mut self, now: u64, end: u64) -> Option<(u32, u64)> {
        if now >= end {
            return None;
        }
        if let Some(session) = self.idle.pop() {
            return Some((session, now));
        }
        // Latency counts from the end of the thought, also if this thread is late.
        let (until, session) = self.thinking.pop_front_if(|(until, _)| *until <= now)?;
        Some((session, until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_thinks_before_its_next_operation() {
        let mut pace = ClosedLoop::new(2, Duration::from_nanos(100));
        pace.idle(0, 0);
        pace.idle(1, 30);
        assert_eq!(pace.next(99, 1000), None);
        assert_eq!(pace.wait(90), Some(10));
        assert_eq!(pace.next(140, 1000), Some((0, 100)));
        assert_eq!(pace.next(140, 1000), Some((1, 130)));
        assert_eq!((pace.next(140, 1000), pace.wait(140)), (None, None));
        pace.idle(0, 150);
        assert_eq!(pace.next(250, 250), None, "the load has ended");
    }

    #[test]
    fn without_a_think_time_sessions_go_on_at_once() {
        let mut pace = ClosedLoop::new(1, Duration::ZERO);
        pace.idle(0, 5);
        assert_eq!(pace.wait(5), None);
        assert_eq!(pace.next(7, 10), Some((0, 7)));
    }
}
