//! The other machines: whether they can be reached, have the same configuration, and what they say.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use hybster::client::{ClientDriver, ClientOptions};
use hybster::{ClientId, ClientKeys, Group, PeerAddress, ReplicaId, Status};
use hybster_net::Reason;

use super::Finding;
use crate::Failure;
use crate::health::{Health, judge};
use crate::survey::{self, Answer, Offset};

/// Refusals that say that somebody's files are not the group's.
const OF_OTHER_FILES: [Reason; 5] = [
    Reason::ConfigurationMismatch,
    Reason::UnknownKey,
    Reason::CipherMismatch,
    Reason::Version,
    Reason::ServiceMismatch,
];

pub(super) fn look(
    group: &Group,
    client: u32,
    patience: Duration,
) -> Result<Vec<Finding>, Failure> {
    let id = ClientId(client);
    if !ClientKeys::path(group.directory(), id).exists() {
        return Ok(without_a_key(group, patience));
    }
    let keys = ClientKeys::load(group, group.directory(), id)?;
    let options = ClientOptions { sessions: 1, ..ClientOptions::default() };
    let mut driver = ClientDriver::connect(group, &keys, &options)?;
    let answers = survey::ask(group, &mut driver, patience)?;
    let addresses: Vec<String> = group.replicas().iter().map(|it| it.address.to_string()).collect();
    Ok(judge_answers(&addresses, &answers, group.config().faults, group.config().max_clock_skew_ms))
}

/// Without a client's key only the addresses can be tried.
fn without_a_key(group: &Group, patience: Duration) -> Vec<Finding> {
    let each = patience / u32::try_from(group.replicas().len().max(1)).unwrap_or(1);
    let one = |(id, address): (ReplicaId, &PeerAddress)| {
        let finding = match connect(address, each) {
            Ok(()) => Finding::ok(
                "reach",
                format!(
                    "{address} takes connections; a client's key in the group directory would tell more"
                ),
            ),
            Err(why) => unreachable(&address.to_string(), &why),
        };
        finding.of(id)
    };
    group.replicas().iter().map(|entry| one((entry.id, &entry.address))).collect()
}

