//! Warnings: what of the machine or of the load generator may have decided the figures, and not the group.

use serde::{Deserialize, Serialize};

use super::{OpenLoopReport, ThreadReport, UsageReport, count, plural};

/// A thread is busy if it ran, or waited for a core, for this share of the interval.
const BUSY: f64 = 0.5;
/// Busy threads that waited for less than this share of the interval had cores enough.
const WAITED: f64 = 0.05;
/// A load thread is at its limit if it ran for this share of the interval, and had something to do in as
/// much of it.
const AT_LIMIT: f64 = 0.9;
/// The host may take this share of the cores' time without a warning.
const STOLEN: f64 = 0.01;

/// Something that may have decided the figures, and not the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// `too-few-cores`, `load-generator`, `stolen` or `rate-not-kept`.
    pub kind: String,
    /// What it is and what to do, in a sentence.
    pub text: String,
}

/// What warnings follow from.
#[derive(Clone, Copy, Debug)]
pub struct Signs<'a> {
    /// Length of the measured interval in seconds.
    pub duration_s: f64,
    /// Cores of the machine.
    pub cores: usize,
    /// CPU seconds that the host gave to others.
    pub stolen_s: f64,
    /// The threads.
    pub usage: &'a UsageReport,
    /// The share of the interval in which the busiest load thread had something to do.
    pub load_busy: f64,
    /// Of an open loop.
    pub open_loop: Option<OpenLoopReport>,
    /// Operations per second that completed.
    pub throughput_ops_s: f64,
}

impl Signs<'_> {
    /// The warnings, the weightiest first.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let found = [
            ("rate-not-kept", self.rate_not_kept()),
            ("load-generator", self.load_generator()),
            ("too-few-cores", self.too_few_cores()),
            ("stolen", self.stolen()),
        ];
        let warning = |(kind, text): (&str, Option<String>)| {
            text.map(|text| Warning { kind: kind.to_owned(), text })
        };
        found.into_iter().filter_map(warning).collect()
    }

    fn rate_not_kept(&self) -> Option<String> {
        self.open_loop.and_then(|open| rate_not_kept(open, self.throughput_ops_s))
    }

    fn share(&self, seconds: f64) -> f64 {
        seconds / self.duration_s.max(1e-9)
    }

    /// A thread that polls is always on its core: only one that also had something to do is at its limit.
    fn load_generator(&self) -> Option<String> {
        let load = |thread: &&ThreadReport| thread.thread.starts_with("load-");
        let most = self.usage.threads.iter().filter(load).map(|thread| thread.cpu_s);
        let on_core = self.share(most.fold(0.0, f64::max));
        (on_core.min(self.load_busy) >= AT_LIMIT).then(|| {
            format!(
                "the load generator was the bottleneck: a thread of it was busy for {:.0} % of the time, so \
                 the group may be faster than this; give more --connections",
                self.load_busy.min(1.0) * 100.0
            )
        })
    }

    fn too_few_cores(&self) -> Option<String> {
        let threads = &self.usage.threads;
        let is_busy = |t: &&ThreadReport| self.share(t.cpu_s + t.waited_s) >= BUSY;
        let busy = threads.iter().filter(is_busy).count();
        let waited: f64 = threads.iter().filter(is_busy).map(|thread| thread.waited_s).sum();
        let waited = self.share(waited) / busy.max(1) as f64;
        (busy > self.cores && waited >= WAITED).then(|| {
            format!(
                "{busy} threads were busy on {}: on average each waited for a core for {:.0} % of the time",
                plural(self.cores as u64, "core"),
                waited * 100.0
            )
        })
    }

    fn stolen(&self) -> Option<String> {
        let share = self.share(self.stolen_s) / self.cores.max(1) as f64;
        (share >= STOLEN).then(|| {
            format!(
                "the host of this virtual machine took {:.0} % of its CPU time: measure again when the host \
                 has less to do",
                share * 100.0
            )
        })
    }
}

