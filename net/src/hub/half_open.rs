//! Connections in their handshake: who has a place, and who gives way when there is none.
//!
//! Anybody can open connections, and how fast depends on the distance. If the oldest gave way, a
//! flood from near would shut out whoever needs a few long round trips. So places are shared out by
//! where connections come from:
//!
//! - The address of each replica has places of its own ([`Limits::handshakes_per_peer`]), which
//!   nobody else can take.
//! - The rest ([`Limits::handshakes`]) is for everybody. Beyond it, one of the origin that has the
//!   most gives way, chosen at random, the newcomer included: an origin that floods shuts out itself
//!   only, and within it everybody has the same chance.
//!
//! An origin is an IPv4 address, or the first 64 bits of an IPv6 address: who has one address of
//! such a network usually has all.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::random::Jitter;
use crate::transport::ConnectionId;

/// Bits of an IPv6 address that name a network.
const NETWORK_BITS: u32 = 64;

/// Where connections come from, as far as they are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    V4(u32),
    V6Network(u64),
}

impl Origin {
    fn of(address: IpAddr) -> Self {
        // A socket for both families shows IPv4 addresses as IPv6 ones.
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6Network((address.to_bits() >> NETWORK_BITS) as u64),
        }
    }
}

/// Accepted connections in their handshake.
#[derive(Debug)]
pub(super) struct HalfOpen {
    places: Vec<Place>,
    /// Places that everybody shares.
    shared_max: usize,
    /// By origin, how many of the shared places it has.
    shared: HashMap<Origin, usize>,
    shared_count: usize,
    /// The addresses of replicas.
    reserved: HashMap<IpAddr, Reserved>,
    /// Places of one replica, over all its addresses.
    per_peer: usize,
    random: Jitter,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    id: ConnectionId,
    /// When its handshake takes too long. `None` before the first poll after it was accepted.
    deadline: Option<Instant>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shared(Origin),
    Reserved(IpAddr),
}

/// The places of one address, which several replicas may have.
#[derive(Clone, Copy, Debug, Default)]
struct Reserved {
    places: usize,
    taken: usize,
}

impl HalfOpen {
    /// Places as `limits` says, with some reserved for the addresses of `peers`.
    pub(super) fn new(
        limits: &Limits,
        peers: impl Iterator<Item = SocketAddr>,
        random: Jitter,
    ) -> Self {
        let mut it = Self {
            places: Vec::new(),
            shared_max: limits.handshakes,
            shared: HashMap::new(),
            shared_count: 0,
            reserved: HashMap::new(),
            per_peer: limits.handshakes_per_peer,
            random,
        };
        peers.for_each(|peer| it.reserve(&[], &[peer]));
        it
    }

    /// A replica has other addresses than before: its places are theirs now, shared out among them.
    /// Who has a place keeps it.
    pub(super) fn reserve(&mut self, before: &[SocketAddr], now: &[SocketAddr]) {
        for (address, places) in shares(before, self.per_peer) {
            if let Some(reserved) = self.reserved.get_mut(&address) {
                reserved.places -= places;
                self.drop_unused(address);
            }
        }
        for (address, places) in shares(now, self.per_peer) {
            self.reserved.entry(address).or_default().places += places;
        }
    }

    fn drop_unused(&mut self, address: IpAddr) {
        let unused = |it: &Reserved| it.places == 0 && it.taken == 0;
        if self.reserved.get(&address).is_some_and(unused) {
            self.reserved.remove(&address);
        }
    }

    /// How many connections are in their handshake.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Gives a new connection a place. Returns who must give way for it; that may be the new one.
    /// Who gives way has lost its place already.
    #[must_use = "it must be closed"]
    pub(super) fn enter(&mut self, id: ConnectionId, address: SocketAddr) -> Option<ConnectionId> {
        let address = address.ip().to_canonical();
        if let Some(reserved) = self.reserved.get_mut(&address)
            && reserved.taken < reserved.places
        {
            reserved.taken += 1;
            self.places.push(Place { id, deadline: None, kind: Kind::Reserved(address) });
            return None;
        }
        let origin = Origin::of(address);
        self.places.push(Place { id, deadline: None, kind: Kind::Shared(origin) });
        *self.shared.entry(origin).or_insert(0) += 1;
        self.shared_count += 1;
        (self.shared_count > self.shared_max).then(|| self.give_way())
    }

