//! The canonical state of a pillar, for model checkers.

use hybster_tss::{Counter, RequestVerifier, TrInX, Verifier};
use std::collections::{BTreeMap, BTreeSet};

use super::Pillar;
use super::slots::{Slot, StoredPrepare};
use crate::fingerprint::Fingerprint;
use crate::shared::later::Later;

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// Appends the pillar's state. `names` tells what the tickets of the control stage stand for:
    /// their numbers depend on the order in which messages came.
    pub fn fingerprint(&self, names: &BTreeMap<u64, Vec<u8>>, into: &mut Fingerprint) {
        let Self {
            config: _,
            id: _,
            pillar: _,
            trinx,
            verifier: _,
            view,
            active,
            slots,
            boundary,
            digests: _,
            prepared,
            committed,
            handed,
            proposals,
            full_at: _,
            preferred: _,
            path: _,
            longest_way_us: _,
            now: _,
            timing,
            chain,
            bodies,
            answers: _,
            established,
            later,
            checkpoints,
            outstanding_since: _,
            backoff: _,
            uncommitted_since: _,
            commit_timeout: _,
            last_hint: _,
            asked_back: _,
            answered: _,
            unlogged: _,
            summary_due: _,
            seen,
        } = self;
        // What it has seen of peers concerns links that come up, of which there are none in a model.
        into.flag(seen.is_returning());
        into.number(seen.told_by().unwrap_or(0) as u64);
        for counter in Counter::ALL {
            into.wide(trinx.current(counter).as_u128());
        }
        into.number(view.0);
        into.flag(*active);
        into.number(slots.base());
        if *boundary != u64::MAX {
            into.number(*boundary);
        }
        for slot in slots.base()..slots.end() {
            slot_into(slots.get(slot).expect("inside the log"), into);
        }
        for number in [*prepared, *committed, *handed] {
            into.number(number);
        }
        timing.fingerprint(*prepared, into);
        proposals.fingerprint(crate::hybster::wire::ordering::PREPARE_HEAD, into);
        into.number(chain.len() as u64);
        for link in chain {
            into.number(link.to.0);
            into.wide(link.previous.as_u128());
            into.bytes(&link.digest.0);
        }
        bodies.fingerprint(names, into);
        into.flag(established.is_some());
        if let Some((view, prepares)) = established {
            into.number(view.0);
            prepares_into(prepares, into);
        }
        later_into(later, into);
        checkpoints.fingerprint(into);
    }
}

fn later_into(later: &Later, into: &mut Fingerprint) {
    for queue in later.queues() {
        // What came twice is handled twice, and the second time is of no use.
        let mut seen = BTreeSet::new();
        for (view, message) in queue {
            if seen.insert(message) {
                into.number(view.0);
                into.bytes(message);
            }
        }
        into.number(u64::MAX);
    }
}

fn slot_into(slot: &Slot, into: &mut Fingerprint) {
    into.flag(slot.prepare.is_some());
    if let Some(stored) = &slot.prepare {
        into.bytes(&stored.message);
        into.flag(stored.late);
    }
    into.sorted(
        slot.votes
            .iter()
            .map(|vote| {
                let mut item = Fingerprint::default();
                item.number(u64::from(vote.replica.0));
                item.bytes(&vote.prepare.0);
                item.number(vote.last.0);
                item
            })
            .collect(),
    );
    into.flag(slot.own.is_some());
    if let Some(own) = &slot.own {
        into.bytes(&own.encode());
    }
}

fn prepares_into(prepares: &[StoredPrepare], into: &mut Fingerprint) {
    into.number(prepares.len() as u64);
    for stored in prepares {
        into.bytes(&stored.message);
    }
}
