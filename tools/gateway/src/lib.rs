//! A replicated store that Redis clients speak to.
//!
//! [`RedisService`] is the store: Redis's data types as a service of a group. [`Gateway`] is what Redis clients
//! connect to: it speaks RESP2 and RESP3, and is a client of the group. Any number of gateways may run side by
//! side. `hybster gateway` is this library as a program.
//!
//! # What a gateway can do to its users
//!
//! A group gives a client a result when f+1 replicas give the same one. Here the client of the group is the
//! gateway, so its users have *its* word: a gateway that is broken into, or lies, can tell them anything, keep
//! commands back or send others in their name, and reads everything. It can do no more than any client of the
//! group, so it can break neither the agreement of the replicas nor what other gateways' users see, but for the
//! keys, which all share. Run it where you would run the program that uses it: on the same machine.
//!
//! # What is promised
//!
//! - Commands are linearizable across all gateways, those of one connection in their order. MULTI … EXEC is one
//!   operation.
//! - A command that was answered survives what the group survives. If its outcome is not known, because the
//!   group did not answer in time, its connection gets an error and is closed.
//! - Keys end by agreed time, at the same place in the order on all replicas.
//!
//! # What is different from Redis 7.0
//!
//! The same random commands are given to a real `redis-server`, and replies compared (`service/differential.rs`).
//! These are the differences, all of them on purpose:
//!
//! - *Order.* Elements of hashes and sets, and KEYS, come in another order. Small sets and hashes are in
//!   no order of insertion.
//! - *Chance.* SPOP, SRANDMEMBER, HRANDFIELD and RANDOMKEY pick others. The group's own random bytes decide, so
//!   no client can foresee them. Several different members are neighbours in the order of their hashes.
//! - *INCRBYFLOAT* and HINCRBYFLOAT calculate with 17 decimal places instead of 64 binary ones, so 0.1 and 0.2 are
//!   0.3 and no noise is added up. Numbers are less than 10²⁰, and not hexadecimal.
//! - *Lengths.* A request is no longer than the group's `max_operation_bytes` (1 MiB by default), a reply than
//!   `max_reply_bytes`: a longer one is an error, and a value is 4 MiB at most. The array of replies of a
//!   transaction counts as one.
//! - *WATCH* compares versions at EXEC: a key that was absent, was made and is absent again has not changed.
//! - *Between MULTI and EXEC* commands that a gateway answers itself (PUBLISH, CLIENT, INFO …) are refused.
//! - *PUBLISH* reaches the subscribers of the same gateway only.
//! - *Blocking pops* hear at once of what comes through the same gateway, and within a quarter of a second of
//!   what comes through another.
//! - *SELECT* knows 16 databases, FLUSHALL empties all. DBSIZE may count keys whose time is over.
//! - *ZRANGE by index*, ZRANK and LINSERT cost the length of what they skip.
//! - *BYLEX* ranges are those of Redis where all scores are equal, as Redis asks for; what others give is not.
//! - *OBJECT ENCODING* names one encoding for each type. INFO, CONFIG GET, CLIENT LIST tell of the gateway only;
//!   COMMAND DOCS tells nothing. WAIT answers 0: what is answered is safe already.
//! - Scripts, streams, HyperLogLogs, bit and geo commands, SORT, ACLs, DUMP and replication are unknown commands.
//!
//! # Limits
//!
//! Connections, the bytes that each and all of them may hold, commands in flight and subscriptions are bounded
//! ([`GatewayOptions`], `server/mod.rs`). A connection whose commands wait is not read. One that does not read its
//! replies is not served, and one that does not read its messages is closed.
#![forbid(unsafe_code)]

mod glob;
mod number;
mod operation;
mod reply;
mod server;
mod service;

pub use server::{Gateway, GatewayError, GatewayOptions, GatewayStopper};
pub use service::RedisService;
