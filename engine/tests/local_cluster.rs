//! Whole groups in this process, with faults at will, and groups whose keys are in no file.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Scratch, free_addresses, wait_until};
use hybster::client::{CallError, Client, ClientDriver, ClientOptions, RequestKind};
use hybster::durable::Durability;
use hybster::group::{Addresses, CreateOptions, Generated, generate};
use hybster::replica::ServiceCall;
use hybster::services::CounterService;
use hybster::services::counter::{decode_reply, encode_add, encode_get};
use hybster::testing::{ClusterError, LocalCluster};
use hybster::{
    ClientId, Context, GroupConfig, OrderNumber, Protocol, Replica, ReplicaError, ReplicaId,
    ReplicaKeys,
};
use hybster::{RestoreError, Service, Snapshot, StartError};

fn add(client: &Client, amount: i64) -> i64 {
    decode_reply(&client.call(&encode_add(amount)).unwrap()).unwrap()
}

#[test]
fn a_cluster_goes_on_without_its_leader() {
    let mut cluster = LocalCluster::start(CounterService::new).unwrap();
    let client = cluster.client().unwrap();
    assert_eq!(add(&client, 3), 3);
    let leader = cluster.leader();
    cluster.stop(leader).unwrap();
    assert_eq!(add(&client, 4), 7);
    assert_ne!(cluster.leader(), leader);
    assert!(cluster.status(leader).is_none());
    assert!(matches!(cluster.stop(leader), Err(ClusterError::NotRunning { .. })));
    // Without durability, its counters are lost.
    let error = cluster.restart(leader).unwrap_err();
    assert!(matches!(error, ClusterError::Start { .. }), "{error}");
    let nobody = cluster.stop(ReplicaId(3)).unwrap_err();
    assert_eq!(nobody.to_string(), "the cluster has no replica 3; it has 3, numbered from 0");
    cluster.shutdown().unwrap();
}

/// Four replicas without trusted subsystems, and without any secret in common.
#[test]
fn a_cluster_that_runs_pbft_goes_on_without_its_leader_and_catches_up() {
    // So that who was away needs the state, and not the log alone.
    let config = GroupConfig { checkpoint_interval: 8, window: 32, ..GroupConfig::default() };
    let builder = LocalCluster::builder().config(config).protocol(Protocol::Pbft);
    let mut cluster = builder.start(CounterService::new).unwrap();
    let client = cluster.client().unwrap();
    assert_eq!(add(&client, 3), 3);
    let read = client.query(&encode_get()).unwrap();
    assert_eq!(decode_reply(&read), Some(3));
    cluster.cut(ReplicaId(3)).unwrap();
    for sum in 4..=103 {
        assert_eq!(add(&client, 1), sum);
    }
    cluster.heal(ReplicaId(3)).unwrap();
    let leader = cluster.leader();
    cluster.stop(leader).unwrap();
    // A result takes three of the four, so the one that was away has caught up.
    assert_eq!(add(&client, 4), 107);
    assert_ne!(cluster.leader(), leader);
    let read = client.query(&encode_get()).unwrap();
    assert_eq!(decode_reply(&read), Some(107));
    let error = cluster.restart(leader).unwrap_err();
    assert!(matches!(error, ClusterError::Start { .. }), "{error}");
    cluster.shutdown().unwrap();
}

#[test]
fn clusters_run_side_by_side_with_clients_of_their_own() {
    std::thread::scope(|scope| {
        for number in 1..=4 {
            scope.spawn(move || {
                let mut cluster = LocalCluster::start(CounterService::new).unwrap();
                let clients = [0, 1].map(|id| {
                    let options = ClientOptions::default();
                    cluster.client_with(ClientId(id), options).unwrap()
                });
                for client in clients.iter().cycle().take(20) {
                    add(client, number);
                }
                cluster.stop(ReplicaId(2)).unwrap();
                assert_eq!(add(&clients[1], 0), 20 * number);
            });
        }
    });
}

#[test]
fn all_replicas_come_back_with_their_data_one_after_the_other_and_together() {
    let builder = LocalCluster::builder().durability(Durability::Async);
    let mut cluster = builder.start(CounterService::new).unwrap();
    let client = cluster.client().unwrap();
    let mut expected = 0;
    for replica in cluster.replicas() {
        cluster.stop(replica).unwrap();
        expected += 5;
        assert_eq!(add(&client, 5), expected);
        cluster.restart(replica).unwrap();
        assert!(matches!(cluster.restart(replica), Err(ClusterError::Running { .. })));
    }
    cluster.await_equal().unwrap();
    let all = cluster.replicas();
    all.iter().for_each(|replica| cluster.stop(*replica).unwrap());
    all.iter().for_each(|replica| cluster.restart(*replica).unwrap());
    assert_eq!(add(&client, 1), expected + 1);
    cluster.shutdown().unwrap();
}

