//! A correct replica as a local automaton: the real stages, run to rest after every event.

mod restart;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hybster_proto::egress::{Egress, EgressLimits, LinkState, Links};
use hybster_proto::hybster::Hybster;
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId, View};
use hybster_proto::internals::fingerprint::Fingerprint;
use hybster_proto::internals::{
    Checkpoint, Commit, LastSeen, NewView, NewViewAck, Pillar, PrepareHeader, ViewChange, mutants,
};
use hybster_proto::output::{
    Destination, Input, Network, Output, Rejection, ToControl, ToExecution, ToPillar,
    route_peer_message,
};
use hybster_proto::replica::Stages;
use hybster_proto::service::{Context, Pages, RestoreError, Service, Snapshot};
use hybster_proto::time::Time;
use hybster_proto::trace::{Phase, Proposal, TraceEvent};
use hybster_proto::wire::help::{encode_batch, parse_batch_request};
use hybster_proto::wire::{kind, kind_of};
use hybster_tss::{Counter, CounterValue, Digest, InProcessTrInX, InProcessVerifier, TrInX};

use crate::group::Group;
use restart::output;

/// All events but time-outs happen at this time: nothing depends on it.
const NOW: Time = Time(0);
/// The time at which every timer has expired.
const LATE: Time = Time(1 << 50);

/// Something that happens to a correct replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stimulus {
    /// A message arrives.
    Message(ReplicaId, Bytes),
    /// The request intake of a leader hands out a request.
    Submit(PillarId, usize),
    /// The request intake of a leader wants a no-op through a slot.
    Fill(PillarId, u64),
    /// A request or a slot waits for too long in a stable view.
    Suspect,
    /// A NEW-VIEW does not come.
    Timeout,
    /// The replica stops and is started again with all that it logged.
    Restart,
    /// As [`Stimulus::Restart`], but of what this does it has logged only so many records.
    Cut(Box<Self>, usize),
    /// A peer tells the replica that came back that it has nothing of it (LAST-SEEN), as any host may.
    Told,
}

/// A request that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Where in the total order.
    pub order: OrderNumber,
    /// Its session and number.
    pub name: (SessionId, RequestNumber),
    /// Digest of its operation.
    pub operation: Digest,
}

/// What an observer saw a replica do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Digests of the batches that were committed, by order number.
    pub commits: BTreeMap<u64, Digest>,
    /// Requests that ran.
    pub ran: Vec<Ran>,
    /// The last order number that execution passed.
    pub executed: u64,
    /// A property that this replica broke by itself.
    pub breach: Option<String>,
}

/// Remarkable things.
pub mod facts {
    /// A request ran while the replica's stable view was 0.
    pub const RAN_IN_VIEW_0: u16 = 1;
    /// A request ran in a later view.
    pub const RAN_LATER: u16 = 2;
    /// A view was entered by a NEW-VIEW that the faulty host certified.
    pub const ENTERED_FAULTY_LEADER: u16 = 4;
    /// A view was entered by a NEW-VIEW with a VIEW-CHANGE of the faulty host.
    pub const ENTERED_WITH_FAULTY: u16 = 8;
    /// A NEW-VIEW demanded that something be issued again.
    pub const REISSUED: u16 = 16;
    /// A NEW-VIEW was acknowledged after its view had been left.
    pub const ACKNOWLEDGED: u16 = 32;
    /// A no-op was executed.
    pub const NOOP: u16 = 64;
    /// A checkpoint became stable.
    pub const CHECKPOINT: u16 = 128;
    /// A view was entered after more than one had been left.
    pub const CHAIN: u16 = 256;
    /// A NEW-VIEW with NEW-VIEW-ACKs was entered.
    pub const WITH_ACKS: u16 = 512;
    /// A request was ordered again and did not run again.
    pub const DUPLICATE: u16 = 1024;
    /// A request ran at a replica that had come back.
    pub const RAN_AGAIN: u16 = 2048;
    /// A replica came back with less than what it had done, as its log ended before.
    pub const CUT: u16 = 4096;
}

