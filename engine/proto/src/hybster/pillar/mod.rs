//! A pillar: the ordering protocol (TR listing 16) on one part of the sequence-number space, with
//! a TrInX instance of its own.
//!
//! A pillar shares nothing with the others on the normal path. It agrees on its own sequence of
//! slots; the execution stage merges the pillars. What the pillar certifies, it certifies in slot
//! order, so its counter O tells how far it took part.
//!
//! Invariants: `base ≤ handed`, `base ≤ committed ≤ prepared ≤ base + window`; a certificate with
//! O is only made for slots in the window, which ends with the epoch at the latest; every stored PREPARE was checked completely. `view` is
//! the last view entered; while it is not `active`, the replica has left it and certifies nothing.

mod abort;
mod catch_up;
mod checkpointing;
mod digests;
#[cfg(feature = "model")]
mod fingerprint;
mod invariants;
mod last_seen;
mod ordering;
mod preferred_quorum;
mod recovery;
mod slots;
mod timing;

use bytes::Bytes;
use hybster_tss::{Counter, Digest, InstanceId, Refusal, RequestVerifier, TrInX, Verifier};
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::hybster::control::MAX_CHANGES;
use crate::hybster::input::PillarInput;
use crate::hybster::record;
use crate::hybster::wire::checkpoint::Checkpoint;
use crate::hybster::wire::last_seen::LastSeen;
use crate::hybster::wire::ordering::PrepareHeader;
use crate::hybster::wire::view::Link;
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::input::PathState;
use crate::mutants::{self, Mutant};
use crate::notice::{Notice, Suspicion};
use crate::output::{
    Destination, Fatal, LogRecord, Output, Reject, SendTag, ToControl, ToIntake, ToPillar,
};
use crate::shared::answers::Answers;
use crate::shared::bodies::{BATCHES_PER_REQUEST, Bodies};
use crate::shared::later::Later;
use crate::shared::log::LOG_WINDOWS;
use crate::shared::proposals::Proposals;
use crate::shared::votes::Votes;
use crate::time::{Time, WallClock, earliest};
use crate::timeouts::AdaptiveTimeout;
use crate::wire::kind;

use digests::Digests;
pub(crate) use last_seen::SEEN_BYTES;
use last_seen::Seen;
use preferred_quorum::PreferredQuorum;
pub(crate) use slots::{SLOT_BYTES, VOTE_BYTES};
use slots::{Slots, StoredPrepare};
use timing::Timing;

/// BATCH-REQUESTs of one pillar that a peer may leave unanswered: one for each message of a view
/// change that names batches, and for the one that takes the place of another.
pub(super) const BATCH_REQUESTS: usize = MAX_CHANGES + 3;
/// Batches that a peer may ask one pillar for at a time.
const MOST_ASKED: usize = BATCH_REQUESTS * BATCHES_PER_REQUEST;
/// The longest time for which a message may be under way, in request timeouts.
const MOST_ON_WAY: u64 = 16;
/// The wait before something is asked for again doubles up to this many times.
const MAX_BACKOFF: u32 = 5;

/// One pillar of a replica.
pub struct Pillar<T: TrInX, V: Verifier + RequestVerifier> {
    config: Arc<GroupConfig>,
    id: ReplicaId,
    pillar: PillarId,
    trinx: T,
    verifier: V,

    /// Last view entered, v_stab.
    view: View,
    /// Whether the view is stable here: v_cur = v_stab and not about to leave.
    active: bool,
    slots: Slots,
    /// The first slot beyond the epoch; [`u64::MAX`] while no end is known.
    boundary: u64,
    /// Where in the log a batch is.
    digests: Digests,
    /// The slot to certify next, o_prep + 1.
    prepared: u64,
    /// The slot to commit next, o_comm + 1.
    committed: u64,
    /// The slot to hand to the execution stage next.
    handed: u64,

    /// What waits for the window to move (leader).
    proposals: Proposals,
    /// The base of the window that the request intake was told is full.
    full_at: Option<u64>,
    /// Who commits soonest (leader).
    preferred: PreferredQuorum,
    /// What the way to the peers is like.
    path: PathState,
    /// The longest that it took since the wait for the next commitment began, in microseconds: the
    /// proposal may have been among what was on its way then.
    longest_way_us: u64,
    /// When the input came that is being handled.
    now: Time,
    timing: Timing,

