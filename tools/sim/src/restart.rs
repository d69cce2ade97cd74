//! Replicas that stop and are started again from their disks.

use std::mem;

use hybster_proto::ids::{OrderNumber, ReplicaId};
use hybster_proto::input::ToState;
use hybster_proto::output::{Input, Output, ToControl};
use hybster_tss::CounterValue;

use crate::agenda::Event;
use crate::disk::{Deed, Stop};
use crate::replica::{Replica, Stage};
use crate::scenario::Transport;
use crate::world::{What, World};

impl World {
    /// What a stage put out goes to the log first; what would leave the host waits for that.
    pub(crate) fn log(&mut self, index: usize, out: &mut Output) {
        let replica = &mut self.replicas[index];
        let Some(disk) = &mut replica.disk else { return };
        for record in out.records.drain(..) {
            disk.append(&record);
        }
        for event in out.trace.drain(..) {
            disk.did(Deed::Event(event));
        }
        replica.record.take(&mut disk.executions);
        disk.gate.pass(disk.end(), out);
        if let Some(order) = out.summarized.take() {
            disk.summarized(order);
        }
        let plan = self.scenario.disk.expect("there are disks");
        if let Some(checkpoint) = out.checkpoint.take()
            && disk.save(checkpoint)
        {
            self.save(index, plan.save_us);
        }
        self.sync(index, plan.sync_us);
        self.count_deeds(index);
        self.look_for_failure(index);
    }

    /// A replica whose log has failed does nothing more.
    fn look_for_failure(&mut self, index: usize) {
        let Some(disk) = &mut self.replicas[index].disk else { return };
        if mem::take(&mut disk.has_failed) {
            let life = disk.life;
            self.schedule(self.now_us, Event::LogFailed(index, life));
        }
    }

    /// Stops a replica whose log has failed; of what was not synced some may be there when it is started again.
    pub(crate) fn log_failed(&mut self, index: usize, life: u32) {
        if !self.is_alive(index, life) {
            return;
        }
        let is_used_up = self.replicas[index].disk.as_ref().is_some_and(|disk| disk.is_used_up());
        self.counters.used_up_logs += u64::from(is_used_up);
        self.counters.failed_syncs += u64::from(!is_used_up);
        let random = &mut self.replicas[index].random;
        let how = *random.pick(&[Stop::Killed, Stop::PowerLost]);
        let down_us = random.between(1, 10_000);
        self.stop(index, how, down_us);
    }

    /// The next sync of a replica's log fails.
    pub(crate) fn break_disk(&mut self, index: usize) {
        let Replica { disk, crashed: false, .. } = &mut self.replicas[index] else { return };
        if let Some(disk) = disk {
            disk.breaks();
        }
    }

    fn save(&mut self, index: usize, at_most_us: u64) {
        let replica = &mut self.replicas[index];
        let life = replica.disk.as_ref().map_or(0, |disk| disk.life);
        let at_us = self.now_us + replica.random.between(1, at_most_us);
        self.schedule(at_us, Event::Saved(index, life));
    }

    fn sync(&mut self, index: usize, at_most_us: u64) {
        let replica = &mut self.replicas[index];
        let Some(disk) = &mut replica.disk else { return };
        if disk.is_syncing || disk.is_synced() {
            return;
        }
        disk.write();
        let life = disk.life;
        let at_us = self.now_us + replica.random.between(1, at_most_us);
        self.schedule(at_us, Event::Synced(index, life));
    }

    fn is_alive(&self, index: usize, life: u32) -> bool {
        let replica = &self.replicas[index];
        !replica.crashed && replica.disk.as_ref().is_some_and(|disk| disk.life == life)
    }

    /// The log of a replica is synced up to where it was written.
    pub(crate) fn synced(&mut self, index: usize, life: u32) {
        if !self.is_alive(index, life) {
            return;
        }
        if let Some(disk) = &mut self.replicas[index].disk {
            disk.synced();
        }
        self.count_deeds(index);
        self.open_gate(index);
        self.flush_egress(index);
        self.truncate(index);
        self.look_at_room(index);
        self.look_for_failure(index);
        let sync_us = self.scenario.disk.map_or(1, |plan| plan.sync_us);
        self.sync(index, sync_us);
        self.schedule_run(index, self.now_us);
    }

    /// The beginning of the log is removed when nothing needs it; a round of summaries begins when it
    /// has grown.
    fn truncate(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        let Some(disk) = &mut replica.disk else { return };
        let (is_shorter, begins) = disk.truncate(self.now_us / 1_000);
        self.counters.truncations += u64::from(is_shorter);
        if begins {
            replica.post(Stage::Network, Input::Control(ToControl::Summarize));
        }
    }

    /// What waited for the log leaves.
    fn open_gate(&mut self, index: usize) {
        while let Some(mut held) =
            self.replicas[index].disk.as_mut().and_then(|disk| disk.gate.release())
        {
            for effect in held.network.drain(..) {
                self.send(index, effect);
            }
            self.reply(index, &held.replies);
            if let Some(disk) = &mut self.replicas[index].disk {
                disk.gate.recycle(held);
            }
        }
    }

    /// Shows the oracles what nothing can take back any more.
    fn count_deeds(&mut self, index: usize) {
        let at = ReplicaId(index as u16);
        let Some(disk) = &mut self.replicas[index].disk else { return };
        let mut executions = mem::take(&mut disk.executions);
        while let Some(deed) = self.replicas[index].disk.as_mut().and_then(|disk| disk.next_deed())
        {
            match deed {
                Deed::Event(event) => {
                    mem::swap(&mut executions, &mut self.executions);
                    self.witness(index, event);
                    mem::swap(&mut executions, &mut self.executions);
                }
                Deed::Forwarded(pillar, to) => self.oracles.forwarded(at, pillar, to),
            }
        }
        if let Some(disk) = &mut self.replicas[index].disk {
            disk.executions = executions;
        }
    }

