//! The end of an epoch in a replica that runs, and links with peers in other epochs (`engine/proto/EPOCHS.md`).
//!
//! A replica runs in one epoch. What it finds out about the end of that one is collected here; when the
//! end is proved and the next configuration is known, the replica stops and begins again in the next epoch. A
//! link to a peer in another epoch carries nothing but that: no stage hears of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hybster_proto::config::GroupConfig;
use hybster_proto::epochs::{EpochMessage, Epochs, parse_epoch_request};
use hybster_proto::ids::ReplicaId;
use hybster_proto::membership::Change;
use hybster_proto::output::Ended;
use hybster_proto::time::Time;
use hybster_proto::wire::{kind, kind_of};
use parking_lot::{Condvar, Mutex};

/// The configuration of the next epoch, if the message proves that the present one is over.
pub(crate) type Prove = Box<dyn Fn(&EpochMessage) -> Option<GroupConfig> + Send + Sync>;

/// What a replica knows of the end of its epoch.
pub(crate) struct EpochWatch {
    epoch: u32,
    /// The ends of the epochs before, by rising epoch; all were checked.
    ends: Vec<EpochMessage>,
    prove: Prove,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    ended: Option<Ended>,
    change: Option<Change>,
    end: Option<Arc<End>>,
}

/// The proved end of an epoch.
pub(crate) struct End {
    pub(crate) message: EpochMessage,
    /// The next epoch's constants, with the checkpoint that it begins with.
    pub(crate) next: GroupConfig,
    /// When this became known.
    pub(crate) since: Instant,
}

impl EpochWatch {
    pub(crate) fn new(epoch: u32, ends: Vec<EpochMessage>, prove: Prove) -> Self {
        let (seen, changed) = (Mutex::default(), Condvar::new());
        Self { epoch, ends, prove, seen, changed }
    }

    /// Takes what stages have found out.
    #[cold]
    pub(crate) fn note(&self, ended: Option<Ended>, change: Option<Change>) {
        let mut seen = self.seen.lock();
        seen.ended = ended.or(seen.ended.take());
        seen.change = change.or(seen.change.take());
        let Seen { ended: Some(ended), change: Some(change), end: None } = &*seen else { return };
        if change.ending.boundary != ended.id.order {
            return;
        }
        let message = EpochMessage {
            epoch: self.epoch,
            certificate: ended.certificate.clone(),
            next: change.next.clone(),
        };
        self.take(&mut seen, message);
    }

    /// Takes what a peer says. Returns whether it proves that this epoch is over.
    #[cold]
    pub(crate) fn told(&self, message: EpochMessage) -> bool {
        let mut seen = self.seen.lock();
        seen.end.is_some() || (message.epoch == self.epoch && self.take(&mut seen, message))
    }

    fn take(&self, seen: &mut Seen, message: EpochMessage) -> bool {
        let Some(next) = (self.prove)(&message) else { return false };
        seen.end = Some(Arc::new(End { message, next, since: Instant::now() }));
        self.changed.notify_all();
        true
    }

    /// The end of the epoch, for which this waits.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<Arc<End>> {
        let mut seen = self.seen.lock();
        if seen.end.is_none() {
            self.changed.wait_for(&mut seen, timeout);
        }
        seen.end.clone()
    }
}

/// Links to peers that are in another epoch.
pub(crate) struct OtherEpochs {
    watch: Arc<EpochWatch>,
    book: Epochs,
    /// By replica, the epoch of the other end of its link, if that is not the own one.
    elsewhere: Vec<Option<u32>>,
    /// When a peer's proof was looked at last.
    checked: Vec<Option<Time>>,
    resend_us: u64,
}

/// What a peer in another epoch has said.
#[derive(Debug)]
pub(crate) enum Said {
    /// Nothing that matters.
    Nothing,
    /// It asks: this is the answer.
    Answer(Bytes),
    /// This epoch is over: here is what proves the last checkpoint, as a message of the protocol.
    Over(Bytes),
}

impl OtherEpochs {
    pub(crate) fn new(watch: Arc<EpochWatch>, config: &GroupConfig) -> Self {
        let mut book = Epochs::new(config.replicas, config.resend_us);
        watch.ends.iter().for_each(|end| book.ended(end));
        let none = usize::from(config.replicas);
        let (elsewhere, checked) = (vec![None; none], vec![None; none]);
        Self { watch, book, elsewhere, checked, resend_us: config.resend_us }
    }

    /// A link is up, and its other end is in this epoch. Returns whether that is another epoch than the own one,
    /// and what the peer is told.
    pub(crate) fn up(&mut self, peer: u16, epoch: u64) -> (bool, Option<Bytes>) {
        let epoch = u32::try_from(epoch).unwrap_or(u32::MAX);
        let is_other = epoch != self.watch.epoch;
        if let Some(of) = self.elsewhere.get_mut(usize::from(peer)) {
            *of = is_other.then_some(epoch);
        }
        // At once and whoever it is: a handshake costs more.
        let end = self.watch.ends.iter().find(|end| end.epoch == epoch);
        (is_other, end.map(EpochMessage::encode))
    }

