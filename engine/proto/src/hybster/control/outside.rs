//! A peer that has left the view alone, and the way back for it (DEVIATIONS 27).
//!
//! Its counters are beyond the view, so it can certify nothing in it any more. It commits what the
//! others commit, but the group has one replica less to spare until the next view. So the leader
//! leaves its view for the next one after a while, and all others follow it at once.
//!
//! A liar that asks for a later view has given up its part in this one as well, as its own
//! certificates show. What it gains is a view change without need. The wait before one doubles with each that a
//! leader has brought about, so in the long run each leader brings about one in 2^[`MAX_DOUBLINGS`] first
//! waits at most. If the leader is the liar, the peer stays outside, as it would without this rule.

use hybster_tss::Verifier;

use super::Control;
use crate::config::GroupConfig;
use crate::mutants::{self, Mutant};
use crate::notice::Departure;
use crate::output::Output;
use crate::time::Time;

/// The first wait, in the sum of request and view timeout: others may leave as well by then.
const FIRST_WAIT: u64 = 4;
/// How often the wait doubles.
const MAX_DOUBLINGS: u32 = 10;

/// What a leader knows of peers outside its view.
#[derive(Default)]
pub(super) struct Outside {
    /// Since when one is.
    since: Option<Time>,
    /// How often this replica has left a view for that.
    times: u32,
}

impl Outside {
    fn deadline(&self, config: &GroupConfig) -> Option<Time> {
        let first_us = FIRST_WAIT * (config.request_timeout_us + config.view_timeout_us);
        self.since.map(|at| at.after_us(first_us << self.times.min(MAX_DOUBLINGS)))
    }
}

impl<V: Verifier> Control<V> {
    /// Notes whether a peer has left the view that this replica leads.
    pub(super) fn note_outsiders(&mut self, now: Time) {
        let leads = self.is_stable() && self.config.leader(self.stable_view) == self.id;
        // No other view would be of any use to a group that has halted.
        let is_outside = leads
            && self.messages.asked_by(1) > self.current
            && !self.differences.has_halted()
            && !mutants::active(Mutant::LeftOutside);
        if !is_outside {
            self.outside.since = None;
        } else if self.outside.since.is_none() {
            self.outside.since = Some(now);
        }
    }

    /// Whether no peer is known to be outside.
    pub(super) fn knows_no_outsider(&self) -> bool {
        self.outside.since.is_none()
    }

    /// When this replica leaves its view for a peer that is outside.
    pub(super) fn outside_deadline(&self) -> Option<Time> {
        self.outside.deadline(&self.config).filter(|_| self.may_certify())
    }

    /// To be called when [`Control::outside_deadline`] has passed.
    pub(super) fn step_up_view(&mut self, now: Time, out: &mut Output) {
        self.outside.since = None;
        self.outside.times = self.outside.times.saturating_add(1);
        self.leave_for(self.current.next(), Departure::PeerOutside, now, out);
    }
}
