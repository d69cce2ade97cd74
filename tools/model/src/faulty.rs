//! The faulty host: it knows every message, and its TrInX instances are honest.
//!
//! Its state is the values of its counters and which steps it took from view to view. From that and
//! the messages in the network follows all that it can certify next. What it certifies goes into
//! the network at once: whether and when a correct replica gets it is up to the network, so to
//! withhold a certificate, or to send different ones to different peers, is covered. Only what a
//! correct replica would accept in some state is made: whole messages are shown to a correct
//! replica, the *judge*, that has just started.
//!
//! What it makes: PREPAREs of any request at any order number in bounds in the views that it leads,
//! values skipped or not, no-ops over any range; COMMITs for any PREPARE; VIEW-CHANGEs with any
//! v_from, any contiguous prepared set and any end of its chain of steps; NEW-VIEWs from any choice
//! of VIEW-CHANGEs and NEW-VIEW-ACKs; NEW-VIEW-ACKs with any contiguous prepared set; CHECKPOINTs,
//! right and wrong. Its TrInX decides.
//!
//! Left out, because it gains nothing: PREPAREs in a view before its own NEW-VIEW for it (receivers
//! keep them until then), NEW-VIEW-ACKs before the NEW-VIEW (nobody correct vouches with it), and
//! steps of some pillars' counters but not of others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId, View};
use hybster_proto::internals::mutants::Mutant;
use hybster_proto::internals::{
    Checkpoint, CheckpointCertificate, Commit, Link, NewView, NewViewAck, Part, PartScope,
    PrepareHeader, ViewChange,
};
use hybster_proto::wire::{self, CheckpointId};
use hybster_tss::{Counter, CounterValue, Digest, InProcessTrInX, Proof, TrInX};

use crate::group::Group;
use crate::replica::{Automaton, Stimulus};
use crate::world::{Body, MessageId, World, known_headers};

/// A local state of the faulty host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faulty {
    /// Counter O of each pillar.
    ordering: Vec<CounterValue>,
    /// Counter N of pillar 0.
    new_view: CounterValue,
    /// Steps of O from view to view, by pillar.
    links: Vec<Vec<LinkKey>>,
}

/// A [`Link`] that can be hashed.
type LinkKey = (View, CounterValue, Digest, Proof);

fn link_of(key: &LinkKey) -> Link {
    Link { to: key.0, previous: key.1, digest: key.2, proof: key.3 }
}

/// Something that the faulty host may do: its state after it, and the message that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Craft {
    /// The number of the state after it.
    pub state: u32,
    /// The message.
    pub message: MessageId,
}

/// A state of the faulty host and the messages that it can make use of.
type Scene = (u32, Arc<[MessageId]>);

/// All states of the faulty host, and its possible steps in them.
#[derive(Default)]
pub struct Host {
    states: Vec<Faulty>,
    numbers: HashMap<Faulty, u32>,
    crafts: HashMap<Scene, Arc<[Craft]>>,
    judged: HashMap<Bytes, bool>,
}

type Headers = BTreeMap<(PillarId, View), Vec<PrepareHeader>>;

impl Host {
    /// The host with its initial state, number 0.
    #[must_use]
    pub fn new(group: &Group) -> Self {
        let pillars = usize::from(group.config.pillars);
        let mut host = Self::default();
        host.intern(Faulty {
            ordering: vec![CounterValue::ZERO; pillars],
            new_view: CounterValue::ZERO,
            links: vec![Vec::new(); pillars],
        });
        host
    }

