//! The clocks of simulated hosts: one that measures waits, one that tells the time of day.

use hybster_proto::time::{Time, WallClock};

use crate::random::Random;

/// The time of day at the beginning of every run, in microseconds since the Unix epoch.
const BEGINNING_US: u64 = 1_700_000_000_000_000;

/// A clock that starts anywhere and runs fast or slow.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    offset_us: u64,
    drift_ppm: i64,
}

impl Clock {
    pub(crate) fn new(random: &mut Random, drift_ppm: u32) -> Self {
        let drift = i64::from(drift_ppm);
        Self {
            offset_us: random.below(1 << 40),
            drift_ppm: random.below(2 * u64::from(drift_ppm) + 1) as i64 - drift,
        }
    }

    pub(crate) fn local(&self, now_us: u64) -> Time {
        let drift = now_us as i64 * self.drift_ppm / 1_000_000;
        Time(self.offset_us.wrapping_add(now_us.wrapping_add_signed(drift)))
    }

    /// The first moment at which the clock shows `time` or later.
    pub(crate) fn global(&self, time: Time) -> u64 {
        let run = time.0.saturating_sub(self.offset_us);
        let mut at = (run as i128 * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm))) as u64;
        at = at.saturating_sub(2);
        while self.local(at) < time {
            at += 1;
        }
        at
    }
}

/// What is wrong with a host's time of day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrongClock {
    /// It is ahead.
    Ahead {
        /// By how much.
        by_us: u64,
    },
    /// It is behind.
    Behind {
        /// By how much.
        by_us: u64,
    },
    /// It shows the same time from some moment on.
    Stands {
        /// Since when.
        since_us: u64,
    },
}

impl WrongClock {
    /// An hour, in microseconds.
    pub const HOUR_US: u64 = 3_600_000_000;

    /// Any error that no bound of a simulated group allows for.
    pub(crate) fn random(r: &mut Random, end_us: u64) -> Self {
        match r.below(3) {
            0 => Self::Ahead { by_us: Self::HOUR_US },
            1 => Self::Behind { by_us: Self::HOUR_US },
            _ => Self::Stands { since_us: r.below(end_us) },
        }
    }
}

/// A host's time of day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DayClock {
    /// How far it is from the true time, as clocks are.
    pub(crate) skew_us: i64,
    pub(crate) wrong: Option<WrongClock>,
}

impl DayClock {
    /// Microseconds since the Unix epoch.
    pub(crate) fn unix_us(&self, now_us: u64) -> u64 {
        let run_us = match self.wrong {
            Some(WrongClock::Stands { since_us }) => now_us.min(since_us),
            _ => now_us,
        };
        let error_us = match self.wrong {
            Some(WrongClock::Ahead { by_us }) => by_us as i64,
            Some(WrongClock::Behind { by_us }) => -(by_us as i64),
            _ => self.skew_us,
        };
        (BEGINNING_US + run_us).saturating_add_signed(error_us)
    }

    /// The same for a core whose clock shows `now`.
    pub(crate) fn wall(&self, now_us: u64, now: Time) -> WallClock {
        WallClock::new(self.unix_us(now_us), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_turn_back_to_the_first_moment() {
        let mut random = Random::new(3);
        for _ in 0..2_000 {
            let clock = Clock::new(&mut random, 50_000);
            let at = random.below(1 << 36);
            let time = clock.local(at);
            let first = clock.global(time);
            assert!(first <= at && clock.local(first) >= time);
            assert!(first == 0 || clock.local(first - 1) < time);
        }
    }
}
