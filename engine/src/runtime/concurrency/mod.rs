//! Tests of the queues (`channel`) and wake-ups (`doorbell`) between agents.
//!
//! - `stress`: the code as it is, with real threads, in every `cargo test`.
//! - `model`: loom runs the same sources over its own atomics and threads, through all
//!   interleavings with a bounded number of preemptions and all values that the memory model lets a
//!   load see. It covers the doorbell, the `blocked` flag of a full queue, the order of messages,
//!   and the stop of a sleeping agent. Not covered are the slots of the ring, which are replaced by
//!   a model that orders `head` and `tail` as `rtrb` does (the tests of `rtrb` cover the slots),
//!   the waker of a hub, and parking with a time-out, which only wakes more often.
//!
//! Both end after a fixed number of steps; the models take a few seconds. They need loom, which
//! normal builds do not include:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test -p hybster --lib --release runtime::concurrency::model
//! ```
//!
//! # Miri and ThreadSanitizer
//!
//! Miri cannot run this workspace's own `unsafe` code, which hands memory to the kernel
//! (`hybster_net::uring`), uses AVX-512 (`lanes` of `hybster-tss`) and calls the C library
//! ([`crate::heap`]); each is tested on real hardware instead. The only foreign `unsafe` code that
//! several threads share is the slots of `rtrb`, and `stress` exercises it. It makes no system call
//! except for parking, so both tools can run it on a nightly toolchain that has them:
//!
//! ```text
//! cargo +nightly miri test -p hybster --lib runtime::concurrency::stress
//! RUSTFLAGS="-Zsanitizer=thread" cargo +nightly test -Zbuild-std \
//!     --target x86_64-unknown-linux-gnu -p hybster --lib runtime::concurrency::stress
//! ```
//!
//! ThreadSanitizer does not understand fences. Its reports about `blocked` and `asleep`, which are
//! atomics, are no data races; a report about a slot of the ring would be one.

#[cfg(loom)]
mod model;
mod stress;

use hybster_proto::ids::{OrderNumber, View};
use hybster_proto::output::{Network, Watermark};

/// An effect with a number in it.
fn effect(number: u64) -> Network {
    Network::Withdraw(Watermark { order: OrderNumber(number), view: View(0) })
}

/// The number of an effect.
fn number(effect: &Network) -> u64 {
    match effect {
        Network::Withdraw(mark) => mark.order.0,
        Network::Send { .. } | Network::CloseClient(_) => panic!("another effect"),
    }
}
