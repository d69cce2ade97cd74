//! The watch over the leader (TR listing 15): what clients brought to a follower, or again to a
//! leader, is stored and [forwarded](super::forwards), and the leader is suspected if it is not executed in time.

use bytes::Bytes;
use hybster_tss::RequestVerifier;

use super::patience::SLOW_WIRE;
use super::{
    FORWARDS_BYTES, Forwarding, Intake, Key, LastAsked, MAX_STORED, MAX_STORED_BYTES, Stored,
};
use crate::ids::{ClientId, OrderNumber, RequestNumber, SessionId};
use crate::input::Progress;
use crate::mutants::{self, Mutant};
use crate::notice::{Notice, Suspicion};
use crate::output::{Cause, Output, Reject, Reply, ToControl, ToExecution};
use crate::shared::requests::is_proved;
use crate::time::Time;
use crate::wire::{ReplyStatus, RequestRef};

/// What comes of looking after a stored request.
pub(super) enum Step {
    /// It waits on.
    Waits,
    /// Half of the time has passed: the leader is to be reminded of it by its record.
    Reminds(Bytes),
    /// The time has passed: the pillars are asked what they have committed, and then the execution stage.
    AsksLast,
}

/// How long a forwarded request may wait to leave before the watch over the leader begins all the same, in
/// microseconds: a leader that has stopped takes nothing any more, and its link may be up for long.
fn unsent_us(delay_us: u64, bytes: usize) -> u64 {
    let bytes = (bytes + FORWARDS_BYTES) as u64;
    4 * delay_us + 2 * bytes * 1_000_000 / SLOW_WIRE
}

impl<V: RequestVerifier> Intake<V> {
    /// TR listing 15, receive(REQUEST): store and watch. It is forwarded once the execution stage said that
    /// it has not been executed.
    pub(super) fn store(
        &mut self,
        request: &RequestRef<'_>,
        is_own: bool,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let key = (request.session, request.number);
        let ask = ToExecution::Resend {
            session: key.0,
            number: key.1,
            tag: request.tag(),
            is_counted: is_own,
        };
        if let Some(stored) = self.stored.get_mut(&key) {
            if stored.unanswered == 0 {
                (stored.unanswered, stored.asked) = (1, now);
                if is_own {
                    self.lanes.owe(key.0.client);
                    self.lanes.asked(key.0.client);
                }
                out.execution(ask);
            }
            return Ok(());
        }
        if !is_proved(&self.verifier, request) {
            return Err(Reject::BadRequest);
        }
        let length = request.record.len();
        // TR listing 15, storeRequest: a session's later requests displace its earlier ones. The numbers
        // of its outstanding ones span less than W, so an earlier one than W others has ended.
        let of_session = (key.0, RequestNumber(0))..=(key.0, RequestNumber(u64::MAX));
        let mut of_session = self.stored.range(of_session).map(|(key, _)| *key);
        if let Some(oldest) = of_session.next()
            && of_session.count() + 1 >= self.config.session_window as usize
        {
            if key < oldest {
                return Err(Reject::Irrelevant);
            }
            self.displace(oldest, out);
        }
        while self.stored.len() >= MAX_STORED || self.stored_bytes + length > MAX_STORED_BYTES {
            self.make_room(request.session.client, out)?;
        }
        let mut record = Vec::with_capacity(length);
        record.extend_from_slice(request.record);
        let record = Bytes::from(record);
        let due = now.after_us(self.timeout.delay_us() / 2);
        self.stored_bytes += length;
        *self.shares.entry(key.0.client).or_insert(0) += 1;
        // What a peer sends leaves the client its share: a leader that withholds a request must not keep
        // it from being stored.
        if is_own {
            self.lanes.owe(key.0.client);
            self.lanes.stored(key.0.client);
            self.lanes.asked(key.0.client);
        }
        let stored = Stored {
            record,
            tag: request.tag(),
            wait: self.patience.begin(now),
            due,
            is_proposed: false,
            reminded: false,
            is_own,
            forwarding: Forwarding::Unneeded,
            forwarded: now,
            last_asked: None,
            unanswered: 1,
            asked: now,
        };
        self.stored.insert(key, stored);
        self.watch.insert((due, key.0, key.1));
        out.execution(ask);
        Ok(())
    }

