//! The replicated service: what an embedder implements.
//!
//! A [`Service`] is a deterministic state machine (TR listing 1). Its state leaves and enters a
//! replica as *pages*: byte strings with stable indices, so that a checkpoint's digest is a Merkle
//! tree over pages and a state transfer moves only the pages that differ.

mod identity;

use bytes::Bytes;
use hybster_tss::{Digest, RandomnessKey};
use std::cell::OnceCell;
use std::sync::Arc;

pub use identity::{BadServiceName, ServiceIdentity, ServiceName};

use crate::ids::{OrderNumber, RequestNumber, SessionId};

/// Who asks, where in the total order the operation is, and what else the replicas agreed on.
///
/// Everything in it is equal on every correct replica, so a service may use it. It takes the place
/// of a clock and of a random source.
///
/// ```
/// # mod hybster { pub use hybster_proto::service::Context; }
/// # fn main() {}
/// use hybster::Context;
///
/// /// Leases that end by agreed time and are drawn by agreed chance.
/// struct Leases {
///     holder: Option<(u32, u64)>,
/// }
///
/// impl Leases {
///     fn acquire(&mut self, context: &Context, for_ms: u64) -> bool {
///         let is_free = self.holder.is_none_or(|(_, until_ms)| until_ms <= context.time_ms);
///         if is_free {
///             self.holder = Some((context.session.client.0, context.time_ms + for_ms));
///         }
///         is_free
///     }
///
///     /// All operations of a batch see the same bytes, so what tells them apart is mixed in.
///     fn draw(&self, context: &Context, sides: u64) -> u64 {
///         let mut bytes = [0; 8];
///         bytes.copy_from_slice(&context.randomness()[..8]);
///         (u64::from_le_bytes(bytes) ^ context.session.session ^ context.number.0) % sides
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    /// The session that issued the operation; `session.client` is the authenticated identity.
    pub session: SessionId,
    /// The session's number for the request.
    pub number: RequestNumber,
    /// The order number that the operation was agreed at.
    pub order: OrderNumber,
    /// The agreed time in milliseconds since the Unix epoch. It never falls from one operation to
    /// the next, also when the leader changes, and is the same for all operations of a batch.
    ///
    /// It comes from the leader's clock. While at most f replicas are faulty or have wrong clocks,
    /// it is ahead of a right clock by no more than the group's `max_clock_skew_ms`, and behind by
    /// no more than twice that and the time that agreement took. Within these bounds a faulty leader may
    /// choose it: leave such a margin where a real clock counts as well.
    pub time_ms: u64,
    randomness: Randomness,
}

/// What the random bytes of a batch come from, and the bytes once somebody has asked for them.
#[derive(Clone, Debug)]
struct Randomness {
    key: RandomnessKey,
    batch: Digest,
    bytes: OnceCell<[u8; 32]>,
}

impl Context {
    /// A context outside of a replica, to try services with: at time 0 and with random bytes that
    /// anybody can compute.
    #[must_use]
    pub fn new(session: SessionId, number: RequestNumber, order: OrderNumber) -> Self {
        let mut context = Self::with_key(RandomnessKey::from_bytes([0; 32]));
        (context.session, context.number, context.order) = (session, number, order);
        context
    }

    /// The context of an execution stage, before the first operation.
    pub(crate) fn with_key(key: RandomnessKey) -> Self {
        Self {
            session: SessionId::default(),
            number: RequestNumber(0),
            order: OrderNumber(0),
            time_ms: 0,
            randomness: Randomness { key, batch: Digest::default(), bytes: OnceCell::new() },
        }
    }

    /// The operations that follow are of this batch.
    pub(crate) fn begin_batch(&mut self, order: OrderNumber, time_ms: u64, batch: Digest) {
        (self.order, self.time_ms) = (order, time_ms);
        self.randomness.batch = batch;
        self.randomness.bytes = OnceCell::new();
    }

    /// 32 random bytes of the batch that the operation is in, computed when they are first asked
    /// for.
    ///
    /// No client can foresee them, nor anybody else who lacks the secret of the group. Replica hosts
    /// that hold it can once they see the batch, and a faulty leader among them can try several
    /// batches: see [`hybster_tss::randomness`]. **Where replicas share no secret** (a group without trusted
    /// subsystems) the bytes are agreed and no secret: whoever knows the batch can compute them.
    #[must_use]
    pub fn randomness(&self) -> &[u8; 32] {
        let Randomness { key, batch, bytes } = &self.randomness;
        bytes.get_or_init(|| key.bytes_of(self.order.0, self.time_ms, batch))
    }
}

