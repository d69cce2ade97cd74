//! How much the link to a peer is given before more is kept back, and how long what it was given takes.
//!
//! What a link was given cannot be withdrawn and holds up what comes after it. So it gets what it
//! carries in a round trip and a little more, twice over, so that a wire that has become faster is
//! noticed. What it carries is what was seen to arrive while there was more to send than that.
//!
//! The driver is asked for the state of a link (two system calls) only when the link may have been given
//! its share, and now and then while it is busy.

use crate::mutants::{self, Mutant};
use crate::time::Time;

use super::LinkState;

/// What a link carries as long as nothing is known about it, in bytes per second. Most carry more, and are soon known to.
const FIRST_RATE: u64 = 500_000;
/// A link that carries less counts as carrying this, in bytes per second.
const LEAST_RATE: u64 = 8_000;
/// A link may be given at least this, in bytes.
const LEAST_SHARE: u64 = 16 << 10;
/// A link is not given more than this, in bytes: what 100 Mbit/s carry in half a second, twice.
const MOST_SHARE: u64 = 16 << 20;
/// A link may be given what it carries in this time beyond a round trip, in microseconds.
const SLACK_US: u64 = 25_000;
/// What a link was given since the last look is worth another from here on, in bytes.
const WORTH_A_LOOK: u64 = 16 << 10;
/// But not before this time has passed, in microseconds. Looks that are nearer to each other, or than a
/// round trip, tell nothing about a rate: a host that was busy elsewhere for a moment looks like a slow wire.
const LOOK_AGAIN_US: u64 = 25_000;
/// What arrived meanwhile tells a rate if it is so much, in bytes: bytes arrive, and are acknowledged, some thousands
/// at a time, and over a slow wire none may have come in such a moment, or twice as many.
const TELLS_A_RATE: u64 = 16 << 10;
/// Or if so much has arrived, and as much has not, a while after it was given, in bytes.
const TELLS_SLOW: u64 = 4 << 10;
/// Or if so much time has passed, in microseconds.
const TELLS_AFTER_US: u64 = 300_000;
/// A link that carries more, in bytes per second, is not measured by what it carries between pauses.
const FAST_RATE: u64 = 2_000_000;
/// A link without room is looked at again no sooner than this, in microseconds.
const LEAST_LOOK_US: u64 = 500;

/// A link at one moment. All bytes count from when it came up.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    at: Time,
    /// Bytes that it had been given.
    given: u64,
    /// Those of them that had not arrived.
    outstanding: u64,
}

/// The pace of one link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Bytes per second.
    rate: u64,
    /// Whether it carries no more than that: it had to carry all the time when the rate was told.
    is_limit: bool,
    round_trip_us: u64,
    /// None since the link came up.
    last: Option<Look>,
    /// When the link was given something last.
    gave_at: Time,
    /// What the next look is compared with to tell the rate.
    base: Look,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rate: FIRST_RATE,
            is_limit: false,
            gave_at: Time(0),
            round_trip_us: 0,
            last: None,
            base: Look::default(),
        }
    }
}

impl Pace {
    /// The link was made again. What is known about the wire stays.
    pub(super) fn renew(&mut self) {
        let Self { rate, is_limit, round_trip_us, .. } = *self;
        *self = Self { rate, is_limit, round_trip_us, ..Self::default() };
    }

    /// What the link carries, in bytes per second.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// The rate, if the link is known to carry no more.
    pub(super) fn limit(&self) -> Option<u64> {
        self.is_limit.then_some(self.rate)
    }

    /// The link's round trip in microseconds; 0 if it is not known.
    pub(super) fn round_trip_us(&self) -> u64 {
        self.round_trip_us
    }

    /// Bytes that may be on their way.
    fn share(&self) -> u64 {
        let twice_us = 2 * (self.round_trip_us + SLACK_US);
        (self.rate.saturating_mul(twice_us) / 1_000_000).clamp(LEAST_SHARE, MOST_SHARE)
    }

