//! The bound on the results that all sessions keep, and who gives up results beyond it: the client
//! with the most, those of its sessions that it used least recently.
//!
//! So one client's large results displace none of another's. Which results are given up, and when,
//! is a function of the table alone, since all replicas must keep the same ones.

use std::cmp::Reverse;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::ClientId;
use crate::wire::ReplyStatus;

use super::SessionTable;
use super::kept::{Kept, counted};
use super::pages::{Held, PAGE};

/// Clients are compared by what they keep in this unit, in bytes.
const UNIT: u64 = 1 << 20;

/// What all clients keep.
#[derive(Debug)]
pub(super) struct Shares {
    limit: u64,
    total: u64,
    /// Clients that keep something: how much in [`UNIT`]s, and who. The last gives up first.
    most: BTreeSet<(u64, Reverse<ClientId>)>,
    /// By place, whether the session is in its client's [`Share::by_use`].
    listed: Vec<bool>,
}

/// What one client keeps.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) bytes: u64,
    /// Places that may keep something, by their last use *when they were looked at last*.
    by_use: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Shares {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, total: 0, most: BTreeSet::new(), listed: Vec::new() }
    }

    /// Bytes that all clients keep.
    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.total > self.limit
    }

    /// A result at a place counts `now` instead of `before`.
    fn change(&mut self, client: ClientId, share: &mut Share, before: u64, now: u64) {
        let place = |bytes: u64| (bytes > 0).then_some((bytes / UNIT, Reverse(client)));
        let old = place(share.bytes);
        share.bytes = share.bytes - before + now;
        self.total = self.total - before + now;
        let new = place(share.bytes);
        // Usually the client's rank stays: results are small against the unit.
        if old != new {
            old.map(|old| self.most.remove(&old));
            self.most.extend(new);
        }
    }

    fn list(&mut self, share: &mut Share, used: u64, at: u32) {
        let at_index = at as usize;
        if self.listed.len() <= at_index {
            self.listed.resize(at_index + 1, false);
        }
        if !std::mem::replace(&mut self.listed[at_index], true) {
            share.by_use.push(Reverse((used, at)));
        }
    }
}

impl SessionTable {
    /// A result of the session at a place counts `now` instead of `before`. What then exceeds the
    /// bound is given up.
    #[inline(never)]
    pub(super) fn count(&mut self, at: u32, before: u64, now: u64) {
        self.note(at, before, now);
        while self.shares.is_exceeded() {
            self.give_up();
        }
    }

    fn note(&mut self, at: u32, before: u64, now: u64) {
        let page = self.page_mut(at);
        page.kept = page.kept - before + now;
        let (client, used) = (self.entry(at).id.client, self.entry(at).used);
        let share = &mut self.clients.get_mut(&client).expect("it has a session").share;
        self.shares.change(client, share, before, now);
        if now > 0 {
            self.shares.list(share, used, at);
        }
    }

    /// The client with the most gives up the results of one session.
    fn give_up(&mut self) {
        let &(_, Reverse(id)) = self.shares.most.last().expect("somebody keeps something");
        let client = self.clients.get_mut(&id).expect("it keeps something");
        let at = loop {
            let mut first = client.share.by_use.peek_mut().expect("it keeps something");
            let Reverse((used, at)) = *first;
            let entry = &self.pages[at as usize / PAGE].page().entries[at as usize % PAGE];
            if entry.kept() > 0 && entry.used != used {
                *first = Reverse((entry.used, at));
                continue;
            }
            let keeps = entry.kept() > 0;
            PeekMut::pop(first);
            self.shares.listed[at as usize] = false;
            if keeps {
                break at;
            }
        };
        let mut given_up = 0;
        let entry = self.entry_mut(at);
        for recorded in std::iter::once(&mut entry.first).chain(&mut entry.more) {
            let bytes = counted(recorded.result.bytes().len());
            if bytes > 0 {
                given_up += bytes;
                recorded.status = ReplyStatus::ResultGone;
                recorded.result = Kept::EMPTY;
            }
        }
        self.note(at, given_up, 0);
    }

    /// The counts of a table whose entries were restored. False if more is kept than may be.
    pub(super) fn recount(&mut self) -> bool {
        for at in 0..self.length {
            let (kept, used, client) = {
                let entry = self.entry(at);
                (entry.kept(), entry.used, entry.id.client)
            };
            if kept > 0 {
                let share = &mut self.clients.get_mut(&client).expect("it has a session").share;
                self.shares.change(client, share, 0, kept);
                self.shares.list(share, used, at);
            }
        }
        !self.shares.is_exceeded()
    }

