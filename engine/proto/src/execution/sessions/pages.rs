//! The entries of the session table in pages: shared with snapshots, copied on the first write after
//! one into the memory of pages whose snapshots are gone, and their bytes in a checkpoint.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::ids::{ClientId, SessionId};
use crate::service::Snapshot;
use crate::wire::{Put, Reader, ReplyStatus, RequestTag, WireError};

use super::kept::{Kept, counted};

/// Entries per page.
pub(super) const PAGE: usize = 32;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) number: u64,
    pub(super) tag: RequestTag,
    pub(super) status: ReplyStatus,
    pub(super) result: Kept,
}

impl Clone for Recorded {
    fn clone(&self) -> Self {
        let Self { number, tag, status, ref result } = *self;
        Self { number, tag, status, result: result.clone() }
    }

    /// Keeps the memory of the result.
    fn clone_from(&mut self, source: &Self) {
        let Self { number, tag, status, result } = source;
        (self.number, self.tag, self.status) = (*number, *tag, *status);
        self.result.clone_from(result);
    }
}

pub(super) const EMPTY: Recorded =
    Recorded { number: 0, tag: RequestTag::EMPTY, status: ReplyStatus::Done, result: Kept::EMPTY };

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: SessionId,
    pub(super) highest: u64,
    /// When the session was used last, in executed requests.
    pub(super) used: u64,
    /// The result at `number mod W`; the first is kept apart, so that W = 1 needs no second block.
    pub(super) first: Recorded,
    pub(super) more: Box<[Recorded]>,
}

impl Entry {
    #[inline]
    pub(super) fn recorded(&self, number: u64, window: u64) -> &Recorded {
        match place(number, window) {
            0 => &self.first,
            at => &self.more[at - 1],
        }
    }

    #[inline]
    pub(super) fn recorded_mut(&mut self, number: u64, window: u64) -> &mut Recorded {
        match place(number, window) {
            0 => &mut self.first,
            at => &mut self.more[at - 1],
        }
    }

    /// Bytes of results that count against the group's bound.
    pub(super) fn kept(&self) -> u64 {
        let results = std::iter::once(&self.first).chain(&self.more);
        results.map(|recorded| counted(recorded.result.bytes().len())).sum()
    }

    /// Whether each result is where its number says, and none is of a number beyond the highest.
    pub(super) fn has_results_in_place(&self, window: u64) -> bool {
        let results = std::iter::once(&self.first).chain(&self.more);
        results.enumerate().all(|(at, Recorded { number, .. })| {
            *number == 0 || (*number <= self.highest && place(*number, window) == at)
        })
    }

    /// Reads what [`Entry::write`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>, window: u64) -> Result<Self, WireError> {
        let id = SessionId { client: ClientId(reader.u32()?), session: reader.u64()? };
        let (highest, used) = (reader.u64()?, reader.u64()?);
        let mut read = || -> Result<Recorded, WireError> {
            let (number, tag) = (reader.u64()?, reader.u64()?);
            if tag != RequestTag::new(tag).value() {
                return Err(WireError::Field("tag"));
            }
            let tag = RequestTag::new(tag);
            let status = ReplyStatus::from_u8(reader.u8()?).ok_or(WireError::Field("status"))?;
            let length = reader.u32()? as usize;
            Ok(Recorded { number, tag, status, result: Kept::new(reader.take(length)?) })
        };
        let first = read()?;
        let more = (1..window).map(|_| read()).collect::<Result<_, _>>()?;
        Ok(Self { id, highest, used, first, more })
    }

    fn write(&self, out: &mut impl Put) {
        out.put_u32(self.id.client.0);
        out.put_u64(self.id.session);
        out.put_u64(self.highest);
        out.put_u64(self.used);
        for recorded in std::iter::once(&self.first).chain(&self.more) {
            out.put_u64(recorded.number);
            out.put_u64(recorded.tag.value());
            out.put_u8(recorded.status as u8);
            out.put_u32(recorded.result.bytes().len() as u32);
            out.bytes(recorded.result.bytes());
        }
    }
}

