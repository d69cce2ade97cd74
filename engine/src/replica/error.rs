//! Errors of a replica as a whole.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hybster_net::files::TooFewFiles;
use hybster_net::hub::HubError;
use hybster_net::{NoTransport, PeerAddress, TransportError};
use hybster_proto::output::Fatal;
use hybster_proto::service::{BadServiceName, ServiceIdentity, ServiceName};

use super::ServiceCall;
use crate::durable::DataError;
use crate::group::GroupError;

/// Why a replica could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The group directory has an error.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The replica's data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The network could not be opened.
    #[error(transparent)]
    Network(#[from] HubError),
    /// Another program listens on the replica's address.
    #[error(
        "cannot listen on {address}: a program listens there already, perhaps another replica; stop it, \
         or give this replica another address in group.toml"
    )]
    AddressTaken {
        /// The replica's address.
        address: SocketAddr,
    },
    /// The system does not give the replica's address, though nobody answers there.
    #[error(
        "cannot listen on {address}: the system says that it is in use, but no program answers there. A \
         connection of another program may use the port, or a process that just ended still holds it: try \
         again, and choose a port below the range of outgoing connections"
    )]
    AddressHeld {
        /// The replica's address.
        address: SocketAddr,
    },
    /// The name of the replica's own host could not be looked up, or has no address of this machine.
    #[error(
        "cannot listen on {address}: {cause}. Let the name lead to an address of this machine, or listen on \
         another one (--listen 0.0.0.0:{port}), which the others reach by this name", port = address.port()
    )]
    OwnName {
        /// The replica's address.
        address: PeerAddress,
        /// What is the matter with it.
        cause: String,
    },
    /// The transport that was asked for cannot be had.
    #[error(transparent)]
    Transport(#[from] NoTransport),
    /// The process may not open enough files.
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    /// The system refused to start a thread.
    #[error(
        "a thread could not be started: {0}; check the limits of processes and threads (ulimit -u) \
             and of address space (ulimit -v)"
    )]
    Thread(io::Error),
    /// The trace file could not be created.
    #[error(
        "{}: the trace file could not be made: {error}; name a file that does not exist yet, in a \
         directory that is yours",
        path.display()
    )]
    Trace {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The service says of itself what none may say.
    #[error("the service calls itself \"{name}\", which cannot be compared: {error}")]
    ServiceName {
        /// What it says.
        name: &'static str,
        /// What is the matter with it.
        error: BadServiceName,
    },
    /// The group is for another service, or for a version that this one does not go with.
    #[error("{}", other_service(file, service, *version, *runs))]
    OtherService {
        /// The group's file.
        file: PathBuf,
        /// The service that it names.
        service: ServiceName,
        /// The version that it asks for.
        version: Option<u32>,
        /// The service that was to start, if it says what it is.
        runs: Option<ServiceIdentity>,
    },
    /// The keys are in no file, so nothing says where the replica's data is to be.
    #[error(
        "the keys of replica {id} are in no file, so it has no directory for its data: name one with \
         `ReplicaBuilder::data`"
    )]
    NoDataDirectory {
        /// The replica.
        id: u16,
    },
    /// The keys are in no file, and nothing else says that the replica has never started.
    #[error(
        "nothing tells whether replica {id} has run before, since its keys are in no file and it has no data. If \
         this is its very first start, say so (`ReplicaBuilder::first_start`); if it is not, go on without it (a \
         group does with up to f replicas less): its trusted counters are lost"
    )]
    PerhapsStarted {
        /// The replica.
        id: u16,
    },
    /// A start is called the first one, and is not.
    #[error(
        "{}: here is what replica {id} has done, so this is not its first start: leave out \
         `ReplicaBuilder::first_start`", path.display()
    )]
    NotTheFirst {
        /// The directory.
        path: PathBuf,
        /// The replica.
        id: u16,
    },
    /// The file with the ends of the group's epochs cannot be used.
    #[error(
        "{}: {what}. It is public: if it is damaged, copy that of another replica of the group over it, as \
         replica-N.epochs with the number of this one",
        path.display()
    )]
    Epochs {
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        what: String,
    },
    /// Another replica has taken the place of this one.
    #[error(
        "replica {id} was replaced: from epoch {epoch} on another one is in its place (hybster replace-replica). \
         This one never counts again: remove its key file and its data"
    )]
    Replaced {
        /// The replica.
        id: u16,
        /// The epoch.
        epoch: u32,
    },
    /// The keys are those of a replica that the group does not have.
    #[error("the group has no replica {0}; use the keys and the group file of one directory")]
    UnknownReplica(u16),
    /// A core that threads should be pinned to does not exist.
    #[error("core {core} cannot be used by this process; usable cores are {usable:?}")]
    Core {
        /// The core.
        core: usize,
        /// The cores that can be used.
        usable: Vec<usize>,
    },
    /// An unreplicated server was asked for in a group of another shape.
    #[error(
        "an unreplicated server needs a group of its own with replicas = 1, faults = 0 and \
         pillars = 1, not {replicas}, {faults} and {pillars}; make one with `hybster init`"
    )]
    NotASingleServer {
        /// The number of replicas in the group.
        replicas: u16,
        /// The number of faults that the group tolerates.
        faults: u16,
        /// The number of pillars in the group.
        pillars: u16,
    },
}

