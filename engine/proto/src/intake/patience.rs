//! How long a leader may take for a request: what does not count of the time that has passed.
//!
//! A leader is suspected for what it does not order. Three things keep a correct one from ordering a request, and
//! no other leader could do better:
//!
//! - **The window is full.** All pillars of this replica have committed everything up to the end of their
//!   windows, and the stable checkpoint that moves these is missing. That time does not count.
//! - **Execution is behind.** A leader asks its execution stage before it orders what clients brought to
//!   followers (DEVIATIONS 26), and gets the answer when that has executed what was committed before. So does this
//!   replica, and knows how long that takes: a leader has [`SLOW`] times as long in addition.
//! - **It is not the request's turn** (DEVIATIONS 33). Where wires are slow, what others asked for before may take
//!   them longer than any timeout. The time that half a wire of [`SLOW_WIRE`] takes for the requests that were executed
//!   meanwhile does not count, as long as clients are served in turn: once [`TURNS`] turns have ended
//!   (`execution/turns.rs`) since this replica asked first, all of it counts. Where this replica's own wires are known
//!   to be slow, a leader has in addition what they take for the request and for the longest batch, twice.
//!
//! So an answer of the execution stage counts only when it has executed what the pillars had committed at the time of
//! the question, which may have overtaken that on its way between the stages.
//!
//! None of them lets a leader put off a suspicion for as long as it likes. All are judged by what this replica has
//! committed and executed, and not by what anybody says. What is committed here, correct replicas get from each other: they
//! execute it and agree on the checkpoint without the leader, whatever f liars vote, so a full window
//! moves. A leader that fills the window again and again with requests of others, and leaves one out, has ordered
//! more than [`EXCUSED_WINDOWS`] windows since it was told of it; then a part of that time counts. And
//! what waits for execution is a window of batches at most, so an answer comes when these are executed. And turns end
//! when a session is served again: a leader that leaves out a client must serve all others at the rate of a slow wire
//! meanwhile, and none of their sessions more than twice in a turn. Clients in league with it may add new sessions, and
//! each of them as many as its share of a leader's round has room for.

use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId};
use crate::input::{PathState, Progress};
use crate::mutants::{self, Mutant};
use crate::time::Time;

/// How many times as long as an answer of this replica's execution stage takes a leader may take in addition: until
/// its own stage answers, and until the batches before the request are executed.
const SLOW: u64 = 2;
/// For so many windows of order numbers after it was told of a request, a leader is excused by a full
/// window: one that was committed when it was told, and one in which it is the request's turn,
const EXCUSED_WINDOWS: u64 = 2;
/// unless more requests than these have room for come first: after that, this part of the time counts.
const EXCUSED: u64 = 16;

/// What a wire carries that must be good enough, in bytes per second: 1 Mbit/s.
pub(super) const SLOW_WIRE: u64 = 125_000;
/// A leader is excused as if it could use a part of such a wire: a half, which has to carry a copy to each follower.
const SLOW_PARTS: u64 = 2;
/// The way to the peers and back makes a wait longer by no more than this, in timeouts.
const MOST_ON_WAY: u64 = 8;
/// Turns that end before a leader over such a wire is told of a request that it may have.
const UNTOLD_TURNS: u32 = 2;
/// A leader that serves clients in turn orders a request in the second turn that ends since it was told of it at the
/// latest: one may have been under way, and so may batches be. Where a session has W requests under way, W
/// times as many end.
const TURNS: u32 = 4;

/// What this replica knows of the windows of its pillars.
#[derive(Debug)]
pub(super) struct Patience {
    /// Order numbers in a window.
    window: u64,
    /// Requests that a session has under way at most, W.
    session_window: u32,
    /// n - 1.
    followers: u64,
    /// Per pillar, whether everything in its window is committed.
    full: Vec<bool>,
    /// The order number after which the window begins. Only full windows are told of.
    base: OrderNumber,
    /// Since when the windows of all pillars are full.
    full_since: Option<Time>,
    /// For how long they were full before that, in microseconds.
    full_us: u64,
    /// The last question to the pillars about what they have committed.
    round: u64,
    /// Per pillar, the question that it answered last, and the order number that it commits next.
    committed: Vec<(u64, OrderNumber)>,
}

/// A wait for a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) since: Time,
    /// What [`Patience`] showed at its beginning.
    full_us: u64,
    base: OrderNumber,
    /// The longest time that the execution stage took to answer a question about the request, in microseconds.
    slow_us: u64,
    /// What had been executed at the first answer and at the last one.
    seen: Option<Seen>,
    /// How long others were served, in microseconds.
    others_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Progress,
    last: Progress,
    /// When the first answer came.
    since: Time,
}

