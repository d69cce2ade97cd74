//! The reports for people.

use std::fmt;

use super::{Config, ProcessReport, ReplicaReport, RunReport};
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
fn micros(value: f64) -> String {
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
        writeln!(f)?;
        figures(f, self)?;
        warnings(f, self)?;
        replicas(f, &self.replicas)?;
        writeln!(f)?;
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
    writeln!(
        f,
        ", {} clients over {}, {} service, request {} B, reply {} B, {} % reads",
        count(config.clients.into()),
        plural(config.connections.into(), "connection"),
        config.service,
        config.request_size,
        config.reply_size,
        config.read_percent,
    )?;
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

/// What clients saw, and what it cost.
fn figures(f: &mut fmt::Formatter<'_>, report: &RunReport) -> fmt::Result {
    let throughput = count(report.throughput_ops_s.round() as u64);
    writeln!(f, "  throughput   {throughput} operations/s")?;
    write!(f, "  completed    {} in {:.1} s", count(report.completed), report.duration_s)?;
    writeln!(f, ", {} errors{}", count(report.errors), kinds(report))?;
    let l = &report.latency_us;
    writeln!(
        f,
        "  latency      p50 {}   p90 {}   p99 {}   p99.9 {}   max {}   mean {}",
        micros(l.p50),
        micros(l.p90),
        micros(l.p99),
        micros(l.p999),
        micros(l.max),
        micros(l.mean),
    )?;
    writeln!(f, "  longest gap  {} without a completion", micros(report.longest_gap_ms * 1e3))?;
    writeln!(
        f,
        "  CPU          {:.2} s per million operations, all processes",
        report.cpu_s_per_mop
    )
}

/// Whether the figures can be believed: time taken by the host, and an open loop that fell behind.
fn warnings(f: &mut fmt::Formatter<'_>, report: &RunReport) -> fmt::Result {
    if report.stolen_s > 0.0 {
        writeln!(
            f,
            "  stolen       {:.2} s of CPU time by the machine's host: gaps may be its doing",
            report.stolen_s
        )?;
    }
    if let Some(open) = &report.open_loop {
        let verdict = if open.kept_up { "kept up" } else { "DID NOT KEEP UP" };
        writeln!(
            f,
            "  open loop    {} operations/s asked for: {verdict}, {} unfinished",
            count(open.rate_ops_s.round() as u64),
            count(open.unfinished),
        )?;
    }
    Ok(())
}

fn replicas(f: &mut fmt::Formatter<'_>, list: &[ReplicaReport]) -> fmt::Result {
    for replica in list {
        write!(f, "  replica {}    view {}", replica.replica, replica.view)?;
        if let Some(size) = replica.requests_per_batch {
            write!(f, ", {size:.1} requests per batch")?;
        }
        let rejections = count(replica.rejections);
        let (layout, transport) = (&replica.layout, &replica.transport);
        writeln!(f, ", {rejections} messages rejected, {layout} layout, {transport}")?;
    }
    Ok(())
}

fn kinds(report: &RunReport) -> String {
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
