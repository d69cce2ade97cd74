//! The wire format of Hybster's own messages; `engine/proto/WIRE.md` draws the layouts.

pub mod checkpoint;
pub mod ordering;
pub mod view;
