//! What one replica may hold at most, buffer by buffer.
//!
//! Nothing is allocated here: this is the sum that a pool of messages would be sized by, written
//! down once, so that a start can check it, an operator can see it (`hybster status --memory`), and
//! a reader finds for each buffer who can fill it, how far, and what happens then. A buffer that
//! somebody outside can fill without a limit is in the list as well, as [`Bound::Open`]: a debt.
//!
//! The buffers of the general stages are here. The ordering protocol adds its own
//! ([`Rules::buffers`](crate::protocol::Rules::buffers)), the engine those of links and threads.

use crate::backlog::{MAX_NAMES, NAME_BYTES};
use crate::config::GroupConfig;
use crate::execution::{
    MAX_WATCHED, SNAPSHOT_COPIES, TURN_RESULT_BYTES, WATCHED_BYTES, session_bytes,
};
use crate::intake::{
    BATCHED_BYTES, BLOCK_BYTES, FORWARDS_BYTES, FORWARDS_REQUESTS, MAX_BATCHED, MAX_LANES_BYTES,
    MAX_PENDING_BYTES, MAX_STORED, MAX_STORED_BYTES, STORED_BYTES,
};
use crate::output::REPLY_RECORD_BYTES;
use crate::shared::answers::ANSWERS_BYTES;
use crate::shared::log::LOG_WINDOWS;
use crate::wire::REQUEST_OVERHEAD_MAX;

/// The longest page that a service should have, in bytes: services decide.
const LONGEST_PAGE: u64 = 4 << 20;

/// A buffer, or a family of equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// What is in it.
    pub name: &'static str,
    /// The source file that holds it, in the repository.
    pub place: &'static str,
    /// Who can fill it.
    pub filled_by: FilledBy,
    /// How far.
    pub bound: Bound,
    /// What happens beyond its bound, or why it has none.
    pub beyond: &'static str,
}

/// Who can fill a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilledBy {
    /// The leader of a view, with what clients ask for or with what it makes up.
    Leader,
    /// The other replicas.
    Peers,
    /// Clients, or anybody who connects.
    Clients,
    /// Nobody but the replica itself.
    Replica,
}

impl FilledBy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Leader, Self::Peers, Self::Clients, Self::Replica];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Peers => "peers",
            Self::Clients => "clients",
            Self::Replica => "replica",
        }
    }
}

/// How much a buffer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// At most this many bytes.
    Bytes(u64),
    /// As much as the service's state has: the service decides.
    Service,
    /// Not bounded yet.
    Open,
}

/// What no process can address, whatever the machine: 2⁴⁷ bytes.
pub const ADDRESSABLE_BYTES: u64 = 1 << 47;

/// The sum of all bounds in bytes; `None` if it does not fit 64 bits.
#[must_use]
pub fn sum<'a>(buffers: impl IntoIterator<Item = &'a Buffer>) -> Option<u64> {
    buffers.into_iter().try_fold(0_u64, |sum, buffer| match buffer.bound {
        Bound::Bytes(bytes) => sum.checked_add(bytes),
        Bound::Service | Bound::Open => Some(sum),
    })
}

/// A bound that is a product; `None` if it does not fit 64 bits.
#[must_use]
pub fn product(factors: &[u64]) -> Option<Bound> {
    let product = factors.iter().try_fold(1_u64, |product, factor| product.checked_mul(*factor));
    product.map(Bound::Bytes)
}

/// An entry of a list of buffers, with its fields in their order.
#[must_use]
pub fn buffer(
    name: &'static str,
    place: &'static str,
    filled_by: FilledBy,
    bound: Bound,
    beyond: &'static str,
) -> Buffer {
    Buffer { name, place, filled_by, bound, beyond }
}

/// The longest proposal: a batch, or one request that is longer than a batch may be.
#[must_use]
pub fn prepare_bytes(config: &GroupConfig) -> u64 {
    let longest = config.batch_max_bytes.max(config.max_operation_bytes);
    (config.rules().proposal_head + REQUEST_OVERHEAD_MAX) as u64 + u64::from(longest)
}

