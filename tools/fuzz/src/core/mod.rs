//! A group of three cores whose network, clock and third host the input plays: events in any order,
//! with valid and corrupted certificates. What correct replicas conclude must agree.
//!
//! One of the replicas may have a faulty host. Its core runs on, and its TrInX instances are
//! honest, but the input also uses them to certify what it likes (`forge`), and may send anything
//! in its name: its own messages changed, old messages of anybody, raw bytes.

mod forge;
mod group;

use bytes::{Bytes, BytesMut};
use hybster_proto::ids::{ReplicaId, RequestNumber};
use hybster_proto::output::{Input, ToControl, ToPillar};
use hybster_proto::wire::kind;
use hybster_proto::wire::request::requests_head;

use self::group::{Group, REPLICAS};
use super::Choices;

/// Events that one input may hold.
const EVENTS: usize = 600;

/// Plays an choices.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let setup = choices.byte();
    let pillars = 1 + u16::from(setup % 2);
    let traitor = [None, Some(0), Some(1), Some(2)][usize::from(setup >> 1) % 4];
    let mut group = Group::new(pillars, traitor);
    for _ in 0..EVENTS {
        if choices.is_empty() {
            break;
        }
        event(&mut group, &mut choices);
    }
}

fn event(group: &mut Group, choices: &mut Choices<'_>) {
    match choices.byte() % 16 {
        0..=2 => (0..=choices.below(16)).for_each(|_| group.deliver(0)),
        3 => group.deliver(choices.short().into()),
        4 => group.drop_message(choices.short().into()),
        5 => group.duplicate(choices.short().into()),
        6 | 7 => requests(group, choices),
        8 => group.advance(PAUSES_US[choices.below(PAUSES_US.len())]),
        9 => corrupt(group, choices),
        10 => {
            if let Some(message) = group.old_message(choices.short().into()) {
                group.send_as_traitor(choices.below(REPLICAS), message);
            }
        }
        11 => {
            let to = choices.below(REPLICAS);
            let length = choices.below(200);
            group.send_as_traitor(to, Bytes::copy_from_slice(choices.take(length)));
        }
        12 | 13 => forge::forge(group, choices),
        14 => link_up(group, choices),
        _ => {
            let (to, length) = (choices.below(REPLICAS), choices.below(100));
            let kinds = [kind::REQUESTS, kind::QUERIES, kind::STATUS_REQUEST, choices.byte()];
            let mut message = requests_head(kinds[choices.below(4)]).to_vec();
            message.extend_from_slice(choices.take(length));
            group.client_sends(to, message.into());
        }
    }
}

/// From less than a resend to more than a view change.
const PAUSES_US: [u64; 6] = [100, 5_000, 60_000, 300_000, 1_200_000, 5_000_000];

/// A client sends requests to a replica. Few sessions and numbers, so that they repeat; the
/// operation is part of the choice, so that one number may come with two operations.
fn requests(group: &mut Group, choices: &mut Choices<'_>) {
    let to = choices.below(REPLICAS);
    let mut message = requests_head(kind::REQUESTS).to_vec();
    message[1] = u8::from(choices.below(4) == 3);
    for _ in 0..=choices.below(3) {
        let shape = choices.byte();
        let number = RequestNumber(u64::from(shape >> 2 & 7));
        let forged = shape == 0xff;
        group.append_request(&mut message, (shape & 3).into(), number, shape >> 5 & 1, forged);
    }
    group.client_sends(to, message.into());
}

/// Changes a byte of a message that the faulty host has sent, wherever the certificate ends.
fn corrupt(group: &mut Group, choices: &mut Choices<'_>) {
    let (at, place, mask) = (choices.short(), choices.short(), choices.byte());
    if let Some(message) = group.traitors_message(at.into()) {
        let mut changed = BytesMut::from(&message[..]);
        let length = changed.len();
        if let Some(byte) = changed.get_mut(usize::from(place) % length.max(1)) {
            *byte ^= mask;
        }
        *message = changed.freeze();
    }
}

fn link_up(group: &mut Group, choices: &mut Choices<'_>) {
    let (at, peer) = (choices.below(REPLICAS), ReplicaId(choices.below(REPLICAS) as u16));
    if usize::from(peer.0) == at {
        return;
    }
    let config = group.config.clone();
    for pillar in config.all_pillars() {
        group.handle(at, Input::Pillar(pillar, ToPillar::PeerUp(peer)));
    }
    group.handle(at, Input::Control(ToControl::PeerUp(peer)));
}

