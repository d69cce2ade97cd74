//! The session table: last results per session, what makes execution exactly-once (TR listing 15,
//! last_retvals; DEVIATIONS 16).
//!
//! A session keeps its last W results. Sessions open with their first request and are evicted by
//! their own client only: a client that opens more than its share loses the one it used least
//! recently. An evicted session can never be opened again, nor any older one that is not in the
//! table (`watermark`), so a replayed request never runs a second time.
//!
//! The table is part of the checkpointed state: everything in it, the positions included, is a
//! function of the executed requests. Entries live in pages that a snapshot shares and that are
//! copied on the first write after it ([`pages`]).

mod hasher;
mod hints;
mod invariants;
mod kept;
mod pages;
mod shares;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::config::GroupConfig;
use crate::ids::{ClientId, OrderNumber, RequestNumber, SessionId};
use crate::membership::Change;
use crate::mutants::{self, Mutant};
use crate::service::{RestoreError, Snapshot};
use crate::wire::{Put, Reader, ReplyStatus, RequestTag, WireError};

use super::turns::{Opened, Turns};
use hasher::BuildMix;
use hints::Hints;
pub(super) use kept::SMALL;
use kept::counted;
use pages::{EMPTY, Entry, Held, PAGE, Page, Recorded, Retired, SessionSnapshot, chunks_of};
use shares::{Share, Shares};

const NONE: u32 = u32::MAX;
/// Version of the first page. 2: the agreed time is in it. 3: results have
/// the tags of their requests, and large pages are split.
const FORMAT: u32 = 3;
/// The format of the first page while a change of members is pending.
const FORMAT_OF_CHANGES: u32 = 4;
/// Requests of the administrator that are remembered.
const ADMINISTERED: usize = 16;
/// Where that page has it: behind format, group, order, time, clock and length.
const CHANGE_AT: usize = 4 + 32 + 3 * 8 + 4;

/// Copies of pages that are kept, in numbers of the whole table.
pub(crate) const SNAPSHOT_COPIES: usize = Retired::SNAPSHOTS;

/// What a session takes without results that count against the group's bound: its entry with short
/// results, its places in index and heap, which may be half empty, and its hints.
pub(crate) fn session_bytes(window: u32) -> u64 {
    let results = 2 * SMALL * window as usize;
    let entry = size_of::<Entry>() + (window as usize - 1) * size_of::<Recorded>() + results;
    let places = 2 * size_of::<((SessionId, u32), u8, Reverse<(u64, u32)>)>();
    (entry + places + size_of::<[u32; 4]>()) as u64
}

/// What a client has in the table.
#[derive(Debug, Default)]
struct Client {
    sessions: u32,
    /// No session up to this one may be opened any more.
    watermark: u64,
    /// Its sessions, each once, by their last use *when they were looked at last*: at most what the
    /// entry says. So a request costs nothing here. An eviction corrects each session that it meets,
    /// at most once per request since; a single one may meet all `max_sessions_per_client`.
    by_use: BinaryHeap<Reverse<(u64, u32)>>,
    /// Results that count against the bound.
    share: Share,
    /// Sessions that it opened in this turn: not part of the state.
    opened: Opened,
}

/// The session table.
pub(super) struct SessionTable {
    window: u64,
    max_sessions: u32,
    max_clients: usize,
    group: [u8; 32],
    /// Whose requests change the members, and are not recorded.
    administrator: Option<ClientId>,
    /// The administrator's requests that were executed last here, with their results: for copies that are under way.
    /// No part of the state, as to judge a change again gives the same answer.
    administered: VecDeque<(SessionId, RequestNumber, RequestTag, Vec<u8>)>,
    pages: Vec<Held>,
    retired: Retired,
    length: u32,
    index: HashMap<SessionId, u32, BuildMix>,
    hints: Hints,
    clients: HashMap<ClientId, Client, BuildMix>,
    shares: Shares,
    /// Executed requests.
    clock: u64,
    version: u64,
    /// Not part of the state.
    pub(super) turns: Turns,
}

/// What the first page of a snapshot says.
struct Head {
    /// Number of sessions.
    length: u32,
    /// The agreed time.
    time_ms: u64,
    /// The change of members that is pending.
    change: Option<Change>,
    /// Pages in several chunks, and in how many.
    split: BTreeMap<u32, u32>,
}

/// What the table says about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup<'a> {
    /// It has not run; its result is to be recorded at this entry.
    New(u32),
    /// It ran, with this result.
    Executed(ReplyStatus, &'a [u8]),
    /// It must not run.
    Refused(ReplyStatus),
    /// It is the administrator's, and no request to the service.
    Administration,
}

/// Where a session was when it was looked up. After an eviction another session may be there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    at: u32,
    is_known: bool,
}

