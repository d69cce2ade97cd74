//! A whole group in one process, for tests of services and of programs that use them.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hybster_net::{PeerAddress, TransportKind};
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{ClientId, ReplicaId};
use hybster_proto::protocol::Protocol;
use hybster_proto::service::Service;
use parking_lot::Mutex;

use super::wires::{Mode, Wire};
use crate::client::{Client, ClientError, ClientOptions};
use crate::durable::Durability;
use crate::group::{
    Addresses, ClientKeys, CreateOptions, Generated, Group, GroupError, ReplicaKeys, generate,
};
use crate::replica::{Replica, ReplicaBuilder, ReplicaError, RunningReplica, StartError};
use crate::runtime::{Layout, Status};

/// How long its clients are patient: longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(5);
/// Ports that stand for addresses until there are real ones; nothing listens there.
const NO_PORT: u16 = 1;

/// Why a local cluster could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The group's constants contradict each other.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A replica could not be started.
    #[error("replica {replica} could not be started: {error}")]
    Start {
        /// The replica.
        replica: u16,
        /// Why.
        error: StartError,
    },
    /// A replica had stopped by itself, or does not stop: what the service did may be the reason.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// A client could not be connected.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The system refuses what the cluster needs.
    #[error("the system refuses what a local cluster needs: {0}")]
    System(#[from] io::Error),
    /// There is no such replica.
    #[error("the cluster has no replica {replica}; it has {count}, numbered from 0")]
    NoSuchReplica {
        /// The replica.
        replica: u16,
        /// How many there are.
        count: usize,
    },
    /// The replica does not run.
    #[error("replica {replica} does not run; `restart` starts it again")]
    NotRunning {
        /// The replica.
        replica: u16,
    },
    /// The replica runs.
    #[error("replica {replica} runs; `stop` it first")]
    Running {
        /// The replica.
        replica: u16,
    },
    /// What was waited for did not come.
    #[error("waited {seconds} s in vain for {what}")]
    Waited {
        /// What it was.
        what: String,
        /// How long.
        seconds: u64,
    },
}

/// A whole group in this process: its replicas run as on machines of their own, with real keys, threads
/// and links over loopback, on ports that the system chooses. It needs no directory and no free ports, and any
/// number of clusters may run side by side.
///
/// ```
/// use hybster::services::{CounterService, counter};
/// use hybster::testing::LocalCluster;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut cluster = LocalCluster::start(CounterService::new)?;
/// let client = cluster.client()?;
/// client.call(&counter::encode_add(3))?;
/// cluster.stop(cluster.leader())?; // The group tolerates one fault.
/// assert_eq!(counter::decode_reply(&client.call(&counter::encode_add(4))?), Some(7));
/// # Ok(())
/// # }
/// ```
///
/// Faults are made at will: [`stop`](Self::stop) and [`restart`](Self::restart),
/// [`pause`](Self::pause) and [`resume`](Self::resume), [`slow`](Self::slow), [`cut`](Self::cut) and
/// [`heal`](Self::heal).
/// While more than f replicas are at fault, clients wait.
///
/// Dropping the cluster ends everything that it started, and removes what it kept.
/// [`shutdown`](Self::shutdown) also tells whether a replica had stopped by itself.
pub struct LocalCluster {
    group: Group,
    clients: Vec<ClientKeys>,
    members: Vec<Member>,
    start: Box<Start>,
    options: Options,
    /// What the wires of each replica do.
    modes: Mutex<Vec<Mode>>,
    // In this order: replicas end before their wires do, and these before the data goes.
    wires: Vec<Wire>,
    data: Option<Scratch>,
}

type Start = dyn Fn(ReplicaBuilder<()>) -> Result<RunningReplica, StartError> + Send + Sync;

struct Member {
    keys: ReplicaKeys,
    /// As this replica sees it: through wires of its own.
    group: Group,
    running: Option<RunningReplica>,
}

#[derive(Clone, Debug)]
struct Options {
    transport: TransportKind,
}

/// What a [`LocalCluster`] can be told before it starts.
///
/// ```
/// use hybster::durable::Durability;
/// use hybster::services::{CounterService, counter};
/// use hybster::testing::LocalCluster;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let durable = LocalCluster::builder().durability(Durability::Async);
/// let mut cluster = durable.start(CounterService::new)?;
/// cluster.client()?.call(&counter::encode_add(3))?;
/// for replica in cluster.replicas() {
///     cluster.stop(replica)?;
///     cluster.restart(replica)?; // With its data.
/// }
/// let value = cluster.client()?.call(&counter::encode_get())?;
/// assert_eq!(counter::decode_reply(&value), Some(3));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a cluster runs after `start`"]
pub struct ClusterBuilder {
    create: CreateOptions,
    options: Options,
}

