//! Proposing, preparing and committing (Castro 2.3.3, 3.2.2).

use bytes::{Bytes, BytesMut};
use hybster_tss::{Digest, RequestVerifier};

use super::Pillar;
use super::slots::Slot;
use crate::ids::{OrderNumber, Peers, ReplicaId};
use crate::mutants::{self, Mutant};
use crate::output::{Destination, Fatal, Output, Reject, SendTag, ToExecution};
use crate::pbft::wire::kind;
use crate::pbft::wire::ordering::{Body, NULL, PRE_PREPARE_HEAD, PrePrepare, Vote};
use crate::protocol::Threshold;
use crate::shared::proposals::Proposal;
use crate::shared::requests::{authentic_only, check_batch};
use crate::time::Time;
use crate::trace::{self, Phase, TraceEvent};
use crate::wire;

impl<V: RequestVerifier> Pillar<V> {
    // ------------------------------------------------------------------ the leader

    pub(super) fn batch(&mut self, buffer: BytesMut, requests: u32, out: &mut Output) {
        // What arrives after the view was left is dropped: its clients retransmit.
        if !self.is_leader() {
            return;
        }
        let mut taken = 0;
        let Self { verifier, config, .. } = &*self;
        match authentic_only(verifier, config, PRE_PREPARE_HEAD, buffer, requests, out) {
            Some((buffer, requests)) => self.proposals.push(buffer, requests),
            None => taken += 1,
        }
        taken += self.propose_ready(out);
        self.announce(taken, out);
    }

    /// Proposes what waits while the window has room. Returns the number of batches that left the queue.
    pub(super) fn propose_ready(&mut self, out: &mut Output) -> u32 {
        let mut taken = 0;
        while self.is_leader() && self.proposed < self.window_end() && out.fatal.is_none() {
            match self.proposals.next(self.proposed) {
                Some(Proposal::Batch(buffer, requests)) => {
                    taken += 1;
                    self.propose_batch(buffer, requests, out);
                }
                Some(Proposal::NoOp(through)) => self.propose_noop(through, out),
                None => break,
            }
        }
        taken
    }

    fn propose_batch(&mut self, mut buffer: BytesMut, requests: u32, out: &mut Output) {
        let (slot, order) = (self.proposed, self.order_at(self.proposed));
        self.last_ms = self.last_ms.max(self.clock.unix_ms(self.now));
        let place = (self.pillar, self.view, order);
        PrePrepare::write_head(&mut buffer, place, requests, self.last_ms);
        let message = buffer.freeze();
        // Its own: the digest was just made.
        match PrePrepare::parse(&message, false) {
            Ok(own) => self.propose(slot, slot, &own.body, message, out),
            Err(error) => out.fail(Fatal::Invariant(format!("own proposal for {order}: {error}"))),
        }
    }

    /// Covers the slots up to `through`, at most to the end of window and checkpoint interval.
    fn propose_noop(&mut self, through: u64, out: &mut Output) {
        let (slot, interval) = (self.proposed, self.config.interval_slots());
        let interval_end = (slot / interval + 1) * interval;
        let last = through.min(self.window_end() - 1).min(interval_end - 1);
        let proposal = PrePrepare {
            pillar: self.pillar,
            view: self.view,
            first: self.order_at(slot),
            last: self.order_at(last),
            body: Body::null(),
        };
        self.propose(slot, last, &proposal.body, proposal.encode(), out);
    }

    fn propose(&mut self, first: u64, last: u64, body: &Body, message: Bytes, out: &mut Output) {
        assert!(first <= last && last < self.window_end(), "proposals lie in the window");
        let tag = SendTag::Ordering(self.view, self.order_at(last));
        out.send_new(Destination::AllPeers, message, tag);
        for slot in first..=last {
            let (pillar, view, proposal) = (self.pillar, self.view, self.traced(slot, body.digest));
            out.trace(|| TraceEvent::Proposed { pillar, view, proposal });
            let entry = self.slots.get_mut(slot).expect("inside the window");
            assert!(entry.body.is_none(), "an order number is used once in a view");
            entry.body = Some(body.clone());
            entry.pre_prepared = true;
            entry.note_pre_prepared(view, body);
        }
        self.proposed = last + 1;
        for slot in first..=last {
            self.consider(slot, out);
        }
        self.advance(out);
    }

