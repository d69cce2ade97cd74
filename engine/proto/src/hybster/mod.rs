//! The Hybster ordering protocol over pillars: what is Hybster's and no other protocol's.
//!
//! | TR listing | here |
//! |---|---|
//! | 16 ordering | [`pillar`] |
//! | 18 checkpointing, the exchange | [`pillar`] |
//! | 12 view status, 19 view change | [`control`], checks in `verify` |

pub mod control;
pub mod pillar;
pub(crate) mod verify;
pub mod wire;
