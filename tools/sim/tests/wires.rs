//! Slow and long wires: no fault is injected, and the group does what its wires can carry.

use hybster_proto::config::GroupConfig;
use hybster_proto::internals::mutants::{Mutant, choose};
use hybster_sim::{ClientPlan, Fault, Latency, Options, Report, Scenario, Transport, run_scenario};

/// Bytes that a request and its reply have on the leader's wire beside one copy of the operation.
const OVERHEAD: u64 = 260;
/// Without any wire between them, hosts are this far apart, in microseconds.
const NEAR_US: u64 = 40;

/// One combination of wire and load.
#[derive(Clone, Copy, Debug)]
struct Cell {
    mbit: u64,
    /// One way.
    delay_ms: u64,
    sessions: u32,
    /// Bytes of an operation.
    value: u32,
}

impl Cell {
    fn bytes_per_s(&self) -> u64 {
        self.mbit * 1_000_000 / 8
    }

    fn one_way_us(&self) -> u64 {
        NEAR_US + self.delay_ms * 1_000
    }

    /// Operations per second that the wires can carry, each in one copy to each follower and with its
    /// replies, or that this many sessions can ask for in one and a half times what one operation takes.
    fn possible(&self) -> f64 {
        let (rate, bytes) = (self.bytes_per_s() as f64, f64::from(self.value) + OVERHEAD as f64);
        let by_wire = rate / (2.0 * bytes + 100.0);
        let trip_s = 4.0 * self.one_way_us() as f64 / 1e6 + 3.0 * bytes / rate;
        by_wire.min(f64::from(self.sessions) / (1.5 * trip_s))
    }

    /// Long enough for a few turns of each session.
    fn seconds(&self) -> u64 {
        (10.0 + 3.0 * f64::from(self.sessions) / self.possible()) as u64
    }

    fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::calm("wires", seed, 1, 2);
        // As a group is by default.
        scenario.group = GroupConfig {
            group: scenario.group.group,
            max_clients: 16,
            max_sessions_per_client: 256,
            ..GroupConfig::default()
        };
        scenario.transport = Transport::Streams;
        let min_us = self.one_way_us() - NEAR_US / 4;
        scenario.latency = Latency { min_us, jitter_us: NEAR_US / 2, tail_ppm: 0, tail_us: 0 };
        scenario.bytes_per_s = self.bytes_per_s();
        scenario.clients = vec![ClientPlan {
            copy_of: None,
            sessions: self.sessions,
            operations: u32::MAX >> 1,
            operations_after: 0,
            parallel: 1,
            think_us: 0,
            least_padding: self.value,
            padding: self.value,
            queries_ppm: 0,
            start_us: 0,
        }];
        scenario.keys = 1000;
        scenario.heal_at_us = self.seconds() * 1_000_000;
        scenario.patience_us = 60_000_000 + scenario.heal_at_us;
        scenario
    }

    /// Runs it and checks what must hold on any wire.
    fn check(&self, seed: u64) {
        self.try_it(seed).unwrap_or_else(|story| panic!("{self:?}, seed {seed}: {story}"));
    }

    fn try_it(&self, seed: u64) -> Result<(), String> {
        let report = run_scenario(self.scenario(seed), &Options::default());
        let rate = report.counters.answered_before as f64 / self.seconds() as f64;
        let sent: u64 = report.sent_bytes[..3].iter().sum();
        let needed = report.counters.answered * (2 * (u64::from(self.value) + OVERHEAD) + 300);
        let (goodput, bytes) = (rate / self.possible(), sent as f64 / needed as f64);
        println!(
            "{self:?}, seed {seed}: {rate:.1}/s, {goodput:.2} of what is possible, {bytes:.2} of the \
             bytes that are needed, view {}",
            report.counters.view
        );
        if let Some(violation) = &report.violation {
            return Err(format!("{}: {}", violation.property, violation.story));
        }
        if report.counters.view > 0 {
            return Err(format!("view {} without any fault", report.counters.view));
        }
        if goodput < 0.6 {
            return Err(format!("{rate:.1} operations per second"));
        }
        if bytes > 1.3 {
            return Err(format!("{sent} bytes instead of {needed}"));
        }
        Ok(())
    }
}

fn cells(mbits: &[u64], delays_ms: &[u64], loads: &[(u32, u32)]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &mbit in mbits {
        for &delay_ms in delays_ms {
            let of_load = |&(sessions, value)| Cell { mbit, delay_ms, sessions, value };
            cells.extend(loads.iter().map(of_load));
        }
    }
    cells
}

#[test]
fn slow_wires_are_used_well() {
    let loads = [(1, 8), (6, 1_000), (64, 1_000), (8, 10_000)];
    cells(&[1, 10], &[0, 20], &loads).iter().for_each(|cell| cell.check(1));
}

#[test]
fn long_wires_are_used_well() {
    let loads = [(1, 8), (8, 10_000), (64, 1_000)];
    cells(&[1, 10], &[100, 250], &loads).iter().for_each(|cell| cell.check(2));
}

#[test]
fn large_requests_take_their_time() {
    let loads = [(1, 200_000), (16, 200_000)];
    cells(&[1, 10], &[0, 100, 250], &loads).iter().for_each(|cell| cell.check(3));
}

