//! Starting, watching and stopping a replica.

mod epochs;
mod error;
mod guarded;
mod identity;
mod listen;
mod running;
mod stages;
mod stopwatch;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hybster_log::{Directory, Writer, WriterThread};
use hybster_net::files::Files;
use hybster_net::{AnyTransport, Hub, HubConfig, Identity, Limits, PeerAddress, TransportKind};
use hybster_proto::egress::EgressLimits;
use hybster_proto::output::Output;
use hybster_proto::service::{Service, ServiceIdentity};
use hybster_proto::time::Time;
use hybster_proto::trace::TraceEvent;

pub(crate) use epochs::present_group as present;
pub use error::{ReplicaError, StartError};
pub use guarded::ServiceCall;
pub use running::{RunningReplica, Stopper};
pub(crate) use stages::{beginning, can_keep, certified};

use guarded::{Guarded, ServicePanic};

use crate::durable::{self, DataError, Disks, Durability, Durable, Found, Opened, Saver, Teller};
#[cfg(doc)]
use crate::group::GroupError;
use crate::group::{Group, ReplicaKeys};
use crate::memory::Memory;
use crate::runtime::timing::StageTimes;
use crate::runtime::{
    Agent, AgentPlan, Cores, EpochWatch, Failure, Inbox, Layout, Network, Outbox, Role, Shared,
    Stage, TraceFile, TraceTarget, connect, plan,
};

/// A replica of a group; [`Replica::builder`] leads to a [`RunningReplica`].
///
/// **A replica starts again from its log.** The trusted counters live in the process; where they
/// were is in the log, as nothing leaves the host before the log has it ([`crate::durable`]). So a start
/// needs the replica's own data, and refuses a directory that is empty though the replica has run
/// ([`DataError::Lost`]).
///
/// In a group with durability `none` nothing is kept, and a replica that stopped has lost its counters:
/// with the old keys and epoch it could certify one value twice. So a second start is refused
/// ([`GroupError::StartedBefore`]): the first one uses up the key file. Such a group continues without
/// up to f stopped replicas; when more have stopped, it needs a new directory.
///
/// ```no_run
/// use hybster::group::{Group, ReplicaKeys};
/// use hybster::services::CounterService;
/// use hybster::{Replica, ReplicaId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let group = Group::load("my-group")?;
/// let keys = ReplicaKeys::load(&group, group.directory(), ReplicaId(0))?;
/// let replica = Replica::builder(group, keys).service(CounterService::default()).start()?;
/// replica.wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Replica;

impl Replica {
    /// Starts with what every replica needs: its group and its keys.
    pub fn builder(group: Group, keys: ReplicaKeys) -> ReplicaBuilder<()> {
        let layout = group.layout();
        let first_epoch = group.config().epoch;
        ReplicaBuilder {
            group,
            first_epoch,
            keys,
            service: (),
            layout,
            transport: TransportKind::Auto,
            busy_poll: Limits::default().busy_poll,
            pin: false,
            cores: None,
            listen: None,
            data: None,
            is_first: false,
            is_replicated: true,
            trace: None,
            times: None,
        }
    }
}

/// Options of a replica that is not started yet.
#[must_use = "a replica runs after `start`"]
pub struct ReplicaBuilder<S> {
    group: Group,
    /// The epoch of the group's file.
    first_epoch: u32,
    keys: ReplicaKeys,
    service: S,
    layout: Layout,
    transport: TransportKind,
    busy_poll: Duration,
    pin: bool,
    cores: Option<Vec<usize>>,
    listen: Option<PeerAddress>,
    data: Option<PathBuf>,
    is_first: bool,
    is_replicated: bool,
    trace: Option<Trace>,
    times: Option<StageTimes>,
}

/// Where protocol events go.
enum Trace {
    Hook(TraceTarget),
    File(PathBuf),
}

impl<S> ReplicaBuilder<S> {
    /// The service to replicate.
    pub fn service<T: Service>(self, service: T) -> ReplicaBuilder<T> {
        ReplicaBuilder {
            service,
            group: self.group,
            first_epoch: self.first_epoch,
            keys: self.keys,
            layout: self.layout,
            transport: self.transport,
            busy_poll: self.busy_poll,
            pin: self.pin,
            cores: self.cores,
            listen: self.listen,
            data: self.data,
            is_first: self.is_first,
            is_replicated: self.is_replicated,
            trace: self.trace,
            times: self.times,
        }
    }

