//! Hybster: Byzantine fault-tolerant replication on 2f+1 machines with trusted counters.
//!
//! Implement [`Service`], make a [`group`] directory, start a [`Replica`] on each machine, and call
//! the service through a [`client`]: clients see one linearizable service while up to f of the
//! 2f+1 replicas behave arbitrarily, as long as every replica's trusted subsystem holds.
//!
//! - [`group`]: who belongs to a group, its constants, everybody's keys.
//! - [`replica`]: starting, watching and stopping a replica; [`runtime`] says how it works inside.
//! - [`client`]: sessions, asynchronous by design, with a blocking call on top.
//! - [`services`]: services to begin with.
//! - [`heap`]: what a program that runs replicas should tell its allocator.
// One call into the C library needs it, in a module of its own.
#![deny(unsafe_code)]

pub mod client;
pub mod group;
pub mod heap;
pub mod replica;
pub mod runtime;
pub mod services;

pub use group::{ClientKeys, Group, GroupError, ReplicaKeys};
pub use hybster_net::{LinkCipher, TransportKind};
pub use hybster_proto::config::GroupConfig;
pub use hybster_proto::ids::{ClientId, OrderNumber, ReplicaId, RequestNumber, SessionId, View};
pub use hybster_proto::protocol::Protocol;
pub use hybster_proto::service::{Context, Pages, RestoreError, Service, Snapshot};
pub use hybster_tss::RequestAuthenticator;
pub use replica::{Replica, ReplicaBuilder, ReplicaError, RunningReplica, StartError, Stopper};
pub use runtime::{Layout, Status};