    /// A proposal in the terms of a trace: the digest covers its time.
    pub(super) fn traced(&self, slot: u64, digest: Digest) -> trace::Proposal {
        let order = self.order_at(slot);
        trace::Proposal {
            first: order,
            last: order,
            batch: digest,
            time_ms: 0,
            noop: digest == NULL,
        }
    }

    // ------------------------------------------------------------------ backups

    /// Checks that the covered slots are this pillar's and lie in one checkpoint interval; returns the
    /// first and the last.
    pub(super) fn check_slots(
        &self,
        first: OrderNumber,
        last: OrderNumber,
    ) -> Result<(u64, u64), Reject> {
        if self.config.pillar_of(first) != self.pillar || self.config.pillar_of(last) != self.pillar
        {
            return Err(Reject::Malformed);
        }
        let (first, last) = (self.config.slot_of(first), self.config.slot_of(last));
        let interval = self.config.interval_slots();
        // So that no window base falls into one, and no message speaks of too many slots.
        if first / interval != last / interval {
            return Err(Reject::Malformed);
        }
        Ok((first, last))
    }

    /// A PRE-PREPARE, which only the leader of the view may send: the link says who it is from.
    pub(super) fn pre_prepare(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let (pillar, view, first, last) = PrePrepare::parse_head(message)?;
        let longest = self.config.batch_max_bytes.max(self.config.max_operation_bytes) as usize;
        if pillar != self.pillar {
            return Err(Reject::Malformed);
        }
        if message.len() > PRE_PREPARE_HEAD + wire::REQUEST_OVERHEAD_MAX + longest {
            return Err(Reject::BadBatch);
        }
        if from != self.config.leader(view) {
            return Err(Reject::WrongSender);
        }
        if view > self.view {
            return self.keep_for_later(from, view, message, now, out);
        }
        if view < self.view || !self.active {
            return Err(Reject::WrongView);
        }
        let (first, last) = self.check_slots(first, last)?;
        if first < self.slots.base() {
            return Err(Reject::OutOfWindow);
        }
        if last >= self.slots.end() {
            self.hint_stuck(now, out);
            return Err(Reject::OutOfWindow);
        }
        let is_known = |slot: &Slot| slot.adopted.is_some() || slot.body.is_some();
        if self.slots.get(first).is_some_and(is_known) && first == last {
            // The leader repeats itself: it lacks what this replica said.
            self.repeat(first, Destination::Peer(from), out);
            return Err(Reject::Irrelevant);
        }
        let checks = !mutants::active(Mutant::BatchDigest);
        let PrePrepare { body, .. } = PrePrepare::parse(message, checks)?;
        let mut late = false;
        if !body.is_null() {
            check_batch(&self.verifier, &self.config, body.records(), body.requests)?;
            late = self.is_late(body.time_ms, message.len());
        }
        for slot in first..=last {
            let entry = self.slots.get_mut(slot).expect("inside the log");
            // The first proposal counts: a leader that makes another one is not heard.
            if is_known(entry) {
                continue;
            }
            (entry.body, entry.late) = (Some(body.clone()), late);
        }
        self.proposed = self.proposed.max(last + 1);
        for slot in first..=last {
            self.consider(slot, out);
        }
        self.advance(out);
        Ok(())
    }

    /// A PREPARE, COMMIT or COMMITTED: the word of its sender, and nobody else's.
    pub(super) fn vote(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let vote = Vote::parse(message)?;
        if vote.pillar != self.pillar {
            return Err(Reject::Malformed);
        }
        let claims = vote.kind == kind::COMMITTED;
        if !claims && vote.view > self.view {
            return self.keep_for_later(from, vote.view, message, now, out);
        }
        if !claims && vote.view < self.view {
            return Err(Reject::WrongView);
        }
        // The leader's PRE-PREPARE stands for its PREPARE.
        if vote.kind == kind::PREPARE && from == self.config.leader(vote.view) {
            return Err(Reject::WrongSender);
        }
        let (first, last) = self.check_slots(vote.first, vote.last)?;
        if last < self.committed && (claims || last < self.slots.base()) {
            return Ok(());
        }
        if last >= self.slots.end() {
            self.hint_stuck(now, out);
            return Err(Reject::OutOfWindow);
        }
        for slot in first.max(self.slots.base())..=last {
            let entry = self.slots.get_mut(slot).expect("inside the log");
            let all = match vote.kind {
                kind::PREPARE => &mut entry.prepares,
                kind::COMMIT => &mut entry.commits,
                _ => &mut entry.claims,
            };
            // The first word of a replica counts.
            if all.iter().any(|(replica, _)| *replica == from) {
                continue;
            }
            all.push((from, vote.digest));
            self.consider(slot, out);
        }
        self.advance(out);
        Ok(())
    }