    /// A checkpoint of a replica is durable.
    pub(crate) fn saved(&mut self, index: usize, life: u32) {
        if !self.is_alive(index, life) {
            return;
        }
        let saved = self.replicas[index].disk.as_mut().and_then(|disk| disk.saved());
        let Some((order, goes_on)) = saved else { return };
        if goes_on {
            let save_us = self.scenario.disk.map_or(1, |plan| plan.save_us);
            self.save(index, save_us);
        }
        self.replicas[index].post(Stage::Network, Input::State(ToState::Durable(order)));
        self.truncate(index);
        self.look_at_room(index);
        self.look_for_failure(index);
        self.schedule_run(index, self.now_us);
    }

    /// A replica with a disk stops, and is started again later.
    pub(crate) fn stop(&mut self, index: usize, how: Stop, down_us: u64) {
        let replica = &mut self.replicas[index];
        if replica.crashed || !replica.honest() {
            return;
        }
        let Some(disk) = &mut replica.disk else { return };
        disk.stop(how, &mut replica.random);
        self.counters.restarts += 1;
        self.replicas[index].crashed = true;
        self.replicas[index].is_down = true;
        if self.scenario.transport == Transport::Streams {
            for end in self.linked(index) {
                self.broken(index, end);
            }
        }
        self.schedule(self.now_us + down_us, Event::Start(index));
    }

    /// Copies what a replica has on its disk.
    pub(crate) fn copy_disk(&mut self, index: usize) {
        if let Some(disk) = &mut self.replicas[index].disk {
            disk.copy();
        }
    }

    /// Whether a replica was started from an older copy of its disk.
    pub(crate) fn has_older_copy(&self, index: usize) -> bool {
        self.replicas[index].disk.as_ref().is_some_and(|disk| disk.is_copy)
    }

    /// The ends of a replica's links to peers and clients.
    fn linked(&self, index: usize) -> Vec<usize> {
        let ends = self.replicas.len() + self.clients.len();
        (0..ends).filter(|end| *end != index).collect()
    }

    /// A replica that was stopped is started, and its links are made again.
    pub(crate) fn start(&mut self, index: usize) {
        if !self.revive(index) || self.scenario.transport != Transport::Streams {
            return;
        }
        let mut deliveries = Vec::new();
        for end in self.linked(index) {
            if self.network.reconnect(self.now_us, index, end, &mut deliveries) {
                self.reconnected(index, end);
            }
        }
        self.launch(&mut deliveries);
    }

    /// Starts a replica that was stopped; its links are as they are.
    pub(crate) fn revive(&mut self, index: usize) -> bool {
        if !mem::take(&mut self.replicas[index].is_down) {
            return false;
        }
        self.remember(index, || What::Suffered("it is started again".into()));
        let recovered = self.recover(index);
        if recovered.is_err() && self.replicas[index].disk.as_ref().is_some_and(|it| it.is_damaged)
        {
            self.counters.damaged_logs += 1;
            self.replicas[index].crashed = true;
            return false;
        }
        if let Err(story) = recovered {
            self.violate(("recovery", story, vec![index as u16]));
            return false;
        }
        let n = self.replicas.len();
        let ends = n + self.clients.len() + self.rogues.len();
        let is_stream = self.scenario.transport == Transport::Streams;
        for end in (0..ends).filter(|end| *end != index) {
            // Other streams are told when they are connected.
            if !is_stream || end >= n + self.clients.len() {
                self.egress_up(index, end);
            }
        }
        self.schedule_run(index, self.now_us);
        true
    }

    fn recover(&mut self, index: usize) -> Result<(), String> {
        let now = self.replicas[index].clock.local(self.now_us);
        let Replica { disk, random, .. } = &mut self.replicas[index];
        let Some(disk) = disk else { return Ok(()) };
        let (records, is_whole) = disk.start(random)?;
        // What the log has, the replica has done, though nobody may have been told.
        self.count_deeds(index);
        let Self { scenario, keys, ledger, config, replicas, .. } = self;
        let seen =
            replicas[index].recover((records, is_whole), scenario, config, keys, ledger, now)?;
        if self.has_older_copy(index) {
            for (pillar, at) in self.config.all_pillars().zip(&seen.counters) {
                self.released.copied(ReplicaId(index as u16), pillar, *at);
            }
        }
        self.oracles.restarted(ReplicaId(index as u16), seen);
        self.drain(index, Stage::Execution);
        let replica = &mut self.replicas[index];
        replica.core.resume_control(now, &mut replica.out);
        self.drain(index, Stage::Control);
        for pillar in self.config.clone().all_pillars() {
            let replica = &mut self.replicas[index];
            replica.core.resume_pillar(pillar, now, &mut replica.out);
            self.drain(index, Stage::Pillar(pillar));
        }
        if self.replicas[index].honest() {
            self.replicas[index].core.check_all_invariants();
        }
        Ok(())
    }
}

/// What an oracle is to know of a replica that was started again.
pub(crate) struct Restarted {
    /// The order number that it has executed last.
    pub(crate) executed: OrderNumber,
    pub(crate) stable: OrderNumber,
    /// Per pillar, the base of its window.
    pub(crate) bases: Vec<OrderNumber>,
    /// Per pillar, where its counter O is.
    pub(crate) counters: Vec<CounterValue>,
    pub(crate) view: hybster_proto::ids::View,
    pub(crate) in_view: bool,
}
