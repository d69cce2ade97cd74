//! What a replica may hold at most: the buffers of its stages, links and threads, in one sum.
//!
//! The sum is made and checked when a replica starts, and shown by `hybster status --memory`: what an
//! operator has to reckon with, and where somebody outside can still make a replica grow without a
//! limit. [`hybster_proto::bounds`] has the part of the stages.

use hybster_net::Limits;
use hybster_net::limits::{PollLimits, UringLimits};
pub use hybster_proto::bounds::{Bound, Buffer, FilledBy};
use hybster_proto::egress::{AGAIN_BYTES, EgressLimits, reply_link_bytes};
use hybster_proto::output::SPARE_QUEUE_BYTES;
use hybster_proto::{admission, bounds};

use crate::durable::{self, Durability};
use crate::runtime::{QUEUE_BYTES, SPARE_QUEUES, TRACE_SLOT_BYTES};
use crate::{Group, GroupConfig};

/// All buffers of a replica, and their sum.
///
/// ```
/// use hybster::group::{CreateOptions, generate};
/// use hybster::memory::Memory;
///
/// # fn main() -> Result<(), hybster::GroupError> {
/// let group = generate(&CreateOptions::default())?.group;
/// let memory = Memory::of(&group);
/// println!("at most {} bytes, besides the service's state", memory.bounded_bytes);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Every buffer once.
    pub buffers: Vec<Buffer>,
    /// The sum of those that are bounded, in bytes.
    pub bounded_bytes: u64,
}

impl Memory {
    /// What a replica of a group may hold, in the layout with the most threads.
    ///
    /// # Panics
    /// If the sum does not add up. The group's constants have been checked.
    #[must_use]
    pub fn of(group: &Group) -> Self {
        Self::sum(group.config(), &group.link_limits(), group.durability())
    }

    fn sum(config: &GroupConfig, limits: &Limits, durability: Durability) -> Self {
        // The network, P pillars, execution and state.
        let agents = 3 + u64::from(config.pillars);
        let mut buffers = bounds::of_stages(config).expect("the constants were validated");
        let of_links = of_links(config, limits).expect("limits of links are small numbers");
        buffers.extend(of_links);
        buffers.extend(of_threads(config, limits, agents).expect("there are few threads"));
        if durability != Durability::None {
            buffers
                .extend(of_disk(config, durability).expect("sizes of the log are small numbers"));
        }
        let bounded_bytes = bounds::sum(&buffers).expect("a sum of parts far below 2^64");
        let memory = Self { buffers, bounded_bytes };
        memory.check();
        memory
    }

    /// The sum of what a kind of source can fill, in bytes.
    #[must_use]
    pub fn filled_by(&self, by: FilledBy) -> u64 {
        let parts = self.buffers.iter().filter(|buffer| buffer.filled_by == by);
        bounds::sum(parts).expect("a part of a sum that was made")
    }

    /// How many buffers somebody outside can fill without a limit.
    #[must_use]
    pub fn open(&self) -> usize {
        self.buffers.iter().filter(|buffer| buffer.bound == Bound::Open).count()
    }

    fn check(&self) {
        let parts = FilledBy::ALL.map(|by| self.filled_by(by));
        assert_eq!(parts.iter().sum::<u64>(), self.bounded_bytes, "each buffer counts once");
        for (at, buffer) in self.buffers.iter().enumerate() {
            let twice = self.buffers[..at].iter().any(|other| other.name == buffer.name);
            assert!(!twice, "{} is listed twice", buffer.name);
        }
    }
}

fn of_links(config: &GroupConfig, limits: &Limits) -> Option<Vec<Buffer>> {
    let mut buffers = of_peer_links(config, limits)?;
    buffers.extend(of_client_links(config, limits)?);
    buffers.push(bounds::buffer(
        "send buffers for reuse",
        "net/src/hub/pool.rs",
        FilledBy::Replica,
        bounds::product(&[limits.pool_bytes as u64])?,
        "given back to the allocator",
    ));
    Some(buffers)
}

