//! The followers that a leader sends a PREPARE to first, under light load.
//!
//! A leader commits with the COMMITs of q − 1 followers, and the replies of the same replicas are
//! enough for a client. When nothing else is under way, a message to any other follower only takes
//! cores and wake-ups away from the replicas that the client waits for. TR listing 16 sends a
//! PREPARE to all followers at once; here it then goes to q − 1 followers, and to the others a
//! little later, together with the next message (as in "thrifty" Paxos; DEVIATIONS.md). Each
//! follower still gets each PREPARE. At first the preferred followers are those after the leader.
//! They are replaced if pillar 0 finds others to be faster. All pillars prefer the same followers:
//! otherwise the rest could not sleep.
//!
//! A preferred follower can become slow, by a fault or on purpose. If slots that go to some
//! followers first take on average more than twice as long as slots that go to all, the leader
//! sends PREPAREs to all at once for a while: for each [`LOSS_US`] of the loss, one PREPARE. Single
//! slow slots are ignored: often no follower is to blame, and switching back and forth costs more.
//!
//! The last slot of each checkpoint interval always goes to all at once, for two reasons. It shows
//! again which followers are the fastest; and when a checkpoint becomes stable and messages below
//! it are withdrawn (TR listing 9, `remove`), no PREPARE from before it is still waiting.

use crate::ids::Peers;
use crate::output::Destination;
use crate::time::Time;

/// The loss for which one PREPARE goes to all at once, in microseconds.
const LOSS_US: u64 = 4;
/// Slots in the average by which preferred followers are found to be too slow.
const SLOTS: u64 = 64;
/// Slots in a row that others must win to replace the preferred followers.
const WINS: u32 = 32;

/// What a leader knows about the speed of its followers. It is valid in one view.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreferredQuorum {
    /// The preferred followers.
    fastest: Peers,
    /// The followers that were faster than those lately, and how many times in a row.
    rival: (Peers, u32),
    /// How long a slot takes whose PREPARE goes to all at once.
    usual: Average<8>,
    /// How long a slot takes whose PREPARE goes to the preferred followers first.
    thrifty: Average<SLOTS>,
    /// The slot that was alone under way when it began, if it still is under way.
    alone: Option<Alone>,
    /// How many PREPAREs still go to all at once, because the preferred followers were too slow.
    careful: u64,
}

/// A moving average over `OVER` times.
#[derive(Clone, Copy, Debug, Default)]
struct Average<const OVER: u64> {
    sum_us: u64,
}

impl<const OVER: u64> Average<OVER> {
    fn set(&mut self, us: u64) {
        self.sum_us = OVER * us;
    }

    fn add(&mut self, us: u64) {
        self.sum_us = self.sum_us - self.sum_us / OVER + us;
    }

    fn us(&self) -> u64 {
        self.sum_us / OVER
    }
}

#[derive(Clone, Copy, Debug)]
struct Alone {
    slot: u64,
    since: Time,
    thrifty: bool,
}

impl PreferredQuorum {
    /// Starts with no measurements, and with `first` as the preferred followers.
    pub(super) fn new(first: Peers) -> Self {
        Self {
            fastest: first,
            rival: (first, 0),
            usual: Average::default(),
            thrifty: Average::default(),
            alone: None,
            careful: 0,
        }
    }

    /// The receivers of a slot's PREPARE. `alone`: no other slot is under way.
    pub(super) fn destination(
        &mut self,
        slot: u64,
        alone: bool,
        ends_interval: bool,
        now: Time,
    ) -> Destination {
        // The first slot measures the usual time.
        let is_known = self.usual.us() > 0;
        let thrifty = is_known && alone && !ends_interval && self.careful == 0;
        self.careful = self.careful.saturating_sub(1);
        // A PREPARE that goes to all takes waiting ones along, so it distorts the slot before it.
        self.alone = alone.then_some(Alone { slot, since: now, thrifty });
        if thrifty { Destination::Thrifty(self.fastest) } else { Destination::AllPeers }
    }

    /// Makes these the preferred followers.
    pub(super) fn ask_first(&mut self, first: Peers) {
        self.fastest = first;
        self.rival = (first, 0);
    }

