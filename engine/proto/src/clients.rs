//! The client stage (TR listing 15): takes requests in, hands them to the pillars of a leader,
//! and watches over the leader for those that clients brought to a follower.
//!
//! At a leader, requests are appended to the batch that is open and each batch goes to the pillar
//! that can propose soonest: the one whose next order number is the lowest. So at low load the
//! pillars take turns and no no-op is needed; at high load batches grow while pillars are busy.
//! If a pillar still falls behind the others, it is told to cover the gap by a no-op (DESIGN 7).
//!
//! A follower stores what a client sends to it (a client does so only after a time-out, or when it
//! takes the follower for the leader), forwards it and suspects the leader when the request is not
//! executed in time. A leader stores what is sent to it again: it has to leave its view, too, when
//! its followers left it behind. What is stored is authentic and bounded.

use bytes::{Bytes, BytesMut};
use hybster_tss::Verifier;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::ids::{PillarId, ReplicaId, RequestNumber, SessionId, View};
use crate::output::{
    Destination, Output, Reject, SendTag, Source, ToClients, ToControl, ToExecution, ToPillar,
};
use crate::time::{Time, earliest};
use crate::timeouts::AdaptiveTimeout;
use crate::wire::request::{is_retransmission, requests_body, requests_head};
use crate::wire::{PREPARE_HEAD, ReplyStatus, RequestRef, Requests, kind};

/// Batches that a pillar may have been given without having proposed them: one in work, one next.
const CREDIT: u32 = 2;
/// Bytes of requests that wait at a leader at most; beyond, clients are told to come later.
const MAX_PENDING_BYTES: usize = 64 << 20;
/// Requests that a replica stores for its watch over the leader at most.
const MAX_STORED: usize = 65_536;
/// Bytes of such requests at most.
const MAX_STORED_BYTES: usize = 64 << 20;
/// Requests in one forwarded message at most.
const FORWARD_CHUNK: usize = 64;

/// The client stage of a replica.
pub struct ClientStage<V: Verifier> {
    config: Arc<GroupConfig>,
    id: ReplicaId,
    verifier: V,
    view: View,
    stable: bool,

    open: OpenBatch,
    pending: VecDeque<(BytesMut, u32)>,
    pending_bytes: usize,
    /// Per pillar: its next slot, batches under way, and the slot up to which it was told to fill.
    pillars: Vec<Turn>,
    /// Retransmissions that were dispatched lately.
    recent: HashMap<SessionId, (RequestNumber, Time)>,

    stored: BTreeMap<(SessionId, RequestNumber), Stored>,
    stored_bytes: usize,
    /// When to look after a stored request again.
    watch: BTreeSet<(Time, SessionId, RequestNumber)>,
    timeout: AdaptiveTimeout,
    suspected: Option<View>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    next_slot: u64,
    under_way: u32,
    filling: Option<u64>,
}

#[derive(Default)]
struct OpenBatch {
    buffer: BytesMut,
    requests: u32,
}

struct Stored {
    record: Bytes,
    since: Time,
    due: Time,
    /// Whether half of the waiting time has passed and help was asked for.
    reminded: bool,
}

