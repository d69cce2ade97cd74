//! The table of pages: what each page is and where, and what an update changes of it.

use std::collections::BTreeMap;
use std::fmt;

use crate::format::{BLOCK, blocks_of, entry_bytes};
use crate::mutants::{self, Mutant};
use crate::space::Extent;
use crate::{Manifest, StoreError};

/// The name of a page: its part of the checkpoint, such as that of the service, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageId {
    /// The part, counted from 0.
    pub part: u8,
    /// The number in the part, from 0.
    pub index: u64,
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} of part {}", self.index, self.part)
    }
}

/// Where a page is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// It is empty.
    Nowhere,
    /// In blocks that are together, from this one on.
    One(u32),
    Many(Box<[Extent]>),
}

/// A page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) length: u32,
    pub(crate) checksum: u32,
    pub(crate) place: Place,
}

impl Entry {
    pub(crate) fn blocks(&self) -> u64 {
        blocks_of(self.length.into())
    }

    pub(crate) fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let (one, many) = match &self.place {
            Place::Nowhere => (None, &[][..]),
            Place::One(start) => {
                (Some(Extent { start: *start, blocks: self.blocks() as u32 }), &[][..])
            }
            Place::Many(extents) => (None, &extents[..]),
        };
        one.into_iter().chain(many.iter().copied())
    }

    /// Whether this is what was written.
    pub(crate) fn is_right(&self, content: &[u8]) -> bool {
        crc32c::crc32c(content) == self.checksum || mutants::active(Mutant::PageUnchecked)
    }

    /// The block behind its last one.
    pub(crate) fn end(&self) -> u64 {
        self.extents().map(Extent::end).max().unwrap_or(0)
    }
}

/// A checkpoint: its manifest, and where its pages and its table are.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) manifest: Manifest,
    pub(crate) parts: Vec<Vec<Entry>>,
    /// Blocks of all pages, and bytes of all entries.
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// Where the table itself is.
    pub(crate) extents: Vec<Extent>,
}

impl Table {
    pub(crate) fn new(manifest: Manifest, parts: Vec<Vec<Entry>>, extents: Vec<Extent>) -> Self {
        let blocks = parts.iter().flatten().map(Entry::blocks).sum();
        let bytes = parts.iter().flatten().map(entry_bytes).sum();
        Self { manifest, parts, blocks, bytes, extents }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Manifest::default(), Vec::new(), Vec::new())
    }

    pub(crate) fn entry(&self, page: PageId) -> Option<&Entry> {
        let part = self.parts.get(usize::from(page.part))?;
        part.get(usize::try_from(page.index).ok()?)
    }

    pub(crate) fn pages_of(&self, part: usize) -> u64 {
        self.parts.get(part).map_or(0, |part| part.len() as u64)
    }

    /// All blocks in use, sorted.
    pub(crate) fn used(&self) -> Vec<Extent> {
        let pages = self.parts.iter().flatten().flat_map(Entry::extents);
        let mut used: Vec<Extent> = pages.chain(self.extents.iter().copied()).collect();
        used.sort_unstable();
        used
    }

    /// Blocks in use, those of the table included.
    pub(crate) fn used_blocks(&self) -> u64 {
        self.blocks + self.extents.iter().map(|extent| u64::from(extent.blocks)).sum::<u64>()
    }
}

/// What is new of a page: it was put, or removed.
pub(crate) type Changes = BTreeMap<PageId, Option<Entry>>;

/// Checks that what is changed makes of the table what the manifest says. It looks at the changes,
/// and at what the number of pages has changed by.
pub(crate) fn check_complete(
    base: &Table,
    manifest: &Manifest,
    changes: &Changes,
) -> Result<(), StoreError> {
    for part in 0..manifest.pages.len().max(base.parts.len()) {
        let (there, wanted) =
            (base.pages_of(part), manifest.pages.get(part).copied().unwrap_or_default());
        let page = |index| PageId { part: part as u8, index };
        for index in there..wanted {
            if !matches!(changes.get(&page(index)), Some(Some(_))) {
                return Err(StoreError::Incomplete(page(index)));
            }
        }
        for index in wanted..there {
            if !matches!(changes.get(&page(index)), Some(None)) {
                return Err(StoreError::Incomplete(page(index)));
            }
        }
        let kept = changes.range(page(0)..page(wanted)).find(|(_, change)| change.is_none());
        if let Some((page, _)) = kept {
            return Err(StoreError::Incomplete(*page));
        }
    }
    Ok(())
}

/// Bytes of all entries once the changes are made.
pub(crate) fn bytes_after(base: &Table, changes: &Changes) -> u64 {
    changes.iter().fold(base.bytes, |bytes, (page, change)| {
        let old = base.entry(*page).map_or(0, entry_bytes);
        bytes - old + change.as_ref().map_or(0, entry_bytes)
    })
}

/// Blocks of all pages once the changes are made.
pub(crate) fn blocks_after(base: &Table, changes: &Changes) -> u64 {
    changes.iter().fold(base.blocks, |blocks, (page, change)| {
        let old = base.entry(*page).map_or(0, Entry::blocks);
        blocks - old + change.as_ref().map_or(0, Entry::blocks)
    })
}

/// Makes the changes, which are complete; the extents that are not used any more.
pub(crate) fn apply(
    base: &mut Table,
    manifest: Manifest,
    changes: Changes,
    extents: Vec<Extent>,
) -> Vec<Extent> {
    (base.bytes, base.blocks) = (bytes_after(base, &changes), blocks_after(base, &changes));
    let mut freed = std::mem::replace(&mut base.extents, extents);
    base.parts.resize_with(manifest.pages.len().max(base.parts.len()), Vec::new);
    for (page, change) in changes {
        let part = &mut base.parts[usize::from(page.part)];
        let index = page.index as usize;
        if let Some(old) = part.get(index) {
            freed.extend(old.extents());
        }
        match change {
            Some(entry) if index < part.len() => part[index] = entry,
            // Pages are in order, and none is missing.
            Some(entry) => part.push(entry),
            None => {}
        }
    }
    for (part, count) in
        base.parts.iter_mut().zip(manifest.pages.iter().chain(std::iter::repeat(&0)))
    {
        part.truncate(*count as usize);
    }
    base.parts.truncate(manifest.pages.len());
    base.manifest = manifest;
    freed
}

/// Bytes of the file in these many blocks.
pub(crate) fn bytes_of_blocks(blocks: u64) -> u64 {
    blocks * BLOCK
}
