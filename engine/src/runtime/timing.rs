//! Where the latency of requests goes: sampled requests leave time stamps at each stage of a replica.
//!
//! One request in N is followed ([`is_sampled`]), by its session and number alone, so that clients and all
//! replicas of one host follow the same ones without a word about it on any wire. The core knows nothing of
//! it, and has no clock: an agent looks at what goes into its stages and what comes out, reads the clock if a
//! followed request is among it, and puts a stamp into its own memory. Whoever asked for the times takes them
//! when the replica has stopped.
//!
//! ```text
//!  client ─▶ Arrived ─▶ Batched ─▶ Taken ─▶ Proposed ─▶ Left ┐            leader
//!                                                            ├─▶ ProposalArrived ─▶ Vouched ─▶ Left   follower
//!  client ◀─ ReplyLeft ◀─ Executed ◀─ Begun ◀─ Committed ◀───┘
//! ```
//!
//! Off, it costs a comparison per turn and one per output of a stage. On, agents parse the batches that pass
//! once more at each of these points; they keep [`MOST_STAMPS`] stamps at most, 48 bytes each, and count what
//! came after. That memory is for measurements, and not in the sum of `hybster status --memory`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hybster_proto::ids::{ClientId, OrderNumber, RequestNumber, SessionId};
use hybster_proto::output::{
    Cause, Input, Network as Effect, Output, ReplyQueue, SendTag, Source, ToExecution, ToIntake,
    ToPillar,
};
use hybster_proto::protocol::Rules;
use hybster_proto::wire::request::requests_body;
use hybster_proto::wire::{Requests, kind_of};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// Stamps that a replica keeps at most.
pub const MOST_STAMPS: usize = 2 << 20;
/// Stamps that an agent gathers before it hands them over, under a lock that nobody holds for long.
const CHUNK: usize = 4096;

/// A step of a request in a replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Point {
    /// It came from the network.
    Arrived,
    /// The request intake has put it into a batch and handed that to a pillar.
    Batched,
    /// The pillar takes the batch.
    Taken,
    /// The proofs of the batch are checked and the proposal is made.
    Proposed,
    /// What was made for an order number, a proposal or a vote, has waited for the log and leaves.
    Left,
    /// The proposal came from the network.
    ProposalArrived,
    /// It is checked, and the vote for it is made.
    Vouched,
    /// The batch is committed and on its way to the execution stage.
    Committed,
    /// The execution stage takes what it needs to execute it: all orders before it are there.
    Begun,
    /// It is executed.
    Executed,
    /// The reply has waited for the log and leaves.
    ReplyLeft,
}

impl Point {
    /// All points.
    pub const ALL: [Self; 11] = [
        Self::Arrived,
        Self::Batched,
        Self::Taken,
        Self::Proposed,
        Self::Left,
        Self::ProposalArrived,
        Self::Vouched,
        Self::Committed,
        Self::Begun,
        Self::Executed,
        Self::ReplyLeft,
    ];
}

/// When something happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// What.
    pub point: Point,
    /// The request; of [`Point::Left`] the default, as it is about an order number.
    pub session: SessionId,
    /// The request's number.
    pub number: RequestNumber,
    /// The order number, where it is known: at [`Point::Proposed`], [`Point::Vouched`] and [`Point::Left`];
    /// else 0.
    pub order: OrderNumber,
    /// When, as [`now_ns`] tells it.
    pub at_ns: u64,
}

impl Stamp {
    /// From its parts; the request as the numbers of its client, its session and itself.
    #[must_use]
    pub fn new(point: Point, request: (u32, u64, u64), order: u64, at_ns: u64) -> Self {
        let (client, session, number) = request;
        let session = SessionId { client: ClientId(client), session };
        let (number, order) = (RequestNumber(number), OrderNumber(order));
        Self { point, session, number, order, at_ns }
    }

    /// The request, as [`Stamp::new`] takes it.
    #[must_use]
    pub fn request(&self) -> (u32, u64, u64) {
        (self.session.client.0, self.session.session, self.number.0)
    }
}

/// Whether a request is one of those that are followed, one in `every`.
#[inline]
#[must_use]
pub fn is_sampled(session: SessionId, number: RequestNumber, every: u32) -> bool {
    // The finalizer of SplitMix64: neighbouring numbers and sessions are no pattern in time.
    let mut hash = session.session.rotate_left(20) ^ u64::from(session.client.0) << 40 ^ number.0;
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ hash >> 31).is_multiple_of(every.max(1).into())
}

