//! What stages are told: inputs from the links, from each other and from the driver.

use bytes::{Bytes, BytesMut};
use hybster_tss::{Digest, Proof};
use std::sync::Arc;

use crate::hybster::wire::view::Part;
use crate::ids::{
    ClientId, OrderNumber, Peers, PillarId, ReplicaId, RequestNumber, SessionId, View,
};
use crate::service::Snapshot;
use crate::state::TransferredState;
use crate::wire::{CheckpointCertificate, CheckpointId, PrepareHeader};

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

/// Inputs to a pillar.
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
    /// Answer from the session table, or notify the request intake once executed.
    Resend {
        /// The session.
        session: SessionId,
        /// The request's number.
        number: RequestNumber,
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
    /// Whether the state was just installed: the versions of bookkeeping pages start anew.
    pub installed: bool,
}

impl std::fmt::Debug for TakenSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TakenSnapshot").field("order", &self.order).finish_non_exhaustive()
    }
}

/// Inputs to the state stage.
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
