//! The canonical state of the control stage, for model checkers.

use hybster_tss::Verifier;
use std::collections::BTreeMap;

use super::{Control, Phase};
use crate::fingerprint::Fingerprint;
use crate::hybster::wire::checkpoint::CheckpointCertificate;

impl<V: Verifier> Control<V> {
    /// Appends the stage's state and returns what its tickets stand for.
    ///
    /// # Panics
    /// If inputs between the stages are under way: the driver must have delivered all of them.
    pub fn fingerprint(&self, into: &mut Fingerprint) -> BTreeMap<u64, Vec<u8>> {
        let Self {
            config: _,
            id: _,
            verifier: _,
            stable_view,
            current,
            phase,
            messages,
            pending,
            established: _,
            own_ack: _,
            unsigned_ack,
            new_view_timeout: _,
            new_view_due,
            way_us: _,
            longest_way_us: _,
            resend_due: _,
            catch_up,
            differences,
            outside: _,
            views_entered: _,
            left_since_stable,
            left_at: _,
            clock: _,
            early,
            resumed: _,
            summary_due: _,
            untold,
        } = self;
        let settled = matches!(phase, Phase::Stable | Phase::Waiting) && unsigned_ack.is_none();
        assert!(settled, "inputs between the stages are under way");
        into.number(stable_view.0);
        into.number(current.0);
        into.flag(matches!(phase, Phase::Stable));
        into.flag(new_view_due.is_some());
        into.number(untold.len() as u64);
        into.number(*left_since_stable as u64);
        early.iter().for_each(|view| into.number(view.0));
        let mut names = BTreeMap::new();
        into.number(pending.len() as u64);
        for (sender, pending) in pending {
            into.number(u64::from(sender.0));
            into.bytes(&pending.new_view.encode());
            into.flag(pending.held);
            let mut name = Fingerprint::default();
            name.number(u64::from(sender.0));
            name.number(pending.new_view.view.0);
            name.number(3);
            names.insert(pending.ticket, name.0);
        }
        messages.fingerprint(&mut names, into);
        catch_up.fingerprint(into, certificate_into);
        differences.fingerprint(into);
        names
    }
}

fn certificate_into(certificate: &CheckpointCertificate, into: &mut Fingerprint) {
    into.number(certificate.id.order.0);
    into.bytes(&certificate.id.digest.0);
    into.number(certificate.votes.len() as u64);
    for (replica, proof) in &certificate.votes {
        into.number(u64::from(replica.0));
        into.bytes(&proof.0);
    }
}
