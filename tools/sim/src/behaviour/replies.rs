//! Lies to clients.

use bytes::Bytes;
use hybster_proto::ids::{RequestNumber, View};
use hybster_proto::output::ClientLink;
use hybster_proto::wire::relay::RELAYED_HEAD;
use hybster_proto::wire::reply::{self, Replies, ReplyEntry};
use hybster_proto::wire::{ReplyStatus, kind, kind_of};

use super::{Host, Scene};

pub(super) struct ReplyLiar {
    pub ppm: u32,
}

impl Host for ReplyLiar {
    fn reply(&mut self, scene: &mut Scene<'_>, message: Bytes) -> Option<Bytes> {
        if !scene.random.chance(self.ppm) {
            return Some(message);
        }
        if kind_of(&message) == kind::RELAYED {
            return misused(scene, &message);
        }
        let replies = Replies::parse(&message).ok()?;
        let lie = scene.random.below(8);
        let view = match lie {
            0 => View(u64::MAX - scene.random.below(3)),
            1 => View(scene.random.below(50)),
            _ => replies.view,
        };
        let mut out = Vec::new();
        reply::begin(&mut out, scene.replica, view);
        for entry in replies.flatten() {
            let mut result = entry.result.to_vec();
            let mut false_entry = ReplyEntry { result: &[], ..entry };
            match lie {
                2 => false_entry.status = ReplyStatus::Evicted,
                3 => false_entry.status = ReplyStatus::Overloaded,
                4 => false_entry.number = RequestNumber(entry.number.0.wrapping_add(1)),
                // A register that looks right but holds something else.
                5 | 6 if result.len() > 1 => {
                    result[0] = 1;
                    result[1] ^= scene.random.below(4) as u8;
                }
                7 => result = vec![0; 9],
                _ => {}
            }
            false_entry.result = &result;
            reply::append(&mut out, &false_entry);
            if scene.random.chance(200_000) {
                // And contradicts itself.
                reply::append(&mut out, &ReplyEntry { result: entry.result, ..false_entry });
            }
        }
        Some(out.into())
    }
}

/// What a liar does to a reply that it should relay.
fn misused(scene: &mut Scene<'_>, message: &[u8]) -> Option<Bytes> {
    let mut message = message.to_vec();
    match scene.random.below(4) {
        // It was another's.
        0 => message[2] = scene.random.below(u64::from(scene.group.replicas) + 1) as u8,
        1 => {
            let last = message.len() - 1;
            message[last] ^= 1;
        }
        // It is the liar's own statement.
        2 => {
            message.drain(..RELAYED_HEAD);
        }
        _ => return None,
    }
    Some(message.into())
}

pub(super) struct Deaf {
    pub ppm: u32,
}

impl Host for Deaf {
    fn request(&mut self, scene: &mut Scene<'_>, _: ClientLink, message: Bytes) -> Option<Bytes> {
        (!scene.random.chance(self.ppm)).then_some(message)
    }
}
