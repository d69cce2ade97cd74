//! What an ordering protocol is to the rest of a replica: its rules as data, and the stages that it
//! brings.
//!
//! Intake, execution, state, egress and client are the same whatever orders the requests. They read
//! a protocol's [`Rules`] from the group's constants ([`GroupConfig::rules`]) and know nothing else
//! of it. A driver that runs all stages on one thread is generic over [`Ordering`]
//! ([`Stages`](crate::Stages)); one that spreads them over threads boxes them, so neither pays for
//! the choice. Protocols share structs (`shared`), not control flow.

use std::fmt;
use std::str::FromStr;

use hybster_tss::{RequestAuthenticator, RequestVerifier};

use crate::admission::Cost;
use crate::bounds::Buffer;
use crate::config::GroupConfig;
use crate::hybster;
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::input::{ToControl, ToPillar};
use crate::output::Output;
use crate::pbft;
use crate::time::{Time, WallClock};

/// The ordering protocols that a group can run.
///
/// Not `non_exhaustive`: who adds one has to decide, at each `match`, what it means there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Protocol {
    /// Hybster over pillars: n = 2f+1, with trusted counters.
    #[default]
    Hybster,
    /// PBFT over pillars: n = 3f+1, without trusted counters.
    Pbft,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Hybster, Self::Pbft];

    /// The name in configuration files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hybster => "hybster",
            Self::Pbft => "pbft",
        }
    }

    /// Its rules.
    #[inline]
    #[must_use]
    pub const fn rules(self) -> &'static Rules {
        match self {
            Self::Hybster => &hybster::RULES,
            Self::Pbft => &pbft::RULES,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name).ok_or(UnknownProtocol)
    }
}

/// A name that is none of an ordering protocol; says which there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownProtocol;

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write ")?;
        for (i, protocol) in Protocol::ALL.into_iter().enumerate() {
            let before = if i == 0 { "" } else { " or " };
            write!(f, "{before}{protocol}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownProtocol {}

/// A number of replicas as a function of n, the replicas of the group, and f, the faults that it
/// tolerates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Threshold {
    /// f+1: a correct replica is among them.
    OneCorrect,
    /// ⌊n/2⌋+1: any two such sets share a replica. Enough where none can say two things.
    Majority,
    /// ⌈(n+f+1)/2⌉: any two such sets share a *correct* replica. 2f+1 where n = 3f+1.
    CorrectMajority,
    /// n.
    All,
}

impl Threshold {
    /// The number.
    #[inline]
    #[must_use]
    pub const fn of(self, n: u16, f: u16) -> usize {
        let (n, f) = (n as usize, f as usize);
        match self {
            Self::OneCorrect => f + 1,
            Self::Majority => n / 2 + 1,
            Self::CorrectMajority => (n + f + 1).div_ceil(2),
            Self::All => n,
        }
    }
}

/// The stages that handle the messages of an ordering protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Handler {
    /// The pillar that the message names at offset 2.
    Pillar,
    /// The control stage.
    Control,
}

