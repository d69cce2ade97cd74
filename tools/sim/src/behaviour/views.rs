//! Lies in VIEW-CHANGEs: a host that makes its own parts, as far as its counters let it.

use std::collections::BTreeMap;

use bytes::Bytes;
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{PillarId, ReplicaId, View};
use hybster_proto::internals::{
    CheckpointCertificate, ControlInput, Link, PREPARE_HEAD, Part, PartScope, PillarInput,
    PrepareHeader, ViewChange,
};
use hybster_proto::output::{Input, ToPillar};
use hybster_proto::wire::help::{encode_batch, parse_batch_request};
use hybster_proto::wire::{self, kind, kind_of};
use hybster_tss::{Counter, CounterValue, Digest, Proof, TrInX};

use super::forge::step;
use super::{Departure, Host, Scene};

/// Links after which a host that asks for views all the time stops: its messages grow with each.
const MOST_LINKS: usize = 40;

/// What is wrong with a VIEW-CHANGE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Nothing.
    None,
    /// The prepared sets end too early.
    Truncate,
    /// The prepared sets are empty.
    Empty,
    /// A view between the last one and the next is said to have been entered.
    SkipOver,
    /// A step that discloses the counter is left out of the chain.
    HideLink,
    /// The last stable view is said to be an older one, with all links since then.
    OldChain,
    /// The last stable view is said to be the first one, with all links since then.
    OldestChain,
    /// The view is left twice.
    TwiceLeft,
    /// A prepared set ends with headers that no leader certified.
    ForgeHeader,
    /// The first link claims that the counter's value was 0.
    ForgeLink,
    /// One part is of an earlier attempt.
    Mix,
    /// The sets start from an older checkpoint.
    OldCheckpoint,
    /// The checkpoint has too few voters, or other ones.
    FalseCheckpoint,
    /// One pillar's part is another pillar's.
    SwapPillars,
}

const LIES: [Lie; 12] = [
    Lie::Truncate,
    Lie::Empty,
    Lie::SkipOver,
    Lie::HideLink,
    Lie::OldChain,
    Lie::TwiceLeft,
    Lie::ForgeHeader,
    Lie::ForgeLink,
    Lie::Mix,
    Lie::OldCheckpoint,
    Lie::FalseCheckpoint,
    Lie::SwapPillars,
];

pub(super) struct ViewLiar {
    ppm: u32,
    spam_ppm: u32,
    /// The lies that it knows.
    lies: Vec<Lie>,
    /// Whether it knows what other behaviours of its host proposed.
    studies: bool,
    /// Certified PREPAREs by pillar, view and first slot.
    known: BTreeMap<(PillarId, View, u64), PrepareHeader>,
    /// Steps of each counter since the last stable view, and all that there ever were.
    chains: Vec<Vec<Link>>,
    histories: Vec<Vec<Link>>,
    stable: Vec<View>,
    checkpoints: Vec<CheckpointCertificate>,
    /// What is sent instead of the core's VIEW-CHANGE for a view.
    crafted: BTreeMap<View, ViewChange>,
}

/// The views and the checkpoint that a VIEW-CHANGE is to speak of.
struct Claim {
    from: View,
    to: View,
    checkpoint: CheckpointCertificate,
    lie: Lie,
}

impl ViewLiar {
    pub(super) fn new(ppm: u32, spam_ppm: u32, group: &GroupConfig) -> Self {
        let pillars = usize::from(group.pillars);
        Self {
            ppm,
            spam_ppm,
            lies: LIES.to_vec(),
            studies: false,
            known: BTreeMap::new(),
            chains: vec![Vec::new(); pillars],
            histories: vec![Vec::new(); pillars],
            stable: vec![View(0)],
            checkpoints: vec![CheckpointCertificate::default()],
            crafted: BTreeMap::new(),
        }
    }

    /// One that always tells the same lie.
    pub(super) fn with(lie: Lie, group: &GroupConfig) -> Self {
        Self { lies: vec![lie], studies: true, ..Self::new(1_000_000, 0, group) }
    }

    fn learn(&mut self, group: &GroupConfig, header: &PrepareHeader) {
        let sane = header.pillar.0 < group.pillars && header.last.0 < 1 << 60;
        if sane && group.pillar_of(header.first) == header.pillar {
            let key = (header.pillar, header.view, group.slot_of(header.first));
            self.known.entry(key).or_insert(*header);
        }
    }

    fn learn_message(&mut self, group: &GroupConfig, message: &[u8]) {
        if kind_of(message) == kind::PREPARE
            && let Ok(header) = PrepareHeader::parse(message)
        {
            self.learn(group, &header);
        }
    }

    fn pillar_of(&self, digest: &Digest) -> PillarId {
        let mut headers = self.known.values();
        headers.find(|header| header.batch == *digest).map_or(PillarId(0), |header| header.pillar)
    }

