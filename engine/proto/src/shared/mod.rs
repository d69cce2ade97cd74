//! What ordering protocols compose their stages of.
//!
//! Structs, not control flow: each keeps one thing, checks nothing that only a protocol can check,
//! and decides nothing about the order of phases. A protocol owns them as fields and calls them
//! where its own rules say so.
//!
//! | struct | keeps |
//! |---|---|
//! | [`Log`](log::Log) | what is known about each slot of the window |
//! | [`Votes`](votes::Votes) | who vouches for which checkpoint |
//! | [`Bodies`](bodies::Bodies) | batches by digest that messages of a view change name |
//! | [`Later`](later::Later) | messages of views that are not entered yet |
//! | [`Proposals`](proposals::Proposals) | batches and gaps that wait to be proposed |
//! | [`Answers`](answers::Answers) | what peers have asked for, until there is room for the answer |
//! | [`CatchUp`](catch_up::CatchUp) | the stable checkpoint, and the way there |
//! | [`Differences`](differences::Differences) | states that differ, and whether the group can go on |
//! | [`Arrivals`](arrivals::Arrivals) | how long proposals may have been on their way |
//! | [`Outside`](outside::Outside) | a peer that left its view alone |
//!
//! `requests` checks the requests in a batch.

pub(crate) mod answers;
pub(crate) mod arrivals;
pub(crate) mod bodies;
pub(crate) mod catch_up;
pub(crate) mod differences;
pub(crate) mod later;
pub(crate) mod log;
pub(crate) mod outside;
pub(crate) mod proposals;
pub(crate) mod requests;
pub(crate) mod votes;
