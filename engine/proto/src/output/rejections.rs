//! Messages that were dropped, and why.

use crate::ids::ReplicaId;
use crate::wire::WireError;

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident,)*) => {
        /// Why a message was dropped. Dropped messages are counted by kind, sender and reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reject { $($(#[$doc])* $reason,)* }

        impl Reject {
            /// All reasons, each at its [`Reject::index`].
            pub const ALL: &[Reject] = &[$(Reject::$reason,)*];
        }
    };
}

reasons! {
    /// Not a message of its kind.
    Malformed,
    /// The sender may not send it.
    WrongSender,
    /// It belongs to a view that is not the stable one.
    WrongView,
    /// Its order number lies outside the window, or was covered before.
    OutOfWindow,
    /// Its certificate is not valid.
    BadCertificate,
    /// A client's request in it is not authentic.
    BadRequest,
    /// A batch does not have the size or digest that was announced.
    BadBatch,
    /// The prepared set of a part is not contiguous or misses what the counter discloses.
    BadPreparedSet,
    /// The chain of counter steps does not lead back to v_from.
    BadChain,
    /// Fewer replicas vouch than needed, or for something else.
    BadQuorum,
    /// A NEW-VIEW re-issues something else than its abort states demand.
    BadTransition,
    /// The time of a batch in it is too far from this replica's clock, or before an earlier one.
    Untimely,
    /// It is known already or of no use any more.
    Irrelevant,
    /// The buffer for such messages is full.
    Overload,
}

impl Reject {
    /// Its number among all reasons.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether only what a faulty replica sends is dropped for it. Others are due to delays and differing
    /// views as well.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        match self {
            Self::Malformed
            | Self::WrongSender
            | Self::BadCertificate
            | Self::BadRequest
            | Self::BadBatch
            | Self::BadPreparedSet
            | Self::BadChain
            | Self::BadQuorum
            | Self::BadTransition => true,
            Self::WrongView
            | Self::OutOfWindow
            | Self::Untimely
            | Self::Irrelevant
            | Self::Overload => false,
        }
    }
}

impl From<WireError> for Reject {
    fn from(_: WireError) -> Self {
        Self::Malformed
    }
}

/// A dropped message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// The replica that sent it; `None` for clients.
    pub from: Option<ReplicaId>,
    /// Its kind byte.
    pub kind: u8,
    /// How long it was, in bytes: reading it was in vain.
    pub bytes: u32,
    /// Why.
    pub reason: Reject,
}
