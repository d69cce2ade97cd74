//! A lock service: leases that end by agreed time, and fencing tokens for those who are late.
//!
//! Whoever has a lock may be stopped for longer than its lease and not know it. So what the lock protects
//! takes the token with each request, and refuses one that is lower than one it has seen.

use std::time::Duration;

use hybster::Context;
use hybster::paged::{Paged, PagedCell, PagedMap};
use hybster::testing::LocalCluster;
use hybster::typed::{OperationError, Typed, TypedService};
use serde::{Deserialize, Serialize};

#[derive(Default)]
struct Locks {
    leases: PagedMap<String, Lease>,
    /// The last token that was given. It is never given again.
    token: PagedCell<u64>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Lease {
    token: u64,
    until_ms: u64,
}

#[derive(Serialize, Deserialize)]
enum Operation {
    /// Takes a lock that is free; the reply is its token.
    Acquire {
        lock: String,
        for_ms: u64,
    },
    /// Keeps a lock for longer.
    Renew {
        lock: String,
        token: u64,
        for_ms: u64,
    },
    Release {
        lock: String,
        token: u64,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Refusal {
    /// Somebody has it, for so long at most.
    Held { for_ms: u64 },
    /// The lease has ended, and perhaps somebody else has the lock.
    Lost,
}

impl Locks {
    /// The lease, if it has not ended.
    fn held(&self, lock: &str, now_ms: u64) -> Option<Lease> {
        self.leases.get(lock).copied().filter(|lease| lease.until_ms > now_ms)
    }
}

impl TypedService for Locks {
    type Operation = Operation;
    type Reply = u64;
    type Refusal = Refusal;

    fn execute(&mut self, context: &Context, operation: Operation) -> Result<u64, Refusal> {
        let now = context.time_ms;
        match operation {
            Operation::Acquire { lock, for_ms } => {
                if let Some(lease) = self.held(&lock, now) {
                    return Err(Refusal::Held { for_ms: lease.until_ms - now });
                }
                *self.token += 1;
                let lease = Lease { token: *self.token, until_ms: now.saturating_add(for_ms) };
                self.leases.insert(lock, lease);
                Ok(lease.token)
            }
            Operation::Renew { lock, token, for_ms } => {
                let lease = self.held(&lock, now).filter(|lease| lease.token == token);
                let lease = lease.ok_or(Refusal::Lost)?;
                let until_ms = lease.until_ms.max(now.saturating_add(for_ms));
                self.leases.insert(lock, Lease { until_ms, ..lease });
                Ok(token)
            }
            Operation::Release { lock, token } => {
                let lease = self.held(&lock, now).filter(|lease| lease.token == token);
                lease.ok_or(Refusal::Lost)?;
                self.leases.remove(&lock);
                Ok(token)
            }
        }
    }

    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.leases, &mut self.token]
    }
}

/// Runs the example.
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = LocalCluster::start(Typed::<Locks>::default)?;
    let locks = cluster.client()?.typed::<Locks>();
    let lock = || "printer".to_owned();
    let first = locks.call(&Operation::Acquire { lock: lock(), for_ms: 300 })?;
    println!("the first one has token {first}");
    // Another one waits until it ends: the first one does not renew it.
    let second = loop {
        match locks.call(&Operation::Acquire { lock: lock(), for_ms: 60_000 }) {
            Err(OperationError::Refused(Refusal::Held { for_ms })) => {
                println!("held for another {for_ms} ms");
                std::thread::sleep(Duration::from_millis(for_ms));
            }
            token => break token?,
        }
    };
    println!("the second one has token {second}");
    assert!(second > first);
    // The first one is too late, and is told so.
    let late = locks.call(&Operation::Renew { lock: lock(), token: first, for_ms: 1 });
    assert!(matches!(late, Err(OperationError::Refused(Refusal::Lost))));
    locks.call(&Operation::Renew { lock: lock(), token: second, for_ms: 60_000 })?;
    locks.call(&Operation::Release { lock: lock(), token: second })?;
    Ok(())
}
