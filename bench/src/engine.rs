//! The boundary to the engine: the only code of this crate that knows the engine's interface.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hybster::client::{
    ClientDriver, ClientOptions, Completions, Outcome as EngineOutcome, RequestKind,
};
use hybster::group::{Addresses, ClientKeys, CreateOptions, Group, ReplicaKeys, create};
use hybster::services::{CounterService, KvService, NullService, counter};
use hybster::{
    ClientId, GroupConfig, Replica, ReplicaId, RequestNumber, RunningReplica, SessionId,
    TransportKind,
};

pub use hybster::Status;
pub use hybster::runtime::timing::{Point, StageTimes, Stamp};

use hybster::runtime::timing::{is_sampled, now_ns};

use crate::Error;
use crate::load::{Access, Failure, Outcome, Sessions};
use crate::options::{ReplicaArgs, ServiceKind};
use crate::spec::{GroupFacts, GroupSpec};
use crate::stages::Sample;
use crate::stop::Stop;

/// Longest wait for the links to all replicas.
const CONNECT: Duration = Duration::from_secs(30);
/// A request without an answer fails after this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the answer to a status request.
const STATUS_PATIENCE: Duration = Duration::from_millis(500);
/// The unit in which the transport waits.
const TRANSPORT_TICK: Duration = Duration::from_millis(1);

/// The longest messages that a group of this benchmark takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an operation.
    pub operation_bytes: u32,
    /// Bytes of a result.
    pub reply_bytes: u32,
}

/// The longest messages that a group of this benchmark takes.
#[must_use]
pub fn limits() -> Limits {
    let defaults = GroupConfig::default();
    Limits { operation_bytes: defaults.max_operation_bytes, reply_bytes: defaults.max_reply_bytes }
}

/// Makes the directory of a group.
///
/// # Errors
/// If the group constants contradict each other or the disk refuses.
pub fn create_group(path: &Path, spec: &GroupSpec, addresses: &[SocketAddr]) -> Result<(), Error> {
    let defaults = GroupConfig::default();
    let checkpoint_interval = defaults.checkpoint_interval.next_multiple_of(spec.pillars.into());
    let config = GroupConfig {
        protocol: spec.protocol,
        replicas: spec.replicas,
        faults: spec.faults,
        pillars: spec.pillars,
        checkpoint_interval,
        window: 4 * checkpoint_interval,
        batch_max_requests: spec.batch_max,
        max_clients: defaults.max_clients.max(spec.identities),
        mac: spec.authenticator,
        request_authenticator: spec.request_authenticator,
        ..defaults
    };
    let options = CreateOptions {
        config,
        addresses: Addresses::List(addresses.to_vec()),
        clients: spec.identities,
        link_cipher: spec.link_cipher,
        layout: spec.layout,
        durability: spec.durability,
        ..CreateOptions::default()
    };
    create(path, &options).map(|_| ()).map_err(|e| Error::new(e.to_string()))
}

/// What the files of a group say.
///
/// # Errors
/// If there are none in this directory, or they are damaged.
pub fn read_group(directory: &Path) -> Result<GroupFacts, Error> {
    let group = Group::load(directory).map_err(|e| Error::new(e.to_string()))?;
    let config = group.config();
    Ok(GroupFacts {
        name: group.name(),
        protocol: config.protocol,
        replicas: config.replicas,
        faults: config.faults,
        pillars: config.pillars,
        batch_max: config.batch_max_requests,
        layout: group.layout(),
        durability: group.durability(),
        authenticator: config.mac,
        request_authenticator: config.request_authenticator,
        link_cipher: group.link_cipher(),
        clients: group.clients().len() as u32,
    })
}

/// Whether a group has a client with this number, whose key can be read here.
#[must_use]
pub fn has_client(directory: &Path, identity: u32) -> bool {
    Group::load(directory)
        .is_ok_and(|group| ClientKeys::load(&group, group.directory(), ClientId(identity)).is_ok())
}

/// Where a replica of a group of this benchmark has its log and checkpoints, unless it is told another place.
#[must_use]
pub fn data_directory(group: &Path, replica: u16) -> PathBuf {
    group.join(format!("replica-{replica}.epoch-0.data"))
}

