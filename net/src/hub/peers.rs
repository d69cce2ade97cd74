//! The other replicas: their queues, and when to connect to them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::address::PeerAddress;
use crate::frame::MESSAGE_HEADER_BYTES;
use crate::limits::Limits;
use crate::random::Jitter;
use crate::transport::ConnectionId;

/// One of the other replicas.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: u16,
    pub(super) address: PeerAddress,
    /// Of its name, as far as they are known.
    pub(super) known: Vec<SocketAddr>,
    /// The address of the last attempt to connect.
    pub(super) tried: Option<SocketAddr>,
    /// Whether its name is being looked up.
    pub(super) is_looked_up: bool,
    /// When its name is looked up again though nobody connects to it: its address has places of its
    /// own for handshakes.
    pub(super) look_up_at: Option<Instant>,
    pub(super) dial: Dial,
    pub(super) link: Option<ConnectionId>,
    pub(super) queue: Queue,
    /// Failed attempts to connect since the last link was up.
    failures: u32,
    /// Whether this side connects; otherwise it waits for the peer to connect.
    dials: bool,
}

/// What an outgoing link waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    /// Nothing: the link is up, or the other side connects.
    Idle,
    /// A pause that begins with the next poll, which knows the time.
    Pause(Duration),
    /// The end of a pause.
    At(Instant),
    /// The look-up of its name, until the deadline.
    LookUp(Instant),
    /// The end of the handshake, until the deadline.
    Busy(ConnectionId, Instant),
}

impl Peer {
    pub(super) fn new(id: u16, address: PeerAddress, dials: bool) -> Self {
        let dial = if dials { Dial::Pause(Duration::ZERO) } else { Dial::Idle };
        Self {
            id,
            address,
            known: Vec::new(),
            tried: None,
            is_looked_up: false,
            look_up_at: None,
            dial,
            link: None,
            queue: Queue::default(),
            failures: 0,
            dials,
        }
    }

    /// The name to look up, and the port.
    pub(super) fn host(&self) -> Option<(Arc<str>, u16)> {
        match &self.address {
            PeerAddress::Host { name, port } => Some((Arc::clone(name), *port)),
            PeerAddress::Ip(_) => None,
        }
    }

    /// The address for the next attempt: where a name has several, each in turn.
    pub(super) fn next_address(&self) -> Option<SocketAddr> {
        let of_name = || self.known.get(self.failures as usize % self.known.len().max(1)).copied();
        self.address.ip().or_else(of_name)
    }

    /// Whether its name is to be looked up though this side does not connect.
    pub(super) fn is_looked_up_only(&self) -> bool {
        !self.dials && self.address.ip().is_none()
    }

    /// The link is up.
    pub(super) fn up(&mut self, connection: ConnectionId) {
        self.link = Some(connection);
        self.dial = Dial::Idle;
        self.failures = 0;
    }

    /// The link is gone, or an attempt to connect failed. `lasting`: trying soon will not help, so
    /// the pause is the longest one at once.
    pub(super) fn retry(&mut self, lasting: bool, limits: &Limits, jitter: &mut Jitter) {
        if !self.dials {
            return;
        }
        let doubled = limits.backoff_min.saturating_mul(1 << self.failures.min(20));
        let pause = if lasting { limits.backoff_max } else { doubled.min(limits.backoff_max) };
        self.failures = self.failures.saturating_add(1);
        self.dial = Dial::Pause(pause.mul_f64(jitter.half_to_one()));
    }

    /// Whether a pause waits for the next poll to start it.
    pub(super) const fn must_start(&self) -> bool {
        matches!(self.dial, Dial::Pause(_))
    }

    /// Whether it needs no attention now: its link is up or the other side makes it, and its name, if it
    /// has one that matters, is not to be looked up.
    pub(super) fn is_calm(&self, now: Instant) -> bool {
        let looks_up = match self.look_up_at {
            Some(at) => at <= now,
            None => self.is_looked_up_only(),
        };
        matches!(self.dial, Dial::Idle) && !looks_up
    }

    /// When this peer needs attention next.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.dial {
            Dial::At(at) | Dial::Busy(_, at) | Dial::LookUp(at) => Some(at),
            Dial::Idle | Dial::Pause(_) => self.look_up_at,
        }
    }
}

/// Messages that are not sealed yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    pub(super) fn push(&mut self, message: Bytes) {
        self.bytes += cost(&message);
        self.messages.push_back(message);
    }

    pub(super) fn first(&self) -> Option<&Bytes> {
        self.messages.front()
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let message = self.messages.pop_front()?;
        self.bytes -= cost(&message);
        Some(message)
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

fn cost(message: &Bytes) -> usize {
    message.len() + MESSAGE_HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_their_limits() {
        let limits = Limits::default();
        let mut jitter = Jitter::new(Some(1));
        let mut peer = Peer::new(0, SocketAddr::from(([127, 0, 0, 1], 1)).into(), true);
        let mut expected = limits.backoff_min;
        for _ in 0..40 {
            peer.retry(false, &limits, &mut jitter);
            let Dial::Pause(pause) = peer.dial else { panic!("{:?}", peer.dial) };
            assert!(pause >= expected / 2 && pause <= expected, "{pause:?} of {expected:?}");
            expected = (expected * 2).min(limits.backoff_max);
        }
        let mut waiting = Peer::new(0, peer.address.clone(), false);
        waiting.retry(false, &limits, &mut jitter);
        assert_eq!(waiting.dial, Dial::Idle);
    }

    #[test]
    fn bytes_are_counted() {
        let mut queue = Queue::default();
        (0..10).for_each(|_| queue.push(Bytes::from_static(b"123456")));
        assert_eq!(queue.bytes(), 100);
        queue.pop();
        assert_eq!(queue.bytes(), 90);
        queue.clear();
        assert_eq!((queue.bytes(), queue.is_empty()), (0, true));
    }
}
