//! What certificates and elections rest on: enough members of the group, and nothing in the name of
//! a correct replica that it did not say.

use std::collections::{BTreeMap, HashMap, HashSet};

use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{OrderNumber, Peers, PillarId, ReplicaId, View};
use hybster_proto::protocol::Threshold;
use hybster_proto::trace::file::{Header, Writer};
use hybster_proto::trace::{Counted, Member, Phase, Proposal, Quorums, Step, TraceEvent};
use hybster_proto::wire::CheckpointId;
use hybster_tss::Digest;

use crate::oracle::Checked;

/// A view and the last of the order numbers that a proposal covers.
type At = (View, OrderNumber);

/// A view that was elected: its latest last view, the checkpoint, and per pillar how far the
/// counters of the members that come from there disclose that it must reach.
type Demand = (OrderNumber, Vec<OrderNumber>);

/// What correct replicas have said so far.
pub(crate) struct Evidence {
    members: Peers,
    faulty: Peers,
    quorums: Quorums,
    group: GroupConfig,
    /// Votes for proposals, by voter; leaders' proposals among them.
    votes: HashMap<(ReplicaId, At), Proposal>,
    /// What was certified, and by whom first.
    certified: HashMap<(Phase, At), (Proposal, ReplicaId)>,
    /// Digests of answers by order number.
    results: BTreeMap<OrderNumber, (Digest, ReplicaId)>,
    /// Agreed times by order number.
    times: BTreeMap<OrderNumber, (u64, ReplicaId)>,
    /// Checkpoints taken, and those held as stable.
    taken: HashMap<(ReplicaId, OrderNumber), Digest>,
    stable: HashMap<(ReplicaId, OrderNumber), Digest>,
    /// Checkpoints that elected views begin with.
    elected: HashSet<(OrderNumber, Digest)>,
    /// Last stable view and disclosed counter of those that left for a view.
    left: HashMap<(ReplicaId, PillarId, View), (View, Counted)>,
    endorsed: HashMap<(ReplicaId, View), CheckpointId>,
    demands: HashMap<View, Demand>,
    adopted: HashMap<(View, PillarId), (Vec<Proposal>, ReplicaId)>,
}

impl Evidence {
    pub(crate) fn new(group: &GroupConfig, faulty: Peers) -> Self {
        let header = Header::new(Writer::Simulator, group, 0);
        Self {
            members: header.members,
            faulty,
            quorums: header.quorums,
            group: group.clone(),
            votes: HashMap::new(),
            certified: HashMap::new(),
            results: BTreeMap::new(),
            times: BTreeMap::new(),
            taken: HashMap::new(),
            stable: HashMap::new(),
            elected: HashSet::new(),
            left: HashMap::new(),
            endorsed: HashMap::new(),
            demands: HashMap::new(),
            adopted: HashMap::new(),
        }
    }

    /// A correct replica did something.
    pub(crate) fn check(&mut self, at: ReplicaId, event: &TraceEvent) -> Checked {
        match event {
            TraceEvent::Proposed { view, proposal, .. }
            | TraceEvent::Reissued { view, proposal, .. }
            | TraceEvent::Vouched { view, proposal, .. } => {
                self.votes.insert((at, (*view, proposal.last)), *proposal);
            }
            TraceEvent::Certified { phase, view, proposal, voters, .. } => {
                return self.certified(at, *phase, *view, *proposal, *voters);
            }
            TraceEvent::Executed { order, results, .. } => {
                return self.executed(at, *order, *results);
            }
            TraceEvent::AgreedTime { order, unix_ms } => {
                let (known, by) = *self.times.entry(*order).or_insert((*unix_ms, at));
                if known != *unix_ms {
                    let story = format!("{at} has {unix_ms} ms at {order}, {by} has {known} ms");
                    return Err(("agreed time", story, vec![at.0, by.0]));
                }
            }
            TraceEvent::CheckpointTaken(id) => {
                self.taken.insert((at, id.order), id.digest);
            }
            TraceEvent::CheckpointStable { checkpoint, voters } => {
                return self.stable(at, *checkpoint, *voters);
            }
            TraceEvent::PartLeft { pillar, from, to, steps, .. } => {
                let disclosed =
                    steps.first().map_or(Counted::default(), |step: &Step| step.disclosed);
                self.left.insert((at, *pillar, *to), (*from, disclosed));
            }
            TraceEvent::Endorsed { view, checkpoint } => {
                self.endorsed.insert((at, *view), *checkpoint);
            }
            TraceEvent::Elected { view, leader, checkpoint, members, vouchers } => {
                self.elected.insert((checkpoint.order, checkpoint.digest));
                return self.elected(at, *view, *leader, checkpoint.order, members, *vouchers);
            }
            TraceEvent::Adopted { pillar, view, proposals } => {
                return self.adopted(at, *pillar, *view, proposals);
            }
            _ => {}
        }
        Ok(())
    }

