//! The project's simulator around a user's service.

use std::ops::Range;

use hybster_proto::service::Service;
use hybster_sim::Workload;

pub use hybster_sim::random::Random;
pub use hybster_sim::simulate::{Simulated, SimulationFailed};

/// Runs a service in simulated groups, one for each seed, in which what can go wrong does: messages are lost,
/// doubled and overtaken, links break, replicas are cut off, slow, paused, stopped and started again from
/// their disks, power is lost everywhere, hosts lie. One thread and virtual time: a seed gives the same run
/// each time, on every machine.
///
/// `make` makes the service in its initial state, and `operation` the bytes of an operation, from nothing but the
/// random source (or a seed would not reproduce its run), at most 1 MiB. Checked is, at each step, that all correct
/// replicas
///
/// - execute the same operations in the same order, each at most once, and only what a client has submitted;
/// - have the same results and the same checkpoints, also those that got their state by transfer or from a disk;
/// - and that each operation that was answered was executed, with that result, and that all are answered in the end.
///
/// Whether the results are *right*, only the service's own tests know. Half of the operations are
/// tried as queries first ([`Service::query`]).
///
/// Needs the feature `simulator`, in the development dependencies:
///
/// ```toml
/// [dev-dependencies]
/// hybster = { version = "0.1", features = ["simulator"] }
/// ```
///
/// ```
/// use hybster::Context;
/// use hybster::paged::{Paged, PagedMap};
/// use hybster::testing::{Random, simulate};
/// use hybster::typed::{NoRefusal, Typed, TypedService, encode};
///
/// #[derive(Default)]
/// struct Tally(PagedMap<u64, u64>);
///
/// impl TypedService for Tally {
///     type Operation = u64;
///     type Reply = u64;
///     type Refusal = NoRefusal;
///
///     fn execute(&mut self, _: &Context, of: u64) -> Result<u64, NoRefusal> {
///         let count = self.0.get(&of).map_or(1, |count| count + 1);
///         self.0.insert(of, count);
///         Ok(count)
///     }
///
///     fn state(&mut self) -> Vec<&mut dyn Paged> {
///         vec![&mut self.0]
///     }
/// }
///
/// let operation = |random: &mut Random| encode(&random.below(9));
/// let done = simulate(Typed::<Tally>::default, operation, 0..10).unwrap();
/// assert!(done.operations > 0 && done.checkpoints > 0);
/// ```
///
/// # Errors
/// The first seed whose run broke one of these, with the last steps of the replicas concerned. To see it
/// again: `seed..seed + 1`. A panic of the service is one of them.
pub fn simulate<S, O>(
    make: impl Fn() -> S + Send + Sync + 'static,
    operation: impl Fn(&mut Random) -> O + Send + Sync + 'static,
    seeds: Range<u64>,
) -> Result<Simulated, Box<SimulationFailed>>
where
    S: Service,
    O: Into<Vec<u8>>,
{
    hybster_sim::simulate::simulate(&Workload::new(make, operation), seeds)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::services::{CounterService, counter};
    use crate::{Context, Pages, RestoreError, Snapshot};

    fn add(random: &mut Random) -> Vec<u8> {
        counter::encode_add(random.between(1, 9) as i64).to_vec()
    }

    #[test]
    fn a_service_that_comes_with_the_crate_holds_and_much_happens() {
        let done = simulate(CounterService::new, add, 0..60).unwrap_or_else(|it| panic!("{it}"));
        let Simulated { runs, operations, checkpoints, transfers, restarts, views } = done;
        assert_eq!(runs, 60);
        assert!(operations > 1000, "{done:?}");
        assert!(checkpoints > 0 && transfers > 0 && restarts > 0 && views > 0, "{done:?}");
        assert_eq!(simulate(CounterService::new, add, 0..60).unwrap(), done);
    }

    /// Wrong in one way or another.
    struct Wrong {
        how: How,
        count: u64,
        /// What is in no page.
        secret: u64,
        /// Which instance this is: what no replica may depend on.
        instance: u64,
    }

    #[derive(Clone, Copy)]
    enum How {
        Result,
        Page,
        Forgets,
        Panics,
    }

    impl Service for Wrong {
        fn execute(&mut self, _: &Context, _: &[u8], reply: &mut Vec<u8>) {
            self.count += 1;
            self.secret += 1;
            let told = match self.how {
                How::Result if self.count > 20 => self.count + self.instance,
                How::Forgets => self.secret,
                How::Panics if self.count > 20 => panic!("no result for {}", self.count),
                _ => self.count,
            };
            reply.extend_from_slice(&told.to_le_bytes());
        }

        fn snapshot(&mut self) -> Arc<dyn Snapshot> {
            let salt = if let How::Page = self.how { self.instance } else { 0 };
            Arc::new(Pages(vec![(self.count + salt).to_le_bytes().to_vec().into()]))
        }

        fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
            let what = || RestoreError { page: 0, what: "not a number".into() };
            let bytes = source.page(0);
            let bytes = bytes.first_chunk().ok_or_else(what)?;
            self.count = u64::from_le_bytes(*bytes);
            Ok(())
        }
    }

    #[test]
    fn services_that_are_wrong_are_found() {
        for (how, property) in [
            (How::Result, &["total order", "equal results"][..]),
            (How::Page, &["equal checkpoints", "equal states"]),
            (How::Forgets, &["total order", "equal results"]),
            (How::Panics, &["no panics"]),
        ] {
            let instances = AtomicU64::new(0);
            let make = move || {
                let instance = instances.fetch_add(1, Ordering::Relaxed);
                Wrong { how, count: 0, secret: 0, instance }
            };
            let found = simulate(make, |_: &mut Random| *b"x", 0..200).unwrap_err();
            assert!(property.contains(&found.violation.property), "{property:?}: {found}");
        }
    }
}
