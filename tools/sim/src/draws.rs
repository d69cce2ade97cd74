//! What is drawn for a random run apart from the rest, so that a seed's run is otherwise as it would be
//! without: slow wires and services, large replies and results, copies, clocks, disks.

use crate::clock::WrongClock;
use crate::random::Random;
use crate::scenario::{DiskPlan, Fault, Replacement, Scenario, TimedFault, Transport};

/// How many of a million random groups have a slow service.
const SLOW_SERVICES_PPM: u32 = 30_000;

/// How many of a million random groups have slow wires, if their links are streams.
const SLOW_WIRES_PPM: u32 = 100_000;

/// How many of a million random groups have results that do not all have room.
const LARGE_RESULTS_PPM: u32 = 60_000;

/// How many of a million random groups have replies that do not all have room on their links, if these
/// are streams.
const LARGE_REPLIES_PPM: u32 = 60_000;

/// How many of a million random groups have a client whose machine was copied.
const COPIES_PPM: u32 = 60_000;

impl Scenario {
    /// A random run, with liars or without, in which a replica is replaced: one that crashes or lies, if f do.
    #[must_use]
    pub fn replaced(seed: u64, byzantine: bool) -> Self {
        let mut scenario = if byzantine { Self::byzantine(seed) } else { Self::random(seed) };
        scenario.name = "replaced".into();
        let mut random = Random::new(seed ^ 0x11fe_5a11);
        let r = &mut random;
        let crashed = |it: &TimedFault| match it.fault {
            Fault::Crash(id) => Some((id, it.at_us)),
            _ => None,
        };
        let down: Vec<(u16, u64)> = scenario.faults.iter().filter_map(crashed).collect();
        let mut faulty: Vec<u16> = scenario.hosts.iter().map(|(id, _)| id.0).collect();
        faulty.extend(down.iter().map(|(id, _)| *id));
        faulty.extend(scenario.wrong_clocks.iter().map(|(id, _)| *id));
        faulty.sort_unstable();
        faulty.dedup();
        let all: Vec<u16> = (0..scenario.group.replicas).collect();
        let is_spent = faulty.len() >= usize::from(scenario.group.faults);
        let replica = *r.pick(if is_spent { &faulty } else { &all });
        scenario.faults.retain(|it| it.fault != Fault::Crash(replica));
        let lost_us = down.iter().find(|(id, _)| *id == replica).map(|(_, at_us)| *at_us);
        let lost_us = lost_us.unwrap_or_else(|| r.below(scenario.heal_at_us));
        let ordered_us = lost_us + r.below(scenario.heal_at_us);
        let (life, other_life) = (r.between(1, 1 << 40), r.chance(300_000).then_some(1 << 41));
        let lost_us = Some(lost_us);
        scenario.replacing(Replacement { replica, life, other_life, lost_us, ordered_us })
    }

