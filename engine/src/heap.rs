//! Makes the C library's heap keep freed memory.
//!
//! Each checkpoint frees the batches and pages before it, megabytes at once. By default glibc
//! returns such memory to the kernel (`M_TRIM_THRESHOLD`, `M_MMAP_THRESHOLD` in mallopt(3)) and
//! gets it back a moment later, page fault by page fault, each of which clears a page.
#![allow(unsafe_code)]

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

#[cfg(test)]
mod tests {
    #[test]
    fn memory_can_be_had_and_freed_afterwards() {
        super::keep_freed_memory();
        for size in [1, 4 << 10, 1 << 20, 40 << 20] {
            let block = vec![7_u8; size];
            assert!(block.iter().all(|byte| *byte == 7));
        }
    }
}