    /// The link is given something, after `given` bytes.
    #[inline]
    pub(super) fn note_given(&mut self, now: Time, given: u64) {
        self.gave_at = now;
        if self.rate < FAST_RATE && given == self.base.given && self.base.outstanding == 0 {
            // It had nothing to carry until now. What a fast link carries in bursts is not what it should be given.
            self.base.at = now;
        }
    }

    /// Bytes that the link may be given, which has been given `given` so far. Asks for the link's
    /// state if it may be that there is no room.
    #[inline]
    pub(super) fn room(&mut self, now: Time, given: u64, state: impl FnOnce() -> LinkState) -> u64 {
        if mutants::active(Mutant::WireIgnored) {
            return u64::MAX;
        }
        if let Some(last) = &self.last {
            let (since, since_us) = (given - last.given, now.since_us(last.at));
            let room = self.share().saturating_sub(last.outstanding + since);
            let is_worth_it = since >= WORTH_A_LOOK && since_us >= LOOK_AGAIN_US;
            if since_us < LEAST_LOOK_US || (room > 0 && !is_worth_it) {
                return room;
            }
        }
        self.look(now, given, &state());
        self.share().saturating_sub(self.last.map_or(0, |last| last.outstanding))
    }

    /// Takes note of the link's state.
    #[cold]
    pub(super) fn look(&mut self, now: Time, given: u64, state: &LinkState) {
        if state.round_trip_us > 0 {
            self.round_trip_us = state.round_trip_us;
        }
        let outstanding = state.outstanding_bytes as u64;
        let look = Look { at: now, given, outstanding };
        if self.last.replace(look).is_none() {
            self.base = look;
        }
        let took_us = now.since_us(self.base.at);
        if took_us < LOOK_AGAIN_US.max(self.round_trip_us) {
            return;
        }
        let since = given - self.base.given;
        let arrived = (self.base.outstanding + since).saturating_sub(outstanding);
        // Nothing more was given for longer than a round trip, and some of it has not arrived.
        let is_slow = outstanding >= TELLS_SLOW
            && arrived >= TELLS_SLOW
            && now.since_us(self.gave_at) >= LOOK_AGAIN_US + self.round_trip_us;
        // A fast wire has become slow: of what should have arrived, hardly anything has.
        let expected = self.rate.saturating_mul(took_us) / 1_000_000;
        let has_slowed = expected >= 4 * TELLS_A_RATE && arrived < expected / 8;
        let is_enough =
            is_slow || has_slowed || arrived >= TELLS_A_RATE || took_us >= TELLS_AFTER_US;
        if !is_enough && outstanding > 0 && !mutants::active(Mutant::RateOfMoments) {
            return;
        }
        self.base = look;
        let seen = arrived * 1_000_000 / took_us;
        // What was on its way a round trip ago has not arrived: the link has had to carry all the time.
        let is_busy = is_slow || outstanding > since + LEAST_SHARE / 2;
        if seen > self.rate || is_busy {
            // A little more than was thought may be chance.
            self.is_limit = is_busy || (self.is_limit && seen < 2 * self.rate);
            self.rate = seen.max(LEAST_RATE);
        }
    }

    /// Bytes that have not arrived, as far as can be told without asking.
    fn outstanding(&self, now: Time, given: u64) -> u64 {
        let Some(last) = &self.last else { return 0 };
        let carried = self.rate.saturating_mul(now.since_us(last.at)) / 1_000_000;
        (last.outstanding + (given - last.given)).saturating_sub(carried)
    }

    /// The state of the link, as far as can be told without asking.
    pub(super) fn state(&self, now: Time, given: u64) -> LinkState {
        LinkState {
            outstanding_bytes: self.outstanding(now, given) as usize,
            round_trip_us: self.round_trip_us,
        }
    }

    /// How long the link takes for so many bytes alone, in microseconds.
    pub(super) fn carries_us(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(1_000_000) / self.rate
    }

    /// How long the link takes for what it was given and for `more` bytes, in microseconds.
    pub(super) fn takes_us(&self, now: Time, given: u64, more: u64) -> u64 {
        let bytes = self.outstanding(now, given) + more;
        if bytes == 0 { 0 } else { self.carries_us(bytes) }
    }

