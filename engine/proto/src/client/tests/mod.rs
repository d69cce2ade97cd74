//! Tests of the client core: certificates, liars, windows, queries; timeouts in [`resend`].

mod proofs;
mod resend;
mod rules;

use std::sync::Arc;

use hybster_tss::{ClientKey, MacAlgorithm};

use super::*;
use crate::wire::kind;
use crate::wire::reply::{append, begin};
use crate::wire::request::{RequestProof, RequestRef, Requests, is_retransmission, requests_body};
use crate::wire::{ReplyEntry, ReplyStatus, RequestTag, kind_of};

const INCARNATION: u64 = 77;
const RESEND_US: u64 = 50_000;

struct Client {
    core: ClientCore,
    out: ClientOutput,
    now: Time,
}

/// A request as a replica sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    replica: u16,
    query: bool,
    again: bool,
    session: u64,
    number: u64,
    operation: Vec<u8>,
}

impl Client {
    fn new(replicas: u16, faults: u16, window: u32) -> Self {
        let config = GroupConfig {
            replicas,
            faults,
            session_window: window,
            resend_us: RESEND_US,
            ..GroupConfig::default()
        };
        config.validate().unwrap();
        let key = ClientKey::from_bytes(MacAlgorithm::Blake3, [7; 32]);
        let core = ClientCore::new(Arc::new(config), ClientId(5), key, INCARNATION, 100, 1);
        Self { core, out: ClientOutput::new(replicas), now: Time(1_000_000) }
    }

    fn submit(&mut self, session: u32, operation: &[u8]) -> u64 {
        let kind = RequestKind::Ordered;
        self.core.submit(session, operation, kind, self.now, &mut self.out).unwrap().0
    }

    fn query(&mut self, session: u32, operation: &[u8]) -> u64 {
        let kind = RequestKind::ReadOnly;
        self.core.submit(session, operation, kind, self.now, &mut self.out).unwrap().0
    }

    /// Takes what was sent.
    fn sent(&mut self) -> Vec<Seen> {
        let key = ClientKey::from_bytes(MacAlgorithm::Blake3, [7; 32]);
        let mut seen = Vec::new();
        for (replica, message) in self.core.outgoing(&mut self.out) {
            let query = kind_of(message) == kind::QUERIES;
            for request in Requests::new(requests_body(message).unwrap()) {
                let request: RequestRef<'_> = request.unwrap();
                let mac = if query { [0; REQUEST_MAC] } else { key.tag(request.covered) };
                assert_eq!(request.proof(), RequestProof::Mac(&mac));
                assert_eq!(request.session.client, ClientId(5));
                seen.push(Seen {
                    replica: replica.0,
                    query,
                    again: is_retransmission(message),
                    session: request.session.session,
                    number: request.number.0,
                    operation: request.operation.to_vec(),
                });
            }
        }
        self.out.clear_messages();
        seen
    }

    fn targets(&mut self) -> Vec<u16> {
        self.sent().iter().map(|s| s.replica).collect()
    }

    fn reply_from(&mut self, link: u16, said: u16, view: u64, entry: &ReplyEntry<'_>) {
        let mut message = Vec::new();
        begin(&mut message, ReplicaId(said), View(view));
        append(&mut message, entry);
        self.core.handle(ReplicaId(link), &message, self.now, &mut self.out);
    }

    fn reply(&mut self, r: u16, session: u32, number: u64, status: ReplyStatus, result: &[u8]) {
        let entry = ReplyEntry { status, result, ..self.entry(session, number) };
        self.reply_from(r, r, 0, &entry);
    }

