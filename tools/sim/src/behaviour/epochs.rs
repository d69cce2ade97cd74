//! Liars at the end of an epoch: one that goes on in it with a replica that lags, and one that shows two lives.

use std::collections::BTreeMap;

use bytes::Bytes;
use hybster_proto::ids::{OrderNumber, PillarId, View};
use hybster_proto::internals::{
    Checkpoint, CheckpointCertificate, PrepareHeader, encode_state, parse_state,
};
use hybster_proto::wire::{kind, kind_of};

use super::{Departure, Host, Scene, forge};

/// Leads the old epoch beyond its boundary: shows those that lag a checkpoint from before, from which their windows would
/// reach further, the proposals up to the boundary, and one beyond it in each pillar.
#[derive(Default)]
pub(super) struct Overstayer {
    beyond: BTreeMap<PillarId, Bytes>,
}

impl Overstayer {
    /// The certificate of the last checkpoint before the boundary that names it, and the boundary.
    fn jump(scene: &Scene<'_>) -> Option<(CheckpointCertificate, OrderNumber)> {
        let mut votes: BTreeMap<OrderNumber, Vec<Checkpoint>> = BTreeMap::new();
        for (_, message) in scene.archive.of(kind::CHECKPOINT) {
            let Ok(vote) = Checkpoint::parse(message, scene.group) else { continue };
            let of = votes.entry(vote.id.order).or_default();
            if vote.ending.is_some_and(|it| it.boundary > vote.id.order)
                && of.iter().all(|known| known.sender != vote.sender)
            {
                of.push(vote);
            }
        }
        let enough = |votes: &&mut Vec<Checkpoint>| votes.len() >= scene.group.acknowledging();
        let votes = votes.values_mut().rev().find(enough)?;
        votes.sort_by_key(|vote| vote.sender);
        votes.truncate(scene.group.acknowledging());
        let (id, ending) = (votes[0].id, votes[0].ending?);
        let votes = votes.iter().map(|vote| (vote.sender, vote.proof)).collect();
        let certificate = CheckpointCertificate { id, ending: Some(Box::new(ending)), votes };
        Some((certificate, ending.boundary))
    }
}

impl Host for Overstayer {
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        // Nobody is told by it that the epoch is over.
        let is_end = kind_of(&leaving.message) == kind::STATE
            && parse_state(&leaving.message, scene.group)
                .is_ok_and(|it| it.boundary() == Some(it.id.order));
        if !is_end {
            send.push(leaving);
        }
    }

    fn ticks(&self) -> bool {
        true
    }

    fn tick(&mut self, scene: &mut Scene<'_>) {
        let Some((certificate, boundary)) = Self::jump(scene) else { return };
        let view = View(0);
        if scene.group.leader(view) != scene.replica {
            return;
        }
        let base = certificate.id.order;
        scene.send_all(&encode_state(&certificate));
        let proposals = scene.archive.of(kind::PREPARE);
        let missed = proposals.filter(|(_, message)| {
            PrepareHeader::parse(message).is_ok_and(|it| it.view == view && it.first > base)
        });
        let missed: Vec<Bytes> = missed.map(|(_, message)| message.clone()).collect();
        missed.iter().for_each(|message| scene.send_all(message));
        for pillar in scene.group.all_pillars() {
            let order = scene.group.order_at(pillar, scene.group.slots_before(boundary));
            let is_next = forge::next_order(scene, pillar, view) == Some(order);
            if is_next && !self.beyond.contains_key(&pillar) {
                let mut header = forge::header(scene, pillar, view, order);
                (header.noop, header.requests, header.time_ms) = (true, 0, 0);
                if forge::certify(&mut scene.trinx[usize::from(pillar.0)], &mut header, true) {
                    let message = Bytes::copy_from_slice(&header.encode());
                    self.beyond.insert(pillar, message);
                }
            }
            if let Some(message) = self.beyond.get(&pillar) {
                let message = message.clone();
                scene.send_all(&message);
            }
        }
    }
}

/// Has the trusted subsystems of two lives, and proposes something else to one peer with those of the earlier one.
#[derive(Default)]
pub(super) struct TwoLives {
    /// By pillar and order number.
    others: BTreeMap<(PillarId, OrderNumber), Bytes>,
}

impl Host for TwoLives {
    fn outgoing(
        &mut self,
        scene: &mut Scene<'_>,
        mut leaving: Departure,
        send: &mut Vec<Departure>,
    ) {
        let is_proposal = kind_of(&leaving.message) == kind::PREPARE;
        let first = scene.peers().next();
        if let (true, Some(peer), Ok(header)) =
            (is_proposal, first, PrepareHeader::parse(&leaving.message))
            && leaving.to == peer
            && scene.group.leader(header.view) == scene.replica
            && let Some(other) = scene.earlier.get_mut(usize::from(header.pillar.0))
        {
            let known = self.others.get(&(header.pillar, header.first)).cloned();
            let message = known.or_else(|| {
                let mut lie = PrepareHeader { noop: true, requests: 0, time_ms: 0, ..header };
                lie.batch = hybster_proto::wire::digest(&[]);
                forge::certify(other, &mut lie, true).then(|| Bytes::copy_from_slice(&lie.encode()))
            });
            if let Some(message) = message {
                self.others.insert((header.pillar, header.first), message.clone());
                leaving.message = message;
            }
        }
        send.push(leaving);
    }
}