    /// Takes the place of one of the origin that has the most; of one of them, if several have.
    fn give_way(&mut self) -> ConnectionId {
        let most =
            self.shared.values().copied().max().expect("more than one shared place is taken");
        let shared = &self.shared;
        let is_greedy = |place: &&Place| match place.kind {
            Kind::Shared(origin) => shared.get(&origin) == Some(&most),
            Kind::Reserved(_) => false,
        };
        let count = self.places.iter().filter(is_greedy).count();
        let chosen = self.random.below(count);
        let place = self.places.iter().filter(is_greedy).nth(chosen);
        let id = place.expect("fewer than there are").id;
        self.leave(id);
        id
    }

    /// Frees the place of a connection, if it has one.
    pub(super) fn leave(&mut self, id: ConnectionId) {
        let Some(index) = self.places.iter().position(|place| place.id == id) else {
            return;
        };
        match self.places.swap_remove(index).kind {
            Kind::Reserved(address) => {
                let reserved = self.reserved.get_mut(&address).expect("it has a reserved place");
                reserved.taken -= 1;
                self.drop_unused(address);
            }
            Kind::Shared(origin) => {
                self.shared_count -= 1;
                let count = self.shared.get_mut(&origin).expect("it has a shared place");
                *count -= 1;
                if *count == 0 {
                    self.shared.remove(&origin);
                }
            }
        }
    }

    /// Starts the deadlines of connections that came since the last call.
    pub(super) fn start_clocks(&mut self, deadline: Instant) {
        for place in &mut self.places {
            place.deadline.get_or_insert(deadline);
        }
    }

    /// Nobody looked at the network for this long, which does not count.
    pub(super) fn held_up(&mut self, time: Duration) {
        for deadline in self.places.iter_mut().filter_map(|place| place.deadline.as_mut()) {
            *deadline += time;
        }
    }

    /// Whether no connection is in its handshake.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A connection whose deadline has passed. It keeps its place until it leaves.
    pub(super) fn expired(&self, now: Instant) -> Option<ConnectionId> {
        let is_over = |place: &&Place| place.deadline.is_some_and(|deadline| deadline <= now);
        self.places.iter().find(is_over).map(|place| place.id)
    }

    /// The next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.places.iter().filter_map(|place| place.deadline).min()
    }
}

