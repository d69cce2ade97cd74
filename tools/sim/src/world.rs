//! The world of one run: virtual time, the event loop, and what passes between its parts.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::config::GroupConfig;
use hybster_proto::egress::Egress;
use hybster_proto::ids::{OrderNumber, Peers, PillarId, ReplicaId};
use hybster_proto::notice::Notice;
use hybster_proto::output::{
    ClientLink, Input, ToPillar, route_client_message, route_peer_message,
};
use hybster_proto::trace::TraceEvent;
use hybster_proto::trace::file::{Header, Recording, Writer};
use hybster_proto::wire::{kind, kind_of};

use crate::Options;
use crate::agenda::{Agenda, Event};
use crate::behaviour::Archive;
use crate::client::Client;
use crate::coverage::Coverage;
use crate::disk::Deed;
use crate::display;
use crate::keys::Keys;
use crate::network::{Delivery, Network};
use crate::oracle::{Breach, Oracles, Violation};
use crate::random::Random;
use crate::relays::Relays;
use crate::released::Released;
use crate::replica::{Replica, Stage};
use crate::report::{Counters, NewViewSeen, Report};
use crate::rogue::Rogue;
use crate::scenario::{Layout, Scenario, Transport};
use crate::watched::{Execution, Ledger};
use crate::workload::Workload;

/// An event of a replica, kept for reports.
pub(crate) enum What {
    Did(TraceEvent),
    Sent(ReplicaId, Bytes),
    Got(usize, Bytes),
    Dropped(hybster_proto::output::Rejection),
    Suffered(String),
    Told(Notice),
}

/// How much later the administrator orders a second change, if it makes that mistake.
const OTHER_CHANGE_US: u64 = 400;
/// Messages that the system of a paused replica takes before its links stall.
const PAUSE_BUFFER: usize = 64;

/// One run.
pub struct World {
    pub(crate) scenario: Scenario,
    options: Options,
    pub(crate) config: Arc<GroupConfig>,
    pub(crate) now_us: u64,
    pub(crate) step: u64,
    stamp: u64,
    agenda: Agenda,
    pub(crate) replicas: Vec<Replica>,
    busy_until_us: Vec<u64>,
    pub(crate) clients: Vec<Client>,
    pub(crate) rogues: Vec<Rogue>,
    pub(crate) network: Network,
    pub(crate) archive: Archive,
    pub(crate) coverage: Coverage,
    pub(crate) oracles: Oracles,
    pub(crate) ledger: Ledger,
    pub(crate) keys: Keys,
    pub(crate) counters: Counters,
    pub(crate) new_views: Vec<(ReplicaId, NewViewSeen)>,
    pub(crate) hash: u64,
    pub(crate) recent: Vec<VecDeque<(u64, u64, What)>>,
    pub(crate) trace: Vec<String>,
    pub(crate) recording: Option<Recording>,
    pub(crate) violation: Option<Violation>,
    pub(crate) done: bool,
    pub(crate) healed_at_us: Option<u64>,
    pub(crate) calm_view: Option<u64>,
    pub(crate) relays: Relays,
    pub(crate) released: Released,
    pub(crate) random: Random,
    pub(crate) executions: Vec<Execution>,
    pub(crate) installed_us: Vec<u64>,
    /// Whether the service is the simulator's, so that the history says what is right.
    pub(crate) is_registers: bool,
}

impl World {
    /// The world of a scenario, at its beginning.
    ///
    /// # Panics
    /// If the scenario's group constants do not fit together.
    #[must_use]
    pub fn new(scenario: Scenario, options: Options) -> Self {
        Self::with_workload(scenario, None, options)
    }

