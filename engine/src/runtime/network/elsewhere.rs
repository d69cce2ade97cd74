//! Links to peers in other epochs: what they say goes to no stage, except what proves that the own epoch is over
//! (`engine/proto/EPOCHS.md`).

use hybster_net::{Messages, Transport};
use hybster_proto::egress::Links;
use hybster_proto::ids::ReplicaId;
use hybster_proto::output::{Input, Reject, route_peer_message};

use super::Network;
use crate::runtime::epochs::Said;

impl<T: Transport> Network<T> {
    /// Tells a peer whose link is up that its epoch is over, if it is in another one.
    pub(super) fn is_up_in_another_epoch(&mut self, peer: u16, epoch: u64) -> bool {
        let Some(epochs) = &mut self.epochs else { return false };
        let (is_other, told) = epochs.up(peer, epoch);
        if is_other {
            let id = self.shared.replica.0;
            log::info!("replica {id}: a link to replica {peer} is up, which is in epoch {epoch}");
            told.map(|message| self.wires.send(ReplicaId(peer), message));
        }
        is_other
    }

    /// Of a peer in another epoch only one thing matters: whether it proves that the own epoch is over.
    #[cold]
    pub(super) fn messages_of_another_epoch(
        &mut self,
        from: ReplicaId,
        messages: &Messages,
        inputs: &mut Vec<Input>,
    ) {
        let now = self.shared.clock.now();
        for message in messages.iter() {
            let bytes = messages.slice(message);
            let Some(epochs) = &mut self.epochs else { return };
            match epochs.message(from, &bytes, now) {
                Said::Nothing => self.reject(Some(from), message, Reject::Malformed),
                Said::Answer(answer) => drop(self.wires.send(from, answer)),
                // The stages check it once more, and keep what it proves.
                Said::Over(proof) if self.admits(from, &proof) => {
                    inputs.extend(route_peer_message(from, proof, &self.shared.config));
                }
                Said::Over(_) => {}
            }
        }
    }
}
