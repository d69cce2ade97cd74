//! Groups over real sockets whose replicas run services that differ.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use common::{Running, wait_until};
use hybster::client::CallError;
use hybster::{Context, GroupConfig, Layout, Pages, RestoreError, Service, Snapshot, Status};

/// Counts operations, and keeps the number in a page with a byte that is each replica's own.
struct Salted {
    salt: u8,
    count: u64,
}

impl Service for Salted {
    fn execute(&mut self, _: &Context, _: &[u8], reply: &mut Vec<u8>) {
        self.count += 1;
        reply.extend_from_slice(&self.count.to_le_bytes());
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        let equal = b"the same everywhere".to_vec();
        let own = [&[self.salt][..], &self.count.to_le_bytes()].concat();
        Arc::new(Pages(vec![equal.into(), own.into()]))
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        let page = source.page(1);
        let (_, count) = page.split_first_chunk::<1>().expect("it has a salt");
        self.count = u64::from_le_bytes(count.try_into().expect("and a number"));
        Ok(())
    }
}

/// A group of three with a short window, whose replicas have these salts.
fn start(name: &str, salts: [u8; 3]) -> Running {
    let config = GroupConfig {
        pillars: 2,
        window: 16,
        checkpoint_interval: 4,
        request_timeout_us: 50_000,
        ..GroupConfig::default()
    };
    let next = AtomicU16::new(0);
    Running::start_with(name, config, Layout::Fused, move || {
        let id = next.fetch_add(1, Ordering::Relaxed);
        Salted { salt: salts[usize::from(id)], count: 0 }
    })
}

fn all(running: &Running) -> Vec<Status> {
    (0..3).map(|id| running.status(id)).collect()
}

#[test]
fn where_all_states_differ_calls_end_with_an_error_of_their_own() {
    let running = start("all-differ", [1, 2, 3]);
    let client = running.client(0);
    let halts = (0..200).find_map(|_| client.call(b"count").err());
    assert!(matches!(halts, Some(CallError::StatesDiffer)), "{halts:?}");
    wait_until("all say so", || all(&running).iter().all(|status| status.halted));
    // Again and again, and nobody is suspected for it.
    for _ in 0..5 {
        let again = client.call(b"count");
        assert!(matches!(again, Err(CallError::StatesDiffer)), "{again:?}");
    }
    for status in all(&running) {
        assert_eq!((status.current_view, status.divergences), (0, 0), "{status:?}");
        assert_eq!(status.executed, 16);
        assert!(status.peers.iter().all(|peer| peer.differed > 0), "{status:?}");
    }
    running.shutdown();
}

#[test]
fn one_state_that_differs_is_counted_and_the_group_goes_on() {
    let running = start("one-differs", [1, 1, 2]);
    let client = running.client(0);
    for number in 1..=100u64 {
        assert_eq!(client.call(b"count").unwrap(), number.to_le_bytes());
    }
    wait_until("it is found and counted", || running.status(2).divergences > 0);
    wait_until("the others name it", || {
        let of_2 = |status: Status| status.peers.iter().any(|p| p.replica == 2 && p.differed > 0);
        of_2(running.status(0)) || of_2(running.status(1))
    });
    for id in 0..2 {
        let status = running.status(id);
        assert_eq!((status.divergences, status.halted), (0, false), "{status:?}");
    }
    client.call(b"count").unwrap();
    running.shutdown();
}
