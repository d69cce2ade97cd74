//! A state transfer: walks the Merkle tree of a certified checkpoint from the root, fetches what
//! differs from this replica's latest checkpoint, and checks every byte against its digest.
//!
//! Any replica may answer, and a single correct holder is enough. What was fetched for one
//! checkpoint is used again for the next, and the next one is compared with an installed checkpoint.
//! So each transfer under load costs what changed during the one before: they become shorter until
//! execution goes on by itself.

use bytes::Bytes;
use hybster_tss::Digest;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::tree::{FANOUT, ROOT, RootRecord, TREES, content_digest, node, place, shape};
use super::{Held, TransferredPages, TransferredState};
use crate::ids::ReplicaId;
use crate::mutants::{self, Mutant};
use crate::output::{Destination, Output, Reject, SendTag};
use crate::time::{Time, earliest};
use crate::wire::CheckpointId;
use crate::wire::state::{Fetch, Fetched, NodeId};

/// Nodes asked for and not answered at a time.
pub(super) const IN_FLIGHT: usize = 256;
/// Nodes that one FETCH asks for.
const PER_FETCH: usize = 32;
/// Resend intervals for which a peer that did not answer is not asked, if there are others.
const SILENT: u64 = 8;
/// Resend intervals without progress after which a transfer begins again.
const PATIENCE: u64 = 4;
/// Pages that a checkpoint may have.
pub(super) const MAX_PAGES: u64 = 1 << 32;

struct Asked {
    digest: Digest,
    peer: ReplicaId,
    at: Time,
}

/// Fetched pages by index, with their digests.
pub(super) type Fetches = [BTreeMap<u64, (Digest, Bytes)>; TREES];

pub(super) struct Transfer {
    id: CheckpointId,
    peers: Vec<ReplicaId>,
    /// Peers that do not hold the checkpoint, or sent wrong content of it.
    useless: Vec<(ReplicaId, Time)>,
    /// Peers that did not answer in time. They are asked again now and then, and all of them if no
    /// other peer is left: the only holder must get its turn, however many are dead.
    silent: Vec<(ReplicaId, Time)>,
    turn: usize,
    /// This replica's checkpoint that the fetched one is compared with.
    reference: Option<Arc<Held>>,
    /// This replica's state diverged, so nothing of it may be reused.
    whole: bool,
    /// Content that was fetched for an earlier checkpoint and may be of use again.
    earlier: Fetches,
    record: Option<RootRecord>,
    wanted: VecDeque<(NodeId, Digest)>,
    asked: BTreeMap<NodeId, Asked>,
    /// Once nothing is wanted or asked for, all other pages are as in the reference.
    fetched: Fetches,
    next: Option<CheckpointId>,
    /// Peers that may be faulty: f.
    faults: usize,
    /// When certified content came that cannot be used: f+1 replicas are faulty.
    unusable: Option<Time>,
    /// When something useful arrived last.
    progressed: Option<Time>,
}

impl Transfer {
    /// `earlier`: a transfer that this one takes the place of.
    pub(super) fn new(
        id: CheckpointId,
        peers: Vec<ReplicaId>,
        faults: u16,
        reference: Option<Arc<Held>>,
        whole: bool,
        earlier: Option<Self>,
    ) -> Self {
        let (mut silent, mut turn) = (Vec::new(), id.order.0 as usize);
        let earlier = earlier.map(|mut earlier| {
            (silent, turn) = (std::mem::take(&mut earlier.silent), earlier.turn);
            earlier.into_fetches()
        });
        Self {
            id,
            peers,
            useless: Vec::new(),
            silent,
            turn,
            reference: reference.filter(|_| !whole),
            whole,
            earlier: earlier.unwrap_or_default(),
            record: None,
            wanted: VecDeque::from([(ROOT, id.digest)]),
            asked: BTreeMap::new(),
            fetched: Default::default(),
            next: None,
            faults: usize::from(faults),
            unusable: None,
            progressed: None,
        }
    }

    pub(super) fn id(&self) -> CheckpointId {
        self.id
    }

