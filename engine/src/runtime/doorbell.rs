//! Waking an agent, at almost no cost if it does not sleep.

use hybster_net::Waker;

use super::sync::{AtomicBool, OnceLock, Ordering, Thread, fence};

/// Tells an agent that it has messages. Ringing costs a fence and a load while the agent is awake,
/// and one system call if it sleeps.
///
/// The protocol is Dekker's: the sender publishes, fences and reads `asleep`; the agent sets
/// `asleep`, fences and checks its queues once more. At least one of them sees the other's write.
///
/// `asleep` has several writers, and all of them swap. Each swap reads the one before it, so a
/// sender that finds the flag cleared knows that another one is about to wake the agent. A store
/// would be as safe, but loom cannot follow it through more than a few steps; the swap is not on a
/// hot path. The swap that announces a sleep releases and the one that ends it acquires, so whoever
/// wakes a sleeper finds how.
///
/// The target is Dekker's case once more, against the order to stop, which [`Self::wake_always`]
/// follows: the agent sets the target, fences and looks whether it must stop; the other one orders,
/// fences and looks for the target.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    asleep: AtomicBool,
    target: OnceLock<WakeTarget>,
}

/// How an agent waits, and so how it is woken.
#[derive(Debug)]
pub(crate) enum WakeTarget {
    /// It is parked.
    Thread(Thread),
    /// It polls a hub.
    Hub(Waker),
}

impl Doorbell {
    /// Sets how the agent is woken. Before that, ringing does nothing, and the agent must not
    /// sleep: after this call it must look whether it is to stop.
    pub(crate) fn install(&self, target: WakeTarget) {
        self.target.set(target).expect("a doorbell is installed once");
        fence(Ordering::SeqCst);
    }

    /// Announces that the agent is about to sleep. After this call it must check its queues.
    pub(crate) fn going_to_sleep(&self) {
        self.asleep.swap(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Announces that the agent is awake.
    pub(crate) fn awake(&self) {
        // Usually it has not announced a sleep.
        if self.asleep.load(Ordering::Relaxed) {
            self.asleep.swap(false, Ordering::Relaxed);
        }
    }

    /// Wakes the agent if it sleeps. Call it after putting a message into one of the agent's
    /// queues, or taking one out of a full queue that the agent sends to.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        // Read first: the line stays shared while the agent is awake.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Acquire) {
            self.wake_target();
        }
    }

    /// Wakes the agent, or prevents its next sleep if it is awake. Call it after what the agent is to
    /// see.
    pub(crate) fn wake_always(&self) {
        fence(Ordering::SeqCst);
        self.wake_target();
    }

    fn wake_target(&self) {
        match self.target.get() {
            Some(WakeTarget::Thread(thread)) => thread.unpark(),
            Some(WakeTarget::Hub(waker)) => waker.wake(),
            None => {}
        }
    }
}