#[test]
fn who_is_paused_or_cut_off_is_not_needed_and_comes_back() {
    let cluster = LocalCluster::builder().start(CounterService::new).unwrap();
    let client = cluster.client().unwrap();
    cluster.pause(ReplicaId(1)).unwrap();
    assert_eq!(add(&client, 1), 1);
    cluster.resume(ReplicaId(1)).unwrap();
    cluster.await_equal().unwrap();
    cluster.cut(ReplicaId(2)).unwrap();
    assert_eq!(add(&client, 1), 2);
    cluster.heal(ReplicaId(2)).unwrap();
    cluster.await_equal().unwrap();
    // Two of three are more than f: nothing is certain until one of them is back.
    cluster.cut(ReplicaId(1)).unwrap();
    cluster.pause(ReplicaId(2)).unwrap();
    let pending = client.try_submit(&encode_add(1), RequestKind::Ordered).unwrap();
    let pending = pending.wait_timeout(Duration::from_millis(300)).unwrap_err();
    cluster.resume(ReplicaId(2)).unwrap();
    assert_eq!(decode_reply(&pending.wait().unwrap()), Some(3));
    cluster.heal(ReplicaId(1)).unwrap();
    cluster.await_equal().unwrap();
    cluster.shutdown().unwrap();
}

#[test]
fn a_cluster_may_have_more_faults() {
    let mut cluster = LocalCluster::builder().faults(2).start(CounterService::new).unwrap();
    assert_eq!(cluster.replicas().len(), 5);
    fn may_be_shared_by_threads(_: &(impl Send + Sync)) {}
    may_be_shared_by_threads(&cluster);
    let client = cluster.client().unwrap();
    cluster.stop(ReplicaId(0)).unwrap();
    cluster.cut(ReplicaId(4)).unwrap();
    assert_eq!(add(&client, 9), 9);
}

/// Says the same as the counter, but for one operation.
#[derive(Default)]
struct Brittle(CounterService);

impl Service for Brittle {
    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        assert_ne!(operation, b"break", "this service is brittle");
        self.0.execute(context, operation, reply);
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        self.0.snapshot()
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        self.0.restore(source)
    }
}

#[test]
fn a_panic_of_the_service_is_told_as_its_own() {
    let mut cluster = LocalCluster::start(Brittle::default).unwrap();
    let client = cluster.client().unwrap();
    add(&client, 1);
    client.submit(b"break").detach();
    // When so many have stopped that no quorum is left, others may never come to it.
    let stopped = || cluster.replicas().into_iter().find(|it| !cluster.is_running(*it));
    wait_until("one stops", || stopped().is_some());
    let stopped = stopped().unwrap();
    let error = cluster.stop(stopped).unwrap_err();
    let ClusterError::Replica(ReplicaError::ServicePanicked { replica, service, call }) = &error
    else {
        panic!("{error}");
    };
    assert!(*replica == stopped.0 && service.ends_with("Brittle"), "{service}");
    assert!(matches!(call, ServiceCall::Execute { order: OrderNumber(2..), .. }), "{call}");
    let text = error.to_string();
    assert!(text.contains("of session c0/") && !text.contains("bug"), "{text}");
}

/// Every replica says something else, though their states are the same.
#[derive(Default)]
struct Talkative(CounterService);