fn of_peer_links(config: &GroupConfig, limits: &Limits) -> Option<Vec<Buffer>> {
    use FilledBy::{Leader, Peers};
    use bounds::{buffer, product};
    let peers = u64::from(config.replicas) - 1;
    let Limits {
        peer_frame_bytes, frame_target_bytes, link_window_bytes, peer_queue_bytes, ..
    } = *limits;
    let (peer_frame, target) = (u64::from(peer_frame_bytes), frame_target_bytes as u64);
    Some(vec![
        // Not handed to a link yet, so what the protocol has left behind is withdrawn.
        buffer(
            "messages queued for peers",
            "engine/proto/src/egress/peer.rs",
            Peers,
            product(&[peers, EgressLimits::default().queue_bytes as u64])?,
            "dropped and counted (dropped_sends)",
        ),
        buffer(
            "messages handed to the links of peers",
            "net/src/hub/peers.rs",
            Peers,
            product(&[peers, peer_queue_bytes as u64])?,
            "wait in the queues for peers",
        ),
        // The window, the frame that goes beyond it, and the one under construction.
        buffer(
            "frames on their way to peers",
            "net/src/hub/outbound.rs",
            Peers,
            product(&[peers, link_window_bytes as u64 + 2 * peer_frame.max(target)])?,
            "stay in the queue",
        ),
        // Grows with the bytes that arrive, never with the length that a frame claims.
        buffer(
            "frames being received from peers",
            "net/src/frame.rs",
            Peers,
            product(&[peers, peer_frame])?,
            "the link is closed (too_long)",
        ),
        // Where the system puts what it receives: what frames are cut out of, and used again.
        buffer(
            "read blocks",
            "net/src/blocks.rs",
            Peers,
            product(&[UringLimits::default().read_bytes()])?,
            "freed with the last message in them",
        ),
        // A stored PREPARE is a slice of its frame, and keeps all of it.
        buffer(
            "frames kept by PREPAREs in the log",
            "engine/src/runtime/network.rs",
            Leader,
            product(&[2, config.window, peer_frame])?,
            "as many as there are slots",
        ),
    ])
}

fn of_client_links(config: &GroupConfig, limits: &Limits) -> Option<Vec<Buffer>> {
    use FilledBy::Clients;
    use bounds::{buffer, product};
    let peers = u64::from(config.replicas) - 1;
    let Limits {
        client_frame_bytes,
        client_queue_bytes,
        clients,
        handshakes,
        handshakes_per_peer,
        handshake_bytes,
        turn_bytes,
        ..
    } = *limits;
    let (client_frame, clients) = (u64::from(client_frame_bytes), clients as u64);
    let one_read = PollLimits::default().connection_turn_bytes as u64;
    Some(vec![
        // With what the poll had read that found it out; with io_uring that lies in the read blocks.
        buffer(
            "what arrived and was not looked at",
            "net/src/hub/turns.rs",
            Clients,
            product(&[peers + clients, turn_bytes as u64 / 4 + one_read])?,
            "the link is not read",
        ),
        // In flight and under construction.
        buffer(
            "replies queued for clients",
            "net/src/hub/outbound.rs",
            Clients,
            product(&[clients, client_queue_bytes as u64 + client_frame])?,
            "recalled from the session table when there is room; closed if it takes none (slow_reader)",
        ),
        buffer(
            "replies of a link until the end of a turn",
            "engine/proto/src/egress/replies.rs",
            Clients,
            product(&[clients, reply_link_bytes(config.max_reply_bytes)])?,
            "the message is closed, and the next one begun",
        ),
        buffer(
            "frames being received from clients",
            "net/src/frame.rs",
            Clients,
            product(&[clients, client_frame])?,
            "the link is closed (too_long)",
        ),
        buffer(
            "handshakes",
            "net/src/hub/half_open.rs",
            Clients,
            product(&[
                handshakes as u64 + peers * handshakes_per_peer as u64,
                handshake_bytes as u64,
            ])?,
            "one of the address that has the most gives way (capacity)",
        ),
    ])
}

