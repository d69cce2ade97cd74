//! Thresholds of a protocol without trusted counters: 3f+1 replicas, queries with 2f+1 answers.

use super::*;

fn client() -> (Client, u64, u64) {
    let mut c = Client::new(4, 1, 2);
    c.core.needed = Needed { replies: 2, answers: 3 };
    let number = c.query(0, b"q");
    let query = c.sent()[0].number;
    (c, number, query)
}

fn outcome(c: &mut Client) -> Option<Vec<u8>> {
    assert!(c.sent().is_empty(), "it was ordered");
    c.finished().pop().map(|(_, _, outcome, result)| {
        assert_eq!(outcome, Outcome::Done);
        result
    })
}

#[test]
fn a_liar_does_not_make_a_query_be_ordered() {
    for liar in 0..4 {
        let (mut c, _, query) = client();
        for r in 0..4 {
            assert_eq!(outcome(&mut c), None);
            c.done(r, 0, query, if r == liar { b"lie" } else { b"v" });
            if r >= 2 && outcome_is(&mut c, b"v") {
                break;
            }
        }
        assert_eq!(c.core.stats().unordered, 1, "liar {liar}");
    }
}

fn outcome_is(c: &mut Client, result: &[u8]) -> bool {
    outcome(c).is_some_and(|got| {
        assert_eq!(got, result);
        true
    })
}

#[test]
fn a_query_is_ordered_once_no_answer_can_win_any_more() {
    let (mut c, number, query) = client();
    c.done(0, 0, query, b"v");
    c.done(1, 0, query, b"lie");
    assert_eq!(outcome(&mut c), None);
    c.reply(2, 0, query, ReplyStatus::OrderIt, b"");
    let sent = c.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].query, sent[0].number), (false, number));
}

#[test]
fn a_replica_that_contradicts_itself_counts_for_nothing() {
    let (mut c, _, query) = client();
    c.done(0, 0, query, b"lie");
    c.done(0, 0, query, b"v");
    c.done(0, 0, query, b"v");
    c.done(1, 0, query, b"v");
    c.done(2, 0, query, b"v");
    assert_eq!(outcome(&mut c), None);
    c.done(3, 0, query, b"v");
    assert_eq!(outcome(&mut c), Some(b"v".to_vec()));
}

#[test]
fn a_query_needs_no_more_replicas_than_have_to_answer() {
    let (mut c, ..) = client();
    c.core.replica_down(ReplicaId(3), c.now, &mut c.out);
    assert!(c.sent().is_empty(), "three can answer still");
    c.query(1, b"q");
    assert_eq!(
        c.sent().iter().map(|s| (s.query, s.replica)).collect::<Vec<_>>(),
        [(true, 0), (true, 1), (true, 2)]
    );
    c.core.replica_down(ReplicaId(2), c.now, &mut c.out);
    let ordered: Vec<bool> = c.sent().iter().map(|s| s.query).collect();
    assert_eq!(ordered, [false, false]);
}

/// The states of the replicas differ: it takes f+1 of them to say so, and no liar can.
#[test]
fn that_the_states_differ_is_an_end_if_a_correct_replica_says_so() {
    let mut c = Client::new(3, 1, 1);
    let number = c.submit(0, b"op");
    // One liar, as often as it likes: the result is taken.
    (0..3).for_each(|_| c.reply(1, 0, number, ReplyStatus::StatesDiffer, b""));
    assert!(c.finished().is_empty());
    c.done(0, 0, number, b"x");
    c.done(2, 0, number, b"x");
    assert_eq!(c.finished(), [(0, number, Outcome::Done, b"x".to_vec())]);
    // Two replicas say so: one of them is correct.
    let number = c.submit(0, b"op");
    c.reply(2, 0, number, ReplyStatus::StatesDiffer, b"");
    c.reply(0, 0, number, ReplyStatus::StatesDiffer, b"");
    assert_eq!(c.finished(), [(0, number, Outcome::StatesDiffer, vec![])]);
    // The session goes on, and a replica that said so may have a result later.
    let number = c.submit(0, b"op");
    c.reply(2, 0, number, ReplyStatus::StatesDiffer, b"");
    c.done(2, 0, number, b"y");
    c.done(0, 0, number, b"y");
    assert_eq!(c.finished(), [(0, number, Outcome::Done, b"y".to_vec())]);
}
