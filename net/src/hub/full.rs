//! Clients for which much waits, and those of them that take nothing.
//!
//! A client is not called slow by the bytes that wait for it: replies may be long and its wire thin. It
//! is, when its link is full and nothing of what waits has moved for [`Limits::client_stall`]. A buffer
//! counts as taken once the system has all of it, which takes a while on a thin wire, so the system is
//! asked as well, several times within that while.
//!
//! [`Limits::client_stall`]: crate::Limits::client_stall

use std::time::{Duration, Instant};

use super::event::LinkId;
use super::{Hub, find};
use crate::reject::Reason;
use crate::transport::Transport;

/// How often within [`Limits::client_stall`](crate::Limits::client_stall) it is seen whether a client
/// takes something.
const LOOKS: u32 = 8;

/// A link of a client for which much waits.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) link: LinkId,
    /// When it was looked at last; not before the next poll, which knows the time.
    looked: Option<Instant>,
    /// Since when nothing has moved.
    since: Option<Instant>,
    /// What the transport had given back then, and what the other host had not acknowledged.
    seen: (u64, usize),
}

impl Full {
    pub(super) const fn new(link: LinkId) -> Self {
        Self { link, looked: None, since: None, seen: (0, 0) }
    }

    /// When it is to be looked at again.
    fn due(&self, now: Instant, stall: Duration) -> Instant {
        self.looked.map_or(now, |looked| looked + stall / LOOKS)
    }
}

impl<T: Transport> Hub<T> {
    /// When a full link is to be looked at.
    pub(super) fn stall_deadline(&self, now: Instant) -> Option<Instant> {
        self.full.iter().map(|full| full.due(now, self.limits.client_stall)).min()
    }

    /// Disconnects clients that take nothing.
    pub(super) fn disconnect_stalled(&mut self, now: Instant) {
        if self.full.is_empty() {
            return;
        }
        let stall = self.limits.client_stall;
        let mut stalled = Vec::new();
        let Self { full, connections, transport, .. } = self;
        for it in full {
            if it.due(now, stall) > now {
                continue;
            }
            it.looked = Some(now);
            let Some(connection) = find(connections, it.link.0) else {
                continue;
            };
            let unacknowledged = transport.tcp_state(it.link.0).unacknowledged_bytes;
            let seen = (connection.taken, unacknowledged);
            match it.since {
                Some(since) if it.seen == seen => {
                    if now.saturating_duration_since(since) >= stall {
                        stalled.push((it.link, connection.in_flight));
                    }
                }
                _ => (it.since, it.seen) = (Some(now), seen),
            }
        }
        for (link, waiting) in stalled {
            let text = format!(
                "{waiting} bytes of replies wait, and the client has taken none for {stall:?}: its \
                 process hangs, or it does not read what it asked for"
            );
            self.reject_live(link.0, Reason::SlowReader, &text);
        }
    }
}
