//! Key files: `replica-N.key` and `client-N.key`, readable by their owner only.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hybster_net::{PublicKey, StaticKey};
use hybster_proto::ids::{ClientId, ReplicaId};
use hybster_tss::keyfile::{SEALED_BYTES, read_private, seal, unseal, write_private};
use hybster_tss::{
    ClientKey, ClientSigningKey, GroupKey, RequestAuthenticator, RequestKey, SealingSecret,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{Group, GroupError, hex};

/// The secrets of one replica.
#[derive(Clone, Debug)]
pub struct ReplicaKeys {
    /// The replica that they belong to.
    pub id: ReplicaId,
    /// Authenticates the replica's links.
    pub link: StaticKey,
    /// The key of the group's trusted subsystems.
    pub group_key: GroupKey,
    /// The mark on disk that exists once the replica was started in the group's epoch.
    pub(crate) started: PathBuf,
}

/// The secrets of one client.
#[derive(Clone, Debug)]
pub struct ClientKeys {
    /// The client that they belong to.
    pub id: ClientId,
    /// Authenticates the client's links.
    pub link: StaticKey,
    /// Proves the client's requests, to every replica with the same proof.
    pub requests: RequestKey,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicaKeyFile {
    group: String,
    replica: u16,
    link_key_seed: Zeroizing<String>,
    sealing_secret: Zeroizing<String>,
    sealed_group_key: Zeroizing<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientKeyFile {
    group: String,
    client: u32,
    link_key_seed: Zeroizing<String>,
    request_key: Zeroizing<String>,
}

impl ReplicaKeys {
    /// The key file of a replica in a group directory.
    #[must_use]
    pub fn path(dir: &Path, id: ReplicaId) -> PathBuf {
        dir.join(format!("replica-{}.key", id.0))
    }

    /// Reads `replica-N.key` in `dir`.
    ///
    /// # Errors
    /// If the file is missing, open to other users, damaged, or made for another replica or group.
    pub fn load(group: &Group, dir: impl AsRef<Path>, id: ReplicaId) -> Result<Self, GroupError> {
        let whose = format!("replica {}", id.0);
        let entry = group.replicas.get(usize::from(id.0)).ok_or_else(|| GroupError::Unknown {
            file: group.path.clone(),
            whose: whose.clone(),
            count: group.replicas.len(),
        })?;
        let sample = Self::text(id, &group.name(), &[0; 32], &[0; 32], &[0; SEALED_BYTES]);
        let file = KeyFile { path: Self::path(dir.as_ref(), id), whose, bytes: sample.len() };
        let table: ReplicaKeyFile = file.read()?;
        file.check(table.replica == id.0, || {
            format!("holds the keys of replica {}", table.replica)
        })?;
        file.check_group(group, &table.group)?;
        let link = file.link_key(&table.link_key_seed, &entry.public_key)?;
        let secret =
            SealingSecret::from_bytes(file.secret("sealing_secret", &table.sealing_secret)?);
        let sealed = hex::decode(&table.sealed_group_key)
            .ok_or_else(|| file.bad_digits("sealed_group_key", "216"))?;
        let group_key =
            unseal(&sealed, &secret, id.0, group.config.epoch, &group.name()).map_err(|error| {
                GroupError::WrongKeys {
                    file: file.path.clone(),
                    what: format!("sealed_group_key: {}", error.problem()),
                    whose: file.whose.clone(),
                }
            })?;
        let started = Self::started_path(dir.as_ref(), id, group.config.epoch);
        Ok(Self { id, link, group_key, started })
    }

    pub(super) fn started_path(dir: &Path, id: ReplicaId, epoch: u32) -> PathBuf {
        dir.join(format!("replica-{}.epoch-{epoch}.started", id.0))
    }

    /// Refuses a start that [`Self::claim_epoch`] would refuse, and changes nothing.
    pub(crate) fn refuse_second_start(&self) -> Result<(), GroupError> {
        let file = self.started.clone();
        match file.try_exists() {
            Ok(false) => Ok(()),
            Ok(true) => Err(GroupError::StartedBefore { file, id: self.id.0 }),
            Err(error) => Err(GroupError::Write { file, error }),
        }
    }

    /// Marks the epoch as used by this replica; a second start in it is refused.
    ///
    /// The counters of the in-process TrInX are lost with the process. Starting from zero again
    /// under the same epoch, the replica could certify one counter value twice, which is the one
    /// thing that 2f+1 replicas rely on never to happen (TR section 4.3).
    ///
    /// # Errors
    /// If the replica was started before, or the mark cannot be made durable.
    pub(crate) fn claim_epoch(&self) -> Result<(), GroupError> {
        let file = self.started.clone();
        let made = File::create_new(&file).and_then(|mark| mark.sync_all());
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(GroupError::StartedBefore { file, id: self.id.0 });
            }
            Err(error) => return Err(GroupError::Write { file, error }),
        }
        let dir = self.started.parent().map(Path::to_path_buf).unwrap_or_default();
        let synced = File::open(&dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| GroupError::Write { file: dir, error })
    }

    /// Writes the file for a new group.
    pub(super) fn write(&self, group: &Group, dir: &Path) -> Result<(), GroupError> {
        let secret =
            SealingSecret::generate().map_err(|error| GroupError::Random(error.to_string()))?;
        let sealed = seal(&self.group_key, &secret, self.id.0, group.config.epoch, &group.name())?;
        let text =
            Self::text(self.id, &group.name(), self.link.seed(), secret.expose_bytes(), &sealed);
        Ok(write_private(&Self::path(dir, self.id), text.as_bytes())?)
    }

    /// The text of the file.
    fn text(
        id: ReplicaId,
        group: &str,
        link: &[u8; 32],
        secret: &[u8; 32],
        sealed: &[u8],
    ) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "# Secrets of replica {id}. Whoever reads this file can act as this replica: keep it\n\
             # at mode 0600 and on no other machine.\n\
             group = \"{group}\"\n\
             replica = {id}\n\
             # Seed of the Ed25519 key that authenticates the replica's links.\n\
             link_key_seed = \"{link}\"\n\
             # Stands for what a trusted platform keeps in hardware; opens the next key.\n\
             sealing_secret = \"{secret}\"\n\
             # The key of the trusted subsystem, sealed for this replica, epoch and group.\n\
             sealed_group_key = \"{sealed}\"\n",
            id = id.0,
            link = *hex::encode(link),
            secret = *hex::encode(secret),
            sealed = *hex::encode(sealed),
        ))
    }
}

