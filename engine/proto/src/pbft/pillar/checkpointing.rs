//! The exchange of CHECKPOINTs (Castro 2.3.4, 3.2.3) for the checkpoints that a pillar is in charge of.

use hybster_tss::RequestVerifier;

use super::Pillar;
use crate::ids::ReplicaId;
use crate::output::{Destination, Output, Reject, SendTag, ToControl};
use crate::pbft::input::ControlInput;
use crate::pbft::stable::Stable;
use crate::pbft::wire::ordering::{encode_checkpoint, parse_checkpoint};
use crate::shared::votes::{Claim, Relevance};
use crate::time::Time;
use crate::wire::CheckpointId;

/// A replica's word that it has the state of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claimed {
    pub sender: ReplicaId,
    pub id: CheckpointId,
}

impl Claim for Claimed {
    fn sender(&self) -> ReplicaId {
        self.sender
    }

    fn id(&self) -> CheckpointId {
        self.id
    }
}

impl<V: RequestVerifier> Pillar<V> {
    pub(super) fn send_checkpoint(&self, id: &CheckpointId, to: Destination, out: &mut Output) {
        out.send(to, encode_checkpoint(id, &self.config), SendTag::Checkpoint(id.order));
    }

    /// This replica has executed up to a checkpoint.
    pub(super) fn vouch_for_checkpoint(&mut self, id: CheckpointId, now: Time, out: &mut Output) {
        // Execution may install a state after a later checkpoint became stable.
        if self.checkpoints.is_passed(id.order) || self.checkpoints.has(self.id, &id) {
            return;
        }
        let own = Claimed { sender: self.id, id };
        self.send_checkpoint(&id, Destination::AllPeers, out);
        self.checkpoints.sent(own, now);
        self.store_checkpoint(own, out);
    }

    /// A CHECKPOINT, which counts for the peer that the link is with.
    pub(super) fn checkpoint(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        out: &mut Output,
    ) -> Result<(), Reject> {
        let id = parse_checkpoint(message, &self.config)?;
        if self.config.checkpoint_pillar(id.order) != self.pillar {
            return Err(Reject::WrongSender);
        }
        let claimed = Claimed { sender: from, id };
        match self.checkpoints.relevance(&claimed) {
            Relevance::Wanted => {}
            Relevance::SenderBehind => {
                out.control(ToControl::PeerBehind(from));
                return Err(Reject::Irrelevant);
            }
            Relevance::Useless => return Err(Reject::Irrelevant),
        }
        self.store_checkpoint(claimed, out);
        Ok(())
    }

    fn store_checkpoint(&mut self, claimed: Claimed, out: &mut Output) {
        let id = claimed.id;
        self.compare(&claimed, out);
        if let Some(agreeing) = self.checkpoints.store(claimed) {
            let voters = agreeing.iter().map(|claimed| claimed.sender).collect();
            out.control(ControlInput::CheckpointStable(Stable { id, voters }));
        } else if self.checkpoints.is_undecidable(id.order, self.config.replicas) {
            out.control(ControlInput::Undecidable { order: id.order });
        }
    }

    /// Correct replicas of a deterministic service have equal states at equal order numbers.
    fn compare(&self, claimed: &Claimed, out: &mut Output) {
        let id = claimed.id;
        let mut differs = |theirs: &Claimed, own: &Claimed| {
            let (peer, own) = (theirs.sender, Box::new(own.id.digest));
            out.control(ControlInput::StateDiffers { peer, theirs: theirs.id, own });
        };
        if claimed.sender == self.id {
            self.checkpoints.against(&id).for_each(|theirs| differs(theirs, claimed));
        } else if let Some(own) = self.checkpoints.of(self.id, id.order)
            && own.id.digest != id.digest
        {
            differs(claimed, own);
        }
    }
}
