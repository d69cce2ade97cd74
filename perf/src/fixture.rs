//! Keys, configuration and requests for benchmarks.

use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::config::GroupConfig;
use hybster_proto::execution::Execution;
use hybster_proto::hybster::Hybster;
use hybster_proto::ids::{ClientId, PillarId, ReplicaId, RequestNumber, SessionId};
use hybster_proto::internals;
use hybster_proto::output::ClientLink;
use hybster_proto::replica;
use hybster_proto::service::Service;
use hybster_proto::time::{Time, WallClock};
use hybster_proto::wire::kind;
use hybster_proto::wire::request::{append_proved, requests_head};
use hybster_tss::{
    ClientKey, ClientPublicKeys, ClientSigningKey, GroupKey, InProcessTrInX, InProcessVerifier,
    RandomnessKey, RequestAuthenticator, RequestKey,
};

/// The link of the one client that all benchmarks use.
pub const LINK: ClientLink = ClientLink { client: ClientId(3), incarnation: 77 };

/// A pillar over the in-process TrInX.
pub type Pillar = internals::Pillar<InProcessTrInX, InProcessVerifier>;

/// The stages of a replica over the in-process TrInX.
pub type Stages<S> = replica::Stages<Hybster<InProcessTrInX, InProcessVerifier>, S>;

/// A clock that always shows the epoch. A recording is replayed at a single moment: a leader must
/// give its batches the times that they had, or the recorded COMMITs are for others.
fn standing_clock() -> WallClock {
    WallClock::new(0, Time(u64::MAX >> 1))
}

/// A group's constants and its key.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// The group's constants.
    pub config: Arc<GroupConfig>,
    key: GroupKey,
}

/// Numbers for requests: each use of a session gets the next one.
#[derive(Clone, Copy, Debug)]
pub struct Numbered(u64);

impl Default for Numbered {
    fn default() -> Self {
        Self(1)
    }
}

impl Numbered {
    /// The next number.
    pub fn draw(&mut self) -> RequestNumber {
        let number = RequestNumber(self.0);
        self.0 += 1;
        number
    }
}

impl Fixture {
    /// A group with these constants.
    ///
    /// # Panics
    /// If they contradict each other.
    #[must_use]
    pub fn new(config: GroupConfig) -> Self {
        config.validate().expect("a benchmark's configuration is valid");
        Self { config: Arc::new(config), key: GroupKey::from_bytes([9; 32]) }
    }

    /// The default group of three with P pillars, and batches of at most this many requests.
    #[must_use]
    pub fn of_three(pillars: u16, batch_max_requests: u32) -> Self {
        Self::new(GroupConfig { pillars, batch_max_requests, ..GroupConfig::default() })
    }

    /// A TrInX instance of the group.
    #[must_use]
    pub fn trinx(&self, replica: ReplicaId, pillar: PillarId) -> InProcessTrInX {
        let config = &self.config;
        let instance = config.instance(replica, pillar);
        InProcessTrInX::new(&self.key, config.mac, config.digest(), instance)
    }

    /// A verifier of the group.
    #[must_use]
    pub fn verifier(&self) -> InProcessVerifier {
        let verifier = InProcessVerifier::new(&self.key, self.config.mac, self.config.digest());
        match self.request_key().public() {
            Some(public) => {
                let signers = ClientPublicKeys::new([(LINK.client.0, public)]);
                verifier.with_signers(Arc::new(signers))
            }
            None => verifier,
        }
    }

    /// The key with which the one client proves its requests, in the form that the group uses.
    #[must_use]
    pub fn request_key(&self) -> RequestKey {
        match self.config.request_authenticator {
            RequestAuthenticator::Ed25519 => ClientSigningKey::from_bytes([8; 32]).into(),
            _ => self.client_key().into(),
        }
    }

    /// The MAC key of the one client.
    #[must_use]
    pub fn client_key(&self) -> ClientKey {
        self.key.client_key(self.config.mac, LINK.client.0)
    }

    /// A replica in the initial state.
    #[must_use]
    pub fn stages<S: Service>(&self, replica: ReplicaId, service: S) -> Stages<S> {
        let trinx = self.config.all_pillars().map(|p| self.trinx(replica, p)).collect();
        let agreement = Hybster::agreement(&self.config, replica, trinx, || self.verifier());
        let config = self.config.clone();
        let mut stages = Stages::new(config, replica, agreement, service, self.randomness());
        stages.set_wall_clock(standing_clock());
        stages
    }

    /// An execution stage in the initial state.
    #[must_use]
    pub fn execution<S: Service>(&self, replica: ReplicaId, service: S) -> Execution<S> {
        Execution::new(self.config.clone(), replica, service, self.randomness())
    }

    fn randomness(&self) -> RandomnessKey {
        RandomnessKey::new(&self.key, &self.config.digest())
    }

    /// A pillar in the initial state.
    #[must_use]
    pub fn pillar(&self, replica: ReplicaId, pillar: PillarId) -> Pillar {
        let trinx = self.trinx(replica, pillar);
        let config = self.config.clone();
        let mut pillar = Pillar::new(config, replica, pillar, trinx, self.verifier());
        pillar.set_wall_clock(standing_clock());
        pillar
    }

    /// A REQUESTS message: one authentic request in each of the first `sessions` sessions.
    #[must_use]
    pub fn requests(&self, sessions: u32, numbers: &mut Numbered, operation: &[u8]) -> Bytes {
        let key = self.request_key();
        let mut message = requests_head(kind::REQUESTS).to_vec();
        let number = numbers.draw();
        for index in 0..sessions {
            let session = SessionId::new(LINK.client, LINK.incarnation, index);
            append_proved(&mut message, session, number, operation, &key);
        }
        message.into()
    }
}
