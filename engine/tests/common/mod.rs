//! A real group in one process: threads, sockets on loopback, files in a temporary directory.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hybster::client::{Client, ClientOptions};
use hybster::group::{Addresses, CreateOptions, create};
use hybster::services::CounterService;
use hybster::{ClientId, ClientKeys, Group, GroupConfig, Layout, Replica, ReplicaKeys};
use hybster::{RunningReplica, Service, Status};

/// A directory that goes away with the test.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hybster-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Addresses on loopback whose ports were free a moment ago.
pub fn free_addresses(count: u16) -> Vec<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // All are kept open until the last is chosen, so that none is chosen twice.
    let mut listeners = Vec::new();
    while listeners.len() < usize::from(count) {
        // Below the range of ports that Linux uses for outgoing connections, one of which could
        // take a port before its replica does. Tests that run at the same time try different ones
        // first.
        let step = std::process::id().wrapping_mul(61);
        let step = step.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (step % 20_000) as u16;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            listeners.push(listener);
        }
    }
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// A group with running replicas.
#[derive(Debug)]
pub struct Running {
    pub scratch: Scratch,
    pub group: Group,
    pub replicas: Vec<Option<RunningReplica>>,
}

impl Running {
    /// Starts all replicas of a new group with the counter service.
    pub fn start(name: &str, config: GroupConfig, layout: Layout) -> Self {
        Self::start_with(name, config, layout, CounterService::new)
    }

    pub fn start_with<S: Service>(
        name: &str,
        config: GroupConfig,
        layout: Layout,
        service: impl Fn() -> S,
    ) -> Self {
        let scratch = Scratch::new(name);
        let addresses = Addresses::List(free_addresses(config.replicas));
        let options = CreateOptions { config, addresses, clients: 4, layout, ..Default::default() };
        let group = create(scratch.path(), &options).unwrap();
        let start = |id| {
            let keys = ReplicaKeys::load(&group, scratch.path(), id).unwrap();
            Some(Replica::builder(group.clone(), keys).service(service()).start().unwrap())
        };
        let replicas = group.config().all_replicas().map(start).collect();
        Self { scratch, group, replicas }
    }

    pub fn client(&self, id: u32) -> Client {
        let keys = ClientKeys::load(&self.group, self.scratch.path(), ClientId(id)).unwrap();
        Client::connect(&self.group, &keys, ClientOptions::default()).unwrap()
    }

    pub fn status(&self, id: usize) -> Status {
        self.replicas[id].as_ref().unwrap().status()
    }

    /// Stops a replica, as a crash would look to the others.
    pub fn stop(&mut self, id: usize) {
        self.replicas[id].take().unwrap().shutdown().unwrap();
    }

    pub fn shutdown(mut self) {
        for replica in &mut self.replicas {
            if let Some(replica) = replica.take() {
                replica.shutdown().unwrap();
            }
        }
    }
}

/// Waits until `holds`, for some seconds at most.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