    /// Steps of O since the last stable view (DEVIATIONS 2).
    chain: Vec<Link>,
    /// Batches that messages of a view change name.
    bodies: Bodies,
    /// Batches that peers have asked for.
    answers: Answers<Digest>,
    /// PREPAREs certified for a view that is being established.
    established: Option<(View, Vec<StoredPrepare>)>,
    /// Ordering messages of later views.
    later: Later,

    /// CHECKPOINTs of the checkpoints that this pillar is in charge of.
    checkpoints: Votes<Checkpoint>,
    /// Since when something is outstanding without progress.
    outstanding_since: Option<Time>,
    backoff: u32,
    /// Since when a slot that this replica certified in its view waits for its commitment.
    uncommitted_since: Option<Time>,
    commit_timeout: AdaptiveTimeout,
    last_hint: Option<Time>,
    /// When this replica asked the leader for what the leader said that it had proposed.
    asked_back: Option<Time>,
    answered: Vec<Option<Time>>,
    /// What the log lacks when the pillar resumes.
    unlogged: Vec<LogRecord>,
    /// A summary is to be logged when the window moves.
    summary_due: bool,
    /// What this replica has seen of its peers, and they of it.
    seen: Seen,
}

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// A pillar in the initial view 0.
    ///
    /// # Panics
    /// If the TrInX instance is not the one of this replica and pillar.
    pub fn new(
        config: Arc<GroupConfig>,
        id: ReplicaId,
        pillar: PillarId,
        trinx: T,
        verifier: V,
    ) -> Self {
        let instance = config.instance(id, pillar);
        assert_eq!(trinx.instance(), instance, "every pillar needs its own TrInX instance");
        let replicas = usize::from(config.replicas);
        let slots = Slots::new(LOG_WINDOWS * config.window_slots());
        Self {
            digests: Digests::new(slots.places()),
            slots,
            boundary: u64::MAX,
            id,
            pillar,
            trinx,
            verifier,
            view: View(0),
            active: true,
            prepared: 0,
            committed: 0,
            handed: 0,
            proposals: Proposals::default(),
            full_at: None,
            preferred: PreferredQuorum::new(config.next_to_leader(View(0))),
            path: PathState::default(),
            longest_way_us: 0,
            now: Time(0),
            timing: Timing::new(&config),
            chain: Vec::new(),
            bodies: Bodies::new(id, pillar),
            answers: Answers::new(config.replicas, MOST_ASKED),
            established: None,
            later: Later::new(config.replicas, config.window_slots() as usize),
            checkpoints: Votes::new(&config),
            outstanding_since: None,
            backoff: 0,
            uncommitted_since: None,
            commit_timeout: AdaptiveTimeout::new(2 * config.request_timeout_us),
            last_hint: None,
            asked_back: None,
            answered: vec![None; replicas],
            unlogged: Vec::new(),
            summary_due: false,
            seen: Seen::new(config.replicas),
            config,
        }
    }

    /// The pillar's number.
    #[must_use]
    pub fn pillar(&self) -> PillarId {
        self.pillar
    }

    /// The order numbers of the slots to certify and to commit next.
    #[must_use]
    pub fn progress(&self) -> (OrderNumber, OrderNumber) {
        (self.order_at(self.prepared), self.order_at(self.committed))
    }

    /// The order number that the window starts after.
    #[must_use]
    pub fn window_base(&self) -> OrderNumber {
        OrderNumber(self.slots.base() * u64::from(self.config.pillars))
    }

    /// The pillar's trusted subsystem, for oracles.
    #[must_use]
    pub fn trinx(&self) -> &T {
        &self.trinx
    }

    /// Tells the pillar the time of day.
    pub fn set_wall_clock(&mut self, clock: WallClock) {
        self.timing.clock = clock;
    }

    /// Handles an input.
    pub fn handle(&mut self, input: ToPillar, now: Time, out: &mut Output) {
        self.now = now;
        let is_rare = matches!(
            input,
            ToPillar::ForwardWindow { .. } | ToPillar::Hybster(PillarInput::Enter { .. })
        );
        match input {
            ToPillar::Batch { view, buffer, requests } => {
                if view == self.view {
                    self.batch(buffer, requests, out);
                }
            }
            ToPillar::FillGap { view, through } => {
                if view == self.view && self.is_leader() {
                    self.proposals.fill(through);
                    let taken = 1 + self.propose_ready(out);
                    self.announce(taken, out);
                }
            }
            ToPillar::Message { from, message } => self.message(from, message, now, out),
            ToPillar::Hybster(PillarInput::Abort { from, to, checkpoint }) => {
                self.abort(from, to, &checkpoint, out)
            }
            ToPillar::Hybster(PillarInput::Hold { ticket, source, headers, left }) => {
                if let Some((peer, link)) = left.map(|left| *left) {
                    self.seen.note(peer, LastSeen::Left(self.pillar, link));
                }
                self.hold(ticket, source, &headers, now, out);
            }
            ToPillar::Hybster(PillarInput::Release { ticket }) => self.bodies.release(ticket),
            ToPillar::Hybster(PillarInput::Establish { view, prepared }) => {
                self.establish(view, &prepared, out)
            }
            ToPillar::Hybster(PillarInput::CertifyNewView { view, digest }) => {
                self.certify_new_view(view, &digest, out)
            }
            ToPillar::Hybster(PillarInput::CertifyAck { view, digest }) => {
                self.certify_ack(view, &digest, out)
            }
            ToPillar::Hybster(PillarInput::Enter { view, current, prepares }) => {
                self.enter(view, current, &prepares, now, out);
            }
            ToPillar::ForwardWindow { to, boundary } => {
                self.bounded_by(boundary);
                self.forward_window(to, out);
                self.drive(out);
            }
            ToPillar::EndsAt(boundary) => {
                self.bounded_by(Some(boundary));
                self.drive(out);
            }
            ToPillar::CertifyCheckpoint { id, ending } => {
                self.certify_checkpoint(id, ending.map(|ending| *ending), now, out);
            }
            ToPillar::Summarize => self.summary_due = true,
            ToPillar::AskPeers => self.ask_peers(out),
            ToPillar::TellCommitted { round } => {
                let (pillar, next) = (self.pillar, self.order_at(self.handed));
                out.intake(ToIntake::Committed { pillar, round, next });
            }
            ToPillar::Hybster(PillarInput::AskFirst { view, first }) => {
                if view == self.view {
                    self.preferred.ask_first(first);
                }
            }
            ToPillar::PeerUp(peer) => self.peer_up(peer, out),
            ToPillar::Path(path) => {
                self.path = path;
                self.longest_way_us = self.longest_way_us.max(path.takes_us);
            }
            ToPillar::AnswersLeft { peer, answers } => {
                self.answers.left(peer, answers);
                self.send_batches(peer, out);
            }
            ToPillar::Pbft(_) => out.fail(Fatal::of_another_protocol()),
        }
        self.note_progress(now);
        self.tell_window(out);
        self.check_invariants(out);
        if cfg!(debug_assertions) && is_rare && out.fatal.is_none() {
            self.check_all_invariants();
        }
    }

    /// To be called when [`Pillar::deadline`] has passed.
    pub fn tick(&mut self, now: Time, out: &mut Output) {
        self.now = now;
        if self.early_deadline().is_some_and(|at| at <= now) {
            self.advance(out);
            self.note_progress(now);
            self.tell_window(out);
        }
        let resend_us = self.config.resend_us;
        if let Some(own) = self.checkpoints.resend(now, resend_us) {
            let message = own.encode(&self.config);
            out.send(Destination::AllPeers, message, SendTag::Checkpoint(own.id.order));
        }
        if self.outstanding_deadline().is_some_and(|at| at <= now) {
            self.outstanding_since = Some(now);
            self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
            self.ask_peers(out);
        }
        if self.commit_deadline().is_some_and(|at| at <= now) {
            let waited_us = self.uncommitted_since.map_or(0, |since| now.since_us(since));
            let order = self.order_at(self.committed);
            let cause = Suspicion::Slot { pillar: self.pillar, order, waited_us };
            let leader = self.config.leader(self.view);
            out.notice(|| Notice::LeaderSuspected { view: self.view, leader, cause });
            self.uncommitted_since = Some(now);
            self.commit_timeout.expired(now);
            out.control(ToControl::Suspect { view: self.view });
        }
        self.bodies.tick(now, resend_us, out);
        if self.told_deadline().is_some_and(|at| at <= now) {
            self.returned(out);
            self.note_progress(now);
            self.tell_window(out);
        }
        self.check_invariants(out);
    }

    /// When [`Pillar::tick`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let resend_us = self.config.resend_us;
        let own = earliest(self.outstanding_deadline(), self.checkpoints.deadline(resend_us));
        let waits = earliest(self.early_deadline(), self.commit_deadline());
        let waits = earliest(waits, self.told_deadline());
        earliest(own, earliest(self.bodies.deadline(resend_us), waits))
    }

    /// When the view is given up for a slot that is not committed.
    ///
    /// The TR suspects a leader for requests that are not executed only. A replica that executed
    /// them in an earlier view would wait in the new one for ever, while its peers, who left that
    /// view and lack these commitments, need it to join them (seed 107141931961048).
    fn commit_deadline(&self) -> Option<Time> {
        let wait_us = self.commit_timeout.delay_us() + self.on_way_us();
        self.uncommitted_since.map(|at| at.after_us(wait_us))
    }

    fn outstanding_deadline(&self) -> Option<Time> {
        let wait = (self.config.resend_us << self.backoff) + self.on_way_us();
        self.outstanding_since.map(|at| at.after_us(wait))
    }

    /// How long what this replica sent may be on its way, and an answer to it, in microseconds. Waits
    /// are longer by that, up to a bound, since a peer may never be reached again.
    fn on_way_us(&self) -> u64 {
        (self.longest_way_us + self.longest_way_us / 4)
            .min(MOST_ON_WAY * self.config.request_timeout_us)
    }

    /// Starts, stops or restarts the wait for the next commitment.
    #[inline]
    fn note_progress(&mut self, now: Time) {
        let waits = self.committed < self.prepared || self.timing.refused.is_some();
        // While it may not acknowledge, it is perhaps its own fault that nothing is committed.
        if self.active && waits && self.may_take_part() {
            if self.uncommitted_since.is_none() {
                (self.uncommitted_since, self.longest_way_us) = (Some(now), self.path.takes_us);
            }
        } else {
            (self.uncommitted_since, self.longest_way_us) = (None, self.path.takes_us);
        }
        if !self.has_outstanding() {
            self.outstanding_since = None;
            self.backoff = 0;
        } else if self.outstanding_since.is_none() {
            self.outstanding_since = Some(now);
        }
    }

    /// Called when `committed` moves: the wait starts again.
    fn progressed(&mut self) {
        if let Some(since) = self.uncommitted_since.take() {
            self.commit_timeout.succeeded(self.now.since_us(since), self.now);
        }
        self.outstanding_since = None;
        self.backoff = 0;
    }

    fn has_outstanding(&self) -> bool {
        // Who keeps messages of a later view does not know that it is established, and the one that told it so may
        // have been the last. A liar that makes them up is asked about them, less and less often.
        let asks_later = !self.later.is_empty() && !mutants::active(Mutant::AsksOnceForLater);
        if self.committed < self.prepared || self.seen.is_returning() || asks_later {
            return true;
        }
        // A gap: a later slot is known but the next one is not. Only the nearest slots are searched:
        // a gap further ahead is noticed when these are filled.
        (self.committed..(self.committed + 8).min(self.slots.end())).any(|s| {
            self.slots.get(s).is_some_and(|slot| slot.prepare.is_some() || !slot.votes.is_empty())
        })
    }

    /// Puts a PREPARE into the log, where there must be room.
    fn store(&mut self, slot: u64, stored: StoredPrepare) {
        let place = self.slots.position(slot).expect("it lies inside the log");
        self.digests.note(place);
        self.slots.get_mut(slot).expect("it lies inside the log").prepare = Some(stored);
    }

    fn is_leader(&self) -> bool {
        self.active && self.config.leader(self.view) == self.id
    }

    fn order_at(&self, slot: u64) -> OrderNumber {
        self.config.order_at(self.pillar, slot)
    }

    /// The first slot that may not be certified yet.
    fn window_end(&self) -> u64 {
        let windows = 1 + u64::from(mutants::active(Mutant::WindowUnchecked));
        (self.slots.base() + windows * self.config.window_slots()).min(self.boundary)
    }

    /// The epoch ends with this order number. A certificate that moves the window beyond the order number of
    /// the change says so, and this replica's execution of it does; they say the same.
    pub(in crate::hybster) fn bounded_by(&mut self, boundary: Option<OrderNumber>) {
        let Some(boundary) = boundary else { return };
        let end = self.config.slots_before(boundary);
        assert!(self.boundary == u64::MAX || self.boundary == end, "an epoch has one end");
        self.boundary = end;
    }

    /// As a leader, orders up to the end of the epoch, no-ops if nothing else.
    pub(in crate::hybster) fn drive(&mut self, out: &mut Output) {
        if self.boundary != u64::MAX && self.is_leader() && self.prepared < self.boundary {
            self.proposals.fill(self.boundary - 1);
            let taken = self.propose_ready(out);
            self.announce(taken, out);
        }
    }

    fn instance_of(&self, replica: ReplicaId) -> InstanceId {
        self.config.instance(replica, self.pillar)
    }

    /// A certificate that TrInX must grant to a correct replica.
    fn granted<C>(certificate: Result<C, Refusal>, out: &mut Output) -> Option<C> {
        certificate.map_err(|r| out.fail(Fatal::Refused(r.to_string()))).ok()
    }

    fn message(&mut self, from: ReplicaId, message: Bytes, now: Time, out: &mut Output) {
        let result = match crate::wire::kind_of(&message) {
            kind::PREPARE => self.prepare(from, message.clone(), now, out),
            kind::COMMIT => self.commit(from, &message, now, out),
            kind::CHECKPOINT => self.checkpoint(from, &message, out),
            kind::ORDER_REQUEST => self.order_request(from, &message, now, out),
            kind::LAST_SEEN => self.last_seen(from, &message, out),
            kind::BATCH_REQUEST => self.batch_request(from, &message, out),
            kind::BATCH => self.batch_arrived(&message, now, out),
            _ => Err(Reject::Malformed),
        };
        if let Err(reason) = result {
            out.reject(Some(from), &message, reason);
        }
    }

    /// Keeps an ordering message of a later view until that view is entered, if there is room for it. With or
    /// without room, it shows that peers are ahead, so this replica asks for their state (TR listing 20,
    /// requestState): one that lost the NEW-VIEW soon has no room left, and would otherwise never ask again.
    fn keep_for_later(
        &mut self,
        from: ReplicaId,
        view: View,
        message: &[u8],
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        self.hint_stuck(now, out);
        if self.later.keep(from, view, message) { Ok(()) } else { Err(Reject::Overload) }
    }

    /// Tells the control stage, at a limited rate, that peers seem to be ahead.
    fn hint_stuck(&mut self, now: Time, out: &mut Output) -> bool {
        let due = self.last_hint.is_none_or(|at| now.since_us(at) >= self.config.resend_us);
        if due {
            self.last_hint = Some(now);
            out.control(ToControl::Stuck);
        }
        due
    }

    /// TR listing 16, forwardOrderWindow.
    fn forward_window(&mut self, to: OrderNumber, out: &mut Output) {
        let base = self.config.slots_before(to);
        if base <= self.slots.base() {
            return;
        }
        let interval = self.config.interval_slots();
        assert!(base.is_multiple_of(interval), "windows start at checkpoints");
        out.log(|| record::forwarded(self.pillar, base));
        self.slots.forward(base);
        self.checkpoints.stable(to);
        self.prepared = self.prepared.max(base);
        self.committed = self.committed.max(base);
        self.handed = self.handed.max(base);
        self.summarize(out);
        for held in self.bodies.forward(base) {
            self.tell_held(held, out);
        }
        if self.is_leader() {
            let taken = self.propose_ready(out);
            self.announce(taken, out);
        }
        self.advance(out);
    }

    /// Tells the request intake where this pillar proposes next, and how many of its inputs were
    /// handled. One that waits for the window does not count, so the request intake holds back.
    fn announce(&self, taken: u32, out: &mut Output) {
        if self.is_leader() {
            out.intake(ToIntake::Proposed {
                pillar: self.pillar,
                view: self.view,
                next_slot: self.prepared,
                taken,
            });
        }
    }

    /// Tells the request intake when everything in the window is committed: nobody can order more in this
    /// pillar until it moves. While windows are not full, nothing is told.
    fn tell_window(&mut self, out: &mut Output) {
        let full_at = (self.committed >= self.window_end()).then(|| self.slots.base());
        if full_at != self.full_at {
            self.full_at = full_at;
            let (pillar, is_full) = (self.pillar, full_at.is_some());
            out.intake(ToIntake::Window { pillar, is_full, base: self.window_base() });
        }
    }

    fn last_slot(&self, header: &PrepareHeader) -> u64 {
        self.config.slot_of(header.last)
    }

    fn counter(&self) -> hybster_tss::CounterValue {
        self.trinx.current(Counter::Ordering)
    }
}
