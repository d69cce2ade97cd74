//! The heap for programs that run replicas: jemalloc, told to keep what is freed.
//!
//! Each checkpoint frees what the one before it held, tens of thousands of blocks at once. glibc's
//! allocator merges and sorts them in the calls that happen to come next, and all messages wait for
//! that; jemalloc puts them on lists by size. With a key-value store of 1 GiB under load the longest
//! pause fell to less than half. Requests without a payload cost up to a tenth more CPU time in
//! exchange (`perf/RESULTS.md`). mimalloc was faster on average, but paused for longer than glibc
//! when it cleared new memory, and was slow with payloads of 1 KiB.
//!
//! What is freed is soon needed again, so it is not given back to the system: that would cost a page
//! fault and a cleared page each time.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;

use tikv_jemalloc_sys::mallctl;

/// What a program declares as its global allocator:
///
/// ```
/// #[global_allocator]
/// static HEAP: hybster::heap::Heap = hybster::heap::Heap;
/// # fn main() {}
/// ```
pub use tikv_jemallocator::Jemalloc as Heap;

/// Times after which free memory goes back to the system, in milliseconds; −1 is never. These are
/// jemalloc's names, of arenas to come and of the first one, the only one at the start of a program.
const KEEP: [&CStr; 4] = [
    c"arenas.dirty_decay_ms",
    c"arenas.muzzy_decay_ms",
    c"arena.0.dirty_decay_ms",
    c"arena.0.muzzy_decay_ms",
];

/// Keeps freed memory for the next allocation. For programs that run a replica or a busy client,
/// with [`Heap`] as their allocator; call it once, at the start, before there are threads.
pub fn keep_freed_memory() {
    for name in KEEP {
        if set(name, -1) != 0 {
            // All works as well, but slower.
            log::debug!("the heap keeps its default for {name:?}");
        }
    }
}

/// Sets one of [`KEEP`]. Returns 0, or the number of an error.
fn set(name: &CStr, mut value: isize) -> c_int {
    let value = (&raw mut value).cast::<c_void>();
    // SAFETY: jemalloc's manual gives all of them the type ssize_t, which is isize and what is read
    // from `value`, alive until the call returns; the old value is not asked for.
    unsafe { mallctl(name.as_ptr(), null_mut(), null_mut(), value, size_of::<isize>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(name: &CStr) -> Option<isize> {
        let (mut value, mut size) = (0_isize, size_of::<isize>());
        let to = (&raw mut value).cast::<c_void>();
        // SAFETY: as above, the other way round; no new value is given.
        let error = unsafe { mallctl(name.as_ptr(), to, &raw mut size, null_mut(), 0) };
        (error == 0 && size == size_of::<isize>()).then_some(value)
    }

    #[test]
    fn all_of_it_is_accepted() {
        keep_freed_memory();
        for name in KEEP {
            assert_eq!(get(name), Some(-1), "{name:?}");
        }
        assert_ne!(set(c"arenas.no_such_thing", -1), 0);
    }
}
