//! A run as data: group, workload, network, faults. A seed makes a random one.

use hybster_proto::config::GroupConfig;
use hybster_proto::egress::EgressLimits;
use hybster_proto::ids::ReplicaId;
use hybster_proto::protocol::Protocol;
use hybster_tss::RequestAuthenticator;

use crate::behaviour::Behaviour;
use crate::clock::{DayClock, WrongClock};
use crate::random::Random;
use crate::rogue::RoguePlan;

/// How many of a million random groups have their clients sign requests.
const SIGNED_PPM: u32 = 125_000;

/// Operations of each session of a client that has a copy, at most.
const COPIED_OPERATIONS: u32 = 20;

/// How the stages of a replica take turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// All on one thread: inputs are handled in the order they were sent.
    Fused,
    /// Each on its own: the seed picks who runs next, and now and then keeps one waiting for long.
    Split,
}

/// What links do with messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Each message on its own: may be lost, doubled, overtaken.
    Datagrams,
    /// First in, first out; messages in transit are lost when the link breaks.
    Streams,
}

/// How long messages take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latency {
    /// At least.
    pub min_us: u64,
    /// Usually up to this much more.
    pub jitter_us: u64,
    /// How often one takes much longer.
    pub tail_ppm: u32,
    /// How much longer.
    pub tail_us: u64,
}

/// One end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    /// A replica.
    Replica(u16),
    /// The client object with this index.
    Client(u16),
}

/// What a filter does with the messages that it matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Catch {
    /// They vanish.
    Drop,
    /// They arrive this much later.
    Delay {
        /// In microseconds.
        by_us: u64,
    },
}

/// Catches messages by kind. For hand-made scenarios over [`Transport::Datagrams`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// Only from here.
    pub from: Option<End>,
    /// Only to there.
    pub to: Option<End>,
    /// Only these kind bytes; all if empty.
    pub kinds: Vec<u8>,
    /// Only PREPARE, COMMIT and CHECKPOINT of this pillar.
    pub pillar: Option<u16>,
    /// What happens to them.
    pub catch: Catch,
}

/// Something that goes wrong, or right again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A replica stops for ever.
    Crash(u16),
    /// A replica with a log stops, and is started again after this long, in microseconds.
    Restart(u16, u64),
    /// The next sync of a replica's log fails. It stops, and is started again soon.
    SyncFails(u16),
    /// As [`Fault::Restart`], but what is on disk is damaged meanwhile.
    RestartDamaged(u16, u64),
    /// What a replica has on its disk is copied; what was copied before is dropped.
    Copy(u16),
    /// As [`Fault::Restart`], but with the copy in the place of what is on disk.
    RestartFromCopy(u16, u64),
    /// All replicas with a log lose power, and are started again after this long, in microseconds.
    PowerLoss(u64),
    /// A replica is paused.
    Pause(u16),
    /// A paused replica is resumed.
    Resume(u16),
    /// The factor by which everything takes a replica longer; 1 is normal.
    Slow(u16, u32),
    /// Messages in one direction do not arrive.
    Cut(End, End),
    /// They do again.
    Mend(End, End),
    /// A link breaks in both directions (streams lose the messages in transit).
    Break(End, End),
    /// A broken link is made again.
    Reconnect(End, End),
    /// Datagrams get lost.
    Loss(u32),
    /// Datagrams arrive twice.
    Duplication(u32),
    /// The factor by which messages take longer; 1 is normal.
    Lag(u32),
    /// What each host's wire carries, in bytes per second; 0 is any amount. Streams only.
    Bandwidth(u64),
    /// From now on messages are filtered.
    Filter(Filter),
    /// No more filters.
    NoFilters,
}

impl Fault {
    /// The ends that it is about, if it is about links.
    fn ends(&self) -> [Option<End>; 2] {
        match self {
            Self::Cut(a, b) | Self::Mend(a, b) | Self::Break(a, b) | Self::Reconnect(a, b) => {
                [Some(*a), Some(*b)]
            }
            Self::Filter(filter) => [filter.from, filter.to],
            _ => [None, None],
        }
    }
}