    /// An empty reply to a request of the client.
    fn entry(&mut self, index: u32, number: u64) -> ReplyEntry<'static> {
        self.core.prove(&mut self.out);
        let (number, status) = (RequestNumber(number), ReplyStatus::Done);
        let core = &self.core;
        let slot = core.table.slots().iter().find(|slot| {
            let numbers = [slot.number, core.query_number(slot.number)];
            slot.session == index && numbers.contains(&number)
        });
        let tag = slot.map_or(RequestTag::new(0), |slot| slot.tag);
        ReplyEntry { index, tag, number, status, result: b"" }
    }

    fn done(&mut self, r: u16, session: u32, number: u64, result: &[u8]) {
        self.reply(r, session, number, ReplyStatus::Done, result);
    }

    /// Takes the completions.
    fn finished(&mut self) -> Vec<(u32, u64, Outcome, Vec<u8>)> {
        let list = self.out.completions.iter();
        let list = list.map(|c| (c.session, c.number.0, c.outcome, c.result.to_vec())).collect();
        self.out.completions.clear();
        list
    }

    fn wait(&mut self, us: u64) {
        self.now = self.now.after_us(us);
        self.core.tick(self.now, &mut self.out);
    }

    /// Waits until the core wants a tick.
    fn next_tick(&mut self) -> u64 {
        let due = self.core.deadline().unwrap();
        let waited = due.since_us(self.now);
        self.wait(waited);
        waited
    }
}

#[test]
fn a_request_goes_to_the_leader_and_ends_with_two_equal_replies() {
    let mut c = Client::new(3, 1, 1);
    let number = c.submit(4, b"op");
    let session = SessionId::new(ClientId(5), INCARNATION, 4).session;
    let operation = b"op".to_vec();
    assert_eq!(
        c.sent(),
        [Seen { replica: 0, query: false, again: false, session, number, operation }]
    );
    c.done(2, 4, number, b"x");
    assert!(c.out.completions.is_empty());
    c.now = c.now.after_us(30);
    c.done(0, 4, number, b"x");
    let completion = c.out.completions.iter().next().unwrap();
    assert_eq!(completion.submitted_at, Time(1_000_000));
    assert_eq!(c.finished(), [(4, number, Outcome::Done, b"x".to_vec())]);
    // The third reply is late, and the next request has the next number.
    c.done(1, 4, number, b"x");
    assert_eq!((c.core.stats().late, c.core.outstanding()), (1, 0));
    assert_eq!(c.submit(4, b""), number + 1);
    assert_eq!(c.core.stats().accepted, 1);
    assert_eq!(c.core.deadline().map(|t| t.since_us(c.now)), Some(2 * RESEND_US));
}

#[test]
fn the_unreplicated_group_needs_one_reply() {
    let mut c = Client::new(1, 0, 1);
    let number = c.submit(0, b"a");
    assert_eq!(c.targets(), [0]);
    c.done(0, 0, number, b"result");
    assert_eq!(c.finished(), [(0, number, Outcome::Done, b"result".to_vec())]);
    let number = c.query(0, b"q");
    let sent = c.sent();
    assert!(sent.len() == 1 && sent[0].query);
    c.done(0, 0, sent[0].number, b"r");
    assert_eq!(c.finished(), [(0, number, Outcome::Done, b"r".to_vec())]);
    // Its timeouts and its retransmissions work as well.
    c.submit(0, b"b");
    assert_eq!((c.targets(), c.next_tick(), c.targets()), (vec![0], 100_000, vec![0]));
}

#[test]
fn one_replica_counts_once() {
    let mut c = Client::new(3, 1, 1);
    let number = c.submit(0, b"");
    for _ in 0..5 {
        c.done(1, 0, number, b"lie");
    }
    assert_eq!((c.finished().len(), c.core.stats().duplicates), (0, 4));
    // Contradicting itself does not help the liar, even after a correct replica spoke.
    c.done(1, 0, number, b"other");
    c.done(0, 0, number, b"other");
    assert_eq!((c.finished().len(), &c.core.stats().mismatching[..]), (0, &[0, 1, 0][..]));
    c.done(1, 0, number, b"other");
    assert_eq!((c.finished().len(), &c.core.stats().mismatching[..]), (0, &[0, 2, 0][..]));
    c.done(2, 0, number, b"other");
    assert_eq!(c.finished(), [(0, number, Outcome::Done, b"other".to_vec())]);
    // Its first reply differs from the accepted one.
    assert_eq!(c.core.stats().mismatching, [0, 3, 0]);
}

