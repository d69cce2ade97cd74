//! What a leading pillar has been told to propose and has not proposed yet.

use bytes::BytesMut;
use std::collections::VecDeque;

use crate::intake::CREDIT;

/// Batches and gaps that wait for the window to have room. The intake bounds their number: it hands
/// out no more until the pillar says that it has taken what it got.
#[derive(Default)]
pub(crate) struct Proposals {
    pending: VecDeque<(BytesMut, u32)>,
    /// Slots to cover by no-ops if nothing is pending.
    fill_through: Option<u64>,
}

/// What to propose next.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Proposal {
    /// A batch, with room for the proposal's head in front, and the number of its requests.
    Batch(BytesMut, u32),
    /// No-ops through this slot.
    NoOp(u64),
}

impl Proposals {
    /// A batch of this many requests, with room in front.
    pub(crate) fn push(&mut self, buffer: BytesMut, requests: u32) {
        self.pending.push_back((buffer, requests));
    }

    /// Other pillars are ahead: cover the slots through this one (DEVIATIONS 6).
    pub(crate) fn fill(&mut self, through: u64) {
        self.fill_through = self.fill_through.max(Some(through));
    }

    /// What to propose at `slot`, the next one. A batch is taken out; a gap remains until it is
    /// covered, because one no-op may not reach to its end.
    pub(crate) fn next(&mut self, slot: u64) -> Option<Proposal> {
        if let Some((buffer, requests)) = self.pending.pop_front() {
            return Some(Proposal::Batch(buffer, requests));
        }
        self.fill_through = self.fill_through.filter(|through| *through >= slot);
        self.fill_through.map(Proposal::NoOp)
    }

    /// The view is left: clients send their requests again.
    pub(crate) fn clear(&mut self) {
        self.pending.clear();
        self.fill_through = None;
    }

    /// Stops the process if more waits than the intake may have handed out.
    #[inline]
    pub(crate) fn check_invariants(&self) {
        assert!(self.pending.len() <= CREDIT as usize, "no more batches wait than there is credit");
    }

    /// Appends what waits; the first `head` bytes of each batch mean nothing.
    #[cfg(feature = "model")]
    pub(crate) fn fingerprint(&self, head: usize, into: &mut crate::fingerprint::Fingerprint) {
        let Self { pending, fill_through } = self;
        into.number(pending.len() as u64);
        for (batch, requests) in pending {
            into.bytes(&batch[head..]);
            into.number(u64::from(*requests));
        }
        into.number(fill_through.map_or(0, |through| through + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_first_and_a_gap_stays_until_it_is_covered() {
        let mut proposals = Proposals::default();
        proposals.fill(9);
        proposals.fill(7);
        proposals.push(BytesMut::from("one"), 1);
        proposals.push(BytesMut::from("two"), 2);
        assert_eq!(proposals.next(3), Some(Proposal::Batch(BytesMut::from("one"), 1)));
        assert_eq!(proposals.next(4), Some(Proposal::Batch(BytesMut::from("two"), 2)));
        assert_eq!(proposals.next(5), Some(Proposal::NoOp(9)));
        assert_eq!(proposals.next(9), Some(Proposal::NoOp(9)));
        assert_eq!(proposals.next(10), None);
        proposals.fill(11);
        proposals.clear();
        assert_eq!(proposals.next(10), None);
    }
}
