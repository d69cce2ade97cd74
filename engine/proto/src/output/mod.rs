//! The interface between the stages of a replica and their driver.
//!
//! A replica consists of *stages*: the request intake, P pillars, the execution stage, the state
//! stage (checkpoints and state transfer) and the control stage (view changes). Each is a state
//! machine that takes an [`Input`] and pushes effects into an [`Output`] that the driver empties:
//! inputs to other stages, messages to peers, replies to clients. A driver may put the stages on
//! one thread or on many: inputs between two stages must arrive in the order they were sent;
//! nothing is assumed about inputs of different pairs.

mod effects;
mod log;
mod rejections;
mod replies;
mod routing;

use bytes::Bytes;

use crate::ids::{ClientId, OrderNumber, PillarId, ReplicaId};
use crate::membership::Change;
use crate::notice::{MOST_NOTICES, Notice};
use crate::trace::TraceEvent;
use crate::wire::{self, CheckpointId};

pub use crate::input::{
    Agreed, ClientLink, DurableCheckpoint, Input, Source, TakenSnapshot, ToControl, ToExecution,
    ToIntake, ToPillar, ToState,
};
pub use effects::{Answerer, Destination, Network, SendTag, Watermark};
pub use log::LogRecord;
pub use rejections::{Reject, Rejection};
pub(crate) use replies::REPLY_RECORD_BYTES;
pub use replies::{Cause, LARGE_REPLY_BYTES, Reply, ReplyQueue, ResultsDigest, SPARE_QUEUE_BYTES};
pub use routing::{route_client_message, route_peer_message};

/// This replica must stop: an invariant of its own is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// The trusted subsystem refused a call that a correct replica makes.
    #[error("TrInX refused a call of this replica: {0}; stop and replace the replica")]
    Refused(String),
    /// The service could not read a certified state.
    #[error("{0}; install the service version that the group runs")]
    Restore(String),
    /// A peer has a certificate of this replica that its log does not have.
    #[error(
        "the replica's data is an older copy: {0}, and its log ends before that. Put the newest data back, or go \
         on without this replica (a group does with up to f replicas less)"
    )]
    OlderCopy(String),
    /// An invariant does not hold.
    #[error("invariant broken: {0}")]
    Invariant(String),
}

impl Fatal {
    /// A stage was given an input of another ordering protocol's stages, which only those push.
    #[cold]
    pub(crate) fn of_another_protocol() -> Self {
        Self::Invariant("a stage got an input of another ordering protocol".into())
    }
}

/// An epoch is over: its last checkpoint is stable, and nothing is ordered beyond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The last checkpoint.
    pub id: CheckpointId,
    /// What proves it, and names the next configuration.
    pub certificate: Bytes,
}

/// What stages push their effects into; emptied by the driver, memory reused.
#[derive(Default, Debug)]
pub struct Output {
    /// Effects on the network, in order.
    pub network: Vec<Network>,
    /// Inputs to stages of this replica, in order.
    pub inputs: Vec<Input>,
    /// Replies to clients.
    pub replies: ReplyQueue,
    /// What the log must keep, in order; empty unless `logging`. It goes before everything else in
    /// here, and nothing that leaves the host does so before it is durable.
    pub records: Vec<LogRecord>,
    /// A checkpoint to be made durable in the place of the last one; only if `logging`.
    pub checkpoint: Option<DurableCheckpoint>,
    /// All that the log had of a pillar is in it once more, behind [`ToControl::Summarize`]: once all
    /// pillars have said so, and a checkpoint of the highest of these order numbers is durable, what
    /// was logged before that input is not needed any more.
    pub summarized: Option<OrderNumber>,
    /// Clients whose links are not to be read any more, or are again; in order.
    pub pauses: Vec<(ClientId, bool)>,
    /// Dropped messages.
    pub rejections: Vec<Rejection>,
    /// Protocol events; empty unless `tracing`.
    pub trace: Vec<TraceEvent>,
    /// What an operator should know.
    pub notices: Vec<Notice>,
    /// The epoch is over; set again at most with the same.
    pub ended: Option<Ended>,
    /// A change of members that has not come to its boundary: what a driver needs besides `ended` to begin the next
    /// epoch. Set again at most with the same.
    pub pending: Option<Change>,
    /// Whether protocol events are recorded.
    pub tracing: bool,
    /// Whether the replica has a log from which it can be started again.
    pub logging: bool,
    /// Set when the replica must stop.
    pub fatal: Option<Fatal>,
}

impl Output {
    /// Sends a message that may have been sent before.
    pub(crate) fn send(&mut self, to: Destination, message: Bytes, tag: SendTag) {
        self.network.push(Network::Send { to, message, tag, is_new: false });
    }

    /// Sends a message that this replica has never sent to anyone. Only the most frequent ones are
    /// worth the difference.
    pub(crate) fn send_new(&mut self, to: Destination, message: Bytes, tag: SendTag) {
        self.network.push(Network::Send { to, message, tag, is_new: true });
    }

    pub(crate) fn pillar(&mut self, pillar: PillarId, input: impl Into<ToPillar>) {
        self.inputs.push(Input::Pillar(pillar, input.into()));
    }

    pub(crate) fn control(&mut self, input: impl Into<ToControl>) {
        self.inputs.push(Input::Control(input.into()));
    }

    pub(crate) fn intake(&mut self, input: ToIntake) {
        self.inputs.push(Input::Intake(input));
    }

    pub(crate) fn execution(&mut self, input: ToExecution) {
        self.inputs.push(Input::Execution(input));
    }

    pub(crate) fn state(&mut self, input: ToState) {
        self.inputs.push(Input::State(input));
    }

    pub(crate) fn reject(&mut self, from: Option<ReplicaId>, message: &[u8], reason: Reject) {
        let (kind, bytes) =
            (wire::kind_of(message), u32::try_from(message.len()).unwrap_or(u32::MAX));
        self.rejections.push(Rejection { from, kind, bytes, reason });
    }

    /// Drops a message of a client's own link; one that no correct client sends costs it the link.
    pub(crate) fn reject_client(&mut self, link: ClientLink, message: &[u8], reason: Reject) {
        self.reject(None, message, reason);
        if matches!(reason, Reject::Malformed | Reject::WrongSender | Reject::BadRequest) {
            self.close_client(link);
        }
    }

    /// Closes the link of a client; once for what a stage finds in a row.
    pub(crate) fn close_client(&mut self, link: ClientLink) {
        let last = self.network.last();
        if !matches!(last, Some(Network::CloseClient(closed)) if *closed == link) {
            self.network.push(Network::CloseClient(link));
        }
    }

    pub(crate) fn trace(&mut self, event: impl FnOnce() -> TraceEvent) {
        if self.tracing {
            self.trace.push(event());
        }
    }

    /// Has the log keep something.
    #[inline]
    pub(crate) fn log(&mut self, record: impl FnOnce() -> LogRecord) {
        if self.logging {
            self.records.push(record());
        }
    }

    /// Tells the operator something.
    pub(crate) fn notice(&mut self, notice: impl FnOnce() -> Notice) {
        if self.notices.len() < MOST_NOTICES {
            self.notices.push(notice());
        }
    }

    pub(crate) fn fail(&mut self, fatal: Fatal) {
        self.fatal.get_or_insert(fatal);
    }

    /// Whether nothing is left to be done by the driver.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.network.is_empty()
            && self.inputs.is_empty()
            && self.replies.is_empty()
            && self.records.is_empty()
    }
}
