//! The view-change messages that a replica keeps: a bounded number per sender.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::timing::latest_time;
use crate::config::GroupConfig;
use crate::hybster::verify::{Transition, transition};
use crate::hybster::wire::view::{NewViewAck, ViewChange};
use crate::ids::{ReplicaId, View};

/// VIEW-CHANGEs of a sender that are kept: for the current view, and for the highest one beyond.
const SETTLED_CHANGES: usize = 2;
/// Until this replica's own VIEW-CHANGE for the next view is made, those for the view before are kept
/// as well: they hold the batches that it will name.
pub(crate) const MAX_CHANGES: usize = 2 * SETTLED_CHANGES;

/// A verified message and whether all batches that it names are held.
struct Kept<M> {
    message: Arc<M>,
    ticket: u64,
    held: bool,
    /// The latest time of a batch in its prepared sets.
    latest_ms: u64,
}

/// What a ticket for held batches belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Subject {
    ViewChange(ReplicaId, View),
    Ack(ReplicaId, View),
    /// With the peer that sent it.
    NewView(ReplicaId, View),
}

struct Ticket {
    subject: Subject,
    waiting: u16,
}

/// VIEW-CHANGEs and NEW-VIEW-ACKs of all replicas, this one included.
pub(super) struct Messages {
    /// Per sender at most [`SETTLED_CHANGES`], or [`MAX_CHANGES`] between two views.
    changes: BTreeMap<(View, ReplicaId), Kept<ViewChange>>,
    /// Per sender the latest.
    acks: BTreeMap<ReplicaId, Kept<NewViewAck>>,
    tickets: BTreeMap<u64, Ticket>,
    next_ticket: u64,
    released: Vec<u64>,
    pillars: u16,
}

/// The messages that justify a new view, and what they demand.
pub(super) struct Justification {
    pub view_changes: Vec<Arc<ViewChange>>,
    pub acks: Vec<Arc<NewViewAck>>,
    pub transition: Transition,
}

impl Messages {
    pub(super) fn new(config: &GroupConfig) -> Self {
        Self {
            changes: BTreeMap::new(),
            acks: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            released: Vec::new(),
            pillars: config.pillars,
        }
    }

