//! The runtime of a replica: threads, queues and the network around the protocol's stages.
//!
//! The protocol core consists of *stages* (see [`hybster_proto::output`]): state machines that take
//! inputs and push effects. Here they get threads. An *agent* is a thread that owns some stages; at
//! most one agent owns the network. Which agent owns which stage is the [`Layout`]: a mapping, and
//! nothing else depends on it.
//!
//! ```text
//!              fused                                     split
//!   ┌──────────────────────────┐      ┌───────────────┐   ┌──────────┐   ┌───────────┐
//!   │ network  clients control │      │ network       │⇄  │ pillar 0 │⇄  │ execution │
//!   │ pillar 0 … pillar P−1    │      │ clients       │   ├──────────┤   ├───────────┤
//!   │ execution       state    │      │ control       │⇄  │ pillar 1 │⇄  │ state     │
//!   └──────────────────────────┘      └───────────────┘   └──────────┘   └───────────┘
//! ```
//!
//! An input to a stage of the same agent goes through a plain ring. An input to another agent goes
//! through a bounded single-producer queue (`mailbox`); a run of inputs costs one atomic store and,
//! only if the other agent sleeps, one wake-up (`doorbell`).
//!
//! **One turn of an agent** (`agent`): take what the network and the other agents brought, let the
//! stages handle inputs until none is left (or the slice of time is over), flush: replies as one
//! message per link, inputs as one run per agent, sends as one write per link. Then sleep until
//! something arrives or a stage's deadline passes. While messages follow each other closely the network
//! looks again for some microseconds before it sleeps (`Limits::busy_poll`); without traffic nothing
//! spins. No system call, lock or log line is made per request.
//!
//! **Back-pressure.** When a queue is full, its sender keeps the inputs in order and counts as
//! congested; while anybody is congested, the network agent does not read from clients. It always
//! reads from peers: what they may have in flight is bounded by the order window. No send blocks, so
//! there is no cycle of waiting.
//!
//! **Tests.** `concurrency` has what runs queues and doorbells with real threads and, under
//! `--cfg loom`, through all interleavings, and says what Miri and ThreadSanitizer can do here.
//!
//! # Packages
//! Queues are `rtrb`'s and not `crossbeam`'s: each has one sender and one receiver, and `rtrb` hands
//! over runs of messages with one store per run, where `crossbeam`'s queues pay a compare-and-swap per
//! message for senders and receivers that are not there. `crossbeam` gives the padding that keeps the
//! doorbells of different threads on different cache lines, `core_affinity` pins threads, and
//! `parking_lot` guards what is touched only when a replica stops.

mod agent;
mod channel;
mod clock;
#[cfg(test)]
mod concurrency;
mod counters;
mod doorbell;
mod layout;
mod links;
mod network;
mod shared;
mod stage;
mod status;
mod sync;
mod tracing;

pub use layout::{Layout, UnknownLayout};
pub use status::{
    AgentStatus, PeerStatus, PillarStatus, RefusalCount, RejectionCount, Status, TrafficStatus,
};

pub(crate) use agent::Agent;
pub(crate) use channel::{Inbox, Outbox, connect};
pub(crate) use counters::Counters;
pub(crate) use layout::{AgentPlan, Cores, Role, plan};
pub(crate) use network::Network;
pub(crate) use shared::{Failure, Shared};
pub(crate) use stage::{Clients, Stage};
pub(crate) use tracing::{TraceFile, TraceTarget};
