//! CPU time and memory of each process over time, and who waited for a core, from samples that the
//! watching thread takes while a load runs.
//!
//! A sample costs one small file of `/proc` per process. CPU time counts in hundredths of a second there, so
//! over 100 ms it is known to a tenth of a core. What a killed process used since its last sample is not
//! known.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::process::{ThreadTime, Used, threads, used};
use crate::report::{ProcessUsage, ThreadReport, UsageReport};

/// Time between two samples.
const INTERVAL: Duration = Duration::from_millis(100);
/// Most samples: beyond it every second one is dropped, and there are half as many from then on. This many
/// are ten minutes.
const MOST_SAMPLES: usize = 6_000;
/// Threads that used less than this share of the interval are not in the report.
const LEAST_SHARE: f64 = 0.01;

/// Takes samples.
#[derive(Debug)]
pub struct Sampler {
    begin: Instant,
    interval: Duration,
    due: Duration,
    processes: Vec<Tracked>,
    samples: Vec<Sample>,
    /// By process id and thread id, at the begin.
    threads: BTreeMap<(u32, u32), ThreadTime>,
    /// The same at the last sample: a load thread ends with the interval, and is not there any more then.
    last: BTreeMap<(u32, u32), ThreadTime>,
}

/// What is known under one name; another process may get the name.
#[derive(Debug)]
struct Tracked {
    name: String,
    pid: u32,
    /// What processes of this name had used before this one.
    earlier_s: f64,
    last_s: f64,
}

/// What each process had used by then, in the order of [`Sampler::processes`]; `None` if it did not run. Those
/// that came later are not in it.
#[derive(Debug)]
struct Sample {
    at: Duration,
    used: Vec<Option<Used>>,
}

impl Sampler {
    /// Begins with a sample of these processes.
    #[must_use]
    pub fn start(begin: Instant, processes: &[(String, u32)]) -> Self {
        let mut sampler = Self::at(begin);
        for (_, pid) in processes {
            let all = threads(*pid).into_iter().map(|thread| ((*pid, thread.id), thread));
            sampler.threads.extend(all);
        }
        sampler.take(processes);
        sampler
    }

