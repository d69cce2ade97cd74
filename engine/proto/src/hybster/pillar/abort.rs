//! Leaving and entering views (TR listing 16: createAbortState, abortView, createViewTransition,
//! enterView), and holding the batches that prepared sets name.

use bytes::Bytes;
use hybster_tss::{Counter, CounterValue, Digest, Proof, RequestVerifier, TrInX, Verifier};
use std::collections::HashMap;

use super::Pillar;
use super::preferred_quorum::PreferredQuorum;
use super::slots::{Logged, StoredPrepare};
use crate::hybster::events;
use crate::hybster::input::ControlInput;
use crate::hybster::record;
use crate::hybster::wire::checkpoint::CheckpointCertificate;
use crate::hybster::wire::ordering::{PREPARE_HEAD, PrepareHeader};
use crate::hybster::wire::view::{Link, Part, PartScope};
use crate::ids::{ReplicaId, View};
use crate::mutants::{self, Mutant};
use crate::output::{Answerer, Destination, Fatal, Output, Reject, SendTag};
use crate::shared::bodies::{BATCHES_PER_REQUEST, Held, Named};
use crate::time::Time;
use crate::trace::{Proposal, TraceEvent};
use crate::wire::help::{BATCH_HEAD, encode_batch, parse_batch_request};
use crate::wire::{self, Requests};

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// TR listing 16, createAbortState and abortView.
    ///
    /// After this, the counter is at `to|0`: nothing can be certified in earlier views, and
    /// the certificate discloses how far this replica took part.
    pub(super) fn abort(
        &mut self,
        from: View,
        to: View,
        checkpoint: &CheckpointCertificate,
        out: &mut Output,
    ) {
        assert_eq!(from, self.view, "a replica leaves the view that it is in");
        let may_leave = self.may_take_part() || mutants::active(Mutant::LeavesUntold);
        assert!(may_leave, "a replica that comes back is told before it leaves a view");
        self.forward_window(checkpoint.id.order, out);
        self.active = false;
        self.proposals.clear();
        self.established = None;
        // Slots that were certified, committed or inherited; no proposal that was refused.
        let end = self.prepared.max(self.timing.inherited).min(self.window_end());
        let prepared: Vec<PrepareHeader> = self
            .slots
            .contiguous(self.slots.base(), end, self.view, |h| self.last_slot(h))
            .map(|stored| stored.header)
            .collect();
        let scope = PartScope { sender: self.id, from, to, checkpoint };
        let digest = scope.digest(self.pillar, &self.chain, &prepared);
        let value = CounterValue::new(to.0, 0);
        let certificate = self.trinx.certify_continuing(Counter::Ordering, value, &digest);
        let Some(certificate) = Self::granted(certificate, out) else {
            return;
        };
        assert!(self.chain.last().is_none_or(|last| last.to < to), "views that were left rise");
        self.chain.push(Link {
            to,
            previous: certificate.previous,
            digest,
            proof: certificate.proof,
        });
        let part = Part { chain: self.chain.clone(), prepared };
        out.trace(|| events::part_left(self.pillar, (from, to), checkpoint.id.order, &part));
        out.control(ControlInput::Part { pillar: self.pillar, to, part });
    }

    /// TR listing 16, createViewTransition: certifies what the abort states demand again, in a
    /// view that this replica is to lead.
    pub(super) fn establish(&mut self, view: View, prepared: &[PrepareHeader], out: &mut Output) {
        assert!(self.may_take_part(), "a replica that comes back is told before it leads a view");
        self.active = false;
        // TR listing 16, abortView(v'): a leader that was not on its way to the view jumps.
        if self.counter() < CounterValue::new(view.0, 0) {
            let forwarded = self.trinx.forward(Counter::Ordering, CounterValue::new(view.0, 0));
            if Self::granted(forwarded, out).is_none() {
                return;
            }
        }
        let bodies = self.known_bodies();
        let mut established = Vec::with_capacity(prepared.len());
        for old in prepared {
            let header =
                PrepareHeader { view, previous: CounterValue::ZERO, proof: Proof([0; 32]), ..*old };
            let stored = if old.noop {
                self.certify_noop(header, out)
            } else {
                let Some(batch) = bodies.get(&old.batch) else {
                    out.fail(Fatal::Invariant(format!("no batch for {} in {view}", old.first)));
                    return;
                };
                self.certify_batch(header, batch, out)
            };
            let Some(stored) = stored else { return };
            let (pillar, proposal) = (self.pillar, Proposal::from(&stored.header));
            out.trace(|| TraceEvent::Reissued { pillar, view, proposal });
            established.push(stored);
        }
        let prepares = established.iter().map(|stored| stored.header).collect();
        self.established = Some((view, established));
        out.control(ControlInput::Established { pillar: self.pillar, view, prepares });
    }

    fn certify_batch(
        &mut self,
        mut header: PrepareHeader,
        batch: &[u8],
        out: &mut Output,
    ) -> Option<StoredPrepare> {
        let digest = header.digest();
        let certificate =
            self.trinx.certify_independent(Counter::Ordering, header.value(), &digest);
        header.proof = Self::granted(certificate, out)?.proof;
        Some(stored(header, digest, batch))
    }

    pub(super) fn certify_new_view(&mut self, view: View, digest: &Digest, out: &mut Output) {
        let value = CounterValue::new(view.0, 0);
        let certificate = self.trinx.certify_independent(Counter::NewView, value, digest);
        if let Some(certificate) = Self::granted(certificate, out) {
            out.control(ControlInput::NewViewCertified { view, proof: certificate.proof });
        }
    }

    pub(super) fn certify_ack(&mut self, view: View, digest: &Digest, out: &mut Output) {
        if let Some(mac) = Self::granted(self.trinx.certify_mac(digest), out) {
            out.control(ControlInput::AckCertified { view, proof: mac.proof });
        }
    }

    /// TR listing 16, enterView.
    ///
    /// What was handed to the execution stage is not handed over again: the new view agrees on the same.
    pub(super) fn enter(
        &mut self,
        view: View,
        current: View,
        prepares: &[PrepareHeader],
        now: Time,
        out: &mut Output,
    ) {
        assert!(view > self.view && current >= view, "views rise");
        let mut entered = match self.established.take() {
            Some((established, own)) if established == view => own,
            _ => match self.with_bodies(prepares, out) {
                Some(entered) => entered,
                None => return,
            },
        };
        // TR listing 16, abortView(v'): entered without having left for it.
        let start = CounterValue::new(view.0, 0);
        if self.counter() < start {
            let forwarded = self.trinx.forward(Counter::Ordering, start);
            if Self::granted(forwarded, out).is_none() {
                return;
            }
        }
        // The chain of later VIEW-CHANGEs starts at the step that reaches beyond this view.
        self.chain.retain(|link| link.to > view);
        out.log(|| record::entered(self.pillar, view, current));
        self.note_prepared(prepares.last());
        self.view = view;
        self.active = current == view;
        self.proposals.clear();
        self.preferred = PreferredQuorum::new(self.config.next_to_leader(view));
        self.keep_bodies();
        let base = self.slots.base();
        self.prepared = base;
        self.committed = base;
        let inherited = prepares.last().map_or(base, |header| self.last_slot(header) + 1);
        self.timing.enter(prepares, inherited);
        entered.retain(|stored| self.config.slot_of(stored.header.first) >= base);
        for mut stored in entered {
            stored.logged = Logged::Proposal;
            let (first, last) =
                (self.config.slot_of(stored.header.first), self.last_slot(&stored.header));
            if self.is_leader() {
                self.prepared = last + 1;
            }
            self.store(first, stored);
        }
        self.progressed();
        self.announce(0, out);
        self.drive(out);
        self.advance(out);
        self.replay_later(now, out);
    }

    /// Empties the log, but for the batches that messages of later views name.
    fn keep_bodies(&mut self) {
        let config = &self.config;
        let all = self.slots.drain().into_iter().map(|stored| {
            let PrepareHeader { batch, requests, first, .. } = stored.header;
            let logged = (stored.logged > Logged::Nothing).then(|| config.slot_of(first));
            (batch, requests, stored.batch(), logged)
        });
        self.bodies.keep(all);
    }

    /// Handles the messages that came before the NEW-VIEW did.
    fn replay_later(&mut self, now: Time, out: &mut Output) {
        for sender in self.config.all_replicas() {
            for message in self.later.take(sender, self.view) {
                if self.active {
                    self.message(sender, message, now, out);
                }
            }
        }
    }

    /// The batches of the log and those fetched for the view change, by digest.
    fn known_bodies(&self) -> HashMap<Digest, Bytes> {
        let logged = self.slots.all().map(|stored| (stored.header.batch, stored.batch()));
        let fetched = self.bodies.all().map(|(digest, batch)| (digest, batch.clone()));
        logged.chain(fetched).collect()
    }

    fn with_bodies(
        &self,
        prepares: &[PrepareHeader],
        out: &mut Output,
    ) -> Option<Vec<StoredPrepare>> {
        let bodies = self.known_bodies();
        let mut all = Vec::with_capacity(prepares.len());
        for header in prepares {
            if self.config.slot_of(header.first) < self.slots.base() {
                continue;
            }
            let batch = match bodies.get(&header.batch) {
                _ if header.noop => Bytes::new(),
                Some(batch) => batch.clone(),
                None => {
                    out.fail(Fatal::Invariant(format!("no batch for {}", header.first)));
                    return None;
                }
            };
            all.push(stored(*header, header.digest(), &batch));
        }
        Some(all)
    }

    // ------------------------------------------------------------------ batches

    /// DEVIATIONS 8: a message of a view change counts once the batches that it names are held.
    pub(super) fn hold(
        &mut self,
        ticket: u64,
        source: ReplicaId,
        headers: &[PrepareHeader],
        now: Time,
        out: &mut Output,
    ) {
        let base = self.slots.base();
        if headers.iter().any(|header| header.noop && header.batch != wire::digest(&[])) {
            return self.tell_held(Held { ticket, valid: false }, out);
        }
        let named = headers.iter().filter(|header| !header.noop).map(|header| Named {
            digest: header.batch,
            requests: header.requests,
            slot: self.config.slot_of(header.first),
        });
        let named: Vec<Named> = named.filter(|named| named.slot >= base).collect();
        self.log_named(&named, out);
        let slots = &self.slots;
        let logged = |named: &Named| {
            let header = slots.prepare(named.slot)?.header;
            (header.batch == named.digest).then_some(header.requests)
        };
        if let Some(held) = self.bodies.hold(ticket, source, named, logged, now, out) {
            self.tell_held(held, out);
        }
    }

    /// What rests on a message of a view change can be shown after a restart only with its batches: the log
    /// has each for the last slot that a message names it for.
    fn log_named(&mut self, named: &[Named], out: &mut Output) {
        if !out.logging {
            return;
        }
        for Named { digest, slot, .. } in named {
            let stored = self.slots.get_mut(*slot).and_then(|entry| entry.prepare.as_mut());
            match stored.filter(|stored| stored.header.batch == *digest) {
                Some(stored) if stored.logged == Logged::Nothing => {
                    out.log(|| record::body(self.pillar, *slot, stored.batch()));
                    stored.logged = Logged::Batch;
                }
                Some(_) => {}
                None => {
                    if let Some(batch) = self.bodies.logs(digest, *slot) {
                        out.log(|| record::body(self.pillar, *slot, batch));
                    }
                }
            }
        }
    }

    pub(super) fn tell_held(&self, Held { ticket, valid }: Held, out: &mut Output) {
        out.control(ControlInput::Held { ticket, pillar: self.pillar, valid });
    }

    pub(super) fn batch_request(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        out: &mut Output,
    ) -> Result<(), Reject> {
        let digests = parse_batch_request(message)?;
        if digests.len() > BATCHES_PER_REQUEST {
            return Err(Reject::Malformed);
        }
        let mut has_room = true;
        for digest in digests {
            has_room &= self.answers.ask(from, digest);
        }
        self.send_batches(from, out);
        if has_room { Ok(()) } else { Err(Reject::Overload) }
    }

    /// Answers what a peer has asked for and is held here, as far as there is room.
    pub(super) fn send_batches(&mut self, to: ReplicaId, out: &mut Output) {
        while let Some(digest) = self.answers.next(to) {
            let Self { digests, slots, .. } = self;
            digests.update(|place| Some(slots.at_place(place)?.prepare.as_ref()?.header.batch));
            let batch = self.held_batch(&digest);
            let answer = batch.map(|batch| encode_batch(self.pillar, &batch));
            self.answers.answered(to, digest, answer.as_ref().map_or(0, Bytes::len));
            if let Some(answer) = answer {
                let tag = SendTag::Answer(Answerer::Pillar(self.pillar));
                out.send(Destination::Peer(to), answer, tag);
            }
        }
    }

    fn held_batch(&self, digest: &Digest) -> Option<Bytes> {
        let places = self.digests.find(digest);
        let logged = places.filter_map(|place| self.slots.at_place(place)?.prepare.as_ref());
        let mut logged = logged.filter(|stored| stored.header.batch == *digest);
        let logged = logged.next().map(StoredPrepare::batch);
        logged.or_else(|| self.bodies.get(digest).cloned())
    }

    /// A BATCH: of use only to a message that names it and still waits for it.
    pub(super) fn batch_arrived(
        &mut self,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let batch = message.get(BATCH_HEAD..).ok_or(Reject::Malformed)?;
        if !self.bodies.misses_some() {
            // Nobody asked: not worth a hash.
            return Err(Reject::Irrelevant);
        }
        let digest = wire::digest(batch);
        if !self.bodies.misses(&digest) {
            return Err(Reject::Irrelevant);
        }
        let requests = Requests::new(batch).count() as u32;
        let checked = self.check_requests(batch, requests);
        if let (Ok(()), Some(slot)) = (&checked, self.bodies.missed_for(&digest)) {
            out.log(|| record::body(self.pillar, slot, message.slice(BATCH_HEAD..)));
        }
        for held in self.bodies.arrived(digest, batch, requests, checked, now, out) {
            self.tell_held(held, out);
        }
        checked
    }
}

fn stored(header: PrepareHeader, digest: Digest, batch: &[u8]) -> StoredPrepare {
    let mut message = Vec::with_capacity(PREPARE_HEAD + batch.len());
    message.extend_from_slice(&header.encode());
    message.extend_from_slice(batch);
    // The NEW-VIEW that names it was held, or is this replica's own.
    StoredPrepare { header, digest, message: message.into(), late: false, logged: Logged::Proposal }
}