/// A fault and its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimedFault {
    /// When.
    pub at_us: u64,
    /// What.
    pub fault: Fault,
}

/// A disk below each replica: it has a log and durable checkpoints, and can be started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskPlan {
    /// How long a sync of the log takes, at most, in microseconds.
    pub sync_us: u64,
    /// How long it takes to make a checkpoint durable, at most, in microseconds.
    pub save_us: u64,
    /// The disk has room for so many segments of the log, those in reserve included, if not for as many
    /// as it likes.
    pub segments: Option<u64>,
}

/// A replica whose disk or host is lost, and the one that takes its place, in a new life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replacement {
    /// Which replica.
    pub replica: u16,
    /// The life of the new one.
    pub life: u64,
    /// Another life that the administrator orders for it at the same time, if it makes that mistake.
    pub other_life: Option<u64>,
    /// When the old one is lost, in microseconds; `None` if it is not, and none takes its place.
    pub lost_us: Option<u64>,
    /// When the administrator begins to order the change, in microseconds.
    pub ordered_us: u64,
}

/// The workload of a client object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientPlan {
    /// It is a copy of the client with this index: a resumed image of its machine. Both use the same
    /// sessions and numbers, for different operations.
    pub copy_of: Option<u16>,
    /// Sessions that it opens.
    pub sessions: u32,
    /// Operations that each session submits before the faults end.
    pub operations: u32,
    /// Operations that each session submits after the faults have ended.
    pub operations_after: u32,
    /// Operations that a session has under way at once, at most (bounded by the group's W).
    pub parallel: u32,
    /// Pause between an answer and the next operation, at most.
    pub think_us: u64,
    /// Bytes that make operations longer, at least.
    pub least_padding: u32,
    /// Bytes that make operations longer, at most.
    pub padding: u32,
    /// How many of a million operations that only read are queries.
    pub queries_ppm: u32,
    /// When it starts.
    pub start_us: u64,
}

/// A whole run.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// For reports.
    pub name: String,
    /// Decides everything that the other fields leave open.
    pub seed: u64,
    /// The group's constants.
    pub group: GroupConfig,
    /// Turns of the stages.
    pub layout: Layout,
    /// Links.
    pub transport: Transport,
    /// Delays.
    pub latency: Latency,
    /// What each host's wire carries, in bytes per second; 0 is any amount. Datagrams take no notice.
    pub bytes_per_s: u64,
    /// Bytes that may wait at a replica for one client; what comes beyond is refused. Streams only.
    pub client_queue_bytes: usize,
    /// Limits of the replicas' egress.
    pub egress: EgressLimits,
    /// Clocks of replicas run fast or slow by up to this much.
    pub drift_ppm: u32,
    /// Clocks of the day are off by up to this much.
    pub skew_us: u64,
    /// Clocks of the day that are wrong by more than the group allows for.
    pub wrong_clocks: Vec<(u16, WrongClock)>,
    /// Client objects.
    pub clients: Vec<ClientPlan>,
    /// Registers that they use.
    pub keys: u16,
    /// Whether the service reports page versions.
    pub versioned_pages: bool,
    /// How long the service takes for an operation, in microseconds.
    pub service_us: u64,
    /// Bytes that each answer of the service has more than it needs.
    pub answer_padding: usize,
    /// Pages of the service are filled up to this length.
    pub page_bytes: usize,
    /// The replicas' disks; without, a replica that stops has lost everything.
    pub disk: Option<DiskPlan>,
    /// A log may be used up: then its replica stops, room is made, and it is started again. Else it may not.
    pub logs_may_be_used_up: bool,
    /// Faults, by rising time.
    pub faults: Vec<TimedFault>,
    /// A replica that is replaced, if one is.
    pub replacement: Option<Replacement>,
    /// Faulty hosts; a replica may have several behaviours.
    pub hosts: Vec<(ReplicaId, Behaviour)>,
    /// Byzantine clients.
    pub rogues: Vec<RoguePlan>,
    /// When all faults end but crashes.
    pub heal_at_us: u64,
    /// How long after that everything may take.
    pub patience_us: u64,
    /// How long a call may take, if that is known; others go on meanwhile.
    pub longest_call_us: Option<u64>,
}

