//! Many runs on several threads: what happened in all of them, and those that failed.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::oracle::Violation;
use crate::report::{Counters, Report};
use crate::shape::Shape;
use crate::{Options, run_scenario};

/// Time between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Which runs to make.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// What is fixed about them.
    pub shape: Shape,
    /// The first seed.
    pub first: u64,
    /// Seeds, at most; they follow each other.
    pub count: u64,
    /// Time, at most.
    pub limit: Option<Duration>,
    /// Threads.
    pub jobs: usize,
    /// Number of failed runs after which it ends.
    pub most_failures: usize,
}

/// How far a campaign is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Runs made.
    pub runs: u64,
    /// Failed ones among them.
    pub failures: u64,
    /// Steps of their event loops.
    pub steps: u64,
    /// Messages sent in them.
    pub messages: u64,
    /// Time since the start.
    pub elapsed: Duration,
}

/// The result of a campaign.
#[derive(Debug)]
pub struct Outcome {
    /// Runs made.
    pub runs: u64,
    /// What happened in all of them.
    pub sum: Counters,
    /// How much happened in each.
    pub spread: Spread,
    /// The exclusive or of the hashes of all runs: equal sums mean equal behaviour, whatever the
    /// order of the runs, so a commit that only moves or renames can show that it does.
    pub hash: u64,
    /// The failed ones, by seed.
    pub failures: Vec<Report>,
    /// Time that they took.
    pub elapsed: Duration,
}

impl Outcome {
    /// Runs per minute.
    #[must_use]
    pub fn runs_per_minute(&self) -> f64 {
        60.0 * self.runs as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Fails with the story of the first failed run, if there is one.
    ///
    /// # Panics
    /// If a run failed.
    pub fn assert_good(&self) -> &Self {
        for report in &self.failures {
            let violation = report.violation.as_ref().expect("the run failed");
            println!("seed {}: {}: {}", report.seed, violation.property, violation.story);
        }
        if let Some(first) = self.failures.first() {
            panic!("{} of {} runs failed; the first:\n{first}", self.failures.len(), self.runs);
        }
        self
    }
}

/// Numbers of runs by what happened in each: how many views and the like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    views: BTreeMap<u64, u64>,
    checkpoints: BTreeMap<u64, u64>,
    transfers: BTreeMap<u64, u64>,
    rejected: BTreeMap<u64, u64>,
}

