//! Atomics, cells and threads for queues and doorbells, which take them only from here, so that tests can
//! run the same sources on those of loom (`concurrency/model`).

pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, Ordering, fence};
pub(crate) use std::thread::Thread;

pub(crate) use rtrb::{Consumer, Producer, RingBuffer};
