//! Where the latency of requests goes: the stamps that replicas gave to sampled requests ([`mod@file`]), and what
//! the load generator knows of these, put together.
//!
//! Everything runs on one host, whose monotonic clock all processes read. The way of a request is cut where
//! the leader, and the follower whose vote completed the quorum, had something to say about it. A stamp that is
//! missing (replicas without a log do not wait for it) makes no stage, and its time is that of the next; no
//! stamp counts as earlier than the one before or later than the answer. So the stages of a request add up
//! to its latency, exactly.

pub mod file;

use std::collections::HashMap;

use crate::engine::{Point, Stamp};
use crate::report::{BandReport, StageReport, StagesReport};

/// A request as its client saw it. Times are of the system's monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Numbers of client, session and request.
    pub request: (u32, u64, u64),
    /// When it was due, or handed to the client.
    pub since_ns: u64,
    /// When it was handed to the client.
    pub submitted_ns: u64,
    /// When the client had its result.
    pub completed_ns: u64,
}

/// The stages: name, and what happens.
pub const STAGES: [(&str, &str); 14] = [
    ("client", "waits in the load generator for a free client"),
    ("request", "from the client to the leader's network stage"),
    ("intake", "waits to be put into a batch, and for a pillar to be free"),
    ("queue", "the batch waits for its pillar"),
    ("verify", "proofs of the batch are checked, the proposal is certified"),
    ("log", "the proposal waits for the leader's log"),
    ("proposal", "from the leader to the follower"),
    ("vote", "the follower checks the proposal and votes for it"),
    ("follower-log", "the vote waits for the follower's log"),
    ("quorum", "from the follower back, until the leader knows the batch committed"),
    ("order", "waits for the orders before it, and for the execution stage"),
    ("execute", "the batch is executed"),
    ("reply-log", "the reply waits for the leader's log"),
    ("reply", "until the client has enough equal replies"),
];

/// The ends of bands of latencies, as quantiles.
const BANDS: [(&str, f64, f64); 4] = [
    ("to p50", 0.0, 0.5),
    ("p50 to p90", 0.5, 0.9),
    ("p90 to p99", 0.9, 0.99),
    ("from p99", 0.99, 1.0),
];

/// What a request's stages took, in nanoseconds.
type Split = [u64; STAGES.len()];

/// The times of a request at one replica, by [`Point`]; 0 where there is none.
type Times = [u64; Point::ALL.len()];

/// The stamps of one replica.
struct Replica {
    of: HashMap<(u32, u64, u64), Times>,
    /// When what was made for an order number left.
    left: HashMap<u64, u64>,
    /// The order numbers of proposals and votes.
    orders: HashMap<(u32, u64, u64), u64>,
}

impl Replica {
    fn new(stamps: &[Stamp]) -> Self {
        let (mut of, mut left, mut orders) =
            (HashMap::<_, Times>::new(), HashMap::new(), HashMap::new());
        for stamp in stamps {
            if stamp.point == Point::Left {
                left.entry(stamp.order.0).or_insert(stamp.at_ns);
                continue;
            }
            let time = &mut of.entry(stamp.request()).or_default()[stamp.point as usize];
            // What was sent again arrives again: the first counts.
            if *time == 0 || stamp.at_ns < *time {
                *time = stamp.at_ns;
                if stamp.order.0 > 0 {
                    orders.insert(stamp.request(), stamp.order.0);
                }
            }
        }
        Self { of, left, orders }
    }

    fn time(&self, request: (u32, u64, u64), point: Point) -> Option<u64> {
        let time = if point == Point::Left {
            self.left.get(self.orders.get(&request)?).copied()?
        } else {
            self.of.get(&request)?[point as usize]
        };
        (time > 0).then_some(time)
    }
}

