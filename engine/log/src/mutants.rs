//! Deliberate faults, to show that the tests find them: each leaves out one rule, in one line where
//! the rule is. One can be chosen only with the feature `mutants`, which only tests turn on. In every
//! other build [`active`] is the constant `false`, and the lines compile to nothing.

/// A rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// What was written counts as synced.
    ReleaseBeforeSync,
    /// A torn tail is called damage.
    TornIsRot,
    /// Damage is cut off like a torn tail.
    RotIsTorn,
    /// Names of files are never synced.
    NoDirectorySync,
    /// A sync that failed counts as done.
    ContinueAfterError,
    /// What a recycled file held before is read as written last.
    OldReadAsNew,
    /// What may be only in the page cache is not written again by a recovery.
    UnprovenTrusted,
    /// A segment is left behind unsynced.
    SegmentLeftUnsynced,
    /// Where something may have been lost is forgotten at the next start.
    BreakForgotten,
    /// A segment is removed although it has records that are still needed.
    TruncatedTooFar,
    /// Records are released before they are in the page cache.
    ReleaseBeforeWrite,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::ReleaseBeforeSync,
        Self::TornIsRot,
        Self::RotIsTorn,
        Self::NoDirectorySync,
        Self::ContinueAfterError,
        Self::OldReadAsNew,
        Self::UnprovenTrusted,
        Self::SegmentLeftUnsynced,
        Self::BreakForgotten,
        Self::TruncatedTooFar,
        Self::ReleaseBeforeWrite,
    ];
}

/// Whether this rule is broken on the present thread.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn active(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use chosen::{active, choose};

#[cfg(feature = "mutants")]
mod chosen {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this rule is broken on the present thread.
    #[must_use]
    pub fn active(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }

    /// Breaks one rule on the present thread, or none.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }
}
