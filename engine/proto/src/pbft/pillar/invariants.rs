//! What holds in a pillar between two inputs.

use hybster_tss::RequestVerifier;

use super::{MAX_BACKOFF, Pillar};
use crate::output::Output;
use crate::pbft::wire::view::PAIRS;

impl<V: RequestVerifier> Pillar<V> {
    /// Stops the process if the pillar is not as its own rules say. One that has found a reason to
    /// stop the replica may be half-way through something.
    #[inline]
    pub(super) fn check_invariants(&self, out: &Output) {
        if out.fatal.is_some() {
            return;
        }
        let base = self.slots.base();
        assert!(base <= self.committed, "what a stable checkpoint covers is committed");
        assert!(self.committed <= self.window_end(), "nothing is committed beyond the window");
        assert!(self.committed <= self.handed, "what is committed is handed over");
        assert!(self.proposed <= self.slots.end(), "nothing is proposed beyond the log");
        assert!(self.backoff <= MAX_BACKOFF, "waits are bounded");
        assert!(self.unsent.is_empty(), "what is decided is said");
        let waits = self.asked.is_some() || self.missing.is_empty();
        assert!(waits, "what is missing is asked for");
        self.proposals.check_invariants();
        self.answers.check_invariants();
        self.checkpoints.check_invariants(self.config.replicas);
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
        let first = self.missing.first().map(|(slot, _)| *slot);
        assert!(
            first.is_none_or(|slot| slot >= self.slots.base()),
            "bodies of the log are missing"
        );
    }

    fn check_slot(&self, at: u64) {
        let slot = self.slots.get(at).expect("inside the log");
        let proposed = slot.body.as_ref().map(|body| body.digest);
        if slot.pre_prepared {
            let digest = proposed.expect("what is pre-prepared is here");
            assert!(at < self.window_end(), "what is pre-prepared lies in the window");
            let in_q =
                slot.q.iter().any(|(view, body)| (*view, body.digest) == (self.view, digest));
            let forgets = crate::mutants::active(crate::mutants::Mutant::PbftPrePreparedForgotten);
            assert!(in_q || forgets, "what is pre-prepared is in Q");
        }
        assert!(!slot.prepared || slot.pre_prepared, "what is prepared is pre-prepared");
        let adopts = slot.adopted.is_none_or(|adopted| proposed.is_none_or(|it| it == adopted));
        assert!(adopts, "what a view begins with is proposed");
        assert!(slot.q.len() <= PAIRS, "Q is bounded");
        for all in [&slot.prepares, &slot.commits, &slot.claims] {
            for (index, (replica, _)) in all.iter().enumerate() {
                let twice = all[..index].iter().any(|(other, _)| other == replica);
                assert!(!twice, "a replica has one word");
            }
        }
        let leader = self.config.leader(self.view);
        let by_leader = slot.prepares.iter().any(|(replica, _)| *replica == leader);
        assert!(!by_leader, "PREPAREs are those of backups");
        if let (Some(digest), Some(body)) = (slot.committed, &slot.committed_body) {
            assert_eq!(body.digest, digest, "the body of what is committed");
        }
    }
}
