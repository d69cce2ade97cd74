//! Counters of the agents, for observers: each is written by its owner with relaxed stores, and may
//! be read by any thread. The replica itself depends on two: what was dealt with of a peer's messages, and
//! what those cost that were dropped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use hybster_net::Reason;
use hybster_net::hub::dropped_cost_ns;
use hybster_proto::admission::{CLASSES, Class, Load, Totals};
use hybster_proto::execution::ExecutionStatus;
use hybster_proto::ids::ReplicaId;
use hybster_proto::output::{Reject, Rejection};
use hybster_proto::protocol::Rules;
use hybster_proto::wire::kind::LAST_SEEN;

/// What checking a message costs that no correct replica or client sends, in nanoseconds of work, at most.
/// Whoever sends such is read the more slowly.
pub(crate) const FAULT_COST_NS: u64 = 100_000;

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
    /// How many messages of peers were dropped: whoever charges for them looks at each peer only when
    /// this has changed. Several agents count here.
    pub(crate) peers_dropped: CachePadded<AtomicU64>,
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
    /// Outputs that wait for the log.
    pub(crate) held: Gauge,
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
    /// What those of its messages cost that were dropped, in nanoseconds of work. Several agents count
    /// here.
    pub(crate) dropped_ns: AtomicU64,
    /// Checkpoints at which its state differed. Written by the control stage.
    pub(crate) differed: Gauge,
}

#[derive(Debug)]
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
    rules: &'static Rules,
}

impl AgentCounters {
    fn new(replicas: u16, rules: &'static Rules) -> Self {
        Self {
            inputs: Gauge::default(),
            turns: Gauge::default(),
            sleeps: Gauge::default(),
            queued: Gauge::default(),
            congested: Gauge::default(),
            dealt: (0..replicas).map(|_| Default::default()).collect(),
            rules,
        }
    }

    /// A peer's message was dealt with. Only for the agent itself.
    #[inline]
    pub(crate) fn dealt(&self, from: ReplicaId, message: &[u8]) {
        if let Some(of_peer) = self.dealt.get(usize::from(from.0)) {
            let (messages, bytes) = &of_peer[Class::of(message, self.rules).index()];
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
    pub(crate) fn new(replicas: u16, pillars: u16, rules: &'static Rules, agents: usize) -> Self {
        let of_agent = || CachePadded::new(AgentCounters::new(replicas, rules));
        Self {
            clients: CachePadded::default(),
            control: CachePadded::default(),
            execution: CachePadded::default(),
            state: CachePadded::default(),
            pillars: (0..pillars).map(|_| CachePadded::default()).collect(),
            network: CachePadded::default(),
            peers: (0..replicas).map(|_| PeerCounters::default()).collect(),
            peers_dropped: CachePadded::default(),
            agents: (0..agents).map(|_| of_agent()).collect(),
            rejections: RejectionCounters::new(replicas),
            refusals: Reason::ALL.iter().map(|_| Gauge::default()).collect(),
        }
    }

    /// A message was dropped.
    pub(crate) fn reject(&self, rejection: &Rejection) {
        self.rejections.add(rejection);
        if let Some(from) = rejection.from
            && let Some(peer) = self.peers.get(usize::from(from.0))
        {
            peer.dropped_ns.fetch_add(cost_ns(rejection), Ordering::Relaxed);
            // After what it tells of.
            self.peers_dropped.fetch_add(1, Ordering::Release);
        }
    }
}

/// What a message cost that is dropped, in nanoseconds of work: reading it, and checking it if it is at
/// fault.
pub(crate) fn cost_ns(rejection: &Rejection) -> u64 {
    let fault_ns = if rejection.reason.is_fault() { FAULT_COST_NS } else { 0 };
    fault_ns + dropped_cost_ns(rejection.bytes.into())
}

/// Number of message kinds: those of [`hybster_proto::wire::kind`], and 0 for all others.
const KINDS: usize = 1 + LAST_SEEN as usize;

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
    use hybster_proto::protocol::Protocol;

    use super::*;

    #[test]
    fn a_peer_pays_for_what_is_dropped_and_the_more_for_what_no_correct_one_sends() {
        let counters = Counters::new(3, 1, Protocol::default().rules(), 1);
        let dropped_ns = || counters.peers[1].dropped_ns.load(Ordering::Relaxed);
        let reject = |from: Option<u16>, reason| {
            let from = from.map(ReplicaId);
            counters.reject(&Rejection { from, kind: 4, bytes: 2048, reason });
        };
        reject(None, Reject::BadRequest);
        reject(Some(9), Reject::BadCertificate);
        assert_eq!(dropped_ns(), 0);
        reject(Some(1), Reject::OutOfWindow);
        let read_ns = dropped_cost_ns(2048);
        assert_eq!(dropped_ns(), read_ns);
        reject(Some(1), Reject::BadCertificate);
        let counted = counters.rejections.iter().count();
        assert_eq!((dropped_ns(), counted), (2 * read_ns + FAULT_COST_NS, 4));
    }

    #[test]
    fn rejections_are_told_apart() {
        let counters = RejectionCounters::new(3);
        for from in [None, Some(ReplicaId(0)), Some(ReplicaId(2))] {
            for (kind, reason) in [(1, Reject::BadRequest), (18, Reject::Overload)] {
                counters.add(&Rejection { from, kind, bytes: 1, reason });
            }
        }
        counters.add(&Rejection { from: None, kind: 200, bytes: 1, reason: Reject::Malformed });
        counters.add(&Rejection { from: None, kind: 201, bytes: 1, reason: Reject::Malformed });
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
            let rejection = Rejection { from: None, kind: LAST_SEEN, bytes: 1, reason: *reason };
            (0..=times).for_each(|_| counters.add(&rejection));
        }
        let expected = Reject::ALL.iter().zip(1..).map(|(r, count)| (None, LAST_SEEN, *r, count));
        assert!(counters.iter().eq(expected));
    }
}