/// Starts the replica (or unreplicated server) of a child process.
///
/// # Errors
/// If a file is wrong, the port is taken, or a thread cannot be started.
pub fn start_replica(
    args: &ReplicaArgs,
    times: Option<&StageTimes>,
) -> Result<RunningReplica, Error> {
    let told = |e: &dyn std::fmt::Display| Error::new(e.to_string());
    let group = Group::load(&args.group).map_err(|e| told(&e))?;
    let keys =
        ReplicaKeys::load(&group, group.directory(), ReplicaId(args.id)).map_err(|e| told(&e))?;
    let builder = Replica::builder(group, keys)
        .layout(args.layout)
        .transport(args.transport)
        .busy_poll(args.busy_poll);
    let builder = if args.unreplicated { builder.unreplicated() } else { builder };
    let builder = if args.cores.is_empty() { builder } else { builder.cores(args.cores.clone()) };
    let builder = match &args.data {
        Some(directory) => builder.data(directory),
        None => builder,
    };
    let builder = match &args.trace {
        Some(file) => builder.trace_file(file),
        None => builder,
    };
    let builder = match times {
        Some(times) => builder.stage_times(times),
        None => builder,
    };
    let started = match args.service {
        ServiceKind::Null => builder.service(NullService::new(args.reply_size as usize)).start(),
        ServiceKind::Counter => builder.service(CounterService::new()).start(),
        ServiceKind::Kv => builder.service(KvService::new()).start(),
    };
    started.map_err(|e| told(&e))
}

/// Waits until the flag is raised, then stops the replica.
///
/// # Errors
/// If the replica ends by itself.
pub fn serve(replica: RunningReplica, stop: &Stop) -> Result<(), Error> {
    while !stop.is_raised() && replica.is_running() {
        std::thread::sleep(LONG);
    }
    let ended = if stop.is_raised() { replica.shutdown() } else { replica.wait() };
    ended.map_err(|e| Error::new(e.to_string()))
}

/// The sessions of one connection group.
#[derive(Debug)]
pub struct DriverSessions {
    driver: ClientDriver,
    completions: Completions,
    count: u32,
    /// Time of polls that were to wait for no time, and found nothing.
    idle: Duration,
    followed: Option<Box<Followed>>,
}

/// The requests that are followed, one in so many.
#[derive(Debug)]
struct Followed {
    every: u32,
    /// The load's origin.
    origin_ns: u64,
    /// What the operation that is submitted next counts from, if it is not the second step of one.
    since_ns: Option<u64>,
    /// By session, the one that is under way.
    under_way: Vec<Option<Sample>>,
    ended: Vec<Sample>,
}

/// Requests that one connection follows at most; later ones are not followed.
const MOST_SAMPLES: usize = 1 << 20;

impl Followed {
    #[cold]
    fn submitted(&mut self, id: SessionId, session: u32, number: RequestNumber, access: Access) {
        let Some(since_ns) = self.since_ns.take() else { return };
        let has_room = self.ended.len() < MOST_SAMPLES;
        if access == Access::Order && has_room && is_sampled(id, number, self.every) {
            let request = (id.client.0, id.session, number.0);
            let submitted_ns = now_ns();
            let since_ns = since_ns.min(submitted_ns);
            self.under_way[session as usize] =
                Some(Sample { request, since_ns, submitted_ns, completed_ns: 0 });
        }
    }

    #[cold]
    fn ended(&mut self, session: u32, is_done: bool) {
        if let Some(sample) = self.under_way[session as usize].take().filter(|_| is_done) {
            self.ended.push(Sample { completed_ns: now_ns(), ..sample });
        }
    }
}

/// A moment by the system's monotonic clock, which all processes of a host share, in nanoseconds.
#[must_use]
pub fn ns_of(moment: Instant) -> u64 {
    let (now, now_ns) = (Instant::now(), now_ns());
    let (ahead, behind) =
        (moment.saturating_duration_since(now), now.saturating_duration_since(moment));
    now_ns + ahead.as_nanos() as u64 - behind.as_nanos() as u64
}

/// The moment of which another process has told [`ns_of`].
#[must_use]
pub fn instant_of(ns: u64) -> Instant {
    let (now, now_ns) = (Instant::now(), now_ns());
    now + Duration::from_nanos(ns.saturating_sub(now_ns))
        - Duration::from_nanos(now_ns.saturating_sub(ns))
}

impl DriverSessions {
    /// Follows one ordered request in `every`, in a load with this origin.
    pub fn follow(&mut self, every: u32, origin: Instant) {
        self.followed = Some(Box::new(Followed {
            every,
            origin_ns: ns_of(origin),
            since_ns: None,
            under_way: vec![None; self.count as usize],
            ended: Vec::new(),
        }));
    }

    #[cold]
    fn submitted(&mut self, session: u32, number: RequestNumber, access: Access) {
        if let Some(followed) = &mut self.followed {
            let id = self.driver.core().session_id(session);
            followed.submitted(id, session, number, access);
        }
    }

    /// Those that were followed and had a result, if they count from the time between these two, which are
    /// nanoseconds from the origin.
    pub fn take_followed(&mut self, from: u64, to: u64) -> Vec<Sample> {
        let Some(followed) = self.followed.take() else { return Vec::new() };
        let (from, to) = (followed.origin_ns + from, followed.origin_ns + to);
        let mut samples = followed.ended;
        samples.retain(|sample| (from..to).contains(&sample.since_ns));
        samples
    }
}