    /// A ticket that is complete once every pillar has answered.
    pub(super) fn ticket(&mut self, subject: Subject) -> u64 {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, Ticket { subject, waiting: self.pillars });
        self.next_ticket
    }

    /// A pillar answered; returns the subject and whether its batches are valid, once known.
    pub(super) fn answered(&mut self, ticket: u64, valid: bool) -> Option<(Subject, bool)> {
        let entry = self.tickets.get_mut(&ticket)?;
        assert!(entry.waiting > 0, "each pillar answers once");
        entry.waiting -= 1;
        if valid && entry.waiting > 0 {
            return None;
        }
        let subject = self.tickets.remove(&ticket)?.subject;
        Some((subject, valid))
    }

    /// The message of a ticket is gone: the pillars need not hold its batches any more.
    pub(super) fn release(&mut self, ticket: u64) {
        self.tickets.remove(&ticket);
        self.released.push(ticket);
    }

    /// Tickets released since the last call.
    pub(super) fn take_released(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.released)
    }

    /// Whether a VIEW-CHANGE of the sender is kept that makes another one useless: the same, or
    /// one for a later view beyond the current one.
    pub(super) fn supersedes(&self, sender: ReplicaId, to: View, current: View) -> bool {
        self.changes
            .keys()
            .any(|(view, of)| *of == sender && (*view == to || (*view > to && to > current)))
    }

    /// Stores a verified VIEW-CHANGE that nothing supersedes (TR listing 19, storeViewChange and
    /// discardViewChanges): of those beyond the current view only the highest of a sender.
    pub(super) fn store_change(&mut self, message: Arc<ViewChange>, ticket: u64, current: View) {
        let (sender, to) = (message.sender, message.to);
        self.retain_changes(|of, view| of != sender || view <= current || view > to);
        let latest_ms = latest_time(message.parts.iter().map(|part| &part.prepared));
        self.changes.insert((to, sender), Kept { message, ticket, held: false, latest_ms });
    }

    fn retain_changes(&mut self, keep: impl Fn(ReplicaId, View) -> bool) {
        let gone: Vec<(View, ReplicaId)> =
            self.changes.keys().filter(|(view, of)| !keep(*of, *view)).copied().collect();
        for key in gone {
            if let Some(kept) = self.changes.remove(&key) {
                self.release(kept.ticket);
            }
        }
    }

    pub(super) fn change_held(&mut self, sender: ReplicaId, to: View) {
        if let Some(kept) = self.changes.get_mut(&(to, sender)) {
            kept.held = true;
        }
    }

    pub(super) fn drop_change(&mut self, sender: ReplicaId, to: View) {
        self.retain_changes(|of, view| (of, view) != (sender, to));
    }

    /// This replica's VIEW-CHANGE for the current view is stored and holds its batches, so
    /// VIEW-CHANGEs for earlier views are of no use to anybody any more.
    pub(super) fn discard_before(&mut self, current: View) {
        self.retain_changes(|_, to| to >= current);
    }

    /// TR listing 19, isRelevantNewViewAck: a sender's acks rise.
    pub(super) fn is_newer_ack(&self, sender: ReplicaId, view: View) -> bool {
        self.acks.get(&sender).is_none_or(|kept| kept.message.view < view)
    }

    pub(super) fn store_ack(&mut self, message: Arc<NewViewAck>, ticket: u64) {
        let latest_ms = latest_time(&message.prepared);
        let kept = Kept { message, ticket, held: false, latest_ms };
        if let Some(older) = self.acks.insert(kept.message.sender, kept) {
            self.release(older.ticket);
        }
    }

    pub(super) fn ack_held(&mut self, sender: ReplicaId, view: View) {
        if let Some(kept) = self.acks.get_mut(&sender).filter(|kept| kept.message.view == view) {
            kept.held = true;
        }
    }

    pub(super) fn drop_ack(&mut self, sender: ReplicaId, view: View) {
        if self.acks.get(&sender).is_some_and(|kept| kept.message.view == view) {
            self.remove_ack(sender);
        }
    }

    fn remove_ack(&mut self, sender: ReplicaId) {
        if let Some(kept) = self.acks.remove(&sender) {
            self.release(kept.ticket);
        }
    }

    /// Forgets what a stable view has left behind, and lets the pillars forget it, too.
    pub(super) fn discard(&mut self, stable: View, current: View) {
        self.retain_changes(|_, to| to > stable && to >= current);
        let gone: Vec<ReplicaId> = self
            .acks
            .iter()
            .filter(|(_, kept)| kept.message.view < stable)
            .map(|(sender, _)| *sender)
            .collect();
        for sender in gone {
            self.remove_ack(sender);
        }
    }

    /// The views beyond `after` that are asked for, with the number of replicas that ask.
    pub(super) fn asked_beyond(&self, after: View) -> BTreeMap<View, usize> {
        let mut asked = BTreeMap::new();
        for (to, _) in self.changes.keys().filter(|(to, _)| *to > after) {
            *asked.entry(*to).or_insert(0) += 1;
        }
        asked
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
        views.get(count - 1).copied().unwrap_or_default()
    }

    /// How many replicas ask for this view or a later one.
    pub(super) fn asking_for(&self, to: View) -> usize {
        let mut senders: Vec<ReplicaId> =
            self.changes.keys().filter(|(view, _)| *view >= to).map(|(_, of)| *of).collect();
        senders.sort_unstable();
        senders.dedup();
        senders.len()
    }

    /// Messages that justify a view (TR listing 19, isCorrectNewViewCertificate): the largest
    /// v_from that f+1 replicas vouch for, with all VIEW-CHANGEs that do not lie beyond it. Messages
    /// with a later time than `limit_ms` do not count (`timing.rs`).
    pub(super) fn justify(
        &self,
        config: &GroupConfig,
        to: View,
        limit_ms: u64,
    ) -> Option<Justification> {
        let held: Vec<&Arc<ViewChange>> = self
            .changes
            .iter()
            .filter(|((view, _), kept)| *view == to && kept.held && kept.latest_ms <= limit_ms)
            .map(|(_, kept)| &kept.message)
            .collect();
        let mut candidates: Vec<View> = held.iter().map(|change| change.from).collect();
        candidates.sort_unstable();
        candidates.dedup();
        candidates.into_iter().rev().find_map(|from| {
            let view_changes: Vec<Arc<ViewChange>> =
                held.iter().filter(|c| c.from <= from).map(|c| Arc::clone(c)).collect();
            let acks: Vec<Arc<NewViewAck>> = self
                .acks
                .values()
                .filter(|kept| kept.held && kept.message.view == from)
                .filter(|kept| kept.latest_ms <= limit_ms)
                .map(|kept| Arc::clone(&kept.message))
                .collect();
            let refs: Vec<&ViewChange> = view_changes.iter().map(Arc::as_ref).collect();
            let ack_refs: Vec<&NewViewAck> = acks.iter().map(Arc::as_ref).collect();
            let transition = transition(config, to, &refs, &ack_refs).ok()?;
            Some(Justification { view_changes, acks, transition })
        })
    }

    /// Stops the process if the messages are not as the rules of the stage say: a bounded number per
    /// sender, and a ticket for none but them. `others` are messages with tickets that are kept
    /// elsewhere.
    #[inline]
    pub(super) fn check_invariants(&self, config: &GroupConfig, is_settled: bool, others: usize) {
        let replicas = usize::from(config.replicas);
        let per_sender = if is_settled { SETTLED_CHANGES } else { MAX_CHANGES };
        assert!(self.changes.len() <= per_sender * replicas, "VIEW-CHANGEs are bounded");
        assert!(self.acks.len() <= replicas, "one NEW-VIEW-ACK per sender");
        let kept = self.changes.len() + self.acks.len() + others;
        assert!(self.tickets.len() <= kept, "what is gone has no ticket");
        assert!(self.released.is_empty(), "the pillars are told what is gone");
    }

    /// All VIEW-CHANGEs for a view or later ones.
    pub(super) fn changes_from(&self, to: View) -> impl Iterator<Item = &ViewChange> {
        self.changes.range((to, ReplicaId(0))..).map(|(_, kept)| kept.message.as_ref())
    }

    /// Views that are asked for by held VIEW-CHANGEs.
    pub(super) fn views(&self) -> Vec<View> {
        let mut views: Vec<View> = self.changes.keys().map(|(to, _)| *to).collect();
        views.dedup();
        views
    }

    /// A replica's VIEW-CHANGE for a view.
    pub(super) fn change(&self, sender: ReplicaId, to: View) -> Option<&Arc<ViewChange>> {
        self.changes.get(&(to, sender)).map(|kept| &kept.message)
    }
}

