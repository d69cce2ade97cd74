//! The virtual network: one link per pair and direction.

use std::collections::VecDeque;

use bytes::Bytes;
use hybster_proto::output::{SendTag, Watermark};
use hybster_proto::wire::{kind_of, pillar_field};

use crate::random::Random;
use crate::scenario::{Catch, End, Filter, Latency, Transport};

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) message: Bytes,
    pub(crate) tag: SendTag,
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
    /// What waits for something to go along with.
    late: VecDeque<Packet>,
}

/// How long a message waits for one to go along with, at most.
pub(crate) const LATE_US: u64 = 5_000;

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

    /// Puts a message on a link, behind what waits for one to go along with.
    pub(crate) fn send(
        &mut self,
        now_us: u64,
        from: usize,
        to: usize,
        packet: Packet,
        deliveries: &mut Vec<Delivery>,
    ) {
        self.send_late(now_us, from, to, deliveries);
        self.put(now_us, from, to, packet, deliveries);
    }

    /// Lets a message wait for one to go along with; whether nothing waited before it.
    pub(crate) fn send_later(&mut self, from: usize, to: usize, packet: Packet) -> bool {
        let late = &mut self.link(from, to).late;
        late.push_back(packet);
        late.len() == 1
    }

    /// Puts what waits on its link.
    pub(crate) fn send_late(
        &mut self,
        now_us: u64,
        from: usize,
        to: usize,
        deliveries: &mut Vec<Delivery>,
    ) {
        for packet in std::mem::take(&mut self.link(from, to).late) {
            self.put(now_us, from, to, packet, deliveries);
        }
    }

    fn put(
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
        let keeps = self.transport == Transport::Streams { keeps: true };
        let streams = self.streams();
        let link = self.link(from, to);
        if link.down > 0 && !keeps {
            return;
        }
        if link.down > 0 || link.cut > 0 || link.stalled || !link.held.is_empty() {
            if streams {
                link.held.push_back(packet);
                let held = link.held.len();
                self.peak_held = self.peak_held.max(held);
                return;
            }
            if link.down > 0 || link.cut > 0 {
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
        if link.stalled && streams {
            link.held.push_back(delivery.packet.clone());
            return false;
        }
        !(link.stalled || (link.cut > 0 && !streams))
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
        for packet in std::mem::take(&mut link.held) {
            self.launch(now_us, 0, from, to, packet, out);
        }
    }

    pub(crate) fn break_link(&mut self, a: usize, b: usize) {
        let keeps = self.transport == Transport::Streams { keeps: true };
        for (from, to) in [(a, b), (b, a)] {
            let link = self.link(from, to);
            link.down += 1;
            link.life += 1;
            if !keeps {
                link.held.clear();
            }
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

    /// Drops what a sender has withdrawn (TR listing 9, remove).
    pub(crate) fn withdraw(&mut self, from: usize, mark: &Watermark) {
        for to in 0..self.ends {
            let link = self.link(from, to);
            link.held.retain(|packet| !packet.tag.is_withdrawn(mark));
            link.late.retain(|packet| !packet.tag.is_withdrawn(mark));
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