    /// Number of states.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states.len()
    }

    fn intern(&mut self, state: Faulty) -> u32 {
        let next = u32::try_from(self.states.len()).expect("fewer than 2^32 states");
        let number = *self.numbers.entry(state.clone()).or_insert(next);
        if number == next {
            self.states.push(state);
        }
        number
    }

    /// What the host can do in a state, when these messages exist.
    pub fn crafts(
        &mut self,
        world: &mut World,
        id: ReplicaId,
        state: u32,
        messages: &[MessageId],
    ) -> Arc<[Craft]> {
        // COMMITs and batches are of no use to it.
        let of_use = |m: &&MessageId| {
            let message = world.message(**m);
            !matches!(message.body, Body::Commit | Body::Other)
        };
        let key: Arc<[MessageId]> = messages.iter().filter(of_use).copied().collect();
        if let Some(known) = self.crafts.get(&(state, Arc::clone(&key))) {
            return Arc::clone(known);
        }
        let group = Arc::clone(&world.group);
        let mut workshop = Workshop {
            group: &group,
            id,
            state: self.states[state as usize].clone(),
            headers: known_headers(world, &key),
            made: Vec::new(),
        };
        workshop.prepares(world, &key);
        workshop.commits();
        workshop.changes(&self.checkpoints(world, &key));
        workshop.new_views(world, &key);
        workshop.acks(world, &key);
        workshop.checkpoint_votes(world, &key);
        let made = std::mem::take(&mut workshop.made);
        let mut crafts = Vec::new();
        for made in made {
            if made.judge && !self.judge(&group, id, &made.bytes) {
                continue;
            }
            let after = self.intern(made.state);
            let message = world.message_id(&made.bytes);
            if after != state || !key.contains(&message) {
                crafts.push(Craft { state: after, message });
            }
        }
        crafts.sort_unstable();
        crafts.dedup();
        let crafts: Arc<[Craft]> = crafts.into();
        self.crafts.insert((state, key), Arc::clone(&crafts));
        crafts
    }

    /// Certificates of checkpoints that can be put together.
    fn checkpoints(&self, world: &World, key: &[MessageId]) -> Vec<CheckpointCertificate> {
        let mut votes: BTreeMap<(OrderNumber, Digest), Vec<(ReplicaId, Proof)>> = BTreeMap::new();
        for id in key {
            if let Body::Checkpoint(checkpoint) = &world.message(*id).body {
                let of_id = votes.entry((checkpoint.id.order, checkpoint.id.digest)).or_default();
                of_id.push((checkpoint.sender, checkpoint.proof));
            }
        }
        let mut all = vec![CheckpointCertificate::default()];
        for ((order, digest), mut votes) in votes {
            votes.sort_by_key(|vote| vote.0);
            votes.truncate(world.group.config.acknowledging());
            let id = CheckpointId { order, digest };
            all.push(CheckpointCertificate { id, ending: None, votes });
        }
        all
    }

    /// Whether a correct replica that has just started accepts a message.
    fn judge(&mut self, group: &Arc<Group>, id: ReplicaId, bytes: &Bytes) -> bool {
        if let Some(verdict) = self.judged.get(bytes) {
            return *verdict;
        }
        let judge = ReplicaId(u16::from(id.0 == 0));
        let mut automaton = Automaton::new(Arc::clone(group), judge);
        let effects = automaton.step(Stimulus::Message(id, bytes.clone()));
        let verdict = effects.rejections.is_empty();
        self.judged.insert(bytes.clone(), verdict);
        verdict
    }
}

struct Made {
    state: Faulty,
    bytes: Bytes,
    judge: bool,
}

/// Where the messages of one state are made.
struct Workshop<'a> {
    group: &'a Arc<Group>,
    id: ReplicaId,
    state: Faulty,
    headers: Headers,
    made: Vec<Made>,
}

