//! A pillar: PRE-PREPARE, PREPARE and COMMIT (Castro 2.3.3, 3.2.2) on one part of the order numbers.
//!
//! Any slot of the window goes through its phases as its messages come; only the hand-over to the
//! execution stage is in slot order. A no-op is the null request at each slot that it covers.
//!
//! No message can be shown to others. So where another protocol passes a certificate on, here each
//! replica repeats what it has said itself, and what f+1 say is true:
//! - who lacks messages of its view gets those of each peer from that peer;
//! - who lacks what was committed in whatever view believes f+1 COMMITTEDs, as one of them is from a
//!   correct replica;
//! - a body convinces by its digest, whoever sends it.
//!
//! Invariants: `base ≤ handed`, `base ≤ committed ≤ base + window`; what this replica pre-prepares lies
//! in its window; it pre-prepares one body per slot and view, none that contradicts what it knows to
//! be committed, and it prepares only what it has pre-prepared and 2f backups sent PREPAREs for.
//!
//! | file | holds |
//! |---|---|
//! | `ordering.rs` | the three phases |
//! | `views.rs` | leaving and entering views: P and Q |
//! | `catch_up.rs` | what peers are asked for and answered; bodies |
//! | `checkpointing.rs` | the exchange of CHECKPOINTs |

mod catch_up;
mod checkpointing;
mod invariants;
mod ordering;
mod slots;
mod views;

use bytes::Bytes;
use hybster_tss::{Digest, RequestVerifier};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::input::PillarInput;
use super::wire::help::BODIES_PER_REQUEST;
use super::wire::kind;
use super::wire::ordering::Vote;
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::input::PathState;
use crate::notice::{Notice, Suspicion};
use crate::output::{Destination, Fatal, Output, Reject, SendTag, ToControl, ToIntake, ToPillar};
use crate::shared::answers::Answers;
use crate::shared::arrivals::Arrivals;
use crate::shared::later::Later;
use crate::shared::log::LOG_WINDOWS;
use crate::shared::proposals::Proposals;
use crate::shared::votes::Votes;
use crate::time::{Time, WallClock, earliest};
use crate::timeouts::AdaptiveTimeout;

use checkpointing::Claimed;
use slots::Slots;
pub(crate) use slots::{MISSING_BYTES, NAMED_BYTES, PAIR_BYTES, SLOT_BYTES};

/// BODY-REQUESTs of one pillar that a peer may leave unanswered.
pub(super) const BODY_REQUESTS: usize = 4;
/// The longest time for which a message may be under way, in request timeouts.
const MOST_ON_WAY: u64 = 16;
/// The wait before something is asked for again doubles up to this many times.
const MAX_BACKOFF: u32 = 5;

/// One pillar of a replica.
pub struct Pillar<V: RequestVerifier> {
    config: Arc<GroupConfig>,
    id: ReplicaId,
    pillar: PillarId,
    verifier: V,

    /// The view that was entered last.
    view: View,
    /// Whether the replica is in it: it has not left for another.
    active: bool,
    slots: Slots,
    /// The slot to propose next (leader); elsewhere the first slot after all that is proposed.
    proposed: u64,
    /// The slot to commit next; with everything before it, it is handed to the execution stage.
    committed: u64,
    /// The slot to hand to the execution stage next; beyond `committed` only after a state transfer.
    handed: u64,
    /// PREPAREs, COMMITs and COMMITTEDs to send, by slots; those for the null request are merged.
    unsent: Vec<(u8, u64, Digest)>,

    /// What waits for the window to move (leader).
    proposals: Proposals,
    /// The base of the window that the request intake was told is full.
    full_at: Option<u64>,
    /// What the way to the peers is like.
    path: PathState,
    /// The longest that it took since the wait for the next commitment began, in microseconds.
    longest_way_us: u64,
    /// When the input came that is being handled.
    now: Time,
    clock: WallClock,
    arrivals: Arrivals,
    /// The latest time that this replica proposed, in milliseconds since the Unix epoch.
    last_ms: u64,
    /// When the clock will be where the earliest of the early proposals says.
    early_until_ms: Option<u64>,