/// The places of each address of one replica: as many in all as it has, at least one for each, for as
/// many addresses as that gives.
fn shares(addresses: &[SocketAddr], per_peer: usize) -> impl Iterator<Item = (IpAddr, usize)> {
    let places = (per_peer / addresses.len().max(1)).max(1);
    let most = per_peer / places;
    let addresses = addresses.iter().take(most).map(|address| address.ip().to_canonical());
    addresses.map(move |address| (address, places)).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId { slot: number as u32, generation: 0 }
    }

    fn half_open(peers: &[&str]) -> HalfOpen {
        let limits = Limits { handshakes: 8, handshakes_per_peer: 2, ..Limits::default() };
        let peers: Vec<SocketAddr> = peers.iter().map(|it| it.parse().unwrap()).collect();
        HalfOpen::new(&limits, peers.into_iter(), Jitter::new(Some(1)))
    }

    #[test]
    fn only_the_origin_with_the_most_gives_way() {
        let mut half_open = half_open(&[]);
        let honest = ["10.0.0.1:5", "10.0.0.2:5", "[2001:db8:1:2::1]:9"];
        for (number, address) in honest.iter().enumerate() {
            assert_eq!(half_open.enter(id(number), address.parse().unwrap()), None);
        }
        let (mut gone, mut newcomers) = (Vec::new(), 0);
        for number in 10..1010 {
            // One IPv6 network with a new address for each connection.
            let flood = format!("[2001:db8:7:7::{number:x}]:1").parse().unwrap();
            let out = half_open.enter(id(number), flood);
            newcomers += usize::from(out == Some(id(number)));
            gone.extend(out);
        }
        assert_eq!((gone.len(), half_open.len()), (995, 8));
        assert!(gone.iter().all(|it| it.slot() >= 10));
        // The newcomer gives way as others do: now and then.
        assert!((50..400).contains(&newcomers), "{newcomers}");
    }

    #[test]
    fn nobody_takes_the_places_of_a_replica() {
        let mut half_open = half_open(&["10.0.0.1:7000", "10.0.0.1:7001", "10.0.0.2:7000"]);
        for number in 0..100 {
            let address = SocketAddr::from(([10, 1, (number / 10) as u8, number as u8], 1));
            let _ = half_open.enter(id(number), address);
        }
        // Two replicas share the first address. An IPv4 address in its IPv6 form is the same.
        let peer = "[::ffff:10.0.0.1]:50000".parse().unwrap();
        for number in 200..204 {
            assert_eq!(half_open.enter(id(number), peer), None);
        }
        // Beyond its own places an address is one among others.
        let gone = half_open.enter(id(204), peer).unwrap();
        assert!(!(200..204).contains(&gone.slot()));
        half_open.leave(id(201));
        assert_eq!(half_open.enter(id(205), peer), None);
    }

    #[test]
    fn counts_stay_true_when_connections_leave_in_any_order() {
        let mut half_open = half_open(&["10.0.0.9:1"]);
        let mut random = Jitter::new(Some(7));
        let mut inside = std::collections::BTreeSet::new();
        for number in 0..5000 {
            let address = SocketAddr::from(([10, 0, 0, random.below(12) as u8], 1));
            inside.insert(number);
            if let Some(gone) = half_open.enter(id(number), address) {
                assert!(inside.remove(&gone.slot()));
            }
            if random.below(3) == 0 {
                let any = random.below(number + 1);
                half_open.leave(id(any));
                inside.remove(&any);
            }
            assert_eq!(half_open.len(), inside.len());
            assert!(half_open.shared_count <= 8);
            assert_eq!(half_open.shared.values().sum::<usize>(), half_open.shared_count);
        }
        inside.iter().for_each(|number| half_open.leave(id(*number)));
        assert!(half_open.shared.is_empty() && half_open.places.is_empty());
        assert!(half_open.reserved.values().all(|reserved| reserved.taken == 0));
    }

    #[test]
    fn the_places_of_a_replica_move_with_its_addresses() {
        let at = |last| SocketAddr::from(([10, 2, 0, last], 1));
        let limits = Limits { handshakes: 0, handshakes_per_peer: 4, ..Limits::default() };
        let mut half_open = HalfOpen::new(&limits, std::iter::empty(), Jitter::new(Some(1)));
        let free = |half_open: &HalfOpen, last| {
            let of = half_open.reserved.get(&at(last).ip());
            of.map_or(0, |it| it.places as isize - it.taken as isize)
        };
        half_open.reserve(&[], &[at(1)]);
        assert_eq!(free(&half_open, 1), 4);
        assert_eq!(half_open.enter(id(1), at(1)), None);
        // Two addresses have two places each; who has one keeps it.
        half_open.reserve(&[at(1)], &[at(2), at(3)]);
        let all = [free(&half_open, 1), free(&half_open, 2), free(&half_open, 3)];
        assert_eq!(all, [-1, 2, 2]);
        assert_eq!(half_open.enter(id(2), at(1)), Some(id(2)), "that address has none any more");
        half_open.leave(id(1));
        assert!(!half_open.reserved.contains_key(&at(1).ip()));
        // Of very many, as many as there are places.
        let many: Vec<SocketAddr> = (10..40).map(at).collect();
        half_open.reserve(&[at(2), at(3)], &many);
        let sum: usize = half_open.reserved.values().map(|it| it.places).sum();
        assert_eq!((sum, half_open.reserved.len()), (4, 4));
        half_open.reserve(&many, &[]);
        assert!(half_open.reserved.is_empty());
    }
}
