//! The leader's decision, the NEW-VIEW, and entering views (Castro 3.2.4).

use bytes::Bytes;
use hybster_tss::Digest;
use std::collections::BTreeSet;

use super::messages::Kept;
use super::{Control, Establishing, Pending, Phase};
use crate::ids::{PillarId, ReplicaId, View};
use crate::mutants::{self, Mutant};
use crate::notice::{Departure, Notice};
use crate::output::{
    Destination, Network, Output, Reject, SendTag, ToExecution, ToIntake, Watermark,
};
use crate::pbft::decision::{Decision, decide};
use crate::pbft::input::PillarInput;
use crate::pbft::stable::Stable;
use crate::pbft::wire::ordering::NULL;
use crate::pbft::wire::view::{NewView, ViewChange};
use crate::time::Time;
use crate::trace::{Member, Proposal, TraceEvent};
use crate::wire::digest;

impl Control {
    // ------------------------------------------------------------------ the leader of the view

    /// Decides, once there are VIEW-CHANGEs that suffice, and asks the pillars for the bodies (A3).
    pub(super) fn establish_ready(&mut self, out: &mut Output) -> bool {
        let leads = !self.is_stable() && self.config.leader(self.current) == self.id;
        if !leads || self.messages.change(self.id, self.current).is_none() {
            return false;
        }
        let all = self.messages.changes(self.current).filter(|kept| self.is_certified(kept));
        let changes: Vec<(Digest, ViewChange)> =
            all.map(|kept| (kept.digest, ViewChange::clone(&kept.change))).collect();
        let Some(decision) = decide(&self.config, changes.iter().map(|(_, change)| change)) else {
            return false;
        };
        let first = self.config.slots_before(decision.checkpoint.order);
        for (pillar, chosen) in self.config.all_pillars().zip(&decision.chosen) {
            let chosen = chosen.clone();
            out.pillar(pillar, PillarInput::Hold { view: self.current, first, chosen });
        }
        let waiting = self.config.all_pillars().collect::<BTreeSet<PillarId>>();
        let new_view = NewView { view: self.current, changes };
        self.phase = Phase::Establishing(Box::new(Establishing { new_view, decision, waiting }));
        true
    }

    /// A view-change certificate: the VIEW-CHANGE, the acknowledgement that this replica could send, and
    /// those of 2f−1 others.
    fn is_certified(&self, kept: &Kept) -> bool {
        let (sender, view) = (kept.change.sender, kept.change.to);
        let others = self.messages.acknowledging(sender, view, &kept.digest).len();
        sender == self.id
            || others + 2 >= self.config.quorum()
            || mutants::active(Mutant::PbftAcksUncounted)
    }

    /// A pillar has all bodies. With the last one, the view begins.
    pub(super) fn held(&mut self, pillar: PillarId, view: View, now: Time, out: &mut Output) {
        let Phase::Establishing(establishing) = &mut self.phase else { return };
        if establishing.new_view.view != view {
            return;
        }
        establishing.waiting.remove(&pillar);
        if !establishing.waiting.is_empty() {
            return;
        }
        let Phase::Establishing(ready) = std::mem::replace(&mut self.phase, Phase::Waiting) else {
            return;
        };
        let message = ready.new_view.encode();
        out.send(Destination::AllPeers, message.clone(), SendTag::NewView(view));
        self.enter_view(&ready.new_view, message, &ready.decision, now, out);
    }

    // ------------------------------------------------------------------ the others

    /// A NEW-VIEW, of its leader or passed on by a peer.
    pub(super) fn new_view(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let new_view = NewView::parse(message, &self.config)?;
        let view = new_view.view;
        if view <= self.stable_view || view < self.current || self.config.leader(view) == self.id {
            return Err(Reject::Irrelevant);
        }
        let known = self.pending.get(&from).is_some_and(|pending| pending.new_view.view >= view);
        if known {
            return Err(Reject::Irrelevant);
        }
        let Some(decision) = decide(&self.config, new_view.changes.iter().map(|(_, c)| c)) else {
            // Its leader is faulty: no correct one decides on these (Castro: on to the next view).
            let of_leader = from == self.config.leader(view) && view == self.current;
            if of_leader && matches!(self.phase, Phase::Waiting) {
                self.leave_for(view.next(), Departure::NewViewOverdue, now, out);
            }
            return Err(Reject::BadTransition);
        };
        // A copy, so that what is kept does not pin a receive buffer.
        let message = Bytes::copy_from_slice(message);
        let digest = digest(&message);
        self.pending.insert(from, Pending { new_view, message, digest, decision });
        Ok(())
    }

