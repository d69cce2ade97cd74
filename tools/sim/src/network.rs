//! The virtual network: one link per pair and direction.

use std::collections::VecDeque;

use bytes::Bytes;
use hybster_proto::wire::{kind_of, pillar_field};

use crate::random::Random;
use crate::scenario::{Catch, End, Filter, Latency, Transport};
use crate::uplink::{SOCKET_BYTES, Sent, Uplink};

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) message: Bytes,
    /// The epoch that its sender says it is in.
    pub(crate) epoch: u32,
}

/// A packet that will arrive.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) at_us: u64,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The life of the link that it was sent in.
    pub(crate) life: u32,
    /// What its link counts as being on its way with it.
    flying_bytes: usize,
    pub(crate) packet: Packet,
}

#[derive(Default)]
struct Link {
    cut: u32,
    down: u32,
    /// The receiver takes nothing.
    stalled: bool,
    /// The receiver's buffers are full: what is under way still arrives.
    choked: bool,
    life: u32,
    last_us: u64,
    held: VecDeque<Packet>,
    /// Bytes of them that have not gone out.
    held_bytes: usize,
    /// Bytes of the first one that have.
    gone_bytes: usize,
    /// Bytes that are on their way, if the wires are not limited.
    flying_bytes: usize,
    /// Pieces that went out over a limited wire and when each of them arrives.
    pieces: VecDeque<(u64, usize)>,
}

impl Link {
    fn is_open(&self) -> bool {
        self.cut == 0 && self.down == 0 && !self.stalled && !self.choked
    }
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
    /// What each host's wire carries; 0: any amount.
    bytes_per_s: u64,
    /// By end.
    uplinks: Vec<Uplink>,
    /// What the wires are busy with, for the event loop to take.
    pub(crate) sending: Vec<Sent>,
    /// Bytes that went out, by sender.
    pub(crate) sent_bytes: Vec<u64>,
}

