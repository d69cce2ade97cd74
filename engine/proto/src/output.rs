//! The seam between the stages of a replica and whoever drives them.
//!
//! A replica consists of *stages*: the client stage, P pillars, the execution stage, the state
//! stage (checkpoints and state transfer) and the control stage (view changes). Each is a state
//! machine that takes a [`Letter`] and pushes effects into an [`Output`] that the driver empties:
//! letters to other stages, messages to peers, replies to clients. A driver may put the stages on
//! one thread or on many: letters between two stages must arrive in the order they were sent;
//! nothing is assumed about letters of different pairs.

use bytes::{Bytes, BytesMut};
use hybster_tss::{Digest, Proof};
use std::sync::Arc;

use crate::ids::{
    ClientId, OrderNumber, Peers, PillarId, ReplicaId, RequestNumber, SessionId, View,
};
use crate::service::Snapshot;
use crate::state::TransferredState;
use crate::trace::TraceEvent;
use crate::wire::view::Part;
use crate::wire::{CheckpointCertificate, CheckpointId, PrepareHeader, ReplyStatus, WireError};

/// The link that a client message came over: replies to a session go to the link of its client
/// and incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ClientLink {
    /// The client identity that the handshake authenticated.
    pub client: ClientId,
    /// The incarnation that the client announced.
    pub incarnation: u64,
}

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
pub enum Letter {
    /// For the client stage.
    Clients(ToClients),
    /// For a pillar.
    Pillar(PillarId, ToPillar),
    /// For the execution stage.
    Execution(ToExecution),
    /// For the state stage.
    State(ToState),
    /// For the control stage.
    Control(ToControl),
}

/// Letters to the client stage.
#[derive(Debug)]
pub enum ToClients {
    /// A REQUESTS message.
    Requests {
        /// Where it came from.
        from: Source,
        /// The message.
        message: Bytes,
    },
    /// A leading pillar says where it proposes next; sent when it enters the view, when it has
    /// taken letters, and when its window moves.
    Proposed {
        /// The pillar.
        pillar: PillarId,
        /// The view that it leads.
        view: View,
        /// Its next slot.
        next_slot: u64,
        /// Letters of the client stage that it has dealt with since it said so last.
        taken: u32,
    },
    /// A request that the stage asked about has not been executed.
    NotExecuted {
        /// Its session.
        session: SessionId,
        /// Its number.
        number: RequestNumber,
    },
    /// A request that the stage asked about was executed.
    Executed {
        /// Its session.
        session: SessionId,
        /// Its number.
        number: RequestNumber,
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

/// Letters to a pillar.
#[derive(Debug)]
pub enum ToPillar {
    /// Requests to propose. The buffer has [`crate::wire::PREPARE_HEAD`] bytes of room in front.
    Batch {
        /// The view in which it is to be proposed.
        view: View,
        /// Room and records.
        buffer: BytesMut,
        /// Number of records.
        requests: u32,
    },
    /// Propose a no-op through this slot: other pillars are ahead (DESIGN 7).
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
    /// Leave the view and hand over the part (TR listing 16, createAbortState and abortView).
    Abort {
        /// Last stable view, v_from.
        from: View,
        /// The view to leave for, v_to.
        to: View,
        /// The stable checkpoint that all parts start from.
        checkpoint: Arc<CheckpointCertificate>,
    },
    /// Say when the batches of these prepared headers are held and valid; ask `source` for
    /// missing ones, and keep all of them until [`ToPillar::Release`].
    Hold {
        /// Returned with the answer.
        ticket: u64,
        /// Who must hold them.
        source: ReplicaId,
        /// The headers.
        headers: Vec<PrepareHeader>,
    },
    /// The batches of a [`ToPillar::Hold`] are not needed any more.
    Release {
        /// The ticket.
        ticket: u64,
    },
    /// Re-issue PREPAREs in a view that this replica is to lead
    /// (TR listing 16, createViewTransition).
    Establish {
        /// The view.
        view: View,
        /// Headers of earlier views, contiguous.
        prepared: Vec<PrepareHeader>,
    },
    /// Certify a NEW-VIEW with counter N (pillar 0 only).
    CertifyNewView {
        /// The view.
        view: View,
        /// Digest of the NEW-VIEW.
        digest: Digest,
    },
    /// Make the trusted MAC of a NEW-VIEW-ACK (pillar 0 only).
    CertifyAck {
        /// The acknowledged view.
        view: View,
        /// Digest of the NEW-VIEW-ACK.
        digest: Digest,
    },
    /// Enter a view (TR listing 16, enterView).
    Enter {
        /// The view.
        view: View,
        /// The replica's current view; larger if the entered one is belated.
        current: View,
        /// P′ of this pillar.
        prepares: Vec<PrepareHeader>,
    },
    /// A checkpoint is stable (TR listing 16, forwardOrderWindow).
    ForwardWindow {
        /// Its order number.
        to: OrderNumber,
    },
    /// Vouch for a checkpoint of this replica (TR listing 18, sendCheckpoint).
    CertifyCheckpoint {
        /// The checkpoint.
        id: CheckpointId,
    },
    /// Ask the peers for what this pillar lacks.
    AskPeers,
    /// Pillar 0 of a leader has found followers that are faster: all pillars ask these first.
    AskFirst {
        /// The view that it leads.
        view: View,
        /// The followers.
        first: Peers,
    },
    /// The link to a peer is up (again): send what is not withdrawn (TR listing 9).
    PeerUp(ReplicaId),
}

/// Letters to the execution stage.
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
        /// Records of the batch; empty for a no-op.
        batch: Bytes,
    },
    /// A QUERIES message: read-only requests to be answered from the present state.
    Query {
        /// The client's link.
        link: ClientLink,
        /// The message.
        message: Bytes,
    },
    /// Answer from the session table, or notify the client stage once executed.
    Resend {
        /// The session.
        session: SessionId,
        /// The request's number.
        number: RequestNumber,
    },
    /// The client stage does not care about a request any more.
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
    /// Whether the state was just installed: the versions of bookkeeping pages start anew.
    pub installed: bool,
}

