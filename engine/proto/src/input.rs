//! What stages are told: inputs from the links, from each other and from the driver.

use bytes::{Bytes, BytesMut};
use hybster_tss::Digest;
use std::sync::Arc;

use crate::hybster;
use crate::ids::{ClientId, OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId, View};
use crate::membership::Ending;
use crate::pbft;
use crate::service::Snapshot;
use crate::transferred::TransferredState;
use crate::wire::{CheckpointId, RequestTag};

pub use crate::ids::ClientLink;

/// Where a requests message came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A client's own link.
    Client(ClientLink),
    /// A replica that forwards requests (TR listing 15, forwardRequest).
    Peer(ReplicaId),
}

/// Something for a stage to handle.
#[derive(Debug)]
pub enum Input {
    /// For the request intake.
    Intake(ToIntake),
    /// For a pillar.
    Pillar(PillarId, ToPillar),
    /// For the execution stage.
    Execution(ToExecution),
    /// For the state stage.
    State(ToState),
    /// For the control stage.
    Control(ToControl),
}

impl Input {
    /// The message of a peer that it hands over, and the peer.
    #[inline]
    #[must_use]
    pub fn of_peer(&self) -> Option<(ReplicaId, &Bytes)> {
        match self {
            Self::Pillar(_, ToPillar::Message { from, message })
            | Self::State(ToState::Message { from, message })
            | Self::Control(ToControl::Message { from, message })
            | Self::Intake(ToIntake::Requests { from: Source::Peer(from), message }) => {
                Some((*from, message))
            }
            _ => None,
        }
    }

    /// The beginning of its text: batches in it can be long.
    #[must_use]
    pub fn in_short(&self) -> String {
        format!("{self:?}").chars().take(200).collect()
    }
}

/// Inputs of the request intake.
#[derive(Debug)]
pub enum ToIntake {
    /// A REQUESTS message.
    Requests {
        /// Where it came from.
        from: Source,
        /// The message.
        message: Bytes,
    },
    /// A leading pillar says where it proposes next; sent when it enters the view, when it has
    /// taken inputs, and when its window moves.
    Proposed {
        /// The pillar.
        pillar: PillarId,
        /// The view that it leads.
        view: View,
        /// Its next slot.
        next_slot: u64,
        /// Inputs of the request intake that it has dealt with since it said so last.
        taken: u32,
    },
    /// A request that the stage asked about has not been executed.
    NotExecuted {
        /// Its session.
        session: SessionId,
        /// Its number.
        number: RequestNumber,
        /// As in the question.
        is_counted: bool,
        /// The order number up to which everything has been executed.
        executed: OrderNumber,
        /// What was executed instead, so far.
        progress: Progress,
    },
    /// A request that the stage asked about was executed.
    Executed {
        /// Its session.
        session: SessionId,
        /// Its number.
        number: RequestNumber,
        /// As in the question; not, if this only tells of an execution that was watched for.
        is_counted: bool,
    },
    /// There is no room for more replies to a client, or there is again: its requests have to wait.
    Held {
        /// The client.
        client: ClientId,
        /// Whether there is no room.
        is_held: bool,
    },
    /// What the way to the peers is like.
    Path(PathState),
    /// Messages with forwarded requests do not wait any more: the oldest ones have left, or their link has gone.
    ForwardsLeft {
        /// To whom they were sent.
        peer: ReplicaId,
        /// How many.
        messages: u32,
    },
    /// What a pillar has handed to the execution stage, as it was asked.
    Committed {
        /// The pillar.
        pillar: PillarId,
        /// The question.
        round: u64,
        /// The order number that it hands over next.
        next: OrderNumber,
    },
    /// A pillar has committed everything in its window, and nobody can order more there until a
    /// checkpoint is stable; or that has ended.
    Window {
        /// The pillar.
        pillar: PillarId,
        /// Whether everything is committed.
        is_full: bool,
        /// The order number after which its window begins.
        base: OrderNumber,
    },
    /// The states of the replicas differ so that nothing can be ordered any more, in no view; or that
    /// has ended.
    StatesDiffer {
        /// Whether nothing can be ordered.
        halted: bool,
    },
    /// The disk has no room for what clients ask for, but for what peers send; or it has again.
    DiskFull {
        /// Whether clients are refused.
        is_full: bool,
    },
    /// The replica left its view (TR listing 15, leaveViewFor).
    ViewLeft {
        /// The view that it left for.
        view: View,
    },
    /// The replica is in a stable view (TR listing 15, enterView).
    ViewEntered {
        /// The view.
        view: View,
        /// Per pillar the slot that would be proposed next.
        next_slots: Vec<u64>,
    },
}

