//! Two agents under load: nothing is lost or reordered when a queue is full, and clients are
//! paused. And what makes a replica stop.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hybster_net::{
    Completion, ConnectionId, Hub, HubConfig, Identity, KeyRing, Limits, LinkCipher, ListenerId,
    MemoryNetwork, MemoryTransport, StaticKey, TransportError, TransportKind,
};
use hybster_proto::config::GroupConfig;
use hybster_proto::egress::EgressLimits;
use hybster_proto::ids::{PillarId, ReplicaId, View};
use hybster_proto::output::{ToControl, ToIntake};

use super::super::{AgentPlan, Counters, Layout, Role, connect};
use super::*;

const INPUTS: u64 = 20_000;
const BURST: u64 = 5_000;

/// Sends numbered inputs in bursts far larger than a queue.
struct Source {
    next: u64,
}

impl Stage for Source {
    fn handle(&mut self, _: Input, _: Time, _: &mut Output) {}

    fn tick(&mut self, _: Time, out: &mut Output) {
        let end = (self.next + BURST).min(INPUTS);
        for next_slot in self.next..end {
            let input =
                ToIntake::Proposed { pillar: PillarId(0), view: View(0), next_slot, taken: 1 };
            out.inputs.push(Input::Intake(input));
        }
        self.next = end;
    }

    fn deadline(&self) -> Option<Time> {
        (self.next < INPUTS).then_some(Time(0))
    }

    fn publish(&self, _: &Counters) {}
}

/// Expects the inputs in order; slow until told otherwise.
struct Sink {
    seen: Arc<AtomicU64>,
    blocked: Arc<AtomicBool>,
}

impl Stage for Sink {
    fn handle(&mut self, input: Input, _: Time, _: &mut Output) {
        while self.blocked.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let Input::Intake(ToIntake::Proposed { next_slot, .. }) = input else {
            panic!("another input")
        };
        assert_eq!(next_slot, self.seen.fetch_add(1, Ordering::Relaxed));
    }

    fn tick(&mut self, _: Time, _: &mut Output) {}

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn publish(&self, _: &Counters) {}
}

