//! How long proposals may have been on their way, by their lengths and by when they came.

use crate::config::GroupConfig;
use crate::mutants::{self, Mutant};

/// What the slowest wire that a leader may have carries, in bytes per millisecond: 1 Mbit/s. A long
/// proposal is under way for seconds over such a wire, until each follower has a copy.
const SLOWEST_WIRE: u64 = 125;

/// What else goes over a busy wire between two proposals of a pillar, in multiples of the second one.
const OTHERS: u64 = 16;

/// When the proposals of one pillar came.
#[derive(Clone, Copy, Default)]
pub(crate) struct Arrivals {
    /// Since when proposals may have followed each other without a pause on the slowest wire.
    busy_since_ms: u64,
    /// When the last one of them came.
    last_came_ms: u64,
}

impl Arrivals {
    /// Since when a proposal of this many bytes that comes now may have been on its way, by this replica's
    /// clock. To be asked once for each.
    pub(crate) fn sent_since_ms(&mut self, config: &GroupConfig, now_ms: u64, bytes: usize) -> u64 {
        let copies = u64::from(config.replicas) - 1;
        let longest_ms = carried_ms(config.batch_max_bytes as usize, copies);
        let longest_ms = longest_ms.min(config.max_clock_skew_ms);
        let carried_ms = carried_ms(bytes, copies);
        if mutants::active(Mutant::BusyWireIgnored) {
            now_ms.saturating_sub(carried_ms)
        } else {
            self.arrived(now_ms, carried_ms, longest_ms)
        }
    }

    /// A proposal arrived that takes the slowest wire `carried_ms`; since when it may have been under
    /// way, but for no longer than `longest_ms`.
    ///
    /// A wire that becomes slow holds what its host gave it while it was fast: proposals whose times are
    /// as old as they had to wait for those before them. The wire was busy with these all the time, so
    /// each came no later after the one before than the slowest wire takes for it and for [`OTHERS`] times
    /// as much from other pillars and of other kinds. A leader whose clock stands can make its wire look
    /// busy, too: so this excuses no more than the group's bound does, and than one long proposal does.
    fn arrived(&mut self, now_ms: u64, carried_ms: u64, longest_ms: u64) -> u64 {
        let began_ms = now_ms.saturating_sub(carried_ms);
        if began_ms > self.last_came_ms + OTHERS * carried_ms || now_ms < self.last_came_ms {
            self.busy_since_ms = began_ms;
        }
        self.last_came_ms = now_ms;
        self.busy_since_ms = self.busy_since_ms.max(now_ms.saturating_sub(longest_ms));
        self.busy_since_ms.min(began_ms)
    }
}

/// How long so many copies of a message are under way over the slowest wire, in milliseconds.
const fn carried_ms(bytes: usize, copies: u64) -> u64 {
    (bytes as u64).saturating_mul(copies) / SLOWEST_WIRE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proposals whose times are all 0 come every 900 ms from 10 s on, each of which takes the slowest
    /// wire 100 ms: they may all have been sent at first, as far as the bound reaches back.
    #[test]
    fn proposals_without_a_pause_may_all_have_waited_for_each_other() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.arrived(10_000, 100, 5_000), 9_900);
        for at in (1..5).map(|count| 10_000 + 900 * count) {
            assert_eq!(arrivals.arrived(at, 100, 5_000), 9_900);
        }
        assert_eq!(arrivals.arrived(15_000, 600, 5_000), 10_000);
        // A pause: nothing that came before held it up.
        assert_eq!(arrivals.arrived(16_701, 100, 5_000), 16_601);
        // The clock went back.
        assert_eq!(arrivals.arrived(7_000, 100, 5_000), 6_900);
    }

    #[test]
    fn the_slowest_wire_carries_a_megabit_a_second() {
        assert_eq!(carried_ms(1_000_000 / 8, 1), 1000);
        // The last follower's copy of a batch of 1 MiB, where each has its own.
        assert_eq!(carried_ms(1 << 20, 2), 16_777);
        assert!(carried_ms(112, 2) < 5, "short ones hardly wait");
    }
}
