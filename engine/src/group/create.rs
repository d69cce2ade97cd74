//! Making a group, in memory or as a directory.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hybster_net::{LinkCipher, PeerAddress, StaticKey};
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::ClientId;
use hybster_proto::membership::{Administrator, Membership};
use hybster_tss::{ClientSigningKey, GroupKey, RequestAuthenticator, RequestKey};

use super::{
    AdministratorKeys, ClientEntry, ClientKeys, GROUP_FILE, Group, GroupError, ReplicaEntry,
    ReplicaKeys, faulty_value, file, hex, request_keys,
};
use crate::durable::Durability;
use crate::replica::can_keep;
use crate::runtime::Layout;

/// Where the replicas of a new group listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// One address per replica.
    List(Vec<SocketAddr>),
    /// These, one per replica, which may be names of hosts.
    Named(Vec<PeerAddress>),
    /// 127.0.0.1 with this port for replica 0, the next for replica 1, and so on.
    Loopback(u16),
}

/// The properties of a new group.
///
/// ```
/// use hybster::GroupConfig;
/// use hybster::group::{Addresses, CreateOptions, generate};
///
/// # fn main() -> Result<(), hybster::GroupError> {
/// // Five replicas, of which two may fail in any way.
/// let config = GroupConfig { replicas: 5, faults: 2, ..GroupConfig::default() };
/// let addresses = Addresses::Loopback(7200);
/// let options = CreateOptions { config, addresses, clients: 3, ..CreateOptions::default() };
/// let made = generate(&options)?;
/// assert_eq!((made.replicas.len(), made.clients.len()), (5, 3));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// The constants; `group` is replaced by a random identifier, `request_keys` by the digest of
    /// the clients' keys, `administrator` by a new one or nobody.
    pub config: GroupConfig,
    /// Where the replicas listen.
    pub addresses: Addresses,
    /// How many clients get keys, numbered from 0.
    pub clients: u32,
    /// How links are protected.
    pub link_cipher: LinkCipher,
    /// The default layout of the replicas.
    pub layout: Layout,
    /// What of a replica outlives its process.
    pub durability: Durability,
    /// Whether there is somebody who may replace replicas that are lost: [`AdministratorKeys`]. It needs
    /// durability `sync`.
    pub administrator: bool,
    /// The version that services must have, or be compatible with; for a group whose `config` names the
    /// service.
    pub service_version: Option<u32>,
}

impl Default for CreateOptions {
    /// Three replicas on loopback from port 7100, and one client.
    fn default() -> Self {
        Self {
            config: GroupConfig::default(),
            addresses: Addresses::Loopback(7100),
            clients: 1,
            link_cipher: LinkCipher::default(),
            layout: Layout::Auto,
            durability: Durability::default(),
            administrator: false,
            service_version: None,
        }
    }
}

/// Makes a group: generates all keys and writes the directory. Overwrites nothing.
///
/// ```no_run
/// use hybster::group::{CreateOptions, create};
///
/// # fn main() -> Result<(), hybster::GroupError> {
/// // As `hybster init my-group`. Then each machine gets group.toml and its own key file.
/// let group = create("my-group", &CreateOptions::default())?;
/// println!("made the group {}", group.name());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the options contradict each other, files of a group are there already, or the disk refuses.
pub fn create(dir: impl AsRef<Path>, options: &CreateOptions) -> Result<Group, GroupError> {
    generate(options)?.write(dir)
}

/// A new group with all its keys.
#[derive(Debug)]
pub struct Generated {
    /// What all members may know.
    pub group: Group,
    /// The secrets of each replica, in order from 0.
    pub replicas: Vec<ReplicaKeys>,
    /// The secrets of each client, in order from 0.
    pub clients: Vec<ClientKeys>,
    /// The secrets of the administrator, if the group has one.
    pub administrator: Option<AdministratorKeys>,
}

