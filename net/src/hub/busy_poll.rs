//! Looking again for a moment before a wait puts the thread to sleep.
//!
//! To wake a thread on a sleeping core takes tens of microseconds, in a virtual machine more than a
//! message takes to be ordered. While messages follow each other closely a hub therefore looks a
//! few times more before it waits, and lets others run in between. It does so only while that pays:
//! a hub without traffic sleeps, whatever the limit.

use std::time::Duration;

/// Up to this score lingering is off, from it on it is on.
const ON: i32 = 4;
/// The score's bounds: how long a habit lives on.
const MOST: i32 = 16;

/// Whether to busy_poll: as long as waits end soon.
#[derive(Debug)]
pub(super) struct BusyPoll {
    limit: Duration,
    score: i32,
}

impl BusyPoll {
    /// Lingers for `limit` at most; never if that is zero.
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, score: 0 }
    }

    /// Whether waits are worth being observed.
    pub(super) const fn is_possible(&self) -> bool {
        !self.limit.is_zero()
    }

    /// How long to look again before this wait.
    pub(super) fn time(&self) -> Option<Duration> {
        (self.is_possible() && self.score >= ON).then_some(self.limit)
    }

    /// Something happened after so long a wait.
    pub(super) fn waited(&mut self, time: Duration) {
        // One long wait costs more than one short one gains.
        let change = if time < self.limit { 1 } else { -2 };
        self.score = (self.score + change).clamp(0, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    #[test]
    fn it_lingers_while_waits_are_short() {
        let mut busy_poll = BusyPoll::new(LIMIT);
        assert_eq!(busy_poll.time(), None);
        (0..ON).for_each(|_| busy_poll.waited(LIMIT / 2));
        assert_eq!(busy_poll.time(), Some(LIMIT));
        (0..100).for_each(|_| busy_poll.waited(LIMIT / 2));
        (0..MOST).for_each(|_| busy_poll.waited(LIMIT));
        assert_eq!(busy_poll.time(), None);
    }

    #[test]
    fn rare_messages_do_not_keep_it_awake() {
        let mut busy_poll = BusyPoll::new(LIMIT);
        for round in 0..1000 {
            busy_poll.waited(if round % 2 == 0 { LIMIT / 2 } else { Duration::from_secs(1) });
            assert_eq!(busy_poll.time(), None);
        }
    }

    #[test]
    fn without_a_limit_it_never_lingers() {
        let mut busy_poll = BusyPoll::new(Duration::ZERO);
        (0..100).for_each(|_| busy_poll.waited(Duration::ZERO));
        assert_eq!((busy_poll.is_possible(), busy_poll.time()), (false, None));
    }
}