/// A replica's reaction to a stimulus.
#[derive(Default, Debug)]
pub struct Effects {
    /// Messages that it sent, requests for help left out.
    pub sent: Vec<Bytes>,
    /// Messages that it refused.
    pub rejections: Vec<Rejection>,
    /// Remarkable things that happened, see the constants of [`facts`].
    pub facts: u16,
    /// How many records it logged, if it may be started again.
    pub logged: usize,
    /// For each of `sent`, how many records the log has when it leaves.
    sent_at: Vec<usize>,
}

/// What left an egress.
#[derive(Default)]
struct Left(Vec<(ReplicaId, Bytes)>);

impl Links<()> for Left {
    fn unsent_bytes(&mut self, _: ReplicaId) -> usize {
        0
    }

    fn link_state(&mut self, _: ReplicaId) -> LinkState {
        LinkState::default()
    }

    fn send(&mut self, peer: ReplicaId, message: Bytes) -> bool {
        self.0.push((peer, message));
        true
    }

    fn send_to_client(&mut self, (): (), _: &[u8]) {}

    fn close_client(&mut self, (): ()) {}

    fn seal_for_client(&mut self, (): (), _: &[u8], _: &mut Vec<u8>) -> bool {
        false
    }

    fn relay_to_client(&mut self, (): (), _: &[u8], _: &[u8]) -> bool {
        false
    }
}

/// Whether a replica was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs since the beginning, and never stops.
    Only,
    /// It runs since the beginning, and may stop.
    First,
    /// It came back, and no peer has told it what it has seen of it.
    Returning,
    /// It came back and takes part.
    Second,
}

/// A correct replica.
pub struct Automaton {
    id: ReplicaId,
    group: Arc<Group>,
    stages: Stages<Hybster<InProcessTrInX, InProcessVerifier>, Recorder>,
    out: Output,
    record: Arc<Mutex<Vec<Ran>>>,
    /// Per pillar, what was handed to the execution stage: its state is a function of it.
    handed: Vec<Fingerprint>,
    /// Inputs to the state stage and those to the execution stage that are no batches.
    others: Fingerprint,
    seen: Seen,
    life: Life,
    /// What it logged, if it may be started again.
    log: Vec<Bytes>,
    /// What it committed in the present step, each with how many records the log has before.
    committed: Vec<(usize, u64, Digest)>,
}

impl Automaton {
    /// A replica in the initial state.
    #[must_use]
    pub fn new(group: Arc<Group>, id: ReplicaId) -> Self {
        let config = Arc::clone(&group.config);
        let record = Arc::new(Mutex::new(Vec::new()));
        let trinx = config.all_pillars().map(|p| group.trinx(id, p)).collect();
        let service = Recorder(Arc::clone(&record));
        let agreement = Hybster::agreement(&config, id, trinx, || group.verifier());
        let stages = Stages::new(config, id, agreement, service, Group::randomness());
        let may_restart = group.bounds.restarts == Some(id.0);
        Self {
            id,
            stages,
            out: output(may_restart),
            record,
            handed: vec![Fingerprint::default(); usize::from(group.config.pillars)],
            others: Fingerprint::default(),
            seen: Seen::default(),
            life: if may_restart { Life::First } else { Life::Only },
            log: Vec::new(),
            committed: Vec::new(),
            group,
        }
    }

    /// Whether it was started again.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// What an observer saw so far.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Last stable and current view.
    #[must_use]
    pub fn views(&self) -> (View, View) {
        let status = self.stages.control.status();
        (status.stable_view, status.current_view)
    }

    /// The next slot of each pillar.
    #[must_use]
    pub fn next_slots(&self) -> Vec<u64> {
        let next = |p: &Pillar<_, _>| self.group.config.slot_of(p.progress().0);
        self.stages.pillars.iter().map(next).collect()
    }

    /// The values of all counters.
    #[must_use]
    pub fn counters(&self) -> Vec<CounterValue> {
        let all =
            |p: &Pillar<InProcessTrInX, _>| Counter::ALL.map(|counter| p.trinx().current(counter));
        self.stages.pillars.iter().flat_map(all).collect()
    }

