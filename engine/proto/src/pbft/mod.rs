//! PBFT over pillars (Castro, "Practical Byzantine Fault Tolerance", MIT-LCS-TR-817, 2001): what is
//! PBFT's and no other protocol's. n = 3f+1, no trusted subsystem, no signatures between replicas.
//!
//! | Castro | here |
//! |---|---|
//! | 2.3.3, 3.2.2 normal case | `pbft/pillar/ordering.rs` |
//! | 2.3.4, 3.2.3 garbage collection | `pbft/pillar/checkpointing.rs`, `pbft/stable.rs` |
//! | 3.2.4 P and Q | `pbft/pillar/slots.rs`, `pbft/pillar/views.rs` |
//! | 3.2.4 view changes | `pbft/control`, the decision in `pbft/decision.rs` |
//! | 5.2 retransmission | `pbft/pillar/catch_up.rs`, `pbft/control/catch_up.rs` |
//!
//! Messages are authenticated by the sealed links, which are what an authenticator is where each
//! receiver gets its own copy: the receiver knows who said it, and can convince nobody else.
//!
//! `engine/proto/PBFT.md` says where this differs from the thesis.

mod bounds;
pub(crate) mod control;
pub(crate) mod decision;
pub(crate) mod input;
pub(crate) mod pillar;
pub(crate) mod stable;
pub(crate) mod wire;

pub(crate) use control::Control;
pub(crate) use input::{ControlInput, PillarInput};
pub(crate) use pillar::Pillar;

use std::marker::PhantomData;
use std::sync::Arc;

use hybster_tss::RequestVerifier;

use crate::admission::{Class, Cost};
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId, ReplicaId};
use crate::input::{ToControl, ToPillar};
use crate::output::Output;
use crate::protocol::{
    Agreement, ControlStage, ControlStatus, Handler, Ordering, PillarStage, Protocol, Rules,
    Threshold,
};
use crate::time::{Time, WallClock};
use wire::kind;
use wire::ordering::PRE_PREPARE_HEAD;

/// PBFT's rules.
pub const RULES: Rules = Rules {
    replicas_per_fault: 3,
    quorum: Threshold::CorrectMajority,
    // Castro 3.2.3: votes cannot be shown to others, so f+1 of them must be of correct replicas.
    stable: Threshold::CorrectMajority,
    // Castro 5.1.3: where queries are answered without being ordered, ordered requests need as many
    // replies, so that the two sets share a correct replica. f+1 and 2f+1 share a faulty one.
    reply: Threshold::CorrectMajority,
    query: Threshold::CorrectMajority,
    proposal: kind::PRE_PREPARE,
    proposal_head: PRE_PREPARE_HEAD,
    longest_message: bounds::longest_message,
    // There is no log yet.
    longest_record: |_| 0,
    buffers: bounds::of_stages,
    handler,
    cost,
    batch_requests: pillar::BODY_REQUESTS,
    relays_replies: false,
    is_thrifty: false,
    late_vote: None,
    // A replica that forgets P and Q is faulty.
    starts_once: true,
    shares_a_key: false,
    keeps_log: false,
};

/// PBFT with what verifies the clients' requests.
#[derive(Debug)]
pub struct Pbft<V>(PhantomData<fn() -> V>);

impl<V: RequestVerifier + 'static> Ordering for Pbft<V> {
    type Requests = V;
    type Pillar = Pillar<V>;
    type Control = Control;
}

impl<V: RequestVerifier + 'static> Pbft<V> {
    /// What a replica needs to take part, in the initial state.
    pub fn agreement(
        config: &Arc<GroupConfig>,
        id: ReplicaId,
        mut verifier: impl FnMut() -> V,
    ) -> Agreement<Self> {
        let pillar = |pillar| Pillar::new(config.clone(), id, pillar, verifier());
        let pillars = config.all_pillars().map(pillar).collect();
        let control = Control::new(config.clone(), id);
        Agreement { protocol: Protocol::Pbft, requests: verifier(), pillars, control }
    }
}

impl<V: RequestVerifier> PillarStage for Pillar<V> {
    fn set_wall_clock(&mut self, clock: WallClock) {
        Self::set_wall_clock(self, clock);
    }

    #[inline]
    fn handle(&mut self, input: ToPillar, now: Time, out: &mut Output) {
        Self::handle(self, input, now, out);
    }

    fn resume(&mut self, _: Time, _: &mut Output) {}

    #[inline]
    fn tick(&mut self, now: Time, out: &mut Output) {
        Self::tick(self, now, out);
    }

    #[inline]
    fn deadline(&self) -> Option<Time> {
        Self::deadline(self)
    }

    fn pillar(&self) -> PillarId {
        Self::pillar(self)
    }

    fn progress(&self) -> (OrderNumber, OrderNumber) {
        Self::progress(self)
    }

    fn window_base(&self) -> OrderNumber {
        Self::window_base(self)
    }

    fn check_all_invariants(&self) {
        Self::check_all_invariants(self);
    }
}

impl ControlStage for Control {
    fn set_wall_clock(&mut self, clock: WallClock) {
        Self::set_wall_clock(self, clock);
    }

    #[inline]
    fn handle(&mut self, input: ToControl, now: Time, out: &mut Output) {
        Self::handle(self, input, now, out);
    }

    fn resume(&mut self, _: Time, _: &mut Output) {}

    #[inline]
    fn tick(&mut self, now: Time, out: &mut Output) {
        Self::tick(self, now, out);
    }

    #[inline]
    fn deadline(&self) -> Option<Time> {
        Self::deadline(self)
    }

    fn status(&self) -> ControlStatus {
        Self::status(self)
    }

    fn differences_of(&self, peer: ReplicaId) -> u64 {
        Self::differences_of(self, peer)
    }
}

fn handler(kind: u8) -> Option<Handler> {
    match kind {
        kind::PRE_PREPARE
        | kind::PREPARE
        | kind::COMMIT
        | kind::COMMITTED
        | kind::CHECKPOINT
        | kind::ORDER_REQUEST
        | kind::BODY_REQUEST
        | kind::BODY => Some(Handler::Pillar),
        kind::VIEW_CHANGE
        | kind::VIEW_CHANGE_ACK
        | kind::NEW_VIEW
        | kind::STATE_REQUEST
        | kind::STABLE => Some(Handler::Control),
        _ => None,
    }
}

fn cost(kind: u8) -> Option<Cost> {
    Some(match kind {
        kind::PRE_PREPARE | kind::PREPARE | kind::COMMIT => Cost::new(Class::Ordering, 0, 0),
        kind::COMMITTED | kind::CHECKPOINT | kind::STABLE => Cost::new(Class::Ordering, 500, 0),
        // Is hashed, if it was asked for.
        kind::BODY => Cost::new(Class::Ordering, 0, 256),
        // An answer is looked for, and made.
        kind::ORDER_REQUEST => Cost::new(Class::Asking, 4_000, 0),
        kind::BODY_REQUEST | kind::STATE_REQUEST => Cost::new(Class::Asking, 8_000, 0),
        kind::VIEW_CHANGE | kind::VIEW_CHANGE_ACK => Cost::new(Class::Changing, 4_000, 256),
        // What it decides is decided again.
        kind::NEW_VIEW => Cost::new(Class::Changing, 8_000, 1_000),
        _ => return None,
    })
}
