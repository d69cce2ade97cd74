//! Leaving views: why a view is left, the VIEW-CHANGE, and its acknowledgements (Castro 3.2.4).

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Control, Phase};
use crate::ids::{PillarId, ReplicaId, View};
use crate::notice::{Departure, Notice};
use crate::output::{Destination, Output, Reject, SendTag, ToIntake};
use crate::pbft::input::PillarInput;
use crate::pbft::wire::view::{Known, ViewChange, ViewChangeAck};
use crate::time::Time;
use crate::trace::{Held, Phase as Certified, Proposal, TraceEvent};
use crate::wire::digest;

/// How often something goes over wires that are as slow as this replica's, until a NEW-VIEW is there.
const WAYS: u64 = 5;
/// The longest time for that, in view timeouts.
const MOST_ON_WAY: u64 = 16;

impl Control {
    /// All pillars stop, and say what they have done.
    pub(super) fn leave_for(&mut self, to: View, cause: Departure, now: Time, out: &mut Output) {
        assert!(to > self.current, "views rise");
        out.notice(|| Notice::ViewLeft { from: self.current, to, cause });
        self.left_at.get_or_insert(now);
        out.trace(|| TraceEvent::ViewLeft { from: self.stable_view, to });
        if self.is_stable() {
            out.intake(ToIntake::ViewLeft { view: to });
        }
        self.current = to;
        self.longest_way_us = self.way_us;
        self.new_view_due = None;
        self.resend_due = Some(now.after_us(2 * self.config.resend_us));
        self.phase = Phase::Leaving { parts: BTreeMap::new() };
        // From here on the window of the parts is that of the VIEW-CHANGE.
        self.catch_up.shared_stable();
        self.messages.discard(self.stable_view, self.current);
        for pillar in self.config.all_pillars() {
            out.pillar(pillar, PillarInput::Leave { to });
        }
    }

    /// A pillar has left the view; with the last one, the VIEW-CHANGE leaves the host.
    pub(super) fn left(
        &mut self,
        pillar: PillarId,
        to: View,
        known: Vec<Known>,
        now: Time,
        out: &mut Output,
    ) {
        let Phase::Leaving { parts } = &mut self.phase else { return };
        if to != self.current {
            return;
        }
        let (stable, from) = (self.catch_up.left_with().id, self.stable_view);
        out.trace(|| TraceEvent::PartLeft {
            pillar,
            from,
            to,
            checkpoint: stable.order,
            steps: Vec::new(),
            held: known.iter().flat_map(held).collect(),
        });
        parts.insert(pillar, known);
        if parts.len() < usize::from(self.config.pillars) {
            return;
        }
        let parts: Vec<Vec<Known>> = std::mem::take(parts).into_values().collect();
        self.phase = Phase::Waiting;
        let taken =
            std::iter::once(stable).chain(self.catch_up.taken_after(stable.order)).collect();
        let change = ViewChange { sender: self.id, to, stable, taken, parts };
        let message = change.encode();
        self.messages.store(digest(&message), Arc::new(change), self.current);
        out.send(Destination::AllPeers, message, SendTag::ViewChange(to));
        self.ask_state(now, out);
    }

    /// A VIEW-CHANGE, from its own sender: no other one counts.
    pub(super) fn view_change(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let change = ViewChange::parse(message, &self.config)?;
        let to = change.to;
        if change.sender != from {
            return Err(Reject::WrongSender);
        }
        let is_relevant = to > self.current || (!self.is_stable() && to == self.current);
        if !is_relevant {
            if to <= self.stable_view {
                self.help(from, now, out);
            }
            return Err(Reject::Irrelevant);
        }
        if self.messages.supersedes(from, to, self.current) {
            return Err(Reject::Irrelevant);
        }
        let digest = digest(message);
        self.messages.store(digest, Arc::new(change), self.current);
        // To all, where the thesis has the leader of the view only: others need them if a liar sends its
        // VIEW-CHANGE to some only, and so nobody has to ask for them.
        let ack = ViewChangeAck { view: to, got: vec![(from, digest)] };
        out.send(Destination::AllPeers, ack.encode(), SendTag::ViewChange(to));
        Ok(())
    }