impl Generated {
    /// Writes a group directory, which takes the place of these keys. Overwrites nothing.
    ///
    /// # Errors
    /// If files of a group are there already, or the disk refuses.
    pub fn write(self, dir: impl AsRef<Path>) -> Result<Group, GroupError> {
        let (dir, Self { mut group, replicas, clients, administrator }) = (dir.as_ref(), self);
        group.path = dir.join(GROUP_FILE);
        fs::create_dir_all(dir)
            .map_err(|error| GroupError::Write { file: dir.to_owned(), error })?;
        let mut made = Made::default();
        refuse_existing(&group.path)?;
        for keys in &replicas {
            made.file(&ReplicaKeys::path(dir, keys.id), |path| keys.write(path))?;
        }
        for keys in &clients {
            made.file(&ClientKeys::path(dir, keys.id), |path| keys.write(&group, path))?;
        }
        if let Some(keys) = &administrator {
            made.file(&AdministratorKeys::path(dir), |path| keys.write(&group, path))?;
        }
        // Last, so that a directory with this file is complete.
        made.file(&group.path, |path| write_public(path, &file::write(&group)))?;
        made.complete();
        Ok(group)
    }
}

/// Makes a group with all its keys, in memory. Nothing is written.
///
/// # Errors
/// If the options contradict each other.
pub fn generate(options: &CreateOptions) -> Result<Generated, GroupError> {
    let mut config = options.config.clone();
    getrandom::fill(&mut config.group).map_err(|error| GroupError::Random(error.to_string()))?;
    can_keep(config.protocol, options.durability)
        .map_err(|cure| GroupError::Options { option: "durability", cure })?;
    if config.membership != Membership::default() {
        let cure = "leave it out: a new group has its first members".to_owned();
        return Err(GroupError::Options { option: "membership", cure });
    }
    let administrator = ClientId(options.clients);
    let signing = match options.administrator {
        true => {
            let key = ClientSigningKey::generate();
            Some(key.map_err(|error| GroupError::Random(error.to_string()))?)
        }
        false => None,
    };
    let named = |key: &ClientSigningKey| Administrator { client: administrator, key: key.public() };
    config.administrator = signing.as_ref().map(named);
    // First, so that nobody is told to choose a durability for an administrator that the protocol cannot have.
    config.validate().map_err(|error| {
        let (option, value) = (error.key, faulty_value(&config, &error));
        GroupError::Options { option, cure: format!("{option} = {value}: {}", error.cure) }
    })?;
    may_change(&config, options.durability)
        .map_err(|cure| GroupError::Options { option: "administrator", cure: cure.to_owned() })?;
    if options.clients > config.max_clients {
        let cure = format!("at most max_clients ({}) clients", config.max_clients);
        return Err(GroupError::Options { option: "clients", cure });
    }
    if config.service.is_none() && options.service_version.is_some() {
        let cure = "a version of a service needs its name: set config.service".to_owned();
        return Err(GroupError::Options { option: "service_version", cure });
    }
    let addresses = addresses(options, config.replicas)?;
    let random = |error: &dyn std::error::Error| GroupError::Random(error.to_string());
    // Where hosts need not trust each other, no secret is on two of them.
    let group_key = match config.rules().shares_a_key {
        true => Some(GroupKey::generate().map_err(|error| random(&error))?),
        false => None,
    };
    let (mut replicas, mut replica_keys) = (Vec::new(), Vec::new());
    for (id, address) in config.all_replicas().zip(addresses) {
        let link = StaticKey::generate().map_err(|error| random(&error))?;
        replicas.push(ReplicaEntry { id, address, public_key: link.public() });
        let name = hex::encode(&config.group).to_string();
        let group_key = group_key.clone();
        replica_keys.push(ReplicaKeys::generated(id, link, group_key, name, config.epoch));
    }
    let (mut clients, mut client_keys) = (Vec::new(), Vec::new());
    let count = options.clients + u32::from(options.administrator);
    for id in (0..count).map(ClientId) {
        let link = StaticKey::generate().map_err(|error| random(&error))?;
        let requests: RequestKey = match (config.request_authenticator, &group_key) {
            (RequestAuthenticator::Mac, Some(group_key)) => {
                group_key.client_key(config.mac, id.0).into()
            }
            _ => ClientSigningKey::generate().map_err(|error| random(&error))?.into(),
        };
        let request_key = requests.public();
        clients.push(ClientEntry { id, public_key: link.public(), request_key });
        client_keys.push(ClientKeys { id, link, requests });
    }
    if config.request_authenticator == RequestAuthenticator::Ed25519 {
        config.request_keys = request_keys(&clients).digest();
    }
    let group = Group {
        path: GROUP_FILE.into(),
        config: Arc::new(config),
        link_cipher: options.link_cipher,
        layout: options.layout,
        durability: options.durability,
        service_version: options.service_version,
        initial_state: None,
        replicas,
        clients,
    };
    let administrator = match signing {
        Some(signing) => {
            let (Some(group_key), Some(client)) = (group_key, client_keys.pop()) else {
                let cure = "leave it out: the replicas have no key in common".to_owned();
                return Err(GroupError::Options { option: "administrator", cure });
            };
            let links = replica_keys.iter().map(|keys: &ReplicaKeys| keys.link.clone()).collect();
            Some(AdministratorKeys { client, signing, group_key, links })
        }
        None => None,
    };
    Ok(Generated { group, replicas: replica_keys, clients: client_keys, administrator })
}

