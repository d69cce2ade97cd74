//! The metrics: name, kind, labels, the field of `hybster status` they show, and what they mean.

use hybster::Status;
use hybster::runtime::{AgentStatus, DiskStatus, PeerStatus, PillarStatus, RejectionCount};

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Grows until the replica ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; its labels say something.
    Info,
}

/// In what a value is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// As it is.
    One,
    /// The field has microseconds, the metric seconds.
    Seconds,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// Without the prefix, and without the ending that its kind adds.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
    pub(crate) labels: &'static [&'static str],
    /// Where `hybster status --json` has it, below `replicas[].status`.
    #[cfg_attr(not(test), expect(dead_code, reason = "the document has it"))]
    pub(crate) field: &'static str,
    pub(crate) help: &'static str,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Status(fn(&Status) -> Vec<Sample>),
    Ready,
}

/// One value of a metric.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: u64,
}

impl Metric {
    /// Its values; none if there is nothing to tell.
    pub(crate) fn samples(&self, status: Option<&Status>, ready: bool) -> Vec<Sample> {
        match (self.source, status) {
            (Source::Ready, _) => one(ready.into()),
            (Source::Status(samples), Some(status)) => samples(status),
            (Source::Status(_), None) => Vec::new(),
        }
    }

    /// The name that Prometheus knows.
    #[cfg(test)]
    pub(crate) fn full_name(&self) -> String {
        let ending = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge => "",
        };
        format!("{}_{}{ending}", super::PREFIX, self.name)
    }

    const fn labelled(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    const fn seconds(mut self) -> Self {
        self.unit = Unit::Seconds;
        self
    }
}