    /// Whether the checkpoint seems to be out of reach: no peer holds it, or a correct one has
    /// discarded it and a newer one is known, or nothing comes any more.
    ///
    /// f of those that do not hold it may be liars: if they were believed, a transfer would begin again
    /// at each checkpoint, and never end if it takes longer than from one to the next.
    pub(super) fn is_stalled(&self, now: Time, resend_us: u64) -> bool {
        let discarded = self.next.is_some() && self.useless.len() > self.faults;
        let is_unusable = self.next.is_some() && self.unusable.is_some();
        let is_held = self.useless.len() < self.peers.len();
        self.is_silent(now, resend_us) || discarded || is_unusable || !is_held
    }

    /// Whether nothing useful has come for long.
    pub(super) fn is_silent(&self, now: Time, resend_us: u64) -> bool {
        self.progressed.is_some_and(|at| now.since_us(at) >= PATIENCE * resend_us)
    }

    /// Asks all peers again for what is missing; what was fetched stays valid.
    pub(super) fn begin_anew(&mut self, now: Time, out: &mut Output) {
        self.useless.clear();
        self.silent.clear();
        self.unusable = None;
        self.progressed = Some(now);
        let asked = std::mem::take(&mut self.asked);
        self.wanted.extend(asked.into_iter().map(|(at, asked)| (at, asked.digest)));
        self.pump(now, out);
    }

    /// A newer checkpoint became stable meanwhile.
    pub(super) fn remember(&mut self, id: CheckpointId) {
        if id.order > self.id.order {
            self.next = Some(id);
        }
    }

    pub(super) fn next_target(&self) -> Option<CheckpointId> {
        self.next
    }

    /// Whether nothing of this replica's state is used, because it diverged.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// What was fetched, for the next transfer: one content of each page at most.
    fn into_fetches(self) -> Fetches {
        let mut fetches = self.earlier;
        for (kept, newer) in fetches.iter_mut().zip(self.fetched) {
            kept.extend(newer);
        }
        fetches
    }

    /// The state, once every page is there.
    pub(super) fn finished(&mut self) -> Option<TransferredState> {
        let record = self.record?;
        if !self.wanted.is_empty() || !self.asked.is_empty() {
            return None;
        }
        let mut collect = |tree: usize| {
            let base = self.reference.as_ref().map(|held| Arc::clone(held.pages(tree)));
            let fetched = std::mem::take(&mut self.fetched[tree]);
            let fetched = fetched.into_iter().map(|(index, (_, content))| (index, content));
            TransferredPages::new(record.pages[tree], base, fetched.collect())
        };
        Some(TransferredState { bookkeeping: collect(0), service: collect(1) })
    }

    pub(super) fn deadline(&self, resend_us: u64) -> Option<Time> {
        let asked = self.asked.values().map(|asked| asked.at.after_us(resend_us)).min();
        let useless = self.useless.iter().map(|(_, at)| at.after_us(PATIENCE * resend_us)).min();
        let unusable = self.unusable.map(|at| at.after_us(PATIENCE * resend_us));
        earliest(earliest(asked, useless), unusable)
    }

    /// Asks others for what was not answered in time.
    pub(super) fn tick(&mut self, now: Time, resend_us: u64, out: &mut Output) {
        self.useless.retain(|(_, at)| now.since_us(*at) < PATIENCE * resend_us);
        self.silent.retain(|(_, at)| now.since_us(*at) < SILENT * resend_us);
        let late: Vec<NodeId> = self
            .asked
            .iter()
            .filter(|(_, asked)| now.since_us(asked.at) >= resend_us)
            .map(|(at, _)| *at)
            .collect();
        for at in late {
            let asked = self.asked.remove(&at).expect("listed above");
            if !self.silent.iter().any(|(peer, _)| *peer == asked.peer) {
                self.silent.push((asked.peer, now));
            }
            self.wanted.push_front((at, asked.digest));
        }
        self.pump(now, out);
    }

    /// Keeps a bounded number of questions under way, spread over the peers.
    pub(super) fn pump(&mut self, now: Time, out: &mut Output) {
        self.progressed.get_or_insert(now);
        if self.unusable.is_some() {
            // Nothing more of this checkpoint is of use.
            return;
        }
        let is_in = |list: &[(ReplicaId, Time)], peer| list.iter().any(|(it, _)| *it == peer);
        let mut useful = self.peers.clone();
        useful.retain(|peer| !is_in(&self.useless, *peer));
        if useful.iter().any(|peer| !is_in(&self.silent, *peer)) {
            useful.retain(|peer| !is_in(&self.silent, *peer));
        }
        if useful.is_empty() {
            return;
        }
        while !self.wanted.is_empty() && self.asked.len() < IN_FLIGHT {
            self.turn = self.turn.wrapping_add(1);
            let peer = useful[self.turn % useful.len()];
            let count = PER_FETCH.min(self.wanted.len()).min(IN_FLIGHT - self.asked.len());
            let nodes: Vec<NodeId> = self
                .wanted
                .drain(..count)
                .map(|(at, digest)| {
                    self.asked.insert(at, Asked { digest, peer, at: now });
                    at
                })
                .collect();
            let message = Fetch { order: self.id.order, nodes }.encode();
            out.send(Destination::Peer(peer), message, SendTag::Transient);
        }
    }

