//! The stages of a replica, boxed for the agents that own them. This is the one place in the engine
//! that knows which ordering protocols there are.

use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::config::GroupConfig;
use hybster_proto::epochs::EpochMessage;
use hybster_proto::execution::Beginning;
use hybster_proto::hybster::{self, Hybster, Recovered};
use hybster_proto::ids::OrderNumber;
use hybster_proto::output::{LogRecord, Output};
use hybster_proto::pbft::Pbft;
use hybster_proto::protocol::{Ordering, Protocol};
use hybster_proto::replica::Start;
use hybster_proto::service::Service;
use hybster_proto::time::Time;
use hybster_proto::wire::CheckpointId;
use hybster_proto::{Stages, Unreplicated};
use hybster_tss::{GroupKey, InProcessTrInX, InProcessVerifier, RandomnessKey, SignedRequests};

use crate::durable::{DataError, Durability, Found, Restored};
use crate::group::{Group, ReplicaKeys};
use crate::runtime::{Clients, Control, Pillar, Role, Stage};

/// Stages with their roles, and what they do first.
pub(super) type Begun = (Vec<(Role, Box<dyn Stage>)>, Vec<Output>);

/// Whether replicas that run a protocol can keep what a group wants them to keep.
///
/// # Errors
/// What to do, if not.
pub(crate) fn can_keep(protocol: Protocol, durability: Durability) -> Result<(), String> {
    if protocol.rules().keeps_log || durability == Durability::None {
        return Ok(());
    }
    Err(format!(
        "write none: a replica that runs {protocol} has no log, so it starts once; with hybster it starts again"
    ))
}

/// All stages of a replica with their roles, as the group's ordering protocol has them.
pub(super) fn replicated<S: Service>(
    group: &Group,
    keys: &ReplicaKeys,
    service: S,
) -> Vec<(Role, Box<dyn Stage>)> {
    let (config, id) = (group.config(), keys.id);
    match config.protocol {
        Protocol::Hybster => {
            let digest = config.digest();
            let trinx = config.all_pillars().map(|pillar| {
                let instance = config.instance(id, pillar);
                InProcessTrInX::new(shared_key(keys), config.mac, digest, instance)
            });
            let verifier = verifiers(group, keys);
            let agreement = Hybster::agreement(config, id, trinx.collect(), verifier);
            boxed(Stages::new(Arc::clone(config), id, agreement, service, randomness(group, keys)))
        }
        Protocol::Pbft => {
            let requests = signed(group);
            let agreement = Pbft::agreement(config, id, || requests.clone());
            boxed(Stages::new(Arc::clone(config), id, agreement, service, randomness(group, keys)))
        }
    }
}

/// All stages of a replica that comes back with what its log told, and what they do first.
///
/// # Errors
/// If the log is not one that the replica can have written, or the service cannot read the checkpoint.
pub(super) fn recovered<S: Service>(
    group: &Group,
    keys: &ReplicaKeys,
    service: S,
    found: Found,
    now: Time,
    output: impl Fn() -> Output,
) -> Result<Begun, DataError> {
    let (config, id) = (group.config(), keys.id);
    let Found { path, checkpoint, records, is_whole, since } = found;
    let durable = checkpoint.as_ref().map_or(OrderNumber(0), |it| it.id.order);
    let count = records.len();
    if config.protocol != Protocol::Hybster {
        let story = format!("{} has no log yet", config.protocol);
        return Err(DataError::Records { path, story });
    }
    let mut recovered = Recovered::read(Arc::clone(config), id, durable, is_whole, records)
        .map_err(|error| DataError::Records { path: path.clone(), story: error.to_string() })?;
    let (replay, stable) = (recovered.take_replay(), recovered.stable_checkpoint());
    let view = recovered.current_view().0;
    let state = checkpoint.as_ref().map(|it| (it.id, it.state()));
    let beginning = Beginning { checkpoint: state, replay, stable };
    let digest = config.digest();
    let trinx = config.all_pillars().map(|pillar| {
        let instance = config.instance(id, pillar);
        let counters = recovered.counters(pillar);
        InProcessTrInX::restored(shared_key(keys), config.mac, digest, instance, counters)
    });
    let trinx = trinx.collect();
    let agreement = Hybster::recover(config, id, trinx, verifiers(group, keys), &mut recovered);
    let randomness = randomness(group, keys);
    let start = Start { config: Arc::clone(config), id, agreement, service, randomness };
    let mut first = vec![output()];
    let stages = Stages::recover(start, beginning, now, &mut first[0]);
    // Of a page that could not be read the service was given nothing, whatever it made of that.
    checkpoint.map_or(Ok(()), Restored::checked)?;
    let mut stages = stages?;
    // Each acts on what those before it have put out, as if all had just done so.
    let mut resume = |with: &mut dyn FnMut(&mut Output)| {
        let mut out = output();
        with(&mut out);
        first.push(out);
    };
    resume(&mut |out| stages.resume_control(now, out));
    for pillar in config.all_pillars() {
        resume(&mut |out| stages.resume_pillar(pillar, now, out));
    }
    log::info!(
        "replica {} comes back from {}, in view {view}: the checkpoint of order {}, and {count} records of \
         its log; that took {} ms",
        id.0,
        path.display(),
        durable.0,
        since.elapsed().as_millis(),
    );
    Ok((boxed(stages), first))
}

