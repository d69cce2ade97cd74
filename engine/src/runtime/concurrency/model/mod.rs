//! Queues and doorbells under loom.
//!
//! A lost wake-up is a thread that is parked for ever: loom reports it as a deadlock.

#![allow(dead_code, reason = "the models use a part of the sources")]
#![allow(clippy::duplicate_mod, reason = "the sources once more, over loom's atomics")]

mod sync;

#[path = "../../channel.rs"]
mod channel;
#[path = "../../doorbell.rs"]
mod doorbell;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use loom::model::Builder;
use loom::thread;

use self::channel::{Inbox, Message, Outbox, connect_with};
use self::doorbell::{Doorbell, WakeTarget};
use self::sync::{AtomicBool, Ordering};
use super::{effect, number};

/// Runs a model through all interleavings with at most this many preemptions.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Two agents: messages go from the first to the second.
#[derive(Default)]
struct Pair {
    sender: Doorbell,
    receiver: Doorbell,
}

/// How an agent makes sure, before it parks, that there is nothing for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    /// As the agents do: announce the sleep, then look.
    AnnounceThenLook,
    /// The other way round: what comes in between is missed.
    LookThenAnnounce,
}

impl Care {
    fn park_unless(self, doorbell: &Doorbell, has_work: impl Fn() -> bool) {
        let busy = match self {
            Care::AnnounceThenLook => {
                doorbell.going_to_sleep();
                has_work()
            }
            Care::LookThenAnnounce => {
                let busy = has_work();
                doorbell.going_to_sleep();
                busy
            }
        };
        if !busy {
            thread::park();
        }
        doorbell.awake();
    }
}

/// The turns of an agent that sends `total` messages and then waits until all have gone out.
fn send(pair: &Pair, mut outbox: Outbox, total: u64, turn: u64, care: Care) {
    pair.sender.install(WakeTarget::Thread(thread::current()));
    let mut staged = 0;
    while staged < total || outbox.staged() > 0 {
        let until = (staged + turn).min(total);
        (staged..until).for_each(|n| outbox.stage(Message::Network(effect(n))));
        staged = until;
        if outbox.flush() {
            pair.receiver.wake();
        }
        if staged == total && outbox.staged() > 0 {
            care.park_unless(&pair.sender, || outbox.could_flush());
        }
    }
}

/// The turns of an agent that takes `total` messages.
fn receive(pair: &Pair, mut inbox: Inbox, total: u64, care: Care) {
    pair.receiver.install(WakeTarget::Thread(thread::current()));
    let mut next = 0;
    loop {
        let sender_waits = inbox.take(|message| {
            let Message::Network(effect) = message else { panic!("another message") };
            assert_eq!(number(&effect), next, "messages are handed over in order");
            next += 1;
        });
        if sender_waits {
            pair.sender.wake();
        }
        if next == total {
            return;
        }
        care.park_unless(&pair.receiver, || !inbox.is_empty());
    }
}

fn hand_over(capacity: usize, total: u64, turn: u64, care: Care) {
    let pair = Arc::new(Pair::default());
    let (outbox, inbox) = connect_with(capacity);
    let sending = {
        let pair = Arc::clone(&pair);
        thread::spawn(move || send(&pair, outbox, total, turn, care))
    };
    receive(&pair, inbox, total, care);
    sending.join().unwrap();
}

#[test]
fn no_wake_up_is_lost_while_there_is_room() {
    explore(4, || hand_over(4, 3, 1, Care::AnnounceThenLook));
}

#[test]
fn no_wake_up_is_lost_and_nothing_overtakes_when_the_queue_is_full() {
    explore(4, || hand_over(1, 3, 3, Care::AnnounceThenLook));
    explore(4, || hand_over(2, 4, 2, Care::AnnounceThenLook));
}

#[test]
fn an_agent_that_sleeps_or_is_about_to_is_stopped() {
    explore(3, || {
        let (doorbell, stop) = (Arc::new(Doorbell::default()), Arc::new(AtomicBool::new(false)));
        doorbell.install(WakeTarget::Thread(thread::current()));
        let stopper = {
            let (doorbell, stop) = (Arc::clone(&doorbell), Arc::clone(&stop));
            thread::spawn(move || {
                // As Shared::stop does.
                stop.store(true, Ordering::SeqCst);
                doorbell.wake_always();
            })
        };
        while !stop.load(Ordering::Relaxed) {
            Care::AnnounceThenLook.park_unless(&doorbell, || stop.load(Ordering::Relaxed));
        }
        stopper.join().unwrap();
    });
}

/// Somebody rings for the first time while the agent says how it is woken.
#[test]
fn no_wake_up_is_lost_while_an_agent_starts() {
    explore(4, || {
        let (doorbell, mail) = (Arc::new(Doorbell::default()), Arc::new(AtomicBool::new(false)));
        let sender = {
            let (doorbell, mail) = (Arc::clone(&doorbell), Arc::clone(&mail));
            thread::spawn(move || {
                mail.store(true, Ordering::Release);
                doorbell.wake();
            })
        };
        doorbell.install(WakeTarget::Thread(thread::current()));
        while !mail.load(Ordering::Acquire) {
            Care::AnnounceThenLook.park_unless(&doorbell, || mail.load(Ordering::Acquire));
        }
        sender.join().unwrap();
    });
}

/// `is_alone`: an agent without others announces nothing, it only looks whether it must stop.
#[test]
fn an_agent_that_starts_is_stopped() {
    for is_alone in [false, true] {
        explore(4, move || {
            let doorbell = Arc::new(Doorbell::default());
            let stop = Arc::new(AtomicBool::new(false));
            let agent = {
                let (doorbell, stop) = (Arc::clone(&doorbell), Arc::clone(&stop));
                thread::spawn(move || {
                    doorbell.install(WakeTarget::Thread(thread::current()));
                    let is_stopping = || stop.load(Ordering::Relaxed);
                    while !is_stopping() {
                        if !is_alone {
                            Care::AnnounceThenLook.park_unless(&doorbell, is_stopping);
                        } else if !is_stopping() {
                            thread::park();
                        }
                    }
                })
            };
            // As Shared::stop does.
            stop.store(true, Ordering::SeqCst);
            doorbell.wake_always();
            agent.join().unwrap();
        });
    }
}

/// The control: a model that cannot fail shows nothing.
#[test]
fn a_lost_wake_up_is_seen() {
    for capacity in [1, 4] {
        let explored = catch_unwind(AssertUnwindSafe(|| {
            explore(3, move || hand_over(capacity, 2, 1, Care::LookThenAnnounce));
        }));
        let panic = explored.expect_err("loom found no lost wake-up");
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        assert!(text.contains("deadlock"), "{text}");
    }
}
