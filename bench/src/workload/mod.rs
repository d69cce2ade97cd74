//! The workloads: operations of clients for each service.

use std::time::Duration;

use hybster::services::kv::{KvOperation, KvReply, MAX_VALUE_BYTES};

use crate::Error;
use crate::load::{Access, Outcome, Sessions, Workload};
use crate::stop::Stop;

/// A small random generator (SplitMix64): the load needs variety, not secrecy.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator with its own sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6a09_e667_f3bc_c909)
    }

    /// The next number.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        (((self.draw() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// Decides which operations are reads.
#[derive(Clone, Debug)]
struct Mix {
    random: Random,
    read_percent: u8,
}

impl Mix {
    #[inline]
    fn reads(&mut self) -> bool {
        self.read_percent > 0 && self.random.below(100) < u32::from(self.read_percent)
    }
}

/// The workload of the null service: requests of one size, replies of another.
#[derive(Clone, Debug)]
pub struct Null {
    request: Vec<u8>,
    reply_size: usize,
    mix: Mix,
}

impl Null {
    /// Requests and replies of these sizes; `read_percent` of them are read-only queries.
    #[must_use]
    pub fn new(request_size: u32, reply_size: u32, read_percent: u8, seed: u64) -> Self {
        Self {
            request: vec![0; request_size as usize],
            reply_size: reply_size as usize,
            mix: Mix { random: Random::new(seed), read_percent },
        }
    }
}

impl Workload for Null {
    #[inline]
    fn next(&mut self, _: u32, operation: &mut Vec<u8>) -> Access {
        operation.extend_from_slice(&self.request);
        if self.mix.reads() { Access::Query } else { Access::Order }
    }

    #[inline]
    fn acknowledged(&mut self, _: u32, result: &[u8]) -> bool {
        result.len() == self.reply_size
    }
}

/// The workload of the key-value store: reads and writes of uniformly chosen keys.
///
/// With 50 % reads this is YCSB's workload A, except for the distribution of the keys.
#[derive(Clone, Debug)]
pub struct Kv {
    keys: u32,
    value: Vec<u8>,
    mix: Mix,
    /// Whether the outstanding operation of a session is a read.
    reading: Vec<bool>,
}

impl Kv {
    /// Over `keys` keys, with values of one size; `read_percent` of the operations are reads.
    #[must_use]
    pub fn new(keys: u32, value_size: u32, read_percent: u8, seed: u64) -> Self {
        Self {
            keys,
            value: vec![b'v'; value_size as usize],
            mix: Mix { random: Random::new(seed), read_percent },
            reading: Vec::new(),
        }
    }

    /// The largest value size that the store takes.
    pub const LARGEST_VALUE: u32 = MAX_VALUE_BYTES as u32;
}

impl Workload for Kv {
    fn next(&mut self, session: u32, operation: &mut Vec<u8>) -> Access {
        let key = key(self.mix.random.below(self.keys));
        let reads = self.mix.reads();
        let session = session as usize;
        if session >= self.reading.len() {
            self.reading.resize((session + 1).next_power_of_two(), false);
        }
        self.reading[session] = reads;
        if reads {
            put(operation, &KvOperation::Get { key: &key });
            Access::Query
        } else {
            put(operation, &KvOperation::Put { key: &key, value: &self.value });
            Access::Order
        }
    }

    fn acknowledged(&mut self, session: u32, result: &[u8]) -> bool {
        match KvReply::decode(result) {
            // Every key was written before the measurement, and none is deleted.
            Ok(KvReply::Value(value)) => {
                self.reading[session as usize] && value.len() == self.value.len()
            }
            Ok(KvReply::Stored { replaced }) => !self.reading[session as usize] && replaced,
            _ => false,
        }
    }
}

/// Writes a share of the keys once, before the measurement.
#[derive(Clone, Debug)]
pub struct Prefill {
    next: u32,
    keys: u32,
    step: u32,
    value: Vec<u8>,
}

impl Prefill {
    /// The keys that connection group `index` of `groups` writes.
    #[must_use]
    pub fn new(keys: u32, index: u32, groups: u32, value_size: u32) -> Self {
        Self { next: index, keys, step: groups, value: vec![b'0'; value_size as usize] }
    }

    /// Writes them all.
    ///
    /// # Errors
    /// If a write fails, the driver ends, or the user interrupts.
    pub fn run(&mut self, sessions: &mut impl Sessions, stop: &Stop) -> Result<(), Error> {
        let mut idle: Vec<u32> = (0..sessions.count()).collect();
        let mut operation = Vec::new();
        let mut failure = None;
        while self.next < self.keys || idle.len() < sessions.count() as usize {
            while self.next < self.keys
                && let Some(session) = idle.pop()
            {
                operation.clear();
                let key = key(self.next);
                put(&mut operation, &KvOperation::Put { key: &key, value: &self.value });
                sessions.submit(session, Access::Order, &operation)?;
                self.next += self.step;
            }
            sessions.poll(Duration::from_millis(20), &mut |session, outcome| {
                idle.push(session);
                let stored = |r| matches!(KvReply::decode(r), Ok(KvReply::Stored { .. }));
                match outcome {
                    Outcome::Done(result) if stored(result) => {}
                    other => failure = Some(format!("{other:?}")),
                }
            })?;
            if let Some(what) = failure {
                return Err(Error::new(format!("cannot fill the store before measuring: {what}")));
            }
            stop.check()?;
        }
        Ok(())
    }
}

/// Key number `index`: `user` and ten digits, as in YCSB.
fn key(index: u32) -> [u8; 14] {
    let mut key = *b"user0000000000";
    let mut rest = index;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn put(out: &mut Vec<u8>, operation: &KvOperation<'_>) {
    operation.encode(out).expect("keys are short, and the size of values was checked at start");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing::Loopback;

    #[test]
    fn keys_are_numbers_with_leading_zeros() {
        assert_eq!(&key(0), b"user0000000000");
        assert_eq!(&key(u32::MAX), b"user4294967295");
    }

    #[test]
    fn reads_come_in_the_share_asked_for() {
        let mut kv = Kv::new(100, 8, 30, 1);
        let mut operation = Vec::new();
        let reads = (0..10_000)
            .filter(|_| {
                operation.clear();
                kv.next(0, &mut operation) == Access::Query
            })
            .count();
        assert!((2700..3300).contains(&reads), "{reads}");
    }

    #[test]
    fn an_answer_that_no_store_gives_is_refused() {
        let mut kv = Kv::new(1, 3, 0, 1);
        kv.next(0, &mut Vec::new());
        let mut reply = Vec::new();
        KvReply::Stored { replaced: true }.encode(&mut reply);
        assert!(kv.acknowledged(0, &reply));
        reply.clear();
        KvReply::Value(b"abc").encode(&mut reply);
        assert!(!kv.acknowledged(0, &reply));
        let mut null = Null::new(0, 4, 0, 1);
        assert!(null.acknowledged(0, &[0; 4]) && !null.acknowledged(0, b""));
    }

    #[test]
    fn prefill_writes_every_key_of_its_share() {
        let mut sessions = Loopback::new(3);
        KvReply::Stored { replaced: false }.encode(&mut sessions.echo);
        Prefill::new(11, 1, 2, 4).run(&mut sessions, &Stop::new()).unwrap();
        // 1, 3, 5, 7, 9.
        assert_eq!(sessions.submitted, 5);
        sessions.echo = b"nonsense".to_vec();
        assert!(Prefill::new(11, 0, 2, 4).run(&mut sessions, &Stop::new()).is_err());
    }
}
