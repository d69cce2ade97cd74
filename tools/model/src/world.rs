//! All local states of replicas and all messages that were ever reached, by small numbers.
//!
//! A correct replica is deterministic, so what an event does to it in a state is found out once
//! and remembered. To find it out, the replica is needed in that state: some are kept alive, the
//! others are built again from the events that led there first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::ids::{PillarId, ReplicaId, View};
use hybster_proto::internals::{
    Checkpoint, Commit, NewView, NewViewAck, PrepareHeader, ViewChange,
};
use hybster_proto::wire::{kind, kind_of};
use hybster_tss::CounterValue;

use crate::group::Group;
use crate::replica::{Automaton, Effects, Life, Seen, Stimulus};

/// Number of a message.
pub type MessageId = u16;

/// What happens at a correct replica, with the message by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A message arrives.
    Deliver(MessageId),
    /// A request is handed to a pillar of the leader.
    Submit(u16, u8),
    /// A no-op is asked for.
    Fill(u16, u8),
    /// The view is given up.
    Suspect,
    /// The NEW-VIEW does not come.
    Timeout,
    /// The replica is started again.
    Restart,
    /// A peer tells the replica that came back that it knows nothing of it.
    Told,
}

/// An event at a correct replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// All of it happens.
    Is(Cause),
    /// Only so many records of what it does are logged, and the replica is started again.
    Cut(Cause, u8),
}

/// A message and its meaning.
pub struct Message {
    /// Who made it.
    pub from: ReplicaId,
    /// The bytes.
    pub bytes: Bytes,
    /// Prepared headers that it proves, of their own view.
    pub headers: Vec<PrepareHeader>,
    /// The bits of the requests that it proposes.
    pub requests: u8,
    /// The kind of message, with the fields that matter.
    pub body: Body,
    /// The view that an ordering message, a NEW-VIEW or a NEW-VIEW-ACK is of, and the one that a
    /// VIEW-CHANGE is for.
    pub view: View,
}

/// Messages that the faulty host makes use of, parsed.
pub enum Body {
    /// A VIEW-CHANGE.
    Change(Box<ViewChange>),
    /// A NEW-VIEW.
    NewView(Box<NewView>),
    /// A NEW-VIEW-ACK.
    Ack(Box<NewViewAck>),
    /// A CHECKPOINT.
    Checkpoint(Checkpoint),
    /// A PREPARE.
    Prepare,
    /// A COMMIT.
    Commit,
    /// A batch.
    Other,
}

/// A local state of a correct replica.
pub struct Local {
    parent: Option<(u32, Event)>,
    /// Digest of the replica.
    pub digest: [u8; 32],
    /// Its events.
    pub seen: Arc<Seen>,
    /// Stable and current view.
    pub views: (View, View),
    /// Next slots.
    pub next_slots: Vec<u64>,
    /// Counters.
    pub counters: Vec<CounterValue>,
    /// Whether it was started again.
    pub life: Life,
}

/// What an event did.
#[derive(Clone)]
pub struct Done {
    /// The state after it.
    pub state: u32,
    /// Messages sent, rising.
    pub sent: Arc<[MessageId]>,
    /// Records logged, by a replica that may be started again.
    pub logged: u8,
}

#[derive(Default)]
struct Locals {
    all: Vec<Local>,
    by_digest: HashMap<[u8; 32], u32>,
    done: HashMap<(u32, Event), Done>,
    alive: HashMap<u32, Automaton>,
}

/// Replicas that are kept alive, of each identity.
const ALIVE: usize = 4_000;

/// Everything reached so far.
pub struct World {
    /// The group.
    pub group: Arc<Group>,
    messages: Vec<Message>,
    by_bytes: HashMap<Bytes, MessageId>,
    locals: Vec<Locals>,
    /// Events that were computed, and events replayed to do so.
    pub work: (u64, u64),
    /// Remarkable things that happened to correct replicas, see [`crate::replica::facts`].
    pub facts: u16,
}

