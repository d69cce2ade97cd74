//! Deliberate faults, to show that the tests find them: each leaves out one rule, in one line where
//! the rule is. One can be chosen only with the feature `mutants`, which only tests turn on. In every
//! other build [`active`] is the constant `false`, and the lines compile to nothing.

/// A rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Pages and table are not synced before the superblock is written.
    SuperblockBeforeSync,
    /// The superblock is not synced before a commit is reported.
    SuperblockUnsynced,
    /// Blocks of the old checkpoint are free while the new one is being written.
    FreedTooEarly,
    /// Blocks of the old checkpoint are never free.
    NeverFreed,
    /// The name of the file is never synced.
    NoDirectorySync,
    /// A sync that failed counts as done.
    ContinueAfterError,
    /// What may be only in the page cache is not written again by a start.
    UnprovenTrusted,
    /// The older of two superblocks is taken.
    OlderTaken,
    /// If a superblock is broken the other one is taken.
    RotIsTorn,
    /// Checksums of pages are not looked at.
    PageUnchecked,
    /// The checksum of the table is not looked at.
    TableUnchecked,
    /// The file is cut off through what is in use.
    CutTooFar,
    /// The blocks of an update that was abandoned are lost.
    AbandonedKept,
    /// A page that is moved keeps its old place in the table.
    MovedForgotten,
    /// A commit does not look whether its pages are complete.
    IncompleteTaken,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::SuperblockBeforeSync,
        Self::SuperblockUnsynced,
        Self::FreedTooEarly,
        Self::NeverFreed,
        Self::NoDirectorySync,
        Self::ContinueAfterError,
        Self::UnprovenTrusted,
        Self::OlderTaken,
        Self::RotIsTorn,
        Self::PageUnchecked,
        Self::TableUnchecked,
        Self::CutTooFar,
        Self::AbandonedKept,
        Self::MovedForgotten,
        Self::IncompleteTaken,
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
