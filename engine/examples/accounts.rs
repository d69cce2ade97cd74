//! How to write a service: accounts with transfers between them, replicated on three replicas.
//!
//! `cargo run --release --example accounts` starts the replicas in this process (each could as
//! well run on a machine of its own), moves money, stops the leader and moves some more.

use hybster::client::{Client, ClientOptions};
use hybster::group::{Addresses, CreateOptions, create};
use hybster::{ClientId, ClientKeys, Context, Pages, Replica, ReplicaKeys};
use hybster::{RestoreError, Service, Snapshot};
use std::sync::Arc;

/// The state: the balance of 256 accounts. An operation is `[from, to, amount]`; the reply says
/// whether the money was there and what both accounts have now.
struct Accounts([u32; 256]);

impl Service for Accounts {
    fn execute(&mut self, _: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        // Every replica must do the same for any bytes, malformed ones included.
        let &[from, to, amount] = operation else { return reply.push(0xff) };
        let (from, to, amount) = (usize::from(from), usize::from(to), u32::from(amount));
        let covered = self.0[from] >= amount;
        if covered {
            self.0[from] -= amount;
            self.0[to] += amount;
        }
        reply.push(u8::from(covered));
        reply.extend_from_slice(&self.0[from].to_le_bytes());
        reply.extend_from_slice(&self.0[to].to_le_bytes());
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        let page: Vec<u8> = self.0.iter().flat_map(|balance| balance.to_le_bytes()).collect();
        Arc::new(Pages(vec![page.into()]))
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        let page = source.page(0);
        if page.len() != 4 * self.0.len() {
            return Err(RestoreError { page: 0, what: format!("{} bytes", page.len()) });
        }
        for (balance, bytes) in self.0.iter_mut().zip(page.chunks_exact(4)) {
            *balance = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("accounts-{}", std::process::id()));
    let addresses = Addresses::Loopback(7310);
    let group = create(&dir, &CreateOptions { addresses, ..CreateOptions::default() })?;
    let mut replicas = Vec::new();
    for id in group.config().all_replicas() {
        let keys = ReplicaKeys::load(&group, &dir, id)?;
        let service = Accounts([100; 256]);
        replicas.push(Replica::builder(group.clone(), keys).service(service).start()?);
    }
    let keys = ClientKeys::load(&group, &dir, ClientId(0))?;
    let client = Client::connect(&group, &keys, ClientOptions::default())?;

    let show = |what: &str, reply: &[u8]| println!("{what}: {reply:?}");
    show("move 30 from 1 to 2", &client.call(&[1, 2, 30])?);
    show("move 80 from 1 to 2 (too much)", &client.call(&[1, 2, 80])?);
    println!("stopping the leader …");
    replicas.remove(0).shutdown()?;
    show("move 5 from 2 to 1", &client.call(&[2, 1, 5])?);

    client.shutdown();
    for replica in replicas {
        replica.shutdown()?;
    }
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
