//! The clock that stages see.

use std::time::Instant;

use hybster_proto::time::Time;

/// Microseconds since the replica was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        self.at(Instant::now())
    }

    pub(crate) fn at(&self, instant: Instant) -> Time {
        let elapsed = instant.saturating_duration_since(self.origin);
        Time(elapsed.as_micros() as u64)
    }
}
