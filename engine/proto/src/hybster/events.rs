//! What happens in Hybster, in the terms of a trace ([`TraceEvent`]).

use hybster_tss::CounterValue;

use super::wire::view::{Link, Part};
use crate::hybster::wire::ordering::PrepareHeader;
use crate::hybster::wire::view::{NewView, ViewChange};
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::trace::{Counted, Held, Member, Phase, Proposal, Step, TraceEvent};

impl From<&PrepareHeader> for Proposal {
    fn from(header: &PrepareHeader) -> Self {
        let PrepareHeader { first, last, batch, time_ms, noop, .. } = *header;
        Self { first, last, batch, time_ms, noop }
    }
}

/// A pillar's part of a VIEW-CHANGE.
pub(super) fn part_left(
    pillar: PillarId,
    (from, to): (View, View),
    checkpoint: OrderNumber,
    part: &Part,
) -> TraceEvent {
    let step = |link: &Link| Step { to: link.to, disclosed: counted(link.previous) };
    // The certificate of a PREPARE keeps all other batches from its order number in its view.
    let certified = Some(Phase::Prepare);
    let held =
        |header: &PrepareHeader| Held { view: header.view, certified, proposal: header.into() };
    TraceEvent::PartLeft {
        pillar,
        from,
        to,
        checkpoint,
        steps: part.chain.iter().map(step).collect(),
        held: part.prepared.iter().map(held).collect(),
    }
}

/// The acceptance of a NEW-VIEW that `leader` made.
pub(super) fn elected(new_view: &NewView, leader: ReplicaId) -> TraceEvent {
    TraceEvent::Elected {
        view: new_view.view,
        leader,
        checkpoint: new_view.checkpoint.id,
        members: new_view.view_changes.iter().map(member).collect(),
        vouchers: new_view.acks.iter().map(|ack| ack.sender).collect(),
    }
}

fn member(change: &ViewChange) -> Member {
    // The first link of a part is the step out of v_from.
    let first = |part: &Part| part.chain.first().map_or(CounterValue::ZERO, |link| link.previous);
    Member {
        replica: change.sender,
        from: change.from,
        disclosed: change.parts.iter().map(|part| counted(first(part))).collect(),
    }
}

/// What a NEW-VIEW issues again in a pillar.
pub(super) fn adopted(new_view: &NewView, pillar: PillarId) -> TraceEvent {
    let prepares = new_view.prepares.get(usize::from(pillar.0));
    let proposals = prepares.into_iter().flatten().map(Proposal::from).collect();
    TraceEvent::Adopted { pillar, view: new_view.view, proposals }
}

fn counted(value: CounterValue) -> Counted {
    Counted { view: View(value.view()), order: OrderNumber(value.order()) }
}
