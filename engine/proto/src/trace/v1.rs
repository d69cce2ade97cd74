//! Version 1 of the format, which is read and shown but not written any more.
//!
//! It covers Hybster only and says less: neither who voted nor which batch an acknowledgement is
//! for. Checkers need version 2.

use std::fmt;

use super::display::{List, Orders};
use super::record::{self, Head};
use super::{Proposal, TraceEvent};
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::time::Time;
use crate::wire::{CheckpointId, Reader, WireError};

/// The version of the format.
pub const VERSION: u16 = 1;

/// Kind bytes that only version 1 has.
mod kind {
    pub(super) const NEW_VIEW_ACKNOWLEDGED: u8 = 3;
    pub(super) const PROPOSED: u8 = 4;
    pub(super) const ACKNOWLEDGED: u8 = 5;
    pub(super) const COMMITTED: u8 = 6;
    pub(super) const EXECUTED: u8 = 7;
    pub(super) const CHECKPOINT_STABLE: u8 = 9;
    pub(super) const NEW_VIEW_ACCEPTED: u8 = 12;
    pub(super) const REISSUED: u8 = 13;
}

/// An event as version 1 records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// One that version 2 records in the same way, or with the time of a proposal added.
    Same(TraceEvent),
    /// A NEW-VIEW was accepted.
    NewViewAccepted {
        /// The view.
        view: View,
        /// Its leader.
        leader: ReplicaId,
        /// The checkpoint that the re-issued PREPAREs start from.
        checkpoint: CheckpointId,
        /// The senders of the VIEW-CHANGEs in it, each with its last stable view.
        members: Vec<(ReplicaId, View)>,
        /// The senders of the NEW-VIEW-ACKs in it.
        vouchers: Vec<ReplicaId>,
        /// Per pillar the last order number that is re-issued; 0 if none is.
        reissued: Vec<OrderNumber>,
    },
    /// A NEW-VIEW-ACK was sent.
    NewViewAcknowledged {
        /// The acknowledged view.
        view: View,
    },
    /// A COMMIT was certified.
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
    /// A PREPARE is committed.
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
        batch: hybster_tss::Digest,
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
    /// The replica holds a certificate of a stable checkpoint.
    CheckpointStable(CheckpointId),
}

impl Event {
    /// The pillar that the event happened in; `None` for events of the whole replica.
    #[must_use]
    pub fn pillar(&self) -> Option<PillarId> {
        match self {
            Self::Same(event) => event.pillar(),
            Self::Acknowledged { pillar, .. } | Self::Committed { pillar, .. } => Some(*pillar),
            _ => None,
        }
    }

    /// The first and the last order number that the event is about.
    #[must_use]
    pub fn orders(&self) -> Option<(OrderNumber, OrderNumber)> {
        match self {
            Self::Same(event) => event.orders(),
            Self::Acknowledged { first, last, .. } | Self::Committed { first, last, .. } => {
                Some((*first, *last))
            }
            Self::Executed { order, .. } => Some((*order, *order)),
            Self::CheckpointStable(id) => Some((id.order, id.order)),
            Self::NewViewAccepted { .. } | Self::NewViewAcknowledged { .. } => None,
        }
    }
}

