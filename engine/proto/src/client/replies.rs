//! Replies, certificates and the view (TR listing 14, receive and invocationCompleted).

use super::table::{Candidate, LEVELS, OVERLOAD, OVERLOAD_ROUNDS, QUERY};
use super::{ClientCore, ClientOutput, Outcome};
use crate::ids::{ReplicaId, View};
use crate::mutants::{self, Mutant};
use crate::time::Time;
use crate::wire::reply::Replies;
use crate::wire::{ReplyEntry, ReplyStatus, put_some};

/// Where a reply belongs.
enum Place {
    /// To an outstanding request.
    Slot(u32),
    /// To a request that has ended.
    Ended,
    /// To none that ever was.
    Nowhere,
    /// To another client's, which uses this one's session and number.
    Foreign,
}

impl ClientCore {
    /// Takes a REPLIES message that came over the link to `from` (TR listing 14, receive). The
    /// link has authenticated it.
    pub fn handle(&mut self, from: ReplicaId, message: &[u8], now: Time, out: &mut ClientOutput) {
        let replica = usize::from(from.0);
        if replica >= self.views.len() {
            debug_assert!(false, "the driver knows its replicas");
            return;
        }
        let replies = match Replies::parse(message) {
            Ok(replies) if replies.replica == from => replies,
            _ => {
                self.stats.malformed[replica] += 1;
                return;
            }
        };
        if replies.view > self.views[replica] {
            self.report_view(replica, replies.view);
        }
        for entry in replies {
            match entry {
                Ok(entry) => self.handle_reply(replica, &entry, now, out),
                Err(_) => self.stats.malformed[replica] += 1,
            }
        }
    }

    /// v_c becomes the (f+1)-th largest of the reported views: a correct replica vouches for it.
    fn report_view(&mut self, replica: usize, view: View) {
        self.views[replica] = view;
        let needed = self.config.acknowledging();
        let vouched = |v: View| self.views.iter().filter(|w| **w >= v).count() >= needed;
        let highest = self.views.iter().copied().filter(|v| vouched(*v)).max();
        let Some(view) = highest.filter(|v| *v > self.view) else {
            return;
        };
        self.view = view;
        self.stats.view_changes += 1;
        let leader = usize::from(self.config.leader(view).0);
        if leader != self.leader {
            self.leader = leader;
            // The new leader has not seen what was sent to the old one only.
            self.table.flood(0..QUERY);
            self.timing.release();
        }
    }

    #[inline]
    fn handle_reply(
        &mut self,
        replica: usize,
        entry: &ReplyEntry<'_>,
        now: Time,
        out: &mut ClientOutput,
    ) {
        let slot = match self.place(entry) {
            Place::Slot(slot) => slot,
            Place::Ended => {
                self.stats.late += 1;
                return;
            }
            Place::Foreign => {
                self.stats.foreign += 1;
                return;
            }
            Place::Nowhere => {
                self.stats.unknown[replica] += 1;
                return;
            }
        };
        if entry.result.len() > self.config.max_reply_bytes as usize {
            self.stats.malformed[replica] += 1;
        } else if self.table.slot(slot).queue == QUERY {
            self.handle_answer(slot, replica, entry, now, out);
        } else {
            match entry.status {
                ReplyStatus::Overloaded | ReplyStatus::DiskFull => {
                    self.handle_overload(slot, replica, entry.status, now);
                }
                // Only queries are answered so.
                ReplyStatus::OrderIt => self.stats.mismatching[replica] += 1,
                _ => self.handle_result(slot, replica, entry, now, out),
            }
        }
    }

    /// Finds the request that a reply is about.
    #[inline]
    fn place(&self, entry: &ReplyEntry<'_>) -> Place {
        let ordered = entry.number.0 >= self.first;
        let number = if ordered {
            entry.number.0
        } else {
            // A query's number stands for the ordinary one that is reserved for it.
            entry.number.0.wrapping_sub(1).wrapping_add(self.first)
        };
        let Some(session) = self.sessions.get(entry.index as usize) else {
            return Place::Nowhere;
        };
        if number < self.first || number >= session.next {
            return Place::Nowhere;
        }
        let cell = self.ring[self.cell(entry.index, number)];
        if number < session.oldest || cell == 0 {
            return Place::Ended;
        }
        let slot = self.table.slot(cell - 1);
        debug_assert_eq!((slot.number.0, slot.session), (number, entry.index));
        match (slot.queue == QUERY, ordered) {
            (true, true) => Place::Nowhere,
            (false, false) => Place::Ended,
            _ if slot.tag != entry.tag && !mutants::active(Mutant::ReplyTagIgnored) => {
                Place::Foreign
            }
            _ => Place::Slot(cell - 1),
        }
    }