/// The checkpoint that a certificate proves in a group, with the keys of one of its replicas.
///
/// # Errors
/// If it proves none.
pub(crate) fn certified(
    group: &Group,
    keys: &ReplicaKeys,
    certificate: &[u8],
) -> Result<CheckpointId, String> {
    let config = group.config();
    match config.protocol {
        Protocol::Hybster => {
            let verified = hybster::verify(&verifiers(group, keys)(), config, certificate);
            verified.map_err(|error| error.to_string())
        }
        // Votes for a checkpoint convince only who got them.
        Protocol::Pbft => Err("checkpoints of pbft have no certificates".into()),
    }
}

/// What a new group has that begins with a checkpoint: its certificate, and what the log of each replica begins with.
/// The keys are those of any replica.
///
/// # Errors
/// If they refuse.
pub(crate) fn beginning(
    group: &Group,
    keys: &ReplicaKeys,
    id: CheckpointId,
) -> Result<(Bytes, Vec<LogRecord>), String> {
    let config = group.config();
    match config.protocol {
        Protocol::Hybster => {
            let digest = config.digest();
            let trinx =
                |instance| InProcessTrInX::new(shared_key(keys), config.mac, digest, instance);
            let certificate =
                hybster::certify(config, id, trinx).map_err(|error| error.to_string())?;
            let records =
                hybster::beginning(config, &certificate).map_err(|error| error.to_string())?;
            Ok((certificate, records))
        }
        Protocol::Pbft => Err("a group that runs pbft cannot begin with a checkpoint".into()),
    }
}

/// The next epoch's constants, if a certificate and a configuration prove that the present one is over, with the keys of
/// one of its replicas.
///
/// # Errors
/// If they do not.
pub(super) fn next_epoch(
    group: &Group,
    keys: &ReplicaKeys,
    end: &EpochMessage,
) -> Result<GroupConfig, String> {
    let config = group.config();
    match config.protocol {
        Protocol::Hybster => {
            let verifier = verifiers(group, keys)();
            let next = hybster::next_epoch(&verifier, config, &end.certificate, &end.next);
            next.map_err(|error| error.to_string())
        }
        Protocol::Pbft => Err("a group that runs pbft has one epoch".into()),
    }
}

/// What the log of a replica begins with in an epoch that begins with a checkpoint.
pub(super) fn beginning_of_epoch(config: &GroupConfig) -> Vec<LogRecord> {
    match config.protocol {
        Protocol::Hybster => hybster::beginning_of_epoch(config),
        Protocol::Pbft => Vec::new(),
    }
}

/// The one stage of a server that answers without any protocol.
pub(super) fn unreplicated<S: Service>(
    group: &Group,
    keys: &ReplicaKeys,
    service: S,
) -> Vec<(Role, Box<dyn Stage>)> {
    let (config, randomness) = (Arc::clone(group.config()), randomness(group, keys));
    let server: Box<dyn Stage> = match config.protocol {
        Protocol::Hybster => {
            Box::new(Unreplicated::new(config, verifiers(group, keys)(), service, randomness))
        }
        Protocol::Pbft => Box::new(Unreplicated::new(config, signed(group), service, randomness)),
    };
    vec![(Role::Server, server)]
}

/// Checks the requests of clients that sign them, with public keys only.
fn signed(group: &Group) -> SignedRequests {
    // A configuration whose clients do not sign is refused.
    SignedRequests::new(group.request_keys().unwrap_or_default())
}

/// The key of the trusted subsystems.
///
/// # Panics
/// If the group's protocol knows none: then none of its stages asks for it.
fn shared_key(keys: &ReplicaKeys) -> &GroupKey {
    keys.group_key.as_ref().expect("the group's protocol has trusted subsystems")
}

fn randomness(group: &Group, keys: &ReplicaKeys) -> RandomnessKey {
    let genesis = group.config().genesis();
    match &keys.group_key {
        Some(group_key) => RandomnessKey::new(group_key, &genesis),
        None => RandomnessKey::public(&genesis),
    }
}

/// Makes verifiers that share the clients' decoded keys.
fn verifiers(group: &Group, keys: &ReplicaKeys) -> impl Fn() -> InProcessVerifier {
    let (mac, digest) = (group.config().mac, group.config().digest());
    let (group_key, signers) = (shared_key(keys).clone(), group.request_keys());
    move || {
        let verifier = InProcessVerifier::new(&group_key, mac, digest);
        match &signers {
            Some(signers) => verifier.with_signers(Arc::clone(signers)),
            None => verifier,
        }
    }
}

fn boxed<O: Ordering, S: Service>(stages: Stages<O, S>) -> Vec<(Role, Box<dyn Stage>)> {
    let Stages { intake, pillars, execution, state, control } = stages;
    let mut boxed: Vec<(Role, Box<dyn Stage>)> = vec![
        (Role::Clients, Box::new(Clients(intake))),
        (Role::Control, Box::new(Control(control))),
        (Role::Execution, Box::new(execution)),
        (Role::State, Box::new(state)),
    ];
    for (index, pillar) in pillars.into_iter().enumerate() {
        boxed.push((Role::Pillar(index as u16), Box::new(Pillar(pillar))));
    }
    boxed
}