impl Scenario {
    /// A group without faults, for hand-made scenarios.
    #[must_use]
    pub fn calm(name: &str, seed: u64, faults: u16, pillars: u16) -> Self {
        Self {
            name: name.into(),
            seed,
            group: GroupConfig {
                group: [7; 16],
                replicas: Protocol::default().rules().least_replicas(faults) as u16,
                faults,
                pillars,
                window: 16 * u64::from(pillars),
                checkpoint_interval: 4 * u64::from(pillars),
                batch_max_requests: 4,
                batch_max_bytes: 1 << 16,
                session_window: 2,
                max_sessions_per_client: 64,
                max_clients: 16,
                max_operation_bytes: 1024,
                max_reply_bytes: 1024,
                kept_result_bytes: 16 * 1024,
                request_timeout_us: 50_000,
                view_timeout_us: 50_000,
                resend_us: 10_000,
                max_clock_skew_ms: 500,
                ..GroupConfig::default()
            },
            layout: Layout::Split,
            transport: Transport::Datagrams,
            latency: Latency { min_us: 50, jitter_us: 100, tail_ppm: 0, tail_us: 0 },
            bytes_per_s: 0,
            client_queue_bytes: 16 << 20,
            egress: EgressLimits::default(),
            drift_ppm: 0,
            skew_us: 0,
            wrong_clocks: Vec::new(),
            clients: vec![
                ClientPlan {
                    copy_of: None,
                    sessions: 2,
                    operations: 30,
                    operations_after: 3,
                    parallel: 2,
                    think_us: 2_000,
                    least_padding: 0,
                    padding: 16,
                    queries_ppm: 500_000,
                    start_us: 0,
                };
                2
            ],
            keys: 6,
            versioned_pages: true,
            service_us: 0,
            answer_padding: 0,
            page_bytes: 0,
            disk: None,
            logs_may_be_used_up: false,
            faults: Vec::new(),
            replacement: None,
            hosts: Vec::new(),
            rogues: Vec::new(),
            heal_at_us: 500_000,
            patience_us: 60_000_000,
            longest_call_us: None,
        }
    }

    /// Adds a fault.
    #[must_use]
    pub fn with(mut self, at_us: u64, fault: Fault) -> Self {
        self.faults.push(TimedFault { at_us, fault });
        self.faults.sort_by_key(|f| f.at_us);
        self
    }

    /// A replica is lost and replaced.
    #[must_use]
    pub fn replacing(mut self, replacement: Replacement) -> Self {
        self.group.administrator = Some(crate::keys::administrator(&self.group));
        self.replacement = Some(replacement);
        self
    }

