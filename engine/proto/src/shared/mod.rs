//! What ordering protocols compose their stages of.
//!
//! Structs, not control flow: each keeps one thing, checks nothing that only a protocol can check,
//! and decides nothing about the order of phases. A protocol owns them as fields and calls them
//! where its own rules say so.

pub(crate) mod later;
pub(crate) mod log;
pub(crate) mod proposals;
pub(crate) mod requests;