/// A deterministic stateful service (TR listing 1).
///
/// Determinism is the one promise the implementer gives: from equal states, equal calls lead to
/// equal replies and equal pages, on every replica, also on one that got its state by
/// [`Service::restore`]. No clock and no random source but the [`Context`], no iteration over
/// unordered maps.
///
/// ```
/// # mod hybster { pub use hybster_proto::service::{Context, Pages, RestoreError, Service, Snapshot}; }
/// # fn main() {}
/// use std::sync::Arc;
///
/// use hybster::{Context, Pages, RestoreError, Service, Snapshot};
///
/// /// A log of lines, which a query counts.
/// #[derive(Default)]
/// struct Lines(Vec<Vec<u8>>);
///
/// impl Service for Lines {
///     /// Appends a line; an empty one is refused.
///     fn execute(&mut self, _: &Context, operation: &[u8], reply: &mut Vec<u8>) {
///         if !operation.is_empty() {
///             self.0.push(operation.to_vec());
///             reply.extend_from_slice(&self.0.len().to_le_bytes());
///         }
///     }
///
///     fn query(&self, operation: &[u8], reply: &mut Vec<u8>) -> bool {
///         let counts = operation == b"count";
///         if counts {
///             reply.extend_from_slice(&self.0.len().to_le_bytes());
///         }
///         counts
///     }
///
///     /// A page for each line. It copies all of them, which does for small states only.
///     fn snapshot(&mut self) -> Arc<dyn Snapshot> {
///         Arc::new(Pages(self.0.iter().map(|line| line.clone().into()).collect()))
///     }
///
///     fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
///         self.0 = (0..source.page_count()).map(|page| source.page(page).to_vec()).collect();
///         Ok(())
///     }
/// }
/// ```
pub trait Service: Send + 'static {
    /// Executes one operation and appends its result to `reply` (empty on entry, reused).
    ///
    /// The function must be total: a malformed operation gets a defined result, never a panic.
    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>);

    /// The service's name and version, which replicas compare: one that runs another service, or a version
    /// that is not compatible, is not let in. `None` says nothing, and is compared with nothing.
    ///
    /// Called once, when the replica starts.
    fn identity(&self) -> Option<ServiceIdentity> {
        None
    }

    /// Answers a read-only operation without changing the state.
    ///
    /// Returns `false` if the operation is not read-only; the client then orders it.
    fn query(&self, operation: &[u8], reply: &mut Vec<u8>) -> bool {
        let _ = (operation, reply);
        false
    }

    /// Returns an immutable handle on the present state.
    ///
    /// Called on the execution thread between two operations: it must be cheap (copy-on-write or
    /// persistent structures), whatever the size of the state.
    fn snapshot(&mut self) -> Arc<dyn Snapshot>;

    /// Replaces the whole state by the pages of `source`.
    ///
    /// The pages were checked against a digest that f+1 replicas vouch for. An error means that
    /// this replica's service cannot read them (another version, say) and stops the replica.
    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError>;

    /// As [`Service::restore`], for a state that differs from an earlier one of this service in
    /// some pages only: `base` is a snapshot that this very service took, and `changed` lists, in
    /// ascending order, the pages in which `source` differs from it.
    ///
    /// The present state may be a later one than `base`: a page is to be kept only if it is not
    /// listed and is still as it was in `base`, which its version tells. A service of many pages
    /// should implement this; a replica that fell behind under load needs it to catch up, since a
    /// transfer then costs what changed, not what there is.
    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        let _ = (base, changed);
        self.restore(source)
    }
}

/// An immutable state as pages.
///
/// [`Pages`] is one that is made of bytes. One that shares what it has with the service, and says which
/// pages have changed, makes checkpoints of a large state cheap:
///
/// ```
/// # mod hybster { pub use hybster_proto::service::Snapshot; }
/// # fn main() {}
/// use std::sync::Arc;
///
/// use hybster::Snapshot;
///
/// /// Registers of 4 KiB, each with the number of its last change. The service changes one by
/// /// `Arc::make_mut`, which copies it if a snapshot has it, and gives it the next number.
/// #[derive(Clone)]
/// struct Registers(Vec<(u64, Arc<[u8; 4096]>)>);
///
/// impl Snapshot for Registers {
///     fn page_count(&self) -> u64 {
///         self.0.len() as u64
///     }
///
///     fn page(&self, index: u64) -> bytes::Bytes {
///         let register = usize::try_from(index).ok().and_then(|index| self.0.get(index));
///         register.map_or_else(bytes::Bytes::new, |(_, register)| register.to_vec().into())
///     }
///
///     fn page_version(&self, index: u64) -> Option<u64> {
///         let register = self.0.get(usize::try_from(index).ok()?);
///         register.map(|(last_change, _)| *last_change)
///     }
/// }
/// ```
pub trait Snapshot: Send + Sync {
    /// Number of pages; page indices are `0..page_count()`.
    fn page_count(&self) -> u64;

    /// The content of a page, at most [`MAX_PAGE_BYTES`] long. An absent (free) page is empty.
    fn page(&self, index: u64) -> Bytes;

    /// A number that changes whenever the content of the page changes between snapshots of one
    /// service instance, also by a restore between them; an equal version lets the digest of the
    /// last checkpoint be used again.
    /// `None` if the service does not track it: then the page is hashed again.
    fn page_version(&self, index: u64) -> Option<u64> {
        let _ = index;
        None
    }

    /// As [`Snapshot::page_version`], for all pages from `group * PAGES_PER_GROUP` on,
    /// [`PAGES_PER_GROUP`] of them: a number that changes whenever one of them does. Services with
    /// many pages should tell it, or each checkpoint looks at every page.
    fn group_version(&self, group: u64) -> Option<u64> {
        let _ = group;
        None
    }
}

/// Pages that share a version in [`Snapshot::group_version`].
pub const PAGES_PER_GROUP: u64 = 64;

/// The largest page in bytes. A page travels in one message.
pub const MAX_PAGE_BYTES: usize = 4 << 20;

/// The service could not read the pages of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the service cannot restore the checkpointed state: page {page}: {what}")]
pub struct RestoreError {
    /// The page at fault.
    pub page: u64,
    /// What is wrong with it.
    pub what: String,
}

/// Pages held in memory; the simplest [`Snapshot`], also used for tests and small services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages(pub Vec<Bytes>);

impl Snapshot for Pages {
    fn page_count(&self) -> u64 {
        self.0.len() as u64
    }

    fn page(&self, index: u64) -> Bytes {
        usize::try_from(index).ok().and_then(|i| self.0.get(i).cloned()).unwrap_or_default()
    }
}
