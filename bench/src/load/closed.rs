//! Closed loop: every session submits its next operation as soon as the last one has ended.

use super::Pace;

/// The closed loop over a fixed set of sessions.
#[derive(Debug)]
pub struct ClosedLoop {
    idle: Vec<u32>,
}

impl ClosedLoop {
    /// Room for this many sessions.
    #[must_use]
    pub fn new(sessions: u32) -> Self {
        Self { idle: Vec::with_capacity(sessions as usize) }
    }
}

impl Pace for ClosedLoop {
    fn wait(&self, _: u64) -> Option<u64> {
        None
    }

    #[inline]
    fn idle(&mut self, session: u32) {
        self.idle.push(session);
    }

    #[inline]
    fn next(&mut self, now: u64, end: u64) -> Option<(u32, u64)> {
        if now >= end {
            return None;
        }
        self.idle.pop().map(|session| (session, now))
    }
}
