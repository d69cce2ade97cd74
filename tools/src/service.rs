//! The services that `hybster replica` can run.

use clap::ValueEnum;

/// A service by name. All replicas of a group must run the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceName {
    /// Does nothing; for measurements.
    Null,
    /// One number that operations add to.
    Counter,
    /// The ordered key-value store of `hybster kv`.
    Kv,
}

impl ServiceName {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Counter => "counter",
            Self::Kv => "kv",
        }
    }
}
