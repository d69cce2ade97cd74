//! What each replica was told in a run of a group, to tell it a fresh one again.

use bytes::{Bytes, BytesMut};
use hybster::services::NullService;
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId, View};
use hybster_proto::output::{Letter, Source, ToClients, ToControl, ToExecution, ToPillar, ToState};
use hybster_proto::wire::CheckpointId;

use crate::fixture::Fixture;
use crate::host::Probe;
use crate::rig::Rig;

/// A letter of the normal case that can be handed out again and again.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client's requests.
    Requests(Source, Bytes),
    /// A batch to propose.
    Batch(PillarId, View, Vec<u8>, u32),
    /// A peer's message to a pillar.
    ToPillar(PillarId, ReplicaId, Bytes),
    /// A peer's message to the control stage.
    ToControl(ReplicaId, Bytes),
    /// A peer's message to the state stage.
    ToState(ReplicaId, Bytes),
    /// A pillar's window moves.
    ForwardWindow(PillarId, OrderNumber),
    /// A pillar vouches for a checkpoint.
    CertifyCheckpoint(PillarId, CheckpointId),
    /// A pillar covers a gap.
    FillGap(PillarId, View, u64),
    /// Committed slots.
    Committed(PillarId, u64, u64, Bytes),
    /// The replica's view.
    View(View),
}

impl Input {
    fn of(letter: &Letter) -> Option<Input> {
        Some(match letter {
            Letter::Clients(ToClients::Requests { from, message }) => {
                Input::Requests(*from, message.clone())
            }
            Letter::Pillar(pillar, ToPillar::Batch { view, buffer, requests }) => {
                Input::Batch(*pillar, *view, buffer.to_vec(), *requests)
            }
            Letter::Pillar(pillar, ToPillar::Message { from, message }) => {
                Input::ToPillar(*pillar, *from, message.clone())
            }
            Letter::Pillar(pillar, ToPillar::ForwardWindow { to }) => {
                Input::ForwardWindow(*pillar, *to)
            }
            Letter::Pillar(pillar, ToPillar::CertifyCheckpoint { id }) => {
                Input::CertifyCheckpoint(*pillar, *id)
            }
            Letter::Pillar(pillar, ToPillar::FillGap { view, through }) => {
                Input::FillGap(*pillar, *view, *through)
            }
            Letter::Control(ToControl::Message { from, message }) => {
                Input::ToControl(*from, message.clone())
            }
            Letter::State(ToState::Message { from, message }) => {
                Input::ToState(*from, message.clone())
            }
            Letter::Execution(ToExecution::Committed { pillar, first_slot, last_slot, batch }) => {
                Input::Committed(*pillar, *first_slot, *last_slot, batch.clone())
            }
            Letter::Execution(ToExecution::View(view)) => Input::View(*view),
            _ => return None,
        })
    }

    /// The letter.
    #[must_use]
    pub fn letter(&self) -> Letter {
        match self.clone() {
            Input::Requests(from, message) => {
                Letter::Clients(ToClients::Requests { from, message })
            }
            Input::Batch(pillar, view, buffer, requests) => {
                let buffer = BytesMut::from(&buffer[..]);
                Letter::Pillar(pillar, ToPillar::Batch { view, buffer, requests })
            }
            Input::ToPillar(pillar, from, message) => {
                Letter::Pillar(pillar, ToPillar::Message { from, message })
            }
            Input::ToControl(from, message) => {
                Letter::Control(ToControl::Message { from, message })
            }
            Input::ToState(from, message) => Letter::State(ToState::Message { from, message }),
            Input::ForwardWindow(pillar, to) => {
                Letter::Pillar(pillar, ToPillar::ForwardWindow { to })
            }
            Input::CertifyCheckpoint(pillar, id) => {
                Letter::Pillar(pillar, ToPillar::CertifyCheckpoint { id })
            }
            Input::FillGap(pillar, view, through) => {
                Letter::Pillar(pillar, ToPillar::FillGap { view, through })
            }
            Input::Committed(pillar, first_slot, last_slot, batch) => {
                Letter::Execution(ToExecution::Committed { pillar, first_slot, last_slot, batch })
            }
            Input::View(view) => Letter::Execution(ToExecution::View(view)),
        }
    }

