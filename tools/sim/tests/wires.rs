//! Slow and long wires.

use hybster_sim::{ClientPlan, Latency, Options, Report, Scenario, Transport, run_scenario};

/// Bytes that a request, its reply and its part of a batch have beside the operation.
const OVERHEAD: u64 = 260;

/// One combination of the grid.
#[derive(Clone, Copy, Debug)]
struct Cell {
    mbit: u64,
    /// One way.
    delay_ms: u64,
    sessions: u32,
    value: u32,
    /// Simulated time.
    seconds: u64,
}

impl Cell {
    fn bytes_per_s(&self) -> u64 {
        self.mbit * 1_000_000 / 8
    }

    fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::calm("wires", seed, 1, 2);
        let default = hybster_proto::config::GroupConfig::default();
        let calm = scenario.group.clone();
        scenario.group = hybster_proto::config::GroupConfig {
            group: calm.group,
            max_clients: calm.max_clients,
            max_sessions_per_client: 256,
            max_clock_skew_ms: 5_000,
            ..default
        };
        scenario.transport = Transport::Streams;
        let one_way_us = self.delay_ms * 1000;
        scenario.latency =
            Latency { min_us: one_way_us.max(30), jitter_us: 20, tail_ppm: 0, tail_us: 0 };
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
        scenario.heal_at_us = self.seconds * 1_000_000;
        scenario.patience_us = 60_000_000 + 2 * scenario.heal_at_us;
        scenario
    }

    /// Operations per second that the wires or so many sessions can do.
    fn possible(&self) -> f64 {
        let (rate, value) = (self.bytes_per_s() as f64, f64::from(self.value));
        let by_wire = rate / (2.0 * (value + OVERHEAD as f64) + 100.0);
        let trip_s = 4.0 * self.delay_ms as f64 / 1e3 + 3.0 * (value + OVERHEAD as f64) / rate;
        let by_sessions = f64::from(self.sessions) / (1.5 * trip_s);
        by_wire.min(by_sessions)
    }
}

fn run(cell: Cell, seed: u64) -> Report {
    let report = run_scenario(cell.scenario(seed), &Options::default());
    let rate = report.counters.answered_before as f64 / cell.seconds as f64;
    let bytes: u64 = report.sent_bytes[..3].iter().sum();
    let needed = 2 * (u64::from(cell.value) + OVERHEAD) + 300;
    println!(
        "{:>4} Mbit/s {:>4} ms {:>4} sessions {:>7} B: {:>9.1}/s of {:>9.1} ({:>5.2}), bytes {:>6.2}, view {}, {} paced {} dup {} {:?}",
        cell.mbit,
        cell.delay_ms,
        cell.sessions,
        cell.value,
        rate,
        cell.possible(),
        rate / cell.possible(),
        bytes as f64 / (report.counters.answered.max(1) * needed) as f64,
        report.counters.view,
        report.ended_us / 1000,
        report.counters.paced,
        report.counters.duplicates,
        report
            .violation
            .as_ref()
            .map(|v| (v.property, v.story.chars().take(80).collect::<String>())),
    );
    report
}

#[test]
#[ignore = "for a look"]
fn one() {
    let of = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let cell = Cell {
        mbit: of("MBIT"),
        delay_ms: of("DELAY"),
        sessions: of("SESSIONS") as u32,
        value: of("VALUE") as u32,
        seconds: of("SECONDS"),
    };
    let report = run_scenario(cell.scenario(1), &Options { trace: true, ..Options::default() });
    report.trace.iter().for_each(|line| println!("{line}"));
    println!("{:#?}", report.counters);
}

#[test]
fn grid() {
    for mbit in [1, 10, 100] {
        for delay_ms in [0, 20, 250] {
            for (sessions, value) in [(1, 8), (6, 1000), (64, 1000), (8, 10_000), (64, 200_000)] {
                let mut cell = Cell { mbit, delay_ms, sessions, value, seconds: 0 };
                // The first answers take a while.
                let turn_s = f64::from(sessions) / cell.possible();
                cell.seconds = (10.0 + 3.0 * turn_s) as u64;
                run(cell, 1);
            }
        }
    }
}
