//! The protocol's stages as agents see them.

use std::fmt::Display;

use hybster_proto::execution::Execution;
use hybster_proto::ids::ReplicaId;
use hybster_proto::intake::Intake;
use hybster_proto::output::{Fatal, Input, Output};
use hybster_proto::protocol::{ControlStage, PillarStage};
use hybster_proto::service::Service;
use hybster_proto::state::StateStage;
use hybster_proto::time::{Time, WallClock};
use hybster_proto::unreplicated::Unreplicated;
use hybster_tss::RequestVerifier;

use super::Counters;
use super::layout::Role;

/// Pages that the state stage digests before it checks for inputs again.
const WORK_PAGES: usize = 16;

/// A state machine that an agent drives. Another ordering protocol brings other stages; the agents
/// do not change.
pub(crate) trait Stage: Send {
    /// Handles an input for this stage.
    fn handle(&mut self, input: Input, now: Time, out: &mut Output);

    /// Pushes what was held back in the hope of more. Called when no input is waiting.
    fn flush(&mut self, now: Time, out: &mut Output) {
        let _ = (now, out);
    }

    /// Tells the time of day, if the stage wants to know it.
    fn set_wall_clock(&mut self, clock: WallClock) {
        let _ = clock;
    }

    /// Called when [`Stage::deadline`] has passed.
    fn tick(&mut self, now: Time, out: &mut Output);

    /// When [`Stage::tick`] must be called. Asked after each turn in which the stage did anything.
    fn deadline(&self) -> Option<Time>;

    /// Does a slice of background work; returns whether some is left.
    fn work(&mut self, now: Time, out: &mut Output) -> bool {
        let _ = (now, out);
        false
    }

    /// Whether clients must wait because of this stage.
    fn is_congested(&mut self) -> bool {
        false
    }

    /// Publishes its counters. Called after each turn in which the stage did anything.
    fn publish(&self, counters: &Counters);
}

/// The addressee of an input, with a dense number for tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address(usize);

impl Address {
    const CLIENTS: Self = Self(0);
    const EXECUTION: Self = Self(1);
    const STATE: Self = Self(2);
    const CONTROL: Self = Self(3);

    /// How many addresses there are.
    pub(crate) fn count(pillars: u16) -> usize {
        4 + usize::from(pillars)
    }

    fn pillar(pillar: u16) -> Self {
        Self(4 + usize::from(pillar))
    }

    /// The addressee of an input.
    #[inline]
    pub(crate) fn of(input: &Input) -> Self {
        match input {
            Input::Intake(_) => Self::CLIENTS,
            Input::Execution(_) => Self::EXECUTION,
            Input::State(_) => Self::STATE,
            Input::Control(_) => Self::CONTROL,
            Input::Pillar(pillar, _) => Self::pillar(pillar.0),
        }
    }

    /// Calls `visit` with each address that a stage answers for.
    pub(crate) fn each_of(role: Role, mut visit: impl FnMut(Self)) {
        match role {
            Role::Clients => visit(Self::CLIENTS),
            Role::Execution => visit(Self::EXECUTION),
            Role::State => visit(Self::STATE),
            Role::Control => visit(Self::CONTROL),
            Role::Pillar(pillar) => visit(Self::pillar(pillar)),
            Role::Server => {
                visit(Self::CLIENTS);
                visit(Self::EXECUTION);
            }
        }
    }

    /// The number.
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// An input reached a stage that it is not for: a table of this replica is wrong, and what it does
/// with the next input is anybody's guess.
///
/// Nothing from outside leads here: which stage a message is for is decided by its kind, and by its
/// pillar field, which is compared with the number of pillars ([`route_peer_message`]).
///
/// [`route_peer_message`]: hybster_proto::output::route_peer_message
#[cold]
fn misdelivered(stage: impl Display, input: &Input, out: &mut Output) {
    let text = format!("{stage} got an input that is not for it: {}", input.in_short());
    out.fatal.get_or_insert(Fatal::Invariant(text));
}

/// The request intake.
pub(crate) struct Clients<V: RequestVerifier>(pub(crate) Intake<V>);

impl<V: RequestVerifier> Stage for Clients<V> {
    fn handle(&mut self, input: Input, now: Time, out: &mut Output) {
        match input {
            Input::Intake(input) => self.0.handle(input, now, out),
            other => misdelivered(Role::Clients, &other, out),
        }
    }

    fn flush(&mut self, now: Time, out: &mut Output) {
        self.0.flush(now, out);
    }

    /// One more round for those who wait for their turn.
    fn work(&mut self, now: Time, out: &mut Output) -> bool {
        if self.0.has_work() {
            self.0.flush(now, out);
        }
        self.0.has_work()
    }

    fn tick(&mut self, now: Time, out: &mut Output) {
        self.0.tick(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        self.0.deadline()
    }

    fn is_congested(&mut self) -> bool {
        self.0.is_congested()
    }

    fn publish(&self, counters: &Counters) {
        counters.clients.pending_bytes.set(self.0.pending_bytes() as u64);
        counters.clients.stored.set(self.0.stored() as u64);
    }
}

/// A pillar of any ordering protocol.
pub(crate) struct Pillar<P>(pub(crate) P);

impl<P: PillarStage> Stage for Pillar<P> {
    fn set_wall_clock(&mut self, clock: WallClock) {
        self.0.set_wall_clock(clock);
    }

    fn handle(&mut self, input: Input, now: Time, out: &mut Output) {
        match input {
            Input::Pillar(pillar, input) if pillar == self.0.pillar() => {
                self.0.handle(input, now, out);
            }
            other => misdelivered(Role::Pillar(self.0.pillar().0), &other, out),
        }
    }

