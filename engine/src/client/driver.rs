//! The client core over the network, polled by its owner.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hybster_net::hub::Traffic;
use hybster_net::{
    AnyTransport, Event, Hub, HubConfig, Identity, Reason, SendError, Source, Transport, Waker,
};
use hybster_proto::client::{
    ClientCore, ClientOutput, ClientStats, Completions, FIRST_NUMBER_MIN, RequestKind, SubmitError,
    pieces,
};
use hybster_proto::ids::{ReplicaId, RequestNumber, SessionId, View};
use hybster_proto::time::Time;
use hybster_proto::wire::relay::parse_relayed;
use hybster_proto::wire::request::REQUESTS_HEAD;
use hybster_proto::wire::{kind, kind_of};

use super::{ClientError, ClientOptions, MissingReplica, Unreachable};
use crate::group::{ClientKeys, Group};

/// A longer message is split between requests, so that replicas can start on the first part.
const PIECE_BYTES: usize = 128 << 10;
/// How long to wait for the other replicas once f+1 are connected.
const GRACE: Duration = Duration::from_millis(100);
/// How long to wait, at most, before another look at whether anybody still wants the links.
const LOOK: Duration = Duration::from_millis(100);
/// Bits of a session's number that hold the incarnation.
const INCARNATION_BITS: u32 = 64 - SessionId::INDEX_BITS;
/// Bits of an incarnation that are random.
const INCARNATION_RANDOM_BITS: u32 = 18;
/// The unit of time in an incarnation, in milliseconds.
const INCARNATION_TICK_MS: u64 = 250;
/// When that time begins: 2025, in seconds since the Unix epoch.
const INCARNATIONS_SINCE_S: u64 = 1_735_689_600;
/// Most status answers that wait to be taken.
const STATUSES_MAX: usize = 64;

/// A client that its owner polls: thousands of sessions over one link per replica, on the owner's
/// thread, without a lock and without an allocation per request.
///
/// ```text
/// loop {
///     driver.submit(session, &operation, RequestKind::Ordered)?;   // for each idle session
///     driver.poll(timeout)?;                                       // sends, waits, receives
///     driver.take_completions(&mut completions);
///     for completion in completions.iter() { … }
/// }
/// ```
///
/// Each driver is an incarnation of its client identity with sessions of its own; several may be
/// used at the same time, in one process or in many.
#[derive(Debug)]
pub struct ClientDriver<T: Transport = AnyTransport> {
    core: ClientCore,
    out: ClientOutput,
    hub: Hub<T>,
    events: Vec<Event>,
    peers: Vec<PeerState>,
    statuses: Vec<(ReplicaId, Bytes)>,
    started: Instant,
    now: Time,
    /// Whether the owner had its turn since the clock was read.
    is_clock_old: bool,
    unsent: u64,
    /// Buffer for envelopes, which are opened in place.
    scratch: Vec<u8>,
    unopened: u64,
}

#[derive(Debug)]
struct PeerState {
    up: bool,
    missing: MissingReplica,
}

impl ClientDriver {
    /// A driver over TCP. It connects while it is polled; see [`Self::await_links`].
    ///
    /// # Errors
    /// If the options or the group file contradict themselves, or the operating system refuses a
    /// resource.
    pub fn connect(
        group: &Group,
        keys: &ClientKeys,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        let transport = AnyTransport::new(options.transport)?;
        Self::with_transport(transport, group, keys, options)
    }
}

impl<T: Transport> ClientDriver<T> {
    /// A driver over the caller's transport.
    ///
    /// # Errors
    /// If the options or the group file contradict themselves.
    pub fn with_transport(
        transport: T,
        group: &Group,
        keys: &ClientKeys,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        options.validate(group.config())?;
        let (incarnation, first_number) = new_incarnation()?;
        let config = group.config().clone();
        let hub = Hub::new(transport, hub_config(group, keys, options, incarnation)?)?;
        let (mut core, mut out) = (
            ClientCore::new(
                config.clone(),
                keys.id,
                keys.requests.clone(),
                incarnation,
                options.sessions,
                first_number,
            ),
            ClientOutput::new(config.replicas),
        );
        let give_up = options.request_timeout.as_micros().try_into().unwrap_or(u64::MAX);
        core.give_up_after(Some(give_up));
        for replica in config.all_replicas() {
            core.replica_down(replica, Time(0), &mut out);
        }
        let peers = group.replicas().iter().map(|entry| PeerState {
            up: false,
            missing: MissingReplica {
                replica: entry.id,
                address: entry.address.clone(),
                reason: None,
                message: "no connection; is it running and reachable at this address?".into(),
            },
        });
        Ok(Self {
            core,
            out,
            hub,
            events: Vec::new(),
            peers: peers.collect(),
            statuses: Vec::new(),
            started: Instant::now(),
            now: Time(0),
            is_clock_old: true,
            unsent: 0,
            scratch: Vec::new(),
            unopened: 0,
        })
    }

