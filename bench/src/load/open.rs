//! Open loop: operations arrive at a rate, whether the group keeps up or not.
//!
//! Each operation has an *intended* time, on a fixed grid or at random (a Poisson process), and its latency
//! counts from that time. If the group stalls, operations that arrive during the stall wait for a free
//! session, and this wait is part of their latency. So no operation is left out because the generator was
//! blocked (the mistake called coordinated omission).

use std::time::Duration;

use super::Pace;
use crate::workload::Random;

/// How many operations are due per second: always as many, or rising or falling evenly for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    from_per_s: f64,
    to_per_s: f64,
    /// From where on it changes, and for how long; never, if that is infinite.
    begin_s: f64,
    length_s: f64,
}

impl Rate {
    /// Always the same.
    #[must_use]
    pub fn constant(per_s: f64) -> Self {
        Self { from_per_s: per_s, to_per_s: per_s, begin_s: f64::INFINITY, length_s: 0.0 }
    }

    /// From one to another, in the time of this length after `begin`.
    #[must_use]
    pub fn ramp(from_per_s: f64, to_per_s: f64, begin: Duration, length: Duration) -> Self {
        let (begin_s, length_s) = (begin.as_secs_f64(), length.as_secs_f64());
        Self { from_per_s, to_per_s, begin_s, length_s }
    }

    /// Operations that are due before a time.
    fn due_before(self, time: u64) -> f64 {
        let time_s = time as f64 / 1e9;
        let after_s = time_s - self.begin_s;
        if after_s <= 0.0 {
            return time_s * self.from_per_s;
        }
        let ramp_s = after_s.min(self.length_s);
        let rise = (self.to_per_s - self.from_per_s) / self.length_s.max(1e-9);
        self.begin_s * self.from_per_s
            + ramp_s * (self.from_per_s + rise * ramp_s / 2.0)
            + (after_s - ramp_s) * self.to_per_s
    }

    /// When so many operations have been due, in nanoseconds.
    fn time_of(self, operations: f64) -> u64 {
        let left = operations - self.begin_s * self.from_per_s;
        if left <= 0.0 {
            return (operations * (1e9 / self.from_per_s)) as u64;
        }
        let on_ramp = self.length_s * (self.from_per_s + self.to_per_s) / 2.0;
        let after_s = if left < on_ramp {
            // The positive root of from · t + rise · t² / 2 = left, in the form that loses no digits.
            let rise = (self.to_per_s - self.from_per_s) / self.length_s;
            2.0 * left / (self.from_per_s + (self.from_per_s.powi(2) + 2.0 * rise * left).sqrt())
        } else {
            self.length_s + (left - on_ramp) / self.to_per_s
        };
        ((self.begin_s + after_s) * 1e9) as u64
    }
}

/// The open loop of one thread.
#[derive(Debug)]
pub struct OpenLoop {
    idle: Vec<u32>,
    rate: Rate,
    arrivals: Grid,
    next_at: u64,
}

/// When operations are due.
#[derive(Debug)]
enum Grid {
    /// At equal distances, as far as the rate is the same; the number of the next one keeps the rate exact.
    Constant { next: u64 },
    /// At random and independent of each other; how many are due on average before the next one.
    Poisson { at: f64, random: Random },
}

impl OpenLoop {
    /// A pace at such a rate over at most this many sessions at a time.
    #[must_use]
    pub fn new(sessions: u32, rate: Rate) -> Self {
        let idle = Vec::with_capacity(sessions as usize);
        Self { idle, rate, arrivals: Grid::Constant { next: 0 }, next_at: 0 }
    }

    /// The same at random times.
    #[must_use]
    pub fn poisson(sessions: u32, rate: Rate, random: Random) -> Self {
        let mut pace = Self::new(sessions, rate);
        pace.arrivals = Grid::Poisson { at: 0.0, random };
        pace.advance();
        pace
    }

    /// Goes on to the next operation.
    #[inline]
    fn advance(&mut self) {
        let operations = match &mut self.arrivals {
            Grid::Constant { next } => {
                *next += 1;
                *next as f64
            }
            Grid::Poisson { at, random } => {
                *at -= random.unit().ln();
                *at
            }
        };
        self.next_at = self.rate.time_of(operations);
    }
}

impl Pace for OpenLoop {
    fn wait(&self, now: u64) -> Option<u64> {
        // Without a free session only a completion can help.
        if self.idle.is_empty() { None } else { Some(self.next_at.saturating_sub(now)) }
    }

    #[inline]
    fn idle(&mut self, session: u32, _: u64) {
        self.idle.push(session);
    }

