//! Where sessions were found last: small enough for the cache, as the index of the table is not.
//!
//! A client numbers its sessions from 0 on, so those of one incarnation lie side by side here: four bytes
//! each, where the index takes 25 and a look at two places that no other session shares. A hint may be
//! wrong, and whoever follows one looks at the name of the session that is there. So nothing has to be
//! kept right, no hint is part of the state, and a client that chooses its names so that they collide
//! slows down a look-up to what it is without hints.

use crate::ids::SessionId;
use crate::mix::mix;

/// Hints at least.
const LEAST: usize = 1 << 10;
/// Hints at most: 256 KiB.
const MOST: usize = 1 << 16;

/// Places of sessions, by what the names of the sessions say. The number of hints is a power of two.
#[derive(Debug)]
pub(super) struct Hints(Box<[u32]>);

impl Hints {
    /// For a table of so many sessions.
    pub(super) fn new(sessions: usize) -> Self {
        let hints = (2 * sessions).next_power_of_two().clamp(LEAST, MOST);
        Self(vec![u32::MAX; hints].into())
    }

    /// Whether a table of so many sessions should have more.
    #[inline]
    pub(super) fn is_small(&self, sessions: usize) -> bool {
        sessions > self.0.len() && self.0.len() < MOST
    }

    /// Where a session may be.
    #[inline]
    pub(super) fn of(&self, session: SessionId) -> u32 {
        self.0[self.slot(session)]
    }

    #[inline]
    pub(super) fn set(&mut self, session: SessionId, at: u32) {
        let slot = self.slot(session);
        self.0[slot] = at;
    }

    #[inline]
    fn slot(&self, session: SessionId) -> usize {
        let first = mix(session.client.0.into(), session.incarnation());
        (first as usize).wrapping_add(session.index() as usize) & (self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    #[test]
    fn sessions_of_one_incarnation_share_no_hint() {
        let mut hints = Hints::new(1000);
        let session = |index| SessionId::new(ClientId(7), 12_345, index);
        for index in 0..2048 {
            hints.set(session(index), index);
        }
        assert!((0..2048).all(|index| hints.of(session(index)) == index));
    }

    #[test]
    fn hints_grow_with_the_table_up_to_a_limit() {
        for (sessions, hints) in [(0, LEAST), (1000, 2048), (1 << 14, 1 << 15), (1 << 30, MOST)] {
            assert_eq!(Hints::new(sessions).0.len(), hints);
        }
        assert!(Hints::new(0).is_small(LEAST + 1));
        assert!(!Hints::new(1 << 30).is_small(1 << 30));
    }
}
