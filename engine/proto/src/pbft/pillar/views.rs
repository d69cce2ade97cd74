//! Leaving and entering views (Castro 3.2.4): P and Q, and what a new view begins with.
//!
//! P and Q are kept up to date while the view lasts, so leaving it only reads them.

use hybster_tss::{Digest, RequestVerifier};
use std::collections::BTreeMap;

use super::Pillar;
use crate::ids::View;
use crate::output::Output;
use crate::pbft::input::ControlInput;
use crate::pbft::wire::ordering::{Body, NULL};
use crate::pbft::wire::view::Known;
use crate::time::Time;

impl<V: RequestVerifier> Pillar<V> {
    /// From now on nothing is sent in the view any more; what was done in it, and before, is told.
    pub(super) fn leave(&mut self, to: View, out: &mut Output) {
        self.active = false;
        self.proposals.clear();
        self.drop_hold();
        let base = self.slots.base();
        let mut known = Vec::new();
        for slot in base..self.window_end() {
            let entry = self.slots.get(slot).expect("inside the log");
            if entry.p.is_none() && entry.q.is_empty() {
                continue;
            }
            let pair = |(view, body): &(View, Body)| (body.digest, *view);
            known.push(Known {
                order: self.order_at(slot),
                prepared: entry.p.as_ref().map(pair),
                pre_prepared: entry.q.iter().map(pair).collect(),
            });
        }
        out.control(ControlInput::Left { pillar: self.pillar, to, known });
    }

    /// Castro 3.2.4, condition A3: a leader sends its NEW-VIEW when it has the bodies of what it decided.
    pub(super) fn hold(&mut self, view: View, first: u64, chosen: &[Digest], out: &mut Output) {
        self.drop_hold();
        let mut waits = BTreeMap::new();
        for (slot, digest) in (first..).zip(chosen) {
            let known = self.slots.get(slot).map(|entry| entry.find(digest).is_some());
            // What lies before the window is not ordered again here.
            if slot >= self.slots.base() && *digest != NULL && known == Some(false) {
                waits.insert(slot, *digest);
                self.missing.insert((slot, *digest));
            }
        }
        self.holding = Some((view, waits));
        self.tell_held(out);
    }

    /// Tells when all bodies of a hold are here.
    pub(super) fn tell_held(&mut self, out: &mut Output) {
        if let Some((view, _)) = self.holding.take_if(|(_, waits)| waits.is_empty()) {
            out.control(ControlInput::Held { pillar: self.pillar, view });
        }
    }

    /// The window moved: what lies before it is not waited for.
    pub(super) fn forward_hold(&mut self, base: u64, out: &mut Output) {
        if let Some((_, waits)) = &mut self.holding {
            *waits = waits.split_off(&base);
            self.tell_held(out);
        }
    }

    fn drop_hold(&mut self) {
        self.holding = None;
        self.name_missing();
    }

    /// Finds out again which bodies are named and missing.
    fn name_missing(&mut self) {
        self.missing.clear();
        for slot in self.slots.base()..self.slots.end() {
            let entry = self.slots.get(slot).expect("inside the log");
            let adopted = entry.adopted.filter(|_| entry.body.is_none());
            let committed = entry.committed.filter(|_| entry.committed_body.is_none());
            self.missing.extend(adopted.into_iter().chain(committed).map(|digest| (slot, digest)));
        }
    }

    /// Enters a view that begins with `chosen`. The NEW-VIEW stands for the leader's PRE-PREPAREs.
    pub(super) fn enter(
        &mut self,
        view: View,
        first: u64,
        chosen: &[Digest],
        now: Time,
        out: &mut Output,
    ) {
        assert!(view > self.view, "views rise");
        (self.view, self.active) = (view, true);
        self.holding = None;
        self.proposals.clear();
        self.early_until_ms = None;
        for slot in self.slots.base()..self.slots.end() {
            let entry = self.slots.get_mut(slot).expect("inside the log");
            let held = entry.held.take();
            entry.leave_view();
            let at = slot.checked_sub(first).and_then(|at| usize::try_from(at).ok());
            let Some(digest) = at.and_then(|at| chosen.get(at)) else { continue };
            entry.adopted = Some(*digest);
            let found = entry.find(digest).cloned();
            let held = held.filter(|body| body.digest == *digest);
            entry.body = if *digest == NULL { Some(Body::null()) } else { found.or(held) };
        }
        self.name_missing();
        self.proposed = (first + chosen.len() as u64).max(self.slots.base());
        self.progressed();
        self.uncommitted_since = None;
        for slot in self.slots.base()..self.proposed {
            self.adopt(slot);
            self.consider(slot, out);
        }
        self.advance(out);
        self.announce(0, out);
        self.send_votes(out);
        for sender in self.config.clone().all_replicas() {
            for message in self.later.take(sender, self.view) {
                self.message(sender, message, now, out);
                // What is said is not said again for the next one.
                self.send_votes(out);
            }
        }
    }

    /// The leader of a view has pre-prepared what it begins with: unless it knows that something else is
    /// committed, in a later view. Then the group has gone on without this one.
    pub(super) fn adopt(&mut self, slot: u64) {
        if !self.is_leader() || slot >= self.window_end() {
            return;
        }
        let view = self.view;
        let entry = self.slots.get(slot).filter(|entry| !entry.pre_prepared);
        let entry =
            entry.filter(|entry| entry.committed.is_none_or(|it| Some(it) == entry.adopted));
        let Some(body) = entry.and_then(|entry| entry.body.clone()) else { return };
        let entry = self.slots.get_mut(slot).expect("found above");
        entry.pre_prepared = true;
        entry.note_pre_prepared(view, &body);
    }
}
