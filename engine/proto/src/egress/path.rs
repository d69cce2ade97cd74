//! What the stages must know about the way to their peers: how long it takes, and whether it is full.
//!
//! A leader that proposes more than its links carry only moves its queue to where nothing can be
//! withdrawn, where batches do not grow and where no timer knows of it. And a timer that does not know
//! how long a message is on its way asks for what is about to arrive.

use crate::input::PathState;
use crate::time::Time;

use super::peer::Way;

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

/// The last thing that stages were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    state: PathState,
    is_new: bool,
}

impl Told {
    /// Looks at the ways to the peers that are up; `needed` of them must get a proposal.
    pub(super) fn update(&mut self, ways: impl Iterator<Item = Way>, needed: usize, now: Time) {
        let state = state_of(ways, needed, now);
        // That it takes longer is told sooner: waits depend on it.
        let is_longer =
            state.takes_us > self.state.takes_us + NEWS_US.max(self.state.takes_us / 16);
        let is_shorter = state.takes_us + NEWS_US < self.state.takes_us / 4 * 3;
        let is_batch_news = state.batch_bytes.abs_diff(self.state.batch_bytes)
            > self.state.batch_bytes.min(state.batch_bytes) / 2;
        if state.is_full != self.state.is_full || is_longer || is_shorter || is_batch_news {
            self.state = state;
            self.is_new = true;
        }
    }

    /// What the stages have not been told yet.
    pub(super) fn take(&mut self) -> Option<PathState> {
        std::mem::take(&mut self.is_new).then_some(self.state)
    }
}

fn state_of(ways: impl Iterator<Item = Way>, needed: usize, now: Time) -> PathState {
    // The ways that take the least, as many as are needed; there are few peers.
    let mut fastest: [Option<(u64, Way)>; 4] = [None; 4];
    let places = needed.min(fastest.len());
    for way in ways {
        let mut entry = Some((way.takes_us(now), way));
        for place in &mut fastest[..places] {
            if entry.is_some_and(|(us, _)| place.is_none_or(|(least_us, _)| us < least_us)) {
                std::mem::swap(place, &mut entry);
            }
        }
    }
    let Some((takes_us, way)) = places.checked_sub(1).and_then(|last| fastest[last]) else {
        return PathState::default();
    };
    let in_moment = |us: u64| way.rate * us / 1_000_000;
    if way.rate >= FAST_RATE {
        return PathState { takes_us, ..PathState::default() };
    }
    PathState {
        takes_us,
        batch_bytes: in_moment(BATCH_US).max(LEAST_BATCH).min(u32::MAX.into()) as u32,
        is_full: takes_us > way.round_trip_us() / 2 * 3 + FULL_US,
    }
}
