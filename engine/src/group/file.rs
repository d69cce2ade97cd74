//! `group.toml`: its content, reading it with all checks, and writing it with explanations.

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::sync::Arc;

use hybster_net::PublicKey;
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{ClientId, OrderNumber, ReplicaId};
use hybster_proto::membership::{Administrator, Membership};
use hybster_proto::protocol::{Protocol, UnknownProtocol};
use hybster_proto::service::BadServiceName;
use hybster_proto::wire::CheckpointId;
use hybster_tss::{ClientPublicKey, Digest, RequestAuthenticator};
use serde::Deserialize;
use toml::Spanned;

use super::{
    ClientEntry, Group, GroupError, ReplicaEntry, address, create, faulty_value, hex, request_keys,
};
use crate::durable::Durability;
use crate::replica::can_keep;
use crate::runtime::Layout;

/// The version of the file's form.
const FORMAT: u32 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupFile {
    format: u32,
    group: String,
    epoch: u32,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    service: Option<String>,
    #[serde(default)]
    service_version: Option<u32>,
    #[serde(default)]
    initial_state: Option<String>,
    #[serde(default)]
    administrator: Option<String>,
    faults: u16,
    pillars: u16,
    window: u64,
    checkpoint_interval: u64,
    batch_max_requests: u32,
    batch_max_bytes: u32,
    session_window: u32,
    max_sessions_per_client: u32,
    max_clients: u32,
    max_operation_bytes: u32,
    max_reply_bytes: u32,
    #[serde(default)]
    kept_result_bytes: Option<u64>,
    mac: String,
    #[serde(default)]
    request_authenticator: Option<String>,
    request_timeout_us: u64,
    view_timeout_us: u64,
    resend_us: u64,
    #[serde(default)]
    max_clock_skew_ms: Option<u64>,
    link_cipher: String,
    #[serde(default)]
    layout: Option<String>,
    #[serde(default)]
    durability: Option<String>,
    #[serde(default)]
    replica: Vec<ReplicaTable>,
    #[serde(default)]
    client: Vec<ClientTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicaTable {
    id: u16,
    address: Spanned<String>,
    public_key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientTable {
    id: u32,
    public_key: String,
    #[serde(default)]
    request_key: Option<String>,
}

/// Parses the text of `path` and checks everything that can be checked without a key.
pub(super) fn parse(path: &Path, text: &str) -> Result<Group, GroupError> {
    let table: GroupFile = toml::from_str(text).map_err(|error| GroupError::Syntax {
        file: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })?;
    if table.format != FORMAT {
        let cure = format!("this program reads format {FORMAT}; use the matching program");
        return Err(bad(path, "format", &table.format, &cure));
    }
    let mut config = group_config(path, &table)?;
    config
        .validate()
        .map_err(|error| bad(path, error.key, &faulty_value(&config, &error), &error.cure))?;
    let link_cipher = table.link_cipher.parse().map_err(|_| {
        let cure = "write aegis-128x2, aes-128-gcm, gmac or blake3";
        bad(path, "link_cipher", &table.link_cipher, cure)
    })?;
    let layout = match &table.layout {
        Some(name) => {
            name.parse().map_err(|_| bad(path, "layout", name, "write auto, fused or split"))?
        }
        None => Layout::Auto,
    };
    let durability = match &table.durability {
        Some(name) => {
            name.parse().map_err(|_| bad(path, "durability", name, "write sync, async or none"))?
        }
        // Files of programs that kept nothing.
        None => Durability::None,
    };
    can_keep(config.protocol, durability)
        .map_err(|cure| bad(path, "durability", &format!("\"{durability}\""), &cure))?;
    if let (Some(text), Err(cure)) = (&table.administrator, create::may_change(&config, durability))
    {
        return Err(bad(path, "administrator", &format!("\"{text}\""), cure));
    }
    if let (Some(version), None) = (table.service_version, &table.service) {
        let cure =
            "name the service that the version is of (service = \"NAME\"), or remove the line";
        return Err(bad(path, "service_version", &version, cure));
    }
    let clients = client_entries(path, &table.client, &config)?;
    if config.request_authenticator == RequestAuthenticator::Ed25519 {
        config.request_keys = request_keys(&clients).digest();
    }
    let group = Group {
        path: path.to_owned(),
        config: Arc::new(config),
        link_cipher,
        layout,
        durability,
        service_version: table.service_version,
        initial_state: table
            .initial_state
            .as_ref()
            .map(|it| initial_state(path, it))
            .transpose()?,
        replicas: replica_entries(path, text, &table.replica)?,
        clients,
    };
    group.key_ring()?;
    Ok(group)
}

/// The name of the checkpoint that the group began with, as [`service`] writes it.
fn initial_state(path: &Path, text: &str) -> Result<CheckpointId, GroupError> {
    let parsed = text.split_once(' ').and_then(|(order, digest)| {
        let (order, digest) = (order.parse().ok()?, hex::decode_array(digest)?);
        Some(CheckpointId { order: OrderNumber(order), digest: Digest(digest) })
    });
    parsed.ok_or_else(|| {
        let cure = "copy the line from the file that `hybster restore` made";
        bad(path, "initial_state", &format!("\"{text}\""), cure)
    })
}

/// Who may change the members, as [`service`] writes it.
fn administrator(path: &Path, text: &str) -> Result<Administrator, GroupError> {
    let parsed = text.split_once(' ').and_then(|(client, key)| {
        let key = ClientPublicKey::from_bytes(hex::decode_array(key)?).ok()?;
        Some(Administrator { client: ClientId(client.parse().ok()?), key })
    });
    parsed.ok_or_else(|| {
        let cure = "copy the line from the file that `hybster init` made";
        bad(path, "administrator", &format!("\"{text}\""), cure)
    })
}

/// The constants of the file, each understood but not yet checked against the others.
fn group_config(path: &Path, table: &GroupFile) -> Result<GroupConfig, GroupError> {
    let group = hex::decode_array(&table.group)
        .ok_or_else(|| bad(path, "group", &table.group, "write 32 hexadecimal digits"))?;
    let replicas = u16::try_from(table.replica.len())
        .map_err(|_| bad(path, "replica", &table.replica.len(), "list at most 64 replicas"))?;
    let protocol = match &table.protocol {
        Some(name) => name.parse().map_err(|error: UnknownProtocol| {
            bad(path, "protocol", &format!("\"{name}\""), &error.to_string())
        })?,
        // Files of programs that knew no other than the first.
        None => Protocol::default(),
    };
    let service = table.service.as_ref().map(|name| {
        name.parse().map_err(|error: BadServiceName| {
            bad(path, "service", &format!("\"{name}\""), &error.to_string())
        })
    });
    let mac = table
        .mac
        .parse()
        .map_err(|_| bad(path, "mac", &table.mac, "write aegis-128l, blake3 or hmac-sha256"))?;
    let request_authenticator = match &table.request_authenticator {
        Some(name) => name
            .parse()
            .map_err(|_| bad(path, "request_authenticator", name, "write mac or ed25519"))?,
        None => RequestAuthenticator::Mac,
    };
    Ok(GroupConfig {
        group,
        epoch: table.epoch,
        protocol,
        service: service.transpose()?,
        replicas,
        faults: table.faults,
        pillars: table.pillars,
        window: table.window,
        checkpoint_interval: table.checkpoint_interval,
        batch_max_requests: table.batch_max_requests,
        batch_max_bytes: table.batch_max_bytes,
        session_window: table.session_window,
        max_sessions_per_client: table.max_sessions_per_client,
        max_clients: table.max_clients,
        max_operation_bytes: table.max_operation_bytes,
        max_reply_bytes: table.max_reply_bytes,
        kept_result_bytes: table
            .kept_result_bytes
            .unwrap_or(GroupConfig::default().kept_result_bytes),
        mac,
        request_authenticator,
        request_keys: Digest::default(),
        request_timeout_us: table.request_timeout_us,
        view_timeout_us: table.view_timeout_us,
        resend_us: table.resend_us,
        max_clock_skew_ms: table
            .max_clock_skew_ms
            .unwrap_or(GroupConfig::default().max_clock_skew_ms),
        administrator: table
            .administrator
            .as_ref()
            .map(|it| administrator(path, it))
            .transpose()?,
        // A file has the first members; replicas know of later ones by themselves.
        membership: Membership::default(),
    })
}

fn bad(path: &Path, key: &str, value: &dyn ToString, cure: &str) -> GroupError {
    GroupError::Value {
        file: path.to_owned(),
        key: key.to_owned(),
        value: value.to_string(),
        cure: cure.to_owned(),
    }
}

fn replica_entries(
    path: &Path,
    text: &str,
    tables: &[ReplicaTable],
) -> Result<Vec<ReplicaEntry>, GroupError> {
    let bad = |key: String, value: String, cure: String| GroupError::Value {
        file: path.to_owned(),
        key,
        value,
        cure,
    };
    let mut entries: Vec<ReplicaEntry> = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let key = |name: &str| format!("replica[{index}].{name}");
        if usize::from(table.id) != index {
            let cure = format!("number the replicas in order from 0; this one is {index}");
            return Err(bad(key("id"), table.id.to_string(), cure));
        }
        let written = table.address.get_ref();
        let line = 1 + text[..table.address.span().start].matches('\n').count();
        let in_line = || format!("{} (line {line})", key("address"));
        let address = address::parse(written)
            .map_err(|cure| bad(in_line(), format!("\"{written}\""), cure.to_string()))?;
        if let Some(other) = entries.iter().find(|entry| entry.address == address) {
            let cure = format!("replica {} has this address already", other.id.0);
            return Err(bad(in_line(), address.to_string(), cure));
        }
        let public_key = parse_public_key(path, key("public_key"), &table.public_key)?;
        entries.push(ReplicaEntry { id: ReplicaId(table.id), address, public_key });
    }
    Ok(entries)
}

fn client_entries(
    path: &Path,
    tables: &[ClientTable],
    config: &GroupConfig,
) -> Result<Vec<ClientEntry>, GroupError> {
    let mut entries: Vec<ClientEntry> = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let key = |name: &str| format!("client[{index}].{name}");
        if table.id >= config.max_clients {
            return Err(GroupError::Value {
                file: path.to_owned(),
                key: key("id"),
                value: table.id.to_string(),
                cure: format!("choose a number below max_clients ({})", config.max_clients),
            });
        }
        let public_key = parse_public_key(path, key("public_key"), &table.public_key)?;
        let request_key = parse_request_key(path, key("request_key"), table, config)?;
        entries.push(ClientEntry { id: ClientId(table.id), public_key, request_key });
    }
    Ok(entries)
}

