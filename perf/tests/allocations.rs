//! Allocations per request at steady state: of the replica core and of the client core.
//!
//! A group runs on one thread ([`Rig`]) over an allocator that counts. Once all tables and buffers
//! have grown, a request must allocate nothing: allocations belong to a batch, a message or a
//! checkpoint, so they do not grow with the number of requests in a batch. The test compares
//! batches of 64 with batches of 512, and prints both: `cargo test -p hybster-perf --test
//! allocations -- --nocapture`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;

use hybster::services::NullService;
use hybster_perf::{Fixture, Place, Probe, Rig};
use hybster_proto::service::{Context, RestoreError, Service, Snapshot};

/// Rounds before counting: several checkpoints, so that every table has grown.
const WARM_UP: u32 = 3_000;
/// Rounds counted: a multiple of the checkpoint interval.
const ROUNDS: u32 = 2_560;

const PLACES: usize = Place::ALL.len();

thread_local! {
    /// The part that the thread is working in; other allocations belong to the rig.
    static PLACE: Cell<Option<Place>> = const { Cell::new(None) };
    static COUNTS: [Cell<u64>; PLACES] = const { [const { Cell::new(0) }; PLACES] };
    static BYTES: [Cell<u64>; PLACES] = const { [const { Cell::new(0) }; PLACES] };
}

/// The system's allocator, with counters per part.
struct Counting;

fn count(bytes: usize) {
    // While a thread ends, its cells are gone, and nothing is counted.
    let Ok(Some(place)) = PLACE.try_with(Cell::get) else { return };
    let add = |cells: &[Cell<u64>; PLACES], value| {
        let cell = &cells[place as usize];
        cell.set(cell.get() + value);
    };
    let _ = COUNTS.try_with(|cells| add(cells, 1));
    let _ = BYTES.try_with(|cells| add(cells, bytes as u64));
}

// SAFETY: every call is handed on to the system's allocator unchanged, so its guarantees hold;
// counting touches thread-local cells only, which neither allocate nor have destructors.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the promises of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the promises of `GlobalAlloc::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps the promises of `GlobalAlloc::realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tells the allocator which part the thread is working in.
struct Counter;

impl Probe for Counter {
    fn enter(&mut self, place: Place) {
        PLACE.set(Some(place));
    }

    fn leave(&mut self) {
        PLACE.set(None);
    }
}

/// Allocations (and bytes) per batch, of all replicas together, by part.
fn per_batch<S: Service>(
    pillars: u16,
    requests: u32,
    operation: &[u8],
    service: impl FnMut() -> S,
) -> [(f64, f64); PLACES] {
    let fixture = Fixture::of_three(pillars, requests);
    let mut rig = Rig::new(&fixture, requests, service);
    for _ in 0..WARM_UP {
        rig.round(requests, operation, &mut Counter);
    }
    let read = || {
        let counts = COUNTS.with(|cells| cells.each_ref().map(Cell::get));
        let bytes = BYTES.with(|cells| cells.each_ref().map(Cell::get));
        (counts, bytes)
    };
    let (before, bytes_before) = read();
    for _ in 0..ROUNDS {
        rig.round(requests, operation, &mut Counter);
    }
    let (after, bytes_after) = read();
    std::array::from_fn(|at| {
        let share = |now: u64, then: u64| (now - then) as f64 / f64::from(ROUNDS);
        (share(after[at], before[at]), share(bytes_after[at], bytes_before[at]))
    })
}

fn show(title: &str, requests: u32, list: &[(f64, f64); PLACES]) {
    println!("{title}: allocations per batch of {requests} (three replicas and the client)");
    for (place, (count, bytes)) in Place::ALL.iter().zip(list) {
        let name = format!("{place:?}");
        let each = count / f64::from(requests);
        println!("  {name:<10} {count:>8.2} per batch {bytes:>10.0} B {each:>8.4} per request");
    }
    let all: f64 = list.iter().map(|(count, _)| count).sum();
    println!(
        "  {:<10} {all:>8.2} per batch {:>21.4} per request",
        "all",
        all / f64::from(requests)
    );
}

/// Allocations that one more request in a batch adds, by part.
fn growth(
    (few, small): (u32, &[(f64, f64); PLACES]),
    (many, large): (u32, &[(f64, f64); PLACES]),
) -> [f64; PLACES] {
    std::array::from_fn(|at| (large[at].0 - small[at].0) / f64::from(many - few))
}

/// No stage allocates per request: eight times as many requests in a batch cost the same number of
/// allocations, except for blocks of memory, whose number depends on the bytes of the batches, and
/// for the pages of the session table that are digested once per interval.
fn no_allocation_per_request(operation: &[u8], reply: usize) {
    for pillars in [1, 2] {
        let (few, many) = (64, 512);
        let small = per_batch(pillars, few, operation, || NullService::new(reply));
        let large = per_batch(pillars, many, operation, || NullService::new(reply));
        let title = format!("{pillars} pillar(s), {} B, reply {reply} B", operation.len());
        show(&title, few, &small);
        show(&title, many, &large);
        for (place, each) in Place::ALL.iter().zip(growth((few, &small), (many, &large))) {
            let limit = match place {
                // Session pages that changed, once per checkpoint interval.
                Place::State => 0.005,
                // Blocks that batches are cut from.
                Place::Clients => 0.005,
                _ => 0.001,
            };
            assert!(each <= limit, "{title}: {place:?} allocates {each:.4} times per request");
        }
    }
}

#[test]
fn empty_requests_allocate_nothing_each() {
    no_allocation_per_request(b"", 0);
}

#[test]
fn requests_and_replies_with_content_allocate_nothing_each() {
    no_allocation_per_request(&[7; 100], 100);
}

/// Allocates once per request, as a stage must not.
struct Wasteful(NullService);

impl Service for Wasteful {
    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        drop(black_box(Box::new(0_u8)));
        self.0.execute(context, operation, reply);
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        self.0.snapshot()
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        self.0.restore(source)
    }

    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        self.0.restore_changed(source, base, changed)
    }
}

/// The counter works: it sees one allocation per request at each of three replicas.
#[test]
fn an_allocation_per_request_is_seen() {
    let measure = |requests| per_batch(1, requests, b"", || Wasteful(NullService::new(0)));
    let each = growth((64, &measure(64)), (512, &measure(512)));
    let execution = each[Place::Execution as usize];
    assert!((3.0..3.1).contains(&execution), "{execution:.4} allocations per request");
}
