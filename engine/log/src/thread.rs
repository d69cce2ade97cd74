//! The writer's thread: a thin shell around [`Writer::step`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::log::Shared;
use crate::writer::{Step, Writer};
use crate::{Disk, LogError};

/// The thread that writes a log. Dropping it closes the log.
#[derive(Debug)]
pub struct WriterThread {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<Result<(), Arc<LogError>>>>,
}

impl WriterThread {
    /// Starts the thread. It calls `moved` whenever more has been released, or the log has failed:
    /// whoever holds messages back looks at its gate then.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start<D>(writer: Writer<D>, moved: impl Fn() + Send + 'static) -> io::Result<Self>
    where
        D: Disk + Send + 'static,
        D::File: Send,
    {
        let shared = Arc::clone(writer.shared());
        let run = move || run(writer, moved);
        let handle = thread::Builder::new().name("log".to_owned()).spawn(run)?;
        Ok(Self { shared, handle: Some(handle) })
    }

    /// Writes and syncs what has been appended, says so in the log, and ends the thread. Whatever is
    /// appended after this call is lost.
    ///
    /// # Errors
    /// The log had failed, or fails now.
    pub fn close(mut self) -> Result<(), Arc<LogError>> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), Arc<LogError>> {
        let Some(handle) = self.handle.take() else { return Ok(()) };
        self.shared.stopping.store(true, Ordering::SeqCst);
        handle.thread().unpark();
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        // Whoever cares for the outcome closes.
        let _ = self.stop();
    }
}

fn run<D: Disk>(mut writer: Writer<D>, moved: impl Fn()) -> Result<(), Arc<LogError>> {
    let shared = Arc::clone(writer.shared());
    // Before the first sleep, or a ring could find nobody to wake.
    shared.doorbell.install(thread::current());
    let started = Instant::now();
    let (mut now, mut syncs) = (Duration::ZERO, 0);
    loop {
        let before = now;
        let step = writer.step(before.as_millis() as u64);
        now = started.elapsed();
        let synced = shared.syncs.load(Ordering::Relaxed);
        if synced != syncs {
            // A step syncs at most once, unless it begins a segment.
            shared.has_synced_in(now.saturating_sub(before));
            syncs = synced;
        }
        match step {
            Ok(Step::Moved) => moved(),
            Ok(Step::Worked) => {}
            Ok(Step::Idle { again_ms }) => {
                if shared.stopping.load(Ordering::SeqCst) {
                    let outcome = writer.close();
                    moved();
                    return outcome;
                }
                shared.doorbell.going_to_sleep();
                if !writer.has_work() && !shared.stopping.load(Ordering::SeqCst) {
                    match again_ms {
                        Some(ms) => thread::park_timeout(Duration::from_millis(ms)),
                        None => thread::park(),
                    }
                }
                shared.doorbell.awake();
                now = started.elapsed();
            }
            Err(error) => {
                moved();
                return Err(error);
            }
        }
    }
}
