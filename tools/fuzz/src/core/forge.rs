//! The certificates that a faulty host makes with its honest TrInX.

use bytes::Bytes;
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId, RequestNumber, View};
use hybster_proto::internals::{
    Checkpoint, CheckpointCertificate, Commit, LastSeen, Link, NewView, NewViewAck, Part,
    PrepareHeader, ViewChange, encode_state, parse_state,
};
use hybster_proto::wire::help::{OrderRequest, encode_batch, encode_batch_request};
use hybster_proto::wire::state::{Fetch, Fetched, NodeId, StateRequest};
use hybster_proto::wire::{CheckpointId, digest, kind, kind_of};
use hybster_tss::{Counter, CounterValue, Digest, Proof, TrInX};

use super::super::Choices;
use super::group::{Group, REPLICAS};

const NO_PROOF: Proof = Proof([0; 32]);

/// Makes a message, certifies it if the TrInX lets it, and sends it.
pub(super) fn forge(group: &mut Group, choices: &mut Choices<'_>) {
    let (what, to) = (choices.below(13), choices.below(REPLICAS));
    let Some(traitor) = group.traitor else { return };
    // Mostly in its own name.
    let sender = match choices.below(8) {
        7 => ReplicaId(choices.below(4) as u16),
        _ => ReplicaId(traitor as u16),
    };
    let pillar = PillarId(choices.below(group.config.pillars.into()) as u16);
    let view = View(choices.below(5) as u64);
    let made = match what {
        0 => Some(prepare(group, choices, pillar, view)),
        1 => Some(noop(group, choices, pillar, view)),
        2 => Some(commit(group, choices, pillar, sender)),
        3 => Some(checkpoint(group, choices, sender)),
        4 | 5 => view_change(group, choices, sender, view),
        6 | 7 => new_view(group, choices, view),
        8 => ack(group, choices, sender, view),
        _ => Some(uncertified(group, choices, what, pillar, view)),
    };
    if let Some(message) = made {
        group.send_as_traitor(to, message);
    }
}

fn order(group: &Group, choices: &mut Choices<'_>, pillar: PillarId) -> OrderNumber {
    let slot = choices.below(8) as u64;
    OrderNumber(1 + u64::from(pillar.0) + slot * u64::from(group.config.pillars))
}

/// A certificate of O, or none if the counter has passed.
fn independent(group: &mut Group, pillar: PillarId, value: CounterValue, digest: &Digest) -> Proof {
    let trinx = &mut group.trinx[usize::from(pillar.0)];
    let certificate = trinx.certify_independent(Counter::Ordering, value, digest);
    certificate.map_or(NO_PROOF, |certificate| certificate.proof)
}

fn prepare(group: &mut Group, choices: &mut Choices<'_>, pillar: PillarId, view: View) -> Bytes {
    let first = order(group, choices, pillar);
    let mut batch = Vec::new();
    let requests = 1 + choices.below(3) as u32;
    for _ in 0..requests {
        let shape = choices.byte();
        let number = RequestNumber(u64::from(shape >> 2 & 7));
        group.append_request(&mut batch, (shape & 3).into(), number, shape >> 5 & 1, shape > 250);
    }
    let mut header = PrepareHeader {
        pillar,
        noop: false,
        requests,
        view,
        first,
        last: first,
        time_ms: [0, 1, 6_000, u64::MAX][choices.below(4)],
        batch: digest(&batch),
        previous: CounterValue::ZERO,
        proof: NO_PROOF,
    };
    header.proof = independent(group, pillar, header.value(), &header.digest());
    [&header.encode()[..], &batch].concat().into()
}

fn noop(group: &mut Group, choices: &mut Choices<'_>, pillar: PillarId, view: View) -> Bytes {
    let first = order(group, choices, pillar);
    let step = u64::from(group.config.pillars);
    let mut header = PrepareHeader {
        pillar,
        noop: true,
        requests: 0,
        view,
        first,
        last: OrderNumber(first.0 + choices.below(3) as u64 * step),
        time_ms: 0,
        batch: digest(&[]),
        previous: CounterValue::ZERO,
        proof: NO_PROOF,
    };
    let trinx = &mut group.trinx[usize::from(pillar.0)];
    let certificate = trinx.certify_continuing(Counter::Ordering, header.value(), &header.digest());
    if let Ok(certificate) = certificate {
        (header.previous, header.proof) = (certificate.previous, certificate.proof);
    }
    header.encode().to_vec().into()
}

