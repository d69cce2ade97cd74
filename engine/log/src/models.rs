//! The shared buffer and the doorbell under loom: all interleavings of a few threads with a bounded number
//! of preemptions, and all values that the memory model lets a load see.
//!
//! Covered: that a record is read whole or not at all, that its place is given out again only
//! after it was copied and cleared, the order of records of one thread, and that a writer that goes to
//! sleep is woken. Not covered: waiting for room, which looks again by itself after a while.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test -p hybster-log --lib --release models
//! ```
//!
//! There is no `unsafe` code here that Miri or a sanitizer could say more about: `tests/threads.rs` runs
//! the log as it is, with real threads.

#![allow(dead_code, reason = "the models use a part of the sources")]
#![allow(clippy::duplicate_mod, reason = "the sources once more, over loom's atomics")]

mod sync;

#[path = "doorbell.rs"]
mod doorbell;
#[path = "ring.rs"]
mod ring;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use loom::model::Builder;
use loom::thread;

use self::doorbell::Doorbell;
use self::ring::Ring;
use self::sync::{AtomicU64, Ordering};

fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A record of one word of content, which says what its first word must be.
fn append(ring: &Ring, value: u64) -> bool {
    let Some(at) = ring.try_reserve(16) else { return false };
    ring.put(at, value, &[&(value * 3).to_le_bytes()]);
    true
}

/// Takes the record that begins there, if it is finished.
fn take(ring: &Ring, at: u64) -> Option<u64> {
    let value = ring.finished(at)?;
    let mut out = [0; 16];
    ring.copy(at, &mut out);
    let content = u64::from_le_bytes(out[8..].try_into().unwrap());
    assert_eq!(content, value * 3, "a record is read whole");
    ring.free(at, at + 16);
    Some(value)
}

#[test]
fn two_appenders_and_a_writer_in_a_buffer_of_two_records() {
    explore(3, || {
        let ring = Arc::new(Ring::new(32, 0));
        let appenders: Vec<_> = [1_u64, 11]
            .into_iter()
            .map(|first| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || {
                    (first..first + 2).filter(|value| append(&ring, *value)).count()
                })
            })
            .collect();
        let (mut at, mut taken) = (0, Vec::new());
        for _ in 0..2 {
            if let Some(value) = take(&ring, at) {
                at += 16;
                taken.push(value);
            }
        }
        let count: usize = appenders.into_iter().map(|thread| thread.join().unwrap()).sum();
        while let Some(value) = take(&ring, at) {
            at += 16;
            taken.push(value);
        }
        assert_eq!(taken.len(), count, "nothing is lost or read twice");
        for first in [1, 11] {
            let own: Vec<_> =
                taken.iter().filter(|value| (first..first + 2).contains(*value)).collect();
            assert!(own.is_sorted(), "one thread's records stay in order");
        }
        assert_eq!((ring.reserved(), ring.freed()), (at, at));
    });
}

/// Whoever learns of a record, by another thread, gets a cursor behind it.
#[test]
fn a_cursor_is_behind_everything_that_is_known_of() {
    explore(3, || {
        let ring = Arc::new(Ring::new(64, 0));
        let letter = Arc::new(AtomicU64::new(0));
        let (own_ring, own_letter) = (Arc::clone(&ring), Arc::clone(&letter));
        let thread = thread::spawn(move || {
            assert!(append(&own_ring, 1));
            own_letter.store(1, Ordering::Release);
        });
        if letter.load(Ordering::Acquire) == 1 {
            assert!(ring.reserved() >= 16);
        }
        thread.join().unwrap();
    });
}

fn sleep_and_wake(announces: bool) {
    explore(3, move || {
        let ring = Arc::new(Ring::new(64, 0));
        let doorbell = Arc::new(Doorbell::default());
        doorbell.install(thread::current());
        let (own_ring, own_doorbell) = (Arc::clone(&ring), Arc::clone(&doorbell));
        let appender = thread::spawn(move || {
            for value in 1..3 {
                assert!(append(&own_ring, value));
                own_doorbell.wake();
            }
        });
        let mut at = 0;
        while at < 32 {
            if take(&ring, at).is_some() {
                at += 16;
                continue;
            }
            if announces {
                doorbell.going_to_sleep();
                if ring.finished(at).is_none() {
                    thread::park();
                }
            } else {
                let is_empty = ring.finished(at).is_none();
                doorbell.going_to_sleep();
                if is_empty {
                    thread::park();
                }
            }
            doorbell.awake();
        }
        appender.join().unwrap();
    });
}

#[test]
fn a_sleeping_writer_is_woken() {
    sleep_and_wake(true);
}

/// The model would find a lost wake-up: a thread that is parked for ever.
#[test]
fn control_looking_before_announcing_is_found() {
    let outcome = catch_unwind(AssertUnwindSafe(|| sleep_and_wake(false)));
    assert!(outcome.is_err(), "loom finds the deadlock");
}
