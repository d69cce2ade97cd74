//! The virtual network: one link per pair and direction.

use std::collections::VecDeque;

use bytes::Bytes;
use hybster_proto::wire::{kind_of, pillar_field};

use crate::random::Random;
use crate::scenario::{Catch, End, Filter, Latency, Transport};

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) message: Bytes,
}

/// A packet that will arrive.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) at_us: u64,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The life of the link that it was sent in.
    pub(crate) life: u32,
    pub(crate) packet: Packet,
}

#[derive(Default)]
struct Link {
    cut: u32,
    down: u32,
    /// The receiver takes nothing.
    stalled: bool,
    life: u32,
    last_us: u64,
    held: VecDeque<Packet>,
    held_bytes: usize,
    /// Bytes that are on their way.
    flying_bytes: usize,
}

/// All links; ends are numbered, replicas first.
pub(crate) struct Network {
    replicas: usize,
    ends: usize,
    links: Vec<Link>,
    transport: Transport,
    latency: Latency,
    random: Random,
    pub(crate) loss_ppm: u32,
    pub(crate) duplicate_ppm: u32,
    pub(crate) lag: u32,
    pub(crate) filters: Vec<Filter>,
    pub(crate) peak_held: usize,
}

impl Network {
    pub(crate) fn new(
        replicas: usize,
        clients: usize,
        transport: Transport,
        latency: Latency,
        random: Random,
    ) -> Network {
        let ends = replicas + clients;
        Network {
            replicas,
            ends,
            links: (0..ends * ends).map(|_| Link::default()).collect(),
            transport,
            latency,
            random,
            loss_ppm: 0,
            duplicate_ppm: 0,
            lag: 1,
            filters: Vec::new(),
            peak_held: 0,
        }
    }

