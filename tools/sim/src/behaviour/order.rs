//! Lies in the ordering protocol: proposals and acknowledgements.

use bytes::{Bytes, BytesMut};
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId, View};
use hybster_proto::internals::{Commit, PREPARE_HEAD, PrepareHeader};
use hybster_proto::output::{Input, ToPillar};
use hybster_proto::wire::request::append_request;
use hybster_proto::wire::{self, RequestProof, RequestRef, Requests, kind, kind_of};
use hybster_tss::Proof;

use super::forge::{certify, certify_commit, header, next_order};
use super::{Departure, Host, Scene};

/// What a lying leader does with a batch that it should propose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trick {
    /// Proposes it one slot later and leaves a hole.
    Skip,
    /// Shows it to some, and to the others a no-op that covers its order number.
    NoopOver,
    /// Certifies one batch and sends another one to some.
    BodySwap,
    /// States another number of requests.
    CountLie,
    /// Adds requests that no client made.
    Forge,
    /// Certifies it far ahead: another view, or beyond the window.
    Far,
    /// Says that it belongs to another pillar.
    WrongPillar,
    /// Certifies it and sends it to no peer, or to one, or much later.
    Withhold,
    /// Proposes no-ops instead.
    Noops,
    /// Proposes an old batch instead.
    Again,
    /// Proposes each request of it twice.
    Twice,
    /// Claims any time for a batch, or an empty range for a no-op.
    Shape,
    /// Proposes it with a time that is not its clock's.
    FalseTime,
}

impl Trick {
    /// All tricks.
    pub const ALL: [Self; 13] = [
        Self::Skip,
        Self::NoopOver,
        Self::BodySwap,
        Self::CountLie,
        Self::Forge,
        Self::Far,
        Self::WrongPillar,
        Self::Withhold,
        Self::Noops,
        Self::Again,
        Self::Twice,
        Self::Shape,
        Self::FalseTime,
    ];
}

/// A batch on its way from the request intake to a pillar.
struct Offer {
    pillar: PillarId,
    view: View,
    order: OrderNumber,
    body: Bytes,
    requests: u32,
}

impl Offer {
    fn header(&self, scene: &Scene<'_>) -> PrepareHeader {
        PrepareHeader {
            requests: self.requests,
            batch: wire::digest(&self.body),
            ..header(scene, self.pillar, self.view, self.order)
        }
    }
}

fn message(header: &PrepareHeader, body: &[u8]) -> Bytes {
    let mut out = header.encode().to_vec();
    out.extend_from_slice(body);
    out.into()
}

/// The body and the number of requests of any PREPARE that was ever sent in a pillar.
fn old_batch(scene: &mut Scene<'_>, pillar: PillarId) -> Option<(Bytes, u32)> {
    let old: Vec<(PrepareHeader, &Bytes)> = scene
        .archive
        .of(kind::PREPARE)
        .filter_map(|(_, m)| Some((PrepareHeader::parse(m).ok()?, m)))
        .filter(|(h, _)| h.pillar == pillar && !h.noop)
        .collect();
    if old.is_empty() {
        return None;
    }
    let (header, message) = old[scene.random.index(old.len())];
    Some((message.slice(PREPARE_HEAD..), header.requests))
}

pub(super) struct OrderLiar {
    trick: Trick,
    ppm: u32,
    /// Certified PREPAREs that were sent to no peer.
    hidden: Vec<Bytes>,
}

impl OrderLiar {
    pub(super) fn new(trick: Trick, ppm: u32) -> Self {
        Self { trick, ppm, hidden: Vec::new() }
    }

    /// Certifies a PREPARE with the pillar's instance and sends it to some.
    fn propose(scene: &mut Scene<'_>, pillar: PillarId, mut header: PrepareHeader, body: &[u8]) {
        if certify(&mut scene.trinx[usize::from(pillar.0)], &mut header, false) {
            scene.send_some(&message(&header, body));
        }
    }

