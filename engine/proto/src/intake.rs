//! The request intake (TR listing 15): takes requests in, hands them to the pillars of a leader,
//! and watches over the leader for those that clients brought to a follower.
//!
//! At a leader, requests are appended to the batch that is open and each batch goes to the pillar
//! that can propose soonest: the one whose next order number is the lowest. So at low load the
//! pillars take turns and no no-op is needed; at high load batches grow while pillars are busy.
//! If a pillar still falls behind the others, it is told to cover the gap by a no-op (DEVIATIONS 6).
//!
//! A follower stores what a client sends to it (a client does so only after a time-out, or when it
//! takes the follower for the leader), forwards it and suspects the leader when the request is not
//! executed in time. A leader stores what is sent to it again: it has to leave its view, too, when
//! its followers left it behind. What is stored is authentic and bounded.
//!
//! Suspicion is about ordering. Before it suspects the leader, a replica asks its own execution stage
//! once more: an answer counts when what was committed before the question is executed. And time in
//! which no leader could order anything does not count (`patience.rs`).

mod batched;
mod forwards;
mod invariants;
mod lanes;
mod patience;
mod turns;
mod watch;

use bytes::{Bytes, BytesMut};
use hybster_tss::RequestVerifier;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::ids::{ClientId, OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId, View};
use crate::input::PathState;
use crate::mutants::{self, Mutant};
use crate::output::{Output, Reject, Source, ToIntake, ToPillar};
use crate::shared::requests::is_admissible;
use crate::time::{Time, earliest};
use crate::timeouts::AdaptiveTimeout;
use crate::wire::ReplyStatus;
use crate::wire::request::{REQUESTS_HEAD, is_retransmission, requests_body};
use crate::wire::{RequestRef, RequestTag, Requests};

use batched::Batched;
use forwards::{Forwarding, Forwards};

pub(crate) use batched::{BATCHED_BYTES, MAX_BATCHED};
pub(crate) use forwards::{FORWARDS_BYTES, FORWARDS_REQUESTS};
pub(crate) use lanes::{LANES_BYTES, Lanes, MAX_LANES_BYTES, Waiting};
use patience::{Patience, Wait};
use watch::Step;

/// Batches that a pillar may have been given without having proposed them: one in work, one next.
pub(crate) const CREDIT: u32 = 2;
/// The most bytes of requests in batches that wait at a leader. As a rule they are far fewer: see
/// [`Intake::has_room`].
pub(crate) const MAX_PENDING_BYTES: usize = 64 << 20;
/// Requests that a replica stores for its watch over the leader at most.
pub(crate) const MAX_STORED: usize = 65_536;
/// Bytes of such requests at most.
pub(crate) const MAX_STORED_BYTES: usize = 64 << 20;
/// What a stored request takes beside its own bytes. Trees of such entries may be half empty.
pub(crate) const STORED_BYTES: u64 = 2 * size_of::<(Key, Stored, (Time, Key), Key)>() as u64;
/// Memory that batches are cut from: many small ones share a block, which lives as long as any.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;
/// How long it takes at most until the path to the peers shows what was handed out, in microseconds.
const NEWS_US: u64 = 1_000;
/// Requests in one forwarded message at most.
const FORWARD_CHUNK: usize = 64;

/// What a request is known by.
type Key = (SessionId, RequestNumber);

/// The request intake of a replica.
pub struct Intake<V: RequestVerifier> {
    config: Arc<GroupConfig>,
    id: ReplicaId,
    verifier: V,
    view: View,
    stable: bool,

    path: PathState,
    /// Bytes of batches handed out since `handed_out_since`: what the path is like may not show them yet.
    handed_out: usize,
    handed_out_since: Time,
    open: OpenBatch,
    pending: VecDeque<(BytesMut, u32)>,
    pending_bytes: usize,
    batched: Batched,
    /// What clients sent beyond their share, or without room.
    lanes: Lanes,
    /// Per pillar: its next slot, batches under way, and the slot up to which it was told to fill.
    pillars: Vec<Turn>,

