//! Back-pressure to clients: what a client sends to a replica that does not read it waits in the
//! system's buffers, up to their size; then its sender is stuck. Streams lose nothing of a client that follows
//! the protocol: what its link holds back it knows as not having left (`Network::choke`). What others go
//! on to send is lost. A replica that reads a client again reads as much as these buffers hold in a turn:
//! it may be told in the next one not to go on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use hybster_proto::ids::ClientId;
use hybster_proto::input::ToIntake;
use hybster_proto::output::Input;

use crate::replica::Stage;
use crate::scenario::Transport;
use crate::world::World;

/// Bytes of a client that the system takes for a replica that does not read it, and that a replica reads in a
/// turn.
const BUFFER_BYTES: usize = 256 << 10;

/// The clients that a replica does not read, and what they sent.
#[derive(Default)]
pub(crate) struct Unread {
    paused: BTreeSet<ClientId>,
    /// The disk is full: clients are refused.
    refuses: bool,
    waiting: BTreeMap<ClientId, (usize, VecDeque<(usize, Bytes)>)>,
    /// The ends whose links hold back what they send, by client.
    choked: BTreeSet<(ClientId, usize)>,
}

impl Unread {
    /// Keeps a message, if its client is not read, or others of it have not been read.
    pub(crate) fn keeps(
        &mut self,
        client: ClientId,
        from: usize,
        message: &Bytes,
        loses_nothing: bool,
    ) -> bool {
        if !self.paused.contains(&client) && !self.waiting.contains_key(&client) {
            return false;
        }
        let (bytes, waiting) = self.waiting.entry(client).or_default();
        if loses_nothing || *bytes < BUFFER_BYTES {
            *bytes += message.len();
            waiting.push_back((from, message.clone()));
        }
        true
    }

    /// Whether the link of a client's end is to hold back what it sends.
    fn chokes(&mut self, client: ClientId, from: usize) -> bool {
        let is_full = self.waiting.get(&client).is_some_and(|(bytes, _)| *bytes >= BUFFER_BYTES);
        is_full && self.choked.insert((client, from))
    }

    /// What is read of a client in a turn, unless it is not to be read.
    fn take(&mut self, client: ClientId) -> Vec<(usize, Bytes)> {
        if self.paused.contains(&client) {
            return Vec::new();
        }
        let Some((bytes, waiting)) = self.waiting.get_mut(&client) else { return Vec::new() };
        let (mut read, mut taken) = (0, Vec::new());
        while read < BUFFER_BYTES
            && let Some((from, message)) = waiting.pop_front()
        {
            read += message.len();
            taken.push((from, message));
        }
        *bytes -= read;
        if waiting.is_empty() {
            self.waiting.remove(&client);
        }
        taken
    }

    /// The links of a client that may go on.
    fn unchoked(&mut self, client: ClientId) -> Vec<usize> {
        if self.waiting.get(&client).is_some_and(|(bytes, _)| *bytes >= BUFFER_BYTES) {
            return Vec::new();
        }
        let ends = (client, 0)..=(client, usize::MAX);
        self.choked.extract_if(ends, |_| true).map(|(_, end)| end).collect()
    }

    /// Clients with something that may be read.
    fn readable(&self) -> Vec<ClientId> {
        let may_read = |client: &&ClientId| !self.paused.contains(client);
        self.waiting.keys().filter(may_read).copied().collect()
    }
}

impl World {
    /// A replica does not read a client any more, or does again.
    pub(crate) fn pause_client(&mut self, replica: usize, client: ClientId, is_paused: bool) {
        let unread = &mut self.replicas[replica].unread;
        self.counters.paused_clients += u64::from(is_paused);
        if is_paused {
            unread.paused.insert(client);
            return;
        }
        unread.paused.remove(&client);
        self.read_again(replica, client);
    }

    /// Some of what a client sent while it was not read arrives, if it is read now.
    fn read_again(&mut self, replica: usize, client: ClientId) {
        for (from, message) in self.replicas[replica].unread.take(client) {
            self.admit(from, replica, message);
        }
        let mut deliveries = Vec::new();
        for from in self.replicas[replica].unread.unchoked(client) {
            self.network.choke(self.now_us, from, replica, false, &mut deliveries);
        }
        self.launch(&mut deliveries);
        if !self.replicas[replica].unread.readable().is_empty() {
            self.schedule_run(replica, self.now_us);
        }
    }

    /// A turn of a replica: it goes on reading clients that it did not read for a while.
    pub(crate) fn read_on(&mut self, replica: usize) {
        if self.replicas[replica].unread.waiting.is_empty() {
            return;
        }
        for client in self.replicas[replica].unread.readable() {
            self.read_again(replica, client);
        }
    }

    /// Whether a message of a client waits to be read.
    pub(crate) fn is_unread(&mut self, from: usize, to: usize, message: &Bytes) -> bool {
        let (n, client) =
            (self.replicas.len(), self.client_link(from - self.replicas.len()).client);
        let is_stream = self.scenario.transport == Transport::Streams;
        let loses_nothing = is_stream && from < n + self.clients.len();
        let unread = &mut self.replicas[to].unread;
        if !unread.keeps(client, from, message, loses_nothing) {
            return false;
        }
        if loses_nothing && unread.chokes(client, from) {
            self.network.choke(self.now_us, from, to, true, &mut Vec::new());
        }
        true
    }

    /// A replica whose disk is full refuses what clients ask for.
    pub(crate) fn look_at_room(&mut self, replica: usize) {
        let disk = self.replicas[replica].disk.as_ref();
        let lacks_room = disk.is_some_and(|disk| disk.holds_clients());
        let before = std::mem::replace(&mut self.replicas[replica].unread.refuses, lacks_room);
        self.counters.full_disks += u64::from(lacks_room && !before);
        if before != lacks_room {
            let told = ToIntake::DiskFull { is_full: lacks_room };
            self.replicas[replica].post(Stage::Network, Input::Intake(told));
        }
    }
}
