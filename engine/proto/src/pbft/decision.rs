//! What a view begins with (Castro 3.2.4, figure 3-3): the decision that its leader makes and every
//! backup makes again, from the same VIEW-CHANGEs.
//!
//! No VIEW-CHANGE proves anything, and up to f of them are lies. What was committed at an order
//! number was prepared by f+1 correct replicas, one of which is in every quorum: so nothing else can
//! be chosen there (A1), and nobody can be made to believe in a proposal that no correct replica
//! has pre-prepared (A2). Where a quorum has prepared nothing, nothing was committed (B).
//!
//! Differs from the thesis in the end of what is chosen: not the window, but the last order number
//! for which A holds. Beyond it B holds for all, so the leader may propose what it likes.

use hybster_tss::Digest;

use super::wire::ordering::NULL;
use super::wire::view::{Known, Pair, ViewChange};
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, Peers, PillarId};
use crate::mutants::{self, Mutant};
use crate::protocol::Threshold;
use crate::wire::CheckpointId;

/// What a view begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The state to start from.
    pub checkpoint: CheckpointId,
    /// Who says that it has that state.
    pub holders: Peers,
    /// Per pillar what is proposed again from the first slot after the checkpoint on.
    pub chosen: Vec<Vec<Digest>>,
}

/// Decides; `None` while the VIEW-CHANGEs do not suffice.
#[must_use]
pub fn decide<'a>(
    config: &GroupConfig,
    changes: impl Iterator<Item = &'a ViewChange>,
) -> Option<Decision> {
    let changes: Vec<&ViewChange> = changes.collect();
    let needed = quorum(config);
    if changes.len() < needed {
        return None;
    }
    let checkpoint = checkpoint(config, &changes)?;
    let holders = changes.iter().filter(|change| change.taken.contains(&checkpoint));
    let holders = holders.map(|change| change.sender).collect();
    let chosen =
        config.all_pillars().map(|pillar| part(config, pillar, checkpoint.order, &changes));
    Some(Decision { checkpoint, holders, chosen: chosen.collect::<Option<_>>()? })
}

/// 2f+1, or what takes its place in a larger group.
fn quorum(config: &GroupConfig) -> usize {
    if mutants::active(Mutant::PbftMajority) {
        Threshold::Majority.of(config.replicas, config.faults)
    } else {
        config.quorum()
    }
}

/// The highest checkpoint that f+1 have, so a correct one, and that no quorum has left behind.
fn checkpoint(config: &GroupConfig, changes: &[&ViewChange]) -> Option<CheckpointId> {
    let weak =
        if mutants::active(Mutant::PbftCheckpointOfOne) { 1 } else { config.acknowledging() };
    let mut candidates: Vec<CheckpointId> =
        changes.iter().flat_map(|change| &change.taken).copied().collect();
    candidates.sort_unstable_by_key(|id| (id.order, id.digest.0));
    candidates.dedup();
    candidates.into_iter().rev().find(|id| {
        let at_most = changes.iter().filter(|change| change.stable.order <= id.order).count();
        let having = changes.iter().filter(|change| change.taken.contains(id)).count();
        at_most >= quorum(config) && having >= weak
    })
}

/// What one pillar begins with, after a checkpoint.
fn part(
    config: &GroupConfig,
    pillar: PillarId,
    checkpoint: OrderNumber,
    changes: &[&ViewChange],
) -> Option<Vec<Digest>> {
    let at = usize::from(pillar.0);
    let named = changes.iter().flat_map(|change| &change.parts[at]);
    let base = config.slots_before(checkpoint);
    let last = named.filter(|known| known.prepared.is_some()).map(|k| k.order).max();
    let end = last.map_or(base, |last| (config.slot_of(last) + 1).max(base));
    // Nobody prepares beyond its window, so no liar can make this long.
    let end = end.min(base + config.window_slots());
    let (mut chosen, mut length) = (Vec::new(), 0);
    for slot in base..end {
        let order = config.order_at(pillar, slot);
        match choose(config, at, order, changes)? {
            Some(digest) => {
                chosen.push(digest);
                length = chosen.len();
            }
            None => chosen.push(NULL),
        }
    }
    chosen.truncate(length);
    Some(chosen)
}

/// What is chosen for one order number: a digest by A, or nothing by B. `None` while neither holds.
#[allow(clippy::option_option)]
fn choose(
    config: &GroupConfig,
    pillar: usize,
    order: OrderNumber,
    changes: &[&ViewChange],
) -> Option<Option<Digest>> {
    let of = |change: &'_ ViewChange| -> Known {
        let part = &change.parts[pillar];
        let at = part.binary_search_by_key(&order, |known| known.order);
        at.map_or_else(|_| Known::default(), |at| part[at].clone())
    };
    let known: Vec<(bool, Known)> =
        changes.iter().map(|change| (change.stable.order < order, of(change))).collect();
    let mut candidates: Vec<Pair> = known.iter().filter_map(|(_, known)| known.prepared).collect();
    candidates.sort_unstable_by_key(|(digest, view)| (*view, digest.0));
    candidates.dedup();
    let chosen = candidates.into_iter().rev().find(|pair| {
        let a1 = known.iter().filter(|(is_after, known)| *is_after && permits(known, pair)).count();
        let a2 = known.iter().filter(|(_, known)| supports(known, pair)).count();
        (a1 >= quorum(config) || mutants::active(Mutant::PbftA1LeftOut))
            && (a2 >= config.acknowledging() || mutants::active(Mutant::PbftA2LeftOut))
    });
    if let Some((digest, _)) = chosen {
        return Some(Some(digest));
    }
    let free = known.iter().filter(|(is_after, known)| *is_after && known.prepared.is_none());
    let needed = if mutants::active(Mutant::PbftFreeByFew) {
        config.acknowledging()
    } else {
        quorum(config)
    };
    (free.count() >= needed).then_some(None)
}

