//! Waking the writer's thread, at almost no cost if it does not sleep.

use super::sync::{AtomicBool, OnceLock, Ordering, Thread, fence};

/// Dekker's protocol: whoever has appended fences and reads `asleep`; the writer sets `asleep`, fences
/// and looks once more whether there is something. At least one of them sees the other's write. All
/// that change `asleep` swap, so that only one of several appenders makes the system call.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Doorbell {
    /// Names the thread that sleeps; the first call counts.
    pub(crate) fn install(&self, thread: Thread) {
        let _ = self.thread.set(thread);
        fence(Ordering::SeqCst);
    }

    /// Announces that the writer is about to sleep. After this call it must look for work.
    pub(crate) fn going_to_sleep(&self) {
        self.asleep.swap(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Announces that the writer is awake.
    pub(crate) fn awake(&self) {
        self.asleep.swap(false, Ordering::Relaxed);
    }

    /// Wakes the writer if it sleeps: after something that it has to see.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        // Read first: the line stays shared while the writer is awake.
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::Acquire)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}
