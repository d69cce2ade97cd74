//! Which checkpoints the driver is given to make durable, each with what proves it to others.

use std::sync::Arc;

use super::StateStage;
use crate::output::{DurableCheckpoint, Output};
use crate::wire::CheckpointId;

/// Certificates that are kept for checkpoints that are yet to be saved.
const CERTIFICATES: usize = 4;

impl StateStage {
    /// A stable checkpoint, or one that was installed, is to be made durable if it is held. One that `is_there`
    /// is for later ones to be compared with.
    pub(super) fn save(&mut self, id: CheckpointId, is_there: bool, out: &mut Output) {
        let held = self.held.get(&id.order).filter(|held| held.id == id);
        let is_wanted = out.logging && (is_there || self.vouching.is_news(id.order));
        if let (true, Some(held)) = (is_wanted, held) {
            let is_anew = std::mem::take(&mut self.installed_since_saved);
            let taken = held.taken.clone();
            let proved = self.certificates.iter().find(|(of, _)| *of == id);
            let certificate = proved.map(|(_, certificate)| Arc::clone(certificate));
            out.checkpoint = Some(DurableCheckpoint { id, taken, certificate, is_anew, is_there });
        }
    }

    /// A transferred state is saved once it is installed; others may be stable by then.
    pub(super) fn keep_certificate(&mut self, id: CheckpointId, certificate: Option<Arc<[u8]>>) {
        let Some(certificate) = certificate else { return };
        if self.certificates.len() == CERTIFICATES {
            self.certificates.pop_front();
        }
        self.certificates.push_back((id, certificate));
    }
}
