//! A control stage that comes back with what its replica's log tells.

use hybster_tss::Verifier;
use std::sync::Arc;

use super::{Control, Phase};
use crate::config::GroupConfig;
use crate::hybster::record;
use crate::hybster::recovery::RecoveredControl;
use crate::hybster::wire::view::{NewViewAck, ViewChange};
use crate::ids::{ReplicaId, View};
use crate::output::{Output, ToExecution, ToIntake, ToPillar};
use crate::time::Time;

/// What a log has that is said when the stage resumes.
#[derive(Default)]
pub(super) struct Resumed {
    change: Option<Arc<ViewChange>>,
    ack: Option<Arc<NewViewAck>>,
    /// The NEW-VIEW-ACK of the stable view is to be made: the log ends before it.
    is_ack_due: bool,
    next_slots: Vec<u64>,
    /// Execution cannot reach the stable checkpoint by itself.
    is_behind: bool,
}

impl<V: Verifier> Control<V> {
    /// The stage as it was when the log ended.
    pub(in crate::hybster) fn recover(
        config: Arc<GroupConfig>,
        id: ReplicaId,
        verifier: V,
        recovered: RecoveredControl,
    ) -> Self {
        let mut it = Self::new(config, id, verifier);
        it.stable_view = recovered.stable_view;
        it.current = recovered.current;
        it.established = recovered.established;
        it.left_since_stable = recovered.left_since_stable;
        it.catch_up.recover(recovered.stable);
        if it.config.faults > 0 && !recovered.is_first_start {
            it.untold = it.config.all_pillars().collect();
        }
        if it.current > it.stable_view {
            it.phase = Phase::Waiting;
            // From the first moment on, when it is given the time.
            it.resend_due = Some(Time(0));
        }
        it.resumed = Some(Resumed {
            change: recovered.own_change,
            is_ack_due: recovered.is_belated && recovered.own_ack.is_none(),
            ack: recovered.own_ack,
            next_slots: recovered.next_slots,
            is_behind: !recovered.is_reached,
        });
        it
    }

    /// Logs once more all that the log has of it, if that was asked for, and has the pillars do so: no
    /// sooner than it is in a view, when that is little.
    pub(super) fn summarize(&mut self, out: &mut Output) {
        if !self.summary_due || !self.is_stable() || self.unsigned_ack.is_some() {
            return;
        }
        self.summary_due = false;
        let ack = self.own_ack.as_ref().map(|ack| ack.encode());
        let (view, stable) = (self.stable_view, self.catch_up.stable());
        out.log(|| record::control_summary(view, stable, self.established.as_deref(), ack));
        for pillar in self.config.all_pillars() {
            out.pillar(pillar, ToPillar::Summarize);
        }
    }

    /// Goes on where it was. What the peers have sent meanwhile they send again when their links
    /// are up.
    pub(in crate::hybster) fn resume(&mut self, now: Time, out: &mut Output) {
        let Some(resumed) = self.resumed.take() else { return };
        out.execution(ToExecution::View(self.stable_view));
        if self.is_stable() {
            let (view, next_slots) = (self.stable_view, resumed.next_slots);
            if view > View(0) {
                out.intake(ToIntake::ViewLeft { view });
                out.intake(ToIntake::ViewEntered { view, next_slots });
            }
        } else {
            out.intake(ToIntake::ViewLeft { view: self.current });
            self.left_at = Some(now);
            self.resend_due = Some(now.after_us(2 * self.config.resend_us));
        }
        if let Some(change) = resumed.change {
            self.hold_own_change(change, out);
        }
        if let Some(ack) = resumed.ack {
            self.hold_own_ack(ack, out);
        }
        if let (true, Some(new_view)) = (resumed.is_ack_due, self.established.clone()) {
            self.send_ack(&new_view, out);
        }
        if resumed.is_behind {
            self.catch_up.transfer_stable(out);
        }
        self.catch_up.tell_end(out);
        self.check_invariants(out);
    }
}
