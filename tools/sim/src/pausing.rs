//! Back-pressure to clients: what a client sends to a replica that does not read it waits in the
//! system's buffers, up to their size; then its sender is stuck. A client that follows the protocol keeps
//! the rest itself, and streams lose nothing of it. What others go on to send is lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use hybster_proto::ids::ClientId;
use hybster_proto::input::ToIntake;
use hybster_proto::output::Input;

use crate::replica::Stage;
use crate::world::World;

/// Bytes of a client that the system takes for a replica that does not read it.
const BUFFER_BYTES: usize = 256 << 10;

/// The clients that a replica does not read, and what they sent.
#[derive(Default)]
pub(crate) struct Unread {
    paused: BTreeSet<ClientId>,
    /// The disk is full: clients are refused.
    refuses: bool,
    waiting: BTreeMap<ClientId, (usize, VecDeque<(usize, Bytes)>)>,
}

impl Unread {
    /// Keeps a message, if its client is not read.
    pub(crate) fn keeps(
        &mut self,
        client: ClientId,
        from: usize,
        message: &Bytes,
        loses_nothing: bool,
    ) -> bool {
        if !self.paused.contains(&client) {
            return false;
        }
        let (bytes, waiting) = self.waiting.entry(client).or_default();
        if loses_nothing || *bytes < BUFFER_BYTES {
            *bytes += message.len();
            waiting.push_back((from, message.clone()));
        }
        true
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

    /// What a client sent while it was not read arrives, if it is read now.
    fn read_again(&mut self, replica: usize, client: ClientId) {
        let unread = &mut self.replicas[replica].unread;
        if unread.paused.contains(&client) {
            return;
        }
        let (_, waiting) = unread.waiting.remove(&client).unwrap_or_default();
        for (from, message) in waiting {
            self.accept(from, replica, message);
        }
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