impl<V: Verifier> ClientStage<V> {
    /// The client stage of a replica in the initial view.
    #[must_use]
    pub fn new(config: Arc<GroupConfig>, id: ReplicaId, verifier: V) -> Self {
        ClientStage {
            id,
            verifier,
            view: View(0),
            stable: true,
            open: OpenBatch::default(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            pillars: vec![Turn::default(); usize::from(config.pillars)],
            recent: HashMap::new(),
            stored: BTreeMap::new(),
            stored_bytes: 0,
            watch: BTreeSet::new(),
            timeout: AdaptiveTimeout::new(config.request_timeout_us),
            suspected: None,
            config,
        }
    }

    /// Handles a letter. Requests wait for [`ClientStage::flush`].
    pub fn handle(&mut self, letter: ToClients, now: Time, out: &mut Output) {
        match letter {
            ToClients::Requests { from, message } => {
                if let Err(reason) = self.requests(from, &message, now, out) {
                    let peer = match from {
                        Source::Client(_) => None,
                        Source::Peer(peer) => Some(peer),
                    };
                    out.reject(peer, &message, reason);
                }
            }
            ToClients::Proposed {
                pillar,
                view,
                next_slot,
            } => {
                if self.leads() && view == self.view {
                    let turn = &mut self.pillars[usize::from(pillar.0)];
                    turn.next_slot = next_slot;
                    turn.under_way = turn.under_way.saturating_sub(1);
                    turn.filling = turn.filling.filter(|through| *through >= next_slot);
                }
            }
            ToClients::Executed { session, number } => self.executed(session, number, now),
            ToClients::ViewLeft { view } => self.view_left(view),
            ToClients::ViewEntered { view, next_slots } => {
                self.view_entered(view, &next_slots, now, out);
            }
        }
    }

    /// To be called when no letter is waiting: hands out what is pending. A batch is what came in
    /// between two calls, so batches form without a timer.
    pub fn flush(&mut self, _now: Time, out: &mut Output) {
        if !self.leads() {
            return;
        }
        while self.open.requests > 0 || !self.pending.is_empty() {
            let p = self.soonest();
            if self.pillars[p].under_way >= CREDIT {
                break;
            }
            let (buffer, requests) = match self.pending.pop_front() {
                Some(batch) => batch,
                None => self.open.take(),
            };
            self.pending_bytes -= buffer.len() - PREPARE_HEAD;
            self.pillars[p].under_way += 1;
            out.pillar(PillarId(p as u16), ToPillar::Batch { buffer, requests });
        }
        self.fill_gaps(out);
    }

    /// To be called when [`ClientStage::deadline`] has passed.
    pub fn tick(&mut self, now: Time, out: &mut Output) {
        let mut forward = Vec::new();
        let (mut remind, mut expired) = (false, false);
        while let Some(&(at, session, number)) = self.watch.first() {
            if at > now {
                break;
            }
            self.watch.remove(&(at, session, number));
            let Some(stored) = self.stored.get_mut(&(session, number)) else {
                continue;
            };
            let delay_us = self.timeout.delay_us();
            if stored.reminded {
                // TR listing 15, suspectsLeader.
                expired = true;
                stored.reminded = false;
                stored.since = now;
            } else {
                remind = true;
                stored.reminded = true;
                forward.push(stored.record.clone());
            }
            stored.due = now.after_us(delay_us / 2);
            self.watch.insert((stored.due, session, number));
        }
        if expired {
            self.timeout.expired();
            if self.stable {
                self.suspected = Some(self.view);
                out.control(ToControl::Suspect { view: self.view });
            }
        }
        if remind {
            for pillar in self.config.all_pillars() {
                out.pillar(pillar, ToPillar::AskPeers);
            }
            self.forward(&forward, out);
        }
        let horizon = self.config.request_timeout_us;
        self.recent.retain(|_, (_, at)| now.since_us(*at) < horizon);
    }

    /// When [`ClientStage::tick`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let recent = self.recent.values().map(|(_, at)| *at).min();
        let recent = recent.map(|at| at.after_us(self.config.request_timeout_us));
        earliest(self.watch.first().map(|(at, ..)| *at), recent)
    }