    /// Lets something happen, and everything that follows from it inside the replica.
    pub fn step(&mut self, stimulus: Stimulus) -> Effects {
        let mut effects = Effects::default();
        if self.seen.breach.is_some() {
            return effects;
        }
        let group = Arc::clone(&self.group);
        mutants_of(&group);
        let stimulus = match stimulus {
            Stimulus::Restart => {
                self.restart(self.seen.clone(), &mut effects);
                return effects;
            }
            Stimulus::Cut(cause, kept) => return self.cut(*cause, kept),
            stimulus => stimulus,
        };
        self.committed.clear();
        let (before, logged) = (self.counters(), self.log.len());
        let mut line = VecDeque::new();
        match stimulus {
            Stimulus::Message(from, message) => {
                line.extend(route_peer_message(from, message, &group.config));
            }
            Stimulus::Submit(pillar, request) => {
                let (view, buffer) = (self.views().0, group.buffer(request));
                line.push_back(Input::Pillar(
                    pillar,
                    ToPillar::Batch { view, buffer, requests: 1 },
                ));
            }
            Stimulus::Fill(pillar, through) => {
                let view = self.views().0;
                line.push_back(Input::Pillar(pillar, ToPillar::FillGap { view, through }));
            }
            Stimulus::Suspect => {
                let view = self.views().0;
                line.push_back(Input::Control(ToControl::Suspect { view }));
            }
            Stimulus::Timeout => {
                self.stages.control.tick(LATE, &mut self.out);
                self.settle(&mut line, &mut effects);
                // Until the inputs are handled, these are messages that were sent before.
                effects.sent.clear();
                effects.sent_at.clear();
            }
            Stimulus::Told => {
                let peers =
                    (0..group.config.replicas).map(ReplicaId).filter(|peer| *peer != self.id);
                for (peer, pillar) in
                    peers.flat_map(|p| group.config.all_pillars().map(move |it| (p, it)))
                {
                    let message = LastSeen::Nothing.encode(pillar);
                    line.extend(route_peer_message(peer, message, &group.config));
                }
                self.life = Life::Second;
            }
            Stimulus::Restart | Stimulus::Cut(..) => unreachable!("done above"),
        }
        self.run(line, &mut effects);
        effects.logged = self.log.len() - logged;
        if self.counters().iter().zip(&before).any(|(now, before)| now < before) {
            self.seen.breach = Some(format!("a counter of {} went back", self.id));
        }
        effects
    }

    /// Handles inputs until there are none.
    fn run(&mut self, mut line: VecDeque<Input>, effects: &mut Effects) {
        while let Some(input) = line.pop_front() {
            self.handle(input);
            self.settle(&mut line, effects);
            if let Some(fatal) = self.out.fatal.take() {
                self.seen.breach = Some(format!("{} stops: {fatal}", self.id));
                return;
            }
        }
    }

    fn handle(&mut self, input: Input) {
        match &input {
            // What clients do is modelled by stimuli.
            Input::Intake(_) => return,
            Input::Execution(input @ ToExecution::Committed { .. }) => self.note_handed(input),
            // Only replies contain the view.
            Input::Execution(ToExecution::View(_)) => {}
            Input::Execution(_) | Input::State(_) => {
                self.others.bytes(format!("{input:?}").as_bytes());
            }
            Input::Pillar(..) | Input::Control(_) => {}
        }
        let digests = matches!(input, Input::State(_));
        self.stages.handle(input, NOW, &mut self.out);
        if digests {
            while self.stages.state.work(NOW, usize::MAX, &mut self.out) {}
        }
    }

    fn note_handed(&mut self, input: &ToExecution) {
        if let ToExecution::Committed { pillar, first_slot, last_slot, batch } = input {
            let handed = &mut self.handed[usize::from(pillar.0)];
            handed.number(*first_slot);
            handed.number(*last_slot);
            handed.number(batch.time_ms);
            handed.bytes(batch.records());
        }
    }

