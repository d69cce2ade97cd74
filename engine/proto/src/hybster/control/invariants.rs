//! What holds in the control stage between two inputs.

use hybster_tss::Verifier;

use super::{Control, Phase};
use crate::ids::View;
use crate::output::Output;

impl<V: Verifier> Control<V> {
    /// Stops the process if the stage is not as its own rules say; a stage that has found a reason
    /// to stop the replica may be half-way through something.
    #[inline]
    pub(super) fn check_invariants(&self, out: &Output) {
        if out.fatal.is_some() {
            return;
        }
        let (stable, current) = (self.stable_view, self.current);
        assert!(stable <= current, "v_stab never passes v_cur");
        assert_eq!(self.is_stable(), stable == current, "a view change ends in the view it is for");
        if self.is_stable() {
            assert!(self.new_view_due.is_none(), "nobody waits for a NEW-VIEW in a stable view");
            assert!(self.resend_due.is_none(), "nothing is sent again in a stable view");
            assert_eq!(self.left_since_stable, 0, "views left are counted from the stable one on");
        }
        let leads = self.is_stable() && self.config.leader(stable) == self.id;
        assert!(leads || self.knows_no_outsider(), "only a leader brings back who is outside");
        assert!(
            !matches!(self.phase, Phase::Waiting) || self.resend_due.is_some(),
            "while a NEW-VIEW is missing, what was sent is sent again"
        );
        let established = self.established.as_ref().map_or(View(0), |new_view| new_view.view);
        assert_eq!(established, stable, "the NEW-VIEW of the stable view is at hand");
        let acknowledged = self.unsigned_ack.as_ref().map_or(stable, |ack| ack.view);
        assert_eq!(acknowledged, stable, "what is acknowledged is the view that was entered last");
        // Keys are the peers of links, which are replicas of the group.
        assert!(self.pending.len() < usize::from(self.config.replicas), "one NEW-VIEW per peer");
        let beyond = self.pending.values().all(|pending| pending.new_view.view > stable);
        assert!(beyond, "a NEW-VIEW that was entered does not wait");
        self.messages.check_invariants(&self.config, self.is_settled(), self.pending.len());
        self.catch_up.check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hybster_tss::{GroupKey, InProcessVerifier, Proof};

    use super::*;
    use crate::config::GroupConfig;
    use crate::hybster::control::PendingNewView;
    use crate::hybster::input::ControlInput;
    use crate::hybster::wire::checkpoint::CheckpointCertificate;
    use crate::hybster::wire::view::{NewView, Part};
    use crate::ids::ReplicaId;
    use crate::notice::Departure;
    use crate::noticed::noticed;
    use crate::output::ToControl;
    use crate::time::Time;

    fn control() -> Control<InProcessVerifier> {
        let config = Arc::new(GroupConfig::default());
        let key = GroupKey::from_bytes([7; 32]);
        let verifier = InProcessVerifier::new(&key, config.mac, config.digest());
        Control::new(config, ReplicaId(0), verifier)
    }

    noticed! {
        control(), |stage| stage.check_invariants(&Output::default());
        views_that_fall: "never passes", |it| it.stable_view = View(3);
        a_view_change_without_end: "ends in the view", |it| it.current = View(3);
        a_phase_of_its_own: "ends in the view", |it| it.phase = Phase::Waiting;
        a_wait_for_nothing: "nobody waits", |it| it.new_view_due = Some(Time(1));
        a_view_forgotten: "at hand", |it| { it.stable_view = View(3); it.current = View(3); };
        silence: "sent again", |it| { it.phase = Phase::Waiting; it.current = View(1); };
        links_left_over: "counted from", |it| it.left_since_stable = 1;
        a_new_view_too_late: "does not wait", |it| {
            it.pending.insert(ReplicaId(1), new_view(0));
        };
        new_views_without_end: "one NEW-VIEW", |it| {
            it.pending.extend((1..4).map(|peer| (ReplicaId(peer), new_view(3))));
        };
        a_resend_in_a_stable_view: "nothing is sent", |it| it.resend_due = Some(Time(1));
    }

    fn new_view(view: u64) -> PendingNewView {
        let new_view = Arc::new(NewView {
            view: View(view),
            checkpoint: CheckpointCertificate::default(),
            view_changes: Vec::new(),
            acks: Vec::new(),
            prepares: Vec::new(),
            proof: Proof([0; 32]),
        });
        PendingNewView { new_view, ticket: 1, held: false }
    }

    /// One view after the other is left without being entered: the VIEW-CHANGEs for them go.
    #[test]
    fn views_that_are_left_leave_nothing_behind() {
        let (mut stage, mut out) = (control(), Output::default());
        for to in (1..50).map(View) {
            stage.leave_for(to, Departure::Suspected, Time(1), &mut out);
            for pillar in stage.config.all_pillars() {
                let part = ControlInput::Part { pillar, to, part: Part::default() };
                stage.handle(ToControl::Hybster(part), Time(1), &mut out);
            }
        }
        assert!(stage.messages.change(ReplicaId(0), View(49)).is_some());
    }
}