/// The system's monotonic clock in nanoseconds: the same for all processes of a host.
#[must_use]
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Asks a replica for the times of some requests, and has them when it has stopped.
#[derive(Clone, Debug)]
pub struct StageTimes {
    every: u32,
    taken: Arc<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    chunks: Mutex<Vec<Vec<Stamp>>>,
    lost: AtomicU64,
}

impl StageTimes {
    /// Follows one request in `every`.
    #[must_use]
    pub fn one_in(every: u32) -> Self {
        Self { every, taken: Arc::default() }
    }

    /// The stamps so far, in no order, and how many more there would be. Those of a running replica's last
    /// moments are missing.
    #[must_use]
    pub fn take(&self) -> (Vec<Stamp>, u64) {
        let chunks = std::mem::take(&mut *self.taken.chunks.lock());
        (chunks.concat(), self.taken.lost.swap(0, Ordering::Relaxed))
    }

    /// For one thread, in a group with such rules.
    pub(crate) fn recorder(&self, rules: &Rules) -> Box<Recorder> {
        Box::new(Recorder {
            every: self.every,
            proposal: rules.proposal,
            proposal_head: rules.proposal_head,
            taken: Arc::clone(&self.taken),
            stamps: Vec::with_capacity(CHUNK),
            proposed: Vec::new(),
            begun_ns: 0,
            replies: 0,
        })
    }
}

type Request = (SessionId, RequestNumber);

/// The stamps of one thread.
#[derive(Debug)]
pub(crate) struct Recorder {
    every: u32,
    /// The kind of a proposal, and where its batch begins.
    proposal: u8,
    proposal_head: usize,
    taken: Arc<Taken>,
    stamps: Vec<Stamp>,
    /// Those of the proposal that is being handled.
    proposed: Vec<Request>,
    /// When the stage began with what it handles.
    begun_ns: u64,
    /// Replies that were looked at.
    replies: usize,
}

impl Recorder {
    /// What the network has received.
    #[cold]
    pub(crate) fn arrived(&mut self, inputs: &[Input]) {
        let now = now_ns();
        for input in inputs {
            match input {
                Input::Intake(ToIntake::Requests { from: Source::Client(_), message }) => {
                    let records = requests_body(message).unwrap_or_default();
                    self.stamp_all(Point::Arrived, records, OrderNumber(0), now);
                }
                Input::Pillar(_, ToPillar::Message { message, .. })
                    if kind_of(message) == self.proposal =>
                {
                    let records = message.get(self.proposal_head..).unwrap_or_default();
                    self.stamp_all(Point::ProposalArrived, records, OrderNumber(0), now);
                }
                _ => {}
            }
        }
    }

    /// A stage handles this next.
    #[cold]
    pub(crate) fn before(&mut self, input: &Input) {
        self.begun_ns = now_ns();
        self.proposed.clear();
        match input {
            Input::Pillar(_, ToPillar::Batch { buffer, .. }) => {
                let records = buffer.get(self.proposal_head..).unwrap_or_default();
                self.stamp_all(Point::Taken, records, OrderNumber(0), self.begun_ns);
            }
            Input::Pillar(_, ToPillar::Message { message, .. })
                if kind_of(message) == self.proposal =>
            {
                let records = message.get(self.proposal_head..).unwrap_or_default();
                self.proposed.extend(sampled(records, self.every));
            }
            _ => {}
        }
    }