    /// When to look again at a link, to see whether it has room, or whether it carries as much as it is
    /// thought to.
    pub(super) fn look_again(&self, now: Time, given: u64) -> Option<Time> {
        let last = self.last.as_ref()?;
        let most_outstanding = last.outstanding + (given - last.given);
        // If it is thought to be slow, a little takes it long.
        let in_a_moment = self.rate.saturating_mul(LOOK_AGAIN_US) / 1_000_000;
        if most_outstanding < (2 * TELLS_SLOW).min(in_a_moment) {
            return None;
        }
        if most_outstanding < self.share() {
            return Some(last.at.after_us(LOOK_AGAIN_US).max(now.after_us(2 * LEAST_LOOK_US)));
        }
        let too_much = self.outstanding(now, given).saturating_sub(self.share() / 4 * 3);
        let us = too_much * 1_000_000 / self.rate;
        Some(now.after_us(us.clamp(2 * LEAST_LOOK_US, LOOK_AGAIN_US)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wire: what it is given arrives at its rate, half a round trip later.
    struct Wire {
        rate: u64,
        round_trip_us: u64,
        outstanding: u64,
    }

    impl Wire {
        fn state(&self) -> LinkState {
            LinkState {
                outstanding_bytes: self.outstanding as usize,
                round_trip_us: self.round_trip_us,
            }
        }

        /// Gives it all it may be given, each millisecond; returns the bytes that arrived.
        fn run(&mut self, pace: &mut Pace, given: &mut u64, from_ms: u64, ms: u64) -> u64 {
            let mut arrived = 0;
            for at in from_ms..from_ms + ms {
                let now = Time(1_000_000 + at * 1_000);
                let room = pace.room(now, *given, || self.state());
                *given += room;
                self.outstanding += room;
                // What is in flight has not arrived.
                let in_flight = self.rate * self.round_trip_us / 1_000_000;
                let waiting = self.outstanding.saturating_sub(in_flight.min(self.outstanding));
                let full = self.rate / 1_000;
                let some = self.outstanding * 1_000 / self.round_trip_us.max(1_000);
                let carried = if waiting > 0 { full } else { some.min(full) };
                let carried = carried.min(self.outstanding);
                self.outstanding -= carried;
                arrived += carried;
            }
            arrived
        }
    }

    #[test]
    fn a_slow_wire_holds_what_it_carries_in_a_moment() {
        let mut wire = Wire { rate: 125_000, round_trip_us: 1_000, outstanding: 0 };
        let (mut pace, mut given) = (Pace::default(), 0);
        wire.run(&mut pace, &mut given, 0, 3_000);
        let arrived = wire.run(&mut pace, &mut given, 3_000, 1_000);
        assert!(arrived >= 120_000, "{arrived}");
        assert!(wire.outstanding <= 2 * LEAST_SHARE, "{}", wire.outstanding);
        assert!((100_000..=160_000).contains(&pace.rate()), "{}", pace.rate());
    }

    #[test]
    fn a_long_fat_wire_is_filled_and_a_faster_one_noticed() {
        for round_trip_us in [200, 40_000, 500_000] {
            let mut wire = Wire { rate: 125_000, round_trip_us, outstanding: 0 };
            let (mut pace, mut given) = (Pace::default(), 0);
            wire.run(&mut pace, &mut given, 0, 4_000);
            wire.rate = 12_500_000;
            wire.run(&mut pace, &mut given, 4_000, 6_000);
            let arrived = wire.run(&mut pace, &mut given, 10_000, 1_000);
            assert!(arrived >= 9_000_000, "{round_trip_us} us: {arrived}");
        }
    }

    #[test]
    fn a_link_with_little_to_do_is_not_taken_for_a_slow_one() {
        let mut pace = Pace::default();
        let mut given = 0;
        for ms in 0..1_000 {
            let now = Time(1 + ms * 1_000);
            let state = LinkState { outstanding_bytes: 500, round_trip_us: 40_000 };
            assert!(pace.room(now, given, || state) >= LEAST_SHARE);
            given += 500;
        }
        assert_eq!(pace.rate(), FIRST_RATE);
        assert!(pace.takes_us(Time(2_000_000), given, 0) < 1_000);
    }
}
