//! Leaving and entering views (TR listing 16: createAbortState, abortView, createViewTransition,
//! enterView), and holding the batches that prepared sets name.

use bytes::Bytes;
use hybster_tss::{Counter, CounterValue, Digest, Proof, RequestVerifier, TrInX, Verifier};
use std::collections::{HashMap, HashSet};

use super::Pillar;
use super::preferred_quorum::PreferredQuorum;
use super::slots::StoredPrepare;
use crate::hybster::input::ControlInput;
use crate::hybster::wire::ordering::{
    BATCH_HEAD, encode_batch, encode_batch_request, parse_batch_request,
};
use crate::hybster::wire::view::{Link, Part, PartScope};
use crate::ids::{ReplicaId, View};
use crate::mutants::{self, Mutant};
use crate::output::{Destination, Fatal, Output, Reject, SendTag};
use crate::time::Time;
use crate::trace::TraceEvent;
use crate::wire::{self, CheckpointCertificate, PREPARE_HEAD, PrepareHeader, Requests};

/// A batch outside of the log: checked requests.
#[derive(Clone, Debug)]
pub(super) struct Body {
    batch: Bytes,
    requests: u32,
}

/// Batches that a message of a view change names. It counts once none is missing; until it is
/// released, they are kept, whatever happens to the log.
#[derive(Debug)]
pub(super) struct Hold {
    source: ReplicaId,
    named: Vec<Named>,
    missing: Vec<Named>,
    /// Batches that were asked for and have not come yet.
    under_way: usize,
    asked: Time,
}

/// A batch as a prepared header names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    digest: Digest,
    requests: u32,
    slot: u64,
}

#[cfg(feature = "model")]
impl Body {
    pub fn requests(&self) -> u32 {
        self.requests
    }
}

#[cfg(feature = "model")]
impl Hold {
    pub fn is_waiting(&self) -> bool {
        !self.missing.is_empty()
    }

    pub fn fingerprint(&self, into: &mut crate::fingerprint::Fingerprint) {
        let Hold { source, named, missing, under_way, asked: _ } = self;
        into.number(u64::from(source.0));
        into.number(*under_way as u64);
        for list in [named, missing] {
            into.number(list.len() as u64);
            for Named { digest, requests, slot } in list {
                into.bytes(&digest.0);
                into.number(u64::from(*requests));
                into.number(*slot);
            }
        }
    }
}

