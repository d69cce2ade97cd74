//! What the stages of a replica push into their output, and the faults of the scenario.

use std::mem;

use bytes::Bytes;
use hybster_proto::ids::{PillarId, ReplicaId, View};
use hybster_proto::output::{
    ClientLink, Destination, Input, Network as Effect, ReplyQueue, SendTag, ToControl, ToPillar,
};
use hybster_proto::time::Time;
use hybster_proto::trace::TraceEvent;
use hybster_proto::wire::reply::{self, ReplyEntry};
use hybster_proto::wire::{NewView, kind, kind_of};

use crate::behaviour::{Departure, Host, Scene};
use crate::network::{LATE_US, Packet};
use crate::replica::Stage;
use crate::report::NewViewSeen;
use crate::scenario::Fault;
use crate::world::{Event, What, World};

impl World {
    /// Empties a replica's output after `stage` ran.
    pub(crate) fn drain(&mut self, index: usize, stage: Stage) {
        let mut out = mem::take(&mut self.replicas[index].out);
        for event in out.trace.drain(..) {
            self.witness(index, event);
        }
        self.settle_executions(index);
        for effect in out.network.drain(..) {
            match effect {
                Effect::Send { to, message, tag } => self.send(index, to, &message, tag),
                Effect::Withdraw(mark) => self.network.withdraw(index, &mark),
            }
        }
        for input in out.inputs.drain(..) {
            self.coverage.input(&mut self.counters, &self.oracles.seen[index], &input);
            let mut input = Some(input);
            self.hosts(index, |host, scene| {
                input = input.take().and_then(|l| host.input(scene, l));
            });
            if let Some(input) = input {
                self.replicas[index].post(stage, input);
            }
        }
        self.reply(index, &out.replies);
        out.replies.clear();
        for rejection in out.rejections.drain(..) {
            *self.counters.rejected.entry((rejection.kind, rejection.reason)).or_default() += 1;
            self.remember(index, || What::Dropped(rejection));
        }
        if let Some(fatal) = out.fatal.take()
            && self.replicas[index].honest()
        {
            self.violate(("no fatal errors", format!("r{index}: {fatal}"), vec![index as u16]));
        }
        self.replicas[index].out = out;
    }

    /// Shows an event of a replica to counters and oracles.
    fn witness(&mut self, index: usize, event: TraceEvent) {
        let id = ReplicaId(index as u16);
        if let Some(recording) = &mut self.recording {
            recording.push(id, Time(self.now_us), &event);
        }
        let counters = &mut self.counters;
        match &event {
            TraceEvent::ViewEntered { view, current, .. } => {
                counters.view = counters.view.max(view.0);
                counters.views_entered += 1;
                counters.belated_views += u64::from(view < current);
            }
            TraceEvent::NewViewAcknowledged { .. } => counters.acks += 1,
            TraceEvent::Proposed { noop: true, .. } => counters.noops += 1,
            TraceEvent::Proposed { noop: false, .. } => counters.proposals += 1,
            TraceEvent::CheckpointStable(_) => counters.checkpoints += 1,
            TraceEvent::StateInstalled(_) => counters.transfers += 1,
            _ => {}
        }
        let at = ReplicaId(index as u16);
        self.coverage.event(&mut self.counters, &self.oracles.seen[index], &event);
        self.replicas[index].record.take(&mut self.executions);
        if self.replicas[index].honest() {
            let checked = self.oracles.check(at, &event, &mut self.executions);
            if let Err(breach) = checked {
                self.violate(breach);
            }
        }
        self.remember(index, || What::Did(event));
    }

    fn settle_executions(&mut self, index: usize) {
        self.replicas[index].record.take(&mut self.executions);
        if self.replicas[index].honest() {
            let checked = self.oracles.nothing_left(ReplicaId(index as u16), &self.executions);
            if let Err(breach) = checked {
                self.violate(breach);
            }
        }
        self.executions.clear();
    }

