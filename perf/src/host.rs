//! One replica on one thread, as the fused layout runs it, and the trait of its observers.

use std::collections::VecDeque;

use hybster_proto::output::{Input, Output};
use hybster_proto::service::Service;
use hybster_proto::time::Time;

use crate::fixture::Stages;

/// Pages that the state stage digests at a time, as the runtime does.
const WORK_PAGES: usize = 16;

/// The part of the system that is working.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The client takes a request.
    Submit,
    /// The client takes replies.
    Accept,
    /// The request intake.
    Clients,
    /// A pillar.
    Pillar,
    /// The execution stage.
    Execution,
    /// The state stage.
    State,
    /// The control stage.
    Control,
}

impl Place {
    /// All parts, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Submit,
        Self::Accept,
        Self::Clients,
        Self::Pillar,
        Self::Execution,
        Self::State,
        Self::Control,
    ];

    /// The stage that an input is for.
    #[must_use]
    pub fn of(input: &Input) -> Self {
        match input {
            Input::Intake(_) => Self::Clients,
            Input::Pillar(..) => Self::Pillar,
            Input::Execution(_) => Self::Execution,
            Input::State(_) => Self::State,
            Input::Control(_) => Self::Control,
        }
    }
}

/// Observes a group while it works.
pub trait Probe {
    /// A replica's stage is about to handle an input.
    fn input(&mut self, replica: usize, input: &Input) {
        let _ = (replica, input);
    }

    /// A part begins to work (at a replica, or at the client).
    fn enter(&mut self, place: Place) {
        let _ = place;
    }

    /// That work has ended.
    fn leave(&mut self) {}
}

/// No observer.
impl Probe for () {}

/// A replica and the inputs between its stages.
pub struct Host<S: Service> {
    index: usize,
    /// The replica's stages.
    pub stages: Stages<S>,
    line: VecDeque<Input>,
    /// The replica's outgoing messages; the owner empties it.
    pub out: Output,
}

impl<S: Service> Host<S> {
    /// A replica at rest.
    #[must_use]
    pub fn new(index: usize, stages: Stages<S>) -> Self {
        Self { index, stages, line: VecDeque::new(), out: Output::default() }
    }

    /// Handles an input and all that follow from it inside the replica.
    ///
    /// # Panics
    /// If one of the replica's invariants is broken.
    pub fn take(&mut self, input: Input, now: Time, probe: &mut impl Probe) {
        self.line.push_back(input);
        loop {
            while let Some(input) = self.line.pop_front() {
                probe.input(self.index, &input);
                probe.enter(Place::of(&input));
                self.stages.handle(input, now, &mut self.out);
                probe.leave();
                self.line.extend(self.out.inputs.drain(..));
            }
            probe.enter(Place::Clients);
            self.stages.flush(now, &mut self.out);
            probe.leave();
            probe.enter(Place::State);
            let is_working = self.stages.state.work(now, WORK_PAGES, &mut self.out);
            probe.leave();
            self.line.extend(self.out.inputs.drain(..));
            if self.line.is_empty() && !is_working {
                break;
            }
        }
        assert_eq!(self.out.fatal, None, "replica {}", self.index);
    }

    /// Drops the outgoing messages, but keeps their memory.
    pub fn discard(&mut self) {
        self.out.network.clear();
        self.out.replies.clear();
        self.out.rejections.clear();
    }
}
