//! What faulty hosts do: hooks around the real core, so that behaviours can be combined.
//!
//! A host owns its replica's network and the inputs between its stages, but not its TrInX: through
//! [`Scene::trinx`] it may certify what it likes, as far as the counters let it. It keeps every
//! message that any replica ever sent ([`Archive`]). A faulty replica has any number of behaviours:
//! what one lets leave passes through the next.

mod archive;
mod epochs;
mod flood;
mod forge;
mod leaving_out;
mod new_view;
mod order;
mod pbft;
mod replies;
mod services;
mod state;
mod twin;
mod views;
mod wire;

use bytes::Bytes;
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{PillarId, ReplicaId};
use hybster_proto::output::{ClientLink, Input};
use hybster_proto::protocol::Protocol;
use hybster_proto::time::{Time, WallClock};

use crate::random::Random;
use crate::watched::Watched;

pub use archive::Archive;
pub use flood::Flood;
pub use order::Trick;
pub use pbft::PbftLie;
pub(crate) use twin::Workshop;
pub use views::Lie;

/// A message that leaves a host.
#[derive(Clone, Debug)]
pub struct Departure {
    /// The peer that gets it.
    pub to: ReplicaId,
    /// The message.
    pub message: Bytes,
    /// How long the host keeps it back, in microseconds.
    pub delay_us: u64,
}

/// Where a hook is.
pub struct Scene<'a> {
    /// The replica's clock.
    pub now: Time,
    /// The host's time of day.
    pub clock: WallClock,
    /// The replica.
    pub replica: ReplicaId,
    /// The group.
    pub group: &'a GroupConfig,
    /// Chance.
    pub random: &'a mut Random,
    /// Its trusted subsystems, one per pillar: shared with the core.
    pub trinx: &'a mut [Watched],
    /// Those of the life that the replica had before this one, if it was replaced and they were kept.
    pub earlier: &'a mut [Watched],
    /// Everything that was ever sent.
    pub archive: &'a Archive,
    /// What the host sends of its own accord; it passes through no further hook.
    pub own: &'a mut Vec<Departure>,
}

impl Scene<'_> {
    /// The other replicas.
    pub fn peers(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let own = self.replica;
        self.group.all_replicas().filter(move |r| *r != own)
    }

    /// What the host's clock shows, in milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        self.clock.unix_ms(self.now)
    }

    /// Sends a message to a peer.
    pub fn send(&mut self, to: ReplicaId, message: Bytes) {
        self.own.push(Departure { to, message, delay_us: 0 });
    }

    /// Sends a message to all peers.
    pub fn send_all(&mut self, message: &Bytes) {
        for peer in self.peers() {
            self.send(peer, message.clone());
        }
    }

    /// Sends a message to some peers, at least one.
    pub fn send_some(&mut self, message: &Bytes) {
        let peers: Vec<ReplicaId> = self.peers().collect();
        let count = self.random.between(1, peers.len() as u64) as usize;
        for peer in self.random.sample(&peers, count) {
            self.send(peer, message.clone());
        }
    }

    /// Any pillar.
    pub fn any_pillar(&mut self) -> PillarId {
        PillarId(self.random.below(self.group.pillars.into()) as u16)
    }
}

/// The hooks of a host. Each default does what an honest host does.
pub trait Host {
    /// A message is about to be sent to a peer; those pushed to `send` are sent instead.
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        let _ = scene;
        send.push(leaving);
    }

    /// A message arrived from a peer; the core gets the returned ones.
    fn incoming(
        &mut self,
        scene: &mut Scene<'_>,
        from: ReplicaId,
        message: Bytes,
    ) -> Option<Bytes> {
        let _ = (scene, from);
        Some(message)
    }

    /// An input passes between two stages; its receiver gets the returned ones.
    fn input(&mut self, scene: &mut Scene<'_>, input: Input) -> Option<Input> {
        let _ = scene;
        Some(input)
    }

    /// A message arrived from a client; the core gets the returned ones.
    fn request(
        &mut self,
        scene: &mut Scene<'_>,
        link: ClientLink,
        message: Bytes,
    ) -> Option<Bytes> {
        let _ = (scene, link);
        Some(message)
    }

    /// Replies are about to be sent to a client; the returned ones are sent instead.
    fn reply(&mut self, scene: &mut Scene<'_>, message: Bytes) -> Option<Bytes> {
        let _ = scene;
        Some(message)
    }

    /// Whether the host wants [`Host::tick`].
    fn ticks(&self) -> bool {
        false
    }

    /// Now and then.
    fn tick(&mut self, scene: &mut Scene<'_>) {
        let _ = scene;
    }
}

