//! Wires and loads, one combination of which is a cell: what a group must do on any of them while no fault is
//! injected.

use hybster_proto::config::GroupConfig;
use hybster_sim::{ClientPlan, Latency, Options, Scenario, Transport, run_scenario};

/// Bytes that a request and its reply have on the leader's wire beside one copy of the operation.
const OVERHEAD: u64 = 260;
/// Without any wire between them, hosts are this far apart, in microseconds.
const NEAR_US: u64 = 40;

/// One combination of wire and load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) mbit: u64,
    /// One way.
    pub(crate) delay_ms: u64,
    pub(crate) sessions: u32,
    /// Bytes of an operation.
    pub(crate) value: u32,
    /// Whose sessions these are.
    pub(crate) of: Of,
}

/// Whose the sessions of a load are: one client's, which sees the answers to all of them, or as many clients',
/// each of which knows nothing of the others and must find out alone how long an answer takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Of {
    One,
    Each,
}

impl Cell {
    pub(crate) fn bytes_per_s(&self) -> u64 {
        self.mbit * 1_000_000 / 8
    }

    fn one_way_us(&self) -> u64 {
        NEAR_US + self.delay_ms * 1_000
    }

    /// Operations per second that the wires can carry, each in one copy to each follower and with its
    /// replies, or that this many sessions can ask for in one and a half times what one operation takes.
    pub(crate) fn possible(&self) -> f64 {
        let (rate, bytes) = (self.bytes_per_s() as f64, f64::from(self.value) + OVERHEAD as f64);
        let by_wire = rate / (2.0 * bytes + 100.0);
        let trip_s = 4.0 * self.one_way_us() as f64 / 1e6 + 3.0 * bytes / rate;
        by_wire.min(f64::from(self.sessions) / (1.5 * trip_s))
    }

    /// Long enough for a few turns of each session.
    fn seconds(&self) -> u64 {
        (10.0 + 3.0 * f64::from(self.sessions) / self.possible()) as u64
    }

    pub(crate) fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::calm("wires", seed, 1, 2);
        // As a group is by default.
        scenario.group = GroupConfig {
            group: scenario.group.group,
            max_clients: 256,
            max_sessions_per_client: 256,
            ..GroupConfig::default()
        };
        scenario.transport = Transport::Streams;
        let min_us = self.one_way_us() - NEAR_US / 4;
        scenario.latency = Latency { min_us, jitter_us: NEAR_US / 2, tail_ppm: 0, tail_us: 0 };
        scenario.bytes_per_s = self.bytes_per_s();
        let (clients, sessions) = match self.of {
            Of::One => (1, self.sessions),
            Of::Each => (self.sessions as usize, 1),
        };
        let plan = ClientPlan {
            copy_of: None,
            sessions,
            operations: u32::MAX >> 1,
            operations_after: 0,
            parallel: 1,
            think_us: 0,
            least_padding: self.value,
            padding: self.value,
            queries_ppm: 0,
            start_us: 0,
        };
        scenario.clients = vec![plan; clients];
        scenario.keys = 1000;
        scenario.heal_at_us = self.seconds() * 1_000_000;
        scenario.patience_us = 60_000_000 + scenario.heal_at_us;
        scenario
    }

    /// Runs it and checks what must hold on any wire.
    pub(crate) fn check(&self, seed: u64) {
        self.try_it(seed).unwrap_or_else(|story| panic!("{self:?}, seed {seed}: {story}"));
    }

    pub(crate) fn try_it(&self, seed: u64) -> Result<(), String> {
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

pub(crate) fn cells(of: Of, mbits: &[u64], delays_ms: &[u64], loads: &[(u32, u32)]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &mbit in mbits {
        for &delay_ms in delays_ms {
            let of_load = |&(sessions, value)| Cell { mbit, delay_ms, sessions, value, of };
            cells.extend(loads.iter().map(of_load));
        }
    }
    cells
}
