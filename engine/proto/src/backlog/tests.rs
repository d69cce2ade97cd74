//! A backlog with links of the test's own.

use super::*;
use crate::ids::View;

static RESULT: [u8; 1 << 17] = [7; 1 << 17];

/// Links with so much room each, and what was sent: to which client, which number, how long.
#[derive(Default)]
struct Links {
    room: BTreeMap<ClientLink, usize>,
    sent: Vec<(u32, u64, usize, ReplyStatus)>,
    /// Links that are registered.
    awaited: Vec<ClientLink>,
}

impl ClientRoom for Links {
    fn room(&self, client: ClientLink) -> Option<usize> {
        self.room.get(&client).copied()
    }

    fn await_room(&mut self, client: ClientLink) {
        assert!(!self.awaited.contains(&client), "it is registered already");
        self.awaited.push(client);
    }

    fn send(&mut self, reply: &Reply<'_>) {
        let length = reply.result.len();
        self.sent.push((reply.session.client.0, reply.number.0, length, reply.status));
        if let Some(room) = self.room.get_mut(&reply.link()) {
            *room = room.saturating_sub(length);
        }
    }
}

fn link(client: u32) -> ClientLink {
    ClientLink { client: ClientId(client), incarnation: 3 }
}

fn reply(client: u32, number: u64, cause: Cause, result: &[u8]) -> Reply<'_> {
    Reply {
        session: SessionId::new(ClientId(client), 3, 5),
        number: RequestNumber(number),
        tag: RequestTag::new(number),
        view: View(0),
        cause,
        status: ReplyStatus::Done,
        result,
    }
}

struct Bench {
    backlog: Backlog,
    links: Links,
    now: Time,
}

impl Bench {
    fn new(rooms: &[(u32, usize)]) -> Self {
        let config = Arc::new(GroupConfig::default());
        let room = rooms.iter().map(|(client, room)| (link(*client), *room)).collect();
        Self {
            backlog: Backlog::new(&config),
            links: Links { room, ..Links::default() },
            now: Time(1),
        }
    }

    fn give(&mut self, reply: &Reply<'_>) {
        let mut queue = ReplyQueue::default();
        queue.push(reply);
        if self.backlog.concerns(&queue) {
            self.backlog.sort(&queue, self.now, &mut self.links);
        } else {
            self.links.send(reply);
        }
        self.backlog.check_all_invariants();
    }

    fn flush(&mut self) -> Vec<String> {
        let mut tell = Vec::new();
        self.backlog.flush(&mut self.links, &mut tell);
        self.backlog.check_all_invariants();
        let name = |input: &Input| match input {
            Input::Execution(ToExecution::Recall { session, number, .. }) => {
                format!("recall {} {}", session.client.0, number.0)
            }
            Input::Intake(ToIntake::Held { client, is_held }) => {
                format!("{} {}", if *is_held { "hold" } else { "release" }, client.0)
            }
            other => panic!("{other:?}"),
        };
        tell.iter().map(name).collect()
    }

    /// A link has so much room; whoever waits for it is told.
    fn set_room(&mut self, client: u32, room: usize) {
        self.links.room.insert(link(client), room);
        self.links.awaited.retain(|awaited| *awaited != link(client));
        self.backlog.client_room(link(client));
    }

    fn sent(&mut self) -> Vec<(u32, u64)> {
        self.links.sent.drain(..).map(|(client, number, ..)| (client, number)).collect()
    }
}

/// Whatever a client asks for: no more bytes than its link takes, none lost, each once, in order.
#[test]
fn what_has_no_room_waits_by_name_and_holds_its_client() {
    let mut bench = Bench::new(&[(1, 2 * RESULT.len()), (2, 1 << 20)]);
    for number in 1..=5 {
        bench.give(&reply(1, number, Cause::Executed, &RESULT));
    }
    bench.give(&reply(2, 1, Cause::Executed, &RESULT));
    // Small ones do not overtake.
    bench.give(&reply(1, 6, Cause::Executed, b"small"));
    assert_eq!(bench.sent(), [(1, 1), (1, 2), (2, 1)]);
    assert_eq!(bench.flush(), ["hold 1"]);
    assert_eq!(bench.backlog.waiting(), 4);
    // As much room as two of the longest may need, so two are recalled.
    bench.set_room(1, (1 << 20) + 1);
    assert_eq!(bench.flush(), ["recall 1 3", "recall 1 4"]);
    assert_eq!(bench.flush(), [""; 0]);
    bench.give(&reply(1, 3, Cause::Recalled, &RESULT));
    bench.give(&reply(1, 4, Cause::Recalled, &RESULT));
    bench.set_room(1, 8 << 20);
    assert_eq!(bench.flush(), ["recall 1 5", "recall 1 6", "release 1"]);
    bench.give(&reply(1, 5, Cause::Recalled, &RESULT));
    bench.give(&reply(1, 6, Cause::Recalled, b"small"));
    assert_eq!(bench.sent(), [(1, 3), (1, 4), (1, 5), (1, 6)]);
    assert_eq!(bench.backlog.waiting(), 0);
}