impl World {
    /// The world with all replicas in their initial states, which have number 0.
    #[must_use]
    pub fn new(group: Arc<Group>) -> Self {
        let mut world = Self {
            messages: Vec::new(),
            by_bytes: HashMap::new(),
            locals: group.config.all_replicas().map(|_| Locals::default()).collect(),
            work: (0, 0),
            facts: 0,
            group,
        };
        for replica in world.group.correct() {
            let automaton = Automaton::new(Arc::clone(&world.group), ReplicaId(replica));
            world.intern(replica, automaton, None);
        }
        world
    }

    /// A message.
    #[must_use]
    pub fn message(&self, id: MessageId) -> &Message {
        &self.messages[usize::from(id)]
    }

    /// Number of messages that exist.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Number of local states, by replica.
    #[must_use]
    pub fn local_states(&self) -> Vec<usize> {
        self.locals.iter().map(|locals| locals.all.len()).collect()
    }

    /// A local state.
    #[must_use]
    pub fn local(&self, replica: u16, state: u32) -> &Local {
        &self.locals[usize::from(replica)].all[state as usize]
    }

    /// The number of a message.
    pub fn message_id(&mut self, bytes: &Bytes) -> MessageId {
        if let Some(id) = self.by_bytes.get(bytes) {
            return *id;
        }
        let message = parse(&self.group, bytes);
        let id = MessageId::try_from(self.messages.len()).expect("fewer than 65536 messages");
        self.messages.push(message);
        self.by_bytes.insert(bytes.clone(), id);
        id
    }

    /// What an event does to a correct replica.
    pub fn step(&mut self, replica: u16, state: u32, event: Event) -> Done {
        let locals = &self.locals[usize::from(replica)];
        if let Some(done) = locals.done.get(&(state, event)) {
            return done.clone();
        }
        let mut automaton = self.automaton(replica, state);
        self.work.0 += 1;
        let Effects { sent, facts, logged, .. } = self.apply(&mut automaton, event);
        self.facts |= facts;
        let logged = u8::try_from(logged).expect("an event logs a few records");
        let mut sent: Vec<MessageId> = sent.iter().map(|bytes| self.message_id(bytes)).collect();
        sent.sort_unstable();
        sent.dedup();
        let after = self.intern(replica, automaton, Some((state, event)));
        let done = Done { state: after, sent: sent.into(), logged };
        self.locals[usize::from(replica)].done.insert((state, event), done.clone());
        done
    }

    fn apply(&self, automaton: &mut Automaton, event: Event) -> Effects {
        let before = automaton.views().0;
        let mut effects = automaton.step(self.stimulus(event));
        if automaton.views().0 > before {
            let own = effects.sent.iter().find(|m| kind_of(m) == kind::NEW_VIEW);
            let own = own.and_then(|m| NewView::parse(m, &self.group.config).ok());
            let delivered = match event {
                Event::Is(Cause::Deliver(id)) => match &self.message(id).body {
                    Body::NewView(new_view) => Some(NewView::clone(new_view)),
                    _ => None,
                },
                _ => None,
            };
            if let Some(new_view) = own.or(delivered) {
                effects.facts |= automaton.facts_of(&new_view);
            }
        }
        effects
    }

    /// An event with its message.
    #[must_use]
    pub fn stimulus(&self, event: Event) -> Stimulus {
        match event {
            Event::Is(cause) => self.stimulus_of(cause),
            Event::Cut(cause, kept) => {
                Stimulus::Cut(Box::new(self.stimulus_of(cause)), usize::from(kept))
            }
        }
    }

    fn stimulus_of(&self, cause: Cause) -> Stimulus {
        match cause {
            Cause::Deliver(id) => {
                let message = self.message(id);
                Stimulus::Message(message.from, message.bytes.clone())
            }
            Cause::Submit(pillar, request) => {
                Stimulus::Submit(PillarId(pillar), usize::from(request))
            }
            Cause::Fill(pillar, through) => Stimulus::Fill(PillarId(pillar), u64::from(through)),
            Cause::Suspect => Stimulus::Suspect,
            Cause::Timeout => Stimulus::Timeout,
            Cause::Restart => Stimulus::Restart,
            Cause::Told => Stimulus::Told,
        }
    }