    /// Does for a slot what it is ready for.
    pub(super) fn consider(&mut self, slot: u64, out: &mut Output) {
        self.try_pre_prepare(slot, out);
        self.try_prepare(slot, out);
        self.try_commit(slot, out);
    }

    /// Sends the PREPARE for what is proposed, unless it contradicts what is known to be committed or its
    /// time is not right.
    fn try_pre_prepare(&mut self, slot: u64, out: &mut Output) {
        let window_end = self.window_end();
        let may = self.active && !self.is_leader() && slot < window_end;
        let Some(entry) = self.slots.get(slot).filter(|entry| may && !entry.pre_prepared) else {
            return;
        };
        let Some(body) = entry.body.clone() else { return };
        if entry.committed.is_some_and(|committed| committed != body.digest) {
            return;
        }
        if entry.adopted.is_none() && !self.is_timely(slot, &body) {
            return;
        }
        let (id, view, pillar) = (self.id, self.view, self.pillar);
        let proposal = self.traced(slot, body.digest);
        out.trace(|| TraceEvent::Vouched { phase: Phase::Prepare, pillar, view, proposal });
        let entry = self.slots.get_mut(slot).expect("found above");
        entry.pre_prepared = true;
        if !mutants::active(Mutant::PbftPrePreparedForgotten) {
            entry.note_pre_prepared(view, &body);
        }
        entry.prepares.push((id, body.digest));
        self.unsent.push((kind::PREPARE, slot, body.digest));
    }

    /// Whether the time of a proposal may be right. What f others have sent PREPAREs for is, as one of
    /// them or the leader is correct.
    fn is_timely(&mut self, slot: u64, body: &Body) -> bool {
        if body.is_null() || mutants::active(Mutant::ClockUnchecked) {
            return true;
        }
        let entry = self.slots.get(slot).expect("inside the log");
        let others = Slot::naming(&entry.prepares, &body.digest).len();
        if others >= usize::from(self.config.faults) && self.config.faults > 0 {
            return true;
        }
        let until_ms = body.time_ms.saturating_sub(self.config.max_clock_skew_ms);
        let is_early = self.clock.unix_ms(self.now) < until_ms;
        if is_early && !entry.late {
            let earliest = self.early_until_ms.map_or(until_ms, |known| known.min(until_ms));
            self.early_until_ms = Some(earliest);
        }
        !is_early && !entry.late
    }

    /// Whether a proposal came too late for its time. To be asked once for each that is stored.
    fn is_late(&mut self, time_ms: u64, bytes: usize) -> bool {
        let now_ms = self.clock.unix_ms(self.now);
        let since_ms = self.arrivals.sent_since_ms(&self.config, now_ms, bytes);
        let spare_ms = self.commit_timeout.delay_us() / 1000 + self.clock.late_ms();
        time_ms.saturating_add(self.config.max_clock_skew_ms + spare_ms) < since_ms
    }

