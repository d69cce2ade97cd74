//! Checks of certificates and of the parts of view changes: pure functions over messages.

use hybster_tss::{Counter, CounterValue, Digest, IndependentCertificate, Verifier};

use crate::config::GroupConfig;
use crate::hybster::wire::checkpoint::{Checkpoint, CheckpointCertificate};
use crate::hybster::wire::ordering::PrepareHeader;
use crate::hybster::wire::view::{Link, NewView, NewViewAck, ViewChange};
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::mutants::{self, Mutant};
use crate::output::Reject;

/// Checks the certificate of a PREPARE by the leader of its view (TR listing 16,
/// isCorrectPrepare), without its batch.
///
/// A no-op needs a continuing certificate whose previous value lies below its first order number:
/// so the counter proves that none of the covered numbers was certified before.
pub(crate) fn verify_prepare<V: Verifier>(
    verifier: &V,
    config: &GroupConfig,
    header: &PrepareHeader,
    digest: &Digest,
) -> bool {
    let leader = config.leader(header.view);
    let instance = config.instance(leader, header.pillar);
    if header.noop {
        (header.previous < CounterValue::new(header.view.0, header.first.0)
            || mutants::active(Mutant::NoopPrevious))
            && (verifier.verify_continuing(&header.continuing(instance), digest)
                || (mutants::active(Mutant::KindIgnored)
                    && verifier.verify_independent(&header.independent(instance), digest)))
    } else {
        verifier.verify_independent(&header.independent(instance), digest)
    }
}

/// TR listing 18, isCorrectCheckpointCertificate: f+1 replicas vouch for one state.
pub(crate) fn verify_checkpoint_certificate<V: Verifier>(
    verifier: &V,
    config: &GroupConfig,
    certificate: &CheckpointCertificate,
) -> Result<(), Reject> {
    if certificate.id == config.membership.beginning && certificate.ending.is_none() {
        return Ok(());
    }
    let alone = mutants::active(Mutant::CheckpointOfOne);
    if certificate.votes.len() < config.acknowledging() && !alone {
        return Err(Reject::BadQuorum);
    }
    let pillar = config.checkpoint_pillar(certificate.id.order);
    let valid = certificate.checkpoints().all(|checkpoint| {
        let ending = checkpoint.ending.as_ref();
        let digest = Checkpoint::certified(checkpoint.sender, pillar, &checkpoint.id, ending);
        verifier.verify_mac(&checkpoint.mac(config), &digest)
    });
    if valid { Ok(()) } else { Err(Reject::BadCertificate) }
}

/// TR listing 16, isCorrectPrepareSet: valid PREPAREs of one view that cover the pillar's slots
/// from the checkpoint on without a hole, up to the end of its window, or of the epoch if it names one. Returns the
/// last covered order, 0 if there is none.
fn verify_prepared_set<V: Verifier>(
    verifier: &V,
    config: &GroupConfig,
    pillar: PillarId,
    view: View,
    checkpoint: &CheckpointCertificate,
    prepared: &[PrepareHeader],
) -> Result<OrderNumber, Reject> {
    let base = config.slots_before(checkpoint.id.order);
    let end = base + config.window_slots();
    let end = checkpoint.boundary().map_or(end, |boundary| end.min(config.slots_before(boundary)));
    let mut next = base;
    for header in prepared {
        if header.pillar != pillar
            || config.pillar_of(header.first) != pillar
            || config.pillar_of(header.last) != pillar
            || header.view != view
            || config.slot_of(header.first) != next
        {
            return Err(Reject::BadPreparedSet);
        }
        let last = config.slot_of(header.last);
        let interval = config.interval_slots();
        if next / interval != last / interval || last >= end {
            return Err(Reject::BadPreparedSet);
        }
        next = last + 1;
    }
    for header in prepared {
        let valid = verify_prepare(verifier, config, header, &header.digest());
        if !valid && !mutants::active(Mutant::PreparedUnverified) {
            return Err(Reject::BadCertificate);
        }
    }
    Ok(prepared.last().map_or(OrderNumber(0), |header| header.last))
}