    /// The same, with another service than the simulator's registers.
    ///
    /// # Panics
    /// If the scenario's group constants do not fit together.
    #[must_use]
    pub fn with_workload(scenario: Scenario, workload: Option<Workload>, options: Options) -> Self {
        let workload = workload.as_ref();
        scenario.group.validate().expect("the scenario's group is valid");
        let mut random = Random::new(scenario.seed);
        let mut config = scenario.group.clone();
        let keys = Keys::new(&mut config);
        let config = Arc::new(config);
        let ledger = Ledger::default();
        let n = usize::from(config.replicas);
        let replicas = config
            .all_replicas()
            .map(|id| {
                Replica::new(id, (&scenario, workload), &config, &keys, &ledger, random.fork())
            })
            .collect();
        let mut clients: Vec<Client> = Vec::new();
        for index in 0..scenario.clients.len() as u16 {
            let original = scenario.original(index).map(|of| clients[usize::from(of)].link);
            let random = random.fork();
            let of = (&scenario, workload);
            clients.push(Client::new(index.into(), of, &config, &keys, original, random));
        }
        let ends = clients.len() + scenario.rogues.len();
        let Scenario { transport, latency, bytes_per_s, .. } = scenario;
        let network = Network::new(n, ends, transport, latency, bytes_per_s, random.fork());
        let rogues = scenario.rogues.iter().zip(clients.len() as u32..).map(|(plan, id)| {
            Rogue::new(id, plan.clone(), scenario.keys, &config, &keys, random.fork())
        });
        let rogues = rogues.collect();
        let faulty: Peers = scenario.hosts.iter().map(|(replica, _)| *replica).collect();
        let header = Header { faulty, ..Header::new(Writer::Simulator, &config, 0) };
        Self {
            oracles: Oracles::new(&config, faulty),
            options,
            config,
            now_us: 0,
            step: 0,
            stamp: 0,
            agenda: Agenda::default(),
            replicas,
            busy_until_us: vec![0; n],
            clients,
            rogues,
            network,
            archive: Archive::default(),
            coverage: Coverage::default(),
            ledger,
            keys,
            counters: Counters::default(),
            new_views: Vec::new(),
            hash: scenario.seed,
            recent: (0..n).map(|_| VecDeque::new()).collect(),
            trace: Vec::new(),
            recording: options.record.then_some(Recording::new(&header)),
            violation: None,
            done: false,
            healed_at_us: None,
            calm_view: None,
            relays: Relays::default(),
            released: Released::default(),
            random,
            executions: Vec::new(),
            installed_us: Vec::new(),
            is_registers: workload.is_none(),
            scenario,
        }
    }

    /// Runs to the end.
    #[must_use]
    pub fn run(mut self) -> Report {
        self.begin();
        while !self.done && self.violation.is_none() {
            let Some((at_us, event)) = self.agenda.pop() else {
                self.violate(("liveness", "nothing will ever happen again".into(), vec![]));
                break;
            };
            debug_assert!(at_us >= self.now_us);
            self.now_us = at_us;
            self.step += 1;
            self.handle(event);
            if let Some(story) = self.ledger.violation() {
                self.violate(("counter uniqueness", story, vec![]));
            }
        }
        self.report()
    }

    fn begin(&mut self) {
        for index in 0..self.scenario.faults.len() {
            let at_us = self.scenario.faults[index].at_us;
            if at_us < self.scenario.heal_at_us {
                self.schedule(at_us, Event::Fault(index));
            }
        }
        self.schedule(self.scenario.heal_at_us, Event::Heal);
        for client in 0..self.clients.len() {
            let start_us = self.clients[client].plan.start_us;
            self.give_turns(client, start_us);
        }
        for rogue in 0..self.rogues.len() {
            self.schedule(self.rogues[rogue].plan.every_us, Event::Rogue(rogue));
        }
        if let Some(plan) = &self.scenario.replacement {
            let (lost, ordered) = (plan.lost_us, plan.ordered_us);
            if let Some(lost_us) = lost {
                self.schedule(lost_us, Event::Lose);
            }
            self.schedule(ordered, Event::Order(0));
            self.schedule(ordered + OTHER_CHANGE_US, Event::Order(1));
        }
        let n = self.replicas.len();
        for replica in 0..n {
            if self.replicas[replica].hosts.iter().any(|host| host.ticks()) {
                self.schedule(self.config.resend_us, Event::Host(replica));
            }
            for peer in (0..n).filter(|p| *p != replica) {
                match self.scenario.transport {
                    Transport::Datagrams => self.egress_up(replica, peer),
                    Transport::Streams => self.link_up(replica, peer),
                }
            }
            for end in n..n + self.clients.len() + self.rogues.len() {
                self.egress_up(replica, end);
            }
            self.schedule_run(replica, self.now_us);
        }
    }