#[test]
fn a_client_that_asks_again_makes_no_copies() {
    let mut bench = Bench::new(&[(1, RESULT.len())]);
    bench.give(&reply(1, 1, Cause::Executed, &RESULT));
    bench.give(&reply(1, 2, Cause::Executed, &RESULT));
    for number in [1, 2, 1, 2] {
        bench.give(&reply(1, number, Cause::Deferred, b""));
    }
    assert_eq!((bench.sent(), bench.backlog.waiting()), (vec![(1, 1)], 1));
    assert_eq!(bench.backlog.counters().repeated, 4);
    // The link has taken all, long ago: it is given once more, if it is asked for.
    bench.set_room(1, 8 << 20);
    assert_eq!(bench.flush(), ["hold 1", "recall 1 2", "release 1"]);
    bench.give(&reply(1, 2, Cause::Recalled, &RESULT));
    bench.give(&reply(1, 1, Cause::Deferred, b""));
    assert_eq!(bench.flush(), [""; 0]);
    bench.now = bench.now.after_us(SENT_US);
    bench.give(&reply(1, 1, Cause::Deferred, b""));
    assert_eq!(bench.flush(), ["hold 1", "recall 1 1", "release 1"]);
    // A new link got nothing yet.
    bench.backlog.client_up(link(1));
    bench.give(&reply(1, 2, Cause::Deferred, b""));
    assert_eq!(bench.flush(), ["hold 1", "recall 1 2", "release 1"]);
}

#[test]
fn links_take_turns_and_what_is_recalled_is_bounded() {
    let mut bench = Bench::new(&[(1, 0), (2, 0), (3, 0)]);
    for client in 1..=3 {
        for number in 1..=20 {
            bench.give(&reply(client, number, Cause::Executed, &RESULT));
        }
    }
    assert_eq!(bench.flush(), ["hold 1", "hold 2", "hold 3"]);
    for client in [1, 3] {
        bench.set_room(client, 64 << 20);
    }
    let recalled = bench.flush();
    let of = |client: u32| {
        let name = format!("recall {client} ");
        recalled.iter().filter(|it| it.starts_with(&name)).count()
    };
    assert_eq!((of(1), of(2), of(3)), (4, 0, 4));
}

/// A link may have no room without being called full: by a few bytes, or by what was sealed since.
#[test]
fn whoever_waits_is_registered_with_the_link_or_has_replies_on_their_way() {
    let mut bench = Bench::new(&[(1, 0), (2, 3 << 20)]);
    for client in [1, 2] {
        for number in 1..=20 {
            bench.give(&reply(client, number, Cause::Deferred, b""));
        }
    }
    bench.flush();
    assert_eq!(bench.links.awaited, [link(1)]);
    // Three are recalled for the other, and there is no room for a fourth of the longest. They come, and
    // leave some room and then none.
    bench.give(&reply(2, 1, Cause::Recalled, &RESULT));
    assert_eq!(bench.flush(), ["recall 2 4"]);
    for number in 2..=4 {
        bench.give(&reply(2, number, Cause::Recalled, &RESULT));
    }
    bench.links.room.insert(link(2), 0);
    assert_eq!(bench.flush(), [""; 0]);
    assert_eq!(bench.links.awaited, [link(1), link(2)]);
    assert_eq!(bench.flush(), [""; 0]);
    bench.set_room(1, 1);
    assert_eq!(bench.flush(), ["recall 1 1"]);
    bench.backlog.client_down(link(2));
    bench.backlog.check_all_invariants();
}

#[test]
fn a_link_that_goes_takes_what_waited_for_it_along() {
    let mut bench = Bench::new(&[(1, 0)]);
    bench.give(&reply(1, 1, Cause::Executed, &RESULT));
    bench.backlog.client_full(link(1));
    assert_eq!(bench.flush(), ["hold 1"]);
    bench.backlog.client_down(link(1));
    assert_eq!(bench.flush(), ["release 1"]);
    assert_eq!(bench.backlog.waiting(), 0);
    bench.links.room.clear();
    bench.give(&reply(1, 2, Cause::Executed, &RESULT));
    assert_eq!(bench.sent(), [(1, 2)], "the driver counts it as lost");
}

#[test]
fn a_query_without_room_is_to_be_ordered() {
    let mut bench = Bench::new(&[(1, 0)]);
    bench.give(&reply(1, 1, Cause::Queried, &RESULT));
    bench.give(&reply(1, 2, Cause::Queried, b"small"));
    let expected = [(1, 1, 0, ReplyStatus::OrderIt), (1, 2, 5, ReplyStatus::Done)];
    assert_eq!(bench.links.sent, expected);
}

#[test]
fn names_are_bounded() {
    let mut bench = Bench::new(&[(1, 0)]);
    let mut queue = ReplyQueue::default();
    for number in 1..=LINK_NAMES as u64 + 10 {
        queue.push(&reply(1, number, Cause::Deferred, b""));
    }
    bench.backlog.sort(&queue, bench.now, &mut bench.links);
    bench.backlog.check_all_invariants();
    assert_eq!((bench.backlog.waiting(), bench.backlog.counters().dropped), (LINK_NAMES, 10));
}