    /// Bodies that are named and missing.
    missing: BTreeSet<(u64, Digest)>,
    /// When they were asked for last, and how often.
    asked: Option<Time>,
    asks: u64,
    /// Slots whose bodies a view to be led waits for.
    holding: Option<(View, BTreeMap<u64, Digest>)>,
    /// Bodies that peers have asked for.
    answers: Answers<(u64, Digest)>,
    /// Ordering messages of later views.
    later: Later,

    /// CHECKPOINTs of the checkpoints that this pillar is in charge of.
    checkpoints: Votes<Claimed>,
    /// Since when something is outstanding without progress.
    outstanding_since: Option<Time>,
    backoff: u32,
    /// Since when a slot that is proposed in the view waits for its commitment.
    uncommitted_since: Option<Time>,
    commit_timeout: AdaptiveTimeout,
    last_hint: Option<Time>,
    /// When this replica asked the leader for what the leader said that it had proposed.
    asked_back: Option<Time>,
    answered: Vec<Option<Time>>,
}

impl<V: RequestVerifier> Pillar<V> {
    /// A pillar in the initial view 0.
    pub fn new(config: Arc<GroupConfig>, id: ReplicaId, pillar: PillarId, verifier: V) -> Self {
        let most_asked = BODY_REQUESTS * BODIES_PER_REQUEST;
        Self {
            id,
            pillar,
            verifier,
            view: View(0),
            active: true,
            slots: Slots::new(LOG_WINDOWS * config.window_slots()),
            proposed: 0,
            committed: 0,
            handed: 0,
            unsent: Vec::new(),
            proposals: Proposals::default(),
            full_at: None,
            path: PathState::default(),
            longest_way_us: 0,
            now: Time(0),
            clock: WallClock::default(),
            arrivals: Arrivals::default(),
            last_ms: 0,
            early_until_ms: None,
            missing: BTreeSet::new(),
            asked: None,
            asks: 0,
            holding: None,
            answers: Answers::new(config.replicas, most_asked),
            later: Later::new(config.replicas, 3 * config.window_slots() as usize),
            checkpoints: Votes::new(&config),
            outstanding_since: None,
            backoff: 0,
            uncommitted_since: None,
            commit_timeout: AdaptiveTimeout::new(config.request_timeout_us),
            last_hint: None,
            asked_back: None,
            answered: vec![None; usize::from(config.replicas)],
            config,
        }
    }

    /// Its number.
    pub fn pillar(&self) -> PillarId {
        self.pillar
    }

    /// The order numbers of the slots to propose next, and to commit next.
    pub fn progress(&self) -> (OrderNumber, OrderNumber) {
        (self.order_at(self.proposed), self.order_at(self.committed))
    }

    /// The order number that its window starts after.
    pub fn window_base(&self) -> OrderNumber {
        OrderNumber(self.slots.base() * u64::from(self.config.pillars))
    }

    /// Tells it the time of day.
    pub fn set_wall_clock(&mut self, clock: WallClock) {
        self.clock = clock;
    }