    /// Whether all counts are right.
    #[expect(clippy::iter_over_hash_type, reason = "the order decides nothing")]
    pub(super) fn has_right_shares(&self) -> bool {
        let mut by_client: BTreeMap<ClientId, u64> = BTreeMap::new();
        for page in self.pages.iter().map(Held::page) {
            let mut of_page = 0;
            for entry in &page.entries {
                of_page += entry.kept();
                *by_client.entry(entry.id.client).or_default() += entry.kept();
            }
            if page.kept != of_page {
                return false;
            }
        }
        for (id, client) in &self.clients {
            let bytes = by_client.get(id).copied().unwrap_or(0);
            let is_among = self.shares.most.contains(&(bytes / UNIT, Reverse(*id)));
            if client.share.bytes != bytes || is_among != (bytes > 0) {
                return false;
            }
        }
        self.shares.total == by_client.values().sum::<u64>() && !self.shares.is_exceeded()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::GroupConfig;
    use crate::execution::sessions::{Lookup, Place};
    use crate::ids::{OrderNumber, RequestNumber, SessionId};
    use crate::service::Snapshot;
    use crate::wire::RequestTag;

    const LIMIT: u64 = 16 << 20;

    fn config() -> GroupConfig {
        GroupConfig { kept_result_bytes: LIMIT, session_window: 2, ..GroupConfig::default() }
    }

    fn run(table: &mut SessionTable, client: u32, session: u64, number: u64, length: usize) {
        let id = SessionId { client: ClientId(client), session };
        let (number, tag) = (RequestNumber(number), RequestTag::new(7));
        let Lookup::New(at) = table.lookup_or_open(Place::UNKNOWN, id, number, tag) else {
            panic!("it has not run");
        };
        table.record(at, number, tag, ReplyStatus::Done, &vec![client as u8; length]);
    }

    fn status(table: &SessionTable, client: u32, session: u64, number: u64) -> ReplyStatus {
        let id = SessionId { client: ClientId(client), session };
        match table.lookup(id, RequestNumber(number), RequestTag::new(7)) {
            Some(Lookup::Executed(status, _)) => status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_greedy_client_gives_up_its_own_oldest_results() {
        let mut table = SessionTable::new(&config());
        run(&mut table, 1, 1, 1, 900_000);
        for session in 1..=1_500 {
            run(&mut table, 2, session, 1, 900_000);
            assert!(table.shares.total() <= LIMIT);
        }
        table.check_all_invariants();
        assert_eq!(status(&table, 1, 1, 1), ReplyStatus::Done);
        assert_eq!(status(&table, 2, 1, 1), ReplyStatus::ResultGone);
        assert_eq!(status(&table, 2, 1_500, 1), ReplyStatus::Done);
        let kept = (1..=1_500).filter(|s| status(&table, 2, *s, 1) == ReplyStatus::Done);
        assert_eq!(kept.count() as u64, LIMIT / 900_000 - 1);
        // A session that is used again becomes the last one to give up its results.
        let oldest = (1..=1_500).find(|s| status(&table, 2, *s, 1) == ReplyStatus::Done).unwrap();
        run(&mut table, 2, oldest, 2, 10);
        run(&mut table, 2, 1_501, 1, 900_000);
        assert_eq!(status(&table, 2, oldest, 1), ReplyStatus::Done);
        assert_eq!(status(&table, 2, oldest + 1, 1), ReplyStatus::ResultGone);
        table.check_all_invariants();
    }

    #[test]
    fn pages_stay_small_and_a_restored_table_gives_up_the_same() {
        let mut table = SessionTable::new(&config());
        for session in 1..=200_u64 {
            run(
                &mut table,
                1 + session as u32 % 3,
                session,
                1,
                (session as usize * 7919) % 300_000,
            );
        }
        let pages = table.snapshot(OrderNumber(4), 9, None);
        let length = |at| pages.page(at).len();
        assert!((0..pages.page_count()).all(|at| length(at) <= 2 << 20));
        assert!(pages.page_count() > 1 + 200_u64.div_ceil(32), "large pages are split");
        let (mut copy, _, _) = SessionTable::restore(&config(), &pages, OrderNumber(4)).unwrap();
        for session in 201..=400_u64 {
            for table in [&mut table, &mut copy] {
                run(
                    table,
                    1 + session as u32 % 3,
                    session,
                    1,
                    (session as usize * 104_729) % 900_000,
                );
            }
        }
        let [one, other] = [table, copy].map(|mut table| {
            table.check_all_invariants();
            let pages = table.snapshot(OrderNumber(8), 9, None);
            (0..pages.page_count()).map(|at| pages.page(at)).collect::<Vec<_>>()
        });
        assert!(one == other);
    }

    #[test]
    fn more_than_may_be_kept_is_not_restored() {
        let mut table = SessionTable::new(&config());
        (1..=10).for_each(|session| run(&mut table, 1, session, 1, 900_000));
        let pages = table.snapshot(OrderNumber(4), 9, None);
        let less = GroupConfig { kept_result_bytes: 8 << 20, ..config() };
        assert!(SessionTable::restore(&less, &pages, OrderNumber(4)).is_err());
    }

    #[test]
    fn an_evicted_session_counts_no_more() {
        let small = GroupConfig { max_sessions_per_client: 3, ..config() };
        let mut table = SessionTable::new(&small);
        for session in 1..50 {
            run(&mut table, 1, session, 1, 100_000);
            table.check_all_invariants();
        }
        assert_eq!(table.shares.total(), 300_000);
    }
}
