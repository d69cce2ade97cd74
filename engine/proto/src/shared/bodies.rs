//! Batches by digest: those that messages of a view change name, and which of them are missing
//! (DEVIATIONS 8).
//!
//! Such messages carry digests, not batches. One counts once this pillar holds every batch that it
//! names for the pillar. Until it is released they are kept, whatever happens to the log.

use bytes::Bytes;
use hybster_tss::Digest;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{PillarId, ReplicaId};
use crate::mutants::{self, Mutant};
use crate::output::{Destination, Output, Reject, SendTag};
use crate::time::Time;
use crate::wire::help::encode_batch_request;

/// Digests that one BATCH-REQUEST names at most; all of them are answered.
pub(crate) const BATCHES_PER_REQUEST: usize = 8;

/// A batch as a message names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub digest: Digest,
    /// How many requests it is said to have.
    pub requests: u32,
    pub slot: u64,
}

/// A batch outside of the log: checked requests.
struct Body {
    batch: Bytes,
    requests: u32,
    /// The last slot for which the replica's log has it.
    logged: Option<u64>,
}

/// The batches that one message names.
struct Hold {
    source: ReplicaId,
    named: Vec<Named>,
    missing: Vec<Named>,
    /// Batches that were asked for and have not come yet.
    under_way: usize,
    asked: Time,
}

/// Whether all batches of a ticket are held and valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub ticket: u64,
    pub valid: bool,
}

/// Batches that messages of a view change name, held for one pillar.
///
/// The control stage keeps a bounded number of such messages per replica, so what is held for a
/// liar is bounded as well.
pub(crate) struct Bodies {
    id: ReplicaId,
    pillar: PillarId,
    bodies: BTreeMap<Digest, Body>,
    holds: BTreeMap<u64, Hold>,
}

impl Bodies {
    /// Nothing is held yet, for a pillar of replica `id`.
    pub(crate) fn new(id: ReplicaId, pillar: PillarId) -> Self {
        Self { id, pillar, bodies: BTreeMap::new(), holds: BTreeMap::new() }
    }

    /// Holds the batches that a message names, and asks `source` for missing ones. `logged` tells
    /// how many requests a batch has that is in the log. Returns whether all are held and valid if
    /// that is known already; else [`Bodies::arrived`] tells it.
    pub(crate) fn hold(
        &mut self,
        ticket: u64,
        source: ReplicaId,
        named: Vec<Named>,
        logged: impl Fn(&Named) -> Option<u32>,
        now: Time,
        out: &mut Output,
    ) -> Option<Held> {
        let requests_of =
            |one: &Named| logged(one).or(self.bodies.get(&one.digest).map(|body| body.requests));
        let (mut missing, mut valid) = (Vec::new(), true);
        for one in &named {
            match requests_of(one) {
                Some(requests) => valid &= requests == one.requests,
                None => missing.push(*one),
            }
        }
        if !valid {
            return Some(Held { ticket, valid });
        }
        let mut hold = Hold { source, named, missing, under_way: 0, asked: now };
        let is_complete = hold.missing.is_empty() || mutants::active(Mutant::HoldUnchecked);
        if !is_complete {
            self.ask(&mut hold, now, out);
        }
        self.holds.insert(ticket, hold);
        is_complete.then_some(Held { ticket, valid })
    }

    fn ask(&self, hold: &mut Hold, now: Time, out: &mut Output) {
        let asked = hold.missing.iter().take(BATCHES_PER_REQUEST);
        let digests: Vec<Digest> = asked.map(|missing| missing.digest).collect();
        hold.under_way = digests.len();
        hold.asked = now;
        let message = encode_batch_request(self.pillar, &digests);
        // Batches that this replica's own message names may be gone here; others may have them.
        let to = if hold.source == self.id {
            Destination::AllPeers
        } else {
            Destination::Peer(hold.source)
        };
        out.send(to, message, SendTag::Transient);
    }

    /// Stops the process if batches are held for more than `most` messages, which is what the
    /// control stage keeps.
    #[inline]
    pub(crate) fn check_invariants(&self, most: usize) {
        assert!(self.holds.len() <= most, "what is held is bounded");
    }

