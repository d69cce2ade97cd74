//! A replica: the real stages, the inputs between them, its clock and its host.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use hybster_proto::admission::{self, Admission, Class, Totals};
use hybster_proto::backlog::Backlog;
use hybster_proto::bounds;
use hybster_proto::config::GroupConfig;
use hybster_proto::egress::{Egress, EgressLimits};
use hybster_proto::epochs::Epochs;
use hybster_proto::execution::Beginning;
use hybster_proto::hybster::{Hybster, Recovered};
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId};
use hybster_proto::output::{Ended, Input, Output, ToExecution};
use hybster_proto::protocol::{ControlStage, PillarStage, Rules};
use hybster_proto::replica::{Stages, Start};
use hybster_proto::service::MAX_PAGE_BYTES;
use hybster_proto::time::{StageClock, Time, WallClock, earliest};
use hybster_tss::{Counter, CounterValue, InProcessTrInX, Life, TrInX};

use crate::behaviour::{Archive, Departure, Host, Scene, Workshop};
use crate::clock::{Clock, DayClock};
use crate::disk::Disk;
use crate::keys::Keys;
use crate::ordering::{self, Any};
use crate::pausing::Unread;
use crate::random::Random;
use crate::restart::Restarted;
use crate::room::ClientQueues;
use crate::scenario::{Layout, Scenario};
use crate::store::Store;
use crate::watched::{Ledger, Record, Recorded, Watched};
use crate::workload::{Simulated, Workload};

/// The longest page of the bookkeeping, in bytes.
const LONGEST_PAGE: usize = 64 << 10;

/// Equal states that wait for the execution stage at a time: one, and one that replaces a state that was
/// found to differ meanwhile. One that execution got to by itself may wait as well, to be ignored.
const EQUAL_STATES: usize = 2;

fn state_of(input: &Input) -> Option<OrderNumber> {
    match input {
        Input::Execution(ToExecution::Install { id, .. }) => Some(id.order),
        _ => None,
    }
}

/// The TrInX instances of a replica, with counters that start where they should.
fn trinx_of(
    id: ReplicaId,
    config: &GroupConfig,
    keys: &Keys,
    ledger: &Ledger,
    counters: impl Fn(PillarId) -> [CounterValue; Counter::ALL.len()],
) -> Vec<Watched> {
    let digest = config.digest();
    let watched = config.all_pillars().map(|pillar| {
        let instance = config.instance(id, pillar);
        let counters = counters(pillar);
        ledger.begins(instance, counters);
        let inner = InProcessTrInX::restored(&keys.group, config.mac, digest, instance, counters);
        Watched::new(inner, ledger.clone())
    });
    watched.collect()
}

/// The service of a replica, in its initial state.
fn service_of(id: ReplicaId, scenario: &Scenario, workload: Option<&Workload>) -> Simulated {
    if let Some(workload) = workload {
        return workload.service();
    }
    let mut store = Store::default();
    (store.versioned, store.page_bytes) = (scenario.versioned_pages, scenario.page_bytes);
    store.padding = scenario.answer_padding;
    store.salt = scenario.salt(id);
    Simulated(Box::new(store))
}

fn output_of(scenario: &Scenario) -> Output {
    Output { tracing: true, logging: scenario.disk.is_some(), ..Output::default() }
}

pub(crate) type Core = Stages<Any, Recorded<Simulated>>;

/// Who sends inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Network,
    Clients,
    Execution,
    State,
    Control,
    Pillar(PillarId),
}

impl Stage {
    fn index(self) -> usize {
        match self {
            Self::Network => 0,
            Self::Clients => 1,
            Self::Execution => 2,
            Self::State => 3,
            Self::Control => 4,
            Self::Pillar(p) => 5 + usize::from(p.0),
        }
    }

    fn receiver(input: &Input) -> Self {
        match input {
            Input::Intake(_) => Self::Clients,
            Input::Pillar(p, _) => Self::Pillar(*p),
            Input::Execution(_) => Self::Execution,
            Input::State(_) => Self::State,
            Input::Control(_) => Self::Control,
        }
    }
}

pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    /// The constants of the epoch that it is in.
    pub(crate) config: Arc<GroupConfig>,
    /// The epochs that are over.
    pub(crate) epochs: Epochs,
    /// Its epoch is over.
    pub(crate) ended: Option<Ended>,
    /// The life of a new replica that waits for the epoch that names it.
    pub(crate) joins_as: Option<Life>,
    /// It asks its peers for the next configuration.
    pub(crate) is_asking: bool,
    pub(crate) core: Core,
    workload: Option<Workload>,
    pub(crate) out: Output,
    /// Taken out while it is at work.
    pub(crate) egress: Option<Egress<usize>>,
    pub(crate) admission: Admission,
    pub(crate) unread: Unread,
    /// Taken out while it is at work, as egress is.
    pub(crate) backlog: Option<Backlog>,
    pub(crate) client_queues: ClientQueues,
    /// What its stages have dealt with of each peer's messages.
    dealt: Vec<Totals>,
    rules: &'static Rules,
    /// The longest page of its service, in bytes.
    longest_page: usize,
    /// PREPAREs that must not be late because of queries, as the oracle counts them.
    pub(crate) prompt: u32,
    /// Hashes of the messages that its stages called new.
    pub(crate) sent_as_new: BTreeSet<u64>,
    pub(crate) record: Record,
    pub(crate) clock: Clock,
    stage_clock: StageClock,
    pub(crate) day: DayClock,
    pub(crate) crashed: bool,
    /// It will be started again.
    pub(crate) is_down: bool,
    pub(crate) disk: Option<Disk>,
    pub(crate) paused: bool,
    /// Messages that a paused replica's system still takes.
    pub(crate) buffered: VecDeque<(usize, Bytes)>,
    pub(crate) slow: u64,
    /// Until when the execution stage is busy with the service, if it has a thread of its own.
    pub(crate) executes_until_us: u64,
    pub(crate) run_scheduled: bool,
    /// When a wake-up is scheduled.
    pub(crate) wake_us: Option<u64>,
    pub(crate) hosts: Vec<Box<dyn Host>>,
    trinx: Vec<Watched>,
    /// Of a faulty host that was replaced: the trusted subsystems of its earlier life.
    earlier: Vec<Watched>,
    pub(crate) random: Random,
    layout: Layout,
    stages: usize,
    /// Fused: all inputs. Split: one queue per pair of stages.
    line: VecDeque<(Stage, Input)>,
    queues: Vec<VecDeque<Input>>,
    /// Queues that are not empty.
    active: Vec<usize>,
    waiting: usize,
    /// Those of them for the request intake.
    for_clients: usize,
    /// Those of them that are transferred states.
    states: Vec<OrderNumber>,
    pub(crate) peak_waiting: usize,
    /// A stage that is kept waiting, and for how many more inputs.
    starved: (usize, u64),
    state_busy: bool,
    state_budget: u64,
}

impl Replica {
    pub(crate) fn new(
        id: ReplicaId,
        (scenario, workload): (&Scenario, Option<&Workload>),
        config: &Arc<GroupConfig>,
        keys: &Keys,
        ledger: &Ledger,
        mut random: Random,
    ) -> Self {
        let counters = |_| [CounterValue::ZERO; Counter::ALL.len()];
        let trinx = trinx_of(id, config, keys, ledger, counters);
        let record = Record::default();
        let agreement = ordering::agreement(config, id, trinx.clone(), keys);
        let service = Recorded::new(service_of(id, scenario, workload), record.clone());
        let core = Stages::new(config.clone(), id, agreement, service, keys.randomness(config));
        let stages = 5 + usize::from(config.pillars);
        let workshop = Workshop { id, config, keys, trinx: &trinx };
        let hosts = scenario.hosts.iter().filter(|(r, _)| *r == id);
        let hosts = hosts.map(|(_, behaviour)| behaviour.build(&workshop)).collect();
        Self {
            id,
            config: Arc::clone(config),
            epochs: Epochs::new(config.replicas, config.resend_us),
            ended: None,
            joins_as: None,
            is_asking: false,
            core,
            workload: workload.cloned(),
            out: output_of(scenario),
            egress: Some(Egress::new(config.clone(), id, scenario.egress)),
            admission: Admission::new(config),
            unread: Unread::default(),
            backlog: Some(Backlog::new(config)),
            client_queues: ClientQueues::default(),
            dealt: vec![Totals::default(); usize::from(config.replicas)],
            rules: config.rules(),
            longest_page: match workload {
                None => LONGEST_PAGE.max(scenario.page_bytes),
                Some(_) => MAX_PAGE_BYTES,
            },
            prompt: 0,
            sent_as_new: BTreeSet::new(),
            record,
            clock: Clock::new(&mut random, scenario.drift_ppm),
            stage_clock: StageClock::new(config.resend_us),
            day: scenario.day_clock(id),
            crashed: false,
            is_down: false,
            disk: scenario.disk.map(|plan| Disk::new(scenario, &plan, &mut random)),
            paused: false,
            buffered: VecDeque::new(),
            slow: 1,
            executes_until_us: 0,
            run_scheduled: false,
            wake_us: None,
            hosts,
            trinx,
            earlier: Vec::new(),
            layout: scenario.layout,
            stages,
            line: VecDeque::new(),
            queues: (0..stages * stages).map(|_| VecDeque::new()).collect(),
            active: Vec::new(),
            waiting: 0,
            for_clients: 0,
            states: Vec::new(),
            peak_waiting: 0,
            starved: (0, 0),
            state_busy: false,
            state_budget: random.between(1, 4),
            random,
        }
    }

