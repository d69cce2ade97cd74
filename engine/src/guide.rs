//! A guide for those who embed the engine. It has no code of its own.
//!
//! # A deterministic service
//!
//! All replicas execute the same operations in the same order, and must come to the same state and the same
//! replies. So what a service does may follow from three things only: its state, the operation, and the
//! [`Context`]. That rules out
//!
//! - the clock of the machine, random numbers, threads that race, files, environment variables, the network:
//!   take time and chance from the [`Context`], and what comes from outside from the operation;
//! - the order of a `HashMap` or `HashSet`, in replies as in pages: take a `BTreeMap`, or a
//!   [`PagedMap`];
//! - addresses, `usize` in what is encoded, and floating-point functions such as `sin`, which differ
//!   from platform to platform;
//! - panics. An operation that makes one replica panic makes all replicas panic that execute it. Any client
//!   can send any operation, so each needs a result: checked and saturating arithmetic, no index that
//!   comes from outside, no `unwrap`.
//!
//! If replicas differ nevertheless, the group notices at the next checkpoint. One that differs alone
//! gets the state of the others; if no f+1 agree, the group halts, and clients are told
//! [`StatesDiffer`](crate::client::CallError::StatesDiffer). Replies that differ end in
//! [`RepliesDiffer`](crate::client::CallError::RepliesDiffer).
//!
//! # State in pages
//!
//! Every some hundred operations the replicas make a checkpoint: they compare a digest of their
//! states, and one that fell behind gets what differs. That goes by pages, byte strings with stable
//! indices. A service that changes much of a small state can write all of it into one page
//! ([`Pages`](crate::Pages)). For others there are the containers of [`paged`](crate::paged), of which a
//! checkpoint costs as much as has changed:
//!
//! ```
//! use hybster::paged::{PagedBytes, PagedCell, PagedMap};
//!
//! #[derive(Default)]
//! struct Files {
//!     by_name: PagedMap<String, u64>, // Ordered, as a BTreeMap.
//!     last: PagedCell<u64>,           // One value, used as the value itself.
//!     content: PagedBytes,            // A long run of bytes.
//! }
//!
//! let mut files = Files::default();
//! *files.last += 1;
//! files.by_name.insert("readme".to_owned(), *files.last);
//! files.content.write(4096 * *files.last, b"hello");
//! ```
//!
//! What is in no page is lost when a state is transferred, and then replicas differ: caches must be
//! made again by [`restore`](crate::Service::restore), or must not matter.
//!
//! # Time
//!
//! [`Context::time_ms`] is a time on which the replicas agree. It never falls, is the same for all
//! operations of a batch, and follows real time as closely as the clocks of the replicas do
//! ([`max_clock_skew_ms`](crate::GroupConfig::max_clock_skew_ms)). It passes only when operations are
//! executed. So something that ends at a time, a lease, say, has not to be woken: the next operation
//! that looks at it sees that it has ended.
//!
//! ```
//! use hybster::Context;
//! use hybster::paged::PagedMap;
//!
//! /// Sessions by name, and the times at which they end.
//! fn is_open(sessions: &PagedMap<String, u64>, name: &str, context: &Context) -> bool {
//!     sessions.get(name).is_some_and(|ends_ms| *ends_ms > context.time_ms)
//! }
//! # let context = Context::new(Default::default(), hybster::RequestNumber(1), hybster::OrderNumber(1));
//! # assert!(!is_open(&PagedMap::new(), "x", &context));
//! ```
//!
//! Something that shall *happen* at a time is a timer ([`PagedTimers`](crate::paged::PagedTimers)): each operation begins with those
//! that are due, in the same order on all replicas. A timer fires with the first operation after its time; where
//! nobody may ask for anything for long, a client of the service's own sends an operation that does nothing, now and then.
//!
//! What an external thing must not do twice needs a number as well: the lock service among the examples
//! gives fencing tokens. [`Context::randomness`] has 32 bytes for each batch that no client can foresee.
//!
//! # Testing
//!
//! Four steps, from quick to thorough:
//!
//! 1. The service alone: it is a struct with functions.
//! 2. [`check_deterministic`] over a few thousand operations of every kind, malformed ones too.
//! 3. [`LocalCluster`]: a whole group in the test's process, with faults at will.
//! 4. `testing::simulate`, with the feature `simulator`: thousands of simulated groups, with every fault that the engine's own
//!    simulator knows, each run from a seed that reproduces it.
//!
//! ```
//! # use hybster::{Context, paged::{Paged, PagedMap}};
//! use hybster::testing::{LocalCluster, check_deterministic};
//! use hybster::typed::{NoRefusal, Typed, TypedService, encode};
//! use hybster::ReplicaId;
//!
//! # #[derive(Default)]
//! # struct Tally(PagedMap<String, u64>);
//! # impl TypedService for Tally {
//! #     type Operation = String;
//! #     type Reply = u64;
//! #     type Refusal = NoRefusal;
//! #     fn execute(&mut self, _: &Context, name: String) -> Result<u64, NoRefusal> {
//! #         let count = self.0.get(&name).map_or(1, |count| count + 1);
//! #         self.0.insert(name, count);
//! #         Ok(count)
//! #     }
//! #     fn state(&mut self) -> Vec<&mut dyn Paged> {
//! #         vec![&mut self.0]
//! #     }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Tally is a TypedService that counts names.
//! let operations: Vec<_> = (0..100).map(|i| encode(&format!("name {}", i % 30))).collect();
//! check_deterministic(Typed::<Tally>::default, &operations)?;
//!
//! let cluster = LocalCluster::start(Typed::<Tally>::default)?;
//! let tally = cluster.client()?.typed::<Tally>();
//! cluster.cut(ReplicaId(2))?;
//! assert_eq!(tally.call(&"alice".to_owned())?, 1);
//! cluster.heal(ReplicaId(2))?;
//! cluster.await_equal()?; // It has caught up.
//! # Ok(())
//! # }
//! ```
//!
//! # Clients
//!
//! [`Client`] is for threads and for tasks of any runtime. [`Client::submit`] never blocks and is never
//! refused for want of room; dropping its ticket cancels the request, and
//! [`Request::timeout`](crate::client::Request::timeout) gives it a deadline. What an error means for the
//! operation is said at each variant of [`CallError`](crate::client::CallError); after
//! [`Timeout`](crate::client::CallError::Timeout) and
//! [`Unreachable`](crate::client::CallError::Unreachable) it may or may not be executed. So operations that
//! are tried again should carry a number by which the service knows them.
//!
//! # Deployment
//!
//! [`group::create`](crate::group::create()) (or `hybster init`) makes a directory with the group file, which is
//! public, and a key file for each replica and client. Each machine gets the group file and its own key
//! file, nothing else. Where secrets come from a store or an environment, [`group`](crate::group) has texts
//! instead of files.
//!
//! A replica needs a disk for its log ([`durable`](crate::durable)), on which nobody ever puts an older copy:
//! the other replicas are the backup. Compile programs that run replicas with `panic = "abort"` or without,
//! as you like: a replica whose service panics stops either way, and in the latter case says what it did
//! ([`ReplicaError::ServicePanicked`](crate::ReplicaError::ServicePanicked)).
//!
//! # Names and versions
//!
//! All replicas must run the same service. So let it say what it is
//! ([`Service::identity`](crate::Service::identity),
//! [`TypedService::identity`](crate::typed::TypedService::identity)):
//!
//! ```
//! use hybster::ServiceIdentity;
//!
//! const BANK: ServiceIdentity = ServiceIdentity::new("bank", 4).compatible_from(3);
//! ```
//!
//! Replicas compare it when they connect, and refuse another service or a version that is not compatible
//! (`service_mismatch` in [`Status::refusals`](crate::Status::refusals) and in the log). A
//! group file that has the name ([`GroupConfig::service`](crate::GroupConfig::service)) lets no other service start, and
//! with a version ([`Group::service_version`](crate::Group::service_version)) no version that is not compatible.
//!
//! The version stands for what operations lead to and for the form of the pages; what changes neither keeps it.
//! A new version replies or pages differently. It is deployed to a group that was stopped, or one
//! replica after the other if it is compatible: then it does as the old one did, until something in
//! the state, which an operation sets when all replicas are upgraded, says that it does the new thing from here on.
//! The newer of two versions says whether they are compatible, since it knows the older one.
//!
//! The name is one of the group's constants, which the certificates of the trusted counters cover. The version is
//! not: it rises while the group lives, and files may differ in it during an upgrade.
//!
//! # What may change
//!
//! The crate follows semantic versioning: before 1.0, a change of the middle number may break a program that
//! uses it, one of the last does not. Enumerations of errors and structs of counters may grow, and are marked
//! so. All public items are listed in `engine/API.txt`, and the project's checks fail when one changes without that
//! listing, so that none does by accident. These are meant to last: [`Service`](crate::Service), [`Snapshot`](crate::Snapshot), [`Context`],
//! [`Client`], [`Group`](crate::Group), [`Replica`](crate::Replica) and the modules
//! [`typed`](crate::typed), [`paged`](crate::paged) and [`testing`](crate::testing). [`runtime`](crate::runtime) and
//! [`memory`](crate::memory) tell of the inside, and change with it. The bytes of links, logs, group files
//! and typed operations have versions of their own; a program reads what the one before it wrote, or says that
//! it does not. The pages of [`paged`](crate::paged) begin with a byte that says which form they have.

#[cfg(doc)]
use crate::Context;
#[cfg(doc)]
use crate::client::Client;
#[cfg(doc)]
use crate::paged::PagedMap;
#[cfg(doc)]
use crate::testing::{LocalCluster, check_deterministic};
