//! Hubs over TCP, carried by epoll.

use hybster_net::TransportKind;

const KIND: TransportKind = TransportKind::Epoll;

#[path = "tcp/suite.rs"]
mod suite;
