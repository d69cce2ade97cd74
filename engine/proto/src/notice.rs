//! What an operator should know. Stages say it, the driver writes it to its log.
//!
//! Nothing here is needed by the protocol. A driver may ignore it: between two times that it empties
//! [`Output::notices`](crate::output::Output::notices), only the first [`MOST_NOTICES`] are kept.

use std::fmt;

use hybster_tss::Digest;

use crate::ids::{OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId, View};

/// Notices that are kept until the driver takes them.
pub const MOST_NOTICES: usize = 64;

/// How much it matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// As intended.
    Info,
    /// Something is slow or lost, and the group makes up for it.
    Warn,
    /// Somebody has to do something.
    Error,
}

/// Something that an operator should know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// This replica suspects the leader of a view.
    LeaderSuspected {
        /// The view.
        view: View,
        /// The leader.
        leader: ReplicaId,
        /// For what.
        cause: Suspicion,
    },
    /// This replica left a view.
    ViewLeft {
        /// The last view that it was in.
        from: View,
        /// The view that it is on its way to.
        to: View,
        /// Why.
        cause: Departure,
    },
    /// This replica entered a view.
    ViewEntered {
        /// The view.
        view: View,
        /// Its leader.
        leader: ReplicaId,
        /// Since it left the view before, in microseconds; `None` if it had not left it.
        took_us: Option<u64>,
    },
    /// The state of this replica is not what a quorum vouches for.
    StateDiverged {
        /// The order number of the checkpoint.
        order: OrderNumber,
    },
    /// A peer vouches for another state than this replica has.
    StateOfPeerDiffers {
        /// The order number of the checkpoint.
        order: OrderNumber,
        /// The peer.
        peer: ReplicaId,
        /// Digest of this replica's state.
        own: Digest,
        /// Digest of the peer's state.
        theirs: Digest,
    },
    /// Where the state of a peer differs from this replica's.
    FirstPageThatDiffers {
        /// The order number of the checkpoint.
        order: OrderNumber,
        /// The peer.
        peer: ReplicaId,
        /// The part of the state.
        part: StatePart,
        /// The first page of it that is not the same.
        page: u64,
    },
    /// No f+1 replicas agree on the state at an order number, nor can they any more.
    NoStateAgreed {
        /// The order number of the checkpoint.
        order: OrderNumber,
    },
    /// No checkpoint can become stable up to the end of the window: nothing can be ordered any more,
    /// in no view.
    Halted {
        /// The last order number of the window.
        order: OrderNumber,
    },
    /// A checkpoint became stable after all.
    GoesOn {
        /// The order number of the checkpoint.
        order: OrderNumber,
    },
    /// This replica lags behind and fetches the state of a checkpoint.
    TransferBegun {
        /// The order number of the checkpoint.
        order: OrderNumber,
    },
    /// This replica goes on from a state that it fetched.
    StateInstalled {
        /// The order number of the checkpoint.
        order: OrderNumber,
    },
}

/// A part of a replica's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StatePart {
    /// The pages of the service.
    Service,
    /// The table of sessions, with the results that are kept.
    Sessions,
}

/// What a leader is suspected for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Suspicion {
    /// A request was not executed in time (TR listing 15).
    Request {
        /// Its session.
        session: SessionId,
        /// Its number.
        number: RequestNumber,
        /// How long it has waited at this replica, in microseconds.
        waited_us: u64,
    },
    /// A slot was not committed in time.
    Slot {
        /// The pillar.
        pillar: PillarId,
        /// The order number.
        order: OrderNumber,
        /// How long nothing was committed in the pillar, in microseconds.
        waited_us: u64,
    },
}

/// Why a view was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Departure {
    /// This replica suspects its leader.
    Suspected,
    /// f+1 replicas ask for a later view.
    OthersAsk,
    /// A quorum is on its way to a later view.
    QuorumLeft,
    /// Its leader asks for a later view.
    LeaderLeft,
    /// The leader of the next view sent no NEW-VIEW in time.
    NewViewOverdue,
    /// This replica leads, and a peer that left the view alone takes part again in the next one.
    PeerOutside,
}

