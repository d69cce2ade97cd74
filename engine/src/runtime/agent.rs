//! An agent: a thread that owns stages and perhaps the network, and the loop that it runs.

mod disk;
mod sleep;
mod slow_service;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hybster_log::Appender;
use hybster_net::Transport;
use hybster_proto::notice::Level;
use hybster_proto::output::{Fatal, Input, Output, Rejection, ReplyQueue};
use hybster_proto::time::{StageClock, Time, earliest};

use super::channel::{Inbox, Message, Outbox};
use super::clock::Clock;
use super::doorbell::{Doorbell, WakeTarget};
use super::network::RateLimit;
use super::stage::Address;
use super::timing::Recorder;
use super::tracing::Tracer;
use super::{Failure, Network, Shared, Stage};
use crate::durable::Durable;
use slow_service::{SlowService, takes_service_time};

/// Longest time between two flushes of an agent, in microseconds, even if inputs are left.
const SLICE_US: u64 = 1000;
/// Bounds of a slice of background work, in microseconds.
const MIN_WORK_US: u64 = 100;
const MAX_WORK_US: u64 = 1000;
/// How old the idea of the time of day may be, in microseconds, while an agent is awake.
const WALL_CLOCK_US: u64 = 1000;
/// How many inputs are handled between two readings of the clock.
const CLOCK_INPUTS: u64 = 64;
/// An agent with more inputs than this in its ring counts as congested.
const RING_INPUTS: usize = 8192;
/// Most emptied reply queues that are kept for reuse.
pub(crate) const SPARE_QUEUES: usize = 8;
/// Most log lines about dropped messages, per second.
const LOG_LINES_PER_SECOND: u32 = 10;

/// The agent that owns the network.
const NETWORK_AGENT: usize = 0;

/// A thread with its stages.
pub(crate) struct Agent<T: Transport> {
    index: usize,
    shared: Arc<Shared>,
    stages: Vec<Owned>,
    network: Option<Network<T>>,
    /// By [`Address::index`].
    routes: Vec<Route>,
    /// Inputs between stages of this agent.
    ring: VecDeque<(usize, Input)>,
    /// By agent; `None` for itself.
    inboxes: Vec<Option<Inbox>>,
    outboxes: Vec<Option<Outbox>>,
    output: Output,
    arrived: Vec<Input>,
    spare: Vec<ReplyQueue>,
    is_congested: bool,
    clock: StageClock,
    /// When the turn began, as the stages see it.
    now: Time,
    /// The same as the host and the network see it.
    host: Time,
    /// Whether the end of the turn was noted.
    has_ended: bool,
    slow_service: SlowService,
    stages_are: Summary,
    inputs: u64,
    /// When the time of day is to be read again.
    wall_clock_due: Time,
    log: RateLimit,
    /// For what an operator should know; apart, so that a flood of bad messages does not hide it.
    notices: RateLimit,
    tracer: Option<Tracer>,
    /// Records when sampled requests pass, if somebody wants to know.
    recorder: Option<Box<Recorder>>,
    /// Appends to the log, if there is one.
    appender: Option<Appender>,
    /// Whether it has appended in this turn.
    has_appended: bool,
    /// The last durable checkpoint that the stages were told of.
    saved: u64,
    /// Whether the disk has no room for what clients ask for, as the intake knows it.
    lacks_room: bool,
    /// When to look whether the next checkpoint can be written.
    saver_due: Time,
    /// When to look whether the beginning of the log can be removed.
    truncation_due: Time,
    /// What recovered stages do first.
    first: Vec<Output>,
}

/// What holds for some stage of an agent. A turn goes through all stages only if one of them has
/// something to do: most turns concern a few, and while messages are waited for, turns are many.
#[derive(Clone, Copy, Debug, Default)]
struct Summary {
    /// The earliest of their deadlines.
    deadline: Option<Time>,
    touched: bool,
    unflushed: bool,
    working: bool,
    congested: bool,
}

/// A stage with its agent's notes about it. What is set here is set in [`Summary`] as well.
struct Owned {
    stage: Box<dyn Stage>,
    deadline: Option<Time>,
    /// Whether it did something in this turn.
    touched: bool,
    /// Whether it may have held outputs back since the last flush.
    unflushed: bool,
    /// Whether it has background work.
    working: bool,
    /// Whether clients must wait because of it.
    congested: bool,
}

/// Where the stage for an address is.
#[derive(Clone, Copy, Debug)]
enum Route {
    /// The stage of this agent with that index.
    Here(usize),
    /// Another agent.
    Agent(usize),
    /// There is no such stage.
    Nowhere,
}

