//! What the stages of a replica push into their output, and the faults of the scenario.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::ids::{PillarId, ReplicaId};
use hybster_proto::internals::NewView;
use hybster_proto::output::{Fatal, Input, ToControl, ToPillar};
use hybster_proto::time::Time;
use hybster_proto::trace::TraceEvent;
use hybster_proto::wire::{kind, kind_of};

use crate::agenda::Event;
use crate::behaviour::{Departure, Host, Scene};
use crate::disk::Stop;
use crate::network::Packet;
use crate::oracle::Now;
use crate::replica::{Replica, Stage};
use crate::report::NewViewSeen;
use crate::scenario::Fault;
use crate::world::{What, World};

impl World {
    /// Empties a replica's output after `stage` ran.
    pub(crate) fn drain(&mut self, index: usize, stage: Stage) {
        let mut out = mem::take(&mut self.replicas[index].out);
        let settles = |event: &TraceEvent| {
            matches!(event, TraceEvent::CheckpointStable { .. } | TraceEvent::ViewEntered { .. })
        };
        let is_settled = out.fatal.is_none() && out.trace.iter().any(settles);
        self.log(index, &mut out);
        for event in out.trace.drain(..) {
            self.witness(index, event);
        }
        for notice in out.notices.drain(..) {
            self.note_difference(index, &notice);
            self.remember(index, || What::Told(notice));
        }
        self.settle_executions(index);
        for effect in out.network.drain(..) {
            self.send(index, effect);
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
        for (client, is_paused) in out.pauses.drain(..) {
            self.pause_client(index, client, is_paused);
        }
        for rejection in out.rejections.drain(..) {
            *self.counters.rejected.entry((rejection.kind, rejection.reason)).or_default() += 1;
            self.remember(index, || What::Dropped(rejection));
        }
        let fatal = out.fatal.take();
        if matches!(&fatal, Some(Fatal::OlderCopy(_))) && self.has_older_copy(index) {
            let before = mem::replace(&mut self.replicas[index].crashed, true);
            self.counters.older_copies += u64::from(!before);
        } else if let Some(fatal) = fatal
            && self.replicas[index].honest()
        {
            self.violate(("no fatal errors", format!("r{index}: {fatal}"), vec![index as u16]));
        }
        // What a stage checks after each input does not take time; the rest is looked at now and then.
        if is_settled && self.replicas[index].honest() {
            self.replicas[index].core.check_all_invariants();
        }
        if let Some(ended) = out.ended.take() {
            self.replicas[index].ended = Some(ended);
        }
        self.replicas[index].out = out;
        self.end_epoch(index);
    }

    /// Shows an event of a replica to counters and oracles.
    pub(crate) fn witness(&mut self, index: usize, event: TraceEvent) {
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
            TraceEvent::Endorsed { .. } => counters.acks += 1,
            TraceEvent::Proposed { proposal, .. } if proposal.noop => counters.noops += 1,
            TraceEvent::Proposed { .. } => counters.proposals += 1,
            TraceEvent::CheckpointStable { .. } => counters.checkpoints += 1,
            TraceEvent::StateInstalled(_) => {
                counters.transfers += 1;
                self.installed_us.push(self.now_us);
            }
            _ => {}
        }
        let at = ReplicaId(index as u16);
        self.coverage.event(&mut self.counters, &self.oracles.seen[index], &event);
        if self.replicas[index].disk.is_none() {
            self.replicas[index].record.take(&mut self.executions);
        }
        if self.replicas[index].honest() {
            let now = Now { at_us: self.now_us, latest_ms: self.latest_ms() };
            let checked = self.oracles.check(at, &event, &mut self.executions, now);
            if let Err(breach) = checked {
                self.violate(breach);
            }
        }
        self.remember(index, || What::Did(event));
    }

    /// What no agreed time may be beyond: while there are at most f faulty hosts and wrong clocks,
    /// the group's bound ahead of the fastest of the other clocks.
    fn latest_ms(&self) -> u64 {
        let is_right = |r: &&Replica| r.honest() && r.day.wrong.is_none();
        let right = self.replicas.iter().filter(is_right);
        let (count, latest_us) = right
            .fold((0, 0), |(count, latest), r| (count + 1, r.day.unix_us(self.now_us).max(latest)));
        let unsound = self.replicas.len() - count;
        if unsound > usize::from(self.config.faults) {
            return u64::MAX;
        }
        latest_us / 1000 + self.config.max_clock_skew_ms
    }

    fn settle_executions(&mut self, index: usize) {
        if self.replicas[index].disk.is_some() {
            // They count with the events that they belong to.
            return;
        }
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
        let now = self.replicas[index].time(self.now_us);
        let clock = self.replicas[index].day.wall(self.now_us, now);
        let mut own = Vec::new();
        let group = Arc::clone(&self.replicas[index].config);
        self.replicas[index].hosts(now, clock, &group, &self.archive, &mut own, hook);
        for leaving in own {
            self.depart(index, leaving);
        }
    }

    /// A message leaves the egress of a replica for a peer.
    pub(crate) fn send_peer(&mut self, index: usize, to: ReplicaId, message: Bytes) {
        if self.replicas[index].honest() {
            return self.leave(index, to, message);
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
            self.depart(index, departure);
        }
    }

