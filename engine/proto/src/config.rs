//! Group constants: everything that all replicas of a group must agree on, and its digest.

use hybster_tss::{Digest, InstanceId, Life, MacAlgorithm, RequestAuthenticator};

use crate::bounds;
use crate::ids::{OrderNumber, Peers, PillarId, ReplicaId, View};
use crate::membership::{Administrator, Membership};
use crate::mutants::{self, Mutant};
use crate::protocol::{Protocol, Rules, Threshold};
use crate::service::ServiceName;
use crate::wire::CheckpointId;

/// The constants of a replica group.
///
/// Every field that changes what a correct replica does is covered by [`GroupConfig::digest`],
/// which is compared in every handshake and covered by every TrInX certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Identifies the group; random at creation.
    pub group: [u8; 16],
    /// The epoch: how often its members have changed (`engine/proto/EPOCHS.md`).
    pub epoch: u32,
    /// What orders the requests.
    pub protocol: Protocol,
    /// The service that the group is for; `None` if any may run. Its version is no constant: it rises while
    /// the group lives.
    pub service: Option<ServiceName>,
    /// Number of replicas n; the protocol says how many f faults need.
    pub replicas: u16,
    /// Tolerated faults f.
    pub faults: u16,
    /// Number of pillars P ≥ 1.
    pub pillars: u16,
    /// Order window in order numbers, over all pillars; a multiple of the checkpoint interval and
    /// at least twice of it.
    pub window: u64,
    /// Orders between two checkpoints (K), a multiple of P.
    pub checkpoint_interval: u64,
    /// Requests per batch, at most.
    pub batch_max_requests: u32,
    /// Bytes per batch, at most.
    pub batch_max_bytes: u32,
    /// Outstanding requests per session (W); as many results are kept for each session.
    pub session_window: u32,
    /// Sessions per client identity; opening one more evicts the client's least recently used.
    pub max_sessions_per_client: u32,
    /// Client identities, numbered from 0.
    pub max_clients: u32,
    /// Bytes of an operation, at most.
    pub max_operation_bytes: u32,
    /// Bytes of a result, at most; a longer one is replaced by an error reply.
    pub max_reply_bytes: u32,
    /// Bytes of results that a replica keeps for clients that ask again, over all clients. Beyond it
    /// the client with the most gives up those of its least recently used sessions. Results of at most
    /// 64 bytes do not count.
    pub kept_result_bytes: u64,
    /// MAC algorithm of certificates, and of client requests unless they are signed.
    pub mac: MacAlgorithm,
    /// What proves that a request is its client's; requests with another proof are refused.
    pub request_authenticator: RequestAuthenticator,
    /// Digest of the clients' public keys, if they sign: replicas that disagreed on a key would not
    /// take the same requests.
    pub request_keys: Digest,
    /// First and additional wait for a request known to a follower, in microseconds (TR listing 8).
    pub request_timeout_us: u64,
    /// First and additional wait for a NEW-VIEW, in microseconds.
    pub view_timeout_us: u64,
    /// Wait before something outstanding is asked for again, in microseconds.
    pub resend_us: u64,
    /// How far clocks may be apart, in milliseconds: the time of a batch is refused by replicas whose clock is
    /// further from it. A replica whose clock is further from the others' helps nobody to
    /// agree while it is.
    pub max_clock_skew_ms: u64,
    /// Who may change the members; `None` if nobody may.
    pub administrator: Option<Administrator>,
    /// What differs from one epoch to the next.
    pub membership: Membership,
}

/// A group constant has a value that the protocol cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {cure}")]
pub struct ConfigError {
    /// Name of the constant as in the configuration file.
    pub key: &'static str,
    /// Its value.
    pub value: u64,
    /// What would be right.
    pub cure: String,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            group: [0; 16],
            epoch: 0,
            protocol: Protocol::default(),
            service: None,
            replicas: 3,
            faults: 1,
            pillars: 2,
            window: 1024,
            checkpoint_interval: 256,
            batch_max_requests: 512,
            batch_max_bytes: 1 << 20,
            session_window: 1,
            max_sessions_per_client: 16_384,
            max_clients: 1024,
            max_operation_bytes: 1 << 20,
            max_reply_bytes: 1 << 20,
            kept_result_bytes: DEFAULT_KEPT_RESULT_BYTES,
            mac: MacAlgorithm::default(),
            request_authenticator: RequestAuthenticator::default(),
            request_keys: Digest::default(),
            request_timeout_us: 500_000,
            view_timeout_us: 500_000,
            resend_us: 50_000,
            max_clock_skew_ms: DEFAULT_CLOCK_SKEW_MS,
            administrator: None,
            membership: Membership::default(),
        }
    }
}

