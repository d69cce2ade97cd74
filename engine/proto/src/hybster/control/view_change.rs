//! Leaving, establishing and entering views (TR listing 19).

use bytes::Bytes;
use hybster_tss::{Proof, Verifier};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::messages::{Justification, Subject};
use super::{Control, Establishing, PendingNewView, Phase};
use crate::hybster::events;
use crate::hybster::input::PillarInput;
use crate::hybster::verify::{verify_ack, verify_new_view, verify_view_change};
use crate::hybster::wire::checkpoint::parse_state;
use crate::hybster::wire::ordering::PrepareHeader;
use crate::hybster::wire::view::{MAX_LINKS, NewView, NewViewAck, Part, ViewChange};
use crate::ids::{PillarId, ReplicaId, View};
use crate::notice::{Departure, Notice};
use crate::output::{
    Destination, Network, Output, Reject, SendTag, ToExecution, ToIntake, Watermark,
};
use crate::time::Time;
use crate::trace::TraceEvent;
use crate::wire::kind;
use crate::wire::state::StateRequest;

impl<V: Verifier> Control<V> {
    pub(super) fn message(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        match crate::wire::kind_of(message) {
            kind::VIEW_CHANGE => self.view_change(from, message, now, out),
            kind::NEW_VIEW => self.new_view(from, message, now, out),
            kind::NEW_VIEW_ACK => self.new_view_ack(from, message, now, out),
            kind::STATE_REQUEST => {
                let request = StateRequest::parse(message)?;
                self.state_request(from, &request, now, out);
                Ok(())
            }
            kind::STATE => {
                let certificate = parse_state(message, &self.config)?;
                self.learn_certificate(certificate, now, out)
            }
            _ => Err(Reject::Malformed),
        }
    }

    // ------------------------------------------------------------------ leaving

    /// TR listing 19, leaveViewFor: all pillars stop and hand over their parts.
    pub(super) fn leave_for(&mut self, to: View, cause: Departure, now: Time, out: &mut Output) {
        assert!(self.is_settled() && to > self.current, "views rise, one step after the other");
        out.notice(|| Notice::ViewLeft { from: self.current, to, cause });
        self.left_at.get_or_insert(now);
        out.trace(|| TraceEvent::ViewLeft { from: self.stable_view, to });
        if self.is_stable() {
            out.intake(ToIntake::ViewLeft { view: to });
        }
        self.current = to;
        self.left_since_stable += 1;
        self.new_view_due = None;
        self.resend_due = Some(now.after_us(2 * self.config.resend_us));
        self.phase = Phase::Leaving { parts: BTreeMap::new() };
        let checkpoint = self.catch_up.shared_stable();
        for pillar in self.config.all_pillars() {
            let checkpoint = Arc::clone(&checkpoint);
            out.pillar(pillar, PillarInput::Abort { from: self.stable_view, to, checkpoint });
        }
    }

    /// A part arrived; with the last one, the VIEW-CHANGE leaves the host.
    pub(super) fn part(
        &mut self,
        pillar: PillarId,
        to: View,
        part: Part,
        now: Time,
        out: &mut Output,
    ) {
        let Phase::Leaving { parts } = &mut self.phase else {
            return;
        };
        if to != self.current {
            return;
        }
        parts.insert(pillar, part);
        if parts.len() < usize::from(self.config.pillars) {
            return;
        }
        let parts = std::mem::take(parts).into_values().collect();
        self.phase = Phase::Waiting;
        let change = ViewChange {
            sender: self.id,
            from: self.stable_view,
            to,
            checkpoint: self.catch_up.left_with().clone(),
            parts,
        };
        out.send(Destination::AllPeers, change.encode(), SendTag::ViewChange(to));
        // The own one is held as well, so that its batches outlive the entry into a view between.
        let ticket = self.messages.ticket(Subject::ViewChange(self.id, to));
        for (pillar, part) in self.config.all_pillars().zip(&change.parts) {
            let headers = part.prepared.clone();
            out.pillar(pillar, PillarInput::Hold { ticket, source: self.id, headers });
        }
        self.messages.store_change(Arc::new(change), ticket, self.current);
        self.messages.discard_before(self.current);
        self.ask_state(now, out);
    }

