//! Which replies may go to the client through the leader (TR listing 17 answers each client straight:
//! see `DEVIATIONS.md`, 21).
//!
//! A follower that answers a single request sends two messages: its COMMIT to the leader and its
//! reply to the client, who needs it just when the leader's own reply comes. If both go to
//! the leader, one system call, one wake-up of the client and a segment are spared. The reply is
//! sealed for the client, so all that a faulty leader can do is not to carry it. Then the client asks
//! again, which each replica answers straight ([`Cause::AskedAgain`]), and for a number of replies
//! that doubles each time the leader is not trusted: see [`Trust`].

use crate::output::Cause;

/// Replies that go straight after a client had to ask again, at first.
const DISTRUST_MIN: u32 = 256;
/// And at most.
const DISTRUST_MAX: u32 = 1 << 20;

/// Whether the replies of one replica to one client may go through the leader.
///
/// Invariant: of any N replies, a leader that drops all it gets loses `log2(N / DISTRUST_MIN) + 2`
/// at most, or one in 2²⁰. What a client loses by asking without need is no more
/// than a straight way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trust {
    /// Replies that go straight from now on.
    straight: u32,
    /// How many it were last.
    last: u32,
}

impl Trust {
    /// To be asked for each reply: whether it may go through the leader.
    #[inline]
    pub fn permits(&mut self, cause: Cause) -> bool {
        match cause {
            Cause::Executed if self.straight == 0 => return true,
            Cause::Executed => self.straight -= 1,
            // The client compares what all replicas say, the leader among them.
            Cause::Queried | Cause::Deferred | Cause::Recalled => {}
            Cause::AskedAgain => {
                if self.straight == 0 {
                    self.last = (self.last * 2).clamp(DISTRUST_MIN, DISTRUST_MAX);
                }
                self.straight = self.last;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_leader_can_drop_is_bounded() {
        let (mut trust, mut lost, mut next_bound) = (Trust::default(), 0, 2 * DISTRUST_MIN);
        for replies in 1..4 * DISTRUST_MAX {
            if trust.permits(Cause::Executed) {
                lost += 1;
                assert!(!trust.permits(Cause::AskedAgain));
            }
            if replies == next_bound && replies <= DISTRUST_MAX {
                assert!(lost <= (replies / DISTRUST_MIN).ilog2() + 2, "{lost} of {replies}");
                next_bound *= 2;
            }
        }
        assert!(lost <= (DISTRUST_MAX / DISTRUST_MIN).ilog2() + 2 + 4, "{lost}");
    }

    #[test]
    fn answers_to_queries_go_straight_and_change_nothing() {
        let mut trust = Trust::default();
        assert!(!trust.permits(Cause::Queried));
        assert!(trust.permits(Cause::Executed));
        assert!(!trust.permits(Cause::AskedAgain));
        assert!((0..DISTRUST_MIN).all(|_| !trust.permits(Cause::Executed)));
        assert!(trust.permits(Cause::Executed));
    }
}
