//! The services that `hybster replica` can run.

use clap::ValueEnum;
use hybster::ServiceIdentity;
use hybster::services::{CounterService, KvService, NullService};
use hybster_gateway::RedisService;

/// A service by name. All replicas of a group must run the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceName {
    /// Does nothing; for measurements.
    Null,
    /// One number that operations add to.
    Counter,
    /// The ordered key-value store of `hybster kv`.
    Kv,
    /// The store of `hybster gateway`, for Redis clients.
    Redis,
}

impl ServiceName {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Counter => "counter",
            Self::Kv => "kv",
            Self::Redis => "redis",
        }
    }

    /// What it says of itself.
    pub(crate) const fn identity(self) -> ServiceIdentity {
        match self {
            Self::Null => NullService::IDENTITY,
            Self::Counter => CounterService::IDENTITY,
            Self::Kv => KvService::IDENTITY,
            Self::Redis => RedisService::IDENTITY,
        }
    }
}