/// What the rest of a replica, its clients and its tools must know of an ordering protocol.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Replicas that each tolerated fault takes: n must be at least this times f, plus one.
    pub replicas_per_fault: u16,
    /// Replicas that agree on a proposal or a view.
    pub quorum: Threshold,
    /// Replicas whose CHECKPOINTs make a checkpoint stable.
    pub stable: Threshold,
    /// Equal replies that a client accepts as the result of an ordered request.
    pub reply: Threshold,
    /// Equal answers that a client accepts as the result of a query, which is not ordered.
    pub query: Threshold,
    /// The kind of message that proposes a batch.
    pub proposal: u8,
    /// Bytes of a proposal before its batch: the intake leaves them free in front.
    pub proposal_head: usize,
    /// Bytes of the longest message that the protocol can need in a group.
    pub longest_message: fn(&GroupConfig) -> u64,
    /// Bytes of the longest record that a stage may have to log, whatever liars put into what it
    /// accepts: a record that the log refuses stops the replica.
    pub longest_record: fn(&GroupConfig) -> u64,
    /// What the protocol's stages may hold at most; `None` if a bound does not fit 64 bits.
    pub buffers: fn(&GroupConfig) -> Option<Vec<Buffer>>,
    /// Which stage handles a peer's message, by its kind; `None` for kinds that are not the
    /// protocol's. Hybster has its kinds below 32; those of another protocol must be none of
    /// Hybster's, so that a tool that sees only a message does not take one for the other.
    pub handler: fn(u8) -> Option<Handler>,
    /// What a peer's message of such a kind costs; `None` as above.
    pub cost: fn(u8) -> Option<Cost>,
    /// BATCH-REQUESTs of one pillar that a correct peer may have under way.
    pub batch_requests: usize,
    /// Whether a follower's replies may go to the client through the leader. Wrong where a client
    /// needs more replies than those of a quorum that the leader waits for.
    pub relays_replies: bool,
    /// Whether a proposal may go to a quorum first, and to the others a little later.
    pub is_thrifty: bool,
    /// The kind of vote that only the leader needs at once where a quorum is two: the others commit by
    /// its proposal and their own vote, and get this one a little later.
    pub late_vote: Option<u8>,
    /// Whether a replica can be started only once in an epoch, because its trusted counters are lost
    /// with its process.
    pub starts_once: bool,
    /// Whether the replicas share a key, that of their trusted subsystems. Where they do not, what one host
    /// holds is of no use against the others.
    pub shares_a_key: bool,
    /// Whether a replica can go on from its log.
    pub keeps_log: bool,
}

impl Rules {
    /// The least number of replicas that tolerate `faults`.
    #[must_use]
    pub const fn least_replicas(&self, faults: u16) -> u32 {
        self.replicas_per_fault as u32 * faults as u32 + 1
    }

    /// What proves requests unless a group says otherwise.
    #[must_use]
    pub const fn request_authenticator(&self) -> RequestAuthenticator {
        // Who can check a MAC could make it: that needs hosts that keep their key to themselves.
        if self.shares_a_key { RequestAuthenticator::Mac } else { RequestAuthenticator::Ed25519 }
    }

    /// The most faults that a number of replicas tolerates.
    #[must_use]
    pub const fn most_faults(&self, replicas: u16) -> u16 {
        replicas.saturating_sub(1) / self.replicas_per_fault
    }
}

/// A pillar: agrees on the slots of one part of the order numbers.
pub trait PillarStage: Send {
    /// Tells it the time of day, for the times of batches.
    fn set_wall_clock(&mut self, clock: WallClock);

    /// Handles an input.
    fn handle(&mut self, input: ToPillar, now: Time, out: &mut Output);

    /// Goes on where the log of its replica ended; to be called once, before anything else.
    fn resume(&mut self, now: Time, out: &mut Output);

    /// To be called when [`PillarStage::deadline`] has passed.
    fn tick(&mut self, now: Time, out: &mut Output);

    /// When [`PillarStage::tick`] wants to be called.
    fn deadline(&self) -> Option<Time>;

    /// Its number.
    fn pillar(&self) -> PillarId;

    /// The order numbers of the slots to propose or acknowledge next, and to commit next.
    fn progress(&self) -> (OrderNumber, OrderNumber);

    /// The order number that its window starts after.
    fn window_base(&self) -> OrderNumber;

    /// Looks at everything that must hold between two inputs, what takes time included: for tests and
    /// simulators.
    ///
    /// # Panics
    /// If an invariant does not hold.
    fn check_all_invariants(&self);
}

/// The control stage: one per replica, over all pillars. It changes views, knows the stable
/// checkpoint, and helps the replica and its peers to catch up.
pub trait ControlStage: Send {
    /// Tells it the time of day.
    fn set_wall_clock(&mut self, clock: WallClock);

    /// Handles an input.
    fn handle(&mut self, input: ToControl, now: Time, out: &mut Output);

    /// Goes on where the log of its replica ended; to be called once, before anything else.
    fn resume(&mut self, now: Time, out: &mut Output);

    /// To be called when [`ControlStage::deadline`] has passed.
    fn tick(&mut self, now: Time, out: &mut Output);

    /// When [`ControlStage::tick`] wants to be called.
    fn deadline(&self) -> Option<Time>;

    /// What it knows.
    fn status(&self) -> ControlStatus;

    /// Checkpoints at which a peer's state differed from this replica's.
    fn differences_of(&self, peer: ReplicaId) -> u64;
}

