//! The state stage: digests snapshots, keeps those that others may fetch, and transfers the state
//! of a stable checkpoint when execution cannot reach it (TR listings 18 and 20).
//!
//! Digesting goes in slices ([`StateStage::work`]), off the execution stage; pages that did not
//! change since the last checkpoint are not read again.

mod comparison;
mod invariants;
mod named;
mod saving;
mod transfer;
mod tree;
mod vouching;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hybster_tss::Digest;

use crate::config::GroupConfig;
use crate::ids::{OrderNumber, ReplicaId};
use crate::membership::Ending;
use crate::output::{
    Answerer, Destination, Output, Reject, SendTag, TakenSnapshot, ToControl, ToExecution,
    ToPillar, ToState,
};
use crate::service::Snapshot;
use crate::shared::answers::Answers;
use crate::time::{Time, earliest};
use crate::trace::TraceEvent;
use crate::wire::state::{Fetch, Fetched, NodeId};
use crate::wire::{CheckpointId, kind};

pub use crate::transferred::{TransferredPages, TransferredState};
use comparison::{Comparison, Step};
pub use named::{checkpoint_id, page_digest};
use transfer::Transfer;
use tree::{FANOUT, Group, ROOT, ROOT_LEVEL, RootRecord, TREES, Tree, content_digest, node, place};
use vouching::Vouching;

/// Checkpoints before the stable one that are kept for peers that still fetch them.
const KEPT_BEFORE_STABLE: usize = 1;
/// Snapshots that a state stage has at most before execution waits for it: those of two windows, the stable one, one before it,
/// one that is fetched from and one on its way. A stage that has handled all that it was sent has fewer, those
/// of one window and three, so execution does not wait for ever.
pub(crate) fn most_snapshots(config: &GroupConfig) -> usize {
    2 * (config.window / config.checkpoint_interval) as usize + 3
}

/// A checkpoint that was fetched from within this time is kept, in microseconds.
const PIN_US: u64 = 1_000_000;
/// The tree of the replica's own pages.
const BOOKKEEPING: usize = 0;
/// Nodes that one peer may ask for at a time: as many as it has under way in a transfer, and
/// in a comparison.
pub(crate) const FETCHES_IN_FLIGHT: usize = transfer::IN_FLIGHT + comparison::IN_FLIGHT;

/// A digested snapshot.
struct Held {
    taken: TakenSnapshot,
    id: CheckpointId,
    trees: [Tree; TREES],
}

impl Held {
    fn pages(&self, tree: usize) -> &Arc<dyn Snapshot> {
        pages_of(&self.taken, tree)
    }

    fn record(&self) -> RootRecord {
        root_record(&self.taken, &self.trees)
    }

    /// How the epoch ends, as the state has it.
    fn ending(&self) -> Option<Ending> {
        crate::execution::change_in(&self.taken.bookkeeping.page(0)).map(|change| change.ending)
    }

    fn content(&self, at: NodeId) -> Option<bytes::Bytes> {
        if at == ROOT {
            return Some(self.record().encode());
        }
        match place(at) {
            (tree, 0) => {
                (at.index < self.pages(tree).page_count()).then(|| self.pages(tree).page(at.index))
            }
            (_, ROOT_LEVEL) => None,
            (tree, level) => self.trees[tree].children(level, at.index),
        }
    }
}

fn pages_of(taken: &TakenSnapshot, tree: usize) -> &Arc<dyn Snapshot> {
    if tree == BOOKKEEPING { &taken.bookkeeping } else { &taken.service }
}

fn root_record(taken: &TakenSnapshot, trees: &[Tree; TREES]) -> RootRecord {
    RootRecord {
        order: taken.order,
        pages: [taken.bookkeeping.page_count(), taken.service.page_count()],
        roots: [trees[0].root(), trees[1].root()],
    }
}

/// A snapshot that is being digested.
struct Job {
    taken: TakenSnapshot,
    groups: [Vec<Arc<Group>>; TREES],
    /// Of the group that is being digested.
    digests: Vec<Digest>,
    versions: Vec<Option<u64>>,
}

