//! What a replica with a log may vouch for.
//!
//! A CHECKPOINT says that the replica holds the state, and peers forget what leads there when enough
//! say so. So it must be able to say so after a restart as well. A state that its execution reached can be
//! had again: from the durable checkpoint and what the log has committed beyond. A state that was
//! transferred cannot, nor one that was reached from there. For these the replica vouches when the
//! transferred state, or a later one, is durable.

use crate::ids::OrderNumber;
use crate::mutants::{self, Mutant};
use crate::wire::CheckpointId;

/// Which checkpoints may be vouched for.
///
/// Invariant: what waits lies in the order window, so it is bounded.
#[derive(Default, Debug)]
pub(super) struct Vouching {
    /// The last durable checkpoint.
    durable: OrderNumber,
    /// The transferred state that is not durable yet.
    installed: Option<OrderNumber>,
    /// Checkpoints taken since.
    waiting: Vec<CheckpointId>,
}

impl Vouching {
    /// A transferred state was installed.
    pub(super) fn installed(&mut self, order: OrderNumber) {
        if order > self.durable {
            self.installed = Some(order);
        }
    }

    /// Whether a checkpoint that was taken may be vouched for. If not, [`Vouching::durable`] returns it.
    pub(super) fn may_vouch(&mut self, id: CheckpointId) -> bool {
        if self.installed.is_some() && !mutants::active(Mutant::VouchesUnsaved) {
            self.waiting.push(id);
            return false;
        }
        true
    }

    /// A checkpoint is durable; returns those that may be vouched for from now on.
    pub(super) fn durable(&mut self, order: OrderNumber) -> Vec<CheckpointId> {
        self.durable = self.durable.max(order);
        let durable = self.durable;
        self.installed.take_if(|installed| *installed <= durable);
        if self.installed.is_some() {
            return Vec::new();
        }
        std::mem::take(&mut self.waiting)
    }

    /// Whether a checkpoint is later than what is durable.
    pub(super) fn is_news(&self, order: OrderNumber) -> bool {
        order > self.durable
    }
}
