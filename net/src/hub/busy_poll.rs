//! Busy polling: checking for messages a little longer before the thread goes to sleep.
//!
//! Waking a thread on a sleeping core takes tens of microseconds, in a virtual machine more than
//! ordering a message. So while messages follow each other closely, a hub polls a few times more
//! before it sleeps, and yields in between. It does so only while that pays: a hub without traffic
//! sleeps, whatever the limit.

use std::time::Duration;

/// Busy polling is on from this score.
const ON: i32 = 4;
/// The highest score, which bounds how many long waits it takes to turn busy polling off.
const MOST: i32 = 16;

/// Decides whether to poll busily, by how long the last waits took.
#[derive(Debug)]
pub(super) struct BusyPoll {
    limit: Duration,
    score: i32,
    /// Whether the last wait has polled busily and then ended without a sleep.
    sleeps_next: bool,
}

impl BusyPoll {
    /// Polls busily for `limit` at most; never if that is zero.
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, score: 0, sleeps_next: false }
    }

    /// Whether it can ever be on; if not, there is no need to measure waits.
    pub(super) const fn is_possible(&self) -> bool {
        !self.limit.is_zero()
    }

    /// How long to poll busily before this wait, if at all.
    pub(super) fn time(&mut self) -> Option<Duration> {
        let is_done = std::mem::take(&mut self.sleeps_next);
        (self.is_possible() && self.score >= ON && !is_done).then_some(self.limit)
    }

    /// This wait polled busily to no avail, and ends because there is something to do. The next one goes on
    /// where it ended: it sleeps.
    pub(super) fn sleep_next(&mut self) {
        self.sleeps_next = true;
    }

    /// Takes note that something arrived after a wait of this length.
    pub(super) fn waited(&mut self, time: Duration) {
        // A long wait costs more than a short one gains.
        let change = if time < self.limit { 1 } else { -2 };
        self.score = (self.score + change).clamp(0, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    #[test]
    fn it_polls_busily_while_waits_are_short() {
        let mut busy_poll = BusyPoll::new(LIMIT);
        assert_eq!(busy_poll.time(), None);
        (0..ON).for_each(|_| busy_poll.waited(LIMIT / 2));
        assert_eq!(busy_poll.time(), Some(LIMIT));
        (0..100).for_each(|_| busy_poll.waited(LIMIT / 2));
        (0..MOST).for_each(|_| busy_poll.waited(LIMIT));
        assert_eq!(busy_poll.time(), None);
    }

    #[test]
    fn one_that_ended_early_is_followed_by_a_sleep() {
        let mut busy_poll = BusyPoll::new(LIMIT);
        (0..ON).for_each(|_| busy_poll.waited(LIMIT / 2));
        busy_poll.sleep_next();
        assert_eq!((busy_poll.time(), busy_poll.time()), (None, Some(LIMIT)));
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
    fn without_a_limit_it_never_polls_busily() {
        let mut busy_poll = BusyPoll::new(Duration::ZERO);
        (0..100).for_each(|_| busy_poll.waited(Duration::ZERO));
        assert_eq!((busy_poll.is_possible(), busy_poll.time()), (false, None));
    }
}
