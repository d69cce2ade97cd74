//! The seam between the stages of a replica and whoever drives them.
//!
//! A replica consists of *stages*: the request intake, P pillars, the execution stage, the state
//! stage (checkpoints and state transfer) and the control stage (view changes). Each is a state
//! machine that takes an [`Input`] and pushes effects into an [`Output`] that the driver empties:
//! inputs to other stages, messages to peers, replies to clients. A driver may put the stages on
//! one thread or on many: inputs between two stages must arrive in the order they were sent;
//! nothing is assumed about inputs of different pairs.

pub use crate::input::{
    Agreed, ClientLink, Input, Source, TakenSnapshot, ToControl, ToExecution, ToIntake, ToPillar,
    ToState,
};

use bytes::Bytes;
use hybster_tss::Digest;

use crate::config::GroupConfig;
use crate::ids::{
    ClientId, OrderNumber, Peers, PillarId, ReplicaId, RequestNumber, SessionId, View,
};
use crate::notice::{MOST_NOTICES, Notice};
use crate::protocol::Handler;
use crate::trace::TraceEvent;
use crate::wire::{ReplyStatus, RequestTag, WireError};

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
    /// Asking, or sent once: worthless when late, and sent again by its sender's own timer.
    Transient,
    /// What a peer asked for. Its stage keeps a bounded number of bytes waiting for each peer, and
    /// is told when they have left; dropped with the link.
    Answer(Answerer),
}

/// The stage that an answer is from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Answerer {
    /// A pillar: batches.
    Pillar(PillarId),
    /// The state stage: pages and nodes.
    State,
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
            SendTag::Transient | SendTag::Answer(_) => false,
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
        /// Whether this replica has never sent it, so that no copy needs to be looked for.
        is_new: bool,
    },
    /// Forget queued messages that lie below (TR listing 9, remove).
    Withdraw(Watermark),
}

/// Why a replica replies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// The request has just been executed.
    Executed,
    /// It is a query.
    Queried,
    /// The client asked before, or gets no result: what it is told must not depend on the leader.
    AskedAgain,
    /// There is a reply that is not in here, as it has no room: the session table keeps the result, and
    /// gives it when it is recalled ([`ToExecution::Recall`]). No message is made of this.
    Deferred,
    /// It was deferred, and is given now.
    Recalled,
}

/// Replies with longer results, in bytes, are sent only when their link has room
/// ([`crate::backlog`]).
pub const LARGE_REPLY_BYTES: usize = 16 << 10;

/// Bytes that a [`ResultsDigest`] gathers before it hashes them.
const PIECES_BYTES: usize = 16 << 10;
/// A queue that is emptied keeps memory for results of so many bytes.
const KEPT_RESULT_BYTES: usize = 8 << 20;
/// And memory for so many replies.
const KEPT_RECORDS: usize = 1 << 16;

/// Replies of one replica, kept flat so that pushing one allocates nothing.
#[derive(Default, Debug)]
pub struct ReplyQueue {
    entries: Vec<ReplyRecord>,
    results: Vec<u8>,
    /// Whether some may have to wait for room.
    is_large: bool,
}

/// Bytes that a reply takes in a [`ReplyQueue`] besides its result.
pub(crate) const REPLY_RECORD_BYTES: u64 = size_of::<ReplyRecord>() as u64;
/// Bytes that an emptied [`ReplyQueue`] keeps at most.
pub const SPARE_QUEUE_BYTES: u64 =
    KEPT_RESULT_BYTES as u64 + KEPT_RECORDS as u64 * REPLY_RECORD_BYTES;

#[derive(Debug, Clone, Copy)]
struct ReplyRecord {
    session: SessionId,
    number: RequestNumber,
    tag: RequestTag,
    view: View,
    cause: Cause,
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
    /// What tells it from others with that number.
    pub tag: RequestTag,
    /// The replica's stable view.
    pub view: View,
    /// Why it is given.
    pub cause: Cause,
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
    pub fn push(&mut self, reply: &Reply<'_>) {
        let Reply { session, number, tag, view, cause, status, result } = *reply;
        self.is_large |= result.len() > LARGE_REPLY_BYTES || cause >= Cause::Deferred;
        self.results.extend_from_slice(result);
        let end = self.results.len();
        self.entries.push(ReplyRecord { session, number, tag, view, cause, status, end });
    }

    /// Whether it has a reply that may have to wait for room: a large one, or one that was deferred.
    #[inline]
    #[must_use]
    pub fn has_large(&self) -> bool {
        self.is_large
    }

    /// Bytes of results.
    #[inline]
    #[must_use]
    pub fn result_bytes(&self) -> usize {
        self.results.len()
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
            Reply {
                session: e.session,
                number: e.number,
                tag: e.tag,
                view: e.view,
                cause: e.cause,
                status: e.status,
                result,
            }
        })
    }

    /// Forgets all, keeps the memory unless it is much.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(KEPT_RECORDS);
        self.results.clear();
        self.results.shrink_to(KEPT_RESULT_BYTES);
        self.is_large = false;
    }

    /// Moves all replies of `other` to the end of this queue.
    pub fn append(&mut self, other: &mut ReplyQueue) {
        self.is_large |= std::mem::take(&mut other.is_large);
        let base = self.results.len();
        self.results.append(&mut other.results);
        self.entries.extend(other.entries.drain(..).map(|mut e| {
            e.end += base;
            e
        }));
    }
}

