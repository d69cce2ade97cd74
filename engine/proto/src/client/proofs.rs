//! MACs of requests, several at a time.
//!
//! A single MAC is a chain of rounds that leaves most of the CPU's units idle; [`ClientKey::tags`]
//! makes eight in hardly more time than two. So a record is put into its message with zeros in
//! place of its MAC, and whenever a message ends with eight such records, their MACs are made. The
//! last ones are made in [`ClientCore::outgoing`], without which no message is sent.

use hybster_tss::{ClientKey, RequestKey};

use super::ClientCore;
use super::output::ClientOutput;
use crate::ids::{ReplicaId, RequestNumber};
use crate::wire::REQUEST_MAC;
use crate::wire::RequestTag;
use crate::wire::request::{RequestProof, RequestRef};

/// The last records of a replica's REQUESTS message, which have no MAC yet. Others may only be
/// appended once these have theirs.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Unproved {
    to: usize,
    /// Where the first of them begins.
    start: usize,
    count: usize,
    /// Their slots.
    slots: [u32; ClientKey::SIDE_BY_SIDE],
}

impl ClientCore {
    /// The messages to send, with their destinations. All records in them have their proofs.
    pub fn outgoing<'a>(
        &mut self,
        out: &'a mut ClientOutput,
    ) -> impl Iterator<Item = (ReplicaId, &'a [u8])> + use<'a> {
        self.prove(out);
        for (replica, message) in out.filled() {
            self.handed[usize::from(replica.0)] += message.len() as u64;
        }
        out.filled()
    }

    /// Whether proofs are made later, together. Signatures gain nothing from that.
    #[inline]
    pub(super) fn defers_proofs(&self) -> bool {
        matches!(self.key, RequestKey::Mac(_))
    }

    /// The record of a slot, which begins at `start` and is the last of the message to a replica, has
    /// no MAC yet.
    #[inline]
    pub(super) fn note_unproved(
        &mut self,
        slot: u32,
        to: usize,
        start: usize,
        out: &mut ClientOutput,
    ) {
        if out.unproved.count > 0 && out.unproved.to != to {
            self.prove(out);
        }
        if out.unproved.count == 0 {
            (out.unproved.to, out.unproved.start) = (to, start);
        }
        out.unproved.slots[out.unproved.count] = slot;
        out.unproved.count += 1;
        if out.unproved.count == ClientKey::SIDE_BY_SIDE {
            self.prove(out);
        }
    }

    /// Makes the MACs of the records that have none.
    pub(super) fn prove(&mut self, out: &mut ClientOutput) {
        let Unproved { to, start, count, slots } = out.unproved;
        if count == 0 {
            return;
        }
        out.unproved.count = 0;
        let RequestKey::Mac(key) = &self.key else {
            unreachable!("only MACs are deferred");
        };
        let records = &mut out.messages[to][start..];
        let mut covered: [&[u8]; ClientKey::SIDE_BY_SIDE] = [&[]; ClientKey::SIDE_BY_SIDE];
        let mut ends = [0; ClientKey::SIDE_BY_SIDE];
        let mut numbers = [RequestNumber(0); ClientKey::SIDE_BY_SIDE];
        let (mut rest, mut end) = (&*records, 0);
        let places = covered.iter_mut().zip(&mut ends).zip(&mut numbers);
        for ((covered, at), number) in places.take(count) {
            let (request, behind) = RequestRef::split(rest).expect("this core's own record");
            end += request.record.len();
            (*covered, *at, *number, rest) = (request.covered, end, request.number, behind);
        }
        assert!(rest.is_empty(), "the unproved records are the last ones");
        let tags = key.tags(&covered[..count]);
        for (at, mac) in tags.iter().enumerate().take(count) {
            records[ends[at] - REQUEST_MAC..ends[at]].copy_from_slice(mac);
            let slot = self.table.slot_mut(slots[at]);
            // It may have ended since, and the slot be another's.
            if slot.number == numbers[at] {
                slot.tag = RequestTag::of_proof(RequestProof::Mac(mac));
            }
        }
    }
}
