//! An ordered map in pages.
//!
//! The entries lie in *chunks*, one to a page, each for the keys from its lowest one to that of the next
//! chunk. A chunk that has become too long is split, one that has become short is joined with the next. The
//! form of page 0 and of every chunk's page:
//! ```text
//! 01 | pieces u32 | their pages, u64 each | content
//! content  has a lowest key u8 | (length u32 | lowest key)? | entries
//! entry    length u32 | key | length u32 | value
//! ```
//! A chunk has one entry at least, except that of page 0, which has no lowest key and is always there. One
//! entry may be longer than a page: then the content goes on in further pages, `02 | content`.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::RangeBounds;
use std::sync::Arc;

use hybster_proto::service::{RestoreError, Snapshot};

use super::table::{Content, Table};
use super::{PIECE_BYTES, Paged, wrong};
use crate::typed::Message;

/// A chunk that is longer is split, if it has two entries.
const CHUNK_BYTES: usize = 8 << 10;
/// A chunk that is shorter is joined with the next one, if both together have no more than half a chunk.
const SHORT_BYTES: usize = CHUNK_BYTES / 8;
/// The lengths in front of a key and a value.
const ENTRY_HEAD: usize = 8;

const CHUNK: u8 = 1;
const PIECE: u8 = 2;

/// An ordered map of which a checkpoint costs what has changed in it, a page of about 8 KiB at a time.
///
/// It is like a [`BTreeMap`], but values are changed by [`modify`](Self::modify) and
/// [`insert`](Self::insert), which take note of it.
///
/// Keys and values are [`Message`]s: anything that serde can write and read. They must be encoded the same
/// way if they are equal, so none of them may contain a hash table; use `BTreeMap` and `BTreeSet`.
///
/// ```
/// use hybster::paged::PagedMap;
///
/// let mut balances = PagedMap::new();
/// balances.insert("alice".to_owned(), 70u64);
/// balances.insert("bob".to_owned(), 5);
/// balances.modify("bob", |balance| *balance += 10);
/// assert_eq!(balances.get("bob"), Some(&15));
/// assert_eq!(balances.range("b".to_owned()..).count(), 1);
/// assert_eq!(balances.remove("alice"), Some(70));
/// ```
#[derive(Clone)]
pub struct PagedMap<K, V> {
    table: Table<Page<K, V>>,
    /// The pages of the chunks that have a lowest key.
    chunks: BTreeMap<K, u64>,
    /// Pages in between that nobody uses.
    free: BTreeSet<u64>,
    len: usize,
    scratch: Vec<u8>,
}

#[derive(Clone)]
enum Page<K, V> {
    Chunk(Chunk<K, V>),
    /// A further piece of a chunk's content.
    Piece(Vec<u8>),
}

#[derive(Clone)]
struct Chunk<K, V> {
    low: Option<K>,
    /// Length of what is encoded in front of the entries.
    head: usize,
    entries: Vec<Entry<K, V>>,
    /// Length of the encoded entries.
    bytes: usize,
    /// The pages with further pieces.
    pieces: Vec<u64>,
}

#[derive(Clone)]
struct Entry<K, V> {
    key: K,
    value: V,
    bytes: usize,
}

impl<K, V> Chunk<K, V> {
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.entries.binary_search_by(|entry| entry.key.borrow().cmp(key))
    }
}

impl<K: Message, V: Message> Chunk<K, V> {
    fn new(low: Option<K>, entries: Vec<Entry<K, V>>, bytes: usize) -> Self {
        let mut chunk = Self { low, head: 0, entries: Vec::new(), bytes, pieces: Vec::new() };
        let mut head = Vec::new();
        chunk.encode(&mut head);
        (chunk.head, chunk.entries) = (head.len(), entries);
        chunk
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.push(u8::from(self.low.is_some()));
        if let Some(low) = &self.low {
            put(low, into);
        }
        for Entry { key, value, .. } in &self.entries {
            put(key, into);
            put(value, into);
        }
    }