/// A behaviour as data, for scenarios. Rates are in millionths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Does its part as a follower, but proposes nothing and establishes no view.
    SilentLeader,
    /// Changes a bit of some messages after they were certified.
    Corrupter {
        /// Of how many.
        ppm: u32,
    },
    /// Sends some messages to some peers only.
    Splitter {
        /// How many are kept back.
        ppm: u32,
    },
    /// Keeps back the batches that it certified, and sends each PREPARE to one peer only.
    Withholder,
    /// Says nothing in one pillar.
    SilentPillar(u16),
    /// Sends everything almost too late.
    Slowpoke {
        /// How much too late.
        by_us: u64,
    },
    /// Sends old messages of everybody again, as they were or with their fields exchanged.
    Replayer {
        /// How often.
        ppm: u32,
    },
    /// Orders nothing of one client, whoever brings it.
    LeavesOut {
        /// The client object with this index.
        client: u32,
    },
    /// Does something with the batches that it should propose.
    OrderLiar(Trick, u32),
    /// Acknowledges what it should not.
    VoteLiar {
        /// How often.
        ppm: u32,
    },
    /// Makes its own VIEW-CHANGEs: hides, mixes, claims.
    ViewLiar {
        /// How often it lies.
        ppm: u32,
        /// How often it asks for a later view without any reason.
        spam_ppm: u32,
    },
    /// Makes its own VIEW-CHANGEs, always with the same lie.
    ViewAttack(Lie),
    /// Acknowledges what it hears from leaders without a certificate, and certifies nothing.
    HollowVoter,
    /// Acknowledges views in which it took part, and views that never were.
    FalseAck {
        /// How often.
        ppm: u32,
    },
    /// Re-issues something else than the abort states demand.
    NewViewLiar {
        /// How often.
        ppm: u32,
    },
    /// Re-issues what the abort states demand, at other times.
    Retimer {
        /// How often.
        ppm: u32,
    },
    /// Builds its own NEW-VIEWs from any VIEW-CHANGEs and NEW-VIEW-ACKs that it finds.
    NewViewForger {
        /// How often.
        ppm: u32,
    },
    /// Lies when others fetch a state.
    StateLiar {
        /// How often.
        ppm: u32,
    },
    /// Says that it holds no checkpoint.
    HoldsNothing,
    /// Vouches for checkpoints that never were.
    CheckpointLiar {
        /// How often.
        ppm: u32,
    },
    /// Lies to clients.
    ReplyLiar {
        /// How often.
        ppm: u32,
    },
    /// Hears no clients.
    Deaf {
        /// How many messages are lost on it.
        ppm: u32,
    },
    /// Sends this many messages to each peer at a time, again and again.
    Flooder {
        /// Which.
        flood: Flood,
        /// How many.
        count: u32,
    },
    /// Leads an epoch beyond its end, with those that lag.
    Overstayer,
    /// Keeps the trusted subsystems of its earlier life, and uses both.
    TwoLives,
    /// Runs a service of its own: its pages are not those of others, and its answers are.
    OtherService,
    /// In a group that runs PBFT: lies about something, and tells each peer another story.
    PbftLiar(PbftLie, u32),
    /// Runs a second core on the same TrInX instances, with another part of the group.
    SharedTwin,
    /// Runs a second core on a clone of its TrInX instances: what must not be possible.
    #[cfg(feature = "controls")]
    ClonedTwin,
}

