//! Votes for checkpoints: who vouches for which state, and when enough do (TR listing 18).
//!
//! How a vote is proved, and whether the proof convinces others, is up to the protocol: here claims
//! that were checked are counted, one of each replica for an order number.

use std::collections::BTreeMap;

use crate::config::GroupConfig;
use crate::ids::{OrderNumber, ReplicaId};
use crate::mutants::{self, Mutant};
use crate::time::Time;
use crate::wire::CheckpointId;

/// A replica's statement that it holds the state of a checkpoint.
pub(crate) trait Claim: Copy {
    /// Who says so.
    fn sender(&self) -> ReplicaId;

    /// Of which state.
    fn id(&self) -> CheckpointId;

    /// Whether two say the same, so that they count together.
    fn agrees(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

/// Order numbers for which claims of a sender are kept: as many as two windows have room for. Beyond
/// that a sender's oldest claim goes, so a liar displaces only its own.
pub(crate) fn claims_per_sender(config: &GroupConfig) -> u64 {
    2 * config.window / config.checkpoint_interval + 2
}

/// The claims that one pillar has collected.
pub(crate) struct Votes<C> {
    /// Equal claims that make a checkpoint stable.
    needed: usize,
    /// Order numbers for which claims of one replica are kept, at most.
    room: usize,
    /// Per order number one claim of each replica at most, each checked; none before `reported`.
    claims: BTreeMap<OrderNumber, Vec<C>>,
    /// The highest checkpoint that was reported as stable.
    reported: OrderNumber,
    /// This replica's claim that is not stable yet, and when it was sent last.
    own: Option<(C, Time)>,
}

/// What to do with a claim before it is verified.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Relevance {
    /// Verify and store it.
    Wanted,
    /// It is for a checkpoint that is stable already, so its sender lacks the certificate.
    SenderBehind,
    /// Drop it.
    Useless,
}

impl<C: Claim> Votes<C> {
    /// No claims yet; the group's rules say how many equal ones make a checkpoint stable.
    pub(crate) fn new(config: &GroupConfig) -> Self {
        Self {
            needed: config.stable(),
            room: claims_per_sender(config) as usize,
            claims: BTreeMap::new(),
            reported: OrderNumber(0),
            own: None,
        }
    }

    /// Whether a claim adds something.
    pub(crate) fn relevance(&self, claim: &C) -> Relevance {
        let (order, known) = (claim.id().order, self.has(claim.sender(), &claim.id()));
        if order < self.reported || (order == self.reported && known) {
            Relevance::SenderBehind
        } else if known {
            // TR listing 18: the first CHECKPOINT of a replica for an order number counts.
            Relevance::Useless
        } else {
            Relevance::Wanted
        }
    }

    /// Stores a verified claim. If it makes its checkpoint stable, returns the equal claims that do,
    /// as many as are needed, rising by sender.
    pub(crate) fn store(&mut self, claim: C) -> Option<Vec<C>> {
        let id = claim.id();
        self.claims.entry(id.order).or_default().push(claim);
        self.bound(claim.sender());
        let claims = self.claims.get(&id.order)?;
        let mut agreeing: Vec<C> = claims.iter().filter(|c| c.agrees(&claim)).copied().collect();
        let alone = mutants::active(Mutant::CheckpointOfOne);
        if (agreeing.len() < self.needed && !alone) || id.order <= self.reported {
            return None;
        }
        agreeing.sort_by_key(Claim::sender);
        agreeing.truncate(self.needed);
        self.stable(id.order);
        Some(agreeing)
    }

    /// What a replica claims for an order number, if it is stored.
    pub(crate) fn of(&self, sender: ReplicaId, order: OrderNumber) -> Option<&C> {
        self.claims.get(&order)?.iter().find(|claim| claim.sender() == sender)
    }

    /// Whether a later checkpoint is stable, so that nobody needs claims for this order number.
    pub(crate) fn is_passed(&self, order: OrderNumber) -> bool {
        order < self.reported
    }

    /// The claims for the order number of another one that are for another state.
    pub(crate) fn against(&self, id: &CheckpointId) -> impl Iterator<Item = &C> {
        let claims = self.claims.get(&id.order).map(Vec::as_slice).unwrap_or_default();
        let digest = id.digest;
        claims.iter().filter(move |claim| claim.id().digest != digest)
    }

