//! Tests of a service before it is deployed.
//!
//! [`LocalCluster`] is a whole group in one process, whose replicas can be stopped, paused and cut off.
//! [`check_deterministic`] finds a service that must not be replicated as it is.
//!
//! # Whether a service is deterministic
//!
//! The one promise that a [`Service`] gives is that it is deterministic. One that is not works, in
//! every test with one process, and stops the group some day: replicas execute the same operations
//! and come to different states, so that no checkpoint becomes stable. [`check_deterministic`] runs a
//! service several times over the same operations and compares what comes out.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::Arc;
//!
//! use hybster::testing::{Nondeterminism, check_deterministic};
//! use hybster::{Context, Pages, RestoreError, Service, Snapshot};
//!
//! /// Counts words, and writes them to its page in the order of a hash table: wrong.
//! #[derive(Default)]
//! struct Words(HashMap<Vec<u8>, u64>);
//!
//! impl Service for Words {
//!     fn execute(&mut self, _: &Context, word: &[u8], reply: &mut Vec<u8>) {
//!         let count = self.0.entry(word.to_vec()).or_default();
//!         *count += 1;
//!         reply.extend_from_slice(&count.to_le_bytes());
//!     }
//!
//!     fn snapshot(&mut self) -> Arc<dyn Snapshot> {
//!         let mut page = Vec::new();
//!         for (word, count) in &self.0 {
//!             page.extend_from_slice(&count.to_le_bytes());
//!             page.extend_from_slice(&(word.len() as u64).to_le_bytes());
//!             page.extend_from_slice(word);
//!         }
//!         Arc::new(Pages(vec![page.into()]))
//!     }
//!
//!     fn restore(&mut self, pages: &dyn Snapshot) -> Result<(), RestoreError> {
//! #       self.0.clear();
//! #       let page = pages.page(0);
//! #       let mut rest = &page[..];
//! #       let number = |rest: &mut &[u8]| {
//! #           let (first, after) = rest.split_first_chunk::<8>().unwrap();
//! #           *rest = after;
//! #           u64::from_le_bytes(*first)
//! #       };
//! #       while !rest.is_empty() {
//! #           let (count, length) = (number(&mut rest), number(&mut rest));
//! #           let (word, after) = rest.split_at(length as usize);
//! #           rest = after;
//! #           self.0.insert(word.to_vec(), count);
//! #       }
//!         // …
//!         Ok(())
//!     }
//! }
//!
//! let words: Vec<String> = (0..50).map(|number| format!("word {number}")).collect();
//! let found = check_deterministic(Words::default, &words).unwrap_err();
//! assert!(matches!(found, Nondeterminism::Page { page: 0, .. }), "{found}");
//! ```

mod cluster;
#[cfg(feature = "simulator")]
mod simulator;
mod wires;

use std::fmt;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use hybster_proto::ids::{ClientId, OrderNumber, RequestNumber, SessionId};
use hybster_proto::service::{Context, MAX_PAGE_BYTES, Pages, RestoreError, Service};

pub use cluster::{ClusterBuilder, ClusterError, LocalCluster};
#[cfg(feature = "simulator")]
pub use simulator::{Random, Simulated, SimulationFailed, simulate};

/// Operations that share an order number, as those of a batch do.
const PER_BATCH: u64 = 3;
/// Agreed time of the first operation, in milliseconds since the Unix epoch.
const BEGINS_MS: u64 = 1_700_000_000_000;
/// Agreed time that passes from one batch to the next, in milliseconds.
const BATCH_MS: u64 = 7;
/// What one operation of the disturbed run allocates and gives back in other order, in bytes.
const DISTURBANCES: [usize; 6] = [17, 4096, 40, 333, 70_000, 96];
/// Disturbances that are kept for some operations.
const KEPT: usize = 37;
/// Bytes of a result that an error shows.
const SHOWN: usize = 32;

/// A run of the service, as errors name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Run {
    /// In another thread, with another seed of hashers and other addresses of what is allocated.
    Repeated,
    /// From pages that the first run gave half-way, as a replica that was behind goes on.
    Restored,
}

