//! What holds in the state stage between two inputs.

use super::transfer::Transfer;
use super::{StateStage, most_snapshots};

impl StateStage {
    /// Stops the process if the stage is not as its own rules say.
    #[inline]
    pub(super) fn check_invariants(&self) {
        self.transfer.iter().for_each(Transfer::check_invariants);
        self.answers.check_invariants();
        // Execution takes no more, but for a transferred state.
        let most = most_snapshots(&self.config) + 1;
        assert!(self.snapshots() <= most, "snapshots are bounded");
    }

    /// As after each input, and everything that takes time to look at: for tests and simulators.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_all_invariants(&self) {
        self.check_invariants();
        for (order, held) in &self.held {
            let of_one = *order == held.id.order && *order == held.taken.order;
            assert!(of_one, "a checkpoint is held under its order number");
        }
        let rises = self.jobs.iter().is_sorted_by(|a, b| a.taken.order < b.taken.order);
        assert!(rises, "snapshots are digested in the order of execution");
        self.transfer.iter().for_each(Transfer::check_all_invariants);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Job, TREES};
    use super::*;
    use crate::config::GroupConfig;
    use crate::ids::{OrderNumber, ReplicaId};
    use crate::noticed::noticed;
    use crate::output::{Output, TakenSnapshot, ToState};
    use crate::service::Pages;
    use crate::time::Time;

    fn taken(order: u64) -> TakenSnapshot {
        let pages = Arc::new(Pages(vec![vec![1].into()]));
        let (bookkeeping, service) = (pages.clone(), pages);
        TakenSnapshot { order: OrderNumber(order), bookkeeping, service, installed: false }
    }

    fn job(order: u64) -> Job {
        const NONE: Vec<Arc<super::super::Group>> = Vec::new();
        let (digests, versions) = (Vec::new(), Vec::new());
        Job { taken: taken(order), groups: [NONE; TREES], digests, versions }
    }

    /// It holds one checkpoint.
    fn stage() -> StateStage {
        let mut stage = StateStage::new(Arc::new(GroupConfig::default()), ReplicaId(0));
        let mut out = Output::default();
        stage.handle(ToState::Taken(taken(256)), Time(1), &mut out);
        stage.work(Time(1), 1000, &mut out);
        stage
    }

    noticed! {
        stage(), |it| it.check_all_invariants();
        a_checkpoint_under_another_number: "under its order number", |it| {
            let held = it.held.pop_first().expect("it holds one").1;
            it.held.insert(OrderNumber(512), held);
        };
        snapshots_out_of_order: "order of execution", |it| it.jobs.extend([job(768), job(512)]);
    }

    #[test]
    #[should_panic(expected = "order of execution")]
    fn a_snapshot_from_before_is_noticed() {
        let (mut stage, mut out) = (stage(), Output::default());
        stage.handle(ToState::Taken(taken(768)), Time(1), &mut out);
        stage.handle(ToState::Taken(taken(512)), Time(1), &mut out);
    }
}
