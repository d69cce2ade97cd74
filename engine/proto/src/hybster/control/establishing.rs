//! Establishing a view that this replica is to lead (TR listing 19): which VIEW-CHANGEs justify it,
//! what they demand, and the NEW-VIEW.

use hybster_tss::{Proof, Verifier};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::messages::Justification;
use super::{Control, Establishing, Phase};
use crate::hybster::input::PillarInput;
use crate::hybster::wire::ordering::PrepareHeader;
use crate::hybster::wire::view::{NewView, NewViewAck, ViewChange};
use crate::ids::{PillarId, View};
use crate::output::{Destination, Output, SendTag, ToIntake};
use crate::time::Time;

impl<V: Verifier> Control<V> {
    /// TR listing 19, newLeaderViewReady.
    pub(super) fn establish_ready(&mut self, now: Time, out: &mut Output) -> bool {
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
}