    /// Makes it what its disk says, in memory that knows nothing else. Its stages have to resume.
    pub(crate) fn recover(
        &mut self,
        (records, is_whole): (Vec<Bytes>, bool),
        scenario: &Scenario,
        config: &Arc<GroupConfig>,
        keys: &Keys,
        ledger: &Ledger,
        now: Time,
    ) -> Result<Restarted, String> {
        let disk = self.disk.as_mut().expect("it has a disk");
        disk.forget();
        let checkpoint = disk.checkpoint();
        let durable = checkpoint.as_ref().map_or(OrderNumber(0), |(id, _)| id.order);
        let recovered = Recovered::read(config.clone(), self.id, durable, is_whole, records);
        let mut recovered = recovered.map_err(|error| error.to_string())?;
        let (stable, current) = (recovered.stable_view(), recovered.current_view());
        let beginning = Beginning {
            checkpoint,
            replay: recovered.take_replay(),
            stable: recovered.stable_checkpoint(),
        };
        self.trinx = trinx_of(self.id, config, keys, ledger, |p| recovered.counters(p));
        let verifier = || keys.verifier(config);
        let trinx = self.trinx.clone();
        let agreement =
            ordering::hybster(Hybster::recover(config, self.id, trinx, verifier, &mut recovered));
        self.record = Record::default();
        let service = service_of(self.id, scenario, self.workload.as_ref());
        let start = Start {
            config: config.clone(),
            id: self.id,
            agreement,
            service: Recorded::new(service, self.record.clone()),
            randomness: keys.randomness(config),
        };
        self.out = output_of(scenario);
        let stages = Stages::recover(start, beginning, now, &mut self.out);
        self.core = stages.map_err(|error| error.to_string())?;
        self.forget(scenario, config);
        let restarted = Restarted {
            executed: durable,
            stable: self.core.control.status().stable_checkpoint,
            bases: self.core.pillars.iter().map(|pillar| pillar.window_base()).collect(),
            counters: self.trinx.iter().map(|it| it.current(Counter::Ordering)).collect(),
            view: current,
            in_view: stable == current,
        };
        Ok(restarted)
    }

    /// Begins an epoch: with the state that it has, the same trusted subsystems and none of the memory of the last one, or,
    /// in a new life, with nothing. Its stages have to resume.
    pub(crate) fn begin(
        &mut self,
        next: Arc<GroupConfig>,
        scenario: &Scenario,
        keys: &Keys,
        ledger: &Ledger,
        now: Time,
    ) -> Result<Restarted, String> {
        let digest = next.digest();
        let checkpoint = match self.joins_as.take() {
            Some(_) => {
                let counters = |_| [CounterValue::ZERO; Counter::ALL.len()];
                let new = trinx_of(self.id, &next, keys, ledger, counters);
                self.earlier = std::mem::replace(&mut self.trinx, new);
                for trinx in &mut self.earlier {
                    trinx.advance_epoch(next.epoch, &digest).map_err(|it| it.to_string())?;
                }
                None
            }
            None => {
                for trinx in &mut self.trinx {
                    trinx.advance_epoch(next.epoch, &digest).map_err(|it| it.to_string())?;
                }
                self.core.state.last_held()
            }
        };
        let order = checkpoint.as_ref().map_or(OrderNumber(0), |(id, _)| id.order);
        let recovered = Recovered::beginning(next.clone(), self.id, order);
        let mut recovered = recovered.map_err(|error| error.to_string())?;
        let stable = recovered.stable_checkpoint();
        let beginning = Beginning { checkpoint, replay: Vec::new(), stable };
        let verifier = || keys.verifier(&next);
        let trinx = self.trinx.clone();
        let agreement =
            ordering::hybster(Hybster::recover(&next, self.id, trinx, verifier, &mut recovered));
        self.record = Record::default();
        let service = service_of(self.id, scenario, self.workload.as_ref());
        let start = Start {
            config: next.clone(),
            id: self.id,
            agreement,
            service: Recorded::new(service, self.record.clone()),
            randomness: keys.randomness(&next),
        };
        self.out = output_of(scenario);
        let stages = Stages::recover(start, beginning, now, &mut self.out);
        self.core = stages.map_err(|error| error.to_string())?;
        self.forget(scenario, &next);
        (self.config, self.ended) = (next, None);
        Ok(Restarted {
            executed: order,
            stable,
            bases: self.core.pillars.iter().map(|pillar| pillar.window_base()).collect(),
            counters: self.trinx.iter().map(|it| it.current(Counter::Ordering)).collect(),
            view: hybster_proto::ids::View(0),
            in_view: true,
        })
    }

