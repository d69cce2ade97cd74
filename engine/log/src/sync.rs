//! The atomics of the shared buffer and of the doorbell: those of the standard library here, loom's in
//! the models.

pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
pub(crate) use std::thread::Thread;