    /// Whether no checkpoint of an order number can become stable, however those of `replicas` vote
    /// that have not voted yet.
    pub(crate) fn is_undecidable(&self, order: OrderNumber, replicas: u16) -> bool {
        let Some(claims) = self.claims.get(&order).filter(|_| order > self.reported) else {
            return false;
        };
        let equal = |of: &C| claims.iter().filter(|claim| claim.agrees(of)).count();
        let most = claims.iter().map(equal).max().unwrap_or(0);
        most + usize::from(replicas).saturating_sub(claims.len()) < self.needed
    }

    /// Drops a sender's oldest claim if it has too many.
    fn bound(&mut self, sender: ReplicaId) {
        let of_sender = |claims: &Vec<C>| claims.iter().any(|c| c.sender() == sender);
        if self.claims.values().filter(|c| of_sender(c)).count() <= self.room {
            return;
        }
        let oldest = self.claims.iter().find(|(_, c)| of_sender(c)).map(|(order, _)| *order);
        if let Some(order) = oldest {
            let claims = self.claims.get_mut(&order).expect("found above");
            claims.retain(|c| c.sender() != sender);
            if claims.is_empty() {
                self.claims.remove(&order);
            }
        }
    }

    /// A checkpoint is stable: older ones are of no use any more (TR listing 18,
    /// discardCheckpoints). The claims for the stable one stay, to notice senders that lag.
    pub(crate) fn stable(&mut self, order: OrderNumber) {
        self.reported = self.reported.max(order);
        self.claims = self.claims.split_off(&self.reported);
        self.own.take_if(|(own, _)| own.id().order <= self.reported);
    }

    /// Remembers this replica's claim, to be sent again until it is stable.
    pub(crate) fn sent(&mut self, own: C, now: Time) {
        if own.id().order > self.reported {
            self.own = Some((own, now));
        }
    }

    /// This replica's claim if it has waited longer than `age_us`; it then counts as sent now.
    pub(crate) fn resend(&mut self, now: Time, age_us: u64) -> Option<C> {
        let (own, at) = self.own.as_mut()?;
        if now.since_us(*at) < age_us {
            return None;
        }
        *at = now;
        Some(*own)
    }

    /// When [`Votes::resend`] has something to send.
    pub(crate) fn deadline(&self, age_us: u64) -> Option<Time> {
        self.own.map(|(_, at)| at.after_us(age_us))
    }

    /// This replica's claim that is not stable yet.
    pub(crate) fn own(&self) -> Option<&C> {
        self.own.as_ref().map(|(own, _)| own)
    }

