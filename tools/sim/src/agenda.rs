//! What will happen in a run, in the order of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use hybster_proto::ids::ReplicaId;

use crate::network::Delivery;

/// Something that will happen.
pub(crate) enum Event {
    /// A packet arrives.
    Arrive(Delivery),
    /// A host's wire has carried a piece of a message.
    Sent(usize),
    /// A replica's turn.
    Run(usize),
    /// A replica's timer.
    Wake(usize),
    /// A client's timer.
    ClientWake(usize),
    /// A session of a client may submit.
    Turn(usize, u32),
    /// A fault of the scenario.
    Fault(usize),
    /// The end of all faults.
    Heal,
    /// A message leaves a faulty host that kept it back.
    Depart(usize, ReplicaId, Bytes),
    /// A faulty host acts of its own accord.
    Host(usize),
    /// A Byzantine client acts.
    Rogue(usize),
    /// A replica is started again.
    Start(usize),
    /// The log of a replica has failed; in this life of the replica.
    LogFailed(usize, u32),
    /// The log of a replica is synced, up to where it was written; in this life of the replica.
    Synced(usize, u32),
    /// The checkpoint that a replica was making durable is; in this life of the replica.
    Saved(usize, u32),
    /// The host of a replica is lost, which another one is to replace.
    Lose,
    /// The administrator orders the change, or another one, until one holds.
    Order(usize),
    /// A new replica asks for the epoch that names it, or one whose epoch is over for the next configuration.
    Join(usize),
    /// Is everything done?
    Check,
}

struct Scheduled {
    at_us: u64,
    /// Breaks ties in the order of scheduling.
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// Events that have not happened yet.
#[derive(Default)]
pub(crate) struct Agenda {
    scheduled: u64,
    heap: BinaryHeap<Reverse<Scheduled>>,
}

impl Agenda {
    pub(crate) fn push(&mut self, at_us: u64, event: Event) {
        self.scheduled += 1;
        self.heap.push(Reverse(Scheduled { at_us, number: self.scheduled, event }));
    }

    /// The next event and its time; of those at one time, the one that was scheduled first.
    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse(next) = self.heap.pop()?;
        Some((next.at_us, next.event))
    }
}