/// Longest wait that can be configured, in microseconds: an hour, so that multiples of it are far
/// from an overflow.
const MAX_TIMEOUT_US: u64 = 3_600_000_000;

/// Bytes of results that are kept unless a group says otherwise.
const DEFAULT_KEPT_RESULT_BYTES: u64 = 256 << 20;

/// How far clocks may be apart unless a group says otherwise, in milliseconds.
const DEFAULT_CLOCK_SKEW_MS: u64 = 5_000;

/// How many of the longest results must have room.
const LEAST_KEPT_RESULTS: u64 = 16;

/// The largest bound on clocks, in milliseconds: ten years, which is no bound.
const MAX_CLOCK_SKEW_MS: u64 = 10 * 365 * 86_400_000;

/// The longest message of its protocol that a group may be configured to need, in bytes.
pub const MAX_MESSAGE_BYTES: u64 = 48 << 20;

fn fail(key: &'static str, value: u64, cure: String) -> Result<(), ConfigError> {
    Err(ConfigError { key, value, cure })
}

impl GroupConfig {
    /// Checks the relations between the constants.
    ///
    /// # Errors
    /// Names the first constant at fault and what would be right.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_replicas()?;
        self.validate_window()?;
        self.validate_sizes()?;
        self.validate_memory()?;
        self.validate_times()
    }

    fn validate_replicas(&self) -> Result<(), ConfigError> {
        let (n, f, p) = (u64::from(self.replicas), u64::from(self.faults), u64::from(self.pillars));
        let least = u64::from(self.rules().least_replicas(self.faults));
        if n < least {
            let cure = format!("{f} faults need at least {least} with {}", self.protocol);
            return fail("replicas", n, cure);
        }
        // A MAC of a request is made with a key that every host of the group has.
        let is_signed = self.request_authenticator == RequestAuthenticator::Ed25519;
        if !self.rules().shares_a_key && !is_signed {
            let cure = format!(
                "write ed25519: hosts without trusted subsystems need signed requests ({})",
                self.protocol
            );
            return fail("request_authenticator", 0, cure);
        }
        if n > 64 {
            return fail("replicas", n, "at most 64 replicas are supported".into());
        }
        // TR section 3.5: quorums intersect, and the correct replicas suffice to form one.
        if n - f < self.quorum() as u64 {
            return fail("faults", f, "n - f correct replicas must form a quorum".into());
        }
        let lives = self.membership.lives.len() as u64;
        if lives != 0 && lives != n {
            return fail("lives", lives, format!("name one for each of the {n} replicas"));
        }
        let most = u64::from(self.max_clients).saturating_sub(1);
        if let Some(client) = self.administrator.map(|it| u64::from(it.client.0))
            && client > most
        {
            return fail("administrator", client, format!("choose a client, at most {most}"));
        }
        if let Some(administrator) = &self.administrator
            && self.protocol != Protocol::Hybster
        {
            let cure = format!("leave it out: a group cannot change with {}", self.protocol);
            return fail("administrator", administrator.client.0.into(), cure);
        }
        if p == 0 || p > 256 {
            return fail("pillars", p, "choose 1 to 256 pillars".into());
        }
        Ok(())
    }

    /// To be called when the number of pillars is valid.
    fn validate_window(&self) -> Result<(), ConfigError> {
        let p = u64::from(self.pillars);
        let k = self.checkpoint_interval;
        if k == 0 || !k.is_multiple_of(p) {
            return fail("checkpoint_interval", k, format!("choose a multiple of pillars ({p})"));
        }
        // The numbers come from a file: none may overflow before it is refused.
        let least = k.saturating_mul(2);
        if self.window < least || !self.window.is_multiple_of(k) {
            let cure = format!("choose a multiple of checkpoint_interval ({k}), at least {least}");
            return fail("window", self.window, cure);
        }
        let longest = (self.rules().longest_message)(self);
        if longest > MAX_MESSAGE_BYTES {
            let name = self.protocol;
            let cure =
                format!("a message of {name} could take {longest} bytes, over {MAX_MESSAGE_BYTES}");
            return fail("window", self.window, cure);
        }
        Ok(())
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        for (key, value, max) in [
            ("batch_max_requests", self.batch_max_requests, 65_536),
            ("batch_max_bytes", self.batch_max_bytes, 16 << 20),
            ("session_window", self.session_window, 1024),
            ("max_sessions_per_client", self.max_sessions_per_client, 1 << 20),
            ("max_clients", self.max_clients, 1 << 20),
        ] {
            if value == 0 || value > max {
                return fail(key, value.into(), format!("choose 1 to {max}"));
            }
        }
        if u64::from(self.max_operation_bytes) > 8 << 20 {
            let cure = "an operation may have at most 8 MiB".into();
            return fail("max_operation_bytes", self.max_operation_bytes.into(), cure);
        }
        if u64::from(self.max_reply_bytes) > 8 << 20 {
            let cure = "a result may have at most 8 MiB".into();
            return fail("max_reply_bytes", self.max_reply_bytes.into(), cure);
        }
        let least = LEAST_KEPT_RESULTS * u64::from(self.max_reply_bytes);
        if self.kept_result_bytes < least {
            let cure =
                format!("choose at least {least}, {LEAST_KEPT_RESULTS} of the longest results");
            return fail("kept_result_bytes", self.kept_result_bytes, cure);
        }
        Ok(())
    }

    fn validate_times(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("request_timeout_us", self.request_timeout_us),
            ("view_timeout_us", self.view_timeout_us),
            ("resend_us", self.resend_us),
        ] {
            if value == 0 || value > MAX_TIMEOUT_US {
                return fail(key, value, format!("choose 1 to {MAX_TIMEOUT_US} microseconds"));
            }
        }
        let skew = self.max_clock_skew_ms;
        if skew == 0 || skew > MAX_CLOCK_SKEW_MS {
            let cure = format!("choose 1 to {MAX_CLOCK_SKEW_MS} milliseconds");
            return fail("max_clock_skew_ms", skew, cure);
        }
        Ok(())
    }

    /// What no machine could hold is refused before it is tried.
    fn validate_memory(&self) -> Result<(), ConfigError> {
        let (clients, each) =
            (u64::from(self.max_clients), u64::from(self.max_sessions_per_client));
        let fail = |cure| Err(ConfigError { key: "max_sessions_per_client", value: each, cure });
        // Places in the session table are numbered by 32 bits, and one number says that there is none.
        let most = u64::from(u32::MAX - 1) / clients;
        if each > most {
            return fail(format!("choose at most {most} for max_clients = {clients}"));
        }
        let limit = bounds::ADDRESSABLE_BYTES;
        if bounds::sessions_bytes(self).is_none_or(|bytes| bytes > limit) {
            return fail(format!(
                "with max_clients = {clients} and session_window = {} the sessions could take more \
                 than {limit} bytes, which no process can address; choose fewer",
                self.session_window
            ));
        }
        let all = bounds::of_stages(self).and_then(|buffers| bounds::sum(&buffers));
        if all.is_none_or(|bytes| bytes > limit) {
            let cure = format!(
                "a replica could hold more than {limit} bytes, which no process can address; choose \
                 a smaller window, or smaller batches"
            );
            return Err(ConfigError { key: "window", value: self.window, cure });
        }
        Ok(())
    }

    /// Digest of all constants, and of the checkpoint that the epoch begins with.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let constants = self.constants_digest();
        let CheckpointId { order, digest } = self.membership.beginning;
        if order == OrderNumber(0) {
            return constants;
        }
        let mut hasher = blake3::Hasher::new_derive_key("hybster 2026 epoch v1");
        hasher.update(&constants.0).update(&order.0.to_le_bytes()).update(&digest.0);
        Digest(*hasher.finalize().as_bytes())
    }

    /// The digest of the group's first configuration, which stays the same in all epochs.
    #[must_use]
    pub fn genesis(&self) -> Digest {
        self.membership.genesis.unwrap_or_else(|| self.digest())
    }

    /// Digest of all constants: what the last CHECKPOINTs of an epoch say of the next one, whose first
    /// checkpoint they are.
    #[must_use]
    pub fn constants_digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("hybster 2026 group configuration v1");
        hasher.update(&self.group);
        for value in [
            u64::from(self.epoch),
            self.replicas.into(),
            self.faults.into(),
            self.pillars.into(),
            self.window,
            self.checkpoint_interval,
            self.batch_max_requests.into(),
            self.batch_max_bytes.into(),
            self.session_window.into(),
            self.max_sessions_per_client.into(),
            self.max_clients.into(),
            self.max_operation_bytes.into(),
            self.max_reply_bytes.into(),
            self.request_timeout_us,
            self.view_timeout_us,
            self.resend_us,
        ] {
            hasher.update(&value.to_le_bytes());
        }
        hasher.update(self.mac.name().as_bytes());
        if self.request_authenticator != RequestAuthenticator::Mac {
            hasher.update(self.request_authenticator.name().as_bytes());
            hasher.update(&self.request_keys.0);
        }
        // Groups that were made before there was a choice keep their digests.
        if self.protocol != Protocol::Hybster {
            hasher.update(b"protocol");
            hasher.update(self.protocol.name().as_bytes());
        }
        // Nor do groups whose file names no service have another digest.
        if let Some(service) = &self.service {
            hasher.update(b"service");
            hasher.update(&[service.as_str().len() as u8]);
            hasher.update(service.as_str().as_bytes());
        }
        // Groups made before there were agreed times have the default, and the digest that they had.
        if self.max_clock_skew_ms != DEFAULT_CLOCK_SKEW_MS {
            hasher.update(b"max_clock_skew_ms");
            hasher.update(&self.max_clock_skew_ms.to_le_bytes());
        }
        // The same.
        if self.kept_result_bytes != DEFAULT_KEPT_RESULT_BYTES {
            hasher.update(b"kept_result_bytes");
            hasher.update(&self.kept_result_bytes.to_le_bytes());
        }
        if let Some(Administrator { client, key }) = &self.administrator {
            hasher.update(b"administrator");
            hasher.update(&client.0.to_le_bytes());
            hasher.update(key.as_bytes());
        }
        let Membership { lives, details, genesis, beginning: _ } = &self.membership;
        if let Some(genesis) = genesis {
            hasher.update(b"membership");
            hasher.update(&genesis.0);
            hasher.update(&details.0);
        }
        // The first configuration may name lives as well.
        if !lives.is_empty() {
            hasher.update(b"lives");
            hasher.update(&(lives.len() as u64).to_le_bytes());
            for life in lives {
                hasher.update(&life.0.to_le_bytes());
            }
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// The life that a replica has in this epoch.
    #[inline]
    #[must_use]
    pub fn life_of(&self, replica: ReplicaId) -> Life {
        self.membership.lives.get(usize::from(replica.0)).copied().unwrap_or(Life::FIRST)
    }

    /// The name of a pillar's trusted counters at a replica. What is certified under another name is not
    /// that replica's.
    #[inline]
    #[must_use]
    pub fn instance(&self, replica: ReplicaId, pillar: PillarId) -> InstanceId {
        let life = match mutants::active(Mutant::LivesIgnored) {
            true => Life::FIRST,
            false => self.life_of(replica),
        };
        InstanceId { replica: replica.0, pillar: pillar.0, epoch: self.epoch, life }
    }

    /// The boundary of a change that is ordered at `order`: nobody who has not heard of it can have
    /// certified beyond, as its window ends before (`engine/proto/EPOCHS.md`).
    #[must_use]
    pub fn boundary_after(&self, order: OrderNumber) -> OrderNumber {
        let interval = self.checkpoint_interval;
        OrderNumber((order.0 + self.window).div_ceil(interval) * interval)
    }

    /// The rules of the group's ordering protocol.
    #[inline]
    #[must_use]
    pub const fn rules(&self) -> &'static Rules {
        self.protocol.rules()
    }

    /// The number of replicas that a rule of the protocol asks for.
    #[inline]
    #[must_use]
    pub const fn threshold(&self, threshold: Threshold) -> usize {
        threshold.of(self.replicas, self.faults)
    }

    /// Intersecting quorum q: replicas that agree on a proposal or a view.
    #[inline]
    #[must_use]
    pub const fn quorum(&self) -> usize {
        self.threshold(self.rules().quorum)
    }

    /// Replicas whose CHECKPOINTs make a checkpoint stable.
    #[inline]
    #[must_use]
    pub const fn stable(&self) -> usize {
        self.threshold(self.rules().stable)
    }

    /// Equal replies that make the result of an ordered request.
    #[inline]
    #[must_use]
    pub const fn replies_needed(&self) -> usize {
        self.threshold(self.rules().reply)
    }

    /// Equal answers that make the result of a query.
    #[inline]
    #[must_use]
    pub const fn answers_needed(&self) -> usize {
        self.threshold(self.rules().query)
    }

    /// Acknowledging quorum f+1: at least one correct replica is in it.
    #[inline]
    #[must_use]
    pub const fn acknowledging(&self) -> usize {
        self.threshold(Threshold::OneCorrect)
    }

    /// leader(v) = v mod n (TR listing 12).
    #[must_use]
    pub fn leader(&self, view: View) -> ReplicaId {
        ReplicaId((view.0 % u64::from(self.replicas)) as u16)
    }

    /// The q − 1 replicas that follow a view's leader in the order of their ids, round and round.
    #[must_use]
    pub fn next_to_leader(&self, view: View) -> Peers {
        let leader = self.leader(view).0;
        let others = 1..self.quorum() as u16;
        others.map(|i| ReplicaId((leader + i) % self.replicas)).collect()
    }

    /// All replicas.
    pub fn all_replicas(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.replicas).map(ReplicaId)
    }

    /// All pillars.
    pub fn all_pillars(&self) -> impl Iterator<Item = PillarId> + use<> {
        (0..self.pillars).map(PillarId)
    }

    /// Pillar of o: (o−1) mod P.
    #[must_use]
    pub fn pillar_of(&self, order: OrderNumber) -> PillarId {
        assert!(order.0 > 0, "order numbers begin with 1");
        PillarId(((order.0 - 1) % u64::from(self.pillars)) as u16)
    }

    /// Slot of o: (o−1) div P.
    #[must_use]
    pub fn slot_of(&self, order: OrderNumber) -> u64 {
        assert!(order.0 > 0, "order numbers begin with 1");
        (order.0 - 1) / u64::from(self.pillars)
    }

    /// The order number of a pillar's slot.
    #[must_use]
    pub fn order_at(&self, pillar: PillarId, slot: u64) -> OrderNumber {
        OrderNumber(slot * u64::from(self.pillars) + u64::from(pillar.0) + 1)
    }

    /// Slots per pillar in the window.
    #[must_use]
    pub fn window_slots(&self) -> u64 {
        self.window / u64::from(self.pillars)
    }

    /// Slots per pillar between two checkpoints.
    #[must_use]
    pub fn interval_slots(&self) -> u64 {
        self.checkpoint_interval / u64::from(self.pillars)
    }

    /// The first slot (of every pillar) after a checkpoint; checkpoints lie on multiples of P.
    #[must_use]
    pub fn slots_before(&self, checkpoint: OrderNumber) -> u64 {
        let whole = checkpoint.0.is_multiple_of(u64::from(self.pillars));
        assert!(whole, "checkpoints lie on multiples of P");
        checkpoint.0 / u64::from(self.pillars)
    }

    /// The pillar that runs the exchange for a checkpoint: k mod P for the k-th.
    #[must_use]
    pub fn checkpoint_pillar(&self, checkpoint: OrderNumber) -> PillarId {
        PillarId((checkpoint.0 / self.checkpoint_interval % u64::from(self.pillars)) as u16)
    }

    /// Whether an order number is one that checkpoints are taken at.
    #[must_use]
    pub fn is_checkpoint(&self, order: OrderNumber) -> bool {
        order.0 > 0 && order.0.is_multiple_of(self.checkpoint_interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_orders_map_to_pillars() {
        let config = GroupConfig::default();
        config.validate().unwrap();
        for o in 1..100 {
            let order = OrderNumber(o);
            let (pillar, slot) = (config.pillar_of(order), config.slot_of(order));
            assert_eq!(config.order_at(pillar, slot), order);
        }
    }

    #[test]
    fn the_digest_depends_on_every_number() {
        let base = GroupConfig::default();
        let mut other = base.clone();
        other.window += 256;
        assert_ne!(base.digest(), other.digest());
        let other = GroupConfig { resend_us: 1, ..base.clone() };
        assert_ne!(base.digest(), other.digest());
        let other = GroupConfig { max_clock_skew_ms: 1, ..base.clone() };
        assert_ne!(base.digest(), other.digest());
        let named = |name: &str| GroupConfig { service: name.parse().ok(), ..base.clone() };
        assert_ne!(base.digest(), named("bank").digest());
        assert_ne!(named("shop").digest(), named("bank").digest());
        let signed = GroupConfig { request_authenticator: RequestAuthenticator::Ed25519, ..base };
        let other = GroupConfig { request_keys: Digest([1; 32]), ..signed.clone() };
        assert_ne!(signed.digest(), GroupConfig::default().digest());
        assert_ne!(signed.digest(), other.digest());
    }

    /// Groups that were made by earlier programs go on with this one, and with those that hold
    /// these digests on disk.
    #[test]
    fn digests_of_earlier_programs_hold() {
        let hex = |config: &GroupConfig| config.digest().to_string();
        let config = GroupConfig::default();
        assert_eq!(
            hex(&config),
            "29701340b5f04cf508903ecf510c27c5540a339118855a37e0faeaa4a824fae6"
        );
        let signed = GroupConfig {
            replicas: 5,
            faults: 2,
            request_authenticator: RequestAuthenticator::Ed25519,
            request_keys: Digest([7; 32]),
            ..config
        };
        assert_eq!(
            hex(&signed),
            "26946b00f4f971196ce0233c0ed508ee9f6f954cfa30064affd69902a7ffe1d3"
        );
    }

    #[test]
    fn wrong_constants_are_named() {
        let wrong = GroupConfig { replicas: 4, faults: 2, ..GroupConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().key, "replicas");
        let wrong = GroupConfig { checkpoint_interval: 255, ..GroupConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().key, "checkpoint_interval");
        let wrong = GroupConfig { window: 300, ..GroupConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().key, "window");
    }

    #[test]
    fn no_constant_overflows() {
        // Times the bytes of a header this is 0 modulo 2^64.
        let wrong = GroupConfig { window: 1 << 62, ..GroupConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().key, "window");
        let wrong = GroupConfig { checkpoint_interval: 1 << 63, ..GroupConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().key, "window");
        let wrong = GroupConfig { request_timeout_us: u64::MAX / 2 + 1, ..GroupConfig::default() };
        assert_eq!(wrong.validate().unwrap_err().key, "request_timeout_us");
        let most = GroupConfig {
            max_clients: 1 << 20,
            max_sessions_per_client: 1 << 20,
            ..GroupConfig::default()
        };
        let error = most.validate().unwrap_err();
        assert_eq!(error.key, "max_sessions_per_client");
        assert!(error.cure.contains("at most 4095"), "{error}");
        let wide = GroupConfig { max_sessions_per_client: 4095, session_window: 1024, ..most };
        let error = wide.validate().unwrap_err();
        assert!(error.cure.contains("no process can address"), "{error}");
        // A request that is longer than a batch may be is a batch of its own.
        GroupConfig { batch_max_bytes: 1, ..GroupConfig::default() }.validate().unwrap();
    }
}
