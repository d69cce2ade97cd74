//! Protocol events, for oracles, traces and checkers.
//!
//! The stages push [`TraceEvent`]s into their [`Output`](crate::Output) if somebody wants them.
//! [`mod@file`] is the form in which the simulator and real replicas write them down
//! (`engine/proto/TRACE.md` draws it), and [`std::fmt::Display`] writes each event as text.
//!
//! The kinds are those of any ordering protocol with views: a replica is *elected* to lead a view,
//! it *proposes*, replicas *vouch* for proposals, a quorum of votes *certifies* one, and a
//! replica that *leaves* a view tells what it took part in. Fields that only one protocol has are
//! empty for the others.

mod display;
pub mod file;
mod header;
mod record;
pub mod v1;

use hybster_tss::Digest;

use crate::ids::{OrderNumber, Peers, PillarId, ReplicaId, View};
use crate::wire::CheckpointId;

pub use record::TraceError;

/// What votes for a proposal lead to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// No other proposal can take its order numbers in its view. Hybster has no votes for this: a
    /// leader's counter sees to it.
    Prepare,
    /// No other proposal can take its order numbers in any view.
    Commit,
}

/// How many replicas each step needs, in a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quorums {
    /// Members of an elected view.
    pub elect: u16,
    /// Of the members and vouchers of an elected view, those whose last view is the latest.
    pub support: u16,
    /// Votes of [`Phase::Prepare`], the proposal included.
    pub prepare: u16,
    /// Votes of [`Phase::Commit`]; in Hybster the proposal included.
    pub commit: u16,
    /// Replicas that have a checkpoint which counts as stable.
    pub stable: u16,
    /// Equal replies that a client believes.
    pub reply: u16,
}

/// Some order numbers of a pillar and what is proposed for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// First covered order.
    pub first: OrderNumber,
    /// Last covered order.
    pub last: OrderNumber,
    /// Digest of the batch.
    pub batch: Digest,
    /// The time that the leader gave it, in milliseconds since 1970 (UTC); 0 if it has none.
    pub time_ms: u64,
    /// Whether it is a no-op.
    pub noop: bool,
}

/// A proposal that a replica discloses when it leaves a view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// The view of the proposal.
    pub view: View,
    /// What the replica knows to be certified; `None`: it has only vouched for the proposal.
    pub certified: Option<Phase>,
    /// The proposal.
    pub proposal: Proposal,
}

/// The value of a trusted counter, as a certificate discloses it: in a view up to an order number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Counted {
    /// The view.
    pub view: View,
    /// The last order number certified in it; 0 if none is.
    pub order: OrderNumber,
}

/// A step of a trusted counter out of a view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The view that the counter moved to.
    pub to: View,
    /// Its value before.
    pub disclosed: Counted,
}

/// A replica that an election rests on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// Its last stable view (v_from).
    pub from: View,
    /// Per pillar what its counter disclosed when it left that view; empty without counters.
    pub disclosed: Vec<Counted>,
}