/// Whether a group with these constants can have an administrator, if it has one.
///
/// # Errors
/// What to do, if not.
pub(super) fn may_change(config: &GroupConfig, durability: Durability) -> Result<(), &'static str> {
    if config.administrator.is_none() {
        return Ok(());
    }
    // Of the protocol `GroupConfig::validate` says it.
    match durability {
        Durability::Sync => Ok(()),
        _ => Err("replicas can only be replaced in a group with durability \"sync\": choose that"),
    }
}

fn addresses(options: &CreateOptions, replicas: u16) -> Result<Vec<PeerAddress>, GroupError> {
    let fail = |cure: String| Err(bad_addresses(cure));
    let list = match &options.addresses {
        Addresses::List(list) => &list.iter().map(|it| PeerAddress::Ip(*it)).collect(),
        Addresses::Named(list) => list,
        Addresses::Loopback(_) => &Vec::new(),
    };
    match &options.addresses {
        Addresses::List(_) | Addresses::Named(_) => {
            check_addresses(list, replicas)?;
            Ok(list.clone())
        }
        Addresses::Loopback(base) => {
            if *base == 0 || base.checked_add(replicas - 1).is_none() {
                return fail(format!("ports {base} to {base} + {} do not exist", replicas - 1));
            }
            let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
            Ok((0..replicas).map(|i| SocketAddr::new(ip, base + i).into()).collect())
        }
    }
}

/// One address for each replica.
pub(super) fn check_addresses(list: &[PeerAddress], replicas: u16) -> Result<(), GroupError> {
    if list.len() != usize::from(replicas) {
        return Err(bad_addresses(format!("give {replicas} addresses, one per replica")));
    }
    if let Some(twice) = (1..list.len()).find(|i| list[..*i].contains(&list[*i])) {
        return Err(bad_addresses(format!("{} is there twice", list[twice])));
    }
    Ok(())
}

fn bad_addresses(cure: String) -> GroupError {
    GroupError::Options { option: "addresses", cure }
}

fn refuse_existing(path: &Path) -> Result<(), GroupError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(GroupError::Exists { file: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(GroupError::Write { file: path.to_owned(), error }),
    }
}

fn write_public(path: &Path, text: &str) -> Result<(), GroupError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|error| GroupError::Write { file: path.to_owned(), error })
}

/// The files made so far; they are removed unless all could be made.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
}

impl Made {
    fn file(
        &mut self,
        path: &Path,
        write: impl FnOnce(&Path) -> Result<(), GroupError>,
    ) -> Result<(), GroupError> {
        refuse_existing(path)?;
        write(path)?;
        self.files.push(path.to_owned());
        Ok(())
    }

    fn complete(mut self) {
        self.files.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for file in &self.files {
            // The first error is the one that is reported.
            let _ = fs::remove_file(file);
        }
    }
}