/// A transferred state on its way into the execution stage, which may be busy for long.
struct Handed {
    order: OrderNumber,
    /// It replaces a state that diverged.
    whole: bool,
}

/// The state stage of a replica.
pub struct StateStage {
    config: Arc<GroupConfig>,
    id: ReplicaId,
    jobs: VecDeque<Job>,
    held: BTreeMap<OrderNumber, Arc<Held>>,
    /// When a held checkpoint was asked for last.
    fetched: BTreeMap<OrderNumber, Time>,
    stable: OrderNumber,
    /// The last digested checkpoint: what the next one is compared with.
    latest: Option<Arc<Held>>,
    transfer: Option<Transfer>,
    /// The state that was handed to the execution stage and is not installed yet.
    handed: Option<Handed>,
    /// A transfer that starts once the installed state is digested, since it is compared with that.
    deferred: Option<CheckpointId>,
    transfers: u64,
    /// The search for the first page in which a peer's state differs.
    comparison: Option<Comparison>,
    /// What peers have asked for.
    answers: Answers<(OrderNumber, NodeId)>,
    vouching: Vouching,
    /// A state was installed since a checkpoint was handed out to be saved.
    installed_since_saved: bool,
    /// The state that the replica began with, until it is digested.
    restored: Option<OrderNumber>,
    /// What proves the last stable checkpoints, the latest last. Of these one is saved, mostly the latest.
    certificates: VecDeque<(CheckpointId, Arc<[u8]>)>,
}

impl StateStage {
    /// The state stage of a replica.
    #[must_use]
    pub fn new(config: Arc<GroupConfig>, id: ReplicaId) -> Self {
        Self {
            answers: Answers::new(config.replicas, FETCHES_IN_FLIGHT),
            config,
            id,
            jobs: VecDeque::new(),
            held: BTreeMap::new(),
            fetched: BTreeMap::new(),
            stable: OrderNumber(0),
            latest: None,
            transfer: None,
            handed: None,
            deferred: None,
            transfers: 0,
            comparison: None,
            vouching: Vouching::default(),
            installed_since_saved: false,
            restored: None,
            certificates: VecDeque::new(),
        }
    }

    /// The state stage of a replica that begins with a durable checkpoint.
    #[must_use]
    pub fn recover(config: Arc<GroupConfig>, id: ReplicaId, durable: OrderNumber) -> Self {
        let mut it = Self::new(config, id);
        it.vouching.durable(durable);
        it.restored = (durable > OrderNumber(0)).then_some(durable);
        it
    }

    /// States transferred so far.
    #[must_use]
    pub fn transfers(&self) -> u64 {
        self.transfers
    }

    /// Snapshots held or waiting to be digested, for oracles on bounded memory.
    #[must_use]
    pub fn snapshots(&self) -> usize {
        self.jobs.len() + self.held.len()
    }

    /// Handles an input.
    pub fn handle(&mut self, input: ToState, now: Time, out: &mut Output) {
        match input {
            ToState::Durable(order) => {
                for id in self.vouching.durable(order) {
                    self.vouch(id, out);
                }
            }
            ToState::Taken(taken) => {
                let dropped = self.taken(taken, out);
                dropped_snapshots(dropped, out);
            }
            ToState::Stable { id, certificate } => {
                self.keep_certificate(id, certificate);
                let before = self.snapshots();
                self.stable(id, now);
                dropped_snapshots(before - self.snapshots(), out);
                self.save(id, false, out);
            }
            ToState::Transfer { id, whole } => self.start_transfer(id, whole, now, out),
            ToState::Compare { peer, theirs } => self.compare(peer, theirs, now, out),
            ToState::Message { from, message } => {
                let result = match crate::wire::kind_of(&message) {
                    kind::FETCH => self.fetch(from, &message, now, out),
                    kind::FETCHED => self.fetched(from, &message, now, out),
                    _ => Err(Reject::Malformed),
                };
                if let Err(reason) = result {
                    out.reject(Some(from), &message, reason);
                }
            }
            ToState::AnswersLeft { peer, answers } => {
                self.answers.left(peer, answers);
                self.send_nodes(peer, out);
            }
        }
        self.check_invariants();
    }