/// What is wrong with an open loop that did not keep its rate.
pub(crate) fn rate_not_kept(open: OpenLoopReport, throughput_ops_s: f64) -> Option<String> {
    (!open.kept_up).then(|| {
        format!(
            "the rate was not kept: {} operations/s completed where {} were asked for; latencies are those of \
             the operations that completed, all others had to wait longer",
            count(throughput_ops_s.round() as u64),
            count(open.rate_ops_s.round() as u64),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds on two cores.
    fn kinds(change: impl FnOnce(&mut Signs<'_>), threads: &[(&str, f64, f64)]) -> Vec<Warning> {
        let thread = |(name, cpu_s, waited_s): &(&str, f64, f64)| ThreadReport {
            process: if name.starts_with("load") { "load" } else { "replica" }.into(),
            thread: (*name).into(),
            cpu_s: *cpu_s,
            waited_s: *waited_s,
        };
        let threads = threads.iter().map(thread).collect();
        let usage = UsageReport { threads, ..UsageReport::default() };
        let mut signs = Signs {
            duration_s: 10.0,
            cores: 2,
            stolen_s: 0.0,
            usage: &usage,
            load_busy: 0.5,
            open_loop: None,
            throughput_ops_s: 900.0,
        };
        change(&mut signs);
        signs.warnings()
    }

    fn only(warnings: &[Warning], kind: &str, part: &str) {
        let [warning] = warnings else { panic!("{warnings:?}") };
        assert_eq!(warning.kind, kind);
        assert!(warning.text.contains(part), "{}", warning.text);
    }

    #[test]
    fn a_load_thread_that_always_has_something_to_do_is_the_bottleneck() {
        let busy = |share| move |signs: &mut Signs<'_>| signs.load_busy = share;
        let full = [("load-0", 2.0, 0.0), ("load-1", 9.5, 0.1), ("r0-net", 3.0, 0.1)];
        only(&kinds(busy(0.97), &full), "load-generator", "busy for 97 % of the time");
        // It only polled.
        assert_eq!(kinds(busy(0.5), &full), []);
        // It had to wait for its core: that is another warning, if it is one.
        assert_eq!(kinds(busy(1.0), &[("load-0", 6.0, 4.0)]), []);
        // A replica's thread at its limit is what is measured.
        assert_eq!(kinds(busy(0.97), &[("r0-net", 9.9, 0.0), ("load-0", 5.0, 0.0)]), []);
    }

    #[test]
    fn more_busy_threads_than_cores_are_told_if_they_waited() {
        let threads = [("r0-net", 6.0, 3.0), ("r1-net", 7.0, 2.5), ("load-0", 5.0, 3.5)];
        let text = "3 threads were busy on 2 cores: on average each waited for a core for 30 %";
        only(&kinds(|_| {}, &threads), "too-few-cores", text);
        assert_eq!(kinds(|signs| signs.cores = 3, &threads), []);
        assert_eq!(kinds(|_| {}, &threads.map(|(name, cpu, _)| (name, cpu, 0.1))), []);
        assert_eq!(kinds(|_| {}, &threads.map(|(name, _, waited)| (name, 1.0, waited))), []);
    }

    #[test]
    fn what_the_host_took_is_told_from_one_percent_on() {
        only(&kinds(|signs| signs.stolen_s = 1.0, &[]), "stolen", "took 5 % of its CPU time");
        assert_eq!(kinds(|signs| signs.stolen_s = 0.19, &[]), []);
        only(&kinds(|signs| signs.stolen_s = 0.2, &[]), "stolen", "took 1 %");
    }

    #[test]
    fn a_rate_that_was_not_kept_is_told() {
        let open = |kept_up| {
            move |signs: &mut Signs<'_>| {
                let (unfinished, due, never_sent) = (0, 10_000, 1_000);
                let rate_ops_s = 1000.0;
                let open = OpenLoopReport { rate_ops_s, unfinished, due, never_sent, kept_up };
                signs.open_loop = Some(open);
            }
        };
        let text = "900 operations/s completed where 1,000 were asked for";
        only(&kinds(open(false), &[]), "rate-not-kept", text);
        assert_eq!(kinds(open(true), &[]), []);
    }
}
