//! Checks that every acknowledged increment was counted exactly once.

use hybster::services::counter;

use crate::load::{Access, Answer, Workload};

/// The workload of one load thread: add 1 and remember the result.
#[derive(Clone, Debug, Default)]
pub struct Increments {
    ledger: Ledger,
}

/// The values that increments returned.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// One bit per value that some acknowledged increment returned.
    seen: Vec<u64>,
    acknowledged: u64,
    /// Acknowledged results that another increment had already returned.
    repeated: u64,
    /// Operations without an answer: they may have been executed.
    uncertain: u64,
}

/// The comparison of a ledger with the counter's final value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged increments.
    pub acknowledged: u64,
    /// Acknowledged increments that the final value lacks.
    pub lost: u64,
    /// Increments counted more than once.
    pub doubled: u64,
}

/// Values above this are not accepted as answers, which bounds the memory to 128 MiB.
const MOST: u64 = 1 << 30;

impl Ledger {
    /// Notes a result. Returns `false` if no counter can return it.
    pub fn note(&mut self, value: u64) -> bool {
        if value == 0 || value > MOST {
            return false;
        }
        let (word, bit) = ((value / 64) as usize, 1 << (value % 64));
        if word >= self.seen.len() {
            self.seen.resize((word + 1).next_power_of_two().max(1 << 16), 0);
        }
        self.repeated += u64::from(self.seen[word] & bit != 0);
        self.seen[word] |= bit;
        self.acknowledged += 1;
        true
    }

    /// Notes that operations got no answer.
    pub fn note_uncertain(&mut self, operations: u64) {
        self.uncertain += operations;
    }

    /// Joins the ledgers of several load threads.
    pub fn merge(&mut self, other: &Self) {
        if self.seen.len() < other.seen.len() {
            self.seen.resize(other.seen.len(), 0);
        }
        for (mine, theirs) in self.seen.iter_mut().zip(&other.seen) {
            self.repeated += u64::from((*mine & theirs).count_ones());
            *mine |= theirs;
        }
        self.acknowledged += other.acknowledged;
        self.repeated += other.repeated;
        self.uncertain += other.uncertain;
    }

    /// Adds what a finished load thread noted; of its `unfinished` operations nothing is known.
    pub fn add_run(&mut self, thread: &Increments, unfinished: u64) {
        self.merge(&thread.ledger);
        self.note_uncertain(unfinished);
    }

    /// Compares with the counter's value after all operations.
    #[must_use]
    pub fn verdict(&self, value: u64) -> Verdict {
        let beyond = self.seen.iter().enumerate().rev().find(|(_, word)| **word != 0);
        let highest =
            beyond.map_or(0, |(at, word)| at as u64 * 64 + 63 - u64::from(word.leading_zeros()));
        // A value above the final one was acknowledged and then lost.
        let lost = self.acknowledged.saturating_sub(value).max(highest.saturating_sub(value));
        let surplus = value.saturating_sub(self.acknowledged + self.uncertain);
        Verdict { acknowledged: self.acknowledged, lost, doubled: surplus.max(self.repeated) }
    }
}

impl Workload for Increments {
    #[inline]
    fn next(&mut self, _: u32, operation: &mut Vec<u8>) -> Access {
        operation.extend_from_slice(&counter::encode_add(1));
        Access::Order
    }

    #[inline]
    fn acknowledged(&mut self, _: u32, result: &[u8]) -> Answer {
        let value = counter::decode_reply(result).and_then(|value| u64::try_from(value).ok());
        let is_right = value.is_some_and(|value| self.ledger.note(value));
        if is_right { Answer::Right } else { Answer::Wrong }
    }

    fn failed(&mut self, _: u32) {
        self.ledger.note_uncertain(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(values: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        for value in values {
            assert!(ledger.note(*value));
        }
        ledger
    }

    #[test]
    fn every_increment_once_is_clean() {
        let mut all = ledger(&[1, 3, 64]);
        all.merge(&ledger(&[2, 65, 66]));
        // Here, three increments between 3 and 64 got no answer.
        all.note_uncertain(60);
        let verdict = all.verdict(66);
        assert_eq!(verdict, Verdict { acknowledged: 6, lost: 0, doubled: 0 });
    }

    #[test]
    fn loss_is_seen() {
        assert_eq!(ledger(&[1, 2, 3]).verdict(2).lost, 1);
        // The values are distinct, but the counter fell back behind one of them.
        assert_eq!(ledger(&[1, 9]).verdict(8).lost, 1);
    }

    #[test]
    fn doubling_is_seen_in_the_value_and_in_equal_results() {
        assert_eq!(ledger(&[1, 2, 4]).verdict(4).doubled, 1);
        let mut uncertain = ledger(&[1, 2, 4]);
        uncertain.note_uncertain(1);
        assert_eq!(uncertain.verdict(4).doubled, 0);
        assert_eq!(ledger(&[1, 2, 2]).verdict(3).doubled, 1);
        let mut merged = ledger(&[1, 2]);
        merged.merge(&ledger(&[2]));
        assert_eq!(merged.verdict(3).doubled, 1);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(!Ledger::default().note(0));
        assert!(!Ledger::default().note(u64::MAX));
    }
}
