//! What holds in the session table between two requests.

use super::SessionTable;
use super::pages::{PAGE, Retired};

impl SessionTable {
    /// Stops the process if the table is not as its own rules say.
    #[inline]
    pub(in crate::execution) fn check_invariants(&self) {
        assert_eq!(self.index.len(), self.length as usize, "each session has one place");
        let pages = (self.length as usize).div_ceil(PAGE);
        assert_eq!(self.pages.len(), pages, "every page but the last is full");
        // Which clients there are is checked before a request is ordered.
        assert!(self.clients.len() <= self.max_clients, "clients are bounded");
        assert!(!self.shares.is_exceeded(), "the results that are kept are bounded");
        assert!(self.retired.0.len() <= Retired::SNAPSHOTS * pages, "old pages are bounded");
    }

    /// As after each input, and everything that takes time to look at.
    #[expect(clippy::iter_over_hash_type, reason = "the order decides nothing")]
    pub(in crate::execution) fn check_all_invariants(&self) {
        self.check_invariants();
        for (id, at) in &self.index {
            assert_eq!(self.entry(*at).id, *id, "a session is where the index says");
        }
        let mut sessions = 0;
        for (id, client) in &self.clients {
            assert!(client.sessions <= self.max_sessions, "a client keeps to its share");
            let in_heap = client.by_use.len();
            assert_eq!(in_heap, client.sessions as usize, "each session is in the heap once");
            for (used, at) in client.by_use.iter().map(|entry| entry.0) {
                let entry = self.entry(at);
                assert!(entry.id.client == *id && used <= entry.used, "a heap is never ahead");
            }
            sessions += client.sessions;
        }
        assert_eq!(sessions, self.length, "each session is one client's");
        assert!(self.has_right_shares(), "the results that are kept are counted right");
        for entry in self.pages.iter().flat_map(|held| &held.page().entries) {
            assert!(entry.used <= self.clock, "no session was used in the future");
            assert_eq!(1 + entry.more.len() as u64, self.window, "W results are kept");
            let in_place = entry.has_results_in_place(self.window);
            assert!(in_place, "a result is where its number says");
        }
    }

    /// For tests of those that have a table.
    #[cfg(test)]
    pub(in crate::execution) fn spoil(&mut self) {
        self.length += 1;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the order decides nothing")]
mod tests {
    use std::cmp::Reverse;

    use super::*;
    use crate::config::GroupConfig;
    use crate::execution::sessions::pages::{Held, Page};
    use crate::execution::sessions::{Lookup, Place};
    use crate::ids::{ClientId, RequestNumber, SessionId};
    use crate::noticed::noticed;
    use crate::wire::{ReplyStatus, RequestTag};

    /// 39 sessions of three clients, on two pages.
    fn table() -> SessionTable {
        let config = GroupConfig { session_window: 2, ..GroupConfig::default() };
        let mut table = SessionTable::new(&config);
        for session in 1..40_u32 {
            let id = SessionId { client: ClientId(session % 3), session: session.into() };
            let number = RequestNumber(7);
            let tag = RequestTag::EMPTY;
            let Lookup::New(at) = table.lookup_or_open(Place::UNKNOWN, id, number, tag) else {
                panic!("it is new")
            };
            table.record(at, number, tag, ReplyStatus::Done, b"result");
        }
        table
    }

    noticed! {
        table(), |it| it.check_all_invariants();
        a_session_too_many: "one place", |it| it.spoil();
        a_page_too_many: "page but the last", |it| it.pages.push(Held::Own(Page::NEW));
        a_client_too_many: "clients are bounded", |it| it.max_clients = 2;
        old_pages_that_pile_up: "old pages", |it| {
            let page = || std::sync::Arc::new(Page::NEW);
            it.retired.0.extend((0..5).map(|_| page()));
        };
        a_session_elsewhere: "index says", |it| {
            let first = it.entry(0).id;
            it.index.insert(first, 1);
        };
        a_share_exceeded: "its share", |it| it.max_sessions = 1;
        a_session_out_of_the_heap: "in the heap", |it| {
            it.clients.values_mut().for_each(|client| client.by_use.clear());
        };
        a_heap_ahead: "never ahead", |it| {
            it.clients.values_mut().for_each(|client| {
                client.by_use = client.by_use.drain().map(|Reverse((_, at))| Reverse((99, at))).collect();
            });
        };
        a_use_in_the_future: "in the future", |it| it.entry_mut(0).used = 1 << 40;
        a_result_misplaced: "its number says", |it| it.entry_mut(0).first.number = 7;
    }
}
