//! The specification of a group: the options of a subcommand, checked and with defaults filled in.

use std::path::PathBuf;
use std::time::Duration;

use hybster::durable::Durability;
use hybster::{Layout, Protocol, TransportKind};
use hybster_net::LinkCipher;
use hybster_tss::{MacAlgorithm, RequestAuthenticator};

use crate::Error;
use crate::cores::Cores;
use crate::options::{CLIENTS_PER_CONNECTION, GroupOptions, ServiceKind};

/// The specification of a group.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// What orders the requests.
    pub protocol: Protocol,
    /// Number of replicas; 1 for the unreplicated server.
    pub replicas: u16,
    /// Tolerated faults.
    pub faults: u16,
    /// Pillars.
    pub pillars: u16,
    /// Requests per batch, at most.
    pub batch_max: u32,
    /// Layout of stages on cores.
    pub layout: Layout,
    /// What of a replica outlives its process.
    pub durability: Durability,
    /// The cores of each process; empty if the system decides.
    pub cores: Cores,
    /// Transport of replicas and clients.
    pub transport: TransportKind,
    /// How long threads poll for messages before they sleep.
    pub busy_poll: Duration,
    /// MAC algorithm.
    pub authenticator: MacAlgorithm,
    /// What proves a client's request.
    pub request_authenticator: RequestAuthenticator,
    /// Protection of links.
    pub link_cipher: LinkCipher,
    /// The service.
    pub service: ServiceKind,
    /// Bytes of a null service's reply.
    pub reply_size: u32,
    /// Client identities.
    pub identities: u32,
    /// One server without a protocol.
    pub unreplicated: bool,
    /// Where replicas write their traces.
    pub trace: Option<PathBuf>,
    /// What starts replicas.
    pub replica_wrapper: Option<PathBuf>,
    /// Which requests replicas follow.
    pub stages: Option<StagesSpec>,
    /// Whether each replica is in a network namespace of its own.
    pub has_wires: bool,
}

/// Which requests replicas follow, and where they write the stamps that they gave them.
#[derive(Clone, Debug)]
pub struct StagesSpec {
    /// One in so many.
    pub every: u32,
    /// The directory of the files.
    pub directory: PathBuf,
}

impl StagesSpec {
    /// The file of a replica.
    #[must_use]
    pub fn file(&self, replica: u16) -> PathBuf {
        self.directory.join(format!("replica-{replica}.stamps"))
    }
}

/// What the files of a group say.
#[derive(Clone, Debug)]
pub struct GroupFacts {
    /// The group's identifier.
    pub name: String,
    /// What orders the requests.
    pub protocol: Protocol,
    /// Number of replicas.
    pub replicas: u16,
    /// Tolerated faults.
    pub faults: u16,
    /// Pillars.
    pub pillars: u16,
    /// Requests per batch, at most.
    pub batch_max: u32,
    /// Layout of replicas that choose no other.
    pub layout: Layout,
    /// What of a replica outlives its process.
    pub durability: Durability,
    /// MAC algorithm.
    pub authenticator: MacAlgorithm,
    /// What proves a client's request.
    pub request_authenticator: RequestAuthenticator,
    /// Protection of links.
    pub link_cipher: LinkCipher,
    /// Client identities.
    pub clients: u32,
}

impl GroupSpec {
    /// The group that the options ask for, with `identities` client identities.
    ///
    /// # Errors
    /// If the options contradict each other.
    pub fn new(
        options: &GroupOptions,
        service: ServiceKind,
        identities: u32,
    ) -> Result<Self, Error> {
        let rules = options.protocol.rules();
        let replicas = match (options.unreplicated, options.replicas) {
            (true, _) => 1,
            (false, Some(replicas)) => replicas,
            (false, None) => {
                let least = rules.least_replicas(options.faults.unwrap_or(1).max(1));
                u16::try_from(least).unwrap_or(u16::MAX)
            }
        };
        let faults = match (options.unreplicated, options.faults) {
            (true, _) => 0,
            (false, Some(faults)) => faults,
            (false, None) => rules.most_faults(replicas),
        };
        // All identities except one, the monitor's, belong to connection groups.
        let connections = identities.saturating_sub(1).max(1);
        check_clients(options.clients, connections)?;
        let least = rules.least_replicas(faults);
        if !options.unreplicated && u32::from(replicas) < least {
            let most = rules.most_faults(replicas);
            return Err(Error::new(format!(
                "{faults} faults need at least {least} replicas: give --replicas {least} or \
                 --faults {most}",
            )));
        }
        let cores = cores(options.pin, replicas, connections)?;
        Ok(Self {
            protocol: options.protocol,
            replicas,
            faults,
            // Without a protocol there is nothing to split over pillars.
            pillars: if options.unreplicated { 1 } else { options.pillars },
            batch_max: options.batch_max,
            layout: options.layout,
            durability: options.durability,
            cores,
            transport: options.transport,
            busy_poll: options.busy_poll,
            authenticator: options.authenticator,
            request_authenticator: options
                .request_authenticator
                .unwrap_or(rules.request_authenticator()),
            link_cipher: options.link_cipher,
            service,
            reply_size: options.reply_size,
            identities,
            unreplicated: options.unreplicated,
            trace: options.trace.clone(),
            replica_wrapper: options.replica_wrapper.clone(),
            stages: None,
            has_wires: false,
        })
    }
    /// The group that runs already, for a load of so many connections over these options.
    ///
    /// # Errors
    /// If the options ask for what cannot be had.
    pub fn of_group(
        options: &GroupOptions,
        group: &GroupFacts,
        service: ServiceKind,
        connections: u32,
    ) -> Result<Self, Error> {
        check_clients(options.clients, connections)?;
        Ok(Self {
            protocol: group.protocol,
            replicas: group.replicas,
            faults: group.faults,
            pillars: group.pillars,
            batch_max: group.batch_max,
            layout: group.layout,
            durability: group.durability,
            cores: cores(options.pin, 0, connections)?,
            transport: options.transport,
            busy_poll: options.busy_poll,
            authenticator: group.authenticator,
            request_authenticator: group.request_authenticator,
            link_cipher: group.link_cipher,
            service,
            reply_size: options.reply_size,
            identities: group.clients,
            unreplicated: false,
            trace: None,
            replica_wrapper: None,
            stages: None,
            has_wires: false,
        })
    }
}

/// Fails if so many connections cannot serve all clients.
fn check_clients(clients: u32, connections: u32) -> Result<(), Error> {
    if clients > CLIENTS_PER_CONNECTION.saturating_mul(connections) {
        let needed = clients.div_ceil(CLIENTS_PER_CONNECTION);
        return Err(Error::new(format!(
            "one connection serves at most {CLIENTS_PER_CONNECTION} clients: give --connections \
             {needed} or more, or fewer --clients",
        )));
    }
    Ok(())
}

/// The cores of each process that is pinned.
fn cores(pin: bool, replicas: u16, connections: u32) -> Result<Cores, Error> {
    if !pin {
        return Ok(Cores::default());
    }
    let usable = core_affinity::get_core_ids()
        .ok_or_else(|| Error::new("--pin: this system does not tell its cores; omit it"))?;
    let usable: Vec<usize> = usable.iter().map(|core| core.id).collect();
    Ok(Cores::divide(&usable, replicas.into(), connections as usize))
}
