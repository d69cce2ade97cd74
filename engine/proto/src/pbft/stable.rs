//! Why a replica takes a checkpoint for stable. None of the reasons convinces anybody else.

use bytes::Bytes;

use crate::ids::Peers;
use crate::output::LogRecord;
use crate::shared::catch_up::Evidence;
use crate::wire::CheckpointId;

/// A stable checkpoint: 2f+1 replicas said that they have it (Castro 3.2.3), or f+1 said that it is
/// stable, or a view begins with it because f+1 have it and no quorum has left it behind. In each
/// case a correct replica has the state, and will go on to say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stable {
    /// The checkpoint.
    pub id: CheckpointId,
    /// Who said so.
    pub voters: Peers,
}

impl Evidence for Stable {
    fn id(&self) -> CheckpointId {
        self.id
    }

    fn voters(&self) -> Peers {
        self.voters
    }

    fn record(&self) -> LogRecord {
        // Nothing can be made durable yet: such a group is refused a log when it is started.
        LogRecord::new(&[], Bytes::new())
    }

    fn message(&self) -> Option<Bytes> {
        None
    }
}