    /// Enters the view of a NEW-VIEW that can be believed.
    pub(super) fn enter_pending(&mut self, now: Time, out: &mut Output) -> bool {
        let (stable, current) = (self.stable_view, self.current);
        self.pending.retain(|_, p| p.new_view.view > stable && p.new_view.view >= current);
        let believed = self.pending.iter().filter(|(from, p)| self.is_believed(**from, p));
        let Some(from) = believed.max_by_key(|(_, p)| p.new_view.view).map(|(from, _)| *from)
        else {
            return false;
        };
        let Pending { new_view, message, decision, .. } =
            self.pending.remove(&from).expect("found above");
        if self.is_stable() {
            out.intake(ToIntake::ViewLeft { view: new_view.view });
        }
        self.enter_view(&new_view, message, &decision, now, out);
        true
    }

    /// Whether a correct replica has made or checked a NEW-VIEW, or this one can check it.
    fn is_believed(&self, from: ReplicaId, pending: &Pending) -> bool {
        let equal = self.pending.values().filter(|other| other.digest == pending.digest).count();
        if equal >= self.config.acknowledging() {
            return true;
        }
        let view = pending.new_view.view;
        let leader = self.config.leader(view);
        from == leader
            && pending.new_view.changes.iter().all(|(digest, change)| {
                let own = self.messages.change(change.sender, view);
                if own.is_some_and(|kept| kept.digest == *digest) {
                    return true;
                }
                // Of these and the leader, who names it, a correct one has got it.
                let by = self.messages.acknowledging(change.sender, view, digest);
                let others = by.iter().filter(|by| *by != leader).count();
                let is_own = change.sender == self.id;
                (!is_own && others >= usize::from(self.config.faults) && others > 0)
                    || mutants::active(Mutant::PbftChangesUnvouched)
            })
    }

    // ------------------------------------------------------------------ all

    fn enter_view(
        &mut self,
        new_view: &NewView,
        message: Bytes,
        decision: &Decision,
        now: Time,
        out: &mut Output,
    ) {
        let view = new_view.view;
        assert!(view > self.stable_view && view >= self.current, "views rise");
        (self.stable_view, self.current) = (view, view);
        self.views_entered += 1;
        let leader = self.config.leader(view);
        let (checkpoint, members) = (decision.checkpoint, &new_view.changes);
        // No view of a VIEW-CHANGE takes precedence over that of another.
        let member = |(_, change): &(Digest, ViewChange)| Member {
            replica: change.sender,
            from: View(0),
            disclosed: Vec::new(),
        };
        out.trace(|| TraceEvent::Elected {
            view,
            leader,
            checkpoint,
            members: members.iter().map(member).collect(),
            vouchers: Default::default(),
        });
        let first = self.config.slots_before(checkpoint.order);
        for (pillar, chosen) in self.config.all_pillars().zip(&decision.chosen) {
            let proposal = |(slot, digest): (u64, &Digest)| {
                let order = self.config.order_at(pillar, slot);
                let noop = *digest == NULL;
                Proposal { first: order, last: order, batch: *digest, time_ms: 0, noop }
            };
            let proposals = || (first..).zip(chosen).map(proposal);
            let adopted = || TraceEvent::Adopted { pillar, view, proposals: proposals().collect() };
            out.trace(adopted);
            // The NEW-VIEW stands for its PRE-PREPAREs.
            for proposal in proposals().filter(|_| leader == self.id) {
                out.trace(|| TraceEvent::Reissued { pillar, view, proposal });
            }
        }
        out.trace(|| TraceEvent::ViewEntered { view, current: view, leader: leader == self.id });
        let took_us = self.left_at.take().map(|at| now.since_us(at));
        out.notice(|| Notice::ViewEntered { view, leader, took_us });
        self.learn_stable(Stable { id: checkpoint, voters: decision.holders }, true, now, out);
        let base = self.catch_up.stable().id.order;
        let mut next_slots = Vec::with_capacity(decision.chosen.len());
        for (pillar, chosen) in self.config.all_pillars().zip(&decision.chosen) {
            let next = first + chosen.len() as u64;
            next_slots.push(next.max(self.config.slots_before(base)));
            let chosen = chosen.clone();
            out.pillar(pillar, PillarInput::Enter { view, first, chosen });
        }
        self.pending.retain(|_, pending| pending.new_view.view > view);
        self.messages.discard(view, view);
        out.network.push(Network::Withdraw(Watermark { order: base, view }));
        out.execution(ToExecution::View(view));
        self.phase = Phase::Stable;
        self.resend_due = None;
        if let Some(due) = self.new_view_due.take() {
            let took_us = self.new_view_wait_us().saturating_sub(due.since_us(now));
            self.new_view_timeout.succeeded(took_us, now);
        }
        out.intake(ToIntake::ViewEntered { view, next_slots });
        self.established = Some(message);
        self.ask_if_behind(now, out);
    }
}
