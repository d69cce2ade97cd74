//! Identifiers and numbers of the protocol, one type each, so that none passes for another.

use std::fmt;

macro_rules! number {
    ($(#[$meta:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number!(
    /// A replica r, 0..n.
    ReplicaId(u16), "r"
);
number!(
    /// A view v; leader(v) = v mod n.
    View(u64), "v"
);
number!(
    /// A global order number o ≥ 1; 0 stands for "before the first".
    OrderNumber(u64), "o"
);
number!(
    /// A pillar p, 0..P.
    PillarId(u16), "p"
);
number!(
    /// A client identity: the holder of one client key.
    ClientId(u32), "c"
);
number!(
    /// A session's number for a request; a session uses each once, rising.
    RequestNumber(u64), "#"
);

/// A set of replicas; a group has at most 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Peers(u64);

impl Peers {
    /// Whether a replica is in it.
    #[must_use]
    pub fn contains(self, replica: ReplicaId) -> bool {
        replica.0 < 64 && self.0 >> replica.0 & 1 == 1
    }

    /// One bit per replica, the lowest for replica 0.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set with one bit per replica.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// How many they are.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of them are in another set.
    #[must_use]
    pub fn is_subset(self, of: Self) -> bool {
        self.0 & !of.0 == 0
    }

    /// The replicas, rising.
    pub fn iter(self) -> impl Iterator<Item = ReplicaId> + Clone + use<> {
        (0..64).map(ReplicaId).filter(move |replica| self.contains(*replica))
    }
}

impl FromIterator<ReplicaId> for Peers {
    fn from_iter<I: IntoIterator<Item = ReplicaId>>(replicas: I) -> Self {
        let members = replicas.into_iter().filter(|replica| replica.0 < 64);
        Self(members.fold(0, |set, replica| set | 1 << replica.0))
    }
}

impl View {
    /// The view after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A session: one logical client under a client identity.
///
/// `session` is made of the *incarnation* of the client object that opened it (rising from one
/// process start to the next, see [`SessionId::incarnation`]) and an index inside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId {
    /// The client identity whose key authenticates the session's requests.
    pub client: ClientId,
    /// Incarnation and index.
    pub session: u64,
}

impl SessionId {
    /// Bits of `session` that hold the index of a session inside its incarnation.
    pub const INDEX_BITS: u32 = 14;

    /// The session with an index inside an incarnation.
    ///
    /// # Panics
    /// If the index has more than [`SessionId::INDEX_BITS`] bits or the incarnation does not fit
    /// into the bits left.
    #[must_use]
    pub fn new(client: ClientId, incarnation: u64, index: u32) -> Self {
        assert!(index < 1 << Self::INDEX_BITS, "session index {index} is out of range");
        assert!(incarnation < 1 << (64 - Self::INDEX_BITS), "incarnation is out of range");
        Self { client, session: incarnation << Self::INDEX_BITS | u64::from(index) }
    }

    /// The incarnation: which connection the replies of this session go to.
    #[must_use]
    pub fn incarnation(self) -> u64 {
        self.session >> Self::INDEX_BITS
    }

    /// The index inside the incarnation.
    #[must_use]
    pub fn index(self) -> u32 {
        (self.session & ((1 << Self::INDEX_BITS) - 1)) as u32
    }
}

/// The link that a client message came over: replies to a session go to the link of its client
/// and incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ClientLink {
    /// The client identity that the handshake authenticated.
    pub client: ClientId,
    /// The incarnation that the client announced.
    pub incarnation: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}.{}", self.client, self.incarnation(), self.index())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
