//! Keys, and their files `replica-N.key` and `client-N.key`, readable by their owner only.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hybster_net::{PublicKey, StaticKey};
use hybster_proto::ids::{ClientId, ReplicaId};
use hybster_tss::keyfile::{
    SEALED_BYTES, StartRight, Unsealed, read_private, seal, unseal, write_private,
};
use hybster_tss::{
    ClientKey, ClientSigningKey, GroupKey, Life, RequestAuthenticator, RequestKey, SealingSecret,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{Group, GroupError, environment, hex};

/// An older copy of a replica's key file says that it may start.
const REPLICA_CURE: &str = "if the replica has never started, copy the file again from where \
    `hybster init` made it; if it has, go on without it: a copy from before would let it break what \
    the group agreed on";

const CLIENT_CURE: &str =
    "copy the file again from where `hybster init` made it, or restore it from your backup";

/// The secrets of one replica.
#[derive(Clone, Debug)]
pub struct ReplicaKeys {
    /// The replica that they belong to.
    pub id: ReplicaId,
    /// Authenticates the replica's links.
    pub link: StaticKey,
    /// The key of the group's trusted subsystems; `None` in a group whose protocol needs none, where no two
    /// replicas hold the same secret.
    pub group_key: Option<GroupKey>,
    /// The life of its trusted counters.
    pub(crate) life: Life,
    /// Where they come from.
    pub(super) home: Home,
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
    /// The life of the trusted counters, and the epoch that the key was sealed for last: of a replica that has
    /// replaced another, or has gone on to a later epoch.
    #[serde(default)]
    life: Option<String>,
    #[serde(default)]
    epoch: Option<u32>,
    sealing_secret: Zeroizing<String>,
    /// In a group with trusted subsystems.
    #[serde(default)]
    sealed_group_key: Option<Zeroizing<String>>,
    /// In any other group: the right to start, and no key.
    #[serde(default)]
    sealed_right: Option<Zeroizing<String>>,
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

    /// Reads `replica-N.key` in `dir`. Keys that a replica has started with can be read, but
    /// no replica starts with them again.
    ///
    /// # Errors
    /// If the file is missing, open to other users, damaged, or made for another replica or group.
    pub fn load(group: &Group, dir: impl AsRef<Path>, id: ReplicaId) -> Result<Self, GroupError> {
        Self::load_file(group, Self::path(dir.as_ref(), id), id)
    }

    /// Reads a replica's key file that may have any name. The mark of the first start is made beside
    /// it, and there the replica's data is unless another place is named.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_file(
        group: &Group,
        path: impl Into<PathBuf>,
        id: ReplicaId,
    ) -> Result<Self, GroupError> {
        let path = path.into();
        // An unknown replica is an error of the group file, also if there is no key file.
        entry(group, id)?;
        let file = KeyFile::of_replica(path.clone(), id, &group.name(), shares_a_key(group));
        let bytes = read_private(&path)?;
        let opened = file.open(&bytes, id, group.config.epoch, &group.name())?;
        let place = Place::File { path, right: opened.unsealed.right };
        Self::checked(group, id, opened, place)
    }

    /// The keys from the text of a key file, wherever it comes from.
    ///
    /// No file can then be marked as used, and nothing tells whether the replica has run before: its
    /// data does, if the group keeps any, and its very first start must be called that
    /// ([`ReplicaBuilder::first_start`](crate::ReplicaBuilder::first_start)).
    ///
    /// # Errors
    /// If it is malformed, or made for another replica or group.
    pub fn from_text(group: &Group, text: &str, id: ReplicaId) -> Result<Self, GroupError> {
        Self::of_text(group, Self::path(Path::new("text of "), id), text, id)
    }

    /// As [`Self::from_text`], with the text of an environment variable.
    ///
    /// # Errors
    /// As [`Self::from_text`], and if there is no such variable.
    pub fn from_env(group: &Group, variable: &str, id: ReplicaId) -> Result<Self, GroupError> {
        let text = Zeroizing::new(environment(variable)?);
        Self::of_text(group, format!("${variable}").into(), &text, id)
    }

    fn of_text(
        group: &Group,
        name: PathBuf,
        text: &str,
        id: ReplicaId,
    ) -> Result<Self, GroupError> {
        entry(group, id)?;
        let file = KeyFile::of_replica(name, id, &group.name(), shares_a_key(group));
        let opened = file.open(text.as_bytes(), id, group.config.epoch, &group.name())?;
        let has_started = opened.unsealed.right == StartRight::Used;
        let has_started = Arc::new(AtomicBool::new(has_started));
        Self::checked(group, id, opened, Place::Memory { is_new: false, has_started })
    }

    fn checked(
        group: &Group,
        id: ReplicaId,
        opened: Opened,
        place: Place,
    ) -> Result<Self, GroupError> {
        let link = opened.file.link_key(&opened.link_key_seed, &entry(group, id)?.public_key)?;
        let (epoch, life) = (opened.epoch, opened.life);
        let home = Home { group: group.name(), epoch, place };
        let group_key = shares_a_key(group).then_some(opened.unsealed.group_key);
        Ok(Self { id, link, group_key, life, home })
    }

    /// The life of the replica's trusted counters: another one for each replica that takes the place of a lost one.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// Keys that were just made.
    pub(super) fn generated(
        id: ReplicaId,
        link: StaticKey,
        group_key: Option<GroupKey>,
        group: String,
        epoch: u32,
    ) -> Self {
        let place = Place::Memory { is_new: true, has_started: Arc::default() };
        Self { id, link, group_key, life: Life::FIRST, home: Home { group, epoch, place } }
    }

    /// The same for a replica that replaces one that is lost: with another life, from an epoch on.
    pub(super) fn in_life(mut self, life: Life, epoch: u32) -> Self {
        (self.life, self.home.epoch) = (life, epoch);
        self
    }

    /// The content of the key file as it is now.
    pub(super) fn reopen(&self, path: &Path) -> Result<Opened, GroupError> {
        let shares = self.group_key.is_some();
        let file = KeyFile::of_replica(path.to_owned(), self.id, &self.home.group, shares);
        file.open(&read_private(path)?, self.id, self.home.epoch, &self.home.group)
    }

    /// The text of a new key file, for [`Self::from_text`] or a file of mode 0600. It says that the
    /// replica has never started: give it to one place only, and use these keys no more.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub fn to_text(&self) -> Result<Zeroizing<String>, GroupError> {
        let secret =
            SealingSecret::generate().map_err(|error| GroupError::Random(error.to_string()))?;
        self.sealed_text(StartRight::Unused, &secret)
    }

    /// The text of a key file with a right to start.
    pub(super) fn sealed_text(
        &self,
        right: StartRight,
        secret: &SealingSecret,
    ) -> Result<Zeroizing<String>, GroupError> {
        let (home, none) = (&self.home, GroupKey::from_bytes([0; GroupKey::BYTES]));
        let key = self.group_key.as_ref().unwrap_or(&none);
        let name = sealed_name(&home.group, self.life);
        let sealed = seal(key, right, secret, self.id.0, home.epoch, &name)?;
        let shares = self.group_key.is_some();
        let whose = Whose { id: self.id, group: &home.group, life: self.life, epoch: home.epoch };
        let (link, secret) = (self.link.seed(), secret.expose_bytes());
        Ok(replica_text(&whose, right, link, secret, (shares, &sealed)))
    }

    /// Writes the file for a new group.
    pub(super) fn write(&self, path: &Path) -> Result<(), GroupError> {
        Ok(write_private(path, self.to_text()?.as_bytes())?)
    }
}