/// Puts samples and the stamps of all replicas together. The leader needs `votes` of followers.
#[must_use]
pub fn report(
    every: u32,
    samples: &[Sample],
    replicas: &[Vec<Stamp>],
    votes: usize,
    lost_stamps: u64,
) -> StagesReport {
    let replicas: Vec<Replica> = replicas.iter().map(|stamps| Replica::new(stamps)).collect();
    let mut splits: Vec<Split> =
        samples.iter().filter_map(|sample| split(sample, &replicas, votes)).collect();
    splits.sort_by_key(|split| split.iter().sum::<u64>());
    let stage = |(number, (name, what)): (usize, (&str, &str))| {
        let mut times: Vec<u64> = splits.iter().map(|split| split[number]).collect();
        times.sort_unstable();
        // The smallest that so many are at most.
        let at = |quantile: f64| {
            let rank = (times.len() as f64 * quantile).ceil() as usize;
            us(times.get(rank.saturating_sub(1)).copied().unwrap_or(0))
        };
        StageReport {
            stage: name.into(),
            what: what.into(),
            mean_us: mean(&times),
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: at(1.0),
        }
    };
    let bands = std::iter::once(("all", 0.0, 1.0)).chain(BANDS);
    StagesReport {
        every,
        requests: splits.len() as u64,
        incomplete: (samples.len() - splits.len()) as u64,
        lost_stamps,
        stages: STAGES.into_iter().enumerate().map(stage).collect(),
        bands: bands.filter_map(|(name, from, to)| band(name, from, to, &splits)).collect(),
    }
}

/// Requests between two quantiles of latency; none if there is no request.
fn band(name: &str, from: f64, to: f64, splits: &[Split]) -> Option<BandReport> {
    let place = |quantile: f64| (splits.len() as f64 * quantile).floor() as usize;
    let splits = splits.get(place(from)..place(to))?;
    if splits.is_empty() {
        return None;
    }
    let stages_us: Vec<f64> = (0..STAGES.len())
        .map(|stage| mean(&splits.iter().map(|split| split[stage]).collect::<Vec<_>>()))
        .collect();
    let mean_us = stages_us.iter().sum();
    Some(BandReport { band: name.into(), requests: splits.len() as u64, mean_us, stages_us })
}

/// The stages of a request, if its leader is known.
fn split(sample: &Sample, replicas: &[Replica], votes: usize) -> Option<Split> {
    let request = sample.request;
    // It may have been proposed again in another view; without a protocol it is only executed.
    let made = |point| {
        let made =
            (0..replicas.len()).filter_map(move |r| Some((replicas[r].time(request, point)?, r)));
        made.filter(|(at, _)| *at <= sample.completed_ns).max()
    };
    let (_, leader) = made(Point::Proposed)
        .or_else(|| if replicas.len() == 1 { made(Point::Executed) } else { None })?;
    let of_leader = |point| replicas[leader].time(request, point);
    of_leader(Point::Executed)?;
    // The follower whose vote was the last that was needed.
    let mut followers: Vec<(u64, usize)> = (0..replicas.len())
        .filter(|replica| *replica != leader)
        .filter_map(|replica| {
            let voted = replicas[replica].time(request, Point::Vouched)?;
            Some((replicas[replica].time(request, Point::Left).unwrap_or(voted), replica))
        })
        .collect();
    followers.sort_unstable();
    let follower = votes.checked_sub(1).and_then(|last| followers.get(last));
    let of_follower = |point| replicas[follower?.1].time(request, point);
    let ends = [
        Some(sample.submitted_ns),
        of_leader(Point::Arrived),
        of_leader(Point::Batched),
        of_leader(Point::Taken),
        of_leader(Point::Proposed),
        of_leader(Point::Left),
        of_follower(Point::ProposalArrived),
        of_follower(Point::Vouched),
        of_follower(Point::Left),
        of_leader(Point::Committed),
        of_leader(Point::Begun),
        of_leader(Point::Executed),
        of_leader(Point::ReplyLeft),
        Some(sample.completed_ns),
    ];
    let mut split = Split::default();
    let mut at = sample.since_ns;
    for (took, end) in split.iter_mut().zip(ends) {
        let end = end.unwrap_or(at).clamp(at, sample.completed_ns.max(at));
        *took = end - at;
        at = end;
    }
    Some(split)
}