/// Where among W results that of a number is.
#[inline]
const fn place(number: u64, window: u64) -> usize {
    // The usual window, without a division.
    if window == 1 { 0 } else { (number % window) as usize }
}

impl Clone for Entry {
    fn clone(&self) -> Self {
        let Self { id, highest, used, ref first, ref more } = *self;
        Self { id, highest, used, first: first.clone(), more: more.clone() }
    }

    /// Keeps the memory of the results.
    fn clone_from(&mut self, source: &Self) {
        let Self { id, highest, used, first, more } = source;
        (self.id, self.highest, self.used) = (*id, *highest, *used);
        self.first.clone_from(first);
        self.more.clone_from(more);
    }
}

/// Writers set its version.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) version: u64,
    /// Bytes of its results that count against the group's bound.
    pub(super) kept: u64,
    pub(super) entries: Vec<Entry>,
}

impl Page {
    pub(super) const NEW: Self = Self { version: 0, kept: 0, entries: Vec::new() };
}

/// A page as the table holds it. From the first write after a snapshot on, the table owns it alone, so
/// further writes touch no reference count.
#[derive(Debug)]
pub(super) enum Held {
    Own(Page),
    Shared(Arc<Page>),
}

impl Held {
    #[inline]
    pub(super) fn page(&self) -> &Page {
        match self {
            Self::Own(page) => page,
            Self::Shared(page) => page,
        }
    }

    /// The page for a snapshot: nobody writes to it any more.
    fn share(&mut self) -> Arc<Page> {
        if let Self::Own(page) = self {
            *self = Self::Shared(Arc::new(std::mem::replace(page, Page::NEW)));
        }
        match self {
            Self::Shared(page) => Arc::clone(page),
            Self::Own(_) => unreachable!("shared above"),
        }
    }
}

/// Pages that snapshots share or shared, the oldest first: memory for the next copies. When a
/// snapshot is dropped depends on other threads, which affects only where in memory a copy is.
#[derive(Debug, Default)]
pub(super) struct Retired(pub(super) VecDeque<Arc<Page>>);

impl Retired {
    /// Snapshots whose pages are kept: the one that is being digested and the stable one before.
    pub(super) const SNAPSHOTS: usize = 2;

    /// `held` to write to: copied first if a snapshot shares it. `limit` pages are kept.
    #[inline]
    pub(super) fn make_mut<'a>(&mut self, held: &'a mut Held, limit: usize) -> &'a mut Page {
        if matches!(held, Held::Shared(_)) {
            self.make_own(held, limit);
        }
        match held {
            Held::Own(page) => page,
            Held::Shared(_) => unreachable!("made the table's own"),
        }
    }

    #[cold]
    fn make_own(&mut self, held: &mut Held, limit: usize) {
        let Held::Shared(shared) = std::mem::replace(held, Held::Own(Page::NEW)) else { return };
        *held = Held::Own(match Arc::try_unwrap(shared) {
            Ok(page) => page,
            Err(shared) => {
                let copy = self.copy(&shared);
                self.0.push_back(shared);
                if self.0.len() > limit {
                    self.0.pop_front();
                }
                copy
            }
        });
    }

    fn copy(&mut self, page: &Page) -> Page {
        let mut entries = match self.0.pop_front().map(Arc::try_unwrap) {
            Some(Ok(spare)) => spare.entries,
            Some(Err(shared)) => {
                self.0.push_front(shared);
                Vec::with_capacity(PAGE)
            }
            None => Vec::with_capacity(PAGE),
        };
        entries.clone_from(&page.entries);
        Page { version: page.version, kept: page.kept, entries }
    }
}

/// A page of the table becomes one page of the snapshot, and one more each time that its counted
/// results reach this many bytes, so that no page takes long to send.
const CHUNK_BYTES: u64 = 1 << 20;

/// How many pages of a snapshot a page of the table takes.
pub(super) fn chunks_of(kept: u64) -> u32 {
    u32::try_from(1 + kept / CHUNK_BYTES).expect("a page holds less than 2^52 bytes")
}