/// Digest of what the requests of a batch are answered: for each client, session, number, status,
/// length of the result and the result, numbers as little-endian (4, 8, 8, 1 and 4 bytes). View and
/// cause are left out, and so is whether a reply is deferred: it must not depend on them.
#[derive(Debug)]
pub struct ResultsDigest {
    hasher: blake3::Hasher,
    pieces: Vec<u8>,
}

impl ResultsDigest {
    /// Of no replies.
    #[must_use]
    pub fn new() -> ResultsDigest {
        // Hashing many short pieces together is several times faster than one by one.
        let pieces = Vec::with_capacity(PIECES_BYTES);
        ResultsDigest { hasher: blake3::Hasher::new(), pieces }
    }

    /// Adds a reply.
    pub fn add(&mut self, reply: &Reply<'_>) {
        let ResultsDigest { hasher, pieces } = self;
        pieces.extend_from_slice(&reply.session.client.0.to_le_bytes());
        pieces.extend_from_slice(&reply.session.session.to_le_bytes());
        pieces.extend_from_slice(&reply.number.0.to_le_bytes());
        pieces.push(reply.status as u8);
        pieces.extend_from_slice(&(reply.result.len() as u32).to_le_bytes());
        if pieces.len() + reply.result.len() > PIECES_BYTES {
            hasher.update(pieces);
            hasher.update(reply.result);
            pieces.clear();
        } else {
            pieces.extend_from_slice(reply.result);
        }
    }

    /// The digest. Nothing is left of the replies.
    pub fn finish(&mut self) -> Digest {
        self.hasher.update(&self.pieces);
        let digest = Digest(*self.hasher.finalize().as_bytes());
        self.hasher.reset();
        self.pieces.clear();
        digest
    }
}

impl Default for ResultsDigest {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident,)*) => {
        /// Why a message was dropped. Dropped messages are counted by kind, sender and reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reject { $($(#[$doc])* $reason,)* }

        impl Reject {
            /// All reasons, each at its [`Reject::index`].
            pub const ALL: &[Reject] = &[$(Reject::$reason,)*];
        }
    };
}

reasons! {
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
    /// The time of a batch in it is too far from this replica's clock, or before an earlier one.
    Untimely,
    /// It is known already or of no use any more.
    Irrelevant,
    /// The buffer for such messages is full.
    Overload,
}

impl Reject {
    /// Its number among all reasons.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
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

/// This replica must stop: an invariant of its own is broken.
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
    /// Inputs to stages of this replica, in order.
    pub inputs: Vec<Input>,
    /// Replies to clients.
    pub replies: ReplyQueue,
    /// Clients whose links are not to be read any more, or are again; in order.
    pub pauses: Vec<(ClientId, bool)>,
    /// Dropped messages.
    pub rejections: Vec<Rejection>,
    /// Protocol events; empty unless `tracing`.
    pub trace: Vec<TraceEvent>,
    /// What an operator should know.
    pub notices: Vec<Notice>,
    /// Whether protocol events are recorded.
    pub tracing: bool,
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
        let kind = crate::wire::kind_of(message);
        self.rejections.push(Rejection { from, kind, reason });
    }

    pub(crate) fn trace(&mut self, event: impl FnOnce() -> TraceEvent) {
        if self.tracing {
            self.trace.push(event());
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
        self.network.is_empty() && self.inputs.is_empty() && self.replies.is_empty()
    }
}

/// The input for a message that arrived over a peer's link; `None` if its kind is unknown.
#[must_use]
pub fn route_peer_message(from: ReplicaId, message: Bytes, config: &GroupConfig) -> Option<Input> {
    use crate::wire::kind;
    let kind = crate::wire::kind_of(&message);
    if let Some(handler) = (config.rules().handler)(kind) {
        return Some(match handler {
            Handler::Pillar => {
                let pillar = crate::wire::pillar_field(&message);
                let pillar = pillar.filter(|p| p.0 < config.pillars)?;
                Input::Pillar(pillar, ToPillar::Message { from, message })
            }
            Handler::Control => Input::Control(ToControl::Message { from, message }),
        });
    }
    match kind {
        kind::REQUESTS => {
            Some(Input::Intake(ToIntake::Requests { from: Source::Peer(from), message }))
        }
        kind::FETCH | kind::FETCHED => Some(Input::State(ToState::Message { from, message })),
        _ => None,
    }
}

/// The input for a message that arrived over a client's link; `None` if its kind is unknown.
#[must_use]
pub fn route_client_message(link: ClientLink, message: Bytes) -> Option<Input> {
    use crate::wire::kind;
    Some(match crate::wire::kind_of(&message) {
        kind::REQUESTS => Input::Intake(ToIntake::Requests { from: Source::Client(link), message }),
        kind::QUERIES => Input::Execution(ToExecution::Query { link, message }),
        kind::STATUS_REQUEST => Input::Control(ToControl::StatusRequest(link)),
        _ => return None,
    })
}
