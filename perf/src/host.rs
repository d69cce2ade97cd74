//! One replica on one thread, as the fused layout runs it, and who looks on.

use std::collections::VecDeque;

use hybster_proto::output::{Letter, Output};
use hybster_proto::service::Service;
use hybster_proto::time::Time;

use crate::fixture::Stages;

/// Pages that the state stage digests at a time, as the runtime does.
const WORK_PAGES: usize = 16;

/// Whose work is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The client takes a request.
    Submit,
    /// The client takes replies.
    Accept,
    /// The client stage.
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
    /// All places, in the order of their numbers.
    pub const ALL: [Place; 7] = [
        Place::Submit,
        Place::Accept,
        Place::Clients,
        Place::Pillar,
        Place::Execution,
        Place::State,
        Place::Control,
    ];

    /// The stage that a letter is for.
    #[must_use]
    pub fn of(letter: &Letter) -> Place {
        match letter {
            Letter::Clients(_) => Place::Clients,
            Letter::Pillar(..) => Place::Pillar,
            Letter::Execution(_) => Place::Execution,
            Letter::State(_) => Place::State,
            Letter::Control(_) => Place::Control,
        }
    }
}

/// Looks on while a group works.
pub trait Probe {
    /// A replica's stage is about to handle a letter.
    fn letter(&mut self, replica: usize, letter: &Letter) {
        let _ = (replica, letter);
    }

    /// Work of a place begins (at a replica, or at the client).
    fn enter(&mut self, place: Place) {
        let _ = place;
    }

    /// It has ended.
    fn leave(&mut self) {}
}

/// Nobody looks on.
impl Probe for () {}

/// A replica and the letters between its stages.
pub struct Host<S: Service> {
    index: usize,
    /// The replica's stages.
    pub stages: Stages<S>,
    line: VecDeque<Letter>,
    /// What the replica wants to send; the owner empties it.
    pub out: Output,
}

impl<S: Service> Host<S> {
    /// A replica at rest.
    #[must_use]
    pub fn new(index: usize, stages: Stages<S>) -> Host<S> {
        Host { index, stages, line: VecDeque::new(), out: Output::default() }
    }

    /// Handles a letter and all that follow from it inside the replica.
    ///
    /// # Panics
    /// If the replica breaks an invariant of its own.
    pub fn take(&mut self, letter: Letter, now: Time, probe: &mut impl Probe) {
        self.line.push_back(letter);
        loop {
            while let Some(letter) = self.line.pop_front() {
                probe.letter(self.index, &letter);
                probe.enter(Place::of(&letter));
                self.stages.handle(letter, now, &mut self.out);
                probe.leave();
                self.line.extend(self.out.letters.drain(..));
            }
            probe.enter(Place::Clients);
            self.stages.flush(now, &mut self.out);
            probe.leave();
            probe.enter(Place::State);
            let is_working = self.stages.state.work(now, WORK_PAGES, &mut self.out);
            probe.leave();
            self.line.extend(self.out.letters.drain(..));
            if self.line.is_empty() && !is_working {
                break;
            }
        }
        assert_eq!(self.out.fatal, None, "replica {}", self.index);
    }

    /// Forgets what the replica wants to send; the memory stays.
    pub fn discard(&mut self) {
        self.out.network.clear();
        self.out.replies.clear();
        self.out.rejections.clear();
    }
}
