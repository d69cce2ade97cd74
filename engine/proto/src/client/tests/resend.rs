//! Timeouts, retransmission, overload, links and leaders that come and go.

use super::*;

#[test]
fn a_new_leader_gets_what_the_old_one_got() {
    let mut c = Client::new(3, 1, 1);
    (0..50).for_each(|session| _ = c.submit(session, b"op"));
    assert_eq!(c.targets(), [0; 50]);
    for r in [1, 2] {
        let mut message = Vec::new();
        begin(&mut message, ReplicaId(r), View(1));
        c.core.handle(ReplicaId(r), &message, c.now, &mut c.out);
    }
    assert_eq!(c.next_tick(), 0);
    assert_eq!(c.targets(), [1; 50]);
    assert_eq!(c.core.deadline().map(|t| t.since_us(c.now)), Some(20 * RESEND_US));
    assert_eq!(c.core.stats().retransmissions, 50);
}

#[test]
fn a_query_is_ordered_when_a_replica_is_silent_or_away() {
    let mut c = Client::new(3, 1, 2);
    let number = c.query(0, b"q");
    c.submit(0, b"other");
    let query = c.sent()[0].number;
    c.done(0, 0, query, b"v");
    c.done(1, 0, query, b"v");
    assert_eq!(c.next_tick(), RESEND_US);
    let sent = c.sent();
    assert_eq!((sent.len(), sent[0].number, sent[0].query), (1, number, false));
    // The next ones are not tried unordered for a while.
    c.query(1, b"q");
    assert!(!c.sent()[0].query);
    c.now = c.now.after_us(RESEND_US * 3);
    c.query(2, b"q");
    assert!(c.sent().iter().all(|s| s.query));
    // A broken link orders it at once, and those that follow until it is back.
    c.core.replica_down(ReplicaId(2), c.now, &mut c.out);
    assert!(c.sent().iter().any(|s| !s.query && s.session == c.core.session_id(2).session));
    c.query(3, b"q");
    assert_eq!(c.sent().iter().map(|s| (s.replica, s.query)).collect::<Vec<_>>(), [(0, false)]);
    c.core.replica_up(ReplicaId(2), c.now, &mut c.out);
    c.query(4, b"q");
    assert_eq!(c.targets(), [0, 1, 2]);
}

#[test]
fn timeouts_send_to_all_with_growing_waits() {
    let mut c = Client::new(3, 1, 1);
    let number = c.submit(0, b"op");
    c.sent();
    let mut waits = Vec::new();
    for _ in 0..8 {
        waits.push(c.next_tick() / 1000);
        assert_eq!(c.targets(), [0, 1, 2]);
    }
    // TR listing 8 adds a step per expired wait, and each further wait of a request is doubled.
    assert_eq!(waits, [1000, 2200, 4800, 8000, 8000, 8000, 8000, 8000]);
    assert_eq!((c.core.stats().retransmissions, c.core.outstanding()), (8, 1));
    c.done(1, 0, number, b"");
    c.done(2, 0, number, b"");
    assert_eq!((c.finished().len(), c.core.deadline()), (1, None));
}

#[test]
fn the_rate_of_retransmission_is_bounded() {
    let mut c = Client::new(3, 1, 1);
    (0..100).for_each(|session| _ = c.submit(session, &[0; 4000]));
    c.sent();
    let (mut count, mut elapsed) = (0, c.next_tick());
    while count < 100 {
        assert_eq!(
            c.core.stats().retransmissions,
            (count + c.out.retransmissions[1].len() / 4040) as u64
        );
        let sent = c.sent().len();
        assert!(sent.is_multiple_of(3) && sent <= 3 * 6, "{sent} records in a burst");
        count += sent / 3;
        elapsed += c.next_tick();
    }
    // 100 records of 4 KB to 3 replicas at 64 MB/s take 19 ms.
    assert!(elapsed >= 100_000 + 15_000, "{elapsed}");
}

#[test]
fn a_tick_looks_at_heads_only() {
    let mut c = Client::new(3, 1, 1);
    for session in 0..100 {
        c.submit(session, b"");
        c.now = c.now.after_us(1_000);
    }
    c.sent();
    c.wait(900_500);
    // The first of them is due, and nothing else.
    let sessions: Vec<_> = c.sent().iter().map(|s| s.session).collect();
    assert_eq!(sessions, [c.core.session_id(0).session; 3]);
    assert_eq!(c.core.deadline().map(|t| t.since_us(c.now)), Some(100_500));
}

#[test]
fn requests_are_given_up_after_the_limit() {
    let mut c = Client::new(3, 1, 1);
    c.core.give_up_after(Some(1_000_000));
    let number = c.submit(0, b"op");
    let mut elapsed = 0;
    while c.out.completions.is_empty() {
        elapsed += c.next_tick();
    }
    assert!((1_000_000..=1_125_000).contains(&elapsed), "{elapsed}");
    assert_eq!(c.finished(), [(0, number, Outcome::TimedOut, vec![])]);
    assert_eq!((c.core.deadline(), c.core.stats().failed), (None, 1));
    // Belated replies do no harm.
    let next = c.submit(0, b"op");
    c.done(0, 0, number, b"x");
    c.done(1, 0, number, b"x");
    assert_eq!((next, c.finished().len(), c.core.stats().late), (number + 1, 0, 2));
}

