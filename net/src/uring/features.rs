//! What the kernel's `io_uring` must have: the kernel is asked, since a version would not tell.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Whether this `io_uring` has what we need.
pub(super) fn check(io: &IoUring) -> io::Result<()> {
    let params = io.params();
    let features = [
        (params.is_feature_nodrop(), "results that are never dropped"),
        (params.is_feature_submit_stable(), "submissions that may be forgotten"),
        (params.is_feature_skip_cqe_on_success(), "operations that report only failure"),
    ];
    let mut probe = Probe::new();
    io.submitter().register_probe(&mut probe)?;
    let operations = [
        (opcode::RecvMulti::CODE, "recv"),
        (opcode::AcceptMulti::CODE, "accept"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::AsyncCancel::CODE, "cancel"),
        (opcode::Timeout::CODE, "timeout"),
        (opcode::TimeoutUpdate::CODE, "timeout update"),
    ];
    let operations = operations.map(|(code, name)| (probe.is_supported(code), name));
    match features.iter().chain(&operations).find(|(is_there, _)| !is_there) {
        None => Ok(()),
        Some((_, what)) => {
            let text = format!("this kernel's io_uring lacks {what}");
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
    }
}

/// Says what could not be done, and why.
pub(super) fn explain(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("io_uring cannot {what}: {error}"))
}
