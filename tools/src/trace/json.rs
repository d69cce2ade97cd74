//! Events as JSON, for programs in other languages.

use hybster_proto::ids::{OrderNumber, Peers, View};
use hybster_proto::trace::file::{Entry, Header, Writer};
use hybster_proto::trace::{Counted, Held, Member, Phase, Proposal, Quorums, Step, TraceEvent};
use hybster_proto::wire::CheckpointId;
use serde_json::{Map, Value, json};

/// The header of a group's traces.
pub(super) fn header(header: &Header) -> Value {
    json!({
        "event": "group",
        "writer": match header.writer {
            Writer::Replica => "replica",
            Writer::Simulator => "simulator",
        },
        "protocol": header.protocol.as_str(),
        "epoch": header.epoch,
        "members": ids(header.members),
        "faulty": ids(header.faulty),
        "faults": header.faults,
        "pillars": header.pillars,
        "window": header.window,
        "checkpoint_interval": header.checkpoint_interval,
        "quorums": quorums(&header.quorums),
        "constants": header.group.to_string(),
    })
}

/// An event; `time_us` is that of its line in words.
pub(super) fn entry(time_us: u64, entry: &Entry) -> Value {
    let Value::Object(mut object) = event(&entry.event) else { unreachable!("all are objects") };
    let mut line = Map::new();
    line.insert("time_us".into(), time_us.into());
    line.insert("replica".into(), entry.replica.0.into());
    line.insert("stream".into(), entry.stream.into());
    if let Some(pillar) = entry.event.pillar() {
        line.insert("pillar".into(), pillar.0.into());
    }
    line.append(&mut object);
    Value::Object(line)
}

fn event(event: &TraceEvent) -> Value {
    match event {
        TraceEvent::ViewLeft { .. }
        | TraceEvent::PartLeft { .. }
        | TraceEvent::Elected { .. }
        | TraceEvent::Adopted { .. }
        | TraceEvent::ViewEntered { .. }
        | TraceEvent::Endorsed { .. } => of_views(event),
        TraceEvent::Proposed { .. }
        | TraceEvent::Reissued { .. }
        | TraceEvent::Vouched { .. }
        | TraceEvent::Certified { .. } => of_ordering(event),
        TraceEvent::Executed { order, requests, ran, results } => json!({
            "event": "executed",
            "order": order.0,
            "requests": requests,
            "ran": ran,
            "results": results.to_string(),
        }),
        TraceEvent::AgreedTime { order, unix_ms } => {
            json!({ "event": "agreed time", "order": order.0, "unix_ms": unix_ms })
        }
        TraceEvent::CheckpointTaken(id) => {
            json!({ "event": "checkpoint taken", "checkpoint": of_checkpoint(id) })
        }
        TraceEvent::CheckpointStable { checkpoint, voters } => json!({
            "event": "checkpoint stable",
            "checkpoint": of_checkpoint(checkpoint),
            "voters": ids(*voters),
        }),
        TraceEvent::Diverged(id) => {
            json!({ "event": "diverged", "checkpoint": of_checkpoint(id) })
        }
        TraceEvent::StateInstalled(id) => {
            json!({ "event": "state installed", "checkpoint": of_checkpoint(id) })
        }
        TraceEvent::Configured { after, epoch, members, faults, quorums: of, constants } => json!({
            "event": "configured",
            "after": after.0,
            "epoch": epoch,
            "members": ids(*members),
            "faults": faults,
            "quorums": quorums(of),
            "constants": constants.to_string(),
        }),
        TraceEvent::Lost { events } => json!({ "event": "lost", "events": events }),
    }
}

fn of_views(event: &TraceEvent) -> Value {
    match event {
        TraceEvent::ViewLeft { from, to } => {
            json!({ "event": "view left", "from": from.0, "to": to.0 })
        }
        TraceEvent::PartLeft { from, to, checkpoint, steps, held, .. } => json!({
            "event": "part left",
            "from": from.0,
            "to": to.0,
            "checkpoint": checkpoint.0,
            "steps": steps.iter().map(step).collect::<Vec<_>>(),
            "held": held.iter().map(held_proposal).collect::<Vec<_>>(),
        }),
        TraceEvent::Elected { view, leader, checkpoint, members, vouchers } => json!({
            "event": "elected",
            "view": view.0,
            "leader": leader.0,
            "checkpoint": of_checkpoint(checkpoint),
            "members": members.iter().map(member).collect::<Vec<_>>(),
            "vouchers": ids(*vouchers),
        }),
        TraceEvent::Adopted { view, proposals, .. } => json!({
            "event": "adopted",
            "view": view.0,
            "proposals": proposals.iter().map(proposal).collect::<Vec<_>>(),
        }),
        TraceEvent::ViewEntered { view, current, leader } => json!({
            "event": "view entered", "view": view.0, "current": current.0, "leads": leader,
        }),
        TraceEvent::Endorsed { view, checkpoint } => json!({
            "event": "endorsed", "view": view.0, "checkpoint": of_checkpoint(checkpoint),
        }),
        _ => unreachable!("an event of a view change"),
    }
}

fn of_ordering(event: &TraceEvent) -> Value {
    match event {
        TraceEvent::Proposed { view, proposal: of, .. } => {
            json!({ "event": "proposed", "view": view.0, "proposal": proposal(of) })
        }
        TraceEvent::Reissued { view, proposal: of, .. } => {
            json!({ "event": "reissued", "view": view.0, "proposal": proposal(of) })
        }
        TraceEvent::Vouched { phase, view, proposal: of, .. } => json!({
            "event": "vouched",
            "phase": phase_name(*phase),
            "view": view.0,
            "proposal": proposal(of),
        }),
        TraceEvent::Certified { phase, view, proposal: of, voters, .. } => json!({
            "event": "certified",
            "phase": phase_name(*phase),
            "view": view.0,
            "proposal": proposal(of),
            "voters": ids(*voters),
        }),
        _ => unreachable!("an event of the ordering"),
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Prepare => "prepare",
        Phase::Commit => "commit",
    }
}

fn ids(peers: Peers) -> Vec<u16> {
    peers.iter().map(|replica| replica.0).collect()
}

fn quorums(quorums: &Quorums) -> Value {
    let Quorums { elect, support, prepare, commit, stable, reply } = quorums;
    json!({
        "elect": elect,
        "support": support,
        "prepare": prepare,
        "commit": commit,
        "stable": stable,
        "reply": reply,
    })
}

fn of_checkpoint(id: &CheckpointId) -> Value {
    json!({ "order": id.order.0, "digest": id.digest.to_string() })
}

fn proposal(proposal: &Proposal) -> Value {
    json!({
        "first": proposal.first.0,
        "last": proposal.last.0,
        "batch": proposal.batch.to_string(),
        "time_ms": proposal.time_ms,
        "noop": proposal.noop,
    })
}

fn held_proposal(held: &Held) -> Value {
    json!({
        "view": held.view.0,
        "certified": held.certified.map(phase_name),
        "proposal": proposal(&held.proposal),
    })
}

fn counted(Counted { view: View(view), order: OrderNumber(order) }: &Counted) -> Value {
    json!({ "view": view, "order": order })
}

fn step(step: &Step) -> Value {
    json!({ "to": step.to.0, "disclosed": counted(&step.disclosed) })
}

fn member(member: &Member) -> Value {
    json!({
        "replica": member.replica.0,
        "from": member.from.0,
        "disclosed": member.disclosed.iter().map(counted).collect::<Vec<_>>(),
    })
}
