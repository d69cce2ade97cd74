//! All stages of one replica in one place, for drivers that run them on one thread.

use hybster_tss::{RequestVerifier, TrInX, Verifier};
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::execution::Execution;
use crate::hybster::control::Control;
use crate::hybster::pillar::Pillar;
use crate::ids::ReplicaId;
use crate::intake::Intake;
use crate::output::{Input, Output};
use crate::service::Service;
use crate::state::StateStage;
use crate::time::{Time, earliest};

/// The stages of a replica.
pub struct Stages<T: TrInX, V: Verifier + RequestVerifier, S: Service> {
    /// TR listing 15.
    pub intake: Intake<V>,
    /// TR listing 16, P times.
    pub pillars: Vec<Pillar<T, V>>,
    /// TR listing 17.
    pub execution: Execution<S>,
    /// TR listings 18 and 20.
    pub state: StateStage,
    /// TR listings 12 and 19.
    pub control: Control<V>,
}

impl<T: TrInX, V: Verifier + RequestVerifier, S: Service> Stages<T, V, S> {
    /// The stages of a replica in the initial state.
    ///
    /// # Panics
    /// If there is not exactly one TrInX instance per pillar, in the pillars' order.
    pub fn new(
        config: Arc<GroupConfig>,
        id: ReplicaId,
        trinx: Vec<T>,
        mut verifier: impl FnMut() -> V,
        service: S,
    ) -> Self {
        assert_eq!(trinx.len(), usize::from(config.pillars), "one TrInX instance per pillar");
        let pillars = config
            .all_pillars()
            .zip(trinx)
            .map(|(pillar, trinx)| Pillar::new(config.clone(), id, pillar, trinx, verifier()))
            .collect();
        Stages {
            intake: Intake::new(config.clone(), id, verifier()),
            pillars,
            execution: Execution::new(config.clone(), id, service),
            state: StateStage::new(config.clone(), id),
            control: Control::new(config, id, verifier()),
        }
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
}