    /// TR listing 19, receive(VIEW-CHANGE). Its certificates are transferable: any peer may relay
    /// it.
    fn view_change(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let change = ViewChange::parse(message, &self.config)?;
        let sender = change.sender;
        if sender == self.id {
            return Err(Reject::WrongSender);
        }
        // TR listing 19, isRelevantViewChange.
        let relevant = change.to > self.current || (!self.is_stable() && change.to == self.current);
        if !relevant {
            if change.to <= self.stable_view && sender == from {
                self.help(from, now, out);
            }
            return Err(Reject::Irrelevant);
        }
        if self.messages.supersedes(sender, change.to, self.current) {
            return Err(Reject::Irrelevant);
        }
        verify_view_change(&self.verifier, &self.config, &change)?;
        let to = change.to;
        self.learn_stable(change.checkpoint.clone(), false, now, out);
        let ticket = self.messages.ticket(Subject::ViewChange(sender, to));
        for (pillar, part) in self.config.all_pillars().zip(&change.parts) {
            let headers = part.prepared.clone();
            out.pillar(pillar, PillarInput::Hold { ticket, source: sender, headers });
        }
        self.messages.store_change(Arc::new(change), ticket, self.current);
        Ok(())
    }

    /// A pillar holds the batches that a message names, or found an invalid one among them.
    pub(super) fn held(&mut self, ticket: u64, _pillar: PillarId, valid: bool, out: &mut Output) {
        let Some((subject, valid)) = self.messages.answered(ticket, valid) else {
            return;
        };
        let (sender, kind) = match subject {
            Subject::ViewChange(sender, to) => {
                if valid {
                    self.messages.change_held(sender, to);
                } else {
                    self.messages.drop_change(sender, to);
                }
                (sender, kind::VIEW_CHANGE)
            }
            Subject::Ack(sender, view) => {
                if valid {
                    self.messages.ack_held(sender, view);
                } else {
                    self.messages.drop_ack(sender, view);
                }
                (sender, kind::NEW_VIEW_ACK)
            }
            Subject::NewView(from, view) => {
                let matching = |p: &&mut PendingNewView| p.new_view.view == view;
                if let Some(pending) = self.pending.get_mut(&from).filter(matching) {
                    pending.held = valid;
                    if !valid {
                        self.drop_pending(|sender, _| sender == from);
                    }
                }
                (self.config.leader(view), kind::NEW_VIEW)
            }
        };
        if !valid {
            out.reject(Some(sender), &[kind], Reject::BadBatch);
        }
    }

    // ------------------------------------------------------------------ decisions

    /// The tasks of TR listing 19, in an order that prefers to enter views over leaving them.
    pub(super) fn evaluate(&mut self, now: Time, out: &mut Output) {
        if !self.is_settled() || out.fatal.is_some() {
            return;
        }
        if self.enter_pending(now, out) || self.establish_ready(now, out) {
            return;
        }
        if self.view_missed(now, out)
            || self.suspected_by_others(now, out)
            || self.left_by_leader(now, out)
        {
            return;
        }
        self.expect_new_view(now);
    }

    /// TR listing 19, viewMissed: q replicas are on their way to a later view.
    fn view_missed(&mut self, now: Time, out: &mut Output) -> bool {
        let asked = self.messages.asked_beyond(self.current);
        let quorum = self.config.quorum();
        let missed = asked.iter().rev().find(|(_, count)| **count >= quorum);
        let Some((view, _)) = missed else {
            return false;
        };
        self.leave_for(*view, Departure::QuorumLeft, now, out);
        true
    }

    /// TR listing 19, isLeaderSuspectedByQuorum: f+1 replicas, so a correct one among them, ask
    /// for a later view.
    fn suspected_by_others(&mut self, now: Time, out: &mut Output) -> bool {
        // f+1 ask for this view or a later one, so a correct replica does. The TR steps to the
        // next view only; going where the others are brings them together sooner.
        let asked = self.messages.asked_by(self.config.acknowledging());
        if asked <= self.current || !self.may_leave() {
            return false;
        }
        // TR listing 19, designatedLeaderSuspected: an unstable view is left only once a quorum
        // has left for it.
        if !self.is_stable() && !self.has_quorum_for_current() {
            return false;
        }
        self.leave_for(asked, Departure::OthersAsk, now, out);
        true
    }