    fn tick(&mut self, now: Time, out: &mut Output) {
        self.0.tick(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        self.0.deadline()
    }

    fn publish(&self, counters: &Counters) {
        let pillar = &counters.pillars[usize::from(self.0.pillar().0)];
        let (prepared, committed) = self.0.progress();
        pillar.prepared.set(prepared.0);
        pillar.committed.set(committed.0);
        pillar.base.set(self.0.window_base().0);
    }
}

impl<S: Service> Stage for Execution<S> {
    fn handle(&mut self, input: Input, now: Time, out: &mut Output) {
        match input {
            Input::Execution(input) => Self::handle(self, input, now, out),
            other => misdelivered(Role::Execution, &other, out),
        }
    }

    fn tick(&mut self, now: Time, out: &mut Output) {
        Self::tick(self, now, out);
    }

    fn deadline(&self) -> Option<Time> {
        Self::deadline(self)
    }

    fn publish(&self, counters: &Counters) {
        counters.execution.publish(&self.status());
        counters.execution.queued.set(self.queued() as u64);
    }
}

impl Stage for StateStage {
    fn handle(&mut self, input: Input, now: Time, out: &mut Output) {
        match input {
            Input::State(input) => Self::handle(self, input, now, out),
            other => misdelivered(Role::State, &other, out),
        }
    }

    fn tick(&mut self, now: Time, out: &mut Output) {
        Self::tick(self, now, out);
    }

    fn deadline(&self) -> Option<Time> {
        Self::deadline(self)
    }

    fn work(&mut self, now: Time, out: &mut Output) -> bool {
        Self::work(self, now, WORK_PAGES, out)
    }

    fn publish(&self, counters: &Counters) {
        counters.state.transfers.set(self.transfers());
        counters.state.snapshots.set(self.snapshots() as u64);
    }
}

/// The control stage of any ordering protocol.
pub(crate) struct Control<C>(pub(crate) C);

impl<C: ControlStage> Stage for Control<C> {
    fn set_wall_clock(&mut self, clock: WallClock) {
        self.0.set_wall_clock(clock);
    }

    fn handle(&mut self, input: Input, now: Time, out: &mut Output) {
        match input {
            Input::Control(input) => self.0.handle(input, now, out),
            other => misdelivered(Role::Control, &other, out),
        }
    }

    fn tick(&mut self, now: Time, out: &mut Output) {
        self.0.tick(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        self.0.deadline()
    }

    fn publish(&self, counters: &Counters) {
        let status = self.0.status();
        counters.control.view.set(status.stable_view.0);
        counters.control.current.set(status.current_view.0);
        counters.control.stable.set(status.stable_checkpoint.0);
        counters.control.transferring.set(status.transferring.into());
        counters.control.diverged.set(status.diverged.into());
        counters.control.divergences.set(status.divergences);
        counters.control.halted.set(status.halted.into());
        for (peer, of_peer) in (0..).map(ReplicaId).zip(&counters.peers) {
            of_peer.differed.set(self.0.differences_of(peer));
        }
        counters.control.views_entered.set(status.views_entered);
    }
}

impl<V: RequestVerifier, S: Service> Stage for Unreplicated<V, S> {
    fn set_wall_clock(&mut self, clock: WallClock) {
        Self::set_wall_clock(self, clock);
    }

    fn handle(&mut self, input: Input, now: Time, out: &mut Output) {
        Self::handle(self, input, now, out);
    }

    fn is_congested(&mut self) -> bool {
        Self::is_congested(self)
    }

    fn tick(&mut self, _now: Time, _out: &mut Output) {}

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn publish(&self, counters: &Counters) {
        counters.execution.publish(&self.status());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hybster_proto::GroupConfig;
    use hybster_proto::ids::{PillarId, ReplicaId};
    use hybster_proto::internals::Pillar as HybsterPillar;
    use hybster_proto::output::{ToControl, ToPillar};
    use hybster_tss::{GroupKey, InProcessTrInX, InProcessVerifier};

    use super::*;

    fn complaint(stage: &mut dyn Stage, input: Input) -> Option<String> {
        let mut out = Output::default();
        stage.handle(input, Time(1), &mut out);
        out.fatal.map(|fatal| fatal.to_string())
    }

    #[test]
    fn an_input_at_the_wrong_stage_stops_the_replica() {
        let config = Arc::new(GroupConfig::default());
        let mut state = StateStage::new(Arc::clone(&config), ReplicaId(0));
        let text = complaint(&mut state, Input::Control(ToControl::Stuck)).expect("it stops");
        assert!(text.contains("state got an input") && text.contains("Stuck"), "{text}");

        let (key, digest) = (GroupKey::from_bytes([7; 32]), config.digest());
        let instance = config.instance(ReplicaId(0), PillarId(1));
        let trinx = InProcessTrInX::new(&key, config.mac, digest, instance);
        let verifier = InProcessVerifier::new(&key, config.mac, digest);
        let pillar = HybsterPillar::new(config, ReplicaId(0), PillarId(1), trinx, verifier);
        let mut pillar = Pillar(pillar);
        let asked = |of| Input::Pillar(PillarId(of), ToPillar::AskPeers);
        assert_eq!(complaint(&mut pillar, asked(1)), None);
        let text = complaint(&mut pillar, asked(0)).expect("it stops");
        assert!(text.contains("pillar 1 got an input"), "{text}");
    }
}