    /// The message of a ticket is dropped: batches that no other one names go.
    pub(crate) fn release(&mut self, ticket: u64) {
        if self.holds.remove(&ticket).is_some() && !self.bodies.is_empty() {
            let named = self.named();
            self.bodies.retain(|digest, _| named.contains(digest));
        }
    }

    fn named(&self) -> BTreeSet<Digest> {
        let named = self.holds.values().flat_map(|hold| &hold.named);
        named.map(|named| named.digest).collect()
    }

    /// Slots are emptied: batches in them that messages name are held here from now on. The last part of an item is
    /// the slot, if the replica's log has the batch.
    pub(crate) fn keep(&mut self, all: impl Iterator<Item = (Digest, u32, Bytes, Option<u64>)>) {
        let named = self.named();
        for (digest, requests, batch, logged) in all.filter(|(digest, ..)| named.contains(digest)) {
            let body = self.bodies.entry(digest).or_insert(Body { batch, requests, logged });
            body.logged = body.logged.max(logged);
        }
    }

    /// A batch that is held here and that the replica's log is to have for this slot, if it has it for earlier ones
    /// only: who reads a log drops batches of slots before the window.
    pub(crate) fn logs(&mut self, digest: &Digest, slot: u64) -> Option<Bytes> {
        let body = self.bodies.get_mut(digest).filter(|body| body.logged < Some(slot))?;
        body.logged = Some(slot);
        Some(body.batch.clone())
    }

    /// Batches that are held here and that the replica's log has, with the last slot for which it does.
    pub(crate) fn logged(&self) -> impl Iterator<Item = (u64, &Bytes)> {
        self.bodies.values().filter_map(|body| Some((body.logged?, &body.batch)))
    }

    /// A batch that is held here.
    pub(crate) fn get(&self, digest: &Digest) -> Option<&Bytes> {
        self.bodies.get(digest).map(|body| &body.batch)
    }

    /// All batches that are held here.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Digest, &Bytes)> {
        self.bodies.iter().map(|(digest, body)| (*digest, &body.batch))
    }

    /// Batches before the window's base are not needed any more. Returns the tickets that are
    /// complete without them.
    pub(crate) fn forward(&mut self, base: u64) -> Vec<Held> {
        let mut complete = Vec::new();
        for (ticket, hold) in &mut self.holds {
            hold.named.retain(|named| named.slot >= base);
            let waited = !hold.missing.is_empty();
            hold.missing.retain(|missing| missing.slot >= base);
            if waited && hold.missing.is_empty() {
                complete.push(Held { ticket: *ticket, valid: true });
            }
        }
        complete
    }

    /// Asks again for what has been missing for `resend_us`.
    pub(crate) fn tick(&mut self, now: Time, resend_us: u64, out: &mut Output) {
        let mut holds = std::mem::take(&mut self.holds);
        for hold in holds.values_mut().filter(|hold| !hold.missing.is_empty()) {
            if now.since_us(hold.asked) >= resend_us {
                self.ask(hold, now, out);
            }
        }
        self.holds = holds;
    }

    /// When [`Bodies::tick`] has something to ask for.
    pub(crate) fn deadline(&self, resend_us: u64) -> Option<Time> {
        let waiting = self.holds.values().filter(|hold| !hold.missing.is_empty());
        waiting.map(|hold| hold.asked.after_us(resend_us)).min()
    }

    /// Whether some message names a batch that is not here.
    pub(crate) fn misses_some(&self) -> bool {
        self.holds.values().any(|hold| !hold.missing.is_empty())
    }

    /// Whether a message names a batch with this digest that is not here.
    pub(crate) fn misses(&self, digest: &Digest) -> bool {
        let mut missing = self.holds.values().flat_map(|hold| &hold.missing);
        missing.any(|missing| missing.digest == *digest)
    }

    /// The last slot for which a message names a batch that is not here.
    pub(crate) fn missed_for(&self, digest: &Digest) -> Option<u64> {
        let missing = self.holds.values().flat_map(|hold| &hold.missing);
        missing.filter(|missing| missing.digest == *digest).map(|missing| missing.slot).max()
    }

    /// Batches that are held before any message names them: those of a log, with the last slot for which it has
    /// them.
    pub(crate) fn recovered(&mut self, batches: impl Iterator<Item = (Digest, u32, Bytes, u64)>) {
        self.bodies.extend(batches.map(|(digest, requests, batch, slot)| {
            (digest, Body { batch, requests, logged: Some(slot) })
        }));
    }

    /// A batch that is missed arrived. `checked` says what is wrong with its requests, of which
    /// there are `requests`. Returns the tickets about which all is known now.
    ///
    /// The digest is right, so a fault of the batch is the same for all who name it. But the number
    /// of requests comes from a header, and a liar's must not spoil the batch for others.
    pub(crate) fn arrived(
        &mut self,
        digest: Digest,
        batch: &[u8],
        requests: u32,
        checked: Result<(), Reject>,
        now: Time,
        out: &mut Output,
    ) -> Vec<Held> {
        if checked.is_ok() {
            // The pillar has just logged it for that slot.
            let logged = self.missed_for(&digest);
            let batch = Bytes::copy_from_slice(batch);
            self.bodies.insert(digest, Body { batch, requests, logged });
        }
        let mut known = Vec::new();
        let mut holds = std::mem::take(&mut self.holds);
        holds.retain(|ticket, hold| {
            let before = hold.missing.len();
            let mut valid = true;
            hold.missing.retain(|missing| {
                if missing.digest != digest {
                    return true;
                }
                valid &= checked.is_ok() && missing.requests == requests;
                false
            });
            if hold.missing.len() == before {
                return true;
            }
            if !valid || hold.missing.is_empty() {
                known.push(Held { ticket: *ticket, valid });
                return valid;
            }
            hold.under_way = hold.under_way.saturating_sub(1);
            if hold.under_way == 0 {
                self.ask(hold, now, out);
            }
            true
        });
        self.holds = holds;
        known
    }
}

