//! A guard against an older copy of a log (DEVIATIONS 32): peers tell a replica the last certificate that they have
//! had from it. Whoever learns of one of its own beyond its counter stops.
//!
//! A pillar that comes back certifies nothing with O before its peers have told it: it proposes and acknowledges
//! nothing, and the replica neither leaves its view nor leads another ([`ControlInput::Told`]). Until then it asks
//! (ORDER-REQUEST). One who has not had the last certificates tells nothing of use, as messages to a slow peer are
//! withdrawn. So all peers are waited for; once f have told it, which are correct ones if the copy is the only fault,
//! for [`WAIT`] at most. A liar that keeps silent costs that time, and cannot stop a replica: the certificate is
//! its own, and a log that is not a copy has all of these.

use std::collections::BTreeSet;

use hybster_tss::{RequestVerifier, TrInX, Verifier};

use super::Pillar;
use crate::hybster::input::ControlInput;
use crate::hybster::wire::last_seen::LastSeen;
use crate::hybster::wire::ordering::PrepareHeader;
use crate::ids::ReplicaId;
use crate::mutants::{self, Mutant};
use crate::output::{Destination, Fatal, Output, Reject, SendTag};
use crate::time::Time;

/// Bytes that are kept of each peer.
pub(crate) const SEEN_BYTES: u64 = size_of::<LastSeen>() as u64;

/// How long the last peers are waited for, in request timeouts. Links that were down are tried again within less.
const WAIT: u64 = 4;

/// What peers have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The highest that each peer has sent itself. COMMITs are not checked here: a peer that lies misleads itself.
    of_peers: Vec<LastSeen>,
    /// While this replica is coming back.
    returning: Option<Returning>,
}

/// A pillar that waits to be told.
#[derive(Debug, Default)]
struct Returning {
    /// By whom it was.
    by: BTreeSet<ReplicaId>,
    /// Since when f have done so.
    enough_at: Option<Time>,
}

impl Seen {
    pub(super) fn new(replicas: u16) -> Self {
        Self { of_peers: vec![LastSeen::Nothing; usize::from(replicas)], returning: None }
    }

    /// The replica comes back.
    pub(super) fn returns(&mut self) {
        self.returning = Some(Returning::default());
    }

    /// Whether the replica comes back, and peers have not told it enough.
    pub(super) fn is_returning(&self) -> bool {
        self.returning.is_some()
    }

    /// How many peers have told it, while it comes back.
    #[cfg(feature = "model")]
    pub(super) fn told_by(&self) -> Option<usize> {
        self.returning.as_ref().map(|returning| returning.by.len())
    }

    /// A peer has certified something with O, whoever brought it.
    #[inline]
    pub(super) fn note(&mut self, peer: ReplicaId, seen: LastSeen) {
        let Some(known) = self.of_peers.get_mut(usize::from(peer.0)) else { return };
        if seen.value() > known.value() {
            *known = seen;
        }
    }
}

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// Notes what a leader has certified again for its view, as a NEW-VIEW has it, or this replica's log.
    pub(super) fn note_prepared(&mut self, header: Option<&PrepareHeader>) {
        let Some(header) = header else { return };
        let leader = self.config.leader(header.view);
        if leader != self.id {
            self.seen.note(leader, LastSeen::Prepare(*header));
        }
    }

    /// Whether this pillar may certify anything with O: not while it is coming back.
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
        let (faults, peers) = (self.config.faults, self.config.replicas - 1);
        let (now, Some(returning)) = (self.now, &mut self.seen.returning) else { return Ok(()) };
        returning.by.insert(from);
        if returning.by.len() >= usize::from(faults) {
            returning.enough_at.get_or_insert(now);
        }
        let suffices =
            returning.enough_at.is_some() && mutants::active(Mutant::FirstTellersSuffice);
        if returning.by.len() == usize::from(peers) || suffices {
            self.returned(out);
        }
        Ok(())
    }

    /// When the last peers are not waited for any more.
    pub(super) fn told_deadline(&self) -> Option<Time> {
        let enough_at = self.seen.returning.as_ref()?.enough_at?;
        Some(enough_at.after_us(WAIT * self.config.request_timeout_us))
    }

    /// It is told, and takes part.
    pub(super) fn returned(&mut self, out: &mut Output) {
        self.seen.returning = None;
        out.control(ControlInput::Told(self.pillar));
        let taken = self.propose_ready(out);
        self.announce(taken, out);
        self.advance(out);
    }
}
