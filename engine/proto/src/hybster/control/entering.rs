//! Entering views (TR listing 19): the NEW-VIEW at a follower, and the NEW-VIEW-ACK of a replica that
//! has left the view already.

use bytes::Bytes;
use hybster_tss::{Proof, Verifier};
use std::sync::Arc;

use super::messages::Subject;
use super::{Control, PendingNewView, Phase};
use crate::hybster::events;
use crate::hybster::input::PillarInput;
use crate::hybster::record;
use crate::hybster::verify::{verify_ack, verify_new_view};
use crate::hybster::wire::ordering::PrepareHeader;
use crate::hybster::wire::view::{NewView, NewViewAck};
use crate::ids::{PillarId, ReplicaId, View};
use crate::notice::Notice;
use crate::output::{
    Destination, Network, Output, Reject, SendTag, ToExecution, ToIntake, Watermark,
};
use crate::time::Time;
use crate::trace::TraceEvent;

impl<V: Verifier> Control<V> {
    /// TR listing 19, receive(NEW-VIEW). Its certificate is transferable: any peer may relay it.
    pub(super) fn new_view(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let new_view = NewView::parse(message, &self.config)?;
        let view = new_view.view;
        // TR listing 19, isRelevantNewView.
        if view <= self.stable_view || self.config.leader(view) == self.id {
            return Err(Reject::Irrelevant);
        }
        // One is kept for each peer that sent one. A peer may fail to deliver the batches of its
        // NEW-VIEW: then the same one may come from another peer, or that of an earlier view, which
        // others may need this replica to acknowledge.
        let known = self.pending.get(&from).is_some_and(|pending| pending.new_view.view >= view);
        let held = |pending: &PendingNewView| pending.held && pending.new_view.view >= view;
        if known || self.pending.values().any(held) {
            return Err(Reject::Irrelevant);
        }
        verify_new_view(&self.verifier, &self.config, &new_view)?;
        if self.is_early(&new_view, now) && !self.is_entered_by_others(from, view) {
            return Err(Reject::Untimely);
        }
        self.learn_stable(new_view.checkpoint.clone(), true, now, out);
        let ticket = self.messages.ticket(Subject::NewView(from, view));
        for (pillar, prepares) in self.config.all_pillars().zip(&new_view.prepares) {
            let headers = prepares.clone();
            let hold = PillarInput::Hold { ticket, source: from, headers, left: None };
            out.pillar(pillar, hold);
        }
        self.drop_pending(|sender, _| sender == from);
        let new_view = Arc::new(new_view);
        self.pending.insert(from, PendingNewView { new_view, ticket, held: false });
        Ok(())
    }

    /// TR listing 19, newFollowerViewReady.
    pub(super) fn enter_pending(&mut self, now: Time, out: &mut Output) -> bool {
        let held = self.pending.iter().filter(|(_, pending)| pending.held);
        let Some(from) = held.max_by_key(|(_, p)| p.new_view.view).map(|(from, _)| *from) else {
            return false;
        };
        let pending = self.pending.remove(&from).expect("found above");
        // Pillars get this after the input to enter, so they hold the batches until then.
        self.messages.release(pending.ticket);
        if pending.new_view.view <= self.stable_view {
            return false;
        }
        if self.is_stable() {
            out.intake(ToIntake::ViewLeft { view: pending.new_view.view });
        }
        self.enter_view(pending.new_view, now, out);
        true
    }

    /// Forgets pending NEW-VIEWs by sender and view.
    pub(super) fn drop_pending(&mut self, gone: impl Fn(ReplicaId, View) -> bool) {
        let messages = &mut self.messages;
        self.pending.retain(|sender, pending| {
            let gone = gone(*sender, pending.new_view.view);
            if gone {
                messages.release(pending.ticket);
            }
            !gone
        });
    }