    /// How stages are spread over threads. The default is the group's.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// The transport of all links. By default the replica chooses; one that is named must be had.
    pub fn transport(mut self, transport: TransportKind) -> Self {
        self.transport = transport;
        self
    }

    /// How long a thread polls for messages before it sleeps, while messages follow each other
    /// closely; zero makes it sleep at once. The default is that of [`Limits::busy_poll`].
    pub fn busy_poll(mut self, busy_poll: Duration) -> Self {
        self.busy_poll = busy_poll;
        self
    }

    /// Whether threads are pinned to cores; by default they are not.
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// Pins the threads to these cores, in the order network, pillars, execution, state. An
    /// automatic layout is chosen for as many cores.
    pub fn cores(mut self, cores: Vec<usize>) -> Self {
        self.pin = true;
        self.cores = Some(cores);
        self
    }

    /// Listens on another address than the group file says, for example behind a port mapping. The name
    /// of a host is looked up by [`ReplicaBuilder::start`], which waits some seconds for one that does
    /// not exist yet.
    pub fn listen(mut self, address: impl Into<PeerAddress>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// The directory for the replica's log and checkpoints, if the group keeps any. By default it lies
    /// beside the replica's key file: `replica-N.epoch-E.data`. Keys that are in no file need it named.
    pub fn data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data = Some(directory.into());
        self
    }

    /// Says that the replica has never been started with its keys, anywhere. It is needed, once, for
    /// keys from a text ([`ReplicaKeys::from_text`], [`ReplicaKeys::from_env`]), of which nothing else
    /// tells; a start that finds data of an earlier one refuses it.
    ///
    /// **Never say it of a replica that has run.** Its trusted counters would begin again, and the
    /// group could break its agreement.
    pub fn first_start(mut self) -> Self {
        self.is_first = true;
        self
    }

    /// Runs the same service, links, session table and request checks without a protocol, as the
    /// baseline of measurements. The group must have one replica, no faults and one pillar.
    pub fn unreplicated(mut self) -> Self {
        self.is_replicated = false;
        self
    }

    /// Calls `hook` with every protocol event, on the thread where it happens.
    pub fn trace(mut self, hook: impl Fn(Time, &TraceEvent) + Send + Sync + 'static) -> Self {
        self.trace = Some(Trace::Hook(TraceTarget::Hook(Arc::new(hook))));
        self
    }

    /// Writes every protocol event into a new file, for `hybster trace` and for checkers; see
    /// [`hybster_proto::trace::file`]. The replica's threads never wait for the disk: events that
    /// it is too slow for are dropped and counted.
    pub fn trace_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trace = Some(Trace::File(path.into()));
        self
    }

    /// Records when some requests pass each stage, for whoever measures: see [`StageTimes`].
    pub fn stage_times(mut self, times: &StageTimes) -> Self {
        self.times = Some(times.clone());
        self
    }
}

