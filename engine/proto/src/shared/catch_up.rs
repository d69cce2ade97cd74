//! The stable checkpoint, and the way to one that this replica did not reach by itself
//! (TR listings 18 and 20).
//!
//! As soon as enough replicas vouch for a state, at least one correct replica holds it, and the
//! window may move. While this replica's execution is about to get there by itself, the window waits
//! for it; otherwise the window jumps and the state is transferred.

use bytes::Bytes;
use hybster_tss::Digest;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::ids::{OrderNumber, Peers, ReplicaId, View};
use crate::mutants::{self, Mutant};
use crate::notice::Notice;
use crate::output::{Ended, LogRecord, Network, Output, ToPillar, ToState, Watermark};
use crate::time::Time;
use crate::trace::TraceEvent;
use crate::wire::CheckpointId;

/// Waits for this replica's execution, in resend periods, before a state is transferred.
const PATIENCE: u64 = 4;

/// What shows that a checkpoint is stable: a certificate that can be shown to others, or, where
/// votes cannot be relayed, only the checkpoint that enough replicas claimed, each to this one.
/// The default is that of the initial state.
pub(crate) trait Evidence: Clone + Default {
    /// The stable checkpoint.
    fn id(&self) -> CheckpointId;

    /// The replicas that vouch for it.
    fn voters(&self) -> Peers;

    /// What the log keeps of it.
    fn record(&self) -> LogRecord;

    /// The message that shows it to others, if one can.
    fn message(&self) -> Option<Bytes>;

    /// The last order number of the epoch, if this says that it ends.
    fn boundary(&self) -> Option<OrderNumber> {
        None
    }
}

/// The stable checkpoint of a replica and what lies beyond it. Evidence that is handed in has been
/// verified.
pub(crate) struct CatchUp<E> {
    config: Arc<GroupConfig>,
    stable: Arc<E>,
    /// The checkpoint that the parts of the last VIEW-CHANGE start from.
    left_with: Arc<E>,
    /// This replica's checkpoints from the stable one on.
    taken: BTreeMap<OrderNumber, Digest>,
    /// A stable checkpoint that is not reached yet, and since when execution made no progress.
    ahead: Option<(E, Time)>,
    transferring: Option<CheckpointId>,
    diverged: bool,
    /// How often this replica's state was not what enough replicas vouch for.
    divergences: u64,
    asked: Option<Time>,
    helped: Vec<Option<Time>>,
}

impl<E: Evidence> CatchUp<E> {
    /// A replica in the initial state.
    pub(crate) fn new(config: Arc<GroupConfig>) -> Self {
        Self {
            stable: Arc::default(),
            left_with: Arc::default(),
            taken: BTreeMap::new(),
            ahead: None,
            transferring: None,
            diverged: false,
            divergences: 0,
            asked: None,
            helped: vec![None; usize::from(config.replicas)],
            config,
        }
    }

    /// As a log tells it.
    pub(crate) fn recover(&mut self, stable: E) {
        self.stable = Arc::new(stable);
        self.left_with = Arc::clone(&self.stable);
    }

    /// Execution cannot reach the stable checkpoint by itself.
    pub(crate) fn transfer_stable(&mut self, out: &mut Output) {
        let id = self.stable.id();
        self.transfer(id, out);
    }

    /// The stable checkpoint.
    pub(crate) fn stable(&self) -> &E {
        &self.stable
    }

    /// The stable checkpoint, remembered as the one that a VIEW-CHANGE's parts start from.
    pub(crate) fn shared_stable(&mut self) -> Arc<E> {
        self.left_with = Arc::clone(&self.stable);
        Arc::clone(&self.stable)
    }

    /// The checkpoint that the last [`CatchUp::shared_stable`] returned.
    pub(crate) fn left_with(&self) -> &E {
        &self.left_with
    }

