//! A counter that outlives its replicas: each is stopped and comes back with its data.

use hybster::Context;
use hybster::durable::Durability;
use hybster::paged::{Paged, PagedCell};
use hybster::testing::LocalCluster;
use hybster::typed::{NoRefusal, Typed, TypedService};
use serde::{Deserialize, Serialize};

#[derive(Default)]
struct Counter {
    value: PagedCell<i64>,
}

#[derive(Serialize, Deserialize)]
enum Operation {
    Add(i64),
    Get,
}

impl TypedService for Counter {
    type Operation = Operation;
    type Reply = i64;
    type Refusal = NoRefusal;

    fn execute(&mut self, _: &Context, operation: Operation) -> Result<i64, NoRefusal> {
        if let Operation::Add(amount) = operation {
            *self.value = self.value.wrapping_add(amount);
        }
        Ok(*self.value)
    }

    fn query(&self, operation: &Operation) -> Option<Result<i64, NoRefusal>> {
        matches!(operation, Operation::Get).then_some(Ok(*self.value))
    }

    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.value]
    }
}

/// Runs the example.
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let durable = LocalCluster::builder().durability(Durability::Async);
    let mut cluster = durable.start(Typed::<Counter>::default)?;
    let counter = cluster.client()?.typed::<Counter>();
    for replica in cluster.replicas() {
        cluster.stop(replica)?;
        println!("without replica {}: {}", replica.0, counter.call(&Operation::Add(5))?);
        cluster.restart(replica)?;
    }
    assert_eq!(counter.query(&Operation::Get)?, 15);
    Ok(())
}
