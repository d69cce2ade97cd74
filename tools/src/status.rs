//! `hybster status`: the status of every replica.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hybster::client::{ClientDriver, ClientOptions};
use hybster::group::ReplicaEntry;
use hybster::{ClientId, ClientKeys, Group, Status};
use serde::Serialize;

use crate::health::{Health, judge};
use crate::survey::{self, Answer};
use crate::words::printable;
use crate::{Done, Failure};

/// Options of `hybster status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 all replicas answer and are in the group's view, 4 one does \
    not (standard error says which), 1 nobody could be asked, 2 wrong options. The fields of --json \
    are documented in tools/STATUS.md."
)]
pub(crate) struct StatusArgs {
    /// The group directory.
    #[arg(long)]
    group: PathBuf,
    /// Whose key to use: client-N.key of the group directory.
    #[arg(long, default_value_t = 0, value_name = "N")]
    client: u32,
    /// Print what a replica of the group may hold in memory at most, buffer by buffer. Asks no replica.
    #[arg(long)]
    memory: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// How long to wait for the replicas, such as 5s or 500ms; a plain number means seconds.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = crate::kv::timeout)]
    timeout: Duration,
}

/// One replica of the group, with its status or why there is none.
#[derive(Debug, Serialize)]
struct Entry {
    replica: u16,
    address: String,
    reachable: bool,
    health: Health,
    /// Why there is no status, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

/// The whole answer; `format` is the version of the JSON form, which `tools/STATUS.md` documents.
#[derive(Debug, Serialize)]
struct GroupStatus {
    format: u32,
    group: String,
    /// Whether every replica's health is [`Health::Ok`].
    healthy: bool,
    replicas: Vec<Entry>,
}

/// Asks all replicas and prints their answers.
pub(crate) fn status(args: &StatusArgs) -> Result<Done, Failure> {
    let group = Group::load(&args.group)?;
    if args.memory {
        print(&crate::memory::show(&group, args.json)?)?;
        return Ok(Done::Yes);
    }
    let keys = ClientKeys::load(&group, group.directory(), ClientId(args.client))?;
    let options = ClientOptions { sessions: 1, ..ClientOptions::default() };
    let mut driver = ClientDriver::connect(&group, &keys, &options)?;
    let entries = entries(&group, survey::ask(&group, &mut driver, args.timeout)?);
    let healthy = entries.iter().all(|entry| entry.health == Health::Ok);
    let answer = GroupStatus { format: 1, group: group.name(), healthy, replicas: entries };
    let text = if args.json {
        serde_json::to_string_pretty(&answer)? + "\n"
    } else {
        table(&answer, group.config().pillars)
    };
    print(&text)?;
    if healthy {
        return Ok(Done::Yes);
    }
    for entry in &answer.replicas {
        if let Some(complaint) = entry.health.complaint() {
            eprintln!("hybster: replica {} {complaint}", entry.replica);
        }
    }
    if answer.replicas.iter().all(|entry| !entry.reachable) {
        eprintln!("hybster: no replica can be reached: are they running?");
    }
    Ok(Done::NotWell)
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn entries(group: &Group, answers: Vec<Answer>) -> Vec<Entry> {
    let known: Vec<Option<&Status>> = answers.iter().map(|it| it.status.as_ref()).collect();
    let health = judge(&known, group.config().faults);
    let replicas = group.replicas().iter().zip(answers).zip(health);
    let entry = |((entry, answer), health): ((&ReplicaEntry, Answer), Health)| Entry {
        replica: entry.id.0,
        address: entry.address.to_string(),
        reachable: answer.status.is_some(),
        health,
        problem: answer.problem,
        status: answer.status,
    };
    replicas.map(entry).collect()
}

fn table(answer: &GroupStatus, pillars: u16) -> String {
    let mut text = format!("group {}\n\n", answer.group);
    columns(&mut text, &overview(answer));
    let rows = progress(answer, pillars);
    if rows.len() > 1 {
        let _ = writeln!(text, "\ncommitted/prepared up to which order number:");
        columns(&mut text, &rows);
    }
    let rows = disks(answer);
    if rows.len() > 1 {
        let _ = writeln!(text, "\non disk:");
        columns(&mut text, &rows);
    }
    for entry in &answer.replicas {
        if let Some(problem) = &entry.problem {
            let problem = printable(problem);
            let _ = writeln!(text, "\nreplica {} at {}: {problem}", entry.replica, entry.address);
        }
        if let Some(count) = entry.status.as_ref().map(|s| s.divergences).filter(|n| *n > 0) {
            let _ = writeln!(
                text,
                "\nreplica {}: its state differed from the others' {count} times; its log says where",
                entry.replica,
            );
        }
    }
    text
}

fn milliseconds(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1e3)
}

/// A head, and a row for each replica that keeps anything on disk.
fn disks(answer: &GroupStatus) -> Vec<Vec<String>> {
    let head = [
        "replica",
        "durability",
        "checkpoint",
        "log",
        "not synced",
        "syncs",
        "sync p50",
        "p99",
        "longest",
        "room",
    ];
    let row = |entry: &Entry| {
        let disk = entry.status.as_ref()?.disk.as_ref()?;
        Some(vec![
            entry.replica.to_string(),
            disk.durability.clone(),
            disk.checkpoint.to_string(),
            format!("{} KiB", disk.log_bytes >> 10),
            format!("{} KiB", disk.log_behind >> 10),
            disk.syncs.to_string(),
            milliseconds(disk.sync_p50_us),
            milliseconds(disk.sync_p99_us),
            milliseconds(disk.sync_longest_us),
            match (disk.holds_clients, disk.is_short) {
                (true, _) => "full: clients refused",
                (false, true) => "short",
                (false, false) => "ok",
            }
            .to_owned(),
        ])
    };
    let head = head.map(str::to_owned).to_vec();
    std::iter::once(head).chain(answer.replicas.iter().filter_map(row)).collect()
}

/// A head, and a row per replica with its view and counters.
fn overview(answer: &GroupStatus) -> Vec<Vec<String>> {
    let head = [
        "replica",
        "address",
        "view",
        "leader",
        "checkpoint",
        "executed",
        "requests",
        "sessions",
        "rejected",
        "refused",
    ];
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    for entry in &answer.replicas {
        let mut row = vec![entry.replica.to_string(), entry.address.clone()];
        match &entry.status {
            Some(s) => {
                let changing = s.current_view > s.view;
                let view = if changing {
                    format!("{} -> {}", s.view, s.current_view)
                } else {
                    s.view.to_string()
                };
                row.extend([view, s.leader.to_string()]);
                // Messages that only came too late are not a fault.
                let wrong = s.rejections.iter().filter(|r| r.reason != "Irrelevant");
                let rejected: u64 = wrong.map(|r| r.count).sum();
                let refused: u64 = s.refusals.iter().map(|r| r.count).sum();
                let numbers =
                    [s.stable_checkpoint, s.executed, s.requests, s.sessions, rejected, refused];
                row.extend(numbers.map(|n| n.to_string()));
            }
            None => row.push("unreachable".into()),
        }
        rows.push(row);
    }
    rows
}

/// A head, and a row per replica of a replicated service with its pillars and peers.
fn progress(answer: &GroupStatus, pillars: u16) -> Vec<Vec<String>> {
    let mut head: Vec<String> = vec!["replica".into()];
    head.extend((0..pillars).map(|p| format!("pillar {p}")));
    head.push("peers".into());
    let mut rows = vec![head];
    for entry in &answer.replicas {
        let Some(status) = entry.status.as_ref().filter(|s| s.replicated) else {
            continue;
        };
        let mut row = vec![entry.replica.to_string()];
        let step = u64::from(pillars);
        // The status has the next number; the one before it is done.
        let done = |next: u64| next.saturating_sub(step);
        row.extend(
            status.pillars.iter().map(|p| format!("{}/{}", done(p.committed), done(p.prepared))),
        );
        let peers: Vec<String> = status
            .peers
            .iter()
            .map(|p| {
                let down = if p.up { "" } else { " (down)" };
                let throttled = match p.throttled {
                    0 => String::new(),
                    count => format!(" ({count} throttled)"),
                };
                format!("{}{down}{throttled}", p.replica)
            })
            .collect();
        row.push(peers.join(", "));
        rows.push(row);
    }
    rows
}

/// Appends rows with columns as wide as their widest cell.
pub(crate) fn columns(text: &mut String, rows: &[Vec<String>]) {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Replicas wrote some of it.
            let _ = write!(line, "{:<width$}  ", printable(cell));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_shows_replicas_that_answer_and_those_that_do_not() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "view": 4,
            "current_view": 5,
            "leader": 1,
            "divergences": 3,
            "stable_checkpoint": 256,
            "executed": 300,
            "replicated": true,
            "pillars": [
                { "pillar": 0, "prepared": 303, "committed": 301, "window_base": 256 },
                { "pillar": 1, "prepared": 302, "committed": 302, "window_base": 256 },
            ],
            "disk": { "durability": "sync", "checkpoint": 256, "log_bytes": 4096, "is_short": true, "holds_clients": true,
                "sync_p99_us": 2048 },
            "peers": [{ "replica": 1, "up": false, "queued_bytes": 0, "throttled": 7 }],
        }))
        .unwrap();
        let answer = GroupStatus {
            format: 1,
            group: "ab".into(),
            healthy: false,
            replicas: vec![
                Entry {
                    replica: 0,
                    address: "127.0.0.1:7100".into(),
                    reachable: true,
                    health: Health::OutOfView,
                    problem: None,
                    status: Some(status),
                },
                Entry {
                    replica: 1,
                    address: "127.0.0.1:7101".into(),
                    reachable: false,
                    health: Health::NoAnswer,
                    problem: Some("connection refused".into()),
                    status: None,
                },
            ],
        };
        let text = table(&answer, 2);
        for part in [
            "differed from the others' 3 times",
            "4 -> 5",
            "256",
            "299/301",
            "300/300",
            "1 (down)",
            "2.0 ms",
            "full: clients refused",
            "unreachable",
            "connection refused",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(text.lines().all(|line| line == line.trim_end()));
    }
    /// Every field that the JSON form has is in the document, and the document has no other.
    #[test]
    fn the_document_lists_the_fields_of_the_json_form() {
        let document = include_str!("../STATUS.md");
        let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: BTreeSet<String> =
            rows.map(|row| row.split('`').next().unwrap_or_default().to_owned()).collect();
        let mut status = Status::default();
        status.pillars = vec![Default::default()];
        status.peers = vec![Default::default()];
        status.rejections = vec![Default::default()];
        status.refusals = vec![Default::default()];
        status.agents = vec![Default::default()];
        status.disk = Some(Default::default());
        let answer = GroupStatus {
            format: 1,
            group: String::new(),
            healthy: false,
            replicas: vec![Entry {
                replica: 0,
                address: String::new(),
                reachable: true,
                health: Health::Ok,
                problem: Some(String::new()),
                status: Some(status),
            }],
        };
        let mut found = BTreeSet::new();
        leaves("", &serde_json::to_value(&answer).unwrap(), &mut found);
        let missing: Vec<_> = found.difference(&documented).collect();
        assert!(missing.is_empty(), "add to tools/STATUS.md: {missing:?}");
        let gone: Vec<_> = documented.difference(&found).collect();
        assert!(gone.is_empty(), "renamed or removed, which needs a new format: {gone:?}");
    }

    /// The paths of all values that are no objects, `[]` standing for an index.
    fn leaves(path: &str, value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    leaves(&format!("{path}{dot}{name}"), value, found);
                }
            }
            serde_json::Value::Array(items) if items.iter().any(serde_json::Value::is_object) => {
                items.iter().for_each(|item| leaves(&format!("{path}[]"), item, found));
            }
            _ => {
                found.insert(path.to_owned());
            }
        }
    }
}
