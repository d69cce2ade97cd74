//! `hybster init`: makes a group directory and prints how to use it.

use std::path::PathBuf;

use clap::Args;
use hybster::durable::Durability;
use hybster::group::{Addresses, CreateOptions, Group, create, parse_address};
use hybster::{GroupConfig, Layout, PeerAddress, Protocol};
use hybster_net::LinkCipher;
use hybster_tss::{MacAlgorithm, RequestAuthenticator};

use crate::service::ServiceName;
use crate::{Done, Failure};

/// Options of `hybster init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The directory to make; must not hold a group yet.
    pub(crate) dir: PathBuf,
    /// What orders the requests: hybster (2f+1 replicas with trusted counters), or pbft (3f+1 replicas that
    /// need none, nor any secret in common; they keep nothing on disk).
    #[arg(long, default_value_t)]
    protocol: Protocol,
    /// Number of replicas, n; by default as many as addresses are given, or as many as the faults need: 3 for
    /// one with hybster, 4 with pbft.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: Option<u16>,
    /// Tolerated faults, f; by default as many as the replicas allow: (n-1)/2 with hybster, (n-1)/3
    /// with pbft.
    /// A group that tolerates none is only made with `--faults 0`.
    #[arg(long)]
    faults: Option<u16>,
    /// Pillars, P: state machines that agree in parallel.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pillars: u16,
    /// Addresses that the replicas listen on: IP:PORT or NAME:PORT for each, separated by commas. The
    /// name of a host is looked up for each connection.
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS:PORT", conflicts_with = "base_port",
          value_parser = parse_address)]
    addresses: Vec<PeerAddress>,
    /// All replicas on 127.0.0.1: this port for replica 0, the next for replica 1, and so on.
    #[arg(long, default_value_t = 7100, value_name = "PORT")]
    base_port: u16,
    /// Client identities that get keys.
    #[arg(long, default_value_t = 1)]
    clients: u32,
    /// The service that replicas run. Its name and version are in the group file.
    #[arg(long, value_enum, default_value = "kv")]
    service: ServiceName,
    /// MAC algorithm of certificates, and of client requests unless they are signed: aegis-128l,
    /// blake3 or hmac-sha256.
    #[arg(long, default_value_t)]
    authenticator: MacAlgorithm,
    /// What proves a client's request: mac, or ed25519 for a signature by the client's own key,
    /// which a leaked group key cannot forge and which costs much more CPU. By default mac; with pbft, where
    /// there is no group key, ed25519.
    #[arg(long)]
    request_authenticator: Option<RequestAuthenticator>,
    /// How links are protected: aegis-128x2, aes-128-gcm (both encrypt), gmac or blake3 (authentic
    /// only).
    #[arg(long, default_value_t)]
    link_cipher: LinkCipher,
    /// Layout of a replica's stages on cores.
    #[arg(long, default_value = "auto")]
    layout: Layout,
    /// What of a replica outlives its process: sync (everything, after a loss of power too), async
    /// (everything, but not after a loss of power) or none (a replica starts once). By default sync; with
    /// pbft none, and nothing else.
    #[arg(long)]
    durability: Option<Durability>,
    /// Make administrator.key as well, with which `hybster replace-replica` puts another replica in the
    /// place of one whose disk or host is lost. It needs --durability sync.
    #[arg(long)]
    administrator: bool,
    /// Requests per batch, at most.
    #[arg(long, value_name = "REQUESTS")]
    batch_max: Option<u32>,
    /// Order numbers between two checkpoints; by default the first multiple of the pillars from
    /// 256 on. The order window is four times this.
    #[arg(long, value_name = "ORDERS")]
    checkpoint_interval: Option<u64>,
}

/// Makes the group.
pub(crate) fn init(args: &InitArgs) -> Result<Done, Failure> {
    let options = options(args, GroupConfig::default())?;
    let group = create(&args.dir, &options)?;
    print!("{}", next_steps(args, &group));
    Ok(Done::Yes)
}

