//! How much of one peer's messages a replica takes in before it has handled them.
//!
//! Stages take their time: without a bound a peer could fill the queues before them. So a peer is not
//! read while much of what it sent is not dealt with ([`Admission::is_behind`]). Nobody waits for
//! another by that in a circle: a stage never waits for the network, so whatever was read is dealt with.
//!
//! What a correct peer has in flight is bounded besides, by the windows and by how often it asks; that
//! much is admitted of each peer, by classes of kinds, so that cheap messages cannot keep out needed
//! ones. What goes beyond it is dropped and counted, and the driver names the peer. Nothing is
//! lost by that: whatever must arrive is sent again or asked for again.
//!
//! The driver asks [`Admission::admit`] for each message before it routes it, and tells what stages
//! have dealt with in [`Totals`].

use crate::bounds::prepare_bytes;
use crate::config::GroupConfig;
use crate::ids::ReplicaId;
use crate::mutants::{self, Mutant};
use crate::protocol::Rules;
use crate::shared::bodies::BATCHES_PER_REQUEST;
use crate::shared::log::LOG_WINDOWS;
use crate::shared::votes::claims_per_sender;
use crate::state::FETCHES_IN_FLIGHT;
use crate::wire::{kind, kind_of};

/// The longest message that asks for something, in bytes: a FETCH of as many nodes as it may name.
const ASKING_BYTES: u64 = 2 << 10;
/// ORDER-REQUESTs of one pillar, and STATE-REQUESTs: as many as wait times that are missed in a row.
const REPEATS: u64 = 8;
/// Messages of view changes that a peer sends in answer to one STATE-REQUEST, for each replica: its
/// VIEW-CHANGE, NEW-VIEW-ACK and NEW-VIEW, and as often again for what it sends by itself.
const CHANGES_PER_REPLICA: u64 = 8;
/// Bytes of them: a message of the longest frame is let in if fewer are in flight.
const CHANGES_BYTES: u64 = 64 << 20;

/// While more of a peer's messages than this are not dealt with, the peer is not read.
const UNREAD_MESSAGES: u64 = 4096;
/// The same in bytes: 16 MiB.
pub const UNREAD_BYTES: u64 = 16 << 20;

/// A class of kinds, each with a share of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// What orders: PREPARE, COMMIT, CHECKPOINT, forwarded REQUESTS; and what was asked for.
    Ordering,
    /// What changes views: few and costly.
    Changing,
    /// What asks for an answer.
    Asking,
}

/// Number of classes.
pub const CLASSES: usize = 3;

impl Class {
    /// The class of a message.
    #[inline]
    #[must_use]
    pub fn of(message: &[u8], rules: &Rules) -> Self {
        Cost::of(message, rules).class
    }

    /// Its number.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What a peer's message of a kind costs its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Of what it takes a share.
    pub class: Class,
    /// What handling it costs beside reading it, in nanoseconds of work: an estimate. Zero for what comes
    /// with each request.
    pub extra_ns: u64,
    /// The same for each KiB of it.
    pub kib_ns: u64,
}

impl Cost {
    /// That of a kind that nobody handles.
    const UNKNOWN: Self = Self::new(Class::Ordering, 500, 0);

    /// See the fields.
    #[must_use]
    pub const fn new(class: Class, extra_ns: u64, kib_ns: u64) -> Self {
        Self { class, extra_ns, kib_ns }
    }

    /// The cost of a message, where these rules hold.
    #[inline]
    #[must_use]
    pub fn of(message: &[u8], rules: &Rules) -> Self {
        match kind_of(message) {
            kind::REQUESTS => Self::new(Class::Ordering, 0, 0),
            // An answer is looked for, and made.
            kind::FETCH => Self::new(Class::Asking, 8_000, 0),
            kind::FETCHED => Self::new(Class::Ordering, 500, 0),
            // The envelope is copied to its client's link, unopened, or dropped.
            kind::RELAY => Self::new(Class::Ordering, 500, 600),
            kind => (rules.cost)(kind).unwrap_or(Self::UNKNOWN),
        }
    }

