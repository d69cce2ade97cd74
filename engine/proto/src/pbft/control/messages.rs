//! The view-change messages that a replica keeps: a bounded number per sender.

use std::collections::BTreeMap;
use std::sync::Arc;

use hybster_tss::Digest;

use crate::config::GroupConfig;
use crate::ids::{Peers, ReplicaId, View};
use crate::pbft::wire::view::{ViewChange, ViewChangeAck};

/// VIEW-CHANGEs of a sender that are kept, and views of which its acknowledgements are: the current
/// one, the stable one, and the highest beyond.
pub(crate) const MAX_VIEWS: usize = 3;

/// A VIEW-CHANGE that its own sender sent to this replica.
#[derive(Clone)]
pub(super) struct Kept {
    pub digest: Digest,
    pub change: Arc<ViewChange>,
}

/// VIEW-CHANGEs of all replicas, this one included, and who acknowledges which.
#[derive(Default)]
pub(super) struct Messages {
    changes: BTreeMap<(View, ReplicaId), Kept>,
    /// By view, whose VIEW-CHANGE and who says so: its digest.
    acks: BTreeMap<(View, ReplicaId, ReplicaId), Digest>,
}

impl Messages {
    /// Whether a VIEW-CHANGE of the sender is kept that makes another one useless: one for the same view,
    /// or for a later view beyond the current one.
    pub(super) fn supersedes(&self, sender: ReplicaId, to: View, current: View) -> bool {
        let mut views = self.changes.keys().filter(|(_, of)| *of == sender).map(|(view, _)| *view);
        views.any(|view| view == to || (view > to && to > current))
    }

    /// Stores a VIEW-CHANGE that nothing supersedes: of those beyond the current view only the highest
    /// of a sender.
    pub(super) fn store(&mut self, digest: Digest, change: Arc<ViewChange>, current: View) {
        let (sender, to) = (change.sender, change.to);
        self.changes.retain(|(view, of), _| *of != sender || *view <= current || *view > to);
        self.changes.insert((to, sender), Kept { digest, change });
    }

    /// What a replica said when it left for a view.
    pub(super) fn change(&self, sender: ReplicaId, to: View) -> Option<&Kept> {
        self.changes.get(&(to, sender))
    }

    /// All VIEW-CHANGEs for a view, rising by sender.
    pub(super) fn changes(&self, to: View) -> impl Iterator<Item = &Kept> {
        self.changes.range((to, ReplicaId(0))..=(to, ReplicaId(u16::MAX))).map(|(_, kept)| kept)
    }

    /// What this replica can acknowledge: the VIEW-CHANGEs of others for a view that it got from them.
    pub(super) fn own_ack(&self, own: ReplicaId, view: View) -> Option<ViewChangeAck> {
        let got = self.changes(view).filter(|kept| kept.change.sender != own);
        let got: Vec<_> = got.map(|kept| (kept.change.sender, kept.digest)).collect();
        (!got.is_empty()).then_some(ViewChangeAck { view, got })
    }

    /// Stores what a peer acknowledges; its first word counts. Beyond the current view only its highest is
    /// kept.
    pub(super) fn acknowledged(&mut self, by: ReplicaId, ack: &ViewChangeAck, current: View) {
        let view = ack.view;
        if view > current {
            let has_later =
                self.acks.keys().any(|(of, _, from)| *from == by && *of > view && *of > current);
            if has_later {
                return;
            }
            self.acks.retain(|(of, _, from), _| *from != by || *of <= current || *of >= view);
        }
        for (sender, digest) in &ack.got {
            // Nobody acknowledges its own.
            if *sender != by {
                self.acks.entry((view, *sender, by)).or_insert(*digest);
            }
        }
    }

    /// Who acknowledges a VIEW-CHANGE with this digest.
    pub(super) fn acknowledging(&self, sender: ReplicaId, view: View, digest: &Digest) -> Peers {
        let range = (view, sender, ReplicaId(0))..=(view, sender, ReplicaId(u16::MAX));
        let of = self.acks.range(range).filter(|(_, acked)| *acked == digest);
        of.map(|((_, _, by), _)| *by).collect()
    }