impl Behaviour {
    pub(crate) fn build(self, workshop: &Workshop<'_>) -> Box<dyn Host> {
        match self {
            Self::SilentLeader => Box::new(wire::SilentLeader),
            Self::Corrupter { ppm } => Box::new(wire::Corrupter { ppm }),
            Self::Splitter { ppm } => Box::new(wire::Splitter { ppm }),
            Self::Withholder => Box::new(wire::Withholder),
            Self::SilentPillar(pillar) => Box::new(wire::SilentPillar { pillar }),
            Self::Slowpoke { by_us } => Box::new(wire::Slowpoke { by_us }),
            Self::Replayer { ppm } => Box::new(wire::Replayer { ppm }),
            Self::LeavesOut { client } => Box::new(leaving_out::LeavesOut { client }),
            Self::OrderLiar(trick, ppm) => Box::new(order::OrderLiar::new(trick, ppm)),
            Self::VoteLiar { ppm } => Box::new(order::VoteLiar { ppm }),
            Self::ViewLiar { ppm, spam_ppm } => {
                Box::new(views::ViewLiar::new(ppm, spam_ppm, workshop.config))
            }
            Self::ViewAttack(lie) => Box::new(views::ViewLiar::with(lie, workshop.config)),
            Self::HollowVoter => Box::new(order::HollowVoter),
            Self::FalseAck { ppm } => Box::new(new_view::FalseAck { ppm }),
            Self::NewViewLiar { ppm } => Box::new(new_view::NewViewLiar { ppm, times_only: false }),
            Self::Retimer { ppm } => Box::new(new_view::NewViewLiar { ppm, times_only: true }),
            Self::NewViewForger { ppm } => Box::new(new_view::NewViewForger { ppm }),
            Self::StateLiar { ppm } => Box::new(state::StateLiar { ppm }),
            Self::HoldsNothing => Box::new(state::HoldsNothing),
            Self::CheckpointLiar { ppm } => Box::new(state::CheckpointLiar { ppm }),
            Self::ReplyLiar { ppm } => Box::new(replies::ReplyLiar { ppm }),
            Self::Deaf { ppm } => Box::new(replies::Deaf { ppm }),
            Self::Flooder { flood, count } => Box::new(flood::Flooder { flood, count }),
            Self::Overstayer => Box::new(epochs::Overstayer::default()),
            Self::TwoLives => Box::new(epochs::TwoLives::default()),
            Self::OtherService => Box::new(services::OtherService),
            Self::PbftLiar(lie, ppm) => Box::new(pbft::PbftLiar { lie, ppm }),
            Self::SharedTwin => Box::new(twin::Twin::new(workshop, workshop.trinx.to_vec())),
            #[cfg(feature = "controls")]
            Self::ClonedTwin => {
                let clones = workshop.trinx.iter().map(Watched::cloned_for_attack).collect();
                Box::new(twin::Twin::new(workshop, clones))
            }
        }
    }

    /// Any behaviour that an honest TrInX allows.
    pub(crate) fn random(r: &mut Random, group: &GroupConfig) -> Self {
        let ppm = *r.pick(&[2_000, 20_000, 100_000, 300_000, 1_000_000]);
        if group.protocol == Protocol::Pbft {
            return Self::random_pbft(r, group, ppm);
        }
        match r.below(24) {
            0 => Self::SilentLeader,
            1 => Self::Corrupter { ppm: ppm.min(300_000) },
            2 => Self::Splitter { ppm },
            3 => Self::Withholder,
            4 => Self::SilentPillar(r.below(group.pillars.into()) as u16),
            5 => Self::Slowpoke { by_us: group.request_timeout_us * r.between(1, 9) / 10 },
            6 | 7 => Self::Replayer { ppm },
            8..=12 => Self::OrderLiar(*r.pick(&Trick::ALL), ppm),
            13 => Self::VoteLiar { ppm },
            14..=16 => Self::ViewLiar { ppm, spam_ppm: *r.pick(&[0, 0, 0, 5_000, 100_000]) },
            17 => Self::FalseAck { ppm },
            18 => Self::NewViewLiar { ppm },
            19 => Self::NewViewForger { ppm },
            20 => Self::StateLiar { ppm },
            21 => Self::CheckpointLiar { ppm },
            22 => *r.pick(&[Self::ReplyLiar { ppm }, Self::Deaf { ppm }]),
            _ => Self::SharedTwin,
        }
    }

    /// Any behaviour in a group that runs PBFT.
    fn random_pbft(r: &mut Random, group: &GroupConfig, ppm: u32) -> Self {
        match r.below(24) {
            0 => Self::SilentLeader,
            1 => Self::Corrupter { ppm: ppm.min(300_000) },
            2 => Self::Splitter { ppm },
            3 => Self::Withholder,
            4 => Self::SilentPillar(r.below(group.pillars.into()) as u16),
            5 => Self::Slowpoke { by_us: group.request_timeout_us * r.between(1, 9) / 10 },
            6 => Self::Replayer { ppm },
            7 => Self::StateLiar { ppm },
            8 => *r.pick(&[Self::ReplyLiar { ppm }, Self::Deaf { ppm }]),
            9 => Self::HoldsNothing,
            // Without counters a second core can say anything.
            10..=12 => Self::SharedTwin,
            _ => Self::PbftLiar(*r.pick(&PbftLie::ALL), ppm),
        }
    }
}
