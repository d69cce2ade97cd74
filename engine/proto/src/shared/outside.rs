//! A peer that has left the view alone, and how long its leader waits before it leaves as well
//! (DEVIATIONS 27).

use crate::config::GroupConfig;
use crate::time::Time;

/// The first wait, in the sum of request and view timeout: others may leave as well by then.
const FIRST_WAIT: u64 = 4;
/// How often the wait doubles.
const MAX_DOUBLINGS: u32 = 10;

/// What a leader knows of peers outside its view.
#[derive(Default)]
pub(crate) struct Outside {
    /// Since when one is.
    since: Option<Time>,
    /// How often this replica has left a view for that.
    times: u32,
}

impl Outside {
    /// When the leader leaves its view for that peer.
    pub(crate) fn deadline(&self, config: &GroupConfig) -> Option<Time> {
        let first_us = FIRST_WAIT * (config.request_timeout_us + config.view_timeout_us);
        self.since.map(|at| at.after_us(first_us << self.times.min(MAX_DOUBLINGS)))
    }

    /// Notes whether a peer is outside.
    pub(crate) fn note(&mut self, is_outside: bool, now: Time) {
        if !is_outside {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// Whether no peer is known to be outside.
    pub(crate) fn knows_none(&self) -> bool {
        self.since.is_none()
    }

    /// The leader leaves its view for that peer.
    pub(crate) fn step_up(&mut self) {
        self.since = None;
        self.times = self.times.saturating_add(1);
    }
}
