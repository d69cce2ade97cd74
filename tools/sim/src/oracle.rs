//! What must hold at every step of every correct replica.

use std::collections::{BTreeMap, HashMap};

use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{OrderNumber, Peers, PillarId, ReplicaId, RequestNumber, SessionId, View};
use hybster_proto::trace::{Phase, Proposal, TraceEvent};
use hybster_proto::wire::CheckpointId;
use hybster_tss::Digest;

use crate::client::Submitted;
use crate::evidence::Evidence;
use crate::restart::Restarted;
use crate::watched::Execution;

/// A property that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The property's name.
    pub property: &'static str,
    /// What happened.
    pub story: String,
    /// The replicas concerned.
    pub replicas: Vec<u16>,
    /// When.
    pub at_us: u64,
    /// In which step of the run.
    pub step: u64,
}

/// What the oracles know about one replica.
pub(crate) struct Seen {
    /// The last executed order number.
    pub(crate) frontier: u64,
    /// The stable checkpoint.
    pub(crate) stable: u64,
    /// Per pillar, the last base of its window.
    bases: Vec<u64>,
    pub(crate) view: View,
    pub(crate) in_view: bool,
    pub(crate) epoch: u32,
}

pub(crate) struct Oracles {
    group: GroupConfig,
    pub(crate) seen: Vec<Seen>,
    committed: BTreeMap<u64, (Digest, ReplicaId)>,
    executed: BTreeMap<u64, (Vec<Execution>, ReplicaId)>,
    /// By order number: when a batch ran first, and its agreed time.
    times: BTreeMap<u64, (u64, u64)>,
    random: HashMap<Digest, OrderNumber>,
    places: HashMap<(SessionId, RequestNumber), OrderNumber>,
    submitted: HashMap<(SessionId, RequestNumber), Vec<Digest>>,
    checkpoints: BTreeMap<u64, (Digest, ReplicaId)>,
    /// Of each epoch.
    evidence: BTreeMap<u32, Evidence>,
    faulty: Peers,
    epochs: BTreeMap<u32, Epoch>,
}

/// What is known of an epoch.
#[derive(Default)]
struct Epoch {
    /// The digest of its constants and of what it begins with, and who began it first.
    begun: Option<(Digest, ReplicaId)>,
    /// The last order number, once a correct replica has gone on.
    boundary: Option<u64>,
    /// The highest order number that a correct replica certified, committed or executed, and who did.
    highest: Option<(u64, ReplicaId)>,
}

/// When something happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// In microseconds of the run.
    pub(crate) at_us: u64,
    /// What no agreed time may be beyond.
    pub(crate) latest_ms: u64,
}

