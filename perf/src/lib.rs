//! What the micro-benchmarks, the instruction counts and the allocation check share: a whole group
//! on one thread, without sockets.
//!
//! [`Rig`] joins the real stages of all replicas and a real client core by plain queues and carries
//! requests through them, round by round. A [`Probe`] looks on: it may count what each stage
//! allocates, or keep what each stage was told ([`Recording`]), so that one stage, or one replica,
//! can be measured alone afterwards with exactly the inputs that it gets in a group.
//!
//! `README.md` beside this crate says how to run everything, `RESULTS.md` what came out.
#![forbid(unsafe_code)]

mod fixture;
mod host;
mod recording;
mod rig;

pub use fixture::{Fixture, LINK, Numbered, Pillar, Stages};
pub use host::{Host, Place, Probe};
pub use recording::{Recorded, Recording};
pub use rig::Rig;