    /// Starts a request, which the next poll sends. The returned number identifies its completion.
    /// Its age counts from the first one since the last poll.
    ///
    /// # Errors
    /// If the session cannot take it. Then nothing is sent.
    #[inline]
    pub fn submit(
        &mut self,
        session: u32,
        operation: &[u8],
        kind: RequestKind,
    ) -> Result<RequestNumber, SubmitError> {
        if std::mem::take(&mut self.is_clock_old) {
            // The owner may have had nothing to do for longer than a request may wait.
            self.read_clock();
        }
        self.core.submit(session, operation, kind, self.now, &mut self.out)
    }

    /// Sends what was submitted, waits at most `timeout` for something to happen, and handles what
    /// arrived. Returns at once if completions wait to be taken.
    ///
    /// # Errors
    /// Only if the transport of this process fails, never because of a replica. It is dead then, so
    /// every later poll fails too.
    pub fn poll(&mut self, timeout: Duration) -> Result<(), ClientError> {
        let now = self.read_clock();
        // What is given up is what has not arrived by now: this process may have stood still for long, and
        // the answer may be here.
        let looked_at = self.now;
        self.flush();
        let mut wait = timeout;
        if !self.out.completions.is_empty() {
            wait = Duration::ZERO;
        } else if let Some(deadline) = self.core.deadline() {
            wait = wait.min(Duration::from_micros(deadline.since_us(self.now)));
        }
        let polled = self.hub.poll(Some(wait), now, &mut self.events);
        self.read_clock();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.handle(event);
        }
        self.events = events;
        self.tick(looked_at);
        self.is_clock_old = true;
        Ok(polled?)
    }

    /// Swaps the finished requests into `completions`, whose old content is dropped.
    pub fn take_completions(&mut self, completions: &mut Completions) {
        completions.clear();
        std::mem::swap(&mut self.out.completions, completions);
    }

    /// Polls until all replicas are connected, or f+1 are and the others have had a moment.
    ///
    /// # Errors
    /// If fewer than f+1 replicas can be reached in time, or a configuration rules out that they
    /// ever are.
    pub fn await_links(&mut self, timeout: Duration) -> Result<(), ClientError> {
        self.await_links_while(timeout, || true)
    }

    /// As [`Self::await_links`], unless somebody says soon that it is of no interest any more.
    pub(super) fn await_links_while(
        &mut self,
        timeout: Duration,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(), ClientError> {
        let needed = self.core.config().replies_needed();
        let give_up = Instant::now() + timeout;
        let mut enough_since: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let up = self.connected();
            let lost = self.peers.iter().filter(|p| !p.up && p.missing.is_lasting()).count();
            if up >= needed {
                let since = *enough_since.get_or_insert(now);
                if up + lost >= self.peers.len() || now >= since + GRACE {
                    // The last message of a handshake leaves now, whenever the caller polls next.
                    return self.poll(Duration::ZERO);
                }
            } else if self.peers.len() - lost < needed || now >= give_up || !is_wanted() {
                return Err(ClientError::Unreachable(self.unreachable()));
            } else {
                enough_since = None;
            }
            let until = enough_since.map_or(give_up, |since| since + GRACE);
            let wait = until.saturating_duration_since(now).min(LOOK);
            self.poll(wait.max(Duration::from_millis(1)))?;
        }
    }

    /// Number of connected replicas.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.peers.iter().filter(|peer| peer.up).count()
    }

    /// Whether enough replicas are connected for a certificate: f+1.
    #[must_use]
    pub fn can_reach_group(&self) -> bool {
        self.connected() >= self.core.config().replies_needed()
    }

    /// Which replicas are not connected, and why.
    #[must_use]
    pub fn unreachable(&self) -> Unreachable {
        let missing = self.peers.iter().filter(|peer| !peer.up);
        Unreachable {
            connected: self.connected(),
            needed: self.core.config().replies_needed(),
            missing: missing.map(|peer| peer.missing.clone()).collect(),
        }
    }

    /// Asks a replica for its status; the answer comes with [`Self::take_statuses`].
    ///
    /// # Errors
    /// If the replica is not connected.
    pub fn request_status(&mut self, replica: ReplicaId) -> Result<(), SendError> {
        self.hub.send_to_peer_now(replica.0, &[kind::STATUS_REQUEST])
    }

    /// The STATUS messages that have arrived, with their senders.
    pub fn take_statuses(&mut self) -> Vec<(ReplicaId, Bytes)> {
        std::mem::take(&mut self.statuses)
    }

    /// The client core: sessions, view, leader, figures.
    #[must_use]
    pub fn core(&self) -> &ClientCore {
        &self.core
    }

    /// Counters of the client core since the start.
    #[must_use]
    pub fn stats(&self) -> &ClientStats {
        self.core.stats()
    }

    /// The view that f+1 replicas vouch for.
    #[must_use]
    pub fn view(&self) -> View {
        self.core.view()
    }

    /// How long polls of this driver have waited for something to happen, busily or asleep. Of those that were to
    /// wait for no time, none did.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.hub.waited()
    }

    /// Frames, messages and bytes sent and received since the start.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        self.hub.traffic()
    }

    /// How many messages a link did not take; the requests in them are sent again.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// How many replies came through another replica and were not authentic.
    #[must_use]
    pub fn unopened(&self) -> u64 {
        self.unopened
    }

    /// A handle with which another thread ends a poll.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.hub.waker()
    }

    /// Lets the core give up, or send again, what is due and has left this host.
    fn tick(&mut self, now: Time) {
        let outstanding = |to: ReplicaId| self.hub.link_state(to.0).outstanding_bytes;
        self.core.tick_over(now, outstanding, &mut self.out);
    }

    fn read_clock(&mut self) -> Instant {
        let now = Instant::now();
        let since = now.saturating_duration_since(self.started);
        // Time 0 is reserved for what happened before the start.
        self.now = Time(since.as_micros() as u64 + 1);
        now
    }

    /// Hands the core's messages to the hub. What a link does not take is dropped, and the core
    /// sends it again.
    fn flush(&mut self) {
        if self.out.nothing_to_send() {
            return;
        }
        for (replica, message) in self.core.outgoing(&mut self.out) {
            let (peer, hub) = (replica.0, &mut self.hub);
            let mut note = |sent: Result<(), SendError>| match sent {
                Ok(()) | Err(SendError::NotConnected) => {}
                Err(error) => {
                    self.unsent += 1;
                    self.peers[usize::from(peer)].missing.message = error.to_string();
                }
            };
            if message.len() <= PIECE_BYTES {
                note(hub.send_to_peer_now(peer, message));
                continue;
            }
            for piece in pieces(message, PIECE_BYTES) {
                note(hub.write_to_peer_now(peer, |writer| {
                    writer.put(&message[..REQUESTS_HEAD]);
                    writer.put(piece);
                }));
            }
        }
        self.out.clear_messages();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Messages { from: Source::Peer(peer), messages } => {
                for message in &messages {
                    let from = ReplicaId(peer);
                    match kind_of(message) {
                        kind::STATUS if self.statuses.len() < STATUSES_MAX => {
                            self.statuses.push((from, Bytes::copy_from_slice(message)));
                        }
                        kind::RELAYED => self.relayed(message),
                        _ => self.core.handle(from, message, self.now, &mut self.out),
                    }
                }
            }
            Event::PeerUp { peer, .. } => {
                log::info!("the link to replica {peer} is up");
                let state = &mut self.peers[usize::from(peer)];
                state.up = true;
                state.missing.reason = None;
                self.core.replica_up(ReplicaId(peer), self.now, &mut self.out);
            }
            Event::PeerDown { peer, reason } => {
                log::info!("the link to replica {peer} is down: {reason}");
                let state = &mut self.peers[usize::from(peer)];
                state.up = false;
                state.missing.message = format!("the link broke: {reason}");
                self.core.replica_down(ReplicaId(peer), self.now, &mut self.out);
            }
            Event::Rejected {
                reason, identity: Some(Identity::Replica(peer)), message, ..
            } => {
                self.rejected(peer, reason, message);
            }
            Event::Rejected { .. }
            | Event::Messages { .. }
            | Event::ClientUp { .. }
            | Event::ClientFull { .. }
            | Event::ClientRoom { .. }
            | Event::ClientDown { .. } => {}
        }
    }

    /// Handles a reply that another replica relayed. If it is not authentic, one of the two
    /// replicas lies, or the link was replaced in the meantime.
    fn relayed(&mut self, message: &[u8]) {
        if let Ok((from, envelope)) = parse_relayed(message) {
            self.scratch.clear();
            self.scratch.extend_from_slice(envelope);
            if let Some(message) = self.hub.open_from_peer(from.0, &mut self.scratch) {
                return self.core.handle(from, message, self.now, &mut self.out);
            }
        }
        self.unopened += 1;
    }

    fn rejected(&mut self, peer: u16, reason: Reason, message: String) {
        if let Some(state) = self.peers.get_mut(usize::from(peer)) {
            state.missing.reason = Some(reason);
            state.missing.message = message;
        }
    }
}