impl ClientKeys {
    /// The key file of a client in a group directory.
    #[must_use]
    pub fn path(dir: &Path, id: ClientId) -> PathBuf {
        dir.join(format!("client-{}.key", id.0))
    }

    /// Reads `client-N.key` in `dir`.
    ///
    /// # Errors
    /// If the file is missing, open to other users, damaged, or made for another client or group.
    pub fn load(group: &Group, dir: impl AsRef<Path>, id: ClientId) -> Result<Self, GroupError> {
        let whose = format!("client {}", id.0);
        let entry = group.clients.iter().find(|entry| entry.id == id).ok_or_else(|| {
            let count = group.clients.len();
            GroupError::Unknown { file: group.path.clone(), whose: whose.clone(), count }
        })?;
        let sample = Self::text(id, group, &[0; 32], &[0; 32]);
        let file = KeyFile { path: Self::path(dir.as_ref(), id), whose, bytes: sample.len() };
        let table: ClientKeyFile = file.read()?;
        file.check(table.client == id.0, || format!("holds the keys of client {}", table.client))?;
        file.check_group(group, &table.group)?;
        let link = file.link_key(&table.link_key_seed, &entry.public_key)?;
        let secret = file.secret("request_key", &table.request_key)?;
        let requests: RequestKey = match group.config.request_authenticator {
            RequestAuthenticator::Ed25519 => ClientSigningKey::from_bytes(secret).into(),
            _ => ClientKey::from_bytes(group.config.mac, secret).into(),
        };
        file.check(requests.public() == entry.request_key, || {
            "request_key is not the private half of the request_key in group.toml".to_owned()
        })?;
        Ok(Self { id, link, requests })
    }