#[cfg(feature = "model")]
impl Bodies {
    /// Appends what is held and missed. `names` tells what the tickets stand for: their numbers
    /// depend on the order in which messages came.
    pub(crate) fn fingerprint(
        &self,
        names: &BTreeMap<u64, Vec<u8>>,
        into: &mut crate::fingerprint::Fingerprint,
    ) {
        use crate::fingerprint::Fingerprint;
        let Self { id: _, pillar: _, bodies, holds } = self;
        into.sorted(
            bodies
                .iter()
                .map(|(digest, body)| {
                    let mut item = Fingerprint::default();
                    item.bytes(&digest.0);
                    item.number(u64::from(body.requests));
                    item
                })
                .collect(),
        );
        let (mut waiting, mut settled) = (Vec::new(), Vec::new());
        for (ticket, hold) in holds {
            let mut item = Fingerprint::default();
            item.bytes(names.get(ticket).map_or(&[], Vec::as_slice));
            hold.fingerprint(&mut item);
            // Those that wait are answered in the order of their tickets.
            if hold.missing.is_empty() { &mut settled } else { &mut waiting }.push(item);
        }
        into.number(waiting.len() as u64);
        for item in waiting {
            into.bytes(&item.0);
        }
        into.sorted(settled);
    }
}

#[cfg(feature = "model")]
impl Hold {
    fn fingerprint(&self, into: &mut crate::fingerprint::Fingerprint) {
        let Self { source, named, missing, under_way, asked: _ } = self;
        into.number(u64::from(source.0));
        into.number(*under_way as u64);
        for list in [named, missing] {
            into.number(list.len() as u64);
            for Named { digest, requests, slot } in list {
                into.bytes(&digest.0);
                into.number(u64::from(*requests));
                into.number(*slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Network;
    use crate::wire::help::parse_batch_request;

    const ME: ReplicaId = ReplicaId(0);
    const LIAR: ReplicaId = ReplicaId(2);

    fn named(slot: u64, requests: u32) -> Named {
        Named { digest: Digest([slot as u8; 32]), requests, slot }
    }

    fn asked(out: &mut Output) -> Vec<(Destination, usize)> {
        let sent = out.network.drain(..).map(|effect| match effect {
            Network::Send { to, message, .. } => (to, parse_batch_request(&message).unwrap().len()),
            other => panic!("{other:?}"),
        });
        sent.collect()
    }

    #[test]
    fn a_message_counts_once_all_its_batches_are_here() {
        let (mut bodies, mut out) = (Bodies::new(ME, PillarId(0)), Output::default());
        let all: Vec<Named> = (0..10).map(|slot| named(slot, 1)).collect();
        // The first two are in the log.
        let logged = |one: &Named| (one.slot < 2).then_some(1);
        assert_eq!(bodies.hold(7, ReplicaId(1), all, logged, Time(0), &mut out), None);
        assert_eq!(asked(&mut out), [(Destination::Peer(ReplicaId(1)), BATCHES_PER_REQUEST)]);
        for slot in 2..9 {
            assert!(bodies.misses(&named(slot, 1).digest));
            let known = bodies.arrived(named(slot, 1).digest, b"x", 1, Ok(()), Time(1), &mut out);
            assert_eq!(known, []);
        }
        let known = bodies.arrived(named(9, 1).digest, b"x", 1, Ok(()), Time(1), &mut out);
        assert_eq!(known, [Held { ticket: 7, valid: true }]);
        assert_eq!(bodies.all().count(), 8);
        bodies.release(7);
        assert_eq!(bodies.all().count(), 0);
    }

    #[test]
    fn a_wrong_number_of_requests_spoils_the_batch_for_the_liar_only() {
        let (mut bodies, mut out) = (Bodies::new(ME, PillarId(0)), Output::default());
        let none = |_: &Named| None;
        bodies.hold(1, LIAR, vec![named(4, 9)], none, Time(0), &mut out);
        bodies.hold(2, ReplicaId(1), vec![named(4, 3)], none, Time(0), &mut out);
        let known = bodies.arrived(named(4, 3).digest, b"x", 3, Ok(()), Time(1), &mut out);
        assert_eq!(known, [Held { ticket: 1, valid: false }, Held { ticket: 2, valid: true }]);
        let known = bodies.hold(3, LIAR, vec![named(4, 9)], none, Time(2), &mut out);
        assert_eq!(known, Some(Held { ticket: 3, valid: false }));
    }

    #[test]
    fn what_is_missing_is_asked_for_again_and_not_beyond_the_base() {
        let (mut bodies, mut out) = (Bodies::new(ME, PillarId(0)), Output::default());
        bodies.hold(1, ME, vec![named(4, 1)], |_| None, Time(10), &mut out);
        assert_eq!(asked(&mut out), [(Destination::AllPeers, 1)]);
        assert_eq!(bodies.deadline(50), Some(Time(60)));
        bodies.tick(Time(60), 50, &mut out);
        assert_eq!(asked(&mut out), [(Destination::AllPeers, 1)]);
        assert_eq!(bodies.forward(5), [Held { ticket: 1, valid: true }]);
        assert_eq!(bodies.deadline(50), None);
    }

    #[test]
    fn what_the_log_forgets_is_kept_if_a_message_names_it() {
        let (mut bodies, mut out) = (Bodies::new(ME, PillarId(0)), Output::default());
        bodies.hold(1, ME, vec![named(4, 1)], |_| Some(1), Time(0), &mut out);
        let slots = [named(3, 1), named(4, 1)];
        let batch = Bytes::from_static(b"x");
        let all = slots.map(|one| (one.digest, one.requests, batch.clone(), Some(one.slot)));
        bodies.keep(all.into_iter());
        assert!(bodies.get(&named(4, 1).digest).is_some() && bodies.all().count() == 1);
    }

    #[test]
    fn the_log_has_a_batch_for_the_last_slot_that_it_is_named_for() {
        let (mut bodies, mut out) = (Bodies::new(ME, PillarId(0)), Output::default());
        let Named { digest, .. } = named(4, 1);
        bodies.hold(1, ME, vec![named(4, 1)], |_| Some(1), Time(0), &mut out);
        let batch = Bytes::from_static(b"x");
        bodies.keep([(digest, 1, batch.clone(), None)].into_iter());
        assert_eq!(bodies.logged().count(), 0);
        assert_eq!(bodies.logs(&digest, 4), Some(batch.clone()));
        assert_eq!(bodies.logs(&digest, 4), None, "the log has it");
        // From a slot in front, it is of no use to who names it for this one.
        bodies.keep([(digest, 1, batch.clone(), Some(2))].into_iter());
        assert_eq!(bodies.logs(&digest, 6), Some(batch.clone()));
        assert_eq!(bodies.logged().collect::<Vec<_>>(), [(6, &batch)]);
        assert_eq!(bodies.logs(&named(5, 1).digest, 5), None, "it is not here");
    }
}