    /// A reply to an ordered request: accepted once f+1 replicas gave it
    /// (TR listing 14, isCorrectReplyCertificate).
    #[inline]
    fn handle_result(
        &mut self,
        index: u32,
        replica: usize,
        entry: &ReplyEntry<'_>,
        now: Time,
        out: &mut ClientOutput,
    ) {
        let needed = self.needed.replies;
        let needed = if mutants::active(Mutant::OneReply) { 1 } else { needed };
        let slot = self.table.slot_mut(index);
        let bit = 1u64 << replica;
        if slot.votes == 0 {
            // With f = 0 the first reply decides and need not be kept.
            if needed > 1 {
                slot.status = entry.status;
                put_some(&mut slot.result, entry.result);
                slot.votes = bit;
                return;
            }
        } else if slot.unusual || slot.status != entry.status || differ(&slot.result, entry.result)
        {
            if self.dispute(index, replica, entry) < needed {
                return;
            }
            self.blame(index, entry);
        } else {
            if slot.votes & bit != 0 {
                self.stats.duplicates += 1;
                return;
            }
            slot.votes |= bit;
            if slot.votes.count_ones() < needed {
                return;
            }
        }
        self.accept(index, entry, now, out);
    }

    /// Counts a reply where not all are equal; returns how many replicas gave this one.
    #[cold]
    fn dispute(&mut self, index: u32, replica: usize, entry: &ReplyEntry<'_>) -> u32 {
        let (slot, rare) = self.table.parts_mut(index);
        let bit = 1u64 << replica;
        let same =
            |status: ReplyStatus, result: &[u8]| status == entry.status && result == entry.result;
        let first_differs = !same(slot.status, &slot.result);
        let contradicts = (slot.votes & bit != 0 && slot.status == entry.status && first_differs)
            || rare.others.iter().any(|other| {
                other.votes & bit != 0
                    && other.status == entry.status
                    && !same(other.status, &other.result)
            });
        if contradicts {
            // TR listing 14: r is faulty.
            self.stats.mismatching[replica] += 1;
            return 0;
        }
        let votes = if !first_differs {
            &mut slot.votes
        } else if let Some(at) = rare.others.iter().position(|o| same(o.status, &o.result)) {
            &mut rare.others[at].votes
        } else {
            slot.unusual = true;
            let result = entry.result.to_vec();
            rare.others.push(Candidate { status: entry.status, result, votes: 0 });
            &mut rare.others.last_mut().expect("just pushed").votes
        };
        if *votes & bit != 0 {
            self.stats.duplicates += 1;
            return 0;
        }
        *votes |= bit;
        votes.count_ones()
    }

    /// Counts the replicas whose result is not the accepted one.
    #[cold]
    fn blame(&mut self, index: u32, accepted: &ReplyEntry<'_>) {
        if accepted.status != ReplyStatus::Done {
            return;
        }
        let (slot, rare) = self.table.parts_mut(index);
        let first = (slot.status, slot.result.as_slice(), slot.votes);
        let others = rare.others.iter().map(|o| (o.status, o.result.as_slice(), o.votes));
        for (status, result, votes) in std::iter::once(first).chain(others) {
            if status == ReplyStatus::Done && result != accepted.result {
                let liars = self.stats.mismatching.iter_mut().enumerate();
                liars.for_each(|(r, count)| *count += votes >> r & 1);
            }
        }
    }

    /// The request ends as f+1 replicas say (TR listing 14, invocationCompleted).
    #[inline(always)]
    fn accept(&mut self, index: u32, entry: &ReplyEntry<'_>, now: Time, out: &mut ClientOutput) {
        let outcome = match entry.status {
            ReplyStatus::Done => Outcome::Done,
            ReplyStatus::Evicted => Outcome::Evicted,
            ReplyStatus::Stale => Outcome::Stale,
            ReplyStatus::TooLong => Outcome::TooLong,
            ReplyStatus::NumberTaken => Outcome::NumberTaken,
            ReplyStatus::ResultGone => Outcome::ResultGone,
            ReplyStatus::StatesDiffer => Outcome::StatesDiffer,
            ReplyStatus::OrderIt | ReplyStatus::Overloaded | ReplyStatus::DiskFull => {
                unreachable!("never a vote")
            }
        };
        let slot = self.table.slot(index);
        let is_first = slot.attempts == 0;
        let since = if is_first { slot.sent_at } else { slot.submitted_at };
        self.timing.measured(now.since_us(since));
        if self.table.head(slot.queue) == Some(index) {
            self.timing.turned(slot.queue, now);
        }
        self.finish(index, outcome, entry.result, out);
    }

    /// A request ends.
    #[inline]
    pub(super) fn finish(
        &mut self,
        index: u32,
        outcome: Outcome,
        result: &[u8],
        out: &mut ClientOutput,
    ) {
        let slot = self.table.slot(index);
        let (session, number, submitted_at) = (slot.session, slot.number, slot.submitted_at);
        let result = if outcome == Outcome::Done { result } else { &[] };
        out.completions.push(session, number, outcome, result, submitted_at);
        match outcome {
            Outcome::Done => self.stats.accepted += 1,
            _ => self.stats.failed += 1,
        }
        self.table.remove(index);
        let cell = self.cell(session, number.0);
        self.ring[cell] = 0;
        let mut state = self.sessions[session as usize];
        state.evicted |= outcome == Outcome::Evicted;
        while state.oldest < state.next && self.ring[self.cell(session, state.oldest)] == 0 {
            state.oldest += 1;
        }
        self.sessions[session as usize] = state;
    }