/// Whether the replicas of a group share the key of their trusted subsystems.
fn shares_a_key(group: &Group) -> bool {
    group.config.rules().shares_a_key
}

/// What of a replica's key file is sealed: its name there, and what people are told of it and of the secret.
fn sealed_part(shares: bool) -> [&'static str; 3] {
    if shares {
        [
            "sealed_group_key",
            "Stands for what a trusted platform keeps in hardware; opens the next key.",
            "The key of the trusted subsystem, sealed for this replica, epoch and group.",
        ]
    } else {
        [
            "sealed_right",
            "Opens the next line.",
            "The right to start, sealed for this replica, epoch and group, which have no key in common.",
        ]
    }
}

/// What is sealed is for besides replica and epoch: the group, and the life of the counters.
fn sealed_name(group: &str, life: Life) -> String {
    match life {
        Life::FIRST => group.to_owned(),
        life => format!("{group} life {life}"),
    }
}

/// What a replica's key file says of itself.
struct Whose<'a> {
    id: ReplicaId,
    group: &'a str,
    life: Life,
    epoch: u32,
}

/// The text of `replica-N.key`; equally long for either right. What is sealed has the group's key, or none.
fn replica_text(
    whose: &Whose<'_>,
    right: StartRight,
    link: &[u8; 32],
    secret: &[u8; 32],
    (shares, sealed): (bool, &[u8]),
) -> Zeroizing<String> {
    let [name, of_secret, of_sealed] = sealed_part(shares);
    // Files of groups whose members never changed are as they always were.
    let later = match (whose.life, whose.epoch) {
        (Life::FIRST, 0) => String::new(),
        (life, epoch) => format!(
            "# The life of its trusted counters, and the epoch that the key is for.\n\
             life = \"{life}\"\n\
             epoch = {epoch}\n"
        ),
    };
    // The key itself says which, sealed; this is for people.
    let right = match right {
        StartRight::Unused => {
            "Unused: the replica may start with it, once. A start writes this file again, as used."
        }
        StartRight::Used => {
            "Used: the replica has started. Never put a copy of this file from before in its place."
        }
    };
    Zeroizing::new(format!(
        "# Secrets of replica {id}. Whoever reads this file can act as this replica: keep it\n\
             # at mode 0600 and on no other machine.\n\
             # {right:<90}\n\
             group = \"{group}\"\n\
             replica = {id}\n\
             {later}\
             # Seed of the Ed25519 key that authenticates the replica's links.\n\
             link_key_seed = \"{link}\"\n\
             # {of_secret}\n\
             sealing_secret = \"{secret}\"\n\
             # {of_sealed}\n\
             {name} = \"{sealed}\"\n",
        id = whose.id.0,
        group = whose.group,
        link = *hex::encode(link),
        secret = *hex::encode(secret),
        sealed = *hex::encode(sealed),
    ))
}