/// Something that a replica did, in the terms of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceEvent {
    /// The replica decided to leave its view for another.
    ViewLeft {
        /// Last stable view.
        from: View,
        /// The view it leaves for.
        to: View,
    },
    /// A pillar left its view and certified what it took part in; one follows each
    /// [`TraceEvent::ViewLeft`] in each pillar.
    PartLeft {
        /// Pillar.
        pillar: PillarId,
        /// Last stable view.
        from: View,
        /// The view it leaves for.
        to: View,
        /// The stable checkpoint after which the disclosed proposals begin.
        checkpoint: OrderNumber,
        /// The steps of the pillar's counter since the last stable view, oldest first; empty
        /// without counters.
        steps: Vec<Step>,
        /// The disclosed proposals.
        held: Vec<Held>,
    },
    /// The replica holds the proof that a leader was elected for a view, itself or another
    /// (a NEW-VIEW). [`TraceEvent::Adopted`] of every pillar and [`TraceEvent::ViewEntered`] follow.
    Elected {
        /// The view.
        view: View,
        /// Its leader.
        leader: ReplicaId,
        /// The checkpoint that the adopted proposals start from.
        checkpoint: CheckpointId,
        /// Its members: the senders of the VIEW-CHANGEs in the proof, rising.
        members: Vec<Member>,
        /// Further replicas that vouch for the latest of the members' last views (the senders of
        /// the NEW-VIEW-ACKs).
        vouchers: Peers,
    },
    /// What an elected view begins with in a pillar, according to the proof that this replica holds.
    Adopted {
        /// Pillar.
        pillar: PillarId,
        /// The view.
        view: View,
        /// Proposals of earlier views that are proposed again, rising.
        proposals: Vec<Proposal>,
    },
    /// The replica entered a view.
    ViewEntered {
        /// The view.
        view: View,
        /// The replica's current view; larger if the entered one is belated.
        current: View,
        /// Whether the replica leads it.
        leader: bool,
    },
    /// The replica vouches for a view that it had left before it was elected (a NEW-VIEW-ACK).
    Endorsed {
        /// The view.
        view: View,
        /// Its stable checkpoint: what the view adopted up to it is not vouched for.
        checkpoint: CheckpointId,
    },
    /// This replica, a leader, proposed, and so vouches for the proposal.
    Proposed {
        /// Pillar.
        pillar: PillarId,
        /// View.
        view: View,
        /// The proposal.
        proposal: Proposal,
    },
    /// This replica, which is to lead a view, proposed again what an earlier view demands.
    Reissued {
        /// Pillar.
        pillar: PillarId,
        /// The view to establish.
        view: View,
        /// The proposal.
        proposal: Proposal,
    },
    /// This replica voted for a proposal of another.
    Vouched {
        /// What the vote is for.
        phase: Phase,
        /// Pillar.
        pillar: PillarId,
        /// View.
        view: View,
        /// The proposal.
        proposal: Proposal,
    },
    /// This replica holds a quorum of votes for a proposal.
    Certified {
        /// What the votes are for.
        phase: Phase,
        /// Pillar.
        pillar: PillarId,
        /// View.
        view: View,
        /// The proposal.
        proposal: Proposal,
        /// Who voted, as far as this replica knows by then.
        voters: Peers,
    },
    /// The execution stage passed an order number.
    Executed {
        /// The order number.
        order: OrderNumber,
        /// Requests in its batch.
        requests: u32,
        /// Requests that were new and ran.
        ran: u32,
        /// Digest of what the requests of the batch were answered, see
        /// [`ResultsDigest`](crate::output::ResultsDigest).
        results: Digest,
    },
    /// The time that the service is told with a batch. The batch is executed next.
    AgreedTime {
        /// Its order number.
        order: OrderNumber,
        /// Milliseconds since 1970 (UTC).
        unix_ms: u64,
    },
    /// The replica digested its checkpoint.
    CheckpointTaken(CheckpointId),
    /// The replica holds a certificate of a stable checkpoint.
    CheckpointStable {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Who certified it.
        voters: Peers,
    },
    /// The replica's own checkpoint differs from a stable one: it repairs itself.
    Diverged(CheckpointId),
    /// A transferred state was installed.
    StateInstalled(CheckpointId),
    /// From here on, another configuration is in force than that of the trace's header. Replicas that
    /// cannot be reconfigured never record it.
    Configured {
        /// The order number after which it holds.
        after: OrderNumber,
        /// Its epoch.
        epoch: u32,
        /// Its members.
        members: Peers,
        /// Tolerated faults.
        faults: u16,
        /// Its quorums.
        quorums: Quorums,
        /// Digest of its constants.
        constants: Digest,
    },
    /// Events of this stream are missing here: its writer had to drop them. In such a trace, what
    /// a checker does not see may have happened.
    Lost {
        /// How many.
        events: u32,
    },
}

impl TraceEvent {
    /// The pillar that the event happened in; `None` for events of the whole replica.
    #[must_use]
    pub fn pillar(&self) -> Option<PillarId> {
        match self {
            Self::PartLeft { pillar, .. }
            | Self::Adopted { pillar, .. }
            | Self::Proposed { pillar, .. }
            | Self::Reissued { pillar, .. }
            | Self::Vouched { pillar, .. }
            | Self::Certified { pillar, .. } => Some(*pillar),
            _ => None,
        }
    }

    /// The first and the last order number that the event is about. For an event of one pillar,
    /// order numbers of other pillars lie between them.
    #[must_use]
    pub fn orders(&self) -> Option<(OrderNumber, OrderNumber)> {
        match self {
            Self::Proposed { proposal, .. }
            | Self::Reissued { proposal, .. }
            | Self::Vouched { proposal, .. }
            | Self::Certified { proposal, .. } => Some((proposal.first, proposal.last)),
            Self::PartLeft { held, .. } => {
                let first = held.iter().map(|held| held.proposal.first).min()?;
                Some((first, held.iter().map(|held| held.proposal.last).max()?))
            }
            Self::Adopted { proposals, .. } => {
                let first = proposals.iter().map(|proposal| proposal.first).min()?;
                Some((first, proposals.iter().map(|proposal| proposal.last).max()?))
            }
            Self::Executed { order, .. } | Self::AgreedTime { order, .. } => Some((*order, *order)),
            Self::CheckpointTaken(id)
            | Self::CheckpointStable { checkpoint: id, .. }
            | Self::Diverged(id)
            | Self::StateInstalled(id) => Some((id.order, id.order)),
            Self::ViewLeft { .. }
            | Self::Elected { .. }
            | Self::ViewEntered { .. }
            | Self::Endorsed { .. }
            | Self::Configured { .. }
            | Self::Lost { .. } => None,
        }
    }
}