    fn at(begin: Instant) -> Self {
        Self {
            begin,
            interval: INTERVAL,
            due: Duration::ZERO,
            processes: Vec::new(),
            samples: Vec::new(),
            threads: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    /// Takes a sample if it is time for one.
    pub fn look(&mut self, processes: impl FnOnce() -> Vec<(String, u32)>) {
        if self.begin.elapsed() >= self.due {
            self.take(&processes());
        }
    }

    fn take(&mut self, processes: &[(String, u32)]) {
        let now: Vec<_> =
            processes.iter().map(|(name, pid)| (name.as_str(), *pid, used(*pid).ok())).collect();
        self.note(self.begin.elapsed(), &now);
        for (_, pid) in processes {
            let all = threads(*pid).into_iter().map(|thread| ((*pid, thread.id), thread));
            self.last.extend(all);
        }
    }

    /// Takes note of a sample.
    fn note(&mut self, at: Duration, processes: &[(&str, u32, Option<Used>)]) {
        let mut sample = Sample { at, used: vec![None; self.processes.len()] };
        for (name, pid, used) in processes {
            let Some(used) = used else { continue };
            let place = self.processes.iter().position(|tracked| tracked.name == *name);
            let place = place.unwrap_or_else(|| {
                let (name, pid) = ((*name).to_owned(), *pid);
                self.processes.push(Tracked { name, pid, earlier_s: 0.0, last_s: 0.0 });
                sample.used.push(None);
                self.processes.len() - 1
            });
            let tracked = &mut self.processes[place];
            if tracked.pid != *pid {
                tracked.pid = *pid;
                tracked.earlier_s += tracked.last_s;
            }
            tracked.last_s = used.cpu_s;
            sample.used[place] = Some(Used { cpu_s: tracked.earlier_s + used.cpu_s, ..*used });
        }
        self.samples.push(sample);
        if self.samples.len() > MOST_SAMPLES {
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.interval *= 2;
        }
        self.due = at + self.interval;
    }

    /// Ends with a sample of these processes.
    #[must_use]
    pub fn finish(mut self, processes: &[(String, u32)]) -> UsageReport {
        self.take(processes);
        let length = self.begin.elapsed();
        let mut busy = Vec::new();
        for (process, pid) in processes {
            for (id, thread) in self.last.iter().filter(|(id, _)| id.0 == *pid) {
                let before = self.threads.get(id);
                busy.extend(busy_thread(process, before, thread.clone(), length));
            }
        }
        self.report(busy)
    }

    fn report(&self, threads: Vec<ThreadReport>) -> UsageReport {
        let [first, later @ ..] = &self.samples[..] else {
            return UsageReport { threads, ..UsageReport::default() };
        };
        let process = |(place, tracked): (usize, &Tracked)| {
            let of = |sample: &Sample| sample.used.get(place).copied().flatten();
            let mut usage =
                ProcessUsage { name: tracked.name.clone(), cpu_cores: vec![], rss_bytes: vec![] };
            let mut before = (first.at, of(first).map_or(0.0, |used| used.cpu_s));
            for sample in later {
                let now = of(sample);
                let span = (sample.at - before.0).as_secs_f64().max(1e-3);
                before.0 = sample.at;
                usage.cpu_cores.push(now.map(|now| {
                    let cores = (now.cpu_s - before.1).max(0.0) / span;
                    before.1 = now.cpu_s;
                    thousandths(cores)
                }));
                usage.rss_bytes.push(now.map(|now| now.rss_bytes));
            }
            usage
        };
        UsageReport {
            at_s: later.iter().map(|sample| thousandths(sample.at.as_secs_f64())).collect(),
            processes: self.processes.iter().enumerate().map(process).collect(),
            threads,
        }
    }
}

/// What a thread did in an interval of this length, if that is worth telling.
fn busy_thread(
    process: &str,
    before: Option<&ThreadTime>,
    after: ThreadTime,
    length: Duration,
) -> Option<ThreadReport> {
    let since = |of: fn(&ThreadTime) -> Duration| {
        let before = before.map_or(Duration::ZERO, of);
        of(&after).saturating_sub(before).as_secs_f64()
    };
    let (cpu_s, waited_s) = (since(|thread| thread.cpu), since(|thread| thread.waited));
    let is_busy = cpu_s + waited_s >= length.as_secs_f64() * LEAST_SHARE;
    let report = ThreadReport {
        process: process.to_owned(),
        thread: after.name,
        cpu_s: thousandths(cpu_s),
        waited_s: thousandths(waited_s),
    };
    is_busy.then_some(report)
}

fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(cpu_s: f64, rss_bytes: u64) -> Option<Used> {
        Some(Used { cpu_s, rss_bytes })
    }

    fn ms(at: u64) -> Duration {
        Duration::from_millis(at)
    }

    /// Replica 1 is killed and comes back as another process.
    #[test]
    fn what_is_used_between_two_samples_is_told() {
        let mut sampler = Sampler::at(Instant::now());
        sampler.note(ms(0), &[("replica 1", 7, used(5.0, 100)), ("load", 9, used(1.0, 10))]);
        sampler.note(ms(100), &[("replica 1", 7, used(5.05, 110)), ("load", 9, used(1.1, 10))]);
        sampler.note(ms(200), &[("load", 9, used(1.1, 20))]);
        sampler.note(ms(400), &[("replica 1", 8, used(0.02, 50)), ("load", 9, used(1.3, 20))]);
        let report = sampler.report(Vec::new());
        assert_eq!(report.at_s, [0.1, 0.2, 0.4]);
        let [replica, load] = &report.processes[..] else { panic!("{report:?}") };
        assert_eq!((replica.name.as_str(), load.name.as_str()), ("replica 1", "load"));
        assert_eq!(replica.cpu_cores, [Some(0.5), None, Some(0.1)]);
        assert_eq!(replica.rss_bytes, [Some(110), None, Some(50)]);
        assert_eq!(load.cpu_cores, [Some(1.0), Some(0.0), Some(1.0)]);
    }

    #[test]
    fn a_process_that_comes_later_has_no_figures_before() {
        let mut sampler = Sampler::at(Instant::now());
        sampler.note(ms(0), &[]);
        sampler.note(ms(100), &[("a", 1, used(0.01, 1))]);
        sampler.note(ms(200), &[("a", 1, used(0.02, 1)), ("b", 2, used(0.03, 1)), ("c", 3, None)]);
        let report = sampler.report(Vec::new());
        let [a, b] = &report.processes[..] else { panic!("{report:?}") };
        assert_eq!(a.cpu_cores, [Some(0.1), Some(0.1)]);
        assert_eq!(b.cpu_cores, [None, Some(0.3)]);
    }

    #[test]
    fn a_long_run_has_fewer_samples_and_the_same_sum() {
        let mut sampler = Sampler::at(Instant::now());
        for number in 0..2 * MOST_SAMPLES as u64 {
            sampler.note(ms(100 * number), &[("a", 1, used(number as f64 / 10.0, 1))]);
        }
        let report = sampler.report(Vec::new());
        assert!(report.at_s.len() < MOST_SAMPLES, "{}", report.at_s.len());
        assert!(report.processes[0].cpu_cores.iter().all(|cores| *cores == Some(1.0)));
        assert_eq!(sampler.interval, 4 * INTERVAL);
    }

    #[test]
    fn threads_that_slept_are_left_out() {
        let time = |cpu, waited| ThreadTime {
            id: 3,
            name: "r0-net".into(),
            cpu: ms(cpu),
            waited: ms(waited),
        };
        let length = Duration::from_secs(2);
        let busy = busy_thread("replica 0", Some(&time(1000, 100)), time(1500, 400), length);
        let busy = busy.unwrap();
        assert_eq!((busy.process.as_str(), busy.thread.as_str()), ("replica 0", "r0-net"));
        assert_eq!((busy.cpu_s, busy.waited_s), (0.5, 0.3));
        assert_eq!(busy_thread("replica 0", Some(&time(1000, 0)), time(1019, 0), length), None);
        // One that began in the interval has done everything in it.
        assert_eq!(busy_thread("replica 0", None, time(20, 0), length).unwrap().cpu_s, 0.02);
    }

    #[test]
    fn this_process_is_sampled() {
        let me = [("load".to_owned(), std::process::id())];
        let sampler = Sampler::start(Instant::now(), &me);
        let report = sampler.finish(&me);
        assert_eq!(report.at_s.len(), 1);
        assert!(report.processes[0].rss_bytes[0] > Some(0));
    }
}
