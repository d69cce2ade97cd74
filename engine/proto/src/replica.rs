//! All stages of one replica in one place, for drivers that run them on one thread.

use hybster_tss::RandomnessKey;
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::execution::{Beginning, Execution};
use crate::ids::{OrderNumber, PillarId, ReplicaId};
use crate::intake::Intake;
use crate::output::{Input, Output};
use crate::protocol::{Agreement, ControlStage, Ordering, PillarStage};
use crate::service::{RestoreError, Service};
use crate::state::StateStage;
use crate::time::{Time, WallClock, earliest};

/// What a replica is started with.
pub struct Start<O: Ordering, S: Service> {
    /// The group's constants.
    pub config: Arc<GroupConfig>,
    /// Which replica.
    pub id: ReplicaId,
    /// What its protocol brings.
    pub agreement: Agreement<O>,
    /// The service, in its initial state.
    pub service: S,
    /// The group's key for agreed random bytes.
    pub randomness: RandomnessKey,
}

/// The stages of a replica.
pub struct Stages<O: Ordering, S: Service> {
    /// TR listing 15.
    pub intake: Intake<O::Requests>,
    /// TR listing 16, P times.
    pub pillars: Vec<O::Pillar>,
    /// TR listing 17.
    pub execution: Execution<S>,
    /// TR listings 18 and 20.
    pub state: StateStage,
    /// TR listings 12 and 19.
    pub control: O::Control,
}

impl<O: Ordering, S: Service> Stages<O, S> {
    /// The stages of a replica in the initial state.
    ///
    /// # Panics
    /// If the group runs another protocol.
    pub fn new(
        config: Arc<GroupConfig>,
        id: ReplicaId,
        agreement: Agreement<O>,
        service: S,
        randomness: RandomnessKey,
    ) -> Self {
        let Agreement { protocol, requests, pillars, control } = agreement;
        assert_eq!(config.protocol, protocol, "the group's protocol decides about the stages");
        Self {
            intake: Intake::new(config.clone(), id, requests),
            pillars,
            execution: Execution::new(config.clone(), id, service, randomness),
            state: StateStage::new(config, id),
            control,
        }
    }

    /// The stages of a replica that was started before, where its log ended.
    ///
    /// `agreement` is what the protocol makes of the log. What execution does first is pushed into
    /// `out`. Then control and pillars have to resume, each with an output of its own.
    ///
    /// # Errors
    /// If the service cannot read the checkpoint.
    ///
    /// # Panics
    /// If the group runs another protocol.
    pub fn recover(
        start: Start<O, S>,
        beginning: Beginning,
        now: Time,
        out: &mut Output,
    ) -> Result<Self, RestoreError> {
        let Start { config, id, agreement, service, randomness } = start;
        let Agreement { protocol, requests, pillars, control } = agreement;
        assert_eq!(config.protocol, protocol, "the group's protocol decides about the stages");
        let durable = beginning.checkpoint.as_ref().map_or(OrderNumber(0), |(id, _)| id.order);
        let intake = Intake::new(config.clone(), id, requests);
        let execution =
            Execution::recover(config.clone(), id, service, randomness, beginning, now, out)?;
        let state = StateStage::recover(config, id, durable);
        Ok(Self { intake, pillars, execution, state, control })
    }

    /// Has the control stage go on where the log ended; the first thing that it does.
    pub fn resume_control(&mut self, now: Time, out: &mut Output) {
        self.control.resume(now, out);
    }

    /// Has a pillar go on where the log ended; the first thing that it does.
    pub fn resume_pillar(&mut self, pillar: PillarId, now: Time, out: &mut Output) {
        self.pillars[usize::from(pillar.0)].resume(now, out);
    }

    /// Tells the stages the time of day. The driver does so whenever it has read the host's clock
    /// again, and often enough that the core's idea of it is right to a few milliseconds.
    pub fn set_wall_clock(&mut self, clock: WallClock) {
        for pillar in &mut self.pillars {
            pillar.set_wall_clock(clock);
        }
        self.control.set_wall_clock(clock);
    }

    /// Hands an input to its stage.
    pub fn handle(&mut self, input: Input, now: Time, out: &mut Output) {
        match input {
            Input::Intake(input) => self.intake.handle(input, now, out),
            Input::Pillar(pillar, input) => {
                self.pillars[usize::from(pillar.0)].handle(input, now, out);
            }
            Input::Execution(input) => self.execution.handle(input, now, out),
            Input::State(input) => self.state.handle(input, now, out),
            Input::Control(input) => self.control.handle(input, now, out),
        }
    }

    /// To be called when no input is waiting: the request intake hands out what is pending.
    pub fn flush(&mut self, now: Time, out: &mut Output) {
        self.intake.flush(now, out);
    }

    /// To be called when [`Stages::deadline`] has passed.
    pub fn tick(&mut self, now: Time, out: &mut Output) {
        self.intake.tick(now, out);
        for pillar in &mut self.pillars {
            pillar.tick(now, out);
        }
        self.execution.tick(now, out);
        self.state.tick(now, out);
        self.control.tick(now, out);
    }

    /// When [`Stages::tick`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let pillars = self.pillars.iter().fold(None, |at, p| earliest(at, p.deadline()));
        let ends = earliest(self.intake.deadline(), self.execution.deadline());
        let rest = earliest(self.state.deadline(), self.control.deadline());
        earliest(pillars, earliest(ends, rest))
    }

    /// Looks at everything that must hold in the stages between two inputs, what takes time
    /// included: for simulators. What does not take time is checked after each input.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_all_invariants(&self) {
        self.intake.check_all_invariants();
        self.pillars.iter().for_each(PillarStage::check_all_invariants);
        self.execution.check_all_invariants();
        self.state.check_all_invariants();
    }
}