    /// Sorts the outputs of a stage.
    fn settle(&mut self, line: &mut VecDeque<Input>, effects: &mut Effects) {
        // Records come first, as with every driver: what leaves waits for them.
        let records = self.out.records.drain(..);
        if self.life == Life::First {
            self.log.extend(records.map(|record| Bytes::from(record.parts().concat())));
        } else {
            records.for_each(drop);
        }
        for event in std::mem::take(&mut self.out.trace) {
            effects.facts |= self.observe(&event);
        }
        self.out.replies.clear();
        effects.rejections.append(&mut self.out.rejections);
        let mut batches = Vec::new();
        for network in std::mem::take(&mut self.out.network) {
            let Network::Send { to, message, .. } = &network else {
                continue;
            };
            let is_to_all = matches!(to, Destination::AllPeers | Destination::Thrifty(_));
            match kind_of(message) {
                kind::BATCH_REQUEST => batches.push(message.clone()),
                // What goes to one peer only was sent to all before, by this replica or by the one
                // that certified it: messages stay in the network, so it adds nothing. A replica that
                // came back may have logged what it had not sent.
                _ if !is_to_all && !self.is_repeated(message) => {}
                kind::CHECKPOINT if !self.group.bounds.checkpoints => {}
                kind::VIEW_CHANGE
                | kind::NEW_VIEW
                | kind::NEW_VIEW_ACK
                | kind::PREPARE
                | kind::COMMIT
                | kind::CHECKPOINT => {
                    let message = message.clone();
                    if is_to_all {
                        self.check_egress(network, &message);
                    }
                    effects.sent.push(message);
                    effects.sent_at.push(self.log.len());
                }
                // Requests for help.
                _ => {}
            }
        }
        line.extend(self.out.inputs.drain(..));
        for request in batches {
            self.answer(&request, line, effects);
        }
    }

    /// Whether this replica came back and made the message: it may have logged what it had not sent.
    /// Not so NEW-VIEWs: which VIEW-CHANGEs it has put into one does not matter to a state.
    fn is_repeated(&self, message: &Bytes) -> bool {
        let config = &self.group.config;
        let sender = match kind_of(message) {
            kind::VIEW_CHANGE => ViewChange::parse(message, config).map(|change| change.sender),
            kind::NEW_VIEW_ACK => NewViewAck::parse(message, config).map(|ack| ack.sender),
            kind::PREPARE => PrepareHeader::parse(message).map(|it| config.leader(it.view)),
            kind::COMMIT => Commit::parse(message).map(|commit| commit.sender),
            kind::CHECKPOINT => Checkpoint::parse(message, config).map(|it| it.sender),
            _ => return false,
        };
        matches!(self.life, Life::Returning | Life::Second) && sender == Ok(self.id)
    }

    /// Notes a breach if the egress does not bring a message to each peer, sooner or later, once.
    /// When it leaves is up to the network here, which may keep messages as long as it likes.
    fn check_egress(&mut self, effect: Network, message: &Bytes) {
        let config = &self.group.config;
        let mut egress = Egress::new(Arc::clone(config), self.id, EgressLimits::default());
        let peers: Vec<_> = config.all_replicas().filter(|peer| *peer != self.id).collect();
        peers.iter().for_each(|peer| egress.peer_up(*peer));
        let mut left = Left::default();
        egress.apply(effect, NOW, &mut left);
        egress.flush(LATE, &mut left);
        let expected: Vec<_> = peers.iter().map(|peer| (*peer, message.clone())).collect();
        if left.0 != expected {
            let kind = kind_of(message);
            self.seen.breach = Some(format!("a message of kind {kind} does not reach all peers"));
        }
    }

    /// Any replica that is asked for the batch of a request has it.
    fn answer(&self, request: &Bytes, line: &mut VecDeque<Input>, effects: &mut Effects) {
        let pillar = hybster_proto::wire::pillar_field(request).expect("made by this replica");
        for digest in parse_batch_request(request).expect("made by this replica") {
            let Some(known) = self.group.request_of(&digest) else {
                continue;
            };
            let message = encode_batch(pillar, &self.group.requests[known].record);
            if self.group.bounds.slow_batches {
                effects.sent.push(message);
                effects.sent_at.push(0);
            } else {
                line.extend(route_peer_message(self.id, message, &self.group.config));
            }
        }
    }