    stored: BTreeMap<(SessionId, RequestNumber), Stored>,
    stored_bytes: usize,
    /// Per client the number of its stored requests.
    shares: BTreeMap<ClientId, usize>,
    /// Which of them are forwarded next.
    forwards: Forwards,
    /// When to look after a stored request again.
    watch: BTreeSet<(Time, SessionId, RequestNumber)>,
    timeout: AdaptiveTimeout,
    patience: Patience,
    /// Nothing can be ordered any more, in no view: the states of the replicas differ.
    halted: bool,
    /// The disk has no room for what clients ask for.
    disk_full: bool,
    /// When a pillar that this replica leads proposed something last.
    proposed_at: Time,
    /// When the wait for a request proved too short last. Many may have waited equally long.
    expired_at: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// The view that the pillar said it leads.
    leads: Option<View>,
    next_slot: u64,
    under_way: u32,
    filling: Option<u64>,
}

struct OpenBatch {
    /// Bytes that are left free in front, for what the protocol puts there.
    head: usize,
    buffer: BytesMut,
    requests: u32,
    /// Bytes of the batch before: what to expect of the next.
    expected: usize,
}

struct Stored {
    record: Bytes,
    tag: RequestTag,
    wait: Wait,
    due: Time,
    /// Whether this replica, as the leader of its view, has made a batch of it.
    is_proposed: bool,
    /// Whether its client sent it here itself.
    is_own: bool,
    /// Whether it is on its way to the leader.
    forwarding: Forwarding,
    /// When it was made a message to the leader, if it was.
    forwarded: Time,
    /// Whether half of the waiting time has passed and help was asked for.
    reminded: bool,
    /// The question to the execution stage when the waiting time had passed.
    last_asked: Option<LastAsked>,
    /// Questions to the execution stage that it has not answered: the last one of each view, and one
    /// more, since nothing else asks while one is under way.
    unanswered: u32,
    /// When the oldest of them was asked, or the one before it was answered.
    asked: Time,
}

/// The question that decides whether the leader is suspected.
#[derive(Clone, Copy, Debug)]
struct LastAsked {
    /// How long a leader could have ordered the request until then, or another one, in microseconds.
    waited_us: u64,
    at: Time,
    /// The question to the pillars that comes before it.
    round: u64,
    /// What must be executed before an answer counts, once the pillars have said what they had committed.
    goal: Option<OrderNumber>,
    /// Answers up to its own. Answers come in the order of the questions, so later questions,
    /// by anybody and however many, do not delay it. None: it is to be asked again.
    answers: u32,
}

impl<V: RequestVerifier> Intake<V> {
    /// The request intake of a replica in the initial view.
    #[must_use]
    pub fn new(config: Arc<GroupConfig>, id: ReplicaId, verifier: V) -> Self {
        Self {
            id,
            verifier,
            view: View(0),
            stable: true,
            path: PathState::default(),
            handed_out: 0,
            handed_out_since: Time(0),
            open: OpenBatch::new(config.rules().proposal_head),
            pending: VecDeque::new(),
            pending_bytes: 0,
            batched: Batched::default(),
            lanes: Lanes::default(),
            pillars: vec![
                Turn { leads: Some(View(0)), ..Turn::default() };
                usize::from(config.pillars)
            ],
            shares: BTreeMap::new(),
            stored: BTreeMap::new(),
            stored_bytes: 0,
            forwards: Forwards::default(),
            watch: BTreeSet::new(),
            timeout: AdaptiveTimeout::new(config.request_timeout_us),
            patience: Patience::new(&config),
            halted: false,
            disk_full: false,
            proposed_at: Time(0),
            expired_at: None,
            config,
        }
    }