    /// Forgets what nobody can use any more.
    pub(super) fn discard(&mut self, stable: View, current: View) {
        let keeps = |view: View| view == stable || view >= current;
        self.changes.retain(|(view, _), _| keeps(*view));
        self.acks.retain(|(view, _, _), _| keeps(*view));
    }

    /// Whether a replica asks for a view beyond `after`.
    pub(super) fn asks_beyond(&self, sender: ReplicaId, after: View) -> bool {
        self.changes.keys().any(|(to, of)| *of == sender && *to > after)
    }

    /// The highest view that at least `count` replicas ask for or exceed, each taken with its
    /// highest VIEW-CHANGE.
    pub(super) fn asked_by(&self, count: usize) -> View {
        let mut highest: BTreeMap<ReplicaId, View> = BTreeMap::new();
        for (to, of) in self.changes.keys() {
            let view = highest.entry(*of).or_default();
            *view = (*view).max(*to);
        }
        let mut views: Vec<View> = highest.into_values().collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        views.get(count.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// How many replicas ask for this view or a later one.
    pub(super) fn asking_for(&self, to: View) -> usize {
        let asking = self.changes.keys().filter(|(view, _)| *view >= to).map(|(_, of)| *of);
        asking.collect::<Peers>().len()
    }

    /// Stops the process if more is kept than the rules above say.
    pub(super) fn check_invariants(&self, config: &GroupConfig) {
        let n = usize::from(config.replicas);
        assert!(self.changes.len() <= MAX_VIEWS * n, "VIEW-CHANGEs are bounded");
        assert!(self.acks.len() <= MAX_VIEWS * n * n, "acknowledgements are bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(sender: u16, to: u64) -> Arc<ViewChange> {
        Arc::new(ViewChange { sender: ReplicaId(sender), to: View(to), ..ViewChange::default() })
    }

    #[test]
    fn a_sender_has_one_view_change_for_a_view_and_one_beyond() {
        let mut messages = Messages::default();
        for to in [1, 2, 5, 9] {
            assert!(!messages.supersedes(ReplicaId(0), View(to), View(2)));
            messages.store(Digest([to as u8; 32]), change(0, to), View(2));
        }
        assert!(messages.supersedes(ReplicaId(0), View(2), View(2)));
        assert!(messages.supersedes(ReplicaId(0), View(7), View(2)));
        assert_eq!(messages.changes(View(5)).count(), 0);
        assert_eq!(messages.asked_by(1), View(9));
        assert_eq!(messages.asked_by(2), View(0));
        messages.discard(View(0), View(2));
        assert_eq!(messages.changes(View(1)).count(), 0);
        assert_eq!((messages.asking_for(View(2)), messages.asking_for(View(10))), (1, 0));
    }

    #[test]
    fn acknowledgements_count_once_and_for_others() {
        let mut messages = Messages::default();
        let ack = |view, digest| ViewChangeAck {
            view: View(view),
            got: vec![(ReplicaId(0), Digest([digest; 32])), (ReplicaId(2), Digest([digest; 32]))],
        };
        messages.acknowledged(ReplicaId(2), &ack(3, 1), View(3));
        messages.acknowledged(ReplicaId(2), &ack(3, 2), View(3));
        messages.acknowledged(ReplicaId(1), &ack(3, 1), View(3));
        let of = |messages: &Messages, sender, view, digest| {
            messages.acknowledging(ReplicaId(sender), View(view), &Digest([digest; 32])).len()
        };
        assert_eq!((of(&messages, 0, 3, 1), of(&messages, 0, 3, 2)), (2, 0));
        assert_eq!(of(&messages, 2, 3, 1), 1, "nobody acknowledges its own");
        messages.acknowledged(ReplicaId(1), &ack(7, 1), View(3));
        messages.acknowledged(ReplicaId(1), &ack(5, 1), View(3));
        assert_eq!((of(&messages, 0, 7, 1), of(&messages, 0, 5, 1)), (1, 0));
        messages.acknowledged(ReplicaId(1), &ack(9, 1), View(3));
        assert_eq!((of(&messages, 0, 7, 1), of(&messages, 0, 3, 1)), (0, 2));
    }
}
