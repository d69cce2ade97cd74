//! The C library's heap, told to keep what is freed.
//!
//! Each checkpoint frees the batches and pages before it, megabytes at once. glibc hands such memory
//! back to the kernel by default (`M_TRIM_THRESHOLD`, `M_MMAP_THRESHOLD` in mallopt(3)) and fetches
//! it again a moment later, page fault by page fault, each of which clears a page.
#![allow(unsafe_code)]

/// Freed memory at the end of a heap that is kept, and blocks that are still served from a heap,
/// in bytes. glibc takes 32 MiB at most for the latter.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEEP_BYTES: [libc::c_int; 2] = [1 << 30, 32 << 20];

/// By how much a heap grows at once, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GROW_BYTES: libc::c_int = 1 << 20;

/// Keeps freed memory for the next allocation. For programs that run a replica or a busy client;
/// call it once, at the start, before there are threads.
///
/// Does nothing where the allocator is not glibc's. Nor is it needed with another
/// `#[global_allocator]`, which it does not touch.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        (libc::M_TRIM_THRESHOLD, KEEP_BYTES[0]),
        (libc::M_MMAP_THRESHOLD, KEEP_BYTES[1]),
        (libc::M_TOP_PAD, GROW_BYTES),
    ] {
        // SAFETY: mallopt takes any option and value, and takes the allocator's own lock. It
        // returns 0 for what it does not accept, which leaves the defaults.
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