    /// The client with the largest share gives up a request, so that a faulty one displaces its
    /// own.
    fn make_room(&mut self, asking: ClientId, out: &mut Output) -> Result<(), Reject> {
        let largest = self.shares.iter().max_by_key(|(id, share)| (**share, id.0));
        let client = largest.map(|(id, _)| *id).filter(|id| *id != asking);
        let client = client.ok_or(Reject::Overload)?;
        let first = (SessionId { client, session: 0 }, RequestNumber(0));
        let key = self.stored.range(first..).next().map(|(key, _)| *key);
        self.displace(key.ok_or(Reject::Overload)?, out);
        Ok(())
    }

    pub(super) fn displace(&mut self, key: (SessionId, RequestNumber), out: &mut Output) {
        if self.forget(key).is_some() {
            out.execution(ToExecution::Unwatch { session: key.0, number: key.1 });
        }
    }

    fn forget(&mut self, key: (SessionId, RequestNumber)) -> Option<Stored> {
        let stored = self.stored.remove(&key)?;
        self.stored_bytes -= stored.record.len();
        if stored.is_own {
            self.lanes.forgotten(key.0.client);
        }
        self.lanes.not_ready(key);
        self.forwards.forget(key, stored.record.len(), stored.forwarding);
        if let Some(share) = self.shares.get_mut(&key.0.client) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(&key.0.client);
            }
        }
        self.watch.remove(&(stored.due, key.0, key.1));
        Some(stored)
    }

    /// TR listing 15, requestExecuted.
    pub(super) fn executed(&mut self, session: SessionId, number: RequestNumber, now: Time) {
        let Some(stored) = self.forget((session, number)) else { return };
        let took_us = now.since_us(stored.wait.since);
        if took_us < self.timeout.delay_us() && !stored.reminded {
            self.timeout.succeeded(took_us, now);
        }
    }

    /// Whether a stored request has come from its client, and is not a peer's to watch over.
    pub(super) fn is_of_client(&self, key: Key) -> bool {
        self.stored.get(&key).is_some_and(|stored| stored.is_own && !stored.is_proposed)
    }

    /// A stored request was not executed, and is not going to be now: its client is told why. A leader is not
    /// suspected for it.
    pub(super) fn refuse_stored(&mut self, key: Key, status: ReplyStatus, out: &mut Output) {
        let Some(stored) = self.forget(key) else { return };
        let (session, number) = key;
        out.execution(ToExecution::Unwatch { session, number });
        out.replies.push(&Reply {
            session,
            number,
            tag: stored.tag,
            view: self.view,
            cause: Cause::AskedAgain,
            status,
            result: &[],
        });
    }

    /// A stored request is due: it has waited for a while since it was looked after last.
    pub(super) fn look_after(&mut self, key: Key, now: Time, out: &mut Output) -> Step {
        let delay_us = self.timeout.delay_us();
        let must_be_told = self.must_be_told();
        let waits_for_itself = self.leads();
        let Some(stored) = self.stored.get_mut(&key) else { return Step::Waits };
        stored.due = now.after_us(delay_us / 2);
        self.watch.insert((stored.due, key.0, key.1));
        if must_be_told && stored.forwarding != Forwarding::Sent {
            // A correct leader is not to be suspected for what it was never told. But its link carries something.
            if stored.forwarding == Forwarding::Unsent
                && now.since_us(stored.forwarded) >= unsent_us(delay_us, stored.record.len())
            {
                stored.forwarding = Forwarding::Sent;
                self.patience.begin_again(&mut stored.wait, now);
            }
            if stored.forwarding == Forwarding::Unneeded && stored.unanswered == 0 {
                self.ask(key, now, out);
            }
            return Step::Waits;
        }
        if let Some(asked) = &stored.last_asked {
            // The pillars have not answered, or the execution stage has not: it is busy.
            if asked.goal.is_some() && asked.answers == 0 {
                self.ask(key, now, out);
            }
            return Step::Waits;
        }
        let mut waited_us = self.patience.waited_us(&stored.wait, now);
        let others_us = self.patience.others_us(&stored.wait);
        let enough_us = stored.wait.enough_us(delay_us, stored.record.len(), &self.path);
        if stored.reminded {
            if waits_for_itself {
                // A leader that proposes, or waits for its wires, leaves nothing out. If it is slow, so would
                // be others. If it has lost its followers, its window fills, and it proposes no more; and
                // for what it has proposed there is the wait for commitments.
                let since_us = now.since_us(self.proposed_at);
                waited_us = if self.path.is_full { 0 } else { waited_us.min(since_us) };
            }
            if waited_us.saturating_sub(others_us) < enough_us {
                return Step::Waits;
            }
            let (round, goal) = (self.patience.next_round(), None);
            stored.last_asked = Some(LastAsked { waited_us, at: now, round, goal, answers: 0 });
            return Step::AsksLast;
        }
        let is_early = waited_us.saturating_sub(others_us) < enough_us / 2;
        stored.reminded = !is_early;
        let record = stored.record.clone();
        if stored.unanswered == 0 {
            // It may have been executed unnoticed.
            self.ask(key, now, out);
        }
        if is_early { Step::Waits } else { Step::Reminds(record) }
    }

    /// The pillars have said what they had committed: the last questions are asked.
    pub(super) fn ask_last(&mut self, now: Time, out: &mut Output) {
        let mut keys = Vec::new();
        for (key, stored) in &mut self.stored {
            if let Some(asked) = &mut stored.last_asked
                && asked.goal.is_none()
            {
                asked.goal = self.patience.committed_before(asked.round);
                keys.extend(asked.goal.map(|_| *key));
            }
        }
        for key in keys {
            self.ask(key, now, out);
        }
    }

    /// Asks the execution stage whether a stored request was executed.
    fn ask(&mut self, key: Key, now: Time, out: &mut Output) {
        let Some(stored) = self.stored.get_mut(&key) else { return };
        let answers = stored.unanswered + 1;
        if let Some(asked) = &mut stored.last_asked {
            asked.answers = answers;
            if mutants::active(Mutant::SuspectsUnasked) {
                (asked.answers, asked.goal) = (1, Some(OrderNumber(0)));
                return self.not_executed(key, (OrderNumber(0), Progress::default()), now, out);
            }
        }
        if stored.unanswered == 0 {
            stored.asked = now;
        }
        stored.unanswered = answers;
        let ((session, number), tag) = (key, stored.tag);
        out.execution(ToExecution::Resend { session, number, tag, is_counted: false });
    }

    /// A stored request was not executed when the execution stage was asked, which had `executed` so much. If
    /// that was the last time: TR listing 15, suspectsLeader.
    pub(super) fn not_executed(
        &mut self,
        key: Key,
        (executed, progress): (OrderNumber, Progress),
        now: Time,
        out: &mut Output,
    ) {
        let Some(stored) = self.stored.get_mut(&key) else {
            return;
        };
        stored.unanswered = stored.unanswered.saturating_sub(1);
        let answered_us = now.since_us(std::mem::replace(&mut stored.asked, now));
        stored.wait.answered_after(answered_us);
        self.patience.others_ran(&mut stored.wait, progress, &self.path, now);
        let Some(asked) = &mut stored.last_asked else {
            // Not before: what was executed long ago is nothing to bother the leader with.
            return self.forward_in_turn(key, now);
        };
        if asked.answers == 0 {
            return;
        }
        asked.answers -= 1;
        if asked.answers > 0 {
            return;
        }
        let overtakes = mutants::active(Mutant::AnswersOvertake);
        if !overtakes && asked.goal.is_none_or(|goal| executed < goal) {
            // The question went past batches that were committed: it is asked again.
            return;
        }
        let took_us = now.since_us(asked.at);
        stored.wait.answered_after(took_us);
        let waited_us = asked.waited_us.saturating_sub(self.patience.others_us(&stored.wait));
        let bytes = stored.record.len();
        let is_early =
            waited_us < stored.wait.enough_us(self.timeout.delay_us(), bytes, &self.path);
        stored.last_asked = None;
        if is_early {
            // Execution is slower than was known, and the leader's is as well; or others had their turn.
            return;
        }
        let waited_us = now.since_us(stored.wait.since);
        stored.reminded = false;
        stored.wait.forget_slowness(took_us);
        self.patience.begin_again(&mut stored.wait, now);
        self.watch.remove(&(stored.due, key.0, key.1));
        let half_us = self.timeout.delay_us() / 2;
        stored.due = now.after_us(half_us);
        self.watch.insert((stored.due, key.0, key.1));
        self.forward_again(key);
        // Those that waited equally long make the wait longer once.
        let is_known = self.expired_at.is_some_and(|at| now.since_us(at) < half_us);
        if is_known {
            return;
        }
        self.expired_at = Some(now);
        self.timeout.expired(now);
        if self.stable {
            let (view, leader) = (self.view, self.config.leader(self.view));
            let (session, number) = key;
            let cause = Suspicion::Request { session, number, waited_us };
            out.notice(|| Notice::LeaderSuspected { view, leader, cause });
            out.control(ToControl::Suspect { view });
        }
    }
}
