//! Which records are popular: uniform, Zipf's law, or the latest.

use crate::options::Distribution;

use super::Random;

/// The exponent of Zipf's law, as in YCSB.
pub const ZIPF_EXPONENT: f64 = 0.99;

/// Ranks from 1 to n by Zipf's law: rank k comes with a probability proportional to 1 / k^0.99.
///
/// It is exact for every n and needs no table: rejection-inversion by Hörmann and Derflinger ("Rejection
/// inversion to generate variates from monotone discrete distributions", 1996).
#[derive(Clone, Debug)]
pub struct Zipf {
    n: u64,
    /// The integral of the law's continuation up to 1.5, less the first rank's own weight.
    low: f64,
    /// The integral up to n + 0.5.
    high: f64,
    shortcut: f64,
}

impl Zipf {
    /// Over n ranks; `n` must not be 0.
    #[must_use]
    pub fn new(n: u64) -> Self {
        let n = n.max(1);
        Self {
            n,
            low: integral(1.5) - 1.0,
            high: integral(n as f64 + 0.5),
            shortcut: 2.0 - inverse(integral(2.5) - weight(2.0)),
        }
    }

    /// The same law over more ranks or fewer.
    pub fn resize(&mut self, n: u64) {
        if n != self.n {
            self.n = n.max(1);
            self.high = integral(self.n as f64 + 0.5);
        }
    }

    /// A rank from 1 to n.
    pub fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let u = self.high + random.unit() * (self.low - self.high);
            let x = inverse(u);
            let rank = (x.round() as u64).clamp(1, self.n);
            let k = rank as f64;
            if k - x <= self.shortcut || u >= integral(k + 0.5) - weight(k) {
                return rank;
            }
        }
    }
}

fn weight(x: f64) -> f64 {
    x.powf(-ZIPF_EXPONENT)
}

/// The integral of [`weight`], up to a constant.
fn integral(x: f64) -> f64 {
    const ONE_LESS: f64 = 1.0 - ZIPF_EXPONENT;
    // expm1 keeps the digits that x^0.01 - 1 would lose.
    (ONE_LESS * x.ln()).exp_m1() / ONE_LESS
}

/// The inverse of [`integral`].
fn inverse(u: f64) -> f64 {
    const ONE_LESS: f64 = 1.0 - ZIPF_EXPONENT;
    ((ONE_LESS * u).max(-1.0).ln_1p() / ONE_LESS).exp()
}

/// Chooses records by their popularity.
#[derive(Clone, Debug)]
pub struct Choice {
    kind: Distribution,
    zipf: Zipf,
}

impl Choice {
    /// Over `records` records.
    #[must_use]
    pub fn new(kind: Distribution, records: u64) -> Self {
        Self { kind, zipf: Zipf::new(records) }
    }

    /// How far from the latest of `records` records the chosen one is, or for the other distributions
    /// just which one it is: 0 to `records` - 1.
    pub fn draw(&mut self, records: u64, random: &mut Random) -> u64 {
        match self.kind {
            Distribution::Uniform => random.below_u64(records),
            Distribution::Latest => {
                self.zipf.resize(records);
                self.zipf.draw(random) - 1
            }
            // Popular records are spread over the key space, as in YCSB: else all of them would be
            // neighbours in one page of the store.
            Distribution::Zipfian => {
                self.zipf.resize(records);
                scatter(self.zipf.draw(random) - 1) % records
            }
        }
    }
}

/// FNV-1a of the eight bytes of a number, which YCSB scatters its popular records with.
fn scatter(number: u64) -> u64 {
    number.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of the first ranks, and all others together, as often as the law says: within five standard
    /// deviations, with a fixed seed.
    #[test]
    fn ranks_come_as_often_as_the_law_says() {
        const DRAWS: u64 = 200_000;
        for n in [1_u64, 2, 10, 1000, 100_000] {
            let zipf = Zipf::new(n);
            let mut random = Random::new(n);
            let mut counts = [0_u64; 21];
            for _ in 0..DRAWS {
                let rank = zipf.draw(&mut random);
                assert!((1..=n).contains(&rank));
                counts[rank.min(21) as usize - 1] += 1;
            }
            let sum: f64 = (1..=n).map(|k| weight(k as f64)).sum();
            let mut rest = 1.0;
            for (at, count) in counts.iter().enumerate() {
                let k = at as u64 + 1;
                let p = if k == 21 {
                    rest
                } else if k <= n {
                    weight(k as f64) / sum
                } else {
                    0.0
                };
                rest -= p;
                let expected = p.max(0.0) * DRAWS as f64;
                let tolerance = 5.0 * (expected * (1.0 - p).max(0.0)).sqrt() + 1e-6;
                let off = (*count as f64 - expected).abs();
                assert!(off <= tolerance, "n {n}, rank {k}: {count} for {expected:.0}");
            }
        }
    }

    #[test]
    fn a_law_that_grew_is_that_of_its_new_size() {
        let mut grown = Zipf::new(10);
        grown.resize(5000);
        let (new, mut a, mut b) = (Zipf::new(5000), Random::new(3), Random::new(3));
        assert!((0..1000).all(|_| grown.draw(&mut a) == new.draw(&mut b)));
    }

    #[test]
    fn every_distribution_stays_within_its_records() {
        let mut random = Random::new(5);
        for kind in [Distribution::Uniform, Distribution::Zipfian, Distribution::Latest] {
            let mut choice = Choice::new(kind, 1);
            for records in 1..2000 {
                assert!(choice.draw(records, &mut random) < records, "{kind:?}");
            }
        }
    }

    /// The latest is the most popular by far; of uniform ones, none is.
    #[test]
    fn the_latest_is_popular() {
        let share = |kind| {
            let (mut choice, mut random) = (Choice::new(kind, 1000), Random::new(9));
            (0..10_000).filter(|_| choice.draw(1000, &mut random) == 0).count()
        };
        assert!(share(Distribution::Latest) > 1000);
        assert!(share(Distribution::Uniform) < 50);
    }
}