    /// The highest checkpoint that is known to be stable.
    pub(crate) fn highest(&self) -> &E {
        self.ahead.as_ref().map_or(&*self.stable, |(evidence, _)| evidence)
    }

    /// Whether a checkpoint is stable that this replica has not reached.
    pub(crate) fn is_behind(&self) -> bool {
        self.ahead.is_some()
    }

    /// This replica's checkpoints after an order number, rising.
    pub(crate) fn taken_after(
        &self,
        order: OrderNumber,
    ) -> impl Iterator<Item = CheckpointId> + '_ {
        let after = self.taken.range(order..).filter(move |(of, _)| **of > order);
        after.map(|(order, digest)| CheckpointId { order: *order, digest: *digest })
    }

    pub(crate) fn is_transferring(&self) -> bool {
        self.transferring.is_some()
    }

    pub(crate) fn is_diverged(&self) -> bool {
        self.diverged
    }

    pub(crate) fn divergences(&self) -> u64 {
        self.divergences
    }

    /// Moves the window now if this replica's execution is there or `jump` says so, else waits a
    /// little for it. `view` is the stable view.
    pub(crate) fn learn(
        &mut self,
        evidence: E,
        jump: bool,
        view: View,
        now: Time,
        out: &mut Output,
    ) {
        let id = evidence.id();
        if id.order <= self.stable.id().order {
            return;
        }
        match self.taken.get(&id.order) {
            Some(own) if *own == id.digest => self.forward(evidence, false, view, now, out),
            Some(_) => self.diverge(evidence, view, now, out),
            None if jump || self.diverged => self.jump(evidence, view, now, out),
            None => {
                let ahead = &mut self.ahead;
                if ahead.as_ref().is_none_or(|(known, _)| known.id().order < id.order) {
                    let since = ahead.as_ref().map_or(now, |(_, since)| *since);
                    *ahead = Some((evidence, since));
                }
            }
        }
    }

    /// TR listing 18, forwardWindow.
    fn forward(&mut self, evidence: E, jumps: bool, view: View, now: Time, out: &mut Output) {
        let id = evidence.id();
        assert!(id.order >= self.stable.id().order, "stable checkpoints rise");
        out.log(|| evidence.record());
        out.trace(|| TraceEvent::CheckpointStable { checkpoint: id, voters: evidence.voters() });
        let message = if out.logging { evidence.message() } else { None };
        let certificate = message.map(|message| Arc::from(&message[..]));
        let is_missed = jumps && mutants::active(Mutant::BoundaryUncertified);
        let boundary = evidence.boundary().filter(|_| !is_missed);
        self.stable = Arc::new(evidence);
        self.taken = self.taken.split_off(&id.order);
        self.ahead.take_if(|(known, _)| known.id().order <= id.order);
        if let Some((_, since)) = &mut self.ahead {
            *since = now;
        }
        // The boundary comes with the certificate that moves the window: who has executed nothing since has
        // no other way to know it before it certifies beyond (EPOCHS.md).
        for pillar in self.config.all_pillars() {
            out.pillar(pillar, ToPillar::ForwardWindow { to: id.order, boundary });
        }
        self.tell_end(out);
        out.state(ToState::Stable { id, certificate });
        out.network.push(Network::Withdraw(Watermark { order: id.order, view }));
    }

    /// Tells the driver if the epoch is over: its last checkpoint is stable.
    pub(crate) fn tell_end(&self, out: &mut Output) {
        let id = self.stable.id();
        if self.stable.boundary() == Some(id.order) {
            out.ended = self.stable.message().map(|certificate| Ended { id, certificate });
        }
    }

    /// The window moves to a checkpoint that this replica's execution did not reach.
    fn jump(&mut self, evidence: E, view: View, now: Time, out: &mut Output) {
        let id = evidence.id();
        self.forward(evidence, true, view, now, out);
        self.transfer(id, out);
    }

    fn transfer(&mut self, id: CheckpointId, out: &mut Output) {
        if self.transferring.replace(id) != Some(id) {
            out.notice(|| Notice::TransferBegun { order: id.order });
        }
        out.state(ToState::Transfer { id, whole: self.diverged });
    }

    /// This replica's state differs from what enough replicas vouch for: it is replaced.
    fn diverge(&mut self, evidence: E, view: View, now: Time, out: &mut Output) {
        let id = evidence.id();
        out.trace(|| TraceEvent::Diverged(id));
        out.notice(|| Notice::StateDiverged { order: id.order });
        if let Some(peer) = evidence.voters().iter().next() {
            out.state(ToState::Compare { peer, theirs: id });
        }
        self.diverged = true;
        self.divergences += 1;
        self.taken.clear();
        self.jump(evidence, view, now, out);
    }

    /// This replica's execution digested a checkpoint.
    pub(crate) fn checkpoint_taken(
        &mut self,
        id: CheckpointId,
        view: View,
        now: Time,
        out: &mut Output,
    ) {
        let stable = self.stable.id();
        if self.diverged {
            return;
        }
        self.transferring.take_if(|target| target.order <= id.order);
        if id.order < stable.order {
            return;
        }
        if id.order == stable.order {
            if id.digest != stable.digest {
                let evidence = E::clone(&self.stable);
                self.diverge(evidence, view, now, out);
            } else if self.stable.boundary() == Some(id.order) {
                // The log of a replica that was started again has that it is stable, and its disk need not have the
                // state. No later checkpoint would bring it there: with this one the epoch ends.
                let certificate = self.stable.message().map(|message| Arc::from(&message[..]));
                out.state(ToState::Stable { id, certificate });
            }
            self.taken.insert(id.order, id.digest);
            return;
        }
        self.taken.insert(id.order, id.digest);
        let Some((known, since)) = &mut self.ahead else {
            return;
        };
        if known.id().order > id.order {
            // Execution makes progress: give it more time.
            *since = now;
        } else if let Some((evidence, _)) = self.ahead.take() {
            self.learn(evidence, false, view, now, out);
        }
    }

    /// A transferred state was installed.
    pub(crate) fn installed(&mut self, id: CheckpointId, out: &mut Output) {
        self.diverged = false;
        self.transferring = None;
        let stable = self.stable.id();
        if stable.order > id.order {
            // The group went on meanwhile, but less differs than before.
            self.transfer(stable, out);
        }
    }

    /// To be called when [`CatchUp::deadline`] has passed.
    pub(crate) fn tick(&mut self, view: View, now: Time, out: &mut Output) {
        let patience = PATIENCE * self.config.resend_us;
        let due = |(_, since): &mut (E, Time)| now.since_us(*since) >= patience;
        if let Some((evidence, _)) = self.ahead.take_if(due) {
            self.jump(evidence, view, now, out);
        }
    }

    /// When the wait for this replica's execution ends.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let patience = PATIENCE * self.config.resend_us;
        self.ahead.as_ref().map(|(_, since)| since.after_us(patience))
    }

    /// Whether peers may be asked for their state now, at a limited rate. A caller that gets `true` asks.
    pub(crate) fn may_ask(&mut self, now: Time) -> bool {
        let due = self.asked.is_none_or(|at| now.since_us(at) >= self.config.resend_us);
        if due {
            self.asked = Some(now);
        }
        due
    }

    /// Starts a transfer again that is under way: its holders may have moved on.
    pub(crate) fn renew_transfer(&mut self, out: &mut Output) {
        if let Some(id) = self.transferring {
            let stable = self.stable.id();
            let target = if stable.order > id.order { stable } else { id };
            self.transfer(target, out);
        }
    }

    /// Whether a peer that lags may be helped now, at a limited rate. A caller that gets `true` helps.
    pub(crate) fn may_help(&mut self, peer: ReplicaId, now: Time) -> bool {
        let Some(helped) = self.helped.get_mut(usize::from(peer.0)) else {
            return false;
        };
        let due = helped.is_none_or(|at| now.since_us(at) >= self.config.resend_us / 2);
        if due {
            *helped = Some(now);
        }
        due
    }
}