/// The header of a PREPARE that was seen.
fn seen_prepare(group: &Group, at: usize) -> Option<PrepareHeader> {
    let message = group.old_message(at)?;
    (kind_of(&message) == kind::PREPARE).then(|| PrepareHeader::parse(&message).ok())?
}

fn commit(
    group: &mut Group,
    choices: &mut Choices<'_>,
    pillar: PillarId,
    sender: ReplicaId,
) -> Bytes {
    let seen = seen_prepare(group, choices.short().into());
    let (pillar, view, first, last, prepare) = match seen {
        Some(header) => (header.pillar, header.view, header.first, header.last, header.digest()),
        None => {
            let first = order(group, choices, pillar);
            (pillar, View(choices.below(3) as u64), first, first, Digest([choices.byte(); 32]))
        }
    };
    let mut commit = Commit { pillar, sender, view, first, last, prepare, proof: NO_PROOF };
    let value = CounterValue::new(view.0, last.0);
    commit.proof = independent(group, pillar, value, &commit.digest());
    commit.encode()
}

fn checkpoint(group: &mut Group, choices: &mut Choices<'_>, sender: ReplicaId) -> Bytes {
    let order = OrderNumber((1 + choices.below(6) as u64) * group.config.checkpoint_interval);
    let id = CheckpointId { order, digest: Digest([choices.byte(); 32]) };
    let pillar = group.config.checkpoint_pillar(order);
    let certified = Checkpoint::certified(sender, pillar, &id, None);
    let mac = group.trinx[usize::from(pillar.0)].certify_mac(&certified);
    let proof = mac.map_or(NO_PROOF, |mac| mac.proof);
    Checkpoint { sender, id, ending: None, proof }.encode(&group.config)
}

/// A checkpoint certificate that was seen, in a VIEW-CHANGE or a STATE.
fn seen_checkpoint(group: &Group, at: usize) -> CheckpointCertificate {
    let seen = group.old_message(at).and_then(|message| match kind_of(&message) {
        kind::VIEW_CHANGE => ViewChange::parse(&message, &group.config).ok().map(|m| m.checkpoint),
        kind::STATE => parse_state(&message, &group.config).ok(),
        _ => None,
    });
    seen.unwrap_or_default()
}

/// Headers of PREPAREs of a pillar that were seen, at most `limit`.
fn seen_set(
    group: &Group,
    choices: &mut Choices<'_>,
    pillar: PillarId,
    limit: usize,
) -> Vec<PrepareHeader> {
    let headers =
        (0..choices.below(limit + 1)).filter_map(|_| seen_prepare(group, choices.short().into()));
    headers.filter(|header| header.pillar == pillar).collect()
}

fn view_change(
    group: &mut Group,
    choices: &mut Choices<'_>,
    sender: ReplicaId,
    to: View,
) -> Option<Bytes> {
    let checkpoint = seen_checkpoint(group, choices.short().into());
    let from = View(choices.below(4) as u64);
    let mut message = ViewChange { sender, from, to, checkpoint, parts: Vec::new() };
    let config = group.config.clone();
    for pillar in config.all_pillars() {
        let prepared = seen_set(group, choices, pillar, 3);
        let digest = message.scope().digest(pillar, &[], &prepared);
        let trinx = &mut group.trinx[usize::from(pillar.0)];
        let value = CounterValue::new(to.0, 0);
        let certificate = trinx.certify_continuing(Counter::Ordering, value, &digest).ok()?;
        let (previous, proof) = (certificate.previous, certificate.proof);
        message.parts.push(Part { chain: vec![Link { to, previous, digest, proof }], prepared });
    }
    Some(message.encode())
}

