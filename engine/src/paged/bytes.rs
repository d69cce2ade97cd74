//! A run of bytes in pages.

use std::fmt;
use std::sync::Arc;

use hybster_proto::service::{RestoreError, Snapshot};

use super::table::{Content, Table};
use super::{Paged, wrong};

/// Bytes in a page.
const BLOCK: u64 = 16 << 10;
/// What is in front of a block's bytes, since a page that is there is not empty.
const HEAD: u8 = 1;

/// A long run of bytes that is written here and there: a file, a disk, a table of a user's own form. What was
/// never written is zero.
///
/// ```
/// use hybster::paged::PagedBytes;
///
/// let mut blob = PagedBytes::new();
/// blob.write(100_000, b"far out");
/// assert_eq!(blob.len(), 100_007);
/// assert_eq!(blob.read(99_999, 4), b"\0far");
/// ```
#[derive(Clone)]
pub struct PagedBytes {
    /// The length, and then the blocks that were written.
    table: Table<Block>,
    len: u64,
}

/// The length of the whole in page 0; from there on its bytes, up to the last that is not zero for sure.
#[derive(Clone)]
struct Block(Vec<u8>);

impl Content for Block {
    fn encode(&self, into: &mut Vec<u8>) {
        into.push(HEAD);
        into.extend_from_slice(&self.0);
    }
}

impl Default for PagedBytes {
    fn default() -> Self {
        Self::new()
    }
}

impl PagedBytes {
    /// No bytes.
    #[must_use]
    pub fn new() -> Self {
        let mut table = Table::default();
        table.put(0, Block(0u64.to_le_bytes().to_vec()));
        Self { table, len: 0 }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes from `offset` on, `length` of them, or those that there are.
    #[must_use]
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = offset.saturating_add(length as u64).min(self.len);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        let mut at = offset;
        while at < end {
            let (block, within) = (at / BLOCK, (at % BLOCK) as usize);
            let next = (at - at % BLOCK + BLOCK).min(end);
            if let Some(Block(content)) = self.table.get(1 + block) {
                let stop = (within + (next - at) as usize).min(content.len());
                if let Some(found) = content.get(within..stop) {
                    let to = (at - offset) as usize;
                    bytes[to..to + found.len()].copy_from_slice(found);
                }
            }
            at = next;
        }
        bytes
    }

    /// Writes bytes from `offset` on; there are more bytes afterwards if it ends behind the end.
    ///
    /// # Panics
    /// If it would end beyond 2⁶⁴.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len() as u64).expect("an end that is a number");
        if end > self.len && !bytes.is_empty() {
            self.set_len(end);
        }
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let (page, within) = (1 + at / BLOCK, (at % BLOCK) as usize);
            let (now, later) = rest.split_at(rest.len().min(BLOCK as usize - within));
            if self.table.get(page).is_none() {
                self.table.put(page, Block(Vec::new()));
            }
            let Block(content) = self.table.modify(page);
            if content.len() < within + now.len() {
                content.resize(within + now.len(), 0);
            }
            content[within..within + now.len()].copy_from_slice(now);
            (rest, at) = (later, at + now.len() as u64);
        }
    }

    /// Makes it longer, by zeros, or shorter.
    pub fn resize(&mut self, len: u64) {
        if len == self.len {
            return;
        }
        let within = (len % BLOCK) as usize;
        // The last block that is left, if only a part of it is.
        let last = 1 + len / BLOCK;
        for page in (last..self.table.count()).rev() {
            if page > last || within == 0 {
                self.table.free(page);
            } else if self.table.get(page).is_some_and(|Block(content)| content.len() > within) {
                self.table.modify(page).0.truncate(within);
            }
        }
        self.set_len(len);
    }

    fn set_len(&mut self, len: u64) {
        self.len = len;
        self.table.put(0, Block(len.to_le_bytes().to_vec()));
    }

    fn take(&mut self, page: u64, bytes: &[u8]) -> Result<(), RestoreError> {
        match bytes.split_first() {
            None if page == 0 => return Err(wrong(0, "the length is missing")),
            None => self.table.free(page),
            Some((&HEAD, content)) if content.len() as u64 <= BLOCK => {
                self.table.put(page, Block(content.to_vec()));
            }
            Some(_) => return Err(wrong(page, "this is no block of bytes")),
        }
        Ok(())
    }

    fn after_restore(&mut self, count: u64) -> Result<(), RestoreError> {
        (count..self.table.count()).rev().for_each(|page| self.table.free(page));
        let len = self
            .table
            .get(0)
            .and_then(|Block(len)| Some(u64::from_le_bytes(len.as_slice().try_into().ok()?)));
        self.len = len.ok_or_else(|| wrong(0, "the length has not eight bytes"))?;
        match self.table.count().saturating_sub(1) > self.len.div_ceil(BLOCK) {
            true => Err(wrong(self.table.count() - 1, "there are bytes behind the end")),
            false => Ok(()),
        }
    }
}

impl Paged for PagedBytes {
    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        self.table.snapshot()
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        (0..source.page_count()).try_for_each(|page| self.take(page, &source.page(page)))?;
        self.after_restore(source.page_count())
    }

    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        for page in 0..source.page_count() {
            let is_kept = self.table.version(page) == base.page_version(page)
                && changed.binary_search(&page).is_err();
            if !is_kept {
                self.take(page, &source.page(page))?;
            }
        }
        self.after_restore(source.page_count())
    }
}

impl fmt::Debug for PagedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagedBytes").field("len", &self.len).finish_non_exhaustive()
    }
}