impl ClusterBuilder {
    /// The group's constants. The default has three replicas, one of which may fail.
    pub fn config(mut self, config: GroupConfig) -> Self {
        self.create.config = config;
        self
    }

    /// f, how many replicas may fail, and as many replicas as that takes. The default is 1.
    pub fn faults(mut self, faults: u16) -> Self {
        let config = &mut self.create.config;
        let least = config.rules().least_replicas(faults);
        config.faults = faults;
        config.replicas = u16::try_from(least).unwrap_or(u16::MAX);
        self
    }

    /// What orders the requests, as many replicas as the faults take with it, and requests that are proved
    /// as it needs. The default is the first one.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        let config = &mut self.create.config;
        config.protocol = protocol;
        config.request_authenticator = protocol.rules().request_authenticator();
        let faults = config.faults;
        self.faults(faults)
    }

    /// What of a replica outlives its stop; by default nothing, and then a replica that was stopped
    /// does not start again. `Async` is the quick one that lets it.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.create.durability = durability;
        self
    }

    /// How many clients have identities of their own. The default is 4.
    pub fn clients(mut self, clients: u32) -> Self {
        self.create.clients = clients;
        self
    }

    /// How the replicas' stages are spread over threads. The default is one thread for each replica.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.create.layout = layout;
        self
    }

    /// The transport of the replicas. By default they choose.
    pub fn transport(mut self, transport: TransportKind) -> Self {
        self.options.transport = transport;
        self
    }

    /// Starts all replicas, each with a service that `make` makes.
    ///
    /// # Errors
    /// If the constants contradict each other, or the system refuses what replicas need.
    pub fn start<S, F>(mut self, make: F) -> Result<LocalCluster, ClusterError>
    where
        S: Service,
        F: Fn() -> S + Send + Sync + 'static,
    {
        let count = self.create.config.replicas;
        let placeholders = (0..count).map(|id| loopback(NO_PORT.saturating_add(id)));
        self.create.addresses = Addresses::List(placeholders.collect());
        let Generated { group, replicas, clients, .. } = generate(&self.create)?;
        let mut wires = Vec::new();
        for to in group.config().all_replicas() {
            wires.push(Wire::new(None, to)?);
            // Who is numbered higher connects to who is lower.
            for from in group.config().all_replicas().filter(|from| *from > to) {
                wires.push(Wire::new(Some(from), to)?);
            }
        }
        let seen_by = |member: Option<ReplicaId>| {
            let to = group.replicas().iter().map(|entry| {
                let wire = wires.iter().find(|it| it.from == member && it.to == entry.id);
                wire.map_or_else(|| entry.address.clone(), |wire| wire.address.into())
            });
            group.reached_at(to.collect::<Vec<PeerAddress>>())
        };
        let mut members = Vec::new();
        for keys in replicas {
            members.push(Member { group: seen_by(Some(keys.id))?, keys, running: None });
        }
        let data = match self.create.durability {
            Durability::None => None,
            _ => Some(Scratch::new()?),
        };
        let mut cluster = LocalCluster {
            group: seen_by(None)?,
            clients,
            members,
            start: Box::new(move |builder| builder.service(make()).start()),
            options: self.options,
            modes: Mutex::new(vec![Mode::Open; usize::from(count)]),
            wires,
            data,
        };
        for replica in cluster.replicas() {
            cluster.restart(replica)?;
        }
        Ok(cluster)
    }
}

impl LocalCluster {
    /// Starts a group of three replicas, one of which may fail, each with a service that `make` makes.
    ///
    /// # Errors
    /// If the system refuses what replicas need.
    pub fn start<S, F>(make: F) -> Result<Self, ClusterError>
    where
        S: Service,
        F: Fn() -> S + Send + Sync + 'static,
    {
        Self::builder().start(make)
    }

    /// Begins with a cluster of another kind.
    pub fn builder() -> ClusterBuilder {
        let durability = Durability::None;
        let layout = Layout::Fused;
        ClusterBuilder {
            create: CreateOptions { clients: 4, durability, layout, ..CreateOptions::default() },
            options: Options { transport: TransportKind::Auto },
        }
    }

