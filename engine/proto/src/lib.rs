//! The sans-IO protocol core of multi-pillar Hybster.
//!
//! The crate specifies what a correct replica and a correct client do, as state machines without
//! socket, thread, clock, random source or lock. A reader who holds the Hybster technical report
//! (TR) finds its modules here:
//!
//! | TR listing | here |
//! |---|---|
//! | 8 adaptive timeouts | [`timeouts`] |
//! | 12 view status, 19 view change | [`control`], checks in `verify` |
//! | 14 invocation, client side | [`invocation`] |
//! | 15 invocation, replica side | [`clients`], session table in [`execution`] |
//! | 16 ordering | [`pillar`] |
//! | 17 execution | [`execution`] |
//! | 18 checkpointing | [`pillar`] (exchange), [`state`] (digests), [`control`] (stability) |
//! | 20 state transfer | [`state`], [`control`] |
//!
//! [`output`] is the seam to whoever drives the stages; [`wire`] holds the message formats.
#![forbid(unsafe_code)]

pub mod clients;
pub mod config;
pub mod control;
pub mod execution;
#[cfg(feature = "model")]
pub mod fingerprint;
pub mod ids;
pub mod invocation;
pub mod mutants;
pub mod output;
pub mod pillar;
pub mod relaying;
pub mod replica;
pub mod service;
pub mod state;
pub mod time;
pub mod timeouts;
pub mod trace;
pub mod unreplicated;
mod verify;
pub mod wire;

pub use clients::ClientStage;
pub use config::{ConfigError, GroupConfig};
pub use control::{Control, ControlStatus};
pub use execution::{Execution, ExecutionStatus};
pub use ids::{ClientId, OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId, View};
pub use output::{Letter, Output};
pub use pillar::Pillar;
pub use replica::Stages;
pub use state::StateStage;
pub use time::Time;
pub use unreplicated::Unreplicated;
