//! Makes a failing scenario smaller: fewer faults, liars, clients and operations.

use crate::scenario::Scenario;
use crate::{Options, Report, run_scenario};

/// The result of a shrinking pass.
pub struct Shrunk {
    /// The smallest scenario found that fails in the same property.
    pub scenario: Scenario,
    /// Its run.
    pub report: Report,
    /// Runs made.
    pub runs: u32,
}

struct Search {
    property: &'static str,
    best: Scenario,
    runs: u32,
    limit: u32,
}

impl Search {
    /// Keeps a smaller scenario if it fails in the same way.
    fn attempt(&mut self, mut scenario: Scenario) -> bool {
        scenario.drop_faults_of_nobody();
        if self.runs >= self.limit || scenario == self.best {
            return false;
        }
        self.runs += 1;
        let report =
            run_scenario(scenario.clone(), &Options { last_events: 0, ..Options::default() });
        let fails = report.violation.is_some_and(|v| v.property == self.property);
        if fails {
            self.best = scenario;
        }
        fails
    }

    /// Leaves out pieces of a list, large ones first.
    fn thin<T: Clone>(&mut self, list: impl Fn(&mut Scenario) -> &mut Vec<T>, least: usize) {
        let mut size = list(&mut self.best).len();
        while size > 0 {
            let mut at = 0;
            while at < list(&mut self.best).len() {
                let mut smaller = self.best.clone();
                let items = list(&mut smaller);
                let end = (at + size).min(items.len());
                items.drain(at..end);
                if items.len() < least || !self.attempt(smaller) {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    fn simplify(&mut self) {
        for client in 0..self.best.clients.len() {
            loop {
                let mut smaller = self.best.clone();
                let plan = &mut smaller.clients[client];
                plan.operations /= 2;
                if !self.attempt(smaller) {
                    break;
                }
            }
            let mut smaller = self.best.clone();
            let plan = &mut smaller.clients[client];
            (plan.sessions, plan.parallel, plan.padding, plan.operations_after) = (1, 1, 0, 1);
            plan.least_padding = 0;
            self.attempt(smaller);
        }
        let mut smaller = self.best.clone();
        smaller.layout = crate::Layout::Fused;
        self.attempt(smaller);
        let mut smaller = self.best.clone();
        (smaller.drift_ppm, smaller.latency.tail_ppm) = (0, 0);
        self.attempt(smaller);
    }
}

/// Tries to make a failing scenario smaller, in a bounded number of runs; `None` if it does not
/// fail.
#[must_use]
pub fn shrink(scenario: Scenario, limit: u32) -> Option<Shrunk> {
    let report = run_scenario(scenario.clone(), &Options::default());
    let property = report.violation.as_ref()?.property;
    let mut search = Search { property, best: scenario, runs: 0, limit };
    // Twice: with fewer clients, more faults may turn out to be unnecessary.
    for _ in 0..2 {
        search.thin(|s| &mut s.faults, 0);
        search.thin(|s| &mut s.hosts, 0);
        search.thin(|s| &mut s.rogues, 0);
        search.thin(|s| &mut s.clients, 1);
        search.simplify();
    }
    let report = run_scenario(
        search.best.clone(),
        &Options { trace: true, last_events: 60, ..Options::default() },
    );
    Some(Shrunk { scenario: search.best, report, runs: search.runs })
}