    /// The replica in a state: one that is alive, or one that goes through its past again.
    fn automaton(&mut self, replica: u16, state: u32) -> Automaton {
        let locals = &mut self.locals[usize::from(replica)];
        let mut events = Vec::new();
        let mut at = state;
        let mut automaton = loop {
            if let Some(automaton) = locals.alive.remove(&at) {
                break automaton;
            }
            match locals.all[at as usize].parent {
                Some((parent, event)) => {
                    events.push(event);
                    at = parent;
                }
                None => break Automaton::new(Arc::clone(&self.group), ReplicaId(replica)),
            }
        };
        for event in events.into_iter().rev() {
            self.work.1 += 1;
            let _ = self.apply(&mut automaton, event);
        }
        debug_assert_eq!(automaton.digest(), self.local(replica, state).digest);
        automaton
    }

    fn intern(&mut self, replica: u16, automaton: Automaton, parent: Option<(u32, Event)>) -> u32 {
        let digest = automaton.digest();
        let locals = &mut self.locals[usize::from(replica)];
        let state = *locals.by_digest.entry(digest).or_insert_with(|| {
            locals.all.push(Local {
                parent,
                digest,
                seen: Arc::new(automaton.seen().clone()),
                views: automaton.views(),
                next_slots: automaton.next_slots(),
                counters: automaton.counters(),
                life: automaton.life(),
            });
            u32::try_from(locals.all.len() - 1).expect("fewer than 2^32 local states")
        });
        if locals.alive.len() >= ALIVE {
            locals.alive.clear();
        }
        locals.alive.insert(state, automaton);
        state
    }
}

fn parse(group: &Group, bytes: &Bytes) -> Message {
    let config = &group.config;
    let mut headers = Vec::new();
    let ours = "made inside the model";
    let mut view = View(0);
    let (from, body) = match kind_of(bytes) {
        kind::PREPARE => {
            let header = PrepareHeader::parse(bytes).expect(ours);
            headers.push(header);
            view = header.view;
            (config.leader(header.view), Body::Prepare)
        }
        kind::COMMIT => {
            let commit = Commit::parse(bytes).expect(ours);
            view = commit.view;
            (commit.sender, Body::Commit)
        }
        kind::VIEW_CHANGE => {
            let change = ViewChange::parse(bytes, config).expect(ours);
            view = change.to;
            (change.sender, Body::Change(Box::new(change)))
        }
        kind::NEW_VIEW => {
            let new_view = NewView::parse(bytes, config).expect(ours);
            view = new_view.view;
            headers.extend(new_view.prepares.iter().flatten());
            (config.leader(new_view.view), Body::NewView(Box::new(new_view)))
        }
        kind::NEW_VIEW_ACK => {
            let ack = NewViewAck::parse(bytes, config).expect(ours);
            view = ack.view;
            (ack.sender, Body::Ack(Box::new(ack)))
        }
        kind::CHECKPOINT => {
            let checkpoint = Checkpoint::parse(bytes, config).expect(ours);
            (checkpoint.sender, Body::Checkpoint(checkpoint))
        }
        // Batches come from anywhere.
        _ => (ReplicaId(u16::MAX), Body::Other),
    };
    let bits = headers.iter().filter_map(|h| group.request_of(&h.batch)).map(|r| 1 << r);
    let requests = bits.fold(0, |all, bit: u8| all | bit);
    Message { from, bytes: bytes.clone(), requests, headers, body, view }
}

/// Prepared headers that messages prove, by pillar and view, each once.
#[must_use]
pub fn known_headers(
    world: &World,
    messages: &[MessageId],
) -> BTreeMap<(PillarId, View), Vec<PrepareHeader>> {
    let mut known: BTreeMap<(PillarId, View), Vec<PrepareHeader>> = BTreeMap::new();
    for header in messages.iter().flat_map(|m| &world.message(*m).headers) {
        let of_view = known.entry((header.pillar, header.view)).or_default();
        if !of_view.contains(header) {
            of_view.push(*header);
        }
    }
    known
}