    /// A random run.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5ce0_a110);
        let r = &mut random;
        let faults = if r.chance(750_000) { 1 } else { 2 };
        let replicas = 2 * faults + 1 + u16::from(r.chance(100_000));
        let pillars = r.between(1, 4) as u16;
        let interval = u64::from(pillars) * r.pick(&[1, 2, 2, 4, 8, 16]);
        let window = interval * r.pick(&[2, 2, 3, 4, 8]);
        let heal_at_us = r.between(100, 1_500) * 1_000;
        let timeouts = *r.pick(&[20_000, 40_000, 80_000]);
        let mut scenario = Self::calm("random", seed, faults, pillars);
        scenario.group = GroupConfig {
            replicas,
            window,
            checkpoint_interval: interval,
            batch_max_requests: *r.pick(&[1, 2, 4, 32]),
            session_window: *r.pick(&[1, 1, 2, 4]),
            request_timeout_us: timeouts,
            view_timeout_us: timeouts,
            resend_us: timeouts / r.between(3, 10),
            ..scenario.group
        };
        scenario.layout = if r.chance(800_000) { Layout::Split } else { Layout::Fused };
        scenario.transport =
            if r.chance(500_000) { Transport::Datagrams } else { Transport::Streams };
        scenario.latency = Latency {
            min_us: r.between(10, 300),
            jitter_us: r.between(1, 1_000),
            tail_ppm: *r.pick(&[0, 1_000, 20_000]),
            tail_us: r.between(1_000, 30_000),
        };
        scenario.egress.link_window_bytes = *r.pick(&[1 << 10, 16 << 10, 1 << 20]);
        scenario.drift_ppm = *r.pick(&[0, 200, 50_000]);
        scenario.versioned_pages = r.chance(500_000);
        scenario.keys = r.between(1, 12) as u16;
        scenario.heal_at_us = heal_at_us;
        let clients = r.between(1, 4);
        scenario.clients = (0..clients).map(|_| random_client(r, heal_at_us)).collect();
        scenario.faults = random_faults(r, &scenario);
        scenario.hosts = random_hosts(r, &scenario);
        // Drawn apart, so that the rest of a seed's run is as it would be without.
        if Random::new(seed ^ 0x51_96ed).chance(SIGNED_PPM) {
            scenario.group.request_authenticator = RequestAuthenticator::Ed25519;
        }
        scenario.draw_clocks(seed);
        scenario.draw_copies(seed);
        scenario.draw_results(seed);
        scenario.draw_service(seed);
        scenario.draw_wires(seed);
        scenario.draw_replies(seed);
        scenario
    }

    /// Another protocol orders the requests: the group tolerates as many faults as before.
    pub(crate) fn run_protocol(&mut self, protocol: Protocol, seed: u64) {
        let mut random = Random::new(seed ^ 0x9b_f700);
        let least = protocol.rules().least_replicas(self.group.faults) as u16;
        self.group.protocol = protocol;
        self.group.replicas = least + u16::from(random.chance(100_000));
        self.group.request_authenticator = RequestAuthenticator::Ed25519;
        self.redraw_faults(seed);
        self.draw_clocks(seed);
    }

    /// Adds a copy of a client.
    pub fn copy_client(&mut self, of: u16) {
        let plan = &mut self.clients[usize::from(of)];
        // Calls that may have run are hard on the search for an order.
        plan.operations = plan.operations.min(COPIED_OPERATIONS);
        let copy = ClientPlan { copy_of: Some(of), ..plan.clone() };
        self.clients.push(copy);
    }

    /// Drops faults on the links of clients that a shrunk scenario has lost.
    pub(crate) fn drop_faults_of_nobody(&mut self) {
        let clients = self.clients.len();
        let is_there = |end: &End| !matches!(end, End::Client(c) if usize::from(*c) >= clients);
        self.faults.retain(|fault| fault.fault.ends().iter().flatten().all(is_there));
    }

    /// The client of whose machine one is a copy, if it is one.
    pub(crate) fn original(&self, client: u16) -> Option<u16> {
        // A shrunk scenario may have lost it.
        self.clients[usize::from(client)].copy_of.filter(|of| *of < client)
    }

    /// Whether a client's sessions are used by another as well.
    pub(crate) fn is_copied(&self, client: u16) -> bool {
        let of = self.original(client).unwrap_or(client);
        let is_copy = |other| self.original(other) == Some(of);
        (0..self.clients.len() as u16).any(is_copy)
    }

    /// A replica's clock of the day.
    pub(crate) fn day_clock(&self, id: ReplicaId) -> DayClock {
        let mut random = Random::new(self.seed ^ 0xda1c_10c0 ^ u64::from(id.0) << 32);
        let skew_us = random.below(2 * self.skew_us + 1) as i64 - self.skew_us as i64;
        let wrong = self.wrong_clocks.iter().find(|(of, _)| *of == id.0).map(|(_, wrong)| *wrong);
        DayClock { skew_us, wrong }
    }

    /// Draws other faults for a group that was changed afterwards.
    pub(crate) fn redraw_faults(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0x7ed4_a110);
        self.faults = random_faults(&mut random, self);
        self.hosts = random_hosts(&mut random, self);
    }
}

fn random_client(r: &mut Random, heal_at_us: u64) -> ClientPlan {
    let operations = r.between(5, 60) as u32;
    ClientPlan {
        copy_of: None,
        sessions: r.between(1, 4) as u32,
        operations,
        operations_after: r.between(1, 4) as u32,
        parallel: r.between(1, 4) as u32,
        think_us: 2 * r.between(0, heal_at_us) / u64::from(operations),
        least_padding: 0,
        padding: *r.pick(&[0, 0, 64, 400]),
        queries_ppm: 500_000,
        start_us: if r.chance(300_000) { r.below(heal_at_us) } else { 0 },
    }
}

