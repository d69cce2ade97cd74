//! A pool of send buffers, so that sending allocates nothing once it is warm.

/// Free send buffers. The last one returned is the first one taken, since it is still in the
/// cache.
#[derive(Debug)]
pub(super) struct Pool {
    free: Vec<Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
}

impl Pool {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { free: Vec::new(), bytes: 0, bytes_max }
    }

    /// An empty buffer.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let buffer = self.free.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Takes back a buffer.
    pub(super) fn put(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity <= KEPT_BYTES_MAX && self.bytes + capacity <= self.bytes_max {
            buffer.clear();
            self.bytes += capacity;
            self.free.push(buffer);
        }
    }
}

/// Buffers that grew beyond this, for a state transfer, are not kept.
const KEPT_BYTES_MAX: usize = 1 << 20;