    /// Takes note that a slot was committed by the COMMITs of `by`, the first q − 1 that came.
    /// Returns followers that have now been faster than the preferred ones [`WINS`] times in a row.
    pub(super) fn committed(&mut self, slot: u64, by: Peers, now: Time) -> Option<Peers> {
        let alone = self.alone.take_if(|alone| alone.slot == slot)?;
        let took_us = now.since_us(alone.since).max(1);
        if alone.thrifty {
            self.thrifty.add(took_us);
            let lost_us = self.thrifty.us().saturating_sub(self.usual.us());
            if lost_us > self.usual.us() {
                self.careful = SLOTS * lost_us / LOSS_US;
                self.thrifty.set(self.usual.us());
            }
            return None;
        }
        if self.usual.us() == 0 {
            self.thrifty.set(took_us);
        }
        // The first slots of a view may take very long, which must not excuse a slow follower
        // later.
        if self.usual.us() == 0 || took_us < self.usual.us() / 2 {
            self.usual.set(took_us);
        } else {
            self.usual.add(took_us);
        }
        if by == self.fastest {
            self.rival.1 = 0;
            return None;
        }
        self.rival = (by, if self.rival.0 == by { self.rival.1 + 1 } else { 1 });
        if self.rival.1 < WINS {
            return None;
        }
        // In a pillar that does not decide, this happens repeatedly.
        self.rival.1 = 0;
        Some(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ReplicaId;

    const USUAL_US: u64 = 40;
    const LATE_US: u64 = 5_000;

    fn peers(id: u16) -> Peers {
        [ReplicaId(id)].into_iter().collect()
    }

    /// One slot after the other; `answer` tells who commits and after how long.
    fn run(
        preferred: &mut PreferredQuorum,
        slots: std::ops::Range<u64>,
        mut answer: impl FnMut(Destination) -> (u16, u64),
    ) -> (Vec<Destination>, u64) {
        let (mut asked, mut now) = (Vec::new(), Time(0));
        for slot in slots {
            let to = preferred.destination(slot, true, false, now);
            let (by, took_us) = answer(to);
            now = now.after_us(took_us);
            if let Some(first) = preferred.committed(slot, peers(by), now) {
                preferred.ask_first(first);
            }
            asked.push(to);
        }
        (asked, now.0)
    }

    #[test]
    fn the_fastest_are_asked_first_when_nothing_else_is_under_way() {
        let mut preferred = PreferredQuorum::new(peers(2));
        let (asked, _) = run(&mut preferred, 0..3, |_| (2, USUAL_US));
        let first = Destination::Thrifty(peers(2));
        assert_eq!(asked, [Destination::AllPeers, first, first]);
        assert_eq!(preferred.destination(3, false, false, Time(0)), Destination::AllPeers);
        assert_eq!(preferred.destination(4, true, true, Time(0)), Destination::AllPeers);
    }

    #[test]
    fn others_take_their_place_when_they_are_faster_again_and_again() {
        let mut preferred = PreferredQuorum::new(peers(2));
        run(&mut preferred, 0..1, |_| (2, USUAL_US));
        for probe in 1..=u64::from(WINS) {
            assert_eq!(
                preferred.destination(2 * probe - 1, true, false, Time(0)),
                Destination::Thrifty(peers(2))
            );
            preferred.committed(2 * probe - 1, peers(2), Time(USUAL_US));
            preferred.destination(2 * probe, true, true, Time(0));
            let faster = preferred.committed(2 * probe, peers(1), Time(USUAL_US));
            assert_eq!(faster, (probe == u64::from(WINS)).then_some(peers(1)));
        }
        assert_eq!(preferred.rival, (peers(1), 0));
        assert_eq!(
            preferred.destination(100, true, false, Time(0)),
            Destination::Thrifty(peers(2))
        );
        preferred.ask_first(peers(1));
        assert_eq!(
            preferred.destination(101, true, false, Time(0)),
            Destination::Thrifty(peers(1))
        );
    }

    /// Whether it never answers when it is asked first, or does so with some delay, or now and
    /// then.
    #[test]
    fn the_loss_by_a_liar_is_bounded() {
        for (late_us, every) in [(LATE_US, 1), (LATE_US, 50), (LATE_US, 2000), (500, 1), (100, 1)] {
            let mut count = 0;
            let slots = 20_000;
            let (_, took_us) = run(&mut PreferredQuorum::new(peers(2)), 0..slots, |to| match to {
                Destination::Thrifty(_) => {
                    count += 1;
                    let late = count % every == 0;
                    (if late { 1 } else { 2 }, if late { late_us } else { USUAL_US })
                }
                _ => (2, USUAL_US),
            });
            let loss_us = took_us.saturating_sub(slots * USUAL_US);
            let bound = slots * (LOSS_US + USUAL_US) + LATE_US;
            assert!(loss_us <= bound, "{late_us} us every {every}: {loss_us} of {bound}");
        }
    }

    #[test]
    fn a_slow_start_does_not_excuse_a_slow_follower() {
        const INTERVAL: u64 = 128;
        let mut preferred = PreferredQuorum::new(peers(2));
        let mut late = 0;
        for slot in 0..4 * INTERVAL {
            let ends_interval = (slot + 1).is_multiple_of(INTERVAL);
            let to = preferred.destination(slot, true, ends_interval, Time(0));
            let is_late = to == Destination::Thrifty(peers(2));
            late += u64::from(is_late);
            let usual_us = if slot == 0 { 1_000_000 } else { USUAL_US };
            let took_us = if is_late { LATE_US } else { usual_us };
            preferred.committed(slot, peers(1), Time(took_us));
        }
        assert!(late <= INTERVAL, "{late} slots");
    }

    #[test]
    fn a_dead_follower_is_replaced() {
        let mut preferred = PreferredQuorum::new(peers(2));
        run(&mut preferred, 0..10, |_| (2, USUAL_US));
        let (asked, _) = run(&mut preferred, 10..5_000, |to| match to {
            Destination::Thrifty(first) if first == peers(2) => (1, LATE_US),
            _ => (1, USUAL_US),
        });
        let late = asked.iter().filter(|to| **to == Destination::Thrifty(peers(2))).count();
        assert_eq!((late, asked.last()), (1, Some(&Destination::Thrifty(peers(1)))));
    }
}