    fn play(&mut self, scene: &mut Scene<'_>, offer: &Offer) {
        let (pillar, step) = (offer.pillar, u64::from(scene.group.pillars));
        let instance = usize::from(pillar.0);
        let mut header = offer.header(scene);
        match self.trick {
            Trick::Skip => {
                header.first = OrderNumber(offer.order.0 + step * scene.random.between(1, 2));
                header.last = header.first;
                Self::propose(scene, pillar, header, &offer.body);
            }
            Trick::NoopOver => self.noop_over(scene, offer),
            Trick::BodySwap => Self::body_swap(scene, offer),
            Trick::CountLie => {
                header.requests = 1 + (header.requests + scene.random.below(3) as u32) % 4;
                Self::propose(scene, pillar, header, &offer.body);
            }
            Trick::Forge => {
                let body = forged(scene, &offer.body);
                header.requests = Requests::new(&body).count() as u32;
                header.batch = wire::digest(&body);
                Self::propose(scene, pillar, header, &body);
            }
            Trick::Far => {
                match scene.random.below(3) {
                    0 => header.view = View(offer.view.0 + scene.random.between(1, 9)),
                    1 => header.first.0 += scene.group.window,
                    _ => header.first.0 += 3 * scene.group.window,
                }
                header.last = header.first;
                Self::propose(scene, pillar, header, &offer.body);
            }
            Trick::WrongPillar => {
                header.pillar = scene.any_pillar();
                if scene.random.chance(500_000) {
                    header.first.0 += scene.random.below(step);
                    header.last = header.first;
                }
                Self::propose(scene, pillar, header, &offer.body);
            }
            Trick::Withhold => self.withhold(scene, offer),
            Trick::Shape => {
                header.noop = scene.random.chance(500_000);
                header.requests = u32::from(!header.noop);
                header.last.0 += step * scene.random.between(0, 3);
                let continuing = scene.random.chance(500_000);
                if certify(&mut scene.trinx[instance], &mut header, continuing) {
                    scene.send_some(&message(&header, &offer.body));
                }
            }
            Trick::FalseTime => {
                header.time_ms = false_time(scene);
                Self::propose(scene, pillar, header, &offer.body);
            }
            Trick::Noops | Trick::Again | Trick::Twice => {}
        }
    }

    /// Some get the batch that was certified, the others an older one under its header.
    fn body_swap(scene: &mut Scene<'_>, offer: &Offer) {
        let mut header = offer.header(scene);
        let Some((other, _)) = old_batch(scene, offer.pillar) else { return };
        if certify(&mut scene.trinx[usize::from(offer.pillar.0)], &mut header, false) {
            let messages = [message(&header, &offer.body), message(&header, &other)];
            for peer in scene.peers() {
                let which = scene.random.index(2);
                scene.send(peer, messages[which].clone());
            }
        }
    }

    /// One replica gets the batch, or none does, until it is shown later.
    fn withhold(&mut self, scene: &mut Scene<'_>, offer: &Offer) {
        let mut header = offer.header(scene);
        if certify(&mut scene.trinx[usize::from(offer.pillar.0)], &mut header, false) {
            let hidden = message(&header, &offer.body);
            if scene.random.chance(500_000) {
                let peers: Vec<ReplicaId> = scene.peers().collect();
                let one = *scene.random.pick(&peers);
                scene.send(one, hidden.clone());
            }
            self.hidden.push(hidden);
        }
    }

    /// A batch for some; for the others a no-op over it, with either kind of certificate.
    fn noop_over(&mut self, scene: &mut Scene<'_>, offer: &Offer) {
        let instance = usize::from(offer.pillar.0);
        let mut batch = offer.header(scene);
        if !certify(&mut scene.trinx[instance], &mut batch, false) {
            return;
        }
        let mut noop = header(scene, offer.pillar, offer.view, offer.order);
        (noop.noop, noop.requests) = (true, 0);
        noop.last.0 += u64::from(scene.group.pillars);
        let continuing = scene.random.chance(500_000);
        if !certify(&mut scene.trinx[instance], &mut noop, continuing) {
            return;
        }
        let messages = [message(&batch, &offer.body), message(&noop, &[])];
        let odd = scene.random.index(2);
        for (at, peer) in scene.peers().enumerate() {
            scene.send(peer, messages[(at + odd) % 2].clone());
        }
    }
}

/// A time that lies, grossly or so that followers may just believe it.
fn false_time(scene: &mut Scene<'_>) -> u64 {
    let (now_ms, bound_ms) = (scene.unix_ms(), scene.group.max_clock_skew_ms);
    match scene.random.below(7) {
        0 => 0,
        1 => u64::MAX,
        2 => now_ms - 3_600_000,
        3 => now_ms + 3_600_000,
        4 => now_ms - scene.random.below(2 * bound_ms),
        _ => now_ms + scene.random.below(2 * bound_ms),
    }
}

/// The batch with a request in it that no client made.
fn forged(scene: &mut Scene<'_>, body: &Bytes) -> Bytes {
    let Ok((request, rest)) = RequestRef::split(body) else {
        return body.clone();
    };
    let mut out = Vec::new();
    let (mut session, mut number) = (request.session, request.number);
    let mut operation = request.operation.to_vec();
    match scene.random.below(5) {
        0 => number.0 = number.0.wrapping_add(scene.random.between(1, 5)),
        1 => session.session ^= 1 << scene.random.below(20),
        2 => session.client.0 = scene.random.below(20) as u32,
        3 => session.client.0 = scene.group.max_clients + 1,
        _ => operation.extend_from_slice(b"more"),
    }
    match request.proof() {
        RequestProof::Mac(mac) => append_request(&mut out, session, number, &operation, |_| *mac),
        RequestProof::Signature(signature) => {
            append_request(&mut out, session, number, &operation, |_| *signature);
        }
    }
    out.extend_from_slice(rest);
    out.into()
}