#[test]
fn two_liars_of_five_that_differ_or_agree_do_not_win() {
    for agree in [false, true] {
        let mut c = Client::new(5, 2, 1);
        let number = c.submit(0, b"");
        c.done(0, 0, number, b"lie");
        c.done(1, 0, number, if agree { b"lie" } else { b"eil" });
        c.done(2, 0, number, b"true");
        c.done(3, 0, number, b"true");
        assert!(c.out.completions.is_empty());
        c.done(4, 0, number, b"true");
        assert_eq!(c.finished(), [(0, number, Outcome::Done, b"true".to_vec())]);
        assert_eq!(c.core.stats().mismatching, [1, 1, 0, 0, 0]);
        // The slot is used again without a trace of the dispute.
        let number = c.submit(0, b"");
        (0..3).for_each(|r| c.done(r, 0, number, b""));
        assert_eq!(c.finished().len(), 1);
    }
}

#[test]
fn replies_to_what_was_never_asked_are_counted_and_ignored() {
    let mut c = Client::new(3, 1, 1);
    let number = c.submit(3, b"");
    c.done(1, 3, number + 1, b"");
    c.done(1, 3, number - 1, b"");
    c.done(1, 3, 0, b"");
    c.done(1, 3, u64::MAX, b"");
    c.done(1, 4, number, b"");
    c.done(1, 100, number, b"");
    assert_eq!(c.core.stats().unknown, [0, 6, 0]);
    // A reply to the query number of an ordered request comes too late for the query at best.
    c.done(1, 3, 1, b"");
    assert_eq!((c.core.stats().late, c.core.outstanding()), (1, 1));
    // An ordered request is never answered with "order it".
    c.reply(2, 3, number, ReplyStatus::OrderIt, b"");
    assert_eq!(c.core.stats().mismatching, [0, 0, 1]);
}

#[test]
fn replies_about_another_clients_request_are_none_to_this_one() {
    let mut c = Client::new(3, 1, 1);
    for kind in [RequestKind::Ordered, RequestKind::ReadOnly] {
        let number = c.core.submit(0, b"mine", kind, c.now, &mut c.out).unwrap();
        let mine = match kind {
            RequestKind::Ordered => c.entry(0, number.0),
            RequestKind::ReadOnly => c.entry(0, c.core.query_number(number).0),
        };
        let other = ReplyEntry { tag: RequestTag::new(mine.tag.value() ^ 1), ..mine };
        (0..3).for_each(|r| c.reply_from(r, r, 0, &other));
        assert_eq!(c.finished(), []);
        (0..3).for_each(|r| c.reply_from(r, r, 0, &mine));
        assert_eq!(c.finished().len(), 1);
    }
    assert_eq!(c.core.stats().foreign, 6);
    // f+1 replicas say what became of it.
    let number = c.submit(1, b"mine");
    c.reply(0, 1, number, ReplyStatus::NumberTaken, b"");
    c.reply(2, 1, number, ReplyStatus::NumberTaken, b"");
    assert_eq!(c.finished(), [(1, number, Outcome::NumberTaken, vec![])]);
}

#[test]
fn malformed_messages_and_false_senders_are_counted_and_ignored() {
    let mut c = Client::new(3, 1, 1);
    let number = c.submit(0, b"");
    let entry = ReplyEntry { result: b"abc", ..c.entry(0, number) };
    c.reply_from(2, 0, 0, &entry);
    c.reply_from(2, 1, 0, &entry);
    assert_eq!((c.finished().len(), &c.core.stats().malformed[..]), (0, &[0, 0, 2][..]));
    let mut message = Vec::new();
    begin(&mut message, ReplicaId(2), View(0));
    append(&mut message, &entry);
    for cut in 0..message.len() {
        c.core.handle(ReplicaId(2), &message[..cut], c.now, &mut c.out);
    }
    let malformed = c.core.stats().malformed[2];
    assert_eq!(malformed, 2 + message.len() as u64 - 1, "an empty list is no error");
    let long = vec![0; c.core.config().max_reply_bytes as usize + 1];
    c.done(2, 0, number, &long);
    assert_eq!(c.core.stats().malformed[2], malformed + 1);
    assert_eq!(c.core.outstanding(), 1);
}

