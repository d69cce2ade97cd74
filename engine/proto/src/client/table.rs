//! Outstanding requests: slots that are reused, threaded on queues by time of transmission.
//!
//! Every queue holds requests that wait equally long, so it is in order of expiry and only its
//! head has to be looked at: thousands of outstanding requests cost a tick as much as one.

use crate::ids::RequestNumber;
use crate::time::Time;
use crate::wire::{ReplyStatus, RequestTag, put_some};

/// Waits double up to this level.
pub(super) const LEVELS: u8 = 6;
/// Rounds in which only the leader is asked again after it said that its buffers are full.
pub(super) const OVERLOAD_ROUNDS: u8 = 4;
/// First queue of the overload rounds; those before are the levels.
pub(super) const OVERLOAD: u8 = LEVELS;
/// Read-only requests that wait for enough equal answers.
pub(super) const QUERY: u8 = OVERLOAD + OVERLOAD_ROUNDS;
/// Number of queues.
pub(super) const QUEUES: u8 = QUERY + 1;
/// A buffer that grew beyond this is not kept for the next request, in bytes.
const KEEP_BYTES: usize = 16 << 10;

const NONE: u32 = u32::MAX;

/// An outstanding request and the replies that it got. Aligned, so that it lies in two cache lines and
/// not in three.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot {
    pub(super) number: RequestNumber,
    pub(super) submitted_at: Time,
    /// Time and sequence number of the last transmission.
    pub(super) sent_at: Time,
    pub(super) sent_seq: u64,
    /// Bytes that the link to the leader had been given with it.
    pub(super) sent_end: u64,
    /// The replicas that gave the first reply, and that reply.
    pub(super) votes: u64,
    pub(super) result: Vec<u8>,
    pub(super) status: ReplyStatus,
    /// Whether the slot's [`Rare`] may hold something.
    pub(super) unusual: bool,
    pub(super) queue: u8,
    /// Transmissions after the first.
    pub(super) attempts: u8,
    pub(super) session: u32,
    /// What tells the request from others with its number, as it was sent last.
    pub(super) tag: RequestTag,
    before: u32,
    after: u32,
    /// The request's operation, for further transmissions.
    pub(super) operation: Vec<u8>,
}

/// A reply that differs from the first one.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) status: ReplyStatus,
    pub(super) result: Vec<u8>,
    pub(super) votes: u64,
}

/// What a slot needs only when something is wrong.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Replies that differ from the first: at most one per replica and status.
    pub(super) others: Vec<Candidate>,
    /// Replicas that said since the last transmission that their buffers or their disks are full.
    pub(super) overloaded: u64,
    /// Those of them that said so of their disks.
    pub(super) full_disks: u64,
    /// Replicas that gave no result to a query, or two different ones.
    pub(super) spoiled: u64,
}

#[derive(Debug, Clone, Copy)]
struct Queue {
    head: u32,
    tail: u32,
    /// What was sent with this sequence number or a lower one is due at once.
    flood_seq: u64,
}

/// All slots of a client.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    rare: Vec<Rare>,
    free: Vec<u32>,
    queues: [Queue; QUEUES as usize],
    next_seq: u64,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            rare: Vec::new(),
            free: Vec::new(),
            queues: [Queue { head: NONE, tail: NONE, flood_seq: 0 }; QUEUES as usize],
            next_seq: 1,
        }
    }

    /// Requests outstanding.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub(super) fn slot(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    #[inline]
    pub(super) fn slot_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    pub(super) fn parts_mut(&mut self, index: u32) -> (&mut Slot, &mut Rare) {
        (&mut self.slots[index as usize], &mut self.rare[index as usize])
    }

    /// Takes a slot for a request; it is on no queue yet.
    #[inline]
    pub(super) fn insert(
        &mut self,
        session: u32,
        number: RequestNumber,
        operation: &[u8],
        now: Time,
    ) -> u32 {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow(),
        };
        let slot = &mut self.slots[index as usize];
        slot.number = number;
        slot.session = session;
        slot.tag = RequestTag::NONE;
        slot.submitted_at = now;
        slot.attempts = 0;
        put_some(&mut slot.operation, operation);
        index
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 outstanding requests");
        self.slots.push(Slot {
            number: RequestNumber(0),
            submitted_at: Time(0),
            sent_at: Time(0),
            sent_seq: 0,
            sent_end: 0,
            votes: 0,
            result: Vec::new(),
            status: ReplyStatus::Done,
            unusual: false,
            queue: QUEUES,
            attempts: 0,
            session: 0,
            tag: RequestTag::NONE,
            before: NONE,
            after: NONE,
            operation: Vec::new(),
        });
        self.rare.push(Rare::default());
        // So that giving a slot back never allocates.
        self.free.reserve(self.slots.len());
        index
    }

    /// Gives a slot back that is on a queue.
    #[inline]
    pub(super) fn remove(&mut self, index: u32) {
        self.unlink(index);
        self.forget_replies(index);
        let operation = &mut self.slots[index as usize].operation;
        operation.clear();
        if operation.capacity() > KEEP_BYTES {
            *operation = Vec::new();
        }
        self.free.push(index);
    }

    /// Forgets what the replicas answered.
    #[inline(always)]
    pub(super) fn forget_replies(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.votes = 0;
        slot.result.clear();
        if slot.result.capacity() > KEEP_BYTES {
            slot.result = Vec::new();
        }
        if slot.unusual {
            slot.unusual = false;
            self.rare[index as usize] = Rare::default();
        }
    }

    /// Puts a slot that was just sent at the end of a queue.
    #[inline]
    pub(super) fn push(&mut self, index: u32, queue: u8, now: Time) {
        let Queue { tail, .. } = self.queues[usize::from(queue)];
        let slot = &mut self.slots[index as usize];
        slot.queue = queue;
        slot.sent_at = now;
        slot.sent_seq = self.next_seq;
        self.next_seq += 1;
        slot.before = tail;
        slot.after = NONE;
        self.queues[usize::from(queue)].tail = index;
        match tail {
            NONE => self.queues[usize::from(queue)].head = index,
            tail => self.slots[tail as usize].after = index,
        }
    }

    #[inline]
    pub(super) fn unlink(&mut self, index: u32) {
        let Slot { before, after, queue, .. } = self.slots[index as usize];
        let queue = &mut self.queues[usize::from(queue)];
        match before {
            NONE => queue.head = after,
            before => self.slots[before as usize].after = after,
        }
        match after {
            NONE => queue.tail = before,
            after => self.slots[after as usize].before = before,
        }
    }

    /// The request of a queue that was sent longest ago.
    #[inline]
    pub(super) fn head(&self, queue: u8) -> Option<u32> {
        Some(self.queues[usize::from(queue)].head).filter(|head| *head != NONE)
    }

    /// Whether a request is due whatever the time.
    pub(super) fn is_flooded(&self, index: u32) -> bool {
        let slot = self.slot(index);
        slot.sent_seq <= self.queues[usize::from(slot.queue)].flood_seq
    }

    /// Makes all requests of the queues due that are outstanding now.
    pub(super) fn flood(&mut self, queues: std::ops::Range<u8>) {
        for queue in &mut self.queues[usize::from(queues.start)..usize::from(queues.end)] {
            queue.flood_seq = self.next_seq - 1;
        }
    }

    /// All slots, the free ones too.
    #[cfg(test)]
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Bytes of memory held for slots: what is held for operations and results comes on top.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }
}

/// Two cache lines at most.
const _: () = assert!(size_of::<Slot>() <= 128);
