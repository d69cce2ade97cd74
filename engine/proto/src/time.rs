//! Time as the core sees it: microseconds since a start of the driver's choosing, and what the
//! driver says about the time of day.

/// A point in time, in microseconds. The driver passes it in; the core owns no clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Time(pub u64);

impl Time {
    /// The time `us` microseconds later.
    #[must_use]
    pub fn after_us(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// Microseconds since `earlier`, 0 if that lies ahead.
    #[must_use]
    pub fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How far the time of day is from [`Time`], as the driver read it last.
///
/// `Time` never goes back, the time of day may: so the core measures waits with the one and takes
/// the other for nothing but the times of batches. It is a guess that may be wrong, by as much as
/// the host's clock is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WallClock {
    offset_us: i64,
}

impl WallClock {
    /// A clock that shows `unix_us` microseconds since the Unix epoch at `now`.
    #[must_use]
    pub fn new(unix_us: u64, now: Time) -> Self {
        Self { offset_us: unix_us.wrapping_sub(now.0) as i64 }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ms(self, now: Time) -> u64 {
        now.0.saturating_add_signed(self.offset_us) / 1000
    }

    /// When the clock will show `unix_ms`.
    #[must_use]
    pub fn time_at(self, unix_ms: u64) -> Time {
        let unix_us = i128::from(unix_ms) * 1000;
        let time = unix_us - i128::from(self.offset_us);
        Time(u64::try_from(time.max(0)).unwrap_or(u64::MAX))
    }
}

/// The earlier of two optional deadlines.
#[must_use]
pub fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_an_offset() {
        for (unix_us, now) in [(1_700_000_000_123_000, 5_000), (4_000, 1 << 40), (0, 0)] {
            let clock = WallClock::new(unix_us, Time(now));
            assert_eq!(clock.unix_ms(Time(now)), unix_us / 1000);
            assert_eq!(clock.unix_ms(Time(now + 7_000)), unix_us / 1000 + 7);
            assert_eq!(clock.time_at(unix_us / 1000 + 7), Time(now + 7_000));
        }
        let clock = WallClock::new(5_000, Time(9_000));
        assert_eq!((clock.unix_ms(Time(0)), clock.time_at(0)), (0, Time(4_000)));
        assert_eq!(clock.time_at(u64::MAX), Time(u64::MAX));
    }
}
