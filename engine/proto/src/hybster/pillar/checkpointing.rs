//! The exchange of CHECKPOINTs (TR listing 18) for the checkpoints that a pillar is in charge of.

use hybster_tss::{RequestVerifier, TrInX, Verifier};

use super::Pillar;
use crate::hybster::input::ControlInput;
use crate::hybster::wire::checkpoint::{Checkpoint, CheckpointCertificate};
use crate::ids::ReplicaId;
use crate::membership::Ending;
use crate::output::{Destination, Output, Reject, SendTag, ToControl};
use crate::shared::votes::{Claim, Relevance};
use crate::time::Time;
use crate::wire::CheckpointId;

impl Claim for Checkpoint {
    fn sender(&self) -> ReplicaId {
        self.sender
    }

    fn id(&self) -> CheckpointId {
        self.id
    }

    fn agrees(&self, other: &Self) -> bool {
        (self.id, self.ending) == (other.id, other.ending)
    }
}

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// TR listing 18, sendCheckpoint.
    pub(super) fn certify_checkpoint(
        &mut self,
        id: CheckpointId,
        ending: Option<Ending>,
        now: Time,
        out: &mut Output,
    ) {
        // Execution may install a state after a later checkpoint became stable. A claim for it would
        // serve nobody, and is forgotten if it was sent before (seed 164750835551752).
        if self.checkpoints.is_passed(id.order) || self.checkpoints.has(self.id, &id) {
            return;
        }
        let digest = Checkpoint::certified(self.id, self.pillar, &id, ending.as_ref());
        let Some(mac) = Self::granted(self.trinx.certify_mac(&digest), out) else {
            return;
        };
        let own = Checkpoint { sender: self.id, id, ending, proof: mac.proof };
        let message = own.encode(&self.config);
        out.send_new(Destination::AllPeers, message, SendTag::Checkpoint(id.order));
        self.checkpoints.sent(own, now);
        self.store_checkpoint(own, out);
    }

    /// TR listing 18, receive(CHECKPOINT).
    pub(super) fn checkpoint(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        out: &mut Output,
    ) -> Result<(), Reject> {
        let checkpoint = Checkpoint::parse(message, &self.config)?;
        if checkpoint.sender != from
            || self.config.checkpoint_pillar(checkpoint.id.order) != self.pillar
        {
            return Err(Reject::WrongSender);
        }
        match self.checkpoints.relevance(&checkpoint) {
            Relevance::Wanted => {}
            Relevance::SenderBehind => {
                out.control(ToControl::PeerBehind(from));
                return Err(Reject::Irrelevant);
            }
            Relevance::Useless => return Err(Reject::Irrelevant),
        }
        let Checkpoint { sender, id, ending, .. } = &checkpoint;
        let digest = Checkpoint::certified(*sender, self.pillar, id, ending.as_ref());
        if !self.verifier.verify_mac(&checkpoint.mac(&self.config), &digest) {
            return Err(Reject::BadCertificate);
        }
        self.store_checkpoint(checkpoint, out);
        Ok(())
    }

    fn store_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Output) {
        let (id, ending) = (checkpoint.id, checkpoint.ending);
        self.compare(&checkpoint, out);
        if let Some(agreeing) = self.checkpoints.store(checkpoint) {
            let votes = agreeing.iter().map(|vote| (vote.sender, vote.proof)).collect();
            let certificate = CheckpointCertificate { id, ending: ending.map(Box::new), votes };
            out.control(ControlInput::CheckpointStable(certificate));
        } else if self.checkpoints.is_undecidable(id.order, self.config.replicas) {
            out.control(ControlInput::Undecidable { order: id.order });
        }
    }

    /// Correct replicas of a deterministic service have equal states at equal order numbers.
    fn compare(&self, checkpoint: &Checkpoint, out: &mut Output) {
        let id = checkpoint.id;
        let mut differs = |theirs: &Checkpoint, own: &Checkpoint| {
            let (peer, own) = (theirs.sender, own.id.digest);
            out.control(ControlInput::StateDiffers { peer, theirs: theirs.id, own });
        };
        if checkpoint.sender == self.id {
            self.checkpoints.against(&id).for_each(|theirs| differs(theirs, checkpoint));
        } else if let Some(own) = self.checkpoints.of(self.id, id.order)
            && own.id.digest != id.digest
        {
            differs(checkpoint, own);
        }
    }
}
