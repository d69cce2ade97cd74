//! The properties of random scenarios that a user may fix: group, faults, faulty hosts.

use hybster_proto::config::GroupConfig;
use hybster_proto::ids::ReplicaId;
use hybster_proto::protocol::Protocol;

use crate::behaviour::{Behaviour, Flood};
use crate::random::Random;
use crate::rogue::{RoguePlan, RogueTrick};
use crate::scenario::{Fault, Scenario, TimedFault};

/// A class of faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultClass {
    /// Messages get lost.
    Loss,
    /// Messages arrive twice.
    Duplication,
    /// Messages take longer.
    Lag,
    /// Messages in one direction, or both, do not arrive for a while.
    Partition,
    /// Links break and are made again.
    Break,
    /// Replicas stop for ever.
    Crash,
    /// Replicas are paused for a while.
    Pause,
    /// Replicas get slow for a while.
    Slow,
}

impl FaultClass {
    /// All classes with their names.
    pub const ALL: [(&'static str, Self); 8] = [
        ("loss", Self::Loss),
        ("duplication", Self::Duplication),
        ("lag", Self::Lag),
        ("partition", Self::Partition),
        ("break", Self::Break),
        ("crash", Self::Crash),
        ("pause", Self::Pause),
        ("slow", Self::Slow),
    ];

    /// The class of a fault; `None` for those that only hand-made scenarios have.
    #[must_use]
    pub fn of(fault: &Fault) -> Option<Self> {
        Some(match fault {
            Fault::Loss(_) => Self::Loss,
            Fault::Duplication(_) => Self::Duplication,
            Fault::Lag(_) => Self::Lag,
            Fault::Cut(..) | Fault::Mend(..) => Self::Partition,
            Fault::Break(..) | Fault::Reconnect(..) => Self::Break,
            Fault::Crash(_) => Self::Crash,
            Fault::Pause(_) | Fault::Resume(_) => Self::Pause,
            Fault::Slow(..) => Self::Slow,
            Fault::Bandwidth(_)
            | Fault::Filter(_)
            | Fault::NoFilters
            | Fault::Restart(..)
            | Fault::SyncFails(_)
            | Fault::RestartDamaged(..)
            | Fault::Copy(_)
            | Fault::RestartFromCopy(..)
            | Fault::PowerLoss(_) => return None,
        })
    }
}

/// The fixed properties of random scenarios.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shape {
    /// What orders the requests.
    pub protocol: Protocol,
    /// Replicas n; the group tolerates as many faults as its protocol allows.
    pub replicas: Option<u16>,
    /// Pillars P.
    pub pillars: Option<u16>,
    /// The faults that may happen; all if `None`.
    pub faults: Option<Vec<FaultClass>>,
    /// Whether there are Byzantine hosts and clients.
    pub byzantine: bool,
    /// Whether replicas have disks and are started again.
    pub restarts: bool,
}

impl Shape {
    /// The random scenario of a seed, in this shape.
    #[must_use]
    pub fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::random(seed);
        if self.protocol != Protocol::default() {
            scenario.run_protocol(self.protocol, seed);
        }
        let group = &mut scenario.group;
        if let Some(replicas) = self.replicas {
            (group.replicas, group.faults) = (replicas, group.rules().most_faults(replicas));
        }
        if let Some(pillars) = self.pillars {
            // Intervals and windows stay as long in slots as they were.
            let of = |value: u64, old: u16| value / u64::from(old) * u64::from(pillars);
            group.checkpoint_interval = of(group.checkpoint_interval, group.pillars);
            group.window = of(group.window, group.pillars);
            group.pillars = pillars;
        }
        if self.replicas.is_some() {
            scenario.redraw_faults(seed);
        }
        if let Some(allowed) = &self.faults {
            scenario
                .faults
                .retain(|f| FaultClass::of(&f.fault).is_some_and(|c| allowed.contains(&c)));
            // `byzantine` means faulty hosts.
            scenario.hosts.clear();
            if !allowed.contains(&FaultClass::Lag) {
                (scenario.latency.tail_ppm, scenario.drift_ppm) = (0, 0);
            }
        }
        if self.byzantine {
            make_byzantine(&mut scenario, seed);
        }
        if self.restarts {
            scenario.draw_restarts(seed);
        }
        scenario.draw_clocks(seed);
        scenario
    }
}

impl Scenario {
    /// A random run with Byzantine hosts and clients.
    #[must_use]
    pub fn byzantine(seed: u64) -> Self {
        Shape { byzantine: true, ..Shape::default() }.scenario(seed)
    }
}

