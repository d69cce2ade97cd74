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
mod invariants;
mod kept;
mod pages;
mod shares;

use std::cmp::Reverse;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::collections::{BTreeMap, HashMap};

use crate::config::GroupConfig;
use crate::ids::{ClientId, OrderNumber, RequestNumber, SessionId};
use crate::mutants::{self, Mutant};
use crate::service::{RestoreError, Snapshot};
use crate::wire::{Put, Reader, ReplyStatus, RequestTag, WireError};

use hasher::BuildMix;
pub(super) use kept::SMALL;
use kept::counted;
use pages::{EMPTY, Entry, Held, PAGE, Page, Recorded, Retired, SessionSnapshot, chunks_of};
use shares::{Share, Shares};

const NONE: u32 = u32::MAX;
/// Version of the first page. 2: the agreed time is in it. 3: results have
/// the tags of their requests, and large pages are split.
const FORMAT: u32 = 3;

/// Copies of pages that are kept, in numbers of the whole table.
pub(crate) const SNAPSHOT_COPIES: usize = Retired::SNAPSHOTS;

/// What a session takes without results that count against the group's bound: its entry with short ones, and its places in index and heap, which may
/// be half empty.
pub(crate) fn session_bytes(window: u32) -> u64 {
    let results = 2 * SMALL * window as usize;
    let entry = size_of::<Entry>() + (window as usize - 1) * size_of::<Recorded>() + results;
    let places = 2 * size_of::<((SessionId, u32), u8, Reverse<(u64, u32)>)>();
    (entry + places) as u64
}

/// What a client has in the table.
#[derive(Debug, Default)]
struct Client {
    sessions: u32,
    /// No session up to this one may be opened any more.
    watermark: u64,
    /// Its sessions by their last use *when they were looked at last*: at most what the entry says. So
    /// a request costs nothing here. An eviction puts each session right that it meets, at most once
    /// per request since; one may meet all of them, `max_sessions_per_client`. Each session stands
    /// here once.
    by_use: BinaryHeap<Reverse<(u64, u32)>>,
    /// Results that count against the bound.
    share: Share,
}

/// The session table.
pub(super) struct SessionTable {
    window: u64,
    max_sessions: u32,
    max_clients: usize,
    group: [u8; 32],
    pages: Vec<Held>,
    retired: Retired,
    length: u32,
    index: HashMap<SessionId, u32, BuildMix>,
    clients: HashMap<ClientId, Client, BuildMix>,
    shares: Shares,
    /// Executed requests.
    clock: u64,
    version: u64,
}

/// What the first page of a snapshot says.
struct Head {
    /// Number of sessions.
    length: u32,
    /// The agreed time.
    time_ms: u64,
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
}

/// Where a session was when it was looked for. Its place is another's once it is evicted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    at: u32,
    is_known: bool,
}

impl Place {
    pub(super) const UNKNOWN: Place = Place { at: NONE, is_known: false };
}