/// A1, of one VIEW-CHANGE: it has prepared nothing else in that view or a later one.
fn permits(known: &Known, (digest, view): &Pair) -> bool {
    let earlier_or_equal = |(d, v): &Pair| v < view || (v == view && d == digest);
    known.prepared.as_ref().is_none_or(earlier_or_equal)
}

/// A2, of one VIEW-CHANGE: it has pre-prepared the same in that view or a later one.
fn supports(known: &Known, (digest, view): &Pair) -> bool {
    known.pre_prepared.iter().any(|(d, v)| d == digest && v >= view)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ReplicaId, View};
    use crate::protocol::Protocol;

    fn config() -> GroupConfig {
        GroupConfig { protocol: Protocol::Pbft, replicas: 4, pillars: 1, ..GroupConfig::default() }
    }

    fn pair(digest: u8, view: u64) -> Pair {
        (Digest([digest; 32]), View(view))
    }

    /// A VIEW-CHANGE that knows something about the first order numbers.
    fn change(sender: u16, known: &[(Option<Pair>, &[Pair])]) -> ViewChange {
        let part = (1..).zip(known).map(|(order, (prepared, pre_prepared))| Known {
            order: OrderNumber(order),
            prepared: *prepared,
            pre_prepared: pre_prepared.to_vec(),
        });
        let stable = CheckpointId::default();
        let parts = vec![part.collect()];
        ViewChange { sender: ReplicaId(sender), to: View(9), stable, taken: vec![stable], parts }
    }

    fn chosen(changes: &[ViewChange]) -> Option<Vec<Digest>> {
        decide(&config(), changes.iter()).map(|decision| decision.chosen[0].clone())
    }

    #[test]
    fn what_was_committed_is_chosen_whatever_one_of_them_hides_or_invents() {
        let honest = |sender| change(sender, &[(Some(pair(1, 0)), &[pair(1, 0)])]);
        let liars = [
            change(3, &[]),
            change(3, &[(None, &[pair(2, 5)])]),
            change(3, &[(Some(pair(2, 5)), &[pair(2, 5)])]),
            change(3, &[(Some(pair(2, 0)), &[pair(2, 0), pair(1, 0)])]),
            change(3, &[(Some(pair(1, 0)), &[])]),
        ];
        for liar in &liars {
            let all = [honest(0), honest(1), honest(2), liar.clone()];
            assert_eq!(chosen(&all), Some(vec![Digest([1; 32])]));
            // f+1 correct ones prepared, one has only pre-prepared.
            let third = change(2, &[(None, &[pair(1, 0)])]);
            let all = [honest(0), honest(1), third.clone(), liar.clone()];
            assert_eq!(chosen(&all), Some(vec![Digest([1; 32])]));
            // Three of them may be too few, but choose nothing else.
            for absent in [0, 2] {
                let some: Vec<ViewChange> =
                    all.iter().filter(|c| c.sender.0 != absent).cloned().collect();
                assert!(chosen(&some).is_none_or(|chosen| chosen == [Digest([1; 32])]));
            }
        }
    }

    #[test]
    fn nothing_is_chosen_that_no_correct_replica_has_pre_prepared() {
        let liar = change(3, &[(Some(pair(2, 5)), &[pair(2, 5)])]);
        let nothing = |sender| change(sender, &[]);
        assert_eq!(chosen(&[nothing(0), nothing(1), liar.clone()]), None);
        assert_eq!(chosen(&[nothing(0), nothing(1), nothing(2), liar]), Some(Vec::new()));
    }

    #[test]
    fn the_later_view_wins_and_gaps_are_null() {
        let earlier = [(Some(pair(1, 0)), &[pair(1, 0), pair(2, 3)][..])];
        let later = [(Some(pair(2, 3)), &[pair(2, 3)][..])];
        let all = [change(0, &earlier), change(1, &later), change(2, &later)];
        assert_eq!(chosen(&all), Some(vec![Digest([2; 32])]));
        let second = [(None, &[][..]), (None, &[][..]), (Some(pair(3, 1)), &[pair(3, 1)][..])];
        let all = [change(0, &second), change(1, &second), change(2, &[])];
        assert_eq!(chosen(&all), Some(vec![NULL, NULL, Digest([3; 32])]));
        // What was prepared as null is as good as anything else.
        let null = [(Some((NULL, View(1))), &[(NULL, View(1))][..])];
        let all = [change(0, &null), change(1, &null), change(2, &[])];
        assert_eq!(chosen(&all), Some(vec![NULL]));
    }

    #[test]
    fn the_checkpoint_is_one_that_a_correct_replica_has_and_no_quorum_has_passed() {
        let id = |order, digest| CheckpointId {
            order: OrderNumber(order),
            digest: Digest([digest; 32]),
        };
        let with = |sender, taken: &[CheckpointId]| ViewChange {
            stable: taken[0],
            taken: taken.to_vec(),
            ..change(sender, &[])
        };
        let start = CheckpointId::default();
        let checkpoint = |changes: &[ViewChange]| {
            decide(&config(), changes.iter()).map(|decision| decision.checkpoint)
        };
        let lags = with(0, &[start]);
        let liar = with(3, &[id(512, 7)]);
        assert_eq!(checkpoint(&[lags.clone(), with(1, &[start]), liar.clone()]), None);
        let two = [with(1, &[start, id(256, 1)]), with(2, &[id(256, 1)])];
        let all = [lags, two[0].clone(), two[1].clone(), liar];
        assert_eq!(checkpoint(&all), Some(id(256, 1)));
        assert_eq!(checkpoint(&all[..3]), Some(id(256, 1)));
    }
}