fn hub_config(
    group: &Group,
    keys: &ClientKeys,
    options: &ClientOptions,
    incarnation: u64,
) -> Result<HubConfig, ClientError> {
    let config = group.config();
    Ok(HubConfig {
        identity: Identity::Client(keys.id.0),
        key: keys.link.clone(),
        keyring: group.key_ring()?.into(),
        group_digest: config.digest().0,
        pillars: config.pillars,
        incarnation,
        application: None,
        cipher: group.link_cipher(),
        listen: None,
        peers: group.replicas().iter().map(|entry| (entry.id.0, entry.address.clone())).collect(),
        limits: options.limits(group),
        jitter_seed: None,
    })
}

/// Incarnation and first request number of a new client object.
///
/// An incarnation is the time in quarters of a second since 2025 (32 bits, until 2059) and random
/// below that. The time makes it higher than earlier ones, as the group refuses sessions below those
/// that it evicted. What is random makes it another than that of any client of the same key that
/// starts at the same time, on a copied machine, or after the clock went back; the first number is
/// random as well, so that those whose incarnations are equal still share no number.
fn new_incarnation() -> Result<(u64, u64), ClientError> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let random = || getrandom::u64().map_err(|error| ClientError::Random(error.to_string()));
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH + Duration::from_secs(INCARNATIONS_SINCE_S))
        .unwrap_or_default();
    let incarnation = incarnation_at(since, random()?);
    let last = LAST
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(incarnation.max(last + 1)))
        .expect("the closure always returns a value");
    Ok((incarnation.max(last + 1), random()? >> 3 | FIRST_NUMBER_MIN))
}

