//! The gate: nothing leaves a replica before the log has what it rests on.
//!
//! Whatever a stage puts out, messages, replies and answers to queries alike, carries the position of
//! the log when it did so, behind the records that it had appended. It is held here until the log is
//! durable that far, and goes on in the order in which it came. Inputs to other stages are not held:
//! nobody outside sees what a replica thinks.
//!
//! Everything that the effects rest on was appended before: a stage appends before it tells another
//! one, so a position taken later covers what an earlier stage logged.
//!
//! Memory: what is held is what the stages put out within one sync of the log. Votes and proposals are
//! bounded by the order window; replies by the requests that clients may have under way, as no client is
//! answered meanwhile. What checkpoints and views have passed leaves it, as it leaves Egress.

use std::collections::VecDeque;

use crate::mutants::{self, Mutant};
use crate::output::{Network, Output, ReplyQueue};

/// Emptied containers that are kept to be used again.
const SPARE: usize = 64;

/// What was put out together.
#[derive(Debug, Default)]
pub struct Held {
    after: u64,
    /// Effects on the network.
    pub network: Vec<Network>,
    /// Replies.
    pub replies: ReplyQueue,
}

/// Holds what leaves until it may.
#[derive(Debug, Default)]
pub struct Gate {
    durable: u64,
    held: VecDeque<Held>,
    spare: Vec<Held>,
}

impl Gate {
    /// A gate before a log that is durable up to here.
    #[must_use]
    pub fn new(durable: u64) -> Self {
        Self { durable, ..Self::default() }
    }

    /// Whether what is in an output may go at once. If not, it is taken out and held: its effects on the
    /// network and its replies. `after` is the end of the log, with the records of this output.
    #[inline]
    pub fn pass(&mut self, after: u64, out: &mut Output) -> bool {
        if self.held.is_empty() && after <= self.durable {
            return true;
        }
        let is_ungated = (mutants::active(Mutant::RepliesUngated) && out.network.is_empty())
            || (mutants::active(Mutant::MessagesUngated) && out.replies.is_empty());
        if is_ungated {
            return true;
        }
        self.hold(after, out);
        false
    }

    fn hold(&mut self, after: u64, out: &mut Output) {
        for effect in &out.network {
            if let Network::Withdraw(mark) = effect {
                for held in &mut self.held {
                    held.network.retain(|effect| match effect {
                        Network::Send { tag, .. } => !tag.is_withdrawn(mark),
                        _ => true,
                    });
                }
            }
        }
        let has_some = !out.network.is_empty() || !out.replies.is_empty();
        if !has_some {
            return;
        }
        let mut held = self.spare.pop().unwrap_or_default();
        held.after = after;
        std::mem::swap(&mut held.network, &mut out.network);
        std::mem::swap(&mut held.replies, &mut out.replies);
        self.held.push_back(held);
    }

    /// The log is durable up to here.
    pub fn durable(&mut self, cursor: u64) {
        self.durable = self.durable.max(cursor);
    }

    /// The next that may go, if there is one; to be given back when it is emptied.
    pub fn release(&mut self) -> Option<Held> {
        let durable = self.durable;
        self.held.pop_front_if(|held| held.after <= durable)
    }

    /// Takes back what [`Gate::release`] gave.
    pub fn recycle(&mut self, mut held: Held) {
        held.network.clear();
        held.replies.clear();
        if self.spare.len() < SPARE {
            self.spare.push(held);
        }
    }

    /// How many outputs are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::{OrderNumber, View};
    use crate::output::{Destination, SendTag, Watermark};

    fn sent(out: &mut Output, order: u64) {
        let tag = SendTag::Ordering(View(0), OrderNumber(order));
        out.send(Destination::AllPeers, Bytes::from(order.to_le_bytes().to_vec()), tag);
    }

    fn orders(held: &Held) -> Vec<u64> {
        let orders = held.network.iter().filter_map(|effect| match effect {
            Network::Send { tag: SendTag::Ordering(_, order), .. } => Some(order.0),
            _ => None,
        });
        orders.collect()
    }

    #[test]
    fn what_leaves_waits_for_the_log_and_keeps_its_order() {
        let (mut gate, mut out) = (Gate::new(10), Output::default());
        sent(&mut out, 1);
        assert!(gate.pass(10, &mut out), "the log has it");
        assert_eq!(out.network.len(), 1);
        assert!(!gate.pass(11, &mut out));
        assert!(out.network.is_empty());
        sent(&mut out, 2);
        assert!(!gate.pass(10, &mut out), "it would overtake the first");
        assert!(gate.release().is_none());
        gate.durable(11);
        let first = gate.release().expect("it is durable");
        assert_eq!(orders(&first), [1]);
        gate.recycle(first);
        assert_eq!(orders(&gate.release().expect("so is this")), [2]);
        assert!(gate.is_empty() && gate.pass(11, &mut out));
    }

    #[test]
    fn what_a_checkpoint_has_passed_does_not_leave() {
        let (mut gate, mut out) = (Gate::new(0), Output::default());
        for order in [3, 8] {
            sent(&mut out, order);
        }
        assert!(!gate.pass(1, &mut out));
        let mark = Watermark { order: OrderNumber(4), view: View(0) };
        out.network.push(Network::Withdraw(mark));
        assert!(!gate.pass(2, &mut out));
        gate.durable(2);
        assert_eq!(orders(&gate.release().expect("it is durable")), [8]);
    }
}