impl Host for OrderLiar {
    fn input(&mut self, scene: &mut Scene<'_>, input: Input) -> Option<Input> {
        let Input::Pillar(pillar, ToPillar::Batch { view, buffer, requests }) = input else {
            return Some(input);
        };
        let order = next_order(scene, pillar, view).filter(|_| scene.random.chance(self.ppm));
        let Some(order) = order else {
            return Some(Input::Pillar(pillar, ToPillar::Batch { view, buffer, requests }));
        };
        let body = Bytes::copy_from_slice(&buffer[PREPARE_HEAD..]);
        let replaced = |body: &[u8], requests| {
            let mut buffer = BytesMut::zeroed(PREPARE_HEAD);
            buffer.extend_from_slice(body);
            Some(Input::Pillar(pillar, ToPillar::Batch { view, buffer, requests }))
        };
        match self.trick {
            Trick::Noops => {
                let through = scene.group.slot_of(order);
                return Some(Input::Pillar(pillar, ToPillar::FillGap { view, through }));
            }
            Trick::Again => {
                let (body, requests) = old_batch(scene, pillar).unwrap_or((body, requests));
                return replaced(&body, requests);
            }
            Trick::Twice if 2 * requests <= scene.group.batch_max_requests => {
                return replaced(&[&body[..], &body[..]].concat(), 2 * requests);
            }
            Trick::Twice => return replaced(&body, requests),
            _ => {}
        }
        self.play(scene, &Offer { pillar, view, order, body, requests });
        None
    }

    fn ticks(&self) -> bool {
        self.trick == Trick::Withhold
    }

    fn tick(&mut self, scene: &mut Scene<'_>) {
        if !self.hidden.is_empty() && scene.random.chance(50_000) {
            let at = scene.random.index(self.hidden.len());
            let late = self.hidden.swap_remove(at);
            scene.send_some(&late);
        }
    }
}

pub(super) struct VoteLiar {
    pub ppm: u32,
}

/// The acknowledgement of a PREPARE, without a proof.
fn unproved(sender: ReplicaId, header: &PrepareHeader) -> Commit {
    Commit {
        pillar: header.pillar,
        sender,
        view: header.view,
        first: header.first,
        last: header.last,
        prepare: header.digest(),
        proof: Proof([0; 32]),
    }
}

impl VoteLiar {
    /// What a follower can acknowledge instead of, or before, what it should.
    fn vote(scene: &mut Scene<'_>, header: &PrepareHeader) {
        let far = header.view.0 == u64::MAX || header.last.0 >= 1 << 60;
        if far || header.pillar.0 >= scene.group.pillars {
            return;
        }
        let mut commit = unproved(scene.replica, header);
        let later = u64::from(scene.group.pillars) * scene.random.between(1, 3);
        match scene.random.below(6) {
            0 => commit.prepare.0[0] ^= 1,
            1 => (commit.first.0, commit.last.0) = (header.first.0 + later, header.last.0 + later),
            2 => commit.last.0 += later,
            3 => commit.view = View(header.view.0 + 1),
            4 => {
                // In another replica's name, without a certificate.
                let peers: Vec<ReplicaId> = scene.group.all_replicas().collect();
                commit.sender = *scene.random.pick(&peers);
                return scene.send_some(&commit.encode());
            }
            _ => {}
        }
        if certify_commit(&mut scene.trinx[usize::from(header.pillar.0)], &mut commit) {
            scene.send_some(&commit.encode());
        }
    }
}

impl Host for VoteLiar {
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        if kind_of(&leaving.message) == kind::COMMIT && scene.random.chance(self.ppm) {
            send.push(leaving.clone());
        }
        send.push(leaving);
    }

    fn incoming(&mut self, scene: &mut Scene<'_>, _: ReplicaId, message: Bytes) -> Option<Bytes> {
        if kind_of(&message) == kind::PREPARE
            && scene.random.chance(self.ppm)
            && let Ok(header) = PrepareHeader::parse(&message)
            && scene.group.leader(header.view) != scene.replica
        {
            Self::vote(scene, &header);
        }
        Some(message)
    }
}

/// A follower whose word binds it to nothing: its counters stay where they are.
pub(super) struct HollowVoter;

impl Host for HollowVoter {
    fn incoming(&mut self, scene: &mut Scene<'_>, _: ReplicaId, message: Bytes) -> Option<Bytes> {
        if kind_of(&message) != kind::PREPARE {
            return Some(message);
        }
        if let Ok(header) = PrepareHeader::parse(&message)
            && scene.group.leader(header.view) != scene.replica
            && header.pillar.0 < scene.group.pillars
        {
            scene.send_all(&unproved(scene.replica, &header).encode());
        }
        // Its core must not acknowledge the PREPARE in earnest.
        None
    }
}