    /// A leader that asks for a later view has given up its own: nothing will be proposed in it any
    /// more. The TR waits for a request to time out, which a replica that has executed all its
    /// requests never does, while peers may need it to join them (seed 181677711459093).
    fn left_by_leader(&mut self, now: Time, out: &mut Output) -> bool {
        let leader = self.config.leader(self.stable_view);
        let left = self.is_stable() && self.messages.asks_beyond(leader, self.current);
        if left {
            self.leave_for(self.current.next(), Departure::LeaderLeft, now, out);
        }
        left
    }

    /// A VIEW-CHANGE carries a link per view left since the last stable one, and a bounded number
    /// of links: the last ones are kept for views that a quorum is on its way to.
    fn may_leave(&self) -> bool {
        self.left_since_stable < MAX_LINKS - 64
    }

    /// Whether q replicas have left for the current view. One that asks for a later view has left
    /// for this one, too; waiting for its VIEW-CHANGE for exactly this view, as the TR does, would
    /// need that message to be sent again for ever.
    fn has_quorum_for_current(&self) -> bool {
        self.messages.asking_for(self.current) >= self.config.quorum()
    }

    /// TR listing 19, newViewExpected. The designated leader gives itself no longer than the others
    /// do: it may lack what it needs because its peers have gone on to the next view.
    fn expect_new_view(&mut self, now: Time) {
        let expected = !self.is_stable() && self.has_quorum_for_current();
        if expected && self.new_view_due.is_none() {
            self.new_view_due = Some(now.after_us(self.new_view_timeout.delay_us()));
        }
    }

    /// TR listing 19, designatedLeaderSuspected.
    pub(super) fn new_view_overdue(&mut self, now: Time, out: &mut Output) {
        self.new_view_due = None;
        let waiting = matches!(self.phase, Phase::Waiting) && self.has_quorum_for_current();
        if waiting && self.may_leave() {
            self.new_view_timeout.expired();
            self.leave_for(self.current.next(), Departure::NewViewOverdue, now, out);
        }
    }

    // ------------------------------------------------------------------ establishing

    /// TR listing 19, newLeaderViewReady.
    fn establish_ready(&mut self, now: Time, out: &mut Output) -> bool {
        let limit_ms = self.latest_acceptable_ms(now);
        let views = self.messages.views();
        let ready = views.into_iter().rev().filter(|v| {
            *v >= self.current && *v > self.stable_view && self.config.leader(*v) == self.id
        });
        let justified: Vec<(View, Justification)> = ready
            .filter_map(|view| Some((view, self.messages.justify(&self.config, view, limit_ms)?)))
            .take(1)
            .collect();
        let Some((view, justification)) = justified.into_iter().next() else {
            return false;
        };
        // TR listing 19, isInOrderWindow: be at the highest checkpoint first.
        let order = justification.transition.checkpoint;
        if order > self.catch_up.stable().id.order {
            let of_changes = justification.view_changes.iter().map(|c| &c.checkpoint);
            let of_acks = justification.acks.iter().map(|a| &a.checkpoint);
            let highest = of_changes.chain(of_acks).find(|c| c.id.order == order).cloned();
            if let Some(certificate) = highest {
                self.learn_stable(certificate, true, now, out);
            }
        }
        self.establish(view, justification, out);
        true
    }

    /// TR listing 19, establishView: P′ is certified by the pillars first.
    fn establish(&mut self, view: View, justification: Justification, out: &mut Output) {
        if self.is_stable() {
            out.intake(ToIntake::ViewLeft { view });
        }
        self.current = view;
        self.new_view_due = None;
        let checkpoint = self.catch_up.stable().clone();
        let base = checkpoint.id.order;
        for pillar in self.config.all_pillars() {
            let demanded = &justification.transition.prepared[usize::from(pillar.0)];
            let prepared = demanded.iter().filter(|h| h.last > base).copied().collect();
            out.pillar(pillar, PillarInput::Establish { view, prepared });
        }
        let mut view_changes: Vec<ViewChange> =
            justification.view_changes.iter().map(|c| ViewChange::clone(c)).collect();
        view_changes.sort_by_key(|change| change.sender);
        let acks = justification.acks.iter().map(|a| NewViewAck::clone(a)).collect();
        let new_view = NewView {
            view,
            checkpoint,
            view_changes,
            acks,
            prepares: Vec::new(),
            proof: Proof([0; 32]),
        };
        let establishing = Establishing { new_view, parts: BTreeMap::new() };
        self.phase = Phase::Establishing(Box::new(establishing));
    }