    /// An answer to a query: accepted if as many replicas give it as the protocol asks for, all n
    /// with Hybster (DEVIATIONS 18).
    fn handle_answer(
        &mut self,
        index: u32,
        replica: usize,
        entry: &ReplyEntry<'_>,
        now: Time,
        out: &mut ClientOutput,
    ) {
        let slot = self.table.slot_mut(index);
        let bit = 1u64 << replica;
        let is_plain = entry.status == ReplyStatus::Done && !slot.unusual;
        if is_plain && slot.votes == 0 {
            slot.status = entry.status;
            slot.result.extend_from_slice(entry.result);
        } else if !is_plain || differ(&slot.result, entry.result) {
            self.dispute_answer(index, replica, entry, now, out);
            return;
        } else if slot.votes & bit != 0 {
            self.stats.duplicates += 1;
            return;
        }
        slot.votes |= bit;
        if slot.votes.count_ones() >= self.needed.answers {
            self.answered(index, entry, now, out);
        }
    }

    #[inline(never)]
    fn answered(&mut self, index: u32, entry: &ReplyEntry<'_>, now: Time, out: &mut ClientOutput) {
        self.stats.unordered += 1;
        self.timing.query_answered();
        self.accept(index, entry, now, out);
    }

    /// An answer where not all are equal. The query is ordered as soon as no answer can be given by
    /// enough replicas any more.
    #[cold]
    fn dispute_answer(
        &mut self,
        index: u32,
        replica: usize,
        entry: &ReplyEntry<'_>,
        now: Time,
        out: &mut ClientOutput,
    ) {
        let (slot, rare) = self.table.parts_mut(index);
        slot.unusual = true;
        let bit = 1u64 << replica;
        let is_result = entry.status == ReplyStatus::Done;
        let first = is_result && slot.votes != 0 && slot.result == entry.result;
        let other = rare.others.iter().position(|other| other.result == entry.result);
        let given = rare.others.iter().fold(slot.votes, |given, other| given | other.votes);
        let mut votes = 0;
        if !is_result {
            rare.spoiled |= bit;
        } else if given & bit != 0 {
            let before =
                if first { slot.votes } else { other.map_or(0, |at| rare.others[at].votes) };
            if before & bit != 0 {
                self.stats.duplicates += 1;
                return;
            }
            // It contradicts itself: nothing that it says counts.
            rare.spoiled |= bit;
        } else if first || slot.votes == 0 {
            if !first {
                slot.status = entry.status;
                slot.result.extend_from_slice(entry.result);
            }
            slot.votes |= bit;
            votes = slot.votes;
        } else {
            let at = other.unwrap_or_else(|| {
                let result = entry.result.to_vec();
                rare.others.push(Candidate { status: entry.status, result, votes: 0 });
                rare.others.len() - 1
            });
            rare.others[at].votes |= bit;
            votes = rare.others[at].votes;
        }
        if (votes & !rare.spoiled).count_ones() >= self.needed.answers {
            self.answered(index, entry, now, out);
            return;
        }
        let all_given = rare.others.iter().fold(slot.votes, |given, other| given | other.votes);
        let possible = |votes: u64| self.all & !(all_given & !votes) & !rare.spoiled;
        let candidates = rare.others.iter().map(|other| other.votes).chain([slot.votes]);
        let most = candidates.map(|votes| possible(votes).count_ones()).max().unwrap_or(0);
        if most < self.needed.answers {
            self.order_query(index, now, out);
        }
    }

    /// A replica's buffers or its disk are full: the leader is asked again a little later.
    fn handle_overload(&mut self, index: u32, replica: usize, status: ReplyStatus, now: Time) {
        self.stats.overloads += 1;
        let leader = replica == self.leader;
        let (slot, rare) = self.table.parts_mut(index);
        slot.unusual = true;
        rare.overloaded |= 1 << replica;
        rare.full_disks |= u64::from(status == ReplyStatus::DiskFull) << replica;
        let only_leader_asked = slot.queue == 0 || (OVERLOAD..QUERY).contains(&slot.queue);
        if !leader || !only_leader_asked || slot.queue >= OVERLOAD {
            return;
        }
        // Each refusal of a transmission moves it once; a liar gains nothing by repeating it.
        let round = slot.attempts.min(OVERLOAD_ROUNDS - 1);
        debug_assert!(slot.queue < LEVELS);
        self.table.unlink(index);
        self.table.push(index, OVERLOAD + round, now);
    }
}

/// Whether two results differ. That nothing equals nothing is known without looking at where it is,
/// which would take the CPU to memory that is in no cache.
#[inline]
fn differ(one: &[u8], other: &[u8]) -> bool {
    one.len() != other.len() || (!one.is_empty() && one != other)
}
