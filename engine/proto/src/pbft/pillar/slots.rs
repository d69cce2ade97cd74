//! What a pillar knows about a slot: of its view, of the views before, and beyond all views.

use hybster_tss::Digest;

use crate::ids::{Peers, ReplicaId, View};
use crate::pbft::wire::ordering::Body;
use crate::pbft::wire::view::PAIRS;
use crate::shared::log::{Entry, Log};

/// A digest that a replica named.
pub(super) type Named = (ReplicaId, Digest);

/// What is known about a slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    // Of the view.
    /// What the NEW-VIEW names; its body may be missing.
    pub adopted: Option<Digest>,
    /// What is proposed, checked completely.
    pub body: Option<Body>,
    /// It came too late for its time.
    pub late: bool,
    /// This replica has pre-prepared the body: it sent its PREPARE, or leads and proposed it.
    pub pre_prepared: bool,
    /// This replica has prepared the body: it sent its COMMIT.
    pub prepared: bool,
    /// PREPAREs of backups, this replica's own among them; one of each.
    pub prepares: Vec<Named>,
    /// COMMITs, this replica's own among them; one of each.
    pub commits: Vec<Named>,

    // Of the views that were left, and of this one (Castro 3.2.4).
    /// P: what was prepared here in the latest view.
    pub p: Option<(View, Body)>,
    /// Q: what was pre-prepared here, with the latest view of each.
    pub q: Vec<(View, Body)>,

    // Beyond all views.
    /// Who has committed what.
    pub claims: Vec<Named>,
    /// What is committed.
    pub committed: Option<Digest>,
    /// Its body, if it is here.
    pub committed_body: Option<Body>,
    /// The body of what a view that this replica is to lead begins with, and nothing else names.
    pub held: Option<Body>,
}

impl Slot {
    /// The view is left behind: what was done in it is in P and Q.
    pub(super) fn leave_view(&mut self) {
        (self.adopted, self.body, self.held) = (None, None, None);
        (self.late, self.pre_prepared, self.prepared) = (false, false, false);
        self.prepares.clear();
        self.commits.clear();
    }

    /// A body with this digest.
    pub(super) fn find(&self, digest: &Digest) -> Option<&Body> {
        let last = self.p.iter().chain(&self.q).map(|(_, body)| body);
        let known = self.body.iter().chain(&self.committed_body).chain(&self.held).chain(last);
        known.into_iter().find(|body| body.digest == *digest)
    }

    /// Remembers that a body was pre-prepared in a view (Castro, figure 3-2). Those of the latest views
    /// stay, and the one that is prepared.
    pub(super) fn note_pre_prepared(&mut self, view: View, body: &Body) {
        if let Some(known) = self.q.iter_mut().find(|(_, known)| known.digest == body.digest) {
            known.0 = view;
            return;
        }
        if self.q.len() >= PAIRS {
            // What is prepared here needs the word of those that have pre-prepared it.
            let in_p =
                |at: &usize| self.p.as_ref().is_some_and(|p| p.1.digest == self.q[*at].1.digest);
            let oldest = (0..self.q.len()).filter(|at| !in_p(at)).min_by_key(|at| self.q[*at].0);
            oldest.map(|at| self.q.swap_remove(at));
        }
        self.q.push((view, body.clone()));
    }

    /// How many name this digest, and who they are.
    pub(super) fn naming(all: &[Named], digest: &Digest) -> Peers {
        all.iter().filter(|(_, named)| named == digest).map(|(replica, _)| *replica).collect()
    }

    /// A digest that at least `needed` of them name.
    pub(super) fn named_by(all: &[Named], needed: usize) -> Option<Digest> {
        if all.len() < needed {
            return None;
        }
        let named = all.iter().map(|(_, digest)| *digest);
        named.into_iter().find(|digest| Self::naming(all, digest).len() >= needed)
    }
}

impl Entry for Slot {
    fn clear(&mut self) {
        self.leave_view();
        self.p = None;
        self.q.clear();
        self.claims.clear();
        (self.committed, self.committed_body) = (None, None);
    }
}

/// What an empty slot takes.
pub(crate) const SLOT_BYTES: u64 = size_of::<Slot>() as u64;
/// What a PREPARE, COMMIT or COMMITTED takes in a slot.
pub(crate) const NAMED_BYTES: u64 = size_of::<Named>() as u64;

/// What a proposal of Q takes in a slot, besides its body.
pub(crate) const PAIR_BYTES: u64 = size_of::<(View, Body)>() as u64;
/// What a digest takes that is missing, in a B-tree whose nodes are half full.
pub(crate) const MISSING_BYTES: u64 = 3 * size_of::<(u64, Digest)>() as u64;

/// The log of a pillar.
pub(super) type Slots = Log<Slot>;

#[cfg(test)]
mod tests {
    use super::*;

    fn body(digest: u8) -> Body {
        Body { digest: Digest([digest; 32]), ..Body::null() }
    }

    #[test]
    fn the_pairs_of_the_latest_views_stay() {
        let mut slot = Slot::default();
        for (view, digest) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 1), (5, 5)] {
            slot.note_pre_prepared(View(view), &body(digest));
        }
        let mut views: Vec<u64> = slot.q.iter().map(|(view, _)| view.0).collect();
        views.sort_unstable();
        assert_eq!(views, [2, 3, 4, 5]);
        slot.leave_view();
        assert!(slot.find(&Digest([1; 32])).is_some() && slot.find(&Digest([2; 32])).is_none());
        slot.clear();
        assert!(slot.find(&Digest([1; 32])).is_none());
    }

    #[test]
    fn equal_names_of_enough_replicas_count() {
        let named = |names: &[u8]| -> Vec<Named> {
            (0..).map(ReplicaId).zip(names.iter().map(|d| Digest([*d; 32]))).collect()
        };
        assert_eq!(Slot::named_by(&named(&[1, 2, 1]), 2), Some(Digest([1; 32])));
        assert_eq!(Slot::named_by(&named(&[1, 2, 3]), 2), None);
    }
}