impl Spread {
    fn add(&mut self, counters: &Counters) {
        let rejected = counters.rejected.values().sum();
        for (of, value) in [
            (&mut self.views, counters.view),
            (&mut self.checkpoints, counters.checkpoints),
            (&mut self.transfers, counters.transfers),
            (&mut self.rejected, rejected),
        ] {
            // 0, 1, 2, and from there on the powers of two.
            let bucket = if value <= 2 { value } else { value.next_power_of_two() };
            *of.entry(bucket).or_default() += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        for (of, from) in [
            (&mut self.views, &other.views),
            (&mut self.checkpoints, &other.checkpoints),
            (&mut self.transfers, &other.transfers),
            (&mut self.rejected, &other.rejected),
        ] {
            for (bucket, count) in from {
                *of.entry(*bucket).or_default() += count;
            }
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, buckets) in [
            ("highest view", &self.views),
            ("stable checkpoints", &self.checkpoints),
            ("state transfers", &self.transfers),
            ("messages rejected", &self.rejected),
        ] {
            write!(f, "  runs by {what}:")?;
            for (at_most, runs) in buckets {
                match at_most {
                    0..=2 => write!(f, " {at_most}: {runs}")?,
                    4 => write!(f, " 3-4: {runs}")?,
                    _ => write!(f, " {}-{at_most}: {runs}", at_most / 2 + 1)?,
                }
                write!(f, ",")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// What the threads share.
struct Shared<'a> {
    campaign: &'a Campaign,
    start: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    runs: AtomicU64,
    failures: AtomicU64,
    steps: AtomicU64,
    messages: AtomicU64,
    working: AtomicU64,
    outcome: Mutex<Outcome>,
}

impl Shared<'_> {
    /// The next seed, if there is one and time for it.
    fn seed(&self) -> Option<u64> {
        let late = self.campaign.limit.is_some_and(|limit| self.start.elapsed() >= limit);
        if late || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.campaign.count).then(|| self.campaign.first.wrapping_add(index))
    }

    fn work(&self) {
        let (mut sum, mut spread, mut failures) =
            (Counters::default(), Spread::default(), Vec::new());
        let (mut runs, mut hash) = (0, 0);
        while let Some(seed) = self.seed() {
            let report = run_seed(&self.campaign.shape, seed);
            runs += 1;
            self.runs.fetch_add(1, Ordering::Relaxed);
            self.steps.fetch_add(report.counters.steps, Ordering::Relaxed);
            self.messages.fetch_add(report.counters.sent.values().sum(), Ordering::Relaxed);
            hash ^= report.hash;
            sum.add(&report.counters);
            spread.add(&report.counters);
            if report.violation.is_some() {
                failures.push(report);
                let failed = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                if failed >= self.campaign.most_failures as u64 {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
        }
        let mut outcome = self.outcome.lock().expect("no thread panics while it holds the lock");
        outcome.runs += runs;
        outcome.hash ^= hash;
        outcome.sum.add(&sum);
        outcome.spread.merge(&spread);
        outcome.failures.append(&mut failures);
        drop(outcome);
        self.working.fetch_sub(1, Ordering::Release);
    }

    fn progress(&self) -> Progress {
        Progress {
            runs: self.runs.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            elapsed: self.start.elapsed(),
        }
    }
}

/// Runs one seed. A core that panics violates "no panics"; where panics abort, the program's panic
/// hook can ask for [`current_seed`].
#[must_use]
pub fn run_seed(shape: &Shape, seed: u64) -> Report {
    caught(seed, || run_scenario(shape.scenario(seed), &Options::default()))
}

/// A run, or the report of its panic.
pub(crate) fn caught(seed: u64, run: impl FnOnce() -> Report) -> Report {
    SEED.set(Some(seed));
    let report = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        let text = text.or(cause.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let violation = Violation {
            property: "no panics",
            story: text.into(),
            replicas: Vec::new(),
            at_us: 0,
            step: 0,
        };
        Report::broken(seed, violation)
    });
    SEED.set(None);
    report
}

thread_local! {
    static SEED: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// The seed that the present thread is running.
#[must_use]
pub fn current_seed() -> Option<u64> {
    SEED.get()
}

impl Campaign {
    /// All runs of a shape over a range of seeds, on the cores that the process may use.
    #[must_use]
    pub fn new(shape: Shape, first: u64, count: u64) -> Self {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Self { shape, first, count, limit: None, jobs, most_failures: 20 }
    }

    /// Makes the runs, and reports progress now and then.
    #[must_use]
    pub fn run(&self, mut tell: impl FnMut(&Progress)) -> Outcome {
        let jobs = self.jobs.max(1);
        let shared = Shared {
            campaign: self,
            start: Instant::now(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            runs: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            working: AtomicU64::new(jobs as u64),
            outcome: Mutex::new(Outcome {
                runs: 0,
                sum: Counters::default(),
                spread: Spread::default(),
                hash: 0,
                failures: Vec::new(),
                elapsed: Duration::ZERO,
            }),
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| shared.work());
            }
            let mut told = Instant::now();
            while shared.working.load(Ordering::Acquire) > 0 {
                std::thread::sleep(Duration::from_millis(5));
                if told.elapsed() >= PROGRESS_EVERY {
                    told = Instant::now();
                    tell(&shared.progress());
                }
            }
        });
        let elapsed = shared.start.elapsed();
        let mut outcome = shared.outcome.into_inner().expect("all threads have ended well");
        outcome.failures.sort_by_key(|report| report.seed);
        outcome.elapsed = elapsed;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_do_not_matter() {
        let mut campaign = Campaign::new(Shape::default(), 40, 12);
        campaign.jobs = 1;
        let one = campaign.run(|_| {});
        campaign.jobs = 3;
        let three = campaign.run(|_| {});
        assert_eq!((one.runs, three.runs), (12, 12));
        assert_eq!((one.sum, one.spread, one.hash), (three.sum, three.spread, three.hash));
    }

    #[test]
    fn a_time_limit_ends_it() {
        let mut campaign = Campaign::new(Shape::default(), 0, u64::MAX);
        campaign.limit = Some(Duration::from_millis(200));
        let outcome = campaign.run(|_| {});
        assert!(outcome.runs > 0 && outcome.failures.is_empty());
    }
}