    /// Writes the file for a new group.
    pub(super) fn write(&self, group: &Group, dir: &Path) -> Result<(), GroupError> {
        let (link, requests) = (self.link.seed(), self.requests.expose_bytes());
        let text = Self::text(self.id, group, link, requests);
        Ok(write_private(&Self::path(dir, self.id), text.as_bytes())?)
    }

    /// The text of the file.
    fn text(
        id: ClientId,
        group: &Group,
        link: &[u8; 32],
        requests: &[u8; 32],
    ) -> Zeroizing<String> {
        let what = match group.config.request_authenticator {
            RequestAuthenticator::Ed25519 => {
                "Seed of the Ed25519 key that signs the client's requests."
            }
            _ => "Authenticates the client's requests at all replicas; derived from the group key.",
        };
        Zeroizing::new(format!(
            "# Secrets of client {id}. Whoever reads this file can act as this client: keep it at\n\
             # mode 0600.\n\
             group = \"{group}\"\n\
             client = {id}\n\
             # Seed of the Ed25519 key that authenticates the client's links.\n\
             link_key_seed = \"{link}\"\n\
             # {what}\n\
             request_key = \"{requests}\"\n",
            id = id.0,
            group = group.name(),
            link = *hex::encode(link),
            requests = *hex::encode(requests),
        ))
    }
}

/// A private file, and its expected owner.
struct KeyFile {
    path: PathBuf,
    whose: String,
    /// Length of the file as `hybster init` makes it, in bytes.
    bytes: usize,
}

impl KeyFile {
    fn read<T: DeserializeOwned>(&self) -> Result<T, GroupError> {
        let bytes = read_private(&self.path)?;
        // A file system that lost its last writes leaves zeros.
        if bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()) {
            return Err(self.damaged(bytes.len(), "is empty"));
        }
        let syntax = |message: String| GroupError::Syntax { file: self.path.clone(), message };
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| syntax("is not text; restore it from your backup".to_owned()))?;
        // The parser's message would quote the line, which may hold a secret.
        toml::from_str(text).map_err(|error| {
            if bytes.len() < self.bytes {
                return self.damaged(bytes.len(), "is cut off");
            }
            let line = error.span().map_or(0, |span| text[..span.start].lines().count());
            syntax(format!("line {line}: {}; restore it from your backup", error.message()))
        })
    }

    fn damaged(&self, found: usize, how: &'static str) -> GroupError {
        let (file, whose) = (self.path.clone(), self.whose.clone());
        GroupError::Damaged { file, how, found, expected: self.bytes, whose }
    }

    fn check(&self, holds: bool, what: impl FnOnce() -> String) -> Result<(), GroupError> {
        if holds {
            return Ok(());
        }
        Err(GroupError::WrongKeys {
            file: self.path.clone(),
            what: what(),
            whose: self.whose.clone(),
        })
    }

    fn check_group(&self, group: &Group, found: &str) -> Result<(), GroupError> {
        self.check(found == group.name(), || "belongs to another group".to_owned())
    }

    fn link_key(&self, seed: &str, public: &PublicKey) -> Result<StaticKey, GroupError> {
        let key = StaticKey::from_seed(&self.secret("link_key_seed", seed)?);
        self.check(key.public() == *public, || {
            "link_key_seed is not the private half of the public key in group.toml".to_owned()
        })?;
        Ok(key)
    }

    fn secret(&self, key: &str, text: &str) -> Result<[u8; 32], GroupError> {
        hex::decode_array(text).ok_or_else(|| self.bad_digits(key, "64"))
    }

    /// Names the key but never shows the value: it is a secret.
    fn bad_digits(&self, key: &str, digits: &str) -> GroupError {
        GroupError::Value {
            file: self.path.clone(),
            key: key.to_owned(),
            value: "(hidden)".to_owned(),
            cure: format!("it has {digits} hexadecimal digits; restore it from your backup"),
        }
    }
}