impl<E: Evidence> CatchUp<E> {
    /// Stops the process if the checkpoints are not as the rules above say.
    #[inline]
    pub(crate) fn check_invariants(&self) {
        let stable = self.stable.id().order;
        assert!(self.left_with.id().order <= stable, "stable checkpoints rise");
        let ahead = self.ahead.as_ref().map(|(evidence, _)| evidence.id().order);
        assert!(ahead.is_none_or(|order| order > stable), "what is stable is not ahead");
        let target = self.transferring.map(|id| id.order);
        assert!(target.is_none_or(|order| order <= stable), "only stable states are transferred");
        assert!(!self.diverged || target.is_some(), "a state that diverged is replaced");
        let first = self.taken.first_key_value().map(|(order, _)| *order);
        assert!(first.is_none_or(|order| order >= stable), "what lies behind is forgotten");
        // Execution goes no further than the window.
        let windows = 1 + u64::from(mutants::active(Mutant::WindowUnchecked));
        let taken = 1 + windows * self.config.window / self.config.checkpoint_interval;
        assert!(self.taken.len() as u64 <= taken, "own checkpoints lie in the window");
    }
}

#[cfg(feature = "model")]
impl<E: Evidence> CatchUp<E> {
    /// Appends what is known; `evidence_into` appends evidence.
    pub(crate) fn fingerprint(
        &self,
        into: &mut crate::fingerprint::Fingerprint,
        evidence_into: impl Fn(&E, &mut crate::fingerprint::Fingerprint),
    ) {
        let Self {
            config: _,
            stable,
            left_with,
            taken,
            ahead,
            transferring,
            diverged,
            divergences: _,
            asked: _,
            helped: _,
        } = self;
        evidence_into(stable, into);
        evidence_into(left_with, into);
        into.number(taken.len() as u64);
        for (order, digest) in taken {
            into.number(order.0);
            into.bytes(&digest.0);
        }
        into.flag(ahead.is_some());
        if let Some((evidence, _)) = ahead {
            evidence_into(evidence, into);
        }
        into.number(transferring.map_or(0, |id| id.order.0));
        into.flag(*diverged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noticed::noticed;

    /// What a protocol has whose votes cannot be shown to others.
    #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
    struct Claimed(CheckpointId);

    impl Evidence for Claimed {
        fn id(&self) -> CheckpointId {
            self.0
        }

        fn voters(&self) -> Peers {
            Peers::default()
        }

        fn record(&self) -> LogRecord {
            LogRecord::new(&[], Bytes::new())
        }

        fn message(&self) -> Option<Bytes> {
            None
        }
    }

    fn id(order: u64, digest: u8) -> CheckpointId {
        CheckpointId { order: OrderNumber(order), digest: Digest([digest; 32]) }
    }

    fn fresh() -> (CatchUp<Claimed>, Output) {
        (CatchUp::new(Arc::new(GroupConfig::default())), Output::default())
    }

    fn transfers(out: &mut Output) -> Vec<(u64, bool)> {
        let inputs = out.inputs.drain(..).filter_map(|input| match input {
            crate::output::Input::State(ToState::Transfer { id, whole }) => {
                Some((id.order.0, whole))
            }
            _ => None,
        });
        inputs.collect()
    }

    #[test]
    fn execution_is_given_time_before_a_state_is_transferred() {
        let (mut catch_up, mut out) = fresh();
        catch_up.learn(Claimed(id(512, 1)), false, View(0), Time(0), &mut out);
        assert!(catch_up.is_behind() && out.is_empty());
        // It makes progress, so it gets more time.
        catch_up.checkpoint_taken(id(256, 9), View(0), Time(10), &mut out);
        let deadline = catch_up.deadline().unwrap();
        assert_eq!(deadline, Time(10).after_us(PATIENCE * 50_000));
        catch_up.tick(View(0), Time(0).after_us(PATIENCE * 50_000), &mut out);
        assert!(catch_up.is_behind() && out.is_empty());
        catch_up.tick(View(0), deadline, &mut out);
        assert_eq!(transfers(&mut out), [(512, false)]);
        catch_up.installed(id(512, 1), &mut out);
        assert!(!catch_up.is_transferring() && *catch_up.stable() == Claimed(id(512, 1)));
    }

    #[test]
    fn a_checkpoint_that_this_replica_has_moves_the_window_at_once() {
        let (mut catch_up, mut out) = fresh();
        catch_up.checkpoint_taken(id(256, 1), View(0), Time(0), &mut out);
        catch_up.learn(Claimed(id(256, 1)), false, View(0), Time(0), &mut out);
        assert_eq!(catch_up.stable().0, id(256, 1));
        assert_eq!(transfers(&mut out), []);
        // Older evidence changes nothing.
        out.network.clear();
        catch_up.learn(Claimed(id(256, 2)), true, View(0), Time(0), &mut out);
        assert!(out.is_empty() && !catch_up.is_diverged());
    }

    #[test]
    fn a_state_that_differs_is_replaced_as_a_whole() {
        let (mut catch_up, mut out) = fresh();
        catch_up.checkpoint_taken(id(256, 1), View(0), Time(0), &mut out);
        catch_up.learn(Claimed(id(256, 2)), false, View(0), Time(0), &mut out);
        assert!(catch_up.is_diverged());
        assert_eq!(transfers(&mut out), [(256, true)]);
        // What it executes until then counts for nothing.
        catch_up.checkpoint_taken(id(512, 7), View(0), Time(1), &mut out);
        catch_up.learn(Claimed(id(512, 3)), false, View(0), Time(1), &mut out);
        assert_eq!(transfers(&mut out), [(512, true)]);
        catch_up.installed(id(256, 2), &mut out);
        assert_eq!(transfers(&mut out), [(512, false)]);
    }

    #[test]
    fn asking_and_helping_have_a_rate() {
        let (mut catch_up, _) = fresh();
        assert!(catch_up.may_ask(Time(1)) && !catch_up.may_ask(Time(50_000)));
        assert!(catch_up.may_ask(Time(50_001)));
        assert!(catch_up.may_help(ReplicaId(1), Time(1)));
        assert!(!catch_up.may_help(ReplicaId(1), Time(25_000)));
        assert!(catch_up.may_help(ReplicaId(2), Time(2)));
        assert!(catch_up.may_help(ReplicaId(1), Time(25_001)));
        assert!(!catch_up.may_help(ReplicaId(9), Time(1)));
    }

    /// The second checkpoint is stable.
    fn settled() -> CatchUp<Claimed> {
        CatchUp { stable: Arc::new(Claimed(id(512, 1))), ..fresh().0 }
    }

    fn taken(order: u64) -> (OrderNumber, Digest) {
        (OrderNumber(order), Digest([1; 32]))
    }

    noticed! {
        settled(), |it| it.check_invariants();
        a_checkpoint_that_falls: "rise", |it| it.left_with = Arc::new(Claimed(id(768, 1)));
        a_stable_one_ahead: "not ahead", |it| it.ahead = Some((Claimed(id(512, 1)), Time(1)));
        a_transfer_too_far: "transferred", |it| it.transferring = Some(id(768, 1));
        no_way_out: "is replaced", |it| it.diverged = true;
        an_old_one_kept: "forgotten", |it| it.taken.extend([taken(256)]);
        too_many_taken: "in the window", |it| it.taken.extend((2..9).map(|k| taken(k * 256)));
    }
}
