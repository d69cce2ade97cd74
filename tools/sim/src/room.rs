//! Room on the links of clients, as a replica's hub measures and tells it.
//!
//! What waits for a client is bounded in bytes; a link is called full from half of that on, and has room
//! again at an eighth. Whether it is full is looked at before a message is added, so a link may have no
//! room and not be called full: hubs count in pieces of their own, and nobody may depend on how.

use std::collections::BTreeSet;

use hybster_proto::backlog::{Backlog, ClientRoom};
use hybster_proto::egress::Egress;
use hybster_proto::output::{ClientLink, Reply, ReplyQueue};

use crate::egress::Wires;
use crate::replica::Stage;
use crate::world::World;

/// What a hub knows of the links of its clients, which are named by the numbers of their ends.
#[derive(Default)]
pub(crate) struct ClientQueues {
    full: BTreeSet<usize>,
    /// What is to be told at the next turn: a link is full, or has room again.
    told: Vec<(usize, bool)>,
}

/// Where the backlog of replies sends what has room.
struct Replies<'a, 'b> {
    egress: &'a mut Egress<usize>,
    wires: &'a mut Wires<'b>,
}

impl ClientRoom for Replies<'_, '_> {
    fn room(&self, client: ClientLink) -> Option<usize> {
        let end = self.egress.client_link(client)?;
        let Wires { world, index } = &*self.wires;
        let waiting = world.network.unsent_bytes(*index, end);
        Some((world.scenario.client_queue_bytes / 2).saturating_sub(waiting))
    }

    fn await_room(&mut self, client: ClientLink) {
        if let Some(end) = self.egress.client_link(client) {
            let index = self.wires.index;
            self.wires.world.replicas[index].client_queues.full.insert(end);
            self.wires.world.look_for_room(index);
        }
    }

    fn send(&mut self, reply: &Reply<'_>) {
        self.egress.reply_one(reply, self.wires);
    }
}

impl World {
    /// Whether a client's link takes one more message, of which `limit` bytes may wait.
    pub(crate) fn has_room(&mut self, index: usize, end: usize, limit: usize) -> bool {
        let waiting = self.network.unsent_bytes(index, end);
        if waiting >= limit {
            self.counters.refused_replies += 1;
            return false;
        }
        let half = self.scenario.client_queue_bytes / 2;
        let queues = &mut self.replicas[index].client_queues;
        if waiting >= half && queues.full.insert(end) {
            queues.told.push((end, true));
            self.schedule_run(index, self.now_us);
        }
        true
    }

    /// Links may have sent what waited.
    pub(crate) fn look_for_room(&mut self, index: usize) {
        let Some(replica) = self.replicas.get_mut(index) else { return };
        let (network, mark) = (&self.network, self.scenario.client_queue_bytes / 8);
        let before = replica.client_queues.told.len();
        let has_room = |end: &usize| network.unsent_bytes(index, *end) <= mark;
        let ClientQueues { full, told } = &mut replica.client_queues;
        told.extend(full.extract_if(.., has_room).map(|end| (end, false)));
        if told.len() > before {
            self.schedule_run(index, self.now_us);
        }
    }

    /// A link is gone, or another is in its place.
    pub(crate) fn forget_room(&mut self, index: usize, end: usize) {
        let queues = &mut self.replicas[index].client_queues;
        queues.full.remove(&end);
        queues.told.retain(|(told, _)| *told != end);
    }

    /// Tells the backlog of a replica what its hub has found.
    pub(crate) fn tell_room(&mut self, index: usize) {
        for (end, is_full) in std::mem::take(&mut self.replicas[index].client_queues.told) {
            let client = self.client_link(end - self.replicas.len());
            let replica = &mut self.replicas[index];
            let is_live = |egress: &Egress<usize>| egress.client_link(client) == Some(end);
            if !replica.egress.as_ref().is_some_and(is_live) {
                continue;
            }
            match (&mut replica.backlog, is_full) {
                (Some(backlog), true) => backlog.client_full(client),
                (Some(backlog), false) => backlog.client_room(client),
                (None, _) => unreachable!("it is not at work between turns"),
            }
        }
    }

    fn with_backlog(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Backlog, &mut Egress<usize>, &mut Wires<'_>),
    ) {
        let taken = self.replicas[index].backlog.take();
        let mut backlog = taken.expect("the backlog does not call itself");
        self.with_egress(index, |egress, _, wires| act(&mut backlog, egress, wires));
        self.replicas[index].backlog = Some(backlog);
    }

    /// Replies of a replica.
    pub(crate) fn reply(&mut self, index: usize, replies: &ReplyQueue) {
        if replies.is_empty() {
            return;
        }
        let now = self.replicas[index].clock.local(self.now_us);
        self.with_backlog(index, |backlog, egress, wires| {
            if backlog.concerns(replies) {
                backlog.sort(replies, now, &mut Replies { egress, wires });
            } else {
                egress.reply(replies, wires);
            }
        });
    }

    /// The end of a turn: replies are recalled for links that have room.
    pub(crate) fn flush_backlog(&mut self, index: usize) {
        let mut inputs = Vec::new();
        self.with_backlog(index, |backlog, egress, wires| {
            backlog.flush(&mut Replies { egress, wires }, &mut inputs);
            backlog.check_all_invariants();
        });
        let replica = &mut self.replicas[index];
        inputs.into_iter().for_each(|input| replica.post(Stage::Network, input));
        let waits = replica.backlog.as_ref().is_some_and(|backlog| backlog.waiting() > 0);
        self.counters.turns_with_waiting_replies += u64::from(waits);
    }
}
