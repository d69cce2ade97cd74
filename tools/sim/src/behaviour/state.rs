//! Lies about checkpoints and states.

use bytes::Bytes;
use hybster_proto::ids::OrderNumber;
use hybster_proto::internals::{Checkpoint, CheckpointCertificate, encode_state, parse_state};
use hybster_proto::membership::Ending;
use hybster_proto::wire::state::Fetched;
use hybster_proto::wire::{CheckpointId, kind, kind_of};
use hybster_tss::{Digest, Proof, TrInX};

use super::{Departure, Host, Scene, wire};

pub(super) struct StateLiar {
    pub ppm: u32,
}

impl StateLiar {
    fn lie(scene: &mut Scene<'_>, message: &Bytes) -> Option<Bytes> {
        match kind_of(message) {
            kind::FETCHED => {
                let mut fetched = Fetched::parse(message).ok()?;
                match scene.random.below(5) {
                    0 => fetched.content = None,
                    1 => fetched.content = Some(Bytes::new()),
                    2 => {
                        let content = fetched.content.clone().unwrap_or_default();
                        fetched.content = Some(wire::flipped(scene, &content));
                    }
                    // The content of another page, or of another checkpoint.
                    3 => {
                        let (_, other) = scene.archive.any(kind::FETCHED, scene.random)?;
                        fetched.content = Fetched::parse(&other).ok()?.content;
                    }
                    _ => return None,
                }
                Some(fetched.encode())
            }
            kind::STATE => {
                let mut certificate = parse_state(message, scene.group).ok()?;
                match scene.random.below(4) {
                    0 => certificate.id.digest = Digest([9; 32]),
                    1 => drop(certificate.votes.pop()),
                    2 => certificate.id.order.0 += scene.group.checkpoint_interval,
                    _ => return scene.archive.any(kind::STATE, scene.random).map(|(_, m)| m),
                }
                Some(encode_state(&certificate))
            }
            _ => Some(message.clone()),
        }
    }
}

impl Host for StateLiar {
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        let lie = matches!(kind_of(&leaving.message), kind::FETCHED | kind::STATE)
            && scene.random.chance(self.ppm);
        if !lie {
            return send.push(leaving);
        }
        if let Some(message) = Self::lie(scene, &leaving.message) {
            send.push(Departure { message, ..leaving });
        }
    }
}

pub(super) struct HoldsNothing;

impl Host for HoldsNothing {
    fn outgoing(&mut self, _: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        let fetched = match kind_of(&leaving.message) {
            kind::FETCHED => Fetched::parse(&leaving.message).ok(),
            _ => None,
        };
        match fetched {
            Some(fetched) => {
                let message = Fetched { content: None, ..fetched }.encode();
                send.push(Departure { message, ..leaving });
            }
            None => send.push(leaving),
        }
    }
}

pub(super) struct CheckpointLiar {
    pub ppm: u32,
}

impl CheckpointLiar {
    fn certified(
        scene: &mut Scene<'_>,
        id: CheckpointId,
        ending: Option<Ending>,
    ) -> Option<Checkpoint> {
        let pillar = scene.group.checkpoint_pillar(id.order);
        let digest = Checkpoint::certified(scene.replica, pillar, &id, ending.as_ref());
        let mac = scene.trinx[usize::from(pillar.0)].certify_mac(&digest).ok()?;
        Some(Checkpoint { sender: scene.replica, id, ending, proof: mac.proof })
    }
}

impl Host for CheckpointLiar {
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        if kind_of(&leaving.message) == kind::CHECKPOINT
            && scene.random.chance(self.ppm)
            && let Ok(mut lie) = Checkpoint::parse(&leaving.message, scene.group)
        {
            // Another one for each peer.
            lie.id.digest.0[0] = scene.random.below(4) as u8;
            if let Some(lie) = Self::certified(scene, lie.id, lie.ending) {
                return send.push(Departure { message: lie.encode(scene.group), ..leaving });
            }
        }
        send.push(leaving);
    }

    fn ticks(&self) -> bool {
        true
    }

    fn tick(&mut self, scene: &mut Scene<'_>) {
        if !scene.random.chance(self.ppm) {
            return;
        }
        let seen = scene.archive.of(kind::CHECKPOINT).next_back();
        let parsed = seen.and_then(|(_, m)| Checkpoint::parse(m, scene.group).ok());
        let around = parsed.map_or(0, |c| c.id.order.0);
        let interval = scene.group.checkpoint_interval;
        let order = OrderNumber(around + interval * scene.random.between(0, 12));
        if order.0 == 0 {
            return;
        }
        let id = CheckpointId { order, digest: Digest([scene.random.below(3) as u8; 32]) };
        let Some(own) = Self::certified(scene, id, None) else {
            return;
        };
        scene.send_some(&own.encode(scene.group));
        // A certificate with one voter, and one with made-up voters.
        let mut votes = vec![(scene.replica, own.proof)];
        if scene.random.chance(500_000) {
            votes.extend(scene.peers().map(|peer| (peer, Proof([7; 32]))));
            votes.sort_by_key(|(replica, _)| *replica);
        }
        scene.send_some(&encode_state(&CheckpointCertificate { id, ending: None, votes }));
    }
}