/// Checks the chain of counter steps of a part, without its certificates, and returns the order
/// number that the counter disclosed in v_from.
///
/// DEVIATIONS 2: a replica that leaves an unfinished view discloses `v_cur|0`. The chain of its
/// continuing certificates must therefore lead back, link by link, to a value of v_from — or over
/// v_from, if the replica accepted its NEW-VIEW when it was already beyond: then it certified
/// nothing in v_from.
fn check_chain(chain: &[Link], from: View, to: View) -> Result<OrderNumber, Reject> {
    let (Some(first), Some(last)) = (chain.first(), chain.last()) else {
        return Err(Reject::BadChain);
    };
    if last.to != to {
        return Err(Reject::BadChain);
    }
    // Every step must rise, or a view could be left twice, with two different parts.
    let rises = chain.iter().all(|link| link.previous.view() < link.to.0);
    let joined = chain.windows(2).all(|w| w[1].previous == CounterValue::new(w[0].to.0, 0));
    if !rises || !(joined || mutants::active(Mutant::ChainNotJoined)) {
        return Err(Reject::BadChain);
    }
    let over_from = first.previous.view() < from.0 && first.to > from;
    if first.previous.view() == from.0 {
        Ok(OrderNumber(first.previous.order()))
    } else if over_from || mutants::active(Mutant::LastLinkAlone) {
        Ok(OrderNumber(0))
    } else {
        Err(Reject::BadChain)
    }
}

/// TR listing 19, isCorrectViewChange, over the parts of all pillars. The batches that the
/// prepared sets name are checked elsewhere.
pub(crate) fn verify_view_change<V: Verifier>(
    verifier: &V,
    config: &GroupConfig,
    view_change: &ViewChange,
) -> Result<(), Reject> {
    verify_checkpoint_certificate(verifier, config, &view_change.checkpoint)?;
    let scope = view_change.scope();
    for (pillar, part) in config.all_pillars().zip(&view_change.parts) {
        let disclosed = check_chain(&part.chain, view_change.from, view_change.to)?;
        let instance = config.instance(view_change.sender, pillar);
        let (last, earlier) = part.chain.split_last().ok_or(Reject::BadChain)?;
        if last.digest != scope.digest(pillar, earlier, &part.prepared) {
            return Err(Reject::BadCertificate);
        }
        for link in &part.chain {
            let valid = verifier.verify_continuing(&link.certificate(instance), &link.digest);
            if !valid && !mutants::active(Mutant::LinkUnverified) {
                return Err(Reject::BadCertificate);
            }
        }
        let checkpoint = view_change.checkpoint.id.order;
        let reached = verify_prepared_set(
            verifier,
            config,
            pillar,
            view_change.from,
            &view_change.checkpoint,
            &part.prepared,
        )?;
        // TR listing 16, isCorrectAbortState: the set reaches what the counter discloses.
        if reached.max(checkpoint) < disclosed && !mutants::active(Mutant::ReachUnchecked) {
            return Err(Reject::BadPreparedSet);
        }
    }
    Ok(())
}

/// TR listing 19, isCorrectNewViewAck.
pub(crate) fn verify_ack<V: Verifier>(
    verifier: &V,
    config: &GroupConfig,
    ack: &NewViewAck,
) -> Result<(), Reject> {
    let mac = hybster_tss::TrustedMac {
        instance: config.instance(ack.sender, PillarId(0)),
        proof: ack.proof,
    };
    if !verifier.verify_mac(&mac, &ack.digest()) {
        return Err(Reject::BadCertificate);
    }
    verify_checkpoint_certificate(verifier, config, &ack.checkpoint)?;
    for (pillar, prepared) in config.all_pillars().zip(&ack.prepared) {
        verify_prepared_set(verifier, config, pillar, ack.view, &ack.checkpoint, prepared)?;
    }
    Ok(())
}

/// What VIEW-CHANGEs and NEW-VIEW-ACKs that justify a new view demand (TR listing 19,
/// isCorrectNewViewCertificate).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    /// The largest stable view that f+1 replicas vouch for.
    pub from: View,
    /// The highest checkpoint among the messages.
    pub checkpoint: OrderNumber,
    /// Per pillar the headers to re-issue, by rising order, beyond that checkpoint.
    pub prepared: Vec<Vec<PrepareHeader>>,
}

