//! The control stage: one per replica, over all pillars. It runs the view-change protocol
//! (TR listing 19), keeps the view status (listing 12) and the stable checkpoint, and helps peers
//! and itself to catch up (listing 20).
//!
//! What needs a counter is done by the pillars on its request; between asking all pillars and
//! having all answers (`Phase::Leaving`, `Phase::Establishing`) it takes no other decision, so
//! all P counters move or none does, and no part leaves the host before all have moved.
//!
//! | file | TR listing |
//! |---|---|
//! | `view_change.rs` | 19: leaveViewFor, receive(VIEW-CHANGE), viewMissed, designatedLeaderSuspected |
//! | `establishing.rs` | 19: newLeaderViewReady, establishView |
//! | `entering.rs` | 19: receive(NEW-VIEW), newFollowerViewReady, enterView, sendNewViewAck |
//! | `messages.rs` | 19: storeViewChange, discardViewChanges, isCorrectNewViewCertificate |
//! | `catch_up.rs` | 18 and 20: requestState, receive(STATE-REQUEST), obtainState |
//! | `recovery.rs` | none: coming back with what the log has |
//! | `outside.rs` | a peer that left its view alone (DEVIATIONS 27) |
//! | `timing.rs` | the times of batches in a view change (DEVIATIONS 22) |

mod catch_up;
mod entering;
mod establishing;
#[cfg(feature = "model")]
mod fingerprint;
mod invariants;
mod messages;
mod outside;
mod recovery;
mod timing;
mod view_change;

use bytes::Bytes;
use hybster_tss::Verifier;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::hybster::input::{ControlInput, PillarInput};
use crate::hybster::wire::checkpoint::{CheckpointCertificate, parse_state};
use crate::hybster::wire::ordering::PrepareHeader;
use crate::hybster::wire::view::{NewView, NewViewAck, Part};
use crate::ids::{PillarId, ReplicaId, View};
use crate::mutants::{self, Mutant};
use crate::notice::Departure;
use crate::output::{Fatal, Output, Reject, ToControl};
use crate::protocol::ControlStatus;
use crate::shared::catch_up::CatchUp;
use crate::shared::differences::Differences;
use crate::shared::outside::Outside;
use crate::time::{Time, WallClock, earliest};
use crate::timeouts::AdaptiveTimeout;
use crate::wire::state::StateRequest;
use crate::wire::{kind, kind_of};

pub(crate) use messages::MAX_CHANGES;
use messages::{Messages, Subject};
use recovery::Resumed;

enum Phase {
    /// In the view v_cur = v_stab.
    Stable,
    /// All pillars were asked for their parts.
    Leaving { parts: BTreeMap<PillarId, Part> },
    /// VIEW-CHANGE sent; a NEW-VIEW is expected.
    Waiting,
    /// All pillars were asked to certify P′ of a view that this replica leads.
    Establishing(Box<Establishing>),
}

struct Establishing {
    new_view: NewView,
    parts: BTreeMap<PillarId, Vec<PrepareHeader>>,
}

/// A NEW-VIEW whose batches are not all held yet, or that waits for the phase to end.
struct PendingNewView {
    new_view: Arc<NewView>,
    ticket: u64,
    held: bool,
}

/// The control stage of a replica.
pub struct Control<V: Verifier> {
    config: Arc<GroupConfig>,
    id: ReplicaId,
    verifier: V,

    /// v_stab.
    stable_view: View,
    /// v_cur.
    current: View,
    phase: Phase,
    messages: Messages,
    /// By the peer that sent it and must deliver its batches: one that a liar never delivers does
    /// not keep out the NEW-VIEW of another view that a correct replica has entered.
    pending: BTreeMap<ReplicaId, PendingNewView>,
    /// The NEW-VIEW of the stable view, for those who lack it.
    established: Option<Arc<NewView>>,
    own_ack: Option<Arc<NewViewAck>>,
    /// A NEW-VIEW-ACK that waits for its trusted MAC.
    unsigned_ack: Option<NewViewAck>,
    new_view_timeout: AdaptiveTimeout,
    new_view_due: Option<Time>,
    /// How long what is sent now takes to reach a peer, and an answer to come back, in microseconds.
    way_us: u64,
    /// The longest that it took since this replica left its view: what it said then may have been among
    /// what was on its way.
    longest_way_us: u64,
    /// When this replica's view-change messages are sent again.
    resend_due: Option<Time>,
    catch_up: CatchUp<CheckpointCertificate>,
    differences: Differences,
    outside: Outside,
    views_entered: u64,
    /// Views left since the last stable one: links of the next VIEW-CHANGE.
    left_since_stable: usize,
    /// When it left the stable view, to tell how long a view change took.
    left_at: Option<Time>,
    clock: WallClock,
    /// By replica: the view of the early NEW-VIEW that it sent last.
    early: Vec<View>,
    /// What a log has that is said when the stage resumes.
    resumed: Option<Resumed>,
    /// A summary is to be logged when this replica is in its view.
    summary_due: bool,
    /// Pillars that have come back and were not told yet what peers have seen of them. While there are
    /// any, this replica leaves no view and establishes none (DEVIATIONS 32).
    untold: BTreeSet<PillarId>,
}

