//! What PBFT's pillars and its control stage tell each other.

use hybster_tss::Digest;

use super::stable::Stable;
use super::wire::view::Known;
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::input::{ToControl, ToPillar};
use crate::wire::CheckpointId;

/// To a pillar.
#[derive(Debug)]
pub enum PillarInput {
    /// Leave the view, for this one, and say what was done at each order number.
    Leave {
        /// The view to leave for.
        to: View,
    },
    /// Say when the bodies of what a view begins with are here (Castro 3.2.4, condition A3).
    Hold {
        /// The view that this replica is to lead.
        view: View,
        /// The first slot.
        first: u64,
        /// What it begins with, slot by slot.
        chosen: Vec<Digest>,
    },
    /// Enter a view.
    Enter {
        /// The view.
        view: View,
        /// The first slot of what it begins with.
        first: u64,
        /// What it begins with, slot by slot.
        chosen: Vec<Digest>,
    },
}

impl From<PillarInput> for ToPillar {
    #[inline]
    fn from(input: PillarInput) -> Self {
        Self::Pbft(input)
    }
}

/// To the control stage.
#[derive(Debug)]
pub enum ControlInput {
    /// A pillar has left its view.
    Left {
        /// The pillar.
        pillar: PillarId,
        /// The view left for.
        to: View,
        /// Its part of P and Q.
        known: Vec<Known>,
    },
    /// All bodies of a [`PillarInput::Hold`] are here.
    Held {
        /// The pillar.
        pillar: PillarId,
        /// The view.
        view: View,
    },
    /// A quorum has a checkpoint.
    CheckpointStable(Stable),
    /// A peer vouches for another state than this replica does.
    StateDiffers {
        /// The peer.
        peer: ReplicaId,
        /// What it vouches for.
        theirs: CheckpointId,
        /// Digest of this replica's state of the same order number; apart, as it is rare and long.
        own: Box<Digest>,
    },
    /// No quorum can agree on the state of this order number any more.
    Undecidable {
        /// The order number.
        order: OrderNumber,
    },
}

impl From<ControlInput> for ToControl {
    #[inline]
    fn from(input: ControlInput) -> Self {
        Self::Pbft(input)
    }
}
