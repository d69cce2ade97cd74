//! Proposing, acknowledging and committing (TR listing 16).

use bytes::{Bytes, BytesMut};
use hybster_tss::{Counter, CounterValue, Digest, Proof, RequestVerifier, TrInX, Verifier};

use super::Pillar;
use super::slots::{Logged, StoredPrepare, Vote};
use crate::hybster::input::PillarInput;
use crate::hybster::record;
use crate::hybster::verify::verify_prepare;
use crate::hybster::wire::last_seen::LastSeen;
use crate::hybster::wire::ordering::{Commit, PREPARE_HEAD, PrepareHeader};
use crate::ids::{PillarId, ReplicaId};
use crate::mutants::{self, Mutant};
use crate::output::{Destination, Fatal, Output, Reject, SendTag, ToExecution};
use crate::shared::proposals::Proposal;
use crate::shared::requests::{authentic_only, check_batch};
use crate::time::Time;
use crate::trace::{Phase, TraceEvent};
use crate::wire;

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    // ------------------------------------------------------------------ the leader

    pub(super) fn batch(&mut self, buffer: BytesMut, requests: u32, out: &mut Output) {
        // What arrives after the view was left is dropped: its clients retransmit.
        if !self.is_leader() {
            return;
        }
        let mut taken = 0;
        let Self { verifier, config, .. } = &*self;
        match authentic_only(verifier, config, PREPARE_HEAD, buffer, requests, out) {
            Some((buffer, requests)) => self.proposals.push(buffer, requests),
            None => taken += 1,
        }
        taken += self.propose_ready(out);
        self.announce(taken, out);
    }

    /// Checks that a batch consists of exactly `count` authentic requests within the limits.
    pub(super) fn check_requests(&self, body: &[u8], count: u32) -> Result<(), Reject> {
        check_batch(&self.verifier, &self.config, body, count)
    }

    /// TR listing 16, proposalReady. Returns the number of batches that left the queue.
    pub(super) fn propose_ready(&mut self, out: &mut Output) -> u32 {
        let mut taken = 0;
        while self.is_leader()
            && self.may_take_part()
            && self.prepared < self.window_end()
            && out.fatal.is_none()
        {
            match self.proposals.next(self.prepared) {
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
        let order = self.order_at(self.prepared);
        let mut header = PrepareHeader {
            pillar: self.pillar,
            noop: false,
            requests,
            view: self.view,
            first: order,
            last: order,
            time_ms: self.timing.propose(self.now),
            batch: wire::digest(&buffer[PREPARE_HEAD..]),
            previous: CounterValue::ZERO,
            proof: Proof([0; 32]),
        };
        let digest = header.digest();
        let certificate =
            self.trinx.certify_independent(Counter::Ordering, header.value(), &digest);
        let Some(certificate) = Self::granted(certificate, out) else {
            return;
        };
        header.proof = certificate.proof;
        buffer[..PREPARE_HEAD].copy_from_slice(&header.encode());
        let message = buffer.freeze();
        let stored =
            StoredPrepare { header, digest, message, late: false, logged: Logged::Nothing };
        self.send_prepare(stored, out);
    }

    /// Covers the slots up to `through`, at most to the end of window and checkpoint interval.
    ///
    /// The certificate is continuing, see [`PrepareHeader`].
    fn propose_noop(&mut self, through: u64, out: &mut Output) {
        let interval = self.config.interval_slots();
        let interval_end = (self.prepared / interval + 1) * interval;
        let last = through.min(self.window_end() - 1).min(interval_end - 1);
        let header = PrepareHeader {
            pillar: self.pillar,
            noop: true,
            requests: 0,
            view: self.view,
            first: self.order_at(self.prepared),
            last: self.order_at(last),
            time_ms: 0,
            batch: wire::digest(&[]),
            previous: CounterValue::ZERO,
            proof: Proof([0; 32]),
        };
        if let Some(stored) = self.certify_noop(header, out) {
            self.send_prepare(stored, out);
        }
    }

    pub(super) fn certify_noop(
        &mut self,
        mut header: PrepareHeader,
        out: &mut Output,
    ) -> Option<StoredPrepare> {
        let digest = header.digest();
        let certificate = self.trinx.certify_continuing(Counter::Ordering, header.value(), &digest);
        let certificate = Self::granted(certificate, out)?;
        header.previous = certificate.previous;
        header.proof = certificate.proof;
        let message = Bytes::copy_from_slice(&header.encode());
        Some(StoredPrepare { header, digest, message, late: false, logged: Logged::Nothing })
    }

    fn send_prepare(&mut self, mut stored: StoredPrepare, out: &mut Output) {
        let header = stored.header;
        out.log(|| record::prepare(&stored.message, None));
        stored.logged = Logged::Proposal;
        out.trace(|| TraceEvent::Proposed {
            pillar: header.pillar,
            view: header.view,
            proposal: (&header).into(),
        });
        let (slot, last) = (self.prepared, self.last_slot(&header));
        assert!(slot <= last && last < self.window_end(), "proposals lie in the window");
        let ends_interval = (last + 1).is_multiple_of(self.config.interval_slots());
        let to = self.preferred.destination(slot, slot == self.committed, ends_interval, self.now);
        let tag = SendTag::Ordering(header.view, header.last);
        out.send_new(to, stored.message.clone(), tag);
        let is_free = self.slots.prepare(self.prepared).is_none();
        assert!(is_free, "an order number is used once in a view");
        self.store(self.prepared, stored);
        self.prepared = last + 1;
        self.commit_ready(out);
    }

    // ------------------------------------------------------------------ followers

    /// TR listing 16, receive(PREPARE). The certificate is transferable, so any peer may relay it.
    pub(super) fn prepare(
        &mut self,
        from: ReplicaId,
        message: Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let header = PrepareHeader::parse(&message)?;
        let longest = self.config.batch_max_bytes.max(self.config.max_operation_bytes) as usize;
        if message.len() > PREPARE_HEAD + wire::REQUEST_OVERHEAD_MAX + longest {
            return Err(Reject::BadBatch);
        }
        if header.view > self.view {
            return self.keep_for_later(from, header.view, &message, now, out);
        }
        if header.view < self.view {
            return Err(Reject::WrongView);
        }
        let leader = self.config.leader(self.view);
        if leader == self.id {
            // Peers relay this replica's own PREPAREs in answer to an ORDER-REQUEST.
            return Err(Reject::Irrelevant);
        }
        let first = self.check_slots(&header)?;
        if first < self.slots.base() {
            return Err(Reject::OutOfWindow);
        }
        if self.last_slot(&header) >= self.slots.end() {
            self.hint_stuck(now, out);
            return Err(Reject::OutOfWindow);
        }
        let slot = self.slots.get(first).expect("inside the log");
        if slot.prepare.is_some() {
            // The leader repeats itself: it lacks our COMMIT.
            if let Some(own) = slot.own.filter(|_| from == leader) {
                let tag = SendTag::Ordering(own.view, own.last);
                out.send(Destination::Peer(from), own.encode(), tag);
            }
            return Err(Reject::Irrelevant);
        }
        let digest = self.check_header(&header)?;
        let body = &message[PREPARE_HEAD..];
        if wire::digest(body) != header.batch && !mutants::active(Mutant::BatchDigest) {
            return Err(Reject::BadBatch);
        }
        if header.noop {
            if !body.is_empty() {
                return Err(Reject::BadBatch);
            }
        } else {
            self.check_requests(body, header.requests)?;
        }
        if from == leader {
            self.seen.note(from, LastSeen::Prepare(header));
        }
        let late = self.is_late(&header, message.len());
        self.store(first, StoredPrepare { header, digest, message, late, logged: Logged::Nothing });
        self.advance(out);
        Ok(())
    }

    /// Checks that the covered slots are this pillar's and lie in one checkpoint interval;
    /// returns the first.
    pub(super) fn check_slots(&self, header: &PrepareHeader) -> Result<u64, Reject> {
        if header.pillar != self.pillar
            || self.config.pillar_of(header.first) != self.pillar
            || self.config.pillar_of(header.last) != self.pillar
        {
            return Err(Reject::Malformed);
        }
        let (first, last) = (self.config.slot_of(header.first), self.config.slot_of(header.last));
        let interval = self.config.interval_slots();
        // A no-op never crosses a checkpoint, so that no window base falls into one.
        if first / interval != last / interval {
            return Err(Reject::Malformed);
        }
        Ok(first)
    }

    /// Checks the certificate of a PREPARE of its view's leader; returns the header's digest.
    fn check_header(&self, header: &PrepareHeader) -> Result<Digest, Reject> {
        let digest = header.digest();
        let valid = verify_prepare(&self.verifier, &self.config, header, &digest);
        if valid { Ok(digest) } else { Err(Reject::BadCertificate) }
    }

    /// TR listing 16, nextPrepared: acknowledge in slot order; then commit what can be.
    pub(super) fn advance(&mut self, out: &mut Output) {
        let refused = self.timing.refused.take();
        while self.active
            && !self.is_leader()
            && self.may_take_part()
            && self.prepared < self.window_end()
            && out.fatal.is_none()
        {
            let Some(slot) = self.slots.get(self.prepared) else {
                break;
            };
            let Some(stored) = &slot.prepare else { break };
            let (header, prepare) = (stored.header, stored.digest);
            if self.last_slot(&header) >= self.window_end() {
                break;
            }
            self.timing.refused = self.refusal(slot, stored);
            if let Some(now) = self.timing.refused {
                if refused.is_none_or(|before| before.slot != now.slot) {
                    let leader = self.config.leader(self.view);
                    out.reject(Some(leader), &[wire::kind::PREPARE], Reject::Untimely);
                }
                break;
            }
            self.timing.passed(&header);
            self.send_commit(&header, prepare, out);
        }
        self.commit_ready(out);
    }

    fn send_commit(&mut self, header: &PrepareHeader, prepare: Digest, out: &mut Output) {
        let mut own = Commit {
            pillar: self.pillar,
            sender: self.id,
            view: self.view,
            first: header.first,
            last: header.last,
            prepare,
            proof: Proof([0; 32]),
        };
        assert!(self.last_slot(header) < self.window_end(), "acknowledgements lie in the window");
        let value = CounterValue::new(own.view.0, own.last.0);
        let certificate = self.trinx.certify_independent(Counter::Ordering, value, &own.digest());
        let Some(certificate) = Self::granted(certificate, out) else {
            return;
        };
        own.proof = certificate.proof;
        out.trace(|| TraceEvent::Vouched {
            phase: Phase::Commit,
            pillar: own.pillar,
            view: own.view,
            proposal: header.into(),
        });
        out.send_new(Destination::AllPeers, own.encode(), SendTag::Ordering(own.view, own.last));
        let slot = self.slots.get_mut(self.prepared).expect("inside the window");
        slot.own = Some(own);
        let stored = slot.prepare.as_mut().expect("what is acknowledged is stored");
        if !mutants::active(Mutant::VotesUnlogged) {
            out.log(|| match stored.logged {
                Logged::Proposal => record::commit(&own),
                _ => record::prepare(&stored.message, Some(&own)),
            });
            stored.logged = Logged::Proposal;
        }
        self.prepared = self.config.slot_of(own.last) + 1;
    }

    /// TR listing 16, receive(COMMIT). The certificate is transferable, so any peer may relay it:
    /// a replica that lacks COMMITs of crashed peers gets them from those that hold them.
    pub(super) fn commit(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let commit = Commit::parse(message)?;
        if commit.sender == self.id || commit.sender.0 >= self.config.replicas {
            return Err(Reject::WrongSender);
        }
        if from == commit.sender && commit.pillar == self.pillar {
            self.seen.note(from, LastSeen::Commit(commit));
        }
        if commit.view > self.view {
            return self.keep_for_later(from, commit.view, message, now, out);
        }
        if commit.view < self.view {
            return Err(Reject::WrongView);
        }
        // TR listing 16, isCorrectCommit: the leader acknowledges by its PREPARE.
        if commit.sender == self.config.leader(commit.view) {
            return Err(Reject::WrongSender);
        }
        if commit.pillar != self.pillar || self.config.pillar_of(commit.first) != self.pillar {
            return Err(Reject::Malformed);
        }
        let first = self.config.slot_of(commit.first);
        if first < self.committed {
            // The usual case for a COMMIT beyond the quorum.
            return Ok(());
        }
        if first >= self.slots.end() {
            self.hint_stuck(now, out);
            return Err(Reject::OutOfWindow);
        }
        let slot = self.slots.get(first).expect("inside the log");
        let known = slot.votes.iter().any(|v| v.replica == commit.sender);
        if known && !mutants::active(Mutant::CommitTwice) {
            return Err(Reject::Irrelevant);
        }
        let certificate = commit.certificate(self.instance_of(commit.sender));
        let valid = self.verifier.verify_independent(&certificate, &commit.digest());
        if !valid && !mutants::active(Mutant::CommitUnverified) {
            return Err(Reject::BadCertificate);
        }
        let vote = Vote {
            replica: commit.sender,
            prepare: commit.prepare,
            last: commit.last,
            proof: commit.proof,
        };
        self.slots.get_mut(first).expect("inside the log").votes.push(vote);
        if self.timing.refused.is_some() {
            // With f other acknowledgements a refused time is accepted (`timing.rs`).
            self.advance(out);
        } else {
            self.commit_ready(out);
        }
        Ok(())
    }

    /// TR listing 16, nextCommitted: q matching certificates, the PREPARE included.
    ///
    /// A replica that has left the view without having entered another certifies nothing in it,
    /// but what the others commit there is committed: it goes on executing.
    pub(super) fn commit_ready(&mut self, out: &mut Output) {
        let needed = self.config.quorum() - usize::from(mutants::active(Mutant::CommitQuorum));
        while self.committed < self.window_end() {
            let Some(slot) = self.slots.get(self.committed) else {
                break;
            };
            let Some(stored) = &slot.prepare else { break };
            let votes = slot.votes.iter().filter(|v| v.acknowledges(stored)).count();
            if 1 + votes + usize::from(slot.own.is_some()) < needed {
                break;
            }
            let header = stored.header;
            let last = self.last_slot(&header);
            if stored.logged < Logged::Proposal {
                out.log(|| record::prepare(&stored.message, None));
            }
            out.log(|| record::committed(self.pillar, header.view, last));
            if self.is_leader() {
                let by = slot.votes.iter().filter(|v| v.acknowledges(stored)).map(|v| v.replica);
                let by = by.take(needed - 1).collect();
                let faster = self.preferred.committed(self.committed, by, self.now);
                if let (Some(first), PillarId(0)) = (faster, self.pillar) {
                    for pillar in self.config.all_pillars() {
                        out.pillar(pillar, PillarInput::AskFirst { view: self.view, first });
                    }
                }
            }
            if self.committed >= self.handed {
                out.execution(ToExecution::Committed {
                    pillar: self.pillar,
                    first_slot: self.committed,
                    last_slot: last,
                    batch: stored.agreed(),
                });
                self.handed = last + 1;
            } else if last >= self.handed {
                // A later view must commit the same batch again, or agreement is lost.
                let text = format!("{} was executed as another batch", header.last);
                out.fail(Fatal::Invariant(text));
                break;
            }
            out.trace(|| TraceEvent::Certified {
                phase: Phase::Commit,
                pillar: header.pillar,
                view: header.view,
                proposal: (&header).into(),
                voters: slot.voters(stored, self.config.leader(header.view), self.id),
            });
            self.timing.passed(&header);
            self.committed = last + 1;
            // TR listing 16, markCommitted.
            self.prepared = self.prepared.max(self.committed);
            self.progressed();
        }
    }
}
