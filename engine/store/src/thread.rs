//! The thread that writes checkpoints: a thin shell around [`Store`].

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use hybster_log::Disk;

use crate::{Manifest, PageId, Step, Store, StoreError};

/// What is new in a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change<B> {
    /// The page is now this.
    Put(PageId, B),
    /// The page is gone.
    Remove(PageId),
}

/// A checkpoint to be written. Its changes, against the checkpoint that was written last, are asked for
/// one by one on the writer's thread, so that their content need not all be in memory.
pub struct Job<B> {
    /// What it is.
    pub manifest: Manifest,
    /// What has changed.
    pub changes: Box<dyn Iterator<Item = Change<B>> + Send>,
}

impl<B> fmt::Debug for Job<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

/// The thread that writes checkpoints, one at a time. Dropping it gives up what it is at, and waits for
/// at most a step.
#[derive(Debug)]
pub struct StoreThread<B> {
    jobs: Option<SyncSender<Job<B>>>,
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_busy: AtomicBool,
    is_stopping: AtomicBool,
}

impl<B: AsRef<[u8]> + Send + 'static> StoreThread<B> {
    /// Starts the thread. It calls `written` after each job, with its order number once it is
    /// durable, or with why it is not; if that [is final](StoreError::is_final) the replica has to stop. The
    /// thread takes the next job once `written` has returned.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start<D>(
        store: Store<D>,
        written: impl FnMut(Result<u64, StoreError>) + Send + 'static,
    ) -> io::Result<Self>
    where
        D: Disk + Send + 'static,
        D::File: Send,
    {
        // There is never more than one: that they do not wait for each other is `submit`'s rule.
        let (jobs, incoming) = sync_channel(1);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let run = move || run(store, &incoming, &of_thread, written);
        let handle = thread::Builder::new().name("store".to_owned()).spawn(run)?;
        Ok(Self { jobs: Some(jobs), shared, handle: Some(handle) })
    }

    /// Hands a checkpoint over, and never waits.
    ///
    /// # Errors
    /// The one before is not written yet: the job comes back. Leave it out, and let a later one have its changes
    /// as well.
    #[expect(clippy::result_large_err, reason = "once a checkpoint, and the caller keeps it")]
    pub fn submit(&self, job: Job<B>) -> Result<(), Job<B>> {
        let is_busy = self.shared.is_busy.swap(true, Ordering::AcqRel);
        let Some(jobs) = self.jobs.as_ref().filter(|_| !is_busy) else { return Err(job) };
        jobs.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }

    /// Whether a checkpoint is being written.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.shared.is_busy.load(Ordering::Acquire)
    }
}

impl<B> Drop for StoreThread<B> {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.jobs = None;
        if let Some(handle) = self.handle.take() {
            // A panic there was reported when it happened.
            let _ = handle.join();
        }
    }
}

fn run<D: Disk, B: AsRef<[u8]>>(
    mut store: Store<D>,
    jobs: &Receiver<Job<B>>,
    shared: &Shared,
    mut written: impl FnMut(Result<u64, StoreError>),
) {
    for job in jobs {
        let order = job.manifest.order;
        let outcome = write(&mut store, job, shared);
        if outcome.is_err() {
            store.abandon();
        }
        match outcome {
            Ok(false) => return,
            Ok(true) => written(Ok(order)),
            Err(error) => written(Err(error)),
        }
        shared.is_busy.store(false, Ordering::Release);
    }
}

/// Writes a checkpoint; `false` if the thread was told to stop on the way.
fn write<D: Disk, B: AsRef<[u8]>>(
    store: &mut Store<D>,
    job: Job<B>,
    shared: &Shared,
) -> Result<bool, StoreError> {
    let is_stopping = || shared.is_stopping.load(Ordering::Acquire);
    store.begin(job.manifest)?;
    for change in job.changes {
        if is_stopping() {
            return Ok(false);
        }
        match change {
            Change::Put(page, content) => store.put_page(page, content.as_ref())?,
            Change::Remove(page) => store.remove_page(page)?,
        }
    }
    while !is_stopping() {
        if store.commit_step()? == Step::Done {
            return Ok(true);
        }
    }
    Ok(false)
}
