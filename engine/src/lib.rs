//! Hybster: Byzantine fault-tolerant replication on 2f+1 machines with trusted counters.
//!
//! A service is a deterministic state machine. The engine replicates it, so that clients see one
//! linearizable service while up to f of the 2f+1 replicas behave arbitrarily, as long as every
//! replica's trusted subsystem is correct.
//!
//! ```
//! use hybster::Context;
//! use hybster::paged::{Paged, PagedCell};
//! use hybster::testing::LocalCluster;
//! use hybster::typed::{NoRefusal, Typed, TypedService};
//!
//! #[derive(Default)]
//! struct Counter(PagedCell<u64>);
//!
//! impl TypedService for Counter {
//!     type Operation = u64; // What is added.
//!     type Reply = u64;
//!     type Refusal = NoRefusal;
//!
//!     fn execute(&mut self, _: &Context, amount: u64) -> Result<u64, NoRefusal> {
//!         *self.0 = self.0.wrapping_add(amount);
//!         Ok(*self.0)
//!     }
//!
//!     fn state(&mut self) -> Vec<&mut dyn Paged> {
//!         vec![&mut self.0]
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A whole group in this process, as tests want it.
//! let mut cluster = LocalCluster::start(Typed::<Counter>::default)?;
//! let counter = cluster.client()?.typed::<Counter>();
//! counter.call(&3)?;
//! cluster.stop(cluster.leader())?; // The group tolerates one fault.
//! assert_eq!(counter.call(&4)?, 7);
//! # Ok(())
//! # }
//! ```
//!
//! In production each replica has a machine and a process of its own:
//!
//! ```no_run
//! use hybster::client::{Client, ClientOptions};
//! use hybster::services::CounterService;
//! use hybster::{ClientId, ClientKeys, Group, Replica, ReplicaId, ReplicaKeys};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // On the machine of replica 1, with a directory made by `hybster init` or `group::create`:
//! let group = Group::load("my-group")?;
//! let keys = ReplicaKeys::load(&group, group.directory(), ReplicaId(1))?;
//! let replica = Replica::builder(group, keys).service(CounterService::new()).start()?;
//! replica.wait()?;
//!
//! // In a program that uses the service:
//! let group = Group::load("my-group")?;
//! let keys = ClientKeys::load(&group, group.directory(), ClientId(0))?;
//! let client = Client::connect(&group, &keys, ClientOptions::default())?;
//! # drop(client);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go on
//!
//! - [`guide`]: writing a deterministic service, pages, time, testing, deployment, and what of this
//!   crate may change.
//! - [`typed`]: services and clients with types; [`paged`]: state in pages. [`Service`] is what lies
//!   beneath: operations, replies and pages as bytes.
//! - [`testing`]: whole groups in one process, and whether a service is deterministic.
//! - [`client`]: futures that need no particular runtime, and blocking calls.
//! - [`group`]: the members of a group, its constants, and all keys.
//! - [`replica`]: starting, watching and stopping a replica; [`runtime`] says how it works inside.
//! - [`services`]: services that come with the crate.
//! - [`memory`]: what a replica may hold at most.
//! - [`durable`]: what a replica keeps on disk, so that it can start again.
//! - [`backup`]: a service's state outside of its group, and a new group that begins with it.
//! - [`logging`]: log lines as text or JSON, for programs that have no logger of their own.
//! - [`duration`]: durations as people write them, for command lines.
//! - [`heap`]: the allocator for programs that run replicas, and what it says when memory ends.
// Calls into the C library and the allocator need it, in a module of their own.
#![deny(unsafe_code)]

pub mod backup;
pub mod client;
pub mod durable;
pub mod duration;
pub mod group;
pub mod guide;
pub mod heap;
pub mod logging;
pub mod memory;
pub mod paged;
pub mod replica;
pub mod runtime;
pub mod services;
pub mod testing;
pub mod typed;

pub use group::{ClientKeys, Group, GroupError, ReplicaKeys};
pub use hybster_net::{LinkCipher, NoTransport, PeerAddress, TransportKind};
pub use hybster_proto::config::GroupConfig;
pub use hybster_proto::ids::{ClientId, OrderNumber, ReplicaId, RequestNumber, SessionId, View};
pub use hybster_proto::protocol::Protocol;
pub use hybster_proto::service::{
    BadServiceName, Context, MAX_PAGE_BYTES, PAGES_PER_GROUP, Pages, RestoreError, Service,
    ServiceIdentity, ServiceName, Snapshot,
};
pub use hybster_proto::time::Time;
pub use hybster_proto::trace::TraceEvent;
pub use hybster_tss::{MacAlgorithm, RequestAuthenticator};
pub use replica::{Replica, ReplicaBuilder, ReplicaError, RunningReplica, StartError, Stopper};
pub use runtime::{Layout, Status};
