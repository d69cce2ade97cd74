//! Queues between agents: bounded, one producer, one consumer, no lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use hybster_proto::output::{Letter, Network, ReplyQueue};
use rtrb::{Consumer, Producer, RingBuffer};

/// Mails that a queue between two agents holds.
pub(crate) const QUEUE_MAILS: usize = 2048;

/// Mails taken from one queue in one turn.
const TURN_MAILS: usize = 1024;

/// What travels between agents.
#[derive(Debug)]
pub(crate) enum Mail {
    /// For a stage of the receiving agent.
    Letter(Letter),
    /// For the network.
    Network(Network),
    /// Replies for the network to send.
    Replies(ReplyQueue),
    /// An emptied reply queue on its way back, so that its memory is used again.
    Spent(ReplyQueue),
}

/// The sending end. Mails are staged, and a whole run goes out with one [`Outbox::flush`].
#[derive(Debug)]
pub(crate) struct Outbox {
    producer: Producer<Mail>,
    staged: VecDeque<Mail>,
    blocked: Arc<AtomicBool>,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Inbox {
    consumer: Consumer<Mail>,
    blocked: Arc<AtomicBool>,
}

/// Makes a queue.
pub(crate) fn connect() -> (Outbox, Inbox) {
    let (producer, consumer) = RingBuffer::new(QUEUE_MAILS);
    let blocked = Arc::new(AtomicBool::new(false));
    let outbox = Outbox { producer, staged: VecDeque::new(), blocked: Arc::clone(&blocked) };
    (outbox, Inbox { consumer, blocked })
}

impl Outbox {
    /// Puts a mail behind those that are staged.
    pub(crate) fn stage(&mut self, mail: Mail) {
        self.staged.push_back(mail);
    }

    /// Mails that have not gone out yet.
    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Sends what there is room for. Returns whether anything went out: then the receiver's doorbell
    /// must be rung. What stays goes out later, in order.
    #[must_use]
    pub(crate) fn flush(&mut self) -> bool {
        if self.staged.is_empty() {
            return false;
        }
        let mut sent = self.push();
        if !self.staged.is_empty() {
            // The receiver makes room and then looks at the flag; we set it and then look for room.
            self.blocked.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            sent |= self.push();
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

    /// Hands over what is waiting, up to the limit of a turn. Returns whether the sender was short
    /// of room: then its doorbell must be rung.
    #[must_use]
    pub(crate) fn take(&mut self, mut handle: impl FnMut(Mail)) -> bool {
        let count = self.consumer.slots().min(TURN_MAILS);
        if count == 0 {
            return false;
        }
        let chunk = self.consumer.read_chunk(count).expect("slots were counted");
        chunk.into_iter().for_each(&mut handle);
        fence(Ordering::SeqCst);
        self.blocked.load(Ordering::Relaxed) && self.blocked.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use hybster_proto::ids::{OrderNumber, View};
    use hybster_proto::output::Watermark;

    use super::*;

    fn mail(number: u64) -> Mail {
        Mail::Network(Network::Withdraw(Watermark { order: OrderNumber(number), view: View(0) }))
    }

    fn number(mail: &Mail) -> u64 {
        match mail {
            Mail::Network(Network::Withdraw(mark)) => mark.order.0,
            _ => panic!("another mail"),
        }
    }

    #[test]
    fn a_full_queue_loses_nothing_and_keeps_the_order() {
        let (mut outbox, mut inbox) = connect();
        let total = 3 * QUEUE_MAILS as u64;
        (0..total).for_each(|n| outbox.stage(mail(n)));
        assert!(outbox.flush() && outbox.staged() == 2 * QUEUE_MAILS && !outbox.could_flush());
        let mut next = 0;
        while next < total {
            let short = inbox.take(|mail| {
                assert_eq!(number(&mail), next);
                next += 1;
            });
            assert!(short || outbox.staged() == 0 || outbox.could_flush());
            let _ = outbox.flush();
        }
        assert!(inbox.is_empty() && outbox.staged() == 0);
    }

    #[test]
    fn two_threads_hand_over_everything_in_order() {
        let (mut outbox, mut inbox) = connect();
        let total = 200_000;
        let sender = std::thread::spawn(move || {
            for n in 0..total {
                outbox.stage(mail(n));
                if n % 7 == 0 || n + 1 == total {
                    let _ = outbox.flush();
                }
            }
            while outbox.staged() > 0 {
                let _ = outbox.flush();
                std::thread::yield_now();
            }
        });
        let mut next = 0;
        while next < total {
            let _ = inbox.take(|mail| {
                assert_eq!(number(&mail), next);
                next += 1;
            });
        }
        sender.join().unwrap();
    }
}