    /// The prepared set that an honest host would show.
    fn prepared(
        &self,
        group: &GroupConfig,
        pillar: PillarId,
        view: View,
        checkpoint: &CheckpointCertificate,
    ) -> Vec<PrepareHeader> {
        let base = group.slots_before(checkpoint.id.order);
        let (mut next, mut set) = (base, Vec::new());
        while let Some(header) = self.known.get(&(pillar, view, next)) {
            let last = group.slot_of(header.last);
            if last >= base + group.window_slots() {
                break;
            }
            set.push(*header);
            next = last + 1;
        }
        set
    }

    fn choose(&self, scene: &mut Scene<'_>) -> Lie {
        if scene.random.chance(self.ppm) { *scene.random.pick(&self.lies) } else { Lie::None }
    }

    fn claim(&self, scene: &mut Scene<'_>, to: View, lie: Lie) -> Claim {
        let from = *self.stable.last().expect("view 0 at least");
        let checkpoint = self.checkpoints.last().expect("the initial one at least").clone();
        let mut claim = Claim { from, to, checkpoint, lie };
        match lie {
            Lie::SkipOver => {
                // Straight to a later view, as if the one between had been entered.
                let beyond = from.0.saturating_add(2 + scene.random.below(3));
                claim.to = View(to.0.max(beyond));
                claim.from = View(claim.to.0 - 1);
            }
            Lie::HideLink => claim.to = to.next(),
            Lie::OldChain => claim.from = *scene.random.pick(&self.stable),
            Lie::OldestChain => claim.from = self.stable[0],
            Lie::OldCheckpoint => claim.checkpoint = scene.random.pick(&self.checkpoints).clone(),
            Lie::FalseCheckpoint => claim.checkpoint.votes.truncate(1),
            _ => {}
        }
        claim
    }

    /// Makes a VIEW-CHANGE; the counters of all pillars move.
    fn craft(&mut self, scene: &mut Scene<'_>, claim: &Claim) -> Option<ViewChange> {
        if self.studies {
            for (_, message) in scene.archive.of(kind::PREPARE) {
                self.learn_message(scene.group, message);
            }
        }
        let mut parts = Vec::new();
        for pillar in scene.group.all_pillars() {
            parts.push(self.part(scene, pillar, claim)?);
        }
        match claim.lie {
            Lie::Mix => {
                let earlier = self.crafted.values().next_back();
                let at = scene.random.index(parts.len());
                if let Some(earlier) = earlier {
                    parts[at] = earlier.parts[at].clone();
                }
            }
            Lie::SwapPillars => parts.rotate_left(1),
            _ => {}
        }
        let Claim { from, to, checkpoint, .. } = claim;
        let checkpoint = checkpoint.clone();
        Some(ViewChange { sender: scene.replica, from: *from, to: *to, checkpoint, parts })
    }

    fn part(&mut self, scene: &mut Scene<'_>, pillar: PillarId, claim: &Claim) -> Option<Part> {
        let p = usize::from(pillar.0);
        let &Claim { from, to, ref checkpoint, lie } = claim;
        let mut prepared = self.prepared(scene.group, pillar, from, checkpoint);
        match lie {
            Lie::Truncate => prepared.truncate(prepared.len() / 2),
            Lie::Empty | Lie::SkipOver | Lie::HideLink | Lie::ForgeLink => prepared.clear(),
            Lie::ForgeHeader => forge_tail(scene, pillar, from, checkpoint, &mut prepared),
            _ => {}
        }
        let trinx = &mut scene.trinx[p];
        if lie == Lie::HideLink {
            let hidden = View(to.0.checked_sub(1)?);
            let link = step(trinx, hidden, Digest([3; 32]))?;
            self.histories[p].push(link);
            self.chains[p].clear();
        }
        let earlier = match lie {
            Lie::OldChain | Lie::OldestChain => {
                let since = self.histories[p].iter().filter(|link| link.to > from);
                since.copied().collect()
            }
            _ => self.chains[p].clone(),
        };
        let scope = PartScope { sender: scene.replica, from, to, checkpoint };
        let digest = scope.digest(pillar, &earlier, &prepared);
        let mut link = step(trinx, to, digest)?;
        let mut chain = earlier;
        if lie == Lie::TwiceLeft {
            chain.push(link);
            prepared.clear();
            link = step(trinx, to, scope.digest(pillar, &chain, &prepared))?;
        }
        chain.push(link);
        self.chains[p].push(link);
        self.histories[p].push(link);
        if lie == Lie::ForgeLink {
            let first = chain.len() - 1;
            chain.drain(..first);
            chain[0].previous = CounterValue::new(from.0, 0);
            chain[0].digest = scope.digest(pillar, &[], &prepared);
        }
        Some(Part { chain, prepared })
    }
}

