//! Counters of the agents, for observers: each is written by its owner with relaxed stores, and may
//! be read by any thread. The replica itself does not depend on them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use hybster_net::Reason;
use hybster_proto::admission::{CLASSES, Class, Load, Totals};
use hybster_proto::execution::ExecutionStatus;
use hybster_proto::ids::ReplicaId;
use hybster_proto::output::{Reject, Rejection};
use hybster_proto::wire::kind::RELAYED;

/// A counter with one writer.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Only for the one writer.
    pub(crate) fn add(&self, value: u64) {
        self.set(self.get() + value);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of a replica. Each group has one writer and a cache line of its own.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) clients: CachePadded<ClientsCounters>,
    pub(crate) control: CachePadded<ControlCounters>,
    pub(crate) execution: CachePadded<ExecutionCounters>,
    pub(crate) state: CachePadded<StateCounters>,
    pub(crate) pillars: Vec<CachePadded<PillarCounters>>,
    pub(crate) network: CachePadded<NetworkCounters>,
    pub(crate) peers: Vec<PeerCounters>,
    pub(crate) agents: Vec<CachePadded<AgentCounters>>,
    pub(crate) rejections: RejectionCounters,
    pub(crate) refusals: Vec<Gauge>,
}

#[derive(Debug, Default)]
pub(crate) struct ClientsCounters {
    pub(crate) pending_bytes: Gauge,
    pub(crate) stored: Gauge,
}

#[derive(Debug, Default)]
pub(crate) struct ControlCounters {
    pub(crate) view: Gauge,
    pub(crate) current: Gauge,
    pub(crate) stable: Gauge,
    pub(crate) transferring: Gauge,
    pub(crate) diverged: Gauge,
    pub(crate) divergences: Gauge,
    pub(crate) halted: Gauge,
    pub(crate) views_entered: Gauge,
}

#[derive(Debug, Default)]
pub(crate) struct StateCounters {
    pub(crate) transfers: Gauge,
    pub(crate) snapshots: Gauge,
}

#[derive(Debug, Default)]
pub(crate) struct ExecutionCounters {
    pub(crate) executed: Gauge,
    pub(crate) requests: Gauge,
    pub(crate) duplicates: Gauge,
    pub(crate) batches: Gauge,
    pub(crate) noops: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) queued: Gauge,
}

impl ExecutionCounters {
    pub(crate) fn publish(&self, status: &ExecutionStatus) {
        self.executed.set(status.executed.0);
        self.requests.set(status.requests);
        self.duplicates.set(status.duplicates);
        self.batches.set(status.batches);
        self.noops.set(status.noops);
        self.sessions.set(status.sessions);
    }
}

#[derive(Debug, Default)]
pub(crate) struct PillarCounters {
    pub(crate) prepared: Gauge,
    pub(crate) committed: Gauge,
    pub(crate) base: Gauge,
}

#[derive(Debug, Default)]
pub(crate) struct NetworkCounters {
    pub(crate) client_links: Gauge,
    pub(crate) lost_replies: Gauge,
    pub(crate) relayed_replies: Gauge,
    pub(crate) dropped: Gauge,
    pub(crate) frames_in: Gauge,
    pub(crate) messages_in: Gauge,
    pub(crate) bytes_in: Gauge,
    pub(crate) frames_out: Gauge,
    pub(crate) messages_out: Gauge,
    pub(crate) bytes_out: Gauge,
    pub(crate) withdrawn: Gauge,
    pub(crate) duplicates: Gauge,
    pub(crate) paced: Gauge,
}

#[derive(Debug, Default)]
pub(crate) struct PeerCounters {
    pub(crate) up: AtomicBool,
    pub(crate) queued_bytes: Gauge,
    /// Messages of it that were dropped as it had too many in flight.
    pub(crate) throttled: Gauge,
    /// Messages of it that were dropped as no correct replica sends such. Several agents count here.
    pub(crate) faults: AtomicU64,
    /// Checkpoints at which its state differed. Written by the control stage.
    pub(crate) differed: Gauge,
}

#[derive(Debug, Default)]
pub(crate) struct AgentCounters {
    /// Inputs handled.
    pub(crate) inputs: Gauge,
    /// Turns of the agent's loop.
    pub(crate) turns: Gauge,
    /// Times that it went to sleep.
    pub(crate) sleeps: Gauge,
    /// Messages that wait for room in other agents' queues.
    pub(crate) queued: Gauge,
    /// Turns that ended congested.
    pub(crate) congested: Gauge,
    /// By peer and class: messages that it has dealt with, and their bytes.
    dealt: Vec<[(Gauge, Gauge); CLASSES]>,
}

impl AgentCounters {
    fn new(replicas: u16) -> Self {
        let dealt = (0..replicas).map(|_| Default::default()).collect();
        Self { dealt, ..Self::default() }
    }

    /// A peer's message was dealt with. Only for the agent itself.
    #[inline]
    pub(crate) fn dealt(&self, from: ReplicaId, message: &[u8]) {
        if let Some(of_peer) = self.dealt.get(usize::from(from.0)) {
            let (messages, bytes) = &of_peer[Class::of(message).index()];
            messages.add(1);
            bytes.add(message.len() as u64);
        }
    }

