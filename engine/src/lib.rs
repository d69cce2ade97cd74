//! Hybster: Byzantine fault-tolerant replication on 2f+1 machines with trusted counters.

pub mod services;

pub use hybster_proto::service::{Context, RestoreError, Service, Snapshot};