    /// Digests up to `budget` pages; returns whether work is left.
    pub fn work(&mut self, now: Time, mut budget: usize, out: &mut Output) -> bool {
        while let Some(job) = self.jobs.front_mut() {
            if budget == 0 {
                return true;
            }
            let old = self.latest.as_deref();
            if job.advance(old, &mut budget) {
                let job = self.jobs.pop_front().expect("it is the front");
                self.complete(job, now, out);
            }
        }
        false
    }

    /// To be called when [`StateStage::deadline`] has passed.
    pub fn tick(&mut self, now: Time, out: &mut Output) {
        if let Some(transfer) = &mut self.transfer {
            transfer.tick(now, self.config.resend_us, out);
            self.leave_stalled(now, out);
        }
        let resend_us = self.config.resend_us;
        self.comparison.take_if(|comparison| !comparison.tick(now, resend_us, out));
        self.check_invariants();
    }

    /// A transfer without progress gives way to one for a newer checkpoint, if one is known.
    fn leave_stalled(&mut self, now: Time, out: &mut Output) {
        let stalled = self.transfer.as_mut().filter(|t| t.is_stalled(now, self.config.resend_us));
        let Some(transfer) = stalled else { return };
        let (next, whole) = (transfer.next_target(), transfer.is_whole());
        if let Some(next) = next {
            self.restart_transfer(next, whole, now, out);
        } else if transfer.is_silent(now, self.config.resend_us) {
            transfer.begin_anew(now, out);
        } else {
            // All peers said that they do not hold it: they are asked again when that was long ago.
            return;
        }
        out.control(ToControl::Stuck);
    }

