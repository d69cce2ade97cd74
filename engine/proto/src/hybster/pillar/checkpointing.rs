//! The exchange of CHECKPOINTs (TR listing 18) for the checkpoints that a pillar is in charge of.

use std::collections::BTreeMap;

use crate::config::GroupConfig;
use crate::ids::{OrderNumber, ReplicaId};
use crate::mutants::{self, Mutant};
use crate::time::Time;
use crate::wire::{Checkpoint, CheckpointCertificate, CheckpointId};

/// CHECKPOINTs collected by one pillar.
#[derive(Default)]
pub(super) struct Checkpointing {
    /// Per order number one CHECKPOINT of each replica at most, each checked.
    votes: BTreeMap<OrderNumber, Vec<Checkpoint>>,
    /// The highest checkpoint that was reported as stable.
    reported: OrderNumber,
    /// The own CHECKPOINT that is not stable yet, and when it was sent last.
    own: Option<(Checkpoint, Time)>,
}

/// What to do with a CHECKPOINT before it is verified.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Relevance {
    /// Verify and store it.
    Wanted,
    /// Its sender repeats itself about something stable: it lacks the certificate.
    SenderBehind,
    /// Drop it.
    Useless,
}

impl Checkpointing {
    /// Whether a CHECKPOINT adds something.
    pub fn relevance(&self, checkpoint: &Checkpoint) -> Relevance {
        let order = checkpoint.id.order;
        let known = self
            .votes
            .get(&order)
            .is_some_and(|votes| votes.iter().any(|v| v.sender == checkpoint.sender));
        if order < self.reported || (order == self.reported && known) {
            Relevance::SenderBehind
        } else if known {
            // TR listing 18: the first CHECKPOINT of a replica for an order number counts.
            Relevance::Useless
        } else {
            Relevance::Wanted
        }
    }

    /// Stores a verified CHECKPOINT; returns the certificate if it completes one.
    ///
    /// A replica's CHECKPOINTs are kept for as many order numbers as the window has room for, so
    /// that a liar displaces only its own.
    pub fn store(
        &mut self,
        checkpoint: Checkpoint,
        config: &GroupConfig,
    ) -> Option<CheckpointCertificate> {
        let id = checkpoint.id;
        self.votes.entry(id.order).or_default().push(checkpoint);
        self.bound(checkpoint.sender, config);
        let votes = self.votes.get(&id.order)?;
        let mut agreeing: Vec<_> = votes.iter().filter(|v| v.id == id).collect();
        let alone = mutants::active(Mutant::CheckpointOfOne);
        if (agreeing.len() < config.acknowledging() && !alone) || id.order <= self.reported {
            return None;
        }
        agreeing.sort_by_key(|v| v.sender);
        agreeing.truncate(config.acknowledging());
        let votes = agreeing.iter().map(|v| (v.sender, v.proof)).collect();
        self.stable(id.order);
        Some(CheckpointCertificate { id, votes })
    }

    fn bound(&mut self, sender: ReplicaId, config: &GroupConfig) {
        let room = (2 * config.window / config.checkpoint_interval) as usize + 2;
        let of_sender = |votes: &Vec<Checkpoint>| votes.iter().any(|v| v.sender == sender);
        if self.votes.values().filter(|v| of_sender(v)).count() <= room {
            return;
        }
        let oldest = self.votes.iter().find(|(_, v)| of_sender(v)).map(|(order, _)| *order);
        if let Some(order) = oldest {
            let votes = self.votes.get_mut(&order).expect("found above");
            votes.retain(|v| v.sender != sender);
            if votes.is_empty() {
                self.votes.remove(&order);
            }
        }
    }

    /// A checkpoint is stable: older ones are of no use any more (TR listing 18,
    /// discardCheckpoints). The votes for the stable one stay, to notice senders that lag.
    pub fn stable(&mut self, order: OrderNumber) {
        self.reported = self.reported.max(order);
        self.votes = self.votes.split_off(&self.reported);
        if self.own.is_some_and(|(own, _)| own.id.order <= self.reported) {
            self.own = None;
        }
    }

    /// Remembers the own CHECKPOINT for retransmission until it is stable.
    pub fn sent(&mut self, own: Checkpoint, now: Time) {
        if own.id.order > self.reported {
            self.own = Some((own, now));
        }
    }

    /// The own CHECKPOINT if it waits since longer than `age_us`; it then counts as sent now.
    pub fn resend(&mut self, now: Time, age_us: u64) -> Option<Checkpoint> {
        let (own, at) = self.own.as_mut()?;
        if now.since_us(*at) < age_us {
            return None;
        }
        *at = now;
        Some(*own)
    }

    /// When [`Checkpointing::resend`] has something to say.
    pub fn deadline(&self, age_us: u64) -> Option<Time> {
        self.own.map(|(_, at)| at.after_us(age_us))
    }

    /// The own CHECKPOINT that is not stable yet.
    pub fn own(&self) -> Option<&Checkpoint> {
        self.own.as_ref().map(|(own, _)| own)
    }

    /// Whether the own CHECKPOINT for an order number is stored.
    pub fn has(&self, sender: ReplicaId, id: &CheckpointId) -> bool {
        self.votes.get(&id.order).is_some_and(|votes| votes.iter().any(|v| v.sender == sender))
    }
}

#[cfg(feature = "model")]
impl Checkpointing {
    pub fn fingerprint(&self, into: &mut crate::fingerprint::Fingerprint) {
        let Checkpointing { votes, reported, own } = self;
        into.number(reported.0);
        into.flag(own.is_some());
        let of_votes = votes.values().flat_map(|votes| votes.iter());
        into.sorted(
            of_votes
                .map(|vote| {
                    let mut item = crate::fingerprint::Fingerprint::default();
                    item.number(vote.id.order.0);
                    item.bytes(&vote.id.digest.0);
                    item.number(u64::from(vote.sender.0));
                    item
                })
                .collect(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybster_tss::{Digest, Proof};

    fn checkpoint(sender: u16, order: u64, digest: u8) -> Checkpoint {
        let id = CheckpointId { order: OrderNumber(order), digest: Digest([digest; 32]) };
        Checkpoint { sender: ReplicaId(sender), id, proof: Proof([sender as u8; 32]) }
    }

    #[test]
    fn only_equal_digests_make_a_certificate() {
        let config = GroupConfig::default();
        let mut exchange = Checkpointing::default();
        assert_eq!(exchange.store(checkpoint(0, 256, 1), &config), None);
        assert_eq!(exchange.store(checkpoint(1, 256, 2), &config), None);
        let certificate = exchange.store(checkpoint(2, 256, 1), &config).unwrap();
        let voters: Vec<_> = certificate.votes.iter().map(|v| v.0.0).collect();
        assert_eq!(voters, [0, 2]);
        assert_eq!(exchange.relevance(&checkpoint(2, 256, 1)), Relevance::SenderBehind);
        assert_eq!(exchange.relevance(&checkpoint(2, 512, 1)), Relevance::Wanted);
    }

    #[test]
    fn a_liar_displaces_only_its_own() {
        let config = GroupConfig::default();
        let mut exchange = Checkpointing::default();
        exchange.store(checkpoint(0, 256, 1), &config);
        for k in 1..1000 {
            exchange.store(checkpoint(2, 256 * k, 9), &config);
        }
        assert!(exchange.votes.len() < 20);
        assert!(exchange.store(checkpoint(1, 256, 1), &config).is_some());
    }
}
