//! States that differ: what the operator is told of it, and when the group cannot go on.
//!
//! Correct replicas of a deterministic service have equal states at equal order numbers. So if two
//! CHECKPOINTs of an order number name different states, a replica lies, runs another service, has a
//! faulty machine, or the service is not deterministic. While f+1 replicas agree, the one that differs
//! is repaired by state transfer. If no f+1 can agree any more, however those vote that have not voted
//! yet, the checkpoint never becomes stable; and if it is the last one of the window, nothing can be
//! ordered any more, in no view: the group *has halted*.
//!
//! Only statements that were checked count, and the f+1 correct replicas of a deterministic service
//! make equal ones. So f liars can make a correct replica log that their own state differs, and
//! nothing else: there always are f+1 votes for the right state, given or missing.

use hybster_tss::Digest;

use crate::ids::{OrderNumber, ReplicaId};
use crate::notice::Notice;
use crate::output::{Output, ToIntake, ToState};
use crate::time::Time;
use crate::wire::CheckpointId;

/// A peer whose state goes on to differ is named again after this time, in microseconds: what a
/// liar can have logged is bounded by it.
const TOLD_AGAIN_US: u64 = 10_000_000;

/// What is known of states that differ.
pub(crate) struct Differences {
    /// Order numbers in a window.
    window: u64,
    /// By replica.
    peers: Vec<OfPeer>,
    /// The highest order number at which no checkpoint can become stable.
    split: Option<OrderNumber>,
    halted: bool,
}

#[derive(Clone, Copy, Default)]
struct OfPeer {
    /// Checkpoints at which its state differed from this replica's.
    count: u64,
    told: Option<Time>,
}

impl Differences {
    /// All states are equal so far.
    pub(crate) fn new(replicas: u16, window: u64) -> Self {
        let peers = vec![OfPeer::default(); usize::from(replicas)];
        Self { window, peers, split: None, halted: false }
    }

    /// Checkpoints at which a replica's state differed from this replica's.
    pub(crate) fn of(&self, peer: ReplicaId) -> u64 {
        self.peers.get(usize::from(peer.0)).map_or(0, |of| of.count)
    }

    /// Whether nothing can be ordered any more.
    pub(crate) fn has_halted(&self) -> bool {
        self.halted
    }

    /// A peer vouches for another state than this replica does.
    pub(crate) fn found(
        &mut self,
        peer: ReplicaId,
        theirs: CheckpointId,
        own: Digest,
        now: Time,
        out: &mut Output,
    ) {
        let Some(of) = self.peers.get_mut(usize::from(peer.0)) else { return };
        of.count += 1;
        if of.told.is_some_and(|at| now.since_us(at) < TOLD_AGAIN_US) {
            return;
        }
        of.told = Some(now);
        let (order, theirs_is) = (theirs.order, theirs.digest);
        out.notice(|| Notice::StateOfPeerDiffers { order, peer, own, theirs: theirs_is });
        out.state(ToState::Compare { peer, theirs });
    }

    /// No checkpoint of this order number can become stable; `stable` is the last one that did.
    pub(crate) fn undecidable(
        &mut self,
        order: OrderNumber,
        stable: OrderNumber,
        out: &mut Output,
    ) {
        if order <= stable || self.split.is_some_and(|known| known >= order) {
            return;
        }
        if self.split.is_none() {
            out.notice(|| Notice::NoStateAgreed { order });
        }
        self.split = Some(order);
        self.judge(stable, out);
    }

    /// A checkpoint became stable.
    pub(crate) fn forward(&mut self, stable: OrderNumber, out: &mut Output) {
        self.split.take_if(|order| *order <= stable);
        self.judge(stable, out);
    }

    fn judge(&mut self, stable: OrderNumber, out: &mut Output) {
        let halted = self.split == Some(OrderNumber(stable.0 + self.window));
        if halted != self.halted {
            self.halted = halted;
            out.intake(ToIntake::StatesDiffer { halted });
            let order = self.split.unwrap_or(stable);
            out.notice(|| if halted { Notice::Halted { order } } else { Notice::GoesOn { order } });
        }
    }
}

#[cfg(feature = "model")]
impl Differences {
    /// Appends what is known.
    pub(crate) fn fingerprint(&self, into: &mut crate::fingerprint::Fingerprint) {
        let Self { window: _, peers: _, split, halted } = self;
        into.number(split.map_or(0, |order| order.0));
        into.flag(*halted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Input;

    const STABLE: OrderNumber = OrderNumber(256);

    fn told(out: &mut Output) -> (Vec<bool>, usize) {
        let halts = out.inputs.drain(..).filter_map(|input| match input {
            Input::Intake(ToIntake::StatesDiffer { halted }) => Some(halted),
            _ => None,
        });
        (halts.collect(), out.notices.drain(..).count())
    }

    #[test]
    fn the_group_has_halted_only_at_the_end_of_its_window() {
        let (mut differences, mut out) = (Differences::new(3, 1024), Output::default());
        differences.undecidable(OrderNumber(512), STABLE, &mut out);
        assert_eq!(told(&mut out), (vec![], 1));
        differences.undecidable(OrderNumber(768), STABLE, &mut out);
        assert_eq!(told(&mut out), (vec![], 0), "it was told");
        differences.undecidable(OrderNumber(256), STABLE, &mut out);
        assert!(!differences.has_halted());
        differences.undecidable(OrderNumber(1280), STABLE, &mut out);
        assert!(differences.has_halted());
        assert_eq!(told(&mut out), (vec![true], 1));
        // A certificate came from elsewhere.
        differences.forward(OrderNumber(768), &mut out);
        assert!(!differences.has_halted());
        assert_eq!(told(&mut out), (vec![false], 1));
        differences.forward(OrderNumber(1280), &mut out);
        assert_eq!((told(&mut out), differences.split), ((vec![], 0), None));
    }

    #[test]
    fn a_peer_is_named_once_in_a_while_and_counted_always() {
        let (mut differences, mut out) = (Differences::new(3, 1024), Output::default());
        let theirs = |order| CheckpointId { order: OrderNumber(order), digest: Digest([7; 32]) };
        for order in 1..=9 {
            let now = Time(order * 1000);
            differences.found(ReplicaId(2), theirs(order), Digest([1; 32]), now, &mut out);
        }
        assert_eq!((differences.of(ReplicaId(2)), out.notices.len()), (9, 1));
        let later = Time(TOLD_AGAIN_US + 1000);
        differences.found(ReplicaId(2), theirs(99), Digest([1; 32]), later, &mut out);
        differences.found(ReplicaId(9), theirs(99), Digest([1; 32]), later, &mut out);
        assert_eq!((differences.of(ReplicaId(2)), out.notices.len()), (10, 2));
        assert_eq!(out.inputs.len(), 2, "a comparison for each line");
    }
}