impl SessionTable {
    pub(super) fn new(config: &GroupConfig) -> SessionTable {
        SessionTable {
            window: config.session_window.into(),
            max_sessions: config.max_sessions_per_client,
            max_clients: config.max_clients as usize,
            group: config.digest().0,
            pages: Vec::new(),
            retired: Retired::default(),
            length: 0,
            index: HashMap::default(),
            clients: HashMap::default(),
            shares: Shares::new(config.kept_result_bytes),
            clock: 0,
            version: 0,
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
                let client = self.clients.get(&session.client)?;
                let late = session.session <= client.watermark
                    && !mutants::active(Mutant::WatermarkIgnored);
                late.then_some(Lookup::Refused(ReplyStatus::Evicted))
            }
        }
    }

    /// Where a session is.
    #[inline]
    pub(super) fn find(&self, session: SessionId) -> Place {
        let Some(&at) = self.index.get(&session) else { return Place::UNKNOWN };
        // Read here, so that it is in the cache when it is needed.
        Place { at, is_known: self.entry(at).id == session }
    }

    /// What the table says; opens the session if it is new. `place` is what [`Self::find`] said
    /// of it, now or before other sessions were opened.
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
                Lookup::New(self.open(session))
            }
        }
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
            // Two clients use the session. The result of one is none of the other's business.
            Lookup::Refused(ReplyStatus::NumberTaken)
        }
    }

    /// Records a result at an entry that a lookup named.
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
        entry.used = clock;
        entry.highest = entry.highest.max(number.0);
        let recorded = entry.recorded_mut(number.0, window);
        recorded.number = number.0;
        (recorded.tag, recorded.status) = (tag, status);
        let (before, now) = (counted(recorded.result.bytes().len()), counted(result.len()));
        recorded.result.set(result);
        if before != now {
            self.count(at, before, now);
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
        let more = vec![EMPTY; self.window as usize - 1];
        *self.entry_mut(at) = Entry { id, highest: 0, used: 0, first: EMPTY, more };
        self.index.insert(id, at);
        self.clients.entry(id.client).or_default().by_use.push(Reverse((0, at)));
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
        page.entries.push(Entry { id, highest: 0, used: 0, first: EMPTY, more: Vec::new() });
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
    /// first page also says where in the total order it was taken, and the agreed time there.
    pub(super) fn snapshot(&mut self, order: OrderNumber, time_ms: u64) -> SessionSnapshot {
        #[expect(clippy::disallowed_methods, reason = "sorted below")]
        let mut clients: Vec<_> =
            self.clients.iter().map(|(id, client)| (id.0, client.watermark)).collect();
        clients.sort_unstable();
        let mut head = Vec::with_capacity(64 + clients.len() * 12);
        head.put_u32(FORMAT);
        head.bytes(&self.group);
        head.put_u64(order.0);
        head.put_u64(time_ms);
        head.put_u64(self.clock);
        head.put_u32(self.length);
        head.put_u32(clients.len() as u32);
        for (id, watermark) in clients {
            head.put_u32(id);
            head.put_u64(watermark);
        }
        SessionSnapshot::new(head, &mut self.pages)
    }

    /// Rebuilds the table from pages that were checked against a certified digest; the agreed time
    /// comes with it.
    pub(super) fn restore(
        config: &GroupConfig,
        source: &dyn Snapshot,
        order: OrderNumber,
    ) -> Result<(SessionTable, u64), RestoreError> {
        let fail = |page: u64, what: &str| RestoreError { page, what: format!("sessions: {what}") };
        let mut table = SessionTable::new(config);
        let Head { length, time_ms, split } = table
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
                    return Err(fail(page, "a session stands twice"));
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
        Ok((table, time_ms))
    }

    /// Reads the first page.
    fn restore_head(&mut self, head: &[u8], order: OrderNumber) -> Result<Head, WireError> {
        let mut reader = Reader::new(head);
        if reader.u32()? != FORMAT {
            return Err(WireError::Field("format"));
        }
        if reader.digest()?.0 != self.group {
            return Err(WireError::Field("group configuration"));
        }
        if reader.order()? != order {
            return Err(WireError::Field("order"));
        }
        let time_ms = reader.u64()?;
        self.clock = reader.u64()?;
        let length = reader.u32()?;
        let clients = reader.count(12, "clients")?;
        for _ in 0..clients {
            let id = ClientId(reader.u32()?);
            let watermark = reader.u64()?;
            self.clients.insert(id, Client { watermark, ..Client::default() });
        }
        let split = pages::read_split(&mut reader)?;
        reader.end()?;
        Ok(Head { length, time_ms, split })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::Bytes;

    use super::*;

    const TAG: RequestTag = RequestTag::EMPTY;

    fn config(window: u32, max: u32) -> GroupConfig {
        GroupConfig {
            session_window: window,
            max_sessions_per_client: max,
            ..GroupConfig::default()
        }
    }

    fn session(client: u32, index: u64) -> SessionId {
        SessionId { client: ClientId(client), session: index }
    }

    fn run(table: &mut SessionTable, id: SessionId, number: u64) -> Option<Vec<u8>> {
        let number = RequestNumber(number);
        let at = match table.lookup_or_open(table.find(id), id, number, TAG) {
            Lookup::New(at) => at,
            _ => return None,
        };
        let result = number.0.to_le_bytes().to_vec();
        table.record(at, number, TAG, ReplyStatus::Done, &result);
        Some(result)
    }

    #[test]
    fn a_number_runs_once_and_its_result_is_kept() {
        let mut table = SessionTable::new(&config(4, 10));
        let id = session(1, 5);
        for number in [1, 3, 2, 5] {
            assert!(run(&mut table, id, number).is_some());
            assert!(run(&mut table, id, number).is_none());
        }
        let result = 3u64.to_le_bytes();
        assert_eq!(
            table.lookup(id, RequestNumber(3), TAG),
            Some(Lookup::Executed(ReplyStatus::Done, &result))
        );
        assert_eq!(
            table.lookup(id, RequestNumber(1), TAG),
            Some(Lookup::Refused(ReplyStatus::Stale))
        );
        assert!(run(&mut table, id, 4).is_some(), "4 lies in the window and has not run");
    }

    #[test]
    fn a_result_is_not_given_to_another_request_with_its_number() {
        let mut table = SessionTable::new(&config(2, 10));
        let id = session(1, 5);
        let [one, other] = [1, 2].map(RequestTag::new);
        let Lookup::New(at) = table.lookup_or_open(Place::UNKNOWN, id, RequestNumber(4), one)
        else {
            panic!("the session is new");
        };
        table.record(at, RequestNumber(4), one, ReplyStatus::Done, b"of one");
        let taken = Some(Lookup::Refused(ReplyStatus::NumberTaken));
        assert_eq!(table.lookup(id, RequestNumber(4), other), taken);
        let done = Some(Lookup::Executed(ReplyStatus::Done, b"of one"));
        assert_eq!(table.lookup(id, RequestNumber(4), one), done);
        // A copy of the table knows as much.
        let pages = table.snapshot(OrderNumber(9), 0);
        let (table, _) = SessionTable::restore(&config(2, 10), &pages, OrderNumber(9)).unwrap();
        assert_eq!(table.lookup(id, RequestNumber(4), other), taken);
        assert_eq!(table.lookup(id, RequestNumber(4), one), done);
    }

    #[test]
    fn a_place_from_before_an_eviction_is_another_session_s() {
        let mut table = SessionTable::new(&config(4, 2));
        let [old, kept, new] = [1, 2, 3].map(|index| session(1, index));
        assert!(run(&mut table, old, 1).is_some() && run(&mut table, kept, 1).is_some());
        let places = [old, kept, new].map(|id| table.find(id));
        assert!(run(&mut table, new, 7).is_some());
        let mut judge =
            |place, id, number| match table.lookup_or_open(place, id, RequestNumber(number), TAG) {
                Lookup::New(at) => Ok(at),
                Lookup::Executed(status, _) | Lookup::Refused(status) => Err(status),
            };
        assert_eq!(judge(places[0], old, 2), Err(ReplyStatus::Evicted));
        assert_eq!(judge(places[1], kept, 1), Err(ReplyStatus::Done));
        assert_eq!(judge(places[2], new, 7), Err(ReplyStatus::Done));
        assert_eq!(judge(places[2], new, 8), judge(places[0], new, 8));
        assert_eq!(judge(places[0], kept, 2), judge(places[1], kept, 2));
        assert_ne!(judge(places[1], kept, 2), judge(places[2], new, 8));
    }

    #[test]
    fn the_largest_number_is_a_number_like_others() {
        let mut table = SessionTable::new(&config(4, 10));
        let id = session(1, 5);
        assert!(run(&mut table, id, u64::MAX).is_some());
        assert!(run(&mut table, id, u64::MAX).is_none());
        assert!(run(&mut table, id, u64::MAX - 4).is_none(), "before the window");
        assert!(run(&mut table, id, u64::MAX - 3).is_some());
        assert!(run(&mut table, id, 0).is_none());
    }

    #[test]
    fn an_evicted_session_stays_out() {
        let mut table = SessionTable::new(&config(1, 2));
        assert!(run(&mut table, session(1, 10), 1).is_some());
        assert!(run(&mut table, session(1, 11), 1).is_some());
        assert!(run(&mut table, session(2, 1), 1).is_some());
        assert!(run(&mut table, session(1, 10), 2).is_some());
        assert!(run(&mut table, session(1, 12), 1).is_some(), "evicts 11, used least recently");
        assert_eq!(
            table.lookup(session(1, 11), RequestNumber(1), TAG),
            Some(Lookup::Refused(ReplyStatus::Evicted))
        );
        assert!(run(&mut table, session(1, 11), 2).is_none());
        assert!(run(&mut table, session(1, 10), 3).is_some(), "still in the table");
        assert!(run(&mut table, session(2, 1), 2).is_some(), "another client's share");
        assert_eq!(table.len(), 3);
    }

    /// Against a list in order of use, for clients that open sessions and use old ones at random.
    #[test]
    fn the_least_recently_used_session_is_evicted() {
        let mut table = SessionTable::new(&config(1, 8));
        let mut models = [const { VecDeque::<u64>::new() }; 2];
        let mut random = 1_u64;
        for step in 1..5000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
            let (client, choice) = ((random >> 40) % 2, (random >> 33) % 16);
            let model = &mut models[client as usize];
            // Mostly one that is there, else a new one.
            let index = match model.get(choice as usize) {
                Some(_) => model.remove(choice as usize).expect("it is there"),
                None => step,
            };
            if model.len() == 8 {
                model.pop_front();
            }
            model.push_back(index);
            assert!(run(&mut table, session(client as u32, index), step).is_some());
            for (client, model) in models.iter().enumerate() {
                #[expect(clippy::disallowed_methods, reason = "sorted below")]
                let mut known: Vec<u64> = table
                    .index
                    .keys()
                    .filter(|it| it.client.0 == client as u32)
                    .map(|it| it.session)
                    .collect();
                known.sort_unstable();
                let mut wanted: Vec<u64> = model.iter().copied().collect();
                wanted.sort_unstable();
                assert_eq!(known, wanted, "step {step}, client {client}");
                let by_use = table.clients.get(&ClientId(client as u32)).map(|it| it.by_use.len());
                assert_eq!(by_use.unwrap_or(0), model.len());
            }
        }
    }

    #[test]
    fn a_restored_table_behaves_the_same() {
        let config = config(2, 40);
        let mut table = SessionTable::new(&config);
        for i in 0..500u64 {
            run(&mut table, session((i % 3) as u32, i * 7 % 61 + i / 4), i / 2 + 1);
        }
        let order = OrderNumber(256);
        let snapshot = table.snapshot(order, 7);
        let (mut other, time_ms) = SessionTable::restore(&config, &snapshot, order).unwrap();
        assert_eq!(time_ms, 7);
        for i in 500..900u64 {
            let id = session((i % 3) as u32, i * 7 % 61 + i / 4);
            assert_eq!(run(&mut table, id, i / 2 + 1), run(&mut other, id, i / 2 + 1));
        }
        let (a, b) = (table.snapshot(order, 7), other.snapshot(order, 7));
        assert_eq!(a.page_count(), b.page_count());
        for page in 0..a.page_count() {
            assert_eq!(a.page(page), b.page(page));
        }
        // The snapshot taken before is unchanged by what came after.
        let (again, _) = SessionTable::restore(&config, &snapshot, order).unwrap();
        assert!(again.clock < table.clock);
    }

    #[test]
    fn copies_use_the_memory_of_pages_whose_snapshots_are_gone() {
        let mut table = SessionTable::new(&config(2, 40));
        let mut snapshots = VecDeque::new();
        let mut seen = std::collections::BTreeSet::new();
        for order in 1..100u64 {
            for client in 0..100 {
                run(&mut table, session(client, 1), order);
            }
            let pages = table.pages.iter().map(|held| held.page().entries.as_ptr() as usize);
            seen.extend(pages);
            let snapshot = table.snapshot(OrderNumber(order), 7);
            let content: Vec<Bytes> = (0..5).map(|page| snapshot.page(page)).collect();
            snapshots.push_back((snapshot, content));
            if snapshots.len() > Retired::SNAPSHOTS {
                // What was written since has not changed it.
                let (snapshot, content) = snapshots.pop_front().expect("it is not empty");
                assert!((0..5).all(|page| snapshot.page(page) == content[page as usize]));
            }
        }
        assert!(seen.len() <= 4 * (Retired::SNAPSHOTS + 1), "{} places", seen.len());
        assert!(table.retired.0.len() <= 4 * Retired::SNAPSHOTS);
    }

    #[test]
    fn hostile_pages_are_errors() {
        let config = config(1, 40);
        let mut table = SessionTable::new(&config);
        run(&mut table, session(1, 1), 1);
        let snapshot = table.snapshot(OrderNumber(256), 7);
        assert!(SessionTable::restore(&config, &snapshot, OrderNumber(512)).is_err());
        let mut pages = crate::service::Pages(vec![snapshot.page(0), snapshot.page(1)]);
        pages.0[1] = pages.0[1].slice(..10);
        assert!(SessionTable::restore(&config, &pages, OrderNumber(256)).is_err());
        pages.0.pop();
        assert!(SessionTable::restore(&config, &pages, OrderNumber(256)).is_err());
    }
}