impl std::fmt::Debug for TakenSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TakenSnapshot").field("order", &self.order).finish_non_exhaustive()
    }
}

/// Letters to the state stage.
#[derive(Debug)]
pub enum ToState {
    /// The execution stage took a snapshot.
    Taken(TakenSnapshot),
    /// A checkpoint is stable; older ones are discarded.
    Stable(CheckpointId),
    /// Fetch a stable checkpoint: execution cannot reach it by itself.
    Transfer {
        /// The checkpoint.
        id: CheckpointId,
        /// Whether the own state diverged, so that nothing of it may be used again.
        whole: bool,
    },
    /// A FETCH or FETCHED message.
    Message {
        /// The link's peer.
        from: ReplicaId,
        /// The message.
        message: Bytes,
    },
}

/// Letters to the control stage.
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
    /// A pillar stopped and hands over its part.
    Part {
        /// The pillar.
        pillar: PillarId,
        /// The view left for.
        to: View,
        /// Its part.
        part: Part,
    },
    /// All batches of a [`ToPillar::Hold`] are held and valid, or one of them is invalid.
    Held {
        /// The ticket.
        ticket: u64,
        /// The pillar.
        pillar: PillarId,
        /// Whether all are valid.
        valid: bool,
    },
    /// The PREPAREs of a view to establish are certified.
    Established {
        /// The pillar.
        pillar: PillarId,
        /// The view.
        view: View,
        /// P′ of the pillar.
        prepares: Vec<PrepareHeader>,
    },
    /// Pillar 0 certified the NEW-VIEW.
    NewViewCertified {
        /// The view.
        view: View,
        /// The proof.
        proof: Proof,
    },
    /// Pillar 0 certified the NEW-VIEW-ACK.
    AckCertified {
        /// The view.
        view: View,
        /// The proof.
        proof: Proof,
    },
    /// A pillar has a certificate of a stable checkpoint.
    CheckpointStable(CheckpointCertificate),
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
    /// A client asks for the replica's status.
    StatusRequest(ClientLink),
}

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// One peer.
    Peer(ReplicaId),
    /// All other replicas.
    AllPeers,
    /// All other replicas: these at once, the others when there is something else for them to
    /// wait for, or after a few milliseconds at the latest; in order with what goes to them
    /// before and after.
    Thrifty(Peers),
    /// A client's link, for what is not a reply.
    Client(ClientLink),
}

impl Destination {
    /// Whether a message of replica `from` goes to replica `to`, sooner or later.
    #[must_use]
    pub fn reaches(self, from: ReplicaId, to: ReplicaId) -> bool {
        match self {
            Destination::Peer(peer) => peer == to,
            Destination::AllPeers | Destination::Thrifty(_) => from != to,
            Destination::Client(_) => false,
        }
    }
}

