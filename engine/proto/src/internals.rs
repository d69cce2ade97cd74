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
