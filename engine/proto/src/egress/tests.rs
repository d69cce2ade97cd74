//! One egress against links that a test plays.

use super::*;
use crate::ids::{ClientId, OrderNumber, RequestNumber, SessionId, View};
use crate::output::{Cause, Reply, Watermark};
use crate::wire::relay::parse_relayed;
use crate::wire::{ReplyStatus, RequestTag, kind};

const LEADER: ReplicaId = ReplicaId(0);
const OWN: ReplicaId = ReplicaId(1);
const OTHER: ReplicaId = ReplicaId(2);
const CLIENT: ClientLink = ClientLink { client: ClientId(3), incarnation: 7 };
const LATE_US: u64 = 5_000;

/// What the links got.
#[derive(Default)]
struct Played {
    sent: Vec<(ReplicaId, Bytes)>,
    straight: Vec<Vec<u8>>,
    sent_before_first_reply: Option<usize>,
    relayed: Vec<Vec<u8>>,
    closed: Vec<u32>,
    unsent: usize,
    state: LinkState,
}

impl Links<u32> for Played {
    fn unsent_bytes(&mut self, _: ReplicaId) -> usize {
        self.unsent
    }

    fn link_state(&mut self, _: ReplicaId) -> LinkState {
        self.state
    }

    fn send(&mut self, peer: ReplicaId, message: Bytes) -> bool {
        self.sent.push((peer, message));
        true
    }

    fn send_to_client(&mut self, _: u32, message: &[u8]) {
        self.sent_before_first_reply.get_or_insert(self.sent.len());
        self.straight.push(message.to_vec());
    }

    fn seal_for_client(&mut self, _: u32, message: &[u8], envelope: &mut Vec<u8>) -> bool {
        envelope.extend_from_slice(message);
        true
    }

    fn relay_to_client(&mut self, _: u32, head: &[u8], envelope: &[u8]) -> bool {
        self.relayed.push([head, envelope].concat());
        true
    }

    fn close_client(&mut self, link: u32) {
        self.closed.push(link);
    }
}

impl Played {
    /// What went to a peer since the last call, by its second byte.
    fn to(&mut self, peer: ReplicaId) -> Vec<u8> {
        let sent = self.sent.extract_if(.., |(to, _)| *to == peer);
        sent.map(|(_, message)| message[1]).collect()
    }
}

fn egress(limits: EgressLimits) -> Egress<u32> {
    let mut egress = Egress::new(Arc::new(GroupConfig::default()), OWN, limits);
    egress.peer_up(LEADER);
    egress.peer_up(OTHER);
    egress.client_up(CLIENT, 0);
    egress
}

fn message(kind: u8, name: u8) -> Bytes {
    Bytes::from(vec![kind, name, 0, 0])
}

fn ordering(order: u64) -> SendTag {
    SendTag::Ordering(View(0), OrderNumber(order))
}

fn send(to: Destination, message: Bytes, order: u64) -> Network {
    Network::Send { to, message, tag: ordering(order), is_new: false }
}

fn replies(cause: Cause, count: u64) -> ReplyQueue {
    let session = SessionId { client: CLIENT.client, session: CLIENT.incarnation << 14 };
    assert_eq!(session.incarnation(), CLIENT.incarnation);
    let mut queue = ReplyQueue::default();
    for number in 0..count {
        queue.push(&Reply {
            session,
            number: RequestNumber(number),
            tag: RequestTag::new(number),
            view: View(0),
            cause,
            status: ReplyStatus::Done,
            result: b"r",
        });
    }
    queue
}

#[test]
fn a_commit_that_a_follower_does_not_need_is_late_but_comes() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    egress.apply(send(Destination::AllPeers, message(kind::COMMIT, 1), 1), Time(10), &mut links);
    egress.flush(Time(10), &mut links);
    assert_eq!((links.to(LEADER), links.to(OTHER)), (vec![1], vec![]));
    assert_eq!(egress.deadline(), Some(Time(10 + LATE_US)));
    egress.flush(Time(9 + LATE_US), &mut links);
    assert_eq!(links.to(OTHER), []);
    egress.flush(Time(10 + LATE_US), &mut links);
    assert_eq!((links.to(OTHER), egress.deadline()), (vec![1], None));
}