/// What a queued message is about; tells whether the protocol has withdrawn it (TR listing 9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendTag {
    /// PREPARE or COMMIT.
    Ordering(View, OrderNumber),
    /// CHECKPOINT.
    Checkpoint(OrderNumber),
    /// VIEW-CHANGE for a view.
    ViewChange(View),
    /// NEW-VIEW or NEW-VIEW-ACK of a view.
    NewView(View),
    /// Asked for, or asking: worthless when late, sent again when asked again.
    Transient,
}

/// What the protocol has left behind: queued messages below it need not be sent any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermark {
    /// The stable checkpoint.
    pub order: OrderNumber,
    /// The stable view.
    pub view: View,
}

impl SendTag {
    /// Whether a message still waiting to be sent is withdrawn.
    #[must_use]
    pub fn is_withdrawn(&self, mark: &Watermark) -> bool {
        match *self {
            SendTag::Ordering(view, order) => view < mark.view || order <= mark.order,
            SendTag::Checkpoint(order) => order < mark.order,
            SendTag::ViewChange(view) => view <= mark.view,
            SendTag::NewView(view) => view < mark.view,
            SendTag::Transient => false,
        }
    }
}

/// An effect on the network.
#[derive(Debug, Clone)]
pub enum Network {
    /// Send a message.
    Send {
        /// To whom.
        to: Destination,
        /// The message.
        message: Bytes,
        /// What it is about.
        tag: SendTag,
    },
    /// Forget queued messages that lie below (TR listing 9, remove).
    Withdraw(Watermark),
}

/// Replies of one replica, kept flat so that pushing one allocates nothing.
#[derive(Default, Debug)]
pub struct ReplyQueue {
    entries: Vec<ReplyRecord>,
    results: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct ReplyRecord {
    session: SessionId,
    number: RequestNumber,
    view: View,
    status: ReplyStatus,
    end: usize,
}

/// A reply in a [`ReplyQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The session; its client and incarnation tell the link.
    pub session: SessionId,
    /// The request's number.
    pub number: RequestNumber,
    /// The replica's stable view.
    pub view: View,
    /// What became of the request.
    pub status: ReplyStatus,
    /// The result.
    pub result: &'a [u8],
}

impl Reply<'_> {
    /// The link that the reply goes to.
    #[must_use]
    pub fn link(&self) -> ClientLink {
        ClientLink { client: self.session.client, incarnation: self.session.incarnation() }
    }
}

impl ReplyQueue {
    /// Appends a reply.
    pub fn push(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        view: View,
        status: ReplyStatus,
        result: &[u8],
    ) {
        self.results.extend_from_slice(result);
        let end = self.results.len();
        self.entries.push(ReplyRecord { session, number, view, status, end });
    }

    /// Number of replies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The replies in order.
    pub fn iter(&self) -> impl Iterator<Item = Reply<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |e| {
            let result = &self.results[start..e.end];
            start = e.end;
            Reply { session: e.session, number: e.number, view: e.view, status: e.status, result }
        })
    }

    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.results.clear();
    }

    /// Moves all replies of `other` to the end of this queue.
    pub fn append(&mut self, other: &mut ReplyQueue) {
        let base = self.results.len();
        self.results.append(&mut other.results);
        self.entries.extend(other.entries.drain(..).map(|mut e| {
            e.end += base;
            e
        }));
    }
}

/// Why a message was dropped. Dropped messages are counted by kind, sender and reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reject {
    /// Not a message of its kind.
    Malformed,
    /// The sender may not send it.
    WrongSender,
    /// It belongs to a view that is not the stable one.
    WrongView,
    /// Its order number lies outside the window, or was covered before.
    OutOfWindow,
    /// Its certificate is not valid.
    BadCertificate,
    /// A client's request in it is not authentic.
    BadRequest,
    /// A batch does not have the size or digest that was announced.
    BadBatch,
    /// The prepared set of a part is not contiguous or misses what the counter discloses.
    BadPreparedSet,
    /// The chain of counter steps does not lead back to v_from.
    BadChain,
    /// Fewer replicas vouch than needed, or for something else.
    BadQuorum,
    /// A NEW-VIEW re-issues something else than its abort states demand.
    BadTransition,
    /// It is known already or of no use any more.
    Irrelevant,
    /// The buffer for such messages is full.
    Overload,
}

impl From<WireError> for Reject {
    fn from(_: WireError) -> Self {
        Reject::Malformed
    }
}