/// Bytes of answers that wait for one peer, whatever it asks, and of requests that are forwarded to it;
/// with what framing adds.
#[must_use]
pub fn answers_to_one_peer(config: &GroupConfig, longest_page: u64) -> u64 {
    let (pillars, one) = (u64::from(config.pillars), ANSWERS_BYTES as u64);
    // Up to 256 pages of a few bytes each, and what a pillar may be asked for.
    let framing = 64 * (256 + pillars * 64);
    let longest = u64::from(config.max_operation_bytes) + REQUEST_OVERHEAD_MAX as u64;
    let forwards = FORWARDS_BYTES as u64 + longest + 64 * FORWARDS_REQUESTS as u64;
    one + longest_page + pillars * (one + prepare_bytes(config)) + framing + forwards
}

/// What the session table takes for all sessions of all clients, without results that count against
/// the group's bound.
pub(crate) fn sessions_bytes(config: &GroupConfig) -> Option<u64> {
    let sessions = u64::from(config.max_clients) * u64::from(config.max_sessions_per_client);
    sessions.checked_mul(session_bytes(config.session_window))
}

/// What the replies of one turn take, until they are handed to the network.
#[must_use]
pub fn replies_of_a_turn(config: &GroupConfig) -> Option<u64> {
    let requests = config.window.checked_mul(config.batch_max_requests.into())?;
    let results = 2 * (TURN_RESULT_BYTES as u64 + 2 * u64::from(config.max_reply_bytes));
    requests.checked_mul(2 * REPLY_RECORD_BYTES)?.checked_add(results)
}

/// The buffers of a replica's stages, those of its ordering protocol first; `None` if a bound does
/// not fit 64 bits, which [`GroupConfig::validate`] refuses.
#[must_use]
pub fn of_stages(config: &GroupConfig) -> Option<Vec<Buffer>> {
    let mut buffers = (config.rules().buffers)(config)?;
    buffers.extend(of_execution(config)?);
    buffers.extend(of_intake(config)?);
    buffers.extend(of_state(config)?);
    Some(buffers)
}

fn of_execution(config: &GroupConfig) -> Option<Vec<Buffer>> {
    use FilledBy::{Clients, Leader, Replica};
    let (window, prepare) = (config.window, prepare_bytes(config));
    let sessions = sessions_bytes(config)?;
    Some(vec![
        // The same memory as in the log, as long as the log has them.
        buffer(
            "committed batches that wait for other pillars",
            "engine/proto/src/execution/mod.rs",
            Leader,
            product(&[LOG_WINDOWS, window, prepare])?,
            "the oldest gives way: a stable checkpoint covers it",
        ),
        buffer(
            "requests whose execution is waited for",
            "engine/proto/src/execution/mod.rs",
            Clients,
            product(&[MAX_WATCHED as u64, WATCHED_BYTES])?,
            "not watched: the request intake asks again",
        ),
        buffer(
            "sessions",
            "engine/proto/src/execution/sessions.rs",
            Clients,
            product(&[sessions])?,
            "the client's least recently used session gives way",
        ),
        // A page is copied on the first write after a snapshot; two snapshots are about.
        buffer(
            "sessions: pages that snapshots share",
            "engine/proto/src/execution/sessions/pages.rs",
            Replica,
            product(&[SNAPSHOT_COPIES as u64, sessions])?,
            "the oldest gives way, once its snapshot is gone",
        ),
        buffer(
            "sessions: results",
            "engine/proto/src/execution/sessions/shares.rs",
            Clients,
            // Memory grows by doubling; short results are counted with their sessions.
            product(&[1 + SNAPSHOT_COPIES as u64, 2, config.kept_result_bytes])?,
            "the client with the most gives up those of its least recently used sessions",
        ),
        // A turn that catches up may execute a whole window. Memory grows by doubling.
        buffer(
            "replies of one turn",
            "engine/proto/src/output/replies.rs",
            Clients,
            Bound::Bytes(replies_of_a_turn(config)?),
            "the result waits in the session table, and is recalled",
        ),
        buffer(
            "replies that wait for room",
            "engine/proto/src/backlog.rs",
            Clients,
            product(&[2, MAX_NAMES as u64, NAME_BYTES])?,
            "not sent: the client asks again",
        ),
        buffer(
            "messages of clients that wait for their turn",
            "engine/proto/src/intake/lanes.rs",
            Clients,
            product(&[MAX_LANES_BYTES as u64 + prepare])?,
            "clients are not read; then they are told to come later",
        ),
    ])
}

