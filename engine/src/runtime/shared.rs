//! The state that all agents of a replica share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crossbeam::utils::CachePadded;
use hybster_net::{Reason, TransportError, TransportKind};
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{ReplicaId, View};
use hybster_proto::output::Fatal;
use hybster_proto::service::ServiceIdentity;
use parking_lot::Mutex;

use crate::durable::Durable;

use super::clock::Clock;
use super::counters::{Gauge, PillarCounters};
use super::doorbell::Doorbell;
use super::epochs::EpochWatch;
use super::timing::{Recorder, StageTimes};
use super::tracing::TraceTarget;
use super::{
    AgentPlan, AgentStatus, Counters, DiskStatus, Layout, PeerStatus, PillarStatus, RefusalCount,
    RejectionCount, Status, TrafficStatus,
};

/// Why a replica stopped by itself.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A stage found one of its invariants broken.
    Fatal(Fatal),
    /// The transport is dead.
    Transport(TransportError),
    /// A thread panicked.
    Panicked(String),
    /// The log takes nothing more, or the checkpoint cannot be written.
    Disk(String),
    /// The epoch is over: the replica is to begin again, in this one.
    EpochOver(u32),
}

/// The state that all agents of a replica share.
pub(crate) struct Shared {
    pub(crate) replica: ReplicaId,
    pub(crate) config: Arc<GroupConfig>,
    pub(crate) layout: Layout,
    pub(crate) transport: TransportKind,
    pub(crate) replicated: bool,
    pub(crate) plans: Vec<AgentPlan>,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) doorbells: Vec<CachePadded<Doorbell>>,
    pub(crate) trace: Option<TraceTarget>,
    /// Whoever wants to know how long requests take at each stage.
    pub(crate) times: Option<StageTimes>,
    /// The disk that the replica can start again from.
    pub(crate) durable: Option<Arc<Durable>>,
    /// What is known of the end of the epoch, in a group whose members can change.
    pub(crate) epochs: Option<Arc<EpochWatch>>,
    /// What the service says that it is.
    service: Option<ServiceIdentity>,
    stop: AtomicBool,
    /// How many agents are congested.
    congested: AtomicU32,
    failure: Mutex<Option<Failure>>,
}

impl Shared {
    pub(crate) fn new(
        replica: ReplicaId,
        config: Arc<GroupConfig>,
        layout: Layout,
        transport: TransportKind,
        replicated: bool,
        plans: Vec<AgentPlan>,
        trace: Option<TraceTarget>,
    ) -> Self {
        let replicas = if replicated { config.replicas } else { 0 };
        let pillars = if replicated { config.pillars } else { 0 };
        Self {
            replica,
            counters: Counters::new(replicas, pillars, config.rules(), plans.len()),
            doorbells: plans.iter().map(|_| CachePadded::default()).collect(),
            config,
            layout,
            transport,
            replicated,
            plans,
            clock: Clock::start(),
            trace,
            times: None,
            durable: None,
            epochs: None,
            service: None,
            stop: AtomicBool::new(false),
            congested: AtomicU32::new(0),
            failure: Mutex::new(None),
        }
    }

    /// The same for a replica whose service says what it is.
    pub(crate) fn with_service(mut self, service: Option<ServiceIdentity>) -> Self {
        self.service = service;
        self
    }

    /// The same for a replica that can start again from its disk.
    pub(crate) fn with_disk(mut self, durable: Option<Arc<Durable>>) -> Self {
        self.durable = durable;
        self
    }

    /// The same for a replica of a group whose members can change.
    pub(crate) fn with_epochs(mut self, epochs: Option<Arc<EpochWatch>>) -> Self {
        self.epochs = epochs;
        self
    }

    /// The same for a replica of which somebody wants to know how long requests take at each stage.
    pub(crate) fn with_times(mut self, times: Option<StageTimes>) -> Self {
        self.times = times;
        self
    }

    /// What records such times, in one thread.
    pub(crate) fn recorder(&self) -> Option<Box<Recorder>> {
        self.times.as_ref().map(|times| times.recorder(self.config.rules()))
    }