/// What a control stage knows, for status displays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlStatus {
    /// Last view entered, v_stab.
    pub stable_view: View,
    /// Current view, v_cur; larger while a view change is under way.
    pub current_view: View,
    /// Leader of the stable view.
    pub leader: ReplicaId,
    /// The stable checkpoint.
    pub stable_checkpoint: OrderNumber,
    /// Whether a state transfer is under way.
    pub transferring: bool,
    /// Whether this replica's state diverged and is being repaired.
    pub diverged: bool,
    /// How often it was found to have diverged.
    pub divergences: u64,
    /// Whether the states of the replicas differ so that nothing can be ordered any more.
    pub halted: bool,
    /// Views entered so far.
    pub views_entered: u64,
}

/// An ordering protocol as a set of types, chosen when the program is compiled. The types may stand for
/// those of several, one of which is chosen when the program runs.
pub trait Ordering: 'static {
    /// Checks the requests that clients bring.
    type Requests: RequestVerifier;
    /// Its pillars.
    type Pillar: PillarStage;
    /// Its control stage.
    type Control: ControlStage;
}

/// What an ordering protocol brings to a replica. How it is made differs: the protocol has a
/// function for it that takes what the protocol needs, such as trusted subsystems.
pub struct Agreement<O: Ordering> {
    /// Which protocol; the group's constants must say the same.
    pub protocol: Protocol,
    /// For the intake.
    pub requests: O::Requests,
    /// All pillars, by their numbers.
    pub pillars: Vec<O::Pillar>,
    /// The control stage.
    pub control: O::Control,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_3f_plus_1_has_quorums_of_2f_plus_1() {
        let rules = Protocol::Pbft.rules();
        for (n, f, quorum) in [(4, 1, 3), (7, 2, 5), (10, 3, 7)] {
            assert_eq!(rules.least_replicas(f), u32::from(n));
            assert_eq!(rules.most_faults(n), f);
            assert_eq!(rules.quorum.of(n, f), quorum);
            assert_eq!(rules.stable.of(n, f), quorum);
            assert_eq!(rules.query.of(n, f), quorum);
            assert_eq!(rules.reply.of(n, f), quorum);
        }
        // Half of the replicas and one are the same at n = 4, and too few at n = 7.
        assert_eq!(Threshold::Majority.of(4, 1), 3);
        assert_eq!(Threshold::Majority.of(7, 2), 4);
    }

    #[test]
    fn quorums_intersect_in_what_their_protocol_needs_and_can_be_formed() {
        for protocol in Protocol::ALL {
            let rules = protocol.rules();
            for f in 0..16 {
                for n in rules.least_replicas(f)..=64 {
                    let n = n as u16;
                    let quorum = rules.quorum.of(n, f);
                    // Without counters a replica may say two things: a correct one must be shared.
                    let needed = match protocol {
                        Protocol::Hybster => 1,
                        Protocol::Pbft => usize::from(f) + 1,
                    };
                    assert!(2 * quorum >= usize::from(n) + needed, "n = {n}, f = {f}");
                    assert!(rules.reply.of(n, f) > usize::from(f));
                    // A query's replicas share a correct one with those that answered a write: what was
                    // answered is in what is read.
                    let common = rules.query.of(n, f) + rules.reply.of(n, f) - usize::from(n);
                    assert!(common > usize::from(f), "n = {n}, f = {f}");
                    assert!(quorum <= usize::from(n - f), "n = {n}, f = {f}");
                }
            }
        }
    }

    #[test]
    fn a_protocol_states_the_costs_of_its_own_kinds_and_of_no_other() {
        for rules in Protocol::ALL.map(Protocol::rules) {
            for kind in 0..=u8::MAX {
                let (handler, cost) = ((rules.handler)(kind), (rules.cost)(kind));
                assert_eq!(handler.is_some(), cost.is_some(), "kind {kind}");
            }
        }
    }

    #[test]
    fn names_survive_the_round_trip_and_an_unknown_one_is_answered_with_those_there_are() {
        for protocol in Protocol::ALL {
            assert_eq!(protocol.name().parse(), Ok(protocol));
        }
        let error = "paxos".parse::<Protocol>().unwrap_err();
        assert_eq!(error.to_string(), "write hybster or pbft");
    }
}