impl Patience {
    pub(super) fn new(config: &GroupConfig) -> Self {
        let (pillars, window, session_window) =
            (config.pillars, config.window, config.session_window);
        let followers = config.all_replicas().count() as u64 - 1;
        let (full, base) = (vec![false; usize::from(pillars)], OrderNumber(0));
        let committed = vec![(0, base); usize::from(pillars)];
        Self {
            window,
            session_window,
            followers,
            full,
            base,
            full_since: None,
            full_us: 0,
            round: 0,
            committed,
        }
    }

    /// A pillar says whether its window is full.
    pub(super) fn window(&mut self, pillar: PillarId, is_full: bool, base: OrderNumber, now: Time) {
        self.full[usize::from(pillar.0)] = is_full;
        self.base = self.base.max(base);
        let are_full = self.full.iter().all(|is_full| *is_full);
        if are_full && self.full_since.is_none() {
            self.full_since = Some(now);
        } else if !are_full && let Some(since) = self.full_since.take() {
            self.full_us += now.since_us(since);
        }
    }

    /// The number of the next question to the pillars.
    pub(super) fn next_round(&self) -> u64 {
        self.round + 1
    }

    /// The pillars are asked what they have committed.
    pub(super) fn ask_committed(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    /// A pillar answers; whether all have answered this question.
    pub(super) fn committed(&mut self, pillar: PillarId, round: u64, next: OrderNumber) -> bool {
        self.committed[usize::from(pillar.0)] = (round, next);
        self.committed_before(round).is_some()
    }

    /// Up to where everything was committed when the pillars answered a question, or later; none
    /// before all have answered it.
    pub(super) fn committed_before(&self, round: u64) -> Option<OrderNumber> {
        let have_answered = self.committed.iter().all(|(answered, _)| *answered >= round);
        let next = self.committed.iter().map(|(_, next)| next.0).min()?;
        have_answered.then(|| OrderNumber(next.saturating_sub(1)))
    }

    /// A wait that begins.
    pub(super) fn begin(&self, now: Time) -> Wait {
        Wait {
            since: now,
            full_us: self.full_for_us(now),
            base: self.base,
            slow_us: 0,
            seen: None,
            others_us: 0,
        }
    }

    /// A wait begins again: the execution stage is as slow as it was.
    pub(super) fn begin_again(&self, wait: &mut Wait, now: Time) {
        let seen = wait.seen.map(|seen| Seen { first: seen.last, since: now, ..seen });
        *wait = Wait { slow_us: wait.slow_us, seen, ..self.begin(now) };
    }

    /// How long a wait has lasted in which a leader could order something, in microseconds.
    pub(super) fn waited_us(&self, wait: &Wait, now: Time) -> u64 {
        let waited_us = now.since_us(wait.since);
        if mutants::active(Mutant::FullWindowCounts) {
            return waited_us;
        }
        let full_us = self.full_for_us(now) - wait.full_us;
        let had_its_turn = self.base.0 - wait.base.0 >= EXCUSED_WINDOWS * self.window
            && !mutants::active(Mutant::FullWindowExcuses);
        waited_us - full_us + if had_its_turn { full_us / EXCUSED } else { 0 }
    }

    /// For how much of that time others were served, if clients are served in turn, in microseconds.
    pub(super) fn others_us(&self, wait: &Wait) -> u64 {
        if mutants::active(Mutant::TurnsIgnored) {
            return 0;
        }
        if wait.turns() < TURNS * self.session_window { wait.others_us } else { 0 }
    }

    /// Whether the leader need not be told of a request: a copy would hold up what comes over a slow wire, it is
    /// likely to have one, and to order it in its turn.
    pub(super) fn need_not_tell(
        &self,
        wait: &Wait,
        enough_us: u64,
        path: &PathState,
        now: Time,
    ) -> bool {
        let counts_us = self.waited_us(wait, now).saturating_sub(self.others_us(wait));
        path.is_costly()
            && counts_us < enough_us
            && wait.turns() < UNTOLD_TURNS * self.session_window
            && !mutants::active(Mutant::TurnsIgnored)
    }

    /// The execution stage says what it has executed instead of a request.
    pub(super) fn others_ran(
        &self,
        wait: &mut Wait,
        progress: Progress,
        path: &PathState,
        now: Time,
    ) {
        if let Some(seen) = &mut wait.seen
            // It starts from nothing when a state is installed.
            && progress.bytes >= seen.last.bytes
        {
            let bytes = progress.bytes - seen.last.bytes;
            let copies = SLOW_PARTS * self.followers;
            let busy_us = bytes.saturating_mul(copies * 1_000_000) / SLOW_WIRE;
            // It comes a batch at a time, so one is counted ahead; but not what came faster than over such a wire.
            let most_us =
                now.since_us(seen.since) + copies * carried_us(progress.longest.into(), path);
            let others_us = wait.others_us + busy_us;
            wait.others_us = others_us.min(most_us);
            seen.last = progress;
        } else {
            wait.seen = Some(Seen { first: progress, last: progress, since: now });
        }
    }

    /// For how long all windows have been full in all, in microseconds.
    fn full_for_us(&self, now: Time) -> u64 {
        self.full_us + self.full_since.map_or(0, |since| now.since_us(since))
    }

    /// Stops the process if this is not as its own rules say.
    #[inline]
    pub(super) fn check_invariants(&self) {
        let are_full = self.full.iter().all(|is_full| *is_full);
        assert_eq!(are_full, self.full_since.is_some(), "time with full windows is counted");
    }
}

impl Wait {
    /// Turns that have ended since the first answer of the execution stage.
    pub(super) fn turns(&self) -> u32 {
        self.seen.map_or(0, |seen| seen.last.turns.wrapping_sub(seen.first.turns))
    }

