//! Effects on the network: what is sent where, what it is about, and when it is withdrawn.

use bytes::Bytes;

use crate::ids::{OrderNumber, Peers, PillarId, ReplicaId, View};
use crate::input::ClientLink;

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
            Self::Peer(peer) => peer == to,
            Self::AllPeers | Self::Thrifty(_) => from != to,
            Self::Client(_) => false,
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
    /// What a peer asked for, or what clients want it to know. Its stage keeps a bounded number of bytes waiting for each peer, and
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
    /// The request intake: requests that it forwards.
    Intake,
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
            Self::Ordering(view, order) => view < mark.view || order <= mark.order,
            Self::Checkpoint(order) => order < mark.order,
            Self::ViewChange(view) => view <= mark.view,
            Self::NewView(view) => view < mark.view,
            Self::Transient | Self::Answer(_) => false,
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
    /// Close the link of a client that sent over it what no correct client sends. Only for what came
    /// over that link: nobody can cost another client its link.
    CloseClient(ClientLink),
}