fn of_intake(config: &GroupConfig) -> Option<Vec<Buffer>> {
    use FilledBy::Clients;
    let prepare = prepare_bytes(config);
    Some(vec![
        // The batch that is open has room beyond what is counted.
        buffer(
            "requests that wait to be ordered",
            "engine/proto/src/intake.rs",
            Clients,
            product(&[(MAX_PENDING_BYTES + BLOCK_BYTES) as u64 + prepare])?,
            "clients wait for their turn",
        ),
        buffer(
            "requests that the leader is watched for",
            "engine/proto/src/intake.rs",
            Clients,
            product(&[MAX_STORED_BYTES as u64
                + MAX_STORED as u64 * STORED_BYTES
                + MAX_BATCHED as u64 * BATCHED_BYTES])?,
            "the client that has most of them loses its oldest",
        ),
    ])
}

fn of_state(config: &GroupConfig) -> Option<Vec<Buffer>> {
    use FilledBy::{Peers, Replica};
    let peers = u64::from(config.replicas).saturating_sub(1);
    Some(vec![
        buffer(
            "snapshots",
            "engine/proto/src/state/mod.rs",
            Replica,
            Bound::Service,
            "those before the stable one go, but for one, and one that is being fetched; execution waits while there are those of two windows",
        ),
        buffer(
            "pages of a state transfer",
            "engine/proto/src/state/transfer.rs",
            Peers,
            Bound::Service,
            "pages that f+1 replicas did not vouch for are refused",
        ),
        buffer(
            "answers to FETCH",
            "engine/proto/src/state/mod.rs",
            Peers,
            product(&[peers, ANSWERS_BYTES as u64 + LONGEST_PAGE])?,
            "answered when those before have left; dropped with the link",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_has_a_name_a_file_and_a_bound() {
        let config = GroupConfig::default();
        let buffers = of_stages(&config).unwrap();
        for (at, buffer) in buffers.iter().enumerate() {
            assert!(buffers[..at].iter().all(|other| other.name != buffer.name), "{}", buffer.name);
            assert_ne!(buffer.bound, Bound::Bytes(0), "{}", buffer.name);
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
            let file = std::path::Path::new(root).join(buffer.place);
            assert!(file.exists(), "{} is not in {}", buffer.name, buffer.place);
        }
        // Each part counts once.
        let parts = FilledBy::ALL.map(|by| sum(buffers.iter().filter(|it| it.filled_by == by)));
        let whole: u64 = parts.iter().flatten().sum();
        assert_eq!(sum(&buffers), Some(whole));
        assert!(whole < ADDRESSABLE_BYTES);
    }

    #[test]
    fn a_bound_follows_what_it_is_made_of() {
        let bytes = |config: &GroupConfig, name| {
            let buffers = of_stages(config).unwrap();
            let buffer = buffers.into_iter().find(|it| it.name == name);
            match buffer.expect("it is listed").bound {
                Bound::Bytes(bytes) => bytes,
                other => panic!("{other:?}"),
            }
        };
        let small = GroupConfig::default();
        let large = GroupConfig { window: 2048, max_clients: 4096, ..small.clone() };
        let log = "log: PREPAREs";
        assert_eq!(bytes(&small, log), 2 * 1024 * prepare_bytes(&small));
        assert_eq!(2 * bytes(&small, log), bytes(&large, log));
        assert_eq!(4 * bytes(&small, "sessions"), bytes(&large, "sessions"));
    }

    #[test]
    fn sums_do_not_wrap() {
        assert_eq!(product(&[1 << 40, 1 << 24]), None);
        let buffer = |bytes| Buffer {
            name: "",
            place: "",
            filled_by: FilledBy::Peers,
            bound: Bound::Bytes(bytes),
            beyond: "",
        };
        assert_eq!(sum(&[buffer(u64::MAX), buffer(1)]), None);
        assert_eq!(sum(&[buffer(2), buffer(1)]), Some(3));
    }
}
