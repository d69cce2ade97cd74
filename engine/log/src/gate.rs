//! What may leave: the one question that whoever sends messages asks the log.

use crate::log::{Cursor, Log};
use crate::mutants::{self, Mutant};
use crate::options::Durability;

/// Tells up to which cursor whatever depends on records may leave the host.
///
/// It belongs to the one place that everything leaves by, which asks it once a turn. It takes the time,
/// and has no clock of its own.
#[derive(Debug)]
pub struct Gate {
    log: Log,
    /// The highest answer so far.
    highest: Cursor,
    /// In `Async`: what has to be durable before `since` counts no more.
    mark: Cursor,
    since: u64,
}

impl Gate {
    pub(crate) fn new(log: Log) -> Self {
        let mark = log.synced();
        Self { log, highest: mark, mark, since: 0 }
    }

    /// Up to here everything may leave, at a time in milliseconds that never falls.
    ///
    /// | [`Durability`] | up to |
    /// |---|---|
    /// | `Sync` | what is durable |
    /// | `Async` | what is written and within the window: `window_bytes` beyond what is durable, closed while the disk takes too long for `window_ms` |
    /// | `None` | what is written |
    ///
    /// After a failure this moves no more.
    #[must_use]
    pub fn released(&mut self, now_ms: u64) -> Cursor {
        let written = match mutants::active(Mutant::ReleaseBeforeWrite) {
            true => self.log.appended(),
            false => self.log.written(),
        };
        let released = match self.log.shared.options.durability {
            Durability::Sync => self.log.synced(),
            Durability::None => written,
            Durability::Async { window_ms, window_bytes } => {
                self.window_end(window_ms, window_bytes, now_ms).min(written)
            }
        };
        self.highest = self.highest.max(released);
        self.highest
    }

    /// The end of the window. What is not durable was released after `since`: half a window ago at
    /// most, as of then at most another half passes until the mark is durable. If it takes longer,
    /// nothing more is released until all that was is durable.
    fn window_end(&mut self, window_ms: u64, window_bytes: u64, now_ms: u64) -> Cursor {
        let synced = self.log.synced();
        if synced >= self.mark {
            (self.mark, self.since) = (self.log.appended(), now_ms);
        } else if now_ms.saturating_sub(self.since) > window_ms / 2 {
            self.mark = self.mark.max(self.highest);
            return synced;
        }
        Cursor(synced.0.saturating_add(window_bytes))
    }
}
