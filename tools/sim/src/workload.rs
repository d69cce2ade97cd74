//! The service that a run replicates, and the operations of its clients: the simulator's registers, or what
//! somebody brings along.

use std::fmt;
use std::sync::Arc;

use hybster_proto::config::GroupConfig;
use hybster_proto::service::{Context, RestoreError, Service, Snapshot};

use crate::random::Random;

type Make = dyn Fn() -> Box<dyn Service> + Send + Sync;
type Draw = dyn Fn(&mut Random) -> Vec<u8> + Send + Sync;

/// A service from outside, and a way to make operations for it.
#[derive(Clone)]
pub struct Workload {
    make: Arc<Make>,
    operation: Arc<Draw>,
}

impl Workload {
    /// Services as `make` makes them, each in its initial state, and operations as `operation` draws them:
    /// from the random source alone, or a seed would not reproduce a run.
    pub fn new<S, O>(
        make: impl Fn() -> S + Send + Sync + 'static,
        operation: impl Fn(&mut Random) -> O + Send + Sync + 'static,
    ) -> Self
    where
        S: Service,
        O: Into<Vec<u8>>,
    {
        Self {
            make: Arc::new(move || Box::new(make())),
            operation: Arc::new(move |random| operation(random).into()),
        }
    }

    pub(crate) fn service(&self) -> Simulated {
        Simulated((self.make)())
    }

    pub(crate) fn operation(&self, random: &mut Random) -> Vec<u8> {
        let bytes = (self.operation)(random);
        let most = GroupConfig::default().max_operation_bytes as usize;
        assert!(bytes.len() <= most, "an operation has {} bytes; at most {most}", bytes.len());
        bytes
    }
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workload")
    }
}

/// The service of a replica, whichever it is.
pub(crate) struct Simulated(pub(crate) Box<dyn Service>);

impl Service for Simulated {
    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        self.0.execute(context, operation, reply);
    }

    fn query(&self, operation: &[u8], reply: &mut Vec<u8>) -> bool {
        self.0.query(operation, reply)
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        self.0.snapshot()
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        self.0.restore(source)
    }

    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        self.0.restore_changed(source, base, changed)
    }
}
