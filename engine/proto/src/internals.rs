//! What the workspace's own checkers reach into: simulator, model checker, fuzz targets and
//! benchmarks. Nothing here is promised to anybody else.

#[cfg(feature = "model")]
pub mod fingerprint {
    pub use crate::fingerprint::*;
}
pub mod mutants {
    pub use crate::mutants::*;
}

pub use crate::hybster::control::Control;
pub use crate::hybster::input::{ControlInput, PillarInput};
pub use crate::hybster::pillar::Pillar;
pub use crate::hybster::wire::checkpoint::*;
pub use crate::hybster::wire::last_seen::LastSeen;
pub use crate::hybster::wire::ordering::*;
pub use crate::hybster::wire::view::*;

/// PBFT's.
pub mod pbft {
    pub use crate::pbft::control::Control;
    pub use crate::pbft::decision::{Decision, decide};
    pub use crate::pbft::input::{ControlInput, PillarInput};
    pub use crate::pbft::pillar::Pillar;
    pub use crate::pbft::stable::Stable;
    pub use crate::pbft::wire::{help, kind, ordering, view};
}
