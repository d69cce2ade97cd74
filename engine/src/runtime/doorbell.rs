//! Waking a sleeping agent, and nobody else.

use std::sync::OnceLock;

use hybster_net::Waker;

use super::sync::{AtomicBool, Ordering, Thread, fence};

/// Tells an agent that there is something for it. Ringing costs a fence and a load while the agent is
/// awake, and one system call if it sleeps.
///
/// The protocol is Dekker's: the sender publishes, fences and reads `asleep`; the agent sets `asleep`,
/// fences and looks at its queues once more. At least one of them sees the other.
///
/// `asleep` has several writers, and all of them swap: each swap continues the one before it, so that
/// whoever finds the flag down knows that another one is about to wake the agent. A store would do as
/// well (it is as safe, and it is never on a hot path), but loom, which does not know that nothing can
/// come between a swap and what it read, cannot follow it through more than a few steps.
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
    /// Says how the agent is woken. Before that, ringing does nothing, and the agent must not sleep.
    pub(crate) fn install(&self, target: WakeTarget) {
        self.target.set(target).expect("a doorbell is installed once");
    }

    /// The agent is about to sleep. It must look at its queues after this call.
    pub(crate) fn going_to_sleep(&self) {
        self.asleep.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The agent is awake.
    pub(crate) fn awake(&self) {
        // Mostly it has not announced a sleep at all.
        if self.asleep.load(Ordering::Relaxed) {
            self.asleep.swap(false, Ordering::Relaxed);
        }
    }

    /// To be called after something was put into a queue of the agent, or taken out of a full one.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        // Read first: the line stays shared while the agent is awake.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.wake_always();
        }
    }

    /// Wakes the agent whatever it does, or keeps it from its next sleep.
    pub(crate) fn wake_always(&self) {
        match self.target.get() {
            Some(WakeTarget::Thread(thread)) => thread.unpark(),
            Some(WakeTarget::Hub(waker)) => waker.wake(),
            None => {}
        }
    }
}