    /// Lets the hosts of a replica do something; what they send of their own accord leaves.
    pub(crate) fn hosts(&mut self, index: usize, hook: impl FnMut(&mut dyn Host, &mut Scene<'_>)) {
        if self.replicas[index].honest() {
            return;
        }
        let now = self.replicas[index].clock.local(self.now_us);
        let mut own = Vec::new();
        self.replicas[index].hosts(now, &self.config, &self.archive, &mut own, hook);
        for leaving in own {
            self.depart(index, leaving, SendTag::Transient);
        }
    }

    fn send(&mut self, index: usize, to: Destination, message: &Bytes, tag: SendTag) {
        if kind_of(message) == kind::NEW_VIEW {
            self.note_new_view(index, message);
        }
        if let Destination::Client(link) = to {
            return self.send_client(index, link, message.clone());
        }
        if let Destination::Thrifty(_) = to {
            self.coverage.thrifty(&mut self.counters);
        }
        let own = ReplicaId(index as u16);
        for peer in self.config.all_replicas().filter(|peer| to.reaches(own, *peer)) {
            match to {
                Destination::Thrifty(first) if !first.contains(peer) => {
                    self.send_peer_later(index, peer, message.clone(), tag);
                }
                _ => self.send_peer(index, peer, message.clone(), tag),
            }
        }
    }

    /// As [`World::send_peer`]; it may wait for something to go along with. When a faulty host's
    /// messages leave is the host's affair.
    fn send_peer_later(&mut self, index: usize, to: ReplicaId, message: Bytes, tag: SendTag) {
        if !self.replicas[index].honest() {
            return self.send_peer(index, to, message, tag);
        }
        if !self.may_leave(index, to, &message) {
            return;
        }
        let peer = usize::from(to.0);
        *self.counters.sent.entry(kind_of(&message)).or_default() += 1;
        if self.network.send_later(index, peer, Packet { message, tag }) {
            self.schedule(self.now_us + LATE_US, Event::Late(index, peer));
        }
    }

    pub(crate) fn transmit_late(&mut self, from: usize, to: usize) {
        if self.replicas[from].crashed {
            return;
        }
        let mut deliveries = Vec::new();
        self.network.send_late(self.now_us, from, to, &mut deliveries);
        self.launch(&mut deliveries);
    }

    pub(crate) fn send_peer(&mut self, index: usize, to: ReplicaId, message: Bytes, tag: SendTag) {
        if self.replicas[index].honest() {
            return self.leave(index, to, message, tag);
        }
        let mut leaving = vec![Departure { to, message, delay_us: 0 }];
        self.hosts(index, |host, scene| {
            let mut next = Vec::new();
            for departure in leaving.drain(..) {
                host.outgoing(scene, departure, &mut next);
            }
            leaving = next;
        });
        for departure in leaving {
            self.depart(index, departure, tag);
        }
    }

    /// A message leaves a faulty host, now or later.
    fn depart(&mut self, index: usize, leaving: Departure, tag: SendTag) {
        let Departure { to, message, delay_us } = leaving;
        if usize::from(to.0) >= self.replicas.len() || usize::from(to.0) == index {
            return;
        }
        if delay_us == 0 {
            return self.leave(index, to, message, tag);
        }
        let at_us = self.now_us + delay_us;
        self.schedule(at_us, Event::Depart(index, to, message, tag));
    }

    /// A message leaves a replica for a peer.
    pub(crate) fn leave(&mut self, index: usize, to: ReplicaId, message: Bytes, tag: SendTag) {
        if self.may_leave(index, to, &message) {
            self.transmit(index, usize::from(to.0), message, tag);
        }
    }

    /// Notes what a replica sends; false if it has crashed.
    fn may_leave(&mut self, index: usize, to: ReplicaId, message: &Bytes) -> bool {
        if self.replicas[index].crashed {
            return false;
        }
        self.relays.leaves(index, message);
        if !self.scenario.hosts.is_empty() {
            self.archive.keep(ReplicaId(index as u16), message);
        }
        self.remember(index, || What::Sent(to, message.clone()));
        true
    }

    /// A message leaves a replica for a client.
    pub(crate) fn send_client(&mut self, index: usize, link: ClientLink, message: Bytes) {
        if let Some(message) = self.reply_of_host(index, message) {
            self.transmit_client(index, link, message);
        }
    }

    /// What the hosts of a replica leave of a reply.
    fn reply_of_host(&mut self, index: usize, message: Bytes) -> Option<Bytes> {
        let mut message = Some(message);
        self.hosts(index, |host, scene| {
            message = message.take().and_then(|m| host.reply(scene, m));
        });
        message
    }

    fn transmit_client(&mut self, index: usize, link: ClientLink, message: Bytes) {
        let Some(client) = self.clients.iter().position(|c| c.link == link) else {
            return;
        };
        self.transmit(index, self.replicas.len() + client, message, SendTag::Transient);
    }

    /// Puts a message on a link of the virtual network.
    pub(crate) fn transmit(&mut self, from: usize, to: usize, message: Bytes, tag: SendTag) {
        *self.counters.sent.entry(kind_of(&message)).or_default() += 1;
        let mut deliveries = Vec::new();
        self.network.send(self.now_us, from, to, Packet { message, tag }, &mut deliveries);
        self.launch(&mut deliveries);
    }

    /// What the network stage does with replies: one message per link and view. One that holds a
    /// single reply may go through the leader.
    fn reply(&mut self, index: usize, replies: &ReplyQueue) {
        if replies.is_empty() {
            return;
        }
        let mut messages: Vec<(ClientLink, View, Vec<u8>, bool)> = Vec::new();
        for r in replies.iter() {
            let permitted = self.relays.permits(index, r.link(), r.cause);
            let entry = ReplyEntry {
                session: r.session.session,
                number: r.number,
                status: r.status,
                result: r.result,
            };
            let open = messages.iter_mut().rev().find(|(link, ..)| *link == r.link());
            match open {
                Some((_, view, message, may_be_relayed)) if *view == r.view => {
                    reply::append(message, &entry);
                    *may_be_relayed = false;
                }
                _ => {
                    let mut message = Vec::new();
                    reply::begin(&mut message, ReplicaId(index as u16), r.view);
                    reply::append(&mut message, &entry);
                    messages.push((r.link(), r.view, message, permitted));
                }
            }
        }
        for (link, view, message, may_be_relayed) in messages {
            let Some(message) = self.reply_of_host(index, message.into()) else { continue };
            if !(may_be_relayed && self.relay(index, link, view, &message)) {
                self.transmit_client(index, link, message);
            }
        }
    }

    fn note_new_view(&mut self, index: usize, message: &Bytes) {
        let Ok(new_view) = NewView::parse(message, &self.config) else {
            return;
        };
        self.coverage.new_view(&mut self.counters, &new_view);
        let sender = ReplicaId(index as u16);
        if self.new_views.iter().any(|(by, seen)| *by == sender && seen.view == new_view.view) {
            return;
        }
        let seen = NewViewSeen {
            view: new_view.view,
            from: new_view.view_changes.iter().map(|v| (v.sender.0, v.from)).collect(),
            acks: new_view.acks.iter().map(|a| a.sender.0).collect(),
            reissued: new_view.prepares.iter().map(Vec::len).collect(),
        };
        self.new_views.push((sender, seen));
    }

    /// Tells the stages of a replica that the link to a peer is up.
    pub(crate) fn link_up(&mut self, replica: usize, peer: usize) {
        let peer = ReplicaId(peer as u16);
        for pillar in 0..self.config.pillars {
            let input = Input::Pillar(PillarId(pillar), ToPillar::PeerUp(peer));
            self.replicas[replica].post(Stage::Network, input);
        }
        self.replicas[replica].post(Stage::Network, Input::Control(ToControl::PeerUp(peer)));
        self.schedule_run(replica, self.now_us);
    }

    /// Both ends of a link that broke and was made again are told.
    fn reconnected(&mut self, a: usize, b: usize) {
        let n = self.replicas.len();
        for (at, other) in [(a, b), (b, a)] {
            if at < n && other < n && !self.replicas[at].crashed && !self.replicas[other].crashed {
                self.link_up(at, other);
            } else if at >= n && other < n && !self.replicas[other].crashed {
                let client = &mut self.clients[at - n];
                let now = client.clock.local(self.now_us);
                client.core.replica_up(ReplicaId(other as u16), now, &mut client.out);
                self.pump_client(at - n);
            }
        }
    }

    /// Lets a fault happen.
    pub(crate) fn suffer(&mut self, fault: &Fault) {
        let mut deliveries = Vec::new();
        let now_us = self.now_us;
        for replica in 0..self.replicas.len() {
            self.remember(replica, || What::Suffered(format!("{fault:?}")));
        }
        match fault {
            Fault::Crash(r) => self.replicas[usize::from(*r)].crashed = true,
            Fault::Pause(r) => self.replicas[usize::from(*r)].paused = true,
            Fault::Resume(r) => self.resume(usize::from(*r)),
            Fault::Slow(r, times) => self.replicas[usize::from(*r)].slow = u64::from(*times),
            Fault::Cut(a, b) => {
                let (a, b) = (self.network.index(*a), self.network.index(*b));
                self.network.cut(a, b);
            }
            Fault::Mend(a, b) => {
                let (a, b) = (self.network.index(*a), self.network.index(*b));
                self.network.mend(now_us, a, b, &mut deliveries);
            }
            Fault::Break(a, b) => {
                let (a, b) = (self.network.index(*a), self.network.index(*b));
                self.broken(a, b);
            }
            Fault::Reconnect(a, b) => {
                let (a, b) = (self.network.index(*a), self.network.index(*b));
                if self.network.reconnect(now_us, a, b, &mut deliveries) {
                    self.reconnected(a, b);
                }
            }
            Fault::Loss(ppm) => self.network.loss_ppm = *ppm,
            Fault::Duplication(ppm) => self.network.duplicate_ppm = *ppm,
            Fault::Lag(times) => self.network.lag = *times,
            Fault::Filter(filter) => self.network.filters.push(filter.clone()),
            Fault::NoFilters => self.network.filters.clear(),
        }
        self.launch(&mut deliveries);
    }

    fn broken(&mut self, a: usize, b: usize) {
        self.network.break_link(a, b);
        let n = self.replicas.len();
        if self.scenario.transport == crate::scenario::Transport::Datagrams {
            return;
        }
        for (client, replica) in [(a, b), (b, a)] {
            if client >= n && replica < n {
                let client_index = client - n;
                let client = &mut self.clients[client_index];
                let now = client.clock.local(self.now_us);
                client.core.replica_down(ReplicaId(replica as u16), now, &mut client.out);
                self.pump_client(client_index);
            }
        }
    }

    fn resume(&mut self, replica: usize) {
        if !mem::replace(&mut self.replicas[replica].paused, false) {
            return;
        }
        for (from, message) in mem::take(&mut self.replicas[replica].buffered) {
            self.accept(from, replica, message);
        }
        let mut deliveries = Vec::new();
        self.network.resume(self.now_us, replica, &mut deliveries);
        self.launch(&mut deliveries);
        self.schedule_run(replica, self.now_us);
    }

    /// Ends all faults but crashes and faulty hosts, and gives the clients some more to do.
    pub(crate) fn heal(&mut self) {
        for replica in 0..self.replicas.len() {
            self.remember(replica, || What::Suffered("all faults end".into()));
            self.replicas[replica].slow = 1;
            self.resume(replica);
        }
        let mut deliveries = Vec::new();
        let up = self.network.heal(self.now_us, &mut deliveries);
        self.launch(&mut deliveries);
        for (a, b) in up {
            self.reconnected(a, b);
        }
        for client in 0..self.clients.len() {
            self.clients[client].stop();
            let more = self.clients[client].plan.operations_after;
            self.clients[client].more(more);
            self.give_turns(client, self.now_us);
        }
    }
}