    /// Everything in memory but the stages is as at the first start.
    fn forget(&mut self, scenario: &Scenario, config: &Arc<GroupConfig>) {
        self.egress = Some(Egress::new(config.clone(), self.id, scenario.egress));
        self.admission = Admission::new(config);
        self.unread = Unread::default();
        self.backlog = Some(Backlog::new(config));
        self.client_queues = ClientQueues::default();
        self.dealt.fill(Totals::default());
        self.prompt = 0;
        self.sent_as_new.clear();
        self.stage_clock = StageClock::new(config.resend_us);
        (self.crashed, self.paused, self.run_scheduled) = (false, false, false);
        self.buffered.clear();
        self.executes_until_us = 0;
        self.wake_us = None;
        self.line.clear();
        self.queues.iter_mut().for_each(VecDeque::clear);
        self.active.clear();
        self.states.clear();
        (self.waiting, self.for_clients, self.starved) = (0, 0, (0, 0));
        self.state_busy = false;
    }

    pub(crate) fn honest(&self) -> bool {
        self.hosts.is_empty()
    }

    /// What its stages take for the time.
    pub(crate) fn time(&self, now_us: u64) -> Time {
        self.stage_clock.time(self.clock.local(now_us))
    }

    pub(crate) fn wall_clock(&self, now_us: u64) -> WallClock {
        let late_us = self.stage_clock.late_us(self.clock.local(now_us));
        self.day.wall(now_us, self.time(now_us)).with_delay(late_us)
    }

    /// The service holds up the thread that all stages share.
    pub(crate) fn hold_up(&mut self, now_us: u64, us: u64) {
        let (began, ended) = (self.clock.local(now_us), self.clock.local(now_us + us));
        self.stage_clock.turn_took(began, ended.since_us(began));
    }

    /// Whether it executes a batch next, where all stages share a thread.
    pub(crate) fn executes_next(&self) -> bool {
        let next = self.line.front().map(|(_, input)| input);
        matches!(next, Some(Input::Execution(ToExecution::Committed { .. })))
    }

