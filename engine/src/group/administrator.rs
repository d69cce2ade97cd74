//! The administrator's keys, `administrator.key`: what it takes to put another replica in the place of one that is
//! lost (`engine/proto/EPOCHS.md`).
//!
//! The file has everything that a replica's key file has, of all replicas. It is needed for nothing else: keep it
//! away from the machines of the group.

use std::path::{Path, PathBuf};

use hybster_net::StaticKey;
use hybster_proto::ids::ReplicaId;
use hybster_tss::keyfile::{read_private, write_private};
use hybster_tss::{ClientKey, ClientSigningKey, GroupKey, Life, RequestAuthenticator, RequestKey};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::keys::KeyFile;
use super::{ClientKeys, Group, GroupError, ReplicaKeys, hex};

/// The secrets of who may replace replicas.
#[derive(Clone, Debug)]
pub struct AdministratorKeys {
    /// The client over whose sessions the changes come. It can do nothing else.
    pub client: ClientKeys,
    /// Signs the changes; its public half is in the group file.
    pub signing: ClientSigningKey,
    /// The key of the group's trusted subsystems, for that of a new replica.
    pub(super) group_key: GroupKey,
    /// The link keys of all replicas, in order from 0: a new replica has that of the one in whose place it is.
    pub(super) links: Vec<StaticKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdministratorFile {
    group: String,
    client: u32,
    link_key_seed: Zeroizing<String>,
    request_key: Zeroizing<String>,
    signing_key_seed: Zeroizing<String>,
    group_key: Zeroizing<String>,
    replica_link_key_seeds: Vec<Zeroizing<String>>,
}

impl AdministratorKeys {
    /// The administrator's key file in a group directory.
    #[must_use]
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("administrator.key")
    }

    /// Reads `administrator.key` in `dir`.
    ///
    /// # Errors
    /// If the group has no administrator, or the file is missing, open to other users, damaged, or made for another
    /// group.
    pub fn load(group: &Group, dir: impl AsRef<Path>) -> Result<Self, GroupError> {
        let path = Self::path(dir.as_ref());
        let Some(administrator) = group.config.administrator else {
            return Err(GroupError::NoAdministrator { file: group.path.clone() });
        };
        let bytes = read_private(&path)?;
        let file = KeyFile {
            path,
            whose: "the administrator".into(),
            is_replica: false,
            bytes: Self::least_bytes(group),
            shares: false,
        };
        let table: AdministratorFile = file.parse(&bytes)?;
        file.check_group(&group.name(), &table.group)?;
        file.check(table.client == administrator.client.0, || {
            format!("holds the keys of client {}", table.client)
        })?;
        let entry = group.clients.iter().find(|entry| entry.id == administrator.client);
        let entry = entry.ok_or_else(|| GroupError::Unknown {
            file: group.path.clone(),
            whose: format!("client {}, the administrator", administrator.client.0),
            count: group.clients.len(),
        })?;
        let link = file.link_key(&table.link_key_seed, &entry.public_key)?;
        let secret = file.secret("request_key", &table.request_key)?;
        let requests: RequestKey = match group.config.request_authenticator {
            RequestAuthenticator::Ed25519 => ClientSigningKey::from_bytes(secret).into(),
            _ => ClientKey::from_bytes(group.config.mac, secret).into(),
        };
        let signing =
            ClientSigningKey::from_bytes(file.secret("signing_key_seed", &table.signing_key_seed)?);
        file.check(signing.public() == administrator.key, || {
            "signing_key_seed is not the private half of the administrator's key in group.toml"
                .into()
        })?;
        let group_key = GroupKey::from_bytes(file.secret("group_key", &table.group_key)?);
        let seeds = &table.replica_link_key_seeds;
        file.check(seeds.len() == group.replicas.len(), || {
            format!("has the link keys of {} replicas", seeds.len())
        })?;
        let links = seeds.iter().zip(&group.replicas);
        let links = links.map(|(seed, entry)| file.link_key(seed, &entry.public_key));
        let links = links.collect::<Result<_, _>>()?;
        let client = ClientKeys { id: administrator.client, link, requests };
        Ok(Self { client, signing, group_key, links })
    }

    /// The keys of a replica in a new life, which counts from an epoch on: in the place of one that is lost. Write
    /// them once, for one machine ([`ReplicaKeys::to_text`]).
    ///
    /// # Panics
    /// If the group has no such replica.
    #[must_use]
    pub fn replacement(&self, group: &Group, id: ReplicaId, life: Life, epoch: u32) -> ReplicaKeys {
        let link = self.links[usize::from(id.0)].clone();
        let keys =
            ReplicaKeys::generated(id, link, Some(self.group_key.clone()), group.name(), epoch);
        keys.in_life(life, epoch)
    }

    /// Writes the file for a new group.
    pub(super) fn write(&self, group: &Group, path: &Path) -> Result<(), GroupError> {
        Ok(write_private(path, self.to_text(group).as_bytes())?)
    }

    /// The text of the key file, for a file of mode 0600.
    #[must_use]
    pub fn to_text(&self, group: &Group) -> Zeroizing<String> {
        let seeds: Vec<_> = self.links.iter().map(|link| hex::encode(link.seed())).collect();
        let mut quoted = Zeroizing::new(String::new());
        for seed in &seeds {
            quoted.push_str("    \"");
            quoted.push_str(seed);
            quoted.push_str("\",\n");
        }
        Zeroizing::new(format!(
            "# Secrets of the administrator, who may put a new replica in the place of one that is lost. Whoever\n\
             # reads this file can act as every replica of the group: keep it at mode 0600, and on none of the\n\
             # group's machines. Only `hybster replace-replica` needs it.\n\
             group = \"{group}\"\n\
             # The client over whose sessions changes come, and its keys as in client-N.key.\n\
             client = {client}\n\
             link_key_seed = \"{link}\"\n\
             request_key = \"{requests}\"\n\
             # Seed of the Ed25519 key that signs changes.\n\
             signing_key_seed = \"{signing}\"\n\
             # The key of the trusted subsystems, and the seeds of the replicas' link keys.\n\
             group_key = \"{group_key}\"\n\
             replica_link_key_seeds = [\n{links}]\n",
            group = group.name(),
            client = self.client.id.0,
            link = *hex::encode(self.client.link.seed()),
            requests = *hex::encode(self.client.requests.expose_bytes()),
            signing = *hex::encode(self.signing.expose_bytes()),
            group_key = *hex::encode(self.group_key.expose_bytes()),
            links = *quoted,
        ))
    }

    /// A file that is shorter than this is cut off.
    fn least_bytes(group: &Group) -> usize {
        let secrets = 4 + group.replicas.len();
        64 * secrets
    }
}