    fn is_correct(&self, replica: ReplicaId) -> bool {
        !self.faulty.contains(replica)
    }

    /// Whether a faulty replica can say one thing to one replica and another to the next.
    fn can_lie(&self) -> bool {
        self.group.rules().quorum == Threshold::CorrectMajority
    }

    /// Enough voters, and all of them members.
    fn quorum(&self, at: ReplicaId, voters: Peers, needed: u16, of: &str) -> Checked {
        if voters.len() >= usize::from(needed) && voters.is_subset(self.members) {
            return Ok(());
        }
        let voters: Vec<ReplicaId> = voters.iter().collect();
        let story = format!("{at} holds {of} with {voters:?}; it takes {needed} members");
        Err(("quorums", story, vec![at.0]))
    }

    fn certified(
        &mut self,
        at: ReplicaId,
        phase: Phase,
        view: View,
        proposal: Proposal,
        voters: Peers,
    ) -> Checked {
        let last = proposal.last;
        let needed = match phase {
            Phase::Prepare => self.quorums.prepare,
            Phase::Commit => self.quorums.commit,
        };
        self.quorum(at, voters, needed, &format!("the {phase:?} of {last} in {view}"))?;
        for voter in voters.iter().filter(|voter| self.is_correct(*voter)) {
            let vote = self.votes.get(&(voter, (view, last)));
            if vote != Some(&proposal) {
                let story = format!(
                    "{at} certified {proposal} in {view} by {voter}, which vouched for {vote:?}"
                );
                return Err(("votes", story, vec![at.0, voter.0]));
            }
        }
        let (known, by) = *self.certified.entry((phase, (view, last))).or_insert((proposal, at));
        if known != proposal {
            let story = format!("{at} certified {proposal} in {view}, {by} certified {known}");
            return Err(("one certificate", story, vec![at.0, by.0]));
        }
        Ok(())
    }

    fn executed(&mut self, at: ReplicaId, order: OrderNumber, results: Digest) -> Checked {
        let (known, by) = *self.results.entry(order).or_insert((results, at));
        if known == results {
            return Ok(());
        }
        let story = format!("{at} answered {results:?} at {order}, {by} answered {known:?}");
        Err(("equal results", story, vec![at.0, by.0]))
    }

    fn stable(&mut self, at: ReplicaId, id: CheckpointId, voters: Peers) -> Checked {
        // Where votes cannot be shown to others, f+1 may say that a checkpoint is stable, or that a view
        // begins with it.
        let holds = |voter: ReplicaId| self.stable.get(&(voter, id.order)) == Some(&id.digest);
        let correct = voters.iter().filter(|voter| self.is_correct(*voter));
        let is_told = self.can_lie()
            && (correct.clone().all(holds) || self.elected.contains(&(id.order, id.digest)));
        let needed = if is_told { self.group.faults + 1 } else { self.quorums.stable };
        self.quorum(at, voters, needed, &format!("a stable checkpoint {}", id.order))?;
        for voter in correct {
            let taken = self.taken.get(&(voter, id.order));
            if taken != Some(&id.digest) && !holds(voter) {
                let story = format!(
                    "{at} holds {:?} as stable at {} by {voter}, which has {taken:?}",
                    id.digest, id.order
                );
                return Err(("votes", story, vec![at.0, voter.0]));
            }
        }
        self.stable.insert((at, id.order), id.digest);
        Ok(())
    }

