//! `hybster doctor`: looks at a machine and a group, and says what to change.
//!
//! Each check is a function of what was found, so that its verdicts can be tested; finding it out is apart.

mod files;
mod group;
mod host;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hybster::{Group, ReplicaId};
use serde::Serialize;

use crate::words::printable;
use crate::{Done, Failure};

/// Options of `hybster doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Limits and files are judged as this process finds them: run it as the replica's user, \
    in the same unit or container. Exit status: 0 nothing is wrong (there may be warnings), 4 something \
    is, 1 the group file cannot be read, 2 wrong options. The checks are listed in tools/OPERATIONS.md."
)]
pub(crate) struct DoctorArgs {
    /// The group directory.
    #[arg(long)]
    group: PathBuf,
    /// The replica that runs, or shall run, on this machine: its key and its data are looked at, too.
    #[arg(long, value_name = "N")]
    id: Option<u16>,
    /// The directory of the replica's data, if it is not in the group directory.
    #[arg(long, value_name = "DIR", requires = "id")]
    data: Option<PathBuf>,
    /// Whose key to ask the replicas with: client-N.key of the group directory. Without that file,
    /// only their addresses are tried.
    #[arg(long, default_value_t = 0, value_name = "N")]
    client: u32,
    /// Look at this machine only.
    #[arg(long)]
    offline: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// How long to wait for the replicas, such as 5s or 500ms; a plain number means seconds.
    #[arg(long, default_value = "3s", value_name = "DURATION", value_parser = crate::kv::timeout)]
    timeout: Duration,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not for long.
    Warning,
    /// It does not work, or promises of the group are broken.
    Wrong,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    /// The replica that it is about; absent for this machine and the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<u16>,
    verdict: Verdict,
    found: String,
    /// What to change; absent if nothing must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, replica: None, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into());
        Self { verdict: Verdict::Warning, advice, ..Self::ok(check, found) }
    }

    fn wrong(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Wrong, ..Self::warning(check, found, advice) }
    }

    fn of(self, replica: ReplicaId) -> Self {
        Self { replica: Some(replica.0), ..self }
    }
}

/// The names of all checks, and what each looks at.
const CHECKS: &[(&str, &str)] = &[
    ("files", "how many files may be open, against what all links need"),
    ("memory", "limits of memory, against the sum of all bounds (`hybster status --memory`)"),
    ("io_uring", "whether links can use io_uring"),
    ("memlock", "the limit of locked memory, which kernels before 5.12 count for io_uring"),
    ("cores", "cores, against pillars and layout"),
    ("time", "whether this machine's clock can be right"),
    ("key", "with `--id`: the replica's key file, its mode and its directory"),
    ("other_keys", "with `--id`: whether keys of other replicas lie on this machine"),
    ("data", "with `--id`: the directory of the replica's data and the room on its disk"),
    ("reach", "whether each replica can be reached"),
    ("configuration", "whether each replica has this group file's configuration, by its digest"),
    ("links", "whether the replicas have links to each other"),
    ("health", "what `hybster status` says of each replica"),
    ("clock", "the replicas' clocks, against each other"),
    ("version", "whether all replicas run the same version"),
    ("refusals", "links that were refused since keys or configuration differ"),
    ("disk", "whether a replica's disk is short of room"),
];

/// The whole answer; `format` is the version of the JSON form.
#[derive(Debug, Serialize)]
struct Report {
    format: u32,
    group: String,
    /// The digest of the configuration, which every handshake compares.
    configuration: String,
    /// Whether nothing is wrong (the exit status is 0).
    well: bool,
    findings: Vec<Finding>,
}

/// Looks, and prints what it found.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<Done, Failure> {
    let group = Group::load(&args.group)?;
    let id = args.id.map(ReplicaId);
    if let Some(id) = id.filter(|id| usize::from(id.0) >= group.replicas().len()) {
        let count = group.replicas().len();
        return Err(Failure::options(format!(
            "--id {}: the group has {count} replicas, numbered from 0",
            id.0
        )));
    }
    let mut findings = host::look(&group);
    if let Some(id) = id {
        findings.extend(files::look(&group, id, args.data.as_deref()));
    }
    if !args.offline {
        findings.extend(group::look(&group, args.client, args.timeout)?);
    }
    let digest = group.config().digest();
    let report = Report {
        format: 1,
        group: group.name(),
        configuration: digest.0.iter().map(|byte| format!("{byte:02x}")).collect(),
        well: findings.iter().all(|finding| finding.verdict != Verdict::Wrong),
        findings,
    };
    let text =
        if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { table(&report) };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(if report.well { Done::Yes } else { Done::NotWell })
}

fn table(report: &Report) -> String {
    let mut text = format!("group {}, configuration {}\n\n", report.group, report.configuration);
    let width = CHECKS.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for finding in &report.findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Wrong => "WRONG",
        };
        let about = match finding.replica {
            Some(replica) => format!("replica {replica}: "),
            None => String::new(),
        };
        // Replicas wrote some of it.
        let found = printable(&finding.found);
        let _ = writeln!(text, "{verdict:<8} {:<width$}  {about}{found}", finding.check);
        if let Some(advice) = &finding.advice {
            let _ = writeln!(text, "{:<8} {:<width$}  -> {advice}", "", "");
        }
    }
    let count = |verdict| report.findings.iter().filter(|it| it.verdict == verdict).count();
    let (wrong, warnings) = (count(Verdict::Wrong), count(Verdict::Warning));
    let _ = writeln!(text, "\n{wrong} wrong, {warnings} warnings");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;

    #[test]
    fn the_table_says_what_to_change() {
        let report = Report {
            format: 1,
            group: "ab".into(),
            configuration: "cd".into(),
            well: false,
            findings: vec![
                Finding::ok("time", "it is late"),
                Finding::warning("cores", "few", "add some"),
                Finding::wrong("reach", "no answer", "start it").of(ReplicaId(2)),
            ],
        };
        let text = table(&report);
        for part in [
            "ok       time",
            "-> add some",
            "WRONG    reach",
            "replica 2: no answer",
            "1 wrong, 1 warnings",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["findings"][2]["verdict"], "wrong");
        assert!(json["findings"][0].get("advice").is_none());
    }

    #[test]
    fn the_operations_guide_lists_the_checks() {
        let rows = CHECKS.iter().map(|(name, about)| format!("| `{name}` | {about} |\n"));
        document::has_part("OPERATIONS.md", "doctor", &rows.collect::<String>());
    }
}