/// A NEW-VIEW out of messages that were seen, mixed at will.
fn new_view(group: &mut Group, choices: &mut Choices<'_>, view: View) -> Option<Bytes> {
    let config = group.config.clone();
    let mut view_changes: Vec<ViewChange> = Vec::new();
    let mut acks: Vec<NewViewAck> = Vec::new();
    let mut template = None;
    for _ in 0..1 + choices.below(6) {
        let message = group.old_message(choices.short().into())?;
        match kind_of(&message) {
            kind::VIEW_CHANGE => view_changes.extend(ViewChange::parse(&message, &config)),
            kind::NEW_VIEW_ACK => acks.extend(NewViewAck::parse(&message, &config)),
            kind::NEW_VIEW => template = NewView::parse(&message, &config).ok(),
            _ => {}
        }
    }
    view_changes.sort_by_key(|message| message.sender);
    view_changes.dedup_by_key(|message| message.sender);
    acks.sort_by_key(|message| message.sender);
    acks.dedup_by_key(|message| message.sender);
    let mut message = template.unwrap_or(NewView {
        view,
        checkpoint: view_changes.last().map(|m| m.checkpoint.clone()).unwrap_or_default(),
        view_changes: view_changes.clone(),
        acks: Vec::new(),
        prepares: vec![Vec::new(); config.pillars.into()],
        proof: NO_PROOF,
    });
    match choices.below(4) {
        0 => message.view = view,
        1 => message.view_changes = view_changes,
        2 => message.acks = acks,
        _ => (message.view, message.view_changes, message.acks) = (view, view_changes, acks),
    }
    for pillar in config.all_pillars() {
        if choices.below(2) == 1 {
            let headers = &mut message.prepares[usize::from(pillar.0)];
            headers.extend(seen_set(group, choices, pillar, 2));
            for header in headers {
                header.view = message.view;
                header.proof = independent(group, pillar, header.value(), &header.digest());
            }
        }
    }
    let value = CounterValue::new(message.view.0, 0);
    let certified = group.trinx[0].certify_independent(Counter::NewView, value, &message.digest());
    message.proof = certified.map_or(NO_PROOF, |certificate| certificate.proof);
    Some(message.encode())
}

fn ack(
    group: &mut Group,
    choices: &mut Choices<'_>,
    sender: ReplicaId,
    view: View,
) -> Option<Bytes> {
    let checkpoint = seen_checkpoint(group, choices.short().into());
    let config = group.config.clone();
    let prepared = config.all_pillars().map(|p| seen_set(group, choices, p, 2)).collect();
    let mut message = NewViewAck { sender, view, checkpoint, prepared, proof: NO_PROOF };
    message.proof = group.trinx[0].certify_mac(&message.digest()).ok()?.proof;
    Some(message.encode())
}

/// What needs no certificate.
fn uncertified(
    group: &Group,
    choices: &mut Choices<'_>,
    what: usize,
    pillar: PillarId,
    view: View,
) -> Bytes {
    let order = OrderNumber(choices.below(6) as u64 * group.config.checkpoint_interval);
    let node = NodeId { level: choices.byte(), index: choices.below(4) as u64 };
    match what {
        9 => {
            let current = View(choices.byte().into());
            StateRequest { latest: view, current, stable: order }.encode()
        }
        10 => match choices.below(4) {
            0 => {
                let (from, held) = (OrderNumber(choices.byte().into()), choices.byte().into());
                OrderRequest { pillar, is_returning: false, view, from, held }.encode()
            }
            1 => {
                let seen = seen_prepare(group, choices.short().into());
                let digest = seen.map_or(Digest([1; 32]), |header| header.batch);
                encode_batch_request(pillar, &[digest; 2])
            }
            2 => {
                let seen = seen_prepare(group, choices.short().into());
                seen.map_or(LastSeen::Nothing, LastSeen::Prepare).encode(pillar)
            }
            _ => encode_batch(pillar, choices.take(90)),
        },
        11 => encode_state(&seen_checkpoint(group, choices.short().into())),
        _ => match choices.below(2) {
            0 => Fetch { order, nodes: vec![node; 1 + choices.below(5)] }.encode(),
            _ => {
                let content =
                    (choices.below(4) > 0).then(|| Bytes::copy_from_slice(choices.take(96)));
                Fetched { order, node, content }.encode()
            }
        },
    }
}
