//! Receive buffers that the kernel picks from: memory, registration, and who may touch it when.
//!
//! One allocation holds all buffers, another the ring of entries through which they are lent. Each
//! buffer is at any time either *lent* (it is in the ring of entries, and the kernel may write to
//! it) or *ours* (a completion named it, and the kernel does not touch it before we lend it again).
//! [`Lent`] keeps track, so that a kernel that named a buffer twice would stop us instead of having
//! us read what it is writing.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Buffers lent at the start.
const FEW: usize = 8;

/// Receive buffers of one ring. They must outlive the ring: see [`Buffers::register`].
#[derive(Debug)]
pub(super) struct Buffers {
    entries: Memory,
    data: Memory,
    count: u16,
    buffer_bytes: usize,
    /// The tail of the ring of entries after the next [`Buffers::publish`].
    tail: u16,
    lent: Lent,
    /// Buffers from this one on have never been lent.
    used: u16,
}

/// Zeroed memory that is accessed only through its pointer.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

/// Which buffers are lent to the kernel.
#[derive(Debug)]
struct Lent(Vec<bool>);

impl Buffers {
    /// `count` buffers of this size, all ours. `count` is rounded up to a power of two.
    pub(super) fn new(count: u16, buffer_bytes: usize) -> Self {
        // The kernel requires that the ring of entries starts at a page, of 16 or 64 KiB on some
        // machines.
        Self::with_pages(count, buffer_bytes, rustix::param::page_size())
    }

    fn with_pages(count: u16, buffer_bytes: usize, page_bytes: usize) -> Self {
        let count = count.clamp(1, 1 << 14).next_power_of_two();
        let buffer_bytes = buffer_bytes.clamp(256, 16 << 20);
        Self {
            entries: Memory::new(usize::from(count) * size_of::<BufRingEntry>(), page_bytes),
            data: Memory::new(usize::from(count) * buffer_bytes, page_bytes),
            count,
            buffer_bytes,
            tail: 0,
            lent: Lent(vec![false; usize::from(count)]),
            used: 0,
        }
    }

    /// Makes the buffers known to a ring as `group` and lends it a few of them.
    ///
    /// # Errors
    /// If the kernel has no buffer rings, or too little memory.
    ///
    /// # Safety
    /// `self` must not be dropped before the ring is closed.
    #[allow(unsafe_code)]
    pub(super) unsafe fn register(
        &mut self,
        submitter: &Submitter<'_>,
        group: u16,
    ) -> io::Result<()> {
        let address = self.entries.start.as_ptr() as u64;
        // SAFETY: the address is that of `count` zeroed entries at the start of a page. They stay
        // there until `self` is dropped, which the caller does after the ring is closed.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, group, 0)? };
        self.use_at_least(FEW);
        Ok(())
    }

    /// Lends more buffers until `wanted` of them, or all, are in use.
    ///
    /// The kernel takes them in turn, so the fewer there are, the likelier the next one is still in
    /// the cache.
    pub(super) fn use_at_least(&mut self, wanted: usize) {
        let wanted = wanted.min(usize::from(self.count)) as u16;
        if wanted > self.used {
            (self.used..wanted).for_each(|id| self.lend(id));
            self.used = wanted;
            self.publish();
        }
    }

    /// The first `length` bytes of a buffer that a completion has named. The buffer is ours now.
    ///
    /// # Panics
    /// If the kernel names a buffer that was not lent to it, or more bytes than it has.
    #[allow(unsafe_code)]
    pub(super) fn take(&mut self, id: u16, length: usize) -> &[u8] {
        self.lent.end(id);
        assert!(length <= self.buffer_bytes, "the kernel wrote beyond a receive buffer");
        let offset = usize::from(id) * self.buffer_bytes;
        // SAFETY: `lent` has an entry for `id`, so the range lies in `data`, which was zeroed and
        // is thus initialised. The buffer was lent and a completion gave it back, so the kernel
        // does not write to it; `&mut self` keeps it from being lent again while the slice lives.
        unsafe { slice::from_raw_parts(self.data.start.as_ptr().add(offset), length) }
    }