impl<V: Verifier> Control<V> {
    /// The control stage of a replica in the initial view 0.
    #[must_use]
    pub fn new(config: Arc<GroupConfig>, id: ReplicaId, verifier: V) -> Self {
        Self {
            id,
            verifier,
            stable_view: View(0),
            current: View(0),
            phase: Phase::Stable,
            messages: Messages::new(&config),
            pending: BTreeMap::new(),
            established: None,
            own_ack: None,
            unsigned_ack: None,
            new_view_timeout: AdaptiveTimeout::new(config.view_timeout_us),
            new_view_due: None,
            way_us: 0,
            longest_way_us: 0,
            resend_due: None,
            catch_up: CatchUp::new(config.clone()),
            differences: Differences::new(config.replicas, config.window),
            outside: Outside::default(),
            views_entered: 0,
            left_since_stable: 0,
            left_at: None,
            clock: WallClock::default(),
            early: vec![View(0); usize::from(config.replicas)],
            resumed: None,
            summary_due: false,
            untold: BTreeSet::new(),
            config,
        }
    }

    /// What it knows.
    #[must_use]
    pub fn status(&self) -> ControlStatus {
        ControlStatus {
            stable_view: self.stable_view,
            current_view: self.current,
            leader: self.config.leader(self.stable_view),
            stable_checkpoint: self.catch_up.stable().id.order,
            transferring: self.catch_up.is_transferring(),
            diverged: self.catch_up.is_diverged(),
            divergences: self.catch_up.divergences(),
            halted: self.differences.has_halted(),
            views_entered: self.views_entered,
        }
    }

    /// Checkpoints at which a peer's state differed from this replica's.
    #[must_use]
    pub fn differences_of(&self, peer: ReplicaId) -> u64 {
        self.differences.of(peer)
    }

    /// The certificate of the stable checkpoint.
    #[must_use]
    pub fn stable_checkpoint(&self) -> &CheckpointCertificate {
        self.catch_up.stable()
    }

    /// Tells the stage the time of day.
    pub fn set_wall_clock(&mut self, clock: WallClock) {
        self.clock = clock;
    }

    /// Handles an input.
    pub fn handle(&mut self, input: ToControl, now: Time, out: &mut Output) {
        match input {
            ToControl::Message { from, message } => {
                if let Err(reason) = self.message(from, &message, now, out) {
                    out.reject(Some(from), &message, reason);
                }
            }
            ToControl::Suspect { view } => {
                // What may not be acted on yet is dropped: a request that still waits raises it again.
                if self.is_stable() && view == self.stable_view && self.may_certify() {
                    self.leave_for(self.current.next(), Departure::Suspected, now, out);
                }
            }
            ToControl::Hybster(ControlInput::Part { pillar, to, part }) => {
                self.part(pillar, to, part, now, out)
            }
            ToControl::Hybster(ControlInput::Held { ticket, pillar, valid }) => {
                self.held(ticket, pillar, valid, out);
            }
            ToControl::Hybster(ControlInput::Established { pillar, view, prepares }) => {
                self.pillar_established(pillar, view, prepares, out);
            }
            ToControl::Hybster(ControlInput::NewViewCertified { view, proof }) => {
                self.new_view_certified(view, proof, now, out);
            }
            ToControl::Hybster(ControlInput::AckCertified { view, proof }) => {
                self.ack_certified(view, proof, out)
            }
            ToControl::Hybster(ControlInput::Told(pillar)) => {
                self.untold.remove(&pillar);
            }
            ToControl::Hybster(ControlInput::CheckpointStable(certificate)) => {
                self.learn_stable(certificate, false, now, out);
            }
            ToControl::Hybster(ControlInput::StateDiffers { peer, theirs, own }) => {
                self.differences.found(peer, theirs, own, now, out);
            }
            ToControl::Hybster(ControlInput::Undecidable { order }) => {
                let stable = self.catch_up.stable().id.order;
                self.differences.undecidable(order, stable, out);
            }
            ToControl::CheckpointTaken(id) => {
                self.catch_up.checkpoint_taken(id, self.stable_view, now, out);
            }
            ToControl::Installed(id) => self.catch_up.installed(id, out),
            ToControl::PeerBehind(peer) => self.help(peer, now, out),
            ToControl::Stuck => self.ask_state(now, out),
            ToControl::PeerUp(peer) => self.peer_up(peer, out),
            ToControl::Summarize => self.summary_due = true,
            ToControl::Path(path) => {
                self.way_us = path.takes_us;
                self.longest_way_us = self.longest_way_us.max(path.takes_us);
            }
            // The driver answers status requests; it knows more than this stage.
            ToControl::StatusRequest(_) => {}
            ToControl::Pbft(_) => out.fail(Fatal::of_another_protocol()),
        }
        self.evaluate(now, out);
        self.differences.forward(self.catch_up.stable().id.order, out);
        self.release_batches(out);
        self.summarize(out);
        self.check_invariants(out);
    }