impl Service for Talkative {
    fn execute(&mut self, _: &Context, _: &[u8], reply: &mut Vec<u8>) {
        static SAID: AtomicU64 = AtomicU64::new(0);
        reply.extend(SAID.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        self.0.snapshot()
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        self.0.restore(source)
    }
}

#[test]
fn replies_that_differ_and_replicas_that_are_away_are_different_errors() {
    let cluster = LocalCluster::start(Talkative::default).unwrap();
    // On a busy machine a short time may pass before two have answered.
    let mut within = Duration::from_millis(250);
    let call = |request_timeout| {
        let options = ClientOptions { request_timeout, ..ClientOptions::default() };
        cluster.client_with(ClientId(1), options).unwrap().call(b"").unwrap_err()
    };
    while !matches!(call(within), CallError::RepliesDiffer) {
        assert!(within < Duration::from_secs(60));
        within *= 2;
    }
    let options = ClientOptions { request_timeout: within, ..ClientOptions::default() };
    let client = cluster.client_with(ClientId(2), options).unwrap();
    (0..2).for_each(|replica| cluster.cut(ReplicaId(replica)).unwrap());
    let error = client.call(b"").unwrap_err();
    let CallError::Unreachable(unreachable) = &error else { panic!("{error}") };
    assert_eq!((unreachable.connected, unreachable.needed), (1, 2));
}

/// As on machines that get their keys from an environment or a store of secrets.
#[test]
fn replicas_with_keys_from_texts_start_only_when_somebody_knows_that_they_may() {
    let scratch = Scratch::new("keys-from-texts");
    let options =
        CreateOptions { addresses: Addresses::List(free_addresses(3)), ..CreateOptions::default() };
    assert_eq!(options.durability, Durability::Sync);
    let Generated { group, replicas, clients, .. } = generate(&options).unwrap();
    let texts: Vec<_> = replicas.iter().map(|keys| keys.to_text().unwrap()).collect();
    drop(replicas);
    let builder = |id: u16| {
        let keys = ReplicaKeys::from_text(&group, &texts[usize::from(id)], ReplicaId(id)).unwrap();
        Replica::builder(group.clone(), keys).service(CounterService::new())
    };
    let data = |id: u16| scratch.path().join(format!("data-{id}"));
    let error = builder(0).start().unwrap_err();
    assert!(matches!(error, StartError::NoDataDirectory { id: 0 }), "{error}");
    let error = builder(0).data(data(0)).start().unwrap_err();
    assert!(matches!(error, StartError::PerhapsStarted { id: 0 }), "{error}");
    let start = |id| builder(id).data(data(id)).first_start().start().unwrap();
    let running: Vec<_> = (0..3).map(start).collect();
    let client = Client::connect(&group, &clients[0], ClientOptions::default()).unwrap();
    assert_eq!(add(&client, 6), 6);
    running.into_iter().for_each(|replica| replica.shutdown().unwrap());
    // Its data says that it is not the first.
    let error = builder(0).data(data(0)).first_start().start().unwrap_err();
    assert!(matches!(error, StartError::NotTheFirst { id: 0, .. }), "{error}");
    let _running: Vec<_> = (0..3).map(|id| builder(id).data(data(id)).start().unwrap()).collect();
    assert_eq!(decode_reply(&client.query(&encode_get()).unwrap()), Some(6));
}

/// Whoever connects and then does something else for a while has its links still: the last message of the handshakes
/// has left.
#[test]
fn a_driver_that_has_connected_need_not_be_polled_at_once() {
    let cluster = LocalCluster::start(CounterService::new).unwrap();
    let (group, keys) = (cluster.group(), cluster.client_keys(ClientId(1)).unwrap());
    let mut driver = ClientDriver::connect(group, keys, &ClientOptions::default()).unwrap();
    driver.await_links(Duration::from_secs(60)).unwrap();
    // Longer than a replica waits for a handshake.
    std::thread::sleep(Duration::from_secs(6));
    // What the system has of them is seen at once: nobody connects again so soon.
    (0..3).for_each(|_| driver.poll(Duration::from_millis(1)).unwrap());
    let up = cluster.replicas().into_iter().filter(|it| driver.request_status(*it).is_ok());
    assert!(up.count() >= 2, "replicas have given the driver up");
}

/// A result needs two replicas of three, so it takes as long as their links do if two are slow, and no longer
/// than usual if one is; that one catches up.
#[test]
fn a_slow_replica_is_waited_for_only_where_it_is_needed() {
    let cluster = LocalCluster::start(CounterService::new).unwrap();
    let client = cluster.client().unwrap();
    assert_eq!(add(&client, 1), 1);
    let delay = Duration::from_millis(100);
    cluster.slow(ReplicaId(2), delay).unwrap();
    assert_eq!(add(&client, 1), 2);
    cluster.slow(ReplicaId(1), delay).unwrap();
    let asked = Instant::now();
    assert_eq!(add(&client, 1), 3);
    // A bound from below only: a busy machine makes nothing quicker.
    assert!(asked.elapsed() >= delay, "a result came without a slow replica");
    cluster.heal(ReplicaId(1)).unwrap();
    cluster.heal(ReplicaId(2)).unwrap();
    assert_eq!(add(&client, 1), 4);
    cluster.await_equal().unwrap();
    cluster.shutdown().unwrap();
}