    /// When [`StateStage::tick`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let resend_us = self.config.resend_us;
        let transfer = self.transfer.as_ref().and_then(|it| it.deadline(resend_us));
        earliest(transfer, self.comparison.as_ref().map(|it| it.deadline(resend_us)))
    }

    /// Returns how many others are dropped for it.
    fn taken(&mut self, taken: TakenSnapshot, out: &Output) -> usize {
        let before = self.snapshots();
        if taken.installed && out.logging {
            self.vouching.installed(taken.order);
        }
        if taken.installed {
            // Snapshots that are not digested yet belong to the state that was replaced.
            self.jobs.clear();
        }
        let dropped = before - self.snapshots();
        self.note_installed(&taken);
        // Execution reached it by itself, or has just installed the transferred state.
        self.drop_transfer_to(taken.order);
        let rises = self.jobs.back().is_none_or(|last| last.taken.order < taken.order);
        assert!(rises, "snapshots are taken in the order of execution");
        self.jobs.push_back(Job::new(taken));
        dropped
    }

    /// Execution has installed what it was handed, or has reached it by itself and ignores it.
    fn note_installed(&mut self, taken: &TakenSnapshot) {
        let Some(handed) = &self.handed else { return };
        let (order, whole) = (handed.order, handed.whole);
        let is_installed = taken.installed && taken.order == order;
        if is_installed && whole {
            // Of the state that diverged, equal versions do not mean equal pages.
            self.latest = None;
        }
        if is_installed || (!whole && taken.order >= order) {
            self.handed = None;
        }
    }

    /// Ends a transfer that execution does not need any more. A state that diverged is replaced
    /// wherever execution got with it.
    fn drop_transfer_to(&mut self, order: OrderNumber) {
        self.transfer.take_if(|transfer| transfer.id().order <= order && !transfer.is_whole());
    }

    fn complete(&mut self, job: Job, now: Time, out: &mut Output) {
        let held = job.finish(self.latest.as_deref());
        let (id, is_installed) = (held.id, held.taken.installed);
        let held = Arc::new(held);
        self.drop_transfer_to(id.order);
        self.latest = Some(Arc::clone(&held));
        if self.held.insert(id.order, held).is_some() {
            self.forget_compared();
            dropped_snapshots(1, out);
        }
        out.trace(|| TraceEvent::CheckpointTaken(id));
        out.control(ToControl::CheckpointTaken(id));
        if is_installed {
            let is_there = self.restored.take() == Some(id.order);
            self.installed_since_saved = !is_there;
            self.save(id, is_there, out);
        }
        if self.vouching.may_vouch(id) {
            self.vouch(id, out);
        }
        if !self.is_installing()
            && let Some(next) = self.deferred.take()
            && next.order > id.order
        {
            self.start_transfer(next, false, now, out);
        }
        if cfg!(debug_assertions) {
            self.check_all_invariants();
        }
    }

    fn vouch(&self, id: CheckpointId, out: &mut Output) {
        // The state that an epoch begins with is certified in the one before, and says how that one ended: vouched for in this
        // one, it would prove that this one ends there, too.
        if id.order <= self.config.membership.beginning.order {
            return;
        }
        let held = self.held.get(&id.order);
        let ending = held.and_then(|held| Held::ending(held)).map(Box::new);
        let input = ToPillar::CertifyCheckpoint { id, ending };
        out.pillar(self.config.checkpoint_pillar(id.order), input);
    }

    /// The pages of the last checkpoint that is held: what the replica begins the next epoch with.
    #[must_use]
    pub fn last_held(&self) -> Option<(CheckpointId, TransferredState)> {
        let held = self.latest.as_ref().or_else(|| self.held.values().next_back())?;
        let pages = |of: &Arc<dyn Snapshot>| {
            crate::service::Pages((0..of.page_count()).map(|at| of.page(at)).collect()).into()
        };
        let (bookkeeping, service) = (pages(&held.taken.bookkeeping), pages(&held.taken.service));
        Some((held.id, TransferredState { bookkeeping, service }))
    }

    fn is_digesting_installed(&self) -> bool {
        self.jobs.iter().any(|job| job.taken.installed)
    }

    /// Whether a transferred state is not what the next one can be compared with yet.
    fn is_installing(&self) -> bool {
        self.handed.is_some() || self.is_digesting_installed()
    }

    /// Drops checkpoints that no peer will fetch any more.
    fn stable(&mut self, id: CheckpointId, now: Time) {
        self.stable = self.stable.max(id.order);
        let stable = self.stable;
        // An installed state is kept: later checkpoints are compared with it.
        let first = usize::from(self.is_digesting_installed());
        while self.jobs.len() > first + 1 && self.jobs[first].taken.order < stable {
            self.jobs.remove(first);
        }
        self.fetched.retain(|_, at| now.since_us(*at) < PIN_US);
        let older: Vec<OrderNumber> = self.held.range(..stable).map(|(o, _)| *o).collect();
        let kept = older.len().saturating_sub(KEPT_BEFORE_STABLE);
        // Peers that fetch from it keep at most one more than the rule says.
        let pinned = older[..kept].iter().rev().find(|o| self.fetched.contains_key(o)).copied();
        for order in &older[..kept] {
            if Some(*order) != pinned {
                self.held.remove(order);
            }
        }
        self.forget_compared();
    }

    /// A comparison keeps no checkpoint that is not held otherwise.
    fn forget_compared(&mut self) {
        let held = &self.held;
        let is_held = |it: &Comparison| {
            held.get(&it.id().order).is_some_and(|held| Arc::ptr_eq(held, it.own()))
        };
        self.comparison.take_if(|comparison| !is_held(comparison));
    }

    /// Answers a FETCH with what is held.
    fn fetch(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let fetch = Fetch::parse(message)?;
        if self.held.contains_key(&fetch.order) {
            self.fetched.insert(fetch.order, now);
        }
        // A peer that fetches another checkpoint has given up the one before.
        self.answers.forget(from, |(order, _)| *order == fetch.order);
        let mut has_room = true;
        for at in fetch.nodes {
            has_room &= self.answers.ask(from, (fetch.order, at));
        }
        self.send_nodes(from, out);
        if has_room { Ok(()) } else { Err(Reject::Overload) }
    }

    /// Answers what a peer has asked for, as far as there is room.
    fn send_nodes(&mut self, to: ReplicaId, out: &mut Output) {
        while let Some((order, node)) = self.answers.next(to) {
            let content = self.held.get(&order).and_then(|held| held.content(node));
            let answer = Fetched { order, node, content }.encode();
            self.answers.answered(to, (order, node), answer.len());
            out.send(Destination::Peer(to), answer, SendTag::Answer(Answerer::State));
        }
    }

    fn start_transfer(&mut self, id: CheckpointId, whole: bool, now: Time, out: &mut Output) {
        // A checkpoint taken here with that digest needs no transfer.
        if !whole && self.held.get(&id.order).is_some_and(|held| held.id == id) {
            return;
        }
        // It is not fetched again while it waits for a busy execution stage. A state that diverged waits
        // for nothing but the state that replaces it.
        let is_replaced = self.handed.as_ref().is_some_and(|handed| handed.whole);
        let waits = if whole { is_replaced } else { self.is_installing() };
        if waits {
            if self.deferred.is_none_or(|deferred| deferred.order < id.order) {
                self.deferred = Some(id);
            }
            return;
        }
        let is_running = self.transfer.as_ref().is_some_and(Transfer::is_whole);
        if whole && !is_running {
            // It goes the same way as the state that follows, and so arrives before it.
            out.execution(ToExecution::Halt);
        }
        let resend_us = self.config.resend_us;
        match &mut self.transfer {
            Some(running) if whole && !running.is_whole() => {
                self.restart_transfer(id, whole, now, out);
            }
            // A transfer with progress is finished first: the next one starts from what it fetched.
            Some(running) if !running.is_stalled(now, resend_us) => running.remember(id),
            Some(running) if running.id().order > id.order => {}
            _ => self.restart_transfer(id, whole, now, out),
        }
    }

    /// Looks for the first page in which a peer's state differs, one peer at a time. A peer takes a
    /// question about another checkpoint as the end of a transfer, so it is not asked during one.
    fn compare(&mut self, peer: ReplicaId, theirs: CheckpointId, now: Time, out: &mut Output) {
        let transfers_other = self.transfer.as_ref().is_some_and(|t| t.id().order != theirs.order);
        let Some(own) = self.held.get(&theirs.order) else { return };
        if self.comparison.is_none() && !transfers_other && own.id != theirs {
            let own = Arc::clone(own);
            self.comparison = Some(Comparison::begin(peer, theirs, own, now, out));
        }
    }

    fn restart_transfer(&mut self, id: CheckpointId, whole: bool, now: Time, out: &mut Output) {
        let earlier = self.transfer.take();
        self.comparison.take_if(|comparison| comparison.id().order != id.order);
        let peers = self.config.all_replicas().filter(|r| *r != self.id).collect();
        let mut transfer =
            Transfer::new(id, peers, self.config.faults, self.latest.clone(), whole, earlier);
        transfer.pump(now, out);
        self.transfer = Some(transfer);
    }

    fn fetched(
        &mut self,
        from: ReplicaId,
        message: &bytes::Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let fetched = Fetched::parse(message)?;
        let step = self.comparison.as_mut().map(|it| it.arrived(from, &fetched, now, out));
        if step == Some(Step::Done) {
            self.comparison = None;
        }
        let is_for_comparison = step.is_some_and(|step| step != Step::Foreign);
        let wants = |transfer: &Transfer| transfer.id().order == fetched.order;
        if is_for_comparison && !self.transfer.as_ref().is_some_and(wants) {
            return Ok(());
        }
        let Some(transfer) = &mut self.transfer else {
            return Err(Reject::Irrelevant);
        };
        if fetched.order != transfer.id().order {
            return Err(Reject::Irrelevant);
        }
        match transfer.arrived(from, fetched, now, out) {
            // Only the comparison waited for it.
            Err(Reject::Irrelevant) if is_for_comparison => return Ok(()),
            other => other?,
        }
        if let Some(state) = transfer.finished() {
            let (id, whole) = (transfer.id(), transfer.is_whole());
            if whole {
                // If this replica's state diverged, equal versions do not mean equal pages.
                self.latest = None;
                dropped_snapshots(self.jobs.len(), out);
                self.jobs.clear();
            }
            self.transfers += 1;
            self.handed = Some(Handed { order: id.order, whole });
            self.transfer = None;
            out.execution(ToExecution::Install { id, state: Arc::new(state) });
        } else {
            self.leave_stalled(now, out);
        }
        Ok(())
    }
}

