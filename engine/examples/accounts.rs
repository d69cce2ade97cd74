//! Accounts with transfers between them: three replicas in this process, of which the leader is stopped.
use hybster::Context;
use hybster::paged::{Paged, PagedMap};
use hybster::testing::LocalCluster;
use hybster::typed::{OperationError, Typed, TypedService};
use serde::{Deserialize, Serialize};

/// The balances that are not 100, which is what everybody begins with.
#[derive(Default)]
struct Bank(PagedMap<u32, u64>);

#[derive(Serialize, Deserialize)]
struct Transfer(u32, u32, u64);

impl TypedService for Bank {
    type Operation = Transfer;
    type Reply = (u64, u64); // What the two have then.
    type Refusal = u64; // What the first has: too little.

    fn execute(&mut self, _: &Context, transfer: Transfer) -> Result<(u64, u64), u64> {
        let Transfer(from, to, amount) = transfer;
        let balance = |bank: &Self, of| bank.0.get(&of).copied().unwrap_or(100);
        let has = balance(self, from);
        self.0.insert(from, has.checked_sub(amount).ok_or(has)?);
        self.0.insert(to, balance(self, to).saturating_add(amount));
        Ok((balance(self, from), balance(self, to)))
    }
    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.0]
    }
}
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cluster = LocalCluster::start(Typed::<Bank>::default)?;
    let bank = cluster.client()?.typed::<Bank>();
    assert_eq!(bank.call(&Transfer(1, 2, 30))?, (70, 130));
    cluster.stop(cluster.leader())?;
    assert_eq!(bank.call(&Transfer(2, 1, 5))?, (125, 75));
    assert!(matches!(bank.call(&Transfer(1, 2, 80)), Err(OperationError::Refused(75))));
    Ok(())
}