    /// The link is gone. Returns whether its other end was in another epoch.
    pub(crate) fn down(&mut self, peer: u16) -> bool {
        self.elsewhere.get_mut(usize::from(peer)).is_some_and(|of| of.take().is_some())
    }

    pub(crate) fn is_elsewhere(&self, peer: ReplicaId) -> bool {
        self.elsewhere.get(usize::from(peer.0)).is_some_and(Option::is_some)
    }

    /// Takes a message of a peer in another epoch.
    #[cold]
    pub(crate) fn message(&mut self, from: ReplicaId, message: &Bytes, now: Time) -> Said {
        match kind_of(message) {
            kind::EPOCH_REQUEST => match parse_epoch_request(message) {
                Ok(of) => self.book.tell(from, of, now).map_or(Said::Nothing, Said::Answer),
                Err(_) => Said::Nothing,
            },
            kind::EPOCH => {
                let Some(last) = self.checked.get_mut(usize::from(from.0)) else {
                    return Said::Nothing;
                };
                // A correct peer says it once for each link.
                if last.is_some_and(|last| now.since_us(last) < self.resend_us / 2) {
                    return Said::Nothing;
                }
                *last = Some(now);
                let Ok(end) = EpochMessage::parse(message) else { return Said::Nothing };
                let certificate = end.certificate.clone();
                match self.watch.told(end) {
                    true => Said::Over(certificate),
                    false => Said::Nothing,
                }
            }
            _ => Said::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use hybster_proto::epochs::encode_epoch_request;
    use hybster_proto::ids::OrderNumber;
    use hybster_proto::membership::Ending;
    use hybster_proto::wire::CheckpointId;

    use super::*;

    fn end(epoch: u32) -> EpochMessage {
        let (certificate, next) = (Bytes::from_static(b"proof"), Bytes::from_static(b"next"));
        EpochMessage { epoch, certificate, next }
    }

    /// A replica in epoch 2, to which nothing else than these words proves anything.
    fn watch() -> Arc<EpochWatch> {
        let prove = |message: &EpochMessage| {
            (message.certificate == b"proof"[..]).then(GroupConfig::default)
        };
        Arc::new(EpochWatch::new(2, vec![end(0), end(1)], Box::new(prove)))
    }

    #[test]
    fn an_end_is_what_stages_found_out_together() {
        let watch = watch();
        let id = CheckpointId { order: OrderNumber(512), ..CheckpointId::default() };
        let ended = Ended { id, certificate: Bytes::from_static(b"proof") };
        let change = |boundary| Change {
            ending: Ending { boundary: OrderNumber(boundary), next: Default::default() },
            next: Bytes::from_static(b"next"),
        };
        watch.note(Some(ended), None);
        assert!(watch.wait(Duration::ZERO).is_none());
        watch.note(None, Some(change(256)));
        assert!(watch.wait(Duration::ZERO).is_none(), "of another checkpoint");
        watch.note(None, Some(change(512)));
        assert_eq!(watch.wait(Duration::ZERO).unwrap().message, end(2));
    }

    #[test]
    fn peers_behind_are_told_and_only_proofs_of_this_epoch_count() {
        let watch = watch();
        let mut links = OtherEpochs::new(watch.clone(), &GroupConfig::default());
        let (peer, now) = (ReplicaId(1), Time(1));
        assert_eq!(links.up(1, 2), (false, None));
        assert!(!links.is_elsewhere(peer) && !links.down(1));
        assert_eq!(links.up(1, 1), (true, Some(end(1).encode())));
        assert_eq!(links.up(1, 7), (true, None));
        assert!(links.is_elsewhere(peer));
        let said = links.message(peer, &encode_epoch_request(0), now);
        assert!(matches!(said, Said::Answer(answer) if answer == end(0).encode()));
        let of = |epoch, certificate| {
            let certificate = Bytes::from_static(certificate);
            EpochMessage { certificate, ..end(epoch) }.encode()
        };
        let mut at = 0;
        let mut hear = |message: &Bytes| {
            at += 1_000_000;
            links.message(peer, message, Time(at))
        };
        assert!(matches!(hear(&of(1, b"proof")), Said::Nothing), "an epoch that is over");
        assert!(matches!(hear(&of(2, b"lies")), Said::Nothing));
        assert!(watch.wait(Duration::ZERO).is_none());
        assert!(matches!(hear(&of(2, b"proof")), Said::Over(_)));
        assert!(watch.wait(Duration::ZERO).is_some());
        let soon = links.message(peer, &of(2, b"proof"), Time(at + 1));
        assert!(matches!(soon, Said::Nothing), "not so soon");
        assert!(links.down(1) && !links.is_elsewhere(peer));
    }
}
