//! The random numbers of a load: repeatable, not secret.

/// A small random generator (SplitMix64): the load needs variety, not secrecy.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator with its own sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6a09_e667_f3bc_c909)
    }

    /// One of several generators of the same seed, with a sequence of its own.
    #[must_use]
    pub fn of(seed: u64, index: u64) -> Self {
        let mut mixed = Self::new(seed);
        Self::new(mixed.draw() ^ index.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    /// The next number.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        (((self.draw() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// A number below `bound`, which may be large.
    #[inline]
    pub fn below_u64(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A number above 0 and at most 1.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        ((self.draw() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_and_each_index_another() {
        let draw = |mut random: Random| [random.draw(), random.draw(), random.draw()];
        assert_eq!(draw(Random::of(7, 0)), draw(Random::of(7, 0)));
        assert_ne!(draw(Random::of(7, 0)), draw(Random::of(7, 1)));
        assert_ne!(draw(Random::of(7, 1)), draw(Random::of(8, 0)));
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::new(1);
        for _ in 0..10_000 {
            assert!(random.below(3) < 3 && random.below_u64(5_000_000_000) < 5_000_000_000);
            let unit = random.unit();
            assert!(0.0 < unit && unit <= 1.0);
        }
    }
}
