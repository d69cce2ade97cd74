//! The model: states, actions and properties for stateright.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hybster_proto::ids::{ReplicaId, View};
use stateright::{Model, Property};

use crate::faulty::{Craft, Host};
use crate::group::{Bounds, Group, MAX_REPLICAS};
use crate::replica::{Life, Ran, Seen, Stimulus, facts};
use crate::schedule::{Schedule, Step};
use crate::world::{Body, Cause, Event, MessageId, World};

/// A global state: a number for what each replica has become, and the messages that exist.
///
/// Messages never vanish and may arrive any number of times in any order, so loss, duplication and
/// reordering need no actions of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Local states; that of the faulty host is a number of its own kind. Replicas that the model
    /// does not have stay at 0.
    pub replicas: [u32; MAX_REPLICAS],
    /// Messages, rising.
    pub messages: Arc<[MessageId]>,
}

/// A step of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Something happens at a correct replica.
    At(u16, Event),
    /// The faulty host certifies something.
    Craft(Craft),
}

/// The core in some bounds, as a model.
pub struct CoreModel {
    group: Arc<Group>,
    reached: Mutex<(World, Host)>,
}

impl CoreModel {
    /// The model of some bounds.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let group = Arc::new(Group::new(bounds));
        let host = Host::new(&group);
        Self { reached: Mutex::new((World::new(Arc::clone(&group)), host)), group }
    }

    fn reached(&self) -> MutexGuard<'_, (World, Host)> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bounds.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.group.bounds
    }

    /// What was explored besides global states, as text.
    #[must_use]
    pub fn effort(&self) -> String {
        let reached = self.reached();
        let (world, host) = &*reached;
        format!(
            "local states {:?}, faulty host {}, messages {}, core events {} + {} replayed",
            world.local_states(),
            host.states(),
            world.messages(),
            world.work.0,
            world.work.1,
        )
    }

    /// The events of a path, in a form that needs no model.
    #[must_use]
    pub fn schedule(&self, actions: &[Action]) -> Schedule {
        let reached = self.reached();
        let steps = actions
            .iter()
            .map(|action| match action {
                Action::At(replica, event) => {
                    Step::At(ReplicaId(*replica), reached.0.stimulus(*event))
                }
                Action::Craft(craft) => {
                    Step::Certified(reached.0.message(craft.message).bytes.clone())
                }
            })
            .collect();
        Schedule { bounds: self.group.bounds.clone(), steps }
    }

    /// An event with its message.
    #[must_use]
    pub fn stimulus(&self, event: Event) -> Stimulus {
        self.reached().0.stimulus(event)
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// What an event does to a correct replica in a state: the digest of the replica after it,
    /// and the messages that it sends.
    #[must_use]
    pub fn local_step(&self, state: &State, replica: u16, event: Event) -> ([u8; 32], Vec<Bytes>) {
        let mut reached = self.reached();
        let done = reached.0.step(replica, state.replicas[usize::from(replica)], event);
        let sent = done.sent.iter().map(|m| reached.0.message(*m).bytes.clone()).collect();
        (reached.0.local(replica, done.state).digest, sent)
    }

    fn seen(&self, state: &State) -> Vec<Arc<Seen>> {
        let reached = self.reached();
        let of = |r: u16| Arc::clone(&reached.0.local(r, state.replicas[usize::from(r)]).seen);
        self.group.correct().map(of).collect()
    }

    /// Whether something remarkable has happened in some state that was reached.
    fn has(&self, fact: u16) -> bool {
        self.reached().0.facts & fact != 0
    }

    /// Whether a message may arrive at a correct replica, as far as the bounds go.
    fn may_arrive(&self, world: &World, replica: u16, stable: View, id: MessageId) -> bool {
        let message = world.message(id);
        let ordering = matches!(message.body, Body::Prepare | Body::Commit);
        message.from != ReplicaId(replica)
            && !(ordering
                && (message.view < stable || message.view > stable && !self.group.bounds.early))
    }

    /// Whether no replica will read a message again, because its view is behind all correct ones.
    fn is_dead(&self, world: &World, replicas: &[u32], id: MessageId) -> bool {
        let message = world.message(id);
        let stable = |r: u16| world.local(r, replicas[usize::from(r)]).views.0;
        match message.body {
            Body::Commit => self.group.correct().all(|r| stable(r) > message.view),
            Body::Change(_) => self.group.correct().all(|r| stable(r) >= message.view),
            _ => false,
        }
    }

    /// Enumerates what may happen at a correct replica, besides the arrival of messages.
    fn local_causes(&self, world: &World, replica: u16, state: &State, causes: &mut Vec<Cause>) {
        let bounds = &self.group.bounds;
        let local = world.local(replica, state.replicas[usize::from(replica)]);
        let (stable, current) = local.views;
        if current.0 < bounds.views {
            causes.push(if stable == current { Cause::Suspect } else { Cause::Timeout });
        }
        if stable != current || self.group.config.leader(stable) != ReplicaId(replica) {
            return;
        }
        // What is handed to a leader that returns waits until it was told.
        if local.life == Life::Returning {
            return;
        }
        let used = state.messages.iter().fold(0u8, |used, m| used | world.message(*m).requests);
        let fresh = 1 + used.count_ones() as u8;
        for pillar in 0..bounds.pillars {
            let next = local.next_slots[usize::from(pillar)];
            if next >= bounds.slots {
                continue;
            }
            // All requests that have not been used yet are alike.
            for request in 0..bounds.requests.min(fresh) {
                causes.push(Cause::Submit(pillar, request));
            }
            let through = if bounds.noops { bounds.slots } else { next };
            for through in next..through {
                causes.push(Cause::Fill(pillar, through as u8));
            }
        }
    }
}