    /// Handles an input. Requests wait for [`Intake::flush`].
    pub fn handle(&mut self, input: ToIntake, now: Time, out: &mut Output) {
        match input {
            ToIntake::Requests { from: Source::Client(link), message } => {
                self.client_requests(link, message, now, out);
            }
            ToIntake::Requests { from: from @ Source::Peer(peer), message } => {
                // A peer's stage watches over the leader for them, and what it sends has a bound.
                if let Err(reason) = self.requests(from, &message, &mut 0, now, out) {
                    out.reject(Some(peer), &message, reason);
                }
            }
            ToIntake::Proposed { pillar, view, next_slot, taken } => {
                // A pillar may have entered the view before this stage hears of it.
                let turn = &mut self.pillars[usize::from(pillar.0)];
                if view >= self.view {
                    if next_slot > turn.next_slot {
                        self.proposed_at = now;
                    }
                    turn.leads = Some(view);
                    turn.next_slot = next_slot;
                    turn.under_way = turn.under_way.saturating_sub(taken);
                    turn.filling = turn.filling.filter(|through| *through >= next_slot);
                }
            }
            ToIntake::StatesDiffer { halted } => self.halted = halted,
            ToIntake::DiskFull { is_full } => self.disk_full = is_full,
            ToIntake::Committed { pillar, round, next } => {
                if self.patience.committed(pillar, round, next) {
                    self.ask_last(now, out);
                }
            }
            ToIntake::Window { pillar, is_full, base } => {
                self.patience.window(pillar, is_full, base, now);
            }
            ToIntake::NotExecuted { session, number, is_counted, executed, progress } => {
                if is_counted {
                    self.lanes.answered(session.client);
                }
                if self.halted {
                    self.refuse_stored((session, number), ReplyStatus::StatesDiffer, out);
                } else if self.disk_full && self.is_of_client((session, number)) {
                    self.refuse_stored((session, number), ReplyStatus::DiskFull, out);
                } else {
                    self.stored_is_new((session, number), out);
                    self.not_executed((session, number), (executed, progress), now, out);
                }
            }
            ToIntake::Executed { session, number, is_counted } => {
                if is_counted {
                    self.lanes.answered(session.client);
                }
                self.executed(session, number, now);
            }
            ToIntake::Held { client, is_held } => self.lanes.hold(client, is_held, out),
            ToIntake::Path(path) => self.path = path,
            ToIntake::ForwardsLeft { peer, messages } => self.forwards_left(peer, messages, now),
            ToIntake::ViewLeft { view } => self.view_left(view),
            ToIntake::ViewEntered { view, next_slots } => {
                self.view_entered(view, &next_slots, now, out);
            }
        }
        self.check_invariants();
    }

    /// To be called when no input is waiting: hands out what is pending. A batch is what came in
    /// between two calls, so batches form without a timer.
    pub fn flush(&mut self, now: Time, out: &mut Output) {
        if now.since_us(self.handed_out_since) >= NEWS_US {
            (self.handed_out, self.handed_out_since) = (0, now);
        }
        self.serve_lanes(now, out);
        self.forward_waiting(now, out);
        self.hand_out(out);
        self.check_invariants();
    }

