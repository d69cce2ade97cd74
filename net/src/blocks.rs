//! Read blocks: large buffers that several reads share, and that are used again once all slices of
//! them are gone.
//!
//! A back end uses `Blocks` in one of two ways: with [`Blocks::room`] and [`Blocks::take`] if it
//! reads into the block, with [`Blocks::copy`] if it already has the bytes elsewhere.

use std::collections::VecDeque;

use bytes::BytesMut;

#[derive(Debug)]
pub(crate) struct Blocks {
    block_bytes: usize,
    room_min: usize,
    /// The part of the current block that has not been handed out: initialised bytes for reads,
    /// spare capacity for copies.
    current: BytesMut,
    /// Handles of earlier blocks, each used again once all its slices are gone.
    spent: VecDeque<BytesMut>,
}

impl Blocks {
    pub(crate) fn new(block_bytes: usize, room_min: usize) -> Self {
        let block_bytes = block_bytes.max(4096);
        let room_min = room_min.clamp(1, block_bytes);
        Self { block_bytes, room_min, current: BytesMut::new(), spent: VecDeque::new() }
    }

    /// Where to read to. Never empty.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.current.len() < self.room_min {
            self.renew();
            // Safe code reads only into initialised memory. Clearing a block costs about 1 ns for
            // each 40 bytes that will be read into it.
            self.current.resize(self.block_bytes, 0);
        }
        &mut self.current
    }

    /// The first `count` bytes of the room, which have been read.
    pub(crate) fn take(&mut self, count: usize) -> BytesMut {
        self.current.split_to(count)
    }

    /// A copy of `data`, placed after the previous copy.
    pub(crate) fn copy(&mut self, data: &[u8]) -> BytesMut {
        if self.current.capacity() < data.len() {
            self.renew();
        }
        self.current.extend_from_slice(data);
        self.current.split()
    }

    /// Begins an empty block.
    fn renew(&mut self) {
        let mut old = std::mem::take(&mut self.current);
        old.clear();
        if old.capacity() > 0 {
            self.spent.push_back(old);
        }
        self.current = self.find_free().unwrap_or_else(|| {
            if self.spent.len() > SPENT_MAX {
                self.spent.pop_front();
            }
            BytesMut::with_capacity(self.block_bytes)
        });
    }

    fn find_free(&mut self) -> Option<BytesMut> {
        let block_bytes = self.block_bytes;
        let index = self.spent.iter_mut().position(|block| block.try_reclaim(block_bytes))?;
        self.spent.remove(index)
    }
}

/// Most earlier blocks that are remembered for reuse. One that is forgotten while slices of it live
/// is freed with the last of them.
pub(crate) const SPENT_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_once_its_slices_are_gone() {
        let mut blocks = Blocks::new(4096, 1024);
        let first = blocks.room().as_ptr();
        let slice = blocks.take(4000);
        let second = blocks.room().as_ptr();
        assert_ne!(first, second);
        drop(slice);
        drop(blocks.take(4000));
        let third = blocks.room().as_ptr();
        assert!(third == first || third == second);
        assert_eq!(blocks.room().len(), 4096);
    }

    #[test]
    fn copies_share_a_block_that_is_used_again() {
        let mut blocks = Blocks::new(4096, 4096);
        let first = blocks.copy(&[1; 3000]);
        let second = blocks.copy(&[2; 1000]);
        assert_eq!(second.as_ptr() as usize, first.as_ptr() as usize + 3000);
        let third = blocks.copy(&[3; 4096]);
        assert!(first == [1; 3000][..] && second == [2; 1000][..] && third == [3; 4096][..]);
        let begin = first.as_ptr();
        drop((first, second));
        assert_eq!(blocks.copy(&[4; 4096]).as_ptr(), begin);
    }

    #[test]
    fn slices_that_are_kept_are_not_overwritten() {
        let mut blocks = Blocks::new(4096, 1024);
        let mut kept = Vec::new();
        for round in 0..100_u8 {
            blocks.room()[..1000].fill(round);
            kept.push(blocks.take(1000));
        }
        for (round, slice) in kept.iter().enumerate() {
            assert!(slice.iter().all(|&byte| usize::from(byte) == round));
        }
        assert!(blocks.spent.len() <= SPENT_MAX + 1);
    }
}
