//! The execution stage (TR listing 17): merges the pillars into one total order, executes each
//! request once, answers clients and takes snapshots.

mod carried;
mod epoch;
mod invariants;
mod recovery;
mod sessions;
mod turns;

use bytes::Bytes;
use hybster_tss::RandomnessKey;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId, View};
use crate::membership::Change;
use crate::mutants::{self, Mutant};
use crate::notice::Notice;
use crate::output::{
    Agreed, Cause, ClientLink, Fatal, Input, LARGE_REPLY_BYTES, Output, Reject, Reply,
    ResultsDigest, TakenSnapshot, ToControl, ToExecution, ToIntake, ToPillar, ToState,
};
use crate::service::{Context, RestoreError, Service};
use crate::state::{TransferredState, most_snapshots};
use crate::time::Time;
use crate::trace::TraceEvent;
use crate::wire::request::requests_body;
use crate::wire::{CheckpointId, ReplyStatus, RequestRef, RequestTag, Requests};

pub use carried::{agreed_time, change_in, new_bookkeeping};
pub use recovery::Beginning;
use sessions::{Lookup, Place, SessionTable};
pub(crate) use sessions::{SNAPSHOT_COPIES, session_bytes};

/// Requests whose sessions are looked up together: the cache misses of one overlap with the others'.
const LOOK_AHEAD: usize = 16;

/// Bytes of results in the replies of one turn, one result apart. Those beyond it are deferred: they
/// are given from the session table when their links have room.
pub(crate) const TURN_RESULT_BYTES: usize = 4 << 20;

/// The most requests that the request intake watches; about others it learns by asking again.
pub(crate) const MAX_WATCHED: usize = 65_536;
/// What a watched request takes. A tree of such entries may be half empty.
pub(crate) const WATCHED_BYTES: u64 = 2 * size_of::<(SessionId, RequestNumber)>() as u64;

/// Counters of the execution stage, read by the driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecutionStatus {
    /// The order number executed last, o_exec.
    pub executed: OrderNumber,
    /// Requests that ran.
    pub requests: u64,
    /// Requests that were ordered again and did not run.
    pub duplicates: u64,
    /// Batches with requests.
    pub batches: u64,
    /// Order numbers covered by no-ops.
    pub noops: u64,
    /// Sessions in the table.
    pub sessions: u64,
}

/// The execution stage of a replica.
pub struct Execution<S: Service> {
    config: Arc<GroupConfig>,
    service: S,
    sessions: SessionTable,
    /// o_exec.
    executed: OrderNumber,
    queues: Vec<VecDeque<Committed>>,
    view: View,
    result: Vec<u8>,
    /// Of the batch executed last. Its time is the agreed one: part of the state.
    context: Context,
    /// Of the batch being executed, if protocol events are recorded.
    results: ResultsDigest,
    /// Requests that the request intake waits for. In order, so that runs can be reproduced.
    watched: BTreeSet<(SessionId, RequestNumber)>,
    /// Since when the others wait for a pillar.
    held_up_since: Option<Time>,
    /// Snapshots that the state stage has, or will have.
    snapshots: usize,
    /// Why nothing runs, if nothing does.
    halt: Halt,
    /// The change of members that is pending; at its boundary, and behind it until the next snapshot, it was that.
    change: Option<Change>,
    status: ExecutionStatus,
}

/// Why nothing is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Halt {
    /// Things are.
    No,
    /// This replica's state diverged: nothing runs until a transferred one is installed.
    Diverged,
    /// The epoch is over. What is committed beyond is no part of it.
    Ended,
}

struct Committed {
    first_slot: u64,
    last_slot: u64,
    batch: Agreed,
}