    /// Whether the agents must end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends all agents.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.doorbells.iter().for_each(|target| target.wake_always());
    }

    /// Ends all agents because of a failure. The first failure is the one that is reported.
    pub(crate) fn fail(&self, failure: Failure) {
        log::error!("replica {} stops: {failure:?}", self.replica.0);
        self.failure.lock().get_or_insert(failure);
        self.stop();
    }

    /// Ends all agents, as the replica is to go on in another epoch.
    pub(crate) fn leave_for_epoch(&self, next: u32) {
        log::info!("replica {}: its epoch is over, epoch {next} begins", self.replica.0);
        self.failure.lock().get_or_insert(Failure::EpochOver(next));
        self.stop();
    }

    /// Why the replica stopped by itself, if it did.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.failure.lock().take()
    }

    /// Whether clients must wait, since some agent is congested.
    pub(crate) fn is_congested(&self) -> bool {
        self.congested.load(Ordering::Relaxed) > 0
    }

    /// Takes note that an agent became congested, or no longer is.
    pub(crate) fn set_congested(&self, congested: bool) {
        if congested {
            self.congested.fetch_add(1, Ordering::Relaxed);
        } else {
            self.congested.fetch_sub(1, Ordering::Relaxed);
        }
        // The network agent reads from clients again.
        self.wake_network();
    }

    /// Wakes the agent with the network, agent 0.
    pub(crate) fn wake_network(&self) {
        self.doorbells[0].wake();
    }

    /// A snapshot of all counters.
    pub(crate) fn status(&self) -> Status {
        let counters = &self.counters;
        let view = counters.control.view.get();
        let rejections = self.rejections();
        Status {
            replica: self.replica.0,
            group: self.config.group.iter().map(|byte| format!("{byte:02x}")).collect(),
            replicated: self.replicated,
            uptime_us: self.clock.now().0,
            clock_ms: Clock::wall_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            service: self.service.map_or_else(String::new, |it| it.name().to_owned()),
            service_version: self.service.map_or(0, |it| it.version()),
            view,
            current_view: counters.control.current.get(),
            leader: self.config.leader(View(view)).0,
            stable_checkpoint: counters.control.stable.get(),
            transferring: counters.control.transferring.get() > 0,
            diverged: counters.control.diverged.get() > 0,
            divergences: counters.control.divergences.get(),
            halted: counters.control.halted.get() > 0,
            views_entered: counters.control.views_entered.get(),
            transfers: counters.state.transfers.get(),
            snapshots: counters.state.snapshots.get(),
            executed: counters.execution.executed.get(),
            requests: counters.execution.requests.get(),
            duplicates: counters.execution.duplicates.get(),
            batches: counters.execution.batches.get(),
            noops: counters.execution.noops.get(),
            sessions: counters.execution.sessions.get(),
            execution_queue: counters.execution.queued.get(),
            pending_bytes: counters.clients.pending_bytes.get(),
            stored_requests: counters.clients.stored.get(),
            client_links: counters.network.client_links.get(),
            lost_replies: counters.network.lost_replies.get(),
            relayed_replies: counters.network.relayed_replies.get(),
            dropped_sends: counters.network.dropped.get(),
            rejected: rejections.iter().map(|rejection| rejection.count).sum(),
            pillars: self.pillars(),
            peers: self.peers(),
            rejections,
            refusals: self.refusals(),
            traffic: self.traffic(),
            disk: self.disk(),
            layout: self.layout.to_string(),
            transport: self.transport.to_string(),
            agents: self.agents(),
        }
    }

    fn pillars(&self) -> Vec<PillarStatus> {
        let pillar = |(index, pillar): (usize, &CachePadded<PillarCounters>)| PillarStatus {
            pillar: index as u16,
            prepared: pillar.prepared.get(),
            committed: pillar.committed.get(),
            window_base: pillar.base.get(),
        };
        self.counters.pillars.iter().enumerate().map(pillar).collect()
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let peers = self.counters.peers.iter().enumerate();
        peers
            .filter(|(index, _)| *index != usize::from(self.replica.0))
            .map(|(index, peer)| PeerStatus {
                replica: index as u16,
                up: peer.up.load(Ordering::Relaxed),
                queued_bytes: peer.queued_bytes.get(),
                throttled: peer.throttled.get(),
                differed: peer.differed.get(),
            })
            .collect()
    }

    fn rejections(&self) -> Vec<RejectionCount> {
        let rejections = self.counters.rejections.iter();
        rejections
            .map(|(from, kind, reason, count)| RejectionCount {
                from,
                kind,
                reason: format!("{reason:?}"),
                count,
            })
            .collect()
    }

    fn refusals(&self) -> Vec<RefusalCount> {
        let counts = self.counters.refusals.iter().map(Gauge::get);
        Reason::ALL
            .iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| RefusalCount { reason: reason.name().to_owned(), count })
            .collect()
    }

    fn traffic(&self) -> TrafficStatus {
        let network = &self.counters.network;
        TrafficStatus {
            frames_in: network.frames_in.get(),
            messages_in: network.messages_in.get(),
            bytes_in: network.bytes_in.get(),
            frames_out: network.frames_out.get(),
            messages_out: network.messages_out.get(),
            bytes_out: network.bytes_out.get(),
            withdrawn: network.withdrawn.get(),
            duplicates: network.duplicates.get(),
            paced: network.paced.get(),
        }
    }

    fn disk(&self) -> Option<DiskStatus> {
        let durable = self.durable.as_ref()?;
        let (counters, times) = (durable.log.counters(), durable.log.sync_times());
        let space = durable.log.space();
        Some(DiskStatus {
            durability: durable.mode.name().to_owned(),
            log_bytes: durable.log.appended().0,
            log_behind: durable.log.appended().0.saturating_sub(durable.log.synced().0),
            syncs: counters.syncs,
            sync_p50_us: times.p50_us,
            sync_p99_us: times.p99_us,
            sync_longest_us: times.longest_us,
            written_bytes: counters.bytes,
            waits: counters.waits,
            held: self.counters.network.held.get(),
            checkpoint: durable.saved(),
            is_short: space.is_short,
            room: space.left,
            holds_clients: durable.lacks_room(),
        })
    }

    fn agents(&self) -> Vec<AgentStatus> {
        let agents = self.plans.iter().zip(&self.counters.agents);
        agents
            .map(|(plan, counters)| AgentStatus {
                name: plan.name.clone(),
                stages: plan.roles.iter().map(ToString::to_string).collect(),
                core: plan.core,
                inputs: counters.inputs.get(),
                turns: counters.turns.get(),
                sleeps: counters.sleeps.get(),
                queued: counters.queued.get(),
                congested: counters.congested.get(),
            })
            .collect()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("replica", &self.replica).finish_non_exhaustive()
    }
}
