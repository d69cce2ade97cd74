//! An execution stage that begins with a durable checkpoint and what the log has beyond.

use hybster_tss::RandomnessKey;
use std::sync::Arc;

use super::Execution;
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, ReplicaId};
use crate::output::{Input, Output, ToExecution, ToState};
use crate::service::{RestoreError, Service};
use crate::state::TransferredState;
use crate::time::Time;
use crate::wire::CheckpointId;

/// What execution begins with.
#[derive(Debug)]
pub struct Beginning {
    /// The durable checkpoint and its pages; without one, the initial state.
    pub checkpoint: Option<(CheckpointId, TransferredState)>,
    /// What is committed beyond, in the order of execution.
    pub replay: Vec<ToExecution>,
    /// The stable checkpoint: nobody needs snapshots from before.
    pub stable: OrderNumber,
}

impl<S: Service> Execution<S> {
    /// The stage after what its log has. No client is connected yet, so its answers are dropped: they
    /// are in the session table for those that ask again.
    ///
    /// # Errors
    /// If the service, or this version of the program, cannot read the checkpoint.
    pub fn recover(
        config: Arc<GroupConfig>,
        id: ReplicaId,
        service: S,
        randomness: RandomnessKey,
        beginning: Beginning,
        now: Time,
        out: &mut Output,
    ) -> Result<Self, RestoreError> {
        let Beginning { checkpoint, replay, stable } = beginning;
        let mut it = Self::new(config, id, service, randomness);
        if let Some((checkpoint, state)) = checkpoint {
            it.restore(checkpoint.order, &state)?;
            it.take_snapshot(true, out);
            it.end_epoch();
            it.tell_end(out);
        }
        let is_needed = |input: &Input| match input {
            Input::State(ToState::Taken(taken)) => taken.installed || taken.order >= stable,
            _ => true,
        };
        for input in replay {
            it.handle(input, now, out);
            out.replies.clear();
            let before = out.inputs.len();
            out.inputs.retain(is_needed);
            let count = before - out.inputs.len();
            if count > 0 {
                it.handle(ToExecution::SnapshotsDropped { count }, now, out);
            }
        }
        Ok(it)
    }
}
