//! The runtime of a replica: threads, queues and the network around the protocol's stages.
//!
//! The protocol core consists of *stages* (see [`hybster_proto::output`]): state machines that take
//! inputs and push effects. The runtime gives them threads. An *agent* is a thread that owns some
//! of the stages; one agent also owns the network. The [`Layout`] says which agent owns which
//! stage, and nothing else depends on it.
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
//! through a bounded single-producer queue (`channel`). A run of inputs costs one atomic store and,
//! only if the other agent sleeps, one wake-up (`doorbell`).
//!
//! **One turn of an agent** (`agent`): it takes the inputs from the network and the other agents,
//! lets its stages handle them until none is left or the time slice is over, and flushes: replies
//! as one message per link, inputs as one run per agent, sends as one write per link. Then it
//! sleeps until something arrives or a stage's deadline passes. While messages follow each other
//! closely, the network polls for some microseconds before it sleeps (`Limits::busy_poll`); without
//! traffic nothing spins. There is no system call, lock or log line per request.
//!
//! **Back-pressure.** When a queue is full, its sender keeps the inputs in order and counts as
//! congested. While any agent is congested, the network agent does not read from clients. It always
//! reads from peers: the order window bounds what they may have in flight. No send blocks, so there
//! is no cycle of waiting.
//!
//! **Tests.** `concurrency` runs queues and doorbells with real threads and, under `--cfg loom`,
//! through all interleavings. It also says what Miri and ThreadSanitizer can check here.
//!
//! # Packages
//! Queues come from `rtrb` and not from `crossbeam`: each has one sender and one receiver, and
//! `rtrb` hands over a run of messages with one store, whereas the queues of `crossbeam`, made for
//! many senders and receivers, need a compare-and-swap per message. `crossbeam` provides the
//! padding that keeps the doorbells of different threads on different cache lines, `core_affinity`
//! pins threads, and `parking_lot` guards the state that is used only when a replica stops.

mod agent;
mod channel;
mod clock;
#[cfg(test)]
mod concurrency;
mod counters;
mod doorbell;
mod epochs;
mod gate;
mod layout;
mod network;
mod shared;
mod stage;
mod status;
mod sync;
pub mod timing;
mod tracing;

pub use layout::{Layout, UnknownLayout};
pub use status::{
    AgentStatus, DiskStatus, PeerStatus, PillarStatus, RefusalCount, RejectionCount, Status,
    TrafficStatus,
};

pub(crate) use agent::{Agent, SPARE_QUEUES};
pub(crate) use channel::{Inbox, Outbox, QUEUE_BYTES, connect};
pub(crate) use counters::Counters;
pub(crate) use epochs::{EpochWatch, OtherEpochs, Said};
pub(crate) use layout::{AgentPlan, Cores, Role, plan};
pub(crate) use network::Network;
pub(crate) use shared::{Failure, Shared};
pub(crate) use stage::{Clients, Control, Pillar, Stage};
pub(crate) use tracing::{SLOT_BYTES as TRACE_SLOT_BYTES, TraceFile, TraceTarget};
