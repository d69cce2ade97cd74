//! Where two states of one order number differ: a walk down the tree of a peer's checkpoint beside
//! this replica's own, always into the first node that differs, until the page is known.
//!
//! The peer vouched for its root, so what it shows is what it holds. One node is asked for at a time:
//! the walk takes a round trip per level. It changes nothing and only informs the operator, so if the
//! peer does not answer it ends without a notice.

use std::sync::Arc;

use super::Held;
use super::transfer::MAX_PAGES;
use super::tree::{FANOUT, ROOT, RootRecord, TREES, content_digest, node, place, shape};
use crate::ids::ReplicaId;
use crate::notice::{Notice, StatePart};
use crate::output::{Destination, Output, Reject, SendTag};
use crate::time::Time;
use crate::wire::CheckpointId;
use crate::wire::state::{Fetch, Fetched, NodeId};

use hybster_tss::Digest;

/// Nodes asked for at a time.
pub(super) const IN_FLIGHT: usize = 1;
/// How often a node is asked for before the walk is given up.
const TRIES: u32 = 5;

pub(super) struct Comparison {
    peer: ReplicaId,
    theirs: CheckpointId,
    own: Arc<Held>,
    /// Their root record, once it is here.
    record: Option<RootRecord>,
    asked: NodeId,
    /// Of what is asked for.
    digest: Digest,
    asked_at: Time,
    tries: u32,
}

/// What an answer led to.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It was not for this comparison.
    Foreign,
    /// The next node was asked for.
    Goes,
    /// It is over.
    Done,
}

impl Comparison {
    /// Begins to compare.
    pub(super) fn begin(
        peer: ReplicaId,
        theirs: CheckpointId,
        own: Arc<Held>,
        now: Time,
        out: &mut Output,
    ) -> Self {
        let mut comparison = Self {
            peer,
            theirs,
            own,
            record: None,
            asked: ROOT,
            digest: theirs.digest,
            asked_at: now,
            tries: 0,
        };
        comparison.ask(now, out);
        comparison
    }

    /// The checkpoint that is compared.
    pub(super) fn id(&self) -> CheckpointId {
        self.theirs
    }

    /// This replica's checkpoint.
    pub(super) fn own(&self) -> &Arc<Held> {
        &self.own
    }

    /// When [`Comparison::tick`] wants to be called.
    pub(super) fn deadline(&self, resend_us: u64) -> Time {
        self.asked_at.after_us(resend_us)
    }

    /// Asks again; false if that was tried often enough.
    pub(super) fn tick(&mut self, now: Time, resend_us: u64, out: &mut Output) -> bool {
        if self.deadline(resend_us) > now {
            return true;
        }
        let goes = self.tries < TRIES;
        if goes {
            self.ask(now, out);
        }
        goes
    }

    fn ask(&mut self, now: Time, out: &mut Output) {
        (self.asked_at, self.tries) = (now, self.tries + 1);
        let message = Fetch { order: self.theirs.order, nodes: vec![self.asked] }.encode();
        out.send(Destination::Peer(self.peer), message, SendTag::Transient);
    }

    /// A peer answered somebody's question.
    pub(super) fn arrived(
        &mut self,
        from: ReplicaId,
        fetched: &Fetched,
        now: Time,
        out: &mut Output,
    ) -> Step {
        let is_asked =
            from == self.peer && fetched.order == self.theirs.order && fetched.node == self.asked;
        if !is_asked {
            return Step::Foreign;
        }
        let Some(content) = &fetched.content else { return Step::Done };
        if content_digest(self.asked, content) != self.digest {
            // A transfer may have asked it for the same node of another state.
            return Step::Foreign;
        }
        match self.next(content) {
            Ok(Next::Node(at, digest)) => {
                (self.asked, self.digest, self.tries) = (at, digest, 0);
                self.ask(now, out);
                Step::Goes
            }
            Ok(Next::Page(part, page)) => {
                let (order, peer) = (self.theirs.order, self.peer);
                out.notice(|| Notice::FirstPageThatDiffers { order, peer, part, page });
                Step::Done
            }
            Err(_) => Step::Done,
        }
    }

    fn next(&mut self, content: &[u8]) -> Result<Next, Reject> {
        if self.asked == ROOT {
            let theirs = RootRecord::parse(content)?;
            if theirs.pages.iter().any(|pages| *pages > MAX_PAGES) {
                return Err(Reject::Malformed);
            }
            self.record = Some(theirs);
            let own = self.own.record();
            // The service's pages first: what it does differently shows in its results, too.
            let differs = |tree: &usize| {
                (theirs.pages[*tree], theirs.roots[*tree]) != (own.pages[*tree], own.roots[*tree])
            };
            let tree = (0..TREES).rev().find(differs).ok_or(Reject::Malformed)?;
            if theirs.pages[tree] == 0 {
                return Ok(Next::Page(StatePart::of(tree), 0));
            }
            let top = shape(theirs.pages[tree]).len() as u8 - 1;
            return Ok(Next::at(node(tree, top, 0), theirs.roots[tree]));
        }
        let (tree, level) = place(self.asked);
        let pages = self.record.ok_or(Reject::Irrelevant)?.pages[tree];
        let first = self.asked.index * FANOUT as u64;
        // A faulty peer may have made any tree.
        let count = (shape(pages)[usize::from(level) - 1] - first).min(FANOUT as u64);
        if content.len() != count as usize * size_of::<Digest>() {
            return Err(Reject::Malformed);
        }
        for (index, digest) in (first..).zip(content.chunks_exact(size_of::<Digest>())) {
            let digest = Digest(digest.try_into().expect("chunks have this length"));
            if self.own.trees[tree].digest(level - 1, index) != Some(digest) {
                return Ok(Next::at(node(tree, level - 1, index), digest));
            }
        }
        // All that they have is the same: this replica has more.
        Ok(Next::Page(StatePart::of(tree), pages))
    }
}

enum Next {
    Node(NodeId, Digest),
    Page(StatePart, u64),
}

impl Next {
    /// Where to go on: a page needs no further look.
    fn at(node: NodeId, digest: Digest) -> Self {
        match place(node) {
            (tree, 0) => Self::Page(StatePart::of(tree), node.index),
            _ => Self::Node(node, digest),
        }
    }
}

impl StatePart {
    fn of(tree: usize) -> Self {
        if tree == super::BOOKKEEPING { Self::Sessions } else { Self::Service }
    }
}