    /// Whether messages of clients wait that the next [`Intake::flush`] would take in: the driver should
    /// call it without waiting for more inputs.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.has_room() && self.lanes.may_serve()
    }

    fn hand_out(&mut self, out: &mut Output) {
        // After a view change, pillars say when they have entered the view.
        if !self.leads() || self.pillars.iter().any(|turn| turn.leads != Some(self.view)) {
            return;
        }
        // What waits here can still be batched.
        while !self.path.is_full && (self.open.requests > 0 || !self.pending.is_empty()) {
            if self.has_handed_out_enough() {
                break;
            }
            let p = self.soonest();
            if self.pillars[p].under_way >= CREDIT {
                break;
            }
            let (buffer, requests) = match self.pending.pop_front() {
                Some(batch) => batch,
                None => self.open.take(),
            };
            self.pending_bytes -= buffer.len() - self.open.head;
            self.handed_out += buffer.len();
            self.pillars[p].under_way += 1;
            assert!(self.pillars[p].under_way <= CREDIT, "a pillar has no more than its credit");
            out.pillar(PillarId(p as u16), ToPillar::Batch { view: self.view, buffer, requests });
        }
        self.fill_gaps(out);
    }

    /// To be called when [`Intake::deadline`] has passed.
    pub fn tick(&mut self, now: Time, out: &mut Output) {
        let mut reminders = Vec::new();
        let mut asks_last = false;
        while let Some(&(at, session, number)) = self.watch.first() {
            if at > now {
                break;
            }
            self.watch.remove(&(at, session, number));
            match self.look_after((session, number), now, out) {
                Step::Waits => {}
                Step::Reminds(record) => reminders.push(record),
                Step::AsksLast => asks_last = true,
            }
        }
        if asks_last {
            let round = self.patience.ask_committed();
            for pillar in self.config.all_pillars() {
                out.pillar(pillar, ToPillar::TellCommitted { round });
            }
        }
        if !reminders.is_empty() {
            for pillar in self.config.all_pillars() {
                out.pillar(pillar, ToPillar::AskPeers);
            }
            self.remind(&reminders, out);
        }
        self.check_invariants();
    }

    /// When [`Intake::tick`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let watch = self.watch.first().map(|(at, ..)| *at);
        let waits = self.pending_bytes > 0 && !self.path.is_full && self.has_handed_out_enough();
        let news = waits.then(|| self.handed_out_since.after_us(NEWS_US));
        let paid = if self.has_room() { self.lanes.deadline() } else { None };
        earliest(earliest(watch, paid), news)
    }

    /// Whether more batches must wait until it is known what the last ones did to the path.
    fn has_handed_out_enough(&self) -> bool {
        self.handed_out / 2 >= self.path.batch_bytes as usize
    }

    /// Bytes of requests in batches that wait to be proposed.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Bytes of messages of clients that wait to be taken in.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.lanes.bytes()
    }

    /// Whether so much waits, over all clients, that none is to be read from.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.lanes.bytes() >= LANES_BYTES
    }

    /// Requests stored for the watch over the leader.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.stored.len()
    }

    fn leads(&self) -> bool {
        self.stable && self.config.leader(self.view) == self.id
    }

    // ------------------------------------------------------------------ intake

    /// Takes in the requests of a message from `done` bytes on, and moves that forward: to its end, or to
    /// where the client must wait for answers.
    fn requests(
        &mut self,
        from: Source,
        message: &Bytes,
        done: &mut usize,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let body = requests_body(message)?;
        let is_own = matches!(from, Source::Client(_));
        let is_fresh = is_own && !is_retransmission(message);
        let is_cheap = is_fresh && self.leads() && !self.halted;
        let mut left = Requests::new(&body[done.saturating_sub(REQUESTS_HEAD)..]);
        let mut stored = Ok(());
        loop {
            if let Source::Client(link) = from
                && !is_cheap
                && !self.lanes.may_ask(link.client)
            {
                break;
            }
            let Some(request) = left.next() else { break };
            let request = request?;
            self.check(from, &request)?;
            if is_cheap {
                let is_batched = self.is_batched((request.session, request.number));
                if !is_batched {
                    self.append(&request);
                }
                continue;
            }
            // A leader watches over what was sent again, too: it may have lost its followers. One
            // request that cannot be stored is no reason to drop those after it.
            stored = stored.and(self.store(&request, is_own, now, out));
        }
        *done = message.len() - left.rest().len();
        if let Err(reason) = stored {
            match from {
                Source::Client(link) => out.reject_client(link, message, reason),
                Source::Peer(peer) => out.reject(Some(peer), message, reason),
            }
        }
        Ok(())
    }

    /// What can be said without the proof: a client speaks for its own sessions only.
    fn check(&self, from: Source, request: &RequestRef<'_>) -> Result<(), Reject> {
        let session = request.session;
        if let Source::Client(link) = from
            && (session.client != link.client || session.incarnation() != link.incarnation)
        {
            return Err(Reject::WrongSender);
        }
        if is_admissible(&self.config, request) { Ok(()) } else { Err(Reject::BadRequest) }
    }

    /// The caller sees to it that there is room.
    fn append(&mut self, request: &RequestRef<'_>) {
        let length = request.record.len();
        let longest = self.config.batch_max_bytes.min(self.path.batch_bytes) as usize;
        if self.path.is_costly() {
            self.batched.insert((request.session, request.number));
        }
        let full = self.open.requests >= self.config.batch_max_requests
            || (self.open.requests > 0 && self.open.len() + length > longest);
        if full {
            let batch = self.open.take();
            self.pending.push_back(batch);
        }
        self.open.push(request);
        self.pending_bytes += length;
    }

    /// Whether a request is known to be in a batch of this view.
    #[inline]
    fn is_batched(&self, key: Key) -> bool {
        !self.batched.is_empty() && self.batched.contains(key)
    }

    // ------------------------------------------------------------------ turns

    fn next_order(&self, p: usize, ahead: u32) -> u64 {
        let slot = self.pillars[p].next_slot + u64::from(ahead);
        self.config.order_at(PillarId(p as u16), slot).0
    }

    /// The pillar that can propose soonest.
    fn soonest(&self) -> usize {
        (0..self.pillars.len())
            .min_by_key(|p| self.next_order(*p, self.pillars[*p].under_way))
            .expect("there is at least one pillar")
    }

    /// DEVIATIONS 6: a pillar with nothing to propose while others are ahead covers the gap.
    fn fill_gaps(&mut self, out: &mut Output) {
        // What is under way will be proposed: it counts as ahead, but not as behind.
        let ahead = (0..self.pillars.len())
            .filter(|p| self.pillars[*p].next_slot > 0 || self.pillars[*p].under_way > 0)
            .map(|p| self.next_order(p, self.pillars[p].under_way))
            .max()
            .unwrap_or(0);
        // `ahead` is the next order of that pillar; its last one is P before.
        let highest = ahead.saturating_sub(u64::from(self.config.pillars));
        for p in 0..self.pillars.len() {
            if self.pillars[p].under_way > 0 || self.next_order(p, 0) > highest {
                continue;
            }
            let pillar = PillarId(p as u16);
            // The last slot of this pillar below the highest order.
            let first = u64::from(pillar.0) + 1;
            let through = (highest - first) / u64::from(self.config.pillars);
            if self.pillars[p].filling.is_none_or(|filling| filling < through) {
                self.pillars[p].filling = Some(through);
                self.pillars[p].under_way += 1;
                out.pillar(pillar, ToPillar::FillGap { view: self.view, through });
            }
        }
    }

    fn view_left(&mut self, view: View) {
        assert!(view > self.view, "views rise");
        self.stable = false;
        self.view = view;
        self.drop_pending();
    }

    /// What was pending at a leader that lost its view is dropped: its clients retransmit, and
    /// have to, since the leader may have failed altogether.
    fn drop_pending(&mut self) {
        self.open = OpenBatch::new(self.open.head);
        self.pending.clear();
        self.pending_bytes = 0;
        self.batched.clear();
        self.lanes.none_ready();
    }

    /// TR listing 15, enterView.
    fn view_entered(&mut self, view: View, next_slots: &[u64], now: Time, out: &mut Output) {
        assert!(!self.stable && view >= self.view, "a view is left before a later one is entered");
        self.view = view;
        self.stable = true;
        if self.expired_at.take().is_none() && !mutants::active(Mutant::AloneWaitsLonger) {
            // It is others whose wait was too short; the same goes for this replica's, which must not be the
            // next to leave, and alone.
            self.timeout.expired(now);
        }
        self.drop_pending();
        for (turn, next_slot) in self.pillars.iter_mut().zip(next_slots) {
            let leads = turn.leads.filter(|leads| *leads == view);
            let next_slot = if leads.is_some() { turn.next_slot } else { *next_slot };
            *turn = Turn { leads, next_slot, ..Turn::default() };
        }
        self.watch.clear();
        let leads = self.leads();
        let due = now.after_us(self.timeout.delay_us() / 2);
        self.forwards.begin_view();
        for (key, stored) in &mut self.stored {
            self.patience.begin_again(&mut stored.wait, now);
            (stored.due, stored.reminded) = (due, false);
            (stored.last_asked, stored.is_proposed) = (None, false);
            stored.forwarding = if leads { Forwarding::Unneeded } else { Forwarding::Waiting };
            self.watch.insert((due, key.0, key.1));
            if leads {
                self.lanes.make_ready(*key);
            } else {
                self.forwards.want(*key);
            }
        }
        self.forward_waiting(now, out);
        if cfg!(debug_assertions) {
            self.check_all_invariants();
        }
    }
}

impl OpenBatch {
    fn new(head: usize) -> Self {
        Self { head, buffer: BytesMut::new(), requests: 0, expected: 0 }
    }

    fn len(&self) -> usize {
        self.buffer.len().saturating_sub(self.head)
    }

    fn push(&mut self, request: &RequestRef<'_>) {
        if self.buffer.is_empty() {
            if self.buffer.capacity() < self.expected.max(self.head) {
                // Not `reserve`, which would size the block by what is left of the one before.
                self.buffer = BytesMut::with_capacity(self.expected.max(BLOCK_BYTES));
            }
            self.buffer.resize(self.head, 0);
        }
        self.buffer.extend_from_slice(request.record);
        self.requests += 1;
    }

    fn take(&mut self) -> (BytesMut, u32) {
        let requests = std::mem::take(&mut self.requests);
        self.expected = self.buffer.len();
        (self.buffer.split(), requests)
    }
}
