//! A guard against an older copy of a log (DEVIATIONS 32): peers tell a replica the last certificate that they have
//! had from it. Whoever learns of one of its own beyond its counter stops.
//!
//! A pillar that comes back proposes and acknowledges nothing before f peers have told it: correct ones, if the copy is
//! the only fault. Until then it asks (ORDER-REQUEST). It may leave its view meanwhile. A liar can keep silent,
//! but cannot stop a replica: the certificate is its own, and a log that is not a copy has all of these.

use std::collections::BTreeSet;

use hybster_tss::{RequestVerifier, TrInX, Verifier};

use super::Pillar;
use crate::hybster::wire::last_seen::LastSeen;
use crate::ids::ReplicaId;
use crate::mutants::{self, Mutant};
use crate::output::{Destination, Fatal, Output, Reject, SendTag};

/// Bytes that are kept of each peer.
pub(crate) const SEEN_BYTES: u64 = size_of::<LastSeen>() as u64;

/// What peers have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The highest that each peer has sent itself. COMMITs are not checked here: a peer that lies misleads itself.
    of_peers: Vec<LastSeen>,
    /// Which peers have told this replica, while it is coming back.
    told: Option<BTreeSet<ReplicaId>>,
}

impl Seen {
    pub(super) fn new(replicas: u16) -> Self {
        Self { of_peers: vec![LastSeen::Nothing; usize::from(replicas)], told: None }
    }

    /// The replica comes back.
    pub(super) fn returns(&mut self) {
        self.told = Some(BTreeSet::new());
    }

    /// Whether the replica comes back, and peers have not told it enough.
    pub(super) fn is_returning(&self) -> bool {
        self.told.is_some()
    }

    /// A peer has sent something that it certified with O.
    #[inline]
    pub(super) fn note(&mut self, peer: ReplicaId, seen: LastSeen) {
        let Some(known) = self.of_peers.get_mut(usize::from(peer.0)) else { return };
        if seen.value() > known.value() {
            *known = seen;
        }
    }
}

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// Whether this pillar may propose and acknowledge: not while it is coming back.
    pub(super) fn may_take_part(&self) -> bool {
        !self.seen.is_returning() || mutants::active(Mutant::CopyTrusted)
    }

    /// Tells a peer what this replica has seen of it.
    pub(super) fn tell_last_seen(&self, peer: ReplicaId, out: &mut Output) {
        let Some(seen) = self.seen.of_peers.get(usize::from(peer.0)) else { return };
        out.send(Destination::Peer(peer), seen.encode(self.pillar), SendTag::Transient);
    }

    /// A peer tells what it has seen of this replica.
    pub(super) fn last_seen(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        out: &mut Output,
    ) -> Result<(), Reject> {
        let seen = LastSeen::parse(message)?;
        if seen.value() > self.counter() && !mutants::active(Mutant::CopyTrusted) {
            if !seen.is_by(self.id, &self.verifier, &self.config) {
                return Err(Reject::BadCertificate);
            }
            let (pillar, peer) = (self.pillar, from.0);
            let text = format!("{pillar} has certified {:?} for peer {peer}", seen.value());
            out.fail(Fatal::OlderCopy(text));
            return Ok(());
        }
        let Some(told) = &mut self.seen.told else { return Ok(()) };
        told.insert(from);
        if told.len() >= usize::from(self.config.faults) {
            self.seen.told = None;
            let taken = self.propose_ready(out);
            self.announce(taken, out);
            self.advance(out);
        }
        Ok(())
    }
}