    /// Whether it came over the network.
    #[must_use]
    pub fn is_message(&self) -> bool {
        matches!(
            self,
            Input::Requests(..) | Input::ToPillar(..) | Input::ToControl(..) | Input::ToState(..)
        )
    }

    /// The pillar that it is for.
    #[must_use]
    pub fn pillar(&self) -> Option<PillarId> {
        match self {
            Input::Batch(pillar, ..)
            | Input::ToPillar(pillar, ..)
            | Input::ForwardWindow(pillar, _)
            | Input::CertifyCheckpoint(pillar, _)
            | Input::FillGap(pillar, ..) => Some(*pillar),
            _ => None,
        }
    }

    /// Whether it is for the execution stage.
    #[must_use]
    pub fn is_for_execution(&self) -> bool {
        matches!(self, Input::Committed(..) | Input::View(_))
    }
}

/// What all replicas of a group were told, in order.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The group that it was recorded in.
    pub fixture: Fixture,
    replicas: Vec<Vec<Input>>,
    /// Operations that were executed.
    pub operations: u64,
}

impl Recording {
    /// Records `batches` batches of `requests` requests of the null service.
    ///
    /// # Panics
    /// If the group does not execute all of them.
    #[must_use]
    pub fn of(fixture: Fixture, batches: u32, requests: u32, operation: &[u8]) -> Recording {
        let mut rig = Rig::new(&fixture, requests, || NullService::new(0));
        let replicas = vec![Vec::new(); usize::from(fixture.config.replicas)];
        let mut recording = Recording { fixture, replicas, operations: 0 };
        for _ in 0..batches {
            let done = rig.round(requests, operation, &mut recording);
            assert_eq!(done, requests as usize);
            recording.operations += done as u64;
        }
        recording
    }

    /// What a replica was told.
    #[must_use]
    pub fn inputs(&self, replica: ReplicaId) -> &[Input] {
        &self.replicas[usize::from(replica.0)]
    }

    /// The letters to a replica that a filter lets through.
    #[must_use]
    pub fn letters(&self, replica: ReplicaId, filter: impl Fn(&Input) -> bool) -> Vec<Letter> {
        self.inputs(replica).iter().filter(|i| filter(i)).map(Input::letter).collect()
    }
}

impl Probe for Recording {
    fn letter(&mut self, replica: usize, letter: &Letter) {
        self.replicas[replica].extend(Input::of(letter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use hybster_proto::output::Output;
    use hybster_proto::time::Time;

    #[test]
    fn a_replica_that_is_told_the_same_does_the_same() {
        let recording = Recording::of(Fixture::of_three(2, 8), 300, 8, b"");
        for replica in [ReplicaId(0), ReplicaId(1)] {
            let stages = recording.fixture.stages(replica, NullService::new(0));
            let mut host = Host::new(0, stages);
            for letter in recording.letters(replica, Input::is_message) {
                host.take(letter, Time(1), &mut ());
            }
            let status = host.stages.execution.status();
            assert_eq!((status.requests, status.executed.0), (2400, 300));
            let mut pillar = recording.fixture.pillar(replica, PillarId(1));
            let mut out = Output::default();
            for letter in recording.letters(replica, |i| i.pillar() == Some(PillarId(1))) {
                let Letter::Pillar(_, letter) = letter else { panic!("not for a pillar") };
                pillar.handle(letter, Time(1), &mut out);
            }
            assert_eq!(pillar.progress().1.0, 302, "150 slots of pillar 1 are committed");
        }
    }
}