    /// What a message of this many bytes costs beside reading it, in nanoseconds of work.
    #[inline]
    #[must_use]
    pub const fn extra_ns(self, bytes: usize) -> u64 {
        self.extra_ns + self.kib_ns * bytes as u64 / 1024
    }
}

/// Messages and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// How many.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Load {
    /// Adds a message.
    #[inline]
    pub fn add(&mut self, message: &[u8]) {
        self.messages += 1;
        self.bytes += message.len() as u64;
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            messages: self.messages.wrapping_sub(earlier.messages),
            bytes: self.bytes.wrapping_sub(earlier.bytes),
        }
    }
}

/// Messages of one peer since the start, by [`Class::index`].
pub type Totals = [Load; CLASSES];

/// What one peer may have in flight by class: no message is admitted while as much is. So one
/// message more than that waits at most.
#[must_use]
pub fn limits(config: &GroupConfig) -> Totals {
    let (n, pillars) = (u64::from(config.replicas), u64::from(config.pillars));
    let logged = LOG_WINDOWS.saturating_mul(config.window);
    // A PREPARE for each slot, the COMMITs that it relays with it, its CHECKPOINTs, the batches and
    // pages that were asked for.
    let fetched = FETCHES_IN_FLIGHT as u64;
    let batch_requests = config.rules().batch_requests as u64;
    let batches = pillars * BATCHES_PER_REQUEST as u64 * batch_requests;
    let ordering = Load {
        messages: logged.saturating_mul(n + 1) + claims_per_sender(config) + batches + fetched,
        bytes: logged.saturating_mul(prepare_bytes(config)),
    };
    let changing = Load { messages: CHANGES_PER_REPLICA * (n + 1), bytes: CHANGES_BYTES };
    let messages = fetched + pillars * (batch_requests + REPEATS) + REPEATS;
    let asking = Load { messages, bytes: messages * ASKING_BYTES };
    [ordering, changing, asking]
}

/// The messages of all peers that were admitted.
#[derive(Clone, Debug)]
pub struct Admission {
    limits: Totals,
    rules: &'static Rules,
    /// By replica id.
    peers: Vec<Admitted>,
}

#[derive(Clone, Debug, Default)]
struct Admitted {
    totals: Totals,
    /// Those of them that were dealt with, as far as was known when it mattered last.
    dealt: Totals,
    /// Those of all classes that were not.
    unread: Load,
    refused: u64,
}

impl Admitted {
    /// Whether so much is not dealt with, as far as is known, that no more is to be read.
    #[inline]
    fn is_behind(&self) -> bool {
        self.unread.messages > UNREAD_MESSAGES || self.unread.bytes > UNREAD_BYTES
    }

    /// Stages have dealt with this much.
    #[cold]
    fn see(&mut self, dealt: Totals) {
        self.dealt = dealt;
        self.unread = Load::default();
        for (total, dealt) in self.totals.iter().zip(&self.dealt) {
            let in_flight = total.since(*dealt);
            self.unread.messages += in_flight.messages;
            self.unread.bytes += in_flight.bytes;
        }
    }
}

impl Admission {
    /// Nothing has arrived yet.
    #[must_use]
    pub fn new(config: &GroupConfig) -> Self {
        let peers = (0..config.replicas).map(|_| Admitted::default()).collect();
        Self { limits: limits(config), rules: config.rules(), peers }
    }

    /// Whether a peer's message is taken in. `dealt` tells what stages have dealt with of the
    /// peer's admitted messages; it is asked only when there seems to be no room.
    #[inline]
    pub fn admit(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        dealt: impl FnOnce() -> Totals,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(usize::from(from.0)) else {
            return false;
        };
        let class = Class::of(message, self.rules).index();
        let limit = self.limits[class];
        let is_full = |peer: &Admitted| {
            let in_flight = peer.totals[class].since(peer.dealt[class]);
            in_flight.messages >= limit.messages || in_flight.bytes >= limit.bytes
        };
        if is_full(peer) {
            peer.see(dealt());
            if is_full(peer) && !mutants::active(Mutant::PeersUnlimited) {
                peer.refused += 1;
                return false;
            }
        }
        peer.totals[class].add(message);
        peer.unread.add(message);
        true
    }