/// All metrics, in the order in which they are written.
pub(crate) static METRICS: &[Metric] = &[
    Metric {
        source: Source::Status(info),
        ..metric(
            Kind::Info,
            "replica",
            "replica, group, service, service_version, version, layout, transport, disk.durability",
            "what runs: number, group, service and its version, layout, transport, durability and version",
        )
    }
    .labelled(&["replica", "group", "service", "service_version", "layout", "transport", "durability", "version"]),
    metric(Kind::Gauge, "ready", "", "1 if `/ready` says yes"),
    gauge(
        "uptime_seconds",
        "uptime_us",
        "time since the replica was started",
        |s| one(s.uptime_us),
    )
    .seconds(),
    gauge(
        "clock_seconds",
        "clock_ms",
        "the replica's clock, in seconds since 1970: compare it with those of the others",
        |s| one(s.clock_ms.saturating_mul(1000)),
    )
    .seconds(),
    gauge("view", "view", "the last stable view", |s| one(s.view)),
    gauge(
        "current_view",
        "current_view",
        "the current view; larger than the stable one during a view change",
        |s| one(s.current_view),
    ),
    gauge("leader", "leader", "the leader of the stable view", |s| one(s.leader.into())),
    counter("views_entered", "views_entered", "views that the replica has entered", |s| {
        one(s.views_entered)
    }),
    gauge("executed_order", "executed", "the order number that was executed last", |s| {
        one(s.executed)
    }),
    gauge(
        "stable_checkpoint_order",
        "stable_checkpoint",
        "order number of the last stable checkpoint",
        |s| one(s.stable_checkpoint),
    ),
    gauge("transferring", "transferring", "1 while a state is being transferred", |s| {
        one(s.transferring.into())
    }),
    counter("transfers", "transfers", "states that were transferred", |s| one(s.transfers)),
    gauge(
        "diverged",
        "diverged",
        "1 while a state that differs from the others' is being repaired",
        |s| one(s.diverged.into()),
    ),
    counter(
        "divergences",
        "divergences",
        "how often the replica's state was found to differ",
        |s| one(s.divergences),
    ),
    gauge(
        "halted",
        "halted",
        "1 if the replicas' states differ so that nothing can be ordered any more",
        |s| one(s.halted.into()),
    ),
    gauge("snapshots", "snapshots", "snapshots held for checkpoints", |s| one(s.snapshots)),
    counter("requests", "requests", "requests that ran", |s| one(s.requests)),
    counter(
        "duplicate_requests",
        "duplicates",
        "requests that were ordered again and did not run",
        |s| one(s.duplicates),
    ),
    counter("batches", "batches", "batches with requests", |s| one(s.batches)),
    counter("noops", "noops", "order numbers covered by no-ops", |s| one(s.noops)),
    gauge("sessions", "sessions", "sessions in the table", |s| one(s.sessions)),
    gauge("execution_queue", "execution_queue", "committed slots that wait for others", |s| {
        one(s.execution_queue)
    }),
    gauge("pending_bytes", "pending_bytes", "bytes of requests that wait to be proposed", |s| {
        one(s.pending_bytes)
    }),
    gauge("stored_requests", "stored_requests", "requests under watch at a follower", |s| {
        one(s.stored_requests)
    }),
    gauge("client_links", "client_links", "live links of clients", |s| one(s.client_links)),
    counter(
        "lost_replies",
        "lost_replies",
        "replies whose client had gone, and replies that could not be relayed",
        |s| one(s.lost_replies),
    ),
    counter("relayed_replies", "relayed_replies", "replies that went through the leader", |s| {
        one(s.relayed_replies)
    }),
    counter(
        "dropped_sends",
        "dropped_sends",
        "messages to peers that found no room or no link",
        |s| one(s.dropped_sends),
    ),
    counter(
        "rejected_messages",
        "rejections[].from, rejections[].kind, rejections[].reason, rejections[].count",
        "messages dropped because of what is in them; `from` is a replica, or `clients`",
        rejections,
    )
    .labelled(&["from", "message", "reason"]),
    counter(
        "refused_links",
        "refusals[].reason, refusals[].count",
        "connections that were refused or closed, by reason",
        |s| each(&s.refusals, "reason", |it| it.reason.clone(), |it| it.count),
    )
    .labelled(&["reason"]),
    gauge(
        "pillar_prepared_order",
        "pillars[].pillar, pillars[].prepared",
        "the order number to certify next",
        |s| pillars(s, |it| it.prepared),
    )
    .labelled(&["pillar"]),
    gauge(
        "pillar_committed_order",
        "pillars[].committed",
        "the order number to commit next",
        |s| pillars(s, |it| it.committed),
    )
    .labelled(&["pillar"]),
    gauge(
        "pillar_window_base_order",
        "pillars[].window_base",
        "where the pillar's window starts",
        |s| pillars(s, |it| it.window_base),
    )
    .labelled(&["pillar"]),
    gauge("peer_up", "peers[].replica, peers[].up", "1 if the link to the peer is up", |s| {
        peers(s, |it| it.up.into())
    })
    .labelled(&["peer"]),
    gauge("peer_queued_bytes", "peers[].queued_bytes", "bytes that wait for the peer", |s| {
        peers(s, |it| it.queued_bytes)
    })
    .labelled(&["peer"]),
    counter(
        "peer_throttled_messages",
        "peers[].throttled",
        "messages of the peer dropped, as it sent more than a correct replica has in flight",
        |s| peers(s, |it| it.throttled),
    )
    .labelled(&["peer"]),
    counter(
        "peer_differed_checkpoints",
        "peers[].differed",
        "checkpoints at which the peer vouched for another state",
        |s| peers(s, |it| it.differed),
    )
    .labelled(&["peer"]),
    counter("received_frames", "traffic.frames_in", "frames received", |s| {
        one(s.traffic.frames_in)
    }),
    counter("received_messages", "traffic.messages_in", "messages in those frames", |s| {
        one(s.traffic.messages_in)
    }),
    counter("received_bytes", "traffic.bytes_in", "bytes of those messages", |s| {
        one(s.traffic.bytes_in)
    }),
    counter("sent_frames", "traffic.frames_out", "frames sent", |s| one(s.traffic.frames_out)),
    counter("sent_messages", "traffic.messages_out", "messages in those frames", |s| {
        one(s.traffic.messages_out)
    }),
    counter("sent_bytes", "traffic.bytes_out", "bytes of those messages", |s| {
        one(s.traffic.bytes_out)
    }),
    counter(
        "withdrawn_messages",
        "traffic.withdrawn",
        "messages withdrawn before they were sent",
        |s| one(s.traffic.withdrawn),
    ),
    counter(
        "duplicate_messages",
        "traffic.duplicates",
        "messages not sent again because an equal one was waiting",
        |s| one(s.traffic.duplicates),
    ),
    counter(
        "paced_messages",
        "traffic.paced",
        "messages not sent again because an earlier copy was on its way",
        |s| one(s.traffic.paced),
    ),
    counter("log_bytes", "disk.log_bytes", "bytes of records in the log since it was made", |s| {
        disk(s, |it| it.log_bytes)
    }),
    gauge("log_behind_bytes", "disk.log_behind", "of these, bytes that are not on disk yet", |s| {
        disk(s, |it| it.log_behind)
    }),
    counter("log_syncs", "disk.syncs", "syncs of the log since the start", |s| {
        disk(s, |it| it.syncs)
    }),
    gauge(
        "log_sync_seconds",
        "disk.sync_p50_us, disk.sync_p99_us, disk.sync_longest_us",
        "how long syncs took since the start; percentile 100 is the longest",
        syncs,
    )
    .labelled(&["percentile"])
    .seconds(),
    counter(
        "log_written_bytes",
        "disk.written_bytes",
        "bytes written to the log since the start",
        |s| disk(s, |it| it.written_bytes),
    ),
    counter(
        "log_waits",
        "disk.waits",
        "times that a stage had to wait for the disk, as the log's buffer was full",
        |s| disk(s, |it| it.waits),
    ),
    gauge("log_held_outputs", "disk.held", "outputs that wait for the log", |s| {
        disk(s, |it| it.held)
    }),
    gauge(
        "disk_checkpoint_order",
        "disk.checkpoint",
        "order number of the last checkpoint on disk",
        |s| disk(s, |it| it.checkpoint),
    ),
    gauge(
        "disk_short",
        "disk.is_short",
        "1 if the disk has no more room for the log than it has taken",
        |s| disk(s, |it| it.is_short.into()),
    ),
    gauge(
        "log_room_bytes",
        "disk.room",
        "bytes that the log has taken from the disk and not yet written",
        |s| disk(s, |it| it.room),
    ),
    gauge(
        "disk_holds_clients",
        "disk.holds_clients",
        "1 while clients are refused because the disk is short of room",
        |s| disk(s, |it| it.holds_clients.into()),
    ),
    counter(
        "agent_inputs",
        "agents[].name, agents[].inputs",
        "inputs handled by the thread",
        |s| agents(s, |it| it.inputs),
    )
    .labelled(&["agent"]),
    counter("agent_turns", "agents[].turns", "turns of its loop", |s| agents(s, |it| it.turns))
        .labelled(&["agent"]),
    counter("agent_sleeps", "agents[].sleeps", "times that it went to sleep", |s| {
        agents(s, |it| it.sleeps)
    })
    .labelled(&["agent"]),
    gauge(
        "agent_queued_inputs",
        "agents[].queued",
        "inputs that wait for room in other threads' queues",
        |s| agents(s, |it| it.queued),
    )
    .labelled(&["agent"]),
    counter(
        "agent_congested_turns",
        "agents[].congested",
        "turns that ended with such inputs",
        |s| agents(s, |it| it.congested),
    )
    .labelled(&["agent"]),
];

