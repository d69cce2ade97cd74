//! What queues and doorbells are made of. They take it from here and from nowhere else, so that the
//! tests can put the same sources on loom's atomics and threads (`concurrency/model`).

pub(crate) use std::sync::atomic::{AtomicBool, Ordering, fence};
pub(crate) use std::thread::Thread;

pub(crate) use rtrb::{Consumer, Producer, RingBuffer};
