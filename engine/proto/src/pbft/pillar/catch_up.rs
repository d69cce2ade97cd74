//! What was missed: asking peers for it, and answering. Each repeats its own words only, and bodies,
//! which convince by their digests.

use bytes::Bytes;
use hybster_tss::{Digest, RequestVerifier};

use super::Pillar;
use crate::ids::ReplicaId;
use crate::output::{Answerer, Destination, Output, Reject, SendTag, ToControl};
use crate::pbft::wire::help::{
    BODIES_PER_REQUEST, BODY_MESSAGE_HEAD, OrderRequest, encode_body, encode_body_request,
    parse_body_head, parse_body_request,
};
use crate::pbft::wire::kind;
use crate::pbft::wire::ordering::{Body, PrePrepare};
use crate::shared::requests::check_batch;
use crate::time::Time;

/// Bytes of proposals that answer one ORDER-REQUEST at most.
const ANSWER_BYTES: usize = 256 << 10;
/// Order numbers that one answer speaks of at most.
const ANSWER_SLOTS: u64 = 256;

impl<V: RequestVerifier> Pillar<V> {
    /// Sends again what a peer may have missed while its link was down. What it lacks beyond that, it
    /// asks for.
    pub(super) fn peer_up(&mut self, peer: ReplicaId, out: &mut Output) {
        let to = Destination::Peer(peer);
        for slot in self.committed..self.proposed.min(self.window_end()) {
            self.repeat_proposal(slot, to, out);
            self.repeat(slot, to, out);
        }
        if let Some(own) = self.checkpoints.own() {
            let id = own.id;
            self.send_checkpoint(&id, to, out);
        }
    }

    /// Sends this replica's PRE-PREPARE for a slot again; returns the bytes.
    fn repeat_proposal(&self, slot: u64, to: Destination, out: &mut Output) -> usize {
        let entry =
            self.slots.get(slot).filter(|entry| self.is_leader() && entry.adopted.is_none());
        let Some(body) = entry.and_then(|entry| entry.body.clone()) else { return 0 };
        let order = self.order_at(slot);
        let proposal =
            PrePrepare { pillar: self.pillar, view: self.view, first: order, last: order, body };
        let message = proposal.encode();
        let bytes = message.len();
        out.send(to, message, SendTag::Ordering(self.view, order));
        bytes
    }

    /// Sends this replica's PREPARE and COMMIT for a slot again.
    pub(super) fn repeat(&self, slot: u64, to: Destination, out: &mut Output) {
        let votes = self.words(slot);
        for (vote, tag) in self.merged(&votes) {
            out.send(to, vote.encode(), tag);
        }
    }

    /// What this replica has said in its view about a slot.
    fn words(&self, slot: u64) -> Vec<(u8, u64, Digest)> {
        let Some(entry) = self.slots.get(slot).filter(|_| self.active) else { return Vec::new() };
        let own = |all: &[(ReplicaId, Digest)]| {
            all.iter().find(|(replica, _)| *replica == self.id).map(|(_, digest)| *digest)
        };
        let prepare = own(&entry.prepares).map(|digest| (kind::PREPARE, slot, digest));
        let commit = own(&entry.commits).map(|digest| (kind::COMMIT, slot, digest));
        prepare.into_iter().chain(commit).collect()
    }

    /// Asks a peer, or all, for ordering messages from the first uncommitted slot on.
    fn ask(&self, to: Destination, out: &mut Output) {
        let slots = (self.committed..self.slots.end()).take(u64::BITS as usize);
        let holds = slots.map(|slot| {
            let entry = self.slots.get(slot);
            u64::from(entry.is_some_and(|entry| entry.body.is_some() || entry.adopted.is_some()))
        });
        let request = OrderRequest {
            pillar: self.pillar,
            view: self.view,
            from: self.order_at(self.committed),
            held: holds.enumerate().fold(0, |held, (at, holds)| held | holds << at),
        };
        out.send(to, request.encode(), SendTag::Transient);
    }

    pub(super) fn ask_peers(&self, out: &mut Output) {
        self.ask(Destination::AllPeers, out);
    }

    /// Whether the leader of this view has proposed something that is missing here.
    fn lacks(&self, slot: u64, held: u64) -> bool {
        let slots = (slot..self.slots.end()).enumerate().take(u64::BITS as usize);
        slots.filter(|(at, slot)| held >> at & 1 == 1 && *slot >= self.committed).any(
            |(_, slot)| {
                self.slots
                    .get(slot)
                    .is_some_and(|entry| entry.body.is_none() && entry.adopted.is_none())
            },
        )
    }

    /// Answers a peer that is stuck, at a limited rate.
    pub(super) fn order_request(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let request = OrderRequest::parse(message)?;
        if self.config.pillar_of(request.from) != self.pillar {
            return Err(Reject::Malformed);
        }
        let slot = self.config.slot_of(request.from);
        if request.view > self.view {
            self.hint_stuck(now, out);
        } else if request.view == self.view && slot > self.committed && self.hint_stuck(now, out) {
            // The asker is ahead: it has committed slots that this replica has not.
            self.ask_peers(out);
        }
        if request.view < self.view || slot < self.slots.base() {
            out.control(ToControl::PeerBehind(from));
        }
        let is_current = request.view == self.view;
        if is_current && from == self.config.leader(self.view) && self.lacks(slot, request.held) {
            // Links keep the order, so what it proposed before it asked was lost.
            let due = |at: Time| now.since_us(at) >= self.config.resend_us;
            if self.asked_back.is_none_or(due) {
                self.asked_back = Some(now);
                self.ask(Destination::Peer(from), out);
            }
        }
        let answered = self.answered.get_mut(usize::from(from.0)).ok_or(Reject::WrongSender)?;
        if answered.is_some_and(|at| now.since_us(at) < self.config.resend_us / 4) {
            return Err(Reject::Overload);
        }
        *answered = Some(now);
        self.answer(&request, slot, Destination::Peer(from), out);
        Ok(())
    }