impl<T: Transport> Agent<T> {
    /// The agent with this index in the plan. The first one gets the network. Inboxes and outboxes
    /// are indexed by agent.
    pub(crate) fn new(
        index: usize,
        shared: Arc<Shared>,
        stages: Vec<Box<dyn Stage>>,
        network: Option<Network<T>>,
        inboxes: Vec<Option<Inbox>>,
        outboxes: Vec<Option<Outbox>>,
    ) -> Self {
        let output = Output {
            tracing: shared.trace.is_some(),
            logging: shared.durable.is_some(),
            ..Output::default()
        };
        let durable = shared.durable.as_deref();
        let owned = |stage: Box<dyn Stage>| Owned {
            deadline: stage.deadline(),
            stage,
            touched: true,
            unflushed: false,
            working: false,
            congested: false,
        };
        let stages: Vec<Owned> = stages.into_iter().map(owned).collect();
        Self {
            index,
            routes: routes(&shared, index),
            clock: StageClock::new(shared.config.resend_us),
            tracer: shared.trace.as_ref().map(|target| target.tracer(index)),
            recorder: shared.recorder(),
            appender: durable.map(|durable| durable.log.appender(index as u16)),
            has_appended: false,
            saved: durable.map_or(0, Durable::saved),
            lacks_room: false,
            saver_due: Time(0),
            truncation_due: Time(0),
            first: Vec::new(),
            shared,
            stages_are: Summary {
                deadline: stages.iter().fold(None, |d, owned| earliest(d, owned.deadline)),
                touched: true,
                ..Summary::default()
            },
            stages,
            network,
            ring: VecDeque::new(),
            inboxes,
            outboxes,
            output,
            arrived: Vec::new(),
            spare: Vec::new(),
            is_congested: false,
            now: Time(0),
            host: Time(0),
            has_ended: true,
            slow_service: SlowService::new(),
            inputs: 0,
            wall_clock_due: Time(0),
            log: RateLimit::new(LOG_LINES_PER_SECOND),
            notices: RateLimit::new(LOG_LINES_PER_SECOND),
        }
    }

    /// What recovered stages, of all agents, do first. Only the agent with the network takes it.
    pub(crate) fn begins_with(mut self, first: Vec<Output>) -> Self {
        self.first = first;
        self
    }

    /// Runs until the replica stops. Call it on the agent's own thread.
    pub(crate) fn run(mut self) {
        self.doorbell().install(match &self.network {
            Some(network) => WakeTarget::Hub(network.waker()),
            None => WakeTarget::Thread(std::thread::current()),
        });
        for output in std::mem::take(&mut self.first) {
            let own = std::mem::replace(&mut self.output, output);
            self.dispatch();
            self.note_end_of_epoch();
            self.output = own;
        }
        while !self.shared.is_stopping() {
            let host = self.shared.clock.now();
            self.end_turn(host);
            let now = self.clock.time(host);
            (self.now, self.host, self.has_ended) = (now, host, false);
            self.read_wall_clock();
            self.take_messages();
            self.look_at_disk();
            self.serve_held(now);
            self.tick(now);
            self.handle_inputs(now);
            self.work(now);
            self.flush();
            self.wait();
        }
        // Sends the last replies, as far as the system takes them at once.
        if let Some(network) = &mut self.network {
            let _ = network.poll(Some(Duration::ZERO), Instant::now(), &mut self.arrived);
        }
    }

