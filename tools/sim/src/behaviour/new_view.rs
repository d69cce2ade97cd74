//! Lies about new views: what they re-issue, what justifies them, who acknowledged them.

use std::collections::BTreeMap;

use hybster_proto::ids::{PillarId, ReplicaId, View};
use hybster_proto::internals::{
    CheckpointCertificate, NewView, NewViewAck, PillarInput, PrepareHeader, ViewChange,
};
use hybster_proto::output::{Input, ToPillar};
use hybster_proto::wire::{self, kind};
use hybster_tss::{Counter, CounterValue, Proof, TrInX};

use super::forge::certify;
use super::{Host, Scene};

pub(super) struct FalseAck {
    pub ppm: u32,
}

impl Host for FalseAck {
    fn ticks(&self) -> bool {
        true
    }

    fn tick(&mut self, scene: &mut Scene<'_>) {
        if !scene.random.chance(self.ppm) {
            return;
        }
        let seen: Vec<NewView> = scene
            .archive
            .of(kind::NEW_VIEW)
            .filter_map(|(_, m)| NewView::parse(m, scene.group).ok())
            .collect();
        let mut ack = match seen.last() {
            Some(last) => {
                let any = &seen[scene.random.index(seen.len())];
                let new_view = if scene.random.chance(700_000) { last } else { any };
                NewViewAck {
                    sender: scene.replica,
                    view: new_view.view,
                    checkpoint: new_view.checkpoint.clone(),
                    prepared: new_view.prepares.clone(),
                    proof: Proof([0; 32]),
                }
            }
            // Of a view that no replica established.
            None => NewViewAck {
                sender: scene.replica,
                view: View(scene.random.below(4)),
                checkpoint: CheckpointCertificate::default(),
                prepared: vec![Vec::new(); usize::from(scene.group.pillars)],
                proof: Proof([0; 32]),
            },
        };
        match scene.random.below(8) {
            0 => ack.prepared.iter_mut().for_each(|set| set.truncate(1)),
            1 => ack.prepared.iter_mut().for_each(Vec::clear),
            2 => ack.prepared.iter_mut().for_each(|set| set.reverse()),
            3 => ack.checkpoint.votes.truncate(1),
            4 => ack.sender = ReplicaId(scene.random.below(scene.group.replicas.into()) as u16),
            _ => {}
        }
        if let Ok(mac) = scene.trinx[0].certify_mac(&ack.digest()) {
            ack.proof = mac.proof;
            scene.send_some(&ack.encode());
        }
    }
}

pub(super) struct NewViewLiar {
    pub ppm: u32,
    /// Whether it lies about nothing but times.
    pub times_only: bool,
}

/// The same batches at other times.
fn other_times(scene: &mut Scene<'_>, prepared: &mut [PrepareHeader]) {
    let off_ms = scene.random.between(1, scene.group.max_clock_skew_ms);
    for header in prepared.iter_mut().filter(|header| !header.noop) {
        header.time_ms = header.time_ms.saturating_add(off_ms);
    }
}

/// Another P' of a pillar.
fn other_prepares(scene: &mut Scene<'_>, prepared: &mut Vec<PrepareHeader>) {
    match scene.random.below(6) {
        0 => prepared.truncate(prepared.len().saturating_sub(1)),
        1 => prepared.clear(),
        2 => {
            // No-ops instead of batches, for which no replica needs a body.
            for header in prepared.iter_mut() {
                (header.noop, header.requests, header.time_ms) = (true, 0, 0);
                header.batch = wire::digest(&[]);
            }
        }
        3 if prepared.len() > 1 => {
            let (first, last) = (prepared[0], prepared[prepared.len() - 1]);
            let changed = prepared.last_mut().expect("it has two");
            *changed = PrepareHeader { first: last.first, last: last.last, ..first };
        }
        4 => other_times(scene, prepared),
        _ => {
            let Some(last) = prepared.last().copied() else { return };
            let step = u64::from(scene.group.pillars);
            let mut more = PrepareHeader { noop: true, requests: 0, time_ms: 0, ..last };
            (more.first.0, more.last.0) = (last.last.0 + step, last.last.0 + step);
            more.batch = wire::digest(&[]);
            prepared.push(more);
        }
    }
}

impl Host for NewViewLiar {
    fn input(&mut self, scene: &mut Scene<'_>, input: Input) -> Option<Input> {
        Some(match input {
            Input::Pillar(
                pillar,
                ToPillar::Hybster(PillarInput::Establish { view, mut prepared }),
            ) => {
                if scene.random.chance(self.ppm) {
                    match self.times_only {
                        true => other_times(scene, &mut prepared),
                        false => other_prepares(scene, &mut prepared),
                    }
                }
                Input::Pillar(pillar, PillarInput::Establish { view, prepared }.into())
            }
            other => other,
        })
    }
}

