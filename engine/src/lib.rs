//! Hybster: Byzantine fault-tolerant replication on 2f+1 machines with trusted counters.
//!
//! ```
//! use hybster::client::{Client, ClientOptions};
//! use hybster::group::{Addresses, CreateOptions, create};
//! use hybster::services::{CounterService, counter};
//! use hybster::{ClientId, ClientKeys, Replica, ReplicaKeys};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("hybster-example-{}", std::process::id()));
//! # let listeners = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
//! # let free = listeners.each_ref().map(|listener| listener.local_addr().unwrap()).to_vec();
//! # drop(listeners);
//! // A directory with the group's configuration and keys: three replicas and one client.
//! let options = CreateOptions { addresses: Addresses::List(free), ..CreateOptions::default() };
//! let group = create(&directory, &options)?;
//!
//! // All replicas in this process; usually each runs on its own machine, with its own key file.
//! let mut replicas = Vec::new();
//! for id in group.config().all_replicas() {
//!     let keys = ReplicaKeys::load(&group, &directory, id)?;
//!     replicas.push(Replica::builder(group.clone(), keys).service(CounterService::new()).start()?);
//! }
//!
//! let keys = ClientKeys::load(&group, &directory, ClientId(0))?;
//! let client = Client::connect(&group, &keys, ClientOptions::default())?;
//! client.call(&counter::encode_add(3))?;
//! replicas.remove(0).shutdown()?; // The leader: the group tolerates one fault.
//! let result = client.call(&counter::encode_add(4))?;
//! assert_eq!(counter::decode_reply(&result), Some(7));
//! # client.shutdown();
//! # drop(replicas);
//! # std::fs::remove_dir_all(directory)?;
//! # Ok(())
//! # }
//! ```
//!
//! Implement [`Service`], make a [`group`] directory, start a [`Replica`] on each machine, and call
//! the service through a [`client`]. Clients see one linearizable service while up to f of the 2f+1
//! replicas behave arbitrarily, as long as every replica's trusted subsystem is correct.
//!
//! - [`group`]: the members of a group, its constants, and all keys.
//! - [`replica`]: starting, watching and stopping a replica; [`runtime`] says how it works inside.
//! - [`client`]: sessions, asynchronous by design, with a blocking call on top.
//! - [`services`]: services that come with the crate.
//! - [`testing`]: whether a service is deterministic, before it is deployed.
//! - [`memory`]: what a replica may hold at most.
//! - [`durable`]: what a replica keeps on disk, so that it can start again.
//! - [`logging`]: log lines as text or JSON, for programs that have no logger of their own.
//! - [`duration`]: durations as people write them, for command lines.
//! - [`heap`]: the allocator for programs that run replicas, and what it says when memory ends.
// Calls into the C library and the allocator need it, in a module of their own.
#![deny(unsafe_code)]

pub mod client;
pub mod durable;
pub mod duration;
pub mod group;
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
pub use hybster_proto::service::{Context, Pages, RestoreError, Service, Snapshot};
pub use hybster_tss::RequestAuthenticator;
pub use replica::{Replica, ReplicaBuilder, ReplicaError, RunningReplica, StartError, Stopper};
pub use runtime::{Layout, Status};