impl<S: Service> ReplicaBuilder<S> {
    /// Starts the replica. When this returns, it listens and its threads run.
    ///
    /// # Errors
    /// If the options do not fit the group or the machine, or the address is taken.
    pub fn start(mut self) -> Result<RunningReplica, StartError> {
        self.check()?;
        let present = match self.is_replicated {
            true => epochs::present(&self.group, &self.keys)?,
            false => None,
        };
        if let Some(present) = &present {
            self.group = present.group.clone();
        }
        let config = Arc::clone(self.group.config());
        let identity = identity::check(&self.group, &self.service)?;
        let memory = Memory::of(&self.group);
        let cores = self.resolve_cores()?;
        let available = match &cores {
            Cores::Pinned(cores) => cores.len(),
            Cores::Unpinned => thread::available_parallelism().map_or(1, usize::from),
        };
        let layout = self.layout.resolve(config.pillars, available);
        let roles = self.roles();
        let plans = plan(layout, &roles, &cores);
        let files = Files::check(&self.group.link_limits(), self.peers().count())?;
        if let Some(advice) = files.warning() {
            log::info!("{advice}");
        }
        let (hub, transport_kind) = listen::open_hub(self.transport, self.hub_config(identity)?)?;
        let watch = present.as_ref().map(|present| present.watch(&self.keys));
        if let Some(present) = present.as_ref().filter(|present| present.is_early) {
            let present = present.clone();
            return self.join(present, watch, hub, (layout, transport_kind, plans));
        }
        let (trace, trace_file) = self.open_trace(plans.len())?;
        let mut opened = self.open_data()?;
        let found = opened.as_mut().and_then(|opened| opened.found.take());
        let local_address = hub.local_address().expect("a replica listens");
        let id = self.keys.id;
        let is_replicated = self.is_replicated;
        let teller = Teller::default();
        let (durable, writer) = match opened {
            Some(opened) => {
                let (durable, writer) = self.start_saver(opened, teller.clone())?;
                (Some(durable), Some(writer))
            }
            None => (None, None),
        };
        let shared = Shared::new(id, config, layout, transport_kind, is_replicated, plans, trace)
            .with_service(identity)
            .with_times(self.times.take())
            .with_disk(durable.clone())
            .with_epochs(watch);
        let shared = Arc::new(shared);
        teller.is_for(&shared);
        let disks = durable.map(|durable| Disks { writer: None, durable });
        let disks = match (disks, writer) {
            (Some(mut disks), Some(writer)) => {
                let started = WriterThread::start(writer, move || teller.log_moved());
                disks.writer = Some(started.map_err(StartError::Thread)?);
                Some(disks)
            }
            _ => None,
        };
        let peers = self.peers().map(|(peer, _)| peer).collect();
        let limits = EgressLimits::default();
        let mut network = Some(Network::new(hub, Arc::clone(&shared), peers, limits));
        let panic = ServicePanic::default();
        let life = self.keys.life;
        let (mut stages, mut first) = self.stages(found, &shared, &panic)?;
        if let Some(durable) = &shared.durable {
            first
                .iter_mut()
                .try_for_each(|output| durable.append(output))
                .map_err(DataError::Append)?;
        }
        let mut queues = Queues::between(shared.plans.len());
        let mut threads = Vec::with_capacity(shared.plans.len());
        for index in 0..shared.plans.len() {
            let owned = take_stages(&mut stages, &shared.plans[index].roles);
            let (inboxes, outboxes) = queues.take(index);
            let agent =
                Agent::new(index, Arc::clone(&shared), owned, network.take(), inboxes, outboxes)
                    .begins_with(std::mem::take(&mut first));
            match spawn(index, &shared, agent) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.stop();
                    return Err(StartError::Thread(error));
                }
            }
        }
        if let Some(present) = present {
            match present.follow(&shared, life) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.stop();
                    return Err(StartError::Thread(error));
                }
            }
        }
        let (bytes, open) = (memory.bounded_bytes, memory.open());
        log::info!("at most {bytes} bytes in buffers that are bounded; {open} are not bounded yet");
        let mode = if is_replicated { "replica" } else { "unreplicated server" };
        log::info!("{mode} {} listens on {local_address}, {layout} layout, {transport_kind}", id.0);
        Ok(RunningReplica::new(shared, threads, local_address, disks, panic, trace_file))
    }

    /// Starts a replica that is to be a member of a later epoch than its peers are in, as far as it knows: it waits for
    /// that one, and takes part in nothing.
    fn join(
        self,
        present: epochs::Present,
        watch: Option<Arc<EpochWatch>>,
        hub: Hub<AnyTransport>,
        (layout, transport, plans): (Layout, TransportKind, Vec<AgentPlan>),
    ) -> Result<RunningReplica, StartError> {
        let local_address = hub.local_address().expect("a replica listens");
        let (id, config) = (self.keys.id, Arc::clone(self.group.config()));
        let epoch = config.epoch;
        let shared = Shared::new(id, config, layout, transport, true, plans, None);
        let shared = Arc::new(shared.with_epochs(watch));
        let thread = present.join(&shared, hub).map_err(StartError::Thread)?;
        let id = id.0;
        log::info!(
            "replica {id} listens on {local_address}, and waits for epoch {}: its peers are in epoch {epoch}, as far \
             as it knows",
            self.keys.epoch(),
        );
        let panic = ServicePanic::default();
        Ok(RunningReplica::new(shared, vec![thread], local_address, None, panic, None))
    }

    fn open_trace(
        &mut self,
        agents: usize,
    ) -> Result<(Option<TraceTarget>, Option<TraceFile>), StartError> {
        let path = match self.trace.take() {
            None => return Ok((None, None)),
            Some(Trace::Hook(target)) => return Ok((Some(target), None)),
            Some(Trace::File(path)) => path,
        };
        let file = TraceFile::create(&path, self.group.config(), self.keys.id, agents)
            .map_err(|error| StartError::Trace { path, error })?;
        Ok((Some(file.target()), Some(file)))
    }

    fn check(&self) -> Result<(), StartError> {
        let config = self.group.config();
        // Before it listens, where a second start right after the first would fail for the address.
        if self.must_claim() && !self.is_durable() {
            self.keys.refuse_second_start()?;
        }
        if self.group.replicas().get(usize::from(self.keys.id.0)).is_none() {
            return Err(StartError::UnknownReplica(self.keys.id.0));
        }
        let shape = (config.replicas, config.faults, config.pillars);
        if !self.is_replicated && shape != (1, 0, 1) {
            return Err(StartError::NotASingleServer {
                replicas: config.replicas,
                faults: config.faults,
                pillars: config.pillars,
            });
        }
        Ok(())
    }

    /// Whether the start uses up the key's right to start.
    fn must_claim(&self) -> bool {
        self.is_replicated && self.group.config().rules().starts_once
    }

    /// Whether the replica can start again.
    fn is_durable(&self) -> bool {
        self.is_replicated && self.group.durability() != Durability::None
    }

    /// Opens the replica's data, if it keeps any, and takes the right to run with it.
    fn open_data(&mut self) -> Result<Option<Opened>, StartError> {
        let id = self.keys.id.0;
        if !self.is_durable() {
            if self.must_claim() {
                if self.keys.has_started()?.is_none() && !self.is_first {
                    return Err(StartError::PerhapsStarted { id });
                }
                self.keys.claim_start()?;
            }
            return Ok(None);
        }
        let first_epoch = self.first_epoch;
        let epoch = self.group.config().epoch;
        let path = self.data_of(epoch).ok_or(StartError::NoDataDirectory { id })?;
        if epoch > first_epoch {
            let before = self.data_of(self.keys.epoch());
            self.keys = epochs::begin_epoch(&self.group, &self.keys, &path, before)?;
        }
        let told = self.keys.has_started()?;
        let has_run = told.unwrap_or(!self.is_first);
        let mode = self.group.durability();
        let (config, initial) = (self.group.config(), self.group.initial_state);
        let opened = durable::open(&path, mode, config, self.keys.id, has_run, initial);
        let opened = match opened {
            Err(DataError::Lost { .. }) if told.is_none() => {
                return Err(StartError::PerhapsStarted { id });
            }
            opened => opened?,
        };
        if self.is_first && opened.found.is_some() {
            return Err(StartError::NotTheFirst { path, id });
        }
        if self.must_claim() && told != Some(true) {
            // The log is there, so that from here on it has everything.
            self.keys.claim_start()?;
        }
        Ok(Some(opened))
    }

    /// Where the data of an epoch is.
    fn data_of(&self, epoch: u32) -> Option<PathBuf> {
        match &self.data {
            Some(directory) if epoch == self.first_epoch => Some(directory.clone()),
            Some(directory) => Some(directory.join(format!("epoch-{epoch}"))),
            None => self.keys.data_directory_of(epoch),
        }
    }

    fn start_saver(
        &self,
        opened: Opened,
        teller: Teller,
    ) -> Result<(Arc<Durable>, Writer<Directory>), StartError> {
        let Opened { log, writer, store, durable, truncation, .. } = opened;
        let saved = Arc::new(AtomicU64::new(durable.0));
        let saver = Saver::start(store, Arc::clone(&saved), move |outcome| teller.saved(outcome))
            .map_err(StartError::Thread)?;
        let durable = Durable::new(self.group.durability(), log, saver, saved, truncation);
        Ok((Arc::new(durable), writer))
    }

    /// Read once, before any thread is pinned, because the list is the calling thread's mask.
    fn resolve_cores(&self) -> Result<Cores, StartError> {
        if !self.pin {
            return Ok(Cores::Unpinned);
        }
        let usable: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        let chosen = self.cores.clone().unwrap_or_else(|| usable.clone());
        if let Some(missing) = chosen.iter().find(|core| !usable.contains(core)) {
            return Err(StartError::Core { core: *missing, usable });
        }
        Ok(if chosen.is_empty() { Cores::Unpinned } else { Cores::Pinned(chosen) })
    }

    fn roles(&self) -> Vec<Role> {
        if !self.is_replicated {
            return vec![Role::Server];
        }
        let pillars = self.group.config().all_pillars().map(|pillar| Role::Pillar(pillar.0));
        let mut roles = vec![Role::Clients, Role::Control];
        roles.extend(pillars);
        roles.extend([Role::Execution, Role::State]);
        roles
    }

    fn peers(&self) -> impl Iterator<Item = (u16, PeerAddress)> + '_ {
        let others = self.group.replicas().iter().filter(|entry| entry.id != self.keys.id);
        others.map(|entry| (entry.id.0, entry.address.clone()))
    }

    fn hub_config(&self, service: Option<ServiceIdentity>) -> Result<HubConfig, StartError> {
        let config = self.group.config();
        let own = &self.group.replicas()[usize::from(self.keys.id.0)];
        Ok(HubConfig {
            identity: Identity::Replica(self.keys.id.0),
            key: self.keys.link.clone(),
            keyring: Arc::new(self.group.key_ring()?),
            group_digest: config.genesis().0,
            pillars: config.pillars,
            application: service.and_then(|service| identity::told(&service)),
            incarnation: config.epoch.into(),
            cipher: self.group.link_cipher(),
            listen: Some(listen::own_address(self.listen.as_ref().unwrap_or(&own.address))?),
            peers: self.peers().collect(),
            limits: Limits { busy_poll: self.busy_poll, ..self.group.link_limits() },
            jitter_seed: None,
        })
    }

    /// All stages with their roles, and what they do first.
    fn stages(
        self,
        found: Option<Found>,
        shared: &Shared,
        panic: &ServicePanic,
    ) -> Result<stages::Begun, StartError> {
        let Self { group, keys, service, is_replicated, .. } = self;
        let timeout_us = group.config().request_timeout_us;
        let service = Guarded::new(service, Arc::clone(panic), timeout_us);
        let output = || Output {
            tracing: shared.trace.is_some(),
            logging: shared.durable.is_some(),
            ..Output::default()
        };
        Ok(match found {
            Some(found) => {
                let now = shared.clock.now();
                stages::recovered(&group, &keys, service, found, now, output)?
            }
            None if is_replicated => (stages::replicated(&group, &keys, service), Vec::new()),
            None => (stages::unreplicated(&group, &keys, service), Vec::new()),
        })
    }
}

