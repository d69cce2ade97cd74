//! The control stage: one per replica, over all pillars. It changes views (Castro 3.2.4), knows the
//! stable checkpoint, and helps peers and itself to catch up.
//!
//! One view is over all pillars. A replica leaves it when all its pillars have: the VIEW-CHANGE has
//! P and Q of each, and no message of the view leaves the host after it.
//!
//! Nothing that arrives can be shown to others as a proof. So:
//! - a VIEW-CHANGE counts for its sender if it came from there; if not, f acknowledgements of
//!   others beside the leader's choice of it make f+1 that got it, a correct one among them;
//! - a NEW-VIEW of its leader is checked by deciding again; one that f+1 peers pass on was checked by a
//!   correct one of them;
//! - a checkpoint is stable if 2f+1 say that they have it, or f+1 that it is.
//!
//! | file | holds |
//! |---|---|
//! | `view_change.rs` | leaving views, VIEW-CHANGE and its acknowledgements |
//! | `entering.rs` | the leader's decision, NEW-VIEW, entering views |
//! | `messages.rs` | what is kept of them |
//! | `catch_up.rs` | stable checkpoints, asking for and giving help |

mod catch_up;
mod entering;
mod messages;
mod view_change;

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::decision::Decision;
use super::input::ControlInput;
use super::stable::Stable;
use super::wire::kind;
use super::wire::view::{Known, NewView};
use crate::config::GroupConfig;
use crate::ids::{PillarId, ReplicaId, View};
use crate::notice::Departure;
use crate::output::{Fatal, Output, Reject, ToControl};
use crate::protocol::ControlStatus;
use crate::shared::catch_up::CatchUp;
use crate::shared::differences::Differences;
use crate::shared::outside::Outside;
use crate::time::{Time, WallClock, earliest};
use crate::timeouts::AdaptiveTimeout;
use crate::wire::state::StateRequest;
use crate::wire::{CheckpointId, kind_of};
use hybster_tss::Digest;

pub(crate) use messages::MAX_VIEWS;
use messages::Messages;

/// STABLE messages of a peer that are kept, those of the highest checkpoints.
pub(super) const STABLE_CLAIMS: usize = 4;

enum Phase {
    /// In the view.
    Stable,
    /// All pillars were asked to leave it.
    Leaving { parts: BTreeMap<PillarId, Vec<Known>> },
    /// VIEW-CHANGE sent; a NEW-VIEW is expected.
    Waiting,
    /// All pillars were asked for the bodies of a view that this replica leads.
    Establishing(Box<Establishing>),
}

struct Establishing {
    new_view: NewView,
    decision: Decision,
    waiting: BTreeSet<PillarId>,
}

/// A NEW-VIEW that waits until it can be believed.
struct Pending {
    new_view: NewView,
    message: Bytes,
    digest: Digest,
    decision: Decision,
}

/// The control stage of a replica.
pub struct Control {
    config: Arc<GroupConfig>,
    id: ReplicaId,

    /// The view that was entered last.
    stable_view: View,
    /// The view that the replica is in or on its way to.
    current: View,
    phase: Phase,
    messages: Messages,
    /// By the peer that sent it, its last one.
    pending: BTreeMap<ReplicaId, Pending>,
    /// The NEW-VIEW of the stable view, for those who lack it.
    established: Option<Bytes>,
    new_view_timeout: AdaptiveTimeout,
    new_view_due: Option<Time>,
    /// How long what is sent now takes to reach a peer, and an answer to come back, in microseconds.
    way_us: u64,
    /// The longest that it took since this replica left its view.
    longest_way_us: u64,
    /// When this replica's view-change messages are sent again.
    resend_due: Option<Time>,
    catch_up: CatchUp<Stable>,
    /// What each peer says is stable.
    claims: Vec<BTreeMap<crate::ids::OrderNumber, CheckpointId>>,
    differences: Differences,
    outside: Outside,
    views_entered: u64,
    /// When it left the stable view, to tell how long a view change took.
    left_at: Option<Time>,
}