/// Which pages are split, and into how many, behind the rest of the first page.
pub(super) fn read_split(reader: &mut Reader<'_>) -> Result<BTreeMap<u32, u32>, WireError> {
    let count = reader.count(8, "split pages")?;
    let mut split = BTreeMap::new();
    for _ in 0..count {
        let (page, chunks) = (reader.u32()?, reader.u32()?);
        if chunks < 2 || split.insert(page, chunks).is_some() {
            return Err(WireError::Field("split pages"));
        }
    }
    Ok(split)
}

/// A part of what is put into it.
struct Cut {
    /// Bytes that come before the part.
    skip: usize,
    /// Bytes of the part that are missing.
    left: usize,
    out: Vec<u8>,
}

impl Put for Cut {
    fn bytes(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let taken = self.left.min(bytes.len() - skipped);
        self.left -= taken;
        self.out.extend_from_slice(&bytes[skipped..skipped + taken]);
    }
}

/// Counts what is put into it.
struct Length(usize);

impl Put for Length {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// The pages of a session table: page 0 holds the head, the others [`PAGE`] sessions each, or a part
/// of them.
pub(in crate::execution) struct SessionSnapshot {
    head: Bytes,
    pages: Vec<Arc<Page>>,
    /// Where each page of the table begins among those of the snapshot, if some are split.
    starts: Option<Vec<u64>>,
    count: u64,
}

impl SessionSnapshot {
    /// `head`: the first page but for the list of split pages.
    pub(super) fn new(mut head: Vec<u8>, pages: &mut [Held]) -> Self {
        let pages: Vec<_> = pages.iter_mut().map(Held::share).collect();
        let chunks = |page: &Arc<Page>| chunks_of(page.kept);
        let split = pages.iter().zip(0_u32..).filter(|(page, _)| chunks(page) > 1);
        head.put_u32(split.clone().count() as u32);
        for (page, index) in split.clone() {
            head.put_u32(index);
            head.put_u32(chunks(page));
        }
        let is_split = split.count() > 0;
        let mut count = 1;
        let starts = pages.iter().map(|page| {
            let start = count;
            count += u64::from(chunks(page));
            start
        });
        let starts: Vec<_> = if is_split { starts.collect() } else { Vec::new() };
        if !is_split {
            count = 1 + pages.len() as u64;
        }
        Self { head: head.into(), pages, starts: is_split.then_some(starts), count }
    }

    /// The page of the table that a page of the snapshot belongs to, and which part of it it is.
    fn find(&self, index: u64) -> Option<(&Page, u64)> {
        let index = index.checked_sub(1)?;
        let Some(starts) = &self.starts else {
            return self.pages.get(usize::try_from(index).ok()?).map(|page| (&**page, 0));
        };
        let at = starts.partition_point(|start| *start <= index + 1).checked_sub(1)?;
        let part = index + 1 - starts[at];
        let page = &*self.pages[at];
        (part < chunks_of(page.kept).into()).then_some((page, part))
    }
}

impl Snapshot for SessionSnapshot {
    fn page_count(&self) -> u64 {
        self.count
    }

    fn page(&self, index: u64) -> Bytes {
        if index == 0 {
            return self.head.clone();
        }
        let Some((page, part)) = self.find(index) else {
            return Bytes::new();
        };
        let chunks = chunks_of(page.kept) as usize;
        if chunks == 1 {
            let mut out = Vec::with_capacity(page.entries.len() * 64);
            page.entries.iter().for_each(|entry| entry.write(&mut out));
            return out.into();
        }
        let mut length = Length(0);
        page.entries.iter().for_each(|entry| entry.write(&mut length));
        let each = length.0.div_ceil(chunks);
        let mut cut = Cut { skip: each * part as usize, left: each, out: Vec::with_capacity(each) };
        page.entries.iter().for_each(|entry| entry.write(&mut cut));
        cut.out.into()
    }

    fn page_version(&self, index: u64) -> Option<u64> {
        // A page may move when another is split, so a version names the part as well.
        let (page, part) = self.find(index)?;
        Some(page.version << 20 | part)
    }
}
