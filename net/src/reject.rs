//! Why a connection was refused or closed by this side, and how often.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// Why this side refused or closed a connection. Each has a counter in [`Rejections`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])* $variant),* }

        impl Reason {
            /// All reasons, in the order of their codes on the wire.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name under which the counter is reported.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

reasons! {
    /// The first bytes were not a TLS handshake, or a frame header had another layout.
    Garbage = "garbage",
    /// A frame or a handshake was longer than its limit.
    TooLong = "too_long",
    /// A frame's MAC did not match: forged, corrupted or replayed.
    BadMac = "bad_mac",
    /// TLS failed for a reason that is not listed below.
    HandshakeFailed = "handshake_failed",
    /// The other side's key is not in the key ring, or not the expected one.
    UnknownKey = "unknown_key",
    /// The other side runs another group configuration.
    ConfigurationMismatch = "configuration_mismatch",
    /// The other side speaks another version of the link protocol.
    Version = "version",
    /// The handshake did not finish in time.
    Timeout = "timeout",
    /// A limit on connections was reached.
    Capacity = "capacity",
    /// The other side's link cipher differs.
    CipherMismatch = "cipher_mismatch",
    /// A replica connected where the other side should have, or something connected to a client.
    Direction = "direction",
    /// An authenticated frame held no well-formed message list.
    Malformed = "malformed",
    /// A client did not read its replies.
    SlowReader = "slow_reader",
    /// The frame counter of a link is used up.
    CounterExhausted = "counter_exhausted",
    /// The other side refused us.
    RefusedByPeer = "refused_by_peer",
    /// A client sent a request that is malformed, not its own, or not proved.
    BadRequest = "bad_request",
    /// The name of a host could not be looked up.
    Unresolved = "unresolved",
    /// The other side runs another service, or a version of it that does not go with this one.
    ServiceMismatch = "service_mismatch",
}

impl Reason {
    /// The code on the wire: 1 for the first reason. 0 means accepted.
    pub(crate) const fn code(self) -> u8 {
        self as u8 + 1
    }

    /// The reason of a code; an unknown one counts as a failed handshake.
    pub(crate) fn from_code(code: u8) -> Self {
        let index = usize::from(code).wrapping_sub(1);
        Self::ALL.get(index).copied().unwrap_or(Self::HandshakeFailed)
    }

    /// Whether trying again soon is pointless, because a configuration must be changed first.
    pub(crate) const fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::UnknownKey
                | Self::ConfigurationMismatch
                | Self::Version
                | Self::CipherMismatch
                | Self::ServiceMismatch
                | Self::Direction
                | Self::RefusedByPeer
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each [`Reason`] occurred in one hub. Only the hub's thread writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    counts: [u64; Reason::ALL.len()],
}

impl Rejections {
    /// How often `reason` occurred.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    /// The sum over all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().map(|&reason| (reason, self.count(reason)))
    }

    pub(crate) fn add(&mut self, reason: Reason) {
        self.counts[reason as usize] += 1;
    }
}