impl Place {
    pub(super) const UNKNOWN: Self = Self { at: NONE, is_known: false };
}

impl SessionTable {
    pub(super) fn new(config: &GroupConfig) -> Self {
        Self {
            window: config.session_window.into(),
            max_sessions: config.max_sessions_per_client,
            max_clients: config.max_clients as usize,
            group: config.genesis().0,
            administrator: config.administrator.map(|it| it.client),
            administered: VecDeque::new(),
            pages: Vec::new(),
            retired: Retired::default(),
            length: 0,
            index: HashMap::default(),
            hints: Hints::new(0),
            clients: HashMap::default(),
            shares: Shares::new(config.kept_result_bytes),
            clock: 0,
            version: 0,
            turns: Turns::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length as usize
    }

    #[inline]
    fn entry(&self, at: u32) -> &Entry {
        &self.pages[at as usize / PAGE].page().entries[at as usize % PAGE]
    }

    #[inline]
    fn entry_mut(&mut self, at: u32) -> &mut Entry {
        &mut self.page_mut(at).entries[at as usize % PAGE]
    }

    /// The page of a place, to be written to.
    #[inline]
    fn page_mut(&mut self, at: u32) -> &mut Page {
        self.version += 1;
        let limit = Retired::SNAPSHOTS * self.pages.len();
        let page = self.retired.make_mut(&mut self.pages[at as usize / PAGE], limit);
        page.version = self.version;
        page
    }

    /// What the table says, without opening a session. `None`: the session would be opened.
    pub(super) fn lookup(
        &self,
        session: SessionId,
        number: RequestNumber,
        tag: RequestTag,
    ) -> Option<Lookup<'_>> {
        match self.index.get(&session) {
            Some(at) => Some(self.judge(*at, number, tag)),
            None => {
                let done = self.administered.iter();
                let same = |it: &&(_, _, _, _)| (it.0, it.1, it.2) == (session, number, tag);
                if let Some((.., result)) = done.rev().find(same) {
                    return Some(Lookup::Executed(ReplyStatus::Done, result));
                }
                let client = self.clients.get(&session.client)?;
                let late = session.session <= client.watermark
                    && !mutants::active(Mutant::WatermarkIgnored);
                late.then_some(Lookup::Refused(ReplyStatus::Evicted))
            }
        }
    }

    /// Where a session is. Its entry is read here, so that it is in the cache when it is needed.
    #[inline]
    pub(super) fn find(&mut self, session: SessionId) -> Place {
        let at = self.hints.of(session);
        if at < self.length {
            let entry = self.entry(at);
            // The second condition always holds. It reads the entry's second cache line ahead, which the
            // request is going to write to.
            let is_ours = entry.id == session && entry.first.number <= entry.highest;
            if is_ours {
                return Place { at, is_known: true };
            }
        }
        self.find_by_index(session)
    }

    #[cold]
    fn find_by_index(&mut self, session: SessionId) -> Place {
        let Some(&at) = self.index.get(&session) else { return Place::UNKNOWN };
        if self.hints.is_small(self.len()) {
            self.hints = Hints::new(self.len());
        }
        self.hints.set(session, at);
        Place { at, is_known: true }
    }