/// Fields of `hybster status` that are no metrics, and why.
#[cfg(test)]
pub(crate) static LEFT_OUT: &[(&str, &str)] = &[
    ("replicated", "known from the configuration"),
    ("rejected", "the sum of what is counted by sender, kind and reason"),
    ("agents[].stages", "known from the layout"),
    ("agents[].core", "known from the configuration"),
];

type Samples = fn(&Status) -> Vec<Sample>;

const fn metric(kind: Kind, name: &'static str, field: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, unit: Unit::One, labels: &[], field, help, source: Source::Ready }
}

const fn gauge(
    name: &'static str,
    field: &'static str,
    help: &'static str,
    samples: Samples,
) -> Metric {
    Metric { source: Source::Status(samples), ..metric(Kind::Gauge, name, field, help) }
}

const fn counter(
    name: &'static str,
    field: &'static str,
    help: &'static str,
    samples: Samples,
) -> Metric {
    Metric { source: Source::Status(samples), ..metric(Kind::Counter, name, field, help) }
}

fn one(value: u64) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value }]
}

fn each<T>(
    items: &[T],
    label: &'static str,
    name: impl Fn(&T) -> String,
    value: impl Fn(&T) -> u64,
) -> Vec<Sample> {
    let sample = |item| Sample { labels: vec![(label, name(item))], value: value(item) };
    items.iter().map(sample).collect()
}

fn pillars(status: &Status, value: impl Fn(&PillarStatus) -> u64) -> Vec<Sample> {
    each(&status.pillars, "pillar", |it| it.pillar.to_string(), value)
}

fn peers(status: &Status, value: impl Fn(&PeerStatus) -> u64) -> Vec<Sample> {
    each(&status.peers, "peer", |it| it.replica.to_string(), value)
}

fn agents(status: &Status, value: impl Fn(&AgentStatus) -> u64) -> Vec<Sample> {
    each(&status.agents, "agent", |it| it.name.clone(), value)
}

/// Nothing for a replica that keeps nothing on a disk.
fn disk(status: &Status, value: impl Fn(&DiskStatus) -> u64) -> Vec<Sample> {
    status.disk.as_ref().map_or(Vec::new(), |disk| one(value(disk)))
}

fn info(status: &Status) -> Vec<Sample> {
    let durability = status.disk.as_ref().map_or("none", |disk| disk.durability.as_str());
    let labels = vec![
        ("replica", status.replica.to_string()),
        ("group", status.group.clone()),
        ("service", status.service.clone()),
        ("service_version", status.service_version.to_string()),
        ("layout", status.layout.clone()),
        ("transport", status.transport.clone()),
        ("durability", durability.to_owned()),
        ("version", status.version.clone()),
    ];
    vec![Sample { labels, value: 1 }]
}

fn rejections(status: &Status) -> Vec<Sample> {
    let sample = |it: &RejectionCount| Sample {
        labels: vec![
            ("from", it.from.map_or("clients".to_owned(), |from| from.to_string())),
            ("message", hybster_sim::display::kind_name(it.kind).to_owned()),
            ("reason", it.reason.clone()),
        ],
        value: it.count,
    };
    status.rejections.iter().map(sample).collect()
}

fn syncs(status: &Status) -> Vec<Sample> {
    let Some(disk) = &status.disk else {
        return Vec::new();
    };
    let percentiles =
        [("50", disk.sync_p50_us), ("99", disk.sync_p99_us), ("100", disk.sync_longest_us)];
    let sample = |(percentile, value): (&str, u64)| Sample {
        labels: vec![("percentile", percentile.to_owned())],
        value,
    };
    percentiles.into_iter().map(sample).collect()
}
