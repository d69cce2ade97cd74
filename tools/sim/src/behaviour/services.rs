//! Replicas that follow the protocol and run a service whose pages differ from the others': what a
//! service that writes its pages in the order of a hash table looks like from outside.

use hybster_proto::ids::ReplicaId;
use hybster_proto::notice::Notice;

use super::{Behaviour, Host};
use crate::scenario::Scenario;
use crate::world::World;

/// Does nothing by itself: the replica's store is made with a salt.
pub(super) struct OtherService;

impl Host for OtherService {}

impl Scenario {
    fn has_other_service(&self, id: ReplicaId) -> bool {
        self.hosts.contains(&(id, Behaviour::OtherService))
    }

    /// What a replica's service does differently; 0 for the service of the group.
    pub(crate) fn salt(&self, id: ReplicaId) -> usize {
        if self.has_other_service(id) { 1 + usize::from(id.0) } else { 0 }
    }

    /// Replicas that run a service of their own.
    pub(crate) fn different_services(&self) -> usize {
        (0..self.group.replicas).filter(|id| self.has_other_service(ReplicaId(*id))).count()
    }
}

impl World {
    /// Keeps what a replica tells its operator about states that differ.
    pub(crate) fn note_difference(&mut self, index: usize, notice: &Notice) {
        let is_of_states = matches!(
            notice,
            Notice::StateDiverged { .. }
                | Notice::StateOfPeerDiffers { .. }
                | Notice::FirstPageThatDiffers { .. }
                | Notice::NoStateAgreed { .. }
                | Notice::Halted { .. }
                | Notice::GoesOn { .. }
        );
        if is_of_states {
            self.counters.differences.entry(index as u16).or_default().push(*notice);
        }
    }
}
