//! The reports for people.

use std::fmt;

use super::{
    Config, ConnectionReport, EventReport, LatencyUs, ProcessReport, ReplicaReport, RunReport,
};
use crate::machine::Machine;

/// A number with separators: `1 234 567`.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size with a unit.
#[must_use]
pub fn bytes(value: u64) -> String {
    match value {
        0..1024 => format!("{value} B"),
        1024..0x10_0000 => format!("{:.1} KiB", value as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", value as f64 / f64::from(1 << 20)),
        _ => format!("{:.2} GiB", value as f64 / f64::from(1 << 30)),
    }
}

/// A time given in microseconds, in the unit that suits it.
pub(crate) fn micros(value: f64) -> String {
    if value < 1e3 {
        format!("{value:.1} us")
    } else if value < 1e6 {
        format!("{:.2} ms", value / 1e3)
    } else {
        format!("{:.2} s", value / 1e6)
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        setting(f, &self.config)?;
        if let Some(target) = self.target.as_ref().filter(|target| target.is_elsewhere) {
            let (group, client) = (&target.group, target.first_client);
            writeln!(f, "group {group}, which was there already, clients from {client} on")?;
        }
        writeln!(f)?;
        figures(f, self)?;
        for part in &self.merged {
            let (name, length) = (&part.name, part.duration_s);
            writeln!(f, "  merged       {name}: {} in {length:.1} s", count(part.completed))?;
        }
        warnings(f, self)?;
        events(f, &self.events)?;
        connections(f, &self.connections)?;
        replicas(f, &self.replicas)?;
        writeln!(f)?;
        if let Some(stages) = &self.stages {
            writeln!(f, "{stages}")?;
        }
        processes(f, &self.processes)?;
        writeln!(f)?;
        machine(f, &self.machine)
    }
}

/// What was measured: the group, its clients and their links.
fn setting(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    if config.unreplicated {
        write!(f, "one server, no replication")?;
    } else {
        let (n, faults, p) = (config.replicas, config.faults, config.pillars);
        write!(f, "{n} replicas (f = {faults}), {}", plural(p.into(), "pillar"))?;
    }
    let (clients, connections) =
        (count(config.clients.into()), plural(config.connections.into(), "connection"));
    writeln!(f, ", {clients} clients over {connections}")?;
    work(f, config)?;
    let signed = match config.request_authenticator.as_str() {
        "mac" => String::new(),
        form => format!(", each signed ({form})"),
    };
    let pinned = if config.pin { ", pinned" } else { "" };
    writeln!(
        f,
        "layout {}{}, transport {}, authenticator {}, links {}, batches of at most {} requests{}, durability {}",
        config.layout,
        pinned,
        config.transport,
        config.authenticator,
        config.link_cipher,
        config.batch_max,
        signed,
        config.durability
    )
}

/// What the clients did.
fn work(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    write!(f, "{} service", config.service)?;
    let Some(load) = &config.load else {
        return writeln!(
            f,
            ", request {} B, reply {} B, {} % reads",
            config.request_size, config.reply_size, config.read_percent
        );
    };
    if load.workload != config.service {
        write!(f, ", workload {}", load.workload)?;
    }
    match &load.records {
        Some(records) => {
            let (keys, size) = (count(records.keys.into()), config.request_size);
            write!(f, ", {keys} records of {size} B ({})", records.distribution)?;
            let shares = [
                (records.reads, "reads"),
                (records.updates, "updates"),
                (records.inserts, "inserts"),
                (records.scans, "scans"),
                (records.read_modify_writes, "read-modify-writes"),
            ];
            for (percent, what) in shares.into_iter().filter(|(percent, _)| *percent > 0) {
                write!(f, ", {percent} % {what}")?;
            }
        }
        None if config.service == "counter" || load.workload == "replay" => {}
        None => write!(
            f,
            ", request {} B, reply {} B, {} % reads",
            config.request_size, config.reply_size, config.read_percent
        )?,
    }
    match load.arrivals.as_str() {
        "closed" if load.think_time_us > 0 => {
            write!(f, ", closed loop, {} of thought", micros(load.think_time_us as f64))?;
        }
        "closed" => write!(f, ", closed loop")?,
        arrivals => write!(f, ", open loop ({arrivals} arrivals)")?,
    }
    if let Some(ramp) = load.ramp {
        let [from, to] = [ramp.from_ops_s, ramp.to_ops_s].map(|rate| count(rate.round() as u64));
        write!(f, ", from {from} to {to} operations/s")?;
    }
    if load.processes > 1 {
        write!(f, ", {} load processes", load.processes)?;
    }
    if let Some(percent) = load.hot_client_percent {
        write!(f, ", connection 0 has {percent} %")?;
    }
    writeln!(f, ", seed {}", load.seed)
}

/// What clients saw, and what it cost.
fn figures(f: &mut fmt::Formatter<'_>, report: &RunReport) -> fmt::Result {
    let throughput = count(report.throughput_ops_s.round() as u64);
    writeln!(f, "  throughput   {throughput} operations/s")?;
    write!(f, "  completed    {} in {:.1} s", count(report.completed), report.duration_s)?;
    writeln!(f, ", {} errors{}", count(report.errors), kinds(report))?;
    write!(f, "  latency      ")?;
    match &report.latency_us {
        Some(latency) => write_latency(f, latency)?,
        None => writeln!(f, "n/a: no operation that counts has completed")?,
    }
    writeln!(f, "  longest gap  {} without a completion", micros(report.longest_gap_ms * 1e3))?;
    match report.cpu_s_per_mop {
        Some(cpu) => {
            writeln!(f, "  CPU          {cpu:.2} s per million operations, all processes")
        }
        None => writeln!(f, "  CPU          n/a: the replicas run elsewhere"),
    }
}

fn write_latency(f: &mut fmt::Formatter<'_>, latency: &LatencyUs) -> fmt::Result {
    writeln!(
        f,
        "p50 {}   p90 {}   p99 {}   p99.9 {}   max {}   mean {}",
        micros(latency.p50),
        micros(latency.p90),
        micros(latency.p99),
        micros(latency.p999),
        micros(latency.max),
        micros(latency.mean),
    )
}

/// Whether the figures can be believed: what else may have decided them, time taken by the host, and an open
/// loop that fell behind.
fn warnings(f: &mut fmt::Formatter<'_>, report: &RunReport) -> fmt::Result {
    // That a rate was not kept is told below, with figures.
    for warning in report.warnings.iter().filter(|warning| warning.kind != "rate-not-kept") {
        writeln!(f, "  warning      {}", warning.text)?;
    }
    if report.stolen_s > 0.0 {
        writeln!(
            f,
            "  stolen       {:.2} s of CPU time by the machine's host: gaps may be its doing",
            report.stolen_s
        )?;
    }
    if let Some(open) = &report.open_loop {
        let verdict = if open.kept_up { "kept up" } else { "DID NOT KEEP UP" };
        write!(
            f,
            "  open loop    {} operations/s asked for: {verdict}, {} unfinished",
            count(open.rate_ops_s.round() as u64),
            count(open.unfinished),
        )?;
        if open.never_sent > 0 {
            let (never, due) = (count(open.never_sent), count(open.due));
            write!(f, ", {never} of {due} that were due were never sent")?;
        }
        writeln!(f)?;
    }
    if report.interrupted {
        let so_far = report.duration_s;
        writeln!(f, "  interrupted  after {so_far:.1} s: these are the figures until then")?;
    }
    Ok(())
}

/// What each connection saw, if there are several.
fn connections(f: &mut fmt::Formatter<'_>, list: &[ConnectionReport]) -> fmt::Result {
    for connection in list {
        let (number, clients) = (connection.connection, count(connection.clients.into()));
        let completed = count(connection.completed);
        write!(f, "  connection   {number}: {clients} clients, {completed} completed")?;
        match &connection.latency_us {
            Some(l) => writeln!(f, ", p50 {}, p99 {}", micros(l.p50), micros(l.p99))?,
            None => writeln!(f)?,
        }
    }
    Ok(())
}

/// What was caused, and what clients noticed of it.
fn events(f: &mut fmt::Formatter<'_>, list: &[EventReport]) -> fmt::Result {
    for event in list {
        let (what, replica, recovery) = (&event.event, event.replica, &event.recovery);
        write!(f, "  event        {:.2} s {what} (replica {replica})", event.at_s)?;
        if let Some(over) = event.over_s {
            write!(f, ", over at {over:.2} s")?;
        }
        write!(f, ": gap {} ms", recovery.gap_ms)?;
        match (recovery.before_ops_s, recovery.full_rate_after_ms) {
            (None, _) => writeln!(f, ", no rate before to compare with")?,
            (Some(rate), Some(ms)) => {
                let rate = count(rate.round() as u64);
                writeln!(f, ", full rate ({rate} operations/s) after {ms} ms")?;
            }
            (Some(rate), None) => {
                let rate = count(rate.round() as u64);
                writeln!(f, ", FULL RATE ({rate} operations/s) NOT REACHED AGAIN")?;
            }
        }
    }
    Ok(())
}

fn replicas(f: &mut fmt::Formatter<'_>, list: &[ReplicaReport]) -> fmt::Result {
    for replica in list {
        write!(f, "  replica {}    view {}", replica.replica, replica.view)?;
        if let Some(size) = replica.requests_per_batch {
            write!(f, ", {size:.1} requests per batch")?;
        }
        let (layout, transport) = (&replica.layout, &replica.transport);
        write!(f, ", {layout} layout, {transport}")?;
        // In a healthy run there is nothing to say about them.
        match replica.rejections {
            0 => writeln!(f)?,
            rejections => writeln!(f, ", {} messages rejected", count(rejections))?,
        }
    }
    if list.iter().any(|replica| replica.rejections > 0) {
        writeln!(
            f,
            "  rejected     are messages whose content a replica did not accept since it started, such \
             as ones of another view; `hybster status` tells kinds and reasons"
        )?;
    }
    Ok(())
}

pub(super) fn kinds(report: &RunReport) -> String {
    if report.errors_by_kind.is_empty() {
        return String::new();
    }
    let parts: Vec<_> = report.errors_by_kind.iter().map(|(k, n)| format!("{k} {n}")).collect();
    format!(" ({})", parts.join(", "))
}

pub(crate) fn plural(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A table of what the processes used.
pub(crate) fn processes(f: &mut fmt::Formatter<'_>, list: &[ProcessReport]) -> fmt::Result {
    writeln!(f, "  {:<12} {:>9} {:>12} {:>12}", "process", "CPU s", "memory", "peak")?;
    for p in list {
        let (rss, peak) = (bytes(p.rss_bytes), bytes(p.peak_rss_bytes));
        writeln!(f, "  {:<12} {:>9.2} {rss:>12} {peak:>12}", p.name, p.cpu_s)?;
    }
    Ok(())
}

/// One line that names the machine, and a warning if the figures are worthless.
pub(crate) fn machine(f: &mut fmt::Formatter<'_>, m: &Machine) -> fmt::Result {
    writeln!(
        f,
        "  {}, {}, {} of memory, Linux {}, hybster {}, {}",
        m.cpu,
        plural(m.cores as u64, "core"),
        bytes(m.memory_bytes),
        m.kernel,
        m.hybster,
        m.date,
    )?;
    if m.build != "release" {
        writeln!(f, "  This is a {} build: its figures say nothing about speed.", m.build)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(micros(12_345.0), "12.35 ms");
        assert_eq!(plural(1, "pillar"), "1 pillar");
    }
}
