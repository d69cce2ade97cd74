//! The workloads: operations of clients for each service.
//!
//! [`Setting`] is what the options ask for, checked and with defaults filled in. Each load thread has a
//! workload of its own ([`Setting::workload`]) whose operations follow from the seed, the settings and
//! the thread's number alone, in the order in which sessions ask for them.

mod distribution;
mod prefill;
mod random;
mod records;
mod replay;
mod setting;

pub use distribution::{Choice, ZIPF_EXPONENT, Zipf};
pub use prefill::Prefill;
pub use random::Random;
pub use records::{LARGEST_VALUE, Records, RecordsMix};
pub use replay::{Operations as FileOperations, Replay};
pub use setting::{Operations, Setting};

use crate::load::{Access, Answer, Workload};
use crate::scenario::Increments;

/// The workload of one load thread, for any service.
#[derive(Debug)]
pub enum AnyWorkload {
    /// Of the null service.
    Null(Null),
    /// Of the key-value store.
    Records(Box<Records>),
    /// Of the counter.
    Increments(Increments),
    /// Of a file.
    Replay(Replay),
}

impl Workload for AnyWorkload {
    #[inline]
    fn next(&mut self, session: u32, operation: &mut Vec<u8>) -> Access {
        match self {
            Self::Null(workload) => workload.next(session, operation),
            Self::Records(workload) => workload.next(session, operation),
            Self::Increments(workload) => workload.next(session, operation),
            Self::Replay(workload) => workload.next(session, operation),
        }
    }

    #[inline]
    fn acknowledged(&mut self, session: u32, result: &[u8]) -> Answer {
        match self {
            Self::Null(workload) => workload.acknowledged(session, result),
            Self::Records(workload) => workload.acknowledged(session, result),
            Self::Increments(workload) => workload.acknowledged(session, result),
            Self::Replay(workload) => workload.acknowledged(session, result),
        }
    }

    fn failed(&mut self, session: u32) {
        match self {
            Self::Null(workload) => workload.failed(session),
            Self::Records(workload) => workload.failed(session),
            Self::Increments(workload) => workload.failed(session),
            Self::Replay(workload) => workload.failed(session),
        }
    }
}

/// The workload of the null service: requests of one size, replies of another.
#[derive(Clone, Debug)]
pub struct Null {
    request: Vec<u8>,
    reply_size: usize,
    read_percent: u8,
    random: Random,
}

impl Null {
    /// Requests and replies of these sizes; `read_percent` of them are read-only queries.
    #[must_use]
    pub fn new(request_size: u32, reply_size: u32, read_percent: u8, random: Random) -> Self {
        Self {
            request: vec![0; request_size as usize],
            reply_size: reply_size as usize,
            read_percent,
            random,
        }
    }
}

impl Workload for Null {
    #[inline]
    fn next(&mut self, _: u32, operation: &mut Vec<u8>) -> Access {
        operation.extend_from_slice(&self.request);
        let reads = self.read_percent > 0 && self.random.below(100) < u32::from(self.read_percent);
        if reads { Access::Query } else { Access::Order }
    }

    #[inline]
    fn acknowledged(&mut self, _: u32, result: &[u8]) -> Answer {
        if result.len() == self.reply_size { Answer::Right } else { Answer::Wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_come_in_the_share_asked_for_and_replies_have_their_size() {
        let mut null = Null::new(5, 4, 30, Random::new(1));
        let mut operation = Vec::new();
        let reads = (0..10_000)
            .filter(|_| {
                operation.clear();
                null.next(0, &mut operation) == Access::Query
            })
            .count();
        assert!((2700..3300).contains(&reads), "{reads}");
        assert_eq!(operation, [0; 5]);
        assert_eq!(null.acknowledged(0, &[0; 4]), Answer::Right);
        assert_eq!(null.acknowledged(0, b""), Answer::Wrong);
    }
}
