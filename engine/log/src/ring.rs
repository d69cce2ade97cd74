//! The buffer that all appenders share: where records get their order.
//!
//! An appender reserves its place by one addition to [`Ring::reserve`]'s cursor, waits until the place is
//! free (it nearly always is), copies its record in, and stores the record's first word last, with
//! release. The writer of the log reads that word with acquire: zero means that the record is not
//! finished, and nothing behind it is taken before it is. What the writer has taken it overwrites with
//! zeros and then frees, with release, which an appender reads with acquire.
//!
//! All words are atomic, so there is no `unsafe` and no race: plain moves on x86-64 and ARM, eight bytes
//! at a time.

use super::sync::{AtomicU64, Ordering};

/// A counter on a cache line of its own: appenders write one, the writer the other.
#[repr(align(128))]
#[derive(Debug)]
struct Padded(AtomicU64);

/// The shared buffer. Cursors are positions in the log, in bytes; all are multiples of eight.
#[derive(Debug)]
pub(crate) struct Ring {
    words: Box<[AtomicU64]>,
    /// Up to where places have been given out.
    reserved: Padded,
    /// Up to where the writer has taken everything.
    freed: Padded,
}

impl Ring {
    /// A buffer of that many bytes, a power of two, whose first record begins at the cursor.
    pub(crate) fn new(bytes: u64, cursor: u64) -> Self {
        assert!(bytes.is_power_of_two() && bytes >= 8 && cursor.is_multiple_of(8));
        Self {
            words: (0..bytes / 8).map(|_| AtomicU64::new(0)).collect(),
            reserved: Padded(AtomicU64::new(cursor)),
            freed: Padded(AtomicU64::new(cursor)),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.words.len() as u64 * 8
    }

    /// The end of the last place that was given out. Whoever has learnt, by any way that orders memory,
    /// of something that was appended gets a cursor behind it.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.0.load(Ordering::Relaxed)
    }

    /// Up to where the writer has taken everything.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.0.load(Ordering::Acquire)
    }

    /// Gives out the next place of that many bytes; the order of all records is that of these calls.
    /// Nothing may be put there before [`Self::has_room`].
    pub(crate) fn reserve(&self, bytes: u64) -> u64 {
        self.reserved.0.fetch_add(bytes, Ordering::Relaxed)
    }

    /// Gives out the next place of that many bytes if it is free.
    pub(crate) fn try_reserve(&self, bytes: u64) -> Option<u64> {
        let update = |at: u64| self.has_room(at + bytes).then_some(at + bytes);
        self.reserved.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update).ok()
    }

    /// Whether the place that ends there is free.
    pub(crate) fn has_room(&self, end: u64) -> bool {
        // Of two cursors that are read one after the other the second may be ahead.
        end.saturating_sub(self.freed()) <= self.bytes()
    }

    /// Puts a record into its place: the parts of its content, then its first word.
    pub(crate) fn put(&self, at: u64, word: u64, parts: &[&[u8]]) {
        debug_assert!(word != 0);
        let mut sink = Sink { ring: self, at: at + 8, carry: [0; 8], carried: 0 };
        parts.iter().for_each(|part| sink.push(part));
        sink.finish();
        self.word(at).store(word, Ordering::Release);
    }

    /// The first word of the record that begins there, once the record is finished.
    pub(crate) fn finished(&self, at: u64) -> Option<u64> {
        let word = self.word(at).load(Ordering::Acquire);
        (word != 0).then_some(word)
    }

    /// Copies from there. All of it must be finished.
    pub(crate) fn copy(&self, at: u64, out: &mut [u8]) {
        let (first, second) = self.runs(at, out.len() as u64);
        let (head, tail) = out.split_at_mut(first.len() * 8);
        for (words, out) in [(first, head), (second, tail)] {
            for (word, out) in words.iter().zip(out.chunks_exact_mut(8)) {
                out.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
            }
        }
    }

    /// Gives the places back, after the writer has copied what was in them.
    pub(crate) fn free(&self, from: u64, to: u64) {
        let (first, second) = self.runs(from, to - from);
        for word in first.iter().chain(second) {
            word.store(0, Ordering::Relaxed);
        }
        self.freed.0.store(to, Ordering::Release);
    }

    fn index(&self, at: u64) -> usize {
        debug_assert!(at.is_multiple_of(8));
        (at / 8) as usize & (self.words.len() - 1)
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        &self.words[self.index(at)]
    }

    /// The words of a place, which may go over the end of the buffer.
    fn runs(&self, at: u64, bytes: u64) -> (&[AtomicU64], &[AtomicU64]) {
        debug_assert!(bytes.is_multiple_of(8) && bytes <= self.bytes());
        let (index, count) = (self.index(at), (bytes / 8) as usize);
        let until_end = self.words.len() - index;
        match count.checked_sub(until_end) {
            Some(over) => (&self.words[index..], &self.words[..over]),
            None => (&self.words[index..index + count], &[]),
        }
    }
}

