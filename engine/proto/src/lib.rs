//! The sans-IO protocol core of multi-pillar Hybster.
#![forbid(unsafe_code)]

pub mod ids;
pub mod service;
