//! What a log may be told: sizes, and what is promised.

use crate::LogError;
use crate::format::{BLOCK, BLOCK_PAYLOAD, record_bytes};

/// What must be on disk before something is released that depends on a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The record, synced. Nothing that was released is lost by a loss of power.
    Sync,
    /// The record, written to the page cache; synced soon. A crash of the process loses nothing that
    /// was released. Of what was released, a loss of power loses at most what was released in the
    /// last `window_ms`, and no more than `window_bytes`.
    Async {
        /// Milliseconds.
        window_ms: u64,
        /// Bytes of records.
        window_bytes: u64,
    },
    /// The record, written to the page cache, and never synced by the log. A crash of the process
    /// loses nothing that was released; a loss of power may lose everything.
    None,
}

impl Durability {
    /// As headers of segments have it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Sync => 1,
            Self::Async { .. } => 2,
        }
    }
}

/// What an append does if the buffer has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenFull {
    /// It waits until the writer has made room, or the log has failed. The writer must run on another
    /// thread.
    Wait,
    /// It is refused and leaves no trace: where one thread drives appenders and writer, as in a
    /// simulator.
    Refuse,
}

/// The sizes of a log, and what it promises. All bounds of the log are here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// What is promised.
    pub durability: Durability,
    /// The buffer that all appenders share, in bytes: a power of two. The log is
    /// [congested](crate::Log::is_congested) when it is half full. So make it twice as large as what
    /// can still be appended after clients are held, and no append ever waits for the disk.
    pub buffer_bytes: u64,
    /// The size of a segment's file: a multiple of 4,096.
    pub segment_bytes: u64,
    /// Space that is taken from the file system ahead of need, beyond the segment in use. If no more
    /// can be taken the log says so ([`crate::Space`], where it is also said how much fits). Clients are held
    /// when half of it is used ([`crate::Log::lacks_room`]), and what was accepted by then must still fit into
    /// the other half: 4,096 bytes for each record. For records that are longer than a block the log takes more,
    /// once it is told of them ([`crate::Log::expect`]).
    pub reserve_bytes: u64,
    /// The longest content of a record, in bytes.
    pub longest_record: u64,
    /// What an append does if the buffer has no room.
    pub when_full: WhenFull,
}

impl Default for Options {
    /// `Sync`, 16 MiB of buffer, segments of 64 MiB with one in reserve, records up to 4 MiB.
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            buffer_bytes: 16 << 20,
            segment_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
            longest_record: 4 << 20,
            when_full: WhenFull::Wait,
        }
    }
}

impl Options {
    pub(crate) fn validate(&self) -> Result<(), LogError> {
        let refuse = |why| Err(LogError::Options(why));
        if !self.buffer_bytes.is_power_of_two() || self.buffer_bytes < 64 {
            return refuse("the buffer of a log must be a power of two of 64 bytes or more");
        }
        if !self.segment_bytes.is_multiple_of(BLOCK as u64) || self.segment_bytes > 1 << 40 {
            return refuse("a segment must be a multiple of 4,096 bytes, and 1 TiB at most");
        }
        if self.longest_record > u64::from(u32::MAX >> 1)
            || self.longest_record.saturating_add(16) > self.buffer_bytes / 2
        {
            return refuse("the longest record must fit into half of the buffer, and in 2 GiB");
        }
        if self.longest_record.saturating_add(16) > payload(self.segment_bytes) {
            return refuse("the longest record must fit into a segment");
        }
        Ok(())
    }

    /// The space that is taken ahead of need at most, in bytes, where the log is told of no more and no longer records
    /// than these ([`crate::Log::expect`]).
    #[must_use]
    pub fn most_reserve(&self, records: u64, bytes: u64) -> u64 {
        self.reserve_for(self.long_bytes(records, bytes))
    }

    /// The space that is taken ahead of need, if long records take so much of it.
    pub(crate) fn reserve_for(&self, long: u64) -> u64 {
        // Twice: what makes room, so that clients need not be held, may take as much before.
        self.reserve_bytes.saturating_add(long.saturating_mul(2))
    }

    /// What so many records of this length take on disk, each in a batch of its own, but for a block of each:
    /// that is what [`Self::reserve_bytes`] is for.
    pub(crate) fn long_bytes(&self, records: u64, bytes: u64) -> u64 {
        let blocks = record_bytes(bytes).div_ceil(BLOCK_PAYLOAD as u64);
        if blocks <= 1 {
            return 0;
        }
        // What does not fit into the rest of a segment goes into the next one, from the one in use on.
        let in_a_segment = (self.segment_bytes / BLOCK as u64 - 1) / blocks;
        let in_segments = (records + 1).saturating_mul(self.segment_bytes) / in_a_segment.max(1);
        in_segments.saturating_sub(records.saturating_mul(BLOCK as u64))
    }
}

/// Bytes of records that a segment of this size has room for.
fn payload(segment_bytes: u64) -> u64 {
    (segment_bytes / BLOCK as u64).saturating_sub(1) * BLOCK_PAYLOAD as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sizes_that_fit_together_are_taken() {
        let valid = Options::default();
        assert!(valid.validate().is_ok());
        let invalid = [
            Options { buffer_bytes: 3 << 20, ..valid },
            Options { segment_bytes: 5000, ..valid },
            Options { segment_bytes: 4096, ..valid },
            Options { longest_record: 8 << 20, ..valid },
            Options { longest_record: u64::MAX, ..valid },
            Options { segment_bytes: 1 << 20, ..valid },
        ];
        for options in invalid {
            assert!(matches!(options.validate(), Err(LogError::Options(_))), "{options:?}");
        }
    }
}
