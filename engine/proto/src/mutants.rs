//! Deliberate faults in the protocol, to show that the simulator finds them.
//!
//! Each [`Mutant`] leaves out or weakens one rule, in one line where the rule is checked. One can
//! be chosen only with the feature `mutants`, which only tests turn on. In every other build
//! [`active`] is the constant `false`, and the lines compile to nothing.

/// A rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mutant {
    /// A batch is committed with one certificate less than a quorum.
    CommitQuorum,
    /// A replica's second COMMIT for a slot counts once more.
    CommitTwice,
    /// The certificate of a COMMIT is not checked.
    CommitUnverified,
    /// A NEW-VIEW may have one VIEW-CHANGE less than a quorum.
    ViewChangeQuorum,
    /// Nobody has to vouch for v_from.
    NoVouching,
    /// NEW-VIEW-ACKs vouch for nothing.
    NoAcks,
    /// Abort states of all views are merged (DEVIATIONS 1).
    MergeAllViews,
    /// The last link of a chain is enough (DEVIATIONS 2).
    LastLinkAlone,
    /// The links of a chain need not join.
    ChainNotJoined,
    /// The certificates of a chain's links are not checked.
    LinkUnverified,
    /// A prepared set need not reach what the counter discloses.
    ReachUnchecked,
    /// The certificates in a prepared set are not checked.
    PreparedUnverified,
    /// A NEW-VIEW may re-issue anything.
    TransitionUnchecked,
    /// A view-change message counts before its batches are held.
    HoldUnchecked,
    /// Replicas certify beyond their window.
    WindowUnchecked,
    /// A request that was executed before is executed again.
    DuplicateExecution,
    /// A session tells requests apart by their numbers alone.
    TagIgnored,
    /// A client takes replies that are about another's request.
    ReplyTagIgnored,
    /// A leader is suspected without asking whether the request was executed meanwhile.
    SuspectsUnasked,
    /// Clients have no shares: what one sends is taken in before anything that comes later.
    ClientsUnlimited,
    /// Evicted sessions may be opened again.
    WatermarkIgnored,
    /// A no-op over several order numbers may have an independent certificate.
    KindIgnored,
    /// A no-op may cover order numbers that its leader has certified before.
    NoopPrevious,
    /// The batch of a PREPARE is not compared with its digest.
    BatchDigest,
    /// The MACs of client requests are not checked.
    RequestMac,
    /// One replica makes a checkpoint stable.
    CheckpointOfOne,
    /// Pages of a transferred state are not compared with their digests.
    PageUnchecked,
    /// A client believes a single replica.
    OneReply,
    /// What may be late never leaves by itself.
    LateNever,
    /// The reply to a client that asks again may go through the leader, too.
    RelayedAlways,
    /// PREPAREs may be late while clients send queries.
    ThriftyDuringQueries,
    /// A message may wait twice for one peer.
    TwoCopies,
    /// A message that is sent again is called new.
    NewAgain,
    /// The time of a proposed batch is not compared with this replica's clock.
    ClockUnchecked,
    /// A view change takes over times that nobody's clock has reached.
    EarlyReissued,
    /// A batch may get another time when it is ordered again.
    ReissuedTime,
    /// A batch's time counts although an earlier one was later.
    TimeGoesBack,
    /// The random bytes of a batch depend on the view as well.
    RandomnessOfView,
    /// A peer may have any number of messages in flight.
    PeersUnlimited,
    /// A peer gets all that it asks for at once, whether there is room for it or not.
    AnswersUnlimited,
    /// Links are given all that there is, and nobody is told how long it takes.
    WireIgnored,
    /// A client's wait begins when it sends, whether the request has left or not.
    HeldIgnored,
    /// Timeouts shrink after each wait that ended in time, however late.
    ShrinksBlindly,
    /// What came before a proposal over its wire does not excuse how late it comes.
    BusyWireIgnored,
    /// What changes views waits behind batches.
    NothingAhead,
    /// Only those wait longer in a new view who suspected the leader of the last one themselves.
    AloneWaitsLonger,
    /// Replies that wait for room are not registered with their link.
    RoomNotAwaited,
    /// All that clients bring to a follower is forwarded at once.
    ForwardsUnlimited,
    /// The watch over the leader begins although it was not told of the request.
    SuspectsUnsent,
    /// A peer that left its view alone stays outside until others leave as well.
    LeftOutside,
    /// The wait for a NEW-VIEW has an upper bound, however many views were not finished.
    ViewsInHaste,
    /// Waits count the time in which the service held their thread up.
    HoldUpsCount,
    /// A replica vouches for a transferred state that a restart would take away.
    VouchesUnsaved,
    /// The beginning of a log is removed before the checkpoint is durable that takes its place.
    TruncatesEarly,
    /// A summary leaves out what this replica has certified.
    SummaryUncounted,
    /// Replies leave before the log has what they rest on.
    RepliesUngated,
    /// Messages to peers leave before the log has what they rest on.
    MessagesUngated,
    /// A replica does not log its COMMITs.
    VotesUnlogged,
    /// A replica that comes back does not wait for what its peers have seen of it.
    CopyTrusted,
    /// Who keeps messages of a later view asks for it only when one comes.
    AsksOnceForLater,
    /// It waits for the first f peers only.
    FirstTellersSuffice,
    /// It leaves its view before it is told.
    LeavesUntold,
    /// Peers do not tell it for which view it has left.
    LeavingUntold,
    /// A replica does not log its VIEW-CHANGEs.
    LeavingUnlogged,
    /// A leader is suspected although its window was full.
    FullWindowCounts,
    /// A full window excuses a leader however much it has ordered since it was told of a request.
    FullWindowExcuses,
    /// A leader may not take longer where execution is behind.
    SlownessCounts,
    /// An answer of the execution stage counts although it went past batches that were committed.
    AnswersOvertake,
    /// A leader is suspected although it serves clients in turn.
    TurnsIgnored,
    /// A leader that serves others is excused though they have had several turns.
    TurnsUncounted,
    /// A leader with slow wires proposes copies of what it has in a batch.
    ProposesTwice,
    /// A follower with slow wires asks all for what its leader has on its way to it.
    AsksAll,
    /// What a slow wire carries is told by moments in which hardly anything arrives.
    RateOfMoments,
    /// A majority is a quorum of PBFT.
    PbftMajority,
    /// A view may begin with what a quorum does not permit (Castro 3.2.4, A1).
    PbftA1LeftOut,
    /// A view may begin with what one replica says that it prepared (Castro 3.2.4, A2).
    PbftA2LeftOut,
    /// Nothing was committed where f+1 replicas have prepared nothing (Castro 3.2.4, B).
    PbftFreeByFew,
    /// A view may begin with a checkpoint that one replica has.
    PbftCheckpointOfOne,
    /// What a backup has pre-prepared is not in its Q.
    PbftPrePreparedForgotten,
    /// What a replica has prepared is not in its P.
    PbftPreparedForgotten,
    /// What is pre-prepared is prepared, without PREPAREs of others.
    PbftPreparedUnvoted,
    /// What one replica says that it has committed is committed.
    PbftClaimOfOne,
    /// What one replica says is stable is stable.
    PbftStableByOne,
    /// A leader uses VIEW-CHANGEs that nobody else has got.
    PbftAcksUncounted,
    /// A NEW-VIEW may rest on VIEW-CHANGEs that nobody else has got.
    PbftChangesUnvouched,
    /// A change of members is taken although another one is pending.
    ChangesUnlimited,
    /// Certificates do not say which life of a replica made them.
    LivesIgnored,
    /// A window that moves by certificate alone does not bring the boundary of the epoch.
    BoundaryUncertified,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 88] = [
        Self::CommitQuorum,
        Self::CommitTwice,
        Self::CommitUnverified,
        Self::ViewChangeQuorum,
        Self::NoVouching,
        Self::NoAcks,
        Self::MergeAllViews,
        Self::LastLinkAlone,
        Self::ChainNotJoined,
        Self::LinkUnverified,
        Self::ReachUnchecked,
        Self::PreparedUnverified,
        Self::TransitionUnchecked,
        Self::HoldUnchecked,
        Self::WindowUnchecked,
        Self::DuplicateExecution,
        Self::TagIgnored,
        Self::ReplyTagIgnored,
        Self::SuspectsUnasked,
        Self::ClientsUnlimited,
        Self::WatermarkIgnored,
        Self::KindIgnored,
        Self::NoopPrevious,
        Self::BatchDigest,
        Self::RequestMac,
        Self::CheckpointOfOne,
        Self::PageUnchecked,
        Self::OneReply,
        Self::LateNever,
        Self::RelayedAlways,
        Self::ThriftyDuringQueries,
        Self::TwoCopies,
        Self::NewAgain,
        Self::ClockUnchecked,
        Self::EarlyReissued,
        Self::ReissuedTime,
        Self::TimeGoesBack,
        Self::RandomnessOfView,
        Self::PeersUnlimited,
        Self::AnswersUnlimited,
        Self::WireIgnored,
        Self::HeldIgnored,
        Self::ShrinksBlindly,
        Self::BusyWireIgnored,
        Self::NothingAhead,
        Self::AloneWaitsLonger,
        Self::RoomNotAwaited,
        Self::ForwardsUnlimited,
        Self::SuspectsUnsent,
        Self::LeftOutside,
        Self::ViewsInHaste,
        Self::HoldUpsCount,
        Self::VouchesUnsaved,
        Self::TruncatesEarly,
        Self::SummaryUncounted,
        Self::RepliesUngated,
        Self::MessagesUngated,
        Self::VotesUnlogged,
        Self::CopyTrusted,
        Self::AsksOnceForLater,
        Self::FirstTellersSuffice,
        Self::LeavesUntold,
        Self::LeavingUntold,
        Self::LeavingUnlogged,
        Self::FullWindowCounts,
        Self::FullWindowExcuses,
        Self::SlownessCounts,
        Self::AnswersOvertake,
        Self::TurnsIgnored,
        Self::TurnsUncounted,
        Self::ProposesTwice,
        Self::AsksAll,
        Self::RateOfMoments,
        Self::PbftMajority,
        Self::PbftA1LeftOut,
        Self::PbftA2LeftOut,
        Self::PbftFreeByFew,
        Self::PbftCheckpointOfOne,
        Self::PbftPrePreparedForgotten,
        Self::PbftPreparedForgotten,
        Self::PbftPreparedUnvoted,
        Self::PbftClaimOfOne,
        Self::PbftStableByOne,
        Self::PbftAcksUncounted,
        Self::PbftChangesUnvouched,
        Self::ChangesUnlimited,
        Self::LivesIgnored,
        Self::BoundaryUncertified,
    ];
}

/// Whether this rule is broken on the present thread.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn active(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use chosen::{active, choose};

#[cfg(feature = "mutants")]
mod chosen {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this rule is broken on the present thread.
    #[must_use]
    pub fn active(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }

    /// Breaks one rule on the present thread, or none.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }
}