/// How a client waits for replies.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// The transport of the links.
    pub transport: TransportKind,
    /// How long it polls for messages before it sleeps.
    pub busy_poll: Duration,
}

impl Wait {
    /// For clients whose speed does not matter.
    const SLEEP: Self = Self { transport: TransportKind::Epoll, busy_poll: Duration::ZERO };
}

/// Connects the sessions of a client identity to all replicas of a group.
///
/// # Errors
/// If one of the replicas cannot be reached in time, or the user interrupts.
pub fn connect(
    group: &Path,
    identity: u32,
    sessions: u32,
    wait: Wait,
    stop: &Stop,
) -> Result<DriverSessions, Error> {
    let (mut driver, replicas) = driver(group, identity, sessions, wait)?;
    let deadline = Instant::now() + CONNECT;
    while driver.connected() < replicas {
        stop.check()?;
        if Instant::now() >= deadline {
            let text = format!("not all replicas can be reached: {}", driver.unreachable());
            return Err(Error::new(text));
        }
        driver.poll(Duration::from_millis(20)).map_err(|e| Error::new(e.to_string()))?;
    }
    Ok(DriverSessions {
        driver,
        completions: Completions::default(),
        count: sessions,
        idle: Duration::ZERO,
        followed: None,
    })
}

fn driver(
    group: &Path,
    identity: u32,
    sessions: u32,
    wait: Wait,
) -> Result<(ClientDriver, usize), Error> {
    let told = |e: &dyn std::fmt::Display| Error::new(e.to_string());
    let group = Group::load(group).map_err(|e| told(&e))?;
    let keys =
        ClientKeys::load(&group, group.directory(), ClientId(identity)).map_err(|e| told(&e))?;
    let mut options = ClientOptions {
        sessions,
        request_timeout: REQUEST_TIMEOUT,
        transport: wait.transport,
        ..ClientOptions::default()
    };
    options.limits.busy_poll = wait.busy_poll;
    let driver = ClientDriver::connect(&group, &keys, &options).map_err(|e| told(&e))?;
    Ok((driver, group.replicas().len()))
}

impl Sessions for DriverSessions {
    fn count(&self) -> u32 {
        self.count
    }

    fn waited(&self) -> Duration {
        self.idle + self.driver.waited()
    }

    #[inline]
    fn submit(&mut self, session: u32, access: Access, operation: &[u8]) -> Result<(), Error> {
        let kind = match access {
            Access::Order => RequestKind::Ordered,
            Access::Query => RequestKind::ReadOnly,
        };
        match self.driver.submit(session, operation, kind) {
            Ok(number) => {
                if self.followed.is_some() {
                    self.submitted(session, number, access);
                }
                Ok(())
            }
            Err(e) => Err(Error::new(format!("a request was not taken: {e}"))),
        }
    }

    #[inline]
    fn counts_from(&mut self, since: u64) {
        if let Some(followed) = &mut self.followed {
            followed.since_ns = Some(followed.origin_ns + since);
        }
    }