/// Where a service was found not to be deterministic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Nondeterminism {
    /// An operation had two results.
    #[error(
        "operation {operation} had the result {first}, and {run} {second}: the result must follow from the \
         state, the operation and the context alone"
    )]
    Result {
        /// The index of the operation.
        operation: usize,
        /// What came out first.
        first: Output,
        /// The run that had another result.
        run: Run,
        /// What came out then.
        second: Output,
    },
    /// After an operation a page had two contents. Of several pages it is the first one.
    #[error(
        "after operation {operation} page {page} was not the same {run}: pages must follow from the \
         operations alone (no order of a hash table, no address, no clock, nothing random)"
    )]
    Page {
        /// The index of the operation.
        operation: usize,
        /// The first page that was not the same.
        page: u64,
        /// The run in which it was another.
        run: Run,
    },
    /// After an operation there were more pages in one run than in another.
    #[error("after operation {operation} there were {first} pages, and {run} {second}")]
    PageCount {
        /// The index of the operation.
        operation: usize,
        /// How many there were first.
        first: u64,
        /// The run in which there were others.
        run: Run,
        /// How many there were then.
        second: u64,
    },
    /// A page kept its version, and its content changed: a replica would not look at it.
    #[error(
        "with operation {operation} page {page} changed and `Snapshot::page_version` did not: the \
         version must change whenever the content does"
    )]
    Version {
        /// The index of the operation.
        operation: usize,
        /// The page.
        page: u64,
    },
    /// A page is too long to travel.
    #[error(
        "after operation {operation} page {page} has {bytes} bytes; the most is {MAX_PAGE_BYTES}"
    )]
    LongPage {
        /// The index of the operation.
        operation: usize,
        /// The page.
        page: u64,
        /// Its length.
        bytes: usize,
    },
    /// The service cannot read its own pages.
    #[error("after operation {operation} a new instance cannot restore the pages: {error}")]
    Restore {
        /// The index of the last operation before.
        operation: usize,
        /// What the service says.
        error: RestoreError,
    },
}

/// The result of an operation. It is shown in part.
#[derive(Clone, PartialEq, Eq)]
pub struct Output(pub Vec<u8>);

