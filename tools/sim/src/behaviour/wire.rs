//! Behaviours that need no certificate: what a host can do to messages in transit.

use bytes::{Bytes, BytesMut};
use hybster_proto::internals::pbft;
use hybster_proto::wire::{kind, kind_of, pillar_field};

use super::{Departure, Host, Scene};

pub(super) struct SilentLeader;

impl Host for SilentLeader {
    fn outgoing(&mut self, _: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        let leads = [kind::PREPARE, kind::NEW_VIEW, pbft::kind::PRE_PREPARE, pbft::kind::NEW_VIEW];
        if !leads.contains(&kind_of(&leaving.message)) {
            send.push(leaving);
        }
    }
}

pub(super) struct Corrupter {
    pub ppm: u32,
}

/// The message with one bit changed.
pub(super) fn flipped(scene: &mut Scene<'_>, message: &Bytes) -> Bytes {
    if message.is_empty() {
        return message.clone();
    }
    let mut changed = BytesMut::from(&message[..]);
    let at = scene.random.index(changed.len());
    changed[at] ^= 1 << scene.random.below(8);
    changed.freeze()
}

impl Host for Corrupter {
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        if !scene.random.chance(self.ppm) || leaving.message.is_empty() {
            return send.push(leaving);
        }
        let message = flipped(scene, &leaving.message);
        send.push(Departure { message, ..leaving });
    }
}

pub(super) struct Splitter {
    pub ppm: u32,
}

impl Host for Splitter {
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        if !scene.random.chance(self.ppm) {
            send.push(leaving);
        }
    }
}

pub(super) struct Withholder;

impl Host for Withholder {
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        match kind_of(&leaving.message) {
            kind::BATCH | pbft::kind::BODY => {}
            kind::PREPARE | pbft::kind::PRE_PREPARE => {
                // The same peer for one order number, whatever else happens to it.
                let order = leaving.message.get(16).copied().unwrap_or(0);
                let peers = u64::from(scene.group.replicas) - 1;
                let skip = u64::from(order) % peers;
                if scene.peers().nth(skip as usize) == Some(leaving.to) {
                    send.push(leaving);
                }
            }
            _ => send.push(leaving),
        }
    }
}

pub(super) struct SilentPillar {
    pub pillar: u16,
}

impl Host for SilentPillar {
    fn outgoing(&mut self, _: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        let of_pillar = matches!(
            kind_of(&leaving.message),
            kind::PREPARE
                | kind::COMMIT
                | kind::CHECKPOINT
                | kind::BATCH
                | kind::BATCH_REQUEST
                | pbft::kind::PRE_PREPARE
                | pbft::kind::PREPARE
                | pbft::kind::COMMIT
                | pbft::kind::CHECKPOINT
                | pbft::kind::BODY
                | pbft::kind::BODY_REQUEST
        ) && pillar_field(&leaving.message).is_some_and(|p| p.0 == self.pillar);
        if !of_pillar {
            send.push(leaving);
        }
    }
}

pub(super) struct Slowpoke {
    pub by_us: u64,
}

impl Host for Slowpoke {
    fn outgoing(&mut self, _: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        send.push(Departure { delay_us: leaving.delay_us + self.by_us, ..leaving });
    }
}

pub(super) struct Replayer {
    pub ppm: u32,
}

impl Replayer {
    /// An old message of anybody; now and then with its sender, pillar or position exchanged.
    fn old(scene: &mut Scene<'_>) -> Option<Bytes> {
        let kinds = scene.archive.kinds();
        if kinds.is_empty() {
            return None;
        }
        let kind = *scene.random.pick(&kinds);
        let (_, message) = scene.archive.any(kind, scene.random)?;
        let offset = match scene.random.below(8) {
            0 => 2,  // pillar, or sender of VIEW-CHANGE and NEW-VIEW-ACK
            1 => 4,  // sender
            2 => 8,  // view, or order number of CHECKPOINT
            3 => 16, // first order number
            _ => return Some(message),
        };
        if message.len() < offset + 2 {
            return Some(message);
        }
        let mut changed = BytesMut::from(&message[..]);
        let limit = u64::from(scene.group.replicas.max(scene.group.pillars)) + 1;
        changed[offset] = scene.random.below(limit) as u8;
        Some(changed.freeze())
    }
}

impl Host for Replayer {
    fn ticks(&self) -> bool {
        true
    }

    fn tick(&mut self, scene: &mut Scene<'_>) {
        for _ in 0..4 {
            if scene.random.chance(self.ppm)
                && let Some(message) = Self::old(scene)
            {
                scene.send_some(&message);
            }
        }
    }
}