    fn decode(mut content: &[u8]) -> Option<Self> {
        let (has_low, rest) = content.split_first()?;
        content = rest;
        let low = match has_low {
            0 => None,
            1 => Some(take(&mut content)?),
            _ => return None,
        };
        let mut chunk = Self::new(low, Vec::new(), 0);
        while !content.is_empty() {
            let before = content.len();
            let (key, value) = (take(&mut content)?, take(&mut content)?);
            let bytes = before - content.len();
            chunk.entries.push(Entry { key, value, bytes });
            chunk.bytes += bytes;
        }
        Some(chunk)
    }
}

fn put<T: Message>(value: &T, into: &mut Vec<u8>) {
    let at = into.len();
    into.extend_from_slice(&[0; 4]);
    value.encode(into);
    let length = u32::try_from(into.len() - at - 4).expect("a key or value has less than 4 GiB");
    into[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

fn take<T: Message>(from: &mut &[u8]) -> Option<T> {
    let (length, rest) = from.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (value, rest) = rest.split_at_checked(length)?;
    *from = rest;
    T::decode(value)
}

impl<K, V> Content for Page<K, V>
where
    K: Message + Clone + Send + Sync + 'static,
    V: Message + Clone + Send + Sync + 'static,
{
    fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Self::Chunk(chunk) => {
                into.push(CHUNK);
                into.extend_from_slice(&(chunk.pieces.len() as u32).to_le_bytes());
                chunk.pieces.iter().for_each(|page| into.extend_from_slice(&page.to_le_bytes()));
                let head = into.len();
                chunk.encode(into);
                if !chunk.pieces.is_empty() {
                    into.truncate(head + PIECE_BYTES);
                }
            }
            Self::Piece(content) => {
                into.push(PIECE);
                into.extend_from_slice(content);
            }
        }
    }
}

