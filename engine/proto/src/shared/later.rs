//! Messages of views that this replica has not entered yet.

use bytes::Bytes;
use std::collections::VecDeque;

use crate::ids::{ReplicaId, View};

/// Bytes of such messages that are kept for one sender.
pub(crate) const SENDER_BYTES: usize = 16 << 20;

/// Messages of later views, per sender in the order in which they came.
///
/// They have not been verified, so what a sender can put here is bounded in number and bytes and
/// displaces only what it sent itself. What does not fit is asked for again later.
pub(crate) struct Later {
    queues: Vec<VecDeque<(View, Bytes)>>,
    /// Messages of one sender, at most.
    room: usize,
    /// Messages of all senders.
    kept: usize,
}

impl Later {
    /// Room for a number of messages of each of `replicas`.
    pub(crate) fn new(replicas: u16, room: usize) -> Self {
        Self { queues: vec![VecDeque::new(); usize::from(replicas)], room, kept: 0 }
    }

    /// Keeps a message; `false` if there is no room for it.
    pub(crate) fn keep(&mut self, from: ReplicaId, view: View, message: &[u8]) -> bool {
        let Some(queue) = self.queues.get_mut(usize::from(from.0)) else {
            return false;
        };
        let mut bytes: usize = queue.iter().map(|(_, kept)| kept.len()).sum();
        while queue.len() >= self.room || bytes + message.len() > SENDER_BYTES {
            // The nearest view is the likeliest.
            let farthest = (0..queue.len()).max_by_key(|at| queue[*at].0);
            match farthest.filter(|at| queue[*at].0 > view) {
                Some(at) => {
                    bytes -= queue.remove(at).map_or(0, |(_, kept)| kept.len());
                    self.kept -= 1;
                }
                None => return false,
            }
        }
        // A copy, so that what is kept does not pin a receive buffer.
        queue.push_back((view, Bytes::copy_from_slice(message)));
        self.kept += 1;
        true
    }

    /// A view is entered: takes a sender's messages of this view, forgets those of earlier ones.
    pub(crate) fn take(&mut self, from: ReplicaId, view: View) -> VecDeque<Bytes> {
        let mut due = VecDeque::new();
        if let Some(queue) = self.queues.get_mut(usize::from(from.0)) {
            self.kept -= queue.len();
            for (of, message) in std::mem::take(queue) {
                if of > view {
                    queue.push_back((of, message));
                } else if of == view {
                    due.push_back(message);
                }
            }
            self.kept += queue.len();
        }
        due
    }

    /// Whether none is kept.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.kept == 0
    }

    /// Stops the process if a sender has more than its room. It looks at all messages, which takes
    /// time.
    pub(crate) fn check_all_invariants(&self) {
        for queue in &self.queues {
            let bytes: usize = queue.iter().map(|(_, message)| message.len()).sum();
            let bounded = queue.len() <= self.room && bytes <= SENDER_BYTES;
            assert!(bounded, "messages of later views are bounded");
        }
        let kept: usize = self.queues.iter().map(VecDeque::len).sum();
        assert_eq!(self.kept, kept, "messages of later views are counted");
    }

    /// What is kept, per sender.
    #[cfg(feature = "model")]
    pub(crate) fn queues(&self) -> impl Iterator<Item = &VecDeque<(View, Bytes)>> {
        self.queues.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId(0);
    const B: ReplicaId = ReplicaId(1);

    #[test]
    fn a_message_comes_out_when_its_view_is_entered() {
        let mut later = Later::new(2, 8);
        for (view, text) in [(2, "two"), (1, "one"), (3, "three"), (2, "two again")] {
            assert!(later.keep(A, View(view), text.as_bytes()));
        }
        assert!(later.keep(B, View(2), b"of b"));
        assert_eq!(later.take(A, View(2)), ["two", "two again"]);
        assert_eq!(later.take(A, View(2)), [""; 0]);
        // One of view 1 is worth nothing any more.
        assert_eq!(later.take(A, View(1)), [""; 0]);
        assert_eq!(later.take(A, View(3)), ["three"]);
        assert!(!later.is_empty());
        assert_eq!(later.take(B, View(2)), ["of b"]);
        assert!(later.is_empty());
        later.check_all_invariants();
    }

    #[test]
    fn nearer_views_displace_farther_ones_of_the_same_sender_only() {
        let mut later = Later::new(2, 2);
        assert!(later.keep(B, View(9), b"of b"));
        assert!(later.keep(A, View(7), b"seven"));
        assert!(later.keep(A, View(5), b"five"));
        assert!(!later.keep(A, View(8), b"eight"));
        assert!(later.keep(A, View(4), b"four"));
        assert_eq!(later.take(A, View(7)), [""; 0]);
        assert_eq!(later.take(B, View(9)), ["of b"]);
        assert!(!later.keep(ReplicaId(2), View(1), b"nobody"));
    }

    #[test]
    fn a_sender_has_a_bound_in_bytes() {
        let mut later = Later::new(1, usize::MAX);
        let half = vec![0; SENDER_BYTES / 2];
        assert!(later.keep(A, View(2), &half));
        assert!(later.keep(A, View(2), &half));
        assert!(!later.keep(A, View(2), b"x"));
        assert!(later.keep(A, View(1), b"x"));
    }

    /// A liar's messages take only the room that there is for them, in whatever order they come.
    #[test]
    fn many_small_messages_do_not_make_room_for_many_large_ones() {
        let mut later = Later::new(1, 512);
        for view in (1_000..2_000).rev() {
            later.keep(A, View(view), b"small");
        }
        for view in (500..600).rev() {
            later.keep(A, View(view), &vec![0; SENDER_BYTES / 16]);
        }
        assert_eq!(later.queues[0].len(), 16);
    }
}