    /// Records an event; returns what is remarkable about it.
    fn observe(&mut self, event: &TraceEvent) -> u16 {
        let stable = self.stages.control.status().stable_view;
        match *event {
            TraceEvent::Certified { phase: Phase::Commit, proposal, view, .. } => {
                let Proposal { first, last, batch, .. } = proposal;
                let step = usize::from(self.group.config.pillars);
                for order in (first.0..=last.0).step_by(step) {
                    self.committed.push((self.log.len(), order, batch));
                    let known = *self.seen.commits.entry(order).or_insert(batch);
                    if known != batch {
                        let story = format!("{} commits two batches at o{order}, {view}", self.id);
                        self.seen.breach.get_or_insert(story);
                    }
                }
            }
            TraceEvent::Executed { order, requests, ran, .. } => {
                if order.0 != self.seen.executed + 1 {
                    let story = format!("{} executes {order} out of order", self.id);
                    self.seen.breach.get_or_insert(story);
                }
                self.seen.executed = order.0;
                let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
                self.seen.ran.append(&mut record);
                return match (requests, ran) {
                    (0, _) => facts::NOOP,
                    (_, 0) => facts::DUPLICATE,
                    _ if self.life == Life::Second => facts::RAN_AGAIN,
                    _ if stable == View(0) => facts::RAN_IN_VIEW_0,
                    _ => facts::RAN_LATER,
                };
            }
            TraceEvent::Endorsed { .. } => return facts::ACKNOWLEDGED,
            TraceEvent::CheckpointStable { .. } => return facts::CHECKPOINT,
            TraceEvent::StateInstalled(_) | TraceEvent::Diverged(_) => {
                let story = format!("{}: {event:?}", self.id);
                self.seen.breach.get_or_insert(story);
            }
            _ => {}
        }
        0
    }

    /// What is remarkable about a NEW-VIEW that brought the replica into its view.
    #[must_use]
    pub fn facts_of(&self, new_view: &NewView) -> u16 {
        let faulty = self.group.bounds.faulty.map(ReplicaId);
        let changes = &new_view.view_changes;
        let all = [
            (facts::ENTERED_FAULTY_LEADER, faulty == Some(self.group.config.leader(new_view.view))),
            (facts::ENTERED_WITH_FAULTY, changes.iter().any(|c| Some(c.sender) == faulty)),
            (facts::REISSUED, new_view.prepares.iter().any(|p| !p.is_empty())),
            (facts::WITH_ACKS, !new_view.acks.is_empty()),
            (facts::CHAIN, changes.iter().any(|c| c.parts.iter().any(|part| part.chain.len() > 1))),
        ];
        all.into_iter().filter(|(_, holds)| *holds).fold(0, |facts, (fact, _)| facts | fact)
    }

    /// A digest of everything that decides about what the replica does from here on, and of what
    /// was seen of it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut print = Fingerprint::default();
        if let Some(breach) = &self.seen.breach {
            print.bytes(breach.as_bytes());
            return *blake3::hash(&print.0).as_bytes();
        }
        let names = self.stages.control.fingerprint(&mut print);
        for pillar in &self.stages.pillars {
            pillar.fingerprint(&names, &mut print);
        }
        for handed in &self.handed {
            print.bytes(&handed.0);
        }
        print.bytes(&self.others.0);
        // What it will come back with.
        print.number(self.life as u64);
        print.number(self.log.len() as u64);
        self.log.iter().for_each(|record| print.bytes(record));
        print.number(self.seen.commits.len() as u64);
        for (order, batch) in &self.seen.commits {
            print.number(*order);
            print.bytes(&batch.0);
        }
        *blake3::hash(&print.0).as_bytes()
    }
}

/// Breaks the rule that the bounds name on the present thread.
pub(crate) fn mutants_of(group: &Group) {
    #[cfg(feature = "mutants")]
    mutants::choose(group.bounds.mutant);
    #[cfg(not(feature = "mutants"))]
    assert!(group.bounds.mutant.is_none_or(mutants::active), "mutants are not compiled in");
}

/// A service that only records its operations.
struct Recorder(Arc<Mutex<Vec<Ran>>>);

impl Service for Recorder {
    fn execute(&mut self, context: &Context, operation: &[u8], _: &mut Vec<u8>) {
        let ran = Ran {
            order: context.order,
            name: (context.session, context.number),
            operation: Digest::of(operation),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ran);
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        Arc::new(Pages::default())
    }

    fn restore(&mut self, _: &dyn Snapshot) -> Result<(), RestoreError> {
        Ok(())
    }
}
