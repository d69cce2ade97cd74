//! The members of a replica group, its constants, and all keys: in a directory, or in memory.
//!
//! ```text
//! DIR/group.toml      constants, addresses and public keys; the same file for all members
//! DIR/replica-N.key   secrets of replica N, mode 0600; its first start writes it again, as used
//! DIR/replica-N.epoch-E.started   the mark of that start
//! DIR/client-N.key    secrets of client N, mode 0600
//! DIR/administrator.key   secrets of who may replace replicas, if somebody may; mode 0600
//! ```
//!
//! [`create()`] makes such a directory; [`Group::load`], [`ReplicaKeys::load`] and
//! [`ClientKeys::load`] read it and check everything before anything is started.
//!
//! Nothing needs that directory. [`generate()`] makes a group in memory; texts of groups and keys go
//! anywhere and come back from there ([`Group::to_text`], [`Group::from_text`], [`Group::from_env`],
//! and the same of keys):
//!
//! ```
//! use hybster::group::{CreateOptions, Generated, generate};
//! use hybster::{ClientId, ClientKeys, Group, ReplicaId, ReplicaKeys};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let Generated { group, replicas, clients, .. } = generate(&CreateOptions::default())?;
//! // Into a store of secrets, an environment, a command line …
//! let (public, secret) = (group.to_text(), replicas[1].to_text()?);
//! let secret_of_client = clients[0].to_text(&group);
//! // … and on the machines that they are for:
//! let group = Group::from_text(&public)?;
//! let keys = ReplicaKeys::from_text(&group, &secret, ReplicaId(1))?;
//! let client_keys = ClientKeys::from_text(&group, &secret_of_client, ClientId(0))?;
//! # assert_eq!(keys.link.public(), group.replicas()[1].public_key);
//! # assert_eq!(client_keys.link.public(), group.clients()[0].public_key);
//! # Ok(())
//! # }
//! ```

mod address;
mod administrator;
mod create;
mod error;
mod file;
mod hex;
mod keys;
mod start;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hybster_net::{Identity, KeyRing, Limits, LinkCipher, PeerAddress, PublicKey};
use hybster_proto::config::{ConfigError, GroupConfig};
use hybster_proto::ids::{ClientId, ReplicaId};
use hybster_proto::wire::CheckpointId;
use hybster_tss::{ClientPublicKey, ClientPublicKeys, RequestAuthenticator};

pub use address::{BadAddress, parse as parse_address};
pub use administrator::AdministratorKeys;
pub use create::{Addresses, CreateOptions, Generated, create, generate};
pub use error::GroupError;
pub use keys::{ClientKeys, ReplicaKeys};

use crate::durable::Durability;
use crate::runtime::Layout;

/// Bytes of a client link's longest frame besides the longest operation or result.
const FRAME_ROOM_BYTES: u32 = 256 << 10;

/// Most bytes of replies that wait for one link of a client. Beyond half of them, replies wait in the
/// session table.
const CLIENT_QUEUE_BYTES: usize = 16 << 20;

/// Name of the group file in a group directory.
pub const GROUP_FILE: &str = "group.toml";

/// The public description of a group, which all members share.
#[derive(Clone, Debug)]
pub struct Group {
    path: PathBuf,
    config: Arc<GroupConfig>,
    link_cipher: LinkCipher,
    layout: Layout,
    durability: Durability,
    service_version: Option<u32>,
    /// The checkpoint that the group began with, if not with the initial state of its service.
    pub(crate) initial_state: Option<CheckpointId>,
    replicas: Vec<ReplicaEntry>,
    clients: Vec<ClientEntry>,
}

/// A replica of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaEntry {
    /// Its number; the entries are in order from 0.
    pub id: ReplicaId,
    /// The address that it listens on and others connect to.
    pub address: PeerAddress,
    /// Its link key.
    pub public_key: PublicKey,
}

/// A client that the group accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientEntry {
    /// Its number.
    pub id: ClientId,
    /// Its link key.
    pub public_key: PublicKey,
    /// The key that checks its requests, in a group whose clients sign them.
    pub request_key: Option<ClientPublicKey>,
}

impl Group {
    /// Reads `group.toml`, given the file or its directory.
    ///
    /// # Errors
    /// If the file is missing or malformed, or has a value that the protocol cannot work with. The
    /// error names the file, the key and the cure.
    pub fn load(dir_or_file: impl AsRef<Path>) -> Result<Self, GroupError> {
        let mut path = dir_or_file.as_ref().to_owned();
        if path.is_dir() {
            path.push(GROUP_FILE);
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|error| GroupError::Read { file: path.clone(), error })?;
        if text.bytes().all(|byte| byte == 0 || byte.is_ascii_whitespace()) {
            let message = "is empty; copy it from another member of the group".to_owned();
            return Err(GroupError::Syntax { file: path, message });
        }
        Self::parse(&path, &text)
    }