fn lonely_hub() -> HubConfig {
    HubConfig {
        identity: Identity::Replica(0),
        key: StaticKey::from_seed(&[1; 32]),
        keyring: Arc::new(KeyRing::new()),
        group_digest: [0; 32],
        pillars: 1,
        incarnation: 0,
        application: None,
        cipher: LinkCipher::default(),
        listen: None,
        peers: Vec::new(),
        limits: Limits::default(),
        jitter_seed: Some(1),
    }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_full_queue_pauses_clients_and_loses_nothing() {
    let plan = |name: &str, role| AgentPlan { name: name.into(), roles: vec![role], core: None };
    let plans = vec![plan("network", Role::Execution), plan("sink", Role::Clients)];
    let config = Arc::new(GroupConfig { pillars: 1, ..GroupConfig::default() });
    let shared = Arc::new(Shared::new(
        ReplicaId(0),
        config,
        Layout::Split,
        TransportKind::Epoll,
        true,
        plans,
        None,
    ));
    let hub = Hub::new(MemoryNetwork::new().endpoint(), lonely_hub()).unwrap();
    let network = Network::new(hub, Arc::clone(&shared), Vec::new(), EgressLimits::default());
    let (seen, blocked) = (Arc::default(), Arc::new(AtomicBool::new(true)));
    let sink = Sink { seen: Arc::clone(&seen), blocked: Arc::clone(&blocked) };
    let (to_sink, from_source) = connect();
    let (to_source, from_sink) = connect();
    let source = Agent::new(
        0,
        Arc::clone(&shared),
        vec![Box::new(Source { next: 0 })],
        Some(network),
        vec![None, Some(from_sink)],
        vec![None, Some(to_sink)],
    );
    let sink = Agent::<MemoryTransport>::new(
        1,
        Arc::clone(&shared),
        vec![Box::new(sink)],
        None,
        vec![Some(from_source), None],
        vec![Some(to_source), None],
    );
    let threads =
        [std::thread::spawn(move || source.run()), std::thread::spawn(move || sink.run())];

    wait_until("congestion", || shared.is_congested());
    assert_eq!(seen.load(Ordering::Relaxed), 0);
    blocked.store(false, Ordering::Relaxed);
    wait_until("all inputs", || seen.load(Ordering::Relaxed) == INPUTS);
    wait_until("no congestion", || !shared.is_congested());
    shared.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn an_input_that_no_stage_answers_for_stops_the_replica() {
    let plans = vec![AgentPlan { name: "all".into(), roles: vec![Role::Server], core: None }];
    let config = Arc::new(GroupConfig { pillars: 1, ..GroupConfig::default() });
    let (layout, transport) = (Layout::Fused, TransportKind::Epoll);
    let shared = Shared::new(ReplicaId(0), config, layout, transport, false, plans, None);
    let shared = Arc::new(shared);
    let hub = Hub::new(MemoryNetwork::new().endpoint(), lonely_hub()).unwrap();
    let network = Network::new(hub, Arc::clone(&shared), Vec::new(), EgressLimits::default());
    let stages: Vec<Box<dyn Stage>> = vec![Box::new(Source { next: 0 })];
    let queues = (vec![None], vec![None]);
    let mut agent = Agent::new(0, Arc::clone(&shared), stages, Some(network), queues.0, queues.1);
    let proposed =
        ToIntake::Proposed { pillar: PillarId(0), view: View(0), next_slot: 0, taken: 1 };
    agent.post(Input::Intake(proposed));
    assert!(!shared.is_stopping(), "the server answers for it");
    agent.post(Input::Control(ToControl::Stuck));
    assert!(shared.is_stopping());
    let Some(Failure::Fatal(fatal)) = shared.take_failure() else { panic!("it has a reason") };
    assert!(fatal.to_string().contains("Stuck"), "{fatal}");
}

/// A transport that fails once: it would go on if it were polled again.
struct FailsOnce {
    inner: MemoryTransport,
    polls: u32,
}

impl Transport for FailsOnce {
    fn listen(&mut self, address: SocketAddr) -> std::io::Result<(ListenerId, SocketAddr)> {
        self.inner.listen(address)
    }

    fn connect(&mut self, address: SocketAddr) -> ConnectionId {
        self.inner.connect(address)
    }

    fn send(&mut self, connection: ConnectionId, buffer: Vec<u8>) {
        self.inner.send(connection, buffer);
    }

    fn close(&mut self, connection: ConnectionId) {
        self.inner.close(connection);
    }

    fn pause_reading(&mut self, connection: ConnectionId, paused: bool) {
        self.inner.pause_reading(connection, paused);
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), TransportError> {
        self.polls += 1;
        if self.polls == 3 {
            let cause = std::io::Error::from_raw_os_error(5);
            return Err(TransportError::new("io_uring", cause));
        }
        let timeout = timeout.unwrap_or(Duration::MAX).min(Duration::from_millis(1));
        self.inner.poll(Some(timeout), completions)
    }

    fn waker(&self) -> hybster_net::Waker {
        self.inner.waker()
    }
}

#[test]
fn a_dead_transport_stops_the_replica_with_the_reason() {
    let plans = vec![AgentPlan { name: "all".into(), roles: vec![Role::Server], core: None }];
    let config = Arc::new(GroupConfig { pillars: 1, ..GroupConfig::default() });
    let (layout, transport) = (Layout::Fused, TransportKind::Epoll);
    let shared = Shared::new(ReplicaId(0), config, layout, transport, false, plans, None);
    let shared = Arc::new(shared);
    let transport = FailsOnce { inner: MemoryNetwork::new().endpoint(), polls: 0 };
    let hub = Hub::new(transport, lonely_hub()).unwrap();
    let network = Network::new(hub, Arc::clone(&shared), Vec::new(), EgressLimits::default());
    let stages: Vec<Box<dyn Stage>> = vec![Box::new(Source { next: INPUTS })];
    let queues = (vec![None], vec![None]);
    let agent = Agent::new(0, Arc::clone(&shared), stages, Some(network), queues.0, queues.1);
    let thread = std::thread::spawn(move || agent.run());
    wait_until("the replica stops", || shared.is_stopping());
    thread.join().unwrap();
    let Some(Failure::Transport(error)) = shared.take_failure() else { panic!("it has a reason") };
    assert!(error.to_string().contains("io_uring failed: Input/output error"), "{error}");
}

/// Is held up by its first tick, and then notes the time.
struct HeldUp {
    seen: Vec<Time>,
    shared: Arc<Shared>,
}

const HELD_UP: Duration = Duration::from_millis(400);

impl Stage for HeldUp {
    fn handle(&mut self, _: Input, _: Time, _: &mut Output) {}

    fn tick(&mut self, now: Time, _: &mut Output) {
        self.seen.push(now);
        match self.seen[..] {
            [_] => std::thread::sleep(HELD_UP),
            [before, after] => {
                // Nothing but the polling of the network is in between.
                assert!(Duration::from_micros(after.since_us(before)) < HELD_UP / 2);
                self.shared.stop();
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        Some(Time(0))
    }

    fn publish(&self, _: &Counters) {}
}

#[test]
fn time_in_which_a_stage_holds_up_the_others_does_not_pass_for_them() {
    let plans = vec![AgentPlan { name: "all".into(), roles: vec![Role::Server], core: None }];
    let config = Arc::new(GroupConfig { pillars: 1, ..GroupConfig::default() });
    let (layout, transport) = (Layout::Fused, TransportKind::Epoll);
    let shared = Shared::new(ReplicaId(0), config, layout, transport, false, plans, None);
    let shared = Arc::new(shared);
    let hub = Hub::new(MemoryNetwork::new().endpoint(), lonely_hub()).unwrap();
    let network = Network::new(hub, Arc::clone(&shared), Vec::new(), EgressLimits::default());
    let stage = HeldUp { seen: Vec::new(), shared: Arc::clone(&shared) };
    let stages: Vec<Box<dyn Stage>> = vec![Box::new(stage)];
    let queues = (vec![None], vec![None]);
    let agent = Agent::new(0, Arc::clone(&shared), stages, Some(network), queues.0, queues.1);
    let thread = std::thread::spawn(move || agent.run());
    wait_until("the replica stops", || shared.is_stopping());
    thread.join().unwrap();
}