#[test]
fn what_is_late_goes_along_in_order_with_what_is_urgent() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    egress.apply(send(Destination::AllPeers, message(kind::COMMIT, 1), 1), Time(0), &mut links);
    egress.flush(Time(0), &mut links);
    let urgent = Destination::Peer(OTHER);
    egress.apply(send(urgent, message(kind::CHECKPOINT, 2), 1), Time(1), &mut links);
    egress.flush(Time(1), &mut links);
    assert_eq!((links.to(OTHER), egress.deadline()), (vec![1, 2], None));
}

#[test]
fn no_prepare_is_late_while_clients_query_nor_if_its_first_have_no_link() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    let first: Peers = [OTHER].into_iter().collect();
    let mut prepare = |egress: &mut Egress<u32>, order: u8| {
        let message = message(kind::PREPARE, order);
        egress.apply(send(Destination::Thrifty(first), message, order.into()), Time(0), &mut links);
        egress.flush(Time(0), &mut links);
        (links.to(LEADER).len(), links.to(OTHER).len())
    };
    assert_eq!(prepare(&mut egress, 1), (0, 1));
    egress.queried();
    // The one before goes along.
    assert_eq!(prepare(&mut egress, 2), (2, 1));
    for _ in 1..PROMPT_PREPARES {
        assert!(egress.is_prompt());
        prepare(&mut egress, 3);
    }
    assert!(!egress.is_prompt());
    assert_eq!(prepare(&mut egress, 4), (0, 1));
    egress.peer_down(OTHER);
    assert_eq!(prepare(&mut egress, 5), (2, 0));
}

#[test]
fn the_link_of_a_client_is_closed_if_it_is_up() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    let other = ClientLink { incarnation: CLIENT.incarnation + 1, ..CLIENT };
    for client in [other, CLIENT] {
        egress.apply(Network::CloseClient(client), Time(0), &mut links);
    }
    assert_eq!(links.closed, [0]);
}

#[test]
fn no_message_waits_twice_and_passed_ones_are_withdrawn() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    egress.peer_down(OTHER);
    for _ in 0..2 {
        for order in 1..=4 {
            let commit = message(kind::COMMIT, order);
            let to = Destination::Peer(OTHER);
            egress.apply(send(to, commit, order.into()), Time(0), &mut links);
        }
    }
    egress.check_invariants(true);
    assert_eq!(egress.counters().duplicates, 4);
    let mark = Watermark { order: OrderNumber(2), view: View(0) };
    egress.apply(Network::Withdraw(mark), Time(0), &mut links);
    egress.check_invariants(true);
    assert_eq!(egress.counters().withdrawn, 2);
    egress.peer_up(OTHER);
    egress.flush(Time(0), &mut links);
    assert_eq!((links.to(OTHER), egress.queued_bytes(OTHER)), (vec![3, 4], 0));
}

#[test]
fn a_message_is_not_sent_again_while_it_is_on_its_way() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    let mut again = |egress: &mut Egress<u32>, outstanding_bytes, round_trip_us, at| {
        links.state = LinkState { outstanding_bytes, round_trip_us };
        let prepare = message(kind::PREPARE, 1);
        egress.apply(send(Destination::Peer(OTHER), prepare, 1), Time(at), &mut links);
        egress.flush(Time(at), &mut links);
        links.to(OTHER).len()
    };
    assert_eq!(again(&mut egress, 0, 500, 0), 1);
    // No answer can have come back yet.
    assert_eq!(again(&mut egress, 0, 500, 499), 0);
    // The link has not brought it there.
    assert_eq!(again(&mut egress, 8, 500, 60_000), 0);
    assert_eq!(egress.counters().paced, 2);
    assert_eq!(again(&mut egress, 0, 500, 60_000), 1);
    // What an earlier link was given may be lost.
    egress.peer_up(OTHER);
    assert_eq!(again(&mut egress, 8, 500, 60_001), 1);
}