    fn elected(
        &mut self,
        at: ReplicaId,
        view: View,
        leader: ReplicaId,
        checkpoint: OrderNumber,
        members: &[Member],
        vouchers: Peers,
    ) -> Checked {
        let wrong = |story: String| Err(("elections", story, vec![at.0]));
        if leader != self.group.leader(view) || !members.is_sorted_by(|a, b| a.replica < b.replica)
        {
            return wrong(format!("{at} accepted {leader} as leader of {view} with {members:?}"));
        }
        let latest = members.iter().map(|member| member.from).max().unwrap_or_default();
        let of_latest = || members.iter().filter(|member| member.from == latest);
        let supporters = of_latest().map(|member| member.replica).chain(vouchers.iter()).collect();
        let all = members.iter().map(|member| member.replica).collect();
        self.quorum(at, all, self.quorums.elect, &format!("an election of {view}"))?;
        self.quorum(at, supporters, self.quorums.support, &format!("support of {latest}"))?;
        for member in members.iter().filter(|member| self.is_correct(member.replica)) {
            for (pillar, disclosed) in self.group.all_pillars().zip(&member.disclosed) {
                let left = self.left.get(&(member.replica, pillar, view));
                if left != Some(&(member.from, *disclosed)) {
                    return wrong(format!(
                        "{at} accepted {view} with {member} in {pillar}, but it said {left:?}"
                    ));
                }
            }
        }
        for voucher in vouchers.iter().filter(|voucher| self.is_correct(*voucher)) {
            if !self.endorsed.contains_key(&(voucher, latest)) {
                return wrong(format!("{at} accepted {view}; {voucher} did not endorse {latest}"));
            }
        }
        let reach = |pillar: PillarId| {
            let disclosed = of_latest().filter_map(|m| m.disclosed.get(usize::from(pillar.0)));
            let reached = disclosed.filter(|counted| counted.view == latest);
            reached.map(|counted| counted.order).max().unwrap_or_default()
        };
        let demand = (checkpoint, self.group.all_pillars().map(reach).collect());
        self.demands.insert(view, demand);
        Ok(())
    }