impl Network {
    pub(crate) fn new(
        replicas: usize,
        clients: usize,
        transport: Transport,
        latency: Latency,
        bytes_per_s: u64,
        random: Random,
    ) -> Self {
        let ends = replicas + clients;
        Self {
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
            bytes_per_s,
            uplinks: (0..ends).map(|_| Uplink::default()).collect(),
            sending: Vec::new(),
            sent_bytes: vec![0; ends],
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

    /// Whether the wires are limited. Datagrams, which nothing holds back, take no notice.
    fn is_limited(&self) -> bool {
        self.bytes_per_s > 0 && self.streams()
    }

    /// Bytes that a link holds back and that the program still keeps.
    pub(crate) fn unsent_bytes(&self, from: usize, to: usize) -> usize {
        let held = self.links[from * self.ends + to].held_bytes;
        if self.is_limited() { held.saturating_sub(SOCKET_BYTES) } else { held }
    }

    /// Bytes that have not arrived, whether their link holds them back or not.
    pub(crate) fn outstanding_bytes(&self, now_us: u64, from: usize, to: usize) -> usize {
        let link = &self.links[from * self.ends + to];
        let pieces = link.pieces.iter().filter(|(at_us, _)| *at_us > now_us);
        link.held_bytes + link.flying_bytes + pieces.map(|(_, bytes)| bytes).sum::<usize>()
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
        let (streams, is_limited) = (self.streams(), self.is_limited());
        let link = self.link(from, to);
        if link.down > 0 {
            return;
        }
        if is_limited {
            link.held_bytes += packet.message.len();
            link.held.push_back(packet);
            return self.offer(now_us, from, to);
        }
        if link.cut > 0 || link.stalled || link.choked || !link.held.is_empty() {
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
        let (streams, is_limited) = (self.streams(), self.is_limited());
        let link = self.link(from, to);
        if streams {
            at_us = at_us.max(link.last_us);
            link.last_us = at_us;
        }
        let flying_bytes = if is_limited { 0 } else { packet.message.len() };
        link.flying_bytes += flying_bytes;
        self.sent_bytes[from] += packet.message.len() as u64;
        let life = self.link(from, to).life;
        deliveries.push(Delivery { at_us, from, to, life, flying_bytes, packet });
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

    /// A link may have something to send over its host's wire.
    fn offer(&mut self, now_us: u64, from: usize, to: usize) {
        let held = self.link(from, to).held.len();
        self.peak_held = self.peak_held.max(held);
        if held > 0 && self.link(from, to).is_open() {
            self.uplinks[from].offer(to);
            self.start(now_us, from);
        }
    }

    /// Lets the next piece of a message go out, if the wire is free.
    fn start(&mut self, now_us: u64, from: usize) {
        while let Some(to) = self.uplinks[from].next() {
            let link = &self.links[from * self.ends + to];
            let first = link.held.front().filter(|_| link.is_open());
            let Some(left) = first.map(|packet| packet.message.len() - link.gone_bytes) else {
                self.uplinks[from].skip();
                continue;
            };
            let at_us = self.uplinks[from].begin(now_us, left, self.bytes_per_s);
            self.sending.push(Sent { at_us, from });
            return;
        }
    }

    /// A piece of a message has gone out.
    pub(crate) fn sent(&mut self, now_us: u64, from: usize, deliveries: &mut Vec<Delivery>) {
        let Some((to, going)) = self.uplinks[from].finish() else { return };
        if !self.is_limited() {
            return self.flush(now_us, from, to, deliveries);
        }
        let arrives_us = now_us + self.round_trip_us() / 2;
        let link = self.link(from, to);
        while link.pieces.pop_front_if(|(at_us, _)| *at_us <= now_us).is_some() {}
        let is_open = link.is_open();
        if let Some(first) = link.held.front().filter(|_| is_open) {
            let length = first.message.len();
            // Another one, if the link was made again meanwhile.
            let piece = going.min(length - link.gone_bytes);
            link.gone_bytes += piece;
            link.held_bytes -= piece;
            link.pieces.push_back((arrives_us, piece));
            if link.gone_bytes == length {
                link.gone_bytes = 0;
                let packet = link.held.pop_front().expect("looked at above");
                self.launch(now_us, 0, from, to, packet, deliveries);
            }
        }
        self.offer(now_us, from, to);
        self.start(now_us, from);
    }

    /// The wires of all hosts carry this many bytes per second from now on; 0: any amount.
    pub(crate) fn limit(&mut self, now_us: u64, bytes_per_s: u64, out: &mut Vec<Delivery>) {
        let was_limited = self.is_limited();
        self.bytes_per_s = bytes_per_s;
        if was_limited == self.is_limited() {
            return;
        }
        for from in 0..self.ends {
            for to in 0..self.ends {
                self.flush(now_us, from, to, out);
            }
        }
    }

    /// Whether a packet that arrives now still does; if its receiver is paused, the link of a
    /// stream takes it back.
    pub(crate) fn arrives(&mut self, delivery: &Delivery) -> bool {
        let streams = self.streams();
        let link = self.link(delivery.from, delivery.to);
        if link.life != delivery.life {
            return false;
        }
        link.flying_bytes -= delivery.flying_bytes;
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
        if self.is_limited() {
            return self.offer(now_us, from, to);
        }
        let link = self.link(from, to);
        if !link.is_open() {
            return;
        }
        (link.held_bytes, link.gone_bytes) = (0, 0);
        for packet in std::mem::take(&mut link.held) {
            self.launch(now_us, 0, from, to, packet, out);
        }
    }

    pub(crate) fn break_link(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let link = self.link(from, to);
            link.down += 1;
            link.life += 1;
            link.choked = false;
            link.held.clear();
            link.pieces.clear();
            (link.held_bytes, link.gone_bytes, link.flying_bytes) = (0, 0, 0);
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

    /// The receiver's buffers are full, or have room again. Of streams only.
    pub(crate) fn choke(
        &mut self,
        now_us: u64,
        from: usize,
        to: usize,
        is_full: bool,
        out: &mut Vec<Delivery>,
    ) {
        self.link(from, to).choked = is_full;
        self.flush(now_us, from, to, out);
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

    /// Ends all faults; the pairs whose links were down. The wires carry `usual_bytes_per_s` again.
    pub(crate) fn heal(
        &mut self,
        now: u64,
        usual_bytes_per_s: u64,
        out: &mut Vec<Delivery>,
    ) -> Vec<(usize, usize)> {
        self.loss_ppm = 0;
        self.duplicate_ppm = 0;
        self.lag = 1;
        self.filters.clear();
        self.bytes_per_s = usual_bytes_per_s;
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
