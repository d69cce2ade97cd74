//! The wire format of Hybster's own messages; `engine/proto/WIRE.md` draws the layouts.

pub(crate) mod checkpoint;
pub(crate) mod ordering;
pub(crate) mod view;