/// Now and then a faulty host, if fewer than f replicas crash.
fn random_hosts(r: &mut Random, scenario: &Scenario) -> Vec<(ReplicaId, Behaviour)> {
    let crashed = |id: &u16| scenario.faults.iter().any(|f| f.fault == Fault::Crash(*id));
    let (down, up): (Vec<u16>, Vec<u16>) = (0..scenario.group.replicas).partition(crashed);
    if down.len() >= usize::from(scenario.group.faults) || !r.chance(250_000) {
        return Vec::new();
    }
    let behaviour = if r.chance(500_000) {
        Behaviour::SilentLeader
    } else {
        Behaviour::Corrupter { ppm: r.between(1_000, 300_000) as u32 }
    };
    vec![(ReplicaId(*r.pick(&up)), behaviour)]
}

fn random_faults(r: &mut Random, scenario: &Scenario) -> Vec<TimedFault> {
    let n = scenario.group.replicas;
    let clients = scenario.clients.len() as u16;
    let until = scenario.heal_at_us;
    let mut faults = Vec::new();
    if scenario.transport == Transport::Datagrams && r.chance(700_000) {
        let ppm = *r.pick(&[1_000, 10_000, 50_000, 200_000]);
        faults.push(TimedFault { at_us: r.below(until), fault: Fault::Loss(ppm) });
    }
    if scenario.transport == Transport::Datagrams && r.chance(500_000) {
        let ppm = *r.pick(&[10_000, 100_000]);
        faults.push(TimedFault { at_us: r.below(until), fault: Fault::Duplication(ppm) });
    }
    let replicas: Vec<u16> = (0..n).collect();
    let crashes = r.between(0, scenario.group.faults.into()) as usize;
    for replica in r.sample(&replicas, crashes) {
        faults.push(TimedFault { at_us: r.below(until), fault: Fault::Crash(replica) });
    }
    for _ in 0..r.below(6) {
        let (a, b) = (r.below(until), r.below(until));
        let (from, to) = (a.min(b), a.max(b));
        let replica = *r.pick(&replicas);
        let mut pair = |begin, end| {
            faults.push(TimedFault { at_us: from, fault: begin });
            faults.push(TimedFault { at_us: to, fault: end });
        };
        match r.below(7) {
            0 => pair(Fault::Pause(replica), Fault::Resume(replica)),
            1 => pair(Fault::Slow(replica, r.between(2, 200) as u32), Fault::Slow(replica, 1)),
            2 => pair(Fault::Lag(r.between(2, 40) as u32), Fault::Lag(1)),
            // A side of the group that the other one does not hear, or that neither hears.
            3 | 4 => {
                let size = r.between(1, u64::from(n) - 1) as usize;
                let side = r.sample(&replicas, size);
                let both = r.chance(500_000);
                for &x in &side {
                    for &y in replicas.iter().filter(|y| !side.contains(y)) {
                        let (x, y) = (End::Replica(x), End::Replica(y));
                        pair(Fault::Cut(x, y), Fault::Mend(x, y));
                        if both {
                            pair(Fault::Cut(y, x), Fault::Mend(y, x));
                        }
                    }
                }
            }
            5 => {
                let other = (replica + 1 + r.below(u64::from(n) - 1) as u16) % n;
                let (a, b) = (End::Replica(replica), End::Replica(other));
                pair(Fault::Break(a, b), Fault::Reconnect(a, b));
            }
            _ => {
                let (a, b) = (End::Replica(replica), End::Client(r.below(clients.into()) as u16));
                pair(Fault::Break(a, b), Fault::Reconnect(a, b));
            }
        }
    }
    faults.sort_by_key(|f| f.at_us);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_scenarios_are_valid_and_reproducible() {
        for seed in 0..500 {
            let scenario = Scenario::random(seed);
            scenario.group.validate().unwrap();
            assert!(scenario.faults.is_sorted_by_key(|f| f.at_us));
            assert_eq!(scenario, Scenario::random(seed));
        }
    }
}
