//! An ordered key-value store.
//!
//! [`KvService`] maps byte strings to byte strings, in the order of the keys. [`wire`] has the
//! operations and replies: [`KvOperation`], [`KvReply`].
//!
//! The entries live in *leaves* of about 4 KiB, each a page of the [`Snapshot`]. The data of a
//! leaf is one run of bytes, the same in memory and in a checkpoint. Leaves are shared
//! between the store and its snapshots and copied when they are written to, so a snapshot costs
//! a reference per 64 pages, and a write after it copies one leaf and 16 references. The memory of
//! dropped snapshots is reclaimed little by little, and reused for such copies.
//!
//! Limits: keys of [`MAX_KEY_BYTES`], values of [`MAX_VALUE_BYTES`], replies to scans of
//! [`MAX_SCAN_REPLY_BYTES`]. All replies and operations fit into 1 MiB, except a compare-and-swap
//! of two huge values.

mod buffer;
mod directory;
mod leaf;
mod pages;
mod reader;
mod reclaim;
mod store;
#[cfg(test)]
mod tests;
pub mod wire;

use std::sync::Arc;

use hybster_proto::service::{Context, RestoreError, Service, ServiceIdentity, Snapshot};

use self::pages::Base;
use self::store::{Full, Store};
pub use self::wire::{
    BadKvReply, KvEntries, KvOperation, KvRefusal, KvReply, MAX_BOUND_BYTES, MAX_KEY_BYTES,
    MAX_SCAN_REPLY_BYTES, MAX_VALUE_BYTES,
};

/// A replicated ordered key-value store.
#[derive(Debug)]
pub struct KvService {
    store: Store,
}

impl Default for KvService {
    fn default() -> Self {
        Self::new()
    }
}

impl KvService {
    /// What it says of itself.
    pub const IDENTITY: ServiceIdentity = ServiceIdentity::new("hybster-kv", 1);

    /// An empty store without a limit on what it holds in all.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(u64::MAX)
    }

    /// An empty store that refuses with [`KvRefusal::Full`] what would make it hold more than
    /// `limit_bytes`, counted as [`KvService::bytes`] does.
    ///
    /// The limit must be the same on all replicas of a group, as it decides on replies.
    #[must_use]
    pub fn with_limit(limit_bytes: u64) -> Self {
        Self { store: Store::new(limit_bytes) }
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.store.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of all keys and values, and 12 for each pair.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.store.get(key)
    }

    fn answer_get(&self, key: &[u8], reply: &mut Vec<u8>) {
        self.store.get(key).map_or(KvReply::Absent, KvReply::Value).encode(reply);
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> KvReply<'static> {
        match self.store.put(key, value) {
            Ok(replaced) => KvReply::Stored { replaced },
            Err(Full) => KvReply::Refused(KvRefusal::Full),
        }
    }

    fn compare_and_swap(
        &mut self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: &[u8],
        reply: &mut Vec<u8>,
    ) {
        let current = self.store.get(key);
        if current != expected {
            return KvReply::Mismatch { current }.encode(reply);
        }
        match self.put(key, value) {
            KvReply::Stored { .. } => KvReply::Swapped.encode(reply),
            refused => refused.encode(reply),
        }
    }
}

impl Service for KvService {
    fn identity(&self) -> Option<ServiceIdentity> {
        Some(Self::IDENTITY)
    }

    fn execute(&mut self, _context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        match KvOperation::decode(operation) {
            Ok(KvOperation::Get { key }) => self.answer_get(key, reply),
            Ok(KvOperation::Put { key, value }) => self.put(key, value).encode(reply),
            Ok(KvOperation::Delete { key }) => {
                KvReply::Deleted { existed: self.store.delete(key) }.encode(reply);
            }
            Ok(KvOperation::CompareAndSwap { key, expected, value }) => {
                self.compare_and_swap(key, expected, value, reply);
            }
            Ok(KvOperation::Scan { start, end, limit }) => {
                self.store.scan(start, end, limit, reply);
            }
            Err(refusal) => KvReply::Refused(refusal).encode(reply),
        }
    }

    /// Answers get and scan.
    fn query(&self, operation: &[u8], reply: &mut Vec<u8>) -> bool {
        match KvOperation::decode(operation) {
            Ok(KvOperation::Get { key }) => self.answer_get(key, reply),
            Ok(KvOperation::Scan { start, end, limit }) => {
                self.store.scan(start, end, limit, reply);
            }
            _ => return false,
        }
        true
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        self.store.snapshot()
    }

    /// Pages that are as before keep their versions. After an error the state is as before.
    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        self.store.restore(source, None)
    }

    /// Costs what changed, and a look at each page that is kept.
    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        self.store.restore(source, Some(Base { snapshot: base, changed }))
    }
}