/// Checks that a client has a key for its requests if the group's clients sign, and otherwise none.
fn parse_request_key(
    path: &Path,
    key: String,
    table: &ClientTable,
    config: &GroupConfig,
) -> Result<Option<ClientPublicKey>, GroupError> {
    let signed = config.request_authenticator == RequestAuthenticator::Ed25519;
    let bad = |cure: &str| GroupError::Value {
        file: path.to_owned(),
        key,
        value: format!("\"{}\"", table.request_key.as_deref().unwrap_or_default()),
        cure: cure.to_owned(),
    };
    match (&table.request_key, signed) {
        (None, false) => Ok(None),
        (None, true) => Err(bad("where clients sign requests, each needs its public key")),
        (Some(_), false) => {
            Err(bad("remove it, or set request_authenticator = \"ed25519\" for the group"))
        }
        (Some(text), true) => match hex::decode_array(text).map(ClientPublicKey::from_bytes) {
            Some(Ok(request_key)) => Ok(Some(request_key)),
            Some(Err(_)) => Err(bad("these digits are not an Ed25519 public key; copy it again")),
            None => Err(bad("a public key has 64 hexadecimal digits")),
        },
    }
}

fn parse_public_key(path: &Path, key: String, text: &str) -> Result<PublicKey, GroupError> {
    text.parse().map_err(|_| GroupError::Value {
        file: path.to_owned(),
        key,
        value: format!("\"{text}\""),
        cure: "a public key has 64 hexadecimal digits".to_owned(),
    })
}