    /// The hooks of its hosts with the scene around them.
    pub(crate) fn hosts(
        &mut self,
        now: Time,
        clock: WallClock,
        group: &GroupConfig,
        archive: &Archive,
        own: &mut Vec<Departure>,
        mut hook: impl FnMut(&mut dyn Host, &mut Scene<'_>),
    ) {
        let mut hosts = std::mem::take(&mut self.hosts);
        for host in &mut hosts {
            let mut scene = Scene {
                now,
                clock,
                replica: self.id,
                group,
                random: &mut self.random,
                trinx: &mut self.trinx,
                earlier: &mut self.earlier,
                archive,
                own,
            };
            hook(&mut **host, &mut scene);
        }
        self.hosts = hosts;
    }

    /// Queues an input.
    pub(crate) fn post(&mut self, from: Stage, input: Input) {
        self.waiting += 1;
        self.for_clients += usize::from(Stage::receiver(&input) == Stage::Clients);
        self.states.extend(state_of(&input));
        self.peak_waiting = self.peak_waiting.max(self.waiting);
        if self.layout == Layout::Fused {
            return self.line.push_back((from, input));
        }
        let queue = from.index() * self.stages + Stage::receiver(&input).index();
        if self.queues[queue].is_empty() {
            self.active.push(queue);
        }
        self.queues[queue].push_back(input);
    }

    pub(crate) fn has_work(&self) -> bool {
        self.waiting > 0 || self.state_busy || self.core.intake.has_work()
    }

    /// Whether all inputs wait for the execution stage, which is busy.
    pub(crate) fn only_executes(&self, now_us: u64) -> bool {
        let is_held = |queue: &usize| self.is_executing(*queue, now_us);
        let is_idle = !self.state_busy && !self.core.intake.has_work();
        is_idle && self.line.is_empty() && self.active.iter().all(is_held)
    }

    fn is_executing(&self, queue: usize, now_us: u64) -> bool {
        now_us < self.executes_until_us && queue % self.stages == Stage::Execution.index()
    }

    /// Inputs that one run of the replica handles.
    pub(crate) fn turn(&mut self) -> u64 {
        match self.layout {
            Layout::Fused => 256,
            Layout::Split => self.random.between(1, 8),
        }
    }

    fn next_input(&mut self, now_us: u64) -> Option<Input> {
        if let Some((_, input)) = self.line.pop_front() {
            return Some(input);
        }
        if self.active.iter().all(|queue| self.is_executing(*queue, now_us)) {
            return None;
        }
        if self.starved.1 == 0 && self.random.chance(2_000) {
            self.starved = (self.random.index(self.stages), self.random.between(10, 300));
        }
        let mut at = self.random.index(self.active.len());
        if self.starved.1 > 0 {
            self.starved.1 -= 1;
            for _ in 0..3 {
                if self.active[at] % self.stages != self.starved.0 {
                    break;
                }
                at = self.random.index(self.active.len());
            }
        }
        while self.is_executing(self.active[at], now_us) {
            at = (at + 1) % self.active.len();
        }
        let queue = self.active[at];
        let input = self.queues[queue].pop_front();
        if self.queues[queue].is_empty() {
            self.active.swap_remove(at);
        }
        input
    }

    /// One input or a piece of background work; who did it. What it did is in `out`.
    pub(crate) fn step(
        &mut self,
        now_us: u64,
        now: Time,
        before: impl FnOnce(&Input),
    ) -> Option<Stage> {
        let background = self.state_busy && (self.waiting == 0 || self.random.chance(200_000));
        if background {
            let budget = self.random.between(1, self.state_budget);
            self.state_busy = self.core.state.work(now, budget as _, &mut self.out);
            return Some(Stage::State);
        }
        if self.for_clients == 0 && self.core.intake.has_work() {
            self.core.intake.flush(now, &mut self.out);
            return Some(Stage::Clients);
        }
        let input = self.next_input(now_us)?;
        self.waiting -= 1;
        if let Some(order) = state_of(&input) {
            let at = self.states.iter().position(|waiting| *waiting == order);
            self.states.swap_remove(at.expect("it has waited"));
        }
        let stage = Stage::receiver(&input);
        self.state_busy |= stage == Stage::State;
        before(&input);
        if let Some((from, message)) = input.of_peer() {
            self.dealt[usize::from(from.0)][Class::of(message, self.rules).index()].add(message);
        }
        self.core.handle(input, now, &mut self.out);
        if stage == Stage::Clients {
            self.for_clients -= 1;
            // A stage flushes when it finds no more inputs, or has taken its fill of them.
            if self.for_clients == 0 || self.random.chance(100_000) {
                self.core.intake.flush(now, &mut self.out);
            }
        }
        Some(stage)
    }

    /// Whether a peer's message is taken in.
    pub(crate) fn admits(&mut self, from: ReplicaId, message: &[u8]) -> bool {
        let dealt = &self.dealt[usize::from(from.0)];
        self.admission.admit(from, message, || *dealt)
    }

    /// A message was taken in, and no stage gets it.
    pub(crate) fn dealt_with(&mut self, from: ReplicaId, message: &[u8]) {
        self.dealt[usize::from(from.0)][Class::of(message, self.rules).index()].add(message);
    }

    /// What is held for one peer beyond its stated bound.
    fn overflow_of(&self, peer: ReplicaId, group: &GroupConfig) -> Option<String> {
        let in_flight = self.admission.in_flight(peer, &self.dealt[usize::from(peer.0)]);
        let limits = admission::limits(group);
        for (class, (load, limit)) in in_flight.iter().zip(&limits).enumerate() {
            if load.messages > limit.messages {
                let (count, limit) = (load.messages, limit.messages);
                let id = self.id;
                return Some(format!(
                    "{id}: {count} messages of {peer}, class {class}, over {limit}"
                ));
            }
        }
        let (transient, answers) = self.egress.as_ref()?.lasting_bytes(peer);
        let limit = bounds::answers_to_one_peer(group, self.longest_page as u64) as usize;
        if answers > limit {
            let id = self.id;
            return Some(format!("{id}: {answers} bytes of answers to {peer}, over {limit}"));
        }
        let limit = EgressLimits::default().transient_bytes;
        (transient > limit)
            .then(|| format!("{}: {transient} bytes that stay for {peer}, over {limit}", self.id))
    }

    /// How often the same transferred state waits.
    fn equal_states(&self) -> usize {
        let times = |order: &OrderNumber| self.states.iter().filter(|it| *it == order).count();
        self.states.iter().map(times).max().unwrap_or(0)
    }

    /// All stages, in a fixed order.
    pub(crate) fn stages(&self) -> impl Iterator<Item = Stage> + use<> {
        let pillars = (self.stages - 5) as u16;
        let fixed = [Stage::Clients, Stage::Execution, Stage::State, Stage::Control];
        fixed.into_iter().chain((0..pillars).map(|p| Stage::Pillar(PillarId(p))))
    }

    pub(crate) fn stage_deadline(&self, stage: Stage) -> Option<Time> {
        match stage {
            Stage::Network => None,
            Stage::Clients => self.core.intake.deadline(),
            Stage::Execution => self.core.execution.deadline(),
            Stage::State => self.core.state.deadline(),
            Stage::Control => self.core.control.deadline(),
            Stage::Pillar(p) => self.core.pillars[usize::from(p.0)].deadline(),
        }
    }

    pub(crate) fn tick_stage(&mut self, stage: Stage, now: Time) {
        match stage {
            Stage::Network => {}
            Stage::Clients => {
                self.core.intake.tick(now, &mut self.out);
                self.core.intake.flush(now, &mut self.out);
            }
            Stage::Execution => self.core.execution.tick(now, &mut self.out),
            Stage::State => self.core.state.tick(now, &mut self.out),
            Stage::Control => self.core.control.tick(now, &mut self.out),
            Stage::Pillar(p) => self.core.pillars[usize::from(p.0)].tick(now, &mut self.out),
        }
    }

    /// A buffer of the core that holds more than the group's constants allow.
    pub(crate) fn overflow(&self, group: &GroupConfig) -> Option<String> {
        let intervals = (group.window / group.checkpoint_interval) as usize;
        let log = 2 * group.window as usize;
        let sessions = group.max_clients as usize * group.max_sessions_per_client as usize;
        [
            ("committed slots that wait for others", self.core.execution.queued(), log),
            ("snapshots", self.core.state.snapshots(), 2 * intervals + 4),
            ("equal states that wait", self.equal_states(), EQUAL_STATES),
            ("stored requests", self.core.intake.stored(), 1 << 16),
            // An input that is under way may say of one that it is not stored or watched any more.
            (
                "watched requests",
                self.core.execution.watched(),
                self.core.intake.stored() + self.waiting,
            ),
            ("bytes of requests", self.core.intake.pending_bytes(), 64 << 20),
            ("bytes of clients' messages", self.core.intake.waiting_bytes(), 256 << 20),
            ("sessions", self.core.execution.status().sessions as usize, sessions),
        ]
        .into_iter()
        .find(|(_, count, limit)| count > limit)
        .map(|(what, count, limit)| format!("{}: {count} {what}, over {limit}", self.id))
        .or_else(|| group.all_replicas().find_map(|peer| self.overflow_of(peer, group)))
    }

    /// When the first stage wants a tick, in simulated time.
    pub(crate) fn deadline_us(&self) -> Option<u64> {
        let egress = self.egress.as_ref().and_then(Egress::deadline);
        let stages = self.stages().map(|s| self.stage_deadline(s)).fold(None, earliest);
        let first = earliest(egress, stages.map(|time| self.stage_clock.host(time)));
        first.map(|time| self.clock.global(time))
    }
}