    /// Says again what this replica has said, and what it has committed.
    fn answer(&self, request: &OrderRequest, asked: u64, to: Destination, out: &mut Output) {
        let mut left = ANSWER_BYTES;
        let (mut claims, mut words) = (Vec::new(), Vec::new());
        let first = asked.max(self.slots.base());
        let end = self.proposed.max(self.committed).min(first.saturating_add(ANSWER_SLOTS));
        for slot in first..end {
            let Some(entry) = self.slots.get(slot) else { break };
            if let Some(digest) = entry.committed {
                claims.push((kind::COMMITTED, slot, digest));
            }
            if request.view != self.view {
                continue;
            }
            words.extend(self.words(slot));
            let is_held =
                slot.checked_sub(asked).is_some_and(|at| at < 64 && request.held >> at & 1 == 1);
            if !is_held && left > 0 {
                left = left.saturating_sub(self.repeat_proposal(slot, to, out));
            }
        }
        words.sort_by_key(|(kind, slot, _)| (*kind, *slot));
        for (vote, tag) in self.merged(&claims).chain(self.merged(&words)) {
            out.send(to, vote.encode(), tag);
        }
    }

    // ------------------------------------------------------------------ bodies

    /// Asks f+1 peers, others each time, for bodies that are missing: whoever made their digests known has
    /// them, if it is correct.
    pub(super) fn ask_for_bodies(&mut self, out: &mut Output) {
        self.asked = None;
        if self.missing.is_empty() {
            return;
        }
        let bodies = self.missing.iter().take(BODIES_PER_REQUEST);
        let bodies: Vec<_> = bodies.map(|(slot, digest)| (self.order_at(*slot), *digest)).collect();
        let message = encode_body_request(self.pillar, &bodies);
        let n = u64::from(self.config.replicas);
        let count = self.config.acknowledging() as u64;
        for at in 0..count.min(n - 1) {
            let step = 1 + (self.asks * count + at) % (n - 1);
            let peer = ReplicaId(((u64::from(self.id.0) + step) % n) as u16);
            out.send(Destination::Peer(peer), message.clone(), SendTag::Transient);
        }
        self.asks += 1;
        self.asked = Some(self.now);
    }

    pub(super) fn body_request(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        out: &mut Output,
    ) -> Result<(), Reject> {
        let mut has_room = true;
        for (order, digest) in parse_body_request(message)? {
            if order.0 == 0 || self.config.pillar_of(order) != self.pillar {
                return Err(Reject::Malformed);
            }
            has_room &= self.answers.ask(from, (self.config.slot_of(order), digest));
        }
        self.send_bodies(from, out);
        if has_room { Ok(()) } else { Err(Reject::Overload) }
    }

    /// Answers what a peer has asked for and is held here, as far as there is room.
    pub(super) fn send_bodies(&mut self, to: ReplicaId, out: &mut Output) {
        while let Some((slot, digest)) = self.answers.next(to) {
            let body = self.slots.get(slot).and_then(|entry| entry.find(&digest));
            let order = self.order_at(slot);
            let answer = body.map(|body| encode_body(self.pillar, order, &body.bytes));
            self.answers.answered(to, (slot, digest), answer.as_ref().map_or(0, Bytes::len));
            if let Some(answer) = answer {
                let tag = SendTag::Answer(Answerer::Pillar(self.pillar));
                out.send(Destination::Peer(to), answer, tag);
            }
        }
    }

    /// A BODY: of use only where it is missing.
    pub(super) fn body_arrived(&mut self, message: &Bytes, out: &mut Output) -> Result<(), Reject> {
        let order = parse_body_head(message)?;
        if order.0 == 0 || self.config.pillar_of(order) != self.pillar {
            return Err(Reject::Malformed);
        }
        let slot = self.config.slot_of(order);
        let first = (slot, Digest::default());
        if self.missing.range(first..).next().is_none_or(|(at, _)| *at != slot) {
            // Nobody asked: not worth a hash.
            return Err(Reject::Irrelevant);
        }
        // A copy, so that what is kept does not pin a receive buffer.
        let bytes = Bytes::copy_from_slice(&message[BODY_MESSAGE_HEAD..]);
        let body = Body::parse(bytes, true)?;
        if !self.missing.contains(&(slot, body.digest)) {
            return Err(Reject::Irrelevant);
        }
        check_batch(&self.verifier, &self.config, body.records(), body.requests)?;
        self.missing.remove(&(slot, body.digest));
        self.fill(slot, body, out);
        if !self.missing.is_empty() && self.missing.len().is_multiple_of(BODIES_PER_REQUEST) {
            self.ask_for_bodies(out);
        }
        Ok(())
    }

    /// Puts a body where it was missing.
    fn fill(&mut self, slot: u64, body: Body, out: &mut Output) {
        let digest = body.digest;
        let entry = self.slots.get_mut(slot).expect("what is missing lies in the log");
        if entry.committed == Some(digest) && entry.committed_body.is_none() {
            entry.committed_body = Some(body.clone());
        }
        if entry.adopted == Some(digest) && entry.body.is_none() {
            entry.body = Some(body.clone());
        }
        if let Some((_, waits)) = &mut self.holding
            && waits.remove(&slot).is_some()
        {
            entry.held = Some(body);
            self.tell_held(out);
        }
        self.adopt(slot);
        self.consider(slot, out);
        self.advance(out);
    }
}