fn mean(times: &[u64]) -> f64 {
    us(times.iter().sum()) / times.len().max(1) as f64
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: (u32, u64, u64) = (1, 2, 3);

    fn stamps(points: &[(Point, u64)]) -> Vec<Stamp> {
        let stamp = |(point, at): &(Point, u64)| match point {
            Point::Left => Stamp::new(*point, (0, 0, 0), 7, *at),
            Point::Proposed | Point::Vouched => Stamp::new(*point, REQUEST, 7, *at),
            _ => Stamp::new(*point, REQUEST, 0, *at),
        };
        points.iter().map(stamp).collect()
    }

    fn leader() -> Vec<(Point, u64)> {
        vec![
            (Point::Arrived, 2_000),
            (Point::Arrived, 90_000),
            (Point::Batched, 3_000),
            (Point::Taken, 3_500),
            (Point::Proposed, 5_000),
            (Point::Left, 6_000),
            (Point::Committed, 12_000),
            (Point::Begun, 13_000),
            (Point::Executed, 13_250),
            (Point::ReplyLeft, 14_000),
        ]
    }

    fn follower(late: u64) -> Vec<Stamp> {
        stamps(&[
            (Point::ProposalArrived, 7_000 + late),
            (Point::Vouched, 9_000 + late),
            (Point::Left, 10_000 + late),
            (Point::Executed, 13_000 + late),
        ])
    }

    fn sample() -> Sample {
        Sample { request: REQUEST, since_ns: 500, submitted_ns: 1_000, completed_ns: 17_000 }
    }

    fn took(report: &StagesReport) -> Vec<f64> {
        report.stages.iter().map(|stage| stage.mean_us).collect()
    }

    #[test]
    fn a_request_is_followed_through_leader_and_the_follower_that_was_needed() {
        // Replica 1 leads; the vote of replica 2 is the first.
        let replicas = [follower(1_500), stamps(&leader()), follower(0)];
        let report = report(64, &[sample()], &replicas, 1, 5);
        let times = [0.5, 1.0, 1.0, 0.5, 1.5, 1.0, 1.0, 2.0, 1.0, 2.0, 1.0, 0.25, 0.75, 3.0];
        assert_eq!(took(&report), times);
        assert_eq!((report.requests, report.incomplete, report.lost_stamps), (1, 0, 5));
        let names: Vec<_> = report.bands.iter().map(|band| band.band.as_str()).collect();
        assert_eq!((names, report.bands[0].mean_us), (vec!["all", "from p99"], 16.5));
        // Of two votes that are needed, the later one counts.
        let two = super::report(64, &[sample()], &replicas, 2, 0);
        assert_eq!(took(&two)[6..10], [2.5, 2.0, 1.0, 0.5]);
    }

    /// Without a log nothing waits for one; a client may have its replies before the leader has executed.
    #[test]
    fn stages_add_up_to_the_latency_whatever_is_missing() {
        let points: Vec<_> = leader()
            .into_iter()
            .filter(|(p, _)| *p != Point::Left && *p != Point::ReplyLeft)
            .collect();
        let replicas = [stamps(&points), Vec::new(), Vec::new()];
        let report = report(1, &[sample()], &replicas, 1, 0);
        assert_eq!(took(&report).iter().sum::<f64>(), 16.5);
        assert_eq!(took(&report)[5..10], [0.0, 0.0, 0.0, 0.0, 7.0]);
        let early = Sample { completed_ns: 12_500, ..sample() };
        let report = super::report(1, &[early], &replicas, 1, 0);
        assert_eq!(took(&report)[10..], [0.5, 0.0, 0.0, 0.0]);
        assert_eq!(took(&report).iter().sum::<f64>(), 12.0);
    }

    #[test]
    fn one_server_only_executes() {
        let points = [(Point::Arrived, 2_000), (Point::Begun, 3_000), (Point::Executed, 5_000)];
        let report = report(1, &[sample()], &[stamps(&points)], 0, 0);
        assert_eq!((took(&report)[1], took(&report)[10], took(&report)[11]), (1.0, 1.0, 2.0));
        assert_eq!(report.requests, 1);
    }

    #[test]
    fn a_request_without_a_leader_is_counted() {
        let report = report(1, &[sample()], &[follower(0), Vec::new(), follower(1)], 1, 0);
        assert_eq!((report.requests, report.incomplete), (0, 1));
        assert!(report.bands.is_empty() && report.to_string().contains("1 more could not"));
    }

    #[test]
    fn bands_are_by_latency_and_hold_every_request_once() {
        let samples: Vec<Sample> = (0..1000)
            .map(|n| Sample {
                request: (1, 2, n),
                since_ns: 0,
                submitted_ns: 0,
                completed_ns: 1_000 + n,
            })
            .collect();
        let stamps = samples.iter().flat_map(|s| {
            [(Point::Proposed, 100), (Point::Executed, 500)]
                .map(|(point, at)| Stamp::new(point, s.request, 1, at))
        });
        let report = report(1, &samples, &[stamps.collect(), Vec::new(), Vec::new()], 1, 0);
        let requests: Vec<u64> = report.bands.iter().map(|band| band.requests).collect();
        assert_eq!(requests, [1000, 500, 400, 90, 10]);
        assert!((report.bands[4].mean_us - 1.9945).abs() < 1e-9);
        assert!(report.csv().contains("from p99,10,reply,"));
    }
}
