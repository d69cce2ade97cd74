//! The report of a run.

use std::collections::BTreeMap;
use std::fmt;

use hybster_proto::ids::View;
use hybster_proto::notice::Notice;
use hybster_proto::output::Reject;

use crate::display::kind_name;
use crate::oracle::Violation;

/// A NEW-VIEW that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewViewSeen {
    /// The view.
    pub view: View,
    /// The v_from of the VIEW-CHANGEs in it, by sender.
    pub from: Vec<(u16, View)>,
    /// Senders of the NEW-VIEW-ACKs in it.
    pub acks: Vec<u16>,
    /// Re-issued PREPAREs per pillar.
    pub reissued: Vec<usize>,
}

/// What happened in a run.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Steps of the event loop.
    pub steps: u64,
    /// Inputs that stages handled.
    pub inputs: u64,
    /// Messages sent, by kind byte.
    pub sent: BTreeMap<u8, u64>,
    /// Bytes of the FETCHED messages among them.
    pub fetched_bytes: u64,
    /// Messages dropped by a core, by kind byte and reason.
    pub rejected: BTreeMap<(u8, Reject), u64>,
    /// Branches of the protocol that were taken: those of [`crate::coverage::BRANCHES`].
    pub branches: BTreeMap<&'static str, u64>,
    /// Operations that clients submitted.
    pub submitted: u64,
    /// Operations that were answered.
    pub answered: u64,
    /// Operations that were answered before the faults ended.
    pub answered_before: u64,
    /// Operations whose number a copy of their client had used.
    pub numbers_taken: u64,
    /// Operations whose result was not kept until their client asked again.
    pub results_gone: u64,
    /// Requests that ended as f+1 replicas' disks were full.
    pub refused_by_disks: u64,
    /// Operations that ended as the replicas' states differ.
    pub states_differ: u64,
    /// What replicas told their operators about states that differ, by replica.
    pub differences: BTreeMap<u16, Vec<Notice>>,
    /// Links of clients that replicas closed for what is in their requests.
    pub clients_expelled: u64,
    /// Times that a replica began an epoch.
    pub epochs_begun: u64,
    /// Times that a peer was told that its epoch is over.
    pub epochs_told: u64,
    /// The highest view that a replica entered.
    pub view: u64,
    /// Views entered, over all replicas.
    pub views_entered: u64,
    /// NEW-VIEWs accepted after the replica had left for a later view.
    pub belated_views: u64,
    /// NEW-VIEW-ACKs sent.
    pub acks: u64,
    /// Stable checkpoints, over all replicas.
    pub checkpoints: u64,
    /// States installed, over all replicas.
    pub transfers: u64,
    /// Proposals of batches.
    pub proposals: u64,
    /// Proposals of no-ops.
    pub noops: u64,
    /// The highest executed order number.
    pub orders: u64,
    /// Inputs that waited in one queue of a replica, at most.
    pub peak_inputs: u64,
    /// Messages that a link held back, at most.
    pub peak_held: u64,
    /// Messages that replicas withdrew before they left.
    pub withdrawn: u64,
    /// Messages not sent again because an equal one was waiting.
    pub duplicates: u64,
    /// Messages that were not taken in, as their sender had too many in flight.
    pub throttled: u64,
    /// Times that a replica was stopped, to be started again from its disk.
    pub restarts: u64,
    /// Times that the beginning of a log was removed.
    pub truncations: u64,
    /// Times that a replica stopped as its log could not be synced.
    pub failed_syncs: u64,
    /// Times that a replica stopped as its log was used up.
    pub used_up_logs: u64,
    /// Replicas whose log was refused at their start, as it was damaged.
    pub damaged_logs: u64,
    /// Replicas that found that they had an older copy of their log, and stopped.
    pub older_copies: u64,
    /// Times that a replica stopped reading clients, as its disk was full.
    pub full_disks: u64,
    /// How often a replica stopped reading from a client.
    pub paused_clients: u64,
    /// Replies that a client's link had no room for at all.
    pub refused_replies: u64,
    /// Turns at whose end replies waited for room on their links.
    pub turns_with_waiting_replies: u64,
    /// Messages not sent again because an earlier copy was on its way.
    pub paced: u64,
    /// Timers that were still due after they had been handled.
    pub hot_timers: u64,
    /// Replicas that had left the view of the others, at the end.
    pub alone_at_end: u64,
    /// Order numbers that the last live correct replica is behind the first, at the end.
    pub lag_at_end: u64,
}

/// The result of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// The scenario's seed.
    pub seed: u64,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// The last events of the replicas concerned, in words; empty if all is well.
    pub last_events: Vec<String>,
    /// The whole run in words, if asked for.
    pub trace: Vec<String>,
    /// The protocol events as a trace file (`engine/proto/TRACE.md`), if asked for.
    pub recording: Option<Vec<u8>>,
    /// What happened.
    pub counters: Counters,
    /// NEW-VIEWs, in the order they were first sent.
    pub new_views: Vec<NewViewSeen>,
    /// Simulated time when the run ended.
    pub ended_us: u64,
    /// Equal for equal runs.
    pub hash: u64,
    /// Bytes that each host sent: replicas first, then clients.
    pub sent_bytes: Vec<u64>,
    /// When transferred states were installed, in microseconds.
    pub installed_us: Vec<u64>,
    /// The latencies of answered operations, in microseconds.
    pub latencies_us: Vec<u64>,
    /// What each replica executed last.
    pub frontiers: Vec<u64>,
    /// Per executed batch when it ran first, in microseconds of the run, and its agreed time.
    pub times: Vec<(u64, u64)>,
}

