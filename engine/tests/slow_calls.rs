//! An operator is told of calls of the service that take long. It has a logger, so it is a program of its own.

mod common;

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use common::wait_until;
use hybster::paged::{Paged, PagedCell};
use hybster::testing::LocalCluster;
use hybster::typed::{NoRefusal, Typed, TypedService};
use hybster::{Context, GroupConfig};

/// How long a request may wait, and how long the slow operation takes: more than a fifth.
const TIMEOUT_US: u64 = 1_000_000;
const SLOW: Duration = Duration::from_millis(250);

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Warn {
            LINES.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[derive(Default)]
struct Sleeper(PagedCell<u64>);

impl TypedService for Sleeper {
    type Operation = bool; // Whether it takes long.
    type Reply = u64;
    type Refusal = NoRefusal;

    fn execute(&mut self, _: &Context, is_slow: bool) -> Result<u64, NoRefusal> {
        if is_slow {
            thread::sleep(SLOW);
        }
        *self.0 += 1;
        Ok(*self.0)
    }

    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.0]
    }
}

#[test]
fn a_slow_operation_is_logged_with_its_duration_session_and_order_number() {
    log::set_logger(&Lines).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let config = GroupConfig { request_timeout_us: TIMEOUT_US, ..GroupConfig::default() };
    let cluster = LocalCluster::builder().config(config).start(Typed::<Sleeper>::default);
    let cluster = cluster.unwrap();
    let client = cluster.client().unwrap().typed::<Sleeper>();
    assert_eq!(client.call(&false).unwrap(), 1);
    assert_eq!(client.call(&true).unwrap(), 2);
    let is_told = || {
        let lines = LINES.lock().unwrap();
        let of_calls = lines.iter().filter(|line| line.contains("Sleeper> took "));
        of_calls.filter(|line| line.contains("while it executed request ")).count()
    };
    wait_until("all replicas tell of it", || is_told() >= 3);
    let lines = LINES.lock().unwrap().clone();
    let line = lines.iter().find(|line| line.contains("Sleeper")).unwrap();
    for part in ["of session ", "at order number ", "of 200 ms or more"] {
        assert!(line.contains(part), "{line}");
    }
    cluster.shutdown().unwrap();
}
