//! Which branches of the protocol a run took, as far as one sees them from outside.

use std::collections::HashSet;

use hybster_proto::ids::View;
use hybster_proto::internals::{ControlInput, NewView, pbft};
use hybster_proto::output::{Input, Reject, ToControl, ToIntake, ToPillar};
use hybster_proto::protocol::Protocol;
use hybster_proto::trace::TraceEvent;
use hybster_proto::wire::kind;

use crate::display::kind_name;
use crate::oracle::Seen;
use crate::report::Counters;

/// The branches that are counted.
pub const BRANCHES: [&str; 31] = [
    "a view is left for the next one",
    "a view is left for one further on",
    "an unfinished view is left",
    "a view is entered as its follower",
    "a view is entered as its leader",
    "a view is entered without having left for it",
    "a view is entered belatedly",
    "the leader is suspected",
    "a suspicion comes too late",
    "a VIEW-CHANGE has a chain of several links",
    "a NEW-VIEW has VIEW-CHANGEs of different v_from",
    "a NEW-VIEW needs a NEW-VIEW-ACK",
    "a NEW-VIEW-ACK names prepared batches",
    "a NEW-VIEW has a checkpoint that some VIEW-CHANGE lacks",
    "a NEW-VIEW re-issues nothing",
    "a NEW-VIEW re-issues in one pillar only",
    "a NEW-VIEW re-issues in several pillars",
    "a NEW-VIEW re-issues a no-op",
    "a NEW-VIEW drops PREPAREs of an older v_from",
    "a NEW-VIEW has prepared sets of different lengths",
    "batches of a view-change message are held",
    "batches of a view-change message are not valid",
    "a NEW-VIEW-ACK is certified",
    "a NEW-VIEW is certified",
    "a peer is behind",
    "a stage is stuck",
    "a gap is filled by a no-op",
    "a request is found executed",
    "a checkpoint is stable before it is reached",
    "a state is installed",
    "a PREPARE goes to some followers first",
];

/// Message kinds that replicas and clients send, in the order of their numbers.
pub const KINDS: [u8; 19] = [
    kind::REQUESTS,
    kind::REPLIES,
    kind::PREPARE,
    kind::COMMIT,
    kind::CHECKPOINT,
    kind::VIEW_CHANGE,
    kind::NEW_VIEW,
    kind::NEW_VIEW_ACK,
    kind::STATE_REQUEST,
    kind::STATE,
    kind::ORDER_REQUEST,
    kind::BATCH_REQUEST,
    kind::BATCH,
    kind::FETCH,
    kind::FETCHED,
    kind::QUERIES,
    kind::RELAY,
    kind::RELAYED,
    kind::LAST_SEEN,
];

/// Those that only PBFT has, in the order of their numbers.
pub const PBFT_KINDS: [u8; 13] = [
    pbft::kind::PRE_PREPARE,
    pbft::kind::PREPARE,
    pbft::kind::COMMIT,
    pbft::kind::COMMITTED,
    pbft::kind::CHECKPOINT,
    pbft::kind::ORDER_REQUEST,
    pbft::kind::BODY_REQUEST,
    pbft::kind::BODY,
    pbft::kind::VIEW_CHANGE,
    pbft::kind::VIEW_CHANGE_ACK,
    pbft::kind::NEW_VIEW,
    pbft::kind::STATE_REQUEST,
    pbft::kind::STABLE,
];

/// Branches that only Hybster has: it enters views belatedly, has links and NEW-VIEW-ACKs, certifies,
/// tells what a NEW-VIEW issues again, and asks a quorum first.
fn is_of(protocol: Protocol, branch: &str) -> bool {
    protocol == Protocol::Hybster
        || !(BRANCHES[9..=23].contains(&branch) || [BRANCHES[6], BRANCHES[30]].contains(&branch))
}

/// What of all this a sum of runs did not reach, in words.
#[must_use]
pub fn missing(protocol: Protocol, sum: &Counters) -> Vec<String> {
    let rules = protocol.rules();
    let all = KINDS.iter().chain(&PBFT_KINDS);
    let all = all.filter(|kind| {
        let of_some = Protocol::ALL.iter().any(|other| (other.rules().handler)(**kind).is_some());
        let is_relayed = [kind::RELAY, kind::RELAYED].contains(kind);
        (!of_some && (!is_relayed || rules.relays_replies)) || (rules.handler)(**kind).is_some()
    });
    let kinds = all.filter(|kind| !sum.sent.contains_key(kind));
    let kinds = kinds.map(|kind| format!("no {} was sent", kind_name(*kind)));
    let rejected: HashSet<Reject> = sum.rejected.keys().map(|(_, reason)| *reason).collect();
    let reasons = Reject::ALL.iter().filter(|reason| !rejected.contains(reason));
    let reasons = reasons.map(|reason| format!("nothing was rejected as {reason:?}"));
    let branches = BRANCHES.iter().filter(|branch| is_of(protocol, branch));
    let branches = branches.filter(|branch| !sum.branches.contains_key(*branch));
    let branches = branches.map(|branch| format!("never: {branch}"));
    kinds.chain(reasons).chain(branches).collect()
}

