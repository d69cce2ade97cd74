//! Adaptive timeouts (TR listing 8).

/// A waiting time that grows each time it proves too short.
///
/// TR listing 8 adds a constant after each expiry and never shrinks. Ours also takes one step
/// back after each wait that ended in time, and has an upper bound, so that one long outage does
/// not slow every later reaction.
#[derive(Debug, Clone)]
pub struct AdaptiveTimeout {
    step_us: u64,
    delay_us: u64,
}

/// The largest timeout, as a multiple of its step.
const MAX_STEPS: u64 = 32;

impl AdaptiveTimeout {
    /// A timeout that starts with, and grows by, a number of microseconds.
    #[must_use]
    pub fn new(step_us: u64) -> Self {
        Self { step_us, delay_us: step_us }
    }

    /// The present waiting time in microseconds.
    #[must_use]
    pub fn delay_us(&self) -> u64 {
        self.delay_us
    }

    /// The wait was too short.
    pub fn expired(&mut self) {
        self.delay_us = (self.delay_us + self.step_us).min(self.step_us * MAX_STEPS);
    }

    /// The wait ended in time.
    pub fn succeeded(&mut self) {
        self.delay_us = self.delay_us.saturating_sub(self.step_us).max(self.step_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_within_bounds() {
        let mut timeout = AdaptiveTimeout::new(10);
        for _ in 0..100 {
            timeout.expired();
        }
        assert_eq!(timeout.delay_us(), 320);
        timeout.succeeded();
        assert_eq!(timeout.delay_us(), 310);
        for _ in 0..100 {
            timeout.succeeded();
        }
        assert_eq!(timeout.delay_us(), 10);
    }
}