    pub(crate) fn index(&self, end: End) -> usize {
        match end {
            End::Replica(r) => usize::from(r),
            End::Client(c) => self.replicas + usize::from(c),
        }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.ends + to]
    }

    fn streams(&self) -> bool {
        self.transport != Transport::Datagrams
    }

    /// Bytes that a link holds back: its system has not sent them.
    pub(crate) fn unsent_bytes(&self, from: usize, to: usize) -> usize {
        self.links[from * self.ends + to].held_bytes
    }

    /// Bytes that have not arrived, whether their link holds them back or not.
    pub(crate) fn outstanding_bytes(&self, from: usize, to: usize) -> usize {
        let link = &self.links[from * self.ends + to];
        link.held_bytes + link.flying_bytes
    }

    /// What a measurement of a round trip would say, in microseconds.
    pub(crate) fn round_trip_us(&self) -> u64 {
        2 * (self.latency.min_us + self.latency.jitter_us / 2) * u64::from(self.lag)
    }

    /// Puts a message on a link.
    pub(crate) fn send(
        &mut self,
        now_us: u64,
        from: usize,
        to: usize,
        packet: Packet,
        deliveries: &mut Vec<Delivery>,
    ) {
        let Some(delay_us) = self.filtered(from, to, &packet.message) else {
            return;
        };
        let streams = self.streams();
        let link = self.link(from, to);
        if link.down > 0 {
            return;
        }
        if link.cut > 0 || link.stalled || !link.held.is_empty() {
            if streams {
                link.held_bytes += packet.message.len();
                link.held.push_back(packet);
                let held = link.held.len();
                self.peak_held = self.peak_held.max(held);
                return;
            }
            if link.cut > 0 {
                return;
            }
        }
        if !streams {
            if self.random.chance(self.loss_ppm) {
                return;
            }
            if self.random.chance(self.duplicate_ppm) {
                self.launch(now_us, delay_us, from, to, packet.clone(), deliveries);
            }
        }
        self.launch(now_us, delay_us, from, to, packet, deliveries);
    }

    fn launch(
        &mut self,
        now_us: u64,
        extra_us: u64,
        from: usize,
        to: usize,
        packet: Packet,
        deliveries: &mut Vec<Delivery>,
    ) {
        let latency = self.latency;
        let mut delay = latency.min_us + self.random.below(latency.jitter_us + 1);
        if self.random.chance(latency.tail_ppm) {
            delay += self.random.below(latency.tail_us + 1);
        }
        let mut at_us = now_us + delay * u64::from(self.lag) + extra_us;
        let streams = self.streams();
        let link = self.link(from, to);
        if streams {
            at_us = at_us.max(link.last_us);
            link.last_us = at_us;
        }
        link.flying_bytes += packet.message.len();
        deliveries.push(Delivery { at_us, from, to, life: link.life, packet });
    }

    fn filtered(&self, from: usize, to: usize, message: &[u8]) -> Option<u64> {
        let mut delay = 0;
        for filter in &self.filters {
            let fits = filter.from.is_none_or(|end| self.index(end) == from)
                && filter.to.is_none_or(|end| self.index(end) == to)
                && (filter.kinds.is_empty() || filter.kinds.contains(&kind_of(message)))
                && filter.pillar.is_none_or(|p| pillar_field(message).is_some_and(|q| q.0 == p));
            match filter.catch {
                Catch::Drop if fits => return None,
                Catch::Delay { by_us } if fits => delay += by_us,
                _ => {}
            }
        }
        Some(delay)
    }

    /// Whether a packet that arrives now still does; if its receiver stands still, the link of a
    /// stream takes it back.
    pub(crate) fn arrives(&mut self, delivery: &Delivery) -> bool {
        let streams = self.streams();
        let link = self.link(delivery.from, delivery.to);
        if link.life != delivery.life {
            return false;
        }
        link.flying_bytes -= delivery.packet.message.len();
        if link.stalled {
            self.take_back(delivery);
            return false;
        }
        streams || link.cut == 0
    }

    /// Returns a packet to a link whose receiver takes nothing; a datagram is lost.
    pub(crate) fn take_back(&mut self, delivery: &Delivery) {
        if self.streams() {
            let link = self.link(delivery.from, delivery.to);
            link.held_bytes += delivery.packet.message.len();
            link.held.push_back(delivery.packet.clone());
        }
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.link(from, to).cut += 1;
    }

    pub(crate) fn mend(&mut self, now: u64, from: usize, to: usize, out: &mut Vec<Delivery>) {
        let link = self.link(from, to);
        link.cut = link.cut.saturating_sub(1);
        self.flush(now, from, to, out);
    }

    /// Lets go what a link held back, if nothing holds it any more.
    fn flush(&mut self, now_us: u64, from: usize, to: usize, out: &mut Vec<Delivery>) {
        let link = self.link(from, to);
        if link.cut > 0 || link.down > 0 || link.stalled {
            return;
        }
        link.held_bytes = 0;
        for packet in std::mem::take(&mut link.held) {
            self.launch(now_us, 0, from, to, packet, out);
        }
    }

    pub(crate) fn break_link(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let link = self.link(from, to);
            link.down += 1;
            link.life += 1;
            link.held.clear();
            (link.held_bytes, link.flying_bytes) = (0, 0);
        }
    }

    /// Makes a link again; whether it is up now and both ends must be told.
    pub(crate) fn reconnect(
        &mut self,
        now: u64,
        a: usize,
        b: usize,
        out: &mut Vec<Delivery>,
    ) -> bool {
        let mut up = false;
        for (from, to) in [(a, b), (b, a)] {
            let link = self.link(from, to);
            up = link.down == 1;
            link.down = link.down.saturating_sub(1);
            self.flush(now, from, to, out);
        }
        up && self.streams()
    }

    /// The receiver takes nothing more from a link.
    pub(crate) fn stall(&mut self, from: usize, to: usize) {
        self.link(from, to).stalled = true;
    }

    /// A receiver takes messages again.
    pub(crate) fn resume(&mut self, now_us: u64, to: usize, out: &mut Vec<Delivery>) {
        for from in 0..self.ends {
            self.link(from, to).stalled = false;
            self.flush(now_us, from, to, out);
        }
    }

    /// Ends all faults; the pairs whose links were down.
    pub(crate) fn heal(&mut self, now: u64, out: &mut Vec<Delivery>) -> Vec<(usize, usize)> {
        self.loss_ppm = 0;
        self.duplicate_ppm = 0;
        self.lag = 1;
        self.filters.clear();
        let mut up = Vec::new();
        for from in 0..self.ends {
            for to in 0..self.ends {
                let link = self.link(from, to);
                if link.down > 0 && from < to {
                    up.push((from, to));
                }
                link.down = 0;
                link.cut = 0;
                link.stalled = false;
                self.flush(now, from, to, out);
            }
        }
        if self.streams() { up } else { Vec::new() }
    }
}
