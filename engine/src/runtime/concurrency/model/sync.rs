//! The stand-in for `runtime::sync` that loom sees through.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
pub(crate) use loom::thread::Thread;

/// A cell that is set once, with the orderings that `std` promises: setting releases, and looking
/// acquires, but may come too early. The cell of `std` itself, which loom does not see, is always up
/// to date, because the threads of a model run one at a time.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    is_set: AtomicBool,
    value: std::sync::OnceLock<T>,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self { is_set: AtomicBool::new(false), value: std::sync::OnceLock::new() }
    }
}

impl<T> OnceLock<T> {
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        self.is_set.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.value.get().filter(|_| self.is_set.load(Ordering::Acquire))
    }
}

/// A ring with `rtrb`'s interface and the same orderings of `head` and `tail`. The places are plain
/// mutexes, which loom does not see: they order nothing in the model.
pub(crate) struct RingBuffer<T>(PhantomData<T>);

#[derive(Debug)]
struct Ring<T> {
    head: AtomicUsize,
    tail: AtomicUsize,
    places: Vec<Mutex<Option<T>>>,
}

impl<T> Ring<T> {
    fn place(&self, at: usize) -> std::sync::MutexGuard<'_, Option<T>> {
        self.places[at % self.places.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> RingBuffer<T> {
    #[expect(clippy::new_ret_no_self, reason = "as in rtrb")]
    pub(crate) fn new(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let ring = Arc::new(Ring {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            places: (0..capacity).map(|_| Mutex::new(None)).collect(),
        });
        (Producer { ring: Arc::clone(&ring), tail: 0 }, Consumer { ring, head: 0 })
    }
}

#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
}

#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Arc<Ring<T>>,
    head: usize,
}

pub(crate) struct WriteChunk<'a, T> {
    producer: &'a mut Producer<T>,
    count: usize,
}

pub(crate) struct ReadChunk<'a, T> {
    consumer: &'a mut Consumer<T>,
    count: usize,
}

impl<T> Producer<T> {
    pub(crate) fn slots(&self) -> usize {
        self.ring.places.len() - (self.tail - self.ring.head.load(Ordering::Acquire))
    }

    pub(crate) fn write_chunk_uninit(&mut self, count: usize) -> Option<WriteChunk<'_, T>> {
        (count <= self.slots()).then_some(WriteChunk { producer: self, count })
    }
}

impl<T> Consumer<T> {
    pub(crate) fn slots(&self) -> usize {
        self.ring.tail.load(Ordering::Acquire) - self.head
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots() == 0
    }

    pub(crate) fn read_chunk(&mut self, count: usize) -> Option<ReadChunk<'_, T>> {
        (count <= self.slots()).then_some(ReadChunk { consumer: self, count })
    }
}

impl<T> WriteChunk<'_, T> {
    pub(crate) fn fill_from_iter(self, items: impl IntoIterator<Item = T>) -> usize {
        let Producer { ring, tail } = self.producer;
        let mut filled = 0;
        for item in items.into_iter().take(self.count) {
            let overwritten = ring.place(*tail + filled).replace(item);
            assert!(overwritten.is_none(), "a place was written before it was free");
            filled += 1;
        }
        *tail += filled;
        ring.tail.store(*tail, Ordering::Release);
        filled
    }
}

impl<'a, T> IntoIterator for ReadChunk<'a, T> {
    type Item = T;
    type IntoIter = ReadItems<'a, T>;

    fn into_iter(self) -> ReadItems<'a, T> {
        ReadItems { left: self.count, consumer: self.consumer }
    }
}

/// Frees what it gave out when it is dropped, as `rtrb` does.
pub(crate) struct ReadItems<'a, T> {
    consumer: &'a mut Consumer<T>,
    left: usize,
}

impl<T> Iterator for ReadItems<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        let item = self.consumer.ring.place(self.consumer.head).take();
        self.consumer.head += 1;
        Some(item.expect("a place was read before it was written"))
    }
}

impl<T> Drop for ReadItems<'_, T> {
    fn drop(&mut self) {
        self.consumer.ring.head.store(self.consumer.head, Ordering::Release);
    }
}
