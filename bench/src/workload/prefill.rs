//! Writes all records once, before the measurement.

use std::time::Duration;

use hybster::services::kv::{KvOperation, KvReply};

use super::records::{RecordsMix, key, put};
use crate::Error;
use crate::load::{Access, Outcome, Sessions};
use crate::stop::Stop;

/// Writes a share of the records.
#[derive(Clone, Debug)]
pub struct Prefill {
    next: u64,
    keys: u64,
    step: u64,
    prefix: &'static [u8],
    value: Vec<u8>,
}

impl Prefill {
    /// The records that connection group `index` of `groups` writes.
    #[must_use]
    pub fn new(mix: &RecordsMix, index: u32, groups: u32) -> Self {
        Self {
            next: index.into(),
            keys: mix.keys.into(),
            step: groups.into(),
            prefix: mix.prefix,
            value: vec![b'0'; mix.value_size as usize],
        }
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
                let (bytes, length) = key(self.prefix, self.next);
                let written = KvOperation::Put { key: &bytes[..length], value: &self.value };
                put(&mut operation, &written);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing::Loopback;
    use crate::options::Distribution;

    #[test]
    fn every_record_of_the_share_is_written() {
        let mix = RecordsMix {
            reads: 0,
            updates: 100,
            inserts: 0,
            scans: 0,
            read_modify_writes: 0,
            distribution: Distribution::Uniform,
            keys: 11,
            value_size: 4,
            scan_length: 1,
            prefix: b"user",
        };
        let mut sessions = Loopback::new(3);
        KvReply::Stored { replaced: false }.encode(&mut sessions.echo);
        Prefill::new(&mix, 1, 2).run(&mut sessions, &Stop::new()).unwrap();
        // 1, 3, 5, 7, 9.
        assert_eq!(sessions.submitted, 5);
        sessions.echo = b"nonsense".to_vec();
        assert!(Prefill::new(&mix, 0, 2).run(&mut sessions, &Stop::new()).is_err());
    }
}
