//! MACs of requests, several at a time.
//!
//! A single MAC is a chain of rounds that leaves most of the CPU's units idle; [`ClientKey::tags`]
//! makes eight in hardly more time than two. So a record is put into its message with zeros in
//! place of its MAC, and whenever a message ends with eight such records, their MACs are made. The
//! last ones are made in [`ClientCore::outgoing`], without which no message is sent.

use hybster_tss::{ClientKey, RequestKey};

use super::ClientCore;
use super::output::ClientOutput;
use crate::ids::ReplicaId;
use crate::wire::REQUEST_MAC;
use crate::wire::request::RequestRef;

/// The last records of a replica's REQUESTS message, which have no MAC yet. Others may only be
/// appended once these have theirs.
#[derive(Debug, Default)]
pub(super) struct Unproved {
    to: usize,
    /// Where the first of them begins.
    start: usize,
    count: usize,
}

impl ClientCore {
    /// The messages to send, with their destinations. All records in them have their proofs.
    pub fn outgoing<'a>(
        &self,
        out: &'a mut ClientOutput,
    ) -> impl Iterator<Item = (ReplicaId, &'a [u8])> {
        self.prove(out);
        out.filled()
    }

    /// Whether proofs are made later, together. Signatures gain nothing from that.
    #[inline]
    pub(super) fn defers_proofs(&self) -> bool {
        matches!(self.key, RequestKey::Mac(_))
    }

    /// The record that begins at `start`, the last of the message to a replica, has no MAC yet.
    #[inline]
    pub(super) fn note_unproved(&self, to: usize, start: usize, out: &mut ClientOutput) {
        if out.unproved.count > 0 && out.unproved.to != to {
            self.prove(out);
        }
        if out.unproved.count == 0 {
            out.unproved = Unproved { to, start, count: 0 };
        }
        out.unproved.count += 1;
        if out.unproved.count == ClientKey::SIDE_BY_SIDE {
            self.prove(out);
        }
    }

    /// Makes the MACs of the records that have none.
    pub(super) fn prove(&self, out: &mut ClientOutput) {
        let Unproved { to, start, count } = std::mem::take(&mut out.unproved);
        if count == 0 {
            return;
        }
        let RequestKey::Mac(key) = &self.key else {
            unreachable!("only MACs are deferred");
        };
        let records = &mut out.messages[to][start..];
        let mut covered: [&[u8]; ClientKey::SIDE_BY_SIDE] = [&[]; ClientKey::SIDE_BY_SIDE];
        let mut ends = [0; ClientKey::SIDE_BY_SIDE];
        let (mut rest, mut end) = (&*records, 0);
        for (covered, at) in covered.iter_mut().zip(&mut ends).take(count) {
            let (request, behind) = RequestRef::split(rest).expect("this core's own record");
            end += request.record.len();
            (*covered, *at, rest) = (request.covered, end, behind);
        }
        assert!(rest.is_empty(), "the unproved records are the last ones");
        let tags = key.tags(&covered[..count]);
        for (tag, end) in tags.iter().zip(ends).take(count) {
            records[end - REQUEST_MAC..end].copy_from_slice(tag);
        }
    }
}