    /// Now and then the wires are slow, all the time or for a while. Drawn apart as well.
    pub(crate) fn draw_wires(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0x0051_03e5);
        let r = &mut random;
        if self.transport != Transport::Streams || !r.chance(SLOW_WIRES_PPM) {
            return;
        }
        // Half of what 1 Mbit/s are to a timeout of half a second, as much, and ten times as much.
        let bytes_per_timeout = *r.pick(&[31_250, 62_500, 625_000]);
        let bytes_per_s = bytes_per_timeout * 1_000_000 / self.group.request_timeout_us;
        if r.chance(500_000) {
            self.bytes_per_s = bytes_per_s;
            return;
        }
        let (a, b) = (r.below(self.heal_at_us), r.below(self.heal_at_us));
        let slow = Fault::Bandwidth(bytes_per_s);
        self.faults.push(TimedFault { at_us: a.min(b), fault: slow });
        self.faults.push(TimedFault { at_us: a.max(b), fault: Fault::Bandwidth(0) });
        self.faults.sort_by_key(|f| f.at_us);
    }

    /// Now and then replies are larger than what waits for a client at a time, over wires that carry
    /// them all before long. Drawn apart as well.
    pub(crate) fn draw_replies(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0x1a46_e5e2);
        let r = &mut random;
        let is_slow = self.bytes_per_s > 0
            || self.faults.iter().any(|f| matches!(f.fault, Fault::Bandwidth(_)));
        if self.transport == Transport::Streams && !is_slow && r.chance(LARGE_REPLIES_PPM) {
            self.make_replies_large(r);
        }
    }

    /// Replies are larger than what waits for a client at a time.
    pub fn make_replies_large(&mut self, r: &mut Random) {
        self.transport = Transport::Streams;
        self.answer_padding = *r.pick(&[20_000, 40_000, 60_000]);
        self.group.max_reply_bytes = 64 << 10;
        self.group.kept_result_bytes = 64 << 20;
        self.client_queue_bytes = *r.pick(&[128 << 10, 512 << 10, 2 << 20]);
        self.bytes_per_s = *r.pick(&[10_000_000, 20_000_000, 50_000_000]);
    }

    /// Now and then the service is slow. Drawn apart as well.
    pub(crate) fn draw_service(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0x510e_5e4f);
        if random.chance(SLOW_SERVICES_PPM) {
            let timeout_us = self.group.request_timeout_us;
            self.service_us = *random.pick(&[timeout_us / 10, timeout_us / 2, 2 * timeout_us]);
        }
    }

    /// Now and then results are large, so that not all can be kept. Drawn apart as well.
    pub(crate) fn draw_results(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0x4e50_17ed);
        if random.chance(LARGE_RESULTS_PPM) {
            self.answer_padding = *random.pick(&[100, 400, 1_000]);
        }
    }

    /// Now and then a client's machine has a copy. Drawn apart as well.
    pub(crate) fn draw_copies(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0xc0b1_e500);
        if random.chance(COPIES_PPM) {
            let of = random.below(self.clients.len() as u64) as u16;
            self.copy_client(of);
        }
    }

    /// Gives the replicas disks, and has some of them or all be started again now and then.
    pub(crate) fn draw_restarts(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0x0d15_c0de);
        let r = &mut random;
        self.disk = Some(DiskPlan {
            sync_us: *r.pick(&[50, 500, 5_000]),
            save_us: *r.pick(&[500, 5_000, 100_000]),
            segments: None,
        });
        let replicas: Vec<u16> = (0..self.group.replicas).collect();
        for _ in 0..r.between(1, 6) {
            let at_us = r.below(self.heal_at_us);
            let down_us = *r.pick(&[100, 5_000, 100_000]);
            let down_us = r.between(1, down_us);
            let fault = if r.chance(350_000) {
                Fault::PowerLoss(down_us)
            } else {
                Fault::Restart(*r.pick(&replicas), down_us)
            };
            self.faults.push(TimedFault { at_us, fault });
        }
        if r.chance(300_000) {
            let at_us = r.below(self.heal_at_us);
            let fault = Fault::SyncFails(*r.pick(&replicas));
            self.faults.push(TimedFault { at_us, fault });
        }
        self.faults.sort_by_key(|f| f.at_us);
    }

    /// Draws the clocks of the day, some of them wrong if fewer than f replicas crash or are faulty.
    /// Drawn apart as well.
    pub(crate) fn draw_clocks(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0xc10c_a110);
        let r = &mut random;
        self.group.max_clock_skew_ms = *r.pick(&[20, 100, 1_000]);
        // Any two are apart by half of the bound at most.
        self.skew_us = *r.pick(&[0, 1_000, 250 * self.group.max_clock_skew_ms]);
        let crashes = self.faults.iter().filter_map(|f| match f.fault {
            Fault::Crash(id) => Some(id),
            _ => None,
        });
        let mut lost: Vec<u16> = crashes.chain(self.hosts.iter().map(|(id, _)| id.0)).collect();
        lost.sort_unstable();
        lost.dedup();
        let up: Vec<u16> = (0..self.group.replicas).filter(|id| !lost.contains(id)).collect();
        let room = usize::from(self.group.faults).saturating_sub(lost.len());
        self.wrong_clocks.clear();
        if room > 0 && r.chance(250_000) {
            let count = r.between(1, room as u64) as usize;
            let wrong = r.sample(&up, count);
            self.wrong_clocks =
                wrong.into_iter().map(|id| (id, WrongClock::random(r, self.heal_at_us))).collect();
        }
    }
}