pub(super) struct NewViewForger {
    pub ppm: u32,
}

impl NewViewForger {
    /// VIEW-CHANGEs of different senders for one view that this replica leads.
    fn changes(scene: &mut Scene<'_>) -> Option<(View, Vec<ViewChange>)> {
        let mut by_view: BTreeMap<View, BTreeMap<ReplicaId, ViewChange>> = BTreeMap::new();
        let reached = scene.trinx[0].current(Counter::NewView).view();
        for (_, message) in scene.archive.of(kind::VIEW_CHANGE) {
            let Ok(change) = ViewChange::parse(message, scene.group) else { continue };
            let leads = scene.group.leader(change.to) == scene.replica;
            // Of several of one sender any one.
            if leads && change.to.0 > reached && scene.random.chance(700_000) {
                by_view.entry(change.to).or_default().insert(change.sender, change);
            }
        }
        let views: Vec<View> = by_view.keys().copied().collect();
        if views.is_empty() {
            return None;
        }
        let view = *scene.random.pick(&views);
        let mut changes: Vec<ViewChange> = by_view.remove(&view)?.into_values().collect();
        let quorum = scene.group.quorum();
        while changes.len() > quorum || (changes.len() > 1 && scene.random.chance(200_000)) {
            changes.remove(scene.random.index(changes.len()));
        }
        Some((view, changes))
    }

    fn acks(scene: &mut Scene<'_>) -> Vec<NewViewAck> {
        let mut acks = BTreeMap::new();
        for (_, message) in scene.archive.of(kind::NEW_VIEW_ACK) {
            if let Ok(ack) = NewViewAck::parse(message, scene.group)
                && scene.random.chance(500_000)
            {
                acks.insert(ack.sender, ack);
            }
        }
        acks.into_values().collect()
    }

    fn forge(scene: &mut Scene<'_>) -> Option<NewView> {
        let (view, view_changes) = Self::changes(scene)?;
        let mut acks = Self::acks(scene);
        let highest = view_changes.iter().map(|c| c.from).max()?;
        if scene.random.chance(800_000) {
            acks.retain(|ack| ack.view == highest);
        }
        let certificates = view_changes.iter().map(|c| &c.checkpoint);
        let certificates = certificates.chain(acks.iter().map(|a| &a.checkpoint));
        let checkpoint = match scene.random.below(6) {
            0 => certificates.min_by_key(|c| c.id.order)?.clone(),
            _ => certificates.max_by_key(|c| c.id.order)?.clone(),
        };
        let base = checkpoint.id.order;
        let merge = scene.random.chance(200_000);
        let mut prepares = Vec::new();
        for pillar in scene.group.all_pillars() {
            let p = usize::from(pillar.0);
            let of_changes = view_changes.iter().filter(|c| c.from == highest || merge);
            let sets = of_changes.map(|c| &c.parts[p].prepared);
            let sets = sets.chain(acks.iter().map(|a| &a.prepared[p]));
            let longest = sets.max_by_key(|set| set.last().map_or(0, |h| h.last.0))?;
            let mut demanded: Vec<PrepareHeader> =
                longest.iter().filter(|h| h.last > base).copied().collect();
            if scene.random.chance(100_000) {
                other_prepares(scene, &mut demanded);
            }
            prepares.push(Self::reissue(scene, pillar, view, demanded)?);
        }
        let proof = Proof([0; 32]);
        let mut new_view = NewView { view, checkpoint, view_changes, acks, prepares, proof };
        let value = CounterValue::new(view.0, 0);
        let digest = new_view.digest();
        let certificate = scene.trinx[0].certify_independent(Counter::NewView, value, &digest);
        new_view.proof = certificate.ok()?.proof;
        Some(new_view)
    }

    fn reissue(
        scene: &mut Scene<'_>,
        pillar: PillarId,
        view: View,
        mut headers: Vec<PrepareHeader>,
    ) -> Option<Vec<PrepareHeader>> {
        let trinx = &mut scene.trinx[usize::from(pillar.0)];
        trinx.forward(Counter::Ordering, CounterValue::new(view.0, 0)).ok()?;
        for header in &mut headers {
            (header.view, header.previous) = (view, CounterValue::ZERO);
            let continuing = header.noop;
            if !certify(trinx, header, continuing) {
                return None;
            }
        }
        Some(headers)
    }
}

impl Host for NewViewForger {
    fn ticks(&self) -> bool {
        true
    }

    fn tick(&mut self, scene: &mut Scene<'_>) {
        if scene.random.chance(self.ppm)
            && let Some(new_view) = Self::forge(scene)
        {
            scene.send_some(&new_view.encode());
        }
    }
}
