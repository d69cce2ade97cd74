//! A peer that has left the view alone, and the way back for it (DEVIATIONS 27).
//!
//! Its counters are beyond the view, so it can certify nothing in it any more. It commits what the
//! others commit, but the group has one replica less to spare until the next view. So the leader
//! leaves its view for the next one after a while, and all others follow it at once.
//!
//! A liar that asks for a later view has given up its part in this one as well, as its own
//! certificates show. What it gains is a view change without need. The wait before one doubles with each that a
//! leader has brought about, so in the long run each leader brings about one in 1024 first
//! waits at most. If the leader is the liar, the peer stays outside, as it would without this rule.

use hybster_tss::Verifier;

use super::Control;
use crate::mutants::{self, Mutant};
use crate::notice::Departure;
use crate::output::Output;
use crate::time::Time;

impl<V: Verifier> Control<V> {
    /// Notes whether a peer has left the view that this replica leads.
    pub(super) fn note_outsiders(&mut self, now: Time) {
        let leads = self.is_stable() && self.config.leader(self.stable_view) == self.id;
        // No other view would be of any use to a group that has halted.
        let is_outside = leads
            && self.messages.asked_by(1) > self.current
            && !self.differences.has_halted()
            && !mutants::active(Mutant::LeftOutside);
        self.outside.note(is_outside, now);
    }

    /// Whether no peer is known to be outside.
    pub(super) fn knows_no_outsider(&self) -> bool {
        self.outside.knows_none()
    }

    /// When this replica leaves its view for a peer that is outside.
    pub(super) fn outside_deadline(&self) -> Option<Time> {
        self.outside.deadline(&self.config).filter(|_| self.may_certify())
    }

    /// To be called when [`Control::outside_deadline`] has passed.
    pub(super) fn step_up_view(&mut self, now: Time, out: &mut Output) {
        self.outside.step_up();
        self.leave_for(self.current.next(), Departure::PeerOutside, now, out);
    }
}