impl<K, V> PagedMap<K, V>
where
    K: Message + Ord + Clone + Send + Sync + 'static,
    V: Message + Clone + Send + Sync + 'static,
{
    /// A map without entries.
    #[must_use]
    pub fn new() -> Self {
        let mut table = Table::default();
        table.put(0, Page::Chunk(Chunk::new(None, Vec::new(), 0)));
        let (chunks, free) = (BTreeMap::new(), BTreeSet::new());
        Self { table, chunks, free, len: 0, scratch: Vec::new() }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunk(self.page_of(key));
        Some(&chunk.entries[chunk.find(key).ok()?].value)
    }

    /// Whether the key has a value.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Gives a key a value; returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let page = self.page_of(&key);
        let bytes = self.measure(&key, &value);
        let chunk = self.chunk_mut(page);
        let before = match chunk.find(&key) {
            Ok(at) => {
                let entry = &mut chunk.entries[at];
                let before = std::mem::replace(&mut entry.value, value);
                chunk.bytes = chunk.bytes - entry.bytes + bytes;
                entry.bytes = bytes;
                Some(before)
            }
            Err(at) => {
                chunk.entries.insert(at, Entry { key, value, bytes });
                chunk.bytes += bytes;
                None
            }
        };
        self.len += usize::from(before.is_none());
        self.settle(page);
        before
    }

    /// Changes the value of a key, if it has one; returns what `change` does.
    pub fn modify<Q, R>(&mut self, key: &Q, change: impl FnOnce(&mut V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let page = self.page_of(key);
        let at = self.chunk(page).find(key).ok()?;
        let mut scratch = std::mem::take(&mut self.scratch);
        let chunk = self.chunk_mut(page);
        let entry = &mut chunk.entries[at];
        let result = change(&mut entry.value);
        let bytes = length(&mut scratch, &entry.key, &entry.value);
        chunk.bytes = chunk.bytes - entry.bytes + bytes;
        entry.bytes = bytes;
        self.scratch = scratch;
        self.settle(page);
        Some(result)
    }

    /// Takes a key and its value away.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let page = self.page_of(key);
        let at = self.chunk(page).find(key).ok()?;
        Some(self.remove_at(page, at).1)
    }

    /// The entry with the least key.
    #[must_use]
    pub fn first(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    /// The entry with the greatest key.
    #[must_use]
    pub fn last(&self) -> Option<(&K, &V)> {
        // Only the first chunk can be empty.
        let page = self.chunks.last_key_value().map_or(0, |(_, page)| *page);
        self.chunk(page).entries.last().map(|entry| (&entry.key, &entry.value))
    }

    /// Takes the entry with the least key away.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        let first = self.chunks.first_key_value().map(|(_, page)| *page);
        let has_entries = |page: &u64| !self.chunk(*page).entries.is_empty();
        let page = [Some(0), first].into_iter().flatten().find(has_entries)?;
        Some(self.remove_at(page, 0))
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let pages = std::iter::once(0).chain(self.chunks.values().copied());
        self.entries(pages)
    }

    /// The entries with keys in a range, in their order.
    ///
    /// # Panics
    /// If the range begins behind its end.
    pub fn range<'a, Q, R>(&'a self, range: R) -> impl Iterator<Item = (&'a K, &'a V)>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized + 'a,
        R: RangeBounds<Q> + 'a,
    {
        let (first, later) = match range.start_bound() {
            Unbounded => (0, self.chunks.range::<Q, _>((Unbounded, range.end_bound()))),
            Included(key) | Excluded(key) => {
                let later = (Excluded(key), Unbounded::<&Q>);
                (self.page_of(key), self.chunks.range::<Q, _>(later))
            }
        };
        let pages = std::iter::once(first).chain(later.map(|(_, page)| *page));
        let mut has_begun = false;
        let mut has_ended = false;
        self.entries(pages)
            .map_while(move |(key, value)| {
                let borrowed = key.borrow();
                if !has_begun {
                    has_begun = match range.start_bound() {
                        Unbounded => true,
                        Included(start) => borrowed >= start,
                        Excluded(start) => borrowed > start,
                    };
                }
                has_ended = has_ended
                    || match range.end_bound() {
                        Unbounded => false,
                        Included(end) => borrowed > end,
                        Excluded(end) => borrowed >= end,
                    };
                (!has_ended).then_some(has_begun.then_some((key, value)))
            })
            .flatten()
    }

    fn entries<'a>(
        &'a self,
        pages: impl Iterator<Item = u64> + 'a,
    ) -> impl Iterator<Item = (&'a K, &'a V)> {
        let entries = pages.flat_map(|page| &self.chunk(page).entries);
        entries.map(|entry| (&entry.key, &entry.value))
    }

    /// The page of the chunk that a key belongs to.
    fn page_of<Q: Ord + ?Sized>(&self, key: &Q) -> u64
    where
        K: Borrow<Q>,
    {
        let mut below = self.chunks.range::<Q, _>((Unbounded, Included(key)));
        below.next_back().map_or(0, |(_, page)| *page)
    }

    fn chunk(&self, page: u64) -> &Chunk<K, V> {
        match self.table.get(page) {
            Some(Page::Chunk(chunk)) => chunk,
            _ => unreachable!("page {page} is a chunk's"),
        }
    }

    /// The chunk, whose page then counts as changed.
    fn chunk_mut(&mut self, page: u64) -> &mut Chunk<K, V> {
        match self.table.modify(page) {
            Page::Chunk(chunk) => chunk,
            Page::Piece(_) => unreachable!("page {page} is a chunk's"),
        }
    }

    fn measure(&mut self, key: &K, value: &V) -> usize {
        length(&mut self.scratch, key, value)
    }

    fn remove_at(&mut self, page: u64, at: usize) -> (K, V) {
        let chunk = self.chunk_mut(page);
        let Entry { key, value, bytes } = chunk.entries.remove(at);
        chunk.bytes -= bytes;
        self.len -= 1;
        self.settle(page);
        (key, value)
    }

    /// Splits a chunk that is too long, and joins or takes away one that is too short.
    fn settle(&mut self, page: u64) {
        let chunk = self.chunk(page);
        if chunk.bytes > CHUNK_BYTES && chunk.entries.len() > 1 {
            return self.split(page);
        }
        if chunk.entries.is_empty() && page != 0 {
            if let Some(low) = self.chunk_mut(page).low.take() {
                self.chunks.remove(&low);
            }
            return self.release(page);
        }
        if chunk.bytes < SHORT_BYTES
            && let Some(next) = self.next(page)
            && chunk.bytes + self.chunk(next).bytes <= CHUNK_BYTES / 2
        {
            let other = self.chunk_mut(next);
            let (mut entries, bytes) = (std::mem::take(&mut other.entries), other.bytes);
            if let Some(low) = other.low.take() {
                self.chunks.remove(&low);
            }
            self.release(next);
            let chunk = self.chunk_mut(page);
            chunk.entries.append(&mut entries);
            chunk.bytes += bytes;
        }
        self.cut(page);
    }

    /// The page of the chunk behind that of a page.
    fn next(&self, page: u64) -> Option<u64> {
        let from = self.chunk(page).low.as_ref().map_or(Unbounded, Excluded);
        self.chunks.range::<K, _>((from, Unbounded)).next().map(|(_, page)| *page)
    }

    fn split(&mut self, page: u64) {
        let chunk = self.chunk_mut(page);
        let (mut at, mut before) = (0, 0);
        while at < chunk.entries.len() - 1 && (at == 0 || before < chunk.bytes / 2) {
            before += chunk.entries[at].bytes;
            at += 1;
        }
        let entries = chunk.entries.split_off(at);
        let bytes = chunk.bytes - before;
        chunk.bytes = before;
        let low = entries[0].key.clone();
        let new = self.take_free();
        self.table.put(new, Page::Chunk(Chunk::new(Some(low.clone()), entries, bytes)));
        self.chunks.insert(low, new);
        self.settle(page);
        self.settle(new);
    }

    /// Gives a chunk as many further pages as its content takes.
    fn cut(&mut self, page: u64) {
        let chunk = self.chunk(page);
        if chunk.head + chunk.bytes <= PIECE_BYTES && chunk.pieces.is_empty() {
            return;
        }
        let mut content = Vec::new();
        chunk.encode(&mut content);
        let before = chunk.pieces.clone();
        before.into_iter().for_each(|piece| self.release(piece));
        let mut pieces = Vec::new();
        for piece in content.chunks(PIECE_BYTES).skip(1) {
            let at = self.take_free();
            self.table.put(at, Page::Piece(piece.to_vec()));
            pieces.push(at);
        }
        self.chunk_mut(page).pieces = pieces;
    }

    /// The lowest page that is not used.
    fn take_free(&mut self) -> u64 {
        self.free.pop_first().unwrap_or(self.table.count())
    }

    fn release(&mut self, page: u64) {
        if let Some(Page::Chunk(chunk)) = self.table.get(page) {
            let pieces = chunk.pieces.clone();
            pieces.into_iter().for_each(|piece| self.release(piece));
        }
        self.table.free(page);
        self.free.insert(page);
        self.free.split_off(&self.table.count());
    }

    /// Reads a page and, if it is a chunk's, those of its pieces.
    fn read(source: &dyn Snapshot, page: u64) -> Result<Option<Page<K, V>>, RestoreError> {
        let bytes = source.page(page);
        let Some((kind, mut rest)) = bytes.split_first() else { return Ok(None) };
        match *kind {
            PIECE => return Ok(Some(Page::Piece(rest.to_vec()))),
            CHUNK => {}
            _ => return Err(wrong(page, "this is no page of a map")),
        }
        let mut head = || -> Option<Vec<u64>> {
            let count;
            (count, rest) = rest.split_first_chunk::<4>()?;
            let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
            let pages;
            (pages, rest) = rest.split_at_checked(count.checked_mul(8)?)?;
            let pages = pages.as_chunks::<8>().0;
            Some(pages.iter().map(|page| u64::from_le_bytes(*page)).collect())
        };
        let pieces = head().ok_or_else(|| wrong(page, "the head of a chunk is cut off"))?;
        let mut content = rest.to_vec();
        for piece in &pieces {
            match source.page(*piece).split_first() {
                Some((&PIECE, more)) => content.extend_from_slice(more),
                _ => return Err(wrong(*piece, "a piece of a chunk is missing")),
            }
        }
        let chunk = Chunk::decode(&content);
        let chunk = chunk.ok_or_else(|| wrong(page, "keys and values of other types"))?;
        Ok(Some(Page::Chunk(Chunk { pieces, ..chunk })))
    }

    fn after_restore(&mut self, count: u64) -> Result<(), RestoreError> {
        (count..self.table.count()).rev().for_each(|page| self.table.free(page));
        (self.chunks, self.free, self.len) = (BTreeMap::new(), BTreeSet::new(), 0);
        for page in 0..self.table.count() {
            match self.table.get(page) {
                None => drop(self.free.insert(page)),
                Some(Page::Piece(_)) => {}
                Some(Page::Chunk(chunk)) => {
                    self.len += chunk.entries.len();
                    let is_right = match &chunk.low {
                        None => page == 0,
                        Some(low) => self.chunks.insert(low.clone(), page).is_none(),
                    };
                    if !is_right {
                        return Err(wrong(page, "two chunks have the same place"));
                    }
                }
            }
        }
        match self.table.get(0) {
            Some(Page::Chunk(Chunk { low: None, .. })) => Ok(()),
            _ => Err(wrong(0, "the first chunk is missing")),
        }
    }

    fn take(&mut self, source: &dyn Snapshot, page: u64) -> Result<(), RestoreError> {
        match Self::read(source, page)? {
            Some(content) => self.table.put(page, content),
            None => self.table.free(page),
        }
        Ok(())
    }
}

