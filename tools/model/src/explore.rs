//! Exploring a model to the end, with the outcome as plain numbers.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::checker::CoreModel;
use crate::group::Bounds;
use crate::schedule::Schedule;

/// The result of an exploration.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The bounds.
    pub bounds: Bounds,
    /// Different states.
    pub states: usize,
    /// Steps from a state to a state, those to known states included.
    pub transitions: usize,
    /// The longest shortest way to a state.
    pub depth: usize,
    /// A property that does not hold, and how it is broken.
    pub broken: Option<(&'static str, Schedule)>,
    /// Things that should be possible and did not happen: the model is vacuous.
    pub missed: Vec<&'static str>,
    /// Time.
    pub elapsed: Duration,
    /// Local states, messages and calls of the core.
    pub effort: String,
}

/// Explores breadth first: all states, or those before a depth. Stops at a broken property.
#[must_use]
pub fn explore(bounds: &Bounds, depth: Option<usize>) -> Outcome {
    let start = Instant::now();
    let mut checker =
        CoreModel::new(bounds.clone()).checker().finish_when(HasDiscoveries::AnyFailures);
    if let Some(depth) = depth {
        checker = checker.target_max_depth(depth);
    }
    let checker = checker.spawn_bfs().join();
    let model = checker.model();
    let discoveries = checker.discoveries();
    let (always, sometimes): (Vec<_>, Vec<_>) = model
        .properties()
        .into_iter()
        .map(|property| (property.name, property.expectation.discovery_is_failure()))
        .partition(|(_, safety)| *safety);
    let broken = always.iter().find_map(|(name, _)| {
        let path = discoveries.get(name)?.clone();
        Some((*name, model.schedule(&path.into_actions())))
    });
    let missed = sometimes.iter().map(|(name, _)| *name);
    let missed = missed.filter(|name| !discoveries.contains_key(name)).collect();
    Outcome {
        bounds: bounds.clone(),
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        broken,
        missed,
        elapsed: start.elapsed(),
        effort: model.effort(),
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (states, transitions, depth) = (self.states, self.transitions, self.depth);
        let seconds = self.elapsed.as_secs_f32();
        writeln!(f, "{:?}", self.bounds)?;
        write!(f, "{states} states, {transitions} transitions, depth {depth}, {seconds:.1} s; ")?;
        write!(f, "{}", self.effort)?;
        if let Some((property, schedule)) = &self.broken {
            write!(f, "\n{property} does not hold:\n{schedule}")?;
        }
        Ok(())
    }
}