#[derive(Default)]
pub(crate) struct Coverage {
    highest_stable: u64,
}

fn took(counters: &mut Counters, branch: &'static str) {
    debug_assert!(BRANCHES.contains(&branch), "{branch} is not listed");
    *counters.branches.entry(branch).or_default() += 1;
}

impl Coverage {
    /// A replica lets some peers wait for a message.
    pub(crate) fn thrifty(&mut self, counters: &mut Counters) {
        took(counters, BRANCHES[30]);
    }

    /// A stage of a replica, of which `seen` is known, hands over an input.
    pub(crate) fn input(&mut self, counters: &mut Counters, seen: &Seen, input: &Input) {
        match input {
            Input::Control(ToControl::Suspect { view }) => {
                let late = !seen.in_view || seen.view != *view;
                took(counters, if late { BRANCHES[8] } else { BRANCHES[7] });
            }
            Input::Control(ToControl::Hybster(ControlInput::Part { part, .. }))
                if part.chain.len() > 1 =>
            {
                took(counters, BRANCHES[9]);
            }
            Input::Control(ToControl::Hybster(ControlInput::Held { valid: true, .. })) => {
                took(counters, BRANCHES[20])
            }
            Input::Control(ToControl::Hybster(ControlInput::Held { valid: false, .. })) => {
                took(counters, BRANCHES[21])
            }
            Input::Control(ToControl::Hybster(ControlInput::AckCertified { .. })) => {
                took(counters, BRANCHES[22])
            }
            Input::Control(ToControl::Hybster(ControlInput::NewViewCertified { .. })) => {
                took(counters, BRANCHES[23])
            }
            Input::Control(ToControl::PeerBehind(_)) => took(counters, BRANCHES[24]),
            Input::Control(ToControl::Stuck) => took(counters, BRANCHES[25]),
            Input::Pillar(_, ToPillar::FillGap { .. }) => took(counters, BRANCHES[26]),
            Input::Intake(ToIntake::Executed { .. }) => took(counters, BRANCHES[27]),
            _ => {}
        }
    }

    /// A replica, of which `seen` was known before, did something.
    pub(crate) fn event(&mut self, counters: &mut Counters, seen: &Seen, event: &TraceEvent) {
        match event {
            TraceEvent::ViewLeft { to, .. } => {
                let next = seen.view.next() == *to;
                took(counters, if next { BRANCHES[0] } else { BRANCHES[1] });
                if !seen.in_view {
                    took(counters, BRANCHES[2]);
                }
            }
            TraceEvent::ViewEntered { view, current, leader } => {
                took(counters, if *leader { BRANCHES[4] } else { BRANCHES[3] });
                if view < current {
                    took(counters, BRANCHES[6]);
                } else if seen.in_view || seen.view < *view {
                    took(counters, BRANCHES[5]);
                }
            }
            TraceEvent::CheckpointStable { checkpoint: id, .. } => {
                self.highest_stable = self.highest_stable.max(id.order.0);
                if seen.frontier < id.order.0 {
                    took(counters, BRANCHES[28]);
                }
            }
            TraceEvent::StateInstalled(_) => took(counters, BRANCHES[29]),
            _ => {}
        }
    }

    /// A NEW-VIEW leaves its leader or a replica that relays it.
    pub(crate) fn new_view(&mut self, counters: &mut Counters, new_view: &NewView) {
        let from: HashSet<View> = new_view.view_changes.iter().map(|c| c.from).collect();
        let latest = from.iter().max().copied().unwrap_or_default();
        if from.len() > 1 {
            took(counters, BRANCHES[10]);
        }
        let vouching = new_view.view_changes.iter().filter(|c| c.from == latest).count();
        if !new_view.acks.is_empty() && vouching < new_view.view_changes.len() {
            took(counters, BRANCHES[11]);
        }
        if new_view.acks.iter().any(|ack| ack.prepared.iter().any(|set| !set.is_empty())) {
            took(counters, BRANCHES[12]);
        }
        let order = new_view.checkpoint.id.order;
        if new_view.view_changes.iter().any(|c| c.checkpoint.id.order < order) {
            took(counters, BRANCHES[13]);
        }
        let filled = new_view.prepares.iter().filter(|set| !set.is_empty()).count();
        took(counters, BRANCHES[14 + filled.min(2)]);
        if new_view.prepares.iter().flatten().any(|header| header.noop) {
            took(counters, BRANCHES[17]);
        }
        let dropped = |c: &&hybster_proto::internals::ViewChange| {
            c.from < latest && c.parts.iter().any(|part| !part.prepared.is_empty())
        };
        if new_view.view_changes.iter().find(dropped).is_some() {
            took(counters, BRANCHES[18]);
        }
        let lengths: HashSet<Vec<usize>> = new_view
            .view_changes
            .iter()
            .filter(|c| c.from == latest)
            .map(|c| c.parts.iter().map(|part| part.prepared.len()).collect())
            .collect();
        if lengths.len() > 1 {
            took(counters, BRANCHES[19]);
        }
    }
}