    /// A client of the group, which is patient: it waits up to a minute for replicas and results.
    ///
    /// # Errors
    /// If too few replicas can be reached.
    pub fn client(&self) -> Result<Client, ClusterError> {
        let patient = ClientOptions {
            request_timeout: PATIENCE,
            connect_timeout: PATIENCE,
            ..ClientOptions::default()
        };
        self.client_with(ClientId(0), patient)
    }

    /// A client with another identity, or other options.
    ///
    /// # Errors
    /// If there is no such identity, or too few replicas can be reached.
    pub fn client_with(
        &self,
        id: ClientId,
        options: ClientOptions,
    ) -> Result<Client, ClusterError> {
        Ok(Client::connect(&self.group, self.client_keys(id)?, options)?)
    }

    /// The keys of a client, for a program that connects by itself.
    ///
    /// # Errors
    /// If there is no such identity.
    pub fn client_keys(&self, id: ClientId) -> Result<&ClientKeys, ClusterError> {
        let keys = self.clients.iter().find(|keys| keys.id == id);
        keys.ok_or_else(|| {
            let (file, count) = (self.group.path().to_owned(), self.clients.len());
            GroupError::Unknown { file, whose: format!("client {}", id.0), count }.into()
        })
    }

    /// The group as its clients see it.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// All replicas, those that do not run included.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaId> {
        self.members.iter().map(|member| member.keys.id).collect()
    }

    /// The leader, as those replicas say that run and have come furthest.
    #[must_use]
    pub fn leader(&self) -> ReplicaId {
        let statuses = self.members.iter().filter_map(|member| member.running.as_ref());
        let furthest = statuses.map(RunningReplica::status).max_by_key(|status| status.view);
        ReplicaId(furthest.map_or(0, |status| status.leader))
    }

    /// The counters of a replica; `None` if it does not run.
    #[must_use]
    pub fn status(&self, replica: ReplicaId) -> Option<Status> {
        let member = self.members.get(usize::from(replica.0))?;
        member.running.as_ref().map(RunningReplica::status)
    }

    /// Whether a replica runs: it was not stopped, and has not stopped by itself.
    #[must_use]
    pub fn is_running(&self, replica: ReplicaId) -> bool {
        let member = self.members.get(usize::from(replica.0));
        member.and_then(|it| it.running.as_ref()).is_some_and(RunningReplica::is_running)
    }

    /// Stops a replica, as the crash of a process looks to the others.
    ///
    /// # Errors
    /// If it does not run, had stopped by itself before, or does not end.
    pub fn stop(&mut self, replica: ReplicaId) -> Result<(), ClusterError> {
        let running = self.member(replica)?.running.take();
        let running = running.ok_or(ClusterError::NotRunning { replica: replica.0 })?;
        for wire in self.wires.iter().filter(|wire| wire.to == replica) {
            wire.leads_to(None);
        }
        Ok(running.shutdown()?)
    }

    /// Starts a replica again, with its data. Without durability it has none, and does not start.
    ///
    /// # Errors
    /// If it runs, or may not or cannot start.
    pub fn restart(&mut self, replica: ReplicaId) -> Result<(), ClusterError> {
        let data = self.data.as_ref().map(|data| data.0.join(format!("replica-{}", replica.0)));
        let transport = self.options.transport;
        let member = self.member(replica)?;
        if member.running.is_some() {
            return Err(ClusterError::Running { replica: replica.0 });
        }
        let mut builder = Replica::builder(member.group.clone(), member.keys.clone())
            .listen(loopback(0))
            .transport(transport);
        if let Some(data) = data {
            builder = builder.data(data);
        }
        let running = (self.start)(builder)
            .map_err(|error| ClusterError::Start { replica: replica.0, error })?;
        for wire in self.wires.iter().filter(|wire| wire.to == replica) {
            wire.leads_to(Some(running.local_address()));
        }
        self.member(replica)?.running = Some(running);
        Ok(())
    }

    /// Holds everything that others send to a replica and it to them, as if its machine stood still.
    ///
    /// # Errors
    /// If there is no such replica.
    pub fn pause(&self, replica: ReplicaId) -> Result<(), ClusterError> {
        self.set_mode(replica, Mode::Paused)
    }

    /// Everything that others send to a replica, and it to them, takes longer by `delay` from now on, as if it
    /// were far away; of two replicas that are slow, by the longer one. [`heal`](Self::heal) ends it.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use hybster::ReplicaId;
    /// use hybster::services::{CounterService, counter};
    /// use hybster::testing::LocalCluster;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = LocalCluster::start(CounterService::new)?;
    /// cluster.slow(ReplicaId(2), Duration::from_millis(20))?;
    /// let value = cluster.client()?.call(&counter::encode_add(3))?; // Two are quick enough.
    /// assert_eq!(counter::decode_reply(&value), Some(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If there is no such replica.
    pub fn slow(&self, replica: ReplicaId, delay: Duration) -> Result<(), ClusterError> {
        self.set_mode(replica, Mode::Slow(delay))
    }

    /// Lets go on what [`Self::pause`] has held, and ends a [`cut`](Self::cut) as well.
    ///
    /// # Errors
    /// If there is no such replica.
    pub fn resume(&self, replica: ReplicaId) -> Result<(), ClusterError> {
        self.set_mode(replica, Mode::Open)
    }

    /// Cuts a replica off: its links to all others and to clients break, and none comes up again.
    ///
    /// # Errors
    /// If there is no such replica.
    pub fn cut(&self, replica: ReplicaId) -> Result<(), ClusterError> {
        self.set_mode(replica, Mode::Cut)
    }

    /// Joins a replica again that was cut off, paused or slow. Links come up by themselves.
    ///
    /// # Errors
    /// If there is no such replica.
    pub fn heal(&self, replica: ReplicaId) -> Result<(), ClusterError> {
        self.set_mode(replica, Mode::Open)
    }

    /// Waits until all replicas that run have executed the same operations, which they have
    /// some time after clients have had their results; a replica that came back, after its state is
    /// transferred. A cluster whose clients go on may never be there.
    ///
    /// # Errors
    /// If that does not come in a minute.
    pub fn await_equal(&self) -> Result<(), ClusterError> {
        self.await_status("replicas that have executed the same", |all| {
            all.windows(2).all(|pair| pair[0].executed == pair[1].executed)
        })
    }

    /// Waits until the statuses of the replicas that run are as `holds` wants them.
    ///
    /// # Errors
    /// If that does not come in a minute; the error says `what` was waited for.
    pub fn await_status(
        &self,
        what: &str,
        mut holds: impl FnMut(&[Status]) -> bool,
    ) -> Result<(), ClusterError> {
        let end = Instant::now() + PATIENCE;
        loop {
            let running = self.members.iter().filter_map(|member| member.running.as_ref());
            let statuses: Vec<Status> = running.map(RunningReplica::status).collect();
            if holds(&statuses) {
                return Ok(());
            }
            if Instant::now() >= end {
                let (what, seconds) = (what.to_owned(), PATIENCE.as_secs());
                return Err(ClusterError::Waited { what, seconds });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends all replicas.
    ///
    /// # Errors
    /// If one had stopped by itself before, or does not end; the first of them.
    pub fn shutdown(mut self) -> Result<(), ClusterError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ClusterError> {
        let running: Vec<_> = self.members.iter_mut().filter_map(|it| it.running.take()).collect();
        // All are told before the first is waited for.
        running.iter().for_each(|replica| replica.stopper().stop());
        let mut ended = Ok(());
        for replica in running {
            ended = ended.and(replica.shutdown());
        }
        Ok(ended?)
    }

    fn member(&mut self, replica: ReplicaId) -> Result<&mut Member, ClusterError> {
        let count = self.members.len();
        let member = self.members.get_mut(usize::from(replica.0));
        member.ok_or(ClusterError::NoSuchReplica { replica: replica.0, count })
    }

    fn set_mode(&self, replica: ReplicaId, mode: Mode) -> Result<(), ClusterError> {
        let count = self.members.len();
        if usize::from(replica.0) >= count {
            return Err(ClusterError::NoSuchReplica { replica: replica.0, count });
        }
        let mut modes = self.modes.lock();
        modes[usize::from(replica.0)] = mode;
        for wire in self.wires.iter().filter(|it| it.touches(replica)) {
            let of_other_end = wire.from.map_or(Mode::Open, |from| modes[usize::from(from.0)]);
            wire.set_mode(of_other_end.max(modes[usize::from(wire.to.0)]));
        }
        Ok(())
    }
}

impl fmt::Debug for LocalCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = |member: &&Member| member.running.is_some();
        f.debug_struct("LocalCluster")
            .field("replicas", &self.members.len())
            .field("running", &self.members.iter().filter(running).count())
            .finish_non_exhaustive()
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::error!("{error}");
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A directory that goes away with the cluster.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, ClusterError> {
        let random = getrandom::u64().map_err(|error| GroupError::Random(error.to_string()))?;
        let name = format!("hybster-cluster-{}-{random:016x}", std::process::id());
        let path: &Path = &std::env::temp_dir().join(name);
        fs::create_dir(path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
