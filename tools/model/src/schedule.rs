//! Counterexamples as schedules that need no model: they run on the real core.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::ids::ReplicaId;
use hybster_proto::wire::{kind, kind_of};

use crate::checker::check;
use crate::group::{Bounds, Group};
use crate::replica::{Automaton, Seen, Stimulus};

/// One step of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something happens at a correct replica.
    At(ReplicaId, Stimulus),
    /// The faulty host certifies a message.
    Certified(Bytes),
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The bounds that the group is made of.
    pub bounds: Bounds,
    /// The steps.
    pub steps: Vec<Step>,
}

/// How a schedule ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first step after which a property did not hold, and which.
    pub violated: Option<(usize, &'static str)>,
    /// Arrivals that were left out, because no replica had sent the message.
    pub left_out: usize,
    /// The events of the correct replicas.
    pub seen: Vec<Seen>,
}

impl Schedule {
    /// Runs the schedule on the stages of fresh replicas.
    ///
    /// With other rules than those that the schedule was found with, correct replicas may send
    /// other messages; what they did not send does not arrive.
    #[must_use]
    pub fn replay(&self, bounds: &Bounds) -> Outcome {
        let group = Arc::new(Group::new(bounds.clone()));
        let mut replicas: Vec<Automaton> =
            group.config.all_replicas().map(|r| Automaton::new(Arc::clone(&group), r)).collect();
        let mut exists: HashSet<Bytes> = HashSet::new();
        let mut outcome = Outcome { violated: None, left_out: 0, seen: Vec::new() };
        for (number, step) in self.steps.iter().enumerate() {
            match step {
                Step::Certified(message) => {
                    exists.insert(message.clone());
                }
                Step::At(_, Stimulus::Message(_, message)) if !exists.contains(message) => {
                    outcome.left_out += 1;
                }
                Step::At(replica, stimulus) => {
                    let effects = replicas[usize::from(replica.0)].step(stimulus.clone());
                    exists.extend(effects.sent);
                }
            }
            let of = |r: u16| Arc::new(replicas[usize::from(r)].seen().clone());
            let seen: Vec<Arc<Seen>> = group.correct().map(of).collect();
            if let Err(property) = check(&group, &seen) {
                outcome.violated.get_or_insert((number, property));
            }
        }
        outcome.seen = group.correct().map(|r| replicas[usize::from(r)].seen().clone()).collect();
        outcome
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = Group::new(self.bounds.clone());
        for (number, step) in self.steps.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            match step {
                Step::Certified(message) => {
                    write!(f, "the faulty host certifies {}", words(&group, message))?;
                }
                Step::At(replica, Stimulus::Message(from, message)) => {
                    write!(f, "{replica} gets, made by {from}: {}", words(&group, message))?;
                }
                Step::At(replica, stimulus) => write!(f, "{replica}: {stimulus:?}")?,
            }
        }
        Ok(())
    }
}

/// A message in words.
fn words(group: &Group, message: &Bytes) -> String {
    use hybster_proto::internals::{Commit, NewView, NewViewAck, PrepareHeader, ViewChange};
    let content = |h: &PrepareHeader| match group.request_of(&h.batch) {
        Some(request) => format!("{}=request {request}", h.first),
        None => format!("{}..{}=no-op", h.first, h.last),
    };
    let sets = |sets: &mut dyn Iterator<Item = &Vec<PrepareHeader>>| {
        let set = |set: &Vec<PrepareHeader>| set.iter().map(content).collect::<Vec<_>>().join(" ");
        sets.map(|s| format!("[{}]", set(s))).collect::<Vec<_>>().join(" ")
    };
    let change = |c: &ViewChange| {
        let steps: Vec<usize> = c.parts.iter().map(|p| p.chain.len()).collect();
        let prepared = sets(&mut c.parts.iter().map(|p| &p.prepared));
        let steps = steps.iter().max().copied().unwrap_or(0);
        format!("VIEW-CHANGE of {} {}->{} ({steps} steps) {prepared}", c.sender, c.from, c.to)
    };
    let config = &group.config;
    let text = match kind_of(message) {
        kind::PREPARE => PrepareHeader::parse(message)
            .map(|h| format!("PREPARE {} {} {}", h.pillar, h.view, content(&h))),
        kind::COMMIT => Commit::parse(message)
            .map(|c| format!("COMMIT of {} {} {} {}", c.sender, c.pillar, c.view, c.first)),
        kind::VIEW_CHANGE => ViewChange::parse(message, config).map(|c| change(&c)),
        kind::NEW_VIEW => NewView::parse(message, config).map(|nv| {
            let changes: Vec<String> = nv.view_changes.iter().map(change).collect();
            let acks: Vec<String> = nv.acks.iter().map(|a| a.sender.to_string()).collect();
            let again = sets(&mut nv.prepares.iter());
            format!("NEW-VIEW {} {again} from {{{}}} acks {acks:?}", nv.view, changes.join("; "))
        }),
        kind::NEW_VIEW_ACK => NewViewAck::parse(message, config).map(|a| {
            format!("NEW-VIEW-ACK of {} for {} {}", a.sender, a.view, sets(&mut a.prepared.iter()))
        }),
        kind => Ok(format!("message of kind {kind}")),
    };
    text.unwrap_or_else(|error| format!("unreadable: {error}"))
}