/// Cuts parts of any length into words.
struct Sink<'a> {
    ring: &'a Ring,
    at: u64,
    /// The bytes of a word that is not full.
    carry: [u8; 8],
    carried: usize,
}

impl Sink<'_> {
    fn push(&mut self, mut part: &[u8]) {
        if self.carried > 0 {
            let (head, rest) = part.split_at(part.len().min(8 - self.carried));
            self.carry[self.carried..self.carried + head.len()].copy_from_slice(head);
            self.carried += head.len();
            part = rest;
            if self.carried < 8 {
                return;
            }
            self.flush();
        }
        let (whole, rest) = part.as_chunks::<8>();
        let (first, second) = self.ring.runs(self.at, whole.len() as u64 * 8);
        for (slot, bytes) in first.iter().chain(second).zip(whole) {
            slot.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        self.at += whole.len() as u64 * 8;
        self.carry[..rest.len()].copy_from_slice(rest);
        self.carried = rest.len();
    }

    fn flush(&mut self) {
        self.ring.word(self.at).store(u64::from_le_bytes(self.carry), Ordering::Relaxed);
        self.at += 8;
        self.carried = 0;
    }

    fn finish(mut self) {
        if self.carried > 0 {
            self.carry[self.carried..].fill(0);
            self.flush();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn parts_of_any_length_come_out_joined_also_over_the_end() {
        let content: Vec<u8> = (1..=40).collect();
        for start in (0..64).step_by(8) {
            for first in 0..=40 {
                for second in first..=40 {
                    let ring = Ring::new(64, start);
                    let at = ring.reserve(48);
                    assert_eq!((at, ring.finished(at)), (start, None));
                    let parts = [&content[..first], &content[first..second], &content[second..]];
                    ring.put(at, 77, &parts);
                    assert_eq!(ring.finished(at), Some(77));
                    let mut out = [0; 48];
                    ring.copy(at, &mut out);
                    assert_eq!(out[8..], content);
                    ring.free(at, at + 48);
                    assert_eq!((ring.freed(), ring.finished(at)), (at + 48, None));
                }
            }
        }
    }

    #[test]
    fn the_end_of_a_record_is_filled_with_zeros() {
        let ring = Ring::new(64, 0);
        ring.put(ring.reserve(24), 1, &[&[0xff; 16]]);
        ring.free(0, 24);
        ring.put(ring.reserve(16), 1, &[&[0xff; 3]]);
        let mut out = [0; 16];
        ring.copy(24, &mut out);
        assert_eq!(out[8..], [0xff, 0xff, 0xff, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_place_is_not_given_out_before_it_is_free() {
        let ring = Ring::new(64, 0);
        assert_eq!(ring.try_reserve(48), Some(0));
        assert_eq!(ring.try_reserve(24), None);
        assert_eq!(ring.reserved(), 48);
        assert_eq!(ring.try_reserve(16), Some(48));
        assert!(!ring.has_room(72));
        ring.free(0, 48);
        assert!(ring.has_room(112) && !ring.has_room(120));
    }
}