/// Inputs to a pillar.
#[derive(Debug)]
pub enum ToPillar {
    /// Requests to propose. The buffer has [`crate::protocol::Rules::proposal_head`] bytes of room
    /// in front.
    Batch {
        /// The view in which it is to be proposed.
        view: View,
        /// Room and records.
        buffer: BytesMut,
        /// Number of records.
        requests: u32,
    },
    /// Propose a no-op through this slot: other pillars are ahead (DEVIATIONS 6).
    FillGap {
        /// The view in which it is to be proposed.
        view: View,
        /// Last slot to cover.
        through: u64,
    },
    /// A message from a peer.
    Message {
        /// The link's peer.
        from: ReplicaId,
        /// The message.
        message: Bytes,
    },
    /// A checkpoint is stable (TR listing 16, forwardOrderWindow).
    ForwardWindow {
        /// Its order number.
        to: OrderNumber,
        /// The last order number of the epoch, if the checkpoint's certificate names it.
        boundary: Option<OrderNumber>,
    },
    /// This replica has executed a change of members: the epoch ends with this order number, up to which a leader
    /// orders no-ops if nothing else.
    EndsAt(OrderNumber),
    /// Vouch for a checkpoint of this replica (TR listing 18, sendCheckpoint).
    CertifyCheckpoint {
        /// The checkpoint.
        id: CheckpointId,
        /// How the epoch ends, if its state says so.
        ending: Option<Box<Ending>>,
    },
    /// Put all that the log has of this pillar into it once more, as soon as the window moves.
    Summarize,
    /// Ask the peers for what this pillar lacks.
    AskPeers,
    /// Tell the request intake what was handed to the execution stage.
    TellCommitted {
        /// The question.
        round: u64,
    },
    /// The link to a peer is up (again): send what is not withdrawn (TR listing 9).
    PeerUp(ReplicaId),
    /// Answers of this pillar to a peer do not wait any more: there is room for others.
    AnswersLeft {
        /// Who asked.
        peer: ReplicaId,
        /// How many, the oldest ones.
        answers: u32,
    },
    /// What the way to the peers is like.
    Path(PathState),
    /// What only Hybster knows.
    Hybster(hybster::PillarInput),
    /// What only PBFT knows.
    Pbft(pbft::PillarInput),
}

/// What a replica has executed so far, for whoever asks whether a request waits for its turn or is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Bytes of the requests that ran.
    pub bytes: u64,
    /// How often all who wait must have had their turn: see the execution stage.
    pub turns: u32,
    /// Bytes of the longest batch in the last turn or two.
    pub longest: u32,
}

/// What the way is like to those peers that a proposal must reach to be committed, as Egress sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathState {
    /// How long what is sent now takes to arrive and an answer to come back, in microseconds.
    pub takes_us: u64,
    /// What it carries in a moment, in bytes: a batch should not be longer.
    pub batch_bytes: u32,
    /// Whether it has all that it can carry, so that a proposal would only wait.
    pub is_full: bool,
    /// What the slowest of those ways to peers carries that are known to carry no more, in bytes per second.
    pub least_rate: u64,
}

impl PathState {
    /// A wire that carries less than this is a slow one, in bytes per second.
    const COSTLY_RATE: u64 = 1_900_000;