    pub(super) fn pillar_established(
        &mut self,
        pillar: PillarId,
        view: View,
        prepares: Vec<PrepareHeader>,
        out: &mut Output,
    ) {
        let Phase::Establishing(establishing) = &mut self.phase else {
            return;
        };
        if establishing.new_view.view != view {
            return;
        }
        establishing.parts.insert(pillar, prepares);
        if establishing.parts.len() == usize::from(self.config.pillars) {
            let parts = std::mem::take(&mut establishing.parts);
            establishing.new_view.prepares = parts.into_values().collect();
            let digest = establishing.new_view.digest();
            out.pillar(PillarId(0), PillarInput::CertifyNewView { view, digest });
        }
    }

    pub(super) fn new_view_certified(
        &mut self,
        view: View,
        proof: Proof,
        now: Time,
        out: &mut Output,
    ) {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Establishing(establishing) if establishing.new_view.view == view => {
                let new_view = NewView { proof, ..establishing.new_view };
                let message = new_view.encode();
                out.send(Destination::AllPeers, message, SendTag::NewView(view));
                self.enter_view(Arc::new(new_view), now, out);
            }
            other => self.phase = other,
        }
    }

    // ------------------------------------------------------------------ entering

    /// TR listing 19, receive(NEW-VIEW). Its certificate is transferable: any peer may relay it.
    fn new_view(
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
        // One is kept for each peer that sent it: a pending one whose batches its sender does not
        // deliver may come from elsewhere, and so may one of an earlier view, which others may need
        // this replica to acknowledge.
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
            out.pillar(pillar, PillarInput::Hold { ticket, source: from, headers });
        }
        self.drop_pending(|sender, _| sender == from);
        let new_view = Arc::new(new_view);
        self.pending.insert(from, PendingNewView { new_view, ticket, held: false });
        Ok(())
    }

    /// TR listing 19, newFollowerViewReady.
    fn enter_pending(&mut self, now: Time, out: &mut Output) -> bool {
        let held = self.pending.iter().filter(|(_, pending)| pending.held);
        let Some(from) = held.max_by_key(|(_, p)| p.new_view.view).map(|(from, _)| *from) else {
            return false;
        };
        let pending = self.pending.remove(&from).expect("found above");
        // Released after the input to enter, so the batches are there until then.
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
    fn drop_pending(&mut self, gone: impl Fn(ReplicaId, View) -> bool) {
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
    fn enter_view(&mut self, new_view: Arc<NewView>, now: Time, out: &mut Output) {
        let view = new_view.view;
        assert!(view > self.stable_view, "views rise");
        self.stable_view = view;
        self.current = self.current.max(view);
        self.views_entered += 1;
        let leader = self.config.leader(view) == self.id;
        let current = self.current;
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
            self.own_ack = None;
            self.resend_due = None;
            if self.new_view_due.take().is_some() {
                self.new_view_timeout.succeeded();
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
    fn send_ack(&mut self, new_view: &NewView, out: &mut Output) {
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
        out.trace(|| TraceEvent::Endorsed { view, checkpoint: ack.checkpoint.id });
        out.send(Destination::AllPeers, ack.encode(), SendTag::NewView(view));
        let ticket = self.messages.ticket(Subject::Ack(self.id, view));
        for (pillar, headers) in self.config.all_pillars().zip(ack.prepared.clone()) {
            out.pillar(pillar, PillarInput::Hold { ticket, source: self.id, headers });
        }
        self.messages.store_ack(Arc::clone(&ack), ticket);
        self.own_ack = Some(ack);
    }

    /// TR listing 19, receive(NEW-VIEW-ACK).
    fn new_view_ack(
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
            out.pillar(pillar, PillarInput::Hold { ticket, source: from, headers });
        }
        self.messages.store_ack(Arc::new(ack), ticket);
        Ok(())
    }
}
