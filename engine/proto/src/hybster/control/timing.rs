//! The times of batches in a view change: no time enters a view before some correct clock is there.
//!
//! A NEW-VIEW must re-issue what its VIEW-CHANGEs name, because it may be committed, and at the time
//! that it had, because it may be executed. But a leader's own VIEW-CHANGE names its proposals, also
//! those that nobody acknowledged: so a leader that lies about the time could bring its lie into the
//! next view. If it were dropped there because of a clock, safety would depend on clocks. But clocks
//! may decide which messages are used; the others count as not arrived yet:
//! - A leader-to-be does not use a VIEW-CHANGE or NEW-VIEW-ACK with an *early* time, one that is
//!   ahead of its clock by more than the group's bound. It keeps the message, since its clock may get
//!   there. Correct replicas name no time that none of them accepted, and they are enough.
//! - A replica does not enter a NEW-VIEW that re-issues an early time, unless f+1 peers have sent
//!   it: a peer sends what it has entered, one of them is correct, and so it is the clock of this
//!   replica that is wrong.
//!
//! Old times are no obstacle here: a view change may take any time.

use hybster_tss::Verifier;

use super::Control;
use crate::hybster::wire::ordering::PrepareHeader;
use crate::hybster::wire::view::NewView;
use crate::ids::{ReplicaId, View};
use crate::mutants::{self, Mutant};
use crate::time::Time;

/// The latest time of a batch in prepared sets.
pub(super) fn latest_time<'a>(sets: impl IntoIterator<Item = &'a Vec<PrepareHeader>>) -> u64 {
    sets.into_iter().flatten().map(|header| header.time_ms).max().unwrap_or(0)
}

impl<V: Verifier> Control<V> {
    /// Times beyond this one are early.
    pub(super) fn latest_acceptable_ms(&self, now: Time) -> u64 {
        if mutants::active(Mutant::EarlyReissued) {
            return u64::MAX;
        }
        self.clock.unix_ms(now).saturating_add(self.config.max_clock_skew_ms)
    }

    /// Whether a NEW-VIEW re-issues an early time.
    pub(super) fn is_early(&self, new_view: &NewView, now: Time) -> bool {
        latest_time(&new_view.prepares) > self.latest_acceptable_ms(now)
    }

    /// Notes that a peer sent an early NEW-VIEW; whether f+1 peers have done so by now.
    ///
    /// One view is kept per peer, the last one that it sent: a liar takes back only its own word.
    pub(super) fn is_entered_by_others(&mut self, peer: ReplicaId, view: View) -> bool {
        self.early[usize::from(peer.0)] = view;
        let entered = self.early.iter().filter(|of| **of == view).count();
        entered >= self.config.acknowledging()
    }
}