    /// A message leaves a faulty host, now or later.
    fn depart(&mut self, index: usize, leaving: Departure) {
        let Departure { to, message, delay_us } = leaving;
        if usize::from(to.0) >= self.replicas.len() || usize::from(to.0) == index {
            return;
        }
        if delay_us == 0 {
            return self.leave(index, to, message);
        }
        let at_us = self.now_us + delay_us;
        self.schedule(at_us, Event::Depart(index, to, message));
    }

    /// A message leaves a replica for a peer.
    pub(crate) fn leave(&mut self, index: usize, to: ReplicaId, message: Bytes) {
        if self.replicas[index].crashed {
            return;
        }
        self.relays.leaves(index, &message);
        if self.replicas[index].disk.is_some() && self.replicas[index].honest() {
            let checked = self.released.check(ReplicaId(index as u16), &message, &self.config);
            if let Err(breach) = checked {
                self.violate(breach);
            }
        }
        if !self.scenario.hosts.is_empty() {
            self.archive.keep(ReplicaId(index as u16), &message);
        }
        self.remember(index, || What::Sent(to, message.clone()));
        self.transmit(index, usize::from(to.0), message);
    }

    /// A message leaves a replica for a client.
    pub(crate) fn send_client(&mut self, index: usize, end: usize, message: Bytes) {
        if let Some(message) = self.reply_of_host(index, message) {
            self.transmit(index, end, message);
        }
    }

    /// What the hosts of a replica leave of a reply.
    pub(crate) fn reply_of_host(&mut self, index: usize, message: Bytes) -> Option<Bytes> {
        let mut message = Some(message);
        self.hosts(index, |host, scene| {
            message = message.take().and_then(|m| host.reply(scene, m));
        });
        message
    }

    /// Puts a message on a link of the virtual network.
    pub(crate) fn transmit(&mut self, from: usize, to: usize, message: Bytes) {
        *self.counters.sent.entry(kind_of(&message)).or_default() += 1;
        if kind_of(&message) == kind::FETCHED {
            self.counters.fetched_bytes += message.len() as u64;
        }
        let mut deliveries = Vec::new();
        let epoch = self.replicas.get(from).map_or(0, |replica| replica.config.epoch);
        self.network.send(self.now_us, from, to, Packet { message, epoch }, &mut deliveries);
        self.launch(&mut deliveries);
    }

    pub(crate) fn note_new_view(&mut self, index: usize, message: &Bytes) {
        let Ok(new_view) = NewView::parse(message, &self.replicas[index].config) else {
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
        self.egress_up(replica, peer);
        let peer = ReplicaId(peer as u16);
        for pillar in 0..self.config.pillars {
            let input = Input::Pillar(PillarId(pillar), ToPillar::PeerUp(peer));
            self.replicas[replica].post(Stage::Network, input);
        }
        self.replicas[replica].post(Stage::Network, Input::Control(ToControl::PeerUp(peer)));
        self.schedule_run(replica, self.now_us);
    }

    /// Both ends of a link that broke and was made again are told.
    pub(crate) fn reconnected(&mut self, a: usize, b: usize) {
        let n = self.replicas.len();
        for (at, other) in [(a, b), (b, a)] {
            if at < n && other < n && !self.replicas[at].crashed && !self.replicas[other].crashed {
                self.link_up(at, other);
            } else if at >= n && other < n && !self.replicas[other].crashed {
                self.egress_up(other, at);
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
            Fault::Restart(r, down_us) => self.stop(usize::from(*r), Stop::Killed, *down_us),
            Fault::SyncFails(r) => self.break_disk(usize::from(*r)),
            Fault::RestartDamaged(r, down_us) => {
                self.stop(usize::from(*r), Stop::Damaged, *down_us);
            }
            Fault::Copy(r) => self.copy_disk(usize::from(*r)),
            Fault::RestartFromCopy(r, down_us) => {
                self.stop(usize::from(*r), Stop::Replaced, *down_us);
            }
            Fault::PowerLoss(down_us) => {
                (0..self.replicas.len())
                    .for_each(|index| self.stop(index, Stop::PowerLost, *down_us));
            }
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
            Fault::Bandwidth(bytes_per_s) => {
                self.network.limit(now_us, *bytes_per_s, &mut deliveries);
            }
            Fault::Filter(filter) => self.network.filters.push(filter.clone()),
            Fault::NoFilters => self.network.filters.clear(),
        }
        self.launch(&mut deliveries);
        (0..self.replicas.len()).for_each(|index| self.look_for_room(index));
    }

    pub(crate) fn broken(&mut self, a: usize, b: usize) {
        self.network.break_link(a, b);
        let n = self.replicas.len();
        if self.scenario.transport == crate::scenario::Transport::Datagrams {
            return;
        }
        for (client, replica) in [(a, b), (b, a)] {
            if replica < n {
                self.egress_down(replica, client);
            }
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
        self.counters.answered_before = self.counters.answered;
        for replica in 0..self.replicas.len() {
            self.remember(replica, || What::Suffered("all faults end".into()));
            self.replicas[replica].slow = 1;
            self.resume(replica);
            self.revive(replica);
        }
        let mut deliveries = Vec::new();
        let up = self.network.heal(self.now_us, self.scenario.bytes_per_s, &mut deliveries);
        self.launch(&mut deliveries);
        for (a, b) in up {
            self.reconnected(a, b);
        }
        (0..self.replicas.len()).for_each(|index| self.look_for_room(index));
        for client in 0..self.clients.len() {
            self.clients[client].stop();
            let more = self.clients[client].plan.operations_after;
            self.clients[client].more(more);
            self.give_turns(client, self.now_us);
        }
    }
}