/// Runs a service over operations several times, and compares every result and, after every
/// operation, every page.
///
/// `make` makes the service in its initial state. There are three runs: two over all operations, in
/// threads of their own, so that hashers have other seeds, and with other allocations around the
/// service, so that addresses differ; and one that takes over from the first run's pages half-way, as
/// a replica does that got its state by transfer. Time and randomness of the [`Context`] are
/// equal in all of them, and rise as in a group.
///
/// All pages are read after each operation, so a few thousand operations on a state of a few
/// megabytes are what it is for. What is random may come out equal by chance: use many keys.
///
/// # Errors
/// The first operation whose result differs, or the first page that differs after an operation.
///
/// # Panics
/// If the service does, or if no thread can be started.
pub fn check_deterministic<S, F, O>(make: F, operations: &[O]) -> Result<(), Nondeterminism>
where
    S: Service,
    F: Fn() -> S + Sync,
    O: AsRef<[u8]> + Sync,
{
    let half = operations.len().saturating_sub(1) / 2;
    let (repeated, from_repeated) = sync_channel(1);
    let (restored, from_restored) = sync_channel(1);
    let (pages_of_half, to_restored) = sync_channel::<(usize, Pages)>(1);
    let make = &make;
    thread::scope(|scope| {
        let repeated = scope.spawn(move || {
            let mut disturbances = Disturbances::default();
            let mut service = make();
            run(&mut service, operations, 0, &mut disturbances, &repeated);
        });
        let restored = scope.spawn(move || {
            let Ok((operation, pages)) = to_restored.recv() else { return };
            let mut service = make();
            if let Err(error) = service.restore(&pages) {
                let _ = restored.send(Err(Nondeterminism::Restore { operation, error }));
                return;
            }
            let mut none = Disturbances::off();
            run(&mut service, operations, operation + 1, &mut none, &restored);
        });
        let mut others =
            Others { from_repeated, from_restored, pages_of_half: Some(pages_of_half), half };
        let compared = scope.spawn(move || others.compare(make(), operations)).join();
        // Whoever waits for the others hears that they have ended.
        for ended in [repeated.join(), restored.join()] {
            ended.unwrap_or_else(|panic| resume_unwind(panic));
        }
        compared.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// What an operation led to.
struct Outcome {
    result: Vec<u8>,
    pages: Pages,
}

type Told = Result<Outcome, Nondeterminism>;

/// The other runs, as the first one sees them.
struct Others {
    from_repeated: Receiver<Told>,
    from_restored: Receiver<Told>,
    /// Until the pages were given.
    pages_of_half: Option<SyncSender<(usize, Pages)>>,
    half: usize,
}

impl Others {
    fn compare<S: Service, O: AsRef<[u8]>>(
        &mut self,
        mut service: S,
        operations: &[O],
    ) -> Result<(), Nondeterminism> {
        let mut before = read(&mut service);
        for (operation, bytes) in operations.iter().enumerate() {
            let result = execute(&mut service, operation, bytes.as_ref());
            let after = read(&mut service);
            check_pages(operation, &before, &after)?;
            let own = Outcome { result, pages: after.pages() };
            for run in [Run::Repeated, Run::Restored] {
                let from = match run {
                    Run::Repeated => &self.from_repeated,
                    Run::Restored if operation > self.half => &self.from_restored,
                    Run::Restored => continue,
                };
                // It ends early only by a panic, which is passed on.
                let Ok(other) = from.recv() else { return Ok(()) };
                own.compare(&other?, operation, run)?;
            }
            if operation == self.half
                && let Some(pages) = self.pages_of_half.take()
            {
                let _ = pages.send((operation, own.pages));
            }
            before = after;
        }
        // What the last pages were no base for, if there was one operation only.
        self.pages_of_half = None;
        match self.from_restored.recv() {
            Ok(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Outcome {
    fn compare(&self, other: &Self, operation: usize, run: Run) -> Result<(), Nondeterminism> {
        if self.result != other.result {
            let (first, second) = (Output(self.result.clone()), Output(other.result.clone()));
            return Err(Nondeterminism::Result { operation, first, run, second });
        }
        let (Pages(first), Pages(second)) = (&self.pages, &other.pages);
        if let Some(page) = first.iter().zip(second).position(|(a, b)| a != b) {
            return Err(Nondeterminism::Page { operation, page: page as u64, run });
        }
        let (first, second) = (first.len() as u64, second.len() as u64);
        if first != second {
            return Err(Nondeterminism::PageCount { operation, first, run, second });
        }
        Ok(())
    }
}

fn run<S: Service, O: AsRef<[u8]>>(
    service: &mut S,
    operations: &[O],
    from: usize,
    disturbances: &mut Disturbances,
    told: &SyncSender<Told>,
) {
    for (operation, bytes) in operations.iter().enumerate().skip(from) {
        disturbances.disturb(operation);
        let result = execute(service, operation, bytes.as_ref());
        let pages = read(service).pages();
        if told.send(Ok(Outcome { result, pages })).is_err() {
            // A difference was found.
            return;
        }
    }
}

fn execute<S: Service>(service: &mut S, operation: usize, bytes: &[u8]) -> Vec<u8> {
    let number = operation as u64;
    let order = 1 + number / PER_BATCH;
    let session = SessionId::new(ClientId((number % 5) as u32), 1 + number % 3, 0);
    let mut context = Context::new(session, RequestNumber(1 + number), OrderNumber(order));
    context.time_ms = BEGINS_MS + BATCH_MS * order;
    let mut result = Vec::new();
    service.execute(&context, bytes, &mut result);
    result
}

/// The pages of a state, with their versions.
struct Read(Vec<(Bytes, Option<u64>)>);

impl Read {
    fn pages(&self) -> Pages {
        Pages(self.0.iter().map(|(content, _)| content.clone()).collect())
    }
}

fn read<S: Service>(service: &mut S) -> Read {
    let snapshot = service.snapshot();
    let pages = 0..snapshot.page_count();
    Read(pages.map(|page| (snapshot.page(page), snapshot.page_version(page))).collect())
}

/// What holds for the pages of one run.
fn check_pages(operation: usize, before: &Read, after: &Read) -> Result<(), Nondeterminism> {
    for (page, (content, version)) in (0..).zip(&after.0) {
        if content.len() > MAX_PAGE_BYTES {
            let bytes = content.len();
            return Err(Nondeterminism::LongPage { operation, page, bytes });
        }
        let old = before.0.get(page as usize);
        if version.is_some() && old.is_some_and(|(old, of)| of == version && old != content) {
            return Err(Nondeterminism::Version { operation, page });
        }
    }
    Ok(())
}

/// Allocations beside those of the service, so that what it allocates lies elsewhere.
#[derive(Default)]
struct Disturbances {
    is_off: bool,
    kept: Vec<Vec<u8>>,
}

impl Disturbances {
    fn off() -> Self {
        Self { is_off: true, ..Self::default() }
    }

    fn disturb(&mut self, operation: usize) {
        if self.is_off {
            return;
        }
        let sizes = DISTURBANCES.iter().cycle().skip(operation % DISTURBANCES.len());
        self.kept.extend(sizes.take(operation % 4 + 1).map(|size| vec![0xd1; *size]));
        while self.kept.len() > KEPT {
            // Neither first in, first out nor the reverse.
            self.kept.swap_remove(operation % KEPT);
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeated => "in a second run",
            Self::Restored => "in a run from restored pages",
        })
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        match self.0.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} bytes more"),
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
