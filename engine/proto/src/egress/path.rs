//! What the stages must know about the way to their peers: how long it takes, and whether it is full.
//!
//! A leader that proposes more than its links carry only moves its queue to where nothing can be
//! withdrawn, where batches do not grow and where no timer knows of it. And a timer that does not know
//! how long a message is on its way asks for what is about to arrive.

use crate::input::PathState;
use crate::time::Time;

/// The way to a peer is full if it takes so much longer than without anything to carry, in microseconds.
const FULL_US: u64 = 50_000;
/// A link that carries this much, in bytes per second, is not what a group waits for: it takes the longest
/// batches that there are by default in the time above.
const FAST_RATE: u64 = 20 << 20;
/// A batch should be on the link no longer than this, in microseconds.
const BATCH_US: u64 = 20_000;
/// No batch need be shorter than this, in bytes.
const LEAST_BATCH: u64 = 4 << 10;
/// A change by less is not worth telling, in microseconds.
const NEWS_US: u64 = 5_000;
/// How often to look at most, in microseconds: turns may be much shorter.
const LOOK_US: u64 = 1_000;

/// What the way to one peer is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// How long what is to go there takes, and an answer to it, in microseconds.
    pub(super) takes_us: u64,
    /// The link's round trip in microseconds; 0 if it is not known.
    pub(super) round_trip_us: u64,
    /// Bytes per second.
    pub(super) rate: u64,
    /// As well, if it is known to carry no more.
    pub(super) limit: Option<u64>,
}

/// The last thing that stages were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    looked_at: Time,
    state: PathState,
    is_new: bool,
    /// The ways, while they are looked at.
    ways: Vec<Way>,
}

impl Told {
    /// Looks at the ways to the peers that are up, if it is time to; `needed` of them must get a
    /// proposal. A stage that was told that a way is full waits for the news that it is not, and there may be no
    /// further turn to look in: so then each turn looks.
    #[inline]
    pub(super) fn update(&mut self, now: Time, ways: impl Iterator<Item = Way>, needed: usize) {
        if !self.state.is_full && now < self.looked_at.after_us(LOOK_US) {
            return;
        }
        self.looked_at = now;
        self.ways.clear();
        self.ways.extend(ways);
        let state = state_of(&mut self.ways, needed);
        // That it takes longer is told sooner: waits depend on it.
        let is_longer =
            state.takes_us > self.state.takes_us + NEWS_US.max(self.state.takes_us / 16);
        let is_shorter = state.takes_us + NEWS_US < self.state.takes_us / 4 * 3;
        let is_batch_news = state.batch_bytes.abs_diff(self.state.batch_bytes)
            > self.state.batch_bytes.min(state.batch_bytes) / 2;
        let is_rate_news = state.least_rate.abs_diff(self.state.least_rate)
            > self.state.least_rate.min(state.least_rate) / 2;
        if is_rate_news
            || state.is_full != self.state.is_full
            || is_longer
            || is_shorter
            || is_batch_news
        {
            self.state = state;
            self.is_new = true;
        }
    }

    /// What the stages have not been told yet.
    pub(super) fn take(&mut self) -> Option<PathState> {
        std::mem::take(&mut self.is_new).then_some(self.state)
    }
}

/// The slowest of those ways that take the least, as many as are needed, decides.
fn state_of(ways: &mut [Way], needed: usize) -> PathState {
    let least_rate = ways.iter().filter_map(|way| way.limit).min().unwrap_or(u64::MAX);
    let Some(last) = needed.checked_sub(1).filter(|last| *last < ways.len()) else {
        return PathState { least_rate, ..PathState::default() };
    };
    let (_, way, _) = ways.select_nth_unstable_by_key(last, |way| way.takes_us);
    let takes_us = way.takes_us;
    let in_moment = |us: u64| way.rate * us / 1_000_000;
    if way.rate >= FAST_RATE {
        return PathState { takes_us, least_rate, ..PathState::default() };
    }
    PathState {
        takes_us,
        batch_bytes: in_moment(BATCH_US).max(LEAST_BATCH).min(u32::MAX.into()) as u32,
        is_full: takes_us > way.round_trip_us / 2 * 3 + FULL_US,
        least_rate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(takes_us: u64) -> Way {
        Way { takes_us, round_trip_us: 0, rate: 125_000, limit: None }
    }

    #[test]
    fn the_slowest_peer_that_is_needed_decides() {
        for needed in 1..=12 {
            let mut ways: Vec<Way> = (1..=12).rev().map(|ms| way(ms * 10_000)).collect();
            let state = state_of(&mut ways, needed);
            assert_eq!(state.takes_us, needed as u64 * 10_000);
            assert_eq!(state.is_full, state.takes_us > FULL_US);
        }
        // Too few peers are up: nothing is known, and nobody is held back.
        assert_eq!(state_of(&mut [way(1)], 2), PathState::default());
        assert_eq!(state_of(&mut [], 0), PathState::default());
    }

    #[test]
    fn only_news_is_told() {
        let (mut told, mut now) = (Told::default(), Time(0));
        let mut tell = |takes_us| {
            now = now.after_us(LOOK_US);
            told.update(now, [way(takes_us)].into_iter(), 1);
            told.take().map(|state| state.takes_us)
        };
        assert_eq!(tell(20_000), Some(20_000));
        assert_eq!((tell(24_000), tell(16_000)), (None, None));
        assert_eq!(
            (tell(26_000), tell(40_000), tell(10_000)),
            (Some(26_000), Some(40_000), Some(10_000))
        );
    }

    #[test]
    fn a_way_that_is_full_is_looked_at_in_each_turn_and_others_now_and_then() {
        let mut told = Told::default();
        let mut is_full = |at_us, takes_us| {
            told.update(Time(at_us), [way(takes_us)].into_iter(), 1);
            told.take().map(|state| state.is_full)
        };
        assert_eq!(is_full(LOOK_US - 1, FULL_US + 1), None);
        assert_eq!(is_full(LOOK_US, FULL_US + 1), Some(true));
        assert_eq!(is_full(LOOK_US + 1, 0), Some(false));
        assert_eq!(is_full(LOOK_US + 2, FULL_US + 1), None);
    }
}
