//! Timers by agreed time in groups: they fire with operations, once, and the same everywhere.

use std::time::{Duration, Instant};

use hybster::durable::Durability;
use hybster::paged::{Paged, PagedCell, PagedTimers};
use hybster::testing::LocalCluster;
use hybster::typed::{NoRefusal, Typed, TypedService};
use hybster::{Context, ReplicaId};
use serde::{Deserialize, Serialize};

#[derive(Default)]
struct Alarms {
    set: PagedTimers<u64>,
    /// The sum of what has fired, and how many did.
    fired: PagedCell<(u64, u64)>,
}

#[derive(Serialize, Deserialize)]
enum Operation {
    Set { in_ms: u64, value: u64 },
    Nothing,
}

impl TypedService for Alarms {
    type Operation = Operation;
    type Reply = (u64, u64);
    type Refusal = NoRefusal;

    fn execute(
        &mut self,
        context: &Context,
        operation: Operation,
    ) -> Result<(u64, u64), NoRefusal> {
        while let Some((id, value)) = self.set.take_due(context) {
            assert!(id.due_ms() <= context.time_ms);
            self.fired.0 = self.fired.0.wrapping_mul(31).wrapping_add(value);
            self.fired.1 += 1;
        }
        if let Operation::Set { in_ms, value } = operation {
            self.set.set(context.time_ms.saturating_add(in_ms), value);
        }
        Ok(*self.fired)
    }

    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.set, &mut self.fired]
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_timer_fires_with_the_first_operation_after_its_time_also_under_another_leader() {
    let mut cluster = LocalCluster::builder()
        .durability(Durability::Async)
        .start(Typed::<Alarms>::default)
        .unwrap();
    let alarms = cluster.client().unwrap().typed::<Alarms>();
    let set = |in_ms, value| alarms.call(&Operation::Set { in_ms, value }).unwrap();
    assert_eq!(set(u64::MAX, 1), (0, 0));
    assert_eq!(set(30, 3), (0, 0));
    let fired = |cluster: &LocalCluster, count| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (sum, fired) = alarms.call(&Operation::Nothing).unwrap();
            if fired == count {
                return sum;
            }
            assert!(fired < count && Instant::now() < deadline, "{fired} of {cluster:?}");
        }
    };
    assert_eq!(fired(&cluster, 1), 3);
    // Timers are state: replicas that start again, and a new leader, have them.
    set(20, 5);
    for replica in cluster.replicas() {
        cluster.stop(replica).unwrap();
        cluster.restart(replica).unwrap();
        alarms.call(&Operation::Nothing).unwrap();
        cluster.await_equal().unwrap();
    }
    cluster.cut(ReplicaId(cluster.leader().0)).unwrap();
    assert_eq!(fired(&cluster, 2), 3 * 31 + 5);
    cluster.shutdown().unwrap();
}

#[cfg(feature = "simulator")]
#[test]
fn timers_are_the_same_on_all_replicas_whatever_happens() {
    use hybster::testing::{Random, simulate};
    use hybster::typed::encode;

    let operation = |random: &mut Random| {
        encode(&match random.below(3) {
            0 => Operation::Nothing,
            _ => Operation::Set { in_ms: random.below(200), value: random.next() },
        })
    };
    let done = simulate(Typed::<Alarms>::default, operation, 0..60);
    let done = done.unwrap_or_else(|failed| panic!("{failed}"));
    assert!(done.transfers > 0 && done.restarts > 0, "{done:?}");
}