fn connect(address: &PeerAddress, patience: Duration) -> Result<(), String> {
    let found: Vec<SocketAddr> = match address {
        PeerAddress::Ip(address) => vec![*address],
        named => named.to_string().to_socket_addrs().map_err(|it| it.to_string())?.collect(),
    };
    let mut last = "the name has no address".to_owned();
    for address in found {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

fn unreachable(address: &str, why: &str) -> Finding {
    Finding::wrong(
        "reach",
        format!("{address}: {why}"),
        "start the replica, or let its address in group.toml and the firewalls between the machines agree",
    )
}

fn judge_answers(
    addresses: &[String],
    answers: &[Answer],
    faults: u16,
    max_skew_ms: u64,
) -> Vec<Finding> {
    let known: Vec<Option<&Status>> = answers.iter().map(|it| it.status.as_ref()).collect();
    let mut findings = Vec::new();
    let ids = (0..u16::MAX).map(ReplicaId);
    for (id, (address, answer)) in ids.clone().zip(addresses.iter().zip(answers)) {
        findings.extend(reached(address, answer).into_iter().map(|it| it.of(id)));
    }
    for (id, health) in ids.clone().zip(judge(&known, faults)) {
        // What does not answer was told above.
        if let Some(complaint) = health.complaint().filter(|_| health != Health::NoAnswer) {
            let advice = match health {
                Health::OutOfView => {
                    "wait a moment and look again; if it lasts, read its log: too few replicas may be up"
                }
                _ => "read its log; tools/OPERATIONS.md says what to do",
            };
            findings.push(Finding::wrong("health", complaint, advice).of(id));
        }
    }
    for (id, status) in ids.zip(&known).filter_map(|(id, status)| Some((id, (*status)?))) {
        let told = [Some(links(status, &known)), disk(status), refusals(status)];
        findings.extend(told.into_iter().flatten().map(|it| it.of(id)));
    }
    let offsets: Vec<(u16, Offset)> =
        (0..).zip(answers).filter_map(|(id, answer)| Some((id, answer.clock?))).collect();
    findings.extend(clocks(&offsets, max_skew_ms));
    findings.extend(versions(&known));
    findings
}

/// A handshake that succeeds has compared the digests of both configurations.
fn reached(address: &str, answer: &Answer) -> Vec<Finding> {
    let why = answer.problem.as_deref().unwrap_or("it does not answer");
    match (&answer.status, answer.refused) {
        (Some(_), _) => vec![
            Finding::ok("reach", format!("{address} answers")),
            Finding::ok("configuration", "it is that of this group file"),
        ],
        (None, Some(reason)) if OF_OTHER_FILES.contains(&reason) => vec![
            Finding::ok("reach", format!("{address} answers")),
            Finding::wrong(
                "configuration",
                why,
                "give every machine the same group.toml, of the same `hybster init`, and the same version",
            ),
        ],
        (None, _) => vec![unreachable(address, why)],
    }
}

fn links(status: &Status, known: &[Option<&Status>]) -> Finding {
    let down: Vec<String> =
        status.peers.iter().filter(|it| !it.up).map(|it| it.replica.to_string()).collect();
    if down.is_empty() {
        return Finding::ok("links", "links to all peers are up");
    }
    // Those that answer here could be reached from there as well.
    let answers = |id: &String| {
        let at = id.parse::<usize>().ok();
        at.and_then(|at| known.get(at)).is_some_and(Option::is_some)
    };
    let found = format!("no link to {}", down.join(", "));
    if down.iter().any(answers) {
        let advice = "these replicas run: let them reach each other's address in group.toml (names, routes, \
                      firewalls); their logs say what is refused";
        return Finding::wrong("links", found, advice);
    }
    Finding::warning("links", found, "see above why these replicas cannot be reached")
}

fn disk(status: &Status) -> Option<Finding> {
    let disk = status.disk.as_ref()?;
    let advice = "make room on its disk";
    Some(match (disk.holds_clients, disk.is_short) {
        (true, _) => Finding::wrong("disk", "it is full, and clients are refused", advice),
        (false, true) => Finding::warning("disk", "it has no more room for the log", advice),
        (false, false) => Finding::ok("disk", "it has room"),
    })
}

fn refusals(status: &Status) -> Option<Finding> {
    let of_files = |name: &str| OF_OTHER_FILES.iter().any(|reason| reason.name() == name);
    let found: Vec<String> = status
        .refusals
        .iter()
        .filter(|it| of_files(&it.reason))
        .map(|it| format!("{} for {}", it.count, it.reason))
        .collect();
    (!found.is_empty()).then(|| {
        Finding::warning(
            "refusals",
            format!("links were refused since its start: {}", found.join(", ")),
            "somebody uses another group.toml, other keys or another version; the replica's log says who",
        )
    })
}

/// Against the middle one, so that a single wrong clock is named and not those that are right.
fn clocks(offsets: &[(u16, Offset)], max_skew_ms: u64) -> Vec<Finding> {
    let mut sorted: Vec<i64> = offsets.iter().map(|(_, offset)| offset.ahead_ms).collect();
    sorted.sort_unstable();
    let Some(middle) = sorted.get(sorted.len() / 2).copied() else {
        return Vec::new();
    };
    let judged = |(id, offset): &(u16, Offset)| {
        let ahead = offset.ahead_ms.saturating_sub(middle);
        let side = if ahead < 0 { "behind" } else { "ahead of" };
        let away = ahead.unsigned_abs();
        let found = format!(
            "{away} ms {side} the others (within {} ms), where {max_skew_ms} ms are allowed",
            offset.within_ms
        );
        let advice = "keep the clocks of all machines right by NTP: a replica whose clock is further off than \
                      max_clock_skew_ms helps nobody to agree";
        // As much as the measurement cannot know is not held against it.
        let finding = match away.saturating_sub(offset.within_ms) {
            away if away > max_skew_ms => Finding::wrong("clock", found, advice),
            away if away > max_skew_ms / 2 => Finding::warning("clock", found, advice),
            _ => Finding::ok("clock", found),
        };
        finding.of(ReplicaId(*id))
    };
    let mut findings: Vec<Finding> = offsets.iter().map(judged).collect();
    if middle.unsigned_abs() > max_skew_ms {
        let found =
            format!("this machine's clock is {} ms away from theirs", middle.unsigned_abs());
        findings.push(Finding::warning("clock", found, "set it, and keep it right by NTP"));
    }
    findings
}

fn versions(known: &[Option<&Status>]) -> Option<Finding> {
    let mut by_version: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for status in known.iter().flatten() {
        let version = if status.version.is_empty() { "older" } else { &status.version };
        by_version.entry(version).or_default().push(status.replica.to_string());
    }
    let all: Vec<String> =
        by_version.iter().map(|(version, who)| format!("{version} ({})", who.join(", "))).collect();
    match by_version.len() {
        0 => None,
        1 => Some(Finding::ok("version", format!("all run {}", all.concat()))),
        _ => Some(Finding::warning(
            "version",
            format!("replicas run {}", all.join(" and ")),
            "finish the upgrade: one replica after the other",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn answering(fields: serde_json::Value) -> Answer {
        let status = Some(serde_json::from_value(fields).unwrap());
        Answer { status, ..Answer::default() }
    }

    fn verdicts(answers: &[Answer]) -> Vec<(&'static str, Option<u16>)> {
        let addresses: Vec<String> = (0..answers.len()).map(|id| format!("host{id}:1")).collect();
        let findings = judge_answers(&addresses, answers, 1, 1000);
        let bad = findings.iter().filter(|it| it.verdict == Verdict::Wrong);
        bad.map(|it| (it.check, it.replica)).collect()
    }

    #[test]
    fn what_is_wrong_is_told_of_the_replica_that_it_concerns() {
        let well = |id: u16, up: bool| {
            answering(serde_json::json!({ "replica": id, "peers": [{ "replica": 2, "up": up }] }))
        };
        let gone = Answer { problem: Some("connection refused".into()), ..Answer::default() };
        let other = Answer {
            refused: Some(Reason::ConfigurationMismatch),
            problem: Some("another configuration".into()),
            ..Answer::default()
        };
        let third = answering(serde_json::json!({ "replica": 2 }));
        assert_eq!(verdicts(&[well(0, true), well(1, true), third.clone()]), []);
        assert_eq!(verdicts(&[well(0, false), well(1, true), gone]), [("reach", Some(2))]);
        assert_eq!(verdicts(&[well(0, true), well(1, true), other]), [("configuration", Some(2))]);
        assert_eq!(verdicts(&[well(0, false), well(1, true), third.clone()]), [("links", Some(0))]);
        let full = answering(serde_json::json!({ "disk": { "holds_clients": true } }));
        let halted = answering(serde_json::json!({ "halted": true }));
        assert_eq!(verdicts(&[full, halted, third]), [("health", Some(1)), ("disk", Some(0))]);
    }

    #[test]
    fn the_clock_that_is_wrong_is_named() {
        let at = |ahead_ms| Offset { ahead_ms, within_ms: 5 };
        let judged = |offsets: &[(u16, Offset)]| -> Vec<Verdict> {
            clocks(offsets, 1000).iter().map(|it| it.verdict).collect()
        };
        use Verdict::{Ok, Warning, Wrong};
        assert_eq!(judged(&[(0, at(3)), (1, at(-3)), (2, at(1))]), [Ok, Ok, Ok]);
        assert_eq!(judged(&[(0, at(0)), (1, at(700)), (2, at(-5000))]), [Ok, Warning, Wrong]);
        assert_eq!(judged(&[(0, at(9000)), (1, at(9000)), (2, at(9001))]), [Ok, Ok, Ok, Warning]);
        assert_eq!(judged(&[]), []);
    }

    #[test]
    fn versions_and_refusals_that_differ_are_warnings() {
        let status = |fields| serde_json::from_value::<Status>(fields).unwrap();
        let of = |version: &str| status(serde_json::json!({ "version": version }));
        let (new, old) = (of("2"), of("1"));
        assert_eq!(versions(&[Some(&new), None, Some(&new)]).unwrap().verdict, Verdict::Ok);
        assert_eq!(versions(&[Some(&new), Some(&old)]).unwrap().verdict, Verdict::Warning);
        assert_eq!(versions(&[None]), None);
        let refused = |reason: &str| {
            refusals(&status(serde_json::json!({ "refusals": [{ "reason": reason, "count": 2 }] })))
        };
        assert_eq!(refused("garbage"), None, "anybody may cause it");
        assert!(refused("configuration_mismatch").unwrap().found.contains("2 for"));
    }
}