#[test]
fn a_single_liar_cannot_choose_the_leader() {
    let mut c = Client::new(3, 1, 1);
    let report = |c: &mut Client, r, view| {
        let mut message = Vec::new();
        begin(&mut message, ReplicaId(r), View(view));
        c.core.handle(ReplicaId(r), &message, c.now, &mut c.out);
    };
    report(&mut c, 1, u64::MAX);
    assert_eq!(c.core.view(), View(0));
    report(&mut c, 0, 1);
    assert_eq!((c.core.view(), c.core.leader()), (View(1), ReplicaId(1)));
    report(&mut c, 2, 2);
    assert_eq!(c.core.view(), View(2));
    // The leader's silence or an old view of its does not matter.
    report(&mut c, 0, 0);
    assert_eq!((c.core.view(), c.core.stats().view_changes), (View(2), 2));
    c.submit(0, b"");
    assert_eq!(c.targets(), [2]);
}

#[test]
fn a_window_of_numbers_is_kept_and_replies_may_come_in_any_order() {
    // Not a power of two.
    let mut c = Client::new(3, 1, 3);
    let first = c.submit(0, b"0");
    assert_eq!((c.submit(0, b"1"), c.submit(0, b"2")), (first + 1, first + 2));
    let full = SubmitError::WindowFull { session: 0, window: 3 };
    let kind = RequestKind::Ordered;
    assert_eq!(c.core.submit(0, b"", kind, c.now, &mut c.out), Err(full));
    // Later ones end first; the span of numbers still forbids another.
    for number in [first + 2, first + 1] {
        c.done(0, 0, number, b"");
        c.done(2, 0, number, b"");
    }
    assert_eq!(c.finished().iter().map(|f| f.1).collect::<Vec<_>>(), [first + 2, first + 1]);
    assert!(!c.core.can_submit(0) && c.core.can_submit(1));
    c.done(0, 0, first, b"");
    c.done(1, 0, first, b"");
    assert!(c.core.can_submit(0));
    for i in 0..20 {
        let number = c.submit(0, b"");
        assert_eq!(number, first + 3 + i);
        c.done(1, 0, number, b"");
        c.done(2, 0, number, b"");
    }
    assert_eq!((c.finished().len(), c.core.stats().unknown.clone()), (21, vec![0; 3]));
}

#[test]
fn wrong_submissions_are_refused() {
    let mut c = Client::new(3, 1, 1);
    let kind = RequestKind::Ordered;
    let refused = c.core.submit(100, b"", kind, c.now, &mut c.out);
    assert_eq!(refused, Err(SubmitError::NoSession { session: 100, sessions: 100 }));
    let limit = c.core.config().max_operation_bytes as usize;
    let refused = c.core.submit(0, &vec![0; limit + 1], kind, c.now, &mut c.out);
    assert_eq!(refused, Err(SubmitError::TooLong { length: limit + 1, limit }));
    assert!(c.out.nothing_to_send() && c.core.outstanding() == 0);
    c.submit(0, &vec![0; limit]);
}

#[test]
fn a_query_needs_all_replicas_to_agree() {
    let mut c = Client::new(3, 1, 1);
    let number = c.query(0, b"q");
    let sent = c.sent();
    assert!(sent.iter().all(|s| s.query && s.number < FIRST_NUMBER_MIN && s.operation == b"q"));
    assert_eq!(sent.iter().map(|s| s.replica).collect::<Vec<_>>(), [0, 1, 2]);
    let query = sent[0].number;
    c.done(0, 0, query, b"v");
    c.done(0, 0, query, b"v");
    c.done(1, 0, query, b"v");
    // A reply to the ordinary number does not count for the query.
    c.done(2, 0, number, b"v");
    assert!(c.out.completions.is_empty());
    c.done(2, 0, query, b"v");
    assert_eq!(c.finished(), [(0, number, Outcome::Done, b"v".to_vec())]);
    assert_eq!((c.core.stats().unordered, c.core.stats().duplicates), (1, 1));
}

