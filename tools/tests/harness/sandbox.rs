//! What a test takes away from a process that it starts.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// `EPERM` for `io_uring_setup` in the process that `command` starts, as the seccomp profiles of
/// containers do.
pub(crate) fn forbid_io_uring(command: &mut Command) {
    // SAFETY: between fork and exec only system calls are made, which is async-signal-safe.
    unsafe { command.pre_exec(refuse_io_uring_setup) };
}

/// At most this many bytes of address space in the process that `command` starts (`prlimit --as`).
pub(crate) fn limit_address_space(command: &mut Command, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    let set = move || {
        // SAFETY: the structure lives until the call returns.
        let failed = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } != 0;
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec one system call is made, which is async-signal-safe.
    unsafe { command.pre_exec(set) };
}

fn refuse_io_uring_setup() -> io::Result<()> {
    const NUMBER: u32 = libc::SYS_io_uring_setup as u32;
    let statement =
        |code: u32, jt: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let mut filter = [
        // The number of the call is the first field of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, NUMBER)
        },
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its statements live until the call returns, and the kernel copies them.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
}
