//! Events in words.

use std::fmt;

use super::TraceEvent;
use crate::ids::{OrderNumber, PillarId, View};

struct Orders(OrderNumber, OrderNumber);

impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Orders(first, last) = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}..={last}") }
    }
}

/// `o3, o4` or `nobody`.
struct List<I>(I);

impl<I: Iterator<Item: fmt::Display> + Clone> fmt::Display for List<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut items = self.0.clone();
        match items.next() {
            None => f.write_str("nobody"),
            Some(first) => {
                write!(f, "{first}")?;
                items.try_for_each(|item| write!(f, ", {item}"))
            }
        }
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceEvent::ViewLeft { from, to } => write!(f, "left for {to}, last stable {from}"),
            TraceEvent::ViewEntered { view, current, leader } => {
                let role = if *leader { "leader" } else { "follower" };
                write!(f, "entered {view} as {role}, current {current}")
            }
            TraceEvent::NewViewAccepted {
                view,
                leader,
                checkpoint,
                members,
                vouchers,
                reissued,
            } => {
                let members = List(members.iter().map(|(of, from)| format!("{of} from {from}")));
                let vouchers = List(vouchers.iter());
                write!(
                    f,
                    "accepted NEW-VIEW {view} of {leader}: members {members}; acknowledged by \
                     {vouchers}; re-issued after {}",
                    checkpoint.order
                )?;
                let pillars = reissued.iter().enumerate();
                for (pillar, last) in pillars.filter(|(_, last)| last.0 > 0) {
                    write!(f, ", {} to {last}", PillarId(pillar as u16))?;
                }
                Ok(())
            }
            TraceEvent::NewViewAcknowledged { view } => write!(f, "acknowledged NEW-VIEW {view}"),
            TraceEvent::Proposed { pillar, view, first, last, batch, noop } => {
                proposal(f, "proposed", (*pillar, *view), &Orders(*first, *last))?;
                if *noop { f.write_str(": no-op") } else { write!(f, ": {batch:?}") }
            }
            TraceEvent::Reissued { pillar, view, first, last, batch, noop } => {
                proposal(f, "re-issued", (*pillar, *view), &Orders(*first, *last))?;
                if *noop { f.write_str(": no-op") } else { write!(f, ": {batch:?}") }
            }
            TraceEvent::Acknowledged { pillar, view, first, last } => {
                proposal(f, "acknowledged", (*pillar, *view), &Orders(*first, *last))
            }
            TraceEvent::Committed { pillar, view, first, last, batch } => {
                proposal(f, "committed", (*pillar, *view), &Orders(*first, *last))?;
                write!(f, ": {batch:?}")
            }
            TraceEvent::Executed { order, requests, ran } => {
                write!(f, "executed {order}: {ran} of {requests} requests ran")
            }
            TraceEvent::CheckpointTaken(id) => {
                write!(f, "took checkpoint {}: {:?}", id.order, id.digest)
            }
            TraceEvent::CheckpointStable(id) => {
                write!(f, "checkpoint {} is stable: {:?}", id.order, id.digest)
            }
            TraceEvent::Diverged(id) => {
                write!(f, "own state differs at {}, where {:?} is stable", id.order, id.digest)
            }
            TraceEvent::StateInstalled(id) => {
                write!(f, "installed the state of {}: {:?}", id.order, id.digest)
            }
        }
    }
}

fn proposal(
    f: &mut fmt::Formatter<'_>,
    did: &str,
    (pillar, view): (PillarId, View),
    orders: &Orders,
) -> fmt::Result {
    write!(f, "{pillar} {did} {orders} in {view}")
}
