//! `hybster replica --metrics`: what monitoring asks a replica, over HTTP on an address of its own.
//!
//! `/metrics` has the counters that `hybster status` shows, in the text format of Prometheus; `/ready`
//! says whether the replica takes part in the group's work, `/health` whether it runs. Nothing is
//! collected in advance: the counters are read when somebody asks, so the replica's threads do no more
//! than without it. `tools/METRICS.md` is the contract.
//!
//! `prometheus-client` writes the format: it is the client of the Prometheus project itself. Its own
//! counters are not used, as the replica has them already.

mod ready;
mod server;
mod table;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hybster::{Status, Stopper};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use serde::Serialize;

use ready::why_not_ready;
use server::{Answer, Server, ServerError};
use table::{Kind, METRICS, Metric, Unit};

/// The beginning of every metric's name.
pub(crate) const PREFIX: &str = "hybster";

/// Answers monitoring for as long as it lives.
#[derive(Debug)]
pub(crate) struct Monitoring {
    replica: Arc<Mutex<Option<Watched>>>,
    _server: Server,
}

/// A replica that has started.
#[derive(Debug)]
struct Watched {
    replica: Stopper,
    /// Peers whose links must be up, so that they and the replica are a quorum.
    peers_needed: usize,
}

impl Monitoring {
    /// Listens. Until [`Monitoring::watch`] is called, the replica counts as starting.
    ///
    /// # Errors
    /// If the address cannot be listened on. Call this before the replica starts: then nothing is lost.
    pub(crate) fn listen(address: SocketAddr, id: u16) -> Result<Self, ServerError> {
        let replica = Arc::new(Mutex::new(None));
        let watched = Arc::clone(&replica);
        let server = Server::start(address, move |path| {
            let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
            answer(path, id, watched.as_ref())
        })?;
        log::info!("metrics are at http://{}/metrics", server.address());
        Ok(Self { replica, _server: server })
    }

    /// From now on there is a replica to tell of: the first one, or the same in another epoch.
    pub(crate) fn watch(&self, replica: Stopper, peers_needed: usize) {
        let mut watched = self.replica.lock().unwrap_or_else(PoisonError::into_inner);
        *watched = Some(Watched { replica, peers_needed });
    }
}

/// What `/health` and `/ready` say.
#[derive(Debug, Serialize)]
struct Verdict {
    replica: u16,
    ok: bool,
    /// Why not, in words.
    reasons: Vec<String>,
}

fn answer(path: &str, id: u16, watched: Option<&Watched>) -> Option<Answer> {
    // One reading of the counters for each answer.
    let seen = watched.map(|it| (it.replica.status(), it.peers_needed, !it.replica.is_running()));
    let verdict = |reasons: Vec<String>| {
        let verdict = Verdict { replica: id, ok: reasons.is_empty(), reasons };
        let body = serde_json::to_string(&verdict).unwrap_or_default() + "\n";
        let status = if verdict.ok { 200 } else { 503 };
        Answer { status, content_type: "application/json", body }
    };
    let stops = matches!(seen, Some((_, _, true)));
    let not_ready = || match &seen {
        None => vec!["the replica is starting".to_owned()],
        Some(_) if stops => vec!["the replica stops".to_owned()],
        Some((status, peers_needed, _)) => why_not_ready(status, *peers_needed),
    };
    Some(match path {
        "/metrics" => Answer {
            status: 200,
            content_type: prometheus_text::CONTENT_TYPE,
            body: exposition(seen.as_ref().map(|seen| &seen.0), not_ready().is_empty()),
        },
        "/ready" => verdict(not_ready()),
        // What starts is well: recovery may take long, and nobody must end it for that.
        "/health" if stops => verdict(vec!["the replica stops".to_owned()]),
        "/health" => verdict(Vec::new()),
        _ => return None,
    })
}

/// All metrics of a status as text; without a status, only that the replica is not ready.
fn exposition(status: Option<&Status>, ready: bool) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Snapshot { status: status.cloned(), ready }));
    let mut text = String::new();
    // Writing into a string does not fail, and the table has only what the format can say.
    if let Err(error) = prometheus_text::encode(&mut text, &registry) {
        log::error!("the metrics cannot be written: {error}");
    }
    text
}

#[derive(Debug)]
struct Snapshot {
    status: Option<Status>,
    ready: bool,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in METRICS {
            let samples = metric.samples(self.status.as_ref(), self.ready);
            if samples.is_empty() {
                continue;
            }
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Info => MetricType::Info,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for sample in &samples {
                match metric.kind {
                    // The labels are the information.
                    Kind::Info => family.encode_info(&sample.labels)?,
                    _ => encode(family.encode_family(&sample.labels)?, metric, sample.value)?,
                }
            }
        }
        Ok(())
    }
}

