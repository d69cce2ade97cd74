//! All stages of one replica in one place, for drivers that run them on one thread.

use hybster_tss::{TrInX, Verifier};
use std::sync::Arc;

use crate::clients::ClientStage;
use crate::config::GroupConfig;
use crate::control::Control;
use crate::execution::Execution;
use crate::ids::ReplicaId;
use crate::output::{Letter, Output};
use crate::pillar::Pillar;
use crate::service::Service;
use crate::state::StateStage;
use crate::time::{Time, earliest};

/// The stages of a replica.
pub struct Stages<T: TrInX, V: Verifier, S: Service> {
    /// TR listing 15.
    pub clients: ClientStage<V>,
    /// TR listing 16, P times.
    pub pillars: Vec<Pillar<T, V>>,
    /// TR listing 17.
    pub execution: Execution<S>,
    /// TR listings 18 and 20.
    pub state: StateStage,
    /// TR listings 12 and 19.
    pub control: Control<V>,
}

impl<T: TrInX, V: Verifier, S: Service> Stages<T, V, S> {
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
            clients: ClientStage::new(config.clone(), id, verifier()),
            pillars,
            execution: Execution::new(config.clone(), id, service),
            state: StateStage::new(config.clone(), id),
            control: Control::new(config, id, verifier()),
        }
    }

    /// Hands a letter to its stage.
    pub fn handle(&mut self, letter: Letter, now: Time, out: &mut Output) {
        match letter {
            Letter::Clients(letter) => self.clients.handle(letter, now, out),
            Letter::Pillar(pillar, letter) => {
                self.pillars[usize::from(pillar.0)].handle(letter, now, out);
            }
            Letter::Execution(letter) => self.execution.handle(letter, now, out),
            Letter::State(letter) => self.state.handle(letter, now, out),
            Letter::Control(letter) => self.control.handle(letter, now, out),
        }
    }

    /// To be called when no letter is waiting: the client stage hands out what is pending.
    pub fn flush(&mut self, now: Time, out: &mut Output) {
        self.clients.flush(now, out);
    }

    /// To be called when [`Stages::deadline`] has passed.
    pub fn tick(&mut self, now: Time, out: &mut Output) {
        self.clients.tick(now, out);
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
        let ends = earliest(self.clients.deadline(), self.execution.deadline());
        let rest = earliest(self.state.deadline(), self.control.deadline());
        earliest(pillars, earliest(ends, rest))
    }
}
