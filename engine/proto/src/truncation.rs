//! When the beginning of a replica's log can be removed.
//!
//! A driver asks for a round of summaries when the log has grown ([`ToControl::Summarize`]), and removes
//! what was in front of the round when all pillars have theirs ([`Output::summarized`]), these are durable,
//! and so is a checkpoint that covers what the summaries leave out. Until then nothing is removed: a
//! round that a crash cuts off was none.
//!
//! [`ToControl::Summarize`]: crate::output::ToControl::Summarize
//! [`Output::summarized`]: crate::output::Output::summarized

use crate::ids::OrderNumber;
use crate::mutants::{self, Mutant};

/// On a full disk rounds begin so many times as often.
const SHORT: u64 = 8;

/// The rounds of one replica. Positions in the log are those of its driver.
#[derive(Debug)]
pub struct Truncation {
    pillars: u16,
    /// So much is appended between the beginnings of two rounds, at least.
    every: u64,
    /// Where the last round began that is over.
    since: u64,
    round: Option<Round>,
}

#[derive(Debug)]
struct Round {
    /// The end of the log when it began.
    start: u64,
    /// Pillars that have no summary yet.
    missing: u16,
    /// The highest order number that a summary begins with.
    order: OrderNumber,
    /// The end of the log behind the last summary.
    end: u64,
}

impl Truncation {
    /// For a log that begins at `since`, with a round after each `every` bytes.
    #[must_use]
    pub fn new(pillars: u16, every: u64, since: u64) -> Self {
        Self { pillars, every, since, round: None }
    }

    /// Whether a round is to begin, with the log ending here. Then it has begun, and the driver tells
    /// the control stage. `is_short` says that the disk has no more room: then it is worth a round for
    /// less.
    #[must_use]
    pub fn begins(&mut self, end: u64, is_short: bool) -> bool {
        let every = if is_short { self.every / SHORT } else { self.every };
        let is_due = self.round.is_none() && end.saturating_sub(self.since) >= every;
        if is_due {
            let (missing, order) = (self.pillars, OrderNumber(0));
            self.round = Some(Round { start: end, missing, order, end });
        }
        is_due
    }

    /// Whether a round has begun that is not over. Then it is to be asked again, even if nothing happens.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.round.is_some()
    }

    /// A pillar has its summary in the log, which ends here.
    pub fn summarized(&mut self, order: OrderNumber, end: u64) {
        let Some(round) = &mut self.round else { return };
        debug_assert!(round.missing > 0, "each pillar has one summary in a round");
        round.missing = round.missing.saturating_sub(1);
        round.order = round.order.max(order);
        round.end = round.end.max(end);
    }

    /// Up to where the log is not needed any more, if that has changed. `checkpoint` and `log` are what is
    /// durable.
    #[must_use]
    pub fn truncates(&mut self, checkpoint: OrderNumber, log: u64) -> Option<u64> {
        let is_over = |round: &mut Round| {
            let is_covered = round.order <= checkpoint || mutants::active(Mutant::TruncatesEarly);
            round.missing == 0 && is_covered && round.end <= log
        };
        let round = self.round.take_if(is_over)?;
        self.since = round.start;
        Some(round.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_before_all_that_takes_its_place_is_durable() {
        let mut it = Truncation::new(2, 100, 50);
        assert!(!it.begins(149, false));
        assert!(it.begins(150, false));
        assert!(!it.begins(400, true), "it has begun");
        it.summarized(OrderNumber(8), 420);
        assert_eq!(it.truncates(OrderNumber(99), 999), None, "a pillar has none");
        it.summarized(OrderNumber(4), 430);
        assert_eq!(it.truncates(OrderNumber(7), 999), None, "the checkpoint is too old");
        assert_eq!(it.truncates(OrderNumber(8), 429), None, "a summary is not durable");
        assert_eq!(it.truncates(OrderNumber(8), 430), Some(150));
        assert_eq!(it.truncates(OrderNumber(8), 430), None);
        assert!(!it.begins(161, true));
        assert!(!it.begins(249, false) && it.begins(250, false));
    }
}