/// Reads a record.
pub(super) fn decode(reader: &mut Reader<'_>) -> Result<(Time, Event), WireError> {
    let head = Head::read(reader)?;
    let pillar = head.pillar;
    let proposes = matches!(head.kind, kind::PROPOSED | kind::REISSUED);
    let in_pillar = proposes || matches!(head.kind, kind::ACKNOWLEDGED | kind::COMMITTED);
    let event = match head.kind {
        record::kind::VIEW_LEFT
        | record::kind::VIEW_ENTERED
        | record::kind::CHECKPOINT_TAKEN
        | record::kind::DIVERGED
        | record::kind::STATE_INSTALLED => {
            return Ok((head.time, Event::Same(record::read(head, reader)?)));
        }
        kind::PROPOSED => {
            let (view, proposal) = proposal(reader, head.flag)?;
            Event::Same(TraceEvent::Proposed { pillar, view, proposal })
        }
        kind::REISSUED => {
            let (view, proposal) = proposal(reader, head.flag)?;
            Event::Same(TraceEvent::Reissued { pillar, view, proposal })
        }
        kind::NEW_VIEW_ACKNOWLEDGED => Event::NewViewAcknowledged { view: reader.view()? },
        kind::ACKNOWLEDGED => {
            let (view, first, last) = (reader.view()?, reader.order()?, reader.order()?);
            Event::Acknowledged { pillar, view, first, last }
        }
        kind::COMMITTED => {
            let (view, first, last) = (reader.view()?, reader.order()?, reader.order()?);
            Event::Committed { pillar, view, first, last, batch: reader.digest()? }
        }
        kind::EXECUTED => {
            Event::Executed { order: reader.order()?, requests: reader.u32()?, ran: reader.u32()? }
        }
        kind::CHECKPOINT_STABLE => Event::CheckpointStable(record::checkpoint(reader)?),
        kind::NEW_VIEW_ACCEPTED => accepted(reader)?,
        _ => return Err(WireError::Field("kind")),
    };
    head.allow(proposes, in_pillar)?;
    Ok((head.time, event))
}

fn proposal(reader: &mut Reader<'_>, noop: bool) -> Result<(View, Proposal), WireError> {
    let (view, first, last) = (reader.view()?, reader.order()?, reader.order()?);
    Ok((view, Proposal { first, last, batch: reader.digest()?, time_ms: 0, noop }))
}

fn accepted(reader: &mut Reader<'_>) -> Result<Event, WireError> {
    let view = reader.view()?;
    let checkpoint = record::checkpoint(reader)?;
    let leader = reader.replica()?;
    let counts = [reader.u16()?, reader.u16()?, reader.u16()?].map(usize::from);
    // No more is allocated than the bytes that are there can fill.
    if counts[0] * 10 + counts[1] * 2 + counts[2] * 8 > reader.left() {
        return Err(WireError::Short);
    }
    let member = |_| Ok((reader.replica()?, reader.view()?));
    let members = (0..counts[0]).map(member).collect::<Result<_, WireError>>()?;
    let vouchers = (0..counts[1]).map(|_| reader.replica()).collect::<Result<_, _>>()?;
    let reissued = (0..counts[2]).map(|_| reader.order()).collect::<Result<_, _>>()?;
    Ok(Event::NewViewAccepted { view, leader, checkpoint, members, vouchers, reissued })
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(event) => event.fmt(f),
            Self::NewViewAccepted { view, leader, checkpoint, members, vouchers, reissued } => {
                let members = List(members.iter().map(|(of, from)| format!("{of} from {from}")));
                let (vouchers, order) = (List(vouchers.iter()), checkpoint.order);
                write!(
                    f,
                    "accepted NEW-VIEW {view} of {leader}: members {members}; acknowledged by \
                     {vouchers}; re-issued after {order}",
                )?;
                let pillars = reissued.iter().enumerate();
                for (pillar, last) in pillars.filter(|(_, last)| last.0 > 0) {
                    write!(f, ", {} to {last}", PillarId(pillar as u16))?;
                }
                Ok(())
            }
            Self::NewViewAcknowledged { view } => write!(f, "acknowledged NEW-VIEW {view}"),
            Self::Acknowledged { pillar, view, first, last } => {
                write!(f, "{pillar} acknowledged {} in {view}", Orders(*first, *last))
            }
            Self::Committed { pillar, view, first, last, batch } => {
                write!(f, "{pillar} committed {} in {view}: {batch:?}", Orders(*first, *last))
            }
            Self::Executed { order, requests, ran } => {
                write!(f, "executed {order}: {ran} of {requests} requests ran")
            }
            Self::CheckpointStable(id) => {
                write!(f, "checkpoint {} is stable: {:?}", id.order, id.digest)
            }
        }
    }
}