/// Up to f faulty hosts, in any role, each with several behaviours; crashes only beside them.
fn make_byzantine(scenario: &mut Scenario, seed: u64) {
    let mut random = Random::new(seed ^ 0xb12a_47e5);
    let r = &mut random;
    scenario.name = "byzantine".into();
    if r.chance(300_000) {
        // The network is calm: all that goes wrong is the liars' work.
        scenario.faults.clear();
    }
    let f = usize::from(scenario.group.faults);
    let liars = r.between(u64::from(f > 0), f as u64) as usize;
    let replicas: Vec<u16> = (0..scenario.group.replicas).collect();
    let liars = r.sample(&replicas, liars);
    let mut left = f - liars.len();
    scenario.faults.retain(|TimedFault { fault, .. }| match fault {
        Fault::Crash(id) if liars.contains(id) => false,
        Fault::Crash(_) => {
            let may = left > 0;
            left = left.saturating_sub(1);
            may
        }
        _ => true,
    });
    scenario.hosts = liars
        .iter()
        .flat_map(|liar| {
            let behaviours = r.between(1, 4);
            (0..behaviours)
                .map(|_| (ReplicaId(*liar), random_behaviour(r, &scenario.group)))
                .collect::<Vec<_>>()
        })
        .collect();
    if r.chance(500_000) {
        // Few sessions per client, so that they are evicted.
        let most = scenario.clients.iter().map(|c| c.sessions).max().unwrap_or(1);
        scenario.group.max_sessions_per_client = most + r.below(4) as u32;
        let rogues = r.between(1, 3);
        scenario.rogues = (0..rogues).map(|_| random_rogue(r, scenario.heal_at_us)).collect();
    }
    draw_flood(scenario, seed);
}

/// How many of a million Byzantine runs have a flood: it takes as long as a hundred runs without.
const FLOODS_PPM: u32 = 10_000;

/// Now and then a liar floods its peers. Drawn apart, so that the rest of a seed's run is as it would
/// be without.
fn draw_flood(scenario: &mut Scenario, seed: u64) {
    let mut random = Random::new(seed ^ 0xf1_00d5);
    let r = &mut random;
    let Some((liar, _)) = scenario.hosts.first().copied() else { return };
    if r.chance(FLOODS_PPM) {
        let (flood, count) = (*r.pick(&Flood::ALL), *r.pick(&[10, 50, 200]));
        let asks = matches!(flood, Flood::Batches | Flood::Questions);
        let flood = match scenario.group.protocol {
            // These are of kinds that only Hybster has.
            Protocol::Pbft if asks => Flood::Anything,
            _ => flood,
        };
        scenario.hosts.push((liar, Behaviour::Flooder { flood, count }));
    }
}

fn random_behaviour(r: &mut Random, group: &GroupConfig) -> Behaviour {
    Behaviour::random(r, group)
}

fn random_rogue(r: &mut Random, heal_at_us: u64) -> RoguePlan {
    let tricks = r.between(1, 4) as usize;
    let times = r.between(1, 120) as u32;
    RoguePlan {
        tricks: r.sample(&RogueTrick::ALL, tricks),
        every_us: 1 + 2 * r.below(heal_at_us) / u64::from(times),
        times,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shaped_scenarios_are_valid_and_as_asked() {
        for seed in 0..300 {
            let protocol = Protocol::ALL[seed as usize / 7 % 2];
            let replicas = match protocol {
                Protocol::Hybster => [None, Some(3), Some(5)],
                Protocol::Pbft => [None, Some(4), Some(7)],
            };
            let shape = Shape {
                protocol,
                replicas: replicas[seed as usize % 3],
                pillars: [None, Some(1), Some(4)][seed as usize / 3 % 3],
                faults: (seed % 2 == 0).then(|| vec![FaultClass::Crash, FaultClass::Loss]),
                byzantine: seed % 4 < 2,
                restarts: seed % 5 < 2 && protocol == Protocol::Hybster,
            };
            let scenario = shape.scenario(seed);
            scenario.group.validate().unwrap();
            assert_eq!(scenario, shape.scenario(seed));
            assert!(shape.replicas.is_none_or(|n| scenario.group.replicas == n));
            assert!(shape.pillars.is_none_or(|p| scenario.group.pillars == p));
            let mut down: Vec<u16> = scenario.hosts.iter().map(|(r, _)| r.0).collect();
            for fault in &scenario.faults {
                if let Fault::Crash(r) = fault.fault {
                    down.push(r);
                }
            }
            down.extend(scenario.wrong_clocks.iter().map(|(id, _)| *id));
            down.sort_unstable();
            down.dedup();
            assert!(down.len() <= usize::from(scenario.group.faults), "seed {seed}");
        }
    }
}