fn entry(group: &Group, id: ReplicaId) -> Result<&super::ReplicaEntry, GroupError> {
    group.replicas.get(usize::from(id.0)).ok_or_else(|| GroupError::Unknown {
        file: group.path.clone(),
        whose: format!("replica {}", id.0),
        count: group.replicas.len(),
    })
}

/// Where the keys of a replica come from, and what is known there about the right to start.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) group: String,
    pub(super) epoch: u32,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A file, and the right that it held when it was read.
    File { path: PathBuf, right: StartRight },
    /// The memory of this process.
    Memory {
        /// Whether they were made here, so that no other process can have used them.
        is_new: bool,
        /// Shared by all copies.
        has_started: Arc<AtomicBool>,
    },
}

/// A replica's key file, read and unsealed.
pub(super) struct Opened {
    file: KeyFile,
    link_key_seed: Zeroizing<String>,
    pub(super) secret: SealingSecret,
    pub(super) unsealed: Unsealed,
    life: Life,
    pub(super) epoch: u32,
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
        Self::load_file(group, Self::path(dir.as_ref(), id), id)
    }

    /// Reads a client's key file that may have any name.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_file(
        group: &Group,
        path: impl Into<PathBuf>,
        id: ClientId,
    ) -> Result<Self, GroupError> {
        let path = path.into();
        Self::read(group, path.clone(), id, || Ok(read_private(&path)?))
    }

    /// The keys from the text of a key file, wherever it comes from.
    ///
    /// # Errors
    /// If it is malformed, or made for another client or group.
    pub fn from_text(group: &Group, text: &str, id: ClientId) -> Result<Self, GroupError> {
        let name = Self::path(Path::new("text of "), id);
        Self::read(group, name, id, || Ok(Zeroizing::new(text.as_bytes().to_vec())))
    }

    /// As [`Self::from_text`], with the text of an environment variable.
    ///
    /// # Errors
    /// As [`Self::from_text`], and if there is no such variable.
    pub fn from_env(group: &Group, variable: &str, id: ClientId) -> Result<Self, GroupError> {
        let read = || Ok(Zeroizing::new(environment(variable)?.into_bytes()));
        Self::read(group, format!("${variable}").into(), id, read)
    }

    fn read(
        group: &Group,
        path: PathBuf,
        id: ClientId,
        read: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, GroupError>,
    ) -> Result<Self, GroupError> {
        let whose = format!("client {}", id.0);
        let entry = group.clients.iter().find(|entry| entry.id == id).ok_or_else(|| {
            let count = group.clients.len();
            GroupError::Unknown { file: group.path.clone(), whose: whose.clone(), count }
        })?;
        let sample = Self::text(id, group, &[0; 32], &[0; 32]);
        let bytes = sample.len();
        let file = KeyFile { path, whose, is_replica: false, bytes, shares: false };
        let table: ClientKeyFile = file.parse(&read()?)?;
        file.check(table.client == id.0, || format!("holds the keys of client {}", table.client))?;
        file.check_group(&group.name(), &table.group)?;
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

    /// The text of a key file, for [`Self::from_text`] or a file of mode 0600.
    #[must_use]
    pub fn to_text(&self, group: &Group) -> Zeroizing<String> {
        Self::text(self.id, group, self.link.seed(), self.requests.expose_bytes())
    }

    /// Writes the file for a new group.
    pub(super) fn write(&self, group: &Group, path: &Path) -> Result<(), GroupError> {
        Ok(write_private(path, self.to_text(group).as_bytes())?)
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
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    pub(super) whose: String,
    pub(super) is_replica: bool,
    /// Length of the file as `hybster init` makes it, in bytes.
    pub(super) bytes: usize,
    /// Of a replica's: whether it has a key that all replicas of the group share.
    pub(super) shares: bool,
}

impl KeyFile {
    fn of_replica(path: PathBuf, id: ReplicaId, group: &str, shares: bool) -> Self {
        let (right, sealed) = (StartRight::Unused, [0; SEALED_BYTES]);
        let shortest = Whose { id, group, life: Life::FIRST, epoch: 0 };
        let sample = replica_text(&shortest, right, &[0; 32], &[0; 32], (shares, &sealed));
        let bytes = sample.len();
        Self { path, whose: format!("replica {}", id.0), is_replica: true, bytes, shares }
    }

    /// The sealed part of a replica's key file, which depends on the group's protocol.
    fn sealed<'a>(&self, table: &'a ReplicaKeyFile, bytes: usize) -> Result<&'a str, GroupError> {
        let (key, right) = (table.sealed_group_key.as_ref(), table.sealed_right.as_ref());
        let (wanted, other) = if self.shares { (key, right) } else { (right, key) };
        let [name, ..] = sealed_part(self.shares);
        let [stranger, ..] = sealed_part(!self.shares);
        self.check(other.is_none(), || {
            format!("has {stranger}, where the group's protocol needs {name}")
        })?;
        wanted.map(|sealed| sealed.as_str()).ok_or_else(|| {
            if bytes < self.bytes {
                return self.damaged(bytes, "is cut off");
            }
            let message = format!("missing field `{name}`; {}", self.cure());
            GroupError::Syntax { file: self.path.clone(), message }
        })
    }

    /// What the key file of a replica has, unsealed.
    fn open(
        self,
        bytes: &[u8],
        id: ReplicaId,
        epoch: u32,
        group: &str,
    ) -> Result<Opened, GroupError> {
        let table: ReplicaKeyFile = self.parse(bytes)?;
        self.check(table.replica == id.0, || {
            format!("holds the keys of replica {}", table.replica)
        })?;
        self.check_group(group, &table.group)?;
        let secret =
            SealingSecret::from_bytes(self.secret("sealing_secret", &table.sealing_secret)?);
        let [sealed_as, ..] = sealed_part(self.shares);
        let sealed = hex::decode(self.sealed(&table, bytes.len())?)
            .ok_or_else(|| self.bad_digits(sealed_as, &(2 * SEALED_BYTES).to_string()))?;
        let life = match &table.life {
            None => Life::FIRST,
            Some(text) => hex::decode_array(text)
                .map(|bytes| Life(u64::from_be_bytes(bytes)))
                .ok_or_else(|| self.bad_digits("life", "16"))?,
        };
        let epoch = table.epoch.unwrap_or(epoch);
        let name = sealed_name(group, life);
        let unsealed = unseal(&sealed, &secret, id.0, epoch, &name).map_err(|error| {
            GroupError::WrongKeys {
                file: self.path.clone(),
                what: format!("{sealed_as}: {}", error.problem()),
                whose: self.whose.clone(),
            }
        })?;
        let link_key_seed = table.link_key_seed;
        Ok(Opened { file: self, link_key_seed, secret, unsealed, life, epoch })
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, GroupError> {
        // A file system that lost its last writes leaves zeros.
        if bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()) {
            return Err(self.damaged(bytes.len(), "is empty"));
        }
        let syntax = |message: String| GroupError::Syntax { file: self.path.clone(), message };
        let text = std::str::from_utf8(bytes)
            .map_err(|_| syntax(format!("is not text; {}", self.cure())))?;
        // The parser's message would quote the line, which may hold a secret.
        toml::from_str(text).map_err(|error| {
            if bytes.len() < self.bytes {
                return self.damaged(bytes.len(), "is cut off");
            }
            let line = error.span().map_or(0, |span| text[..span.start].lines().count());
            syntax(format!("line {line}: {}; {}", error.message(), self.cure()))
        })
    }

    /// What to do about a damaged file.
    fn cure(&self) -> &'static str {
        if self.is_replica { REPLICA_CURE } else { CLIENT_CURE }
    }

    fn damaged(&self, found: usize, how: &'static str) -> GroupError {
        let (file, whose, cure) = (self.path.clone(), self.whose.clone(), self.cure());
        GroupError::Damaged { file, how, found, expected: self.bytes, whose, cure }
    }

    pub(super) fn check(
        &self,
        holds: bool,
        what: impl FnOnce() -> String,
    ) -> Result<(), GroupError> {
        if holds {
            return Ok(());
        }
        Err(GroupError::WrongKeys {
            file: self.path.clone(),
            what: what(),
            whose: self.whose.clone(),
        })
    }

    pub(super) fn check_group(&self, group: &str, found: &str) -> Result<(), GroupError> {
        self.check(found == group, || "belongs to another group".to_owned())
    }

    pub(super) fn link_key(&self, seed: &str, public: &PublicKey) -> Result<StaticKey, GroupError> {
        let key = StaticKey::from_seed(&self.secret("link_key_seed", seed)?);
        self.check(key.public() == *public, || {
            "link_key_seed is not the private half of the public key in group.toml".to_owned()
        })?;
        Ok(key)
    }

    pub(super) fn secret(&self, key: &str, text: &str) -> Result<[u8; 32], GroupError> {
        hex::decode_array(text).ok_or_else(|| self.bad_digits(key, "64"))
    }

    /// Names the key but never shows the value: it is a secret.
    fn bad_digits(&self, key: &str, digits: &str) -> GroupError {
        GroupError::Value {
            file: self.path.clone(),
            key: key.to_owned(),
            value: "(hidden)".to_owned(),
            cure: format!("it has {digits} hexadecimal digits; {}", self.cure()),
        }
    }
}
