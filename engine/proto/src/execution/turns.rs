//! How the requests that run are shared out among sessions: whether those who wait have had their turn.
//!
//! A leader serves its clients in turn (`intake/lanes.rs`), and a session has one request under way at a time.
//! So between two requests of one session every client that waited has been served, if the leader is
//! fair. A *turn* here ends when a session runs a second request since it began, or when a client has opened
//! more sessions than a correct leader takes in of it at once. Whoever waits while several turns end is left
//! out. (Where a session may have W requests under way, up to W turns end while each is served once.)
//!
//! None of this is part of the checkpointed state: it depends on when a replica was started, and decides nothing
//! but whom to suspect.

use crate::input::Progress;
use crate::mutants::{self, Mutant};

/// A client that opens more sessions in a turn than fit into its share of one of a leader's rounds (256 KiB) has
/// been served more than once.
const MOST_OPENED: u32 = 4_096;

/// Counts turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    progress: Progress,
    /// Executed requests when this turn began.
    began: u64,
    /// The longest batch of this turn, in bytes.
    longest: u32,
}

/// What a client has opened in a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opened {
    turn: u32,
    sessions: u32,
}

impl Turns {
    /// A session runs the request number `clock` of all; its last one was number `before`.
    #[inline]
    pub(super) fn ran(&mut self, before: u64, clock: u64) {
        if before > self.began {
            self.end(clock);
        }
    }

    /// A client opened a session, when `clock` requests had run.
    pub(super) fn opened(&mut self, opened: &mut Opened, clock: u64) {
        if opened.turn != self.progress.turns {
            *opened = Opened { turn: self.progress.turns, sessions: 0 };
        }
        opened.sessions += 1;
        if opened.sessions > MOST_OPENED {
            self.end(clock);
        }
    }

    fn end(&mut self, clock: u64) {
        if mutants::active(Mutant::TurnsUncounted) {
            return;
        }
        self.began = clock;
        self.progress.turns = self.progress.turns.wrapping_add(1);
        self.progress.longest = std::mem::take(&mut self.longest);
    }

    /// A batch ran, of so many bytes of requests that had not run before.
    #[inline]
    pub(super) fn batch(&mut self, bytes: usize) {
        self.progress.bytes += bytes as u64;
        self.longest = self.longest.max(bytes as u32);
    }

    /// What has run so far.
    pub(super) fn progress(&self) -> Progress {
        Progress { longest: self.progress.longest.max(self.longest), ..self.progress }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_when_a_session_is_served_again() {
        let mut turns = Turns::default();
        // Three sessions in turn: each request is three after the last one of its session.
        for clock in 1..=12_u64 {
            turns.ran(clock.saturating_sub(3), clock);
        }
        // Requests 4, 8 and 12 are the first of sessions that had been served in that turn.
        assert_eq!(turns.progress().turns, 3);
    }

    #[test]
    fn new_sessions_do_not_hide_that_a_client_is_served_all_the_time() {
        let (mut turns, mut opened) = (Turns::default(), Opened::default());
        (0..u64::from(MOST_OPENED)).for_each(|clock| turns.opened(&mut opened, clock));
        assert_eq!(turns.progress().turns, 0);
        (0..=u64::from(MOST_OPENED)).for_each(|clock| turns.opened(&mut opened, clock));
        assert_eq!(turns.progress().turns, 1);
    }

    #[test]
    fn the_longest_batch_is_that_of_the_last_turn_or_this_one() {
        let mut turns = Turns::default();
        turns.batch(900);
        turns.ran(1, 2);
        turns.batch(100);
        assert_eq!((turns.progress().longest, turns.progress().bytes), (900, 1_000));
        turns.ran(3, 4);
        assert_eq!(turns.progress().longest, 100);
    }
}
