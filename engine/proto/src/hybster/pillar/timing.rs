//! The times of batches: what a leader proposes and what a follower acknowledges.
//!
//! A leader says with each batch what its clock shows (Castro's thesis, section 5.4). A follower
//! acknowledges the proposal if, by its own clock, that may be true:
//! - it is not *early*, ahead of the clock by more than the group's bound; if it is, the follower
//!   waits until the clock is there;
//! - it did not come *late*, behind the clock by more than the bound and the time that it may have
//!   been under way; how long that may be, the adaptive commit timeout knows, and its length and that of
//!   the proposals that came before it without a pause say what a slow wire takes for them
//!   ([`Arrivals`]);
//! - it does not lie before an earlier time of the pillar in this view.
//!
//! What is refused holds up the slots after it, and so makes the leader suspect (`commit_deadline`).
//!
//! Clocks decide about progress only. What others commit is committed whatever its time, and what f
//! other followers have acknowledged is acknowledged here as well: with the leader's PREPARE that
//! makes f+1 replicas, a correct one of which found the time right, so it is the clock of this
//! replica that is wrong. Re-issued PREPAREs come with a NEW-VIEW and are never checked here: their
//! age does not matter. That none of them is early is checked before the view is entered
//! (`control/timing.rs`).

use hybster_tss::{RequestVerifier, TrInX, Verifier};

use super::Pillar;
use super::slots::{Slot, StoredPrepare};
use crate::config::GroupConfig;
use crate::hybster::wire::ordering::PrepareHeader;
use crate::mutants::{self, Mutant};
use crate::shared::arrivals::Arrivals;
use crate::time::{Time, WallClock};

/// What a pillar knows about times.
pub(super) struct Timing {
    pub(super) clock: WallClock,
    bound_ms: u64,
    /// The latest time of a batch that this replica proposed, acknowledged, saw committed or inherited
    /// in the view.
    last_ms: u64,
    /// The first slot after the re-issued ones of the view: those are part of the prepared set even
    /// if the replica has left the view before it entered it.
    pub(super) inherited: u64,
    /// What the slot to certify next holds, if its time is refused.
    pub(super) refused: Option<Refused>,
    arrivals: Arrivals,
}

/// A PREPARE that is not acknowledged because of its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    pub(super) slot: u64,
    /// If it is early: what the clock must show for it to be acknowledged.
    until_ms: Option<u64>,
}

impl Timing {
    pub(super) fn new(config: &GroupConfig) -> Self {
        Self {
            clock: WallClock::default(),
            bound_ms: config.max_clock_skew_ms,
            last_ms: 0,
            inherited: 0,
            refused: None,
            arrivals: Arrivals::default(),
        }
    }

    /// The time for the next proposal: what the clock shows, unless it went back.
    pub(super) fn propose(&mut self, now: Time) -> u64 {
        self.last_ms = self.last_ms.max(self.clock.unix_ms(now));
        self.last_ms
    }

    /// A PREPARE was acknowledged or committed.
    pub(super) fn passed(&mut self, header: &PrepareHeader) {
        self.last_ms = self.last_ms.max(header.time_ms);
    }

    /// A view was entered with these re-issued PREPAREs; all of them, so that a leader starts from
    /// no earlier time than any follower.
    pub(super) fn enter(&mut self, reissued: &[PrepareHeader], inherited: u64) {
        self.last_ms = reissued.iter().map(|header| header.time_ms).max().unwrap_or(0);
        self.inherited = inherited;
        self.refused = None;
    }

    /// The latest time of a batch.
    pub(super) fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// As a log tells it.
    pub(super) fn recover(&mut self, last_ms: u64, inherited: u64) {
        (self.last_ms, self.inherited) = (last_ms, inherited);
    }

    #[cfg(feature = "model")]
    pub(super) fn fingerprint(&self, prepared: u64, into: &mut crate::fingerprint::Fingerprint) {
        // Clock and bound only pace work; a refusal follows from the log.
        let Self { clock: _, bound_ms: _, last_ms, inherited, .. } = self;
        into.number(*last_ms);
        into.number((*inherited).max(prepared));
    }
}

impl<T: TrInX, V: Verifier + RequestVerifier> Pillar<T, V> {
    /// Whether a proposal came too late for its time. To be asked once for each that is stored.
    pub(super) fn is_late(&mut self, header: &PrepareHeader, bytes: usize) -> bool {
        if header.noop {
            return false;
        }
        let now_ms = self.timing.clock.unix_ms(self.now);
        let since_ms = self.timing.arrivals.sent_since_ms(&self.config, now_ms, bytes);
        let spare_ms = self.commit_timeout.delay_us() / 1000 + self.timing.clock.late_ms();
        header.time_ms.saturating_add(self.timing.bound_ms + spare_ms) < since_ms
    }

    /// Why the PREPARE of the slot to certify next must not be acknowledged now, if so.
    pub(super) fn refusal(&self, slot: &Slot, stored: &StoredPrepare) -> Option<Refused> {
        let refused = self.untimely(&stored.header, stored.late)?;
        let votes = slot.votes.iter().filter(|vote| vote.acknowledges(stored)).count();
        (votes < usize::from(self.config.faults)).then_some(refused)
    }

    fn untimely(&self, header: &PrepareHeader, late: bool) -> Option<Refused> {
        let slot = self.prepared;
        if header.noop || slot < self.timing.inherited || mutants::active(Mutant::ClockUnchecked) {
            return None;
        }
        if late || header.time_ms < self.timing.last_ms {
            return Some(Refused { slot, until_ms: None });
        }
        let until_ms = header.time_ms.saturating_sub(self.timing.bound_ms);
        let early = self.timing.clock.unix_ms(self.now) < until_ms;
        early.then_some(Refused { slot, until_ms: Some(until_ms) })
    }

    /// When an early PREPARE can be acknowledged.
    pub(super) fn early_deadline(&self) -> Option<Time> {
        let until_ms = self.timing.refused?.until_ms?;
        self.active.then(|| self.timing.clock.time_at(until_ms))
    }
}
