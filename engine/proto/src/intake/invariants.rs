//! What holds in the request intake between two inputs.

use hybster_tss::RequestVerifier;

use super::{CREDIT, Forwarding, Intake, MAX_PENDING_BYTES, MAX_STORED, MAX_STORED_BYTES};

impl<V: RequestVerifier> Intake<V> {
    /// Stops the process if the stage is not as its own rules say.
    #[inline]
    pub(super) fn check_invariants(&self) {
        // A leader that left its view dropped what waited: its clients send it again.
        assert!(self.pending_bytes == 0 || self.leads(), "only a leader lets requests wait");
        assert!(self.pending_bytes <= MAX_PENDING_BYTES, "requests that wait are bounded");
        assert!(self.open.requests <= self.config.batch_max_requests, "a batch is bounded");
        assert_eq!(self.open.requests == 0, self.open.len() == 0, "requests have bytes");
        if self.pending.is_empty() {
            assert_eq!(self.pending_bytes, self.open.len(), "bytes that wait are counted");
        }
        assert!(
            self.stored.len() <= MAX_STORED && self.stored_bytes <= MAX_STORED_BYTES,
            "stored requests are bounded"
        );
        assert_eq!(self.watch.len(), self.stored.len(), "each stored request is watched");
        assert!(self.shares.len() <= self.stored.len(), "only clients with requests have a share");
        assert_eq!(self.stored.is_empty(), self.stored_bytes == 0, "bytes stored are counted");
        self.patience.check_invariants();
    }

    /// As after each input, and everything that takes time to look at: for tests and simulators.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_all_invariants(&self) {
        self.check_invariants();
        self.lanes.check();
        self.batched.check();
        let waiting: usize =
            self.pending.iter().map(|(buffer, _)| buffer.len() - self.open.head).sum();
        assert_eq!(self.pending_bytes, waiting + self.open.len(), "bytes that wait are counted");
        let stored: usize = self.stored.values().map(|stored| stored.record.len()).sum();
        assert_eq!(self.stored_bytes, stored, "bytes stored are counted");
        assert_eq!(self.shares.values().sum::<usize>(), self.stored.len(), "shares are counted");
        for ((session, number), stored) in &self.stored {
            let watched = self.watch.contains(&(stored.due, *session, *number));
            assert!(watched, "each stored request is watched when it is due");
        }
        let of = |is: fn(Forwarding) -> bool| {
            self.stored.values().filter(move |stored| is(stored.forwarding))
        };
        let under_way = || of(Forwarding::is_under_way);
        let bytes: usize = under_way().map(|stored| stored.record.len()).sum();
        let waiting = of(|forwarding| forwarding == Forwarding::Waiting).count();
        let counts = (waiting, under_way().count(), bytes);
        assert_eq!(self.forwards.counts(), counts, "what is forwarded is counted");
        let credit = self.pillars.iter().all(|turn| turn.under_way <= CREDIT);
        assert!(credit, "a pillar has no more batches than it is given credit for");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::{Bytes, BytesMut};
    use hybster_tss::{GroupKey, InProcessVerifier};

    use super::*;
    use crate::config::GroupConfig;
    use crate::ids::{ClientId, ReplicaId, RequestNumber, SessionId};
    use crate::intake::{Forwarding, Stored};
    use crate::noticed::noticed;
    use crate::time::Time;
    use crate::wire::RequestTag;

    const KEY: (SessionId, RequestNumber) =
        (SessionId { client: ClientId(1), session: 1 }, RequestNumber(1));

    /// Replica 0 leads view 0. It has stored one request, and lets one batch wait.
    fn intake() -> Intake<InProcessVerifier> {
        let config = Arc::new(GroupConfig::default());
        let key = GroupKey::from_bytes([7; 32]);
        let verifier = InProcessVerifier::new(&key, config.mac, config.digest());
        let mut intake = Intake::new(config, ReplicaId(0), verifier);
        let (record, due) = (Bytes::from_static(&[1; 50]), Time(9));
        intake.stored_bytes = record.len();
        let (tag, wait) = (RequestTag::EMPTY, intake.patience.begin(Time(1)));
        let stored = Stored {
            record,
            tag,
            wait,
            due,
            is_proposed: false,
            reminded: false,
            is_own: false,
            forwarding: Forwarding::Unneeded,
            forwarded: Time(0),
            last_asked: None,
            unanswered: 1,
            asked: Time(1),
        };
        intake.stored.insert(KEY, stored);
        intake.shares.insert(KEY.0.client, 1);
        intake.watch.insert((due, KEY.0, KEY.1));
        intake.pending.push_back((BytesMut::zeroed(intake.open.head + 60), 1));
        intake.pending_bytes = 60;
        intake
    }

    noticed! {
        intake(), |it| it.check_all_invariants();
        a_follower_that_lets_requests_wait: "only a leader", |it| it.stable = false;
        too_much_that_waits: "that wait are bounded", |it| {
            it.pending_bytes = MAX_PENDING_BYTES + 1;
        };
        a_batch_without_end: "a batch is bounded", |it| it.open.requests = 513;
        requests_without_bytes: "have bytes", |it| it.open.requests = 1;
        bytes_left_over: "that wait are counted", |it| it.pending.clear();
        bytes_lost: "that wait are counted", |it| it.pending_bytes = 59;
        too_much_stored: "stored requests are bounded", |it| {
            it.stored_bytes = MAX_STORED_BYTES + 1;
        };
        a_request_not_watched: "is watched", |it| it.watch.clear();
        a_request_watched_at_another_time: "when it is due", |it| {
            it.watch = [(Time(8), KEY.0, KEY.1)].into();
        };
        a_share_too_many: "have a share", |it| {
            it.shares.insert(ClientId(2), 1);
        };
        a_share_too_large: "shares are counted", |it| {
            it.shares.insert(ClientId(1), 2);
        };
        stored_bytes_lost: "stored are counted", |it| it.stored_bytes = 49;
        a_request_that_waits_for_nothing: "what is forwarded is counted", |it| {
            it.forwards.want(KEY);
        };
        a_full_window_not_counted: "full windows", |it| {
            it.patience = crate::intake::Patience::new(&GroupConfig { pillars: 0, ..GroupConfig::default() });
        };
        a_batch_beyond_the_credit: "credit", |it| it.pillars[1].under_way = CREDIT + 1;
    }
}
