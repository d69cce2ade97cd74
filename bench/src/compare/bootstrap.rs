//! Ratios of means, with intervals by the bootstrap.

use serde::{Deserialize, Serialize};

use crate::workload::Random;

/// How often samples are drawn again.
const RESAMPLES: usize = 10_000;
/// What is left out on each side of the interval: together 5 %.
const TAIL: f64 = 0.025;
/// With fewer samples on a side an interval would only look like one.
pub const LEAST_SAMPLES: usize = 3;

/// The ratio of two means.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Mean of the samples over mean of the base's.
    pub ratio: f64,
    /// The interval that 95 % of the ratios of samples drawn again lie in; null with fewer than three
    /// samples on a side.
    pub low: Option<f64>,
    /// Its upper end.
    pub high: Option<f64>,
}

impl Ratio {
    /// The ratio of the means of `samples` and `base`; `None` if one is empty, or the base's mean is 0.
    ///
    /// Both are resampled independently, and the interval is that of the percentiles of the resampled
    /// ratios. The random numbers are always the same, so that equal samples give equal intervals.
    #[must_use]
    pub fn of(samples: &[f64], base: &[f64]) -> Option<Self> {
        let ratio = |samples: f64, base: f64| (base > 0.0).then(|| samples / base);
        let point = ratio(mean(samples)?, mean(base)?)?;
        if samples.len().min(base.len()) < LEAST_SAMPLES {
            return Some(Self { ratio: point, low: None, high: None });
        }
        let mut random = Random::new(1);
        let mut ratios: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| ratio(resampled(samples, &mut random), resampled(base, &mut random)))
            .collect();
        ratios.sort_by(f64::total_cmp);
        let (low, high) = (quantile(&ratios, TAIL), quantile(&ratios, 1.0 - TAIL));
        Some(Self { ratio: point, low, high })
    }
}

fn mean(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
}

/// The mean of as many samples, drawn with replacement.
fn resampled(samples: &[f64], random: &mut Random) -> f64 {
    let drawn = (0..samples.len()).map(|_| samples[random.below(samples.len() as u32) as usize]);
    drawn.sum::<f64>() / samples.len() as f64
}

/// A quantile of sorted values, interpolated between its neighbours (as numpy does by default).
fn quantile(sorted: &[f64], quantile: f64) -> Option<f64> {
    let at = quantile * (sorted.len().checked_sub(1)?) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_without_spread_is_exact() {
        let ratio = Ratio::of(&[200.0; 5], &[100.0; 4]).unwrap();
        assert_eq!(ratio, Ratio { ratio: 2.0, low: Some(2.0), high: Some(2.0) });
    }

    /// By 100,000 resamples of Python's `random.choices` and the inclusive quantiles of its `statistics`:
    /// 1.0279 to 1.0286 and 1.1551 to 1.1557, with four seeds.
    #[test]
    fn an_interval_is_the_one_that_another_implementation_gives() {
        let samples = [412.0, 398.0, 441.0, 377.0, 425.0];
        let base = [371.0, 360.0, 389.0, 402.0, 355.0, 380.0];
        let ratio = Ratio::of(&samples, &base).unwrap();
        assert!((ratio.ratio - 1.091_537).abs() < 1e-5, "{ratio:?}");
        let (low, high) = (ratio.low.unwrap(), ratio.high.unwrap());
        assert!((low - 1.0283).abs() < 0.002 && (high - 1.1554).abs() < 0.002, "{ratio:?}");
    }

    #[test]
    fn the_true_ratio_is_in_most_intervals() {
        let mut random = Random::new(7);
        let mut draw = |mean: f64| -> Vec<f64> {
            // Sums of uniform numbers: nearly normal, with a deviation of a tenth of the mean.
            let one = |random: &mut Random| {
                let sum: f64 = (0..12).map(|_| random.unit()).sum();
                mean * (1.0 + 0.1 * (sum - 6.0))
            };
            (0..10).map(|_| one(&mut random)).collect()
        };
        let holds = (0..60)
            .filter(|_| {
                let ratio = Ratio::of(&draw(150.0), &draw(100.0)).unwrap();
                ratio.low.unwrap() <= 1.5 && 1.5 <= ratio.high.unwrap()
            })
            .count();
        // The bootstrap is a little too narrow for ten samples: nine of ten, not 19 of 20.
        assert!((49..=60).contains(&holds), "{holds} of 60");
    }

    #[test]
    fn few_samples_have_no_interval_and_none_no_ratio() {
        let ratio = Ratio::of(&[2.0, 2.0], &[1.0, 1.0, 1.0]).unwrap();
        assert_eq!((ratio.ratio, ratio.low, ratio.high), (2.0, None, None));
        assert_eq!(Ratio::of(&[], &[1.0]), None);
        assert_eq!(Ratio::of(&[1.0], &[0.0]), None);
    }
}
