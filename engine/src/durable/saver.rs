//! Checkpoints on their way to the disk: one is written at a time, and of those that come meanwhile the last.
//!
//! Of a checkpoint only the pages are written that differ from the one that the disk has. Which these
//! are is told by their versions, on the thread that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hybster_log::Directory;
use hybster_proto::output::{DurableCheckpoint, TakenSnapshot};
use hybster_proto::service::{PAGES_PER_GROUP, Snapshot};
use hybster_store::{Change, Job, Manifest, PageId, Store, StoreError, StoreThread};
use parking_lot::Mutex;

/// Between the end of one checkpoint and the beginning of the next. More often would gain nothing: what
/// the log has since is executed again in less time than this.
const PAUSE: Duration = Duration::from_millis(500);
/// How long to wait before asking again whether the thread is free.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The parts of a checkpoint.
pub(crate) const BOOKKEEPING: u8 = 0;
pub(crate) const SERVICE: u8 = 1;

/// Has checkpoints written.
#[derive(Debug)]
pub(crate) struct Saver {
    thread: Mutex<Option<StoreThread<Bytes>>>,
    progress: Arc<Mutex<Progress>>,
    /// Whether a checkpoint is waiting.
    has_next: AtomicBool,
}

/// What the disk has, and what it will.
#[derive(Debug, Default)]
struct Progress {
    /// Order number and root of what the disk had at the start.
    restored: Option<(u64, [u8; 32])>,
    /// What the disk has, if this process wrote it, or has begun with it.
    written: Option<TakenSnapshot>,
    /// How many pages each part has there.
    pages: [u64; 2],
    writing: Option<TakenSnapshot>,
    next: Option<DurableCheckpoint>,
    /// The last order number that was handed in.
    last: u64,
    /// When the next may begin.
    not_before: Option<Instant>,
}

/// What the disk said of a checkpoint.
pub(crate) type Outcome = Result<u64, StoreError>;

impl Saver {
    /// A saver over an open store. It calls `told` after each checkpoint that became durable, or could
    /// not be written.
    pub(crate) fn start(
        store: Store<Directory>,
        saved: Arc<AtomicU64>,
        told: impl Fn(Outcome) + Send + 'static,
    ) -> std::io::Result<Self> {
        let pages = |of: u8| {
            let manifest = store.manifest();
            manifest.and_then(|it| it.pages.get(usize::from(of)).copied()).unwrap_or(0)
        };
        let restored = store.manifest().map(|manifest| (manifest.order, manifest.root));
        let progress = Progress {
            restored,
            pages: [pages(BOOKKEEPING), pages(SERVICE)],
            last: saved.load(Ordering::Relaxed),
            ..Progress::default()
        };
        let progress = Arc::new(Mutex::new(progress));
        let of_thread = Arc::clone(&progress);
        let thread = StoreThread::start(store, move |outcome| {
            let mut progress = of_thread.lock();
            let written = progress.writing.take();
            if let (Ok(order), Some(written)) = (&outcome, written) {
                let pages = [&written.bookkeeping, &written.service].map(|of| of.page_count());
                (progress.written, progress.pages) = (Some(written), pages);
                progress.not_before = Instant::now().checked_add(PAUSE);
                saved.store(*order, Ordering::Release);
            }
            drop(progress);
            told(outcome);
        })?;
        let has_next = AtomicBool::new(false);
        Ok(Self { thread: Mutex::new(Some(thread)), progress, has_next })
    }

