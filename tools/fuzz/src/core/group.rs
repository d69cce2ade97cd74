//! Three cores, the messages between them, and the properties that must hold.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hybster_proto::hybster::Hybster;
use hybster_proto::ids::{ClientId, OrderNumber, ReplicaId, RequestNumber, SessionId};
use hybster_proto::output::{
    ClientLink, Input, Network, Output, route_client_message, route_peer_message,
};
use hybster_proto::service::{Context, Pages, RestoreError, Service, Snapshot};
use hybster_proto::time::Time;
use hybster_proto::trace::{Phase, Proposal, TraceEvent};
use hybster_proto::wire::request::append_request;
use hybster_proto::{GroupConfig, Stages};
use hybster_tss::{
    ClientKey, ContinuingCertificate, Counter, CounterValue, Digest, GroupKey, InProcessTrInX,
    InProcessVerifier, IndependentCertificate, InstanceId, RandomnessKey, Refusal, TrInX,
    TrustedMac,
};

pub(super) const REPLICAS: usize = 3;
/// Messages that are on their way at once; older ones are lost.
const PENDING: usize = 4096;
/// Messages that are kept for replays.
const HISTORY: usize = 512;
/// The one client.
const LINK: ClientLink = ClientLink { client: ClientId(3), incarnation: 77 };

/// An instance that a core and its host share.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<InProcessTrInX>>, InstanceId);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, InProcessTrInX> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TrInX for Shared {
    fn instance(&self) -> InstanceId {
        self.1
    }

    fn current(&self, counter: Counter) -> CounterValue {
        self.lock().current(counter)
    }

    fn certify_independent(
        &mut self,
        counter: Counter,
        value: CounterValue,
        digest: &Digest,
    ) -> Result<IndependentCertificate, Refusal> {
        self.lock().certify_independent(counter, value, digest)
    }

    fn certify_continuing(
        &mut self,
        counter: Counter,
        value: CounterValue,
        digest: &Digest,
    ) -> Result<ContinuingCertificate, Refusal> {
        self.lock().certify_continuing(counter, value, digest)
    }

    fn certify_mac(&mut self, digest: &Digest) -> Result<TrustedMac, Refusal> {
        self.lock().certify_mac(digest)
    }

    fn forward(&mut self, counter: Counter, value: CounterValue) -> Result<(), Refusal> {
        self.lock().forward(counter, value)
    }

    fn advance_epoch(&mut self, epoch: u32, group: &Digest) -> Result<(), Refusal> {
        self.lock().advance_epoch(epoch, group)?;
        let instance = self.lock().instance();
        self.1 = instance;
        Ok(())
    }
}

/// Order number, session, number, operation, agreed time and random bytes.
type Execution = (OrderNumber, SessionId, RequestNumber, Vec<u8>, [u8; 40]);
type Executions = Arc<Mutex<Vec<Execution>>>;

/// Keeps the operations that it executes, as its state and for the checks.
#[derive(Default)]
struct Journal {
    state: Vec<u8>,
    executed: Executions,
}

impl Service for Journal {
    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        self.state.extend_from_slice(operation);
        reply.extend_from_slice(&(self.state.len() as u64).to_le_bytes());
        let Context { session, number, order, .. } = *context;
        let mut agreed = [0; 40];
        agreed[..8].copy_from_slice(&context.time_ms.to_le_bytes());
        agreed[8..].copy_from_slice(context.randomness());
        let mut executed = self.executed.lock().unwrap_or_else(PoisonError::into_inner);
        executed.push((order, session, number, operation.to_vec(), agreed));
    }

    fn query(&self, _: &[u8], reply: &mut Vec<u8>) -> bool {
        reply.extend_from_slice(&(self.state.len() as u64).to_le_bytes());
        true
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        Arc::new(Pages(vec![self.state.clone().into()]))
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        self.state = source.page(0).to_vec();
        Ok(())
    }
}

struct Replica {
    core: Stages<Hybster<Shared, InProcessVerifier>, Journal>,
    executed: Executions,
    /// A faulty host's core may stop: its counters are used up behind its back.
    stopped: bool,
}

/// The steps that correct replicas can take, by bit of [`REACHED`].
const STEPS: [&str; 14] = [
    "proposed",
    "vouched for",
    "certified",
    "executed",
    "checkpoint taken",
    "checkpoint stable",
    "state installed",
    "view left",
    "leader elected",
    "view entered",
    "view endorsed",
    "re-issued",
    "part left",
    "proposals adopted",
];

/// Steps that correct replicas have taken in this process: a run in which nothing happens finds
/// nothing.
static REACHED: AtomicU32 = AtomicU32::new(0);