    fn adopted(
        &mut self,
        at: ReplicaId,
        pillar: PillarId,
        view: View,
        proposals: &[Proposal],
    ) -> Checked {
        let Some((checkpoint, reach)) = self.demands.get(&view) else {
            return Err(("elections", format!("{at} adopted in {view} unelected"), vec![at.0]));
        };
        let last = proposals.last().map_or(*checkpoint, |proposal| proposal.last);
        let demanded = reach[usize::from(pillar.0)];
        if last.max(*checkpoint) < demanded {
            let story = format!("{at} adopted in {view} {pillar} up to {last}, not {demanded}");
            return Err(("elections", story, vec![at.0]));
        }
        if self.can_lie() && !self.is_correct(self.group.leader(view)) {
            // It may begin with one thing here and with another there: then nothing of it is certified.
            return Ok(());
        }
        let known = self.adopted.entry((view, pillar)).or_insert_with(|| (proposals.to_vec(), at));
        if known.0 != proposals {
            let story = format!(
                "{at} adopted {proposals:?} in {view} {pillar}, {} adopted {:?}",
                known.1, known.0
            );
            return Err(("elections", story, vec![at.0, known.1.0]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId(0);
    const B: ReplicaId = ReplicaId(1);
    const C: ReplicaId = ReplicaId(2);
    const PILLAR: PillarId = PillarId(0);

    fn evidence() -> Evidence {
        Evidence::new(&GroupConfig::default(), [C].into_iter().collect())
    }

    fn proposal(batch: u8) -> Proposal {
        let order = OrderNumber(3);
        Proposal { first: order, last: order, batch: Digest([batch; 32]), time_ms: 0, noop: false }
    }

    fn vouched(batch: u8) -> TraceEvent {
        let (phase, pillar, view) = (Phase::Commit, PILLAR, View(0));
        TraceEvent::Vouched { phase, pillar, view, proposal: proposal(batch) }
    }

    fn certified<const N: usize>(batch: u8, voters: [ReplicaId; N]) -> TraceEvent {
        let (phase, pillar, view) = (Phase::Commit, PILLAR, View(0));
        let voters = voters.into_iter().collect();
        TraceEvent::Certified { phase, pillar, view, proposal: proposal(batch), voters }
    }

    fn property(checked: Checked) -> &'static str {
        checked.map_or_else(|breach| breach.0, |()| "nothing")
    }

    #[test]
    fn too_few_unknown_and_misquoted_voters_are_found() {
        let mut evidence = evidence();
        evidence.check(A, &vouched(1)).unwrap();
        evidence.check(A, &certified(1, [A, C])).unwrap();
        assert_eq!(property(evidence.check(A, &certified(1, [A]))), "quorums");
        assert_eq!(property(evidence.check(A, &certified(1, [A, ReplicaId(3)]))), "quorums");
        assert_eq!(property(evidence.check(A, &certified(1, [A, B]))), "votes");
        assert_eq!(property(evidence.check(B, &certified(2, [A, C]))), "votes");
        evidence.check(B, &vouched(2)).unwrap();
        assert_eq!(property(evidence.check(B, &certified(2, [B, C]))), "one certificate");
    }

    #[test]
    fn checkpoints_of_too_few_and_answers_that_differ_are_found() {
        let mut evidence = evidence();
        let checkpoint = CheckpointId { order: OrderNumber(256), digest: Digest([1; 32]) };
        let stable = |voters: &[ReplicaId]| TraceEvent::CheckpointStable {
            checkpoint,
            voters: voters.iter().copied().collect(),
        };
        assert_eq!(property(evidence.check(A, &stable(&[C]))), "quorums");
        assert_eq!(property(evidence.check(A, &stable(&[B, C]))), "votes");
        evidence.check(B, &TraceEvent::CheckpointTaken(checkpoint)).unwrap();
        evidence.check(A, &stable(&[B, C])).unwrap();

        let executed = |results| TraceEvent::Executed {
            order: OrderNumber(1),
            requests: 1,
            ran: 1,
            results: Digest([results; 32]),
        };
        evidence.check(A, &executed(1)).unwrap();
        evidence.check(B, &executed(1)).unwrap();
        assert_eq!(property(evidence.check(B, &executed(2))), "equal results");
    }

    #[test]
    fn elections_that_rest_on_nothing_are_found() {
        let (view, leader) = (View(1), B);
        let disclosed = Counted { view: View(0), order: OrderNumber(3) };
        let elected = |members: &[(ReplicaId, u64)], leader, vouchers: &[ReplicaId]| {
            let member = |&(replica, from): &(ReplicaId, u64)| Member {
                replica,
                from: View(from),
                disclosed: vec![disclosed; 2],
            };
            TraceEvent::Elected {
                view,
                leader,
                checkpoint: CheckpointId::default(),
                members: members.iter().map(member).collect(),
                vouchers: vouchers.iter().copied().collect(),
            }
        };
        let adopted = |proposals: &[Proposal]| TraceEvent::Adopted {
            pillar: PILLAR,
            view,
            proposals: proposals.to_vec(),
        };
        let mut evidence = evidence();
        assert_eq!(property(evidence.check(A, &adopted(&[]))), "elections");
        // It has not left.
        assert_eq!(
            property(evidence.check(A, &elected(&[(B, 0), (C, 0)], leader, &[]))),
            "elections"
        );
        for pillar in [0, 1].map(PillarId) {
            let steps = vec![Step { to: view, disclosed }];
            let (from, checkpoint, held) = (View(0), OrderNumber(0), Vec::new());
            let left = TraceEvent::PartLeft { pillar, from, to: view, checkpoint, steps, held };
            evidence.check(B, &left).unwrap();
        }
        assert_eq!(property(evidence.check(A, &elected(&[(B, 0)], leader, &[]))), "quorums");
        assert_eq!(
            property(evidence.check(A, &elected(&[(B, 0), (B, 0)], leader, &[]))),
            "elections"
        );
        assert_eq!(property(evidence.check(A, &elected(&[(B, 0), (C, 0)], A, &[]))), "elections");
        // One replica only comes from the latest view.
        assert_eq!(
            property(evidence.check(A, &elected(&[(B, 0), (C, 7)], leader, &[]))),
            "quorums"
        );
        assert_eq!(
            property(evidence.check(A, &elected(&[(B, 0), (C, 0)], leader, &[A]))),
            "elections"
        );
        evidence.check(A, &elected(&[(B, 0), (C, 0)], leader, &[])).unwrap();
        // What the counters disclose is missing.
        assert_eq!(property(evidence.check(A, &adopted(&[]))), "elections");
        evidence.check(A, &adopted(&[proposal(1)])).unwrap();
        assert_eq!(property(evidence.check(B, &adopted(&[proposal(2)]))), "elections");
    }
}