impl Notice {
    /// How much it matters.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self {
            Self::ViewEntered { .. } | Self::StateInstalled { .. } | Self::GoesOn { .. } => {
                Level::Info
            }
            Self::LeaderSuspected { .. } | Self::ViewLeft { .. } | Self::TransferBegun { .. } => {
                Level::Warn
            }
            Self::StateDiverged { .. }
            | Self::StateOfPeerDiffers { .. }
            | Self::FirstPageThatDiffers { .. }
            | Self::NoStateAgreed { .. }
            | Self::Halted { .. } => Level::Error,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LeaderSuspected { view, leader, cause } => {
                write!(f, "suspects replica {}, the leader of view {}: {cause}", leader.0, view.0)
            }
            Self::ViewLeft { from, to, cause } => {
                write!(f, "left view {} for view {}: {cause}", from.0, to.0)
            }
            Self::ViewEntered { view, leader, took_us: Some(us) } => {
                let (view, leader, ms) = (view.0, leader.0, us / 1000);
                write!(f, "entered view {view} after {ms} ms; replica {leader} leads")
            }
            Self::ViewEntered { view, leader, took_us: None } => {
                write!(f, "entered view {}; replica {} leads", view.0, leader.0)
            }
            Self::StateDiverged { order } => write!(
                f,
                "the state of this replica at order {} is not the one that a quorum vouches for. It \
                 is replaced by theirs. Either this replica runs another service or version than the \
                 others, or the service is not deterministic, or this machine is faulty",
                order.0
            ),
            Self::StateOfPeerDiffers { order, peer, own, theirs } => {
                let (order, peer) = (order.0, peer.0);
                write!(f, "at order {order} the state of replica {peer} is {}, ", short(&theirs))?;
                write!(f, "and that of this replica {}", short(&own))
            }
            Self::FirstPageThatDiffers { order, peer, part, page } => write!(
                f,
                "at order {} the first page that is not the same at this replica and replica {} is \
                 page {page} of {part}",
                order.0, peer.0
            ),
            Self::NoStateAgreed { order } => write!(
                f,
                "no f+1 replicas have the same state at order {}: more than f of them run another \
                 service or version, or the service is not deterministic \
                 (hybster::testing::check_deterministic finds that)",
                order.0
            ),
            Self::Halted { order } => write!(
                f,
                "has halted at order {}, the last one of the window: the states of the replicas \
                 differ, so that no checkpoint becomes stable. No other leader could go on, so none is \
                 suspected; clients are told. The group has to be made again, with one service that is \
                 deterministic",
                order.0
            ),
            Self::GoesOn { order } => {
                write!(f, "goes on: the state at order {} is agreed on after all", order.0)
            }
            Self::TransferBegun { order } => {
                write!(f, "lags behind and fetches the state of order {}", order.0)
            }
            Self::StateInstalled { order } => {
                write!(f, "goes on from the state of order {}", order.0)
            }
        }
    }
}

/// As much of a digest as tells states apart.
fn short(digest: &Digest) -> String {
    let [a, b, c, d, ..] = digest.0;
    format!("{a:02x}{b:02x}{c:02x}{d:02x}…")
}

impl fmt::Display for StatePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "the service",
            Self::Sessions => "the table of sessions",
        })
    }
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Request { session, number, waited_us } => write!(
                f,
                "request {} of session {session} was not executed within {} ms",
                number.0,
                waited_us / 1000
            ),
            Self::Slot { pillar, order, waited_us } => {
                let (order, pillar, ms) = (order.0, pillar.0, waited_us / 1000);
                write!(f, "order {order} of pillar {pillar} was not committed within {ms} ms")
            }
        }
    }
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Suspected => "its leader is suspected",
            Self::OthersAsk => "f+1 replicas ask for it",
            Self::QuorumLeft => "a quorum is on its way there",
            Self::LeaderLeft => "its leader has left",
            Self::NewViewOverdue => "the NEW-VIEW did not come in time",
            Self::PeerOutside => "a peer that has left it alone takes part again in the next one",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;
    use crate::output::Output;

    #[test]
    fn a_line_says_who_and_why() {
        let session = SessionId::new(ClientId(4), 0xab, 2);
        let cause = Suspicion::Request { session, number: RequestNumber(9), waited_us: 512_000 };
        let notice = Notice::LeaderSuspected { view: View(3), leader: ReplicaId(0), cause };
        let line = notice.to_string();
        for part in ["replica 0", "view 3", "ab.2", "512 ms"] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn a_driver_may_leave_them() {
        let mut out = Output::default();
        for order in 0..1000 {
            out.notice(|| Notice::StateInstalled { order: OrderNumber(order) });
        }
        assert_eq!(out.notices.len(), MOST_NOTICES);
    }
}
