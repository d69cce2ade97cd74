//! Adaptive timeouts (TR listing 8).

use crate::mutants::{self, Mutant};
use crate::time::Time;

/// A waiting time that grows each time it proves too short, and shrinks again when less is enough.
///
/// TR listing 8 adds a constant after each expiry and never shrinks. Ours doubles, and has an upper bound,
/// so that one long outage does not slow every later reaction. It shrinks once in as long as it is itself,
/// to twice the longest wait of that time at least. If short waits could shrink it, it would fall below what the
/// long ones take on a slow wire again and again, and each time cost a view.
#[derive(Debug, Clone)]
pub struct AdaptiveTimeout {
    step_us: u64,
    delay_us: u64,
    /// The longest wait that ended in time since `since`.
    longest_us: u64,
    since: Time,
}

/// The largest timeout, as a multiple of its step.
const MAX_STEPS: u64 = 32;

impl AdaptiveTimeout {
    /// A timeout that starts with a number of microseconds, and never falls below it.
    #[must_use]
    pub fn new(step_us: u64) -> Self {
        Self { step_us, delay_us: step_us, longest_us: 0, since: Time(0) }
    }

    /// The present waiting time in microseconds.
    #[must_use]
    pub fn delay_us(&self) -> u64 {
        self.delay_us
    }

    /// The wait was too short.
    pub fn expired(&mut self, now: Time) {
        self.delay_us = (2 * self.delay_us).min(self.step_us * MAX_STEPS);
        (self.longest_us, self.since) = (0, now);
    }

    /// The wait ended in time, after `took_us`.
    #[inline]
    pub fn succeeded(&mut self, took_us: u64, now: Time) {
        if self.delay_us > self.step_us {
            self.shrink(took_us, now);
        }
    }

    #[cold]
    fn shrink(&mut self, took_us: u64, now: Time) {
        self.longest_us = self.longest_us.max(took_us);
        let is_blind = mutants::active(Mutant::ShrinksBlindly);
        if now.since_us(self.since) < self.delay_us && !is_blind {
            return;
        }
        let least_us = if is_blind { self.step_us } else { self.step_us.max(2 * self.longest_us) };
        self.delay_us = self.delay_us.min(least_us.max(self.delay_us / 2));
        (self.longest_us, self.since) = (0, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits of `took_us`, one after the other, until `now`.
    fn succeed(timeout: &mut AdaptiveTimeout, took_us: u64, until: Time, now: &mut Time) {
        while *now < until {
            *now = now.after_us(took_us);
            timeout.succeeded(took_us, *now);
        }
    }

    #[test]
    fn grows_and_shrinks_within_bounds() {
        let (mut timeout, mut now) = (AdaptiveTimeout::new(10), Time(0));
        timeout.expired(now);
        assert_eq!(timeout.delay_us(), 20);
        for _ in 0..100 {
            timeout.expired(now);
        }
        assert_eq!(timeout.delay_us(), 320);
        succeed(&mut timeout, 1, Time(319), &mut now);
        assert_eq!(timeout.delay_us(), 320);
        succeed(&mut timeout, 1, Time(320), &mut now);
        assert_eq!(timeout.delay_us(), 160);
        succeed(&mut timeout, 1, Time(320 + 160 + 80 + 40 + 20), &mut now);
        assert_eq!(timeout.delay_us(), 10);
    }

    #[test]
    fn stays_twice_as_long_as_the_longest_of_what_it_waits_for() {
        let (mut timeout, mut now) = (AdaptiveTimeout::new(10), Time(0));
        for _ in 0..5 {
            timeout.expired(now);
        }
        for round in 1..100 {
            timeout.succeeded(70, now);
            succeed(&mut timeout, 1, Time(100 * round), &mut now);
        }
        assert_eq!(timeout.delay_us(), 140);
    }

    /// On slow wires each time that it shrinks too far costs a view.
    #[cfg(feature = "mutants")]
    #[test]
    fn one_that_shrinks_blindly_falls_below_what_it_waits_for() {
        let (mut timeout, mut now) = (AdaptiveTimeout::new(10), Time(0));
        (0..5).for_each(|_| timeout.expired(now));
        mutants::choose(Some(Mutant::ShrinksBlindly));
        for round in 1..10 {
            timeout.succeeded(70, now);
            succeed(&mut timeout, 1, Time(100 * round), &mut now);
        }
        mutants::choose(None);
        assert_eq!(timeout.delay_us(), 10);
    }
}
