//! Back-pressure to clients: what a client sends to a replica that does not read it waits in the
//! system's buffers, up to their size; then its sender is stuck. A client that follows the protocol keeps
//! the rest itself, and streams lose nothing of it. What others go on to send is lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use hybster_proto::ids::ClientId;

use crate::world::World;

/// Bytes of a client that the system takes for a replica that does not read it.
const BUFFER_BYTES: usize = 256 << 10;

/// The clients that a replica does not read, and what they sent.
#[derive(Default)]
pub(crate) struct Unread {
    paused: BTreeSet<ClientId>,
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
        let (_, waiting) = unread.waiting.remove(&client).unwrap_or_default();
        for (from, message) in waiting {
            self.accept(from, replica, message);
        }
    }
}
