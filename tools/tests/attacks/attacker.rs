//! A process of its own, but for the process: a thread with a replica's or a client's keys that sends
//! what it likes as fast as it is allowed to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hybster::{ClientKeys, Group, GroupConfig, ReplicaKeys};
use hybster_net::limits::PollLimits;
use hybster_net::{Event, Hub, HubConfig, Identity, PollTransport};

use crate::floods::{ClientFlood, PeerFlood, Seen};

/// Bytes that may wait at the attacker for one replica.
const UNSENT: usize = 1 << 20;
/// Messages that are made before the network is looked at again.
const AT_ONCE: u64 = 64;

/// Sends until it is dropped.
pub(crate) struct Attacker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    bytes: AtomicU64,
    messages: AtomicU64,
}

impl Attacker {
    /// With the link key of a replica, which must not run, to all with lower ids. `pace`: bytes per
    /// second.
    pub(crate) fn replica(
        group: &Group,
        keys: &ReplicaKeys,
        flood: PeerFlood,
        pace: Option<u64>,
    ) -> Self {
        let (liar, config) = (keys.id, Arc::clone(group.config()));
        let hub = hub(group, Identity::Replica(liar.0), keys.link.clone(), 0, liar.0);
        let make = move |seen: &Seen, count| flood.message(seen, liar, count, &config);
        Self::start(hub, Arc::clone(group.config()), liar.0, make, pace)
    }

    /// With the keys of a client, to all replicas.
    pub(crate) fn client(
        group: &Group,
        keys: &ClientKeys,
        operation: Vec<u8>,
        flood: ClientFlood,
        pace: Option<u64>,
    ) -> Self {
        static INCARNATION: AtomicU64 = AtomicU64::new(1);
        let incarnation = INCARNATION.fetch_add(1, Ordering::Relaxed);
        let replicas = group.config().replicas;
        let identity = Identity::Client(keys.id.0);
        let hub = hub(group, identity, keys.link.clone(), incarnation, replicas);
        let keys = keys.clone();
        let make =
            move |_: &Seen, count| Some(flood.message(&keys, incarnation, &operation, count));
        Self::start(hub, Arc::clone(group.config()), replicas, make, pace)
    }

    fn start(
        hub: Hub<PollTransport>,
        config: Arc<GroupConfig>,
        targets: u16,
        make: impl Fn(&Seen, u64) -> Option<Bytes> + Send + 'static,
        pace: Option<u64>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let run = move || flood(hub, &config, targets, make, pace, &of_thread);
        Self { shared, thread: Some(std::thread::spawn(run)) }
    }

    /// Bytes and messages sent so far, to all together.
    pub(crate) fn sent(&self) -> (u64, u64) {
        (self.shared.bytes.load(Ordering::Relaxed), self.shared.messages.load(Ordering::Relaxed))
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn hub(
    group: &Group,
    identity: Identity,
    key: hybster_net::StaticKey,
    incarnation: u64,
    targets: u16,
) -> Hub<PollTransport> {
    let replicas = group.replicas().iter().take(targets.into());
    let config = HubConfig {
        identity,
        key,
        keyring: Arc::new(group.key_ring().unwrap()),
        group_digest: group.config().digest().0,
        pillars: group.config().pillars,
        incarnation,
        application: None,
        cipher: group.link_cipher(),
        listen: None,
        peers: replicas.map(|entry| (entry.id.0, entry.address.clone())).collect(),
        limits: group.link_limits(),
        jitter_seed: None,
    };
    Hub::new(PollTransport::new(PollLimits::default()).unwrap(), config).unwrap()
}

fn flood(
    mut hub: Hub<PollTransport>,
    config: &GroupConfig,
    targets: u16,
    make: impl Fn(&Seen, u64) -> Option<Bytes>,
    pace: Option<u64>,
    shared: &Shared,
) {
    let (mut seen, mut events, mut count) = (Seen::default(), Vec::new(), 0);
    let started = Instant::now();
    while !shared.is_over.load(Ordering::Relaxed) {
        let allowed =
            pace.map_or(u64::MAX, |pace| (started.elapsed().as_secs_f64() * pace as f64) as u64);
        let mut is_blocked = true;
        for to in 0..targets {
            for _ in 0..AT_ONCE {
                let is_allowed = shared.bytes.load(Ordering::Relaxed) < allowed;
                if !is_allowed || !hub.is_peer_up(to) || hub.unsent_bytes(to) > UNSENT {
                    break;
                }
                let Some(message) = make(&seen, count) else { break };
                count += 1;
                let bytes = message.len() as u64;
                if hub.send_to_peer(to, message).is_ok() {
                    is_blocked = false;
                    shared.bytes.fetch_add(bytes, Ordering::Relaxed);
                    shared.messages.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let wait = if is_blocked { Duration::from_millis(1) } else { Duration::ZERO };
        hub.poll(Some(wait), Instant::now(), &mut events).unwrap();
        for event in events.drain(..) {
            if let Event::Messages { messages, .. } = event {
                messages.iter().for_each(|message| seen.note(message, config));
            }
        }
    }
}