fn length<K: Message, V: Message>(scratch: &mut Vec<u8>, key: &K, value: &V) -> usize {
    scratch.clear();
    key.encode(scratch);
    value.encode(scratch);
    ENTRY_HEAD + scratch.len()
}

impl<K, V> Paged for PagedMap<K, V>
where
    K: Message + Ord + Clone + Send + Sync + 'static,
    V: Message + Clone + Send + Sync + 'static,
{
    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        self.table.snapshot()
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        (0..source.page_count()).try_for_each(|page| self.take(source, page))?;
        self.after_restore(source.page_count())
    }

    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        let is_kept = |map: &Self, page: u64| {
            map.table.version(page) == base.page_version(page)
                && changed.binary_search(&page).is_err()
        };
        // Before anything is changed: a chunk is kept with all its pieces, or not at all.
        let count = source.page_count();
        let kept: Vec<bool> = (0..count)
            .map(|page| {
                let pieces = match self.table.get(page) {
                    Some(Page::Chunk(chunk)) => &chunk.pieces[..],
                    _ => &[],
                };
                is_kept(self, page) && pieces.iter().all(|piece| is_kept(self, *piece))
            })
            .collect();
        for (page, is_kept) in (0..).zip(kept) {
            if !is_kept {
                self.take(source, page)?;
            }
        }
        self.after_restore(count)
    }
}

impl<K, V> Default for PagedMap<K, V>
where
    K: Message + Ord + Clone + Send + Sync + 'static,
    V: Message + Clone + Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> fmt::Debug for PagedMap<K, V>
where
    K: Message + Ord + Clone + Send + Sync + fmt::Debug + 'static,
    V: Message + Clone + Send + Sync + fmt::Debug + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
