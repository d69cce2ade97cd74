//! A client: the real client core, and a simulated user of its sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use hybster_proto::client::{ClientCore, ClientOutput, Outcome, RequestKind};
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{ClientId, RequestNumber, SessionId};
use hybster_proto::output::ClientLink;
use hybster_tss::Digest;

use crate::clock::Clock;
use crate::keys::Keys;
use crate::linear::Call;
use crate::random::Random;
use crate::scenario::{ClientPlan, Scenario};
use crate::store::{Action, Operation, parse_answer};
use crate::workload::Workload;

pub(crate) struct Client {
    pub(crate) link: ClientLink,
    pub(crate) core: ClientCore,
    pub(crate) out: ClientOutput,
    pub(crate) plan: ClientPlan,
    pub(crate) clock: Clock,
    pub(crate) wake_us: Option<u64>,
    random: Random,
    workload: Option<Workload>,
    /// Ordered operations of such a workload that were answered, and what is known of the result.
    pub(crate) answered: Vec<(Submitted, Option<Digest>)>,
    keys: u16,
    is_original: bool,
    /// Whether another client uses its sessions as well.
    pub(crate) is_copied: bool,
    /// Operations that each session has yet to submit.
    left: Vec<u32>,
    /// Turns of each session that wait for room in its window.
    parked: Vec<u32>,
    /// The value of a key when the client last heard of it.
    known: BTreeMap<u16, Option<u64>>,
    pub(crate) calls: BTreeMap<(u32, RequestNumber), Pending>,
    /// Calls of a copied client whose end does not tell whether they ran.
    pub(crate) unsure: Vec<Submitted>,
    pub(crate) history: Vec<Call>,
    pub(crate) latencies_us: Vec<u64>,
    /// Requests whose number a copy of this client had used.
    pub(crate) numbers_taken: u64,
    /// Requests whose result was not kept until they asked again.
    pub(crate) results_gone: u64,
    longest_call_us: u64,
    /// Whether more than f replicas run a service of their own.
    may_halt: bool,
    /// Requests that ended as the group has halted.
    pub(crate) states_differ: u64,
    /// Disks have so little room that requests may be refused for it.
    disks_are_small: bool,
    /// Requests that were.
    pub(crate) refused_by_disks: u64,
}

/// What operations of another service count as, which nobody checks as registers.
const NO_REGISTER: Operation = Operation { key: 0, action: Action::Get };

/// An operation that was submitted.
#[derive(Clone)]
pub(crate) struct Submitted {
    pub(crate) session: SessionId,
    pub(crate) number: RequestNumber,
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: RequestKind,
    pub(crate) call: Call,
}

/// A call that has no answer yet.
pub(crate) struct Pending {
    pub(crate) submitted: Submitted,
    since_us: u64,
}

impl Client {
    pub(crate) fn new(
        index: u32,
        (scenario, workload): (&Scenario, Option<&Workload>),
        config: &Arc<GroupConfig>,
        keys: &Keys,
        original: Option<ClientLink>,
        mut random: Random,
    ) -> Self {
        let plan = scenario.clients[index as usize].clone();
        let link = original.unwrap_or_else(|| ClientLink {
            client: ClientId(index),
            incarnation: random.between(1, 1 << 30),
        });
        let key = keys.client(config, link.client.0);
        let sessions = plan.sessions;
        Self {
            link,
            core: ClientCore::new(config.clone(), link.client, key, link.incarnation, sessions, 0),
            out: ClientOutput::new(config.replicas),
            clock: Clock::new(&mut random, scenario.drift_ppm),
            wake_us: None,
            random,
            workload: workload.cloned(),
            answered: Vec::new(),
            keys: scenario.keys,
            is_original: original.is_none(),
            is_copied: scenario.is_copied(index as u16),
            left: vec![plan.operations; sessions as usize],
            parked: vec![0; sessions as usize],
            known: BTreeMap::new(),
            calls: BTreeMap::new(),
            unsure: Vec::new(),
            history: Vec::new(),
            latencies_us: Vec::new(),
            numbers_taken: 0,
            results_gone: 0,
            longest_call_us: scenario.longest_call_us.unwrap_or(u64::MAX),
            may_halt: scenario.different_services() > usize::from(config.faults),
            states_differ: 0,
            disks_are_small: scenario.disk.is_some_and(|disk| disk.segments.is_some()),
            refused_by_disks: 0,
            plan,
        }
    }

    /// Turns that each session takes at once.
    pub(crate) fn parallel(&self) -> u32 {
        self.plan.parallel.min(self.core.config().session_window)
    }

    pub(crate) fn think_us(&mut self) -> u64 {
        self.random.below(self.plan.think_us + 1)
    }

    /// Whether everything was submitted and answered.
    pub(crate) fn is_done(&self) -> bool {
        self.calls.is_empty() && self.left.iter().all(|left| *left == 0)
    }

    /// Gives each session more to do.
    pub(crate) fn more(&mut self, operations: u32) {
        self.left.iter_mut().for_each(|left| *left += operations);
    }

    /// Nothing is submitted any more but what [`Client::more`] adds.
    pub(crate) fn stop(&mut self) {
        self.left.fill(0);
    }