    #[inline]
    fn next(&mut self, now: u64, end: u64) -> Option<(u32, u64)> {
        // Operations intended before the end are submitted even if their time has passed.
        if self.next_at > now || self.next_at >= end {
            return None;
        }
        let session = self.idle.pop()?;
        let intended_at = self.next_at;
        self.advance();
        Some((session, intended_at))
    }

    fn is_open(&self) -> bool {
        true
    }

    /// At random times: as many as are due on average, as drawing them all could take long.
    fn never_sent(&self, from: u64, end: u64) -> u64 {
        let from = from.max(self.next_at);
        if from >= end {
            return 0;
        }
        match self.arrivals {
            Grid::Constant { next } => {
                let before = |time: u64| self.rate.due_before(time).ceil() as u64;
                before(end).saturating_sub(before(from).max(next))
            }
            Grid::Poisson { .. } => {
                (self.rate.due_before(end) - self.rate.due_before(from)).round() as u64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_keep_their_intended_times_when_sessions_are_late() {
        let mut pace = OpenLoop::new(1, Rate::constant(1e6));
        pace.idle(7, 0);
        assert_eq!(pace.next(0, 10_000), Some((7, 0)));
        assert_eq!(pace.next(5000, 10_000), None);
        // The session comes back late: the operation of microsecond 1 counts from there.
        pace.idle(7, 5000);
        assert_eq!(pace.next(5000, 10_000), Some((7, 1000)));
        pace.idle(7, 5000);
        assert_eq!(pace.wait(1500), Some(500));
        // Late, but intended before the end.
        assert_eq!(pace.next(20_000, 2001), Some((7, 2000)));
        pace.idle(7, 20_000);
        assert_eq!(pace.next(20_000, 2001), None);
    }

    #[test]
    fn what_no_session_took_is_counted() {
        let mut pace = OpenLoop::new(2, Rate::constant(1e6));
        assert_eq!(pace.never_sent(0, 10_000), 10);
        pace.idle(0, 0);
        pace.idle(1, 0);
        assert!(pace.next(9000, 10_000).is_some() && pace.next(9000, 10_000).is_some());
        assert_eq!(pace.never_sent(0, 10_000), 8);
        // Of those that were due from microsecond 7 on.
        assert_eq!(pace.never_sent(7000, 10_000), 3);
        assert_eq!((pace.never_sent(0, 2000), pace.never_sent(0, 2001)), (0, 1));
    }

    /// Arrivals of a Poisson process: the mean distance is the rate's, and the deviation is the mean.
    #[test]
    fn random_arrivals_have_the_rate_and_are_independent() {
        let mut pace = OpenLoop::poisson(1, Rate::constant(1e6), Random::new(4));
        let mut times = Vec::new();
        for _ in 0..100_000 {
            pace.idle(0, 0);
            times.push(pace.next(u64::MAX, u64::MAX).unwrap().1 as f64);
        }
        let apart: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = apart.iter().sum::<f64>() / apart.len() as f64;
        let variance = apart.iter().map(|ns| (ns - mean).powi(2)).sum::<f64>() / apart.len() as f64;
        assert!((mean - 1000.0).abs() < 20.0, "{mean}");
        assert!((variance.sqrt() - 1000.0).abs() < 20.0, "{}", variance.sqrt());
        let again = OpenLoop::poisson(1, Rate::constant(1e6), Random::new(4));
        assert_eq!(again.next_at as f64, times[0]);
    }

    /// From 100 to 300 per second in two seconds, after one second.
    #[test]
    fn a_ramp_has_as_many_operations_as_its_area() {
        let second = 1_000_000_000;
        for (from, to) in [(100.0, 300.0), (300.0, 100.0), (100.0, 100.0)] {
            let rate = Rate::ramp(from, to, Duration::from_secs(1), Duration::from_secs(2));
            let due = [0, 1, 2, 3, 4].map(|s| rate.due_before(s * second));
            let middle = (from + to) / 2.0;
            let area =
                [0.0, from, from + (from + middle) / 2.0, from + from + to, from + from + 2.0 * to];
            assert_eq!(due, area);
            for operations in 0..=(area[4] as u64) {
                let time = rate.time_of(operations as f64);
                assert!((rate.due_before(time) - operations as f64).abs() < 1e-5, "{operations}");
            }
            let mut pace = OpenLoop::new(1, rate);
            assert_eq!(pace.never_sent(second, 3 * second), (from + to) as u64);
            pace.idle(0, 0);
            assert_eq!(pace.next(u64::MAX, u64::MAX), Some((0, 0)));
        }
    }
}