    /// What the table says; opens the session if it is new. `place` is what [`Self::find`]
    /// returned, now or before other sessions were opened.
    pub(super) fn lookup_or_open(
        &mut self,
        place: Place,
        session: SessionId,
        number: RequestNumber,
        tag: RequestTag,
    ) -> Lookup<'_> {
        if place.is_known && self.entry(place.at).id == session {
            return self.judge(place.at, number, tag);
        }
        match self.index.get(&session) {
            Some(at) => self.judge(*at, number, tag),
            None => {
                let watermark = self.clients.get(&session.client).map_or(0, |it| it.watermark);
                if session.session <= watermark && !mutants::active(Mutant::WatermarkIgnored) {
                    return Lookup::Refused(ReplyStatus::Evicted);
                }
                if Some(session.client) == self.administrator {
                    return Lookup::Administration;
                }
                Lookup::New(self.open(session))
            }
        }
    }

    /// The administrator's request was executed.
    pub(super) fn administered(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        tag: RequestTag,
        result: &[u8],
    ) {
        if self.administered.len() == ADMINISTERED {
            self.administered.pop_front();
        }
        self.administered.push_back((session, number, tag, result.to_vec()));
    }

    fn judge(&self, at: u32, number: RequestNumber, tag: RequestTag) -> Lookup<'_> {
        let entry = self.entry(at);
        if number.0 > entry.highest {
            return Lookup::New(at);
        }
        // Number 0 marks an empty place, so no session may use it.
        if entry.highest - number.0 >= self.window || number.0 == 0 {
            return Lookup::Refused(ReplyStatus::Stale);
        }
        let recorded = entry.recorded(number.0, self.window);
        if recorded.number != number.0 || mutants::active(Mutant::DuplicateExecution) {
            Lookup::New(at)
        } else if recorded.tag == tag || mutants::active(Mutant::TagIgnored) {
            Lookup::Executed(recorded.status, recorded.result.bytes())
        } else {
            // Two clients use the session, and neither may see the other's results.
            Lookup::Refused(ReplyStatus::NumberTaken)
        }
    }

    /// Records a result at an entry that a lookup named.
    #[inline]
    pub(super) fn record(
        &mut self,
        at: u32,
        number: RequestNumber,
        tag: RequestTag,
        status: ReplyStatus,
        result: &[u8],
    ) {
        self.clock += 1;
        assert!(at < self.length, "a result is recorded in a place of the table");
        let (clock, window) = (self.clock, self.window);
        let entry = self.entry_mut(at);
        let before = std::mem::replace(&mut entry.used, clock);
        entry.highest = entry.highest.max(number.0);
        let recorded = entry.recorded_mut(number.0, window);
        recorded.number = number.0;
        (recorded.tag, recorded.status) = (tag, status);
        let (bytes_before, bytes) = (counted(recorded.result.bytes().len()), counted(result.len()));
        recorded.result.set(result);
        self.turns.ran(before, clock);
        if bytes_before != bytes {
            self.count(at, bytes_before, bytes);
        }
    }

    fn open(&mut self, id: SessionId) -> u32 {
        let client = self.clients.entry(id.client).or_default();
        let at = if client.sessions >= self.max_sessions {
            self.evict(id.client)
        } else {
            client.sessions += 1;
            self.append(id)
        };
        let kept = self.entry(at).kept();
        if kept > 0 {
            self.count(at, kept, 0);
        }
        let more = vec![EMPTY; self.window as usize - 1].into();
        *self.entry_mut(at) = Entry { id, highest: 0, used: 0, first: EMPTY, more };
        self.index.insert(id, at);
        let client = self.clients.entry(id.client).or_default();
        client.by_use.push(Reverse((0, at)));
        self.turns.opened(&mut client.opened, self.clock);
        at
    }

    /// Adds a place at the end.
    fn append(&mut self, id: SessionId) -> u32 {
        let at = self.length;
        if (at as usize).is_multiple_of(PAGE) {
            self.pages.push(Held::Own(Page { entries: Vec::with_capacity(PAGE), ..Page::NEW }));
        }
        let limit = Retired::SNAPSHOTS * self.pages.len();
        let last = self.pages.last_mut().expect("there is a page");
        let page = self.retired.make_mut(last, limit);
        page.entries.push(Entry { id, highest: 0, used: 0, first: EMPTY, more: Box::default() });
        self.length += 1;
        at
    }

    /// Frees the place of a client's least recently used session.
    fn evict(&mut self, client: ClientId) -> u32 {
        let client = self.clients.get_mut(&client).expect("it has sessions");
        loop {
            let mut first = client.by_use.peek_mut().expect("it has sessions");
            let Reverse((used, at)) = *first;
            let entry = &self.pages[at as usize / PAGE].page().entries[at as usize % PAGE];
            if entry.used == used {
                client.watermark = client.watermark.max(entry.id.session);
                self.index.remove(&entry.id);
                PeekMut::pop(first);
                return at;
            }
            *first = Reverse((entry.used, at));
        }
    }

    // ------------------------------------------------------------------ pages

    /// An immutable handle; costs one reference count per page and a copy of the client list. The
    /// first page also says where in the total order it was taken, the agreed time there, and the change of
    /// members that is pending; without one it is as if there were none such.
    pub(super) fn snapshot(
        &mut self,
        order: OrderNumber,
        time_ms: u64,
        change: Option<&Change>,
    ) -> SessionSnapshot {
        #[expect(clippy::disallowed_methods, reason = "sorted below")]
        let mut clients: Vec<_> =
            self.clients.iter().map(|(id, client)| (id.0, client.watermark)).collect();
        clients.sort_unstable();
        let mut head = Vec::with_capacity(64 + clients.len() * 12);
        head.put_u32(if change.is_some() { FORMAT_OF_CHANGES } else { FORMAT });
        head.bytes(&self.group);
        head.put_u64(order.0);
        head.put_u64(time_ms);
        head.put_u64(self.clock);
        head.put_u32(self.length);
        if let Some(change) = change {
            change.put(&mut head);
        }
        head.put_u32(clients.len() as u32);
        for (id, watermark) in clients {
            head.put_u32(id);
            head.put_u64(watermark);
        }
        SessionSnapshot::new(head, &mut self.pages)
    }

    /// The agreed time that the first page of a snapshot has; `None` if it is none of this version.
    pub(super) fn time_in(head: &[u8]) -> Option<u64> {
        let mut reader = Reader::new(head);
        let is_known = matches!(reader.u32(), Ok(FORMAT | FORMAT_OF_CHANGES));
        let _of_group = reader.digest().ok()?;
        let _order = reader.order().ok()?;
        reader.u64().ok().filter(|_| is_known)
    }

    /// The change of members that the first page of a snapshot has; `None` if there is none, or the page is none of this
    /// version.
    pub(super) fn change_in(head: &[u8]) -> Option<Change> {
        let mut reader = Reader::new(head);
        let has_one = reader.u32() == Ok(FORMAT_OF_CHANGES);
        reader.take(if has_one { CHANGE_AT - 4 } else { return None }).ok()?;
        Change::read(&mut reader).ok()
    }

    /// Rebuilds the table from pages that were checked against a certified digest; the agreed time
    /// comes with it, and the change of members that is pending.
    pub(super) fn restore(
        config: &GroupConfig,
        source: &dyn Snapshot,
        order: OrderNumber,
    ) -> Result<(Self, u64, Option<Change>), RestoreError> {
        let fail = |page: u64, what: &str| RestoreError { page, what: format!("sessions: {what}") };
        let mut table = Self::new(config);
        let Head { length, time_ms, change, split } = table
            .restore_head(&source.page(0), order)
            .map_err(|error| fail(0, &error.to_string()))?;
        let own_pages = u64::from(length).div_ceil(PAGE as u64);
        let more: u64 = split.values().map(|chunks| u64::from(*chunks) - 1).sum();
        if source.page_count() != 1 + own_pages + more {
            return Err(fail(0, "the number of pages is wrong"));
        }
        let mut page = 1;
        for own in 0..own_pages as u32 {
            let chunks = split.get(&own).copied().unwrap_or(1);
            let content = match chunks {
                1 => source.page(page),
                _ => (page..page + u64::from(chunks)).flat_map(|at| source.page(at)).collect(),
            };
            page += u64::from(chunks);
            let mut reader = Reader::new(&content);
            let here = (length - table.length).min(PAGE as u32);
            for _ in 0..here {
                let entry = Entry::read(&mut reader, table.window)
                    .map_err(|e| fail(page, &e.to_string()))?;
                let (id, used) = (entry.id, entry.used);
                if used > table.clock || !entry.has_results_in_place(table.window) {
                    return Err(fail(page, "a session has what no execution leaves"));
                }
                let at = table.append(id);
                *table.entry_mut(at) = entry;
                if table.index.insert(id, at).is_some() {
                    return Err(fail(page, "a session is there twice"));
                }
                let client = table.clients.entry(id.client).or_default();
                client.sessions += 1;
                client.by_use.push(Reverse((used, at)));
                if client.sessions > table.max_sessions {
                    return Err(fail(page, "a client has more sessions than its share"));
                }
            }
            reader.end().map_err(|error| fail(page, &error.to_string()))?;
            let last = table.pages.last_mut().expect("it has the entries just read");
            if let Held::Own(last) = last {
                last.kept = last.entries.iter().map(Entry::kept).sum();
                if chunks != chunks_of(last.kept) {
                    return Err(fail(page, "it is split where no execution splits it"));
                }
            }
        }
        if !table.recount() {
            return Err(fail(0, "more bytes of results are kept than the group allows"));
        }
        if table.clients.len() > table.max_clients {
            return Err(fail(0, "there are more clients than the group has"));
        }
        Ok((table, time_ms, change))
    }

    /// Reads the first page.
    fn restore_head(&mut self, head: &[u8], order: OrderNumber) -> Result<Head, WireError> {
        let mut reader = Reader::new(head);
        let has_change = match reader.u32()? {
            FORMAT => false,
            FORMAT_OF_CHANGES => true,
            _ => return Err(WireError::Field("format")),
        };
        if reader.digest()?.0 != self.group {
            return Err(WireError::Field("group configuration"));
        }
        if reader.order()? != order {
            return Err(WireError::Field("order"));
        }
        let time_ms = reader.u64()?;
        self.clock = reader.u64()?;
        let length = reader.u32()?;
        let change = has_change.then(|| Change::read(&mut reader)).transpose()?;
        let clients = reader.count(12, "clients")?;
        for _ in 0..clients {
            let id = ClientId(reader.u32()?);
            let watermark = reader.u64()?;
            self.clients.insert(id, Client { watermark, ..Client::default() });
        }
        let split = pages::read_split(&mut reader)?;
        reader.end()?;
        Ok(Head { length, time_ms, change, split })
    }
}