    /// Whether a copy of what somebody may have is worth waiting for, before it is sent.
    #[must_use]
    pub fn is_costly(&self) -> bool {
        self.least_rate < Self::COSTLY_RATE
    }
}

impl Default for PathState {
    /// Nothing is known.
    fn default() -> Self {
        Self { takes_us: 0, batch_bytes: u32::MAX, is_full: false, least_rate: u64::MAX }
    }
}

/// What was agreed at an order number. The proposal is kept as one piece and read where it is
/// needed, so that an input stays small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    proposal: Bytes,
    records_at: u16,
    /// [`NO_DIGEST`] if there is none.
    digest_at: u16,
    /// When its leader proposed it, in milliseconds since the Unix epoch; 0 for a no-op.
    pub time_ms: u64,
}

const NO_DIGEST: u16 = u16::MAX;

impl Agreed {
    /// What a proposal says: its records are the rest from `records_at` on, and the digest of these
    /// is at `digest_at`.
    ///
    /// # Panics
    /// If the proposal is shorter.
    #[must_use]
    pub fn new(proposal: Bytes, records_at: usize, digest_at: usize, time_ms: u64) -> Self {
        assert!(digest_at + 32 <= records_at && records_at <= proposal.len());
        Self { proposal, records_at: records_at as u16, digest_at: digest_at as u16, time_ms }
    }

    /// Records that nobody had to agree on.
    #[must_use]
    pub fn alone(records: Bytes, time_ms: u64) -> Self {
        Self { proposal: records, records_at: 0, digest_at: NO_DIGEST, time_ms }
    }

    /// The records of the batch; none for a no-op.
    #[must_use]
    pub fn records(&self) -> &[u8] {
        &self.proposal[usize::from(self.records_at)..]
    }

    /// The digest of the records that was agreed; zeros if none was.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        if self.digest_at != NO_DIGEST {
            let at = usize::from(self.digest_at);
            digest.0.copy_from_slice(&self.proposal[at..at + 32]);
        }
        digest
    }
}

/// Inputs to the execution stage.
#[derive(Debug)]
pub enum ToExecution {
    /// Slots of a pillar are committed, handed over in slot order.
    Committed {
        /// The pillar.
        pillar: PillarId,
        /// First slot.
        first_slot: u64,
        /// Last slot; larger than the first only for a no-op.
        last_slot: u64,
        /// The batch.
        batch: Agreed,
    },
    /// The state stage has dropped snapshots that were taken.
    SnapshotsDropped {
        /// How many.
        count: usize,
    },
    /// A QUERIES message: read-only requests to be answered from the present state.
    Query {
        /// The client's link.
        link: ClientLink,
        /// The message.
        message: Bytes,
    },
    /// Answer from the session table, or notify the request intake once executed.
    Resend {
        /// The session.
        session: SessionId,
        /// The request's number.
        number: RequestNumber,
        /// What tells it from others with that number.
        tag: RequestTag,
        /// Whether the question is one of those that its client may have before this stage.
        is_counted: bool,
    },
    /// There is room for a reply that was deferred ([`Cause::Deferred`](crate::output::Cause)).
    Recall {
        /// The session.
        session: SessionId,
        /// The request's number.
        number: RequestNumber,
        /// What tells it from others with that number.
        tag: RequestTag,
    },
    /// The request intake does not care about a request any more.
    Unwatch {
        /// The session.
        session: SessionId,
        /// The request's number.
        number: RequestNumber,
    },
    /// The replica's stable view, for replies.
    View(View),
    /// The replica's state diverged from a stable checkpoint: execute nothing until a transferred
    /// state is installed.
    Halt,
    /// A transferred state.
    Install {
        /// The checkpoint.
        id: CheckpointId,
        /// All pages: those of the replica's own bookkeeping and the service's.
        state: Arc<TransferredState>,
    },
}