impl Model for CoreModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { replicas: [0; MAX_REPLICAS], messages: Arc::new([]) }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut reached = self.reached();
        let (world, host) = &mut *reached;
        for replica in self.group.correct() {
            let at = state.replicas[usize::from(replica)];
            let stable = world.local(replica, at).views.0;
            let arriving = state.messages.iter().copied();
            let arriving = arriving.filter(|m| self.may_arrive(world, replica, stable, *m));
            let mut causes: Vec<Cause> = arriving.map(Cause::Deliver).collect();
            self.local_causes(world, replica, state, &mut causes);
            let life = world.local(replica, at).life;
            for cause in causes {
                let event = Event::Is(cause);
                actions.push(Action::At(replica, event));
                if life == Life::First {
                    let logged = world.step(replica, at, event).logged;
                    let cuts = (0..logged).map(|kept| Event::Cut(cause, kept));
                    actions.extend(cuts.map(|event| Action::At(replica, event)));
                }
            }
            match life {
                Life::First => actions.push(Action::At(replica, Event::Is(Cause::Restart))),
                Life::Returning => actions.push(Action::At(replica, Event::Is(Cause::Told))),
                Life::Only | Life::Second => {}
            }
        }
        if let Some(faulty) = self.group.bounds.faulty {
            let at = state.replicas[usize::from(faulty)];
            let crafts = host.crafts(world, ReplicaId(faulty), at, &state.messages);
            actions.extend(crafts.iter().map(|craft| Action::Craft(*craft)));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut reached = self.reached();
        let (replica, state, sent) = match action {
            Action::At(replica, event) => {
                let at = last.replicas[usize::from(replica)];
                let done = reached.0.step(replica, at, event);
                (replica, done.state, done.sent)
            }
            Action::Craft(craft) => {
                let sent: Arc<[MessageId]> = Arc::new([craft.message]);
                (self.group.bounds.faulty?, craft.state, sent)
            }
        };
        let new: Vec<MessageId> =
            sent.iter().filter(|m| last.messages.binary_search(m).is_err()).copied().collect();
        let slot = usize::from(replica);
        if new.is_empty() && last.replicas[slot] == state {
            return None;
        }
        let mut next = last.clone();
        next.replicas[slot] = state;
        let mut messages = last.messages.to_vec();
        messages.extend(new);
        messages.retain(|m| !self.is_dead(&reached.0, &next.replicas, *m));
        messages.sort_unstable();
        next.messages = messages.into();
        (next != *last).then_some(next)
    }

    fn format_action(&self, action: &Action) -> String {
        self.schedule(&[*action]).to_string()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let bounds = &self.group.bounds;
        let mut all = vec![
            Property::always(AGREEMENT, |m: &Self, s| agreement(&m.seen(s)).is_ok()),
            Property::always(TOTAL_ORDER, |m: &Self, s| total_order(&m.seen(s)).is_ok()),
            Property::always(VALIDITY, |m: &Self, s| validity(&m.group, &m.seen(s)).is_ok()),
            Property::always(EXACTLY_ONCE, |m: &Self, s| exactly_once(&m.seen(s)).is_ok()),
            Property::always(SOUND, |m: &Self, s| sound(&m.seen(s)).is_ok()),
            Property::sometimes("a request runs in view 0", |m: &Self, _| {
                m.has(facts::RAN_IN_VIEW_0)
            }),
        ];
        if bounds.views > 0 {
            all.push(Property::sometimes("a request runs in a later view", |m: &Self, _| {
                m.has(facts::RAN_LATER)
            }));
            all.push(Property::sometimes("a NEW-VIEW issues something again", |m: &Self, _| {
                m.has(facts::REISSUED)
            }));
        }
        if bounds.views > 0 && bounds.faulty.is_some() {
            all.push(Property::sometimes(
                "a NEW-VIEW with the faulty host's part",
                |m: &Self, _| m.has(facts::ENTERED_WITH_FAULTY),
            ));
        }
        if bounds.faulty.is_some_and(|f| f > 0 && u64::from(f) <= bounds.views) {
            all.push(Property::sometimes("a NEW-VIEW of the faulty host", |m: &Self, _| {
                m.has(facts::ENTERED_FAULTY_LEADER)
            }));
        }
        if bounds.faulty == Some(0) && bounds.requests > 1 {
            all.push(Property::sometimes("a slot has two certified contents", |m: &Self, s| {
                m.two_contents(s)
            }));
        }
        if bounds.views > 1 {
            all.push(Property::sometimes("a NEW-VIEW is acknowledged belatedly", |m: &Self, _| {
                m.has(facts::ACKNOWLEDGED)
            }));
            all.push(Property::sometimes("a NEW-VIEW with acknowledgements", |m: &Self, _| {
                m.has(facts::WITH_ACKS)
            }));
            all.push(Property::sometimes("a NEW-VIEW after two steps", |m: &Self, _| {
                m.has(facts::CHAIN)
            }));
        }
        if bounds.noops {
            all.push(Property::sometimes("a no-op is executed", |m: &Self, _| m.has(facts::NOOP)));
        }
        if u64::from(bounds.pillars) * bounds.slots > 1 {
            let name = "a request is ordered twice and runs once";
            all.push(Property::sometimes(name, |m: &Self, _| m.has(facts::DUPLICATE)));
        }
        if bounds.restarts.is_some() {
            all.push(Property::sometimes("a log ends in the middle of an event", |m: &Self, _| {
                m.has(facts::CUT)
            }));
            all.push(Property::sometimes("a request runs after a restart", |m: &Self, _| {
                m.has(facts::RAN_AGAIN)
            }));
        }
        if bounds.checkpoints {
            all.push(Property::sometimes("a checkpoint is stable", |m: &Self, _| {
                m.has(facts::CHECKPOINT)
            }));
        }
        all
    }
}

