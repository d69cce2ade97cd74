//! Attacks on memory and attention: messages that cost their sender little and others much.

use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId};
use hybster_proto::internals::{Checkpoint, PrepareHeader};
use hybster_proto::wire::help::{OrderRequest, encode_batch_request};
use hybster_proto::wire::kind;
use hybster_proto::wire::state::{Fetch, MAX_FETCH, NodeId, StateRequest};
use hybster_tss::Digest;

use super::{Host, Scene};

/// Digests that one BATCH-REQUEST may name.
const DIGESTS: usize = 8;
/// Set in the level of nodes of the service's tree.
const SERVICE: u8 = 0x80;

/// What a flooder sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flood {
    /// BATCH-REQUESTs, mostly for batches that everybody holds.
    Batches,
    /// FETCHes of pages, of checkpoints that somebody holds.
    Fetches,
    /// Everything that asks for an answer.
    Questions,
    /// What anybody has sent before.
    Anything,
}

impl Flood {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Batches, Self::Fetches, Self::Questions, Self::Anything];
}

/// Sends a number of messages to each peer, again and again.
pub(super) struct Flooder {
    pub flood: Flood,
    pub count: u32,
}

impl Flooder {
    fn batches(scene: &mut Scene<'_>, to: ReplicaId) {
        let pillar = scene.any_pillar();
        let known = |scene: &mut Scene<'_>| {
            let (_, prepare) = scene.archive.any(kind::PREPARE, scene.random)?;
            let header = PrepareHeader::parse(&prepare).ok()?;
            Some((header.pillar, header.batch))
        };
        let (mut pillar, mut digests): (PillarId, Vec<Digest>) = (pillar, Vec::new());
        for _ in 0..DIGESTS {
            let (of, digest) = known(scene).unwrap_or((pillar, Digest([7; 32])));
            pillar = of;
            digests.push(digest);
        }
        scene.send(to, encode_batch_request(pillar, &digests));
    }

    fn fetch(scene: &mut Scene<'_>, to: ReplicaId) {
        let any = scene.archive.any(kind::CHECKPOINT, scene.random);
        let checkpoint = any.and_then(|(_, m)| Checkpoint::parse(&m, scene.group).ok());
        let order = checkpoint.map_or(OrderNumber(1), |checkpoint| checkpoint.id.order);
        let first = scene.random.below(4) * MAX_FETCH as u64;
        let level = SERVICE + scene.random.below(16).saturating_sub(14) as u8;
        let nodes = (0..MAX_FETCH as u64).map(|i| NodeId { level, index: first + i }).collect();
        scene.send(to, Fetch { order, nodes }.encode());
    }

    fn question(scene: &mut Scene<'_>, to: ReplicaId) {
        match scene.random.below(4) {
            0 => Self::batches(scene, to),
            1 => Self::fetch(scene, to),
            2 => {
                let pillar = scene.any_pillar();
                let from = scene.group.order_at(pillar, scene.random.below(40));
                let view = Default::default();
                scene.send(
                    to,
                    OrderRequest { pillar, is_returning: true, view, from, held: 0 }.encode(),
                );
            }
            _ => {
                let (latest, current) = Default::default();
                let request = StateRequest { latest, current, stable: OrderNumber(0) };
                scene.send(to, request.encode());
            }
        }
    }

    fn anything(scene: &mut Scene<'_>, to: ReplicaId) {
        let kinds = scene.archive.kinds();
        if kinds.is_empty() {
            return;
        }
        let kind = *scene.random.pick(&kinds);
        if let Some((_, message)) = scene.archive.any(kind, scene.random) {
            scene.send(to, message);
        }
    }
}

impl Host for Flooder {
    fn ticks(&self) -> bool {
        true
    }

    fn tick(&mut self, scene: &mut Scene<'_>) {
        for to in scene.peers() {
            for _ in 0..self.count {
                match self.flood {
                    Flood::Batches => Self::batches(scene, to),
                    Flood::Fetches => Self::fetch(scene, to),
                    Flood::Questions => Self::question(scene, to),
                    Flood::Anything => Self::anything(scene, to),
                }
            }
        }
    }
}
