//! What holds in a pillar between two inputs.

use hybster_tss::{RequestVerifier, TrInX, Verifier};

use super::{MAX_BACKOFF, Pillar};
use crate::hybster::control::MAX_CHANGES;
use crate::mutants::{self, Mutant};
use crate::output::Output;

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// Stops the process if the pillar is not as its own rules say. One that has found a reason to
    /// stop the replica may be half-way through something.
    #[inline]
    pub(super) fn check_invariants(&self, out: &Output) {
        if out.fatal.is_some() {
            return;
        }
        let base = self.slots.base();
        assert!(base <= self.committed, "what a stable checkpoint covers is committed");
        assert!(self.committed <= self.prepared, "what is committed is prepared");
        assert!(self.committed <= self.window_end(), "nothing is committed beyond the window");
        // What it certifies by itself lies in the window, which is asserted where it does so. What a
        // NEW-VIEW re-issues lies in the log at least, even if the host tampers with its own.
        assert!(self.prepared <= self.slots.end(), "nothing is certified beyond the log");
        // What is not executed here is committed in order, and a view change begins again with what
        // may have been.
        assert!(base <= self.handed, "what a stable checkpoint covers is executed");
        assert!(self.committed <= self.handed, "what is committed is handed over");
        let established = self.established.as_ref().map(|(view, _)| *view);
        assert!(established.is_none_or(|view| view > self.view), "views rise");
        assert!(self.backoff <= MAX_BACKOFF, "waits are bounded");
        self.proposals.check_invariants();
        self.bodies.check_invariants(self.most_holds());
        self.answers.check_invariants();
        self.checkpoints.check_invariants(self.config.replicas);
    }

    /// As many messages of view changes as the control stage keeps, and the one that takes the place
    /// of another.
    fn most_holds(&self) -> usize {
        (MAX_CHANGES + 2) * usize::from(self.config.replicas) + 1
    }

    /// As after each input, and everything that takes time to look at: for tests and simulators.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_all_invariants(&self) {
        self.check_invariants(&Output::default());
        for slot in self.slots.base()..self.slots.end() {
            self.check_slot(slot);
        }
        self.later.check_all_invariants();
        let rises = self.chain.is_sorted_by(|a, b| a.to < b.to);
        assert!(rises, "views that were left rise");
    }

    fn check_slot(&self, at: u64) {
        let slot = self.slots.get(at).expect("inside the log");
        if let Some(stored) = &slot.prepare {
            let header = &stored.header;
            let place = self.slots.position(at).expect("inside the log");
            let reached = self.digests.reaches(&header.batch, place);
            assert!(reached, "a batch in the log is found by its digest");
            let here = header.pillar == self.pillar && self.config.slot_of(header.first) == at;
            assert!(here, "a PREPARE is at its first slot");
            assert_eq!(header.view, self.view, "the log is of one view");
            assert!(self.last_slot(header) < self.slots.end(), "a PREPARE ends inside the log");
        }
        let leader = self.config.leader(self.view);
        for (index, vote) in slot.votes.iter().enumerate() {
            let from_others = vote.replica != self.id && vote.replica != leader;
            assert!(from_others, "COMMITs are those of other followers");
            let twice = slot.votes[..index].iter().any(|other| other.replica == vote.replica);
            assert!(!twice || mutants::active(Mutant::CommitTwice), "one COMMIT per replica");
        }
        if let Some(own) = &slot.own {
            let stored = slot.prepare.as_ref().map(|stored| (stored.digest, stored.header.view));
            assert_eq!(
                stored,
                Some((own.prepare, own.view)),
                "a COMMIT is for the PREPARE beside it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::{Bytes, BytesMut};
    use hybster_tss::{CounterValue, Digest, GroupKey, InProcessTrInX, InProcessVerifier, Proof};

    use super::*;
    use crate::config::GroupConfig;
    use crate::hybster::pillar::digests::Digests;
    use crate::hybster::pillar::slots::{Logged, StoredPrepare, Vote};
    use crate::hybster::wire::ordering::PrepareHeader;
    use crate::hybster::wire::view::Link;
    use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
    use crate::input::{PathState, ToPillar};
    use crate::noticed::noticed;
    use crate::time::Time;

    type Tested = Pillar<InProcessTrInX, InProcessVerifier>;

    /// Pillar 1 of a follower, with one PREPARE and one COMMIT in its first slot.
    fn pillar() -> Tested {
        let config = Arc::new(GroupConfig::default());
        let (key, digest) = (GroupKey::from_bytes([7; 32]), config.digest());
        let instance = config.instance(ReplicaId(1), PillarId(1));
        let trinx = InProcessTrInX::new(&key, config.mac, digest, instance);
        let verifier = InProcessVerifier::new(&key, config.mac, digest);
        let mut pillar = Pillar::new(config, ReplicaId(1), PillarId(1), trinx, verifier);
        pillar.store(0, stored(2));
        let slot = pillar.slots.get_mut(0).expect("it is in the log");
        slot.votes = vec![vote(2)];
        pillar
    }

    fn stored(order: u64) -> StoredPrepare {
        let order = OrderNumber(order);
        let header = PrepareHeader {
            pillar: PillarId(1),
            noop: false,
            requests: 1,
            view: View(0),
            first: order,
            last: order,
            time_ms: 0,
            batch: Digest::default(),
            previous: CounterValue::ZERO,
            proof: Proof([0; 32]),
        };
        let (digest, message) = (Digest::default(), Bytes::new());
        StoredPrepare { header, digest, message, late: false, logged: Logged::Nothing }
    }

    fn vote(replica: u16) -> Vote {
        let (prepare, last) = (Digest::default(), OrderNumber(2));
        Vote { replica: ReplicaId(replica), prepare, last, proof: Proof([0; 32]) }
    }

    fn link(to: u64) -> Link {
        let (previous, digest) = (CounterValue::ZERO, Digest::default());
        Link { to: View(to), previous, digest, proof: Proof([0; 32]) }
    }

    fn first(pillar: &mut Tested) -> &mut crate::hybster::pillar::slots::Slot {
        pillar.slots.get_mut(0).expect("it is in the log")
    }

    noticed! {
        pillar(), |it| it.check_all_invariants();
        a_window_ahead_of_commitments: "covers is committed", |it| {
            it.slots.forward(128);
            (it.prepared, it.handed) = (128, 128);
        };
        commitments_ahead: "committed is prepared", |it| (it.committed, it.handed) = (1, 1);
        certificates_beyond_the_log: "beyond the log", |it| it.prepared = 1025;
        commitments_beyond_the_window: "beyond the window", |it| {
            (it.committed, it.prepared) = (513, 513);
        };
        executions_behind_the_window: "covers is executed", |it| {
            it.slots.forward(128);
            (it.prepared, it.committed) = (128, 128);
        };
        a_batch_kept_from_execution: "handed over", |it| (it.committed, it.prepared) = (1, 1);
        batches_without_credit: "credit", |it| {
            (0..3).for_each(|_| it.proposals.push(BytesMut::new(), 1));
        };
        too_much_held: "is held", |it| {
            let (mut out, none) = (Output::default(), |_: &_| None);
            (0..20).for_each(|ticket| {
                it.bodies.hold(ticket, ReplicaId(2), Vec::new(), none, Time(1), &mut out);
            });
        };
        a_view_of_the_past: "views rise", |it| it.established = Some((View(0), Vec::new()));
        waits_without_end: "waits are bounded", |it| it.backoff = MAX_BACKOFF + 1;
        a_prepare_elsewhere: "at its first slot", |it| first(it).prepare = Some(stored(4));
        a_batch_that_is_not_found: "found by its digest", |it| it.digests = Digests::new(1024);
        a_prepare_of_another_view: "of one view", |it| it.view = View(3);
        a_commit_of_the_leader: "other followers", |it| first(it).votes = vec![vote(0)];
        a_commit_of_its_own: "other followers", |it| first(it).votes = vec![vote(1)];
        a_commit_twice: "one COMMIT", |it| first(it).votes.push(vote(2));
        views_left_out_of_order: "left rise", |it| it.chain = vec![link(2), link(2)];
    }

    /// A follower that has asked over a slow path asks sooner when that is fast again, though nothing of
    /// its own waits for a commitment.
    #[test]
    fn a_path_that_is_fast_again_makes_waits_short_again() {
        let (mut pillar, mut out) = (pillar(), Output::default());
        // The next slot is missing, a later one is known.
        pillar.store(1, stored(4));
        pillar.slots.get_mut(0).expect("it is in the log").prepare = None;
        pillar.committed = 0;
        pillar.prepared = 0;
        let mut wait_us = |takes_us| {
            let path = PathState { takes_us, ..PathState::default() };
            pillar.handle(ToPillar::Path(path), Time(1), &mut out);
            pillar.outstanding_deadline().map(|at| at.since_us(Time(1)))
        };
        assert_eq!(wait_us(0), Some(50_000));
        assert_eq!(wait_us(1_000_000), Some(1_300_000));
        assert_eq!(wait_us(0), Some(50_000));
    }
}
