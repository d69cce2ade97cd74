//! Names and versions of services: who runs another one is refused, and a group is upgraded while it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hybster::durable::Durability;
use hybster::paged::{Paged, PagedCell};
use hybster::testing::LocalCluster;
use hybster::typed::{NoRefusal, Typed, TypedClient, TypedService};
use hybster::{Context, ReplicaId, ServiceIdentity, Status};

/// A sum, under any name.
struct Sum {
    identity: ServiceIdentity,
    value: PagedCell<u64>,
}

impl Sum {
    fn new(identity: ServiceIdentity) -> Typed<Self> {
        Typed(Self { identity, value: PagedCell::default() })
    }
}

impl TypedService for Sum {
    type Operation = u64;
    type Reply = u64;
    type Refusal = NoRefusal;

    fn identity(&self) -> Option<ServiceIdentity> {
        Some(self.identity)
    }

    fn execute(&mut self, _: &Context, amount: u64) -> Result<u64, NoRefusal> {
        *self.value = self.value.wrapping_add(amount);
        Ok(*self.value)
    }

    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.value]
    }
}

fn client(cluster: &LocalCluster) -> TypedClient<Sum> {
    cluster.client().unwrap().typed::<Sum>()
}

/// Whether links with a replica were refused for its service, and none is up.
fn is_refused(status: &Status, other: u16) -> bool {
    let is_reason = status.refusals.iter().any(|it| it.reason == "service_mismatch");
    is_reason && status.peers.iter().all(|peer| peer.replica != other || !peer.up)
}

#[test]
fn who_runs_another_service_is_refused_and_the_others_go_on() {
    let started = AtomicU32::new(0);
    let cluster = LocalCluster::start(move || {
        let name = if started.fetch_add(1, Ordering::Relaxed) == 2 { "shop" } else { "bank" };
        Sum::new(ServiceIdentity::new(name, 1))
    });
    let cluster = cluster.unwrap();
    let bank = client(&cluster);
    assert_eq!(bank.call(&3).unwrap(), 3);
    let refused = |all: &[Status]| all[..2].iter().all(|status| is_refused(status, 2));
    cluster.await_status("replicas that refuse the third one", refused).unwrap();
    let third = cluster.status(ReplicaId(2)).unwrap();
    assert_eq!((third.service.as_str(), third.service_version, third.executed), ("shop", 1, 0));
    assert_eq!(bank.call(&4).unwrap(), 7);
    cluster.shutdown().unwrap();
}

#[test]
fn a_group_is_upgraded_to_a_compatible_version_and_refuses_another() {
    let version = Arc::new(AtomicU32::new(1));
    let made = Arc::clone(&version);
    let mut cluster = LocalCluster::builder()
        .durability(Durability::Async)
        .start(move || {
            let identity = match made.load(Ordering::Relaxed) {
                2 => ServiceIdentity::new("bank", 2).compatible_from(1),
                version => ServiceIdentity::new("bank", version),
            };
            Sum::new(identity)
        })
        .unwrap();
    let bank = client(&cluster);
    assert_eq!(bank.call(&1).unwrap(), 1);
    version.store(2, Ordering::Relaxed);
    for (expected, replica) in (2..).zip(cluster.replicas()) {
        cluster.stop(replica).unwrap();
        cluster.restart(replica).unwrap();
        assert_eq!(bank.call(&1).unwrap(), expected);
        let is_upgraded =
            |all: &[Status]| all.iter().all(|status| status.peers.iter().all(|it| it.up));
        cluster.await_status("links of all replicas", is_upgraded).unwrap();
        cluster.await_equal().unwrap();
    }
    version.store(3, Ordering::Relaxed);
    cluster.stop(ReplicaId(1)).unwrap();
    cluster.restart(ReplicaId(1)).unwrap();
    let refused = |all: &[Status]| is_refused(&all[0], 1) && is_refused(&all[2], 1);
    cluster.await_status("replicas that refuse version 3", refused).unwrap();
    assert_eq!(bank.call(&1).unwrap(), 5);
    let versions =
        cluster.replicas().into_iter().map(|id| cluster.status(id).unwrap().service_version);
    assert_eq!(versions.collect::<Vec<_>>(), [2, 3, 2]);
    cluster.shutdown().unwrap();
}