fn incarnation_at(since: Duration, random: u64) -> u64 {
    let ticks = since.as_millis() as u64 / INCARNATION_TICK_MS;
    let random = random & ((1 << INCARNATION_RANDOM_BITS) - 1);
    (ticks << INCARNATION_RANDOM_BITS | random) & ((1 << INCARNATION_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the same clock, so that only what is random tells clients apart.
    #[test]
    fn incarnations_rise_with_time_and_differ_at_the_same_time() {
        let at = |ms, random| incarnation_at(Duration::from_millis(ms), random);
        assert!(at(1_000, u64::MAX) < at(1_250, 0));
        assert_ne!(at(1_000, 1), at(1_000, 2));
        let years = 365 * 24 * 3600 * 1000;
        assert!(at(33 * years, u64::MAX) < 1 << INCARNATION_BITS);
        assert!(at(33 * years, 0) > at(32 * years, u64::MAX));
    }

    #[test]
    fn each_client_object_has_numbers_of_its_own() {
        let mut all: Vec<_> = (0..100).map(|_| new_incarnation().unwrap()).collect();
        assert!(all.is_sorted_by(|(a, _), (b, _)| a < b));
        assert!(all.iter().all(|(_, first)| (FIRST_NUMBER_MIN..u64::MAX >> 2).contains(first)));
        all.sort_unstable_by_key(|(_, first)| *first);
        let distances = all.windows(2).map(|pair| pair[1].1 - pair[0].1);
        assert!(distances.min() > Some(1 << 32), "no client comes to another's numbers");
    }
}
