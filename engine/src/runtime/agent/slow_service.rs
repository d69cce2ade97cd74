//! How an agent whose stages share a thread goes about a service that takes long.
//!
//! What has arrived is handled, and what was certified is on its way, before the service is called: peers
//! wait for the one and not for the other. So its inputs are held back until the network was polled
//! once more, and are handled one a turn. Where the service is fast, none of this happens. What waits is
//! bounded as the execution stage's queue is, by the windows of the pillars.

use std::collections::VecDeque;

use hybster_proto::output::{Input, ToExecution};
use hybster_proto::time::Time;

/// How long the service is watched after a turn took long, in microseconds, and counts as slow after it
/// was the reason.
const SLOW_FOR_US: u64 = 1_000_000;
/// So it does until something is known of it.
const UNKNOWN: Time = Time(u64::MAX);

/// What an agent knows of its service, and inputs that wait for it, by stage.
#[derive(Debug)]
pub(super) struct SlowService {
    watched_until: Time,
    slow_until: Time,
    held: VecDeque<(usize, Input)>,
    /// Whether a turn has ended since the first one began to wait.
    gave_way: bool,
}

impl SlowService {
    pub(super) fn new() -> Self {
        let held = VecDeque::new();
        Self { watched_until: UNKNOWN, slow_until: UNKNOWN, held, gave_way: false }
    }

    /// Whether the service is watched, and calls of it go through here.
    #[inline]
    pub(super) fn is_watched(&self, now: Time) -> bool {
        now < self.watched_until || !self.held.is_empty()
    }

    /// Whether an input must wait for the end of a turn.
    pub(super) fn must_wait(&self, now: Time) -> bool {
        now < self.slow_until || !self.held.is_empty()
    }

    pub(super) fn hold(&mut self, stage: usize, input: Input) {
        self.held.push_back((stage, input));
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// The input to handle in this turn, if it is time for one; `is_idle` if nothing else is to be done.
    pub(super) fn next(&mut self, is_idle: bool) -> Option<(usize, Input)> {
        if self.held.is_empty() {
            return None;
        }
        let is_due = is_idle || self.gave_way;
        self.gave_way = !is_due;
        if is_due { self.held.pop_front() } else { None }
    }

    /// A turn took long, maybe for the service.
    pub(super) fn suspect(&mut self, now: Time) {
        if self.watched_until != UNKNOWN {
            self.watched_until = now.after_us(SLOW_FOR_US);
        }
    }

    /// The service was called, and took long or not.
    pub(super) fn called(&mut self, is_long: bool, now: Time) {
        if is_long {
            self.slow_until = now.after_us(SLOW_FOR_US);
            self.watched_until = self.slow_until;
        } else if self.slow_until == UNKNOWN {
            (self.slow_until, self.watched_until) = (now, now);
        }
    }
}

/// Whether the service is called for an input and may take its time, or the order with such inputs matters.
pub(super) fn takes_service_time(input: &Input) -> bool {
    use ToExecution::{Committed, Halt, Install};
    matches!(input, Input::Execution(Committed { .. } | Install { .. } | Halt))
}