    /// What it has dealt with of a peer's messages.
    pub(crate) fn dealt_of(&self, from: ReplicaId) -> Totals {
        let Some(of_peer) = self.dealt.get(usize::from(from.0)) else {
            return Totals::default();
        };
        std::array::from_fn(|class| {
            let (messages, bytes) = &of_peer[class];
            Load { messages: messages.get(), bytes: bytes.get() }
        })
    }
}

impl Counters {
    pub(crate) fn new(replicas: u16, pillars: u16, agents: usize) -> Self {
        Self {
            clients: CachePadded::default(),
            control: CachePadded::default(),
            execution: CachePadded::default(),
            state: CachePadded::default(),
            pillars: (0..pillars).map(|_| CachePadded::default()).collect(),
            network: CachePadded::default(),
            peers: (0..replicas).map(|_| PeerCounters::default()).collect(),
            agents: (0..agents).map(|_| CachePadded::new(AgentCounters::new(replicas))).collect(),
            rejections: RejectionCounters::new(replicas),
            refusals: Reason::ALL.iter().map(|_| Gauge::default()).collect(),
        }
    }

    /// A message was dropped.
    pub(crate) fn reject(&self, rejection: &Rejection) {
        self.rejections.add(rejection);
        if let Some(from) = rejection.from.filter(|_| rejection.reason.is_fault())
            && let Some(peer) = self.peers.get(usize::from(from.0))
        {
            peer.faults.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Number of message kinds: those of [`hybster_proto::wire::kind`], and 0 for all others.
const KINDS: usize = 1 + RELAYED as usize;

const REASONS: usize = Reject::ALL.len();

/// Dropped messages by sender, kind and reason. Several agents count here.
#[derive(Debug)]
pub(crate) struct RejectionCounters {
    replicas: usize,
    counts: Vec<AtomicU64>,
}

impl RejectionCounters {
    fn new(replicas: u16) -> Self {
        let replicas = usize::from(replicas);
        // One row more than replicas: the last one is for clients.
        let count = (replicas + 1) * KINDS * REASONS;
        Self { replicas, counts: (0..count).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn add(&self, rejection: &Rejection) {
        let from = rejection.from.map_or(self.replicas, |r| usize::from(r.0).min(self.replicas));
        let kind =
            if usize::from(rejection.kind) < KINDS { usize::from(rejection.kind) } else { 0 };
        let index = (from * KINDS + kind) * REASONS + rejection.reason.index();
        self.counts[index].fetch_add(1, Ordering::Relaxed);
    }

    /// All counts that are not zero: sender (`None` for clients), kind, reason, count.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Option<u16>, u8, Reject, u64)> + '_ {
        self.counts.iter().enumerate().filter_map(|(index, count)| {
            let count = count.load(Ordering::Relaxed);
            let (row, reason) = (index / REASONS, index % REASONS);
            let (from, kind) = (row / KINDS, row % KINDS);
            let from = (from < self.replicas).then_some(from as u16);
            (count > 0).then_some((from, kind as u8, Reject::ALL[reason], count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_correct_replica_sends_is_a_fault() {
        let counters = Counters::new(3, 1, 1);
        let faults = || counters.peers[1].faults.load(Ordering::Relaxed);
        let reject = |from: Option<u16>, reason| {
            counters.reject(&Rejection { from: from.map(ReplicaId), kind: 4, reason });
        };
        reject(Some(1), Reject::OutOfWindow);
        reject(None, Reject::BadRequest);
        reject(Some(9), Reject::BadCertificate);
        assert_eq!(faults(), 0);
        reject(Some(1), Reject::BadCertificate);
        assert_eq!((faults(), counters.rejections.iter().count()), (1, 4));
    }

    #[test]
    fn rejections_are_told_apart() {
        let counters = RejectionCounters::new(3);
        for from in [None, Some(ReplicaId(0)), Some(ReplicaId(2))] {
            for (kind, reason) in [(1, Reject::BadRequest), (18, Reject::Overload)] {
                counters.add(&Rejection { from, kind, reason });
            }
        }
        counters.add(&Rejection { from: None, kind: 200, reason: Reject::Malformed });
        counters.add(&Rejection { from: None, kind: 201, reason: Reject::Malformed });
        let all: Vec<_> = counters.iter().collect();
        assert_eq!(all.len(), 7);
        assert!(all.contains(&(Some(2), 18, Reject::Overload, 1)));
        assert!(all.contains(&(None, 0, Reject::Malformed, 2)));
    }

    #[test]
    fn every_reason_has_a_counter() {
        let counters = RejectionCounters::new(3);
        for (times, reason) in Reject::ALL.iter().enumerate() {
            assert_eq!(reason.index(), times);
            let rejection = Rejection { from: None, kind: RELAYED, reason: *reason };
            (0..=times).for_each(|_| counters.add(&rejection));
        }
        let expected = Reject::ALL.iter().zip(1..).map(|(r, count)| (None, RELAYED, *r, count));
        assert!(counters.iter().eq(expected));
    }
}