impl CoreModel {
    /// Whether two batches were certified for one slot: by one leader in different views, or by
    /// different leaders.
    fn two_contents(&self, state: &State) -> bool {
        let reached = self.reached();
        let headers: Vec<_> =
            state.messages.iter().flat_map(|m| &reached.0.message(*m).headers).collect();
        headers.iter().any(|a| {
            headers.iter().any(|b| a.pillar == b.pillar && a.first == b.first && a.batch != b.batch)
        })
    }
}

/// Name of the property that no two replicas commit different batches at one order number.
pub const AGREEMENT: &str = "agreement";
/// Name of the property that all execute the same requests in the same order.
pub const TOTAL_ORDER: &str = "total order";
/// Name of the property that only clients' requests run.
pub const VALIDITY: &str = "validity";
/// Name of the property that no request runs twice.
pub const EXACTLY_ONCE: &str = "exactly once";
/// Name of the property that no correct replica has to stop, that counters rise, that nobody
/// commits twice what differs, and that states do not diverge.
pub const SOUND: &str = "soundness";

/// Checks all safety properties on the events of the correct replicas.
///
/// # Errors
/// The first property that does not hold.
pub fn check<S: AsRef<Seen>>(group: &Group, seen: &[S]) -> Result<(), &'static str> {
    agreement(seen)?;
    total_order(seen)?;
    validity(group, seen)?;
    exactly_once(seen)?;
    sound(seen)
}

fn agreement<S: AsRef<Seen>>(seen: &[S]) -> Result<(), &'static str> {
    for (at, a) in seen.iter().enumerate() {
        for b in &seen[at + 1..] {
            let (a, b) = (&a.as_ref().commits, &b.as_ref().commits);
            if a.iter().any(|(order, batch)| b.get(order).is_some_and(|other| other != batch)) {
                return Err(AGREEMENT);
            }
        }
    }
    Ok(())
}

fn total_order<S: AsRef<Seen>>(seen: &[S]) -> Result<(), &'static str> {
    for (at, a) in seen.iter().enumerate() {
        for b in &seen[at + 1..] {
            let (a, b) = (a.as_ref(), b.as_ref());
            let both = a.executed.min(b.executed);
            let until = |s: &Seen| -> Vec<Ran> {
                s.ran.iter().filter(|ran| ran.order.0 <= both).copied().collect()
            };
            if until(a) != until(b) {
                return Err(TOTAL_ORDER);
            }
        }
    }
    Ok(())
}

fn validity<S: AsRef<Seen>>(group: &Group, seen: &[S]) -> Result<(), &'static str> {
    let known = |ran: &Ran| {
        group.requests.iter().any(|r| r.name == ran.name && r.operation == ran.operation)
    };
    let valid = seen.iter().all(|s| s.as_ref().ran.iter().all(known));
    if valid { Ok(()) } else { Err(VALIDITY) }
}

fn exactly_once<S: AsRef<Seen>>(seen: &[S]) -> Result<(), &'static str> {
    let twice = |ran: &[Ran]| {
        ran.iter().enumerate().any(|(at, a)| ran[at + 1..].iter().any(|b| a.name == b.name))
    };
    let broken = seen.iter().any(|s| twice(&s.as_ref().ran));
    if broken { Err(EXACTLY_ONCE) } else { Ok(()) }
}

fn sound<S: AsRef<Seen>>(seen: &[S]) -> Result<(), &'static str> {
    if seen.iter().any(|s| s.as_ref().breach.is_some()) { Err(SOUND) } else { Ok(()) }
}