fn of_threads(config: &GroupConfig, limits: &Limits, agents: u64) -> Option<Vec<Buffer>> {
    use FilledBy::{Peers, Replica};
    use bounds::{buffer, product};
    let pairs = agents * (agents - 1);
    let peers = u64::from(config.replicas) - 1;
    // What is read before it is seen that much waits goes beyond: a turn's share and a frame.
    let beyond = limits.turn_bytes as u64 + u64::from(limits.peer_frame_bytes);
    let in_flight = admission::UNREAD_BYTES + beyond;
    Some(vec![
        buffer(
            "queues between threads",
            "engine/src/runtime/channel.rs",
            Replica,
            product(&[pairs, QUEUE_BYTES])?,
            "wait at the sender, and clients are not read",
        ),
        // Most of the time next to nothing: a stage takes what a peer sends as fast as it comes.
        buffer(
            "messages of peers that wait for a stage",
            "engine/src/runtime/agent.rs",
            Peers,
            product(&[peers, in_flight])?,
            "the peer is not read; what no correct peer has in flight is dropped, counted and logged",
        ),
        buffer(
            "emptied reply queues for reuse",
            "engine/src/runtime/agent.rs",
            Replica,
            product(&[agents, SPARE_QUEUES as u64, SPARE_QUEUE_BYTES])?,
            "given back to the allocator",
        ),
        // One slot that is filled and one that is written, if the replica writes a trace.
        buffer(
            "events for the trace file",
            "engine/src/runtime/tracing.rs",
            Replica,
            product(&[agents + 1, TRACE_SLOT_BYTES as u64])?,
            "dropped and counted in the trace",
        ),
    ])
}

fn of_disk(config: &GroupConfig, durability: Durability) -> Option<Vec<Buffer>> {
    use FilledBy::{Peers, Replica};
    use bounds::{buffer, product};
    let replicas = u64::from(config.replicas);
    Some(vec![
        // Records that are not written yet, and blocks that are being made of them.
        buffer(
            "log",
            "engine/log/src/ring.rs",
            Replica,
            product(&[durable::log_bytes(durability, config)])?,
            "clients are not read; when nothing has room any more, a stage waits for the disk",
        ),
        // For each peer, and for all of them. What is new is in the order window, and counted there.
        buffer(
            "messages that are sent again and wait for the log",
            "engine/proto/src/egress/gate.rs",
            Peers,
            product(&[replicas, AGAIN_BYTES as u64])?,
            "dropped: they are sent again",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_is_where_it_is_said_to_be_and_counts_once() {
        let memory = Memory::sum(&GroupConfig::default(), &Limits::default(), Durability::Sync);
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for Buffer { name, place, bound, beyond, .. } in &memory.buffers {
            assert!(root.join(place).is_file(), "{name}: there is no {place}");
            assert_ne!(*bound, Bound::Bytes(0), "{name}");
            assert!(!beyond.is_empty(), "{name}");
        }
        assert!(memory.bounded_bytes > memory.filled_by(FilledBy::Peers));
        assert_eq!(
            memory.open(),
            0,
            "every buffer has a bound, but those that the service decides"
        );
    }

    #[test]
    #[should_panic(expected = "counts once")]
    fn a_sum_of_other_parts_is_noticed() {
        let mut memory = Memory::sum(&GroupConfig::default(), &Limits::default(), Durability::Sync);
        memory.buffers.pop();
        memory.check();
    }

    #[test]
    #[should_panic(expected = "listed twice")]
    fn a_buffer_that_is_listed_twice_is_noticed() {
        let mut memory = Memory::sum(&GroupConfig::default(), &Limits::default(), Durability::Sync);
        let again = memory.buffers.iter().find(|buffer| buffer.bound == Bound::Service).cloned();
        memory.buffers.extend(again);
        memory.check();
    }
}
