//! A replica's status, as `hybster status` prints and the benchmark records it.

use serde::{Deserialize, Serialize};

/// A snapshot of a replica's counters. Its parts were read one after the other, so they may be some
/// microseconds apart.
///
/// ```
/// # use hybster::services::CounterService;
/// # use hybster::testing::LocalCluster;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cluster = LocalCluster::start(CounterService::new)?;
/// # cluster.client()?;
/// # let replica = cluster.leader();
/// // Of a `RunningReplica` or its `Stopper`, or as here of a replica in a test.
/// let status = cluster.status(replica).ok_or("it was stopped")?;
/// println!("in view {}, up to order number {}", status.view, status.executed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Status {
    /// The replica.
    pub replica: u16,
    /// The group's identifier.
    pub group: String,
    /// False for an unreplicated server.
    pub replicated: bool,
    /// Microseconds since the replica was started.
    pub uptime_us: u64,
    /// The replica's clock when the counters were read, in milliseconds since 1970 (UTC).
    pub clock_ms: u64,
    /// The version of the engine.
    pub version: String,
    /// The name of the service; empty if it has none.
    pub service: String,
    /// The version of the service; 0 if it does not say what it is.
    pub service_version: u32,
    /// The last stable view, v_stab.
    pub view: u64,
    /// The current view, v_cur; larger while a view change is under way.
    pub current_view: u64,
    /// The leader of the stable view.
    pub leader: u16,
    /// Order number of the last stable checkpoint.
    pub stable_checkpoint: u64,
    /// Whether a state transfer is under way.
    pub transferring: bool,
    /// Whether the replica's own state diverged and is being repaired.
    pub diverged: bool,
    /// How often the replica's own state was found to differ from what f+1 others vouch for.
    pub divergences: u64,
    /// Whether the replicas' states differ so that nothing can be ordered any more.
    pub halted: bool,
    /// Views entered so far.
    pub views_entered: u64,
    /// States that were transferred so far.
    pub transfers: u64,
    /// Snapshots held for checkpoints.
    pub snapshots: u64,
    /// The order number that was executed last.
    pub executed: u64,
    /// Requests that ran.
    pub requests: u64,
    /// Requests that were ordered again and did not run.
    pub duplicates: u64,
    /// Batches with requests.
    pub batches: u64,
    /// Order numbers covered by no-ops.
    pub noops: u64,
    /// Sessions in the table.
    pub sessions: u64,
    /// Committed slots that wait for others.
    pub execution_queue: u64,
    /// Bytes of requests that wait to be proposed.
    pub pending_bytes: u64,
    /// Requests under watch at a follower.
    pub stored_requests: u64,
    /// Live links of clients.
    pub client_links: u64,
    /// Replies whose client had gone, and replies of others that this replica could not relay.
    pub lost_replies: u64,
    /// Replies that went through the leader.
    pub relayed_replies: u64,
    /// Messages to peers that found no room or no link.
    pub dropped_sends: u64,
    /// Messages dropped because of what is in them, over all kinds, senders and reasons.
    pub rejected: u64,
    /// The pillars.
    pub pillars: Vec<PillarStatus>,
    /// The other replicas.
    pub peers: Vec<PeerStatus>,
    /// Messages dropped because of what is in them.
    pub rejections: Vec<RejectionCount>,
    /// Connections that were refused or closed because of what the other side did.
    pub refusals: Vec<RefusalCount>,
    /// Traffic over all links.
    pub traffic: TrafficStatus,
    /// The disk, if the replica keeps anything on one.
    pub disk: Option<DiskStatus>,
    /// The layout in use: `fused` or `split`.
    pub layout: String,
    /// The transport in use: `io-uring` or `epoll`.
    pub transport: String,
    /// The threads.
    pub agents: Vec<AgentStatus>,
}

/// What a replica has on its disk: a part of [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DiskStatus {
    /// `sync` or `async`.
    pub durability: String,
    /// Bytes of records in the log since it was made, those that were removed included.
    pub log_bytes: u64,
    /// Of these, bytes that are not on disk yet.
    pub log_behind: u64,
    /// Syncs of the log since the start.
    pub syncs: u64,
    /// What half of these syncs took no longer than, in microseconds.
    pub sync_p50_us: u64,
    /// What 99 of 100 syncs took no longer than, in microseconds.
    pub sync_p99_us: u64,
    /// What the longest sync took, in microseconds.
    pub sync_longest_us: u64,
    /// Bytes written to the log since the start.
    pub written_bytes: u64,
    /// How often a stage had to wait for the disk, because the log's buffer was full.
    pub waits: u64,
    /// Outputs that wait for the log.
    pub held: u64,
    /// Order number of the last checkpoint on disk.
    pub checkpoint: u64,
    /// Whether the disk has no more room for the log than it has taken.
    pub is_short: bool,
    /// Bytes that the log has taken from the disk and not yet written.
    pub room: u64,
    /// Whether clients are refused because the disk is short of room.
    pub holds_clients: bool,
}

/// A pillar's part of [`Status`], in order numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PillarStatus {
    /// The pillar.
    pub pillar: u16,
    /// The order number to certify next.
    pub prepared: u64,
    /// The order number to commit next.
    pub committed: u64,
    /// Where its window starts.
    pub window_base: u64,
}

/// A peer's part of [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The peer.
    pub replica: u16,
    /// Whether the link to it is up.
    pub up: bool,
    /// Bytes that wait for it.
    pub queued_bytes: u64,
    /// Messages of it that were dropped: it sent more than a correct replica has in flight.
    pub throttled: u64,
    /// Checkpoints at which it vouched for another state than this replica has.
    pub differed: u64,
}

/// How often messages of one kind from one sender were dropped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RejectionCount {
    /// The replica; `None` for all clients together.
    pub from: Option<u16>,
    /// The message's kind byte; 0 for unknown kinds.
    pub kind: u8,
    /// The reason's name.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// How often connections were refused for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusalCount {
    /// The reason's name.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// Traffic over all links since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TrafficStatus {
    /// Frames received.
    pub frames_in: u64,
    /// Messages in them.
    pub messages_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Messages in them.
    pub messages_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Messages withdrawn before they were sent.
    pub withdrawn: u64,
    /// Messages not sent again because an equal one was waiting.
    #[serde(default)]
    pub duplicates: u64,
    /// Messages not sent again because an earlier copy was on its way.
    #[serde(default)]
    pub paced: u64,
}

/// A thread's part of [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AgentStatus {
    /// Its name.
    pub name: String,
    /// Its stages.
    pub stages: Vec<String>,
    /// The core that it is pinned to.
    pub core: Option<usize>,
    /// Inputs handled.
    pub inputs: u64,
    /// Turns of its loop.
    pub turns: u64,
    /// Times that it went to sleep.
    pub sleeps: u64,
    /// Inputs that wait for room in other agents' queues.
    pub queued: u64,
    /// Turns that ended with such inputs.
    pub congested: u64,
}

impl Status {
    /// Mean number of requests per batch since an earlier status; `None` if there was no batch.
    #[must_use]
    pub fn requests_per_batch_since(&self, earlier: &Self) -> Option<f64> {
        let batches = self.batches.checked_sub(earlier.batches).filter(|count| *count > 0)?;
        let requests =
            (self.requests + self.duplicates).checked_sub(earlier.requests + earlier.duplicates)?;
        Some(requests as f64 / batches as f64)
    }
}
