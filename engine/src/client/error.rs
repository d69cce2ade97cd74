//! Errors of a client, each with an explanation for its user.

use std::fmt;
use std::io;
use std::sync::Arc;

use hybster_net::hub::HubError;
use hybster_net::{Identity, NoTransport, PeerAddress, Reason, TransportError};
use hybster_proto::ids::ReplicaId;

use crate::group::GroupError;

/// The client could not be started, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The group file contradicts itself.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// An option is out of range.
    #[error("{option}: {cure}")]
    Options {
        /// The name of the option.
        option: &'static str,
        /// Which values it may have.
        cure: String,
    },
    /// The links cannot be set up.
    #[error("cannot set up the links to the replicas: {0}")]
    Links(#[from] HubError),
    /// The operating system gives no random bytes, which tell this client from others of its key.
    #[error("the operating system gives no random bytes: {0}")]
    Random(String),
    /// The operating system refuses what the network needs.
    #[error("the network of this client failed: {0}")]
    Network(#[from] io::Error),
    /// The transport that was asked for cannot be had.
    #[error(transparent)]
    NoTransport(#[from] NoTransport),
    /// The transport failed while it was in use. Nothing more can be sent or received: make a new
    /// client.
    #[error("this client cannot go on: {0}")]
    Transport(#[from] TransportError),
    /// Too few replicas can be reached.
    #[error("{0}")]
    Unreachable(Unreachable),
}

/// A request failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The group did not answer in time, though enough replicas are connected. The operation may
    /// have been executed or may still be.
    #[error("no answer of the group in time; the operation may or may not be executed")]
    Timeout,
    /// Too few replicas can be reached. The operation may have been executed or may still be.
    #[error("{0}")]
    Unreachable(Arc<Unreachable>),
    /// Replicas that can be reached gave different results until the time was over, and no f+1 the same
    /// one: the service is not deterministic, replicas run different versions of it, or one lies and others
    /// do not answer. The operation may have been executed.
    #[error(
        "the replicas' results differ, and no f+1 agree: is the service deterministic, and the same \
         everywhere? The operation may or may not be executed"
    )]
    RepliesDiffer,
    /// The group evicted the session, because this client identity opened too many others. The
    /// operation may have been executed. Later requests use another session.
    #[error("the group evicted the session; raise max_sessions_per_client or open fewer sessions")]
    Evicted,
    /// The group has evicted a later session of this client identity already, so it opens none of
    /// this one. The operation was not executed. Later requests use another session.
    #[error(
        "the group has seen a later client of this key, so this machine's clock is behind: \
         set it right and try again"
    )]
    ClockBehind,
    /// The states of the group's replicas differ, so that nothing can be ordered any more: the service
    /// is not deterministic, or the replicas run different ones. The operation was not executed so
    /// far. An operator has to look at the replicas' logs, which say where their states differ.
    #[error(
        "the replicas' states differ, so the group has halted: their logs say where; the operation \
         may still be executed if it goes on"
    )]
    StatesDiffer,
    /// f+1 replicas keep refusing the request, which was not executed.
    #[error("the group is overloaded and refuses the request; try again later")]
    Overloaded,
    /// f+1 replicas keep refusing the request because their disks are full.
    #[error(
        "the replicas' disks are full, so nothing new is ordered: `hybster status` says where to make room; \
         the operation may or may not be executed"
    )]
    DiskFull,
    /// Too many requests wait in this client already; the request was not sent.
    #[error("{limit} requests wait in this client already; `submit` waits for room")]
    Busy {
        /// The value of the option `queue`.
        limit: usize,
    },
    /// The operation is longer than the group allows; the request was not sent.
    #[error("an operation of {length} bytes exceeds the group's limit of {limit} bytes")]
    TooLong {
        /// The operation's length in bytes.
        length: usize,
        /// The group's limit in bytes.
        limit: usize,
    },
    /// The operation was executed, but its result is longer than the group allows.
    #[error("the operation was executed, but its result exceeds the group's limit")]
    ResultTooLong,
    /// The operation was executed, but its replies were lost, and the group does not keep the result any
    /// more.
    #[error(
        "the operation was executed, but its result is not kept any more: raise kept_result_bytes"
    )]
    ResultGone,
    /// The group considers the request's number as used long ago, so a copy of this client's process
    /// runs elsewhere. The operation may have been executed. Later requests use other sessions.
    #[error(
        "a copy of this client's process (a resumed or cloned machine?) uses its sessions; \
         the operation may or may not be executed"
    )]
    Stale,
    /// Another operation was executed under the request's session and number, so a copy of this
    /// client's process runs elsewhere. This operation was not executed. Later requests use other
    /// sessions.
    #[error(
        "a copy of this client's process (a resumed or cloned machine?) uses its sessions; \
         the operation was not executed, try again"
    )]
    NumberTaken,
    /// The client has failed, so that every request ends with this. The operation may have been
    /// executed.
    #[error("{0}; make a new client; the operation may or may not be executed")]
    Failed(Arc<ClientError>),
    /// The client was shut down, or its thread has ended.
    #[error("the client was shut down; the operation may or may not be executed")]
    Shutdown,
}

/// Why too few replicas can be reached for f+1 equal replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// How many replicas are connected.
    pub connected: usize,
    /// How many are needed: f+1.
    pub needed: usize,
    /// The replicas that are not connected.
    pub missing: Vec<MissingReplica>,
}

/// A replica that is not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingReplica {
    /// The replica's number.
    pub replica: ReplicaId,
    /// Its address in the group file.
    pub address: PeerAddress,
    /// Why a link was refused, if one was.
    pub reason: Option<Reason>,
    /// What is known of the cause, for people.
    pub message: String,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connected, needed) = (self.connected, self.needed);
        write!(f, "{connected} of the {needed} replicas that are needed can be reached")?;
        for replica in &self.missing {
            let who = Identity::Replica(replica.replica.0);
            write!(f, "; {who} at {}: {}", replica.address, replica.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Unreachable {}

impl MissingReplica {
    /// Whether a configuration must be changed before a link can come up.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(
            self.reason,
            Some(
                Reason::UnknownKey
                    | Reason::ConfigurationMismatch
                    | Reason::Version
                    | Reason::CipherMismatch
                    | Reason::ServiceMismatch
                    | Reason::RefusedByPeer
            )
        )
    }
}