impl Control {
    /// The control stage of a replica in the initial view 0.
    #[must_use]
    pub fn new(config: Arc<GroupConfig>, id: ReplicaId) -> Self {
        Self {
            id,
            stable_view: View(0),
            current: View(0),
            phase: Phase::Stable,
            messages: Messages::default(),
            pending: BTreeMap::new(),
            established: None,
            new_view_timeout: AdaptiveTimeout::new(config.view_timeout_us),
            new_view_due: None,
            way_us: 0,
            longest_way_us: 0,
            resend_due: None,
            catch_up: CatchUp::new(config.clone()),
            claims: vec![BTreeMap::new(); usize::from(config.replicas)],
            differences: Differences::new(config.replicas, config.window),
            outside: Outside::default(),
            views_entered: 0,
            left_at: None,
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

    /// PBFT's control stage does nothing by the time of day.
    pub fn set_wall_clock(&mut self, _: WallClock) {}

    /// Handles an input.
    pub fn handle(&mut self, input: ToControl, now: Time, out: &mut Output) {
        match input {
            ToControl::Message { from, message } => {
                if let Err(reason) = self.message(from, &message, now, out) {
                    out.reject(Some(from), &message, reason);
                }
            }
            ToControl::Suspect { view } => {
                if self.is_stable() && view == self.stable_view {
                    self.leave_for(self.current.next(), Departure::Suspected, now, out);
                }
            }
            ToControl::Pbft(ControlInput::Left { pillar, to, known }) => {
                self.left(pillar, to, known, now, out);
            }
            ToControl::Pbft(ControlInput::Held { pillar, view }) => {
                self.held(pillar, view, now, out);
            }
            ToControl::Pbft(ControlInput::CheckpointStable(stable)) => {
                self.learn_stable(stable, false, now, out);
            }
            ToControl::Pbft(ControlInput::StateDiffers { peer, theirs, own }) => {
                self.differences.found(peer, theirs, *own, now, out);
            }
            ToControl::Pbft(ControlInput::Undecidable { order }) => {
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
            ToControl::Path(path) => {
                self.way_us = path.takes_us;
                self.longest_way_us = self.longest_way_us.max(path.takes_us);
            }
            // The driver answers status requests; and there is no log yet.
            ToControl::StatusRequest(_) | ToControl::Summarize => {}
            ToControl::Hybster(_) => out.fail(Fatal::of_another_protocol()),
        }
        self.finish(now, out);
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
            kind::VIEW_CHANGE_ACK => self.view_change_ack(from, message),
            kind::NEW_VIEW => self.new_view(from, message, now, out),
            kind::STATE_REQUEST => {
                let request = StateRequest::parse_as(message, kind::STATE_REQUEST)?;
                self.state_request(from, &request, now, out);
                Ok(())
            }
            kind::STABLE => self.stable_claim(from, message, now, out),
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
        if self.new_view_due.is_some_and(|at| at <= now) {
            self.new_view_overdue(now, out);
        }
        if self.outside.deadline(&self.config).is_some_and(|at| at <= now) {
            self.outside.step_up();
            self.leave_for(self.current.next(), Departure::PeerOutside, now, out);
        }
        self.finish(now, out);
    }

    fn finish(&mut self, now: Time, out: &mut Output) {
        if out.fatal.is_none() {
            self.evaluate(now, out);
        }
        self.note_outsiders(now);
        self.differences.forward(self.catch_up.stable().id.order, out);
        self.check_invariants(out);
    }

    /// When [`Control::tick`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let views = earliest(self.resend_due, self.new_view_due);
        let outside = self.outside.deadline(&self.config);
        earliest(earliest(views, outside), self.catch_up.deadline())
    }

    /// What can be done now, in an order that prefers to enter views over leaving them.
    fn evaluate(&mut self, now: Time, out: &mut Output) {
        if matches!(self.phase, Phase::Leaving { .. }) || self.enter_pending(now, out) {
            return;
        }
        if matches!(self.phase, Phase::Establishing(_)) || self.establish_ready(out) {
            return;
        }
        if self.suspected_by_others(now, out) || self.left_by_leader(now, out) {
            return;
        }
        self.expect_new_view(now);
    }

    /// A peer that left the view alone can take part again in the next one only (DEVIATIONS 27).
    fn note_outsiders(&mut self, now: Time) {
        let leads = self.is_stable() && self.config.leader(self.stable_view) == self.id;
        let is_outside = leads
            && self.messages.asked_by(1) > self.current
            && !self.differences.has_halted()
            && !crate::mutants::active(crate::mutants::Mutant::LeftOutside);
        self.outside.note(is_outside, now);
    }

    fn is_stable(&self) -> bool {
        matches!(self.phase, Phase::Stable)
    }

    fn check_invariants(&self, out: &Output) {
        if out.fatal.is_some() {
            return;
        }
        assert!(self.stable_view <= self.current, "views rise");
        assert_eq!(
            self.is_stable(),
            self.stable_view == self.current,
            "a view change ends in its view"
        );
        if self.is_stable() {
            assert!(self.new_view_due.is_none(), "nobody waits for a NEW-VIEW in a stable view");
            assert!(self.resend_due.is_none(), "nothing is sent again in a stable view");
        }
        let waits = matches!(self.phase, Phase::Waiting);
        assert!(!waits || self.resend_due.is_some(), "what was sent is sent again");
        assert!(
            self.pending.len() < usize::from(self.config.replicas).max(2),
            "one NEW-VIEW per peer"
        );
        let bounded = self.claims.iter().all(|of| of.len() <= STABLE_CLAIMS);
        assert!(bounded, "STABLE messages are bounded");
        self.messages.check_invariants(&self.config);
        self.catch_up.check_invariants();
    }
}
