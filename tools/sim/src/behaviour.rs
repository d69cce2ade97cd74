//! What faulty hosts do: hooks around the real core, so that behaviours can be combined.
//!
//! A host owns its replica's network and the letters between its stages, but not its TrInX: through
//! [`Scene::trinx`] it may certify what it likes, as far as the counters let it.

use bytes::{Bytes, BytesMut};
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::ReplicaId;
use hybster_proto::output::Letter;
use hybster_proto::time::Time;
use hybster_proto::wire::{kind, kind_of};

use crate::random::Random;
use crate::watched::Watched;

/// Where a hook stands.
pub struct Scene<'a> {
    /// The replica's clock.
    pub now: Time,
    /// The replica.
    pub replica: ReplicaId,
    /// The group.
    pub group: &'a GroupConfig,
    /// Chance.
    pub random: &'a mut Random,
    /// Its trusted subsystems, one per pillar: shared with the core.
    pub trinx: &'a mut [Watched],
}

/// The hooks of a host. Each default does what an honest host does.
pub trait Host {
    /// A message is about to leave for a peer; what is pushed to `send` leaves instead.
    fn outgoing(
        &mut self,
        scene: &mut Scene<'_>,
        to: ReplicaId,
        message: Bytes,
        send: &mut Vec<(ReplicaId, Bytes)>,
    ) {
        let _ = scene;
        send.push((to, message));
    }

    /// A message arrived from a peer; the core gets what is returned.
    fn incoming(
        &mut self,
        scene: &mut Scene<'_>,
        from: ReplicaId,
        message: Bytes,
    ) -> Option<Bytes> {
        let _ = (scene, from);
        Some(message)
    }

    /// A letter passes between two stages; its receiver gets what is returned.
    fn letter(&mut self, scene: &mut Scene<'_>, letter: Letter) -> Option<Letter> {
        let _ = scene;
        Some(letter)
    }
}

/// A behaviour as data, for scenarios.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Does its part as a follower, but proposes nothing and establishes no view.
    SilentLeader,
    /// Changes a byte of some messages after they were certified.
    Corrupter {
        /// Of how many.
        ppm: u32,
    },
}

impl Behaviour {
    /// The hooks.
    #[must_use]
    pub fn build(self) -> Box<dyn Host> {
        match self {
            Behaviour::SilentLeader => Box::new(SilentLeader),
            Behaviour::Corrupter { ppm } => Box::new(Corrupter { ppm }),
        }
    }
}

struct SilentLeader;

impl Host for SilentLeader {
    fn outgoing(
        &mut self,
        _: &mut Scene<'_>,
        to: ReplicaId,
        message: Bytes,
        send: &mut Vec<(ReplicaId, Bytes)>,
    ) {
        if !matches!(kind_of(&message), kind::PREPARE | kind::NEW_VIEW) {
            send.push((to, message));
        }
    }
}

struct Corrupter {
    ppm: u32,
}

impl Host for Corrupter {
    fn outgoing(
        &mut self,
        scene: &mut Scene<'_>,
        to: ReplicaId,
        message: Bytes,
        send: &mut Vec<(ReplicaId, Bytes)>,
    ) {
        if !scene.random.chance(self.ppm) || message.is_empty() {
            return send.push((to, message));
        }
        let mut changed = BytesMut::from(&message[..]);
        let at = scene.random.index(changed.len());
        changed[at] ^= 1 << scene.random.below(8);
        send.push((to, changed.freeze()));
    }
}