/// What no input has made correct replicas do so far, in words.
pub fn not_reached() -> Vec<&'static str> {
    group::not_reached()
}

/// A run without faults, one that leaves a view, one in which a faulty leader equivocates, one in
/// which a replica falls behind and fetches the state, and one that leaves a view with a replica
/// that comes late.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![calm(), leaving(), treason(), falling_behind(), coming_late()]
}

fn deliver(times: usize) -> Vec<u8> {
    [0, 15].repeat(times)
}

/// Each request: to whom, not a retransmission, one of them, its shape.
fn request(to: u8, shape: u8) -> [u8; 5] {
    [6, to, 0, 0, shape]
}

fn calm() -> Vec<u8> {
    let mut calm = vec![1];
    for number in 1..8 {
        calm.extend(request(0, number << 2));
        calm.extend(deliver(2));
    }
    calm
}

fn leaving() -> Vec<u8> {
    let mut leaving = vec![0];
    leaving.extend(request(0, 4));
    leaving.extend(deliver(2));
    leaving.extend(request(1, 8));
    leaving.extend(request(2, 8));
    // Messages to and from replica 0 are lost for a while, until the others suspect it.
    for _ in 0..4 {
        leaving.extend([4, 0, 0, 4, 0, 0, 8, 4]);
        leaving.extend(deliver(1));
    }
    leaving.extend(deliver(6));
    leaving.extend([8, 2, 0, 15, 8, 3]);
    leaving.extend(deliver(6));
    leaving.extend(request(1, 12));
    leaving.extend(deliver(4));
    leaving
}

fn treason() -> Vec<u8> {
    let mut treason = vec![2];
    treason.extend(request(0, 4));
    for forged in 0..8 {
        treason.extend([12, forged, 1, 0, forged, 1, 2, 3]);
        treason.extend([13, forged, 2, 0, forged, 3, 2, 1]);
        treason.extend(deliver(1));
    }
    treason.extend([9, 0, 0, 70, 0, 1, 10, 1, 0, 2, 8, 5]);
    treason.extend(deliver(8));
    treason
}

/// An input that is made while it runs, so that it can depend on the messages in transit.
struct Script {
    group: Group,
    choices: Vec<u8>,
}

impl Script {
    fn new(pillars: u16) -> Self {
        Self { group: Group::new(pillars, None), choices: vec![pillars as u8 - 1] }
    }

    fn play(&mut self, bytes: &[u8]) {
        event(&mut self.group, &mut Choices(bytes));
        self.choices.extend_from_slice(bytes);
    }

    /// Delivers what is on its way, but at most this many messages; what a replica that is cut
    /// off sends and gets is lost.
    fn settle(&mut self, cut_off: Option<usize>, messages: usize) {
        for _ in 0..messages {
            let Some((from, to)) = self.group.oldest_message() else { break };
            let is_lost = cut_off == Some(from) || cut_off == Some(to);
            self.play(if is_lost { &[4, 0, 0] } else { &[0, 0] });
        }
    }
}

fn falling_behind() -> Vec<u8> {
    let mut script = Script::new(1);
    for number in 1..8 {
        script.play(&request(0, number << 2));
        script.settle(Some(2), 40);
    }
    for link in [[14, 2, 0], [14, 0, 2], [14, 2, 1], [14, 1, 2]] {
        script.play(&link);
    }
    for pause in [1, 2, 3, 3] {
        script.settle(None, 40);
        script.play(&[8, pause]);
    }
    script.settle(None, 40);
    script.choices
}

fn coming_late() -> Vec<u8> {
    let mut script = Script::new(1);
    script.play(&request(0, 4));
    script.settle(None, 20);
    // Replica 0, the leader, prepares something and is gone.
    script.play(&request(0, 8));
    script.settle(None, 3);
    script.play(&request(1, 8));
    script.play(&request(2, 8));
    for pause in [4, 4, 5] {
        script.play(&[8, pause]);
        script.settle(Some(0), 30);
    }
    for link in [[14, 0, 1], [14, 1, 0]] {
        script.play(&link);
    }
    script.play(&request(1, 12));
    script.settle(None, 40);
    script.choices
}