impl Report {
    /// The report of a run that ended before it could make one.
    pub(crate) fn broken(seed: u64, violation: Violation) -> Self {
        Self {
            name: "random".into(),
            seed,
            violation: Some(violation),
            last_events: Vec::new(),
            trace: Vec::new(),
            counters: Counters::default(),
            new_views: Vec::new(),
            ended_us: 0,
            hash: 0,
            sent_bytes: Vec::new(),
            installed_us: Vec::new(),
            latencies_us: Vec::new(),
            frontiers: Vec::new(),
            times: Vec::new(),
            recording: None,
        }
    }

    /// Fails with the whole story if a property did not hold.
    ///
    /// # Panics
    /// If there is a violation.
    pub fn assert_good(&self) -> &Self {
        assert!(self.violation.is_none(), "{self}");
        self
    }

    /// The median latency of answered operations.
    #[must_use]
    pub fn median_latency_us(&self) -> u64 {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }
}

impl Counters {
    /// Adds the counters of another run; views, orders and peaks become maxima.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.inputs += other.inputs;
        for (kind, count) in &other.sent {
            *self.sent.entry(*kind).or_default() += count;
        }
        self.fetched_bytes += other.fetched_bytes;
        for (reason, count) in &other.rejected {
            *self.rejected.entry(*reason).or_default() += count;
        }
        for (branch, count) in &other.branches {
            *self.branches.entry(branch).or_default() += count;
        }
        self.submitted += other.submitted;
        self.answered += other.answered;
        self.numbers_taken += other.numbers_taken;
        self.results_gone += other.results_gone;
        self.refused_by_disks += other.refused_by_disks;
        self.epochs_begun += other.epochs_begun;
        self.epochs_told += other.epochs_told;
        self.view = self.view.max(other.view);
        self.views_entered += other.views_entered;
        self.belated_views += other.belated_views;
        self.acks += other.acks;
        self.checkpoints += other.checkpoints;
        self.transfers += other.transfers;
        self.proposals += other.proposals;
        self.noops += other.noops;
        self.orders = self.orders.max(other.orders);
        self.peak_inputs = self.peak_inputs.max(other.peak_inputs);
        self.peak_held = self.peak_held.max(other.peak_held);
        self.withdrawn += other.withdrawn;
        self.duplicates += other.duplicates;
        self.throttled += other.throttled;
        self.restarts += other.restarts;
        self.truncations += other.truncations;
        self.full_disks += other.full_disks;
        self.older_copies += other.older_copies;
        self.failed_syncs += other.failed_syncs;
        self.used_up_logs += other.used_up_logs;
        self.damaged_logs += other.damaged_logs;
        self.paused_clients += other.paused_clients;
        self.refused_replies += other.refused_replies;
        self.turns_with_waiting_replies += other.turns_with_waiting_replies;
        self.paced += other.paced;
        self.hot_timers += other.hot_timers;
        self.alone_at_end += other.alone_at_end;
        self.lag_at_end = self.lag_at_end.max(other.lag_at_end);
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  steps {}, inputs {}, operations {} of {}, orders {}, proposals {}, no-ops {}",
            self.steps,
            self.inputs,
            self.answered,
            self.submitted,
            self.orders,
            self.proposals,
            self.noops
        )?;
        writeln!(
            f,
            "  highest view {}, views entered {} (belated {}), acks {}, stable checkpoints {}, \
             state transfers {}",
            self.view,
            self.views_entered,
            self.belated_views,
            self.acks,
            self.checkpoints,
            self.transfers
        )?;
        writeln!(
            f,
            "  peaks: inputs {}, held {}; hot timers {}, lag at end {}, alone at end {}",
            self.peak_inputs, self.peak_held, self.hot_timers, self.lag_at_end, self.alone_at_end
        )?;
        writeln!(
            f,
            "  egress: {} withdrawn, {} not sent for a copy that waits, {} for one on its way",
            self.withdrawn, self.duplicates, self.paced
        )?;
        // Corrupted messages have any kind byte.
        let mut sent: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, count) in &self.sent {
            *sent.entry(kind_name(*kind)).or_default() += count;
        }
        write!(f, "  sent:")?;
        for (kind, count) in &sent {
            write!(f, " {kind} {count}")?;
        }
        writeln!(f)?;
        let mut rejected: BTreeMap<&str, BTreeMap<Reject, u64>> = BTreeMap::new();
        for ((kind, reason), count) in &self.rejected {
            let of_kind = rejected.entry(kind_name(*kind)).or_default();
            *of_kind.entry(*reason).or_default() += count;
        }
        for (kind, reasons) in &rejected {
            write!(f, "  rejected {kind}:")?;
            for (reason, count) in reasons {
                write!(f, " {reason:?} {count}")?;
            }
            writeln!(f)?;
        }
        for (branch, count) in &self.branches {
            writeln!(f, "  {count} times {branch}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seed {}: ", self.name, self.seed)?;
        match &self.violation {
            None => writeln!(f, "all properties hold, after {} us", self.ended_us)?,
            Some(v) => {
                writeln!(f, "'{}' is violated at {} us, step {}", v.property, v.at_us, v.step)?;
                writeln!(f, "  {}", v.story)?;
            }
        }
        write!(f, "{}", self.counters)?;
        for line in &self.last_events {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}