    /// Handles an input.
    pub fn handle(&mut self, input: ToPillar, now: Time, out: &mut Output) {
        self.now = now;
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
            ToPillar::ForwardWindow { to, .. } => self.forward_window(to, out),
            ToPillar::CertifyCheckpoint { id, .. } => self.vouch_for_checkpoint(id, now, out),
            ToPillar::AskPeers => self.ask_peers(out),
            ToPillar::TellCommitted { round } => {
                let (pillar, next) = (self.pillar, self.order_at(self.handed));
                out.intake(ToIntake::Committed { pillar, round, next });
            }
            ToPillar::PeerUp(peer) => self.peer_up(peer, out),
            ToPillar::Path(path) => {
                self.path = path;
                self.longest_way_us = self.longest_way_us.max(path.takes_us);
            }
            ToPillar::AnswersLeft { peer, answers } => {
                self.answers.left(peer, answers);
                self.send_bodies(peer, out);
            }
            ToPillar::Pbft(PillarInput::Leave { to }) => self.leave(to, out),
            ToPillar::Pbft(PillarInput::Hold { view, first, chosen }) => {
                self.hold(view, first, &chosen, out);
            }
            ToPillar::Pbft(PillarInput::Enter { view, first, chosen }) => {
                self.enter(view, first, &chosen, now, out);
            }
            // There is no log yet.
            ToPillar::Summarize => {}
            // Nor does an epoch end: a group of this protocol has no administrator (`GroupConfig::validate`).
            ToPillar::EndsAt(_) | ToPillar::Hybster(_) => out.fail(Fatal::of_another_protocol()),
        }
        self.finish(now, out);
    }

    /// To be called when [`Pillar::deadline`] has passed.
    pub fn tick(&mut self, now: Time, out: &mut Output) {
        self.now = now;
        if self.early_deadline().is_some_and(|at| at <= now) {
            self.early_until_ms = None;
            for slot in self.slots.base()..self.proposed {
                self.consider(slot, out);
            }
        }
        let resend_us = self.config.resend_us;
        if let Some(own) = self.checkpoints.resend(now, resend_us) {
            self.send_checkpoint(&own.id, Destination::AllPeers, out);
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
        if self.bodies_deadline().is_some_and(|at| at <= now) {
            self.ask_for_bodies(out);
        }
        self.finish(now, out);
    }

    fn finish(&mut self, now: Time, out: &mut Output) {
        self.send_votes(out);
        if !self.missing.is_empty() && self.asked.is_none() {
            self.ask_for_bodies(out);
        }
        self.note_progress(now);
        self.tell_window(out);
        self.check_invariants(out);
    }

    /// When [`Pillar::tick`] wants to be called.
    pub fn deadline(&self) -> Option<Time> {
        let resend_us = self.config.resend_us;
        let own = earliest(self.outstanding_deadline(), self.checkpoints.deadline(resend_us));
        let waits = earliest(self.early_deadline(), self.commit_deadline());
        earliest(own, earliest(self.bodies_deadline(), waits))
    }

    /// When the view is given up for a slot that is not committed.
    fn commit_deadline(&self) -> Option<Time> {
        let wait_us = self.commit_timeout.delay_us() + self.on_way_us();
        self.uncommitted_since.map(|at| at.after_us(wait_us))
    }

    fn outstanding_deadline(&self) -> Option<Time> {
        let wait = (self.config.resend_us << self.backoff) + self.on_way_us();
        self.outstanding_since.map(|at| at.after_us(wait))
    }

    fn bodies_deadline(&self) -> Option<Time> {
        let asked = self.asked.filter(|_| !self.missing.is_empty());
        asked.map(|at| at.after_us(self.config.resend_us + self.on_way_us()))
    }

    /// When an early proposal can be pre-prepared.
    fn early_deadline(&self) -> Option<Time> {
        let until_ms = self.early_until_ms.filter(|_| self.active)?;
        Some(self.clock.time_at(until_ms))
    }

    /// How long what this replica sent may be on its way, and an answer to it, in microseconds.
    fn on_way_us(&self) -> u64 {
        (self.longest_way_us + self.longest_way_us / 4)
            .min(MOST_ON_WAY * self.config.request_timeout_us)
    }

    /// Starts, stops or restarts the wait for the next commitment.
    fn note_progress(&mut self, now: Time) {
        if self.active && self.committed < self.proposed.min(self.window_end()) {
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
        if self.committed < self.proposed || !self.later.is_empty() {
            return true;
        }
        // Others speak of slots of which this replica knows no proposal. Only the nearest are searched:
        // what lies further ahead is noticed when these are filled.
        (self.committed..(self.committed + 8).min(self.slots.end())).any(|slot| {
            self.slots.get(slot).is_some_and(|slot| {
                !(slot.prepares.is_empty() && slot.commits.is_empty() && slot.claims.is_empty())
            })
        })
    }

    fn is_leader(&self) -> bool {
        self.active && self.config.leader(self.view) == self.id
    }

    fn order_at(&self, slot: u64) -> OrderNumber {
        self.config.order_at(self.pillar, slot)
    }

    /// The first slot that may not be pre-prepared yet.
    fn window_end(&self) -> u64 {
        self.slots.base() + self.config.window_slots()
    }

    fn message(&mut self, from: ReplicaId, message: Bytes, now: Time, out: &mut Output) {
        let result = match crate::wire::kind_of(&message) {
            kind::PRE_PREPARE => self.pre_prepare(from, &message, now, out),
            kind::PREPARE | kind::COMMIT | kind::COMMITTED => self.vote(from, &message, now, out),
            kind::CHECKPOINT => self.checkpoint(from, &message, out),
            kind::ORDER_REQUEST => self.order_request(from, &message, now, out),
            kind::BODY_REQUEST => self.body_request(from, &message, out),
            kind::BODY => self.body_arrived(&message, out),
            _ => Err(Reject::Malformed),
        };
        if let Err(reason) = result {
            out.reject(Some(from), &message, reason);
        }
    }

    /// Keeps an ordering message of a later view until that view is entered, and asks whether it is.
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

    /// A checkpoint is stable: what lies before it is forgotten (Castro 2.3.4).
    fn forward_window(&mut self, to: OrderNumber, out: &mut Output) {
        let base = self.config.slots_before(to);
        if base <= self.slots.base() {
            return;
        }
        assert!(base.is_multiple_of(self.config.interval_slots()), "windows start at checkpoints");
        self.slots.forward(base);
        self.checkpoints.stable(to);
        self.proposed = self.proposed.max(base);
        self.committed = self.committed.max(base);
        self.handed = self.handed.max(base);
        self.missing = self.missing.split_off(&(base, Digest::default()));
        self.forward_hold(base, out);
        if self.is_leader() {
            let taken = self.propose_ready(out);
            self.announce(taken, out);
        }
        for slot in self.slots.base()..self.proposed {
            self.consider(slot, out);
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
                next_slot: self.proposed,
                taken,
            });
        }
    }

    /// Tells the request intake when everything in the window is committed: nobody can order more in this
    /// pillar until it moves.
    fn tell_window(&mut self, out: &mut Output) {
        let full_at = (self.committed >= self.window_end()).then(|| self.slots.base());
        if full_at != self.full_at {
            self.full_at = full_at;
            let (pillar, is_full) = (self.pillar, full_at.is_some());
            out.intake(ToIntake::Window { pillar, is_full, base: self.window_base() });
        }
    }

    /// Sends what this replica has decided to say, null requests that follow each other together.
    fn send_votes(&mut self, out: &mut Output) {
        let unsent = std::mem::take(&mut self.unsent);
        for (vote, tag) in self.merged(&unsent) {
            out.send_new(Destination::AllPeers, vote.encode(), tag);
        }
        self.unsent = unsent;
        self.unsent.clear();
    }

    /// Votes for slots as messages: those for null requests of one checkpoint interval that follow each
    /// other are one message.
    fn merged<'a>(
        &'a self,
        votes: &'a [(u8, u64, Digest)],
    ) -> impl Iterator<Item = (Vote, SendTag)> + 'a {
        let interval = self.config.interval_slots();
        let mut rest = votes;
        std::iter::from_fn(move || {
            let (kind, slot, digest) = *rest.first()?;
            let is_null = digest == super::wire::ordering::NULL;
            let follows = |(at, other): (u64, &(u8, u64, Digest))| {
                is_null && *other == (kind, at, digest) && at / interval == slot / interval
            };
            let more = (slot + 1..).zip(&rest[1..]).take_while(|it| follows(*it)).count();
            rest = &rest[1 + more..];
            let view = if kind == kind::COMMITTED { View(0) } else { self.view };
            let (first, last) = (self.order_at(slot), self.order_at(slot + more as u64));
            let tag = if kind == kind::COMMITTED {
                SendTag::Transient
            } else {
                SendTag::Ordering(view, last)
            };
            Some((Vote { kind, pillar: self.pillar, view, first, last, digest }, tag))
        })
    }
}