    /// Hands a checkpoint in. One that waits gives way.
    pub(super) fn save(&self, checkpoint: DurableCheckpoint) {
        let mut progress = self.progress.lock();
        let order = checkpoint.id.order.0;
        if checkpoint.is_there {
            // Only what differs from it is written, as if this process had written it.
            let Progress { restored, written, writing, .. } = &mut *progress;
            let is_it = restored.take() == Some((order, checkpoint.id.digest.0));
            if is_it && written.is_none() && writing.is_none() {
                *written = Some(checkpoint.taken);
            }
            return;
        }
        if order <= progress.last {
            // A transferred state has overtaken it.
            return;
        }
        progress.last = order;
        let before = progress.next.take();
        let is_anew = checkpoint.is_anew || before.is_some_and(|before| before.is_anew);
        if is_anew {
            // Others wait for a state that was transferred.
            progress.not_before = None;
        }
        progress.next = Some(DurableCheckpoint { is_anew, ..checkpoint });
        self.has_next.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_next(&self) -> bool {
        self.has_next.load(Ordering::Relaxed)
    }

    /// Begins with the next checkpoint if nothing is being written; else tells when to ask again.
    pub(super) fn go_on(&self, now: Instant) -> Option<Duration> {
        let thread = self.thread.lock();
        let mut progress = self.progress.lock();
        let thread = thread.as_ref()?;
        progress.next.as_ref()?;
        let early = progress.not_before.map(|at| at.saturating_duration_since(now));
        if let Some(early) = early.filter(|early| !early.is_zero()) {
            return Some(early.max(LOOK_AGAIN));
        }
        if thread.is_busy() {
            return Some(LOOK_AGAIN);
        }
        let next = progress.next.take()?;
        self.has_next.store(false, Ordering::Relaxed);
        let DurableCheckpoint { id, taken, certificate, is_anew, .. } = next;
        if is_anew {
            progress.written = None;
        }
        let counts = [&taken.bookkeeping, &taken.service].map(|of| of.page_count());
        let manifest = Manifest {
            order: id.order.0,
            root: id.digest.0,
            pages: counts.to_vec(),
            certificate: certificate.map(|it| it.to_vec()).unwrap_or_default(),
            ..Manifest::default()
        };
        let changes = changes(&taken, progress.written.as_ref(), progress.pages);
        progress.writing = Some(taken);
        // It was free, and nobody else hands jobs in while the lock is held.
        let refused = thread.submit(Job { manifest, changes: Box::new(changes) }).is_err();
        debug_assert!(!refused, "the thread was free");
        None
    }

    /// Gives up what is being written.
    pub(super) fn stop(&self) {
        drop(self.thread.lock().take());
    }
}

/// The pages that are new or gone, against what is on disk.
fn changes(
    taken: &TakenSnapshot,
    written: Option<&TakenSnapshot>,
    on_disk: [u64; 2],
) -> impl Iterator<Item = Change<Bytes>> + Send + use<> {
    let part = |part: u8| {
        let of = |taken: &TakenSnapshot| match part {
            BOOKKEEPING => Arc::clone(&taken.bookkeeping),
            _ => Arc::clone(&taken.service),
        };
        changes_of(part, of(taken), written.map(of), on_disk[usize::from(part)])
    };
    part(BOOKKEEPING).chain(part(SERVICE))
}

fn changes_of(
    part: u8,
    now: Arc<dyn Snapshot>,
    before: Option<Arc<dyn Snapshot>>,
    on_disk: u64,
) -> impl Iterator<Item = Change<Bytes>> + Send {
    let count = now.page_count();
    let gone = (count..on_disk).map(move |index| Change::Remove(PageId { part, index }));
    let groups = 0..count.div_ceil(PAGES_PER_GROUP);
    let pages = groups.flat_map(move |group| {
        let is_same = before.as_deref().is_some_and(|before| {
            let version = now.group_version(group);
            let last = ((group + 1) * PAGES_PER_GROUP).min(count);
            version.is_some()
                && version == before.group_version(group)
                && last <= before.page_count()
        });
        let first = group * PAGES_PER_GROUP;
        let last = if is_same { first } else { (first + PAGES_PER_GROUP).min(count) };
        let (now, before) = (Arc::clone(&now), before.clone());
        (first..last).filter_map(move |index| {
            let put = || Change::Put(PageId { part, index }, now.page(index));
            let Some(before) = before.as_deref().filter(|it| index < it.page_count()) else {
                return Some(put());
            };
            match (now.page_version(index), before.page_version(index)) {
                (Some(now), Some(before)) => (now != before).then(put),
                _ => (now.page(index) != before.page(index)).then(put),
            }
        })
    });
    pages.chain(gone)
}

#[cfg(test)]
mod tests;
