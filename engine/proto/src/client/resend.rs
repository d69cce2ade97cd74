//! Retransmission (TR listing 14, retransmit), and ordering of queries without a unanimous answer.

use super::output::Lane;
use super::table::{LEVELS, OVERLOAD, OVERLOAD_ROUNDS, QUERY, QUEUES};
use super::timing::RESEND_BURST_BYTES;
use super::{ClientCore, ClientOutput, Outcome};
use crate::ids::ReplicaId;
use crate::mutants::{self, Mutant};
use crate::time::{Time, earliest};
use crate::wire::ReplyStatus;

/// Transmissions after which f+1 refusals for full buffers end a request.
const OVERLOAD_ATTEMPTS: u8 = 8;

impl ClientCore {
    /// Sends requests again that are due, orders queries that have waited too long, and gives up
    /// requests that took too long. It costs nothing per outstanding request.
    pub fn tick(&mut self, now: Time, out: &mut ClientOutput) {
        self.tick_over(now, |_| 0, out);
    }

    /// As [`Self::tick`], by a driver that can tell how many bytes it was given for a replica since its
    /// link came up and have not arrived there. It is asked only if a request may be due.
    pub fn tick_over(
        &mut self,
        now: Time,
        outstanding: impl Fn(ReplicaId) -> usize,
        out: &mut ClientOutput,
    ) {
        let mut bytes = 0;
        for queue in 0..QUEUES {
            while let Some(index) = self.table.head(queue) {
                if now < self.due(index) {
                    break;
                }
                if self.is_given_up(index, now) {
                    let outcome = self.given_up(index);
                    self.finish(index, outcome, &[], out);
                    continue;
                }
                if queue < LEVELS && self.is_held(index, now, &outstanding) {
                    break;
                }
                if bytes >= RESEND_BURST_BYTES || !self.timing.may_resend(now) {
                    self.timing.resent(bytes, now);
                    return;
                }
                bytes += self.expire(index, now, out);
            }
        }
        self.timing.resent(bytes, now);
    }

    /// When [`Self::tick`] must be called next, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let heads = (0..QUEUES).filter_map(|queue| self.table.head(queue));
        let next = heads.map(|head| self.due(head)).fold(None, |a, b| earliest(a, Some(b)));
        next.map(|time| time.max(self.timing.resend_after()))
    }

    /// When a request is sent again.
    #[inline]
    fn due(&self, index: u32) -> Time {
        let slot = self.table.slot(index);
        if self.table.is_flooded(index) {
            return slot.sent_at;
        }
        slot.sent_at.after_us(match slot.queue {
            QUERY => self.timing.query_us(),
            queue if queue >= OVERLOAD => self.timing.overload_us(u32::from(queue - OVERLOAD)),
            level => {
                let due = self.timing.due(level, slot.sent_at);
                let given_up = self.give_up_us.map(|limit_us| slot.submitted_at.after_us(limit_us));
                return given_up.map_or(due, |at| at.min(due));
            }
        })
    }

    /// Whether a request that is due has not left this host, or sending it again would only make longer
    /// what waits here.
    fn is_held(
        &mut self,
        index: u32,
        now: Time,
        outstanding: &impl Fn(ReplicaId) -> usize,
    ) -> bool {
        let slot = self.table.slot(index);
        let (level, sent_at, sent_end) = (slot.queue, slot.sent_at, slot.sent_end);
        if mutants::active(Mutant::HeldIgnored) {
            return false;
        }
        if self.table.is_flooded(index) || self.up & self.leader_bit() == 0 {
            return false;
        }
        let handed = self.handed[self.leader];
        let left = handed.saturating_sub(outstanding(ReplicaId(self.leader as u16)) as u64);
        let is_clear = |replica: &ReplicaId| outstanding(*replica) <= RESEND_BURST_BYTES;
        let clear = || self.config.all_replicas().filter(is_clear).count();
        if sent_end <= left && clear() >= self.config.acknowledging() {
            self.timing.has_left(level, now);
            return now < self.due(index);
        }
        self.timing.hold(level, sent_at, left, now)
    }

    /// How a request ends that is given up.
    fn given_up(&mut self, index: u32) -> Outcome {
        let (slot, rare) = self.table.parts_mut(index);
        let is_result = |votes: u64, status| votes != 0 && status == ReplyStatus::Done;
        let differing = rare.others.iter().filter(|other| is_result(other.votes, other.status));
        // A query that was not answered is ordered, and begins again without votes.
        let results = usize::from(is_result(slot.votes, slot.status)) + differing.count();
        if slot.queue != QUERY && results > 1 { Outcome::RepliesDiffer } else { Outcome::TimedOut }
    }

    fn is_given_up(&self, index: u32, now: Time) -> bool {
        let age = now.since_us(self.table.slot(index).submitted_at);
        self.give_up_us.is_some_and(|limit| age >= limit)
    }

    /// Handles a request that is due; returns the bytes sent. It leaves the head of its queue.
    fn expire(&mut self, index: u32, now: Time, out: &mut ClientOutput) -> usize {
        let flooded = self.table.is_flooded(index);
        let (slot, rare) = self.table.parts_mut(index);
        let (queue, sent_at) = (slot.queue, slot.sent_at);
        if queue == QUERY {
            if !flooded {
                self.timing.query_expired(now);
            }
            return self.order_query(index, now, out);
        }
        let overloaded = std::mem::take(&mut rare.overloaded).count_ones() as usize;
        let full_disks = std::mem::take(&mut rare.full_disks).count_ones() as usize;
        if overloaded >= self.config.acknowledging() && slot.attempts >= OVERLOAD_ATTEMPTS {
            let are_disks = full_disks >= self.config.acknowledging();
            let outcome = if are_disks { Outcome::DiskFull } else { Outcome::Overloaded };
            self.finish(index, outcome, &[], out);
            return 0;
        }
        slot.attempts = slot.attempts.saturating_add(1);
        let (targets, next_queue) = match queue {
            // Another leader, or another link to it: the request starts from the beginning.
            0 if flooded => (self.first_target(), 0),
            // The leader asked for time, which it gets only a few times.
            OVERLOAD..QUERY if queue + 1 < OVERLOAD + OVERLOAD_ROUNDS => (self.first_target(), 0),
            OVERLOAD..QUERY => (self.up, 1),
            level if flooded => (self.up, level),
            level => {
                self.timing.expired(sent_at, now);
                (self.up, (level + 1).min(LEVELS - 1))
            }
        };
        self.table.unlink(index);
        self.table.push(index, next_queue, now);
        if targets != 0 {
            self.stats.retransmissions += 1;
        }
        // The leader does not know a request that it refused, so it must not look like a
        // repetition.
        let refused = next_queue == 0 && !flooded;
        let lane = if refused { Lane::Request } else { Lane::Retransmission };
        self.send(index, lane, targets, out)
    }

    /// Orders a query on which not all replicas agree, under the number that is reserved for it.
    /// Returns the bytes sent.
    pub(super) fn order_query(&mut self, index: u32, now: Time, out: &mut ClientOutput) -> usize {
        self.stats.fallbacks += 1;
        self.table.unlink(index);
        // Answers to the query are not replies to the request.
        self.table.forget_replies(index);
        self.table.push(index, 0, now);
        self.send(index, Lane::Request, self.first_target(), out)
    }
}
