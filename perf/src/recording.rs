//! The inputs of each replica in a run of a group, to replay them to a fresh replica.

use bytes::{Bytes, BytesMut};
use hybster::services::NullService;
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId, View};
use hybster_proto::output::{
    Agreed, Input, Source, ToControl, ToExecution, ToIntake, ToPillar, ToState,
};
use hybster_proto::wire::CheckpointId;

use crate::fixture::Fixture;
use crate::host::Probe;
use crate::rig::Rig;

/// An input of the normal case that can be replayed any number of times.
#[derive(Clone, Debug)]
pub enum Recorded {
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
    Committed(PillarId, u64, u64, Agreed),
    /// The replica's view.
    View(View),
}

impl Recorded {
    fn of(input: &Input) -> Option<Self> {
        Some(match input {
            Input::Intake(ToIntake::Requests { from, message }) => {
                Self::Requests(*from, message.clone())
            }
            Input::Pillar(pillar, ToPillar::Batch { view, buffer, requests }) => {
                Self::Batch(*pillar, *view, buffer.to_vec(), *requests)
            }
            Input::Pillar(pillar, ToPillar::Message { from, message }) => {
                Self::ToPillar(*pillar, *from, message.clone())
            }
            Input::Pillar(pillar, ToPillar::ForwardWindow { to, .. }) => {
                Self::ForwardWindow(*pillar, *to)
            }
            Input::Pillar(pillar, ToPillar::CertifyCheckpoint { id, .. }) => {
                Self::CertifyCheckpoint(*pillar, *id)
            }
            Input::Pillar(pillar, ToPillar::FillGap { view, through }) => {
                Self::FillGap(*pillar, *view, *through)
            }
            Input::Control(ToControl::Message { from, message }) => {
                Self::ToControl(*from, message.clone())
            }
            Input::State(ToState::Message { from, message }) => {
                Self::ToState(*from, message.clone())
            }
            Input::Execution(ToExecution::Committed { pillar, first_slot, last_slot, batch }) => {
                Self::Committed(*pillar, *first_slot, *last_slot, batch.clone())
            }
            Input::Execution(ToExecution::View(view)) => Self::View(*view),
            _ => return None,
        })
    }

    /// The input.
    #[must_use]
    pub fn input(&self) -> Input {
        match self.clone() {
            Self::Requests(from, message) => Input::Intake(ToIntake::Requests { from, message }),
            Self::Batch(pillar, view, buffer, requests) => {
                let buffer = BytesMut::from(&buffer[..]);
                Input::Pillar(pillar, ToPillar::Batch { view, buffer, requests })
            }
            Self::ToPillar(pillar, from, message) => {
                Input::Pillar(pillar, ToPillar::Message { from, message })
            }
            Self::ToControl(from, message) => Input::Control(ToControl::Message { from, message }),
            Self::ToState(from, message) => Input::State(ToState::Message { from, message }),
            Self::ForwardWindow(pillar, to) => {
                Input::Pillar(pillar, ToPillar::ForwardWindow { to, boundary: None })
            }
            Self::CertifyCheckpoint(pillar, id) => {
                Input::Pillar(pillar, ToPillar::CertifyCheckpoint { id, ending: None })
            }
            Self::FillGap(pillar, view, through) => {
                Input::Pillar(pillar, ToPillar::FillGap { view, through })
            }
            Self::Committed(pillar, first_slot, last_slot, batch) => {
                Input::Execution(ToExecution::Committed { pillar, first_slot, last_slot, batch })
            }
            Self::View(view) => Input::Execution(ToExecution::View(view)),
        }
    }

    /// Whether it came over the network.
    #[must_use]
    pub fn is_message(&self) -> bool {
        matches!(
            self,
            Self::Requests(..) | Self::ToPillar(..) | Self::ToControl(..) | Self::ToState(..)
        )
    }

    /// The pillar that it is for.
    #[must_use]
    pub fn pillar(&self) -> Option<PillarId> {
        match self {
            Self::Batch(pillar, ..)
            | Self::ToPillar(pillar, ..)
            | Self::ForwardWindow(pillar, _)
            | Self::CertifyCheckpoint(pillar, _)
            | Self::FillGap(pillar, ..) => Some(*pillar),
            _ => None,
        }
    }

    /// Whether it is for the execution stage.
    #[must_use]
    pub fn is_for_execution(&self) -> bool {
        matches!(self, Self::Committed(..) | Self::View(_))
    }
}

/// The inputs of all replicas of a group, in order.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The group that it was recorded in.
    pub fixture: Fixture,
    replicas: Vec<Vec<Recorded>>,
    /// Operations that were executed.
    pub operations: u64,
}

impl Recording {
    /// Records `batches` batches of `requests` requests of the null service.
    ///
    /// # Panics
    /// If the group does not execute all of them.
    #[must_use]
    pub fn of(fixture: Fixture, batches: u32, requests: u32, operation: &[u8]) -> Self {
        let mut rig = Rig::new(&fixture, requests, || NullService::new(0));
        let replicas = vec![Vec::new(); usize::from(fixture.config.replicas)];
        let mut recording = Self { fixture, replicas, operations: 0 };
        for _ in 0..batches {
            let done = rig.round(requests, operation, &mut recording);
            assert_eq!(done, requests as usize);
            recording.operations += done as u64;
        }
        recording
    }

    /// The inputs of one replica.
    #[must_use]
    pub fn recorded(&self, replica: ReplicaId) -> &[Recorded] {
        &self.replicas[usize::from(replica.0)]
    }

    /// The inputs to a replica that a filter lets through.
    #[must_use]
    pub fn inputs(&self, replica: ReplicaId, filter: impl Fn(&Recorded) -> bool) -> Vec<Input> {
        self.recorded(replica).iter().filter(|i| filter(i)).map(Recorded::input).collect()
    }
}

impl Probe for Recording {
    fn input(&mut self, replica: usize, input: &Input) {
        self.replicas[replica].extend(Recorded::of(input));
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
            for input in recording.inputs(replica, Recorded::is_message) {
                host.take(input, Time(1), &mut ());
            }
            let status = host.stages.execution.status();
            assert_eq!((status.requests, status.executed.0), (2400, 300));
            let mut pillar = recording.fixture.pillar(replica, PillarId(1));
            let mut out = Output::default();
            for input in recording.inputs(replica, |i| i.pillar() == Some(PillarId(1))) {
                let Input::Pillar(_, input) = input else { panic!("not for a pillar") };
                pillar.handle(input, Time(1), &mut out);
            }
            assert_eq!(pillar.progress().1.0, 302, "150 slots of pillar 1 are committed");
        }
    }
}
