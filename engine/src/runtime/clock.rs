//! The clocks that stages see.

use std::time::{Duration, Instant, SystemTime};

use hybster_proto::time::{Time, WallClock};

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

    /// The time of day, read at `now`. One before 1970 counts as 1970.
    pub(crate) fn wall(now: Time) -> WallClock {
        WallClock::new(since_1970().as_micros() as u64, now)
    }

    /// The time of day, in milliseconds since 1970.
    pub(crate) fn wall_ms() -> u64 {
        since_1970().as_millis() as u64
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