/// The place in [`STEPS`]; beyond it what correct replicas never do.
fn step_of(event: &TraceEvent) -> usize {
    match event {
        TraceEvent::Proposed { .. } => 0,
        TraceEvent::Vouched { .. } => 1,
        TraceEvent::Certified { .. } => 2,
        TraceEvent::Executed { .. } | TraceEvent::AgreedTime { .. } => 3,
        TraceEvent::CheckpointTaken(_) => 4,
        TraceEvent::CheckpointStable { .. } => 5,
        TraceEvent::StateInstalled(_) => 6,
        TraceEvent::ViewLeft { .. } => 7,
        TraceEvent::Elected { .. } => 8,
        TraceEvent::ViewEntered { .. } => 9,
        TraceEvent::Endorsed { .. } => 10,
        TraceEvent::Reissued { .. } => 11,
        TraceEvent::PartLeft { .. } => 12,
        TraceEvent::Adopted { .. } => 13,
        // Nothing here is reconfigured or drops events.
        TraceEvent::Diverged(_) | TraceEvent::Configured { .. } | TraceEvent::Lost { .. } => {
            STEPS.len()
        }
    }
}

/// The steps that no correct replica has taken yet.
pub(super) fn not_reached() -> Vec<&'static str> {
    let reached = REACHED.load(Ordering::Relaxed);
    let missing = STEPS.iter().enumerate().filter(|(bit, _)| reached >> bit & 1 == 0);
    missing.map(|(_, step)| *step).collect()
}

/// Where a request was executed, its operation, and the time and random bytes that it was given.
type Executed = (OrderNumber, Vec<u8>, [u8; 40]);

/// What all correct replicas must agree on.
#[derive(Default)]
struct Agreed {
    committed: BTreeMap<u64, Digest>,
    checkpoints: BTreeMap<OrderNumber, Digest>,
    places: HashMap<(SessionId, RequestNumber), Executed>,
}

pub(super) struct Group {
    pub(super) config: Arc<GroupConfig>,
    pub(super) traitor: Option<usize>,
    /// The instances of the faulty host.
    pub(super) trinx: Vec<Shared>,
    replicas: Vec<Replica>,
    client: ClientKey,
    submitted: HashSet<(SessionId, RequestNumber, Vec<u8>)>,
    pending: VecDeque<(usize, usize, Bytes)>,
    history: Vec<Bytes>,
    now: Time,
    agreed: Agreed,
}

impl Group {
    pub(super) fn new(pillars: u16, traitor: Option<usize>) -> Self {
        let config = Arc::new(GroupConfig {
            pillars,
            window: 4 * u64::from(pillars),
            checkpoint_interval: 2 * u64::from(pillars),
            batch_max_requests: 2,
            session_window: 2,
            max_sessions_per_client: 3,
            ..GroupConfig::default()
        });
        config.validate().expect("the constants fit");
        let key = GroupKey::from_bytes([9; 32]);
        let (digest, mac) = (config.digest(), config.mac);
        let mut trinx = Vec::new();
        let mut replica = |id: ReplicaId| {
            let instances = config.all_pillars().map(|pillar| {
                let instance = config.instance(id, pillar);
                let inner = InProcessTrInX::new(&key, mac, digest, instance);
                Shared(Arc::new(Mutex::new(inner)), instance)
            });
            let instances: Vec<Shared> = instances.collect();
            if traitor == Some(usize::from(id.0)) {
                trinx.clone_from(&instances);
            }
            let journal = Journal::default();
            let executed = Arc::clone(&journal.executed);
            let verifier = || InProcessVerifier::new(&key, mac, digest);
            let agreement = Hybster::agreement(&config, id, instances, verifier);
            let randomness = RandomnessKey::new(&key, &digest);
            let core = Stages::new(Arc::clone(&config), id, agreement, journal, randomness);
            Replica { core, executed, stopped: false }
        };
        let replicas = config.all_replicas().map(&mut replica).collect();
        Self {
            client: key.client_key(mac, LINK.client.0),
            traitor,
            trinx,
            replicas,
            submitted: HashSet::new(),
            pending: VecDeque::new(),
            history: Vec::new(),
            now: Time(1),
            agreed: Agreed::default(),
            config,
        }
    }

    // ------------------------------------------------------------------ what the input plays

    /// Appends a request record; a forged one has a wrong MAC.
    pub(super) fn append_request(
        &mut self,
        out: &mut Vec<u8>,
        session: u32,
        number: RequestNumber,
        operation: u8,
        forged: bool,
    ) {
        let session = SessionId::new(LINK.client, LINK.incarnation, session);
        append_request(out, session, number, &[operation], |covered| {
            let mut tag = self.client.tag(covered);
            tag[0] ^= u8::from(forged);
            tag
        });
        if !forged {
            self.submitted.insert((session, number, vec![operation]));
        }
    }

    pub(super) fn client_sends(&mut self, to: usize, message: Bytes) {
        if let Some(input) = route_client_message(LINK, message) {
            self.handle(to, input);
        }
    }

    /// From whom to whom the oldest message goes that is on its way.
    pub(super) fn oldest_message(&self) -> Option<(usize, usize)> {
        self.pending.front().map(|(from, to, _)| (*from, *to))
    }

    fn place(&self, at: usize) -> Option<usize> {
        (!self.pending.is_empty()).then(|| at % self.pending.len())
    }

    pub(super) fn deliver(&mut self, at: usize) {
        let message = self.place(at).and_then(|at| self.pending.remove(at));
        let Some((from, to, message)) = message else { return };
        let from = ReplicaId(from as u16);
        if let Some(input) = route_peer_message(from, message, &self.config) {
            self.handle(to, input);
        }
    }