impl Workshop<'_> {
    fn trinx(&self, state: &Faulty, pillar: PillarId) -> InProcessTrInX {
        let mut trinx = self.group.trinx(self.id, pillar);
        let granted = "counters only rise";
        trinx.forward(Counter::Ordering, state.ordering[usize::from(pillar.0)]).expect(granted);
        if pillar == PillarId(0) {
            trinx.forward(Counter::NewView, state.new_view).expect(granted);
        }
        trinx
    }

    fn push(&mut self, state: Faulty, bytes: Bytes, judge: bool) {
        self.made.push(Made { state, bytes, judge });
    }

    fn leads(&self, view: View) -> bool {
        self.group.config.leader(view) == self.id
    }

    fn led_views(&self) -> Vec<View> {
        (0..=self.group.bounds.views).map(View).filter(|v| self.leads(*v)).collect()
    }

    /// Certifies a header; the state then has the counter that this leaves behind.
    fn certify(&self, state: &mut Faulty, mut header: PrepareHeader) -> Option<PrepareHeader> {
        let mut trinx = self.trinx(state, header.pillar);
        let (value, digest) = (header.value(), header.digest());
        if header.noop {
            let made = trinx.certify_continuing(Counter::Ordering, value, &digest).ok()?;
            (header.previous, header.proof) = (made.previous, made.proof);
        } else {
            header.previous = CounterValue::ZERO;
            header.proof = trinx.certify_independent(Counter::Ordering, value, &digest).ok()?.proof;
        }
        state.ordering[usize::from(header.pillar.0)] = value;
        Some(header)
    }

    fn header(&self, pillar: PillarId, view: View, first: u64, last: u64) -> PrepareHeader {
        PrepareHeader {
            pillar,
            noop: true,
            requests: 0,
            view,
            first: self.group.config.order_at(pillar, first),
            last: self.group.config.order_at(pillar, last),
            time_ms: 0,
            batch: wire::digest(&[]),
            previous: CounterValue::ZERO,
            proof: Proof([0; 32]),
        }
    }

    /// PREPAREs in view 0, or in views whose NEW-VIEW is out.
    fn prepares(&mut self, world: &World, key: &[MessageId]) {
        let used = key.iter().fold(0, |used, m| used | world.message(*m).requests);
        let fresh = used.count_ones() as usize;
        for view in self.led_views() {
            if view > View(0) && self.state.new_view.view() < view.0 {
                continue;
            }
            for pillar in self.group.config.all_pillars() {
                for slot in 0..self.group.bounds.slots {
                    // All requests that have not been used yet are alike.
                    for request in 0..self.group.requests.len().min(fresh + 1) {
                        let batch = self.group.requests[request].batch;
                        let header = self.header(pillar, view, slot, slot);
                        let header = PrepareHeader { noop: false, requests: 1, batch, ..header };
                        self.prepare(header, Some(request));
                    }
                    let first = if self.group.bounds.noops { 0 } else { slot + 1 };
                    for first in first..=slot {
                        self.prepare(self.header(pillar, view, first, slot), None);
                    }
                }
            }
        }
    }

    fn prepare(&mut self, header: PrepareHeader, request: Option<usize>) {
        let mut state = self.state.clone();
        let at = state.ordering[usize::from(header.pillar.0)];
        let first = CounterValue::new(header.view.0, header.first.0);
        let unchecked = self.group.bounds.mutant == Some(Mutant::NoopPrevious);
        if header.noop && at >= first && !unchecked {
            return;
        }
        if let Some(header) = self.certify(&mut state, header) {
            let mut bytes = header.encode().to_vec();
            bytes.extend(request.iter().flat_map(|r| self.group.requests[*r].record.iter()));
            self.push(state, bytes.into(), false);
        }
    }

    fn commits(&mut self) {
        for headers in self.headers.clone().into_values() {
            for header in headers {
                if self.leads(header.view) {
                    break;
                }
                let mut state = self.state.clone();
                let mut commit = Commit {
                    pillar: header.pillar,
                    sender: self.id,
                    view: header.view,
                    first: header.first,
                    last: header.last,
                    prepare: header.digest(),
                    proof: Proof([0; 32]),
                };
                let (value, digest) = (header.value(), commit.digest());
                let mut trinx = self.trinx(&state, header.pillar);
                if let Ok(made) = trinx.certify_independent(Counter::Ordering, value, &digest) {
                    commit.proof = made.proof;
                    state.ordering[usize::from(header.pillar.0)] = value;
                    self.push(state, commit.encode(), false);
                }
            }
        }
    }

    /// All contiguous prepared sets of a pillar in a view, from a slot on, the empty one included.
    fn sets(&self, pillar: PillarId, view: View, base: u64) -> Vec<Vec<PrepareHeader>> {
        let known = self.headers.get(&(pillar, view)).map_or(&[][..], Vec::as_slice);
        let config = &self.group.config;
        let mut all = vec![Vec::new()];
        let mut at = 0;
        while at < all.len() {
            let set: Vec<PrepareHeader> = all[at].clone();
            let next = set.last().map_or(base, |h| config.slot_of(h.last) + 1);
            for header in known.iter().filter(|h| config.slot_of(h.first) == next) {
                let mut longer = set.clone();
                longer.push(*header);
                all.push(longer);
            }
            at += 1;
        }
        all
    }

    /// VIEW-CHANGEs to all views, from all views.
    fn changes(&mut self, checkpoints: &[CheckpointCertificate]) {
        let made = self.state.links[0].len();
        if made >= usize::from(self.group.bounds.faulty_changes) {
            return;
        }
        let lowest = self.state.ordering.iter().map(|c| c.view()).max().unwrap_or(0);
        for to in (lowest + 1..=self.group.bounds.views).map(View) {
            for from in (0..to.0).map(View) {
                for checkpoint in checkpoints {
                    self.change(from, to, checkpoint);
                }
            }
        }
    }

    fn change(&mut self, from: View, to: View, checkpoint: &CheckpointCertificate) {
        let scope = PartScope { sender: self.id, from, to, checkpoint };
        let base = self.group.config.slots_before(checkpoint.id.order);
        let mut done = vec![(self.state.clone(), Vec::new())];
        for pillar in self.group.config.all_pillars() {
            let p = usize::from(pillar.0);
            let mut longer = Vec::new();
            for prepared in self.sets(pillar, from, base) {
                for chain in self.chains(pillar, from) {
                    let digest = scope.digest(pillar, &chain, &prepared);
                    let mut trinx = self.trinx(&self.state, pillar);
                    let value = CounterValue::new(to.0, 0);
                    let Ok(made) = trinx.certify_continuing(Counter::Ordering, value, &digest)
                    else {
                        continue;
                    };
                    let link = Link { to, previous: made.previous, digest, proof: made.proof };
                    for (state, parts) in &done {
                        let (mut state, mut parts) = (state.clone(), Vec::clone(parts));
                        let mut chain = chain.clone();
                        chain.push(link);
                        parts.push(Part { chain, prepared: prepared.clone() });
                        state.ordering[p] = value;
                        state.links[p].push((to, link.previous, digest, link.proof));
                        longer.push((state, parts));
                    }
                }
            }
            done = longer;
        }
        for (state, parts) in done {
            let checkpoint = checkpoint.clone();
            let change = ViewChange { sender: self.id, from, to, checkpoint, parts };
            self.push(state, change.encode(), true);
        }
    }

    /// Links to put before a new one: every end of this replica's own steps, and forgeries where
    /// the rule that keeps them out is broken.
    fn chains(&self, pillar: PillarId, from: View) -> Vec<Vec<Link>> {
        let p = usize::from(pillar.0);
        let links: Vec<Link> = self.state.links[p].iter().map(link_of).collect();
        let mut chains: Vec<Vec<Link>> = (0..=links.len()).map(|at| links[at..].to_vec()).collect();
        let forged = Link {
            to: View(self.state.ordering[p].view()),
            previous: CounterValue::new(from.0, 0),
            digest: Digest([0; 32]),
            proof: Proof([0; 32]),
        };
        let mutant = self.group.bounds.mutant;
        if mutant == Some(Mutant::LinkUnverified) && forged.to > from {
            chains.push(vec![forged]);
        }
        if mutant == Some(Mutant::ChainNotJoined) && links.len() > 1 {
            chains.push(vec![links[0]]);
        }
        chains
    }

    /// NEW-VIEWs of views that the host leads.
    fn new_views(&mut self, world: &World, key: &[MessageId]) {
        for view in self.led_views() {
            // That of view 0 exists from the start.
            if self.state.new_view.view() >= view.0 {
                continue;
            }
            let changes: Vec<&ViewChange> = key
                .iter()
                .filter_map(|m| match &world.message(*m).body {
                    Body::Change(change) if change.to == view => Some(&**change),
                    _ => None,
                })
                .collect();
            let acks: Vec<&NewViewAck> = key
                .iter()
                .filter_map(|m| match &world.message(*m).body {
                    Body::Ack(ack) if ack.view < view => Some(&**ack),
                    _ => None,
                })
                .collect();
            for changes in one_per_sender(&changes, |c| c.sender) {
                let Some(from) = changes.iter().map(|c| c.from).max() else {
                    continue;
                };
                let of_view: Vec<&NewViewAck> =
                    acks.iter().filter(|a| a.view == from).copied().collect();
                for acks in one_per_sender(&of_view, |a| a.sender) {
                    self.new_view(view, from, &changes, &acks);
                }
            }
        }
    }

    fn new_view(&mut self, view: View, from: View, changes: &[&ViewChange], acks: &[&NewViewAck]) {
        let checkpoints = changes.iter().map(|c| &c.checkpoint);
        let checkpoints = checkpoints.chain(acks.iter().map(|a| &a.checkpoint));
        let Some(checkpoint) = checkpoints.max_by_key(|c| c.id.order).cloned() else {
            return;
        };
        let mut done = vec![(self.state.clone(), Vec::new())];
        for pillar in self.group.config.all_pillars() {
            let p = usize::from(pillar.0);
            let merge = self.group.bounds.mutant == Some(Mutant::MergeAllViews);
            let of_changes = changes.iter().filter(|c| c.from == from || merge);
            let sets = of_changes.map(|c| &c.parts[p].prepared);
            let sets = sets.chain(acks.iter().map(|a| &a.prepared[p]));
            let beyond = |set: &Vec<PrepareHeader>| -> Vec<PrepareHeader> {
                set.iter().filter(|h| h.last > checkpoint.id.order).copied().collect()
            };
            let mut demanded: Vec<Vec<PrepareHeader>> = sets.map(beyond).collect();
            if self.group.bounds.mutant == Some(Mutant::TransitionUnchecked) {
                demanded.push(Vec::new());
            }
            demanded.sort_by_key(|set| set.iter().map(PrepareHeader::encode).collect::<Vec<_>>());
            demanded.dedup();
            let mut longer = Vec::new();
            for set in demanded {
                for (state, parts) in &done {
                    let mut state: Faulty = state.clone();
                    let again = set.iter().map(|h| {
                        let header = PrepareHeader { view, ..*h };
                        self.certify(&mut state, header)
                    });
                    if let Some(again) = again.collect::<Option<Vec<_>>>() {
                        let mut parts: Vec<Vec<PrepareHeader>> = parts.clone();
                        parts.push(again);
                        longer.push((state, parts));
                    }
                }
            }
            done = longer;
        }
        for (mut state, prepares) in done {
            let mut new_view = NewView {
                view,
                checkpoint: checkpoint.clone(),
                view_changes: changes.iter().copied().cloned().collect(),
                acks: acks.iter().copied().cloned().collect(),
                prepares,
                proof: Proof([0; 32]),
            };
            let value = CounterValue::new(view.0, 0);
            let mut trinx = self.trinx(&state, PillarId(0));
            let digest = new_view.digest();
            if let Ok(made) = trinx.certify_independent(Counter::NewView, value, &digest) {
                new_view.proof = made.proof;
                state.new_view = value;
                self.push(state, new_view.encode(), true);
            }
        }
    }

    /// NEW-VIEW-ACKs of views that are established and not the last one.
    fn acks(&mut self, world: &World, key: &[MessageId]) {
        let mut views: Vec<View> = key
            .iter()
            .filter_map(|m| match &world.message(*m).body {
                Body::NewView(nv) if nv.view.0 < self.group.bounds.views => Some(nv.view),
                _ => None,
            })
            .collect();
        views.sort_unstable();
        views.dedup();
        for view in views {
            let mut done = vec![Vec::new()];
            for pillar in self.group.config.all_pillars() {
                let sets = self.sets(pillar, view, 0);
                let with = |parts: &Vec<Vec<PrepareHeader>>| {
                    let parts = parts.clone();
                    sets.clone().into_iter().map(move |set| [parts.clone(), vec![set]].concat())
                };
                done = done.iter().flat_map(with).collect();
            }
            for prepared in done {
                let checkpoint = CheckpointCertificate::default();
                let proof = Proof([0; 32]);
                let mut ack = NewViewAck { sender: self.id, view, checkpoint, prepared, proof };
                let mut trinx = self.trinx(&self.state, PillarId(0));
                ack.proof = trinx.certify_mac(&ack.digest()).expect("needs no counter").proof;
                self.push(self.state.clone(), ack.encode(), true);
            }
        }
    }

    /// CHECKPOINTs like those of others, and one that differs.
    fn checkpoint_votes(&mut self, world: &World, key: &[MessageId]) {
        let own = |id: &MessageId| match &world.message(*id).body {
            Body::Checkpoint(checkpoint) if checkpoint.sender != self.id => Some(checkpoint.id),
            _ => None,
        };
        let mut ids: Vec<CheckpointId> = key.iter().filter_map(own).collect();
        let wrong = |id: &CheckpointId| CheckpointId { digest: Digest([0xee; 32]), ..*id };
        ids.extend(ids.iter().map(wrong).collect::<Vec<_>>());
        for id in ids {
            let pillar = self.group.config.checkpoint_pillar(id.order);
            let digest = Checkpoint::certified(self.id, pillar, &id, None);
            let mac = self.trinx(&self.state, pillar).certify_mac(&digest);
            let proof = mac.expect("needs no counter").proof;
            let vote = Checkpoint { sender: self.id, id, ending: None, proof };
            let bytes = vote.encode(&self.group.config);
            self.push(self.state.clone(), bytes, false);
        }
    }
}

/// All choices of at most one message per sender, rising by sender.
fn one_per_sender<'a, M>(messages: &[&'a M], sender: impl Fn(&M) -> ReplicaId) -> Vec<Vec<&'a M>> {
    let mut by_sender: BTreeMap<ReplicaId, Vec<&M>> = BTreeMap::new();
    for message in messages {
        by_sender.entry(sender(message)).or_default().push(message);
    }
    let mut choices = vec![Vec::new()];
    for messages in by_sender.into_values() {
        let with: Vec<Vec<&M>> = choices
            .iter()
            .flat_map(|choice| messages.iter().map(|m| [choice.clone(), vec![*m]].concat()))
            .collect();
        choices.extend(with);
    }
    choices
}
