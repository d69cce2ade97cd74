//! The bounds of a model, and the small group that they describe.

use bytes::{Bytes, BytesMut};
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{ClientId, OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId};
use hybster_proto::internals::PREPARE_HEAD;
use hybster_proto::internals::mutants::Mutant;
use hybster_proto::protocol::Protocol;
use hybster_proto::wire;
use hybster_proto::wire::request::append_request;
use hybster_tss::{
    Counter, CounterValue, Digest, GroupKey, InProcessTrInX, InProcessVerifier, RandomnessKey,
};

use std::sync::{Arc, Mutex, PoisonError};

/// The bounds of a model. Inside them, everything that can happen is explored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Tolerated faults f; the model has as few replicas as the protocol needs for them.
    pub faults: u16,
    /// The replica with the faulty host; `None` if all are correct.
    pub faulty: Option<u16>,
    /// Pillars.
    pub pillars: u16,
    /// Slots of each pillar that a leader may fill.
    pub slots: u64,
    /// The highest view that anybody asks for.
    pub views: u64,
    /// Client requests that exist.
    pub requests: u8,
    /// Whether leaders propose no-ops.
    pub noops: bool,
    /// Whether every slot ends with a checkpoint (P order numbers); else there is none in bounds.
    pub checkpoints: bool,
    /// Whether batches that are asked for arrive at any later time; else they arrive at once.
    pub slow_batches: bool,
    /// Whether ordering messages may arrive before their view is entered. If not, they arrive
    /// after it at the earliest, which comes to the same: a replica keeps them until then.
    pub early: bool,
    /// How many VIEW-CHANGEs the faulty host may certify.
    pub faulty_changes: u8,
    /// The correct replica that may stop once, at any record of its log, and be started again.
    pub restarts: Option<u16>,
    /// A rule of the protocol that is broken.
    pub mutant: Option<Mutant>,
}

impl Bounds {
    /// As many replicas as one fault needs, one pillar, one slot, views 0 and 1, two requests.
    #[must_use]
    pub fn small(faulty: Option<u16>) -> Self {
        Self {
            faults: 1,
            faulty,
            pillars: 1,
            slots: 1,
            views: 1,
            requests: 2,
            noops: false,
            checkpoints: false,
            slow_batches: false,
            early: false,
            faulty_changes: u8::MAX,
            restarts: None,
            mutant: None,
        }
    }
}

/// Most replicas that a model may have: a state holds a number for each.
pub const MAX_REPLICAS: usize = 4;

/// A client's request, as the only one of a batch.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its record.
    pub record: Bytes,
    /// Digest of the batch.
    pub batch: Digest,
    /// Digest of its operation.
    pub operation: Digest,
    /// Its session and number.
    pub name: (SessionId, RequestNumber),
}

/// The group of a model: constants, keys and requests.
pub struct Group {
    /// The bounds.
    pub bounds: Bounds,
    /// The group's constants.
    pub config: Arc<GroupConfig>,
    /// All requests.
    pub requests: Vec<Request>,
    key: GroupKey,
    /// Behind a lock, because it remembers clients' keys.
    verifier: Mutex<InProcessVerifier>,
    digest: Digest,
}

impl Group {
    /// The group of some bounds.
    ///
    /// # Panics
    /// If the bounds do not fit together.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let interval = u64::from(bounds.pillars)
            * if bounds.checkpoints { 1 } else { (bounds.slots + 1).next_power_of_two() };
        let config = GroupConfig {
            replicas: Protocol::default().rules().least_replicas(bounds.faults) as u16,
            faults: bounds.faults,
            pillars: bounds.pillars,
            checkpoint_interval: interval,
            window: 2 * interval,
            batch_max_requests: 1,
            batch_max_bytes: 1024,
            session_window: 4,
            max_sessions_per_client: 4,
            max_clients: 2,
            max_operation_bytes: 64,
            max_reply_bytes: 64,
            ..GroupConfig::default()
        };
        config.validate().expect("the bounds fit together");
        assert!(usize::from(config.replicas) <= MAX_REPLICAS, "too many replicas for a model");
        let key = GroupKey::from_bytes([0x2a; 32]);
        let digest = config.digest();
        let requests = (0..bounds.requests).map(|r| request(&key, &config, r)).collect();
        Self {
            verifier: Mutex::new(InProcessVerifier::new(&key, config.mac, digest)),
            config: Arc::new(config),
            requests,
            key,
            digest,
            bounds,
        }
    }

    /// A new TrInX instance of a replica.
    #[must_use]
    pub fn trinx(&self, replica: ReplicaId, pillar: PillarId) -> InProcessTrInX {
        let instance = self.config.instance(replica, pillar);
        InProcessTrInX::new(&self.key, self.config.mac, self.digest, instance)
    }

    /// An instance that comes back with the counters that its log has.
    #[must_use]
    pub fn restored(
        &self,
        replica: ReplicaId,
        pillar: PillarId,
        counters: [CounterValue; Counter::ALL.len()],
    ) -> InProcessTrInX {
        let instance = self.config.instance(replica, pillar);
        InProcessTrInX::restored(&self.key, self.config.mac, self.digest, instance, counters)
    }

    /// A verifier.
    #[must_use]
    pub fn verifier(&self) -> InProcessVerifier {
        self.verifier.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key of agreed randomness; no service of a model asks for it.
    #[must_use]
    pub fn randomness() -> RandomnessKey {
        RandomnessKey::from_bytes([0; 32])
    }

    /// The replicas whose hosts are correct.
    pub fn correct(&self) -> impl Iterator<Item = u16> + use<> {
        let faulty = self.bounds.faulty;
        (0..self.config.replicas).filter(move |r| Some(*r) != faulty)
    }

    /// The request with a batch of this digest.
    #[must_use]
    pub fn request_of(&self, batch: &Digest) -> Option<usize> {
        self.requests.iter().position(|request| request.batch == *batch)
    }

    /// A batch as the request intake hands it to a pillar.
    #[must_use]
    pub fn buffer(&self, request: usize) -> BytesMut {
        let mut buffer = BytesMut::zeroed(PREPARE_HEAD);
        buffer.extend_from_slice(&self.requests[request].record);
        buffer
    }

    /// The last order number in bounds.
    #[must_use]
    pub fn last_order(&self) -> OrderNumber {
        OrderNumber(self.bounds.slots * u64::from(self.config.pillars))
    }
}

fn request(key: &GroupKey, config: &GroupConfig, index: u8) -> Request {
    let client = u32::from(index % 2);
    let session = SessionId::new(ClientId(client), 1, 0);
    let number = RequestNumber(1 + u64::from(index / 2));
    let operation = [b'a' + index];
    let mut record = Vec::new();
    let client_key = key.client_key(config.mac, client);
    append_request(&mut record, session, number, &operation, |covered| client_key.tag(covered));
    Request {
        batch: wire::digest(&record),
        record: record.into(),
        operation: Digest::of(&operation),
        name: (session, number),
    }
}