/// Digests that one BATCH-REQUEST names at most; all of them are answered.
const BATCHES_PER_REQUEST: usize = 8;

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// TR listing 16, createAbortState and abortView.
    ///
    /// After this, the counter stands at `to|0`: nothing can be certified in earlier views, and
    /// the certificate discloses how far this replica took part.
    pub(super) fn abort(
        &mut self,
        from: View,
        to: View,
        checkpoint: &CheckpointCertificate,
        out: &mut Output,
    ) {
        debug_assert_eq!(from, self.view);
        self.forward_window(checkpoint.id.order, out);
        self.active = false;
        self.proposals.clear();
        self.established = None;
        let prepared: Vec<PrepareHeader> = self
            .slots
            .contiguous(self.slots.base(), self.window_end(), self.view, |h| self.last_slot(h))
            .map(|stored| stored.header)
            .collect();
        let scope = PartScope { sender: self.id, from, to, checkpoint };
        let digest = scope.digest(self.pillar, &self.chain, &prepared);
        let value = CounterValue::new(to.0, 0);
        let certificate = self.trinx.certify_continuing(Counter::Ordering, value, &digest);
        let Some(certificate) = Self::granted(certificate, out) else {
            return;
        };
        self.chain.push(Link {
            to,
            previous: certificate.previous,
            digest,
            proof: certificate.proof,
        });
        let part = Part { chain: self.chain.clone(), prepared };
        out.control(ControlInput::Part { pillar: self.pillar, to, part });
    }

    /// TR listing 16, createViewTransition: certifies what the abort states demand again, in a
    /// view that this replica is to lead.
    pub(super) fn establish(&mut self, view: View, prepared: &[PrepareHeader], out: &mut Output) {
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
            let PrepareHeader { pillar, first, last, batch, noop, .. } = stored.header;
            out.trace(|| TraceEvent::Reissued { pillar, view, first, last, batch, noop });
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
    /// What was handed to the execution stage stays handed: agreement makes it equal.
    pub(super) fn enter(
        &mut self,
        view: View,
        current: View,
        prepares: &[PrepareHeader],
        now: Time,
        out: &mut Output,
    ) {
        debug_assert!(view > self.view && current >= view);
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
        self.view = view;
        self.active = current == view;
        self.proposals.clear();
        self.preferred = PreferredQuorum::new(self.config.next_to_leader(view));
        self.keep_bodies();
        let base = self.slots.base();
        self.prepared = base;
        self.committed = base;
        entered.retain(|stored| self.config.slot_of(stored.header.first) >= base);
        for stored in entered {
            let (first, last) =
                (self.config.slot_of(stored.header.first), self.last_slot(&stored.header));
            if self.is_leader() {
                self.prepared = last + 1;
            }
            self.slots.get_mut(first).expect("P' lies in the window").prepare = Some(stored);
        }
        self.progressed();
        self.announce(0, out);
        self.advance(out);
        self.replay_later(now, out);
    }

    /// Empties the log, but for the batches that messages of later views name.
    fn keep_bodies(&mut self) {
        let old = self.slots.drain();
        let named: HashSet<Digest> = self.named().collect();
        for stored in old {
            if named.contains(&stored.header.batch) {
                let requests = stored.header.requests;
                let body = Body { batch: stored.batch(), requests };
                self.bodies.insert(stored.header.batch, body);
            }
        }
    }

    fn named(&self) -> impl Iterator<Item = Digest> + '_ {
        self.holds.values().flat_map(|hold| hold.named.iter().map(|named| named.digest))
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
        let fetched = self.bodies.iter().map(|(digest, body)| (*digest, body.batch.clone()));
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
    ///
    /// The control stage keeps a bounded number of such messages per replica, so what is held for
    /// a liar is bounded as well.
    pub(super) fn hold(
        &mut self,
        ticket: u64,
        source: ReplicaId,
        headers: &[PrepareHeader],
        now: Time,
        out: &mut Output,
    ) {
        let mut hold =
            Hold { source, named: Vec::new(), missing: Vec::new(), under_way: 0, asked: now };
        let mut valid = true;
        for header in headers {
            let slot = self.config.slot_of(header.first);
            if header.noop {
                valid &= header.batch == wire::digest(&[]);
                continue;
            }
            if slot < self.slots.base() {
                continue;
            }
            let named = Named { digest: header.batch, requests: header.requests, slot };
            match self.requests_of(&named) {
                Some(requests) => valid &= requests == header.requests,
                None => hold.missing.push(named),
            }
            hold.named.push(named);
        }
        if !valid {
            out.control(ControlInput::Held { ticket, pillar: self.pillar, valid });
            return;
        }
        if hold.missing.is_empty() || mutants::active(Mutant::HoldUnchecked) {
            out.control(ControlInput::Held { ticket, pillar: self.pillar, valid });
        } else {
            self.ask_batches(&mut hold, now, out);
        }
        self.holds.insert(ticket, hold);
    }

    /// The number of requests in a batch that is here.
    fn requests_of(&self, named: &Named) -> Option<u32> {
        let logged = self
            .slots
            .prepare(named.slot)
            .filter(|stored| stored.header.batch == named.digest)
            .map(|stored| stored.header.requests);
        logged.or(self.bodies.get(&named.digest).map(|body| body.requests))
    }

    /// The control stage has dropped the message: batches that no other one names go.
    pub(super) fn release(&mut self, ticket: u64) {
        if self.holds.remove(&ticket).is_some() && !self.bodies.is_empty() {
            let named: HashSet<Digest> = self.named().collect();
            self.bodies.retain(|digest, _| named.contains(digest));
        }
    }

    fn ask_batches(&self, hold: &mut Hold, now: Time, out: &mut Output) {
        let asked = hold.missing.iter().take(BATCHES_PER_REQUEST);
        let digests: Vec<Digest> = asked.map(|missing| missing.digest).collect();
        hold.under_way = digests.len();
        hold.asked = now;
        let message = encode_batch_request(self.pillar, &digests);
        // What the own VIEW-CHANGE names and is not here any more, others may have.
        let to = if hold.source == self.id {
            Destination::AllPeers
        } else {
            Destination::Peer(hold.source)
        };
        out.send(to, message, SendTag::Transient);
    }

    /// Batches before the window's base are not needed any more.
    pub(super) fn forward_holds(&mut self, out: &mut Output) {
        let (base, pillar) = (self.slots.base(), self.pillar);
        for (ticket, hold) in &mut self.holds {
            hold.named.retain(|named| named.slot >= base);
            let waited = !hold.missing.is_empty();
            hold.missing.retain(|missing| missing.slot >= base);
            if waited && hold.missing.is_empty() {
                out.control(ControlInput::Held { ticket: *ticket, pillar, valid: true });
            }
        }
    }

    pub(super) fn tick_holds(&mut self, now: Time, out: &mut Output) {
        let resend_us = self.config.resend_us;
        let mut holds = std::mem::take(&mut self.holds);
        for hold in holds.values_mut().filter(|hold| !hold.missing.is_empty()) {
            if now.since_us(hold.asked) >= resend_us {
                self.ask_batches(hold, now, out);
            }
        }
        self.holds = holds;
    }

    pub(super) fn holds_deadline(&self) -> Option<Time> {
        let resend_us = self.config.resend_us;
        let waiting = self.holds.values().filter(|hold| !hold.missing.is_empty());
        waiting.map(|hold| hold.asked.after_us(resend_us)).min()
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
        for digest in digests {
            let logged = self.slots.all().find(|stored| stored.header.batch == digest);
            let batch = logged
                .map(StoredPrepare::batch)
                .or_else(|| self.bodies.get(&digest).map(|body| body.batch.clone()));
            if let Some(batch) = batch {
                let answer = encode_batch(self.pillar, &batch);
                out.send(Destination::Peer(from), answer, SendTag::Transient);
            }
        }
        Ok(())
    }

    /// A BATCH: worth something only if a hold misses its digest.
    pub(super) fn batch_arrived(
        &mut self,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        if message.len() < BATCH_HEAD {
            return Err(Reject::Malformed);
        }
        let batch = &message[BATCH_HEAD..];
        let digest = wire::digest(batch);
        let misses = |hold: &Hold| hold.missing.iter().any(|missing| missing.digest == digest);
        if !self.holds.values().any(misses) {
            return Err(Reject::Irrelevant);
        }
        // The digest is right, so what is wrong with the batch is wrong for everybody. But the
        // number of requests is what a header says: a liar's must not spoil the batch for others.
        let requests = Requests::new(batch).count() as u32;
        let checked = self.check_requests(batch, requests);
        if checked.is_ok() {
            let batch = Bytes::copy_from_slice(batch);
            self.bodies.insert(digest, Body { batch, requests });
        }
        let pillar = self.pillar;
        let mut holds = std::mem::take(&mut self.holds);
        holds.retain(|ticket, hold| {
            let before = hold.missing.len();
            let mut valid = true;
            hold.missing.retain(|missing| {
                if missing.digest != digest {
                    return true;
                }
                valid &= checked.is_ok() && missing.requests == requests;
                false
            });
            let arrived = before - hold.missing.len();
            if arrived == 0 {
                return true;
            }
            if !valid || hold.missing.is_empty() {
                out.control(ControlInput::Held { ticket: *ticket, pillar, valid });
                return valid;
            }
            hold.under_way = hold.under_way.saturating_sub(1);
            if hold.under_way == 0 {
                self.ask_batches(hold, now, out);
            }
            true
        });
        self.holds = holds;
        checked
    }
}

fn stored(header: PrepareHeader, digest: Digest, batch: &[u8]) -> StoredPrepare {
    let mut message = Vec::with_capacity(PREPARE_HEAD + batch.len());
    message.extend_from_slice(&header.encode());
    message.extend_from_slice(batch);
    StoredPrepare { header, digest, message: message.into() }
}