    #[inline]
    fn poll(
        &mut self,
        wait: Duration,
        done: &mut impl FnMut(u32, Outcome<'_>),
    ) -> Result<(), Error> {
        // The transport waits in whole milliseconds, which would make an open loop late. So it
        // sleeps only for whole milliseconds, and polls busily for the rest.
        let exact = if wait < TRANSPORT_TICK { Duration::ZERO } else { wait - TRANSPORT_TICK };
        let wait = if wait >= LONG { wait } else { exact };
        let seen = self.driver.traffic().messages_in;
        let start = wait.is_zero().then(Instant::now);
        self.driver.poll(wait).map_err(|e| Error::new(e.to_string()))?;
        self.driver.take_completions(&mut self.completions);
        if self.completions.is_empty() && wait.is_zero() {
            std::thread::yield_now();
        }
        if let Some(start) = start.filter(|_| self.driver.traffic().messages_in == seen) {
            self.idle += start.elapsed();
        }
        // Apart: in the loop below it costs each request, even where none is followed.
        if let Some(followed) = &mut self.followed {
            for completion in self.completions.iter() {
                followed.ended(completion.session, completion.outcome == EngineOutcome::Done);
            }
        }
        for completion in self.completions.iter() {
            let outcome = match completion.outcome {
                EngineOutcome::Done => Outcome::Done(completion.result),
                EngineOutcome::Overloaded | EngineOutcome::DiskFull => {
                    Outcome::Failed(Failure::Overloaded)
                }
                EngineOutcome::Evicted => Outcome::Failed(Failure::Evicted),
                EngineOutcome::TimedOut | EngineOutcome::RepliesDiffer => {
                    Outcome::Failed(Failure::TimedOut)
                }
                EngineOutcome::Stale
                | EngineOutcome::TooLong
                | EngineOutcome::NumberTaken
                | EngineOutcome::ResultGone
                | EngineOutcome::StatesDiffer => Outcome::Failed(Failure::Refused),
            };
            done(completion.session, outcome);
        }
        Ok(())
    }
}

/// Waits from this length on need not be exact.
const LONG: Duration = Duration::from_millis(20);

/// The value of a group's counter, agreed on by the group after everything acknowledged before.
///
/// # Errors
/// If the group does not answer.
pub fn counter_value(group: &Path, identity: u32, stop: &Stop) -> Result<u64, Error> {
    let (driver, _) = driver(group, identity, 1, Wait::SLEEP)?;
    let mut sessions = DriverSessions {
        driver,
        completions: Completions::default(),
        count: 1,
        idle: Duration::ZERO,
        followed: None,
    };
    let links = sessions.driver.await_links(CONNECT);
    links.map_err(|e| Error::new(e.to_string()))?;
    sessions.submit(0, Access::Order, &counter::encode_get())?;
    let mut answer = None;
    while answer.is_none() {
        stop.check()?;
        sessions.poll(LONG, &mut |_, outcome| {
            answer = Some(match outcome {
                Outcome::Done(result) => counter::decode_reply(result)
                    .and_then(|value| u64::try_from(value).ok())
                    .ok_or_else(|| Error::new("the counter's reply is malformed")),
                Outcome::Failed(failure) => {
                    let what = failure.name();
                    Err(Error::new(format!("the group does not return the counter: {what}")))
                }
            });
        })?;
    }
    answer.unwrap_or_else(|| Err(Error::new("no answer")))
}

/// Asks replicas for their status, over links of its own.
#[derive(Debug)]
pub struct Monitor {
    driver: ClientDriver,
    replicas: u16,
}

impl Monitor {
    /// A monitor under a client identity.
    ///
    /// # Errors
    /// If the group's files are wrong or the network of this process fails.
    pub fn open(group: &Path, identity: u32) -> Result<Self, Error> {
        let (mut driver, replicas) = driver(group, identity, 1, Wait::SLEEP)?;
        driver.await_links(CONNECT).map_err(|e| Error::new(e.to_string()))?;
        Ok(Self { driver, replicas: replicas as u16 })
    }

    /// The status of all replicas that answer in time.
    pub fn all(&mut self) -> Vec<Status> {
        self.ask(0..self.replicas)
    }

    /// The status of one replica.
    ///
    /// # Errors
    /// If it does not answer in time.
    pub fn status(&mut self, replica: u16) -> Result<Status, Error> {
        let error = || Error::new(format!("replica {replica} does not answer a status request"));
        self.ask(replica..replica + 1).pop().ok_or_else(error)
    }

    fn ask(&mut self, replicas: std::ops::Range<u16>) -> Vec<Status> {
        // A late answer to an earlier question must not count as one to this question.
        let _ = self.driver.poll(Duration::ZERO);
        drop(self.driver.take_statuses());
        // A link may have broken since the last question, and come back while this one waits.
        let mut unasked: Vec<u16> = replicas.collect();
        let mut waiting: Vec<u16> = Vec::new();
        let mut answers = Vec::with_capacity(unasked.len());
        let deadline = Instant::now() + STATUS_PATIENCE;
        while Instant::now() < deadline {
            unasked.retain(|replica| {
                let is_asked = self.driver.request_status(ReplicaId(*replica)).is_ok();
                waiting.extend(is_asked.then_some(*replica));
                !is_asked
            });
            if waiting.is_empty() && (unasked.is_empty() || !answers.is_empty()) {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.driver.poll(left.min(LONG)).is_err() {
                break;
            }
            for (from, message) in self.driver.take_statuses() {
                let Some(status) = decode_status(&message) else {
                    continue;
                };
                if let Some(at) = waiting.iter().position(|r| *r == from.0) {
                    waiting.swap_remove(at);
                    answers.push(status);
                }
            }
        }
        answers.sort_by_key(|s: &Status| s.replica);
        answers
    }
}

/// Messages that a replica dropped as wrong. Messages that only came too late, such as the last
/// COMMIT of a slot that is committed already, do not count.
#[must_use]
pub fn rejections(status: &Status) -> u64 {
    let wrong = status.rejections.iter().filter(|r| r.reason != "Irrelevant");
    wrong.map(|r| r.count).sum()
}

/// STATUS is a kind byte, then JSON.
fn decode_status(message: &[u8]) -> Option<Status> {
    serde_json::from_slice(message.get(1..)?).ok()
}