/// A snapshot that the execution stage took: an immutable handle, to be digested elsewhere.
#[derive(Clone)]
pub struct TakenSnapshot {
    /// The order number that was executed last.
    pub order: OrderNumber,
    /// Pages of meta data and sessions.
    pub bookkeeping: Arc<dyn Snapshot>,
    /// Pages of the service.
    pub service: Arc<dyn Snapshot>,
    /// Whether the state was just installed: the versions of bookkeeping pages start again.
    pub installed: bool,
}

impl std::fmt::Debug for TakenSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TakenSnapshot").field("order", &self.order).finish_non_exhaustive()
    }
}

/// A checkpoint that is to be durable: a replica that is started again begins with the last one that
/// is, and executes again what its log has beyond.
#[derive(Clone, Debug)]
pub struct DurableCheckpoint {
    /// The checkpoint.
    pub id: CheckpointId,
    /// Its pages.
    pub taken: TakenSnapshot,
    /// What proves it to others, if it is known. It is for backups: the replica itself has its log.
    pub certificate: Option<Arc<[u8]>>,
    /// A state was installed since the last one: equal versions of pages do not tell equal pages.
    pub is_anew: bool,
    /// It is what the disk has: the replica began with it, and later ones can be compared with it.
    pub is_there: bool,
}

/// Inputs to the state stage.
#[derive(Debug)]
pub enum ToState {
    /// The last [`DurableCheckpoint`] of this order number, or an earlier one, is durable.
    Durable(OrderNumber),
    /// The execution stage took a snapshot.
    Taken(TakenSnapshot),
    /// A checkpoint is stable; older ones are discarded.
    Stable {
        /// The checkpoint.
        id: CheckpointId,
        /// What proves it to others, if the protocol has that and the replica keeps a log.
        certificate: Option<Arc<[u8]>>,
    },
    /// Fetch a stable checkpoint: execution cannot reach it by itself.
    Transfer {
        /// The checkpoint.
        id: CheckpointId,
        /// Whether this replica's state diverged, so that nothing of it may be used again, and nothing
        /// is executed until it is replaced.
        whole: bool,
    },
    /// Tell the operator where the state of a peer differs from this replica's.
    Compare {
        /// The peer.
        peer: ReplicaId,
        /// The checkpoint that it vouches for.
        theirs: CheckpointId,
    },
    /// A FETCH or FETCHED message.
    Message {
        /// The link's peer.
        from: ReplicaId,
        /// The message.
        message: Bytes,
    },
    /// Answers to a peer's FETCHes do not wait any more: there is room for others.
    AnswersLeft {
        /// Who asked.
        peer: ReplicaId,
        /// How many, the oldest ones.
        answers: u32,
    },
}

/// Inputs to the control stage.
#[derive(Debug)]
pub enum ToControl {
    /// A message from a peer.
    Message {
        /// The link's peer.
        from: ReplicaId,
        /// The message.
        message: Bytes,
    },
    /// A request waited too long in this view (TR listing 15, suspectsLeader).
    Suspect {
        /// The view.
        view: View,
    },
    /// This replica digested its own checkpoint.
    CheckpointTaken(CheckpointId),
    /// The execution stage installed a transferred state.
    Installed(CheckpointId),
    /// A peer showed that it lacks the stable view or checkpoint.
    PeerBehind(ReplicaId),
    /// Something is outstanding for long, or a peer is ahead: ask for state.
    Stuck,
    /// The link to a peer is up (again).
    PeerUp(ReplicaId),
    /// Put what the log has of all stages into it once more: what is in front can be removed then.
    Summarize,
    /// What the way to the peers is like.
    Path(PathState),
    /// A client asks for the replica's status.
    StatusRequest(ClientLink),
    /// What only Hybster knows.
    Hybster(hybster::ControlInput),
    /// What only PBFT knows.
    Pbft(pbft::ControlInput),
}

/// It is moved between threads several times on a request's way.
const _: () = assert!(size_of::<Input>() <= 80);
