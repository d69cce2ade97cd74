//! Which blocks of the file are free. Nothing of it is on disk: a start computes it from what the table
//! has in use.

use std::collections::BTreeMap;

/// Neighbouring blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Extent {
    pub(crate) start: u32,
    pub(crate) blocks: u32,
}

impl Extent {
    pub(crate) fn end(self) -> u64 {
        u64::from(self.start) + u64::from(self.blocks)
    }
}

/// The free blocks of a file.
#[derive(Debug)]
pub(crate) struct Space {
    /// Free runs: first block, and how many. No two touch.
    free: BTreeMap<u32, u32>,
    free_blocks: u64,
    /// The blocks that the file has.
    end: u32,
    /// No run below the second is as long as the first.
    hint: (u32, u32),
}

impl Space {
    /// Nothing is known to be free.
    pub(crate) fn empty(end: u32) -> Self {
        Self { free: BTreeMap::new(), free_blocks: 0, end, hint: (0, 0) }
    }

    /// The space between the extents in use, which are sorted; `None` if two overlap, or one begins
    /// below `first` or ends behind the file.
    pub(crate) fn between(used: &[Extent], first: u32, end: u32) -> Option<Self> {
        let mut space = Self::empty(end);
        let mut at = first;
        for extent in used {
            let gap = extent.start.checked_sub(at)?;
            space.give(Extent { start: at, blocks: gap });
            at = u32::try_from(extent.end()).ok().filter(|at| *at <= end)?;
        }
        let rest = end.checked_sub(at)?;
        space.give(Extent { start: at, blocks: rest });
        Some(space)
    }

    /// The blocks that the file has.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }

    pub(crate) fn free_blocks(&self) -> u64 {
        self.free_blocks
    }

    /// Takes blocks, the lowest that are together, or else the lowest in up to `most` extents.
    pub(crate) fn take(&mut self, blocks: u32, most: usize) -> Option<Vec<Extent>> {
        if u64::from(blocks) > self.free_blocks {
            return None;
        }
        match self.find(blocks) {
            Some(start) => {
                self.remove(start, blocks);
                Some(vec![Extent { start, blocks }])
            }
            None => self.scatter(blocks, most),
        }
    }

    /// Takes blocks that are together, end at or below `limit`, and are the lowest such.
    pub(crate) fn take_below(&mut self, blocks: u32, limit: u32) -> Option<Extent> {
        let start = self.find(blocks).filter(|start| start.saturating_add(blocks) <= limit)?;
        self.remove(start, blocks);
        Some(Extent { start, blocks })
    }

    /// The lowest run that is long enough.
    fn find(&mut self, blocks: u32) -> Option<u32> {
        let from = if blocks >= self.hint.0 { self.hint.1 } else { 0 };
        let found =
            self.free.range(from..).find(|(_, run)| **run >= blocks).map(|(start, _)| *start);
        self.hint = (blocks, found.unwrap_or(self.end));
        found
    }

    fn scatter(&mut self, blocks: u32, most: usize) -> Option<Vec<Extent>> {
        let mut left = blocks;
        let mut extents = Vec::new();
        for (start, run) in self.free.iter().take(most) {
            let part = left.min(*run);
            extents.push(Extent { start: *start, blocks: part });
            left -= part;
            if left == 0 {
                break;
            }
        }
        if left > 0 {
            return None;
        }
        extents.iter().for_each(|extent| self.remove(extent.start, extent.blocks));
        Some(extents)
    }

    /// Takes the first blocks of the run that begins there.
    fn remove(&mut self, start: u32, blocks: u32) {
        let Some(run) = self.free.remove(&start) else { return };
        self.free_blocks -= u64::from(blocks);
        if run > blocks {
            self.free.insert(start + blocks, run - blocks);
        }
    }

    /// These blocks are free again.
    pub(crate) fn give(&mut self, extent: Extent) {
        let Extent { mut start, mut blocks } = extent;
        if blocks == 0 {
            return;
        }
        self.free_blocks += u64::from(blocks);
        self.hint = (0, 0);
        if let Some((before, run)) = self.free.range(..start).next_back().map(|(s, r)| (*s, *r))
            && before + run == start
        {
            self.free.remove(&before);
            (start, blocks) = (before, run + blocks);
        }
        if let Some(run) = self.free.remove(&(start + blocks)) {
            blocks += run;
        }
        self.free.insert(start, blocks);
    }

    /// The file has become longer.
    pub(crate) fn grow(&mut self, blocks: u32) {
        let start = self.end;
        self.end += blocks;
        self.give(Extent { start, blocks });
    }

    /// The first of the free blocks at the end of the file.
    pub(crate) fn tail(&self) -> u32 {
        match self.free.last_key_value() {
            Some((start, run)) if start + run == self.end => *start,
            _ => self.end,
        }
    }

    /// The file has been cut off at or behind [`Self::tail`].
    pub(crate) fn cut(&mut self, end: u32) {
        let tail = self.tail();
        if end < tail || end >= self.end {
            return;
        }
        self.free.remove(&tail);
        self.free_blocks -= u64::from(self.end - end);
        if end > tail {
            self.free.insert(tail, end - tail);
        }
        self.end = end;
        self.hint = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u32, blocks: u32) -> Extent {
        Extent { start, blocks }
    }

    #[test]
    fn what_is_in_use_is_never_given_away() {
        let space = Space::between(&[extent(2, 3), extent(6, 1)], 2, 10).unwrap();
        assert_eq!(space.free.iter().collect::<Vec<_>>(), [(&5, &1), (&7, &3)]);
        assert_eq!((space.free_blocks(), space.tail()), (4, 7));
        for wrong in [&[extent(1, 1)][..], &[extent(2, 3), extent(4, 1)], &[extent(9, 2)]] {
            assert!(Space::between(wrong, 2, 10).is_none());
        }
    }

    #[test]
    fn the_lowest_run_that_fits_is_taken_and_else_several() {
        let mut space = Space::between(&[extent(3, 1), extent(6, 1)], 2, 10).unwrap();
        assert_eq!(space.take(2, 9), Some(vec![extent(4, 2)]));
        assert_eq!(space.take(1, 9), Some(vec![extent(2, 1)]));
        assert_eq!(space.take(4, 9), None);
        space.give(extent(2, 1));
        assert_eq!(space.take(4, 1), None, "in so few extents");
        assert_eq!(space.take(4, 2), Some(vec![extent(2, 1), extent(7, 3)]));
        assert_eq!((space.free_blocks(), space.tail()), (0, 10));
        space.grow(4);
        assert_eq!(space.take_below(2, 11), None);
        assert_eq!(space.take_below(1, 11), Some(extent(10, 1)));
        space.cut(12);
        assert_eq!((space.end(), space.tail(), space.free_blocks()), (12, 11, 1));
        space.cut(10);
        assert_eq!(space.end(), 12, "not through what is in use");
    }

    #[test]
    fn neighbours_grow_together() {
        let mut space = Space::between(&[extent(2, 8)], 2, 10).unwrap();
        for at in [2, 4, 3, 9] {
            space.give(extent(at, 1));
        }
        assert_eq!(space.free.iter().collect::<Vec<_>>(), [(&2, &3), (&9, &1)]);
    }
}
