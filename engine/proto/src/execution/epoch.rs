//! Changes of members in the execution stage: taken when they are executed, kept as a part of the state, and the end of
//! the epoch at their boundary (`engine/proto/EPOCHS.md`).

use bytes::Bytes;

use super::{Execution, Halt};
use crate::ids::OrderNumber;
use crate::membership::{self, Change};
use crate::output::{Output, ToPillar};
use crate::service::Service;

impl<S: Service> Execution<S> {
    /// The change that is pending: it has not come to its boundary.
    ///
    /// The one that led to this epoch is part of the state up to the checkpoint that it begins with.
    pub(super) fn pending(&self) -> Option<&Change> {
        let begun = self.config.membership.beginning.order;
        self.change.as_ref().filter(|change| change.ending.boundary > begun)
    }

    /// Judges a change of members, and returns the answer.
    #[cold]
    pub(super) fn reconfigure(&mut self, operation: &[u8], out: &mut Output) -> [u8; 9] {
        let order = self.context.order;
        let (reply, change) = membership::judge(&self.config, self.pending(), order, operation);
        if change.is_some() {
            self.change = change;
            self.tell_end(out);
        }
        reply.encode()
    }

    /// Tells the pillars how far the epoch goes, if that is known: a leader is to bring the group there.
    pub(super) fn tell_end(&self, out: &mut Output) {
        if let Some(change) = self.pending() {
            out.pending = Some(change.clone());
            for pillar in self.config.all_pillars() {
                out.pillar(pillar, ToPillar::EndsAt(change.ending.boundary));
            }
        }
    }

    /// At the boundary nothing more is executed in this epoch.
    pub(super) fn end_epoch(&mut self) {
        if self.pending().is_some_and(|change| change.ending.boundary == self.executed) {
            self.halt = Halt::Ended;
        }
    }

    /// The next configuration and the last order number of this epoch, once a change is pending.
    #[must_use]
    pub fn next_configuration(&self) -> Option<(OrderNumber, Bytes)> {
        self.pending().map(|change| (change.ending.boundary, change.next.clone()))
    }
}