#[cfg(feature = "model")]
impl Messages {
    /// Appends the messages, and to `names` what the tickets stand for.
    pub(super) fn fingerprint(
        &self,
        names: &mut BTreeMap<u64, Vec<u8>>,
        into: &mut crate::fingerprint::Fingerprint,
    ) {
        use crate::fingerprint::Fingerprint;
        let Self { changes, acks, tickets, next_ticket: _, released, pillars: _ } = self;
        assert!(released.is_empty(), "the stage tells the pillars before it rests");
        let mut name = |ticket, sender: ReplicaId, view: View, kind| {
            let mut name = Fingerprint::default();
            name.number(u64::from(sender.0));
            name.number(view.0);
            name.number(kind);
            names.insert(ticket, name.0);
        };
        into.number(changes.len() as u64);
        for ((to, sender), kept) in changes {
            into.bytes(&kept.message.encode());
            into.flag(kept.held);
            name(kept.ticket, *sender, *to, 1);
        }
        into.number(acks.len() as u64);
        for (sender, kept) in acks {
            into.bytes(&kept.message.encode());
            into.flag(kept.held);
            name(kept.ticket, *sender, kept.message.view, 2);
        }
        let waiting = tickets.iter().map(|(ticket, entry)| {
            let mut item = Fingerprint::default();
            item.bytes(names.get(ticket).map_or(&[], Vec::as_slice));
            item.number(u64::from(entry.waiting));
            item.bytes(format!("{:?}", entry.subject).as_bytes());
            item
        });
        into.sorted(waiting.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hybster::wire::checkpoint::CheckpointCertificate;
    use crate::noticed::noticed;

    fn change(sender: u16, to: u64) -> ViewChange {
        ViewChange {
            sender: ReplicaId(sender),
            from: View(0),
            to: View(to),
            checkpoint: CheckpointCertificate::default(),
            parts: Vec::new(),
        }
    }

    /// Stores what asks for a view.
    fn ask(messages: &mut Messages, sender: u16, to: u64, current: u64) -> u64 {
        let ticket = messages.ticket(Subject::ViewChange(ReplicaId(sender), View(to)));
        messages.store_change(Arc::new(change(sender, to)), ticket, View(current));
        ticket
    }

    #[test]
    fn what_is_discarded_is_released() {
        let mut messages = Messages::new(&GroupConfig::default());
        let ticket = ask(&mut messages, 1, 1, 0);
        messages.discard(View(1), View(1));
        assert_eq!(messages.take_released(), [ticket]);
    }

    /// VIEW-CHANGEs of two replicas.
    fn messages() -> Messages {
        let mut messages = Messages::new(&GroupConfig::default());
        ask(&mut messages, 1, 1, 1);
        ask(&mut messages, 2, 1, 1);
        messages
    }

    noticed! {
        messages(), |it| it.check_invariants(&GroupConfig::default(), true, 0);
        too_many_changes: "VIEW-CHANGEs are bounded", |it| {
            (2..9).for_each(|to| { ask(it, 1, to, 9); });
        };
        too_many_acks: "per sender", |it| {
            let ack = NewViewAck {
                sender: ReplicaId(0),
                view: View(1),
                checkpoint: CheckpointCertificate::default(),
                prepared: Vec::new(),
                proof: hybster_tss::Proof([0; 32]),
            };
            let message = Arc::new(ack);
            let kept = || Kept { message: Arc::clone(&message), ticket: 9, held: true, latest_ms: 0 };
            it.acks.extend((0..4).map(|sender| (ReplicaId(sender), kept())));
        };
        a_ticket_for_nothing: "has no ticket", |it| {
            it.ticket(Subject::NewView(ReplicaId(1), View(1)));
        };
        a_release_untold: "are told", |it| it.released.push(1);
        a_pillar_that_answers_twice: "answers once", |it| {
            it.tickets.values_mut().for_each(|ticket| ticket.waiting = 0);
            it.answered(1, true);
        };
    }
}
