//! Protocol events, for oracles and traces.
//!
//! The stages push [`TraceEvent`]s into their [`Output`](crate::Output) if somebody wants them.
//! [`mod@file`] is the form in which the simulator and real replicas write them down
//! (`engine/proto/TRACE.md` draws it), and each event says itself in words by [`std::fmt::Display`].

mod display;
pub mod file;
mod record;

use hybster_tss::Digest;

use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::wire::{CheckpointId, NewView, PrepareHeader};

pub use record::TraceError;

/// Something that a replica did, as the protocol's terms have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceEvent {
    /// The replica left its view for another.
    ViewLeft {
        /// Last stable view.
        from: View,
        /// The view it left for.
        to: View,
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
    /// A NEW-VIEW was accepted, of this replica or another; [`TraceEvent::ViewEntered`] follows.
    NewViewAccepted {
        /// The view.
        view: View,
        /// Its leader, who made the NEW-VIEW.
        leader: ReplicaId,
        /// The checkpoint that the re-issued PREPAREs start from.
        checkpoint: CheckpointId,
        /// Its members: the senders of the VIEW-CHANGEs in it, each with its last stable view
        /// (v_from), rising by sender.
        members: Vec<(ReplicaId, View)>,
        /// The senders of the NEW-VIEW-ACKs in it, rising.
        vouchers: Vec<ReplicaId>,
        /// Per pillar the last order number that is re-issued; 0 if none is.
        reissued: Vec<OrderNumber>,
    },
    /// A NEW-VIEW-ACK was sent.
    NewViewAcknowledged {
        /// The acknowledged view.
        view: View,
    },
    /// A PREPARE was certified by this replica.
    Proposed {
        /// Pillar.
        pillar: PillarId,
        /// View.
        view: View,
        /// First covered order.
        first: OrderNumber,
        /// Last covered order.
        last: OrderNumber,
        /// Digest of the batch.
        batch: Digest,
        /// Whether it is a no-op.
        noop: bool,
    },
    /// A PREPARE of an earlier view was certified again, to establish a view.
    Reissued {
        /// Pillar.
        pillar: PillarId,
        /// The view to establish.
        view: View,
        /// First covered order.
        first: OrderNumber,
        /// Last covered order.
        last: OrderNumber,
        /// Digest of the batch.
        batch: Digest,
        /// Whether it is a no-op.
        noop: bool,
    },
    /// A COMMIT was certified by this replica.
    Acknowledged {
        /// Pillar.
        pillar: PillarId,
        /// View.
        view: View,
        /// First covered order.
        first: OrderNumber,
        /// Last covered order.
        last: OrderNumber,
    },
    /// A PREPARE is committed at this replica.
    Committed {
        /// Pillar.
        pillar: PillarId,
        /// View.
        view: View,
        /// First covered order.
        first: OrderNumber,
        /// Last covered order.
        last: OrderNumber,
        /// Digest of the batch.
        batch: Digest,
    },
    /// The execution stage passed an order number.
    Executed {
        /// The order number.
        order: OrderNumber,
        /// Requests in its batch.
        requests: u32,
        /// Requests that were new and ran.
        ran: u32,
    },
    /// The replica digested its checkpoint.
    CheckpointTaken(CheckpointId),
    /// The replica holds a certificate of a stable checkpoint.
    CheckpointStable(CheckpointId),
    /// The replica's own checkpoint differs from a stable one: it repairs itself.
    Diverged(CheckpointId),
    /// A transferred state was installed.
    StateInstalled(CheckpointId),
}

impl TraceEvent {
    /// The acceptance of a NEW-VIEW that `leader` made.
    pub(crate) fn accepted(new_view: &NewView, leader: ReplicaId) -> TraceEvent {
        let last = |headers: &Vec<PrepareHeader>| headers.last().map_or(OrderNumber(0), |h| h.last);
        TraceEvent::NewViewAccepted {
            view: new_view.view,
            leader,
            checkpoint: new_view.checkpoint.id,
            members: new_view.view_changes.iter().map(|vc| (vc.sender, vc.from)).collect(),
            vouchers: new_view.acks.iter().map(|ack| ack.sender).collect(),
            reissued: new_view.prepares.iter().map(last).collect(),
        }
    }

    /// The pillar that the event happened in; `None` for events of the whole replica.
    #[must_use]
    pub fn pillar(&self) -> Option<PillarId> {
        match self {
            TraceEvent::Proposed { pillar, .. }
            | TraceEvent::Reissued { pillar, .. }
            | TraceEvent::Acknowledged { pillar, .. }
            | TraceEvent::Committed { pillar, .. } => Some(*pillar),
            _ => None,
        }
    }

    /// The first and the last order number that the event is about. Between the two lie also those
    /// of other pillars, if it is an event of one pillar.
    #[must_use]
    pub fn orders(&self) -> Option<(OrderNumber, OrderNumber)> {
        match self {
            TraceEvent::Proposed { first, last, .. }
            | TraceEvent::Reissued { first, last, .. }
            | TraceEvent::Acknowledged { first, last, .. }
            | TraceEvent::Committed { first, last, .. } => Some((*first, *last)),
            TraceEvent::Executed { order, .. } => Some((*order, *order)),
            TraceEvent::CheckpointTaken(id)
            | TraceEvent::CheckpointStable(id)
            | TraceEvent::Diverged(id)
            | TraceEvent::StateInstalled(id) => Some((id.order, id.order)),
            TraceEvent::ViewLeft { .. }
            | TraceEvent::ViewEntered { .. }
            | TraceEvent::NewViewAccepted { .. }
            | TraceEvent::NewViewAcknowledged { .. } => None,
        }
    }
}
