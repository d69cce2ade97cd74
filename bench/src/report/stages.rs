//! Where the latency of requests went, in the report.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{count, micros};

/// Where the latency of the requests went that were followed (`--stages`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StagesReport {
    /// One request in so many was followed.
    pub every: u32,
    /// Those that were followed from their client to the leader and back.
    pub requests: u64,
    /// Those of which something is missing: they were executed by another leader than they were sent to, or
    /// the leader was killed.
    pub incomplete: u64,
    /// Stamps that replicas had no room for.
    pub lost_stamps: u64,
    /// The stages, in the order of a request's way. Their means add up to the mean latency.
    pub stages: Vec<StageReport>,
    /// The requests by their latency.
    pub bands: Vec<BandReport>,
}

/// How long requests were at one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Its name.
    pub stage: String,
    /// What happens there, in a few words.
    pub what: String,
    /// Arithmetic mean over all requests, in microseconds.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Largest value.
    pub max_us: f64,
}

/// Requests with latencies between two percentiles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BandReport {
    /// Which: `all`, `to p50`, `p50 to p90`, `p90 to p99`, `from p99`.
    pub band: String,
    /// How many they are.
    pub requests: u64,
    /// Their mean latency.
    pub mean_us: f64,
    /// Their mean time at each stage, in the order of the stages; they add up to it.
    pub stages_us: Vec<f64>,
}

impl StagesReport {
    /// As CSV, one line per band and stage.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = "band,requests,stage,mean_us\n".to_owned();
        for band in &self.bands {
            for (stage, mean) in self.stages.iter().zip(&band.stages_us) {
                text += &format!("{},{},{},{mean}\n", band.band, band.requests, stage.stage);
            }
        }
        text
    }
}

impl fmt::Display for StagesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, every) = (count(self.requests), count(self.every.into()));
        writeln!(f, "  where the latency went: {requests} requests, one in {every}")?;
        let slow = self.bands.last().filter(|_| self.bands.len() > 1);
        writeln!(
            f,
            "  {:<14} {:>10} {:>6} {:>10} {:>10} {:>12}",
            "stage", "mean", "share", "p50", "p99", "slow ones *"
        )?;
        let all: f64 = self.stages.iter().map(|stage| stage.mean_us).sum();
        for (number, stage) in self.stages.iter().enumerate().filter(|(_, s)| s.max_us > 0.0) {
            let of_slow = slow.and_then(|band| band.stages_us.get(number));
            writeln!(
                f,
                "  {:<14} {:>10} {:>4.0} % {:>10} {:>10} {:>12}",
                stage.stage,
                micros(stage.mean_us),
                stage.mean_us / all.max(1e-9) * 100.0,
                micros(stage.p50_us),
                micros(stage.p99_us),
                of_slow.map_or(String::new(), |us| micros(*us)),
            )?;
        }
        if let Some(band) = slow {
            let (requests, mean) = (count(band.requests), micros(band.mean_us));
            writeln!(f, "  * the mean of the slowest, {}: {requests} requests, {mean}", band.band)?;
        }
        if self.incomplete > 0 {
            let incomplete = count(self.incomplete);
            writeln!(f, "  {incomplete} more could not be followed, as their leader changed")?;
        }
        if self.lost_stamps > 0 {
            let lost = count(self.lost_stamps);
            writeln!(
                f,
                "  {lost} stamps are missing: replicas keep so many at most; follow fewer requests"
            )?;
        }
        Ok(())
    }
}