/// The text of `group.toml`, every key explained.
pub(super) fn write(group: &Group) -> String {
    let mut text = String::new();
    let parts =
        [header(group), service(group), bounds(&group.config), proofs_and_waits(&group.config)];
    for Entry { comment, name, value } in parts.into_iter().flatten().chain(local(group)) {
        for line in comment.lines() {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "{name} = {value}\n");
    }
    group.replicas.iter().for_each(|replica| write_replica(&mut text, replica));
    let administrator = group.config.administrator.map(|it| it.client);
    for client in &group.clients {
        write_client(&mut text, client, administrator == Some(client.id));
    }
    text
}

/// A key of the file's top level with its explanation.
struct Entry {
    comment: &'static str,
    name: &'static str,
    value: String,
}

fn number(comment: &'static str, name: &'static str, value: impl Into<u64>) -> Entry {
    Entry { comment, name, value: value.into().to_string() }
}

fn quoted(comment: &'static str, name: &'static str, value: impl Display) -> Entry {
    Entry { comment, name, value: format!("\"{value}\"") }
}

fn header(group: &Group) -> Vec<Entry> {
    let c = &group.config;
    vec![
        number(
            "A replica group of Hybster, made by `hybster init`. The file holds no secret. Give every\n\
             replica and client the same copy: ends whose constants differ refuse each other.\n\n\
             Version of this file's form.",
            "format",
            FORMAT,
        ),
        quoted("Identifies the group; random.", "group", &*hex::encode(&c.group)),
        number("Life of the trusted counters; the key files are sealed for it.", "epoch", c.epoch),
        quoted(
            "What orders the requests: hybster (trusted counters, 2f+1 replicas) or pbft (3f+1 replicas that need\n\
             none, and share no key).",
            "protocol",
            c.protocol,
        ),
        number(
            "f: replicas that may fail in any way. The protocol says how many replicas (the [[replica]]\n\
             tables below) that needs.",
            "faults",
            c.faults,
        ),
    ]
}