    /// Whether a replica's claim for an order number is stored.
    pub(crate) fn has(&self, sender: ReplicaId, id: &CheckpointId) -> bool {
        self.claims.get(&id.order).is_some_and(|claims| claims.iter().any(|c| c.sender() == sender))
    }
}

impl<C: Claim> Votes<C> {
    /// Stops the process if the claims of `replicas` are not as the rules above say.
    #[inline]
    pub(crate) fn check_invariants(&self, replicas: u16) {
        let bounded = self.claims.len() <= self.room * usize::from(replicas);
        assert!(bounded, "CHECKPOINTs are bounded");
        let first = self.claims.first_key_value().map(|(order, _)| *order);
        assert!(first.is_none_or(|order| order >= self.reported), "nobody claims what is passed");
        let own = self.own.as_ref().map(|(own, _)| own.id().order);
        assert!(own.is_none_or(|order| order > self.reported), "what is stable is not sent again");
    }
}

#[cfg(feature = "model")]
impl<C: Claim> Votes<C> {
    /// Appends what is known, without the proofs.
    pub(crate) fn fingerprint(&self, into: &mut crate::fingerprint::Fingerprint) {
        let Self { needed: _, room: _, claims, reported, own } = self;
        into.number(reported.0);
        into.flag(own.is_some());
        into.sorted(
            claims
                .values()
                .flatten()
                .map(|claim| {
                    let mut item = crate::fingerprint::Fingerprint::default();
                    item.number(claim.id().order.0);
                    item.bytes(&claim.id().digest.0);
                    item.number(u64::from(claim.sender().0));
                    item
                })
                .collect(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noticed::noticed;
    use hybster_tss::Digest;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Plain(ReplicaId, CheckpointId);

    impl Claim for Plain {
        fn sender(&self) -> ReplicaId {
            self.0
        }

        fn id(&self) -> CheckpointId {
            self.1
        }
    }

    fn claim(sender: u16, order: u64, digest: u8) -> Plain {
        let id = CheckpointId { order: OrderNumber(order), digest: Digest([digest; 32]) };
        Plain(ReplicaId(sender), id)
    }

    #[test]
    fn only_equal_digests_make_a_checkpoint_stable() {
        let mut votes = Votes::new(&GroupConfig::default());
        assert_eq!(votes.store(claim(0, 256, 1)), None);
        assert_eq!(votes.store(claim(1, 256, 2)), None);
        let agreeing = votes.store(claim(2, 256, 1)).unwrap();
        assert_eq!(agreeing, [claim(0, 256, 1), claim(2, 256, 1)]);
        assert_eq!(votes.relevance(&claim(2, 256, 1)), Relevance::SenderBehind);
        assert_eq!(votes.relevance(&claim(2, 512, 1)), Relevance::Wanted);
    }

    #[test]
    fn claims_that_differ_are_found_and_undecidable_only_if_none_can_have_enough() {
        let mut votes = Votes::new(&GroupConfig::default());
        votes.store(claim(0, 256, 1));
        votes.store(claim(1, 256, 2));
        let against: Vec<Plain> = votes.against(&claim(0, 256, 1).1).copied().collect();
        assert_eq!(against, [claim(1, 256, 2)]);
        assert!(!votes.is_undecidable(OrderNumber(256), 3), "the third may agree with either");
        votes.store(claim(2, 256, 3));
        assert!(votes.is_undecidable(OrderNumber(256), 3));
        assert!(!votes.is_undecidable(OrderNumber(512), 3), "nobody has voted");
        // f liars cannot make it so, whatever they claim and whenever.
        let mut votes = Votes::new(&GroupConfig { replicas: 5, faults: 2, ..Default::default() });
        for claim in [claim(3, 256, 8), claim(4, 256, 9), claim(0, 256, 1), claim(1, 256, 1)] {
            votes.store(claim);
            assert!(!votes.is_undecidable(OrderNumber(256), 5));
        }
        assert!(votes.store(claim(2, 256, 1)).is_some());
        assert!(!votes.is_undecidable(OrderNumber(256), 5));
    }

    #[test]
    fn as_many_are_needed_as_the_rules_say() {
        let mut votes = Votes { needed: 5, ..Votes::new(&GroupConfig::default()) };
        for sender in [6, 0, 3, 1] {
            assert_eq!(votes.store(claim(sender, 256, 1)), None);
        }
        let senders: Vec<u16> =
            votes.store(claim(2, 256, 1)).unwrap().iter().map(|c| c.0.0).collect();
        assert_eq!(senders, [0, 1, 2, 3, 6]);
    }

    #[test]
    fn a_liar_displaces_only_its_own() {
        let mut votes = Votes::new(&GroupConfig::default());
        votes.store(claim(0, 256, 1));
        for k in 1..1000 {
            votes.store(claim(2, 256 * k, 9));
        }
        assert!(votes.claims.len() < 20);
        assert!(votes.store(claim(1, 256, 1)).is_some());
    }

    noticed! {
        Votes::<Plain>::new(&GroupConfig::default()), |it| it.check_invariants(3);
        too_many_kept: "are bounded", |it| {
            it.claims.extend((0..99).map(|k| (OrderNumber(256 * k), Vec::new())));
        };
        a_claim_for_nothing: "nobody claims", |it| {
            it.claims.insert(OrderNumber(256), Vec::new());
            it.reported = OrderNumber(512);
        };
        a_resend_for_nothing: "not sent again", |it| {
            it.own = Some((claim(0, 256, 1), Time(1)));
            it.reported = OrderNumber(256);
        };
    }
}