    /// Whether so much of a peer's messages is not dealt with that no more of them are to be read.
    /// `dealt` is asked only when there seems to be too much.
    #[inline]
    pub fn is_behind(&mut self, from: ReplicaId, dealt: impl FnOnce() -> Totals) -> bool {
        let Some(peer) = self.peers.get_mut(usize::from(from.0)) else {
            return false;
        };
        if !peer.is_behind() {
            return false;
        }
        peer.see(dealt());
        peer.is_behind()
    }

    /// Messages of a peer that were not taken in.
    #[must_use]
    pub fn refused(&self, peer: ReplicaId) -> u64 {
        self.peers.get(usize::from(peer.0)).map_or(0, |peer| peer.refused)
    }

    /// What of a peer's messages is not dealt with, by class.
    #[must_use]
    pub fn in_flight(&self, peer: ReplicaId, dealt: &Totals) -> Totals {
        let totals = self.peers.get(usize::from(peer.0)).map_or(*dealt, |peer| peer.totals);
        std::array::from_fn(|class| totals[class].since(dealt[class]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ReplicaId = ReplicaId(1);

    #[test]
    fn each_peer_has_a_share_of_each_class() {
        let config = GroupConfig::default();
        let mut admission = Admission::new(&config);
        let asks = [kind::FETCH, 0];
        let most = limits(&config)[Class::Asking.index()].messages;
        let none = || Totals::default();
        for _ in 0..most {
            assert!(admission.admit(PEER, &asks, none));
        }
        assert!(!admission.admit(PEER, &asks, none));
        assert_eq!(admission.refused(PEER), 1);
        // What it sends besides, and what others ask, has room.
        assert!(admission.admit(PEER, &[kind::COMMIT], none));
        assert!(admission.admit(ReplicaId(2), &asks, none));
        // One was dealt with.
        let mut dealt = Totals::default();
        dealt[Class::Asking.index()].add(&asks);
        assert!(admission.admit(PEER, &asks, || dealt));
        assert!(!admission.admit(PEER, &asks, || dealt));
        let in_flight = admission.in_flight(PEER, &dealt);
        assert_eq!(in_flight[Class::Asking.index()].messages, most);
        assert!(!admission.admit(ReplicaId(9), &asks, none), "there is no such replica");
    }

    #[test]
    fn a_peer_is_not_read_while_much_of_it_waits() {
        let mut admission = Admission::new(&GroupConfig::default());
        let commit = [kind::COMMIT];
        let mut dealt = Totals::default();
        for _ in 0..=UNREAD_MESSAGES {
            assert!(!admission.is_behind(PEER, || dealt));
            assert!(admission.admit(PEER, &commit, Totals::default));
        }
        assert!(admission.is_behind(PEER, || dealt));
        assert!(!admission.is_behind(ReplicaId(2), || dealt));
        dealt[Class::Ordering.index()].add(&commit);
        assert!(!admission.is_behind(PEER, || dealt));
        let long = vec![kind::NEW_VIEW; UNREAD_BYTES as usize];
        assert!(admission.admit(PEER, &long, Totals::default));
        assert!(admission.is_behind(PEER, || dealt));
    }

    #[test]
    fn bytes_are_bounded_as_well() {
        let config = GroupConfig::default();
        let mut admission = Admission::new(&config);
        let mut long = vec![0; CHANGES_BYTES as usize / 2];
        long[0] = kind::NEW_VIEW;
        let mut admit = || admission.admit(PEER, &long, Totals::default);
        assert_eq!([admit(), admit(), admit()], [true, true, false]);
    }

    #[test]
    fn a_window_of_a_correct_peer_has_room() {
        let config = GroupConfig::default();
        let [ordering, ..] = limits(&config);
        assert!(ordering.messages > 2 * config.window * u64::from(config.replicas));
        assert!(ordering.bytes >= 2 * config.window * prepare_bytes(&config));
    }
}
