//! Events in words.

use std::fmt;

use super::{Counted, Held, Member, Phase, Proposal, Step, TraceEvent};
use crate::ids::{OrderNumber, PillarId, View};

/// Items of a list that are shown; the others are counted.
const SHOWN: usize = 8;

/// `o3` or `o3..=o7`.
pub(super) struct Orders(pub(super) OrderNumber, pub(super) OrderNumber);

impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(first, last) = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}..={last}") }
    }
}

/// `r0, r2` or `nobody`.
pub(super) struct List<I>(pub(super) I);

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

/// `: nothing`, or the first items after a colon and how many more there are.
struct Some8<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Some8<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(": nothing");
        }
        for (at, item) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{} {item}", if at == 0 { ":" } else { "," })?;
        }
        match self.0.len() {
            ..=SHOWN => Ok(()),
            all => write!(f, " and {} more", all - SHOWN),
        }
    }
}

/// ` at v1|o3, then v2|o0`: where a counter was at each step; nothing without steps.
struct Steps<'a>(&'a [Step]);

impl fmt::Display for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            write!(f, "{} {}", if at == 0 { " at" } else { ", then" }, step.disclosed)?;
        }
        Ok(())
    }
}

/// What is proposed.
struct Content<'a>(&'a Proposal);

impl fmt::Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0 {
            Proposal { noop: true, .. } => f.write_str("no-op"),
            Proposal { time_ms: 0, batch, .. } => write!(f, "{batch:?}"),
            Proposal { time_ms, batch, .. } => write!(f, "{batch:?} at {time_ms} ms"),
        }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Orders(self.first, self.last), Content(self))
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.proposal, self.view)?;
        match self.certified {
            None => f.write_str(" (vouched for)"),
            Some(Phase::Prepare) => Ok(()),
            Some(Phase::Commit) => f.write_str(" (committed)"),
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.view, self.order)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.replica, self.from)?;
        if self.disclosed.is_empty() {
            return Ok(());
        }
        write!(f, " at {}", List(self.disclosed.iter()))
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ViewLeft { from, to } => write!(f, "left for {to}, last stable {from}"),
            Self::PartLeft { pillar, from, to, checkpoint, steps, held } => {
                write!(f, "{pillar} left {from} for {to}{}", Steps(steps))?;
                write!(f, "; holds after {checkpoint}{}", Some8(held))
            }
            Self::Elected { view, leader, checkpoint, members, vouchers } => {
                let order = checkpoint.order;
                write!(f, "accepted {leader} as leader of {view} from {order} on: members ")?;
                let members: Vec<String> = members.iter().map(Member::to_string).collect();
                write!(f, "{}; acknowledged by {}", members.join("; "), List(vouchers.iter()))
            }
            Self::Adopted { pillar, view, proposals } => {
                write!(f, "{pillar} adopted in {view}{}", Some8(proposals))
            }
            Self::ViewEntered { view, current, leader } => {
                let role = if *leader { "leader" } else { "follower" };
                write!(f, "entered {view} as {role}, current {current}")
            }
            Self::Endorsed { view, checkpoint } => {
                write!(f, "acknowledged {view} after {}", checkpoint.order)
            }
            Self::Proposed { pillar, view, proposal } => {
                of_slots(f, (*pillar, "proposed", *view), proposal)
            }
            Self::Reissued { pillar, view, proposal } => {
                of_slots(f, (*pillar, "re-issued", *view), proposal)
            }
            Self::Vouched { phase, pillar, view, proposal } => {
                let did = by_phase(*phase, "accepted", "acknowledged");
                of_slots(f, (*pillar, did, *view), proposal)
            }
            Self::Certified { phase, pillar, view, proposal, voters } => {
                let did = by_phase(*phase, "prepared", "committed");
                of_slots(f, (*pillar, did, *view), proposal)?;
                write!(f, ", by {}", List(voters.iter()))
            }
            Self::Executed { order, requests, ran, results } => {
                write!(f, "executed {order}: {ran} of {requests} requests ran; answers {results:?}")
            }
            Self::AgreedTime { order, unix_ms } => {
                write!(f, "the agreed time of {order} is {unix_ms} ms")
            }
            Self::CheckpointTaken(id) => {
                write!(f, "took checkpoint {}: {:?}", id.order, id.digest)
            }
            Self::CheckpointStable { checkpoint, voters } => {
                let (order, digest) = (checkpoint.order, checkpoint.digest);
                write!(f, "checkpoint {order} is stable: {digest:?}, by {}", List(voters.iter()))
            }
            Self::Diverged(id) => {
                write!(f, "own state differs at {}, where {:?} is stable", id.order, id.digest)
            }
            Self::StateInstalled(id) => {
                write!(f, "installed the state of {}: {:?}", id.order, id.digest)
            }
            Self::Configured { after, epoch, members, faults, .. } => {
                let members = List(members.iter());
                write!(f, "epoch {epoch} begins after {after}: members {members}; f = {faults}")
            }
            Self::Lost { events } => {
                write!(f, "{events} events are missing here: they were dropped")
            }
        }
    }
}

fn by_phase(phase: Phase, prepare: &'static str, commit: &'static str) -> &'static str {
    match phase {
        Phase::Prepare => prepare,
        Phase::Commit => commit,
    }
}

fn of_slots(
    f: &mut fmt::Formatter<'_>,
    (pillar, did, view): (PillarId, &str, View),
    proposal: &Proposal,
) -> fmt::Result {
    let orders = Orders(proposal.first, proposal.last);
    write!(f, "{pillar} {did} {orders} in {view}: {}", Content(proposal))
}
