//! Tools of the liars: what can be certified with a TrInX that one's own host controls.

use hybster_proto::ids::{OrderNumber, PillarId, View};
use hybster_proto::internals::{Commit, Link, PrepareHeader};
use hybster_proto::wire;
use hybster_tss::{Counter, CounterValue, Digest, Proof, TrInX};

use super::Scene;
use crate::watched::Watched;

/// The order number after the last one that a leader certified in its view; `None` if its counter
/// is not in that view.
pub(super) fn next_order(scene: &Scene<'_>, pillar: PillarId, view: View) -> Option<OrderNumber> {
    let counter = scene.trinx[usize::from(pillar.0)].current(Counter::Ordering);
    if counter.view() != view.0 || counter.order() >= 1 << 60 {
        return None;
    }
    Some(match counter.order() {
        0 => scene.group.order_at(pillar, 0),
        order => OrderNumber(order + u64::from(scene.group.pillars)),
    })
}

/// Head and body of a PREPARE for one order number with the true time, not yet certified.
pub(super) fn header(
    scene: &Scene<'_>,
    pillar: PillarId,
    view: View,
    order: OrderNumber,
) -> PrepareHeader {
    PrepareHeader {
        pillar,
        noop: false,
        requests: 1,
        view,
        first: order,
        last: order,
        time_ms: scene.unix_ms(),
        batch: wire::digest(&[]),
        previous: CounterValue::ZERO,
        proof: Proof([0; 32]),
    }
}

/// Certifies a PREPARE with any instance, with either kind of certificate.
pub(super) fn certify(trinx: &mut Watched, header: &mut PrepareHeader, continuing: bool) -> bool {
    let (value, digest) = (header.value(), header.digest());
    if continuing {
        match trinx.certify_continuing(Counter::Ordering, value, &digest) {
            Ok(c) => (header.previous, header.proof) = (c.previous, c.proof),
            Err(_) => return false,
        }
    } else {
        match trinx.certify_independent(Counter::Ordering, value, &digest) {
            Ok(c) => header.proof = c.proof,
            Err(_) => return false,
        }
    }
    true
}

/// Certifies a COMMIT.
pub(super) fn certify_commit(trinx: &mut Watched, commit: &mut Commit) -> bool {
    let value = CounterValue::new(commit.view.0, commit.last.0);
    match trinx.certify_independent(Counter::Ordering, value, &commit.digest()) {
        Ok(c) => commit.proof = c.proof,
        Err(_) => return false,
    }
    true
}

/// Moves counter O to `to|0` and certifies a digest with the step.
pub(super) fn step(trinx: &mut Watched, to: View, digest: Digest) -> Option<Link> {
    let value = CounterValue::new(to.0, 0);
    let certificate = trinx.certify_continuing(Counter::Ordering, value, &digest).ok()?;
    Some(Link { to, previous: certificate.previous, digest, proof: certificate.proof })
}