#[test]
fn a_query_is_ordered_when_replicas_disagree_or_ask_for_it() {
    let mut statuses = vec![(ReplyStatus::Done, &b"stale"[..]), (ReplyStatus::OrderIt, b"")];
    statuses.push((ReplyStatus::Overloaded, b""));
    statuses.push((ReplyStatus::Stale, b""));
    for (status, result) in statuses {
        let mut c = Client::new(3, 1, 1);
        let number = c.query(0, b"q");
        let query = c.sent()[0].number;
        c.done(0, 0, query, b"v");
        c.reply(1, 0, query, status, result);
        let session = c.core.session_id(0).session;
        let operation = b"q".to_vec();
        assert_eq!(
            c.sent(),
            [Seen { replica: 0, query: false, again: false, session, number, operation }]
        );
        // The late answers to the query make no certificate for the ordered request.
        c.done(1, 0, query, b"stale");
        c.done(2, 0, query, b"stale");
        c.done(2, 0, number, b"stale");
        assert!(c.out.completions.is_empty());
        c.done(0, 0, number, b"new");
        c.done(1, 0, number, b"new");
        assert_eq!(c.finished(), [(0, number, Outcome::Done, b"new".to_vec())]);
        assert_eq!((c.core.stats().fallbacks, c.core.stats().unordered), (1, 0));
        assert_eq!(c.core.stats().mismatching, [0, 0, 1]);
    }
}

#[test]
fn errors_need_a_certificate_too() {
    let cases = [
        (ReplyStatus::Evicted, Outcome::Evicted),
        (ReplyStatus::Stale, Outcome::Stale),
        (ReplyStatus::TooLong, Outcome::TooLong),
    ];
    for (status, outcome) in cases {
        let mut c = Client::new(3, 1, 1);
        let number = c.submit(0, b"");
        c.reply(1, 0, number, status, b"");
        c.reply(1, 0, number, status, b"");
        c.done(0, 0, number, b"x");
        assert!(c.out.completions.is_empty());
        // The replica whose session was evicted meanwhile may say so.
        c.reply(0, 0, number, status, b"");
        assert_eq!(c.finished(), [(0, number, outcome, vec![])]);
        assert_eq!(c.core.stats().mismatching, [0, 0, 0]);
        let kind = RequestKind::Ordered;
        let next = c.core.submit(0, b"", kind, c.now, &mut c.out);
        let evicted = outcome == Outcome::Evicted;
        assert_eq!(c.core.is_evicted(0), evicted);
        assert_eq!(next == Err(SubmitError::Evicted { session: 0 }), evicted);
    }
}

#[test]
fn memory_is_reused() {
    let mut c = Client::new(3, 1, 1);
    for round in 0..1000u32 {
        for session in 0..10 {
            let number = c.submit(session, &[1; 64]);
            c.done(0, session, number, &[2; 64]);
            c.done(1, session, number, &[2; 64]);
        }
        assert_eq!(c.finished().len(), 10, "round {round}");
        c.sent();
    }
    assert_eq!(c.core.table.capacity(), 1);
}

#[test]
fn long_messages_are_cut_between_records() {
    let mut c = Client::new(3, 1, 1);
    (0..20).for_each(|session| _ = c.submit(session, &vec![1; session as usize * 10]));
    let message = &c.out.messages[0];
    for limit in [1, 48, 100, 500, 1000, message.len(), 1 << 20] {
        let cut: Vec<&[u8]> = pieces(message, limit).collect();
        assert_eq!(cut.concat(), message[8..]);
        for piece in &cut {
            let records: Vec<_> = Requests::new(piece).collect::<Result<_, _>>().unwrap();
            assert!(piece.len() + 8 <= limit || records.len() == 1);
        }
    }
    assert_eq!(pieces(message, message.len()).count(), 1);
    assert_eq!(pieces(&[], 100).count(), 0);
}