/// Tells the execution stage that snapshots are gone: it takes no more than these.
fn dropped_snapshots(count: usize, out: &mut Output) {
    if count > 0 {
        out.execution(ToExecution::SnapshotsDropped { count });
    }
}

impl Job {
    fn new(taken: TakenSnapshot) -> Self {
        Self { taken, groups: Default::default(), digests: Vec::new(), versions: Vec::new() }
    }

    /// Digests pages while the budget lasts; returns whether all are digested.
    fn advance(&mut self, old: Option<&Held>, budget: &mut usize) -> bool {
        let installed = self.taken.installed;
        let mut compared = 0;
        let mut compare = |budget: &mut usize, share: usize| {
            // Comparing versions is far cheaper than hashing a page.
            compared += 1;
            if compared % share == 0 {
                *budget -= 1;
            }
        };
        for tree in 0..TREES {
            let pages = pages_of(&self.taken, tree);
            let count = pages.page_count();
            let old = old.filter(|_| tree != BOOKKEEPING || !installed);
            loop {
                let group = self.groups[tree].len();
                let first = (group * FANOUT) as u64;
                if first >= count {
                    break;
                }
                if *budget == 0 {
                    return false;
                }
                let length = (count - first).min(FANOUT as u64) as usize;
                let old = old.and_then(|held| held.trees[tree].groups.get(group));
                let version = pages.group_version(group as u64);
                if let Some(old) = old
                    && version.is_some()
                    && (old.version, old.digests.len()) == (version, length)
                {
                    self.groups[tree].push(Arc::clone(old));
                    compare(budget, 16);
                    continue;
                }
                while self.digests.len() < length {
                    if *budget == 0 {
                        return false;
                    }
                    let at = self.digests.len();
                    let index = first + at as u64;
                    let version = pages.page_version(index);
                    let same = old
                        .filter(|old| version.is_some() && old.versions.get(at) == Some(&version));
                    let digest = match same {
                        Some(old) => {
                            compare(budget, 64);
                            old.digests[at]
                        }
                        None => {
                            *budget -= 1;
                            content_digest(node(tree, 0, 0), &pages.page(index))
                        }
                    };
                    self.digests.push(digest);
                    self.versions.push(version);
                }
                let digests = std::mem::replace(&mut self.digests, Vec::with_capacity(FANOUT));
                let versions = std::mem::replace(&mut self.versions, Vec::with_capacity(FANOUT));
                let done = Group::new(digests, versions, version, old.map(|old| &**old));
                self.groups[tree].push(Arc::new(done));
                *budget = budget.saturating_sub(1);
            }
        }
        true
    }

    /// What it is when all pages are digested.
    fn finish(self, old: Option<&Held>) -> Held {
        let mut tree = 0;
        let trees = self.groups.map(|groups| {
            let pages = pages_of(&self.taken, tree).page_count();
            tree += 1;
            Tree::over(groups, pages, old.map(|held| &held.trees[tree - 1]))
        });
        let record = root_record(&self.taken, &trees);
        let digest = content_digest(ROOT, &record.encode());
        let id = CheckpointId { order: self.taken.order, digest };
        Held { taken: self.taken, id, trees }
    }
}

#[cfg(test)]
mod tests;