/// Replaces the end of a prepared set by no-ops without a certificate, and adds a few more.
fn forge_tail(
    scene: &mut Scene<'_>,
    pillar: PillarId,
    view: View,
    checkpoint: &CheckpointCertificate,
    prepared: &mut Vec<PrepareHeader>,
) {
    let keep = scene.random.index(prepared.len() + 1);
    let reached = prepared.len() as u64;
    prepared.truncate(keep);
    let base = scene.group.slots_before(checkpoint.id.order);
    let mut next = prepared.last().map_or(base, |h| scene.group.slot_of(h.last) + 1);
    let end = (base + reached + 2).min(base + scene.group.window_slots());
    while next < end {
        let order = scene.group.order_at(pillar, next);
        prepared.push(PrepareHeader {
            pillar,
            noop: true,
            requests: 0,
            view,
            first: order,
            last: order,
            time_ms: 0,
            batch: wire::digest(&[]),
            previous: CounterValue::ZERO,
            proof: Proof([1; 32]),
        });
        next += 1;
    }
}

impl Host for ViewLiar {
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        self.learn_message(scene.group, &leaving.message);
        if kind_of(&leaving.message) == kind::VIEW_CHANGE
            && let Ok(honest) = ViewChange::parse(&leaving.message, scene.group)
            && honest.sender == scene.replica
            && let Some(crafted) = self.crafted.get(&honest.to)
        {
            return send.push(Departure { message: crafted.encode(), ..leaving });
        }
        send.push(leaving);
    }

    fn incoming(
        &mut self,
        scene: &mut Scene<'_>,
        from: ReplicaId,
        message: Bytes,
    ) -> Option<Bytes> {
        self.learn_message(scene.group, &message);
        if self.studies && kind_of(&message) == kind::BATCH_REQUEST {
            // Its core does not have the batches that other behaviours made up.
            for digest in parse_batch_request(&message).unwrap_or_default() {
                let batches = scene.archive.of(kind::PREPARE);
                let mut batches = batches.filter_map(|(_, m)| m.get(PREPARE_HEAD..));
                if let Some(batch) = batches.find(|batch| wire::digest(batch) == digest) {
                    let batch = encode_batch(self.pillar_of(&digest), batch);
                    scene.send(from, batch);
                }
            }
        }
        Some(message)
    }

    fn input(&mut self, scene: &mut Scene<'_>, input: Input) -> Option<Input> {
        match &input {
            Input::Pillar(
                pillar,
                ToPillar::Hybster(PillarInput::Abort { from, to, checkpoint }),
            ) => {
                if self.stable.last() != Some(from) {
                    self.stable.push(*from);
                }
                if self.checkpoints.last() != Some(checkpoint.as_ref()) {
                    self.checkpoints.push(CheckpointCertificate::clone(checkpoint));
                }
                if pillar.0 == 0 {
                    let lie = self.choose(scene);
                    let claim = self.claim(scene, *to, lie);
                    if let Some(change) = self.craft(scene, &claim) {
                        self.crafted.insert(*to, change);
                    }
                }
                // The core continues as if its pillar had answered.
                let Some(change) = self.crafted.get(to) else {
                    return Some(input);
                };
                let part = change.parts[usize::from(pillar.0)].clone();
                let part = ControlInput::Part { pillar: *pillar, to: *to, part };
                Some(Input::Control(part.into()))
            }
            Input::Pillar(pillar, ToPillar::Hybster(PillarInput::Enter { view, prepares, .. })) => {
                if self.stable.last().is_none_or(|last| last < view) {
                    self.stable.push(*view);
                }
                self.chains[usize::from(pillar.0)].retain(|link| link.to > *view);
                for header in prepares {
                    self.learn(scene.group, header);
                }
                Some(input)
            }
            _ => Some(input),
        }
    }

    fn ticks(&self) -> bool {
        self.spam_ppm > 0
    }

    fn tick(&mut self, scene: &mut Scene<'_>) {
        if !scene.random.chance(self.spam_ppm) || self.chains[0].len() >= MOST_LINKS {
            return;
        }
        let reached = scene.trinx[0].current(Counter::Ordering).view();
        let stable = self.stable.last().expect("view 0 at least").0;
        let to = match scene.random.below(60) {
            0 => u64::MAX,
            1..=4 => reached.max(stable).saturating_add(scene.random.between(2, 1_000)),
            _ => reached.max(stable).saturating_add(1),
        };
        let lie = self.choose(scene);
        let claim = self.claim(scene, View(to), lie);
        if let Some(change) = self.craft(scene, &claim) {
            scene.send_some(&change.encode());
        }
    }
}
