//! Which followers a leader needs at once.
//!
//! A leader commits with the COMMITs of q − 1 followers, and a client is content with the replies
//! of the same replicas. Under light load, when nothing else is under way, every further message
//! only takes cores and wake-ups from those that somebody waits for. So a PREPARE then goes to the
//! q − 1 followers that were the fastest last time, and to the others a little later, along with
//! what follows (as in "thrifty" Paxos; DEVIATIONS.md). Each follower still gets each PREPARE.
//!
//! A follower may be fast and then fall silent, by fault or on purpose. Then the others commit the
//! slot, late by the time that a message may wait, and the next [`CAREFUL`] PREPAREs go to all at
//! once: a liar gains one such wait in that many slots.
//!
//! The last slot of each checkpoint interval always goes to all at once, for two reasons: it shows
//! anew who is the fastest, and nothing from before a checkpoint still waits here when that
//! checkpoint becomes stable and what is below it is withdrawn (TR listing 9, remove).

use crate::ids::Peers;
use crate::output::Destination;

/// PREPAREs that go to all at once after one that its followers did not commit in time.
pub(super) const CAREFUL: u32 = 1024;

/// What a leader knows about the speed of its followers. It belongs to one view.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nearest {
    /// Those whose COMMITs completed the last quorum that all were asked for.
    fastest: Option<Peers>,
    /// The slot that only some were asked for at once.
    thrifty: Option<(u64, Peers)>,
    /// PREPAREs that still go to all at once.
    careful: u32,
}

impl Nearest {
    /// To whom the PREPARE of a slot goes. `alone`: nothing else is under way.
    pub fn destination(&mut self, slot: u64, alone: bool, ends_interval: bool) -> Destination {
        // One that goes to all takes along what waits for the slow, so it tells nothing any more.
        self.thrifty = None;
        if self.careful > 0 {
            self.careful -= 1;
            return Destination::AllPeers;
        }
        match self.fastest {
            Some(first) if alone && !ends_interval => {
                self.thrifty = Some((slot, first));
                Destination::Thrifty(first)
            }
            _ => Destination::AllPeers,
        }
    }

    /// A slot is committed by the COMMITs of `by`, the first q − 1 that came.
    pub fn committed(&mut self, slot: u64, by: Peers) {
        match self.thrifty {
            Some((asked, first)) if asked == slot => {
                self.thrifty = None;
                if by != first {
                    *self = Nearest { careful: CAREFUL, ..Nearest::default() };
                }
            }
            _ => self.fastest = Some(by),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ReplicaId;

    const FAST: u16 = 2;
    const SLOW: u16 = 1;

    fn peers(id: u16) -> Peers {
        [ReplicaId(id)].into_iter().collect()
    }

    #[test]
    fn the_fastest_are_asked_first_when_nothing_else_is_under_way() {
        let mut nearest = Nearest::default();
        assert_eq!(nearest.destination(0, true, false), Destination::AllPeers);
        nearest.committed(0, peers(FAST));
        assert_eq!(nearest.destination(1, true, false), Destination::Thrifty(peers(FAST)));
        nearest.committed(1, peers(FAST));
        assert_eq!(nearest.destination(2, false, false), Destination::AllPeers);
        assert_eq!(nearest.destination(3, true, true), Destination::AllPeers);
        nearest.committed(3, peers(SLOW));
        assert_eq!(nearest.destination(4, true, false), Destination::Thrifty(peers(SLOW)));
    }

    #[test]
    fn who_falls_silent_delays_one_slot_in_many() {
        let mut nearest = Nearest::default();
        let mut delayed = 0;
        let slots = 4 * u64::from(CAREFUL);
        for slot in 0..slots {
            // It answers when all were asked, and not when it alone was.
            match nearest.destination(slot, true, false) {
                Destination::Thrifty(_) => {
                    delayed += 1;
                    nearest.committed(slot, peers(SLOW));
                }
                _ => nearest.committed(slot, peers(FAST)),
            }
        }
        assert!((1..=4).contains(&delayed), "{delayed} of {slots}");
    }
}
