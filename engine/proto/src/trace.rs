//! Protocol events, for oracles and traces.

use hybster_tss::Digest;

use crate::ids::{OrderNumber, PillarId, View};
use crate::wire::CheckpointId;

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