/// A dropped message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// The replica that sent it; `None` for clients.
    pub from: Option<ReplicaId>,
    /// Its kind byte.
    pub kind: u8,
    /// Why.
    pub reason: Reject,
}

/// This replica must stop: an invariant of its own is broken (STYLE rule 2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The trusted subsystem refused a call that a correct replica makes.
    #[error("TrInX refused a call of this replica: {0}; stop and replace the replica")]
    Refused(String),
    /// The service could not read a certified state.
    #[error("{0}; install the service version that the group runs")]
    Restore(String),
    /// An invariant does not hold.
    #[error("invariant broken: {0}")]
    Invariant(String),
}

/// What stages push their effects into; emptied by the driver, memory reused.
#[derive(Default, Debug)]
pub struct Output {
    /// Effects on the network, in order.
    pub network: Vec<Network>,
    /// Letters to stages of this replica, in order.
    pub letters: Vec<Letter>,
    /// Replies to clients.
    pub replies: ReplyQueue,
    /// Dropped messages.
    pub rejections: Vec<Rejection>,
    /// Protocol events; empty unless `tracing`.
    pub trace: Vec<TraceEvent>,
    /// Whether protocol events are recorded.
    pub tracing: bool,
    /// Set when the replica must stop.
    pub fatal: Option<Fatal>,
}

impl Output {
    pub(crate) fn send(&mut self, to: Destination, message: Bytes, tag: SendTag) {
        self.network.push(Network::Send { to, message, tag });
    }

    pub(crate) fn pillar(&mut self, pillar: PillarId, letter: ToPillar) {
        self.letters.push(Letter::Pillar(pillar, letter));
    }

    pub(crate) fn control(&mut self, letter: ToControl) {
        self.letters.push(Letter::Control(letter));
    }

    pub(crate) fn clients(&mut self, letter: ToClients) {
        self.letters.push(Letter::Clients(letter));
    }

    pub(crate) fn execution(&mut self, letter: ToExecution) {
        self.letters.push(Letter::Execution(letter));
    }

    pub(crate) fn state(&mut self, letter: ToState) {
        self.letters.push(Letter::State(letter));
    }

    pub(crate) fn reject(&mut self, from: Option<ReplicaId>, message: &[u8], reason: Reject) {
        let kind = crate::wire::kind_of(message);
        self.rejections.push(Rejection { from, kind, reason });
    }

    pub(crate) fn trace(&mut self, event: impl FnOnce() -> TraceEvent) {
        if self.tracing {
            self.trace.push(event());
        }
    }

    pub(crate) fn fail(&mut self, fatal: Fatal) {
        self.fatal.get_or_insert(fatal);
    }

    /// Whether nothing is left to be done by the driver.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.network.is_empty() && self.letters.is_empty() && self.replies.is_empty()
    }
}

/// The letter for a message that arrived over a peer's link; `None` if its kind is unknown.
#[must_use]
pub fn route_peer_message(from: ReplicaId, message: Bytes, pillars: u16) -> Option<Letter> {
    use crate::wire::kind;
    Some(match crate::wire::kind_of(&message) {
        kind::REQUESTS => {
            Letter::Clients(ToClients::Requests { from: Source::Peer(from), message })
        }
        kind::PREPARE
        | kind::COMMIT
        | kind::CHECKPOINT
        | kind::ORDER_REQUEST
        | kind::BATCH_REQUEST
        | kind::BATCH => {
            let pillar = crate::wire::pillar_field(&message).filter(|p| p.0 < pillars)?;
            Letter::Pillar(pillar, ToPillar::Message { from, message })
        }
        kind::VIEW_CHANGE
        | kind::NEW_VIEW
        | kind::NEW_VIEW_ACK
        | kind::STATE_REQUEST
        | kind::STATE => Letter::Control(ToControl::Message { from, message }),
        kind::FETCH | kind::FETCHED => Letter::State(ToState::Message { from, message }),
        _ => return None,
    })
}

/// The letter for a message that arrived over a client's link; `None` if its kind is unknown.
#[must_use]
pub fn route_client_message(link: ClientLink, message: Bytes) -> Option<Letter> {
    use crate::wire::kind;
    Some(match crate::wire::kind_of(&message) {
        kind::REQUESTS => {
            Letter::Clients(ToClients::Requests { from: Source::Client(link), message })
        }
        kind::QUERIES => Letter::Execution(ToExecution::Query { link, message }),
        kind::STATUS_REQUEST => Letter::Control(ToControl::StatusRequest(link)),
        _ => return None,
    })
}