    /// The execution stage took this long to answer a question about the request, in microseconds.
    pub(super) fn answered_after(&mut self, us: u64) {
        self.slow_us = self.slow_us.max(us);
    }

    /// The longest answer counts for another wait no more, but the last one does.
    pub(super) fn forget_slowness(&mut self, last_us: u64) {
        self.slow_us = last_us;
    }

    /// How long a leader may take for a request of so many bytes, if it may take `delay_us` while execution is
    /// not behind and wires are fast.
    pub(super) fn enough_us(&self, delay_us: u64, bytes: usize, path: &PathState) -> u64 {
        if mutants::active(Mutant::SlownessCounts) {
            return delay_us;
        }
        let longest = self.seen.map_or(0, |seen| u64::from(seen.last.longest));
        let carried_us = 2 * carried_us(bytes as u64 + longest, path);
        // As long as a peer must answer for it to count.
        let way_us = (path.takes_us + path.takes_us / 4).min(MOST_ON_WAY * delay_us);
        delay_us.saturating_add(SLOW * self.slow_us).saturating_add(carried_us + way_us)
    }
}

/// How long the slowest way to a peer takes for so many bytes, in microseconds, if it is known to be slow. So a leader
/// on a fast one has no longer than the timeout says.
fn carried_us(bytes: u64, path: &PathState) -> u64 {
    if !path.is_costly() {
        return 0;
    }
    bytes.saturating_mul(1_000_000) / path.least_rate.max(SLOW_WIRE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [PillarId; 2] = [PillarId(0), PillarId(1)];

    fn patience(pillars: u16) -> Patience {
        Patience::new(&GroupConfig { pillars, window: 8, ..GroupConfig::default() })
    }

    fn window(patience: &mut Patience, is_full: bool, base: u64, at: u64) {
        for pillar in BOTH {
            patience.window(pillar, is_full, OrderNumber(base), Time(at));
        }
    }

    #[test]
    fn time_counts_while_any_pillar_can_order() {
        let mut patience = patience(2);
        let wait = patience.begin(Time(100));
        patience.window(BOTH[0], true, OrderNumber(0), Time(110));
        assert_eq!(patience.waited_us(&wait, Time(120)), 20);
        patience.window(BOTH[1], true, OrderNumber(0), Time(120));
        assert_eq!(patience.waited_us(&wait, Time(1_000)), 20);
        let later = patience.begin(Time(1_000));
        window(&mut patience, false, 2, 2_000);
        assert_eq!(patience.waited_us(&wait, Time(2_005)), 25);
        assert_eq!(patience.waited_us(&later, Time(2_005)), 5);
        patience.check_invariants();
    }

    #[test]
    fn a_leader_that_orders_others_is_excused_for_two_windows() {
        let mut patience = patience(2);
        window(&mut patience, true, 2, 0);
        let wait = patience.begin(Time(0));
        for (turn, base) in (4..18).step_by(2).enumerate() {
            window(&mut patience, true, base, 100 * turn as u64);
            assert_eq!(patience.waited_us(&wait, Time(16_000)), 0, "{base}");
        }
        window(&mut patience, true, 18, 16_000);
        assert_eq!(patience.waited_us(&wait, Time(16_000)), 1_000);
    }

    #[test]
    fn what_must_be_executed_is_what_all_pillars_have_committed() {
        let mut patience = patience(2);
        let round = patience.next_round();
        assert_eq!(patience.ask_committed(), round);
        assert!(!patience.committed(BOTH[0], round, OrderNumber(7)));
        assert_eq!(patience.committed_before(round), None);
        assert!(patience.committed(BOTH[1], round, OrderNumber(4)));
        assert_eq!(patience.committed_before(round), Some(OrderNumber(3)));
        assert_eq!(patience.committed_before(patience.next_round()), None);
    }

    #[test]
    fn a_slow_service_makes_the_wait_longer() {
        let mut wait = patience(1).begin(Time(0));
        assert_eq!(wait.enough_us(50, 0, &PathState::default()), 50);
        wait.answered_after(30);
        wait.answered_after(10);
        assert_eq!(wait.enough_us(50, 0, &PathState::default()), 50 + SLOW * 30);
        wait.forget_slowness(10);
        assert_eq!(wait.enough_us(50, 0, &PathState::default()), 50 + SLOW * 10);
    }
}
