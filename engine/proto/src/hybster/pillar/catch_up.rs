//! Ordering messages that were missed: asking peers for them, and answering (TR listings 9 and 20, the
//! ordering part).

use hybster_tss::{RequestVerifier, TrInX, Verifier};

use super::Pillar;
use super::slots::Slot;
use crate::hybster::wire::ordering::Commit;
use crate::ids::ReplicaId;
use crate::mutants::{self, Mutant};
use crate::output::{Destination, Output, Reject, SendTag, ToControl};
use crate::time::Time;
use crate::wire::help::OrderRequest;

/// A follower with slow wires asks its leader so many times before it asks others: with waits that double that takes
/// a second and a half by default, and the way there and back as often.
const ASKS_LEADER: u32 = 5;
/// Bytes that answer one ORDER-REQUEST at most.
const ANSWER_BYTES: usize = 256 << 10;

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// Sends again what a peer may have missed while its link was down (TR listing 9). What it
    /// lacks beyond that, it asks for.
    pub(super) fn peer_up(&mut self, peer: ReplicaId, out: &mut Output) {
        // First, as what follows may be something to certify.
        self.tell_last_seen(peer, out);
        let to = Destination::Peer(peer);
        for slot in self.committed..self.prepared {
            let Some(entry) = self.slots.get(slot) else {
                break;
            };
            self.send_slot(entry, false, to, out);
        }
        if let Some(own) = self.checkpoints.own() {
            out.send(to, own.encode(&self.config), SendTag::Checkpoint(own.id.order));
        }
    }

    /// Sends what this replica knows of a slot, but for its PREPARE if that `is_held`; returns the bytes.
    fn send_slot(&self, entry: &Slot, is_held: bool, to: Destination, out: &mut Output) -> usize {
        let mut sent = 0;
        if let Some(stored) = entry.prepare.as_ref().filter(|_| !is_held) {
            let header = &stored.header;
            let tag = SendTag::Ordering(header.view, header.last);
            sent += stored.message.len();
            if mutants::active(Mutant::NewAgain) {
                out.send_new(to, stored.message.clone(), tag);
            } else {
                out.send(to, stored.message.clone(), tag);
            }
        }
        if let Some(own) = &entry.own {
            let message = own.encode();
            sent += message.len();
            out.send(to, message, SendTag::Ordering(own.view, own.last));
        }
        sent
    }

    /// Relays the COMMITs of others, without which a replica may not learn that a slot is
    /// committed when those others are gone.
    fn relay_votes(&self, entry: &Slot, to: ReplicaId, out: &mut Output) -> usize {
        let Some(stored) = &entry.prepare else {
            return 0;
        };
        let header = &stored.header;
        let mut sent = 0;
        for vote in entry.votes.iter().filter(|v| v.replica != to && v.acknowledges(stored)) {
            let commit = Commit {
                pillar: self.pillar,
                sender: vote.replica,
                view: header.view,
                first: header.first,
                last: header.last,
                prepare: vote.prepare,
                proof: vote.proof,
            };
            let message = commit.encode();
            sent += message.len();
            out.send(Destination::Peer(to), message, SendTag::Ordering(header.view, header.last));
        }
        sent
    }

    /// Asks peers for ordering messages from the first uncommitted slot on.
    ///
    /// TR listing 9 sends PREPAREs until they are withdrawn. Here a leader that lacks COMMITs asks for
    /// them and says what it has proposed, and a follower that lacks some of that asks for it in turn.
    /// So a batch goes over a wire once, and again only if it was lost.
    pub(super) fn ask(&self, to: Destination, out: &mut Output) {
        let slots = (self.committed..self.slots.end()).take(u64::BITS as usize);
        let holds = slots.map(|slot| u64::from(self.slots.prepare(slot).is_some()));
        let request = OrderRequest {
            pillar: self.pillar,
            view: self.view,
            is_returning: self.seen.is_returning(),
            from: self.order_at(self.committed),
            held: holds.enumerate().fold(0, |held, (at, holds)| held | holds << at),
        };
        out.send(to, request.encode(), SendTag::Transient);
    }

    /// Asks whoever may have it. Over slow wires a proposal reaches one follower long before the next one, which
    /// hears of it by COMMITs. It asks its leader, which knows what is on its way; another follower would send a
    /// copy that comes hardly sooner. Asked in vain a few times, it asks all.
    pub(super) fn ask_peers(&self, out: &mut Output) {
        let leader = self.config.leader(self.view);
        let is_on_its_way = self.active
            && self.id != leader
            && self.path.is_costly()
            && self.backoff < ASKS_LEADER
            && !mutants::active(Mutant::AsksAll);
        let to = if is_on_its_way { Destination::Peer(leader) } else { Destination::AllPeers };
        self.ask(to, out);
    }

    /// Whether the leader of this view has proposed something that is missing here.
    fn lacks(&self, slot: u64, held: u64) -> bool {
        let slots = (slot..self.slots.end()).enumerate().take(u64::BITS as usize);
        slots.filter(|(at, slot)| held >> at & 1 == 1 && *slot >= self.committed).any(
            |(_, slot)| {
                // A no-op that covers several slots is stored with the first one.
                slot >= self.prepared && self.slots.prepare(slot).is_none()
            },
        )
    }

    /// Answers a peer that is stuck, at a limited rate (TR listing 16, obtainOrderingState).
    pub(super) fn order_request(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let request = OrderRequest::parse(message)?;
        if request.from.0 == 0 || self.config.pillar_of(request.from) != self.pillar {
            return Err(Reject::Malformed);
        }
        if request.view > self.view {
            self.hint_stuck(now, out);
            return Ok(());
        }
        let slot = self.config.slot_of(request.from);
        if request.view == self.view && slot > self.committed {
            // The asker is ahead: it has committed slots that this replica has not.
            if self.hint_stuck(now, out) {
                self.ask_peers(out);
            }
        }
        if request.view < self.view || slot < self.slots.base() {
            out.control(ToControl::PeerBehind(from));
        }
        let (is_current, leader) = (request.view == self.view, self.config.leader(self.view));
        if is_current && from == leader && self.lacks(slot, request.held) {
            // Links keep the order, so what it proposed before it asked was lost.
            let due = |at: Time| now.since_us(at) >= self.config.resend_us;
            if self.asked_back.is_none_or(due) {
                self.asked_back = Some(now);
                self.ask(Destination::Peer(from), out);
            }
        }
        let answered = self.answered.get_mut(usize::from(from.0)).ok_or(Reject::WrongSender)?;
        if answered.is_some_and(|at| now.since_us(at) < self.config.resend_us / 4) {
            return Err(Reject::Overload);
        }
        *answered = Some(now);
        if request.is_returning {
            self.tell_last_seen(from, out);
        }
        let mut left = ANSWER_BYTES;
        let mut next = slot.max(self.slots.base());
        while let Some(entry) = self.slots.get(next).filter(|e| e.prepare.is_some()) {
            let is_held = is_current
                && next.checked_sub(slot).is_some_and(|at| at < 64 && request.held >> at & 1 == 1);
            let sent = self.send_slot(entry, is_held, Destination::Peer(from), out)
                + self.relay_votes(entry, from, out);
            next = self.last_slot(&entry.prepare.as_ref().expect("filtered").header) + 1;
            left = left.saturating_sub(sent);
            if left == 0 {
                break;
            }
        }
        Ok(())
    }
}