/// What the options say; all that they do not say is as in `base`.
pub(crate) fn options(args: &InitArgs, base: GroupConfig) -> Result<CreateOptions, Failure> {
    let listed = u16::try_from(args.addresses.len())
        .map_err(|_| Failure::options("--addresses: too many addresses; at most 64 replicas"))?;
    let rules = args.protocol.rules();
    let replicas = match (args.replicas, listed) {
        (Some(replicas), _) => replicas,
        (None, 0) => replicas_for(rules.least_replicas(args.faults.unwrap_or(1).max(1)))?,
        (None, listed) => listed,
    };
    let faults = faults(args, replicas)?;
    let pillars = u64::from(args.pillars);
    let checkpoint_interval = args
        .checkpoint_interval
        .unwrap_or_else(|| base.checkpoint_interval.next_multiple_of(pillars));
    let config = GroupConfig {
        replicas,
        protocol: args.protocol,
        service: args.service.identity().name().parse().ok(),
        faults,
        pillars: args.pillars,
        checkpoint_interval,
        window: checkpoint_interval.saturating_mul(4),
        batch_max_requests: args.batch_max.unwrap_or(base.batch_max_requests),
        mac: args.authenticator,
        request_authenticator: args.request_authenticator.unwrap_or(rules.request_authenticator()),
        ..base
    };
    let addresses = if args.addresses.is_empty() {
        Addresses::Loopback(args.base_port)
    } else {
        Addresses::Named(args.addresses.clone())
    };
    let InitArgs { clients, link_cipher, layout, administrator, .. } = *args;
    let kept = if rules.keeps_log { Durability::default() } else { Durability::None };
    let durability = args.durability.unwrap_or(kept);
    let service_version = Some(args.service.identity().version());
    Ok(CreateOptions {
        config,
        addresses,
        clients,
        link_cipher,
        layout,
        durability,
        administrator,
        service_version,
    })
}

/// So many replicas, if a group can have them.
fn replicas_for(least: u32) -> Result<u16, Failure> {
    let fits = u16::try_from(least).ok().filter(|replicas| *replicas <= 64);
    fits.ok_or_else(|| {
        Failure::options(format!("--faults: so many need {least} replicas; a group has at most 64"))
    })
}

/// The faults that the group is to tolerate. None is a choice that nobody makes by miscounting addresses.
fn faults(args: &InitArgs, replicas: u16) -> Result<u16, Failure> {
    let rules = args.protocol.rules();
    match (args.faults, rules.most_faults(replicas)) {
        (Some(faults), _) => Ok(faults),
        (None, 0) => Err(Failure::options(format!(
            "{replicas} replicas tolerate no fault (f = 0): when one fails, the group stops. One fault needs \
             {} replicas with {}. If that is what you want, say --faults 0",
            rules.least_replicas(1),
            args.protocol,
        ))),
        (None, most) => Ok(most),
    }
}

pub(crate) fn next_steps(args: &InitArgs, group: &Group) -> String {
    let config = group.config();
    let dir = args.dir.display();
    let promise = match group.durability() {
        Durability::None => {
            "A replica starts\n\
             once: that uses up its key file, of which no older copy may be restored afterwards."
        }
        _ => {
            "A replica\n\
             keeps its log and checkpoints in replica-N.epoch-E.data beside its key file, and starts again\n\
             from there. Never put an older copy of key file or data in their place."
        }
    };
    let mut text = format!(
        "Made {dir}: {} replicas (f = {}), {} pillars, {} client keys.\n\
         \n\
         Every replica needs group.toml and its own replica-N.key, a client group.toml and its\n\
         client-N.key; nobody needs more, and key files are for their owner only. {promise}\n\
         \n\
         Start the replicas, each in a terminal (or on a machine) of its own:\n",
        config.replicas,
        config.faults,
        config.pillars,
        group.clients().len() - usize::from(config.administrator.is_some()),
    );
    if config.administrator.is_some() {
        text = format!(
            "{text}Keep administrator.key on none of these machines: with it `hybster replace-replica` makes another\n\
             replica in the place of one that is lost.\n"
        );
    }
    if config.faults == 0 {
        text = format!("This group tolerates no fault: when one replica fails, it stops.\n{text}");
    }
    for replica in group.replicas() {
        text += &format!("    hybster replica --group {dir} --id {}", replica.id.0);
        if args.service != ServiceName::Kv {
            text += &format!(" --service {}", args.service.name());
        }
        text += &format!("    # {}\n", replica.address);
    }
    text += "Then:\n";
    if args.service == ServiceName::Kv && args.clients > 0 {
        text += &format!("    hybster kv --group {dir} put greeting hello\n");
        text += &format!("    hybster kv --group {dir} get greeting\n");
    }
    if args.service == ServiceName::Redis && args.clients > 0 {
        text +=
            &format!("    hybster gateway --group {dir}    # then redis-cli set greeting hello\n");
    }
    text += &format!("    hybster status --group {dir}\n");
    text
}
