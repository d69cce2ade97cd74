//! Where everything that leaves the host waits for the log: the core's gate, and how far the log is.
//!
//! The network has one, if the replica has a log. What stages put out in a turn is staged here, and
//! goes on when the log has all that was appended before. The position is taken at the end of the log
//! as this thread sees it: what another agent has appended before it handed an effect over is in front
//! of that.

use std::sync::Arc;

use hybster_proto::egress::Gate as Core;
use hybster_proto::egress::Held;
use hybster_proto::output::{Network as Effect, Output, ReplyQueue};
use hybster_proto::time::Time;

use crate::durable::Durable;

/// The gate of a replica's network.
#[derive(Debug)]
pub(crate) struct LogGate {
    durable: Arc<Durable>,
    log: hybster_log::Gate,
    core: Core,
    staged: Output,
    /// Up to where the log was when the core was told last.
    seen: u64,
}

impl LogGate {
    pub(crate) fn new(durable: Arc<Durable>) -> Self {
        let log = durable.log.gate();
        // What an earlier process appended is durable: a recovery sees to it.
        let seen = durable.log.synced().0;
        Self { durable, log, core: Core::new(seen), staged: Output::default(), seen }
    }

    /// Stages an effect.
    pub(crate) fn stage(&mut self, effect: Effect) {
        self.staged.network.push(effect);
    }

    /// Stages replies; what is left in the queue is to be cleared.
    pub(crate) fn stage_replies(&mut self, replies: &mut ReplyQueue) {
        debug_assert!(self.staged.replies.is_empty(), "replies go on, or are held, each time");
        std::mem::swap(&mut self.staged.replies, replies);
    }

    /// What was staged, if it may go on at once; to be emptied. Otherwise it is held.
    pub(crate) fn pass(&mut self) -> Option<&mut Output> {
        let is_empty = self.staged.network.is_empty() && self.staged.replies.is_empty();
        if is_empty {
            return None;
        }
        let after = self.durable.log.appended().0;
        self.core.pass(after, &mut self.staged).then_some(&mut self.staged)
    }

    /// Asks the log how far it is.
    pub(crate) fn look(&mut self, now: Time) {
        self.seen = self.log.released(now.0 / 1000).0;
        self.core.durable(self.seen);
    }

    /// The next that was held and may go on; to be given back.
    pub(crate) fn release(&mut self) -> Option<Held> {
        self.core.release()
    }

    pub(crate) fn recycle(&mut self, held: Held) {
        self.core.recycle(held);
    }

    /// Whether something is held and the log has gone on.
    pub(crate) fn has_moved(&mut self, now: Time) -> bool {
        !self.core.is_empty() && self.log.released(now.0 / 1000).0 > self.seen
    }

    /// Up to where the log was when it was asked last.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// How many outputs are held.
    pub(crate) fn held(&self) -> usize {
        self.core.len()
    }
}
