//! Time as the core sees it: microseconds since a start of the driver's choosing, and what the
//! driver says about the time of day.

use crate::mutants::{self, Mutant};

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

/// How much longer than this replica's its peers' threads may be held up by what it has executed: by the batch
/// before, by that one, and by what they execute at a time.
const GRACE: u64 = 3;

/// The clock goes at least at this fraction of the host's.
const SLOWEST: u64 = 64;

/// The time of stages that share a thread, which one of them may hold up for long: an operation of the
/// service, or a snapshot. What arrives meanwhile is not read, so waits for it do not count that time: else
/// each of them would end as soon as the thread goes on, before what has arrived is looked at, and replicas
/// of a group with a slow service would suspect its leader. Nor do they count three times as long after
/// that: peers execute the same, and may be behind.
///
/// Where one such turn follows the other, the clock goes at a 64th of the host's speed
/// at least: a leader that leaves out a client is suspected later, but not never.
#[derive(Clone, Copy, Debug)]
pub struct StageClock {
    /// What does not count, in microseconds.
    held_up_us: u64,
    /// What the clock showed when the thread was held up last.
    stands_at: Time,
    /// When that was, by the host's clock.
    stood_since: Time,
    /// When it goes on, by the host's clock, and how long it will have stood.
    goes_on: (Time, u64),
    /// A turn of the thread that takes longer holds the stages up.
    longest_turn_us: u64,
}

impl StageClock {
    /// A clock for stages that wait this long, in microseconds, before they send something again.
    #[must_use]
    pub fn new(resend_us: u64) -> Self {
        let (held_up_us, stands_at, goes_on) = (0, Time(0), (Time(0), 0));
        let (stood_since, longest_turn_us) = (Time(0), resend_us / 4);
        Self { held_up_us, stands_at, stood_since, goes_on, longest_turn_us }
    }

    /// What the stages see.
    #[must_use]
    pub fn time(&self, host: Time) -> Time {
        Time(host.0.saturating_sub(self.held_up_us)).max(self.stands_at)
    }

    /// When the host's clock shows it if the thread is not held up until then.
    #[must_use]
    pub fn host(&self, time: Time) -> Time {
        time.after_us(self.held_up_us)
    }

    /// How much later than usual messages may be handled these days, in microseconds.
    #[must_use]
    pub fn late_us(&self, host: Time) -> u64 {
        let (goes_on, stood_us) = self.goes_on;
        if host.since_us(goes_on) < stood_us { stood_us } else { 0 }
    }

    /// Whether what takes this long, in microseconds, holds the stages up.
    #[must_use]
    pub fn is_long(&self, us: u64) -> bool {
        us > self.longest_turn_us
    }

    /// A turn of the thread began then, by the host's clock, and took this long, in microseconds; whether
    /// it held the stages up.
    pub fn turn_took(&mut self, began: Time, us: u64) -> bool {
        let is_held_up = self.is_long(us) && !mutants::active(Mutant::HoldUpsCount);
        if is_held_up {
            let slowest = self.stands_at.after_us(began.since_us(self.stood_since) / SLOWEST);
            self.stands_at = self.time(began).max(slowest);
            self.stood_since = began;
            let goes_on = began.after_us((1 + GRACE) * us);
            self.held_up_us = self.held_up_us.max(goes_on.since_us(self.stands_at));
            self.goes_on = (goes_on, goes_on.since_us(began));
        }
        is_held_up
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
    late_us: u64,
}

impl WallClock {
    /// A clock that shows `unix_us` microseconds since the Unix epoch at `now`.
    #[must_use]
    pub fn new(unix_us: u64, now: Time) -> Self {
        Self { offset_us: unix_us.wrapping_sub(now.0) as i64, late_us: 0 }
    }

    /// The same for stages that may handle messages this much later than usual, in microseconds.
    #[must_use]
    pub fn with_delay(self, late_us: u64) -> Self {
        Self { late_us, ..self }
    }

    /// How much later messages may be handled than they arrive, in milliseconds, more than usual.
    #[must_use]
    pub fn late_ms(self) -> u64 {
        self.late_us / 1000
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
    fn long_turns_do_not_count_nor_some_time_after_them() {
        let mut clock = StageClock::new(40_000);
        assert!(!clock.turn_took(Time(50_000), 10_000));
        assert_eq!(
            (clock.time(Time(70_000)), clock.host(Time(70_000))),
            (Time(70_000), Time(70_000))
        );
        assert!(clock.turn_took(Time(70_000), 10_001));
        assert_eq!([70_000, 80_001, 110_004].map(|at| clock.time(Time(at)).0), [70_000; 3]);
        assert_eq!(
            (clock.time(Time(110_005)), clock.host(Time(70_001))),
            (Time(70_001), Time(110_005))
        );
        // It is held up again before that time is over.
        assert!(clock.turn_took(Time(85_000), 600_000));
        assert_eq!([85_000, 685_000, 2_485_000].map(|at| clock.time(Time(at)).0), [70_234; 3]);
        assert_eq!(clock.time(Time(2_485_007)), Time(70_241));
        // And again and again: it goes on all the same, and never back.
        let mut before = Time(70_234);
        for at in (685_000..100_000_000).step_by(600_000).map(Time) {
            assert!(clock.turn_took(at, 600_000));
            assert!(clock.time(at) >= before.after_us(600_000 / 64), "{at:?}");
            before = clock.time(at);
        }
    }

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