    fn message(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        match kind_of(message) {
            kind::VIEW_CHANGE => self.view_change(from, message, now, out),
            kind::NEW_VIEW => self.new_view(from, message, now, out),
            kind::NEW_VIEW_ACK => self.new_view_ack(from, message, now, out),
            kind::STATE_REQUEST => {
                let request = StateRequest::parse(message)?;
                self.state_request(from, &request, now, out);
                Ok(())
            }
            kind::STATE => {
                let certificate = parse_state(message, &self.config)?;
                self.learn_certificate(certificate, now, out)
            }
            _ => Err(Reject::Malformed),
        }
    }

    /// To be called when [`Control::deadline`] has passed.
    pub fn tick(&mut self, now: Time, out: &mut Output) {
        if self.resend_due.is_some_and(|at| at <= now) {
            self.resend_due = Some(now.after_us(2 * self.config.resend_us));
            self.resend(now, out);
        }
        self.catch_up.tick(self.stable_view, now, out);
        if self.new_view_deadline().is_some_and(|at| at <= now) {
            self.new_view_overdue(now, out);
        }
        if self.outside_deadline().is_some_and(|at| at <= now) {
            self.step_up_view(now, out);
        }
        self.evaluate(now, out);
        self.differences.forward(self.catch_up.stable().id.order, out);
        self.release_batches(out);
        self.check_invariants(out);
    }

    /// When [`Control::tick`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let views = earliest(self.resend_due, self.new_view_deadline());
        earliest(earliest(views, self.outside_deadline()), self.catch_up.deadline())
    }

    /// When a NEW-VIEW is overdue. A replica that comes back leaves for the next view as soon as it may.
    fn new_view_deadline(&self) -> Option<Time> {
        self.new_view_due.filter(|_| self.may_certify())
    }

    /// A pillar holds the batches that a message names, or found an invalid one among them.
    fn held(&mut self, ticket: u64, _pillar: PillarId, valid: bool, out: &mut Output) {
        let Some((subject, valid)) = self.messages.answered(ticket, valid) else {
            return;
        };
        let (sender, kind) = match subject {
            Subject::ViewChange(sender, to) => {
                if valid {
                    self.messages.change_held(sender, to);
                } else {
                    self.messages.drop_change(sender, to);
                }
                (sender, kind::VIEW_CHANGE)
            }
            Subject::Ack(sender, view) => {
                if valid {
                    self.messages.ack_held(sender, view);
                } else {
                    self.messages.drop_ack(sender, view);
                }
                (sender, kind::NEW_VIEW_ACK)
            }
            Subject::NewView(from, view) => {
                let matching = |p: &&mut PendingNewView| p.new_view.view == view;
                if let Some(pending) = self.pending.get_mut(&from).filter(matching) {
                    pending.held = valid;
                    if !valid {
                        self.drop_pending(|sender, _| sender == from);
                    }
                }
                (self.config.leader(view), kind::NEW_VIEW)
            }
        };
        if !valid {
            out.reject(Some(sender), &[kind], Reject::BadBatch);
        }
    }

    /// The tasks of TR listing 19, in an order that prefers to enter views over leaving them.
    fn evaluate(&mut self, now: Time, out: &mut Output) {
        self.evaluate_views(now, out);
        self.note_outsiders(now);
    }

    fn evaluate_views(&mut self, now: Time, out: &mut Output) {
        if !self.is_settled() || out.fatal.is_some() {
            return;
        }
        if self.enter_pending(now, out) {
            return;
        }
        if !self.may_certify() {
            return self.expect_new_view(now);
        }
        if self.establish_ready(now, out) {
            return;
        }
        if self.view_missed(now, out)
            || self.suspected_by_others(now, out)
            || self.left_by_leader(now, out)
        {
            return;
        }
        self.expect_new_view(now);
    }

    /// Whether pillars may certify with O what this stage asks of them.
    fn may_certify(&self) -> bool {
        self.untold.is_empty() || mutants::active(Mutant::LeavesUntold)
    }

    /// Tells the pillars which messages they need not hold batches for any more.
    fn release_batches(&mut self, out: &mut Output) {
        for ticket in self.messages.take_released() {
            for pillar in self.config.all_pillars() {
                out.pillar(pillar, PillarInput::Release { ticket });
            }
        }
    }

    /// TR listing 12, isInStableView.
    fn is_stable(&self) -> bool {
        matches!(self.phase, Phase::Stable)
    }

    /// Whether all pillars have answered what they were asked.
    fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Stable | Phase::Waiting)
    }
}