    /// A turn of a session: submits its next operation, if it has one and there is room.
    pub(crate) fn turn(&mut self, session: u32, now_us: u64, stamp: u64) -> Option<Submitted> {
        let at = session as usize;
        if self.left[at] == 0 {
            return None;
        }
        if !self.core.can_submit(session) {
            self.parked[at] += 1;
            return None;
        }
        let now = self.clock.local(now_us);
        let (operation, bytes, kind) = match &self.workload {
            None => self.register_operation(stamp),
            Some(workload) => {
                let bytes = workload.operation(&mut self.random);
                (NO_REGISTER, bytes, self.kind())
            }
        };
        let number = self
            .core
            .submit(session, &bytes, kind, now, &mut self.out)
            .expect("the core said that it can take a request");
        self.left[at] -= 1;
        let name = self.core.session_id(session);
        let caller = format!("{name} {number}");
        let call = Call { caller, operation, begin: stamp, end: None };
        let submitted = Submitted { session: name, number, bytes, kind, call };
        let pending = Pending { submitted: submitted.clone(), since_us: now_us };
        self.calls.insert((session, number), pending);
        Some(submitted)
    }

    /// Whether the next operation that may be read-only is sent as a query.
    fn kind(&mut self) -> RequestKind {
        match self.random.chance(self.plan.queries_ppm) {
            true => RequestKind::ReadOnly,
            false => RequestKind::Ordered,
        }
    }

    /// An operation on a register, its bytes, and how it is sent.
    fn register_operation(&mut self, stamp: u64) -> (Operation, Vec<u8>, RequestKind) {
        let operation = self.operation(stamp);
        let (least, most) = (u64::from(self.plan.least_padding), u64::from(self.plan.padding));
        let mut padding = (least + self.random.below(most.saturating_sub(least) + 1)) as usize;
        if self.is_copied {
            // Two equal operations would be one request, which nobody could tell from a retransmission.
            padding = 2 * padding + usize::from(self.is_original);
        }
        let bytes = operation.encode(padding);
        let kind = match operation.action {
            Action::Get => self.kind(),
            _ => RequestKind::Ordered,
        };
        (operation, bytes, kind)
    }

    fn operation(&mut self, unique: u64) -> Operation {
        let key = self.random.below(self.keys.into()) as u16;
        let action = match self.random.below(10) {
            0..=2 => Action::Get,
            3..=5 => Action::Put(unique),
            6 => Action::Delete,
            _ => {
                let expected = self.known.get(&key).copied().flatten();
                Action::Cas { expected, new: unique }
            }
        };
        Operation { key, action }
    }

    /// Enters finished calls into the history. The sessions that may take a turn, or what is wrong.
    pub(crate) fn finished(&mut self, now_us: u64, stamp: &mut u64) -> Result<Vec<u32>, String> {
        let mut turns = Vec::new();
        for done in self.out.completions.iter() {
            turns.push(done.session);
            for _ in 0..std::mem::take(&mut self.parked[done.session as usize]) {
                turns.push(done.session);
            }
            let Some(pending) = self.calls.remove(&(done.session, done.number)) else {
                return Err(format!("{} got a second end", done.number));
            };
            let Pending { submitted, since_us } = pending;
            if now_us - since_us > self.longest_call_us {
                return Err(format!("{} took {} us", submitted.call.caller, now_us - since_us));
            }
            let mut call = submitted.call.clone();
            match done.outcome {
                // It did not run and never will, so it is no part of the history.
                Outcome::NumberTaken if self.is_copied => {
                    self.numbers_taken += 1;
                    continue;
                }
                // Whether it ever runs, nobody knows.
                Outcome::StatesDiffer if self.may_halt => {
                    self.history.push(call);
                    self.states_differ += 1;
                    continue;
                }
                Outcome::DiskFull if self.disks_are_small => {
                    self.unsure.push(submitted);
                    self.refused_by_disks += 1;
                    continue;
                }
                // It ran: with which answer, nobody says.
                Outcome::ResultGone => {
                    self.answered.extend(self.workload.is_some().then_some((submitted, None)));
                    self.history.push(call);
                    self.results_gone += 1;
                    continue;
                }
                Outcome::Stale if self.is_copied => {
                    self.unsure.push(submitted);
                    continue;
                }
                _ => {}
            }
            if done.outcome != Outcome::Done {
                return Err(format!("{} ended with {:?}", call.caller, done.outcome));
            }
            *stamp += 1;
            self.latencies_us.push(now_us - since_us);
            if self.workload.is_some() {
                if submitted.kind == RequestKind::Ordered {
                    self.answered.push((submitted, Some(Digest::of(done.result))));
                }
                self.history.push(call);
                continue;
            }
            let Some(answer) = parse_answer(done.result) else {
                return Err(format!("{} got an answer that is none", call.caller));
            };
            call.end = Some((*stamp, answer));
            let Operation { key, action } = call.operation;
            self.known.insert(key, action.apply(answer));
            self.history.push(call);
        }
        self.out.completions.clear();
        Ok(turns)
    }
}