    /// A node or page arrived, or a peer says that it does not hold the checkpoint.
    pub(super) fn arrived(
        &mut self,
        from: ReplicaId,
        fetched: Fetched,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        self.silent.retain(|(peer, _)| *peer != from);
        let at = fetched.node;
        let Some(asked) = self.asked.get(&at) else {
            return Err(Reject::Irrelevant);
        };
        let right = fetched
            .content
            .as_ref()
            .is_some_and(|content| content_digest(at, content) == asked.digest)
            || (mutants::active(Mutant::PageUnchecked) && fetched.content.is_some());
        if !right {
            if asked.peer == from {
                let asked = self.asked.remove(&at).expect("found above");
                self.wanted.push_front((at, asked.digest));
            }
            if !self.useless.iter().any(|(peer, _)| *peer == from) {
                self.useless.push((from, now));
            }
            self.pump(now, out);
            let lied = fetched.content.is_some();
            return if lied { Err(Reject::BadBatch) } else { Ok(()) };
        }
        self.progressed = Some(now);
        let digest = self.asked.remove(&at).expect("found above").digest;
        let content = fetched.content.expect("checked above");
        let installed = self.install(at, digest, content);
        if installed.is_err() {
            // Missing content must not count as complete, and the wait for it must end.
            self.wanted.push_front((at, digest));
            self.unusable = Some(now);
        }
        self.pump(now, out);
        installed
    }

    /// Takes in checked content. The digests certify it, so a fault in it is a fault of f+1
    /// replicas; it is refused all the same, and nothing of it is taken in.
    fn install(&mut self, at: NodeId, digest: Digest, content: Bytes) -> Result<(), Reject> {
        if at == ROOT {
            let record = RootRecord::parse(&content)?;
            if record.order != self.id.order || record.pages.iter().any(|p| *p > MAX_PAGES) {
                return Err(Reject::Malformed);
            }
            self.record = Some(record);
            for tree in 0..TREES {
                if record.pages[tree] > 0 {
                    let top = shape(record.pages[tree]).len() as u8 - 1;
                    self.expect(node(tree, top, 0), record.roots[tree]);
                }
            }
            return Ok(());
        }
        let (tree, level) = place(at);
        if level == 0 {
            // Copied: a slice would keep the whole buffer that it came in.
            let content = Bytes::copy_from_slice(&content);
            self.fetched[tree].insert(at.index, (digest, content));
            return Ok(());
        }
        let widths = shape(self.record.as_ref().ok_or(Reject::Irrelevant)?.pages[tree]);
        let below = widths[usize::from(level) - 1];
        let first = at.index * FANOUT as u64;
        let count = (below - first).min(FANOUT as u64) as usize;
        if content.len() != count * 32 {
            return Err(Reject::Malformed);
        }
        for (child, digest) in content.chunks_exact(32).enumerate() {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(digest);
            self.expect(node(tree, level - 1, first + child as u64), Digest(bytes));
        }
        Ok(())
    }

    /// Stops the process if the transfer is not as its own rules say.
    #[inline]
    pub(super) fn check_invariants(&self) {
        assert!(self.asked.len() <= IN_FLIGHT, "questions under way are bounded");
        let peers = self.peers.len();
        assert!(self.useless.len() <= peers && self.silent.len() <= peers, "peers are told apart");
    }

    /// As after each input, and everything that takes time to look at.
    pub(super) fn check_all_invariants(&self) {
        self.check_invariants();
        let twice = self.wanted.iter().any(|(at, _)| self.asked.contains_key(at));
        assert!(!twice, "what is asked for is not wanted again");
        for (tree, fetched) in self.fetched.iter().enumerate() {
            let pages = self.record.map_or(0, |record| record.pages[tree]);
            let last = fetched.last_key_value().map_or(0, |(index, _)| index + 1);
            assert!(last <= pages, "pages are those of the checkpoint");
        }
    }