fn encode(mut encoder: MetricEncoder<'_>, metric: &Metric, value: u64) -> Result<(), fmt::Error> {
    match (metric.kind, metric.unit) {
        (Kind::Counter, _) => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        (_, Unit::Seconds) => encoder.encode_gauge(&(value as f64 / 1e6)),
        (_, Unit::One) => encoder.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use super::*;
    use crate::document;

    fn full() -> Status {
        serde_json::from_value(serde_json::json!({
            "replica": 2, "group": "ab\"c", "replicated": true, "uptime_us": 1_500_000, "view": 3, "current_view": 4,
            "requests": u64::MAX, "layout": "split", "transport": "epoll",
            "pillars": [{ "pillar": 0, "prepared": 7 }, { "pillar": 1, "prepared": 8 }],
            "peers": [{ "replica": 0, "up": true, "throttled": 5 }],
            "rejections": [{ "from": null, "kind": 1, "reason": "BadRequest", "count": 9 },
                { "from": 1, "kind": 4, "reason": "Irrelevant", "count": 2 }],
            "refusals": [{ "reason": "garbage", "count": 3 }],
            "disk": { "durability": "sync", "sync_p50_us": 250, "sync_longest_us": 2_000_000 },
            "agents": [{ "name": "net", "inputs": 11 }],
        }))
        .unwrap()
    }

    #[test]
    fn values_have_the_names_labels_and_units_of_prometheus() {
        let text = exposition(Some(&full()), true);
        for line in [
            "# TYPE hybster_view gauge",
            "hybster_view 3",
            "hybster_ready 1",
            "hybster_uptime_seconds 1.5",
            "# TYPE hybster_requests_total counter",
            "hybster_requests_total 18446744073709551615",
            "hybster_pillar_prepared_order{pillar=\"1\"} 8",
            "hybster_peer_up{peer=\"0\"} 1",
            "hybster_rejected_messages_total{from=\"clients\",message=\"REQUESTS\",reason=\"BadRequest\"} 9",
            "hybster_rejected_messages_total{from=\"1\",message=\"COMMIT\",reason=\"Irrelevant\"} 2",
            "hybster_refused_links_total{reason=\"garbage\"} 3",
            "hybster_log_sync_seconds{percentile=\"50\"} 0.00025",
            "hybster_log_sync_seconds{percentile=\"100\"} 2.0",
            "hybster_agent_inputs_total{agent=\"net\"} 11",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("group=\"ab\\\"c\""), "{text}");
        let starting = exposition(None, false);
        assert!(starting.contains("hybster_ready 0") && !starting.contains("hybster_view"));
    }

    #[test]
    fn what_answers_depends_on_the_path() {
        assert_eq!(answer("/health", 1, None).map(|it| it.status), Some(200));
        let ready = answer("/ready", 1, None).unwrap();
        assert_eq!(ready.status, 503);
        assert!(ready.body.contains("starting") && ready.body.contains("\"replica\":1"));
        assert!(answer("/metrics", 1, None).unwrap().body.contains("hybster_ready 0"));
        assert!(answer("/", 1, None).is_none() && answer("/metrics/", 1, None).is_none());
    }

    #[test]
    fn the_document_has_the_table_of_the_code() {
        let mut table = String::new();
        for metric in METRICS {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Info => "info",
            };
            let labels: Vec<String> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
            let field = match metric.field {
                "" => String::new(),
                field => format!("`{field}`"),
            };
            let _ = writeln!(
                table,
                "| `{}` | {kind} | {} | {field} | {} |",
                metric.full_name(),
                labels.join(", "),
                metric.help
            );
        }
        document::has_part("METRICS.md", "metrics", &table);
    }

    /// Whatever `hybster status` shows is a metric, or said to be none.
    #[test]
    fn every_field_of_the_status_is_a_metric_or_left_out_for_a_reason() {
        let documented: BTreeSet<&str> = include_str!("../STATUS.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `replicas[].status.")?.split('`').next())
            .collect();
        let shown: BTreeSet<&str> =
            METRICS.iter().flat_map(|metric| metric.field.split(", ")).collect();
        let left_out: BTreeSet<&str> = table::LEFT_OUT.iter().map(|(field, _)| *field).collect();
        for field in &documented {
            assert!(
                shown.contains(field) != left_out.contains(field),
                "{field}: a metric, or in LEFT_OUT with the reason"
            );
        }
        for field in shown.union(&left_out).filter(|field| !field.is_empty()) {
            assert!(documented.contains(field), "STATUS.md has no {field}");
        }
    }
}