    /// TR listing 19, enterView.
    pub(super) fn enter_view(&mut self, new_view: Arc<NewView>, now: Time, out: &mut Output) {
        let view = new_view.view;
        assert!(view > self.stable_view, "views rise");
        self.stable_view = view;
        self.current = self.current.max(view);
        self.views_entered += 1;
        let leader = self.config.leader(view) == self.id;
        let current = self.current;
        out.log(|| record::new_view(current, &new_view));
        out.trace(|| events::elected(&new_view, self.config.leader(view)));
        for pillar in self.config.all_pillars() {
            out.trace(|| events::adopted(&new_view, pillar));
        }
        out.trace(|| TraceEvent::ViewEntered { view, current, leader });
        let took_us = self.left_at.map(|at| now.since_us(at));
        if current == view {
            self.left_at = None;
        }
        out.notice(|| Notice::ViewEntered { view, leader: self.config.leader(view), took_us });
        self.drop_pending(|_, pending| pending <= view);
        let wait_us = self.new_view_wait_us();
        self.left_since_stable = 0;
        let base = self.catch_up.stable().id.order;
        let mut next_slots = Vec::with_capacity(new_view.prepares.len());
        for (pillar, prepares) in self.config.all_pillars().zip(&new_view.prepares) {
            let next = prepares.last().map_or(0, |header| self.config.slot_of(header.last) + 1);
            next_slots.push(next.max(self.config.slots_before(base)));
            let prepares = prepares.clone();
            out.pillar(pillar, PillarInput::Enter { view, current, prepares });
        }
        self.messages.discard(view, current);
        out.network.push(Network::Withdraw(Watermark { order: base, view }));
        out.execution(ToExecution::View(view));
        if current == view {
            self.phase = Phase::Stable;
            // Nobody needs to hear of an earlier view that was entered belatedly, be it certified or not.
            (self.own_ack, self.unsigned_ack) = (None, None);
            self.resend_due = None;
            if let Some(due) = self.new_view_due.take() {
                let took_us = wait_us.saturating_sub(due.since_us(now));
                self.new_view_timeout.succeeded(took_us, now);
            }
            out.intake(ToIntake::ViewEntered { view, next_slots });
        } else {
            self.phase = Phase::Waiting;
            self.send_ack(&new_view, out);
        }
        self.established = Some(new_view);
        self.ask_if_behind(now, out);
    }

    /// TR listing 19, sendNewViewAck: the view was left before its NEW-VIEW arrived.
    pub(super) fn send_ack(&mut self, new_view: &NewView, out: &mut Output) {
        let checkpoint = self.catch_up.stable().clone();
        let base = checkpoint.id.order;
        let beyond = |prepares: &Vec<PrepareHeader>| {
            prepares.iter().filter(|header| header.last > base).copied().collect()
        };
        let ack = NewViewAck {
            sender: self.id,
            view: new_view.view,
            checkpoint,
            prepared: new_view.prepares.iter().map(beyond).collect(),
            proof: Proof([0; 32]),
        };
        let (view, digest) = (ack.view, ack.digest());
        self.unsigned_ack = Some(ack);
        out.pillar(PillarId(0), PillarInput::CertifyAck { view, digest });
    }

    pub(super) fn ack_certified(&mut self, view: View, proof: Proof, out: &mut Output) {
        let Some(ack) = self.unsigned_ack.take_if(|ack| ack.view == view) else {
            return;
        };
        let ack = Arc::new(NewViewAck { proof, ..ack });
        let message = ack.encode();
        out.log(|| record::acknowledged(&message));
        out.trace(|| TraceEvent::Endorsed { view, checkpoint: ack.checkpoint.id });
        out.send(Destination::AllPeers, message, SendTag::NewView(view));
        self.hold_own_ack(ack, out);
    }

    pub(super) fn hold_own_ack(&mut self, ack: Arc<NewViewAck>, out: &mut Output) {
        let view = ack.view;
        let ticket = self.messages.ticket(Subject::Ack(self.id, view));
        for (pillar, headers) in self.config.all_pillars().zip(ack.prepared.clone()) {
            let hold = PillarInput::Hold { ticket, source: self.id, headers, left: None };
            out.pillar(pillar, hold);
        }
        self.messages.store_ack(Arc::clone(&ack), ticket);
        self.own_ack = Some(ack);
    }

    /// TR listing 19, receive(NEW-VIEW-ACK).
    pub(super) fn new_view_ack(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let ack = NewViewAck::parse(message, &self.config)?;
        if ack.sender != from || from == self.id {
            return Err(Reject::WrongSender);
        }
        if ack.view < self.stable_view || !self.messages.is_newer_ack(from, ack.view) {
            return Err(Reject::Irrelevant);
        }
        verify_ack(&self.verifier, &self.config, &ack)?;
        self.learn_stable(ack.checkpoint.clone(), false, now, out);
        let ticket = self.messages.ticket(Subject::Ack(from, ack.view));
        for (pillar, prepared) in self.config.all_pillars().zip(&ack.prepared) {
            let headers = prepared.clone();
            let hold = PillarInput::Hold { ticket, source: from, headers, left: None };
            out.pillar(pillar, hold);
        }
        self.messages.store_ack(Arc::new(ack), ticket);
        Ok(())
    }
}