/// All combinations; a few minutes.
#[test]
#[ignore = "takes minutes: cargo test --release -p hybster-sim --test wires -- --ignored"]
fn every_wire_is_used_well() {
    let loads =
        [1, 8, 64, 128].map(|sessions| [8, 1_000, 10_000, 200_000].map(|value| (sessions, value)));
    let all = cells(&[1, 2, 5, 10, 100], &[0, 20, 100, 250], loads.as_flattened());
    let fails = |(seed, cell): (u64, &Cell)| {
        cell.try_it(seed).err().map(|story| format!("{cell:?}, seed {seed}: {story}"))
    };
    let failures: Vec<_> = (100..).zip(&all).filter_map(fails).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), all.len(), failures.join("\n"));
}

/// Operations that ran in a part of a run. One runs in each batch.
fn ran(report: &Report, from_us: u64, to_us: u64) -> usize {
    report.times.iter().filter(|(at_us, _)| (from_us..to_us).contains(at_us)).count()
}

#[test]
fn the_full_rate_is_back_soon_after_a_limit_is_lifted() {
    for (seed, delay_ms) in [(1, 0), (2, 20), (3, 100)] {
        let cell = Cell { mbit: 1, delay_ms, sessions: 64, value: 10_000 };
        let mut scenario = cell.scenario(seed);
        scenario.group.batch_max_requests = 1;
        scenario.heal_at_us = 26_000_000;
        let fast = Cell { mbit: 100, ..cell };
        // What the wires carry when all faults end, too: a wire that becomes a hundred times slower is
        // another matter.
        scenario.bytes_per_s = fast.bytes_per_s();
        let scenario = scenario
            .with(0, Fault::Bandwidth(cell.bytes_per_s()))
            .with(20_000_000, Fault::Bandwidth(fast.bytes_per_s()));
        let report = run_scenario(scenario, &Options::default());
        report.assert_good();
        assert_eq!(report.counters.view, 0, "seed {seed}: no fault, no view change");
        let per_s = ran(&report, 22_000_000, 26_000_000) as f64 / 4.0;
        assert!(per_s >= 0.6 * fast.possible(), "seed {seed}: {per_s} operations per second");
    }
}

/// Each rule that is left out shows on some wire.
#[test]
fn a_group_that_knows_nothing_of_wires_fails_on_slow_ones() {
    let slow = cells(&[1], &[0, 100], &[(8, 10_000), (16, 100_000)]);
    for mutant in [Mutant::WireIgnored, Mutant::HeldIgnored] {
        choose(Some(mutant));
        let failures: Vec<_> = slow.iter().filter_map(|cell| cell.try_it(4).err()).collect();
        choose(None);
        println!("{mutant:?}: {failures:?}");
        assert!(!failures.is_empty(), "{mutant:?} is not found");
    }
    slow.iter().for_each(|cell| cell.check(4));
}

/// A wire that becomes a hundred times slower while all queues are full.
fn collapse(seed: u64, to_mbit: u64, delay_ms: u64, load: (u32, u32)) -> Report {
    let (sessions, value) = load;
    let fast = Cell { mbit: 100, delay_ms, sessions, value };
    let slow = Cell { mbit: to_mbit, ..fast };
    let mut scenario = fast.scenario(seed);
    let get = |name: &str, or: u64| {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
    };
    scenario.group.batch_max_requests = get("BATCH", 1) as u32;
    scenario.group.max_clock_skew_ms = get("SKEW", 5_000);
    scenario.heal_at_us = 60_000_000;
    scenario.bytes_per_s = slow.bytes_per_s();
    let crash_ms = get("CRASH", 0);
    if crash_ms > 0 {
        scenario = scenario.with(crash_ms * 1_000, Fault::Crash(0));
    }
    let scenario = scenario
        .with(0, Fault::Bandwidth(fast.bytes_per_s()))
        .with(5_000_000, Fault::Bandwidth(slow.bytes_per_s()));
    let trace = std::env::var("TRACE").is_ok();
    let report = run_scenario(scenario, &Options { trace, ..Options::default() });
    if trace {
        std::fs::write(format!("/tmp/wires18.trace.{seed}"), report.trace.join("\n")).unwrap();
    }
    report
}

#[test]
fn probe_collapse() {
    let get = |name: &str, or: u64| {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
    };
    let (seeds, mbit, delay) = (get("SEEDS", 4), get("MBIT", 1), get("DELAY", 0));
    let load = (get("SESSIONS", 64) as u32, get("VALUE", 10_000) as u32);
    let name = std::env::var("MUTANT").unwrap_or_default();
    choose(Mutant::ALL.into_iter().find(|m| format!("{m:?}") == name));
    for seed in get("FIRST", 1)..=seeds {
        let report = collapse(seed, mbit, delay, load);
        let possible = Cell { mbit, delay_ms: delay, sessions: load.0, value: load.1 }.possible();
        let per: Vec<usize> =
            (5..60).step_by(5).map(|s| ran(&report, s * 1_000_000, (s + 5) * 1_000_000)).collect();
        println!(
            "seed {seed}: view {}, possible {:.1} per 5 s: {per:?} {:?}",
            report.counters.view, 5.0 * possible,
            report.violation.as_ref().map(|v| &v.story)
        );
    }
}
