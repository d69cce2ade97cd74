//! Leaving views (TR listing 19): why a view is left, and the VIEW-CHANGE.

use bytes::Bytes;
use hybster_tss::Verifier;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::messages::Subject;
use super::{Control, Phase};
use crate::hybster::input::PillarInput;
use crate::hybster::record;
use crate::hybster::verify::verify_view_change;
use crate::hybster::wire::view::{MAX_LINKS, Part, ViewChange};
use crate::ids::{PillarId, ReplicaId, View};
use crate::mutants::{self, Mutant};
use crate::notice::{Departure, Notice};
use crate::output::{Destination, Output, Reject, SendTag, ToIntake};
use crate::time::Time;
use crate::trace::TraceEvent;

/// How often something goes over wires that are as slow as this replica's, until a NEW-VIEW is there: the
/// VIEW-CHANGEs, a question for batches that they name and its answer, the NEW-VIEW.
const WAYS: u64 = 4;
/// The longest time for that, in view timeouts.
const MOST_ON_WAY: u64 = 16;
/// Unfinished views in a row after which the wait for a NEW-VIEW doubles.
const VIEWS_UNTIL_DOUBLED: usize = 64;
/// Most doublings: with a wait of a millisecond, years pass until then.
const MAX_DOUBLINGS: u32 = 24;

impl<V: Verifier> Control<V> {
    /// TR listing 19, leaveViewFor: all pillars stop and hand over their parts.
    pub(super) fn leave_for(&mut self, to: View, cause: Departure, now: Time, out: &mut Output) {
        assert!(self.is_settled() && to > self.current, "views rise, one step after the other");
        assert!(self.may_certify(), "a replica that comes back is told before it leaves a view");
        out.notice(|| Notice::ViewLeft { from: self.current, to, cause });
        self.left_at.get_or_insert(now);
        out.trace(|| TraceEvent::ViewLeft { from: self.stable_view, to });
        if self.is_stable() {
            out.intake(ToIntake::ViewLeft { view: to });
        }
        self.current = to;
        self.left_since_stable += 1;
        self.longest_way_us = self.way_us;
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
        let message = change.encode();
        if !mutants::active(Mutant::LeavingUnlogged) {
            out.log(|| record::left(&message));
        }
        out.send(Destination::AllPeers, message, SendTag::ViewChange(to));
        self.hold_own_change(Arc::new(change), out);
        self.messages.discard_before(self.current);
        self.ask_state(now, out);
    }

    /// This replica's own VIEW-CHANGE is held as well, so that its batches are kept if it enters an
    /// earlier view.
    pub(super) fn hold_own_change(&mut self, change: Arc<ViewChange>, out: &mut Output) {
        let ticket = self.messages.ticket(Subject::ViewChange(self.id, change.to));
        for (pillar, part) in self.config.all_pillars().zip(&change.parts) {
            let headers = part.prepared.clone();
            let hold = PillarInput::Hold { ticket, source: self.id, headers, left: None };
            out.pillar(pillar, hold);
        }
        self.messages.store_change(change, ticket, self.current);
    }

    /// TR listing 19, receive(VIEW-CHANGE). Its certificates are transferable: any peer may relay
    /// it.
    pub(super) fn view_change(
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
            let step = part.chain.last().filter(|_| !mutants::active(Mutant::LeavingUntold));
            let left = step.map(|link| Box::new((sender, *link)));
            out.pillar(pillar, PillarInput::Hold { ticket, source: sender, headers, left });
        }
        self.messages.store_change(Arc::new(change), ticket, self.current);
        Ok(())
    }

    /// TR listing 19, viewMissed: q replicas are on their way to a later view.
    pub(super) fn view_missed(&mut self, now: Time, out: &mut Output) -> bool {
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
    pub(super) fn suspected_by_others(&mut self, now: Time, out: &mut Output) -> bool {
        // f+1 ask for this view or a later one, so a correct replica does. The TR goes to the next
        // view only; going to the view of the others brings all together sooner.
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
    pub(super) fn left_by_leader(&mut self, now: Time, out: &mut Output) -> bool {
        let leader = self.config.leader(self.stable_view);
        let left = self.is_stable() && self.messages.asks_beyond(leader, self.current);
        if left {
            self.leave_for(self.current.next(), Departure::LeaderLeft, now, out);
        }
        left
    }

    /// TR listing 19, designatedLeaderSuspected.
    pub(super) fn new_view_overdue(&mut self, now: Time, out: &mut Output) {
        self.new_view_due = None;
        let waiting = matches!(self.phase, Phase::Waiting) && self.has_quorum_for_current();
        if waiting && self.may_leave() {
            self.new_view_timeout.expired(now);
            self.leave_for(self.current.next(), Departure::NewViewOverdue, now, out);
        }
    }

    /// A VIEW-CHANGE carries a link for each view left since the last stable one, and the number of
    /// links is bounded: the last ones are reserved for views that a quorum is on its way to.
    fn may_leave(&self) -> bool {
        self.left_since_stable < MAX_LINKS - 64
    }

    /// Whether q replicas have left for the current view. One that asks for a later view has left
    /// for this one, too. To wait for its VIEW-CHANGE for exactly this view, as the TR does, would
    /// require that message to be sent again for ever.
    fn has_quorum_for_current(&self) -> bool {
        self.messages.asking_for(self.current) >= self.config.quorum()
    }

    /// TR listing 19, newViewExpected. The designated leader gives itself no longer than the others
    /// do: it may lack what it needs because its peers have gone on to the next view.
    pub(super) fn expect_new_view(&mut self, now: Time) {
        let expected = !self.is_stable() && self.has_quorum_for_current();
        if expected && self.new_view_due.is_none() {
            self.new_view_due = Some(now.after_us(self.new_view_wait_us()));
        }
    }

    /// How long a NEW-VIEW may take. Where one view after the other is not finished, VIEW-CHANGEs become
    /// longer, and the waits as well: so the links that a VIEW-CHANGE has room for are never used up
    /// (DEVIATIONS 28), and a wait is no longer than a 64th of the time that no view was stable.
    pub(super) fn new_view_wait_us(&self) -> u64 {
        let doublings = (self.left_since_stable / VIEWS_UNTIL_DOUBLED) as u32;
        let doublings = if mutants::active(Mutant::ViewsInHaste) { 0 } else { doublings };
        let wait_us = self.new_view_timeout.delay_us();
        let ways_us = (WAYS * self.longest_way_us).min(MOST_ON_WAY * self.config.view_timeout_us);
        wait_us.saturating_mul(1 << doublings.min(MAX_DOUBLINGS)) + ways_us
    }
}
