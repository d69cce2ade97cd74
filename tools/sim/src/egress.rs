//! The egress of a replica at work in the virtual network, and what oracles ask of it.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use hybster_proto::egress::{Egress, LinkState, Links, PROMPT_PREPARES};
use hybster_proto::ids::ReplicaId;
use hybster_proto::output::{Destination, Network as Effect};
use hybster_proto::time::Time;
use hybster_proto::wire::{kind, kind_of};

use crate::replica::Stage;
use crate::world::World;

/// The links of one replica. Clients are named by the number of their end.
pub(crate) struct Wires<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) index: usize,
}

impl Links<usize> for Wires<'_> {
    fn unsent_bytes(&mut self, peer: ReplicaId) -> usize {
        self.world.network.unsent_bytes(self.index, usize::from(peer.0))
    }

    fn link_state(&mut self, peer: ReplicaId) -> LinkState {
        let network = &self.world.network;
        LinkState {
            outstanding_bytes: network.outstanding_bytes(
                self.world.now_us,
                self.index,
                usize::from(peer.0),
            ),
            round_trip_us: network.round_trip_us(),
        }
    }

    fn send(&mut self, peer: ReplicaId, message: Bytes) -> bool {
        self.world.send_peer(self.index, peer, message);
        true
    }

    fn send_to_client(&mut self, end: usize, message: &[u8]) {
        if !self.world.has_room(self.index, end, self.world.scenario.client_queue_bytes) {
            return;
        }
        self.world.send_client(self.index, end, Bytes::copy_from_slice(message));
    }

    fn seal_for_client(&mut self, _: usize, message: &[u8], envelope: &mut Vec<u8>) -> bool {
        // A liar seals what it likes.
        let sealed = self.world.reply_of_host(self.index, Bytes::copy_from_slice(message));
        envelope.extend_from_slice(sealed.as_deref().unwrap_or_default());
        sealed.is_some()
    }

    fn relay_to_client(&mut self, end: usize, head: &[u8], envelope: &[u8]) -> bool {
        let has_room =
            self.world.has_room(self.index, end, self.world.scenario.client_queue_bytes / 2);
        if has_room {
            self.world.send_client(self.index, end, [head, envelope].concat().into());
        }
        has_room
    }

    fn close_client(&mut self, end: usize) {
        self.world.closes_client(self.index, end);
    }
}

impl World {
    pub(crate) fn with_egress<R>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Egress<usize>, Time, &mut Wires<'_>) -> R,
    ) -> R {
        let now = self.replicas[index].clock.local(self.now_us);
        let mut egress = self.replicas[index].egress.take().expect("egress does not call itself");
        let result = act(&mut egress, now, &mut Wires { world: self, index });
        self.replicas[index].egress = Some(egress);
        result
    }

    /// A link of a replica is up: to a peer, or to a client.
    pub(crate) fn egress_up(&mut self, replica: usize, end: usize) {
        let n = self.replicas.len();
        let link = (end >= n).then(|| self.client_link(end - n));
        self.with_egress(replica, |egress, _, _| match link {
            Some(client) => egress.client_up(client, end),
            None => egress.peer_up(ReplicaId(end as u16)),
        });
        if let (Some(client), Some(backlog)) = (link, &mut self.replicas[replica].backlog) {
            backlog.client_up(client);
            self.forget_room(replica, end);
        }
    }

    /// A link of a replica is gone.
    pub(crate) fn egress_down(&mut self, replica: usize, end: usize) {
        let n = self.replicas.len();
        let link = (end >= n).then(|| self.client_link(end - n));
        self.with_egress(replica, |egress, _, _| match link {
            Some(client) => egress.client_down(client, end),
            None => egress.peer_down(ReplicaId(end as u16)),
        });
        if let (Some(client), Some(backlog)) = (link, &mut self.replicas[replica].backlog) {
            backlog.client_down(client);
            self.forget_room(replica, end);
            self.schedule_run(replica, self.now_us);
        }
        if self.answers_left(replica) {
            self.schedule_run(replica, self.now_us);
        }
    }

    /// Tells stages which of their answers do not wait any more; whether there were some.
    fn answers_left(&mut self, index: usize) -> bool {
        let replica = &mut self.replicas[index];
        let mut inputs = Vec::new();
        if let Some(egress) = &mut replica.egress {
            egress.tell_stages(|input| inputs.push(input));
        }
        let is_any = !inputs.is_empty();
        inputs.into_iter().for_each(|input| replica.post(Stage::Network, input));
        is_any
    }

    /// A client sent queries to a replica.
    pub(crate) fn queried(&mut self, replica: usize) {
        self.replicas[replica].prompt = PROMPT_PREPARES;
        self.with_egress(replica, |egress, _, _| egress.queried());
    }

    /// A follower asks a replica to relay its replies.
    pub(crate) fn relay(&mut self, replica: usize, from: ReplicaId, message: &[u8]) {
        // What is wrong with it is counted by the driver; here it just ends.
        let _ = self.with_egress(replica, |egress, _, wires| egress.relay(from, message, wires));
    }

    /// An effect of a stage.
    pub(crate) fn send(&mut self, index: usize, effect: Effect) {
        if let Effect::Send { message, .. } = &effect
            && kind_of(message) == kind::NEW_VIEW
        {
            self.note_new_view(index, message);
        }
        if let Effect::Send { message, is_new: true, .. } = &effect {
            self.note_new(index, message);
        }
        let is_thrifty = matches!(&effect, Effect::Send { to: Destination::Thrifty(_), .. });
        if is_thrifty {
            self.coverage.thrifty(&mut self.counters);
        }
        self.with_egress(index, |egress, now, wires| egress.apply(effect, now, wires));
        if is_thrifty && self.replicas[index].prompt > 0 {
            self.replicas[index].prompt -= 1;
            self.flush_egress(index);
            self.nothing_waits("no PREPARE is late while clients query", index, 0);
        }
    }

    /// Egress looks for no copy of what a stage calls new, so nothing may be called so twice.
    fn note_new(&mut self, index: usize, message: &[u8]) {
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        if !self.replicas[index].sent_as_new.insert(hasher.finish()) {
            let story = format!("r{index}: a message of kind {} is new again", kind_of(message));
            self.violate(("a message is new once", story, vec![index as u16]));
        }
    }

    /// The end of a replica's turn.
    pub(crate) fn flush_egress(&mut self, index: usize) {
        self.with_egress(index, |egress, now, wires| egress.flush(now, wires));
        self.answers_left(index);
        self.flush_backlog(index);
        let egress = self.replicas[index].egress.as_ref();
        if let Some(story) = egress.and_then(|egress| egress.broken_invariant(true)) {
            self.violate(("egress", format!("r{index}: {story}"), vec![index as u16]));
        }
        self.nothing_waits("no message is late for long", index, self.scenario.egress.late_us);
    }

    /// No message of an honest replica has waited for so long, though its link has room.
    fn nothing_waits(&mut self, property: &'static str, index: usize, for_us: u64) {
        let now = self.replicas[index].clock.local(self.now_us);
        let Some(egress) = self.replicas[index].egress.as_ref() else { return };
        let late = self
            .config
            .all_replicas()
            .find(|peer| egress.waiting(*peer, now).is_some_and(|waited_us| waited_us >= for_us));
        if let Some(peer) = late {
            let story = format!("r{index}: a message has waited too long for {peer}");
            self.violate((property, story, vec![index as u16]));
        }
    }
}