/// Property, story and the replicas concerned.
pub(crate) type Breach = (&'static str, String, Vec<u16>);
pub(crate) type Checked = Result<(), Breach>;

impl Oracles {
    /// The oracles of a group, some replicas of which may do as they like.
    pub(crate) fn new(group: &GroupConfig, faulty: Peers) -> Self {
        let seen = || Seen {
            frontier: 0,
            stable: 0,
            bases: vec![0; usize::from(group.pillars)],
            view: View(0),
            in_view: true,
            epoch: 0,
        };
        Self {
            group: group.clone(),
            seen: group.all_replicas().map(|_| seen()).collect(),
            committed: BTreeMap::new(),
            executed: BTreeMap::new(),
            times: BTreeMap::new(),
            random: HashMap::new(),
            places: HashMap::new(),
            submitted: HashMap::new(),
            checkpoints: BTreeMap::new(),
            evidence: BTreeMap::new(),
            faulty,
            epochs: BTreeMap::new(),
        }
    }

    /// A client submits an operation.
    pub(crate) fn submitted(&mut self, session: SessionId, number: RequestNumber, bytes: &[u8]) {
        self.submitted.entry((session, number)).or_default().push(Digest::of(bytes));
    }

    /// A replica was started again from its log.
    pub(crate) fn restarted(&mut self, at: ReplicaId, now: Restarted) {
        let Restarted { executed, stable, bases, view, in_view, counters: _ } = now;
        let bases = bases.into_iter().map(|base| base.0).collect();
        let (frontier, stable) = (executed.0, stable.0);
        let epoch = self.seen[usize::from(at.0)].epoch;
        self.seen[usize::from(at.0)] = Seen { frontier, stable, bases, view, in_view, epoch };
    }

    /// A correct replica begins the epoch that follows on the one `before`.
    pub(crate) fn begun(
        &mut self,
        at: ReplicaId,
        before: u32,
        config: &GroupConfig,
        now: Restarted,
    ) -> Checked {
        let beginning = config.membership.beginning;
        self.restarted(at, now);
        let seen = &mut self.seen[usize::from(at.0)];
        if config.epoch <= before {
            return Err(("epochs rise", format!("{at} was in {before}"), vec![at.0]));
        }
        seen.epoch = config.epoch;
        self.checkpoint(at, beginning)?;
        let (known, by) = *self
            .epochs
            .entry(config.epoch)
            .or_default()
            .begun
            .get_or_insert((config.digest(), at));
        if known != config.digest() {
            let story = format!("{at} and {by} began epoch {} differently", config.epoch);
            return Err(("equal epochs", story, vec![at.0, by.0]));
        }
        self.epochs.entry(before).or_default().boundary = Some(beginning.order.0);
        self.inside(before)
    }

    /// A correct replica certified, committed or executed an order number.
    fn reached(&mut self, at: ReplicaId, order: OrderNumber) -> Checked {
        let epoch = self.seen[usize::from(at.0)].epoch;
        let it = self.epochs.entry(epoch).or_default();
        if it.highest.is_none_or(|(highest, _)| highest < order.0) {
            it.highest = Some((order.0, at));
        }
        self.inside(epoch)
    }

    fn inside(&self, epoch: u32) -> Checked {
        let it = &self.epochs[&epoch];
        if let (Some(boundary), Some((highest, by))) = (it.boundary, it.highest)
            && highest > boundary
        {
            let story =
                format!("{by} was at o{highest} in epoch {epoch}, which ends at o{boundary}");
            return Err(("nothing beyond the boundary", story, vec![by.0]));
        }
        Ok(())
    }

    /// A pillar is told that its window moves.
    pub(crate) fn forwarded(&mut self, at: ReplicaId, pillar: PillarId, to: OrderNumber) {
        let base = &mut self.seen[usize::from(at.0)].bases[usize::from(pillar.0)];
        *base = (*base).max(to.0);
    }

    /// A correct replica did something; `executions` is what its service executed with it.
    pub(crate) fn check(
        &mut self,
        at: ReplicaId,
        event: &TraceEvent,
        executions: &mut Vec<Execution>,
        now: Now,
    ) -> Checked {
        let epoch = self.seen[usize::from(at.0)].epoch;
        let Self { group, faulty, .. } = self;
        let evidence = self.evidence.entry(epoch);
        evidence.or_insert_with(|| Evidence::new(group, *faulty)).check(at, event)?;
        match event {
            TraceEvent::Proposed { proposal, .. }
            | TraceEvent::Vouched { proposal, .. }
            | TraceEvent::Certified { proposal, .. } => self.reached(at, proposal.last)?,
            TraceEvent::Executed { order, .. } => self.reached(at, *order)?,
            _ => {}
        }
        match *event {
            TraceEvent::ViewLeft { to, .. } => {
                let seen = &mut self.seen[usize::from(at.0)];
                if to <= seen.view {
                    let story = format!("{at} stood in {} and left for {to}", seen.view);
                    return Err(("views rise", story, vec![at.0]));
                }
                (seen.view, seen.in_view) = (to, false);
                Ok(())
            }
            TraceEvent::ViewEntered { view, current, .. } => {
                let seen = &mut self.seen[usize::from(at.0)];
                if view == current {
                    if view < seen.view {
                        let story = format!("{at} stood in {} and entered {view}", seen.view);
                        return Err(("views rise", story, vec![at.0]));
                    }
                    (seen.view, seen.in_view) = (view, true);
                }
                Ok(())
            }
            TraceEvent::Proposed { pillar, proposal: Proposal { first, last, .. }, .. }
            | TraceEvent::Vouched { pillar, proposal: Proposal { first, last, .. }, .. } => {
                self.window(at, pillar, first, last)
            }
            TraceEvent::Certified { phase: Phase::Commit, view, proposal, .. } => {
                let Proposal { first, last, batch, .. } = proposal;
                let step = usize::from(self.group.pillars);
                for order in (first.0..=last.0).step_by(step) {
                    self.agreement(at, view, order, batch)?;
                }
                Ok(())
            }
            TraceEvent::Executed { order, ran, .. } => {
                self.executed(at, order, ran, executions, now)
            }
            TraceEvent::CheckpointTaken(id) => self.checkpoint(at, id),
            TraceEvent::CheckpointStable { checkpoint: id, .. } => {
                let seen = &mut self.seen[usize::from(at.0)];
                seen.stable = seen.stable.max(id.order.0);
                self.checkpoint(at, id)
            }
            TraceEvent::Diverged(id) => {
                let story =
                    format!("the state of {at}, a correct replica, differs at {}", id.order);
                Err(("equal states", story, vec![at.0]))
            }
            TraceEvent::StateInstalled(id) => {
                self.seen[usize::from(at.0)].frontier = id.order.0;
                self.checkpoint(at, id)
            }
            TraceEvent::Certified { phase: Phase::Prepare, .. }
            | TraceEvent::PartLeft { .. }
            | TraceEvent::Elected { .. }
            | TraceEvent::Adopted { .. }
            | TraceEvent::Endorsed { .. }
            | TraceEvent::Reissued { .. }
            | TraceEvent::AgreedTime { .. }
            | TraceEvent::Configured { .. }
            | TraceEvent::Lost { .. } => Ok(()),
        }
    }

    /// Nothing may execute but with an order number.
    pub(crate) fn nothing_left(&self, at: ReplicaId, executions: &[Execution]) -> Checked {
        match executions.first() {
            None => Ok(()),
            Some(e) => {
                let story =
                    format!("{at} executed {} {} at {} unannounced", e.session, e.number, e.order);
                Err(("total order", story, vec![at.0]))
            }
        }
    }

    fn window(
        &self,
        at: ReplicaId,
        pillar: PillarId,
        first: OrderNumber,
        last: OrderNumber,
    ) -> Checked {
        let seen = &self.seen[usize::from(at.0)];
        let base = seen.bases[usize::from(pillar.0)];
        let end = seen.stable.max(base) + self.group.window;
        if last.0 <= base || last.0 > end || self.group.pillar_of(first) != pillar {
            let story =
                format!("{at} certified {first}..={last} in {pillar}; window ({base}, {end}]");
            return Err(("window bounds", story, vec![at.0]));
        }
        Ok(())
    }

    fn agreement(&mut self, at: ReplicaId, view: View, order: u64, batch: Digest) -> Checked {
        let (known, by) = *self.committed.entry(order).or_insert((batch, at));
        if known == batch {
            return Ok(());
        }
        let story =
            format!("{at} committed {batch:?} at o{order} in {view}, {by} committed {known:?}");
        Err(("agreement", story, vec![at.0, by.0]))
    }

    fn executed(
        &mut self,
        at: ReplicaId,
        order: OrderNumber,
        ran: u32,
        executions: &mut Vec<Execution>,
        now: Now,
    ) -> Checked {
        let seen = &mut self.seen[usize::from(at.0)];
        if order.0 != seen.frontier + 1 {
            let story = format!("{at} executed {order} after o{}", seen.frontier);
            return Err(("total order", story, vec![at.0]));
        }
        seen.frontier = order.0;
        let count = executions.iter().take_while(|e| e.order == order).count();
        let batch: Vec<Execution> = executions.drain(..count).collect();
        if batch.len() != ran as usize {
            let story = format!("{at} says that {ran} ran at {order}, but {count} did");
            return Err(("total order", story, vec![at.0]));
        }
        if let Some((known, by)) = self.executed.get(&order.0) {
            if *known == batch {
                return Ok(());
            }
            let story = format!("{at} executed {batch:?} at {order}, {by} executed {known:?}");
            return Err(("total order", story, vec![at.0, by.0]));
        }
        for execution in &batch {
            self.valid(at, execution)?;
        }
        if let Some(first) = batch.first() {
            self.agreed(at, first, &batch, now)?;
        }
        self.executed.insert(order.0, (batch, at));
        Ok(())
    }

    /// Agreed time and randomness of a batch that runs for the first time. That they are equal at
    /// all replicas, the comparison of executions sees.
    fn agreed(
        &mut self,
        at: ReplicaId,
        first: &Execution,
        batch: &[Execution],
        now: Now,
    ) -> Checked {
        let Execution { order, time_ms, randomness, .. } = *first;
        let breach = |property, story| Err((property, story, vec![at.0]));
        if batch.iter().any(|e| (e.time_ms, e.randomness) != (time_ms, randomness)) {
            return breach("agreed time", format!("the batch at {order} has several times"));
        }
        // Some replica may have skipped order numbers that another one executes later.
        let before = self.times.range(..order.0).next_back().map(|(_, time)| time.1);
        let after = self.times.range(order.0..).next().map(|(_, time)| time.1);
        if before.is_some_and(|t| t > time_ms) || after.is_some_and(|t| t < time_ms) {
            let story = format!("{at} runs {order} at {time_ms}, between {before:?} and {after:?}");
            return breach("agreed time never falls", story);
        }
        if time_ms > now.latest_ms {
            let story =
                format!("{at} runs {order} at {time_ms}, no clock beyond {}", now.latest_ms);
            return breach("agreed time is some clock's", story);
        }
        self.times.insert(order.0, (now.at_us, time_ms));
        match self.random.insert(randomness, order) {
            None => Ok(()),
            Some(other) => breach("agreed randomness", format!("{order} has the bytes of {other}")),
        }
    }

    /// When batches ran first, and their agreed times, in their order.
    pub(crate) fn times(&self) -> Vec<(u64, u64)> {
        self.times.values().copied().collect()
    }

    /// Whether an operation was executed.
    pub(crate) fn has_run(&self, submitted: &Submitted) -> bool {
        self.result_of(submitted).is_some()
    }

    /// The digest of an operation's result, if it was executed.
    pub(crate) fn result_of(&self, submitted: &Submitted) -> Option<Digest> {
        let Submitted { session, number, bytes, .. } = submitted;
        let place = self.places.get(&(*session, *number));
        let batch = place.and_then(|order| self.executed.get(&order.0));
        let digest = Digest::of(bytes);
        let is_it =
            |e: &&Execution| (e.session, e.number) == (*session, *number) && e.operation == digest;
        batch?.0.iter().find(is_it).map(|execution| execution.result)
    }

    fn valid(&mut self, at: ReplicaId, execution: &Execution) -> Checked {
        let Execution { order, session, number, operation, .. } = *execution;
        let request = (session, number);
        if !self.submitted.get(&request).is_some_and(|known| known.contains(&operation)) {
            let story =
                format!("{at} executed {session} {number} at {order}, which nobody submitted");
            return Err(("validity", story, vec![at.0]));
        }
        match self.places.insert(request, order) {
            None => Ok(()),
            Some(before) => {
                let story = format!("{at} executed {session} {number} at {order} and at {before}");
                Err(("exactly once", story, vec![at.0]))
            }
        }
    }

    fn checkpoint(&mut self, at: ReplicaId, id: CheckpointId) -> Checked {
        let (known, by) = *self.checkpoints.entry(id.order.0).or_insert((id.digest, at));
        if known == id.digest {
            return Ok(());
        }
        let story = format!("{at} has {:?} at {}, {by} has {known:?}", id.digest, id.order);
        Err(("equal checkpoints", story, vec![at.0, by.0]))
    }

    /// The highest order number that any replica executed.
    pub(crate) fn highest(&self) -> u64 {
        self.executed.last_key_value().map_or(0, |(order, _)| *order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oracles() -> Oracles {
        Oracles::new(&GroupConfig::default(), Peers::default())
    }

    fn run(number: u64, order: u64) -> Execution {
        Execution {
            order: OrderNumber(order),
            session: SessionId::default(),
            number: RequestNumber(number),
            operation: Digest::of(b"op"),
            result: Digest::default(),
            time_ms: order,
            randomness: Digest::of(&order.to_le_bytes()),
        }
    }

    const NOW: Now = Now { at_us: 0, latest_ms: 9 };

    fn executed(order: u64, ran: u32) -> TraceEvent {
        let results = Digest::default();
        TraceEvent::Executed { order: OrderNumber(order), requests: ran, ran, results }
    }

    #[test]
    fn two_batches_at_one_order_are_found() {
        let mut oracles = oracles();
        let [a, b, c] = [0, 1, 2].map(ReplicaId);
        let proposal = |batch| Proposal {
            first: OrderNumber(1),
            last: OrderNumber(3),
            batch: Digest([batch; 32]),
            time_ms: 0,
            noop: false,
        };
        let vouched = |view, batch| TraceEvent::Vouched {
            phase: Phase::Commit,
            pillar: PillarId(0),
            view: View(view),
            proposal: proposal(batch),
        };
        let committed = |view, batch, voters: [ReplicaId; 2]| TraceEvent::Certified {
            phase: Phase::Commit,
            pillar: PillarId(0),
            view: View(view),
            proposal: proposal(batch),
            voters: voters.into_iter().collect(),
        };
        let mut check = |at, event: &TraceEvent| oracles.check(at, event, &mut Vec::new(), NOW);
        for (at, view, batch) in [(a, 0, 1), (b, 0, 1), (c, 1, 2), (b, 1, 2)] {
            check(at, &vouched(view, batch)).unwrap();
        }
        check(a, &committed(0, 1, [a, b])).unwrap();
        check(b, &committed(0, 1, [a, b])).unwrap();
        assert_eq!(check(c, &committed(1, 2, [b, c])).unwrap_err().0, "agreement");
    }

    #[test]
    fn double_invented_and_diverging_executions_are_found() {
        let (a, b) = (ReplicaId(0), ReplicaId(1));
        let mut o = oracles();
        let breach = o.check(a, &executed(1, 1), &mut vec![run(1, 1)], NOW).unwrap_err();
        assert_eq!(breach.0, "validity");
        let mut o = oracles();
        o.submitted(SessionId::default(), RequestNumber(1), b"op");
        o.check(a, &executed(1, 1), &mut vec![run(1, 1)], NOW).unwrap();
        let breach = o.check(a, &executed(2, 1), &mut vec![run(1, 2)], NOW).unwrap_err();
        assert_eq!(breach.0, "exactly once");
        let breach = o.check(b, &executed(1, 0), &mut Vec::new(), NOW).unwrap_err();
        assert_eq!(breach.0, "total order");
        assert_eq!(o.check(b, &executed(5, 0), &mut Vec::new(), NOW).unwrap_err().0, "total order");
        assert!(o.nothing_left(b, &[run(1, 1)]).is_err());
    }

    #[test]
    fn certificates_outside_the_window_are_found() {
        let mut o = oracles();
        let proposed = |order| TraceEvent::Proposed {
            pillar: PillarId(0),
            view: View(0),
            proposal: Proposal {
                first: OrderNumber(order),
                last: OrderNumber(order),
                batch: Digest::default(),
                time_ms: 0,
                noop: false,
            },
        };
        o.check(ReplicaId(0), &proposed(1023), &mut Vec::new(), NOW).unwrap();
        assert!(o.check(ReplicaId(0), &proposed(1025), &mut Vec::new(), NOW).is_err());
        o.forwarded(ReplicaId(0), PillarId(0), OrderNumber(256));
        o.check(ReplicaId(0), &proposed(1025), &mut Vec::new(), NOW).unwrap();
        assert!(o.check(ReplicaId(0), &proposed(255), &mut Vec::new(), NOW).is_err());
    }

    #[test]
    fn times_and_random_bytes_that_are_not_agreed_are_found() {
        let replica = ReplicaId(0);
        let begun = || {
            let mut o = oracles();
            for number in 1..9 {
                o.submitted(SessionId::default(), RequestNumber(number), b"op");
            }
            o.check(replica, &executed(1, 1), &mut vec![run(1, 1)], NOW).unwrap();
            o
        };
        let second = run(2, 2);
        let found = |wrong: Execution| {
            begun().check(replica, &executed(2, 1), &mut vec![wrong], NOW).unwrap_err().0
        };
        assert_eq!(found(Execution { time_ms: 0, ..second }), "agreed time never falls");
        assert_eq!(found(Execution { time_ms: 10, ..second }), "agreed time is some clock's");
        let repeated = Execution { randomness: run(1, 1).randomness, ..second };
        assert_eq!(found(repeated), "agreed randomness");
        let both = vec![second, Execution { time_ms: 3, ..run(3, 2) }];
        let breach = begun().check(replica, &executed(2, 2), &mut both.clone(), NOW).unwrap_err();
        assert_eq!(breach.0, "agreed time");
    }
}
