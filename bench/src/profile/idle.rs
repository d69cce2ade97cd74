//! `hybster-bench idle`: the cost of a group without load.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Error;
use crate::launch::Group;
use crate::machine::Machine;
use crate::options::{IdleOptions, ServiceKind};
use crate::report::{Config, FORMAT, ProcessReport, machine_line};
use crate::spec::GroupSpec;
use crate::stop::Stop;

/// Time for links and handshakes, after which the group is idle.
const SETTLE: Duration = Duration::from_secs(2);

/// The report of `hybster-bench idle`.
#[derive(Clone, Debug, Serialize)]
pub struct IdleReport {
    /// Version of this form.
    pub format: u32,
    /// `idle`.
    pub kind: String,
    /// How long the group was watched.
    pub seconds: f64,
    /// Per replica: CPU seconds in that time, and memory.
    pub processes: Vec<ProcessReport>,
    /// The configuration of the group.
    pub config: Config,
    /// The machine it ran on.
    pub machine: Machine,
}

/// Starts a group and watches it do nothing.
///
/// # Errors
/// If the group does not start or ends, or the user interrupts.
pub fn idle(options: &IdleOptions, stop: &Stop) -> Result<IdleReport, Error> {
    let spec = GroupSpec::new(&options.group, ServiceKind::Null, 1)?;
    let mut group = Group::launch(&spec, stop)?;
    let wait = |length: Duration, group: &mut Group| {
        stop.sleep_until(Instant::now() + length, || group.expect_running(&[]))
    };
    wait(SETTLE, &mut group)?;
    let before = group.usage()?;
    wait(options.seconds, &mut group)?;
    let mut processes = group.usage()?;
    group.shutdown()?;
    processes.retain(|p| p.name != "load");
    for process in &mut processes {
        let earlier = before.iter().find(|b| b.name == process.name);
        process.cpu_s -= earlier.map_or(0.0, |b| b.cpu_s);
    }
    Ok(IdleReport {
        format: FORMAT,
        kind: "idle".into(),
        seconds: options.seconds.as_secs_f64(),
        processes,
        config: crate::run::config(&options.group, &spec),
        machine: Machine::here(),
    })
}

impl fmt::Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "no load for {:.0} s (CPU time counts in hundredths of a second)\n",
            self.seconds
        )?;
        for p in &self.processes {
            let percent = p.cpu_s / self.seconds.max(1e-9) * 100.0;
            writeln!(f, "  {:<12} {:>6.2} CPU s, {percent:.3} % of a core", p.name, p.cpu_s)?;
        }
        writeln!(f)?;
        machine_line(f, &self.machine)
    }
}