    /// A turn that took long held its stages up, and does not count for their waits.
    fn end_turn(&mut self, host: Time) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let took_us = host.since_us(self.host);
        if self.clock.turn_took(self.host, took_us) {
            self.slow_service.suspect(self.now);
            self.wall_clock_due = Time(0);
            if let Some(network) = &mut self.network {
                network.held_up(Duration::from_micros(took_us));
            }
        }
    }

    /// What the stages take for the time.
    fn time(&self) -> Time {
        self.clock.time(self.shared.clock.now())
    }

    fn doorbell(&self) -> &Doorbell {
        &self.shared.doorbells[self.index]
    }

    // ------------------------------------------------------------------ one turn

    /// Tells the stages the time of day, not more often than it is needed.
    fn read_wall_clock(&mut self) {
        if self.host >= self.wall_clock_due {
            self.wall_clock_due = self.host.after_us(WALL_CLOCK_US);
            let clock = Clock::wall(self.now).with_delay(self.clock.late_us(self.host));
            self.stages.iter_mut().for_each(|owned| owned.stage.set_wall_clock(clock));
        }
    }

    /// Takes the messages of other agents.
    fn take_messages(&mut self) {
        for from in 0..self.inboxes.len() {
            let Some(mut inbox) = self.inboxes[from].take() else {
                continue;
            };
            let sender_waits = inbox.take(|message| self.message(from, message));
            if sender_waits {
                self.shared.doorbells[from].wake();
            }
            self.inboxes[from] = Some(inbox);
        }
    }

    fn message(&mut self, from: usize, message: Message) {
        match message {
            Message::Input(input) => self.post(input),
            Message::Network(effect) => {
                if let Some(network) = &mut self.network {
                    network.apply(effect, self.host);
                }
            }
            Message::Pause(client, paused) => {
                if let Some(network) = &mut self.network {
                    network.pause(client, paused);
                }
            }
            Message::Replies(mut replies) => {
                if let Some(network) = &mut self.network {
                    network.reply(&mut replies, self.host);
                }
                if let Some(outbox) = &mut self.outboxes[from] {
                    outbox.stage(Message::Spent(replies));
                }
            }
            Message::Spent(replies) => {
                if self.spare.len() < SPARE_QUEUES {
                    self.spare.push(replies);
                }
            }
        }
    }

    fn tick(&mut self, now: Time) {
        if self.stages_are.deadline.is_none_or(|at| at > now) {
            return;
        }
        for index in 0..self.stages.len() {
            let owned = &mut self.stages[index];
            if owned.deadline.is_some_and(|at| at <= now) {
                owned.stage.tick(now, &mut self.output);
                owned.touch(&mut self.stages_are);
                self.dispatch();
            }
        }
    }

    /// Handles inputs until none is left or the time slice is over.
    fn handle_inputs(&mut self, now: Time) {
        let slice_ends = now.after_us(SLICE_US);
        let is_watched = self.slow_service.is_watched(now);
        let is_timed = self.recorder.is_some();
        let mut is_over = false;
        loop {
            while let Some((index, input)) = self.ring.pop_front() {
                if is_watched && takes_service_time(&input) {
                    match self.slow_service.must_wait(now) {
                        true => self.slow_service.hold(index, input),
                        false => self.serve(index, input, now),
                    }
                    continue;
                }
                if is_timed && let Some(recorder) = &mut self.recorder {
                    recorder.before(&input);
                }
                let owned = &mut self.stages[index];
                if let Some((from, message)) = input.of_peer() {
                    self.shared.counters.agents[self.index].dealt(from, message);
                }
                owned.stage.handle(input, now, &mut self.output);
                owned.touch(&mut self.stages_are);
                self.dispatch();
                self.inputs += 1;
                if self.inputs.is_multiple_of(CLOCK_INPUTS) {
                    is_over = self.time() >= slice_ends;
                    if is_over {
                        break;
                    }
                }
            }
            self.flush_stages(now);
            if self.ring.is_empty() || is_over {
                break;
            }
        }
    }

    /// Handles an input of a service that may take long.
    #[cold]
    fn serve(&mut self, index: usize, input: Input, now: Time) {
        let begins = self.shared.clock.now();
        if let Some(recorder) = &mut self.recorder {
            recorder.before(&input);
        }
        let owned = &mut self.stages[index];
        owned.stage.handle(input, now, &mut self.output);
        owned.touch(&mut self.stages_are);
        self.dispatch();
        self.inputs += 1;
        let ended = self.shared.clock.now();
        let took_us = ended.since_us(begins);
        self.slow_service.called(took_us, self.clock.is_long(took_us), now, ended);
    }

    /// Handles an input that was held back for a slow service.
    fn serve_held(&mut self, now: Time) {
        if !self.slow_service.is_waiting() || self.awaits_log() {
            return;
        }
        let (is_idle, is_connecting) = (self.ring.is_empty(), self.is_connecting());
        if let Some((index, input)) = self.slow_service.next(is_idle, is_connecting, self.host) {
            self.serve(index, input, now);
        }
    }

    fn is_connecting(&self) -> bool {
        self.network.as_ref().is_some_and(Network::is_connecting)
    }

    /// Whether a slow service waits for somebody who connects.
    fn gives_time(&self) -> bool {
        self.slow_service.may_give_time(self.host) && self.is_connecting()
    }

    /// Lets stages close their batches, since no input is waiting or the time slice is over.
    fn flush_stages(&mut self, now: Time) {
        if !std::mem::take(&mut self.stages_are.unflushed) {
            return;
        }
        for index in 0..self.stages.len() {
            let owned = &mut self.stages[index];
            if std::mem::take(&mut owned.unflushed) {
                owned.stage.flush(now, &mut self.output);
                self.dispatch();
            }
        }
    }

    /// Lets stages do background work, for as long as the rest of the turn took. The digests of a
    /// checkpoint must not fall behind the execution, or the window fills up and everything waits
    /// for them; nor may they delay messages for long.
    fn work(&mut self, now: Time) {
        if !self.stages_are.touched && !self.stages_are.working {
            return;
        }
        self.stages_are.working = false;
        let mut slice_ends = None;
        for index in 0..self.stages.len() {
            if !self.stages[index].working && !self.stages[index].touched {
                continue;
            }
            loop {
                let owned = &mut self.stages[index];
                let was_working =
                    std::mem::replace(&mut owned.working, owned.stage.work(now, &mut self.output));
                owned.touched |= was_working | owned.working;
                self.stages_are.touched |= owned.touched;
                let is_done = !owned.working;
                self.dispatch();
                if is_done {
                    break;
                }
                let at = self.time();
                let share = || at.since_us(now).clamp(MIN_WORK_US, MAX_WORK_US);
                if at >= *slice_ends.get_or_insert_with(|| at.after_us(share())) {
                    break;
                }
            }
            self.stages_are.working |= self.stages[index].working;
        }
    }

    // ------------------------------------------------------------------ effects

    /// Carries out the effects of a stage; replies are collected until the flush.
    #[inline]
    fn dispatch(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.after(&self.output);
        }
        if self.output.logging {
            self.keep();
        }
        if !self.output.inputs.is_empty() {
            let mut inputs = std::mem::take(&mut self.output.inputs);
            inputs.drain(..).for_each(|input| self.post(input));
            self.output.inputs = inputs;
        }
        if !self.output.network.is_empty() {
            self.send();
        }
        if !self.output.pauses.is_empty() {
            self.pause();
        }
        if !self.output.rejections.is_empty() {
            self.reject();
        }
        if !self.output.trace.is_empty() {
            self.trace();
        }
        if !self.output.notices.is_empty() {
            self.log_notices();
        }
        if let Some(fatal) = self.output.fatal.take() {
            self.shared.fail(Failure::Fatal(fatal));
        }
    }

    /// Hands an input to the stage or the agent that it is for.
    #[inline]
    fn post(&mut self, input: Input) {
        let route = self.routes.get(Address::of(&input).index());
        match route.copied().unwrap_or(Route::Nowhere) {
            Route::Here(index) => self.ring.push_back((index, input)),
            Route::Agent(agent) => self.outbox(agent).stage(Message::Input(input)),
            Route::Nowhere => self.lost(&input),
        }
    }

    /// No stage answers for an input: the layout lacks one. Nothing from outside leads here, see
    /// [`super::stage`].
    #[cold]
    fn lost(&self, input: &Input) {
        let fatal = Fatal::Invariant(format!("this replica has no stage for {}", input.in_short()));
        self.shared.fail(Failure::Fatal(fatal));
    }

    fn outbox(&mut self, agent: usize) -> &mut Outbox {
        self.outboxes[agent].as_mut().expect("there is a queue to every other agent")
    }

    fn send(&mut self) {
        let effects = self.output.network.drain(..);
        match &mut self.network {
            Some(network) => effects.for_each(|effect| network.apply(effect, self.host)),
            None => {
                let outbox = self.outboxes[NETWORK_AGENT].as_mut();
                let outbox = outbox.expect("there is a queue to every other agent");
                effects.for_each(|effect| outbox.stage(Message::Network(effect)));
            }
        }
    }

    #[cold]
    fn pause(&mut self) {
        let pauses = self.output.pauses.drain(..);
        match &mut self.network {
            Some(network) => pauses.for_each(|(client, paused)| network.pause(client, paused)),
            None => {
                let outbox = self.outboxes[NETWORK_AGENT].as_mut();
                let outbox = outbox.expect("there is a queue to every other agent");
                pauses.for_each(|(client, paused)| outbox.stage(Message::Pause(client, paused)));
            }
        }
    }

    #[cold]
    fn reject(&mut self) {
        let replica = self.shared.replica.0;
        for rejection in self.output.rejections.drain(..) {
            self.shared.counters.reject(&rejection);
            if log::log_enabled!(log::Level::Debug) && self.log.permits(Instant::now()) {
                let Rejection { from, kind, reason, .. } = rejection;
                log::debug!(
                    "replica {replica} dropped a message of kind {kind} from {from:?}: {reason:?}"
                );
            }
        }
    }

    fn trace(&mut self) {
        let now = self.shared.clock.now();
        if let Some(tracer) = &mut self.tracer {
            self.output.trace.drain(..).for_each(|event| tracer.record(now, &event));
        }
    }

    #[cold]
    fn log_notices(&mut self) {
        let replica = self.shared.replica.0;
        for notice in self.output.notices.drain(..) {
            let level = match notice.level() {
                Level::Info => log::Level::Info,
                Level::Warn => log::Level::Warn,
                Level::Error => log::Level::Error,
            };
            if log::log_enabled!(level) && self.notices.permits(Instant::now()) {
                log::log!(level, "replica {replica} {notice}");
            }
        }
    }

    // ------------------------------------------------------------------ the end of a turn

    /// Sends everything: replies as one message per link, messages as one run per agent.
    fn flush(&mut self) {
        if self.output.ended.is_some() || self.output.pending.is_some() {
            self.note_end_of_epoch();
        }
        if let Some(appender) = self.appender.as_ref().filter(|_| self.has_appended) {
            appender.wake_writer();
            self.has_appended = false;
        }
        self.flush_replies();
        if let Some(recorder) = &mut self.recorder {
            recorder.end_turn();
        }
        if let Some(tracer) = &mut self.tracer {
            tracer.end_turn();
        }
        let mut staged = 0;
        for to in 0..self.outboxes.len() {
            let Some(outbox) = &mut self.outboxes[to] else {
                continue;
            };
            if outbox.flush() {
                self.shared.doorbells[to].wake();
            }
            staged += outbox.staged();
        }
        let mut congested = staged > 0 || self.ring.len() > RING_INPUTS;
        if let (NETWORK_AGENT, Some(durable)) = (self.index, &self.shared.durable) {
            congested |= durable.is_congested();
        }
        if std::mem::take(&mut self.stages_are.touched) {
            self.look_at_touched();
        }
        congested |= self.stages_are.congested;
        if congested != self.is_congested {
            self.is_congested = congested;
            self.shared.set_congested(congested);
        }
        let counters = &self.shared.counters.agents[self.index];
        counters.inputs.set(self.inputs);
        counters.turns.add(1);
        counters.queued.set(staged as u64);
        counters.congested.add(u64::from(congested));
    }

    /// Hands over what stages have found out about the end of the epoch. Whoever waits for that stops the replica.
    #[cold]
    fn note_end_of_epoch(&mut self) {
        let (ended, change) = (self.output.ended.take(), self.output.pending.take());
        if let Some(epochs) =
            self.shared.epochs.as_ref().filter(|_| ended.is_some() || change.is_some())
        {
            epochs.note(ended, change);
        }
    }

    /// Sees what the stages that did something want now, and publishes their counters.
    fn look_at_touched(&mut self) {
        let (mut deadline, mut congested) = (None, false);
        for owned in &mut self.stages {
            if std::mem::take(&mut owned.touched) {
                owned.deadline = owned.stage.deadline();
                owned.congested = owned.stage.is_congested();
                owned.stage.publish(&self.shared.counters);
            }
            deadline = earliest(deadline, owned.deadline);
            congested |= owned.congested;
        }
        (self.stages_are.deadline, self.stages_are.congested) = (deadline, congested);
    }

    fn flush_replies(&mut self) {
        match &mut self.network {
            Some(network) => {
                network.reply(&mut self.output.replies, self.host);
                if self.slow_service.is_waiting() {
                    network.hurry(self.host);
                }
                network.flush(self.host);
            }
            None if !self.output.replies.is_empty() => {
                let empty = self.spare.pop().unwrap_or_default();
                let replies = std::mem::replace(&mut self.output.replies, empty);
                self.outbox(NETWORK_AGENT).stage(Message::Replies(replies));
            }
            None => {}
        }
    }
}

impl Owned {
    #[inline]
    fn touch(&mut self, all: &mut Summary) {
        self.touched = true;
        self.unflushed = true;
        all.touched = true;
        all.unflushed = true;
    }
}

/// The table of routes for one agent.
fn routes(shared: &Shared, agent: usize) -> Vec<Route> {
    let pillars = shared.counters.pillars.len() as u16;
    let mut routes = vec![Route::Nowhere; Address::count(pillars)];
    for (owner, plan) in shared.plans.iter().enumerate() {
        for (index, role) in plan.roles.iter().enumerate() {
            let route = if owner == agent { Route::Here(index) } else { Route::Agent(owner) };
            Address::each_of(*role, |address| routes[address.index()] = route);
        }
    }
    routes
}

#[cfg(test)]
mod tests;
