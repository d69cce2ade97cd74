//! The sans-IO protocol core of multi-pillar Hybster.
//!
//! The crate specifies what a correct replica and a correct client do, as state machines without
//! socket, thread, clock, random source or lock. A reader who holds the Hybster technical report
//! (TR) finds its modules here:
//!
//! | TR listing | here |
//! |---|---|
//! | 8 adaptive timeouts | [`timeouts`] |
//! | 12 view status, 19 view change | `hybster/control`, checks in `hybster/verify` |
//! | 14 invocation, client side | [`client`] |
//! | 15 invocation, replica side | [`intake`], session table in [`execution`] |
//! | 16 ordering | `hybster/pillar` |
//! | 17 execution | [`execution`] |
//! | 18 checkpointing | `hybster/pillar` (exchange), [`state`] (digests), `hybster/control` (stability) |
//! | 20 state transfer | [`state`], `hybster/control` |
//!
//! [`input`] and [`output`] are the interface to the driver of the stages; [`wire`] holds the
//! message formats.
#![forbid(unsafe_code)]
// engine/proto/clippy.toml lists what would make two runs from one seed differ.
#![deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)]
#![deny(clippy::iter_over_hash_type)]

pub mod admission;
pub mod backlog;
pub mod bounds;
pub mod client;
pub mod config;
pub mod egress;
pub mod epochs;
pub mod execution;
#[cfg(feature = "model")]
mod fingerprint;
pub mod hybster;
pub mod ids;
pub mod input;
pub mod intake;
#[doc(hidden)]
pub mod internals;
pub mod membership;
mod mix;
mod mutants;
pub mod notice;
#[cfg(test)]
mod noticed;
pub mod output;
pub mod pbft;
pub mod protocol;
pub mod replica;
pub mod service;
mod shared;
pub mod state;
pub mod time;
pub mod timeouts;
pub mod trace;
mod transferred;
pub mod truncation;
pub mod unreplicated;
pub mod wire;

pub use config::{ConfigError, GroupConfig};
pub use execution::{Execution, ExecutionStatus};
pub use ids::{ClientId, OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId, View};
pub use intake::Intake;
pub use output::{Input, Output};
pub use protocol::{Agreement, ControlStatus, Ordering, Protocol, Rules};
pub use replica::Stages;
pub use state::StateStage;
pub use time::Time;
pub use unreplicated::Unreplicated;
