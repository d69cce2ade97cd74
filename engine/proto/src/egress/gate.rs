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
//! | Who can fill it while the disk takes its time | Bound | Beyond it |
//! |---|---|---|
//! | the stages, with what they send for the first time | the order window, as what checkpoints and views have passed leaves the gate | |
//! | the stages, with what is asked, or sent again, to one peer or to all | [`AGAIN_BYTES`] each | dropped: whoever asks or repeats itself does so again |
//! | one peer, by what it asks for | what each stage lets wait for it | the stage gives no more |
//! | clients, by replies | the requests that they may have under way: they get no answer meanwhile | |

use std::collections::{BTreeMap, VecDeque};

use crate::ids::ReplicaId;
use crate::mutants::{self, Mutant};
use crate::output::{Destination, Network, Output, ReplyQueue, SendTag};

/// Emptied containers that are kept to be used again.
const SPARE: usize = 64;
/// Bytes of messages for one peer, or for all peers, that are held although their sender will send them again.
pub const AGAIN_BYTES: usize = 4 << 20;

/// What was put out together.
#[derive(Debug, Default)]
pub struct Held {
    after: u64,
    /// Effects on the network.
    pub network: Vec<Network>,
    /// Replies.
    pub replies: ReplyQueue,
}

/// An effect is not held any more.
fn left(again: &mut BTreeMap<Option<ReplicaId>, usize>, effect: &Network) {
    if let Some((peer, bytes)) = sent_again(effect)
        && let Some(held) = again.get_mut(&peer)
    {
        *held -= bytes;
    }
}

/// Holds what leaves until it may.
#[derive(Debug, Default)]
pub struct Gate {
    durable: u64,
    held: VecDeque<Held>,
    /// By peer, none for all of them: bytes of what is held and will be sent again.
    again: BTreeMap<Option<ReplicaId>, usize>,
    spare: Vec<Held>,
}

/// For whom a message is, if it will be sent again without being kept here, and its length.
fn sent_again(effect: &Network) -> Option<(Option<ReplicaId>, usize)> {
    let Network::Send { to, message, tag, is_new: false } = effect else { return None };
    let peer = match to {
        Destination::Peer(peer) => Some(*peer),
        Destination::AllPeers | Destination::Thrifty(_) => None,
        Destination::Client(_) => return None,
    };
    (!matches!(tag, SendTag::Answer(_))).then_some((peer, message.len()))
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
                let Self { held, again, .. } = self;
                for held in held {
                    held.network.retain(|effect| match effect {
                        Network::Send { tag, .. } if tag.is_withdrawn(mark) => {
                            left(again, effect);
                            false
                        }
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
        let again = &mut self.again;
        out.network.retain(|effect| {
            let Some((peer, bytes)) = sent_again(effect) else { return true };
            let held = again.entry(peer).or_default();
            let has_room = *held + bytes <= AGAIN_BYTES || *held == 0;
            *held += if has_room { bytes } else { 0 };
            has_room
        });
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
        let held = self.held.pop_front_if(|held| held.after <= durable)?;
        held.network.iter().for_each(|effect| left(&mut self.again, effect));
        Some(held)
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

    /// A disk that does not answer: what is repeated meanwhile has its room, and what is new all of it.
    #[test]
    fn what_is_repeated_while_the_disk_is_slow_is_bounded() {
        let (mut gate, mut out) = (Gate::new(0), Output::default());
        let message = Bytes::from(vec![0; 1 << 20]);
        for order in 0..64 {
            let tag = SendTag::Ordering(View(0), OrderNumber(order));
            out.send(Destination::Peer(ReplicaId(1)), message.clone(), tag);
            out.send(Destination::AllPeers, message.clone(), SendTag::Transient);
            out.send_new(Destination::AllPeers, message.clone(), tag);
            assert!(!gate.pass(1, &mut out));
        }
        let count = |gate: &Gate| gate.held.iter().map(|held| held.network.len()).sum::<usize>();
        let repeated = 2 * (AGAIN_BYTES >> 20);
        assert_eq!(count(&gate), 64 + repeated);
        // What is withdrawn makes room, and so does what leaves.
        let mark = Watermark { order: OrderNumber(63), view: View(0) };
        out.network.push(Network::Withdraw(mark));
        assert!(!gate.pass(1, &mut out));
        assert_eq!(count(&gate), repeated / 2 + 1);
        gate.durable(1);
        while let Some(held) = gate.release() {
            gate.recycle(held);
        }
        assert!(gate.again.values().all(|bytes| *bytes == 0));
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