    /// Lends a buffer that is ours. The kernel sees it after [`Buffers::publish`].
    #[allow(unsafe_code)]
    pub(super) fn lend(&mut self, id: u16) {
        self.lent.begin(id);
        let offset = usize::from(id) * self.buffer_bytes;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `id < count`, so the buffer lies in `data`.
        let address = unsafe { self.data.start.as_ptr().add(offset) };
        let entries = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `index < count`, so the entry lies in `entries`, which is zeroed and aligned for
        // it. The kernel reads entries below the published tail only. At most `count` buffers are
        // lent, so it is done with the entry's old content. No other reference to it exists.
        let entry = unsafe { &mut *entries.add(index) };
        entry.set_addr(address as u64);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Makes the lent buffers visible to the kernel.
    #[allow(unsafe_code)]
    pub(super) fn publish(&self) {
        let entries = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `entries` is the first entry of the ring, initialised and page-aligned. The tail
        // lies in it at an even offset, and only this thread writes it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        // The entries are written before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Memory {
    #[allow(unsafe_code)]
    fn new(bytes: usize, page_bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(1), page_bytes);
        let layout = layout.expect("limits are small, and a page is a power of two");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        Self { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }
}

impl Drop for Memory {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed nowhere else.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

// SAFETY: the memory belongs to this value alone, as that of a `Box` does.
#[allow(unsafe_code)]
unsafe impl Send for Memory {}

impl Lent {
    fn begin(&mut self, id: u16) {
        let before = std::mem::replace(&mut self.0[usize::from(id)], true);
        assert!(!before, "a receive buffer is lent once");
    }

    fn end(&mut self, id: u16) {
        let before = std::mem::replace(&mut self.0[usize::from(id)], false);
        assert!(before, "the kernel named a receive buffer that it does not have");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_back_and_forth_and_stays_where_it_is() {
        let mut buffers = Buffers::new(3, 1000);
        assert_eq!(buffers.count, 4);
        (0..4).for_each(|id| buffers.lend(id));
        buffers.publish();
        let starts: Vec<usize> =
            (0..4).map(|id| buffers.take(id, 1000).as_ptr() as usize).collect();
        assert!(starts.windows(2).all(|pair| pair[1] == pair[0] + 1000));
        for _ in 0..100_000 {
            buffers.lend(2);
            buffers.publish();
            assert!(buffers.take(2, 1000).iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn the_entries_start_at_a_page_of_any_size() {
        for page_bytes in [4 << 10, 16 << 10, 64 << 10, 4 << 10, 16 << 10, 64 << 10] {
            let kept: Vec<_> = (0..8).map(|_| Buffers::with_pages(2, 512, page_bytes)).collect();
            for buffers in &kept {
                assert_eq!(buffers.entries.start.as_ptr() as usize % page_bytes, 0);
            }
        }
        assert!(rustix::param::page_size().is_power_of_two());
        let buffers = Buffers::new(2, 512);
        assert_eq!(buffers.entries.layout.align(), rustix::param::page_size());
    }

    #[test]
    fn as_many_buffers_are_used_as_are_wanted() {
        let mut buffers = Buffers::new(16, 1000);
        for (wanted, used) in [(8, 8), (3, 8), (9, 9), (1000, 16), (20, 16)] {
            buffers.use_at_least(wanted);
            assert_eq!(buffers.lent.0.iter().filter(|lent| **lent).count(), used);
            assert_eq!(usize::from(buffers.tail), used);
        }
    }

    #[test]
    #[should_panic(expected = "that it does not have")]
    fn a_buffer_that_was_not_lent_is_not_believed() {
        Buffers::new(4, 1000).take(1, 10);
    }

    #[test]
    #[should_panic(expected = "beyond a receive buffer")]
    fn a_length_beyond_the_buffer_is_not_believed() {
        let mut buffers = Buffers::new(4, 1000);
        buffers.lend(1);
        buffers.take(1, 1001);
    }
}
