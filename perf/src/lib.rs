//! The common base of the micro-benchmarks, the instruction counts and the allocation check: a
//! whole group on one thread, without sockets.
//!
//! [`Rig`] connects the real stages of all replicas and a real client core by plain queues, and
//! moves requests through them, round by round. A [`Probe`] observes them: it can count the
//! allocations of each stage, or keep the inputs of each stage ([`Recording`]), so that one stage
//! or one replica can be measured alone afterwards, with exactly the inputs that it gets in a
//! group.
//!
//! `README.md` next to this crate says how to run everything, `RESULTS.md` has the results.
#![forbid(unsafe_code)]

mod fixture;
mod host;
mod recording;
mod rig;

pub use fixture::{Fixture, LINK, Numbered, Pillar, Stages};
pub use host::{Host, Place, Probe};
pub use recording::{Recorded, Recording};
pub use rig::Rig;
