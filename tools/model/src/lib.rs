//! Model checking of the protocol core in small bounds.
#![forbid(unsafe_code)]

pub mod checker;
pub mod explore;
pub mod faulty;
pub mod group;
pub mod replica;
pub mod schedule;
pub mod world;

pub use checker::{Action, CoreModel, State};
pub use explore::{Outcome, explore};
pub use group::Bounds;
pub use schedule::Schedule;
