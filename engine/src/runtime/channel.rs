//! Queues between agents: bounded, one producer, one consumer, no lock.

use std::collections::VecDeque;
use std::sync::Arc;

use hybster_proto::ids::ClientId;
use hybster_proto::output::{Input, Network, ReplyQueue};

use super::sync::{AtomicBool, Consumer, Ordering, Producer, RingBuffer, fence};

/// Most messages in a queue between two agents.
pub(crate) const QUEUE_MESSAGES: usize = 2048;

/// Size of a queue in bytes. The batches and messages in it are counted where they are stored.
pub(crate) const QUEUE_BYTES: u64 = (QUEUE_MESSAGES * size_of::<Message>()) as u64;

/// Most messages taken from one queue in one turn.
const TURN_MESSAGES: usize = 1024;

/// A message from one agent to another.
#[derive(Debug)]
pub(crate) enum Message {
    /// An input for a stage of the receiving agent.
    Input(Input),
    /// An effect for the network to carry out.
    Network(Network),
    /// A client's links are not to be read any more, or are again.
    Pause(ClientId, bool),
    /// Replies for the network to send.
    Replies(ReplyQueue),
    /// An emptied reply queue, returned so that its memory is reused.
    Spent(ReplyQueue),
}

/// The sending end. Messages are staged, and a whole run goes out with one [`Outbox::flush`].
#[derive(Debug)]
pub(crate) struct Outbox {
    producer: Producer<Message>,
    staged: VecDeque<Message>,
    /// Whether the sender lacks room: set before its last attempt, and cleared when all is sent.
    /// Only the sender writes it. If the receiver cleared it, it could do so for room that the
    /// sender has already used up, and the sender would sleep for ever.
    blocked: Arc<AtomicBool>,
    /// The value of `blocked`, which only this side writes.
    is_blocked: bool,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Inbox {
    consumer: Consumer<Message>,
    blocked: Arc<AtomicBool>,
}

/// Makes a queue.
pub(crate) fn connect() -> (Outbox, Inbox) {
    connect_with(QUEUE_MESSAGES)
}

/// Makes a queue for this many messages.
pub(crate) fn connect_with(capacity: usize) -> (Outbox, Inbox) {
    let (producer, consumer) = RingBuffer::new(capacity);
    let blocked = Arc::new(AtomicBool::new(false));
    let outbox = Outbox {
        producer,
        staged: VecDeque::new(),
        blocked: Arc::clone(&blocked),
        is_blocked: false,
    };
    (outbox, Inbox { consumer, blocked })
}

impl Outbox {
    /// Stages a message after the others.
    pub(crate) fn stage(&mut self, message: Message) {
        self.staged.push_back(message);
    }

    /// Messages that have not gone out yet.
    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Sends as many messages as there is room for; the others go out later, in order. Returns
    /// whether any were sent: then the receiver's doorbell must be rung.
    #[must_use]
    pub(crate) fn flush(&mut self) -> bool {
        if self.staged.is_empty() {
            return false;
        }
        let mut sent = self.push();
        if !self.staged.is_empty() && !self.is_blocked {
            // The receiver makes room and then reads the flag; we set the flag and then check for
            // room. It stays set until nothing is staged, so once per shortage is enough: we either
            // see room that is made after this, or are woken.
            self.blocked.store(true, Ordering::Relaxed);
            self.is_blocked = true;
            fence(Ordering::SeqCst);
            sent |= self.push();
        }
        if self.is_blocked && self.staged.is_empty() {
            self.blocked.store(false, Ordering::Relaxed);
            self.is_blocked = false;
        }
        sent
    }

    fn push(&mut self) -> bool {
        let count = self.staged.len().min(self.producer.slots());
        if count == 0 {
            return false;
        }
        let chunk = self.producer.write_chunk_uninit(count).expect("slots were counted");
        chunk.fill_from_iter(self.staged.drain(..count)) > 0
    }

    /// Whether something is staged and there is room for it.
    pub(crate) fn could_flush(&self) -> bool {
        !self.staged.is_empty() && self.producer.slots() > 0
    }
}

impl Inbox {
    /// Whether nothing is waiting.
    pub(crate) fn is_empty(&self) -> bool {
        self.consumer.is_empty()
    }

    /// Hands over what is waiting, up to the limit of a turn. Returns whether the sender lacks
    /// room: then its doorbell must be rung.
    #[must_use]
    pub(crate) fn take(&mut self, mut handle: impl FnMut(Message)) -> bool {
        let count = self.consumer.slots().min(TURN_MESSAGES);
        if count == 0 {
            return false;
        }
        let chunk = self.consumer.read_chunk(count).expect("slots were counted");
        chunk.into_iter().for_each(&mut handle);
        fence(Ordering::SeqCst);
        self.blocked.load(Ordering::Relaxed)
    }
}