    /// A VIEW-CHANGE-ACK: the word of its sender.
    pub(super) fn view_change_ack(
        &mut self,
        from: ReplicaId,
        message: &[u8],
    ) -> Result<(), Reject> {
        let ack = ViewChangeAck::parse(message, &self.config)?;
        let is_relevant =
            ack.view > self.current || (!self.is_stable() && ack.view == self.current);
        if !is_relevant {
            return Err(Reject::Irrelevant);
        }
        self.messages.acknowledged(from, &ack, self.current);
        Ok(())
    }

    /// f+1 replicas, so a correct one among them, ask for a later view: this replica follows (Castro 2.3.5).
    pub(super) fn suspected_by_others(&mut self, now: Time, out: &mut Output) -> bool {
        let asked = self.messages.asked_by(self.config.acknowledging());
        if asked <= self.current {
            return false;
        }
        let quorum = self.messages.asked_by(self.config.quorum()) > self.current;
        // A view that is not finished is left only once a quorum has left for it.
        if !self.is_stable() && !self.has_quorum_for_current() && !quorum {
            return false;
        }
        let cause = if quorum { Departure::QuorumLeft } else { Departure::OthersAsk };
        self.leave_for(asked, cause, now, out);
        true
    }

    /// A leader that asks for a later view has given up its own: nothing will be proposed in it any more.
    pub(super) fn left_by_leader(&mut self, now: Time, out: &mut Output) -> bool {
        let leader = self.config.leader(self.stable_view);
        let left = self.is_stable() && self.messages.asks_beyond(leader, self.current);
        if left {
            self.leave_for(self.current.next(), Departure::LeaderLeft, now, out);
        }
        left
    }

    /// No NEW-VIEW came in time: on to the next view, which gets twice as long (Castro 2.3.5).
    pub(super) fn new_view_overdue(&mut self, now: Time, out: &mut Output) {
        self.new_view_due = None;
        let waits = matches!(self.phase, Phase::Waiting | Phase::Establishing(_));
        if waits && self.has_quorum_for_current() {
            self.new_view_timeout.expired(now);
            self.leave_for(self.current.next(), Departure::NewViewOverdue, now, out);
        }
    }

    /// Whether a quorum has left for the current view, or for a later one.
    fn has_quorum_for_current(&self) -> bool {
        self.messages.asking_for(self.current) >= self.config.quorum()
    }

    /// The wait for a NEW-VIEW begins when a quorum is on its way (Castro 2.3.5).
    pub(super) fn expect_new_view(&mut self, now: Time) {
        let expected = !self.is_stable() && self.has_quorum_for_current();
        if expected && self.new_view_due.is_none() {
            self.new_view_due = Some(now.after_us(self.new_view_wait_us()));
        }
    }

    /// How long a NEW-VIEW may take.
    pub(super) fn new_view_wait_us(&self) -> u64 {
        let ways_us = (WAYS * self.longest_way_us).min(MOST_ON_WAY * self.config.view_timeout_us);
        self.new_view_timeout.delay_us() + ways_us
    }
}

/// What is known about an order number in the terms of a trace.
fn held(known: &Known) -> impl Iterator<Item = Held> + use<> {
    let order = known.order;
    let held = move |certified, (batch, view)| {
        let noop = batch == crate::pbft::wire::ordering::NULL;
        let proposal = Proposal { first: order, last: order, batch, time_ms: 0, noop };
        Held { view, certified, proposal }
    };
    let prepared = known.prepared.map(|pair| held(Some(Certified::Prepare), pair));
    let pre_prepared = known.pre_prepared.clone().into_iter().map(move |pair| held(None, pair));
    prepared.into_iter().chain(pre_prepared)
}