    pub(super) fn drop_message(&mut self, at: usize) {
        let _ = self.place(at).and_then(|at| self.pending.remove(at));
    }

    pub(super) fn duplicate(&mut self, at: usize) {
        if let Some(at) = self.place(at) {
            self.pending.push_back(self.pending[at].clone());
        }
    }

    pub(super) fn old_message(&self, at: usize) -> Option<Bytes> {
        (!self.history.is_empty()).then(|| self.history[at % self.history.len()].clone())
    }

    /// A message of the faulty host that is on its way.
    pub(super) fn traitors_message(&mut self, at: usize) -> Option<&mut Bytes> {
        let traitor = self.traitor?;
        let count = self.pending.iter().filter(|(from, _, _)| *from == traitor).count();
        let mut own = self.pending.iter_mut().filter(|(from, _, _)| *from == traitor);
        own.nth(at % count.max(1)).map(|(_, _, message)| message)
    }

    pub(super) fn send_as_traitor(&mut self, to: usize, message: Bytes) {
        if let Some(traitor) = self.traitor
            && traitor != to
        {
            self.pending.push_back((traitor, to, message));
        }
    }

    /// Time passes, and timers go off.
    pub(super) fn advance(&mut self, by_us: u64) {
        self.now = self.now.after_us(by_us);
        for at in 0..REPLICAS {
            if self.replicas[at].core.deadline().is_some_and(|due| due <= self.now) {
                self.run(at, None);
            }
        }
    }

    // ------------------------------------------------------------------ replicas

    /// A replica handles an input and all that follow from it inside.
    pub(super) fn handle(&mut self, at: usize, input: Input) {
        self.run(at, Some(input));
    }

    fn run(&mut self, at: usize, input: Option<Input>) {
        if self.replicas[at].stopped {
            return;
        }
        let mut out = Output { tracing: true, ..Output::default() };
        if input.is_none() {
            self.replicas[at].core.tick(self.now, &mut out);
        }
        let mut inputs: VecDeque<Input> = input.into_iter().collect();
        while out.fatal.is_none() {
            inputs.extend(out.inputs.drain(..));
            let core = &mut self.replicas[at].core;
            if let Some(input) = inputs.pop_front() {
                core.handle(input, self.now, &mut out);
                continue;
            }
            core.flush(self.now, &mut out);
            core.state.work(self.now, usize::MAX, &mut out);
            if out.inputs.is_empty() {
                break;
            }
        }
        self.effects(at, &mut out);
        if self.traitor == Some(at) {
            self.replicas[at].stopped = out.fatal.is_some();
            return;
        }
        assert_eq!(out.fatal, None, "replica {at} is correct and stopped");
        for event in out.trace {
            self.agreed.check(at, &event, &self.config);
        }
        let executed = &self.replicas[at].executed;
        let executed =
            std::mem::take(&mut *executed.lock().unwrap_or_else(PoisonError::into_inner));
        for (order, session, number, operation, agreed) in executed {
            let request = (session, number, operation);
            let known = self.submitted.contains(&request);
            assert!(known, "replica {at} executed {session} {number}, which nobody submitted");
            let place = (order, request.2, agreed);
            let before = self.agreed.places.entry((session, number)).or_insert(place.clone());
            assert_eq!(*before, place, "{session} {number} ran twice or in two ways");
        }
    }

    fn effects(&mut self, at: usize, out: &mut Output) {
        for effect in out.network.drain(..) {
            let Network::Send { to, message, .. } = effect else { continue };
            for peer in (0..REPLICAS).filter(|peer| *peer != at) {
                if to.reaches(ReplicaId(at as u16), ReplicaId(peer as u16)) {
                    self.pending.push_back((at, peer, message.clone()));
                }
            }
            if self.history.len() < HISTORY {
                self.history.push(message);
            }
        }
        while self.pending.len() > PENDING {
            self.pending.pop_front();
        }
    }
}

impl Agreed {
    fn check(&mut self, at: usize, event: &TraceEvent, config: &GroupConfig) {
        REACHED.fetch_or(1 << step_of(event), Ordering::Relaxed);
        match *event {
            TraceEvent::Certified { phase: Phase::Commit, proposal, .. } => {
                let Proposal { first, last, batch, .. } = proposal;
                for order in (first.0..=last.0).step_by(config.pillars.into()) {
                    let known = *self.committed.entry(order).or_insert(batch);
                    assert_eq!(known, batch, "replica {at} committed something else at o{order}");
                }
            }
            TraceEvent::CheckpointTaken(id)
            | TraceEvent::CheckpointStable { checkpoint: id, .. }
            | TraceEvent::StateInstalled(id) => {
                let known = *self.checkpoints.entry(id.order).or_insert(id.digest);
                assert_eq!(known, id.digest, "replica {at} has another state at {}", id.order);
            }
            TraceEvent::Diverged(id) => {
                panic!("replica {at} is correct and differs at {}", id.order)
            }
            _ => {}
        }
    }
}