#[test]
fn a_request_that_is_given_up_says_whether_results_differed() {
    for (second, expected) in [(&b"y"[..], Outcome::RepliesDiffer), (b"x", Outcome::Done)] {
        let mut c = Client::new(3, 1, 1);
        c.core.give_up_after(Some(1_000_000));
        let number = c.submit(0, b"op");
        c.done(0, 0, number, b"x");
        c.done(1, 0, number, second);
        while c.out.completions.is_empty() {
            c.next_tick();
        }
        assert_eq!(c.finished()[0].2, expected);
    }
    // One that says two things is one voice less, and no second result.
    let mut c = Client::new(3, 1, 1);
    c.core.give_up_after(Some(1_000_000));
    let number = c.submit(0, b"op");
    c.done(0, 0, number, b"x");
    c.done(0, 0, number, b"y");
    while c.out.completions.is_empty() {
        c.next_tick();
    }
    assert_eq!(c.finished()[0].2, Outcome::TimedOut);
}

#[test]
fn an_overloaded_leader_gets_time_and_cannot_stop_a_request() {
    let mut c = Client::new(3, 1, 1);
    let number = c.submit(0, b"");
    c.sent();
    let mut all = 0;
    for _ in 0..20 {
        (0..3).for_each(|_| c.reply(0, 0, number, ReplyStatus::Overloaded, b""));
        // Advice of a follower that was not asked changes nothing.
        let due = c.core.deadline();
        c.reply(2, 0, 1, ReplyStatus::Overloaded, b"");
        assert_eq!(c.core.deadline(), due);
        c.next_tick();
        let sent = c.sent();
        // The leader knows nothing of what it refused.
        assert!(sent.len() == 3 || (sent.len() == 1 && !sent[0].again));
        all += u32::from(sent.len() == 3);
    }
    assert!(c.out.completions.is_empty() && all == 17, "{all}");
    c.done(1, 0, number, b"");
    c.done(2, 0, number, b"");
    assert_eq!(c.finished(), [(0, number, Outcome::Done, vec![])]);
}

#[test]
fn lasting_overload_is_reported() {
    for (replicas, faults) in [(3, 1), (1, 0)] {
        let mut c = Client::new(replicas, faults, 1);
        let number = c.submit(0, b"");
        let mut elapsed = 0;
        while c.out.completions.is_empty() {
            for r in c.targets() {
                c.reply(r, 0, number, ReplyStatus::Overloaded, b"");
            }
            elapsed += c.next_tick();
        }
        assert_eq!(c.finished(), [(0, number, Outcome::Overloaded, vec![])]);
        assert!(elapsed > 500_000, "{elapsed}");
    }
}

/// Full disks are named as such only if f+1 replicas have one.
#[test]
fn full_disks_are_told_from_full_buffers() {
    use ReplyStatus::{DiskFull, Overloaded};
    let cases = [
        ([DiskFull, DiskFull, Overloaded], Outcome::DiskFull),
        ([DiskFull, Overloaded, Overloaded], Outcome::Overloaded),
    ];
    for (says, expected) in cases {
        let mut c = Client::new(3, 1, 1);
        let number = c.submit(0, b"");
        while c.out.completions.is_empty() {
            for r in c.targets() {
                c.reply(r, 0, number, says[usize::from(r)], b"");
            }
            c.next_tick();
        }
        assert_eq!(c.finished(), [(0, number, expected, vec![])]);
    }
}

#[test]
fn a_broken_link_to_the_leader_is_worked_round_and_its_return_is_used() {
    let mut c = Client::new(3, 1, 1);
    c.submit(0, b"a");
    assert_eq!(c.targets(), [0]);
    c.core.replica_down(ReplicaId(0), c.now, &mut c.out);
    assert_eq!(c.targets(), [1, 2]);
    c.submit(1, b"b");
    assert_eq!(c.targets(), [1, 2]);
    // A follower that comes or goes does not matter while the leader is there.
    c.core.replica_up(ReplicaId(0), c.now, &mut c.out);
    assert_eq!(c.next_tick(), 1, "the bounded rate");
    assert!(c.sent().iter().all(|s| s.again && s.replica == 0));
    c.core.replica_down(ReplicaId(1), c.now, &mut c.out);
    c.core.replica_up(ReplicaId(1), c.now, &mut c.out);
    assert!(c.out.nothing_to_send());
    // Nobody is there: it waits until somebody is.
    (0..3).for_each(|r| c.core.replica_down(ReplicaId(r), c.now, &mut c.out));
    c.sent();
    c.submit(2, b"c");
    assert!(c.out.nothing_to_send());
    c.wait(10);
    c.core.replica_up(ReplicaId(2), c.now, &mut c.out);
    assert_eq!(c.targets(), [2, 2, 2]);
}
