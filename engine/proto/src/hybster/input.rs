//! What Hybster's pillars and its control stage tell each other.

use hybster_tss::{Digest, Proof};
use std::sync::Arc;

use super::wire::ordering::PrepareHeader;
use super::wire::view::{Link, Part};
use crate::hybster::wire::checkpoint::CheckpointCertificate;
use crate::ids::{OrderNumber, Peers, PillarId, ReplicaId, View};
use crate::input::{ToControl, ToPillar};
use crate::wire::CheckpointId;

/// To a pillar.
#[derive(Debug)]
pub enum PillarInput {
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
    /// missing ones, and keep all of them until [`PillarInput::Release`].
    Hold {
        /// Returned with the answer.
        ticket: u64,
        /// Who must hold them.
        source: ReplicaId,
        /// The headers.
        headers: Vec<PrepareHeader>,
        /// Of a peer's VIEW-CHANGE: who left, and the last step of its counter.
        left: Option<Box<(ReplicaId, Link)>>,
    },
    /// The batches of a [`PillarInput::Hold`] are not needed any more.
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
    /// Pillar 0 of a leader has found followers that are faster: all pillars ask these first.
    AskFirst {
        /// The view that it leads.
        view: View,
        /// The followers.
        first: Peers,
    },
}

impl From<PillarInput> for ToPillar {
    #[inline]
    fn from(input: PillarInput) -> Self {
        Self::Hybster(input)
    }
}

/// To the control stage.
#[derive(Debug)]
pub enum ControlInput {
    /// A pillar stopped and hands over its part.
    Part {
        /// The pillar.
        pillar: PillarId,
        /// The view left for.
        to: View,
        /// Its part.
        part: Part,
    },
    /// All batches of a [`PillarInput::Hold`] are held and valid, or one of them is invalid.
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
    /// A pillar of a replica that comes back has been told what peers have seen of it.
    Told(PillarId),
    /// A pillar has a certificate of a stable checkpoint.
    CheckpointStable(CheckpointCertificate),
    /// A peer vouches for another state than this replica does.
    StateDiffers {
        /// The peer.
        peer: ReplicaId,
        /// What it vouches for.
        theirs: CheckpointId,
        /// Digest of this replica's state of the same order number.
        own: Digest,
    },
    /// No f+1 replicas can agree on the state of this order number any more.
    Undecidable {
        /// The order number.
        order: OrderNumber,
    },
}

impl From<ControlInput> for ToControl {
    #[inline]
    fn from(input: ControlInput) -> Self {
        Self::Hybster(input)
    }
}
