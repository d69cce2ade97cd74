//! Hubs over TCP, carried by `io_uring` where the system has it.

use hybster_net::{AnyTransport, TransportKind};

const KIND: TransportKind = TransportKind::Auto;

#[path = "tcp/suite.rs"]
mod suite;

#[test]
fn the_suite_says_so_if_it_runs_over_epoll() {
    let kind = AnyTransport::new(KIND).unwrap().kind();
    if kind != TransportKind::IoUring {
        eprintln!("no io_uring here: these tests ran over {kind}");
    }
}