fn other_service(
    file: &Path,
    service: &ServiceName,
    version: Option<u32>,
    runs: Option<ServiceIdentity>,
) -> String {
    let file = file.display();
    let version = version.map_or_else(String::new, |version| format!(" version {version}"));
    let Some(runs) = runs else {
        return format!(
            "{file}: the group is for the service {service}{version}, and this program's service does not say \
             what it is: let it say so (`Service::identity`), or remove the lines `service` and \
             `service_version` from the files of all members"
        );
    };
    let cure = if runs.name() != service.as_str() {
        "start the right program, or use the right group"
    } else {
        "start a program with that version, or with a newer one that is compatible with it (`service_version` \
         may be raised when all replicas run a newer one)"
    };
    format!(
        "{file}: the group is for the service {service}{version}, and this program's is {runs}: {cure}"
    )
}

/// Why a replica stopped by itself, or did not stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// A stage found an invariant broken.
    #[error("replica {replica} stopped: {fatal}")]
    Fatal {
        /// The replica.
        replica: u16,
        /// The invariant.
        fatal: Fatal,
    },
    /// The transport failed as a whole, and a replica without links is of no use.
    #[error("replica {replica} stopped: {error}")]
    Transport {
        /// The replica.
        replica: u16,
        /// What failed, and what the system said.
        error: TransportError,
    },
    /// The members of the group have changed. Start the replica again, with the same group, keys and service in its initial
    /// state: it goes on in the next epoch with what is on its disk.
    #[error("replica {replica} stopped, as epoch {next} begins: start it again")]
    EpochOver {
        /// The replica.
        replica: u16,
        /// The epoch that begins.
        next: u32,
    },
    /// The log takes nothing more, or a checkpoint cannot be written.
    #[error("replica {replica} stopped: {what}")]
    Disk {
        /// The replica.
        replica: u16,
        /// What failed, and what to do.
        what: String,
    },
    /// A thread panicked.
    #[error("replica {replica} stopped: its thread \"{thread}\" panicked; please report this bug")]
    Panicked {
        /// The replica.
        replica: u16,
        /// The thread.
        thread: String,
    },
    /// The service panicked, and the replica with it. The panic's own message is on standard error.
    #[error(
        "replica {replica} stopped: its service {service} panicked {call}. A service must have a result for every \
         operation: other replicas that do the same stop in the same way"
    )]
    ServicePanicked {
        /// The replica.
        replica: u16,
        /// The type of the service.
        service: &'static str,
        /// What it did.
        call: ServiceCall,
    },
    /// A thread did not end in time.
    #[error("thread \"{thread}\" did not end within {seconds} s; the service may be blocking it")]
    StillRunning {
        /// The thread.
        thread: String,
        /// How long the shutdown waited for it.
        seconds: u64,
    },
}