impl<S> fmt::Debug for ReplicaBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaBuilder")
            .field("replica", &self.keys.id)
            .field("layout", &self.layout)
            .field("transport", &self.transport)
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

/// Takes the stages of an agent, in the order of its plan.
fn take_stages(stages: &mut Vec<(Role, Box<dyn Stage>)>, roles: &[Role]) -> Vec<Box<dyn Stage>> {
    let mut take = |role: &Role| {
        let index = stages.iter().position(|(of, _)| of == role).expect("each role has a stage");
        stages.swap_remove(index).1
    };
    roles.iter().map(&mut take).collect()
}

type Ends = (Vec<Option<Inbox>>, Vec<Option<Outbox>>);

/// The queues between all pairs of agents.
struct Queues {
    inboxes: Vec<Vec<Option<Inbox>>>,
    outboxes: Vec<Vec<Option<Outbox>>>,
}

impl Queues {
    fn between(agents: usize) -> Self {
        let mut queues = Self {
            inboxes: (0..agents).map(|_| (0..agents).map(|_| None).collect()).collect(),
            outboxes: (0..agents).map(|_| (0..agents).map(|_| None).collect()).collect(),
        };
        for from in 0..agents {
            for to in (0..agents).filter(|to| *to != from) {
                let (outbox, inbox) = connect();
                queues.outboxes[from][to] = Some(outbox);
                queues.inboxes[to][from] = Some(inbox);
            }
        }
        queues
    }

    fn take(&mut self, agent: usize) -> Ends {
        (std::mem::take(&mut self.inboxes[agent]), std::mem::take(&mut self.outboxes[agent]))
    }
}

fn spawn(
    index: usize,
    shared: &Arc<Shared>,
    agent: Agent<AnyTransport>,
) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let name = &shared.plans[index].name;
    // The system shows 15 bytes of a thread's name.
    let name = format!("r{}-{}", shared.replica.0, name.replace(' ', "-"));
    thread::Builder::new().name(name).spawn(move || {
        let plan = &shared.plans[index];
        if let Some(id) = plan.core
            && !core_affinity::set_for_current(core_affinity::CoreId { id })
        {
            log::warn!("thread {} could not be pinned to core {id}; it runs unpinned", plan.name);
        }
        let _guard = StopOthers { shared: &shared, index };
        agent.run();
    })
}

/// Ends the other threads when one of them panics, since a replica works as a whole or not at all.
struct StopOthers<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Drop for StopOthers<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = self.shared.plans[self.index].name.clone();
            self.shared.fail(Failure::Panicked(name));
        }
    }
}
