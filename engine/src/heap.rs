//! The allocator of programs that run replicas: freed memory is kept, and the end of memory explained.
//!
//! Each checkpoint frees the batches and pages before it, megabytes at once. By default glibc
//! returns such memory to the kernel (`M_TRIM_THRESHOLD`, `M_MMAP_THRESHOLD` in mallopt(3)) and
//! gets it back a moment later, page fault by page fault, each of which clears a page.
//!
//! Where memory ends (`prlimit --as`), an allocation fails and Rust aborts the process with nothing but
//! its length. [`Heap`] ends it with an explanation instead.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;

/// How much freed memory at its end a heap keeps, and up to which size blocks come from a heap, in
/// bytes. glibc accepts at most 32 MiB for the latter.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEEP_BYTES: [libc::c_int; 2] = [1 << 30, 32 << 20];

/// How much a heap grows at a time, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GROW_BYTES: libc::c_int = 1 << 20;

/// Keeps freed memory for the next allocation. For programs that run a replica or a busy client;
/// call it once, at the start, before there are threads.
///
/// ```
/// #[global_allocator]
/// static HEAP: hybster::heap::Heap = hybster::heap::Heap;
///
/// fn main() {
///     hybster::heap::keep_freed_memory();
///     // … and then the replica.
/// }
/// ```
///
/// Does nothing if the C library is not glibc. It has no effect on another `#[global_allocator]`,
/// which does not need it either.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        (libc::M_TRIM_THRESHOLD, KEEP_BYTES[0]),
        (libc::M_MMAP_THRESHOLD, KEEP_BYTES[1]),
        (libc::M_TOP_PAD, GROW_BYTES),
    ] {
        // SAFETY: mallopt accepts any option and value, and takes the allocator's lock itself. For
        // those that it does not know it returns 0 and leaves the defaults.
        unsafe { libc::mallopt(option, value) };
    }
}

/// What [`Heap`] says besides the length of the allocation that failed.
static ADVICE: OnceLock<String> = OnceLock::new();

/// Sets what [`Heap`] says when memory has ended: why, and what to do. The first call counts.
pub fn explain_exhaustion(advice: String) {
    let _ = ADVICE.set(advice);
}

/// The system's allocator. When it has no memory left, it writes what [`explain_exhaustion`] set to
/// standard error and ends the process with status 1.
///
/// ```
/// #[global_allocator]
/// static HEAP: hybster::heap::Heap = hybster::heap::Heap;
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

// SAFETY: every call goes to the system's allocator as it is, and its result is returned as it is,
// unless it is null: then the call does not return.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` asks for.
        present(unsafe { System.alloc(layout) }, layout.size())
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        present(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; the block came from `System`.
        present(unsafe { System.realloc(block, layout, size) }, size)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) };
    }
}

#[inline]
fn present(block: *mut u8, size: usize) -> *mut u8 {
    if block.is_null() {
        exhausted(size);
    }
    block
}

/// Allocates nothing, takes no lock and runs no handler: any thread may be anywhere.
#[cold]
fn exhausted(size: usize) -> ! {
    let mut digits = [0; 20];
    let advice = ADVICE.get().map_or("raise the limit of memory (prlimit --as, ulimit -v)", |a| a);
    for part in [
        "hybster: out of memory: ",
        decimal(size, &mut digits),
        " more bytes were refused; ",
        advice,
        "\n",
    ] {
        write_to_stderr(part.as_bytes());
    }
    end()
}

fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &str {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return std::str::from_utf8(&digits[start..]).unwrap_or_default();
        }
    }
}

#[cfg(unix)]
fn write_to_stderr(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and the length are those of a slice.
        let written =
            unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
        let Some(rest) = usize::try_from(written).ok().and_then(|n| bytes.get(n.max(1)..)) else {
            return;
        };
        bytes = rest;
    }
}

#[cfg(not(unix))]
fn write_to_stderr(_: &[u8]) {}

#[cfg(unix)]
fn end() -> ! {
    // SAFETY: it has no conditions. Handlers of exit(3) could allocate, so they are left out.
    unsafe { libc::_exit(1) }
}

#[cfg(not(unix))]
fn end() -> ! {
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn lengths_are_decimal() {
        for number in [0, 9, 10, 4_194_304, usize::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string());
        }
    }

    #[test]
    fn memory_can_be_had_and_freed_afterwards() {
        super::keep_freed_memory();
        for size in [1, 4 << 10, 1 << 20, 40 << 20] {
            let block = vec![7_u8; size];
            assert!(block.iter().all(|byte| *byte == 7));
        }
    }
}