    /// A stage has put this out.
    #[cold]
    pub(crate) fn after(&mut self, out: &Output) {
        let now = now_ns();
        for input in &out.inputs {
            match input {
                Input::Pillar(_, ToPillar::Batch { buffer, .. }) => {
                    let records = buffer.get(self.proposal_head..).unwrap_or_default();
                    self.stamp_all(Point::Batched, records, OrderNumber(0), now);
                }
                Input::Execution(ToExecution::Committed { batch, .. }) => {
                    self.stamp_all(Point::Committed, batch.records(), OrderNumber(0), now);
                }
                _ => {}
            }
        }
        for effect in &out.network {
            let Effect::Send { tag: SendTag::Ordering(_, order), message, is_new: true, .. } =
                effect
            else {
                continue;
            };
            if kind_of(message) == self.proposal {
                let records = message.get(self.proposal_head..).unwrap_or_default();
                self.stamp_all(Point::Proposed, records, *order, now);
            } else {
                for (session, number) in std::mem::take(&mut self.proposed) {
                    self.push(Point::Vouched, (session, number), *order, now);
                }
            }
        }
        // They gather until the end of the turn.
        let seen = if out.replies.len() < self.replies { 0 } else { self.replies };
        for reply in out.replies.iter().skip(seen) {
            let request = (reply.session, reply.number);
            if reply.cause == Cause::Executed && is_sampled(request.0, request.1, self.every) {
                self.push(Point::Begun, request, OrderNumber(0), self.begun_ns);
                self.push(Point::Executed, request, OrderNumber(0), now);
            }
        }
        self.replies = out.replies.len();
    }

    /// The replies of a turn have been handed over.
    pub(crate) fn end_turn(&mut self) {
        self.replies = 0;
    }

    /// The log has what this rests on, so that it leaves.
    #[cold]
    pub(crate) fn released(&mut self, effects: &[Effect], replies: &ReplyQueue) {
        let now = now_ns();
        for effect in effects {
            if let Effect::Send { tag: SendTag::Ordering(_, order), is_new: true, .. } = effect {
                self.push(Point::Left, Request::default(), *order, now);
            }
        }
        for reply in replies.iter() {
            let request = (reply.session, reply.number);
            if reply.cause == Cause::Executed && is_sampled(request.0, request.1, self.every) {
                self.push(Point::ReplyLeft, request, OrderNumber(0), now);
            }
        }
    }

    fn stamp_all(&mut self, point: Point, records: &[u8], order: OrderNumber, at_ns: u64) {
        for request in sampled(records, self.every) {
            self.push(point, request, order, at_ns);
        }
    }

    fn push(&mut self, point: Point, request: Request, order: OrderNumber, at_ns: u64) {
        let (session, number) = request;
        self.stamps.push(Stamp { point, session, number, order, at_ns });
        if self.stamps.len() == CHUNK {
            let full = std::mem::replace(&mut self.stamps, Vec::with_capacity(CHUNK));
            self.hand_over(full);
        }
    }

    fn hand_over(&self, stamps: Vec<Stamp>) {
        let mut chunks = self.taken.chunks.lock();
        if chunks.len() < MOST_STAMPS / CHUNK {
            chunks.push(stamps);
        } else {
            self.taken.lost.fetch_add(stamps.len() as u64, Ordering::Relaxed);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let rest = std::mem::take(&mut self.stamps);
        if !rest.is_empty() {
            self.hand_over(rest);
        }
    }
}

/// The requests among these records that are followed.
fn sampled(records: &[u8], every: u32) -> impl Iterator<Item = Request> {
    let requests = Requests::new(records).map_while(Result::ok).map(|r| (r.session, r.number));
    requests.filter(move |(session, number)| is_sampled(*session, *number, every))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(client: u32, index: u32) -> SessionId {
        SessionId::new(ClientId(client), 7, index)
    }

    #[test]
    fn one_in_n_is_followed_whichever_way_numbers_run() {
        assert!(is_sampled(session(1, 2), RequestNumber(3), 1));
        // Of one session, and of many at one number.
        let of_one = (0..64_000).filter(|n| is_sampled(session(1, 2), RequestNumber(*n), 64));
        let of_many = (0..16_000).filter(|i| is_sampled(session(1, *i), RequestNumber(9), 16));
        let (of_one, of_many) = (of_one.count(), of_many.count());
        assert!(
            (800..1200).contains(&of_one) && (800..1200).contains(&of_many),
            "{of_one} {of_many}"
        );
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted() {
        let times = StageTimes::one_in(1);
        let mut recorder = times.recorder(hybster_proto::GroupConfig::default().rules());
        let request = (session(1, 2), RequestNumber(3));
        for at in 0..MOST_STAMPS as u64 + 10 {
            recorder.push(Point::Arrived, request, OrderNumber(0), at);
        }
        drop(recorder);
        let (stamps, lost) = times.take();
        assert_eq!((stamps.len(), lost), (MOST_STAMPS, 10));
        assert_eq!(times.take(), (Vec::new(), 0));
    }
}
