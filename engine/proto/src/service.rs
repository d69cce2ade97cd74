//! The replicated service: what an embedder implements.
//!
//! A [`Service`] is a deterministic state machine (TR listing 1). Its state leaves and enters a
//! replica as *pages*: byte strings with stable indices, so that a checkpoint's digest is a Merkle
//! tree over pages and a state transfer moves only the pages that differ.

use bytes::Bytes;
use std::sync::Arc;

use crate::ids::{OrderNumber, RequestNumber, SessionId};

/// Who asks and where in the total order the operation stands.
///
/// All fields are equal on every correct replica, so a service may use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The session that issued the operation; `session.client` is the authenticated identity.
    pub session: SessionId,
    /// The session's number for the request.
    pub number: RequestNumber,
    /// The order number that the operation was agreed at.
    pub order: OrderNumber,
}

/// A deterministic stateful service (TR listing 1).
///
/// Determinism is the one promise the implementer gives: from equal states, equal calls lead to
/// equal replies and equal pages, on every replica, also on one that got its state by
/// [`Service::restore`]. No clock, no randomness, no iteration over unordered maps.
pub trait Service: Send + 'static {
    /// Executes one operation and appends its result to `reply` (empty on entry, reused).
    ///
    /// The function must be total: a malformed operation gets a defined result, never a panic.
    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>);

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
