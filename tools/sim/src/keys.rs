//! The keys of a simulated group: made from constants, so that a seed reproduces every byte.

use std::sync::Arc;

use hybster_proto::config::GroupConfig;
use hybster_proto::ids::ClientId;
use hybster_proto::membership::Administrator;
use hybster_tss::{
    ClientPublicKeys, ClientSigningKey, GroupKey, InProcessVerifier, RandomnessKey,
    RequestAuthenticator, RequestKey,
};

/// All keys of a group, of replicas and clients.
pub(crate) struct Keys {
    pub group: GroupKey,
    signers: Option<Arc<ClientPublicKeys>>,
}

/// What the administrator of a simulated group signs with.
pub(crate) fn administrators_key() -> ClientSigningKey {
    ClientSigningKey::from_bytes([0x5d; 32])
}

/// The administrator of a simulated group: its last client.
pub(crate) fn administrator(config: &GroupConfig) -> Administrator {
    let client = ClientId(config.max_clients - 1);
    Administrator { client, key: administrators_key().public() }
}

impl Keys {
    /// The keys of a group with this configuration, which is given the digest of the clients'.
    pub(crate) fn new(config: &mut GroupConfig) -> Self {
        let mut keys = Self { group: GroupKey::from_bytes([0x2a; 32]), signers: None };
        if config.request_authenticator == RequestAuthenticator::Ed25519 {
            let public = |client| (client, keys.signing(config, client).public());
            let signers = ClientPublicKeys::new((0..config.max_clients).map(public));
            config.request_keys = signers.digest();
            keys.signers = Some(Arc::new(signers));
        }
        keys
    }

    pub(crate) fn verifier(&self, config: &GroupConfig) -> InProcessVerifier {
        let verifier = InProcessVerifier::new(&self.group, config.mac, config.digest());
        match &self.signers {
            Some(signers) => verifier.with_signers(Arc::clone(signers)),
            None => verifier,
        }
    }

    /// What agreed random bytes come from.
    pub(crate) fn randomness(&self, config: &GroupConfig) -> RandomnessKey {
        RandomnessKey::new(&self.group, &config.genesis())
    }

    /// The key with which a client proves its requests.
    pub(crate) fn client(&self, config: &GroupConfig, client: u32) -> RequestKey {
        match self.signers {
            Some(_) => self.signing(config, client).into(),
            None => self.group.client_key(config.mac, client).into(),
        }
    }

    fn signing(&self, config: &GroupConfig, client: u32) -> ClientSigningKey {
        ClientSigningKey::from_bytes(*self.group.client_key(config.mac, client).expose_bytes())
    }
}