    /// Reads the text of a `group.toml`; errors name `path`.
    ///
    /// # Errors
    /// As [`Group::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, GroupError> {
        file::parse(path, text)
    }

    /// Reads the text of a `group.toml`, wherever it comes from.
    ///
    /// # Errors
    /// If it is malformed, or has a value that the protocol cannot work with.
    pub fn from_text(text: &str) -> Result<Self, GroupError> {
        Self::parse(Path::new(GROUP_FILE), text)
    }

    /// As [`Self::from_text`], with the text of an environment variable.
    ///
    /// # Errors
    /// As [`Self::from_text`], and if there is no such variable.
    pub fn from_env(variable: &str) -> Result<Self, GroupError> {
        Self::parse(Path::new(&format!("${variable}")), &environment(variable)?)
    }

    /// The text of the group's `group.toml`, every key explained. It holds no secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        file::write(self)
    }

    /// The same group for a member that reaches the replicas at other addresses, such as those of
    /// tunnels or of a port mapping. Addresses are no part of what members compare.
    ///
    /// # Errors
    /// If there is not one address for each replica, or one is there twice.
    pub fn reached_at(&self, addresses: Vec<PeerAddress>) -> Result<Self, GroupError> {
        create::check_addresses(&addresses, self.config.replicas)?;
        let mut group = self.clone();
        for (entry, address) in group.replicas.iter_mut().zip(addresses) {
            entry.address = address;
        }
        Ok(group)
    }

    /// The same group in a later epoch.
    pub(crate) fn in_epoch(&self, config: GroupConfig) -> Self {
        // What it began with is behind it.
        Self { config: Arc::new(config), initial_state: None, ..self.clone() }
    }

    /// The same group, with its replicas and constants only.
    pub(crate) fn without_clients(&self) -> Self {
        Self { clients: Vec::new(), ..self.clone() }
    }

    /// The file that the group was read from; of a group that was in none, what errors call it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of that file, where key files usually lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// The group constants.
    #[must_use]
    pub fn config(&self) -> &Arc<GroupConfig> {
        &self.config
    }

    /// How links are protected.
    #[must_use]
    pub fn link_cipher(&self) -> LinkCipher {
        self.link_cipher
    }

    /// The layout of replicas that do not choose another.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What of a replica outlives its process.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The version that services of replicas must have or be compatible with; `None` if any may start. It
    /// is no part of what members compare, so that it can be raised, one replica after the other, while the
    /// group lives. The service's name is a constant of the group.
    #[must_use]
    pub fn service_version(&self) -> Option<u32> {
        self.service_version
    }

    /// The replicas, in order from 0.
    #[must_use]
    pub fn replicas(&self) -> &[ReplicaEntry] {
        &self.replicas
    }

    /// The clients, in the order of the file.
    #[must_use]
    pub fn clients(&self) -> &[ClientEntry] {
        &self.clients
    }

    /// Limits of links in this group, for replicas and clients. The longest frame follows from the
    /// longest operation and result.
    #[must_use]
    pub fn link_limits(&self) -> Limits {
        let longest = self.config.max_operation_bytes.max(self.config.max_reply_bytes);
        let base = Limits::default();
        Limits {
            // Room for a whole batch of small messages, or for one of the greatest length.
            client_frame_bytes: base.client_frame_bytes.max(longest + FRAME_ROOM_BYTES),
            client_queue_bytes: CLIENT_QUEUE_BYTES.max(4 * longest as usize),
            ..base
        }
    }

    /// The group's identifier as text.
    #[must_use]
    pub fn name(&self) -> String {
        hex::encode(&self.config.group).to_string()
    }

    /// The keys that check the requests of all clients, decoded; `None` if the requests carry MACs.
    #[must_use]
    pub fn request_keys(&self) -> Option<Arc<ClientPublicKeys>> {
        let signed = self.config.request_authenticator == RequestAuthenticator::Ed25519;
        signed.then(|| Arc::new(request_keys(&self.clients)))
    }

    /// The public link keys of all replicas and clients.
    ///
    /// # Errors
    /// If a key or a number is given twice.
    pub fn key_ring(&self) -> Result<KeyRing, GroupError> {
        let mut ring = KeyRing::new();
        let replicas =
            self.replicas.iter().map(|r| (Identity::Replica(r.id.0), r.public_key, "replica"));
        let clients =
            self.clients.iter().map(|c| (Identity::Client(c.id.0), c.public_key, "client"));
        for (identity, public_key, table) in replicas.chain(clients) {
            ring.add(identity, public_key).map_err(|error| GroupError::Value {
                file: self.path.clone(),
                key: format!("{table}.public_key"),
                value: format!("\"{public_key}\""),
                cure: error.to_string(),
            })?;
        }
        Ok(ring)
    }
}

fn environment(variable: &str) -> Result<String, GroupError> {
    std::env::var(variable).map_err(|error| GroupError::Environment {
        variable: variable.to_owned(),
        what: match error {
            std::env::VarError::NotPresent => "is not set",
            std::env::VarError::NotUnicode(_) => "is not text",
        },
    })
}

/// The value of a constant at fault, as a group file has it.
fn faulty_value(config: &GroupConfig, error: &ConfigError) -> String {
    match error.key {
        "request_authenticator" => format!("\"{}\"", config.request_authenticator),
        _ => error.value.to_string(),
    }
}

fn request_keys(clients: &[ClientEntry]) -> ClientPublicKeys {
    ClientPublicKeys::new(clients.iter().filter_map(|c| Some((c.id.0, c.request_key?))))
}

#[cfg(test)]
mod tests;