    /// A prepared certificate: what is pre-prepared here, and 2f PREPAREs of backups (Castro 2.3.3).
    fn try_prepare(&mut self, slot: u64, out: &mut Output) {
        let needed = self.quorum() - 1;
        let leader = self.config.leader(self.view);
        let (id, view, pillar, active) = (self.id, self.view, self.pillar, self.active);
        let Some(entry) = self.slots.get(slot) else { return };
        let Some(body) = entry.body.clone().filter(|_| active && !entry.prepared) else { return };
        let backups = Slot::naming(&entry.prepares, &body.digest);
        let enough = backups.len() >= needed
            || (mutants::active(Mutant::PbftPreparedUnvoted) && entry.pre_prepared);
        if !entry.pre_prepared || !enough {
            return;
        }
        let voters: Peers = backups.iter().chain([leader]).collect();
        let proposal = self.traced(slot, body.digest);
        out.trace(|| TraceEvent::Certified {
            phase: Phase::Prepare,
            pillar,
            view,
            proposal,
            voters,
        });
        out.trace(|| TraceEvent::Vouched { phase: Phase::Commit, pillar, view, proposal });
        let entry = self.slots.get_mut(slot).expect("found above");
        entry.prepared = true;
        if !mutants::active(Mutant::PbftPreparedForgotten) {
            entry.p = Some((view, body.clone()));
        }
        entry.commits.push((id, body.digest));
        self.unsent.push((kind::COMMIT, slot, body.digest));
    }

    /// A committed certificate: 2f+1 COMMITs of one view, or f+1 replicas that have one.
    fn try_commit(&mut self, slot: u64, out: &mut Output) {
        let quorum = self.quorum();
        let weak =
            if mutants::active(Mutant::PbftClaimOfOne) { 1 } else { self.config.acknowledging() };
        let (view, pillar) = (self.view, self.pillar);
        let Some(entry) = self.slots.get(slot).filter(|entry| entry.committed.is_none()) else {
            return;
        };
        let by_commits = Slot::named_by(&entry.commits, quorum);
        let Some(digest) = by_commits.or_else(|| Slot::named_by(&entry.claims, weak)) else {
            return;
        };
        if by_commits.is_some() {
            let voters = Slot::naming(&entry.commits, &digest);
            let proposal = self.traced(slot, digest);
            out.trace(|| TraceEvent::Certified {
                phase: Phase::Commit,
                pillar,
                view,
                proposal,
                voters,
            });
        }
        self.committed_is(slot, digest);
    }

    /// What is committed at a slot is known. Its body may be missing.
    fn committed_is(&mut self, slot: u64, digest: Digest) {
        let entry = self.slots.get_mut(slot).expect("inside the log");
        entry.committed = Some(digest);
        let body = if digest == NULL { Some(Body::null()) } else { entry.find(&digest).cloned() };
        entry.committed_body = body;
        if entry.committed_body.is_none() {
            self.missing.insert((slot, digest));
        }
    }

    /// Replicas that agree on a proposal.
    fn quorum(&self) -> usize {
        if mutants::active(Mutant::PbftMajority) {
            return self.config.threshold(Threshold::Majority);
        }
        self.config.quorum()
    }

    /// Hands what is committed to the execution stage, in slot order.
    pub(super) fn advance(&mut self, out: &mut Output) {
        let before = self.committed;
        let mut nulls: Option<(u64, u64)> = None;
        while self.committed < self.window_end() {
            let entry = self.slots.get(self.committed);
            let Some(body) = entry.and_then(|entry| entry.committed_body.as_ref()) else { break };
            let slot = self.committed;
            if slot >= self.handed {
                if body.is_null() {
                    nulls = Some((nulls.map_or(slot, |(first, _)| first), slot));
                } else {
                    let batch = body.agreed();
                    self.hand_over(nulls.take(), out);
                    self.hand_over_one((slot, slot), batch, out);
                }
                self.handed = slot + 1;
            }
            self.committed += 1;
        }
        self.hand_over(nulls, out);
        if self.committed > before {
            self.progressed();
        }
    }

    fn hand_over(&self, nulls: Option<(u64, u64)>, out: &mut Output) {
        // As elsewhere, a no-op does not cross a checkpoint.
        let interval = self.config.interval_slots();
        let Some((mut first, last)) = nulls else { return };
        while first <= last {
            let end = ((first / interval + 1) * interval - 1).min(last);
            self.hand_over_one((first, end), Body::null().agreed(), out);
            first = end + 1;
        }
    }

    fn hand_over_one(
        &self,
        (first_slot, last_slot): (u64, u64),
        batch: crate::output::Agreed,
        out: &mut Output,
    ) {
        let pillar = self.pillar;
        out.execution(ToExecution::Committed { pillar, first_slot, last_slot, batch });
    }
}
