//! A pillar that comes back with what its replica's log tells.

use hybster_tss::{Counter, CounterValue, RequestVerifier, TrInX, Verifier};
use std::sync::Arc;

use super::Pillar;
use super::preferred_quorum::PreferredQuorum;
use super::slots::{Logged, StoredPrepare};
use crate::config::GroupConfig;
use crate::hybster::record::{self, PillarSummary};
use crate::hybster::recovery::RecoveredPillar;
use crate::ids::{PillarId, ReplicaId};
use crate::mutants::{self, Mutant};
use crate::output::Output;
use crate::time::Time;
use crate::trace::{Phase, TraceEvent};
use crate::wire::Requests;

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// The pillar as it was when the log ended.
    ///
    /// The counters of `trinx` are where the log says: then what is in the log is all that this
    /// pillar has certified, so nothing of it is certified again.
    ///
    /// # Panics
    /// If the TrInX instance is another pillar's, or its counter is elsewhere.
    pub(in crate::hybster) fn recover(
        config: Arc<GroupConfig>,
        id: ReplicaId,
        pillar: PillarId,
        trinx: T,
        verifier: V,
        recovered: &mut RecoveredPillar,
    ) -> Self {
        let mut it = Self::new(config, id, pillar, trinx, verifier);
        assert_eq!(
            it.counter(),
            recovered.counters[Counter::Ordering.index()],
            "the counter is where the log says"
        );
        it.view = recovered.view;
        it.active = recovered.active;
        it.slots.forward(recovered.base);
        it.checkpoints.stable(it.window_base());
        it.prepared = recovered.prepared;
        it.committed = recovered.committed;
        it.handed = recovered.handed;
        it.chain = std::mem::take(&mut recovered.chain);
        it.unlogged = std::mem::take(&mut recovered.unlogged);
        it.preferred = PreferredQuorum::new(it.config.next_to_leader(it.view));
        it.timing.recover(recovered.last_ms, recovered.inherited);
        for (slot, logged) in std::mem::take(&mut recovered.slots) {
            let (header, message) = (logged.header, logged.message);
            let digest = header.digest();
            it.note_prepared(Some(&header));
            it.store(
                slot,
                StoredPrepare { header, digest, message, late: false, logged: Logged::Proposal },
            );
            let entry = it.slots.get_mut(slot).expect("it was stored there");
            entry.own = logged.own;
        }
        let bodies = std::mem::take(&mut recovered.bodies).into_iter();
        it.bodies.recovered(bodies.map(|(digest, (slot, batch))| {
            let requests = Requests::new(&batch).count() as u32;
            (digest, requests, batch, slot)
        }));
        it
    }

    /// Peers may have seen what its log does not have (DEVIATIONS 32).
    pub(in crate::hybster) fn awaits_last_seen(&mut self) {
        if self.config.faults > 0 {
            self.seen.returns();
        }
    }

    /// Goes on where it was: what it may certify now, and, as a leader, where it proposes next.
    pub(in crate::hybster) fn resume(&mut self, now: Time, out: &mut Output) {
        self.now = now;
        for record in std::mem::take(&mut self.unlogged) {
            out.log(|| record);
        }
        self.tell_votes(out);
        self.announce(0, out);
        self.drive(out);
        self.advance(out);
        self.note_progress(now);
        self.tell_window(out);
        self.check_invariants(out);
    }

    /// Logs once more all that the log has of it, if that was asked for, and is little: in its view,
    /// with nothing under way that it would have to wait for.
    pub(super) fn summarize(&mut self, out: &mut Output) {
        let is_quiet = self.active && self.committed == self.handed && self.established.is_none();
        if !self.summary_due || !is_quiet || !self.chain.is_empty() {
            return;
        }
        self.summary_due = false;
        let summary = PillarSummary {
            pillar: self.pillar,
            view: self.view,
            base: self.slots.base(),
            prepared: self.prepared,
            committed: self.committed,
            last_ms: self.timing.last_ms(),
            inherited: self.timing.inherited,
            counters: match mutants::active(Mutant::SummaryUncounted) {
                true => [CounterValue::ZERO; Counter::ALL.len()],
                false => Counter::ALL.map(|counter| self.trinx.current(counter)),
            },
        };
        out.log(|| record::summary(&summary));
        for slot in self.slots.base()..self.slots.end() {
            let Some(entry) = self.slots.get(slot) else { continue };
            let Some(stored) = &entry.prepare else { continue };
            if stored.logged == Logged::Proposal || entry.own.is_some() || slot < self.committed {
                out.log(|| record::kept(&stored.message, entry.own.as_ref()));
            } else if stored.logged == Logged::Batch {
                out.log(|| record::body(self.pillar, slot, stored.batch()));
            }
        }
        // A message that is held names them, and a NEW-VIEW may.
        for (slot, batch) in self.bodies.logged() {
            out.log(|| record::body(self.pillar, slot, batch.clone()));
        }
        out.summarized = Some(self.window_base());
    }

    /// What it has vouched for, as part of the trace of its new start: a log may end within what the
    /// earlier one would have told together.
    fn tell_votes(&self, out: &mut Output) {
        let (pillar, view) = (self.pillar, self.view);
        for slot in self.slots.base()..self.slots.end() {
            let Some(entry) = self.slots.get(slot) else { continue };
            let Some(stored) = &entry.prepare else { continue };
            let proposal = (&stored.header).into();
            if self.config.leader(view) == self.id {
                out.trace(|| TraceEvent::Reissued { pillar, view, proposal });
            } else if entry.own.is_some() {
                let phase = Phase::Commit;
                out.trace(|| TraceEvent::Vouched { phase, pillar, view, proposal });
            }
        }
    }
}