#[test]
fn the_first_copy_of_a_message_paces_the_later_ones_whatever_was_sent_between() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    links.state = LinkState { outstanding_bytes: 0, round_trip_us: 500 };
    let mut send = |egress: &mut Egress<u32>, order: u64, is_new| {
        let message = message(kind::PREPARE, order as u8);
        let effect =
            Network::Send { to: Destination::Peer(OTHER), message, tag: ordering(order), is_new };
        egress.apply(effect, Time(0), &mut links);
        egress.check_invariants(true);
        egress.flush(Time(0), &mut links);
        links.to(OTHER).len()
    };
    // More than are remembered, so that the oldest are forgotten.
    let sent: usize = (0..1500).map(|order| send(&mut egress, order, true)).sum();
    assert_eq!(sent, 1500);
    assert_eq!(send(&mut egress, 1499, false), 0);
    assert_eq!(send(&mut egress, 476, false), 0);
    assert_eq!(send(&mut egress, 475, false), 1);
    assert_eq!(egress.counters().paced, 2);
}

#[test]
fn what_a_link_has_no_room_for_waits_here() {
    let limits = EgressLimits { link_window_bytes: 16, queue_bytes: 32, ..Default::default() };
    let (mut egress, mut links) = (egress(limits), Played::default());
    for order in 1..=6 {
        let prepare = message(kind::PREPARE, order);
        egress.apply(send(Destination::Peer(OTHER), prepare, order.into()), Time(0), &mut links);
    }
    // Four have room, two have not.
    assert_eq!((egress.queued_bytes(OTHER), egress.counters().dropped), (32, 2));
    egress.flush(Time(0), &mut links);
    assert_eq!(links.to(OTHER), [1, 2]);
    links.unsent = 16;
    egress.flush(Time(1), &mut links);
    assert_eq!((links.to(OTHER), egress.deadline()), (vec![], None));
    links.unsent = 8;
    egress.flush(Time(2), &mut links);
    links.unsent = 0;
    egress.flush(Time(3), &mut links);
    assert_eq!((links.to(OTHER), egress.queued_bytes(OTHER)), (vec![3, 4], 0));
    egress.check_invariants(true);
}

#[test]
fn a_single_reply_goes_through_the_leader_if_something_goes_there() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    let mut answer = |egress: &mut Egress<u32>, cause, count, busy: Option<u8>| {
        if let Some(order) = busy {
            let commit = message(kind::COMMIT, order);
            let to = Destination::Peer(LEADER);
            egress.apply(send(to, commit, order.into()), Time(0), &mut links);
        }
        egress.reply(&replies(cause, count), &mut links);
        egress.flush(Time(0), &mut links);
        let relays = links.sent.drain(..).filter(|(_, m)| kind_of(m) == kind::RELAY).count();
        (relays, std::mem::take(&mut links.straight).len())
    };
    assert_eq!(answer(&mut egress, Cause::Executed, 1, Some(1)), (1, 0));
    assert_eq!(answer(&mut egress, Cause::Executed, 1, None), (0, 1));
    assert_eq!(answer(&mut egress, Cause::Executed, 2, Some(2)), (0, 1));
    assert_eq!(answer(&mut egress, Cause::Queried, 1, Some(3)), (0, 1));
    // A client that asks again is answered straight, then and for a while.
    assert_eq!(answer(&mut egress, Cause::AskedAgain, 1, Some(4)), (0, 1));
    assert_eq!(answer(&mut egress, Cause::Executed, 1, Some(5)), (0, 1));
    assert_eq!(egress.counters().relayed, 1);
}

#[test]
fn peers_are_served_before_clients() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    egress.reply(&replies(Cause::Executed, 2), &mut links);
    let to = Destination::AllPeers;
    egress.apply(send(to, message(kind::PREPARE, 1), 1), Time(0), &mut links);
    egress.flush(Time(0), &mut links);
    assert_eq!((links.sent.len(), links.straight.len()), (2, 1));
    assert_eq!(links.sent_before_first_reply, Some(2));
}