    /// A node with this digest belongs to the checkpoint: take it from what is here, or ask.
    fn expect(&mut self, at: NodeId, digest: Digest) {
        let (tree, level) = place(at);
        let of_reference = |held: &Arc<Held>| held.trees[tree].digest(level, at.index);
        if self.reference.as_ref().and_then(of_reference) == Some(digest) {
            // Equal digests mean equal subtrees.
            return;
        }
        if level == 0
            && let Some(page) = self.earlier[tree].remove(&at.index)
            && page.0 == digest
        {
            self.fetched[tree].insert(at.index, page);
            return;
        }
        self.wanted.push_back((at, digest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OrderNumber;
    use crate::noticed::noticed;

    fn transfer() -> Transfer {
        let id = CheckpointId { order: OrderNumber(256), digest: Digest([1; 32]) };
        Transfer::new(id, vec![ReplicaId(1), ReplicaId(2)], 1, None, false, None)
    }

    /// A transfer of a checkpoint whose root has this content, and what it has asked for.
    fn of_root(content: &'static [u8]) -> (Transfer, Output, Fetched) {
        let content = Bytes::from_static(content);
        let id = CheckpointId { order: OrderNumber(256), digest: content_digest(ROOT, &content) };
        let peers = vec![ReplicaId(1), ReplicaId(2)];
        let (mut transfer, mut out) =
            (Transfer::new(id, peers, 1, None, false, None), Output::default());
        transfer.pump(Time(1), &mut out);
        (transfer, out, Fetched { order: id.order, node: ROOT, content: Some(content) })
    }

    #[test]
    fn a_certified_root_that_cannot_be_read_ends_the_transfer_for_the_next_checkpoint() {
        const RESEND_US: u64 = 100;
        let (mut transfer, mut out, root) = of_root(b"no root");
        let taken = transfer.arrived(ReplicaId(1), root, Time(2), &mut out);
        assert_eq!(taken, Err(Reject::Malformed));
        assert!(transfer.finished().is_none());
        // It is looked at again, and asked for again when nothing better is known.
        assert_eq!(transfer.deadline(RESEND_US), Some(Time(2 + PATIENCE * RESEND_US)));
        assert!(!transfer.is_stalled(Time(3), RESEND_US));
        assert!(transfer.is_silent(Time(2 + PATIENCE * RESEND_US), RESEND_US));
        let next = CheckpointId { order: OrderNumber(512), digest: Digest([2; 32]) };
        transfer.remember(next);
        assert!(transfer.is_stalled(Time(3), RESEND_US));
        transfer.check_all_invariants();
        let sent = out.network.len();
        transfer.begin_anew(Time(900), &mut out);
        assert_eq!(out.network.len(), sent + 1);
    }

    #[test]
    fn one_peer_that_holds_nothing_does_not_end_a_transfer() {
        let (mut transfer, mut out, root) = of_root(b"no root");
        transfer.remember(CheckpointId { order: OrderNumber(512), digest: Digest([2; 32]) });
        let none = Fetched { content: None, ..root };
        for (peer, stalled) in [(1, false), (1, false), (2, true)] {
            transfer.arrived(ReplicaId(peer), none.clone(), Time(2), &mut out).unwrap();
            assert_eq!(transfer.is_stalled(Time(3), 100), stalled);
        }
    }

    fn asked(index: u64) -> (NodeId, Asked) {
        let asked = Asked { digest: Digest::default(), peer: ReplicaId(1), at: Time(1) };
        (NodeId { level: 0, index }, asked)
    }

    noticed! {
        transfer(), |it| it.check_all_invariants();
        too_many_questions: "under way", |it| it.asked.extend((0..257).map(asked));
        a_peer_counted_twice: "told apart", |it| {
            it.silent = vec![(ReplicaId(1), Time(1)); 3];
        };
        a_question_put_twice: "wanted again", |it| {
            it.asked.insert(ROOT, asked(0).1);
        };
        a_page_of_no_checkpoint: "those of the checkpoint", |it| {
            it.fetched[0].insert(0, (Digest::default(), Bytes::new()));
        };
    }
}
