//! What holds in the execution stage between two inputs.

use super::{Execution, Halt, MAX_WATCHED};
use crate::ids::OrderNumber;
use crate::output::Output;
use crate::service::Service;
use crate::state::most_snapshots;

impl<S: Service> Execution<S> {
    /// Stops the process if the stage is not as its own rules say. One that has found a reason to
    /// stop the replica may be half-way through something.
    #[inline]
    pub(super) fn check_invariants(&self, out: &Output) {
        if out.fatal.is_some() {
            return;
        }
        assert!(self.watched.len() <= MAX_WATCHED, "requests that are watched are bounded");
        let next = OrderNumber(self.executed.0 + 1);
        let queue = &self.queues[usize::from(self.config.pillar_of(next).0)];
        let first = queue.front().map(|front| front.first_slot);
        assert!(
            self.halt != Halt::No
                || self.must_wait()
                || first.is_none_or(|first| first > self.config.slot_of(next)),
            "what can be executed is executed at once"
        );
        // A transferred state is installed in any case.
        let most = most_snapshots(&self.config) + 1;
        assert!(self.snapshots <= most, "snapshots are bounded");
        self.sessions.check_invariants();
    }

    /// As after each input, and everything that takes time to look at: for tests and simulators.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_all_invariants(&self) {
        let mut queued = false;
        for queue in &self.queues {
            queued |= !queue.is_empty();
            let mut next = 0;
            for committed in queue {
                assert!(committed.first_slot >= next, "the slots of a pillar follow each other");
                assert!(committed.last_slot >= committed.first_slot, "a batch has a slot");
                next = committed.last_slot + 1;
            }
            assert!(queue.len() as u64 <= 2 * self.config.window_slots(), "queues are bounded");
        }
        let is_asked_for = queued && !self.must_wait();
        assert_eq!(
            self.held_up_since.is_some(),
            is_asked_for,
            "what waits is asked for after a while"
        );
        let boundary = self.pending().map(|change| change.ending.boundary);
        assert!(boundary.is_none_or(|it| self.executed <= it), "nothing runs beyond the epoch");
        self.sessions.check_all_invariants();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use hybster_tss::RandomnessKey;

    use super::*;
    use crate::config::GroupConfig;
    use crate::execution::Committed;
    use crate::ids::{ClientId, PillarId, ReplicaId, RequestNumber, SessionId};
    use crate::noticed::noticed;
    use crate::output::{Agreed, ToExecution};
    use crate::service::{Context, Pages, RestoreError, Snapshot};
    use crate::time::Time;
    use crate::wire::request::append_request;
    use crate::wire::{REQUEST_MAC, RequestTag};

    struct Nothing;

    impl Service for Nothing {
        fn execute(&mut self, _: &Context, _: &[u8], _: &mut Vec<u8>) {}

        fn snapshot(&mut self) -> Arc<dyn Snapshot> {
            Arc::new(Pages(Vec::new()))
        }

        fn restore(&mut self, _: &dyn Snapshot) -> Result<(), RestoreError> {
            Ok(())
        }
    }

    fn stage() -> Execution<Nothing> {
        let randomness = RandomnessKey::from_bytes([7; 32]);
        Execution::new(Arc::new(GroupConfig::default()), ReplicaId(0), Nothing, randomness)
    }

    fn committed(first_slot: u64, last_slot: u64) -> Committed {
        Committed { first_slot, last_slot, batch: Agreed::alone(Bytes::new(), 0) }
    }

    fn request(number: usize) -> (SessionId, RequestNumber) {
        (SessionId { client: ClientId(0), session: 1 }, RequestNumber(number as u64))
    }

    /// One request that is stale by the time it is asked for again, and one that ran.
    #[test]
    fn what_is_answered_is_watched_no_more() {
        let (mut stage, mut out) = (stage(), Output::default());
        let session = SessionId { client: ClientId(0), session: 1 };
        let mut ask = |stage: &mut Execution<Nothing>, number| {
            let (number, tag) = (RequestNumber(number), RequestTag::default());
            stage.handle(
                ToExecution::Resend { session, number, tag, is_counted: false },
                Time(1),
                &mut out,
            );
            stage.watched.len()
        };
        assert_eq!((ask(&mut stage, 1), ask(&mut stage, 5)), (1, 2));
        let mut records = Vec::new();
        let mac = |_: &[u8]| [0; REQUEST_MAC];
        append_request(&mut records, session, RequestNumber(5), b"op", mac);
        let batch = Agreed::alone(records.into(), 1);
        let (pillar, slot) = (PillarId(0), 0);
        let input = ToExecution::Committed { pillar, first_slot: slot, last_slot: slot, batch };
        stage.handle(input, Time(2), &mut Output::default());
        assert_eq!(stage.watched.len(), 1, "the one that ran is reported");
        assert_eq!(ask(&mut stage, 1), 0, "the stale one was answered");
    }

    /// A state stage that drops nothing: execution goes no further than it has room for snapshots, and
    /// asks nobody for help.
    #[test]
    fn execution_waits_for_the_state_stage() {
        let (mut stage, now) = (stage(), Time(1));
        let mut out = Output::default();
        let interval = stage.config.checkpoint_interval;
        let most = most_snapshots(&stage.config) as u64;
        for pillar in stage.config.clone().all_pillars() {
            let (first_slot, last_slot) = (0, 20 * interval);
            let batch = Agreed::alone(Bytes::new(), 0);
            let input = ToExecution::Committed { pillar, first_slot, last_slot, batch };
            stage.handle(input, now, &mut out);
        }
        assert_eq!((stage.executed.0, stage.deadline()), (most * interval, None));
        stage.handle(ToExecution::SnapshotsDropped { count: 2 }, now, &mut out);
        assert_eq!(stage.executed.0, (most + 2) * interval);
        stage.check_all_invariants();
    }

    noticed! {
        stage(), |it| { it.check_invariants(&Output::default()); it.check_all_invariants() };
        work_left_lying: "executed at once", |it| it.queues[0].push_back(committed(0, 0));
        too_many_watched: "bounded", |it| it.watched.extend((0..=MAX_WATCHED).map(request));
        slots_that_overlap: "follow each other", |it| {
            it.queues[1].extend([committed(3, 5), committed(5, 5)]);
        };
        a_batch_without_a_slot: "has a slot", |it| it.queues[1].push_back(committed(3, 2));
        too_many_snapshots: "snapshots are bounded", |it| {
            it.snapshots = most_snapshots(&it.config) + 2;
        };
        a_queue_without_end: "queues are bounded", |it| {
            it.queues[1].extend((0..2000).map(|slot| committed(slot, slot)));
        };
        a_timer_that_is_lost: "asked for", |it| it.queues[1].push_back(committed(3, 5));
        a_timer_for_nothing: "asked for", |it| it.held_up_since = Some(Time(1));
        sessions_that_do_not_add_up: "one place", |it| it.sessions.spoil();
    }
}