    pub(crate) fn give_turns(&mut self, client: usize, from_us: u64) {
        for session in 0..self.clients[client].plan.sessions {
            for _ in 0..self.clients[client].parallel() {
                let at_us = from_us + self.clients[client].think_us();
                self.schedule(at_us, Event::Turn(client, session));
            }
        }
    }

    pub(crate) fn schedule(&mut self, at_us: u64, event: Event) {
        self.agenda.push(at_us.max(self.now_us), event);
    }

    pub(crate) fn launch(&mut self, deliveries: &mut Vec<Delivery>) {
        for delivery in deliveries.drain(..) {
            self.schedule(delivery.at_us, Event::Arrive(delivery));
        }
        for sent in std::mem::take(&mut self.network.sending) {
            self.schedule(sent.at_us, Event::Sent(sent.from));
        }
    }

    /// A host's wire is free for the next piece of a message.
    fn sent(&mut self, from: usize) {
        let mut deliveries = Vec::new();
        self.network.sent(self.now_us, from, &mut deliveries);
        self.launch(&mut deliveries);
        let is_waiting = |egress: &Egress<usize>| {
            self.config.all_replicas().any(|peer| egress.queued_bytes(peer) > 0)
        };
        let egress = self.replicas.get(from).and_then(|replica| replica.egress.as_ref());
        if egress.is_some_and(is_waiting) {
            // As the hub, which comes back when a link has taken something.
            self.schedule_run(from, self.now_us);
        }
        self.look_for_room(from);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(delivery) => {
                if self.network.arrives(&delivery) {
                    self.arrive(delivery);
                }
            }
            Event::Sent(from) => self.sent(from),
            Event::Run(replica) => self.run_replica(replica),
            Event::Wake(replica) => {
                if self.replicas[replica].wake_us == Some(self.now_us) {
                    self.replicas[replica].wake_us = None;
                    self.schedule_run(replica, self.now_us);
                }
            }
            Event::ClientWake(client) => {
                if self.clients[client].wake_us == Some(self.now_us) {
                    let (c, end) = (&mut self.clients[client], self.replicas.len() + client);
                    c.wake_us = None;
                    let outstanding = |to: ReplicaId| {
                        self.network.outstanding_bytes(self.now_us, end, usize::from(to.0))
                    };
                    c.core.tick_over(c.clock.local(self.now_us), outstanding, &mut c.out);
                    self.pump_client(client);
                }
            }
            Event::Turn(client, session) => self.turn(client, session),
            Event::Fault(index) => {
                let fault = self.scenario.faults[index].fault.clone();
                self.suffer(&fault);
            }
            Event::Heal => {
                self.heal();
                self.healed_at_us = Some(self.now_us);
                self.schedule(self.now_us + self.calm_us(), Event::Check);
            }
            Event::Depart(from, to, message) => self.leave(from, to, message),
            Event::Host(replica) => self.host_turn(replica),
            Event::Rogue(rogue) => self.rogue_turn(rogue),
            Event::Start(replica) => self.start(replica),
            Event::Synced(replica, life) => self.synced(replica, life),
            Event::LogFailed(replica, life) => self.log_failed(replica, life),
            Event::Saved(replica, life) => self.saved(replica, life),
            Event::Check => self.check_end(),
            Event::Lose => self.lose(),
            Event::Order(which) => self.order_change(which),
            Event::Join(replica) => self.join(replica),
        }
    }

    fn turn(&mut self, client: usize, session: u32) {
        self.stamp += 1;
        let stamp = self.stamp;
        if let Some(submitted) = self.clients[client].turn(session, self.now_us, stamp) {
            self.counters.submitted += 1;
            self.oracles.submitted(submitted.session, submitted.number, &submitted.bytes);
            self.pump_client(client);
        }
    }

    fn host_turn(&mut self, replica: usize) {
        if self.replicas[replica].crashed {
            return;
        }
        if !self.replicas[replica].paused {
            self.hosts(replica, |host, scene| host.tick(scene));
        }
        self.schedule(self.now_us + self.config.resend_us, Event::Host(replica));
    }

    fn rogue_turn(&mut self, index: usize) {
        let rogue = &mut self.rogues[index];
        let mischief = rogue.act(&self.config);
        let more = rogue.done < rogue.plan.times;
        let next_us = self.now_us + rogue.plan.every_us;
        for signed in mischief.signed {
            self.oracles.submitted(signed.session, signed.number, &signed.operation);
        }
        let from = self.replicas.len() + self.clients.len() + index;
        for (to, message) in mischief.messages {
            self.transmit(from, usize::from(to), message.into());
        }
        if more {
            self.schedule(next_us, Event::Rogue(index));
        }
    }

    fn arrive(&mut self, delivery: Delivery) {
        let Delivery { from, to, .. } = delivery;
        let (message, epoch) = (delivery.packet.message.clone(), delivery.packet.epoch);
        let n = self.replicas.len();
        self.mix_message(from, to, &message);
        if to >= n + self.clients.len() {
            return;
        }
        if to >= n {
            let (mut from, mut message) = (ReplicaId(from as u16), message);
            if kind_of(&message) == kind::RELAYED {
                let link = self.clients[to - n].link;
                let Some(opened) = self.relays.open(link, &message) else { return };
                (from, message) = opened;
            }
            let client = &mut self.clients[to - n];
            let now = client.clock.local(self.now_us);
            client.core.handle(from, &message, now, &mut client.out);
            return self.pump_client(to - n);
        }
        if self.is_of_another_epoch(from, to, epoch, &message) {
            return;
        }
        let replica = &mut self.replicas[to];
        if replica.crashed {
            return;
        }
        if !replica.paused {
            return self.accept(from, to, message);
        }
        if replica.buffered.len() < PAUSE_BUFFER {
            replica.buffered.push_back((from, message));
        } else {
            self.network.stall(from, to);
            self.network.take_back(&delivery);
        }
    }

    pub(crate) fn client_link(&self, client: usize) -> ClientLink {
        match self.clients.get(client) {
            Some(client) => client.link,
            None => self.rogues[client - self.clients.len()].link,
        }
    }

    /// A replica's network stage takes a message.
    pub(crate) fn accept(&mut self, from: usize, to: usize, message: Bytes) {
        let n = self.replicas.len();
        self.remember(to, || What::Got(from, message.clone()));
        let input = if from < n {
            let id = ReplicaId(from as u16);
            let mut message = Some(message);
            self.hosts(to, |host, scene| {
                message = message.take().and_then(|m| host.incoming(scene, id, m));
            });
            let Some(message) = message else { return };
            if kind_of(&message) == kind::RELAY {
                return self.relay(to, id, &message);
            }
            if !self.replicas[to].admits(id, &message) {
                self.counters.throttled += 1;
                return;
            }
            let routed = route_peer_message(id, message.clone(), &self.config);
            if routed.is_none() {
                self.replicas[to].dealt_with(id, &message);
            }
            routed
        } else {
            if self.clients.get(from - n).is_some_and(|client| client.is_copied) {
                // Copies have one identity, so their links take turns.
                self.egress_up(to, from);
                // Nothing waits for the link that gave way, so its client may be read again.
                self.schedule_run(to, self.now_us);
            }
            if !self.is_unread(from, to, &message) {
                self.admit(from, to, message);
            }
            return;
        };
        self.take_in(to, input);
    }

    /// A replica's network stage reads a message of a client.
    pub(crate) fn admit(&mut self, from: usize, to: usize, message: Bytes) {
        let link = self.client_link(from - self.replicas.len());
        let mut message = Some(message);
        self.hosts(to, |host, scene| {
            message = message.take().and_then(|m| host.request(scene, link, m));
        });
        let Some(message) = message else { return };
        if kind_of(&message) == kind::QUERIES {
            self.queried(to);
        }
        self.take_in(to, route_client_message(link, message));
    }

    pub(crate) fn take_in(&mut self, to: usize, input: Option<Input>) {
        if let Some(input) = input {
            self.replicas[to].post(Stage::Network, input);
            self.schedule_run(to, self.now_us);
        }
    }

    pub(crate) fn schedule_run(&mut self, replica: usize, at_us: u64) {
        let r = &mut self.replicas[replica];
        if !(r.run_scheduled || r.crashed || r.paused) {
            r.run_scheduled = true;
            let at_us = at_us.max(self.busy_until_us[replica]);
            self.schedule(at_us, Event::Run(replica));
        }
    }

    fn run_replica(&mut self, index: usize) {
        self.replicas[index].run_scheduled = false;
        if self.replicas[index].crashed || self.replicas[index].paused {
            return;
        }
        let now = self.replicas[index].time(self.now_us);
        let clock = self.replicas[index].wall_clock(self.now_us);
        self.replicas[index].core.set_wall_clock(clock);
        self.tell_room(index);
        self.read_on(index);
        for stage in self.replicas[index].stages() {
            let due = |r: &Replica| r.stage_deadline(stage).is_some_and(|at| at <= now);
            if due(&self.replicas[index]) {
                self.replicas[index].tick_stage(stage, now);
                self.counters.hot_timers += u64::from(due(&self.replicas[index]));
                self.drain(index, stage);
            }
        }
        let mut handled = 0;
        for _ in 0..self.replicas[index].turn() {
            let ran = self.replicas[index].core.execution.status().requests;
            if self.is_held_up_by_service() && self.replicas[index].executes_next() {
                self.with_egress(index, |egress, now, _| egress.hurry(now));
                self.flush_egress(index);
            }
            let mut forwarded = None;
            let stage = self.replicas[index].step(self.now_us, now, |input| {
                if let Input::Pillar(pillar, ToPillar::ForwardWindow { to, .. }) = input {
                    forwarded = Some((*pillar, *to));
                }
            });
            let Some(stage) = stage else { break };
            if let Some((pillar, to)) = forwarded {
                self.forwarded(index, pillar, to);
            }
            self.counters.inputs += 1;
            handled += 1;
            let held_up_us = self.take_time(index, ran);
            self.drain(index, stage);
            if held_up_us > 0 && self.violation.is_none() {
                // Replies leave in the next turn, when that time has passed.
                self.busy_until_us[index] = self.now_us + held_up_us;
                return self.schedule_run(index, self.now_us);
            }
            // A turn ends when nothing is left to do, or after a while.
            if self.random.chance(100_000) {
                self.flush_egress(index);
            }
            if self.violation.is_some() {
                return;
            }
        }
        self.flush_egress(index);
        if let Some(story) = self.replicas[index].overflow(&self.config) {
            self.violate(("bounded memory", story, vec![index as u16]));
        }
        let pace = self.random.between(1, 3) * self.replicas[index].slow;
        self.busy_until_us[index] = self.now_us + (handled * pace).max(1);
        let is_held = self.replicas[index].only_executes(self.busy_until_us[index]);
        if self.replicas[index].has_work() && !is_held {
            self.schedule_run(index, self.busy_until_us[index]);
        }
        self.schedule_wake(index);
    }

    fn forwarded(&mut self, index: usize, pillar: PillarId, to: OrderNumber) {
        match &mut self.replicas[index].disk {
            Some(disk) => disk.did(Deed::Forwarded(pillar, to)),
            None => self.oracles.forwarded(ReplicaId(index as u16), pillar, to),
        }
    }

    /// Whether one thread waits for a slow service.
    fn is_held_up_by_service(&self) -> bool {
        self.scenario.service_us > 0 && self.scenario.layout == Layout::Fused
    }

    /// The service takes time for what it has executed since it had executed `ran` requests: that of
    /// the execution stage, if it has a thread of its own; else that of all, which is returned.
    fn take_time(&mut self, index: usize, ran: u64) -> u64 {
        let replica = &mut self.replicas[index];
        let us = self.scenario.service_us * (replica.core.execution.status().requests - ran);
        if us > 0 && self.scenario.layout == Layout::Split {
            replica.executes_until_us = replica.executes_until_us.max(self.now_us) + us;
        } else if us > 0 {
            replica.hold_up(self.now_us, us);
            return us;
        }
        0
    }

    fn schedule_wake(&mut self, index: usize) {
        let replica = &self.replicas[index];
        let executes_us = (replica.has_work() && replica.only_executes(self.now_us))
            .then_some(replica.executes_until_us);
        let Some(at_us) = replica.deadline_us().into_iter().chain(executes_us).min() else {
            return;
        };
        let at_us = at_us.max(self.busy_until_us[index]);
        if self.replicas[index].wake_us.is_none_or(|wake| at_us < wake) {
            self.replicas[index].wake_us = Some(at_us);
            self.schedule(at_us, Event::Wake(index));
        }
    }

    /// Sends what a client has to send and enters what it got.
    pub(crate) fn pump_client(&mut self, index: usize) {
        let from = self.replicas.len() + index;
        let client = &mut self.clients[index];
        let messages: Vec<(usize, Bytes)> = client
            .core
            .outgoing(&mut client.out)
            .map(|(to, m)| (usize::from(to.0), Bytes::copy_from_slice(m)))
            .collect();
        client.out.clear_messages();
        let finished = client.finished(self.now_us, &mut self.stamp);
        let deadline = client.core.deadline().map(|time| client.clock.global(time));
        if let Some(at_us) = deadline {
            let at_us = at_us.max(self.now_us + 1);
            if client.wake_us.is_none_or(|wake| at_us < wake) {
                client.wake_us = Some(at_us);
                self.schedule(at_us, Event::ClientWake(index));
            }
        }
        for (to, message) in messages {
            self.transmit(from, to, message);
        }
        match finished {
            Ok(turns) => {
                self.counters.answered = self.clients.iter().map(|c| c.history.len() as u64).sum();
                for session in turns {
                    let at_us = self.now_us + self.clients[index].think_us();
                    self.schedule(at_us, Event::Turn(index, session));
                }
            }
            Err(story) => self.violate(("clients' answers", story, vec![])),
        }
    }

    pub(crate) fn calm_us(&self) -> u64 {
        4 * (self.config.request_timeout_us + self.config.view_timeout_us)
    }

    pub(crate) fn violate(&mut self, (property, story, replicas): Breach) {
        let (at_us, step) = (self.now_us, self.step);
        self.violation.get_or_insert(Violation { property, story, replicas, at_us, step });
    }

    /// Keeps an event of a replica for reports.
    pub(crate) fn remember(&mut self, replica: usize, what: impl FnOnce() -> What) {
        let what = what();
        if self.options.trace {
            let line = self.line(replica, self.now_us, self.step, &what);
            self.trace.push(line);
        }
        let recent = &mut self.recent[replica];
        if recent.len() >= self.options.last_events {
            recent.pop_front();
        }
        recent.push_back((self.now_us, self.step, what));
    }

    fn end_name(&self, end: usize) -> String {
        let n = self.replicas.len();
        if end < n { format!("r{end}") } else { format!("c{}", end - n) }
    }

    pub(crate) fn line(&self, replica: usize, at_us: u64, step: u64, what: &What) -> String {
        let what = match what {
            What::Did(event) => display::event(event),
            What::Sent(to, message) => {
                format!("sent {to} {}, {} bytes", display::describe(message), message.len())
            }
            What::Got(from, message) => {
                format!("got from {} {}", self.end_name(*from), display::describe(message))
            }
            What::Dropped(rejection) => display::rejection(rejection),
            What::Suffered(fault) => format!("*** {fault}"),
            What::Told(notice) => format!("tells its operator: {notice}"),
        };
        format!("{at_us:>9} us step {step:>7} r{replica}: {what}")
    }

    /// Mixes something that happened into the hash of the run.
    pub(crate) fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn mix_message(&mut self, from: usize, to: usize, message: &[u8]) {
        self.mix(self.now_us);
        self.mix((from as u64) << 32 | (to as u64) << 8 | u64::from(kind_of(message)));
        for chunk in message.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(bytes));
        }
    }
}
