//! The log of one pillar: what it knows about each slot after the stable checkpoint.
//!
//! A ring with a fixed number of places, so that its memory is fixed at the start and a slot takes
//! no allocation. What an entry holds is the protocol's business.

/// Windows of slots that a log holds: a peer that moved its window first may be one window ahead.
pub(crate) const LOG_WINDOWS: u64 = 2;

/// What is known about a slot. The default knows nothing.
pub(crate) trait Entry: Default {
    /// Forgets everything; keeps memory for the next slot that gets this place.
    fn clear(&mut self);
}

/// Entries of the slots from a base on.
///
/// Invariant: an entry outside of `base..end` is empty.
pub(crate) struct Log<E> {
    ring: Vec<E>,
    base: u64,
    /// Where the entry of the base is in the ring: kept, so that finding an entry takes no division.
    base_at: usize,
}

impl<E: Entry> Log<E> {
    /// Room for `capacity` slots after the base, which is 0 at first.
    pub(crate) fn new(capacity: u64) -> Self {
        let capacity = usize::try_from(capacity).expect("windows fit into memory");
        let ring = std::iter::repeat_with(E::default).take(capacity).collect();
        Self { ring, base: 0, base_at: 0 }
    }

    /// The first slot after the stable checkpoint.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The first slot that has no room.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    /// The entry at a place of the ring.
    pub(crate) fn at_place(&self, place: usize) -> Option<&E> {
        self.ring.get(place)
    }

    /// How many places there are.
    pub(crate) fn places(&self) -> usize {
        self.ring.len()
    }

    /// Where a slot's entry is in the ring: at the slot's number modulo the places.
    #[inline]
    pub(crate) fn position(&self, slot: u64) -> Option<usize> {
        let places = self.ring.len();
        let after_base = slot.checked_sub(self.base).filter(|it| *it < places as u64)? as usize;
        let at = self.base_at + after_base;
        Some(if at < places { at } else { at - places })
    }

    pub(crate) fn get(&self, slot: u64) -> Option<&E> {
        self.position(slot).map(|at| &self.ring[at])
    }

    pub(crate) fn get_mut(&mut self, slot: u64) -> Option<&mut E> {
        self.position(slot).map(|at| &mut self.ring[at])
    }

    /// Forgets the slots before a new base.
    pub(crate) fn forward(&mut self, base: u64) {
        assert!(base >= self.base, "windows move on");
        for slot in self.base..base.min(self.end()) {
            let at = (slot % self.ring.len() as u64) as usize;
            self.ring[at].clear();
        }
        self.base = base;
        self.base_at = (base % self.ring.len() as u64) as usize;
    }

    /// All entries, in no particular order but always the same.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &E> {
        self.ring.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Entry for u64 {
        fn clear(&mut self) {
            *self = 0;
        }
    }

    #[test]
    fn slots_before_the_base_are_forgotten_and_their_places_are_used_again() {
        let mut log: Log<u64> = Log::new(4);
        for slot in 0..4 {
            *log.get_mut(slot).unwrap() = 10 + slot;
        }
        assert!(log.get_mut(4).is_none());
        log.forward(3);
        assert_eq!((log.base(), log.end()), (3, 7));
        assert_eq!((log.get(2), log.get(3), log.get(4)), (None, Some(&13), Some(&0)));
        // Far beyond everything that is known.
        log.forward(1000);
        assert!((1000..1004).all(|slot| log.get(slot) == Some(&0)));
        assert!(log.entries().all(|entry| *entry == 0));
    }

    /// Digests find batches by places, so these must not depend on how the window moved.
    #[test]
    fn a_slot_has_its_place_wherever_the_base_is() {
        for places in [1, 3, 4, 7] {
            let (mut log, mut base): (Log<u64>, _) = (Log::new(places), 0);
            for step in [0, 1, 1, 2, places - 1, places, 2 * places + 1, 1000, 3] {
                base += step;
                log.forward(base);
                let found = (base..base + places).map(|slot| log.position(slot));
                assert!(found.eq((base..base + places).map(|slot| Some((slot % places) as usize))));
                let outside = [base.wrapping_sub(1), base + places, u64::MAX];
                assert_eq!(outside.map(|slot| log.position(slot)), [None; 3], "base {base}");
            }
        }
    }
}