impl<S: Service> Execution<S> {
    /// An execution stage before the first order number. All replicas of a group have the same key.
    #[must_use]
    pub fn new(
        config: Arc<GroupConfig>,
        _id: ReplicaId,
        service: S,
        randomness: RandomnessKey,
    ) -> Self {
        Self {
            service,
            sessions: SessionTable::new(&config),
            executed: OrderNumber(0),
            queues: config.all_pillars().map(|_| VecDeque::new()).collect(),
            view: View(0),
            result: Vec::new(),
            context: Context::with_key(randomness),
            results: ResultsDigest::new(),
            watched: BTreeSet::new(),
            held_up_since: None,
            snapshots: 0,
            halt: Halt::No,
            change: None,
            status: ExecutionStatus::default(),
            config,
        }
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Counters.
    #[must_use]
    pub fn status(&self) -> ExecutionStatus {
        ExecutionStatus {
            executed: self.executed,
            sessions: self.sessions.len() as u64,
            ..self.status
        }
    }

    /// Committed slots that wait for others.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Requests that the request intake wants to be told of, for oracles on bounded memory.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.watched.len()
    }

    /// The agreed time after the last executed order number, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn agreed_ms(&self) -> u64 {
        self.context.time_ms
    }

    /// Handles an input.
    pub fn handle(&mut self, input: ToExecution, now: Time, out: &mut Output) {
        match input {
            ToExecution::Committed { pillar, first_slot, last_slot, batch } => {
                let queue = &mut self.queues[usize::from(pillar.0)];
                let rises = queue.back().is_none_or(|back| back.last_slot < first_slot);
                assert!(rises && first_slot <= last_slot, "a pillar hands over its slots in order");
                queue.push_back(Committed { first_slot, last_slot, batch });
                // Exceeded only during a state transfer: the stable checkpoint covers slots that
                // are so old.
                if queue.len() as u64 > 2 * self.config.window_slots() {
                    queue.pop_front();
                }
                self.run(out);
            }
            ToExecution::Query { link, message } => self.query(link, &message, out),
            ToExecution::Resend { session, number, tag, is_counted } => {
                self.resend(session, number, tag, is_counted, out);
            }
            ToExecution::Recall { session, number, tag } => {
                self.recall(session, number, tag, out);
            }
            ToExecution::View(view) => self.view = view,
            ToExecution::Halt => self.halt = Halt::Diverged,
            ToExecution::Unwatch { session, number } => {
                self.watched.remove(&(session, number));
            }
            ToExecution::Install { id, state } => self.install(id, &state, out),
            ToExecution::SnapshotsDropped { count } => {
                self.snapshots -= count;
                self.run(out);
            }
        }
        self.note_hold_up(now);
        self.check_invariants(out);
        if cfg!(debug_assertions) && self.config.is_checkpoint(self.executed) {
            self.check_all_invariants();
        }
    }

    /// To be called when [`Execution::deadline`] has passed: a pillar holds up the others.
    pub fn tick(&mut self, now: Time, out: &mut Output) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.held_up_since = Some(now);
            out.pillar(self.next_pillar(), ToPillar::AskPeers);
            out.control(ToControl::Stuck);
        }
        self.check_invariants(out);
    }

    /// When [`Execution::tick`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.held_up_since.map(|at| at.after_us(2 * self.config.resend_us))
    }

    fn next_pillar(&self) -> PillarId {
        self.config.pillar_of(OrderNumber(self.executed.0 + 1))
    }

    fn note_hold_up(&mut self, now: Time) {
        // Nobody can help the state stage.
        let held_up = !self.must_wait() && self.queues.iter().any(|queue| !queue.is_empty());
        if !held_up {
            self.held_up_since = None;
        } else if self.held_up_since.is_none() {
            self.held_up_since = Some(now);
        }
    }

    /// Whether execution waits for the state stage, which has as many snapshots as it may have: they are what
    /// a slow one has most of, and each may hold as much as the service writes in an interval. It drops some when it
    /// has handled what it was sent, since those beyond the stable checkpoint are fewer.
    fn must_wait(&self) -> bool {
        self.snapshots >= most_snapshots(&self.config)
    }

    /// TR listing 17, executeRequest, over the merged pillars.
    fn run(&mut self, out: &mut Output) {
        while self.halt == Halt::No && !self.must_wait() {
            let order = OrderNumber(self.executed.0 + 1);
            let slot = self.config.slot_of(order);
            let queue = &mut self.queues[usize::from(self.config.pillar_of(order).0)];
            let Some(front) = queue.front() else { break };
            if front.last_slot < slot {
                // Covered by a transferred state.
                queue.pop_front();
                continue;
            }
            if front.first_slot > slot {
                break;
            }
            assert!(slot <= front.last_slot, "o_exec rises by one");
            let batch = front.batch.clone();
            if front.last_slot == slot {
                queue.pop_front();
            }
            self.execute(order, &batch, out);
            self.held_up_since = None;
            // The TR advances o_exec only for new requests; it must advance for all (DEVIATIONS 5).
            self.executed = order;
            if self.config.is_checkpoint(order) {
                self.take_snapshot(false, out);
                self.end_epoch();
            }
        }
    }

    fn execute(&mut self, order: OrderNumber, batch: &Agreed, out: &mut Output) {
        let (mut requests, mut ran, mut ran_bytes) = (0, 0, 0);
        let time_ms = self.time_of(batch);
        let mut digest = batch.digest();
        if mutants::active(Mutant::RandomnessOfView) {
            digest.0[0] ^= self.view.0 as u8;
        }
        self.context.begin_batch(order, time_ms, digest);
        // Pillars checked the records, so parsing cannot fail here.
        let mut left = Requests::new(batch.records()).flatten();
        let mut places = [Place::UNKNOWN; LOOK_AHEAD];
        loop {
            let ahead =
                left.clone().zip(&mut places).map(|(r, at)| *at = self.sessions.find(r.session));
            let count = ahead.count();
            if count == 0 {
                break;
            }
            for (place, request) in places[..count].iter().zip(left.by_ref()) {
                requests += 1;
                if self.execute_request(&request, *place, out) {
                    ran += 1;
                    ran_bytes += request.record.len();
                }
            }
        }
        self.sessions.turns.batch(ran_bytes);
        self.status.batches += u64::from(requests > 0);
        self.status.noops += u64::from(requests == 0);
        self.status.requests += u64::from(ran);
        self.status.duplicates += u64::from(requests - ran);
        if out.tracing {
            if batch.time_ms > 0 {
                out.trace.push(TraceEvent::AgreedTime { order, unix_ms: time_ms });
            }
            let results = self.results.finish();
            out.trace.push(TraceEvent::Executed { order, requests, ran, results });
        }
    }

    /// The agreed time at a batch: its own, unless an earlier one was later. Leaders' clocks differ,
    /// and pillars propose side by side; a no-op has time 0 (DEVIATIONS 22).
    fn time_of(&self, batch: &Agreed) -> u64 {
        if mutants::active(Mutant::TimeGoesBack) {
            return batch.time_ms;
        }
        self.context.time_ms.max(batch.time_ms)
    }

    /// Exactly once: the session table decides (TR listing 17).
    fn execute_request(
        &mut self,
        request: &RequestRef<'_>,
        place: Place,
        out: &mut Output,
    ) -> bool {
        let (session, number, tag) = (request.session, request.number, request.tag());
        let mut reply = Reply {
            session,
            number,
            tag,
            view: self.view,
            cause: Cause::AskedAgain,
            status: ReplyStatus::Done,
            result: &[],
        };
        let ran = match self.sessions.lookup_or_open(place, session, number, tag) {
            Lookup::New(entry) => {
                (self.context.session, self.context.number) = (session, number);
                self.result.clear();
                self.service.execute(&self.context, request.operation, &mut self.result);
                let status = if self.result.len() <= self.config.max_reply_bytes as usize {
                    ReplyStatus::Done
                } else {
                    self.result.clear();
                    ReplyStatus::TooLong
                };
                let result = &self.result;
                let reply = Reply { cause: Cause::Executed, status, result, ..reply };
                answer(&reply, &mut self.results, out);
                self.sessions.record(entry, number, tag, status, result);
                true
            }
            Lookup::Executed(status, result) => {
                (reply.status, reply.result) = (status, result);
                answer(&reply, &mut self.results, out);
                false
            }
            Lookup::Refused(status) => {
                reply.status = status;
                answer(&reply, &mut self.results, out);
                false
            }
            Lookup::Administration => {
                let result = &self.reconfigure(request.operation, out)[..];
                self.sessions.administered(session, number, tag, result);
                let (view, cause) = (self.view, Cause::Executed);
                let status = ReplyStatus::Done;
                let reply = Reply { session, number, tag, view, cause, status, result };
                answer(&reply, &mut self.results, out);
                false
            }
        };
        if !self.watched.is_empty() && self.watched.remove(&(session, number)) {
            out.intake(ToIntake::Executed { session, number, is_counted: false });
        }
        ran
    }

    /// Gives a reply that was deferred.
    fn recall(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        tag: RequestTag,
        out: &mut Output,
    ) {
        let (status, result) = match self.sessions.lookup(session, number, tag) {
            Some(Lookup::Executed(status, result)) => (status, result),
            Some(Lookup::Refused(status)) => (status, &[][..]),
            // Another state was installed meanwhile: the client has to ask again.
            Some(Lookup::New(_) | Lookup::Administration) | None => {
                (ReplyStatus::Overloaded, &[][..])
            }
        };
        let (view, cause) = (self.view, Cause::Recalled);
        out.replies.push(&Reply { session, number, tag, view, cause, status, result });
    }

    /// Answers a retransmitted request from the session table, or says that it has not run and
    /// watches for it.
    fn resend(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        tag: RequestTag,
        is_counted: bool,
        out: &mut Output,
    ) {
        let answer = match self.sessions.lookup(session, number, tag) {
            Some(Lookup::Executed(status, result)) => Some((status, result)),
            Some(Lookup::Refused(status)) => Some((status, &[][..])),
            Some(Lookup::New(_) | Lookup::Administration) | None => None,
        };
        if let Some((status, result)) = answer {
            let (view, cause) = (self.view, Cause::AskedAgain);
            push(&Reply { session, number, tag, view, cause, status, result }, out);
            // It may have been watched before its session was evicted, or its number became stale.
            self.watched.remove(&(session, number));
            out.intake(ToIntake::Executed { session, number, is_counted });
        } else {
            let (executed, progress) = (self.executed, self.sessions.turns.progress());
            out.intake(ToIntake::NotExecuted { session, number, is_counted, executed, progress });
            // When it is full, the request intake learns of an execution by asking again.
            if self.watched.len() < MAX_WATCHED {
                self.watched.insert((session, number));
            }
        }
    }

    /// Read-only requests, answered from the present state; the client compares all n replies.
    fn query(&mut self, link: ClientLink, message: &Bytes, out: &mut Output) {
        let Ok(body) = requests_body(message) else {
            out.reject_client(link, message, Reject::Malformed);
            return;
        };
        for request in Requests::new(body) {
            let Ok(request) = request else {
                out.reject_client(link, message, Reject::Malformed);
                return;
            };
            let session = request.session;
            if session.client != link.client || session.incarnation() != link.incarnation {
                out.reject_client(link, message, Reject::WrongSender);
                return;
            }
            self.result.clear();
            // Nobody keeps the results of queries, so those without room cannot wait: they are ordered.
            let answered = out.replies.result_bytes() < TURN_RESULT_BYTES
                && self.service.query(request.operation, &mut self.result)
                && self.result.len() <= self.config.max_reply_bytes as usize;
            let status = if answered { ReplyStatus::Done } else { ReplyStatus::OrderIt };
            if !answered {
                self.result.clear();
            }
            out.replies.push(&Reply {
                session,
                number: request.number,
                tag: RequestTag::of_query(request.covered),
                view: self.view,
                cause: Cause::Queried,
                status,
                result: &self.result,
            });
        }
    }

    /// TR listing 17, createSnapshot: handles only, digested by the state stage.
    fn take_snapshot(&mut self, installed: bool, out: &mut Output) {
        self.snapshots += 1;
        let executed = self.executed;
        self.change.take_if(|change| change.ending.boundary < executed);
        out.inputs.push(Input::State(ToState::Taken(TakenSnapshot {
            order: self.executed,
            bookkeeping: Arc::new(self.sessions.snapshot(
                self.executed,
                self.context.time_ms,
                self.change.as_ref(),
            )),
            service: self.service.snapshot(),
            installed,
        })));
    }

    /// Takes the state of a checkpoint in place of the present one.
    fn restore(
        &mut self,
        order: OrderNumber,
        state: &TransferredState,
    ) -> Result<(), RestoreError> {
        assert!(self.config.is_checkpoint(order), "a state is one of a checkpoint");
        let pages = &state.service;
        match pages.base() {
            Some(base) => self.service.restore_changed(pages, base, &pages.changed())?,
            None => self.service.restore(pages)?,
        }
        let (sessions, time_ms, change) =
            SessionTable::restore(&self.config, &state.bookkeeping, order)?;
        self.sessions = sessions;
        self.context.time_ms = time_ms;
        self.executed = order;
        self.change = change;
        Ok(())
    }

    /// TR listing 17, installSnapshot.
    fn install(&mut self, id: CheckpointId, state: &TransferredState, out: &mut Output) {
        // A diverged state is replaced whatever its order number. Otherwise there is nothing in it that
        // this stage has not executed, or installed before.
        if id.order <= self.executed && self.halt != Halt::Diverged {
            return;
        }
        if let Err(error) = self.restore(id.order, state) {
            out.fail(Fatal::Restore(error.to_string()));
            return;
        }
        self.halt = Halt::No;
        self.end_epoch();
        self.tell_end(out);
        self.held_up_since = None;
        out.trace(|| TraceEvent::StateInstalled(id));
        out.notice(|| Notice::StateInstalled { order: id.order });
        // TR listing 18, installCheckpointingState: vouch for the installed state as well.
        self.take_snapshot(true, out);
        out.control(ToControl::Installed(id));
        let sessions = &self.sessions;
        self.watched.retain(|(session, number)| {
            // The number was used, by this request or another, so the watched one will not run.
            let executed = matches!(
                sessions.lookup(*session, *number, RequestTag::NONE),
                Some(Lookup::Executed(..) | Lookup::Refused(_))
            );
            if executed {
                let (session, number) = (*session, *number);
                out.intake(ToIntake::Executed { session, number, is_counted: false });
            }
            !executed
        });
        self.run(out);
    }
}

/// What a request of the batch being executed is answered.
#[inline]
fn answer(reply: &Reply<'_>, results: &mut ResultsDigest, out: &mut Output) {
    if out.tracing {
        results.add(reply);
    }
    push(reply, out);
}

/// Hands a reply over whose result the session table keeps. It is deferred if it would make the replies of
/// this turn too long; so is a large one to a client that asked again, which mostly has it on its way.
#[inline]
fn push(reply: &Reply<'_>, out: &mut Output) {
    let length = reply.result.len();
    let is_again = length > LARGE_REPLY_BYTES && reply.cause == Cause::AskedAgain;
    if is_again || out.replies.result_bytes() + length > TURN_RESULT_BYTES.max(length) {
        out.replies.push(&Reply { cause: Cause::Deferred, result: &[], ..*reply });
    } else {
        out.replies.push(reply);
    }
}