/// What the file says of the service and of the state that it began with, if anything.
fn service(group: &Group) -> Vec<Entry> {
    let name = group.config.service.as_ref().map(|name| {
        quoted(
            "The service that replicas run. One that runs another is refused, at its start and by the others.",
            "service",
            name,
        )
    });
    let version = group.service_version.map(|version| {
        number(
            "The version of the service: others start only if they are newer and say that they are\n\
             compatible with it. It may differ from replica to replica: when all run a newer one, raise it\n\
             in each file; each start reads it.",
            "service_version",
            version,
        )
    });
    let initial = group.initial_state.map(|CheckpointId { order, digest }| {
        quoted(
            "The state that the group began with, from a backup: an order number and a digest. A replica\n\
             does not start without the data that `hybster restore` made for it.",
            "initial_state",
            format_args!("{} {digest}", order.0),
        )
    });
    let administrator = group.config.administrator.map(|Administrator { client, key }| {
        quoted(
            "Who may replace a replica that is lost: a client, and the public half of the key that signs changes,\n\
             in administrator.key.",
            "administrator",
            format_args!("{} {key}", client.0),
        )
    });
    name.into_iter().chain(version).chain(initial).chain(administrator).collect()
}

fn bounds(c: &GroupConfig) -> Vec<Entry> {
    vec![
        number("P: pillars that agree in parallel, 1 to 256.", "pillars", c.pillars),
        number(
            "Order numbers that may be in progress, over all pillars; a multiple of\n\
             checkpoint_interval, at least twice of it.",
            "window",
            c.window,
        ),
        number(
            "Order numbers between two checkpoints; a multiple of pillars.",
            "checkpoint_interval",
            c.checkpoint_interval,
        ),
        number("Requests per batch, at most.", "batch_max_requests", c.batch_max_requests),
        number("Bytes per batch, at most.", "batch_max_bytes", c.batch_max_bytes),
        number(
            "Outstanding requests per session; as many results are kept for each session.",
            "session_window",
            c.session_window,
        ),
        number(
            "Sessions per client; one more evicts the client's least recently used.",
            "max_sessions_per_client",
            c.max_sessions_per_client,
        ),
        number("Client identities, numbered from 0.", "max_clients", c.max_clients),
        number("Bytes of an operation, at most.", "max_operation_bytes", c.max_operation_bytes),
        number("Bytes of a result, at most.", "max_reply_bytes", c.max_reply_bytes),
        number(
            "Bytes of results kept for clients that ask again, over all clients; beyond it the client with\n\
             the most gives up its oldest.",
            "kept_result_bytes",
            c.kept_result_bytes,
        ),
    ]
}