    /// Bytes of requests that wait to be proposed: the driver stops reading from clients while it
    /// is high.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Requests stored for the watch over the leader.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.stored.len()
    }

    fn leads(&self) -> bool {
        self.stable && self.config.leader(self.view) == self.id
    }

    // ------------------------------------------------------------------ intake

    fn requests(
        &mut self,
        from: Source,
        message: &Bytes,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let body = requests_body(message)?;
        let fresh = matches!(from, Source::Client(_)) && !is_retransmission(message);
        for request in Requests::new(body) {
            let request = request?;
            self.check(from, &request)?;
            if fresh && self.leads() {
                self.append(&request, out);
                continue;
            }
            if self.leads() && self.is_due(&request, now) {
                self.append(&request, out);
            }
            // A leader watches over what was sent again, too: it may have lost its followers.
            self.store(&request, now, out)?;
        }
        Ok(())
    }

    /// What can be said without the MAC: a client speaks for its own sessions only.
    fn check(&self, from: Source, request: &RequestRef<'_>) -> Result<(), Reject> {
        let session = request.session;
        if let Source::Client(link) = from
            && (session.client != link.client || session.incarnation() != link.incarnation)
        {
            return Err(Reject::WrongSender);
        }
        if session.client.0 >= self.config.max_clients
            || request.operation.len() > self.config.max_operation_bytes as usize
        {
            return Err(Reject::BadRequest);
        }
        Ok(())
    }

    /// Whether a retransmission or forwarded request was not dispatched lately. A copy of a
    /// request does no harm beyond its cost: the session table executes it once.
    fn is_due(&mut self, request: &RequestRef<'_>, now: Time) -> bool {
        let horizon = self.config.request_timeout_us;
        if let Some((number, at)) = self.recent.get(&request.session)
            && request.number == *number
            && now.since_us(*at) < horizon
        {
            return false;
        }
        if self.recent.len() < MAX_STORED {
            self.recent.insert(request.session, (request.number, now));
        }
        true
    }

    fn append(&mut self, request: &RequestRef<'_>, out: &mut Output) {
        let length = request.record_len();
        if self.pending_bytes + length > MAX_PENDING_BYTES {
            let status = ReplyStatus::Overloaded;
            out.replies
                .push(request.session, request.number, self.view, status, &[]);
            return;
        }
        let full = self.open.requests >= self.config.batch_max_requests
            || (self.open.requests > 0
                && self.open.len() + length > self.config.batch_max_bytes as usize);
        if full {
            let batch = self.open.take();
            self.pending.push_back(batch);
        }
        self.open.push(request);
        self.pending_bytes += length;
    }

    // ------------------------------------------------------------------ turns

    fn next_order(&self, p: usize, ahead: u32) -> u64 {
        let slot = self.pillars[p].next_slot + u64::from(ahead);
        self.config.order_at(PillarId(p as u16), slot).0
    }

    /// The pillar that can propose soonest.
    fn soonest(&self) -> usize {
        (0..self.pillars.len())
            .min_by_key(|p| self.next_order(*p, self.pillars[*p].under_way))
            .expect("there is at least one pillar")
    }

    /// DESIGN 7: a pillar with nothing to propose while others are ahead covers the gap.
    fn fill_gaps(&mut self, out: &mut Output) {
        // What is under way will be proposed: it counts as ahead, but not as behind.
        let ahead = (0..self.pillars.len())
            .filter(|p| self.pillars[*p].next_slot > 0 || self.pillars[*p].under_way > 0)
            .map(|p| self.next_order(p, self.pillars[p].under_way))
            .max()
            .unwrap_or(0);
        // `ahead` is the next order of that pillar; its last one is P before.
        let highest = ahead.saturating_sub(u64::from(self.config.pillars));
        for p in 0..self.pillars.len() {
            if self.pillars[p].under_way > 0 || self.next_order(p, 0) > highest {
                continue;
            }
            let pillar = PillarId(p as u16);
            // The last slot of this pillar below the highest order.
            let first = u64::from(pillar.0) + 1;
            let through = (highest - first) / u64::from(self.config.pillars);
            if self.pillars[p]
                .filling
                .is_none_or(|filling| filling < through)
            {
                self.pillars[p].filling = Some(through);
                self.pillars[p].under_way += 1;
                out.pillar(pillar, ToPillar::FillGap { through });
            }
        }
    }

    // ------------------------------------------------------------------ the watch

    /// TR listing 15, receive(REQUEST): store, forward, watch.
    fn store(
        &mut self,
        request: &RequestRef<'_>,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let key = (request.session, request.number);
        if self.stored.contains_key(&key) {
            return Ok(());
        }
        if !self
            .verifier
            .verify_client(request.session.client.0, request.covered, request.mac)
        {
            return Err(Reject::BadRequest);
        }
        let length = request.record_len();
        if self.stored.len() >= MAX_STORED || self.stored_bytes + length > MAX_STORED_BYTES {
            return Err(Reject::Overload);
        }
        // TR listing 15, storeRequest: a session's later requests displace its earlier ones.
        let of_session = (request.session, RequestNumber(0))..=(request.session, key.1);
        if self.stored.range(of_session).count() >= self.config.session_window as usize {
            let oldest = (request.session, RequestNumber(0))..;
            if let Some((&oldest, _)) = self.stored.range(oldest).next() {
                self.forget(oldest);
            }
        }
        let mut record = Vec::with_capacity(length);
        record.extend_from_slice(request.covered);
        record.extend_from_slice(request.mac);
        let record = Bytes::from(record);
        let due = now.after_us(self.timeout.delay_us() / 2);
        self.stored_bytes += length;
        self.stored.insert(
            key,
            Stored {
                record: record.clone(),
                since: now,
                due,
                reminded: false,
            },
        );
        self.watch.insert((due, key.0, key.1));
        out.execution(ToExecution::Resend {
            session: key.0,
            number: key.1,
        });
        self.forward(&[record], out);
        Ok(())
    }

    /// TR listing 15, forwardRequest.
    fn forward(&self, records: &[Bytes], out: &mut Output) {
        let leader = self.config.leader(self.view);
        if !self.stable || leader == self.id {
            return;
        }
        for chunk in records.chunks(FORWARD_CHUNK) {
            let mut message = Vec::from(requests_head(kind::REQUESTS));
            for record in chunk {
                message.extend_from_slice(record);
            }
            out.send(
                Destination::Peer(leader),
                message.into(),
                SendTag::Transient,
            );
        }
    }

    fn forget(&mut self, key: (SessionId, RequestNumber)) -> Option<Stored> {
        let stored = self.stored.remove(&key)?;
        self.stored_bytes -= stored.record.len();
        self.watch.remove(&(stored.due, key.0, key.1));
        Some(stored)
    }

    /// TR listing 15, requestExecuted.
    fn executed(&mut self, session: SessionId, number: RequestNumber, now: Time) {
        if let Some(stored) = self.forget((session, number))
            && now.since_us(stored.since) < self.timeout.delay_us()
            && !stored.reminded
        {
            self.timeout.succeeded();
        }
    }

    fn view_left(&mut self, view: View) {
        self.stable = false;
        self.view = view;
        self.drop_pending();
    }

    /// What was pending at a leader that lost its view is dropped: its clients retransmit, and
    /// have to, since the leader may have failed altogether.
    fn drop_pending(&mut self) {
        self.open = OpenBatch::default();
        self.pending.clear();
        self.pending_bytes = 0;
        self.recent.clear();
    }

    /// TR listing 15, enterView.
    fn view_entered(&mut self, view: View, next_slots: &[u64], now: Time, out: &mut Output) {
        self.view = view;
        self.stable = true;
        self.suspected = None;
        self.drop_pending();
        for (turn, next_slot) in self.pillars.iter_mut().zip(next_slots) {
            *turn = Turn {
                next_slot: *next_slot,
                ..Turn::default()
            };
        }
        self.watch.clear();
        let due = now.after_us(self.timeout.delay_us() / 2);
        let mut records = Vec::with_capacity(self.stored.len());
        for ((session, number), stored) in &mut self.stored {
            (stored.since, stored.due, stored.reminded) = (now, due, false);
            self.watch.insert((due, *session, *number));
            records.push(stored.record.clone());
        }
        if self.leads() {
            for record in &records {
                if let Ok((request, _)) = RequestRef::split(record) {
                    self.append(&request, out);
                }
            }
        } else {
            self.forward(&records, out);
        }
    }
}

impl OpenBatch {
    fn len(&self) -> usize {
        self.buffer.len().saturating_sub(PREPARE_HEAD)
    }

    fn push(&mut self, request: &RequestRef<'_>) {
        if self.buffer.is_empty() {
            self.buffer.resize(PREPARE_HEAD, 0);
        }
        self.buffer.extend_from_slice(request.covered);
        self.buffer.extend_from_slice(request.mac);
        self.requests += 1;
    }

    fn take(&mut self) -> (BytesMut, u32) {
        let requests = std::mem::take(&mut self.requests);
        (self.buffer.split(), requests)
    }
}
