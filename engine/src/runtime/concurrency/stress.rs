//! Queues and doorbells with real threads.

use std::sync::Arc;
use std::thread;

use super::super::channel::{Message, QUEUE_MESSAGES, connect, connect_with};
use super::super::doorbell::{Doorbell, WakeTarget};
use super::{effect, number};

fn message(number: u64) -> Message {
    Message::Network(effect(number))
}

fn number_of(message: &Message) -> u64 {
    match message {
        Message::Network(effect) => number(effect),
        _ => panic!("another message"),
    }
}

#[test]
fn a_full_queue_loses_nothing_and_keeps_the_order() {
    let (mut outbox, mut inbox) = connect();
    let total = 3 * QUEUE_MESSAGES as u64;
    (0..total).for_each(|n| outbox.stage(message(n)));
    assert!(outbox.flush() && outbox.staged() == 2 * QUEUE_MESSAGES && !outbox.could_flush());
    let mut next = 0;
    while next < total {
        let short = inbox.take(|message| {
            assert_eq!(number_of(&message), next);
            next += 1;
        });
        assert!(short || outbox.staged() == 0 || outbox.could_flush());
        let _ = outbox.flush();
    }
    assert!(inbox.is_empty() && outbox.staged() == 0);
}

#[test]
fn two_threads_hand_over_everything_in_order() {
    let (mut outbox, mut inbox) = connect();
    let total = 200_000;
    let sender = thread::spawn(move || {
        for n in 0..total {
            outbox.stage(message(n));
            if n % 7 == 0 || n + 1 == total {
                let _ = outbox.flush();
            }
        }
        while outbox.staged() > 0 {
            let _ = outbox.flush();
            thread::yield_now();
        }
    });
    let mut next = 0;
    while next < total {
        let _ = inbox.take(|message| {
            assert_eq!(number_of(&message), next);
            next += 1;
        });
    }
    sender.join().unwrap();
}

/// Both agents sleep whenever they have nothing to do, without a time-out, so that one lost wake-up
/// makes the test hang.
#[test]
fn two_agents_that_sleep_at_every_turn_finish() {
    let rounds = if cfg!(miri) { 200 } else { 30_000 };
    for capacity in [1, 2, 64] {
        let (mut outbox, mut inbox) = connect_with(capacity);
        let doorbells = Arc::new([Doorbell::default(), Doorbell::default()]);
        let sender_doorbells = Arc::clone(&doorbells);
        let sender = thread::spawn(move || {
            let [own, other] = &*sender_doorbells;
            own.install(WakeTarget::Thread(thread::current()));
            let mut staged = 0;
            while staged < rounds || outbox.staged() > 0 {
                // Runs of different lengths, some longer than the queue.
                let until = (staged + 1 + staged % 5).min(rounds);
                (staged..until).for_each(|n| outbox.stage(message(n)));
                staged = until;
                if outbox.flush() {
                    other.wake();
                }
                if outbox.staged() > 0 {
                    own.going_to_sleep();
                    if !outbox.could_flush() {
                        thread::park();
                    }
                    own.awake();
                }
            }
        });
        let [other, own] = &*doorbells;
        own.install(WakeTarget::Thread(thread::current()));
        let mut next = 0;
        while next < rounds {
            let sender_waits = inbox.take(|message| {
                assert_eq!(number_of(&message), next);
                next += 1;
            });
            if sender_waits {
                other.wake();
            }
            own.going_to_sleep();
            if inbox.is_empty() && next < rounds {
                thread::park();
            }
            own.awake();
        }
        sender.join().unwrap();
    }
}