fn proofs_and_waits(c: &GroupConfig) -> Vec<Entry> {
    vec![
        quoted(
            "Algorithm of certificates and request MACs: aegis-128l, blake3 or hmac-sha256.",
            "mac",
            c.mac,
        ),
        quoted(
            "What proves a client's request: mac (fast; who learns the group key of a replica can speak\n\
             for every client) or ed25519 (a signature by the client's own key; much more CPU).",
            "request_authenticator",
            c.request_authenticator,
        ),
        number(
            "First wait for a request before the leader is suspected, in microseconds; adapts.",
            "request_timeout_us",
            c.request_timeout_us,
        ),
        number(
            "First wait for a new leader's NEW-VIEW, in microseconds; adapts.",
            "view_timeout_us",
            c.view_timeout_us,
        ),
        number(
            "Wait before something outstanding is asked for again, in microseconds.",
            "resend_us",
            c.resend_us,
        ),
        number(
            "How far clocks of replicas may be apart, in milliseconds. Operations see the leader's\n\
             clock; a leader whose clock is further from the others' is replaced.",
            "max_clock_skew_ms",
            c.max_clock_skew_ms,
        ),
    ]
}

/// The keys that the digest of the group does not cover.
fn local(group: &Group) -> [Entry; 3] {
    [
        quoted(
            "Protection of links: aegis-128x2 (the fastest) and aes-128-gcm authenticate and encrypt,\n\
             gmac and blake3 authenticate only.",
            "link_cipher",
            group.link_cipher.name(),
        ),
        quoted(
            "Threads of a replica: fused (one), split (one per stage) or auto (by available cores).\n\
             May differ from replica to replica.",
            "layout",
            group.layout,
        ),
        quoted(
            "What outlives a replica's process: sync (all that it has ever said; after a loss of power\n\
             too), async (the same, but not after a loss of power) or none (it starts once).",
            "durability",
            group.durability,
        ),
    ]
}

fn write_replica(text: &mut String, replica: &ReplicaEntry) {
    let _ = writeln!(
        text,
        "# Where replica {id} listens and others connect to: IP:PORT, [IPV6]:PORT, [IPV6%INTERFACE]:PORT,\n\
         # or NAME:PORT, where the name of the host is looked up for each connection. And the public half\n\
         # of the link key in replica-{id}.key.\n[[replica]]\nid = {id}\naddress = \"{}\"\npublic_key = \"{}\"\n",
        replica.address,
        replica.public_key,
        id = replica.id.0,
    );
}

fn write_client(text: &mut String, client: &ClientEntry, is_administrator: bool) {
    let file = match is_administrator {
        true => "administrator.key".to_owned(),
        false => format!("client-{}.key", client.id.0),
    };
    let _ = writeln!(
        text,
        "# The public half of the link key in {file}.\n[[client]]\nid = {id}\n\
         public_key = \"{}\"",
        client.public_key,
        id = client.id.0,
    );
    if let Some(request_key) = &client.request_key {
        let _ = writeln!(
            text,
            "# The public half of the request key there.\nrequest_key = \"{request_key}\"",
        );
    }
    text.push('\n');
}
