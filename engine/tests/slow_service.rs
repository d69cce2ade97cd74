//! A service that takes longer for an operation than a request may wait, in replicas whose stages all share
//! one thread.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::Running;
use hybster::client::{Client, ClientOptions};
use hybster::{
    ClientId, ClientKeys, Context, GroupConfig, Layout, Pages, RestoreError, Service, Snapshot,
};

/// Longer than a request waits before its leader is suspected, several times.
const OPERATION: Duration = Duration::from_millis(400);
const TIMEOUT_US: u64 = 100_000;
const CLIENTS: u32 = 4;
const OPERATIONS: u8 = 4;

/// Counts operations, slowly: how many there were, and how long one takes.
struct Slow(u64, Duration);

impl Service for Slow {
    fn execute(&mut self, _: &Context, _: &[u8], reply: &mut Vec<u8>) {
        thread::sleep(self.1);
        self.0 += 1;
        reply.extend_from_slice(&self.0.to_le_bytes());
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        thread::sleep(self.1);
        Arc::new(Pages(vec![self.0.to_le_bytes().to_vec().into()]))
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        let page = source.page(0);
        self.0 = u64::from_le_bytes(page.as_ref().try_into().expect("a page is a number"));
        Ok(())
    }
}

/// Nobody leaves the view for it. The leader and the followers wait for equally long, so one is
/// suspected only if it is held up by something else for several operations.
#[test]
fn a_slow_service_on_one_thread_is_no_reason_to_leave_a_view() {
    let config = GroupConfig {
        pillars: 1,
        request_timeout_us: TIMEOUT_US,
        view_timeout_us: TIMEOUT_US,
        resend_us: TIMEOUT_US / 10,
        window: 16,
        checkpoint_interval: 4,
        batch_max_requests: 1,
        ..GroupConfig::default()
    };
    let running = Running::start_with("slow-fused", config, Layout::Fused, || Slow(0, OPERATION));
    // All are connected before the service is busy.
    let clients: Vec<_> = (0..CLIENTS)
        .map(|id| {
            let keys =
                ClientKeys::load(&running.group, running.scratch.path(), ClientId(id)).unwrap();
            let request_timeout = Duration::from_secs(60);
            let options = ClientOptions { request_timeout, ..Default::default() };
            Client::connect(&running.group, &keys, options).unwrap()
        })
        .collect();
    let call_all = |client: Client| {
        move || {
            for _ in 0..OPERATIONS {
                client.call(b"count").unwrap();
            }
        }
    };
    let callers: Vec<_> =
        clients.into_iter().map(|client| thread::spawn(call_all(client))).collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let views: Vec<u64> = (0..3).map(|id| running.status(id).current_view).collect();
    assert_eq!(views, [0, 0, 0], "views that were left or entered");
    running.shutdown();
}

/// A handshake takes some polls of the network, and 5 s at most. Replicas that call their service again
/// and again poll between the calls. That these polls are enough also where calls take longer than here, this
/// does not show: unit tests of `slow_service.rs` and of the hub's handshakes have the rules for it.
#[test]
fn a_client_can_connect_to_replicas_that_are_always_busy() {
    let config = GroupConfig { window: 16, checkpoint_interval: 8, ..GroupConfig::default() };
    let long = Duration::from_millis(1500);
    let running = Running::start_with("busy-fused", config, Layout::Fused, || Slow(0, long));
    let connect = |id| {
        let keys = ClientKeys::load(&running.group, running.scratch.path(), ClientId(id)).unwrap();
        let options =
            ClientOptions { request_timeout: Duration::from_secs(40), ..Default::default() };
        Client::connect(&running.group, &keys, options).unwrap()
    };
    let is_over = Arc::new(AtomicBool::new(false));
    // Two operations are always under way.
    let busy: Vec<_> = (0..2)
        .map(|id| {
            let (client, is_over) = (connect(id), Arc::clone(&is_over));
            client.call(b"count").unwrap();
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    client.call(b"count").unwrap();
                }
            })
        })
        .collect();
    let answer = connect(2).call(b"count");
    is_over.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    answer.expect("the newcomer is heard");
    running.shutdown();
}