#[test]
fn relays_reach_their_client_or_are_counted_as_lost() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    let mut relay = Vec::new();
    begin_relay(&mut relay, CLIENT);
    relay.extend_from_slice(b"sealed");
    egress.relay(OTHER, &relay, &mut links).unwrap();
    let (from, envelope) = parse_relayed(&links.relayed[0]).unwrap();
    assert_eq!((from, envelope), (OTHER, &b"sealed"[..]));
    egress.client_down(CLIENT, 0);
    egress.relay(OTHER, &relay, &mut links).unwrap();
    assert_eq!((links.relayed.len(), egress.counters().lost_replies), (1, 1));
    assert_eq!(egress.relay(OTHER, &relay[..5], &mut links), Err(Reject::Malformed));
}

#[test]
fn a_newer_link_of_a_client_takes_the_place_of_the_old_one() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    egress.client_up(CLIENT, 1);
    // The end of the old one comes late.
    egress.client_down(CLIENT, 0);
    assert_eq!(egress.client_links(), 1);
    egress.reply(&replies(Cause::AskedAgain, 3), &mut links);
    egress.client_down(CLIENT, 1);
    egress.flush(Time(0), &mut links);
    assert_eq!((links.straight.len(), egress.client_links()), (0, 0));
    egress.reply(&replies(Cause::AskedAgain, 3), &mut links);
    assert_eq!(egress.counters().lost_replies, 3);
}

/// A view-change message that is sent again and again leaves the wire to others: one of 25 kB takes 50 ms
/// on a wire of which nothing is known.
#[test]
fn what_is_sent_again_takes_a_part_of_the_wire_at_most() {
    let (mut egress, mut links) = (egress(EgressLimits::default()), Played::default());
    let mut large = vec![2; 25_000];
    large[0] = kind::VIEW_CHANGE;
    let (message, tag) = (Bytes::from(large), SendTag::ViewChange(View(1)));
    let mut copies = 0;
    for now in (0..100).map(|turn| Time(1 + turn * 100_000)) {
        let to = Destination::Peer(OTHER);
        let again = Network::Send { to, message: message.clone(), tag, is_new: false };
        egress.apply(again, now, &mut links);
        egress.flush(now, &mut links);
        copies += links.to(OTHER).len();
    }
    assert!((10..=13).contains(&copies), "{copies} of 100");
}

/// What changes views or moves windows goes before batches that wait, in its own order.
#[test]
fn what_changes_views_goes_ahead() {
    let mut egress = egress(EgressLimits { link_window_bytes: 10, ..EgressLimits::default() });
    let mut links = Played { unsent: 10, ..Played::default() };
    let now = Time(1);
    let to = Destination::Peer(OTHER);
    for (name, order) in [(1, 1), (2, 2)] {
        egress.apply(send(to, message(kind::PREPARE, name), order), now, &mut links);
    }
    let ahead = [
        (kind::CHECKPOINT, 3, SendTag::Checkpoint(OrderNumber(1))),
        (kind::VIEW_CHANGE, 4, SendTag::ViewChange(View(1))),
        (kind::NEW_VIEW, 5, SendTag::NewView(View(1))),
    ];
    for (kind, name, tag) in ahead {
        let message = message(kind, name);
        egress.apply(Network::Send { to, message, tag, is_new: false }, now, &mut links);
        egress.check_invariants(true);
    }
    egress.flush(now, &mut links);
    assert_eq!(links.to(OTHER), []);
    // What is withdrawn in front makes no room for others there.
    let mark = Watermark { order: OrderNumber(2), view: View(1) };
    egress.apply(Network::Withdraw(mark), now, &mut links);
    egress.check_invariants(true);
    egress.apply(send(to, message(kind::PREPARE, 6), 3), now, &mut links);
    egress.check_invariants(true);
    links.unsent = 0;
    while egress.queued_bytes(OTHER) > 0 {
        egress.flush(now, &mut links);
    }
    assert_eq!(links.to(OTHER), [5, 6]);
}
