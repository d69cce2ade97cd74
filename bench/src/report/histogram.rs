//! All latencies of a measurement, in the report.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::load::latency_histogram;

/// How many operations had which latency. Such histograms can be added without loss.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramReport {
    /// Latencies in nanoseconds, ascending: each stands for those that equal it in three significant digits.
    pub value_ns: Vec<u64>,
    /// Operations with each of them.
    pub count: Vec<u64>,
}

impl HistogramReport {
    /// Of a histogram in nanoseconds.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let recorded = histogram.iter_recorded();
        let pairs = recorded.map(|step| (step.value_iterated_to(), step.count_at_value()));
        let (value_ns, count) = pairs.unzip();
        Self { value_ns, count }
    }

    /// Adds all of it to a histogram of [`latency_histogram`].
    ///
    /// # Errors
    /// If it is damaged.
    pub fn add_to(&self, sum: &mut Histogram<u64>) -> Result<(), Error> {
        if self.value_ns.len() != self.count.len() {
            return Err(Error::new("latency_histogram has not as many counts as values"));
        }
        for (value, count) in self.value_ns.iter().zip(&self.count) {
            sum.record_n(*value, *count)
                .map_err(|_| Error::new(format!("latency_histogram: {value} is out of range")))?;
        }
        Ok(())
    }

    /// The histogram.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn histogram(&self) -> Result<Histogram<u64>, Error> {
        let mut histogram = latency_histogram();
        self.add_to(&mut histogram)?;
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_comes_back_as_it_was() {
        let mut histogram = latency_histogram();
        for value in [1, 2, 2, 999, 123_456, 123_499, 7_654_321_012, 1_000_000_000_000] {
            histogram.record(value).unwrap();
        }
        let report = HistogramReport::of(&histogram);
        assert_eq!(report.histogram().unwrap(), histogram);
        assert_eq!(report.count.iter().sum::<u64>(), 8);
        assert_eq!(HistogramReport::of(&latency_histogram()), HistogramReport::default());
        let damaged = HistogramReport { value_ns: vec![1], count: vec![] };
        assert!(damaged.histogram().is_err());
        let damaged = HistogramReport { value_ns: vec![u64::MAX], count: vec![1] };
        assert!(damaged.histogram().unwrap_err().to_string().contains("out of range"));
    }
}