/// TR listing 19, isCorrectNewViewCertificate, and createViewTransition of listing 16.
///
/// DEVIATIONS 1: only abort states whose view is the largest one that f+1 replicas vouch for
/// contribute PREPAREs. The messages themselves are verified by the caller.
pub(crate) fn transition(
    config: &GroupConfig,
    to: View,
    view_changes: &[&ViewChange],
    acks: &[&NewViewAck],
) -> Result<Transition, Reject> {
    let from = view_changes.iter().map(|vc| vc.from).max().ok_or(Reject::BadQuorum)?;
    let needed = config.quorum() - usize::from(mutants::active(Mutant::ViewChangeQuorum));
    if view_changes.len() < needed || view_changes.iter().any(|vc| vc.to != to) {
        return Err(Reject::BadQuorum);
    }
    // TR listing 19: at least f+1 replicas vouch for v_from.
    let count_acks = !mutants::active(Mutant::NoAcks);
    let mut vouching: Vec<ReplicaId> = view_changes
        .iter()
        .filter(|vc| vc.from == from)
        .map(|vc| vc.sender)
        .chain(acks.iter().filter(|ack| ack.view == from && count_acks).map(|ack| ack.sender))
        .collect();
    vouching.sort_unstable();
    vouching.dedup();
    if vouching.len() < config.acknowledging() && !mutants::active(Mutant::NoVouching) {
        return Err(Reject::BadQuorum);
    }
    if acks.iter().any(|ack| ack.view != from) {
        return Err(Reject::BadQuorum);
    }
    let checkpoints = view_changes.iter().map(|vc| vc.checkpoint.id.order);
    let checkpoint =
        checkpoints.chain(acks.iter().map(|ack| ack.checkpoint.id.order)).max().unwrap_or_default();
    let merge = mutants::active(Mutant::MergeAllViews);
    let prepared = config
        .all_pillars()
        .map(|pillar| {
            let p = usize::from(pillar.0);
            let of_changes = view_changes
                .iter()
                .filter(|vc| vc.from == from || merge)
                .map(|vc| &vc.parts[p].prepared);
            let sets = of_changes.chain(acks.iter().map(|ack| &ack.prepared[p]));
            longest_beyond(sets, checkpoint)
        })
        .collect();
    Ok(Transition { from, checkpoint, prepared })
}

/// The union of prepared sets of one view, beyond a checkpoint.
///
/// All sets hold certificates of one leader in one view, unique by its counter, and each is
/// contiguous from a checkpoint that is not beyond the given one: so the one that reaches
/// furthest contains all others there.
fn longest_beyond<'a>(
    sets: impl Iterator<Item = &'a Vec<PrepareHeader>>,
    checkpoint: OrderNumber,
) -> Vec<PrepareHeader> {
    let reach = |set: &&Vec<PrepareHeader>| set.last().map_or(OrderNumber(0), |h| h.last);
    let longest = sets.max_by_key(reach).map(Vec::as_slice).unwrap_or_default();
    longest.iter().filter(|header| header.last > checkpoint).copied().collect()
}

/// TR listing 19, isCorrectNewView: everything but the batches.
pub(crate) fn verify_new_view<V: Verifier>(
    verifier: &V,
    config: &GroupConfig,
    new_view: &NewView,
) -> Result<(), Reject> {
    let leader = config.leader(new_view.view);
    let certificate = IndependentCertificate {
        instance: config.instance(leader, PillarId(0)),
        counter: Counter::NewView,
        value: CounterValue::new(new_view.view.0, 0),
        proof: new_view.proof,
    };
    if !verifier.verify_independent(&certificate, &new_view.digest()) {
        return Err(Reject::BadCertificate);
    }
    verify_checkpoint_certificate(verifier, config, &new_view.checkpoint)?;
    for view_change in &new_view.view_changes {
        verify_view_change(verifier, config, view_change)?;
    }
    for ack in &new_view.acks {
        verify_ack(verifier, config, ack)?;
    }
    let view_changes: Vec<_> = new_view.view_changes.iter().collect();
    let acks: Vec<_> = new_view.acks.iter().collect();
    let transition = transition(config, new_view.view, &view_changes, &acks)?;
    let checkpoint = new_view.checkpoint.id.order;
    if checkpoint < transition.checkpoint {
        return Err(Reject::BadTransition);
    }
    for (pillar, demanded) in config.all_pillars().zip(&transition.prepared) {
        let prepares = &new_view.prepares[usize::from(pillar.0)];
        let of = &new_view.checkpoint;
        verify_prepared_set(verifier, config, pillar, new_view.view, of, prepares)?;
        let demanded: Vec<_> = demanded.iter().filter(|h| h.last > checkpoint).collect();
        let equal = demanded.len() == prepares.len()
            && demanded.iter().zip(prepares).all(|(d, p)| {
                (d.first, d.last, d.noop, d.requests, d.batch)
                    == (p.first, p.last, p.noop, p.requests, p.batch)
                    && (d.time_ms == p.time_ms || mutants::active(Mutant::ReissuedTime))
            });
        if !equal && !mutants::active(Mutant::TransitionUnchecked) {
            return Err(Reject::BadTransition);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
